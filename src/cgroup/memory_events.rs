//! Why processes of a container were killed for memory. The counters of its cgroup, which outlive the processes, tell that some
//! were; the counters of the cgroups above, and the kernel's log where it can be read, tell whose limit it was.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::resources::Version;
use super::{Record, UNIFIED, files, has_controller, joined};
use crate::error::Error;
use crate::sys::kernel_log;

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

/// A kill that the kernel logged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kill {
    /// The cgroup whose limit was reached, below the mount point; `None`: the host had no memory left.
    limit: Option<String>,
    pid: i32,
    name: String,
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

/// Reads the kernel's line about a victim, if that was in `cgroup` or below (mm/oom_kill.c `dump_oom_victim`,
/// mm/memcontrol.c `mem_cgroup_print_oom_context`, since 5.0):
/// `oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a,task_memcg=/a/b,task=sh,pid=7,uid=0`, or `global_oom` for `oom_memcg=/a`.
fn logged_kill(message: &str, cgroup: &str) -> Option<Kill> {
    // From the end: a name is at most 15 bytes, and holds what the container wants.
    let (rest, _) = message.rsplit_once(",uid=")?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    let (rest, name) = rest.rsplit_once(",task=")?;
    let (rest, victims) = rest.rsplit_once(",task_memcg=")?;
    // The kernel's paths begin at the root of the hierarchy: where a mount or a namespace shows a part of it, none fits.
    let below = victims.strip_prefix(cgroup)?;
    if !(below.is_empty() || below.starts_with('/')) {
        return None;
    }
    let limit = match rest.rsplit_once(",oom_memcg=") {
        Some((_, path)) => Some(path.to_owned()),
        None if rest.ends_with(",global_oom") => None,
        None => return None,
    };
    Some(Kill { limit, pid: pid.parse().ok()?, name: name.to_owned() })
}

/// Of the last `count` kills that of process `first`, else the last one.
fn choose(mut kills: Vec<Kill>, count: u64, first: i32) -> Option<Kill> {
    let newest = kills.split_off(kills.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX)));
    newest.iter().rfind(|kill| kill.pid == first).or(newest.last()).cloned()
}

/// The files of a container's cgroup that tell of memory.
struct Memory<'r> {
    path: &'r Path,
    mount_point: &'r Path,
    version: Version,
}

/// The number behind `key` in a file of lines `key number`, or that the file holds.
fn number(path: &Path, key: &str) -> Option<u64> {
    let text = files::read(path).ok()?;
    if key.is_empty() {
        return text.parse().ok();
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

    /// What the limit of the cgroup at `path` is, and the most that it used. An unlimited one has no limit.
    fn limit_and_peak(&self, path: &Path) -> (Option<u64>, Option<u64>) {
        let (limit, peak) = match self.version {
            Version::V2 => ("memory.max", "memory.peak"),
            Version::V1 => ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        };
        // v1 has no word for it: the most that there can be, rounded to pages.
        let is_limit = |bytes: &u64| *bytes < 1 << 62;
        (number(&path.join(limit), "").filter(is_limit), number(&path.join(peak), ""))
    }

    fn below_mount(&self, path: &Path) -> String {
        format!("/{}", path.strip_prefix(self.mount_point).unwrap_or(path).display())
    }

    /// What the kernel logged of it: for root alone, as a rule.
    fn logged_kills(&self) -> Vec<Kill> {
        let own = self.below_mount(self.path);
        let log = kernel_log::messages("oom-kill:").unwrap_or_default();
        log.iter().filter_map(|message| logged_kill(message, &own)).collect()
    }

    fn out_of_memory(&self, kills: u64, kill: Option<Kill>, first: i32) -> OutOfMemory {
        let (limit_of, cgroup, is_certain) = judge(&self.counters(), kill.as_ref());
        let path = cgroup.as_ref().map(|cgroup| joined(self.mount_point, Path::new(cgroup)));
        let (limit_bytes, peak_bytes) = path.map_or((None, None), |path| self.limit_and_peak(&path));
        let victim = kill.map(|kill| Victim { is_first: kill.pid == first, pid: kill.pid, name: kill.name });
        OutOfMemory { limit_of, is_certain, cgroup, limit_bytes, peak_bytes, kills, victim }
    }

    fn counters(&self) -> Counters {
        let above = self.path.ancestors().skip(1).take_while(|above| *above != self.mount_point);
        let own = self.reached(self.path);
        let all = match self.version {
            Version::V2 => number(&self.path.join("memory.events"), "oom").unwrap_or(0),
            Version::V1 => 0,
        };
        Counters {
            version: self.version,
            own: (self.below_mount(self.path), own),
            below: all.saturating_sub(own),
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

    /// How many processes of the container were killed for memory; 0 where that cannot be told. One small read.
    pub fn memory_kills(&self) -> u64 {
        self.memory().and_then(|memory| memory.kills()).unwrap_or(0)
    }

    /// Why processes of the container, whose first one is or was `first`, were killed for memory; `None` if none were, or that
    /// cannot be told.
    pub fn out_of_memory(&self, first: i32) -> Option<OutOfMemory> {
        let memory = self.memory()?;
        let kills = memory.kills().filter(|kills| *kills > 0)?;
        let kill = choose(memory.logged_kills(), kills, first);
        Some(memory.out_of_memory(kills, kill, first))
    }

    /// Why the first process of the container, which a SIGKILL may have ended, was killed for memory, if its cgroup is gone:
    /// systemd removes that of a unit when it is empty. What the kernel logged is all that is left.
    pub fn logged_out_of_memory(&self, first: i32) -> Option<OutOfMemory> {
        let memory = self.memory_place().filter(|memory| !memory.path.exists())?;
        let kill = memory.logged_kills().into_iter().rfind(|kill| kill.pid == first)?;
        Some(memory.out_of_memory(1, Some(kill), first))
    }

    /// The error for a process that was killed for memory while the container was made; `None` if none was.
    pub fn killed_for_memory(&self) -> Option<Error> {
        let memory = self.memory()?;
        memory.kills().filter(|kills| *kills > 0)?;
        let (limit, peak) = memory.limit_and_peak(memory.path);
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
            let kill = Kill { limit: limit.map(str::to_owned), pid: 7, name: "sh".into() };
            assert_eq!(judge(&counters, Some(&kill)), (expected, limit.map(str::to_owned), true), "{limit:?}");
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
    fn lines_of_the_kernel_are_read() {
        let head = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,mems_allowed=0";
        let kill = |limit: Option<&str>, pid, name: &str| {
            Some(Kill { limit: limit.map(str::to_owned), pid, name: name.to_owned() })
        };
        for (line, expected) in [
            (",oom_memcg=/pod/web,task_memcg=/pod/web,task=sh,pid=7,uid=0", kill(Some("/pod/web"), 7, "sh")),
            (",oom_memcg=/pod,task_memcg=/pod/web/app,task=sh,pid=7,uid=0", kill(Some("/pod"), 7, "sh")),
            (",global_oom,task_memcg=/pod/web,task=sh,pid=7,uid=0", kill(None, 7, "sh")),
            // Names are any 15 bytes.
            (
                ",oom_memcg=/pod,task_memcg=/pod/web,task=a,pid=1,uid=0,pid=7,uid=0",
                kill(Some("/pod"), 7, "a,pid=1,uid=0"),
            ),
            (",oom_memcg=/,task_memcg=/pod/web,task=sh,pid=7,uid=0", kill(Some("/"), 7, "sh")),
            // Others.
            (",oom_memcg=/pod,task_memcg=/pod/website,task=sh,pid=7,uid=0", None),
            (",oom_memcg=/pod,task_memcg=/pod,task=sh,pid=7,uid=0", None),
            (",oom_memcg=/x/pod/web,task_memcg=/x/pod/web,task=sh,pid=7,uid=0", None),
            (",task_memcg=/pod/web,task=sh,pid=7,uid=0", None),
            ("", None),
        ] {
            assert_eq!(logged_kill(&format!("{head}{line}"), "/pod/web"), expected, "{line}");
        }
    }

    #[test]
    fn the_first_process_is_named_if_it_is_among_the_last_victims() {
        let kills =
            |pids: &[i32]| pids.iter().map(|pid| Kill { limit: None, pid: *pid, name: String::new() }).collect();
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
