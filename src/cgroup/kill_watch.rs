//! Reads what a container's cgroup counts of kills while it is there: systemd removes that of a unit as soon as it is empty, a
//! few milliseconds after the last process. The files are open before, so that each look is a handful of reads.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};

use super::Record;
use super::memory_events::{Counted, Sizes, value};
use super::oom::{Oom, OomWatch};
use super::resources::Version;
use crate::sys::fd::open;

/// What a container's cgroup counts, as of the last look. With another driver than systemd's it does nothing: the cgroup stays.
#[derive(Debug)]
pub struct KillWatch<'r> {
    record: &'r Record,
    source: Source,
    counted: Option<Counted>,
}

#[derive(Debug)]
enum Source {
    None,
    V1(OomWatch),
    V2(Files),
}

/// Of the container's cgroup.
#[derive(Debug)]
struct Files {
    events: File,
    /// `None` before Linux 5.2.
    local: Option<File>,
    limit: Option<File>,
    /// `None` before Linux 5.19.
    peak: Option<File>,
    sizes: Sizes,
    /// memory.events of the cgroup above, which stays and counts all below it, and its kills before this container's.
    above: Option<(File, u64)>,
}

impl Record {
    /// Begins to look at what systemd will remove.
    pub fn watch_kills(&self) -> KillWatch<'_> {
        let source = match (&self.unit, self.version, self.unified()) {
            (Some(_), Version::V1, _) => self.watch_oom().ok().flatten().map(Source::V1),
            (Some(_), Version::V2, Some(path)) => Files::open(path).map(Source::V2),
            _ => None,
        };
        // Without the counters there is still the kernel's log.
        let mut watch = KillWatch { record: self, source: source.unwrap_or(Source::None), counted: None };
        watch.look();
        watch
    }
}

impl KillWatch<'_> {
    /// What to wait for before the next look.
    pub fn poll_fd(&self) -> Option<PollFd<'_>> {
        match &self.source {
            Source::None => None,
            Source::V1(events) => Some(PollFd::new(events.as_fd(), events.flags())),
            Source::V2(files) => Some(PollFd::new(files.events.as_fd(), PollFlags::POLLPRI)),
        }
    }

    /// Looks, when there is something to see, and at once when the container's process has ended.
    pub fn look(&mut self) {
        let is_there = match &mut self.source {
            Source::None => return,
            Source::V1(events) => {
                self.counted = self.record.count_kills().or(self.counted.take());
                !matches!(events.take(), Err(_) | Ok(Oom::Gone))
            }
            Source::V2(files) => match files.count() {
                Some(counted) => {
                    self.counted = counted.or(self.counted.take());
                    true
                }
                None => {
                    self.counted = self.counted.take().or_else(|| files.count_above());
                    false
                }
            },
        };
        if !is_there {
            // It would be ready for ever.
            self.source = Source::None;
        }
    }

    /// What was counted up to the last look, if anything was killed.
    pub fn into_counted(self) -> Option<Counted> {
        self.counted
    }
}

impl Files {
    fn open(cgroup: &Path) -> Option<Self> {
        let file = |name| open(&cgroup.join(name), OFlag::O_RDONLY).ok().map(File::from);
        let [local, limit, peak] = ["memory.events.local", "memory.max", "memory.peak"].map(file);
        let sizes = Sizes::new(limit.as_ref().and_then(|file| read(file, "")), None);
        let above = cgroup.parent().and_then(|above| open(&above.join("memory.events"), OFlag::O_RDONLY).ok());
        let above = above.map(File::from).and_then(|file| read(&file, "oom_kill").map(|kills| (file, kills)));
        Some(Self { events: file("memory.events")?, local, limit, peak, sizes, above })
    }

    /// What is counted now, if anything was killed; `None` if the cgroup is gone. Reading also arms the next notification.
    fn count(&mut self) -> Option<Option<Counted>> {
        let events = text(&self.events)?;
        let kills = value(&events, "oom_kill").unwrap_or(0);
        if kills == 0 {
            return Some(None);
        }
        let all = value(&events, "oom").unwrap_or(0);
        let number = |file: &Option<File>, key| read(file.as_ref()?, key);
        // From here on it may be gone: what was read before counts then.
        let own = number(&self.local, "oom");
        let (limit, peak) = (number(&self.limit, ""), number(&self.peak, ""));
        if own.is_some() {
            self.sizes = Sizes::new(limit, peak);
        }
        Some(Some(Counted { kills, own, all, sizes: self.sizes, is_own: true }))
    }

    /// What the cgroup above has counted since the first look: systemd was faster. Without a limit of its own the container is
    /// as likely none of it.
    fn count_above(&self) -> Option<Counted> {
        let (file, before) = self.above.as_ref()?;
        self.sizes.limit?;
        let kills = read(file, "oom_kill")?.saturating_sub(*before);
        (kills > 0).then_some(Counted { kills, own: None, all: 1, sizes: self.sizes, is_own: false })
    }
}

fn text(file: &File) -> Option<String> {
    let mut buffer = [0; 1024];
    let length = file.read_at(&mut buffer, 0).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn read(file: &File, key: &str) -> Option<u64> {
    value(&text(file)?, key)
}
