//! What a container changed: one walk through what it has, beside what the layers of its image have.
//!
//! ```text
//!   Merged   the container's root as it sees it; its own layer is a tmpfs that nobody else can reach. A file that is not
//!            copied up has its lower layer's times, ctime among them, which no program can set: one with other times is
//!            changed. A directory is copied up before anything in it is: what one that is not has in it is as it was.
//!   Upper    a layer that is kept, as overlayfs writes it: what is there is changed, and marks say what is gone
//! ```
//!
//! The container may be hostile, and may go on meanwhile: every step opens one name in one directory, follows no link and
//! leaves no mount. What vanishes between two steps is as if it had not been there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::sys::mount;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::Serialize;

use super::file::{Meta, attributes, is_opaque, mark};
use super::lower::{Item, Layers, READ_DIR, is_whiteout};
use super::owners::Owners;

/// How deep directories may be: no layer has more (unpack).
const MAX_DEPTH: usize = 256;
/// How fuse-overlayfs marks names that are gone where it may make no devices, and a directory that hides what is below it always.
const MARK: &[u8] = b".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// How a name is looked at.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Added,
    Changed,
    Deleted,
}

/// One name that is not as in the image. Directories come before what is in them.
pub struct Change<'w> {
    pub kind: Kind,
    /// Below the root; empty for the root itself.
    pub path: &'w Path,
    /// What has the name; `None` for what is gone.
    pub file: Option<BorrowedFd<'w>>,
}

/// Where changes are looked for.
pub enum Side {
    /// The container's root, and the number of its mount.
    Merged(OwnedFd, u64),
    /// The upper directory, and what the runtime made in it to mount something on, where the image had nothing.
    Upper(OwnedFd, HashSet<PathBuf>),
}

/// A name of the container.
struct Seen {
    meta: Meta,
    what: What,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    File,
    /// Of overlayfs: the name is gone.
    Whiteout,
    /// Something is mounted there, or was meant to be: not a part of the layer.
    MountPoint,
}

/// A directory on the way from the root.
struct Level {
    path: PathBuf,
    dir: OwnedFd,
    kind: Kind,
    is_told: bool,
}

pub struct Walk<'w> {
    layers: &'w Layers,
    owners: &'w Owners,
    side: Side,
    way: Vec<Level>,
    tell: &'w mut dyn FnMut(&Change<'_>) -> Result<()>,
}

/// Tells each change between the `layers` and what `side` has.
///
/// # Errors
/// What cannot be read or understood; what `tell` says.
pub fn walk(
    layers: &Layers,
    side: Side,
    owners: &Owners,
    tell: &mut dyn FnMut(&Change<'_>) -> Result<()>,
) -> Result<()> {
    let root = layers.root()?;
    let (Side::Merged(dir, _) | Side::Upper(dir, _)) = &side;
    let dir = openat(dir, ".", READ_DIR, Mode::empty()).doing(|| "open the container's root")?;
    let mut walk = Walk { layers, owners, side, way: vec![], tell };
    walk.directory(PathBuf::new(), dir, Kind::Changed, root.as_ref(), false)
}

impl Walk<'_> {
    fn is_upper(&self) -> bool {
        matches!(self.side, Side::Upper(..))
    }

    /// A directory of the container; `lower` is what the image has there, if that is one too, and `is_hidden` says that the
    /// container replaced it.
    fn directory(
        &mut self,
        path: PathBuf,
        dir: OwnedFd,
        kind: Kind,
        lower: Option<&Item>,
        is_hidden: bool,
    ) -> Result<()> {
        if self.way.len() > MAX_DEPTH {
            return Err(Error::other(format!("{} is more than {MAX_DEPTH} directories deep", shown(&path))));
        }
        let doing = || format!("look at {} of the container", shown(&path));
        let is_hidden = is_hidden || self.is_upper() && is_opaque(&dir).doing(doing)?;
        let below = match lower {
            Some(item) => self.layers.list(&path, &item.layers)?,
            None => BTreeMap::new(),
        };
        let mut seen = self.read(&path, dir.as_fd(), &below)?;
        let is_hidden = seen.remove(OsStr::new(OPAQUE)).is_some_and(|seen| seen.what == What::Whiteout) || is_hidden;
        let is_changed = match lower {
            Some(item) => {
                let has_mount_points =
                    seen.iter().any(|(name, seen)| seen.what == What::MountPoint && !below.contains_key(name));
                self.differs(&path, &dir, item, has_mount_points)?
            }
            None => true,
        };
        // The root is told of only if it is another itself.
        let is_told = self.way.is_empty() && !is_changed;
        self.way.push(Level { path, dir, kind, is_told });
        if is_changed {
            self.tell_way()?;
        }
        self.entries(seen, &below, is_hidden)?;
        self.way.pop();
        Ok(())
    }

    /// All names in a directory of the container, and what they are.
    fn read(
        &self,
        path: &Path,
        dir: BorrowedFd<'_>,
        below: &BTreeMap<OsString, Item>,
    ) -> Result<BTreeMap<OsString, Seen>> {
        let doing = || format!("read {} of the container", shown(path));
        let mut all = BTreeMap::new();
        for name in mount::read_names(dir).doing(doing)? {
            let Some(file) = vanished(openat(dir, name.as_os_str(), LOOK, Mode::empty())).doing(doing)? else {
                continue;
            };
            let meta = self.owners.meta(file.as_fd()).doing(doing)?;
            if let Some(marked) = marked_by_fuse(&name).filter(|_| self.is_upper() && meta.is_mark_of_fuse()) {
                all.insert(marked.to_owned(), Seen { meta, what: What::Whiteout });
                continue;
            }
            let what = match &self.side {
                Side::Merged(_, mount) => match mount::stat(file.as_fd()).doing(doing)?.mount_id == *mount {
                    true => What::File,
                    false => What::MountPoint,
                },
                Side::Upper(_, made) => match is_whiteout(dir, &name, &meta).doing(doing)? {
                    true => What::Whiteout,
                    false
                        if !below.contains_key(&name)
                            && made.contains(&path.join(&name))
                            && is_empty(&file, &meta)? =>
                    {
                        What::MountPoint
                    }
                    false => What::File,
                },
            };
            // A mark counts more.
            all.entry(name).or_insert(Seen { meta, what });
        }
        Ok(all)
    }

    /// Whether the directory itself is another than the image's: not by what is in it.
    fn differs(&self, path: &Path, dir: &OwnedFd, lower: &Item, has_mount_points: bool) -> Result<bool> {
        let doing = || format!("look at {} of the container", shown(path));
        let meta = self.owners.meta(dir.as_fd()).doing(doing)?;
        // The root is made by the runtime, as are names to mount something on, which change the time of a directory.
        let is_root = path.as_os_str().is_empty();
        let is_new = !is_root && !has_mount_points && meta.modified != lower.meta.modified;
        if is_root || is_new || !meta.looks_like(&lower.meta) {
            return Ok(is_new || !meta.looks_like(&lower.meta));
        }
        let image = self.layers.open_in(lower.layers[0], path, READ_DIR)?;
        Ok(self.owners.attributes(dir).doing(doing)? != attributes(&image).doing(doing)?)
    }

    fn entries(
        &mut self,
        mut seen: BTreeMap<OsString, Seen>,
        below: &BTreeMap<OsString, Item>,
        is_hidden: bool,
    ) -> Result<()> {
        let names: BTreeSet<OsString> = seen.keys().chain(below.keys()).cloned().collect();
        let is_merged = matches!(self.side, Side::Merged(..));
        for name in names {
            match (seen.remove(&name), below.get(&name)) {
                (Some(Seen { what: What::MountPoint, .. }), _) => {}
                (Some(Seen { what: What::File, meta }), lower) => self.entry(&name, &meta, lower, is_hidden)?,
                (Some(Seen { what: What::Whiteout, .. }), Some(_)) => self.gone(&name)?,
                (None, Some(_)) if is_merged || is_hidden => self.gone(&name)?,
                (Some(Seen { what: What::Whiteout, .. }) | None, _) => {}
            }
        }
        Ok(())
    }

    /// A name that the container has.
    fn entry(&mut self, name: &OsStr, meta: &Meta, lower: Option<&Item>, is_hidden: bool) -> Result<()> {
        let is_merged = matches!(self.side, Side::Merged(..));
        if is_merged && lower.is_some_and(|lower| meta.is_untouched(&lower.meta) && meta.kind() == lower.meta.kind()) {
            return Ok(());
        }
        let Some((parent, path)) = self.way.last().map(|level| (&level.dir, level.path.join(name))) else {
            return Ok(());
        };
        let kind = if lower.is_some() { Kind::Changed } else { Kind::Added };
        let doing = || format!("open {} of the container", shown(&path));
        let flags = if meta.is_dir() { READ_DIR } else { LOOK };
        let Some(file) = vanished(openat(parent, name, flags, Mode::empty())).doing(doing)? else { return Ok(()) };
        // It may be another one by now.
        if let Side::Merged(_, mount) = &self.side
            && mount::stat(file.as_fd()).doing(doing)?.mount_id != *mount
        {
            return Ok(());
        }
        if meta.is_dir() {
            self.check_plain(&path, &file, &["redirect"])?;
            let both = lower.filter(|lower| lower.meta.is_dir());
            return self.directory(path, file, kind, both, is_hidden);
        }
        self.check_plain(&path, &file, &["metacopy", "redirect"])?;
        self.tell_way()?;
        (self.tell)(&Change { kind, path: &path, file: Some(file.as_fd()) })
    }

    /// Refuses what overlayfs writes only where it is told to (`redirect_dir`, `metacopy`): parts of it are elsewhere.
    fn check_plain(&self, path: &Path, file: &OwnedFd, marks: &[&str]) -> Result<()> {
        if matches!(self.side, Side::Merged(..)) {
            return Ok(());
        }
        for name in marks {
            if mark(file, name).doing(|| format!("look at {} of the layer", shown(path)))?.is_some() {
                return Err(Error::other(format!("{} is a part of a file: overlay.{name}", shown(path)))
                    .hint("the layer was written with overlayfs's redirect_dir or metacopy on: mount it without"));
            }
        }
        Ok(())
    }

    fn gone(&mut self, name: &OsStr) -> Result<()> {
        self.tell_way()?;
        let Some(path) = self.way.last().map(|level| level.path.join(name)) else { return Ok(()) };
        (self.tell)(&Change { kind: Kind::Deleted, path: &path, file: None })
    }

    /// Tells the directories on the way that were not told yet.
    fn tell_way(&mut self) -> Result<()> {
        for level in self.way.iter_mut().filter(|level| !level.is_told) {
            level.is_told = true;
            (self.tell)(&Change { kind: level.kind, path: &level.path, file: Some(level.dir.as_fd()) })?;
        }
        Ok(())
    }
}

/// What a file that fuse-overlayfs made as a mark is about: the name that is gone, or [`OPAQUE`].
fn marked_by_fuse(name: &OsStr) -> Option<&OsStr> {
    match name.as_bytes().strip_prefix(MARK)? {
        [] => None,
        _ if name == OPAQUE => Some(name),
        gone => Some(OsStr::from_bytes(gone)),
    }
}

/// What was opened; `None` for what is not there any more.
fn vanished<T>(opened: nix::Result<T>) -> nix::Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::ENOENT | Errno::ESTALE | Errno::ELOOP | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether it is as a runtime makes it for a mount: a file or directory with nothing in it.
fn is_empty(file: &OwnedFd, meta: &Meta) -> Result<bool> {
    if !meta.is_dir() {
        return Ok(meta.size == 0);
    }
    let dir = openat(file, ".", READ_DIR, Mode::empty())?;
    Ok(mount::read_names(dir.as_fd())?.is_empty())
}

fn shown(path: &Path) -> String {
    format!("/{}", path.display())
}
