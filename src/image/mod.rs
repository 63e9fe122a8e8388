//! An image as root file system: its name, where the store has it, and the bundle that is made of it.
//!
//! What needs a decompressor, a network or a hash is the program `kelson-image` (image/), which is started when the store lacks
//! the image: a start that finds all there costs the runtime no library.

pub mod digest;
pub mod reference;
pub mod store;

pub use digest::Digest;
pub use reference::Reference;
pub use store::Store;
