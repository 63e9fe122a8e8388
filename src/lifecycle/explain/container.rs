//! The steps of the container's process.

use serde_json::Value;

use super::document::Item;
use super::write::{DEFAULT, of_hook, of_mount};
use super::{Told, command, lacks};
use crate::error::Result;
use crate::plan::{self, DeviceKind, Process};
use crate::rootfs::intent;
use crate::sandbox::process::FilterTime;
use crate::sandbox::{init, parent, stage};
use crate::security::capabilities;

/// What the step `name` would do; `None` for one that is not known here.
pub fn items(told: &Told<'_>, name: &str) -> Result<Option<Vec<Item>>> {
    let plan = told.plan;
    let of_hooks = |point: &'static str, hooks: &[plan::Hook]| hooks.iter().map(|hook| of_hook(point, hook)).collect();
    let process = plan.process.as_ref();
    let of_process =
        |items: fn(&Told<'_>, &Process) -> Vec<Item>| process.map_or(vec![], |process| items(told, process));
    Ok(Some(match name {
        "start a session" => vec![Item::of("setsid", "no controlling terminal of the caller's", None)],
        "map ids" if stage::makes_user_namespace(plan) => vec![],
        "map ids" => id_maps(told),
        "join the cgroups" => join_cgroups(told),
        // Told with the others.
        "join namespaces" | "make a cgroup namespace" => vec![],
        "make a session keyring" => vec![Item::of("keyring", format!("_ses.{}", told.id), None)],
        "bring up the loopback device" if plan.namespaces.network.is_new() => {
            vec![Item::of("lo", "up", Some("linux.namespaces"))]
        }
        "bring up the loopback device" => vec![],
        "mount the root file system" => root(told),
        "mount file systems" => intent::mounts(plan, told.view, told.kernel)?.iter().map(of_mount).collect(),
        "make devices" => devices(told),
        "run host hooks" => {
            let devices = plan.net_devices.iter().map(command::of_net_device);
            let hooks = plan.hooks.prestart.iter().map(|hook| of_hook("prestart", hook));
            devices
                .chain(hooks)
                .chain(plan.hooks.create_runtime.iter().map(|hook| of_hook("createRuntime", hook)))
                .collect()
        }
        "run createContainer hooks" => of_hooks("createContainer", &plan.hooks.create_container),
        "enter the root file system" => {
            let call = if plan.namespaces.mount.is_own() { "pivot_root" } else { "chroot" };
            vec![Item::of(call, plan.root.path.display().to_string(), Some("root.path"))]
        }
        "make the working directory" => of_process(|_, process| {
            vec![Item::of("mkdir, if it is missing", process.cwd.display().to_string(), Some("process.cwd"))]
        }),
        "open the terminal" => of_process(terminal),
        "write sysctls" => {
            let sysctl = |sysctl: &plan::Sysctl| {
                Item::new()
                    .with("file", format!("/proc/sys/{}", sysctl.path))
                    .with("value", sysctl.value.as_str())
                    .with("property", format!("linux.sysctl[{:?}]", sysctl.key))
            };
            plan.sysctl.iter().map(sysctl).collect()
        }
        "set host and domain name" => {
            let name =
                |what: &str, name: &std::ffi::CStr, property| Item::of(what, name.to_string_lossy(), Some(property));
            let host = plan.hostname.iter().map(|host| name("host name", host, "hostname"));
            host.chain(plan.domainname.iter().map(|domain| name("domain name", domain, "domainname"))).collect()
        }
        "protect paths" => intent::protection(plan, told.kernel).iter().map(of_mount).collect(),
        "set priorities" => of_process(priorities),
        "set memory policy and personality" => memory_policy_and_personality(told),
        "set labels" => of_process(labels),
        "set rlimits" => of_process(rlimits),
        "enter the working directory" => {
            of_process(|_, process| vec![Item::of("chdir", process.cwd.display().to_string(), Some("process.cwd"))])
        }
        "load the seccomp filter with privilege" => seccomp(told, |time| time == FilterTime::BeforeUser),
        "become the user" => of_process(user),
        "find the program" => of_process(|_, process| {
            vec![Item::of(
                "program",
                process.args.first().map(|word| word.to_string_lossy().into_owned()),
                Some("process.args"),
            )]
        }),
        "load the seccomp filter with a listener" => seccomp(told, |time| time == FilterTime::BeforeReady),
        init::WAIT_FOR_START => vec![Item::of("until", "start tells it to go on", None)],
        init::START_HOOKS => of_hooks("startContainer", &plan.hooks.start_container),
        init::EXECUTE => {
            let mut items = seccomp(told, FilterTime::is_last);
            items.extend(of_process(execute));
            items
        }
        _ => return Ok(None),
    }))
}

/// The lines of uid_map and gid_map.
pub fn id_maps(told: &Told<'_>) -> Vec<Item> {
    let (plan, rootless) = (told.plan, told.runtime.rootless);
    let mut items = vec![];
    if !plan.namespaces.user.is_new() {
        return items;
    }
    if parent::denies_setgroups(&plan.id_maps, rootless) {
        items.push(
            Item::new()
                .with("file", "setgroups")
                .with("value", "deny")
                .with("by", "write")
                .with("property", Value::Null),
        );
    }
    let maps = &plan.id_maps;
    for (file, map, property, helper) in [
        ("uid_map", &maps.uid, "linux.uidMappings", "newuidmap"),
        ("gid_map", &maps.gid, "linux.gidMappings", "newgidmap"),
    ] {
        let helper = Some(helper).filter(|_| lacks::takes_helper(file, map, rootless));
        items.extend(command::of_map(file, map, property, helper));
    }
    items
}

fn join_cgroups(told: &Told<'_>) -> Vec<Item> {
    let places = told.intent.record.places.iter();
    let place = |(key, place): (&String, &crate::cgroup::Place)| match key.is_empty() {
        true => Item::of("born in", place.path.display().to_string(), None),
        false => Item::of("write 0 to", place.path.join("tasks").display().to_string(), None),
    };
    places.map(place).collect()
}

fn root(told: &Told<'_>) -> Vec<Item> {
    let mut items = vec![];
    if let Some(propagation) = intent::propagation_of_host_tree(told.plan) {
        items.push(
            Item::new()
                .with("destination", "the host's /")
                .with("type", "remount")
                .with("source", "")
                .with("options", vec![propagation])
                .with("calls", vec!["mount"])
                .with("property", "linux.rootfsPropagation")
                .with("note", "nothing that is mounted from here on reaches the host, unless it is asked for"),
        );
    }
    items.extend(intent::root(told.plan, told.kernel).iter().map(of_mount));
    items
}

fn devices(told: &Told<'_>) -> Vec<Item> {
    let node = |node: intent::Node| {
        let kind = match node.kind {
            DeviceKind::Char => "c",
            DeviceKind::Block => "b",
            DeviceKind::Fifo => "p",
        };
        let number = (node.kind != DeviceKind::Fifo).then(|| format!("{}:{}", node.number.0, node.number.1));
        Item::new()
            .with("path", node.path.display().to_string())
            .with("type", kind)
            .with("device", number)
            .with("mode", format!("{:04o}", node.mode))
            .with("owner", format!("{}:{}", node.owner.0, node.owner.1))
            .with("calls", node.calls)
            .with("property", node.property.unwrap_or_else(|| DEFAULT.into()))
    };
    let link = |(path, target): (std::path::PathBuf, &str)| {
        Item::new()
            .with("path", path.display().to_string())
            .with("type", "link")
            .with("device", target)
            .with("mode", Value::Null)
            .with("owner", Value::Null)
            .with("calls", vec!["symlinkat"])
            .with("property", DEFAULT)
    };
    let nodes = intent::devices(told.plan, told.kernel).into_iter().map(node);
    nodes.chain(intent::links(told.plan).into_iter().map(link)).collect()
}

fn terminal(_: &Told<'_>, process: &Process) -> Vec<Item> {
    if !process.terminal {
        return vec![];
    }
    let size = process.console_size.map(|(height, width)| format!("{height} lines of {width}"));
    vec![Item::of("/dev/console", size.unwrap_or_else(|| "a pty".into()), Some("process.terminal"))]
}

fn priorities(_: &Told<'_>, process: &Process) -> Vec<Item> {
    let mut items = vec![];
    if let Some(scheduler) = &process.scheduler {
        let name = plan::scheduler_policy_name(scheduler.policy);
        let plan::Scheduler { nice, priority, runtime, deadline, period, .. } = scheduler;
        let numbers = [
            ("nice", i64::from(*nice)),
            ("priority", i64::from(*priority)),
            ("runtime", i64::try_from(*runtime).unwrap_or(i64::MAX)),
            ("deadline", i64::try_from(*deadline).unwrap_or(i64::MAX)),
            ("period", i64::try_from(*period).unwrap_or(i64::MAX)),
        ];
        let set = numbers.iter().filter(|(_, number)| *number != 0).map(|(what, number)| format!(" {what} {number}"));
        items.push(Item::of("scheduler", format!("{name}{}", set.collect::<String>()), Some("process.scheduler")));
    }
    if let Some(priority) = process.io_priority {
        let class = match priority.class {
            1 => "IOPRIO_CLASS_RT",
            2 => "IOPRIO_CLASS_BE",
            _ => "IOPRIO_CLASS_IDLE",
        };
        items.push(Item::of("I/O priority", format!("{class} {}", priority.level), Some("process.ioPriority")));
    }
    items
}

fn memory_policy_and_personality(told: &Told<'_>) -> Vec<Item> {
    let mut items = vec![];
    if let Some(policy) = &told.plan.memory_policy {
        let nodes: Vec<String> = policy.node_mask.iter().map(|word| format!("{word:#x}")).collect();
        let value = format!("{} nodes {}", plan::memory_mode_name(policy.mode), nodes.join(" "));
        items.push(Item::of("memory policy", value.trim_end_matches(" nodes "), Some("linux.memoryPolicy")));
    }
    if let Some(personality) = told.plan.personality {
        let domain = match personality {
            plan::Personality::Linux => "LINUX",
            plan::Personality::Linux32 => "LINUX32",
        };
        items.push(Item::of("personality", domain, Some("linux.personality")));
    }
    items
}

fn labels(_: &Told<'_>, process: &Process) -> Vec<Item> {
    let apparmor = process.apparmor_profile.iter();
    let apparmor = apparmor.map(|profile| Item::of("AppArmor", profile.as_str(), Some("process.apparmorProfile")));
    let selinux = process.selinux_label.iter();
    apparmor.chain(selinux.map(|label| Item::of("SELinux", label.as_str(), Some("process.selinuxLabel")))).collect()
}

fn rlimits(_: &Told<'_>, process: &Process) -> Vec<Item> {
    let rlimit = |rlimit: &plan::Rlimit| {
        Item::new()
            .with("rlimit", rlimit.name)
            .with("soft", limit(rlimit.soft))
            .with("hard", limit(rlimit.hard))
            .with("property", format!("process.rlimits[{}]", rlimit.index))
    };
    process.rlimits.iter().map(rlimit).collect()
}

fn limit(value: u64) -> Value {
    if value == u64::MAX { "unlimited".into() } else { value.into() }
}

fn user(told: &Told<'_>, process: &Process) -> Vec<Item> {
    let user = &process.user;
    let mut items = vec![
        Item::of("uid", user.uid, Some("process.user.uid")),
        Item::of("gid", user.gid, Some("process.user.gid")),
        Item::of("groups", or_none(user.additional_gids.clone()), Some("process.user.additionalGids")),
        Item::of("umask", format!("{:04o}", user.umask.unwrap_or(0o022)), Some("process.user.umask")),
    ];
    let (sets, _) = capabilities::available(process.capabilities, lacks::held(told.plan));
    for (what, mask) in [
        ("bounding", sets.bounding),
        ("effective", sets.effective),
        ("permitted", sets.permitted),
        ("inheritable", sets.inheritable),
        ("ambient", sets.ambient),
    ] {
        let property = format!("process.capabilities.{what}");
        items.push(Item::of(&format!("{what} capabilities"), or_none(capabilities::names(mask)), Some(&property)));
    }
    let property = Some("process.noNewPrivileges");
    items.push(Item::of("no_new_privs", process.no_new_privileges, property));
    items
}

fn or_none<T: Into<Value>>(list: Vec<T>) -> Value {
    if list.is_empty() { "none".into() } else { list.into() }
}

/// The filter, where it is loaded at a time for which `is_then` holds.
fn seccomp(told: &Told<'_>, is_then: impl Fn(FilterTime) -> bool) -> Vec<Item> {
    let (Some(filter), Some(process)) = (&told.plan.seccomp, &told.plan.process) else { return vec![] };
    if !is_then(FilterTime::of(filter, process)) {
        return vec![];
    }
    let item = |what: &str, value: Value, property: &str| Item::of(what, value, Some(property));
    let native = plan::native_arch().name();
    let mut names = vec![native];
    names.extend(filter.architectures.iter().map(|arch| arch.name()).filter(|name| *name != native));
    let mut items = vec![
        item("filter", format!("{} instructions", filter.program.instructions.len()).into(), "linux.seccomp"),
        item("rules", filter.rules.into(), "linux.seccomp.syscalls"),
        item("default action", filter.default_action.name().into(), "linux.seccomp.defaultAction"),
        item("architectures", names.into(), "linux.seccomp.architectures"),
    ];
    let flags = plan::seccomp_flag_names(filter.flags | filter.default_flags);
    if !flags.is_empty() {
        items.push(item("flags", flags.into(), "linux.seccomp.flags"));
    }
    if let Some(listener) = &filter.listener {
        items.push(item("listener", listener.path.display().to_string().into(), "linux.seccomp.listenerPath"));
    }
    items
}

fn execute(_: &Told<'_>, process: &Process) -> Vec<Item> {
    let words: Vec<String> = process.args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let shown = words.iter().map(|word| if word.contains(' ') { format!("{word:?}") } else { word.clone() });
    let line = shown.collect::<Vec<_>>().join(" ");
    vec![
        Item::of("environment", format!("{} variables", process.env.len()), Some("process.env")),
        Item::of("execve", line, Some("process.args")),
    ]
}
