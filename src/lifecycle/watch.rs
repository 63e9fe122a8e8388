//! [parent] Watches a process that another one reaps, to learn how it ends.
//!
//! The kernel tells it to who has a pidfd since before the reap (PIDFD_INFO_EXIT, since 6.15). An older one has it in
//! /proc/PID/stat until the parent reaps the process, which is told of the end at the same time: if that is faster nobody else
//! ever knows, but who the parent was.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::cgroup::kill_watch::KillWatch;
use crate::ended::{Ended, Exit};
use crate::error::{Context, Result};
use crate::sys::fd::read_short;
use crate::sys::process;

/// A process that is no child of this one.
pub struct Watched {
    pid: Pid,
    pidfd: OwnedFd,
    /// /proc/PID/stat, open before the end: the parent may be about to reap it. `None` if /proc does not show the process.
    stat: Option<File>,
    reaper: Reaper,
}

/// Who reaps it.
struct Reaper {
    /// 0 if it is outside of this PID namespace.
    pid: i32,
    name: String,
    /// Tells when another process takes its place. `None` if it cannot be opened.
    pidfd: Option<OwnedFd>,
}

/// Fields of proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    is_zombie: bool,
    parent: i32,
    /// The wait status of a zombie; 0 for who may not know (PTRACE_MODE_READ).
    status: i32,
}

impl Stat {
    /// The command name may hold anything, so fields are counted from its end.
    fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(") ")?;
        let mut fields = after_name.split_ascii_whitespace();
        let is_zombie = matches!(fields.next()?, "Z" | "X" | "x");
        let parent = fields.next()?.parse().ok()?;
        // Field 52; the first two that are left here were 3 and 4.
        Some(Self { is_zombie, parent, status: fields.nth(47)?.parse().ok()? })
    }

    fn read(file: &File) -> Option<Self> {
        let mut page = [0; 4096];
        let length = file.read_at(&mut page, 0).ok()?;
        Self::parse(&String::from_utf8_lossy(&page[..length]))
    }
}

impl Watched {
    /// For process `pid`, which has this pidfd and may have ended.
    pub fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        let stat = File::open(format!("/proc/{pid}/stat")).ok();
        let reaper = Reaper::of(stat.as_ref());
        Self { pid, pidfd, stat, reaper }
    }

    /// Waits for the end; `kills` sees the container's cgroup until then.
    pub fn wait(mut self, kills: &mut KillWatch<'_>) -> Result<Ended> {
        loop {
            let own = PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN);
            let reaper = self.reaper.pidfd.as_ref().map(|reaper| PollFd::new(reaper.as_fd(), PollFlags::POLLIN));
            let has_reaper = reaper.is_some();
            let mut polled: Vec<_> = [own].into_iter().chain(reaper).chain(kills.poll_fd()).collect();
            wait_for(&mut polled)?;
            let (has_ended, reaper_ended) =
                (polled[0].any() == Some(true), has_reaper && polled[1].any() == Some(true));
            drop(polled);
            // First what its parent, then what systemd is about to take away.
            let exit = if has_ended { self.exit() } else { None };
            kills.look();
            if let Some(exit) = exit {
                return Ok(Ended::known(exit));
            }
            if has_ended {
                break;
            }
            if reaper_ended {
                self.reaper = match Reaper::of(self.stat.as_ref()) {
                    // The process is gone: it was this one that reaped it.
                    Reaper { pid: 0, .. } => Reaper { pidfd: None, ..self.reaper },
                    other => other,
                };
            }
        }
        // The kernel tells it after the reap: of that a pidfd tells by itself (POLLHUP, since 6.9).
        if matches!(process::reaped_status(self.pidfd.as_fd()), Ok(None)) {
            wait_for(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::empty())])?;
        }
        Ok(self.exit().map_or_else(|| Ended::unknown(self.reaper.to_string()), Ended::known))
    }

    /// How it ended, without waiting for anybody.
    pub fn glance(&self) -> Ended {
        self.exit().map_or_else(|| Ended::unknown(self.reaper.to_string()), Ended::known)
    }

    fn exit(&self) -> Option<Exit> {
        let status = self.status_of_zombie().or_else(|| process::reaped_status(self.pidfd.as_fd()).ok().flatten());
        status.map(Exit::of_status)
    }

    /// The wait status of one that is not reaped, if this process may know it.
    fn status_of_zombie(&self) -> Option<i32> {
        let stat = Stat::read(self.stat.as_ref()?).filter(|stat| stat.is_zombie)?;
        // 0 may be no status: the kernel asks for the same rights before it shows a namespace.
        let is_shown = || std::fs::read_link(format!("/proc/{}/ns/user", self.pid)).is_ok();
        (stat.status != 0 || is_shown()).then_some(stat.status)
    }
}

impl Reaper {
    /// The parent of the process that `stat` is of.
    fn of(stat: Option<&File>) -> Self {
        let parent = || stat.and_then(Stat::read).map(|stat| stat.parent);
        loop {
            let pid = parent().unwrap_or(0);
            let pidfd = if pid > 0 { process::pidfd_open(Pid::from_raw(pid)).ok() } else { None };
            let name = read_short(&format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
            // Another one by now, if that ended meanwhile; none if the process itself did.
            if parent().is_none_or(|now| now == pid) {
                return Self { pid, name, pidfd };
            }
        }
    }
}

impl std::fmt::Display for Reaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            0 => f.write_str("reaped by a process that /proc does not show"),
            pid => write!(f, "reaped by PID {pid} ({})", self.name.escape_debug()),
        }
    }
}

fn wait_for(polled: &mut [PollFd<'_>]) -> Result<()> {
    loop {
        match poll(polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).doing(|| "wait for the container's process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_found_behind_any_command_name() {
        let fields =
            "0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0";
        for (text, expected) in [
            (format!("7 (a) Z 1) Z 42 7 7 {fields} 1792\n"), Some((true, 42, 1792))),
            (format!("7 (sh) S 1 7 7 {fields} 0\n"), Some((false, 1, 0))),
            ("7 (sh) S 1 7 7".into(), None),
            (String::new(), None),
        ] {
            let found = Stat::parse(&text).map(|stat| (stat.is_zombie, stat.parent, stat.status));
            assert_eq!(found, expected, "{text}");
        }
    }
}
