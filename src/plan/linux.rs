//! `linux` of config.json, except for resources and seccomp, which have files of their own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::json::{List, Map, Text};
use super::model::{
    Device, DeviceKind, IdMapping, IdMaps, MemoryPolicy, Namespace, Namespaces, NetDevice, Personality, Sysctl,
    TimeOffsets, User,
};
use super::process::unknown;
use super::{absolute, c_string, cleaned, list_of_numbers, required, some_text, spec};
use crate::error::{Context, Error, Result};

/// The kernel takes so many lines in uid_map and gid_map (user_namespaces(7), since 4.15).
const MAX_ID_MAPPINGS: usize = 340;
/// __NEW_UTS_LEN of linux/utsname.h.
const MAX_UTS_NAME: usize = 64;
/// IFNAMSIZ of linux/if.h, which counts the final NUL.
const MAX_INTERFACE_NAME: usize = 15;
/// MAX_NUMNODES is at most 1 << 10 (CONFIG_NODES_SHIFT).
const MAX_NODES: u32 = 1024;
/// A dev_t of the kernel has 12 bits for the major and 20 for the minor number (linux/kdev_t.h).
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// The types of namespaces that `linux.namespaces` may name.
pub fn namespaces() -> impl Iterator<Item = &'static str> {
    NAMESPACES.into_iter()
}

pub fn resolve_namespaces(specs: &[spec::Namespace<'_>]) -> Result<Namespaces> {
    let mut out = Namespaces::default();
    for (i, spec) in specs.iter().enumerate() {
        let property = |name: &str| format!("linux.namespaces[{i}].{name}");
        let kind = required(&spec.kind, || property("type"))?;
        let slot = match &**kind {
            "pid" => &mut out.pid,
            "network" => &mut out.network,
            "mount" => &mut out.mount,
            "ipc" => &mut out.ipc,
            "uts" => &mut out.uts,
            "user" => &mut out.user,
            "cgroup" => &mut out.cgroup,
            "time" => &mut out.time,
            other => return Err(unknown(property("type"), "namespace", other, NAMESPACES.into_iter())),
        };
        // config-linux.md#namespaces: an error MUST be generated for duplicates.
        if slot.is_own() {
            return Err(Error::config(property("type"), format!("namespace {:?} is listed twice", &**kind)));
        }
        *slot = match spec.path.as_deref() {
            None | Some("") => Namespace::New,
            Some(path) => Namespace::Join(absolute(path, || property("path"))?),
        };
        if let ("mount", Namespace::Join(path)) = (&**kind, &*slot)
            && is_callers_namespace(path, "mnt")
        {
            // pivot_root(2) changes the root of all who are in the namespace.
            let why = format!("{path:?} is the caller's own mount namespace, which would lose its root");
            return Err(Error::config(property("path"), why)
                .hint("without a path the container gets a mount namespace of its own"));
        }
    }
    Ok(out)
}

/// `linux.uidMappings` and `linux.gidMappings`, which belong to a user namespace. Callers may give them beside the path of
/// a namespace that has them already (containerd, CRI-O); whether they agree only who joins can tell.
pub fn id_maps(linux: &spec::Linux<'_>, namespaces: &Namespaces) -> Result<IdMaps> {
    let uid = linux.uid_mappings.as_deref().unwrap_or_default();
    let gid = linux.gid_mappings.as_deref().unwrap_or_default();
    for (list, property) in [(uid, "linux.uidMappings"), (gid, "linux.gidMappings")] {
        match namespaces.user {
            Namespace::Inherit if !list.is_empty() => {
                return Err(Error::config(property, "id mappings need a user namespace")
                    .hint("add {\"type\": \"user\"} to linux.namespaces"));
            }
            Namespace::New if list.is_empty() => {
                return Err(Error::config(property, "a new user namespace needs both uidMappings and gidMappings"));
            }
            _ => {}
        }
    }
    id_map_pair(uid, gid, "linux")
}

/// Both lists of `owner`, or neither.
pub fn id_map_pair(uid: &[spec::IdMapping<'_>], gid: &[spec::IdMapping<'_>], owner: &str) -> Result<IdMaps> {
    match (uid.is_empty(), gid.is_empty()) {
        (true, false) => Err(Error::config(format!("{owner}.gidMappings"), "needs uidMappings beside it")),
        (false, true) => Err(Error::config(format!("{owner}.uidMappings"), "needs gidMappings beside it")),
        _ => Ok(IdMaps {
            uid: id_map(uid, &format!("{owner}.uidMappings"))?,
            gid: id_map(gid, &format!("{owner}.gidMappings"))?,
        }),
    }
}

fn id_map(specs: &[spec::IdMapping<'_>], property: &str) -> Result<Vec<IdMapping>> {
    let mut map = Vec::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let part = |name: &str| format!("{property}[{i}].{name}");
        map.push(IdMapping {
            container: *required(&spec.container_id, || part("containerID"))?,
            host: *required(&spec.host_id, || part("hostID"))?,
            size: *required(&spec.size, || part("size"))?,
        });
    }
    check_id_map(&map, property)?;
    Ok(map)
}

/// What the kernel asks of uid_map and gid_map (user_namespaces(7)).
pub fn check_id_map(map: &[IdMapping], property: &str) -> Result<()> {
    if map.len() > MAX_ID_MAPPINGS {
        return Err(Error::config(property, format!("{} mappings, the kernel takes {MAX_ID_MAPPINGS}", map.len())));
    }
    for (i, mapping) in map.iter().enumerate() {
        if mapping.size == 0 {
            return Err(Error::config(format!("{property}[{i}].size"), "must not be 0"));
        }
        for (first, name) in [(mapping.container, "containerID"), (mapping.host, "hostID")] {
            // 4294967295 is no id: the last of the range may be 4294967294 at most.
            if u64::from(first) + u64::from(mapping.size) > u64::from(u32::MAX) {
                return Err(Error::config(format!("{property}[{i}].{name}"), "the range ends above 4294967294"));
            }
        }
    }
    for (side, name) in [((|m| m.container) as fn(&IdMapping) -> u32, "containerID"), (|m| m.host, "hostID")] {
        let mut order: Vec<usize> = (0..map.len()).collect();
        order.sort_unstable_by_key(|i| (side(&map[*i]), *i));
        for pair in order.windows(2) {
            let (low, high) = (&map[pair[0]], &map[pair[1]]);
            if side(high) - side(low) < low.size {
                let (first, second) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                return Err(Error::config(
                    format!("{property}[{second}].{name}"),
                    format!("the range overlaps {property}[{first}]"),
                ));
            }
        }
    }
    Ok(())
}

/// The kernel answers EINVAL to setuid(2) and setgid(2) with an id that a new user namespace does not map.
pub fn check_user_is_mapped(user: &User, namespaces: &Namespaces, maps: &IdMaps) -> Result<()> {
    if !namespaces.user.is_new() {
        return Ok(());
    }
    let check = |id: u32, map: &[IdMapping], property: String, list: &str| {
        if map.iter().any(|m| id.checked_sub(m.container).is_some_and(|offset| offset < m.size)) {
            return Ok(());
        }
        Err(Error::config(property, format!("id {id} is not mapped by {list}")))
    };
    check(user.uid, &maps.uid, "process.user.uid".into(), "linux.uidMappings")?;
    check(user.gid, &maps.gid, "process.user.gid".into(), "linux.gidMappings")?;
    for (i, gid) in user.additional_gids.iter().enumerate() {
        check(*gid, &maps.gid, format!("process.user.additionalGids[{i}]"), "linux.gidMappings")?;
    }
    Ok(())
}

/// `hostname` or `domainname`, which are the UTS namespace's.
pub fn uts_name(name: Option<Text<'_>>, property: &str, namespaces: &Namespaces) -> Result<Option<CString>> {
    let Some(name) = some_text(name) else { return Ok(None) };
    if !namespaces.uts.is_own() {
        return Err(Error::config(property, "needs a UTS namespace of the container")
            .hint("add {\"type\": \"uts\"} to linux.namespaces"));
    }
    if let Namespace::Join(path) = &namespaces.uts
        && is_callers_namespace(path, "uts")
    {
        let why =
            format!("the UTS namespace {path:?} in linux.namespaces is the caller's own, whose name it would change");
        return Err(Error::config(property, why).hint("without a path the container gets a UTS namespace of its own"));
    }
    if name.len() > MAX_UTS_NAME {
        return Err(Error::config(property, format!("{} bytes long, the kernel takes {MAX_UTS_NAME}", name.len())));
    }
    c_string(&name, || property.to_string()).map(Some)
}

pub fn time_offsets(offsets: Option<Map<'_, spec::TimeOffset<'_>>>, namespaces: &Namespaces) -> Result<TimeOffsets> {
    let mut out = TimeOffsets::default();
    for (clock, offset) in offsets.iter().flat_map(|map| map.iter()) {
        let property = format!("linux.timeOffsets.{}", &**clock);
        let nanosecs = offset.nanosecs.unwrap_or(0);
        if nanosecs > 999_999_999 {
            return Err(Error::config(format!("{property}.nanosecs"), format!("{nanosecs} is a second or more")));
        }
        let slot = match &**clock {
            "monotonic" => &mut out.monotonic,
            "boottime" => &mut out.boottime,
            other => return Err(unknown(property, "clock", other, ["monotonic", "boottime"].into_iter())),
        };
        *slot = Some((offset.secs.unwrap_or(0), nanosecs));
    }
    if !out.is_empty() && !namespaces.time.is_new() {
        let why = match namespaces.time {
            Namespace::Join(_) => "the offsets of a time namespace that is joined by path cannot be changed",
            _ => "needs a new time namespace",
        };
        return Err(Error::config("linux.timeOffsets", why).hint("add {\"type\": \"time\"} to linux.namespaces"));
    }
    Ok(out)
}

pub fn net_devices(devices: Option<Map<'_, spec::NetDevice<'_>>>, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    let mut out: Vec<NetDevice> = vec![];
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (host, device) in devices.iter().flat_map(|map| map.iter()) {
        let property = format!("linux.netDevices[{:?}]", &**host);
        if !namespaces.network.is_own() {
            return Err(Error::config("linux.netDevices", "needs a network namespace of the container")
                .hint("add {\"type\": \"network\"} to linux.namespaces"));
        }
        check_interface_name(host, &property)?;
        let container = device.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        let name = format!("{property}.name");
        check_interface_name(container, &name)?;
        // The kernel counts up a single %d and refuses any other % (dev_alloc_name).
        if container.replacen("%d", "", 1).contains('%') {
            return Err(Error::config(name, format!("{container:?}: only one %d can be filled in")));
        }
        let other = if container.contains('%') { None } else { taken.insert(container, host) };
        if let Some(other) = other {
            return Err(Error::config(name, format!("{container:?} is already the name of {other:?}")));
        }
        out.push(NetDevice { host: host.to_string(), container: container.to_string() });
    }
    Ok(out)
}

fn check_interface_name(name: &str, property: &str) -> Result<()> {
    let why = if name.is_empty() {
        "the name is empty"
    } else if name.len() > MAX_INTERFACE_NAME {
        "the name of an interface has at most 15 bytes"
    } else if name == "." || name == ".." || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        "not a name that an interface can have"
    } else {
        return Ok(());
    };
    Err(Error::config(property, format!("{name:?}: {why}")))
}

pub fn devices(specs: &[spec::Device<'_>]) -> Result<Vec<Device>> {
    let mut out: Vec<Device> = Vec::with_capacity(specs.len());
    // Where in `out` the device of a path is.
    let mut places: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (index, spec) in specs.iter().enumerate() {
        let property = |name: &str| format!("linux.devices[{index}].{name}");
        let path = absolute(required(&spec.path, || property("path"))?, || property("path"))?;
        if path.file_name().is_none() {
            return Err(Error::config(property("path"), format!("{path:?} does not name a file")));
        }
        // mknod(1): u is an unbuffered character device.
        let kind = match &**required(&spec.kind, || property("type"))? {
            "c" | "u" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            "p" => DeviceKind::Fifo,
            other => {
                return Err(Error::config(property("type"), format!("unknown type {other:?}")).hint("c, b, u or p"));
            }
        };
        let number = |value: &Option<i64>, name: &str, max: i64| match value {
            _ if kind == DeviceKind::Fifo => Ok(0),
            Some(number) if (0..=max).contains(number) => Ok(u32::try_from(*number).unwrap_or(0)),
            Some(number) => Err(Error::config(property(name), format!("{number} is not between 0 and {max}"))),
            None => Err(Error::config(property(name), "required property is missing")),
        };
        // Docker leaves the file type in: 0o020666. It is the type's to say, as in runc.
        let mode = spec.file_mode.map(|mode| mode & !libc::S_IFMT);
        if let Some(mode) = mode.filter(|mode| *mode > 0o7777) {
            return Err(Error::config(property("fileMode"), format!("{mode:#o} has bits that are no permissions")));
        }
        let owner = |id: Option<u32>, name: &str| match id {
            Some(u32::MAX) => Err(Error::config(property(name), "4294967295 is no id")),
            id => Ok(id),
        };
        let device = Device {
            index,
            kind,
            major: number(&spec.major, "major", MAX_MAJOR)?,
            minor: number(&spec.minor, "minor", MAX_MINOR)?,
            mode,
            uid: owner(spec.uid, "uid")?,
            gid: owner(spec.gid, "gid")?,
            path,
        };
        match places.entry(cleaned(&device.path)) {
            Entry::Vacant(place) => {
                place.insert(out.len());
                out.push(device);
            }
            // config-linux.md#devices: an error if what is there is another device; the first one's mode and owner stay.
            Entry::Occupied(place) => {
                let other = &out[*place.get()];
                if (other.kind, other.major, other.minor) != (device.kind, device.major, device.minor) {
                    return Err(Error::config(
                        property("path"),
                        format!("{:?} is already the path of linux.devices[{}]", device.path, other.index),
                    ));
                }
            }
        }
    }
    Ok(out)
}

/// `maskedPaths` or `readonlyPaths`: absolute paths, which only a mount namespace of the container's own can restrict.
pub fn restricted_paths(
    paths: Option<List<Text<'_>>>,
    property: &str,
    namespaces: &Namespaces,
) -> Result<Vec<PathBuf>> {
    let paths = paths.as_deref().unwrap_or_default();
    if !paths.is_empty() && !namespaces.mount.is_own() {
        return Err(Error::config(property, "needs a mount namespace of the container")
            .hint("add {\"type\": \"mount\"} to linux.namespaces"));
    }
    paths.iter().enumerate().map(|(i, path)| absolute(path, || format!("{property}[{i}]"))).collect()
}

/// Only keys that belong to a namespace which is not the caller's: any other would change the host.
pub fn sysctl(sysctl: Option<Map<'_, Text<'_>>>, namespaces: &Namespaces, has_hostname: bool) -> Result<Vec<Sysctl>> {
    let mut out: Vec<Sysctl> = vec![];
    let mut keys: BTreeMap<String, &str> = BTreeMap::new();
    for (key, value) in sysctl.iter().flat_map(|map| map.iter()) {
        let property = || format!("linux.sysctl[{:?}]", &**key);
        let path = sysctl_path(key).property(property)?;
        let Some((namespace, kind, proc_name)) = sysctl_namespace(&path, namespaces) else {
            return Err(Error::config(property(), "belongs to no namespace: it would change the host"));
        };
        let is_callers = match namespace {
            Namespace::Inherit => true,
            Namespace::New => false,
            Namespace::Join(path) => is_callers_namespace(path, proc_name),
        };
        if is_callers {
            return Err(Error::config(
                property(),
                format!("needs a {kind} namespace of the container: it would change the caller's"),
            ));
        }
        if path == "kernel/hostname" && has_hostname {
            return Err(Error::config(property(), "conflicts with hostname"));
        }
        if let Some(other) = keys.insert(path.clone(), key) {
            return Err(Error::config(property(), format!("is the same as {other:?}")));
        }
        out.push(Sysctl { key: key.to_string(), path, value: value.to_string() });
    }
    Ok(out)
}

/// The path below /proc/sys of a key in either notation: where dots come first, a slash is a dot of a name, as in
/// `net.ipv4.conf.eno2/100.rp_filter` (sysctl.d(5)).
fn sysctl_path(key: &str) -> Result<String> {
    let wrong = |why: &'static str| Err(Error::new(crate::error::Kind::Config, why));
    if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b)) {
        return wrong("only letters, digits and _ . / - may be in the name of a sysctl");
    }
    let dots_first = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'.');
    let path: String = match dots_first {
        true => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        false => key.to_string(),
    };
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return wrong("not the name of a sysctl");
    }
    Ok(path)
}

/// The namespace that the sysctl at `path` is part of, its name, and that of its link in /proc/self/ns.
fn sysctl_namespace<'a>(path: &str, namespaces: &'a Namespaces) -> Option<(&'a Namespace, &'static str, &'static str)> {
    // ipc/ipc_sysctl.c and ipc/mq_sysctl.c, net, kernel/utsname_sysctl.c, kernel/ucount.c.
    let is_ipc = match path.strip_prefix("kernel/") {
        Some(name) => name.starts_with("msg") || name.starts_with("shm") || name == "sem" || name == "sem_next_id",
        None => path.starts_with("fs/mqueue/"),
    };
    match path {
        _ if is_ipc => Some((&namespaces.ipc, "IPC", "ipc")),
        _ if path.starts_with("net/") => Some((&namespaces.network, "network", "net")),
        "kernel/domainname" | "kernel/hostname" => Some((&namespaces.uts, "UTS", "uts")),
        _ if path.starts_with("user/") => Some((&namespaces.user, "user", "user")),
        _ => None,
    }
}

/// `path` is the namespace that the caller itself is in. A path that cannot be looked at is refused when it is joined.
fn is_callers_namespace(path: &Path, proc_name: &str) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    match (id(path), id(&Path::new("/proc/self/ns").join(proc_name))) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => false,
    }
}

pub fn personality(spec: &spec::Personality<'_>) -> Result<Personality> {
    if spec.flags.as_deref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::config("linux.personality.flags", "no flags are supported"));
    }
    let property = || "linux.personality.domain".to_string();
    match &**required(&spec.domain, property)? {
        "LINUX" => Ok(Personality::Linux),
        "LINUX32" => Ok(Personality::Linux32),
        other => Err(Error::config(property(), format!("unknown domain {other:?}")).hint("LINUX or LINUX32")),
    }
}

const MPOL_DEFAULT: u32 = 0;
const MPOL_PREFERRED: u32 = 1;
const MPOL_BIND: u32 = 2;
const MPOL_LOCAL: u32 = 4;
const MPOL_PREFERRED_MANY: u32 = 5;

/// Modes of set_mempolicy(2) and their numbers in linux/mempolicy.h.
const MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", MPOL_DEFAULT),
    ("MPOL_PREFERRED", MPOL_PREFERRED),
    ("MPOL_BIND", MPOL_BIND),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", MPOL_LOCAL),
    ("MPOL_PREFERRED_MANY", MPOL_PREFERRED_MANY),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// What the spec calls the mode of a memory policy, whose flags may be in it.
pub fn memory_mode_name(mode: u32) -> &'static str {
    let flags = MODE_FLAGS.iter().fold(0, |flags, (_, bit)| flags | bit);
    MODES.iter().find(|(_, number)| *number == mode & !flags).map_or("", |(name, _)| name)
}

const MPOL_F_NUMA_BALANCING: u32 = 1 << 13;
const MPOL_F_RELATIVE_NODES: u32 = 1 << 14;
const MPOL_F_STATIC_NODES: u32 = 1 << 15;

const MODE_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", MPOL_F_NUMA_BALANCING),
    ("MPOL_F_RELATIVE_NODES", MPOL_F_RELATIVE_NODES),
    ("MPOL_F_STATIC_NODES", MPOL_F_STATIC_NODES),
];

pub fn memory_policy(spec: spec::MemoryPolicy<'_>) -> Result<MemoryPolicy> {
    let property = |name: &str| format!("linux.memoryPolicy.{name}");
    let name = required(&spec.mode, || property("mode"))?;
    let Some((_, mode)) = MODES.iter().find(|(known, _)| **known == **name) else {
        return Err(unknown(property("mode"), "mode", name, MODES.iter().map(|(name, _)| *name)));
    };
    let mut flags = 0;
    for (i, flag) in spec.flags.as_deref().unwrap_or_default().iter().enumerate() {
        let Some((_, bit)) = MODE_FLAGS.iter().find(|(known, _)| **known == **flag) else {
            let known = MODE_FLAGS.iter().map(|(name, _)| *name);
            return Err(unknown(property(&format!("flags[{i}]")), "flag", flag, known));
        };
        flags |= bit;
    }
    let nodes = match some_text(spec.nodes) {
        Some(list) => list_of_numbers(&list, MAX_NODES).property(|| property("nodes"))?,
        None => vec![],
    };
    // What the kernel answers EINVAL to (set_mempolicy(2), mm/mempolicy.c).
    let refuse = |part: &str, why: String| Err(Error::config(property(part), why));
    let restricting = flags & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);
    match *mode {
        MPOL_DEFAULT | MPOL_LOCAL if !nodes.is_empty() => return refuse("nodes", format!("{} takes none", &**name)),
        MPOL_DEFAULT | MPOL_LOCAL if flags != 0 => return refuse("flags", format!("{} takes none", &**name)),
        MPOL_PREFERRED if nodes.is_empty() && restricting != 0 => {
            return refuse("flags", "MPOL_PREFERRED without nodes takes none".into());
        }
        MPOL_DEFAULT | MPOL_LOCAL | MPOL_PREFERRED => {}
        _ if nodes.is_empty() => return refuse("nodes", format!("{} needs nodes", &**name)),
        _ => {}
    }
    if restricting == MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES {
        return refuse("flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other".into());
    }
    if flags & MPOL_F_NUMA_BALANCING != 0 && ![MPOL_BIND, MPOL_PREFERRED_MANY].contains(mode) {
        return refuse("flags", format!("MPOL_F_NUMA_BALANCING does not go with {}", &**name));
    }
    let mut node_mask = vec![];
    for node in nodes {
        let word = node as usize / 64;
        if node_mask.len() <= word {
            node_mask.resize(word + 1, 0);
        }
        node_mask[word] |= 1 << (node % 64);
    }
    Ok(MemoryPolicy { mode: mode | flags, node_mask })
}
