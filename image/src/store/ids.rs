//! Whose the files of layers are.
//!
//! Root gives them their owners. An ordinary user does so in a user namespace, where /etc/subuid and newuidmap(1) give ids for
//! it; without those everything belongs to the user. The first writer decides, and the store remembers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kelson::error::{Context, Error, Result};
use kelson::image::Store;
use kelson::image::store::{FORMAT, Ownership};
use kelson::plan::{IdMapping, IdMaps};
use kelson::sandbox::parent::map_ids;
use kelson::sys::process::{CloneArgs, Forked, SingleThreaded, clone, exit_now};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, getpid, pipe2};

use super::{Writer, make_directory};
use crate::unpack::{Ids, Limits, Options};

/// One map of [`Ownership`].
type Ranges = Vec<[u32; 3]>;

/// Decides whose files the store has, or reads what was decided, and makes this process one that can write them: that may put it
/// into a user namespace of its own. It must have no second thread yet.
///
/// # Errors
/// The store is another user's, or the ids that it was made with are not this caller's any more.
pub fn enter(store: &Store, squash: bool) -> Result<Ownership> {
    let here = (current("uid_map")?, current("gid_map")?);
    let known = store.ownership()?;
    if squash && known.as_ref().is_some_and(|known| !known.squash) {
        return Err(Error::usage("--squash: the store has files with owners already").hint("--store DIR makes another"));
    }
    let ownership = match known {
        Some(known) => known,
        None => decide(here.clone(), squash)?,
    };
    if ownership.squash {
        return match (&ownership.uid, &ownership.gid) == (&own().0, &own().1) {
            true => Ok(ownership),
            false => Err(another(store)),
        };
    }
    if (&ownership.uid, &ownership.gid) != (&here.0, &here.1) {
        let maps = IdMaps { uid: mappings(&ownership.uid), gid: mappings(&ownership.gid) };
        enter_namespace(maps).doing(|| "make a user namespace for the files of images")?;
    }
    Ok(ownership)
}

fn another(store: &Store) -> Error {
    Error::other(format!("the store {} was made with other user ids than this caller has", store.root.display()))
}

/// The map in which the caller's ids are 0, and nobody else has one.
fn own() -> (Ranges, Ranges) {
    (vec![[0, geteuid().as_raw(), 1]], vec![[0, getegid().as_raw(), 1]])
}

fn decide(here: (Ranges, Ranges), squash: bool) -> Result<Ownership> {
    let of = |(uid, gid), squash, user_xattr| Ownership { format: FORMAT, uid, gid, squash, user_xattr };
    if geteuid().is_root() {
        // trusted.* attributes take CAP_SYS_ADMIN in the initial user namespace (xattr(7)).
        let is_initial = here.0 == [[0, 0, u32::MAX]];
        return Ok(of(if squash { own() } else { here }, squash, !is_initial));
    }
    let has_helpers = has_program("newuidmap") && has_program("newgidmap");
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let maps = (map("/etc/subuid", uid, uid)?, map("/etc/subgid", uid, gid)?);
    match squash || !has_helpers || maps.0.len() < 2 || maps.1.len() < 2 {
        true => {
            if !squash {
                log::warn!(
                    "the files of images will all be yours: there is no newuidmap, or /etc/subuid and /etc/subgid have no ids for you"
                );
            }
            Ok(of(own(), true, true))
        }
        false => Ok(of(maps, false, true)),
    }
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| {
        fs::metadata(directory.join(name)).is_ok_and(|info| info.is_file() && info.permissions().mode() & 0o111 != 0)
    })
}

/// The caller's id as 0, and from 1 on what `path` (subuid(5)) gives the user.
fn map(path: &str, user: u32, own: u32) -> Result<Ranges> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.doing(|| format!("read {path}"))?,
    };
    let names = names_of(user, &fs::read_to_string("/etc/passwd").unwrap_or_default());
    Ok(map_of(&text, &names, own))
}

fn map_of(text: &str, names: &[String], own: u32) -> Ranges {
    let mut ranges = vec![[0, own, 1]];
    let mut next = 1u64;
    for line in text.lines() {
        let mut fields = line.split(':').map(str::trim);
        let (Some(name), Some(first), Some(count)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (Ok(first), Ok(count)) = (first.parse::<u32>(), count.parse::<u32>()) else { continue };
        if count > 0 && names.iter().any(|other| other == name) && next + u64::from(count) <= u64::from(u32::MAX) {
            ranges.push([next as u32, first, count]);
            next += u64::from(count);
        }
    }
    ranges
}

/// What a line of subuid(5) may call the user: its names in passwd(5), and its number.
fn names_of(user: u32, passwd: &str) -> Vec<String> {
    let named = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    });
    named.chain([user.to_string()]).collect()
}

/// The map of the user namespace that this process is in.
fn current(file: &str) -> Result<Ranges> {
    let path = Path::new("/proc/self").join(file);
    let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
    let numbers = |line: &str| {
        let mut words = line.split_ascii_whitespace().map_while(|word| word.parse().ok());
        Some([words.next()?, words.next()?, words.next()?])
    };
    Ok(text.lines().filter_map(numbers).collect())
}

fn mappings(ranges: &Ranges) -> Vec<IdMapping> {
    ranges.iter().map(|&[container, host, size]| IdMapping { container, host, size }).collect()
}

/// Puts this process into a new user namespace. A child that stays outside gives it the ids.
fn enter_namespace(maps: IdMaps) -> Result<()> {
    let proof = SingleThreaded::prove()?;
    let rootless = !geteuid().is_root();
    let (ready, has_entered) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (failure, report) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let parent = getpid();
    let Forked::Parent { pid, .. } = clone(&proof, &CloneArgs::default())? else {
        drop(has_entered);
        exit_now(map_from_outside(parent, &maps, rootless, ready.into(), report.into()));
    };
    drop((ready, report));
    let entered = unshare(CloneFlags::CLONE_NEWUSER);
    if entered.is_ok() {
        // One byte: now. None, because this process ended or could not enter: never.
        nix::unistd::write(&has_entered, b"1")?;
    }
    drop(has_entered);
    let mut said = vec![];
    std::io::Read::read_to_end(&mut fs::File::from(failure), &mut said)?;
    let ended = loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Err(nix::errno::Errno::EINTR) => {}
            ended => break ended?,
        }
    };
    entered.hint(|| "may this user make user namespaces? (sysctl user.max_user_namespaces, AppArmor)")?;
    match ended {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ => Err(Error::decode(&said)).hint(|| "--squash makes a store whose files are all yours"),
    }
}

/// [the child outside] Gives the exit code.
fn map_from_outside(parent: Pid, maps: &IdMaps, rootless: bool, mut ready: fs::File, mut report: fs::File) -> i32 {
    let mut byte = [0];
    if !matches!(std::io::Read::read(&mut ready, &mut byte), Ok(1)) {
        return 1;
    }
    match map_ids(parent, maps, rootless) {
        Ok(()) => 0,
        Err(error) => {
            // Where nobody reads, the code tells enough.
            let _ = std::io::Write::write_all(&mut report, &error.encode());
            1
        }
    }
}

/// How layers are unpacked in a store of this kind.
pub fn options(ownership: &Ownership, limits: &Limits) -> Options {
    let ids = if ownership.squash { Ids::Squash } else { Ids::AsGiven };
    Options { user_xattr: ownership.user_xattr, ids, limits: limits.clone() }
}

/// Writes down what was decided, if nobody did before.
///
/// # Errors
/// Another writer, who came at the same time, decided otherwise.
pub fn remember(writer: &Writer) -> Result<()> {
    let path = writer.store.root.join("ids");
    if !path.exists() {
        make_directory(&writer.store.root)?;
        let work = writer.work("I")?;
        let draft = work.new_file();
        let mut text = serde_json::to_vec(&writer.ownership).map_err(|error| Error::other(error.to_string()))?;
        text.push(b'\n');
        fs::write(&draft, text).doing(|| format!("write {}", draft.display()))?;
        // Unlike a rename this replaces nothing.
        match fs::hard_link(&draft, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            linked => linked.doing(|| format!("write {}", path.display()))?,
        }
    }
    match writer.store.ownership()? {
        Some(known) if known == writer.ownership => Ok(()),
        _ => Err(another(&writer.store)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_name_and_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nalso:x:1000:1::/:/bin/sh\nbroken\n";
        assert_eq!(names_of(1000, passwd), ["me", "also", "1000"]);
        assert_eq!(names_of(7, passwd), ["7"]);
    }

    #[test]
    fn ids_follow_one_another_from_1() {
        let names = ["me".to_owned(), "1000".to_owned()];
        let text = "other:5:5\nme:100000:65536\nbroken:1\n1000:300000:10\nme:x:1\nme:1:0\nme:1:4294967295\n";
        assert_eq!(map_of(text, &names, 1000), [[0, 1000, 1], [1, 100_000, 65536], [65537, 300_000, 10]]);
        assert_eq!(map_of("", &names, 1000), [[0, 1000, 1]]);
    }

    #[test]
    fn a_program_is_looked_for_where_programs_are() {
        assert!(has_program("sh"));
        assert!(!has_program("kelson-no-such-program"));
    }
}
