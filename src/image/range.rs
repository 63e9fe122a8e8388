//! Users of its own for each container of root's (`--userns auto`): a range of ids that no other container or bundle has.
//!
//! ```text
//!   /run/kelson-ids/            flock(2): who looks for a range holds it until the link is made
//!   /run/kelson-ids/DEV-INODE   link to `UID:GID:SIZE:/DIR`: the range is that container's or bundle's as long as its directory
//!                               DIR (with that number) is there
//! ```
//!
//! The ids are those that /etc/subuid and /etc/subgid give to `kelson`, else [`FREE`]. What they give to `containers` is
//! podman's, which keeps a book of its own about who has which.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::config::IdMaps;
use super::ids::ranges_in;
use crate::error::{Context, Error, Result};

const PLACE: &str = "/run/kelson-ids";
const NAME: &str = "kelson";
/// First id and number of those that nobody hands out by convention: above systemd's containers and below its foreign ids, with
/// no sign in 32 bits (systemd, UIDS-GIDS.md).
const FREE: (u32, u32) = (0x7000_0000, 0x0ffe_0000);
/// How many ids a container has: as many as an image's users can need, nobody (65534) among them.
const SIZE: u32 = 1 << 16;

/// A range that is nobody else's while this lives, and then that of the directory which got it.
#[derive(Debug)]
pub struct Claim {
    uid: u32,
    gid: u32,
    lock: Option<Flock<File>>,
}

impl Claim {
    /// Looks for a free range.
    ///
    /// # Errors
    /// All are taken.
    pub fn take() -> Result<Self> {
        let doing = || format!("lock {PLACE}");
        DirBuilder::new().recursive(true).mode(0o700).create(PLACE).doing(|| format!("make {PLACE}"))?;
        let mut file = File::open(PLACE).doing(doing)?;
        let lock = loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => break lock,
                Err((unlocked, Errno::EINTR)) => file = unlocked,
                Err((_, errno)) => return Err(errno).doing(doing),
            }
        };
        Ok(Self { lock: Some(lock), ..Self::find(taken(true)?)? })
    }

    /// The range that [`Claim::take`] would find; nothing is made.
    pub fn look() -> Result<Self> {
        Self::find(taken(false)?)
    }

    fn find(taken: Vec<Taken>) -> Result<Self> {
        let free = |file: &str, of: fn(&Taken) -> u32| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let pool = ranges_in(&text, Some(NAME), None);
            let mut taken: Vec<_> = taken.iter().map(|range| (of(range), range.size)).collect();
            let pool = match pool.is_empty() {
                false => pool,
                true => {
                    taken.extend(ranges_in(&text, None, None));
                    vec![FREE]
                }
            };
            first_free(&pool, taken).ok_or_else(|| {
                Error::other(format!("--userns auto: no {SIZE} ids in a row are free: other containers have them"))
                    .hint(format!("a line {NAME}:FIRST:COUNT in {file} gives more, and kelson delete gives some back"))
            })
        };
        Ok(Self {
            uid: free("/etc/subuid", |range| range.uid)?,
            gid: free("/etc/subgid", |range| range.gid)?,
            lock: None,
        })
    }

    pub fn maps(&self) -> IdMaps {
        IdMaps { uid: vec![(0, self.uid, SIZE)], gid: vec![(0, self.gid, SIZE)] }
    }

    /// Makes the range that of the directory `dir`, by the link [`link_of`] it.
    pub fn settle(self, dir: &Path, link: &Path) -> Result<()> {
        let Self { uid, gid, lock } = self;
        // One of a directory that had the same number and is gone.
        let _ = fs::remove_file(link);
        symlink(format!("{uid}:{gid}:{SIZE}:{}", dir.display()), link)
            .doing(|| format!("take ids for the container: {}", link.display()))?;
        drop(lock);
        Ok(())
    }
}

/// Where it is told which range the directory `dir` has.
pub fn link_of(dir: &Path) -> Result<PathBuf> {
    let info = fs::metadata(dir).doing(|| format!("look at {}", dir.display()))?;
    Ok(Path::new(PLACE).join(name_of(&info)))
}

fn name_of(info: &fs::Metadata) -> String {
    format!("{:x}-{:x}", info.dev(), info.ino())
}

/// A range of somebody who is there.
struct Taken {
    uid: u32,
    gid: u32,
    size: u32,
}

/// All of them. Whoever holds the lock removes links of those that are gone: without it the next one could have the name.
fn taken(is_locked: bool) -> Result<Vec<Taken>> {
    let doing = || format!("read {PLACE}");
    let entries = match fs::read_dir(PLACE) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.doing(doing)?,
    };
    let mut all = vec![];
    for entry in entries {
        let path = entry.doing(doing)?.path();
        let target = match fs::read_link(&path) {
            // Its container was deleted just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            target => target.doing(|| format!("read {}", path.display()))?,
        };
        let (range, dir) = target.to_str().and_then(parse).ok_or_else(|| {
            Error::other(format!("{}: {target:?} tells no range of ids", path.display()))
                .hint("is it a newer Kelson's?")
        })?;
        match fs::metadata(dir).is_ok_and(|info| path.file_name().is_some_and(|name| name == &*name_of(&info))) {
            true => all.push(range),
            // Nothing depends on it.
            false if is_locked => drop(fs::remove_file(&path)),
            false => {}
        }
    }
    Ok(all)
}

/// `UID:GID:SIZE:/DIR`
fn parse(target: &str) -> Option<(Taken, &Path)> {
    let mut parts = target.splitn(4, ':');
    let mut number = || parts.next()?.parse().ok();
    let range = Taken { uid: number()?, gid: number()?, size: number()? };
    Some((range, Path::new(parts.next()?)))
}

/// The first of [`SIZE`] ids in a row that are in one of `pool`, and none of them in `taken`.
fn first_free(pool: &[(u32, u32)], mut taken: Vec<(u32, u32)>) -> Option<u32> {
    taken.sort_unstable();
    let wide = |(first, count): (u32, u32)| (u64::from(first), u64::from(first) + u64::from(count));
    pool.iter().find_map(|range| {
        let (mut first, end) = wide(*range);
        for (taken, end) in taken.iter().copied().map(wide) {
            if taken < first + u64::from(SIZE) && first < end {
                first = end;
            }
        }
        (first + u64::from(SIZE) <= end).then(|| u32::try_from(first).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap() {
        const A: u32 = 100_000;
        for (pool, taken, free) in [
            (vec![(A, SIZE)], vec![], Some(A)),
            (vec![(A, SIZE - 1)], vec![], None),
            (vec![(A, SIZE)], vec![(A + SIZE - 1, 1)], None),
            (vec![(A, 2 * SIZE)], vec![(A, SIZE)], Some(A + SIZE)),
            (vec![(A, 2 * SIZE)], vec![(A + SIZE, SIZE)], Some(A)),
            (vec![(A, 3 * SIZE)], vec![(A + 2 * SIZE, SIZE), (A, SIZE)], Some(A + SIZE)),
            (vec![(A, 3 * SIZE)], vec![(A, 10), (A + 5, 10)], Some(A + 15)),
            (vec![(A, 10), (2 * A, SIZE)], vec![(0, 1000)], Some(2 * A)),
            (vec![(u32::MAX - SIZE, SIZE)], vec![(u32::MAX, 0)], Some(u32::MAX - SIZE)),
            (vec![(u32::MAX, u32::MAX)], vec![], Some(u32::MAX)),
        ] {
            assert_eq!(first_free(&pool, taken.clone()), free, "{pool:?} {taken:?}");
        }
    }

    #[test]
    fn links_tell_a_range_and_a_directory() {
        let (range, dir) = parse("1:2:3:/run/a:b").unwrap();
        assert_eq!((range.uid, range.gid, range.size, dir), (1, 2, 3, Path::new("/run/a:b")));
        for text in ["", "1:2:3", "a:2:3:/x", "1:2:/x"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
