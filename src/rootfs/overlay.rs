//! [parent] [init] The overlay as root: lower directories by descriptor, so that no path needs quoting or fits too badly.
//!
//! It is made detached. The child makes it where its privilege is the parent's (no user namespace) or all there is
//! (rootless: `userxattr`); for a container in a user namespace of its own a privileged parent does, so that
//! `trusted.overlay.*` is honoured (overlayfs.rst, "Permission model").

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

use super::cgroup::is_initial_user_ns;
use super::mapped;
use super::tree::{Change, FdNames, NewFs, Place, Tree, c_string};
use super::visit::WayBack;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{Overlay, Plan};
use crate::sys::mount::{self, FsContext, Reach};
use crate::sys::xattr;

/// The kernel stacks at most this many lower layers (OVL_MAX_STACK).
const MAX_LAYERS: usize = 500;

/// The opened layers of an overlay.
struct Layers {
    lower: Vec<OwnedFd>,
    /// Upper and work directory.
    upper: (OwnedFd, OwnedFd),
    /// `userxattr`: not in the initial user namespace, where `trusted.*` attributes are out of reach.
    user_xattr: bool,
    /// `linux.mountLabel`.
    label: Option<String>,
}

/// The overlay as a tree to attach. Older kernels can make it only in a mount namespace of the caller's own, where things
/// may be mounted at `scratch`; without `scratch` that is `EINVAL` or `ENOSYS`.
pub(super) fn build(plan: &Plan, overlay: &Overlay, scratch: Option<&Path>) -> Result<Tree> {
    let mut lower = open_layers(overlay)?;
    let user_xattr = !is_initial_user_ns()?;
    let label = plan.mount_label.clone().filter(|label| !label.is_empty());
    let mapped = match overlay.id_mapped {
        true => Some(mapped::Mapped::make(plan, overlay, &mut lower, scratch)?),
        false => None,
    };
    if let Some((upper, work)) = &overlay.upper {
        let upper = match mapped.and_then(|mapped| mapped.upper) {
            Some(upper) => upper,
            None => (open_annotated(upper, "upper")?, open_annotated(work, "work")?),
        };
        if user_xattr && is_written_by_fuse(&upper.0) {
            return Err(Error::new(
                Kind::System(Errno::EOPNOTSUPP),
                "fuse-overlayfs wrote the layer, with marks of its own",
            ));
        }
        return Layers { lower, upper, user_xattr, label }.mount(scratch);
    }
    let tmpfs = private_tmpfs(label.as_deref())?;
    if let Tree::Detached(root) = &tmpfs {
        let upper = upper_in(root.as_fd(), &lower)?;
        let layers = Layers { lower, upper, user_xattr, label };
        return match (layers.mount(scratch), scratch) {
            // Before 6.15 a directory on a detached mount cannot be a layer. The lower directories are open already:
            // that the tmpfs covers one of them does not matter.
            (Err(e), Some(path)) if e.errno() == Some(Errno::EINVAL) => {
                let _attached = attach_at(tmpfs, path)?;
                layers.mount(scratch)
            }
            (mounted, _) => mounted,
        };
    }
    let root = attach_at(tmpfs, scratch.ok_or(Errno::ENOSYS)?)?;
    let upper = upper_in(root.as_fd(), &lower)?;
    Layers { lower, upper, user_xattr, label }.mount(scratch)
}

/// The overlay made by a privileged parent, whose own mount namespace stays as it is.
///
/// The parent must be single-threaded.
pub(super) fn build_detached(plan: &Plan, overlay: &Overlay) -> Result<OwnedFd> {
    match build(plan, overlay, None) {
        Ok(Tree::Detached(overlay)) => Ok(overlay),
        Err(e) if !matches!(e.errno(), Some(Errno::EINVAL | Errno::ENOSYS)) => Err(e),
        _ => build_in_passing_namespace(plan, overlay),
    }
}

/// [`build`] with a mount namespace that lives only as long as this call.
pub(super) fn build_in_passing_namespace(plan: &Plan, overlay: &Overlay) -> Result<OwnedFd> {
    let back = WayBack::remember()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    let built = nix::mount::mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)
        .map_err(Error::from)
        .and_then(|()| build(plan, overlay, Some(&plan.root.path)));
    back.go()?;
    match built? {
        Tree::Detached(overlay) => Ok(overlay),
        Tree::BindByPath { .. } | Tree::NewByPath(_) => {
            Err(Error::new(Kind::System(Errno::ENOSYS), "an overlay in a user namespace needs open_tree(2)")
                .hint("Linux 5.2 or newer, and a seccomp filter of the outer container that allows it"))
        }
    }
}

/// The kernel cannot make this overlay, and fuse-overlayfs may: a user namespace before Linux 5.11, a kernel without overlayfs, a
/// file system that cannot be one of its layers. Ids of layers are the kernel's alone to map.
pub(super) fn is_for_fuse(error: &Error, overlay: &Overlay) -> bool {
    match error.errno() {
        _ if overlay.id_mapped => false,
        Some(Errno::EPERM | Errno::ENODEV | Errno::EOPNOTSUPP) => error.property().is_none(),
        // The file system's own words, since 6.5; before they are in the kernel's log only.
        Some(Errno::EINVAL) => {
            let cause = error.cause();
            cause == Error::from(Errno::EINVAL).cause() || cause.contains("not supported") || cause.contains("required")
        }
        _ => false,
    }
}

pub(super) fn open_layers(overlay: &Overlay) -> Result<Vec<OwnedFd>> {
    if overlay.lower.len() > MAX_LAYERS {
        return Err(Error::config(
            "annotations.org.kelson.overlay.lower",
            format!("{} layers; the kernel stacks at most {MAX_LAYERS}", overlay.lower.len()),
        ));
    }
    overlay.lower.iter().map(|path| open_annotated(path, "lower")).collect()
}

/// An upper directory whose opaque directories the kernel would not know, as it has not the privilege to mark them as root's:
/// what they hide would be there again.
fn is_written_by_fuse(upper: &OwnedFd) -> bool {
    xattr::has_one_of(Path::new(&path_of(upper)), &[WRITTEN_BY_FUSE]).unwrap_or(false)
}

/// Notes that fuse-overlayfs writes to an upper directory, in a user namespace; it hides the attribute from containers.
pub(super) fn note_fuse(upper: &OwnedFd) {
    // Where it cannot be noted, for want of such attributes, no kernel's overlay in a user namespace can be either.
    let _ = mount::set_xattr(path_of(upper).as_str(), WRITTEN_BY_FUSE, b"y");
}

const WRITTEN_BY_FUSE: &CStr = c"user.fuseoverlayfs.kelson";

fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// # Errors
/// Upper and work directory are on two mounts, between which nothing can be renamed.
pub(super) fn check_mounts(upper: &OwnedFd, work: &OwnedFd) -> Result<()> {
    match mount::stat(upper.as_fd())?.mount_id == mount::stat(work.as_fd())?.mount_id {
        true => Ok(()),
        false => Err(Error::config("annotations.org.kelson.overlay.work", "it is on another mount than the upper one")),
    }
}

pub(super) fn open_annotated(path: &Path, which: &str) -> Result<OwnedFd> {
    openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .doing(|| format!("open overlay directory {}", path.display()))
        .property(|| format!("annotations.org.kelson.overlay.{which}"))
}

/// What the container writes, unless it was given a directory for it; gone with the container.
pub(super) fn private_tmpfs(label: Option<&str>) -> Result<Tree> {
    let mut data = vec!["mode=755".to_owned()];
    data.extend(label.map(|label| format!("context={label}")));
    Tree::new(NewFs { fs_type: "tmpfs".into(), source: "tmpfs".into(), data, ..NewFs::default() })
}

/// Upper and work directory; the upper one looks like the topmost layer, because it is what the container sees as `/`.
pub(super) fn upper_in(root: BorrowedFd<'_>, lower: &[OwnedFd]) -> Result<(OwnedFd, OwnedFd)> {
    let make = |name: &str| {
        mkdirat(root, name, Mode::from_bits_truncate(0o755))?;
        openat(root, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    };
    let dirs = (make("upper")?, make("work")?);
    if let Some(top) = lower.first() {
        let info = mount::stat(top.as_fd())?;
        let (uid, gid) = (Uid::from_raw(info.uid), Gid::from_raw(info.gid));
        match fchownat(root, "upper", Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
            // An owner that a rootless user namespace does not map.
            Err(Errno::EINVAL | Errno::EPERM) => {}
            done => done?,
        }
        let mode = Mode::from_bits_truncate(info.mode & 0o7777);
        fchmodat(root, "upper", mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(dirs)
}

pub(super) fn attach_at(tree: Tree, path: &Path) -> Result<OwnedFd> {
    let fd = openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    tree.attach(&Place { fd, root: None, path }, Change::default(), FdNames::HostProc)
}

impl Layers {
    fn mount(&self, scratch: Option<&Path>) -> Result<Tree> {
        self.mount_by_any_call(scratch).map_err(|error| match error.errno() {
            Some(Errno::EPERM) if self.user_xattr => error
                .hint("in a user namespace overlayfs needs Linux 5.11, or the program fuse-overlayfs; kelson bundle --unpack makes a root that needs no overlay"),
            // The kernel says why in its log only.
            Some(Errno::EINVAL) => check_mounts(&self.upper.0, &self.upper.1).err().unwrap_or(error),
            _ => error,
        })
    }

    fn mount_by_any_call(&self, scratch: Option<&Path>) -> Result<Tree> {
        let context = match FsContext::open(c"overlay") {
            Err(errno) if mount::is_missing(errno) => return self.mount_by_path(scratch),
            opened => opened?,
        };
        let errno = match self.configure(&context) {
            Ok(mounted) => return Ok(Tree::Detached(mounted)),
            Err(errno) => errno,
        };
        let complaint = context.complaint();
        // A kernel before 6.7 knows no lowerdir+, and those before 6.5 notice it only when all is given.
        if errno == Errno::EINVAL
            && let Ok(mounted) = self.mount_by_path(scratch)
        {
            return Ok(mounted);
        }
        Err(complaint.map_or_else(
            || errno.into(),
            |said| Error::new(Kind::System(errno), format!("{}: {said}", errno.desc().to_ascii_lowercase())),
        ))
    }

    fn configure(&self, context: &FsContext) -> nix::Result<OwnedFd> {
        context.set_string(c"source", c"overlay")?;
        for lower in &self.lower {
            set_layer(context, c"lowerdir+", lower)?;
        }
        set_layer(context, c"upperdir", &self.upper.0)?;
        set_layer(context, c"workdir", &self.upper.1)?;
        if self.user_xattr {
            context.set_flag(c"userxattr")?;
        }
        if let Some(label) = &self.label {
            context.set_string(c"context", &c_string(label)?)?;
        }
        context.mount(0)
    }

    /// With mount(2), at `scratch`, and a copy of that mount. All layers must fit into one page of options, so they are
    /// named as briefly as can be: `lowerdir=5:6:7`, seen from /proc/self/fd.
    fn mount_by_path(&self, scratch: Option<&Path>) -> Result<Tree> {
        let scratch = scratch.ok_or(Errno::ENOSYS)?;
        let number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
        let lower: Vec<String> = self.lower.iter().map(number).collect();
        let mut data = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            number(&self.upper.0),
            number(&self.upper.1)
        );
        if self.user_xattr {
            data.push_str(",userxattr");
        }
        if let Some(label) = &self.label {
            data.push_str(&format!(",context=\"{label}\""));
        }
        let before = openat(AT_FDCWD, ".", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        nix::unistd::chdir("/proc/self/fd")?;
        let mounted =
            nix::mount::mount(Some("overlay"), scratch, Some("overlay"), MsFlags::empty(), Some(data.as_str()));
        nix::unistd::fchdir(&before)?;
        mounted?;
        Ok(Tree::bind(scratch, Reach::Top)?)
    }
}

/// Gives one layer by descriptor (since 6.13), or by the descriptor's name in /proc.
fn set_layer(context: &FsContext, key: &CStr, layer: &OwnedFd) -> nix::Result<()> {
    match context.set_fd(key, layer.as_fd()) {
        Err(Errno::EINVAL | Errno::EBADF) => {
            context.set_string(key, &c_string(&format!("/proc/self/fd/{}", layer.as_raw_fd()))?)
        }
        done => done,
    }
}
