//! One layer, from the stream of its archive to a directory in overlayfs's form, in one pass that computes the digests too.
//!
//! What is read here is hostile: [`archive`] believes no number of it, and [`tree`] is the one way to a file below the root.
//!
//! ```text
//!   caller's thread    stream → blob (digest, tee) → gzip, zstd or neither → chunks ─┬→ thread: digest of the archive
//!                                                                                    └→ thread: archive → entries → files
//! ```
//! Nothing is synced: before the directory is renamed to where it counts, the caller has to syncfs(2) its file system.
//! On failure the directory holds a part of the layer, which [`remove`] removes. It must be in a directory that nobody else
//! may enter: files of an image can be setuid (CVE-2021-41091).

mod apply;
mod archive;
mod budget;
mod decode;
mod header;
mod later;
mod limits;
mod name;
mod pax;
mod pipe;
mod remove;
mod sparse;
#[cfg(test)]
mod tests;
mod tree;
mod whiteout;
mod xattr;

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::panic::resume_unwind;
use std::thread::{Builder, ScopedJoinHandle};

use kelson::error::{Context, Result};
use kelson::image::Digest;
use sha2::{Digest as _, Sha256};

use apply::{Applied, Layer};
pub use decode::Compression;
use decode::{Blob, Decoder};
pub use limits::Limits;
use pipe::{Pool, Source, pipe};
pub use remove::remove;
pub(crate) use xattr::{may_be_set as is_carried, path_of};

/// Who owns the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ids {
    /// As the archive has it.
    #[default]
    AsGiven,
    /// Everything belongs to the caller, who may have no other id.
    Squash,
}

/// How a layer is unpacked.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For overlays that are mounted with `userxattr`: marks are `user.overlay.*`. Device nodes, which nobody could make or use
    /// there, are left out.
    pub user_xattr: bool,
    pub ids: Ids,
    pub limits: Limits,
}

/// What is known of a layer when all of it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the stream as it was received.
    pub blob: Digest,
    pub blob_size: u64,
    pub compression: Compression,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub archive_size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
    /// The layer hides all layers below it: overlayfs knows no such mark on the root, so they must be left out of the overlay.
    pub is_opaque: bool,
    pub skipped: Skipped,
}

/// What the archive had and the directory has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Device nodes.
    pub devices: u64,
    /// Extended attributes that an image must not set, or that the file system or the caller's privilege cannot have.
    pub xattrs: u64,
}

/// Unpacks the archive that `stream` gives (tar; gzip, zstd or uncompressed) into the empty directory `root`.
///
/// `tee` gets the bytes as they are received.
///
/// # Errors
/// What is wrong with the stream; the name of the entry that is refused, and why; what the kernel refused. Part of the layer is
/// in the directory then.
pub fn unpack(
    stream: impl Read,
    tee: Option<&mut dyn Write>,
    root: BorrowedFd<'_>,
    options: &Options,
) -> Result<Unpacked> {
    let (mut blob, compression) = Blob::open(stream, tee)?;
    let pool = Pool::default();
    let meter = limits::Meter::new(&options.limits);
    let ((diff_id, archive_size), applied) = std::thread::scope(|scope| -> Result<_> {
        let (to_files, from_archive) = pipe(&pool);
        let files = Builder::new()
            .name("files".into())
            .spawn_scoped(scope, || write_layer(from_archive, root, options, &meter))
            .doing(|| "start a thread")?;
        // The digest of what is not compressed is the blob's.
        let (to_hash, hash) = match compression {
            Compression::None => (None, None),
            _ => {
                let (to_hash, chunks) = pipe(&pool);
                let hash = Builder::new().name("diff id".into()).spawn_scoped(scope, || digest_of(chunks));
                (Some(to_hash), Some(hash.doing(|| "start a thread")?))
            }
        };
        let sinks: Vec<_> = std::iter::once(to_files).chain(to_hash).collect();
        let pumped = pipe::pump(Decoder::new(&mut blob, compression, &options.limits)?, sinks, &pool, &meter);
        let applied = join(files);
        let diff_id = hash.map(join);
        // Who stopped first knows why: where the files' thread did, the pump found nobody to give to.
        let archive_size = match pumped {
            Ok(size) => size,
            Err(pipe::Stopped::Failed(error)) => return Err(error),
            Err(pipe::Stopped::Refused) => 0,
        };
        Ok(((diff_id, archive_size), applied?))
    })?;
    let Applied { entries, bytes, is_opaque, skipped } = applied;
    let (blob, blob_size) = blob.finish();
    let diff_id = diff_id.unwrap_or(blob);
    Ok(Unpacked { blob, blob_size, compression, diff_id, archive_size, entries, bytes, is_opaque, skipped })
}

/// Writes what `stream` holds uncompressed (gzip, zstd or neither) to `output`, within the limits of a layer.
///
/// # Errors
/// What is wrong with the stream, what it would become too much of, what cannot be written.
pub fn uncompress(stream: impl Read, output: &mut dyn Write, limits: &Limits) -> Result<u64> {
    let (mut blob, compression) = Blob::open(stream, None)?;
    let meter = limits::Meter::new(limits);
    let mut decoder = Decoder::new(&mut blob, compression, limits)?;
    let (mut buffer, mut written) = (vec![0; 256 << 10], 0);
    loop {
        let length = match decoder.read(&mut buffer) {
            Ok(0) => return Ok(written),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        written += length as u64;
        meter.check_archive(pipe::Measured::received(&decoder), written)?;
        output.write_all(&buffer[..length])?;
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// [files] Reads the archive to its end and beyond: what follows it belongs to the digest, and to nothing else.
fn write_layer(
    mut chunks: Source<'_>,
    root: BorrowedFd<'_>,
    options: &Options,
    meter: &limits::Meter<'_>,
) -> Result<Applied> {
    let mut layer = Layer::new(root, options, meter)?;
    let mut archive = archive::Archive::new(&mut chunks);
    while let Some(entry) = archive.next()? {
        let name = entry.name.clone();
        layer.add(entry, &mut archive).doing(|| format!("entry {}", name::shown(&name)))?;
    }
    chunks.drain();
    layer.finish()
}

/// [diff id]
fn digest_of(mut chunks: Source<'_>) -> Digest {
    let mut hash = Sha256::new();
    while let Some(chunk) = chunks.next_chunk() {
        hash.update(chunk);
    }
    Digest::from_bytes(hash.finalize().into())
}
