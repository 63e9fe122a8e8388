//! The configuration of a CNI network: where it is found and what it says (CNI spec, section 1).

use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

const DIRECTORY: &str = "/etc/cni/net.d";
/// Most bytes of a configuration.
const MAX: u64 = 1 << 20;

/// A list of plugins that make one network together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    pub version: String,
    pub name: String,
    pub plugins: Vec<Map<String, Value>>,
}

/// The network called `name`, or the first one in the order of the files' names; `None` if there is no file at all.
///
/// # Errors
/// A file is not one, or none has the name.
pub fn find(name: Option<&str>) -> Result<Option<List>> {
    let directory =
        std::env::var("NETCONFPATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| DIRECTORY.into());
    let mut names = vec![];
    for path in files(Path::new(&directory))? {
        let list = read(&path)?;
        if name.is_none_or(|name| name == list.name) {
            return Ok(Some(list));
        }
        names.push(list.name);
    }
    match name {
        None => Ok(None),
        Some(name) => {
            let known = if names.is_empty() { "none".into() } else { names.join(", ") };
            Err(Error::other(format!("{directory} has no network {name:?}")).hint(format!("it has {known}")))
        }
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.doing(|| format!("read {}", directory.display()))?,
    };
    let is_one = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ["conflist", "conf", "json"].iter().any(|known| ending == *known))
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
    all.sort();
    Ok(all)
}

fn read(path: &Path) -> Result<List> {
    let doing = || format!("read {}", path.display());
    let text = std::fs::File::open(path).and_then(|file| std::io::read_to_string(std::io::Read::take(file, MAX)));
    parse(&text.doing(doing)?).doing(doing)
}

/// A list of plugins, or one plugin alone.
fn parse(text: &str) -> Result<List> {
    let mut whole: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| Error::other(format!("it is no configuration: {error}")))?;
    let word = |whole: &Map<String, Value>, key: &str| whole.get(key).and_then(Value::as_str).map(str::to_owned);
    let name =
        word(&whole, "name").filter(|name| !name.is_empty()).ok_or_else(|| Error::other("\"name\" is missing"))?;
    let version = word(&whole, "cniVersion").unwrap_or_else(|| "0.1.0".into());
    let plugins = match whole.remove("plugins") {
        None => vec![Value::Object(whole)],
        Some(Value::Array(plugins)) if !plugins.is_empty() => plugins,
        Some(_) => return Err(Error::other("\"plugins\" is no list of plugins")),
    };
    let plugins = plugins.into_iter().enumerate().map(|(i, plugin)| match plugin {
        Value::Object(plugin) if word(&plugin, "type").is_some_and(|kind| is_plain(&kind)) => Ok(plugin),
        _ => Err(Error::other(format!("plugins[{i}]: \"type\" is no name of a plugin"))),
    });
    Ok(List { version, name, plugins: plugins.collect::<Result<_>>()? })
}

/// A name of a file in the directories of plugins, and in none of theirs.
fn is_plain(kind: &str) -> bool {
    !kind.is_empty() && kind != "." && kind != ".." && !kind.contains('/')
}

impl List {
    /// What `--network bridge` is where no file says it: a bridge whose containers reach each other and, masqueraded, the world.
    pub fn built_in() -> Self {
        let plugin = |value: Value| match value {
            Value::Object(plugin) => plugin,
            _ => Map::new(),
        };
        Self {
            version: "0.4.0".into(),
            name: "kelson".into(),
            plugins: vec![
                plugin(json!({
                    "type": "bridge", "bridge": "kelson1", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "ranges": [[{"subnet": "10.86.0.0/16", "gateway": "10.86.0.1"}]],
                    },
                })),
                plugin(json!({"type": "portmap", "capabilities": {"portMappings": true}})),
                plugin(json!({"type": "firewall"})),
            ],
        }
    }

    /// One of the plugins is told of `capability`.
    pub fn has(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| is_capable(plugin, capability))
    }

    /// What plugin `index` reads: its own part, the list's name and version, what it is capable of, and `previous`.
    pub fn input(&self, index: usize, runtime: &Map<String, Value>, previous: Option<&Value>) -> Value {
        let mut input = self.plugins[index].clone();
        let told: Map<String, Value> = runtime
            .iter()
            .filter(|(key, _)| is_capable(&input, key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        input.insert("name".into(), json!(self.name));
        input.insert("cniVersion".into(), json!(self.version));
        if !told.is_empty() {
            input.insert("runtimeConfig".into(), told.into());
        }
        if let Some(previous) = previous {
            input.insert("prevResult".into(), previous.clone());
        }
        input.into()
    }

    /// DEL is told what ADD gave (since 0.4.0).
    pub fn tells_del(&self) -> bool {
        let mut numbers = self.version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (0, 4)
    }
}

fn is_capable(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").and_then(|all| all.get(capability)) == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_or_a_plugin_alone() {
        let list =
            parse(r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#).unwrap();
        assert_eq!((list.version.as_str(), list.name.as_str(), list.plugins.len()), ("1.0.0", "a", 2));
        let alone = parse(r#"{"cniVersion":"0.3.1","name":"b","type":"macvlan","master":"eth0"}"#).unwrap();
        assert_eq!(alone.plugins[0]["master"], "eth0");
        assert!(list.tells_del() && !alone.tells_del());
        for text in [
            "",
            "[]",
            "{}",
            r#"{"name":"a"}"#,
            r#"{"name":"","type":"x"}"#,
            r#"{"name":"a","plugins":[]}"#,
            r#"{"name":"a","plugins":[{"type":"../x"}]}"#,
            r#"{"name":"a","plugins":[1]}"#,
            r#"{"name":"a","type":".."}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plugin_reads_what_it_is_capable_of() {
        let list = List::built_in();
        let mut runtime = Map::new();
        runtime.insert("portMappings".into(), json!([{"hostPort": 1}]));
        assert!(list.has("portMappings") && !list.has("dns"));
        let bridge = list.input(0, &runtime, None);
        assert_eq!((&bridge["name"], &bridge["cniVersion"]), (&json!("kelson"), &json!("0.4.0")));
        assert!(bridge.get("runtimeConfig").is_none() && bridge.get("prevResult").is_none());
        let portmap = list.input(1, &runtime, Some(&json!({"ips": []})));
        assert_eq!(portmap["runtimeConfig"]["portMappings"], json!([{"hostPort": 1}]));
        assert_eq!(portmap["prevResult"], json!({"ips": []}));
    }
}
