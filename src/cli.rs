//! argv to [`Invocation`], from one table: [`GLOBAL`] and [`COMMANDS`] give the parser, `help` and `CMD --help`.
//!
//! ```text
//! kelson [global options] COMMAND [options] ID [options]         as in runc: around the id
//! kelson [global options] exec|ps [options] ID [the process's or ps(1)'s words, verbatim]
//! kelson [global options] run [options] ID [options] [the process's words, verbatim]
//! ```
//!
//! The flags are the union of runc's and crun's; where they give one flag two meanings, runc's holds.

mod duration;

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use ::log::LevelFilter;

use crate::cgroup::Driver;
use crate::error::{Error, Result};
use crate::log::{Format, Target};
use crate::plan::LimitOptions;

/// A command line that was understood.
#[derive(Debug)]
pub struct Invocation {
    pub global: Global,
    pub command: Command,
}

/// A command line that was not; what was read of the global options still tells where the error is to be logged.
#[derive(Debug)]
pub struct Failure {
    pub global: Global,
    pub error: Error,
    /// 3 for an unknown command, 255 for an `exec` that names no program, otherwise 1 (as runc).
    pub exit_code: u8,
}

/// The options before the command.
#[derive(Debug)]
pub struct Global {
    /// `None`: the default for the caller.
    pub root: Option<PathBuf>,
    pub log: Target,
    pub log_format: Format,
    /// `None`: RUST_LOG decides, else warning.
    pub log_level: Option<LevelFilter>,
    pub debug: bool,
    pub driver: Driver,
    /// `None`: found out by looking.
    pub rootless: Option<bool>,
}

#[derive(Debug)]
pub enum Command {
    Create(Create),
    Run(Run),
    Start {
        id: String,
    },
    Exec(Exec),
    State {
        id: String,
        /// More than the specification has: how it ended.
        verbose: bool,
    },
    Kill(Kill),
    Delete(Delete),
    List(List),
    Ps(Ps),
    Events(Events),
    Top(Top),
    Pause {
        id: String,
    },
    Resume {
        id: String,
    },
    Update(Update),
    Wait {
        id: String,
        json: bool,
    },
    Spec(Spec),
    Features,
    /// Print [`version`].
    Version,
    /// Print this text.
    Help(String),
}

#[derive(Debug, Default)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    /// `None`: config.json in the bundle.
    pub config: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Counted after LISTEN_FDS.
    pub preserve_fds: u32,
    /// Put a private writable layer over the bundle's root filesystem.
    pub overlay: bool,
}

#[derive(Debug, Default)]
pub struct Run {
    pub create: Create,
    pub detach: bool,
    /// Do not delete the container after it ends.
    pub keep: bool,
    pub no_subreaper: bool,
    /// Replaces `process.args`; empty keeps them.
    pub args: Vec<OsString>,
}

#[derive(Debug, Default)]
pub struct Exec {
    pub id: String,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    /// File with the `process` object to run instead of `args`.
    pub process: Option<PathBuf>,
    pub cwd: Option<PathBuf>,
    /// As given, `KEY=value`.
    pub env: Vec<OsString>,
    pub tty: bool,
    /// `UID[:GID]`.
    pub user: Option<String>,
    pub additional_gids: Vec<String>,
    pub detach: bool,
    pub process_label: Option<String>,
    pub apparmor: Option<String>,
    pub no_new_privs: bool,
    pub cap: Vec<String>,
    pub preserve_fds: u32,
    /// `[CONTROLLER[,CONTROLLER]:]PATH` each.
    pub cgroup: Vec<String>,
    pub ignore_paused: bool,
    /// Empty only if there is a `process` file.
    pub args: Vec<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    /// 0 to 64; 0 only asks whether the process is there (kill(2)).
    pub signal: i32,
    pub all: bool,
    /// `id` is a regular expression.
    pub regex: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Delete {
    pub id: String,
    pub force: bool,
    /// `id` is a regular expression.
    pub regex: bool,
}

/// How `list` and `ps` print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    Table,
    Json,
}

#[derive(Debug, PartialEq, Eq)]
pub struct List {
    pub format: Listing,
    /// Ids only.
    pub quiet: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Ps {
    pub id: String,
    pub format: Listing,
    /// Options for ps(1).
    pub args: Vec<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Update {
    pub id: String,
    /// File with a resources object; `-` is standard input.
    pub resources: Option<PathBuf>,
    /// Win over what the file says.
    pub limits: LimitOptions,
    /// Options that were given and do nothing.
    pub obsolete: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Events {
    pub id: String,
    /// More than 0.
    pub interval: Duration,
    /// One line of statistics and no more.
    pub stats: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Top {
    /// More than 0.
    pub interval: Duration,
    /// After one interval the end.
    pub once: bool,
    pub json: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    pub bundle: Option<PathBuf>,
    pub rootless: bool,
    /// Instead of config.json.
    pub file: Option<PathBuf>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            root: None,
            log: Target::Stderr,
            log_format: Format::Text,
            log_level: None,
            debug: false,
            driver: Driver::Cgroupfs,
            rootless: None,
        }
    }
}

impl Command {
    /// The exit code when the command fails: 255 for exec, so that it differs from what the program returns, else 1.
    pub fn failure_code(&self) -> u8 {
        if matches!(self, Command::Exec(_)) { 255 } else { 1 }
    }
}

/// What an option takes.
#[derive(Clone, Copy)]
enum Takes {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// A value, called so in the help.
    Value(&'static str),
}

struct Opt {
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    /// Empty for one that only old callers give, and that no help shows.
    help: &'static str,
}

/// What follows the last word that the command reads itself.
#[derive(Clone, Copy, PartialEq)]
enum Rest {
    /// One word more is an error; options are taken anywhere.
    Refused,
    /// All belongs to another program, options too.
    Verbatim,
    /// Options are still ours; from the first other word on, all belongs to another program.
    VerbatimAfterOptions,
}

/// The words of a command that are not options.
struct Operands {
    /// As the usage line shows them.
    usage: &'static str,
    required: usize,
    most: usize,
    rest: Rest,
}

struct Entry {
    name: &'static str,
    summary: &'static str,
    /// A paragraph for `help CMD`; may be empty.
    about: &'static str,
    operands: Operands,
    options: &'static [&'static Opt],
    build: fn(&mut Words) -> Result<Command>,
}

const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Opt {
    Opt { long, short, takes: Takes::Switch, help }
}

const fn value(long: &'static str, short: Option<char>, what: &'static str, help: &'static str) -> Opt {
    Opt { long, short, takes: Takes::Value(what), help }
}

const HELP: Opt = switch("help", Some('h'), "show this help");

const GLOBAL: &[&Opt] = &[
    &value(
        "root",
        None,
        "DIR",
        "directory of the containers' states (default: /run/kelson, or $XDG_RUNTIME_DIR/kelson)",
    ),
    &value("log", None, "FILE", "append log lines to FILE, or to journald:ID or syslog:ID (default: standard error)"),
    &value("log-format", None, "text|json", "format of the log lines (default: text)"),
    &value("log-level", None, "LEVEL", "error, warning, info, debug or trace (default: $RUST_LOG, or warning)"),
    &switch("debug", None, "the same as --log-level debug"),
    &value(
        "cgroup-manager",
        None,
        "NAME",
        "cgroupfs makes a cgroup, systemd a unit, disabled makes none (default: cgroupfs)",
    ),
    &switch("systemd-cgroup", None, "short for --cgroup-manager systemd"),
    &value("rootless", None, "BOOL", "true, false or auto: whether the caller lacks root's privileges (default: auto)"),
    &HELP,
    &switch("version", Some('v'), "print the version"),
];

const BUNDLE: Opt = value("bundle", Some('b'), "DIR", "directory with config.json and root filesystem (default: .)");
const CONFIG: Opt = value("config", Some('f'), "FILE", "read FILE instead of the bundle's config.json");
const CONSOLE_SOCKET: Opt =
    value("console-socket", None, "SOCKET", "unix socket that receives the terminal's descriptor");
const PIDFD_SOCKET: Opt = value("pidfd-socket", None, "SOCKET", "unix socket that receives a pidfd of the process");
const PID_FILE: Opt = value("pid-file", None, "FILE", "write the process id to FILE");
const NO_PIVOT: Opt =
    switch("no-pivot", None, "do not use pivot_root(2): for a root filesystem on the initial ramdisk");
const NO_NEW_KEYRING: Opt = switch("no-new-keyring", None, "keep the caller's session keyring");
const PRESERVE_FDS: Opt =
    value("preserve-fds", None, "N", "pass N descriptors more than stdio and $LISTEN_FDS (default: 0)");
const NO_SUBREAPER: Opt = switch("no-subreaper", None, "do not become the parent of orphaned processes");
const OVERLAY: Opt = switch("overlay", None, "put a private writable layer over the root filesystem");
const DETACH: Opt = switch("detach", Some('d'), "return as soon as the process runs");
const FORMAT: Opt = value("format", Some('f'), "table|json", "how to print (default: table)");

const CREATE_OPTIONS: &[&Opt] = &[
    &BUNDLE,
    &CONFIG,
    &CONSOLE_SOCKET,
    &PIDFD_SOCKET,
    &PID_FILE,
    &NO_PIVOT,
    &NO_NEW_KEYRING,
    &PRESERVE_FDS,
    &NO_SUBREAPER,
    &OVERLAY,
];

const ID: Operands = Operands { usage: "ID", required: 1, most: 1, rest: Rest::Refused };
const NOTHING: Operands = Operands { usage: "", required: 0, most: 0, rest: Rest::Refused };

const COMMANDS: &[Entry] = &[
    Entry {
        name: "create",
        summary: "make a container from a bundle, not yet running its program",
        about: "ID is a new name: letters, digits, _ + . and -.",
        operands: ID,
        options: CREATE_OPTIONS,
        build: |words| Ok(Command::Create(create(words)?)),
    },
    Entry {
        name: "start",
        summary: "run the program of a created container",
        about: "",
        operands: ID,
        options: &[],
        build: |words| Ok(Command::Start { id: words.id()? }),
    },
    Entry {
        name: "run",
        summary: "create and start a container, wait for its end and delete it",
        about: "ARGS replace process.args of config.json. The exit code is that of the program, or 128 and the number\n\
                of the signal that ended it.",
        operands: Operands { usage: "ID [ARGS...]", required: 1, most: 1, rest: Rest::VerbatimAfterOptions },
        options: &[
            &BUNDLE,
            &CONFIG,
            &CONSOLE_SOCKET,
            &PIDFD_SOCKET,
            &PID_FILE,
            &NO_PIVOT,
            &NO_NEW_KEYRING,
            &PRESERVE_FDS,
            &NO_SUBREAPER,
            &OVERLAY,
            &DETACH,
            &switch("keep", None, "do not delete the container after it ends"),
        ],
        build: |words| {
            Ok(Command::Run(Run {
                detach: words.is_set("detach"),
                keep: words.is_set("keep"),
                no_subreaper: words.is_set("no-subreaper"),
                args: std::mem::take(&mut words.rest),
                create: create(words)?,
            }))
        },
    },
    Entry {
        name: "exec",
        summary: "run another program in a running container",
        about: "What follows ID belongs to the program. The exit code is the program's, or 255 if it could not be run.",
        operands: Operands { usage: "ID COMMAND [ARGS...]", required: 1, most: 1, rest: Rest::Verbatim },
        options: &[
            &value("process", Some('p'), "FILE", "read the process object from FILE, in place of COMMAND"),
            &value("cwd", None, "DIR", "working directory in the container"),
            &value("env", Some('e'), "KEY=VALUE", "set an environment variable (repeatable)"),
            &switch("tty", Some('t'), "give it a terminal"),
            &value("user", Some('u'), "UID[:GID]", "run as this user"),
            &value("additional-gids", Some('g'), "GID", "add a supplementary group (repeatable)"),
            &DETACH,
            &CONSOLE_SOCKET,
            &PIDFD_SOCKET,
            &PID_FILE,
            &value("process-label", None, "LABEL", "SELinux label of the process"),
            &value("apparmor", None, "PROFILE", "AppArmor profile of the process"),
            &switch("no-new-privs", None, "set no_new_privs"),
            &value("cap", Some('c'), "NAME", "add a capability (repeatable)"),
            &PRESERVE_FDS,
            &value("cgroup", None, "[CTRL:]PATH", "run it in this existing cgroup below the container's (repeatable)"),
            &switch("ignore-paused", None, "also when the container is paused"),
        ],
        build: exec,
    },
    Entry {
        name: "state",
        summary: "print the state of a container as JSON",
        about: "",
        operands: ID,
        options: &[&switch("verbose", None, "of one that has stopped also how it ended, and why")],
        build: |words| Ok(Command::State { id: words.id()?, verbose: words.is_set("verbose") }),
    },
    Entry {
        name: "kill",
        summary: "send a signal to a container",
        about: "SIGNAL is a name, with or without SIG, or a number (default: TERM).",
        operands: Operands { usage: "ID [SIGNAL]", required: 1, most: 2, rest: Rest::Refused },
        options: &[
            &switch("all", Some('a'), "to every process of the container"),
            &switch("regex", Some('r'), "ID is a regular expression: to every container that it matches"),
        ],
        build: |words| {
            Ok(Command::Kill(Kill {
                id: words.id()?,
                signal: words.operand("signal")?.map_or(Ok(libc::SIGTERM), |name| signal(&name))?,
                all: words.is_set("all"),
                regex: words.is_set("regex"),
            }))
        },
    },
    Entry {
        name: "delete",
        summary: "remove what create made for a container that does not run",
        about: "",
        operands: ID,
        options: &[
            &switch("force", Some('f'), "kill a running container first; none with this id is no error"),
            &switch("regex", Some('r'), "ID is a regular expression: delete every container that it matches"),
        ],
        build: |words| {
            Ok(Command::Delete(Delete { id: words.id()?, force: words.is_set("force"), regex: words.is_set("regex") }))
        },
    },
    Entry {
        name: "list",
        summary: "list the containers below --root",
        about: "",
        operands: NOTHING,
        options: &[&FORMAT, &switch("quiet", Some('q'), "print ids only")],
        build: |words| Ok(Command::List(List { format: words.listing()?, quiet: words.is_set("quiet") })),
    },
    Entry {
        name: "ps",
        summary: "list the processes of a container",
        about: "What follows ID are options for ps(1) (default: -ef).",
        operands: Operands { usage: "ID [PS OPTIONS...]", required: 1, most: 1, rest: Rest::Verbatim },
        options: &[&FORMAT],
        build: |words| {
            Ok(Command::Ps(Ps { id: words.id()?, format: words.listing()?, args: std::mem::take(&mut words.rest) }))
        },
    },
    Entry {
        name: "events",
        summary: "print what a container uses, and when it is out of memory, as JSON",
        about: "A line of statistics at each interval and one for each time that a process is killed for memory, until the\n\
                container ends. DURATION is a number and a unit: 500ms, 5s, 1m30s.",
        operands: ID,
        options: &[
            &value("interval", None, "DURATION", "time between statistics (default: 5s)"),
            &switch("stats", None, "print the statistics once"),
        ],
        build: |words| {
            let interval = words.interval(Duration::from_secs(5))?;
            Ok(Command::Events(Events { id: words.id()?, interval, stats: words.is_set("stats") }))
        },
    },
    Entry {
        name: "top",
        summary: "show what the containers below --root use, the busiest first",
        about: "CPU time and rates are of the interval before. On a terminal the table is drawn anew at each interval, until q\n\
                or Ctrl-C; otherwise it is printed again.",
        operands: NOTHING,
        options: &[
            &value("interval", None, "DURATION", "time that is measured (default: 1s)"),
            &switch("once", None, "print it once, after one interval"),
            &switch("json", None, "print a line of JSON at each interval"),
        ],
        build: |words| {
            let interval = words.interval(Duration::from_secs(1))?;
            Ok(Command::Top(Top { interval, once: words.is_set("once"), json: words.is_set("json") }))
        },
    },
    Entry {
        name: "pause",
        summary: "stop all processes of a container for a while",
        about: "",
        operands: ID,
        options: &[],
        build: |words| Ok(Command::Pause { id: words.id()? }),
    },
    Entry {
        name: "resume",
        summary: "let the processes of a paused container go on",
        about: "",
        operands: ID,
        options: &[],
        build: |words| Ok(Command::Resume { id: words.id()? }),
    },
    Entry {
        name: "update",
        summary: "change the limits of a container",
        about: "All limits are set, or none if one of them cannot be. BYTES may end in k, M, G, T or P (of 1024); -1 is\n\
                unlimited; 0 leaves memory, weights, quotas and periods as they are. FILE has an object such as\n\
                linux.resources of config.json; an option wins over what it says. Device rules stay as they are.",
        operands: ID,
        options: &[
            &value("resources", Some('r'), "FILE", "read limits as JSON from FILE, or - for standard input"),
            &value("memory", None, "BYTES", "memory"),
            &value("memory-reservation", None, "BYTES", "memory that is left to it when the host runs short"),
            &value("memory-swap", None, "BYTES", "memory and swap together"),
            &value("cpu-share", None, "N", "weight beside other containers (1024 is usual)"),
            &value("cpu-quota", None, "USEC", "CPU time in a period (-1: unlimited)"),
            &value("cpu-period", None, "USEC", "length of a period"),
            &value("cpu-burst", None, "USEC", "CPU time saved in one period that another may use"),
            &value("cpu-idle", None, "0|1", "1: only while nothing else wants the CPU (SCHED_IDLE)"),
            &value("cpu-rt-period", None, "USEC", "length of a period of real-time scheduling"),
            &value("cpu-rt-runtime", None, "USEC", "real-time CPU time in such a period"),
            &value("cpuset-cpus", None, "LIST", "CPUs, such as 0-2,7"),
            &value("cpuset-mems", None, "LIST", "memory nodes"),
            &value("pids-limit", None, "N", "processes and threads (-1: unlimited)"),
            &value("blkio-weight", None, "N", "weight of block I/O, 10 to 1000"),
            &value("l3-cache-schema", None, "SCHEMA", "not supported (Intel RDT)"),
            &value("mem-bw-schema", None, "SCHEMA", "not supported (Intel RDT)"),
            &value("kernel-memory", None, "BYTES", ""),
            &value("kernel-memory-tcp", None, "BYTES", ""),
        ],
        build: |words| Ok(Command::Update(update(words)?)),
    },
    Entry {
        name: "wait",
        summary: "wait for the end of a container and print its exit code",
        about: "Prints the exit code of the container's process, or 128 and the number of the signal that ended it. If that\n\
                cannot be known it prints why, and fails with exit code 1. Also for a container that another process reaps.",
        operands: ID,
        options: &[&switch("json", None, "print JSON, with the reason")],
        build: |words| Ok(Command::Wait { id: words.id()?, json: words.is_set("json") }),
    },
    Entry {
        name: "spec",
        summary: "write a config.json to start from",
        about: "",
        operands: NOTHING,
        options: &[
            &value("bundle", Some('b'), "DIR", "directory to write to (default: .)"),
            &switch("rootless", None, "for a user without root's privileges"),
            &value("file", Some('f'), "FILE", "write FILE instead of config.json"),
        ],
        build: |words| {
            Ok(Command::Spec(Spec {
                bundle: words.path("bundle"),
                rootless: words.is_set("rootless"),
                file: words.path("file"),
            }))
        },
    },
    Entry {
        name: "features",
        summary: "print what this runtime supports as JSON",
        about: "",
        operands: NOTHING,
        options: &[],
        build: |_| Ok(Command::Features),
    },
];

/// Commands of runc, crun or engines that do not exist yet; to accept even their `--help` would claim support (podman's
/// probe for checkpoint looks at the exit code of `checkpoint --help`).
const NOT_YET: &[&str] = &["checkpoint", "info", "mounts", "restore"];

/// Options and words of one command as they came; the builders take out what they know.
#[derive(Default)]
struct Words {
    options: Vec<(&'static str, OsString)>,
    operands: std::collections::VecDeque<OsString>,
    rest: Vec<OsString>,
}

impl Words {
    /// All values of `long`, in order.
    fn all(&mut self, long: &str) -> Vec<OsString> {
        self.options.extract_if(.., |(name, _)| *name == long).map(|(_, value)| value).collect()
    }

    /// The value of `long`; the last one counts.
    fn last(&mut self, long: &str) -> Option<OsString> {
        self.all(long).pop()
    }

    fn is_set(&mut self, long: &str) -> bool {
        // The reader has stored nothing but these two words.
        self.last(long).is_some_and(|value| value == "true")
    }

    /// An empty path is as good as none, as in runc.
    fn path(&mut self, long: &str) -> Option<PathBuf> {
        self.last(long).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn text(&mut self, long: &'static str) -> Result<Option<String>> {
        self.last(long).map(|value| utf8(value, || format!("--{long}"))).transpose()
    }

    fn texts(&mut self, long: &'static str) -> Result<Vec<String>> {
        self.all(long).into_iter().map(|value| utf8(value, || format!("--{long}"))).collect()
    }

    fn operand(&mut self, what: &'static str) -> Result<Option<String>> {
        self.operands.pop_front().map(|word| utf8(word, || what.into())).transpose()
    }

    fn id(&mut self) -> Result<String> {
        // The reader has counted the operands.
        Ok(self.operand("container id")?.unwrap_or_default())
    }

    fn preserve_fds(&mut self) -> Result<u32> {
        let Some(text) = self.text("preserve-fds")? else { return Ok(0) };
        text.parse().map_err(|_| Error::usage(format!("--preserve-fds: {text:?} is not a number of descriptors")))
    }

    /// As [`Words::text`]; an empty one is as good as none, as in runc.
    fn given(&mut self, long: &'static str) -> Result<Option<String>> {
        Ok(self.text(long)?.filter(|text| !text.is_empty()))
    }

    fn number<N: std::str::FromStr>(&mut self, long: &'static str) -> Result<Option<N>> {
        let Some(text) = self.given(long)? else { return Ok(None) };
        let wrong = || Error::usage(format!("--{long}: {text:?} is not a number, or out of range"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    fn bytes(&mut self, long: &'static str) -> Result<Option<i64>> {
        let Some(text) = self.given(long)? else { return Ok(None) };
        let wrong = || Error::usage(format!("--{long}: {text:?} is not a size")).hint("bytes, 512k, 100M, 1G, or -1");
        bytes(&text).map(Some).ok_or_else(wrong)
    }

    /// `--interval`, which is more than 0.
    fn interval(&mut self, default: Duration) -> Result<Duration> {
        let Some(text) = self.text("interval")? else { return Ok(default) };
        match duration::parse(&text) {
            Some(Duration::ZERO) => Err(Error::usage("--interval: duration interval must be greater than 0")),
            Some(interval) => Ok(interval),
            None => Err(Error::usage(format!("--interval: {text:?} is not a duration"))
                .hint("a number and a unit: 500ms, 5s, 1m30s")),
        }
    }

    fn listing(&mut self) -> Result<Listing> {
        match self.text("format")?.as_deref() {
            None | Some("table" | "") => Ok(Listing::Table),
            Some("json") => Ok(Listing::Json),
            Some(other) => Err(Error::usage(format!("--format: unknown format {other:?}")).hint("table or json")),
        }
    }
}

fn create(words: &mut Words) -> Result<Create> {
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

fn exec(words: &mut Words) -> Result<Command> {
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

fn update(words: &mut Words) -> Result<Update> {
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
fn bytes(text: &str) -> Option<i64> {
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

fn utf8(word: OsString, what: impl FnOnce() -> String) -> Result<String> {
    word.into_string().map_err(|word| Error::usage(format!("{}: {word:?} is not valid UTF-8", what())))
}

/// Reads a command line, without argv[0].
///
/// # Errors
/// The command line is wrong, or asks for something that does not exist yet.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, Box<Failure>> {
    let mut reader = Reader { parser: lexopt::Parser::from_args(args), is_past_options: false };
    let mut global = Global::default();
    match read(&mut reader, &mut global) {
        Ok(command) => Ok(Invocation { global, command }),
        Err((error, exit_code)) => Err(Box::new(Failure { global, error, exit_code })),
    }
}

/// An error and its exit code.
type Refusal = (Error, u8);

fn usage(error: Error) -> Refusal {
    (error, 1)
}

/// The global options, then the command.
fn read(reader: &mut Reader, global: &mut Global) -> Result<Command, Refusal> {
    loop {
        match reader.next(GLOBAL).map_err(usage)? {
            None => return Ok(Command::Help(overview())),
            Some(Word::Operand(name)) => return command(reader, &name),
            Some(Word::Option(name)) => {
                let (long, value) = option(&mut reader.parser, GLOBAL, &name)
                    .and_then(|found| found.ok_or_else(|| unknown_option(&name)))
                    .map_err(usage)?;
                match long {
                    "help" => return Ok(Command::Help(overview())),
                    "version" => return Ok(Command::Version),
                    _ => set_global(global, long, value).map_err(usage)?,
                }
            }
        }
    }
}

fn set_global(global: &mut Global, long: &str, value: OsString) -> Result<()> {
    // A path need not be UTF-8; all other values are words of ours.
    let word = value.to_string_lossy().into_owned();
    match long {
        "root" if word == "/" => return Err(Error::usage("--root: / cannot hold the containers' states")),
        "root" => global.root = Some(PathBuf::from(value)).filter(|root| !root.as_os_str().is_empty()),
        "log" => global.log = Target::parse(value),
        "log-format" => global.log_format = Format::parse(&word)?,
        "log-level" => global.log_level = crate::log::parse_level(&word)?,
        "debug" => global.debug = word == "true",
        "cgroup-manager" => {
            global.driver = match word.as_str() {
                "cgroupfs" => Driver::Cgroupfs,
                "disabled" => Driver::None,
                "systemd" => Driver::Systemd,
                other => {
                    return Err(Error::usage(format!("--cgroup-manager: unknown cgroup manager {other:?}"))
                        .hint("cgroupfs, systemd or disabled"));
                }
            }
        }
        "systemd-cgroup" if word == "true" => global.driver = Driver::Systemd,
        "rootless" => {
            global.rootless = match word.as_str() {
                "auto" | "" => None,
                _ => Some(
                    boolean(&word)
                        .ok_or_else(|| Error::usage(format!("--rootless: {word:?} is not true, false or auto")))?,
                ),
            }
        }
        _ => {}
    }
    Ok(())
}

/// The options and words of the command called `name`.
fn command(reader: &mut Reader, name: &OsString) -> Result<Command, Refusal> {
    if name == "help" {
        return help(reader);
    }
    let entry = find(name)?;
    let mut words = Words::default();
    let mut reading_own_words = true;
    while reading_own_words && let Some(word) = reader.next(entry.options).map_err(usage)? {
        match word {
            Word::Operand(word) if words.operands.len() < entry.operands.most => {
                words.operands.push_back(word);
                reading_own_words = words.operands.len() < entry.operands.most || entry.operands.rest != Rest::Verbatim;
            }
            Word::Operand(word) if entry.operands.rest == Rest::VerbatimAfterOptions => {
                words.rest.push(word);
                reading_own_words = false;
            }
            Word::Operand(word) => {
                return Err(usage(Error::usage(format!("unexpected argument {word:?}")).hint(usage_line(entry))));
            }
            Word::Option(name) => {
                let found = option(&mut reader.parser, entry.options, &name).map_err(usage)?;
                match found {
                    Some(found) => words.options.push(found),
                    None if name.matches(&HELP) => return Ok(Command::Help(command_help(entry))),
                    None => return Err(usage(unknown_option(&name))),
                }
            }
        }
    }
    if !reading_own_words {
        let rest = reader.parser.raw_args().map_err(|error| usage(syntax(error)))?;
        // As getopt(3) does it: `exec ID -- ls` runs ls.
        let mut rest = rest.peekable();
        if words.rest.is_empty() {
            rest.next_if(|word| word == "--");
        }
        words.rest.extend(rest);
    }
    if words.operands.len() < entry.operands.required {
        return Err(usage(
            Error::usage(format!("{:?} requires an argument: the container's id", entry.name)).hint(usage_line(entry)),
        ));
    }
    match (entry.build)(&mut words).map_err(usage)? {
        Command::Exec(exec) if exec.args.is_empty() && exec.process.is_none() => {
            Err((Error::usage("exec args cannot be empty").hint(usage_line(entry)), 255))
        }
        command => Ok(command),
    }
}

fn help(reader: &mut Reader) -> Result<Command, Refusal> {
    match reader.next(&[]).map_err(usage)? {
        None => Ok(Command::Help(overview())),
        Some(Word::Operand(name)) => Ok(Command::Help(command_help(find(&name)?))),
        Some(Word::Option(name)) if name.matches(&HELP) => Ok(Command::Help(overview())),
        Some(Word::Option(name)) => Err(usage(unknown_option(&name))),
    }
}

fn find(name: &OsString) -> Result<&'static Entry, Refusal> {
    if let Some(entry) = COMMANDS.iter().find(|entry| name == entry.name) {
        return Ok(entry);
    }
    if NOT_YET.iter().any(|known| name == known) {
        return Err(usage(Error::usage(format!("the command {name:?} is not supported yet"))));
    }
    Err((Error::usage(format!("unknown command {name:?}")).hint("kelson help lists the commands"), 3))
}

/// The name of an option as it was written.
enum Name {
    Short(char),
    Long(String),
}

impl Name {
    fn matches(&self, opt: &Opt) -> bool {
        match self {
            // crun and argp call it -?, crun also has -V.
            Name::Short('?') => opt.long == "help",
            Name::Short('V') => opt.long == "version",
            Name::Short(short) => opt.short == Some(*short),
            // argp, too.
            Name::Long(long) if long == "usage" => opt.long == "help",
            Name::Long(long) => opt.long == long,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Short(short) => write!(f, "-{short}"),
            Name::Long(long) => write!(f, "--{long}"),
        }
    }
}

enum Word {
    Option(Name),
    Operand(OsString),
}

struct Reader {
    parser: lexopt::Parser,
    /// `--` came: what follows are words.
    is_past_options: bool,
}

impl Reader {
    /// The next word, where `options` may come. As in runc one dash before a long name is as good as two (Go's flag package).
    fn next(&mut self, options: &[&Opt]) -> Result<Option<Word>> {
        if !self.is_past_options
            && let Some(mut rest) = self.parser.try_raw_args()
            && let Some(word) = rest.peek()
        {
            self.is_past_options = word == "--";
            if is_long_after_one_dash(word, options) {
                let mut doubled = OsString::from("-");
                doubled.push(rest.next().unwrap_or_default());
                self.parser = lexopt::Parser::from_args(std::iter::once(doubled).chain(rest).collect::<Vec<_>>());
            }
        }
        Ok(self.parser.next().map_err(syntax)?.map(|arg| match arg {
            lexopt::Arg::Short(short) => Word::Option(Name::Short(short)),
            lexopt::Arg::Long(long) => Word::Option(Name::Long(long.into())),
            lexopt::Arg::Value(word) => Word::Operand(word),
        }))
    }
}

/// `-bundle` or `-bundle=DIR`.
fn is_long_after_one_dash(word: &OsStr, options: &[&Opt]) -> bool {
    let Some(name) = word.to_str().and_then(|word| word.strip_prefix('-')) else { return false };
    let name = name.split('=').next().unwrap_or_default();
    options.iter().any(|opt| opt.long == name) || ["help", "usage"].contains(&name)
}

/// The option called `name` among `options` and its value; `None` if it is not among them.
fn option(
    parser: &mut lexopt::Parser,
    options: &[&'static Opt],
    name: &Name,
) -> Result<Option<(&'static str, OsString)>> {
    let Some(opt) = options.iter().find(|opt| name.matches(opt)) else { return Ok(None) };
    let value = match opt.takes {
        // podman looks for these words (its probe of restore), runc writes them.
        Takes::Value(_) => parser.value().map_err(|_| Error::usage(format!("flag needs an argument: {name}")))?,
        Takes::Switch => match name {
            // A letter may have other letters behind it: -dt.
            Name::Short(_) => "true".into(),
            Name::Long(_) => match parser.optional_value() {
                None => "true".into(),
                Some(value) => match boolean(&value.to_string_lossy()) {
                    Some(true) => "true".into(),
                    Some(false) => "false".into(),
                    None => return Err(Error::usage(format!("{name}: {value:?} is neither true nor false"))),
                },
            },
        },
    };
    Ok(Some((opt.long, value)))
}

fn unknown_option(name: &Name) -> Error {
    let error = Error::usage(format!("unknown option {name}"));
    match GLOBAL.iter().any(|opt| name.matches(opt)) {
        true => error.hint("a global option: put it before the command"),
        false => error,
    }
}

fn syntax(error: lexopt::Error) -> Error {
    Error::usage(error.to_string())
}

/// The words that Go's flag package takes (strconv.ParseBool).
fn boolean(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Names of signal(7) without SIG; the synonyms follow the usual names.
const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("IOT", libc::SIGABRT),
    ("CLD", libc::SIGCHLD),
    ("POLL", libc::SIGIO),
];

/// The number of the signal that `name` means: `TERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-1`.
fn signal(name: &str) -> Result<i32> {
    let unknown = || Error::usage(format!("unknown signal {name:?}"));
    // 64 is the kernel's _NSIG on every architecture but MIPS; 0 is kill(2)'s question.
    // 34 is where they begin for kill(1) and every program with glibc, which keeps the kernel's first two to itself.
    let (first_real_time, last) = (34, 64);
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().ok().filter(|number| (0..=last).contains(number)).ok_or_else(unknown);
    }
    let upper = name.to_ascii_uppercase();
    let upper = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == upper) {
        return Ok(*number);
    }
    // The digits alone: i32::from_str would take another sign.
    let offset = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let number = match (upper.strip_prefix("RTMIN"), upper.strip_prefix("RTMAX")) {
        (Some(""), _) => Some(first_real_time),
        (_, Some("")) => Some(last),
        (Some(rest), _) => rest.strip_prefix('+').and_then(offset).and_then(|n: i32| first_real_time.checked_add(n)),
        (_, Some(rest)) => rest.strip_prefix('-').and_then(offset).and_then(|n: i32| last.checked_sub(n)),
        (None, None) => None,
    };
    number.filter(|number| (first_real_time..=last).contains(number)).ok_or_else(unknown)
}

/// What `--version` prints: the lines that engines read (go-runc, moby) and crun's `spec:`.
pub fn version() -> String {
    format!(
        "kelson version {}\ncommit: {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        crate::lifecycle::features::COMMIT,
        crate::plan::OCI_VERSION
    )
}

fn usage_line(entry: &Entry) -> String {
    let options = if entry.options.is_empty() { "" } else { " [options]" };
    let gap = if entry.operands.usage.is_empty() { "" } else { " " };
    format!("kelson {}{options}{gap}{}", entry.name, entry.operands.usage)
}

fn overview() -> String {
    let mut text = String::from(
        "kelson runs containers from OCI bundles: directories with a config.json and a root filesystem.\n\n\
         Usage: kelson [global options] COMMAND [options] [ID]\n\nCommands:\n",
    );
    let rows = COMMANDS.iter().map(|entry| (entry.name.into(), entry.summary)).collect();
    columns(&mut text, rows);
    text.push_str("  help COMMAND tells the options of one of them\n\nGlobal options:\n");
    columns(&mut text, GLOBAL.iter().map(|opt| (spelling(opt), opt.help)).collect());
    text
}

fn command_help(entry: &Entry) -> String {
    let mut text = format!("kelson {}: {}\n\nUsage: {}\n", entry.name, entry.summary, usage_line(entry));
    if !entry.about.is_empty() {
        text.push('\n');
        text.push_str(entry.about);
        text.push('\n');
    }
    text.push_str("\nOptions:\n");
    let options = entry.options.iter().copied().filter(|opt| !opt.help.is_empty()).chain([&HELP]);
    columns(&mut text, options.map(|opt| (spelling(opt), opt.help)).collect());
    text
}

/// `-b, --bundle DIR`
fn spelling(opt: &Opt) -> String {
    let mut text = match opt.short {
        Some(short) => format!("-{short}, --{}", opt.long),
        None => format!("    --{}", opt.long),
    };
    if let Takes::Value(what) = opt.takes {
        text.push(' ');
        text.push_str(what);
    }
    text
}

fn columns(text: &mut String, rows: Vec<(String, &str)>) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (left, right) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {left:width$}  {right}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split_whitespace().map(OsString::from).collect::<Vec<_>>().into_iter()
    }

    fn parsed(line: &str) -> Invocation {
        parse(words(line)).unwrap_or_else(|failure| panic!("{line}: {}", failure.error))
    }

    fn refused(line: &str) -> (String, u8) {
        match parse(words(line)) {
            Ok(invocation) => panic!("{line}: {invocation:?}"),
            Err(failure) => (failure.error.to_string(), failure.exit_code),
        }
    }

    #[test]
    fn what_conmon_sends() {
        let found = parsed(
            "--log-format=json --log=/l --cgroup-manager disabled --root /r --debug create --bundle /b --pid-file /p \
             --no-pivot --no-new-keyring --preserve-fds 2 --console-socket /s web",
        );
        assert_eq!(found.global.root, Some("/r".into()));
        assert_eq!(found.global.log, Target::File("/l".into()));
        assert_eq!(found.global.log_format, Format::Json);
        assert!(matches!(found.global.driver, Driver::None));
        assert!(found.global.debug);
        let Command::Create(create) = found.command else { panic!() };
        assert_eq!((create.id.as_str(), create.bundle.to_str(), create.preserve_fds), ("web", Some("/b"), 2));
        assert_eq!((create.pid_file, create.console_socket), (Some("/p".into()), Some("/s".into())));
        assert!(create.no_pivot && create.no_new_keyring && !create.overlay);
    }

    #[test]
    fn what_containerd_sends() {
        for (value, rootless) in [("=true", Some(true)), ("=false", Some(false)), (" auto", None)] {
            let found = parsed(&format!("--root=/r --log f --log-format json --rootless{value} kill --all web 9"));
            assert_eq!(found.global.rootless, rootless);
            let kill = Kill { id: "web".into(), signal: 9, all: true, regex: false };
            assert!(matches!(found.command, Command::Kill(found) if found == kill));
        }
        let Command::Ps(ps) = parsed("ps --format json web").command else { panic!() };
        assert_eq!((ps.id.as_str(), ps.format, ps.args.len()), ("web", Listing::Json, 0));
        assert!(matches!(parsed("--systemd-cgroup=false list --format=json").command, Command::List(_)));
    }

    #[test]
    fn events_every_five_seconds_or_once() {
        for (line, seconds, stats) in [
            ("events web", 5, false),
            ("events --interval=5s web", 5, false),
            ("events web -interval 1m30s", 90, false),
            ("events --stats web", 5, true),
        ] {
            let Command::Events(events) = parsed(line).command else { panic!() };
            let expected = Events { id: "web".into(), interval: Duration::from_secs(seconds), stats };
            assert_eq!(events, expected, "{line}");
        }
    }

    #[test]
    fn one_dash_before_a_long_name_is_as_good_as_two() {
        for line in
            ["-log-level=debug -root /r create -bundle /b -overlay web", "--root=/r create web -bundle=/b -overlay"]
        {
            let found = parsed(line);
            assert_eq!(found.global.root, Some("/r".into()), "{line}");
            let Command::Create(create) = found.command else { panic!() };
            assert_eq!(
                (create.id.as_str(), create.bundle.to_str(), create.overlay),
                ("web", Some("/b"), true),
                "{line}"
            );
        }
        for line in ["run -help", "--usage", "list --usage", "delete -usage"] {
            assert!(matches!(parsed(line).command, Command::Help(_)), "{line}");
        }
        // Letters stay letters, and what is no option stays as it is.
        assert!(matches!(parsed("exec -dt web ls").command, Command::Exec(exec) if exec.detach && exec.tty));
        assert!(matches!(parsed("delete -- -force").command, Command::Delete(delete) if delete.id == "-force"));
        let Command::Exec(exec) = parsed("exec web ls -tty").command else { panic!() };
        assert_eq!(exec.args, ["ls", "-tty"]);
    }

    #[test]
    fn options_stand_before_and_after_the_id() {
        for line in ["create -b /b --overlay=1 web", "create web -b/b --overlay", "create -b=/b web --overlay=true"] {
            let Command::Create(create) = parsed(line).command else { panic!() };
            assert_eq!((create.id.as_str(), create.bundle.to_str()), ("web", Some("/b")), "{line}");
            assert!(create.overlay, "{line}");
        }
        let Command::Create(create) = parsed("create web").command else { panic!() };
        assert_eq!(create.bundle.to_str(), Some("."));
        assert!(matches!(parsed("delete web -f").command, Command::Delete(delete) if delete.force));
    }

    #[test]
    fn what_follows_the_id_of_exec_belongs_to_the_program() {
        for (line, args) in [
            ("exec -it=x web ls -l --all", None),
            ("exec -td web ls -l --all", Some(vec!["ls", "-l", "--all"])),
            ("exec --tty web -- ls -- -d", Some(vec!["ls", "--", "-d"])),
            ("exec -t -- web ls -d", Some(vec!["ls", "-d"])),
            ("exec -t web --help", Some(vec!["--help"])),
            ("exec -t -p /process.json web", Some(vec![])),
            ("exec -t web", None),
        ] {
            match (parse(words(line)), args) {
                (Ok(Invocation { command: Command::Exec(exec), .. }), Some(args)) => {
                    assert_eq!((exec.id.as_str(), exec.args), ("web", args.into_iter().map(Into::into).collect()));
                    assert!(exec.tty, "{line}");
                }
                (Err(_), None) => {}
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
        let Command::Exec(exec) =
            parsed("exec -e A=1 --env B -e= -g 1 -g 2 -u 1:2 --cgroup cpu:x -c CAP_KILL web ls").command
        else {
            panic!()
        };
        assert_eq!(exec.env, ["A=1", "B", ""]);
        assert_eq!((exec.additional_gids, exec.cap), (vec!["1".into(), "2".into()], vec!["CAP_KILL".into()]));
        assert_eq!((exec.user, exec.cgroup), (Some("1:2".into()), vec!["cpu:x".into()]));
        assert_eq!(parsed("exec web ls").command.failure_code(), 255);
        assert_eq!(parsed("state web").command.failure_code(), 1);
    }

    #[test]
    fn run_takes_options_after_the_id_and_then_a_program() {
        for (line, args) in [
            ("run -d -b /b web", vec![]),
            ("run web -d --bundle /b", vec![]),
            ("run -b /b web -d sh -c -d", vec!["sh", "-c", "-d"]),
            ("run -d -b /b web -- -b", vec!["-b"]),
            ("run -d -b /b web sh -- x", vec!["sh", "--", "x"]),
        ] {
            let Command::Run(run) = parsed(line).command else { panic!() };
            assert_eq!((run.create.id.as_str(), run.create.bundle.to_str()), ("web", Some("/b")), "{line}");
            assert!(run.detach, "{line}");
            assert_eq!(run.args, args, "{line}");
        }
    }

    #[test]
    fn what_engines_send_to_update() {
        // containerd, podman, and by hand.
        for (line, resources) in [
            ("update --resources - web", Some("-")),
            ("update --resources=- web", Some("-")),
            ("update --resources=/r.json web", Some("/r.json")),
            ("update web -r -", Some("-")),
            ("update web --resources=", None),
        ] {
            let Command::Update(update) = parsed(line).command else { panic!() };
            assert_eq!((update.id.as_str(), update.resources), ("web", resources.map(PathBuf::from)), "{line}");
            assert_eq!((update.limits, update.obsolete.len()), (LimitOptions::default(), 0), "{line}");
        }
    }

    #[test]
    fn limits_of_update_stand_before_and_after_the_id() {
        let line = "update --memory 100M --memory-swap -1 --cpu-quota=-1 web --cpu-share 512 --cpu-period 50000 \
                    --cpu-burst 100 --cpu-idle 0 --cpu-rt-period 1000 --cpu-rt-runtime -1 --cpuset-cpus 0-1 \
                    --cpuset-mems 0 --pids-limit 0 --blkio-weight 10 --memory-reservation 1g --kernel-memory=1 \
                    --kernel-memory-tcp -1";
        let Command::Update(update) = parsed(line).command else { panic!() };
        let expected = LimitOptions {
            memory: Some(100 << 20),
            memory_reservation: Some(1 << 30),
            memory_swap: Some(-1),
            cpu_share: Some(512),
            cpu_quota: Some(-1),
            cpu_period: Some(50000),
            cpu_burst: Some(100),
            cpu_idle: Some(0),
            cpu_rt_period: Some(1000),
            cpu_rt_runtime: Some(-1),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: Some("0".into()),
            pids_limit: Some(0),
            blkio_weight: Some(10),
        };
        assert_eq!((update.id.as_str(), update.limits), ("web", expected));
        assert_eq!(update.obsolete, ["--kernel-memory", "--kernel-memory-tcp"]);
        // An empty value is none, as in runc.
        let Command::Update(update) = parsed("update web --memory= --cpuset-cpus= --l3-cache-schema=").command else {
            panic!()
        };
        assert_eq!(update.limits, LimitOptions::default());
    }

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("512k", Some(512 << 10)),
            ("100M", Some(100 << 20)),
            ("1G", Some(1 << 30)),
            ("1GiB", Some(1 << 30)),
            ("1gb", Some(1 << 30)),
            ("2T", Some(2 << 40)),
            ("1p", Some(1 << 50)),
            ("7b", Some(7)),
            ("1.5G", Some(3 << 29)),
            (".5k", Some(512)),
            ("1.k", Some(1024)),
            ("512 KiB", Some(512 << 10)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-1", Some(-1)),
            ("-2", None),
            ("-1M", None),
            ("+1", None),
            ("", None),
            ("M", None),
            (".", None),
            ("1.2.3", None),
            ("1x", None),
            ("1MM", None),
            ("1Mi", None),
            ("1bb", None),
            ("1 M ", None),
            ("0x10", None),
            ("1e3", None),
            ("9223372036854775808", None),
            ("8589934592G", None),
            ("1é", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn refusals_say_why_and_have_the_exit_codes_of_runc() {
        for (line, text, code) in [
            ("bogus", "unknown command \"bogus\" (kelson help lists the commands)", 3),
            ("help bogus", "unknown command \"bogus\" (kelson help lists the commands)", 3),
            ("checkpoint --help", "the command \"checkpoint\" is not supported yet", 1),
            ("restore --lsm-mount-context", "the command \"restore\" is not supported yet", 1),
            ("help mounts", "the command \"mounts\" is not supported yet", 1),
            ("create --bundle", "flag needs an argument: --bundle", 1),
            ("--root", "flag needs an argument: --root", 1),
            (
                "create --bundle /b",
                "\"create\" requires an argument: the container's id (kelson create [options] ID)",
                1,
            ),
            ("state a b", "unexpected argument \"b\" (kelson state [options] ID)", 1),
            ("list x", "unexpected argument \"x\" (kelson list [options])", 1),
            ("run --nope x", "unknown option --nope", 1),
            ("state --root /r x", "unknown option --root (a global option: put it before the command)", 1),
            ("--nope", "unknown option --nope", 1),
            ("--root / list", "--root: / cannot hold the containers' states", 1),
            ("--log-format xml list", "--log-format: unknown format \"xml\" (text or json)", 1),
            ("--rootless=bla list", "--rootless: \"bla\" is not true, false or auto", 1),
            (
                "--cgroup-manager x list",
                "--cgroup-manager: unknown cgroup manager \"x\" (cgroupfs, systemd or disabled)",
                1,
            ),
            ("run -d --keep=perhaps x", "--keep: \"perhaps\" is neither true nor false", 1),
            ("create --preserve-fds -1 x", "--preserve-fds: \"-1\" is not a number of descriptors", 1),
            ("list -f xml", "--format: unknown format \"xml\" (table or json)", 1),
            ("update", "\"update\" requires an argument: the container's id (kelson update [options] ID)", 1),
            ("update web --memory 1x", "--memory: \"1x\" is not a size (bytes, 512k, 100M, 1G, or -1)", 1),
            ("update --cpu-share -1 web", "--cpu-share: \"-1\" is not a number, or out of range", 1),
            ("update --pids-limit 5k web", "--pids-limit: \"5k\" is not a number, or out of range", 1),
            ("update --blkio-weight 70000 web", "--blkio-weight: \"70000\" is not a number, or out of range", 1),
            (
                "update --l3-cache-schema L3:0=f web",
                "--l3-cache-schema: Intel RDT is not supported (leave the option out)",
                1,
            ),
            (
                "update web --mem-bw-schema MB:0=20",
                "--mem-bw-schema: Intel RDT is not supported (leave the option out)",
                1,
            ),
            ("events --interval 0s web", "--interval: duration interval must be greater than 0", 1),
            (
                "events --interval 5 web",
                "--interval: \"5\" is not a duration (a number and a unit: 500ms, 5s, 1m30s)",
                1,
            ),
            ("kill web FOO", "unknown signal \"FOO\"", 1),
            ("exec web", "exec args cannot be empty (kelson exec [options] ID COMMAND [ARGS...])", 255),
            (
                "exec",
                "\"exec\" requires an argument: the container's id (kelson exec [options] ID COMMAND [ARGS...])",
                1,
            ),
        ] {
            assert_eq!(refused(line), (text.into(), code), "{line}");
        }
    }

    #[test]
    fn the_cgroup_manager_is_the_last_that_was_named() {
        for (line, expected) in [
            ("list", Driver::Cgroupfs),
            ("--systemd-cgroup list", Driver::Systemd),
            ("--systemd-cgroup=false list", Driver::Cgroupfs),
            ("--cgroup-manager=systemd list", Driver::Systemd),
            ("--cgroup-manager systemd --cgroup-manager disabled list", Driver::None),
            ("--cgroup-manager disabled --systemd-cgroup list", Driver::Systemd),
        ] {
            assert_eq!(parsed(line).global.driver, expected, "{line}");
        }
    }

    #[test]
    fn a_refusal_knows_where_the_log_is() {
        let failure = parse(words("--log /l --log-format json create --nope")).unwrap_err();
        assert_eq!((failure.global.log, failure.global.log_format), (Target::File("/l".into()), Format::Json));
    }

    #[test]
    fn every_command_and_option_is_in_the_help() {
        let Command::Help(all) = parsed("--help").command else { panic!() };
        assert!(matches!(parsed("").command, Command::Help(text) if text == all));
        assert!(matches!(parsed("help").command, Command::Help(text) if text == all));
        assert!(matches!(parsed("-? kill").command, Command::Help(text) if text == all));
        for opt in GLOBAL {
            assert!(all.contains(&spelling(opt)), "{}", opt.long);
        }
        for entry in COMMANDS {
            assert!(all.contains(&format!("\n  {} ", entry.name)), "{}", entry.name);
            for line in ["help NAME", "NAME --help", "NAME -h", "NAME -?"] {
                let Command::Help(text) = parsed(&line.replace("NAME", entry.name)).command else { panic!() };
                assert!(text.contains(&usage_line(entry)));
                for opt in entry.options {
                    assert_eq!(text.contains(&spelling(opt)), !opt.help.is_empty(), "{} {}", entry.name, opt.long);
                }
            }
        }
        for line in ["-v", "-V", "--version", "--debug --version"] {
            assert!(matches!(parsed(line).command, Command::Version));
        }
        assert!(version().starts_with("kelson version "));
    }

    /// The table and the builders name the same options, and no option has two meanings.
    #[test]
    fn builders_take_every_option_of_the_table() {
        for entry in COMMANDS {
            for (i, opt) in entry.options.iter().enumerate() {
                let others = || entry.options[i + 1..].iter().chain([&&HELP]);
                assert!(others().all(|other| other.long != opt.long), "{} {}", entry.name, opt.long);
                assert!(opt.short.is_none() || others().all(|other| other.short != opt.short), "{}", opt.long);
            }
            let mut all = Words::default();
            for opt in entry.options {
                let value = match (opt.long, opt.takes) {
                    ("preserve-fds", _) => "1",
                    ("format", _) => "json",
                    // These are refused.
                    ("l3-cache-schema" | "mem-bw-schema", _) => "",
                    (_, Takes::Value("BYTES" | "N" | "USEC" | "0|1")) => "1",
                    ("interval", _) => "1s",
                    (_, Takes::Switch) => "true",
                    (_, Takes::Value(_)) => "x",
                };
                all.options.push((opt.long, value.into()));
            }
            all.operands.extend((0..entry.operands.most).map(|_| "1".into()));
            all.rest.push("x".into());
            (entry.build)(&mut all).unwrap();
            assert!(all.options.is_empty(), "{} does not read {:?}", entry.name, all.options);
            assert!(all.operands.is_empty());
            assert_eq!(all.rest.is_empty(), entry.operands.rest != Rest::Refused, "{}", entry.name);
        }
    }

    #[test]
    fn every_global_option_is_read() {
        let found =
            parsed("--root /r --log l --log-level info --debug=true --rootless true --cgroup-manager cgroupfs list");
        let global = found.global;
        assert_eq!((global.root, global.log_level), (Some("/r".into()), Some(LevelFilter::Info)));
        assert!(global.debug && global.rootless == Some(true) && matches!(global.driver, Driver::Cgroupfs));
        let named = ["root", "log", "log-format", "log-level", "debug", "cgroup-manager", "systemd-cgroup", "rootless"];
        for opt in GLOBAL {
            assert!(named.contains(&opt.long) || ["help", "version"].contains(&opt.long), "{}", opt.long);
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, number) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigkill", Some(9)),
            ("9", Some(9)),
            ("0", Some(0)),
            ("64", Some(64)),
            ("IOT", Some(6)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+1", Some(35)),
            ("RTMIN+30", Some(64)),
            ("rtmax-30", Some(34)),
            ("SIGRTMAX", Some(64)),
            ("RTMIN+31", None),
            ("RTMAX-31", None),
            ("RTMIN-1", None),
            ("RTMIN+-1", None),
            ("RTMIN+4294967295", None),
            ("RTMIN+", None),
            ("65", None),
            ("-9", None),
            ("+9", None),
            ("", None),
            ("SIG", None),
            ("SIGSIGTERM", None),
            ("99999999999", None),
        ] {
            assert_eq!(signal(name).ok(), number, "{name:?}");
        }
        let Command::Kill(kill) = parsed("kill web").command else { panic!() };
        assert_eq!(kill.signal, 15);
    }

    #[test]
    fn a_word_that_is_not_utf8_is_refused_where_text_is_meant() {
        use std::os::unix::ffi::OsStringExt;
        let bad = || OsString::from_vec(b"a\xff".to_vec());
        assert!(parse(["state".into(), bad()]).is_err());
        let Command::Create(create) = parse(["create".into(), "-b".into(), bad(), "web".into()]).unwrap().command
        else {
            panic!()
        };
        assert_eq!(create.bundle, PathBuf::from(bad()));
    }
}
