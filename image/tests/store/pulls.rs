//! Images of a registry: docker's own, on this machine, filled by skopeo.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{Image, Scratch, archive, gzip, hex_of, need, same};

struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Registry {
    /// `None` with a reason where the programs for it are not there.
    fn start(scratch: &Scratch) -> Option<Self> {
        need("skopeo")?;
        need("docker-registry")?;
        let root = scratch.join("registry");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            root.display()
        );
        let config = scratch.write("config.yml", config.as_bytes());
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut registry = Self { child, host: String::new() };
        let mut said = BufReader::new(registry.child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "the registry ended");
            if let Some((_, rest)) = line.split_once("listening on 127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                // What it says later must not fill the pipe.
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
                registry.host = format!("127.0.0.1:{port}");
                return Some(registry);
            }
        }
    }

    fn push(&self, scratch: &Scratch, image: &Image, name: &str) {
        scratch.write("push.tar", &archive(&image.docker(&["push:1"], same)));
        let to = format!("docker://{}/{name}", self.host);
        let words = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "docker-archive:push.tar", &to];
        let output = Command::new("skopeo").args(words).current_dir(&scratch.path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_layer_that_is_there_is_not_fetched() {
    let scratch = Scratch::new();
    let Some(registry) = Registry::start(&scratch) else { return };
    let (first, second) = (Image::two(), Image::new(&[&[("a", "one"), ("b", "one")], &[("a", "2")]]));
    registry.push(&scratch, &first, "tool:1");
    registry.push(&scratch, &second, "tool:2");
    let name = |tag: &str| format!("{}/tool:{tag}", registry.host);
    assert!(scratch.run(&["pull", &name("1")]).starts_with(&name("1")));
    let record = scratch.ensure(&name("1"));
    assert_eq!(scratch.content(&record, "a").as_deref(), Some("two"));
    assert_eq!(scratch.content(&record, "b").as_deref(), Some("one"));
    scratch.is_whole();
    // The registry loses what both have.
    let blob = record["layers"][0]["blob"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let data = scratch.join("registry/docker/registry/v2/blobs/sha256").join(&blob[..2]).join(&blob).join("data");
    fs::remove_file(data).unwrap();
    let record = scratch.ensure(&format!("docker://{}", name("2")));
    assert_eq!(scratch.content(&record, "a").as_deref(), Some("2"));
    assert_eq!(scratch.entries("layers").len(), 3);
    // Into another store it cannot come, and nothing of it stays.
    let other = Scratch::new();
    let error = other.fails(&["ensure", "--quiet", &name("2")]);
    assert!(error.contains("layer 1 of 2"), "{error}");
    assert!(other.entries("images").is_empty() && other.entries("tmp").is_empty());
    let manifest = record["manifest"].as_str().unwrap().to_owned();
    let repository = name("2").replace(":2", "");
    let by_digest = scratch.ensure(&format!("{repository}@{manifest}"));
    assert_eq!(by_digest["config"], record["config"]);
    drop(registry);
    assert_eq!(scratch.ensure(&format!("{repository}:1"))["layers"].as_array().unwrap().len(), 2);
    scratch.fails(&["ensure", "--pull=always", &format!("{repository}:1")]);
}

#[test]
fn what_a_registry_changed_is_not_taken() {
    let scratch = Scratch::new();
    let Some(registry) = Registry::start(&scratch) else { return };
    registry.push(&scratch, &Image::two(), "tool:1");
    let blobs = scratch.join("registry/docker/registry/v2/blobs/sha256");
    let mut changed = 0;
    for entry in fs::read_dir(&blobs).unwrap().flat_map(|prefix| fs::read_dir(prefix.unwrap().path()).unwrap()) {
        let data = entry.unwrap().path().join("data");
        let bytes = fs::read(&data).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut other = gzip(&archive(&[("evil".into(), vec![b'x'; 10])]));
            other.resize(bytes.len(), 0);
            assert_ne!(hex_of(&other), hex_of(&bytes));
            fs::write(&data, other).unwrap();
            changed += 1;
        }
    }
    assert_eq!(changed, 2);
    scratch.fails(&["pull", "--quiet", &format!("{}/tool:1", registry.host)]);
    for directory in ["layers", "images", "tmp", "blobs/sha256"] {
        assert!(scratch.entries(directory).is_empty(), "{directory}");
    }
}

/// Who meant a file is told how to say so.
#[test]
fn a_file_that_has_the_name() {
    let scratch = Scratch::new();
    let Some(registry) = Registry::start(&scratch) else { return };
    let name = format!("{}/tool", registry.host);
    scratch.write(&name, b"");
    let error = scratch.fails(&["ensure", &name]);
    assert!(error.contains(&format!("write ./{name}")), "{error}");
}
