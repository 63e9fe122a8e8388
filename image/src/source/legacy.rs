//! The form of `docker save` before 1.10: `repositories` names the topmost layer of each image, `ID/json` each layer's parent
//! (moby: image/spec/v1.md). It has no configuration and no diff ids; both are made from what is there.

use std::collections::{BTreeMap, HashMap};
use std::io;

use kelson::error::{Context, Error, Result};
use kelson::image::{Digest, Reference};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Files, Found, FoundLayer, Part, Wanted, called, digest_of};
use crate::config::{self, Config};
use crate::manifest;
use crate::unpack::{self, Limits};

pub const REPOSITORIES: &str = "repositories";
/// More layers than any program made then (127) or makes now.
const MAX_LAYERS: usize = 1000;

/// `ID/json`.
#[derive(Clone, Deserialize)]
struct LayerJson {
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    container_config: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Whether an archive without `repositories` has layers in this form: an image that was saved by its id.
pub fn looks_like_one(files: &Files) -> bool {
    files.names().iter().any(|name| name.ends_with("/layer.tar"))
}

/// The wanted ones of the images that `repositories` names, or the one that is no other's parent.
pub fn find(files: &Files, wanted: &Wanted<'_>) -> Result<Vec<Found>> {
    let mut images: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    match files.content(REPOSITORIES, manifest::MAX_SIZE)? {
        Some(text) => {
            let repositories: BTreeMap<String, BTreeMap<String, String>> =
                serde_json::from_slice(&text).map_err(|error| Error::other(format!("{REPOSITORIES}: {error}")))?;
            for (repository, tags) in repositories {
                for (tag, id) in tags {
                    images.entry(id).or_default().push(format!("{repository}:{tag}").parse()?);
                }
            }
        }
        None => drop(images.insert(topmost(files)?, vec![])),
    }
    // Before the layers are read, which takes a while: what is not called so.
    if let Some(tag) = &wanted.origin.tag
        && images.values().any(|names| super::is_called(tag, names))
    {
        images.retain(|_, names| super::is_called(tag, names));
    }
    let mut hashed = HashMap::new();
    let found = images.into_iter().map(|(id, names)| read(files, &id, names, wanted.limits, &mut hashed));
    called(wanted.origin.tag.as_deref(), found.collect::<Result<_>>()?)
}

/// The layer that is no other's parent.
fn topmost(files: &Files) -> Result<String> {
    let ids: Vec<_> =
        files.names().iter().filter_map(|name| name.strip_suffix("/layer.tar")).map(str::to_owned).collect();
    let mut parents = vec![];
    for id in &ids {
        parents.extend(layer_json(files, id)?.parent);
    }
    let mut tops = ids.into_iter().filter(|id| !parents.contains(id));
    match (tops.next(), tops.next()) {
        (Some(top), None) => Ok(top),
        _ => Err(Error::other("it has no repositories, and not one layer that is on top of all")),
    }
}

fn layer_json(files: &Files, id: &str) -> Result<LayerJson> {
    if id.contains(['/', '.']) || id.is_empty() {
        return Err(Error::other(format!("{id:?} is no layer's id")));
    }
    let name = format!("{id}/json");
    let text = files.part(&name)?.content(config::MAX_SIZE).doing(|| format!("read {name}"))?;
    serde_json::from_slice(&text).map_err(|error| Error::other(format!("{name}: {error}")))
}

/// From the topmost layer's id down to the lowest.
fn chain(files: &Files, top: &str) -> Result<Vec<(String, LayerJson)>> {
    let mut chain: Vec<(String, LayerJson)> = vec![];
    let mut next = Some(top.to_owned());
    while let Some(id) = next.filter(|id| !id.is_empty()) {
        if chain.len() == MAX_LAYERS || chain.iter().any(|(other, _)| *other == id) {
            return Err(Error::other(format!("the parents of {top} have no end")));
        }
        let layer = layer_json(files, &id)?;
        next = layer.parent.clone();
        chain.push((id, layer));
    }
    Ok(chain)
}

fn read(
    files: &Files,
    top: &str,
    names: Vec<Reference>,
    limits: &Limits,
    hashed: &mut HashMap<String, (Part, Digest)>,
) -> Result<Found> {
    let mut chain = chain(files, top)?;
    chain.reverse();
    let mut layers = vec![];
    for (id, _) in &chain {
        let (part, diff_id) = match hashed.get(id) {
            Some(known) => known.clone(),
            None => {
                let part = files.part(&format!("{id}/layer.tar"))?;
                let diff_id = diff_id(&part, limits).doing(|| format!("read {id}/layer.tar"))?;
                hashed.entry(id.clone()).or_insert((part, diff_id)).clone()
            }
        };
        layers.push(FoundLayer { part, diff_id, blob: None });
    }
    let jsons: Vec<_> = chain.into_iter().map(|(_, layer)| layer).collect();
    let config_bytes = configuration(jsons, &layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>())?;
    Ok(Found {
        names,
        tag: None,
        manifest: None,
        config_digest: digest_of(&config_bytes),
        config: Config::parse(&config_bytes)?,
        config_bytes,
        layers,
    })
}

/// The digest of the layer uncompressed; as docker load does it, compressed ones are taken.
fn diff_id(part: &Part, limits: &Limits) -> Result<Digest> {
    struct Hash(Sha256);
    impl io::Write for Hash {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hash = Hash(Sha256::new());
    unpack::uncompress(part.reader(), &mut hash, limits)?;
    Ok(Digest::from_bytes(hash.0.finalize().into()))
}

/// The configuration that these layers have together, lowest first: the topmost's, with a history and the diff ids
/// (moby: image/v1/imagev1.go, MakeConfigFromV1Config).
fn configuration(layers: Vec<LayerJson>, diff_ids: &[Digest]) -> Result<Vec<u8>> {
    let history: Vec<_> = layers.iter().map(step).collect();
    let top = layers.into_iter().last().ok_or_else(|| Error::other("an image without layers"))?;
    let mut config = top.rest;
    for name in ["id", "layer_id", "throwaway", "Size", "history", "rootfs", "parent_id", "layer_tag_map"] {
        config.remove(name);
    }
    for (name, value) in [
        ("created", top.created.map(Value::from)),
        ("author", top.author.map(Value::from)),
        ("comment", top.comment.map(Value::from)),
        ("container_config", top.container_config),
        ("history", Some(history.into())),
        ("rootfs", Some(json!({ "type": "layers", "diff_ids": diff_ids }))),
    ] {
        config.extend(value.map(|value| (name.to_owned(), value)));
    }
    // Before 0.6 nothing said so, as there was one.
    config.entry("architecture").or_insert("amd64".into());
    config.entry("os").or_insert("linux".into());
    serde_json::to_vec(&config).map_err(|error| Error::other(error.to_string()))
}

fn step(layer: &LayerJson) -> Value {
    let command = layer.container_config.as_ref().and_then(|config| config["Cmd"].as_array());
    let words = command.map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    let mut step = Map::new();
    for (name, value) in
        [("created", &layer.created), ("created_by", &words), ("author", &layer.author), ("comment", &layer.comment)]
    {
        step.extend(value.clone().filter(|text| !text.is_empty()).map(|text| (name.to_owned(), text.into())));
    }
    step.into()
}
