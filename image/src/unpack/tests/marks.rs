//! Whiteouts and opaque directories.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::support::*;
use crate::unpack::Options;

fn is_whiteout(scratch: &Scratch, name: &str) -> bool {
    let info = fs::symlink_metadata(scratch.at(name)).unwrap();
    info.file_type().is_char_device() && info.rdev() == 0
}

const OPAQUE: &str = "trusted.overlay.opaque";

#[test]
fn whiteouts_become_devices() {
    if !is_root("trusted attributes") {
        return;
    }
    let scratch =
        unpacked(Tar::default().dir("a").file("a/.wh.gone", "").file(".wh.top", "").file("implied/.wh.x", "").head(
            // As overlayfs itself has it.
            Head::new(b'3', "a/raw").device(0, 0),
        ));
    for name in ["a/gone", "top", "implied/x", "a/raw"] {
        assert!(is_whiteout(&scratch, name), "{name}");
    }
    assert!(!scratch.at("a/.wh.gone").exists());
}

#[test]
fn a_whiteout_hides_nothing_of_its_own_layer() {
    if !is_root("trusted attributes") {
        return;
    }
    // The mark before what has the name, and behind it.
    let before = Tar::default().file(".wh.file", "").file(".wh.dir", "").file(".wh.implied", "").file("implied/x", "");
    let before = before.file("file", "new").dir("dir").file("dir/x", "");
    let behind = Tar::default().file("file", "new").dir("dir").file("dir/x", "").file("implied/x", "");
    let behind = behind.file(".wh.file", "").file(".wh.dir", "").file(".wh.implied", "").file(".wh.file", "");
    for archive in [before, behind] {
        let scratch = unpacked(archive);
        assert_eq!(text(scratch.at("file")), "new");
        for dir in ["dir", "implied"] {
            assert!(scratch.at(dir).join("x").exists());
            assert_eq!(xattrs(&scratch.at(dir)).get(OPAQUE).map(Vec::as_slice), Some(&b"y"[..]), "{dir}");
        }
    }
}

#[test]
fn opaque_directories() {
    if !is_root("trusted attributes") {
        return;
    }
    let archive = Tar::default().file("a/.wh..wh..opq", "").file("a/x", "").dir("b").file("b/x", "");
    let archive = archive.file("b/.wh..wh..opq", "").dir("b").dir("c");
    let scratch = unpacked(archive.clone());
    for (dir, is_opaque) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(xattrs(&scratch.at(dir)).contains_key(OPAQUE), is_opaque, "{dir}");
    }
    assert!(scratch.at("a/x").exists() && scratch.at("b/x").exists());
    let scratch = Scratch::new();
    scratch.unpack(&archive.end(), &Options { user_xattr: true, ..Options::default() }).unwrap();
    assert_eq!(xattrs(&scratch.at("a")), [("user.overlay.opaque".to_owned(), b"y".to_vec())].into());
}

#[test]
fn a_layer_that_hides_all_others_says_so() {
    let scratch = Scratch::new();
    let archive = Tar::default().file("./.wh..wh..opq", "").file("x", "").end();
    assert!(scratch.unpack(&archive, &Options::default()).unwrap().is_opaque);
    assert!(xattrs(&scratch.root()).is_empty());
}

#[test]
fn files_of_aufs_are_left_out() {
    let scratch = unpacked(
        Tar::default()
            .dir(".wh..wh.plnk")
            .file(".wh..wh.plnk/1.2", "")
            .file(".wh..wh.aufs", "")
            .dir(".wh..wh.orph")
            .file("a", ""),
    );
    assert_eq!(fs::read_dir(scratch.root()).unwrap().count(), 1);
}

#[test]
fn whiteouts_of_nothing() {
    for name in [".wh.", "a/.wh..", ".wh...", ".wh.a/b"] {
        let error = refused(Tar::default().file(name, ""));
        assert!(error.starts_with(&format!("entry {name:?}: ")) && error.contains("whiteout"), "{error}");
    }
}

#[test]
fn a_hard_link_to_a_whiteout_has_no_target() {
    let error = refused(Tar::default().file(".wh.a", "").hard_link("b", "a"));
    assert!(error.contains("entry \"b\"") && error.contains("not in this layer"), "{error}");
}
