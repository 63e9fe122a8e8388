//! What the caller or the host lacks for a bundle.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::document::Lack;
use super::{Told, command};
use crate::cgroup::intent::Devices;
use crate::error::{Error, Result};
use crate::image::ids;
use crate::lifecycle::fuse;
use crate::plan::{IdMapping, Mount, MountKind, Plan, Process, is_real_time};
use crate::rootfs::intent;
use crate::sandbox::parent::NEEDS_USER_NAMESPACE;
use crate::security::capabilities;
use crate::sys::process;

// Numbers of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_RESOURCE: u32 = 24;

/// All of it, in the order of the steps.
pub fn of(told: &Told<'_>) -> Result<Vec<Lack>> {
    let plan = told.plan;
    let mut lacks = vec![];
    lacks.extend(state_directory(&told.runtime.root));
    cgroups(told, &mut lacks);
    if !plan.namespaces.user.is_own() && !has(CAP_SYS_ADMIN) {
        lacks.push(fails("linux.namespaces", "namespaces take CAP_SYS_ADMIN").hint(NEEDS_USER_NAMESPACE));
    }
    for (file, map, property) in
        [("uid_map", &plan.id_maps.uid, "linux.uidMappings"), ("gid_map", &plan.id_maps.gid, "linux.gidMappings")]
    {
        if plan.namespaces.user.is_new() && takes_helper(file, map, told.runtime.rootless) {
            id_map(file, map, property, &mut lacks);
        }
    }
    lacks.extend(fuse(plan));
    plan.mounts.iter().for_each(|one| mount(told, one, &mut lacks));
    for node in intent::devices(plan, told.kernel) {
        let sources = intent::device_sources(&node);
        if !sources.is_empty() && sources.iter().all(|path| !path.exists()) {
            let (major, minor) = node.number;
            let cause = format!(
                "in a user namespace devices cannot be made, and the host has no device {major}:{minor} to bind"
            );
            lacks.push(fails(&node.property.unwrap_or_default(), cause));
        }
    }
    if !plan.net_devices.is_empty() && !has(CAP_NET_ADMIN) {
        lacks.push(fails("linux.netDevices", "a network device of the host takes CAP_NET_ADMIN to move"));
    }
    hooks(plan, &mut lacks);
    if let Some(process) = &plan.process {
        of_process(told, process, &mut lacks);
    }
    Ok(lacks)
}

fn fails(property: &str, cause: impl Into<String>) -> Lack {
    let property = (!property.is_empty()).then(|| property.to_owned());
    Lack { property, cause: cause.into(), way_out: None, fails: true }
}

impl Lack {
    fn hint(self, way_out: &str) -> Self {
        Self { way_out: Some(way_out.into()), ..self }
    }

    /// Not an error of create: what was asked for is left out.
    fn left_out(self) -> Self {
        Self { fails: false, ..self }
    }

    fn of_error(error: &Error) -> Self {
        let cause = fails(error.property().unwrap_or_default(), error.cause());
        Self { way_out: error.way_out().map(String::from), ..cause }
    }
}

/// Whether this process has the capability in effect; over the initial user namespace, unless it is in another.
fn has(capability: u32) -> bool {
    process::capabilities().is_ok_and(|[effective, ..]| effective & (1 << capability) != 0)
}

/// The capabilities that the container's process has before it gives any up: all in a user namespace of its own.
pub fn held(plan: &Plan) -> u64 {
    if plan.namespaces.user.is_own() {
        u64::MAX
    } else {
        process::capabilities().map_or(0, |[_, permitted, _]| permitted)
    }
}

fn state_directory(root: &Path) -> Option<Lack> {
    let there = root.ancestors().find(|path| path.exists())?;
    let refused = access(there, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    let cause = format!("no state can be kept in {}: {}", root.display(), refused.desc().to_ascii_lowercase());
    Some(fails("", cause).hint("--root DIR, or XDG_RUNTIME_DIR"))
}

fn cgroups(told: &Told<'_>, lacks: &mut Vec<Lack>) {
    let intent = told.intent;
    // As cgroup::make_directories and limits::unless_unprivileged have it.
    let may_do_without = told.runtime.rootless || super::super::is_in_user_namespace();
    if intent.is_ignored {
        lacks.push(fails("linux.resources", "cgroups are disabled").left_out());
    }
    if let Some((_, _, errno)) = intent.closed.first() {
        let hierarchies: Vec<&str> = intent.closed.iter().map(|(key, ..)| command::hierarchy(key)).collect();
        let cause =
            format!("no cgroup may be made in {}: {}", hierarchies.join(", "), errno.desc().to_ascii_lowercase());
        lacks.push(Lack { fails: !may_do_without, ..fails("linux.cgroupsPath", cause) });
    }
    lacks.extend(intent.refused.iter().map(Lack::of_error));
    for write in intent.writes.iter().filter(|write| write.is_closed()) {
        let cause = format!("{} may not be written to", write.path.display());
        lacks.push(fails(write.property.as_deref().unwrap_or_default(), cause));
    }
    const DEVICES: &str = "linux.resources.devices";
    match &intent.devices {
        Devices::Lines { .. } | Devices::Program { .. } if may_do_without => {
            let cause = "device rules take privilege over the host: its devices are guarded by their owners";
            lacks.push(fails(DEVICES, cause).left_out());
        }
        Devices::Nowhere { .. } if !told.plan.resources.devices.is_empty() => {
            let cause = "the container is in no cgroup hierarchy with device rules";
            lacks.push(Lack { fails: !may_do_without, ..fails(DEVICES, cause) });
        }
        _ => {}
    }
}

/// What an overlay that fuse-overlayfs makes takes.
fn fuse(plan: &Plan) -> Option<Lack> {
    let why = intent::by_fuse(plan)?;
    if fuse::program().is_none() {
        let cause = format!("{why}, and fuse-overlayfs is not in PATH");
        return Some(fails("root.path", cause).hint(fuse::INSTALL));
    }
    let refused = access("/dev/fuse", AccessFlags::R_OK | AccessFlags::W_OK).err()?;
    Some(fails("root.path", format!("{why}, and /dev/fuse cannot be opened: {}", refused.desc().to_ascii_lowercase())))
}

/// Whether the kernel asks for more privilege than a user has to write `map` (user_namespaces(7)): more than the user's own id.
pub fn takes_helper(file: &str, map: &[IdMapping], rootless: bool) -> bool {
    let own = match file {
        "uid_map" => nix::unistd::geteuid().as_raw(),
        _ => nix::unistd::getegid().as_raw(),
    };
    rootless && !matches!(map, [IdMapping { host, size: 1, .. }] if *host == own)
}

/// A map that newuidmap(1) or newgidmap(1) has to write.
fn id_map(file: &str, map: &[IdMapping], property: &str, lacks: &mut Vec<Lack>) {
    let (helper, ranges) = if file == "uid_map" { ("newuidmap", "/etc/subuid") } else { ("newgidmap", "/etc/subgid") };
    if in_path(helper).is_none() {
        let install = "install it: package uidmap on Debian, shadow-utils on Fedora";
        lacks.push(fails(property, format!("{helper} not found")).hint(install));
        return;
    }
    let given = ids::subordinate(ranges);
    let own = match file {
        "uid_map" => nix::unistd::geteuid().as_raw(),
        _ => nix::unistd::getegid().as_raw(),
    };
    let is_given = |line: &&IdMapping| {
        let (first, end) = (u64::from(line.host), u64::from(line.host) + u64::from(line.size));
        (line.host == own && line.size == 1)
            || given
                .iter()
                .any(|(start, count)| u64::from(*start) <= first && end <= u64::from(*start) + u64::from(*count))
    };
    for line in map.iter().filter(|line| !is_given(line)) {
        let cause = format!("{ranges} does not give this user the {} ids from {} on", line.size, line.host);
        lacks.push(fails(property, cause));
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| access(path.as_path(), AccessFlags::X_OK).is_ok())
}

fn mount(told: &Told<'_>, mount: &Mount, lacks: &mut Vec<Lack>) {
    let property = format!("mounts[{}]", mount.index);
    if intent::needs_set_attributes(mount) && !told.kernel.set_attributes {
        let cause = "recursive attributes and id-mapped mounts need mount_setattr(2)";
        lacks.push(fails(&property, cause).hint("Linux 5.12 or newer"));
    }
    match &mount.kind {
        MountKind::Bind { source, .. } => {
            if !told.made.contains(source)
                && let Err(error) = std::fs::metadata(source)
            {
                let error = Error::from(error);
                lacks.push(fails(&property, format!("{}: {}", source.display(), error.cause())));
            }
            if mount.id_map.is_some() && !has(CAP_SYS_ADMIN) {
                lacks.push(fails(&property, "an id-mapped mount takes privilege over its file system"));
            }
        }
        MountKind::FileSystem { fs_type, .. } => {
            if let Some((cause, way_out)) = intent::refused_type(told.plan, fs_type) {
                lacks.push(Lack { way_out: way_out.map(String::from), ..fails(&property, cause) });
            }
        }
        MountKind::Cgroup { .. } | MountKind::Remount { .. } => {}
    }
}

fn hooks(plan: &Plan, lacks: &mut Vec<Lack>) {
    let hooks = &plan.hooks;
    // Those of startContainer are looked for in the container.
    let of_host = [&hooks.prestart, &hooks.create_runtime, &hooks.create_container, &hooks.poststart, &hooks.poststop];
    for hook in of_host.into_iter().flatten() {
        if let Err(errno) = access(hook.path.as_path(), AccessFlags::X_OK) {
            let cause = format!("{}: {}", hook.path.display(), errno.desc().to_ascii_lowercase());
            lacks.push(fails(&hook.property, cause));
        }
    }
}

fn of_process(told: &Told<'_>, process: &Process, lacks: &mut Vec<Lack>) {
    let (_, missing) = capabilities::available(process.capabilities, held(told.plan));
    if !missing.is_empty() {
        let cause = format!("the caller has none of {}", missing.join(", "));
        lacks.push(fails("process.capabilities", cause).left_out());
    }
    if let Some(score) = process.oom_score_adj {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
        if score < own.unwrap_or(0).min(0) && !has(CAP_SYS_RESOURCE) {
            let lack = fails("process.oomScoreAdj", format!("lowering it to {score} takes CAP_SYS_RESOURCE"));
            lacks.push(Lack { fails: !told.runtime.rootless, ..lack });
        }
    }
    let takes_nice = [
        ("process.scheduler", process.scheduler.as_ref().is_some_and(|s| is_real_time(s.policy) || s.nice < 0)),
        ("process.ioPriority", process.io_priority.is_some_and(|priority| priority.class == 1)),
    ];
    for (property, _) in takes_nice.into_iter().filter(|(_, is_asked)| *is_asked && !has(CAP_SYS_NICE)) {
        lacks.push(fails(property, "it takes CAP_SYS_NICE"));
    }
    for rlimit in &process.rlimits {
        let is_raised = process::hard_limit(rlimit.resource).is_ok_and(|hard| rlimit.hard > hard);
        if is_raised && !has(CAP_SYS_RESOURCE) {
            let cause = format!("raising the hard limit of {} takes CAP_SYS_RESOURCE", rlimit.name);
            lacks.push(fails(&format!("process.rlimits[{}]", rlimit.index), cause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_id_alone_takes_no_helper() {
        let uid = nix::unistd::geteuid().as_raw();
        let map = |host, size| [IdMapping { container: 0, host, size }];
        assert!(!takes_helper("uid_map", &map(uid, 1), true));
        assert!(takes_helper("uid_map", &map(uid, 2), true));
        assert!(takes_helper("uid_map", &map(uid + 1, 1), true));
        assert!(!takes_helper("uid_map", &map(uid + 1, 9), false));
    }
}
