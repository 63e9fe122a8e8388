//! [parent] Stores of images that have layers below a container's root: as long as they know of it, the layers stay.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::image::Store;
use crate::signals::Signals;
use crate::state;

/// Where `store` will know of the container or bundle with the directory `dir`: as long as the link is there and true, its layers
/// stay.
pub fn link_of(store: &Store, dir: &Path) -> Result<PathBuf> {
    let info = fs::metadata(dir).doing(|| format!("look at {}", dir.display()))?;
    Ok(store.root.join("roots").join(format!("{:x}-{:x}", info.dev(), info.ino())))
}

/// Makes that link.
pub fn tell(dir: &Path, link: &Path) -> Result<()> {
    let doing = || format!("tell the store of the container: {}", link.display());
    if let Some(roots) = link.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(roots).doing(doing)?;
    }
    // One of a directory that had the same number and is gone.
    let _ = fs::remove_file(link);
    symlink(dir, link).doing(doing)
}

/// The file that is locked by who uses a store; `None` if there is no store.
pub fn open_lock(store: &Store) -> Result<Option<File>> {
    let path = store.root.join("lock");
    match File::open(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        file => file.map(Some).doing(|| format!("open {}", path.display())),
    }
}

/// A store from which nobody removes a layer while this lives.
pub struct Held {
    /// Where it will know of the container.
    pub link: PathBuf,
    _lock: File,
}

/// Holds the stores that have one of `layers`, for the container with the directory `dir`: its bundle may be gone before it is.
///
/// # Errors
/// A terminating signal came while somebody removed layers.
pub fn hold(layers: &[PathBuf], dir: &Path, signals: &Signals) -> Result<Vec<Held>> {
    let named = layers.iter().flat_map(|layer| Store::with_layer(layer)).map(|(store, _)| store.root);
    let mut all = vec![];
    for root in named.collect::<BTreeSet<_>>() {
        let store = Store { root };
        let lock = match open_lock(&store) {
            Err(error) if is_closed(&error) => {
                warn(&error);
                continue;
            }
            lock => lock?,
        };
        if let Some(lock) = lock {
            wait_for(&lock, signals).doing(|| format!("lock the store {}", store.root.display()))?;
            all.push(Held { link: link_of(&store, dir)?, _lock: lock });
        }
    }
    Ok(all)
}

fn wait_for(lock: &File, signals: &Signals) -> Result<()> {
    loop {
        match lock.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        signals.check()?;
        state::pause_for_lock();
    }
}

/// The caller may not write there, as no one may on a read-only file system.
fn is_closed(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EACCES | Errno::EPERM | Errno::EROFS))
}

fn warn(error: &Error) {
    log::warn!("{error}: the store does not know that the container uses its layers, and may remove them");
}

impl Held {
    /// Makes the link; the container's config.json must be in `dir`, which who removes layers reads.
    pub fn tell(self, dir: &Path) -> Result<()> {
        match tell(dir, &self.link) {
            Err(error) if is_closed(&error) => {
                warn(&error);
                Ok(())
            }
            told => told,
        }
    }
}
