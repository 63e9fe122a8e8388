//! [parent] Makes the container's process, serves what it asks, and owns it until it is kept.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, pipe2, read, write};

use super::message::{self, Answer, Ask, ParentEnd};
use super::{exec, init, stage};
use crate::cgroup::{self, systemd::Door};
use crate::error::{Context, Error, Result};
use crate::plan::{IdMapping, IdMaps, Rlimit};
use crate::signals::Signals;
use crate::sys::process::{self, CloneArgs, Forked, SingleThreaded};
use crate::timings::{self, Heard};

/// The container's process while it is set up: dropping it kills and reaps it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    socket: ParentEnd,
    /// The process in between, until the container's process is born.
    stage: Option<Stage>,
    owned: bool,
    /// How long its steps took, and the stage's.
    heard: Heard,
}

#[derive(Debug)]
struct Stage {
    pid: Pid,
    pidfd: OwnedFd,
}

/// What is left to do about it that namespaces may not be made.
pub const NEEDS_USER_NAMESPACE: &str =
    "without root a container needs a user namespace with mappings: see kelson spec --rootless";

/// Makes the process of create and run.
pub fn spawn(setup: &mut init::Setup<'_>) -> Result<Child> {
    let (socket, child_end) = message::pair().doing(|| "make a socket pair")?;
    let single = SingleThreaded::prove().doing(|| "make sure of a single thread")?;
    let mut has_stage = stage::is_needed(setup.plan);
    let flags = if has_stage { 0 } else { stage::clone_flags(setup.plan) };
    let mut born = clone_into(&single, flags, &setup.cgroup);
    if let Some(door) = door_of(&born, &setup.cgroup) {
        // What is moved is a stage, so that the container's process is born inside all the same.
        has_stage = true;
        born = clone_through(&single, door);
    }
    let born = match born {
        Err(error) if error.errno() == Some(Errno::EPERM) && !nix::unistd::geteuid().is_root() => {
            Err(error.hint(NEEDS_USER_NAMESPACE))
        }
        other => other,
    };
    match born.property(|| "linux.namespaces").doing(|| "make the container's process")? {
        Forked::Child if has_stage => stage::run(setup, child_end),
        Forked::Child => init::run(setup, child_end),
        Forked::Parent { pid, pidfd } if has_stage => Ok(Child::to_be_made_by(Stage { pid, pidfd }, socket)),
        Forked::Parent { pid, pidfd } => {
            Ok(Child { pid, pidfd: Some(pidfd), socket, stage: None, owned: true, heard: Heard::default() })
        }
    }
}

/// A child that is born in its cgroup v2, or moves there first thing where clone3(2) cannot do it.
fn clone_into(single: &SingleThreaded, flags: u64, cgroup: &cgroup::Entry) -> Result<Forked> {
    let args = CloneArgs { flags, cgroup: cgroup.into.as_ref().map(AsFd::as_fd) };
    let forked = match process::clone(single, &args) {
        Err(Errno::ENOSYS | Errno::EPERM) if args.cgroup.is_some() => {
            process::clone(single, &CloneArgs { flags, cgroup: None })?
        }
        other => return Ok(other?),
    };
    if matches!(forked, Forked::Child)
        && let Err(_error) = cgroup.join_unborn()
    {
        // Not even the socket is told: its end of file is.
        process::exit_now(1);
    }
    Ok(forked)
}

/// The door that is left where this process may not put another one into the cgroup.
fn door_of<'e>(born: &Result<Forked>, cgroup: &'e cgroup::Entry) -> Option<&'e Door> {
    let is_refused = born.as_ref().is_err_and(|error| error.errno() == Some(Errno::EACCES));
    cgroup.door.as_ref().filter(|_| is_refused)
}

/// A child that systemd moves into its cgroup, and that goes on when it is there.
fn clone_through(single: &SingleThreaded, door: &Door) -> Result<Forked> {
    let (told, tell) = pipe2(OFlag::O_CLOEXEC).doing(|| "make a pipe")?;
    match process::clone(single, &CloneArgs::default())? {
        Forked::Child => {
            drop(tell);
            if read(&told, &mut [0]) != Ok(1) {
                process::exit_now(1);
            }
            Ok(Forked::Child)
        }
        Forked::Parent { pid, pidfd } => {
            let moved = door.pass(pid).and_then(|()| Ok(write(&tell, b"1").map(drop)?));
            if let Err(error) = moved {
                drop(tell);
                reap(pid);
                return Err(error);
            }
            Ok(Forked::Parent { pid, pidfd })
        }
    }
}

/// Makes the process of exec in the namespaces of `target`, which stays the caller's: it may try again.
///
/// # Errors
/// `EBUSY` if the container's cgroup v2 takes no processes: the container put them into cgroups below it.
pub fn spawn_exec(exec: &mut exec::Exec<'_>, target: &mut Option<stage::Target>) -> Result<Child> {
    let (socket, child_end) = message::pair().doing(|| "make a socket pair")?;
    let single = SingleThreaded::prove().doing(|| "make sure of a single thread")?;
    let mut born = clone_into(&single, 0, exec.cgroup);
    if let Some(door) = door_of(&born, exec.cgroup) {
        born = clone_through(&single, door);
    }
    match born.doing(|| "make the stage process")? {
        Forked::Child => stage::run_exec(exec, target.take(), child_end),
        Forked::Parent { pid, pidfd } => Ok(Child::to_be_made_by(Stage { pid, pidfd }, socket)),
    }
}

impl Child {
    fn to_be_made_by(stage: Stage, socket: ParentEnd) -> Self {
        Self { pid: stage.pid, pidfd: None, socket, stage: Some(stage), owned: true, heard: Heard::default() }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor for the container's process, once it is born.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    pub fn answer(&self, answer: Answer) -> Result<()> {
        self.answer_with(answer, &[])
    }

    /// How long its steps took, as far as it told.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// What it says next; how long its steps took is kept here.
    fn receive(&self) -> Result<Option<(Ask, Vec<OwnedFd>)>> {
        let said = self.socket.receive()?;
        match &said {
            Some((Ask::Times(steps), _)) => self.heard.add(steps, || timings::clock_ahead(self.pid.as_raw())),
            _ => self.heard.end_last(),
        }
        Ok(said)
    }

    /// Answers Done with descriptors of what the child mounts.
    pub fn give_mounts(&self, mounts: &[OwnedFd]) -> Result<()> {
        use std::os::fd::AsRawFd;
        let numbers: Vec<_> = mounts.iter().map(AsRawFd::as_raw_fd).collect();
        self.answer_with(Answer::Done, &numbers)
    }

    fn answer_with(&self, answer: Answer, fds: &[RawFd]) -> Result<()> {
        match self.socket.answer(answer, fds) {
            // It asked, and has died since.
            Err(error) if error.errno() == Some(Errno::EPIPE) => Err(self.ended_early()),
            other => other,
        }
    }

    /// Waits until the container's process is born: at once, unless there is a stage, whose ids `map_ids` maps.
    pub fn wait_for_birth(&mut self, signals: &Signals, map_ids: impl Fn(&Self) -> Result<()>) -> Result<()> {
        while let Some(stage) = &self.stage {
            signals.wait_one_readable(&[self.socket.as_fd(), stage.pidfd.as_fd()])?;
            if !self.socket.is_readable()? {
                // Killed when it had made the container's process and before it told: that one waits for an answer.
                return Err(self.ended_early());
            }
            match self.receive()? {
                Some((Ask::Born(pid), mut fds)) => {
                    let stage = self.stage.take();
                    self.pid = Pid::from_raw(pid);
                    self.pidfd = fds.pop();
                    self.answer(Answer::Done)?;
                    if let Some(stage) = stage {
                        reap(stage.pid);
                    }
                }
                Some((Ask::MapIds, _)) => map_ids(self)?,
                Some((Ask::Warn(text), _)) => log::warn!("{text}"),
                Some((Ask::Times(_), _)) => {}
                Some((Ask::Failed(error), _)) => return Err(Error::decode(&error)),
                Some((other, _)) => return Err(Error::other(format!("the stage process asked for {other:?}"))),
                None => return Err(self.ended_early()),
            }
        }
        Ok(())
    }

    /// Serves the child until it is ready: warnings are logged, failures end it, all else goes to `serve`.
    pub fn serve(
        &self,
        signals: &Signals,
        mut serve: impl FnMut(&Self, Ask, Vec<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        loop {
            signals.wait_readable(self.socket.as_fd())?;
            match self.receive()? {
                Some((Ask::Ready, _)) => return Ok(()),
                Some((Ask::Warn(text), _)) => log::warn!("{text}"),
                Some((Ask::Times(_), _)) => {}
                Some((Ask::Failed(error), _)) => return Err(Error::decode(&error)),
                Some((ask, fds)) => serve(self, ask, fds)?,
                None => return Err(self.ended_early()),
            }
        }
    }

    /// Waits for execve(2) of a child that was told to start.
    ///
    /// # Errors
    /// Why it failed; a terminating signal that comes first, as while a startContainer hook hangs.
    pub fn wait_for_execve(&self, signals: &Signals) -> Result<()> {
        let mut is_executing = false;
        loop {
            signals.wait_readable(self.socket.as_fd())?;
            match self.receive()? {
                None if is_executing => return Ok(()),
                None => return Err(self.ended_early()),
                Some((Ask::Executing, _)) => is_executing = true,
                Some((Ask::Failed(error), _)) => return Err(Error::decode(&error)),
                Some((Ask::Warn(text), _)) => log::warn!("{text}"),
                Some((Ask::Times(_), _)) => {}
                Some((other, _)) => return Err(Error::other(format!("the container process asked for {other:?}"))),
            }
        }
    }

    /// The process is not this program's any more: it stays.
    pub fn keep(mut self) -> (Pid, Option<OwnedFd>) {
        self.owned = false;
        (self.pid, self.pidfd.take())
    }

    /// The error for a child that ended without a word.
    pub fn ended_early(&self) -> Error {
        // It stays to be reaped: until then its PID is nobody else's, and may be killed.
        let ended = waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL);
        let how = match ended {
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => "was killed",
            Ok(WaitStatus::Signaled(_, Signal::SIGSYS, _)) => "was killed by its own seccomp filter",
            _ => "ended before it executed its program",
        };
        Error::other(format!("the container's process {how}"))
    }
}

/// It has something to read when the child asks for something, or has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if let Some(stage) = self.stage.take() {
            // What the stage made waits for an answer, and ends itself when there will be none.
            self.socket.hang_up();
            let _ = kill(stage.pid, Signal::SIGKILL);
            if reap_killed(stage.pid) {
                self.reap_born();
            }
            return;
        }
        // It is this process's child and not reaped, so the PID is its own.
        let _ = kill(self.pid, Signal::SIGKILL);
        reap_killed(self.pid);
    }
}

impl Child {
    /// A process that the stage made without telling: told later, or never.
    fn reap_born(&self) {
        while let Ok(Some((ask, _))) = self.socket.receive() {
            if let Ask::Born(pid) = ask {
                let pid = Pid::from_raw(pid);
                // A child of this process by CLONE_PARENT.
                let _ = kill(pid, Signal::SIGKILL);
                reap_killed(pid);
                return;
            }
        }
    }
}

/// Waits for the end of a child.
pub fn reap(pid: Pid) {
    // ECHILD: someone else's, or reaped already; there is nothing more to wait for.
    while waitpid(pid, Some(WaitPidFlag::__WALL)) == Err(Errno::EINTR) {}
}

/// How long a killed child may take to end.
const REAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits for the end of a child that was killed, and gives whether it came. In a frozen cgroup v1 it comes only when that is
/// thawed, and the child is then somebody else's to reap.
fn reap_killed(pid: Pid) -> bool {
    let deadline = Instant::now() + REAP_TIMEOUT;
    // Not reaped, so the PID is its own.
    let mut pidfd = process::pidfd_open(pid).ok();
    let mut pause = Duration::from_micros(100);
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < deadline => match pidfd.take() {
                Some(pidfd) => wait_for_end(&pidfd, REAP_TIMEOUT),
                // Where a filter hides pidfds, and until a tracer has looked at one that ended, nothing else tells.
                None => std::thread::sleep(pause),
            },
            Ok(WaitStatus::StillAlive) => {
                log::warn!("process {pid} was killed and does not end: it may be in a frozen cgroup");
                return false;
            }
            Err(Errno::EINTR) => {}
            // ECHILD: someone else's, or reaped already; there is nothing more to wait for.
            _ => return true,
        }
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Waits for the end of the process, or for `timeout`.
fn wait_for_end(pidfd: &OwnedFd, timeout: Duration) {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    // Interrupted or not: the caller looks again.
    let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout);
}

/// Writes uid_map and gid_map of `pid`: directly, or by newuidmap(1) and newgidmap(1) where the kernel asks for privilege.
pub fn map_ids(pid: Pid, maps: &IdMaps, rootless: bool) -> Result<()> {
    let uid = (Uids, maps.uid.as_slice());
    let gid = (Gids, maps.gid.as_slice());
    if denies_setgroups(maps, rootless) {
        deny_setgroups(pid)?;
    }
    write_map(pid, uid.0, uid.1, rootless)?;
    write_map(pid, gid.0, gid.1, rootless)
}

/// user_namespaces(7): without privilege a gid map needs setgroups denied first.
pub fn denies_setgroups(maps: &IdMaps, rootless: bool) -> bool {
    rootless && maps.gid.len() == 1 && maps.gid[0].size == 1
}

/// Warns if the user namespace of `pid`, which was joined, maps other ids than the config says: the namespace's count, but mounts
/// and users were planned with the config's.
pub fn compare_maps(pid: Pid, maps: &IdMaps) {
    for (kind, map) in [(Uids, &maps.uid), (Gids, &maps.gid)] {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/{}", kind.file())) else { continue };
        if !map.is_empty() && ranges(map.iter().map(|m| (m.container, m.host, m.size))) != ranges(parse_map(&text)) {
            let has = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            let has = has.collect::<Vec<_>>().join(", ");
            log::warn!("{}: the user namespace that is joined maps other ids ({has}), which are used", kind.property());
        }
    }
}

/// What uid_map or gid_map says: ids inside, ids as the reader sees them, and how many.
fn parse_map(text: &str) -> impl Iterator<Item = (u32, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map_while(|word| word.parse().ok());
        Some((numbers.next()?, numbers.next()?, numbers.next()?))
    })
}

/// Sorted, and joined where one goes on where another ends.
fn ranges(map: impl Iterator<Item = (u32, u32, u32)>) -> Vec<(u32, u32, u32)> {
    let mut sorted: Vec<_> = map.collect();
    sorted.sort_unstable();
    sorted.dedup_by(|next, last| {
        let goes_on = last.0.checked_add(last.2) == Some(next.0) && last.1.checked_add(last.2) == Some(next.1);
        if goes_on {
            last.2 += next.2;
        }
        goes_on
    });
    sorted
}

use MapKind::{Gids, Uids};

#[derive(Clone, Copy)]
enum MapKind {
    Uids,
    Gids,
}

impl MapKind {
    fn file(self) -> &'static str {
        match self {
            Uids => "uid_map",
            Gids => "gid_map",
        }
    }
    fn property(self) -> &'static str {
        match self {
            Uids => "linux.uidMappings",
            Gids => "linux.gidMappings",
        }
    }
    fn helper(self) -> &'static str {
        match self {
            Uids => "newuidmap",
            Gids => "newgidmap",
        }
    }
    fn ranges(self) -> &'static str {
        match self {
            Uids => "/etc/subuid",
            Gids => "/etc/subgid",
        }
    }
}

fn deny_setgroups(pid: Pid) -> Result<()> {
    match std::fs::write(format!("/proc/{pid}/setgroups"), "deny") {
        // Before 3.19 there was no such file, and no need for it.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.doing(|| "write \"deny\" to /proc/PID/setgroups"),
    }
}

/// Lines of a map as the kernel and newuidmap(1) take them.
pub fn map_text(map: &[IdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.size)).collect()
}

fn write_map(pid: Pid, kind: MapKind, map: &[IdMapping], rootless: bool) -> Result<()> {
    let path = format!("/proc/{pid}/{}", kind.file());
    let written = std::fs::write(&path, map_text(map)).map_err(Error::from);
    match written {
        Err(error) if rootless && error.errno() == Some(Errno::EPERM) => run_helper(pid, kind, map),
        other => other.property(|| kind.property()).doing(|| format!("write {}", kind.file())),
    }
}

fn run_helper(pid: Pid, kind: MapKind, map: &[IdMapping]) -> Result<()> {
    let helper = kind.helper();
    let numbers = map.iter().flat_map(|m| [m.container, m.host, m.size]).map(|n| n.to_string());
    let output = std::process::Command::new(helper).arg(pid.to_string()).args(numbers).output();
    let said = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::config(kind.property(), format!("{helper} not found"))
                .hint("install it: package uidmap on Debian, shadow-utils on Fedora"));
        }
        Err(e) => return Err(e).doing(|| format!("run {helper}")),
    };
    Err(Error::config(kind.property(), said))
        .doing(|| format!("run {helper}"))
        .hint(|| format!("does {} give this user the ids of the mapping?", kind.ranges()))
}

/// Sets rlimits of a process, 0 for this one, with this process's privilege.
pub fn set_rlimits(pid: Pid, rlimits: &[Rlimit]) -> Result<()> {
    for rlimit in rlimits {
        process::prlimit(pid, rlimit.resource, rlimit.soft, rlimit.hard)
            .property(|| format!("process.rlimits[{}]", rlimit.index))
            .doing(|| format!("set {} to {}:{}", rlimit.name, rlimit.soft, rlimit.hard))
            .hint(|| "raising a hard limit needs CAP_SYS_RESOURCE, and RLIMIT_NOFILE ends at fs.nr_open")?;
    }
    Ok(())
}

/// Sets oom_score_adj of the container's process, with this process's privilege.
pub fn set_oom_score_adj(pid: Pid, value: Option<i32>, rootless: bool) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    match std::fs::write(format!("/proc/{pid}/oom_score_adj"), value.to_string()) {
        // As runc: without privilege it cannot be lowered, and engines ask for it by default.
        Err(e) if rootless && matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(()),
        other => other
            .property(|| "process.oomScoreAdj")
            .doing(|| format!("write {value} to oom_score_adj"))
            .hint(|| "lowering it needs CAP_SYS_RESOURCE"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_compared_by_what_they_map() {
        let of_kernel = "         0     100000      65536\n     70000          0          1\n";
        assert_eq!(ranges(parse_map(of_kernel)), [(0, 100_000, 65_536), (70_000, 0, 1)]);
        let split = [(70_000, 0, 1), (1, 100_001, 65_535), (0, 100_000, 1)];
        assert_eq!(ranges(split.into_iter()), ranges(parse_map(of_kernel)));
        assert_ne!(ranges(split.into_iter()), ranges(parse_map("0 100000 65536\n")));
        // size 2^32 - 1 from 0 is the last that a map can hold.
        assert_eq!(ranges([(0, 0, u32::MAX)].into_iter()), [(0, 0, u32::MAX)]);
    }

    #[test]
    fn a_map_is_written_as_the_kernel_reads_it() {
        let map =
            [IdMapping { container: 0, host: 1000, size: 1 }, IdMapping { container: 1, host: 100_000, size: 65_536 }];
        assert_eq!(map_text(&map), "0 1000 1\n1 100000 65536\n");
    }
}
