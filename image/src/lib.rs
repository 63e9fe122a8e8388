//! What Kelson does with images beside running them: fetch, verify, unpack, export. Its interface is the program `kelson-image`,
//! which `kelson` starts.

#![forbid(unsafe_code)]

pub mod manifest;
pub mod platform;
pub mod registry;
pub mod unpack;
