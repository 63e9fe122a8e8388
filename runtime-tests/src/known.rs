//! `known.toml`: tests that a runtime fails, and why.

use std::path::Path;

/// One difference that is known.
#[derive(Clone, Debug)]
pub struct Known {
    /// Base name of the runtime: `runc`.
    pub runtime: String,
    /// How its version starts; empty for any.
    pub version: String,
    /// Full names of tests; a trailing `*` stands for any rest.
    pub tests: Vec<String>,
    /// `v1`, `v2`, or empty for both.
    pub cgroup: String,
    /// The test may pass as well (a race, a machine).
    pub sometimes: bool,
    /// The runtime is vulnerable: should the test pass here, it shows nothing, and that is a failure.
    pub control: bool,
    pub why: String,
}

/// Reads the list.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn load(path: &Path) -> Result<Vec<Known>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let table: toml::Table = text.parse().map_err(|e| format!("{}: {e}", path.display()))?;
    let entries = table.get("known").and_then(|k| k.as_array()).cloned().unwrap_or_default();
    entries
        .iter()
        .enumerate()
        .map(|(i, e)| entry(e).map_err(|e| format!("{}: known[{i}]: {e}", path.display())))
        .collect()
}

fn entry(value: &toml::Value) -> Result<Known, String> {
    let table = value.as_table().ok_or("not a table")?;
    let text = |key: &str| table.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let flag = |key: &str| table.get(key).and_then(|v| v.as_bool()).unwrap_or(false);
    for key in table.keys() {
        if !["runtime", "version", "tests", "cgroup", "sometimes", "control", "why"].contains(&key.as_str()) {
            return Err(format!("unknown key {key:?}"));
        }
    }
    let tests: Vec<String> = table
        .get("tests")
        .and_then(|v| v.as_array())
        .map(|a| a.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect())
        .unwrap_or_default();
    let known = Known {
        runtime: text("runtime"),
        version: text("version"),
        tests,
        cgroup: text("cgroup"),
        sometimes: flag("sometimes"),
        control: flag("control"),
        why: text("why"),
    };
    if known.runtime.is_empty() || known.tests.is_empty() || known.why.is_empty() {
        return Err("runtime, tests and why are needed".into());
    }
    Ok(known)
}

/// The entry that speaks of `test` under this runtime.
pub fn find<'a>(list: &'a [Known], runtime: &str, version: &str, cgroup: &str, test: &str) -> Option<&'a Known> {
    list.iter().find(|k| {
        k.runtime == runtime
            && version.starts_with(&k.version)
            && (k.cgroup.is_empty() || k.cgroup == cgroup)
            && k.tests.iter().any(|t| match t.strip_suffix('*') {
                Some(start) => test.starts_with(start),
                None => t == test,
            })
    })
}
