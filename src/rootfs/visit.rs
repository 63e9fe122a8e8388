//! [parent] [init] Another mount namespace for a moment, and the way back.

use std::os::fd::OwnedFd;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chroot, fchdir};

use crate::error::{Context, Result};

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

fn open(path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Where the process was before it went into another mount namespace; it must be single-threaded.
pub(super) struct WayBack {
    namespace: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
}

impl WayBack {
    pub(super) fn remember() -> nix::Result<Self> {
        let namespace = open("/proc/thread-self/ns/mnt", OFlag::O_RDONLY)?;
        Ok(Self { namespace, root: open("/", DIRECTORY)?, directory: open(".", DIRECTORY)? })
    }

    pub(super) fn go(self) -> nix::Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNS)?;
        // setns made the namespace's root the process's, out of whatever chroot it was in.
        fchdir(&self.root)?;
        chroot(".")?;
        fchdir(&self.directory)
    }
}

/// Calls `call` in the mount namespace of process `pid`, with its root and this process's rights.
pub(super) fn in_mount_namespace_of<T>(pid: Pid, call: impl FnOnce() -> nix::Result<T>) -> Result<T> {
    let back = WayBack::remember()?;
    let namespace = open(&format!("/proc/{pid}/ns/mnt"), OFlag::O_RDONLY)?;
    let root = open(&format!("/proc/{pid}/root"), DIRECTORY)?;
    setns(&namespace, CloneFlags::CLONE_NEWNS).doing(|| "join the container's mount namespace")?;
    let called = fchdir(&root).and_then(|()| chroot(".")).and_then(|()| call());
    back.go().doing(|| "leave the container's mount namespace")?;
    Ok(called?)
}
