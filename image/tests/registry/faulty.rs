//! A registry on loopback that answers as a test tells it to, rightly or wrongly, and an image for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kelson::image::Digest;
use kelson_image::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_MANIFEST};
use kelson_image::registry::{Client, Environment, Options};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};
use sha2::{Digest as _, Sha256};

/// What a client sent.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first byte that is asked for.
    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0)
    }
}

/// How the body is sent.
#[derive(Clone, Debug)]
pub enum Body {
    /// With Content-Length.
    Whole,
    Chunked,
    /// Ended by the end of the connection.
    UntilClosed,
    /// With Content-Length, of which only so many bytes are sent before the connection ends.
    Cut(usize),
    /// The same, in chunks.
    ChunkedCut(usize),
    /// So many bytes, and then nothing more until the client leaves.
    Stalled(usize),
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub content: Vec<u8>,
    pub body: Body,
    /// In place of all of it.
    pub raw: Option<Vec<u8>>,
}

impl Reply {
    pub fn new(status: u16, content: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![], content: content.into(), body: Body::Whole, raw: None }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn sent(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::new(200, "") }
    }

    pub fn redirect(to: impl Into<String>) -> Self {
        Self::new(307, "").with("Location", to)
    }

    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let text = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::new(status, text.to_string()).with("Content-Type", "application/json")
    }
}

pub struct Server {
    /// `127.0.0.1:PORT`
    pub host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request, each connection in a thread of its own, for as long as the test runs.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    fn at(listener: TcpListener, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let (answer, known) = (Arc::new(answer), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, known) = (Arc::clone(&answer), Arc::clone(&known));
                thread::spawn(move || serve(&stream, &*answer, &known));
            }
        });
        Self { host, seen }
    }

    /// All requests until now.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Those whose path has this in it.
    pub fn seen_of(&self, part: &str) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.path.contains(part)).collect()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.host, options()).unwrap()
    }
}

/// A port of this machine at which there is no server until it is opened.
pub struct Closed {
    listener: TcpListener,
    /// Fills the queue of those that wait to be accepted.
    _first: Option<TcpStream>,
}

impl Closed {
    /// Refuses connections.
    pub fn refusing() -> Self {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        Self { listener: socket.into(), _first: None }
    }

    /// Says nothing to whoever connects: one may wait to be accepted (listen(2)), and one does.
    pub fn silent() -> Self {
        let Self { listener, .. } = Self::refusing();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let first = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Self { listener, _first: Some(first) }
    }

    pub fn host(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub fn open(&self, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        listen(&self.listener, Backlog::new(16).unwrap()).unwrap();
        Server::at(self.listener.try_clone().unwrap(), answer)
    }
}

/// Short waits, and nothing of the environment in which the tests run.
pub fn options() -> Options {
    Options {
        backoff: Duration::from_millis(1),
        stall_timeout: Duration::from_secs(20),
        certificates: vec![],
        environment: Environment::from_iter([("REGISTRY_AUTH_FILE", "/nonexistent")]),
        ..Options::default()
    }
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&Request) -> Reply, seen: &Mutex<Vec<Request>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut writer = stream;
        // A client that begins with TLS gets what Go's server has for it.
        if *reader.fill_buf().ok()?.first()? == 0x16 {
            return writer.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent TLS").ok();
        }
        let request = read_request(&mut reader)?;
        if request.method == "CONNECT" {
            // As squid by default, which has no port but TLS's; and one of registries.
            let is_allowed = [":443", ":5000"].iter().any(|port| request.path.ends_with(port));
            seen.lock().unwrap().push(request);
            if !is_allowed {
                return writer.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").ok();
            }
            writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
            continue;
        }
        let reply = answer(&request);
        seen.lock().unwrap().push(request);
        if !send(writer, &reply)? {
            return Some(());
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut request =
        Request { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

/// Whether the connection can go on.
fn send(mut stream: &TcpStream, reply: &Reply) -> Option<bool> {
    if let Some(raw) = &reply.raw {
        stream.write_all(raw).ok()?;
        return Some(false);
    }
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &match reply.body {
        Body::Chunked | Body::ChunkedCut(_) => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        Body::UntilClosed => "Connection: close\r\n\r\n".to_owned(),
        _ => format!("Content-Length: {}\r\n\r\n", reply.content.len()),
    };
    stream.write_all(head.as_bytes()).ok()?;
    let chunk = |mut stream: &TcpStream, bytes: &[u8]| {
        stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).ok()?;
        stream.write_all(bytes).ok()?;
        stream.write_all(b"\r\n").ok()
    };
    match reply.body {
        Body::Whole => stream.write_all(&reply.content).ok().map(|()| true),
        Body::UntilClosed => stream.write_all(&reply.content).ok().map(|()| false),
        Body::Chunked => {
            reply.content.chunks(1000).try_for_each(|bytes| chunk(stream, bytes))?;
            chunk(stream, b"").map(|()| true)
        }
        Body::Cut(count) => stream.write_all(&reply.content[..count.min(reply.content.len())]).ok().map(|()| false),
        Body::ChunkedCut(count) => {
            reply.content[..count].chunks(1000).try_for_each(|bytes| chunk(stream, bytes)).map(|()| false)
        }
        Body::Stalled(count) => {
            stream.write_all(&reply.content[..count]).ok()?;
            // The client's end is the event that is waited for.
            let _ = stream.read(&mut [0]);
            Some(false)
        }
    }
}

pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

pub fn descriptor_of(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest: digest_of(bytes),
        size: bytes.len() as u64,
        urls: vec![],
        platform: None,
        annotations: None,
    }
}

/// An image of one layer, in the repository `a/b` with the tag `1`.
#[derive(Clone)]
pub struct Image {
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub const REPOSITORY: &str = "a/b";

    pub fn new() -> Self {
        let config = br#"{"os":"linux","architecture":"amd64"}"#.to_vec();
        // Every part of it is another one, so that a wrong part is seen.
        let layer: Vec<u8> =
            (0..30_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.into(),
            config: descriptor_of(OCI_CONFIG, &config),
            layers: vec![descriptor_of("application/vnd.oci.image.layer.v1.tar", &layer)],
        };
        Self { config, layer, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    pub fn descriptor(&self) -> Descriptor {
        descriptor_of("application/vnd.oci.image.layer.v1.tar", &self.layer)
    }

    /// The answer of a registry that works.
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path.as_str();
        let whole = [&self.config, &self.layer].into_iter().find(|blob| path.ends_with(&digest_of(blob).hex()));
        if path.ends_with("/manifests/1") || path.ends_with(&digest_of(&self.manifest).hex()) {
            return Reply::new(200, self.manifest.clone()).with("Content-Type", OCI_MANIFEST);
        }
        let Some(whole) = whole else { return Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown") };
        let from = request.from();
        if from == 0 {
            return Reply::new(200, whole.clone());
        }
        Reply::new(206, &whole[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", whole.len() - 1, whole.len()))
    }
}
