//! Every form in which an image comes is the same image.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Image, Scratch, archive, gzip, hex_of, layout, need, same, tagged, zstd};

/// The image is there: its id, its files, nothing half done.
fn is_there(scratch: &Scratch, image: &Image, source: &str) -> Value {
    let record = scratch.ensure(source);
    assert_eq!(record["config"], image.id(), "{source}");
    assert_eq!(scratch.content(&record, "a").as_deref(), Some("two"), "{source}");
    assert_eq!(scratch.content(&record, "b").as_deref(), Some("one"), "{source}");
    assert!(scratch.entries("tmp").is_empty(), "{source}");
    scratch.is_whole();
    record
}

fn write_all(scratch: &Scratch, directory: &str, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        scratch.write(&format!("{directory}/{name}"), content);
    }
}

#[test]
fn docker_archives() {
    let image = Image::two();
    for encode in [same as fn(&[u8]) -> Vec<u8>, gzip, zstd] {
        let scratch = Scratch::new();
        let mut files = image.docker(&["tool:1"], encode);
        write_all(&scratch, "dir", &files);
        scratch.write("plain.tar", &archive(&files));
        scratch.write("whole.tar.gz", &gzip(&archive(&files)));
        scratch.write("whole.tar.zst", &zstd(&archive(&files)));
        files.reverse();
        for (name, _) in &mut files {
            name.insert_str(0, "./");
        }
        scratch.write("other-order", &archive(&files));
        for source in [
            "./dir",
            "./plain.tar",
            "plain.tar",
            "docker-archive:plain.tar",
            "docker-archive:plain.tar:tool:1",
            "docker-archive:plain.tar:1",
            "whole.tar.gz",
            "whole.tar.zst",
            "./other-order",
        ] {
            is_there(&scratch, &image, source);
        }
    }
}

/// docker save before 25 writes a layer that is there already as a link to it.
#[test]
fn layers_that_are_links() {
    let image = Image::two();
    let scratch = Scratch::new();
    let mut files = image.docker(&["tool:1"], same);
    let (first, content) = files[0].clone();
    files.insert(1, ("real/layer.tar".into(), content));
    files[0] = (first.clone(), b"->../real/layer.tar".to_vec());
    scratch.write("symbolic.tar", &archive(&files));
    files.swap(0, 1);
    files[1] = (first, b"=>real/layer.tar".to_vec());
    scratch.write("hard.tar", &archive(&files));
    is_there(&scratch, &image, "symbolic.tar");
    is_there(&Scratch::new(), &image, scratch.join("hard.tar").to_str().unwrap());
}

#[test]
fn a_pipe_is_an_archive_too() {
    let image = Image::two();
    let scratch = Scratch::new();
    let path = scratch.write("plain.tar", &archive(&image.docker(&["tool:1"], same)));
    let script =
        format!("cat {} | {} --store st ensure /dev/stdin", path.display(), env!("CARGO_BIN_EXE_kelson-image"));
    let output = Command::new("sh").args(["-c", &script]).current_dir(&scratch.path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    is_there(&scratch, &image, "plain.tar");
}

#[test]
fn layouts() {
    let image = Image::two();
    for encode in [same as fn(&[u8]) -> Vec<u8>, gzip, zstd] {
        let scratch = Scratch::new();
        let (blobs, manifest) = image.blobs(encode);
        let files = layout(blobs, &[tagged(manifest.clone(), "1.36")]);
        write_all(&scratch, "dir", &files);
        scratch.write("plain.tar", &archive(&files));
        scratch.write("whole.tar.gz", &gzip(&archive(&files)));
        let by_digest = format!("oci:dir@{}", manifest["digest"].as_str().unwrap());
        for source in ["./dir", "oci:dir", "oci:dir:1.36", &by_digest, "oci-archive:plain.tar:1.36", "whole.tar.gz"] {
            let record = is_there(&scratch, &image, source);
            assert_eq!(record["manifest"], manifest["digest"]);
        }
    }
}

/// docker save since 25: a layout, with a manifest.json for those that know no other.
#[test]
fn docker_archives_with_a_layout() {
    let image = Image::two();
    let scratch = Scratch::new();
    let (blobs, manifest) = image.blobs(same);
    let names: Vec<_> = image.layers.iter().map(|layer| format!("blobs/sha256/{}", hex_of(layer))).collect();
    let config = format!("blobs/sha256/{}", hex_of(&image.config));
    let mut files = layout(blobs, &[manifest]);
    let manifest = json!([{ "Config": config, "RepoTags": ["tool:1"], "Layers": names }]);
    files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    scratch.write("plain.tar", &archive(&files));
    for source in ["plain.tar", "docker-archive:plain.tar:tool:1", "oci-archive:plain.tar"] {
        is_there(&scratch, &image, source);
    }
    assert_eq!(scratch.run(&["import", "plain.tar"]), format!("tool:1 {}\n", image.id()));
}

#[test]
fn the_platform_is_chosen_in_nested_indexes() {
    let scratch = Scratch::new();
    let here = Image::two();
    let other = Image::of(here.layers.clone(), "s390x");
    let (mut blobs, mut first) = here.blobs(gzip);
    let (more, mut second) = other.blobs(gzip);
    blobs.extend(more);
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    first["platform"] = json!({ "os": "linux", "architecture": host });
    second["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    let inner = json!({ "schemaVersion": 2, "manifests": [second, first] }).to_string().into_bytes();
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": format!("sha256:{}", hex_of(&inner)),
        "size": inner.len(),
    });
    blobs.insert(format!("blobs/sha256/{}", hex_of(&inner)), inner);
    write_all(&scratch, "dir", &layout(blobs, &[tagged(descriptor, "docker.io/library/tool:1")]));
    is_there(&scratch, &here, "oci:dir:tool:1");
    let record: Value =
        serde_json::from_str(&scratch.run(&["ensure", "oci:dir:1", "--platform", "linux/s390x"])).unwrap();
    assert_eq!((&record["config"], &record["platform"]), (&json!(other.id()), &json!("linux/s390x")));
    let error = scratch.fails(&["ensure", "oci:dir", "--platform", "linux/riscv64"]);
    assert!(error.contains("linux/s390x") && error.contains("linux/riscv64"), "{error}");
}

/// The form before 1.10, as a directory and as an archive, with and without `repositories`.
#[test]
fn layers_with_parents() {
    let image = Image::two();
    let scratch = Scratch::new();
    let mut files = vec![];
    for (id, parent, layer) in [("1111", None, &image.layers[0]), ("2222", Some("1111"), &image.layers[1])] {
        let mut json = json!({
            "id": id,
            "created": "2015-01-01T00:00:00Z",
            "container_config": { "Cmd": ["/bin/sh", "-c", "step"] },
            "config": { "Cmd": ["sh"] },
            "architecture": "amd64",
            "os": "linux",
            "Size": 1,
        });
        if let Some(parent) = parent {
            json["parent"] = parent.into();
        }
        files.push((format!("{id}/VERSION"), b"1.0".to_vec()));
        files.push((format!("{id}/json"), json.to_string().into_bytes()));
        files.push((format!("{id}/layer.tar"), gzip(layer)));
    }
    scratch.write("no-name.tar", &archive(&files));
    files.push(("repositories".into(), json!({ "tool": { "1": "2222" } }).to_string().into_bytes()));
    write_all(&scratch, "dir", &files);
    scratch.write("plain.tar", &archive(&files));
    let first = scratch.ensure("./dir");
    for source in ["plain.tar", "docker-archive:plain.tar:tool:1", "no-name.tar"] {
        assert_eq!(scratch.ensure(source)["config"], first["config"], "{source}");
    }
    assert_eq!(scratch.content(&first, "a").as_deref(), Some("two"));
    let id = first["config"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&scratch.run(&["inspect", id])).unwrap();
    assert_eq!(shown[0]["Config"]["Cmd"], json!(["sh"]));
    let history: Value = serde_json::from_str(&scratch.run(&["history", "--json", id])).unwrap();
    assert_eq!(history.as_array().unwrap().len(), 2);
    assert_eq!(history[0]["created_by"], "/bin/sh -c step");
    assert_eq!(scratch.run(&["import", "plain.tar"]), format!("tool:1 {id}\n"));
}

/// What skopeo and podman write of the same image is the same image.
#[test]
fn what_skopeo_writes() {
    let Some(skopeo) = need("skopeo") else { return };
    let image = Image::two();
    let scratch = Scratch::new();
    scratch.write("made.tar", &archive(&image.docker(&["tool:1"], same)));
    for (to, source) in [
        ("docker-archive:skopeo.tar:tool:1", "skopeo.tar"),
        ("oci:layout:1", "oci:layout:1"),
        ("oci-archive:oci.tar:docker.io/library/tool:1", "oci-archive:oci.tar:tool:1"),
    ] {
        let words = ["copy", "--quiet", "--insecure-policy", "docker-archive:made.tar", to];
        let output = Command::new(skopeo).args(words).current_dir(&scratch.path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let record = scratch.ensure(source);
        assert_eq!(scratch.content(&record, "a").as_deref(), Some("two"), "{source}");
        let diff_ids: Vec<_> = image.layers.iter().map(|layer| format!("sha256:{}", hex_of(layer))).collect();
        let found: Vec<_> = record["layers"].as_array().unwrap().iter().map(|layer| layer["diff_id"].clone()).collect();
        assert_eq!(json!(found), json!(diff_ids), "{source}");
    }
}
