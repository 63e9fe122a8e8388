//! Trees of files, described so that two can be compared; and tools that may be missing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use kelson_image::unpack::{Options, Unpacked, remove, unpack};

/// A directory for one test, removed at its end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kelson-trees-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Unpacks `archive` into the new directory `name`.
    pub fn unpack(&self, archive: &str, name: &str, options: &Options) -> Unpacked {
        fs::create_dir(self.at(name)).unwrap();
        let root = File::open(self.at(name)).unwrap();
        unpack(File::open(self.at(archive)).unwrap(), None, root.as_fd(), options).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let parent = File::open(self.0.parent().unwrap()).unwrap();
        remove(parent.as_fd(), self.0.file_name().unwrap()).unwrap();
    }
}

/// Whether root runs the test and the tools are there; otherwise it is skipped with the reason. In CI that is a failure.
pub fn has(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&&str| std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    let missing: Vec<_> = tools.iter().filter(|tool| !is_there(tool)).collect();
    let is_root = nix::unistd::geteuid().is_root();
    if missing.is_empty() && is_root {
        return true;
    }
    let why = if is_root { format!("not installed: {missing:?}") } else { "needs root".into() };
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    false
}

/// Runs a script with `set -e` in the directory.
pub fn shell(directory: &Path, script: &str) -> String {
    told(Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(directory).output().unwrap())
}

pub fn told(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// All that is known of a file, its number left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    mode: u32,
    owner: (u32, u32),
    /// Nanoseconds since 1970.
    modified: i128,
    /// Of a device node.
    device: u64,
    links: u64,
    /// Of a file what is in it, of a link where it leads.
    content: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path, in order, of the same file.
    same_as: PathBuf,
}

impl Node {
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// As an archive has it whose times are in seconds.
    pub fn at_seconds(self) -> Self {
        Self { modified: self.modified.div_euclid(1_000_000_000), ..self }
    }

    pub fn without_xattrs(self) -> Self {
        Self { xattrs: BTreeMap::new(), ..self }
    }
}

/// Paths below `root`, with what is there.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(name) = todo.pop() {
        let path = root.join(&name);
        let info = fs::symlink_metadata(&path).unwrap();
        let kind = info.file_type();
        if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| name.join(entry.unwrap().file_name())));
        }
        let device = if kind.is_char_device() || kind.is_block_device() { info.rdev() } else { 0 };
        let content = match () {
            () if kind.is_file() => fs::read(&path).unwrap(),
            () if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            () => Vec::new(),
        };
        let names = kelson::sys::xattr::list(&path).unwrap();
        let value = |name| kelson::sys::xattr::get(&path, name).unwrap();
        let same: &mut PathBuf = first.entry((info.dev(), info.ino())).or_insert_with(|| name.clone());
        *same = name.clone().min(same.clone());
        let node = Node {
            mode: info.mode(),
            owner: (info.uid(), info.gid()),
            modified: i128::from(info.mtime()) * 1_000_000_000 + i128::from(info.mtime_nsec()),
            device,
            // Of a directory it depends on the file system.
            links: if kind.is_dir() { 0 } else { info.nlink() },
            content,
            xattrs: names.iter().map(|name| (name.to_string_lossy().into_owned(), value(name))).collect(),
            same_as: PathBuf::new(),
        };
        found.insert(name, (node, (info.dev(), info.ino())));
    }
    let known = |(name, (node, file))| (name, Node { same_as: first[&file].clone(), ..node });
    found.into_iter().map(known).collect()
}

/// Fails with the first paths that differ.
pub fn assert_equal(ours: &BTreeMap<PathBuf, Node>, theirs: &BTreeMap<PathBuf, Node>, whose: &str) {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differing: Vec<_> = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path)).collect();
    let shown = |node: Option<&Node>| {
        let mut text = format!("{node:?}");
        text.truncate(600);
        text
    };
    let report: Vec<_> = differing
        .iter()
        .take(5)
        .map(|path| format!("{path:?}\n  ours:   {}\n  {whose}: {}", shown(ours.get(*path)), shown(theirs.get(*path))))
        .collect();
    assert!(report.is_empty(), "{} of {} differ:\n{}", differing.len(), ours.len(), report.join("\n"));
}
