//! A blob as a stream that outlives its connections.

use std::io::{self, Read};

use kelson::error::{Context, Error, Result};
use kelson::image::Digest;
use sha2::{Digest as _, Sha256};
use ureq::BodyReader;

use super::failure::{self, Again, Failure};
use super::http::Answer;
use super::{Client, Path, wrong_digest};
use crate::manifest::Descriptor;

/// How often a blob is taken up again at all: a server that sends a byte each time would hold us for ever.
const MAX_RESUMES: u32 = 100;

/// The content of a descriptor as it comes: after a cut connection it goes on where it was (RFC 9110, 14.2).
///
/// The last bytes are given only if the whole has the descriptor's size and digest: whoever has read `size` bytes has read the right
/// ones. Who stops before has read what nobody vouches for.
pub struct Blob<'a> {
    client: &'a Client,
    repository: String,
    descriptor: Descriptor,
    /// Bytes that were given.
    offset: u64,
    hasher: Sha256,
    /// What is being read, and from whom.
    source: Option<(BodyReader<'static>, String)>,
    /// Whether the registry is asked for parts; one that gives wrong ones is not.
    takes_ranges: bool,
    /// How often something failed since it last got on.
    failed: u32,
    resumes: u32,
    is_verified: bool,
}

impl<'a> Blob<'a> {
    pub(super) fn open(client: &'a Client, repository: &str, descriptor: &Descriptor) -> Result<Self> {
        let mut blob = Self {
            client,
            repository: repository.to_owned(),
            descriptor: descriptor.clone(),
            offset: 0,
            hasher: Sha256::new(),
            source: None,
            takes_ranges: true,
            failed: 0,
            resumes: 0,
            is_verified: false,
        };
        blob.connect()?;
        Ok(blob)
    }

    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Asks for what is missing.
    fn connect(&mut self) -> Result<()> {
        let name = self.descriptor.digest.to_string();
        loop {
            let from = if self.takes_ranges { self.offset } else { 0 };
            let path = Path { repository: &self.repository, kind: "blobs", name: &name };
            match self.client.ask_once(&path, "*/*", from).and_then(|answer| self.begin(answer, from)) {
                Ok(()) => return Ok(()),
                // What remains is skipped to instead.
                Err(failure) if failure.again == Again::WithoutRange && self.takes_ranges => self.takes_ranges = false,
                Err(failure) => self.client.wait(failure, &mut self.failed)?,
            }
        }
    }

    /// Makes an answer what is read next.
    fn begin(&mut self, answer: Answer, from: u64) -> Result<(), Failure> {
        let host = answer.host().to_owned();
        let start = if answer.response.status() == 206 { from } else { 0 };
        if answer.response.status() == 206 {
            let range = answer.header("content-range").unwrap_or_default();
            if !self.is_the_rest(range, from) {
                let error = Error::other(format!("{host} sends another part than it is asked for"));
                return Err(Failure { error, again: Again::WithoutRange });
            }
        }
        let expected = self.descriptor.size - start;
        if let Some(length) = answer.response.body().content_length().filter(|length| *length != expected) {
            return Err(Failure::never(Error::other(format!(
                "{host} has {} bytes where the manifest says {}",
                length.saturating_add(start),
                self.descriptor.size
            ))));
        }
        let mut reader = answer.response.into_body().into_reader();
        let known = self.offset - start;
        let skipped = io::copy(&mut (&mut reader).take(known), &mut io::sink());
        match skipped {
            Ok(count) if count == known => self.source = Some((reader, host)),
            Ok(_) => return Err(Failure::again(format!("{host} closed the connection early"))),
            Err(error) => return Err(self.failure(error, &host)),
        }
        Ok(())
    }

    /// Whether `Content-Range` says that the part begins at `from` and belongs to the whole.
    fn is_the_rest(&self, range: &str, from: u64) -> bool {
        let parts = || {
            let (part, whole) = range.strip_prefix("bytes ")?.split_once('/')?;
            let (first, last) = part.split_once('-')?;
            let fits = whole == "*" || whole.parse() == Ok(self.descriptor.size);
            Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, fits))
        };
        parts().is_some_and(|(first, last, fits)| {
            fits && first == from && last.checked_add(1) == Some(self.descriptor.size)
        })
    }

    fn failure(&self, error: io::Error, host: &str) -> Failure {
        failure::of_exchange(error.into(), host, self.client.connections.options().stall_timeout)
    }

    /// Some bytes of the source, unless it ended.
    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let (reader, host) = self.source.as_mut().ok_or_else(|| Failure::again("there is no connection"))?;
        let host = host.clone();
        match reader.read(buffer) {
            Ok(0) => Err(Failure::again(format!("{host} closed the connection after {} bytes", self.offset))),
            Ok(count) => Ok(count),
            Err(error) => Err(self.failure(error, &host)),
        }
    }

    /// The next bytes; none after the last.
    fn advance(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = self.descriptor.size - self.offset;
        if left == 0 {
            self.verify()?;
            return Ok(0);
        }
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        loop {
            match self.read_some(&mut buffer[..wanted]) {
                Ok(count) => {
                    self.offset += count as u64;
                    self.hasher.update(&buffer[..count]);
                    self.failed = 0;
                    if self.offset == self.descriptor.size {
                        self.verify()?;
                    }
                    return Ok(count);
                }
                Err(failure) => {
                    self.source = None;
                    self.resumes += 1;
                    if self.resumes > MAX_RESUMES {
                        return Err(failure.error).doing(|| format!("after {MAX_RESUMES} connections"));
                    }
                    self.client.wait(failure, &mut self.failed)?;
                    self.connect()?;
                }
            }
        }
    }

    /// Checks what comes after the end, and the digest.
    fn verify(&mut self) -> Result<()> {
        if self.is_verified {
            return Ok(());
        }
        let Some((mut reader, host)) = self.source.take() else {
            return Err(Error::other("it was found wrong before"));
        };
        // Where the length was announced, this is the end that leaves the connection usable; where not, there may be more.
        // An error there is one of the connection, which has given all.
        if matches!(reader.read(&mut [0]), Ok(1..)) {
            return Err(Error::other(format!(
                "{host} sends more than the {} bytes of the manifest",
                self.descriptor.size
            )));
        }
        let found = Digest::from_bytes(std::mem::take(&mut self.hasher).finalize().into());
        if found != self.descriptor.digest {
            return Err(wrong_digest(&host, self.descriptor.digest, found));
        }
        self.is_verified = true;
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let what =
            |blob: &Self| format!("fetch {} of {}/{}", blob.descriptor.digest, blob.client.host, blob.repository);
        self.advance(buffer).map_err(|error| {
            let error: Result<()> = Err(error).doing(|| what(self));
            io::Error::other(error.err().unwrap_or_else(|| Error::other("")))
        })
    }
}
