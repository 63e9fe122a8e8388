//! Which of an image's platforms runs here, as containerd decides (its package platforms, `Only`).

use std::fmt;
use std::str::FromStr;

use kelson::error::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::manifest::{self, Content, Descriptor, Document, Index, Manifest};

/// How deep an index may be in another one.
const MAX_DEPTH: u32 = 4;
/// How many indexes an image may consist of.
const MAX_INDEXES: usize = 32;
/// What tells that a manifest of an index is about another one, and is no image (buildkit's attestations).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Operating system, processor and its version: `linux/arm64/v8`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// That of this program: what the processor can beyond the architecture's first version is not asked for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: String::new() }.normalized()
    }

    /// With the names that Go has for processors, and without a variant that says nothing.
    fn normalized(&self) -> Self {
        let os = self.os.to_ascii_lowercase();
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (other, variant) => (other, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// What can run where this is wanted, best first.
    fn candidates(&self) -> Vec<Self> {
        let wanted = self.normalized();
        let like = |architecture: &str, variant: String| {
            Self { os: wanted.os.clone(), architecture: architecture.into(), variant }.normalized()
        };
        let mut all = vec![wanted.clone()];
        match wanted.architecture.as_str() {
            "amd64" => {
                let version = version_of(&wanted.variant).map_or(1, |(major, _)| major);
                all.extend((1..version).rev().map(|lower| like("amd64", format!("v{lower}"))));
                all.push(like("386", String::new()));
            }
            "arm" => {
                let version = version_of(&wanted.variant).map_or(5, |(major, _)| major);
                all.extend((5..version).rev().map(|lower| like("arm", format!("v{lower}"))));
            }
            "arm64" => {
                let (major, mut minor) = version_of(&wanted.variant).unwrap_or((8, 0));
                if major == 9 {
                    all.extend((0..minor).rev().map(|lower| like("arm64", format!("v9.{lower}"))));
                    // What v9.x can, v8.{x+5} can as well.
                    minor += 5;
                    all.push(like("arm64", format!("v8.{minor}")));
                }
                all.extend((0..minor).rev().map(|lower| like("arm64", format!("v8.{lower}"))));
                all.extend((5..=8).rev().map(|lower| like("arm", format!("v{lower}"))));
            }
            _ => {}
        }
        all
    }

    /// Whether an image for `offered` runs where this is wanted.
    pub fn accepts(&self, offered: &Self) -> bool {
        self.candidates().contains(&offered.normalized())
    }
}

/// `v8.2` as (8, 2).
fn version_of(variant: &str) -> Option<(u32, u32)> {
    let (major, minor) = variant.strip_prefix('v')?.split_once('.').unwrap_or((&variant[1..], "0"));
    // More than two digits are no processor's, and would only make a long list.
    (major.len() <= 2 && minor.len() <= 2).then_some(())?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl FromStr for Platform {
    type Err = Error;

    /// `linux/arm64/v8`, `linux/amd64`, or the processor alone: `arm64`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.split('/');
        let (os, architecture, variant) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(architecture), None, ..) => ("linux", architecture, ""),
            (Some(os), Some(architecture), variant, None) => (os, architecture, variant.unwrap_or("")),
            _ => ("", "", ""),
        };
        let is_word =
            |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        let all_are_words = [os, architecture, variant].iter().all(|word| is_word(word));
        if os.is_empty() || architecture.is_empty() || text.ends_with('/') || !all_are_words {
            return Err(Error::usage(format!("platform {text:?} is none")).hint("platforms look like linux/arm64/v8"));
        }
        Ok(Self { os: os.into(), architecture: architecture.into(), variant: variant.into() }.normalized())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

/// The manifest for `wanted`: `document` itself if it is one, or what runs there best of the index that it is.
///
/// `fetch` gives what a descriptor of a manifest or index names, verified. A manifest whose platform no index tells is taken
/// where it is the only one: its configuration has to be asked.
///
/// # Errors
/// Nothing is for that platform: the error lists what there is. Indexes are nested too deeply, or there are too many.
pub fn select(
    document: Document,
    wanted: &Platform,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<Document>,
) -> Result<(Document, Manifest)> {
    let index = match document.content()? {
        Content::Manifest(manifest) => return Ok((document, manifest)),
        Content::Index(index) => index,
    };
    let chosen = choose(&leaves(index, wanted, fetch)?, wanted)?.clone();
    let document = fetch(&chosen)?;
    match document.content()? {
        Content::Manifest(manifest) => Ok((document, manifest)),
        Content::Index(_) => {
            Err(Error::other(format!("{} is an index where its own index has a manifest", chosen.digest)))
        }
    }
}

/// The manifests of an index and of the indexes in it.
fn leaves(
    index: Index,
    wanted: &Platform,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<Document>,
) -> Result<Vec<Descriptor>> {
    let (mut leaves, mut nested) = (vec![], vec![(index, 1)]);
    let mut indexes = 1;
    while let Some((index, depth)) = nested.pop() {
        for descriptor in index.manifests {
            if !manifest::is_index(&descriptor.media_type) {
                leaves.push(descriptor);
                continue;
            }
            if descriptor.platform.as_ref().is_some_and(|platform| !wanted.accepts(platform)) {
                continue;
            }
            indexes += 1;
            if depth == MAX_DEPTH || indexes > MAX_INDEXES {
                return Err(Error::other(format!(
                    "the image has more than {MAX_INDEXES} indexes, or more than {MAX_DEPTH} in one another"
                )));
            }
            match fetch(&descriptor)?.content()? {
                Content::Index(index) => nested.push((index, depth + 1)),
                Content::Manifest(_) => leaves.push(descriptor),
            }
        }
    }
    Ok(leaves)
}

/// The manifest that runs best where `wanted` is.
fn choose<'a>(leaves: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let is_image = |leaf: &&Descriptor| {
        let annotations = leaf.annotations.as_ref();
        (leaf.media_type.is_empty() || manifest::is_manifest(&leaf.media_type))
            && annotations.is_none_or(|annotations| !annotations.contains_key(REFERENCE_TYPE))
    };
    let images: Vec<_> = leaves.iter().filter(is_image).collect();
    let candidates = wanted.candidates();
    let rank = |leaf: &Descriptor| {
        let offered = leaf.platform.as_ref()?.normalized();
        candidates.iter().position(|candidate| *candidate == offered)
    };
    // The first of several that are alike, as the image-spec has it.
    let best = images.iter().filter_map(|leaf| Some((rank(leaf)?, leaf))).min_by_key(|(rank, _)| *rank);
    if let Some((_, leaf)) = best {
        return Ok(leaf);
    }
    if let [only] = images[..]
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut offered: Vec<_> =
        images.iter().filter_map(|leaf| leaf.platform.as_ref()).map(Platform::to_string).collect();
    offered.dedup();
    let without = images.iter().filter(|leaf| leaf.platform.is_none()).count();
    if without > 0 {
        offered.push(format!("{without} without a platform"));
    }
    Err(Error::other(format!("the image is not for {wanted}")).hint(match offered.len() {
        0 => "its index has no manifest of an image".to_owned(),
        1..=20 => format!("it is for {}; --platform chooses, @sha256:… names one", offered.join(", ")),
        many => format!("it is for {many} platforms, among them {}", offered[..20].join(", ")),
    }))
}

#[cfg(test)]
mod tests {
    use kelson::image::Digest;

    use super::*;
    use crate::manifest::{OCI_INDEX, OCI_MANIFEST};

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    /// A manifest with `number` as its digest.
    fn leaf(number: u8, platform: Option<&str>) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::from_bytes([number; 32]),
            size: 1,
            urls: vec![],
            platform: platform.map(self::platform),
            annotations: None,
        }
    }

    /// The number of the manifest that is chosen of these.
    fn chosen(wanted: &str, offered: &[&str]) -> Result<u8, String> {
        let leaves: Vec<_> = (0..).zip(offered).map(|(number, text)| leaf(number, Some(text))).collect();
        let best = choose(&leaves, &platform(wanted)).map_err(|error| error.to_string())?;
        Ok(leaves.iter().position(|leaf| leaf.digest == best.digest).map_or(255, |place| place as u8))
    }

    #[test]
    fn the_best_that_runs_there() {
        for (wanted, offered, best) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], 1),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], 1),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
            ("linux/amd64", &["linux/x86_64"], 0),
            ("linux/amd64", &["linux/386"], 0),
            ("linux/amd64", &["windows/amd64", "linux/386"], 1),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], 0),
            ("amd64", &["linux/amd64"], 0),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], 1),
            ("linux/arm64/v8", &["linux/arm64"], 0),
            ("linux/aarch64", &["linux/arm64"], 0),
            ("linux/arm64", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], 2),
            ("linux/arm64/v9", &["linux/arm64/v8.6", "linux/arm64/v8.4"], 1),
            ("linux/arm64/v8.2", &["linux/arm64", "linux/arm64/v8.1", "linux/arm64/v8.3"], 1),
            ("linux/arm/v7", &["linux/arm/v8", "linux/arm/v6"], 1),
            ("linux/arm", &["linux/arm/v6", "linux/arm/v7"], 1),
            ("linux/armhf", &["linux/arm/v7"], 0),
            ("linux/riscv64", &["linux/riscv64"], 0),
        ] {
            assert_eq!(chosen(wanted, offered), Ok(best), "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn nothing_that_runs_there_is_told_with_what_there_is() {
        for (wanted, offered) in [
            ("linux/amd64", &["linux/arm64", "windows/amd64"][..]),
            ("linux/amd64", &["linux/amd64/v2"]),
            ("linux/arm/v6", &["linux/arm/v7"]),
            ("linux/386", &["linux/amd64"]),
            ("linux/ppc64le", &["linux/ppc64"]),
            ("linux/arm64/v99999999999", &["linux/arm64/v8.1"]),
        ] {
            let error = chosen(wanted, offered).expect_err(wanted);
            assert!(error.contains(&format!("not for {wanted}")), "{error}");
            assert!(offered.iter().all(|platform| error.contains(platform)), "{error}");
        }
    }

    #[test]
    fn attestations_and_artifacts_are_no_images() {
        let mut attestation = leaf(1, None);
        attestation.annotations = Some([(REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned())].into());
        let mut artifact = leaf(2, None);
        artifact.media_type = "application/vnd.example".into();
        let image = leaf(3, None);
        let all = [attestation.clone(), artifact, image.clone()];
        assert_eq!(choose(&all, &platform("linux/amd64")).unwrap().digest, image.digest);
        let error = choose(&[attestation], &platform("linux/amd64")).unwrap_err().to_string();
        assert!(error.contains("no manifest of an image"), "{error}");
    }

    #[test]
    fn two_without_a_platform_are_not_guessed_of() {
        let error = choose(&[leaf(1, None), leaf(2, None)], &platform("linux/amd64")).unwrap_err().to_string();
        assert!(error.contains("2 without a platform"), "{error}");
    }

    #[test]
    fn platforms_that_are_none() {
        for text in ["", "/", "linux/", "linux/amd64/", "/amd64", "a/b/c/d", "linux/a b", "linux/\u{1b}[m"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    fn document(number: u8, index: &Index) -> Document {
        let bytes = serde_json::to_vec(index).unwrap();
        Document { bytes, media_type: OCI_INDEX.into(), digest: Digest::from_bytes([number; 32]) }
    }

    fn index(manifests: Vec<Descriptor>) -> Index {
        Index { schema_version: 2, media_type: OCI_INDEX.into(), manifests }
    }

    #[test]
    fn an_index_in_an_index_is_looked_into() {
        let mut inner = leaf(1, None);
        inner.media_type = OCI_INDEX.into();
        let outer = document(0, &index(vec![leaf(9, Some("linux/s390x")), inner]));
        let config = leaf(7, None);
        let image = Manifest { schema_version: 2, media_type: String::new(), config, layers: vec![] };
        let mut asked = vec![];
        let (found, manifest) = select(outer, &platform("linux/amd64"), &mut |descriptor| {
            asked.push(descriptor.digest);
            Ok(match asked.len() {
                1 => document(1, &index(vec![leaf(2, Some("linux/amd64"))])),
                _ => Document {
                    bytes: serde_json::to_vec(&image).unwrap(),
                    media_type: OCI_MANIFEST.into(),
                    digest: descriptor.digest,
                },
            })
        })
        .unwrap();
        assert_eq!((found.digest, manifest), (Digest::from_bytes([2; 32]), image));
    }

    #[test]
    fn indexes_without_end_are_refused() {
        let mut endless = leaf(1, None);
        endless.media_type = OCI_INDEX.into();
        for width in [1, 40] {
            let itself = index(vec![endless.clone(); width]);
            let error = select(document(1, &itself), &platform("linux/amd64"), &mut |_| Ok(document(1, &itself)));
            assert!(error.unwrap_err().to_string().contains("in one another"));
        }
    }
}
