//! The network namespace of a container, and what keeps one there when its last process has ended.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

pub fn of(pid: i32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// The container has a network namespace that is not this process's, which is the host's.
pub fn check_own(pid: i32) -> Result<()> {
    let number =
        |path: &Path| fs::metadata(path).map(|info| info.ino()).doing(|| format!("look at {}", path.display()));
    if number(&of(pid))? == number(Path::new("/proc/self/ns/net"))? {
        return Err(Error::config("linux.namespaces", "the container shares the host's network")
            .hint("add {\"type\": \"network\"}"));
    }
    Ok(())
}

/// Keeps the namespace of `pid` at `path` until [`release`].
pub fn hold(pid: i32, path: &Path) -> Result<()> {
    let doing = || format!("keep the network namespace at {}", path.display());
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).doing(doing)?;
    mount(Some(&of(pid)), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).doing(doing)
}

/// It is there, seen from this mount namespace.
pub fn is_held(path: &Path) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type() == NSFS_MAGIC)
}

pub fn release(path: &Path) -> Result<()> {
    let doing = || format!("let go of the network namespace at {}", path.display());
    if is_held(path) {
        umount2(path, MntFlags::MNT_DETACH).doing(doing)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.doing(doing),
    }
}
