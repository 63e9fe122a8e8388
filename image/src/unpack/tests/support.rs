//! What makes archives, and a directory to unpack them into.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kelson::error::Result;

use crate::unpack::{Options, Unpacked, unpack};

/// A directory below the system's temporary one, removed at the end with all that is in it.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kelson-unpack-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("root")).unwrap();
        Self(path)
    }

    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn unpack(&self, archive: &[u8], options: &Options) -> Result<Unpacked> {
        let root = fs::File::open(self.root()).unwrap();
        unpack(archive, None, root.as_fd(), options)
    }

    /// What is beside the root: nothing must be.
    pub fn beside(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "root").collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let parent = fs::File::open(self.0.parent().unwrap()).unwrap();
        crate::unpack::remove(parent.as_fd(), self.0.file_name().unwrap()).unwrap();
    }
}

/// An archive in the making.
#[derive(Clone, Default)]
pub(super) struct Tar(pub Vec<u8>);

/// The header of one entry, in ustar's form.
#[derive(Clone)]
pub(super) struct Head(pub [u8; 512]);

impl Head {
    pub fn new(kind: u8, name: &str) -> Self {
        let mut head = Self([0; 512]);
        head.put(0, name.as_bytes()).put(100, b"0000644\0").put(108, b"0000000\0").put(116, b"0000000\0");
        head.put(257, b"ustar\x0000").put(329, b"0000000\0").put(337, b"0000000\0");
        head.0[156] = kind;
        head.size(0).time(1_000_000_000)
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn octal(mut self, at: usize, width: usize, value: u64) -> Self {
        self.put(at, format!("{value:0width$o}\0", width = width - 1).as_bytes());
        self
    }

    pub fn mode(self, mode: u32) -> Self {
        self.octal(100, 8, mode.into())
    }

    pub fn ids(self, uid: u32, gid: u32) -> Self {
        self.octal(108, 8, uid.into()).octal(116, 8, gid.into())
    }

    pub fn size(self, size: u64) -> Self {
        self.octal(124, 12, size)
    }

    pub fn time(self, seconds: u64) -> Self {
        self.octal(136, 12, seconds)
    }

    pub fn link(mut self, target: &str) -> Self {
        self.put(157, target.as_bytes());
        self
    }

    pub fn device(self, major: u32, minor: u32) -> Self {
        self.octal(329, 8, major.into()).octal(337, 8, minor.into())
    }

    pub fn gnu(mut self) -> Self {
        self.put(257, b"ustar  \0").put(329, &[0; 183]);
        self
    }

    pub fn bytes(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Tar {
    pub fn head(mut self, head: Head) -> Self {
        self.0.extend(head.bytes());
        self
    }

    /// Header and data, padded.
    pub fn entry(mut self, head: Head, data: &[u8]) -> Self {
        self.0.extend(head.size(data.len() as u64).bytes());
        self.raw(data)
    }

    pub fn raw(mut self, data: &[u8]) -> Self {
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.entry(Head::new(b'0', name), data.as_bytes())
    }

    pub fn dir(self, name: &str) -> Self {
        self.head(Head::new(b'5', name).mode(0o755))
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.head(Head::new(b'2', name).mode(0o777).link(target))
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.head(Head::new(b'1', name).link(target))
    }

    /// An extended header with these records.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.records(b'x', records)
    }

    pub fn records(self, kind: u8, records: &[(&str, &[u8])]) -> Self {
        let bytes: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.entry(Head::new(kind, "records"), &bytes)
    }

    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

/// `LENGTH KEY=VALUE\n`
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = rest.len();
    while length != length.to_string().len() + rest.len() {
        length = length.to_string().len() + rest.len();
    }
    [length.to_string().into_bytes(), rest].concat()
}

/// Unpacks, which must be possible.
pub(super) fn unpacked(archive: Tar) -> Scratch {
    let scratch = Scratch::new();
    scratch.unpack(&archive.end(), &Options::default()).unwrap();
    scratch
}

/// The error of unpacking, which must fail.
pub(super) fn refused(archive: Tar) -> String {
    refused_bytes(&archive.end())
}

pub(super) fn refused_bytes(archive: &[u8]) -> String {
    let scratch = Scratch::new();
    let error = scratch.unpack(archive, &Options::default()).unwrap_err().to_string();
    assert_eq!(scratch.beside(), Vec::<String>::new());
    error
}

pub(super) fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// Says what is skipped without root's privilege.
pub(super) fn is_root(what: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("skipped without root: {what}");
    }
    is_root
}

/// All attributes of a file.
pub(super) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = kelson::sys::xattr::list(path).unwrap();
    let value = |name| kelson::sys::xattr::get(path, name).unwrap();
    names.iter().map(|name| (name.to_str().unwrap().to_owned(), value(name))).collect()
}
