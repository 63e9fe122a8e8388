//! `explain`: what it tells is what a container of the same bundle then has, and it does nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::rootless::rootless;
use crate::harness::bundle::capability_bits;
use crate::harness::{Bundle, Cmd, Context, Outcome, Test, Value, json};
use crate::sys::{self, BeforeExec};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "cgroup_files_are_as_told", run: cgroup_files },
    Test { name: "device_rules_are_as_told", run: device_rules },
    Test { name: "mounts_are_as_told", run: mounts },
    Test { name: "devices_are_as_told", run: devices },
    Test { name: "process_is_as_told", run: process },
    Test { name: "namespaces_are_as_told", run: namespaces },
    Test { name: "needs_no_privilege_and_changes_nothing", run: changes_nothing },
    Test { name: "opens_nothing_for_writing", run: opens_nothing },
    Test { name: "what_a_user_lacks_is_named", run: user_lacks },
    Test { name: "errors_are_those_of_create", run: errors },
    Test { name: "text_has_the_steps_in_order", run: text },
];

const MIB: u64 = 1 << 20;

fn explain<'c>(ctx: &'c Context, bundle: &Path, id: &str) -> Cmd<'c> {
    ctx.maker().args(["explain", "--json", "--bundle"]).arg(bundle).arg(id)
}

/// The items of the step `name`.
fn step<'d>(document: &'d Value, name: &str) -> Outcome<&'d Vec<Value>> {
    let steps = document["steps"].as_array().into_iter().flatten();
    let found = steps.filter(|step| step["name"] == name).find_map(|step| step["items"].as_array());
    found.ok_or_else(|| format!("no step {name:?} in {document}").into())
}

/// A bundle with limits of all controllers that the host has.
fn limited(ctx: &Context) -> Outcome<Bundle<'_>> {
    ctx.need_kelson("explain")?;
    let mut bundle = ctx.bundle()?;
    for (controller, key, limit) in [
        ("memory", "memory", json!({"limit": 64 * MIB, "reservation": 32 * MIB})),
        ("cpu", "cpu", json!({"quota": 50_000, "period": 100_000, "shares": 512})),
        ("pids", "pids", json!({"limit": 17})),
    ] {
        if ctx.cgroups.has(controller) {
            bundle.set(&format!("/linux/resources/{key}"), limit);
        }
    }
    Ok(bundle)
}

/// The writes of all steps: file and value, without those to a file that takes many.
fn writes(document: &Value) -> Vec<(PathBuf, String)> {
    let items =
        document["steps"].as_array().into_iter().flatten().filter_map(|step| step["items"].as_array()).flatten();
    let write = |item: &Value| {
        let file = item["file"].as_str().or(item["what"].as_str())?;
        let is_file =
            file.starts_with("/sys/fs/cgroup/") && !file.contains("/devices.") && !file.ends_with("subtree_control");
        is_file.then(|| (PathBuf::from(file), item["value"].as_str().unwrap_or_default().to_owned()))
    };
    items.filter_map(write).collect()
}

fn cgroup_files(ctx: &Context) -> Outcome {
    let mut bundle = limited(ctx)?;
    let mut container = bundle.guest(&["sleep"]).container()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    let told = writes(&document);
    check!(!told.is_empty() || !ctx.cgroups.has("pids"), "no write in {document}");
    check!(told.iter().all(|(file, _)| !file.exists()), "there already: {told:?}");
    container.create()?.ok()?;
    for (file, value) in &told {
        let seen = fs::read_to_string(file).map_err(|e| format!("read {}: {e}", file.display()))?;
        check_eq!(seen.trim_end(), value, "{}", file.display());
    }
    // Each limit has its property.
    let properties: Vec<&str> = document["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|step| step["items"].as_array())
        .flatten()
        .filter_map(|item| item["property"].as_str())
        .collect();
    for (controller, property) in [("memory", "memory.limit"), ("cpu", "cpu.quota"), ("pids", "pids.limit")] {
        let is_told = properties.contains(&&*format!("linux.resources.{property}"));
        check_eq!(is_told, ctx.cgroups.has(controller), "{property} in {properties:?}");
    }
    // The cgroups are where it said.
    for item in step(&document, "find a place for the cgroups")? {
        let path = item["cgroup"].as_str().unwrap_or_default();
        check!(Path::new(path).is_dir(), "no cgroup {path}");
    }
    container.delete_force()?.ok()?;
    container.forget();
    Ok(())
}

fn device_rules(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = ctx.bundle()?;
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}),
    );
    let mut container = bundle.guest(&["sleep"]).container()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    if !ctx.is_v2() && ctx.cgroups.has("devices") {
        let items = step(&document, "make the cgroups and set limits")?;
        let lines =
            items.iter().filter(|item| item["file"].as_str().is_some_and(|file| file.ends_with("/devices.allow")));
        let mut told: Vec<&str> = lines.clone().filter_map(|item| item["value"].as_str()).collect();
        let of_config: Vec<&Value> = lines.filter(|item| item["property"] != "default").collect();
        check_eq!(of_config.len(), 1, "rules of the config: {of_config:?}");
        check_eq!(of_config[0]["property"], "linux.resources.devices[1]", "its property");
        container.create()?.ok()?;
        let seen = container.cgroup_file("devices", "devices.list")?;
        let mut seen: Vec<&str> = seen.lines().collect();
        told.sort_unstable();
        seen.sort_unstable();
        check_eq!(seen, told, "devices.list");
        container.delete_force()?.ok()?;
        container.forget();
        return Ok(());
    }
    let items = step(&document, "complete the cgroups")?;
    let of_config = items.iter().find(|item| item["property"] == "linux.resources.devices[1]");
    check_eq!(of_config.map(|item| item["value"].clone()), Some(json!("c 10:229 rw")), "the rule of the config");
    check!(items.iter().any(|item| item["what"] == "program"), "no program in {items:?}");
    container.forget();
    Ok(())
}

fn mounts(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = ctx.bundle()?;
    let source = ctx.new_dir("source")?;
    bundle.mount("/mnt/in", "bind", &source, &["rbind", "ro", "nosuid"]);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["nodev", "ro", "size=64k"]);
    let container = bundle.container()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    let told = step(&document, "mount file systems")?;
    let report = container.run_command().run()?.ok()?.report()?;
    let seen = report.mounts();
    let mut at = 0;
    for item in told.iter().filter(|item| item["type"] != "remount") {
        let destination = item["destination"].as_str().unwrap_or_default();
        // In this order: each after the one before.
        let found = seen.iter().skip(at).position(|mount| mount.target == destination);
        let found = found.ok_or_else(|| format!("{destination} is not mounted after the ones before it: {seen:?}"))?;
        let mount = &seen[at + found];
        at += found + 1;
        if !["bind", "rbind"].contains(&item["type"].as_str().unwrap_or_default()) {
            check_eq!(mount.fs_type, item["type"].as_str().unwrap_or_default(), "type of {destination}");
        }
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            let is_told = item["options"].as_array().into_iter().flatten().any(|one| one == option);
            // What a v1 hierarchy has is set for all of them at once, later.
            if is_told || !destination.starts_with("/sys/fs/cgroup") {
                check_eq!(
                    mount.has(option) && report.mount(destination)?.has(option),
                    is_told,
                    "{option} of {destination}"
                );
            }
        }
    }
    check!(told.iter().all(|item| item["calls"].as_array().is_some_and(|calls| !calls.is_empty())), "calls: {told:?}");
    let of_tmp = told.iter().find(|item| item["destination"] == "/tmp").map(|item| item["options"].clone());
    // It looks like the directory that it covers.
    check_eq!(of_tmp, Some(json!(["ro", "nodev", "size=64k", "mode=1777"])), "options of /tmp");
    check!(report.mount("/tmp")?.super_has("size=64k"), "{:?}", report.mount("/tmp")?);
    Ok(())
}

fn devices(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = ctx.bundle()?;
    bundle.push(
        "/linux/devices",
        json!({"path": "/dev/kelson-null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6}),
    );
    let mut container = bundle.guest(&["sleep"]).container()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    container.create()?.ok()?;
    let root = PathBuf::from(format!("/proc/{}/root", container.pid()?));
    let items = step(&document, "make devices")?;
    let mut told = vec![];
    for item in items {
        let path = item["path"].as_str().unwrap_or_default();
        told.push(path);
        let file = root.join(path.trim_start_matches('/'));
        let info = fs::symlink_metadata(&file).map_err(|e| format!("look at {}: {e}", file.display()))?;
        if item["type"] == "link" {
            let target = fs::read_link(&file)?;
            check_eq!(target.to_str(), item["device"].as_str(), "target of {path}");
            continue;
        }
        let number = format!("{}:{}", nix::sys::stat::major(info.rdev()), nix::sys::stat::minor(info.rdev()));
        check_eq!(number, item["device"].as_str().unwrap_or_default(), "number of {path}");
        check_eq!(format!("{:04o}", info.mode() & 0o7777), item["mode"].as_str().unwrap_or_default(), "mode of {path}");
        let owner = format!("{}:{}", info.uid(), info.gid());
        check_eq!(owner, item["owner"].as_str().unwrap_or_default(), "owner of {path}");
    }
    let mut missing: Vec<String> = fs::read_dir(root.join("dev"))?
        .flatten()
        .map(|e| format!("/dev/{}", e.file_name().to_string_lossy()))
        .collect();
    missing.retain(|path| !told.contains(&&**path) && !["/dev/pts", "/dev/shm", "/dev/mqueue"].contains(&&**path));
    check!(missing.is_empty(), "not told: {missing:?}");
    container.delete_force()?.ok()?;
    container.forget();
    Ok(())
}

fn process(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 7, "gid": 8, "umask": 0o27, "additionalGids": [9, 10]}));
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]}),
    );
    let container = bundle.container()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    let report = container.run_command().run()?.ok()?.report()?;
    let told: BTreeMap<&str, &Value> = step(&document, "become the user")?
        .iter()
        .map(|item| (item["what"].as_str().unwrap_or_default(), &item["value"]))
        .collect();
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let names = told[&*format!("{set} capabilities")];
        let names: Vec<&str> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // As another user than root the program has what is ambient (capabilities(7)).
        let becomes = if ["effective", "permitted"].contains(&set) { vec![] } else { names };
        check_eq!(report.capabilities(set), capability_bits(&becomes), "{set} capabilities");
    }
    check_eq!(*told["uid"], json!(7), "uid");
    check_eq!(*told["groups"], json!([9, 10]), "groups");
    check_eq!(*told["umask"], json!("0027"), "umask");
    let rlimit = &step(&document, "set rlimits")?[0];
    check_eq!((&rlimit["rlimit"], &rlimit["hard"]), (&json!("RLIMIT_NOFILE"), &json!(1024)), "rlimit");
    let last = step(&document, "load the seccomp filter and execute the program")?;
    let of = |what: &str| last.iter().find(|item| item["what"] == what).map(|item| item["value"].clone());
    check_eq!(of("default action"), Some(json!("SCMP_ACT_ALLOW")), "default action");
    check_eq!(of("rules"), Some(json!(1)), "rules");
    check_eq!(of("execve"), Some(json!("/bin/guest report")), "program");
    Ok(())
}

fn namespaces(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = ctx.bundle()?;
    bundle.namespace("uts", Some("/proc/self/ns/uts")).remove("/hostname");
    let container = bundle.container()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    let report = container.run_command().run()?.ok()?.report()?;
    let items = step(&document, "clone")?;
    check_eq!(items.len(), 8, "kinds of namespaces");
    for item in items {
        let kind = item["namespace"].as_str().unwrap_or_default();
        let file = match kind {
            "network" => "net",
            "mount" => "mnt",
            other => other,
        };
        let Ok(own) = fs::read_link(format!("/proc/self/ns/{file}")) else { continue };
        let is_own = report.namespace(file) == own.to_string_lossy();
        let is_told_new = item["which"] == "new";
        check_eq!(!is_own, is_told_new, "{kind}: {item}");
        if kind == "uts" {
            check_eq!(item["which"], "that of /proc/self/ns/uts", "what is joined");
        }
    }
    Ok(())
}

/// Every path below `dir`, with what changes when it is written to.
fn snapshot(dir: &Path, into: &mut BTreeMap<PathBuf, (u64, i64, i64, u32)>) -> Outcome {
    let info = fs::symlink_metadata(dir)?;
    into.insert(dir.into(), (info.size(), info.mtime_nsec(), info.ctime_nsec(), info.mode()));
    if info.is_dir() {
        for entry in fs::read_dir(dir)? {
            snapshot(&entry?.path(), into)?;
        }
    }
    Ok(())
}

fn changes_nothing(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = rootless(ctx)?;
    let container = bundle.container()?;
    // Somebody else's, who lets it be read.
    crate::harness::bundle::give(&bundle.dir, 0)?;
    for path in [&ctx.dir, &bundle.dir] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    let cgroups = ctx.cgroups.existing(&ctx.cgroup_parent);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for dir in [&bundle.dir, &ctx.root, &ctx.dir.join("run")] {
        snapshot(dir, &mut before)?;
    }
    let text = ctx.runtime().args(["explain", "-b"]).arg(&bundle.dir).arg(&container.id).run()?.ok()?.out();
    check!(text.contains("mount file systems (container)"), "{text}");
    explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    for dir in [&bundle.dir, &ctx.root, &ctx.dir.join("run")] {
        snapshot(dir, &mut after)?;
    }
    check_eq!(after, before, "files of bundle and state");
    check!(ctx.state_entries().is_empty(), "state: {:?}", ctx.state_entries());
    check_eq!(ctx.cgroups.existing(&ctx.cgroup_parent), cgroups, "cgroups");
    check_eq!(fs::read_to_string("/proc/self/mountinfo")?, mounts, "mounts");
    Ok(())
}

fn opens_nothing(ctx: &Context) -> Outcome {
    let mut bundle = limited(ctx)?;
    let container = bundle.guest(&["sleep"]).container()?;
    let plain = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.out();
    let changing = [
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_unlinkat,
        libc::SYS_symlinkat,
        libc::SYS_linkat,
        libc::SYS_renameat2,
        libc::SYS_fchmodat,
        libc::SYS_fchownat,
        libc::SYS_ftruncate,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_fsmount,
        libc::SYS_fsconfig,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_bpf,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_socket,
        libc::SYS_kill,
        libc::SYS_sethostname,
        libc::SYS_setxattr,
        libc::SYS_pwrite64,
        libc::SYS_sendmsg,
    ];
    let mut command = explain(ctx, &bundle.dir, &container.id);
    // Its flags are behind a pointer; without it openat(2) does.
    command = command.before_exec(BeforeExec::Seccomp(sys::hide_calls(&[libc::SYS_openat2], libc::ENOSYS)));
    // In place of a call that would change something, or a file that is opened for writing, the end.
    command = command.before_exec(BeforeExec::Seccomp(killing(sys::hide_calls(&changing, 0))));
    for (mask, value) in
        [(libc::O_ACCMODE, libc::O_WRONLY), (libc::O_ACCMODE, libc::O_RDWR), (libc::O_CREAT, libc::O_CREAT)]
    {
        let filter = sys::denying(libc::SYS_openat, 2, mask as u32, value as u32, 0);
        command = command.before_exec(BeforeExec::Seccomp(killing(filter)));
        #[cfg(target_arch = "x86_64")]
        {
            let filter = sys::denying(libc::SYS_open, 1, mask as u32, value as u32, 0);
            command = command.before_exec(BeforeExec::Seccomp(killing(filter)));
        }
    }
    command.run()?.ok()?.prints(&plain)?;
    Ok(())
}

/// The same filter, which kills where it answered an error number.
fn killing(mut filter: Vec<(u16, u8, u8, u32)>) -> Vec<(u16, u8, u8, u32)> {
    for instruction in &mut filter {
        let is_return = i32::from(instruction.0) == libc::BPF_RET as i32 | libc::BPF_K as i32;
        if is_return && instruction.3 & 0xffff_0000 == libc::SECCOMP_RET_ERRNO {
            instruction.3 = libc::SECCOMP_RET_KILL_PROCESS;
        }
    }
    filter
}

fn user_lacks(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = rootless(ctx)?;
    bundle.set("/linux/resources/memory", json!({"limit": 64 * MIB}));
    bundle.mount("/mnt", "ext4", "/dev/sda", &[]);
    bundle.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 4_000_000, "size": 10}]));
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "hard": u64::MAX, "soft": 0}]));
    let container = bundle.container()?;
    crate::harness::bundle::give(&bundle.dir, ctx.user.load(std::sync::atomic::Ordering::Relaxed))?;
    let limit = BeforeExec::Rlimit(libc::RLIMIT_CORE, 0, 0);
    let document = explain(ctx, &bundle.dir, &container.id).before_exec(limit).run()?.ok()?.json()?;
    check_eq!(document["rootless"], json!(true), "rootless");
    let lacks = document["lacks"].as_array().cloned().unwrap_or_default();
    let lack = |property: &str| {
        let found = lacks.iter().find(|lack| lack["property"] == property);
        found.cloned().ok_or_else(|| format!("nothing of {property} in {lacks:?}"))
    };
    check_eq!(lack("linux.resources.memory.limit")?["fails"], json!(true), "the limit");
    let cause = lack("linux.resources.memory.limit")?["cause"].to_string();
    check!(cause.contains("memory"), "{cause}");
    let of_mount = lacks.iter().find(|lack| lack["cause"].as_str().is_some_and(|cause| cause.contains("ext4")));
    check!(
        of_mount.is_some_and(|lack| lack["property"].as_str().is_some_and(|p| p.starts_with("mounts["))),
        "{lacks:?}"
    );
    check_eq!(lack("linux.uidMappings")?["fails"], json!(true), "the map");
    check_eq!(lack("process.rlimits[0]")?["fails"], json!(true), "the rlimit");
    // create says so too.
    let said = container.run_command().run()?;
    check!(said.code != 0, "it runs all the same");
    // Without a user namespace a user can have none of it.
    bundle.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings").write()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    let is_told = document["lacks"].to_string().contains("CAP_SYS_ADMIN");
    check!(is_told, "{}", document["lacks"]);
    Ok(())
}

fn errors(ctx: &Context) -> Outcome {
    ctx.need_kelson("explain")?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.set("/linux/maskedPaths", json!(["relative"])).container()?;
    let created = container.create()?;
    let told = explain(ctx, &bundle.dir, &container.id).run()?;
    check_eq!((told.code, told.err()), (created.code, created.err()), "a wrong property");
    bundle
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/resources/memory", json!({"limit": 2000, "swap": 1000}))
        .write()?;
    let created = container.create()?.err();
    let told = explain(ctx, &bundle.dir, &container.id).run()?.exits(1)?.err();
    check!(told.contains("linux.resources.memory.swap"), "{told}");
    check!(created.ends_with(&told), "create says {created}, explain {told}");
    ctx.runtime().args(["explain", "--bundle", "/no/such"]).run()?.exits(1)?.fails_saying(&["/no/such"])?;
    ctx.runtime().args(["explain", "--bundle"]).arg(&bundle.dir).arg("a/b").run()?.exits(1)?;
    ctx.runtime().args(["explain", "a", "b"]).run()?.exits(1)?.fails_saying(&["unexpected argument"])?;
    container.forget();
    Ok(())
}

fn text(ctx: &Context) -> Outcome {
    let mut bundle = limited(ctx)?;
    let container = bundle.guest(&["sleep"]).container()?;
    let text = ctx.runtime().args(["explain", "-b"]).arg(&bundle.dir).arg(&container.id).run()?.ok()?.out();
    let heads = [
        "reserve the state directory (kelson)",
        "find a place for the cgroups (kelson)",
        "clone (kelson)",
        "mount the root file system (container)",
        "mount file systems (container)",
        "make devices (container)",
        "enter the root file system (container)",
        "protect paths (container)",
        "become the user (container)",
        "load the seccomp filter and execute the program (container)",
        "lacking",
    ];
    let mut rest = text.as_str();
    for head in heads {
        let at =
            rest.find(&format!("\n{head}\n")).ok_or_else(|| format!("{head:?} is not where it belongs in {text}"))?;
        rest = &rest[at + 1..];
    }
    // Without a name the bundle's directory gives one.
    let name = bundle.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let text = ctx.runtime().args(["explain", "-b"]).arg(&bundle.dir).run()?.ok()?.out();
    check!(text.starts_with(&format!("create {name:?} of ")), "{text}");
    Ok(())
}

/// With the systemd driver: what systemd says of the unit.
pub(super) fn unit(ctx: &Context) -> Outcome {
    ctx.use_systemd()?;
    let mut bundle = limited(ctx)?;
    let mut container = bundle.guest(&["sleep"]).container()?;
    let document = explain(ctx, &bundle.dir, &container.id).run()?.ok()?.json()?;
    let items = step(&document, "ask systemd for the unit")?;
    let unit = items.first().map(|item| item["value"].clone()).unwrap_or_default();
    check_eq!(unit, json!(ctx.unit(&container.id)), "the unit");
    container.create()?.ok()?;
    for item in items.iter().skip(1) {
        let (name, value) = (item["what"].as_str().unwrap_or_default(), item["value"].as_str().unwrap_or_default());
        if !["MemoryMax", "MemoryLow", "TasksMax", "CPUWeight", "Delegate", "Slice", "Description"].contains(&name) {
            continue;
        }
        let shown = ctx.command("systemctl").args(["show", "--property", name]).arg(ctx.unit(&container.id));
        let seen = shown.run()?.ok()?.out();
        let value = if name == "Delegate" { "yes" } else { value };
        check_eq!(seen.trim_end(), format!("{name}={value}"), "property of the unit");
    }
    container.delete_force()?.ok()?;
    container.forget();
    Ok(())
}
