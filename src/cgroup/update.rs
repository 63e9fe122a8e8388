//! Changes the limits of a container that exists: all of them or none.
//!
//! ```text
//! completed   asked, and what is there of limits that make sense together only
//! prepare     limits::assign, controllers, check of use; a Step a file: what to write, and what takes it back; order
//! write_all   a write is refused: what was written is taken back, the last first
//! systemd     is told, where it is the driver; hold: what it then wrote in its own words is written again
//! ```
//!
//! What a limit was is what its file says: systemd, the container's engine or a person may have changed it since create, and
//! so nothing of this is kept in the state. Device rules are no part of it.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use super::limits::{self, Assignment};
use super::resources::{
    Absent, CPU_IDLE, CPU_PERIOD, CPU_QUOTA, CPU_SHARES, MEMORY_LIMIT, MEMORY_SWAP, PIDS_LIMIT, Version, Write, bytes,
};
use super::{Record, files, systemd};
use crate::error::{Context, Error, Result};
use crate::plan::Resources;

/// Sets the limits that `asked` has; the others stay.
///
/// # Errors
/// What `asked` wants contradicts itself or what stays, has no form here, or is refused by the kernel. All limits are then
/// what they were; what could not be set back is warned of.
pub fn update(record: &Record, asked: &Resources) -> Result<()> {
    let target = completed(record, asked)?;
    // Before anything is written: a process that is killed for a limit does not come back when systemd cannot be told of that.
    let change = systemd::Change::prepare(record, &target)?;
    let steps = prepare(record, asked, &target)?;
    let before = held(record)?;
    write_all(&steps)?;
    // Last, as the kernel refuses more than systemd, which writes them again at each daemon-reload.
    let told = held(record).and_then(|held| {
        let Some(change) = change else { return Ok(()) };
        let changed = change.make()?;
        hold(held).inspect_err(|_| changed.undo())
    });
    if told.is_err() {
        undo(&steps);
        if let Err(error) = hold(before) {
            log::warn!("limits that systemd wrote could not be set back: {error}");
        }
    }
    told
}

/// What files hold that systemd writes anew whenever it is told a property, whichever it is, and not always as they were: a quota in
/// per cent, 1 process for none, the default of a weight that it does not know of. Nothing with another driver.
fn held(record: &Record) -> Result<Vec<Assignment>> {
    if record.unit.is_none() {
        return Ok(vec![]);
    }
    let mut held = vec![];
    for (controller, version, file, property) in [
        ("cpu", Version::V1, "cpu.cfs_period_us", CPU_PERIOD),
        ("cpu", Version::V1, "cpu.cfs_quota_us", CPU_QUOTA),
        ("pids", Version::V1, "pids.max", PIDS_LIMIT),
        ("cpu", Version::V2, "cpu.idle", CPU_IDLE),
        ("cpu", Version::V2, "cpu.weight", CPU_SHARES),
        ("cpu", Version::V2, "cpu.max", CPU_QUOTA),
        ("pids", Version::V2, "pids.max", PIDS_LIMIT),
    ] {
        let path = match version {
            Version::V1 => record.v1(controller),
            Version::V2 => record.unified().filter(|_| record.v1(controller).is_none()),
        };
        let Some(path) = path else { continue };
        if let Some(value) = read_if_there(&path.join(file))? {
            let write = Write::new(file, value, property);
            held.push(Assignment { path: path.into(), version, controller: Some(controller.into()), write });
        }
    }
    // The weight that an idle cgroup shows cannot be written.
    if held.iter().any(|idle| idle.write.file == "cpu.idle" && idle.write.value == "1") {
        held.retain(|assignment| !is_weight(&assignment.write.file));
    }
    Ok(held)
}

/// Writes what is `held` to the files that hold something else by now.
fn hold(held: Vec<Assignment>) -> Result<()> {
    let mut steps = vec![];
    for assignment in held {
        steps.extend(Step::new(assignment)?);
    }
    steps.retain(|step| step.old.as_deref() != Some(step.assignment.write.value.as_str()));
    order(&mut steps);
    write_all(&steps)
}

/// A file, what is going to be written to it, and what takes that back.
#[derive(Debug)]
struct Step {
    assignment: Assignment,
    /// What the file holds now; `None` if it tells nobody.
    old: Option<String>,
    undo: Vec<(PathBuf, String)>,
}

/// `asked`, and what is there of the limits that it has a part of.
///
/// # Errors
/// `memory.limit` without `memory.swap`, or the other way round, that does not fit what is there.
fn completed(record: &Record, asked: &Resources) -> Result<Resources> {
    let mut target = asked.clone();
    complete_memory(record, &mut target)?;
    complete_cpu(record, &mut target)?;
    Ok(target)
}

/// Memory and swap together are one limit: who changes `memory.limit` alone keeps it, as v1 does by itself and runc does
/// on v2; who changes `memory.swap` alone needs to know how much of it is memory.
fn complete_memory(record: &Record, target: &mut Resources) -> Result<()> {
    let is_asked = |value: Option<i64>| value.filter(|value| *value != 0);
    let names_files = |(file, _): &(String, String)| file == "memory.max" || file == "memory.swap.max";
    if target.unified.iter().any(names_files) {
        return Ok(());
    }
    match (is_asked(target.memory.limit), is_asked(target.memory.swap)) {
        // -1 alone is unlimited memory and swap.
        (Some(limit @ 1..), None) => {
            let PresentMemory { version, both: Some(both), .. } = PresentMemory::read(record)? else { return Ok(()) };
            if limit > both {
                let cause = format!("{limit} is more than the {both} that memory and swap may take together");
                return Err(Error::config(MEMORY_LIMIT, cause).hint("change memory.swap (--memory-swap) with it"));
            }
            if version == Version::V2 {
                target.memory.swap = Some(both);
            }
        }
        (None, Some(1..)) => target.memory.limit = PresentMemory::read(record)?.limit,
        _ => {}
    }
    Ok(())
}

/// Limits of memory that are there, in bytes; `None` is unlimited.
struct PresentMemory {
    version: Version,
    limit: Option<i64>,
    /// Memory and swap together. On v2 `None` also without any swap: that stays so, however much memory there is.
    both: Option<i64>,
}

impl PresentMemory {
    fn read(record: &Record) -> Result<Self> {
        let read = |path: PathBuf| -> Result<Option<i64>> {
            let bytes = read_if_there(&path)?.and_then(|text| text.parse().ok());
            // v1 rounds "unlimited" to a page; v2 says "max".
            Ok(bytes.filter(|bytes| *bytes < i64::MAX - 0xffff))
        };
        if let Some(path) = record.v1("memory") {
            let limit = read(path.join("memory.limit_in_bytes"))?;
            return Ok(Self { version: Version::V1, limit, both: read(path.join("memory.memsw.limit_in_bytes"))? });
        }
        let Some(path) = record.unified() else { return Ok(Self { version: Version::V2, limit: None, both: None }) };
        let limit = read(path.join("memory.max"))?;
        let swap = read(path.join("memory.swap.max"))?.filter(|swap| *swap > 0);
        let both = limit.zip(swap).map(|(limit, swap)| limit.saturating_add(swap));
        Ok(Self { version: Version::V2, limit, both })
    }
}

/// v2 has quota and period in one file, and systemd one as a part of the other.
fn complete_cpu(record: &Record, target: &mut Resources) -> Result<()> {
    let cpu = &mut target.cpu;
    let is_asked = (cpu.quota.is_some_and(|quota| quota != 0), cpu.period.is_some_and(|period| period != 0));
    if is_asked.0 == is_asked.1 {
        return Ok(());
    }
    let text = match (record.v1("cpu"), record.unified()) {
        (Some(path), _) => {
            let [quota, period] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| read_if_there(&path.join(file)));
            quota?.zip(period?).map(|(quota, period)| format!("{quota} {period}"))
        }
        (None, Some(path)) => read_if_there(&path.join("cpu.max"))?,
        (None, None) => None,
    };
    match text.unwrap_or_default().split_once(' ') {
        Some((_, period)) if is_asked.0 => cpu.period = period.parse().ok(),
        // "max" stays unset.
        Some((quota, _)) => cpu.quota = quota.parse().ok(),
        None => {}
    }
    Ok(())
}

/// `None` for a file that is not there.
fn read_if_there(path: &Path) -> Result<Option<String>> {
    match files::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).doing(|| format!("read {}", path.display())),
    }
}

/// What is to be written, in order; nothing is changed but for controllers that v2 has to enable.
fn prepare(record: &Record, asked: &Resources, target: &Resources) -> Result<Vec<Step>> {
    let mut assignments = limits::assign(record, target)?;
    assignments.extend(oom_killer(record, asked));
    for Assignment { write, .. } in &mut assignments {
        name_what_was_asked(write, asked);
    }
    limits::check_offered(record, &assignments)?;
    super::controllers::enable_controllers(record, &assignments)?;
    if asked.memory.check_before_update {
        limits::check_use(&assignments)?;
    }
    let mut steps = Vec::new();
    for assignment in assignments {
        steps.extend(Step::new(assignment)?);
    }
    // Engines send all limits again: the weight of a cgroup that is idle and stays so has no effect, and would be refused.
    if steps.iter().any(|step| step.file() == "cpu.idle" && step.is_done() && step.assignment.write.value == "1") {
        steps.retain(|step| !is_weight(step.file()));
    }
    // Of two values for one file (unified) the last one holds, also where that is what is there.
    let files: Vec<_> = steps.iter().map(|step| step.assignment.write.file.clone()).collect();
    steps.retain(|step| !step.is_done() || files.iter().filter(|file| **file == step.file()).count() > 1);
    order(&mut steps);
    Ok(steps)
}

/// A new cgroup has the OOM killer: only here an explicit `false` may be a change.
fn oom_killer(record: &Record, asked: &Resources) -> Option<Assignment> {
    let path = record.v1("memory").filter(|_| asked.memory.disable_oom_killer == Some(false))?;
    Some(Assignment::of_v1(path, "memory", "memory.oom_control", "0", "linux.resources.memory.disableOOMKiller"))
}

/// Errors name the property that was asked for, not the one that completed it.
fn name_what_was_asked(write: &mut Write, asked: &Resources) {
    let is_unset = |value: Option<i64>| value.is_none_or(|value| value == 0);
    match (&*write.file, &*write.property) {
        ("cpu.max", CPU_QUOTA) if is_unset(asked.cpu.quota) => write.property = CPU_PERIOD.into(),
        ("memory.swap.max", MEMORY_SWAP) if is_unset(asked.memory.swap) => write.property = MEMORY_LIMIT.into(),
        _ => {}
    }
}

impl Step {
    /// `None` if the kernel does by itself what is asked for.
    ///
    /// # Errors
    /// There is no such file.
    fn new(mut assignment: Assignment) -> Result<Option<Self>> {
        let directory = assignment.path.clone();
        let mut text = read_old(&directory.join(&*assignment.write.file))?;
        if text.is_none() {
            match std::mem::replace(&mut assignment.write.absent, Absent::Refuse) {
                Absent::Ignore => return Ok(None),
                Absent::Instead(file, value) => {
                    (assignment.write.file, assignment.write.value) = (file, value);
                    text = read_old(&directory.join(&*assignment.write.file))?;
                }
                Absent::Refuse => {}
            }
        }
        let Some(old) = text else {
            return limits::explained(Err(io::Error::from_raw_os_error(libc::ENOENT)), &assignment).map(|()| None);
        };
        let (file, value) = (&*assignment.write.file, &*assignment.write.value);
        let mut undo = Vec::new();
        undo.extend(old.as_ref().map(|text| (directory.join(file), before(file, value, text))));
        let weight = directory.join(if assignment.version == Version::V1 { "cpu.shares" } else { "cpu.weight" });
        if file == "cpu.idle" && old.as_deref() == Some("0") {
            // An idle cgroup has no weight of its own: it comes back after it.
            undo.extend(read_if_there(&weight)?.map(|before| (weight, before)));
        } else if is_weight(file) && read_if_there(&directory.join("cpu.idle"))?.as_deref() == Some("1") {
            // And the weight that it shows cannot be written.
            undo.clear();
        }
        Ok(Some(Self { assignment, old, undo }))
    }

    /// The file holds the value already. A weight is written all the same: cpu.idle changes it, too.
    fn is_done(&self) -> bool {
        !is_weight(self.file()) && self.undo.first().is_some_and(|(_, before)| *before == self.assignment.write.value)
    }

    fn file(&self) -> &str {
        &self.assignment.write.file
    }

    /// What the file is going to hold and what it holds, as numbers; what is unlimited is the largest.
    fn change(&self) -> (u64, u64) {
        let number = |text: &str| bytes(text).unwrap_or(u64::MAX);
        (number(&self.assignment.write.value), number(self.old.as_deref().unwrap_or_default()))
    }
}

/// What a file holds, which is `Some(None)` for one that can only be written; `None` if there is none.
fn read_old(path: &Path) -> Result<Option<Option<String>>> {
    match files::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(Some(None))
        }
        other => other.map(|text| Some(Some(text))).doing(|| format!("read {}", path.display())),
    }
}

fn is_weight(file: &str) -> bool {
    matches!(file, "cpu.shares" | "cpu.weight")
}

/// What sets `file` back, which holds `text`, after `value` was written to it.
fn before(file: &str, value: &str, text: &str) -> String {
    // Files with one line a device take one of them at a time, and leave the others.
    let key = value.split(' ').next().unwrap_or_default();
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let of_device = |unset: &str| format!("{key} {}", line(key).unwrap_or(unset));
    match file {
        "io.max" => of_device("rbps=max wbps=max riops=max wiops=max"),
        "rdma.max" => of_device("hca_handle=max hca_object=max"),
        "net_prio.ifpriomap" => of_device("0"),
        "io.weight" | "io.bfq.weight" if value.contains(' ') => of_device("default"),
        "io.weight" | "io.bfq.weight" => line("default").unwrap_or(text).into(),
        _ if file.starts_with("blkio.") && value.contains(' ') => of_device("0"),
        "memory.oom_control" => line("oom_kill_disable").unwrap_or("0").into(),
        // write(2) of nothing is no write; a line without anything empties a cpuset of v2.
        _ if text.is_empty() => "\n".into(),
        _ => text.into(),
    }
}

/// Puts steps into an order in which no write is refused for what a later one changes, and what cannot be taken back,
/// processes killed for memory on v2, happens only when all else is done.
fn order(steps: &mut [Step]) {
    let find = |steps: &[Step], file: &str| steps.iter().position(|step| step.file() == file);
    // Of two files, the first goes first where `is_first` says so of the changes of both; the later one moves.
    let mut pair = |first: &str, second: &str, is_first: fn(Change, Change) -> bool| {
        let (Some(a), Some(b)) = (find(steps, first), find(steps, second)) else { return };
        if is_first(steps[a].change(), steps[b].change()) != (a < b) {
            steps[a.min(b)..=a.max(b)].rotate_right(1);
        }
    };
    // memory.limit is never above memory.memsw.
    pair("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", |(memory, _), (_, both)| memory <= both);
    // Room for what leaves the memory is made first, and taken last.
    pair("memory.swap.max", "memory.max", |(swap, old), _| swap > old);
    // A part of a period that is never greater than both the old and the new: the parent may have no more to give.
    pair("cpu.cfs_period_us", "cpu.cfs_quota_us", |(period, old), (_, quota)| period >= old || quota == u64::MAX);
    pair("cpu.rt_period_us", "cpu.rt_runtime_us", |(period, old), _| period >= old);
    // A burst is never above the quota.
    pair("cpu.cfs_burst_us", "cpu.cfs_quota_us", |(burst, old), _| burst < old);
    pair("cpu.max.burst", "cpu.max", |(burst, old), _| burst < old);
    // An idle cgroup takes no weight.
    pair("cpu.idle", "cpu.shares", |(idle, _), _| idle == 0);
    pair("cpu.idle", "cpu.weight", |(idle, _), _| idle == 0);
    steps.sort_by_key(|step| {
        ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swap.max", "memory.max"].contains(&step.file())
    });
}

/// New and old.
type Change = (u64, u64);

fn write_all<'s>(steps: impl IntoIterator<Item = &'s Step>) -> Result<()> {
    let mut written = vec![];
    for step in steps {
        let result = limits::write_one(&step.assignment.path, &step.assignment.write);
        if let Err(error) = limits::explained(result, &step.assignment) {
            undo(written);
            return Err(error);
        }
        written.push(step);
    }
    Ok(())
}

/// Takes back what `steps` wrote, the last first.
fn undo<'s>(steps: impl IntoIterator<Item = &'s Step, IntoIter: DoubleEndedIterator>) {
    for step in steps.into_iter().rev() {
        if step.old.is_none() {
            log::warn!("{:?}, written to {}, cannot be taken back", step.assignment.write.value, step.file());
        }
        for (path, value) in &step.undo {
            if let Err(error) = files::write(path, value) {
                log::warn!("{} could not be set back to {value:?}: {error}", path.display());
            }
        }
    }
}
