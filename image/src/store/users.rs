//! What is in use: by containers and bundles (roots/), and by those who add to the store at this moment.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::image::store::Image;
use kelson::image::{Digest, Store};
use serde::Deserialize;

use super::images::Record;
use super::work::Transaction;
use super::{Writer, entries};

/// The annotation of a bundle that names its layers, as a JSON array of paths (docs: overlay).
const LOWER: &str = "org.kelson.overlay.lower";

/// Who uses which layers.
#[derive(Default)]
pub struct Users {
    /// A directory of each.
    pub layers: HashMap<Digest, PathBuf>,
    /// The layers of each user.
    pub sets: Vec<HashSet<Digest>>,
    /// What each of them mounts from the host, and its directory.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// One of which it cannot be told what it uses: nothing may go.
    pub unknown: Option<PathBuf>,
}

/// Why something stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// The container or bundle in this directory uses it.
    Known(PathBuf),
    /// The one in this directory may.
    Unknown(PathBuf),
}

impl User {
    /// The refusal to remove `what`.
    pub fn refuses(&self, what: &str) -> Error {
        Error::state(match self {
            Self::Known(directory) => format!("{what} is used by {}", directory.display()),
            Self::Unknown(directory) => format!("whether {} uses {what} cannot be told", directory.display()),
        })
    }
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Deserialize)]
struct Mount {
    source: Option<PathBuf>,
}

/// The layers of an image that are seen: those below one that hides them are not in its overlay.
fn visible(image: &Image) -> HashSet<Digest> {
    let first = image.layers.iter().rposition(|layer| layer.is_opaque).unwrap_or(0);
    image.layers[first..].iter().map(|layer| layer.diff_id).collect()
}

impl Users {
    /// Whether there is a container or bundle with just the layers of this image.
    pub fn has(&self, image: &Image) -> bool {
        self.unknown.is_some() || self.sets.contains(&visible(image))
    }
}

impl Writer {
    /// The users in roots/ and what is kept of them; links to what is no more are removed.
    pub fn users(&self) -> Result<Users> {
        let mut users = Users::default();
        for link in entries(&self.store.root.join("roots"))? {
            let Some(directory) = living(&link) else {
                fs::remove_file(&link).doing(|| format!("remove {}", link.display()))?;
                continue;
            };
            match used_by(&directory) {
                Ok((layers, sources)) => {
                    users.mounts.extend(sources.into_iter().map(|source| (source, directory.clone())));
                    users.layers.extend(layers.iter().map(|layer| (*layer, directory.clone())));
                    users.sets.push(layers);
                }
                Err(error) => {
                    log::warn!("{error}: what it uses cannot be told, so no layer is removed while it is there");
                    users.unknown = Some(directory);
                }
            }
        }
        for layer in super::kept::layers(&self.store)? {
            let Some(kept) = &layer.kept else { continue };
            let layers = layers_in(&kept.lower);
            users.layers.extend(layers.iter().map(|below| (*below, layer.dir.clone())));
            users.sets.push(layers);
        }
        Ok(users)
    }

    /// A container or bundle for which the layers of this image must stay, unless another image has them too.
    pub fn user_of(&self, records: &[Record]) -> Result<Option<User>> {
        let users = self.users()?;
        let config = records.first().map(|record| record.image.config);
        let others = super::images::records(&self.store)?;
        let shared: HashSet<_> = others
            .iter()
            .filter(|record| Some(record.image.config) != config)
            .flat_map(|record| record.image.layers.iter().map(|layer| layer.diff_id))
            .collect();
        let mut own = records.iter().flat_map(|record| record.image.layers.iter().map(|layer| layer.diff_id));
        let known = own.find_map(|layer| users.layers.get(&layer).filter(|_| !shared.contains(&layer)).cloned());
        Ok(known.map(User::Known).or(users.unknown.map(User::Unknown)))
    }

    /// The digits of layers and blobs that living transactions use. The lock must be held alone: those that come later see what
    /// is gone.
    pub fn marks(&self) -> Result<HashSet<String>> {
        let mut marks = HashSet::new();
        for path in entries(&self.store.root.join("tmp"))? {
            let is_transaction = path.file_name().is_some_and(|name| {
                name.to_string_lossy().strip_prefix(Transaction::KIND).is_some_and(|rest| rest.starts_with('-'))
            });
            if is_transaction {
                let names =
                    entries(&path)?.into_iter().filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
                marks.extend(names);
            }
        }
        Ok(marks)
    }
}

/// The directory that the link in roots/ points at, if it is still the one with the link's numbers.
fn living(link: &Path) -> Option<PathBuf> {
    let directory = fs::read_link(link).ok()?;
    let info = fs::metadata(&directory).ok().filter(fs::Metadata::is_dir)?;
    let name = format!("{:x}-{:x}", info.dev(), info.ino());
    (link.file_name()?.to_str() == Some(&name)).then_some(directory)
}

/// The layers that the config.json in `directory` names, and the sources of its mounts.
fn used_by(directory: &Path) -> Result<(HashSet<Digest>, Vec<PathBuf>)> {
    let path = directory.join("config.json");
    let read = || -> Result<_> {
        let bundle: Bundle = serde_json::from_slice(&fs::read(&path)?).map_err(std::io::Error::from)?;
        let lower = bundle.annotations.get(LOWER).map_or("[]", String::as_str);
        let lower = serde_json::from_str::<Vec<PathBuf>>(lower).map_err(std::io::Error::from)?;
        Ok((lower, bundle.mounts.into_iter().filter_map(|mount| mount.source).collect()))
    };
    let (lower, sources) = read().doing(|| format!("read {}", path.display()))?;
    Ok((layers_in(&lower), sources))
}

/// The layers that have `paths`, by whatever path their store was called: it may have several, and of a layer of another store with the
/// same digest it does no harm to keep its own.
fn layers_in(paths: &[PathBuf]) -> HashSet<Digest> {
    paths.iter().flat_map(|path| Store::with_layer(path)).map(|(_, diff_id)| diff_id).collect()
}
