//! The documents that an image is made of, as JSON has them: descriptors, indexes and manifests (image-spec 1.1; docker's
//! Image Manifest Version 2, Schema 2, which has the same fields under other media types).

use kelson::error::{Error, Result};
use kelson::image::Digest;
use serde::{Deserialize, Serialize};

use crate::platform::Platform;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Docker's first form, signed or not: it has no configuration and its digests are of something else.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Most bytes of a manifest or an index: what a registry has to take at least (distribution-spec, "Pushing Manifests").
pub const MAX_SIZE: u64 = 4 << 20;

/// Bytes with their digest and media type: a manifest, index or configuration as it was received, verified.
#[derive(Clone, Debug)]
pub struct Document {
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
}

/// What names a piece of content (descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Where else the content is; only layers that may not be distributed have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// An index, or docker's manifest list: one image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
}

/// The manifest of an image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// What a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Index(Index),
    Manifest(Manifest),
}

/// What tells the one from the other where the media type does not.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: String,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// What the document says: an index or a manifest.
    ///
    /// # Errors
    /// It is neither, is both (CVE-2021-41190), has docker's schema 1, or calls itself other than what it was sent as.
    pub fn content(&self) -> Result<Content> {
        let wrong = |why: String| Error::other(format!("{} is no manifest of an image: {why}", self.digest));
        // serde would take the fields in their order as well.
        if self.bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(wrong("it is no JSON object".into()));
        }
        let shape: Shape = serde_json::from_slice(&self.bytes).map_err(|error| wrong(error.to_string()))?;
        if self.media_type.starts_with(SCHEMA_1) || shape.schema_version == Some(1) {
            return Err(Error::other("the image has docker's manifest of schema 1, which is not supported")
                .hint("whoever owns it pulls it with an older docker and pushes it again"));
        }
        if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(wrong("it has both manifests and layers".into()));
        }
        // What the document says of itself is under its digest; what it was sent as is not.
        let of_document = [shape.media_type.as_str(), self.media_type.as_str()].into_iter().find(|name| is_known(name));
        if is_known(&shape.media_type) && is_known(&self.media_type) && shape.media_type != self.media_type {
            return Err(wrong(format!("it was sent as {} and calls itself {}", self.media_type, shape.media_type)));
        }
        let is_index = match of_document {
            Some(name) => is_index(name),
            None if shape.media_type.is_empty() => shape.manifests.is_some(),
            None => return Err(wrong(format!("its media type is {:?}", shape.media_type))),
        };
        let content = if is_index {
            serde_json::from_slice(&self.bytes).map(Content::Index)
        } else {
            serde_json::from_slice(&self.bytes).map(Content::Manifest)
        };
        content.map_err(|error| wrong(error.to_string()))
    }
}

/// Whether this is the media type of an index or docker's manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Whether this is the media type of a manifest of an image.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

fn is_known(media_type: &str) -> bool {
    is_index(media_type) || is_manifest(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(media_type: &str, text: &str) -> Result<Content> {
        Document { bytes: text.into(), media_type: media_type.into(), digest: Digest::from_bytes([0; 32]) }.content()
    }

    fn manifest(extra: &str) -> String {
        let digest = "0".repeat(64);
        let one = format!(r#"{{"mediaType":"x","digest":"sha256:{digest}","size":1}}"#);
        format!(r#"{{"schemaVersion":2,{extra}"config":{one},"layers":[{one}]}}"#)
    }

    #[test]
    fn the_kind_is_what_it_calls_itself_was_sent_as_or_looks_like() {
        let docker = format!(r#""mediaType":"{DOCKER_MANIFEST}","#);
        for (media_type, text) in [
            (DOCKER_MANIFEST, manifest(&docker)),
            ("application/json", manifest(&docker)),
            ("", manifest(&docker)),
            (OCI_MANIFEST, manifest("")),
            ("text/plain", manifest("")),
        ] {
            assert!(matches!(content(media_type, &text), Ok(Content::Manifest(_))), "{media_type} {text}");
        }
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        for media_type in [OCI_INDEX, DOCKER_LIST, "", "text/plain"] {
            assert!(matches!(content(media_type, index), Ok(Content::Index(_))), "{media_type}");
        }
    }

    #[test]
    fn what_is_refused() {
        let docker = format!(r#""mediaType":"{DOCKER_MANIFEST}","#);
        for (media_type, text, why) in [
            (OCI_MANIFEST, "{", "EOF"),
            (OCI_MANIFEST, "[2,\"\",[]]", "no JSON object"),
            (OCI_MANIFEST, "{}", "missing field"),
            (OCI_MANIFEST, &*manifest(&docker), "calls itself"),
            (OCI_INDEX, &*manifest(r#""manifests":[],"#), "both"),
            ("", &*manifest(r#""mediaType":"application/x","#), "application/x"),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}", "schema 1"),
            ("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
            (OCI_MANIFEST, &*manifest("").replace("\"size\":1", "\"size\":-1"), "-1"),
            (OCI_MANIFEST, &*manifest("").replace("sha256:0", "sha256:z"), "digest"),
        ] {
            let error = content(media_type, text).map(|_| ()).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
