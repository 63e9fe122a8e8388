//! [parent] Layers that are kept: one container at a time writes to one.
//!
//! Two mounts with one upper directory are undefined to overlayfs, which notices it only with `index=on`. Nothing of Kelson stays
//! beside a container to hold a lock, so the layer's record names the last one, and whether that still runs is asked of its
//! own record. flock(2) on the directory orders those who ask.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Result};
use crate::image::kept::{Kept, User};
use crate::plan::UPPER;
use crate::state::{self, Directory, Status};

/// A layer's directory that was made just now: dropping it removes it, if nothing is in it yet.
#[derive(Debug)]
pub struct Place {
    pub dir: PathBuf,
    is_new: bool,
}

impl Place {
    /// One of which nothing is made.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir, is_new: false }
    }

    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_new && !self.dir.join(Kept::RECORD).exists() {
            // What has something in it stays.
            for path in [self.work(), self.upper(), self.dir.clone()] {
                let _ = fs::remove_dir(path);
            }
        }
    }
}

/// Makes the directories of a layer, unless they are there. `top` is the topmost layer below it.
pub fn make(dir: PathBuf, top: &Path) -> Result<Place> {
    let place = Place { is_new: !dir.exists(), dir };
    for path in [place.upper(), place.work()] {
        DirBuilder::new().recursive(true).mode(0o700).create(&path).doing(|| format!("make {}", path.display()))?;
    }
    let upper = place.upper();
    // What the container sees as / looks as in the image, but for a layer that was there.
    if is_empty(&upper)? {
        let info = fs::metadata(top).doing(|| format!("look at {}", top.display()))?;
        let like = fs::Permissions::from_mode(info.mode() & 0o7777);
        fs::set_permissions(&upper, like).doing(|| format!("change the mode of {}", upper.display()))?;
        match std::os::unix::fs::chown(&upper, Some(info.uid()), Some(info.gid())) {
            // An ordinary user's own.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            done => done.doing(|| format!("change the owner of {}", upper.display()))?,
        }
    }
    Ok(place)
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(fs::read_dir(dir).doing(|| format!("read {}", dir.display()))?.next().is_none())
}

/// Writes down that the container with the directory `container` (`None`: nobody yet) uses the layer in `dir`, on which `wanted`
/// says what is to be known; `None`: what is known already, and nothing for a layer that Kelson did not make.
///
/// # Errors
/// Another container uses it; it was written on another image.
pub fn claim(dir: &Path, wanted: Option<&Kept>, container: Option<&Path>) -> Result<()> {
    let doing = || format!("use the layer {}", dir.display());
    let known = Kept::read(dir)?;
    if wanted.is_none() && known.is_none() {
        return Ok(());
    }
    let _lock = lock(dir).doing(doing)?;
    let known = Kept::read(dir)?;
    // An earlier one in the same directory is gone: this process holds that.
    let is_other = |user: &&User| container.is_some_and(|container| container != user.dir);
    if let Some(user) = known.as_ref().and_then(|known| known.user.as_ref()).filter(is_other)
        && let Some(id) = user_at_work(user, dir)?
    {
        return Err(Error::state(format!("container {id:?} uses it, and one at a time can"))
            .hint(format!("kelson delete --force {id}, or keep another layer: --name, --upper DIR")))
        .doing(doing);
    }
    let Some(mut kept) = wanted.cloned().or_else(|| known.clone()) else { return Ok(()) };
    if let Some(known) = known {
        if (known.image, &known.lower) != (kept.image, &kept.lower) && !is_empty(&dir.join("upper"))? {
            return Err(Error::state(format!("it was written on another image, {}", known.image))
                .hint("a name may mean another image by now: run that one by its id, or keep another layer"))
            .doing(doing);
        }
        kept.mount_points.extend(known.mount_points);
        kept.user = known.user;
    }
    if let Some(container) = container {
        kept.user = Some(User::of(container)?);
    }
    let text = serde_json::to_vec(&kept).map_err(|error| Error::other(error.to_string()))?;
    state::write_atomically(&dir.join(Kept::RECORD), "", 0o600, &text)
}

fn lock(dir: &Path) -> Result<Flock<File>> {
    let mut file = File::open(dir)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EINTR)) => file = unlocked,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// The id of the container, if it writes to the layer in `dir` or is about to; processes of one without a PID namespace may outlive its first.
fn user_at_work(user: &User, dir: &Path) -> Result<Option<String>> {
    let (Some(root), Some(id)) = (user.dir.parent(), user.dir.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    if !user.is_there() {
        return Ok(None);
    }
    let is_at_work = match state::load(root, id) {
        // A later one may have got the same number.
        Ok(state) if state.annotations.get(UPPER).is_none_or(|upper| Path::new(upper) != dir.join("upper")) => false,
        Ok(state) => {
            state.status(root)? != Status::Stopped || state.cgroup.processes().is_ok_and(|all| !all.is_empty())
        }
        // Its record is not written yet, or there never will be one.
        Err(_) => !Directory::open(root, id)?.try_lock()?,
    };
    Ok(is_at_work.then(|| id.to_owned()))
}
