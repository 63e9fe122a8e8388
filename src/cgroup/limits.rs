//! Limits and device rules, written to the hierarchies that have them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::controllers::{enable_controllers, words};
use super::cpuset::inherit_cpuset;
use super::devices::List;
use super::resources::{Absent, Controller, Version, Write, bytes, controller_of, unified};
use super::{Record, files, has_controller, in_user_ns};
use crate::error::{Context, Error, Result};
use crate::plan::Resources;
use crate::sys::bpf;
use crate::sys::fd::open;

/// A value for a file of one of the container's cgroups.
#[derive(Debug)]
pub struct Assignment {
    /// The container's cgroup in the hierarchy that has the controller.
    pub(super) path: PathBuf,
    pub(super) version: Version,
    /// `None` for the cgroup's own files, which every cgroup has.
    pub(super) controller: Option<String>,
    pub(super) write: Write,
}

impl Assignment {
    pub fn write(&self) -> &Write {
        &self.write
    }

    /// Of the hierarchy that has the controller.
    pub fn version(&self) -> Version {
        self.version
    }

    /// A value for a file of the v1 cgroup at `path`.
    pub(super) fn of_v1(
        path: &Path,
        controller: &str,
        file: &'static str,
        value: &str,
        property: &'static str,
    ) -> Self {
        let write = Write::new(file, value, property);
        Self { path: path.into(), version: Version::V1, controller: Some(controller.into()), write }
    }
}

/// Whether anything is limited at all.
pub fn is_limited(resources: &Resources) -> bool {
    let asks = |controller: &Controller| controller.writes(resources, Version::V1).is_ok_and(|w| !w.is_empty());
    Controller::ALL.iter().any(asks) || !resources.unified.is_empty()
}

/// Which file of which hierarchy takes what, in order. A controller that v1 does not have is looked for on the unified
/// hierarchy of a hybrid host.
///
/// # Errors
/// A value without a form in the version that the controller has here, or a controller that no hierarchy has.
pub fn assign(record: &Record, resources: &Resources) -> Result<Vec<Assignment>> {
    let mut assignments = Vec::new();
    for controller in Controller::ALL {
        assign_controller(controller, record, resources, &mut assignments)?;
    }
    assign_unified(record, resources, &mut assignments)?;
    Ok(assignments)
}

/// The part of [`assign`] that is one controller's.
pub(super) fn assign_controller(
    controller: Controller,
    record: &Record,
    resources: &Resources,
    assignments: &mut Vec<Assignment>,
) -> Result<()> {
    let (path, version) = if let Some(path) = record.v1(controller.name(Version::V1)) {
        (path, Version::V1)
    } else {
        // v1 can express everything, so it tells best what is asked for.
        let asked = controller.writes(resources, Version::V1)?;
        let name = controller.name(Version::V2);
        match (asked.first(), record.unified()) {
            (_, Some(path)) if record.version() == Version::V2 => (path, Version::V2),
            (None, _) => return Ok(()),
            (Some(_), Some(path)) if offers(record, name)? => (path, Version::V2),
            (Some(write), _) => {
                let cause = format!("the container is in no cgroup hierarchy with the {name} controller");
                return Err(Error::config(write.property.clone(), cause));
            }
        }
    };
    for write in controller.writes(resources, version)? {
        let controller = Some(controller.name(version).to_string());
        assignments.push(Assignment { path: path.into(), version, controller, write });
    }
    Ok(())
}

/// The part of [`assign`] that is `linux.resources.unified`.
pub(super) fn assign_unified(record: &Record, resources: &Resources, assignments: &mut Vec<Assignment>) -> Result<()> {
    for write in unified(resources)? {
        let Some(path) = record.unified().filter(|_| record.version() == Version::V2) else {
            return Err(Error::config(write.property, "needs cgroup v2").hint("this host has cgroup v1"));
        };
        let controller = controller_of(&write.file).map(String::from);
        assignments.push(Assignment { path: path.into(), version: Version::V2, controller, write });
    }
    Ok(())
}

/// Refuses what the unified hierarchy has no controller for, before anything is made.
///
/// # Errors
/// Names the property, and who could give the controller.
pub fn check_offered(record: &Record, assignments: &[Assignment]) -> Result<()> {
    let Some(place) = record.places.get(super::UNIFIED) else { return Ok(()) };
    let mut needed = assignments.iter().filter(|assignment| assignment.version == Version::V2).peekable();
    if needed.peek().is_none() {
        return Ok(());
    }
    let root = &place.mount_point;
    let offered = words(&root.join("cgroup.controllers"))?;
    needed.try_for_each(|assignment| check_controller(assignment, root, &offered))
}

/// Refuses an assignment whose controller is not among those that the mounted `root` of the unified hierarchy has.
pub(super) fn check_controller(assignment: &Assignment, root: &Path, offered: &BTreeSet<String>) -> Result<()> {
    let Some(name) = assignment.controller.as_ref().filter(|name| !offered.contains(*name)) else { return Ok(()) };
    let cause = format!("cgroup.controllers of {} has no {name} controller", root.display());
    let error = Error::config(assignment.write.property.clone(), cause);
    // Only the real root of the hierarchy has no cgroup.type.
    Err(if root.join("cgroup.type").exists() {
        error.hint(format!("whoever made this cgroup must delegate {name} to it"))
    } else {
        error.hint("the kernel lacks it, its command line disables it, or a cgroup v1 hierarchy has it")
    })
}

/// Whether the mounted root of the unified hierarchy has `controller` to give.
fn offers(record: &Record, controller: &str) -> Result<bool> {
    let Some(place) = record.places.get(super::UNIFIED) else { return Ok(false) };
    Ok(words(&place.mount_point.join("cgroup.controllers"))?.contains(controller))
}

/// Writes limits, but for what [`apply_after_birth`] does. `fresh` are the keys of the hierarchies where the container's
/// cgroup was just made.
pub fn apply(record: &Record, resources: &Resources, fresh: &BTreeSet<String>) -> Result<()> {
    let assignments = assign(record, resources)?;
    enable_controllers(record, &assignments)?;
    inherit_cpuset(record, resources, fresh)?;
    let is_reused = record.places.keys().any(|key| !fresh.contains(key));
    if resources.memory.check_before_update && is_reused {
        check_use(&assignments)?;
    }
    write_all(&assignments)?;
    // What its last user was not allowed to do could be in the way of the container's process.
    if may_set_devices_later(record, fresh) { Ok(()) } else { set_devices(record, resources, fresh) }
}

/// Writes what [`apply`] held back: the limit of processes, which could keep the container's process from being born, and
/// the device rules of a new v2 cgroup, of which the verifier's part takes a while, in which that process sets itself up.
pub fn apply_after_birth(record: &Record, resources: &Resources, fresh: &BTreeSet<String>) -> Result<()> {
    if may_set_devices_later(record, fresh) {
        set_devices(record, resources, fresh)?;
    }
    if !counts_processes(resources) {
        return Ok(());
    }
    let assignments = assign(record, resources)?;
    let mut later = assignments.iter().filter(|assignment| is_for_later(assignment));
    later.try_for_each(|assignment| explained(write_one(&assignment.path, &assignment.write), assignment))
}

/// Whether there is a limit of processes.
pub fn counts_processes(resources: &Resources) -> bool {
    resources.pids_limit.is_some() || resources.unified.iter().any(|(file, _)| file == PIDS_MAX)
}

/// Takes back what came with systemd's unit and is in the way: a limit of processes, until [`apply_after_birth`], and that the
/// cgroup is idle, which lets no weight be written.
pub fn make_way(record: &Record, resources: &Resources) -> Result<()> {
    for assignment in assign(record, resources)? {
        if let Some(write) = taken_back(&assignment) {
            explained(write_one(&assignment.path, &write), &assignment)?;
        }
    }
    Ok(())
}

/// What [`make_way`] writes for an assignment.
pub(super) fn taken_back(assignment: &Assignment) -> Option<Write> {
    let value = match &*assignment.write.file {
        PIDS_MAX => "max",
        "cpu.idle" => "0",
        _ => return None,
    };
    Some(Write { value: value.into(), absent: Absent::Ignore, ..assignment.write.clone() })
}

const PIDS_MAX: &str = "pids.max";

/// clone3(2) into a v2 cgroup that has as many processes as it may have is refused, and a stage is one of them; without
/// clone3(2) it joins those of v1, too.
pub(super) fn is_for_later(assignment: &Assignment) -> bool {
    assignment.write.file == PIDS_MAX
}

fn write_all(assignments: &[Assignment]) -> Result<()> {
    let mut held_back: Option<&Assignment> = None;
    for assignment in assignments.iter().filter(|assignment| !is_for_later(assignment)) {
        let result = write_one(&assignment.path, &assignment.write);
        match result {
            // In a cgroup that was there before, the new limit may be above the old one of memory and swap together.
            Err(error)
                if assignment.write.file == "memory.limit_in_bytes"
                    && error.raw_os_error() == Some(libc::EINVAL)
                    && assignments.iter().any(|a| a.write.file == "memory.memsw.limit_in_bytes") =>
            {
                held_back = Some(assignment);
            }
            other => explained(other, assignment)?,
        }
        if let Some(limit) = held_back.filter(|_| assignment.write.file == "memory.memsw.limit_in_bytes") {
            explained(write_one(&limit.path, &limit.write), limit)?;
            held_back = None;
        }
    }
    // Not followed by the other one: that went first, and did not help.
    held_back.map_or(Ok(()), |limit| explained(write_one(&limit.path, &limit.write), limit))
}

pub(super) fn write_one(directory: &Path, write: &Write) -> io::Result<()> {
    match (files::write(&directory.join(&*write.file), &write.value), &write.absent) {
        (Err(error), Absent::Ignore) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        (Err(error), Absent::Instead(file, value)) if error.kind() == io::ErrorKind::NotFound => {
            files::write(&directory.join(&**file), value)
        }
        (Ok(()), _) if write.file == "memory.kmem.limit_in_bytes" => {
            check_taken(&directory.join(&*write.file), &write.value)
        }
        (result, _) => result,
    }
}

/// Since Linux 5.16 a limit of kernel memory is taken without a word, and is none.
fn check_taken(path: &Path, value: &str) -> io::Result<()> {
    let taken = files::read(path)?;
    match (taken.parse::<u64>(), value.parse::<u64>()) {
        (Ok(taken), Ok(value)) if taken > value => Err(io::Error::from_raw_os_error(ENOTSUPP)),
        _ => Ok(()),
    }
}

/// An error of a write, with its file, value and property, and a way out where one is certain.
pub(super) fn explained(result: io::Result<()>, assignment: &Assignment) -> Result<()> {
    let Err(error) = result else { return Ok(()) };
    let write = &assignment.write;
    let code = error.raw_os_error().unwrap_or(0);
    let mut error = Error::from(error);
    if let Some(hint) = hint(assignment, code) {
        error = error.hint(hint);
    }
    Err(error).property(|| write.property.to_string()).doing(|| format!("write {:?} to {}", write.value, write.file))
}

/// ENOTSUPP, the kernel's own number for what it does not do any more.
const ENOTSUPP: i32 = 524;

fn hint(assignment: &Assignment, code: i32) -> Option<Cow<'static, str>> {
    let directory = &assignment.path;
    let of_parent = |file: &str| files::read(&directory.parent()?.join(file)).ok();
    match (&*assignment.write.file, code) {
        ("memory.memsw.limit_in_bytes", libc::ENOENT) => {
            Some("this kernel does not account swap; it may need swapaccount=1 on its command line".into())
        }
        ("blkio.leaf_weight" | "blkio.leaf_weight_device", libc::ENOENT) => {
            Some("leaf weights went with the CFQ scheduler in Linux 5.0".into())
        }
        ("blkio.weight" | "blkio.weight_device" | "io.bfq.weight", libc::ENOENT) => {
            Some("this kernel has no I/O scheduler with weights; BFQ would be one".into())
        }
        (file, libc::ENOENT) if file.starts_with("hugetlb.") => Some("this host has no huge pages of that size".into()),
        (_, libc::ENOENT) => Some("this kernel has no such file".into()),
        (file, ENOTSUPP | libc::EOPNOTSUPP) if file.starts_with("memory.kmem") => {
            Some("this kernel does not limit kernel memory any more".into())
        }
        ("memory.limit_in_bytes", libc::EBUSY) => {
            let used = files::read(&directory.join("memory.usage_in_bytes")).ok()?;
            Some(format!("the container already uses {used} bytes, and no more of them can be reclaimed").into())
        }
        ("cpu.max" | "cpu.cfs_quota_us", libc::EINVAL) if burst_above_quota(assignment).is_some() => {
            Some(format!("the burst is {}: lower it with the quota", burst_above_quota(assignment)?).into())
        }
        ("cpu.max.burst" | "cpu.cfs_burst_us", libc::EINVAL) => Some("a burst is at most the quota".into()),
        ("cpu.shares" | "cpu.weight", libc::EINVAL) if files::read(&directory.join("cpu.idle")).ok()? == "1" => {
            Some("the cgroup is idle and has none: cpu.idle has to be 0 again".into())
        }
        ("cpuset.cpus" | "cpuset.mems", libc::EBUSY) => {
            Some("cgroups below it, which the container made, use more".into())
        }
        ("cpu.max" | "cpu.cfs_quota_us" | "cpu.cfs_period_us", libc::EINVAL) => {
            let range = "the period is 1000 to 1000000 microseconds, the quota at least 1000";
            let parent =
                of_parent("cpu.cfs_quota_us").filter(|quota| quota != "-1").zip(of_parent("cpu.cfs_period_us"));
            Some(parent.map_or(range.into(), |(quota, period)| {
                format!("{range} and no greater part of its period than the parent's, {quota} of {period}").into()
            }))
        }
        ("cpu.rt_runtime_us", libc::EINVAL) => {
            Some(format!("the parent cgroup has {} microseconds to give", of_parent("cpu.rt_runtime_us")?).into())
        }
        (file @ ("cpuset.cpus" | "cpuset.mems"), libc::EINVAL | libc::EACCES | libc::ERANGE | libc::ENODEV) => {
            let offered = match assignment.version {
                Version::V1 => of_parent(file)?,
                Version::V2 => of_parent(&format!("{file}.effective"))?,
            };
            Some(format!("the parent cgroup has {offered}").into())
        }
        (file, libc::ENODEV) if file.starts_with("blkio.") || file.starts_with("io.") => {
            Some("no block device has this number".into())
        }
        _ => None,
    }
}

/// The burst of a cgroup, where a quota that was refused is below it.
fn burst_above_quota(assignment: &Assignment) -> Option<u64> {
    let file = if assignment.version == Version::V1 { "cpu.cfs_burst_us" } else { "cpu.max.burst" };
    let burst: u64 = files::read(&assignment.path.join(file)).ok()?.parse().ok()?;
    let quota: u64 = assignment.write.value.split(' ').next()?.parse().ok()?;
    (burst > quota).then_some(burst)
}

/// `memory.checkBeforeUpdate`: refuses a limit below what is used now, before anything is changed.
pub(super) fn check_use(assignments: &[Assignment]) -> Result<()> {
    for assignment in assignments {
        let used = match &*assignment.write.file {
            "memory.max" => "memory.current",
            "memory.limit_in_bytes" => "memory.usage_in_bytes",
            _ => continue,
        };
        let Some(limit) = bytes(&assignment.write.value) else { continue };
        let path = assignment.path.join(used);
        let used = files::read(&path).doing(|| format!("read {}", path.display()))?;
        if used.parse().is_ok_and(|used: u64| used > limit) {
            let cause = format!("{limit} is less than the {used} bytes in use");
            return Err(Error::config(assignment.write.property.clone(), cause)
                .hint("linux.resources.memory.checkBeforeUpdate asks for this check"));
        }
    }
    Ok(())
}

const DEVICES: &str = "linux.resources.devices";

/// Whether the rules can wait until the container's process is born: on v2, where they come into force at once, in a new cgroup. v1
/// takes them one by one, after it was told to allow nothing.
fn may_set_devices_later(record: &Record, fresh: &BTreeSet<String>) -> bool {
    record.v1("devices").is_none() && fresh.contains(super::UNIFIED)
}

/// Where and in which form device rules come into force.
pub(super) enum DeviceForm<'r> {
    /// A new cgroup has what its parent has: more cannot be had.
    AsInParent,
    /// As lines for files of the cgroup.
    Lines(&'r Path),
    /// As a program.
    Program {
        path: &'r Path,
        is_fresh: bool,
    },
    Nowhere,
}

impl<'r> DeviceForm<'r> {
    pub fn of(record: &'r Record, list: &List, fresh: &BTreeSet<String>) -> Self {
        let of_v1 = record.places.iter().find(|(key, _)| has_controller(key, "devices"));
        match of_v1.or_else(|| record.places.get_key_value(super::UNIFIED)) {
            Some((key, _)) if fresh.contains(key) && list.allows_everything() => DeviceForm::AsInParent,
            Some((_, place)) if of_v1.is_some() => DeviceForm::Lines(&place.path),
            Some((key, place)) => DeviceForm::Program { path: &place.path, is_fresh: fresh.contains(key) },
            None => DeviceForm::Nowhere,
        }
    }
}

fn set_devices(record: &Record, resources: &Resources, fresh: &BTreeSet<String>) -> Result<()> {
    let list = List::new(&resources.devices)?;
    match DeviceForm::of(record, &list, fresh) {
        DeviceForm::AsInParent => Ok(()),
        DeviceForm::Lines(path) => unless_unprivileged(record, write_devices(path, &list)),
        DeviceForm::Program { path, is_fresh } => {
            unless_unprivileged(record, attach_devices(path, &list, is_fresh).property(|| DEVICES))
                .doing(|| format!("set device rules of {}", path.display()))
        }
        DeviceForm::Nowhere
            if record.rootless || resources.devices.is_empty() || list.allows_everything() || in_user_ns() =>
        {
            Ok(())
        }
        DeviceForm::Nowhere => Err(Error::config(DEVICES, "the container is in no cgroup hierarchy with device rules")),
    }
}

/// Without privilege over the initial user namespace neither bpf(2) nor the files of v1 take device rules. Nor is there
/// mknod(2) then, and devices of the host are guarded by their owners (as in runc, runc#2793).
fn unless_unprivileged(record: &Record, result: Result<()>) -> Result<()> {
    match result {
        Err(error) if record.rootless || in_user_ns() => {
            log::debug!("device rules are not applied: {error}");
            Ok(())
        }
        other => other,
    }
}

/// One descriptor for all rules: the kernel takes one rule a write.
fn write_devices(directory: &Path, list: &List) -> Result<()> {
    let lines = list.v1();
    files::write(&directory.join(lines.default_file), "a")
        .property(|| DEVICES)
        .doing(|| format!("write \"a\" to {}", lines.default_file))?;
    if lines.exceptions.is_empty() {
        return Ok(());
    }
    let path = directory.join(lines.exceptions_file);
    let mut file = open(&path, OFlag::O_WRONLY).map(File::from).doing(|| format!("open {}", path.display()))?;
    for line in &lines.exceptions {
        match (file.write_all(line.value.as_bytes()), &line.property) {
            // A parent cgroup may forbid what only Kelson asked for.
            (Err(error), None) if error.raw_os_error() == Some(libc::EPERM) => {
                log::debug!("the parent cgroup does not allow {}", line.value);
            }
            (Err(error), property) => {
                let mut error = Error::from(error);
                if error.errno() == Some(nix::errno::Errno::EPERM) {
                    error = error.hint("the parent cgroup does not allow it");
                }
                return Err(error)
                    .property(|| property.clone().unwrap_or(DEVICES.into()))
                    .doing(|| format!("write {:?} to {}", line.value, lines.exceptions_file));
            }
            (Ok(()), _) => {}
        }
    }
    Ok(())
}

/// Attaches the rules to a v2 cgroup as a program. One that was there before may have programs of its last user.
fn attach_devices(directory: &Path, list: &List, is_fresh: bool) -> Result<()> {
    let cgroup = open(directory, OFlag::O_RDONLY)?;
    let old = if is_fresh { vec![] } else { bpf::device_programs(cgroup.as_fd())? };
    if !list.allows_everything() {
        let program = bpf::load_device_program(&list.program())?;
        if let [old] = &old[..]
            && bpf::replace_device_program(cgroup.as_fd(), program.as_fd(), old.as_fd()).is_ok()
        {
            return Ok(());
        }
        bpf::attach_device_program(cgroup.as_fd(), program.as_fd())?;
    }
    for program in &old {
        bpf::detach_device_program(cgroup.as_fd(), program.as_fd())?;
    }
    Ok(())
}
