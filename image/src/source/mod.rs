//! What a file or directory holds: images, in docker's form or in OCI's.
//!
//! ```text
//!   index.rs        where the entries of an archive lie
//!   files.rs        files by name: ranges of an archive, or files below a directory
//!   docker.rs       manifest.json, as docker save and podman save write it
//!   legacy.rs       repositories, ID/json, ID/layer.tar: docker save's form before 1.10
//!   layout.rs       oci-layout, index.json, blobs/
//! ```

mod compression;
mod docker;
mod files;
mod index;
mod layout;
mod legacy;

use std::fs::File;

use kelson::error::{Context, Error, Kind, Result};
use kelson::image::origin::{FileOrigin, Form};
use kelson::image::{Digest, Reference};
use sha2::{Digest as _, Sha256};

pub use files::{Files, Part, PartReader};

use crate::config::Config;
use crate::manifest::Document;
use crate::platform::Platform;
use crate::unpack::Limits;

/// An image that a source holds, as its documents describe it.
pub struct Found {
    /// Complete.
    pub names: Vec<Reference>,
    /// A tag that is no name: what OCI layouts have.
    pub tag: Option<String>,
    pub manifest: Option<Document>,
    pub config_bytes: Vec<u8>,
    pub config_digest: Digest,
    pub config: Config,
    /// Lowest first.
    pub layers: Vec<FoundLayer>,
}

/// A layer of [`Found`].
#[derive(Clone)]
pub struct FoundLayer {
    pub part: Part,
    pub diff_id: Digest,
    /// What a manifest says of the blob.
    pub blob: Option<Digest>,
}

impl Found {
    /// As a list of what there is shows it.
    fn label(&self) -> String {
        let mut labels: Vec<_> = self.names.iter().map(Reference::familiar).collect();
        labels.extend(self.tag.clone());
        match labels.is_empty() {
            true => self.config_digest.to_string(),
            false => labels.join(" "),
        }
    }

    /// The layers that `parts` are, by the configuration's diff ids.
    fn layers(config: &Config, parts: Vec<(Part, Option<Digest>)>) -> Result<Vec<FoundLayer>> {
        let diff_ids = config.diff_ids();
        if diff_ids.len() != parts.len() {
            return Err(Error::other(format!(
                "the configuration has {} layers, the image {}",
                diff_ids.len(),
                parts.len()
            )));
        }
        let layer = |(&diff_id, (part, blob))| FoundLayer { part, diff_id, blob };
        Ok(diff_ids.iter().zip(parts).map(layer).collect())
    }
}

/// Which of a source's images are wanted.
pub struct Wanted<'a> {
    pub origin: &'a FileOrigin,
    /// `None`: what fits this host best.
    pub platform: Option<&'a Platform>,
    pub limits: &'a Limits,
}

/// The images that `wanted` names: those with its tag or digest, or all.
///
/// `scratch` gives a nameless file, for an archive that has to be uncompressed.
///
/// # Errors
/// What is there is no image, is damaged, or none is what is wanted.
pub fn find(wanted: &Wanted<'_>, scratch: impl FnOnce() -> Result<File>) -> Result<Vec<Found>> {
    let path = &wanted.origin.path;
    let files = Files::open(path, wanted.limits, scratch)?;
    let found = search(&files, wanted).doing(|| format!("image in {}", path.display()))?;
    if let (Some(platform), [only]) = (wanted.platform, &found[..])
        && !platform.accepts(&only.config.platform)
    {
        return Err(Error::other(format!("the image in {} is for {}", path.display(), only.config.platform))
            .hint(format!("--platform asks for {platform}")));
    }
    Ok(found)
}

fn search(files: &Files, wanted: &Wanted<'_>) -> Result<Vec<Found>> {
    let has = |name: &str| files.find(name).map(|part| part.is_some());
    // docker save writes both since 25, and its own manifest.json has the names.
    if wanted.origin.form != Form::Oci && wanted.origin.digest.is_none() {
        if has(docker::MANIFEST)? {
            return docker::find(files, wanted);
        }
        if has(legacy::REPOSITORIES)? || (!has(layout::INDEX)? && legacy::looks_like_one(files)) {
            return legacy::find(files, wanted);
        }
    }
    if wanted.origin.form != Form::DockerArchive && has(layout::INDEX)? {
        return layout::find(files, wanted);
    }
    let looked_for = match wanted.origin.form {
        Form::Any => "it has no index.json, manifest.json or repositories",
        Form::DockerArchive => "it has no manifest.json or repositories",
        Form::Oci => "it has no index.json",
    };
    Err(Error::other(format!("this is no image: {looked_for}"))
        .hint("what docker save, podman save, skopeo copy or umoci write is one"))
}

/// Whether an image with these names is called `tag`, which is a name or a tag alone.
fn is_called(tag: &str, names: &[Reference]) -> bool {
    let whole = tag.parse::<Reference>().ok();
    names.iter().any(|name| Some(name) == whole.as_ref() || name.tag.as_deref() == Some(tag))
}

/// The images called `tag`, or all without one.
///
/// # Errors
/// There is none: the error lists what there is.
fn called(tag: Option<&str>, found: Vec<Found>) -> Result<Vec<Found>> {
    let Some(tag) = tag else { return Ok(found) };
    let all: Vec<_> = found.iter().map(Found::label).collect();
    let matching: Vec<_> =
        found.into_iter().filter(|image| image.tag.as_deref() == Some(tag) || is_called(tag, &image.names)).collect();
    match matching.is_empty() {
        true => Err(Error::new(Kind::Usage, format!("no image is called {tag:?}")).hint(list(&all))),
        false => Ok(matching),
    }
}

/// The one of `found`, or an error that lists them.
pub fn only(mut found: Vec<Found>, origin: &FileOrigin) -> Result<Found> {
    match found.len() {
        1 => Ok(found.remove(0)),
        count => {
            let labels: Vec<_> = found.iter().map(Found::label).collect();
            let prefix = if origin.form == Form::Oci { "oci" } else { "docker-archive" };
            let path = origin.path.display();
            Err(Error::new(Kind::Usage, format!("{path} holds {count} images"))
                .hint(format!("choose one by {prefix}:{path}:TAG; {}", list(&labels))))
        }
    }
}

/// "there are a, b and 3 more"
fn list(labels: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown = labels[..labels.len().min(SHOWN)].join(", ");
    match labels.len() {
        0 => "there is no image".into(),
        1 => format!("there is {shown}"),
        many if many > SHOWN => format!("there are {shown} and {} more", many - SHOWN),
        _ => format!("there are {shown}"),
    }
}

/// The digest of bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}
