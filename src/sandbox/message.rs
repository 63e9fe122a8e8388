//! What the container process asks its parent while it is being set up, and the answers.
//!
//! ```text
//!   container process               parent
//!   MapIds        ────────────────▶ writes uid_map, gid_map
//!                 ◀──────────────── Done [descriptors of mount sources, as many as fit; none for a stage that asks]
//!   Sources n     ────────────────▶ opens the last n of the mount sources that the container has no right to open
//!                 ◀──────────────── Done [descriptors]
//!   Overlay error ────────────────▶ has fuse-overlayfs make the overlay that the kernel refused [descriptor of the user
//!                                   namespace, if it is the container's own]
//!                 ◀──────────────── Done [descriptor of the mount]
//!   RunHostHooks  ────────────────▶ runs prestart and createRuntime hooks in the host's namespaces; by then the record names
//!                                   this process, and createContainer hooks may ask for it
//!                 ◀──────────────── Done
//!   Console + fd  ────────────────▶ the pty's master: to the console socket, or relayed by a foreground run
//!   Listener n    ────────────────▶ takes descriptor n (seccomp notification) and hands it to the listener
//!                 ◀──────────────── Done
//!   Born pid + fd ────────────────▶ from a stage: the process that becomes the container's, with a pidfd
//!                 ◀──────────────── Done, to the one that is born: it says nothing before
//!   Warn text     ────────────────▶ logs it
//!   Times steps   ────────────────▶ keeps how long they took; only if that is asked for (--timings)
//!   SetRlimits    ────────────────▶ sets rlimits, which a process in a user namespace may not raise
//!                 ◀──────────────── Done
//!   Ready         ────────────────▶ saves the state, writes the pid file
//!                 ◀──────────────── Commit (create: wait on the start socket) or Start (run: go on to execve)
//!   Executing     ────────────────▶ nothing is left to be done but to load the filter and execve(2)
//!   Failed error  ────────────────▶ reports it
//!   end of file                     execve succeeded; without Executing before it the process died
//! ```
//!
//! One `SOCK_SEQPACKET` pair a container process: a message is one packet, end of file means that the peer is gone.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg, sendmsg,
    shutdown, socketpair,
};

use crate::error::{Context, Error, Result};
use crate::sys::fd;

/// Longest packet; a longer text is cut.
const MAX_PACKET: usize = 8192;
/// Most descriptors in one packet (SCM_MAX_FD, unix(7)).
pub const MAX_FDS: usize = 253;

/// What a process says before execve(2), to its parent or to `start`: no error begins with it.
pub const EXECUTING: u8 = b'x';

/// From the container process (or its stage) to the parent.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    MapIds,
    Sources(i32),
    /// Why the kernel does not make it, as [`Error::encode`] gives it; empty where it was not asked.
    Overlay(Vec<u8>),
    RunHostHooks,
    SetRlimits,
    Console,
    Listener(RawFd),
    Born(i32),
    Warn(String),
    /// What [`crate::timings::Laps::told`] gives.
    Times(Vec<u8>),
    Ready,
    Executing,
    /// What [`Error::encode`] gives.
    Failed(Vec<u8>),
}

/// From the parent to the container process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Commit,
    Start,
}

impl Ask {
    /// What the parent does about it, for its timings.
    pub fn served(&self) -> &'static str {
        match self {
            Ask::MapIds => "write id maps and open mount sources",
            Ask::Sources(_) => "open mount sources",
            Ask::Overlay(_) => "start fuse-overlayfs",
            Ask::RunHostHooks => "run host hooks and move network devices",
            Ask::SetRlimits => "set rlimits",
            Ask::Console => "pass on the terminal",
            Ask::Listener(_) => "hand over the seccomp listener",
            Ask::Born(_) | Ask::Warn(_) | Ask::Times(_) | Ask::Ready | Ask::Executing | Ask::Failed(_) => "listen",
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (tag, payload): (u8, &[u8]) = match self {
            Ask::MapIds => (b'm', &[]),
            Ask::Sources(taken) => (b's', &taken.to_ne_bytes()),
            Ask::Overlay(refusal) => (b'o', refusal),
            Ask::RunHostHooks => (b'h', &[]),
            Ask::SetRlimits => (b'u', &[]),
            Ask::Console => (b'c', &[]),
            Ask::Listener(number) => (b'l', &number.to_ne_bytes()),
            Ask::Born(pid) => (b'b', &pid.to_ne_bytes()),
            Ask::Warn(text) => (b'w', text.as_bytes()),
            Ask::Times(steps) => (b't', steps),
            Ask::Ready => (b'r', &[]),
            Ask::Executing => (EXECUTING, &[]),
            Ask::Failed(error) => (b'f', error),
        };
        let mut packet = vec![tag];
        packet.extend_from_slice(&payload[..payload.len().min(MAX_PACKET - 1)]);
        packet
    }

    fn decode(packet: &[u8]) -> Result<Self> {
        let number = |bytes: &[u8]| Some(i32::from_ne_bytes(bytes.try_into().ok()?));
        let decoded = match packet {
            [b'm'] => Some(Ask::MapIds),
            [b's', bytes @ ..] => number(bytes).map(Ask::Sources),
            [b'o', refusal @ ..] => Some(Ask::Overlay(refusal.to_vec())),
            [b'h'] => Some(Ask::RunHostHooks),
            [b'u'] => Some(Ask::SetRlimits),
            [b'c'] => Some(Ask::Console),
            [b'l', bytes @ ..] => number(bytes).map(Ask::Listener),
            [b'b', bytes @ ..] => number(bytes).map(Ask::Born),
            [b'w', text @ ..] => Some(Ask::Warn(String::from_utf8_lossy(text).into_owned())),
            [b't', steps @ ..] => Some(Ask::Times(steps.to_vec())),
            [b'r'] => Some(Ask::Ready),
            [EXECUTING] => Some(Ask::Executing),
            [b'f', error @ ..] => Some(Ask::Failed(error.to_vec())),
            _ => None,
        };
        decoded.ok_or_else(|| Error::other("malformed message from the container process"))
    }
}

impl Answer {
    fn decode(packet: &[u8]) -> Result<Self> {
        match packet {
            b"d" => Ok(Answer::Done),
            b"c" => Ok(Answer::Commit),
            b"s" => Ok(Answer::Start),
            _ => Err(Error::other("malformed answer from the parent process")),
        }
    }

    fn encode(self) -> &'static [u8] {
        match self {
            Answer::Done => b"d",
            Answer::Commit => b"c",
            Answer::Start => b"s",
        }
    }
}

const HEAR_CHILD: fn() -> &'static str = || "hear the container's process";

/// The parent's end.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// The container process's end.
#[derive(Debug)]
pub struct ChildEnd(OwnedFd);

/// A connected pair, close-on-exec on both sides.
pub fn pair() -> nix::Result<(ParentEnd, ChildEnd)> {
    let (parent, child) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((ParentEnd(parent), ChildEnd(child)))
}

impl ParentEnd {
    /// The peer's waits end: it reads end of file.
    pub fn hang_up(&self) {
        // A peer that is gone waits for nothing.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// There is a message, or the peer is gone: [`ParentEnd::receive`] does not wait.
    pub fn is_readable(&self) -> Result<bool> {
        loop {
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                ready => return Ok(ready.doing(HEAR_CHILD)? > 0),
            }
        }
    }

    /// The next message and the descriptors with it; `None` when the peer is gone.
    pub fn receive(&self) -> Result<Option<(Ask, Vec<OwnedFd>)>> {
        match receive(self.0.as_fd()).doing(HEAR_CHILD)? {
            None => Ok(None),
            Some((packet, fds)) => Ok(Some((Ask::decode(&packet)?, fds))),
        }
    }

    pub fn answer(&self, answer: Answer, fds: &[RawFd]) -> Result<()> {
        send(self.0.as_fd(), answer.encode(), fds).doing(|| "answer the container's process")
    }
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ChildEnd {
    pub fn tell(&self, ask: &Ask) -> Result<()> {
        // write(2): a seccomp filter with a listener never holds it up (plan/ refuses to notify of it).
        let packet = ask.encode();
        loop {
            match nix::unistd::write(&self.0, &packet) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop).doing(|| "tell the parent process"),
            }
        }
    }

    pub fn tell_with_fd(&self, ask: &Ask, fd: BorrowedFd<'_>) -> Result<()> {
        send(self.0.as_fd(), &ask.encode(), &[fd.as_raw_fd()]).doing(|| "tell the parent process")
    }

    /// The parent's next answer and the descriptors with it.
    ///
    /// # Errors
    /// A state error when the parent is gone: the container was never committed and this process must end.
    pub fn wait(&self) -> Result<(Answer, Vec<OwnedFd>)> {
        match receive(self.0.as_fd()).doing(|| "hear the parent process")? {
            None => Err(Error::state("the parent process ended")),
            Some((packet, fds)) => Ok((Answer::decode(&packet)?, fds)),
        }
    }
}

/// For another program, which has it as one of its standard streams.
impl From<ChildEnd> for OwnedFd {
    fn from(end: ChildEnd) -> Self {
        end.0
    }
}

impl From<OwnedFd> for ChildEnd {
    fn from(end: OwnedFd) -> Self {
        Self(end)
    }
}

impl AsFd for ChildEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn send(socket: BorrowedFd<'_>, packet: &[u8], fds: &[RawFd]) -> Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(packet)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(Error::from),
        }
    }
}

fn receive(socket: BorrowedFd<'_>) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut packet = vec![0; MAX_PACKET];
    let mut control = cmsg_space!([RawFd; MAX_FDS]);
    let (length, fds) = loop {
        let mut buffers = [std::io::IoSliceMut::new(&mut packet)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            // The peer died with messages of ours unread: the same as end of file.
            Err(Errno::ECONNRESET) => break (0, vec![]),
            Err(errno) => return Err(errno.into()),
            Ok(message) => {
                let mut fds = vec![];
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(received) = control {
                        fds.extend(fd::adopt_received(&received));
                    }
                }
                break (message.bytes, fds);
            }
        }
    };
    packet.truncate(length);
    Ok((length > 0).then_some((packet, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let asks = [
            Ask::MapIds,
            Ask::Sources(253),
            Ask::Overlay(b"refused".to_vec()),
            Ask::RunHostHooks,
            Ask::SetRlimits,
            Ask::Console,
            Ask::Listener(7),
            Ask::Born(42),
            Ask::Warn("careful".into()),
            Ask::Times(b"steps".to_vec()),
            Ask::Ready,
            Ask::Executing,
            Ask::Failed(b"no /init".to_vec()),
        ];
        let (parent, child) = pair().unwrap();
        for ask in asks {
            child.tell(&ask).unwrap();
            assert_eq!(parent.receive().unwrap().unwrap().0, ask);
        }
        for answer in [Answer::Done, Answer::Commit, Answer::Start] {
            parent.answer(answer, &[]).unwrap();
            assert_eq!(child.wait().unwrap().0, answer);
        }
    }

    #[test]
    fn a_long_failure_is_cut_not_lost() {
        assert_eq!(Ask::Failed(vec![b'x'; 90_000]).encode().len(), MAX_PACKET);
    }

    #[test]
    fn descriptors_travel_and_a_dead_peer_is_end_of_file() {
        let (parent, child) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        child.tell_with_fd(&Ask::Console, file.as_fd()).unwrap();
        assert_eq!(parent.receive().unwrap().unwrap().1.len(), 1);
        drop(child);
        assert!(parent.receive().unwrap().is_none());
    }
}
