//! [parent] A process that does nothing but be in a scope: systemd makes none without a process, and ends one that is empty.

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid, getppid};

use crate::error::{Context, Result};
use crate::sys::fd::{CloseRange, close_from};
use crate::sys::process::{self, CloneArgs, Forked, SingleThreaded};

/// OOM_SCORE_ADJ_MIN (proc_pid_oom_score_adj(5)).
const NEVER_KILLED: &str = "-1000";

/// It ends with its maker, and when it is dropped.
#[derive(Debug)]
pub struct Placeholder {
    pid: Pid,
}

impl Placeholder {
    pub fn start() -> Result<Self> {
        let single = SingleThreaded::prove().doing(|| "make sure of a single thread")?;
        let maker = getpid();
        match process::clone(&single, &CloneArgs::default()).doing(|| "make a process for the scope")? {
            Forked::Child => wait(maker),
            Forked::Parent { pid, .. } => {
                // A limit that is too low is to kill the container's process, and leave the scope with the counters that tell of it.
                // Without the privilege it is as likely a victim as that.
                let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), NEVER_KILLED);
                Ok(Self { pid })
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It is this process's child and not reaped, so the PID is its own.
        let _ = process::kill(self.pid, libc::SIGKILL);
        while waitpid(self.pid, Some(WaitPidFlag::__WALL)) == Err(Errno::EINTR) {}
    }
}

fn wait(maker: Pid) -> ! {
    let tied = process::set_parent_death_signal(libc::SIGKILL);
    // What the caller and the state directory's lock wait for is not this process.
    if tied.is_ok() && getppid() == maker && close_from(0, CloseRange::Close).is_ok() {
        loop {
            nix::unistd::pause();
        }
    }
    process::exit_now(1)
}
