//! [init] The process of `exec`: the shorter list of steps, inside the container from its first instruction.

use std::convert::Infallible;
use std::os::fd::{BorrowedFd, RawFd};

use nix::unistd::Pid;

use super::init::{EXECUTE, WAIT_FOR_START};
use super::message::{Answer, Ask, ChildEnd};
use super::process::{self as common, FilterTime};
use super::program;
use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::plan::{Personality, Process, Seccomp};
use crate::security::users::UserSpec;
use crate::signals;
use crate::sys::{process, scheduling};
use crate::timings::{self, Laps};

/// What exec decides before the clone; the processes that it makes have their own copies.
pub struct Exec<'c> {
    pub id: &'c str,
    pub process: Process,
    /// Names to be looked up in the container; ids are in `process` already.
    pub user: Option<UserSpec>,
    pub personality: Option<Personality>,
    pub seccomp: Option<&'c Seccomp>,
    /// CLONE_NEW* bits of what the container has of its own.
    pub namespaces: u64,
    /// `--no-new-keyring` of create.
    pub no_new_keyring: bool,
    /// The parent has no privilege over it while it is not dumpable.
    pub is_hidden: bool,
    /// The caller lacks root's privileges.
    pub rootless: bool,
    pub cgroup: &'c cgroup::Entry,
    pub last_capability: u8,
    pub preserved: u32,
    pub first_own: RawFd,
    /// The parent is told how long each step took.
    pub is_timed: bool,
}

impl Exec<'_> {
    /// [stage] What must happen outside of the container: its cgroups, which are files of the host.
    pub fn before_joining(&self) -> Result<()> {
        process::set_parent_death_signal(libc::SIGKILL).doing(|| "ask for a signal at the parent's death")?;
        signals::reset()?;
        if self.is_hidden && self.process.oom_score_adj.is_some() {
            self.set_oom_score_adj_hidden()?;
        }
        if let Some(cpus) = &self.process.exec_cpu_affinity.initial {
            set_affinity(cpus).property(|| "process.execCPUAffinity.initial")?;
        }
        self.cgroup.join()
    }

    /// oom_score_adj, which the container's process inherits: of who is not dumpable the file belongs to root (proc(5)). For this
    /// the stage may be looked into, as its parent was: by nobody in the container, as long as it has joined nothing of it
    /// (ptrace(2): what counts is the user namespace that it is still in).
    fn set_oom_score_adj_hidden(&self) -> Result<()> {
        process::set_dumpable(true).doing(|| "become dumpable")?;
        super::parent::set_oom_score_adj(nix::unistd::getpid(), self.process.oom_score_adj, self.rootless)?;
        process::set_dumpable(false).doing(|| "become undumpable")
    }

    pub fn close_foreign_descriptors(&self, kept: &[BorrowedFd<'_>]) -> Result<()> {
        common::close_all_but(self.first_own, kept)
    }
}

/// Executes the program; ends the process if that fails.
pub fn run(exec: &mut Exec<'_>, parent: ChildEnd) -> ! {
    let mut is_filtered = false;
    let Err(error) = set_up_and_execute(exec, &parent, &mut is_filtered);
    let error = if is_filtered { common::behind_filter(error) } else { error };
    // A parent that is gone has nobody to tell.
    let _ = parent.tell(&Ask::Failed(error.encode()));
    process::exit_now(1)
}

/// As init's steps, in the same order.
fn set_up_and_execute(exec: &mut Exec<'_>, parent: &ChildEnd, is_filtered: &mut bool) -> Result<Infallible> {
    let mut laps = Laps::begin(timings::Process::Container, exec.is_timed);
    process::set_parent_death_signal(libc::SIGKILL).doing(|| "ask for a signal at the parent's death")?;
    common::start_session()?;
    if let Some(names) = &exec.user {
        let found = names.resolve()?;
        let user = &mut exec.process.user;
        (user.uid, user.gid) = (found.uid, found.gid);
        user.additional_gids.extend(found.groups);
    }
    laps.lap("start a session and find the user");
    if !exec.no_new_keyring {
        // Its own keyring: neither the caller's nor, by an inherited one, more than the container's processes share.
        common::make_keyring(exec.id, Some(&exec.process))?;
    }
    laps.lap("make a session keyring");
    if exec.process.terminal {
        common::open_terminal(&exec.process, parent)?;
    }
    laps.lap("open the terminal");
    set_final_affinity(&exec.process)?;
    common::set_priorities(&exec.process)?;
    common::set_personality(exec.personality)?;
    common::set_labels(&exec.process)?;
    laps.lap("set priorities, personality and labels");
    common::set_rlimits(&exec.process, exec.namespaces & libc::CLONE_NEWUSER as u64 != 0, parent)?;
    laps.lap("set rlimits");
    let is_in_cwd = common::enter_cwd_early(&exec.process)?;
    laps.lap("enter the working directory");
    let filter_time = exec.seccomp.map(|filter| FilterTime::of(filter, &exec.process));
    let is_hidden = exec.is_hidden;
    let mut load_at = |time: FilterTime| -> Result<()> {
        match exec.seccomp {
            Some(filter) if filter_time == Some(time) => {
                common::load_seccomp_with_listener(filter, parent, is_hidden)?;
                *is_filtered = true;
                Ok(())
            }
            _ => Ok(()),
        }
    };
    load_at(FilterTime::BeforeUser)?;
    // Behind a filter the clock is not read any more: that may be a system call, and one that is forbidden.
    let mut lap_unfiltered = |name| match filter_time {
        Some(FilterTime::BeforeUser) => {}
        _ => laps.lap(name),
    };
    common::become_user(&exec.process, exec.last_capability, is_in_cwd, filter_time, parent)?;
    common::set_umask(&exec.process.user);
    common::set_home(&mut exec.process);
    if exec.process.no_new_privileges {
        process::set_no_new_privileges().property(|| "process.noNewPrivileges").doing(|| "set no_new_privs")?;
    }
    lap_unfiltered("become the user");
    let program = program::find(&exec.process)?;
    lap_unfiltered("find the program");
    load_at(FilterTime::BeforeReady)?;
    let unfinished = is_filtered.then_some("load the seccomp filter, and what follows it");
    if let Some(steps) = laps.told(unfinished) {
        parent.tell(&Ask::Times(steps))?;
    }
    if *is_filtered {
        laps = Laps::OFF;
    }
    // From here on end of file tells that the parent died; a detached exec's ends as soon as it has answered.
    process::set_parent_death_signal(0).doing(|| "ask for no signal at the parent's death")?;
    parent.tell(&Ask::Ready)?;
    common::expect(parent, Answer::Start)?;
    laps.lap(WAIT_FOR_START);
    common::keep_descriptors(exec.preserved)?;
    if let Some(steps) = laps.told(Some(EXECUTE)) {
        parent.tell(&Ask::Times(steps))?;
    }
    parent.tell(&Ask::Executing)?;
    if let Some(filter) = exec.seccomp.filter(|_| filter_time.is_some_and(FilterTime::is_last)) {
        common::load_seccomp(filter, None)?;
    }
    common::execute(&exec.process, &program, exec.seccomp.is_some())
}

fn set_final_affinity(process: &Process) -> Result<()> {
    match (&process.exec_cpu_affinity.r#final, &process.exec_cpu_affinity.initial) {
        (Some(cpus), _) => set_affinity(cpus).property(|| "process.execCPUAffinity.final"),
        (None, Some(_)) => Ok(()),
        // As runc: a runtime that was pinned to some CPUs does not pin what it executes.
        (None, None) => {
            scheduling::reset_affinity();
            Ok(())
        }
    }
}

fn set_affinity(cpus: &[u32]) -> Result<()> {
    let highest = cpus.iter().max().ok_or_else(|| Error::other("no CPU is named"))?;
    let mut mask = vec![0u64; *highest as usize / 64 + 1];
    for cpu in cpus {
        mask[*cpu as usize / 64] |= 1 << (cpu % 64);
    }
    scheduling::sched_setaffinity(Pid::from_raw(0), &mask).doing(|| "set the CPU affinity")
}
