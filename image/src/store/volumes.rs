//! Named volumes (volumes/NAME/data): made on first use with what the image has at their place, kept until they are removed.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};

use super::kept::size;
use super::prune::move_to;
use super::users::{User, Users};
use super::{Hold, Writer, entries, make_directory};
use crate::flatten::flatten_below;

/// A volume that is there.
pub struct Volume {
    pub name: String,
    /// Bytes that it takes on the disk.
    pub size: u64,
    /// Directory of a container or bundle that mounts it.
    pub user: Option<PathBuf>,
}

impl Writer {
    /// Makes the volume `name`, unless it is there: with what the `layers`, topmost first, have in the directory `path`, and without
    /// anything where that is none, or not asked for. The store's lock must be held, by who asks for it.
    pub fn make_volume(&self, name: &str, layers: &[PathBuf], path: Option<&Path>) -> Result<()> {
        let place = self.place_of(name);
        if place.exists() {
            return Ok(());
        }
        let work = self.work("V")?;
        let data = work.path().join("data");
        let doing = || format!("make the volume {name:?}");
        let is_filled = match path {
            Some(path) => flatten_below(layers, path.strip_prefix("/").unwrap_or(path), &data).doing(doing)?,
            None => false,
        };
        if !is_filled {
            DirBuilder::new().mode(0o755).create(&data).doing(doing)?;
        }
        make_directory(&self.store.root.join("volumes"))?;
        match fs::rename(work.path(), &place) {
            Ok(()) => work.keep(),
            // Another one was first.
            Err(_) if place.exists() => {}
            Err(error) => return Err(error).doing(doing),
        }
        Ok(())
    }

    /// All of them, by their names.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let users = {
            let _lock = self.lock(Hold::Alone)?;
            self.users()?
        };
        let mut all = vec![];
        for dir in entries(&self.store.root.join("volumes"))? {
            let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.push(Volume { size: size(&dir)?, user: mounted_by(&users, &dir).cloned(), name });
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Removes these volumes.
    ///
    /// # Errors
    /// There is no such volume, or a container or bundle uses it; those before it are gone then.
    pub fn remove_volumes(&self, names: &[String]) -> Result<()> {
        let lock = self.lock(Hold::Alone)?;
        let (work, users) = (self.work("D")?, self.users()?);
        for name in names {
            let dir = self.place_of(name);
            let is_name = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
            if !is_name || !dir.is_dir() {
                return Err(Error::other(format!("there is no volume {name:?}")).hint("kelson image volume lists them"));
            }
            if let Some(user) = user_of(&users, &dir) {
                return Err(user
                    .refuses(&format!("volume {name:?}"))
                    .hint("kelson delete the container, or remove the bundle, first"));
            }
            move_to(&work, &dir)?;
        }
        drop(lock);
        // Deletes what was taken away.
        drop(work);
        Ok(())
    }

    fn place_of(&self, name: &str) -> PathBuf {
        self.store.root.join("volumes").join(name)
    }
}

/// Who mounts something of the volume in `dir`.
fn mounted_by<'u>(users: &'u Users, dir: &Path) -> Option<&'u PathBuf> {
    let mount = users.mounts.iter().find(|(source, _)| source.starts_with(dir));
    mount.map(|(_, user)| user)
}

/// Who mounts something of it, or may.
fn user_of(users: &Users, dir: &Path) -> Option<User> {
    let known = mounted_by(users, dir).cloned().map(User::Known);
    known.or_else(|| users.unknown.clone().map(User::Unknown))
}
