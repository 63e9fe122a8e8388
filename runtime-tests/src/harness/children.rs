//! Children of the test process: those it started itself, and orphans that fall to it as subreaper.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, MutexGuard};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

#[derive(Default)]
pub struct Children {
    /// Started by the test and waited for by it.
    managed: HashSet<i32>,
    /// How orphans ended: exit code, or 128 and the signal's number.
    ended: HashMap<i32, i32>,
}

static CHILDREN: LazyLock<Mutex<Children>> = LazyLock::new(Mutex::default);

/// The list, locked: while it is held nothing is reaped.
pub fn lock() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Children {
    pub fn manage(&mut self, pid: i32) {
        self.managed.insert(pid);
    }
    pub fn release(&mut self, pid: i32) {
        self.managed.remove(&pid);
    }
}

/// PIDs of all present children, zombies too (proc_pid_task... `children`, CONFIG_PROC_CHILDREN).
pub fn all() -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return vec![] };
    let lists = tasks.flatten().filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    lists.flat_map(|l| l.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// Children that the test did not start itself.
pub fn orphans() -> Vec<i32> {
    let list = lock();
    all().into_iter().filter(|pid| !list.managed.contains(pid)).collect()
}

/// Collects every orphan that has ended.
pub fn reap() {
    let mut list = lock();
    for pid in all() {
        if list.managed.contains(&pid) {
            continue;
        }
        match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => list.ended.insert(pid, code),
            Ok(WaitStatus::Signaled(_, signal, _)) => list.ended.insert(pid, 128 + signal as i32),
            _ => continue,
        };
    }
}

/// How the orphan `pid` ended, as a monitor such as conmon learns it: exit code, or 128 and the signal's number.
pub fn status(pid: i32) -> Option<i32> {
    reap();
    lock().ended.get(&pid).copied()
}
