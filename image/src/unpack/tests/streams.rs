//! Compressed streams, digests and limits.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use kelson::image::Digest;
use sha2::{Digest as _, Sha256};

use super::support::*;
use crate::unpack::{Compression, Limits, Options, unpack};

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A frame of blocks that are not compressed, of at most 128 KiB each; `window` is the descriptor's byte.
pub(super) fn zstd(bytes: &[u8], window: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    let mut blocks = bytes.chunks(1 << 17).peekable();
    while let Some(block) = blocks.next() {
        let head = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        frame.extend(&head.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

/// 128 KiB and more.
pub(super) const WINDOW: u8 = 7 << 3;

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn large() -> Vec<u8> {
    Tar::default().file("large", &"0123456789abcdef".repeat(100_000)).end()
}

#[test]
fn all_compressions_give_the_same_layer_and_its_digests() {
    let archive = large();
    let halves = archive.split_at(archive.len() / 2);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    for (compression, blob) in [
        (Compression::None, archive.clone()),
        (Compression::Gzip, gzip(&archive)),
        (Compression::Gzip, [gzip(halves.0), gzip(&[]), gzip(halves.1)].concat()),
        (Compression::Zstd, zstd(&archive, WINDOW)),
        (
            Compression::Zstd,
            [zstd(halves.0, WINDOW), skippable.clone(), zstd(halves.1, WINDOW), skippable.clone()].concat(),
        ),
        (Compression::Zstd, [skippable.clone(), zstd(&archive, WINDOW)].concat()),
    ] {
        let scratch = Scratch::new();
        let root = fs::File::open(scratch.root()).unwrap();
        let mut tee = Vec::new();
        let unpacked = unpack(Trickle(&blob), Some(&mut tee), root.as_fd(), &Options::default()).unwrap();
        assert_eq!(unpacked.compression, compression);
        assert_eq!((unpacked.blob, unpacked.blob_size), (digest(&blob), blob.len() as u64));
        assert_eq!((unpacked.diff_id, unpacked.archive_size), (digest(&archive), archive.len() as u64));
        assert_eq!(tee, blob);
        assert_eq!(fs::metadata(scratch.at("large")).unwrap().len(), 1_600_000);
    }
}

/// A stream that gives some bytes at a time, as a connection may.
struct Trickle<'b>(&'b [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1 + self.0.len() % 4093);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn streams_that_are_cut_off_or_corrupt() {
    let archive = large();
    for (blob, format) in [(gzip(&archive), "gzip"), (zstd(&archive, WINDOW), "zstd")] {
        for cut in [5, 17, blob.len() / 2, blob.len() - 1] {
            let error = refused_bytes(&blob[..cut]);
            assert!(error.contains(&format!("the {format} stream is cut off")), "{cut} of {}: {error}", blob.len());
        }
        for garbage in [&b"garbage that is no header"[..], b"g", &[0; 100]] {
            let error = refused_bytes(&[&blob[..], garbage].concat());
            assert!(error.contains(&format!("the {format} stream is")), "{error}");
        }
    }
    let mut corrupt = gzip(&archive);
    let at = corrupt.len() - 6;
    corrupt[at] ^= 1;
    assert!(refused_bytes(&corrupt).contains("the gzip stream is corrupt"));
}

#[test]
fn what_the_stream_or_the_tee_says_is_told() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(nix::libc::ECONNRESET))
        }
    }
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(nix::libc::ENOSPC))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for blob in [large(), gzip(&large()), zstd(&large(), WINDOW)] {
        let scratch = Scratch::new();
        let root = fs::File::open(scratch.root()).unwrap();
        let stream = (&blob[..blob.len() - 40]).chain(Broken);
        let error = unpack(stream, None, root.as_fd(), &Options::default()).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ECONNRESET), "{error}");
        let error = unpack(&blob[..], Some(&mut Broken), root.as_fd(), &Options::default()).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOSPC), "{error}");
    }
}

/// Two layers have a window each when both come to a frame with a larger one, and there is room for one of those.
#[test]
fn windows_that_grow_at_once() {
    struct Meeting(Arc<Barrier>);
    impl Read for Meeting {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            self.0.wait();
            Ok(0)
        }
    }
    let (barrier, (sender, unpacked)) = (Arc::new(Barrier::new(2)), channel());
    for _ in 0..2 {
        let (barrier, sender) = (Arc::clone(&barrier), sender.clone());
        thread::spawn(move || {
            let archive = large();
            let halves = archive.split_at(archive.len() / 2);
            let (small, rest) = (zstd(halves.0, 14 << 3), zstd(halves.1, 15 << 3));
            let stream = (&small[..]).chain(Meeting(barrier)).chain(&rest[..]);
            let scratch = Scratch::new();
            let root = fs::File::open(scratch.root()).unwrap();
            let diff_id = unpack(stream, None, root.as_fd(), &Options::default()).unwrap().diff_id;
            sender.send(diff_id == digest(&archive)).unwrap();
        });
    }
    for _ in 0..2 {
        assert_eq!(unpacked.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}

fn refused_by(limits: &str, archive: &[u8]) -> String {
    let scratch = Scratch::new();
    let options = Options { limits: Limits::from_str(limits).unwrap(), ..Options::default() };
    scratch.unpack(archive, &options).unwrap_err().to_string()
}

#[test]
fn bombs() {
    assert!(refused_by("bytes=1000000", &gzip(&large())).contains("more than 1000000 bytes (if the image is trusted"));
    let many = (0..30).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), "")).end();
    let error = refused_by("entries=10", &many);
    assert!(error.contains("entry \"10\": the archive has more than 10 entries"), "{error}");
    // A window larger than what may be kept in memory is refused before it is allocated.
    let error = refused_by("window=1048576", &zstd(&large(), 11 << 3));
    assert!(error.contains("zstd") && error.contains("--unpack-limits window=N"), "{error}");
    assert!(refused_bytes(&zstd(b"x", 31 << 3)).contains("zstd"));
}

#[test]
fn a_ratio_counts_above_what_is_free() {
    let zeros = gzip(&Tar::default().entry(Head::new(b'0', "zeros"), &vec![0; 4 << 20]).end());
    let error = refused_by("ratio=100,free=2097152", &zeros);
    assert!(error.contains("more than 100 times") && error.contains("--unpack-limits ratio=N"), "{error}");
    // The first file is large when little was received yet: what counts is what is received with it.
    let large = Tar::default().entry(Head::new(b'0', "large"), &vec![0; 4 << 20]).end();
    let sparse = [("GNU.sparse.size", &b"9000000"[..]), ("GNU.sparse.map", b"0,4194304")];
    let sparse = Tar::default().pax(&sparse).entry(Head::new(b'0', "sparse"), &vec![0; 4 << 20]).end();
    for (archive, limits) in [
        (&zeros, "ratio=100,free=5000000"),
        (&zeros, "ratio=2000,free=2097152"),
        (&zeros, "ratio=100"),
        (&large, "ratio=2,free=0"),
        (&sparse, "ratio=2,free=0"),
    ] {
        let options = Options { limits: Limits::from_str(limits).unwrap(), ..Options::default() };
        Scratch::new().unpack(archive, &options).unwrap();
    }
    assert!(refused_by("ratio=1,free=0", &sparse).contains("the holes of sparse files"));
}

#[test]
fn limits_as_text() {
    let limits = Limits::from_str("entries=5,window=9").unwrap();
    assert_eq!(limits, Limits { entries: 5, window: 9, ..Limits::default() });
    for text in ["", "entries", "entries=", "entries=-1", "files=5", "entries=5,"] {
        assert!(Limits::from_str(text).is_err(), "{text:?}");
    }
}
