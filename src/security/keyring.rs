//! [init] A session keyring of the container's own, so that the caller's keys stay the caller's (keyrings(7)).

use std::ffi::CString;

use nix::errno::Errno;

use crate::error::{Context, Result};
use crate::sys::process;

/// What the kernel gives a new session keyring (all to its possessor, viewing and reading to its user), and
/// KEY_USR_SEARCH: the container's user may find keys in it (keyctl_setperm(3)).
const PERMISSIONS: u32 = 0x3f13_0000 | 0x0008_0000;

/// Joins a new session keyring named after the container.
///
/// A kernel without keyrings, or a filter around this process that hides them, is no failure: there is nothing to share.
pub fn join(name: &str) -> Result<()> {
    let Ok(name) = CString::new(name) else { return Ok(()) };
    let doing = || "make a session keyring (--no-new-keyring does without)";
    let id = match process::join_session_keyring(&name) {
        Err(Errno::ENOSYS | Errno::EPERM) => return Ok(()),
        other => other.doing(doing)?,
    };
    process::set_keyring_permissions(id, PERMISSIONS).doing(doing)
}
