//! What must hold for every archive, however wrong: for tests/corpus.rs and for the fuzz target.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use kelson_image::unpack::{Ids, Limits, Options, remove, unpack};

/// Unpacks the archive into a directory that has a neighbour, which must stay as it is; `true` if it was taken.
pub fn check(archive: &[u8]) -> bool {
    thread_local!(static PLACE: RefCell<Place> = RefCell::new(Place::new()));
    PLACE.with_borrow_mut(|place| {
        let options = Options {
            // By turns: what the archive is does not decide it.
            user_xattr: archive.len() % 1024 >= 512,
            ids: if nix::unistd::geteuid().is_root() { Ids::AsGiven } else { Ids::Squash },
            limits: Limits { bytes: 1 << 20, entries: 500, window: 1 << 20, ..Limits::default() },
        };
        place.unpack(archive, &options)
    })
}

/// Corrects the checksum of each block that looks like a header: else no change of one would be seen behind it.
pub fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

struct Place {
    base: PathBuf,
    /// State of the neighbour.
    before: Vec<(PathBuf, i64, i64, u64, Vec<u8>)>,
}

impl Place {
    fn new() -> Self {
        let name = format!("kelson-hostile-{}-{:?}", std::process::id(), std::thread::current().id());
        // In memory, where there is room: thousands of directories are made and removed.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() }.join(name);
        fs::create_dir_all(base.join("outside/directory")).unwrap();
        fs::write(base.join("outside/file"), "as it is").unwrap();
        let mut place = Self { base, before: Vec::new() };
        place.before = place.state();
        place
    }

    /// The neighbour and the directory above, without the root.
    fn state(&self) -> Vec<(PathBuf, i64, i64, u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut todo = vec![self.base.clone()];
        while let Some(directory) = todo.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path == self.base.join("root") {
                    continue;
                }
                let info = fs::symlink_metadata(&path).unwrap();
                let data = if info.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                found.push((path.clone(), info.mtime(), info.ctime_nsec(), info.nlink(), data));
                if info.is_dir() {
                    todo.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn unpack(&self, archive: &[u8], options: &Options) -> bool {
        let root = self.base.join("root");
        fs::create_dir(&root).unwrap();
        let unpacked = unpack(archive, None, File::open(&root).unwrap().as_fd(), options);
        assert_eq!(self.state(), self.before, "something beside the root has changed");
        remove(File::open(&self.base).unwrap().as_fd(), "root".as_ref()).unwrap();
        assert!(!root.exists());
        unpacked.is_ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A failed check leaves it to be looked at.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.base);
        }
    }
}
