//! What a v1 cpuset has to have before a process can be in it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::controllers::read_if_there;
use super::{Record, files, has_controller};
use crate::error::{Context, Result};
use crate::plan::Resources;

/// v1 makes a cpuset without CPUs and memory nodes, in which nothing can run: it and its new parents get those of the
/// parent above.
pub fn inherit_cpuset(record: &Record, resources: &Resources, fresh: &BTreeSet<String>) -> Result<()> {
    each_inherited(record, resources, fresh, &mut |file, value| files::write(file, value))
}

/// What [`inherit_cpuset`] writes, in order.
pub fn each_inherited(
    record: &Record,
    resources: &Resources,
    fresh: &BTreeSet<String>,
    write: &mut dyn FnMut(&Path, &str) -> io::Result<()>,
) -> Result<()> {
    let Some((key, place)) = record.places.iter().find(|(key, _)| has_controller(key, "cpuset")) else {
        return Ok(());
    };
    let cpu = &resources.cpu;
    for (file, given) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        let is_given = given.as_ref().is_some_and(|list| !list.is_empty());
        let parent = place.path.parent().unwrap_or(&place.mount_point);
        if is_given && parent == place.mount_point {
            continue;
        }
        let mut inherit = || {
            let inherited = inherited(parent, &place.mount_point, file, write)?;
            let own = place.path.join(file);
            if !is_given && (fresh.contains(key) || read_if_there(&own)?.is_empty()) {
                write(&own, &inherited)?;
            }
            io::Result::Ok(())
        };
        inherit().doing(|| format!("set {file} of {} as in its parent", place.path.display()))?;
    }
    Ok(())
}

/// The value of `file` in the cgroup at `path`, where an empty one is first filled from the parent.
fn inherited(
    path: &Path,
    mount_point: &Path,
    file: &str,
    write: &mut dyn FnMut(&Path, &str) -> io::Result<()>,
) -> io::Result<String> {
    let own = path.join(file);
    let value = read_if_there(&own)?;
    match path.parent() {
        Some(parent) if value.is_empty() && path != mount_point => {
            let value = inherited(parent, mount_point, file, write)?;
            write(&own, &value)?;
            Ok(value)
        }
        _ => Ok(value),
    }
}
