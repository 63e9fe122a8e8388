//! The changes of a container as a new layer of its image.
//!
//! ```text
//!   changes → archive → digest (diff id) → gzip → a nameless file      the container may go on
//!   the file → transaction.layer: unpacked and verified as a layer that comes from anywhere
//!   configuration (history, diff_ids, instructions) → manifest → record
//! ```
//! The blob is compressed, quickly: an export and a registry have it as it is, and it is a third of the archive more often than
//! not. The first level, because the container stands still meanwhile.

mod instruction;

use std::fs::File;
use std::io::{BufWriter, Seek, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use kelson::error::{Context, Error, Result};
use kelson::image::changes::{Commit, Request};
use kelson::image::store::{FORMAT, Image, Layer};
use kelson::image::{Digest, Reference, Store};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::changes::Container;
use crate::changes::archive::Archive;
use crate::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::source::digest_of;
use crate::store::layers::Expected;
use crate::store::work::Transaction;
use crate::store::{Hold, Writer};
use crate::time;
use crate::unpack::Limits;

/// As many layers as overlayfs stacks (OVL_MAX_STACK).
const MAX_LAYERS: usize = 500;

/// Hashes what is written.
struct Hashed<W> {
    to: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.hash.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

impl<W> Hashed<W> {
    fn new(to: W) -> Self {
        Self { to, hash: Sha256::new() }
    }

    fn finish(self) -> (W, Digest) {
        (self.to, Digest::from_bytes(self.hash.finalize().into()))
    }
}

/// The archive of a new layer.
struct Draft {
    /// Compressed; it stands at its beginning.
    file: File,
    diff_id: Digest,
    blob: Digest,
}

/// Makes the image `commit` of a container.
///
/// # Errors
/// The container's image is not in the store any more, or not what the container was made of; an instruction that is not
/// understood; what the container has cannot be read or cannot be in a layer.
pub fn commit(
    writer: &Writer,
    container: Container,
    request: &Request,
    commit: &Commit,
    limits: &Limits,
) -> Result<Image> {
    let name: Reference = commit.name.parse()?;
    if name.digest.is_some() {
        return Err(Error::usage("a digest cannot be given to an image as its name").hint("NAME:TAG"));
    }
    let transaction = writer.transaction()?;
    let base = base(&transaction, request)?;
    let mut config = read_config(&writer.store, &base)?;
    commit
        .changes
        .iter()
        .try_for_each(|text| instruction::apply(&mut config, text).doing(|| format!("--change {text:?}")))?;
    let draft = draft(writer, container, limits)?;
    let layer = draft.map(|draft| add_layer(&transaction, draft, limits)).transpose()?;
    let mut layers = base.layers.clone();
    layers.extend(layer.clone());
    if layers.len() > MAX_LAYERS {
        return Err(Error::other(format!("with this one the image has more than {MAX_LAYERS} layers")));
    }
    describe(&mut config, request, commit, layer.as_ref())?;
    let config_text = text_of(&Value::Object(config))?;
    let config_digest = digest_of(&config_text);
    let manifest = manifest(config_digest, config_text.len() as u64, &layers)?;
    let manifest_digest = digest_of(&manifest);
    transaction.blob(config_digest, &config_text)?;
    transaction.blob(manifest_digest, &manifest)?;
    let image = Image {
        format: FORMAT,
        name: None,
        manifest: Some(manifest_digest),
        config: config_digest,
        platform: base.platform,
        layers,
        added: time::now(),
    };
    transaction.add(&image, &[name])
}

/// The image that the container was made of, which stays in the store while this goes on.
fn base(transaction: &Transaction<'_>, request: &Request) -> Result<Image> {
    let id = &request.id;
    let digest = request.image.ok_or_else(|| {
        Error::state(format!("container {id:?} is of no image"))
            .hint("commit takes containers of run --image and bundle")
    })?;
    let store = &transaction.writer.store;
    let _lock = transaction.writer.lock(Hold::Shared)?;
    let anchor = store.record(&Store::anchor_of(digest))?.filter(|image| store.blob(image.config).exists());
    let image = anchor.ok_or_else(|| {
        Error::state(format!("the image {digest}, which container {id:?} was made of, is not in the store any more"))
            .hint(format!("{} is the store: pull or import the image again, or give --store", store.root.display()))
    })?;
    if store.stack(&image) != request.lower {
        return Err(Error::state(format!("the layers of container {id:?} are not those of its image {digest}"))
            .hint("its configuration was edited, or its store is another: --store DIR"));
    }
    transaction.keeps(&image)?;
    Ok(image)
}

fn read_config(store: &Store, base: &Image) -> Result<Map<String, Value>> {
    let path = store.blob(base.config);
    let doing = || format!("read the image's configuration {}", path.display());
    let text = std::fs::read(&path).doing(doing)?;
    serde_json::from_slice(&text).map_err(|error| Error::other(error.to_string())).doing(doing)
}

/// Writes the changes into a nameless file of the store; `None` if there are none.
fn draft(writer: &Writer, container: Container, limits: &Limits) -> Result<Option<Draft>> {
    let blob = Hashed::new(BufWriter::with_capacity(256 << 10, writer.scratch()?));
    let output = Hashed::new(GzEncoder::new(blob, Compression::fast()));
    let mut archive = Archive::new(output, limits.bytes, writer.ownership.squash, container.owners().clone());
    container.changes(&mut |change| archive.add(change)).doing(|| "read the container's changes")?;
    if archive.entries() == 0 {
        return Ok(None);
    }
    let (gzip, diff_id) = archive.finish()?.finish();
    let (file, blob) = gzip.finish().doing(|| "write the layer")?.finish();
    let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error).doing(|| "write the layer")?;
    file.rewind().doing(|| "write the layer")?;
    Ok(Some(Draft { file, diff_id, blob }))
}

fn add_layer(transaction: &Transaction<'_>, draft: Draft, limits: &Limits) -> Result<Layer> {
    // Zeros are small when they are compressed: what the container has is no trap for its own host.
    let limits = Limits { ratio: u64::MAX, ..limits.clone() };
    let expected = Expected { diff_id: draft.diff_id, blob: Some(draft.blob), open: || Ok(draft.file) };
    transaction.layer(expected, &limits).doing(|| "keep the container's changes as a layer")
}

/// What a new image says of how it was made.
fn describe(config: &mut Map<String, Value>, request: &Request, commit: &Commit, layer: Option<&Layer>) -> Result<()> {
    let now = time::now();
    let mut step = json!({"created": now, "created_by": format!("kelson commit {}", request.id)});
    if let Some(author) = &commit.author {
        step["author"] = json!(author);
        config.insert("author".into(), json!(author));
    }
    if let Some(message) = &commit.message {
        step["comment"] = json!(message);
    }
    match layer {
        Some(layer) => list(config, "rootfs")?
            .entry("diff_ids")
            .or_insert_with(|| json!([]))
            .as_array_mut()
            .ok_or_else(|| Error::other("the image's configuration is broken: rootfs.diff_ids is no array"))?
            .push(json!(layer.diff_id)),
        None => step["empty_layer"] = json!(true),
    }
    config.insert("created".into(), json!(now));
    // What docker keeps of the container that it made the base of.
    for key in ["container", "container_config", "id", "parent", "parent_id"] {
        config.remove(key);
    }
    match config.entry("history").or_insert_with(|| json!([])) {
        Value::Array(history) => history.push(step),
        history => *history = json!([step]),
    }
    Ok(())
}

/// The object `key` of a configuration, made where it is missing.
fn list<'c>(config: &'c mut Map<String, Value>, key: &str) -> Result<&'c mut Map<String, Value>> {
    let entry = config.entry(key).or_insert_with(|| json!({}));
    if entry.is_null() {
        *entry = json!({});
    }
    entry
        .as_object_mut()
        .ok_or_else(|| Error::other(format!("the image's configuration is broken: {key} is no object")))
}

fn manifest(config: Digest, size: u64, layers: &[Layer]) -> Result<Vec<u8>> {
    let descriptor = |media_type: &str, digest, size| Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        urls: vec![],
        platform: None,
        annotations: None,
    };
    let layers = layers.iter().map(|layer| descriptor(&layer.media_type, layer.blob, layer.size)).collect();
    let config = descriptor(OCI_CONFIG, config, size);
    text_of(&Manifest { schema_version: 2, media_type: OCI_MANIFEST.into(), config, layers })
}

fn text_of(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::other(error.to_string()))
}
