//! The layers of an image as one plain directory, which any runtime can take as its root: what overlayfs would show of them.
//!
//! It is copied from the unpacked layers, which were verified and have neither links that lead out nor marks in the wrong
//! places; still every step opens one name in one directory and follows no link.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::rootfs::path::{Links, open_with};
use kelson::sys::mount;
use kelson::sys::process::capabilities;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchownat, linkat, lseek, symlinkat};

use crate::changes::{Item, Layers, Meta, attributes};
use crate::unpack::{path_of, remove};

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

struct Copy<'l> {
    layers: &'l Layers,
    /// The directory of the image that is copied.
    from: &'l Path,
    root: OwnedFd,
    /// Where files that have several names were copied to, by layer and number.
    linked: HashMap<(usize, u64), PathBuf>,
    keeps_owners: bool,
    /// Devices that this caller cannot make.
    skipped: u64,
}

/// Makes the directory `to` of `layers`, topmost first.
///
/// # Errors
/// It is there, or a file cannot be made as it is in the layer. Nothing is left then.
pub fn flatten(layers: &[PathBuf], to: &Path) -> Result<()> {
    let layers = Layers::open(layers)?;
    let top = layers.root()?.ok_or_else(|| Error::other("the image has no layers: there is nothing in it"))?;
    copy(&layers, Path::new(""), &top, to)
}

/// Makes the directory `to` of what the image has in the directory `from`, which is given without a leading slash; `false` if there
/// is no such directory, to which no link leads either.
pub fn flatten_below(layers: &[PathBuf], from: &Path, to: &Path) -> Result<bool> {
    let layers = Layers::open(layers)?;
    let Some(mut item) = layers.root()? else { return Ok(false) };
    let mut path = PathBuf::new();
    for name in from {
        match layers.list(&path, &item.layers)?.remove(name).filter(|item| item.meta.is_dir()) {
            Some(below) => item = below,
            None => return Ok(false),
        }
        path.push(name);
    }
    copy(&layers, &path, &item, to).map(|()| true)
}

fn copy(layers: &Layers, from: &Path, top: &Item, to: &Path) -> Result<()> {
    let doing = || format!("make {}", to.display());
    let name = to.file_name().ok_or_else(|| Error::other("it has no name")).doing(doing)?;
    let parent = openat(AT_FDCWD, to.parent().unwrap_or(to), DIRECTORY, Mode::empty()).doing(doing)?;
    mkdirat(&parent, name, Mode::S_IRWXU).doing(doing)?;
    let root = openat(&parent, name, DIRECTORY, Mode::empty()).doing(doing)?;
    // Their owners are kept where they can be given: by who has the privilege (CAP_CHOWN), if only in a user namespace.
    let keeps_owners = capabilities().is_ok_and(|[effective, ..]| effective & 1 != 0);
    let mut copy = Copy { layers, from, root, linked: HashMap::new(), keeps_owners, skipped: 0 };
    let copied = copy.all(top);
    if copied.is_err() {
        // The first failure is what is told.
        let _ = remove(parent.as_fd(), name);
    }
    if copy.skipped > 0 {
        log::warn!("{} devices of the image are left out: only root can make them", copy.skipped);
    }
    copied
}

impl Copy<'_> {
    fn all(&mut self, top: &Item) -> Result<()> {
        let root = self.root.try_clone()?;
        self.directory(self.from, top, root.as_fd())?;
        let source = self.layers.open_in(top.layers[0], self.from, DIRECTORY)?;
        self.finish(&source, &top.meta, root.as_fd(), OsStr::new("."))
    }

    /// Copies what the layers have in the directory `path` into the directory `to`.
    fn directory(&mut self, path: &Path, item: &Item, to: BorrowedFd<'_>) -> Result<()> {
        for (name, item) in self.layers.list(path, &item.layers)? {
            let path = path.join(&name);
            self.entry(&path, &name, &item, to).doing(|| format!("copy /{}", path.display()))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &OsStr, item: &Item, to: BorrowedFd<'_>) -> Result<()> {
        let (meta, layer) = (&item.meta, item.layers[0]);
        let source = self.layers.open_in(layer, path, LOOK)?;
        if meta.is_dir() {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let made = openat(to, name, DIRECTORY, Mode::empty())?;
            self.directory(path, item, made.as_fd())?;
            return self.finish(&source, meta, to, name);
        }
        if meta.links > 1 {
            if let Some(first) = self.linked.get(&(layer, meta.file.1)) {
                let parent = first.parent().unwrap_or(Path::new(""));
                let parent = open_with(self.root.as_fd(), parent, LOOK | OFlag::O_DIRECTORY, Links::Refuse)?;
                let base = first.file_name().unwrap_or_default();
                return Ok(linkat(&parent, base, to, name, AtFlags::empty())?);
            }
            let below = path.strip_prefix(self.from).unwrap_or(path);
            self.linked.insert((layer, meta.file.1), below.to_owned());
        }
        match meta.kind() {
            SFlag::S_IFREG => copy_content(&source, meta.size, to, name)?,
            SFlag::S_IFLNK => symlinkat(readlinkat(&source, "")?.as_os_str(), to, name)?,
            kind => match mknodat(to, name, kind, Mode::S_IRUSR | Mode::S_IWUSR, meta.rdev) {
                Err(Errno::EPERM) => {
                    self.skipped += 1;
                    return Ok(());
                }
                made => made?,
            },
        }
        self.finish(&source, meta, to, name)
    }

    /// Gives what was made as `name` in `to` all that the layer says of it: the times last.
    fn finish(&self, source: &OwnedFd, meta: &Meta, to: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        if self.keeps_owners {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).doing(|| "set its owner")?;
        }
        let made = openat(to, name, LOOK, Mode::empty())?;
        let path = path_of(made.as_fd());
        for (name, value) in attributes(source)? {
            match mount::set_xattr(path.as_str(), &name, &value) {
                // The file system, or this caller, has no such attributes.
                Ok(()) | Err(Errno::ENOTSUP | Errno::EPERM) => {}
                Err(errno) => return Err(errno).doing(|| format!("set {}", name.to_string_lossy())),
            }
        }
        if meta.kind() != SFlag::S_IFLNK {
            let mode = Mode::from_bits_truncate(meta.mode & 0o7777);
            fchmodat(AT_FDCWD, path.as_str(), mode, FchmodatFlags::FollowSymlink).doing(|| "set its mode")?;
        }
        let time = TimeSpec::new(meta.modified.0, meta.modified.1);
        utimensat(to, name, &time, &time, UtimensatFlags::NoFollowSymlink).doing(|| "set its times")?;
        Ok(())
    }
}

/// Makes the file `name` in `to` with the content of `source`, holes as holes.
fn copy_content(source: &OwnedFd, size: u64, to: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let mut source = File::open(path_of(source.as_fd()))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut made = File::from(openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    made.set_len(size)?;
    let mut at = 0;
    while at < size {
        let data = match lseek(&source, at as i64, Whence::SeekData) {
            Ok(data) => data as u64,
            Err(Errno::ENXIO) => break,
            // No holes are known here.
            Err(Errno::EINVAL) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = lseek(&source, data as i64, Whence::SeekHole).map_or(size, |end| end as u64);
        source.seek(SeekFrom::Start(data))?;
        made.seek(SeekFrom::Start(data))?;
        // By copy_file_range(2): within one file system nothing is copied that can be shared.
        std::io::copy(&mut (&source).take(end - data), &mut made)?;
        at = end;
    }
    Ok(())
}
