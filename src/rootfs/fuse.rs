//! [fuse] The overlay made by fuse-overlayfs(1), where the kernel cannot: what `kelson-image` does before it becomes that program.
//!
//! ```text
//! /sys, in the process's own mount namespace: a tmpfs, where every directory has a name that needs no quoting
//!   0 1 2 …       the lower layers, bound
//!   upper, work   what the container writes, unless it was given directories for it
//!   kept          else the directory that both of those are in, bound: rename(2) knows one mount only
//! ```
//! The mount itself is made here and attached by the container alone (`/dev/fd/N` in place of a directory tells libfuse so, since
//! 3.3): no other mount namespace keeps it, so that it is gone with the container's, and read(2) of /dev/fuse gives
//! `ENODEV` then, with which the program ends.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::fstatfs;

use super::cgroup::is_initial_user_ns;
use super::overlay::{attach_at, check_mounts, note_fuse, open_annotated, open_layers, private_tmpfs, upper_in};
use super::tree::{Change, FdNames, Place, Tree, c_string};
use crate::error::{Context, Error, Result};
use crate::plan::{Overlay, UPPER};
use crate::sys::mount::{FsContext, Reach};

/// Where the layers are bound: a directory that everybody may search, that no layer is in, and that the program does not need.
const SCRATCH: &str = "/sys";
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// An overlay that nobody serves yet.
pub struct Unserved {
    /// Attached nowhere.
    pub mount: OwnedFd,
    /// /dev/fuse, by which it is served.
    pub device: OwnedFd,
    /// What follows `-o`.
    pub options: Vec<u8>,
}

/// Makes the mount and binds the layers, in a mount namespace that this process has alone from here on; the layers are below its
/// working directory. A private writable layer holds at most `limit_bytes`; `label` is linux.mountLabel.
///
/// The process must be single-threaded.
pub fn mount(overlay: &Overlay, label: Option<&str>, limit_bytes: Option<u64>) -> Result<Unserved> {
    unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a mount namespace")?;
    let none = None::<&str>;
    // What the host takes away later is not kept here.
    nix::mount::mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    let lower = open_layers(overlay)?;
    let upper = overlay.upper.as_ref().map(|(upper, work)| Kept::open(upper, work)).transpose()?;
    let (device, mount) = mount_fuse(label)?;
    let scratch = attach_at(private_tmpfs(label)?, Path::new(SCRATCH)).doing(|| "mount a tmpfs")?;
    nix::unistd::fchdir(&scratch)?;
    let mut options = b"lowerdir=".to_vec();
    for (number, layer) in lower.iter().enumerate() {
        let name = number.to_string();
        bind(layer.as_fd(), scratch.as_fd(), &name)?;
        options.extend_from_slice(if number == 0 { b"" } else { b":" });
        options.extend(name.bytes());
    }
    match upper {
        None => {
            if let Some(limit) = limit_bytes {
                bound_size(scratch.as_fd(), limit).doing(|| "limit the size of the writable layer")?;
            }
            upper_in(scratch.as_fd(), &lower)?;
            options.extend_from_slice(b",upperdir=upper,workdir=work");
        }
        Some(kept) => {
            bind(kept.directory.as_fd(), scratch.as_fd(), "kept")?;
            if !is_initial_user_ns()? {
                note_fuse(&kept.opened);
            }
            for (name, path) in [("upperdir", &kept.upper), ("workdir", &kept.work)] {
                options.extend(format!(",{name}=kept/").bytes());
                options.extend(escaped(path.as_os_str()));
            }
        }
    }
    Ok(Unserved { mount, device, options })
}

/// A mount of type fuse, and the descriptor by which it is served.
fn mount_fuse(label: Option<&str>) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let device = openat(AT_FDCWD, "/dev/fuse", flags, Mode::empty()).map_err(|errno| match errno {
        Errno::EACCES => Error::from(errno).hint("it has mode 0666 where ordinary users may use it"),
        _ => Error::from(errno).hint("`modprobe fuse` makes it, where the kernel has FUSE"),
    });
    let device = device.doing(|| "open /dev/fuse")?;
    let mount = || {
        let context = FsContext::open(c"fuse")?;
        let number = c_string(&device.as_raw_fd().to_string())?;
        context.set_string(c"source", c"fuse-overlayfs")?;
        context.set_string(c"subtype", c"fuse-overlayfs")?;
        context.set_string(c"fd", &number)?;
        context.set_string(c"rootmode", c"40000")?;
        context.set_string(c"user_id", c"0")?;
        context.set_string(c"group_id", c"0")?;
        // The kernel checks permissions, of everybody: these are the container's users.
        context.set_flag(c"default_permissions")?;
        context.set_flag(c"allow_other")?;
        if let Some(label) = label {
            context.set_string(c"context", &c_string(label)?)?;
        }
        context.mount(0).map_err(|errno| match context.complaint() {
            Some(said) => Error::new(crate::error::Kind::System(errno), said),
            None => errno.into(),
        })
    };
    let mounted: Result<OwnedFd> = mount().map_err(|error: Error| match error.errno() {
        Some(Errno::ENOSYS | Errno::EPERM) => {
            error.hint("it takes fsopen(2): Linux 5.2, and a seccomp filter of the outer container that allows it")
        }
        _ => error,
    });
    Ok((device, mounted.doing(|| "mount a file system of type fuse")?))
}

/// Mounts what `source` is open on at the new directory `name`.
fn bind(source: BorrowedFd<'_>, scratch: BorrowedFd<'_>, name: &str) -> Result<()> {
    mkdirat(scratch, name, Mode::from_bits_truncate(0o700))?;
    let fd = openat(scratch, name, DIRECTORY, Mode::empty())?;
    let tree = match Tree::bind_of(source, Reach::Top) {
        // In a user namespace what is mounted below it stays.
        Err(Errno::EINVAL) => Tree::bind_of(source, Reach::Recursive),
        tree => tree,
    };
    tree?.attach(&Place { fd, root: None, path: Path::new(name) }, Change::default(), FdNames::HostProc)?;
    Ok(())
}

/// Lets the tmpfs hold no more than `limit` bytes.
fn bound_size(tmpfs: BorrowedFd<'_>, limit: u64) -> Result<()> {
    let size = fstatfs(tmpfs)?;
    if size.blocks().saturating_mul(size.block_size() as u64) <= limit {
        return Ok(());
    }
    let context = FsContext::pick(tmpfs)?;
    context.set_string(c"size", &c_string(&limit.to_string())?)?;
    Ok(context.reconfigure()?)
}

/// Where a layer that is kept is.
struct Kept {
    /// The upper directory.
    opened: OwnedFd,
    /// What both directories are in.
    directory: OwnedFd,
    upper: PathBuf,
    work: PathBuf,
}

impl Kept {
    fn open(upper: &Path, work: &Path) -> Result<Self> {
        let (opened, work) = (open_annotated(upper, "upper")?, open_annotated(work, "work")?);
        check_mounts(&opened, &work)?;
        let (directory, upper, work) = split(&path_of(&opened)?, &path_of(&work)?);
        if [&upper, &work].iter().any(|path| path.as_os_str().as_bytes().contains(&b':')) {
            let cause = "fuse-overlayfs knows no upper or work directory with a colon in its name";
            return Err(Error::config(format!("annotations[{UPPER:?}]"), cause));
        }
        let directory = openat(AT_FDCWD, &directory, DIRECTORY, Mode::empty())?;
        Ok(Self { opened, directory, upper, work })
    }
}

/// Without links in it.
fn path_of(fd: &OwnedFd) -> Result<PathBuf> {
    Ok(readlinkat(AT_FDCWD, format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str())?.into())
}

/// The directory that both are in, and their paths from there.
fn split(one: &Path, other: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let common: PathBuf =
        one.components().zip(other.components()).take_while(|(one, other)| one == other).map(|(one, _)| one).collect();
    let rest = |path: &Path| path.strip_prefix(&common).unwrap_or(path).to_owned();
    let (one, other) = (rest(one), rest(other));
    (common, one, other)
}

/// As an option of libfuse, which ends at a comma.
fn escaped(value: &OsStr) -> Vec<u8> {
    let escape = |&byte: &u8| if matches!(byte, b',' | b'\\') { vec![b'\\', byte] } else { vec![byte] };
    value.as_bytes().iter().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_and_work_directory_are_found_from_what_both_are_in() {
        for (upper, work, expected) in [
            ("/a/b/upper", "/a/b/work", ("/a/b", "upper", "work")),
            ("/a/x/upper", "/a/y/z", ("/a", "x/upper", "y/z")),
            ("/upper", "/work", ("/", "upper", "work")),
        ] {
            let (directory, upper, work) = split(Path::new(upper), Path::new(work));
            assert_eq!((directory.as_path(), upper.as_path(), work.as_path()), {
                let (directory, upper, work) = expected;
                (Path::new(directory), Path::new(upper), Path::new(work))
            });
        }
    }

    #[test]
    fn an_option_ends_at_its_comma() {
        assert_eq!(escaped(OsStr::new(r"a,b\c d=e")), br"a\,b\\c d=e");
    }
}
