//! [parent] What is passed between the caller's sockets and the container: LISTEN_FDS, NOTIFY_SOCKET, seccomp listeners.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use crate::error::{Context, Error, Result};
use crate::plan::{
    FlagChange, Mount, MountAttributes, MountKind, Plan, Process, Propagation, PropagationKind, Seccomp,
};
use crate::sandbox::parent::Child;
use crate::sandbox::process::set_default_env;
use crate::signals::Signals;
use crate::state::{Locked, NOTIFY, State, Status};
use crate::sys::mount::attr;
use crate::sys::{fd, process};

/// How many descriptors from 3 on the caller passes by sd_listen_fds(3).
pub fn inherited() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let is_for_us = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    if is_for_us { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

/// How many descriptors from 3 on the container is to get: `--preserve-fds` and LISTEN_FDS. All of them are open, which is
/// asked before this program opens its own, which would have the same numbers.
pub fn preserved(preserve_fds: u32) -> Result<u32> {
    let count = u64::from(preserve_fds) + u64::from(inherited());
    for number in 3..3 + count {
        if !i32::try_from(number).is_ok_and(fd::is_open) {
            return Err(Error::usage(format!("descriptor {number} is to be preserved and is not open"))
                .hint("--preserve-fds and LISTEN_FDS count descriptors that are open, from 3 on"));
        }
    }
    // There are not more than an i32 counts.
    Ok(count as u32)
}

/// Tells the container's process of the descriptors and the notify socket that it gets.
pub fn pass_on(process: &mut Process) {
    pass_descriptors_on(process);
    if host_notify_socket().is_some() {
        set_default_env(&mut process.env, "NOTIFY_SOCKET", "/run/notify/notify.sock");
    }
}

/// The same for a further process: the notify socket is the container's own, if it has one at all, and tells of its first process.
pub fn pass_descriptors_on(process: &mut Process) {
    let count = inherited();
    if count > 0 {
        set_default_env(&mut process.env, "LISTEN_FDS", &count.to_string());
        set_default_env(&mut process.env, "LISTEN_PID", "1");
        if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
            set_default_env(&mut process.env, "LISTEN_FDNAMES", &names);
        }
    }
}

fn host_notify_socket() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The directory of the container's notify socket, mounted at /run/notify.
pub fn add_notify_mount(plan: &mut Plan, state_dir: &Path) -> Result<()> {
    if host_notify_socket().is_none() || plan.process.is_none() {
        return Ok(());
    }
    let source = state_dir.join(NOTIFY);
    std::fs::create_dir(&source).doing(|| format!("make {}", source.display()))?;
    std::fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    plan.mounts.push(Mount {
        index: plan.mounts.len(),
        destination: "/run/notify".into(),
        kind: MountKind::Bind { source, recursive: false },
        // As runc: the directory is the host's, and the socket in it can be written to all the same.
        attributes: MountAttributes {
            top: FlagChange { set: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC, clear: 0 },
            ..MountAttributes::default()
        },
        superblock: Default::default(),
        propagation: vec![Propagation { kind: PropagationKind::Private, recursive: false }],
        copy_up: false,
        id_map: None,
    });
    Ok(())
}

/// The socket that a container's sd_notify(3) messages come to, and the caller's, to which they go on.
pub struct NotifySocket {
    own: UnixDatagram,
    host: PathBuf,
    /// The caller's socket was found to be gone: once is enough to say so.
    is_lost: Cell<bool>,
}

/// What a container may tell the caller's manager of itself (sd_notify(3)): nothing that makes the manager act on other
/// processes, on descriptors, or on who may notify.
const PASSED_ON: [&str; 10] = [
    "READY=1",
    "RELOADING=1",
    "STOPPING=1",
    "WATCHDOG=1",
    "STATUS=",
    "ERRNO=",
    "BUSERROR=",
    "EXIT_STATUS=",
    "MONOTONIC_USEC=",
    "EXTEND_TIMEOUT_USEC=",
];

fn is_passed_on(line: &str) -> bool {
    PASSED_ON.iter().any(|key| if key.ends_with('=') { line.starts_with(key) } else { line == *key })
}

impl NotifySocket {
    /// For the container that is held; `None` if the caller has no notify socket.
    pub fn bind_in(locked: &Locked) -> Result<Option<Self>> {
        let Some(host) = host_notify_socket() else { return Ok(None) };
        if !locked.dir().join(NOTIFY).exists() {
            return Ok(None);
        }
        // Whatever user the container runs as may write to it; by the umask, for a path could lead elsewhere by then.
        let of_caller = umask(Mode::empty());
        let own = UnixDatagram::bind(locked.socket_path("notify/notify.sock"));
        umask(of_caller);
        let own = own.doing(|| format!("make the notify socket in {}", locked.dir().display()))?;
        own.set_nonblocking(true)?;
        Ok(Some(Self { own, host, is_lost: Cell::new(false) }))
    }

    /// Passes on what came; the container's main process is named as the caller knows it.
    pub fn forward(&self, pid: Pid) -> Result<bool> {
        let mut packet = [0; 4096];
        let mut is_ready = false;
        loop {
            let length = match self.own.recv(&mut packet) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(is_ready),
                other => other.doing(|| "read a notification of the container")?,
            };
            let text = String::from_utf8_lossy(&packet[..length]);
            let kept: Vec<&str> = text.lines().filter(|line| is_passed_on(line)).collect();
            if kept.contains(&"READY=1") {
                is_ready = true;
                // A PID of the container's would mean nothing to the caller.
                self.pass_on(&format!("MAINPID={pid}"));
            }
            if !kept.is_empty() {
                self.pass_on(&kept.join("\n"));
            }
        }
    }

    /// start and a detached run: waits for READY=1 or the end of the container, as runc does.
    ///
    /// # Errors
    /// A terminating signal that comes first: the container goes on.
    pub fn forward_ready(&self, pid: Pid, pidfd: Option<&OwnedFd>, signals: &Signals) -> Result<()> {
        let opened;
        let pidfd = match pidfd {
            Some(pidfd) => pidfd.as_fd(),
            None => {
                opened = match process::pidfd_open(pid) {
                    Err(Errno::ESRCH) => return Ok(()),
                    other => other.doing(|| "open the container's process")?,
                };
                opened.as_fd()
            }
        };
        loop {
            let of = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut polled = [of(self.as_fd()), of(pidfd), of(signals.as_fd())];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.doing(|| "wait for READY=1 of the container")?,
            };
            if polled[2].any() == Some(true) {
                signals.check()?;
            }
            let has_ended = polled[1].any() == Some(true);
            if self.forward(pid)? || has_ended {
                return Ok(());
            }
        }
    }

    /// A container does not depend on its caller's manager, which may start again.
    fn pass_on(&self, text: &str) {
        if let Err(error) = self.send(text)
            && !self.is_lost.replace(true)
        {
            log::warn!("{error}");
        }
    }

    fn send(&self, text: &str) -> Result<()> {
        let doing = || format!("notify {}", self.host.display());
        match self.host.as_os_str().as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name).doing(doing)?;
                self.own.send_to_addr(text.as_bytes(), &address).doing(doing)?;
            }
            None => _ = self.own.send_to(text.as_bytes(), &self.host).doing(doing)?,
        }
        Ok(())
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }
}

/// Hands the notification descriptor `number` of the container's process to the profile's listener, with the state that
/// config-linux.md#containerprocessstate describes.
pub fn send_seccomp_listener(
    seccomp: Option<&Seccomp>,
    state: &State,
    status: Status,
    child: &Child,
    number: i32,
) -> Result<()> {
    let (Some(listener), Some(pidfd)) = (seccomp.and_then(|s| s.listener.as_ref()), child.pidfd()) else {
        return Err(Error::other("the container process has a seccomp listener that nobody asked for"));
    };
    let doing = || format!("send the seccomp listener to {}", listener.path.display());
    let fd = process::pidfd_getfd(pidfd, number).doing(doing)?;
    let text = process_state(state, status, child.pid(), listener.metadata.as_deref())?;
    let stream = UnixStream::connect(&listener.path).property(|| "linux.seccomp.listenerPath").doing(doing)?;
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let sent =
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(text.as_bytes())], &rights, MsgFlags::MSG_NOSIGNAL, None);
    sent.map(drop).doing(doing)
}

fn process_state(state: &State, status: Status, pid: Pid, metadata: Option<&str>) -> Result<String> {
    let inner: serde_json::Value =
        serde_json::from_str(&state.to_oci(status)?).map_err(|e| Error::other(e.to_string()))?;
    let mut outer = serde_json::json!({
        "ociVersion": state.oci_version,
        "fds": ["seccompFd"],
        "pid": pid.as_raw(),
        "state": inner,
    });
    if let (Some(metadata), Some(object)) = (metadata, outer.as_object_mut()) {
        object.insert("metadata".into(), metadata.into());
    }
    Ok(outer.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_tells_of_itself_only() {
        for (line, passes) in [
            ("READY=1", true),
            ("STATUS=nearly there", true),
            ("MAINPID=1", false),
            ("WATCHDOG=trigger", false),
            ("FDSTORE=1", false),
            ("NOTIFYACCESS=all", false),
            ("X_STATUS=1", false),
        ] {
            assert_eq!(is_passed_on(line), passes, "{line}");
        }
    }
}
