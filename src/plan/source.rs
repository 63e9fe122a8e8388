//! Reads config.json as a file that may be hostile: a FIFO, endless, or no text at all.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fd::read_sized;

/// More than any engine writes; bounds what a broken or hostile file can cost.
const MAX_BYTES: u64 = 64 << 20;

/// The text of the config.json at `path`.
///
/// # Errors
/// `ENOENT` and the like; the file is not a regular one, is empty, holds more than 64 MiB, NULs, or is not UTF-8.
pub fn read_config(path: &Path) -> Result<String> {
    read(path, false).doing(|| format!("read {path:?}"))
}

/// The text of the process object at `path`, which may be a pipe: /dev/stdin, or a shell's `<(...)`. Its end is waited for.
///
/// # Errors
/// As of [`read_config`]; a FIFO that nobody writes to is empty.
pub fn read_process(path: &Path) -> Result<String> {
    read(path, true).doing(|| format!("read {path:?}"))
}

/// The text of the resources object at `path`, which may be a pipe; `-` is standard input, whatever that is.
///
/// # Errors
/// As of [`read_config`].
pub fn read_resources(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return read(path, true).doing(|| format!("read {path:?}"));
    }
    let mut bytes = vec![];
    let read = std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(Error::from).and_then(|length| text(bytes, length as u64)).doing(|| "read standard input")
}

fn read(path: &Path, may_be_pipe: bool) -> Result<String> {
    let wrong = |why: &'static str| Error::new(Kind::Config, why);
    // O_NONBLOCK: the open of a FIFO without writer must not hang. O_NOCTTY: a terminal must not become ours.
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    let bytes = if metadata.file_type().is_fifo() && may_be_pipe {
        // Opened here, so nobody else's flags. A writer is there, or was; its words may come later.
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
        let mut bytes = vec![];
        (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        bytes
    } else if metadata.is_file() {
        // A larger one is not read.
        if metadata.len() > MAX_BYTES { vec![] } else { read_sized(&file, metadata.len() as usize)? }
    } else {
        return Err(wrong(if may_be_pipe { "neither a regular file nor a pipe" } else { "not a regular file" }));
    };
    let length = metadata.len().max(bytes.len() as u64);
    text(bytes, length)
}

/// The text that a source of `length` bytes holds.
fn text(bytes: Vec<u8>, length: u64) -> Result<String> {
    let wrong = |why: &'static str| Error::new(Kind::Config, why);
    if length > MAX_BYTES {
        return Err(wrong("larger than 64 MiB"));
    }
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
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_process_may_come_through_a_pipe() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let read = std::thread::spawn(move || read_process(Path::new(&path)).unwrap());
        writer.write_all(b"{").unwrap();
        writer.write_all(b"}").unwrap();
        drop(writer);
        assert_eq!(read.join().unwrap(), "{}");
        drop(reader);
    }

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
        let nobody = read_process(&dir.join("fifo")).unwrap_err().to_string();
        assert!(nobody.ends_with("the file is empty"), "{nobody}");
        assert!(read_process(&dir).unwrap_err().to_string().ends_with("neither a regular file nor a pipe"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
