//! What `docker save` and `podman save` write: manifest.json names each image's configuration and layers (moby:
//! image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format").

use kelson::error::{Context, Error, Result};
use serde::Deserialize;

use super::{Files, Found, Wanted, called, digest_of};
use crate::config::{self, Config};
use crate::manifest;

pub const MANIFEST: &str = "manifest.json";

/// One image in manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The wanted ones of the images that manifest.json names.
pub fn find(files: &Files, wanted: &Wanted<'_>) -> Result<Vec<Found>> {
    let text = files.content(MANIFEST, manifest::MAX_SIZE)?.unwrap_or_default();
    let entries: Vec<Entry> =
        serde_json::from_slice(&text).map_err(|error| Error::other(format!("{MANIFEST}: {error}")))?;
    let found = entries.iter().map(|entry| read(files, entry)).collect::<Result<Vec<_>>>()?;
    called(wanted.origin.tag.as_deref(), for_platform(found, wanted))
}

fn read(files: &Files, entry: &Entry) -> Result<Found> {
    let config_bytes =
        files.part(&entry.config)?.content(config::MAX_SIZE).doing(|| format!("read {}", entry.config))?;
    let config = Config::parse(&config_bytes).doing(|| entry.config.clone())?;
    let names = entry.repo_tags.iter().flatten();
    let layers = entry.layers.iter().flatten().map(|name| files.part(name).map(|part| (part, None)));
    Ok(Found {
        names: names.map(|name| name.parse()).collect::<Result<_>>()?,
        tag: None,
        manifest: None,
        config_digest: digest_of(&config_bytes),
        layers: Found::layers(&config, layers.collect::<Result<_>>()?)?,
        config,
        config_bytes,
    })
}

/// Of several images with one name, which docker's containerd store writes, those for the platform.
fn for_platform(found: Vec<Found>, wanted: &Wanted<'_>) -> Vec<Found> {
    let platform = wanted.platform.cloned().unwrap_or_else(crate::platform::Platform::host);
    let fits: Vec<_> = found.iter().map(|image| platform.accepts(&image.config.platform)).collect();
    let has_better = |image: &Found| {
        let other = |(other, fits): (&Found, &bool)| *fits && !other.names.is_empty() && other.names == image.names;
        found.iter().zip(&fits).any(other)
    };
    let keep: Vec<_> = found.iter().zip(&fits).map(|(image, fits)| *fits || !has_better(image)).collect();
    found.into_iter().zip(keep).filter_map(|(image, keep)| keep.then_some(image)).collect()
}
