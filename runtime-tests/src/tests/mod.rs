//! The tests, one file an area. Each has an explicit list, so that nothing is left out by accident.

use crate::harness::Test;

pub mod attacks;
pub mod cgroups;
pub mod chaos;
pub mod chaos_calls;
pub mod chaos_images;
pub mod chaos_limits;
pub mod cli;
pub mod commit;
pub mod delegation;
pub mod diff;
pub mod events;
pub mod exec_errors;
pub mod explain;
pub mod fuse;
pub mod hooks;
pub mod image;
pub mod kept;
pub mod lifecycle;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod overlay;
pub mod process;
pub mod refusals;
pub mod rootfs;
pub mod rootless;
pub mod seccomp;
pub mod service_manager;
pub mod systemd;
pub mod terminal;
pub mod timings;
pub mod top;
pub mod update;
pub mod userns;
pub mod volumes;
pub mod wait;

/// A module's tests; the full name of a test is `group::test`.
pub struct Group {
    pub name: &'static str,
    pub tests: &'static [Test],
}

/// Every test.
pub const GROUPS: &[Group] = &[
    Group { name: "process", tests: process::TESTS },
    Group { name: "namespaces", tests: namespaces::TESTS },
    Group { name: "mounts", tests: mounts::TESTS },
    Group { name: "rootfs", tests: rootfs::TESTS },
    Group { name: "exec_errors", tests: exec_errors::TESTS },
    Group { name: "refusals", tests: refusals::TESTS },
    Group { name: "hooks", tests: hooks::TESTS },
    Group { name: "cgroups", tests: cgroups::TESTS },
    Group { name: "delegation", tests: delegation::TESTS },
    Group { name: "seccomp", tests: seccomp::TESTS },
    Group { name: "terminal", tests: terminal::TESTS },
    Group { name: "attacks", tests: attacks::TESTS },
    Group { name: "lifecycle", tests: lifecycle::TESTS },
    Group { name: "cli", tests: cli::TESTS },
    Group { name: "events", tests: events::TESTS },
    Group { name: "top", tests: top::TESTS },
    Group { name: "chaos", tests: chaos::TESTS },
    Group { name: "chaos", tests: chaos_calls::TESTS },
    Group { name: "chaos", tests: chaos_limits::TESTS },
    Group { name: "chaos", tests: chaos_images::TESTS },
    Group { name: "overlay", tests: overlay::TESTS },
    Group { name: "fuse", tests: fuse::TESTS },
    Group { name: "rootless", tests: rootless::TESTS },
    Group { name: "image", tests: image::TESTS },
    Group { name: "userns", tests: userns::TESTS },
    Group { name: "volumes", tests: volumes::TESTS },
    Group { name: "diff", tests: diff::TESTS },
    Group { name: "commit", tests: commit::TESTS },
    Group { name: "kept", tests: kept::TESTS },
    Group { name: "update", tests: update::TESTS },
    Group { name: "wait", tests: wait::TESTS },
    Group { name: "explain", tests: explain::TESTS },
    Group { name: "timings", tests: timings::TESTS },
    Group { name: "systemd", tests: systemd::TESTS },
    Group { name: "service_manager", tests: service_manager::TESTS },
    Group { name: "network", tests: network::TESTS },
];

/// Full names and tests, in order.
pub fn all() -> Vec<(String, Test)> {
    GROUPS.iter().flat_map(|g| g.tests.iter().map(move |t| (format!("{}::{}", g.name, t.name), *t))).collect()
}
