//! [parent] start: lets a created container's process go on to execve(2).

use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::{Runtime, delete, listen};
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::sandbox::message::EXECUTING;
use crate::signals::Signals;
use crate::state::{Locked, Status};

/// Starts a created container; comes back when its program runs.
///
/// # Errors
/// A state error if it is not created; what made a startContainer hook or execve(2) fail.
pub fn start(runtime: &Runtime, id: &str) -> Result<()> {
    let signals = Signals::hold_terminating()?;
    let locked = Locked::open(&runtime.root, id)?;
    let state = locked.load()?.ok_or_else(|| Error::state(format!("container {id:?} was never created")))?;
    match state.status(&runtime.root)? {
        Status::Created => {}
        Status::Stopped => return Err(Error::state("cannot start a container that has stopped")),
        status => return Err(Error::state(format!("cannot start a container in the state {}", status.word()))),
    }
    if !state.startable {
        return Err(Error::config("process", "the container has nothing to start"));
    }
    let notify = listen::NotifySocket::bind_in(locked.dir())?;
    let mut stream = locked.connect().doing(|| "connect to the container's process")?;
    stream.write_all(b"s").doing(|| "tell the container's process to start")?;
    let mut said = vec![];
    // A startContainer hook takes its time.
    signals.wait_readable(stream.as_fd())?;
    // End of file is execve's doing, or the end of the process.
    stream.read_to_end(&mut said).doing(|| "wait for the container's process to start")?;
    locked.forget_start_socket()?;
    let failure = match said.split_first() {
        Some((&EXECUTING, failure)) => failure,
        Some(_) => &said,
        None if !state.tells_of_execve() => &[],
        None => return Err(Error::state("the container's process ended before it executed its program")),
    };
    if !failure.is_empty() {
        let error = Error::decode(failure);
        if error.property().is_some_and(|property| property.starts_with("hooks.")) {
            drop(locked);
            // runtime.md#lifecycle: stop, destroy, poststop.
            delete::destroy(runtime, id)?;
        }
        return Err(error);
    }
    if let Err(error) = hooks::run(&state.poststart, &state.to_oci(Status::Running)?, Some(&signals)) {
        drop(locked);
        delete::destroy(runtime, id)?;
        return Err(error);
    }
    drop(locked);
    match notify {
        Some(notify) => notify.forward_ready(nix::unistd::Pid::from_raw(state.pid), None, &signals),
        None => Ok(()),
    }
}
