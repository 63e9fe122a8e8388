//! A bus of the test's own, and services on it that do as they are told.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kelson::dbus::{Kind, Message, Value};

/// Long enough for what does answer.
pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// A directory that is removed with what is in it; others may look into it.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kelson-dbus-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// dbus-daemon, which any user may connect to.
pub struct Daemon {
    process: Child,
    pub directory: Directory,
}

impl Daemon {
    pub fn start() -> Self {
        let directory = Directory::new();
        let config = directory.0.join("bus.conf");
        let socket = directory.0.join("bus");
        // As on a system's bus: what is answered must have been asked, signals may be sent to anybody.
        let policy = r#"<policy context="default"><allow user="*"/><allow own="*"/>
            <allow send_type="method_call"/><allow send_type="signal"/>
            <allow send_requested_reply="true" send_type="method_return"/>
            <allow send_requested_reply="true" send_type="error"/>
            <allow receive_type="method_call"/><allow receive_type="method_return"/>
            <allow receive_type="error"/><allow receive_type="signal"/></policy>"#;
        let text = format!(
            "<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>{policy}</busconfig>",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.0.join("log")).unwrap())
            .spawn()
            .expect("dbus-daemon, which Debian's dbus has (make test-unit installs it)");
        // It prints its address when it listens.
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || fs::read_to_string(directory.0.join("log")).unwrap_or_default();
        assert!(line.starts_with("unix:path="), "dbus-daemon does not start: {line}{}", log());
        Self { process, directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.0.join("bus")
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection of a service, which sends and takes messages as they are.
pub struct Service {
    stream: UnixStream,
    serial: u32,
}

impl Service {
    /// Connects, and asks for the name `name` (2: in place of whoever has it and allows that; 1: allows it).
    pub fn with_name(daemon: &Daemon, name: &str) -> Self {
        let mut service = Self::without_name(daemon);
        let taken = service.call_bus("RequestName", vec![name.into(), Value::U32(3)]);
        assert_eq!(taken.body, [Value::U32(1)]);
        service
    }

    pub fn without_name(daemon: &Daemon) -> Self {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").unwrap();
        let mut lines = String::new();
        while lines.matches("\r\n").count() < 2 {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            lines.push(byte[0].into());
        }
        let mut service = Self { stream, serial: 0 };
        service.call_bus("Hello", vec![]);
        service
    }

    pub fn call_bus(&mut self, member: &str, body: Vec<Value>) -> Message {
        let bus = "org.freedesktop.DBus";
        let (path, interface) = ("/org/freedesktop/DBus".into(), bus.into());
        let destination = bus.into();
        let serial =
            self.send(Message { path, interface, destination, member: member.into(), body, ..Message::default() });
        loop {
            let message = self.receive();
            if message.reply_serial == serial {
                return message;
            }
        }
    }

    pub fn send(&mut self, message: Message) -> u32 {
        self.serial += 1;
        let message = Message { serial: self.serial, ..message };
        self.stream.write_all(&message.encode().unwrap()).unwrap();
        self.serial
    }

    pub fn answer(&mut self, call: &Message, body: Vec<Value>) {
        let (destination, reply_serial) = (call.sender.clone(), call.serial);
        self.send(Message { kind: Kind::Return, destination, reply_serial, body, ..Message::default() });
    }

    /// Sends a signal to `destination`, or to whoever asked for such.
    pub fn signal(&mut self, destination: &str, member: &str, body: Vec<Value>) {
        let (path, interface) = ("/org/example".into(), "org.example.Service".into());
        let (kind, destination, member) = (Kind::Signal, destination.into(), member.into());
        self.send(Message { kind, path, interface, destination, member, body, ..Message::default() });
    }

    /// The next message.
    pub fn receive(&mut self) -> Message {
        let mut start = [0; 16];
        self.stream.read_exact(&mut start).unwrap();
        let mut bytes = start.to_vec();
        bytes.resize(Message::length(&start).unwrap(), 0);
        self.stream.read_exact(&mut bytes[16..]).unwrap();
        Message::decode(&bytes).unwrap()
    }

    /// The next call of `member`.
    pub fn receive_call(&mut self, member: &str) -> Message {
        loop {
            let message = self.receive();
            if message.kind == Kind::Call && message.member == member {
                return message;
            }
        }
    }
}
