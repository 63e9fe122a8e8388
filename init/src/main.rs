//! Process 1 of a container with `--init`: `kelson-init [--] PROGRAM [ARGS...]` runs a program, passes signals on to it, reaps what
//! nobody else does, and ends as the program did.
//!
//! A program that is process 1 itself gets no signal that it does not handle (pid_namespaces(7)), and is left with the zombies of
//! processes whose parents ended.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The first word of the process that becomes the program.
const BECOME: &str = "--become";

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let own = words.next().unwrap_or_default();
    let mut words: Vec<OsString> = words.collect();
    if words.first().is_some_and(|word| word == BECOME) {
        return become_program(&words[1..]);
    }
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    if words.is_empty() {
        eprintln!("kelson-init: no program is given");
        return ExitCode::from(2);
    }
    match run(&own, &words) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("kelson-init: {error}");
            ExitCode::from(1)
        }
    }
}

/// A program begins with no signal blocked, and std has its children begin with those of their parent.
fn become_program(words: &[OsString]) -> ExitCode {
    let Some((program, arguments)) = words.split_first() else { return ExitCode::from(2) };
    let error = match SigSet::all().thread_unblock() {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(errno) => errno.into(),
    };
    eprintln!("kelson-init: run {program:?}: {error}");
    // As a shell has it.
    ExitCode::from(if error.kind() == ErrorKind::NotFound { 127 } else { 126 })
}

/// The exit code of the program, or 128 and the number of the signal that ended it.
fn run(own: &OsString, words: &[OsString]) -> io::Result<u8> {
    // None is lost: those that come before the program is there wait.
    let mut signals = SigSet::all();
    // These are of this program's own faults.
    for own in [Signal::SIGFPE, Signal::SIGILL, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGTRAP, Signal::SIGSYS] {
        signals.remove(own);
    }
    signals.thread_block()?;
    // In a group of its own: it and not this process gets the terminal's Ctrl-C, once.
    let child = Command::new(own).arg(BECOME).args(words).process_group(0).spawn()?;
    let program = Pid::from_raw(child.id().cast_signed());
    give_terminal(program);
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(program)? {
                    return Ok(code);
                }
            }
            // From a terminal that this process no longer holds.
            Signal::SIGTTIN | Signal::SIGTTOU => {}
            signal => match kill(program, signal) {
                // It has ended; its SIGCHLD comes next.
                Err(Errno::ESRCH) | Ok(()) => {}
                Err(errno) => return Err(errno.into()),
            },
        }
    }
}

/// Makes the program's group the foreground of the terminal, if this one's is; SIGTTOU is blocked.
fn give_terminal(program: Pid) {
    let stdin = io::stdin();
    if tcgetpgrp(&stdin) == Ok(getpgrp()) {
        // There is nothing to be done if the terminal has just hung up.
        let _ = tcsetpgrp(&stdin, program);
    }
}

/// Reaps all that has ended; gives the program's exit code when it is among them.
fn reap(program: Pid) -> io::Result<Option<u8>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            // An exit code has eight bits.
            Ok(WaitStatus::Exited(pid, status)) if pid == program => code = Some(status as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => code = Some(128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
