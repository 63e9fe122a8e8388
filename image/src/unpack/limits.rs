//! How much one layer may be: what is small to receive can be large to unpack.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use kelson::error::{Error, Result};

pub(super) const FLAG: &str = "if the image is trusted, raise the limit: --unpack-limits";

/// What one layer may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the archive, and bytes of its files with their holes: 64 GiB.
    pub bytes: u64,
    /// Entries of the archive: 2,000,000.
    pub entries: u64,
    /// Bytes unpacked for a byte received: 200.
    pub ratio: u64,
    /// Bytes up to which the ratio does not count: 1 GiB. Files of zeros are small to receive, and do no harm.
    pub free: u64,
    /// Bytes that a zstd frame may refer back to, which are kept in memory: 32 MiB, what Go's encoder uses at most.
    pub window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, ratio: 200, free: 1 << 30, window: 32 << 20 }
    }
}

impl FromStr for Limits {
    type Err = Error;

    /// `bytes=N,entries=N,ratio=N,free=N,window=N`: what is not named has its default.
    fn from_str(text: &str) -> Result<Self> {
        let mut limits = Self::default();
        for part in text.split(',') {
            let wrong = || {
                Error::usage(format!("{part:?} is no limit"))
                    .hint("limits are bytes=N,entries=N,ratio=N,free=N,window=N")
            };
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let limit = match name {
                "bytes" => &mut limits.bytes,
                "entries" => &mut limits.entries,
                "ratio" => &mut limits.ratio,
                "free" => &mut limits.free,
                "window" => &mut limits.window,
                _ => return Err(wrong()),
            };
            *limit = value.parse().map_err(|_| wrong())?;
        }
        Ok(limits)
    }
}

/// What a layer took so far.
pub(super) struct Meter<'l> {
    limits: &'l Limits,
    received: AtomicU64,
}

impl<'l> Meter<'l> {
    pub fn new(limits: &'l Limits) -> Self {
        Self { limits, received: AtomicU64::new(0) }
    }

    /// `received` bytes of the blob became `unpacked` bytes of the archive.
    pub fn check_archive(&self, received: u64, unpacked: u64) -> Result<()> {
        self.received.store(received, Ordering::Relaxed);
        self.check_bytes(unpacked, "the archive has")?;
        self.check_ratio(unpacked, received, "the archive has")
    }

    /// The files have `bytes` bytes with the one that is to be written.
    pub fn check_files(&self, bytes: u64) -> Result<()> {
        self.check_bytes(bytes, "the files have")
    }

    /// The sparse files that were written have holes of `bytes` bytes. Before, what belongs to them was not received yet.
    pub fn check_holes(&self, bytes: u64) -> Result<()> {
        self.check_ratio(bytes, self.received.load(Ordering::Relaxed), "the holes of sparse files have")
    }

    fn check_bytes(&self, bytes: u64, what: &str) -> Result<()> {
        let most = self.limits.bytes;
        match bytes > most {
            true => Err(Error::other(format!("{what} more than {most} bytes")).hint(format!("{FLAG} bytes=N"))),
            false => Ok(()),
        }
    }

    fn check_ratio(&self, bytes: u64, received: u64, what: &str) -> Result<()> {
        let Limits { ratio, free, .. } = *self.limits;
        match bytes > free && bytes / ratio.max(1) > received {
            true => Err(Error::other(format!("{what} {bytes} bytes, more than {ratio} times the {received} received"))
                .hint(format!("{FLAG} ratio=N"))),
            false => Ok(()),
        }
    }

    pub fn check_entries(&self, entries: u64) -> Result<()> {
        let most = self.limits.entries;
        match entries > most {
            true => {
                Err(Error::other(format!("the archive has more than {most} entries")).hint(format!("{FLAG} entries=N")))
            }
            false => Ok(()),
        }
    }
}
