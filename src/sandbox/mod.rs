//! The process boundary: what makes a container's process, and what that process does until execve(2).
//!
//! ```text
//!   parent.rs    [parent]  clones, serves what the child asks, owns the child until it is kept
//!   stage.rs     [stage]   a process between the two, where namespaces are joined first
//!   init.rs      [init]    create and run: the ordered steps
//!   exec.rs      [init]    exec: the shorter list
//!   program.rs   [init]    what both lists share at their end: user, terminal, program
//! ```

pub mod exec;
pub mod init;
pub mod message;
pub mod network;
pub mod parent;
pub mod process;
pub mod program;
pub mod stage;

use nix::libc;

use crate::plan::{Namespace, Namespaces};

/// A kind of namespace: its name in config.json and below /proc/PID/ns, its CLONE_NEW* bit.
#[derive(Debug)]
pub struct NamespaceKind {
    pub name: &'static str,
    pub file: &'static str,
    pub flag: u64,
    pub of: fn(&Namespaces) -> &Namespace,
}

/// All eight. The user namespace comes last: what is joined before it needs the privilege that it takes away.
pub const NAMESPACE_KINDS: [NamespaceKind; 8] = [
    NamespaceKind { name: "cgroup", file: "cgroup", flag: libc::CLONE_NEWCGROUP as u64, of: |n| &n.cgroup },
    NamespaceKind { name: "ipc", file: "ipc", flag: libc::CLONE_NEWIPC as u64, of: |n| &n.ipc },
    NamespaceKind { name: "uts", file: "uts", flag: libc::CLONE_NEWUTS as u64, of: |n| &n.uts },
    NamespaceKind { name: "network", file: "net", flag: libc::CLONE_NEWNET as u64, of: |n| &n.network },
    NamespaceKind { name: "pid", file: "pid", flag: libc::CLONE_NEWPID as u64, of: |n| &n.pid },
    NamespaceKind { name: "time", file: "time", flag: libc::CLONE_NEWTIME as u64, of: |n| &n.time },
    NamespaceKind { name: "mount", file: "mnt", flag: libc::CLONE_NEWNS as u64, of: |n| &n.mount },
    NamespaceKind { name: "user", file: "user", flag: libc::CLONE_NEWUSER as u64, of: |n| &n.user },
];

/// The CLONE_NEW* bits of the kinds for which `matches` holds.
pub fn namespace_flags(namespaces: &Namespaces, matches: fn(&Namespace) -> bool) -> u64 {
    NAMESPACE_KINDS.iter().filter(|kind| matches((kind.of)(namespaces))).fold(0, |flags, kind| flags | kind.flag)
}
