//! What the formats of archives can say.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::support::*;
use crate::unpack::Options;

#[test]
fn long_names_of_gnu_tar() {
    let name = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    let archive = Tar::default()
        .entry(Head::new(b'L', "././@LongLink").gnu(), format!("{name}\0").as_bytes())
        .file("cut", "long")
        .entry(Head::new(b'K', "././@LongLink").gnu(), format!("{name}\0").as_bytes())
        .hard_link("link", "cut")
        .entry(Head::new(b'K', "././@LongLink").gnu(), "t".repeat(300).as_bytes())
        .entry(Head::new(b'L', "././@LongLink").gnu(), b"symlink")
        .symlink("cut", "cut");
    let scratch = unpacked(archive);
    assert_eq!(text(scratch.at(&name)), "long");
    assert_eq!(text(scratch.at("link")), "long");
    assert_eq!(fs::read_link(scratch.at("symlink")).unwrap().as_os_str().len(), 300);
    assert!(!scratch.at("cut").exists());
}

#[test]
fn prefixes() {
    let mut ustar = Head::new(b'0', "file");
    ustar.put(345, b"a/b");
    let mut star = Head::new(b'0', "star");
    star.put(345, b"c").put(476, b"00000000000 00000000000 ").put(508, b"tar\0");
    // In GNU tar's own form times are there, and in v7's nothing is.
    let mut gnu = Head::new(b'0', "gnu").gnu();
    gnu.put(345, b"14725033407\0");
    let mut v7 = Head::new(b'0', "v7");
    v7.put(257, &[0; 8]).put(345, b"x");
    let mut v7_directory = Head::new(0, "old/").mode(0o755);
    v7_directory.put(257, &[0; 255]);
    let archive = Tar::default().head(ustar).head(star).head(gnu).head(v7).head(v7_directory);
    let scratch = unpacked(archive);
    for name in ["a/b/file", "c/star", "gnu", "v7"] {
        assert!(scratch.at(name).is_file(), "{name}");
    }
    assert!(scratch.at("old").is_dir());
}

#[test]
fn pax_records() {
    let archive = Tar::default()
        .pax(&[("path", b"first"), ("mtime", b"1")])
        .pax(&[
            ("path", "d\u{e9}/second\n".as_bytes()),
            ("mtime", b"1700000000.123456789"),
            ("atime", b"-1.5"),
            ("size", b"4"),
            ("comment", b"x=y"),
        ])
        .entry(Head::new(b'0', "cut").size(0), b"1234");
    // The header's size is 4 already: one that is less is the records' to correct.
    let mut bytes = archive.0;
    let at = bytes.len() - 1024;
    bytes[at..at + 512].copy_from_slice(&Head::new(b'0', "cut").size(0).bytes());
    let scratch = unpacked(Tar(bytes));
    let info = fs::metadata(scratch.at("d\u{e9}/second\n")).unwrap();
    assert_eq!((info.size(), info.mtime(), info.mtime_nsec()), (4, 1_700_000_000, 123_456_789));
    assert_eq!((info.atime(), info.atime_nsec()), (-2, 500_000_000));
    assert!(!scratch.at("first").exists());
}

#[test]
fn records_take_the_place_of_what_the_header_says() {
    if !is_root("owners") {
        return;
    }
    let archive = Tar::default()
        .pax(&[("uid", b"3000000"), ("gid", b"4000000000"), ("linkpath", "x".repeat(200).as_bytes())])
        .symlink("link", "cut")
        .pax(&[("uid", b""), ("path", b"")])
        .head(Head::new(b'0', "file").ids(7, 8));
    let scratch = unpacked(archive);
    let info = fs::symlink_metadata(scratch.at("link")).unwrap();
    assert_eq!((info.uid(), info.gid()), (3_000_000, 4_000_000_000));
    assert_eq!(fs::read_link(scratch.at("link")).unwrap().as_os_str().len(), 200);
    let info = fs::metadata(scratch.at("file")).unwrap();
    assert_eq!((info.uid(), info.gid()), (7, 8));
}

#[test]
fn global_headers_are_read_and_not_applied() {
    let archive = Tar::default()
        .records(b'g', &[("comment", b"0123"), ("path", b"other"), ("mtime", b"1")])
        .file("file", "")
        .pax(&[("mtime", b"2")])
        .records(b'g', &[("mtime", b"1")])
        .file("second", "");
    let scratch = unpacked(archive);
    assert_eq!(fs::metadata(scratch.at("file")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(scratch.at("second")).unwrap().mtime(), 2);
    assert!(refused(Tar::default().entry(Head::new(b'g', "g"), b"no record").file("a", "")).contains("malformed"));
}

#[test]
fn numbers_in_base_256() {
    let mut head = Head::new(b'0', "file");
    head.put(136, &[0xff; 12]);
    let mut large = [0; 8];
    large[0] = 0x80;
    large[5] = 0x20;
    if is_root("owners") {
        head.put(108, &large);
    }
    let scratch = unpacked(Tar::default().head(head));
    let info = fs::metadata(scratch.at("file")).unwrap();
    assert_eq!(info.mtime(), -1);
    if is_root("owners") {
        assert_eq!(info.uid(), 0x20_0000);
    }
}

/// `1`, a hole up to a mebibyte, `2`, a hole of ten bytes.
fn is_the_sparse_file(scratch: &Scratch, name: &str) {
    let data = fs::read(scratch.at(name)).unwrap();
    assert_eq!(data.len(), (1 << 20) + 522, "{name}");
    assert!(data[..512].iter().all(|byte| *byte == b'1') && data[512..1 << 20].iter().all(|byte| *byte == 0), "{name}");
    assert!(data[1 << 20..(1 << 20) + 512].iter().all(|byte| *byte == b'2') && data[(1 << 20) + 512..] == [0; 10]);
    assert!(fs::metadata(scratch.at(name)).unwrap().blocks() < 100, "{name}");
}

fn parts() -> Vec<u8> {
    [[b'1'; 512], [b'2'; 512]].concat()
}

#[test]
fn sparse_files_of_gnu_tar() {
    let mut head = Head::new(b'S', "old").gnu();
    head.put(386, b"00000000000\x0000000001000\0").put(410, b"00004000000\x0000000001000\0");
    head.put(434, b"00004001012\x0000000000000\0").put(483, b"00004001012\0");
    // The same with its pairs in blocks of their own.
    let mut extended = Head::new(b'S', "extended").gnu().size(1024);
    extended.put(386, b"00000000000\x0000000001000\0").put(482, b"1").put(483, b"00004001012\0");
    let mut more = [0; 512];
    more[..24].copy_from_slice(b"00004000000\x0000000001000\0");
    more[504] = 0;
    let archive = Tar::default().entry(head, &parts()).head(extended).raw(&more).raw(&parts()).file("after", "");
    let scratch = unpacked(archive);
    is_the_sparse_file(&scratch, "old");
    is_the_sparse_file(&scratch, "extended");
    assert!(scratch.at("after").exists());
}

#[test]
fn sparse_files_in_pax_records() {
    let size = ((1 << 20) + 522).to_string();
    let size = size.as_bytes();
    let map = [&b"2\n0\n512\n1048576\n512\n"[..], &[0; 492]].concat();
    let archive = Tar::default()
        .pax(&[
            ("GNU.sparse.size", size),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"0"),
            ("GNU.sparse.numbytes", b"512"),
            ("GNU.sparse.offset", b"1048576"),
            ("GNU.sparse.numbytes", b"512"),
        ])
        .entry(Head::new(b'0', "v00"), &parts())
        .pax(&[("GNU.sparse.size", size), ("GNU.sparse.name", b"v01"), ("GNU.sparse.map", b"0,512,1048576,512")])
        .entry(Head::new(b'0', "GNUSparseFile.1/v01"), &parts())
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"v10"),
            ("GNU.sparse.realsize", size),
        ])
        .entry(Head::new(b'0', "GNUSparseFile.1/v10"), &[map, parts()].concat())
        .file("after", "");
    let scratch = unpacked(archive);
    for name in ["v00", "v01", "v10"] {
        is_the_sparse_file(&scratch, name);
    }
    assert_eq!(fs::read_dir(scratch.root()).unwrap().count(), 4);
}

/// What commit writes of a sparse file, and docker.
#[test]
fn zeros_of_a_file_are_holes() {
    let mut data = vec![0; (3 << 20) + 10];
    data[..512].fill(b'1');
    data[1 << 20..(1 << 20) + 512].fill(b'2');
    let scratch = unpacked(Tar::default().entry(Head::new(b'0', "zeros"), &data).file("after", "x"));
    assert_eq!(fs::read(scratch.at("zeros")).unwrap(), data);
    let held = fs::metadata(scratch.at("zeros")).unwrap().blocks() * 512;
    assert!(held <= 3 * (64 << 10), "{held} bytes on disk");
    assert_eq!(fs::read(scratch.at("after")).unwrap(), b"x");
}

#[test]
fn sparse_files_that_are_wrong() {
    let refused_with = |records: &[(&str, &[u8])], data: &[u8]| {
        refused(Tar::default().pax(records).entry(Head::new(b'0', "sparse"), data))
    };
    for (records, data, why) in [
        (&[("GNU.sparse.map", &b"0,1"[..])][..], &b"1"[..], "size of the file is missing"),
        (&[("GNU.sparse.map", b"0,2"), ("GNU.sparse.size", b"1")], b"12", "beyond its end"),
        (&[("GNU.sparse.map", b"0,1,0,1"), ("GNU.sparse.size", b"9")], b"12", "overlap"),
        (&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9")], b"12", "the archive 2"),
        (&[("GNU.sparse.map", b"0"), ("GNU.sparse.size", b"9")], b"12", "offset without"),
        (&[("GNU.sparse.map", b"18446744073709551615,2"), ("GNU.sparse.size", b"9")], b"12", "beyond"),
        (&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"99999999999999")], b"1", "more than 68719476736 bytes"),
        (&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9999999999")], b"1", "more than 200 times"),
        (&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")], b"1\n0\n", "longer than the data"),
        (&[("GNU.sparse.major", b"7"), ("GNU.sparse.realsize", b"9")], b"1\n0\n", "version 7"),
    ] {
        let error = refused_with(records, data);
        assert!(error.contains(why), "{error:?} has no {why:?}");
    }
    let mut endless = Head::new(b'S', "endless").gnu();
    endless.put(482, b"1").put(483, b"00000000001\0");
    let mut more = [0; 512];
    more[504] = 1;
    let error = refused(Tar::default().head(endless).raw(&[more; 3].concat()));
    assert!(error.contains("a block of it is empty"), "{error}");
}

#[test]
fn an_archive_may_end_without_its_end() {
    let whole = Tar::default().file("a", "12345").0;
    for archive in [&whole[..], &whole[..517], &Tar(whole.clone()).raw(&[0; 512]).0[..]] {
        let scratch = Scratch::new();
        scratch.unpack(archive, &Options::default()).unwrap();
        assert_eq!(text(scratch.at("a")), "12345");
    }
    for cut in [1, 511, 512, 516] {
        assert!(refused_bytes(&whole[..cut]).contains("cut off"), "{cut}");
    }
}

#[test]
fn what_follows_the_end_belongs_to_the_digest_alone() {
    let archive = [Tar::default().file("a", "").end(), Tar::default().file("b", "").end(), vec![7; 100]].concat();
    let scratch = Scratch::new();
    let unpacked = scratch.unpack(&archive, &Options::default()).unwrap();
    assert_eq!((unpacked.entries, unpacked.archive_size), (1, archive.len() as u64));
    assert!(scratch.at("a").exists() && !scratch.at("b").exists());
}

#[test]
fn links_and_directories_have_no_data() {
    // Go's reader passes over none, so neither must this one: what follows is the next header.
    let archive = Tar::default()
        .file("a", "1")
        .head(Head::new(b'1', "b").link("a").size(512))
        .head(Head::new(b'5', "d").mode(0o755).size(512))
        .file("after", "");
    assert!(unpacked(archive).at("after").exists());
}
