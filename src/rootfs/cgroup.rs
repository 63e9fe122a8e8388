//! [init] Mounts of type `cgroup`: what the host has, seen from the container's cgroup.
//!
//! Mounting cgroup2 from the initial cgroup namespace waits for an RCU grace period (17 to 21 ms), a bind never does.
//! With a cgroup namespace of its own the container gets a fresh cgroup2, which shows its cgroup as the root. On v1 the
//! container's cgroup of each hierarchy is bound: the same view, and no superblock to look for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, mkdirat};

use super::RootFs;
use super::making;
use super::path::Make;
use super::tree::{self, Change, NewFs, Tree};
use crate::error::{Context, Result};
use crate::plan::{FlagChange, Mount, MountAttributes, Plan, Propagation};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, Reach, attr};

/// The host's cgroup hierarchies and the container's cgroup in each.
#[derive(Clone, Debug, Default)]
pub struct CgroupView {
    /// One cgroup2 hierarchy, no tmpfs with one directory a hierarchy.
    pub v2: bool,
    pub hierarchies: Vec<Hierarchy>,
}

#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Where the host has it: `/sys/fs/cgroup/memory`.
    pub mount_point: PathBuf,
    /// Its directory in the container: `memory`, `cpu,cpuacct`.
    pub name: String,
    /// Symbolic links to it: `cpu`, `cpuacct`.
    pub links: Vec<String>,
    /// Directory of the container's cgroup in it, absolute on the host.
    pub cgroup: PathBuf,
}

impl RootFs<'_> {
    pub(super) fn mount_cgroup(&self, mount: &Mount, data: &[String], view: &CgroupView) -> Result<()> {
        match (view.v2, view.hierarchies.first()) {
            (true, Some(hierarchy)) => self.mount_cgroup2(mount, data, hierarchy),
            _ => self.mount_cgroup1(mount, view),
        }
    }

    fn mount_cgroup2(&self, mount: &Mount, data: &[String], hierarchy: &Hierarchy) -> Result<()> {
        let has_own_ns = self.plan.namespaces.cgroup.is_own();
        if !has_own_ns {
            let tree = Tree::bind(&hierarchy.mount_point, Reach::Recursive)?;
            return match is_initial_user_ns()? {
                true => self.attach_bind(mount, tree),
                // CVE-2023-25809: else the container could use cgroups that the user of the host may write to.
                false => {
                    let change = Change { attributes: read_only(mount.attributes), ..self.change(mount) };
                    self.attach_changed(mount, tree, change).map(close_later)
                }
            };
        }
        let fs = cgroup2(mount, data);
        let target = self.target(mount, Make::Dir)?;
        self.check_target(mount, &target, false)?;
        let change = Change { attributes: MountAttributes::default(), ..self.change(mount) };
        let mounted = Tree::new(fs).and_then(|tree| tree.attach(&target.place, change, self.names()));
        match mounted {
            // A user namespace that joined a cgroup namespace of another one: its cgroup, bound, is the same view.
            Err(e) if matches!(e.errno(), Some(Errno::EPERM | Errno::EBUSY)) => {
                self.attach_bind(mount, Tree::bind(&hierarchy.cgroup, Reach::Recursive)?)
            }
            mounted => mounted.map(drop),
        }
    }

    fn mount_cgroup1(&self, mount: &Mount, view: &CgroupView) -> Result<()> {
        let target = self.target(mount, Make::Dir)?;
        self.check_target(mount, &target, false)?;
        let fs = tmpfs_for_hierarchies(self.plan);
        let names = self.names();
        let top = Tree::new(fs)?.attach(&target.place, Change::default(), names)?;
        // The tmpfs is ours and new: names in it need no resolving, and as the current directory no descriptor names.
        nix::unistd::fchdir(&top)?;
        for hierarchy in &view.hierarchies {
            let name = hierarchy.name.as_str();
            mkdirat(AT_FDCWD, name, Mode::from_bits_truncate(0o755))
                .and_then(|()| bind_here(&hierarchy.cgroup, name))
                .doing(|| format!("bind {}", hierarchy.cgroup.display()))?;
            for link in &hierarchy.links {
                nix::unistd::symlinkat(name, AT_FDCWD, link.as_str())?;
            }
        }
        let change = self.change(mount);
        // One call for the tmpfs and all that is in it, once it is complete: `ro` is for them all.
        let all = change_of_hierarchies(mount, change.propagation);
        let done = tree::change_attached(top.as_fd(), all, names);
        let done = match done {
            Err(e) if e.errno().is_some_and(mount::is_missing) => {
                let each = MountAttributes { top: merged(mount.attributes), recursive: FlagChange::default() };
                for hierarchy in &view.hierarchies {
                    let bound = open_here(&hierarchy.name)?;
                    tree::change_by_path(bound.as_fd(), Change { attributes: each, propagation: &[] }, names)?;
                }
                tree::change_by_path(top.as_fd(), Change { attributes: each, ..change }, names)
            }
            done => done,
        };
        close_later(top);
        close_later(target.place.fd);
        done
    }
}

/// cgroup2 as the container's own cgroup namespace shows it.
pub(super) fn cgroup2(mount: &Mount, data: &[String]) -> NewFs {
    NewFs {
        fs_type: "cgroup2".into(),
        source: "cgroup".into(),
        data: data.to_vec(),
        superblock: mount.superblock,
        attributes: making::attributes(mount),
    }
}

/// What holds a directory for each v1 hierarchy.
pub(super) fn tmpfs_for_hierarchies(plan: &Plan) -> NewFs {
    let mut fs = NewFs {
        fs_type: "tmpfs".into(),
        source: "tmpfs".into(),
        data: vec!["mode=755".into()],
        attributes: attr::NOSUID | attr::NODEV | attr::NOEXEC,
        ..NewFs::default()
    };
    making::label(plan, &mut fs);
    fs
}

/// For that tmpfs and all that is in it.
pub(super) fn change_of_hierarchies<'m>(mount: &Mount, propagation: &'m [Propagation]) -> Change<'m> {
    let attributes = MountAttributes { recursive: merged(mount.attributes), top: FlagChange::default() };
    Change { attributes, propagation }
}

fn bind_here(source: &Path, name: &str) -> nix::Result<()> {
    nix::mount::mount(Some(source), name, None::<&str>, MsFlags::MS_BIND, None::<&str>)
}

fn open_here(name: &str) -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn merged(attributes: MountAttributes) -> FlagChange {
    let MountAttributes { top, recursive } = attributes;
    FlagChange { set: (recursive.set & !top.clear) | top.set, clear: recursive.clear | top.clear }
}

fn read_only(mut attributes: MountAttributes) -> MountAttributes {
    attributes.top.set |= attr::RDONLY;
    attributes.top.clear &= !attr::RDONLY;
    attributes
}

/// The initial user namespace maps all ids to themselves (user_namespaces(7)).
pub(super) fn is_initial_user_ns() -> Result<bool> {
    let file = openat(AT_FDCWD, "/proc/self/uid_map", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut buffer = [0; 64];
    let length = nix::unistd::read(&file, &mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    Ok(text.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}
