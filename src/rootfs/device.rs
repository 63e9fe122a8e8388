//! [init] /dev: default devices, `linux.devices`, links, and the console.
//!
//! /dev is opened once and may not be a link (CVE-2026-41579: devices and links were made in a directory of the host);
//! everything in it is made by one name relative to that descriptor.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat, umask};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::RootFs;
use super::path::{self, Links, Made, Make};
use super::tree::{Change, Place, Tree};
use crate::error::{Context, Error, Result};
use crate::plan::{Device, DeviceKind, MountKind, Plan};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, FileInfo, Reach};

/// config-linux.md#default-devices: name, major, minor; all of them character devices with mode 0666.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// config-linux.md#dev-symbolic-links
pub(super) const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

const ANCHOR: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// One device file to make.
struct Node<'a> {
    /// For errors.
    property: Option<String>,
    /// In the container.
    path: &'a Path,
    kind: DeviceKind,
    number: (u32, u32),
    /// What linux.devices asks for.
    mode: Option<u32>,
    owner: (Option<u32>, Option<u32>),
}

/// Path and number of the default devices that `linux.devices` has nothing else for.
pub(super) fn default_devices(plan: &Plan) -> impl Iterator<Item = (&'static Path, (u32, u32))> {
    let all = DEFAULT_DEVICES.iter().map(|(path, major, minor)| (Path::new(*path), (*major, *minor)));
    all.filter(|(path, _)| plan.devices.iter().all(|device| path::cleaned(&device.path) != *path))
}

/// /dev is a bind mount, and left as it is.
pub(super) fn dev_is_bound(plan: &Plan) -> bool {
    let is_bind = |kind: &MountKind| matches!(kind, MountKind::Bind { .. });
    plan.mounts.iter().any(|mount| is_bind(&mount.kind) && path::cleaned(&mount.destination) == Path::new("/dev"))
}

/// Devices cannot be made: those of the host are bound.
pub(super) fn are_bound(plan: &Plan) -> bool {
    plan.namespaces.user.is_own()
}

impl RootFs<'_> {
    /// Makes the default devices, `linux.devices` and the links of /dev. A bind mount at /dev is left as it is.
    pub fn make_devices(&self) -> Result<()> {
        if !self.plan.masked_paths.is_empty() {
            // Opened once, whoever called this before.
            let _ = self.null.set(host_null().doing(|| "open /dev/null of the host")?);
        }
        if dev_is_bound(self.plan) {
            return Ok(());
        }
        // Modes are exact whatever umask the caller had.
        let before = umask(Mode::empty());
        let made = self.fill_dev();
        umask(before);
        made
    }

    fn fill_dev(&self) -> Result<()> {
        let dev = self.open_dev()?;
        for (path, number) in default_devices(self.plan) {
            let (kind, name) = (DeviceKind::Char, path.file_name().unwrap_or_default());
            let node = Node { property: None, path, kind, number, mode: None, owner: (None, None) };
            self.make_node(dev.as_fd(), name, &node).doing(|| format!("make device {}", path.display()))?;
        }
        for device in &self.plan.devices {
            self.make_device(dev.as_fd(), device)
                .doing(|| format!("make device {}", device.path.display()))
                .property(|| format!("linux.devices[{}]", device.index))?;
        }
        self.make_links(dev.as_fd()).doing(|| "make the links of /dev")?;
        close_later(dev);
        Ok(())
    }

    fn open_dev(&self) -> Result<OwnedFd> {
        let (root, dev) = (self.root.as_fd(), Path::new("dev"));
        let opened = match path::open_with(root, dev, OFlag::O_PATH | OFlag::O_DIRECTORY, Links::Refuse) {
            Err(Errno::ENOENT) => match path::create_below(root, dev, Make::Dir).doing(|| "make /dev")? {
                Made { fd, is_exact: true } => Ok(fd),
                // It became one a moment ago.
                Made { is_exact: false, .. } => Err(Errno::ELOOP),
            },
            opened => opened,
        };
        match opened {
            Err(Errno::ELOOP) => {
                Err(Error::other("/dev in the image is a symbolic link").hint("/dev has to be a directory"))
            }
            opened => opened.doing(|| "open /dev"),
        }
    }

    fn make_device(&self, dev: BorrowedFd<'_>, device: &Device) -> Result<()> {
        let clean = path::cleaned(&device.path);
        let (Some(directory), Some(name)) = (clean.parent(), clean.file_name()) else {
            return Err(Error::config(format!("linux.devices[{}].path", device.index), "is not a path of a file"));
        };
        let node = Node {
            property: Some(format!("linux.devices[{}].path", device.index)),
            path: &clean,
            kind: device.kind,
            number: (device.major, device.minor),
            mode: device.mode,
            owner: (device.uid, device.gid),
        };
        if directory == Path::new("/dev") {
            return self.make_node(dev, name, &node);
        }
        let parent = path::mkdir_below(self.root.as_fd(), directory)?;
        self.make_node(parent.as_fd(), name, &node)
    }

    fn make_node(&self, parent: BorrowedFd<'_>, name: &OsStr, node: &Node<'_>) -> Result<()> {
        let is_device = node.kind != DeviceKind::Fifo;
        if is_device && are_bound(self.plan) {
            return self.bind_node(parent, name, node);
        }
        let device = if is_device { makedev(node.number.0.into(), node.number.1.into()) } else { 0 };
        let mode = Mode::from_bits_truncate(node.mode.unwrap_or(0o666) & 0o7777);
        let owner = (node.owner.0.unwrap_or(0), node.owner.1.unwrap_or(0));
        match mknodat(parent, name, node.file_type(), mode, device) {
            // Made by root as root; a directory with setgid or another owner needs the call.
            Ok(()) if owner == (0, 0) => Ok(()),
            Ok(()) => own(parent, name, owner),
            Err(Errno::EEXIST) => self.accept_existing(parent, name, node),
            // An outer user namespace.
            Err(Errno::EPERM) if is_device => self.bind_node(parent, name, node),
            Err(Errno::EROFS) => Err(Error::from(Errno::EROFS).hint("a tmpfs mounted at /dev makes room for devices")),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same device may be there already; another file is an error (config-linux.md#devices). A default device is
    /// bound over a file that is no link.
    fn accept_existing(&self, parent: BorrowedFd<'_>, name: &OsStr, node: &Node<'_>) -> Result<()> {
        let file = openat(parent, name, ANCHOR, Mode::empty())?;
        let found = mount::stat(file.as_fd())?;
        if node.is(&found) {
            return node.give_to(&file, &found);
        }
        match &node.property {
            Some(property) => Err(Error::config(
                property.clone(),
                format!("file exists: {} in the root file system is another file", node.path.display()),
            )),
            None => self.bind_node(parent, name, node),
        }
    }

    /// Where devices cannot be made: the host's own, bound on an empty file.
    fn bind_node(&self, parent: BorrowedFd<'_>, name: &OsStr, node: &Node<'_>) -> Result<()> {
        let fd = create_here(parent, name)?;
        let found = mount::stat(fd.as_fd())?;
        if node.is(&found) {
            return Ok(());
        }
        if found.is_symlink() || found.is_dir() {
            let what = if found.is_dir() { "a directory" } else { "a symbolic link" };
            return Err(Error::other(format!("{} in the root file system is {what}", node.path.display())));
        }
        if let Some(property) = &node.property
            && found.file_type() != libc::S_IFREG
        {
            return Err(Error::config(
                property.clone(),
                format!("file exists: {} in the root file system is another file", node.path.display()),
            ));
        }
        let tree = node.on_host()?;
        let place = Place { fd, root: Some(self.root.as_fd()), path: node.path };
        tree.attach(&place, Change::default(), self.names()).map(drop)
    }

    fn make_links(&self, dev: BorrowedFd<'_>) -> Result<()> {
        for (name, target) in LINKS {
            link(dev, name, target)?;
        }
        // As runc and crun: only where the kernel has it.
        if mount::stat_at(AT_FDCWD, "/proc/kcore").is_ok() {
            link(dev, "core", "/proc/kcore")?;
        }
        match symlinkat("pts/ptmx", dev, "ptmx") {
            Err(Errno::EEXIST) => {}
            made => return Ok(made?),
        }
        if readlinkat(dev, "ptmx").is_ok_and(|target| target == "pts/ptmx") {
            return Ok(());
        }
        // The image's ptmx would open terminals of another devpts instance.
        unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir)?;
        Ok(symlinkat("pts/ptmx", dev, "ptmx")?)
    }

    /// Puts the container's end of the terminal at /dev/console; after [`RootFs::enter`].
    ///
    /// Links are refused (CVE-2025-52565, CVE-2026-88264: the bind went over the link's target).
    pub fn bind_console(&self, terminal: BorrowedFd<'_>) -> Result<()> {
        self.bind_console_to(terminal).doing(|| "bind the terminal to /dev/console")
    }

    fn bind_console_to(&self, terminal: BorrowedFd<'_>) -> Result<()> {
        let dev = self.open_dev()?;
        let fd = create_here(dev.as_fd(), OsStr::new("console"))?;
        let found = mount::stat(fd.as_fd())?;
        if found.file_type() != libc::S_IFREG && found.file_type() != libc::S_IFCHR {
            return Err(Error::other("/dev/console in the root file system is neither a file nor a character device"));
        }
        let tree = Tree::bind_of(terminal, Reach::Top)?;
        let place = Place { fd, root: Some(self.root.as_fd()), path: Path::new("/dev/console") };
        tree.attach(&place, Change::default(), self.names()).map(drop)
    }
}

impl Node<'_> {
    fn file_type(&self) -> SFlag {
        match self.kind {
            DeviceKind::Char => SFlag::S_IFCHR,
            DeviceKind::Block => SFlag::S_IFBLK,
            DeviceKind::Fifo => SFlag::S_IFIFO,
        }
    }

    fn is(&self, found: &FileInfo) -> bool {
        let is_type = found.file_type() == self.file_type().bits();
        is_type && (self.kind == DeviceKind::Fifo || found.rdev == self.number)
    }

    /// Gives the file, which was there before, the mode and owner that are asked for.
    fn give_to(&self, file: &OwnedFd, found: &FileInfo) -> Result<()> {
        let (uid, gid) = self.owner;
        if uid.is_some_and(|uid| uid != found.uid) || gid.is_some_and(|gid| gid != found.gid) {
            fchownat(file, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::AT_EMPTY_PATH)
                .doing(|| "set the owner of the one that is there")?;
        }
        if let Some(mode) = self.mode.filter(|mode| *mode != found.mode & 0o7777) {
            // fchmod(2) takes no O_PATH, and a name may be another file's by now.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let mode = Mode::from_bits_truncate(mode);
            fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink)
                .doing(|| "set the mode of the one that is there")?;
        }
        Ok(())
    }

    /// The same device on the host, as a tree to attach: under the same path, or where udev lists devices by number.
    fn on_host(&self) -> Result<Tree> {
        let (major, minor) = self.number;
        for path in paths_on_host(self.path, self.kind, self.number) {
            let Ok(tree) = Tree::bind(&path, Reach::Top) else { continue };
            if tree.stat()?.is_some_and(|found| self.is(&found)) {
                return Ok(tree);
            }
        }
        Err(Error::from(Errno::ENOENT).hint(format!(
            "in a user namespace devices cannot be made, and the host has no device {major}:{minor} at {} to bind",
            self.path.display()
        )))
    }
}

/// Where the host may have a device: under the path that the container has it, or where udev lists devices by number.
pub(super) fn paths_on_host(path: &Path, kind: DeviceKind, (major, minor): (u32, u32)) -> [PathBuf; 2] {
    let by_number = match kind {
        DeviceKind::Block => format!("/dev/block/{major}:{minor}"),
        _ => format!("/dev/char/{major}:{minor}"),
    };
    [path.to_owned(), PathBuf::from(by_number)]
}

/// The file `name` (O_PATH, a link itself), made empty if it is missing.
fn create_here(parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    let make = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(parent, name, make, Mode::from_bits_truncate(0o666)) {
        Err(Errno::EEXIST) => openat(parent, name, ANCHOR, Mode::empty()),
        made => made,
    }
}

fn own(parent: BorrowedFd<'_>, name: &OsStr, (uid, gid): (u32, u32)) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn link(dev: BorrowedFd<'_>, name: &str, target: &str) -> nix::Result<()> {
    match symlinkat(target, dev, name) {
        // As the image has it, as in runc.
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

/// The host's /dev/null, checked to be that device: what an image or a volume has at /dev/null is never used as mask
/// (CVE-2025-31133).
fn host_null() -> Result<Tree> {
    let tree = Tree::bind(Path::new("/dev/null"), Reach::Top)?;
    match tree.stat()? {
        Some(info) if info.file_type() == libc::S_IFCHR && info.rdev == (1, 3) => Ok(tree),
        _ => Err(Error::other("it is not the null device 1:3")),
    }
}
