//! [parent] start: lets a created container's process go on to execve(2).

use std::io::Read;
use std::os::fd::AsFd;

use super::{Runtime, delete, listen};
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::sandbox::message::EXECUTING;
use crate::signals::Signals;
use crate::state::{Locked, State, Status};

/// Starts a created container; comes back when its program runs.
///
/// # Errors
/// A state error if it is not created; what made a startContainer hook or execve(2) fail.
pub fn start(runtime: &Runtime, id: &str) -> Result<()> {
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
    let signals = Signals::hold_terminating()?;
    let notify = listen::NotifySocket::bind_in(&locked)?;
    let started = let_go(&locked, &state, &signals);
    // Hooks take their time, and the container is started or has failed.
    drop(locked);
    let poststart = || hooks::run(&state.poststart, &state.to_oci(Status::Running)?, Some(&signals));
    match started {
        Ok(()) => {}
        Err(Failed { error, is_undone: true }) => return destroyed(runtime, &state, error),
        Err(Failed { error, is_undone: false }) => return Err(error),
    }
    if let Err(error) = poststart() {
        return destroyed(runtime, &state, error);
    }
    match notify {
        Some(notify) => notify.forward_ready(nix::unistd::Pid::from_raw(state.pid), None, &signals),
        None => Ok(()),
    }
}

/// Why the program does not run.
struct Failed {
    error: Error,
    /// runtime.md#lifecycle: the container is stopped and destroyed, poststop hooks run.
    is_undone: bool,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed { error: error.into(), is_undone: false }
    }
}

fn let_go(locked: &Locked, state: &State, signals: &Signals) -> Result<(), Failed> {
    let mut stream = locked.connect().doing(|| "connect to the container's process")?;
    nix::unistd::write(&stream, b"s").doing(|| "tell the container's process to start")?;
    // A startContainer hook takes its time; who gives up does not want the program to run later.
    signals.wait_readable(stream.as_fd()).map_err(|error| Failed { error, is_undone: true })?;
    let mut said = vec![];
    // End of file is execve's doing, or the end of the process.
    stream.read_to_end(&mut said).doing(|| "wait for the container's process to start")?;
    locked.forget_start_socket()?;
    let failure = match said.split_first() {
        Some((&EXECUTING, failure)) => failure,
        Some(_) => &said,
        None if !state.tells_of_execve() => &[],
        None => return Err(Error::state("the container's process ended before it executed its program").into()),
    };
    if failure.is_empty() {
        return Ok(());
    }
    let error = Error::decode(failure);
    let is_undone = error.property().is_some_and(|property| property.starts_with("hooks."));
    Err(Failed { error, is_undone })
}

fn destroyed(runtime: &Runtime, state: &State, error: Error) -> Result<()> {
    if let Err(also) = delete::destroy(runtime, state) {
        log::warn!("{also}");
    }
    Err(error)
}
