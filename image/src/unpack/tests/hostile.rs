//! What is refused, and what it must not have done.

use std::fs;

use super::support::*;

/// Refused with the entry's name and a reason with these words.
fn is_refused(archive: Tar, entry: &str, why: &str) {
    let error = refused(archive);
    assert!(error.starts_with(&format!("entry {entry:?}: ")) && error.contains(why), "{error:?} has no {why:?}");
}

#[test]
fn names() {
    for (name, why) in [
        ("../x", "\"..\""),
        ("a/../../x", "\"..\""),
        ("a/..", "\"..\""),
        ("..", "\"..\""),
        ("/etc/passwd", "absolute"),
        ("//x", "absolute"),
        ("", "no name"),
    ] {
        is_refused(Tar::default().file(name, ""), name, why);
        is_refused(Tar::default().dir(name), name, why);
    }
    let long = |name: &[u8]| refused(Tar::default().pax(&[("path", name)]).file("x", ""));
    assert!(long(&[b'x'; 256]).contains("component"));
    assert!(long("x/".repeat(300).as_bytes()).contains("deep"));
    assert!(long("xxxxxxxxxxxxxxxxxxxxxxxxx/".repeat(200).as_bytes()).contains("more than 4095"));
    assert!(long(b"a\0b").contains("PAX record \"path\""));
    is_refused(Tar::default().file(".", ""), ".", "root");
    is_refused(Tar::default().symlink("./", "x"), "./", "root");
}

#[test]
fn links_that_lead_out() {
    let outside = std::env::temp_dir().to_str().unwrap().to_owned();
    for target in ["..", "../..", "a/../../..", "../root/../../x", "x/../.."] {
        let archive = Tar::default().dir("a").dir("x").symlink("out", target);
        is_refused(archive.clone().file("out/file", "x"), "out/file", "out of the layer");
        is_refused(archive.clone().dir("out/dir"), "out/dir", "out of the layer");
        is_refused(archive.clone().hard_link("hard", "out/file"), "hard", "out of the layer");
        is_refused(archive.clone().file("out/.wh.x", ""), "out/.wh.x", "out of the layer");
        is_refused(archive.file("out/.wh..wh..opq", ""), "out/.wh..wh..opq", "out of the layer");
    }
    // An absolute one leads to what it is in the container.
    let scratch = unpacked(Tar::default().symlink("out", &outside).file("out/kelson-unpack-escaped", "x"));
    assert!(!fs::exists(format!("{outside}/kelson-unpack-escaped")).unwrap());
    assert_eq!(text(scratch.at(&format!("{outside}/kelson-unpack-escaped")[1..])), "x");
}

#[test]
fn links_of_procfs_are_links_like_others() {
    let scratch = unpacked(Tar::default().symlink("out", "/proc/self/cwd").file("out/escaped", "x"));
    assert_eq!(text(scratch.at("proc/self/cwd/escaped")), "x");
}

#[test]
fn loops_and_long_ways() {
    let looped = Tar::default().symlink("a", "b").symlink("b", "a").symlink("c", "c/c");
    is_refused(looped.clone().file("a/x", ""), "a/x", "go round");
    is_refused(looped.file("c/x", ""), "c/x", "go round");
    // Each link doubles the way.
    let target = ["l/"; 1000].concat();
    let doubling = Tar::default().pax(&[("linkpath", target.as_bytes())]).symlink("l", "cut").file("l/x", "");
    is_refused(doubling, "l/x", "go round");
    let target = ["./a/.."; 500].join("/");
    let long = Tar::default().dir("a").pax(&[("linkpath", target.as_bytes())]).symlink("l", "cut").file("l/x", "");
    is_refused(long, "l/x", "too long");
}

#[test]
fn hard_links_without_a_target_in_the_layer() {
    for (target, why) in [
        ("missing", "not in this layer"),
        ("missing/deep", "not in this layer"),
        ("../root/x", "\"..\""),
        ("/etc/passwd", "absolute"),
        ("", "no name"),
        ("dir", "a directory"),
        ("./", "not in this layer"),
        ("dir/later", "not in this layer"),
        ("out/passwd", "not in this layer"),
        ("etc/passwd", "go round"),
        ("file/x", "is no directory"),
    ] {
        let archive = Tar::default()
            .dir("dir")
            .file("file", "")
            .symlink("etc", "/etc")
            .symlink("out", "/dir")
            .hard_link("hard", target);
        is_refused(archive.file("dir/later", ""), "hard", why);
    }
    is_refused(Tar::default().file("a/b", "").hard_link("a", "a/b"), "a", "not in this layer");
}

#[test]
fn a_file_is_no_directory() {
    is_refused(Tar::default().file("a", "").file("a/b", ""), "a/b", "\"a\" is no directory");
    is_refused(Tar::default().file("a", "").symlink("l", "a").dir("l/b"), "l/b", "\"a\" is no directory");
}

#[test]
fn types_and_numbers_that_are_none() {
    for kind in *b"MNDVXAEz9\xff" {
        assert!(refused(Tar::default().head(Head::new(kind, "x"))).contains("of type"), "{kind}");
    }
    is_refused(Tar::default().symlink("x", ""), "x", "nothing");
    let number = |at: usize, bytes: &[u8]| {
        let mut head = Head::new(b'3', "x").device(1, 3);
        head.put(at, bytes);
        Tar::default().head(head)
    };
    is_refused(number(108, b"000000x\0"), "x", "uid is no number");
    is_refused(number(108, &[0xff; 8]), "x", "no ids -1:0");
    is_refused(number(116, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "x", "no ids 0:4294967295");
    is_refused(number(124, b"9\0"), "x", "size is no number");
    is_refused(number(124, &[0xff; 12]), "x", "size is negative");
    is_refused(number(136, b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), "x", "time is no number");
    is_refused(number(329, b"7777777\0"), "x", "no device");
    is_refused(number(337, &[0xff; 8]), "x", "no device 1:-1");
}

#[test]
fn blocks_that_are_no_headers() {
    let mut archive = Tar::default().file("a", "").file("b", "").0;
    archive[512 + 3] ^= 1;
    assert_eq!(refused_bytes(&archive), "find the next entry: its header is corrupt: the checksum is wrong");
    assert!(refused_bytes(&[b'x'; 1024]).contains("checksum"));
    let one_empty = Tar::default().file("a", "").raw(&[0; 512]).file("b", "").0;
    assert!(refused_bytes(&one_empty).contains("one empty block"));
}

#[test]
fn extensions_are_not_read_into_memory_without_end() {
    for kind in *b"LKxg" {
        let error = refused(Tar::default().head(Head::new(kind, "x").size(4 << 30)).raw(&[b'a'; 1 << 20]));
        assert!(error.contains("more than 1048576"), "{error}");
    }
}

#[test]
fn what_the_kernel_refuses_is_told() {
    let error = refused(Tar::default().pax(&[("linkpath", &[b'x'; 5000])]).symlink("x", "cut"));
    assert_eq!(error, "entry \"x\": make it: file name too long");
}

#[test]
fn paths_do_not_grow_beyond_what_can_be_opened() {
    // Each link leads further down than a name could.
    let step = "d".repeat(250);
    let target = [step.as_str(); 15].join("/");
    let mut archive = Tar::default();
    for depth in 0..3 {
        let name = format!("{}l", "l/".repeat(depth));
        archive =
            archive.file(&format!("{name}ink/file"), "").pax(&[("linkpath", target.as_bytes())]).symlink(&name, "cut");
    }
    let error = refused(archive.file("l/l/l/file", ""));
    assert!(error.contains("its path has more than 4095 bytes"), "{error}");
}
