//! What is exported is the same image again, for others too.

use std::process::Command;

use serde_json::Value;

use crate::support::{Image, Scratch, archive, gzip, layout, need, same, tagged};

fn made(scratch: &Scratch) -> (Image, Image) {
    let (first, second) = (Image::two(), Image::new(&[&[("base", "x")]]));
    let (blobs, manifest) = first.blobs(gzip);
    scratch.write("1.tar", &archive(&layout(blobs, &[tagged(manifest, "docker.io/library/tool:1")])));
    scratch.write("2.tar", &archive(&second.docker(&["localhost:5000/base:2"], same)));
    scratch.run(&["import", "1.tar", "2.tar"]);
    (first, second)
}

#[test]
fn there_and_back() {
    let scratch = Scratch::new();
    let (first, second) = made(&scratch);
    for (format, output, source) in
        [("docker-archive", "d.tar", "d.tar"), ("oci-archive", "o.tar", "o.tar"), ("oci", "layout", "oci:layout")]
    {
        scratch.run(&["export", "--format", format, "-o", output, "tool:1", "localhost:5000/base:2"]);
        let other = Scratch::new();
        let source = match source.strip_prefix("oci:") {
            Some(name) => format!("oci:{}", scratch.join(name).display()),
            None => scratch.join(source).display().to_string(),
        };
        let mut said: Vec<_> = other.run(&["import", &source]).lines().map(str::to_owned).collect();
        said.sort();
        assert_eq!(
            said,
            [format!("localhost:5000/base:2 {}", second.id()), format!("tool:1 {}", first.id())],
            "{format}"
        );
        let (before, after) = (scratch.ensure("tool:1"), other.ensure("tool:1"));
        let diff_ids = |record: &Value| {
            record["layers"].as_array().unwrap().iter().map(|layer| layer["diff_id"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(diff_ids(&before), diff_ids(&after));
        if format != "docker-archive" {
            assert_eq!(before["manifest"], after["manifest"], "the manifest is the same, byte by byte");
        }
        other.is_whole();
    }
    assert!(scratch.fails(&["export", "--format", "oci", "-o", "layout", "tool:1"]).contains("be empty"));
    assert!(scratch.fails(&["export", "--format", "oci", "tool:1"]).contains("-o"));
    assert!(scratch.fails(&["export", "-o", "x.tar", "nothing"]).contains("no image"));
    let names: Vec<_> = std::fs::read_dir(&scratch.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 6, "nothing but what was asked for: {names:?}");
}

#[test]
fn standard_output_is_an_archive() {
    let scratch = Scratch::new();
    let (first, _) = made(&scratch);
    let output = scratch.command(&["export", "tool:1"]).output().unwrap();
    scratch.write("out.tar", &output.stdout);
    assert_eq!(Scratch::new().ensure(scratch.join("out.tar").to_str().unwrap())["config"], first.id());
}

#[test]
fn a_damaged_store_is_not_exported() {
    let scratch = Scratch::new();
    made(&scratch);
    let record = scratch.ensure("tool:1");
    let blob = record["layers"][0]["blob"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let path = scratch.join("st/blobs/sha256").join(blob);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for format in ["docker-archive", "oci-archive", "oci"] {
        scratch.fails(&["export", "--format", format, "-o", "out", "tool:1"]);
        assert!(!scratch.join("out").exists());
    }
}

#[test]
fn skopeo_reads_it() {
    let Some(skopeo) = need("skopeo") else { return };
    let scratch = Scratch::new();
    let (first, _) = made(&scratch);
    for (format, output, name) in [
        ("docker-archive", "d.tar", "docker-archive:d.tar:tool:1"),
        ("oci-archive", "o.tar", "oci-archive:o.tar:docker.io/library/tool:1"),
        ("oci", "layout", "oci:layout:docker.io/library/tool:1"),
    ] {
        scratch.run(&["export", "--format", format, "-o", output, "tool:1", "localhost:5000/base:2"]);
        let output = Command::new(skopeo)
            .args(["inspect", "--config", "--raw", name])
            .current_dir(&scratch.path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), String::from_utf8_lossy(&first.config));
    }
}

#[test]
fn podman_loads_it() {
    let Some(podman) = need("podman") else { return };
    let scratch = Scratch::new();
    made(&scratch);
    for (format, output) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar")] {
        scratch.run(&["export", "--format", format, "-o", output, "tool:1"]);
        let podman = |words: &[&str]| {
            let (root, runroot) = (scratch.join(&format!("{output}-root")), scratch.join(&format!("{output}-run")));
            let mut command = Command::new(podman);
            command.arg("--root").arg(root).arg("--runroot").arg(runroot).args(["--storage-driver", "vfs"]);
            command.args(words).current_dir(&scratch.path).output().unwrap()
        };
        let loaded = podman(&["load", "-q", "-i", output]);
        assert!(loaded.status.success(), "{loaded:?}");
        let tree = podman(&["image", "inspect", "docker.io/library/tool:1", "--format", "{{len .RootFS.Layers}}"]);
        assert_eq!(String::from_utf8_lossy(&tree.stdout).trim(), "2", "{tree:?}");
    }
}
