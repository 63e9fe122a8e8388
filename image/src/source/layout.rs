//! An OCI image layout, as directory or archive: index.json and blobs by their digests (image-layout.md).

use std::collections::BTreeMap;

use kelson::error::{Context, Error, Kind, Result};
use kelson::image::{Digest, Reference};

use super::{Files, Found, Part, Wanted, digest_of, list};
use crate::config::{self, Config};
use crate::manifest::{self, Content, Descriptor, Document, Index, OCI_INDEX};
use crate::platform::{self, Platform};

pub const INDEX: &str = "index.json";
/// A tag, or with some programs a whole name (annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, of containerd and docker.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The wanted ones of the images that index.json names.
pub fn find(files: &Files, wanted: &Wanted<'_>) -> Result<Vec<Found>> {
    let bytes = files.content(INDEX, manifest::MAX_SIZE)?.unwrap_or_default();
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| Error::other(format!("{INDEX}: {error}")))?;
    let platform = wanted.platform.cloned().unwrap_or_else(Platform::host);
    if let Some(digest) = wanted.origin.digest {
        let chosen = by_digest(files, &index, digest)?;
        return image(files, vec![chosen], &platform).map(|found| vec![found]);
    }
    let groups = match &wanted.origin.tag {
        Some(tag) => vec![by_tag(&index, tag)?],
        None => by_name(index),
    };
    groups.into_iter().map(|group| image(files, group, &platform)).collect()
}

/// The entries whose name or tag is `tag`: several are one image for several platforms.
fn by_tag(index: &Index, tag: &str) -> Result<Vec<Descriptor>> {
    let whole = tag.parse::<Reference>().ok();
    let matches = |entry: &&Descriptor| {
        let (names, bare) = names_of(entry);
        bare.as_deref() == Some(tag)
            || names.iter().any(|name| Some(name) == whole.as_ref() || name.tag.as_deref() == Some(tag))
    };
    let matching: Vec<_> = index.manifests.iter().filter(matches).cloned().collect();
    let mut names: Vec<_> = matching.iter().map(|entry| names_of(entry).0).collect();
    names.dedup();
    if matching.is_empty() || names.len() > 1 {
        let all: Vec<_> = index.manifests.iter().map(label).collect();
        let trouble = if matching.is_empty() { "no image is" } else { "several images are" };
        return Err(Error::new(Kind::Usage, format!("{trouble} called {tag:?}")).hint(list(&all)));
    }
    Ok(matching)
}

/// The entries, together those that have one name: they are one image for several platforms. Those without any name are one
/// too, as an index's are.
fn by_name(index: Index) -> Vec<Vec<Descriptor>> {
    let mut groups: Vec<(String, Vec<Descriptor>)> = vec![];
    for entry in index.manifests {
        let (names, tag) = names_of(&entry);
        let key = names.first().map(Reference::to_string).or(tag).unwrap_or_default();
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => group.push(entry),
            None => groups.push((key, vec![entry])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// What has this digest, in index.json or in an index that it names.
fn by_digest(files: &Files, index: &Index, digest: Digest) -> Result<Descriptor> {
    let named = |entry: &&Descriptor| entry.digest == digest;
    if let Some(entry) = index.manifests.iter().find(named) {
        return Ok(entry.clone());
    }
    for entry in index.manifests.iter().filter(|entry| manifest::is_index(&entry.media_type)) {
        if let Content::Index(nested) = document(files, entry)?.content()?
            && let Some(inner) = nested.manifests.iter().find(named)
        {
            return Ok(inner.clone());
        }
    }
    let all: Vec<_> = index.manifests.iter().map(|entry| entry.digest.to_string()).collect();
    Err(Error::new(Kind::Usage, format!("no image has the digest {digest}")).hint(list(&all)))
}

/// Whole names, and a tag that is none.
fn names_of(entry: &Descriptor) -> (Vec<Reference>, Option<String>) {
    let none = BTreeMap::new();
    let annotations = entry.annotations.as_ref().unwrap_or(&none);
    let whole = annotations.get(IMAGE_NAME).and_then(|name| name.parse().ok());
    let named = annotations.get(REF_NAME);
    // A word alone is a tag and not the name of a repository.
    let is_whole = |name: &&String| name.contains(['/', ':', '@']);
    let whole = whole.or_else(|| named.filter(is_whole).and_then(|name| name.parse().ok()));
    match whole {
        Some(name) => (vec![name], None),
        None => (vec![], named.cloned()),
    }
}

fn label(entry: &Descriptor) -> String {
    let (names, tag) = names_of(entry);
    names.first().map(Reference::familiar).or(tag).unwrap_or_else(|| format!("@{}", entry.digest))
}

/// The image for `platform` that these entries are.
fn image(files: &Files, entries: Vec<Descriptor>, platform: &Platform) -> Result<Found> {
    let (names, tag) = entries.first().map(names_of).unwrap_or_default();
    let top = match &entries[..] {
        [only] => document(files, only)?,
        // As if an index named them.
        _ => {
            let index = Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests: entries };
            let bytes = serde_json::to_vec(&index).map_err(|error| Error::other(error.to_string()))?;
            Document { digest: digest_of(&bytes), bytes, media_type: OCI_INDEX.into() }
        }
    };
    let (document, manifest) = platform::select(top, platform, &mut |entry| document(files, entry))?;
    let config_bytes = verified(files, &manifest.config, config::MAX_SIZE)?;
    let config = Config::parse(&config_bytes).doing(|| manifest.config.digest.to_string())?;
    let parts = manifest.layers.iter().map(|layer| blob(files, layer).map(|part| (part, Some(layer.digest))));
    Ok(Found {
        names,
        tag,
        manifest: Some(document),
        config_digest: manifest.config.digest,
        layers: Found::layers(&config, parts.collect::<Result<_>>()?)?,
        config,
        config_bytes,
    })
}

fn document(files: &Files, entry: &Descriptor) -> Result<Document> {
    let bytes = verified(files, entry, manifest::MAX_SIZE)?;
    Ok(Document { bytes, media_type: entry.media_type.clone(), digest: entry.digest })
}

fn blob(files: &Files, entry: &Descriptor) -> Result<Part> {
    let part = files.part(&format!("blobs/{}/{}", Digest::ALGORITHM, entry.digest.hex()))?;
    match part.size == entry.size {
        true => Ok(part),
        false => Err(Error::other(format!("{} has {} bytes in place of {}", entry.digest, part.size, entry.size))),
    }
}

fn verified(files: &Files, entry: &Descriptor, most: u64) -> Result<Vec<u8>> {
    let bytes = blob(files, entry)?.content(most).doing(|| format!("read {}", entry.digest))?;
    match digest_of(&bytes) {
        found if found == entry.digest => Ok(bytes),
        found => Err(Error::other(format!("{} has the digest {found}: it is damaged", entry.digest))),
    }
}
