//! The words of a command, and what is made of them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{Command, Create, Exec, Listing, Update, duration};
use crate::error::{Error, Result};
use crate::plan::LimitOptions;

/// Options and words of one command as they came; the builders take out what they know.
#[derive(Default)]
pub struct Words {
    pub options: Vec<(&'static str, OsString)>,
    pub operands: VecDeque<OsString>,
    pub rest: Vec<OsString>,
}

impl Words {
    /// All values of `long`, in order.
    pub fn all(&mut self, long: &str) -> Vec<OsString> {
        self.options.extract_if(.., |(name, _)| *name == long).map(|(_, value)| value).collect()
    }

    /// The value of `long`; the last one counts.
    pub fn last(&mut self, long: &str) -> Option<OsString> {
        self.all(long).pop()
    }

    pub fn is_set(&mut self, long: &str) -> bool {
        // The reader has stored nothing but these two words.
        self.last(long).is_some_and(|value| value == "true")
    }

    /// An empty path is as good as none, as in runc.
    pub fn path(&mut self, long: &str) -> Option<PathBuf> {
        self.last(long).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    pub fn text(&mut self, long: &'static str) -> Result<Option<String>> {
        self.last(long).map(|value| utf8(value, || format!("--{long}"))).transpose()
    }

    pub fn texts(&mut self, long: &'static str) -> Result<Vec<String>> {
        self.all(long).into_iter().map(|value| utf8(value, || format!("--{long}"))).collect()
    }

    pub fn operand(&mut self, what: &'static str) -> Result<Option<String>> {
        self.operands.pop_front().map(|word| utf8(word, || what.into())).transpose()
    }

    pub fn id(&mut self) -> Result<String> {
        // The reader has counted the operands.
        Ok(self.operand("container id")?.unwrap_or_default())
    }

    pub fn preserve_fds(&mut self) -> Result<u32> {
        let Some(text) = self.text("preserve-fds")? else { return Ok(0) };
        text.parse().map_err(|_| Error::usage(format!("--preserve-fds: {text:?} is not a number of descriptors")))
    }

    /// As [`Words::text`]; an empty one is as good as none, as in runc.
    pub fn given(&mut self, long: &'static str) -> Result<Option<String>> {
        Ok(self.text(long)?.filter(|text| !text.is_empty()))
    }

    fn number<N: std::str::FromStr>(&mut self, long: &'static str) -> Result<Option<N>> {
        let Some(text) = self.given(long)? else { return Ok(None) };
        let wrong = || Error::usage(format!("--{long}: {text:?} is not a number, or out of range"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    pub fn bytes(&mut self, long: &'static str) -> Result<Option<i64>> {
        let Some(text) = self.given(long)? else { return Ok(None) };
        let wrong = || Error::usage(format!("--{long}: {text:?} is not a size")).hint("bytes, 512k, 100M, 1G, or -1");
        bytes(&text).map(Some).ok_or_else(wrong)
    }

    /// `--interval`, which is more than 0.
    pub fn interval(&mut self, default: Duration) -> Result<Duration> {
        let Some(text) = self.text("interval")? else { return Ok(default) };
        match duration::parse(&text) {
            Some(Duration::ZERO) => Err(Error::usage("--interval: duration interval must be greater than 0")),
            Some(interval) => Ok(interval),
            None => Err(Error::usage(format!("--interval: {text:?} is not a duration"))
                .hint("a number and a unit: 500ms, 5s, 1m30s")),
        }
    }

    pub fn listing(&mut self) -> Result<Listing> {
        match self.text("format")?.as_deref() {
            None | Some("table" | "") => Ok(Listing::Table),
            Some("json") => Ok(Listing::Json),
            Some(other) => Err(Error::usage(format!("--format: unknown format {other:?}")).hint("table or json")),
        }
    }
}

pub fn create(words: &mut Words) -> Result<Create> {
    // Only a foreground run has orphans to adopt; crun takes the switch for create too.
    words.is_set("no-subreaper");
    Ok(Create {
        id: words.id()?,
        bundle: words.path("bundle").unwrap_or_else(|| ".".into()),
        config: words.path("config"),
        console_socket: words.path("console-socket"),
        pidfd_socket: words.path("pidfd-socket"),
        pid_file: words.path("pid-file"),
        no_pivot: words.is_set("no-pivot"),
        no_new_keyring: words.is_set("no-new-keyring"),
        preserve_fds: words.preserve_fds()?,
        overlay: words.is_set("overlay"),
    })
}

pub fn exec(words: &mut Words) -> Result<Command> {
    Ok(Command::Exec(Exec {
        id: words.id()?,
        console_socket: words.path("console-socket"),
        pidfd_socket: words.path("pidfd-socket"),
        pid_file: words.path("pid-file"),
        process: words.path("process"),
        cwd: words.path("cwd"),
        env: words.all("env"),
        tty: words.is_set("tty"),
        user: words.text("user")?,
        additional_gids: words.texts("additional-gids")?,
        detach: words.is_set("detach"),
        process_label: words.text("process-label")?.filter(|label| !label.is_empty()),
        apparmor: words.text("apparmor")?.filter(|profile| !profile.is_empty()),
        no_new_privs: words.is_set("no-new-privs"),
        cap: words.texts("cap")?,
        preserve_fds: words.preserve_fds()?,
        cgroup: words.texts("cgroup")?,
        ignore_paused: words.is_set("ignore-paused"),
        args: std::mem::take(&mut words.rest),
    }))
}

pub fn update(words: &mut Words) -> Result<Update> {
    for option in ["l3-cache-schema", "mem-bw-schema"] {
        if words.given(option)?.is_some() {
            return Err(Error::usage(format!("--{option}: Intel RDT is not supported")).hint("leave the option out"));
        }
    }
    let mut obsolete = vec![];
    for option in ["kernel-memory", "kernel-memory-tcp"] {
        obsolete.extend(words.given(option)?.map(|_| format!("--{option}")));
    }
    Ok(Update {
        id: words.id()?,
        resources: words.path("resources"),
        limits: LimitOptions {
            memory: words.bytes("memory")?,
            memory_reservation: words.bytes("memory-reservation")?,
            memory_swap: words.bytes("memory-swap")?,
            cpu_share: words.number("cpu-share")?,
            cpu_quota: words.number("cpu-quota")?,
            cpu_period: words.number("cpu-period")?,
            cpu_burst: words.number("cpu-burst")?,
            cpu_idle: words.number("cpu-idle")?,
            cpu_rt_period: words.number("cpu-rt-period")?,
            cpu_rt_runtime: words.number("cpu-rt-runtime")?,
            cpuset_cpus: words.given("cpuset-cpus")?,
            cpuset_mems: words.given("cpuset-mems")?,
            pids_limit: words.number("pids-limit")?,
            blkio_weight: words.number("blkio-weight")?,
        },
        obsolete,
    })
}

/// A size such as `100M`, `1.5G`, `512 KiB` or `1048576`, in units of 1024; `-1` is unlimited. As in docker/go-units
/// (RAMInBytes), with which runc reads it.
pub fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let exponent = match unit.chars().next() {
        None | Some('b') => 0,
        Some(letter) => 1 + "kmgtp".find(letter)? as u32,
    };
    if !["", "b", "ib"].contains(&if exponent == 0 { &*unit } else { &unit[1..] }) {
        return None;
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let factor = 1i64 << (10 * exponent);
    let part = format!("0.{fraction}0").parse::<f64>().ok()? * factor as f64;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    whole.checked_mul(factor)?.checked_add(part as i64)
}

pub fn utf8(word: OsString, what: impl FnOnce() -> String) -> Result<String> {
    word.into_string().map_err(|word| Error::usage(format!("{}: {word:?} is not valid UTF-8", what())))
}
