//! [parent] [init] Another mount namespace for a moment, and the way back.

use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, chroot, fchdir};

use crate::error::{Context, Error, Result};
use crate::sys::process::{self, CloneArgs, Forked, SingleThreaded};

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

/// Calls `call` in a mount namespace of `user_ns` that is like this process's but for what is mounted below `below`, which it
/// does not have. What is copied there has the locks that a user namespace's mounts have.
///
/// Must be called by a single thread.
pub(super) fn in_mount_namespace_without(
    below: &Path,
    user_ns: BorrowedFd<'_>,
    call: impl FnOnce() -> nix::Result<OwnedFd>,
) -> Result<OwnedFd> {
    let (mut near, mut far) = UnixStream::pair()?;
    let single = SingleThreaded::prove()?;
    match process::clone(&single, &CloneArgs { flags: libc::CLONE_NEWNS as u64, cgroup: None })? {
        Forked::Child => {
            drop(near);
            let errno = bare(below, user_ns).err().map_or(0, |errno| errno as i32);
            // Who is gone needs no namespace; who is not closes its end when it has been there.
            let _ = far.write_all(&errno.to_ne_bytes()).and_then(|()| far.read(&mut [0]));
            process::exit_now(0)
        }
        Forked::Parent { pid, .. } => {
            drop(far);
            let mut errno = [0; 4];
            let called =
                near.read_exact(&mut errno).map_err(Error::from).and_then(|()| match i32::from_ne_bytes(errno) {
                    0 => in_mount_namespace_of(pid, call),
                    errno => Err(Errno::from_raw(errno).into()),
                });
            drop(near);
            // How it ended does not matter.
            let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
            called
        }
    }
}

/// Covers what is mounted below `path` by what is beneath it, and copies that into a mount namespace of `user_ns`.
fn bare(path: &Path, user_ns: BorrowedFd<'_>) -> nix::Result<()> {
    // Nothing gets back to the host from here; what it mounts still comes.
    mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&Path>)?;
    mount(Some(path), path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?;
    setns(user_ns, CloneFlags::CLONE_NEWUSER)?;
    unshare(CloneFlags::CLONE_NEWNS)
}
