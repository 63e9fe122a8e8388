//! Pieces of the archive on their way from the thread that unpacks them to those that use them.

use std::io::{BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use kelson::error::{Context, Error};

use super::limits::Meter;

/// Bytes of a piece.
const CHUNK: usize = 256 * 1024;
/// Pieces that wait for one thread at most.
const DEPTH: usize = 8;

/// A piece that several threads read.
type Chunk = Arc<Vec<u8>>;

/// Buffers to use again: new ones would be zeroed by the kernel, page by page.
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; CHUNK])
    }

    /// By the last thread that read it.
    fn put(&self, chunk: Chunk) {
        if let Some(buffer) = Arc::into_inner(chunk) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// The two ends of a pipe.
pub(super) fn pipe(pool: &Pool) -> (SyncSender<(Chunk, usize)>, Source<'_>) {
    let (sender, receiver) = sync_channel(DEPTH);
    (sender, Source { receiver, pool, current: None, at: 0 })
}

/// Why not everything was pumped.
pub(super) enum Stopped {
    Failed(Error),
    /// A thread ended before its time, and will say why.
    Refused,
}

/// A stream that can tell how much was received for what it gave.
pub(super) trait Measured: Read {
    fn received(&self) -> u64;
}

/// Gives what `input` has to all `sinks`; returns how many bytes that was.
pub(super) fn pump(
    mut input: impl Measured,
    sinks: Vec<SyncSender<(Chunk, usize)>>,
    pool: &Pool,
    meter: &Meter<'_>,
) -> Result<u64, Stopped> {
    let mut pumped = 0;
    loop {
        let mut buffer = pool.take();
        let length = fill(&mut input, &mut buffer).map_err(Stopped::Failed)?;
        if length == 0 {
            return Ok(pumped);
        }
        pumped += length as u64;
        meter.check_archive(input.received(), pumped).map_err(Stopped::Failed)?;
        let chunk = Arc::new(buffer);
        for sink in &sinks {
            sink.send((Arc::clone(&chunk), length)).map_err(|_| Stopped::Refused)?;
        }
        pool.put(chunk);
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).doing(|| "receive the layer"),
        }
    }
    Ok(length)
}

/// The end of a pipe that is read from. The end of the stream is where the other end was dropped.
pub(super) struct Source<'p> {
    receiver: Receiver<(Chunk, usize)>,
    pool: &'p Pool,
    current: Option<(Chunk, usize)>,
    at: usize,
}

impl Source<'_> {
    /// The next piece; the one before goes back to the pool.
    pub fn next_chunk(&mut self) -> Option<&[u8]> {
        if let Some((chunk, _)) = self.current.take() {
            self.pool.put(chunk);
        }
        self.at = 0;
        self.current = self.receiver.recv().ok();
        self.current.as_ref().map(|(chunk, length)| &chunk[..*length])
    }

    /// Reads to the end.
    pub fn drain(&mut self) {
        while self.next_chunk().is_some() {}
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|(_, length)| self.at >= *length) {
            self.next_chunk();
        }
        Ok(self.current.as_ref().map_or(&[], |(chunk, length)| &chunk[self.at..*length]))
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
