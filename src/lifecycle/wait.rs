//! [parent] wait: how a container ended that another process waits for. And the record of it, which is made by whoever looks
//! first, because nothing of Kelson stays: a foreground run, wait, state and delete.

use nix::errno::Errno;
use nix::libc::{SIGKILL, SIGSYS};
use nix::unistd::Pid;
use serde::Serialize;

use super::Runtime;
use super::watch::Watched;
use crate::cgroup::memory_events::Counted;
use crate::ended::{Ended, Exit, Forbidden, Shown};
use crate::error::{Error, Result};
use crate::log::warn_caller;
use crate::security::seccomp;
use crate::state::{self, Locked, State, Status};
use crate::sys::kernel_log;

/// Waits for the end of a container, also of one that is not started yet. Gives what to print, and the exit code: 0, or 1 if
/// how it ended cannot be known.
pub fn wait(runtime: &Runtime, id: &str, json: bool) -> Result<(String, u8)> {
    #[derive(Serialize)]
    struct Told<'e> {
        id: &'e str,
        #[serde(flatten)]
        ended: Shown<'e>,
    }
    let state = runtime.load(id)?;
    let process = state.open_unreaped().map_err(|error| match error.errno() {
        Some(Errno::ENOSYS | Errno::EPERM) => {
            error.hint("pidfd_open(2) is missing (before Linux 5.3), or a filter hides it")
        }
        _ => error,
    })?;
    let ended = match process {
        Some(pidfd) => {
            let mut kills = state.cgroup.watch_kills();
            let ended = Watched::new(Pid::from_raw(state.pid), pidfd).wait(&mut kills)?;
            record(runtime, &state, explain(runtime, &state, ended, kills.into_counted()))
        }
        None if state.status(&runtime.root)? == Status::Creating => {
            return Err(Error::state(format!("container {id:?} is being created")).hint("wait for create first"));
        }
        None => of_stopped(runtime, &state)?,
    };
    let text = match (json, ended.exit) {
        (true, _) => {
            serde_json::to_string(&Told { id, ended: ended.shown() }).map_err(|e| Error::other(e.to_string()))?
        }
        (false, Some(exit)) => exit.code().to_string(),
        (false, None) => format!("unknown: {}", ended.unknown.as_deref().unwrap_or_default()),
    };
    Ok((text + "\n", u8::from(ended.exit.is_none())))
}

/// How a container that has stopped ended, as the record has it or as can be found out now, which is recorded.
///
/// # Errors
/// What keeps its process from being looked at.
pub fn of_stopped(runtime: &Runtime, state: &State) -> Result<Ended> {
    match &state.ended {
        Some(ended) if ended.exit.is_some() => Ok(ended.clone()),
        _ => Ok(record(runtime, state, look(runtime, state)?)),
    }
}

/// Tells why the container of a foreground run ended, and records it if that stays; `counted` is from before its end.
pub fn after_run(runtime: &Runtime, state: &State, exit: Exit, counted: Option<Counted>, stays: bool) {
    if exit == Exit::Code(0) && !stays {
        return;
    }
    let ended = explain(runtime, state, Ended::known(exit), counted);
    if ended.is_killed_for_memory() {
        // The exit code is 137 and says nothing of it.
        warn_caller(&line(state, &ended));
    } else if ended.memory.is_some() {
        log::warn!("{}", line(state, &ended));
    }
    if stays {
        record(runtime, state, ended);
    }
}

/// Logs why a container ended that is being deleted: a warning where processes of it were killed for memory. Reads a small file
/// or two if none were, and nobody wants to know of other ends.
pub fn tell(runtime: &Runtime, state: &State, was_running: bool) {
    let wants_all = log::log_enabled!(log::Level::Info);
    let is_known = state.ended.as_ref().is_some_and(|ended| ended.memory.is_some());
    if !wants_all && !is_known && !state.cgroup.may_be_out_of_memory() {
        return;
    }
    // The SIGKILL of its process is the deletion's: what was killed before is asked for without it.
    let found = if was_running { Ok(explain(runtime, state, Ended::default(), None)) } else { look(runtime, state) };
    match found {
        Ok(ended) => {
            let ended = ended.after(state.ended.clone());
            let reason = if was_running { ended.reason_of_deletion() } else { ended.reason() };
            let level = if ended.memory.is_some() { log::Level::Warn } else { log::Level::Info };
            log::log!(level, "container {:?}: {reason}", state.id);
        }
        Err(error) => log::debug!("{error}"),
    }
}

fn line(state: &State, ended: &Ended) -> String {
    format!("container {:?}: {}", state.id, ended.reason())
}

/// What can be found out of a container that has stopped.
fn look(runtime: &Runtime, state: &State) -> Result<Ended> {
    let ended = match state.open_unreaped() {
        Ok(Some(pidfd)) => Watched::new(Pid::from_raw(state.pid), pidfd).glance(),
        // Hidden by a filter: the counters tell all the same.
        Err(error) if !matches!(error.errno(), Some(Errno::ENOSYS | Errno::EPERM)) => return Err(error),
        Ok(None) | Err(_) => Ended::unknown("reaped before Kelson looked".into()),
    };
    Ok(explain(runtime, state, ended, None))
}

/// Adds why it ended.
fn explain(runtime: &Runtime, state: &State, mut ended: Ended, counted: Option<Counted>) -> Ended {
    // Kills that may be of a container beside it explain a SIGKILL and nothing else.
    let counted = counted.filter(|counted| counted.is_own() || ended.exit == Some(Exit::Signal(SIGKILL)));
    ended.memory = state.cgroup.out_of_memory(state.pid, counted);
    if ended.exit == Some(Exit::Signal(SIGSYS)) {
        ended.seccomp = forbidden(runtime, state);
    }
    ended
}

/// Who ends by SIGSYS under a seccomp profile has made a system call that the profile forbids.
fn forbidden(runtime: &Runtime, state: &State) -> Option<Forbidden> {
    let config: serde_json::Value = serde_json::from_str(&state::config(&runtime.root, &state.id).ok()?).ok()?;
    config.pointer("/linux/seccomp").filter(|profile| !profile.is_null())?;
    // For root alone, as a rule; and not where a daemon takes the kernel's audit messages (auditd(8)).
    let log = kernel_log::messages(&["audit: type=1326 "]).unwrap_or_default();
    Some(Forbidden { call: log.iter().rev().find_map(|message| forbidden_call(message, state.pid)) })
}

/// The system call for which process `pid` got a SIGSYS, if `message` tells of that (kernel/auditsc.c `audit_seccomp`):
/// `… pid=7 comm="sh" exe="/bin/sh" sig=31 arch=c000003e syscall=165 compat=0 …`.
fn forbidden_call(message: &str, pid: i32) -> Option<String> {
    let field = |name: &str| message.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let is_it = field("pid")?.parse() == Ok(pid) && field("sig")?.parse() == Ok(SIGSYS);
    let number: u32 = field("syscall").filter(|_| is_it)?.parse().ok()?;
    let arch = u32::from_str_radix(field("arch")?, 16).ok()?;
    Some(seccomp::name(number, arch).map_or_else(|| number.to_string(), str::to_owned))
}

/// Adds `ended` to the container's record, and gives all that is known. What was learnt counts more than that it is kept.
fn record(runtime: &Runtime, state: &State, ended: Ended) -> Ended {
    let recorded = Locked::open(&runtime.root, &state.id).and_then(|locked| {
        // By now the id may be another container's.
        let Some(mut current) = locked.load()?.filter(|current| current.is_same(state)) else { return Ok(None) };
        let all = ended.clone().after(current.ended.take());
        current.ended = Some(all.clone());
        locked.save(&current).map(|()| Some(all))
    });
    match recorded {
        Ok(recorded) => recorded.unwrap_or(ended),
        Err(error) => {
            log::debug!("record the end of container {:?}: {error}", state.id);
            ended
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forbidden_call_is_read_from_the_kernels_line() {
        let line = |pid: i32, sig: i32, call: i32| {
            format!(
                "audit: type=1326 audit(1795747250.357:2960): auid=4294967295 uid=0 gid=0 ses=4294967295 pid={pid} \
                 comm=\"guest\" exe=\"/bin/guest\" sig={sig} arch=c000003e syscall={call} compat=0 ip=0x309639 \
                 code=0x80000000"
            )
        };
        for (message, call) in [
            (line(7, 31, 165), Some("mount")),
            (line(7, 31, 9999), Some("9999")),
            // Another process; one that was only logged.
            (line(77, 31, 165), None),
            (line(7, 0, 165), None),
            (String::new(), None),
        ] {
            assert_eq!(forbidden_call(&message, 7).as_deref(), call, "{message}");
        }
    }
}
