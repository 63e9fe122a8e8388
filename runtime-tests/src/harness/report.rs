//! The guest's report of what it sees, with access to its parts by name.

use std::ops::Deref;

use serde_json::Value;

use super::Outcome;

/// What `guest report` printed.
#[derive(Clone, Debug)]
pub struct Report(pub Value);

impl Deref for Report {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.0
    }
}

/// One line of the container's /proc/self/mountinfo.
#[derive(Clone, Debug, Default)]
pub struct MountInfo {
    pub id: u64,
    /// Path within the file system that is shown here.
    pub root: String,
    pub target: String,
    /// Options of the mount: `ro`, `nosuid`, `noatime`.
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, `propagate_from:N`, `unbindable`; empty is private.
    pub propagation: Vec<String>,
    pub fs_type: String,
    pub source: String,
    /// Options of the file system: `rw`, `size=64k`.
    pub super_options: Vec<String>,
}

impl MountInfo {
    /// Reads a line of mountinfo (proc_pid_mountinfo(5)).
    pub fn parse(line: &str) -> Option<MountInfo> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let words = |list: &str| list.split(',').map(str::to_owned).collect();
        Some(MountInfo {
            id: left.first()?.parse().ok()?,
            root: (*left.get(3)?).to_owned(),
            target: unescape(left.get(4)?),
            options: words(left.get(5)?),
            propagation: left.iter().skip(6).map(|w| (*w).to_owned()).collect(),
            fs_type: (*right.first()?).to_owned(),
            source: unescape(right.get(1)?),
            super_options: words(right.get(2)?),
        })
    }

    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }
    pub fn super_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|o| o == option)
    }
}

/// Space, tab, newline and backslash are written in octal in mountinfo.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

impl Report {
    fn words(&self, key: &str) -> Vec<String> {
        let list = self.0[key].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|v| v.as_str()).map(str::to_owned).collect()
    }

    pub fn mounts(&self) -> Vec<MountInfo> {
        self.words("mounts").iter().filter_map(|l| MountInfo::parse(l)).collect()
    }

    /// The topmost mount on `target`.
    pub fn mount(&self, target: &str) -> Outcome<MountInfo> {
        let found = self.mounts().into_iter().rev().find(|m| m.target == target);
        found.ok_or_else(|| format!("no mount on {target} in {:?}", self.words("mounts")).into())
    }

    /// Inode name of a namespace: `net:[4026531840]`.
    pub fn namespace(&self, kind: &str) -> String {
        self.0["namespaces"][kind].as_str().unwrap_or_default().to_owned()
    }

    /// Value of an environment variable.
    pub fn env(&self, key: &str) -> Option<String> {
        let start = format!("{key}=");
        self.words("env").into_iter().find_map(|v| v.strip_prefix(&start).map(str::to_owned))
    }

    /// A capability set as bits: `bounding`, `effective`, `permitted`, `inheritable`, `ambient`.
    pub fn capabilities(&self, set: &str) -> u64 {
        self.0["capabilities"][set].as_u64().unwrap_or(u64::MAX)
    }

    /// Soft and hard limit; `u64::MAX` is unlimited.
    pub fn rlimit(&self, name: &str) -> (u64, u64) {
        let value = &self.0["rlimits"][name];
        (value[0].as_u64().unwrap_or(0), value[1].as_u64().unwrap_or(0))
    }

    pub fn number(&self, key: &str) -> i64 {
        self.0[key].as_i64().unwrap_or(i64::MIN)
    }

    pub fn text(&self, key: &str) -> String {
        self.0[key].as_str().unwrap_or_default().to_owned()
    }

    /// Open descriptors of the guest and what they are: (3, "/dev/null").
    pub fn descriptors(&self) -> Vec<(i32, String)> {
        let map = self.0["fds"].as_object().cloned().unwrap_or_default();
        let mut list: Vec<(i32, String)> =
            map.iter().map(|(k, v)| (k.parse().unwrap_or(-1), v.as_str().unwrap_or_default().to_owned())).collect();
        list.sort();
        list
    }
}
