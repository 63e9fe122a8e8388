//! The systemd driver: the container's cgroup is that of a transient scope (or slice), which systemd makes, configures again at
//! each `daemon-reload`, and removes.
//!
//! A scope needs a process to begin with: a [`placeholder`] of Kelson's own, until the container's, which is born in the cgroup as
//! with the other driver, comes to its program. The job is begun before the container is prepared and waited for after it.
//!
//! ```text
//! locate ─▶ Unit in the journal ─▶ begin: placeholder, StartTransientUnit ─ ─ ─ ▶ wait: JobRemoved ─▶ limits ─▶ clone3 ─▶ start: placeholder ends
//!                                    └ drop stops the unit                                              (as in cgroup/mod.rs)
//! ```
//!
//! Device rules of v2 are no property: the program that Kelson attaches stays whatever systemd does, and systemd's own is taken
//! away and attached anew at each `daemon-reload` (docs/decisions/0006-systemd-driver.md). exec, state, list and kill ask the
//! kernel alone.

mod annotations;
mod gvariant;
mod manager;
mod placeholder;
mod properties;
mod unit;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::devices::List;
use super::layout::Layout;
use super::resources::{Version, Write};
use super::{Place, Record, UNIFIED, files, has_controller, joined, limits, list_processes};
use crate::dbus::{Failure, Value};
use crate::error::{Context, Error, Result};
use crate::plan::Resources;
use manager::{Job, Manager};
use properties::IoWeights;

pub use placeholder::Placeholder;
pub use properties::Property;
pub use unit::Unit;

/// The v1 hierarchies in which systemd makes the cgroups of units; in the others Kelson does it.
const OF_SYSTEMD: [&str; 7] = ["name=systemd", "cpu", "cpuacct", "blkio", "memory", "devices", "pids"];

/// Whether systemd makes a unit's cgroup in the hierarchy called `key`.
pub fn makes(key: &str) -> bool {
    key == UNIFIED || OF_SYSTEMD.iter().any(|controller| has_controller(key, controller))
}

/// The unit for `cgroups_path`, and the path of its cgroup in every hierarchy. EINTR when `interrupt` can be read.
pub fn locate(
    cgroups_path: Option<&str>,
    id: &str,
    rootless: bool,
    layout: &Layout,
    interrupt: Option<BorrowedFd<'_>>,
) -> Result<(Unit, PathBuf)> {
    if rootless && matches!(layout, Layout::V1 { .. }) {
        return Err(Error::usage("--systemd-cgroup: cgroup v1 gives the user's systemd nothing to share out")
            .hint("use cgroup v2, or --cgroup-manager cgroupfs"));
    }
    let unit = Unit::of(cgroups_path, id, rootless)?;
    let below = unit.cgroup()?;
    // That of the system is the root's, and is known without asking.
    let of_user =
        || Manager::connect(true, interrupt)?.control_group().doing(|| "ask the user's systemd for its cgroup");
    let manager = if unit.is_user { of_user()? } else { "/".into() };
    Ok((unit, joined(&manager, &below)))
}

/// Refuses the cgroup of a unit that is in use, before anything is made or written of it.
pub fn check_unused(place: &Place) -> Result<()> {
    let path = &place.path;
    let pids = files::processes_below(path).doing(|| format!("list the processes of {}", path.display()))?;
    if pids.is_empty() {
        return Ok(());
    }
    let cause = format!("cgroup {} is in use by {}", path.display(), list_processes(&pids));
    Err(Error::config("linux.cgroupsPath", cause)
        .hint("another id or another name; systemctl status tells whose it is"))
}

/// A unit that systemd is starting, or may be: stopped on drop.
#[derive(Debug)]
pub struct Begun {
    manager: Manager,
    unit: Unit,
    /// `None` if systemd did not answer.
    job: Option<Job>,
    /// A slice needs none.
    placeholder: Option<Placeholder>,
    is_owned: bool,
}

/// Begins to start the unit of `record`, `None` with another driver.
///
/// # Errors
/// systemd is not to be reached, refuses a property, or has such a unit; EINTR when `interrupt` can be read, as from
/// [`Begun::wait`].
pub fn begin(
    record: &Record,
    resources: &Resources,
    annotations: &BTreeMap<String, String>,
    interrupt: BorrowedFd<'_>,
) -> Result<Option<Begun>> {
    let Some(unit) = &record.unit else { return Ok(None) };
    let doing = || format!("start {}", unit.name);
    // What is wrong in the configuration comes before what is wrong with the host.
    let asked = asked(record, resources, annotations)?;
    let placeholder = if unit.is_slice() { None } else { Some(Placeholder::start()?) };
    let mut properties = of_unit(unit, placeholder.as_ref().map(Placeholder::pid), record.version);
    properties.extend(asked);
    let manager = Manager::connect(unit.is_user, Some(interrupt))?;
    let mut begun = Begun { manager, unit: unit.clone(), job: None, placeholder, is_owned: true };
    let mut started = begun.manager.start(unit, properties).map_err(|failure| {
        begun.is_owned = !matches!(failure, Failure::Refused { .. });
        Error::from(failure)
    });
    if let Err(error) = &started
        && let Some(key) = annotations::blamed(&error.to_string(), annotations)
    {
        started = started.property(|| format!("annotations[{key:?}]"));
    }
    begun.job = Some(started.doing(doing)?);
    Ok(Some(begun))
}

impl Begun {
    /// Waits until the unit is there; gives the process that keeps it there.
    pub fn wait(mut self) -> Result<Option<Placeholder>> {
        if let Some(job) = &self.job {
            self.manager.wait(job).doing(|| format!("start {}", self.unit.name))?;
        }
        self.is_owned = false;
        Ok(self.placeholder.take())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        // Without it no scope can be started any more.
        self.placeholder.take();
        self.manager.begin_undo(self.job.is_none());
        let stopped = match self.job {
            Some(_) => stop(&mut self.manager, &self.unit),
            None => stop_own(&mut self.manager, &self.unit),
        };
        if let Err(error) = stopped {
            log::warn!("{error}");
        }
    }
}

fn stop(manager: &mut Manager, unit: &Unit) -> Result<()> {
    let stopped = match manager.stop(&unit.name) {
        Ok(Some(job)) => manager.wait(&job),
        other => other.map(drop),
    };
    manager.reset_failed(&unit.name);
    stopped.doing(|| format!("stop {}", unit.name))
}

/// The same for a unit that may be another's, as its description tells, with all processes in it.
fn stop_own(manager: &mut Manager, unit: &Unit) -> Result<()> {
    let description = manager.description(&unit.name).doing(|| format!("look for {}", unit.name))?;
    if description.is_none_or(|found| found != unit.description()) {
        return Ok(());
    }
    manager.kill(&unit.name).doing(|| format!("kill {}", unit.name))?;
    stop(manager, unit)
}

/// The properties that the configuration asks for, in order.
fn asked(record: &Record, resources: &Resources, annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let mut properties = annotations::properties(annotations)?;
    properties.extend(oom_policy(resources));
    if record.version == Version::V1 {
        properties.extend(devices_v1(&List::new(&resources.devices)?));
    }
    properties.extend(of_resources(record, resources)?);
    Ok(properties)
}

/// All that [`begin`] tells systemd of the unit of `record`, but for the process that it begins with; nothing with another
/// driver.
pub fn intended(
    record: &Record,
    resources: &Resources,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Property>> {
    let Some(unit) = &record.unit else { return Ok(vec![]) };
    let mut properties = of_unit(unit, None, record.version);
    properties.extend(asked(record, resources, annotations)?);
    Ok(properties)
}

/// The names of the properties that a write to a file of the unit's cgroup comes with.
pub fn names_for(record: &Record, write: &Write, version: Version) -> Vec<String> {
    if record.unit.is_none() || version != record.version {
        return vec![];
    }
    properties::of_writes(&[write], version, IoWeights::Plain).into_iter().map(|property| property.name).collect()
}

/// What is the same for every container.
fn of_unit(unit: &Unit, pid: Option<Pid>, version: Version) -> Vec<Property> {
    let mut properties = vec![Property::new("Description", Value::str(unit.description()))];
    if unit.is_slice() {
        properties.push(Property::new("Wants", Value::strings([unit.slice.as_str()])));
    } else {
        properties.push(Property::new("Slice", Value::str(&unit.slice)));
        properties.push(Property::new("Delegate", Value::Bool(true)));
    }
    if let Some(pid) = pid {
        let pids = Value::array("u", [Value::U32(pid.as_raw().unsigned_abs())]);
        properties.push(Property::new("PIDs", pids));
    }
    let io = if version == Version::V1 { "BlockIOAccounting" } else { "IOAccounting" };
    let accounting = ["CPUAccounting", "MemoryAccounting", io, "TasksAccounting"];
    properties.extend(accounting.map(|name| Property::new(name, Value::Bool(true))));
    // It does not wait for the boot, nor end before the engine at a shutdown.
    properties.push(Property::new("DefaultDependencies", Value::Bool(false)));
    properties
}

fn of_resources(record: &Record, resources: &Resources) -> Result<Vec<Property>> {
    let assignments = limits::assign(record, resources)?;
    Ok(of_writes(record, &writes(record, &assignments)))
}

/// Without those of the other version, for which systemd has no properties on a hybrid host.
fn writes<'a>(record: &Record, assignments: &'a [limits::Assignment]) -> Vec<&'a Write> {
    assignments.iter().filter(|a| a.version() == record.version).map(limits::Assignment::write).collect()
}

fn of_writes(record: &Record, writes: &[&Write]) -> Vec<Property> {
    let has_weights = writes.iter().any(|write| write.file.starts_with("io.") && write.file.ends_with("weight"));
    let weights = if has_weights { io_weights() } else { IoWeights::Plain };
    properties::of_writes(writes, record.version, weights)
}

/// As this host has them. That a cgroup has no io.bfq.weight says nothing, since none has before io is enabled.
fn io_weights() -> IoWeights {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    IoWeights::of_schedulers(disks.filter_map(|disk| files::read(&disk.path().join("queue/scheduler")).ok()))
}

/// memory.oom.group, which systemd takes when a unit is made and at no other time.
fn oom_policy(resources: &Resources) -> Option<Property> {
    let (_, value) = resources.unified.iter().find(|(file, _)| file == "memory.oom.group")?;
    let policy = match value.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property { is_in_files: true, ..Property::new("OOMPolicy", Value::str(policy)) })
}

/// Device rules of v1, which systemd sets again whenever it writes to the unit's cgroup. It has no form for a list that allows all
/// but some.
fn devices_v1(list: &List) -> Vec<Property> {
    let Some(allowed) = list.allowed() else {
        if !list.allows_everything() {
            log::warn!(
                "linux.resources.devices: systemd cannot keep rules that deny a part: they last until its next daemon-reload"
            );
        }
        return vec![];
    };
    let entry = |(device, access): (String, String)| Value::Struct(vec![Value::Str(device), Value::Str(access)]);
    vec![
        Property::new("DevicePolicy", Value::str("strict")),
        Property::new("DeviceAllow", Value::array("(ss)", allowed.into_iter().map(entry))),
    ]
}

/// Properties of a unit that are to be changed, and what they are now.
#[derive(Debug)]
pub struct Change {
    manager: Manager,
    unit: Unit,
    properties: Vec<Property>,
    before: Vec<Property>,
}

impl Change {
    /// Asks systemd what it would change for the unit of `record` to have the properties that `resources` ask for; changes nothing.
    /// `None` with another driver. Device rules stay as they are.
    ///
    /// # Errors
    /// systemd is not to be reached, does not answer, or has no such unit.
    pub fn prepare(record: &Record, resources: &Resources) -> Result<Option<Self>> {
        let Some(unit) = &record.unit else { return Ok(None) };
        let assignments = limits::assign(record, resources)?;
        let writes = writes(record, &assignments);
        let mut properties = of_writes(record, &writes);
        let end_of_idle = properties::end_of_idle(&writes, &properties).filter(|_| record.version == Version::V2);
        if properties.is_empty() && end_of_idle.is_none() {
            return Ok(None);
        }
        let doing = || format!("change {}", unit.name);
        let mut manager = Manager::connect(unit.is_user, None).doing(doing)?;
        if let Some(end) = end_of_idle
            && manager.present(unit, std::slice::from_ref(&end)).doing(doing)?.iter().any(properties::is_idle)
        {
            properties.push(end);
        }
        if properties.is_empty() {
            return Ok(None);
        }
        let before = manager.present(unit, &properties).doing(doing)?;
        Ok(Some(Self { manager, unit: unit.clone(), properties, before }))
    }

    /// Makes it, until the unit ends: systemd writes the properties to the cgroup's files now and at each `daemon-reload`.
    ///
    /// # Errors
    /// systemd refuses a property, or does not answer: none is changed.
    pub fn make(mut self) -> Result<Changed> {
        let properties = std::mem::take(&mut self.properties);
        let failure = match self.manager.set_properties(&self.unit.name, properties) {
            Ok(()) => return Ok(Changed(self)),
            Err(failure) => failure,
        };
        let doing = format!("change {}", self.unit.name);
        if let Failure::Failed(_) = failure {
            // It may have been done all the same.
            self.manager.begin_undo(true);
            Changed(self).undo();
        }
        Err(failure).doing(|| doing)
    }
}

/// A change that was made.
#[derive(Debug)]
pub struct Changed(Change);

impl Changed {
    /// Sets the properties back.
    pub fn undo(self) {
        let Self(Change { mut manager, unit, before, .. }) = self;
        let set_back = manager.set_properties(&unit.name, before);
        if let Err(error) = set_back.doing(|| format!("set properties of {} back", unit.name)) {
            log::warn!("{error}");
        }
    }
}

/// The way into a unit's cgroup by way of systemd, for a user who may write to the cgroup and not to those above, which the kernel
/// asks for where a process comes from elsewhere (cgroup-v2.rst, "Delegation Containment").
#[derive(Debug)]
pub struct Door {
    unit: Unit,
    /// Below the unit's cgroup: empty, or absolute.
    below: String,
}

impl Door {
    /// To the cgroup at `path`, which is that of `unit`, at `of_unit`, or below it.
    pub fn new(unit: &Unit, of_unit: &Path, path: &Path) -> Self {
        let below = path.strip_prefix(of_unit).ok().filter(|below| !below.as_os_str().is_empty());
        let below = below.map(|below| format!("/{}", below.display())).unwrap_or_default();
        Self { unit: unit.clone(), below }
    }

    /// Moves process `pid` in.
    pub fn pass(&self, pid: Pid) -> Result<()> {
        let Self { unit, below } = self;
        let attached =
            Manager::connect(unit.is_user, None).and_then(|mut manager| manager.attach(&unit.name, below, pid));
        attached.doing(|| format!("move process {pid} into {}", unit.name))
    }
}

/// Number of the cgroup at `path`.
pub fn inode(path: &Path) -> std::io::Result<u64> {
    std::fs::metadata(path).map(|found| found.ino())
}

/// Stops the unit of a container, and makes systemd forget it. What is gone already is fine, and so is a later unit with its name.
/// `path` is where it has or had its cgroup.
pub fn end(unit: &Unit, path: &Path) -> Result<()> {
    let mut manager = match Manager::connect(unit.is_user, None) {
        // An empty cgroup that the caller can remove is the end of its unit, too.
        Err(error) if unit.inode.is_some() => {
            log::warn!("{error}");
            return Ok(());
        }
        other => other?,
    };
    match unit.inode {
        Some(own) => match inode(path) {
            Ok(found) if found == own => stop(&mut manager, unit),
            Ok(_) => Ok(()),
            Err(_) => {
                manager.reset_failed(&unit.name);
                Ok(())
            }
        },
        // Its maker was killed before it could say that the unit is its own.
        None => stop_own(&mut manager, unit),
    }
}
