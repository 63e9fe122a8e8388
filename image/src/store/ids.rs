//! Whose the files of layers are.
//!
//! Root gives them their owners. An ordinary user does so in a user namespace, where /etc/subuid and newuidmap(1) give ids for
//! it; without those everything belongs to the user. The first writer decides, and the store remembers.

use std::fs;
use std::path::Path;

use kelson::error::{Context, Error, Result};
use kelson::image::config::IdMaps;
use kelson::image::store::{FORMAT, Ownership};
use kelson::image::{Store, ids};
use kelson::plan::{self, IdMapping};
use kelson::sandbox::parent::map_ids;
use kelson::sys::process::{CloneArgs, Forked, SingleThreaded, clone, exit_now};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, getpid, pipe2};

use super::{Writer, as_json, make_directory};
use crate::unpack::{Ids, Limits, Options};

/// One map of [`Ownership`].
type Ranges = Vec<(u32, u32, u32)>;

/// What is asked of a store that is made now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary user is root in it.
    Usual,
    /// All files are the caller's.
    Squash,
    /// An ordinary user has the same id in it as outside.
    KeepIds,
}

/// Decides whose files the store has, or reads what was decided, and makes this process one that can write them: that may put it
/// into a user namespace of its own. It must have no second thread yet.
///
/// # Errors
/// The store is another user's, or the ids that it was made with are not this caller's any more.
pub fn enter(store: &Store, kind: Kind) -> Result<Ownership> {
    let here = (current("uid_map")?, current("gid_map")?);
    let known = store.ownership()?;
    if kind == Kind::Squash && known.as_ref().is_some_and(|known| !known.squash) {
        return Err(Error::usage("--squash: the store has files with owners already").hint("--store DIR makes another"));
    }
    let ownership = match known {
        Some(known) => known,
        None => decide(here.clone(), kind)?,
    };
    if ownership.squash {
        return match (&ownership.uid, &ownership.gid) == (&own().0, &own().1) {
            true => Ok(ownership),
            false => Err(another(store)),
        };
    }
    if (&ownership.uid, &ownership.gid) != (&here.0, &here.1) {
        let maps = plan::IdMaps { uid: mappings(&ownership.uid), gid: mappings(&ownership.gid) };
        enter_namespace(maps).doing(|| "make a user namespace for the files of images")?;
    }
    Ok(ownership)
}

/// [`enter`], for who reads what a container wrote: as the root of its user namespace, who may read everything.
///
/// # Errors
/// As [`enter`].
pub fn enter_as_root(store: &Store, kind: Kind) -> Result<Ownership> {
    let ownership = enter(store, kind)?;
    // Else this process has made a namespace in which it may do everything, whoever it is there.
    if ownership.squash && !geteuid().is_root() {
        let (uid, gid) = own();
        let maps = plan::IdMaps { uid: mappings(&uid), gid: mappings(&gid) };
        enter_namespace(maps).doing(|| "make a user namespace to read files in")?;
    }
    Ok(ownership)
}

/// [`enter_as_root`], unless this process has entered the container's own user namespace.
///
/// # Errors
/// As [`enter`]; the container has other ids than the store's files.
pub fn enter_of_container(store: &Store, kind: Kind, has_entered: bool) -> Result<Ownership> {
    if !has_entered {
        return enter_as_root(store, kind);
    }
    let known = store.ownership()?.ok_or_else(|| Error::other("the store is of nobody yet"))?;
    match (&known.uid, &known.gid) == (&current("uid_map")?, &current("gid_map")?) {
        true => Ok(known),
        false => Err(another(store)),
    }
}

fn another(store: &Store) -> Error {
    Error::other(format!("the store {} was made with other user ids than this caller has", store.root.display()))
}

/// The map in which the caller's ids are 0, and nobody else has one.
fn own() -> (Ranges, Ranges) {
    (vec![(0, geteuid().as_raw(), 1)], vec![(0, getegid().as_raw(), 1)])
}

fn decide(here: (Ranges, Ranges), kind: Kind) -> Result<Ownership> {
    let squash = kind == Kind::Squash;
    let of = |(uid, gid), squash, user_xattr| Ownership { format: FORMAT, uid, gid, squash, user_xattr };
    if geteuid().is_root() {
        // trusted.* attributes take CAP_SYS_ADMIN in the initial user namespace (xattr(7)).
        let is_initial = here.0 == [(0, 0, u32::MAX)];
        return Ok(of(if squash { own() } else { here }, squash, !is_initial));
    }
    let IdMaps { uid, gid } = if kind == Kind::KeepIds { ids::kept() } else { ids::of_caller() };
    match squash || uid.len() < 2 || gid.len() < 2 {
        true => {
            if !squash {
                log::warn!(
                    "the files of images will all be yours: there is no newuidmap, or /etc/subuid and /etc/subgid have no ids for you"
                );
            }
            Ok(of(own(), true, true))
        }
        false => Ok(of((uid, gid), false, true)),
    }
}

/// The map of the user namespace that this process is in.
fn current(file: &str) -> Result<Ranges> {
    let path = Path::new("/proc/self").join(file);
    let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
    let numbers = |line: &str| {
        let mut words = line.split_ascii_whitespace().map_while(|word| word.parse().ok());
        Some((words.next()?, words.next()?, words.next()?))
    };
    Ok(text.lines().filter_map(numbers).collect())
}

fn mappings(ranges: &Ranges) -> Vec<IdMapping> {
    ranges.iter().map(|&(container, host, size)| IdMapping { container, host, size }).collect()
}

/// Puts this process into a new user namespace. A child that stays outside gives it the ids.
fn enter_namespace(maps: plan::IdMaps) -> Result<()> {
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
fn map_from_outside(
    parent: Pid,
    maps: &plan::IdMaps,
    rootless: bool,
    mut ready: fs::File,
    mut report: fs::File,
) -> i32 {
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
        let text = as_json(&writer.ownership)?;
        let written = fs::File::create_new(&draft).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &text)?;
            file.sync_all()
        });
        written.doing(|| format!("write {}", draft.display()))?;
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
