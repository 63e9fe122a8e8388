//! What is done to the processes of a cgroup: freezing, signals, waiting until they are gone.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::files::{self, Step};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::{kill, pidfd_open, pidfd_send_signal};

/// A freezer that takes longer than this has a process in it that cannot be stopped (state D).
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets cgroup.freeze of a v2 cgroup and waits for cgroup.events to say that it is so.
pub fn freeze_v2(path: &Path, frozen: bool) -> Result<()> {
    files::write(&path.join("cgroup.freeze"), if frozen { "1" } else { "0" })
        .doing(|| format!("write to {}", path.join("cgroup.freeze").display()))?;
    // A thawed cgroup below a frozen one stays frozen, and that is not ours to wait for.
    if frozen { wait_frozen_v2(path, FREEZE_TIMEOUT) } else { Ok(()) }
}

fn wait_frozen_v2(path: &Path, timeout: Duration) -> Result<()> {
    if !wait_for_event(path, "frozen 1", timeout)? {
        // A pause that failed leaves nothing paused.
        files::write(&path.join("cgroup.freeze"), "0").doing(|| format!("thaw {}", path.display()))?;
        let error = Error::new(Kind::System(Errno::ETIMEDOUT), "some processes cannot be stopped now");
        return Err(error).doing(|| format!("freeze {}", path.display()));
    }
    Ok(())
}

/// Waits until cgroup.events of a v2 cgroup has `line`; `false` if it has not after `timeout`. A cgroup that is gone has
/// every event behind it.
pub fn wait_for_event(path: &Path, line: &str, timeout: Duration) -> Result<bool> {
    let deadline = Instant::now() + timeout;
    let path = path.join("cgroup.events");
    let doing = || format!("watch {}", path.display());
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        other => other.doing(doing)?,
    };
    let mut buffer = [0; 256];
    loop {
        // Reading also arms the next notification (kernfs_notify).
        let length = match file.read_at(&mut buffer, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(true),
            other => other.doing(doing)?,
        };
        if buffer[..length].split(|byte| *byte == b'\n').any(|found| found == line.as_bytes()) {
            return Ok(true);
        }
        if !wait(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], deadline).doing(doing)? {
            return Ok(false);
        }
    }
}

/// Waits for an event or the deadline; `false` is the deadline.
fn wait(fds: &mut [PollFd<'_>], deadline: Instant) -> nix::Result<bool> {
    loop {
        // Rounded up: a wait of 0 ms would spin.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(fds, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether what is born in an empty v2 cgroup is frozen at once: it is frozen itself, or one above it.
pub fn freezes_newcomers_v2(path: &Path) -> Result<bool> {
    let path = path.join("cgroup.events");
    let events = files::read(&path).doing(|| format!("read {}", path.display()))?;
    Ok(events.lines().any(|line| line == "frozen 1"))
}

/// Sets freezer.state of a v1 cgroup to THAWED.
pub fn thaw_v1(path: &Path) -> Result<()> {
    let path = path.join("freezer.state");
    files::write(&path, "THAWED").doing(|| format!("write THAWED to {}", path.display()))
}

/// Sets freezer.state of a v1 cgroup and of all below it to THAWED: each has one of its own, and a container that may make
/// cgroups can freeze some.
pub fn thaw_tree_v1(path: &Path) -> Result<()> {
    let thawed = files::walk(path, &mut |step| match step {
        Step::Into(directory) => directory.write("freezer.state", "THAWED"),
        Step::OutOf { .. } => Ok(()),
    });
    thawed.doing(|| format!("thaw {}", path.display()))
}

/// Sets freezer.state of a v1 cgroup to FROZEN and waits for it to be so.
///
/// # Errors
/// A state error if process `watched` is being killed; the cgroup is thawed then.
pub fn freeze_v1(path: &Path, watched: Option<i32>) -> Result<()> {
    let path = path.join("freezer.state");
    let set = |state: &str| files::write(&path, state).doing(|| format!("write {state} to {}", path.display()));
    set("FROZEN")?;
    // This freezer sends no event: it is read until it says FROZEN, at longer and longer intervals.
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    let mut pause = Duration::from_micros(50);
    loop {
        let is_frozen = files::read(&path).doing(|| format!("read {}", path.display()))? == "FROZEN";
        // Frozen it would never end. Whoever sends SIGKILL thaws afterwards: what was sent before the last FROZEN is seen
        // here, and what is sent later is followed by a thaw that is later, too.
        if watched.is_some_and(is_killed) {
            set("THAWED")?;
            return Err(Error::state("container not running, it is being killed"));
        }
        if is_frozen {
            return Ok(());
        }
        if Instant::now() >= deadline {
            set("THAWED")?;
            return Err(Error::new(Kind::System(Errno::ETIMEDOUT), "some processes cannot be stopped now"))
                .doing(|| format!("freeze {}", path.display()));
        }
        wait_without_event(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
        // What joined or was born meanwhile is caught by asking again (cgroup-v1/freezer-subsystem.rst).
        set("FROZEN")?;
    }
}

/// Whether process `pid` has a SIGKILL before it, or is gone: fields SigPnd and ShdPnd of proc(5)'s status.
fn is_killed(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| has_sigkill(&status))
}

fn has_sigkill(status: &str) -> bool {
    let pending = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|mask| mask & 1 << (libc::SIGKILL - 1) != 0)
}

/// For states of v1 that the kernel announces to nobody.
fn wait_without_event(time: Duration) {
    std::thread::sleep(time);
}

/// freezer.state of a v1 cgroup; one below a frozen cgroup is frozen too.
pub fn is_frozen_v1(path: &Path) -> Result<bool> {
    let path = path.join("freezer.state");
    Ok(files::read(&path).doing(|| format!("read {}", path.display()))? != "THAWED")
}

/// The nearest cgroup above the v1 cgroup at `path` that is frozen itself, which keeps `path` frozen whatever is written there.
pub fn frozen_above_v1<'p>(path: &'p Path, mount_point: &Path) -> Option<&'p Path> {
    // cgroup-v1/freezer-subsystem.rst; what is gone is not frozen.
    let is_set = |path: &Path, file: &str| files::read(&path.join(file)).is_ok_and(|text| text == "1");
    if !is_set(path, "freezer.parent_freezing") {
        return None;
    }
    path.ancestors()
        .skip(1)
        .take_while(|above| *above != mount_point)
        .find(|above| is_set(above, "freezer.self_freezing"))
}

/// Sends SIGKILL to everything in a v2 cgroup and below, in one step that no fork escapes (since 5.14).
///
/// # Errors
/// `ENOENT` before 5.14 and for a cgroup that is gone.
pub fn kill_v2(path: &Path) -> nix::Result<()> {
    let error = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    files::write(&path.join("cgroup.kill"), "1").map_err(error)
}

/// Descriptors open at one time: far below any limit (RLIMIT_NOFILE is often 1024).
const BATCH: usize = 256;

/// Sends `signal` once to every process in the cgroup at `path` and below, and to those that they make meanwhile. Gives
/// whether the end was reached: `false` if after `rounds` there were still new ones.
pub fn signal_each(path: &Path, signal: i32, signalled: &mut BTreeSet<i32>, rounds: u32) -> Result<bool> {
    let list = || files::processes_below(path).doing(|| format!("list the processes of {}", path.display()));
    for _ in 0..rounds {
        let new: Vec<i32> = list()?.into_iter().filter(|pid| !signalled.contains(pid)).collect();
        if new.is_empty() {
            return Ok(true);
        }
        for batch in new.chunks(BATCH) {
            let mut open = Vec::new();
            for pid in batch {
                match pidfd_open(Pid::from_raw(*pid)) {
                    Ok(pidfd) => open.push((*pid, Some(pidfd))),
                    // Hidden by a filter, or a kernel before 5.3.
                    Err(Errno::ENOSYS) => open.push((*pid, None)),
                    // Gone (and reaped), or a thread that leads no process any more.
                    Err(Errno::ESRCH | Errno::EINVAL) => {}
                    Err(errno) => return Err(errno).doing(|| format!("open process {pid}")),
                }
            }
            // A process that ended before its descriptor was opened may have left its number to a stranger; what is still
            // listed now is what the descriptor stands for.
            let still: BTreeSet<i32> = list()?.into_iter().collect();
            for (pid, pidfd) in open.iter().filter(|(pid, _)| still.contains(pid)) {
                let sent = match pidfd {
                    Some(pidfd) => pidfd_send_signal(pidfd.as_fd(), signal),
                    None => kill(Pid::from_raw(*pid), signal),
                };
                match sent {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno).doing(|| format!("signal process {pid}")),
                }
            }
        }
        signalled.extend(new);
    }
    Ok(false)
}

/// Waits for the processes that are in the cgroup at `path` now to end, or for the deadline.
pub fn wait_for_processes(path: &Path, deadline: Instant) -> Result<()> {
    let pids = files::processes_below(path).doing(|| format!("list the processes of {}", path.display()))?;
    for pid in pids {
        let Ok(pidfd) = pidfd_open(Pid::from_raw(pid)) else { continue };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if !wait(&mut fds, deadline).doing(|| format!("wait for process {pid}"))? {
            return Ok(());
        }
    }
    // A process leaves its cgroup a moment after its end was announced, and nothing announces that.
    wait_without_event(Duration::from_micros(200));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process can be kept from freezing at will: files stand for the cgroup.
    #[test]
    fn v2_is_thawed_when_it_does_not_freeze_in_time() {
        let directory = std::env::temp_dir().join(format!("kelson-freeze-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("cgroup.freeze"), "1").unwrap();
        std::fs::write(directory.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let error = wait_frozen_v2(&directory, Duration::from_millis(1)).unwrap_err();
        let left = std::fs::read_to_string(directory.join("cgroup.freeze")).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((error.errno(), left.as_str()), (Some(Errno::ETIMEDOUT), "0"));
    }

    #[test]
    fn a_process_that_is_being_killed_is_known_by_its_pending_signals() {
        for (pending, expected) in [
            ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000", false),
            ("SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000", true),
            ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000102", true),
            ("SigPnd:\t0000000000004000\nShdPnd:\t0000000000000200", false),
        ] {
            let status = format!("Name:\tsleep\nSigQ:\t0/100\n{pending}\nSigBlk:\t0000000000000100\n");
            assert_eq!(has_sigkill(&status), expected, "{pending}");
        }
    }
}
