//! [parent] What has to be made with the host's privilege: detached mounts that the child attaches.
//!
//! A tree that the parent copies carries none of the locks that the child's own copy of the mount tree has, so only
//! what the child cannot make is made here: id-mapped sources, sources that its user namespace may not reach, and the
//! overlay of a container in a user namespace. All are private before they are attached: nothing mounted below them
//! reaches the host.

use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::cgroup::is_initial_user_ns;
use super::{make_private, overlay};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{IdMapping, Mount, MountIdMap, MountKind, Plan};
use crate::sys::mount::{self, MountAttr, Reach, attr};

/// Detached mounts for the child; plain descriptors, close-on-exec, that it inherits or receives.
#[derive(Debug, Default)]
pub struct Prepared {
    pub(super) overlay: Option<OwnedFd>,
    /// Sources of bind mounts, with the `index` of their mount.
    sources: Vec<(usize, OwnedFd)>,
    /// `index` of the mounts that [`prepare_id_mapped`] makes, in its order.
    awaited: Vec<usize>,
}

impl Prepared {
    /// All descriptors, which the child has to keep until its mounts are made.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.overlay.iter().chain(self.sources.iter().map(|(_, source)| source)).map(|fd| fd.as_fd())
    }

    /// [init] Takes what [`prepare_id_mapped`] made and the parent sent.
    pub fn take_id_mapped(&mut self, mounts: Vec<OwnedFd>) {
        self.sources.extend(self.awaited.drain(..).zip(mounts));
    }

    pub(super) fn source(&self, index: usize) -> Option<&OwnedFd> {
        self.sources.iter().find(|(of, _)| *of == index).map(|(_, source)| source)
    }
}

/// The mounts that show their source through the container's own id maps.
fn mapped_as_container(plan: &Plan) -> impl Iterator<Item = (&Mount, &MountIdMap)> {
    let mapped = plan.mounts.iter().filter_map(|mount| Some((mount, mount.id_map.as_ref()?)));
    mapped.filter(|(_, id_map)| id_map.maps.is_none())
}

/// Makes what the child cannot. `joined_user_ns` is the user namespace that the container joins, if it does; what needs
/// a new one is left to [`prepare_id_mapped`].
///
/// Must be called by a single thread. Nothing is mounted anywhere: dropping the result undoes it.
pub fn prepare(plan: &Plan, joined_user_ns: Option<BorrowedFd<'_>>) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    let has_user_ns = plan.namespaces.user.is_own();
    let needs_check = has_user_ns && (plan.root.overlay.is_some() || plan.mounts.iter().any(is_bind));
    let is_privileged = needs_check && Uid::effective().is_root() && is_initial_user_ns()?;
    if let Some(overlay) = plan.root.overlay.as_ref().filter(|_| is_privileged) {
        prepared.overlay =
            Some(overlay::build_detached(plan, overlay).map_err(super::name_layer_loop).doing(|| "make the overlay")?);
    }
    for mount in &plan.mounts {
        let MountKind::Bind { source, recursive } = &mount.kind else { continue };
        let tree = match &mount.id_map {
            Some(MountIdMap { maps: None, .. }) if plan.namespaces.user.is_new() => {
                prepared.awaited.push(mount.index);
                None
            }
            Some(id_map) => Some(id_mapped(mount, id_map, joined_user_ns)),
            None if is_privileged && !is_reachable(plan, source) => Some(copied(source, *recursive)),
            None => None,
        };
        if let Some(tree) = tree {
            prepared.sources.push((mount.index, explained(tree, mount)?));
        }
    }
    Ok(prepared)
}

/// Makes the sources that are shown through the container's id maps, which exist only now; for
/// [`Prepared::take_id_mapped`], in this order.
pub fn prepare_id_mapped(plan: &Plan, user_ns: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let made = |(mount, id_map)| explained(id_mapped(mount, id_map, Some(user_ns)), mount);
    mapped_as_container(plan).map(made).collect()
}

fn explained(tree: Result<OwnedFd>, mount: &Mount) -> Result<OwnedFd> {
    tree.doing(|| format!("open the mount source for {}", mount.destination.display()))
        .property(|| format!("mounts[{}]", mount.index))
}

fn is_bind(mount: &Mount) -> bool {
    matches!(mount.kind, MountKind::Bind { .. })
}

fn reach(recursive: bool) -> Reach {
    if recursive { Reach::Recursive } else { Reach::Top }
}

fn copied(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let tree = mount::clone_tree(AT_FDCWD, source, reach(recursive))?;
    make_private(tree.as_fd())?;
    Ok(tree)
}

fn id_mapped(mount: &Mount, id_map: &MountIdMap, container_user_ns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let MountKind::Bind { source, recursive } = &mount.kind else {
        return Err(Error::other("only bind mounts can be id-mapped"));
    };
    let tree = mount::clone_tree(AT_FDCWD, source, reach(*recursive)).map_err(unsupported)?;
    make_private(tree.as_fd()).map_err(unsupported)?;
    let own;
    let user_ns = match (&id_map.maps, container_user_ns) {
        (Some(maps), _) => {
            own = mount::user_ns(&lines(&maps.uid), &lines(&maps.gid)).doing(|| "make a user namespace for its ids")?;
            own.as_fd()
        }
        (None, Some(user_ns)) => user_ns,
        (None, None) => return Err(Error::other("no ids to map with: the container has no user namespace")),
    };
    let reach = reach(id_map.recursive);
    let user_ns = u64::try_from(user_ns.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let change = MountAttr { set: attr::IDMAP, user_ns, ..MountAttr::default() };
    mount::set_attributes(tree.as_fd(), reach, &change).map_err(|errno| match errno {
        Errno::EINVAL => Error::from(errno).hint("its file system does not support id-mapped mounts"),
        Errno::EPERM => Error::from(errno)
            .hint("an id-mapped mount needs privilege over its file system, and must not be id-mapped already"),
        errno => unsupported(errno),
    })?;
    Ok(tree)
}

fn unsupported(errno: Errno) -> Error {
    match errno {
        Errno::ENOSYS => Error::new(Kind::System(errno), "id-mapped mounts need mount_setattr(2) and open_tree(2)")
            .hint("Linux 5.12 or newer, and a seccomp filter of the outer container that allows them"),
        errno => errno.into(),
    }
}

/// uid_map or gid_map, as it is written to /proc.
fn lines(map: &[IdMapping]) -> String {
    map.iter().fold(String::new(), |mut text, IdMapping { container, host, size }| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{container} {host} {size}");
        text
    })
}

/// The container's root may search its way to `path`: asked of the kernel with that user's ids.
fn is_reachable(plan: &Plan, path: &Path) -> bool {
    let root = |map: &[IdMapping]| map.iter().find(|line| line.container == 0).map(|line| line.host);
    let (Some(uid), Some(gid)) = (root(&plan.id_maps.uid), root(&plan.id_maps.gid)) else { return true };
    // With another fsuid than 0 the capabilities over files are not in effect (capabilities(7)).
    let gid_before = setfsgid(Gid::from_raw(gid));
    let uid_before = setfsuid(Uid::from_raw(uid));
    let opened = openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    setfsuid(uid_before);
    setfsgid(gid_before);
    !matches!(opened, Err(Errno::EACCES))
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
