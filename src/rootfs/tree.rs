//! [init] A mount on its way into the container: made detached, given its attributes, then attached to an open descriptor.
//!
//! ```text
//! Tree::bind ─┐                 attributes and propagation       attach to the very file
//! Tree::new ──┴─▶ detached ───▶ (mount_setattr, 5.12) ─────────▶ that was opened (move_mount)
//! ```
//! Kernels or filters without these calls get mount(2) on `/proc/self/fd/N`: the target is still the opened file.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use super::path::open_below;
use super::procfs::Proc;
use crate::error::{Error, Kind, Result};
use crate::plan::{FlagChange, MountAttributes, Propagation, PropagationKind};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, FSCONFIG_STRING_BYTES, FileInfo, FsContext, MountAttr, Reach, attr};

/// How a descriptor is named to mount(2).
#[derive(Clone, Copy)]
pub(super) enum FdNames<'a> {
    /// `/proc/self/fd/N`: the host's /proc is still at its place.
    HostProc,
    /// `self/fd/N` from the root of our own procfs: the container's /proc is not to be trusted.
    OwnProc(&'a Proc),
    /// No procfs can be trusted: `ENOSYS`.
    Unknown,
}

impl FdNames<'_> {
    pub(super) fn with<T>(self, fd: BorrowedFd<'_>, call: impl FnOnce(&str) -> nix::Result<T>) -> nix::Result<T> {
        match self {
            FdNames::HostProc => call(&format!("/proc/self/fd/{}", fd.as_raw_fd())),
            FdNames::OwnProc(proc) => {
                nix::unistd::fchdir(proc.root())?;
                let done = call(&format!("self/fd/{}", fd.as_raw_fd()));
                nix::unistd::chdir("/")?;
                done
            }
            FdNames::Unknown => Err(Errno::ENOSYS),
        }
    }
}

/// Where a mount goes: opened once; the path serves only to find the new mount again where the kernel gives no descriptor.
pub(super) struct Place<'a> {
    pub fd: OwnedFd,
    /// `None`: `path` is a path of the host (the rootfs directory itself).
    pub root: Option<BorrowedFd<'a>>,
    pub path: &'a Path,
}

impl Place<'_> {
    /// The root of the mount that was just put here by path.
    fn mounted(&self) -> nix::Result<OwnedFd> {
        let mounted = match self.root {
            Some(root) => open_below(root, self.path, OFlag::O_PATH)?,
            None => openat(AT_FDCWD, self.path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?,
        };
        match mount::stat(mounted.as_fd())?.is_mount_root {
            // Somebody exchanged the path for another: what was mounted is elsewhere in the root.
            Some(false) => Err(Errno::EXDEV),
            _ => Ok(mounted),
        }
    }
}

/// What a mount is made of, until it is attached.
#[derive(Debug)]
pub(super) enum Tree {
    Detached(OwnedFd),
    /// Without open_tree(2): what mount(2) will bind.
    BindByPath {
        source: OwnedFd,
        reach: Reach,
    },
    /// Without fsopen(2), or for what only mount(2) can say.
    NewByPath(NewFs),
}

/// A file system to make.
#[derive(Clone, Debug, Default)]
pub(super) struct NewFs {
    pub fs_type: String,
    pub source: String,
    /// `key=value` or `flag`, in order.
    pub data: Vec<String>,
    /// Superblock flags, as MS_*.
    pub superblock: FlagChange,
    /// `attr` bits of the mount.
    pub attributes: u64,
}

/// What is done to a mount besides attaching it.
#[derive(Clone, Copy, Default)]
pub(super) struct Change<'a> {
    pub attributes: MountAttributes,
    pub propagation: &'a [Propagation],
}

impl Tree {
    /// A copy of what is at `source` on the host, links followed.
    pub fn bind(source: &Path, reach: Reach) -> nix::Result<Self> {
        match mount::clone_tree(AT_FDCWD, source, reach) {
            Err(errno) if mount::is_missing(errno) => {
                let source = openat(AT_FDCWD, source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
                Ok(Tree::BindByPath { source, reach })
            }
            copied => copied.map(Tree::Detached),
        }
    }

    /// A copy of what `source` is open on.
    pub fn bind_of(source: BorrowedFd<'_>, reach: Reach) -> nix::Result<Self> {
        match mount::clone_tree_of(source, reach) {
            Err(errno) if mount::is_missing(errno) => {
                Ok(Tree::BindByPath { source: source.try_clone_to_owned().map_err(to_errno)?, reach })
            }
            copied => copied.map(Tree::Detached),
        }
    }

    /// A new file system.
    pub fn new(fs: NewFs) -> Result<Self> {
        if fs.needs_mount() {
            return Ok(Tree::NewByPath(fs));
        }
        match FsContext::open(&c_string(&fs.fs_type)?) {
            Err(errno) if mount::is_missing(errno) => Ok(Tree::NewByPath(fs)),
            Err(Errno::ENODEV) => Err(unknown_fs_type(&fs.fs_type)),
            Err(errno) => Err(errno.into()),
            Ok(context) => fs.configure(&context).map(Tree::Detached).map_err(|errno| explained(errno, &context)),
        }
    }

    /// Leaves its descriptor to a [`crate::sys::fd::close_from`] that follows.
    pub(super) fn close_later(self) {
        match self {
            Tree::Detached(fd) | Tree::BindByPath { source: fd, .. } => close_later(fd),
            Tree::NewByPath(_) => {}
        }
    }

    /// What the mount's root is: a directory or another kind of file.
    pub fn stat(&self) -> nix::Result<Option<FileInfo>> {
        match self {
            Tree::Detached(fd) | Tree::BindByPath { source: fd, .. } => mount::stat(fd.as_fd()).map(Some),
            Tree::NewByPath(_) => Ok(None),
        }
    }

    /// A descriptor of the mount's root or of what will be bound.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Tree::Detached(fd) | Tree::BindByPath { source: fd, .. } => Some(fd.as_fd()),
            Tree::NewByPath(_) => None,
        }
    }

    /// Applies `change` and attaches the tree at `place`; the descriptor is of the attached mount's root.
    ///
    /// # Errors
    /// A recursive attribute without mount_setattr(2) is refused by name; so is lifting what a user namespace locks.
    pub fn attach(self, place: &Place<'_>, change: Change<'_>, names: FdNames<'_>) -> Result<OwnedFd> {
        let tree = match self {
            Tree::Detached(tree) => {
                let prepared = match change_attributes(tree.as_fd(), change) {
                    Err(e) if is_for_mount(&e, change.attributes) => false,
                    done => done.map(|()| true)?,
                };
                mount::attach(tree.as_fd(), place.fd.as_fd())?;
                if prepared {
                    return Ok(tree);
                }
                tree
            }
            Tree::BindByPath { source, reach } => {
                let recursive = if reach == Reach::Recursive { MsFlags::MS_REC } else { MsFlags::empty() };
                let none = None::<&str>;
                names_of_two(names, source.as_fd(), place.fd.as_fd(), |from, to| {
                    nix::mount::mount(Some(from), to, none, MsFlags::MS_BIND | recursive, none)
                })?;
                place.mounted()?
            }
            Tree::NewByPath(fs) => {
                match fs.mount_on(place.fd.as_fd(), names) {
                    Err(Errno::ENODEV) => return Err(unknown_fs_type(&fs.fs_type)),
                    mounted => mounted?,
                }
                place.mounted()?
            }
        };
        change_by_path(tree.as_fd(), change, names)?;
        Ok(tree)
    }
}

impl NewFs {
    /// fsopen(2) cannot make it.
    pub(super) fn needs_mount(&self) -> bool {
        needs_mount(self.superblock, &self.data) || self.source.len() >= FSCONFIG_STRING_BYTES
    }

    fn configure(&self, context: &FsContext) -> nix::Result<OwnedFd> {
        if !self.source.is_empty() {
            context.set_string(c"source", &c_string(&self.source)?)?;
        }
        set_options(context, self.superblock, &self.data)?;
        context.mount(self.attributes)
    }

    /// Makes it and mounts it on the file that `target` is open on, by mount(2).
    pub(super) fn mount_on(&self, target: BorrowedFd<'_>, names: FdNames<'_>) -> nix::Result<()> {
        names.with(target, |path| self.mount_by_path(path))
    }

    fn mount_by_path(&self, target: &str) -> nix::Result<()> {
        let flags = mount_flags(self.attributes) | MsFlags::from_bits_retain(self.superblock.set as libc::c_ulong);
        let data: Vec<String> = self.data.iter().map(|item| quoted(item)).collect();
        let data = Some(data.join(",")).filter(|data| !data.is_empty());
        let source = Some(self.source.as_str()).filter(|source| !source.is_empty());
        nix::mount::mount(source, target, Some(self.fs_type.as_str()), flags, data.as_deref())
    }
}

/// fsconfig(2) cannot say it: it has no names for two of the flags, and its values end at 256 bytes.
pub(super) fn needs_mount(superblock: FlagChange, data: &[String]) -> bool {
    (superblock.set | superblock.clear) & (libc::MS_I_VERSION | libc::MS_SILENT) != 0
        || data.iter().any(|item| item.len() >= FSCONFIG_STRING_BYTES)
}

/// Tells a file system its options: `data` is `key=value` or `flag`, in order.
pub(super) fn set_options(context: &FsContext, superblock: FlagChange, data: &[String]) -> nix::Result<()> {
    for item in data {
        match item.split_once('=') {
            Some((key, value)) => context.set_string(&c_string(key)?, &c_string(value)?)?,
            None => context.set_flag(&c_string(item)?)?,
        }
    }
    for (flag, set, clear) in SUPERBLOCK_NAMES {
        if superblock.set & flag != 0 {
            context.set_flag(set)?;
        } else if let Some(clear) = clear.filter(|_| superblock.clear & flag != 0) {
            context.set_flag(clear)?;
        }
    }
    Ok(())
}

/// mount(2) splits its data at commas, which the categories of a SELinux label contain.
fn quoted(item: &str) -> String {
    match item.split_once("context=") {
        Some((kind, label)) if label.contains(',') && !label.starts_with('"') => format!("{kind}context=\"{label}\""),
        _ => item.to_owned(),
    }
}

type Names = (u64, &'static std::ffi::CStr, Option<&'static std::ffi::CStr>);

/// Superblock flags that fsconfig(2) knows, with what sets and what clears them (common_set_sb_flag in fs/fs_context.c).
const SUPERBLOCK_NAMES: [Names; 5] = [
    (libc::MS_RDONLY, c"ro", Some(c"rw")),
    (libc::MS_SYNCHRONOUS, c"sync", Some(c"async")),
    (libc::MS_DIRSYNC, c"dirsync", None),
    (libc::MS_MANDLOCK, c"mand", Some(c"nomand")),
    (libc::MS_LAZYTIME, c"lazytime", Some(c"nolazytime")),
];

/// mount_setattr(2) for everything in `change`, in as few calls as it takes; `ENOSYS` before anything was changed.
fn change_attributes(tree: BorrowedFd<'_>, change: Change<'_>) -> Result<()> {
    let (calls, later) = change.calls();
    for (call, reach) in calls {
        if call.set | call.clear | call.propagation != 0 {
            mount::set_attributes(tree, reach, &call).map_err(|errno| refused(errno, tree, call.clear))?;
        }
    }
    for propagation in later {
        set_propagation(tree, *propagation)?;
    }
    Ok(())
}

impl<'a> Change<'a> {
    /// The calls of mount_setattr(2) that it takes, of which one may be about nothing, and what each takes a further call.
    pub(super) fn calls(self) -> ([(MountAttr, Reach); 2], &'a [Propagation]) {
        let change = self;
        let FlagChange { set, clear } = change.attributes.recursive;
        let mut recursive = MountAttr { set, clear, ..MountAttr::default() };
        let FlagChange { set, clear } = change.attributes.top;
        let mut top = MountAttr { set, clear, ..MountAttr::default() };
        let mut later = change.propagation;
        if let [first, rest @ ..] = later {
            let first_call = if first.recursive { &mut recursive } else { &mut top };
            first_call.propagation = propagation_flag(first.kind).bits();
            later = rest;
        }
        // The top after the whole: `rro,rw` is a writable mount above read-only ones.
        ([(recursive, Reach::Recursive), (top, Reach::Top)], later)
    }
}

fn set_propagation(tree: BorrowedFd<'_>, propagation: Propagation) -> nix::Result<()> {
    let reach = if propagation.recursive { Reach::Recursive } else { Reach::Top };
    let change = MountAttr { propagation: propagation_flag(propagation.kind).bits(), ..MountAttr::default() };
    mount::set_attributes(tree, reach, &change)
}

/// [`change_attributes`] on an attached mount with mount(2).
pub(super) fn change_by_path(tree: BorrowedFd<'_>, change: Change<'_>, names: FdNames<'_>) -> Result<()> {
    if change.attributes.recursive != FlagChange::default() {
        return Err(Error::new(
            Kind::System(Errno::ENOSYS),
            "recursive attributes (rro, rnosuid, …) need mount_setattr(2)",
        )
        .hint("Linux 5.12 or newer, and a seccomp filter of the outer container that allows it"));
    }
    let none = None::<&str>;
    if change.attributes.top != FlagChange::default() {
        let now = mount::attributes(tree)?;
        let wanted = (now & !change.attributes.top.clear) | change.attributes.top.set;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | mount_flags(wanted);
        names
            .with(tree, |path| nix::mount::mount(none, path, none, flags, none))
            .map_err(|errno| refused(errno, tree, change.attributes.top.clear))?;
    }
    for propagation in change.propagation {
        let recursive = if propagation.recursive { MsFlags::MS_REC } else { MsFlags::empty() };
        let flags = propagation_flag(propagation.kind) | recursive;
        names.with(tree, |path| nix::mount::mount(none, path, none, flags, none))?;
    }
    Ok(())
}

/// Changes an attached mount whose root `mounted` is.
pub(super) fn change_attached(mounted: BorrowedFd<'_>, change: Change<'_>, names: FdNames<'_>) -> Result<()> {
    match change_attributes(mounted, change) {
        Err(e) if is_for_mount(&e, change.attributes) => change_by_path(mounted, change, names),
        done => done,
    }
}

/// What mount_setattr(2) did not do is for mount(2), which cannot do the recursive part: EPERM stays the answer to that.
fn is_for_mount(error: &Error, attributes: MountAttributes) -> bool {
    match error.errno() {
        Some(Errno::EPERM) => attributes.recursive == FlagChange::default(),
        errno => errno == Some(Errno::ENOSYS),
    }
}

pub(super) fn propagation_flag(kind: PropagationKind) -> MsFlags {
    match kind {
        PropagationKind::Shared => MsFlags::MS_SHARED,
        PropagationKind::Slave => MsFlags::MS_SLAVE,
        PropagationKind::Private => MsFlags::MS_PRIVATE,
        PropagationKind::Unbindable => MsFlags::MS_UNBINDABLE,
    }
}

/// The mount(2) flags that say the same as `attributes`.
pub(super) fn mount_flags(attributes: u64) -> MsFlags {
    let table = [
        (attr::RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::MS_NOEXEC),
        (attr::NOATIME, libc::MS_NOATIME),
        (attr::STRICTATIME, libc::MS_STRICTATIME),
        (attr::NODIRATIME, libc::MS_NODIRATIME),
        (attr::NOSYMFOLLOW, libc::MS_NOSYMFOLLOW),
    ];
    let mut flags = table.iter().filter(|(bit, _)| attributes & bit != 0).fold(0, |all, (_, flag)| all | flag);
    if attributes & attr::ATIME == 0 {
        flags |= libc::MS_RELATIME;
    }
    MsFlags::from_bits_retain(flags)
}

/// Names the option that a user namespace may not lift, if that is why the kernel refused.
fn refused(errno: Errno, tree: BorrowedFd<'_>, cleared: u64) -> Error {
    let locked = match (errno, mount::attributes(tree)) {
        (Errno::EPERM, Ok(now)) => now & cleared,
        _ => 0,
    };
    let names = [
        (attr::RDONLY, "ro", "rw"),
        (attr::NOSUID, "nosuid", "suid"),
        (attr::NODEV, "nodev", "dev"),
        (attr::NOEXEC, "noexec", "exec"),
    ];
    match names.iter().find(|(bit, ..)| locked & bit != 0) {
        Some((_, has, asked)) => Error::new(
            Kind::System(errno),
            format!("operation not permitted: option {asked:?}, but the host's mount is {has:?} and a user namespace may not lift that"),
        )
        .hint(format!("leave {asked:?} out")),
        None => errno.into(),
    }
}

/// Both descriptors' names at once.
fn names_of_two<T>(
    names: FdNames<'_>,
    first: BorrowedFd<'_>,
    second: BorrowedFd<'_>,
    call: impl FnOnce(&str, &str) -> nix::Result<T>,
) -> nix::Result<T> {
    let number = second.as_raw_fd();
    names.with(first, |from| match names {
        FdNames::OwnProc(_) => call(from, &format!("self/fd/{number}")),
        FdNames::HostProc | FdNames::Unknown => call(from, &format!("/proc/self/fd/{number}")),
    })
}

fn unknown_fs_type(fs_type: &str) -> Error {
    Error::new(Kind::System(Errno::ENODEV), format!("unknown file system type {fs_type:?}"))
        .hint("no such device: the kernel lacks it, or its module is not loaded")
}

/// The kernel's own words about a refused option, where it has some.
pub(super) fn explained(errno: Errno, context: &FsContext) -> Error {
    match context.complaint() {
        Some(complaint) => {
            Error::new(Kind::System(errno), format!("{}: {complaint}", errno.desc().to_ascii_lowercase()))
        }
        None => errno.into(),
    }
}

pub(super) fn c_string(text: &str) -> nix::Result<CString> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

pub(super) fn to_errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
