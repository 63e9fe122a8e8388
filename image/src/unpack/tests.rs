//! Archives made in code, each for one fact. What needs root's privilege is skipped without it, and says so.

mod formats;
mod hostile;
mod marks;
mod replaced;
mod seeds;
mod streams;
mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use support::*;

use super::{Ids, Options};

#[test]
fn a_plain_layer() {
    let scratch = unpacked(
        Tar::default()
            .head(Head::new(b'5', "./").mode(0o711).time(5))
            .dir("a/")
            .file("a/b", "content")
            .symlink("a/link", "/etc/passwd")
            .hard_link("./c", "./a/b"),
    );
    assert_eq!(text(scratch.at("a/b")), "content");
    assert_eq!(fs::metadata(scratch.at("a/b")).unwrap().ino(), fs::metadata(scratch.at("c")).unwrap().ino());
    assert_eq!(fs::read_link(scratch.at("a/link")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(fs::symlink_metadata(scratch.at("a/link")).unwrap().mtime(), 1_000_000_000);
    let root = fs::metadata(scratch.root()).unwrap();
    assert_eq!((root.permissions().mode() & 0o7777, root.mtime()), (0o711, 5));
    assert_eq!(fs::metadata(scratch.at("a")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn what_is_counted() {
    let archive = Tar::default().dir("a").file("a/b", "12345").symlink("l", "a").end();
    let scratch = Scratch::new();
    let unpacked = scratch.unpack(&archive, &Options::default()).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (3, 5));
    assert_eq!((unpacked.blob_size, unpacked.archive_size), (archive.len() as u64, archive.len() as u64));
    assert!(!unpacked.is_opaque);
}

#[test]
fn an_empty_layer() {
    for archive in [Vec::new(), Tar::default().end()] {
        let scratch = Scratch::new();
        assert_eq!(scratch.unpack(&archive, &Options::default()).unwrap().entries, 0);
        let root = fs::metadata(scratch.root()).unwrap();
        assert_eq!((root.permissions().mode() & 0o7777, root.mtime()), (0o755, 0));
        assert_eq!(fs::read_dir(scratch.root()).unwrap().count(), 0);
    }
}

#[test]
fn times_of_directories_are_those_of_their_entries() {
    let scratch = unpacked(
        Tar::default()
            .file("implied/deep/file", "")
            .head(Head::new(b'5', "a").mode(0o755).time(1))
            .file("a/1", "")
            .file("late/1", "")
            .head(Head::new(b'5', "late/").mode(0o750).time(2))
            .file("late/2", "")
            .head(Head::new(b'5', "a").mode(0o700).time(3))
            .file("a/2", ""),
    );
    let found = |name: &str| {
        let info = fs::metadata(scratch.at(name)).unwrap();
        (info.mode() & 0o7777, info.mtime())
    };
    assert_eq!(found("implied"), (0o755, 0));
    assert_eq!(found("implied/deep"), (0o755, 0));
    assert_eq!(found("a"), (0o700, 3));
    assert_eq!(found("late"), (0o750, 2));
    assert_eq!(found(""), (0o755, 0));
}

#[test]
fn modes_that_forbid_to_add_files_come_last() {
    let archive = Tar::default()
        .head(Head::new(b'5', "a").mode(0o555))
        .head(Head::new(b'5', "a/b").mode(0))
        .head(Head::new(b'0', "a/b/c").mode(0))
        .head(Head::new(b'5', "g").mode(0o2775))
        .head(Head::new(b'5', "g/below").mode(0o755))
        .head(Head::new(b'5', "sticky").mode(0o1777));
    let scratch = unpacked(archive);
    for (name, mode) in [("a", 0o555), ("a/b", 0), ("a/b/c", 0), ("g", 0o2775), ("g/below", 0o755), ("sticky", 0o1777)]
    {
        assert_eq!(fs::metadata(scratch.at(name)).unwrap().mode() & 0o7777, mode, "{name}");
    }
}

#[test]
fn owners_and_special_bits() {
    if !is_root("owners") {
        return;
    }
    let archive = || {
        Tar::default()
            .head(Head::new(b'5', "g").mode(0o2755).ids(0, 50))
            .head(Head::new(b'0', "g/file").mode(0o644))
            .head(Head::new(b'0', "su").mode(0o6755).ids(1, 2))
            .head(Head::new(b'2', "link").link("su").ids(3, 4))
            .head(Head::new(b'6', "fifo").mode(0o620).ids(5, 6))
    };
    let scratch = unpacked(archive());
    let found = |scratch: &Scratch, name: &str| {
        let info = fs::symlink_metadata(scratch.at(name)).unwrap();
        (info.mode() & 0o7777, info.uid(), info.gid())
    };
    for (name, expected) in [
        ("g", (0o2755, 0, 50)),
        ("g/file", (0o644, 0, 0)),
        ("su", (0o6755, 1, 2)),
        ("link", (0o777, 3, 4)),
        ("fifo", (0o620, 5, 6)),
    ] {
        assert_eq!(found(&scratch, name), expected, "{name}");
    }
    let squashed = Scratch::new();
    squashed.unpack(&archive().end(), &Options { ids: Ids::Squash, ..Options::default() }).unwrap();
    assert_eq!(found(&squashed, "su"), (0o6755, 0, 0));
    assert_eq!(found(&squashed, "g"), (0o2755, 0, 0));
}

#[test]
fn device_nodes() {
    if !is_root("device nodes") {
        return;
    }
    let archive = Tar::default()
        .head(Head::new(b'3', "null").mode(0o666).device(1, 3))
        .head(Head::new(b'4', "disk").mode(0o660).device(259, 70_000))
        .head(Head::new(b'6', "fifo").mode(0o600));
    let scratch = unpacked(archive.clone());
    let null = fs::metadata(scratch.at("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(
        (null.rdev(), null.mode() & 0o7777, null.mtime()),
        (nix::sys::stat::makedev(1, 3), 0o666, 1_000_000_000)
    );
    let disk = fs::metadata(scratch.at("disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!(disk.rdev(), nix::sys::stat::makedev(259, 70_000));
    assert!(fs::metadata(scratch.at("fifo")).unwrap().file_type().is_fifo());
    // Rootless there are none, and no file in their place.
    let scratch = Scratch::new();
    let options = Options { user_xattr: true, ids: Ids::Squash, ..Options::default() };
    assert_eq!(scratch.unpack(&archive.end(), &options).unwrap().skipped.devices, 2);
    assert!(!scratch.at("null").exists() && scratch.at("fifo").exists());
}

#[test]
fn attributes() {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Tar::default()
        .pax(&[
            ("SCHILY.xattr.user.a", b"1\0="),
            ("LIBARCHIVE.xattr.user.b%2Ec", b"AQID"),
            ("LIBARCHIVE.xattr.user.a", b"AQID"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"system_u:object_r:bin_t:s0"),
            ("SCHILY.xattr.security.capability", &capability),
        ])
        .head(Head::new(b'0', "file").mode(0o444))
        .pax(&[("SCHILY.xattr.user.d", b"dir"), ("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("dir");
    let scratch = Scratch::new();
    let skipped = scratch.unpack(&archive.end(), &Options::default()).unwrap().skipped.xattrs;
    let mut names = xattrs(&scratch.at("file"));
    if is_root("file capabilities") {
        assert_eq!(skipped, 4);
        assert_eq!(names.remove("security.capability").as_deref(), Some(&capability[..]));
    }
    assert_eq!(names, [("user.a".to_owned(), b"1\0=".to_vec()), ("user.b.c".to_owned(), vec![1, 2, 3])].into());
    assert_eq!(xattrs(&scratch.at("dir")), [("user.d".to_owned(), b"dir".to_vec())].into());
    assert_eq!(fs::metadata(scratch.at("file")).unwrap().mode() & 0o7777, 0o444);
}
