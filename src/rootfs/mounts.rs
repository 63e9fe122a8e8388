//! [init] `mounts`: one after the other, each resolved inside the root as the ones before it left it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::cgroup::CgroupView;
use super::making::{self, Making, change_of};
use super::path::{self, Links, Made, Make};
use super::procfs::Proc;
use super::tree::{Change, NewFs, Place, Tree};
use super::{Prepared, RootFs, copy_up};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{Mount, MountAttributes, MountKind};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, FileInfo, Reach, attr};

/// Files below /proc that lxcfs and the like replace; nothing else may be mounted over parts of procfs.
const REPLACEABLE_IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// A destination, opened.
pub(super) struct Target<'a> {
    pub place: Place<'a>,
    /// It was there before.
    pub existed: bool,
    /// No link was on the way: its path is what the config says.
    is_exact: bool,
}

impl RootFs<'_> {
    /// Performs `mounts`, in order.
    pub fn mount_all(&self, cgroups: &CgroupView, prepared: &Prepared) -> Result<()> {
        for mount in &self.plan.mounts {
            let done = match &mount.kind {
                MountKind::Bind { source, recursive } => self.bind(mount, source, *recursive, prepared),
                MountKind::FileSystem { fs_type, source, data } => self.new_fs(mount, fs_type, source, data),
                MountKind::Cgroup { data } => self.mount_cgroup(mount, data, cgroups),
                MountKind::Remount { data } => self.remount(mount, data),
            };
            done.doing(|| describe(mount)).property(|| format!("mounts[{}]", mount.index))?;
        }
        self.find_proc();
        Ok(())
    }

    fn bind(&self, mount: &Mount, source: &Path, recursive: bool, prepared: &Prepared) -> Result<()> {
        let reach = if recursive { Reach::Recursive } else { Reach::Top };
        let tree = match prepared.source(mount.index) {
            Some(tree) if mount.id_map.is_some() => {
                let change = making::change_of_id_mapped(mount);
                let tree = Tree::Detached(tree.try_clone_to_owned()?);
                return self.attach_changed(mount, tree, change).map(close_later);
            }
            Some(source) => Tree::bind_of(source, reach),
            None => Tree::bind(source, reach),
        };
        self.attach_bind(mount, tree.map_err(|errno| source_error(errno, reach))?)
    }

    pub(super) fn attach_bind(&self, mount: &Mount, tree: Tree) -> Result<()> {
        self.attach_changed(mount, tree, self.change(mount)).map(close_later)
    }

    /// Attaches `tree` where `mount` goes, changed in another way than its options say; gives the mount's root.
    pub(super) fn attach_changed(&self, mount: &Mount, tree: Tree, change: Change<'_>) -> Result<OwnedFd> {
        let source = tree.stat()?;
        let is_dir = source.is_none_or(|info| info.is_dir());
        let target = self.target(mount, if is_dir { Make::Dir } else { Make::File })?;
        self.check_target(mount, &target, is_root_of_proc(&tree, source)?)?;
        let attached = match tree.attach(&target.place, change, self.names()) {
            Err(e) if matches!(e.errno(), Some(Errno::ENOTDIR | Errno::EINVAL)) => {
                return Err(mismatch(e, is_dir, &target.place));
            }
            attached => attached?,
        };
        close_later(target.place.fd);
        Ok(attached)
    }

    /// sysfs belongs to a network namespace; without its own, a user namespace gets the host's, with its locks.
    ///
    /// All of it is read-only whatever the options say, for what is mounted below it, cgroups above all, may be writable
    /// to the user of the host (CVE-2023-25809). Its cgroups are hidden: a new sysfs has none either.
    fn bind_host_sysfs(&self, mount: &Mount) -> Result<()> {
        const LOCKED: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
        let MountAttributes { mut top, mut recursive } = mount.attributes;
        recursive.set |= LOCKED;
        recursive.clear &= !LOCKED;
        top.clear &= !LOCKED;
        let change = Change { attributes: MountAttributes { top, recursive }, ..self.change(mount) };
        let tree = Tree::bind(Path::new("/sys"), Reach::Recursive)?;
        let attached = match self.attach_changed(mount, tree, change) {
            Err(e) if e.errno() == Some(Errno::ENOSYS) => {
                return Err(Error::new(
                    Kind::System(Errno::ENOSYS),
                    "without a network namespace a user namespace gets the host's sysfs, which only mount_setattr(2) \
                     makes read-only as a whole",
                )
                .hint("add {\"type\": \"network\"} to linux.namespaces, or use Linux 5.12 or newer"));
            }
            attached => attached?,
        };
        match path::open_with(attached.as_fd(), Path::new("fs/cgroup"), OFlag::O_PATH, Links::Refuse) {
            Ok(fd) => {
                let place = Place { fd, root: Some(attached.as_fd()), path: Path::new("fs/cgroup") };
                Tree::new(self.empty_directory())?.attach(&place, Change::default(), self.names()).map(close_later)?;
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        close_later(attached);
        Ok(())
    }

    /// What the options say about the mount, with the default propagation (private).
    pub(super) fn change<'m>(&self, mount: &'m Mount) -> Change<'m> {
        change_of(self.plan, mount)
    }

    fn new_fs(&self, mount: &Mount, fs_type: &str, source: &str, data: &[String]) -> Result<()> {
        let target = self.target(mount, Make::Dir)?;
        let is_proc = fs_type == "proc";
        if (is_proc || fs_type == "sysfs") && !target.is_exact {
            // CVE-2019-19921, CVE-2023-27561, CVE-2025-54867: what protects /proc would protect another directory.
            return Err(Error::config(
                format!("mounts[{}].destination", mount.index),
                format!(
                    "{} in the image is a symbolic link or below one: {fs_type} must be mounted on an ordinary directory",
                    mount.destination.display()
                ),
            ));
        }
        self.check_target(mount, &target, is_proc)?;

        let covered_mode = match target.existed && making::looks_like_what_it_covers(fs_type, data) {
            true => Some(mount::stat(target.place.fd.as_fd())?.mode),
            false => None,
        };
        let Making { fs, change, is_late, is_one_call } =
            Making::of(self.plan, mount, (fs_type, source, data), covered_mode);
        let (has_data, is_read_only) = (!fs.data.is_empty(), fs.attributes & attr::RDONLY != 0);
        // Where it fails, the longer way succeeds or says why not.
        if is_one_call && fs.mount_on(target.place.fd.as_fd(), self.names()).is_ok() {
            if is_proc && self.proc.get().is_none() {
                // find_proc makes another where this cannot be it.
                let _ = Proc::beneath(self.root.as_fd(), target.place.path).map(|proc| self.proc.set(proc));
            }
            close_later(target.place.fd);
            return Ok(());
        }
        let tree = match Tree::new(fs) {
            Ok(tree) => tree,
            Err(e) => match (e.errno(), fs_type) {
                (Some(Errno::EPERM), "sysfs") => return self.bind_host_sysfs(mount),
                _ => return Err(self.new_fs_error(e, fs_type, data)),
            },
        };
        // Before anything is mounted over parts of it. A copy of a read-only one could set no sysctl: find_proc makes another.
        let is_usable = is_proc && !has_data && !is_read_only;
        let proc = tree.fd().filter(|_| is_usable).and_then(|fd| Proc::copy_of(fd).ok());
        let attached = match tree.attach(&target.place, change, self.names()) {
            Err(e) if e.errno() == Some(Errno::EPERM) && fs_type == "sysfs" => {
                return self.bind_host_sysfs(mount);
            }
            attached => attached.map_err(|e| self.new_fs_error(e, fs_type, data))?,
        };
        if mount.copy_up && target.existed {
            copy_up::copy(target.place.fd.as_fd(), attached.as_fd()).doing(|| "copy what is below it (tmpcopyup)")?;
        }
        if fs_type == "mqueue"
            && let Some(label) = &self.plan.mount_label
        {
            self.label_mqueue(attached.as_fd(), label)?;
        }
        if let Some(proc) = proc {
            // The first one is enough.
            let _ = self.proc.set(proc);
        }
        if is_late {
            self.read_only_later.borrow_mut().push((mount.index, attached));
        } else {
            close_later(attached);
        }
        close_later(target.place.fd);
        Ok(())
    }

    /// Adds `linux.mountLabel`; the kernel labels proc, sysfs, mqueue and cgroups itself.
    pub(super) fn label(&self, fs: &mut NewFs) {
        making::label(self.plan, fs);
    }

    fn label_mqueue(&self, root: std::os::fd::BorrowedFd<'_>, label: &str) -> Result<()> {
        self.names()
            .with(root, |path| mount::set_xattr(path, c"security.selinux", label.as_bytes()))
            .property(|| "linux.mountLabel")
    }

    /// Adds the reasons that are certain.
    fn new_fs_error(&self, error: Error, fs_type: &str, data: &[String]) -> Error {
        let maps = &self.plan.id_maps;
        let unmapped = |kind: &str, map: &[crate::plan::IdMapping]| {
            let id = data.iter().find_map(|item| item.strip_prefix(kind)?.parse::<u32>().ok())?;
            let is_mapped = map.iter().any(|line| id.checked_sub(line.container).is_some_and(|nth| nth < line.size));
            (!map.is_empty() && !is_mapped)
                .then(|| format!("{kind}{id} is not mapped into the container's user namespace"))
        };
        let unmapped = unmapped("gid=", &maps.gid).or_else(|| unmapped("uid=", &maps.uid));
        match (error.errno(), unmapped) {
            (Some(Errno::EINVAL), Some(unmapped)) => error.hint(unmapped),
            (Some(Errno::EPERM), _) => match making::lacks_namespace(self.plan, fs_type) {
                Some(why) => error.hint(why),
                None => error,
            },
            _ => error,
        }
    }

    /// Opens the destination inside the root, and makes it if it is missing.
    pub(super) fn target<'a>(&'a self, mount: &'a Mount, missing: Make) -> Result<Target<'a>> {
        let (root, path) = (self.root.as_fd(), mount.destination.as_path());
        let (fd, existed, is_exact) = match path::open_with(root, path, OFlag::O_PATH, Links::Refuse) {
            Ok(fd) => (fd, true, true),
            Err(Errno::ENOENT) => {
                let made = self.make_target(path, missing)?;
                (made.fd, false, made.is_exact)
            }
            Err(Errno::ELOOP) => match path::open_below(root, path, OFlag::O_PATH) {
                Ok(fd) => (fd, true, false),
                Err(Errno::ENOENT) => (self.make_target(path, missing)?.fd, false, false),
                Err(errno) => return Err(errno.into()),
            },
            Err(errno) => return Err(errno.into()),
        };
        Ok(Target { place: Place { fd, root: Some(root), path }, existed, is_exact })
    }

    fn make_target(&self, path: &Path, missing: Make) -> Result<Made> {
        path::create_below(self.root.as_fd(), path, missing).doing(|| "make the mount point")
    }

    /// Nothing but a real procfs covers /proc, only a few files replace parts of it, and nothing covers the root.
    ///
    /// CVE-2019-16884: a volume over /proc made the runtime write labels into ordinary files.
    pub(super) fn check_target(&self, mount: &Mount, target: &Target<'_>, is_proc: bool) -> Result<()> {
        let refuse = |why: &str| {
            let destination = mount.destination.display();
            Err(Error::config(format!("mounts[{}].destination", mount.index), format!("{destination} {why}")))
        };
        let over_root = "is the root itself";
        let over_proc = "may be covered by a procfs only";
        let in_proc = "is inside /proc, where only a few files (cpuinfo, meminfo, uptime, …) may be replaced";
        if target.is_exact {
            let path = path::cleaned(&mount.destination);
            let text = path.to_string_lossy();
            return match path.strip_prefix("/proc") {
                _ if text == "/" => refuse(over_root),
                Ok(rest) if rest.as_os_str().is_empty() && !is_proc => refuse(over_proc),
                Ok(rest) if !rest.as_os_str().is_empty() && !is_proc && !REPLACEABLE_IN_PROC.contains(&&*text) => {
                    refuse(in_proc)
                }
                _ => Ok(()),
            };
        }
        // Links led there: ask where it is, not how it is called.
        let info = mount::stat(target.place.fd.as_fd())?;
        if info.is_same_file(&mount::stat(self.root.as_fd())?) {
            return refuse(over_root);
        }
        if is_proc {
            return Ok(());
        }
        if mount::is_procfs(target.place.fd.as_fd())? {
            return refuse(in_proc);
        }
        match mount::stat_at(self.root.as_fd(), "proc") {
            Ok(proc) if info.is_same_file(&proc) => refuse(over_proc),
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn is_root_of_proc(tree: &Tree, info: Option<FileInfo>) -> Result<bool> {
    const PROC_ROOT_INODE: u64 = 1;
    match (tree.fd(), info) {
        (Some(fd), Some(info)) if info.inode == PROC_ROOT_INODE => Ok(mount::is_procfs(fd)?),
        _ => Ok(false),
    }
}

fn describe(mount: &Mount) -> String {
    let destination = mount.destination.display();
    match &mount.kind {
        MountKind::Bind { source, .. } => format!("mount {} on {destination}", source.display()),
        MountKind::FileSystem { fs_type, .. } => format!("mount {fs_type} on {destination}"),
        MountKind::Cgroup { .. } => format!("mount cgroup on {destination}"),
        MountKind::Remount { .. } => format!("remount {destination}"),
    }
}

fn source_error(errno: Errno, reach: Reach) -> Error {
    let error = Error::from(errno);
    match (errno, reach) {
        (Errno::ENOENT, _) => error.hint("the source does not exist"),
        (Errno::EINVAL, Reach::Top) => {
            error.hint("the source is on an unbindable mount, or mounts below it may not be uncovered: use rbind")
        }
        _ => error,
    }
}

fn mismatch(error: Error, source_is_dir: bool, place: &Place<'_>) -> Error {
    match mount::stat(place.fd.as_fd()) {
        Ok(info) if info.is_dir() != source_is_dir => {
            let name = |is_dir| if is_dir { "a directory" } else { "a file" };
            Error::new(
                error.errno().map_or(Kind::Other, Kind::System),
                format!(
                    "not a directory: the source is {}, the destination in the container {}",
                    name(source_is_dir),
                    name(info.is_dir())
                ),
            )
        }
        _ => error,
    }
}
