//! What would be mounted and made, for who wants to read it: of the same decisions, and nothing is done.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{
    FUSE_SUPER_MAGIC, FsType, MSDOS_SUPER_MAGIC, NFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs,
};
use nix::unistd::Uid;

use super::cgroup::{self, CgroupView};
use super::device::{self, LINKS};
use super::making::{self, Making};
use super::path::{self, Links};
use super::protect::READ_ONLY;
use super::tree::{self, Change, NewFs};
use super::{base_propagation, is_hosts_root, root_change};
use crate::error::Result;
use crate::plan::{
    DeviceKind, FlagChange, Mount, MountKind, Plan, Propagation, PropagationKind, attribute_options,
    propagation_option, superblock_options,
};
use crate::sys::fd::read_short;
use crate::sys::mount::{self, Calls};

/// A mount that would be made, or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intended {
    pub destination: PathBuf,
    /// Type of the file system; `bind`, `rbind`, `remount`.
    pub kind: String,
    /// Empty for what has none.
    pub source: String,
    /// Attributes, superblock flags, propagation and data, as mount options.
    pub options: Vec<String>,
    /// The system calls, in order; those of the process itself only.
    pub calls: Vec<&'static str>,
    /// The calls that Kelson makes before, with the host's privilege.
    pub calls_before: Vec<&'static str>,
    pub property: Option<String>,
    /// What else there is to know.
    pub note: Option<String>,
}

/// The propagation that the copied tree has while the container is made; `None` where the container has no mount namespace of
/// its own.
pub fn propagation_of_host_tree(plan: &Plan) -> Option<&'static str> {
    plan.namespaces.mount.is_own().then(|| propagation_option(base_propagation(plan)))
}

/// The root: what is mounted over `root.path`, the overlay's writable layer first where that is a private one.
pub fn root(plan: &Plan, kernel: Calls) -> Vec<Intended> {
    let Some(overlay) = &plan.root.overlay else {
        let change = root_change(plan);
        return vec![Intended {
            options: options_of_change(change),
            calls: calls_of_copy(change, kernel),
            property: Some("root.path".into()),
            ..new("/", "rbind", plan.root.path.display().to_string())
        }];
    };
    let has_user_ns = plan.namespaces.user.is_own();
    let mut data: Vec<String> = overlay.lower.iter().map(|layer| format!("lowerdir+={}", layer.display())).collect();
    let mut mounts = vec![];
    match &overlay.upper {
        Some((upper, work)) => {
            data.push(format!("upperdir={}", upper.display()));
            data.push(format!("workdir={}", work.display()));
        }
        None => {
            mounts.push(Intended {
                options: vec!["mode=755".into()],
                calls: vec!["fsopen", "fsconfig", "fsmount", "mkdirat"],
                note: Some("the writable layer: upper and work, gone with the container".into()),
                ..new("", "tmpfs", "tmpfs".into())
            });
            data.extend(["upperdir=upper".into(), "workdir=work".into()]);
        }
    }
    if let Some(why) = by_fuse(plan) {
        let change = root_change(plan);
        let options = ["default_permissions", "allow_other"].map(String::from).into_iter();
        mounts.push(Intended {
            options: options.chain(data).chain(options_of_change(change)).collect(),
            calls: [changes(change, kernel), vec!["move_mount"]].concat(),
            calls_before: vec!["fsopen", "fsconfig", "fsmount"],
            property: Some("annotations".into()),
            note: Some(format!("served by a process outside of the container: {why}")),
            ..new("/", "fuse.fuse-overlayfs", "fuse-overlayfs".into())
        });
        return mounts;
    }
    // The maker in a user namespace of its own has no trusted.* attributes (overlay.rs).
    let is_made_before = has_user_ns && Uid::effective().is_root();
    if has_user_ns && !is_made_before {
        data.push("userxattr".into());
    }
    data.extend(plan.mount_label.iter().filter(|label| !label.is_empty()).map(|label| format!("context={label}")));
    data.extend(options_of_change(root_change(plan)));
    let making = if kernel.fsopen { vec!["fsopen", "fsconfig", "fsmount"] } else { vec!["mount", "open_tree"] };
    let (mut calls_before, making) = if is_made_before { (making, vec![]) } else { (vec![], making) };
    let mapping = if overlay.id_mapped { &["open_tree", "mount_setattr"][..] } else { &[] };
    calls_before.splice(0..0, mapping.iter().copied());
    mounts.push(Intended {
        options: data,
        calls: [making, changes(root_change(plan), kernel), vec!["move_mount"]].concat(),
        calls_before,
        property: Some("annotations".into()),
        note: overlay.id_mapped.then(|| "layers are seen through linux.uidMappings and linux.gidMappings".into()),
        ..new("/", "overlay", "overlay".into())
    });
    mounts
}

/// Why fuse-overlayfs makes the overlay, as far as that can be known without asking the kernel for one; `None` where it does not.
pub fn by_fuse(plan: &Plan) -> Option<String> {
    let overlay = plan.root.overlay.as_ref()?;
    if overlay.is_by_fuse {
        return Some("the annotation asks for it".into());
    }
    if let Some((upper, _)) = &overlay.upper
        && let Ok(found) = statfs(upper.as_path())
        && let Some((_, name)) = NO_UPPER.iter().find(|(kind, _)| *kind == found.filesystem_type())
    {
        return Some(format!("the kernel's overlay writes to no {name}"));
    }
    if !plan.namespaces.user.is_own() || is_hosts_root().ok()? {
        return None;
    }
    let release = read_short("/proc/sys/kernel/osrelease").ok()?;
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (version < (5, 11)).then(|| format!("Linux {} has no overlay in a user namespace", release.trim_end()))
}

/// File systems that cannot be an upper layer (ovl_mount_dir_check in fs/overlayfs): names of theirs may change or differ
/// without the kernel's doing.
const NO_UPPER: [(FsType, &str); 5] = [
    (OVERLAYFS_SUPER_MAGIC, "overlay"),
    (FUSE_SUPER_MAGIC, "file system of type fuse"),
    (MSDOS_SUPER_MAGIC, "vfat"),
    (NFS_SUPER_MAGIC, "NFS"),
    (SMB_SUPER_MAGIC, "SMB"),
];

/// `mounts`, in order.
pub fn mounts(plan: &Plan, view: &CgroupView, kernel: Calls) -> Result<Vec<Intended>> {
    let mut mounts = vec![];
    for mount in &plan.mounts {
        let mut found = match &mount.kind {
            MountKind::Bind { source, recursive } => vec![bind(plan, mount, source, *recursive, kernel)],
            MountKind::FileSystem { fs_type, source, data } => {
                vec![file_system(plan, mount, (fs_type, source, data), kernel)]
            }
            MountKind::Cgroup { data } => of_cgroups(plan, mount, data, view, kernel),
            MountKind::Remount { data } => vec![remount(mount, data, kernel)],
        };
        for one in &mut found {
            one.property = Some(format!("mounts[{}]", mount.index));
        }
        mounts.append(&mut found);
    }
    Ok(mounts)
}

fn new(destination: impl Into<PathBuf>, kind: impl Into<String>, source: String) -> Intended {
    Intended {
        destination: destination.into(),
        kind: kind.into(),
        source,
        options: vec![],
        calls: vec![],
        calls_before: vec![],
        property: None,
        note: None,
    }
}

fn bind(plan: &Plan, mount: &Mount, source: &Path, recursive: bool, kernel: Calls) -> Intended {
    let kind = if recursive { "rbind" } else { "bind" };
    let mut found = new(&mount.destination, kind, source.display().to_string());
    match &mount.id_map {
        None => {
            let change = making::change_of(plan, mount);
            (found.options, found.calls) = (options_of_change(change), calls_of_copy(change, kernel));
        }
        Some(id_map) => {
            let change = making::change_of_id_mapped(mount);
            found.options = vec![if id_map.recursive { "ridmap" } else { "idmap" }.into()];
            found.options.extend(options_of_change(change));
            found.calls_before = vec!["open_tree", "mount_setattr", "mount_setattr"];
            found.calls = changes(change, kernel);
            found.calls.push("move_mount");
            let ids = |maps: &crate::plan::IdMaps| {
                let line = |m: &crate::plan::IdMapping| format!("{}:{}:{}", m.container, m.host, m.size);
                let list = |map: &[crate::plan::IdMapping]| map.iter().map(line).collect::<Vec<_>>().join(",");
                format!("ids uid={} gid={}", list(&maps.uid), list(&maps.gid))
            };
            let of_container = || "ids of the container's user namespace".to_owned();
            found.note = Some(id_map.maps.as_ref().map_or_else(of_container, ids));
        }
    }
    found
}

fn file_system(plan: &Plan, mount: &Mount, of: (&str, &str, &[String]), kernel: Calls) -> Intended {
    let (fs_type, _, data) = of;
    let covered_mode = if making::looks_like_what_it_covers(fs_type, data) { mode_in_root(plan, mount) } else { None };
    let Making { fs, change, is_late, is_one_call } = Making::of(plan, mount, of, covered_mode);
    let mut found = of_new(&mount.destination, &fs, change, is_one_call, kernel);
    let mut notes = vec![];
    if is_late {
        found.options.insert(0, "ro".into());
        notes.push("read-only when all is in place");
    }
    if mount.copy_up {
        notes.push("what is below it is copied into it");
    }
    if fs_type == "sysfs" && plan.namespaces.user.is_own() && !plan.namespaces.network.is_own() {
        notes.push("the host's, bound read-only: a user namespace may mount its own with a network namespace only");
    }
    found.note = (!notes.is_empty()).then(|| notes.join("; "));
    found
}

fn remount(mount: &Mount, data: &[String], kernel: Calls) -> Intended {
    let change = Change { attributes: mount.attributes, propagation: &mount.propagation };
    let mut options: Vec<String> = superblock_options(mount.superblock).into_iter().map(Into::into).collect();
    options.extend(data.iter().cloned());
    let mut calls = match !data.is_empty() || mount.superblock != FlagChange::default() {
        false => vec![],
        true if kernel.fsopen && !tree::needs_mount(mount.superblock, data) => vec!["fspick", "fsconfig"],
        true => vec!["mount"],
    };
    options.extend(options_of_change(change));
    calls.extend(changes(change, kernel));
    Intended { options, calls, ..new(&mount.destination, "remount", String::new()) }
}

fn of_cgroups(plan: &Plan, mount: &Mount, data: &[String], view: &CgroupView, kernel: Calls) -> Vec<Intended> {
    let destination = mount.destination.as_path();
    match (view.v2, view.hierarchies.first()) {
        (true, Some(hierarchy)) if plan.namespaces.cgroup.is_own() => {
            let change = Change { attributes: Default::default(), ..making::change_of(plan, mount) };
            let fs = cgroup::cgroup2(mount, data);
            let note = format!("shows {} as its root", hierarchy.cgroup.display());
            vec![Intended { note: Some(note), ..of_new(destination, &fs, change, false, kernel) }]
        }
        (true, Some(hierarchy)) => {
            let change = making::change_of(plan, mount);
            let mut found = new(destination, "rbind", hierarchy.mount_point.display().to_string());
            (found.options, found.calls) = (options_of_change(change), calls_of_copy(change, kernel));
            vec![found]
        }
        _ => {
            let fs = cgroup::tmpfs_for_hierarchies(plan);
            let mut all = vec![of_new(destination, &fs, Change::default(), false, kernel)];
            for hierarchy in &view.hierarchies {
                let links = (!hierarchy.links.is_empty()).then(|| format!("links {}", hierarchy.links.join(", ")));
                all.push(Intended {
                    calls: vec!["mkdirat", "mount"],
                    note: links,
                    ..new(destination.join(&hierarchy.name), "bind", hierarchy.cgroup.display().to_string())
                });
            }
            let change = cgroup::change_of_hierarchies(mount, making::change_of(plan, mount).propagation);
            // mount(2) changes them one by one.
            let one_by_one = || vec!["mount"; view.hierarchies.len() + 1];
            all.push(Intended {
                options: options_of_change(change),
                calls: if kernel.set_attributes { changes(change, kernel) } else { one_by_one() },
                note: Some("the tmpfs and all that is in it".into()),
                ..new(destination, "remount", String::new())
            });
            all
        }
    }
}

/// A new file system.
fn of_new(destination: &Path, fs: &NewFs, change: Change<'_>, is_one_call: bool, kernel: Calls) -> Intended {
    let attributes = FlagChange { set: fs.attributes, clear: 0 };
    let mut options: Vec<String> = vec![];
    options.extend(attribute_options(attributes, false).into_iter().map(String::from));
    options.extend(superblock_options(fs.superblock).into_iter().map(String::from));
    options.extend(fs.data.iter().cloned());
    options.extend(options_of_change(change));
    let calls = match is_one_call || !kernel.fsopen || fs.needs_mount() {
        true => [vec!["mount"], changes(change, kernel)].concat(),
        false => [vec!["fsopen", "fsconfig", "fsmount"], changes(change, kernel), vec!["move_mount"]].concat(),
    };
    Intended { options, calls, ..new(destination, fs.fs_type.clone(), fs.source.clone()) }
}

/// A copy of what is mounted somewhere else.
fn calls_of_copy(change: Change<'_>, kernel: Calls) -> Vec<&'static str> {
    match kernel.open_tree {
        true => [vec!["open_tree"], changes(change, kernel), vec!["move_mount"]].concat(),
        false => [vec!["mount"], changes(change, kernel)].concat(),
    }
}

/// The calls that `change` takes.
fn changes(change: Change<'_>, kernel: Calls) -> Vec<&'static str> {
    if !kernel.set_attributes {
        let of_attributes = usize::from(change.attributes.top != FlagChange::default());
        return vec!["mount"; of_attributes + change.propagation.len()];
    }
    let (calls, later) = change.calls();
    let has_effect = calls.iter().filter(|(call, _)| call.set | call.clear | call.propagation != 0);
    vec!["mount_setattr"; has_effect.count() + later.len()]
}

fn options_of_change(change: Change<'_>) -> Vec<String> {
    let mut options = attribute_options(change.attributes.recursive, true);
    options.extend(attribute_options(change.attributes.top, false));
    options.extend(change.propagation.iter().map(|propagation| propagation_option(*propagation)));
    options.into_iter().map(String::from).collect()
}

/// Mode of what a tmpfs covers, if that is in the root file system itself: looked at, as create will do.
fn mode_in_root(plan: &Plan, over: &Mount) -> Option<u32> {
    let destination = path::cleaned(&over.destination);
    let is_covered =
        |other: &Mount| other.index < over.index && destination.starts_with(path::cleaned(&other.destination));
    if plan.root.overlay.is_some() || plan.mounts.iter().any(is_covered) {
        return None;
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = openat(AT_FDCWD, plan.root.path.as_path(), flags, Mode::empty()).ok()?;
    let found = path::open_with(root.as_fd(), &destination, OFlag::O_PATH, Links::Refuse).ok()?;
    Some(mount::stat(found.as_fd()).ok()?.mode)
}

/// A device file that would be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub path: PathBuf,
    pub kind: DeviceKind,
    pub number: (u32, u32),
    pub mode: u32,
    pub owner: (u32, u32),
    /// `None` for a default device.
    pub property: Option<String>,
    /// mknodat, or the calls that bind the host's.
    pub calls: Vec<&'static str>,
}

/// Device files, the default ones first; none where /dev is a bind mount.
pub fn devices(plan: &Plan, kernel: Calls) -> Vec<Node> {
    if device::dev_is_bound(plan) {
        return vec![];
    }
    let calls = |kind| match device::are_bound(plan) && kind != DeviceKind::Fifo {
        true => calls_of_copy(Change::default(), kernel),
        false => vec!["mknodat"],
    };
    let default = device::default_devices(plan).map(|(path, number)| Node {
        path: path.into(),
        kind: DeviceKind::Char,
        number,
        mode: 0o666,
        owner: (0, 0),
        property: None,
        calls: calls(DeviceKind::Char),
    });
    let asked = plan.devices.iter().map(|device| Node {
        path: device.path.clone(),
        kind: device.kind,
        number: (device.major, device.minor),
        mode: device.mode.unwrap_or(0o666),
        owner: (device.uid.unwrap_or(0), device.gid.unwrap_or(0)),
        property: Some(format!("linux.devices[{}]", device.index)),
        calls: calls(device.kind),
    });
    default.chain(asked).collect()
}

/// Links of /dev: path and target; none where /dev is a bind mount.
pub fn links(plan: &Plan) -> Vec<(PathBuf, &'static str)> {
    if device::dev_is_bound(plan) {
        return vec![];
    }
    let has_core = Path::new("/proc/kcore").exists();
    let core = has_core.then_some(("core", "/proc/kcore"));
    let all = LINKS.into_iter().chain(core).chain([("ptmx", "pts/ptmx")]);
    all.map(|(name, target)| (Path::new("/dev").join(name), target)).collect()
}

/// Masked and read-only paths, late `ro`, a read-only root and its propagation, in order.
pub fn protection(plan: &Plan, kernel: Calls) -> Vec<Intended> {
    let mut all = vec![];
    for (index, path) in plan.masked_paths.iter().enumerate() {
        all.push(Intended {
            calls: calls_of_copy(Change::default(), kernel),
            property: Some(format!("linux.maskedPaths[{index}]")),
            // Once is enough.
            note: (index == 0).then(|| "a directory by an empty tmpfs; what is not there is left out".into()),
            ..new(path, "mask", "/dev/null".into())
        });
    }
    for (index, path) in plan.readonly_paths.iter().enumerate() {
        all.push(Intended {
            options: options_of_change(READ_ONLY),
            calls: calls_of_copy(READ_ONLY, kernel),
            property: Some(format!("linux.readonlyPaths[{index}]")),
            note: (index == 0).then(|| "what is not there is left out".into()),
            ..new(path, "rbind", path.display().to_string())
        });
    }
    let read_only = |destination: &Path, property: String| Intended {
        options: options_of_change(READ_ONLY),
        calls: changes(READ_ONLY, kernel),
        property: Some(property),
        ..new(destination, "remount", String::new())
    };
    for mount in &plan.mounts {
        if let MountKind::FileSystem { fs_type, source, data } = &mount.kind
            && Making::of(plan, mount, (fs_type, source, data), None).is_late
        {
            all.push(read_only(&mount.destination, format!("mounts[{}]", mount.index)));
        }
    }
    if plan.root.readonly {
        all.push(read_only(Path::new("/"), "root.readonly".into()));
    }
    if let Some(propagation) = plan.root.propagation.filter(|asked| asked.kind != PropagationKind::Private) {
        let propagation: [Propagation; 1] = [propagation];
        let change = Change { propagation: &propagation, ..Change::default() };
        all.push(Intended {
            options: options_of_change(change),
            calls: changes(change, kernel),
            property: Some("linux.rootfsPropagation".into()),
            ..new("/", "remount", String::new())
        });
    }
    all
}

/// An option that only mount_setattr(2) can set, where the kernel lacks that.
pub fn needs_set_attributes(mount: &Mount) -> bool {
    mount.attributes.recursive != FlagChange::default() || mount.id_map.is_some()
}

/// Types of file systems that the root of a user namespace may mount (FS_USERNS_MOUNT in fs/).
const OF_USER_NAMESPACES: [&str; 11] =
    ["binfmt_misc", "cgroup", "cgroup2", "devpts", "fuse", "mqueue", "overlay", "proc", "ramfs", "sysfs", "tmpfs"];

/// Why the container may not mount a file system of this type, and what can be done about it.
pub fn refused_type(plan: &Plan, fs_type: &str) -> Option<(String, Option<&'static str>)> {
    if !plan.namespaces.user.is_own() {
        return None;
    }
    let plain = fs_type.split('.').next().unwrap_or(fs_type);
    if !OF_USER_NAMESPACES.contains(&plain) {
        return Some((format!("a user namespace may not mount {fs_type}"), Some("mount it on the host, and bind it")));
    }
    let lacking = making::lacks_namespace(plan, fs_type)?;
    Some((lacking.into(), None))
}

/// Where the host has a device that cannot be made is looked for.
pub fn device_sources(node: &Node) -> Vec<PathBuf> {
    match node.calls.as_slice() {
        ["mknodat"] => vec![],
        _ => device::paths_on_host(&node.path, node.kind, node.number).into(),
    }
}
