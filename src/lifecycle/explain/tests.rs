use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::cgroup::Driver;

/// What is told of a config with these parts more, in a bundle that has nothing but a root directory.
fn told(parts: Value) -> Result<Explanation> {
    let bundle = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut config = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "src"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true", "two words"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]},
    });
    for (key, value) in parts.as_object().unwrap() {
        match value {
            Value::Object(more) if config[key].is_object() => config[key].as_object_mut().unwrap().extend(more.clone()),
            value => config[key] = value.clone(),
        }
    }
    let runtime = Runtime { root: std::env::temp_dir(), is_explicit_root: true, driver: Driver::None, rootless: false };
    of_text(&runtime, &config.to_string(), &bundle, Some("web"), &Overrides::default(), &[])
}

fn step<'e>(told: &'e Explanation, name: &str) -> &'e [Item] {
    &told.steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step {name}")).items
}

fn field(items: &[Item], name: &str) -> Vec<Value> {
    items.iter().map(|item| item.get(name).cloned().unwrap_or_default()).collect()
}

#[test]
fn every_step_of_init_is_known() {
    let runtime = Runtime { root: std::env::temp_dir(), is_explicit_root: true, driver: Driver::None, rootless: false };
    let (bundle, host) = (PathBuf::from(env!("CARGO_MANIFEST_DIR")), runtime.host());
    let text = json!({"ociVersion": "1.3.0", "root": {"path": "src"}}).to_string();
    let plan = plan::plan(&text, &bundle, &host, &Overrides::default()).unwrap();
    let intent = intent::of(runtime.driver, None, "web", &plan.resources, &plan.annotations, false).unwrap();
    let view = made::view_of_cgroups(&intent.record).unwrap();
    let kernel = Calls::of_kernel();
    let told = Told { runtime: &runtime, plan: &plan, intent: &intent, view: &view, id: "web", kernel, made: &[] };
    for name in init::step_names() {
        assert!(container::items(&told, name).unwrap().is_some(), "{name}");
    }
    assert!(container::items(&told, "another step").unwrap().is_none());
}

#[test]
fn steps_are_in_the_order_of_create() {
    let names: Vec<&str> = told(json!({})).unwrap().steps.iter().map(|step| step.name).collect();
    let at = |name| names.iter().position(|found| *found == name).unwrap();
    let order = [
        steps::RESERVE,
        steps::CGROUPS,
        steps::CLONE,
        "map ids",
        "mount the root file system",
        "mount file systems",
        "make devices",
        "enter the root file system",
        "protect paths",
        "become the user",
        steps::SAVE,
        init::START_HOOKS,
        init::EXECUTE,
        steps::POSTSTART,
    ];
    assert!(order.windows(2).all(|two| at(two[0]) < at(two[1])), "{names:?}");
}

#[test]
fn mounts_have_their_final_options_and_calls() {
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "ro", "mode=755"]},
        {"destination": "/in", "source": "/etc", "options": ["rbind", "ro", "rshared"]},
    ]);
    let told = told(json!({"mounts": mounts})).unwrap();
    let items = step(&told, "mount file systems");
    assert_eq!(field(items, "destination"), ["/proc", "/dev", "/in"]);
    assert_eq!(field(items, "type"), ["proc", "tmpfs", "rbind"]);
    assert_eq!(
        field(items, "options"),
        [
            json!(["noexec", "nosuid", "rprivate"]),
            json!(["ro", "nosuid", "mode=755", "rprivate"]),
            json!(["ro", "rshared"])
        ]
    );
    assert_eq!(field(items, "property"), ["mounts[0]", "mounts[1]", "mounts[2]"]);
    // A shared mount among them, and the tree that it is copied from receives: nothing is private by itself.
    assert_eq!(field(items, "calls")[2].as_array().unwrap().first().unwrap(), "open_tree");
    // What has to wait is done with the protected paths.
    let late = step(&told, "protect paths");
    assert_eq!((field(late, "destination"), field(late, "options")), (vec![json!("/dev")], vec![json!(["ro"])]));
}

#[test]
fn devices_links_and_program_are_told() {
    let devices = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7}]);
    let told = told(json!({"linux": {"devices": devices}})).unwrap();
    let items = step(&told, "make devices");
    let null = items.iter().filter(|item| item.get("path") == Some(&json!("/dev/null"))).collect::<Vec<_>>();
    // It takes the place of the default one.
    assert_eq!(null.len(), 1);
    assert_eq!(null[0].get("owner"), Some(&json!("7:0")));
    assert_eq!(null[0].get("mode"), Some(&json!("0600")));
    assert_eq!(null[0].get("property"), Some(&json!("linux.devices[0]")));
    assert!(field(items, "type").iter().filter(|kind| **kind == "link").count() >= 5);
    let program = step(&told, init::EXECUTE);
    assert_eq!(field(program, "value").last(), Some(&json!("/bin/true \"two words\"")));
}

#[test]
fn a_filter_is_told_where_it_is_loaded() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]});
    let told = told(json!({"linux": {"seccomp": profile}})).unwrap();
    let items = step(&told, init::EXECUTE);
    let value = |what: &str| items.iter().find(|item| item.get("what") == Some(&json!(what))).unwrap().get("value");
    assert_eq!(value("rules"), Some(&json!(1)));
    assert_eq!(value("default action"), Some(&json!("SCMP_ACT_ERRNO")));
    assert_eq!(value("flags"), Some(&json!(["SPEC_ALLOW"])));
    assert!(value("filter").unwrap().as_str().unwrap().ends_with(" instructions"));
    assert!(step(&told, "load the seccomp filter with privilege").is_empty());
}

#[test]
fn what_is_missing_is_named_with_its_property() {
    let told = told(json!({
        "mounts": [{"destination": "/x", "source": "/no/such", "options": ["bind"]}],
        "hooks": {"prestart": [{"path": "/no/hook"}]},
        "linux": {"resources": {"memory": {"limit": 1024}}},
    }))
    .unwrap();
    let lack = |property: &str| told.lacks.iter().find(|lack| lack.property.as_deref() == Some(property)).unwrap();
    assert!(lack("mounts[0]").fails && lack("mounts[0]").cause.contains("no such file"));
    assert!(lack("hooks.prestart[0]").fails);
    // No cgroups, no limits.
    assert!(!lack("linux.resources").fails);
}

#[test]
fn what_contradicts_itself_is_creates_error() {
    let error = told(json!({"linux": {"maskedPaths": ["/x"], "namespaces": []}})).unwrap_err();
    assert_eq!(error.property(), Some("linux.maskedPaths"));
}
