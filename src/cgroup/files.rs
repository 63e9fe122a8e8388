//! Files and directories of a hierarchy: small reads and writes, making and removing.
//!
//! Which parent directories are Kelson's is marked on the directories themselves: decision 0003.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::fd::{self, Done};
use crate::sys::xattr;

/// What a control file holds, without the newline at its end. Any of them but cgroup.procs fits in one page, and the
/// kernel gives such a file in one read(2).
pub fn read(path: &Path) -> io::Result<String> {
    read_file(&File::from(fd::open(path, OFlag::O_RDONLY)?))
}

/// As [`read`], of the control file at `path` below `directory`; its descriptor goes to `done`.
pub fn read_at(directory: &OwnedFd, path: &Path, done: &mut Done) -> io::Result<String> {
    let file = File::from(openat(directory, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?);
    let text = read_file(&file);
    done.add(file);
    text
}

fn read_file(mut file: &File) -> io::Result<String> {
    let mut buffer = [0; 4096];
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
    File::from(fd::open(path, OFlag::O_WRONLY)?).write_all(value.as_bytes())
}

/// An open cgroup. Those in it are reached from it and not by their path: a container that may make cgroups can nest them
/// deeper than a path can say (PATH_MAX).
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    fn open(path: &Path) -> nix::Result<Self> {
        fd::open(path, DIRECTORY).map(Self)
    }

    /// The cgroup called `name` in it; `..` is the one above, which stays the same for as long as there is a cgroup.
    fn inner(&self, name: &OsStr) -> nix::Result<Self> {
        openat(&self.0, name, DIRECTORY, Mode::empty()).map(Self)
    }

    fn file(&self, name: &str, flags: OFlag) -> nix::Result<File> {
        openat(&self.0, name, flags | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
    }

    /// Writes `value` to the control file called `name`, in one write(2).
    pub fn write(&self, name: &str, value: &str) -> io::Result<()> {
        self.file(name, OFlag::O_WRONLY)?.write_all(value.as_bytes())
    }

    /// Process ids in it, without those below; 0 stands for processes that this PID namespace does not show, and is left
    /// out.
    fn processes(&self) -> io::Result<Vec<i32>> {
        let mut text = String::new();
        self.file("cgroup.procs", OFlag::O_RDONLY)?.read_to_string(&mut text)?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
    }

    /// Names of the cgroups directly in it.
    fn children(&self) -> io::Result<Vec<OsString>> {
        // A directory has one link for itself, one for its name and one for each directory in it: most have none.
        if fstat(&self.0)?.st_nlink == 2 {
            return Ok(vec![]);
        }
        let mut children = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", self.0.as_raw_fd()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                children.push(entry.file_name());
            }
        }
        Ok(children)
    }
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A step of [`walk`].
pub enum Step<'d> {
    /// Into a cgroup, before those below it.
    Into(&'d Directory),
    /// Out of the one called `name`, when all below it were visited.
    OutOf { parent: &'d Directory, name: &'d OsStr },
}

/// Visits the cgroup at `path` and all below it, however deep; one that vanishes meanwhile is passed over. It holds two
/// descriptors and no stack of this process, whatever a container made there.
pub fn walk(path: &Path, visit: &mut dyn FnMut(Step<'_>) -> io::Result<()>) -> io::Result<()> {
    let gone = |errno: Option<i32>| matches!(errno, Some(libc::ENOENT | libc::ENODEV));
    let enter = |at: &Directory, visit: &mut dyn FnMut(Step<'_>) -> io::Result<()>| match visit(Step::Into(at))
        .and_then(|()| at.children())
    {
        Err(error) if gone(error.raw_os_error()) => Ok(vec![]),
        other => other,
    };
    let mut at = match Directory::open(path) {
        Err(errno) if gone(Some(errno as i32)) => return Ok(()),
        other => other?,
    };
    // The name of the cgroup at hand and of each above it, and of those in it that are to come.
    let mut levels = vec![(OsString::new(), enter(&at, visit)?)];
    while let Some((_, to_come)) = levels.last_mut() {
        if let Some(name) = to_come.pop() {
            match at.inner(&name) {
                Err(errno) if gone(Some(errno as i32)) => continue,
                other => at = other?,
            }
            let below = enter(&at, visit)?;
            levels.push((name, below));
        } else if let Some((name, _)) = levels.pop().filter(|_| !levels.is_empty()) {
            at = at.inner(OsStr::new(".."))?;
            visit(Step::OutOf { parent: &at, name: &name })?;
        }
    }
    Ok(())
}

/// All processes in the cgroup at `path` and below, sorted.
pub fn processes_below(path: &Path) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    walk(path, &mut |step| {
        let Step::Into(directory) = step else { return Ok(()) };
        match directory.processes() {
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
    xattr::has_one_of(path, &MARKS)
}

/// Of a container's own cgroup: the sticky bit, which means nothing there and costs no call, says that a Kelson made it for a
/// container that is not deleted yet.
const OF_CONTAINER: Mode = Mode::from_bits_truncate(0o1755);
const OF_PARENT: Mode = Mode::from_bits_truncate(0o755);

/// Whether a Kelson made the directory at `path` as a container's own cgroup, and not as a parent.
pub fn is_of_container(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.mode() & libc::S_ISVTX != 0)
}

/// Makes a container's own cgroup at `path` and any parents that are missing, and adds what it made to `made`. Gives whether
/// `path` itself was made: `false` if it was there.
pub fn make(path: &Path, made: &mut Vec<PathBuf>) -> nix::Result<bool> {
    make_with(path, OF_CONTAINER, made)
}

fn make_with(path: &Path, mode: Mode, made: &mut Vec<PathBuf>) -> nix::Result<bool> {
    // Each further round means that another Kelson removed a parent that it had made, after its last container; only a
    // host that does nothing else could make this many rounds.
    for _ in 0..1000 {
        match nix::unistd::mkdir(path, mode) {
            Ok(()) => {
                made.push(path.into());
                return Ok(true);
            }
            Err(Errno::EEXIST) => return Ok(false),
            Err(Errno::ENOENT) => {
                let parent = path.parent().ok_or(Errno::ENOENT)?;
                if make_with(parent, OF_PARENT, made)? {
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
    let mut any = false;
    let result = walk(path, &mut |step| {
        let Step::OutOf { parent, name } = step else { return Ok(()) };
        any = true;
        match unlinkat(&parent.0, name, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    });
    result.map_err(errno_of)?;
    if any { rmdir(path) } else { Err(Errno::EBUSY) }
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
    match std::fs::remove_dir(path).map_err(errno_of) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
