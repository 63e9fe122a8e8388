//! Files and directories of a hierarchy: small reads and writes, making and removing.
//!
//! Which parent directories are Kelson's is marked on the directories themselves: decision 0003.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;

use crate::sys::xattr;

/// What a control file holds, without the newline at its end. Any of them but cgroup.procs fits in one page, and the
/// kernel gives such a file in one read(2).
pub fn read(path: &Path) -> io::Result<String> {
    let mut buffer = [0; 4096];
    let mut file = OpenOptions::new().read(true).open(path)?;
    let mut text = Vec::new();
    loop {
        let length = file.read(&mut buffer)?;
        text.extend_from_slice(&buffer[..length]);
        if length < 2048 {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\n').into())
}

/// Writes `value` in one write(2), as control files want it.
pub fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Process ids in the cgroup at `path`, without those below it; 0 stands for processes that this PID namespace does not
/// show, and is left out.
pub fn processes_in(path: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(path.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The cgroups directly below `path`.
pub fn children(path: &Path) -> io::Result<Vec<PathBuf>> {
    // A directory has one link for itself, one for its name and one for each directory in it: most have none.
    if std::fs::symlink_metadata(path)?.nlink() == 2 {
        return Ok(vec![]);
    }
    let mut children = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Calls `visit` for `path` and every cgroup below it; one that vanishes meanwhile is passed over.
pub fn walk(path: &Path, visit: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let gone = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV));
    match visit(path).and_then(|()| children(path)) {
        Ok(children) => children.iter().try_for_each(|child| walk(child, visit)),
        Err(error) if gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// All processes in the cgroup at `path` and below, sorted.
pub fn processes_below(path: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    walk(path, &mut |path| {
        match processes_in(path) {
            // A threaded cgroup of v2: the domain above it lists its processes.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            other => pids.extend(other?),
        }
        Ok(())
    })?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// v1 has trusted.* only; on v2 user.* (since 5.7) needs no privilege over the initial user namespace.
const MARKS: [&CStr; 2] = [c"trusted.org.kelson.made", c"user.org.kelson.made"];

/// Says for every later Kelson that a Kelson made the directory at `path` as a parent of a container's cgroup.
pub fn mark(path: &Path) -> nix::Result<()> {
    let marked = MARKS.iter().any(|name| xattr::set_empty(path, name).is_ok());
    if marked { Ok(()) } else { Err(Errno::ENOTSUP) }
}

/// Whether a Kelson marked the directory at `path`.
///
/// # Errors
/// `ENOENT` if there is no such directory.
pub fn is_marked(path: &Path) -> nix::Result<bool> {
    for name in MARKS {
        if xattr::has(path, name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the directory at `path` and any parents that are missing, and adds what it made to `made`. Gives whether `path`
/// itself was made: `false` if it was there.
pub fn make(path: &Path, made: &mut Vec<PathBuf>) -> nix::Result<bool> {
    // Each further round means that another Kelson removed a parent that it had made, after its last container; only a
    // host that does nothing else could make this many rounds.
    for _ in 0..1000 {
        match nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                made.push(path.into());
                return Ok(true);
            }
            Err(Errno::EEXIST) => return Ok(false),
            Err(Errno::ENOENT) => {
                let parent = path.parent().ok_or(Errno::ENOENT)?;
                if make(parent, made)? {
                    // Without a mark only this container's record knows whose it is, and it may go before the others.
                    if let Err(errno) = mark(parent) {
                        log::debug!("mark {}: {errno}", parent.display());
                    }
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::ENOENT)
}

/// Directories that must be in the journal before `make(path)`: those on the way to `path` that are missing, and those
/// that a Kelson made, which may go and have to be made again. Outermost first; `path` itself if it is missing.
pub fn to_be_made(path: &Path, mount_point: &Path) -> nix::Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    match nix::sys::stat::lstat(path) {
        Ok(_) => return Ok(missing),
        Err(Errno::ENOENT) => missing.push(path.to_path_buf()),
        Err(errno) => return Err(errno),
    }
    for parent in path.ancestors().skip(1).take_while(|parent| *parent != mount_point) {
        match is_marked(parent) {
            Ok(true) | Err(Errno::ENOENT) => missing.push(parent.into()),
            Ok(false) => break,
            Err(errno) => return Err(errno),
        }
    }
    missing.reverse();
    Ok(missing)
}

/// Removes the cgroups below `path`, innermost first, and then `path`. What is not there is fine.
///
/// # Errors
/// `EBUSY` while there are processes in one of them.
pub fn remove_tree(path: &Path) -> nix::Result<()> {
    match rmdir(path) {
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
        other => return other,
    }
    for child in children(path).unwrap_or_default() {
        remove_tree(&child)?;
    }
    rmdir(path)
}

/// Removes the parents of `path` that Kelson made, innermost first, as long as nobody needs them. `made` are those that
/// the record of this container names.
pub fn remove_parents(path: &Path, mount_point: &Path, made: &[PathBuf]) {
    let is_listed = |parent: &Path| made.iter().any(|made| made == parent);
    let parents = || path.ancestors().skip(1).take_while(|parent| *parent != mount_point);
    // One that is gone may have parents that are left: only one that is there and not ours ends it.
    let remove = || {
        parents().take_while(|parent| is_listed(parent) || !matches!(is_marked(parent), Ok(false))).try_for_each(rmdir)
    };
    if remove().is_ok() || !parents().any(is_listed) {
        return;
    }
    // Still in use. A create that was killed right after mkdir(2) had no time to mark them: whoever leaves last must know.
    for parent in parents().filter(|parent| is_listed(parent)) {
        if let Err(errno) = mark(parent) {
            log::debug!("mark {}: {errno}", parent.display());
        }
    }
    // That one may have left meanwhile, and have seen no mark.
    if let Err(errno) = remove() {
        log::debug!("the parents of {} stay: {errno}", path.display());
    }
}

/// rmdir(2); what is not there is fine.
fn rmdir(path: &Path) -> nix::Result<()> {
    match std::fs::remove_dir(path).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}
