//! Changes as the archive of a layer (image-spec, layer.md): POSIX's pax format, whose records say what a header has no room for.
//!
//! Times are whole: with their nanoseconds, so that what was not changed is the same file again. Holes are written as zeros:
//! the specification advises against sparse entries, and compression makes nothing of zeros.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::sys::stat::{SFlag, major, minor};
use nix::unistd::{Whence, lseek};
use tar::{EntryType, Header};

use super::file::{Meta, Time};
use super::owners::Owners;
use super::walk::Change;

/// Largest number in a header's field of 7 octal digits, and in one of 11.
const SMALL: u64 = 0o7777777;
const LARGE: u64 = 0o77777777777;
/// Bytes that a header has for a name.
const FIELD: usize = 100;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes an archive to `output`.
pub struct Archive<W> {
    output: W,
    /// Names of files that have others, by their device and number.
    linked: HashMap<(u64, u64), PathBuf>,
    /// Bytes that were written, and how many may be.
    written: u64,
    limit: u64,
    /// Every file belongs to the caller, who is root in the image.
    is_squashed: bool,
    owners: Owners,
    entries: u64,
}

/// Records of an extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl<W: Write> Archive<W> {
    pub fn new(output: W, limit: u64, is_squashed: bool, owners: Owners) -> Self {
        Self { output, linked: HashMap::new(), written: 0, limit, is_squashed, owners, entries: 0 }
    }

    /// Adds one change.
    ///
    /// # Errors
    /// A name that would be a mark in an archive; a file that changes while it is read; all together is too large.
    pub fn add(&mut self, change: &Change<'_>) -> Result<()> {
        let doing = || format!("add /{}", change.path.display());
        self.add_entry(change).doing(doing)
    }

    /// How many entries there are so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Ends the archive, and gives back what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; 1024])?;
        Ok(self.output)
    }

    fn add_entry(&mut self, change: &Change<'_>) -> Result<()> {
        let name = change.path.file_name().unwrap_or_default();
        if name.as_bytes().starts_with(b".wh.") {
            return Err(Error::other("in a layer a name that begins with .wh. is the mark of a file that is gone")
                .hint("remove or rename it in the container"));
        }
        let Some(file) = change.file else {
            let mut mark = std::ffi::OsString::from(".wh.");
            mark.push(name);
            let mark = change.path.with_file_name(mark);
            return self.header(&mark, EntryType::Regular, &gone(), b"", Records::default());
        };
        let meta = self.owned(self.owners.meta(file)?);
        let kind = match meta.kind() {
            SFlag::S_IFDIR => EntryType::Directory,
            SFlag::S_IFLNK => EntryType::Symlink,
            SFlag::S_IFCHR => EntryType::Char,
            SFlag::S_IFBLK => EntryType::Block,
            SFlag::S_IFIFO => EntryType::Fifo,
            SFlag::S_IFREG => EntryType::Regular,
            // No archive has sockets: they are of a process that will not be there.
            _ => return Ok(()),
        };
        let mut records = Records::default();
        if kind != EntryType::Directory && meta.links > 1 {
            if let Some(first) = self.linked.get(&meta.file).cloned() {
                let first = first.as_os_str().as_bytes();
                return self.header(change.path, EntryType::Link, &Meta { size: 0, ..meta }, first, records);
            }
            self.linked.insert(meta.file, change.path.to_owned());
        }
        for (name, value) in self.owners.attributes(&file)? {
            records.add(&[b"SCHILY.xattr.", name.to_bytes()].concat(), &value);
        }
        match kind {
            EntryType::Symlink => {
                let target = readlinkat(file, "")?;
                self.header(change.path, kind, &Meta { size: 0, ..meta }, target.as_bytes(), records)
            }
            EntryType::Regular => self.file(change.path, file, &meta, records),
            _ => self.header(change.path, kind, &Meta { size: 0, ..meta }, b"", records),
        }
    }

    fn owned(&self, meta: Meta) -> Meta {
        if self.is_squashed { Meta { uid: 0, gid: 0, ..meta } } else { meta }
    }

    fn file(&mut self, path: &Path, file: BorrowedFd<'_>, looked: &Meta, records: Records) -> Result<()> {
        // The descriptor is of a regular file; it is opened again to be read, and no other file can be there.
        let mut file = File::open(crate::unpack::path_of(file))?;
        let meta = Meta { size: Meta::of(file.as_fd())?.size, ..*looked };
        if self.written.saturating_add(meta.size) > self.limit {
            return Err(Error::other(format!("with it the layer has more than {} bytes", self.limit))
                .hint("--unpack-limits bytes=N raises the limit"));
        }
        self.header(path, EntryType::Regular, &meta, b"", records)?;
        let mut at = 0;
        while at < meta.size {
            let data = match lseek(&file, at as i64, Whence::SeekData) {
                Ok(data) => (data as u64).min(meta.size),
                // Nothing but a hole up to the end.
                Err(Errno::ENXIO) => meta.size,
                // No holes are known here.
                Err(Errno::EINVAL) => at,
                Err(errno) => return Err(errno.into()),
            };
            self.zeros(data - at)?;
            if data == meta.size {
                at = data;
                continue;
            }
            let end = match lseek(&file, data as i64, Whence::SeekHole) {
                Ok(end) => (end as u64).min(meta.size),
                Err(_) => meta.size,
            };
            lseek(&file, data as i64, Whence::SeekSet)?;
            self.copy(&mut file, end - data)?;
            at = end;
        }
        self.zeros(meta.size.next_multiple_of(512) - meta.size)
    }

    fn copy(&mut self, file: &mut File, mut length: u64) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        while length > 0 {
            let most = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let read = match file.read(&mut buffer[..most]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                return Err(Error::other("it became shorter while it was read").hint("pause the container meanwhile"));
            }
            self.write(&buffer[..read])?;
            length -= read as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, mut length: u64) -> Result<()> {
        while length > 0 {
            let some = length.min(ZEROS.len() as u64);
            self.write(&ZEROS[..some as usize])?;
            length -= some;
        }
        Ok(())
    }

    /// `link`: where a link leads, or the first name of a file.
    fn header(&mut self, path: &Path, kind: EntryType, meta: &Meta, link: &[u8], mut records: Records) -> Result<()> {
        self.entries += 1;
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name = if name.is_empty() { b"./".to_vec() } else { [&name[..], b"/"].concat() };
        }
        let (seconds, nanoseconds) = meta.modified;
        if nanoseconds != 0 || seconds < 0 || seconds as u64 > LARGE {
            records.add(b"mtime", time(meta.modified).as_bytes());
        }
        for (key, value, most) in
            [("uid", u64::from(meta.uid), SMALL), ("gid", u64::from(meta.gid), SMALL), ("size", meta.size, LARGE)]
        {
            if value > most {
                records.add(key.as_bytes(), value.to_string().as_bytes());
            }
        }
        for (key, value) in [("path", &name[..]), ("linkpath", link)] {
            if value.len() > FIELD {
                records.add(key.as_bytes(), value);
            }
        }
        if !records.0.is_empty() {
            let length = records.0.len() as u64;
            let header = plain(b"pax", EntryType::XHeader, &Meta { size: length, ..gone() }, b"")?;
            self.write(header.as_bytes())?;
            self.write(&records.0)?;
            self.zeros(length.next_multiple_of(512) - length)?;
        }
        let header = plain(&name, kind, meta, link)?;
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.output.write_all(bytes).doing(|| "write the layer")
    }
}

/// What the header of a mark says.
fn gone() -> Meta {
    let (size, rdev, links, file) = (0, 0, 1, (0, 0));
    Meta { mode: 0o644, uid: 0, gid: 0, size, rdev, links, file, modified: (0, 0), changed: (0, 0) }
}

/// One header; what it has no room for is cut off, and a record says it.
fn plain(name: &[u8], kind: EntryType, meta: &Meta, link: &[u8]) -> Result<Header> {
    let mut header = Header::new_ustar();
    if let Some(ustar) = header.as_ustar_mut() {
        let fill = |field: &mut [u8], bytes: &[u8]| {
            let length = bytes.len().min(field.len());
            field[..length].copy_from_slice(&bytes[..length]);
        };
        fill(&mut ustar.name, name);
        fill(&mut ustar.linkname, link);
    }
    header.set_entry_type(kind);
    header.set_mode(meta.mode & 0o7777);
    header.set_uid(u64::from(meta.uid).min(SMALL));
    header.set_gid(u64::from(meta.gid).min(SMALL));
    header.set_size(if meta.size > LARGE { 0 } else { meta.size });
    header.set_mtime(u64::try_from(meta.modified.0).unwrap_or(0).min(LARGE));
    if matches!(kind, EntryType::Char | EntryType::Block) {
        let number = |number: u64| u32::try_from(number).map_err(|_| Error::other("there is no such device number"));
        header.set_device_major(number(major(meta.rdev))?)?;
        header.set_device_minor(number(minor(meta.rdev))?)?;
    }
    header.set_cksum();
    Ok(header)
}

impl Records {
    /// Adds `key=value` with the length that counts itself (pax, "Extended Header").
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + " =\n".len();
        let mut length = rest + 1;
        while length < rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        let record = [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat();
        self.0.extend(record);
    }
}

/// Seconds since 1970 as a decimal fraction.
fn time((seconds, nanoseconds): Time) -> String {
    let all = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (sign, all) = if all < 0 { ("-", -all) } else { ("", all) };
    let text = format!("{sign}{}.{:09}", all / 1_000_000_000, all % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for (length, expected) in [(1, "6 k=v\n"), (4, "9 k=vvvv\n"), (5, "11 k=vvvvv\n"), (6, "12 k=vvvvvv\n")] {
            let mut records = Records::default();
            records.add(b"k", "v".repeat(length).as_bytes());
            let text = String::from_utf8(records.0).unwrap();
            assert_eq!(text, expected);
            assert_eq!(text.len().to_string(), text.split(' ').next().unwrap());
        }
    }

    #[test]
    fn times_are_decimal_fractions() {
        for (given, expected) in [
            ((0, 0), "0"),
            ((1, 5), "1.000000005"),
            ((100, 500_000_000), "100.5"),
            ((-2, 500_000_000), "-1.5"),
            ((-1, 0), "-1"),
        ] {
            assert_eq!(time(given), expected);
        }
    }
}
