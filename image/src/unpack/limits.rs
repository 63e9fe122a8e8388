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
        self.check(received, unpacked, "the archive has")
    }

    /// The files have `unpacked` bytes so far.
    pub fn check_files(&self, unpacked: u64) -> Result<()> {
        self.check(self.received.load(Ordering::Relaxed), unpacked, "the files have")
    }

    fn check(&self, received: u64, unpacked: u64, what: &str) -> Result<()> {
        let Limits { bytes, ratio, free, .. } = *self.limits;
        if unpacked > bytes {
            return Err(Error::other(format!("{what} more than {bytes} bytes")).hint(format!("{FLAG} bytes=N")));
        }
        if unpacked > free && unpacked / ratio.max(1) > received {
            return Err(Error::other(format!(
                "{what} {unpacked} bytes, more than {ratio} times the {received} received"
            ))
            .hint(format!("{FLAG} ratio=N")));
        }
        Ok(())
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
