//! [parent] delete: ends what still runs where that is asked for, then removes all that create made.

use super::Runtime;
use crate::cli;
use crate::error::{Error, Kind, Result};
use crate::hooks;
use crate::rootfs;
use crate::signals::Signals;
use crate::state::{Locked, State, Status};

/// Deletes a stopped or created container; a running one only with `--force`.
pub fn delete(runtime: &Runtime, options: &cli::Delete) -> Result<()> {
    if options.regex {
        return runtime.matching(&options.id)?.iter().try_for_each(|id| one(runtime, id, options.force));
    }
    one(runtime, &options.id, options.force)
}

/// Deletes whatever there is of container `id`, running or not.
pub fn destroy(runtime: &Runtime, id: &str) -> Result<()> {
    one(runtime, id, true)
}

fn one(runtime: &Runtime, id: &str, force: bool) -> Result<()> {
    // Half a deletion would lose the poststop hooks: it is finished, whoever wants to end it.
    let signals = Signals::hold_terminating()?;
    let locked = match force {
        false => Locked::open(&runtime.root, id)?,
        true => match Locked::take(&runtime.root, id) {
            // As runc and crun: what is not there need not be deleted.
            Err(error) if error.kind() == Kind::State => return Ok(()),
            other => other?,
        },
    };
    let Some(state) = locked.load()? else {
        // Its maker was killed before it made anything else.
        return locked.remove();
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
    end(&state)?;
    if let Some(before) = state.host_mount {
        rootfs::take_away(&state.rootfs, before)?;
    }
    state.cgroup.remove()?;
    locked.remove()?;
    // What came meanwhile came from a delete --force that wanted what is done now.
    while signals.next()?.is_some() {}
    hooks::run_all(&state.poststop, &state.to_oci(Status::Stopped)?, Some(&signals));
    Ok(())
}

/// Ends every process of the container and waits for the first one's end.
fn end(state: &State) -> Result<()> {
    if let Ok(target) = state.open_process() {
        target.signal(nix::libc::SIGKILL)?;
        if state.cgroup.is_frozen()? {
            // A frozen cgroup v1 delivers nothing, not even this.
            state.cgroup.thaw()?;
        }
        if state.has_own_pid_namespace() {
            return target.wait_end();
        }
        state.cgroup.signal_all(nix::libc::SIGKILL)?;
        return target.wait_end();
    }
    // The first process is gone; in a shared PID namespace others of the cgroup live on.
    if !state.has_own_pid_namespace() || state.creating {
        state.cgroup.signal_all(nix::libc::SIGKILL)?;
    }
    Ok(())
}
