//! From files to the store.

use kelson::error::{Context, Result};
use kelson::image::Reference;
use kelson::image::origin::FileOrigin;
use kelson::image::store::{FORMAT, Fingerprint, Image};

use crate::parallel;
use crate::platform::Platform;
use crate::source::{self, Found, FoundLayer, Wanted};
use crate::store::Writer;
use crate::store::layers::Expected;
use crate::store::work::Transaction;
use crate::time;
use crate::unpack::Limits;

/// What to import, and how.
pub struct Import<'a> {
    pub origin: &'a FileOrigin,
    pub platform: Option<&'a Platform>,
    pub limits: &'a Limits,
    pub names: Names<'a>,
}

/// Under which names an image goes into the store, beside its id.
pub enum Names<'a> {
    /// None: who runs a file does not ask for other images to lose their names.
    None,
    /// The file's own.
    Own,
    /// These.
    Given(&'a [Reference]),
}

/// Imports the one image that is asked for.
///
/// # Errors
/// There are several: the error lists them.
pub fn one(writer: &Writer, import: &Import<'_>) -> Result<Image> {
    let before = Fingerprint::of(&import.origin.path).ok();
    let found = source::only(find(writer, import)?, import.origin)?;
    let transaction = writer.transaction()?;
    let image = add(&transaction, found, import)?;
    if let Some(before) = before {
        let platform = import.platform.map(Platform::to_string);
        let selection = import.origin.selection(platform.as_deref());
        transaction.remember(&import.origin.path, &before, selection, image.config)?;
    }
    Ok(image)
}

/// Imports all images that are asked for.
pub fn all(writer: &Writer, import: &Import<'_>) -> Result<Vec<Image>> {
    let found = find(writer, import)?;
    if found.len() == 1 || matches!(import.names, Names::Given(_)) {
        return one(writer, import).map(|image| vec![image]);
    }
    let transaction = writer.transaction()?;
    found.into_iter().map(|image| add(&transaction, image, import)).collect()
}

fn find(writer: &Writer, import: &Import<'_>) -> Result<Vec<Found>> {
    let Import { origin, platform, limits, .. } = *import;
    source::find(&Wanted { origin, platform, limits }, || writer.scratch())
}

fn add(transaction: &Transaction<'_>, found: Found, import: &Import<'_>) -> Result<Image> {
    let path = import.origin.path.display();
    if import.platform.is_none() && !Platform::host().accepts(&found.config.platform) {
        log::warn!("the image in {path} is for {}, and this host is {}", found.config.platform, Platform::host());
    }
    let count = found.layers.len();
    let numbered: Vec<_> = found.layers.iter().enumerate().collect();
    let layers = parallel::map(numbered, parallel::workers(), |(number, layer)| {
        add_layer(transaction, layer, import.limits)
            .doing(|| format!("layer {} of {count} of the image in {path}", number + 1))
    })?;
    transaction.blob(found.config_digest, &found.config_bytes)?;
    if let Some(manifest) = &found.manifest {
        transaction.blob(manifest.digest, &manifest.bytes)?;
    }
    let image = Image {
        format: FORMAT,
        name: None,
        manifest: found.manifest.as_ref().map(|manifest| manifest.digest),
        config: found.config_digest,
        platform: found.config.platform_name(),
        layers,
        added: time::now(),
    };
    match import.names {
        Names::None => transaction.add(&image, &[]),
        Names::Given(names) => transaction.add(&image, names),
        Names::Own => transaction.add(&image, &own_names(&found, import.origin)),
    }
}

/// The names that a source gives an image; one that only has a tag is `localhost/FILE:TAG`.
fn own_names(found: &Found, origin: &FileOrigin) -> Vec<Reference> {
    if !found.names.is_empty() {
        return found.names.clone();
    }
    let Some(tag) = &found.tag else { return vec![] };
    let path = std::fs::canonicalize(&origin.path).unwrap_or_else(|_| origin.path.clone());
    let file = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = file.split(".tar").next().unwrap_or_default().trim_end_matches(".tgz");
    // What is no name stays without one.
    format!("localhost/{stem}:{tag}").parse().into_iter().collect()
}

fn add_layer(
    transaction: &Transaction<'_>,
    layer: &FoundLayer,
    limits: &Limits,
) -> Result<kelson::image::store::Layer> {
    let open = || Ok(parallel::Stoppable(layer.part.reader()));
    transaction.layer(Expected { diff_id: layer.diff_id, blob: layer.blob, open }, limits)
}
