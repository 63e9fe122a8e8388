//! [init] A procfs that nobody can have tampered with: a mount of it that is attached nowhere.
//!
//! Labels, sysctl and the like are written through it, never through the container's /proc, which the image, a volume
//! or another process may have covered (CVE-2019-16884, CVE-2025-52881).

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag, openat};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::Mode;

use super::path;
use crate::error::{Error, Kind, Result};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, FsContext, Reach};

/// The inode number of a procfs's root directory (PROC_ROOT_INO).
const ROOT_INODE: u64 = 1;

/// A verified procfs of the caller's PID namespace.
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
    /// Of an attached one: a copy of its mount that shows nothing of what is mounted over parts of it, made when it is first
    /// needed. To let go of it waits for a grace period, and few containers need it.
    copy: Option<OnceCell<OwnedFd>>,
}

impl From<OwnedFd> for Proc {
    fn from(root: OwnedFd) -> Self {
        Self { root, copy: None }
    }
}

impl Proc {
    /// A new instance that is mounted nowhere.
    ///
    /// # Errors
    /// `EPERM` in a user namespace that does not own the PID namespace, or that sees /proc only with parts masked; `ENOSYS`
    /// before 5.2.
    pub fn private() -> nix::Result<Self> {
        FsContext::open(c"proc").and_then(|context| context.mount(0)).map(Self::from)
    }

    /// A copy of the procfs mount `fd` that shows nothing of what is mounted over parts of it.
    pub fn copy_of(fd: BorrowedFd<'_>) -> nix::Result<Self> {
        mount::clone_tree_of(fd, Reach::Top).map(Self::from)
    }

    /// [`Proc::private`] without fsopen(2): mounted over /proc, opened, and taken away again. The descriptor keeps it alive.
    ///
    /// Only in a mount namespace in which nobody else is, and from which nothing propagates: whoever is there sees it come
    /// and go.
    pub fn private_by_path() -> nix::Result<Self> {
        nix::mount::mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
        let root = openat(AT_FDCWD, "/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        nix::mount::umount2("/proc", MntFlags::MNT_DETACH)?;
        Self::verified(root?)
    }

    /// The procfs at `path` below `root`, if it is the root of one.
    pub fn at(root: BorrowedFd<'_>, path: &Path) -> nix::Result<Self> {
        Self::verified(path::open_with(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY, path::Links::Refuse)?)
    }

    /// The procfs that was just mounted at `path` below `root`, as it is beneath all that is mounted over it later.
    pub fn beneath(root: BorrowedFd<'_>, path: &Path) -> nix::Result<Self> {
        Self::at(root, path).map(|proc| Self { copy: Some(OnceCell::new()), ..proc })
    }

    fn verified(root: OwnedFd) -> nix::Result<Self> {
        let is_procfs = mount::is_procfs(root.as_fd())?;
        match is_procfs && mount::stat(root.as_fd())?.inode == ROOT_INODE {
            true => Ok(Self::from(root)),
            false => Err(Errno::EXDEV),
        }
    }

    /// Opens `path` (relative: `self/attr/exec`, `sys/net/ipv4/ip_forward`); nothing that is mounted over it counts.
    ///
    /// # Errors
    /// `EXDEV` if something is mounted on the way, `ELOOP` for links that are not paths.
    pub fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        match path::resolve_with(self.root(), path, flags, resolve) {
            Err(Errno::ENOSYS | Errno::EPERM) => self.open_by_walk(path, flags),
            opened => opened,
        }
    }

    /// [`Proc::open`] without openat2: everything on the way must be on the same mount.
    fn open_by_walk(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        if path.components().any(|component| !matches!(component, Component::Normal(_))) {
            return Err(Errno::EXDEV);
        }
        let opened = path::open_with(self.root(), path, flags, path::Links::Follow)?;
        let (ours, theirs) = (mount::stat(self.root())?, mount::stat(opened.as_fd())?);
        let is_procfs = mount::is_procfs(opened.as_fd())?;
        match is_procfs && ours.mount_id == theirs.mount_id {
            true => Ok(opened),
            false => Err(Errno::EXDEV),
        }
    }

    /// Writes `value` in one write(2), as procfs wants it.
    pub fn write(&self, path: &Path, value: &str) -> Result<()> {
        let file = self.open(path, OFlag::O_WRONLY | OFlag::O_NOCTTY)?;
        match nix::unistd::write(&file, value.as_bytes())? {
            written if written == value.len() => Ok(()),
            written => {
                Err(Error::new(Kind::System(Errno::EIO), format!("the kernel took {written} of {} bytes", value.len())))
            }
        }
    }

    /// The root directory of the procfs.
    pub fn root(&self) -> BorrowedFd<'_> {
        let Some(copy) = &self.copy else { return self.root.as_fd() };
        if copy.get().is_none()
            && let Ok(made) = mount::clone_tree_of(self.root.as_fd(), Reach::Top)
        {
            let _ = copy.set(made);
        }
        // Without a copy, what is mounted over parts of it is an error of `open`.
        copy.get().unwrap_or(&self.root).as_fd()
    }

    /// Leaves its descriptors to a [`crate::sys::fd::close_from`] that follows.
    pub fn close_later(self) {
        close_later(self.root);
        self.copy.and_then(OnceCell::into_inner).into_iter().for_each(close_later);
    }
}
