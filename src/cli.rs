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
mod help;
mod image;
mod signal;
#[cfg(test)]
mod tests;
mod words;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use ::log::LevelFilter;

use crate::cgroup::Driver;
use crate::error::{Error, Result};
use crate::image::Options;
use crate::log::{Format, Target};
use crate::plan::LimitOptions;
use help::{command_help, overview, usage_line};
use signal::signal;
use words::{Words, create, exec, update};

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
    Bundle(Bundle),
    /// Another program's: `kelson-image`.
    Image {
        program: OsString,
        words: Vec<OsString>,
    },
    Diff(Diff),
    Commit(Commit),
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
    Explain(Explain),
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
    /// Where how long each step took is written as JSON; `-` is a table on standard error alone.
    pub timings: Option<PathBuf>,
    /// argv[0], beside which other programs of Kelson are.
    pub program: OsString,
}

#[derive(Debug, Default)]
pub struct Run {
    pub create: Create,
    pub detach: bool,
    /// Do not delete the container after it ends.
    pub keep: bool,
    /// Delete it after it ends, also a detached one.
    pub remove: bool,
    pub no_subreaper: bool,
    /// Replaces `process.args`; empty keeps them.
    pub args: Vec<OsString>,
    /// `--image`: in place of a bundle.
    pub image: Option<Box<Options>>,
}

/// `bundle`
#[derive(Debug)]
pub struct Bundle {
    pub image: Box<Options>,
    pub dir: PathBuf,
    /// With a root file system of its own in place of layers of the store.
    pub unpack: bool,
    pub program: OsString,
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
    /// As of [`Create`].
    pub timings: Option<PathBuf>,
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

#[derive(Debug)]
pub struct Explain {
    /// `None`: the bundle's directory gives the name.
    pub id: Option<String>,
    pub bundle: PathBuf,
    /// `None`: config.json in the bundle.
    pub config: Option<PathBuf>,
    /// As of [`Create`].
    pub overlay: bool,
    pub json: bool,
    /// In place of a bundle.
    pub image: Option<Box<Options>>,
    pub program: OsString,
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

/// `diff`
#[derive(Debug)]
pub struct Diff {
    /// The id of a container, or the directory of a layer that was kept.
    pub subject: OsString,
    pub json: bool,
    pub store: Option<PathBuf>,
    pub program: OsString,
}

/// `commit`
#[derive(Debug)]
pub struct Commit {
    pub subject: OsString,
    pub commit: crate::image::changes::Commit,
    /// `None`: if it can be paused.
    pub pause: Option<bool>,
    pub unpack_limits: Option<OsString>,
    pub store: Option<PathBuf>,
    pub program: OsString,
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
    /// argv[0], for commands that look for programs beside this one.
    pub fn called_as(&mut self, name: &OsStr) {
        match self {
            Command::Create(Create { program, .. })
            | Command::Run(Run { create: Create { program, .. }, .. })
            | Command::Explain(Explain { program, .. })
            | Command::Bundle(Bundle { program, .. })
            | Command::Diff(Diff { program, .. })
            | Command::Commit(Commit { program, .. })
            | Command::Image { program, .. } => {
                program.push(name);
            }
            _ => {}
        }
    }

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
    /// All words are another program's, from the first one on.
    All,
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
    /// Those that go with an image.
    with_image: &'static [&'static Opt],
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
const TIMINGS: Opt = value(
    "timings",
    None,
    "FILE",
    "write how long each step took to FILE as JSON, and as a table to a terminal (-: the table alone)",
);
const DETACH: Opt = switch("detach", Some('d'), "return as soon as the process runs");
const IMAGE: Opt = value("image", None, "IMAGE", "an image in place of a bundle");
const STORE: Opt = value(
    "store",
    None,
    "DIR",
    "where images are kept (default: where the container's is, /var/lib/kelson, or ~/.local/share/kelson)",
);
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
    &TIMINGS,
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
        with_image: &[],
        build: |words| Ok(Command::Create(create(words)?)),
    },
    Entry {
        name: "start",
        summary: "run the program of a created container",
        about: "",
        operands: ID,
        options: &[],
        with_image: &[],
        build: |words| Ok(Command::Start { id: words.id()? }),
    },
    Entry {
        name: "run",
        summary: "create and start a container, wait for its end and delete it",
        about: "ARGS replace process.args of config.json. The exit code is that of the program, or 128 and the number\n\
                of the signal that ended it. With --image there is no bundle and no ID: the words are the command, as in\n\
                docker run. IMAGE is a name (busybox, host:5000/tool@sha256:…), a file that docker save or podman save\n\
                wrote (./FILE, x.tar), or oci:DIR[:TAG], docker-archive:FILE[:TAG], docker://NAME.",
        operands: Operands {
            usage: "{ID | --image IMAGE} [ARGS...]",
            required: 1,
            most: 1,
            rest: Rest::VerbatimAfterOptions,
        },
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
            &TIMINGS,
            &DETACH,
            &switch("keep", None, "do not delete the container after it ends"),
            &IMAGE,
        ],
        with_image: image::OPTIONS,
        build: words::run,
    },
    Entry {
        name: "bundle",
        summary: "write the bundle of an image: a config.json to read, edit and run",
        about: "The root file system is an overlay of the store's layers; they stay there as long as DIR does, or a\n\
                container of it. DIR is made. ARGS replace the image's Cmd.",
        operands: Operands { usage: "IMAGE DIR [ARGS...]", required: 2, most: 2, rest: Rest::VerbatimAfterOptions },
        options: &[&switch("unpack", None, "unpack the layers into DIR/rootfs, which any runtime can run")],
        with_image: image::OPTIONS,
        build: words::bundle,
    },
    Entry {
        name: "image",
        summary: "pull, import, list, inspect, tag, export and remove images",
        about: "kelson image --help tells more: the words are those of the program kelson-image.",
        operands: Operands { usage: "COMMAND [ARGS...]", required: 0, most: 0, rest: Rest::All },
        options: &[],
        with_image: &[],
        build: |words| Ok(Command::Image { program: OsString::new(), words: std::mem::take(&mut words.rest) }),
    },
    Entry {
        name: "diff",
        summary: "show what a container changed in the files of its image",
        about: "A is what it added, C what it changed, D what it deleted. ID may also be that of a container which is gone and was\n\
                run with --keep-layer; DIR (with a slash in it, such as ./DIR) is what --upper was given.",
        operands: Operands { usage: "{ID | DIR}", required: 1, most: 1, rest: Rest::Refused },
        options: &[&switch("json", None, "print JSON"), &STORE],
        with_image: &[],
        build: words::diff,
    },
    Entry {
        name: "commit",
        summary: "make an image of a container: its own image, and what it changed as a new layer",
        about: "Prints the new image's id. ID and DIR are those of `kelson diff`. The configuration is the image's, whatever\n\
                flags the container was run with, and as --change says. The container is paused while its files are read.",
        operands: Operands { usage: "{ID | DIR} IMAGE", required: 2, most: 2, rest: Rest::Refused },
        options: &[
            &value("author", Some('a'), "NAME", "who made it"),
            &value("message", Some('m'), "TEXT", "comment in the image's history"),
            &value(
                "change",
                Some('c'),
                "INSTRUCTION",
                "as in a Dockerfile: CMD, ENTRYPOINT, ENV, LABEL, USER, … (repeatable)",
            ),
            &switch("pause", Some('p'), "pause the container meanwhile (default: if it can be paused)"),
            &value("unpack-limits", None, "LIMITS", "how much the layer may be: bytes=N,entries=N"),
            &STORE,
        ],
        with_image: &[],
        build: words::commit,
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
            &TIMINGS,
        ],
        with_image: &[],
        build: exec,
    },
    Entry {
        name: "state",
        summary: "print the state of a container as JSON",
        about: "",
        operands: ID,
        options: &[&switch("verbose", None, "of one that has stopped also how it ended, and why")],
        with_image: &[],
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
        with_image: &[],
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
        with_image: &[],
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
        with_image: &[],
        build: |words| Ok(Command::List(List { format: words.listing()?, quiet: words.is_set("quiet") })),
    },
    Entry {
        name: "ps",
        summary: "list the processes of a container",
        about: "What follows ID are options for ps(1) (default: -ef).",
        operands: Operands { usage: "ID [PS OPTIONS...]", required: 1, most: 1, rest: Rest::Verbatim },
        options: &[&FORMAT],
        with_image: &[],
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
        with_image: &[],
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
        with_image: &[],
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
        with_image: &[],
        build: |words| Ok(Command::Pause { id: words.id()? }),
    },
    Entry {
        name: "resume",
        summary: "let the processes of a paused container go on",
        about: "",
        operands: ID,
        options: &[],
        with_image: &[],
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
        with_image: &[],
        build: |words| Ok(Command::Update(update(words)?)),
    },
    Entry {
        name: "wait",
        summary: "wait for the end of a container and print its exit code",
        about: "Prints the exit code of the container's process, or 128 and the number of the signal that ended it. If that\n\
                cannot be known it prints why, and fails with exit code 1. Also for a container that another process reaps.",
        operands: ID,
        options: &[&switch("json", None, "print JSON, with the reason")],
        with_image: &[],
        build: |words| Ok(Command::Wait { id: words.id()?, json: words.is_set("json") }),
    },
    Entry {
        name: "explain",
        summary: "tell what create would do with a bundle, step by step, and do nothing",
        about: "Namespaces, mounts with their flags and system calls, the values for the cgroup's files and the properties\n\
                that they come from, device rules, capabilities, seccomp, hooks; at the end what this caller has no\n\
                privilege for. Needs no privilege. ID is the name that the container would have. With --image the words are\n\
                the command, as of run; the image must be in the store.",
        operands: Operands {
            usage: "[ID | --image IMAGE [ARGS...]]",
            required: 0,
            most: 1,
            rest: Rest::VerbatimAfterOptions,
        },
        options: &[&BUNDLE, &CONFIG, &OVERLAY, &switch("json", None, "print JSON, for programs"), &IMAGE],
        with_image: image::OPTIONS,
        build: words::explain,
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
        with_image: &[],
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
        with_image: &[],
        build: |_| Ok(Command::Features),
    },
];

/// Commands of runc, crun or engines that do not exist yet; to accept even their `--help` would claim support (podman's
/// probe for checkpoint looks at the exit code of `checkpoint --help`).
const NOT_YET: &[&str] = &["checkpoint", "info", "mounts", "restore"];

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
        match reader.next(&[GLOBAL]).map_err(usage)? {
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
    let mut reading_own_words = entry.operands.rest != Rest::All;
    // An image is no bundle: the container's id is an option, and the words are its command.
    let has_image = |words: &Words| words.options.iter().any(|(long, _)| *long == "image");
    while reading_own_words && let Some(word) = reader.next(&[entry.options, entry.with_image]).map_err(usage)? {
        match word {
            Word::Operand(word) if words.operands.len() < entry.operands.most && !has_image(&words) => {
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
                let mut found = option(&mut reader.parser, entry.options, &name).map_err(usage)?;
                if found.is_none() {
                    found = option(&mut reader.parser, entry.with_image, &name).map_err(usage)?;
                }
                match found {
                    Some(("image", _)) if !words.operands.is_empty() => {
                        let error = Error::usage("with --image the container's id is given by --name");
                        return Err(usage(error.hint(usage_line(entry))));
                    }
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
    if words.operands.len() < entry.operands.required && !has_image(&words) {
        let usage_of_words = entry.operands.usage;
        let missing = match usage_of_words.starts_with("IMAGE") {
            true => usage_of_words.trim_end_matches(" [ARGS...]"),
            false => "the container's id",
        };
        let error = Error::usage(format!("{:?} requires an argument: {missing}", entry.name));
        return Err(usage(error.hint(usage_line(entry))));
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
    fn next(&mut self, options: &[&[&Opt]]) -> Result<Option<Word>> {
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
fn is_long_after_one_dash(word: &OsStr, options: &[&[&Opt]]) -> bool {
    let Some(name) = word.to_str().and_then(|word| word.strip_prefix('-')) else { return false };
    let name = name.split('=').next().unwrap_or_default();
    options.iter().copied().flatten().any(|opt| opt.long == name) || ["help", "usage"].contains(&name)
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

/// What `--version` prints: the lines that engines read (go-runc, moby) and crun's `spec:`.
pub fn version() -> String {
    format!(
        "kelson version {}\ncommit: {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        crate::lifecycle::features::COMMIT,
        crate::plan::OCI_VERSION
    )
}
