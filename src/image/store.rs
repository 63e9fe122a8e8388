//! Where images are kept, and how one is found there. `kelson-image` writes it; here it is only read.
//!
//! ```text
//!   ids                     whose the files of layers are ([`Ownership`])
//!   lock                    flock(2): shared by who adds or uses, exclusive for who removes
//!   blobs/sha256/HEX        manifests, configurations and layers as they were received, verified
//!   layers/HEX/fs           the layer with this diff id, unpacked, whiteouts in overlayfs's form; never changed again
//!   layers/HEX/layer.json   what is known of it
//!   images/HOST/PATH/:TAG   the image of a name (`@sha256:HEX` for a name by digest), as [`Image`]
//!   images/@sha256:HEX      the image with this configuration, whatever its names are
//!   sources/DEV-INODE       what a file that was imported held (`Source`), so that it is not read again
//!   roots/DEV-INODE         link to the directory of a container or bundle (with that number) which uses layers
//!   kept/ID/                writable layers that outlive their container ([`super::kept`])
//!   volumes/NAME/data       what `-v NAME:…` mounts
//!   tmp/NAME                work in progress below a flock(2) of its own; who finds it free removes it
//! ```
//!
//! Whatever is found at its place is whole: it is made in tmp/ and renamed.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::origin::is_hexadecimal;
use super::{Digest, Origin, Reference};
use crate::error::{Context, Error, Kind, Result};

/// Format of the records: a newer Kelson reads all older ones.
pub const FORMAT: u32 = 1;

/// The directory of the store.
#[derive(Clone, Debug)]
pub struct Store {
    pub root: PathBuf,
}

/// An image that is in the store with all its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub format: u32,
    /// Complete ([`Reference`]); `None` for one without a name.
    pub name: Option<String>,
    /// Digest of the manifest; `None` for an archive of docker's, which has no such.
    pub manifest: Option<Digest>,
    /// Digest of the configuration: docker's image id.
    pub config: Digest,
    /// `linux/amd64`, `linux/arm64/v8`.
    pub platform: String,
    /// Lowest first, as `rootfs.diff_ids`.
    pub layers: Vec<Layer>,
    /// When it came into the store, RFC 3339, UTC.
    pub added: String,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the blob as it was received.
    pub blob: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// The blob's media type in OCI's terms.
    pub media_type: String,
    /// It hides all layers below it, which overlayfs has no mark for: they must be left out of the overlay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_opaque: bool,
}

/// What a file or directory that was imported held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub format: u32,
    pub fingerprint: Fingerprint,
    /// The record's path below `images/`, for what was asked of the file: tag, digest and platform.
    pub images: BTreeMap<String, PathBuf>,
}

/// What changes when a file does (inode(7)): an archive that was read once is known by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
    /// Last change of the inode, nanoseconds since 1970: cannot be set by a program.
    pub changed: i128,
}

/// Whose the files of a store's layers are, and how overlayfs's marks are written in them: decided when the store is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    pub format: u32,
    /// The user namespace in which the files have the owners that images give them, as lines of its uid_map: ids inside, ids
    /// outside, and how many.
    pub uid: Vec<(u32, u32, u32)>,
    pub gid: Vec<(u32, u32, u32)>,
    /// Every file belongs to one user, who is the only one in that namespace.
    pub squash: bool,
    /// Marks are `user.overlay.*` (the overlay needs `userxattr`) and not `trusted.overlay.*`.
    pub user_xattr: bool,
}

impl Fingerprint {
    /// Of `path`; for a directory that of the file in it which names all others: of several the one that changed last.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let mut info = fs::metadata(path)?;
        if info.is_dir() {
            info = ["index.json", "manifest.json", "repositories"]
                .iter()
                .filter_map(|name| fs::metadata(path.join(name)).ok())
                .max_by_key(|info| (info.ctime(), info.ctime_nsec()))
                .ok_or(ErrorKind::NotFound)?;
        }
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok(Self {
            device: info.dev(),
            inode: info.ino(),
            size: info.size(),
            modified: nanoseconds(info.mtime(), info.mtime_nsec()),
            changed: nanoseconds(info.ctime(), info.ctime_nsec()),
        })
    }

    /// Whether the file changed so lately that a further change could leave all of this as it is: the clock of inodes ticks.
    pub fn is_too_new(&self) -> bool {
        const TICK: i128 = 20_000_000;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        now - self.changed < TICK
    }

    /// Name of the record below `sources/`.
    pub fn file_name(&self) -> String {
        format!("{:x}-{:x}", self.device, self.inode)
    }
}

impl Store {
    /// The store at `given`, or the caller's own: /var/lib/kelson for root, else below XDG_DATA_HOME or ~/.local/share.
    ///
    /// # Errors
    /// No directory is given and the environment names none.
    pub fn locate(given: Option<&Path>, rootless: bool) -> Result<Self> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let root = match given {
            Some(root) => std::path::absolute(root).doing(|| format!("store {}", root.display()))?,
            None if !rootless => PathBuf::from("/var/lib/kelson"),
            None => absolute("XDG_DATA_HOME")
                .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
                .ok_or_else(|| {
                    Error::other("there is no place for images").hint("set HOME or XDG_DATA_HOME, or give --store")
                })?
                .join("kelson"),
        };
        Ok(Self { root })
    }

    pub fn blob(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs").join(Digest::ALGORITHM).join(digest.hex())
    }

    /// The unpacked layer.
    pub fn layer(&self, diff_id: Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex()).join("fs")
    }

    /// The store whose unpacked layer with this diff id `path` is or is in, as far as names tell: of one that is in a layer of another
    /// it is both.
    pub fn with_layer(path: &Path) -> impl Iterator<Item = (Self, Digest)> {
        path.ancestors().filter_map(|layer| {
            let diff_id = Digest::from_hex(layer.file_name()?.to_str()?)?;
            let layers = layer.parent().filter(|layers| layers.ends_with("layers"))?;
            Some((Self { root: layers.parent()?.to_owned() }, diff_id))
        })
    }

    /// An image's unpacked layers, topmost first. overlayfs takes no directory twice, and of equal layers the topmost decides.
    pub fn stack(&self, image: &Image) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = vec![];
        for layer in image.layers.iter().rev() {
            let path = self.layer(layer.diff_id);
            if !all.contains(&path) {
                all.push(path);
            }
            if layer.is_opaque {
                break;
            }
        }
        all
    }

    /// Where the layer that is kept of container `id` is.
    pub fn kept(&self, id: &str) -> PathBuf {
        self.root.join("kept").join(id)
    }

    /// What the volume with this name holds.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name).join("data")
    }

    /// How this store's layers were unpacked; `None` where there is no store yet.
    pub fn ownership(&self) -> Result<Option<Ownership>> {
        read(&self.root.join("ids"))
    }

    /// Path below `images/` of the record that an image has, whatever its names are.
    pub fn anchor_of(config: Digest) -> PathBuf {
        format!("@{config}").into()
    }

    /// Path of a name's record below `images/`. It stays below: no component of a name is `..` or empty.
    pub fn record_of(reference: &Reference) -> PathBuf {
        let version = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => format!("@{digest}"),
            (None, tag) => format!(":{}", tag.as_deref().unwrap_or("latest")),
        };
        Path::new(&reference.host).join(&reference.path).join(version)
    }

    /// The image with this name, if the store has it.
    pub fn image(&self, reference: &Reference) -> Result<Option<Image>> {
        self.record(&Self::record_of(reference))
    }

    /// The image whose record is at `path` below `images/`.
    pub fn record(&self, path: &Path) -> Result<Option<Image>> {
        read(&self.root.join("images").join(path))
    }

    /// The image that `path`, a file or directory, held when it was imported; `None` if it was not, or has changed since.
    pub fn remembered(&self, path: &Path, selection: &str) -> Result<Option<Image>> {
        let Ok(fingerprint) = Fingerprint::of(path) else { return Ok(None) };
        let source: Option<Source> = read(&self.root.join("sources").join(fingerprint.file_name()))?;
        match source.filter(|source| source.fingerprint == fingerprint) {
            Some(source) => source.images.get(selection).map_or(Ok(None), |record| self.record(record)),
            None => Ok(None),
        }
    }

    /// The image that is asked for, if the store has it for `platform` (`None`: whichever it has).
    ///
    /// # Errors
    /// A record is broken, or the digits are the beginning of several ids.
    pub fn find(&self, origin: &Origin, platform: Option<&str>) -> Result<Option<Image>> {
        let found = match origin {
            Origin::File(file) => return self.remembered(&file.path, &file.selection(platform)),
            Origin::Id(digits) => self.by_id(digits)?,
            Origin::Name(reference) => match self.image(reference)? {
                None => match reference.as_digits() {
                    Some(digits) => self.by_id(&digits)?,
                    None => None,
                },
                found => found,
            },
        };
        Ok(found.filter(|image| platform.is_none_or(|platform| image.platform == platform)))
    }

    /// The image whose id begins with `digits`: of several records of it one with a name.
    fn by_id(&self, digits: &str) -> Result<Option<Image>> {
        let mut found: Option<Image> = None;
        for path in self.records()? {
            let Some(image) = self.record(&path)?.filter(|image| image.config.hex().starts_with(digits)) else {
                continue;
            };
            match &found {
                Some(other) if other.config != image.config => {
                    return Err(Error::new(Kind::Usage, format!("{digits} is the beginning of several images' ids"))
                        .hint("give more digits: kelson image list --no-trunc"));
                }
                Some(other) if other.name.is_some() || image.name.is_none() => {}
                _ => found = Some(image),
            }
        }
        Ok(found)
    }

    /// Paths of all records below `images/`, sorted.
    pub fn records(&self) -> Result<Vec<PathBuf>> {
        let root = self.root.join("images");
        let (mut found, mut directories) = (vec![], vec![PathBuf::new()]);
        while let Some(below) = directories.pop() {
            let path = root.join(&below);
            let entries = match fs::read_dir(&path) {
                // There is no store yet, or the last record of the directory was removed just now.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                entries => entries.doing(|| format!("read {}", path.display()))?,
            };
            for entry in entries {
                let entry = entry.doing(|| format!("read {}", path.display()))?;
                let is_record = entry.file_name().as_encoded_bytes().starts_with(b":")
                    || entry.file_name().as_encoded_bytes().starts_with(b"@");
                if is_record { &mut found } else { &mut directories }.push(below.join(entry.file_name()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

impl Reference {
    /// What was written, where it may be the beginning of an id: `beef`, and not `beef:latest` or `me/beef`.
    fn as_digits(&self) -> Option<String> {
        let word = self.path.strip_prefix("library/")?;
        let is_bare = self.host == "docker.io" && self.tag.as_deref() == Some("latest") && self.digest.is_none();
        (is_bare && word.len() >= Self::LEAST_DIGITS && is_hexadecimal(word)).then(|| word.to_owned())
    }

    /// Fewer digits than these are a name.
    const LEAST_DIGITS: usize = 4;
}

/// A record, if there is one.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        text => text.doing(|| format!("read {}", path.display()))?,
    };
    match serde_json::from_slice(&text) {
        Ok(record) => Ok(Some(record)),
        Err(error) => Err(Error::other(format!("{} is not what a store holds: {error}", path.display()))
            .hint("a newer Kelson may have written it; `kelson image prune` removes what is broken")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_names_its_store() {
        let (one, two) = ("1".repeat(64), "ab".repeat(32));
        let stores = |path: &str| -> Vec<String> {
            Store::with_layer(Path::new(path))
                .map(|(store, diff_id)| format!("{} {diff_id}", store.root.display()))
                .collect()
        };
        for path in [format!("/st/layers/{one}/fs"), format!("/st/layers/{one}/fs/usr"), format!("/st/layers/{one}")] {
            assert_eq!(stores(&path), [format!("/st sha256:{one}")], "{path}");
        }
        let nested = format!("/st/layers/{one}/fs/var/layers/{two}/fs");
        assert_eq!(stores(&nested), [format!("/st/layers/{one}/fs/var sha256:{two}"), format!("/st sha256:{one}")]);
        for path in ["/", "/bundle/rootfs", "/st/layers/12/fs", &format!("/st/blobs/{one}/fs"), &format!("/{one}/fs")] {
            assert!(stores(path).is_empty(), "{path}");
        }
    }
}
