//! `--network` and `-p`: what they say, the files in /etc that follow from it, and the hooks that make a network.
//!
//! A network that somebody has to make is made by the program `kelson-image` as a hook, so that any runtime can run the bundle:
//!
//! ```text
//! createRuntime  kelson-image hook network-up   pasta --state DIR --files DIR -p 8080:80/tcp
//! poststop       kelson-image hook network-down pasta --state DIR …
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Options;
use super::helper::in_path;
use super::options::Host;
use crate::error::{Error, Result};

/// `--network`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A namespace with nothing but loopback.
    #[default]
    None,
    Host,
    /// A namespace that exists (`ns:PATH`).
    Path(PathBuf),
    /// pasta(1) with further options of its own: the host's sockets, without a privilege.
    Pasta(Vec<String>),
    /// The CNI configuration with this name; `None` is the first one.
    Cni(Option<String>),
    /// netavark with the network of this name, or of this file; `None` is one of ours.
    Netavark(Option<String>),
}

/// `-p`: `count` ports from `host` on reach as many from `container` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// `None`: all of the host's.
    pub address: Option<IpAddr>,
    pub host: u16,
    pub container: u16,
    pub count: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// The program that the hooks are.
#[derive(Debug)]
pub struct Helper {
    pub program: PathBuf,
    /// Where it keeps what it has to know later: a directory that outlives the container's own.
    pub state: PathBuf,
}

/// Where pasta listens for names inside and asks the host's first server, as for podman.
pub const DNS_FORWARD: &str = "169.254.1.1";
/// What of the caller's environment configures the hooks.
const ENVIRONMENT: [&str; 3] = ["PATH", "CNI_PATH", "NETCONFPATH"];
const KNOWN: &str = "none, host, ns:/PATH, pasta[:OPTION,…], bridge, cni:NAME or netavark[:NAME]";

impl Network {
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::usage(format!("--network: {text:?} is not understood")).hint(KNOWN);
        let (kind, rest) = match text.split_once(':') {
            Some((_, "")) => return Err(wrong()),
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        let name = || match rest {
            // What would be a path is none by accident.
            Some(name) if !name.starts_with('/') && name.contains('/') => Err(wrong()),
            name => Ok(name.map(str::to_owned)),
        };
        match (kind, rest) {
            ("none", None) => Ok(Self::None),
            ("host", None) => Ok(Self::Host),
            ("ns", Some(path)) if path.starts_with('/') => Ok(Self::Path(path.into())),
            ("pasta", options) => {
                Ok(Self::Pasta(options.iter().flat_map(|all| all.split(',')).map(str::to_owned).collect()))
            }
            ("bridge", None) => Ok(Self::Cni(None)),
            ("cni", Some(plain)) if !plain.contains('/') => Ok(Self::Cni(name()?)),
            ("netavark", _) => Ok(Self::Netavark(name()?)),
            _ => Err(wrong()),
        }
    }

    /// Where nothing is said of it: pasta, or none with a warning where that is not installed.
    pub fn of_this_host() -> Self {
        if in_path("pasta").is_some() {
            return Self::Pasta(vec![]);
        }
        log::warn!(
            "the container has no network: the program pasta is not installed (Debian and Fedora: package passt; \
             --network none says that none is wanted)"
        );
        Self::None
    }

    /// Somebody has to make it when the container's namespace is there.
    pub fn needs_making(&self) -> bool {
        matches!(self, Self::Pasta(_) | Self::Cni(_) | Self::Netavark(_))
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// Ports where there is nothing to reach them by; a bridge for an ordinary user.
    pub fn check(&self, ports: &[Port], is_rootless: bool) -> Result<()> {
        if is_rootless && matches!(self, Self::Cni(_) | Self::Netavark(_)) {
            return Err(Error::usage(format!("--network {self}: an ordinary user may not add interfaces to the host"))
                .hint("--network pasta needs no privilege"));
        }
        match (self, ports) {
            (_, []) => Ok(()),
            (Self::Host, _) => Err(Error::usage("--publish: with --network host the container's ports are the host's")
                .hint("leave --publish out")),
            (Self::None | Self::Path(_), _) => {
                let cause = format!("--publish: there is nothing to reach the container by with --network {self}");
                Err(Error::usage(cause).hint("--network pasta (Debian and Fedora: package passt)"))
            }
            _ => Ok(()),
        }
    }
}

impl Host {
    /// Where it is for a container of `network`; `None`: at the gateway of its default route, which whoever makes the network finds.
    ///
    /// # Errors
    /// `host-gateway`, and the container does not reach the host.
    fn address_in(&self, network: &Network) -> Result<Option<IpAddr>> {
        let unreachable = |hint: &'static str| {
            let cause =
                format!("--add-host {}:host-gateway: with --network {network} the host has no address", self.name);
            Err(Error::usage(cause).hint(hint))
        };
        match (self.address, network) {
            (Some(address), _) => Ok(Some(address)),
            (None, Network::Host) => Ok(Some(Ipv4Addr::LOCALHOST.into())),
            (None, Network::Cni(_) | Network::Netavark(_)) => Ok(None),
            (None, Network::Pasta(options)) => match mapped(options)? {
                None if options.iter().any(|option| option == "--map-gw") => Ok(None),
                None => unreachable(
                    "with pasta:--map-gw the gateway is the host's loopback, with pasta:--map-guest-addr,ADDRESS (passt since \
                     August 2024) ADDRESS is the host",
                ),
                address => Ok(address),
            },
            (None, Network::None | Network::Path(_)) => {
                unreachable("--network host, bridge, netavark or pasta:--map-gw; or NAME:ADDRESS")
            }
        }
    }
}

/// Where pasta's options put the host: at an address of its own, or with its loopback.
fn mapped(options: &[String]) -> Result<Option<IpAddr>> {
    for option in ["--map-guest-addr", "--map-host-loopback"] {
        if let Some(pair) = options.windows(2).find(|pair| pair[0] == option && pair[1] != "none") {
            let no_address = |_| Error::usage(format!("--network: {option},{:?} is no address", pair[1]));
            return pair[1].parse().map(Some).map_err(no_address);
        }
    }
    Ok(None)
}

/// As it is written after `--network`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |name: &Option<String>| name.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Path(path) => write!(f, "ns:{}", path.display()),
            Self::Pasta(options) if options.is_empty() => f.write_str("pasta"),
            Self::Pasta(options) => write!(f, "pasta:{}", options.join(",")),
            Self::Cni(None) => f.write_str("bridge"),
            Self::Cni(name) => write!(f, "cni{}", named(name)),
            Self::Netavark(name) => write!(f, "netavark{}", named(name)),
        }
    }
}

impl Port {
    /// `[ADDRESS:]HOST[-HOST]:CONTAINER[-CONTAINER][/tcp|udp]`, docker's `-p`; an IPv6 address is in brackets.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |cause: String| {
            Err(Error::usage(format!("--publish {text}: {cause}"))
                .hint("-p [ADDRESS:]HOSTPORT[-LAST]:PORT[-LAST][/tcp|udp], such as 127.0.0.1:8080:80"))
        };
        let (ports, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.split('/').next().unwrap_or_default(), Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => return wrong(format!("the protocol {other:?} is neither tcp nor udp")),
        };
        let Some((before, container)) = ports.rsplit_once(':') else {
            return wrong("no port of the host is chosen for one that is given alone".into());
        };
        let (address, host) = match before.rsplit_once(':') {
            None => (None, before),
            Some((address, host)) => {
                let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
                let parsed = match bare {
                    Some(bare) => bare.parse().map(IpAddr::V6),
                    None => address.parse().map(IpAddr::V4),
                };
                match parsed {
                    Ok(address) => (Some(address), host),
                    Err(_) => return wrong(format!("{address:?} is no address")),
                }
            }
        };
        let (Some((host, count)), Some((container, container_count))) = (range(host), range(container)) else {
            return wrong("a port is a number from 1 to 65535, and of a range the first is the lower one".into());
        };
        if count != container_count {
            return wrong(format!("{count} ports of the host and {container_count} of the container"));
        }
        Ok(Self { address, host, container, count, protocol })
    }

    /// The last one of the host and of the container.
    pub fn last(&self) -> (u16, u16) {
        (self.host + (self.count - 1), self.container + (self.count - 1))
    }
}

/// `FIRST[-LAST]` as the first one and how many.
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| is_plain && *port > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// As it is written after `-p`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => {}
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        let (host, container) = self.last();
        match self.count {
            1 => write!(f, "{host}:{container}")?,
            _ => write!(f, "{}-{host}:{}-{container}", self.host, self.container)?,
        }
        write!(f, "/{}", self.protocol.name())
    }
}

/// `hooks` of config.json; `dir` is where the files of [`files`] are.
///
/// # Errors
/// A path is not valid UTF-8; a host is nowhere.
pub fn hooks(network: &Network, options: &Options, helper: &Helper, dir: &Path) -> Result<Value> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| Error::other(format!("{} is not valid UTF-8", path.display())))
    };
    let program = text(&helper.program)?;
    let (state, files) = (text(&helper.state)?, text(dir)?);
    let ports: Vec<String> = options.publish.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]).collect();
    let mut at_gateway = vec![];
    for host in &options.add_host {
        if host.address_in(network)?.is_none() {
            at_gateway.extend(["--host-gateway".to_owned(), host.name.clone()]);
        }
    }
    let environment: Vec<String> =
        ENVIRONMENT.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?))).collect();
    let hook = |command: &str| {
        let mut words = ["kelson-image", "hook", command, &network.to_string(), "--state", &state, "--files", &files]
            .map(str::to_owned)
            .to_vec();
        words.extend(ports.iter().chain(&at_gateway).cloned());
        if !options.dns.is_empty() {
            // What the network says of name servers is not asked for.
            words.push("--own-dns".into());
        }
        json!([{"path": program, "args": words, "env": environment}])
    };
    Ok(json!({"createRuntime": hook("network-up"), "poststop": hook("network-down")}))
}

/// Files in /etc that are about the container's network and not the image's: names and contents. What the network's gateway is
/// called is written by who makes it.
///
/// # Errors
/// A host is nowhere.
pub fn files(network: &Network, options: &Options, hostname: &str) -> Result<Vec<(&'static str, String)>> {
    let mut hosts = match network {
        Network::Host => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        _ => format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t{hostname}\n"
        ),
    };
    for host in &options.add_host {
        if let Some(address) = host.address_in(network)? {
            hosts.push_str(&format!("{address}\t{}\n", host.name));
        }
    }
    let of_host = || std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolv = match (&options.dns[..], network) {
        ([], Network::Pasta(own)) => reachable(&of_host(), forwarder(own)),
        ([], Network::Cni(_) | Network::Netavark(_)) => of_bridge(&of_host()),
        ([], _) => of_host(),
        (servers, _) => servers.iter().map(|server| format!("nameserver {server}\n")).collect(),
    };
    Ok(vec![("hosts", hosts), ("hostname", format!("{hostname}\n")), ("resolv.conf", resolv)])
}

/// Where pasta answers for the host's server: where its options say, or where we do.
fn forwarder(options: &[String]) -> Option<&str> {
    let given = options.windows(2).find(|pair| pair[0] == "--dns-forward").map(|pair| pair[1].as_str());
    given.or(Some(DNS_FORWARD))
}

/// The host's servers as a bridge reaches them: what listens on the host's loopback is not what a container finds on its own.
fn of_bridge(text: &str) -> String {
    let own = reachable(text, None);
    if servers(&own).next().is_some() {
        return own;
    }
    // systemd-resolved's list of those that it asks itself.
    let behind = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or_default();
    let behind = reachable(&behind, None);
    if servers(&behind).next().is_none() {
        log::warn!("the host has no name server that a container could ask (--dns ADDRESS names one)");
        return own;
    }
    behind
}

/// resolv.conf(5) with `first` in front, and without the servers that are not to be reached from another network namespace.
/// pasta forwards to the first server of the forwarder's family, so that one which could not answer is left out.
fn reachable(text: &str, first: Option<&str>) -> String {
    let is_v6 = |server: &str| server.contains(':');
    let first = first.filter(|first| servers(text).any(|server| is_v6(server) == is_v6(first)));
    let mut all = first.map(|first| format!("nameserver {first}\n")).unwrap_or_default();
    for line in text.lines() {
        let server = line.split_whitespace().next() == Some("nameserver");
        if !server || servers(line).any(|address| !is_local(address)) {
            all.push_str(line);
            all.push('\n');
        }
    }
    all
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())
    })
}

/// On the loopback interface, or of a link that a container does not have.
fn is_local(server: &str) -> bool {
    match server.parse() {
        Ok(IpAddr::V4(address)) => Ipv4Addr::is_loopback(&address) || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => Ipv6Addr::is_loopback(&address) || address.is_unspecified(),
        // `fe80::1%eth0`
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_as_it_is_read() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        for (text, network) in [
            ("none", Network::None),
            ("host", Network::Host),
            ("ns:/run/netns/x", Network::Path("/run/netns/x".into())),
            ("pasta", Network::Pasta(vec![])),
            ("pasta:-I,eth0,--ipv4-only", Network::Pasta(words(&["-I", "eth0", "--ipv4-only"]))),
            ("bridge", Network::Cni(None)),
            ("cni:lan", Network::Cni(Some("lan".into()))),
            ("netavark", Network::Netavark(None)),
            ("netavark:lan", Network::Netavark(Some("lan".into()))),
            ("netavark:/etc/lan.json", Network::Netavark(Some("/etc/lan.json".into()))),
        ] {
            assert_eq!(Network::parse(text).unwrap(), network, "{text}");
            assert_eq!(network.to_string(), text);
        }
        for text in ["", "none:x", "ns:", "ns:x", "pasta:", "bridge:x", "cni", "cni:", "cni:/x", "netavark:a/b", "what"]
        {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_as_docker_writes_them() {
        for (text, written) in [
            ("8080:80", "8080:80/tcp"),
            ("53:53/udp", "53:53/udp"),
            ("1:2/tcp", "1:2/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("8000-8002:80-82", "8000-8002:80-82/tcp"),
            ("65535:65535", "65535:65535/tcp"),
            ("1-65535:1-65535", "1-65535:1-65535/tcp"),
        ] {
            let port = Port::parse(text).unwrap();
            assert_eq!(port.to_string(), written, "{text}");
            assert_eq!(Port::parse(written).unwrap(), port, "{written}");
        }
        let port = Port::parse("10.0.0.1:8000-8009:80-89/udp").unwrap();
        assert_eq!((port.host, port.container, port.count, port.last()), (8000, 80, 10, (8009, 89)));
        assert_eq!(port.address, Some("10.0.0.1".parse().unwrap()));
        for text in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:1",
            "a:b",
            "+1:2",
            "80:80/sctp",
            "80:80/",
            "8000-8001:80",
            "8002-8000:80-82",
            "1.2.3:80:80",
            "::1:80:80",
            "localhost:80:80",
            "[::1:80:80",
            "127.0.0.1::80",
            "-1:1",
            "1-:1-",
        ] {
            assert!(Port::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let ports = [Port::parse("1:2").unwrap()];
        for (word, ports, is_rootless, says) in [
            ("none", &ports[..], false, Some("nothing to reach the container by")),
            ("ns:/x", &ports, false, Some("nothing to reach the container by")),
            ("host", &ports, false, Some("are the host's")),
            ("bridge", &[], true, Some("an ordinary user")),
            ("netavark", &[], true, Some("an ordinary user")),
            ("none", &[], true, None),
            ("host", &[], false, None),
            ("pasta", &ports, true, None),
            ("cni:x", &ports, false, None),
        ] {
            let refused = Network::parse(word).unwrap().check(ports, is_rootless).err().map(|error| error.to_string());
            match says {
                None => assert_eq!(refused, None, "{word}"),
                Some(says) => assert!(refused.as_ref().is_some_and(|text| text.contains(says)), "{word}: {refused:?}"),
            }
        }
    }

    #[test]
    fn where_the_host_is() {
        let seen = |network: &str, address: Option<&str>| {
            let host = Host { name: "h".into(), address: address.map(|address| address.parse().unwrap()) };
            let found = host.address_in(&Network::parse(network).unwrap());
            found.map(|address| address.map(|address| address.to_string())).map_err(|error| error.to_string())
        };
        assert_eq!(seen("none", Some("10.0.0.1")).unwrap().as_deref(), Some("10.0.0.1"));
        for (network, address) in [
            ("host", Some("127.0.0.1")),
            ("bridge", None),
            ("cni:lan", None),
            ("netavark", None),
            ("pasta:--map-gw", None),
            ("pasta:--map-host-loopback,none,--map-gw", None),
            ("pasta:--map-host-loopback,10.0.2.2", Some("10.0.2.2")),
            ("pasta:--map-host-loopback,10.0.2.2,--map-guest-addr,169.254.1.2", Some("169.254.1.2")),
        ] {
            assert_eq!(seen(network, None).unwrap().as_deref(), address, "{network}");
        }
        for (network, says) in [
            ("none", "--network host, bridge"),
            ("ns:/x", "--network host, bridge"),
            ("pasta", "pasta:--map-gw"),
            ("pasta:--map-host-loopback,x", "is no address"),
        ] {
            let error = seen(network, None).unwrap_err();
            assert!(error.contains(says), "{network}: {error}");
        }
    }

    #[test]
    fn servers_that_a_container_can_reach() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nsearch a b\noptions edns0\n";
        assert_eq!(reachable(text, None), "# x\nnameserver 10.0.0.1\nsearch a b\noptions edns0\n");
        assert_eq!(
            reachable(text, Some("169.254.1.1")),
            "nameserver 169.254.1.1\n# x\nnameserver 10.0.0.1\nsearch a b\noptions edns0\n"
        );
        // A forwarder of one family knows no server of the other.
        assert_eq!(reachable("nameserver 2001:db8::1\n", Some("169.254.1.1")), "nameserver 2001:db8::1\n");
        assert_eq!(forwarder(&["--dns-forward".into(), "192.0.2.1".into()]), Some("192.0.2.1"));
    }

    #[test]
    fn hooks_say_all_that_they_do() {
        let options = Options { publish: vec![Port::parse("8080:80").unwrap()], ..Options::default() };
        let helper = Helper { program: "/bin/kelson-image".into(), state: "/run/kelson".into() };
        let made = |network: Network, options: Options| {
            hooks(&network, &options, &helper, Path::new("/run/kelson/c")).unwrap()
        };
        let hooks = made(Network::Pasta(vec![]), options);
        let words = |point: &str| hooks[point][0]["args"].to_string();
        let rest = r#""pasta","--state","/run/kelson","--files","/run/kelson/c","-p","8080:80/tcp"]"#;
        assert_eq!(words("createRuntime"), format!(r#"["kelson-image","hook","network-up",{rest}"#));
        assert_eq!(words("poststop"), format!(r#"["kelson-image","hook","network-down",{rest}"#));
        assert_eq!(hooks["poststop"][0]["path"], "/bin/kelson-image");
        // What has an address is no business of theirs.
        let add_host =
            ["a:10.0.0.1", "b:host-gateway"].map(|text| crate::image::options::add_host(text).unwrap()).to_vec();
        let hooks = made(Network::Cni(None), Options { add_host, ..Options::default() });
        let words = hooks["createRuntime"][0]["args"].to_string();
        assert!(words.ends_with(r#""--files","/run/kelson/c","--host-gateway","b"]"#), "{words}");
    }
}
