//! An OCI image layout: the blobs as they are kept, and an index of the images.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use kelson::error::{Context, Error, Result};
use kelson::image::store::Image;
use kelson::image::{Digest, Store};

use super::{Exported, Sink, content};
use crate::manifest::{Content, Descriptor, Document, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::source::digest_of;

pub fn write(store: &Store, images: &[Exported], sink: &mut Sink) -> Result<()> {
    sink.put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut manifests = vec![];
    for Exported { image, names } in images {
        let config = content(store, image.config)?;
        let manifest = manifest(store, image, config.len() as u64)?;
        sink.put(&blob_name(image.config), &config)?;
        for layer in &image.layers {
            let path = store.blob(layer.blob);
            sink.put_checked(&blob_name(layer.blob), layer.size, layer.blob, |output| {
                let mut blob = File::open(&path).doing(|| format!("open {}", path.display()))?;
                Ok(io::copy(&mut blob, output).map(drop)?)
            })?;
        }
        sink.put(&blob_name(manifest.digest), &manifest.bytes)?;
        let entry = Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: manifest.digest,
            size: manifest.bytes.len() as u64,
            urls: vec![],
            platform: Some(image.platform.parse()?),
            annotations: None,
        };
        // podman takes the first for the name, containerd and docker the second.
        let named = names.iter().filter(|name| name.digest.is_none()).map(|name| Descriptor {
            annotations: Some(BTreeMap::from([
                ("org.opencontainers.image.ref.name".to_owned(), name.to_string()),
                ("io.containerd.image.name".to_owned(), name.to_string()),
            ])),
            ..entry.clone()
        });
        let before = manifests.len();
        manifests.extend(named);
        if manifests.len() == before {
            manifests.push(entry);
        }
    }
    let index = Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests };
    sink.put("index.json", &json(&index)?)
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/{}/{}", Digest::ALGORITHM, digest.hex())
}

/// The image's manifest, if it is OCI's and names the blobs that the store has; else one that does.
fn manifest(store: &Store, image: &Image, config_size: u64) -> Result<Document> {
    if let Some(digest) = image.manifest {
        let document = Document { bytes: content(store, digest)?, media_type: String::new(), digest };
        if let Content::Manifest(manifest) = document.content()? {
            let own = manifest.layers.iter().map(|layer| layer.digest);
            let is_oci = manifest.media_type == OCI_MANIFEST || manifest.media_type.is_empty();
            if is_oci && own.eq(image.layers.iter().map(|layer| layer.blob)) {
                return Ok(document);
            }
        }
    }
    let descriptor = |media_type: &str, digest, size| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: vec![],
        platform: None,
        annotations: None,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.into(),
        config: descriptor(OCI_CONFIG, image.config, config_size),
        layers: image.layers.iter().map(|layer| descriptor(&layer.media_type, layer.blob, layer.size)).collect(),
    };
    let bytes = json(&manifest)?;
    Ok(Document { digest: digest_of(&bytes), bytes, media_type: OCI_MANIFEST.into() })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::other(error.to_string()))
}
