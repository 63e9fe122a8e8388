//! The steps that the command itself and the stage do.

use serde_json::Value;

use super::document::Item;
use super::write::{of_device_lines, of_device_program, of_hook, of_write};
use super::{Told, steps};
use crate::cgroup;
use crate::cgroup::intent::{Devices, When};
use crate::error::Result;
use crate::plan::{Namespace, NetDevice};
use crate::rootfs;
use crate::sandbox::{NAMESPACE_KINDS, parent, stage};

/// What delete runs.
pub const POSTSTOP: &str = "when it is deleted: run poststop hooks";

/// What the step `name` would do.
pub fn items(told: &Told<'_>, name: &str) -> Result<Vec<Item>> {
    Ok(match name {
        steps::RESERVE => {
            vec![Item::of("make directory", told.runtime.root.join(told.id).display().to_string(), None)]
        }
        steps::LOCATE => places(told),
        steps::UNIT => unit(told),
        steps::PREPARE => prepare(told)?,
        steps::CGROUPS => cgroups(told),
        steps::CLONE => namespaces(told),
        stage::ENTER => enter(told),
        steps::COMPLETE => complete(told),
        steps::KEEP => of_process(told),
        steps::SAVE => vec![Item::of("status", "created", None)],
        steps::POSTSTART => told.plan.hooks.poststart.iter().map(|hook| of_hook("poststart", hook)).collect(),
        POSTSTOP => told.plan.hooks.poststop.iter().map(|hook| of_hook("poststop", hook)).collect(),
        _ => vec![],
    })
}

/// The container's cgroup in each hierarchy.
fn places(told: &Told<'_>) -> Vec<Item> {
    let intent = told.intent;
    let place = |hierarchy: &str, path: String, how: String| {
        Item::new().with("hierarchy", hierarchy).with("cgroup", path).with("how", how)
    };
    let mut items: Vec<Item> = vec![];
    for (key, at) in &intent.record.places {
        let how = match &intent.record.unit {
            Some(unit) if cgroup::systemd::makes(key) => format!("made by systemd for {}", unit.name),
            _ if intent.record.made.contains(&at.path) => "made by mkdir".into(),
            _ => "there already".into(),
        };
        items.push(place(hierarchy(key), at.path.display().to_string(), how));
    }
    let closed = intent.closed.iter();
    items.extend(closed.map(|(key, path, errno)| {
        place(hierarchy(key), path.display().to_string(), format!("left out: {}", errno.desc().to_ascii_lowercase()))
    }));
    items
}

/// How a hierarchy is called whose key this is.
pub fn hierarchy(key: &str) -> &str {
    if key.is_empty() { "cgroup2" } else { key }
}

fn unit(told: &Told<'_>) -> Vec<Item> {
    let Some(unit) = &told.intent.record.unit else { return vec![] };
    let item = |name: &str, value: Value| Item::of(name, value, None);
    let mut items = vec![item("StartTransientUnit", unit.name.as_str().into())];
    items.extend(told.intent.properties.iter().map(|property| item(&property.name, property.value.text().into())));
    items
}

/// What is opened and made before the container's process is there.
fn prepare(told: &Told<'_>) -> Result<Vec<Item>> {
    let mut items = vec![];
    for kind in &NAMESPACE_KINDS {
        if let Namespace::Join(path) = (kind.of)(&told.plan.namespaces) {
            let what = format!("open {} namespace", kind.name);
            items.push(Item::of(&what, path.display().to_string(), Some("linux.namespaces")));
        }
    }
    let mounts = rootfs::intent::root(told.plan, told.kernel).into_iter();
    for mount in mounts.chain(rootfs::intent::mounts(told.plan, told.view, told.kernel)?) {
        if !mount.calls_before.is_empty() {
            let what = format!("{} for {}", mount.kind, mount.destination.display());
            let how = format!("{}: {}", mount.source, mount.calls_before.join(","));
            items.push(Item::of(&what, how, mount.property.as_deref()));
        }
    }
    Ok(items)
}

/// Directories and what is written before the container's process is born.
fn cgroups(told: &Told<'_>) -> Vec<Item> {
    let intent = told.intent;
    let mut items: Vec<Item> = intent.writes.iter().filter(|w| w.when == When::BeforeBirth).map(of_write).collect();
    if let Devices::Lines { path, lines } = &intent.devices {
        items.extend(of_device_lines(&format!("{}/", path.display()), lines));
    }
    items
}

/// What becomes of each kind of namespace, and by which call.
fn namespaces(told: &Told<'_>) -> Vec<Item> {
    let plan = told.plan;
    let (cloned, has_stage) = (stage::clone_flags(plan), stage::is_needed(plan));
    let mut items = vec![];
    for kind in &NAMESPACE_KINDS {
        let (how, call) = match (kind.of)(&plan.namespaces) {
            Namespace::Inherit => ("the caller's".to_owned(), None),
            Namespace::New if cloned & kind.flag != 0 => ("new".into(), Some("clone3")),
            Namespace::New if kind.name == "cgroup" => ("new".into(), Some("unshare, in its cgroup")),
            Namespace::New => ("new".into(), Some("unshare, by the stage")),
            Namespace::Join(path) if has_stage => (format!("that of {}", path.display()), Some("setns, by the stage")),
            Namespace::Join(path) => (format!("that of {}", path.display()), Some("setns")),
        };
        items.push(
            Item::new()
                .with("namespace", kind.name)
                .with("which", how)
                .with("call", call)
                .with("property", Some("linux.namespaces").filter(|_| call.is_some())),
        );
    }
    items
}

/// What the stage does beside namespaces, and the maps that it waits for.
fn enter(told: &Told<'_>) -> Vec<Item> {
    let mut items = vec![];
    if stage::makes_user_namespace(told.plan) {
        items.extend(super::container::id_maps(told));
    }
    for line in stage::offsets_text(&told.plan.time_offsets).lines() {
        items.push(Item::of("/proc/self/timens_offsets", line, Some("linux.timeOffsets")));
    }
    items
}

/// What is written when the container's process is born.
fn complete(told: &Told<'_>) -> Vec<Item> {
    let intent = told.intent;
    let mut items: Vec<Item> = vec![];
    for write in intent.writes.iter().filter(|write| write.when == When::AfterBirth) {
        items.push(Item::of(&write.path.display().to_string(), write.value.as_str(), write.property.as_deref()));
    }
    match &intent.devices {
        Devices::Program { path, lines, instructions } => {
            items.extend(of_device_program(&path.display().to_string(), lines, *instructions));
        }
        Devices::AsInParent => {
            items.push(Item::of("device rules", "none: all that the parent cgroup allows", None));
        }
        Devices::Lines { .. } | Devices::Nowhere { .. } | Devices::None => {}
    }
    if let Some(user) = told.plan.cgroup_owner().filter(|_| intent.record.unified().is_some()) {
        items.push(Item::of("owner of the cgroup", user, None));
    }
    items
}

/// What is set from outside.
fn of_process(told: &Told<'_>) -> Vec<Item> {
    let score = told.plan.process.as_ref().and_then(|process| process.oom_score_adj);
    score.map(|score| Item::of("oom_score_adj", score, Some("process.oomScoreAdj"))).into_iter().collect()
}

/// A network device of the host that moves.
pub fn of_net_device(device: &NetDevice) -> Item {
    let property = format!("linux.netDevices[{:?}]", device.host);
    Item::new()
        .with("point", "network device")
        .with("path", format!("{} becomes {}", device.host, device.container))
        .with("args", Value::Null)
        .with("timeout_seconds", Value::Null)
        .with("property", property)
}

/// The lines of a map, and who writes them.
pub fn of_map(file: &str, map: &[crate::plan::IdMapping], property: &str, helper: Option<&str>) -> Vec<Item> {
    let line = |line: &str| {
        Item::new()
            .with("file", file)
            .with("value", line)
            .with("by", helper.unwrap_or("write"))
            .with("property", property)
    };
    parent::map_text(map).lines().map(line).collect()
}
