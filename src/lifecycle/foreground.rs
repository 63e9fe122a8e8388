//! [parent] Attends a container or an exec in the foreground: forwards signals, relays the terminal, waits for the end.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::listen::NotifySocket;
use crate::cgroup::kill_watch::KillWatch;
use crate::ended::Exit;
use crate::error::{Context, Result};
use crate::signals::Signals;
use crate::state::Target;
use crate::sys::fd::standard_stream;
use crate::sys::process;
use crate::terminal::Relay;

/// Waits for the end of child `pid`, and gives how it ended; `kills` sees the container's cgroup until then.
pub fn attend(
    pid: Pid,
    pidfd: Option<OwnedFd>,
    console: Option<OwnedFd>,
    notify: Option<NotifySocket>,
    mut kills: Option<&mut KillWatch<'_>>,
) -> Result<Exit> {
    let signals = Signals::hold_all()?;
    let target = Target::new(pid, pidfd);
    let mut relay = console.map(Relay::new).transpose()?;
    loop {
        // Before the first wait too: a SIGCHLD that came before signals were held is lost.
        if let Some(exit) = reap_all(pid)? {
            if let Some(kills) = kills {
                kills.look();
            }
            if let Some(relay) = &mut relay {
                print_rest(relay, &signals)?;
            }
            return Ok(exit);
        }
        wait(&signals, relay.as_mut(), notify.as_ref(), kills.as_deref_mut(), pid)?;
        while let Some(signal) = signals.next()? {
            match signal {
                // Reaped above.
                libc::SIGCHLD => {}
                libc::SIGWINCH if relay.is_some() => relay.iter().for_each(Relay::resize),
                // What is meant for this process alone: a broken pipe of its own, urgent data, stops by its terminal.
                libc::SIGPIPE | libc::SIGURG | libc::SIGTTIN | libc::SIGTTOU => {}
                signal => match target.signal(signal) {
                    // It has just ended; SIGCHLD tells.
                    Err(error) if error.errno() == Some(Errno::ESRCH) => {}
                    other => other?,
                },
            }
        }
    }
}

/// Waits until something happens and relays what came.
fn wait(
    signals: &Signals,
    relay: Option<&mut Relay>,
    notify: Option<&NotifySocket>,
    kills: Option<&mut KillWatch<'_>>,
    pid: Pid,
) -> Result<()> {
    let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let mut at = |fd, flags| {
        polled.push(PollFd::new(fd, flags));
        polled.len() - 1
    };
    let notify_at = notify.map(|notify| at(notify.as_fd(), PollFlags::POLLIN));
    let (mut master_at, mut output_at) = (None, None);
    let mut stdin_at = None;
    if let Some(relay) = &relay {
        let out = if relay.has_pending() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let wanted = if relay.has_unprinted() { out } else { out | PollFlags::POLLIN };
        if relay.is_open() && !wanted.is_empty() {
            master_at = Some(at(relay.master(), wanted));
        }
        if relay.has_unprinted() {
            output_at = Some(at(relay.output(), PollFlags::POLLOUT));
        }
        if relay.wants_input() {
            stdin_at = Some(at(standard_stream(0), PollFlags::POLLIN));
        }
    }
    let kills_at = kills.as_ref().and_then(|kills| kills.poll_fd()).map(|kills| {
        polled.push(kills);
        polled.len() - 1
    });
    match poll(&mut polled, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok(()),
        other => other.doing(|| "wait for the container")?,
    };
    let is_ready = |at: Option<usize>| at.is_some_and(|at| polled[at].any() == Some(true));
    let (notify_ready, master_ready, stdin_ready) = (is_ready(notify_at), is_ready(master_at), is_ready(stdin_at));
    let (output_ready, kills_ready) = (is_ready(output_at), is_ready(kills_at));
    drop(polled);
    if kills_ready && let Some(kills) = kills {
        kills.look();
    }
    if notify_ready && let Some(notify) = notify {
        notify.forward(pid)?;
    }
    if let Some(relay) = relay {
        if output_ready {
            relay.print();
        }
        if master_ready {
            relay.write_pending();
            relay.copy_output();
        }
        if stdin_ready {
            relay.read_input();
        }
    }
    Ok(())
}

/// The most that a pty holds, and what comes while it is read; whoever outlives the container may write for ever.
const MOST_CHUNKS: usize = 64;

/// Prints what the container wrote last, which is still in the pty; a terminating signal ends the wait for a reader.
fn print_rest(relay: &mut Relay, signals: &Signals) -> Result<()> {
    for chunk in 0..=MOST_CHUNKS {
        while relay.has_unprinted() {
            let mut polled =
                [PollFd::new(relay.output(), PollFlags::POLLOUT), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.doing(|| "wait for the reader of the output")?,
            };
            let is_signalled = polled[1].any() == Some(true);
            if is_signalled
                && matches!(signals.next()?, Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT))
            {
                return Ok(());
            }
            relay.print();
        }
        if chunk == MOST_CHUNKS || !relay.copy_output() {
            break;
        }
    }
    Ok(())
}

/// Reaps every child that ended: orphans too, for which this process is the subreaper. `Some` when `pid` was among them, with
/// which this process ends as well.
fn reap_all(pid: Pid) -> Result<Option<Exit>> {
    loop {
        match process::wait_any() {
            Ok(Some((ended, status))) if ended == pid => return Ok(Some(Exit::of_status(status))),
            Ok(None) | Err(Errno::ECHILD) => return Ok(None),
            // Another child.
            Ok(Some(_)) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(|| "wait for the container"),
        }
    }
}
