//! What CNI and netavark have in common: a namespace that is kept until they are done, and a name for the container.

use std::path::{Path, PathBuf};

use kelson::error::Result;
use sha2::{Digest, Sha256};

use super::{State, Words, netns};

/// The container's interface.
pub const INTERFACE: &str = "eth0";

/// Where the container's namespace is kept.
pub fn namespace(words: &Words, state: &State) -> PathBuf {
    words.state.join(format!("{}@netns", state.id))
}

/// The container's id as it is the only one on the host: others may be in another `--root`. The alphabet is CNI's.
pub fn container_id(words: &Words, state: &State) -> String {
    let hash = Sha256::digest(words.state.as_os_str().as_encoded_bytes());
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let plain = |c: char| if c == '+' { '_' } else { c };
    // Names of comments and chains are made of it; an id may begin with a dot.
    format!("k{hash}-{}", state.id.chars().map(plain).collect::<String>())
}

/// Does `work` with the namespace of the container kept at `path`, and lets it go if that fails.
pub fn with_namespace<T>(pid: i32, path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = netns::hold(pid, path).and_then(|()| work());
    if done.is_err() {
        // The error that led here says more.
        let _ = netns::release(path);
    }
    done
}
