//! `bundle`: writes what `run --image` would run, and stops there; and `image`, which is another program's.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use super::{Runtime, image};
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::image::helper;

/// Writes config.json, the files that it mounts, and an empty directory for the root.
///
/// # Errors
/// The directory exists, or there is no such image.
pub fn bundle(runtime: &Runtime, options: &cli::Bundle) -> Result<()> {
    if options.unpack {
        return Err(Error::usage("--unpack: not supported yet"));
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
    fs::create_dir(dir.join(root)).doing(|| format!("make {}", dir.join(root).display()))?;
    let link = configured.link(dir)?;
    configured.settle(dir, &link)?;
    let text = pretty(&configured.text)?;
    let path = dir.join("config.json");
    fs::write(&path, text).doing(|| format!("write {}", path.display()))
}

fn pretty(text: &str) -> Result<String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| Error::other(error.to_string()))?;
    serde_json::to_string_pretty(&value).map(|text| text + "\n").map_err(|error| Error::other(error.to_string()))
}

/// Becomes `kelson-image` with these words.
pub fn image(program: &OsString, words: &[OsString]) -> Result<u8> {
    let helper = helper::find("kelson-image", program)?;
    let error = std::process::Command::new(&helper).args(words).exec();
    Err(error).doing(|| format!("execute {}", helper.display()))
}
