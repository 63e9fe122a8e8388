//! Names of entries: which are refused, and how they are shown.

use kelson::error::{Error, Result};

/// As many bytes as the kernel takes in one path, its NUL included (PATH_MAX).
pub(super) const MAX_PATH: usize = 4095;
/// Of one component (NAME_MAX).
const MAX_COMPONENT: usize = 255;
/// Directories below one another.
pub(super) const MAX_DEPTH: usize = 256;

/// The components of an entry's name; none for the root itself.
///
/// # Errors
/// Names that are empty, absolute, too long or too deep, or have `..` or NUL.
pub(super) fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    let refused = |why: String| Err(Error::other(why));
    if name.is_empty() {
        return refused("it has no name".into());
    }
    if name.contains(&0) {
        return refused("its name has a NUL".into());
    }
    if name[0] == b'/' {
        return refused("its name is absolute".into());
    }
    if name.len() > MAX_PATH {
        return refused(format!("its name has more than {MAX_PATH} bytes"));
    }
    let components = plain(name);
    if components.contains(&&b".."[..]) {
        return refused("its name has \"..\"".into());
    }
    if components.iter().any(|component| component.len() > MAX_COMPONENT) {
        return refused(format!("a component of its name has more than {MAX_COMPONENT} bytes"));
    }
    if components.len() > MAX_DEPTH {
        return refused(format!("it is more than {MAX_DEPTH} directories deep"));
    }
    Ok(components)
}

/// The components of any path, without those that say nothing.
pub(super) fn plain(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty() && *component != b".").collect()
}

/// A name as an error shows it: quoted, on one line, not longer than a person reads.
pub(super) fn shown(name: &[u8]) -> String {
    const MOST: usize = 200;
    match name.len() > MOST {
        true => format!("{:?}… ({} bytes)", String::from_utf8_lossy(&name[..MOST]), name.len()),
        false => format!("{:?}", String::from_utf8_lossy(name)),
    }
}
