//! How much memory the program takes, as the kernel counts it. Alone in its file: it is the largest of all programs that the tests
//! of a file have started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use sha2::{Digest, Sha256};

/// What unpacking may have resident, in KiB.
const MOST: i64 = 64 << 10;
/// As many as are unpacked at once at most.
const LAYERS: u8 = 4;
/// Zeros at the end of each archive, in blocks of zstd: more than the window.
const BLOCKS: usize = 400;
const BLOCK: usize = 128 << 10;

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// An archive of one file and zeros that belong to nothing but the digest of the archive, which it returns, as a frame with a window
/// of 32 MiB. It is small: all of a block of zeros are said by one.
fn layer(number: u8) -> (Vec<u8>, String) {
    let mut builder = tar::Builder::new(vec![]);
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(1);
    builder.append_data(&mut header, format!("file-{number}"), &[number][..]).unwrap();
    let archive = builder.into_inner().unwrap();
    let block = |length: usize, kind: u32, is_last: bool| {
        ((length as u32) << 3 | kind << 1 | u32::from(is_last)).to_le_bytes()[..3].to_vec()
    };
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 15 << 3];
    frame.extend(block(archive.len(), 0, false));
    frame.extend(&archive);
    let mut digest = Sha256::new_with_prefix(&archive);
    for number in 1..=BLOCKS {
        frame.extend(block(BLOCK, 1, number == BLOCKS));
        frame.push(0);
        digest.update([0; BLOCK]);
    }
    (frame, format!("sha256:{}", hex(&digest.finalize())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An image in docker's form.
fn write_image(directory: &Path) {
    let layers: Vec<_> = (0..LAYERS).map(layer).collect();
    let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let names: Vec<_> = (0..LAYERS).map(|number| format!("{number}.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["large:1"], "Layers": names }]);
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    for (name, (blob, _)) in names.iter().zip(&layers) {
        fs::write(directory.join(name), blob).unwrap();
    }
}

#[test]
fn windows_of_several_layers_are_not_there_at_once() {
    let scratch = Directory(std::env::temp_dir().join(format!("kelson-memory-{}", std::process::id())));
    let image = scratch.0.join("image");
    fs::create_dir_all(&image).unwrap();
    write_image(&image);
    let mut import = Command::new(env!("CARGO_BIN_EXE_kelson-image"));
    import.arg("--store").arg(scratch.0.join("store")).arg("import").arg(&image);
    let output = import.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let largest = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    // A window is filled: else nothing was measured.
    assert!((32 << 10..MOST).contains(&largest), "{largest} KiB");
}
