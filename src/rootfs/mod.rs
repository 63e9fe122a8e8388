//! [init] The container's file system: root, mounts, devices, and what is hidden or read-only in it.
//!
//! All of it happens in the child's own mount namespace: nothing is ever mounted on the host, and the kernel removes
//! everything with the last process. The order, as init's list calls it:
//!
//! ```text
//! [parent] prepare            the overlay, where it needs the host's privilege, detached
//! [parent] prepare_late       sources that need it, once the container's mount namespace is there
//! set_propagation             nothing that is mounted from here on reaches the host
//! RootFs::mount_root          bind or overlay, over the rootfs directory
//! mount_all                   mounts[] in order
//! make_devices                devices and links of /dev
//!   (hooks)
//! enter                       pivot_root; the host's tree is gone
//! bind_console, write_sysctls, mask_paths, protect_readonly_paths, protect_root
//! ```
//! Paths in the root go through [`path`] only; procfs through [`procfs`] only.

mod cgroup;
mod copy_up;
mod device;
pub mod fuse;
pub mod intent;
mod making;
mod mapped;
mod mounts;
mod overlay;
pub mod path;
mod prepare;
pub mod procfs;
mod protect;
mod remount;
#[cfg(test)]
mod tests;
mod tree;
mod visit;

use std::cell::{OnceCell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::Mode;

pub use cgroup::{CgroupView, Hierarchy};
pub use prepare::{Prepared, is_hosts_root, prepare, prepare_late};

use crate::error::{Context, Error, Result};
use crate::plan::{Plan, Process, Propagation, PropagationKind};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, Reach};
use procfs::Proc;
use tree::{Change, FdNames, Place, Tree};

/// The container's root while it is being made.
pub struct RootFs<'p> {
    plan: &'p Plan,
    /// Root of the mounted root (O_PATH).
    root: OwnedFd,
    proc: OnceCell<Proc>,
    /// tmpfs mounts with `ro`, and /dev with `ro`: read-only when all is in place.
    read_only_later: RefCell<Vec<(usize, OwnedFd)>>,
    /// A detached copy of the host's /dev/null, verified, for masks.
    null: OnceCell<Tree>,
    has_entered: bool,
}

const PRIVATE: Propagation = Propagation { kind: PropagationKind::Private, recursive: false };
const PRIVATE_TREE: Propagation = Propagation { kind: PropagationKind::Private, recursive: true };

/// Propagation of the copied mount tree while the container is made.
///
/// Private is the least that can leak. A slave or shared mount needs a tree that still receives from the host; unbindable
/// comes last because an unbindable root could not be bound.
fn base_propagation(plan: &Plan) -> Propagation {
    use PropagationKind::{Private, Shared, Slave, Unbindable};
    match plan.root.propagation {
        Some(shared @ Propagation { kind: Shared, .. }) => shared,
        Some(Propagation { kind: Slave, .. }) => Propagation { kind: Slave, recursive: true },
        Some(Propagation { kind: Private | Unbindable, .. }) => PRIVATE_TREE,
        None => {
            let asks = |propagation: &Propagation| matches!(propagation.kind, Shared | Slave);
            let receives = plan.mounts.iter().any(|mount| mount.propagation.iter().any(asks));
            Propagation { kind: if receives { Slave } else { Private }, recursive: true }
        }
    }
}

/// What is done to the root besides attaching it.
fn root_change(plan: &Plan) -> Change<'static> {
    let propagation: &[Propagation] = match base_propagation(plan).kind {
        _ if !plan.namespaces.mount.is_own() => &[PRIVATE_TREE],
        PropagationKind::Private => &[],
        // Mounts below it are in the host's peer groups still, and what is mounted below those would reach the host.
        PropagationKind::Shared => &[PRIVATE_TREE],
        _ => &[PRIVATE],
    };
    Change { propagation, ..Change::default() }
}

/// Something is written through [`RootFs::proc`].
fn writes_to_proc(plan: &Plan) -> bool {
    let is_labelled = |process: &Process| process.apparmor_profile.is_some() || process.selinux_label.is_some();
    !plan.sysctl.is_empty() || plan.process.as_ref().is_some_and(is_labelled)
}

/// Makes sure that nothing that is mounted from here on reaches the host, unless `linux.rootfsPropagation` asks for it.
pub fn set_propagation(plan: &Plan) -> Result<()> {
    if !plan.namespaces.mount.is_own() {
        // The host's own tree: only the container's root is made private, when it is there.
        return Ok(());
    }
    let base = base_propagation(plan);
    let recursive = if base.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    let none = None::<&str>;
    nix::mount::mount(none, "/", none, tree::propagation_flag(base.kind) | recursive, none)
        .doing(|| "change the propagation of /")
        .property(|| "linux.rootfsPropagation")
}

impl<'p> RootFs<'p> {
    /// Mounts the root file system over `root.path`: a recursive bind of it, or the overlay. `by_fuse` gives a mount of an
    /// overlay that the kernel refuses, with the error that [`Error::encode`] wrote.
    pub fn mount_root(
        plan: &'p Plan,
        prepared: &Prepared,
        by_fuse: impl FnOnce(Vec<u8>) -> Result<OwnedFd>,
    ) -> Result<Self> {
        let mounted = Self::mount_root_tree(plan, prepared, by_fuse);
        let mounted = match mounted {
            Err(e) if e.errno() == Some(Errno::EACCES) && plan.namespaces.user.is_own() => {
                Err(e.hint("the root of the user namespace may not search the way to it: chmod o+x its directories"))
            }
            mounted => mounted,
        };
        mounted.doing(|| format!("mount the root file system {}", plan.root.path.display())).property(|| "root.path")
    }

    fn mount_root_tree(
        plan: &'p Plan,
        prepared: &Prepared,
        by_fuse: impl FnOnce(Vec<u8>) -> Result<OwnedFd>,
    ) -> Result<Self> {
        let path = plan.root.path.as_path();
        let base = base_propagation(plan);
        let fd = match prepared.root() {
            Some(fd) => fd.try_clone_to_owned()?,
            None => openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?,
        };
        if base.kind == PropagationKind::Shared {
            make_parent_private(&fd)?;
        }
        let tree = match (&plan.root.overlay, &prepared.overlay) {
            (Some(_), Some(overlay)) => Tree::Detached(overlay.try_clone()?),
            (Some(overlay), None) => match &prepared.refusal {
                Some(refusal) => Tree::Detached(by_fuse(refusal.clone())?),
                None => match overlay::build(plan, overlay, Some(path)) {
                    Err(error) if overlay::is_for_fuse(&error, overlay) => Tree::Detached(by_fuse(error.encode())?),
                    made => made.map_err(name_layer_loop)?,
                },
            },
            (None, _) => Tree::bind(path, Reach::Recursive)?,
        };
        let place = Place { fd, root: None, path };
        let root = tree.attach(&place, root_change(plan), FdNames::HostProc)?;
        Ok(Self {
            plan,
            root,
            proc: OnceCell::new(),
            read_only_later: RefCell::default(),
            null: OnceCell::new(),
            has_entered: false,
        })
    }

    /// Leaves its descriptors to a [`crate::sys::fd::close_from`] that follows.
    pub fn close_later(self) {
        close_later(self.root);
        self.proc.into_inner().into_iter().for_each(Proc::close_later);
        self.null.into_inner().into_iter().for_each(Tree::close_later);
    }

    /// Root directory of the container (O_PATH), for [`path::open_below`].
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A procfs that nobody else can reach.
    ///
    /// # Errors
    /// In a user namespace that does not own the PID namespace there is only the container's own /proc: if that is none
    /// either.
    pub fn proc(&self) -> Result<&Proc> {
        self.proc.get().ok_or_else(|| {
            Error::from(Errno::EPERM)
                .hint("the user namespace may not mount proc: give the container a PID namespace or bind /proc")
        })
    }

    /// Makes [`RootFs::proc`] available, if it can be, before the host's /proc is out of reach.
    fn find_proc(&self) {
        if self.proc.get().is_none() {
            let made = match Proc::private() {
                Err(errno) if mount::is_missing(errno) && self.is_alone() => Proc::private_by_path(),
                made => made,
            };
            let made = made.or_else(|_| Proc::at(self.root.as_fd(), Path::new("proc")));
            // Needed by few containers: those name the failure in proc().
            let _ = made.map(|made| self.proc.set(made));
        }
    }

    /// What is mounted outside of the root is seen by nobody else: the mount namespace is new, and sends nothing.
    fn is_alone(&self) -> bool {
        self.plan.namespaces.mount.is_new() && base_propagation(self.plan).kind != PropagationKind::Shared
    }

    fn names(&self) -> FdNames<'_> {
        match (self.proc.get(), self.has_entered) {
            (_, false) => FdNames::HostProc,
            (Some(proc), true) => FdNames::OwnProc(proc),
            (None, true) => FdNames::Unknown,
        }
    }

    /// Makes the directory `path` in the root if it is missing (mode 0755), as `process.cwd` needs.
    pub fn make_directory(&self, path: &Path) -> Result<()> {
        path::mkdir_below(self.root.as_fd(), path).map(drop).doing(|| format!("make directory {}", path.display()))
    }

    /// Makes the container's root the process's root; the host's tree is out of reach afterwards.
    ///
    /// `no_pivot` is for a host whose root is the initial ramfs (pivot_root(2) refuses that): the root is moved instead.
    pub fn enter(&mut self, no_pivot: bool) -> Result<()> {
        let entered = match no_pivot {
            // pivot_root would take the host's root away from the host.
            _ if !self.plan.namespaces.mount.is_own() => self.change_root(),
            true => self.move_root(),
            false => self.pivot(),
        };
        match entered {
            Err(Errno::EINVAL) if !no_pivot => Err(Errno::EINVAL)
                .doing(|| "pivot_root")
                .hint(|| "if the host's root is an initial ramfs, --no-pivot is the way"),
            entered => entered.doing(|| "enter the root file system"),
        }?;
        self.has_entered = true;
        Ok(())
    }

    /// Gives the root the propagation of `linux.rootfsPropagation`; last, for an unbindable root has nothing that can be
    /// bound over itself to be read-only.
    pub fn set_root_propagation(&self) -> Result<()> {
        if let Some(propagation) = self.plan.root.propagation
            && propagation.kind != PropagationKind::Private
        {
            let change = Change { propagation: &[propagation], ..Change::default() };
            tree::change_attached(self.root.as_fd(), change, self.names())
                .doing(|| "change the propagation of the root")
                .property(|| "linux.rootfsPropagation")?;
        }
        Ok(())
    }

    /// In a mount namespace that is joined by path too, as runc and crun do: the container is to be in that very namespace
    /// (config-linux.md#namespaces), and exec, which joins it, finds its root there. Who else is in it has the container's
    /// root from then on, unless chroot(2) gave him another; the caller's own namespace is refused by plan/linux.rs.
    fn pivot(&self) -> nix::Result<()> {
        let is_shared = base_propagation(self.plan).kind == PropagationKind::Shared;
        let host_root = match is_shared {
            true => Some(openat(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?),
            false => None,
        };
        nix::unistd::fchdir(&self.root)?;
        // The old root is stacked on the new one, so no directory for it is needed (pivot_root(2), "pivot_root(".", ".")").
        nix::unistd::pivot_root(".", ".")?;
        if let Some(host_root) = host_root {
            // Else taking the shared mounts away would take them from the host as well.
            let none = None::<&str>;
            nix::unistd::fchdir(&host_root)?;
            nix::mount::mount(none, ".", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
        }
        nix::mount::umount2(".", MntFlags::MNT_DETACH)?;
        nix::unistd::chdir("/")
    }

    fn change_root(&self) -> nix::Result<()> {
        nix::unistd::fchdir(&self.root)?;
        nix::unistd::chroot(".")?;
        nix::unistd::chdir("/")
    }

    fn move_root(&self) -> nix::Result<()> {
        let none = None::<&str>;
        for (path, recursive) in [("/", MsFlags::empty()), ("/proc", MsFlags::MS_REC), ("/sys", MsFlags::MS_REC)] {
            // Where the tree is shared, what is taken away and moved here would be so on the host as well.
            match nix::mount::mount(none, path, none, MsFlags::MS_SLAVE | recursive, none) {
                // Nothing is mounted there.
                Err(Errno::EINVAL | Errno::ENOENT) => {}
                done => done?,
            }
        }
        for path in ["/proc", "/sys"] {
            // Below the moved root they would stay reachable in full for whoever leaves the chroot.
            match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
                // Mounts that a user namespace inherits are locked: EINVAL, as where nothing is mounted (umount(2)).
                Err(Errno::EINVAL) if mount::stat_at(AT_FDCWD, path)?.is_mount_root == Some(false) => {}
                Err(Errno::EINVAL | Errno::EPERM) => {
                    nix::mount::mount(none, path, Some("tmpfs"), MsFlags::MS_RDONLY, none)?;
                }
                Err(Errno::ENOENT) => {}
                done => done?,
            }
        }
        nix::unistd::fchdir(&self.root)?;
        nix::mount::mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
        nix::unistd::chroot(".")?;
        nix::unistd::chdir("/")
    }

    /// Sets `linux.sysctl`.
    pub fn write_sysctls(&self) -> Result<()> {
        for sysctl in &self.plan.sysctl {
            let path: PathBuf = Path::new("sys").join(&sysctl.path);
            let written = self.proc().and_then(|proc| proc.write(&path, &sysctl.value));
            let written = match written {
                Err(e) if e.errno() == Some(Errno::ENOENT) => Err(e.hint("this kernel has no such setting")),
                written => written,
            };
            written
                .doing(|| format!("write {:?} to /proc/sys/{}", sysctl.value, sysctl.path))
                .property(|| format!("linux.sysctl[{:?}]", sysctl.key))?;
        }
        Ok(())
    }
}

/// overlayfs tells with ELOOP that layers overlap; the errno alone speaks of links.
fn name_layer_loop(error: Error) -> Error {
    match error.errno() {
        Some(Errno::ELOOP) => {
            Error::config("annotations.org.kelson.overlay.lower", "a layer is given twice, or lies inside of another")
        }
        _ => error,
    }
}

/// [parent] Which mount `path` is on.
pub fn mount_id(path: &Path) -> Result<u64> {
    let id = mount::stat_at(AT_FDCWD, path).map(|info| info.mount_id);
    id.doing(|| format!("look at {}", path.display()))
}

/// [parent] Takes away what a container without a mount namespace of its own mounted on `root`, and all below it; the mount
/// `before` stays, as does everything if the container mounted nothing.
pub fn take_away(root: &Path, before: u64) -> Result<()> {
    match mount_id(root) {
        Ok(now) if now != before => {
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            nix::mount::umount2(root, flags).doing(|| format!("unmount {}", root.display()))
        }
        // The same mount, or no such directory any more: nothing is left to take away.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Makes the mount that holds `fd` private, so that what is attached there does not propagate to the host.
fn make_parent_private(fd: &OwnedFd) -> Result<()> {
    let mut directory = fd.try_clone()?;
    // The mount's root is found upwards; reading mountinfo would name it by a path that may be covered.
    while mount::stat(directory.as_fd())?.is_mount_root == Some(false) {
        directory = openat(&directory, "..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    }
    let change = Change { propagation: &[PRIVATE], ..Change::default() };
    tree::change_attached(directory.as_fd(), change, FdNames::HostProc)
}
