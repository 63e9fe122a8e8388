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
    ranges_in(&std::fs::read_to_string(file).unwrap_or_default(), name_in(&passwd, uid), uid)
}

fn ranges_in(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let who = fields.next()?;
            let is_callers = Some(who) == name || who.parse() == Ok(uid);
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            is_callers.then_some(range)
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
        assert_eq!(ranges_in(text, Some("ann"), 1000), [(100_000, 65_536), (200_000, 10)]);
        assert_eq!(ranges_in(text, None, 5), []);
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
    fn the_caller_is_root_and_the_ranges_follow() {
        assert_eq!(map(1000, &[(100_000, 10), (200_000, 5)]), [(0, 1000, 1), (1, 100_000, 10), (11, 200_000, 5)]);
        assert_eq!(map(1000, &[]), [(0, 1000, 1)]);
        assert_eq!(map(1000, &[(1, u32::MAX)]), [(0, 1000, 1), (1, 1, u32::MAX - 1)]);
    }
}
