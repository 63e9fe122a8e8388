//! The words of a command, and what is made of them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{Bundle, Command, Commit, Create, Diff, Exec, Explain, Listing, Run, Update, duration, image};
use crate::error::{Context, Error, Result};
use crate::plan::LimitOptions;
use crate::units::bytes;

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

    /// As [`Words::is_set`]; `None` for one that was not given.
    pub fn switch(&mut self, long: &str) -> Option<bool> {
        self.last(long).map(|value| value == "true")
    }

    pub fn number<N: std::str::FromStr>(&mut self, long: &'static str) -> Result<Option<N>> {
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
        timings: words.path("timings"),
        program: OsString::new(),
    })
}

pub fn diff(words: &mut Words) -> Result<Command> {
    Ok(Command::Diff(Diff {
        subject: words.operands.pop_front().unwrap_or_default(),
        json: words.is_set("json"),
        store: store(words),
        program: OsString::new(),
    }))
}

pub fn commit(words: &mut Words) -> Result<Command> {
    Ok(Command::Commit(Commit {
        subject: words.operands.pop_front().unwrap_or_default(),
        commit: crate::image::changes::Commit {
            name: words.operand("name of an image")?.unwrap_or_default(),
            author: words.given("author")?,
            message: words.given("message")?,
            changes: words.texts("change")?,
        },
        pause: words.switch("pause"),
        unpack_limits: words.last("unpack-limits"),
        store: store(words),
        program: OsString::new(),
    }))
}

fn store(words: &mut Words) -> Option<PathBuf> {
    words.path("store").or_else(|| std::env::var_os("KELSON_STORE").filter(|dir| !dir.is_empty()).map(PathBuf::from))
}

pub fn run(words: &mut Words) -> Result<Command> {
    let image = words.last("image");
    let mut run = Run {
        detach: words.is_set("detach"),
        keep: words.is_set("keep"),
        no_subreaper: words.is_set("no-subreaper"),
        ..Run::default()
    };
    let Some(image) = image else {
        run.args = std::mem::take(&mut words.rest);
        run.create = create(words)?;
        image::refuse_without_image(words)?;
        return Ok(Command::Run(run));
    };
    for option in ["bundle", "config", "overlay"] {
        if words.last(option).is_some() {
            return Err(Error::usage(format!("--{option} and --image: the image is the bundle")));
        }
    }
    run.remove = words.is_set("rm");
    if run.remove && run.keep {
        return Err(Error::usage("--rm and --keep: one of them says what becomes of the container"));
    }
    let id = match words.given("name")? {
        Some(id) => id,
        None => made_up_id()?,
    };
    run.image = Some(Box::new(image::options(words, image)?));
    run.create = Create { id, ..create(words)? };
    Ok(Command::Run(run))
}

pub fn bundle(words: &mut Words) -> Result<Command> {
    let image = words.operands.pop_front().unwrap_or_default();
    let dir = words.operands.pop_front().unwrap_or_default().into();
    for option in ["name", "interactive", "rm"] {
        if words.last(option).is_some() {
            return Err(Error::usage(format!("--{option}: only a container that runs has it")));
        }
    }
    let unpack = words.is_set("unpack");
    Ok(Command::Bundle(Bundle {
        image: Box::new(image::options(words, image)?),
        dir,
        unpack,
        program: OsString::new(),
    }))
}

pub fn explain(words: &mut Words) -> Result<Command> {
    let image = words.last("image");
    let mut explain = Explain {
        id: words.operand("container id")?,
        bundle: words.path("bundle").unwrap_or_else(|| ".".into()),
        config: words.path("config"),
        overlay: words.is_set("overlay"),
        json: words.is_set("json"),
        image: None,
        program: OsString::new(),
    };
    match image {
        Some(image) => {
            explain.id = words.given("name")?;
            // Only a container that runs has it.
            words.last("rm");
            explain.image = Some(Box::new(image::options(words, image)?));
        }
        None => {
            image::refuse_without_image(words)?;
            if let Some(word) = words.rest.first() {
                return Err(Error::usage(format!("unexpected argument {word:?}")));
            }
        }
    }
    Ok(Command::Explain(explain))
}

/// Twelve hexadecimal digits, as docker's.
fn made_up_id() -> Result<String> {
    let mut bytes = [0; 6];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .doing(|| "make up an id for the container")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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
        timings: words.path("timings"),
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

pub fn utf8(word: OsString, what: impl FnOnce() -> String) -> Result<String> {
    word.into_string().map_err(|word| Error::usage(format!("{}: {word:?} is not valid UTF-8", what())))
}
