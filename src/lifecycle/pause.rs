//! [parent] pause and resume: freezes and thaws the container's cgroup.

use super::Runtime;
use crate::error::{Error, Result};
use crate::state::Status;

/// Freezes all processes of a created or running container; comes back when they are frozen.
pub fn pause(runtime: &Runtime, id: &str) -> Result<()> {
    let state = runtime.load(id)?;
    match state.status(&runtime.root)? {
        Status::Running | Status::Created => state.cgroup.freeze_while_alive(Some(state.pid)),
        status => {
            Err(Error::state(format!("cannot pause container {id:?}: container not running, it is {}", status.word())))
        }
    }
}

/// Thaws a paused container.
///
/// # Errors
/// A state error if it stays frozen on v1, because a cgroup above it is.
pub fn resume(runtime: &Runtime, id: &str) -> Result<()> {
    let state = runtime.load(id)?;
    match state.status(&runtime.root)? {
        Status::Paused => {
            state.cgroup.thaw()?;
            state.cgroup.check_thawed_above()
        }
        status => {
            Err(Error::state(format!("cannot resume container {id:?}: container not paused, it is {}", status.word())))
        }
    }
}
