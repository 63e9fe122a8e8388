//! Cgroups: where a container's is, its limits, and what is done to all its processes.
//!
//! [`locate`] decides and makes nothing; its [`Record`] goes into the journal; [`create`] makes the directories (or waits for
//! systemd to have made them, [`systemd`]) and writes
//! the limits before init is born, the rest right after it; [`Entry`] is how a process gets in without a grace
//! period: born inside (v2, CLONE_INTO_CGROUP) or by writing `0` to its own `tasks` (v1). Everything later works on the
//! saved [`Record`].
//!
//! ```text
//! locate ─▶ Record ─▶ journal ─▶ create ─▶ Cgroup ─▶ entry ─▶ clone3 / join ─▶ keep ─▶ Record in state.json
//!                                            └ drop removes what was made            └ freeze, signal_all, remove
//! ```

pub mod control;
mod controllers;
mod cpuset;
mod delegate;
pub mod devices;
pub mod files;
mod freezer;
pub mod intent;
mod kill_log;
pub mod kill_watch;
pub mod layout;
pub mod limits;
pub mod memory_events;
pub mod oom;
pub mod resources;
pub mod stats;
pub mod systemd;
#[cfg(test)]
mod tests;
pub mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, umask};
use nix::unistd::write;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::plan::Resources;
use crate::sys::fd::{self, close_all, open};

pub use freezer::{Freezer, Freezers};
pub use layout::{Layout, host_layout};
use resources::Version;
use systemd::Unit;

/// Who makes cgroups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Kelson itself, by mkdir(2).
    #[default]
    Cgroupfs,
    /// systemd, which is asked for a transient unit.
    Systemd,
    /// Nobody: the container stays where its creator is, without limits.
    None,
}

/// The key of [`Record::places`] for the cgroup v2 hierarchy.
const UNIFIED: &str = "";

/// How long [`Record::remove`] waits for processes that are already ending.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a wait for killed processes looks for some that are frozen.
const THAW_INTERVAL: Duration = Duration::from_millis(50);

/// A container's cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where the hierarchy is mounted.
    pub mount_point: PathBuf,
    /// Absolute path of the container's cgroup.
    pub path: PathBuf,
}

/// Where a container's cgroups are, and which directories were made for it; saved in state.json, and journalled before
/// the first mkdir.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub driver: Driver,
    /// Of the host.
    pub version: Version,
    /// By controllers as in /proc/PID/cgroup: `memory`, `cpu,cpuacct`, `name=systemd`; the empty string is v2.
    /// Empty if the container has no cgroup of its own.
    pub places: BTreeMap<String, Place>,
    /// Directories that create makes or made, outermost first within a hierarchy; also parents that another Kelson made,
    /// which may vanish with its last container and be made again.
    pub made: Vec<PathBuf>,
    /// Create found every cgroup unused. Before that, one that was not made for this container may be in use by others.
    pub ready: bool,
    /// Without privilege over the host: what was not asked for may fail.
    pub rootless: bool,
    /// systemd's, which makes and removes the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// Decides where the cgroups of container `id` are; makes nothing.
///
/// # Errors
/// A limit that contradicts another, or that no hierarchy of this host has a controller for; EINTR when `interrupt` can be
/// read while systemd is asked.
pub fn locate(
    driver: Driver,
    cgroups_path: Option<&str>,
    id: &str,
    resources: &Resources,
    rootless: bool,
    interrupt: Option<BorrowedFd<'_>>,
) -> Result<Record> {
    let mut record = place(driver, cgroups_path, id, rootless, interrupt)?;
    if driver == Driver::None {
        return Ok(record);
    }
    // Contradictions are refused before anything is made.
    let assignments = limits::assign(&record, resources)?;
    limits::check_offered(&record, &assignments)?;
    devices::List::new(&resources.devices)?;
    record.find_missing()?;
    Ok(record)
}

/// [`locate`] without a look at the limits and at what is there already.
fn place(
    driver: Driver,
    cgroups_path: Option<&str>,
    id: &str,
    rootless: bool,
    interrupt: Option<BorrowedFd<'_>>,
) -> Result<Record> {
    let mut record = Record { driver, rootless, ..Record::default() };
    let layout = host_layout()?;
    if matches!(layout, Layout::V2(_)) {
        record.version = Version::V2;
    }
    if driver == Driver::None {
        return Ok(record);
    }
    let wanted = match driver {
        Driver::Systemd => {
            let (unit, path) = systemd::locate(cgroups_path, id, rootless, &layout, interrupt)?;
            record.unit = Some(unit);
            path
        }
        _ => cgroups_path.filter(|path| !path.is_empty()).unwrap_or(id).into(),
    };
    let cleaned = layout::clean(&wanted);
    if cleaned == Path::new("/") {
        let cause = format!("{:?} is the root of the hierarchy", wanted.display());
        return Err(Error::config("linux.cgroupsPath", cause).hint("name a cgroup below it"));
    }
    let below = |own: PathBuf| if wanted.is_absolute() { cleaned.clone() } else { joined(&own, &cleaned) };
    let mut add = |key: &str, mount_point: &Path, path: PathBuf| {
        let place = Place { mount_point: mount_point.into(), path: joined(mount_point, &path) };
        record.places.insert(key.into(), place);
    };
    match layout {
        Layout::V1 { hierarchies, unified } => {
            for hierarchy in &hierarchies {
                // As in runc, a relative path starts at the caller's own cgroup.
                let own = if wanted.is_absolute() { PathBuf::new() } else { hierarchy.own()? };
                add(&hierarchy.controllers, &hierarchy.mount_point, below(own));
            }
            if let Some(unified) = &unified {
                let own = if wanted.is_absolute() { PathBuf::new() } else { beside(unified.own()?) };
                add(UNIFIED, &unified.mount_point, below(own));
            }
        }
        Layout::V2(unified) => {
            let own = if wanted.is_absolute() { PathBuf::new() } else { beside(unified.own()?) };
            add(UNIFIED, &unified.mount_point, below(own));
        }
        Layout::None if rootless || in_user_ns() => {}
        Layout::None => {
            return Err(Error::other("no cgroup hierarchy is mounted")
                .hint("mount cgroup2 on /sys/fs/cgroup, or use --cgroup-manager disabled"));
        }
    }
    Ok(record)
}

/// Whether this process is in a user namespace other than the initial one, which maps all ids to themselves
/// (user_namespaces(7)). Asked only when something was refused.
fn in_user_ns() -> bool {
    files::read(Path::new("/proc/self/uid_map"))
        .is_ok_and(|map| !map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// On v2 a relative path starts beside the caller's own cgroup, as in runc: below one that has processes no controller
/// can be enabled ("no internal processes", cgroup-v2.rst).
fn beside(own: PathBuf) -> PathBuf {
    own.parent().map_or("/".into(), Path::to_path_buf)
}

/// `path`, which begins with a slash, below `root`.
fn joined(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A container's cgroups during create: removed on drop until [`Cgroup::keep`].
#[derive(Debug)]
pub struct Cgroup {
    record: Record,
    /// Keys of the hierarchies where it was just made.
    fresh: BTreeSet<String>,
    is_kept: bool,
    /// What is in systemd's scope until the container's process is.
    placeholder: Option<systemd::Placeholder>,
    /// Given up first thing when all is undone, which needs as many: where there are too many open files, that is why.
    spare: Vec<OwnedFd>,
}

/// How many files the removal of cgroups opens at once.
const SPARE: usize = 2;

/// Makes the directories and writes all limits, but for what [`Cgroup::complete`] does. `check_unclaimed` is asked of cgroups
/// that were there before: they may be another container's.
///
/// # Errors
/// The cgroup has processes in it, is frozen or claimed; the kernel refuses a limit. What was made is removed again.
pub fn create(
    mut record: Record,
    resources: &Resources,
    begun: Option<systemd::Begun>,
    check_unclaimed: impl FnOnce(&[&Path]) -> Result<()>,
) -> Result<Cgroup> {
    // From here on the list is what was made, so that a failure removes nothing of others.
    record.made.clear();
    let spare =
        std::iter::repeat_with(|| fd::copy(fd::standard_stream(0))).take(SPARE).collect::<nix::Result<Vec<_>>>();
    let spare = spare.doing(|| "hold descriptors in reserve")?;
    // Undone by itself until it is there, and by the record from then on.
    let placeholder = begun.map(systemd::Begun::wait).transpose()?.flatten();
    let mut cgroup = Cgroup { record, fresh: BTreeSet::new(), is_kept: false, placeholder, spare };
    if cgroup.record.unit.is_some() {
        cgroup.record.own_unit()?;
        limits::make_way(&cgroup.record, resources)?;
    }
    if cgroup.record.driver != Driver::None {
        // What users in the container may read there is not the caller's umask to say.
        let of_caller = umask(Mode::from_bits_truncate(0o022));
        let fresh = cgroup.make_directories(resources);
        umask(of_caller);
        cgroup.fresh = fresh?;
        let places = cgroup.record.places.iter();
        let reused: Vec<&Path> =
            places.filter(|(key, _)| !cgroup.fresh.contains(*key)).map(|(_, place)| place.path.as_path()).collect();
        if !reused.is_empty() {
            check_unclaimed(&reused)?;
            check_not_of_container(&reused)?;
        }
        limits::apply(&cgroup.record, resources, &cgroup.fresh)?;
    } else if limits::is_limited(resources) {
        log::warn!("linux.resources are not applied: cgroups are disabled");
    }
    cgroup.record.ready = true;
    Ok(cgroup)
}

impl Cgroup {
    /// Makes what is missing; gives the keys of the hierarchies where the container's cgroup is new.
    fn make_directories(&mut self, resources: &Resources) -> Result<BTreeSet<String>> {
        let mut fresh = BTreeSet::new();
        let hybrid = self.record.version() == Version::V1;
        let mut refused: Option<(PathBuf, Errno)> = None;
        let Record { places, made, rootless, unit, .. } = &mut self.record;
        let mut unavailable = Vec::new();
        for (key, place) in places.iter() {
            if unit.is_some() && made.contains(&place.path) {
                // With the unit, which is new.
                fresh.insert(key.clone());
                continue;
            }
            match files::make(&place.path, made) {
                Ok(true) => {
                    check_above(key, place, made)?;
                    fresh.insert(key.clone());
                }
                Ok(false) => check_unused(key, &place.path)?,
                Err(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS))
                    if *rootless || hybrid && key == UNIFIED || in_user_ns() =>
                {
                    // The optional unified hierarchy of a hybrid host comes first, and says the least.
                    refused = Some((place.path.clone(), errno));
                    unavailable.push(key.clone());
                }
                Err(errno) => return Err(errno).doing(|| format!("make cgroup {}", place.path.display())),
            }
        }
        for key in unavailable {
            places.remove(&key);
        }
        if let Some((path, errno)) = refused {
            log::debug!("no cgroup {}: {errno}", path.display());
            // Who asks for a limit must get it.
            limits::assign(&self.record, resources).map_err(|error| {
                error.hint(format!(
                    "cgroup {} could not be made: {}",
                    path.display(),
                    errno.desc().to_ascii_lowercase()
                ))
            })?;
        }
        Ok(fresh)
    }

    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Writes what is left to do once the container's process is born, and before it executes anything.
    pub fn complete(&mut self, resources: &Resources) -> Result<()> {
        if limits::counts_processes(resources) {
            // It is one of them, and a hook in the container may need the room.
            self.leave_to_container();
        }
        match self.record.driver {
            Driver::Cgroupfs | Driver::Systemd => limits::apply_after_birth(&self.record, resources, &self.fresh),
            Driver::None => Ok(()),
        }
    }

    /// From here on the container's process is alone in the cgroup, as its program expects. A scope that it leaves is gone with
    /// all that its counters would tell.
    pub fn leave_to_container(&mut self) {
        self.placeholder.take();
    }

    /// Leaves the cgroups as they are; the record goes into state.json.
    pub fn keep(mut self) -> Record {
        self.is_kept = true;
        std::mem::take(&mut self.record)
    }

    /// How init gets in.
    pub fn entry(&self) -> Result<Entry> {
        self.record.entry(&[])
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        self.spare.clear();
        self.placeholder.take();
        // Create found it unused: all that is in it came from there, as what a hook left in a shared PID namespace.
        let killed = if self.record.ready { self.record.signal_all(libc::SIGKILL) } else { Ok(()) };
        // There may have been nobody to kill.
        if let Err(error) = self.record.remove() {
            log::warn!("{}", killed.err().unwrap_or(error));
        }
    }
}

/// config-linux.md#cgroup-ownership: a cgroup that is in use or frozen is refused.
fn check_unused(key: &str, path: &Path) -> Result<()> {
    let refuse = |cause: String| Err(Error::new(Kind::Config, cause)).property(|| "linux.cgroupsPath");
    let pids = files::processes_below(path).doing(|| format!("list the processes of {}", path.display()))?;
    if !pids.is_empty() {
        return refuse(format!("cgroup {} is in use by {}", path.display(), list_processes(&pids)));
    }
    if freezes_newcomers(key, path)? { refuse(format!("cgroup {} is frozen", path.display())) } else { Ok(()) }
}

/// Refuses the cgroup of a container that another state directory knows: its deletion is the end of all that is in it.
fn check_not_of_container(cgroups: &[&Path]) -> Result<()> {
    let Some(path) = cgroups.iter().find(|path| files::is_of_container(path)) else { return Ok(()) };
    let cause = format!("cgroup {} is that of a container below another --root", path.display());
    Err(Error::config("linux.cgroupsPath", cause)
        .hint(format!("delete that one, or name another cgroup; if there is none: rmdir {}", path.display())))
}

/// Refuses a new cgroup below a frozen one: nothing that is born in it would run, and on v1 nothing would end.
fn check_above(key: &str, place: &Place, made: &[PathBuf]) -> Result<()> {
    let above = place.path.ancestors().skip(1).find(|above| !made.iter().any(|made| made == above));
    // The root of a hierarchy cannot be frozen, and below it all is new.
    if above.is_none_or(|above| above == place.mount_point) || !freezes_newcomers(key, &place.path)? {
        return Ok(());
    }
    let cause = format!("cgroup {} would be below a frozen one", place.path.display());
    Err(Error::config("linux.cgroupsPath", cause).hint("thaw it, or name another cgroup"))
}

fn freezes_newcomers(key: &str, path: &Path) -> Result<bool> {
    match key {
        UNIFIED => control::freezes_newcomers_v2(path),
        _ if has_controller(key, "freezer") => control::is_frozen_v1(path),
        _ => Ok(false),
    }
}

fn list_processes(pids: &[i32]) -> String {
    let shown: Vec<_> = pids.iter().take(10).map(ToString::to_string).collect();
    let more = if pids.len() > 10 { format!(" and {} more", pids.len() - 10) } else { String::new() };
    let noun = if pids.len() == 1 { "process" } else { "processes" };
    format!("{noun} {}{more}", shown.join(", "))
}

/// Whether the hierarchy called `key` has `controller`.
fn has_controller(key: &str, controller: &str) -> bool {
    key.split(',').any(|name| name == controller)
}

/// A cgroup below a container's, for `exec --cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubCgroup {
    /// Empty: every hierarchy that no other one names.
    controllers: Vec<String>,
    path: PathBuf,
}

impl SubCgroup {
    /// Parses `[controller[,controller…]:]path`.
    ///
    /// # Errors
    /// A path with `..` in it, or none.
    pub fn parse(text: &str) -> Result<Self> {
        let (controllers, path) = match text.split_once(':') {
            Some((controllers, path)) => (controllers.split(',').map(String::from).collect(), path),
            None => (vec![], text),
        };
        if path.is_empty() || path.contains('\0') || path.split('/').any(|component| component == "..") {
            return Err(Error::usage(format!("--cgroup {text:?} is not a path below the container's cgroup")));
        }
        if controllers.iter().any(String::is_empty) {
            return Err(Error::usage(format!("--cgroup {text:?} names no controller before the colon")));
        }
        Ok(Self { controllers, path: layout::clean(Path::new(path)) })
    }
}

/// How a process gets into a container's cgroups.
#[derive(Debug, Default)]
pub struct Entry {
    /// v2 directory for clone3(2) with CLONE_INTO_CGROUP.
    pub into: Option<OwnedFd>,
    /// v1 `tasks` files, in which a process that has one thread writes `0` itself.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
    /// For who may not put a process into `into`.
    pub door: Option<systemd::Door>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        close_all(self.into.take().into_iter().chain(self.tasks.drain(..).map(|(_, tasks)| tasks)));
    }
}

impl Entry {
    /// All that it holds.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.into.iter().chain(self.tasks.iter().map(|(_, tasks)| tasks)).map(AsFd::as_fd)
    }

    /// [init] [stage] Joins the v1 cgroups. The caller has one thread, and closes the descriptors at once afterwards.
    pub fn join(&self) -> Result<()> {
        // cgroup.procs would wait for a grace period (8 to 20 ms); tasks does not, for a thread that moves itself (5.5).
        for (path, tasks) in &self.tasks {
            write_zero(tasks, path)?;
        }
        Ok(())
    }

    /// [init] [stage] Joins all cgroups, for a process that could not be born in the v2 one (before 5.7).
    pub fn join_unborn(&self) -> Result<()> {
        if let Some(directory) = &self.into {
            let path = Path::new("cgroup.procs");
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = openat(directory, path, flags, Mode::empty()).doing(|| "open cgroup.procs")?;
            write_zero(&file, path)?;
        }
        self.join()
    }
}

fn write_zero(file: &OwnedFd, path: &Path) -> Result<()> {
    loop {
        match write(file.as_fd(), b"0") {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).doing(|| format!("join cgroup {}", path.display())),
        }
    }
}

/// What a `cgroup` mount in a container needs to know of one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HierarchyMount {
    /// Name of the directory in the container's /sys/fs/cgroup: `cpu,cpuacct`. Empty on v2, where it is that directory.
    pub name: String,
    /// Names in the container that are links to `name`: `cpu` and `cpuacct`.
    pub links: Vec<String>,
    /// `cgroup` or `cgroup2`.
    pub fs_type: &'static str,
    /// Mount options: `cpu,cpuacct`, `none,name=systemd`; empty on v2.
    pub options: String,
    /// Where the host has it.
    pub mount_point: PathBuf,
    /// The container's cgroup: what to bind without a cgroup namespace.
    pub cgroup: PathBuf,
}

impl Record {
    /// What the host has, also for a container without cgroups of its own.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Puts down which directories are to be made.
    fn find_missing(&mut self) -> Result<()> {
        for (key, place) in &self.places {
            if self.unit.is_some() && systemd::makes(key) {
                systemd::check_unused(place)?;
                continue;
            }
            let missing = files::to_be_made(&place.path, &place.mount_point)
                .doing(|| format!("look for cgroup {}", place.path.display()))?;
            self.made.extend(missing);
        }
        Ok(())
    }

    /// The container has cgroups of its own.
    pub fn has_cgroup(&self) -> bool {
        !self.places.is_empty()
    }

    /// One of the cgroups that create made is there.
    pub fn is_there(&self) -> bool {
        let of_unit = self.unit.as_ref().and_then(|_| self.place_of_unit());
        of_unit.is_some_and(|place| place.path.exists()) || self.made_is_there()
    }

    fn made_is_there(&self) -> bool {
        self.places.values().any(|place| self.made.contains(&place.path) && place.path.exists())
    }

    /// Where systemd has the unit's own cgroup.
    fn place_of_unit(&self) -> Option<&Place> {
        self.places.get("name=systemd").or_else(|| self.places.get(UNIFIED))
    }

    /// The unit was just made for this container, and with it its cgroups.
    fn own_unit(&mut self) -> Result<()> {
        let path = self.place_of_unit().map(|place| place.path.clone()).unwrap_or_default();
        let inode = systemd::inode(&path).doing(|| format!("look for cgroup {}", path.display()))?;
        if let Some(unit) = &mut self.unit {
            unit.inode = Some(inode);
        }
        let of_systemd = self.places.iter().filter(|(key, _)| systemd::makes(key));
        self.made = of_systemd.map(|(_, place)| place.path.clone()).filter(|path| path.exists()).collect();
        Ok(())
    }

    /// The container's cgroup in the v1 hierarchy of `controller`.
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        let (_, place) = self.places.iter().find(|(key, _)| has_controller(key, controller))?;
        Some(&place.path)
    }

    /// The container's cgroup in the v2 hierarchy, which on a hybrid host stands beside those of v1.
    pub fn unified(&self) -> Option<&Path> {
        self.places.get(UNIFIED).map(|place| place.path.as_path())
    }

    /// Opens the way in for another process, below the container's cgroups where `sub` says so.
    ///
    /// # Errors
    /// A sub-cgroup that does not exist.
    pub fn entry(&self, sub: &[SubCgroup]) -> Result<Entry> {
        for sub in sub {
            for controller in &sub.controllers {
                if !self.places.keys().any(|key| has_controller(key, controller)) {
                    return Err(Error::usage(format!(
                        "--cgroup: the container is in no hierarchy called {controller}"
                    )));
                }
            }
        }
        let mut entry = Entry::default();
        for (key, place) in &self.places {
            let named = sub.iter().find(|sub| sub.controllers.iter().any(|name| has_controller(key, name)));
            let chosen = named.or_else(|| sub.iter().find(|sub| sub.controllers.is_empty()));
            let path = chosen.map_or(place.path.clone(), |sub| joined(&place.path, &sub.path));
            if key == UNIFIED {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                entry.into = Some(open(&path, flags).doing(|| format!("open cgroup {}", path.display()))?);
                entry.door = self.unit.as_ref().map(|unit| systemd::Door::new(unit, &place.path, &path));
            } else {
                let tasks = path.join("tasks");
                let file = open(&tasks, OFlag::O_WRONLY).doing(|| format!("open cgroup {}", path.display()))?;
                entry.tasks.push((path, file));
            }
        }
        Ok(entry)
    }

    /// The v2 cgroup in which process `pid` of the container is, if that is the container's own or below it: where exec
    /// goes when the container has moved its processes down and enabled controllers (EBUSY; runc#2416).
    pub fn entry_beside(&self, pid: i32) -> Result<Entry> {
        let mut entry = self.entry(&[])?;
        if let Some(place) = self.places.get(UNIFIED) {
            let text =
                files::read(Path::new(&format!("/proc/{pid}/cgroup"))).doing(|| format!("read /proc/{pid}/cgroup"))?;
            let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
            let path = joined(&place.mount_point, &layout::clean(Path::new(own)));
            if !path.starts_with(&place.path) {
                let cause = format!("process {pid} is in {}, outside of {}", path.display(), place.path.display());
                return Err(Error::state(cause));
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            entry.into = Some(open(&path, flags).doing(|| format!("open cgroup {}", path.display()))?);
            entry.door = self.unit.as_ref().map(|unit| systemd::Door::new(unit, &place.path, &path));
        }
        Ok(entry)
    }

    /// The cgroup that stands for all: every process of the container is in it or below it. `None` if there is none, or
    /// one that was not made for this container and may be somebody else's.
    fn main(&self) -> Option<&Path> {
        let candidates = [self.unified(), self.v1("freezer"), self.v1("pids"), self.v1("devices")];
        let rest = self.places.values().map(|place| place.path.as_path());
        candidates.into_iter().flatten().chain(rest).find(|path| self.is_own(path))
    }

    /// Nobody else's processes are in the cgroup at `path`.
    fn is_own(&self, path: &Path) -> bool {
        let is_made = self.made.iter().any(|made| made == path);
        match &self.unit {
            // Once it has ended, a unit of the same name may be another container's.
            Some(unit) if is_made => {
                self.place_of_unit().is_some_and(|place| systemd::inode(&place.path).ok() == unit.inode)
            }
            _ => self.ready || is_made,
        }
    }

    /// All processes in the container's cgroup and below, sorted; none if the cgroup is gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(path) = self.main() else { return Ok(vec![]) };
        files::processes_below(path).doing(|| format!("list the processes of {}", path.display()))
    }

    /// Sends `signal` to every process in the cgroup and below; one that forks meanwhile does not escape. SIGKILL reaches
    /// frozen ones too, for which v1 has to thaw them.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let Some(path) = self.main() else { return Ok(()) };
        if signal == libc::SIGKILL
            && let Some(unified) = self.unified()
            && unified == path
            && control::kill_v2(unified).is_ok()
        {
            return self.thaw_all();
        }
        let mut signalled = BTreeSet::new();
        if !control::signal_each(path, signal, &mut signalled, 8)? {
            // They fork faster than they are signalled: not while they are frozen.
            let was_frozen = self.is_frozen()?;
            self.freeze()?;
            let result = control::signal_each(path, signal, &mut signalled, 8);
            if !was_frozen {
                self.thaw()?;
            }
            if !result? {
                return Err(Error::other("new processes keep coming")).doing(|| format!("signal {}", path.display()));
            }
        }
        if signal == libc::SIGKILL { self.thaw_all() } else { Ok(()) }
    }

    /// Thaws the cgroup and all below it, so that what got a SIGKILL ends: v1 lets a frozen process die only once it is thawed.
    /// v2 needs none of this.
    pub fn thaw_all(&self) -> Result<()> {
        match self.v1("freezer").filter(|path| self.is_own(path)) {
            Some(path) => control::thaw_tree_v1(path),
            None => Ok(()),
        }
    }

    /// An error if a cgroup above keeps the container's frozen: that is not the container's to thaw, and on v1 nothing in it ends.
    pub fn check_thawed_above(&self) -> Result<()> {
        let place = self.places.iter().find(|(key, _)| has_controller(key, "freezer"));
        match place.and_then(|(_, place)| control::frozen_above_v1(&place.path, &place.mount_point)) {
            None => Ok(()),
            Some(above) => Err(Error::state(format!("cgroup {} is frozen, and with it all below", above.display()))
                .hint(format!("echo THAWED >{}", above.join("freezer.state").display()))),
        }
    }

    /// Stops every process in the cgroup and below, and waits for that.
    ///
    /// # Errors
    /// `ETIMEDOUT` after 10 s, with a process that cannot be stopped.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_while_alive(None)
    }

    /// [`Record::freeze`], unless process `watched` is being killed: on v1 it would not end any more.
    ///
    /// # Errors
    /// A state error "container not running" then.
    pub fn freeze_while_alive(&self, watched: Option<i32>) -> Result<()> {
        match (self.v1("freezer"), self.unified()) {
            (Some(path), _) => control::freeze_v1(path, watched),
            (None, Some(path)) => control::freeze_v2(path, true),
            (None, None) => Err(cannot_freeze()),
        }
    }

    /// Lets every process in the cgroup go on.
    pub fn thaw(&self) -> Result<()> {
        match (self.v1("freezer"), self.unified()) {
            (Some(path), _) => control::thaw_v1(path),
            (None, Some(path)) => control::freeze_v2(path, false),
            (None, None) => Err(cannot_freeze()),
        }
    }

    /// Removes what create made, the cgroups that the container made in it, and parents that no container needs any more.
    /// Kills nothing; waits up to 3 s for processes that are ending, and thaws them. What is gone already is fine.
    ///
    /// # Errors
    /// `EBUSY` with the processes that are left.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut result = Ok(());
        if let (Some(unit), Some(place)) = (&self.unit, self.place_of_unit()) {
            result = systemd::end(unit, &place.path);
            if systemd::inode(&place.path).is_ok_and(|found| unit.inode != Some(found)) {
                // A later unit's.
                return result;
            }
        }
        for (key, place) in &self.places {
            let removed = self.remove_place(key, place, deadline);
            files::remove_parents(&place.path, &place.mount_point, &self.made);
            result = result.and(removed);
        }
        result
    }

    fn remove_place(&self, key: &str, place: &Place, deadline: Instant) -> Result<()> {
        // One that was there before is its maker's.
        if !self.made.contains(&place.path) {
            return Ok(());
        }
        let doing = || format!("remove cgroup {}", place.path.display());
        loop {
            match files::remove_tree(&place.path) {
                Ok(()) => return Ok(()),
                Err(Errno::EBUSY) if Instant::now() < deadline => {}
                Err(Errno::EBUSY) => {
                    let left = files::processes_below(&place.path).doing(doing)?;
                    let cause = match left.as_slice() {
                        [] => Errno::EBUSY.desc().to_ascii_lowercase(),
                        left => format!("{} in it", list_processes(left)),
                    };
                    return Err(Error::new(Kind::System(Errno::EBUSY), cause)).doing(doing);
                }
                Err(errno) => return Err(errno).doing(doing),
            }
            let slice = deadline.min(Instant::now() + THAW_INTERVAL);
            if key == UNIFIED {
                let left = slice.saturating_duration_since(Instant::now());
                control::wait_for_event(&place.path, "populated 0", left)?;
            }
            control::wait_for_processes(&place.path, slice)?;
            if Instant::now() >= slice {
                // Somebody else may freeze at any time what was thawed when it was killed.
                self.thaw_all()?;
                self.check_thawed_above()?;
            }
        }
    }

    /// What a `cgroup` mount in the container shows: the hierarchies, and the container's cgroup in each. A container
    /// without cgroups of its own is in the caller's.
    pub fn mounts_for_container(&self) -> Result<Vec<HierarchyMount>> {
        let mut places = self.places.clone();
        if places.is_empty() {
            let own = |mount_point: &Path, own: PathBuf| Place {
                mount_point: mount_point.into(),
                path: joined(mount_point, &own),
            };
            match host_layout()? {
                Layout::V1 { hierarchies, unified } => {
                    for hierarchy in hierarchies {
                        let place = own(&hierarchy.mount_point, hierarchy.own()?);
                        places.insert(hierarchy.controllers, place);
                    }
                    if let Some(unified) = unified {
                        places.insert(UNIFIED.into(), own(&unified.mount_point, unified.own()?));
                    }
                }
                Layout::V2(unified) => drop(places.insert(UNIFIED.into(), own(&unified.mount_point, unified.own()?))),
                Layout::None => {}
            }
        }
        let mount = |(key, place): (String, Place)| hierarchy_mount(&key, place, self.version == Version::V2);
        Ok(places.into_iter().map(mount).collect())
    }
}

fn cannot_freeze() -> Error {
    Error::state("the container has no cgroup that can be frozen")
        .hint("cgroups are disabled for it, or the freezer controller is not mounted")
}

fn hierarchy_mount(key: &str, place: Place, is_v2: bool) -> HierarchyMount {
    let directory = place.mount_point.file_name().map(|name| name.to_string_lossy().into_owned());
    let (name, fs_type, options) = match key {
        UNIFIED if is_v2 => (String::new(), "cgroup2", String::new()),
        UNIFIED => (directory.unwrap_or("unified".into()), "cgroup2", String::new()),
        _ if key.starts_with("name=") => {
            (directory.unwrap_or(key["name=".len()..].into()), "cgroup", format!("none,{key}"))
        }
        _ => (directory.unwrap_or(key.into()), "cgroup", key.into()),
    };
    let is_link = |controller: &&str| !controller.is_empty() && !controller.contains('=') && **controller != name;
    let links = key.split(',').filter(is_link).map(String::from).collect();
    HierarchyMount { name, links, fs_type, options, mount_point: place.mount_point, cgroup: place.path }
}
