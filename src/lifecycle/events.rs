//! [parent] events: what a container uses, at an interval or once, and each time that it is out of memory, as runc's JSON.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::Runtime;
use crate::cgroup::oom::{Oom, OomWatch};
use crate::cgroup::stats::Stats;
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::state::{State, Status};

/// One line, in runc's order (types/events.go).
#[derive(Serialize)]
struct Event<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

/// Hands one line after the other to `print`, until the container's process has ended or after the first with `--stats`.
///
/// # Errors
/// A state error if it does not run, or has no cgroup.
pub fn events(runtime: &Runtime, options: &cli::Events, print: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let state = runtime.load(&options.id)?;
    if matches!(state.status(&runtime.root)?, Status::Stopped | Status::Creating) {
        return Err(Error::state(format!("container with id {} is not running", state.id)));
    }
    if options.stats {
        return print(&stats(&state)?);
    }
    follow(&state, options.interval, print)
}

fn follow(state: &State, interval: Duration, print: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let process = state.open_process()?.into_pidfd();
    let mut oom = state.cgroup.watch_oom()?;
    if oom.is_none() {
        log::warn!("no event tells when the container is out of memory: it has no cgroup of the memory controller");
    }
    let mut next = Instant::now() + interval;
    loop {
        let has_ended = match &process {
            Some(process) => wait(process, oom.as_ref(), next)?,
            None => wait_without_pidfd(state, oom.as_ref(), next)?,
        };
        // At the end too: what ended it may have been this.
        match oom.as_mut().map_or(Ok(Oom::Nothing), OomWatch::take)? {
            Oom::Nothing => {}
            Oom::Killed => print(&line(state, "oom", None)?)?,
            Oom::Gone => oom = None,
        }
        if has_ended {
            return Ok(());
        }
        let now = Instant::now();
        if now >= next {
            print(&stats(state)?)?;
            // A reader that is slower misses some, as with Go's ticker.
            next = if next + interval > now { next + interval } else { now + interval };
        }
    }
}

/// Waits for the end of the process, an event or the deadline; gives whether the process has ended.
fn wait(process: &OwnedFd, oom: Option<&OomWatch>, deadline: Instant) -> Result<bool> {
    let mut polled = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    polled.extend(oom.map(|oom| PollFd::new(oom.as_fd(), oom.flags())));
    wait_for_any(&mut polled, deadline)?;
    Ok(polled[0].any() == Some(true))
}

/// How often it is looked whether a process runs that no descriptor can tell the end of.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The same where pidfd_open(2) is hidden by a filter, or before Linux 5.3.
fn wait_without_pidfd(state: &State, oom: Option<&OomWatch>, deadline: Instant) -> Result<bool> {
    let mut polled: Vec<_> = oom.map(|oom| PollFd::new(oom.as_fd(), oom.flags())).into_iter().collect();
    wait_for_any(&mut polled, deadline.min(Instant::now() + LOOK_INTERVAL))?;
    Ok(!state.is_alive()?)
}

fn wait_for_any(polled: &mut [PollFd<'_>], deadline: Instant) -> Result<()> {
    // Rounded up: a wait of 0 ms would spin.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    match poll(polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).doing(|| "wait for the container"),
    }
}

fn stats(state: &State) -> Result<String> {
    let stats = state.cgroup.stats().doing(|| format!("read what container {:?} uses", state.id))?;
    line(state, "stats", Some(stats))
}

fn line(state: &State, kind: &'static str, data: Option<Stats>) -> Result<String> {
    let event = Event { kind, id: &state.id, data };
    serde_json::to_string(&event).map(|text| text + "\n").map_err(|error| Error::other(error.to_string()))
}
