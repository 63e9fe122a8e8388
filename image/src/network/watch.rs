//! `kelson-image hook network-watch PID NAME ARGUMENTS…`: starts pasta, called NAME, for the namespaces of process PID, and ends
//! it when that process has ended.
//!
//! Standard input is the record, whose lock it has; standard output hears whether the network is there.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use kelson::error::{Context, Error, Result};
use kelson::sys::process::{pidfd_open, pidfd_send_signal, set_child_subreaper};
use nix::errno::Errno;
use nix::libc::SIGKILL;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stdout, geteuid, setsid};

use super::{pasta, program};

/// # Errors
/// None that anybody would read: they go to standard output.
pub fn run(words: &[String]) -> Result<()> {
    let [pid, name, arguments @ ..] = words else {
        return Err(Error::usage("hook: network-watch PID NAME ARGUMENTS…"));
    };
    match start(pid, name, arguments) {
        Ok(watched) => watched.attend(),
        Err(error) => std::io::stdout().write_all(&error.encode()).doing(|| "tell of it"),
    }
}

struct Watched {
    container: OwnedFd,
    pasta: OwnedFd,
    pid: Pid,
}

fn start(pid: &str, name: &str, arguments: &[String]) -> Result<Watched> {
    let pid: i32 = pid.parse().map_err(|_| Error::usage(format!("hook: {pid:?} is no process")))?;
    // Whoever ends the hook's group or session does not mean this process; it is its leader already if this fails.
    let _ = setsid();
    // pasta's parent ends when pasta is ready.
    set_child_subreaper().doing(|| "become a subreaper")?;
    let container = pidfd_open(Pid::from_raw(pid)).doing(|| "watch the container's process (pidfd_open, Linux 5.3)")?;
    let program = program::find_in(&program::search_path(), "pasta").ok_or_else(|| {
        program::missing("pasta", "Debian and Fedora: package passt; --network none does without a network")
    })?;
    run_pasta(&program, pid, name, arguments)?;
    let [daemon] = pasta::find(name)[..] else { return Err(Error::other("pasta ended as soon as it was ready")) };
    let daemon = Pid::from_raw(daemon);
    let pasta = pidfd_open(daemon).doing(|| "watch pasta")?;
    Ok(Watched { container, pasta, pid: daemon })
}

/// Starts pasta, and comes back when the network is there.
fn run_pasta(program: &Path, pid: i32, name: &str, arguments: &[String]) -> Result<()> {
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        File::open(&path).doing(|| format!("open {path}"))
    };
    let mut command = Command::new(program);
    command.arg0(name).args(arguments).env_clear().env("PATH", program::search_path());
    // By descriptors: pasta drops the privilege to look at another process before it opens them. In the background it has
    // /dev/null in their place, and nothing else is open.
    command.args(["--netns", "/proc/self/fd/0"]).stdin(open("net")?).stderr(Stdio::piped());
    match is_own_user_namespace(pid)? {
        true => command.stdout(Stdio::null()),
        false => command.args(["--userns", "/proc/self/fd/1"]).stdout(open("user")?),
    };
    if geteuid().is_root() {
        // Otherwise it becomes nobody, who may not enter a namespace of root's.
        command.args(["--runas", "0:0"]);
    }
    let output = command.spawn().and_then(std::process::Child::wait_with_output);
    let output = output.doing(|| format!("run {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = complaint(&program::said(output.status, &output.stderr));
    let hint = match said {
        _ if said.contains("tun socket") => "/dev/net/tun is to be open to all: modprobe tun; chmod 666 /dev/net/tun",
        _ if said.contains("xternal interface") => {
            "the host has no default route; pasta:-i,NAME takes another interface"
        }
        _ if said.contains("ort") && said.contains("bind") => {
            "the port is in use, or below net.ipv4.ip_unprivileged_port_start"
        }
        _ => "--network none does without a network",
    };
    Err(Error::other(format!("pasta: {said}")).hint(hint))
}

/// What of pasta's lines is the reason: the option that it does not know, before the list of those that it does, or the last
/// ones. It says as well that there is no system logger.
fn complaint(said: &str) -> String {
    let lines: Vec<&str> = said.split("; ").filter(|line| !line.contains("to syslog")).collect();
    let unknown = lines.iter().find(|line| line.contains("unrecognized option") || line.contains("invalid option"));
    match unknown {
        Some(line) => line.rsplit("pasta: ").next().unwrap_or(line).to_string(),
        None => lines[lines.len().saturating_sub(3)..].join("; "),
    }
}

fn is_own_user_namespace(pid: i32) -> Result<bool> {
    let number = |path: String| std::fs::metadata(&path).map(|info| info.ino()).doing(|| format!("look at {path}"));
    Ok(number(format!("/proc/{pid}/ns/user"))? == number("/proc/self/ns/user".into())?)
}

impl Watched {
    /// Says that all is there, and stays until it is not.
    fn attend(&self) -> Result<()> {
        let told = tell();
        if told.is_ok() {
            pasta::wait(&[self.container.as_fd(), self.pasta.as_fd()]).doing(|| "wait for the container's end")?;
        }
        match pidfd_send_signal(self.pasta.as_fd(), SIGKILL) {
            Err(Errno::ESRCH) | Ok(()) => {}
            Err(errno) => return Err(errno).doing(|| "end pasta"),
        }
        pasta::wait(&[self.pasta.as_fd()]).doing(|| "wait for the end of pasta")?;
        match waitpid(self.pid, None) {
            // Its parent has just ended, and is this process's child itself.
            Ok(_) | Err(Errno::ECHILD) => told,
            Err(errno) => Err(errno).doing(|| "wait for pasta"),
        }
    }
}

/// Whoever waits reads to the end, so that the pipe goes.
fn tell() -> Result<()> {
    let mut stdout = std::io::stdout();
    let told = stdout.write_all(pasta::READY.as_bytes()).and_then(|()| stdout.flush());
    told.doing(|| "say that the network is there")?;
    let null = File::options().write(true).open("/dev/null").doing(|| "open /dev/null")?;
    dup2_stdout(null).doing(|| "close standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_pasta() {
        for (said, reason) in [
            (
                "/s/c@network/pasta: unrecognized option '--what'; Usage: pasta; --a; --b; --c; --d",
                "unrecognized option '--what'",
            ),
            (
                "Failed to send 46 bytes to syslog; No interface; Failed to send 36 bytes to syslog; Not usable",
                "No interface; Not usable",
            ),
            ("a; b; c; d", "b; c; d"),
            ("exit status 1", "exit status 1"),
        ] {
            assert_eq!(complaint(said), reason);
        }
    }
}
