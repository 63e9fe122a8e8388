//! `linux.cgroupsPath` and `linux.resources`: limits in both versions, device rules, freeze, removal (config-linux.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::chaos::number;
use crate::harness::{Bundle, Container, Context, Outcome, Peer, Test, Value, cgroup, children, eventually, json};
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "path_absolute", run: path_absolute },
    Test { name: "path_relative", run: path_relative },
    Test { name: "path_absent", run: path_absent },
    Test { name: "path_of_several_levels", run: path_deep },
    Test { name: "process_is_in_it_everywhere", run: process_is_in_it },
    Test { name: "exec_is_in_it", run: exec_is_in_it },
    Test { name: "removed_by_delete", run: removed_by_delete },
    Test { name: "parent_that_was_made_is_removed", run: parent_removed },
    Test { name: "parent_that_was_there_stays", run: parent_stays },
    Test { name: "parent_shared_by_two_goes_with_the_last", run: parent_shared },
    Test { name: "removed_with_children_inside", run: removed_with_children },
    Test { name: "busy_one_is_named_with_what_is_in_it", run: busy },
    Test { name: "nested_deeper_than_a_path_is_killed_and_removed", run: nested_deep },
    Test { name: "not_empty_is_refused_or_shared", run: not_empty },
    Test { name: "path_of_a_stopped_container_is_not_shared", run: same_path_twice },
    Test { name: "path_of_a_stopped_container_below_another_root_is_not_shared", run: same_path_below_another_root },
    Test { name: "manager_disabled", run: manager_disabled },
    Test { name: "memory_limit", run: memory_limit },
    Test { name: "memory_kernel", run: memory_kernel },
    Test { name: "memory_limit_is_enforced", run: memory_limit_is_enforced },
    Test { name: "memory_swap", run: memory_swap },
    Test { name: "memory_swap_unlimited", run: memory_swap_unlimited },
    Test { name: "memory_reservation", run: memory_reservation },
    Test { name: "memory_swappiness", run: memory_swappiness },
    Test { name: "memory_disable_oom_killer", run: memory_oom },
    Test { name: "memory_unlimited", run: memory_unlimited },
    Test { name: "memory_too_low_names_the_property", run: memory_too_low },
    Test { name: "memory_kernel_tcp", run: memory_kernel_tcp },
    Test { name: "memory_use_hierarchy", run: memory_use_hierarchy },
    Test { name: "memory_check_before_update", run: memory_check },
    Test { name: "cpu_shares", run: cpu_shares },
    Test { name: "cpu_quota_and_period", run: cpu_quota },
    Test { name: "cpu_quota_unlimited", run: cpu_quota_unlimited },
    Test { name: "cpu_burst", run: cpu_burst },
    Test { name: "cpu_idle", run: cpu_idle },
    Test { name: "cpu_idle_and_shares", run: cpu_idle_and_shares },
    Test { name: "cpu_realtime_period", run: cpu_realtime },
    Test { name: "cpuset", run: cpuset },
    Test { name: "pids_limit", run: pids_limit },
    Test { name: "pids_limit_is_enforced", run: pids_limit_is_enforced },
    Test { name: "pids_limit_unlimited", run: pids_limit_unlimited },
    Test { name: "pids_limit_zero_is_a_limit", run: pids_limit_zero },
    Test { name: "block_io_weight", run: block_io_weight },
    Test { name: "block_io_weight_of_a_device", run: block_io_weight_device },
    Test { name: "block_io_throttle", run: block_io_throttle },
    Test { name: "block_io_throttle_of_every_kind", run: block_io_throttle_all },
    Test { name: "hugepage_limit", run: hugepage_limit },
    Test { name: "hugepage_reservation", run: hugepage_reservation },
    Test { name: "limit_while_its_controller_is_being_enabled", run: being_enabled },
    Test { name: "network_class_and_priorities", run: network },
    Test { name: "unified", run: unified },
    Test { name: "unified_pids_max_of_zero", run: unified_pids_zero },
    Test { name: "pids_limit_of_one_in_a_joined_pid_namespace", run: pids_limit_one },
    Test { name: "memory_limit_is_not_blamed_for_an_earlier_container", run: memory_not_blamed },
    Test { name: "below_a_frozen_one_is_refused", run: below_frozen },
    Test { name: "exec_into_a_paused_one_waits_for_resume", run: exec_paused },
    Test { name: "exec_into_a_paused_one_can_be_interrupted", run: exec_paused_interrupted },
    Test { name: "devices_denied_by_default", run: devices_denied },
    Test { name: "devices_allowed_by_rule", run: devices_allowed },
    Test { name: "devices_in_order", run: devices_in_order },
    Test { name: "devices_access_letters", run: devices_access },
    Test { name: "devices_mknod_is_allowed", run: devices_mknod },
    Test { name: "devices_allow_all", run: devices_allow_all },
    Test { name: "devices_wildcard_minor", run: devices_wildcard },
    Test { name: "pause_and_resume", run: pause_and_resume },
    Test { name: "kill_of_a_paused_one", run: kill_paused },
    Test { name: "delete_force_of_a_paused_one", run: delete_paused },
    Test { name: "frozen_inside_by_the_container_is_killed", run: frozen_inside },
    Test { name: "resume_and_delete_force_below_a_frozen_one_say_which", run: delete_below_frozen },
    Test { name: "delete_force_while_somebody_freezes", run: delete_while_freezing },
    Test { name: "kill_beside_a_pause_ends_the_container", run: kill_beside_pause },
    Test { name: "limits_in_place_before_the_process", run: limits_before_process },
    Test { name: "no_limits_at_all", run: no_limits },
    Test { name: "fifty_times_leave_nothing", run: fifty_times },
    Test { name: "fifty_times_without_a_cgroup_leave_nothing", run: fifty_times_disabled },
];

/// A value, once on v1 and once on v2: controller, file, content.
struct Expected {
    v1: (&'static str, &'static str, &'static str),
    v2: (&'static str, &'static str, &'static str),
}

/// Sets `resources`, starts a sleeper, reads the file that the version has.
fn limit(ctx: &Context, resources: Value, expected: Expected) -> Outcome {
    let (controller, file, value) = if ctx.is_v2() { expected.v2 } else { expected.v1 };
    if controller.is_empty() {
        skip!("cgroup {} has no such limit", if ctx.is_v2() { "v2" } else { "v1" });
    }
    let container = sleeper(ctx, controller, resources)?;
    check!(container.cgroup(controller).is_dir(), "no cgroup {}", container.cgroup(controller).display());
    if !container.cgroup(controller).join(file).exists() {
        container.end()?;
        skip!("this kernel has no {file}");
    }
    let seen = container.cgroup_file(controller, file)?;
    check_eq!(seen, value, "{file}");
    container.end()
}

fn sleeper<'c>(ctx: &'c Context, controller: &str, resources: Value) -> Outcome<Container<'c>> {
    ctx.need_controller(controller)?;
    let mut bundle = ctx.bundle()?;
    for (key, value) in resources.as_object().into_iter().flatten() {
        bundle.set(&format!("/linux/resources/{key}"), value.clone());
    }
    bundle.guest(&["sleep"]).start()
}

/// A controller that every rig has.
fn any(ctx: &Context) -> &'static str {
    ["pids", "freezer"].into_iter().find(|c| ctx.cgroups.has(c)).unwrap_or("freezer")
}

fn path_absolute(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    check!(container.cgroup(any(ctx)).is_dir(), "no cgroup {}", container.cgroup(any(ctx)).display());
    let pid = container.pid()?;
    check!(cgroup::processes(&container.cgroup(any(ctx))).contains(&pid), "process {pid} is not in its cgroup");
    container.end()
}

/// The line of /proc/PID/cgroup for the hierarchy that the runtime uses.
fn own_line<'t>(ctx: &Context, text: &'t str) -> &'t str {
    let wanted = |l: &&str| if ctx.is_v2() { l.starts_with("0::") } else { l.contains(":pids:") };
    text.lines().find(wanted).unwrap_or_default()
}

/// Relative paths go below a place of the runtime's choice, the same each time.
fn path_relative(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let parent = ctx.cgroup_parent.trim_start_matches('/').to_owned();
    let mut container = bundle.container()?;
    let relative = format!("{parent}/{}", container.id);
    bundle.set("/linux/cgroupsPath", relative.clone()).guest(&["sleep"]).write()?;
    container.create()?.ok()?;
    container.start()?.ok()?;
    let pid = container.pid()?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let line = own_line(ctx, &own);
    check!(line.ends_with(&relative), "the cgroup does not end with {relative}: {line}");
    container.end()?;
    // A relative path below the runtime's own cgroup would not be seen by the leak check.
    let path = line.rsplit(':').next().unwrap_or_default();
    let left = ctx.cgroups.existing(path);
    check!(left.is_empty(), "left: {left:?}");
    let above = Path::new(path).parent().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    ctx.cgroups.existing(&above).iter().filter(|p| p.ends_with(&parent)).for_each(|p| cgroup::remove(p));
    Ok(())
}

fn path_absent(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.container()?;
    bundle.remove("/linux/cgroupsPath").guest(&["sleep"]).write()?;
    container.create()?.ok()?;
    container.start()?.ok()?;
    let own = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let line = own_line(ctx, &own);
    let path = line.rsplit(':').next().unwrap_or_default();
    check!(path.contains(&container.id), "the cgroup does not carry the container's id: {line}");
    container.end()?;
    check!(ctx.cgroups.existing(path).is_empty(), "left: {:?}", ctx.cgroups.existing(path));
    Ok(())
}

fn path_deep(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.container()?;
    let path = format!("{}/a/b.c/d e/{}", ctx.cgroup_parent, container.id);
    bundle.set("/linux/cgroupsPath", path.clone()).guest(&["sleep"]).write()?;
    container.create()?.ok()?;
    container.start()?.ok()?;
    let pid = container.pid()?;
    check!(cgroup::processes(&ctx.cgroups.path(any(ctx), &path)).contains(&pid), "process {pid} is not in {path}");
    container.end()?;
    check!(ctx.cgroups.existing(&path).is_empty(), "left: {:?}", ctx.cgroups.existing(&path));
    remove_parents_of_peers(ctx);
    Ok(())
}

/// runc and crun leave the parents that they made.
fn remove_parents_of_peers(ctx: &Context) {
    if ctx.peer != crate::harness::Peer::Kelson {
        ctx.cgroups.existing(&ctx.cgroup_parent).iter().for_each(|p| cgroup::remove(p));
    }
}

fn process_is_in_it(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let seen = container.report()?;
    for line in seen["cgroup"].as_array().into_iter().flatten().filter_map(|l| l.as_str()) {
        // In a hybrid layout a runtime may leave the unified hierarchy alone; on v2 there are no others.
        let ok = line.ends_with(&container.id) || line.starts_with("0::") != ctx.is_v2();
        check!(ok, "not in its cgroup: {line}");
    }
    container.end()
}

fn exec_is_in_it(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let init = container.report()?;
    check_eq!(container.exec(&["report"])?.ok()?.report()?["cgroup"], init["cgroup"], "cgroup of exec");
    container.end()
}

fn removed_by_delete(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let path = format!("{}/{}", ctx.cgroup_parent, container.id);
    check!(!ctx.cgroups.existing(&path).is_empty(), "no cgroup while it runs");
    container.end()?;
    check!(ctx.cgroups.existing(&path).is_empty(), "left: {:?}", ctx.cgroups.existing(&path));
    Ok(())
}

fn parent_removed(ctx: &Context) -> Outcome {
    ctx.need_kelson("removal of a parent that the runtime made")?;
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["sleep"]).start()?.end()?;
    let left = ctx.cgroups.existing(&ctx.cgroup_parent);
    check!(left.is_empty(), "left: {left:?}");
    bundle.guest(&["exit", "0"]).run()?.ok()?;
    let left = ctx.cgroups.existing(&ctx.cgroup_parent);
    check!(left.is_empty(), "left after a foreground run: {left:?}");
    Ok(())
}

fn parent_stays(ctx: &Context) -> Outcome {
    let parents: Vec<_> =
        ctx.cgroups.mounts.iter().map(|m| m.join(ctx.cgroup_parent.trim_start_matches('/'))).collect();
    for parent in &parents {
        fs::create_dir(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    }
    let result = ctx.bundle().and_then(|mut b| b.guest(&["sleep"]).start()?.end());
    let there: Vec<bool> = parents.iter().map(|p| p.is_dir()).collect();
    parents.iter().for_each(|p| cgroup::remove(p));
    result?;
    check!(there.iter().all(|t| *t), "a parent that the runtime did not make is gone: {parents:?} {there:?}");
    Ok(())
}

fn parent_shared(ctx: &Context) -> Outcome {
    let (mut one, mut two) = (ctx.bundle()?, ctx.bundle()?);
    let first = one.guest(&["sleep"]).start()?;
    let second = two.guest(&["sleep"]).start()?;
    first.end()?;
    check_eq!(second.status()?, "running", "status of the other");
    check!(second.cgroup(any(ctx)).is_dir(), "the other's cgroup is gone");
    second.end()?;
    if ctx.peer == crate::harness::Peer::Kelson {
        let left = ctx.cgroups.existing(&ctx.cgroup_parent);
        check!(left.is_empty(), "left: {left:?}");
    }
    Ok(())
}

fn removed_with_children(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["sleep"]).start()?;
    let path = format!("{}/{}", ctx.cgroup_parent, container.id);
    for dir in ctx.cgroups.existing(&path) {
        fs::create_dir_all(dir.join("inner/deeper"))?;
    }
    container.delete_force()?.ok()?;
    container.forget();
    check!(ctx.cgroups.existing(&path).is_empty(), "left: {:?}", ctx.cgroups.existing(&path));
    Ok(())
}

/// What the guest sees of its own cgroup, and may write to.
fn own_cgroup(ctx: &Context, bundle: &mut Bundle<'_>) -> String {
    bundle.without_mount("/sys/fs/cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    if !ctx.is_v2() {
        return "/sys/fs/cgroup/freezer".into();
    }
    // Without a namespace of its own it would see the host's, from the root on.
    bundle.namespace("cgroup", None);
    "/sys/fs/cgroup".into()
}

const DEEP_NAME: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";
/// So many of them are more than PATH_MAX.
const DEEP_LEVELS: usize = 50;

/// Removes what [`nested_deep`]'s guest made, where the runtime does not.
struct Nested(PathBuf);

impl Drop for Nested {
    fn drop(&mut self) {
        if std::env::set_current_dir(&self.0).is_err() {
            return;
        }
        let depth = (0..DEEP_LEVELS).take_while(|_| std::env::set_current_dir(DEEP_NAME).is_ok()).count();
        for pid in (0..=depth).flat_map(|_| {
            let pids = cgroup::processes_in(Path::new("."));
            let _ = std::env::set_current_dir("..");
            pids
        }) {
            // Whatever is left of the container.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // The leak check tells what this does not reach.
        let _ = std::env::set_current_dir(&self.0);
        (0..depth).for_each(|_| drop(std::env::set_current_dir(DEEP_NAME)));
        for _ in 0..depth {
            let _ = std::env::set_current_dir("..");
            let _ = eventually(Duration::from_secs(1), "", || fs::remove_dir(DEEP_NAME).ok());
        }
        let _ = std::env::set_current_dir("/");
    }
}

/// A container that may make cgroups does not hide there: its processes are found, and it can be deleted.
/// By a process of somebody else's, which is not the container's to end.
fn busy(ctx: &Context) -> Outcome {
    ctx.need_kelson("naming the processes that are left")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    let path = container.cgroup("freezer");
    let foreign = ctx.guest_command().arg("sleep").spawn()?;
    fs::write(path.join("cgroup.procs"), foreign.pid().to_string())?;
    let words = [&*path.to_string_lossy(), &format!("process {} in it", foreign.pid())];
    let judged = container.delete().and_then(|run| run.fails_saying(&words));
    foreign.signal(libc::SIGKILL)?;
    foreign.wait()?;
    judged?;
    container.delete()?.ok()?;
    check!(!path.exists(), "the cgroup is left");
    Ok(())
}

fn nested_deep(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    for verb in ["kill", "delete"] {
        let mut bundle = ctx.bundle()?;
        let own = own_cgroup(ctx, &mut bundle);
        let mut words = vec!["chdir", &own, ","];
        (0..DEEP_LEVELS).for_each(|_| words.extend(["mkdir", DEEP_NAME, ",", "chdir", DEEP_NAME, ","]));
        words.extend(["poke", "cgroup.procs", "0", ",", "ready", ",", "sleep"]);
        let mut container = bundle.without_namespace("pid").guest(&words).start()?;
        let _cleanup = Nested(container.cgroup("freezer"));
        container.hear("ready")?;
        check!(processes(&container).is_empty(), "the process is where its path is short enough");
        let pid = container.pid()?;
        let list = container.verb("ps").args(["--format", "json", &container.id]).run()?.ok()?.json()?;
        check_eq!(list, json!([pid]), "processes of the container");
        if verb == "kill" {
            container.verb("kill").args(["--all", &container.id, "KILL"]).run()?.ok()?;
            container.wait_status("stopped")?;
            container.delete()?.ok()?;
        } else {
            container.delete_force()?.ok()?;
        }
        container.forget();
        check!(!container.cgroup("freezer").exists(), "{} is left", container.cgroup("freezer").display());
    }
    Ok(())
}

/// Processes whose cgroup has a path that can be used.
fn processes(container: &Container<'_>) -> Vec<i32> {
    cgroup::processes(&container.cgroup("freezer"))
}

/// A container that has stopped, in a PID namespace that is not its own, and a later one in the same cgroup: the end of the
/// first is not the end of the second.
fn same_path_twice(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("pid").guest(&["sleep"]);
    let first = bundle.start()?;
    let pid = first.pid()?;
    first.kill("KILL")?.ok()?;
    first.wait_exit(pid)?;
    let mut second = bundle.container()?;
    bundle.set("/linux/cgroupsPath", format!("{}/{}", ctx.cgroup_parent, first.id)).write()?;
    let created = second.create()?;
    if created.code == 0 {
        second.start()?.ok()?;
        first.delete()?.ok()?;
        check_eq!(second.status()?, "running", "status of the second when the first is deleted");
        return second.end();
    }
    created.fails_saying(&["linux.cgroupsPath", &first.id])?;
    first.delete()?.ok()?;
    second.create()?.ok()?;
    second.end()
}

/// Two engines, each with a state directory of its own.
fn same_path_below_another_root(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("pid").guest(&["sleep"]);
    let first = bundle.start()?;
    let pid = first.pid()?;
    first.kill("KILL")?.ok()?;
    first.wait_exit(pid)?;
    let id = bundle.container()?.id.clone();
    bundle.set("/linux/cgroupsPath", format!("{}/{}", ctx.cgroup_parent, first.id)).write()?;
    let root = ctx.new_dir("root")?;
    let other = |verb: &str| ctx.command(&ctx.runtime.to_string_lossy()).arg("--root").arg(&root).arg(verb);
    let create = || other("create").arg("--bundle").arg(&bundle.dir).arg(&id).run();
    let created = create()?;
    if created.code == 0 {
        other("start").arg(&id).run()?.ok()?;
        first.delete()?;
        let state = other("state").arg(&id).run()?.ok()?.json()?;
        other("delete").args(["--force", &id]).run()?.ok()?;
        check_eq!(state["status"], json!("running"), "status of the second when the first is deleted");
        return Ok(());
    }
    created.fails_saying(&["linux.cgroupsPath", "--root"])?;
    first.delete()?.ok()?;
    create()?.ok()?;
    other("start").arg(&id).run()?.ok()?;
    other("delete").args(["--force", &id]).run()?.ok()?;
    Ok(())
}

/// runtime-spec allows a check of the cgroup's emptiness; then it must be an error. Either way nobody else's process dies.
fn not_empty(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["sleep"]).container()?;
    let dir = container.cgroup(any(ctx));
    fs::create_dir_all(&dir)?;
    let other = ctx.command("/bin/sleep").arg("1000").spawn()?;
    fs::write(dir.join("cgroup.procs"), other.pid().to_string())?;
    let run = container.create()?;
    if run.code == 0 {
        container.delete_force()?;
    } else {
        run.fails_saying(&["cgroup"])?;
    }
    container.forget();
    let alive = !other.has_ended();
    drop(other);
    cgroup::remove(&dir);
    ctx.cgroups.existing(&ctx.cgroup_parent).iter().for_each(|p| cgroup::remove(p));
    check!(alive || ctx.peer != crate::harness::Peer::Kelson, "a process that was there before was killed");
    Ok(())
}

fn manager_disabled(ctx: &Context) -> Outcome {
    if ctx.peer == crate::harness::Peer::Runc {
        skip!("runc has no --cgroup-manager");
    }
    let mut bundle = ctx.bundle()?;
    let container = bundle.remove("/linux/resources").guest(&["report"]).container()?;
    let command = ctx.command(&ctx.runtime.to_string_lossy()).args(["--cgroup-manager", "disabled", "--root"]);
    let run = command.arg(&ctx.root).args(["run", "--bundle"]).arg(&bundle.dir).arg(&container.id).run()?.ok()?;
    let seen = run.report()?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own: Vec<&str> = own.lines().collect();
    check_eq!(seen["cgroup"], json!(own), "cgroups, which are the caller's");
    Ok(())
}

fn memory_limit(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"limit": 104_857_600}}),
        Expected { v1: ("memory", "memory.limit_in_bytes", "104857600"), v2: ("memory", "memory.max", "104857600") },
    )
}

fn memory_limit_is_enforced(ctx: &Context) -> Outcome {
    ctx.need_controller("memory")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 33_554_432, "swap": 33_554_432}));
    let run = bundle.guest(&["hold", "200"]).run()?;
    check_eq!(run.code, 137, "exit code of a process over its memory limit\n  {}", run.told());
    bundle.guest(&["hold", "5"]).run()?.ok()?;
    Ok(())
}

fn memory_swap(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"limit": 104_857_600, "swap": 209_715_200}}),
        Expected {
            v1: ("memory", "memory.memsw.limit_in_bytes", "209715200"),
            v2: ("memory", "memory.swap.max", "104857600"),
        },
    )
}

fn memory_swap_unlimited(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"limit": 104_857_600, "swap": -1}}),
        Expected {
            v1: ("memory", "memory.memsw.limit_in_bytes", "9223372036854771712"),
            v2: ("memory", "memory.swap.max", "max"),
        },
    )
}

fn memory_reservation(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"reservation": 52_428_800}}),
        Expected { v1: ("memory", "memory.soft_limit_in_bytes", "52428800"), v2: ("memory", "memory.low", "52428800") },
    )
}

fn memory_swappiness(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"swappiness": 13}}),
        Expected { v1: ("memory", "memory.swappiness", "13"), v2: ("", "", "") },
    )
}

/// Kernels from 5.16 on take the value and do nothing with it: it is applied or refused, never passed over.
fn memory_kernel(ctx: &Context) -> Outcome {
    if ctx.cgroups.is_v2() {
        skip!("cgroup v2 counts kernel memory as memory");
    }
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/memory", json!({"kernel": 52_428_800})).guest(&["sleep"]);
    let mut container = bundle.container()?;
    let run = container.create()?;
    if run.code == 0 {
        check_eq!(container.cgroup_file("memory", "memory.kmem.limit_in_bytes")?, "52428800", "the limit");
        return container.delete_force()?.ok().map(drop);
    }
    run.fails_saying(&["linux.resources.memory.kernel", "not supported"])?;
    Ok(())
}

fn memory_oom(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"limit": 104_857_600, "disableOOMKiller": true}}),
        Expected {
            v1: ("memory", "memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0"),
            v2: ("", "", ""),
        },
    )
}

fn memory_unlimited(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"limit": -1}}),
        Expected {
            v1: ("memory", "memory.limit_in_bytes", "9223372036854771712"),
            v2: ("memory", "memory.max", "max"),
        },
    )
}

fn memory_too_low(ctx: &Context) -> Outcome {
    ctx.need_controller("memory")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 4096}));
    let run = bundle.run()?.fails()?;
    if ctx.peer == crate::harness::Peer::Kelson {
        run.fails_saying(&["linux.resources.memory.limit", "4096"])?;
    }
    Ok(())
}

fn memory_kernel_tcp(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"kernelTCP": 52_428_800}}),
        Expected { v1: ("memory", "memory.kmem.tcp.limit_in_bytes", "52428800"), v2: ("", "", "") },
    )
}

fn memory_use_hierarchy(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"useHierarchy": true}}),
        Expected { v1: ("memory", "memory.use_hierarchy", "1"), v2: ("", "", "") },
    )
}

/// Says something of update only.
fn memory_check(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"memory": {"limit": 104_857_600, "checkBeforeUpdate": true}}),
        Expected { v1: ("memory", "memory.limit_in_bytes", "104857600"), v2: ("memory", "memory.max", "104857600") },
    )
}

fn cpu_realtime(ctx: &Context) -> Outcome {
    if !ctx.cgroups.path("cpu", "/").join("cpu.rt_period_us").exists() {
        skip!("this kernel has no cpu.rt_period_us");
    }
    limit(
        ctx,
        json!({"cpu": {"realtimePeriod": 500_000}}),
        Expected { v1: ("cpu", "cpu.rt_period_us", "500000"), v2: ("", "", "") },
    )
}

/// The formula of runc and crun: ceil(10^((l² + 125 l) / 612 − 7/34)), l = log2(shares).
fn cpu_shares(ctx: &Context) -> Outcome {
    // Older runtimes invert linearly; both are in use.
    if ctx.is_v2() && ctx.peer != crate::harness::Peer::Kelson {
        skip!("the older formula differs");
    }
    limit(
        ctx,
        json!({"cpu": {"shares": 512}}),
        Expected { v1: ("cpu", "cpu.shares", "512"), v2: ("cpu", "cpu.weight", "59") },
    )
}

fn cpu_quota(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"cpu": {"quota": 25_000, "period": 50_000}}),
        Expected { v1: ("cpu", "cpu.cfs_quota_us", "25000"), v2: ("cpu", "cpu.max", "25000 50000") },
    )
}

fn cpu_quota_unlimited(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"cpu": {"quota": -1, "period": 50_000}}),
        Expected { v1: ("cpu", "cpu.cfs_period_us", "50000"), v2: ("cpu", "cpu.max", "max 50000") },
    )
}

fn cpu_burst(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"cpu": {"quota": 25_000, "period": 50_000, "burst": 10_000}}),
        Expected { v1: ("cpu", "cpu.cfs_burst_us", "10000"), v2: ("cpu", "cpu.max.burst", "10000") },
    )
}

fn cpu_idle(ctx: &Context) -> Outcome {
    limit(ctx, json!({"cpu": {"idle": 1}}), Expected { v1: ("cpu", "cpu.idle", "1"), v2: ("cpu", "cpu.idle", "1") })
}

fn cpu_idle_and_shares(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"cpu": {"idle": 1, "shares": 512}}),
        Expected { v1: ("cpu", "cpu.idle", "1"), v2: ("cpu", "cpu.idle", "1") },
    )
}

fn cpuset(ctx: &Context) -> Outcome {
    ctx.need_controller("cpuset")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/cpu", json!({"cpus": "0", "mems": "0"}));
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    check_eq!(container.cgroup_file("cpuset", "cpuset.cpus")?, "0", "cpuset.cpus");
    check_eq!(container.cgroup_file("cpuset", "cpuset.mems")?, "0", "cpuset.mems");
    check_eq!(container.report()?.text("affinity"), "0", "CPUs that the process may use");
    check_eq!(container.exec(&["report"])?.ok()?.report()?.text("affinity"), "0", "CPUs that exec may use");
    container.end()
}

fn pids_limit(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"pids": {"limit": 77}}),
        Expected { v1: ("pids", "pids.max", "77"), v2: ("pids", "pids.max", "77") },
    )
}

fn pids_limit_is_enforced(ctx: &Context) -> Outcome {
    ctx.need_controller("pids")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/pids", json!({"limit": 10}));
    let seen = bundle.guest(&["fork-until-error"]).run()?.ok()?.said("fork")?;
    check_eq!(seen["errno"], json!(libc::EAGAIN), "errno of fork");
    check!(seen["children"].as_i64().is_some_and(|n| (5..10).contains(&n)), "children: {seen}");
    Ok(())
}

fn pids_limit_unlimited(ctx: &Context) -> Outcome {
    limit(
        ctx,
        json!({"pids": {"limit": -1}}),
        Expected { v1: ("pids", "pids.max", "max"), v2: ("pids", "pids.max", "max") },
    )
}

/// Written as it is; a single process that is in the cgroup already may run.
fn pids_limit_zero(ctx: &Context) -> Outcome {
    limit(ctx, json!({"pids": {"limit": 0}}), Expected { v1: ("pids", "pids.max", "0"), v2: ("pids", "pids.max", "0") })
}

/// Where the scheduler bfq is loaded its weight counts.
fn block_io_weight(ctx: &Context) -> Outcome {
    if !ctx.is_v2() {
        // The hierarchy's root has none.
        let dir = ctx.cgroups.path("blkio", &ctx.cgroup_parent);
        fs::create_dir_all(&dir)?;
        let has_weight = ["blkio.weight", "blkio.bfq.weight"].iter().any(|file| dir.join(file).exists());
        cgroup::remove(&dir);
        if !has_weight {
            skip!("this kernel has no blkio weight");
        }
    }
    let v2 = if has_bfq(ctx) { ("io", "io.bfq.weight", "default 500") } else { ("io", "io.weight", "default 4950") };
    limit(ctx, json!({"blockIO": {"weight": 500}}), Expected { v1: ("blkio", "blkio.bfq.weight", "500"), v2 })
}

/// Of cgroup v2, whose root has no such file.
fn has_bfq(ctx: &Context) -> bool {
    ctx.is_v2() && ctx.cgroups.has("io") && Path::new("/sys/module/bfq").exists()
}

fn block_io_weight_device(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    ctx.need_controller("io")?;
    let scheduler = Path::new("/sys/block/loop7/queue/scheduler");
    if !has_bfq(ctx) || !scheduler.exists() {
        skip!("this kernel has no bfq, or no /dev/loop7");
    }
    let before = fs::read_to_string(scheduler)?;
    let before = before.split(['[', ']']).nth(1).unwrap_or("none");
    fs::write(scheduler, "bfq")?;
    let judged = limit(
        ctx,
        json!({"blockIO": {"weight": 200, "weightDevice": [{"major": 7, "minor": 7, "weight": 300}]}}),
        Expected { v1: ("blkio", "", ""), v2: ("io", "io.bfq.weight", "default 200\n7:7 300") },
    );
    fs::write(scheduler, before)?;
    judged
}

fn block_io_throttle(ctx: &Context) -> Outcome {
    ctx.need_controller(if ctx.is_v2() { "io" } else { "blkio" })?;
    if !Path::new("/sys/dev/block/7:7").exists() {
        skip!("no /dev/loop7 on this machine");
    }
    limit(
        ctx,
        json!({"blockIO": {
            "throttleReadBpsDevice": [{"major": 7, "minor": 7, "rate": 1_048_576}],
        }}),
        Expected {
            v1: ("blkio", "blkio.throttle.read_bps_device", "7:7 1048576"),
            v2: ("io", "io.max", "7:7 rbps=1048576 wbps=max riops=max wiops=max"),
        },
    )
}

fn block_io_throttle_all(ctx: &Context) -> Outcome {
    let controller = if ctx.is_v2() { "io" } else { "blkio" };
    ctx.need_controller(controller)?;
    if !Path::new("/sys/dev/block/7:7").exists() {
        skip!("no /dev/loop7 on this machine");
    }
    let one = |rate: u64| json!([{"major": 7, "minor": 7, "rate": rate}]);
    let container = sleeper(
        ctx,
        controller,
        json!({"blockIO": {
            "throttleReadBpsDevice": one(1_048_576), "throttleWriteBpsDevice": one(2_097_152),
            "throttleReadIOPSDevice": one(100), "throttleWriteIOPSDevice": one(200),
        }}),
    )?;
    if ctx.is_v2() {
        let seen = container.cgroup_file("io", "io.max")?;
        check_eq!(seen, "7:7 rbps=1048576 wbps=2097152 riops=100 wiops=200", "io.max");
    } else {
        for (file, value) in
            [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 100), ("write_iops", 200)]
        {
            let seen = container.cgroup_file("blkio", &format!("blkio.throttle.{file}_device"))?;
            check_eq!(seen, format!("7:7 {value}"), "blkio.throttle.{file}_device");
        }
    }
    container.end()
}

/// Reservations are limited too, where the kernel has that (5.7).
fn hugepage_reservation(ctx: &Context) -> Outcome {
    ctx.need_controller("hugetlb")?;
    limit(
        ctx,
        json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
        Expected {
            v1: ("hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
            v2: ("hugetlb", "hugetlb.2MB.rsvd.max", "4194304"),
        },
    )
}

fn hugepage_limit(ctx: &Context) -> Outcome {
    ctx.need_controller("hugetlb")?;
    limit(
        ctx,
        json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
        Expected {
            v1: ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
            v2: ("hugetlb", "hugetlb.2MB.max", "4194304"),
        },
    )
}

/// The kernel shows a controller as enabled before all cgroups have its files.
fn being_enabled(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    ctx.need_controller("hugetlb")?;
    if ctx.has_systemd() {
        skip!("the cgroup has to be there before");
    }
    let parent = ctx.cgroups.path("hugetlb", &ctx.cgroup_parent);
    fs::create_dir(&parent)?;
    let result = beside_many(ctx, &parent);
    cgroup::remove(&parent);
    result
}

/// Creates and updates a container with a limit of huge pages in `parent`, which has many other cgroups.
fn beside_many(ctx: &Context, parent: &Path) -> Outcome {
    let enabled = parent.join("cgroup.subtree_control");
    let root = &ctx.cgroups.mounts[0];
    fs::write(root.join("cgroup.subtree_control"), "+hugetlb")?;
    // What a runtime enables anyway is no change any more.
    let offered = fs::read_to_string(root.join("cgroup.controllers"))?;
    for name in offered.split_whitespace().filter(|name| ["cpuset", "cpu", "io", "memory", "pids"].contains(name)) {
        fs::write(root.join("cgroup.subtree_control"), format!("+{name}"))?;
        fs::write(&enabled, format!("+{name}"))?;
    }
    (0..1000).try_for_each(|n| fs::create_dir(parent.join(n.to_string())))?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4_194_304}]));
    let mut container = bundle.guest(&["sleep"]).container()?;
    // The last that gets the files.
    fs::create_dir(container.cgroup("hugetlb"))?;
    while_enabling(ctx, &enabled, || container.create()?.ok().map(drop))?;
    check_eq!(container.cgroup_file("hugetlb", "hugetlb.2MB.max")?, "4194304", "the limit");
    fs::write(&enabled, "-hugetlb")?;
    let resources = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 8_388_608}]});
    let update = container.verb("update").args(["-r", "-"]).arg(&container.id).stdin(resources.to_string());
    while_enabling(ctx, &enabled, || update.run()?.ok().map(drop))?;
    check_eq!(container.cgroup_file("hugetlb", "hugetlb.2MB.max")?, "8388608", "the new limit");
    container.delete_force()?.ok()?;
    container.forget();
    Ok(())
}

/// Does `what` at the moment at which hugetlb is shown as enabled in the file `enabled`, and still being enabled.
fn while_enabling(ctx: &Context, enabled: &Path, what: impl FnOnce() -> Outcome) -> Outcome {
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| fs::write(enabled, "+hugetlb"));
        let shown = || fs::read_to_string(enabled).is_ok_and(|shown| shown.contains("hugetlb")).then_some(());
        eventually(ctx.patience, "hugetlb is shown as enabled", shown)?;
        what()?;
        writer.join().map_err(|_| "the writer panicked".to_string())??;
        Ok(())
    })
}

fn network(ctx: &Context) -> Outcome {
    ctx.need_v1()?;
    limit(
        ctx,
        json!({"network": {"classID": 1_048_577}}),
        Expected { v1: ("net_cls", "net_cls.classid", "1048577"), v2: ("", "", "") },
    )?;
    limit(
        ctx,
        json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}}),
        Expected { v1: ("net_prio", "net_prio.ifpriomap", "lo 5"), v2: ("", "", "") },
    )
}

fn unified(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    ctx.need_controller("pids")?;
    let container = sleeper(ctx, "pids", json!({"unified": {"pids.max": "55", "cgroup.max.depth": "3"}}))?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "55", "pids.max");
    check_eq!(container.cgroup_file("pids", "cgroup.max.depth")?, "3", "cgroup.max.depth");
    container.end()
}

fn unified_pids_zero(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    let container = sleeper(ctx, "pids", json!({"unified": {"pids.max": "0"}}))?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "0", "pids.max");
    container.end()
}

/// What the runtime needs to make the process is none of the container's.
fn pids_limit_one(ctx: &Context) -> Outcome {
    ctx.need_controller("pids")?;
    let mut first = ctx.bundle()?;
    let infra = first.guest(&["sleep"]).start()?;
    let mut bundle = ctx.bundle()?;
    bundle.namespace("pid", Some(&format!("/proc/{}/ns/pid", infra.pid()?)));
    let container = bundle.set("/linux/resources/pids", json!({"limit": 1})).guest(&["sleep"]).start()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "1", "pids.max");
    container.end()?;
    infra.end()
}

/// A cgroup that was there before counts what was killed in it, whoever it was.
fn memory_not_blamed(ctx: &Context) -> Outcome {
    ctx.need_kelson("an error that blames the memory limit")?;
    ctx.need_controller("memory")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 33_554_432, "swap": 33_554_432}));
    let mut container = bundle.guest(&["hold", "200"]).container()?;
    let dir = container.cgroup("memory");
    fs::create_dir_all(&dir)?;
    check_eq!(container.run_command().run()?.code, 137, "exit code of a process over its memory limit");
    check!(dir.is_dir(), "a cgroup that was there is gone");
    // What fails for quite another reason, of which no property is the cause.
    container.options = vec!["--pid-file".into(), "/nonexistent/pid".into()];
    container.create()?.fails_saying(&["/nonexistent"])?;
    let said = container.stderr();
    check!(!said.contains("memory"), "create says: {said}");
    container.forget();
    cgroup::remove(&dir);
    ctx.cgroups.existing(&ctx.cgroup_parent).iter().for_each(|p| cgroup::remove(p));
    Ok(())
}

/// config-linux.md#cgroup-ownership: nothing that is born there would ever run.
fn below_frozen(ctx: &Context) -> Outcome {
    ctx.need_kelson("an error for a frozen parent")?;
    ctx.need_controller("freezer")?;
    let parent = ctx.cgroups.path("freezer", &ctx.cgroup_parent);
    fs::create_dir(&parent)?;
    freeze(ctx, &parent)?;
    let result = ctx.bundle().and_then(|mut bundle| {
        bundle.guest(&["sleep"]).refused(&["linux.cgroupsPath", "frozen"])?;
        // Also where it is there already, or its parent is not.
        let mut container = bundle.container()?;
        fs::create_dir(container.cgroup("freezer"))?;
        container.create()?.fails_saying(&["linux.cgroupsPath", "frozen"])?;
        container.forget();
        fs::remove_dir(container.cgroup("freezer"))?;
        bundle.set("/linux/cgroupsPath", format!("{}/a/b", ctx.cgroup_parent));
        bundle.write()?;
        container.create()?.fails_saying(&["linux.cgroupsPath", "frozen"])?;
        check!(!parent.join("a").exists(), "a parent that was made is left");
        Ok(())
    });
    cgroup::remove(&parent);
    result
}

fn exec_paused(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    let container = ctx.bundle()?.guest(&["sleep"]).start()?;
    container.pause()?.ok()?;
    container.exec(&["exit", "0"])?.fails_saying(&["paused"])?;
    let exec = container.exec_command(&["--ignore-paused"], &["/bin/guest", "print", "resumed"]).spawn()?;
    eventually(ctx.patience, "exec is in the cgroup", || {
        (processes(&container).len() > 1 || exec.has_ended()).then_some(())
    })?;
    check!(!exec.has_ended(), "exec ended: {}", exec.stderr());
    container.resume()?.ok()?;
    exec.wait()?.ok()?.prints("resumed\n")?;
    container.end()
}

/// Its process waits in the frozen cgroup, on v1 even for its end; whoever asked for it need not.
fn exec_paused_interrupted(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    container.pause()?.ok()?;
    let exec = container.exec_command(&["--ignore-paused"], &["/bin/guest", "sleep"]).spawn()?;
    eventually(ctx.patience, "exec is in the cgroup", || {
        (processes(&container).len() > 1 || exec.has_ended()).then_some(())
    })?;
    check!(!exec.has_ended(), "exec ended: {}", exec.stderr());
    exec.signal(libc::SIGTERM)?;
    exec.wait()?.fails()?;
    container.resume()?.ok()?;
    eventually(ctx.patience, "what exec made is gone", || (processes(&container).len() == 1).then_some(()))?;
    container.end()
}

/// Opens devices under these rules; gives the errno for each (path, how).
fn opens(ctx: &Context, rules: Value, wanted: &[(&str, &str, &str)]) -> Outcome<Vec<i64>> {
    let mut bundle = ctx.bundle()?;
    let devices: Vec<Value> = wanted
        .iter()
        .map(|(path, numbers, _)| {
            let (major, minor) = numbers.split_once(':').unwrap_or(("0", "0"));
            json!({"path": path, "type": "c", "major": major.parse::<i64>().unwrap_or(0), "minor": minor.parse::<i64>().unwrap_or(0)})
        })
        .collect();
    // Opening /dev/kmsg needs CAP_SYSLOG as well.
    bundle.privileged().set("/linux/devices", json!(devices)).set("/linux/resources/devices", rules);
    let mut words = vec![];
    for (path, _, how) in wanted {
        words.extend(["open", *path, *how, ","]);
    }
    words.pop();
    let run = bundle.guest(&words).run()?.ok()?;
    Ok(run.lines().iter().filter_map(|l| l["open"]["errno"].as_i64()).collect())
}

const DENIED: i64 = libc::EPERM as i64;

/// /dev/kmsg (1:11) and /dev/port-like memory devices are not among those that are always allowed.
const KMSG: (&str, &str, &str) = ("/dev/kmsg", "1:11", "r");

fn devices_denied(ctx: &Context) -> Outcome {
    let seen = opens(ctx, json!([{"allow": false, "access": "rwm"}]), &[KMSG])?;
    check_eq!(seen, [DENIED], "errno of opening /dev/kmsg");
    let mut bundle = ctx.bundle()?;
    let run = bundle.guest(&["open", "/dev/null", "rw", ",", "open", "/dev/zero", "r"]).run()?.ok()?;
    check!(run.lines().iter().all(|l| l["open"]["errno"] == 0), "the default devices are denied: {}", run.out());
    Ok(())
}

fn devices_allowed(ctx: &Context) -> Outcome {
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"}]);
    check_eq!(opens(ctx, rules, &[KMSG])?, [0], "errno of opening /dev/kmsg");
    Ok(())
}

fn devices_in_order(ctx: &Context) -> Outcome {
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
    ]);
    check_eq!(opens(ctx, rules, &[KMSG])?, [DENIED], "errno of opening /dev/kmsg");
    Ok(())
}

fn devices_access(ctx: &Context) -> Outcome {
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]);
    let seen = opens(ctx, rules, &[KMSG, ("/dev/kmsg2", "1:11", "w")])?;
    check_eq!(seen, [0, DENIED], "errno of reading and of writing");
    Ok(())
}

/// All runtimes allow mknod of anything, which opens nothing.
fn devices_mknod(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.privileged().guest(&["mknod", "/tmp/k", "c", "1", "11", ",", "open", "/tmp/k", "r"]);
    let run = bundle.run()?.ok()?;
    check_eq!(run.said("mknod")?["errno"], json!(0), "errno of mknod");
    check_eq!(run.said("open")?["errno"], json!(DENIED), "errno of opening it");
    Ok(())
}

fn devices_allow_all(ctx: &Context) -> Outcome {
    check_eq!(opens(ctx, json!([{"allow": true, "access": "rwm"}]), &[KMSG])?, [0], "errno of opening /dev/kmsg");
    Ok(())
}

fn devices_wildcard(ctx: &Context) -> Outcome {
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "access": "rw"}]);
    let seen = opens(ctx, rules, &[KMSG, ("/dev/loopctl", "10:237", "r")])?;
    check_eq!(seen, [0, DENIED], "errno of opening 1:11 and 10:237");
    Ok(())
}

fn pause_and_resume(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["signals"]).start()?;
    container.hear("ready")?;
    container.pause()?.ok()?;
    check_eq!(container.status()?, "paused", "status");
    let (file, value) = if ctx.is_v2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    check_eq!(container.cgroup_file("freezer", file)?, value, "{file}");
    container.resume()?.ok()?;
    check_eq!(container.status()?, "running", "status");
    container.kill("USR1")?.ok()?;
    check_eq!(container.hear("signal")?, json!("SIGUSR1"), "signal");
    container.end()
}

fn kill_paused(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["sleep"]).start()?;
    let pid = container.pid()?;
    container.pause()?.ok()?;
    container.kill("KILL")?.ok()?;
    // On v1 a frozen process dies when it is thawed: runc and Kelson do that.
    check_eq!(container.wait_exit(pid)?, 137, "how it ended");
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    container.forget();
    Ok(())
}

fn delete_paused(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["sleep"]).start()?;
    container.pause()?.ok()?;
    container.delete_force()?.ok()?;
    container.forget();
    eventually(ctx.patience, "the state is gone", || ctx.state_entries().is_empty().then_some(()))
}

/// Freezes a cgroup and comes back at once.
fn freeze(ctx: &Context, dir: &Path) -> Outcome {
    let (file, value) = if ctx.is_v2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    Ok(fs::write(dir.join(file), value)?)
}

/// Cgroups that are thawed at the end, where the runtime does not.
struct Thawed([PathBuf; 2]);

impl Drop for Thawed {
    fn drop(&mut self) {
        for dir in &self.0 {
            for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                // It is gone, or of the other version.
                let _ = fs::write(dir.join(file), value);
            }
        }
    }
}

/// A paused container in the container: its processes take no SIGKILL on v1 while their own cgroup is frozen.
fn frozen_inside(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    for (shared, command) in
        [(false, "kill"), (false, "kill --all"), (false, "delete"), (true, "kill --all"), (true, "delete")]
    {
        let mut bundle = ctx.bundle()?;
        if shared {
            bundle.without_namespace("pid");
        }
        let mut container = bundle.guest(&["fork", "1", ",", "sleep"]).start()?;
        container.hear("fork")?;
        let first = container.pid()?;
        let inner = container.cgroup("freezer").join("inner");
        fs::create_dir_all(inner.join("most"))?;
        for pid in processes(&container).into_iter().filter(|pid| *pid != first) {
            fs::write(inner.join("most/cgroup.procs"), pid.to_string())?;
        }
        let _cleanup = Thawed([inner.clone(), inner.join("most")]);
        freeze(ctx, &inner.join("most"))?;
        freeze(ctx, &inner)?;
        if command == "delete" {
            container.delete_force()?.ok().map_err(|e| e.during(&format!("{command}, shared: {shared}")))?;
        } else {
            container.verb("kill").args(command.split(' ').skip(1)).args([&container.id, "KILL"]).run()?.ok()?;
            container.wait_status("stopped").map_err(|e| e.during(&format!("{command}, shared: {shared}")))?;
            container.delete()?.ok()?;
        }
        container.forget();
        check!(!container.cgroup("freezer").exists(), "the cgroup is left");
    }
    Ok(())
}

/// Frozen by the host after create: on v1 nothing ends in it, and it is not the container's to thaw.
fn delete_below_frozen(ctx: &Context) -> Outcome {
    ctx.need_kelson("an error for a frozen parent")?;
    ctx.need_controller("freezer")?;
    for shared in [false, true] {
        let mut bundle = ctx.bundle()?;
        if shared {
            bundle.without_namespace("pid");
        }
        let mut container = bundle.guest(&["sleep"]).start()?;
        let parent = ctx.cgroups.path("freezer", &ctx.cgroup_parent);
        let _cleanup = Thawed([parent.clone(), parent.clone()]);
        freeze(ctx, &parent)?;
        if !ctx.is_v2() {
            let named = format!("cgroup {} is frozen", parent.display());
            container.resume()?.fails_saying(&[&named, "THAWED"])?;
            container.delete_force()?.fails_saying(&[&named, "THAWED"])?;
            fs::write(parent.join("freezer.state"), "THAWED")?;
        }
        container.delete_force()?.ok()?;
        container.forget();
    }
    Ok(())
}

/// As pauses that come between the SIGKILL and the end; the last one stays.
fn delete_while_freezing(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    for shared in [false, true] {
        let mut bundle = ctx.bundle()?;
        if shared {
            bundle.without_namespace("pid");
        }
        let mut container = bundle.guest(&["fork", "2", ",", "sleep"]).start()?;
        container.hear("fork")?;
        let dir = container.cgroup("freezer");
        freeze(ctx, &dir)?;
        let delete = container.verb("delete").args(["--force", &container.id]).spawn()?;
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end && freeze(ctx, &dir).is_ok() {}
        delete.wait()?.ok().map_err(|e| e.during(&format!("shared: {shared}")))?;
        container.forget();
    }
    Ok(())
}

/// Whichever of the two comes first, nothing is left that is frozen and cannot end.
fn kill_beside_pause(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["sleep"]);
    for round in 0..24 {
        let mut container = bundle.start()?;
        let pid = container.pid()?;
        let pause = container.verb("pause").arg(&container.id).spawn()?;
        std::thread::sleep(Duration::from_micros(round % 12 * 150));
        container.kill("KILL")?.ok()?;
        // Done, or "container not running".
        pause.wait()?;
        container.wait_exit(pid).map_err(|e| e.during(&format!("round {round}")))?;
        container.delete()?.ok()?;
        container.forget();
    }
    Ok(())
}

/// A process that forks at once is in its cgroup, with the limit, from its first instruction.
fn limits_before_process(ctx: &Context) -> Outcome {
    ctx.need_controller("pids")?;
    let mut bundle = ctx.bundle()?;
    let mut container =
        bundle.set("/linux/resources/pids", json!({"limit": 20})).guest(&["fork", "3", ",", "sleep"]).start()?;
    container.hear("fork")?;
    let pids = cgroup::processes(&container.cgroup("pids"));
    check_eq!(pids.len(), 4, "processes in the cgroup");
    container.end()
}

fn no_limits(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.remove("/linux/resources").report()?;
    Ok(())
}

// ---- many times ----------------------------------------------------------------------------------------------------

/// Creates and deletes containers of `bundle`, KELSON_CYCLES or else `times`: nothing is left of them.
pub(super) fn cycles(bundle: &mut Bundle<'_>, times: u64) -> Outcome {
    for round in 0..number("KELSON_CYCLES", times) {
        let mut container = bundle.create()?;
        container.delete_force()?.ok().map_err(|e| e.during(&format!("round {round}")))?;
        container.forget();
    }
    let ctx = bundle.context;
    check!(ctx.state_entries().is_empty(), "state is left: {:?}", ctx.state_entries());
    eventually(ctx.patience, "no process is left", || children::orphans().is_empty().then_some(()))
}

fn fifty_times(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    cycles(bundle.guest(&["sleep"]), 50)?;
    // Those between the hierarchy's root and the containers' are the runtime's as well.
    let left: Vec<_> = ctx.cgroups.existing(&ctx.cgroup_parent);
    check!(left.is_empty() || ctx.peer != Peer::Kelson, "cgroups are left: {left:?}");
    Ok(())
}

fn fifty_times_disabled(ctx: &Context) -> Outcome {
    ctx.need_kelson("--cgroup-manager disabled")?;
    let mut bundle = ctx.bundle()?;
    bundle.remove("/linux/resources").guest(&["sleep"]).write()?;
    for round in 0..number("KELSON_CYCLES", 50) {
        let mut container = bundle.container()?;
        let create = ctx.runtime().args(["--cgroup-manager", "disabled", "create", "--bundle"]).arg(&bundle.dir);
        create.arg(&container.id).run()?.ok().map_err(|e| e.during(&format!("round {round}")))?;
        container.delete_force()?.ok()?;
        container.forget();
    }
    check!(ctx.state_entries().is_empty(), "state is left: {:?}", ctx.state_entries());
    eventually(ctx.patience, "no process is left", || children::orphans().is_empty().then_some(()))
}
