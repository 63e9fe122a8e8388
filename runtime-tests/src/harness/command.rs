//! Commands with a deadline, whose output is kept and shown when a test fails.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::report::Report;
use super::{Context, Failure, Outcome, children};
use crate::sys::{self, BeforeExec};
use crate::{check, check_eq};

/// A command to be; by default with no input, its output in files, a deadline, and the environment of a driver.
pub struct Cmd<'c> {
    context: &'c Context,
    command: Command,
    steps: Vec<BeforeExec>,
    /// Descriptors that stay open until the command runs.
    kept: Vec<OwnedFd>,
    words: Vec<OsString>,
    stdin: Option<Vec<u8>>,
    piped: bool,
    own_stdio: bool,
    deadline: Duration,
}

impl<'c> Cmd<'c> {
    /// A program by path or by name.
    pub fn new(context: &'c Context, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env(context.marker().0, context.marker().1);
        Cmd {
            context,
            command,
            steps: vec![BeforeExec::ProcessGroup],
            kept: vec![],
            words: vec![program.as_ref().to_owned()],
            stdin: None,
            piped: false,
            own_stdio: false,
            deadline: context.patience,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg.as_ref());
        self.words.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, |c, a| c.arg(a))
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Bytes for standard input; without it /dev/null.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Passes `fd` as descriptor `number`, 0 to 15.
    pub fn fd(mut self, number: RawFd, fd: impl Into<OwnedFd>) -> Self {
        let fd = fd.into();
        self.steps.push(BeforeExec::Dup(fd.as_raw_fd(), number));
        self.kept.push(fd);
        self.own_stdio |= number <= 2;
        self
    }

    /// Does something in the child before it executes the program.
    pub fn before_exec(mut self, step: BeforeExec) -> Self {
        self.steps.push(step);
        self
    }

    /// Runs on a pseudo terminal: all three descriptors, and as controlling terminal.
    pub fn on_terminal(mut self, peer: OwnedFd) -> Self {
        self.steps.retain(|s| !matches!(s, BeforeExec::ProcessGroup));
        let raw = peer.as_raw_fd();
        self.steps.extend([BeforeExec::Dup(raw, 0), BeforeExec::Dup(raw, 1), BeforeExec::Dup(raw, 2)]);
        self.steps.push(BeforeExec::ControllingTty(0));
        self.kept.push(peer);
        self.own_stdio = true;
        self
    }

    /// Runs as an ordinary user.
    pub fn user(self, uid: u32, gid: u32) -> Self {
        self.before_exec(BeforeExec::User(uid, gid))
    }

    /// Standard output is read line by line while the command runs ([`Running::lines`]).
    pub fn piped(mut self) -> Self {
        self.piped = true;
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The command as a person would type it.
    pub fn shown(&self) -> String {
        self.words.iter().map(|w| quote(&w.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    /// Starts it and comes back at once.
    pub fn spawn(mut self) -> Outcome<Running> {
        let shown = self.shown();
        let io = self.context.next_io();
        let err = File::options().create(true).append(true).read(true).open(io.with_extension("err"))?;
        let out_path = io.with_extension("out");
        let mut lines = None;
        if !self.own_stdio {
            match self.stdin.take() {
                Some(bytes) => {
                    let path = io.with_extension("in");
                    std::fs::write(&path, bytes)?;
                    self.command.stdin(File::open(path)?);
                }
                None => {
                    self.command.stdin(Stdio::null());
                }
            }
            if self.piped {
                let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
                self.command.stdout(write);
                lines = Some(Lines::new(read));
            } else {
                self.command.stdout(File::options().create(true).append(true).open(&out_path)?);
            }
            self.command.stderr(err);
        }
        // The filter comes last but for the change of user and filters of the test, after which it could not be installed.
        if let Some(filter) = &self.context.filter {
            let at = self.steps.iter().position(|s| matches!(s, BeforeExec::User(..) | BeforeExec::Seccomp(..)));
            let at = at.unwrap_or(self.steps.len());
            self.steps.insert(at, BeforeExec::Seccomp(filter.clone()));
        }
        sys::before_exec(&mut self.command, std::mem::take(&mut self.steps));
        let started = Instant::now();
        let mut list = children::lock();
        let child = self.command.spawn().map_err(|e| format!("run {shown}: {e}"))?;
        list.manage(child.id() as i32);
        drop(list);
        let pidfd = sys::pidfd_open(child.id() as i32)?;
        Ok(Running {
            shown,
            child,
            pidfd,
            lines,
            out: out_path,
            err: io.with_extension("err"),
            deadline: self.deadline,
            started,
            ended: false,
        })
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome<Run> {
        self.spawn()?.wait()
    }
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// A command that was started. It is killed if it is dropped before it was waited for.
pub struct Running {
    pub shown: String,
    child: Child,
    pidfd: OwnedFd,
    pub lines: Option<Lines>,
    out: PathBuf,
    err: PathBuf,
    deadline: Duration,
    started: Instant,
    ended: bool,
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal to the command itself.
    pub fn signal(&self, signal: i32) -> Outcome {
        // Not reaped yet, so the PID is still its own.
        Ok(sys::kill(self.pid(), signal)?)
    }

    pub fn has_ended(&self) -> bool {
        readable(&self.pidfd, Duration::ZERO)
    }

    /// The next line of standard output ([`Cmd::piped`]).
    pub fn line(&mut self) -> Outcome<String> {
        let deadline = self.deadline;
        let shown = self.shown.clone();
        let err = self.err.clone();
        let lines = self.lines.as_mut().ok_or("the command's output is not piped")?;
        lines.next(deadline).map_err(|e| {
            let stderr = std::fs::read_to_string(err).unwrap_or_default();
            e.during(&format!("{shown}\n  stderr: {}", stderr.trim_end()))
        })
    }

    /// What standard error holds until now.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It did not end within its deadline (it is killed then).
    pub fn wait(mut self) -> Outcome<Run> {
        let end = Instant::now() + self.deadline;
        // A PID namespace ends only when orphans from outside of it are reaped: whoever waits for that would wait for us.
        while !readable(&self.pidfd, Duration::from_millis(50)) && Instant::now() < end {
            children::reap();
        }
        if !self.has_ended() {
            let stderr = self.stderr();
            self.end();
            return Err(Failure::Failed(format!(
                "{} did not end within {:?}\n  stderr: {}",
                self.shown,
                self.deadline,
                stderr.trim_end()
            )));
        }
        let mut list = children::lock();
        let status = self.child.wait()?;
        list.release(self.child.id() as i32);
        drop(list);
        self.ended = true;
        let took = self.started.elapsed();
        let mut stdout = std::fs::read(&self.out).unwrap_or_default();
        if let Some(lines) = &mut self.lines {
            stdout = lines.rest_now();
        }
        let stderr = std::fs::read(&self.err).unwrap_or_default();
        let code = status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(-1);
        Ok(Run { shown: self.shown.clone(), code, signal: status.signal(), stdout, stderr, took })
    }

    fn end(&mut self) {
        if self.ended {
            return;
        }
        // Errors: it may just have ended.
        let _ = self.child.kill();
        let mut list = children::lock();
        let _ = self.child.wait();
        list.release(self.child.id() as i32);
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until `fd` is readable or at its end.
pub fn readable(fd: &impl AsFd, deadline: Duration) -> bool {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis().min(i32::MAX as u128) as i32;
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(n) => return n > 0,
            Err(_) => return false,
        }
    }
}

/// Lines from a pipe or terminal, each awaited with a deadline.
pub struct Lines {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Lines {
    pub fn new(fd: OwnedFd) -> Self {
        Lines { fd, buffer: vec![] }
    }

    /// The next line without its end; a last line without newline counts.
    ///
    /// # Errors
    /// No line came in time, or the end was reached.
    pub fn next(&mut self, deadline: Duration) -> Outcome<String> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            if !readable(&self.fd, left) {
                let had = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(format!("no line of output within {deadline:?} (begun: {had:?})").into());
            }
            if self.fill()? == 0 {
                if self.buffer.is_empty() {
                    return Err("end of output".into());
                }
                return Ok(String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned());
            }
        }
    }

    /// Everything up to the end of the output.
    pub fn to_end(&mut self, deadline: Duration) -> Outcome<Vec<u8>> {
        let end = Instant::now() + deadline;
        loop {
            if !readable(&self.fd, end.saturating_duration_since(Instant::now())) {
                return Err(format!("output did not end within {deadline:?}").into());
            }
            if self.fill()? == 0 {
                return Ok(std::mem::take(&mut self.buffer));
            }
        }
    }

    /// The next bytes, at least one.
    ///
    /// # Errors
    /// Nothing came in time, or the end was reached.
    pub fn some(&mut self, deadline: Duration) -> Outcome<Vec<u8>> {
        if self.buffer.is_empty() && (!readable(&self.fd, deadline) || self.fill()? == 0) {
            return Err("no more output".into());
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// What can be read without waiting.
    pub fn rest_now(&mut self) -> Vec<u8> {
        while readable(&self.fd, Duration::ZERO) && self.fill().is_ok_and(|n| n > 0) {}
        std::mem::take(&mut self.buffer)
    }

    fn fill(&mut self) -> Outcome<usize> {
        let mut chunk = [0; 65536];
        loop {
            return match nix::unistd::read(&self.fd, &mut chunk) {
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    Ok(n)
                }
                Err(nix::errno::Errno::EINTR) => continue,
                // A terminal whose other end is closed.
                Err(nix::errno::Errno::EIO) => Ok(0),
                Err(e) => Err(e.into()),
            };
        }
    }
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Run {
    pub shown: String,
    /// Exit code, or 128 and the signal's number.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

impl Run {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The command and all that it said, for a failure's message.
    pub fn told(&self) -> String {
        let short = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let text = text.trim_end();
            if text.len() > 1500 {
                format!("{}…", text.chars().take(1500).collect::<String>())
            } else {
                text.to_owned()
            }
        };
        format!(
            "{}\n  exit code: {}\n  stdout: {}\n  stderr: {}",
            self.shown,
            self.code,
            short(&self.stdout),
            short(&self.stderr)
        )
    }

    /// Expects exit code 0.
    pub fn ok(self) -> Outcome<Run> {
        self.exits(0)
    }

    /// Expects that it ended by itself with this exit code; a program's 128 and the number of a signal too.
    pub fn exits(self, code: i32) -> Outcome<Run> {
        check!(self.code == code, "expected exit code {code}\n  {}", self.told());
        check!(self.signal.is_none(), "expected exit code {code}, ended by a signal itself\n  {}", self.told());
        Ok(self)
    }

    /// Expects an exit code that is not 0, and an error on standard error.
    pub fn fails(self) -> Outcome<Run> {
        check!(self.code != 0 && self.signal.is_none(), "expected a failure\n  {}", self.told());
        let told = !self.stderr.is_empty() && !self.err().contains("panicked at");
        check!(told, "expected an error on standard error\n  {}", self.told());
        Ok(self)
    }

    /// Expects a failure whose error holds each of `words`, upper or lower case.
    pub fn fails_saying(self, words: &[&str]) -> Outcome<Run> {
        let run = self.fails()?;
        let text = run.err().to_lowercase();
        for word in words {
            check!(text.contains(&word.to_lowercase()), "expected an error with {word:?}\n  {}", run.told());
        }
        Ok(run)
    }

    /// Expects a failure whose error holds at least one of `words`.
    pub fn fails_saying_one_of(self, words: &[&str]) -> Outcome<Run> {
        let run = self.fails()?;
        let text = run.err().to_lowercase();
        check!(
            words.iter().any(|w| text.contains(&w.to_lowercase())),
            "expected an error with one of {words:?}\n  {}",
            run.told()
        );
        Ok(run)
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Outcome<Value> {
        serde_json::from_slice(&self.stdout).map_err(|e| format!("{e}\n  {}", self.told()).into())
    }

    /// The guest's lines.
    pub fn lines(&self) -> Vec<Value> {
        self.out().lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// The value that the guest printed under `key` (`{"key": …}`), the first one.
    pub fn said(&self, key: &str) -> Outcome<Value> {
        let found = self.lines().into_iter().find_map(|mut l| l.get_mut(key).map(Value::take));
        found.ok_or_else(|| format!("the guest did not print {key:?}\n  {}", self.told()).into())
    }

    /// The guest's report.
    pub fn report(&self) -> Outcome<Report> {
        Ok(Report(self.said("report")?))
    }

    /// Expects that standard output is exactly this.
    pub fn prints(self, expected: &str) -> Outcome<Run> {
        check_eq!(self.out(), expected, "{}: output", self.shown);
        Ok(self)
    }
}
