//! What nothing refers to any more.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Result};
use kelson::image::store::{Layer, Source};
use kelson::image::{Digest, Store};
use nix::fcntl::Flock;

use super::images::{Record, records};
use super::layers::{LayerRecord, record_path};
use super::work::Work;
use super::{Hold, Writer, entries, read_record};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Names of images, and ids of those that had none.
    pub images: Vec<String>,
    pub layers: usize,
    /// Ids as which writable layers were kept.
    pub kept: Vec<String>,
    /// Bytes of files and of blobs.
    pub bytes: u64,
}

impl Writer {
    /// Removes the images without a name that nothing uses (`all`: those with one too), and the layers and blobs of no image;
    /// with `kept` first of all the writable layers that no container uses.
    pub fn prune(&self, all: bool, kept: bool) -> Result<Freed> {
        let lock = self.lock(Hold::Alone)?;
        let work = self.work("D")?;
        let taken = if kept { self.take_away_kept(&work)? } else { Freed::default() };
        self.remove_broken_records()?;
        let (records, users) = (records(&self.store)?, self.users()?);
        let named: HashSet<_> =
            records.iter().filter(|record| record.image.name.is_some()).map(|record| record.image.config).collect();
        let goes = |record: &&Record| (all || !named.contains(&record.image.config)) && !users.has(&record.image);
        let mut images = BTreeSet::new();
        for record in records.iter().filter(goes) {
            let path = self.store.root.join("images").join(&record.path);
            fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
            images.extend(
                record
                    .familiar()
                    .or_else(|| (!named.contains(&record.image.config)).then(|| record.image.config.to_string())),
            );
        }
        self.remove_empty_directories()?;
        let freed = self.collect(lock)?;
        let bytes = freed.bytes + taken.bytes;
        Ok(Freed { images: images.into_iter().collect(), kept: taken.kept, bytes, ..freed })
    }

    /// Removes the layers and blobs that no record, container or transaction refers to. The lock, held alone, is given back as
    /// soon as they have left their places.
    pub(super) fn collect(&self, lock: Flock<File>) -> Result<Freed> {
        let work = self.work("D")?;
        let freed = self.take_away(&work)?;
        self.forget_sources()?;
        drop(lock);
        // Deletes what was taken away.
        drop(work);
        Ok(freed)
    }

    fn take_away(&self, work: &Work) -> Result<Freed> {
        let users = self.users()?;
        if users.unknown.is_some() {
            return Ok(Freed::default());
        }
        let mut kept = self.marks()?;
        kept.extend(users.layers.keys().map(|layer| layer.hex()));
        for record in records(&self.store)? {
            let image = record.image;
            kept.extend(image.manifest.map(|digest| digest.hex()));
            kept.insert(image.config.hex());
            kept.extend(image.layers.iter().flat_map(|layer| [layer.diff_id.hex(), layer.blob.hex()]));
        }
        let mut freed = Freed::default();
        for path in entries(&self.store.root.join("layers"))? {
            let known: Option<LayerRecord> = hex_of(&path)
                .and_then(|hex| Digest::from_hex(&hex))
                .and_then(|diff_id| read_record(&record_path(&self.store, diff_id)).ok().flatten());
            if hex_of(&path).is_some_and(|hex| kept.contains(&hex)) {
                kept.extend(known.map(|record| record.layer.blob.hex()));
                continue;
            }
            freed.layers += 1;
            freed.bytes += known.map_or(0, |record| record.bytes);
            move_to(work, &path)?;
        }
        for path in entries(&self.store.root.join("blobs/sha256"))? {
            if !hex_of(&path).is_some_and(|hex| kept.contains(&hex)) {
                freed.bytes += fs::symlink_metadata(&path).map_or(0, |info| info.len());
                move_to(work, &path)?;
            }
        }
        Ok(freed)
    }

    /// Records that cannot be read, and those of images that lack a layer.
    fn remove_broken_records(&self) -> Result<()> {
        for path in self.store.records()? {
            let whole = self.store.record(&path);
            let is_whole = whole.is_ok_and(|image| {
                image.is_none_or(|image| {
                    let is_there = |layer: &Layer| {
                        self.store.layer(layer.diff_id).exists()
                            && super::layers::record(&self.store, layer.diff_id).is_ok_and(|record| record.is_some())
                    };
                    image.layers.iter().all(is_there) && self.store.blob(image.config).exists()
                })
            });
            if !is_whole {
                let path = self.store.root.join("images").join(path);
                log::warn!("{} is broken and removed", path.display());
                fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// What is known of files whose images are gone.
    fn forget_sources(&self) -> Result<()> {
        for path in entries(&self.store.root.join("sources"))? {
            let source: Option<Source> = read_record(&path).unwrap_or_default();
            let images = self.store.root.join("images");
            if source.is_none_or(|source| !source.images.values().all(|record| images.join(record).exists())) {
                fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Directories of names that are gone.
    pub(super) fn remove_empty_directories(&self) -> Result<()> {
        fn visit(path: &Path) -> Result<()> {
            for entry in entries(path)? {
                if fs::symlink_metadata(&entry).is_ok_and(|info| info.is_dir()) {
                    visit(&entry)?;
                    // Not empty: there are other names.
                    let _ = fs::remove_dir(&entry);
                }
            }
            Ok(())
        }
        visit(&self.store.root.join("images"))
    }
}

fn hex_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// From its place into the work directory, with which it is removed.
pub(super) fn move_to(work: &Work, path: &Path) -> Result<()> {
    let to: PathBuf = work.new_file();
    fs::rename(path, &to).doing(|| format!("remove {}", path.display()))
}

/// Bytes that an image has of its own, and those that it has together with others.
pub fn sizes(store: &Store, records: &[Record], of: &Record) -> Result<(u64, u64)> {
    let others: HashSet<_> = records
        .iter()
        .filter(|record| record.image.config != of.image.config)
        .flat_map(|record| record.image.layers.iter().map(|layer| layer.diff_id))
        .collect();
    let (mut unique, mut shared) = (0, 0);
    let layers: HashSet<_> = of.image.layers.iter().map(|layer| layer.diff_id).collect();
    for layer in layers {
        let bytes = super::layers::record(store, layer)?.map_or(0, |record| record.bytes);
        *if others.contains(&layer) { &mut shared } else { &mut unique } += bytes;
    }
    Ok((unique, shared))
}
