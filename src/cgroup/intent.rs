//! What [`create`](super::create) and [`Cgroup::complete`](super::Cgroup::complete) would do, for who wants to read it: the
//! same lists, read and not written. Nothing is made, and no file is opened for writing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::controllers::{Enabling, SUBTREE_CONTROL};
use super::devices::{Lines, List};
use super::limits::{self, Assignment, DeviceForm};
use super::resources::{Absent, Controller, Version};
use super::systemd::{self, Property};
use super::{Driver, Record, controllers, cpuset, place};
use crate::error::{Error, Kind, Result};
use crate::plan::Resources;

/// The cgroups of a container that is not there yet.
#[derive(Debug)]
pub struct Intent {
    pub record: Record,
    /// What systemd is told of its unit.
    pub properties: Vec<Property>,
    /// In order.
    pub writes: Vec<Intended>,
    pub devices: Devices,
    /// What was asked for and cannot be had here: create would fail.
    pub refused: Vec<Error>,
    /// Cgroups that the caller may not make: in which hierarchy, where, and why.
    pub closed: Vec<(String, PathBuf, Errno)>,
    /// `linux.resources` have limits, and there are no cgroups that could have them.
    pub is_ignored: bool,
}

/// A write to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intended {
    pub path: PathBuf,
    pub value: String,
    /// What of config.json it comes from; `None` for what the runtime does by itself.
    pub property: Option<String>,
    /// Where the file is not there: `None` is an error, else what is written to which other file, or that nothing is.
    pub otherwise: Option<Otherwise>,
    pub when: When,
    /// Properties of systemd's unit that say the same.
    pub unit_properties: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Otherwise {
    Nothing,
    Instead { file: String, value: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    BeforeBirth,
    /// When the container's process is born.
    AfterBirth,
}

/// What device rules become.
#[derive(Debug)]
pub enum Devices {
    /// Nothing is forbidden that the parent cgroup allows.
    AsInParent,
    /// Lines for files of the v1 cgroup at `path`.
    Lines { path: PathBuf, lines: Lines },
    /// A program at the v2 cgroup at `path`, which says the same as the lines.
    Program { path: PathBuf, lines: Lines, instructions: usize },
    /// The container is in no hierarchy that has them.
    Nowhere { lines: Lines },
    /// Nobody makes cgroups.
    None,
}

/// What create would do for container `id`.
///
/// # Errors
/// A value that contradicts another. What this host or this caller lacks is none: it is in the result.
pub fn of(
    driver: Driver,
    cgroups_path: Option<&str>,
    id: &str,
    resources: &Resources,
    annotations: &BTreeMap<String, String>,
    rootless: bool,
) -> Result<Intent> {
    let mut record = place(driver, cgroups_path, id, rootless, None)?;
    let list = List::new(&resources.devices)?;
    if driver == Driver::None {
        let is_ignored = limits::is_limited(resources);
        let (properties, writes, refused, closed) = (vec![], vec![], vec![], vec![]);
        return Ok(Intent { record, properties, writes, devices: Devices::None, refused, closed, is_ignored });
    }
    record.find_missing()?;
    let closed = leave_out_closed(&mut record);
    let mut refused = vec![];
    let assignments = assignments(&record, resources, &mut refused)?;
    let properties = if refused.is_empty() { systemd::intended(&record, resources, annotations)? } else { vec![] };
    // What is made with the unit is new as well.
    let is_fresh = |path: &PathBuf| record.made.contains(path) || record.unit.is_some();
    let fresh: BTreeSet<String> =
        record.places.iter().filter(|(_, place)| is_fresh(&place.path)).map(|(key, _)| key.clone()).collect();
    let writes = writes(&record, resources, &assignments, &fresh)?;
    let lines = list.v1();
    let devices = match DeviceForm::of(&record, &list, &fresh) {
        DeviceForm::AsInParent => Devices::AsInParent,
        DeviceForm::Lines(path) => Devices::Lines { path: path.into(), lines },
        DeviceForm::Program { path, .. } => {
            Devices::Program { path: path.into(), lines, instructions: list.program().len() }
        }
        DeviceForm::Nowhere => Devices::Nowhere { lines },
    };
    Ok(Intent { record, properties, writes, devices, refused, closed, is_ignored: false })
}

/// Takes those places out of the record whose cgroup the caller may not make, as create does.
fn leave_out_closed(record: &mut Record) -> Vec<(String, PathBuf, Errno)> {
    let mut closed = vec![];
    let Record { places, made, unit, .. } = record;
    places.retain(|key, place| {
        if unit.is_some() && systemd::makes(key) {
            return true;
        }
        match may_be_made(&place.path) {
            Ok(()) => true,
            Err(errno) => {
                closed.push((key.clone(), place.path.clone(), errno));
                false
            }
        }
    });
    made.retain(|made| places.values().any(|place| place.path.starts_with(made)));
    closed
}

/// Whether the caller may make what is missing of `path`, or use it where nothing is.
fn may_be_made(path: &Path) -> nix::Result<()> {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    access(there, AccessFlags::W_OK | AccessFlags::X_OK)
}

/// As [`limits::assign`] and [`limits::check_offered`], whose errors are collected.
fn assignments(record: &Record, resources: &Resources, refused: &mut Vec<Error>) -> Result<Vec<Assignment>> {
    let mut all = vec![];
    for controller in Controller::ALL {
        // What contradicts itself is an error on every host.
        controller.writes(resources, Version::V1)?;
        if record.version() == Version::V2 {
            controller.writes(resources, Version::V2)?;
        }
        if let Err(error) = limits::assign_controller(controller, record, resources, &mut all) {
            refused.push(error);
        }
    }
    if let Err(error) = limits::assign_unified(record, resources, &mut all) {
        match record.version() {
            Version::V2 if error.kind() == Kind::Config && record.unified().is_none() => refused.push(error),
            _ => return Err(error),
        }
    }
    if let Some(place) = record.places.get(super::UNIFIED)
        && all.iter().any(|assignment| assignment.version == Version::V2)
    {
        let root = &place.mount_point;
        let offered = controllers::words(&root.join("cgroup.controllers"))?;
        let is_offered = |assignment: &Assignment| match assignment.version {
            Version::V1 => true,
            Version::V2 => match limits::check_controller(assignment, root, &offered) {
                Ok(()) => true,
                Err(error) => {
                    refused.push(error);
                    false
                }
            },
        };
        all.retain(is_offered);
    }
    Ok(all)
}

fn writes(
    record: &Record,
    resources: &Resources,
    assignments: &[Assignment],
    fresh: &BTreeSet<String>,
) -> Result<Vec<Intended>> {
    let by_itself = |path: PathBuf, value: String| Intended {
        path,
        value,
        property: None,
        otherwise: None,
        when: When::BeforeBirth,
        unit_properties: vec![],
    };
    let of_write = |assignment: &Assignment, write: &super::resources::Write, when| Intended {
        path: assignment.path.join(&*write.file),
        value: write.value.clone(),
        property: Some(write.property.to_string()),
        otherwise: match &write.absent {
            Absent::Refuse => None,
            Absent::Ignore => Some(Otherwise::Nothing),
            Absent::Instead(file, value) => Some(Otherwise::Instead { file: file.to_string(), value: value.clone() }),
        },
        when,
        unit_properties: systemd::names_for(record, write, assignment.version),
    };
    let mut writes = vec![];
    if record.unit.is_some() {
        for assignment in assignments {
            let back = limits::taken_back(assignment);
            writes.extend(back.map(|write| of_write(assignment, &write, When::BeforeBirth)));
        }
    }
    if let Some(enabling) = Enabling::of(record, assignments)? {
        for level in enabling.levels() {
            let missing = enabling.missing_in(level)?;
            if !missing.is_empty() {
                writes.push(by_itself(level.join(SUBTREE_CONTROL), controllers::enabling(&missing)));
            }
        }
    }
    cpuset::each_inherited(record, resources, fresh, &mut |path, value| {
        writes.push(by_itself(path.into(), value.into()));
        Ok(())
    })?;
    let of_assignment = |assignment: &&Assignment| !limits::is_for_later(assignment);
    let (now, later): (Vec<&Assignment>, Vec<_>) = assignments.iter().partition(of_assignment);
    writes.extend(now.into_iter().map(|a| of_write(a, &a.write, When::BeforeBirth)));
    writes.extend(later.into_iter().map(|a| of_write(a, &a.write, When::AfterBirth)));
    Ok(writes)
}

impl Intended {
    /// Nothing is there that the caller may not write to.
    pub fn is_closed(&self) -> bool {
        self.path.exists() && access(&self.path, AccessFlags::W_OK).is_err()
    }

    /// The name of the file.
    pub fn file(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}
