//! What each command does.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use kelson::error::{Context, Error, Kind, Result};
use kelson::image::changes::Request;
use kelson::image::store::Image;
use kelson::image::{Origin, Reference, Store};
use kelson::lifecycle::Runtime;
use serde_json::json;

use super::size::human;
use super::{Command, Invocation, Options, show};
use crate::changes::{self, Container};
use crate::commit;
use crate::export::{self, Format};
use crate::flatten;
use crate::import::{self, Import, Names};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::pull::{self, Pull};
use crate::registry;
use crate::store::images::named;
use crate::store::prune::Freed;
use crate::store::{Hold, Writer, ids};

/// Does what the command line asks for.
pub fn perform(invocation: &Invocation) -> Result<()> {
    let options = &invocation.options;
    match &invocation.command {
        Command::Pull(words) => pull_all(options, words),
        Command::Import(words) => import_all(options, words),
        Command::List if options.layers => {
            let store = locate(options)?;
            // Directories of other users of the container are closed to the caller.
            ids::enter_as_root(&store, kind(options))?;
            print(&show::kept(&store, options)?)
        }
        Command::List => print(&show::list(&locate(options)?, options)?),
        Command::Inspect(words) => print(&show::inspect(&locate(options)?, words)?),
        Command::History(word) => print(&show::history(&locate(options)?, word, options)?),
        Command::Remove(words) => remove(options, words),
        Command::Prune => prune(options),
        Command::Export(words) => export(options, words),
        Command::Tag(word, name) => writer(options)?.tag(word, name),
        Command::Ensure(word) => {
            let image = ensure(options, word)?;
            let record = serde_json::to_string(&image).map_err(|error| Error::other(error.to_string()))?;
            print(&format!("{record}\n"))
        }
        Command::Diff(request) => diff(options, request),
        Command::Commit(request, commit) => {
            let container = Container::open(request)?;
            let store = locate(options)?;
            let ownership = ids::enter_of_container(&store, kind(options), request.user_ns.is_some())?;
            let writer = Writer::open(store, ownership)?;
            let image = commit::commit(&writer, container, request, commit, &options.limits)?;
            print(&format!("{}\n", image.config))
        }
        Command::Flatten(layers, dir) => {
            ids::enter_as_root(&locate(options)?, kind(options))?;
            flatten::flatten(layers, dir)
        }
        Command::Volumes => {
            let store = locate(options)?;
            let ownership = ids::enter_as_root(&store, kind(options))?;
            print(&show::volumes(&Writer::open(store, ownership)?, options)?)
        }
        Command::RemoveVolumes(names) => {
            let store = locate(options)?;
            let ownership = ids::enter_as_root(&store, kind(options))?;
            Writer::open(store, ownership)?.remove_volumes(names)?;
            print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())
        }
        Command::MakeVolume(name, layers, path) => {
            let store = locate(options)?;
            let ownership = ids::enter_as_root(&store, kind(options))?;
            Writer::open(store, ownership)?.make_volume(name, layers, path.as_deref())
        }
        Command::Print(text) => print(text),
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).doing(|| "write to standard output")
}

fn diff(options: &Options, request: &Request) -> Result<()> {
    let container = Container::open(request)?;
    // Files of which the caller is not the owner, or that are closed to their owner, are read as the container's root.
    ids::enter_of_container(&locate(options)?, kind(options), request.user_ns.is_some())?;
    let mut out = std::io::stdout().lock();
    let text = changes::show(container, options.json)?;
    out.write_all(&text).and_then(|()| out.flush()).doing(|| "write to standard output")
}

/// What a store that is made now will be.
fn kind(options: &Options) -> ids::Kind {
    match (options.squash, options.keep_ids) {
        (true, _) => ids::Kind::Squash,
        (false, true) => ids::Kind::KeepIds,
        (false, false) => ids::Kind::Usual,
    }
}

fn locate(options: &Options) -> Result<Store> {
    // As kelson decides it: who is root of a user's namespace has the user's images.
    Store::locate(options.store.as_deref(), Runtime::new(&options.log)?.rootless)
}

/// The store for who changes it. There must be no second thread yet.
fn writer(options: &Options) -> Result<Writer> {
    let store = locate(options)?;
    let ownership = ids::enter(&store, kind(options))?;
    Writer::open(store, ownership)
}

/// The name and the id of an image that came into the store.
fn tell(options: &Options, image: &Image) -> Result<()> {
    let name = image.name.as_ref().and_then(|name| name.parse::<Reference>().ok());
    match name.filter(|_| !options.quiet) {
        Some(name) => print(&format!("{} {}\n", name.familiar(), image.config)),
        None => print(&format!("{}\n", image.config)),
    }
}

fn pull_all(options: &Options, words: &[String]) -> Result<()> {
    let names = words.iter().map(|word| match Origin::parse(word.as_ref())? {
        Origin::Name(name) => Ok(name),
        _ => Err(Error::usage(format!("{word:?} is no name of an image")).hint("kelson image import takes files")),
    });
    let names = names.collect::<Result<Vec<_>>>()?;
    let writer = writer(options)?;
    names.iter().try_for_each(|name| tell(options, &pull_one(&writer, options, name)?))
}

fn pull_one(writer: &Writer, options: &Options, name: &Reference) -> Result<Image> {
    let registry = registry::Options { plain_http: options.plain_http.clone(), ..registry::Options::default() };
    let progress = Progress::new(options.quiet);
    let platform = options.platform.as_ref();
    pull::pull(writer, name, &Pull { platform, limits: &options.limits, registry, progress: &progress })
}

fn import_all(options: &Options, words: &[OsString]) -> Result<()> {
    let files = words.iter().map(|word| match Origin::parse(word)? {
        Origin::File(file) => Ok(file),
        _ => Err(Error::usage(format!("{word:?} is no file"))
            .hint("a file is given as ./FILE; kelson image pull takes names")),
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    let writer = writer(options)?;
    for origin in &files {
        let names = if options.names.is_empty() { Names::Own } else { Names::Given(&options.names) };
        let (platform, limits) = (options.platform.as_ref(), &options.limits);
        for image in import::all(&writer, &Import { origin, platform, limits, names })? {
            tell(options, &image)?;
        }
    }
    Ok(())
}

/// The image that `word` names: of the store, or brought there.
fn ensure(options: &Options, word: &OsStr) -> Result<Image> {
    let origin = Origin::parse(word)?;
    let platform = options.platform.as_ref().map(Platform::to_string);
    let is_fixed = !options.always_pull || !matches!(origin, Origin::Name(_));
    if is_fixed && let Some(image) = locate(options)?.find(&origin, platform.as_deref())? {
        return Ok(image);
    }
    match &origin {
        Origin::File(file) => {
            let (platform, limits) = (options.platform.as_ref(), &options.limits);
            import::one(&writer(options)?, &Import { origin: file, platform, limits, names: Names::None })
        }
        Origin::Id(digits) => Err(Error::new(Kind::State, format!("there is no image with the id {digits}"))
            .hint("kelson image list tells which there are")),
        Origin::Name(name) => {
            let pulled = pull_one(&writer(options)?, options, name);
            match Path::new(word).exists() {
                // Of more use than what a registry says.
                true => pulled.map_err(|error| {
                    Error::new(error.kind(), without_hint(&error))
                        .hint(format!("for the file of this name write ./{}", word.to_string_lossy()))
                }),
                false => pulled,
            }
        }
    }
}

fn without_hint(error: &Error) -> String {
    let text = error.to_string();
    let hint = error.way_out().map(|hint| format!(" ({hint})"));
    hint.and_then(|hint| text.strip_suffix(&hint).map(str::to_owned)).unwrap_or(text)
}

fn remove(options: &Options, words: &[String]) -> Result<()> {
    let writer = writer(options)?;
    for word in words {
        let removed = writer.remove(word, options.force)?;
        if options.json {
            let Freed { layers, bytes, .. } = removed.freed;
            let value =
                json!({ "untagged": removed.names, "deleted": removed.image, "layers": layers, "bytes": bytes });
            print(&format!("{value}\n"))?;
            continue;
        }
        let mut text: String = removed.names.iter().map(|name| format!("Untagged: {name}\n")).collect();
        text.extend(removed.image.map(|id| format!("Deleted: {id}\n")));
        print(&text)?;
    }
    Ok(())
}

fn prune(options: &Options) -> Result<()> {
    let Freed { images, layers, kept, bytes } = writer(options)?.prune(options.all, options.layers)?;
    if options.json {
        return print(&format!("{}\n", json!({ "images": images, "layers": layers, "kept": kept, "bytes": bytes })));
    }
    let mut text: String = images.iter().map(|name| format!("Deleted: {name}\n")).collect();
    text.extend(kept.iter().map(|id| format!("Deleted: the layer of {id}\n")));
    text.push_str(&format!("Freed: {} ({layers} layers)\n", human(bytes)));
    print(&text)
}

fn export(options: &Options, words: &[String]) -> Result<()> {
    let format = options.format.as_deref().map_or(Ok(Format::DockerArchive), Format::parse)?;
    let writer = writer(options)?;
    let transaction = writer.transaction()?;
    let lock = writer.lock(Hold::Shared)?;
    let mut images = vec![];
    for word in words {
        let found = named(&writer.store, word)?;
        let names: BTreeSet<_> = found.iter().filter_map(|record| record.image.name.clone()).collect();
        let names = names.iter().map(|name| name.parse()).collect::<Result<Vec<Reference>>>()?;
        let image = found.into_iter().next().ok_or_else(|| Error::other(format!("there is no image {word:?}")))?.image;
        images.push((image, names));
    }
    for (image, _) in &images {
        transaction.keeps(image)?;
    }
    drop(lock);
    export::export(&writer.store, &export::collect(images), format, options.output.as_deref())
}
