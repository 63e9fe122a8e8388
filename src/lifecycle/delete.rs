//! [parent] delete: ends what still runs where that is asked for, then removes all that create made.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::{SIGKILL, SIGTERM};

use super::{Runtime, wait};
use crate::cli;
use crate::error::{Error, Kind, Result};
use crate::hooks;
use crate::rootfs;
use crate::signals::Signals;
use crate::state::{self, Directory, Locked, State, Status};

/// How long create may take to undo what it did, after SIGTERM.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long another command may hold a container after everything was done to end that.
const TAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Deletes a stopped or created container; a running one only with `--force`.
pub fn delete(runtime: &Runtime, options: &cli::Delete) -> Result<()> {
    if options.regex {
        return runtime.for_each_matching(&options.id, |id| one(runtime, id, options.force));
    }
    one(runtime, &options.id, options.force)
}

fn one(runtime: &Runtime, id: &str, force: bool) -> Result<()> {
    let locked = match force {
        false => Locked::open(&runtime.root, id)?,
        true => match take(runtime, id)? {
            Some(locked) => locked,
            // As runc and crun: what is not there need not be deleted.
            None => return Ok(()),
        },
    };
    let Some(state) = locked.load()? else {
        // Its maker was killed before it made anything else.
        return locked.remove_unrecorded();
    };
    // This process holds the lock: whoever was creating is gone.
    let status = match state.status(&runtime.root)? {
        Status::Creating => Status::Stopped,
        status => status,
    };
    if matches!(status, Status::Running | Status::Paused) && !force {
        return Err(Error::state(format!("cannot delete container {id:?} that is not stopped: {}", status.word()))
            .hint("stop it first, or delete --force"));
    }
    remove(locked, &state, || wait::tell(runtime, &state, status != Status::Stopped))
}

/// Deletes the container that `own` describes, running or not, unless somebody else did or does.
pub fn destroy(runtime: &Runtime, own: &State) -> Result<()> {
    let locked = match Locked::open(&runtime.root, &own.id) {
        Err(error) if error.kind() == Kind::State => return Ok(()),
        other => other?,
    };
    destroy_locked(locked, own, || ())
}

/// The same for who holds the directory with its id; `tell` is called before its cgroup goes.
pub fn destroy_locked(locked: Locked, own: &State, tell: impl FnOnce()) -> Result<()> {
    match locked.load()? {
        // By now the id may be another container's.
        Some(state) if state.is_same(own) => remove(locked, &state, tell),
        _ => Ok(()),
    }
}

/// Holds container `id`, whoever else works on it: a create is told to undo what it did, whoever waits for the container's
/// process sees its end. Other deletions are left to finish: what is waited for is the lock. `None` if there is no such
/// container, or not any more.
fn take(runtime: &Runtime, id: &str) -> Result<Option<Locked>> {
    let directory = match Directory::open(&runtime.root, id) {
        Err(error) if error.kind() == Kind::State => return Ok(None),
        other => other?,
    };
    let begin = Instant::now();
    let mut told: Option<Instant> = None;
    loop {
        match directory.try_lock() {
            Ok(true) => return Ok(Some(Locked::of(directory))),
            Ok(false) => {}
            // Undone by its maker, or deleted; a later one with the name is not the one that was asked for.
            Err(e) if e.errno() == Some(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        }
        match directory.load()? {
            Some(state) if state.creating => match told {
                None => {
                    directory.signal_maker(state.maker, SIGTERM)?;
                    told = Some(Instant::now());
                }
                Some(told) if told.elapsed() > UNDO_TIMEOUT => directory.signal_maker(state.maker, SIGKILL)?,
                Some(_) => {}
            },
            Some(state) => end(&state)?,
            // A create in its first moment.
            None => {}
        }
        if begin.elapsed() > TAKE_TIMEOUT {
            return Err(Error::other(format!("another command holds container {id:?}"))
                .hint("/proc/locks tells which process: end it"));
        }
        state::pause_for_lock();
    }
}

/// Ends the container and removes all that create made; the rest of the poststop hooks runs when it is gone. `tell` is called
/// between, while its cgroup's counters are there.
fn remove(locked: Locked, state: &State, tell: impl FnOnce()) -> Result<()> {
    // Half a deletion would lose the poststop hooks: it is finished, whoever wants to end it.
    let signals = Signals::hold_terminating()?;
    end(state)?;
    tell();
    if let Some(before) = state.host_mount {
        rootfs::take_away(&state.rootfs, before)?;
    }
    state.cgroup.remove()?;
    // While the directory has its number: a later one may get that, and links that are called so.
    state.leave_store();
    locked.remove()?;
    // What came meanwhile wanted an end of what is done now.
    while signals.next()?.is_some() {}
    hooks::run_all(&state.poststop, &state.to_oci(Status::Stopped)?, Some(&signals));
    Ok(())
}

/// Ends every process of the container and waits for the first one's end.
fn end(state: &State) -> Result<()> {
    // Of cgroups that the container itself froze below its own, or that a pause froze meanwhile.
    let thaw = || state.cgroup.thaw_all();
    let help = || thaw().and_then(|()| state.cgroup.check_thawed_above());
    let target = match state.open_process() {
        Ok(target) => Some(target),
        Err(error) if error.kind() == Kind::State => None,
        // It may run all the same.
        Err(error) => return Err(error),
    };
    if let Some(target) = target {
        match target.signal(SIGKILL) {
            // It has just ended.
            Err(error) if error.errno() == Some(Errno::ESRCH) => {}
            other => other?,
        }
        if state.cgroup.is_frozen()? {
            // A frozen cgroup v1 delivers nothing, not even this.
            thaw()?;
        }
        if state.has_own_pid_namespace() {
            return target.wait_end(help);
        }
        if !state.cgroup.has_cgroup() {
            log::warn!(
                "other processes of container {:?} may live on: it has no cgroup that tells which they are",
                state.id
            );
        }
        state.cgroup.signal_all(SIGKILL)?;
        return target.wait_end(help);
    }
    // The first process is gone; in a shared PID namespace others of the cgroup live on.
    if !state.has_own_pid_namespace() || state.creating {
        state.cgroup.signal_all(SIGKILL)?;
    }
    Ok(())
}
