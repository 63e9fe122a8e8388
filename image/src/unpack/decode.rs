//! From the bytes that are received to those of the archive.

use std::io::{BufRead, BufReader, Chain, Cursor, Error as IoError, ErrorKind, Read, Write};

use flate2::bufread::MultiGzDecoder;
use kelson::error::{Context, Result};
use kelson::image::Digest;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};

use super::budget::{Share, WINDOWS};
use super::limits::{FLAG, Limits};
use super::pipe::Measured;

/// How the archive was compressed, as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Of a stream that begins with `magic`.
    fn of(magic: &[u8]) -> Self {
        match *magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd,
            // A skippable frame.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The stream as it is received: counted, hashed and copied to the side.
pub(super) struct Blob<'t, R> {
    stream: Chain<Cursor<Vec<u8>>, R>,
    tee: Option<&'t mut dyn Write>,
    hash: Sha256,
    received: u64,
}

impl<'t, R: Read> Blob<'t, R> {
    pub fn open(mut stream: R, tee: Option<&'t mut dyn Write>) -> Result<(Self, Compression)> {
        let mut magic = Vec::with_capacity(4);
        stream.by_ref().take(4).read_to_end(&mut magic).doing(|| "receive the layer")?;
        let compression = Compression::of(&magic);
        let stream = Cursor::new(magic).chain(stream);
        Ok((Self { stream, tee, hash: Sha256::new(), received: 0 }, compression))
    }

    /// Digest and number of the bytes that were read.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_bytes(self.hash.finalize().into()), self.received)
    }
}

impl<R: Read> Read for Blob<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.hash.update(&buffer[..length]);
        self.received += length as u64;
        if let Some(tee) = &mut self.tee {
            tee.write_all(&buffer[..length])?;
        }
        Ok(length)
    }
}

impl<R: Read> Measured for Blob<'_, R> {
    fn received(&self) -> u64 {
        self.received
    }
}

/// Bytes that are received at once.
const BUFFER: usize = 128 * 1024;

/// The archive, uncompressed.
pub(super) enum Decoder<R> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(Box<Zstd<BufReader<R>>>),
}

impl<R: Measured> Decoder<R> {
    pub fn new(blob: R, compression: Compression, limits: &Limits) -> Result<Self> {
        let buffered = |blob| BufReader::with_capacity(BUFFER, blob);
        Ok(match compression {
            Compression::None => Self::Plain(blob),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(buffered(blob)))),
            Compression::Zstd => Self::Zstd(Box::new(Zstd::new(buffered(blob), limits.window))),
        })
    }
}

impl<R: Measured> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(blob) => blob.read(buffer),
            Self::Gzip(gzip) => gzip.read(buffer).map_err(|error| told("gzip", error)),
            Self::Zstd(zstd) => zstd.read(buffer).map_err(|error| told("zstd", error)),
        }
    }
}

impl<R: Measured> Measured for Decoder<R> {
    fn received(&self) -> u64 {
        match self {
            Self::Plain(blob) => blob.received(),
            Self::Gzip(gzip) => gzip.get_ref().get_ref().received(),
            Self::Zstd(zstd) => zstd.source.get_ref().received(),
        }
    }
}

impl<R: Measured> Measured for &mut R {
    fn received(&self) -> u64 {
        (**self).received()
    }
}

/// The format is named where the stream is wrong; what the kernel says stays as it is.
fn told(format: &str, error: IoError) -> IoError {
    match error.kind() {
        ErrorKind::UnexpectedEof => IoError::other(format!("the {format} stream is cut off")),
        _ if error.raw_os_error().is_some() => error,
        ErrorKind::InvalidInput | ErrorKind::InvalidData => {
            IoError::other(format!("the {format} stream is corrupt: {error}"))
        }
        _ => error,
    }
}

/// Frames of zstd, one after the other.
pub(super) struct Zstd<R> {
    source: R,
    /// Takes frames whose windows are no larger than what there is a share for.
    frame: FrameDecoder,
    /// Of the memory for windows; after `frame`, which has it until it is dropped.
    share: Option<Share<'static>>,
    /// Largest window that is taken.
    largest: u64,
    /// Between two frames.
    is_between: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R, largest: u64) -> Self {
        Self { source, frame: frame_decoder(0), share: None, largest, is_between: true }
    }

    /// Reads the head of the next frame that holds something; `false` at the end of the stream.
    fn next_frame(&mut self) -> std::io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            let mut head = Head { source: &mut self.source, bytes: vec![] };
            let mut begun = self.frame.init(&mut head);
            if let Err(FrameDecoderError::WindowSizeTooBig { requested, .. }) = begun {
                if requested > self.largest {
                    return Err(too_far(requested, self.largest));
                }
                let head = head.bytes;
                self.take_share(requested);
                // A decoder's first frame grows to its window by doubling and copying, which leaves memory in pieces that the next
                // window does not fit into; a second frame takes it at once (ruzstd 0.9).
                begun = self.frame.init(&head[..]).and_then(|()| self.frame.init(&head[..]));
            }
            match begun {
                Ok(()) => {
                    self.is_between = false;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = std::io::copy(&mut self.source.by_ref().take(length.into()), &mut std::io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(wrong(error)),
            }
        }
        Ok(false)
    }

    /// Returns when there is memory for a window of so many bytes.
    fn take_share(&mut self, window: u64) {
        // The frame before was given whole. Its memory goes first: who waits with some could be waited for.
        self.frame = frame_decoder(window);
        self.share = None;
        self.share = Some(WINDOWS.take(memory_of(window)));
    }
}

/// The head of a frame, which is kept while it is read: it tells how large the window is.
struct Head<'s, R> {
    source: &'s mut R,
    bytes: Vec<u8>,
}

impl<R: Read> Read for Head<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.bytes.extend(&buffer[..length]);
        Ok(length)
    }
}

fn frame_decoder(window: u64) -> FrameDecoder {
    let mut frame = FrameDecoder::new();
    frame.set_max_window_size(window);
    frame
}

/// Bytes that ruzstd has for a window: a power of two, and two blocks (RFC 8878, 3.1.1.2.4).
fn memory_of(window: u64) -> u64 {
    window.checked_next_power_of_two().unwrap_or(window).saturating_add(2 << 17)
}

fn too_far(requested: u64, most: u64) -> IoError {
    IoError::other(format!("the zstd stream refers back {requested} bytes, more than {most} ({FLAG} window=N)"))
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.is_between && !self.next_frame()? {
                return Ok(0);
            }
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                self.frame.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1)).map_err(wrong)?;
            }
            self.is_between = self.frame.is_finished() && self.frame.can_collect() <= buffer.len();
            let length = self.frame.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
        }
    }
}

/// What the stream's own reader said is handed on as it is: the end of it is no corrupt frame.
fn wrong(error: FrameDecoderError) -> IoError {
    use std::error::Error;
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref::<IoError>() {
            return match io.raw_os_error() {
                Some(code) => IoError::from_raw_os_error(code),
                None => IoError::new(io.kind(), io.to_string()),
            };
        }
        cause = found.source();
    }
    IoError::new(ErrorKind::InvalidData, error.to_string())
}
