//! Kelson, a container runtime that follows the OCI runtime specification.
//!
//! The crate is a library so that tests, benches and fuzz targets can link it; its interface is the binary `kelson`.

#![deny(unsafe_code)]

pub mod cgroup;
pub mod cli;
pub mod dbus;
pub mod ended;
pub mod error;
pub mod hooks;
pub mod image;
pub mod lifecycle;
pub mod log;
pub mod plan;
pub mod rootfs;
pub mod sandbox;
pub mod seal;
pub mod security;
pub mod signals;
pub mod state;
pub mod sys;
pub mod terminal;
pub mod timings;
pub mod units;
