//! `runtime-tests --trace SETTINGS -- COMMAND…`: runs a command, follows every process that it makes (ptrace(2)), and meddles
//! with one of their system calls.
//!
//! A process of its own, since whoever traces is the parent and gets every stop. strace(1) counts calls by name and for each
//! process anew, and so cannot hit one call of one process; and it stays until the last process ends, which a created
//! container's does not.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::sys;

/// One system call of one of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// In the order of their births: 0 is the command itself, 1 the process that [`Settings::also`] names, if any.
    pub process: usize,
    /// Counted from 0 for each process.
    pub index: usize,
    pub number: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Whoever makes the call is killed instead.
    Kill,
    /// The command gets this signal, whoever makes the call.
    Signal(i32),
    /// The call is not made and fails.
    Fail(i32),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Kill => f.write_str("kill"),
            Action::Signal(number) => write!(f, "signal-{number}"),
            Action::Fail(number) => write!(f, "{:?}", Errno::from_raw(*number)),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// A running process that is traced as well; 0 is none.
    pub also: i32,
    /// What happens at the first call from this one on that has the same number.
    pub at: Option<(Call, Action)>,
}

impl Settings {
    /// For `--trace`; `record` is the file for the calls, see [`calls`].
    pub fn to_json(self, record: &std::path::Path) -> String {
        let at = self.at.map(|(call, action)| {
            let (what, value) = match action {
                Action::Kill => ("kill", 0),
                Action::Signal(number) => ("signal", number),
                Action::Fail(number) => ("fail", number),
            };
            json!([call.process, call.index, call.number, what, value])
        });
        json!({"also": self.also, "at": at, "record": record}).to_string()
    }

    fn from_json(settings: &Value) -> Settings {
        let at = &settings["at"];
        let number = |index: usize| at[index].as_i64().unwrap_or(0);
        let call = Call { process: number(0) as usize, index: number(1) as usize, number: number(2) };
        let action = match at[3].as_str() {
            Some("kill") => Some(Action::Kill),
            Some("signal") => Some(Action::Signal(number(4) as i32)),
            Some("fail") => Some(Action::Fail(number(4) as i32)),
            _ => None,
        };
        Settings { also: settings["also"].as_i64().unwrap_or(0) as i32, at: action.map(|action| (call, action)) }
    }
}

/// Reads what a tracer recorded: all calls, those of each process up to its execve(2), in the order in which they were made.
pub fn calls(record: &std::path::Path) -> std::io::Result<Vec<Call>> {
    let text = std::fs::read_to_string(record)?;
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (process, index) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Call { process, index, number: words.next()?.parse().ok()? })
    };
    Ok(text.lines().filter_map(parse).collect())
}

struct Traced {
    ordinal: usize,
    calls: usize,
    /// The error of the call that it is in.
    fails: Option<i32>,
}

struct Tracer {
    settings: Settings,
    command: Pid,
    /// It is the command, and not yet the shell that becomes it.
    is_executed: bool,
    traced: HashMap<Pid, Traced>,
    born: usize,
    is_done: bool,
    record: Vec<u8>,
}

/// Runs `command` to its end and ends as it did; what it made and left goes on untraced.
pub fn run(settings: &str, command: &[OsString]) -> Result<ExitCode, String> {
    let json: Value = serde_json::from_str(settings).map_err(|e| e.to_string())?;
    let settings = Settings::from_json(&json);
    // Stopped until it is traced. By PTRACE_TRACEME it would be at once, but what it makes would get a SIGSTOP that is left
    // over where this process ends first.
    let shell = ["-c", "kill -STOP $$ && exec \"$@\"", "sh"];
    let child = Command::new("/bin/sh").args(shell).args(command).spawn().map_err(|e| format!("run a shell: {e}"))?;
    let mut tracer = Tracer {
        settings,
        command: Pid::from_raw(child.id() as i32),
        is_executed: false,
        traced: HashMap::new(),
        born: 0,
        is_done: false,
        record: vec![],
    };
    let ended = tracer.follow().map_err(|e| format!("ptrace: {e}"))?;
    if let Some(path) = json["record"].as_str() {
        std::fs::write(path, &tracer.record).map_err(|e| format!("write {path}: {e}"))?;
    }
    match ended {
        WaitStatus::Signaled(_, signal, _) => {
            raise(signal).map_err(|e| e.to_string())?;
            Err(format!("{signal} did not end the tracer"))
        }
        WaitStatus::Exited(_, code) => Ok(ExitCode::from(code as u8)),
        other => Err(format!("the command ended as {other:?}")),
    }
}

impl Tracer {
    fn follow(&mut self) -> nix::Result<WaitStatus> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        waitpid(self.command, Some(WaitPidFlag::WUNTRACED))?;
        self.seize(self.command, options)?;
        kill(self.command, Signal::SIGCONT)?;
        if self.settings.also > 0 {
            let also = Pid::from_raw(self.settings.also);
            self.seize(also, options)?;
            ptrace::interrupt(also)?;
        }
        let mut ended = None;
        loop {
            // What is in a call that is to fail is left when it has failed.
            if let Some(ended) = ended.filter(|_| self.traced.values().all(|traced| traced.fails.is_none())) {
                return Ok(ended);
            }
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.traced.remove(&pid);
                    ended = ended.or(Some(status).filter(|_| pid == self.command));
                }
                status => gone_is_fine(self.stopped(status))?,
            }
        }
    }

    fn seize(&mut self, pid: Pid, options: Options) -> nix::Result<()> {
        ptrace::seize(pid, options)?;
        self.traced(pid);
        Ok(())
    }

    /// What is known of a process; one that shows up for the first time has just been born.
    fn traced(&mut self, pid: Pid) -> &mut Traced {
        let born = &mut self.born;
        self.traced.entry(pid).or_insert_with(|| {
            *born += 1;
            Traced { ordinal: *born - 1, calls: 0, fails: None }
        })
    }

    /// Lets a process that stopped go on.
    fn stopped(&mut self, status: WaitStatus) -> nix::Result<()> {
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                if self.is_executed || pid != self.command {
                    self.at_call(pid)?;
                }
                ptrace::syscall(pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) if pid == self.command => {
                self.is_executed = true;
                ptrace::syscall(pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => {
                // From here on it is another's program.
                self.traced.remove(&pid);
                ptrace::detach(pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) => {
                self.traced(pid);
                ptrace::syscall(pid, None)
            }
            WaitStatus::Stopped(pid, signal) => ptrace::syscall(pid, signal),
            _ => Ok(()),
        }
    }

    fn at_call(&mut self, pid: Pid) -> nix::Result<()> {
        let command = self.command;
        let is_entry = ptrace::syscall_info(pid)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY;
        let mut registers = ptrace::getregs(pid)?;
        let traced = self.traced(pid);
        if !is_entry {
            if let Some(error) = traced.fails.take() {
                registers.rax = i64::from(-error) as u64;
                ptrace::setregs(pid, registers)?;
            }
            return Ok(());
        }
        let call = Call { process: traced.ordinal, index: traced.calls, number: registers.orig_rax as i64 };
        traced.calls += 1;
        // Writing to memory does not fail.
        let _ = writeln!(self.record, "{} {} {}", call.process, call.index, call.number);
        let Some((at, action)) = self.settings.at else { return Ok(()) };
        if self.is_done || at.process != call.process || at.index > call.index || at.number != call.number {
            return Ok(());
        }
        self.is_done = true;
        match action {
            Action::Kill => kill(pid, Signal::SIGKILL),
            Action::Signal(number) => sys::kill(command.as_raw(), number),
            Action::Fail(number) => {
                // No system call has this number: the kernel makes none.
                registers.orig_rax = u64::MAX;
                self.traced(pid).fails = Some(number);
                ptrace::setregs(pid, registers)
            }
        }
    }
}

/// A process that was stopped may have been killed since.
fn gone_is_fine(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}
