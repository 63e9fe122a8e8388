//! What a test must not leave: processes, mounts, cgroups, state directories, descriptors of its own process, session
//! keyrings, network devices. A lock (flock(2)) and a device filter (BPF) go with the process or the cgroup that has them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Context, Peer, cgroup, children, eventually};

/// What was there before the test.
pub struct Before {
    descriptors: BTreeMap<i32, PathBuf>,
    devices: BTreeSet<String>,
}

impl Before {
    pub fn look() -> Before {
        Before { descriptors: descriptors(), devices: devices() }
    }
}

/// The open descriptors of this process, and what each is of.
fn descriptors() -> BTreeMap<i32, PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open = entries.filter_map(|entry| {
        let number = entry.file_name().to_string_lossy().parse().ok()?;
        Some((number, std::fs::read_link(entry.path()).ok()?))
    });
    // The listing's own.
    let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
    open.filter(|(_, target)| *target != own).collect()
}

/// Network devices of the namespace in which the tests are run, without those of container engines.
fn devices() -> BTreeSet<String> {
    // Those of the parent: a test may have gone to a namespace of its own.
    let file = format!("/proc/{}/net/dev", nix::unistd::getppid());
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    let engines = ["veth", "docker", "br-", "cni", "podman"];
    names.filter(|name| !engines.iter().any(|prefix| name.starts_with(prefix))).collect()
}

/// Mounts of this process's namespace that lie in `dir` or name it as source or in an option: lines of mountinfo.
pub fn mounts_in(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter(|line| names(line, dir)).map(str::to_owned).collect()
}

/// Whether a line of mountinfo names `dir` or a path below it.
fn names(line: &str, dir: &Path) -> bool {
    // `lowerdir=/a:/b,upperdir=/c` too.
    line.split([' ', ',', '=', ':']).any(|word| Path::new(&unescaped(word)).starts_with(dir))
}

/// A field of mountinfo as it was before `\\040` stood for a space (proc_pid_mountinfo(5)).
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// Everything that the test left; it is removed as well. Empty is good.
pub fn find(context: &Context, before: &Before) -> Vec<String> {
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
    // One that has ended is forgotten by and by.
    vanish(&mut left, || units(context));
    let new_descriptors = || {
        let now = descriptors();
        let new = now.into_iter().filter(|(number, target)| before.descriptors.get(number) != Some(target));
        new.map(|(number, target)| format!("descriptor {number} of the test: {}", target.display())).collect()
    };
    vanish(&mut left, new_descriptors);
    vanish(&mut left, || devices().difference(&before.devices).map(|name| format!("network device {name}")).collect());
    // One that nobody uses any more is collected by and by.
    vanish(&mut left, || keyrings(context));
    left
}

/// Adds what `remaining` gives if it does not go by itself.
fn vanish(left: &mut Vec<String>, remaining: impl Fn() -> Vec<String>) {
    if eventually(Duration::from_secs(5), "", || remaining().is_empty().then_some(())).is_err() {
        left.extend(remaining());
    }
}

/// Session keyrings that are named after containers of this test.
fn keyrings(context: &Context) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/keys").unwrap_or_default();
    let is_ours = |line: &&str| {
        let Some((_, name)) = line.split_once(" keyring ") else { return false };
        let id = name.trim().strip_prefix("_ses.").and_then(|name| name.split(':').next());
        let number = id.and_then(|id| id.strip_prefix(&context.id_prefix()));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    text.lines().filter(is_ours).map(|line| format!("session keyring {line}")).collect()
}

/// Units that are named after containers of this test: those that run, that failed, and what is left of them on disk.
fn units(context: &Context) -> Vec<String> {
    if !context.has_systemd() {
        return vec![];
    }
    let is_ours = |name: &str| name.contains(&context.id_prefix());
    let of_users = std::fs::read_dir("/run/user").into_iter().flatten().flatten().map(|user| user.path());
    let directories = of_users.chain(["/run".into()]).map(|runtime| runtime.join("systemd/transient"));
    let files = directories.flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten());
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| is_ours(name)).map(|name| format!("unit {name}")).collect()
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
    let marker = format!("{}={}", context.marker().0, context.marker().1);
    let own = std::process::id() as i32;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_string_lossy().parse::<i32>().ok());
    let has = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|entry| entry == marker.as_bytes())
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
        let point = unescaped(line.split(' ').nth(4).unwrap_or_default());
        let _ = nix::mount::umount2(Path::new(&point), nix::mount::MntFlags::MNT_DETACH);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_of_a_directory_by_whole_components() {
        let dir = Path::new("/tmp/tests-1/1");
        for (line, is_ours) in [
            ("30 1 0:5 / /tmp/tests-1/1 rw - tmpfs tmpfs rw", true),
            ("30 1 0:5 / /tmp/tests-1/1/a\\040b rw - tmpfs tmpfs rw", true),
            ("30 1 0:5 / /tmp/tests-1/12 rw - tmpfs tmpfs rw", false),
            ("30 1 0:5 / /x/tmp/tests-1/1 rw - tmpfs tmpfs rw", false),
            ("30 1 0:5 /tmp/tests-1/1/state /mnt rw - ext4 /dev/sda rw", true),
            ("30 1 0:5 / /mnt rw - overlay overlay rw,lowerdir=/a:/tmp/tests-1/1/b,upperdir=/c", true),
            ("30 1 0:5 / /mnt rw - overlay overlay rw,lowerdir=/tmp/tests-1/11/b", false),
        ] {
            assert_eq!(names(line, dir), is_ours, "{line}");
        }
    }
}
