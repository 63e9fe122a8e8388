//! What is kept of a container's network until it is taken down: `STATE/ID@network`, locked by whoever works on it.
//!
//! No id has an `@`, so that no container's directory has such a name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{cni, netavark};

pub struct Record {
    pub path: PathBuf,
    lock: Flock<File>,
    is_left: bool,
}

/// Its content.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    Pasta,
    Cni(cni::Kept),
    Netavark(netavark::Kept),
}

fn path_of(state: &Path, id: &str) -> PathBuf {
    state.join(format!("{id}@network"))
}

impl Record {
    /// The record of a container whose network is to be made.
    ///
    /// # Errors
    /// Another container with this id has a network that was recorded there.
    pub fn begin(state: &Path, id: &str) -> Result<Self> {
        let path = path_of(state, id);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        loop {
            let file = options.open(&path).doing(|| format!("open {}", path.display()))?;
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                Errno::EWOULDBLOCK => {
                    Error::other(format!("{} is locked: a container with this id has a network", path.display()))
                }
                errno => errno.into(),
            })?;
            let info = lock.metadata().doing(|| format!("look at {}", path.display()))?;
            if is_at(&path, &info) {
                return Ok(Self { path, is_left: info.len() > 0, lock });
            }
        }
    }

    /// The record of a container whose network is to be taken down, as soon as nobody works on it; `None` if there is none.
    pub fn find(state: &Path, id: &str) -> Result<Option<Self>> {
        let path = path_of(state, id);
        let doing = || format!("open {}", path.display());
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.doing(doing)?,
        };
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).doing(doing)?;
        let info = lock.metadata().doing(doing)?;
        Ok(is_at(&path, &info).then_some(Self { path, lock, is_left: info.len() > 0 }))
    }

    /// It is of a network that nobody took down.
    pub fn is_left(&self) -> bool {
        self.is_left
    }

    /// Writes all of it anew.
    pub fn save(&mut self, kept: &Kept) -> Result<()> {
        let doing = || format!("write {}", self.path.display());
        let text = serde_json::to_vec(kept).map_err(|error| Error::other(error.to_string())).doing(doing)?;
        let mut file = &*self.lock;
        let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&text));
        written.doing(doing)
    }

    /// `None`: its writer was killed before it made anything.
    pub fn load(&self) -> Result<Option<Kept>> {
        let doing = || format!("read {}", self.path.display());
        let mut text = vec![];
        let mut file = &*self.lock;
        file.rewind().and_then(|()| file.read_to_end(&mut text)).doing(doing)?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::other(error.to_string())).doing(doing)
    }

    /// The locked file, for a process that goes on with the work.
    pub fn share(&self) -> Result<File> {
        self.lock.try_clone().doing(|| format!("keep {}", self.path.display()))
    }

    /// Leaves the lock to whoever has a [`Record::share`]: it is unlocked when that is closed.
    pub fn leave_locked(self) {
        std::mem::forget(self.lock);
    }

    pub fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).doing(|| format!("remove {}", self.path.display()))
    }
}

fn is_at(path: &Path, info: &std::fs::Metadata) -> bool {
    std::fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (info.dev(), info.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_containers_until_it_is_removed() {
        let dir = std::env::temp_dir().join(format!("kelson-record-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut record = Record::begin(&dir, "c").unwrap();
        assert!(!record.is_left() && record.load().unwrap().is_none());
        assert!(Record::begin(&dir, "c").err().unwrap().to_string().contains("is locked"));
        record.save(&Kept::Pasta).unwrap();
        drop(record);
        assert!(Record::begin(&dir, "c").unwrap().is_left());
        let record = Record::find(&dir, "c").unwrap().unwrap();
        assert!(matches!(record.load().unwrap(), Some(Kept::Pasta)));
        record.remove().unwrap();
        assert!(Record::find(&dir, "c").unwrap().is_none());
        std::fs::remove_dir(&dir).unwrap();
    }
}
