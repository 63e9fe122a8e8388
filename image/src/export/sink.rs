//! Where files are written to: an archive or a directory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::image::Digest;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

pub struct Sink {
    place: Place,
    /// What is there already.
    names: HashSet<String>,
}

enum Place {
    Archive(BufWriter<Box<dyn Write>>),
    Directory(PathBuf),
}

/// Counts and hashes what is written.
struct Checked<'w> {
    to: &'w mut dyn Write,
    count: u64,
    hash: Sha256,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.count += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

impl Sink {
    pub fn archive(output: Box<dyn Write>) -> Self {
        Self { place: Place::Archive(BufWriter::with_capacity(256 << 10, output)), names: HashSet::new() }
    }

    pub fn directory(path: PathBuf) -> Self {
        Self { place: Place::Directory(path), names: HashSet::new() }
    }

    /// Writes a file, once.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, bytes.len() as u64, |output| Ok(output.write_all(bytes)?))
    }

    /// Writes a file, once, that must have this size and digest; `write` gives the content.
    ///
    /// # Errors
    /// It is not that: what it came from is damaged.
    pub fn put_checked(
        &mut self,
        name: &str,
        size: u64,
        digest: Digest,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        self.file(name, size, |output| {
            let mut checked = Checked { to: output, count: 0, hash: Sha256::new() };
            write(&mut checked)?;
            let found = Digest::from_bytes(checked.hash.finalize().into());
            match found == digest && checked.count == size {
                true => Ok(()),
                false => Err(Error::other(format!("the store's copy of {digest} is damaged: it has {found}"))
                    .hint("remove the image and import it again")),
            }
        })
    }

    fn file(&mut self, name: &str, size: u64, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        match &mut self.place {
            Place::Archive(output) => {
                let padding = size.next_multiple_of(512) - size;
                output.write_all(header(name, size)?.as_bytes())?;
                write(output)?;
                Ok(output.write_all(&[0; 512][..padding as usize])?)
            }
            Place::Directory(root) => {
                let path = root.join(name);
                let make = || {
                    fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
                    File::create(&path)
                };
                let mut output = BufWriter::with_capacity(256 << 10, make().doing(|| format!("make {name}"))?);
                write(&mut output)?;
                Ok(output.flush()?)
            }
        }
    }

    /// Ends what is written.
    pub fn finish(self) -> Result<()> {
        if let Place::Archive(mut output) = self.place {
            output.write_all(&[0; 1024])?;
            output.flush()?;
        }
        Ok(())
    }
}

/// The same for the same content, at any time.
fn header(name: &str, size: u64) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name).doing(|| format!("name {name}"))?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}
