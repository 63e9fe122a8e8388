//! From the store to an archive or a layout that other programs load.

mod docker;
mod layout;
mod sink;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::image::store::Image;
use kelson::image::{Digest, Reference, Store};

use sink::Sink;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    DockerArchive,
    OciArchive,
    /// A directory.
    Oci,
}

impl Format {
    /// Reads the value of `--format`.
    pub fn parse(word: &str) -> Result<Self> {
        match word {
            "docker-archive" => Ok(Self::DockerArchive),
            "oci-archive" => Ok(Self::OciArchive),
            "oci" | "oci-dir" => Ok(Self::Oci),
            other => {
                Err(Error::usage(format!("--format: unknown format {other:?}"))
                    .hint("docker-archive, oci-archive or oci"))
            }
        }
    }
}

/// An image with the names under which it is to be found in what is written.
pub struct Exported {
    pub image: Image,
    pub names: Vec<Reference>,
}

/// The images, each once, with all the names that were asked for.
pub fn collect(images: impl IntoIterator<Item = (Image, Vec<Reference>)>) -> Vec<Exported> {
    let mut found: BTreeMap<Digest, Exported> = BTreeMap::new();
    for (image, names) in images {
        let entry = found.entry(image.config).or_insert_with(|| Exported { image, names: vec![] });
        for name in names {
            if !entry.names.contains(&name) {
                entry.names.push(name);
            }
        }
    }
    found.into_values().collect()
}

/// Writes `images` to `output` (`None`: standard output).
///
/// # Errors
/// There is something already, or it cannot be written; a blob of the store is damaged. Nothing is left then.
pub fn export(store: &Store, images: &[Exported], format: Format, output: Option<&Path>) -> Result<()> {
    let write = |sink: &mut Sink| match format {
        Format::DockerArchive => docker::write(store, images, sink),
        Format::OciArchive | Format::Oci => layout::write(store, images, sink),
    };
    let output = output.filter(|path| *path != Path::new("-"));
    match (format, output) {
        (Format::Oci, None) => {
            Err(Error::usage("a layout is a directory and no stream").hint("-o DIR, or --format oci-archive"))
        }
        (Format::Oci, Some(path)) => directory(path, write),
        (_, None) if io::stdout().is_terminal() => {
            Err(Error::usage("an archive is nothing for a terminal").hint("-o FILE, or a pipe"))
        }
        (_, None) => archive(Box::new(io::stdout()), write).doing(|| "write to standard output"),
        (_, Some(path)) if path.exists() && !path.is_file() => {
            let file = File::options().write(true).open(path).doing(|| format!("open {}", path.display()))?;
            archive(Box::new(file), write).doing(|| format!("write {}", path.display()))
        }
        (_, Some(path)) => file(path, write),
    }
}

fn archive(output: Box<dyn Write>, write: impl FnOnce(&mut Sink) -> Result<()>) -> Result<()> {
    let mut sink = Sink::archive(output);
    write(&mut sink)?;
    sink.finish()
}

/// What is being written, removed when it does not become whole.
struct Draft(Option<PathBuf>);

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The failure is told already.
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

impl Draft {
    fn beside(path: &Path) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".kelson-{}", std::process::id()));
        Self(Some(path.with_file_name(name)))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn rename(mut self, to: &Path) -> Result<()> {
        std::fs::rename(self.path(), to).doing(|| format!("write {}", to.display()))?;
        self.0 = None;
        Ok(())
    }
}

fn file(path: &Path, write: impl FnOnce(&mut Sink) -> Result<()>) -> Result<()> {
    let draft = Draft::beside(path);
    let file = File::options().write(true).create_new(true).open(draft.path());
    let file = file.doing(|| format!("write {}", path.display()))?;
    archive(Box::new(file), write).doing(|| format!("write {}", path.display()))?;
    draft.rename(path)
}

fn directory(path: &Path, write: impl FnOnce(&mut Sink) -> Result<()>) -> Result<()> {
    let draft = Draft::beside(path);
    std::fs::create_dir(draft.path()).doing(|| format!("write {}", path.display()))?;
    let mut sink = Sink::directory(draft.path().to_owned());
    write(&mut sink).and_then(|()| sink.finish()).doing(|| format!("write {}", path.display()))?;
    // Takes the place of an empty directory, and of nothing else (rename(2)).
    draft.rename(path).map_err(|error| error.hint("the directory must not be there, or be empty"))
}

/// A blob of the store as a whole.
fn content(store: &Store, digest: Digest) -> Result<Vec<u8>> {
    let path = store.blob(digest);
    let bytes = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
    match crate::source::digest_of(&bytes) == digest {
        true => Ok(bytes),
        false => Err(Error::other(format!("{} is damaged", path.display()))),
    }
}
