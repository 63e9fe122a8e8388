//! [init] After the root is entered: masked paths, read-only paths, read-only root.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::RootFs;
use super::path::{Links, open_below, open_with};
use super::tree::{self, Change, NewFs, Place, Tree};
use crate::error::{Context, Error, Result};
use crate::plan::{FlagChange, MountAttributes};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, Reach, attr};

pub(super) const READ_ONLY: Change<'_> = Change {
    attributes: MountAttributes {
        top: FlagChange { set: attr::RDONLY, clear: 0 },
        recursive: FlagChange { set: 0, clear: 0 },
    },
    propagation: &[],
};

impl RootFs<'_> {
    /// Hides `linux.maskedPaths`: files behind the null device, directories behind one shared empty read-only tmpfs.
    pub fn mask_paths(&self) -> Result<()> {
        // What the first mask of each kind was made of is copied for the next ones.
        let (mut file_mask, mut dir_mask) = (None, None);
        let mut null = self.null.get().map(|tree| self.usable_null(tree)).transpose()?;
        for (index, path) in self.plan.masked_paths.iter().enumerate() {
            self.mask(path, &mut null, &mut file_mask, &mut dir_mask)
                .doing(|| format!("mask {}", path.display()))
                .property(|| format!("linux.maskedPaths[{index}]"))?;
        }
        file_mask.into_iter().chain(dir_mask).for_each(close_later);
        Ok(())
    }

    fn mask(
        &self,
        path: &Path,
        null: &mut Option<Tree>,
        file_mask: &mut Option<OwnedFd>,
        dir_mask: &mut Option<OwnedFd>,
    ) -> Result<()> {
        let Some(fd) = self.open_protected(path)? else { return Ok(()) };
        let is_dir = mount::stat(fd.as_fd())?.is_dir();
        let mask = if is_dir { dir_mask } else { file_mask };
        let tree = match (&*mask, null.take()) {
            (Some(mask), _) => Tree::bind_of(mask.as_fd(), Reach::Top)?,
            (None, unused) if is_dir => {
                *null = unused;
                Tree::new(self.empty_directory())?
            }
            (None, Some(null)) => null,
            (None, None) => return Err(Error::other("no null device to mask it with")),
        };
        let place = Place { fd, root: Some(self.root.as_fd()), path };
        let attached = tree.attach(&place, Change::default(), self.names())?;
        close_later(place.fd);
        match mask {
            Some(_) => close_later(attached),
            None => *mask = Some(attached),
        }
        Ok(())
    }

    /// The host's null device, or, where the kernel cannot detach a copy of it, the container's, checked.
    fn usable_null(&self, host: &Tree) -> Result<Tree> {
        match host {
            Tree::Detached(fd) => Ok(Tree::Detached(fd.try_clone()?)),
            _ => {
                let null = open_with(self.root.as_fd(), Path::new("dev/null"), OFlag::O_PATH, Links::Refuse)
                    .doing(|| "open /dev/null")?;
                let info = mount::stat(null.as_fd())?;
                match info.file_type() == libc::S_IFCHR && info.rdev == (1, 3) {
                    true => Ok(Tree::bind_of(null.as_fd(), Reach::Top)?),
                    false => Err(Error::other("/dev/null in the container is not the null device 1:3")),
                }
            }
        }
    }

    /// Makes `linux.readonlyPaths` read-only; other attributes of their mounts stay.
    pub fn protect_readonly_paths(&self) -> Result<()> {
        for (index, path) in self.plan.readonly_paths.iter().enumerate() {
            self.make_readonly(path)
                .doing(|| format!("make {} read-only", path.display()))
                .property(|| format!("linux.readonlyPaths[{index}]"))?;
        }
        Ok(())
    }

    fn make_readonly(&self, path: &Path) -> Result<()> {
        let Some(fd) = self.open_protected(path)? else { return Ok(()) };
        let tree = Tree::bind_of(fd.as_fd(), Reach::Recursive)?;
        let place = Place { fd, root: Some(self.root.as_fd()), path };
        tree.attach(&place, READ_ONLY, self.names()).map(close_later)?;
        close_later(place.fd);
        Ok(())
    }

    /// `None` if there is nothing to protect: what is missing is hidden enough.
    fn open_protected(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match open_below(self.root.as_fd(), path, OFlag::O_PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes the root read-only if `root.readonly` says so, and those tmpfs whose `ro` had to wait.
    pub fn protect_root(&self) -> Result<()> {
        for (index, mounted) in self.read_only_later.take() {
            tree::change_attached(mounted.as_fd(), READ_ONLY, self.names())
                .doing(|| "make a tmpfs read-only")
                .property(|| format!("mounts[{index}]"))?;
        }
        if self.plan.root.readonly {
            tree::change_attached(self.root.as_fd(), READ_ONLY, self.names())
                .doing(|| "make the root file system read-only")
                .property(|| "root.readonly")?;
        }
        Ok(())
    }

    pub(super) fn empty_directory(&self) -> NewFs {
        let mut fs = NewFs {
            fs_type: "tmpfs".into(),
            source: "tmpfs".into(),
            data: vec!["nr_inodes=1".into(), "mode=755".into()],
            attributes: attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
            ..NewFs::default()
        };
        self.label(&mut fs);
        fs
    }
}
