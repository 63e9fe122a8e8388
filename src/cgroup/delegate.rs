//! Gives a container's cgroup v2 to the container's user: config-linux.md#cgroup-ownership.

use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::{Uid, fchown, fchownat};

use super::{Cgroup, Version, files};
use crate::error::{Context, Result};
use crate::sys::fd::open;

/// Names of the files that belong to who manages what is below a cgroup (since 4.15).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// What these are on a kernel without that list.
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

impl Cgroup {
    /// Makes `user` of the host the owner of the cgroup and of its files that are made to be delegated; the limits stay its
    /// creator's. Does nothing on v1, where giving a cgroup away gives the limits away.
    pub fn delegate(&self, user: u32) -> Result<()> {
        let record = self.record();
        let Some(path) = record.unified().filter(|_| record.version() == Version::V2) else { return Ok(()) };
        // What this process makes is its user's.
        if user == Uid::effective().as_raw() {
            return Ok(());
        }
        let names = files::read(Path::new(DELEGATE)).unwrap_or(DELEGATED.into());
        give(path, &names, Uid::from_raw(user)).doing(|| format!("give cgroup {} to user {user}", path.display()))
    }
}

fn give(path: &Path, names: &str, user: Uid) -> nix::Result<()> {
    let directory = open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    fchown(&directory, Some(user), None)?;
    for name in names.lines() {
        match fchownat(&directory, name, Some(user), None, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // A file of a controller that is not enabled.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
