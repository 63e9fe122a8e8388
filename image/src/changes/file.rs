//! What is told of a file by stat(2), and its extended attributes as far as a layer has them.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use kelson::sys::xattr;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use crate::unpack::{is_carried, path_of};

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, i64);

/// What is told of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub rdev: u64,
    pub links: u64,
    /// Device and number: names of one file have the same.
    pub file: (u64, u64),
    pub modified: Time,
    /// Last change of the inode: no program can set it.
    pub changed: Time,
}

impl From<FileStat> for Meta {
    fn from(stat: FileStat) -> Self {
        Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            rdev: stat.st_rdev,
            links: stat.st_nlink,
            file: (stat.st_dev, stat.st_ino),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Meta {
    /// Of what the descriptor refers to, O_PATH or not.
    pub fn of(file: BorrowedFd<'_>) -> nix::Result<Self> {
        nix::sys::stat::fstat(file).map(Self::from)
    }

    pub fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.mode) & SFlag::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == SFlag::S_IFDIR
    }

    /// overlayfs's mark of a name that is gone, in the form that every kernel writes.
    pub fn is_whiteout(&self) -> bool {
        self.kind() == SFlag::S_IFCHR && self.rdev == 0
    }

    /// It may be a mark of fuse-overlayfs, which has a name of its own: an empty file.
    pub fn is_mark_of_fuse(&self) -> bool {
        self.kind() == SFlag::S_IFREG && self.mode & 0o7777 == 0o700 && self.size == 0
    }

    /// Both are the same file that nobody changed in between: a file that overlayfs shows out of a lower layer has that
    /// layer's times until it is copied up, which gives it a ctime of that moment.
    pub fn is_untouched(&self, lower: &Meta) -> bool {
        let what = |meta: &Meta| (meta.mode, meta.uid, meta.gid, meta.size, meta.rdev, meta.modified, meta.changed);
        what(self) == what(lower)
    }

    /// Both have the same type, permissions and owner.
    pub fn looks_like(&self, other: &Meta) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
    }
}

/// The extended attributes that a layer carries, sorted.
pub fn attributes(file: &impl AsFd) -> nix::Result<Vec<(CString, Vec<u8>)>> {
    let path = path_of(file.as_fd());
    let path = Path::new(&path);
    let mut all = vec![];
    for name in xattr::list_following_links(path)? {
        if !is_carried(name.to_bytes()) {
            continue;
        }
        match xattr::get_following_links(path, &name) {
            Ok(value) => all.push((name, value)),
            // Removed meanwhile.
            Err(Errno::ENODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// The value of the first of overlayfs's attributes called `name` that the file has, for root or for everybody.
pub fn mark(file: &impl AsFd, name: &str) -> nix::Result<Option<Vec<u8>>> {
    let path = path_of(file.as_fd());
    for class in ["trusted", "user"] {
        let name = CString::new(format!("{class}.overlay.{name}")).map_err(|_| Errno::EINVAL)?;
        match xattr::get_following_links(Path::new(&path), &name) {
            Ok(value) => return Ok(Some(value)),
            // Not there, not on this file system or for files of this type, not this caller's to see.
            Err(Errno::ENODATA | Errno::ENOTSUP | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Whether the directory hides what lower layers have in it. `x` says only that whiteouts in it may be attributes.
pub fn is_opaque(dir: &impl AsFd) -> nix::Result<bool> {
    Ok(mark(dir, "opaque")?.is_some_and(|value| value == b"y"))
}
