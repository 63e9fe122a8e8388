//! How long each step of create, run and exec takes, where `--timings` asks for it.
//!
//! The steps of a process follow each other without a gap: where one ends the next begins. What the stage and the container's
//! process measure comes in messages (`sandbox::message::Ask::Times`); its last step, which ends with execve(2), is ended
//! by who hears of that. Off, which is the rule, a [`Laps`] is a null pointer: no clock is read and no memory taken.
//!
//! ```text
//! {"command": "run", "id": "web", "clock": "CLOCK_MONOTONIC", "started_us": 81234567, "total_us": 3120, "completed": true,
//!  "steps": [{"name": "read the configuration", "process": "kelson", "start_us": 0, "duration_us": 41}, …]}
//! ```
//! `started_us` is the clock's, `start_us` counts from there. `completed` is false for a command that failed, whose steps end
//! where it did. `process` is `kelson`, `stage` or `container`.

mod table;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::error::{Context, Result};

/// Whose step it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    /// The command itself.
    Kelson,
    Stage,
    Container,
}

impl Process {
    pub fn name(self) -> &'static str {
        match self {
            Process::Kelson => "kelson",
            Process::Stage => "stage",
            Process::Container => "container",
        }
    }
}

/// A step of a process. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: Cow<'static, str>,
    pub process: Process,
    pub start: u64,
    /// 0 until it has ended.
    pub end: u64,
}

/// The steps of one process so far; nothing at all unless it is on.
#[derive(Debug)]
pub struct Laps(Option<Box<Record>>);

#[derive(Debug)]
struct Record {
    process: Process,
    steps: Vec<Step>,
    /// When the step that goes on began.
    begun: u64,
}

fn now() -> u64 {
    // It fails for clocks that a kernel lacks; this one it has.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

impl Laps {
    pub const OFF: Self = Self(None);

    /// The first step begins now, if `is_on`.
    pub fn begin(process: Process, is_on: bool) -> Self {
        Self(is_on.then(|| Box::new(Record { process, steps: Vec::with_capacity(48), begun: now() })))
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What was done since the last call is `name`.
    #[inline]
    pub fn lap(&mut self, name: &'static str) {
        if let Some(record) = &mut self.0 {
            record.lap(name);
        }
    }

    /// The steps since the last call of this, for the parent, who ends the step `unfinished`, which goes on; `None` if it is
    /// off.
    pub fn told(&mut self, unfinished: Option<&'static str>) -> Option<Vec<u8>> {
        let record = self.0.as_mut()?;
        if let Some(name) = unfinished {
            let (process, start) = (record.process, record.begun);
            record.steps.push(Step { name: name.into(), process, start, end: 0 });
        }
        Some(encode(&std::mem::take(&mut record.steps)))
    }
}

impl Record {
    fn lap(&mut self, name: &'static str) {
        let end = now();
        self.steps.push(Step { name: name.into(), process: self.process, start: self.begun, end });
        self.begun = end;
    }
}

fn encode(steps: &[Step]) -> Vec<u8> {
    let mut bytes = vec![];
    for step in steps {
        bytes.push(step.process as u8);
        bytes.extend(step.start.to_ne_bytes());
        bytes.extend(step.end.to_ne_bytes());
        // No step has a name that long.
        let length = u8::try_from(step.name.len()).unwrap_or(u8::MAX);
        bytes.push(length);
        bytes.extend(&step.name.as_bytes()[..length.into()]);
    }
    bytes
}

/// Up to the first that [`encode`] did not write.
fn decode(mut bytes: &[u8]) -> Vec<Step> {
    let mut steps = vec![];
    while let Some((step, rest)) = decode_one(bytes) {
        steps.push(step);
        bytes = rest;
    }
    steps
}

fn decode_one(bytes: &[u8]) -> Option<(Step, &[u8])> {
    let (process, bytes) = bytes.split_first()?;
    let process = [Process::Stage, Process::Container].into_iter().find(|known| *known as u8 == *process)?;
    let (start, bytes) = bytes.split_first_chunk()?;
    let (end, bytes) = bytes.split_first_chunk()?;
    let (length, bytes) = bytes.split_first()?;
    let (name, rest) = bytes.split_at_checked((*length).into())?;
    let name = String::from_utf8_lossy(name).into_owned().into();
    Some((Step { name, process, start: u64::from_ne_bytes(*start), end: u64::from_ne_bytes(*end) }, rest))
}

/// What a parent heard of its children's steps; empty where nothing is timed.
#[derive(Debug, Default)]
pub struct Heard {
    steps: RefCell<Vec<Step>>,
    /// By how much the container's clock is ahead, once that was asked.
    ahead: Cell<Option<i64>>,
}

impl Heard {
    /// Adds the steps that a child told. The clock of a container in a time namespace is `ahead` of this process's, in
    /// nanoseconds (time_namespaces(7)); that of a stage is not. It is asked once, when the container's process waits for an
    /// answer: later it may have ended.
    pub fn add(&self, told: &[u8], ahead: impl FnOnce() -> i64) {
        let mut steps = decode(told);
        if steps.iter().any(|step| step.process == Process::Container) {
            let ahead = self.ahead.get().unwrap_or_else(ahead);
            self.ahead.set(Some(ahead));
            for step in steps.iter_mut().filter(|step| step.process == Process::Container) {
                step.start = step.start.saturating_add_signed(-ahead);
                if step.end != 0 {
                    step.end = step.end.saturating_add_signed(-ahead);
                }
            }
        }
        self.steps.borrow_mut().extend(steps);
    }

    /// What a child had not finished when it last told of its steps ends now.
    #[inline]
    pub fn end_last(&self) {
        if let Some(step) = self.steps.borrow_mut().last_mut().filter(|step| step.end == 0) {
            step.end = now();
        }
    }
}

/// By how many nanoseconds the monotonic clock of process `pid`, a child's, is ahead of this process's own.
pub fn clock_ahead(pid: i32) -> i64 {
    let offset = |process: &str| {
        // No such file: the kernel has no time namespaces.
        let text = std::fs::read_to_string(format!("/proc/{process}/timens_offsets")).ok()?;
        parse_offset(&text)
    };
    offset(&pid.to_string()).unwrap_or(0) - offset("self").unwrap_or(0)
}

/// `monotonic SECONDS NANOSECONDS` among the lines of timens_offsets (time_namespaces(7)).
fn parse_offset(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// The timings of one command: told when it is dropped, or [`Timings::finish`]ed.
pub struct Timings<'c> {
    laps: Laps,
    command: &'static str,
    id: &'c str,
    /// `None` with the table alone.
    file: Option<File>,
}

impl<'c> Timings<'c> {
    /// Begins the timings that `--timings FILE` asks for, none without. `-` is the table alone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(option: Option<&Path>, command: &'static str, id: &'c str) -> Result<Self> {
        let mut timings = Self { laps: Laps::OFF, command, id, file: None };
        let Some(path) = option else { return Ok(timings) };
        if path.as_os_str() != OsStr::new("-") {
            // A FIFO that nobody reads is an error and no wait. It is emptied when there is something to write.
            let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
            let file = OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(path);
            timings.file = Some(file.doing(|| format!("--timings: open {}", path.display()))?);
        }
        timings.laps = Laps::begin(Process::Kelson, true);
        Ok(timings)
    }

    pub fn is_on(&self) -> bool {
        self.laps.is_on()
    }

    /// What was done since the last call is `name`.
    #[inline]
    pub fn lap(&mut self, name: &'static str) {
        self.laps.lap(name);
    }

    /// Adds what a parent heard.
    pub fn hear(&mut self, heard: &Heard) {
        if let Some(record) = &mut self.laps.0 {
            record.steps.append(&mut heard.steps.borrow_mut());
        }
    }

    /// The command has done what it is for: the timings are told.
    pub fn finish(&mut self) {
        self.tell(true);
    }

    fn tell(&mut self, completed: bool) {
        let Some(record) = self.laps.0.take() else { return };
        let document = Document::of(self.command, self.id, record.steps, completed);
        let has_file = self.file.is_some();
        if let Some(file) = self.file.take()
            && let Err(error) = document.write_to(file)
        {
            log::warn!("--timings: {error}");
        }
        let mut stderr = std::io::stderr().lock();
        if !has_file || stderr.is_terminal() {
            // Nobody is left to be told.
            let _ = stderr.write_all(table::text(&document).as_bytes());
        }
    }
}

impl Drop for Timings<'_> {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// As the module's head shows it.
#[derive(Debug, Serialize)]
struct Document<'d> {
    command: &'d str,
    id: &'d str,
    clock: &'static str,
    started_us: u64,
    total_us: u64,
    completed: bool,
    steps: Vec<Timed>,
}

#[derive(Debug, Serialize)]
struct Timed {
    name: Cow<'static, str>,
    process: Process,
    start_us: u64,
    duration_us: u64,
}

impl<'d> Document<'d> {
    fn of(command: &'d str, id: &'d str, mut steps: Vec<Step>, completed: bool) -> Self {
        // Of two that begin at once the parent's comes first.
        steps.sort_by_key(|step| (step.start, step.process as u8));
        let started = steps.first().map_or(0, |step| step.start);
        let total = steps.iter().map(|step| step.end).max().unwrap_or(started).saturating_sub(started);
        let timed = steps.into_iter().map(|step| {
            // Rounded at both ends, so that steps still follow each other without a gap.
            let start_us = (step.start - started) / 1000;
            let end_us = step.end.max(step.start).saturating_sub(started) / 1000;
            Timed { name: step.name, process: step.process, start_us, duration_us: end_us - start_us }
        });
        let (started_us, total_us) = (started / 1000, total / 1000);
        Self { command, id, clock: "CLOCK_MONOTONIC", started_us, total_us, completed, steps: timed.collect() }
    }

    fn write_to(&self, mut file: File) -> std::io::Result<()> {
        let mut text = serde_json::to_string(self)?;
        text.push('\n');
        if file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, process: Process, start: u64, end: u64) -> Step {
        Step { name: name.into(), process, start, end }
    }

    #[test]
    fn off_there_is_nothing() {
        let mut laps = Laps::begin(Process::Container, false);
        laps.lap("a");
        assert_eq!(laps.told(Some("b")), None);
        assert_eq!(std::mem::size_of::<Laps>(), std::mem::size_of::<usize>());
    }

    #[test]
    fn what_a_child_told_is_heard() {
        let mut laps = Laps::begin(Process::Container, true);
        laps.lap("map ids");
        laps.lap("join the cgroups");
        let told = laps.told(Some("execute the program")).unwrap();
        let heard = Heard::default();
        heard.add(&told, || 0);
        heard.end_last();
        let steps = heard.steps.into_inner();
        assert_eq!(
            steps.iter().map(|step| &*step.name).collect::<Vec<_>>(),
            ["map ids", "join the cgroups", "execute the program"]
        );
        assert!(steps.iter().all(|step| step.process == Process::Container && step.end >= step.start));
        assert!(steps.windows(2).all(|two| two[0].end == two[1].start));
        // The next time only what came since.
        laps.lap("c");
        assert_eq!(decode(&laps.told(None).unwrap()).len(), 1);
    }

    #[test]
    fn a_clock_that_is_ahead_is_set_back() {
        let heard = Heard::default();
        let container = step("a", Process::Container, 5_000_000_100, 5_000_000_200);
        heard.add(&encode(&[step("s", Process::Stage, 50, 90), container]), || 5_000_000_000);
        let expected = [step("s", Process::Stage, 50, 90), step("a", Process::Container, 100, 200)];
        assert_eq!(*heard.steps.borrow(), expected);
        // Later it is not asked again.
        heard.add(&encode(&[step("b", Process::Container, 5_000_000_300, 5_000_000_400)]), || 0);
        assert_eq!(heard.steps.borrow().last(), Some(&step("b", Process::Container, 300, 400)));
        assert_eq!(
            parse_offset("monotonic           864         5\nboottime            0         0\n"),
            Some(864_000_000_005)
        );
        assert_eq!(parse_offset("monotonic          -1         0\n"), Some(-1_000_000_000));
    }

    #[test]
    fn what_no_child_wrote_is_passed_over() {
        let good = encode(&[step("a", Process::Stage, 1, 2)]);
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_empty(), "{cut}");
        }
        // Nobody but this process itself is `kelson`.
        assert!(decode(&encode(&[step("a", Process::Kelson, 1, 2)])).is_empty());
    }

    #[test]
    fn steps_are_in_the_order_of_their_begin_and_without_a_gap() {
        let steps = vec![
            step("clone", Process::Kelson, 2_000_700, 2_900_000),
            step("wait", Process::Kelson, 2_900_000, 4_000_999),
            step("map ids", Process::Container, 2_500_000, 3_100_100),
        ];
        let document = serde_json::to_value(Document::of("run", "web", steps, true)).unwrap();
        let expected = serde_json::json!({
            "command": "run", "id": "web", "clock": "CLOCK_MONOTONIC",
            "started_us": 2000, "total_us": 2000, "completed": true,
            "steps": [
                {"name": "clone", "process": "kelson", "start_us": 0, "duration_us": 899},
                {"name": "map ids", "process": "container", "start_us": 499, "duration_us": 600},
                {"name": "wait", "process": "kelson", "start_us": 899, "duration_us": 1101},
            ],
        });
        assert_eq!(document, expected);
    }
}
