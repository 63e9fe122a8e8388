//! Entries that take the place of others, and links on their way.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::support::*;

#[test]
fn the_last_entry_with_a_name_counts() {
    let scratch = unpacked(
        Tar::default()
            .file("file", "old and longer")
            .file("file", "new")
            .file("to_dir", "")
            .dir("to_dir")
            .file("to_dir/x", "")
            .dir("to_file/deep/deeper")
            .file("to_file/deep/deeper/x", "")
            .file("to_file", "file")
            .dir("to_link")
            .file("to_link/x", "")
            .symlink("to_link", "to_dir")
            .symlink("link_to_dir", "to_dir")
            .dir("link_to_dir")
            .file("link_to_dir/y", ""),
    );
    assert_eq!(text(scratch.at("file")), "new");
    assert!(scratch.at("to_dir/x").exists());
    assert_eq!(text(scratch.at("to_file")), "file");
    assert!(fs::symlink_metadata(scratch.at("to_link")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(scratch.at("link_to_dir")).unwrap().is_dir());
    assert!(!scratch.at("to_dir/y").exists());
}

#[test]
fn a_file_is_replaced_and_not_written_through() {
    let scratch = unpacked(
        Tar::default()
            .file("target", "kept")
            .symlink("link", "target")
            .file("link", "new")
            .hard_link("hard", "target")
            .file("hard", "new"),
    );
    assert_eq!(text(scratch.at("target")), "kept");
    assert_eq!(text(scratch.at("link")), "new");
    assert!(fs::symlink_metadata(scratch.at("link")).unwrap().is_file());
}

#[test]
fn a_directory_that_is_gone_is_not_what_comes_after_it() {
    // The parent of the last entry is kept open: after it was replaced the next is made in the new one.
    let scratch = unpacked(
        Tar::default()
            .head(Head::new(b'5', "a").mode(0o500).time(1))
            .file("a/x", "")
            .symlink("a", "b")
            .dir("b")
            .head(Head::new(b'5', "a").mode(0o755).time(2))
            .file("a/y", "")
            .head(Head::new(b'5', "c").mode(0).time(3))
            .file("c", ""),
    );
    let info = fs::symlink_metadata(scratch.at("a")).unwrap();
    assert_eq!((info.is_dir(), info.mode() & 0o777, info.mtime()), (true, 0o755, 2));
    assert!(scratch.at("a/y").exists() && !scratch.at("a/x").exists());
    let info = fs::metadata(scratch.at("c")).unwrap();
    assert_eq!((info.mode() & 0o777, info.mtime()), (0o644, 1_000_000_000));
}

#[test]
fn links_on_the_way_are_followed_as_in_the_container() {
    let scratch = unpacked(
        Tar::default()
            .symlink("lib", "usr/lib")
            .symlink("var/run", "/run")
            .symlink("usr/up", "../other/./dir/..")
            .symlink("chain", "lib")
            .file("lib/a", "a")
            .file("var/run/b", "b")
            .file("usr/up/c", "c")
            .file("chain/d", "d")
            .file("lib/e", "e")
            .hard_link("hard", "chain/a"),
    );
    for (name, data) in [("usr/lib/a", "a"), ("run/b", "b"), ("other/c", "c"), ("usr/lib/d", "d"), ("usr/lib/e", "e")] {
        assert_eq!(text(scratch.at(name)), data, "{name}");
    }
    // As the container sees it /run is in its own root; here it is not to be followed.
    assert_eq!(fs::read_link(scratch.at("var/run")).unwrap().to_str(), Some("/run"));
    assert_eq!(text(scratch.at("hard")), "a");
    assert_eq!(fs::metadata(scratch.at("usr/lib")).unwrap().mtime(), 0);
}

#[test]
fn hard_links() {
    let scratch = unpacked(
        Tar::default()
            .file("a/b/file", "data")
            .hard_link("c/link", "a/b/file")
            .hard_link("c/link", "a/b/file")
            .hard_link("a/b/file", "a/b/file")
            .symlink("sym", "/etc/shadow")
            .hard_link("sym2", "sym")
            .dir("d")
            .hard_link("d", "c/link"),
    );
    assert_eq!(fs::metadata(scratch.at("a/b/file")).unwrap().nlink(), 3);
    assert!(scratch.at("d").is_file());
    // One more name for a link leads nowhere new.
    assert_eq!(fs::read_link(scratch.at("sym2")).unwrap().to_str(), Some("/etc/shadow"));
}

#[test]
fn a_link_that_was_replaced_is_not_the_way_any_more() {
    let scratch =
        unpacked(Tar::default().dir("a").dir("b").symlink("l", "a").file("l/1", "").symlink("l", "b").file("l/2", ""));
    assert!(scratch.at("a/1").exists() && scratch.at("b/2").exists());
}
