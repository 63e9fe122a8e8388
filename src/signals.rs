//! Signals: held back while a container is made, forwarded by a foreground run or exec.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Context, Error, Result};
use crate::sys::fd::read_short;
use crate::sys::process;

/// Signals of this process that come through a descriptor and not at any instant.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// SIGINT, SIGTERM, SIGHUP and SIGQUIT: what asks to stop, to be noticed between two steps so that all is undone.
    pub fn hold_terminating() -> Result<Self> {
        let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        // The others wait too, for a foreground run to pass them on: one that came early would end this process.
        Self::all().thread_block().doing(|| "block signals")?;
        Self::watch(&signals.into_iter().collect())
    }

    /// All but those that tell of a fault of this program.
    pub fn hold_all() -> Result<Self> {
        let all = Self::all();
        all.thread_block().doing(|| "block signals")?;
        Self::watch(&all)
    }

    fn all() -> SigSet {
        let mut set = process::all_signals();
        for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGTRAP, Signal::SIGABRT]
        {
            set.remove(fault);
        }
        set
    }

    fn watch(set: &SigSet) -> Result<Self> {
        let fd = SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        fd.map(Self).doing(|| "make a signal descriptor")
    }

    /// The next signal that is pending; `None` if there is none.
    pub fn next(&self) -> Result<Option<i32>> {
        match self.0.read_signal() {
            Ok(Some(info)) => Ok(Some(info.ssi_signo as i32)),
            Ok(None) => Ok(None),
            Err(errno) => Err(errno).doing(|| "read a signal"),
        }
    }

    /// An error if a terminating signal came.
    pub fn check(&self) -> Result<()> {
        match self.next()? {
            None => Ok(()),
            Some(signal) => {
                let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                Err(Error::other(format!("interrupted by {name}")))
            }
        }
    }

    /// `result`; an EINTR, of a wait for something else that a terminating signal ended, names the signal.
    pub fn name_in<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if error.errno() == Some(Errno::EINTR) => self.check().and(Err(error)),
            other => other,
        }
    }

    /// Waits until `fd` has something to read or its peer is gone; a terminating signal is an error if it comes first.
    pub fn wait_readable(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.wait_one_readable(&[fd])
    }

    /// The same for one of several.
    pub fn wait_one_readable(&self, fds: &[BorrowedFd<'_>]) -> Result<()> {
        loop {
            let all = fds.iter().copied().chain([self.0.as_fd()]);
            let mut polled: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.doing(|| "wait for the container process")?,
            };
            let is_signalled = polled.pop().is_some_and(|signal| signal.any() == Some(true));
            // What has happened already comes first: a program that runs gets the signal.
            if polled.iter().any(|fd| fd.any() == Some(true)) {
                return Ok(());
            }
            if is_signalled {
                self.check()?;
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Nothing that the caller ignored or blocked reaches a program that is executed: all default, none blocked.
pub fn reset() -> Result<()> {
    // Field SigIgn of proc(5)'s status: one read in place of 64 questions. Kelson itself ignores SIGPIPE.
    let status = read_short("/proc/self/status").doing(|| "read /proc/self/status")?;
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let ignored = ignored.ok_or_else(|| Error::other("/proc/self/status has no SigIgn"))?;
    for signal in (1..=64).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        process::default_signal(signal).doing(|| format!("reset signal {signal}"))?;
    }
    SigSet::empty().thread_set_mask().doing(|| "unblock signals")
}
