//! [init] `tmpcopyup`: what the image has below a tmpfs's destination, copied into the tmpfs.
//!
//! The image is not trusted: no link is followed, and everything is opened by one name relative to an open directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use crate::error::{Context, Error, Result};
use crate::sys::mount;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A directory whose entries are being copied.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    names: Vec<OsString>,
}

/// Copies everything in the directory `from` to the directory `to`, with owner, mode and times.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    // A list instead of recursion: the image decides how deep it is.
    let mut levels = vec![Level::open(from, OsStr::new("."), to, OsStr::new("."))?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let below = level.copy_one(&name).doing(|| format!("copy {name:?}"))?;
        levels.extend(below);
    }
    Ok(())
}

impl Level {
    fn open(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>, new_name: &OsStr) -> nix::Result<Self> {
        let from = openat(from, name, DIRECTORY, Mode::empty())?;
        let to = openat(to, new_name, DIRECTORY, Mode::empty())?;
        let names = mount::read_names(from.as_fd())?;
        Ok(Level { from, to, names })
    }

    /// Copies one entry; a directory's contents are left for later, its own attributes are set at once.
    fn copy_one(&self, name: &OsStr) -> Result<Option<Level>> {
        let stat = fstatat(&self.from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        let private = Mode::S_IRWXU;
        match kind {
            SFlag::S_IFDIR => mkdirat(&self.to, name, private)?,
            SFlag::S_IFREG => self.copy_file(name, &stat)?,
            SFlag::S_IFLNK => symlinkat(readlinkat(&self.from, name)?.as_os_str(), &self.to, name)?,
            // In a user namespace devices cannot be made; runc leaves out what it cannot copy, too.
            kind => match mknodat(&self.to, name, kind, private, stat.st_rdev) {
                Err(Errno::EPERM) => return Ok(None),
                made => made?,
            },
        }
        self.copy_attributes(name, &stat, kind)?;
        match kind {
            SFlag::S_IFDIR => Ok(Some(Level::open(self.from.as_fd(), name, self.to.as_fd(), name)?)),
            _ => Ok(None),
        }
    }

    fn copy_file(&self, name: &OsStr, stat: &FileStat) -> Result<()> {
        // O_NONBLOCK: if it has become a FIFO meanwhile, opening must not wait.
        let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let from = openat(&self.from, name, read, Mode::empty())?;
        let now = nix::sys::stat::fstat(&from)?;
        if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(Error::other("it was exchanged while it was copied"));
        }
        let make = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let to = openat(&self.to, name, make, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // copy_file_range and the like are std's affair.
        let copied = std::io::copy(&mut std::fs::File::from(from), &mut std::fs::File::from(to));
        copied.map(drop).map_err(|error| match Error::from(error) {
            e if e.errno() == Some(Errno::ENOSPC) => e.hint("the tmpfs is too small for what it covers: raise size="),
            e => e,
        })
    }

    fn copy_attributes(&self, name: &OsStr, stat: &FileStat, kind: SFlag) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        match fchownat(&self.to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
            // An owner that the user namespace does not map stays the container's root.
            Err(Errno::EINVAL | Errno::EPERM) => {}
            done => done?,
        }
        if kind != SFlag::S_IFLNK {
            let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
            // The tmpfs is new and only this process has it: nothing was exchanged for a link.
            fchmodat(&self.to, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
        let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
        Ok(utimensat(&self.to, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
    }
}
