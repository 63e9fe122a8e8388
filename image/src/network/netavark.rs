//! Networks by netavark: `netavark setup NAMESPACE` and `netavark teardown NAMESPACE`, both told the same on standard input.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::record::{self, Record};
use super::{Made, State, Words, bridge, cni, lease, netns, program};

/// Where it is, beside PATH: Debian's and Fedora's place.
const DIRECTORIES: &str = "/usr/local/libexec/podman:/usr/local/lib/podman:/usr/libexec/podman:/usr/lib/podman";
/// Where podman keeps networks.
const NETWORKS: &str = "/etc/containers/networks";
/// Where aardvark-dns keeps what it serves, as podman has it.
const AARDVARK: &str = "/run/containers/networks";

/// What the teardown has to know.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    namespace: PathBuf,
    container: String,
    network: String,
    addresses: Vec<IpAddr>,
    options: Value,
}

pub fn up(record: &mut Record, name: Option<&str>, words: &Words, state: &State) -> Result<Made> {
    let network = network(name)?;
    let name = network["name"].as_str().filter(|name| is_plain(name)).map(str::to_owned);
    let name = name.ok_or_else(|| Error::other("the network's \"name\" is missing"))?;
    let program = program()?;
    let mut kept = Kept {
        namespace: bridge::namespace(words, state),
        container: bridge::container_id(words, state),
        addresses: vec![],
        options: Value::Null,
        network: name,
    };
    record.save(&record::Kept::Netavark(kept.clone()))?;
    kept.addresses = lease::take(&network, &kept.network, &kept.container)?;
    kept.options = options(&kept, &network, words, state);
    record.save(&record::Kept::Netavark(kept.clone()))?;
    netns::hold(state.pid, &kept.namespace)?;
    let output = kept.call(&program, "setup")?;
    Ok(self::made(&output, &kept))
}

pub fn down(kept: &Kept) -> Result<()> {
    // Without its namespace it does nothing: nothing is in there any more.
    let torn = match netns::is_held(&kept.namespace) {
        true => program().and_then(|program| kept.call(&program, "teardown").map(drop)),
        false => Ok(()),
    };
    let released = netns::release(&kept.namespace);
    torn.and(released).and(lease::give(&kept.network, &kept.container))
}

fn program() -> Result<PathBuf> {
    program::find_in(&format!("{}:{DIRECTORIES}", program::search_path()), "netavark")
        .ok_or_else(|| program::missing("netavark", "Debian and Fedora: package netavark; --network none does without"))
}

/// The network called `name`, or of that file; `None` is one of ours.
fn network(name: Option<&str>) -> Result<Value> {
    let path = match name {
        None => return Ok(built_in()),
        Some(path) if path.starts_with('/') => PathBuf::from(path),
        Some(name) => Path::new(NETWORKS).join(format!("{name}.json")),
    };
    let doing = || format!("read the network {}", path.display());
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::other("there is no such file").hint("podman network create makes one")).doing(doing);
        }
        text => text.doing(doing)?,
    };
    let network: Value = serde_json::from_str(&text).map_err(|error| Error::other(error.to_string())).doing(doing)?;
    match network["ipam_options"]["driver"].as_str() {
        Some("host-local") | None => Ok(network),
        Some(other) => Err(Error::other(format!("the ipam driver {other:?} is not supported"))
            .hint("\"ipam_options\": {\"driver\": \"host-local\"}"))
        .doing(doing),
    }
}

fn built_in() -> Value {
    json!({
        "name": "kelson",
        "id": "6b656c736f6e".repeat(6)[..64],
        "driver": "bridge",
        "network_interface": "kelson0",
        "subnets": [{"subnet": "10.87.0.0/16", "gateway": "10.87.0.1"}],
        "ipv6_enabled": false,
        "internal": false,
        "dns_enabled": false,
        "ipam_options": {"driver": "host-local"},
    })
}

/// A name of a directory.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains('/')
}

/// What netavark reads.
fn options(kept: &Kept, network: &Value, words: &Words, state: &State) -> Value {
    let port = |port: &kelson::image::network::Port| {
        json!({
            "host_ip": port.address.map(|address| address.to_string()).unwrap_or_default(),
            "host_port": port.host,
            "container_port": port.container,
            "range": port.count,
            "protocol": port.protocol.name(),
        })
    };
    json!({
        "container_id": kept.container,
        "container_name": state.id,
        "networks": {&kept.network: {
            "interface_name": bridge::INTERFACE,
            "static_ips": kept.addresses,
            "aliases": [state.id],
        }},
        "network_info": {&kept.network: network},
        "port_mappings": words.ports.iter().map(port).collect::<Vec<_>>(),
    })
}

impl Kept {
    fn call(&self, program: &Path, command: &str) -> Result<Vec<u8>> {
        let namespace = self.namespace.display().to_string();
        let args = ["--config", AARDVARK, command, &namespace];
        let output = program::run(program, &args, &[], &self.options.to_string())?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let said = match error["error"].as_str() {
            Some(said) => said.replace('\n', "; "),
            None => program::said(output.status, &output.stderr),
        };
        Err(Error::other(said)).doing(|| format!("netavark {command}"))
    }
}

/// What it says of the container: the network's own servers, if it has any. The addresses are those that it was told.
fn made(output: &[u8], kept: &Kept) -> Made {
    let result: Value = serde_json::from_slice(output).unwrap_or_default();
    let status = &result[&kept.network];
    let words = |value: &Value| {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let interfaces = status["interfaces"].as_object().into_iter().flat_map(|all| all.values());
    let subnets = interfaces.flat_map(|interface| interface["subnets"].as_array().into_iter().flatten());
    let addresses: Vec<IpAddr> = subnets.filter_map(|subnet| cni::address_of(subnet["ipnet"].as_str()?)).collect();
    Made {
        addresses: if addresses.is_empty() { kept.addresses.clone() } else { addresses },
        servers: words(&status["dns_server_ips"]),
        search: words(&status["dns_search_domains"]),
    }
}

#[cfg(test)]
mod tests {
    use kelson::image::network::{Network, Port};

    use super::*;

    fn kept() -> Kept {
        Kept {
            namespace: "/s/c@netns".into(),
            container: "k-c".into(),
            network: "kelson".into(),
            addresses: vec!["10.87.255.254".parse().unwrap()],
            options: Value::Null,
        }
    }

    #[test]
    fn netavark_is_told_all_of_a_container() {
        let ports = vec![Port::parse("127.0.0.1:8000-8001:80-81").unwrap()];
        let words = Words {
            network: Network::Netavark(None),
            state: "/s".into(),
            files: "/f".into(),
            ports,
            gateway_names: vec![],
            own_dns: false,
        };
        let told = options(&kept(), &network(None).unwrap(), &words, &State { id: "c".into(), pid: 1 });
        assert_eq!(told["networks"]["kelson"]["static_ips"], json!(["10.87.255.254"]));
        assert_eq!(told["network_info"]["kelson"]["network_interface"], "kelson0");
        assert_eq!(
            told["port_mappings"],
            json!([{"host_ip": "127.0.0.1", "host_port": 8000, "container_port": 80, "range": 2, "protocol": "tcp"}])
        );
        assert_eq!(told["network_info"]["kelson"]["id"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn what_netavark_says_is_read() {
        let output = br#"{"kelson":{"dns_search_domains":["dns.podman"],"dns_server_ips":["10.87.0.1"],
            "interfaces":{"eth0":{"mac_address":"x","subnets":[{"gateway":"10.87.0.1","ipnet":"10.87.0.9/16"}]}}}}"#;
        let read = made(output, &kept());
        assert_eq!(read.addresses, ["10.87.0.9".parse::<IpAddr>().unwrap()]);
        assert_eq!((read.servers, read.search), (vec!["10.87.0.1".to_owned()], vec!["dns.podman".to_owned()]));
        assert_eq!(made(b"", &kept()).addresses, kept().addresses);
    }
}
