//! Extended attributes: setxattr(2), getxattr(2).

use std::ffi::CStr;
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;

/// Sets attribute `name` of the file at `path` to an empty value.
///
/// # Errors
/// `ENOENT`; `EPERM` and `ENOTSUP` where the caller or the file system has no such attributes.
pub fn set_empty(path: &Path, name: &CStr) -> nix::Result<()> {
    path.with_nix_path(|path| {
        // SAFETY: both strings end with NUL and outlive the call; a value of length 0 may be null.
        Errno::result(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), std::ptr::null(), 0, 0) })
    })?
    .map(drop)
}

/// Whether the file at `path` has attribute `name`.
///
/// # Errors
/// `ENOENT` if there is no such file; where there are no such attributes the answer is no.
pub fn has(path: &Path, name: &CStr) -> nix::Result<bool> {
    let length = path.with_nix_path(|path| {
        // SAFETY: both strings end with NUL and outlive the call; size 0 asks for the length only, so null is not written.
        Errno::result(unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) })
    })?;
    match length {
        Ok(_) => Ok(true),
        Err(Errno::ENODATA | Errno::ENOTSUP | Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno),
    }
}
