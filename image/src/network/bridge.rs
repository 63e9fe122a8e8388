//! What CNI and netavark have in common: a namespace that is kept until they are done, and a name for the container.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{State, Words};

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
