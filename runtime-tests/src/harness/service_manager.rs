//! A bus with a service manager on it that does as the test says: what systemd does only when something is wrong with it.
//!
//! It speaks as much of D-Bus as a runtime needs to start and stop a unit, and makes no cgroup.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Context, Outcome};

const BUS: &str = "org.freedesktop.DBus";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";
/// What the manager is called on the bus, and the runtime.
const OWN: &str = ":1.0";
const CALLER: &str = ":1.1";

/// What the manager does with a call.
pub enum Answer {
    /// Says nothing, for ever.
    Silence,
    /// Says nothing, for ever, to nobody: the bus goes.
    Gone,
    /// Refuses it with the error of this name and text.
    Error(&'static str, &'static str),
    /// Makes a job, which ends at once with this result.
    Job(&'static str),
    /// Makes a job that does not end.
    HangingJob,
    /// Gives a variant that holds this text: a property.
    Property(String),
    /// Gives an object's path.
    Object(String),
    /// Agrees.
    Nothing,
}

/// A call: the method and its first argument, where that is a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub member: String,
    pub first: String,
    /// The object.
    pub path: String,
}

/// A bus of the test's own, until it is dropped, which waits for those that are connected to end.
pub struct ServiceManager {
    /// For DBUS_SYSTEM_BUS_ADDRESS or DBUS_SESSION_BUS_ADDRESS.
    pub address: String,
    calls: Arc<Mutex<Vec<Call>>>,
    socket: PathBuf,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl ServiceManager {
    /// Listens; `decide` says what is done with each call of the manager.
    pub fn start(ctx: &Context, decide: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Outcome<Self> {
        let socket = ctx.dir.join(format!("bus{}", ctx.next()));
        let listener = UnixListener::bind(&socket)?;
        // A user's runtime connects as well.
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777))?;
        let calls = Arc::new(Mutex::new(vec![]));
        let is_over = Arc::new(AtomicBool::new(false));
        let (heard, decide, over) = (calls.clone(), Arc::new(decide), is_over.clone());
        let listening = thread::spawn(move || {
            let mut serving = vec![];
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (heard, decide) = (heard.clone(), decide.clone());
                // A runtime that goes away in the middle ends this, and is judged by what it says.
                serving.push(thread::spawn(move || serve(stream, &heard, &*decide)));
            }
            for one in serving {
                let _ = one.join();
            }
        });
        let address = format!("unix:path={}", socket.display());
        Ok(Self { address, calls, socket, is_over, listening: Some(listening) })
    }

    /// The calls of the manager so far, `METHOD FIRST`.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|call| format!("{} {}", call.member, call.first).trim_end().to_owned()).collect()
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It looks when somebody connects.
        if UnixStream::connect(&self.socket).is_ok()
            && let Some(listening) = self.listening.take()
        {
            let _ = listening.join();
        }
    }
}

fn serve(mut stream: UnixStream, heard: &Mutex<Vec<Call>>, decide: &dyn Fn(&Call) -> Answer) -> std::io::Result<()> {
    let mut line = vec![];
    while !line.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    // sd-bus and Kelson send an empty response after the mechanism, others their user id with it.
    let asks_for_data = String::from_utf8_lossy(&line).contains("\r\nDATA");
    let accepted: &[u8] = if asks_for_data { b"DATA\r\nOK 00\r\n" } else { b"OK 00\r\n" };
    stream.write_all(accepted)?;
    let mut jobs = 0;
    loop {
        let (serial, destination, call) = read_call(&mut stream)?;
        let reply = |body: Body| Message::reply(2, serial).body(body).bytes();
        if destination == BUS {
            let body = match call.member.as_str() {
                "Hello" => Body::default().text("s", CALLER),
                "GetNameOwner" => Body::default().text("s", OWN),
                _ => Body::default(),
            };
            stream.write_all(&reply(body))?;
            continue;
        }
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        let job = format!("{PATH}/job/{}", jobs + 7);
        match decide(&call) {
            Answer::Silence => {}
            Answer::Gone => return Ok(()),
            Answer::Nothing => stream.write_all(&reply(Body::default()))?,
            Answer::Property(text) => stream.write_all(&reply(Body::default().text_in_variant(&text)))?,
            Answer::Object(path) => stream.write_all(&reply(Body::default().text("o", &path)))?,
            Answer::Error(name, text) => {
                let message = Message::reply(3, serial).field(4, "s", name).body(Body::default().text("s", text));
                stream.write_all(&message.bytes())?;
            }
            Answer::HangingJob => {
                stream.write_all(&reply(Body::default().text("o", &job)))?;
                jobs += 1;
            }
            Answer::Job(result) => {
                stream.write_all(&reply(Body::default().text("o", &job)))?;
                let body = Body::default().number(jobs + 7).text("o", &job).text("s", &call.first).text("s", result);
                let signal = Message::new(4).field(1, "o", PATH).field(2, "s", MANAGER).field(3, "s", "JobRemoved");
                stream.write_all(&signal.body(body).bytes())?;
                jobs += 1;
            }
        }
    }
}

/// Serial, destination and what is called; messages of other kinds are passed over.
fn read_call(stream: &mut UnixStream) -> std::io::Result<(u32, String, Call)> {
    let mut start = [0; 16];
    stream.read_exact(&mut start)?;
    let number = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or_else(broken)
    };
    let (body_length, serial, fields_length) = (number(&start, 4)?, number(&start, 8)?, number(&start, 12)?);
    let mut fields = vec![0; (fields_length as usize).next_multiple_of(8)];
    stream.read_exact(&mut fields)?;
    let mut body = vec![0; body_length as usize];
    stream.read_exact(&mut body)?;
    let text = |bytes: &[u8], at: usize| {
        let length = number(bytes, at)? as usize;
        let text = bytes.get(at + 4..at + 4 + length).ok_or_else(broken)?;
        std::io::Result::Ok(String::from_utf8_lossy(text).into_owned())
    };
    let [mut path, mut member, mut destination, mut signature] = [const { String::new() }; 4];
    let mut at = 0;
    // Each is a byte, the signature of one type (a length, a letter, a NUL), and the value.
    while at < fields_length as usize {
        let (code, kind) = (fields[at], *fields.get(at + 2).ok_or_else(broken)?);
        at += 4;
        let value = match kind {
            b's' | b'o' => {
                let value = text(&fields, at)?;
                at += 4 + value.len() + 1;
                value
            }
            b'g' => {
                let length = usize::from(*fields.get(at).ok_or_else(broken)?);
                let value = fields.get(at + 1..at + 1 + length).ok_or_else(broken)?;
                at += 1 + length + 1;
                String::from_utf8_lossy(value).into_owned()
            }
            _ => {
                at += 4;
                String::new()
            }
        };
        at = at.next_multiple_of(8);
        match code {
            1 => path = value,
            3 => member = value,
            6 => destination = value,
            8 => signature = value,
            _ => {}
        }
    }
    let first = if signature.starts_with('s') { text(&body, 0)? } else { String::new() };
    Ok((serial, destination, Call { member, first, path }))
}

fn broken() -> std::io::Error {
    std::io::Error::other("a message that is none")
}

/// Values, with their signature.
#[derive(Default)]
struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    fn number(mut self, number: u32) -> Self {
        self.signature.push('u');
        self.put(number);
        self
    }

    fn text(mut self, kind: &str, text: &str) -> Self {
        self.signature.push_str(kind);
        self.put_text(text);
        self
    }

    fn text_in_variant(mut self, text: &str) -> Self {
        self.signature.push('v');
        self.bytes.extend(b"\x01s\0");
        self.put_text(text);
        self
    }

    fn put(&mut self, number: u32) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend(number.to_le_bytes());
    }

    fn put_text(&mut self, text: &str) {
        self.put(text.len() as u32);
        self.bytes.extend(text.bytes().chain([0]));
    }
}

/// A message of the manager's, or of the bus'.
struct Message {
    kind: u8,
    fields: Body,
    body: Body,
}

impl Message {
    fn new(kind: u8) -> Self {
        let message = Message { kind, fields: Body::default(), body: Body::default() };
        message.field(7, "s", OWN)
    }

    fn reply(kind: u8, serial: u32) -> Self {
        let mut message = Message::new(kind);
        message.begin_field(5, "u");
        message.fields.put(serial);
        message
    }

    fn begin_field(&mut self, code: u8, kind: &str) {
        let bytes = &mut self.fields.bytes;
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend([code, 1]);
        bytes.extend(kind.bytes().chain([0]));
    }

    fn field(mut self, code: u8, kind: &str, text: &str) -> Self {
        self.begin_field(code, kind);
        self.fields.put_text(text);
        self
    }

    fn body(mut self, body: Body) -> Self {
        if !body.signature.is_empty() {
            self.begin_field(8, "g");
            self.fields.bytes.push(body.signature.len() as u8);
            self.fields.bytes.extend(body.signature.bytes().chain([0]));
        }
        self.body = body;
        self
    }

    fn bytes(self) -> Vec<u8> {
        let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
        // Little-endian, no flags, version 1; who reads does not compare serials of replies.
        let mut bytes = vec![b'l', self.kind, 0, 1];
        bytes.extend(length(&self.body.bytes));
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(length(&self.fields.bytes));
        bytes.extend(self.fields.bytes);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(self.body.bytes);
        bytes
    }
}
