//! [init] The one way to a file in the container's root: links and `..` are resolved inside it, whoever changes it meanwhile.
//!
//! openat2(2) with RESOLVE_IN_ROOT does it in the kernel (since 5.6). Where it is missing or filtered, [`walk`] goes
//! component by component on O_PATH descriptors. Nothing is ever created, opened or changed by a path of several
//! components: the parent is opened first, then one component is used relative to it (CVE-2021-30465, CVE-2024-45310).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

pub use crate::plan::cleaned;
use crate::sys::fd::close_later;
use crate::sys::mount;

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Whether links on the way are followed; links in procfs that are not paths (`/proc/self/exe`) never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Inside the root; the last component too, unless O_NOFOLLOW is given.
    Follow,
    /// A link anywhere is `ELOOP`.
    Refuse,
}

/// Opens `path` below `root`, links followed; neither they nor `..` can leave it (openat2(2), RESOLVE_IN_ROOT).
///
/// # Errors
/// `ENOENT`; `ELOOP` for a link of procfs that is not a path; `EAGAIN` never (retried).
pub fn open_below(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    open_with(root, path, flags, Links::Follow)
}

/// Like [`open_below`], but says how links are treated.
pub fn open_with(root: BorrowedFd<'_>, path: &Path, flags: OFlag, links: Links) -> nix::Result<OwnedFd> {
    let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    if links == Links::Refuse {
        resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
    }
    resolve_with(root, path, flags, resolve).or_else(|errno| match errno {
        // EPERM: a seccomp filter older than openat2; the call itself has no EPERM without O_NOATIME.
        Errno::ENOSYS | Errno::EPERM => walk(root, path, flags, links),
        _ => Err(errno),
    })
}

/// openat2(2) with any resolve flags, retried while a rename elsewhere makes it uncertain (`EAGAIN`).
pub(super) fn resolve_with(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Opens the directory `path` below `root` (O_PATH); makes it and what is missing above it with mode 0755.
///
/// A link to what does not exist yet is followed inside the root, as `/var/run -> /run` in an image without /run needs.
pub fn mkdir_below(root: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    make_below(root, path, Make::Dir, MAX_LINKS).map(|made| made.fd)
}

/// [`mkdir_below`], or the same for an empty file, for a `path` that was just found missing. The descriptor of a file that was
/// made is no O_PATH one.
pub(super) fn create_below(root: BorrowedFd<'_>, path: &Path, what: Make) -> nix::Result<Made> {
    make_missing(root, path, what, MAX_LINKS)
}

/// What to make.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Dir,
    File,
}

impl Make {
    /// How it is opened.
    fn flags(self) -> OFlag {
        match self {
            Make::Dir => OFlag::O_PATH | OFlag::O_DIRECTORY,
            Make::File => OFlag::O_PATH,
        }
    }
}

/// What was made, or found at last.
#[derive(Debug)]
pub(super) struct Made {
    pub fd: OwnedFd,
    /// No link was on the way, not even one that somebody put there after the path was found missing.
    pub is_exact: bool,
}

fn make_below(root: BorrowedFd<'_>, path: &Path, what: Make, links_left: usize) -> nix::Result<Made> {
    let (opened, is_exact) = match open_with(root, path, what.flags(), Links::Refuse) {
        Err(Errno::ELOOP) => (open_below(root, path, what.flags()), false),
        opened => (opened, true),
    };
    match opened {
        Err(Errno::ENOENT) => make_missing(root, path, what, links_left),
        opened => opened.map(|fd| Made { fd, is_exact }),
    }
}

/// What `path` leads to is not there.
fn make_missing(root: BorrowedFd<'_>, path: &Path, what: Make, links_left: usize) -> nix::Result<Made> {
    let (Some(parent_path), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ENOENT) };
    let parent = make_below(root, parent_path, Make::Dir, links_left)?;
    let flags = what.flags() | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = match what {
        Make::Dir => mkdirat(&parent.fd, name, Mode::from_bits_truncate(0o755))
            .and_then(|()| openat(&parent.fd, name, flags, Mode::empty())),
        Make::File => openat(
            &parent.fd,
            name,
            OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        ),
    };
    let made = match made {
        Err(Errno::EEXIST) if links_left > 0 => match readlinkat(&parent.fd, name) {
            // It exists and leads nowhere: make what it leads to, resolved inside the root.
            Ok(target) => make_below(root, &parent_path.join(target), what, links_left - 1)
                .map(|made| Made { is_exact: false, ..made }),
            // Not a link: somebody else made it a moment ago.
            Err(Errno::EINVAL) => {
                open_no_link(parent.fd.as_fd(), name, flags).map(|fd| Made { fd, is_exact: parent.is_exact })
            }
            Err(errno) => Err(errno),
        },
        Err(Errno::EEXIST) => Err(Errno::ELOOP),
        made => made.map(|fd| Made { fd, is_exact: parent.is_exact }),
    };
    close_later(parent.fd);
    made
}

/// `ELOOP` for a link: O_PATH with O_NOFOLLOW would open it itself.
fn open_no_link(parent: BorrowedFd<'_>, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let fd = openat(parent, name, flags, Mode::empty())?;
    match mount::stat(fd.as_fd())?.is_symlink() {
        true => Err(Errno::ELOOP),
        false => Ok(fd),
    }
}

/// [`open_with`] without openat2: opens one component at a time with O_PATH | O_NOFOLLOW and keeps the way back as descriptors.
fn walk(root: BorrowedFd<'_>, path: &Path, flags: OFlag, links: Links) -> nix::Result<OwnedFd> {
    let anchor = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut links_left = MAX_LINKS;
    // What is still to be walked, next component last. The trailing "." of "a/" or "." stands for "must be a directory".
    let mut todo: Vec<OsString> = components(path);
    // Directories from below the root to here: `..` pops one and so cannot pass the root.
    let mut way: Vec<OwnedFd> = Vec::new();
    while let Some(name) = todo.pop() {
        let here = way.last().map_or(root, |fd| fd.as_fd());
        if name == ".." {
            way.pop();
            continue;
        }
        let is_last = todo.is_empty();
        let next = openat(here, name.as_os_str(), anchor, Mode::empty())?;
        let info = mount::stat(next.as_fd())?;
        if info.is_symlink() && !(is_last && flags.contains(OFlag::O_NOFOLLOW)) {
            if links == Links::Refuse || links_left == 0 {
                return Err(Errno::ELOOP);
            }
            links_left -= 1;
            let target = PathBuf::from(readlinkat(&next, "")?);
            if mount::is_procfs(next.as_fd())? && is_magic(&target) {
                return Err(Errno::ELOOP);
            }
            if target.is_absolute() {
                way.clear();
            }
            todo.extend(components(&target));
            continue;
        }
        if is_last {
            return finish(here, &name, next, &info, flags);
        }
        if !info.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        way.push(next);
    }
    openat(way.last().map_or(root, |fd| fd.as_fd()), ".", flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// The last component as asked: the O_PATH descriptor itself, or the same file opened again.
fn finish(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    found: OwnedFd,
    info: &mount::FileInfo,
    flags: OFlag,
) -> nix::Result<OwnedFd> {
    if flags.contains(OFlag::O_DIRECTORY) && !info.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if flags.contains(OFlag::O_PATH) {
        return Ok(found);
    }
    let opened = openat(parent, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    // Exchanged between the two calls: what was checked is not what was opened.
    match mount::stat(opened.as_fd())?.is_same_file(info) {
        true => Ok(opened),
        false => Err(Errno::ELOOP),
    }
}

fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    names.collect()
}

/// A link of procfs whose text is not where it leads: `/proc/self/fd/3`, `exe`, `ns/net`. The others (`self`, `mounts`)
/// are relative and have no colon.
fn is_magic(target: &Path) -> bool {
    target.is_absolute() || target.as_os_str().as_bytes().contains(&b':')
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory below the system's temporary one, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kelson-path-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn root(&self) -> OwnedFd {
            fs::File::open(&self.0).unwrap().into()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_walk_finds_what_openat2_finds() {
        let scratch = Scratch::new("walk");
        let at = |name: &str| scratch.0.join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::write(at("a/file"), "").unwrap();
        for (link, target) in [
            ("abs", "/a/b"),
            ("rel", "a/b/../b"),
            ("up", "../../../.."),
            ("a/b/climb", "../../../../a/file"),
            ("loop", "loop"),
            ("dangling", "nothing/here"),
            ("to_abs", "abs/c"),
            ("to_file", "/a/file"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let root = scratch.root();
        let paths = [
            "",
            "/",
            ".",
            "..",
            "../..",
            "a",
            "/a/b/c",
            "a//b/./c/",
            "a/b/../../a/file",
            "abs/c",
            "rel/c",
            "up/a/file",
            "a/b/climb",
            "loop",
            "loop/x",
            "dangling",
            "dangling/x",
            "to_abs",
            "to_file",
            "to_file/x",
            "a/file/..",
            "a/file/x",
            "missing",
            "missing/x",
            "abs/../../../a",
            "up",
            "abs/..",
        ];
        for flags in
            [OFlag::O_PATH, OFlag::O_PATH | OFlag::O_NOFOLLOW, OFlag::O_RDONLY, OFlag::O_PATH | OFlag::O_DIRECTORY]
        {
            for links in [Links::Follow, Links::Refuse] {
                for path in paths {
                    let identity = |fd: nix::Result<OwnedFd>| {
                        fd.map(|fd| mount::stat(fd.as_fd()).map(|info| (info.device, info.inode)).unwrap())
                    };
                    let kernel = identity(open_with(root.as_fd(), Path::new(path), flags, links));
                    let walked = identity(walk(root.as_fd(), Path::new(path), flags, links));
                    assert_eq!(walked, kernel, "{path:?} {flags:?} {links:?}");
                }
            }
        }
    }

    #[test]
    fn magic_links_lead_nowhere() {
        let proc: OwnedFd = fs::File::open("/proc").unwrap().into();
        for (path, expected) in [
            ("self/exe", Some(Errno::ELOOP)),
            ("self/cwd/x", Some(Errno::ELOOP)),
            ("self/status", None),
            ("mounts", None),
        ] {
            for opened in [
                open_below(proc.as_fd(), Path::new(path), OFlag::O_PATH),
                walk(proc.as_fd(), Path::new(path), OFlag::O_PATH, Links::Follow),
            ] {
                assert_eq!(opened.err(), expected, "{path}");
            }
        }
    }

    #[test]
    fn what_is_made_is_made_inside() {
        let scratch = Scratch::new("make");
        let root = scratch.root();
        symlink("/run", scratch.0.join("var")).unwrap();
        symlink("../../../../../../escaped", scratch.0.join("out")).unwrap();
        mkdir_below(root.as_fd(), Path::new("/var/lock/deep")).unwrap();
        // Missing when it was looked for, a link when it is made: told, for what is mounted there is not at its path.
        let made = |path: &str, what| create_below(root.as_fd(), Path::new(path), what).unwrap().is_exact;
        assert!(!made("out", Make::File));
        assert!(!made("var/below", Make::Dir));
        assert!(made("new/file", Make::File));
        assert!(made("new/directory", Make::Dir));
        for made in ["run/lock/deep", "run/below", "escaped", "new/file", "new/directory"] {
            assert!(scratch.0.join(made).exists(), "{made}");
        }
        symlink("loop", scratch.0.join("loop")).unwrap();
        assert_eq!(mkdir_below(root.as_fd(), Path::new("loop/x")).err(), Some(Errno::ELOOP));
        assert_eq!(mkdir_below(root.as_fd(), Path::new("new/file/x")).err(), Some(Errno::ENOTDIR));
    }

    #[test]
    fn cleaning_goes_by_the_text() {
        for (path, clean) in [("/a/./b/", "/a/b"), ("a/../b", "/b"), ("/../..", "/"), ("", "/")] {
            assert_eq!(cleaned(Path::new(path)), Path::new(clean));
        }
    }
}
