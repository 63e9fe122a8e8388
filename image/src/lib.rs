//! What Kelson does with images beside running them: fetch, verify, unpack, export. Its interface is the program `kelson-image`,
//! which `kelson` starts.

#![forbid(unsafe_code)]

pub mod changes;
pub mod cli;
pub mod commit;
pub mod config;
pub mod export;
pub mod flatten;
pub mod import;
pub mod manifest;
pub mod network;
pub mod overlay;
pub mod parallel;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod registry;
pub mod source;
pub mod store;
pub mod time;
pub mod unpack;
