//! [init] Names and home directories out of the container's own /etc/passwd and /etc/group, which the image wrote.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use crate::error::{Context, Error, Result};
use crate::plan::parse_id;

/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Whom a process runs as: ids, or names to be looked up in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSpec {
    Ids { uid: u32, gid: Option<u32> },
    Names { user: String, group: Option<String> },
}

/// What a [`UserSpec`] means in the container.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    pub uid: u32,
    pub gid: u32,
    /// Further groups, which have the user as a member.
    pub groups: Vec<u32>,
}

impl UserSpec {
    /// Reads `UID[:GID]` or `NAME[:GROUP]`; digits are always a number (CVE-2016-3697), within `u32` (CVE-2026-30892).
    pub fn parse(text: &str) -> Result<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if is_numeric(user) && group.is_none_or(is_numeric) {
            return Ok(Self::Ids { uid: parse_id(user)?, gid: group.map(parse_id).transpose()? });
        }
        for part in [Some(user), group].into_iter().flatten() {
            let plausible = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || is_numeric(part);
            if !plausible || part.contains([':', '/', '\n', '\0', ' ']) {
                return Err(Error::usage(format!("invalid user {text:?}")).hint("UID[:GID] or NAME[:GROUP]"));
            }
        }
        Ok(Self::Names { user: user.to_owned(), group: group.map(str::to_owned) })
    }

    /// Looks names up in the files of this process's root; ids need none.
    pub fn resolve(&self) -> Result<Resolved> {
        match self {
            Self::Ids { uid, gid } => Ok(Resolved { uid: *uid, gid: gid.unwrap_or(0), groups: vec![] }),
            Self::Names { user, group } => {
                let passwd = read("/etc/passwd")?;
                look_up(user, group.as_deref(), &passwd, &read_groups(read, group.as_deref())?)
            }
        }
    }

    /// Looks the user up as docker does, in what `read` gives for the image's /etc/passwd and /etc/group: a number is a user of
    /// the image, too (image-spec, config.md, `User`).
    ///
    /// # Errors
    /// A name has no entry, or its file cannot be read. A number needs neither: without an entry its group is 0.
    pub fn resolve_in_image(&self, read: impl Fn(&str) -> Result<String>) -> Result<Resolved> {
        let (user, group) = match self {
            Self::Ids { uid, gid } => (uid.to_string(), gid.map(|gid| gid.to_string())),
            Self::Names { user, group } => (user.clone(), group.clone()),
        };
        let passwd = match read("/etc/passwd") {
            Err(error) if !is_numeric(&user) => return Err(error),
            text => text.unwrap_or_default(),
        };
        look_up_as_docker(&user, group.as_deref(), &passwd, &read_groups(read, group.as_deref())?)
    }
}

/// What `read` gives for /etc/group; nothing if it cannot be read and `group` is no name that has to be in it.
fn read_groups(read: impl Fn(&str) -> Result<String>, group: Option<&str>) -> Result<String> {
    match read("/etc/group") {
        Err(error) if group.is_some_and(|group| !is_numeric(group)) => Err(error),
        text => Ok(text.unwrap_or_default()),
    }
}

fn is_numeric(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// The home directory of `uid`, for HOME; `None` if the files say nothing usable.
pub fn home_of(uid: u32) -> Option<String> {
    let passwd = read("/etc/passwd").ok()?;
    home_in(&passwd, uid)
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    let entry = passwd.lines().find(|line| field(line, 2).and_then(|id| id.parse().ok()) == Some(uid))?;
    field(entry, 5).filter(|home| home.starts_with('/')).map(str::to_owned)
}

fn field(line: &str, index: usize) -> Option<&str> {
    line.split(':').nth(index)
}

/// What of /etc/passwd says who runs.
struct Entry<'a> {
    /// By which groups name their members; empty: no group does.
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn number(text: Option<&str>) -> Option<u32> {
    text.and_then(|id| parse_id(id).ok())
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    Error::other(format!("no {what} {name:?} in the container's {file}")).hint("numeric ids need no entry")
}

fn look_up(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<Resolved> {
    let entry = match is_numeric(user) {
        true => Entry { name: user, uid: parse_id(user)?, gid: 0 },
        false => entry_called(user, passwd)?,
    };
    let gid = group.map_or(Ok(entry.gid), |group| group_id(group, groups))?;
    Ok(Resolved { uid: entry.uid, gid, groups: groups_of(entry.name, groups) })
}

/// As moby/sys/user, GetExecUser: the first entry with the number is the user's, and who is given a group has no further ones,
/// whatever /etc/group says of the user.
fn look_up_as_docker(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<Resolved> {
    let entry = match is_numeric(user) {
        true => entry_of(parse_id(user)?, passwd),
        false => entry_called(user, passwd)?,
    };
    Ok(match group {
        None => Resolved { uid: entry.uid, gid: entry.gid, groups: groups_of(entry.name, groups) },
        Some(group) => Resolved { uid: entry.uid, gid: group_id(group, groups)?, groups: vec![] },
    })
}

fn entry_called<'a>(user: &'a str, passwd: &str) -> Result<Entry<'a>> {
    let line = passwd.lines().find(|line| field(line, 0) == Some(user));
    let line = line.ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
    let uid = number(field(line, 2)).ok_or_else(|| unknown("user id for", user, "/etc/passwd"))?;
    Ok(Entry { name: user, uid, gid: number(field(line, 3)).unwrap_or(0) })
}

fn entry_of(uid: u32, passwd: &str) -> Entry<'_> {
    let line = passwd.lines().find(|line| number(field(line, 2)) == Some(uid)).unwrap_or_default();
    Entry { name: field(line, 0).unwrap_or_default(), uid, gid: number(field(line, 3)).unwrap_or(0) }
}

fn group_id(group: &str, groups: &str) -> Result<u32> {
    if is_numeric(group) {
        return parse_id(group);
    }
    let line = groups.lines().find(|line| field(line, 0) == Some(group));
    number(line.and_then(|line| field(line, 2))).ok_or_else(|| unknown("group", group, "/etc/group"))
}

fn groups_of(name: &str, groups: &str) -> Vec<u32> {
    let is_member = |line: &&str| field(line, 3).is_some_and(|members| members.split(',').any(|m| m == name));
    let lines = groups.lines().filter(|_| !name.is_empty()).filter(is_member);
    lines.filter_map(|line| number(field(line, 2))).collect()
}

/// Reads a file of the image: a FIFO, a device or a huge file is refused and never waited for (CVE-2024-9676).
fn read(path: &str) -> Result<String> {
    let read = || -> Result<String> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let kind = if metadata.file_type().is_fifo() { "a FIFO" } else { "no regular file" };
            return Err(Error::other(format!("it is {kind}")));
        }
        if metadata.len() > MAX_BYTES {
            return Err(Error::other(format!("it has {} bytes, more than {MAX_BYTES}", metadata.len())));
        }
        let mut text = vec![];
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().doing(|| format!("read the container's {path}")).hint(|| "numeric ids need no entry")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\nbad:x:-1:0::/:\n:x:8::::\n\
                          twin:x:1000:7::/:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,ann\nusers:x:100:\n";

    #[test]
    fn digits_are_numbers_and_nothing_else_is() {
        assert_eq!(UserSpec::parse("5").unwrap(), UserSpec::Ids { uid: 5, gid: None });
        assert_eq!(UserSpec::parse("5:6").unwrap(), UserSpec::Ids { uid: 5, gid: Some(6) });
        for bad in ["", "-1", "+0", " 0", "0x1", "4294967296", "4294967295", "1000:4294967296", ":", "1:", ":1", "a b"]
        {
            assert!(UserSpec::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_looked_up_with_their_groups() {
        let ann = look_up("ann", None, PASSWD, GROUP).unwrap();
        assert_eq!(ann, Resolved { uid: 1000, gid: 100, groups: vec![10] });
        assert_eq!(look_up("ann", Some("wheel"), PASSWD, GROUP).unwrap().gid, 10);
        assert_eq!(look_up("7", Some("wheel"), PASSWD, GROUP).unwrap(), Resolved { uid: 7, gid: 10, groups: vec![] });
        for (user, group) in [("nobody", None), ("bad", None), ("ann", Some("none"))] {
            assert!(look_up(user, group, PASSWD, GROUP).is_err(), "{user}");
        }
    }

    #[test]
    fn a_number_is_a_user_of_the_image() {
        let read = |path: &str| Ok(if path == "/etc/passwd" { PASSWD } else { GROUP }.to_owned());
        let resolve = |user: &str| UserSpec::parse(user).unwrap().resolve_in_image(read);
        let seen = |user: &str| resolve(user).map(|found| (found.uid, found.gid, found.groups)).ok();
        for (user, expected) in [
            ("1000", (1000, 100, vec![10])),
            ("ann", (1000, 100, vec![10])),
            ("0", (0, 0, vec![10])),
            // No entry, or one that has no group.
            ("7", (7, 0, vec![])),
            ("8", (8, 0, vec![])),
            // With a group there are no others.
            ("1000:100", (1000, 100, vec![])),
            ("1000:wheel", (1000, 10, vec![])),
            ("ann:100", (1000, 100, vec![])),
            ("ann:users", (1000, 100, vec![])),
            ("7:wheel", (7, 10, vec![])),
        ] {
            assert_eq!(seen(user), Some(expected), "{user}");
        }
        for user in ["nobody", "bad", "ann:none", "7:none"] {
            assert_eq!(seen(user), None, "{user}");
        }
    }

    #[test]
    fn a_number_needs_no_file() {
        let unreadable = |path: &str| Err(Error::other(format!("{path} is a FIFO")));
        let seen = |user: &str| UserSpec::parse(user).unwrap().resolve_in_image(unreadable);
        assert_eq!(seen("1000").unwrap(), Resolved { uid: 1000, gid: 0, groups: vec![] });
        assert_eq!(seen("1000:5").unwrap(), Resolved { uid: 1000, gid: 5, groups: vec![] });
        for user in ["ann", "ann:5", "1000:wheel"] {
            assert!(seen(user).unwrap_err().to_string().contains("is a FIFO"), "{user}");
        }
    }

    #[test]
    fn home_is_found_by_id() {
        assert_eq!(home_in(PASSWD, 1000).as_deref(), Some("/home/ann"));
        assert_eq!(home_in(PASSWD, 5), None);
    }
}
