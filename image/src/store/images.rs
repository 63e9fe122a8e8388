//! Records of images: made, named, taken away.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Kind, Result};
use kelson::image::store::{FORMAT, Fingerprint, Image, Source};
use kelson::image::{Digest, Origin, Reference, Store};

use super::prune::Freed;
use super::work::{Transaction, Work};
use super::{Hold, Writer, read_record};

/// A record and where it is below `images/`.
#[derive(Clone, Debug)]
pub struct Record {
    pub path: PathBuf,
    pub image: Image,
}

impl Record {
    /// The name as a person writes it.
    pub fn familiar(&self) -> Option<String> {
        let name = self.image.name.as_ref()?;
        Some(name.parse::<Reference>().map_or_else(|_| name.clone(), |name| name.familiar()))
    }
}

/// All records of the store. What cannot be read is told and left out.
pub fn records(store: &Store) -> Result<Vec<Record>> {
    let mut records = vec![];
    for path in store.records()? {
        match store.record(&path) {
            Ok(image) => records.extend(image.map(|image| Record { path, image })),
            Err(error) => log::warn!("{error}"),
        }
    }
    Ok(records)
}

/// The records of the image that `word` names: that of a name, or all of an id.
///
/// # Errors
/// There is none, or the digits are the beginning of several ids.
pub fn named(store: &Store, word: &str) -> Result<Vec<Record>> {
    let origin = Origin::parse(word.as_ref())?;
    let none = || {
        Error::new(Kind::State, format!("there is no image {word:?}")).hint("kelson image list tells which there are")
    };
    if let Origin::File(_) = origin {
        return Err(none());
    }
    if let Origin::Name(reference) = &origin
        && let Some(image) = store.image(reference)?
    {
        return Ok(vec![Record { path: Store::record_of(reference), image }]);
    }
    let image = store.find(&origin, None)?.ok_or_else(none)?;
    Ok(records(store)?.into_iter().filter(|record| record.image.config == image.config).collect())
}

impl Transaction<'_> {
    /// Records an image, all of whose layers and blobs this transaction uses, under its id and under `names`.
    pub fn add(&self, image: &Image, names: &[Reference]) -> Result<Image> {
        self.settle()?;
        let _lock = self.writer.lock(Hold::Shared)?;
        let mut anchor = Image { name: None, ..image.clone() };
        let path = Store::anchor_of(image.config);
        // One that came from an archive of docker's does not forget the manifest that it had.
        if anchor.manifest.is_none()
            && let Ok(Some(known)) = self.writer.store.record(&path)
        {
            anchor.manifest = known.manifest.filter(|manifest| self.writer.store.blob(*manifest).exists());
        }
        self.writer.put(&self.work, &path, &anchor)?;
        for name in names {
            let named = Image { name: Some(name.to_string()), ..image.clone() };
            self.writer.put(&self.work, &Store::record_of(name), &named)?;
        }
        Ok(Image { name: names.first().map(Reference::to_string), ..image.clone() })
    }

    /// Remembers which image a file held, if it is still the one of `before`.
    pub fn remember(&self, path: &Path, before: &Fingerprint, selection: String, config: Digest) -> Result<()> {
        if Fingerprint::of(path).ok().as_ref() != Some(before) || before.is_too_new() {
            return Ok(());
        }
        let place = self.writer.store.root.join("sources").join(before.file_name());
        let known: Option<Source> = read_record(&place).unwrap_or_default();
        let mut images =
            known.filter(|source| source.fingerprint == *before).map(|source| source.images).unwrap_or_default();
        images.insert(selection, Store::anchor_of(config));
        self.writer.write_record(&self.work, &place, &Source { format: FORMAT, fingerprint: *before, images })
    }
}

impl Writer {
    fn put(&self, work: &Work, path: &Path, image: &Image) -> Result<()> {
        self.write_record(work, &self.store.root.join("images").join(path), image)
    }

    /// Gives the image that `word` names another name.
    pub fn tag(&self, word: &str, name: &Reference) -> Result<()> {
        if name.digest.is_some() {
            return Err(Error::usage("a digest cannot be given to an image as its name").hint("NAME:TAG"));
        }
        let _lock = self.lock(Hold::Shared)?;
        let records = named(&self.store, word)?;
        let record = records.first().ok_or_else(|| Error::other(format!("there is no image {word:?}")))?;
        let work = self.work("R")?;
        self.put(&work, &Store::record_of(name), &Image { name: Some(name.to_string()), ..record.image.clone() })
    }

    /// Takes the name or id `word` away, and with the last name the image.
    ///
    /// # Errors
    /// There is no such image; an id has several names, or a container uses it: `force` takes its names nevertheless, and what
    /// is used stays until [`Writer::prune`] finds that it is not.
    pub fn remove(&self, word: &str, force: bool) -> Result<Removed> {
        let lock = self.lock(Hold::Alone)?;
        let mut going = named(&self.store, word)?;
        let config = going.first().map(|record| record.image.config);
        let Some(config) = config else { return Err(Error::other(format!("there is no image {word:?}"))) };
        let names = |records: &[Record]| records.iter().filter_map(Record::familiar).collect::<BTreeSet<_>>();
        let all: Vec<_> = records(&self.store)?.into_iter().filter(|record| record.image.config == config).collect();
        let (gone, known) = (names(&going), names(&all));
        if gone.len() > 1 && !force {
            let names = gone.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::state(format!("the image {word:?} has several names: {names}"))
                .hint("name one of them, or --force takes all"));
        }
        let is_last = gone == known;
        if is_last {
            if !force && let Some(user) = self.user_of(&all)? {
                return Err(user
                    .refuses(&format!("the image {word:?}"))
                    .hint("delete the container or the bundle first, or --force takes the name only"));
            }
            going = all;
        }
        for record in &going {
            let path = self.store.root.join("images").join(&record.path);
            fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
        }
        self.remove_empty_directories()?;
        let freed = if is_last { self.collect(lock)? } else { Freed::default() };
        Ok(Removed { names: gone.into_iter().collect(), image: is_last.then_some(config), freed })
    }
}

/// What [`Writer::remove`] took away.
#[derive(Debug)]
pub struct Removed {
    pub names: Vec<String>,
    /// The id, if nothing of the image is left.
    pub image: Option<Digest>,
    pub freed: Freed,
}
