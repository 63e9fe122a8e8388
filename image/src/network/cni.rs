//! Networks by CNI plugins (CNI spec 1.0, section 2): ADD in the list's order, DEL in the reverse one.

use std::net::IpAddr;
use std::path::PathBuf;

use kelson::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conflist::{self, List};
use super::record::{self, Record};
use super::{Made, State, Words, bridge, netns, program};

/// Where plugins are if CNI_PATH does not say it: CNI's own place, Debian's, Fedora's.
const PLUGINS: &str = "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni";
const PACKAGE: &str = "Debian and Fedora: package containernetworking-plugins; CNI_PATH names other directories";

/// What DEL has to know.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    namespace: PathBuf,
    container: String,
    plugins: String,
    list: List,
    runtime: Map<String, Value>,
    /// Of the last plugin that was done; `None` if none was.
    result: Option<Value>,
}

pub fn up(record: &mut Record, name: Option<&str>, words: &Words, state: &State) -> Result<Made> {
    let list = match conflist::find(name)? {
        Some(list) => list,
        None => List::built_in(),
    };
    if !words.ports.is_empty() && !list.has("portMappings") {
        let cause = format!("--publish: no plugin of network {:?} has the capability portMappings", list.name);
        return Err(Error::other(cause).hint("add {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}"));
    }
    let mut kept = Kept {
        namespace: bridge::namespace(words, state),
        container: bridge::container_id(words, state),
        plugins: std::env::var("CNI_PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| PLUGINS.into()),
        list,
        runtime: runtime(words),
        result: None,
    };
    // All are there before one does something.
    (0..kept.list.plugins.len()).try_for_each(|index| kept.plugin(index).map(drop))?;
    record.save(&record::Kept::Cni(kept.clone()))?;
    netns::hold(state.pid, &kept.namespace)?;
    kept.add(record)?;
    Ok(kept.result.as_ref().map(made).unwrap_or_default())
}

pub fn down(kept: &Kept) -> Result<()> {
    let deleted = kept.delete();
    let released = netns::release(&kept.namespace);
    deleted.and(released)
}

/// What capable plugins are told.
fn runtime(words: &Words) -> Map<String, Value> {
    let mut ports = vec![];
    for port in &words.ports {
        for index in 0..port.count {
            let mut mapping = json!({
                "hostPort": port.host + index, "containerPort": port.container + index, "protocol": port.protocol.name(),
            });
            if let Some(address) = port.address {
                mapping["hostIP"] = json!(address);
            }
            ports.push(mapping);
        }
    }
    let mut all = Map::new();
    if !ports.is_empty() {
        all.insert("portMappings".into(), ports.into());
    }
    all
}

impl Kept {
    /// After each plugin the record knows what it gave: without that some do not find what they made.
    fn add(&mut self, record: &mut Record) -> Result<()> {
        for index in 0..self.list.plugins.len() {
            let result = self.call("ADD", index, self.result.as_ref())?;
            let result = serde_json::from_str(&result).map_err(|error| {
                Error::other(format!("plugin {}: its result is not JSON: {error}", self.kind(index)))
            })?;
            self.result = Some(result);
            record.save(&record::Kept::Cni(self.clone()))?;
        }
        Ok(())
    }

    /// All of them are asked, whatever one says; the first error is given.
    fn delete(&self) -> Result<()> {
        let previous = self.result.as_ref().filter(|_| self.list.tells_del());
        (0..self.list.plugins.len())
            .rev()
            .map(|index| self.call("DEL", index, previous).map(drop))
            .fold(Ok(()), Result::and)
    }

    fn kind(&self, index: usize) -> &str {
        self.list.plugins[index].get("type").and_then(Value::as_str).unwrap_or_default()
    }

    fn plugin(&self, index: usize) -> Result<PathBuf> {
        let kind = self.kind(index);
        program::find_in(&self.plugins, kind).ok_or_else(|| {
            Error::other(format!(
                "network {:?} needs the plugin {kind:?}, which is not in {}",
                self.list.name, self.plugins
            ))
            .hint(PACKAGE)
        })
    }

    /// Standard output of plugin `index`.
    fn call(&self, command: &str, index: usize, previous: Option<&Value>) -> Result<String> {
        // A namespace that is gone is none (section 2, "DEL").
        let namespace =
            if netns::is_held(&self.namespace) { self.namespace.display().to_string() } else { String::new() };
        let environment = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &self.container),
            ("CNI_NETNS", &namespace),
            ("CNI_IFNAME", bridge::INTERFACE),
            ("CNI_ARGS", "IgnoreUnknown=1"),
            ("CNI_PATH", &self.plugins),
        ];
        let input = self.list.input(index, &self.runtime, previous).to_string();
        let output = program::run(&self.plugin(index)?, &[], &environment, &input)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
        let said = complaint(text).unwrap_or_else(|| program::said(output.status, text));
        Err(Error::other(said)).doing(|| format!("{command} by the CNI plugin {}", self.kind(index)))
    }
}

/// What an error says (section 5, "Error").
fn complaint(text: &[u8]) -> Option<String> {
    let error: Value = serde_json::from_slice(text).ok()?;
    let part = |key: &str| error.get(key).and_then(Value::as_str).filter(|part| !part.is_empty());
    let parts: Vec<&str> = [part("msg"), part("details")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(": ").replace('\n', "; "))
}

/// What a result says of the container (section 5, "Success").
fn made(result: &Value) -> Made {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let words = |value: &Value| list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    // Before 0.3.0 there were `ip4` and `ip6`.
    let entries = list(&result["ips"]).into_iter().map(|ip| ip["address"].clone());
    let entries = entries.chain([result["ip4"]["ip"].clone(), result["ip6"]["ip"].clone()]);
    Made {
        addresses: entries.filter_map(|address| address_of(address.as_str()?)).collect(),
        servers: words(&result["dns"]["nameservers"]),
        search: words(&result["dns"]["search"]),
    }
}

/// The address in `ADDRESS/PREFIX`.
pub fn address_of(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use kelson::image::network::{Network, Port};

    use super::*;

    #[test]
    fn ports_are_told_one_by_one() {
        let ports = ["127.0.0.1:8000-8001:80-81", "53:53/udp"].map(|port| Port::parse(port).unwrap()).to_vec();
        let words = Words {
            network: Network::Cni(None),
            state: "/s".into(),
            files: "/f".into(),
            ports,
            gateway_names: vec![],
            own_dns: false,
        };
        assert_eq!(
            Value::from(runtime(&words)),
            json!({"portMappings": [
                {"hostPort": 8000, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
                {"hostPort": 8001, "containerPort": 81, "protocol": "tcp", "hostIP": "127.0.0.1"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp"},
            ]})
        );
        let state = State { id: "a+b".into(), pid: 1 };
        let id = bridge::container_id(&words, &state);
        assert!(id.starts_with('k') && id.ends_with("-a_b") && id.len() == 13, "{id}");
    }

    #[test]
    fn results_and_errors_are_read() {
        let result = json!({
            "cniVersion": "0.4.0",
            "ips": [{"version": "4", "address": "10.88.0.5/16", "gateway": "10.88.0.1"}, {"address": "2001:db8::5/64"}],
            "dns": {"nameservers": ["10.88.0.1"], "search": ["lan"]},
        });
        let read = made(&result);
        assert_eq!(read.addresses, ["10.88.0.5".parse::<IpAddr>().unwrap(), "2001:db8::5".parse().unwrap()]);
        assert_eq!((read.servers, read.search), (vec!["10.88.0.1".to_owned()], vec!["lan".to_owned()]));
        let old = made(&json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}, "dns": {}}));
        assert_eq!(old.addresses, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert!(made(&json!({})).addresses.is_empty());
        let text = br#"{"cniVersion":"0.4.0","code":100,"msg":"no","details":"room\nleft"}"#;
        assert_eq!(complaint(text).as_deref(), Some("no: room; left"));
        assert_eq!(complaint(b"panic"), None);
    }
}
