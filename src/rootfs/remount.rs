//! [init] `remount`: other attributes for a mount that is there, other settings for its superblock.
//!
//! A bind has its superblock from the host, so only what the options name is changed in it. `ro` and `rw` are the mount's.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use super::RootFs;
use super::path;
use super::tree::{self, Change};
use crate::error::{Error, Result};
use crate::plan::{FlagChange, Mount, MountAttributes};
use crate::sys::mount::{self, FsContext, attr};

impl RootFs<'_> {
    pub(super) fn remount(&self, mount: &Mount, data: &[String]) -> Result<()> {
        let fd = path::open_below(self.root.as_fd(), &mount.destination, OFlag::O_PATH)?;
        if mount::stat(fd.as_fd())?.is_mount_root == Some(false) {
            return Err(Error::from(Errno::EINVAL).hint("nothing is mounted there that could be remounted"));
        }
        if !data.is_empty() || mount.superblock != FlagChange::default() {
            self.reconfigure(fd.as_fd(), mount.superblock, data)?;
        }
        let change = Change { attributes: mount.attributes, propagation: &mount.propagation };
        tree::change_attached(fd.as_fd(), change, self.names())
    }

    fn reconfigure(&self, fd: BorrowedFd<'_>, superblock: FlagChange, data: &[String]) -> Result<()> {
        if tree::needs_mount(superblock, data) {
            return self.reconfigure_by_path(fd, superblock, data);
        }
        match FsContext::pick(fd) {
            Err(errno) if mount::is_missing(errno) => self.reconfigure_by_path(fd, superblock, data),
            Err(errno) => Err(errno.into()),
            Ok(context) => tree::set_options(&context, superblock, data)
                .and_then(|()| context.reconfigure())
                .map_err(|errno| tree::explained(errno, &context)),
        }
    }

    /// With mount(2), which sets all flags of superblock and mount anew: those that are to stay are given again.
    fn reconfigure_by_path(&self, fd: BorrowedFd<'_>, superblock: FlagChange, data: &[String]) -> Result<()> {
        let now = Flags::of(fd)?;
        let attributes = mount::attributes(fd)? & !attr::RDONLY;
        let flags = tree::mount_flags(attributes).bits() | (now.superblock & !superblock.clear) | superblock.set;
        let flags = MsFlags::from_bits_retain(flags) | MsFlags::MS_REMOUNT;
        let (none, data) = (None::<&str>, data.join(","));
        self.names().with(fd, |path| nix::mount::mount(none, path, none, flags, Some(data.as_str())))?;
        if !now.is_read_only {
            return Ok(());
        }
        // MS_RDONLY would have been the superblock's too, so the mount's own is given back.
        let top = FlagChange { set: attr::RDONLY, clear: 0 };
        let attributes = MountAttributes { top, ..MountAttributes::default() };
        tree::change_attached(fd, Change { attributes, propagation: &[] }, self.names())
    }
}

/// What mountinfo tells apart and statvfs(3) does not.
#[derive(Debug, PartialEq, Eq)]
struct Flags {
    /// The mount, whatever its superblock is.
    is_read_only: bool,
    /// MS_* flags of the superblock.
    superblock: u64,
}

impl Flags {
    fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let id = read(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        let found = id.and_then(|id: u64| Self::parse(&read("/proc/self/mountinfo").ok()?, id));
        found.ok_or_else(|| Error::other("the mount is not in /proc/self/mountinfo"))
    }

    /// From the line of mount `id` in mountinfo (proc_pid_mountinfo(5)).
    fn parse(mountinfo: &str, id: u64) -> Option<Self> {
        let line = mountinfo.lines().find(|line| line.split(' ').next() == Some(id.to_string().as_str()))?;
        let (mount, superblock) = line.split_once(" - ")?;
        let is_read_only = mount.split(' ').nth(5)?.split(',').any(|option| option == "ro");
        // show_sb_opts in fs/proc_namespace.c.
        let names = [
            ("ro", libc::MS_RDONLY),
            ("sync", libc::MS_SYNCHRONOUS),
            ("dirsync", libc::MS_DIRSYNC),
            ("mand", libc::MS_MANDLOCK),
            ("lazytime", libc::MS_LAZYTIME),
        ];
        let flags = superblock
            .split(' ')
            .nth(2)?
            .split(',')
            .filter_map(|option| names.iter().find(|(name, _)| *name == option).map(|(_, flag)| flag));
        Some(Self { is_read_only, superblock: flags.fold(0, |all, flag| all | flag) })
    }
}

fn read(path: &str) -> Result<String> {
    let file = openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_is_the_mounts_or_the_superblocks() {
        let text = "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda ro,sync,errors=remount-ro\n\
                    222 22 0:21 / /mnt/x ro,nosuid - tmpfs tmpfs rw,dirsync,lazytime,mand,size=4k\n";
        let flags = |is_read_only, superblock| Some(Flags { is_read_only, superblock });
        assert_eq!(Flags::parse(text, 22), flags(false, libc::MS_RDONLY | libc::MS_SYNCHRONOUS));
        assert_eq!(Flags::parse(text, 222), flags(true, libc::MS_DIRSYNC | libc::MS_LAZYTIME | libc::MS_MANDLOCK));
        assert_eq!(Flags::parse(text, 2), None);
    }
}
