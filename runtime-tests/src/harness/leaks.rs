//! What a test must not leave: processes, mounts, cgroups, state directories.

use std::path::Path;
use std::time::Duration;

use super::{Context, Peer, cgroup, children, eventually};

/// Mounts of this process's namespace that lie in `dir` or name it as source.
pub fn mounts_in(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let needle = dir.to_string_lossy().into_owned();
    text.lines().filter(|l| l.contains(&needle)).map(str::to_owned).collect()
}

/// Everything that the test left; it is removed as well. Empty is good.
pub fn find(context: &Context) -> Vec<String> {
    let mut left = vec![];
    let entries = context.state_entries();
    for name in &entries {
        left.push(format!("state directory {}", context.root.join(name).display()));
        // So that the next test starts clean; whether it worked shows below.
        let _ = context.runtime().args(["delete", "--force", name]).run();
    }
    processes(context, &mut left);
    mounts(context, &mut left);
    cgroups(context, &mut left);
    left
}

fn describe(pid: i32) -> String {
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    let status = String::from_utf8_lossy(&read("status")).into_owned();
    let state = status.lines().find(|l| l.starts_with("State:")).unwrap_or("State: ?").to_owned();
    format!("process {pid} ({}) {}", command.trim_end(), state.replace('\t', " "))
}

/// Processes whose environment carries the test's marker, other than the test itself.
fn marked(context: &Context) -> Vec<i32> {
    let needle = format!("{}={}\0", context.marker().0, context.marker().1);
    let own = std::process::id() as i32;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok());
    let has = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(needle.len()).any(|w| w == needle.as_bytes())
    };
    pids.filter(|p| *p != own).filter(has).collect()
}

fn processes(context: &Context, left: &mut Vec<String>) {
    let remaining = || {
        let mut pids = children::orphans();
        pids.extend(marked(context));
        for dir in context.cgroups.existing(&context.cgroup_parent) {
            pids.extend(cgroup::processes(&dir));
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    };
    // A killed process may need a moment to vanish.
    let gone = eventually(Duration::from_secs(2), "", || remaining().is_empty().then_some(()));
    if gone.is_ok() {
        return;
    }
    for pid in remaining() {
        left.push(describe(pid));
        // It may be gone by now.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    // Frozen processes are killed when their cgroup is removed.
    let _ = eventually(Duration::from_secs(2), "", || remaining().is_empty().then_some(()));
}

fn mounts(context: &Context, left: &mut Vec<String>) {
    // The line of the work directory itself does not name the test's own.
    let remaining = mounts_in(&context.dir);
    for line in remaining.iter().rev() {
        left.push(format!("mount {line}"));
        let point = line.split(' ').nth(4).unwrap_or_default();
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn cgroups(context: &Context, left: &mut Vec<String>) {
    for dir in context.cgroups.existing(&context.cgroup_parent) {
        let inside = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let inside: Vec<_> = inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        for child in &inside {
            left.push(format!("cgroup {}", child.display()));
        }
        // runc and crun leave parents that they made (known, contract L3); Kelson must not.
        if inside.is_empty() && context.peer == Peer::Kelson {
            left.push(format!("parent cgroup {}", dir.display()));
        }
        cgroup::remove(&dir);
    }
}
