//! Runs bundles against any OCI runtime, given by its path, and judges what a static guest inside the container sees.
//!
//! - [`attacker`]: what a hostile guest tries
//! - [`harness`]: bundles, containers, commands with deadlines, leak checks
//! - [`tests`]: the tests themselves, one file per area, each with an explicit list
//! - [`runner`]: one process a test, results, totals
//! - [`known`]: `known.toml`, where other runtimes differ and why
//! - [`tracer`]: meddles with one system call of a command
//! - [`sys`]: what needs `unsafe`

pub mod attacker;
pub mod harness;
pub mod known;
pub mod runner;
pub mod sys;
pub mod tests;
pub mod tracer;
