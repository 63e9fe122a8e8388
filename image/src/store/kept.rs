//! Writable layers that outlive their containers (kept/): what they take, and that nobody uses them any more.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Result};
use kelson::image::Store;
use kelson::image::kept::Kept;
use kelson::sys::mount;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};

use super::Writer;
use super::entries;
use super::prune::{Freed, move_to};
use super::work::Work;

/// A layer that was kept.
pub struct Layer {
    /// The container's id, as which it is kept.
    pub id: String,
    pub dir: PathBuf,
    /// `None`: it has no record, because its maker was killed.
    pub kept: Option<Kept>,
}

impl Layer {
    /// The directory of the container that uses it, or will when it is started.
    pub fn user(&self) -> Option<&Path> {
        let user = self.kept.as_ref()?.user.as_ref()?;
        user.is_there().then_some(&user.dir)
    }

    /// Bytes that it takes on the disk. A container may change it meanwhile; no link is followed.
    pub fn size(&self) -> Result<u64> {
        size(&self.dir)
    }
}

/// Bytes that a directory with all in it takes on the disk. No link is followed.
pub(super) fn size(dir: &Path) -> Result<u64> {
    let doing = || format!("look into {}", dir.display());
    let blocks = fs::symlink_metadata(dir).map(|info| info.blocks()).doing(doing)?;
    let root = openat(AT_FDCWD, dir, DIRECTORY, Mode::empty()).doing(doing)?;
    Ok(512 * (blocks + below(root).doing(doing)?))
}

/// All layers that the store keeps, by their ids. What cannot be read is told and left out.
pub fn layers(store: &Store) -> Result<Vec<Layer>> {
    let mut all = vec![];
    for dir in entries(&store.root.join("kept"))? {
        let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match Kept::read(&dir) {
            Ok(kept) => all.push(Layer { id, dir, kept }),
            Err(error) => log::warn!("{error}"),
        }
    }
    all.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(all)
}

impl Writer {
    /// Takes away the layers that no container uses. The store's lock must be held alone: who makes a layer holds it until its
    /// record is written.
    pub(super) fn take_away_kept(&self, work: &Work) -> Result<Freed> {
        let mut freed = Freed::default();
        for layer in layers(&self.store)?.iter().filter(|layer| layer.user().is_none()) {
            freed.bytes += layer.size()?;
            move_to(work, &layer.dir)?;
            freed.kept.push(layer.id.clone());
        }
        Ok(freed)
    }
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Blocks of all that is in a directory.
fn below(dir: OwnedFd) -> nix::Result<u64> {
    let mut blocks = 0;
    for name in mount::read_names(dir.as_fd())? {
        let info = match fstatat(&dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            info => info?,
        };
        blocks += info.st_blocks as u64;
        if SFlag::from_bits_truncate(info.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
            continue;
        }
        blocks += match openat(&dir, name.as_os_str(), DIRECTORY, Mode::empty()) {
            Ok(dir) => below(dir)?,
            // Gone, or another file by now; or closed to this caller, as overlayfs's own is.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES) => 0,
            Err(errno) => return Err(errno),
        };
    }
    Ok(blocks)
}
