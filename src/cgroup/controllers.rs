//! Controllers of cgroup v2, which have to be enabled from the mounted root down.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::limits::Assignment;
use super::resources::Version;
use super::{Record, files};
use crate::error::{Context, Error, Result};

/// On v2 these are enabled for every container, so that its use can be measured; others only where a limit needs them,
/// because each costs something for every cgroup of the host.
const MEASURED: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// The words in a control file.
pub fn words(path: &Path) -> Result<BTreeSet<String>> {
    let text = files::read(path).doing(|| format!("read {}", path.display()))?;
    Ok(text.split_ascii_whitespace().map(String::from).collect())
}

/// What a control file holds; one of a cgroup that has yet to be made holds nothing.
pub fn read_if_there(path: &Path) -> io::Result<String> {
    match files::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// The v2 controllers that are enabled from the mounted root down to the parent of the container's cgroup.
pub struct Enabling<'a> {
    mount_point: &'a Path,
    parent: &'a Path,
    /// For limits.
    needed: BTreeSet<&'a str>,
    /// Those, and what measures.
    wanted: BTreeSet<&'a str>,
}

impl<'a> Enabling<'a> {
    /// `None` if nothing is missing.
    pub fn of(record: &'a Record, assignments: &'a [Assignment]) -> Result<Option<Self>> {
        let Some(place) = record.places.get(super::UNIFIED) else { return Ok(None) };
        let needed: BTreeSet<&str> = assignments
            .iter()
            .filter(|assignment| assignment.version == Version::V2)
            .filter_map(|assignment| assignment.controller.as_deref())
            .collect();
        // On a hybrid host v1 measures.
        let measured: &[&str] = if record.version() == Version::V2 { &MEASURED } else { &[] };
        if needed.is_empty() && measured.is_empty() {
            return Ok(None);
        }
        let parent = place.path.parent().unwrap_or(&place.mount_point);
        let enabled = enabled_in(parent)?;
        if needed.iter().chain(measured).all(|name| enabled.contains(*name)) {
            return Ok(None);
        }
        let offered = words(&place.mount_point.join("cgroup.controllers"))?;
        let mut wanted: BTreeSet<&str> = measured.iter().copied().filter(|name| offered.contains(*name)).collect();
        wanted.extend(&needed);
        if wanted.iter().all(|name| enabled.contains(*name)) {
            return Ok(None);
        }
        Ok(Some(Self { mount_point: &place.mount_point, parent, needed, wanted }))
    }

    /// The cgroups in which they are enabled, outermost first.
    pub fn levels(&self) -> Vec<&'a Path> {
        let of_hierarchy = |level: &&Path| level.starts_with(self.mount_point);
        let mut levels: Vec<&Path> = self.parent.ancestors().take_while(of_hierarchy).collect();
        levels.reverse();
        levels
    }

    /// What is missing in one of them.
    pub fn missing_in(&self, level: &Path) -> Result<Vec<&'a str>> {
        let enabled = enabled_in(level)?;
        Ok(self.wanted.iter().copied().filter(|name| !enabled.contains(*name)).collect())
    }
}

/// File in which controllers are enabled.
pub const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// What is written to [`SUBTREE_CONTROL`] for all of `missing`.
pub fn enabling(missing: &[&str]) -> String {
    missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

/// The controllers that are enabled below the cgroup at `level`; none while that has yet to be made.
fn enabled_in(level: &Path) -> Result<BTreeSet<String>> {
    let path = level.join(SUBTREE_CONTROL);
    let text = read_if_there(&path).doing(|| format!("read {}", path.display()))?;
    Ok(text.split_ascii_whitespace().map(String::from).collect())
}

/// Enables v2 controllers from the mounted root down to the parent of the container's cgroup, which then has their files.
pub fn enable_controllers(record: &Record, assignments: &[Assignment]) -> Result<()> {
    if let Some(all) = Enabling::of(record, assignments)? {
        enable(all, assignments)?;
    }
    if record.version() == Version::V2 || assignments.iter().any(|assignment| assignment.version == Version::V2) {
        wait_for_files(record);
    }
    Ok(())
}

fn enable(mut all: Enabling<'_>, assignments: &[Assignment]) -> Result<()> {
    for level in all.levels() {
        let file = level.join(SUBTREE_CONTROL);
        let missing = all.missing_in(level)?;
        if missing.is_empty() || files::write(&file, &enabling(&missing)).is_ok() {
            continue;
        }
        // One that is refused takes the others with it.
        for name in missing {
            let Err(error) = files::write(&file, &enabling(&[name])) else { continue };
            if !all.needed.contains(name) {
                log::debug!("controller {name} is not enabled in {}: {error}", level.display());
                all.wanted.remove(name);
                continue;
            }
            let property = assignments
                .iter()
                .find(|assignment| assignment.controller.as_deref() == Some(name))
                .map_or("linux.resources".into(), |assignment| assignment.write.property.to_string());
            let hint = enable_hint(level, name, error.raw_os_error().unwrap_or(0));
            let mut error = Error::from(error);
            if let Some(hint) = hint {
                error = error.hint(hint);
            }
            return Err(error).property(|| property).doing(|| format!("enable {name} in {}", file.display()));
        }
    }
    Ok(())
}

/// A controller is shown as enabled as soon as another process begins to enable it, and before the cgroups below have its
/// files, which for hundreds of them takes a while (`cgroup_subtree_control_show` takes no lock). A write that enables nothing
/// takes the lock (`cgroup_subtree_control_write`).
fn wait_for_files(record: &Record) {
    let Some(file) = record.unified().map(|own| own.join(SUBTREE_CONTROL)) else { return };
    if let Err(error) = files::write(&file, "\n") {
        log::debug!("{}: {error}", file.display());
    }
}

fn enable_hint(level: &Path, name: &str, code: i32) -> Option<String> {
    match code {
        libc::EBUSY => Some(format!("{} has processes of its own; they must move below it first", level.display())),
        libc::EACCES | libc::EPERM | libc::EROFS | libc::ENOENT => {
            Some(format!("whoever owns {} must delegate {name} (with systemd: Delegate=)", level.display()))
        }
        libc::EOPNOTSUPP => Some(format!("{} is threaded, and {name} is for whole processes", level.display())),
        _ => None,
    }
}
