//! Names, lists, and what goes with the last name.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use kelson::image::{Origin, Store};
use serde_json::{Value, json};

use crate::support::{Image, Scratch, archive, gzip, layout, same, tagged};

fn two_images(scratch: &Scratch) -> (Image, Image) {
    let first = Image::new(&[&[("base", "x")], &[("a", "1")]]);
    let second = Image::new(&[&[("base", "x")], &[("a", "2")]]);
    let mut files = first.docker(&["tool:1", "other/tool:1"], same);
    let manifest: Value = serde_json::from_slice(&files.pop().unwrap().1).unwrap();
    let mut more = second.docker(&["tool:2"], same);
    let second_manifest: Value = serde_json::from_slice(&more.pop().unwrap().1).unwrap();
    files.extend(more);
    files.push(("manifest.json".into(), json!([manifest[0], second_manifest[0]]).to_string().into_bytes()));
    scratch.write("both.tar", &archive(&files));
    (first, second)
}

#[test]
fn one_of_several_is_chosen() {
    let scratch = Scratch::new();
    let (first, second) = two_images(&scratch);
    let error = scratch.fails(&["ensure", "both.tar"]);
    assert!(error.contains("2 images") && error.contains("tool:1") && error.contains("tool:2"), "{error}");
    assert!(scratch.fails(&["ensure", "docker-archive:both.tar:3"]).contains("tool:2"));
    assert_eq!(scratch.ensure("docker-archive:both.tar:2")["config"], second.id());
    assert_eq!(scratch.ensure("docker-archive:both.tar:other/tool:1")["config"], first.id());
    let (mut blobs, one) = first.blobs(gzip);
    let (more, two) = second.blobs(gzip);
    blobs.extend(more);
    scratch.write("oci.tar", &archive(&layout(blobs, &[tagged(one, "v1"), tagged(two, "v2")])));
    assert!(scratch.fails(&["ensure", "oci-archive:oci.tar"]).contains("v1"));
    assert_eq!(scratch.ensure("oci-archive:oci.tar:v2")["config"], second.id());
    assert_eq!(scratch.run(&["import", "oci.tar"]).lines().count(), 2);
    assert_eq!(scratch.ensure("localhost/oci:v1")["config"], first.id());
}

#[test]
fn a_layer_is_there_once_and_goes_with_its_last_image() {
    let scratch = Scratch::new();
    let (first, second) = two_images(&scratch);
    let said = scratch.run(&["import", "both.tar"]);
    assert_eq!(said, format!("tool:1 {}\ntool:2 {}\n", first.id(), second.id()));
    assert_eq!(scratch.entries("layers").len(), 3);
    let list: Value = serde_json::from_str(&scratch.run(&["list", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(list.as_array().unwrap().iter().all(|row| row["size"] == 2 && row["unique"] == 1), "{list}");
    assert_eq!(scratch.run(&["rm", "tool:1"]), "Untagged: tool:1\n");
    let id = first.id();
    scratch.run(&["tag", &id, "localhost:5000/mine:x"]);
    assert!(scratch.fails(&["rm", &id]).contains("several names"));
    assert!(scratch.run(&["rm", "--force", &id]).contains("Deleted: sha256:"));
    assert_eq!(scratch.entries("layers").len(), 2);
    assert_eq!(scratch.run(&["rm", &second.id()[7..19]]), format!("Untagged: tool:2\nDeleted: {}\n", second.id()));
    for directory in ["layers", "blobs/sha256", "images", "sources", "tmp"] {
        assert!(scratch.entries(directory).is_empty(), "{directory}");
    }
    assert!(scratch.fails(&["inspect", "tool:1"]).contains("no image"));
}

/// A name that goes to another image leaves the first without one; prune takes that.
#[test]
fn a_name_goes_to_another_image() {
    let scratch = Scratch::new();
    let (first, second) = (Image::new(&[&[("a", "1")]]), Image::new(&[&[("a", "2")]]));
    scratch.write("1.tar", &archive(&first.docker(&["tool:1"], same)));
    scratch.write("2.tar", &archive(&second.docker(&["tool:1"], same)));
    scratch.run(&["import", "1.tar"]);
    scratch.run(&["import", "2.tar"]);
    assert_eq!(scratch.ensure("tool:1")["config"], second.id());
    assert_eq!(scratch.ensure("./1.tar")["config"], first.id());
    assert!(scratch.run(&["list"]).contains("<none>"));
    assert!(scratch.run(&["prune"]).starts_with(&format!("Deleted: {}\n", first.id())));
    assert_eq!(scratch.entries("layers").len(), 1);
}

/// Who runs a file does not ask that a name is another image from then on.
#[test]
fn ensure_takes_no_name_away() {
    let scratch = Scratch::new();
    scratch.write("1.tar", &archive(&Image::new(&[&[("a", "1")]]).docker(&["tool:1"], same)));
    let second = Image::new(&[&[("a", "2")]]);
    scratch.write("2.tar", &archive(&second.docker(&["tool:1"], same)));
    scratch.run(&["import", "1.tar"]);
    assert_eq!(scratch.ensure("2.tar")["config"], second.id());
    assert_ne!(scratch.ensure("tool:1")["config"], second.id());
}

/// A file that was imported is known again, until it changes.
#[test]
fn a_file_is_remembered() {
    let scratch = Scratch::new();
    let path = scratch.write("1.tar", &archive(&Image::new(&[&[("a", "1")]]).docker(&["tool:1"], same)));
    let (store, origin) = (Store { root: scratch.join("st") }, Origin::parse(path.as_os_str()).unwrap());
    // One that was made this very moment is not remembered: it could change without a trace.
    while fs::metadata(&path).unwrap().modified().unwrap().elapsed().unwrap().as_millis() < 50 {
        std::thread::yield_now();
    }
    let record = scratch.ensure(path.to_str().unwrap());
    let known = store.find(&origin, None).unwrap().unwrap();
    assert_eq!(json!(known), record);
    let second = archive(&Image::new(&[&[("a", "2")]]).docker(&["tool:1"], same));
    assert_eq!(second.len() as u64, fs::metadata(&path).unwrap().len());
    let before = fs::metadata(&path).unwrap();
    fs::write(&path, second).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
    assert_eq!(store.find(&origin, None).unwrap(), None);
    assert_ne!(scratch.ensure(path.to_str().unwrap())["config"], record["config"]);
}

#[test]
fn what_a_container_uses_stays() {
    let scratch = Scratch::new();
    let image = Image::two();
    scratch.write("1.tar", &archive(&image.docker(&["tool:1"], same)));
    scratch.run(&["import", "1.tar"]);
    let bundle = scratch.join("bundle");
    fs::create_dir(&bundle).unwrap();
    let lower: Vec<_> =
        scratch.entries("layers").iter().map(|hex| scratch.join("st/layers").join(hex).join("fs")).collect();
    let config = json!({ "annotations": { "org.kelson.overlay.lower": json!(lower).to_string() } });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let info = fs::metadata(&bundle).unwrap();
    let link = scratch.join("st/roots").join(format!("{:x}-{:x}", info.dev(), info.ino()));
    symlink(&bundle, &link).unwrap();
    let error = scratch.fails(&["rm", "tool:1"]);
    assert!(error.contains("used by") && error.contains("bundle"), "{error}");
    assert_eq!(scratch.run(&["prune", "--all"]), "Freed: 0B (0 layers)\n");
    assert_eq!(scratch.ensure("tool:1")["config"], image.id());
    // Who made it called the store otherwise.
    symlink(scratch.join("st"), scratch.join("alias")).unwrap();
    fs::write(bundle.join("config.json"), config.to_string().replace("/st/layers/", "/alias/layers/")).unwrap();
    assert!(scratch.fails(&["rm", "tool:1"]).contains("used by"));
    assert_eq!(scratch.run(&["prune", "--all"]), "Freed: 0B (0 layers)\n");
    // Its name goes if that is asked for, its layers do not.
    scratch.run(&["rm", "--force", "tool:1"]);
    assert_eq!(scratch.entries("layers").len(), 2);
    // What cannot be read may use all.
    fs::write(bundle.join("config.json"), "{").unwrap();
    let output = scratch.command(&["prune", "--all"]).output().unwrap();
    assert!(crate::support::error_of(&output).contains("cannot be told"), "{output:?}");
    scratch.run(&["import", "1.tar"]);
    let error = scratch.fails(&["rm", "tool:1"]);
    assert!(error.contains("uses the image \"tool:1\" cannot be told") && !error.contains("used by"), "{error}");
    scratch.run(&["rm", "--force", "tool:1"]);
    assert_eq!(scratch.entries("layers").len(), 2);
    fs::remove_dir_all(&bundle).unwrap();
    scratch.run(&["prune"]);
    assert!(scratch.entries("layers").is_empty() && scratch.entries("roots").is_empty());
}

#[test]
fn broken_records_go() {
    let scratch = Scratch::new();
    scratch.write("1.tar", &archive(&Image::two().docker(&["tool:1"], same)));
    scratch.run(&["import", "1.tar"]);
    let record = scratch.join("st/images/docker.io/library/tool/:1");
    fs::write(&record, "{").unwrap();
    assert!(scratch.fails(&["ensure", "tool:1"]).contains("prune"), "the way out is told");
    scratch.run(&["prune"]);
    assert!(!record.exists());
}
