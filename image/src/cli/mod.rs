//! argv to [`Invocation`]: what `kelson image` hands on, and what `kelson` itself asks.
//!
//! ```text
//! kelson image [options] COMMAND [options] [WORDS]
//! ```

mod act;
mod help;
mod show;
pub mod size;

use std::ffi::OsString;
use std::path::PathBuf;

use kelson::cli::Global;
use kelson::error::{Error, Result};
use kelson::image::Reference;
use kelson::image::changes::{Commit, Request};
use kelson::log::{Format, Target, parse_level};

use crate::platform::Platform;
use crate::unpack::Limits;

pub use act::perform;
pub use help::version;

/// A command line that was understood.
pub struct Invocation {
    pub options: Options,
    pub command: Command,
}

/// A command line that was not; where its error is to be logged is known as far as it was read.
pub struct Failure {
    pub log: Global,
    pub error: Error,
    /// 3 for an unknown command, otherwise 1, as kelson.
    pub exit_code: u8,
}

/// What may stand before the command and after it.
pub struct Options {
    pub log: Global,
    /// `None`: KELSON_STORE, or the caller's own.
    pub store: Option<PathBuf>,
    /// A store that is made now has only files of the caller's.
    pub squash: bool,
    /// A store that is made now is for `run --userns keep-id`.
    pub keep_ids: bool,
    pub platform: Option<Platform>,
    pub limits: Limits,
    /// For `ensure`: the registry is asked, whether the store has the name or not.
    pub always_pull: bool,
    /// Registries that are spoken to without TLS.
    pub plain_http: Vec<String>,
    pub quiet: bool,
    pub json: bool,
    pub no_trunc: bool,
    pub all: bool,
    pub force: bool,
    /// Those that are kept of containers.
    pub layers: bool,
    /// For `import`.
    pub names: Vec<Reference>,
    /// For `export`; `-` is standard output.
    pub output: Option<PathBuf>,
    /// For `export`.
    pub format: Option<String>,
}

pub enum Command {
    Pull(Vec<String>),
    Import(Vec<OsString>),
    List,
    Inspect(Vec<String>),
    History(String),
    Remove(Vec<String>),
    Prune,
    Export(Vec<String>),
    Tag(String, Reference),
    Ensure(OsString),
    Diff(Request),
    Commit(Request, Commit),
    /// Layers, topmost first, and the directory to be made of them.
    Flatten(Vec<PathBuf>, PathBuf),
    Volumes,
    RemoveVolumes(Vec<String>),
    /// Name, layers, and the directory in them whose files it gets.
    MakeVolume(String, Vec<PathBuf>, Option<PathBuf>),
    /// Print this.
    Print(String),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: Global::default(),
            store: std::env::var_os("KELSON_STORE").filter(|value| !value.is_empty()).map(PathBuf::from),
            squash: false,
            keep_ids: false,
            platform: None,
            limits: Limits::default(),
            always_pull: false,
            plain_http: vec![],
            quiet: false,
            json: false,
            no_trunc: false,
            all: false,
            force: false,
            layers: false,
            names: vec![],
            output: None,
            format: None,
        }
    }
}

/// An option: its names, what its value is called (`None`: it takes none), and what it does.
struct Opt {
    long: &'static str,
    short: Option<char>,
    value: Option<&'static str>,
    help: &'static str,
}

const fn opt(long: &'static str, short: Option<char>, value: Option<&'static str>, help: &'static str) -> Opt {
    Opt { long, short, value, help }
}

const GLOBAL: [Opt; 11] = [
    opt(
        "store",
        None,
        Some("DIR"),
        "directory of the images (default: $KELSON_STORE, /var/lib/kelson, or ~/.local/share/kelson)",
    ),
    opt("squash", None, None, "make a store in which all files are the caller's, whatever images say of their owners"),
    opt(
        "keep-id",
        None,
        None,
        "make a store for run --userns keep-id, in which an ordinary user's id is no image's root",
    ),
    opt(
        "log",
        None,
        Some("FILE"),
        "append log lines to FILE, or to journald:ID or syslog:ID (default: standard error)",
    ),
    opt("log-format", None, Some("text|json"), "format of the log lines (default: text)"),
    opt("log-level", None, Some("LEVEL"), "error, warning, info, debug or trace (default: $RUST_LOG, or warning)"),
    opt("debug", None, None, "the same as --log-level debug"),
    opt("root", None, Some("DIR"), "state of kelson's containers, which images do not depend on"),
    opt("rootless", None, Some("BOOL"), "whether the caller lacks root's privileges (default: found out)"),
    opt("help", Some('h'), None, "show this help"),
    opt("version", Some('v'), None, "print the version"),
];

const PLATFORM: Opt =
    opt("platform", None, Some("OS/ARCH"), "for this platform, such as linux/arm64 (default: this host's)");
const LIMITS: Opt =
    opt("unpack-limits", None, Some("LIMITS"), "how much a layer may be: bytes=N,entries=N,ratio=N,free=N,window=N");
const PLAIN_HTTP: Opt = opt("plain-http", None, Some("HOST"), "speak to this registry without TLS; may be repeated");
const QUIET: Opt = opt("quiet", Some('q'), None, "print the ids only");
const NO_PROGRESS: Opt = opt("quiet", Some('q'), None, "show no progress");
const JSON: Opt = opt("json", None, None, "print JSON");
const NO_TRUNC: Opt = opt("no-trunc", None, None, "do not shorten ids and commands");
const HELP: Opt = opt("help", Some('h'), None, "show this help");

struct Entry {
    name: &'static str,
    /// Another name; empty if there is none.
    alias: &'static str,
    operands: &'static str,
    summary: &'static str,
    /// A paragraph; may be empty.
    about: &'static str,
    options: &'static [Opt],
    least: usize,
    most: usize,
    build: fn(Vec<OsString>) -> Result<Command>,
}

const COMMANDS: [Entry; 15] = [
    Entry {
        name: "pull",
        alias: "",
        operands: "NAME...",
        summary: "fetch an image from its registry",
        about: "Names are completed as docker does: busybox is docker.io/library/busybox:latest. Layers that are there already\n\
                are not fetched. Logins are those of docker's and podman's files.",
        options: &[PLATFORM, PLAIN_HTTP, LIMITS, NO_PROGRESS],
        least: 1,
        most: usize::MAX,
        build: |words| texts(words).map(Command::Pull),
    },
    Entry {
        name: "import",
        alias: "load",
        operands: "SOURCE...",
        summary: "take the images of an archive or a layout",
        about: "A source is ./FILE.tar (docker save, podman save, an OCI layout; gzip and zstd too), a directory, oci:PATH[:TAG][@DIGEST],\n\
                oci-archive:PATH[:TAG] or docker-archive:PATH[:TAG]. The images have the names that the source gives them.",
        options: &[
            opt("tag", Some('t'), Some("NAME"), "give the image this name instead; may be repeated"),
            PLATFORM,
            LIMITS,
            QUIET,
        ],
        least: 1,
        most: usize::MAX,
        build: |words| Ok(Command::Import(words)),
    },
    Entry {
        name: "list",
        alias: "ls",
        operands: "",
        summary: "list the images",
        about: "SIZE is that of an image's files, UNIQUE what of it no other image has.",
        options: &[
            opt("layers", None, None, "list what --keep-layer kept of containers instead"),
            JSON,
            QUIET,
            NO_TRUNC,
        ],
        least: 0,
        most: 0,
        build: |_| Ok(Command::List),
    },
    Entry {
        name: "inspect",
        alias: "",
        operands: "IMAGE...",
        summary: "print what is known of images as JSON",
        about: "",
        options: &[],
        least: 1,
        most: usize::MAX,
        build: |words| texts(words).map(Command::Inspect),
    },
    Entry {
        name: "history",
        alias: "",
        operands: "IMAGE",
        summary: "show the steps that an image was made in",
        about: "",
        options: &[JSON, QUIET, NO_TRUNC],
        least: 1,
        most: 1,
        build: |words| Ok(Command::History(texts(words)?.remove(0))),
    },
    Entry {
        name: "remove",
        alias: "rm",
        operands: "IMAGE...",
        summary: "take away names, and with the last one the image",
        about: "An image that a container or bundle uses stays.",
        options: &[
            opt("force", Some('f'), None, "take away all names of an id, and those of an image that is used"),
            JSON,
        ],
        least: 1,
        most: usize::MAX,
        build: |words| texts(words).map(Command::Remove),
    },
    Entry {
        name: "prune",
        alias: "",
        operands: "",
        summary: "remove what no image and no container uses",
        about: "Images without a name go, and layers of no image.",
        options: &[
            opt("all", Some('a'), None, "images with a name that no container or bundle uses go too"),
            opt("layers", None, None, "what --keep-layer kept of containers that were deleted goes too"),
            JSON,
        ],
        least: 0,
        most: 0,
        build: |_| Ok(Command::Prune),
    },
    Entry {
        name: "export",
        alias: "save",
        operands: "IMAGE...",
        summary: "write images to an archive or a layout",
        about: "What comes out is loaded by docker load, podman load, skopeo copy and kelson image import.",
        options: &[
            opt(
                "output",
                Some('o'),
                Some("FILE"),
                "archive or, for oci, directory to write (default: standard output)",
            ),
            opt("format", None, Some("FORMAT"), "docker-archive (the default), oci-archive, or oci: a directory"),
        ],
        least: 1,
        most: usize::MAX,
        build: |words| texts(words).map(Command::Export),
    },
    Entry {
        name: "tag",
        alias: "",
        operands: "IMAGE NAME",
        summary: "give an image another name",
        about: "",
        options: &[],
        least: 2,
        most: 2,
        build: |words| {
            let mut words = texts(words)?;
            let name = words.remove(1).parse()?;
            Ok(Command::Tag(words.remove(0), name))
        },
    },
    Entry {
        name: "volume",
        alias: "",
        operands: "[remove NAME...]",
        summary: "list the volumes that -v NAME:PATH made, or remove some",
        about: "A volume that a container or bundle uses stays.",
        options: &[JSON, QUIET],
        least: 0,
        most: usize::MAX,
        build: |words| {
            let words = texts(words)?;
            match words.split_first().map(|(word, names)| (word.as_str(), names)) {
                None | Some(("list", [])) => Ok(Command::Volumes),
                Some(("remove" | "rm", names @ [_, ..])) => Ok(Command::RemoveVolumes(names.to_vec())),
                Some((word, _)) => {
                    Err(Error::usage(format!("volume {word}: it is not understood")).hint("volume remove NAME..."))
                }
            }
        },
    },
    // What kelson run --image asks: not shown by help.
    Entry {
        name: "ensure",
        alias: "",
        operands: "SOURCE",
        summary: "make sure that an image is in the store, and print its record",
        about: "",
        options: &[
            opt("pull", None, Some("missing|always"), "when to ask the registry (default: missing)"),
            PLATFORM,
            PLAIN_HTTP,
            LIMITS,
            NO_PROGRESS,
        ],
        least: 1,
        most: 1,
        build: |mut words| Ok(Command::Ensure(words.remove(0))),
    },
    Entry {
        name: "make-volume",
        alias: "",
        operands: "NAME LAYERS [PATH]",
        summary: "make a volume, with what the layers have at PATH",
        about: "",
        options: &[],
        least: 2,
        most: 3,
        build: |words| {
            let mut words = texts(words)?;
            let path = words.drain(2..).next().map(PathBuf::from);
            Ok(Command::MakeVolume(words[0].clone(), request(&words[1])?, path))
        },
    },
    // What kelson diff and kelson commit ask.
    Entry {
        name: "diff",
        alias: "",
        operands: "REQUEST",
        summary: "show what a container changed",
        about: "",
        options: &[JSON],
        least: 1,
        most: 1,
        build: |words| Ok(Command::Diff(request(&texts(words)?[0])?)),
    },
    Entry {
        name: "commit",
        alias: "",
        operands: "REQUEST COMMIT",
        summary: "make what a container changed a layer",
        about: "",
        options: &[LIMITS],
        least: 2,
        most: 2,
        build: |words| {
            let words = texts(words)?;
            Ok(Command::Commit(request(&words[0])?, request(&words[1])?))
        },
    },
    // What kelson bundle --unpack asks.
    Entry {
        name: "flatten",
        alias: "",
        operands: "LAYERS DIR",
        summary: "make one directory of layers",
        about: "",
        options: &[],
        least: 2,
        most: 2,
        build: |mut words| {
            let dir = words.remove(1).into();
            Ok(Command::Flatten(request(&texts(words)?[0])?, dir))
        },
    },
];

/// What `kelson` says, as JSON.
fn request<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::usage(format!("this is no request of kelson: {error}")).hint("is it of the same version?")
    })
}

fn texts(words: Vec<OsString>) -> Result<Vec<String>> {
    let text = |word: OsString| {
        word.into_string().map_err(|word| Error::usage(format!("{word:?} is no name of an image: not valid UTF-8")))
    };
    words.into_iter().map(text).collect()
}

/// Reads a command line, without argv[0].
///
/// # Errors
/// The command line is wrong.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, Box<Failure>> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_args(args);
    match read(&mut parser, &mut options) {
        Ok(command) => Ok(Invocation { options, command }),
        Err((error, exit_code)) => Err(Box::new(Failure { log: options.log, error, exit_code })),
    }
}

fn read(parser: &mut lexopt::Parser, options: &mut Options) -> Result<Command, (Error, u8)> {
    let usage = |error| (error, 1);
    let (mut entry, mut words): (Option<&Entry>, Vec<OsString>) = (None, vec![]);
    let mut wants_help = false;
    while let Some(arg) = parser.next().map_err(|error| usage(Error::usage(error.to_string())))? {
        let found = match &arg {
            lexopt::Arg::Value(_) => None,
            lexopt::Arg::Short(short) => Some(find(entry, |opt| opt.short == Some(*short))),
            lexopt::Arg::Long(long) => Some(find(entry, |opt| opt.long == *long)),
        };
        match (arg, found) {
            (lexopt::Arg::Value(word), _) => match entry {
                None if word == "help" => wants_help = true,
                None => entry = Some(command(&word)?),
                Some(_) => words.push(word),
            },
            (_, Some(Some(opt))) => match opt.long {
                "help" => wants_help = true,
                "version" => return Ok(Command::Print(version())),
                _ => set(parser, options, opt).map_err(usage)?,
            },
            (lexopt::Arg::Short(short), _) => return Err(usage(unknown(&format!("-{short}")))),
            (lexopt::Arg::Long(long), _) => return Err(usage(unknown(&format!("--{long}")))),
        }
    }
    let Some(entry) = entry else { return Ok(Command::Print(help::overview())) };
    if wants_help {
        return Ok(Command::Print(help::of(entry)));
    }
    if !(entry.least..=entry.most).contains(&words.len()) {
        let error = match words.get(entry.most) {
            Some(word) => Error::usage(format!("unexpected argument {word:?}")),
            None => Error::usage(format!("{:?} requires {}", entry.name, entry.operands)),
        };
        return Err(usage(error.hint(help::usage_line(entry))));
    }
    (entry.build)(words).map_err(usage)
}

fn find(entry: Option<&'static Entry>, matches: impl Fn(&Opt) -> bool) -> Option<&'static Opt> {
    let own = entry.map_or(&[][..], |entry| entry.options);
    own.iter().chain(&GLOBAL).find(|opt| matches(opt))
}

fn command(word: &OsString) -> Result<&'static Entry, (Error, u8)> {
    let found = COMMANDS.iter().find(|entry| word == entry.name || (!entry.alias.is_empty() && word == entry.alias));
    found.ok_or_else(|| {
        (Error::usage(format!("unknown command {word:?}")).hint("kelson image help lists the commands"), 3)
    })
}

fn unknown(name: &str) -> Error {
    Error::usage(format!("unknown option {name}"))
}

fn set(parser: &mut lexopt::Parser, options: &mut Options, opt: &Opt) -> Result<()> {
    if opt.value.is_none() {
        match opt.long {
            "squash" => options.squash = true,
            "keep-id" => options.keep_ids = true,
            "debug" => options.log.debug = true,
            "quiet" => options.quiet = true,
            "json" => options.json = true,
            "no-trunc" => options.no_trunc = true,
            "all" => options.all = true,
            "force" => options.force = true,
            "layers" => options.layers = true,
            _ => unreachable!("every option without a value is above"),
        }
        return Ok(());
    }
    let value = parser.value().map_err(|_| Error::usage(format!("flag needs an argument: --{}", opt.long)))?;
    let text = || {
        let text = value.to_str().ok_or_else(|| Error::usage(format!("--{}: {value:?} is not valid UTF-8", opt.long)));
        text.map(str::to_owned)
    };
    match opt.long {
        "store" => options.store = Some(value.into()),
        "root" => options.log.root = Some(value.into()),
        "rootless" => {
            let no_bool = || Error::usage(format!("--rootless: {value:?} is neither true nor false"));
            options.log.rootless = Some(text()?.parse().map_err(|_| no_bool())?);
        }
        "log" => options.log.log = Target::parse(value),
        "log-format" => options.log.log_format = Format::parse(&text()?)?,
        "log-level" => options.log.log_level = parse_level(&text()?)?,
        "platform" => options.platform = Some(text()?.parse()?),
        "unpack-limits" => options.limits = text()?.parse()?,
        "pull" => {
            options.always_pull = match text()?.as_str() {
                "missing" => false,
                "always" => true,
                other => return Err(Error::usage(format!("--pull: {other:?} is neither missing nor always"))),
            }
        }
        "plain-http" => options.plain_http.push(text()?),
        "tag" => options.names.push(text()?.parse()?),
        "output" => options.output = Some(value.into()),
        "format" => options.format = Some(text()?),
        _ => unreachable!("every option with a value is above"),
    }
    Ok(())
}
