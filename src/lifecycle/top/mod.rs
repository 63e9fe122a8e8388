//! [parent] top: what the containers of a root use, sorted by CPU time; on a terminal as a page that is drawn anew.

mod table;
mod usage;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::Runtime;
use crate::cli;
use crate::error::{Context, Error, Kind, Result};
use crate::log::rfc3339;
use crate::signals::Signals;
use crate::state::{State, Status};
use crate::terminal::screen::Screen;
use usage::{Look, Usage};

/// Shows what runs until it is ended, or once; gives the exit code.
///
/// What takes two looks, CPU time and rates, is of the interval before: `--once` waits for one.
pub fn top(runtime: &Runtime, options: &cli::Top, print: &mut dyn FnMut(&str) -> Result<()>) -> Result<u8> {
    let mut observer = Observer { runtime, interval: options.interval, before: BTreeMap::new() };
    if !options.once && !options.json && std::io::stdout().is_terminal() {
        return show(&mut observer);
    }
    observer.look()?;
    loop {
        // The time that is measured; what ends this process, a signal, ends it here too.
        std::thread::sleep(options.interval);
        let seen = observer.look()?;
        let text = if options.json {
            seen.to_json(options.interval)?
        } else {
            seen.lines(runtime, options.interval).join("\n")
        };
        print(&(text + "\n"))?;
        if options.once {
            return Ok(0);
        }
        if !options.json {
            print("\n")?;
        }
    }
}

/// On the terminal, until `q` or a signal.
fn show(observer: &mut Observer<'_>) -> Result<u8> {
    let signals = Signals::hold_all()?;
    let screen = Screen::open()?;
    loop {
        let lines = observer.look()?.lines(observer.runtime, observer.interval);
        let deadline = Instant::now() + observer.interval;
        loop {
            screen.draw(&lines)?;
            match wait(&screen, &signals, deadline)? {
                Woken::Look => break,
                Woken::Draw => {}
                Woken::Stop => screen.suspend()?,
                Woken::End(code) => return Ok(code),
            }
        }
    }
}

/// What is to be done after a wait.
enum Woken {
    Look,
    /// The terminal has another size, or its content is lost.
    Draw,
    Stop,
    /// With this exit code.
    End(u8),
}

fn wait(screen: &Screen, signals: &Signals, deadline: Instant) -> Result<Woken> {
    loop {
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        polled.extend(screen.keys().map(|keys| PollFd::new(keys, PollFlags::POLLIN)));
        // Rounded up: a wait of 0 ms would spin.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => continue,
            other => other.doing(|| "wait for the terminal")?,
        };
        let has_keys = polled.get(1).is_some_and(|keys| keys.any() == Some(true));
        while let Some(signal) = signals.next()? {
            match signal {
                // The way to leave it, as in top(1).
                libc::SIGINT => return Ok(Woken::End(0)),
                libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT => return Ok(Woken::End(128 + signal as u8)),
                libc::SIGTSTP => return Ok(Woken::Stop),
                libc::SIGWINCH | libc::SIGCONT => return Ok(Woken::Draw),
                _ => {}
            }
        }
        if has_keys {
            match screen.read_keys()? {
                None => return Ok(Woken::End(0)),
                Some(keys) if keys.iter().any(|key| b"qQ".contains(key)) => return Ok(Woken::End(0)),
                Some(_) => {}
            }
        }
        if Instant::now() >= deadline {
            return Ok(Woken::Look);
        }
    }
}

/// Looks again and again.
struct Observer<'r> {
    runtime: &'r Runtime,
    interval: Duration,
    /// By id and time of creation: a later container may have the same id.
    before: BTreeMap<(String, String), Look>,
}

impl Observer<'_> {
    /// What every container that runs or is paused uses.
    fn look(&mut self) -> Result<Seen> {
        let mut seen = Seen { usages: vec![], unread: vec![] };
        let mut looks = BTreeMap::new();
        for id in self.runtime.ids()? {
            match look_at(self.runtime, &id) {
                Ok(None) => {}
                Ok(Some((state, status, look))) => {
                    let key = (id, state.created.clone());
                    seen.usages.push(Usage::new(&state, status, self.before.get(&key), &look));
                    looks.insert(key, look);
                }
                Err(error) => seen.unread.push(Unread { id, error: error.to_string() }),
            }
        }
        self.before = looks;
        seen.sort();
        Ok(seen)
    }
}

/// `None` for a container that has no processes.
fn look_at(runtime: &Runtime, id: &str) -> Result<Option<(State, Status, Look)>> {
    let state = match runtime.load(id) {
        // Deleted meanwhile, or never begun.
        Err(error) if error.kind() == Kind::State => return Ok(None),
        other => other?,
    };
    let status = state.status(&runtime.root)?;
    if matches!(status, Status::Creating | Status::Stopped) {
        return Ok(None);
    }
    let at = Instant::now();
    let look = Look { at, stats: state.cgroup.stats()?, pressure: state.cgroup.pressure()? };
    Ok(Some((state, status, look)))
}

/// What was seen at one look.
struct Seen {
    /// The one with the most CPU time first.
    usages: Vec<Usage>,
    unread: Vec<Unread>,
}

/// A container of which nothing can be told, and why.
#[derive(Serialize)]
struct Unread {
    id: String,
    error: String,
}

impl Seen {
    fn sort(&mut self) {
        let percent = |usage: &Usage| usage.cpu.percent.unwrap_or(-1.0);
        self.usages.sort_unstable_by(|a, b| percent(b).total_cmp(&percent(a)).then_with(|| a.id.cmp(&b.id)));
    }

    fn lines(&self, runtime: &Runtime, interval: Duration) -> Vec<String> {
        let noun = if self.usages.len() == 1 { "container" } else { "containers" };
        let root = runtime.root.display();
        let mut lines =
            vec![format!("{} {noun} in {root}, the last {interval:?}; CPU 100 % is one CPU", self.usages.len())];
        lines.extend(table::lines(&self.usages));
        lines.extend(self.unread.iter().map(|unread| format!("{}: {}", unread.id, unread.error)));
        lines
    }

    fn to_json(&self, interval: Duration) -> Result<String> {
        #[derive(Serialize)]
        struct Document<'s> {
            time: String,
            interval_seconds: f64,
            containers: &'s [Usage],
            errors: &'s [Unread],
        }
        let document = Document {
            time: rfc3339(SystemTime::now()),
            interval_seconds: interval.as_secs_f64(),
            containers: &self.usages,
            errors: &self.unread,
        };
        serde_json::to_string(&document).map_err(|error| Error::other(error.to_string()))
    }
}
