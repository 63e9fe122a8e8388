//! Removes trees, of this program's making or not: however deep they are, whatever modes their directories have.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use kelson::error::{Context, Result};
use kelson::sys::mount;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::name::shown;
use super::xattr::path_of;

/// Directories that are open in one another at most; those further down are moved up.
const MOST_OPEN: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    File,
    Directory,
}

/// Removes the file or directory `name` in `dir` with all that is in it; nothing there is fine.
///
/// For a layer that failed or is not needed any more. No link is followed.
pub fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    any(dir, name).map(drop).doing(|| format!("remove {}", shown(name.as_bytes())))
}

pub(super) fn any(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Removed> {
    if is_gone(dir, name)? {
        return Ok(Removed::File);
    }
    let top = open(dir, name)?;
    let mut moved = 0;
    loop {
        empty(top.as_fd(), top.as_fd(), 1, &mut moved)?;
        match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
            // What was moved up while it was listed may be left.
            Err(Errno::ENOTEMPTY) if std::mem::take(&mut moved) > 0 => {}
            removed => return removed.map(|()| Removed::Directory),
        }
    }
}

/// Removes it if it is no directory; `false` if it is one.
fn is_gone(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        // POSIX's answer for a directory, and the kernel's for a file that must not be removed.
        Err(Errno::EPERM) if mount::stat_at(dir, name)?.is_dir() => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory and lets its owner do anything in it.
fn open(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty())?;
    if mount::stat(fd.as_fd())?.mode & 0o700 != 0o700 {
        // By the link of procfs: a descriptor with O_PATH has no fchmod(2).
        fchmodat(AT_FDCWD, path_of(fd.as_fd()).as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    }
    Ok(fd)
}

/// Removes all that is in a directory, which is the `depth`th below the one that has `top`.
fn empty(dir: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> nix::Result<()> {
    let mut listing = Dir::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in listing.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." || is_gone(dir, name)? {
            continue;
        }
        let below = open(dir, name)?;
        if depth == MOST_OPEN {
            move_up(dir, name, top, moved)?;
            continue;
        }
        empty(below.as_fd(), top, depth + 1, moved)?;
        unlinkat(dir, name, UnlinkatFlags::RemoveDir)?;
    }
    Ok(())
}

/// Moves a directory into `top`, under a name that is free, or an empty directory's.
fn move_up(dir: BorrowedFd<'_>, name: &OsStr, top: BorrowedFd<'_>, moved: &mut u64) -> nix::Result<()> {
    loop {
        *moved += 1;
        match renameat(dir, name, top, format!("moved-{moved}").as_str()) {
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
            renamed => return renamed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::mkdirat;

    use super::*;

    #[test]
    fn trees_are_removed_however_deep_and_closed() {
        let base = std::env::temp_dir().join(format!("kelson-remove-{}", std::process::id()));
        fs::create_dir_all(base.join("tree/closed/below")).unwrap();
        fs::write(base.join("tree/closed/below/file"), "").unwrap();
        fs::write(base.join("kept"), "").unwrap();
        std::os::unix::fs::symlink("../kept", base.join("tree/link")).unwrap();
        // Longer than any path, and with names that are those of what is moved.
        let mut here: OwnedFd = File::open(base.join("tree")).unwrap().into();
        for number in 0..3000 {
            let name = format!("moved-{}", number % 50);
            mkdirat(&here, name.as_str(), Mode::S_IRWXU).unwrap();
            here = openat(&here, name.as_str(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            drop(openat(&here, "file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::empty()).unwrap());
        }
        for closed in ["tree/closed/below", "tree/closed"] {
            fs::set_permissions(base.join(closed), Permissions::from_mode(0o000)).unwrap();
        }
        let dir = File::open(&base).unwrap();
        remove(dir.as_fd(), "tree".as_ref()).unwrap();
        remove(dir.as_fd(), "tree".as_ref()).unwrap();
        assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
        fs::remove_dir_all(base).unwrap();
    }
}
