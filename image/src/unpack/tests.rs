//! Archives made in code, each for one fact.

mod support;

use support::*;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn a_plain_layer() {
    let scratch = unpacked(
        Tar::default()
            .head(Head::new(b'5', "./").mode(0o711).time(5))
            .dir("a/")
            .file("a/b", "content")
            .symlink("a/link", "/etc/passwd")
            .hard_link("c", "a/b"),
    );
    assert_eq!(text(scratch.at("a/b")), "content");
    assert_eq!(fs::metadata(scratch.at("a/b")).unwrap().ino(), fs::metadata(scratch.at("c")).unwrap().ino());
    assert_eq!(fs::read_link(scratch.at("a/link")).unwrap().to_str(), Some("/etc/passwd"));
    let root = fs::metadata(scratch.root()).unwrap();
    assert_eq!((root.permissions().mode() & 0o7777, root.mtime()), (0o711, 5));
    assert_eq!(fs::metadata(scratch.at("a")).unwrap().mtime(), 1_000_000_000);
}
