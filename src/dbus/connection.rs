//! A connection to a bus, or to a peer without one: authentication, calls, signals.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, connect, recv, send, setsockopt, socket};
use nix::sys::time::TimeVal;

use super::address::{self, Target};
use super::message::{FIXED, Kind, Message};
use super::value::Value;
use super::wire::malformed;
use crate::error::{self, Context, Error, Result};

/// The bus itself, as the one that is called.
const BUS: &str = "org.freedesktop.DBus";
/// Each command, and after it so many lines are answered. The response is empty: the kernel tells the other side who this is,
/// and in a user namespace this side does not know (sd-bus and dbus-broker do the same).
const AUTHENTICATION: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
const ANSWERS: usize = 2;
/// Longest line of the authentication.
const MAX_LINE: usize = 4096;
/// Most bytes of signals that are kept while something else is waited for.
const MAX_QUEUED: usize = 16 << 20;
/// Read at once.
const CHUNK: usize = 16 << 10;

/// A method and its arguments.
pub struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub args: Vec<Value>,
}

/// Why a call gave no values.
#[derive(Debug)]
pub enum Failure {
    /// The other side answered with an error.
    Refused { name: String, error: Error },
    /// There is no answer.
    Failed(Error),
}

impl Failure {
    /// Whether the answer is the error `name`, e.g. `org.freedesktop.systemd1.NoSuchUnit`.
    pub fn is(&self, error_name: &str) -> bool {
        matches!(self, Failure::Refused { name, .. } if name == error_name)
    }
}

/// A service that was called, and left before it answered (dbus-daemon, dbus-broker).
const NO_REPLY: &str = "org.freedesktop.DBus.Error.NoReply";
/// One that should be there and cannot be started: dbus-daemon, and dbus-broker.
const NOT_STARTED: [&str; 2] =
    ["org.freedesktop.DBus.Error.Spawn.ChildExited", "org.freedesktop.DBus.Error.NameHasNoOwner"];

impl Failure {
    /// The answer is lost: whether what was asked for is done nobody tells.
    pub fn is_lost(&self) -> bool {
        match self {
            Failure::Refused { .. } => self.is(NO_REPLY),
            Failure::Failed(error) => error.errno() == Some(Errno::ECONNRESET),
        }
    }

    /// The service is not on the bus, which knows of it.
    pub fn is_absent(&self) -> bool {
        NOT_STARTED.iter().any(|name| self.is(name))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { error, .. } | Failure::Failed(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}

/// How long something is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    pub deadline: Instant,
    /// That it can be read ends every wait, also those of later calls, with EINTR.
    pub interrupt: Option<BorrowedFd<'a>>,
}

impl From<Instant> for Patience<'_> {
    fn from(deadline: Instant) -> Self {
        Patience { deadline, interrupt: None }
    }
}

#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    interrupt: Option<OwnedFd>,
    /// Without a bus the other side is the service itself.
    has_bus: bool,
    serial: u32,
    /// What came and is no whole message yet.
    incoming: Vec<u8>,
    /// Signals that came during a call, with their length in bytes.
    signals: VecDeque<(usize, Message)>,
    /// Names that were called, and which connection answered for each.
    peers: Vec<(String, String)>,
}

impl Connection {
    /// Connects to the bus at `address`, e.g. `unix:path=/run/dbus/system_bus_socket`: the first of several that takes it.
    pub fn open<'a>(address: &str, patience: impl Into<Patience<'a>>) -> Result<Self> {
        let patience = patience.into();
        let mut refused = None;
        for target in address::parse(address)? {
            match Self::to(&target, true, patience) {
                Ok(connection) => return Ok(connection),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::other("no address")))
    }

    /// Connects to `target`, and says hello if it is a bus.
    pub(super) fn to<'a>(target: &Target, has_bus: bool, patience: impl Into<Patience<'a>>) -> Result<Self> {
        let Patience { deadline, interrupt } = patience.into();
        let doing = || format!("connect to {target}");
        let socket = connected(target, deadline).doing(doing)?;
        let interrupt = interrupt.map(|fd| fd.try_clone_to_owned()).transpose().doing(doing)?;
        let (incoming, signals, peers) = (vec![], VecDeque::new(), vec![]);
        let mut connection = Self { socket, interrupt, has_bus, serial: 0, incoming, signals, peers };
        connection.authenticate(deadline).doing(doing)?;
        Ok(connection)
    }

    /// Authentication and, for a bus, the call that it wants first: sent at once.
    fn authenticate(&mut self, deadline: Instant) -> Result<()> {
        let mut bytes = AUTHENTICATION.to_vec();
        let hello = if self.has_bus { Some(self.numbered(&Call::of_bus("Hello", vec![]))) } else { None };
        if let Some(hello) = &hello {
            bytes.extend(hello.encode()?);
        }
        self.send(&bytes, deadline)?;
        let mut lines = vec![];
        for _ in 0..ANSWERS {
            lines.push(self.line(deadline)?);
        }
        if !lines.iter().any(|line| line.starts_with("OK ")) {
            let said = lines.join(", ");
            return Err(Error::other(format!("the other side does not accept this user: it says {said:?}")));
        }
        match hello {
            Some(hello) => Ok(self.answer(BUS, hello.serial, deadline).map(drop)?),
            None => Ok(()),
        }
    }

    /// Calls a method and gives what it returns.
    ///
    /// # Errors
    /// [`Failure::Refused`] with the error that the other side answers; otherwise ETIMEDOUT where there is no answer at `deadline`.
    pub fn call(&mut self, call: &Call<'_>, deadline: Instant) -> Result<Vec<Value>, Failure> {
        let begun = Instant::now();
        let what = || format!("call {} of {}", call.member, call.destination);
        match self.exchange(call, deadline) {
            Ok(values) => Ok(values),
            Err(Failure::Refused { name, error }) => Err(Failure::Refused { name, error: named(error, what()) }),
            Err(Failure::Failed(error)) if error.errno() == Some(Errno::ETIMEDOUT) => {
                let waited = begun.elapsed().as_secs_f32();
                let error = Error::new(error.kind(), format!("no answer in {waited:.1} s"));
                Err(Failure::Failed(named(error, what())))
            }
            Err(Failure::Failed(error)) => Err(Failure::Failed(named(error, what()))),
        }
    }

    fn exchange(&mut self, call: &Call<'_>, deadline: Instant) -> Result<Vec<Value>, Failure> {
        let message = self.numbered(call);
        self.send(&message.encode()?, deadline)?;
        self.answer(call.destination, message.serial, deadline)
    }

    /// Waits until the service `name` is on the bus again, which has left it: answers that it owed will not come. A peer without
    /// a bus is there.
    pub fn wait_for_service(&mut self, name: &str, deadline: Instant) -> Result<()> {
        if !self.has_bus {
            return Ok(());
        }
        // Before it is asked for: it may come at once.
        let rule = format!("type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{name}'");
        self.add_match(&rule, deadline)?;
        match self.call(&Call::of_bus("GetNameOwner", vec![name.into()]), deadline) {
            Err(Failure::Refused { .. }) => {}
            other => return Ok(other.map(drop)?),
        }
        let comes = |signal: &Message| match signal.body.as_slice() {
            [own, _, owner] => {
                let is_it = signal.member == "NameOwnerChanged" && own.as_str() == Some(name);
                (is_it && owner.as_str().is_some_and(|owner| !owner.is_empty())).then_some(())
            }
            _ => None,
        };
        self.wait_for_signal(deadline, comes).doing(|| format!("wait for {name}"))
    }

    /// What interrupts has happened.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt().is_some_and(|fd| {
            let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        })
    }

    pub fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.interrupt.as_ref().map(AsFd::as_fd)
    }

    /// From now on nothing interrupts.
    pub fn forget_interrupt(&mut self) {
        self.interrupt = None;
    }

    /// Asks the bus for the signals that `rule` describes (D-Bus specification, "Match Rules"); a peer sends them unasked.
    pub fn add_match(&mut self, rule: &str, deadline: Instant) -> Result<()> {
        if self.has_bus {
            self.call(&Call::of_bus("AddMatch", vec![rule.into()]), deadline)?;
        }
        Ok(())
    }

    /// Waits for the signal that `wanted` gives something for. Those before it, also those that came during a call, are
    /// shown to it and forgotten; it sees only signals of services that this connection has called.
    ///
    /// # Errors
    /// ETIMEDOUT where there is none at `deadline`.
    pub fn wait_for_signal<T>(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&Message) -> Option<T>,
    ) -> Result<T> {
        loop {
            let message = match self.signals.pop_front() {
                Some((_, message)) => message,
                None => self.receive(deadline)?.1,
            };
            if message.kind == Kind::Signal
                && self.is_of_a_peer(&message, deadline)?
                && let Some(found) = wanted(&message)
            {
                return Ok(found);
            }
        }
    }

    /// Whether a service that was called sent `signal`: anybody on a bus may send one that looks the same.
    fn is_of_a_peer(&mut self, signal: &Message, deadline: Instant) -> Result<bool> {
        if !self.has_bus || self.peers.iter().any(|(_, connection)| *connection == signal.sender) {
            return Ok(true);
        }
        // A service that executes itself anew, as systemd does, comes back as another connection.
        for index in 0..self.peers.len() {
            let name = self.peers[index].0.clone();
            let owner = match self.call(&Call::of_bus("GetNameOwner", vec![name.as_str().into()]), deadline) {
                Err(Failure::Refused { .. }) => continue,
                other => other?,
            };
            if owner.first().and_then(Value::as_str) == Some(&signal.sender) {
                self.peers[index].1.clone_from(&signal.sender);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn numbered(&mut self, call: &Call<'_>) -> Message {
        self.serial += 1;
        Message {
            serial: self.serial,
            destination: call.destination.to_owned(),
            path: call.path.to_owned(),
            interface: call.interface.to_owned(),
            member: call.member.to_owned(),
            body: call.args.clone(),
            ..Message::default()
        }
    }

    /// Waits for the answer to the message `serial`; signals that come meanwhile are kept.
    fn answer(&mut self, destination: &str, serial: u32, deadline: Instant) -> Result<Vec<Value>, Failure> {
        loop {
            let (length, message) = self.receive(deadline)?;
            match message.kind {
                Kind::Signal => self.keep(length, message)?,
                Kind::Return if message.reply_serial == serial => {
                    self.remember(destination, message.sender);
                    return Ok(message.body);
                }
                Kind::Error if message.reply_serial == serial => {
                    let error = refusal(destination, &message);
                    return Err(Failure::Refused { name: message.error_name, error });
                }
                // Calls of this process, which serves nothing, and answers that came too late.
                _ => {}
            }
        }
    }

    fn keep(&mut self, length: usize, signal: Message) -> Result<()> {
        let queued: usize = self.signals.iter().map(|(length, _)| length).sum();
        if queued + length > MAX_QUEUED {
            return Err(Error::other(format!("more than {MAX_QUEUED} bytes of signals in place of an answer")));
        }
        self.signals.push_back((length, signal));
        Ok(())
    }

    fn remember(&mut self, destination: &str, sender: String) {
        match self.peers.iter_mut().find(|(name, _)| name == destination) {
            Some((_, connection)) => *connection = sender,
            None => self.peers.push((destination.to_owned(), sender)),
        }
    }

    /// The next message, with its length in bytes.
    fn receive(&mut self, deadline: Instant) -> Result<(usize, Message)> {
        loop {
            let length = match self.incoming.first_chunk::<FIXED>() {
                Some(start) => Message::length(start)?,
                None => usize::MAX,
            };
            if let Some(bytes) = self.incoming.get(..length) {
                let message = Message::decode(bytes)?;
                self.incoming.drain(..length);
                return Ok((length, message));
            }
            self.fill(deadline)?;
        }
    }

    /// The next line of the authentication.
    fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(end) = self.incoming.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.incoming[..end]).into_owned();
                self.incoming.drain(..end + 2);
                return Ok(line);
            }
            if self.incoming.len() > MAX_LINE {
                return Err(malformed("a line of the authentication that does not end"));
            }
            self.fill(deadline)?;
        }
    }

    /// Reads what is there, or waits for something to read.
    fn fill(&mut self, deadline: Instant) -> Result<()> {
        loop {
            self.wait(PollFlags::POLLIN, deadline)?;
            let mut chunk = [0; CHUNK];
            match recv(self.socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Ok(0) | Err(Errno::ECONNRESET) => return Err(closed()),
                received => {
                    self.incoming.extend_from_slice(&chunk[..received?]);
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT, deadline)?,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(closed()),
                sent => rest = &rest[sent?..],
            }
        }
        Ok(())
    }

    /// Waits until the socket can be read or written, ETIMEDOUT at `deadline` and EINTR by what interrupts, also if it can always.
    fn wait(&self, flags: PollFlags, deadline: Instant) -> nix::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Errno::ETIMEDOUT);
            }
            // Rounded up, so that the last wait does not spin; longer than a PollTimeout holds is asked again.
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let interrupt = self.interrupt().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let mut polled: Vec<_> = [PollFd::new(self.socket.as_fd(), flags)].into_iter().chain(interrupt).collect();
            match poll(&mut polled, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if polled.get(1).is_some_and(|interrupt| interrupt.any() == Some(true)) => {
                    return Err(Errno::EINTR);
                }
                other => return other.map(drop),
            }
        }
    }
}

impl<'a> Call<'a> {
    /// A method of the bus itself.
    fn of_bus(member: &'a str, args: Vec<Value>) -> Self {
        Self { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member, args }
    }
}

/// The error that `message` is, with the way out where there is one.
fn refusal(destination: &str, message: &Message) -> Error {
    let error = Error::other(format!("{} ({})", message.text(), message.error_name));
    match message.error_name.strip_prefix(BUS).unwrap_or_default() {
        ".Error.ServiceUnknown" | ".Error.NameHasNoOwner" if destination != BUS => {
            error.hint(format!("{destination} is not on this bus: DBUS_SESSION_BUS_ADDRESS may name another session's"))
        }
        ".Error.AccessDenied" | ".Error.InteractiveAuthorizationRequired" => {
            error.hint("only root may do this on the system's bus; another user needs a session of their own (loginctl enable-linger)")
        }
        _ => error,
    }
}

fn named(error: Error, what: String) -> Error {
    let Err(error) = Err::<Infallible, _>(error).doing(|| what);
    error
}

fn closed() -> Error {
    Error::new(error::Kind::System(Errno::ECONNRESET), "the other side closed the connection")
}

fn connected(target: &Target, deadline: Instant) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // How long connect(2) waits where too many do already (unix_stream_connect; 0 would be for ever).
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
    let micros = left.as_micros().min(i64::MAX as u128) as i64;
    setsockopt(&socket, SendTimeout, &TimeVal::new(micros / 1_000_000, micros % 1_000_000))?;
    match connect(socket.as_raw_fd(), &target.socket_address()?) {
        Err(Errno::EAGAIN) => Err(Errno::ETIMEDOUT.into()),
        other => Ok(other.map(|()| socket)?),
    }
}
