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
    /// Groups that have the named user as a member; none for a numeric one.
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
        self.resolve_in(read)
    }

    /// Looks names up in what `read` gives for /etc/passwd and /etc/group; ids need neither.
    pub fn resolve_in(&self, read: impl Fn(&str) -> Result<String>) -> Result<Resolved> {
        match self {
            Self::Ids { uid, gid } => Ok(Resolved { uid: *uid, gid: gid.unwrap_or(0), groups: vec![] }),
            Self::Names { user, group } => {
                let passwd = read("/etc/passwd")?;
                let groups = match read("/etc/group") {
                    Ok(text) => text,
                    Err(error) if group.as_deref().is_some_and(|g| !is_numeric(g)) => return Err(error),
                    Err(_) => String::new(),
                };
                look_up(user, group.as_deref(), &passwd, &groups)
            }
        }
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

fn look_up(user: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<Resolved> {
    let unknown = |what: &str, name: &str, file: &str| {
        Error::other(format!("no {what} {name:?} in the container's {file}")).hint("numeric ids need no entry")
    };
    let number = |text: Option<&str>| text.and_then(|id| parse_id(id).ok());
    let (uid, primary) = if is_numeric(user) {
        (parse_id(user)?, None)
    } else {
        let entry = passwd.lines().find(|line| field(line, 0) == Some(user));
        let entry = entry.ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
        let uid = number(field(entry, 2)).ok_or_else(|| unknown("user id for", user, "/etc/passwd"))?;
        (uid, number(field(entry, 3)))
    };
    let gid = match group {
        None => primary.unwrap_or(0),
        Some(group) if is_numeric(group) => parse_id(group)?,
        Some(group) => {
            let entry = groups.lines().find(|line| field(line, 0) == Some(group));
            number(entry.and_then(|line| field(line, 2))).ok_or_else(|| unknown("group", group, "/etc/group"))?
        }
    };
    let is_member = |line: &&str| field(line, 3).is_some_and(|members| members.split(',').any(|m| m == user));
    let member_of = groups.lines().filter(is_member).filter_map(|line| number(field(line, 2)));
    Ok(Resolved { uid, gid, groups: member_of.collect() })
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

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\nbad:x:-1:0::/:\n";
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
    fn home_is_found_by_id() {
        assert_eq!(home_in(PASSWD, 1000).as_deref(), Some("/home/ann"));
        assert_eq!(home_in(PASSWD, 5), None);
    }
}
