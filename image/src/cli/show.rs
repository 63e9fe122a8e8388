//! Tables and JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use kelson::error::{Error, Result};
use kelson::image::{Digest, Reference, Store};
use serde::Serialize;
use serde_json::{Value, json};

use super::Options;
use super::size::human;
use crate::config::{Config, Step};
use crate::store::images::{Record, named, records};
use crate::store::layers::record;
use crate::store::prune::sizes;
use crate::store::volumes::Volume;
use crate::store::{Writer, kept};
use crate::time;

/// An image in a list.
#[derive(Serialize)]
struct Row {
    id: Digest,
    names: Vec<String>,
    digest: Option<Digest>,
    platform: String,
    created: Option<String>,
    added: String,
    layers: usize,
    /// Bytes of its files.
    size: u64,
    /// Of them those that no other image has.
    unique: u64,
}

pub fn list(store: &Store, options: &Options) -> Result<String> {
    let records = records(store)?;
    let mut images: BTreeMap<Digest, Row> = BTreeMap::new();
    for record in &records {
        let image = &record.image;
        let (unique, shared) = sizes(store, &records, record)?;
        let row = images.entry(image.config).or_insert_with(|| Row {
            id: image.config,
            names: vec![],
            digest: image.manifest,
            platform: image.platform.clone(),
            created: configuration(store, image.config).ok().and_then(|(config, _)| config.created),
            added: image.added.clone(),
            layers: image.layers.len(),
            size: unique + shared,
            unique,
        });
        row.names.extend(record.familiar());
        row.added = row.added.clone().max(image.added.clone());
    }
    let mut rows: Vec<_> = images.into_values().collect();
    rows.sort_by(|a, b| b.added.cmp(&a.added).then_with(|| a.names.cmp(&b.names)));
    if options.json {
        return pretty(&rows);
    }
    if options.quiet {
        return Ok(rows.iter().map(|row| format!("{}\n", shortened(row.id, options))).collect());
    }
    let now = time::parse(&time::now()).unwrap_or_default();
    let mut table = vec![["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "UNIQUE"].map(str::to_owned)];
    for row in &rows {
        let names: Vec<_> = match row.names.is_empty() {
            true => vec![("<none>".to_owned(), "<none>".to_owned())],
            false => row.names.iter().map(|name| split(name)).collect(),
        };
        let created = row.created.as_deref().map_or("N/A".into(), |created| time::ago(created, now));
        let shown = [shortened(row.id, options), created, human(row.size), human(row.unique)];
        for (repository, tag) in names {
            let [id, created, size, unique] = shown.clone();
            table.push([repository, tag, id, created, size, unique]);
        }
    }
    Ok(columns(&table))
}

/// The writable layers that are kept.
pub fn kept(store: &Store, options: &Options) -> Result<String> {
    let layers = kept::layers(store)?;
    if options.quiet {
        return Ok(layers.iter().map(|layer| format!("{}\n", layer.id)).collect());
    }
    let records = records(store)?;
    let image = |layer: &kept::Layer| layer.kept.as_ref().map(|kept| kept.image);
    let name = |id: Digest| records.iter().filter(|record| record.image.config == id).find_map(Record::familiar);
    if options.json {
        let value = |layer: &kept::Layer| {
            let (image, user) = (image(layer), layer.user());
            let size = layer.size()?;
            Ok(json!({"id": layer.id, "image": image, "name": image.and_then(name), "size": size, "user": user}))
        };
        return pretty(&layers.iter().map(value).collect::<Result<Vec<_>>>()?);
    }
    let mut table = vec![["LAYER", "IMAGE", "SIZE", "USED BY"].map(str::to_owned)];
    for layer in &layers {
        let name = image(layer).map_or("<none>".into(), |id| name(id).unwrap_or_else(|| shortened(id, options)));
        let user = layer.user().map_or("-".into(), |user| user.display().to_string());
        table.push([layer.id.clone(), name, human(layer.size()?), user]);
    }
    Ok(columns(&table))
}

/// The named volumes.
pub fn volumes(writer: &Writer, options: &Options) -> Result<String> {
    let volumes = writer.volumes()?;
    if options.quiet {
        return Ok(volumes.iter().map(|volume| format!("{}\n", volume.name)).collect());
    }
    if options.json {
        let value = |volume: &Volume| json!({"name": volume.name, "size": volume.size, "user": volume.user});
        return pretty(&volumes.iter().map(value).collect::<Vec<_>>());
    }
    let mut table = vec![["VOLUME", "SIZE", "USED BY"].map(str::to_owned)];
    for volume in &volumes {
        let user = volume.user.as_ref().map_or("-".into(), |user| user.display().to_string());
        table.push([volume.name.clone(), human(volume.size), user]);
    }
    Ok(columns(&table))
}

/// `alpine:3.20` as (`alpine`, `3.20`), a name by digest as (`alpine`, `<none>`).
fn split(name: &str) -> (String, String) {
    let none = || "<none>".to_owned();
    match name.parse::<Reference>() {
        Err(_) => (name.to_owned(), none()),
        Ok(mut reference) => {
            let tag = reference.tag.take().filter(|_| reference.digest.is_none()).unwrap_or_else(none);
            reference.digest = None;
            (reference.familiar(), tag)
        }
    }
}

fn shortened(digest: Digest, options: &Options) -> String {
    match options.no_trunc {
        true => digest.to_string(),
        false => digest.hex()[..12].to_owned(),
    }
}

/// The configuration as what is read here, and as it is.
fn configuration(store: &Store, digest: Digest) -> Result<(Config, Value)> {
    let bytes = std::fs::read(store.blob(digest))?;
    let value = serde_json::from_slice(&bytes).map_err(|error| Error::other(error.to_string()))?;
    Ok((Config::parse(&bytes)?, value))
}

/// What docker inspect tells of an image, and where its layers are.
pub fn inspect(store: &Store, words: &[String]) -> Result<String> {
    let images = words.iter().map(|word| describe(store, word)).collect::<Result<Vec<_>>>()?;
    pretty(&images)
}

fn describe(store: &Store, word: &str) -> Result<Value> {
    let found = named(store, word)?;
    let Some(Record { image, .. }) = found.first() else {
        return Err(Error::other(format!("there is no image {word:?}")));
    };
    let all = records(store)?;
    let own: Vec<_> = all.iter().filter(|record| record.image.config == image.config).collect();
    let names = own.iter().filter_map(|record| record.image.name.as_ref()?.parse::<Reference>().ok());
    let (digests, tags): (Vec<_>, Vec<_>) = names.partition(|name| name.digest.is_some());
    let mut digests: Vec<_> = digests.iter().map(Reference::familiar).collect();
    for record in &own {
        let repository = record.image.name.as_ref().and_then(|name| name.parse::<Reference>().ok());
        if let (Some(mut name), Some(digest)) = (repository, record.image.manifest) {
            (name.tag, name.digest) = (None, Some(digest));
            digests.push(name.familiar());
        }
    }
    digests.sort_unstable();
    digests.dedup();
    let (config, value) = configuration(store, image.config)?;
    let mut layers = vec![];
    let mut size = 0;
    for layer in &image.layers {
        let bytes = record(store, layer.diff_id)?.map_or(0, |record| record.bytes);
        size += bytes;
        layers.push(json!({
            "DiffId": layer.diff_id,
            "Path": store.layer(layer.diff_id),
            "Size": bytes,
            "Blob": layer.blob,
            "BlobSize": layer.size,
            "MediaType": layer.media_type,
        }));
    }
    Ok(json!({
        "Id": image.config,
        "RepoTags": tags.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Digest": image.manifest,
        "Created": value["created"],
        "Author": value["author"].as_str().unwrap_or(""),
        "Comment": value["comment"].as_str().unwrap_or(""),
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant,
        "Os": config.platform.os,
        "Size": size,
        "Config": value["config"],
        "RootFS": { "Type": "layers", "Layers": config.diff_ids() },
        "Layers": layers,
        "Added": image.added,
    }))
}

/// A step in a list.
#[derive(Serialize)]
struct HistoryRow {
    /// The image's, where the step is its last.
    id: Option<Digest>,
    created: Option<String>,
    created_by: String,
    size: u64,
    comment: String,
}

pub fn history(store: &Store, word: &str, options: &Options) -> Result<String> {
    let found = named(store, word)?;
    let Some(Record { image, .. }) = found.first() else {
        return Err(Error::other(format!("there is no image {word:?}")));
    };
    let (config, _) = configuration(store, image.config)?;
    let mut layers = image.layers.iter();
    let mut steps = config.history.clone().unwrap_or_default();
    // Without a history each layer is a step.
    let said = steps.iter().filter(|step| !step.empty_layer).count();
    steps.extend((said..image.layers.len()).map(|_| Step::default()));
    let mut rows = vec![];
    for step in steps {
        let layer = if step.empty_layer { None } else { layers.next() };
        let size = match layer {
            Some(layer) => record(store, layer.diff_id)?.map_or(0, |record| record.bytes),
            None => 0,
        };
        let (created_by, comment) = (step.created_by.unwrap_or_default(), step.comment.unwrap_or_default());
        rows.push(HistoryRow { id: None, created: step.created, created_by, size, comment });
    }
    rows.reverse();
    if let Some(top) = rows.first_mut() {
        top.id = Some(image.config);
    }
    if options.json {
        return pretty(&rows);
    }
    let id = |row: &HistoryRow| row.id.map_or("<missing>".to_owned(), |id| shortened(id, options));
    if options.quiet {
        return Ok(rows.iter().map(|row| format!("{}\n", id(row))).collect());
    }
    let now = time::parse(&time::now()).unwrap_or_default();
    let mut table = vec![["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned)];
    for row in &rows {
        let created = row.created.as_deref().map_or("N/A".into(), |created| time::ago(created, now));
        let command = printable(&row.created_by);
        let command = if options.no_trunc { command } else { ellipsis(&command, 45) };
        table.push([id(row), created, command, human(row.size), printable(&row.comment)]);
    }
    Ok(columns(&table))
}

/// What an image says of itself, on one line and without what could drive a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn ellipsis(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

pub fn pretty(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::other(error.to_string()))?;
    Ok(text + "\n")
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
