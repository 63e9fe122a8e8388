//! What a container changed of its image: shown, or written as a layer.

pub mod archive;
mod file;
mod lower;
mod owners;
mod walk;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kelson::error::{Context, Error, Result};
use kelson::image::changes::Request;
use kelson::sandbox::init::become_root;
use kelson::sys::mount;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, fstatfs};
use serde_json::json;

pub use file::{Meta, attributes};
pub use lower::{Item, Layers};
pub use owners::Owners;
pub use walk::{Change, Kind, Side, walk};

/// What [`Request`] gives, opened: descriptors that were inherited are this process's alone from here on. It is the root of the
/// container's user namespace then, if it was given that.
pub struct Container {
    layers: Layers,
    side: Side,
    owners: Owners,
    /// Closed as soon as the container may change again.
    done: Option<File>,
}

impl Container {
    /// # Errors
    /// A layer is not there; the container's process has another root than it was given.
    pub fn open(request: &Request) -> Result<Self> {
        if let Some(number) = request.user_ns {
            let namespace = inherited_file(number, false)?;
            setns(&namespace, CloneFlags::CLONE_NEWUSER).doing(|| "join the container's user namespace")?;
            become_root()?;
        }
        let done = request.done.map(|number| inherited_file(number, true)).transpose()?;
        let side = match (request.root, &request.upper) {
            (Some(root), _) => merged(inherited_directory(root)?, &request.id)?,
            (None, Some(upper)) => Side::Upper(open_directory(upper)?, request.mount_points.clone()),
            (None, None) => return Err(Error::usage("neither a root nor a layer of a container is given")),
        };
        Ok(Self { layers: Layers::open(&request.lower)?, side, owners: Owners(request.ids.clone()), done })
    }

    /// Whose its files are in the image.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Tells every change, directories before what is in them.
    pub fn changes(self, tell: &mut dyn FnMut(&Change<'_>) -> Result<()>) -> Result<()> {
        let changes = walk(&self.layers, self.side, &self.owners, tell);
        drop(self.done);
        changes
    }
}

/// # Errors
/// It is no overlay, or not the whole of it: a process that may chroot(2) or mount can have gone anywhere.
fn merged(root: OwnedFd, id: &str) -> Result<Side> {
    let info = mount::stat(root.as_fd()).doing(|| "look at the container's root")?;
    let kind = fstatfs(&root).doing(|| "look at the container's root")?.filesystem_type();
    let is_overlay = [OVERLAYFS_SUPER_MAGIC, FUSE_SUPER_MAGIC].contains(&kind);
    if !is_overlay || info.is_mount_root == Some(false) {
        return Err(Error::state(format!("the process of container {id:?} has left its root, which is an overlay"))
            .hint("--keep-layer or --upper DIR keeps what a container writes where it can be read anyhow"));
    }
    if info.mount_id == 0 {
        return Err(Error::other("this kernel does not tell which file is on which mount")
            .hint("Linux 5.8 or newer, or a container with --keep-layer"));
    }
    Ok(Side::Merged(root, info.mount_id))
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, path, flags, Mode::empty()).doing(|| format!("open {}", path.display()))
}

/// A descriptor that no program this one starts gets, in place of the one that was inherited.
fn inherited_directory(number: i32) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = openat(AT_FDCWD, inherited(number).as_path(), flags, Mode::empty());
    let opened = opened.doing(|| format!("open the inherited descriptor {number}"))?;
    nix::unistd::close(number)?;
    Ok(opened)
}

/// The same of a file to write to, or to have.
fn inherited_file(number: i32, writes: bool) -> Result<File> {
    let opened = File::options().read(!writes).write(writes).open(inherited(number));
    let opened = opened.doing(|| format!("open the inherited descriptor {number}"))?;
    nix::unistd::close(number)?;
    Ok(opened)
}

fn inherited(number: i32) -> PathBuf {
    format!("/proc/self/fd/{number}").into()
}

/// All changes as docker diff prints them, or as JSON, sorted by their paths.
pub fn show(container: Container, as_json: bool) -> Result<Vec<u8>> {
    let mut all: Vec<(Vec<u8>, Kind)> = vec![];
    container.changes(&mut |change| {
        // Nobody gives the root another name.
        if !change.path.as_os_str().is_empty() {
            all.push(([b"/", change.path.as_os_str().as_bytes()].concat(), change.kind));
        }
        Ok(())
    })?;
    all.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    if as_json {
        let value: serde_json::Value =
            all.iter().map(|(path, kind)| json!({"kind": kind, "path": String::from_utf8_lossy(path)})).collect();
        return Ok(format!("{value}\n").into_bytes());
    }
    Ok(all.iter().flat_map(|(path, kind)| line(path, *kind)).collect())
}

/// One line, whatever the name has in it: control characters are written as `\012`.
fn line(path: &[u8], kind: Kind) -> Vec<u8> {
    let letter = match kind {
        Kind::Added => b'A',
        Kind::Changed => b'C',
        Kind::Deleted => b'D',
    };
    let mut line = vec![letter, b' '];
    for byte in path {
        match byte {
            0..0x20 | 0x7f => line.extend(format!("\\{byte:03o}").into_bytes()),
            _ => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests;
