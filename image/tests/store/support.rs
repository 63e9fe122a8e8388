//! Images made in code, a store of a test's own, and the program.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A directory of a test's own, with a store in it.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kelson-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `kelson-image` with the store of this test, called in its directory.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kelson-image"));
        command.current_dir(&self.path).arg("--store").arg(self.join("st")).args(words);
        command
    }

    pub fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", error_of(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it fails.
    pub fn fails(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", error_of(&output));
        error_of(&output)
    }

    /// The record that `ensure` prints.
    pub fn ensure(&self, source: &str) -> Value {
        serde_json::from_str(&self.run(&["ensure", source])).unwrap()
    }

    /// Names of the entries of a directory of the store, sorted.
    pub fn entries(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.join("st").join(directory)) else { return vec![] };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The file of an image as the record has it: in its topmost layer that has it.
    pub fn content(&self, record: &Value, name: &str) -> Option<String> {
        let layers = record["layers"].as_array().unwrap();
        layers.iter().rev().find_map(|layer| {
            let hex = layer["diff_id"].as_str().unwrap().trim_start_matches("sha256:");
            fs::read_to_string(self.join("st/layers").join(hex).join("fs").join(name)).ok()
        })
    }

    /// Nothing is half done, and every layer that is there is whole: `layer.json` has the number of entries that the tests' layers
    /// have on disk.
    pub fn is_whole(&self) {
        for hex in self.entries("layers") {
            let layer = self.join("st/layers").join(&hex);
            let record: Value = serde_json::from_slice(&fs::read(layer.join("layer.json")).unwrap()).unwrap();
            assert_eq!(count(&layer.join("fs")), record["entries"].as_u64().unwrap(), "layer {hex}");
            let blob = record["blob"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
            assert_eq!(hex_of(&fs::read(self.join("st/blobs/sha256").join(&blob)).unwrap()), blob);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let parent = fs::File::open(self.path.parent().unwrap()).unwrap();
        kelson_image::unpack::remove(parent.as_fd(), self.path.file_name().unwrap()).unwrap();
    }
}

fn count(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| 1 + if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 0 }).sum()
}

pub fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program, or `None` with a reason: in CI it must be there.
pub fn need(program: &str) -> Option<&str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
    }
    is_there.then_some(program)
}

pub fn hex_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// An archive with these files, in this order; a content that begins with `->` is a symbolic link, with `=>` a hard one.
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(vec![]);
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let text = String::from_utf8_lossy(content);
        if let Some(target) = text.strip_prefix("->").or(text.strip_prefix("=>")) {
            header.set_entry_type(if text.starts_with("->") { EntryType::Symlink } else { EntryType::Link });
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
            continue;
        }
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn files(list: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    list.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())).collect()
}

/// An image: its layers uncompressed, lowest first, and its configuration.
pub struct Image {
    pub layers: Vec<Vec<u8>>,
    pub config: Vec<u8>,
}

impl Image {
    /// With layers of these files.
    pub fn new(layers: &[&[(&str, &str)]]) -> Self {
        Self::of(layers.iter().map(|layer| archive(&files(layer))).collect(), "amd64")
    }

    pub fn of(layers: Vec<Vec<u8>>, architecture: &str) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", hex_of(layer))).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": { "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [{ "created_by": "first" }, { "created_by": "none", "empty_layer": true }, { "created_by": "second" }],
        });
        Self { layers, config: config.to_string().into_bytes() }
    }

    /// Two layers, of which the second changes a file of the first.
    pub fn two() -> Self {
        Self::new(&[&[("a", "one"), ("b", "one")], &[("a", "two")]])
    }

    pub fn id(&self) -> String {
        format!("sha256:{}", hex_of(&self.config))
    }

    /// The files of docker's archive, whose layers are `encode`d.
    pub fn docker(&self, tags: &[&str], encode: fn(&[u8]) -> Vec<u8>) -> Vec<(String, Vec<u8>)> {
        let config = format!("{}.json", hex_of(&self.config));
        let names: Vec<_> = self.layers.iter().map(|layer| format!("{}/layer.tar", hex_of(layer))).collect();
        let mut files: Vec<_> = names.iter().cloned().zip(self.layers.iter().map(|layer| encode(layer))).collect();
        let manifest = json!([{ "Config": config, "RepoTags": tags, "Layers": names }]);
        files.push((config, self.config.clone()));
        files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
        files
    }

    /// Blobs, and the descriptor of the manifest.
    pub fn blobs(&self, encode: fn(&[u8]) -> Vec<u8>) -> (BTreeMap<String, Vec<u8>>, Value) {
        let mut blobs = BTreeMap::new();
        let mut add = |media_type: &str, bytes: Vec<u8>| {
            let descriptor =
                json!({ "mediaType": media_type, "digest": format!("sha256:{}", hex_of(&bytes)), "size": bytes.len() });
            blobs.insert(format!("blobs/sha256/{}", hex_of(&bytes)), bytes);
            descriptor
        };
        let config = add("application/vnd.oci.image.config.v1+json", self.config.clone());
        let layers: Vec<_> =
            self.layers.iter().map(|layer| add("application/vnd.oci.image.layer.v1.tar+gzip", encode(layer))).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let manifest = add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
        (blobs, manifest)
    }
}

/// The files of a layout with these descriptors in its index.
pub fn layout(blobs: BTreeMap<String, Vec<u8>>, manifests: &[Value]) -> Vec<(String, Vec<u8>)> {
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    let mut files: Vec<_> = blobs.into_iter().collect();
    files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.push(("index.json".into(), index.to_string().into_bytes()));
    files
}

/// With the annotation that names it.
pub fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    descriptor
}

pub fn same(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}
