//! A file of an image as its container would see it: found through the layers, without mounting them.
//!
//! The layers are what strangers wrote: every step opens one name in one directory, and a link is followed inside the image.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag};

use crate::error::{Context, Error, Result};
use crate::sys::{mount, xattr};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// One directory of the image: those of the layers that are merged in it, topmost first.
type Merged = Vec<Rc<OwnedFd>>;

/// What a name is.
enum Found {
    Nothing,
    Directory(Merged),
    Link(PathBuf),
    File(OwnedFd),
}

/// The text of the regular file `path` in the image with these unpacked layers, topmost first; `None` if there is none.
///
/// # Errors
/// It is larger than `limit` bytes, or a loop of links.
pub fn read_file(layers: &[PathBuf], path: &Path, limit: u64) -> Result<Option<String>> {
    let doing = || format!("read {} of the image", path.display());
    let Some(file) = find(layers, path).doing(doing)? else { return Ok(None) };
    let mut text = vec![];
    File::from(file).take(limit + 1).read_to_end(&mut text).doing(doing)?;
    if text.len() as u64 > limit {
        return Err(Error::other(format!("it has more than {limit} bytes"))).doing(doing);
    }
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

fn find(layers: &[PathBuf], path: &Path) -> nix::Result<Option<OwnedFd>> {
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open = |layer: &PathBuf| openat(AT_FDCWD, layer, directory, Mode::empty()).map(Rc::new);
    let root: Merged = layers.iter().map(open).collect::<nix::Result<_>>()?;
    let mut above: Vec<Merged> = vec![];
    let mut here = root.clone();
    let mut steps: VecDeque<OsString> = components(path);
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        if step == ".." {
            here = above.pop().unwrap_or_else(|| root.clone());
            continue;
        }
        match look(&here, &step)? {
            Found::Nothing => return Ok(None),
            Found::Directory(next) => above.push(std::mem::replace(&mut here, next)),
            Found::File(file) => return Ok(steps.is_empty().then_some(file)),
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::ELOOP);
                }
                if target.is_absolute() {
                    (here, above) = (root.clone(), vec![]);
                }
                for step in components(&target).into_iter().rev() {
                    steps.push_front(step);
                }
            }
        }
    }
    Ok(None)
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// What `name` is in a directory, by overlayfs's rules (Documentation/filesystems/overlayfs.rst).
fn look(here: &Merged, name: &OsString) -> nix::Result<Found> {
    let mut merged: Merged = vec![];
    for layer in here {
        let info = match mount::stat_at(layer.as_fd(), name.as_os_str()) {
            Err(Errno::ENOENT) => continue,
            info => info?,
        };
        if info.is_dir() {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let directory = openat(layer.as_fd(), name.as_os_str(), flags, Mode::empty())?;
            let is_opaque = has(&directory, &[c"trusted.overlay.opaque", c"user.overlay.opaque"])?;
            merged.push(Rc::new(directory));
            if is_opaque {
                break;
            }
            continue;
        }
        if !merged.is_empty() {
            // What is no directory hides the rest, and is hidden.
            break;
        }
        if info.is_symlink() {
            return readlinkat(layer.as_fd(), name.as_os_str()).map(|target| Found::Link(target.into()));
        }
        if info.file_type() != SFlag::S_IFREG.bits() {
            // A whiteout is a device; and of devices and pipes nobody reads here.
            return Ok(Found::Nothing);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(layer.as_fd(), name.as_os_str(), flags, Mode::empty())?;
        // The form of a whiteout that needs no privilege.
        return Ok(if has(&file, &[c"user.overlay.whiteout"])? { Found::Nothing } else { Found::File(file) });
    }
    Ok(if merged.is_empty() { Found::Nothing } else { Found::Directory(merged) })
}

fn has(file: &OwnedFd, names: &[&std::ffi::CStr]) -> nix::Result<bool> {
    xattr::has_one_of(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Two layers below a directory that is removed at the end.
    struct Layers(PathBuf);

    impl Layers {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("kelson-layers-{name}-{}", std::process::id()));
            for layer in ["top", "bottom"] {
                fs::create_dir_all(root.join(layer).join("etc")).unwrap();
            }
            Self(root)
        }

        fn read(&self, path: &str) -> Option<String> {
            read_file(&[self.0.join("top"), self.0.join("bottom")], Path::new(path), 100).unwrap()
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.0.join(path), text).unwrap();
        }
    }

    impl Drop for Layers {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_topmost_layer_wins_and_directories_are_merged() {
        let layers = Layers::new("merged");
        layers.write("bottom/etc/passwd", "below");
        layers.write("bottom/etc/group", "group");
        layers.write("top/etc/passwd", "above");
        assert_eq!(layers.read("etc/passwd").as_deref(), Some("above"));
        assert_eq!(layers.read("/etc/group").as_deref(), Some("group"));
        assert_eq!(layers.read("etc/shadow"), None);
        assert_eq!(layers.read("etc/passwd/x"), None);
        assert_eq!(layers.read("etc"), None);
    }

    #[test]
    fn links_stay_in_the_image() {
        let layers = Layers::new("links");
        layers.write("bottom/etc/real", "real");
        symlink("/etc/real", layers.0.join("top/etc/absolute")).unwrap();
        symlink("../../../../etc/real", layers.0.join("top/etc/climbing")).unwrap();
        symlink("loop", layers.0.join("top/etc/loop")).unwrap();
        symlink(&layers.0, layers.0.join("top/etc/outside")).unwrap();
        layers.write("secret", "secret");
        assert_eq!(layers.read("etc/absolute").as_deref(), Some("real"));
        assert_eq!(layers.read("etc/climbing").as_deref(), Some("real"));
        assert_eq!(layers.read("etc/outside/secret"), None);
        let top = [layers.0.join("top")];
        assert!(read_file(&top, Path::new("etc/loop"), 100).is_err());
    }

    #[test]
    fn a_file_above_hides_a_directory_and_a_large_one_is_refused() {
        let layers = Layers::new("hidden");
        fs::create_dir(layers.0.join("bottom/etc/d")).unwrap();
        layers.write("bottom/etc/d/f", "hidden");
        layers.write("top/etc/d", "file");
        assert_eq!(layers.read("etc/d/f"), None);
        layers.write("top/etc/large", &"x".repeat(101));
        assert!(read_file(&[layers.0.join("top")], Path::new("etc/large"), 100).is_err());
    }
}
