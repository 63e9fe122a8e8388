//! [parent] `run --detach --rm`: a process that waits for the container's end and deletes it, then; all that ever stays of Kelson
//! beside a container, and only where that is asked for.
//!
//! It is a copy of `run` in a session of its own, so that no terminal ends it, in the directory `/`, with nothing open but the
//! container's pidfd and /dev/null. Whoever deletes the container first leaves it nothing to do. If it is killed the container
//! stays, as one without `--rm` does.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, chdir, setsid};

use super::{Runtime, delete, wait};
use crate::error::{Context, Error, Kind, Result};
use crate::signals;
use crate::state::{Directory, Locked, State};
use crate::sys::fd::{CloseRange, close_from, copy_over, open};
use crate::sys::process::{self, CloneArgs, Forked, SingleThreaded};

/// What of descriptors is open in it: the standard streams and the pidfd.
const PIDFD: i32 = 3;

/// Whether a process's end can be waited for by who is not its parent.
///
/// # Errors
/// The kernel has no pidfd_open(2), or a filter hides it.
pub fn check() -> Result<()> {
    let opened = process::pidfd_open(Pid::this()).doing(|| "--rm with --detach: open a descriptor of a process");
    opened.hint(|| "Linux 5.3 or newer; without --rm: kelson wait ID && kelson delete ID").map(drop)
}

/// Leaves the container to a process that deletes it when `pidfd` ends.
pub fn leave(runtime: &Runtime, state: &State, pidfd: &OwnedFd) -> Result<()> {
    let doing = || "make the process that deletes the container at its end";
    let single = SingleThreaded::prove().doing(doing)?;
    match process::clone(&single, &CloneArgs::default()).doing(doing)? {
        Forked::Parent { .. } => Ok(()),
        Forked::Child => {
            let done =
                detach(pidfd).and_then(|()| wait_for_end().map_err(Error::from)).and_then(|()| remove(runtime, state));
            if let Err(error) = &done {
                log::error!("container {:?} was not deleted at its end: {error}", state.id);
            }
            process::exit_now(done.is_err().into())
        }
    }
}

/// Lets go of all that the caller gave.
fn detach(pidfd: &OwnedFd) -> Result<()> {
    setsid()?;
    chdir("/")?;
    signals::reset()?;
    let null = open("/dev/null", OFlag::O_RDWR)?;
    for stream in 0..PIDFD {
        copy_over(null.as_fd(), stream)?;
    }
    // What other descriptors this process has owners for is closed for good: none of them is dropped before it ends.
    drop(null);
    copy_over(pidfd.as_fd(), PIDFD)?;
    close_from(PIDFD + 1, CloseRange::Close)?;
    process::shrink();
    Ok(())
}

fn wait_for_end() -> nix::Result<()> {
    let pidfd = crate::sys::fd::inherited(PIDFD)?;
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Deletes the container, unless it is gone or another one by now; whoever works on it is waited for.
fn remove(runtime: &Runtime, state: &State) -> Result<()> {
    let locked = match lock(&runtime.root, &state.id) {
        Err(error) if error.kind() == Kind::State || error.errno() == Some(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    delete::destroy_locked(locked, state, || wait::tell(runtime, state, false))
}

fn lock(root: &Path, id: &str) -> Result<Locked> {
    let directory = Directory::open(root, id)?;
    directory.lock()?;
    Ok(Locked::of(directory))
}
