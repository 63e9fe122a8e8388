//! The programs beside this one: `kelson-image`, which does what a runtime needs no code for, and `kelson-init`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::options::UserNs;
use super::{Image, Options, Store};
use crate::error::{Context, Error, Result};

/// Where a program is looked for beside the directory of this one and PATH.
const DIRECTORIES: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/libexec/kelson", "/usr/libexec/kelson"];
/// The directory of this program, for a process that was executed again and lost its name.
pub const DIRECTORY: &str = "KELSON_DIRECTORY";

/// The program called `name`: beside `program` (this one's argv[0]), in PATH, or where it is installed.
///
/// # Errors
/// It is nowhere; the text says how to have it.
pub fn find(name: &str, program: &OsStr) -> Result<PathBuf> {
    let beside = directory_of(program).or_else(|| std::env::var_os(DIRECTORY).map(PathBuf::from));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = beside.into_iter().chain(std::env::split_paths(&path));
    let mut candidates = directories.chain(DIRECTORIES.map(PathBuf::from)).map(|directory| directory.join(name));
    candidates.find(|path| path.is_absolute() && path.is_file()).ok_or_else(|| {
        Error::other(format!("the program {name} is not there"))
            .hint("it belongs beside kelson: `make build` makes it and `make install` installs it")
    })
}

/// The program of this name in PATH.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What a relative directory means is the working directory's business.
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_absolute() && path.is_file())
}

/// The directory that a program was called in; `None` for one that was found by PATH.
pub fn directory_of(program: &OsStr) -> Option<PathBuf> {
    let directory = Path::new(program).parent().filter(|directory| !directory.as_os_str().is_empty())?;
    std::path::absolute(directory).ok()
}

/// Has `kelson-image` make the volume `name`: with what the `layers`, topmost first, have at `target`; empty without one.
pub fn make_volume(store: &Store, program: &OsStr, name: &str, layers: &[PathBuf], target: Option<&str>) -> Result<()> {
    let helper = find("kelson-image", program)?;
    let layers = serde_json::to_string(layers).map_err(|error| Error::other(error.to_string()))?;
    let mut command = Command::new(&helper);
    command.arg("--store").arg(&store.root).args(["make-volume", "--", name, &layers]).args(target);
    match command.status().doing(|| format!("start {}", helper.display()))?.success() {
        true => Ok(()),
        // It has said why.
        false => Err(Error::other(format!("the volume {name:?} could not be made"))),
    }
}

/// Has `kelson-image` bring the image that `options` name into `store`; its progress is on standard error.
pub fn ensure(options: &Options, store: &Store, program: &OsStr) -> Result<Image> {
    let helper = find("kelson-image", program)?;
    let mut words: Vec<OsString> = vec!["--store".into(), store.root.clone().into(), "ensure".into()];
    if options.pull == super::options::Pull::Always {
        words.push("--pull=always".into());
    }
    if let Some(platform) = &options.platform {
        words.extend(["--platform".into(), platform.into()]);
    }
    for host in &options.plain_http {
        words.extend(["--plain-http".into(), host.into()]);
    }
    if let Some(limits) = &options.unpack_limits {
        words.extend(["--unpack-limits".into(), limits.clone()]);
    }
    if options.userns == UserNs::KeepId {
        words.push("--keep-id".into());
    }
    if options.quiet {
        words.push("--quiet".into());
    }
    words.extend(["--".into(), options.image.clone()]);
    let doing = || format!("start {}", helper.display());
    let output = Command::new(&helper)
        .args(&words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .doing(doing)?;
    if !output.status.success() {
        // It has said why.
        return Err(Error::other(format!("image {:?} could not be brought into the store", options.image)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| {
            Error::other(format!("it gave no record of an image: {error}")).hint("is it of the same version?")
        })
        .doing(doing)
}
