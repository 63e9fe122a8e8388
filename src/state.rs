//! `<root>/<id>`: one directory a container, and what it tells.
//!
//! ```text
//!   state.json    the record: written when the container is begun, when its process is born, when it is created; a line
//!                 each time, of which the last whole one holds
//!   config.json   the configuration as create read it; later changes in the bundle have no effect
//!   start         the socket on which a created container waits for `start`
//!   hosts, hostname, resolv.conf   what a container of an image has in /etc
//!   notify/       what is mounted at /run/notify, for a caller with NOTIFY_SOCKET
//! ```
//!
//! mkdir(2) decides who makes a container; flock(2) on the directory orders those who change it. The status is never
//! stored: it is read from the process (pid and start time), its cgroup (frozen or not) and the start socket.

mod life;
mod summary;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::ended::Ended;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{Hook, Namespace, OCI_VERSION, Plan};
use crate::sys::fd::{Done, open, read_all};
use crate::sys::process;

pub use life::{Target, start_time};
pub use summary::{Summary, Survey};

/// Format of `state.json`: a newer Kelson reads all older ones. From 2 on the container's process says before execve(2) that it
/// comes to it; from 3 on there can be several lines.
const FORMAT: u32 = 3;

/// The file with the record.
const RECORD: &str = "state.json";

/// The file with the configuration.
const CONFIG: &str = "config.json";

/// What is known of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub format: u32,
    pub id: String,
    /// The spec version that the state complies with (runtime.md#state).
    pub oci_version: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system on the host.
    pub rootfs: PathBuf,
    /// When create was called, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// User id of who created it.
    pub owner: u32,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Create has not come to its end (or never did: it was killed).
    pub creating: bool,
    /// The process that creates it; 0 when that is done.
    #[serde(default)]
    pub maker: i32,
    /// The container's process in the caller's PID namespace; 0 before it is born.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: tells a process from a later one with the same PID.
    pub start_time: u64,
    /// Number of the process that no other one has until the next boot, where the kernel has such (pidfs, 6.9): start times
    /// are as coarse as the clock's ticks.
    #[serde(default)]
    pub pidfd_inode: Option<u64>,
    /// Kinds of namespaces, as CLONE_NEW* bits, in which the container differs from its creator.
    pub namespaces: u64,
    /// The PID namespace was made for the container, not joined.
    pub pid_namespace_is_new: bool,
    /// The config has a process.
    pub startable: bool,
    /// It is `start` that lets the process go on, and not the `run` that made it.
    #[serde(default = "State::waits")]
    pub waits_for_start: bool,
    #[serde(default)]
    pub poststart: Vec<Hook>,
    #[serde(default)]
    pub poststop: Vec<Hook>,
    /// `--no-new-keyring`: its processes, those of exec too, have the session keyring of their caller.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// For a container in the host's mount namespace: the mount that held its root before it was mounted there.
    #[serde(default)]
    pub host_mount: Option<u64>,
    pub cgroup: cgroup::Record,
    /// The links by which stores of images know that the container uses layers of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub store_links: Vec<PathBuf>,
    /// The link that tells which ids of the host are the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids_link: Option<PathBuf>,
    /// How it ended, from the first command on that saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// runtime.md#state, and `paused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// Refuses an id that is no plain file name of at most 255 bytes out of `[A-Za-z0-9_+.-]`.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+.-".contains(&b);
    if id.is_empty() || id.len() > 255 || id == "." || id == ".." || !id.bytes().all(allowed) {
        let shown: String = id.chars().take(64).collect();
        return Err(Error::usage(format!("invalid container id {shown:?}"))
            .hint("1 to 255 characters out of A-Z a-z 0-9 _ + . -, and not \".\" or \"..\""));
    }
    Ok(())
}

/// Where state is kept when `--root` is not given.
pub fn default_root(rootless: bool) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if rootless && !dir.is_empty() => Path::new(&dir).join("kelson"),
        _ => PathBuf::from("/run/kelson"),
    }
}

/// The directory for the container's notify socket.
pub const NOTIFY: &str = "notify";

/// All that there is in a container's directory; the last is a record that replaces another.
const OWN_FILES: [&str; 8] = [RECORD, CONFIG, "start", NOTIFY, ".state.json.new", "hosts", "hostname", "resolv.conf"];

/// A container's directory, held by this process alone.
#[derive(Debug)]
pub struct Locked {
    dir: PathBuf,
    lock: File,
}

/// A container's directory while create is under way: dropping it removes the directory.
#[derive(Debug)]
pub struct Reserved(Option<Locked>);

/// How long a command may hold a container that another one wants as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// flock(2) waits without an end, and nothing tells of an unlock.
pub fn pause_for_lock() {
    // Interrupted or not: the caller looks again.
    let _ = poll(&mut [], PollTimeout::from(10u8));
}

/// A container's directory, opened: it stays the one that is meant, also when another container has its name by now.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    /// # Errors
    /// A state error "does not exist" if there is no such container.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        match open(&path, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
            Ok(file) => Ok(Self { path, file: file.into() }),
            Err(Errno::ENOENT) => Err(missing(id)),
            Err(e) => Err(e).doing(|| format!("open {}", path.display())),
        }
    }

    /// Locks it (flock(2)), if no other command holds it; closing the file unlocks it.
    ///
    /// # Errors
    /// `ENOENT` if it was removed meanwhile.
    pub fn try_lock(&self) -> Result<bool> {
        loop {
            match self.file.try_lock() {
                Err(fs::TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(fs::TryLockError::Error(e)) => return Err(e).doing(|| format!("lock {}", self.path.display())),
                Err(fs::TryLockError::WouldBlock) => return self.check_named().map(|()| false),
                Ok(()) => return self.check_named().map(|()| true),
            }
        }
    }

    /// Locks it, however long another command holds it (flock(2)).
    ///
    /// # Errors
    /// `ENOENT` if it was removed meanwhile.
    pub fn lock(&self) -> Result<()> {
        while let Err(error) = self.file.lock() {
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(error).doing(|| format!("lock {}", self.path.display()));
            }
        }
        self.check_named()
    }

    fn check_named(&self) -> Result<()> {
        let asked = fs::symlink_metadata(&self.path).and_then(|named| Ok((named, self.file.metadata()?)));
        let (named, own) = asked.doing(|| format!("look at {}", self.path.display()))?;
        if (own.dev(), own.ino()) == (named.dev(), named.ino()) { Ok(()) } else { Err(Errno::ENOENT.into()) }
    }

    /// The record in it; `None` if there is none, or only a part of the first one.
    pub fn load(&self) -> Result<Option<State>> {
        match read(Path::new(&short(&self.file, ".")), &self.path) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Sends `signal` to process `maker` of the record, if it holds the lock and so is the create or run that is under way.
    pub fn signal_maker(&self, maker: i32, signal: i32) -> Result<()> {
        let pidfd = match process::pidfd_open(Pid::from_raw(maker)) {
            Ok(pidfd) => Some(pidfd),
            // Hidden by a filter.
            Err(Errno::ENOSYS | Errno::EPERM) => None,
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno).doing(|| format!("open process {maker}, which creates the container")),
        };
        let inode = self.file.metadata()?.ino();
        let locks = fs::read_to_string("/proc/locks").doing(|| "read /proc/locks")?;
        // Asked when the descriptor is open: a later process with the same PID does not hold this directory.
        if !locks.lines().any(|line| holder_of(line, inode) == Some(maker)) {
            return Ok(());
        }
        let target = Target::new(Pid::from_raw(maker), pidfd);
        match target.send(signal) {
            Err(Errno::ESRCH) => Ok(()),
            sent => sent.doing(|| format!("end process {maker}, which creates the container")),
        }
    }

    fn into_locked(self) -> Locked {
        Locked { dir: self.path, lock: self.file }
    }
}

/// The PID in a line of /proc/locks (proc_locks(5)), if that is an exclusive flock(2) on inode `inode` that is held and not
/// waited for. The device is not compared: some file systems show another one to stat(2).
fn holder_of(line: &str, inode: u64) -> Option<i32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (kind, _, how, pid, file) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_it = kind == "FLOCK" && how == "WRITE" && file.rsplit(':').next()?.parse() == Ok(inode);
    pid.parse().ok().filter(|pid| is_it && *pid > 0)
}

/// Makes the directory of a new container; of several processes that try one wins.
///
/// # Errors
/// A state error if the id is in use.
pub fn reserve(root: &Path, id: &str) -> Result<Reserved> {
    check_id(id)?;
    let dir = root.join(id);
    let in_use = || {
        Error::state(format!("container with id {id:?} already exists"))
            .hint(format!("kelson delete {id}, or another id"))
    };
    loop {
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => return Err(in_use()),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
                made.doing(|| format!("make the state directory {}", root.display()))?;
                continue;
            }
            other => other.doing(|| format!("make the state directory {}", dir.display()))?,
        }
        let locked = Directory::open(root, id).and_then(|directory| Ok((directory.try_lock()?, directory)));
        let directory = match locked {
            Ok((true, directory)) => directory,
            // Another create, which came first, or what the next line says.
            Ok((false, _)) => return Err(in_use()),
            // A `delete --force` took it for what a killed create had left: there is nothing of it, so once more.
            Err(e) if e.kind() == Kind::State || e.errno() == Some(Errno::ENOENT) => continue,
            Err(error) => {
                // Only while it is empty, and so nobody's.
                let _ = fs::remove_dir(&dir);
                return Err(error);
            }
        };
        // Deleted, and made again by another create, which came first.
        if dir.join(RECORD).exists() {
            return Err(in_use());
        }
        return Ok(Reserved(Some(directory.into_locked())));
    }
}

impl Reserved {
    /// The container is made: its directory stays.
    pub fn keep(mut self) -> Option<Locked> {
        self.0.take()
    }

    pub fn locked(&self) -> Option<&Locked> {
        self.0.as_ref()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(locked) = self.0.take() {
            // One that is there and cannot be read may name something.
            let is_begun = || fs::symlink_metadata(locked.dir.join(RECORD)).is_ok();
            if locked.load().map_or_else(|_| is_begun(), |state| state.is_some_and(|state| state.leaves_something())) {
                // What could not be undone: the next command on the id finds it here.
                return;
            }
            if let Ok(Some(state)) = locked.load() {
                state.leave_store();
            }
            // Nobody is left to tell; what stays is found and removed by `delete`.
            let _ = locked.remove();
        }
    }
}

impl Locked {
    /// Holds the container, which another command may do for a moment.
    ///
    /// # Errors
    /// A state error "does not exist" if there is no such container, and one if it is being created, or held for longer: hooks
    /// take their time.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        let directory = Directory::open(root, id)?;
        let begin = Instant::now();
        loop {
            match directory.try_lock() {
                Ok(true) => return Ok(directory.into_locked()),
                Ok(false) => {}
                Err(e) if e.errno() == Some(Errno::ENOENT) => return Err(missing(id)),
                Err(e) => return Err(e),
            }
            // Who asks for the status of a create that was killed holds it, too, for an instant.
            let is_created = begin.elapsed() > PATIENCE / 20 && directory.load()?.is_some_and(|state| state.creating);
            if is_created || begin.elapsed() > PATIENCE {
                let what = if is_created { "is being created" } else { "is held by another command" };
                return Err(
                    Error::state(format!("container {id:?} {what}")).hint(format!("kelson delete --force {id}"))
                );
            }
            pause_for_lock();
        }
    }

    /// For who locked the directory.
    pub fn of(directory: Directory) -> Self {
        directory.into_locked()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the first record. A reader that sees a part of it takes it for none: nothing else was made by then.
    pub fn begin(&self, state: &State) -> Result<()> {
        self.write(RECORD, OFlag::O_CREAT | OFlag::O_EXCL, &state.to_line()?)
    }

    /// Writes a further record, for who wrote the ones before; a reader sees the last one or this one. A file that is replaced
    /// costs a file system on a disk ten times as much.
    pub fn go_on(&self, state: &State) -> Result<()> {
        self.write(RECORD, OFlag::O_APPEND, &state.to_line()?)
    }

    /// Replaces the record; a reader sees the old one or the new one.
    pub fn save(&self, state: &State) -> Result<()> {
        write_atomically(&self.dir.join(RECORD), "", 0o600, &state.to_line()?)
    }

    /// Writes the configuration, once: nobody reads it before the record says that the container is created, or a store of images
    /// knows of it.
    pub fn write_config(&self, contents: &str) -> Result<()> {
        self.write(CONFIG, OFlag::O_CREAT | OFlag::O_EXCL, contents.as_bytes())
    }

    fn write(&self, name: &str, flags: OFlag, contents: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let file = open(&path, OFlag::O_WRONLY | flags);
        let written = file.map_err(std::io::Error::from).and_then(|file| File::from(file).write_all(contents));
        written.doing(|| format!("write {}", path.display()))
    }

    /// The record; `None` if its maker was killed before the first one was written.
    pub fn load(&self) -> Result<Option<State>> {
        match read(&self.dir, &self.dir) {
            Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Makes the socket on which the container waits for `start`.
    pub fn listen(&self) -> Result<OwnedFd> {
        let path = short(&self.lock, "start");
        let listener = UnixListener::bind(path).doing(|| format!("make the start socket in {}", self.dir.display()))?;
        Ok(listener.into())
    }

    /// Connects to a created container that waits.
    ///
    /// # Errors
    /// `EAGAIN` if it takes no connection for too long: it is stopped by a signal, or frozen.
    pub fn connect(&self) -> Result<UnixStream> {
        let begin = Instant::now();
        loop {
            match connect_at_once(&short(&self.lock, "start")) {
                Err(Errno::EAGAIN) if begin.elapsed() < PATIENCE => pause_for_lock(),
                other => return Ok(UnixStream::from(other?)),
            }
        }
    }

    /// A path of at most 108 bytes (unix(7)) to the socket `name` in the directory; it lasts as long as this does.
    pub fn socket_path(&self, name: &str) -> String {
        short(&self.lock, name)
    }

    /// From here on the container counts as started.
    pub fn forget_start_socket(&self) -> Result<()> {
        match fs::remove_file(self.dir.join("start")) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.doing(|| format!("remove the start socket in {}", self.dir.display())),
        }
    }

    /// Removes a directory without a record: what a create that was killed in its first moment leaves, or a deletion in its last,
    /// and nothing else.
    ///
    /// # Errors
    /// Something is in it that is not Kelson's; all is left as it is.
    pub fn remove_unrecorded(self) -> Result<()> {
        let doing = || format!("remove {}", self.dir.display());
        let mut names = vec![];
        for entry in fs::read_dir(&self.dir).doing(doing)? {
            names.push(entry.doing(doing)?.file_name());
        }
        if let Some(other) = names.iter().find(|name| OWN_FILES.iter().all(|own| name != own)) {
            let cause = format!("it is no container's: there is no state.json of one, and it holds {other:?}");
            return Err(Error::state(cause).hint("remove it by hand, or use another id")).doing(doing);
        }
        for name in names {
            let path = self.dir.join(&name);
            let removed = if name == NOTIFY { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.doing(doing)?;
        }
        fs::remove_dir(&self.dir).doing(doing)
    }

    /// Removes the directory of a container; the id is free again.
    pub fn remove(self) -> Result<()> {
        // The record last: until then a deletion that is killed is done once more, with its hooks.
        for name in [CONFIG, RECORD] {
            // What is not there need not be removed; what cannot be is told below.
            let _ = fs::remove_file(self.dir.join(name));
        }
        let removed = match fs::remove_dir(&self.dir) {
            // The start or notify socket, or a file that was being replaced.
            Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => fs::remove_dir_all(&self.dir),
            other => other,
        };
        removed.doing(|| format!("remove {}", self.dir.display()))
    }
}

/// A path of at most 108 bytes (unix(7)) to `name` in an open directory, however long its own path is.
fn short(dir: &impl AsFd, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd())
}

/// Writes `path` so that a reader sees the old contents or all of the new. `tag` keeps writers of one path apart.
pub fn write_atomically(path: &Path, tag: &str, mode: u32, contents: &[u8]) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    name.push(tag);
    let temporary = path.with_file_name(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(contents))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first failure is what is told; the file may not exist at all.
        let _ = fs::remove_file(&temporary);
    }
    written.doing(doing)
}

/// connect(2) that does not wait for room in the listener's queue; the socket waits afterwards.
fn connect_at_once(path: &str) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(socket)
}

fn missing(id: &str) -> Error {
    Error::state(format!("container {id:?} does not exist"))
}

/// Reads the record in `dir`, which a person knows as `shown`.
///
/// # Errors
/// `ENOENT` if there is no record, or only the beginning of the first one.
fn read(dir: &Path, shown: &Path) -> Result<State> {
    let mut text = vec![];
    read_text(dir, shown, &mut text, &mut Done::default())?;
    let state: State = parse(shown, &text)?;
    check_format(shown, state.format)?;
    Ok(state)
}

/// Reads the record in `dir` in place of what `text` holds; `done` takes its descriptor.
fn read_text(dir: &Path, shown: &Path, text: &mut Vec<u8>, done: &mut Done) -> Result<()> {
    let file = open(&dir.join(RECORD), OFlag::O_RDONLY).map(File::from).map_err(std::io::Error::from);
    let read = file.and_then(|file| {
        let read = read_all(&file, text);
        done.add(file);
        read
    });
    read.doing(|| format!("read {}", shown.join(RECORD).display()))
}

/// # Errors
/// `ENOENT` for a record that is only begun: there is nothing of its container yet.
fn parse<'t, T: Deserialize<'t>>(dir: &Path, text: &'t [u8]) -> Result<T> {
    let doing = || format!("read {}", dir.join(RECORD).display());
    let text = match str::from_utf8(text) {
        // It ends within a character.
        Err(cut) if cut.error_len().is_none() => str::from_utf8(&text[..cut.valid_up_to()]),
        other => other,
    };
    let text = text.map_err(|error| Error::other(error.to_string())).doing(doing)?;
    match serde_json::from_str(last_line(text)) {
        Err(error) if error.is_eof() => Err(Errno::ENOENT.into()),
        other => other.map_err(|error| Error::other(error.to_string())).doing(doing),
    }
}

/// The last line of `text` that has its end; all of it where none has: the first one is being written, or a Kelson that ended no
/// line wrote it.
fn last_line(text: &str) -> &str {
    let Some(end) = text.rfind('\n') else { return text };
    let lines = &text[..end];
    &lines[lines.rfind('\n').map_or(0, |before| before + 1)..]
}

fn check_format(dir: &Path, format: u32) -> Result<()> {
    if format <= FORMAT {
        return Ok(());
    }
    let cause = format!("{} has format {format}, this Kelson knows {FORMAT}", dir.join(RECORD).display());
    Err(Error::state(cause).hint("use the newer Kelson that made the container"))
}

/// Reads the record of container `id` without waiting for anybody.
///
/// # Errors
/// A state error "does not exist" if there is no such container.
pub fn load(root: &Path, id: &str) -> Result<State> {
    check_id(id)?;
    let dir = root.join(id);
    match read(&dir, &dir) {
        Err(e) if e.errno() == Some(Errno::ENOENT) => Err(missing(id)),
        other => other,
    }
}

/// The configuration that create read.
pub fn config(root: &Path, id: &str) -> Result<String> {
    let path = root.join(id).join(CONFIG);
    fs::read_to_string(&path).doing(|| format!("read {}", path.display()))
}

/// Names below `root` that may be those of containers, sorted: directories. Which are, their records tell.
///
/// # Errors
/// `ENOENT` if the root does not exist.
pub fn ids(root: &Path) -> Result<Vec<String>> {
    let mut ids = vec![];
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            ids.extend(entry.file_name().into_string().ok().filter(|name| check_id(name).is_ok()));
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

impl State {
    /// A record for a container that is begun now.
    pub fn begin(id: &str, plan: &Plan, cgroup: cgroup::Record) -> Self {
        Self {
            format: FORMAT,
            id: id.to_owned(),
            oci_version: OCI_VERSION.to_owned(),
            bundle: plan.bundle.clone(),
            rootfs: plan.root.path.clone(),
            created: crate::log::rfc3339(std::time::SystemTime::now()),
            owner: nix::unistd::geteuid().as_raw(),
            annotations: plan.annotations.clone(),
            creating: true,
            maker: std::process::id() as i32,
            pid: 0,
            start_time: 0,
            pidfd_inode: None,
            namespaces: crate::sandbox::namespace_flags(&plan.namespaces, Namespace::is_own),
            pid_namespace_is_new: plan.namespaces.pid.is_new(),
            startable: plan.process.is_some(),
            waits_for_start: true,
            poststart: plan.hooks.poststart.clone(),
            poststop: plan.hooks.poststop.clone(),
            no_new_keyring: false,
            host_mount: None,
            cgroup,
            store_links: vec![],
            ids_link: None,
            ended: None,
        }
    }

    /// Records without the member do not say who made them.
    fn waits() -> bool {
        true
    }

    /// The container's process, which the Kelson that created it runs, says when it comes to execve(2).
    pub fn tells_of_execve(&self) -> bool {
        self.format >= 2
    }

    /// Create has come to its end.
    pub fn end_creating(&mut self) {
        (self.creating, self.maker) = (false, 0);
    }

    /// Both are of the same container, and not of a later one with the same id.
    pub fn is_same(&self, other: &State) -> bool {
        let what = |state: &State| (state.pid, state.start_time, state.pidfd_inode);
        what(self) == what(other) && self.created == other.created
    }

    /// The container is no more: what stores hold for it may go, and its ids are free.
    pub fn leave_store(&self) {
        for link in self.store_links.iter().chain(&self.ids_link) {
            // Nothing depends on it: one that stays is found to be of no container.
            let _ = fs::remove_file(link);
        }
    }

    /// Something is there that `delete` would have to take away, as far as can be told.
    fn leaves_something(&self) -> bool {
        self.is_alive().unwrap_or(true) || self.cgroup.is_there()
    }

    /// The record as JSON, in which no line ends, with a newline at its end.
    fn to_line(&self) -> Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).map_err(|error| Error::other(error.to_string()))?;
        line.push(b'\n');
        Ok(line)
    }

    /// The container's process is the first of a PID namespace: its end is the end of all others.
    pub fn has_own_pid_namespace(&self) -> bool {
        self.pid_namespace_is_new
    }

    /// What the specification calls the state of a container (runtime.md#state), as JSON.
    pub fn to_oci(&self, status: Status) -> Result<String> {
        #[derive(Serialize)]
        struct Oci<'s> {
            #[serde(rename = "ociVersion")]
            oci_version: &'s str,
            id: &'s str,
            status: &'s str,
            #[serde(skip_serializing_if = "is_zero")]
            pid: i32,
            bundle: &'s Path,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'s BTreeMap<String, String>,
        }
        fn is_zero(pid: &i32) -> bool {
            *pid == 0
        }
        let pid = if status == Status::Stopped { 0 } else { self.pid };
        let oci = Oci {
            oci_version: &self.oci_version,
            id: &self.id,
            status: status.word(),
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        serde_json::to_string(&oci).map_err(|e| Error::other(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_file_names() {
        for good in ["a", "web-1", "x.y_z+w", "..a", &"a".repeat(255)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/a", "a b", "ü", "a\0", "a%s\n", &"a".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_lock_that_is_held_names_its_holder() {
        for (line, holder) in [
            ("1: FLOCK  ADVISORY  WRITE 4711 fe:00:42 0 EOF", Some(4711)),
            ("1: FLOCK  ADVISORY  WRITE 4711 fe:00:421 0 EOF", None),
            ("1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:42 0 EOF", None),
            ("2: POSIX  ADVISORY  WRITE 4711 fe:00:42 0 EOF", None),
            ("3: FLOCK  ADVISORY  WRITE 0 fe:00:42 0 EOF", None),
            ("4: FLOCK  ADVISORY  READ  4711 fe:00:42 0 EOF", None),
            ("5: LEASE  ACTIVE    READ  4711 fe:00:42 0 EOF", None),
        ] {
            assert_eq!(holder_of(line, 42), holder, "{line}");
        }
    }

    #[test]
    fn the_last_line_that_has_its_end_holds() {
        let long = "x".repeat(200);
        for (text, expected) in [
            ("", ""),
            ("{\"a\"", "{\"a\""),
            ("old", "old"),
            ("one\n", "one"),
            ("one\ntwo", "one"),
            ("one\ntwo\n", "two"),
            ("one\ntwo\nthr", "two"),
            (&format!("one\n{long}\n"), &long),
            (&format!("{long}\ntwo\n{long}"), "two"),
            (&format!("{}\n{long}\n", "y".repeat(63)), &long),
            (&format!("{}\n{long}\n", "y".repeat(64)), &long),
        ] {
            assert_eq!(last_line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn one_of_two_reservations_wins_and_a_dropped_one_leaves_nothing() {
        let root = std::env::temp_dir().join(format!("kelson-state-{}", std::process::id()));
        let first = reserve(&root, "x").unwrap();
        assert!(reserve(&root, "x").is_err());
        drop(first);
        assert!(!root.join("x").exists());
        fs::remove_dir(&root).unwrap();
    }
}
