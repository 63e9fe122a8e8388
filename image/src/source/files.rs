//! The files that an image's parts are in: named ranges of one archive, or files below a directory.
//!
//! An archive that can be read anywhere is not unpacked: its entries are found once, and each part is read where it lies, several
//! at once (pread(2)). A compressed one, or a pipe, becomes a nameless file in the store first.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kelson::error::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::index::{self, Index, Member};
use crate::unpack::Limits;

/// How many links may lead from one entry to another.
const MAX_LINKS: usize = 8;

/// Files by name.
pub struct Files {
    path: PathBuf,
    place: Place,
}

enum Place {
    Directory(OwnedFd),
    Archive { file: Arc<File>, index: Index },
}

/// One file, or the range of an archive that holds one.
#[derive(Clone, Debug)]
pub struct Part {
    file: Arc<File>,
    offset: u64,
    /// Bytes.
    pub size: u64,
}

impl Files {
    /// Those of `path`. `scratch` gives a nameless file that can be written, for what cannot be read where it is.
    ///
    /// # Errors
    /// There is nothing at `path`, or neither a directory nor an archive; the archive is damaged, or has too many entries.
    pub fn open(path: &Path, limits: &Limits, scratch: impl FnOnce() -> Result<File>) -> Result<Self> {
        Self::open_at(path, limits, scratch).doing(|| format!("open {}", path.display()))
    }

    fn open_at(path: &Path, limits: &Limits, scratch: impl FnOnce() -> Result<File>) -> Result<Self> {
        let path = path.to_owned();
        let file = File::from(openat(AT_FDCWD, &path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?);
        let info = file.metadata()?;
        if info.is_dir() {
            return Ok(Self { path, place: Place::Directory(file.into()) });
        }
        if !info.is_file() && !info.file_type().is_fifo() {
            return Err(Error::other("neither a file nor a directory"));
        }
        let file = match info.is_file() && !super::compression::is_compressed(&file)? {
            true => file,
            false => super::compression::unpacked(file, scratch()?, limits)?,
        };
        let index = index::read(&file)?;
        Ok(Self { path, place: Place::Archive { file: Arc::new(file), index } })
    }

    /// Where the files are, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file called `name`; `None` if there is none. Links are followed, and cannot leave the archive or directory.
    ///
    /// # Errors
    /// The links go in a circle or lead out, or what is called so is no file.
    pub fn find(&self, name: &str) -> Result<Option<Part>> {
        let found = match &self.place {
            Place::Directory(root) => below(root, name),
            Place::Archive { file, index } => member(file, index, name),
        };
        found.doing(|| format!("{name} in {}", self.path.display()))
    }

    /// The file called `name`, which another one says is there.
    ///
    /// # Errors
    /// As [`Files::find`], and there is none.
    pub fn part(&self, name: &str) -> Result<Part> {
        self.find(name)?.ok_or_else(|| Error::other(format!("{} lacks {name:?}", self.path.display())))
    }

    /// The content of the file called `name`, if there is one.
    ///
    /// # Errors
    /// As [`Files::find`]; it has more than `most` bytes.
    pub fn content(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(part) = self.find(name)? else { return Ok(None) };
        part.content(most).map(Some).doing(|| format!("read {name} of {}", self.path.display()))
    }

    /// Names of the files at the top, and of those in directories at the top; of a directory none.
    pub fn names(&self) -> Vec<&str> {
        match &self.place {
            Place::Directory(_) => vec![],
            Place::Archive { index, .. } => index.members.keys().map(String::as_str).collect(),
        }
    }
}

fn below(root: &OwnedFd, name: &str) -> Result<Option<Part>> {
    let name = index::clean(name)?;
    // Not blocking: a FIFO must be no trap.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = loop {
        match openat2(root, name.as_str(), how) {
            // Something was renamed meanwhile (openat2(2)).
            Err(Errno::EAGAIN) => {}
            opened => break opened,
        }
    };
    let file = match opened {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(Errno::EXDEV) => return Err(Error::other("a link leads out of the directory")),
        file => File::from(file?),
    };
    let info = file.metadata()?;
    match info.is_file() {
        true => Ok(Some(Part { file: Arc::new(file), offset: 0, size: info.size() })),
        false => Err(Error::other("this is no file")),
    }
}

fn member(file: &Arc<File>, index: &Index, name: &str) -> Result<Option<Part>> {
    let mut name = index::clean(name)?;
    for _ in 0..=MAX_LINKS {
        match index.members.get(&name) {
            None => return Ok(None),
            Some(Member::File { offset, size }) => {
                return Ok(Some(Part { file: file.clone(), offset: *offset, size: *size }));
            }
            Some(Member::Link(target)) => name.clone_from(target),
            Some(Member::Other) => return Err(Error::other("this is no file")),
        }
    }
    Err(Error::other(format!("more than {MAX_LINKS} links lead to one another")))
}

impl Part {
    /// A reader from the beginning; several may read at once.
    pub fn reader(&self) -> PartReader {
        PartReader { part: self.clone(), position: 0 }
    }

    /// All of it.
    ///
    /// # Errors
    /// It has more than `most` bytes.
    pub fn content(&self, most: u64) -> Result<Vec<u8>> {
        if self.size > most {
            return Err(Error::other(format!("{} bytes, where at most {most} are taken", self.size)));
        }
        let mut content = vec![];
        self.reader().read_to_end(&mut content)?;
        Ok(content)
    }
}

pub struct PartReader {
    part: Part,
    position: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.part.size - self.position;
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let count = self.part.file.read_at(&mut buffer[..most], self.part.offset + self.position)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends too early"));
        }
        self.position += count as u64;
        Ok(count)
    }
}
