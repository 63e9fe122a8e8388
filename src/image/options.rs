//! What docker's flags say, read and checked: the words of `run --image` and `bundle` as data.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

pub use super::network::{Network, Port};
use crate::error::{Error, Result};

/// What is asked of an image beside its own configuration. `None`, empty and false are docker's defaults.
#[derive(Debug, Default)]
pub struct Options {
    /// `--image`: a name, a file, `oci:DIR:TAG`, `docker://NAME`, ….
    pub image: OsString,
    /// `--store`
    pub store: Option<PathBuf>,
    pub platform: Option<String>,
    pub pull: Pull,
    /// Registries that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// How much a layer may be; `kelson-image` reads it.
    pub unpack_limits: Option<OsString>,
    /// `--quiet`: no progress of a download.
    pub quiet: bool,

    /// The words after the options, in place of Cmd.
    pub command: Vec<OsString>,
    /// In place of Entrypoint and Cmd; an empty word takes the Entrypoint away.
    pub entrypoint: Option<String>,
    /// `KEY=value`, or `KEY` for the caller's own value; those of `--env-file` come first.
    pub env: Vec<OsString>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub hostname: Option<String>,
    /// `None`: a terminal if the caller has one.
    pub tty: Option<bool>,
    pub interactive: Option<bool>,
    pub init: bool,
    pub stop_signal: Option<String>,
    /// `KEY=value`
    pub labels: Vec<String>,
    pub annotations: Vec<String>,

    pub mounts: Vec<Mount>,
    pub read_only: bool,
    pub shm_size: Option<i64>,
    pub upper: Option<PathBuf>,
    pub keep_layer: bool,

    pub memory: Option<i64>,
    pub memory_swap: Option<i64>,
    pub memory_reservation: Option<i64>,
    /// `--cpus` in thousandths.
    pub cpus: Option<u64>,
    pub cpu_shares: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    pub oom_score_adj: Option<i32>,
    pub sysctls: Vec<(String, String)>,

    pub cgroup_parent: Option<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security: Security,
    pub devices: Vec<Device>,
    pub privileged: bool,
    pub userns: UserNs,
    pub pid_host: bool,
    pub ipc_host: bool,
    pub uts_host: bool,

    /// `None`: pasta where it is installed.
    pub network: Option<Network>,
    pub publish: Vec<Port>,
    pub add_host: Vec<Host>,
    pub dns: Vec<IpAddr>,
}

/// When a name is looked for in its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// When the store lacks it.
    #[default]
    Missing,
    Always,
    Never,
}

/// `--userns`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserNs {
    /// An ordinary user gets one, root none.
    #[default]
    Default,
    /// One of the container's own: an ordinary user's, else with ids that no other container has.
    Own,
    /// An ordinary user's, in which the caller has the same id as outside.
    KeepId,
    /// None: users are the host's.
    Host,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A new file system in memory.
    Tmpfs,
    /// A path of the host.
    Host(String),
    /// A directory that the store keeps under this name; made with what the image has at the target, if `is_filled`.
    Volume { name: String, is_filled: bool },
}

/// `-v`, `--mount` and `--tmpfs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub source: Source,
    pub target: String,
    /// Options in the words of config.json.
    pub options: Vec<String>,
}

/// `--ulimit`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// `RLIMIT_NOFILE`
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// `--add-host`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// `None`: `host-gateway`, by which the host itself is reached.
    pub address: Option<IpAddr>,
}

/// `--device`; a directory stands for the devices below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub host: String,
    pub target: String,
    /// Letters of `rwm`.
    pub access: String,
}

/// `--security-opt`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    pub no_new_privileges: bool,
    /// `seccomp=unconfined`
    pub no_seccomp: bool,
    /// `seccomp=FILE`: a profile such as `linux.seccomp`, or in docker's format.
    pub seccomp_file: Option<PathBuf>,
    pub apparmor: Option<String>,
    pub selinux_label: Option<String>,
    /// `systempaths=unconfined`: nothing of /proc and /sys is masked or read-only.
    pub open_system_paths: bool,
}

fn wrong(option: &str, text: &str, hint: &'static str) -> Error {
    Error::usage(format!("{option}: {text:?} is not understood")).hint(hint)
}

/// `HOST:TARGET[:OPTIONS]`, docker's `-v`.
pub fn volume(text: &str) -> Result<Mount> {
    let hint = "-v /HOST/PATH|NAME:/CONTAINER/PATH[:ro|rw,rprivate|rslave|rshared,nocopy]";
    let mut parts = text.split(':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(target), options, None) => (source, target, options.unwrap_or_default()),
        (Some(_), None, ..) => {
            return Err(Error::usage(format!("-v {text}: a volume without a name is not kept"))
                .hint("give NAME:TARGET or HOST:TARGET, or --tmpfs TARGET for one that vanishes"));
        }
        _ => return Err(wrong("-v", text, hint)),
    };
    let mut is_filled = true;
    let mut words = vec!["rbind".to_owned()];
    let mut propagation = "rprivate";
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" => {}
            "ro" => words.push("ro".into()),
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => propagation = option,
            "nocopy" => is_filled = false,
            "consistent" | "cached" | "delegated" => {}
            "noexec" | "nosuid" | "nodev" | "exec" | "suid" | "dev" => words.push(option.into()),
            _ => return Err(wrong("-v", text, hint)),
        }
    }
    words.push(propagation.into());
    let source = match source {
        path if path.starts_with(['/', '.']) => Source::Host(path.to_owned()),
        name if is_volume_name(name) => Source::Volume { name: name.to_owned(), is_filled },
        name => {
            return Err(Error::usage(format!("-v: {name:?} is neither a path nor a volume's name"))
                .hint("a host path begins with / or ., a name is made of A-Z a-z 0-9 _ . and -"));
        }
    };
    Ok(Mount { source, target: absolute("-v", target)?, options: words })
}

/// Whether `name` can be a volume's, which is a file name (docker's rule).
fn is_volume_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (2..=255).contains(&name.len()) && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(is_allowed)
}

/// `[type=volume,]source=NAME,target=…,readonly`, `type=bind,source=…,target=…` or `type=tmpfs,target=…,tmpfs-size=…`, docker's
/// `--mount`.
pub fn mount(text: &str) -> Result<Mount> {
    let hint = "type=bind,source=/HOST,target=/CONTAINER[,readonly], [type=volume,]source=NAME,target=/CONTAINER[,readonly,volume-nocopy] or type=tmpfs,target=/CONTAINER[,tmpfs-size=64m,tmpfs-mode=1777]";
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut words, mut propagation, mut recursive) = (vec![], None, true);
    let mut tmpfs = vec![];
    let mut is_filled = true;
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match (key, value) {
            ("type", "bind" | "tmpfs" | "volume") => kind = value,
            ("volume-nocopy", "true" | "1") => is_filled = false,
            ("volume-nocopy", "false" | "0") => {}
            ("source" | "src", _) => source = Some(value.to_owned()),
            ("target" | "destination" | "dst", _) => target = Some(absolute("--mount", value)?),
            ("readonly" | "ro", "true" | "1") => words.push("ro".to_owned()),
            ("readonly" | "ro", "false" | "0") => {}
            ("bind-propagation", "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared") => {
                propagation = Some(value)
            }
            ("bind-nonrecursive", "true" | "1") => recursive = false,
            ("bind-nonrecursive", "false" | "0") => {}
            ("tmpfs-size", _) => tmpfs.push(format!("size={}", size("--mount", value)?)),
            ("tmpfs-mode", _) if !value.is_empty() && value.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) => {
                tmpfs.push(format!("mode={value}"))
            }
            _ => return Err(wrong("--mount", text, hint)),
        }
    }
    let target = target.ok_or_else(|| wrong("--mount", text, hint))?;
    // What is said of another type is a mistake in one of the two.
    let (is_bind, is_volume, is_tmpfs) = (propagation.is_some() || !recursive, !is_filled, !tmpfs.is_empty());
    if (is_bind && kind != "bind") || (is_volume && kind != "volume") || (is_tmpfs && kind != "tmpfs") {
        return Err(Error::usage(format!("--mount {text}: type={kind} has options of another type")).hint(hint));
    }
    let source = match (kind, source) {
        ("tmpfs", None) => {
            words.extend(["nosuid", "nodev", "noexec"].map(str::to_owned));
            words.extend(tmpfs);
            return Ok(Mount { source: Source::Tmpfs, target, options: words });
        }
        ("bind", Some(source)) => Source::Host(source),
        ("volume", Some(name)) if is_volume_name(&name) => Source::Volume { name, is_filled },
        ("volume", Some(name)) => {
            return Err(Error::usage(format!("--mount {text}: {name:?} is no volume's name"))
                .hint("type=bind mounts a path of the host; a name is made of A-Z a-z 0-9 _ . and -"));
        }
        ("volume", None) => {
            return Err(Error::usage(format!("--mount {text}: a volume without a name is not kept"))
                .hint("source=NAME, or type=tmpfs for one that vanishes"));
        }
        _ => return Err(wrong("--mount", text, hint)),
    };
    words.insert(0, if recursive { "rbind" } else { "bind" }.into());
    words.push(propagation.unwrap_or("rprivate").into());
    Ok(Mount { source, target, options: words })
}

/// `TARGET[:OPTIONS]`, docker's `--tmpfs`.
pub fn tmpfs(text: &str) -> Result<Mount> {
    let (target, given) = text.split_once(':').unwrap_or((text, ""));
    let mut options = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    options.extend(given.split(',').filter(|word| !word.is_empty()).map(str::to_owned));
    Ok(Mount { source: Source::Tmpfs, target: absolute("--tmpfs", target)?, options })
}

fn absolute(option: &str, target: &str) -> Result<String> {
    if !target.starts_with('/') || target == "/" || target.split('/').any(|part| part == "..") {
        let cause = format!("{option}: {target:?} is no absolute path below the container's root");
        return Err(Error::usage(cause));
    }
    Ok(target.to_owned())
}

fn size(option: &str, text: &str) -> Result<i64> {
    crate::units::bytes(text)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| wrong(option, text, "a size is a number of bytes, or one with k, m or g"))
}

/// `NAME=SOFT[:HARD]`, docker's `--ulimit`; -1 is unlimited.
pub fn ulimit(text: &str) -> Result<Ulimit> {
    let hint = "--ulimit nofile=1024:2048";
    let parsed = || {
        let (name, limits) = text.split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| if text == "-1" { Some(u64::MAX) } else { text.parse().ok() };
        let known = [
            "as",
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let name = known.contains(&name).then(|| format!("RLIMIT_{}", name.to_ascii_uppercase()))?;
        let (soft, hard) = (number(soft)?, number(hard)?);
        (soft <= hard).then_some(Ulimit { name, soft, hard })
    };
    parsed().ok_or_else(|| wrong("--ulimit", text, hint))
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, docker's `--add-host`; an IPv6 address may be in brackets.
pub fn add_host(text: &str) -> Result<Host> {
    let hint = "--add-host NAME:ADDRESS, such as db:10.0.0.2 or db=[2001:db8::2]; NAME:host-gateway is the host itself";
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| wrong("--add-host", text, hint))?;
    if !is_host_name(name) || name.contains(':') {
        return Err(Error::usage(format!("--add-host: {name:?} is no host's name")).hint(hint));
    }
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    let address = match bare.parse() {
        Ok(address) => Some(address),
        Err(_) if address == "host-gateway" => None,
        Err(_) => return Err(Error::usage(format!("--add-host {name}: {address:?} is no address")).hint(hint)),
    };
    Ok(Host { name: name.to_owned(), address })
}

/// Whether hosts(5) reads it as one name.
fn is_host_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control())
}

/// docker's `--hostname`.
pub fn hostname(text: &str) -> Result<String> {
    match is_host_name(text) {
        true => Ok(text.to_owned()),
        false => Err(Error::usage(format!("--hostname: {text:?} is no host's name")).hint("one word, such as web-1")),
    }
}

/// docker's `--dns`.
pub fn server(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| wrong("--dns", text, "the address of a name server, such as 10.0.0.1 or 2001:db8::1"))
}

/// docker's `--shm-size`. A tmpfs of size 0 would have no limit (tmpfs(5)).
pub fn shm_size(text: &str) -> Result<i64> {
    size("--shm-size", text)
}

/// The variables in a file for docker's `--env-file`: one a line, as `-e` takes it.
pub fn variables(text: &str) -> Result<Vec<&str>> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let check = |line| {
        let name = str::split(line, '=').next().unwrap_or_default();
        match name.contains(char::is_whitespace) {
            // `export A=b` is the shell's.
            true => Err(Error::usage(format!("the variable {name:?} has a space in its name"))
                .hint("KEY=VALUE or KEY, one a line, without quotes or export")),
            false => Ok(line),
        }
    };
    lines.map(check).collect()
}

/// `HOST[:TARGET][:rwm]`, docker's `--device`.
pub fn device(text: &str) -> Result<Device> {
    let is_access = |word: &str| !word.is_empty() && word.bytes().all(|byte| b"rwm".contains(&byte));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, target] => (host, target, "rwm"),
        [host, target, access] if is_access(access) => (host, target, access),
        _ => return Err(wrong("--device", text, "--device /dev/HOST[:/dev/CONTAINER][:rwm]")),
    };
    Ok(Device { host: host.to_owned(), target: absolute("--device", target)?, access: access.to_owned() })
}

impl Security {
    /// Adds one `--security-opt`.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let (key, value) = text.split_once(['=', ':']).unwrap_or((text, "true"));
        match (key, value) {
            ("no-new-privileges", "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("seccomp", "unconfined") => self.no_seccomp = true,
            ("seccomp", "builtin") => (self.no_seccomp, self.seccomp_file) = (false, None),
            ("seccomp", file) => self.seccomp_file = Some(file.into()),
            ("apparmor", profile) => self.apparmor = Some(profile.to_owned()),
            ("systempaths", "unconfined") => self.open_system_paths = true,
            ("label", "disable") => self.selinux_label = None,
            ("label", label) if label.matches(':').count() >= 3 => self.selinux_label = Some(label.to_owned()),
            _ => {
                return Err(wrong(
                    "--security-opt",
                    text,
                    "no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE, systempaths=unconfined, label=disable|USER:ROLE:TYPE:LEVEL",
                ));
            }
        }
        Ok(())
    }
}

/// `1.5` as 1500.
pub fn cpus(text: &str) -> Result<u64> {
    let parsed = || {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + part.len() == 0 || !is_number(whole) || !is_number(part) {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let thousandths: u64 = format!("{part:0<3.3}").parse().ok()?;
        whole.checked_mul(1000)?.checked_add(thousandths).filter(|cpus| (10..=1_000_000_000).contains(cpus))
    };
    parsed().ok_or_else(|| wrong("--cpus", text, "a number of CPUs such as 1.5, at least 0.01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let options = |text: &str| volume(text).map(|mount| mount.options.join(",")).map_err(|error| error.to_string());
        assert_eq!(options("/a:/b").unwrap(), "rbind,rprivate");
        assert_eq!(options("./a:/b:ro,rslave").unwrap(), "rbind,ro,rslave");
        let named = |name: &str, is_filled| Source::Volume { name: name.into(), is_filled };
        assert_eq!(volume("data:/b").unwrap().source, named("data", true));
        assert_eq!(volume("my_data.1:/b:ro,nocopy").unwrap().source, named("my_data.1", false));
        assert_eq!(volume("./data:/b").unwrap().source, Source::Host("./data".into()));
        for text in
            ["/a", "a:/b", "a/b:/b", "-ab:/b", "ab", "/a:b", "/a:/", "/a:/b/../..", "/a:/b:what", "/a:/b:ro:x", ""]
        {
            assert!(options(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts() {
        let read = |text: &str| mount(text).map(|mount| (mount.source, mount.target, mount.options.join(",")));
        assert_eq!(
            read("type=bind,source=/a,target=/b,readonly").unwrap(),
            (Source::Host("/a".into()), "/b".into(), "rbind,ro,rprivate".into())
        );
        assert_eq!(
            read("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap(),
            (Source::Tmpfs, "/t".into(), "nosuid,nodev,noexec,size=1048576,mode=1777".into())
        );
        assert_eq!(
            read("type=volume,source=data,target=/b,volume-nocopy").unwrap(),
            (Source::Volume { name: "data".into(), is_filled: false }, "/b".into(), "rbind,rprivate".into())
        );
        // docker's default; never a path of the host by accident.
        assert_eq!(
            read("source=data,target=/b").unwrap(),
            (Source::Volume { name: "data".into(), is_filled: true }, "/b".into(), "rbind,rprivate".into())
        );
        assert!(mount("source=/a,target=/b").unwrap_err().way_out().is_some_and(|hint| hint.contains("type=bind")));
        for text in [
            "",
            "type=volume,target=/a",
            "type=volume,source=/a,target=/a",
            "type=volume,source=data,target=/a,bind-propagation=rslave",
            "type=volume,source=data,target=/a,tmpfs-size=1",
            "type=bind,source=/a,target=/b,volume-nocopy",
            "type=tmpfs,target=/a,bind-propagation=rslave",
            "type=tmpfs,target=/a,tmpfs-mode=",
            "target=/a",
            "source=/a",
            "type=tmpfs,source=/a,target=/b",
            "type=bind,source=/a,target=/b,tmpfs-size=1",
            "type=tmpfs,target=/a,tmpfs-mode=9",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(ulimit("nofile=1:2").unwrap(), Ulimit { name: "RLIMIT_NOFILE".into(), soft: 1, hard: 2 });
        assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
        for text in ["nofile", "files=1", "nofile=2:1", "nofile=x"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
        for (text, thousandths) in [("1", 1000), ("1.5", 1500), (".25", 250), ("0.0125", 12), ("2.", 2000)] {
            assert_eq!(cpus(text).unwrap(), thousandths, "{text}");
        }
        for text in ["", ".", "-1", "1e3", "0", "0.001", "x"] {
            assert!(cpus(text).is_err(), "{text}");
        }
        assert_eq!(shm_size("1m").unwrap(), 1 << 20);
        for text in ["0", "-1", "x"] {
            assert!(shm_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let read = |text: &str| add_host(text).map(|host| (host.name, host.address.map(|address| address.to_string())));
        for (text, name, address) in [
            ("db:10.0.0.2", "db", Some("10.0.0.2")),
            ("db=10.0.0.2", "db", Some("10.0.0.2")),
            ("a_b.c:::1", "a_b.c", Some("::1")),
            ("db=::1", "db", Some("::1")),
            ("db:[::1]", "db", Some("::1")),
            ("db=[2001:db8::2]", "db", Some("2001:db8::2")),
            ("host:host-gateway", "host", None),
            ("host=host-gateway", "host", None),
        ] {
            assert_eq!(read(text).unwrap(), (name.to_owned(), address.map(str::to_owned)), "{text}");
        }
        for text in [
            "",
            "db",
            "db:",
            ":10.0.0.2",
            "=10.0.0.2",
            "db:x",
            "db:10.0.0",
            "db:10.0.0.2\n",
            "db:10.0.0.2 other",
            "db:[::1",
            "db:[host-gateway]",
            "db:10.0.0.2=1",
            "a b:10.0.0.2",
            "a\n1.2.3.4 b:10.0.0.2",
            "#a:10.0.0.2",
            "a:b=10.0.0.2",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn words_of_the_network() {
        assert_eq!(server("10.0.0.1").unwrap().to_string(), "10.0.0.1");
        assert_eq!(server("2001:db8::1").unwrap().to_string(), "2001:db8::1");
        for text in ["", "dns.example", "10.0.0", "10.0.0.1:53", "10.0.0.1\nsearch x", "fe80::1%eth0"] {
            assert!(server(text).is_err(), "{text:?}");
        }
        assert_eq!(hostname("web-1.example").unwrap(), "web-1.example");
        for text in ["", "a b", "a\nb", "a#b"] {
            assert!(hostname(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn variables_of_a_file() {
        let text = "# not this\n\n A=b c\nB\nC='d'\n";
        assert_eq!(variables(text).unwrap(), ["A=b c", "B", "C='d'"]);
        for text in ["export A=b", "A =b", "A b"] {
            assert!(variables(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices() {
        let read =
            |text: &str| device(text).map(|device| format!("{} {} {}", device.host, device.target, device.access));
        assert_eq!(read("/dev/a").unwrap(), "/dev/a /dev/a rwm");
        assert_eq!(read("/dev/a:r").unwrap(), "/dev/a /dev/a r");
        assert_eq!(read("/dev/a:/dev/b").unwrap(), "/dev/a /dev/b rwm");
        assert_eq!(read("/dev/a:/dev/b:rw").unwrap(), "/dev/a /dev/b rw");
        assert!(read("/dev/a:/dev/b:x").is_err());
        assert!(read("a:b").is_err());
    }

    #[test]
    fn security_options() {
        let mut security = Security::default();
        for text in ["no-new-privileges", "seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"] {
            security.add(text).unwrap();
        }
        assert!(security.no_new_privileges && security.no_seccomp && security.open_system_paths);
        for text in ["", "what", "no-new-privileges=maybe", "label=type:x"] {
            assert!(security.add(text).is_err(), "{text}");
        }
    }
}
