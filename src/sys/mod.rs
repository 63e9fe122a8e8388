//! System calls that nix lacks, offered as safe functions: the only `unsafe` in the tree.

#![allow(unsafe_code)]

pub mod bpf;
pub mod entry;
pub mod fd;
pub mod kernel_log;
pub mod mount;
pub mod process;
pub mod regex;
pub mod scheduling;
pub mod seccomp;
pub mod tty;
pub mod xattr;

use nix::errno::Errno;

/// The result of a raw system call: `-1` becomes `errno`.
fn check(returned: libc::c_long) -> nix::Result<libc::c_long> {
    Errno::result(returned)
}
