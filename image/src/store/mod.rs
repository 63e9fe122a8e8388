//! Writing to the store, whose layout kelson's image/store.rs tells.
//!
//! ```text
//!   work.rs      directories in tmp/, each below a lock of its own; who dies leaves them to the next writer
//!   layers.rs    a layer: unpacked and verified once, by whoever comes first
//!   images.rs    records of images: added, named, removed
//!   users.rs     what containers and other writers use, which stays
//!   kept.rs      writable layers that outlive their containers
//!   prune.rs     what nothing refers to any more goes
//!   ids.rs       whose the files are, and the user namespace in which that can be said
//! ```
//!
//! What is added takes these steps, none of which can be seen half done:
//!
//! ```text
//!   a transaction (tmp/T-…) says what it uses, under the shared lock      so that prune leaves that alone
//!   a layer is unpacked in tmp/L-HEX, verified and renamed                kill -9 leaves a directory in tmp/ and no more
//!   all is synced, once; then the record of the image is written          a crash of the host leaves layers that do not count
//! ```

pub mod ids;
pub mod images;
pub mod kept;
pub mod layers;
pub mod prune;
pub mod users;
pub mod volumes;
pub mod work;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::image::Store;
use kelson::image::store::Ownership;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use work::Work;

/// The store, open for who changes it.
pub struct Writer {
    pub store: Store,
    /// How layers are unpacked in this store.
    pub ownership: Ownership,
}

/// How `lock` is held.
#[derive(Clone, Copy, PartialEq)]
pub enum Hold {
    /// Things are added or used: by any number of processes.
    Shared,
    /// Things are removed.
    Alone,
}

impl Writer {
    /// The store, made if it is not there. Left-overs of writers that died are removed.
    ///
    /// # Errors
    /// The directory cannot be made or written, or was made for other ids than this caller has.
    pub fn open(store: Store, ownership: Ownership) -> Result<Self> {
        let writer = Self { store, ownership };
        for name in ["blobs/sha256", "layers", "images", "sources", "roots", "tmp"] {
            make_directory(&writer.store.root.join(name))?;
        }
        ids::remember(&writer)?;
        writer.sweep()?;
        Ok(writer)
    }

    /// Holds the store's lock until the file is dropped. Not to be held while a network is waited for.
    pub fn lock(&self, hold: Hold) -> Result<Flock<File>> {
        let path = self.store.root.join("lock");
        let how = if hold == Hold::Alone { FlockArg::LockExclusive } else { FlockArg::LockShared };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        open.map_err(Error::from).and_then(|file| lock(file, how)).doing(|| format!("lock {}", path.display()))
    }

    /// A nameless file in the store.
    pub fn scratch(&self) -> Result<File> {
        let directory = self.store.root.join("tmp");
        let nameless =
            OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(nix::libc::O_TMPFILE).open(&directory);
        match nameless {
            // A file system that has none (overlayfs before 6.1, NFS).
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EOPNOTSUPP | nix::libc::EISDIR)) => {
                let work = self.work("F")?;
                let path = work.path().join("scratch");
                let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
                file.doing(|| format!("make {}", path.display()))
            }
            file => file.doing(|| format!("make a file in {}", directory.display())),
        }
    }

    /// Writes a record, which is there whole or not at all, whatever happens.
    pub fn write_record(&self, work: &Work, path: &Path, record: &impl Serialize) -> Result<()> {
        self.write(work, path, &as_json(record)?, File::sync_all)
    }

    /// Puts a file to its place. After a crash of the host it may be there empty: [`work::Transaction::settle`] comes before anything
    /// relies on it.
    fn place(&self, work: &Work, path: &Path, bytes: &[u8]) -> Result<()> {
        self.write(work, path, bytes, |_| Ok(()))
    }

    fn write(&self, work: &Work, path: &Path, bytes: &[u8], sync: fn(&File) -> std::io::Result<()>) -> Result<()> {
        let draft = work.new_file();
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(bytes)?;
            sync(&file)
        });
        written.doing(|| format!("write {}", draft.display()))?;
        rename(&draft, path)
    }
}

/// A line of JSON.
fn as_json(record: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec(record).map_err(|error| Error::other(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// Renames, and makes the directory for it; another process may remove it in between, when it is empty.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let rename = || fs::rename(from, to);
    let mut renamed = rename();
    for _ in 0..100 {
        match &renamed {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && from.exists() => {
                make_directory(to.parent().unwrap_or(to))?;
                renamed = rename();
            }
            _ => break,
        }
    }
    renamed.doing(|| format!("rename {} to {}", from.display(), to.display()))
}

/// Makes a directory and those above it, for nobody but the caller: files of an image can be setuid (CVE-2021-41091).
fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.doing(|| format!("make {}", path.display())).hint(|| "--store DIR, or KELSON_STORE, puts the store elsewhere")
}

/// Locks, whatever signals come meanwhile.
pub fn lock(mut file: File, how: FlockArg) -> Result<Flock<File>> {
    loop {
        match Flock::lock(file, how) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, Errno::EINTR)) => file = unlocked,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// A record of the store, if there is one.
///
/// # Errors
/// It is not what is written there.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        text => text.doing(|| format!("read {}", path.display()))?,
    };
    let record = serde_json::from_slice(&text).map_err(|error| Error::other(error.to_string()));
    record.map(Some).doing(|| format!("read {}", path.display()))
}

/// Names of the entries of a directory of the store; none where there is no such directory.
pub fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let listed = match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        listed => listed.and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect()),
    };
    listed.doing(|| format!("read {}", path.display()))
}
