//! [parent] `diff` and `commit`: what a container changed, or a layer that was kept of one. `kelson-image` does the work; here is
//! found what it is about.
//!
//! ```text
//!   ID    a container that lives: its root by /proc/PID/root; with a layer that is kept: the layer
//!         else the layer that the store has kept of it
//!   DIR   (a word with a slash) the layer that --upper DIR kept
//! ```

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;

use super::{Runtime, image, pause};
use crate::cli;
use crate::error::{Context, Error, Kind, Result};
use crate::image::changes::Request;
use crate::image::config::IdMaps;
use crate::image::kept::Kept;
use crate::image::{Store, helper};
use crate::plan::{IDMAP, IMAGE, LOWER, UPPER};
use crate::rootfs::is_hosts_root;
use crate::signals::Signals;
use crate::state::{self, State, Status};
use crate::sys::fd::open;
use crate::sys::process;

/// What the words name.
struct Subject {
    request: Request,
    store: Store,
    /// Its descriptor is what the request's number means.
    root: Option<OwnedFd>,
    user_ns: Option<OwnedFd>,
    /// The container, if it runs or waits for `start`: it can be frozen.
    running: Option<State>,
}

/// Prints what the container changed: becomes `kelson-image`.
///
/// # Errors
/// There is no such container or layer, or none that can be reached.
pub fn diff(runtime: &Runtime, options: &cli::Diff) -> Result<u8> {
    let subject = find(runtime, &options.subject, options.store.as_deref())?;
    let helper = helper::find("kelson-image", &options.program)?;
    let mut command = subject.command(&helper, "diff")?;
    if options.json {
        command.arg("--json");
    }
    command.arg("--").arg(subject.request_text()?);
    Err(command.exec()).doing(|| format!("execute {}", helper.display()))
}

/// Makes what the container changed a layer of a new image, and prints that one's id.
///
/// # Errors
/// As for [`diff`]; it cannot be frozen; what `kelson-image` says itself.
pub fn commit(runtime: &Runtime, options: &cli::Commit) -> Result<u8> {
    let mut subject = find(runtime, &options.subject, options.store.as_deref())?;
    let helper = helper::find("kelson-image", &options.program)?;
    let signals = Signals::hold_terminating()?;
    let frozen = match (&subject.running, options.pause) {
        (Some(state), Some(true) | None) => freeze(runtime, state, options.pause.is_some())?,
        _ => None,
    };
    let (ended, done) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    subject.request.done = Some(done.as_raw_fd());
    let mut command = subject.command(&helper, "commit")?;
    inherit(&done)?;
    if let Some(limits) = &options.unpack_limits {
        command.arg("--unpack-limits").arg(limits);
    }
    command.arg("--").arg(subject.request_text()?).arg(text_of(&options.commit)?);
    let mut child = command.spawn().doing(|| format!("start {}", helper.display()))?;
    drop(done);
    let pidfd = match process::pidfd_open(Pid::from_raw(child.id() as i32)) {
        Err(Errno::ENOSYS | Errno::EPERM) => None,
        pidfd => Some(pidfd.doing(|| "watch kelson-image")?),
    };
    // All is read, or nobody reads any more.
    let waited = signals.wait_readable(ended.as_fd());
    let thawed = frozen.map_or(Ok(()), Frozen::thaw);
    let waited = waited.and_then(|()| pidfd.map_or(Ok(()), |pidfd| signals.wait_readable(pidfd.as_fd())));
    if waited.is_err() {
        // It may have ended just now; what it had begun is swept by the next writer.
        let _ = child.kill();
    }
    let status = child.wait().doing(|| "wait for kelson-image")?;
    waited.and(thawed)?;
    // It has said why.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// A frozen container; dropping it lets it go on.
struct Frozen<'s> {
    state: Option<&'s State>,
}

impl Frozen<'_> {
    fn thaw(mut self) -> Result<()> {
        self.state.take().map_or(Ok(()), |state| state.cgroup.thaw())
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.state
            && let Err(error) = state.cgroup.thaw()
        {
            log::warn!("{error}: the container is still paused");
        }
    }
}

/// Freezes a container, so that its files are those of one moment; `None` for one that is frozen already, or cannot be and was
/// not asked to.
fn freeze<'s>(runtime: &Runtime, state: &'s State, is_asked: bool) -> Result<Option<Frozen<'s>>> {
    if state.status(&runtime.root)? == Status::Paused {
        return Ok(None);
    }
    match pause::pause(runtime, &state.id) {
        Ok(()) => Ok(Some(Frozen { state: Some(state) })),
        Err(error) if is_asked => Err(error.hint("--pause=false reads its files while it runs")),
        Err(error) => {
            log::warn!("container {:?} is not paused meanwhile: {error}", state.id);
            Ok(None)
        }
    }
}

fn find(runtime: &Runtime, word: &OsStr, store: Option<&Path>) -> Result<Subject> {
    if word.as_encoded_bytes().contains(&b'/') {
        let dir = std::path::absolute(word).doing(|| format!("layer {}", Path::new(word).display()))?;
        let kept = Kept::read(&dir)?.ok_or_else(|| {
            Error::state(format!("{} is no layer that was kept", dir.display()))
                .hint("run --image … --upper DIR keeps one")
        })?;
        let store = store_of(runtime, store, kept.lower.first())?;
        return Ok(Subject::kept(&word.to_string_lossy(), &dir, kept, store));
    }
    let id = word.to_str().ok_or_else(|| Error::usage(format!("container id {word:?} is not valid UTF-8")))?;
    match state::load(&runtime.root, id) {
        Ok(state) => of_container(runtime, state, store),
        Err(error) if error.kind() == Kind::State => {
            let store = Store::locate(store, runtime.rootless)?;
            let dir = store.kept(id);
            match Kept::read(&dir)? {
                Some(kept) => Ok(Subject::kept(id, &dir, kept, store)),
                None => Err(error.hint("and the store has kept no layer of it")),
            }
        }
        Err(error) => Err(error),
    }
}

fn of_container(runtime: &Runtime, state: State, store: Option<&Path>) -> Result<Subject> {
    let id = state.id.clone();
    let annotation = |key: &str| state.annotations.get(key);
    let lower = annotation(LOWER).ok_or_else(|| {
        Error::state(format!("container {id:?} has no layers: its root file system is a directory"))
            .hint("run --image, and bundles with the annotation org.kelson.overlay.lower, have layers")
    })?;
    let lower: Vec<PathBuf> = serde_json::from_str(lower).map_err(|error| Error::other(format!("{LOWER}: {error}")))?;
    let image =
        annotation(IMAGE).map(|digest| digest.parse()).transpose().property(|| format!("annotations[{IMAGE:?}]"))?;
    let upper = annotation(UPPER).map(PathBuf::from);
    let store = store_of(runtime, store, lower.first())?;
    let is_running = matches!(state.status(&runtime.root)?, Status::Running | Status::Created | Status::Paused);
    let mut request = Request { id, upper, lower, image, ..Request::default() };
    let (mut root, mut user_ns) = (None, None);
    let is_id_mapped = annotation(IDMAP).is_some_and(|value| value == "true");
    let config = match request.upper.is_some() || is_id_mapped {
        true => serde_json::from_str(&state::config(&runtime.root, &request.id)?)
            .map_err(|error| Error::other(error.to_string()))?,
        false => serde_json::Value::Null,
    };
    if request.upper.is_some() {
        // Where ids are mapped, the layer has those of the image.
        request.mount_points = image::mount_points(&config).into_iter().collect();
    } else {
        if is_id_mapped {
            request.ids = Some(IdMaps { uid: id_map(&config, "uidMappings"), gid: id_map(&config, "gidMappings") });
        }
        let (opened, namespace) = open_root(&state)?;
        request.root = Some(opened.as_raw_fd());
        request.user_ns = namespace.as_ref().map(AsRawFd::as_raw_fd);
        (root, user_ns) = (Some(opened), namespace);
    }
    Ok(Subject { request, store, root, user_ns, running: is_running.then_some(state) })
}

/// `linux.uidMappings` or `linux.gidMappings`, which create has checked.
fn id_map(config: &serde_json::Value, name: &str) -> Vec<(u32, u32, u32)> {
    let number =
        |line: &serde_json::Value, name: &str| line[name].as_u64().and_then(|number| u32::try_from(number).ok());
    let line = |line| Some((number(line, "containerID")?, number(line, "hostID")?, number(line, "size")?));
    config["linux"][name].as_array().into_iter().flatten().filter_map(line).collect()
}

/// The root of the container's process: what it wrote is nowhere else. With its user namespace, if it is by fuse-overlayfs and this
/// process may not look into it otherwise.
fn open_root(state: &State) -> Result<(OwnedFd, Option<OwnedFd>)> {
    let gone = "what it wrote is gone with it: --keep-layer and --upper DIR keep it";
    let target = state.open_process().hint(|| gone)?;
    let path = format!("/proc/{}/root", target.pid());
    let root = open(path.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY).doing(|| format!("open {path}"))?;
    let is_closed = fstatfs(&root).is_ok_and(|fs| fs.filesystem_type() == FUSE_SUPER_MAGIC) && !is_hosts_root()?;
    let user_ns = is_closed.then(|| open(format!("/proc/{}/ns/user", target.pid()).as_str(), OFlag::O_RDONLY));
    let user_ns = user_ns.transpose().doing(|| "open the container's user namespace")?;
    // Not that of a later process with the same number.
    match state.is_alive()? {
        true => Ok((root, user_ns)),
        false => Err(Error::state("container not running").hint(gone)),
    }
}

/// The store that is given, or that the topmost layer is in (`layers/HEX/fs`), or the caller's own.
fn store_of(runtime: &Runtime, given: Option<&Path>, top: Option<&PathBuf>) -> Result<Store> {
    let of_layer = top.and_then(|path| path.ancestors().nth(2)).filter(|layers| layers.ends_with("layers"));
    match (given, of_layer.and_then(Path::parent)) {
        (None, Some(root)) => Ok(Store { root: root.to_owned() }),
        (given, _) => Store::locate(given, runtime.rootless),
    }
}

impl Subject {
    fn kept(id: &str, dir: &Path, kept: Kept, store: Store) -> Self {
        let request = Request {
            id: id.to_owned(),
            upper: Some(dir.join("upper")),
            lower: kept.lower,
            mount_points: kept.mount_points.into_iter().collect(),
            image: Some(kept.image),
            ..Request::default()
        };
        Self { request, store, root: None, user_ns: None, running: None }
    }

    fn command(&self, helper: &Path, verb: &str) -> Result<Command> {
        self.root.iter().chain(&self.user_ns).try_for_each(inherit)?;
        let mut command = Command::new(helper);
        command.arg("--store").arg(&self.store.root).arg(verb);
        Ok(command)
    }

    fn request_text(&self) -> Result<String> {
        text_of(&self.request)
    }
}

/// Leaves the descriptor open in the program that is started next.
fn inherit(fd: &OwnedFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).doing(|| "pass a descriptor on")?;
    Ok(())
}

fn text_of(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::other(error.to_string()))
}
