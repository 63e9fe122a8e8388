//! What `kelson` tells `kelson-image` of a container whose changes are wanted.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Digest;
use super::config::IdMaps;

/// A container, or the layer that was kept of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// As a person knows it.
    pub id: String,
    /// Number of an inherited descriptor: the root of a container that writes to a layer which only it can reach.
    pub root: Option<i32>,
    /// Number of an inherited descriptor: the user namespace, outside of which the kernel opens nothing of that root (fuse's
    /// `allow_other`).
    pub user_ns: Option<i32>,
    /// Directory of the layer that is kept.
    pub upper: Option<PathBuf>,
    /// Layers below it, topmost first.
    pub lower: Vec<PathBuf>,
    /// Places in the container, below its root, on which the runtime mounts something: it makes them where they are missing.
    pub mount_points: HashSet<PathBuf>,
    /// Configuration of the image that the container was made of.
    pub image: Option<Digest>,
    /// How the files at that root belong to other ids than in the image: the container's user namespace, by whose ids the layers are
    /// mapped.
    pub ids: Option<IdMaps>,
    /// Number of an inherited descriptor, which is closed as soon as the container may change again.
    pub done: Option<i32>,
}

/// What a new image says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its name.
    pub name: String,
    pub author: Option<String>,
    pub message: Option<String>,
    /// Instructions as of a Dockerfile, such as `CMD ["sh"]`.
    pub changes: Vec<String>,
}
