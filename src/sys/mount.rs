//! The mount system calls that nix lacks: descriptors instead of paths (open_tree(2), fsopen(2), move_mount(2), mount_setattr(2)).
//!
//! Every function is one system call, returns its `Errno` unchanged, and gives descriptors that close on execve.

use std::ffi::{CStr, OsStr, OsString};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use nix::NixPath;
use nix::errno::Errno;

use super::process;

type Result<T> = nix::Result<T>;

/// Attributes of one mount (linux/mount.h, mount_setattr(2)).
pub mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// The bits of the access time setting: an enumeration, not flags. RELATIME is 0.
    pub const ATIME: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x0010_0000;
    /// Since 5.14.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// `struct mount_attr` of mount_setattr(2), first version (32 bytes, since 5.12).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE, or 0 to leave it.
    pub propagation: u64,
    /// Descriptor of the user namespace for `attr::IDMAP`.
    pub user_ns: u64,
}

/// Whether a call is about one mount or also about all that is mounted below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Top,
    Recursive,
}

impl Reach {
    fn flag(self) -> libc::c_int {
        match self {
            Reach::Top => 0,
            Reach::Recursive => libc::AT_RECURSIVE,
        }
    }
}

/// A call of this module that failed so may be missing: in the kernel, or behind a seccomp filter that is older than it and
/// answers EPERM. The older call is to be tried; where EPERM is the kernel's, that one says so too.
pub fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM)
}

fn descriptor(result: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: every caller passes the result of a system call that on success returns a new descriptor nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

const OPEN_TREE_CLONE: libc::c_int = 1;

/// A detached copy of the mount that holds `path` (its part from `path` down), links followed (open_tree(2), since 5.2).
///
/// # Errors
/// `EINVAL`: the mount is unbindable, or in a user namespace a non-recursive copy would uncover locked mounts.
pub fn clone_tree<P: ?Sized + NixPath>(dir: BorrowedFd<'_>, path: &P, reach: Reach) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | reach.flag();
    let result = path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and lives through the call; `dir` is an open descriptor or AT_FDCWD.
        unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) }
    })?;
    descriptor(result)
}

/// Like [`clone_tree`], of what the descriptor itself refers to.
pub fn clone_tree_of(fd: BorrowedFd<'_>, reach: Reach) -> Result<OwnedFd> {
    clone_tree(fd, c"", reach)
}

const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// Attaches the (detached) mount `from` at the very file that `to` is open on; no path is looked up (move_mount(2)).
pub fn attach(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are NUL-terminated constants and both descriptors are open.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), to.as_raw_fd(), c"".as_ptr(), flags)
    };
    Errno::result(result).map(drop)
}

/// Changes attributes or propagation of the mount whose root `fd` is (mount_setattr(2), since 5.12).
pub fn set_attributes(fd: BorrowedFd<'_>, reach: Reach, change: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | reach.flag();
    let change: *const MountAttr = change;
    // SAFETY: the path is a NUL-terminated constant; `change` points to a live struct of exactly the given size.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), c"".as_ptr(), flags, change, mem::size_of::<MountAttr>())
    };
    Errno::result(result).map(drop)
}

/// Whether the kernel has mount_setattr(2), which the recursive mount options need (since 5.12).
pub fn has_set_attributes() -> bool {
    // Changes nothing; who may not change anything is told so, and not that there is no such call.
    set_attributes(nix::fcntl::AT_FDCWD, Reach::Top, &MountAttr::default()) != Err(Errno::ENOSYS)
}

/// Which calls of this module the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    pub open_tree: bool,
    pub fsopen: bool,
    pub set_attributes: bool,
}

impl Calls {
    /// Asks the kernel, with flags that no call knows: nothing is opened or changed. Whether the caller may use them is another
    /// question, and a filter that answers EPERM is taken for the kernel's.
    pub fn of_kernel() -> Self {
        const NO_FLAGS: libc::c_int = -1;
        // SAFETY: the path is a NUL-terminated constant; the flags are refused before anything is done.
        let open_tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"".as_ptr(), NO_FLAGS) };
        let open_tree = Errno::result(open_tree);
        // SAFETY: as above.
        let fsopen = Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, c"".as_ptr(), NO_FLAGS) });
        Self {
            open_tree: open_tree != Err(Errno::ENOSYS),
            fsopen: fsopen != Err(Errno::ENOSYS),
            set_attributes: has_set_attributes(),
        }
    }
}

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 0x1;
const FSPICK_EMPTY_PATH: libc::c_uint = 0x8;

/// The kernel copies at most this many bytes of a value, the NUL included (strndup_user in fs/fsopen.c).
pub const FSCONFIG_STRING_BYTES: usize = 256;

/// A file system that is being configured (fsopen(2), fspick(2), since 5.2).
pub struct FsContext(OwnedFd);

impl FsContext {
    pub fn open(fs_type: &CStr) -> Result<Self> {
        // SAFETY: `fs_type` is NUL-terminated and lives through the call.
        let result = unsafe { libc::syscall(libc::SYS_fsopen, fs_type.as_ptr(), FSOPEN_CLOEXEC) };
        descriptor(result).map(Self)
    }

    /// The superblock of the mount whose root `fd` is, to be changed (fspick(2)).
    pub fn pick(fd: BorrowedFd<'_>) -> Result<Self> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the path is a NUL-terminated constant and the descriptor is open.
        let result = unsafe { libc::syscall(libc::SYS_fspick, fd.as_raw_fd(), c"".as_ptr(), flags) };
        descriptor(result).map(Self)
    }

    fn config(&self, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>, aux: libc::c_int) -> Result<()> {
        let key = key.map_or(ptr::null(), CStr::as_ptr);
        let value = value.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are null or NUL-terminated and live through the call; the callers below pair each
        // command with the arguments it wants (fsconfig(2)).
        let result = unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, aux) };
        Errno::result(result).map(drop)
    }

    /// Sets an option that has no value, such as `ro`.
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// Sets `key=value`; a value of [`FSCONFIG_STRING_BYTES`] or more is `EINVAL`.
    pub fn set_string(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    /// Sets an option to what a descriptor refers to.
    pub fn set_fd(&self, key: &CStr, fd: BorrowedFd<'_>) -> Result<()> {
        self.config(FSCONFIG_SET_FD, Some(key), None, fd.as_raw_fd())
    }

    /// Makes the superblock, then a detached mount of it with the attributes `attributes` (fsmount(2)).
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)?;
        // SAFETY: plain integers and an open descriptor.
        let result = unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes as libc::c_uint)
        };
        descriptor(result)
    }

    /// Changes the superblock that was picked; what was not set stays as it is.
    pub fn reconfigure(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    }

    /// What the file system said about the last failure, for instance `tmpfs: Unknown parameter 'foo'`.
    pub fn complaint(&self) -> Option<String> {
        let mut buffer = [0; 512];
        let mut complaint = None;
        // One message a read; ENODATA when there are no more.
        while let Ok(length) = nix::unistd::read(&self.0, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            if let Some(error) = text.strip_prefix("e ") {
                complaint = Some(error.trim_end().to_owned());
            }
        }
        complaint
    }
}

/// What statx(2) tells about a file and the mount it is on.
#[derive(Clone, Copy, Debug)]
pub struct FileInfo {
    pub mode: u32,
    pub inode: u64,
    pub device: (u32, u32),
    /// Of a device file.
    pub rdev: (u32, u32),
    pub uid: u32,
    pub gid: u32,
    /// Mount ID as in /proc/self/mountinfo; 0 before 5.8.
    pub mount_id: u64,
    /// The file is the root of its mount; `None` where the kernel cannot tell (before 5.8).
    pub is_mount_root: Option<bool>,
}

impl FileInfo {
    pub fn file_type(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.file_type() == libc::S_IFDIR
    }

    pub fn is_symlink(&self) -> bool {
        self.file_type() == libc::S_IFLNK
    }

    /// The same file, whichever mount it is seen through.
    pub fn is_same_file(&self, other: &FileInfo) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Looks at `path` below `dir` without following a link in its last component and without triggering automounts.
pub fn stat_at<P: ?Sized + NixPath>(dir: BorrowedFd<'_>, path: &P) -> Result<FileInfo> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    let result = path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and lives through the call; `buffer` has room for one struct statx.
        unsafe { libc::statx(dir.as_raw_fd(), path.as_ptr(), flags, mask, buffer.as_mut_ptr()) }
    })?;
    Errno::result(result)?;
    // SAFETY: zeroed and then filled by the kernel; all fields are integers.
    let stat = unsafe { buffer.assume_init() };
    let mount_root = libc::STATX_ATTR_MOUNT_ROOT as u64;
    Ok(FileInfo {
        mode: u32::from(stat.stx_mode),
        inode: stat.stx_ino,
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mount_id: stat.stx_mnt_id,
        is_mount_root: (stat.stx_attributes_mask & mount_root != 0).then_some(stat.stx_attributes & mount_root != 0),
    })
}

/// Like [`stat_at`], of what the descriptor itself refers to.
pub fn stat(fd: BorrowedFd<'_>) -> Result<FileInfo> {
    stat_at(fd, c"")
}

/// The file is in a procfs.
pub fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// Attributes that the mount of `fd` has now, as `attr` bits; a read-only superblock counts as `RDONLY`.
pub fn attributes(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut buffer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `fd` is open and `buffer` has room for one struct statvfs.
    Errno::result(unsafe { libc::fstatvfs(fd.as_raw_fd(), buffer.as_mut_ptr()) })?;
    // SAFETY: zeroed and then filled by the call; all fields are integers.
    let flags = unsafe { buffer.assume_init() }.f_flag;
    let table = [
        (libc::ST_RDONLY, attr::RDONLY),
        (libc::ST_NOSUID, attr::NOSUID),
        (libc::ST_NODEV, attr::NODEV),
        (libc::ST_NOEXEC, attr::NOEXEC),
        (libc::ST_NOATIME, attr::NOATIME),
        (libc::ST_NODIRATIME, attr::NODIRATIME),
        (ST_NOSYMFOLLOW, attr::NOSYMFOLLOW),
    ];
    let mut found = table.iter().filter(|(st, _)| flags & st != 0).fold(0, |all, (_, bit)| all | bit);
    if flags & (libc::ST_NOATIME | ST_RELATIME) == 0 {
        found |= attr::STRICTATIME;
    }
    Ok(found)
}

// linux/statfs.h.
const ST_RELATIME: u64 = 0x1000;
const ST_NOSYMFOLLOW: u64 = 0x2000;

/// Sets an extended attribute of `path`, links followed (setxattr(2)).
pub fn set_xattr<P: ?Sized + NixPath>(path: &P, name: &CStr, value: &[u8]) -> Result<()> {
    let result = path.with_nix_path(|path| {
        // SAFETY: path and name are NUL-terminated; value points to value.len() readable bytes.
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }
    })?;
    Errno::result(result).map(drop)
}

/// Names in the directory `dir` (open for reading), `.` and `..` left out, in the kernel's order (getdents64(2)).
pub fn read_names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    // struct linux_dirent64: u64 inode, i64 offset, u16 length of the record, u8 type, name with NUL.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut names = Vec::new();
    let mut buffer = vec![0_u8; 32 * 1024];
    loop {
        // SAFETY: the buffer is writable for the length that is given.
        let result = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let filled = Errno::result(result)? as usize;
        if filled == 0 {
            return Ok(names);
        }
        let mut rest = &buffer[..filled];
        while let Some(&[low, high]) = rest.get(LENGTH..LENGTH + 2) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let (Some(record), Some(next)) = (rest.get(NAME..length), rest.get(length..)) else { break };
            let name = record.split(|&byte| byte == 0).next().unwrap_or_default();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
            rest = next;
        }
    }
}

/// A user namespace with the given lines of uid_map and gid_map, held by nothing but the descriptor.
///
/// A child makes it and ends before this returns. The caller must be single-threaded or not care that the child holds
/// copies of its descriptors meanwhile, and needs CAP_SETUID and CAP_SETGID over the ids.
pub fn user_ns(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    let (ready, end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as u64;
    // SAFETY: no CLONE_VM: this is fork(2), and the child below only makes system calls.
    let child = Errno::result(unsafe { process::clone_copy(flags, &mut 0) })? as libc::pid_t;
    if child == 0 {
        drop(end);
        // Ends when the parent closes its end or is gone, whichever comes first.
        let mut byte = [0];
        let _ = nix::unistd::read(&ready, &mut byte);
        // SAFETY: _exit ends the process without running anything of the parent's.
        unsafe { libc::_exit(0) }
    }
    let made = write_maps(child, uid_map, gid_map);
    drop(end);
    // Only the namespace matters; how the child ended does not.
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
    made
}

fn write_maps(child: libc::pid_t, uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    use nix::fcntl::{AT_FDCWD, OFlag, openat};
    let open = |name: &str, flags| {
        openat(
            AT_FDCWD,
            format!("/proc/{child}/{name}").as_str(),
            flags | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
    };
    for (name, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        nix::unistd::write(open(name, OFlag::O_WRONLY)?.as_fd(), map.as_bytes())?;
    }
    open("ns/user", OFlag::O_RDONLY)
}
