//! A container's process: whether it lives, signals for it, its end.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::{State, Status, connect_at_once, short};
use crate::error::{Context, Error, Result};
use crate::sys::fd::{Done, read_short};
use crate::sys::process;

impl State {
    /// What the container is now, as the kernel tells.
    pub fn status(&self, root: &Path) -> Result<Status> {
        self.life().status(root, &mut Done::default(), |_| self.cgroup.is_frozen())
    }

    /// The container's process runs: it exists, is the one that create made, and is no zombie.
    ///
    /// # Errors
    /// What keeps it from being told, such as too many open files: one that is not seen may run all the same.
    pub fn is_alive(&self) -> Result<bool> {
        self.life().is_alive(&mut Done::default())
    }

    pub(super) fn life(&self) -> Life<'_> {
        Life {
            id: &self.id,
            creating: self.creating,
            pid: self.pid,
            start_time: self.start_time,
            pidfd_inode: self.pidfd_inode,
            waits_for_start: self.waits_for_start,
        }
    }

    /// The container's process, held so that it cannot be taken for another.
    ///
    /// # Errors
    /// A state error "container not running" if it ended, even if its PID is in use again.
    pub fn open_process(&self) -> Result<Target> {
        let gone = || Error::state("container not running");
        if self.pid <= 0 {
            return Err(gone());
        }
        let pid = Pid::from_raw(self.pid);
        let pidfd = match process::pidfd_open(pid) {
            Ok(pidfd) => Some(pidfd),
            // Hidden by a filter, or a kernel before 5.3.
            Err(Errno::ENOSYS) => None,
            Err(Errno::ESRCH) => return Err(gone()),
            Err(errno) => return Err(errno).doing(|| format!("open process {pid}")),
        };
        // Looked at after the descriptor is held: it cannot be another process from here on.
        if !self.is_alive()? {
            return Err(gone());
        }
        Ok(Target { pid, pidfd })
    }

    /// A descriptor of the container's process, which may have ended if its parent has not reaped it; `None` if it is gone.
    ///
    /// # Errors
    /// `ENOSYS` where the kernel has no pidfd_open(2), or a filter hides it.
    pub fn open_unreaped(&self) -> Result<Option<OwnedFd>> {
        if self.pid <= 0 {
            return Ok(None);
        }
        let pid = Pid::from_raw(self.pid);
        let doing = || format!("open process {pid}");
        let pidfd = match process::pidfd_open(pid) {
            Err(errno) => return is_gone(errno).map(|()| None).doing(doing),
            Ok(pidfd) => pidfd,
        };
        // Looked at after the descriptor is held: it cannot be another process from here on.
        let is_own = match self.pidfd_inode {
            Some(inode) => nix::sys::stat::fstat(&pidfd).doing(doing)?.st_ino == inode,
            None => stat(pid).doing(doing)?.is_some_and(|(time, _)| time == self.start_time),
        };
        Ok(is_own.then_some(pidfd))
    }
}

/// The part of a record from which the status is told.
pub(super) struct Life<'r> {
    pub id: &'r str,
    pub creating: bool,
    pub pid: i32,
    pub start_time: u64,
    pub pidfd_inode: Option<u64>,
    pub waits_for_start: bool,
}

impl Life<'_> {
    /// `done` takes descriptors.
    pub fn status(
        &self,
        root: &Path,
        done: &mut Done,
        is_frozen: impl FnOnce(&mut Done) -> Result<bool>,
    ) -> Result<Status> {
        if !self.is_alive(done)? {
            return Ok(if self.creating && is_locked(&root.join(self.id)) {
                Status::Creating
            } else {
                Status::Stopped
            });
        }
        if self.creating {
            return Ok(Status::Creating);
        }
        if is_frozen(done)? {
            return Ok(Status::Paused);
        }
        Ok(if self.waits_for_start && self.waits(root)? { Status::Created } else { Status::Running })
    }

    fn is_alive(&self, done: &mut Done) -> Result<bool> {
        if self.pid <= 0 {
            return Ok(false);
        }
        let pid = Pid::from_raw(self.pid);
        self.looks_alive(pid, done).doing(|| format!("look at process {pid}"))
    }

    fn looks_alive(&self, pid: Pid, done: &mut Done) -> Result<bool> {
        if let Some(inode) = self.pidfd_inode {
            match process::pidfd_open(pid) {
                // Told by its number from every other one, and by its descriptor whether all of its threads have ended.
                Ok(pidfd) => {
                    let is_alive = nix::sys::stat::fstat(&pidfd)?.st_ino == inode && !has_ended(&pidfd)?;
                    done.add(pidfd);
                    return Ok(is_alive);
                }
                // Hidden by a filter.
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                Err(errno) => return is_gone(errno).map(|()| false),
            }
        }
        match stat(pid)? {
            Some((time, _)) if time != self.start_time => Ok(false),
            Some((_, runs)) => Ok(runs || has_threads(pid)?),
            None => Ok(false),
        }
    }

    /// Somebody listens on the start socket: the container's process, which closes it by execve(2).
    fn waits(&self, root: &Path) -> Result<bool> {
        let dir = root.join(self.id);
        let asked = match fs::symlink_metadata(dir.join("start")) {
            Ok(_) => File::open(&dir),
            Err(error) => Err(error),
        };
        let asked = asked.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)));
        // A connection without a word is no start: the container's process goes on waiting. So many may have asked before that
        // there is no room for one more: somebody listens all the same.
        match asked.and_then(|dir| connect_at_once(&short(&dir, "start"))) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(true),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(false),
            Err(errno) => Err(errno).doing(|| format!("ask at {}", dir.join("start").display())),
        }
    }
}

/// A process that is signalled and waited for.
#[derive(Debug)]
pub struct Target {
    pid: Pid,
    /// `None` where the kernel hides pidfd_open(2).
    pidfd: Option<OwnedFd>,
}

impl Target {
    /// The process of `pidfd`. Without one nobody else may get its PID: as that of a child that is not reaped yet.
    pub fn new(pid: Pid, pidfd: Option<OwnedFd>) -> Self {
        Self { pid, pidfd }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Gives the descriptor away.
    pub fn into_pidfd(self) -> Option<OwnedFd> {
        self.pidfd
    }

    /// Sends `signal`, 0 to 64; `ESRCH` if the process has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match self.send(signal) {
            Err(Errno::ESRCH) => Err(Error::from(Errno::ESRCH).hint("container not running")),
            other => other.doing(|| format!("send signal {signal} to process {}", self.pid)),
        }
    }

    pub(super) fn send(&self, signal: i32) -> nix::Result<()> {
        match &self.pidfd {
            Some(pidfd) => process::pidfd_send_signal(pidfd.as_fd(), signal),
            None => process::kill(self.pid, signal),
        }
    }

    /// Waits until the process has ended, at most [`END_TIMEOUT`] long after a SIGKILL; while it does not, `help` is called every
    /// [`HELP_INTERVAL`].
    pub fn wait_end(&self, mut help: impl FnMut() -> Result<()>) -> Result<()> {
        let end = Instant::now() + END_TIMEOUT;
        while Instant::now() < end {
            if self.ends_until(end.min(Instant::now() + HELP_INTERVAL))? {
                return Ok(());
            }
            help()?;
        }
        Err(Error::other(format!("process {} does not end {END_TIMEOUT:?} after SIGKILL", self.pid))
            .hint("it may wait for a device or a network file system: see its stack in /proc"))
    }

    fn ends_until(&self, deadline: Instant) -> Result<bool> {
        Ok(match &self.pidfd {
            Some(pidfd) => wait_readable(pidfd.as_fd(), deadline)?,
            None => loop {
                match stat(self.pid)? {
                    // Without pidfds there is no event to wait for in a process that is no child.
                    Some((_, true)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                    Some((_, true)) => break false,
                    _ => break true,
                }
            },
        })
    }
}

/// How long a killed process may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a killed process that nothing holds up takes at most.
const HELP_INTERVAL: Duration = Duration::from_millis(50);

/// Another process holds the directory: a create is under way.
fn is_locked(dir: &Path) -> bool {
    let Ok(file) = File::open(dir) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

/// Every thread of the process has ended.
fn has_ended(pidfd: &OwnedFd) -> Result<bool> {
    loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// A process whose main thread is a zombie has others: a pidfd tells the end of them all.
fn has_threads(pid: Pid) -> Result<bool> {
    match process::pidfd_open(pid) {
        Ok(pidfd) => Ok(!has_ended(&pidfd)?),
        // Hidden by a filter: the threads are counted.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            Ok(fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1))
        }
        Err(errno) => is_gone(errno).map(|()| false),
    }
}

/// Of a process that could not be opened: there is none.
///
/// # Errors
/// Any other reason.
fn is_gone(errno: Errno) -> Result<()> {
    match errno {
        // EINVAL: a thread that leads no process any more, before Linux 6.15.
        Errno::ENOENT | Errno::ESRCH | Errno::EINVAL => Ok(()),
        errno => Err(errno.into()),
    }
}

/// Start time of a process (clock ticks since boot), and whether it still runs; `None` if there is none.
fn stat(pid: Pid) -> Result<Option<(u64, bool)>> {
    match read_short(&format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(parse_stat(&text)),
        Err(errno) => is_gone(errno).map(|()| None),
    }
}

/// Fields 3 and 22 of proc(5)'s stat; the command name before them may hold anything, so they are counted from its end.
fn parse_stat(text: &str) -> Option<(u64, bool)> {
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    let alive = !matches!(fields.next()?, "Z" | "X" | "x");
    Some((fields.nth(18)?.parse().ok()?, alive))
}

/// Start time of a running process.
pub fn start_time(pid: Pid) -> Result<u64> {
    let found = stat(pid).and_then(|found| found.ok_or_else(|| Errno::ESRCH.into()));
    found.map(|(time, _)| time).doing(|| format!("read /proc/{pid}/stat"))
}

/// Waits until `fd` has something to read or tells an end; `false` is the deadline.
fn wait_readable(fd: BorrowedFd<'_>, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait does not spin.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(1..) => return Ok(true),
            Ok(_) if left.is_zero() => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(|| "wait for the end of a process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_command_name() {
        let text = "7 (a) Z 1) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(text), Some((4242, true)));
        let zombie = "7 (a) Z 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(zombie), Some((4242, false)));
    }
}
