//! Archives that were compressed as a whole.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use kelson::error::{Context, Error, Result};

use crate::unpack::{self, Limits};

/// How files begin that gzip and zstd write.
const READ: [&[u8]; 2] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd]];
/// How files begin in forms that are not read, and how a person undoes them.
const OTHERS: [(&[u8], &str); 3] = [(b"BZh", "bunzip2"), (b"\xfd7zXZ\0", "unxz"), (b"PK\x03\x04", "unzip")];

/// Whether a regular file begins as gzip or zstd does.
///
/// # Errors
/// It begins as another form of compression does.
pub fn is_compressed(file: &File) -> Result<bool> {
    let mut start = [0; 6];
    let mut length = 0;
    while length < start.len() {
        match file.read_at(&mut start[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    let start = &start[..length];
    match OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, program)) => Err(Error::other("this compression is not supported: gzip and zstd are")
            .hint(format!("{program} makes it one that is"))),
        None => Ok(READ.iter().any(|magic| start.starts_with(magic))),
    }
}

/// `scratch`, with what `file` holds uncompressed.
pub fn unpacked(file: File, mut scratch: File, limits: &Limits) -> Result<File> {
    // Those are of one layer, and there may be many.
    let limits = Limits { bytes: limits.bytes.saturating_mul(16), ..limits.clone() };
    unpack::uncompress(file, &mut scratch, &limits).doing(|| "uncompress the archive")?;
    scratch.flush()?;
    Ok(scratch)
}
