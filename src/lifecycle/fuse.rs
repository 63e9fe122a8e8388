//! [parent] The overlay that the kernel does not make: fuse-overlayfs(1), a process beside the container.
//!
//! ```text
//!   kelson ──▶ kelson-image overlay …   joins the user namespace, where that is all the privilege there is;
//!                                       makes the mount and binds the layers (rootfs::fuse)
//!          ◀── the mount                keeps nothing else, and few capabilities
//!              fuse-overlayfs           takes its place (execve), and a child of its own goes on when it can serve
//!          ◀── end of standard error    ready, or failed
//! ```
//! Of the container it has the user namespace at most. It stays in the caller's cgroup: in the container's it would be frozen
//! while others wait for it, and ended for memory that they use. Nobody but the container keeps the mount, and without a mount
//! it ends by itself, as it does when this process is killed before.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Context, Error, Result};
use crate::image::helper;
use crate::plan::{FUSE, Plan};
use crate::rootfs::is_hosts_root;
use crate::sandbox::message::{self, Ask, ParentEnd};
use crate::signals::Signals;
use crate::sys::process::tie_to_this_process;

const NAME: &str = "fuse-overlayfs";
pub const INSTALL: &str = "fuse-overlayfs makes it where the kernel cannot: install the package of that name";
/// How long it may take to be ready: it opens the layers, which may be on a network.
const DEADLINE: Duration = Duration::from_secs(30);

/// The program, if it is in PATH.
pub fn program() -> Option<PathBuf> {
    helper::in_path(NAME)
}

/// Whose overlay it is.
pub struct Container<'c> {
    pub plan: &'c Plan,
    pub id: &'c str,
    /// Its own user namespace.
    pub user_ns: Option<OwnedFd>,
}

/// The mount of the container's overlay, served by fuse-overlayfs. `refusal` is what the kernel said ([`Error::encode`]), empty where
/// it was not asked; `called_as` is argv\[0\].
///
/// # Errors
/// The kernel's, if the program is not there; the program's. An ordinary user's container has no PID namespace.
pub fn overlay(container: Container<'_>, refusal: &[u8], called_as: &OsStr, signals: &Signals) -> Result<OwnedFd> {
    let refusal = (!refusal.is_empty()).then(|| Error::decode(refusal));
    let Some(program) = program() else {
        let refusal = refusal.map(|refusal| Err(refusal).property(|| "root.path"));
        let not_there = || Err(Error::config(format!("annotations[{FUSE:?}]"), "fuse-overlayfs is not in PATH"));
        return refusal.unwrap_or_else(not_there).hint(|| INSTALL);
    };
    if !is_hosts_root()? && !container.plan.namespaces.pid.is_own() {
        // It has the rights of the container's user namespace, and the host's files before it.
        let cause = "the container would see the process that makes the overlay, among the host's";
        return Err(Error::config("linux.namespaces", cause).hint("give it a PID namespace"));
    }
    if let Some(refusal) = &refusal {
        log::info!("{NAME} makes the overlay, which the kernel refuses: {refusal}");
    }
    start(&program, container, called_as, signals).property(|| "root.path").doing(|| match refusal {
        Some(refusal) => format!("have {} make the overlay that the kernel refuses ({refusal})", program.display()),
        None => format!("have {} make the overlay", program.display()),
    })
}

fn start(program: &Path, container: Container<'_>, called_as: &OsStr, signals: &Signals) -> Result<OwnedFd> {
    let helper = helper::find("kelson-image", called_as)?;
    let (socket, end) = message::pair()?;
    let mut command = Command::new(&helper);
    command.arg("overlay").args(words(container.plan, container.id));
    match container.user_ns {
        Some(namespace) if !is_hosts_root()? => command.arg("--userns").stdout(namespace),
        _ => command.stdout(Stdio::null()),
    };
    command.arg(program).args(container.plan.root.overlay.iter().flat_map(|overlay| &overlay.lower));
    command.env_clear().stdin(OwnedFd::from(end)).stderr(Stdio::piped());
    tie_to_this_process(&mut command);
    let child = command.spawn().doing(|| format!("start {}", helper.display()))?;
    // Its end of the socket, which nobody else may hold.
    drop(command);
    let mut starting = Starting(child);
    let said = hear(&mut starting.0.stderr, signals).doing(|| "wait until it can serve")?;
    let status = starting.0.wait().doing(|| "wait until it can serve")?;
    match mount_from(&socket)? {
        Some(mount) if status.success() => Ok(mount),
        _ => Err(Error::other(last_line(&said).unwrap_or_else(|| format!("it ended ({status})")))),
    }
}

/// What the helper is told, but for the program and the layers.
fn words(plan: &Plan, id: &str) -> Vec<OsString> {
    let mut words = vec!["--id".into(), id.into()];
    if let Some(label) = plan.mount_label.as_ref().filter(|label| !label.is_empty()) {
        words.extend(["--label".into(), label.into()]);
    }
    // What the container writes to a private layer is another process's memory, which its cgroup does not count.
    if let Some(limit) = plan.resources.memory.limit.filter(|limit| *limit > 0) {
        words.extend(["--limit".into(), limit.to_string().into()]);
    }
    if let Some((upper, work)) = plan.root.overlay.as_ref().and_then(|overlay| overlay.upper.as_ref()) {
        words.extend(["--upper".into(), upper.into(), "--work".into(), work.into()]);
    }
    words
}

/// A process that may not have ended: dropping it ends it.
struct Starting(Child);

impl Drop for Starting {
    fn drop(&mut self) {
        // One that has ended is not signalled. What it left to go on ends as well: nobody has the mount.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All that it says on its standard error, which it closes when it is ready.
fn hear(errors: &mut Option<ChildStderr>, signals: &Signals) -> Result<Vec<u8>> {
    /// Far more than its errors take.
    const MOST: usize = 4096;
    let Some(errors) = errors else { return Ok(vec![]) };
    let deadline = Instant::now() + DEADLINE;
    let (mut said, mut buffer) = (vec![], [0; 512]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [errors.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut polled, timeout) {
            Err(Errno::EINTR) => continue,
            Ok(0) => return Err(Errno::ETIMEDOUT.into()),
            ready => ready?,
        };
        if polled[0].any() != Some(true) {
            signals.check()?;
            continue;
        }
        match errors.read(&mut buffer)? {
            0 => return Ok(said),
            length if said.len() < MOST => said.extend_from_slice(&buffer[..length]),
            _ => {}
        }
    }
}

/// What the helper sent before it became another program: the mount.
///
/// # Errors
/// Why it did not become that.
fn mount_from(socket: &ParentEnd) -> Result<Option<OwnedFd>> {
    let mut mount = None;
    while let Some((said, mut fds)) = socket.receive()? {
        match said {
            Ask::Failed(error) => return Err(Error::decode(&error)),
            _ => mount = fds.pop(),
        }
    }
    Ok(mount)
}

/// The last line but for what it says at every start.
fn last_line(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    text.lines()
        .rfind(|line| !line.trim().is_empty() && !line.starts_with("unknown argument ignored"))
        .map(str::to_owned)
}
