//! [parent] update: changes the limits of a container that has not ended.

use super::Runtime;
use crate::cgroup;
use crate::cli;
use crate::error::{Error, Result};
use crate::plan;
use crate::signals::Signals;
use crate::state::{Locked, Status};

/// Sets the limits that the options and the file of resources name, all of them or none.
///
/// # Errors
/// The container has stopped, or one of the limits cannot be set; the option or property is named.
pub fn update(runtime: &Runtime, options: &cli::Update) -> Result<()> {
    for option in &options.obsolete {
        log::warn!("{option} is ignored: the kernel limits that no more");
    }
    set(runtime, options).map_err(|error| options.limits.name_in(error))
}

fn set(runtime: &Runtime, options: &cli::Update) -> Result<()> {
    // Read before the container is held: standard input may take its time.
    let text = options.resources.as_deref().map(plan::read_resources).transpose()?;
    let resources = plan::resources_of_update(text.as_deref(), &options.limits)?;
    let id = &options.id;
    let locked = Locked::open(&runtime.root, id)?;
    let Some(state) = locked.load()? else {
        return Err(Error::state(format!("container {id:?} does not exist")));
    };
    match state.status(&runtime.root)? {
        Status::Created | Status::Running | Status::Paused => {}
        status => {
            let cause = format!("cannot update container {id:?}: container not running, it is {}", status.word());
            return Err(Error::state(cause));
        }
    }
    // Half a change would be left: it is finished, whoever wants to end it.
    let _signals = Signals::hold_terminating()?;
    cgroup::update::update(&state.cgroup, &resources)
}
