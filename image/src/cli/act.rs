//! What each command does.

use std::ffi::OsStr;
use std::io::Write;

use kelson::error::{Context, Error, Kind, Result};
use kelson::image::store::Image;
use kelson::image::{Origin, Reference, Store};
use nix::unistd::geteuid;

use super::{Command, Invocation, Options};
use crate::import::{self, Import, Names};
use crate::platform::Platform;
use crate::store::{Writer, ids};

/// Does what the command line asks for.
pub fn perform(invocation: &Invocation) -> Result<()> {
    let options = &invocation.options;
    match &invocation.command {
        Command::Ensure(word) => {
            let record =
                serde_json::to_string(&ensure(options, word)?).map_err(|error| Error::other(error.to_string()))?;
            print(&format!("{record}\n"))
        }
        Command::Print(text) => print(text),
        _ => Err(Error::other("")),
    }
}

pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).doing(|| "write to standard output")
}

fn locate(options: &Options) -> Result<Store> {
    Store::locate(options.store.as_deref(), !geteuid().is_root())
}

/// The store for who changes it. There must be no second thread yet.
fn writer(options: &Options) -> Result<Writer> {
    let store = locate(options)?;
    let ownership = ids::enter(&store, options.squash)?;
    Writer::open(store, ownership)
}

/// The image that `word` names: of the store, or brought there.
fn ensure(options: &Options, word: &OsStr) -> Result<Image> {
    let origin = Origin::parse(word)?;
    let platform = options.platform.as_ref().map(Platform::to_string);
    if let Some(image) = locate(options)?.find(&origin, platform.as_deref())? {
        return Ok(image);
    }
    match &origin {
        Origin::File(file) => {
            let names = Names::None;
            import::one(
                &writer(options)?,
                &Import { origin: file, platform: options.platform.as_ref(), limits: &options.limits, names },
            )
        }
        Origin::Id(digits) => Err(Error::new(Kind::State, format!("there is no image with the id {digits}"))
            .hint("kelson image list tells which there are")),
        Origin::Name(name) => Err(missing(word, name)),
    }
}

fn missing(word: &OsStr, name: &Reference) -> Error {
    let error = Error::new(Kind::State, format!("there is no image {}", name.familiar()));
    match std::path::Path::new(word).exists() {
        true => error.hint(format!("for the file of this name write ./{}", word.to_string_lossy())),
        false => error,
    }
}
