//! From a registry to the store.

use kelson::error::{Context, Error, Result};
use kelson::image::Reference;
use kelson::image::store::{FORMAT, Image, Layer};

use crate::config::{self, Config};
use crate::manifest::{Descriptor, Manifest};
use crate::parallel::{self, Stoppable};
use crate::platform::{self, Platform};
use crate::progress::Progress;
use crate::registry::{self, Client, Version};
use crate::store::Writer;
use crate::store::layers::Expected;
use crate::store::work::Transaction;
use crate::time;
use crate::unpack::Limits;

/// Layers that are fetched at once: what docker does, too.
const DOWNLOADS: usize = 3;

/// How to fetch.
pub struct Pull<'a> {
    /// `None`: what fits this host best.
    pub platform: Option<&'a Platform>,
    pub limits: &'a Limits,
    pub registry: registry::Options,
    pub progress: &'a Progress,
}

/// Fetches the image with this name and records it under it. Layers that the store has are not fetched.
///
/// # Errors
/// The registry cannot be reached, has no such image or refuses; what it sends is not what it should be. Layers that were whole
/// by then stay until the store is pruned: the next try goes on from there.
pub fn pull(writer: &Writer, name: &Reference, pull: &Pull<'_>) -> Result<Image> {
    let client = Client::new(&name.host, pull.registry.clone())?;
    let version = match (&name.digest, &name.tag) {
        (Some(digest), _) => Version::Digest(*digest),
        (None, tag) => Version::Tag(tag.as_deref().unwrap_or("latest")),
    };
    let platform = pull.platform.cloned().unwrap_or_else(Platform::host);
    let document = client.manifest(&name.path, version)?;
    let mut fetch = |descriptor: &Descriptor| client.manifest_of(&name.path, descriptor);
    let (document, manifest) = platform::select(document, &platform, &mut fetch).doing(|| name.familiar())?;
    let config_document = client.document_of(&name.path, &manifest.config, config::MAX_SIZE)?;
    let config = Config::parse(&config_document.bytes).doing(|| name.familiar())?;
    check(&config, &manifest, pull.platform).doing(|| name.familiar())?;

    let transaction = writer.transaction()?;
    let layers = fetch_layers(&transaction, &client, name, &config, &manifest, pull)?;
    transaction.blob(config_document.digest, &config_document.bytes)?;
    transaction.blob(document.digest, &document.bytes)?;
    let image = Image {
        format: FORMAT,
        name: None,
        manifest: Some(document.digest),
        config: config_document.digest,
        platform: config.platform_name(),
        layers,
        added: time::now(),
    };
    transaction.add(&image, std::slice::from_ref(name))
}

fn check(config: &Config, manifest: &Manifest, wanted: Option<&Platform>) -> Result<()> {
    let (said, layers) = (config.diff_ids().len(), manifest.layers.len());
    if said != layers {
        return Err(Error::other(format!("the configuration has {said} layers, the manifest {layers}"))
            .hint("it may be no image of a container: registries keep other things too"));
    }
    match wanted {
        Some(wanted) if !wanted.accepts(&config.platform) => {
            Err(Error::other(format!("the image is for {}, and --platform asks for {wanted}", config.platform)))
        }
        None if !Platform::host().accepts(&config.platform) => {
            log::warn!("the image is for {}, and this host is {}", config.platform, Platform::host());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn fetch_layers(
    transaction: &Transaction<'_>,
    client: &Client,
    name: &Reference,
    config: &Config,
    manifest: &Manifest,
    pull: &Pull<'_>,
) -> Result<Vec<Layer>> {
    let count = manifest.layers.len();
    let layers: Vec<_> = config.diff_ids().iter().zip(&manifest.layers).enumerate().collect();
    parallel::map(layers, DOWNLOADS.max(parallel::workers()), |(number, (diff_id, descriptor))| {
        let bar = pull.progress.layer(descriptor);
        let open = || Ok(Stoppable(bar.reads(client.blob(&name.path, descriptor)?)));
        let layer = Expected { diff_id: *diff_id, blob: Some(descriptor.digest), open };
        let fetched = transaction.layer(layer, pull.limits);
        if fetched.is_ok() {
            bar.finish();
        }
        fetched.doing(|| format!("layer {} of {count} of {}", number + 1, name.familiar()))
    })
}
