//! Writable layers that outlive their container: a directory with `upper/`, `work/` and what is known of them, `layer.json`.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Digest;
use super::store::FORMAT;
use crate::error::{Context, Error, Result};

/// What is known of a layer that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub format: u32,
    /// Configuration of the image that it was written on.
    pub image: Digest,
    /// Layers below it, topmost first.
    pub lower: Vec<PathBuf>,
    /// Places below the root on which its containers had something mounted.
    pub mount_points: BTreeSet<PathBuf>,
    /// The last container that used it.
    pub user: Option<User>,
}

/// A container by its directory, and what tells that from a later one with the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub dir: PathBuf,
    pub device: u64,
    pub inode: u64,
}

impl Kept {
    /// The record's name in the directory.
    pub const RECORD: &'static str = "layer.json";

    /// The record in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// It is broken, or a newer Kelson's.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(Self::RECORD);
        let doing = || format!("read {}", path.display());
        let text = match fs::read(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            text => text.doing(doing)?,
        };
        let kept: Self = serde_json::from_slice(&text).map_err(|error| Error::other(error.to_string())).doing(doing)?;
        match kept.format <= FORMAT {
            true => Ok(Some(kept)),
            false => {
                Err(Error::other(format!("it has format {}, this Kelson knows {FORMAT}", kept.format))).doing(doing)
            }
        }
    }
}

impl User {
    pub fn of(dir: &Path) -> Result<Self> {
        let info = fs::metadata(dir).doing(|| format!("look at {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), device: info.dev(), inode: info.ino() })
    }

    /// The container was not deleted.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.dir).is_ok_and(|info| (info.dev(), info.ino()) == (self.device, self.inode))
    }
}
