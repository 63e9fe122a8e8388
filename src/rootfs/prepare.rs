//! [parent] What has to be made with the host's privilege, and the child attaches.
//!
//! Only what the child cannot make is made here: id-mapped sources, sources that its user namespace may not reach, and
//! the overlay of a container in a user namespace.
//!
//! A copy of the parent's own mounts has none of the locks that the child's copies of them have: what the host mounted
//! read-only or nosuid, and what it covered by another mount, the container could change. So for a container with a user
//! namespace sources are opened among the mounts of the child, as soon as it has them, with the parent's rights over files.

use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Pid, Uid, getgroups, setfsgid, setfsuid, setgroups};

use super::cgroup::is_initial_user_ns;
use super::overlay;
use super::visit::{in_mount_namespace_of, in_mount_namespace_without};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{IdMapping, Mount, MountIdMap, MountKind, Plan, PropagationKind};
use crate::sys::mount::{self, MountAttr, Reach, attr};

/// The `index` of what is no mount of the configuration: the directory that the overlay is mounted on.
const ROOT: usize = usize::MAX;

/// What the child attaches; plain descriptors, close-on-exec, that it inherits or receives.
#[derive(Debug, Default)]
pub struct Prepared {
    pub(super) overlay: Option<OwnedFd>,
    /// The kernel refused the overlay ([`Error::encode`]), or is not to be asked (empty).
    pub(super) refusal: Option<Vec<u8>>,
    /// Sources of bind mounts, with the `index` of their mount: a detached tree where it is id-mapped, else opened (O_PATH).
    sources: Vec<(usize, OwnedFd)>,
    /// `index` of the mounts that [`prepare_late`] has not opened yet, in order.
    awaited: Vec<usize>,
}

impl Prepared {
    /// All descriptors, which the child has to keep until its mounts are made.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.overlay.iter().chain(self.sources.iter().map(|(_, source)| source)).map(|fd| fd.as_fd())
    }

    /// Of which mounts the sources are still to be opened, by [`prepare_late`].
    pub fn awaited(&self) -> &[usize] {
        &self.awaited
    }

    /// [init] Takes the next of what [`prepare_late`] opened and the parent sent.
    pub fn take(&mut self, sources: Vec<OwnedFd>) {
        let count = sources.len().min(self.awaited.len());
        self.sources.extend(self.awaited.drain(..count).zip(sources));
    }

    /// Where the overlay goes, opened.
    pub(super) fn root(&self) -> Option<BorrowedFd<'_>> {
        self.source(ROOT)
    }

    pub(super) fn source(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.sources.iter().find(|(of, _)| *of == index).map(|(_, source)| source.as_fd())
    }
}

/// Makes what the child cannot. `joined_user_ns` is the user namespace that the container joins, if it does; what needs
/// the container's namespaces is left to [`prepare_late`].
///
/// Must be called by a single thread. Nothing is mounted anywhere: dropping the result undoes it.
pub fn prepare(plan: &Plan, joined_user_ns: Option<BorrowedFd<'_>>) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    let has_user_ns = plan.namespaces.user.is_own();
    let needs_check = has_user_ns && (plan.root.overlay.is_some() || plan.mounts.iter().any(is_bind));
    let is_privileged = needs_check && is_hosts_root()?;
    if let Some(overlay) = &plan.root.overlay {
        if overlay.is_by_fuse {
            prepared.refusal = Some(vec![]);
        } else if is_privileged {
            match overlay::build_detached(plan, overlay) {
                Err(error) if overlay::is_for_fuse(&error, overlay) => prepared.refusal = Some(error.encode()),
                made => prepared.overlay = Some(made.map_err(super::name_layer_loop).doing(|| "make the overlay")?),
            }
        }
    }
    // A mount namespace that is not new is not the parent's to look around in.
    let has_late = has_user_ns && plan.namespaces.mount.is_new();
    if has_late && prepared.overlay.is_some() {
        // It may be among layers, to which the container's root has no way.
        prepared.awaited.push(ROOT);
    }
    let unreachable = if is_privileged && has_late { unreachable(plan) } else { vec![] };
    for mount in &plan.mounts {
        match &mount.id_map {
            Some(id_map) => {
                refuse_to_send(plan, mount)?;
                match has_late || (id_map.maps.is_none() && plan.namespaces.user.is_new()) {
                    true => prepared.awaited.push(mount.index),
                    false => {
                        let tree = explained(id_mapped(mount, id_map, None, joined_user_ns), mount)?;
                        prepared.sources.push((mount.index, tree));
                    }
                }
            }
            None if unreachable.contains(&mount.index) => prepared.awaited.push(mount.index),
            None => {}
        }
    }
    Ok(prepared)
}

/// Opens the sources of the mounts `indices`, part of [`Prepared::awaited`], for process `pid`, which has the container's
/// namespaces and none of its mounts yet; for [`Prepared::take`], in this order.
///
/// Must be called by a single thread.
pub fn prepare_late(plan: &Plan, indices: &[usize], pid: Pid, user_ns: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let root = indices.contains(&ROOT).then(|| {
        open_as(&plan.root.path, pid)
            .doing(|| format!("open the root file system {}", plan.root.path.display()))
            .property(|| "root.path")
    });
    let mounts = plan.mounts.iter().filter(|mount| indices.contains(&mount.index));
    let opened = |mount: &Mount| match &mount.id_map {
        Some(id_map) => id_mapped(mount, id_map, plan.namespaces.mount.is_new().then_some(pid), Some(user_ns)),
        None => opened_for(mount, pid),
    };
    root.into_iter().chain(mounts.map(|mount| explained(opened(mount), mount))).collect()
}

/// This process has the privilege over files and mounts that a user namespace does not give.
pub fn is_hosts_root() -> Result<bool> {
    Ok(Uid::effective().is_root() && is_initial_user_ns()?)
}

fn explained(tree: Result<OwnedFd>, mount: &Mount) -> Result<OwnedFd> {
    let tree = match tree {
        Err(e) if e.errno() == Some(Errno::ENOENT) => Err(e.hint("the source does not exist")),
        tree => tree,
    };
    tree.doing(|| format!("open the mount source for {}", mount.destination.display()))
        .property(|| format!("mounts[{}]", mount.index))
}

fn is_bind(mount: &Mount) -> bool {
    matches!(mount.kind, MountKind::Bind { .. })
}

/// An id-mapped tree receives what the host mounts below it, but is no peer of the host's mount, to which it could send.
fn refuse_to_send(plan: &Plan, mount: &Mount) -> Result<()> {
    let root_sends = plan.root.propagation.is_some_and(|root| root.kind == PropagationKind::Shared);
    if root_sends && mount.propagation.iter().any(|asked| asked.kind == PropagationKind::Shared) {
        let property = format!("mounts[{}].options", mount.index);
        return Err(Error::config(property, "an id-mapped mount cannot share what is mounted below it with the host")
            .hint("with rslave it receives what the host mounts there"));
    }
    Ok(())
}

/// The source of `mount` as process `pid` has it mounted. Its locks and its propagation are those of any other source.
fn opened_for(mount: &Mount, pid: Pid) -> Result<OwnedFd> {
    let MountKind::Bind { source, .. } = &mount.kind else {
        return Err(Error::other("only bind mounts have a source to open"));
    };
    open_as(source, pid)
}

/// The file `path` as process `pid` has it mounted.
fn open_as(path: &Path, pid: Pid) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = openat(AT_FDCWD, format!("/proc/{pid}/root").as_str(), flags | OFlag::O_DIRECTORY, Mode::empty())?;
    match super::path::open_below(root.as_fd(), path, OFlag::O_PATH) {
        // A link of procfs that is no path: /proc/PID/ns/net leads to a file that is on no mount of any namespace.
        Err(Errno::ELOOP) => Ok(openat(AT_FDCWD, path, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// A detached copy of the source, with other ids; of the mounts of process `pid`, else of this process's own.
fn id_mapped(
    mount: &Mount,
    id_map: &MountIdMap,
    pid: Option<Pid>,
    container_user_ns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let MountKind::Bind { source, recursive } = &mount.kind else {
        return Err(Error::other("only bind mounts can be id-mapped"));
    };
    let own;
    let user_ns = match (&id_map.maps, container_user_ns) {
        (Some(maps), _) => {
            own = mount::user_ns(&lines(&maps.uid), &lines(&maps.gid)).doing(|| "make a user namespace for its ids")?;
            own.as_fd()
        }
        (None, Some(user_ns)) => user_ns,
        (None, None) => return Err(Error::other("no ids to map with: the container has no user namespace")),
    };
    let copy = || mount::clone_tree(AT_FDCWD, source, reach(*recursive));
    let tree = match pid.map(|pid| in_mount_namespace_of(pid, copy)) {
        // `bind` leaves out mounts below it, which the child's mounts do not allow: it uncovers what those cover.
        Some(Err(e)) if e.errno() == Some(Errno::EINVAL) && !recursive => match container_user_ns {
            Some(of_container) => in_mount_namespace_without(source, of_container, copy),
            None => Err(e),
        },
        Some(copied) => copied,
        None => copy().map_err(Error::from),
    };
    let tree = tree.map_err(refused)?;
    // It receives what the host mounts below it, if the child leaves it so; what is mounted on it reaches nobody.
    let slave = MountAttr { propagation: MsFlags::MS_SLAVE.bits(), ..MountAttr::default() };
    mount::set_attributes(tree.as_fd(), Reach::Recursive, &slave).map_err(|errno| refused(errno.into()))?;
    let user_ns = u64::try_from(user_ns.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let change = MountAttr { set: attr::IDMAP, user_ns, ..MountAttr::default() };
    mount::set_attributes(tree.as_fd(), reach(id_map.recursive), &change).map_err(|errno| match errno {
        Errno::EINVAL => Error::from(errno).hint("its file system does not support id-mapped mounts"),
        errno => refused(errno.into()),
    })?;
    Ok(tree)
}

fn reach(recursive: bool) -> Reach {
    if recursive { Reach::Recursive } else { Reach::Top }
}

fn refused(error: Error) -> Error {
    match error.errno() {
        Some(Errno::ENOSYS) => {
            Error::new(Kind::System(Errno::ENOSYS), "id-mapped mounts need mount_setattr(2) and open_tree(2)")
                .hint("Linux 5.12 or newer, and a seccomp filter of the outer container that allows them")
        }
        Some(Errno::EPERM) => {
            error.hint("an id-mapped mount needs privilege over its file system, and must not be id-mapped already")
        }
        _ => error,
    }
}

/// uid_map or gid_map, as it is written to /proc.
pub(super) fn lines(map: &[IdMapping]) -> String {
    map.iter().fold(String::new(), |mut text, IdMapping { container, host, size }| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{container} {host} {size}");
        text
    })
}

/// `index` of the mounts whose source the container's root may not search its way to: asked of the kernel with its ids.
fn unreachable(plan: &Plan) -> Vec<usize> {
    let root = |map: &[IdMapping]| map.iter().find(|line| line.container == 0).map(|line| line.host);
    let (Some(uid), Some(gid)) = (root(&plan.id_maps.uid), root(&plan.id_maps.gid)) else { return vec![] };
    let sources = plan.mounts.iter().filter_map(|mount| match (&mount.kind, &mount.id_map) {
        (MountKind::Bind { source, .. }, None) => Some((mount.index, source.as_path())),
        _ => None,
    });
    if uid == 0 {
        // The capabilities of the host's root would answer; the container's are over the files of mapped owners only.
        return sources.map(|(index, _)| index).collect();
    }
    // The container's root has none of the caller's groups, of which a login's 0 opens what is closed to others.
    let groups = getgroups().unwrap_or_default();
    let dropped = !groups.is_empty() && setgroups(&[]).is_ok();
    // With another fsuid than 0 the capabilities over files are not in effect (capabilities(7)).
    let gid_before = setfsgid(Gid::from_raw(gid));
    let uid_before = setfsuid(Uid::from_raw(uid));
    let found = sources.filter(|(_, source)| is_closed(source)).map(|(index, _)| index).collect();
    setfsuid(uid_before);
    setfsgid(gid_before);
    if dropped {
        // What could drop them has the privilege to take them again.
        let _ = setgroups(&groups);
    }
    found
}

fn is_closed(path: &Path) -> bool {
    matches!(openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()), Err(Errno::EACCES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_maps_are_written_one_range_a_line() {
        let map =
            [IdMapping { container: 0, host: 100_000, size: 1000 }, IdMapping { container: 1000, host: 1000, size: 1 }];
        assert_eq!(lines(&map), "0 100000 1000\n1000 1000 1\n");
    }
}
