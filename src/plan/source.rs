//! Reads config.json as a file that may be hostile: a FIFO, endless, or no text at all.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fd::read_sized;

/// More than any engine writes; bounds what a broken or hostile file can cost.
const MAX_BYTES: u64 = 64 << 20;

/// The text of the config.json, or other JSON file, at `path`.
///
/// # Errors
/// `ENOENT` and the like; the file is not a regular one, is empty, holds more than 64 MiB, NULs, or is not UTF-8.
pub fn read_config(path: &Path) -> Result<String> {
    read(path).doing(|| format!("read {path:?}"))
}

fn read(path: &Path) -> Result<String> {
    let wrong = |why: &'static str| Error::new(Kind::Config, why);
    // O_NONBLOCK: the open of a FIFO without writer must not hang. O_NOCTTY: a terminal must not become ours.
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(wrong("not a regular file"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(wrong("larger than 64 MiB"));
    }
    let bytes = read_sized(&file, metadata.len() as usize)?;
    if bytes.is_empty() {
        return Err(wrong("the file is empty"));
    }
    if bytes.contains(&0) {
        return Err(wrong("the file contains NUL bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        Error::new(Kind::Config, format!("not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_text_file() {
        let dir = std::env::temp_dir().join(format!("kelson-source-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let large = std::fs::File::create(dir.join("large")).unwrap();
        large.set_len(MAX_BYTES + 1).unwrap();
        for (path, cause) in [
            (file("nul", b"{}\0"), "the file contains NUL bytes"),
            (file("latin1", b"{\"a\": \"\xe9\"}"), "not UTF-8 from byte 7 on"),
            (file("empty", b""), "the file is empty"),
            (dir.join("fifo"), "not a regular file"),
            (dir.clone(), "not a regular file"),
            (dir.join("large"), "larger than 64 MiB"),
            (dir.join("none"), "no such file or directory"),
        ] {
            let error = read_config(&path).unwrap_err().to_string();
            assert_eq!(error, format!("read {path:?}: {cause}"));
        }
        assert_eq!(read_config(&file("good", b"{}")).unwrap(), "{}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
