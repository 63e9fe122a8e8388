//! [parent] kill: sends a signal to the container's process, or to all of its processes.

use nix::libc::SIGKILL;

use super::Runtime;
use crate::cli;
use crate::error::{Error, Result};
use crate::state::Status;

pub fn kill(runtime: &Runtime, options: &cli::Kill) -> Result<()> {
    if options.regex {
        return runtime.for_each_matching(&options.id, |id| one(runtime, id, options));
    }
    one(runtime, &options.id, options)
}

fn one(runtime: &Runtime, id: &str, options: &cli::Kill) -> Result<()> {
    let state = runtime.load(id)?;
    let status = state.status(&runtime.root)?;
    if status == Status::Creating {
        return Err(not_running());
    }
    // Without a PID namespace of its own the end of the first process is not the end of the others, as which SIGKILL is meant;
    // as runc since 1.2.
    let is_for_all = options.all || (options.signal == SIGKILL && !state.has_own_pid_namespace());
    if is_for_all && state.cgroup.has_cgroup() {
        // Also after the first process ended: in a shared PID namespace it does not take the others with it.
        if status == Status::Stopped && state.has_own_pid_namespace() {
            return Err(not_running());
        }
        return state.cgroup.signal_all(options.signal);
    }
    if options.all && !state.has_own_pid_namespace() {
        return Err(Error::state("the container has no cgroup that tells which processes are its own")
            .hint("without --all its first process is signalled"));
    }
    if status == Status::Stopped {
        return Err(not_running());
    }
    // In a PID namespace of its own this stands for all, if the container has no cgroup: with SIGKILL it is the end of all.
    state.open_process()?.signal(options.signal)?;
    if options.signal == SIGKILL {
        // A frozen cgroup v1 delivers nothing, not even this. Whatever the status was: it may be frozen since.
        state.cgroup.thaw_all()?;
    }
    Ok(())
}

/// With the words that containerd looks for.
fn not_running() -> Error {
    Error::state("container not running")
}
