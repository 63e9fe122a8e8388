//! Terminals: the container's pty, the console socket, and what a foreground run relays.

pub mod screen;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::termios::{self, OutputFlags, SetArg, Termios};

use crate::error::{Context, Error, Result};
use crate::sys::fd::standard_stream;
use crate::sys::tty::{self, WindowSize};

/// Both ends of the container's pty.
pub struct Pty {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

/// [init] Makes a pty in the container's own devpts, after the root is entered.
///
/// The image may have put a link or a file where ptmx should be: it must be ptmx of a devpts (CVE-2025-52565).
pub fn open_pty(size: Option<WindowSize>) -> Result<Pty> {
    let property = || "process.terminal";
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())
        .or_else(|_| open("/dev/ptmx", flags, Mode::empty()))
        .doing(|| "open /dev/pts/ptmx")
        .property(property)
        .hint(|| "a terminal needs a mount of type devpts at /dev/pts")?;
    let device = fstat(&master).doing(|| "look at /dev/pts/ptmx")?.st_rdev;
    let file_system = fstatfs(&master).doing(|| "look at /dev/pts/ptmx")?.filesystem_type();
    // TTYAUX_MAJOR 5, minor 2. A node outside of devpts works as well: the kernel looks for a devpts beside it.
    if (major(device), minor(device)) != (5, 2) && file_system != DEVPTS_SUPER_MAGIC {
        return Err(Error::config("process.terminal", "/dev/pts/ptmx of the container is no pty multiplexer"));
    }
    tty::unlock(master.as_fd()).doing(|| "unlock the pty")?;
    let peer = tty::open_peer(master.as_fd()).doing(|| "open the pty's peer")?;
    if let Some(size) = size {
        tty::set_window_size(peer.as_fd(), size).property(|| "process.consoleSize").doing(|| "size the pty")?;
    }
    Ok(Pty { master, peer })
}

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// [parent] Takes the pty's master that came with the announcement of a terminal: hands it to whoever listens on `socket`, else
/// gives it back, to be relayed.
pub fn take_master(mut fds: Vec<OwnedFd>, socket: Option<&Path>) -> Result<Option<OwnedFd>> {
    let master = fds.pop().ok_or_else(|| Error::other("a terminal was announced and did not come"))?;
    match socket {
        Some(socket) => send_master(socket, master.as_fd()).map(|()| None),
        None => clear_onlcr(master.as_fd()).map(|()| Some(master)),
    }
}

/// The packet's text is the name of the pty's peer.
fn send_master(socket: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let name = format!("/dev/pts/{}", tty::number(master).unwrap_or(0));
    send_fd(socket, master, name.as_bytes()).doing(|| format!("send the terminal to {}", socket.display()))
}

/// A terminal that this process relays adds no carriage return, as in runc: the caller's own does, if it is one.
///
/// Before the program runs, which may look. Who takes a terminal by a console socket decides for itself.
fn clear_onlcr(master: BorrowedFd<'_>) -> Result<()> {
    let mut settings = termios::tcgetattr(master).doing(|| "read the pty's settings")?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    termios::tcsetattr(master, SetArg::TCSANOW, &settings).doing(|| "change the pty's settings")
}

/// Connects to the unix socket `path` and sends `text` with descriptor `fd` (SCM_RIGHTS, unix(7)).
pub fn send_fd(path: &Path, fd: BorrowedFd<'_>, text: &[u8]) -> Result<()> {
    let stream = UnixStream::connect(path)?;
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let mut rest = text;
    let mut control = &rights[..];
    while !rest.is_empty() {
        match sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(rest)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => {
                rest = &rest[sent?.min(rest.len())..];
                control = &[];
            }
        }
    }
    Ok(())
}

/// [parent] Carries bytes between the caller's streams and the pty of a foreground container.
pub struct Relay {
    master: OwnedFd,
    /// What the caller typed and the pty did not take yet.
    pending: Vec<u8>,
    /// Where output goes, opened anew so that it does not wait; `None` for what cannot be: a file or a socket.
    out: Option<OwnedFd>,
    /// What the container wrote and the caller did not take yet: one chunk at most, and no more is read meanwhile.
    unprinted: Vec<u8>,
    stdin_open: bool,
    /// Some process has the other end open, or will.
    is_open: bool,
    /// The caller's terminal as it was; given back on drop.
    saved: Option<Termios>,
}

impl Relay {
    pub fn new(master: OwnedFd) -> Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing(|| "set up the terminal")?;
        let stdin = standard_stream(0);
        let saved = termios::tcgetattr(stdin).ok();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            termios::cfmakeraw(&mut raw);
            termios::tcsetattr(stdin, SetArg::TCSANOW, &raw).doing(|| "set up the caller's terminal")?;
        }
        let (out, unprinted) = (reopen_output(), vec![]);
        Ok(Self { master, pending: vec![], out, unprinted, stdin_open: true, is_open: true, saved })
    }

    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// More is wanted from the caller's standard input.
    pub fn wants_input(&self) -> bool {
        self.stdin_open && self.pending.is_empty()
    }

    /// Something waits for room in the pty.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The size of the caller's terminal, if it has one.
    pub fn caller_size() -> Option<WindowSize> {
        tty::window_size(standard_stream(0)).ok()
    }

    /// The pty takes the size of the caller's terminal (SIGWINCH).
    pub fn resize(&self) {
        // A pty whose other end is gone needs no size.
        if let Some(size) = Self::caller_size() {
            let _ = tty::set_window_size(self.master.as_fd(), size);
        }
    }

    /// Reads what the caller typed.
    pub fn read_input(&mut self) {
        let mut chunk = [0; 4096];
        match nix::unistd::read(standard_stream(0), &mut chunk) {
            Ok(0) => self.stdin_open = false,
            Ok(length) => self.pending.extend_from_slice(&chunk[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.stdin_open = false,
        }
        self.write_pending();
    }

    /// Gives the pty what it takes.
    pub fn write_pending(&mut self) {
        match nix::unistd::write(&self.master, &self.pending) {
            Ok(length) => _ = self.pending.drain(..length),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Nobody has the other end open any more.
            Err(_) => self.pending.clear(),
        }
    }

    /// Reads some of what the container wrote, if all before it is printed, and prints what the caller takes at once. Gives
    /// whether there was any.
    ///
    /// A container that never stops writing, or a reader that stops reading, must not keep its signals from it.
    pub fn copy_output(&mut self) -> bool {
        if self.has_unprinted() {
            return false;
        }
        let mut chunk = [0; 16384];
        match nix::unistd::read(&self.master, &mut chunk) {
            Ok(length) if length > 0 => {
                self.unprinted.extend_from_slice(&chunk[..length]);
                self.print();
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // EIO: the last process with the other end open is gone.
            Ok(_) | Err(_) => {
                self.is_open = false;
                false
            }
        }
    }

    /// The caller has still to take what the container wrote.
    pub fn has_unprinted(&self) -> bool {
        !self.unprinted.is_empty()
    }

    /// What is waited for while there is something to print.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.out.as_ref().map_or(standard_stream(1), |out| out.as_fd())
    }

    /// Prints what the caller takes now.
    pub fn print(&mut self) {
        match nix::unistd::write(self.output(), &self.unprinted) {
            Ok(length) => drop(self.unprinted.drain(..length)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Nobody reads any more.
            Err(_) => self.unprinted.clear(),
        }
    }
}

/// Standard output with an open file description of its own, so that O_NONBLOCK is nobody else's; a file's would have another
/// offset.
fn reopen_output() -> Option<OwnedFd> {
    let kind = nix::sys::stat::fstat(standard_stream(1)).ok()?.st_mode & libc::S_IFMT;
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let can_be = kind == libc::S_IFIFO || kind == libc::S_IFCHR;
    can_be.then(|| nix::fcntl::open("/proc/self/fd/1", flags, nix::sys::stat::Mode::empty()).ok()).flatten()
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // The caller's terminal may be gone with the caller.
            let _ = termios::tcsetattr(standard_stream(0), SetArg::TCSANOW, saved);
        }
    }
}
