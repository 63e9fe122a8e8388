//! docker's archive: manifest.json, configurations, uncompressed layers.

use std::fs::File;

use kelson::error::{Context, Error, Result};
use kelson::image::{Reference, Store};
use serde::Serialize;

use super::{Exported, Sink, content};
use crate::store::layers::record;
use crate::unpack::{self, Limits};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

pub fn write(store: &Store, images: &[Exported], sink: &mut Sink) -> Result<()> {
    let mut entries = vec![];
    for Exported { image, names } in images {
        let config = format!("{}.json", image.config.hex());
        sink.put(&config, &content(store, image.config)?)?;
        let mut layers = vec![];
        for layer in &image.layers {
            let name = format!("{}.tar", layer.diff_id.hex());
            let known = record(store, layer.diff_id)?
                .ok_or_else(|| Error::other(format!("the store lacks the layer {}", layer.diff_id)))?;
            let path = store.blob(layer.blob);
            sink.put_checked(&name, known.archive_size, layer.diff_id, |output| {
                let blob = File::open(&path).doing(|| format!("open {}", path.display()))?;
                // It was within the limits when it came.
                let limits = Limits { bytes: u64::MAX, ratio: u64::MAX, ..Limits::default() };
                unpack::uncompress(blob, output, &limits).map(drop)
            })?;
            layers.push(name);
        }
        // Whole names, as podman calls a short one localhost/…; one by digest is none that docker load can give.
        let tags = names.iter().filter(|name| name.digest.is_none()).map(Reference::to_string).collect();
        entries.push(Entry { config, repo_tags: tags, layers });
    }
    let text = serde_json::to_vec(&entries).map_err(|error| Error::other(error.to_string()))?;
    sink.put("manifest.json", &text)
}
