//! The layers of an image as overlayfs stacks them: what they have in one directory, found without mounting them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Result};
use kelson::rootfs::path::{Links, open_with};
use kelson::sys::mount;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};

use super::file::{Meta, is_opaque, mark};

/// How a directory is opened to be read.
pub const READ_DIR: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Unpacked layers, topmost first.
pub struct Layers(Vec<(PathBuf, OwnedFd)>);

/// What the layers together have under one name.
#[derive(Clone, Debug)]
pub struct Item {
    pub meta: Meta,
    /// The layers that have it, topmost first: one, or those whose directories are merged.
    pub layers: Vec<usize>,
}

/// A name while layers are gone through from the top.
enum Seen {
    /// Something further down counts no more.
    Decided(Option<Item>),
    /// Directories further down belong to it.
    Open(Item),
}

impl Layers {
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| {
            let fd = openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
            fd.map(|fd| (path.clone(), fd)).doing(|| format!("open the layer {}", path.display()))
        };
        paths.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// The root directory: that of the topmost layer, merged with all others.
    pub fn root(&self) -> Result<Option<Item>> {
        let Some((path, top)) = self.0.first() else { return Ok(None) };
        let meta = Meta::of(top.as_fd()).doing(|| format!("look at {}", path.display()))?;
        Ok(Some(Item { meta, layers: (0..self.0.len()).collect() }))
    }

    /// The directory or file `path` of layer `layer`, as it is opened by `flags`; no link is followed.
    pub fn open_in(&self, layer: usize, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        let (root, fd) = &self.0[layer];
        open_with(fd.as_fd(), path, flags, Links::Refuse)
            .doing(|| format!("open {} of the layer {}", path.display(), root.display()))
    }

    /// What the layers have in the directory `path`, which these `layers` make up.
    pub fn list(&self, path: &Path, layers: &[usize]) -> Result<BTreeMap<OsString, Item>> {
        let mut all: BTreeMap<OsString, Seen> = BTreeMap::new();
        for &layer in layers {
            let dir = self.open_in(layer, path, READ_DIR)?;
            let doing = || format!("read {} of the layer {}", path.display(), self.0[layer].0.display());
            for name in mount::read_names(dir.as_fd()).doing(doing)? {
                if matches!(all.get(&name), Some(Seen::Decided(_))) {
                    continue;
                }
                let found = look(dir.as_fd(), &name).doing(doing)?;
                add(all.entry(name), found, layer);
            }
        }
        let item = |(name, seen)| match seen {
            Seen::Decided(item) => Some((name, item?)),
            Seen::Open(item) => Some((name, item)),
        };
        Ok(all.into_iter().filter_map(item).collect())
    }
}

/// Adds what a further layer has under a name (Documentation/filesystems/overlayfs.rst).
fn add(entry: Entry<'_, OsString, Seen>, found: Found, layer: usize) {
    let item = |meta| Item { meta, layers: vec![layer] };
    match entry {
        Entry::Vacant(entry) => drop(entry.insert(match found {
            Found::Whiteout => Seen::Decided(None),
            Found::File(meta) | Found::Opaque(meta) => Seen::Decided(Some(item(meta))),
            Found::Directory(meta) => Seen::Open(item(meta)),
        })),
        Entry::Occupied(mut entry) => {
            let Seen::Open(above) = entry.get() else { return };
            let mut above = above.clone();
            let is_last = !matches!(found, Found::Directory(_));
            if matches!(found, Found::Directory(_) | Found::Opaque(_)) {
                above.layers.push(layer);
            }
            entry.insert(if is_last { Seen::Decided(Some(above)) } else { Seen::Open(above) });
        }
    }
}

/// What one layer has under a name.
enum Found {
    Whiteout,
    File(Meta),
    Directory(Meta),
    /// A directory that hides those of lower layers.
    Opaque(Meta),
}

fn look(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Found> {
    let meta = Meta::from(fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?);
    if meta.is_dir() {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opaque = is_opaque(&openat(dir, name, flags, Mode::empty())?)?;
        return Ok(if opaque { Found::Opaque(meta) } else { Found::Directory(meta) });
    }
    Ok(if is_whiteout(dir, name, &meta)? { Found::Whiteout } else { Found::File(meta) })
}

/// Whether it is a mark that the name is gone: a device 0:0, or an empty file with an attribute (since 6.7).
pub fn is_whiteout(dir: BorrowedFd<'_>, name: &OsStr, meta: &Meta) -> nix::Result<bool> {
    if meta.kind() != nix::sys::stat::SFlag::S_IFREG || meta.size > 0 {
        return Ok(meta.is_whiteout());
    }
    match openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(file) => Ok(mark(&file, "whiteout")?.is_some()),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(mode: u32) -> Meta {
        let (size, rdev, links, file) = (0, 0, 1, (1, 1));
        Meta { mode, uid: 0, gid: 0, size, rdev, links, file, modified: (0, 0), changed: (0, 0) }
    }

    #[test]
    fn layers_are_stacked_as_overlayfs_does() {
        let (dir, file) = (|| Found::Directory(meta(0o040755)), || Found::File(meta(0o100644)));
        let opaque = || Found::Opaque(meta(0o040755));
        for (layers, expected) in [
            (vec![file(), file()], Some(vec![0])),
            (vec![Found::Whiteout, file()], None),
            (vec![dir(), dir(), dir()], Some(vec![0, 1, 2])),
            (vec![dir(), opaque(), dir()], Some(vec![0, 1])),
            (vec![opaque(), dir()], Some(vec![0])),
            (vec![dir(), file(), dir()], Some(vec![0])),
            (vec![dir(), Found::Whiteout, dir()], Some(vec![0])),
            (vec![file(), dir()], Some(vec![0])),
        ] {
            let mut all = BTreeMap::new();
            for (number, found) in layers.into_iter().enumerate() {
                add(all.entry(OsString::from("x")), found, number);
            }
            let found = match all.remove(OsStr::new("x")) {
                Some(Seen::Decided(item)) => item,
                Some(Seen::Open(item)) => Some(item),
                None => None,
            };
            assert_eq!(found.map(|item| item.layers), expected);
        }
    }
}
