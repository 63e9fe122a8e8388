//! An image as root file system: its name, where the store has it, and the bundle that is made of it.
//!
//! What needs a decompressor, a network or a hash is the program `kelson-image` (image/), which is started when the store lacks
//! the image: a start that finds all there costs the runtime no library.
//!
//! ```text
//! word ─▶ origin ─▶ store (or kelson-image ensure) ─▶ Image ─▶ config (with options, layers, ids, seccomp) ─▶ Bundle
//! ```

pub mod changes;
pub mod config;
pub mod digest;
pub mod helper;
pub mod ids;
pub mod kept;
mod layers;
pub mod network;
pub mod options;
pub mod origin;
pub mod range;
pub mod reference;
mod seccomp;
pub mod store;

pub use digest::Digest;
pub use options::Options;
pub use origin::Origin;
pub use reference::Reference;
pub use store::{Image, Store};
