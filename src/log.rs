//! Where warnings and the final error go: `--log`, `--log-format`, `--log-level`, `--debug` and RUST_LOG.
//!
//! ```text
//!                   no --log                 --log FILE
//! text              kelson: warning: MSG     time="..." level=warning msg="MSG"
//! json              {"level":"warning",...}  {"level":"warning",...}
//! the final error   likewise                 likewise, and plainly on standard error
//! ```
//!
//! To the journal or to syslog (`--log journald:ID`, `syslog:ID`) goes MSG, or the line of JSON.
//!
//! Engines read the last JSON line of FILE as the error (containerd) and match words of standard error (podman), so a line
//! is one write(2) to a file opened with O_APPEND, and nothing else ever gets into it.
//!
//! Only a command's own process logs. Init and stages ask the parent to: the caller's path must not be opened in the
//! container's root.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ::log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

use crate::cli::Global;
use crate::error::{Context, Error, Result};

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stderr,
    /// Appended to; made if missing.
    File(PathBuf),
    /// systemd's journal, with this in the field ID as crun has it.
    Journal(String),
    /// syslog(3), as the program of this name.
    Syslog(String),
}

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Target {
    /// Reads the value of `--log`: a path, or crun's `file:PATH`, `journald:ID` and `syslog:ID`.
    pub fn parse(value: OsString) -> Self {
        let bytes = value.as_bytes();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(id) = bytes.strip_prefix(b"journald:") {
            return Self::Journal(text(id));
        }
        if let Some(name) = bytes.strip_prefix(b"syslog:") {
            return Self::Syslog(if name.is_empty() { "kelson".into() } else { text(name) });
        }
        let path = bytes.strip_prefix(b"file:").unwrap_or(bytes);
        // A pipe or socket there cannot be opened by its /proc name (ENXIO); the descriptor works always.
        match path {
            b"" | b"/dev/stderr" => Self::Stderr,
            _ => Self::File(OsString::from_vec(path.to_vec()).into()),
        }
    }

    /// The value of `--log` that means this; `None` for what is meant without the option.
    pub fn to_value(&self) -> Option<OsString> {
        match self {
            Self::Stderr => None,
            // One that begins as a word of crun's does is told from it.
            Self::File(path) => Some([OsStr::new("file:"), path.as_os_str()].into_iter().collect()),
            Self::Journal(id) => Some(format!("journald:{id}").into()),
            Self::Syslog(name) => Some(format!("syslog:{name}").into()),
        }
    }
}

impl Format {
    /// Reads the value of `--log-format`.
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "text" | "" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(Error::usage(format!("--log-format: unknown format {other:?}")).hint("text or json")),
        }
    }
}

/// Reads the value of `--log-level`; an empty one is as good as none.
pub fn parse_level(word: &str) -> Result<Option<LevelFilter>> {
    Ok(match word.to_ascii_lowercase().as_str() {
        "" => None,
        "error" => Some(LevelFilter::Error),
        "warning" | "warn" => Some(LevelFilter::Warn),
        "info" => Some(LevelFilter::Info),
        "debug" => Some(LevelFilter::Debug),
        "trace" => Some(LevelFilter::Trace),
        _ => {
            return Err(Error::usage(format!("--log-level: unknown level {word:?}"))
                .hint("error, warning, info, debug or trace"));
        }
    })
}

/// One line, with the names that logrus (runc) gives its fields; the rest is ours.
#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    msg: &'a str,
    time: String,
    /// It goes to standard error too, whatever the log's place.
    #[serde(skip)]
    is_for_caller: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    property: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn new(level: Level, msg: &'a str, time: SystemTime) -> Self {
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        Self {
            level,
            msg,
            time: rfc3339(time),
            is_for_caller: false,
            code: None,
            property: None,
            errno: None,
            hint: None,
        }
    }

    fn json(&self) -> String {
        // A structure of strings cannot fail to serialize.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }

    fn text(&self) -> String {
        // JSON's quoting is what logrus reads back too.
        let msg = serde_json::Value::from(self.msg);
        format!("time={:?} level={} msg={msg}\n", self.time, self.level)
    }

    /// As `format` has it where the receiver adds time and level.
    fn message(&self, format: Format) -> String {
        match format {
            Format::Text => self.msg.into(),
            Format::Json => self.json().trim_end().into(),
        }
    }

    /// syslog(3)'s number of the level.
    fn severity(&self) -> u8 {
        match self.level {
            "error" => 3,
            "warning" => 4,
            "info" => 6,
            _ => 7,
        }
    }

    /// A datagram of the journal's native protocol (systemd: JOURNAL_NATIVE_PROTOCOL.md).
    fn journal(&self, id: &str, format: Format) -> Vec<u8> {
        let mut datagram = format!("PRIORITY={}\nSYSLOG_IDENTIFIER=kelson\n", self.severity()).into_bytes();
        for (name, value) in [("ID", id), ("MESSAGE", &self.message(format))] {
            // The form that takes any bytes: the name, the length as 8 bytes, lowest first, and the value.
            datagram.extend_from_slice(format!("{name}\n").as_bytes());
            datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
            datagram.extend_from_slice(format!("{value}\n").as_bytes());
        }
        datagram
    }

    /// A datagram for /dev/log, as user.LEVEL; the daemon adds the time.
    fn syslog(&self, name: &str, format: Format) -> Vec<u8> {
        let user = 1 << 3;
        let (severity, pid) = (self.severity(), std::process::id());
        format!("<{}>{name}[{pid}]: {}", user | severity, printable(&self.message(format))).into_bytes()
    }

    /// For a person.
    fn plain(&self) -> String {
        let msg = printable(self.msg);
        match self.level {
            "error" => format!("kelson: {msg}\n"),
            level => format!("kelson: {level}: {msg}\n"),
        }
    }
}

/// `text` without what could drive a terminal: names in it may come from a container.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    text.chars()
        .fold(String::new(), |mut out, c| {
            if c.is_control() {
                out.extend(c.escape_default())
            } else {
                out.push(c)
            }
            out
        })
        .into()
}

/// Writes lines.
struct Writer {
    target: Target,
    format: Format,
}

impl Writer {
    /// Writes to the target, if it is not standard error. It is opened for every line: there are few, and so no process holds
    /// a descriptor of it that could get into a container.
    fn append(&self, line: &Line<'_>) -> Result<bool> {
        let path = match &self.target {
            Target::Stderr => return Ok(false),
            Target::File(path) => path,
            Target::Journal(id) => return send(JOURNAL, &line.journal(id, self.format)),
            Target::Syslog(name) => return send(SYSLOG, &line.syslog(name, self.format)),
        };
        let text = if self.format == Format::Json { line.json() } else { line.text() };
        let opened = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.doing(|| format!("write to the log {}", path.display()))?;
        Ok(true)
    }

    fn write(&mut self, line: &Line<'_>) {
        let (is_written, failure) = match self.append(line) {
            Ok(is_written) => (is_written, None),
            Err(error) => (false, Some(error)),
        };
        let mut text = match self.target {
            Target::Stderr if self.format == Format::Json => line.json(),
            _ if !is_written || line.is_for_caller => line.plain(),
            _ => return,
        };
        if let Some(error) = failure {
            text.push_str(&format!("kelson: warning: {error}\n"));
            // Said once; the lines go to standard error from now on.
            self.target = Target::Stderr;
        }
        // Nobody is left to be told that standard error is closed.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Sends to a daemon, which is not waited for when it does not read: a log is no reason to hang.
fn send(path: &str, datagram: &[u8]) -> Result<bool> {
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(datagram, path)
    });
    sent.map(|_| true).doing(|| format!("write to the log {path}"))
}

static WRITER: Mutex<Writer> = Mutex::new(Writer { target: Target::Stderr, format: Format::Text });
static FILTER: OnceLock<Filter> = OnceLock::new();

fn writer() -> MutexGuard<'static, Writer> {
    WRITER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which lines are written.
enum Filter {
    UpTo(LevelFilter),
    /// RUST_LOG, which tells modules apart.
    Environment(env_logger::Logger),
}

impl Filter {
    fn new(level: Option<LevelFilter>, debug: bool, rust_log: Option<&str>) -> Self {
        match (level, rust_log) {
            (None, Some(directives)) if !debug && !directives.is_empty() => {
                Self::Environment(env_logger::Builder::new().parse_filters(directives).build())
            }
            _ => {
                let least = if debug { LevelFilter::Debug } else { LevelFilter::Off };
                let most = level.unwrap_or(if debug { LevelFilter::Debug } else { LevelFilter::Warn });
                Self::UpTo(most.max(least))
            }
        }
    }

    fn most(&self) -> LevelFilter {
        match self {
            Self::UpTo(most) => *most,
            Self::Environment(logger) => logger.filter(),
        }
    }
}

/// What the macros of the log crate call.
struct Facade;

impl Log for Facade {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match FILTER.get() {
            Some(Filter::Environment(logger)) => logger.enabled(metadata),
            Some(Filter::UpTo(most)) => metadata.level() <= *most,
            None => false,
        }
    }

    fn log(&self, record: &Record<'_>) {
        let is_wanted = match FILTER.get() {
            Some(Filter::Environment(logger)) => logger.matches(record),
            _ => self.enabled(record.metadata()),
        };
        if is_wanted {
            let msg = record.args().to_string();
            writer().write(&Line::new(record.level(), &msg, SystemTime::now()));
        }
    }

    fn flush(&self) {}
}

/// Makes the macros of the log crate write as the command line says. Opens nothing; a second call changes nothing but the
/// target and format.
///
/// # Errors
/// The log's path is relative and the working directory is gone.
pub fn init(global: &Global) -> Result<()> {
    let target = match &global.log {
        // The working directory may be another when the first line comes.
        Target::File(path) => Target::File(std::path::absolute(path).doing(|| "find the log's directory")?),
        other => other.clone(),
    };
    *writer() = Writer { target, format: global.log_format };
    let rust_log = std::env::var("RUST_LOG").ok();
    let filter = FILTER.get_or_init(|| Filter::new(global.log_level, global.debug, rust_log.as_deref()));
    ::log::set_max_level(filter.most());
    // Fails only where it was called before, and then Facade is already there.
    let _ = ::log::set_logger(&Facade);
    Ok(())
}

/// Writes the error that ends the command: to the log, with what programs want to know of it as fields of the JSON line,
/// and on standard error.
pub fn error(error: &Error) {
    let msg = error.to_string();
    let mut line = Line::new(Level::Error, &msg, SystemTime::now());
    // Engines match words of it on standard error.
    line.is_for_caller = true;
    line.code = Some(error.kind().word());
    line.property = error.property();
    line.errno = error.errno().map(|errno| format!("{errno:?}"));
    line.hint = error.way_out();
    writer().write(&line);
}

/// Writes a warning that whoever waits for a container is to see, whatever the log's place and level.
pub fn warn_caller(msg: &str) {
    let mut line = Line::new(Level::Warn, msg, SystemTime::now());
    line.is_for_caller = true;
    writer().write(&line);
}

/// `time` in UTC as Go's RFC3339Nano prints it: `2026-11-23T22:19:38.5Z`. A time before 1970 counts as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let mut text =
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    if since.subsec_nanos() > 0 {
        let fraction = format!(".{:09}", since.subsec_nanos());
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. Years are counted from March, so that the leap
/// day is the last of a year, in eras of 400 years from 0000-03-01 (719,468 days before 1970).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // 153 days are five months from March on: 31, 30, 31, 30, 31.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use nix::errno::Errno;

    #[test]
    fn times_are_rfc3339_in_utc() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_800, 1, "2000-03-01T00:00:00.000000001Z"),
            (1_709_251_199, 500_000_000, "2024-02-29T23:59:59.5Z"),
            (1_735_689_599, 120_000, "2024-12-31T23:59:59.00012Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (1_795_472_378, 0, "2026-11-23T22:19:38Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos)), text);
        }
    }

    #[test]
    fn a_target_is_a_path_or_a_daemon() {
        for (value, target) in [
            ("", Target::Stderr),
            ("/dev/stderr", Target::Stderr),
            ("a.log", Target::File("a.log".into())),
            ("file:/b.log", Target::File("/b.log".into())),
            ("journald:x", Target::Journal("x".into())),
            ("syslog:x", Target::Syslog("x".into())),
            ("syslog:", Target::Syslog("kelson".into())),
        ] {
            assert_eq!(Target::parse(value.into()), target, "{value}");
        }
    }

    #[test]
    fn daemons_get_what_their_protocols_say() {
        let line = Line::new(Level::Warn, "a\nb", UNIX_EPOCH);
        let journal =
            b"PRIORITY=4\nSYSLOG_IDENTIFIER=kelson\nID\n\x01\0\0\0\0\0\0\0x\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert_eq!(line.journal("x", Format::Text), journal);
        let syslog = format!("<12>x[{}]: a\\nb", std::process::id());
        assert_eq!(line.syslog("x", Format::Text), syslog.into_bytes());
        assert!(String::from_utf8(line.syslog("x", Format::Json)).unwrap().contains("]: {\"level\":\"warning\""));
    }

    #[test]
    fn a_daemon_is_sent_a_datagram_and_its_absence_is_an_error() {
        let path = std::env::temp_dir().join(format!("kelson-log-socket-{}", std::process::id()));
        let daemon = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        assert!(send(path, b"x").unwrap());
        let mut buffer = [0; 8];
        assert_eq!(daemon.recv(&mut buffer).unwrap(), 1);
        std::fs::remove_file(path).unwrap();
        assert_eq!(send(path, b"x").unwrap_err().errno(), Some(Errno::ENOENT));
    }

    #[test]
    fn lines_are_those_of_runc() {
        let line = Line::new(Level::Warn, "a \"b\"\nc\u{1b}", UNIX_EPOCH);
        assert_eq!(line.text(), "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"a \\\"b\\\"\\nc\\u001b\"\n");
        assert_eq!(
            line.json(),
            "{\"level\":\"warning\",\"msg\":\"a \\\"b\\\"\\nc\\u001b\",\"time\":\"1970-01-01T00:00:00Z\"}\n"
        );
        assert_eq!(line.plain(), "kelson: warning: a \"b\"\\nc\\u{1b}\n");
    }

    #[test]
    fn the_final_error_carries_what_programs_want_to_know() {
        let failed: Result<()> = Err(Errno::EBUSY).property(|| "linux.resources.memory.limit").hint(|| "more memory");
        let error = failed.unwrap_err();
        let msg = error.to_string();
        let mut line = Line::new(Level::Error, &msg, UNIX_EPOCH);
        line.code = Some(error.kind().word());
        line.property = error.property();
        line.errno = error.errno().map(|errno| format!("{errno:?}"));
        line.hint = error.way_out();
        let read: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(read["code"], "system");
        assert_eq!(read["property"], "linux.resources.memory.limit");
        assert_eq!(read["errno"], "EBUSY");
        assert_eq!(read["hint"], "more memory");
        assert_eq!(line.plain(), format!("kelson: {msg}\n"));
    }

    #[test]
    fn a_file_is_made_by_the_first_line_and_appended_to() {
        let path = std::env::temp_dir().join(format!("kelson-log-{}", std::process::id()));
        let mut writer = Writer { target: Target::File(path.clone()), format: Format::Json };
        assert!(!path.exists());
        writer.write(&Line::new(Level::Warn, "one", UNIX_EPOCH));
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{}\n").unwrap();
        writer.write(&Line::new(Level::Warn, "two", UNIX_EPOCH));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let messages: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(messages.len(), 3);
        assert_eq!((&messages[0]["msg"], &messages[2]["msg"]), (&"one".into(), &"two".into()));
    }

    #[test]
    fn a_log_that_cannot_be_written_gives_way_to_standard_error() {
        let mut writer = Writer { target: Target::File("/nonexistent/log".into()), format: Format::Json };
        writer.write(&Line::new(Level::Warn, "this and why it is here are on standard error", UNIX_EPOCH));
        assert_eq!(writer.target, Target::Stderr);
    }

    #[test]
    fn the_command_line_outranks_the_environment() {
        for (level, debug, rust_log, most) in [
            (None, false, None, LevelFilter::Warn),
            (None, false, Some(""), LevelFilter::Warn),
            (None, false, Some("trace"), LevelFilter::Trace),
            (None, false, Some("kelson::cgroup=debug,error"), LevelFilter::Debug),
            (None, true, Some("error"), LevelFilter::Debug),
            (Some(LevelFilter::Error), false, Some("trace"), LevelFilter::Error),
            (Some(LevelFilter::Error), true, None, LevelFilter::Debug),
            (Some(LevelFilter::Trace), true, None, LevelFilter::Trace),
        ] {
            assert_eq!(Filter::new(level, debug, rust_log).most(), most, "{level:?} {debug} {rust_log:?}");
        }
    }
}
