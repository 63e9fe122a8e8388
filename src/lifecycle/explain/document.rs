//! What is told: steps in order, each a table of things; as text and as JSON from the same fields.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// Something that would be made, written or called. Its fields are columns of text and keys of JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item(Vec<(&'static str, Value)>);

impl Item {
    pub fn new() -> Self {
        Self::default()
    }

    /// With one field more, behind the others. Items of a step have the same fields in the same order.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// One thing and what it is or becomes, with the property that says so.
    pub fn of(what: &str, value: impl Into<Value>, property: Option<&str>) -> Self {
        Self::new().with("what", what).with("value", value).with("property", property)
    }

    #[cfg(test)]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A step of create or of the container's process, called as `--timings` calls it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Step {
    pub name: &'static str,
    pub process: crate::timings::Process,
    pub items: Vec<Item>,
}

/// What the caller or the host lacks.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Lack {
    pub property: Option<String>,
    pub cause: String,
    pub way_out: Option<String>,
    /// create fails for it; otherwise what was asked for is left out.
    pub fails: bool,
}

/// All that is told of a bundle.
#[derive(Debug, serde::Serialize)]
pub struct Explanation {
    pub id: String,
    pub bundle: String,
    /// `v1`, which is also a hybrid host's, or `v2`.
    pub cgroup_version: &'static str,
    pub cgroup_manager: &'static str,
    pub rootless: bool,
    pub uid: u32,
    pub steps: Vec<Step>,
    pub lacks: Vec<Lack>,
}

impl Explanation {
    /// One line of JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self).map(|text| text + "\n")
    }

    /// A paragraph a step, and one of what is lacking. Steps with nothing to do are left out.
    pub fn text(&self) -> String {
        let Self { id, bundle, cgroup_version, cgroup_manager, uid, .. } = self;
        let mut text = format!(
            "create {id:?} of {bundle}: what would be done, in this order\n\
             as user {uid}{}, cgroup {cgroup_version}, cgroup manager {cgroup_manager}\n",
            if self.rootless { ", rootless" } else { "" }
        );
        for step in self.steps.iter().filter(|step| !step.items.is_empty()) {
            text.push_str(&format!("\n{} ({})\n", step.name, step.process.name()));
            table(&step.items, &mut text);
        }
        text.push_str("\nlacking\n");
        if self.lacks.is_empty() {
            text.push_str("  nothing\n");
        }
        for lack in &self.lacks {
            let property = lack.property.as_ref().map(|property| format!("{property}: ")).unwrap_or_default();
            let way_out = lack.way_out.as_ref().map(|way_out| format!(" ({way_out})")).unwrap_or_default();
            let outcome = if lack.fails { "fails" } else { "left out" };
            text.push_str(&format!("  {outcome:8}  {property}{}{way_out}\n", lack.cause));
        }
        text
    }
}

/// The most characters for which a column is aligned.
const WIDEST: usize = 64;

/// A head, unless the first field says by its name what it is, and a line an item. Columns with nothing in them are left out.
fn table(items: &[Item], text: &mut String) {
    // In the order of the items' own fields.
    let mut names: Vec<&'static str> = vec![];
    for (name, _) in items.iter().flat_map(|item| &item.0) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let says = |item: &Item, name| item.0.iter().any(|(field, value)| *field == name && !cell(value).is_empty());
    names.retain(|name| items.iter().any(|item| says(item, *name)));
    let row = |item: &Item| -> Vec<String> {
        let value = |name| item.0.iter().find(|(field, _)| *field == name).map(|(_, value)| cell(value));
        names.iter().map(|name| value(*name).unwrap_or_default()).collect()
    };
    let mut rows: Vec<Vec<String>> = items.iter().map(row).collect();
    if names.first().is_some_and(|name| *name != "what") {
        rows.insert(0, names.iter().map(|name| name.replace('_', " ").to_ascii_uppercase()).collect());
    }
    // A cell that is longer pushes the others of its line, and not those of all lines.
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count().min(WIDEST)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str("  ");
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
}

/// A value as a word of a line: nothing that a config says can begin another one or move the cursor.
fn cell(value: &Value) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
    };
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        other => plain(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timings::Process;

    fn explanation() -> Explanation {
        let write = |file: &str, value: &str, property: Option<&str>| {
            Item::new()
                .with("file", file)
                .with("value", value)
                .with("otherwise", Value::Null)
                .with("property", property)
        };
        let steps = vec![
            Step {
                name: "make the cgroups and set limits",
                process: Process::Kelson,
                items: vec![
                    write("memory.max", "1024", Some("linux.resources.memory.limit")),
                    write("cgroup.subtree_control", "+memory", None),
                ],
            },
            Step { name: "clone", process: Process::Kelson, items: vec![] },
            Step {
                name: "set host and domain name",
                process: Process::Container,
                items: vec![Item::of("host name", "a\nb\u{1b}[2J", Some("hostname"))],
            },
        ];
        Explanation {
            id: "web".into(),
            bundle: "/b".into(),
            cgroup_version: "v2",
            cgroup_manager: "cgroupfs",
            rootless: false,
            uid: 0,
            steps,
            lacks: vec![Lack {
                property: Some("process.rlimits[0]".into()),
                cause: "no".into(),
                way_out: Some("yes".into()),
                fails: true,
            }],
        }
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let expected = "create \"web\" of /b: what would be done, in this order\n\
            as user 0, cgroup v2, cgroup manager cgroupfs\n\
            \n\
            make the cgroups and set limits (kelson)\n  \
            FILE                    VALUE    PROPERTY\n  \
            memory.max              1024     linux.resources.memory.limit\n  \
            cgroup.subtree_control  +memory\n\
            \n\
            set host and domain name (container)\n  \
            host name  a\\nb\\u{1b}[2J  hostname\n\
            \n\
            lacking\n  \
            fails     process.rlimits[0]: no (yes)\n";
        assert_eq!(explanation().text(), expected);
    }

    #[test]
    fn json_has_all_fields_and_all_steps() {
        let found: Value = serde_json::from_str(&explanation().json().unwrap()).unwrap();
        assert_eq!(found["steps"][0]["process"], "kelson");
        let expected = serde_json::json!({
            "file": "cgroup.subtree_control", "value": "+memory", "otherwise": null, "property": null,
        });
        assert_eq!(found["steps"][0]["items"][1], expected);
        assert_eq!(found["steps"][1]["items"], serde_json::json!([]));
        assert_eq!(found["lacks"][0]["fails"], true);
    }
}
