//! From an entry to a file.

use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use kelson::error::{Context, Error, Result};
use kelson::sys::mount;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use super::archive::{Archive, Entry, Kind};
use super::limits::Meter;
use super::name::{components, shown};
use super::pax::Time;
use super::sparse::Extent;
use super::tree::{Dir, Missing, Tree, mode_meanwhile};
use super::whiteout::{self, Mark};
use super::{Ids, Options, Skipped, xattr};

/// What was made of an archive.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub entries: u64,
    pub bytes: u64,
    pub is_opaque: bool,
    pub skipped: Skipped,
}

/// A layer that is being made.
pub(super) struct Layer<'o> {
    tree: Tree<'o>,
    options: &'o Options,
    meter: &'o Meter<'o>,
    applied: Applied,
    /// Bytes of sparse files that are holes.
    holes: u64,
}

impl<'o> Layer<'o> {
    /// The root is as a directory that no entry describes: of root, for all to read, from 1970.
    pub fn new(root: BorrowedFd<'_>, options: &'o Options, meter: &'o Meter<'o>) -> Result<Self> {
        let mut tree = Tree::new(root, options)?;
        set_owner_and_mode(tree.root(), options.ids.of(0, 0)?, 0o755, || Ok(()))
            .doing(|| "prepare the layer's directory")?;
        tree.set_later(b"", 0o755, Time::default(), Time::default(), false)?;
        Ok(Self { tree, options, meter, applied: Applied::default(), holes: 0 })
    }

    /// Makes what the entry says; its data are read from the archive.
    pub fn add(&mut self, entry: Entry, archive: &mut Archive<impl BufRead>) -> Result<()> {
        self.applied.entries += 1;
        self.meter.check_entries(self.applied.entries)?;
        let components = components(&entry.name)?;
        let Some((base, parents)) = components.split_last() else { return self.root(&entry) };
        match Mark::of(parents, base)? {
            Mark::None => {}
            Mark::Ignored => return Ok(()),
            Mark::Whiteout(name) => return self.whiteout(parents, name),
            Mark::Opaque => return self.opaque(parents),
        }
        // Overlayfs's form of it, from one who packed a layer as it is.
        if entry.kind == (Kind::CharDevice { major: 0, minor: 0 }) {
            return self.whiteout(parents, base);
        }
        let parent = self.tree.open(parents, Missing::Make)?;
        match &entry.kind {
            Kind::File { size, extents } => self.file(&parent, base, &entry, *size, extents.as_deref(), archive),
            Kind::Directory => self.directory(&parent, base, &entry),
            Kind::SymLink { target } => {
                if target.is_empty() {
                    return Err(Error::other("it is a link to nothing"));
                }
                self.node(&parent, base, &entry, || symlinkat(&target[..], &parent.fd, *base))
            }
            Kind::HardLink { target } => self.hard_link(&parent, base, target),
            Kind::Fifo => self.special(&parent, base, &entry, SFlag::S_IFIFO, 0),
            Kind::CharDevice { major, minor } => self.device(&parent, base, &entry, SFlag::S_IFCHR, *major, *minor),
            Kind::BlockDevice { major, minor } => self.device(&parent, base, &entry, SFlag::S_IFBLK, *major, *minor),
        }
    }

    /// All entries were added.
    pub fn finish(mut self) -> Result<Applied> {
        self.tree.finish()?;
        Ok(self.applied)
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::other("it is the root and no directory"));
        }
        let root = self.tree.root().try_clone_to_owned()?;
        self.describe_directory(root.as_fd(), b"", entry, true)
    }

    fn file(
        &mut self,
        parent: &Dir,
        base: &[u8],
        entry: &Entry,
        size: u64,
        extents: Option<&[Extent]>,
        archive: &mut Archive<impl BufRead>,
    ) -> Result<()> {
        self.applied.bytes = self.applied.bytes.saturating_add(size);
        self.meter.check_files(self.applied.bytes)?;
        // Of a file that its owner may not write an attribute cannot be set either.
        let mode = if entry.xattrs.is_empty() { entry.mode & 0o777 } else { 0o600 };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = self.make(parent, base, || openat(&parent.fd, base, flags, Mode::from_bits_truncate(mode)))?;
        let file = File::from(file);
        match extents {
            None => write_whole(&file, archive)?,
            Some(extents) => {
                let stored = write_parts(&file, size, extents, archive)?;
                self.holes += size - stored;
                self.meter.check_holes(self.holes)?;
            }
        }
        let owner = self.options.ids.of(entry.uid, entry.gid)?;
        set_owner_and_mode(file.as_fd(), owner, entry.mode, || self.set_xattrs(file.as_fd(), entry))?;
        set_times(file.as_fd(), entry.accessed.unwrap_or(entry.modified), entry.modified)
    }

    fn directory(&mut self, parent: &Dir, base: &[u8], entry: &Entry) -> Result<()> {
        let mode = Mode::from_bits_truncate(mode_meanwhile(entry.mode));
        let make = || mkdirat(&parent.fd, base, mode).doing(|| "make it");
        let mut was_there = false;
        let mut was_whiteout = false;
        match mkdirat(&parent.fd, base, mode) {
            Err(Errno::EEXIST) => {
                let found = mount::stat_at(parent.fd.as_fd(), base).doing(|| "look at what is there")?;
                was_there = found.is_dir();
                was_whiteout = whiteout::is_whiteout(&found);
                if !was_there {
                    self.tree.clear(parent, base)?;
                    make()?;
                }
            }
            made => made.doing(|| "make it")?,
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&parent.fd, base, flags, Mode::empty()).doing(|| "open it")?;
        if was_whiteout {
            // What the whiteout hid stays hidden.
            whiteout::set_opaque(fd.as_fd(), self.options.user_xattr)?;
        }
        let dir = self.tree.entered(parent, base, fd);
        self.describe_directory(dir.fd.as_fd(), &dir.path, entry, was_there)
    }

    fn describe_directory(&mut self, fd: BorrowedFd<'_>, path: &[u8], entry: &Entry, was_there: bool) -> Result<()> {
        let owner = self.options.ids.of(entry.uid, entry.gid)?;
        set_owner_and_mode(fd, owner, mode_meanwhile(entry.mode), || self.set_xattrs(fd, entry))?;
        let accessed = entry.accessed.unwrap_or(entry.modified);
        self.tree.set_later(path, entry.mode, accessed, entry.modified, was_there)
    }

    fn hard_link(&mut self, parent: &Dir, base: &[u8], target: &[u8]) -> Result<()> {
        let missing = || Error::other(format!("it is a hard link to {}, which is not in this layer", shown(target)));
        let target_components = components(target).doing(|| format!("hard link to {}", shown(target)))?;
        let Some((target_base, target_parents)) = target_components.split_last() else { return Err(missing()) };
        let target_dir = match self.tree.open(target_parents, Missing::Refuse) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => return Err(missing()),
            opened => opened.doing(|| format!("hard link to {}", shown(target)))?,
        };
        let look = |dir: &Dir, name: &[u8]| mount::stat_at(dir.fd.as_fd(), name);
        let found = match look(&target_dir, target_base) {
            Ok(found) if !whiteout::is_whiteout(&found) => found,
            Ok(_) | Err(Errno::ENOENT) => return Err(missing()),
            Err(errno) => return Err(errno).doing(|| format!("look at {}", shown(target))),
        };
        if found.is_dir() {
            return Err(Error::other(format!("it is a hard link to {}, which is a directory", shown(target))));
        }
        let link = || linkat(&target_dir.fd, *target_base, &parent.fd, base, AtFlags::empty());
        match link() {
            Err(Errno::EEXIST) if look(parent, base).is_ok_and(|there| there.is_same_file(&found)) => Ok(()),
            Err(Errno::EEXIST) => {
                self.tree.clear(parent, base)?;
                match link() {
                    // It was in what had to go.
                    Err(Errno::ENOENT) => Err(missing()),
                    linked => linked.doing(|| format!("link it to {}", shown(target))),
                }
            }
            linked => linked.doing(|| format!("link it to {}", shown(target))),
        }
    }

    fn device(&mut self, parent: &Dir, base: &[u8], entry: &Entry, kind: SFlag, major: u64, minor: u64) -> Result<()> {
        if self.options.user_xattr {
            self.applied.skipped.devices += 1;
            return self.tree.clear(parent, base);
        }
        self.special(parent, base, entry, kind, makedev(major, minor))
    }

    fn special(&mut self, parent: &Dir, base: &[u8], entry: &Entry, kind: SFlag, device: u64) -> Result<()> {
        let mode = Mode::from_bits_truncate(entry.mode);
        self.node(parent, base, entry, || {
            mknodat(&parent.fd, base, kind, mode, device)?;
            // It is no link: it was made by the line above, and nobody else is in the directory.
            fchmodat(&parent.fd, base, mode, FchmodatFlags::FollowSymlink)
        })
    }

    /// What is not opened: links and special files.
    fn node(&mut self, parent: &Dir, base: &[u8], entry: &Entry, make: impl Fn() -> nix::Result<()>) -> Result<()> {
        self.make(parent, base, make)?;
        if let Some((uid, gid)) = self.options.ids.of(entry.uid, entry.gid)? {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(&parent.fd, base, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).doing(|| "set its owner")?;
        }
        if !entry.xattrs.is_empty() {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let fd: OwnedFd = openat(&parent.fd, base, flags, Mode::empty()).doing(|| "open it")?;
            self.set_xattrs(fd.as_fd(), entry)?;
        }
        let (accessed, modified) = (spec(entry.accessed.unwrap_or(entry.modified)), spec(entry.modified));
        utimensat(&parent.fd, base, &accessed, &modified, UtimensatFlags::NoFollowSymlink).doing(|| "set its times")
    }

    /// Makes something; what was there before goes: the last entry with a name counts.
    fn make<T>(&mut self, parent: &Dir, base: &[u8], make: impl Fn() -> nix::Result<T>) -> Result<T> {
        match make() {
            Err(Errno::EEXIST) => {
                self.tree.clear(parent, base)?;
                make()
            }
            made => made,
        }
        .doing(|| "make it")
    }

    fn set_xattrs(&mut self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        for (name, value) in &entry.xattrs {
            // Who else may use a file says nothing where there is nobody else.
            let is_of_others = self.options.ids == Ids::Squash && name.starts_with(b"system.posix_acl_");
            self.applied.skipped.xattrs += u64::from(is_of_others || !xattr::set(fd, name, value)?);
        }
        Ok(())
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<()> {
        let parent = self.tree.open(parents, Missing::Make)?;
        match mount::stat_at(parent.fd.as_fd(), name) {
            Err(Errno::ENOENT) => whiteout::make(parent.fd.as_fd(), name),
            // A whiteout is of what is below the layer (image-spec, layer.md#whiteouts): its own directory hides that and stays.
            Ok(found) if found.is_dir() => {
                let below: Vec<&[u8]> = parents.iter().copied().chain([name]).collect();
                self.opaque(&below)
            }
            found => found.map(drop).doing(|| "look at what is there"),
        }
    }

    fn opaque(&mut self, directory: &[&[u8]]) -> Result<()> {
        let dir = self.tree.open(directory, Missing::Make)?;
        if dir.path.is_empty() {
            self.applied.is_opaque = true;
            return Ok(());
        }
        whiteout::set_opaque(dir.fd.as_fd(), self.options.user_xattr)
    }
}

/// How many zeros make a hole, where their first byte is at a multiple of it.
const HOLE: usize = 64 << 10;
/// Fewer are written with what is beside them: a file system's block.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Writes the data of the entry. Long runs of zeros become holes: archives of layers have zeros for those that a file had.
fn write_whole(file: &File, archive: &mut Archive<impl BufRead>) -> Result<()> {
    let mut at = 0_u64;
    let mut written = 0;
    loop {
        let data = archive.data()?;
        if data.is_empty() {
            break;
        }
        for (begin, end) in parts(data, at, written < at) {
            file.write_all_at(&data[begin..end], at + begin as u64).doing(|| "write it")?;
            written = at + end as u64;
        }
        let length = data.len();
        at += length as u64;
        archive.consume(length);
    }
    if written < at {
        file.set_len(at).doing(|| format!("make it {at} bytes large"))?;
    }
    Ok(())
}

/// What of `data`, which begins at `at` in the file, after a hole or not, is no hole: first byte and the one behind the last.
fn parts(data: &[u8], at: u64, mut is_after_hole: bool) -> Vec<(usize, usize)> {
    let mut all: Vec<(usize, usize)> = vec![];
    let mut begin = 0;
    while begin < data.len() {
        let length = (HOLE - (at as usize + begin) % HOLE).min(data.len() - begin);
        let end = begin + length;
        let is_zero = |block: &[u8]| *block == ZEROS[..block.len()];
        // What is read at once ends anywhere: a hole goes on.
        let is_hole = (length >= BLOCK || is_after_hole) && data[begin..end].chunks(BLOCK).all(is_zero);
        match all.last_mut() {
            _ if is_hole => {}
            Some(last) if last.1 == begin => last.1 = end,
            _ => all.push((begin, end)),
        }
        (begin, is_after_hole) = (end, is_hole);
    }
    all
}

/// The parts of a sparse file, which together are the data of the entry: how many bytes that was.
fn write_parts(file: &File, size: u64, extents: &[Extent], archive: &mut Archive<impl BufRead>) -> Result<u64> {
    file.set_len(size).doing(|| format!("make it {size} bytes large"))?;
    for extent in extents {
        let mut written = 0;
        while written < extent.length {
            let data = archive.data()?;
            let length = data.len().min(usize::try_from(extent.length - written).unwrap_or(usize::MAX));
            file.write_all_at(&data[..length], extent.offset + written).doing(|| "write it")?;
            written += length as u64;
            archive.consume(length);
        }
    }
    Ok(extents.iter().map(|extent| extent.length).sum())
}

/// Owner, then what `between` does, then the mode: a change of the owner takes setuid and capabilities away, and who may not
/// write a file may not set its attributes.
pub(super) fn set_owner_and_mode(
    file: BorrowedFd<'_>,
    owner: Option<(u32, u32)>,
    mode: u32,
    between: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // To ask is cheaper than to set what is so already.
    let found = fstat(file).doing(|| "look at it")?;
    let other = owner.filter(|owner| *owner != (found.st_uid, found.st_gid));
    if let Some((uid, gid)) = other {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).doing(|| format!("give it to {uid}:{gid}"))?;
    }
    between()?;
    if other.is_some() && mode & 0o6000 != 0 || found.st_mode & 0o7777 != mode {
        fchmod(file, Mode::from_bits_truncate(mode)).doing(|| format!("set its mode to {mode:o}"))?;
    }
    Ok(())
}

pub(super) fn set_times(file: BorrowedFd<'_>, accessed: Time, modified: Time) -> Result<()> {
    futimens(file, &spec(accessed), &spec(modified)).doing(|| "set its times")
}

fn spec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanoseconds.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_of_zeros_are_holes() {
        let with = |bytes: &[usize], length: usize| {
            let mut data = vec![0; length];
            bytes.iter().for_each(|byte| data[*byte] = 1);
            data
        };
        for (data, at, expected) in [
            (with(&[], 3 * HOLE), 0, vec![]),
            (with(&[0], 10), 0, vec![(0, 10)]),
            (with(&[], 10), 0, vec![(0, 10)]),
            (with(&[HOLE], 3 * HOLE), 0, vec![(HOLE, 2 * HOLE)]),
            (with(&[0, 2 * HOLE], 3 * HOLE), 0, vec![(0, HOLE), (2 * HOLE, 3 * HOLE)]),
            (with(&[0, HOLE], 2 * HOLE), 0, vec![(0, 2 * HOLE)]),
            // Pieces are of the file and not of what is read of it at once.
            (with(&[100], 2 * HOLE), 50, vec![(0, HOLE - 50)]),
            (with(&[0], HOLE + BLOCK - 1), 0, vec![(0, HOLE + BLOCK - 1)]),
            (with(&[0], HOLE + BLOCK), 0, vec![(0, HOLE)]),
        ] {
            assert_eq!(parts(&data, at, false), expected);
        }
        assert_eq!(parts(&[0; 10], 100, true), []);
    }
}
