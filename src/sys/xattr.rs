//! Extended attributes: setxattr(2), getxattr(2), listxattr(2).

use std::ffi::{CStr, CString};
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

/// Names of the attributes of the file at `path` that the caller may see; a link in its last component is not followed.
///
/// # Errors
/// `ENOENT` if there is no such file; where there are no attributes the list is empty.
pub fn list(path: &Path) -> nix::Result<Vec<CString>> {
    let names = path.with_nix_path(|path| {
        read_grown(|list| {
            // SAFETY: the path ends with NUL, the list has as many bytes as the call is told, and both outlive it.
            Errno::result(unsafe { libc::llistxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) })
        })
    })?;
    names_in(names)
}

/// The value of attribute `name` of the file at `path`; a link in its last component is not followed.
///
/// # Errors
/// `ENODATA` if it has none.
pub fn get(path: &Path, name: &CStr) -> nix::Result<Vec<u8>> {
    path.with_nix_path(|path| {
        read_grown(|value| {
            // SAFETY: path and name end with NUL, the value has as many bytes as the call is told, and all outlive it.
            Errno::result(unsafe {
                libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
            })
        })
    })?
}

/// As [`list`], of what `path` leads to: of the file itself where that is a link of procfs to a descriptor.
pub fn list_following_links(path: &Path) -> nix::Result<Vec<CString>> {
    let names = path.with_nix_path(|path| {
        read_grown(|list| {
            // SAFETY: the path ends with NUL, the list has as many bytes as the call is told, and both outlive it.
            Errno::result(unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) })
        })
    })?;
    names_in(names)
}

/// As [`get`], of what `path` leads to.
pub fn get_following_links(path: &Path, name: &CStr) -> nix::Result<Vec<u8>> {
    path.with_nix_path(|path| {
        read_grown(|value| {
            // SAFETY: path and name end with NUL, the value has as many bytes as the call is told, and all outlive it.
            Errno::result(unsafe {
                libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
            })
        })
    })?
}

/// A list of names, each with its NUL; no list where there are no attributes.
fn names_in(list: nix::Result<Vec<u8>>) -> nix::Result<Vec<CString>> {
    match list {
        Ok(names) => Ok(names
            .split_inclusive(|byte| *byte == 0)
            .filter_map(|name| Some(CStr::from_bytes_with_nul(name).ok()?.to_owned()))
            .collect()),
        Err(Errno::ENOTSUP) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// What `read` fills into a buffer and tells the length of: a larger one where it says `ERANGE`, up to what the kernel has at most
/// (64 KiB: XATTR_LIST_MAX, XATTR_SIZE_MAX).
fn read_grown(read: impl Fn(&mut [u8]) -> nix::Result<isize>) -> nix::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    let length = read(&mut buffer).or_else(|errno| match errno {
        Errno::ERANGE => {
            buffer.resize(64 * 1024, 0);
            read(&mut buffer)
        }
        _ => Err(errno),
    })?;
    buffer.truncate(length as usize);
    Ok(buffer)
}

/// Whether the file at `path` has one of the attributes `names` that the caller may see.
///
/// # Errors
/// `ENOENT` if there is no such file; where there are no attributes the answer is no.
pub fn has_one_of(path: &Path, names: &[&CStr]) -> nix::Result<bool> {
    let mut list = [0u8; 1024];
    let length = path.with_nix_path(|path| {
        // SAFETY: the path ends with NUL, the list has as many bytes as the call is told, and both outlive it.
        Errno::result(unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) })
    })?;
    match length {
        // Names, each with its NUL.
        Ok(length) => {
            let mut found = list[..length as usize].split_inclusive(|byte| *byte == 0);
            Ok(found.any(|found| names.iter().any(|name| name.to_bytes_with_nul() == found)))
        }
        Err(Errno::ERANGE) => names.iter().try_fold(false, |found, name| Ok(found || has(path, name)?)),
        Err(Errno::ENOTSUP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether the file at `path` has attribute `name`.
///
/// # Errors
/// `ENOENT` if there is no such file; where there are no such attributes the answer is no.
fn has(path: &Path, name: &CStr) -> nix::Result<bool> {
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
