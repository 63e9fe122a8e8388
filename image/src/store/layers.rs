//! A layer, unpacked once and shared by all images that have it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError};

use kelson::error::{Context, Error, Result};
use kelson::image::store::{FORMAT, Layer};
use kelson::image::{Digest, Store};
use serde::{Deserialize, Serialize};

use super::work::Transaction;
use super::{as_json, ids, read_record, rename};
use crate::unpack::{self, Compression, Limits, Unpacked};

/// `layer.json`: what is known of a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerRecord {
    pub format: u32,
    #[serde(flatten)]
    pub layer: Layer,
    /// Bytes of the uncompressed archive.
    pub archive_size: u64,
    /// Bytes of the files.
    pub bytes: u64,
    pub entries: u64,
}

/// What a layer must be, and where it comes from.
pub struct Expected<S> {
    pub diff_id: Digest,
    /// Of the stream as it is received, where a manifest says so.
    pub blob: Option<Digest>,
    /// Opens the stream; not called where the layer is in the store.
    pub open: S,
}

/// Path of a layer's record.
pub fn record_path(store: &Store, diff_id: Digest) -> PathBuf {
    store.layer(diff_id).with_file_name("layer.json")
}

/// What is known of a layer that is in the store.
pub fn record(store: &Store, diff_id: Digest) -> Result<Option<LayerRecord>> {
    read_record(&record_path(store, diff_id))
}

/// The file beside `layer.json` of a layer that may not be on the disk yet: it counts until the host boots again.
const UNSETTLED: &str = "unsettled";

fn unsettled_path(store: &Store, diff_id: Digest) -> PathBuf {
    store.layer(diff_id).with_file_name(UNSETTLED)
}

/// What is known of a layer that can be used, and whether it is on the disk: what a crash of the host may have left half written
/// is not.
fn usable(store: &Store, diff_id: Digest) -> Result<Option<(LayerRecord, bool)>> {
    let path = unsettled_path(store, diff_id);
    let boot = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        boot => Some(boot.doing(|| format!("read {}", path.display()))?),
    };
    match &boot {
        Some(boot) if boot != boot_id()? => Ok(None),
        _ => {
            let known = record(store, diff_id).hint(|| "kelson image prune removes what is broken")?;
            Ok(known.map(|known| (known, boot.is_none())))
        }
    }
}

/// Another one after each boot of the host.
fn boot_id() -> Result<&'static str> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(path).doing(|| format!("read {path}"))?;
    Ok(ID.get_or_init(|| id.trim().to_owned()))
}

impl Transaction<'_> {
    /// Makes sure that the layer is in the store. If another process unpacks it, this waits for that one. It is sure to outlive a
    /// crash of the host after [`Transaction::settle`].
    ///
    /// # Errors
    /// The stream is not what is expected, is refused, or cannot be written; nothing is left then.
    pub fn layer<R: Read>(&self, expected: Expected<impl FnOnce() -> Result<R>>, limits: &Limits) -> Result<Layer> {
        let diff_id = expected.diff_id;
        let store = &self.writer.store;
        self.uses(&diff_id.hex(), &store.layer(diff_id))?;
        if let Some(known) = usable(store, diff_id)? {
            return Ok(self.counts(known));
        }
        let work = self.writer.work_called(&format!("L-{}", diff_id.hex()))?;
        // Who had the directory before may have finished the layer.
        if let Some(known) = usable(store, diff_id)? {
            return Ok(self.counts(known));
        }
        let blob_path = work.path().join("blob");
        let unpacked = self.unpack(work.path(), &blob_path, (expected.open)()?, limits)?;
        verify(&unpacked, diff_id, expected.blob)?;
        let record = LayerRecord {
            format: FORMAT,
            layer: layer_of(&unpacked),
            archive_size: unpacked.archive_size,
            bytes: unpacked.bytes,
            entries: unpacked.entries,
        };
        self.writer.place(&work, &work.path().join("layer.json"), &as_json(&record)?)?;
        self.writer.place(&work, &work.path().join(UNSETTLED), boot_id()?.as_bytes())?;
        self.uses(&record.layer.blob.hex(), &store.blob(record.layer.blob))?;
        rename(&blob_path, &store.blob(record.layer.blob))?;
        let place = store.root.join("layers").join(diff_id.hex());
        if place.exists() {
            // Of another boot. What is taken away from there goes with the transaction.
            rename(&place, &self.work.new_file())?;
        }
        rename(work.path(), &place)?;
        work.keep();
        Ok(self.counts((record, false)))
    }

    fn counts(&self, (record, is_settled): (LayerRecord, bool)) -> Layer {
        if !is_settled {
            self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).push(record.layer.diff_id);
        }
        record.layer
    }

    /// Waits until all layers are on the disk, once for all of them: a crash of the host leaves an image whole or not at all.
    pub fn settle(&self) -> Result<()> {
        let layers = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        if layers.is_empty() {
            return Ok(());
        }
        nix::unistd::syncfs(self.work.directory()).doing(|| "write the layers to the disk")?;
        for diff_id in layers {
            let path = unsettled_path(&self.writer.store, diff_id);
            match fs::remove_file(&path) {
                // Another writer used the layer too, and was first.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.doing(|| format!("remove {}", path.display()))?,
            }
        }
        Ok(())
    }

    fn unpack(&self, work: &Path, blob: &Path, stream: impl Read, limits: &Limits) -> Result<Unpacked> {
        let root = work.join("fs");
        // What the archive says of its root counts; else it is docker's for a directory that nothing describes.
        let root = DirBuilder::new().mode(0o755).create(&root).and_then(|()| File::open(&root));
        let root = root.doing(|| format!("make {}/fs", work.display()))?;
        let copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(blob);
        let copy = copy.doing(|| format!("make {}", blob.display()))?;
        let mut copy = BufWriter::with_capacity(256 << 10, copy);
        let options = ids::options(&self.writer.ownership, limits);
        let unpacked = unpack::unpack(stream, Some(&mut copy), root.as_fd(), &options)?;
        copy.flush().doing(|| format!("write {}", blob.display()))?;
        Ok(unpacked)
    }
}

fn verify(unpacked: &Unpacked, diff_id: Digest, blob: Option<Digest>) -> Result<()> {
    if let Some(blob) = blob.filter(|blob| *blob != unpacked.blob) {
        return Err(Error::other(format!("it has the digest {} in place of {blob}", unpacked.blob))
            .hint("it is damaged, or not the one that the image names"));
    }
    match unpacked.diff_id == diff_id {
        true => Ok(()),
        false => {
            Err(Error::other(format!("uncompressed it has the digest {} in place of {diff_id}", unpacked.diff_id))
                .hint("it is damaged, or not the one that the image's configuration names"))
        }
    }
}

fn layer_of(unpacked: &Unpacked) -> Layer {
    let media_type = match unpacked.compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    Layer {
        diff_id: unpacked.diff_id,
        blob: unpacked.blob,
        size: unpacked.blob_size,
        media_type: media_type.into(),
        is_opaque: unpacked.is_opaque,
    }
}
