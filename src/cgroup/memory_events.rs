//! Why processes of a container were killed for memory. The counters of its cgroup, which outlive the processes, tell that some
//! were; the counters of the cgroups above, and the kernel's log where it can be read, tell whose limit it was. systemd removes the
//! cgroup of a unit as soon as it is empty: who waits for the container reads the counters before, others the log alone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::kill_log::{self, Kill};
use super::resources::Version;
use super::{Record, UNIFIED, files, has_controller, joined};
use crate::error::Error;

/// Processes of a container were killed because memory was short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutOfMemory {
    pub limit_of: LimitOf,
    /// The kernel logged whose limit it was, or the counters allow for no other.
    pub is_certain: bool,
    /// The cgroup that has this limit, as a path below the mount point; `None` for the host, and where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Of that cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The most that this cgroup ever used (v2: since 5.19).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// How many processes of the container's cgroup were killed; on v2 also of those below it.
    pub kills: u64,
    /// The last one, or the container's first process if that is among them; `None` where the kernel's log cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub victim: Option<Victim>,
}

/// Whose limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitOf {
    /// The container's: linux.resources.memory.limit.
    Container,
    /// That of a cgroup above the container's.
    Above,
    /// That of a cgroup which the container made below its own.
    Below,
    /// Nobody's: the host had no memory left.
    Host,
}

/// A process that the kernel chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Victim {
    /// In the initial PID namespace.
    pub pid: i32,
    pub name: String,
    /// It is the container's own process, the first one.
    pub is_first: bool,
}

/// What a container's cgroup told of its kills while it was there.
#[derive(Debug)]
pub struct Counted {
    pub(super) kills: u64,
    /// How often its limit was reached; `None` if it was gone before that was read.
    pub(super) own: Option<u64>,
    /// The same with the limits below; on v1 like `own`.
    pub(super) all: u64,
    pub(super) sizes: Sizes,
    /// They are of this container's cgroup; else those of one beside it may be among them.
    pub(super) is_own: bool,
}

impl Counted {
    /// Nobody else's kills are among them.
    pub fn is_own(&self) -> bool {
        self.is_own
    }
}

/// A cgroup's limit, unless it has none, and the most that it used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) limit: Option<u64>,
    peak: Option<u64>,
}

impl Sizes {
    /// v1 has no word for an unlimited one: it is the most that there can be, rounded to pages.
    pub(super) fn new(limit: Option<u64>, peak: Option<u64>) -> Self {
        Self { limit: limit.filter(|bytes| *bytes < 1 << 62), peak }
    }

    fn logged(kill: &Kill) -> Self {
        kill.limit_and_usage.map_or_else(Self::default, |(limit, usage)| Self::new(Some(limit), Some(usage)))
    }
}

/// What the counters tell without the log.
#[derive(Debug)]
struct Counters {
    /// v2 counts how often a limit was reached and nothing could be reclaimed, v1 how often it was reached.
    version: Version,
    /// The container's cgroup, and how often its limit was reached.
    own: (String, u64),
    /// How often limits below were reached; v1 does not tell.
    below: u64,
    /// The cgroups above, the nearest first.
    above: Vec<(String, u64)>,
}

/// Whose limit was reached, of which cgroup, and whether that is certain.
fn judge(counters: &Counters, kill: Option<&Kill>) -> (LimitOf, Option<String>, bool) {
    let own = &counters.own.0;
    match kill {
        Some(Kill { limit: None, .. }) => return (LimitOf::Host, None, true),
        Some(Kill { limit: Some(cgroup), .. }) => {
            let limit_of = match cgroup.strip_prefix(own.as_str()) {
                Some("") => LimitOf::Container,
                Some(below) if below.starts_with('/') => LimitOf::Below,
                _ => LimitOf::Above,
            };
            return (limit_of, Some(cgroup.clone()), true);
        }
        None => {}
    }
    // What is above counts for others, too: before this container, and beside it.
    let above = counters.above.iter().find(|(_, reached)| *reached > 0);
    let no_other = counters.version == Version::V2 && above.is_none();
    match (counters.own.1, counters.below, above) {
        (1.., below, _) => (LimitOf::Container, Some(own.clone()), no_other && below == 0),
        (0, 1.., _) => (LimitOf::Below, None, no_other),
        (0, 0, Some((cgroup, _))) => (LimitOf::Above, Some(cgroup.clone()), false),
        // It may be one above that a cgroup namespace hides.
        (0, 0, None) => (LimitOf::Host, None, false),
    }
}

/// Of the last `count` kills that of process `first`, else the last one.
fn choose(mut kills: Vec<Kill>, count: u64, first: i32) -> Option<Kill> {
    let newest = kills.split_off(kills.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX)));
    newest.iter().rfind(|kill| kill.pid == first).or(newest.last()).cloned()
}

/// The files of a container's cgroup that tell of memory.
#[derive(Clone, Copy)]
struct Memory<'r> {
    path: &'r Path,
    mount_point: &'r Path,
    version: Version,
}

/// The number behind `key` in a file of lines `key number`, or that the file holds.
fn number(path: &Path, key: &str) -> Option<u64> {
    value(&files::read(path).ok()?, key)
}

/// The same of a file's text.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    if key.is_empty() {
        return text.trim_end().parse().ok();
    }
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// The most that was used came up to the limit: 64 pages are asked for at a time (mm/memcontrol.c `MEMCG_CHARGE_BATCH`).
fn is_full(limit: u64, peak: u64) -> bool {
    limit > 0 && limit.saturating_sub(peak) < 64 * 4096
}

impl Memory<'_> {
    /// Processes that were killed in it, on v2 also below it (v1: since 4.13).
    fn kills(&self) -> Option<u64> {
        let file = if self.version == Version::V2 { "memory.events" } else { "memory.oom_control" };
        number(&self.path.join(file), "oom_kill")
    }

    /// How often the limit of the cgroup at `path` was reached.
    fn reached(&self, path: &Path) -> u64 {
        let of = |file: &str, key: &str| number(&path.join(file), key).unwrap_or(0);
        match self.version {
            Version::V2 => of("memory.events.local", "oom"),
            // The limit of memory and swap is one of memory where there is no swap. Linux 6.18 does not count how often it
            // was reached.
            Version::V1 => of("memory.failcnt", "").max(of("memory.memsw.failcnt", "")).max(u64::from(is_full(
                of("memory.memsw.limit_in_bytes", ""),
                of("memory.memsw.max_usage_in_bytes", ""),
            ))),
        }
    }

    fn sizes(&self, path: &Path) -> Sizes {
        let (limit, peak) = match self.version {
            Version::V2 => ("memory.max", "memory.peak"),
            Version::V1 => ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        };
        Sizes::new(number(&path.join(limit), ""), number(&path.join(peak), ""))
    }

    fn below_mount(&self, path: &Path) -> String {
        format!("/{}", path.strip_prefix(self.mount_point).unwrap_or(path).display())
    }

    /// `None` if the log cannot be read.
    fn logged_kills(&self, first: i32) -> Option<Vec<Kill>> {
        kill_log::kills(&self.below_mount(self.path), first)
    }

    /// `None` if nothing was killed, and if the cgroup is gone before all is read.
    fn counted(&self) -> Option<Counted> {
        self.kills().filter(|kills| *kills > 0)?;
        let own = self.reached(self.path);
        let all = match self.version {
            Version::V2 => number(&self.path.join("memory.events"), "oom").unwrap_or(0),
            Version::V1 => own,
        };
        let sizes = self.sizes(self.path);
        self.kills().map(|kills| Counted { kills, own: Some(own), all, sizes, is_own: true })
    }

    /// Kills in the nearest cgroup above that is there and in all below it: no fewer than in the container's; `None` where that
    /// is not counted.
    fn kills_above(&self) -> Option<u64> {
        let above = self.path.ancestors().skip(1).find(|above| above.exists())?;
        Memory { path: above, ..*self }.kills().filter(|_| self.version == Version::V2)
    }

    fn out_of_memory(&self, counted: &Counted, kill: Option<Kill>, first: i32) -> OutOfMemory {
        let (limit_of, cgroup, is_certain) = judge(&self.counters(counted), kill.as_ref());
        let sizes = match &cgroup {
            Some(_) if limit_of == LimitOf::Container => counted.sizes,
            Some(cgroup) => self.sizes(&joined(self.mount_point, Path::new(cgroup))),
            None => Sizes::default(),
        };
        let logged = kill.as_ref().map(Sizes::logged).unwrap_or_default();
        OutOfMemory {
            limit_of,
            is_certain,
            cgroup,
            limit_bytes: sizes.limit.or(logged.limit),
            peak_bytes: sizes.peak.or(logged.peak),
            kills: counted.kills,
            victim: kill.map(|kill| Victim { is_first: kill.pid == first, pid: kill.pid, name: kill.name }),
        }
    }

    /// Of a cgroup that is gone what the kernel logged is all that is left.
    fn out_of_log(&self, first: i32) -> Option<OutOfMemory> {
        let kills: Vec<Kill> = self.logged_kills(first)?.into_iter().filter(|kill| kill.is_of_first).collect();
        let count = kills.len() as u64;
        let kill = choose(kills, count, first)?;
        let sizes = Sizes::logged(&kill);
        let counted = Counted { kills: count, own: Some(0), all: 0, sizes, is_own: true };
        Some(self.out_of_memory(&counted, Some(kill), first))
    }

    fn counters(&self, counted: &Counted) -> Counters {
        let above = self.path.ancestors().skip(1).take_while(|above| *above != self.mount_point);
        // Not known whose of both it was: the container's, as a rule, and that is not certain.
        let (own, below) = match counted.own {
            Some(own) => (own, counted.all.saturating_sub(own)),
            None => (counted.all, counted.all),
        };
        Counters {
            version: self.version,
            own: (self.below_mount(self.path), own),
            below,
            above: above.map(|path| (self.below_mount(path), self.reached(path))).collect(),
        }
    }
}

impl Record {
    /// The container's cgroup where its memory is counted.
    fn memory_place(&self) -> Option<Memory<'_>> {
        let v1 = self.places.iter().find(|(key, _)| has_controller(key, "memory"));
        let (place, version) = match v1 {
            Some((_, place)) => (place, Version::V1),
            None => (self.places.get(UNIFIED)?, Version::V2),
        };
        Some(Memory { path: &place.path, mount_point: &place.mount_point, version })
    }

    /// The same, if its counts tell of this container alone: one that was there before has those of its last user, too.
    fn memory(&self) -> Option<Memory<'_>> {
        let is_made = |path: &Path| self.made.iter().any(|made| made == path) && self.is_own(path);
        self.memory_place().filter(|memory| is_made(memory.path))
    }

    /// Whether processes of the container may have been killed for memory, as a few small reads tell.
    pub fn may_be_out_of_memory(&self) -> bool {
        match (self.memory(), self.memory_place()) {
            (Some(memory), _) => memory.kills().is_some_and(|kills| kills > 0),
            // systemd removes the cgroup of a unit when it is empty.
            (None, Some(memory)) => self.unit.is_some() && memory.kills_above() != Some(0),
            (None, None) => false,
        }
    }

    /// What the counters tell now; `None` if nothing was killed for memory, or that cannot be told.
    pub fn count_kills(&self) -> Option<Counted> {
        self.memory()?.counted()
    }

    /// Why processes of the container, whose first one is or was `first`, were killed for memory; `None` if none were, or that
    /// cannot be told. `counted` is from when the cgroup was there, if it may be gone.
    pub fn out_of_memory(&self, first: i32, counted: Option<Counted>) -> Option<OutOfMemory> {
        let memory = self.memory_place()?;
        match counted.or_else(|| self.count_kills()) {
            // What is logged is this container's alone.
            Some(counted) if !counted.is_own => match memory.logged_kills(first) {
                Some(_) => memory.out_of_log(first),
                None => Some(memory.out_of_memory(&counted, None, first)),
            },
            Some(counted) => {
                let kill = choose(memory.logged_kills(first).unwrap_or_default(), counted.kills, first);
                Some(memory.out_of_memory(&counted, kill, first))
            }
            None if self.memory().is_some() || (self.unit.is_none() && memory.path.exists()) => None,
            None => memory.out_of_log(first),
        }
    }

    /// The error for a process that was killed for memory while the container was made; `None` if none was.
    pub fn killed_for_memory(&self) -> Option<Error> {
        let memory = self.memory()?;
        memory.kills().filter(|kills| *kills > 0)?;
        let Sizes { limit, peak } = memory.sizes(memory.path);
        let peak = peak.map_or(String::new(), |peak| format!(", at most {peak} were in use"));
        let cause =
            format!("too low to set the container up: it is {} bytes{peak}, and its process was killed", limit?);
        Some(Error::config("linux.resources.memory.limit", cause).hint("raise the limit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(version: Version, own: u64, below: u64, above: &[(&str, u64)]) -> Counters {
        let above = above.iter().map(|(path, reached)| ((*path).to_owned(), *reached)).collect();
        Counters { version, own: ("/pod/web".into(), own), below, above }
    }

    fn kill(limit: Option<&str>, pid: i32) -> Kill {
        Kill { limit: limit.map(str::to_owned), pid, name: "sh".into(), limit_and_usage: None, is_of_first: false }
    }

    #[test]
    fn counters_tell_whose_limit_it_was() {
        use LimitOf::{Above, Below, Container, Host};
        use Version::{V1, V2};
        let (quiet, reached) = ([("/pod", 0)], [("/pod", 2)]);
        for (version, own, below, above, expected) in [
            (V2, 1, 0, &quiet, (Container, Some("/pod/web"), true)),
            // The pod's own was reached before, or by others.
            (V2, 1, 0, &reached, (Container, Some("/pod/web"), false)),
            (V2, 1, 1, &quiet, (Container, Some("/pod/web"), false)),
            (V2, 0, 3, &quiet, (Below, None, true)),
            (V2, 0, 0, &reached, (Above, Some("/pod"), false)),
            (V2, 0, 0, &quiet, (Host, None, false)),
            (V1, 7, 0, &quiet, (Container, Some("/pod/web"), false)),
            (V1, 0, 0, &reached, (Above, Some("/pod"), false)),
            (V1, 0, 0, &quiet, (Host, None, false)),
        ] {
            let counters = counters(version, own, below, above);
            let (limit_of, cgroup, is_certain) = judge(&counters, None);
            assert_eq!((limit_of, cgroup.as_deref(), is_certain), expected, "{counters:?}");
        }
    }

    #[test]
    fn the_nearest_cgroup_above_is_named() {
        let counters = counters(Version::V2, 0, 0, &[("/a/b/c", 0), ("/a/b", 1), ("/a", 9)]);
        assert_eq!(judge(&counters, None), (LimitOf::Above, Some("/a/b".into()), false));
    }

    #[test]
    fn what_was_not_read_any_more_is_not_certain() {
        let (path, mount_point) = (Path::new("/nowhere/pod/web"), Path::new("/nowhere"));
        let memory = Memory { path, mount_point, version: Version::V2 };
        for (own, all, expected) in [
            (Some(1), 1, (LimitOf::Container, true)),
            (None, 1, (LimitOf::Container, false)),
            (Some(0), 1, (LimitOf::Below, true)),
            (None, 0, (LimitOf::Host, false)),
        ] {
            let counted = Counted { kills: 1, own, all, sizes: Sizes::default(), is_own: true };
            let found = memory.out_of_memory(&counted, None, 7);
            assert_eq!((found.limit_of, found.is_certain), expected, "{own:?} {all}");
        }
    }

    #[test]
    fn the_log_outranks_the_counters() {
        let counters = counters(Version::V1, 5, 0, &[("/pod", 3)]);
        for (limit, expected) in [
            (Some("/pod/web"), LimitOf::Container),
            (Some("/pod/web/app"), LimitOf::Below),
            (Some("/pod"), LimitOf::Above),
            (Some("/pod/website"), LimitOf::Above),
            (Some("/"), LimitOf::Above),
            (None, LimitOf::Host),
        ] {
            assert_eq!(
                judge(&counters, Some(&kill(limit, 7))),
                (expected, limit.map(str::to_owned), true),
                "{limit:?}"
            );
        }
    }

    #[test]
    fn a_limit_is_reached_when_no_more_can_be_asked_for() {
        for (limit, peak, expected) in [
            (100 << 20, 100 << 20, true),
            (100 << 20, (100 << 20) - 4096, true),
            (100 << 20, 99 << 20, false),
            (i64::MAX as u64 / 4096 * 4096, 100 << 20, false),
            // The files are not there.
            (0, 0, false),
        ] {
            assert_eq!(is_full(limit, peak), expected, "{peak} of {limit}");
        }
    }

    #[test]
    fn the_first_process_is_named_if_it_is_among_the_last_victims() {
        let kills = |pids: &[i32]| pids.iter().map(|pid| kill(None, *pid)).collect();
        for (pids, count, expected) in [
            (&[7, 8, 9][..], 3, Some(7)),
            // That one was an earlier container's.
            (&[7, 8, 9], 2, Some(9)),
            (&[8, 9], 5, Some(9)),
            (&[], 1, None),
        ] {
            assert_eq!(choose(kills(pids), count, 7).map(|kill| kill.pid), expected, "{pids:?}");
        }
    }
}
