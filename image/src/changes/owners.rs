//! Whose files are in the image, where the container's ids are others outside than inside and its layers are seen through them.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use kelson::image::config::IdMaps;

use super::file::{self, Meta};

/// The user namespace whose ids the files have; `None`: they have the image's.
#[derive(Clone, Debug, Default)]
pub struct Owners(pub Option<IdMaps>);

impl Owners {
    /// [`Meta::of`] with the owner that the image knows.
    pub fn meta(&self, file: BorrowedFd<'_>) -> nix::Result<Meta> {
        let meta = Meta::of(file)?;
        Ok(match &self.0 {
            Some(ids) => Meta { uid: inside(&ids.uid, meta.uid), gid: inside(&ids.gid, meta.gid), ..meta },
            None => meta,
        })
    }

    /// [`file::attributes`] as the image has them: capabilities of a program and lists of who may do what name ids too.
    pub fn attributes(&self, file: &impl AsFd) -> nix::Result<Vec<(CString, Vec<u8>)>> {
        let mut all = file::attributes(file)?;
        if let Some(ids) = &self.0 {
            for (name, value) in &mut all {
                match name.to_bytes() {
                    b"security.capability" => capability(ids, value),
                    b"system.posix_acl_access" | b"system.posix_acl_default" => acl(ids, value),
                    _ => {}
                }
            }
        }
        Ok(all)
    }
}

/// The id inside; one that is not mapped stays: nobody in the container can have made it.
fn inside(map: &[(u32, u32, u32)], id: u32) -> u32 {
    let of = |(container, host, size): &(u32, u32, u32)| {
        id.checked_sub(*host).filter(|nth| nth < size).map(|nth| container + nth)
    };
    map.iter().find_map(of).unwrap_or(id)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// A capability of the container's root is one of root without a namespace (struct vfs_ns_cap_data, linux/capability.h).
fn capability(ids: &IdMaps, value: &mut Vec<u8>) {
    const REVISION: u32 = 0xff00_0000;
    const WITH_ROOT: u32 = 0x0300_0000;
    const WITHOUT_ROOT: u32 = 0x0200_0000;
    let (Some(magic), Some(root)) = (value.get(..4).and_then(number), value.get(20..24).and_then(number)) else {
        return;
    };
    if magic & REVISION != WITH_ROOT {
        return;
    }
    match inside(&ids.uid, root) {
        0 => {
            value.truncate(20);
            value[..4].copy_from_slice(&(magic & !REVISION | WITHOUT_ROOT).to_le_bytes());
        }
        root => value[20..].copy_from_slice(&root.to_le_bytes()),
    }
}

/// Entries of tag, permissions and id after a version (linux/posix_acl_xattr.h).
fn acl(ids: &IdMaps, value: &mut [u8]) {
    const USER: u8 = 2;
    const GROUP: u8 = 8;
    for entry in value.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
        let map = match entry[0] {
            USER => &ids.uid,
            GROUP => &ids.gid,
            _ => continue,
        };
        if let Some(id) = number(&entry[4..]) {
            entry[4..].copy_from_slice(&inside(map, id).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> IdMaps {
        IdMaps { uid: vec![(0, 100_000, 1000), (5000, 300_000, 10)], gid: vec![(0, 200_000, 1000)] }
    }

    #[test]
    fn ids_are_those_inside() {
        let map = ids().uid;
        let given = [100_000, 100_999, 101_000, 300_003, 0, 7];
        assert_eq!(given.map(|id| inside(&map, id)), [0, 999, 101_000, 5003, 0, 7]);
    }

    #[test]
    fn capabilities_of_the_containers_root_are_roots() {
        let with = |magic: u32, root: Option<u32>| {
            let mut value = [&magic.to_le_bytes()[..], &[7; 16]].concat();
            value.extend(root.into_iter().flat_map(u32::to_le_bytes));
            value
        };
        for (given, expected) in [
            (with(0x0300_0001, Some(100_000)), with(0x0200_0001, None)),
            (with(0x0300_0000, Some(300_001)), with(0x0300_0000, Some(5001))),
            (with(0x0200_0001, None), with(0x0200_0001, None)),
            (vec![1, 2], vec![1, 2]),
        ] {
            let mut value = given;
            capability(&ids(), &mut value);
            assert_eq!(value, expected);
        }
    }

    #[test]
    fn lists_of_access_name_ids_inside() {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[4, 0], &id.to_le_bytes()].concat();
        let list = |entries: [(u16, u32); 4]| {
            [2, 0, 0, 0]
                .into_iter()
                .chain(entries.into_iter().flat_map(|(tag, id)| entry(tag, id)))
                .collect::<Vec<u8>>()
        };
        let mut value = list([(1, u32::MAX), (2, 100_005), (8, 200_006), (4, u32::MAX)]);
        acl(&ids(), &mut value);
        assert_eq!(value, list([(1, u32::MAX), (2, 5), (8, 6), (4, u32::MAX)]));
    }
}
