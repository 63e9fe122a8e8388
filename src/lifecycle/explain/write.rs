//! Values of other types as fields.

use serde_json::Value;

use super::document::Item;
use crate::cgroup::devices::Lines;
use crate::cgroup::intent::{Intended as Write, Otherwise};
use crate::plan::Hook;
use crate::rootfs::intent::Intended as Mount;

/// A write to a file of a cgroup.
pub fn of_write(write: &Write) -> Item {
    let otherwise = match &write.otherwise {
        None => Value::Null,
        Some(Otherwise::Nothing) => "skipped".into(),
        Some(Otherwise::Instead { file, value }) => format!("{file} = {value}").into(),
    };
    Item::new()
        .with("file", write.path.display().to_string())
        .with("value", write.value.as_str())
        .with("if_missing", otherwise)
        .with("unit_property", write.unit_properties.clone())
        .with("property", write.property.clone())
}

/// Device rules as lines for files of the v1 cgroup at `path`.
pub fn of_device_lines(path: &str, lines: &Lines) -> Vec<Item> {
    let line = |file: &str, value: &str, property: &str| {
        Item::new()
            .with("file", format!("{path}{file}"))
            .with("value", value)
            .with("if_missing", Value::Null)
            .with("unit_property", Value::Null)
            .with("property", property)
    };
    let mut items = vec![line(lines.default_file, "a", DEVICES)];
    items.extend(lines.exceptions.iter().map(|exception| {
        line(lines.exceptions_file, &exception.value, exception.property.as_deref().unwrap_or(DEFAULT))
    }));
    items
}

const DEVICES: &str = "linux.resources.devices";
/// In place of a property, for what every container has.
pub const DEFAULT: &str = "default";

/// Device rules as a program of `instructions` for the v2 cgroup at `path`.
pub fn of_device_program(path: &str, lines: &Lines, instructions: usize) -> Vec<Item> {
    let (first, others) = match lines.default_file {
        "devices.deny" => ("deny", "allow"),
        _ => ("allow", "deny"),
    };
    let rule = |what: &str, value: &str, property: &str| Item::of(what, value, Some(property));
    let mut items = vec![rule(first, "a *:* rwm", DEVICES)];
    items.extend(
        lines.exceptions.iter().map(|line| rule(others, &line.value, line.property.as_deref().unwrap_or(DEFAULT))),
    );
    items.push(Item::of("program", format!("eBPF, {instructions} instructions, attached to {path}"), Some(DEVICES)));
    items
}

/// A mount, by the calls that the container's process makes.
pub fn of_mount(mount: &Mount) -> Item {
    Item::new()
        .with("destination", mount.destination.display().to_string())
        .with("type", mount.kind.as_str())
        .with("source", mount.source.as_str())
        .with("options", mount.options.clone())
        .with("calls", mount.calls.clone())
        .with("property", mount.property.clone())
        .with("note", mount.note.clone())
}

/// A hook of `point`.
pub fn of_hook(point: &str, hook: &Hook) -> Item {
    Item::new()
        .with("point", point)
        .with("path", hook.path.display().to_string())
        .with("args", hook.args.clone())
        .with("timeout_seconds", hook.timeout.map(|timeout| timeout.as_secs()))
        .with("property", hook.property.as_str())
}
