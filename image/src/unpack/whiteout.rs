//! Marks of an archive that something of a lower layer is gone (image-spec, layer.md#whiteouts), and overlayfs's own for it.
//!
//! A whiteout is a character device 0:0, for ordinary users too: mknod(2) asks them for no privilege (since 5.8), and every
//! kernel that lets them mount an overlay (since 5.11) knows it, while a file with `user.overlay.whiteout` is one since 6.7 only
//! and a plain empty file before (overlayfs.rst, "Whiteouts and opaque directories"). fuse-overlayfs knows it as well.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use kelson::error::{Context, Error, Result};
use kelson::sys::mount::{self, FileInfo};
use nix::sys::stat::{Mode, SFlag, mknodat};

const PREFIX: &[u8] = b".wh.";
/// What follows are aufs's own files, but for the mark of an opaque directory.
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark<'n> {
    /// An entry like any other.
    None,
    /// A file of aufs's own: nothing of the layer.
    Ignored,
    /// What has this name in lower layers is gone.
    Whiteout(&'n [u8]),
    /// All that lower layers have in the directory is gone.
    Opaque,
}

impl<'n> Mark<'n> {
    /// Of an entry whose name has these components.
    ///
    /// # Errors
    /// A whiteout of nothing, or something below one.
    pub fn of(parents: &[&[u8]], base: &'n [u8]) -> Result<Self> {
        if parents.iter().any(|component| component.starts_with(META_PREFIX)) {
            return Ok(Self::Ignored);
        }
        if parents.iter().any(|component| component.starts_with(PREFIX)) {
            return Err(Error::other("it is below a whiteout"));
        }
        match base.strip_prefix(PREFIX) {
            None => Ok(Self::None),
            Some(_) if base == OPAQUE => Ok(Self::Opaque),
            Some(_) if base.starts_with(META_PREFIX) => Ok(Self::Ignored),
            Some(b"" | b"." | b"..") => Err(Error::other("it is a whiteout of nothing")),
            Some(name) => Ok(Self::Whiteout(name)),
        }
    }
}

/// Whether overlayfs takes the file for a whiteout.
pub(super) fn is_whiteout(file: &FileInfo) -> bool {
    SFlag::from_bits_truncate(file.file_type()) == SFlag::S_IFCHR && file.rdev == (0, 0)
}

/// Makes a whiteout where nothing is.
pub(super) fn make(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), 0)
        .doing(|| "make a whiteout")
        .hint(|| "the file system of the store must have device files: the whiteouts of overlayfs are some")
}

/// Marks a directory as opaque.
pub(super) fn set_opaque(dir: BorrowedFd<'_>, user_xattr: bool) -> Result<()> {
    let name: &CStr = if user_xattr { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" };
    mount::set_xattr(super::xattr::path_of(dir).as_str(), name, b"y")
        .doing(|| format!("set {}", name.to_string_lossy()))
        .hint(|| "the file system of the store must have such attributes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_known_by_their_names() {
        let mark = |path: &'static str| {
            let components: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            let (base, parents) = components.split_last().unwrap();
            Mark::of(parents, base).ok()
        };
        for (path, expected) in [
            ("a", Some(Mark::None)),
            (".whale", Some(Mark::None)),
            ("a/.wh.b", Some(Mark::Whiteout(b"b"))),
            (".wh..b", Some(Mark::Whiteout(b".b"))),
            (".wh..wh..opq", Some(Mark::Opaque)),
            ("a/.wh..wh..opq", Some(Mark::Opaque)),
            (".wh..wh.plnk", Some(Mark::Ignored)),
            (".wh..wh.plnk/1.2", Some(Mark::Ignored)),
            (".wh..wh.aufs", Some(Mark::Ignored)),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
            (".wh.a/b", None),
        ] {
            assert_eq!(mark(path), expected, "{path}");
        }
    }
}
