//! How far layers have come, on standard error: a bar each on a terminal, else a line when one begins and when it is there.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kelson::sys::tty;

use crate::cli::size::human;
use crate::manifest::Descriptor;

/// Drawn at most so often: more cannot be seen and costs the terminal's time.
const INTERVAL: Duration = Duration::from_millis(100);
/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;
/// Widest bar; a wider one is no clearer.
const MAX_BAR: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Nothing is written.
    Quiet,
    Lines,
    Bars,
}

/// What is under way, in the order in which it began. Several threads tell of their parts.
pub struct Progress<W: Write = io::Stderr> {
    style: Style,
    columns: usize,
    state: Mutex<State<W>>,
}

struct State<W> {
    output: W,
    active: Vec<Part>,
    next: u64,
    /// Lines of the last drawing, above the cursor.
    drawn: usize,
    last: Option<Instant>,
}

struct Part {
    number: u64,
    name: String,
    done: u64,
    size: u64,
}

/// One part of it, shown when its first byte is asked for: what is there already is not. Where it ends without [`Bar::finish`], it failed
/// and nothing more is said of it.
pub struct Bar<'a, W: Write = io::Stderr> {
    progress: &'a Progress<W>,
    name: String,
    size: u64,
    number: OnceLock<u64>,
}

impl Progress {
    /// On standard error, as fits what that is.
    pub fn new(is_quiet: bool) -> Self {
        let style = match (is_quiet, io::stderr().is_terminal()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Bars,
            (false, false) => Style::Lines,
        };
        let columns = tty::window_size(io::stderr().as_fd()).ok().map(|(_, width)| usize::from(width));
        Self::to(io::stderr(), style, columns.filter(|columns| *columns > 0).unwrap_or(COLUMNS))
    }
}

impl<W: Write> Progress<W> {
    /// On `output`, which has so many columns.
    pub fn to(output: W, style: Style, columns: usize) -> Self {
        let state = State { output, active: vec![], next: 0, drawn: 0, last: None };
        Self { style, columns, state: Mutex::new(state) }
    }

    /// The part that is this layer.
    pub fn layer(&self, descriptor: &Descriptor) -> Bar<'_, W> {
        self.part(&descriptor.digest.hex()[..12], descriptor.size)
    }

    fn part(&self, name: &str, size: u64) -> Bar<'_, W> {
        Bar { progress: self, name: name.to_owned(), size, number: OnceLock::new() }
    }

    /// Changes what there is and shows it; a line is written above the bars and stays.
    fn change<T>(&self, must_show: bool, what: impl FnOnce(&mut State<W>, Style) -> (T, Option<String>)) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, line) = what(&mut state, self.style);
        let is_due = must_show || state.last.is_none_or(|last| last.elapsed() >= INTERVAL);
        // Whoever does not read how far it is must not stop it.
        let _ = match self.style {
            Style::Bars if is_due => state.draw(self.columns, line.as_deref()),
            Style::Lines => line.map_or(Ok(()), |line| writeln!(state.output, "{line}")),
            _ => Ok(()),
        };
        value
    }
}

impl<W: Write> State<W> {
    fn draw(&mut self, columns: usize, above: Option<&str>) -> io::Result<()> {
        let mut text = String::new();
        if self.drawn > 0 {
            text += &format!("\x1b[{}A", self.drawn);
        }
        let bars = self.active.iter().map(|part| bar(&part.name, part.done, part.size, columns));
        for line in above.map(str::to_owned).into_iter().chain(bars) {
            text += &format!("\r\x1b[K{line}\n");
        }
        // What was below is gone.
        text += "\x1b[J";
        self.drawn = self.active.len();
        self.last = Some(Instant::now());
        self.output.write_all(text.as_bytes())?;
        self.output.flush()
    }
}

impl<W: Write> Bar<'_, W> {
    /// `stream`, of which each byte that is read counts.
    pub fn reads<R: Read>(&self, stream: R) -> impl Read + use<'_, R, W> {
        self.number.get_or_init(|| self.begin());
        Counted { bar: self, stream }
    }

    fn begin(&self) -> u64 {
        self.progress.change(true, |state, style| {
            let number = state.next;
            state.next += 1;
            state.active.push(Part { number, name: self.name.clone(), done: 0, size: self.size });
            let line = (style == Style::Lines).then(|| format!("{}: {}", self.name, human(self.size)));
            (number, line)
        })
    }

    fn add(&self, bytes: u64) {
        if self.progress.style != Style::Bars {
            return;
        }
        self.progress.change(false, |state, _| {
            if let Some(part) = state.active.iter_mut().find(|part| Some(&part.number) == self.number.get()) {
                part.done += bytes;
            }
            ((), None)
        });
    }

    /// The layer is there.
    pub fn finish(mut self) {
        self.end(|bar| Some(format!("{}: {} fetched", bar.name, human(bar.size))));
    }

    /// Shown no longer; `line` stays.
    fn end(&mut self, line: impl FnOnce(&Self) -> Option<String>) {
        let Some(number) = self.number.take() else { return };
        let line = line(self);
        self.progress.change(true, |state, _| {
            state.active.retain(|part| part.number != number);
            ((), line)
        });
    }
}

impl<W: Write> Drop for Bar<'_, W> {
    fn drop(&mut self) {
        self.end(|_| None);
    }
}

struct Counted<'a, R, W: Write> {
    bar: &'a Bar<'a, W>,
    stream: R,
}

impl<R: Read, W: Write> Read for Counted<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.bar.add(count as u64);
        Ok(count)
    }
}

/// One line of at most `columns` - 1, so that no terminal breaks it.
fn bar(name: &str, done: u64, size: u64, columns: usize) -> String {
    let numbers = format!("{} / {}", human(done), human(size));
    let rest = columns.saturating_sub(name.chars().count() + 2 + 2 + 2 + 17 + 1).min(MAX_BAR);
    let filled = if size == 0 { rest } else { (u128::from(done.min(size)) * rest as u128 / u128::from(size)) as usize };
    let line = match rest {
        0..4 => format!("{name}  {numbers}"),
        _ => format!("{name}  [{}{}]  {numbers}", "=".repeat(filled), " ".repeat(rest - filled)),
    };
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fits_its_terminal() {
        assert_eq!(bar("abc", 50, 100, 37), "abc  [=====     ]  50B / 100B");
        assert_eq!(bar("abc", 200, 100, 37), "abc  [==========]  200B / 100B");
        assert_eq!(bar("abc", 0, 0, 37), "abc  [==========]  0B / 0B");
        assert_eq!(bar("abc", 0, 1, 30), "abc  0B / 1B");
        for columns in 0..200 {
            for size in [0, 1, 999_900_000, u64::MAX] {
                assert!(bar("0123456789ab", size / 2, size, columns).len() <= columns.saturating_sub(1));
            }
        }
    }

    fn written(style: Style, what: impl FnOnce(&Progress<Vec<u8>>)) -> String {
        let progress = Progress::to(vec![], style, 37);
        what(&progress);
        String::from_utf8(progress.state.into_inner().unwrap().output).unwrap()
    }

    fn three_parts(progress: &Progress<Vec<u8>>) {
        let (first, second) = (progress.part("a", 4), progress.part("b", 2000));
        progress.part("there already", 9).finish();
        let (mut stream, other) = (first.reads(&b"abcd"[..]), second.reads(&b""[..]));
        io::copy(&mut stream, &mut io::sink()).unwrap();
        drop((stream, other));
        first.finish();
        drop(second);
    }

    #[test]
    fn lines_where_there_is_no_terminal_and_nothing_when_quiet() {
        assert_eq!(written(Style::Lines, three_parts), "a: 4B\nb: 2.00kB\na: 4B fetched\n");
        assert_eq!(written(Style::Quiet, three_parts), "");
    }

    #[test]
    fn what_is_there_stays_above_the_bars() {
        let text = written(Style::Bars, three_parts);
        let last = text.split("\x1b[2A").last().unwrap();
        assert!(last.starts_with("\r\x1b[Ka: 4B fetched\n\r\x1b[Kb  ["), "{text:?}");
        assert!(last.ends_with("\x1b[1A\x1b[J"), "{text:?}");
    }

    #[test]
    fn bytes_in_between_are_counted_though_not_drawn() {
        let progress = Progress::to(vec![], Style::Bars, 37);
        let bar = progress.part("a", 100);
        let mut stream = bar.reads(io::repeat(0).take(100));
        while stream.read(&mut [0]).unwrap() > 0 {}
        assert_eq!(progress.state.lock().unwrap().active[0].done, 100);
    }
}
