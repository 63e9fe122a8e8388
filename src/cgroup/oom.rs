//! Tells when the kernel kills for a cgroup's memory limit: by notification, without looking again and again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::resources::Version;
use super::{Record, files};
use crate::error::{Context, Result};
use crate::sys::fd::open;

/// What happened since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oom {
    Nothing,
    /// Once or more.
    Killed,
    /// The cgroup was removed: nothing comes any more.
    Gone,
}

/// A subscription to the container's cgroup and all below it.
#[derive(Debug)]
pub struct OomWatch(Source);

#[derive(Debug)]
enum Source {
    /// Counts up each time that the cgroup is out of memory, and once when it is removed (cgroup-v1/memory.rst, 10).
    V1 { events: EventFd, control: PathBuf },
    /// memory.events, which wakes poll(2) for whatever changes in it, and how many kills it told of.
    V2 { events: File, kills: u64 },
}

impl Record {
    /// Subscribes; `None` if the container has no cgroup that limits memory.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        match (self.version, self.unified()) {
            (Version::V2, Some(path)) => {
                let path = path.join("memory.events");
                match open(&path, OFlag::O_RDONLY) {
                    // The controller is not enabled.
                    Err(Errno::ENOENT) => Ok(None),
                    other => {
                        let events = File::from(other.doing(|| format!("watch {}", path.display()))?);
                        let kills = read_kills(&events).doing(|| format!("watch {}", path.display()))?;
                        Ok(Some(OomWatch(Source::V2 { events, kills })))
                    }
                }
            }
            (Version::V2, None) => Ok(None),
            (Version::V1, _) => self.v1("memory").map(|path| subscribe_v1(path.into())).transpose(),
        }
    }
}

fn subscribe_v1(cgroup: PathBuf) -> Result<OomWatch> {
    let subscribed = || -> Result<OomWatch> {
        let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Only to say which file is meant; the subscription is the eventfd's.
        let file = open(&cgroup.join("memory.oom_control"), OFlag::O_RDONLY)?;
        let control = cgroup.join("cgroup.event_control");
        files::write(&control, &format!("{} {}", events.as_fd().as_raw_fd(), file.as_raw_fd()))?;
        Ok(OomWatch(Source::V1 { events, control }))
    };
    subscribed().doing(|| format!("subscribe to {}", cgroup.join("memory.oom_control").display()))
}

impl OomWatch {
    /// What to poll for on [`AsFd::as_fd`].
    pub fn flags(&self) -> PollFlags {
        match self.0 {
            Source::V1 { .. } => PollFlags::POLLIN,
            Source::V2 { .. } => PollFlags::POLLPRI,
        }
    }

    /// What happened since the last call, or since the subscription.
    pub fn take(&mut self) -> Result<Oom> {
        match &mut self.0 {
            Source::V1 { events, control } => match events.read() {
                Err(Errno::EAGAIN) => Ok(Oom::Nothing),
                counted => {
                    let counted = counted.doing(|| "read the events of memory.oom_control")?;
                    // The removal counts too.
                    let is_gone = !control.exists();
                    Ok(match (is_gone, counted) {
                        (false, _) | (true, 2..) => Oom::Killed,
                        (true, _) => Oom::Gone,
                    })
                }
            },
            // Reading also arms the next notification (kernfs_notify).
            Source::V2 { events, kills } => match read_kills(events) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Oom::Gone),
                found => {
                    let before = std::mem::replace(kills, found.doing(|| "read memory.events")?);
                    Ok(if *kills > before { Oom::Killed } else { Oom::Nothing })
                }
            },
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::V1 { events, .. } => events.as_fd(),
            Source::V2 { events, .. } => events.as_fd(),
        }
    }
}

fn read_kills(events: &File) -> io::Result<u64> {
    let mut buffer = [0; 1024];
    let length = events.read_at(&mut buffer, 0)?;
    Ok(kills(&String::from_utf8_lossy(&buffer[..length])))
}

/// The processes that were killed, for limits of this cgroup and of those above.
fn kills(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_not_group_kills_nor_failed_allocations() {
        for (text, expected) in [
            ("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n", 2),
            ("low 0\nhigh 0\nmax 7\noom 3\noom_kill 0\n", 0),
            ("low 0\n", 0),
        ] {
            assert_eq!(kills(text), expected, "{text}");
        }
    }
}
