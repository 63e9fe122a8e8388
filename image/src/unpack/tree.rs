//! Where entries are made: directories below the root, by descriptor.
//!
//! A parent is opened without following links, as nearly all are, and kept for the next entry. Only where that fails the way to
//! it is gone component by component: links are followed as the container would, inside the root, and what is missing is made.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::rc::Rc;

use kelson::error::{Context, Error, Result};
use kelson::rootfs::path::{Links, open_with};
use kelson::sys::mount;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::later::{Attributes, Later};
use super::name::{MAX_DEPTH, plain, shown};
use super::pax::Time;
use super::remove::{self, Removed};
use super::whiteout;
use super::{Ids, Options};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Components that are gone through for one entry, those of links included.
const MAX_STEPS: usize = 2 * MAX_DEPTH;
/// How a directory is opened that things are made in.
const ANCHOR: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// An open directory of the layer.
#[derive(Debug)]
pub(super) struct Dir {
    pub fd: OwnedFd,
    /// Below the root, without links.
    pub path: Vec<u8>,
    /// As entries call it: links may be on the way.
    name: Vec<u8>,
}

/// What to do about a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Refuse,
}

pub(super) struct Tree<'o> {
    root: OwnedFd,
    options: &'o Options,
    /// The directory of the last entry.
    last: Option<Rc<Dir>>,
    later: Later,
    /// A directory was removed: what is recorded of its path is of another.
    has_removed: bool,
}

impl<'o> Tree<'o> {
    pub fn new(root: BorrowedFd<'_>, options: &'o Options) -> Result<Self> {
        let root = openat(root, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .doing(|| "open the layer's directory")?;
        Ok(Self { root, options, last: None, later: Later::default(), has_removed: false })
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory with these components.
    ///
    /// # Errors
    /// It is reached by links that leave the root or lead nowhere; something on the way is no directory.
    pub fn open(&mut self, components: &[&[u8]], missing: Missing) -> Result<Rc<Dir>> {
        let name = components.join(&b'/');
        if let Some(last) = self.last.as_ref().filter(|last| last.name == name) {
            return Ok(Rc::clone(last));
        }
        let dir = match open_with(self.root.as_fd(), path(&name), ANCHOR, Links::Refuse) {
            Ok(fd) => Dir { fd, path: name.clone(), name },
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => {
                let (fd, path) = self.resolve(components, missing)?;
                Dir { fd, path, name }
            }
            Err(errno) => return Err(errno).doing(|| format!("open directory {}", shown(&name))),
        };
        Ok(self.keep(dir))
    }

    /// Keeps a directory for the next entry.
    fn keep(&mut self, dir: Dir) -> Rc<Dir> {
        let dir = Rc::new(dir);
        self.last = Some(Rc::clone(&dir));
        dir
    }

    /// Goes the way to a directory as the container would.
    fn resolve(&mut self, components: &[&[u8]], missing: Missing) -> Result<(OwnedFd, Vec<u8>)> {
        let mut todo: VecDeque<Vec<u8>> = components.iter().map(|name| name.to_vec()).collect();
        let mut way: Vec<Vec<u8>> = Vec::new();
        let mut here = self.reopen(&way)?;
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = todo.pop_front() {
            steps += 1;
            if steps > MAX_STEPS || way.len() >= MAX_DEPTH {
                return Err(Error::other("the way to it is too long"));
            }
            if name == b".." {
                if way.pop().is_none() {
                    return Err(Error::other("a link on the way to it leads out of the layer"));
                }
                here = self.reopen(&way)?;
                continue;
            }
            let place = [&way[..], std::slice::from_ref(&name)].concat().join(&b'/');
            let found = openat(&here, &name[..], OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
            let found = match found {
                Err(Errno::ENOENT) => None,
                found => {
                    let fd = found.doing(|| format!("open {}", shown(&place)))?;
                    Some((mount::stat(fd.as_fd()).doing(|| format!("look at {}", shown(&place)))?, fd))
                }
            };
            match found {
                Some((info, fd)) if info.is_dir() => {
                    here = fd;
                    way.push(name);
                }
                Some((info, fd)) if info.is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::other("there are too many links on the way to it, or they go round"));
                    }
                    let target = readlinkat(&fd, "").doing(|| format!("read link {}", shown(&place)))?.into_vec();
                    if target.starts_with(b"/") {
                        way.clear();
                        here = self.reopen(&way)?;
                    }
                    for component in plain(&target).into_iter().rev() {
                        todo.push_front(component.to_vec());
                    }
                }
                Some((info, _)) if !whiteout::is_whiteout(&info) => {
                    return Err(Error::other(format!("{} is no directory", shown(&place))));
                }
                _ if missing == Missing::Refuse => return Err(Errno::ENOENT.into()),
                found => {
                    here = self.make_implied(here.as_fd(), &name, &place, found.is_some())?;
                    way.push(name);
                }
            }
        }
        Ok((here, way.join(&b'/')))
    }

    fn reopen(&self, way: &[Vec<u8>]) -> Result<OwnedFd> {
        let name = way.join(&b'/');
        open_with(self.root.as_fd(), path(&name), ANCHOR, Links::Refuse)
            .doing(|| format!("open directory {}", shown(&name)))
    }

    /// Makes a directory that no entry describes, or none so far: of root, for all to read, from 1970, so that the layer's files
    /// depend on its archive alone. In place of a whiteout it hides what is below, as that did.
    fn make_implied(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        place: &[u8],
        is_whiteout: bool,
    ) -> Result<OwnedFd> {
        let make = || -> Result<OwnedFd> {
            if is_whiteout {
                unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
            }
            mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
            let fd = openat(
                parent,
                name,
                OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            super::apply::set_owner_and_mode(fd.as_fd(), self.options.ids.of(0, 0)?, 0o755, || Ok(()))?;
            Ok(fd)
        };
        let fd = make().doing(|| format!("make directory {}", shown(place)))?;
        if is_whiteout {
            whiteout::set_opaque(fd.as_fd(), self.options.user_xattr)?;
        }
        let epoch = Time::default();
        self.set_later(place, 0o755, epoch, epoch, false)?;
        Ok(fd)
    }

    /// Has a directory that was just made or found get its times at the end, and its mode if it cannot have that now.
    pub fn set_later(&mut self, path: &[u8], mode: u32, accessed: Time, modified: Time, was_there: bool) -> Result<()> {
        // What is recorded of this path may be of a directory that is gone, or say what is not true any more.
        let is_pending = was_there || self.has_removed || mode != mode_meanwhile(mode);
        self.later.add(path, Attributes { mode: is_pending.then_some(mode), accessed, modified })
    }

    /// A directory that was made in `parent` is the next entries' own, more often than not.
    pub fn entered(&mut self, parent: &Dir, base: &[u8], fd: OwnedFd) -> Rc<Dir> {
        let below = |path: &[u8]| if path.is_empty() { base.to_vec() } else { [path, b"/", base].concat() };
        self.keep(Dir { fd, path: below(&parent.path), name: below(&parent.name) })
    }

    /// Removes what has the name, with all that is in it.
    pub fn clear(&mut self, parent: &Dir, name: &[u8]) -> Result<()> {
        // The kept directory may be in it, or a link on the way to that be gone.
        self.last = None;
        let removed = remove::any(parent.fd.as_fd(), OsStr::from_bytes(name)).doing(|| "remove what was there")?;
        self.has_removed |= removed == Removed::Directory;
        Ok(())
    }

    /// Gives the directories what had to wait: first all times, then the modes, those that are deepest first.
    pub fn finish(&mut self) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // None where an entry that came later is no directory.
        let opened = |name: &[u8]| match open_with(self.root.as_fd(), path(name), flags, Links::Refuse) {
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => Ok(None),
            opened => opened.map(Some).doing(|| format!("open directory {}", shown(name))),
        };
        let mut depth = 0;
        self.later.each(|name, attributes| {
            depth = depth.max(depth_of(name));
            let Some(fd) = opened(name)? else { return Ok(()) };
            super::apply::set_times(fd.as_fd(), attributes.accessed, attributes.modified)
                .doing(|| format!("set times of {}", shown(name)))
        })?;
        for depth in (0..=depth).rev().filter(|_| self.later.has_modes) {
            self.later.each(|name, attributes| {
                let Some(mode) = attributes.mode.filter(|_| depth_of(name) == depth) else { return Ok(()) };
                let Some(fd) = opened(name)? else { return Ok(()) };
                nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(mode))
                    .doing(|| format!("set mode of {}", shown(name)))
            })?;
        }
        Ok(())
    }
}

/// A directory's mode while things are made in it: by the caller, and with the caller's group.
pub(super) fn mode_meanwhile(mode: u32) -> u32 {
    mode & 0o1777 | 0o700
}

/// How many directories are above it.
fn depth_of(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count() + usize::from(!path.is_empty())
}

pub(super) fn path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

impl Ids {
    /// Who is to own a file that the archive gives these ids; `None` leaves it to the caller.
    ///
    /// # Errors
    /// Numbers that are no ids.
    pub(super) fn of(self, uid: i64, gid: i64) -> Result<Option<(u32, u32)>> {
        // The last one stands for "no change" (chown(2)).
        let id = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        match (self, id(uid), id(gid)) {
            (Self::Squash, ..) => Ok(None),
            (Self::AsGiven, Some(uid), Some(gid)) => Ok(Some((uid, gid))),
            _ => Err(Error::other(format!("there are no ids {uid}:{gid}"))),
        }
    }
}
