//! `known.toml`: tests that a runtime fails, tests that a machine cannot run, and why.

use std::path::Path;

/// One difference that is known, or one reason to skip.
#[derive(Clone, Debug)]
pub struct Known {
    /// Base name of the runtime: `runc`; empty for any.
    pub runtime: String,
    /// How its version starts; empty for any.
    pub version: String,
    /// Full names of tests; in a `[[skip]]` `*` stands for all.
    pub tests: Vec<String>,
    /// `v1`, `v2`, or empty for both.
    pub cgroup: String,
    /// Words that the failure, or the reason of the skip, must hold; empty for any.
    pub says: String,
    /// The test may pass as well (a race, a machine).
    pub sometimes: bool,
    /// The runtime is vulnerable: should the test pass here, it shows nothing, and that is a failure.
    pub control: bool,
    pub why: String,
}

#[derive(Clone, Debug, Default)]
pub struct List {
    /// `[[known]]`: what fails.
    known: Vec<Known>,
    /// `[[skip]]`: what is skipped.
    skips: Vec<Known>,
}

/// What is run: name and version of the runtime, `v1` or `v2`.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub runtime: &'a str,
    pub version: &'a str,
    pub cgroup: &'a str,
}

/// Reads the list; `names` are the full names of all tests.
///
/// # Errors
/// A sentence that names the file and what is wrong with it: also a test that there is none of, or that is listed twice.
pub fn load(path: &Path, names: &[String]) -> Result<List, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    parse(&text, names).map_err(|e| format!("{}: {e}", path.display()))
}

fn parse(text: &str, names: &[String]) -> Result<List, String> {
    let table: toml::Table = text.parse().map_err(|e| format!("{e}"))?;
    if let Some(key) = table.keys().find(|key| !["known", "skip"].contains(&key.as_str())) {
        return Err(format!("unknown key {key:?}"));
    }
    let read = |key: &str| -> Result<Vec<Known>, String> {
        let entries = table.get(key).and_then(|k| k.as_array()).cloned().unwrap_or_default();
        let numbered = entries.iter().enumerate();
        numbered.map(|(i, e)| entry(e, key, names).map_err(|e| format!("{key}[{i}]: {e}"))).collect()
    };
    let list = List { known: read("known")?, skips: read("skip")? };
    for (i, one) in list.known.iter().enumerate() {
        for (j, other) in list.known[..i].iter().enumerate() {
            let both = one.tests.iter().find(|test| other.tests.contains(test));
            if let Some(test) = both.filter(|_| overlap(one, other)) {
                return Err(format!("known[{i}]: {test} is in known[{j}] too"));
            }
        }
    }
    Ok(list)
}

/// Whether there can be a run of which both speak.
fn overlap(one: &Known, other: &Known) -> bool {
    let either = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
    either(&one.runtime, &other.runtime)
        && either(&one.cgroup, &other.cgroup)
        && (one.version.starts_with(&other.version) || other.version.starts_with(&one.version))
}

fn entry(value: &toml::Value, kind: &str, names: &[String]) -> Result<Known, String> {
    let table = value.as_table().ok_or("not a table")?;
    let text = |key: &str| table.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let flag = |key: &str| table.get(key).and_then(|v| v.as_bool()).unwrap_or(false);
    for key in table.keys() {
        if !["runtime", "version", "tests", "cgroup", "says", "sometimes", "control", "why"].contains(&key.as_str()) {
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
        says: text("says"),
        sometimes: flag("sometimes"),
        control: flag("control"),
        why: text("why"),
    };
    if known.tests.is_empty() || known.why.is_empty() || (kind == "known" && known.runtime.is_empty()) {
        return Err("runtime, tests and why are needed".into());
    }
    if known.says.is_empty() && (kind == "skip" || known.control) {
        return Err("says is needed".into());
    }
    for (i, test) in known.tests.iter().enumerate() {
        if !(names.contains(test) || kind == "skip" && test == "*") {
            return Err(format!("there is no test {test}"));
        }
        if known.tests[..i].contains(test) {
            return Err(format!("{test} is listed twice"));
        }
    }
    Ok(known)
}

impl Known {
    fn speaks_of(&self, subject: Subject<'_>, test: &str) -> bool {
        (self.runtime.is_empty() || self.runtime == subject.runtime)
            && subject.version.starts_with(&self.version)
            && (self.cgroup.is_empty() || self.cgroup == subject.cgroup)
            && self.tests.iter().any(|t| t == "*" || t == test)
    }

    /// Whether this is what the entry means.
    pub fn explains(&self, reason: &str) -> bool {
        reason.contains(&self.says)
    }
}

impl List {
    /// The entry that says that `test` fails.
    pub fn known(&self, subject: Subject<'_>, test: &str) -> Option<&Known> {
        self.known.iter().find(|k| k.speaks_of(subject, test))
    }

    /// Whether `test` may be skipped for this reason.
    pub fn may_skip(&self, subject: Subject<'_>, test: &str, reason: &str) -> bool {
        self.skips.iter().any(|k| k.speaks_of(subject, test) && k.explains(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        let names = ["a::b".to_owned(), "a::c".to_owned()];
        let known = "[[known]]\nruntime = 'runc'\nwhy = 'w'\n";
        for (text, error) in [
            (format!("{known}tests = ['a::d']"), "known[0]: there is no test a::d"),
            (format!("{known}tests = ['*']"), "known[0]: there is no test *"),
            (format!("{known}tests = ['a::b', 'a::b']"), "known[0]: a::b is listed twice"),
            (
                format!("{known}tests = ['a::b', 'a::c']\n{known}version = '1.1.'\ntests = ['a::c']"),
                "known[1]: a::c is in known[0] too",
            ),
            (format!("{known}tests = ['a::b']\nsay = 'x'"), "known[0]: unknown key \"say\""),
            (format!("{known}tests = []"), "known[0]: runtime, tests and why are needed"),
            ("[[skip]]\ntests = ['*']\nwhy = 'w'".into(), "skip[0]: says is needed"),
            (format!("{known}tests = ['a::b']\ncontrol = true"), "known[0]: says is needed"),
            ("[[skips]]".into(), "unknown key \"skips\""),
        ] {
            assert_eq!(parse(&text, &names).unwrap_err(), error);
        }
        let apart = format!("{known}cgroup = 'v1'\ntests = ['a::b']\n{known}cgroup = 'v2'\ntests = ['a::b']");
        parse(&apart, &names).unwrap();
    }

    #[test]
    fn an_entry_speaks_of_its_runtime_and_its_words() {
        let text = "[[known]]\nruntime = 'runc'\nversion = '1.1.'\nsays = 'no such'\ntests = ['a::b']\nwhy = 'w'\n\
            [[skip]]\nsays = 'only kelson'\ntests = ['*']\nwhy = 'w'\ncgroup = 'v1'";
        let list = parse(text, &["a::b".to_owned()]).unwrap();
        let subject = Subject { runtime: "runc", version: "1.1.5", cgroup: "v1" };
        let known = list.known(subject, "a::b").unwrap();
        assert!(known.explains("no such file") && !known.explains("timeout"));
        assert!(list.known(Subject { version: "1.2.0", ..subject }, "a::b").is_none());
        assert!(list.may_skip(subject, "a::b", "x: only kelson has it"));
        assert!(!list.may_skip(subject, "a::b", "not installed"));
        assert!(!list.may_skip(Subject { cgroup: "v2", ..subject }, "a::b", "x: only kelson has it"));
    }
}
