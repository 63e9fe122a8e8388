//! What is damaged, or lies, is refused, and nothing of it is left.

use serde_json::json;

use crate::support::{Image, Scratch, archive, files, gzip, hex_of, layout, same, tagged};

/// Nothing came into the store.
fn is_empty(scratch: &Scratch, source: &str) {
    for directory in ["tmp", "images", "layers", "sources"] {
        assert_eq!(scratch.entries(directory), Vec::<String>::new(), "{directory} after {source}");
    }
}

#[test]
fn archives_that_are_no_images() {
    let scratch = Scratch::new();
    let whole = archive(&Image::two().docker(&["tool:1"], same));
    scratch.write("empty.tar", b"");
    scratch.write("text.tar", &[b'x'; 2000]);
    scratch.write("cut.tar", &whole[..whole.len() / 2]);
    scratch.write("cut.tar.gz", &gzip(&whole)[..200]);
    scratch.write("other.tar", &archive(&files(&[("a", "b")])));
    scratch.write("json.tar", &archive(&files(&[("manifest.json", "{")])));
    scratch.write("missing.tar", &archive(&files(&[("manifest.json", r#"[{"Config":"c.json","Layers":[]}]"#)])));
    scratch.write("outside.tar", &archive(&files(&[("manifest.json", r#"[{"Config":"../../etc/passwd"}]"#)])));
    scratch.write("loop.tar", &archive(&files(&[("manifest.json", "->b"), ("b", "->manifest.json")])));
    scratch.write("x.tar.bz2", b"BZh91AY&SY");
    scratch.write("dir/file", b"");
    for (source, why) in [
        ("empty.tar", "empty"),
        ("text.tar", "no tar archive"),
        ("cut.tar", "ends within an entry"),
        ("cut.tar.gz", "cut off"),
        ("other.tar", "no image"),
        ("json.tar", "manifest.json"),
        ("missing.tar", "c.json"),
        ("outside.tar", "leads out"),
        ("loop.tar", "links"),
        ("./x.tar.bz2", "bunzip2"),
        ("./dir", "no image"),
        ("./nothing", "no such file"),
        ("/dev/null", "neither a file nor a directory"),
    ] {
        let error = scratch.fails(&["ensure", source]);
        assert!(error.contains(why), "{source}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        is_empty(&scratch, source);
    }
}

/// A directory's links and pipes are no way out and no trap.
#[test]
fn directories_that_lead_out() {
    let scratch = Scratch::new();
    let image = Image::two();
    for (name, content) in image.docker(&["tool:1"], same) {
        scratch.write(&format!("dir/{name}"), &content);
    }
    let config = scratch.join("dir").join(format!("{}.json", hex_of(&image.config)));
    let moved = scratch.join("config.json");
    std::fs::rename(&config, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &config).unwrap();
    let error = scratch.fails(&["ensure", "./dir"]);
    assert!(error.contains("leads out of the directory"), "{error}");
    std::fs::remove_file(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = scratch.fails(&["ensure", "./dir"]);
    assert!(error.contains("no file"), "{error}");
    is_empty(&scratch, "./dir");
}

#[test]
fn layers_that_are_others() {
    let image = Image::two();
    let made = Scratch::new();
    let mut swapped = image.docker(&["tool:1"], same);
    swapped[0].1 = archive(&files(&[("a", "evil")]));
    made.write("diff-id.tar", &archive(&swapped));
    let mut cut = image.docker(&["tool:1"], gzip);
    let length = cut[1].1.len();
    cut[1].1.truncate(length / 2);
    made.write("cut.tar", &archive(&cut));
    let (mut blobs, manifest) = image.blobs(gzip);
    let name = format!("blobs/sha256/{}", hex_of(&gzip(&image.layers[1])));
    let blob = blobs.get_mut(&name).unwrap();
    let last = blob.len() - 9;
    blob[last] ^= 1;
    made.write("blob.tar", &archive(&layout(blobs.clone(), std::slice::from_ref(&manifest))));
    blobs.get_mut(&name).unwrap().pop();
    made.write("size.tar", &archive(&layout(blobs.clone(), std::slice::from_ref(&manifest))));
    blobs.remove(&name);
    made.write("gone.tar", &archive(&layout(blobs, &[manifest])));
    for (source, whys) in [
        ("diff-id.tar", &["layer 1 of 2", "in place of", "configuration names"][..]),
        ("cut.tar", &["layer 2 of 2", "cut off"]),
        ("blob.tar", &["layer 2 of 2"]),
        ("size.tar", &["bytes in place of"]),
        ("gone.tar", &["lacks"]),
    ] {
        // A store of its own: a layer that is there is not read again.
        let scratch = Scratch::new();
        let error = scratch.fails(&["ensure", made.join(source).to_str().unwrap()]);
        assert!(whys.iter().all(|why| error.contains(why)), "{source}: {error}");
        assert!(scratch.entries("tmp").is_empty() && scratch.entries("images").is_empty(), "{source}");
        // The other layer, which is whole, is all that there may be.
        assert!(scratch.entries("layers").len() <= 1);
        scratch.is_whole();
        scratch.run(&["prune"]);
        assert!(scratch.entries("layers").is_empty() && scratch.entries("blobs/sha256").is_empty());
    }
}

#[test]
fn documents_that_are_others() {
    let image = Image::two();
    let scratch = Scratch::new();
    let (blobs, manifest) = image.blobs(gzip);
    let config = format!("blobs/sha256/{}", hex_of(&image.config));
    let mut changed = blobs.clone();
    let text = String::from_utf8(image.config.clone()).unwrap().replace("2026", "2027");
    changed.insert(config, text.into_bytes());
    scratch.write("config.tar", &archive(&layout(changed, std::slice::from_ref(&manifest))));
    let mut other = manifest.clone();
    other["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    scratch.write("manifest.tar", &archive(&layout(blobs.clone(), &[other])));
    let mut wrong = manifest.clone();
    wrong["digest"] = json!("sha256:../../../etc/passwd");
    scratch.write("digest.tar", &archive(&layout(blobs.clone(), &[wrong])));
    let few = Image { layers: image.layers[..1].to_vec(), config: image.config.clone() };
    scratch.write("few.tar", &archive(&few.docker(&["tool:1"], same)));
    for (source, why) in
        [("config.tar", "damaged"), ("manifest.tar", "lacks"), ("digest.tar", "digest"), ("few.tar", "2 layers")]
    {
        let error = scratch.fails(&["ensure", source]);
        assert!(error.contains(why), "{source}: {error}");
        is_empty(&scratch, source);
    }
}

/// Names of images that would be paths, or drive a terminal.
#[test]
fn names_that_are_none() {
    let scratch = Scratch::new();
    for tag in ["../../etc/passwd:1", "a\u{1b}[2J:1", "UPPER:1", ""] {
        scratch.write("x.tar", &archive(&Image::two().docker(&[tag], same)));
        let error = scratch.fails(&["import", "x.tar"]);
        assert!(error.contains("image name") && !error.contains('\u{1b}'), "{error}");
    }
    let (blobs, manifest) = Image::two().blobs(gzip);
    scratch.write("y.tar", &archive(&layout(blobs, &[tagged(manifest, "../../x")])));
    scratch.run(&["import", "y.tar"]);
    assert_eq!(scratch.entries("images").len(), 1);
}
