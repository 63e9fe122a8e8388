//! An image's configuration: the parts that say what image it is (image-spec, config.md). The rest is kept as it came.

use kelson::error::{Error, Result};
use kelson::image::Digest;
use serde::{Deserialize, Serialize};

use crate::platform::Platform;

/// Most bytes of a configuration.
pub const MAX_SIZE: u64 = 8 << 20;

#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    pub created: Option<String>,
    pub rootfs: RootFs,
    #[serde(default)]
    pub history: Option<Vec<Step>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RootFs {
    #[serde(default)]
    pub diff_ids: Option<Vec<Digest>>,
}

/// One line of the image's history.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Step {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// It made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// # Errors
    /// The text is no configuration of an image.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let wrong = |why: String| Error::other(format!("this is no configuration of an image: {why}"));
        let mut config: Self = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if config.platform.architecture.is_empty() {
            return Err(wrong("it names no architecture".into()));
        }
        if config.platform.os.is_empty() {
            config.platform.os = "linux".into();
        }
        Ok(config)
    }

    /// The platform as it is compared: `linux/arm64` for arm64's v8.
    pub fn platform_name(&self) -> String {
        let name = self.platform.to_string();
        name.parse::<Platform>().map_or(name, |platform| platform.to_string())
    }

    /// Lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }
}
