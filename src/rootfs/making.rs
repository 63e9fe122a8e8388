//! What the options of `mounts` come to. Pure: it decides what [`super::mounts`] does.

use std::path::Path;

use super::tree::{Change, NewFs};
use super::{PRIVATE_TREE, base_propagation, path, writes_to_proc};
use crate::plan::{MOUNT_CONTEXT, Mount, MountAttributes, Plan, Propagation, PropagationKind};
use crate::sys::mount::attr;

/// File systems whose superblock is the kernel's, shared by all their mounts: `ro` is for the mount only.
const KERNEL_FS: [&str; 8] = ["cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs", "securityfs", "debugfs"];

/// A new file system, and how it is mounted.
pub(super) struct Making<'m> {
    pub fs: NewFs,
    /// What is done besides attaching it.
    pub change: Change<'m>,
    /// `ro` has to wait: mount points below it and devices have still to be made.
    pub is_late: bool,
    /// mount(2) does it all.
    pub is_one_call: bool,
}

impl<'m> Making<'m> {
    /// For `mount` of type, source and data `of`; `covered_mode` is the mode of the directory that it looks like.
    pub fn of(
        plan: &Plan,
        mount: &'m Mount,
        (fs_type, source, data): (&str, &str, &[String]),
        covered_mode: Option<u32>,
    ) -> Self {
        let mut fs = NewFs {
            fs_type: fs_type.to_owned(),
            source: source.to_owned(),
            data: data.to_vec(),
            superblock: mount.superblock,
            attributes: attributes(mount),
        };
        let is_late = fs.attributes & attr::RDONLY != 0
            && (fs_type == "tmpfs" || path::cleaned(&mount.destination) == Path::new("/dev"));
        if is_late {
            fs.attributes &= !attr::RDONLY;
        } else if fs.attributes & attr::RDONLY != 0 && !KERNEL_FS.contains(&fs_type) {
            fs.superblock.set |= libc::MS_RDONLY;
        }
        if let Some(mode) = covered_mode {
            fs.data.push(format!("mode={:o}", mode & 0o7777));
        }
        label(plan, &mut fs);
        let is_read_only = fs.attributes & attr::RDONLY != 0;
        let change = Change { attributes: MountAttributes::default(), ..change_of(plan, mount) };
        // One call in place of six where nothing more is done to the mount. mount(2) sets `ro` on the superblock too, which
        // for sysfs is the container's own or stays as it is.
        let has_more = (fs_type == "proc" && writes_to_proc(plan))
            || is_late
            || mount.copy_up
            || (is_read_only && fs_type != "sysfs")
            || !change.propagation.is_empty();
        Self { fs, change, is_late, is_one_call: !has_more && plan.mount_label.is_none() }
    }
}

/// The attributes of a mount that has nothing below it yet.
pub(super) fn attributes(mount: &Mount) -> u64 {
    let MountAttributes { top, recursive } = mount.attributes;
    (recursive.set & !top.clear) | top.set
}

/// As runc: a tmpfs over an existing directory looks like it; a new one has the kernel's default, 1777.
pub(super) fn looks_like_what_it_covers(fs_type: &str, data: &[String]) -> bool {
    fs_type == "tmpfs" && !data.iter().any(|item| item.starts_with("mode="))
}

/// Adds `linux.mountLabel`; the kernel labels proc, sysfs, mqueue and cgroups itself.
pub(super) fn label(plan: &Plan, fs: &mut NewFs) {
    if let Some(label) = plan.mount_label.as_ref().filter(|label| !label.is_empty())
        && !["proc", "sysfs", "mqueue", "cgroup", "cgroup2"].contains(&fs.fs_type.as_str())
    {
        let kind = plan.annotations.get(MOUNT_CONTEXT).map_or("context", String::as_str);
        fs.data.push(format!("{kind}={label}"));
    }
}

/// Why a user namespace may not mount a file system of this type, where another namespace is missing for it.
pub(super) fn lacks_namespace(plan: &Plan, fs_type: &str) -> Option<&'static str> {
    match fs_type {
        "proc" if !plan.namespaces.pid.is_own() => {
            Some("a user namespace may mount proc only with a PID namespace of its own: bind /proc instead")
        }
        "mqueue" if !plan.namespaces.ipc.is_own() => {
            Some("a user namespace may mount mqueue only with an IPC namespace of its own: bind /dev/mqueue instead")
        }
        _ => None,
    }
}

/// What the options say about the mount, with the default propagation (private).
pub(super) fn change_of<'m>(plan: &Plan, mount: &'m Mount) -> Change<'m> {
    let is_private = base_propagation(plan).kind == PropagationKind::Private;
    let propagation = match mount.propagation.as_slice() {
        [] if is_private => &[],
        // The tree it was copied from is private already.
        [Propagation { kind: PropagationKind::Private, .. }, rest @ ..] if is_private => rest,
        _ => propagation_of(mount),
    };
    Change { attributes: mount.attributes, propagation }
}

/// As [`change_of`], of a slave of the host's mount, whatever the container's other mounts are.
pub(super) fn change_of_id_mapped(mount: &Mount) -> Change<'_> {
    Change { attributes: mount.attributes, propagation: propagation_of(mount) }
}

/// What the options say about a tree that may be anything yet: private is the default.
fn propagation_of(mount: &Mount) -> &[Propagation] {
    if mount.propagation.is_empty() { const { &[PRIVATE_TREE] } } else { &mount.propagation }
}
