//! The other side as a script: what a real bus does only when it is broken, old, or not there.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, listen};

use super::address::Target;
use super::{Call, Connection, Kind, Message, Patience, Value};
use crate::error::Error;

const ACCEPTED: &[u8] = b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n";
const CALL: Call<'static> = Call { destination: "a.b", path: "/a", interface: "a.b", member: "Do", args: vec![] };

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn shortly() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

/// An abstract socket of nobody else.
fn listener() -> (UnixListener, Target) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("kelson-dbus-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    (UnixListener::bind_addr(&address).unwrap(), Target::Abstract(name.into()))
}

/// A peer that does `script` with the one that connects.
fn peer<T: Send + 'static>(script: impl FnOnce(UnixStream) -> T + Send + 'static) -> (Target, JoinHandle<T>) {
    let (listener, target) = listener();
    (target, thread::spawn(move || script(listener.accept().unwrap().0)))
}

/// Reads up to the end of the authentication.
fn read_authentication(stream: &mut UnixStream) {
    let mut read = vec![];
    while !read.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    assert_eq!(read, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
}

fn read_message(stream: &mut UnixStream) -> Message {
    let mut start = [0; 16];
    stream.read_exact(&mut start).unwrap();
    let mut bytes = start.to_vec();
    bytes.resize(Message::length(&start).unwrap(), 0);
    stream.read_exact(&mut bytes[16..]).unwrap();
    Message::decode(&bytes).unwrap()
}

fn answer(to: &Message, body: Vec<Value>) -> Vec<u8> {
    Message { kind: Kind::Return, serial: 9, reply_serial: to.serial, body, ..Message::default() }.encode().unwrap()
}

fn refused(words: &'static [u8]) -> Error {
    let (target, peer) = peer(move |mut stream| {
        read_authentication(&mut stream);
        stream.write_all(words).unwrap();
    });
    let error = Connection::to(&target, false, soon()).unwrap_err();
    peer.join().unwrap();
    error
}

#[test]
fn a_peer_without_a_bus_is_called_at_once_and_a_byte_a_time_is_enough() {
    let (target, peer) = peer(|mut stream| {
        read_authentication(&mut stream);
        ACCEPTED.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
        // No Hello, and no AddMatch.
        let call = read_message(&mut stream);
        let signal =
            Message { path: "/a".into(), interface: "a.b".into(), member: "Done".into(), ..Message::default() };
        let signal = Message { kind: Kind::Signal, serial: 8, ..signal }.encode().unwrap();
        [signal, answer(&call, vec!["given".into()])]
            .concat()
            .iter()
            .for_each(|byte| stream.write_all(&[*byte]).unwrap());
        call
    });
    let mut connection = Connection::to(&target, false, soon()).unwrap();
    connection.add_match("type='signal'", soon()).unwrap();
    assert_eq!(connection.call(&CALL, soon()).unwrap(), ["given".into()]);
    assert_eq!(connection.wait_for_signal(soon(), |signal| Some(signal.member.clone())).unwrap(), "Done");
    let call = peer.join().unwrap();
    assert_eq!((call.member.as_str(), call.destination.as_str(), call.path.as_str()), ("Do", "a.b", "/a"));
}

/// Old servers of sd-bus accept at the first line and again at the second.
#[test]
fn a_peer_that_accepts_twice_is_understood() {
    let (target, peer) = peer(|mut stream| {
        read_authentication(&mut stream);
        stream.write_all(b"OK 00\r\nOK 00\r\n").unwrap();
        let call = read_message(&mut stream);
        stream.write_all(&answer(&call, vec![])).unwrap();
    });
    let mut connection = Connection::to(&target, false, soon()).unwrap();
    assert_eq!(connection.call(&CALL, soon()).unwrap(), []);
    peer.join().unwrap();
}

#[test]
fn a_peer_that_does_not_accept_is_quoted() {
    let error = refused(b"REJECTED ANONYMOUS\r\nERROR\r\n").to_string();
    assert!(error.ends_with("does not accept this user: it says \"REJECTED ANONYMOUS, ERROR\""), "{error}");
    let error = refused(b"").to_string();
    assert!(error.ends_with(": the other side closed the connection"), "{error}");
    let error = refused(&[b'x'; 9000]).to_string();
    assert!(error.contains("a line of the authentication that does not end"), "{error}");
}

#[test]
fn bytes_that_are_no_message_end_the_call() {
    for (words, said) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], "what came is no message of D-Bus (the other side does not speak"),
        (b"l\x02\0\x02\0\0\0\0\x01\0\0\0\0\0\0\0", "what came is no message of D-Bus"),
        (b"l\x02\0\x01\xff\xff\xff\x7f\x01\0\0\0\0\0\0\0", "a message that is too long"),
        (b"l\x02\0\x01", "the other side closed the connection"),
    ] {
        let (target, peer) = peer(move |mut stream| {
            read_authentication(&mut stream);
            stream.write_all(ACCEPTED).unwrap();
            read_message(&mut stream);
            stream.write_all(words).unwrap();
        });
        let mut connection = Connection::to(&target, false, soon()).unwrap();
        let error = Error::from(connection.call(&CALL, soon()).unwrap_err()).to_string();
        assert!(error.starts_with("call Do of a.b: ") && error.contains(said), "{error}");
        peer.join().unwrap();
    }
}

#[test]
fn who_accepts_nobody_or_says_nothing_is_not_waited_for() {
    let (listener, target) = listener();
    // One that waits is enough to fill the queue.
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let error = Connection::to(&target, false, shortly()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT), "{error}");
    // It is in the queue still, and now connect(2) itself waits.
    let begun = Instant::now();
    let error = Connection::to(&target, false, shortly()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(50) && begun.elapsed() < Duration::from_secs(10));
    let error = Connection::to(&target, false, Instant::now()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT), "{error}");
}

/// There is always something to read, and never the answer.
#[test]
fn a_flood_of_signals_does_not_outlast_the_deadline() {
    let (target, peer) = peer(|mut stream| {
        read_authentication(&mut stream);
        stream.write_all(ACCEPTED).unwrap();
        let call = Message { path: "/a".into(), member: "Ping".into(), serial: 8, ..Message::default() };
        let bytes = call.encode().unwrap();
        while stream.write_all(&bytes).is_ok() {}
    });
    let mut connection = Connection::to(&target, false, soon()).unwrap();
    let begun = Instant::now();
    let error = Error::from(connection.call(&CALL, shortly()).unwrap_err());
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(connection);
    peer.join().unwrap();
}

#[test]
fn signals_that_are_kept_are_bounded() {
    let (target, peer) = peer(|mut stream| {
        read_authentication(&mut stream);
        stream.write_all(ACCEPTED).unwrap();
        let signal = Message { path: "/a".into(), interface: "a.b".into(), member: "Big".into(), ..Message::default() };
        let body = vec![Value::Bytes(vec![0; 1 << 20])];
        let bytes = Message { kind: Kind::Signal, serial: 8, body, ..signal }.encode().unwrap();
        while stream.write_all(&bytes).is_ok() {}
    });
    let mut connection = Connection::to(&target, false, soon()).unwrap();
    let error = Error::from(connection.call(&CALL, soon()).unwrap_err()).to_string();
    assert_eq!(error, "call Do of a.b: more than 16777216 bytes of signals in place of an answer");
    drop(connection);
    peer.join().unwrap();
}

/// A peer that takes nothing: the socket's buffer is full, and the call still ends.
#[test]
fn what_nobody_reads_is_not_sent_for_ever() {
    let (target, peer) = peer(|mut stream| {
        read_authentication(&mut stream);
        stream.write_all(ACCEPTED).unwrap();
        stream
    });
    let mut connection = Connection::to(&target, false, soon()).unwrap();
    let call = Call { args: vec![Value::Bytes(vec![0; 16 << 20])], ..CALL };
    let error = Error::from(connection.call(&call, shortly()).unwrap_err());
    assert_eq!(error.errno(), Some(Errno::ETIMEDOUT), "{error}");
    drop(peer.join().unwrap());
}

#[test]
fn what_interrupts_ends_every_wait() {
    let (target, peer) = peer(|mut stream| {
        read_authentication(&mut stream);
        stream.write_all(ACCEPTED).unwrap();
        let first = read_message(&mut stream);
        stream.write_all(&answer(&first, vec![])).unwrap();
        read_message(&mut stream);
        let last = read_message(&mut stream);
        stream.write_all(&answer(&last, vec![])).unwrap();
    });
    let (interrupt, mut other) = UnixStream::pair().unwrap();
    let patience = Patience { deadline: soon(), interrupt: Some(interrupt.as_fd()) };
    let mut connection = Connection::to(&target, false, patience).unwrap();
    connection.call(&CALL, soon()).unwrap();
    assert!(!connection.is_interrupted());
    other.write_all(b"x").unwrap();
    assert!(connection.is_interrupted());
    let failure = connection.call(&CALL, soon()).unwrap_err();
    assert!(!failure.is_lost());
    assert_eq!(Error::from(failure).errno(), Some(Errno::EINTR));
    let error = connection.wait_for_signal(soon(), |_| Some(())).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINTR));
    connection.forget_interrupt();
    connection.call(&CALL, soon()).unwrap();
    peer.join().unwrap();
}

#[test]
fn an_answer_is_lost_with_the_connection() {
    let (target, peer) = peer(|mut stream| {
        read_authentication(&mut stream);
        stream.write_all(ACCEPTED).unwrap();
        read_message(&mut stream);
    });
    let mut connection = Connection::to(&target, false, soon()).unwrap();
    assert!(connection.call(&CALL, soon()).unwrap_err().is_lost());
    // Without a bus there is nobody to wait for.
    connection.wait_for_service("a.b", soon()).unwrap();
    peer.join().unwrap();
}

#[test]
fn the_users_systemd_itself_is_asked_where_there_is_no_bus() {
    let directory = std::env::temp_dir().join(format!("kelson-dbus-user-{}", std::process::id()));
    fs::create_dir_all(directory.join("systemd")).unwrap();
    let (bus, private) = (directory.join("bus"), directory.join("systemd/private"));
    let first =
        |deadline| Connection::first(bus.clone(), Some(private.clone()), || "the way out", Patience::from(deadline));

    let error = first(soon()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    let expected = format!("connect to {}: no such file or directory (the way out)", bus.display());
    assert_eq!(error.to_string(), expected);

    let listener = UnixListener::bind(&private).unwrap();
    let serving = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        read_authentication(&mut stream);
        stream.write_all(ACCEPTED).unwrap();
        // No Hello: it is for a bus.
        assert_eq!(read_message(&mut stream).member, "Do");
    });
    // The socket of a bus that has ended stays behind.
    drop(UnixListener::bind(&bus).unwrap());
    let error = Error::from(first(soon()).unwrap().call(&CALL, soon()).unwrap_err()).to_string();
    assert!(error.ends_with("the other side closed the connection"), "{error}");
    serving.join().unwrap();
    fs::remove_dir_all(&directory).unwrap();
}
