//! The entries of an archive, one after the other, with what extended headers say of them.
//!
//! Where formats leave a choice it is made as Go's archive/tar does: what another engine unpacks of a layer, and what a scanner
//! sees in it, is what is unpacked here. So global PAX headers are read and not applied, links and directories have no data
//! whatever their size says, GNU tar's long names go before PAX records, and an archive may end without its two empty blocks.

use std::collections::BTreeMap;
use std::io::BufRead;

use kelson::error::{Context, Error, Result};

use super::header::{BLOCK, Block, Header};
use super::pax::{Records, SparseRecords, Time};
use super::sparse::{self, Extent, Lines};

/// Bytes of an extended header or a long name at most, as in Go's archive/tar.
const MAX_EXTENSION: u64 = 1 << 20;

/// An entry as it is to be made.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the archive has it.
    pub name: Vec<u8>,
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: i64,
    pub gid: i64,
    pub modified: Time,
    pub accessed: Option<Time>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `size` with holes; `None` where there are none.
    File {
        size: u64,
        extents: Option<Vec<Extent>>,
    },
    /// To another entry.
    HardLink {
        target: Vec<u8>,
    },
    SymLink {
        target: Vec<u8>,
    },
    Directory,
    Fifo,
    CharDevice {
        major: u64,
        minor: u64,
    },
    BlockDevice {
        major: u64,
        minor: u64,
    },
}

pub(super) struct Archive<R> {
    input: R,
    /// Data of the entry that were not read yet.
    left: u64,
    /// Bytes behind them up to the next header.
    padding: usize,
    is_at_end: bool,
}

/// Extensions that were found before an entry's header.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl<R: BufRead> Archive<R> {
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, is_at_end: false }
    }

    /// The next entry; what was left of the one before is passed over. `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        let mut block = [0; BLOCK];
        loop {
            self.pass_over()?;
            if !self.next_header(&mut block)? {
                return Ok(None);
            }
            let header = Header::parse(&block).doing(|| "find the next entry")?;
            let shown = || format!("entry {}", super::name::shown(&header.name()));
            let size =
                header.size().and_then(|size| u64::try_from(size).map_err(|_| Error::other("its size is negative")));
            let size = size.doing(shown)?;
            match header.kind() {
                b'L' => extensions.long_name = self.long_name(size).doing(|| "read a long name")?,
                b'K' => extensions.long_link = self.long_name(size).doing(|| "read a long link")?,
                b'x' => extensions.records = Some(self.records(size).doing(|| "read an extended header")?),
                b'g' => drop(self.records(size).doing(|| "read a global header")?),
                _ => {
                    let name = extensions.name(&header);
                    let entry = self.entry(header, size, extensions);
                    return entry.map(Some).doing(|| format!("entry {}", super::name::shown(&name)));
                }
            }
        }
    }

    /// Reads the next header; `false` at the end of the archive.
    fn next_header(&mut self, block: &mut Block) -> Result<bool> {
        if self.is_at_end || !self.read_block(block)? {
            return Ok(false);
        }
        if block.iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
        self.is_at_end = true;
        if self.read_block(block)? && block.iter().any(|byte| *byte != 0) {
            return Err(Error::other("the archive is corrupt: one empty block and not two"));
        }
        Ok(false)
    }

    /// `false` where the stream ends before the block.
    fn read_block(&mut self, block: &mut Block) -> Result<bool> {
        let mut length = 0;
        while length < BLOCK {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return if length == 0 { Ok(false) } else { Err(cut_off()) };
            }
            let more = available.len().min(BLOCK - length);
            block[length..length + more].copy_from_slice(&available[..more]);
            self.input.consume(more);
            length += more;
        }
        Ok(true)
    }

    /// Sets out to read data of `size` bytes.
    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
    }

    /// Data of the entry that are at hand; none where all were read.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf()?;
        if available.is_empty() {
            return Err(cut_off());
        }
        Ok(&available[..available.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))])
    }

    /// `amount` bytes of what [`Archive::data`] gave were used.
    pub fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.left -= amount as u64;
    }

    fn pass_over(&mut self) -> Result<()> {
        loop {
            match self.data()?.len() {
                0 => break,
                length => self.consume(length),
            }
        }
        while self.padding > 0 {
            let available = self.input.fill_buf()?.len().min(self.padding);
            // Without its padding the last entry is whole all the same.
            if available == 0 {
                break;
            }
            self.input.consume(available);
            self.padding -= available;
        }
        Ok(())
    }

    /// All data of an extension.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(Error::other(format!("it has {size} bytes, more than {MAX_EXTENSION}")));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        loop {
            let data = self.data()?;
            if data.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(data);
            let length = data.len();
            self.consume(length);
        }
    }

    /// `None` for one that is empty: the header's counts.
    fn long_name(&mut self, size: u64) -> Result<Option<Vec<u8>>> {
        let mut name = self.extension(size)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    fn records(&mut self, size: u64) -> Result<Records> {
        Records::parse(&self.extension(size)?)
    }

    fn entry(&mut self, header: Header<'_>, size: u64, extensions: Extensions) -> Result<Entry> {
        let name = extensions.name(&header);
        let Extensions { long_link, records, .. } = extensions;
        let records = records.unwrap_or_default();
        let link = long_link.or(records.link).unwrap_or_else(|| header.link().to_vec());
        let size = records.size.unwrap_or(size);
        let kind = match header.kind() {
            // Before POSIX a directory was a file whose name ends so.
            0 if name.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | 0 => self.file(size, records.sparse)?,
            b'S' => self.gnu_sparse(header, size)?,
            b'1' => Kind::HardLink { target: link },
            b'2' => Kind::SymLink { target: link },
            b'3' => device(header).map(|(major, minor)| Kind::CharDevice { major, minor })?,
            b'4' => device(header).map(|(major, minor)| Kind::BlockDevice { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let other = other.escape_ascii();
                return Err(Error::other(format!("it is of type {other}, which a layer has not")));
            }
        };
        let modified = match records.modified {
            Some(time) => time,
            None => Time { seconds: header.modified()?, nanoseconds: 0 },
        };
        Ok(Entry {
            name,
            kind,
            mode: (header.mode()? & 0o7777) as u32,
            uid: records.uid.map_or_else(|| header.uid(), Ok)?,
            gid: records.gid.map_or_else(|| header.gid(), Ok)?,
            modified,
            accessed: records.accessed,
            xattrs: records.xattrs,
        })
    }

    fn file(&mut self, stored: u64, map: SparseRecords) -> Result<Kind> {
        self.begin(stored);
        let extents = match map {
            SparseRecords { is_in_data: true, .. } => self.map_in_data()?,
            SparseRecords { map: Some(extents), .. } => extents,
            _ => return Ok(Kind::File { size: stored, extents: None }),
        };
        let size = map.size.ok_or_else(|| sparse::wrong("the size of the file is missing"))?;
        let extents = sparse::checked(extents, size, self.left)?;
        Ok(Kind::File { size, extents: Some(extents) })
    }

    fn map_in_data(&mut self) -> Result<Vec<Extent>> {
        let mut lines = Lines::default();
        let mut block = [0; BLOCK];
        let mut is_whole = false;
        let mut read = 0;
        while !is_whole {
            read += BLOCK;
            if read > sparse::MAX_MAP {
                return Err(sparse::wrong("it is too large"));
            }
            self.left =
                self.left.checked_sub(BLOCK as u64).ok_or_else(|| sparse::wrong("it is longer than the data"))?;
            if !self.read_block(&mut block)? {
                return Err(cut_off());
            }
            is_whole = lines.add(&block)?;
        }
        Ok(lines.extents())
    }

    fn gnu_sparse(&mut self, header: Header<'_>, stored: u64) -> Result<Kind> {
        let (pairs, mut has_more, size) = header.gnu_sparse()?;
        let size = u64::try_from(size).map_err(|_| sparse::wrong("the size of the file is negative"))?;
        let mut extents = Vec::new();
        sparse::pairs(pairs, &mut extents)?;
        let mut block = [0; BLOCK];
        while has_more {
            if extents.len() * 24 > sparse::MAX_MAP {
                return Err(sparse::wrong("it is too large"));
            }
            if !self.read_block(&mut block)? {
                return Err(cut_off());
            }
            let before = extents.len();
            sparse::pairs(&block[..504], &mut extents)?;
            has_more = block[504] != 0;
            if has_more && extents.len() == before {
                return Err(sparse::wrong("a block of it is empty"));
            }
        }
        self.begin(stored);
        let extents = sparse::checked(extents, size, stored)?;
        Ok(Kind::File { size, extents: Some(extents) })
    }
}

impl Extensions {
    fn name(&self, header: &Header<'_>) -> Vec<u8> {
        let from_records = || {
            let records = self.records.as_ref()?;
            let sparse = records.sparse.name.as_ref().filter(|_| records.sparse.has_map());
            sparse.or(records.path.as_ref()).cloned()
        };
        self.long_name.clone().or_else(from_records).unwrap_or_else(|| header.name())
    }
}

fn device(header: Header<'_>) -> Result<(u64, u64)> {
    let (major, minor) = header.device()?;
    let number = |number: i64, most: u64| u64::try_from(number).ok().filter(|number| *number <= most);
    // As many bits as the kernel has (dev_t).
    number(major, (1 << 12) - 1)
        .zip(number(minor, (1 << 20) - 1))
        .ok_or_else(|| Error::other(format!("there is no device {major}:{minor}")))
}

fn cut_off() -> Error {
    Error::other("the archive is cut off")
}
