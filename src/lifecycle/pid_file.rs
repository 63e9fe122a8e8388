//! [parent] PID files, which engines read.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, linkat, unlink};

use crate::error::{Context, Result};
use crate::state;

/// A PID file that was written: dropping it removes it, for whoever reads it would take the process for made.
pub struct PidFile(PathBuf);

impl PidFile {
    pub fn write(path: &Path, pid: Pid) -> Result<Self> {
        write(path, pid).map(|()| Self(path.to_owned()))
    }

    /// The process stays, and the file with it.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It may be gone, and there is another error to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes a PID file; its reader sees all of it or nothing.
///
/// It gets its name when all is in it (O_TMPFILE, open(2)), so that who is killed meanwhile leaves nothing: no deletion knows of
/// the file. File systems that cannot do that get a file with another name first.
fn write(path: &Path, pid: Pid) -> Result<()> {
    let text = pid.to_string();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let made = match openat(AT_FDCWD, directory, flags, Mode::from_bits_truncate(0o644)) {
        Err(Errno::EOPNOTSUPP) => {
            return state::write_atomically(path, &format!(".{}", std::process::id()), 0o644, text.as_bytes());
        }
        made => made.and_then(|file| fill(&file, text.as_bytes()).and_then(|()| name(&file, path))),
    };
    made.doing(|| format!("write {}", path.display()))
}

fn fill(file: &OwnedFd, mut text: &[u8]) -> nix::Result<()> {
    while !text.is_empty() {
        match nix::unistd::write(file, text) {
            Err(Errno::EINTR) => {}
            written => text = &text[written?..],
        }
    }
    Ok(())
}

/// Gives a file without a name the name `path`, which may be that of an earlier one.
fn name(file: &OwnedFd, path: &Path) -> nix::Result<()> {
    let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
    loop {
        match linkat(AT_FDCWD, by_number.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
            Err(Errno::EEXIST) => match unlink(path) {
                Err(Errno::ENOENT) => {}
                other => other?,
            },
            other => return other,
        }
    }
}
