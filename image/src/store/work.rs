//! Work in progress: a directory in tmp/ below a lock, which the kernel gives back when its process dies.
//!
//! The lock is on the directory itself. Who has it must look again whether the directory is still the one at its name: it may
//! have waited while another one removed it, or renamed it to where it counts.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kelson::error::{Context, Error, Result};
use kelson::image::Digest;
use kelson::image::store::Image;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::{O_DIRECTORY, O_NOFOLLOW};

use super::{Hold, Writer, entries, lock};
use crate::unpack;

/// A directory in tmp/, removed when it is dropped.
pub struct Work {
    path: PathBuf,
    directory: Flock<File>,
    files: AtomicU64,
    is_kept: bool,
}

impl Work {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn directory(&self) -> &File {
        &self.directory
    }

    /// A path in it that nothing else has.
    pub fn new_file(&self) -> PathBuf {
        self.path.join(format!("file-{}", self.files.fetch_add(1, Ordering::Relaxed)))
    }

    /// Leaves the directory alone, which has another name now.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now is the next writer's to sweep.
            let _ = remove_below(&self.path);
        }
    }
}

impl Writer {
    /// A new directory, whose name begins with `kind`.
    pub fn work(&self, kind: &str) -> Result<Work> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{kind}-{}-{number}", std::process::id());
            // A process of another PID namespace may have the same number.
            if let Some(work) = self.try_work(&name, Existing::Refused)? {
                return Ok(work);
            }
        }
    }

    /// The directory called `name`, empty. If another process has it, this waits until that one is done.
    pub fn work_called(&self, name: &str) -> Result<Work> {
        loop {
            if let Some(work) = self.try_work(name, Existing::Taken)? {
                return Ok(work);
            }
        }
    }

    /// `None`: another process was there, or removed the directory meanwhile.
    fn try_work(&self, name: &str, existing: Existing) -> Result<Option<Work>> {
        let path = self.store.root.join("tmp").join(name);
        let made = self.make_and_lock(&path, existing).doing(|| format!("make {}", path.display()))?;
        let Some(directory) = made else { return Ok(None) };
        let work = Work { path, directory, files: AtomicU64::new(0), is_kept: false };
        for leftover in entries(&work.path)? {
            remove_tree(&leftover)?;
        }
        Ok(Some(work))
    }

    fn make_and_lock(&self, path: &Path, existing: Existing) -> Result<Option<Flock<File>>> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => match existing {
                Existing::Refused => return Ok(None),
                Existing::Taken => {}
            },
            made => made?,
        }
        let directory = match open_directory(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let directory = lock(directory, FlockArg::LockExclusive)?;
        Ok(is_at(&directory, path)?.then_some(directory))
    }

    /// Removes what writers left that died.
    pub fn sweep(&self) -> Result<()> {
        for path in entries(&self.store.root.join("tmp"))? {
            let Ok(directory) = open_directory(&path) else { continue };
            let directory = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(directory) => directory,
                // In use.
                Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => continue,
                Err((_, errno)) => return Err(errno).doing(|| format!("lock {}", path.display())),
            };
            if is_at(&directory, &path)? {
                log::debug!("removing {}, which nobody works in any more", path.display());
                remove_below(&path)?;
            }
        }
        Ok(())
    }

    /// A transaction: what it [`uses`](Transaction::uses) stays in the store while it lives.
    pub fn transaction(&self) -> Result<Transaction<'_>> {
        Ok(Transaction { writer: self, work: self.work(Transaction::KIND)?, unsettled: Mutex::default() })
    }
}

#[derive(Clone, Copy)]
enum Existing {
    Refused,
    Taken,
}

/// Somebody who adds to the store.
pub struct Transaction<'w> {
    pub writer: &'w Writer,
    pub work: Work,
    /// Layers that it relies on and that may not be on the disk yet.
    pub(super) unsettled: Mutex<Vec<Digest>>,
}

impl Transaction<'_> {
    pub const KIND: &'static str = "T";

    /// Says that the layer or blob with these digits is used, and gives whether it is there already: if so it stays.
    pub fn uses(&self, hex: &str, path: &Path) -> Result<bool> {
        let _lock = self.writer.lock(Hold::Shared)?;
        self.mark(hex)?;
        Ok(path.exists())
    }

    /// Says that all of an image is used, as long as this lives. The store's lock must be held.
    pub fn keeps(&self, image: &Image) -> Result<()> {
        let parts = image.layers.iter().flat_map(|layer| [layer.diff_id, layer.blob]);
        for digest in parts.chain(image.manifest).chain([image.config]) {
            self.mark(&digest.hex())?;
        }
        Ok(())
    }

    fn mark(&self, hex: &str) -> Result<()> {
        let mark = self.work.path().join(hex);
        File::create(&mark).map(drop).doing(|| format!("make {}", mark.display()))
    }

    /// Keeps `bytes`, whose digest is `digest`.
    pub fn blob(&self, digest: Digest, bytes: &[u8]) -> Result<()> {
        let path = self.writer.store.blob(digest);
        self.uses(&digest.hex(), &path)?;
        // One that is there may be of a crash.
        match fs::read(&path).is_ok_and(|known| known == bytes) {
            true => Ok(()),
            false => self.writer.write(&self.work, &path, bytes, File::sync_all),
        }
    }
}

fn open_directory(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(O_DIRECTORY | O_NOFOLLOW).open(path)
}

/// Whether `directory` is what is at `path`.
fn is_at(directory: &File, path: &Path) -> Result<bool> {
    let own = directory.metadata()?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        other => {
            let other = other?;
            Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
        }
    }
}

/// Removes a directory of tmp/ with all in it.
fn remove_below(path: &Path) -> Result<()> {
    for entry in entries(path)? {
        remove_tree(&entry)?;
    }
    fs::remove_dir(path).doing(|| format!("remove {}", path.display()))
}

/// Removes a file, or a directory with all in it, however deep, and without following links.
pub fn remove_tree(path: &Path) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::other(format!("{} has no name", path.display())))?;
    let parent = File::open(path.parent().unwrap_or(path)).doing(|| format!("open {}", path.display()))?;
    unpack::remove(std::os::fd::AsFd::as_fd(&parent), name).doing(|| format!("remove {}", path.display()))
}
