//! `bundle`: writes what `run --image` would run, and stops there; and `image`, which is another program's.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use super::{Runtime, image};
use crate::cli::{self, Global};
use crate::error::{Context, Error, Result};
use crate::image::options::UserNs;
use crate::image::{Store, helper};
use crate::log::Format;
use crate::plan::{IDMAP, IMAGE, LOWER};

/// Writes config.json, the files that it mounts, and an empty directory for the root.
///
/// # Errors
/// The directory exists, or there is no such image.
pub fn bundle(runtime: &Runtime, options: &cli::Bundle) -> Result<()> {
    if options.unpack && (options.image.keep_layer || options.image.upper.is_some()) {
        return Err(Error::usage("--unpack: what is written goes into DIR/rootfs, and no layer is kept"));
    }
    if options.unpack && options.image.userns == UserNs::Own && !runtime.rootless {
        return Err(Error::usage("--unpack: a root file system of its own belongs to the host's users")
            .hint("--userns auto maps the ids of layers: leave one of the two out"));
    }
    let dir = std::path::absolute(&options.dir).doing(|| format!("bundle {}", options.dir.display()))?;
    DirBuilder::new().recursive(false).mode(0o755).create(&dir).doing(|| format!("make {}", dir.display()))?;
    write(runtime, options, &dir).inspect_err(|_| {
        // It was made just now, and is not one that can be run.
        let _ = fs::remove_dir_all(&dir);
    })
}

fn write(runtime: &Runtime, options: &cli::Bundle, dir: &Path) -> Result<()> {
    let id = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let terminal = options.image.tty == Some(true);
    let root = Path::new("rootfs");
    let program = &options.program;
    let wanted = image::Wanted { id: &id, dir, root: Some(root), terminal, program, only_looks: false };
    let mut configured = image::configure(runtime, &options.image, wanted)?;
    let mut config = serde_json::from_str(&configured.text).map_err(|error| Error::other(error.to_string()))?;
    if options.unpack {
        unpack(&mut config, &configured.store, &dir.join(root), &options.program)?;
    } else {
        fs::create_dir(dir.join(root)).doing(|| format!("make {}", dir.join(root).display()))?;
    }
    let text = serde_json::to_string_pretty(&config).map_err(|error| Error::other(error.to_string()))? + "\n";
    let path = dir.join("config.json");
    fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
    match options.unpack {
        true => configured.write_files(dir),
        false => configured.settle(dir, &configured.link(dir)?, None),
    }
}

/// Makes one directory of the layers that `config` names, which needs them no more then.
fn unpack(config: &mut Value, store: &Store, root: &Path, program: &OsString) -> Result<()> {
    let annotations = config["annotations"].as_object_mut().map(std::mem::take).unwrap_or_default();
    let lower = annotations.get(LOWER).and_then(Value::as_str).unwrap_or("[]").to_owned();
    let is_others = |(key, _): &(String, Value)| ![LOWER, IDMAP, IMAGE].contains(&key.as_str());
    // Nothing in it is newer, and crun 1.8 takes no later version.
    config["ociVersion"] = "1.0.2".into();
    config["annotations"] = annotations.into_iter().filter(is_others).collect::<Map<_, _>>().into();
    let helper = helper::find("kelson-image", program)?;
    let mut command = Command::new(&helper);
    command.arg("--store").arg(&store.root).args(["flatten", "--", &lower]).arg(root);
    let status = command.status().doing(|| format!("start {}", helper.display()))?;
    match status.success() {
        true => Ok(()),
        // It has said why.
        false => Err(Error::other(format!("the layers could not be unpacked into {}", root.display()))),
    }
}

/// Becomes `kelson-image` with these words, and what `global` says.
pub fn image(global: &Global, program: &OsString, words: &[OsString]) -> Result<u8> {
    let helper = helper::find("kelson-image", program)?;
    let error = Command::new(&helper).args(options_of(global)).args(words).exec();
    Err(error).doing(|| format!("execute {}", helper.display()))
}

/// The global options that say the same again.
fn options_of(global: &Global) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![];
    let mut add = |option: &str, value: OsString| words.extend([option.into(), value]);
    if let Some(root) = &global.root {
        add("--root", root.into());
    }
    if let Some(value) = global.log.to_value() {
        add("--log", value);
    }
    if global.log_format == Format::Json {
        add("--log-format", "json".into());
    }
    match global.log_level {
        Some(level) => add("--log-level", level.as_str().to_ascii_lowercase().into()),
        None if global.debug => add("--log-level", "debug".into()),
        None => {}
    }
    if let Some(rootless) = global.rootless {
        add("--rootless", rootless.to_string().into());
    }
    words
}
