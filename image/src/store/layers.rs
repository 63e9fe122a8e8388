//! A layer, unpacked once and shared by all images that have it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::image::store::{FORMAT, Layer};
use kelson::image::{Digest, Store};
use serde::{Deserialize, Serialize};

use super::work::Transaction;
use super::{ids, read_record, rename};
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

impl Transaction<'_> {
    /// Makes sure that the layer is in the store. If another process unpacks it, this waits for that one.
    ///
    /// # Errors
    /// The stream is not what is expected, is refused, or cannot be written; nothing is left then.
    pub fn layer<R: Read>(&self, expected: Expected<impl FnOnce() -> Result<R>>, limits: &Limits) -> Result<Layer> {
        let diff_id = expected.diff_id;
        let store = &self.writer.store;
        self.uses(&diff_id.hex(), &store.layer(diff_id))?;
        if let Some(known) = record(store, diff_id)? {
            return Ok(known.layer);
        }
        let work = self.writer.work_called(&format!("L-{}", diff_id.hex()))?;
        // Who had the directory before may have finished the layer.
        if let Some(known) = record(store, diff_id)? {
            return Ok(known.layer);
        }
        let blob_path = work.path().join("blob");
        let unpacked = self.unpack(work.path(), &blob_path, (expected.open)()?, limits)?;
        verify(&unpacked, diff_id, expected.blob)?;
        let layer = layer_of(&unpacked);
        let record = LayerRecord {
            format: FORMAT,
            layer: layer.clone(),
            archive_size: unpacked.archive_size,
            bytes: unpacked.bytes,
            entries: unpacked.entries,
        };
        let mut text = serde_json::to_vec(&record).map_err(|error| Error::other(error.to_string()))?;
        text.push(b'\n');
        let written = fs::write(work.path().join("layer.json"), text);
        written.doing(|| format!("write the record of {diff_id}"))?;
        // All of it or nothing, after a crash of the host too.
        nix::unistd::syncfs(work.directory()).doing(|| "write the layer to the disk")?;
        self.uses(&layer.blob.hex(), &store.blob(layer.blob))?;
        rename(&blob_path, &store.blob(layer.blob))?;
        rename(work.path(), &store.root.join("layers").join(diff_id.hex()))?;
        work.keep();
        Ok(layer)
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
