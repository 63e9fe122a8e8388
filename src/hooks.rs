//! Runs the hooks of config.json (config.md#posix-platform-hooks) in whatever namespaces the caller is in.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::plan::Hook;
use crate::signals::Signals;
use crate::sys::process;

/// Most bytes of a hook's standard error that an error quotes.
const QUOTED: usize = 512;

/// Runs `hooks` in order, each with `state` (runtime.md#state) on its standard input; ends with the first failure.
///
/// A terminating signal that `signals` holds back ends the running hook and is an error.
pub fn run(hooks: &[Hook], state: &str, signals: Option<&Signals>) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(hook, state, signals, None).map(drop))
}

/// [`run`] for a process that must live meanwhile; gives whether it did. `process` has something to read when it has ended;
/// the hook that runs then is killed, and those after it do not run.
pub fn run_for(hooks: &[Hook], state: &str, signals: &Signals, process: BorrowedFd<'_>) -> Result<bool> {
    for hook in hooks {
        if !run_one(hook, state, Some(signals), Some(process))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs all `hooks`; failures are warnings (poststop: runtime.md#lifecycle), and so is a signal that ends one.
pub fn run_all(hooks: &[Hook], state: &str, signals: Option<&Signals>) {
    for hook in hooks {
        if let Err(error) = run_one(hook, state, signals, None) {
            log::warn!("{error}");
        }
    }
}

/// Gives whether `process`, if there is one, lived as long as the hook.
fn run_one(hook: &Hook, state: &str, signals: Option<&Signals>, process: Option<BorrowedFd<'_>>) -> Result<bool> {
    // One that is beyond what the clock can tell is none.
    let deadline = hook.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let named = |error: Error| {
        Err::<bool, _>(error).property(|| hook.property.clone()).doing(|| format!("run {}", hook.path.display()))
    };
    let mut child = match start(hook) {
        Ok(child) => child,
        Err(error) => return named(error),
    };
    let outcome = attend(&mut child, state, deadline, signals, process);
    if outcome.is_err() {
        // The group is the hook and what it started; it may have ended on its own.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        let _ = child.wait();
    }
    match outcome {
        Ok(()) => Ok(true),
        Err(Ended::OutOfUse) => Ok(false),
        Err(Ended::TimedOut) => {
            let limit = hook.timeout.unwrap_or_default().as_secs();
            named(Error::other(format!("ran longer than its timeout of {limit} s and was killed")))
        }
        Err(Ended::Failed(error)) => named(error),
    }
}

fn start(hook: &Hook) -> Result<Child> {
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    // Its own group, so that a timeout ends what it started as well.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // In the child alone: a signal that came while this process held none back would end it with nothing undone.
    process::tie_to_this_process(&mut command);
    Ok(command.spawn()?)
}

enum Ended {
    TimedOut,
    /// The process that it runs for has ended.
    OutOfUse,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Ended::Failed(error.into())
    }
}

/// Feeds the state, collects standard error and waits for the end, all at once so that neither side can block.
fn attend(
    child: &mut Child,
    state: &str,
    deadline: Option<Instant>,
    signals: Option<&Signals>,
    process: Option<BorrowedFd<'_>>,
) -> Result<(), Ended> {
    let pidfd = process::pidfd_open(Pid::from_raw(child.id() as i32));
    let pidfd: Option<OwnedFd> = match pidfd {
        Ok(pidfd) => Some(pidfd),
        // Without it the end of standard error stands for the end of the process.
        Err(Errno::ENOSYS | Errno::EPERM) => None,
        Err(errno) => return Err(errno.into()),
    };
    let mut stdin = child.stdin.take();
    let mut stderr = child.stderr.take();
    set_nonblocking(&stdin)?;
    set_nonblocking(&stderr)?;
    let mut unsent = state.as_bytes();
    let mut said = Vec::new();
    loop {
        if stdin.is_some() && unsent.is_empty() {
            stdin = None;
        }
        let timeout = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => return Err(Ended::TimedOut),
            // Rounded up, so that the last wait does not spin; longer than a PollTimeout holds is asked again.
            Some(left) => PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX),
        };
        let mut polled = Vec::with_capacity(5);
        let mut index = |fd, flags| {
            polled.push(PollFd::new(fd, flags));
            polled.len() - 1
        };
        let at_end = pidfd.as_ref().map(|fd| index(fd.as_fd(), PollFlags::POLLIN));
        let at_stdin = stdin.as_ref().map(|pipe| index(pipe.as_fd(), PollFlags::POLLOUT));
        let at_stderr = stderr.as_ref().map(|pipe| index(pipe.as_fd(), PollFlags::POLLIN));
        let at_signal = signals.map(|signals| index(signals.as_fd(), PollFlags::POLLIN));
        let at_process = process.map(|process| index(process, PollFlags::POLLIN));
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let is_ready = |at: Option<usize>| at.is_some_and(|at| polled[at].any() == Some(true));
        let (ended, write, read) = (is_ready(at_end), is_ready(at_stdin), is_ready(at_stderr));
        let (signalled, out_of_use) = (is_ready(at_signal), is_ready(at_process));
        if signalled && let Some(signals) = signals {
            signals.check()?;
        }
        if out_of_use {
            return Err(Ended::OutOfUse);
        }
        if write && let Some(pipe) = &mut stdin {
            match pipe.write(unsent) {
                Ok(written) => unsent = &unsent[written..],
                // A hook need not read its state.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => unsent = &[],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
        if (read || ended) && drain(&mut stderr, &mut said)? {
            stderr = None;
        }
        if ended || (pidfd.is_none() && stderr.is_none()) {
            break;
        }
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    };
    let said = String::from_utf8_lossy(&said);
    let said = said.trim().replace('\n', "; ");
    Err(Ended::Failed(Error::other(if said.is_empty() { how } else { format!("{how}: {said}") })))
}

fn set_nonblocking(pipe: &Option<impl AsFd>) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    if let Some(pipe) = pipe {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

/// Reads what is there, keeping the end of it; `true` at end of file.
fn drain(pipe: &mut Option<impl Read>, said: &mut Vec<u8>) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(true) };
    let mut chunk = [0; 4096];
    loop {
        match pipe.read(&mut chunk) {
            Ok(0) => return Ok(true),
            Ok(length) => {
                said.extend_from_slice(&chunk[..length]);
                let surplus = said.len().saturating_sub(QUOTED);
                said.drain(..surplus);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<Duration>) -> Hook {
        Hook {
            property: "hooks.prestart[0]".into(),
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["A=1".into()],
            timeout,
        }
    }

    #[test]
    fn a_hook_gets_the_state_and_only_its_environment() {
        let script = r#"test "$(cat)" = '{"id":"x"}' && test "$A" = 1 && test -z "$HOME""#;
        run(&[hook(script, None)], r#"{"id":"x"}"#, None).unwrap();
    }

    #[test]
    fn a_hook_need_not_read_a_state_that_fills_the_pipe() {
        run(&[hook("exit 0", None)], &"x".repeat(1 << 20), None).unwrap();
    }

    #[test]
    fn a_failure_names_the_property_and_quotes_the_hook() {
        let error = run(&[hook("echo no gpu >&2; exit 3", None)], "{}", None).unwrap_err();
        assert_eq!(error.to_string(), "run /bin/sh: hooks.prestart[0]: exit status 3: no gpu");
    }

    #[test]
    fn a_timeout_may_be_longer_than_the_clock_runs() {
        run(&[hook("exit 0", Some(Duration::from_secs(i64::MAX as u64)))], "{}", None).unwrap();
    }

    #[test]
    fn a_hook_is_killed_when_what_it_runs_for_has_ended() {
        let signals = Signals::hold_terminating().unwrap();
        let hooks = [hook("sleep 60 & sleep 60", None), hook("exit 1", None)];
        let (process, end) = nix::unistd::pipe().unwrap();
        drop(end);
        let begun = Instant::now();
        assert!(!run_for(&hooks, "{}", &signals, process.as_fd()).unwrap());
        assert!(begun.elapsed() < Duration::from_secs(20));
        let (process, _end) = nix::unistd::pipe().unwrap();
        assert!(run_for(&[hook("exit 0", None)], "{}", &signals, process.as_fd()).unwrap());
    }

    #[test]
    fn a_timeout_ends_what_the_hook_started() {
        let begun = Instant::now();
        let timeout = Some(Duration::from_millis(200));
        let error = run(&[hook("sleep 60 & sleep 60", timeout)], "{}", None).unwrap_err();
        assert!(error.to_string().contains("longer than its timeout"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
