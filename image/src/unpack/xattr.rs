//! Extended attributes that an archive may set.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

use kelson::error::{Context, Error, Result};
use kelson::sys::mount;
use nix::errno::Errno;

use super::name::shown;

/// Whether an image may set the attribute.
///
/// Marks of overlayfs (and of fuse-overlayfs) are Kelson's to set: a forged one makes an entry lead to another of a lower layer.
/// Of what the host's security modules judge by (`security.selinux`, `security.ima`) an image says nothing; capabilities of
/// programs are as setuid is.
pub(crate) fn may_be_set(name: &[u8]) -> bool {
    let begins = |prefix: &&[u8]| name.starts_with(prefix);
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => ![&b"trusted.overlay."[..], b"user.overlay.", b"user.fuseoverlayfs.", b"security.", b"system."]
            .iter()
            .any(begins),
    }
}

/// Sets an attribute of the file that `file` refers to, O_PATH or not; `false` if it may not or cannot be.
///
/// # Errors
/// Names and values that the kernel does not take. That the file system or the caller has no such attributes is no error.
pub(super) fn set(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<bool> {
    if !may_be_set(name) {
        return Ok(false);
    }
    let c_name =
        CString::new(name).map_err(|_| Error::other(format!("attribute {}: its name has a NUL", shown(name))))?;
    match mount::set_xattr(path_of(file).as_str(), &c_name, value) {
        Ok(()) => Ok(true),
        Err(Errno::ENOTSUP | Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno).doing(|| format!("set attribute {}", shown(name))),
    }
}

/// The file itself: a link of procfs is followed to it and no further, even where it is a link too.
pub(crate) fn path_of(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_labels_are_not_an_images_to_set() {
        for (name, may) in [
            ("user.a", true),
            ("user.overlay", true),
            ("user.overlay.opaque", false),
            ("user.overlay.redirect", false),
            ("user.fuseoverlayfs.opaque", false),
            ("trusted.overlay.metacopy", false),
            ("trusted.overlay.overlay.opaque", false),
            ("trusted.a", true),
            ("security.capability", true),
            ("security.selinux", false),
            ("security.ima", false),
            ("system.posix_acl_access", true),
            ("system.nfs4_acl", false),
        ] {
            assert_eq!(may_be_set(name.as_bytes()), may, "{name}");
        }
    }
}
