//! Several processes at once, and processes that die.

use std::process::{Child, Stdio};
use std::time::Instant;

use crate::support::{Image, Scratch, archive, error_of, same};

/// How often an import is killed, from its beginning to its end.
const KILLS: u32 = 16;

/// Layers that take a while: many files.
fn large() -> Image {
    let layer = |number: usize| {
        let files: Vec<_> =
            (0..400).map(|file| (format!("{number}-{file}"), vec![b'a' + number as u8; 2000])).collect();
        archive(&files)
    };
    Image::of((0..4).map(layer).collect(), "amd64")
}

fn start(scratch: &Scratch, words: &[&str]) -> Child {
    scratch.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_second_waits_for_the_first_or_takes_its_layers() {
    let scratch = Scratch::new();
    let image = large();
    scratch.write("large.tar", &archive(&image.docker(&["large:1"], same)));
    let children: Vec<_> = (0..4).map(|_| start(&scratch, &["ensure", "large.tar"])).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", error_of(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(&image.id()));
    }
    assert_eq!(scratch.entries("layers").len(), 4);
    assert!(scratch.entries("tmp").is_empty());
    scratch.is_whole();
}

/// What a prune finds at any moment of an import is used or nobody's.
#[test]
fn who_adds_and_who_removes_do_not_hurt_each_other() {
    let scratch = Scratch::new();
    let image = large();
    scratch.write("large.tar", &archive(&image.docker(&["large:1"], same)));
    for _ in 0..3 {
        let mut import = start(&scratch, &["import", "large.tar"]);
        while import.try_wait().unwrap().is_none() {
            scratch.run(&["prune"]);
        }
        let output = import.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", error_of(&output));
        assert_eq!(scratch.entries("layers").len(), 4);
        scratch.is_whole();
        scratch.run(&["prune", "--all"]);
        assert!(scratch.entries("layers").is_empty() && scratch.entries("blobs/sha256").is_empty());
    }
}

/// A process that is killed at any moment leaves nothing that counts, and nothing that stays.
#[test]
fn killed_at_any_moment() {
    let scratch = Scratch::new();
    let image = large();
    scratch.write("large.tar", &archive(&image.docker(&["large:1"], same)));
    let started = Instant::now();
    scratch.run(&["import", "large.tar"]);
    let whole = started.elapsed();
    for part in 1..=KILLS {
        scratch.run(&["prune", "--all"]);
        let started = Instant::now();
        let mut child = start(&scratch, &["import", "large.tar"]);
        // The kill is meant to come at an instant and not at a condition.
        let instant = whole * part / KILLS;
        while child.try_wait().unwrap().is_none() && started.elapsed() < instant {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        scratch.is_whole();
    }
    scratch.run(&["import", "large.tar"]);
    assert!(scratch.entries("tmp").is_empty());
    assert_eq!(scratch.entries("layers").len(), 4);
    scratch.is_whole();
    scratch.run(&["prune", "--all"]);
    assert!(scratch.entries("blobs/sha256").is_empty());
}

/// What a host's crash may have cut is made again: a layer that was not synced counts for its boot only.
#[test]
fn a_layer_of_another_boot_is_made_again() {
    let scratch = Scratch::new();
    let image = Image::two();
    scratch.write("1.tar", &archive(&image.docker(&["tool:1"], same)));
    scratch.run(&["import", "1.tar"]);
    let hex = scratch.entries("layers").remove(0);
    let mark = scratch.join("st/layers").join(&hex).join("unsettled");
    assert!(!mark.exists(), "it was synced");
    std::fs::write(&mark, "another").unwrap();
    let files = scratch.join("st/layers").join(&hex).join("fs");
    for entry in std::fs::read_dir(&files).unwrap() {
        std::fs::write(entry.unwrap().path(), "").unwrap();
    }
    scratch.run(&["import", "1.tar"]);
    assert_eq!(scratch.content(&scratch.ensure("tool:1"), "a").as_deref(), Some("two"));
    assert_eq!(scratch.content(&scratch.ensure("tool:1"), "b").as_deref(), Some("one"));
    assert!(scratch.entries("tmp").is_empty());
}
