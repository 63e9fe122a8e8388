//! [parent] Layers of an overlay whose ids are mapped: id-mapped mounts of them (mount_setattr(2)), detached, given to overlayfs
//! by descriptor (since 5.19). On disk their files belong to the ids that the container sees.
//!
//! A private tmpfs needs none: what is copied up into it has the host's ids, and nobody sees it later. A directory that is kept
//! has the ids of the layers, so that the next container, with other ids, finds its own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, mkdirat};

use super::cgroup::is_initial_user_ns;
use super::overlay::{attach_at, open_annotated, private_tmpfs};
use super::prepare::lines;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{IdMapping, Overlay, Plan};
use crate::sys::mount::{self, MountAttr, Reach, attr};

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// What is left of the mounts when the lower layers have been replaced.
pub(super) struct Mapped {
    /// Upper and work directory, where they are given.
    pub upper: Option<(OwnedFd, OwnedFd)>,
}

impl Mapped {
    /// Replaces each of the `lower` layers by an id-mapped mount of it, and opens the upper one so. With `scratch` the mounts are
    /// attached below it: before 6.15 overlayfs takes no detached ones.
    ///
    /// The caller must be single-threaded.
    pub fn make(plan: &Plan, overlay: &Overlay, lower: &mut [OwnedFd], scratch: Option<&Path>) -> Result<Self> {
        if !is_initial_user_ns()? {
            return Err(Error::new(Kind::System(Errno::EPERM), "only root of the host can map the ids of layers")
                .hint("layers that belong to ids of the container's own need no org.kelson.overlay.idmap"));
        }
        let (mut uid, mut gid) = (plan.id_maps.uid.clone(), plan.id_maps.gid.clone());
        if overlay.upper.is_some() {
            [&mut uid, &mut gid].into_iter().for_each(add_mounter);
        }
        let ids = mount::user_ns(&lines(&uid), &lines(&gid)).doing(|| "make a user namespace for the layers' ids")?;
        for (layer, path) in lower.iter_mut().zip(&overlay.lower) {
            *layer = mapped(layer.as_fd(), ids.as_fd(), path)?;
        }
        let kept = match overlay.upper.as_ref().and_then(|(upper, _)| upper.parent()) {
            Some(dir) => Some(mapped(open_annotated(dir, "upper")?.as_fd(), ids.as_fd(), dir)?),
            None => None,
        };
        if let Some(path) = scratch {
            attach_all(lower.iter().chain(&kept), path).doing(|| "attach the layers")?;
        }
        let upper = match (&kept, &overlay.upper) {
            (Some(kept), Some((upper, work))) => Some((below(kept, upper)?, below(kept, work)?)),
            _ => None,
        };
        Ok(Self { upper })
    }
}

/// overlayfs makes files of its own in the work directory as who mounts it, the host's root, and in a mount without an id for
/// that it may not (`EOVERFLOW`): there it is the first id that the container lacks.
fn add_mounter(map: &mut Vec<IdMapping>) {
    let is_mapped = map.iter().any(|line| line.host == 0);
    let free = map.iter().filter_map(|line| line.container.checked_add(line.size)).max();
    if let (false, Some(container)) = (is_mapped, free) {
        map.push(IdMapping { container, host: 0, size: 1 });
    }
}

/// A detached mount of the directory `dir`, which is at `path`, with the ids of `user_ns`.
fn mapped(dir: BorrowedFd<'_>, user_ns: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let user_ns = u64::try_from(user_ns.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let change = MountAttr { set: attr::IDMAP, propagation: MsFlags::MS_PRIVATE.bits(), user_ns, clear: 0 };
    let tree = mount::clone_tree_of(dir, Reach::Top)
        .and_then(|tree| mount::set_attributes(tree.as_fd(), Reach::Top, &change).map(|()| tree));
    tree.map_err(|errno| match errno {
        // Not as EINVAL: a further try would not help.
        Errno::EINVAL => Error::new(Kind::System(Errno::EOPNOTSUPP), "its file system has no id-mapped mounts").hint(
            "ext4, xfs, btrfs and (since 6.3) tmpfs have them: keep images there (--store DIR), or --userns host",
        ),
        Errno::ENOSYS => Error::new(Kind::System(Errno::EOPNOTSUPP), "the kernel has no id-mapped mounts")
            .hint("Linux 5.19 or newer, or --userns host"),
        errno => errno.into(),
    })
    .doing(|| format!("map the ids of the layer {}", path.display()))
}

/// Attaches the trees in a tmpfs at `path`, in the caller's own mount namespace: their descriptors are of attached mounts then.
fn attach_all<'t>(trees: impl Iterator<Item = &'t OwnedFd>, path: &Path) -> Result<()> {
    let place = attach_at(private_tmpfs(None)?, path)?;
    for (number, tree) in trees.enumerate() {
        let name = number.to_string();
        mkdirat(&place, name.as_str(), Mode::S_IRWXU)?;
        mount::attach(tree.as_fd(), openat(&place, name.as_str(), DIRECTORY, Mode::empty())?.as_fd())?;
    }
    Ok(())
}

/// The directory `path`, by its name in the mount of the one that it is in.
fn below(dir: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let name = path.file_name().ok_or(Errno::ENOENT)?;
    openat(dir, name, DIRECTORY, Mode::empty()).doing(|| format!("open overlay directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounter_has_an_id_that_the_container_lacks() {
        let line = |container, host, size| IdMapping { container, host, size };
        let mut map = vec![line(0, 100_000, 1000), line(2000, 200_000, 10)];
        add_mounter(&mut map);
        assert_eq!(map[2..], [line(2010, 0, 1)]);
        let mut map = vec![line(0, 0, 10)];
        add_mounter(&mut map);
        assert_eq!(map.len(), 1);
    }
}
