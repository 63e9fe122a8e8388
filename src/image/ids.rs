//! Users of the container of an ordinary user: the caller is root, and the subordinate ids are the others (subuid(5)).

use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::config::IdMaps;

/// What the caller's containers may map; the caller alone where the host gives no subordinate ids, or lacks newuidmap(1).
pub fn of_caller() -> IdMaps {
    let (uid, gid) = (geteuid(), getegid());
    let has_helpers = ["newuidmap", "newgidmap"].iter().all(|program| is_in_path(program));
    let (uids, gids) = match has_helpers {
        true => (subordinate("/etc/subuid"), subordinate("/etc/subgid")),
        false => (vec![], vec![]),
    };
    // One without the other is of no use: files belong to both.
    match uids.is_empty() || gids.is_empty() {
        true => only_caller(),
        false => IdMaps { uid: map(uid.as_raw(), &uids), gid: map(gid.as_raw(), &gids) },
    }
}

/// What the caller's containers may map where the caller's ids stay what they are, and the subordinate ones are all others from 0
/// on (podman's `keep-id`).
pub fn kept() -> IdMaps {
    let IdMaps { uid, gid } = of_caller();
    IdMaps { uid: keep(geteuid().as_raw(), &uid[1..]), gid: keep(getegid().as_raw(), &gid[1..]) }
}

/// `caller` is itself, and the ids of `others` come before and after.
fn keep(caller: u32, others: &[(u32, u32, u32)]) -> Vec<(u32, u32, u32)> {
    let (mut next, mut all) = (0u32, vec![(caller, caller, 1)]);
    for (_, first, count) in others {
        // Up to the caller, and what is left of the range after.
        let before = if next < caller { (*count).min(caller - next) } else { 0 };
        all.push((next, *first, before));
        next += before;
        if next == caller {
            next += 1;
        }
        let after = (*count - before).min(u32::MAX - next);
        all.push((next, first + before, after));
        next += after;
    }
    all.retain(|(_, _, count)| *count > 0);
    all
}

/// The caller as root, and nobody else.
pub fn only_caller() -> IdMaps {
    let (uid, gid): (Uid, Gid) = (geteuid(), getegid());
    IdMaps { uid: map(uid.as_raw(), &[]), gid: map(gid.as_raw(), &[]) }
}

/// The caller is 0, and the ranges follow from 1 on.
fn map(caller: u32, ranges: &[(u32, u32)]) -> Vec<(u32, u32, u32)> {
    let mut next = 1u32;
    let mut all = vec![(0, caller, 1)];
    for (first, count) in ranges {
        let count = (*count).min(u32::MAX - next);
        all.push((next, *first, count));
        next += count;
    }
    all.retain(|(_, _, count)| *count > 0);
    all
}

/// What passwd(5) calls the user.
fn name_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// First id and number of the ranges that `file` (subuid(5), subgid(5)) gives the caller, by name or number.
pub fn subordinate(file: &str) -> Vec<(u32, u32)> {
    let uid = geteuid().as_raw();
    // Not getpwuid(3): a static glibc loads libraries for it.
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ranges_in(&std::fs::read_to_string(file).unwrap_or_default(), name_in(&passwd, uid), Some(uid))
}

/// The ranges that subuid(5) gives who has this name or number; without either, everybody.
pub(super) fn ranges_in(text: &str, name: Option<&str>, uid: Option<u32>) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let who = fields.next()?;
            let is_meant = Some(who) == name || uid.is_some_and(|uid| who.parse() == Ok(uid));
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (is_meant || name.is_none() && uid.is_none()).then_some(range)
        })
        .collect()
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "root:1:2\nann:100000:65536\n# x\n1000:200000:10\nbad:x:y\nann:\n";
        assert_eq!(ranges_in(text, Some("ann"), Some(1000)), [(100_000, 65_536), (200_000, 10)]);
        assert_eq!(ranges_in(text, None, Some(5)), []);
        assert_eq!(ranges_in(text, None, None), [(1, 2), (100_000, 65_536), (200_000, 10)]);
    }

    #[test]
    fn names_are_found_by_number() {
        let passwd = "root:x:0:0::/:/bin/sh\nbad\nann:x:1000:100:Ann:/:\n";
        assert_eq!(
            (name_in(passwd, 1000), name_in(passwd, 100), name_in(passwd, 0)),
            (Some("ann"), None, Some("root"))
        );
    }

    #[test]
    fn the_caller_keeps_its_id_among_the_ranges() {
        assert_eq!(keep(1000, &[]), [(1000, 1000, 1)]);
        let whole = [(1000, 1000, 1), (0, 100_000, 1000), (1001, 101_000, 64_536)];
        assert_eq!(keep(1000, &[(1, 100_000, 65_536)]), whole);
        let parts = [(3, 3, 1), (0, 10, 2), (2, 20, 1), (4, 21, 4), (8, 30, 5)];
        assert_eq!(keep(3, &[(1, 10, 2), (3, 20, 5), (8, 30, 5)]), parts);
        assert_eq!(keep(5, &[(1, 10, 2)]), [(5, 5, 1), (0, 10, 2)]);
    }

    #[test]
    fn the_caller_is_root_and_the_ranges_follow() {
        assert_eq!(map(1000, &[(100_000, 10), (200_000, 5)]), [(0, 1000, 1), (1, 100_000, 10), (11, 200_000, 5)]);
        assert_eq!(map(1000, &[]), [(0, 1000, 1)]);
        assert_eq!(map(1000, &[(1, u32::MAX)]), [(0, 1000, 1), (1, 1, u32::MAX - 1)]);
    }
}
