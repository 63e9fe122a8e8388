//! The systemd driver: `--systemd-cgroup` for create and run, nothing for the commands after them.
//!
//! Run in a machine that systemd runs (tests/vm); `runtime-tests --systemd-cgroup` makes the containers of all other tests with
//! it, too.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroups::cycles;
use crate::harness::bundle::give;
use crate::harness::{Bundle, Cmd, Container, Context, Outcome, Peer, Run, Test, cgroup, eventually, json};
use crate::tracer::{self, Action, Call, Settings};
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "scope_of_the_default_path", run: default_path },
    Test { name: "scope_in_a_slice_of_slices", run: slice_of_slices },
    Test { name: "slice_as_the_containers_own_unit", run: own_slice },
    Test { name: "properties_and_files_say_the_same", run: properties },
    Test { name: "explain_tells_the_properties", run: super::explain::unit },
    Test { name: "process_and_exec_are_in_the_scope", run: in_the_scope },
    Test { name: "limits_outlast_daemon_reload_and_set_property", run: limits_stay },
    Test { name: "device_rules_outlast_daemon_reload", run: devices_stay },
    Test { name: "update_outlasts_daemon_reload", run: update_stays },
    Test { name: "unified_limits_with_units_outlast_daemon_reload", run: units },
    Test { name: "weight_of_the_first_with_io_outlasts_daemon_reload", run: io_weight },
    Test { name: "quota_of_a_part_of_a_per_cent_stays_at_every_update", run: fine_quota },
    Test { name: "idle_goes_and_stays_away", run: idle },
    Test { name: "limit_of_one_process", run: one_process },
    Test { name: "annotations_are_properties", run: annotations },
    Test { name: "annotations_that_run_programs_are_refused", run: dangerous_annotations },
    Test { name: "annotation_without_such_a_property_is_named", run: unknown_annotation },
    Test { name: "path_of_another_form_is_refused", run: other_form },
    Test { name: "unit_in_use_is_refused", run: in_use },
    Test { name: "delete_of_a_stopped_one_spares_a_later_unit", run: later_unit },
    Test { name: "failed_create_leaves_no_unit", run: failed_create },
    Test { name: "killed_create_leaves_no_unit", run: killed_create },
    Test { name: "out_of_memory_leaves_no_unit", run: out_of_memory },
    Test { name: "delete_of_one_that_ended_leaves_no_unit", run: ended },
    Test { name: "pause_kill_delete", run: pause_kill_delete },
    Test { name: "only_create_and_delete_need_a_bus", run: without_bus },
    Test { name: "update_that_fails_changes_no_property", run: update_fails },
    Test { name: "signal_cancels_a_job_that_hangs", run: hanging_job },
    Test { name: "create_and_delete_of_a_user_outlast_daemon_reexec", run: reexec },
    Test { name: "fifty_times_leave_nothing", run: |ctx| many_times(ctx, 0, 50) },
    Test { name: "ten_times_of_a_user_leave_nothing", run: |ctx| many_times(ctx, USER, 10) },
    Test { name: "user_has_a_scope_of_its_own_systemd", run: of_user },
    Test { name: "user_is_told_why_it_ended", run: told_to_user },
    Test { name: "user_is_told_who_must_delegate_a_controller", run: not_delegated },
    Test { name: "user_without_a_session_is_told_what_to_do", run: without_session },
];

/// The value of a property of a unit; of one that does not exist, too.
fn property(ctx: &Context, unit: &str, name: &str) -> Outcome<String> {
    let shown = manage(ctx, "systemctl").args(["show", "--property", name, "--value", "--", unit]).run()?.ok()?;
    Ok(shown.out().trim_end().to_owned())
}

/// A command of systemd's for its manager of the system, or of the user whom the test has become.
fn manage<'c>(ctx: &'c Context, program: &str) -> Cmd<'c> {
    match ctx.user.load(Ordering::Relaxed) {
        0 => ctx.command(program),
        user => {
            let command = ctx.command(program).arg("--user").user(user, user);
            command.env("XDG_RUNTIME_DIR", format!("/run/user/{user}"))
        }
    }
}

fn sleeper(ctx: &Context) -> Outcome<Bundle<'_>> {
    ctx.use_systemd()?;
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["sleep"]);
    Ok(bundle)
}

fn check_gone(ctx: &Context, unit: &str) -> Outcome {
    eventually(ctx.patience, &format!("{unit} is gone"), || {
        let state = property(ctx, unit, "LoadState").ok()?;
        (state == "not-found").then_some(())
    })
}

fn default_path(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let mut container = bundle.container()?;
    bundle.remove("/linux/cgroupsPath").write()?;
    container.create()?.ok()?;
    let unit = format!("{}-{}.scope", ctx.peer.name(), container.id);
    check_eq!(property(ctx, &unit, "ActiveState")?, "active", "state of {unit}");
    check_eq!(property(ctx, &unit, "Slice")?, "system.slice", "slice");
    container.delete_force()?.ok()?;
    check_gone(ctx, &unit)
}

fn slice_of_slices(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let mut container = bundle.container()?;
    bundle.set("/linux/cgroupsPath", format!("keltest-a_b.slice:kelson-test:{}", container.id)).write()?;
    container.create()?.ok()?;
    let unit = ctx.unit(&container.id);
    let expected = format!("/keltest.slice/keltest-a_b.slice/{unit}");
    check_eq!(property(ctx, &unit, "ControlGroup")?, expected, "cgroup");
    check_eq!(cgroup::processes(&Path::new("/sys/fs/cgroup").join(&expected[1..])), [container.pid()?], "processes");
    container.delete_force()?.ok()?;
    check_gone(ctx, &unit)?;
    // systemd keeps slices that it made until somebody stops them.
    ctx.command("systemctl").args(["stop", "keltest.slice"]).run()?.ok()?;
    Ok(())
}

fn own_slice(ctx: &Context) -> Outcome {
    ctx.need_kelson("a container in a slice of its own")?;
    let mut bundle = sleeper(ctx)?;
    let mut container = bundle.container()?;
    bundle.set("/linux/cgroupsPath", "system.slice:x:keltest-own.slice").write()?;
    container.create()?.ok()?;
    container.start()?.ok()?;
    let path = Path::new("/sys/fs/cgroup/keltest.slice/keltest-own.slice");
    check_eq!(property(ctx, "keltest-own.slice", "ActiveState")?, "active", "state");
    check_eq!(cgroup::processes(path), [container.pid()?], "processes");
    container.exec(&["report"])?.ok()?;
    container.end()?;
    check!(!path.exists(), "the cgroup is left");
    ctx.command("systemctl").args(["stop", "keltest.slice"]).run()?.ok()?;
    Ok(())
}

/// Limits, the properties that stand for them, and what is in the files.
fn limited<'c>(ctx: &'c Context, words: &[&str]) -> Outcome<(Container<'c>, String)> {
    let mut bundle = sleeper(ctx)?;
    bundle.set(
        "/linux/resources",
        json!({
            "memory": {"limit": 104_857_600, "swap": 209_715_200, "reservation": 52_428_800},
            "cpu": {"shares": 262_144, "quota": 50_000, "period": 100_000, "cpus": "0"},
            "pids": {"limit": 50},
            "unified": {"memory.high": "94371840"},
        }),
    );
    let container = bundle.guest(words).start()?;
    let unit = ctx.unit(&container.id);
    Ok((container, unit))
}

const FILES: [(&str, &str); 8] = [
    ("memory.max", "104857600"),
    ("memory.swap.max", "104857600"),
    ("memory.low", "52428800"),
    ("memory.high", "94371840"),
    ("cpu.weight", "10000"),
    ("cpu.max", "50000 100000"),
    ("cpuset.cpus", "0"),
    ("pids.max", "50"),
];

fn files(container: &Container) -> Outcome<Vec<(&'static str, String)>> {
    FILES.iter().map(|(file, _)| Ok((*file, container.cgroup_file("memory", file)?))).collect()
}

fn expected() -> Vec<(&'static str, String)> {
    FILES.iter().map(|(file, value)| (*file, (*value).to_owned())).collect()
}

fn properties(ctx: &Context) -> Outcome {
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let (container, unit) = limited(ctx, &["sleep"])?;
    check_eq!(files(&container)?, expected(), "files");
    for (name, value) in [
        ("MemoryMax", "104857600"),
        ("MemorySwapMax", "104857600"),
        ("MemoryLow", "52428800"),
        ("MemoryHigh", "94371840"),
        ("CPUWeight", "10000"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("AllowedCPUs", "0"),
        ("TasksMax", "50"),
        ("Delegate", "yes"),
        ("Slice", "system.slice"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
        ("Transient", "yes"),
    ] {
        check_eq!(property(ctx, &unit, name)?, value, "{name}");
    }
    check!(property(ctx, &unit, "Description")?.contains(&container.id), "the description does not tell whose it is");
    container.end()
}

fn in_the_scope(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let path = container.cgroup("memory");
    check_eq!(cgroup::processes(&path), [container.pid()?], "processes");
    let running = container.exec_command(&[], &["/bin/guest", "sleep"]).spawn()?;
    let inside = || (cgroup::processes(&path).len() == 2).then_some(());
    eventually(ctx.patience, "the process of exec is in the scope", inside)?;
    container.kill("KILL")?.ok()?;
    running.wait()?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

fn limits_stay(ctx: &Context) -> Outcome {
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let (container, unit) = limited(ctx, &["sleep"])?;
    let systemctl = |words: &[&str]| ctx.command("systemctl").args(words).run()?.ok();
    systemctl(&["daemon-reload"])?;
    check_eq!(files(&container)?, expected(), "files after daemon-reload");
    systemctl(&["set-property", "--runtime", &unit, "MemoryMin=1M"])?;
    check_eq!(container.cgroup_file("memory", "memory.min")?, "1048576", "memory.min");
    check_eq!(files(&container)?, expected(), "files after set-property");
    container.end()
}

fn update_stays(ctx: &Context) -> Outcome {
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let (container, unit) = limited(ctx, &["sleep"])?;
    let options = ["--memory", "134217728", "--cpu-quota", "33333", "--cpu-period", "100000", "--pids-limit", "60"];
    ctx.runtime().arg("update").args(options).arg(&container.id).run()?.ok()?;
    let changed = [("memory.max", "134217728"), ("cpu.max", "33333 100000"), ("pids.max", "60")];
    for (file, value) in changed {
        check_eq!(container.cgroup_file("memory", file)?, value, "{file}");
    }
    ctx.command("systemctl").arg("daemon-reload").run()?.ok()?;
    for (name, value) in [("MemoryMax", "134217728"), ("CPUQuotaPerSecUSec", "340ms"), ("TasksMax", "60")] {
        check_eq!(property(ctx, &unit, name)?, value, "{name}");
    }
    check_eq!(container.cgroup_file("memory", "memory.max")?, "134217728", "memory.max after daemon-reload");
    check_eq!(container.cgroup_file("memory", "pids.max")?, "60", "pids.max after daemon-reload");
    container.end()
}

/// The kernel takes `1G` for `memory.max`, and systemd has to be told the number.
fn units(ctx: &Context) -> Outcome {
    ctx.need_kelson("telling systemd what unified says in units")?;
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/resources", json!({"unified": {"memory.max": "128M", "memory.high": "0x6000000"}}));
    let container = bundle.start()?;
    let unit = ctx.unit(&container.id);
    let check = |max: &str, high: &str, when: &str| -> Outcome {
        // Its answer comes after what it writes.
        check_eq!(property(ctx, &unit, "MemoryMax")?, max, "MemoryMax {when}");
        check_eq!(property(ctx, &unit, "MemoryHigh")?, high, "MemoryHigh {when}");
        check_eq!(container.cgroup_file("memory", "memory.max")?, max, "memory.max {when}");
        check_eq!(container.cgroup_file("memory", "memory.high")?, high, "memory.high {when}");
        Ok(())
    };
    let reload = || ctx.command("systemctl").arg("daemon-reload").run()?.ok();
    check("134217728", "100663296", "at first")?;
    reload()?;
    check("134217728", "100663296", "after daemon-reload")?;
    let asked = json!({"unified": {"memory.max": "256m", "memory.high": "max"}}).to_string();
    ctx.runtime().args(["update", "--resources", "-", &container.id]).stdin(asked).run()?.ok()?;
    reload()?;
    check_eq!(property(ctx, &unit, "MemoryMax")?, "268435456", "MemoryMax after update");
    check_eq!(container.cgroup_file("memory", "memory.max")?, "268435456", "memory.max after update");
    container.end()
}

/// systemd has one number for io.weight and io.bfq.weight, and the files of both are there only once a unit has asked for io.
fn io_weight(ctx: &Context) -> Outcome {
    ctx.need_kelson("a weight that systemd makes the same number of")?;
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let mut bundle = sleeper(ctx)?;
    ctx.need_controller("io")?;
    if !Path::new("/sys/module/bfq").exists() {
        skip!("this kernel has no bfq");
    }
    bundle.set("/linux/resources", json!({"blockIO": {"weight": 500}}));
    let container = bundle.start()?;
    let check = |when: &str| -> Outcome {
        check_eq!(container.cgroup_file("io", "io.bfq.weight")?, "default 500", "io.bfq.weight {when}");
        Ok(())
    };
    check("at first")?;
    ctx.command("systemctl").arg("daemon-reload").run()?.ok()?;
    check_eq!(property(ctx, &ctx.unit(&container.id), "IOWeight")?, "4500", "IOWeight");
    check("after daemon-reload")?;
    container.end()
}

/// systemd knows a quota in per cent, and writes its own at every change of any property.
fn fine_quota(ctx: &Context) -> Outcome {
    ctx.need_kelson("a quota that stays as it is")?;
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/resources", json!({"cpu": {"quota": 12_500, "period": 100_000, "shares": 1024}}));
    let container = bundle.start()?;
    let quota = |when: &str| -> Outcome {
        check_eq!(container.cgroup_file("cpu", "cpu.max")?, "12500 100000", "cpu.max {when}");
        Ok(())
    };
    quota("at first")?;
    for options in [
        // As engines do, which send all limits again.
        &["--cpu-quota", "12500", "--cpu-period", "100000"][..],
        &["--cpu-quota", "12500"],
        &["--cpu-share", "2048"],
        &["--cpu-idle", "1"],
        &["--cpu-idle", "0", "--cpu-share", "1024"],
        &["--memory", "104857600"],
        &["--pids-limit", "0"],
        &["--pids-limit", "50"],
    ] {
        ctx.runtime().arg("update").args(options).arg(&container.id).run()?.ok()?;
        quota(&format!("after {options:?}"))?;
    }
    ctx.command("systemctl").arg("daemon-reload").run()?.ok()?;
    check_eq!(property(ctx, &ctx.unit(&container.id), "CPUQuotaPerSecUSec")?, "130ms", "CPUQuotaPerSecUSec");
    // systemd writes its own some time after the reload.
    let seen = container.cgroup_file("cpu", "cpu.max")?;
    check!(["12500 100000", "13000 100000"].contains(&&*seen), "cpu.max after daemon-reload: {seen}");
    container.end()
}

/// Idle is a weight to systemd, which writes it whenever it writes anything of the unit.
fn idle(ctx: &Context) -> Outcome {
    ctx.need_kelson("an end of idleness that stays")?;
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/resources", json!({"cpu": {"shares": 2048}}));
    let container = bundle.start()?;
    let unit = ctx.unit(&container.id);
    let seen = || -> Outcome<_> {
        // First: its answer comes after what it writes.
        let weight = property(ctx, &unit, "CPUWeight")?;
        Ok((weight, container.cgroup_file("cpu", "cpu.idle")?, container.cgroup_file("cpu", "cpu.weight")?))
    };
    let shown = |weight: &str, idle: &str, in_file: &str| (weight.to_owned(), idle.to_owned(), in_file.to_owned());
    let update = |options: &[&str]| ctx.runtime().arg("update").args(options).arg(&container.id).run()?.ok();
    let reload = || ctx.command("systemctl").arg("daemon-reload").run()?.ok();
    // One that is not idle keeps its weight.
    update(&["--cpu-idle", "0"])?;
    check_eq!(seen()?, shown("174", "0", "174"), "not idle at first");
    for end in [&["--cpu-idle", "0"][..], &["--cpu-idle", "0", "--cpu-quota", "50000"]] {
        update(&["--cpu-idle", "1"])?;
        reload()?;
        check_eq!(property(ctx, &unit, "CPUWeight")?, "idle", "CPUWeight");
        check_eq!(container.cgroup_file("cpu", "cpu.idle")?, "1", "cpu.idle after daemon-reload");
        update(end)?;
        check_eq!(seen()?, shown("[not set]", "0", "100"), "after {end:?}");
        update(&["--memory", "104857600"])?;
        check_eq!(seen()?, shown("[not set]", "0", "100"), "after another limit, {end:?}");
        reload()?;
        check_eq!(seen()?, shown("[not set]", "0", "100"), "after daemon-reload, {end:?}");
    }
    update(&["--cpu-idle", "1"])?;
    update(&["--cpu-idle", "0", "--cpu-share", "2048"])?;
    check_eq!(seen()?, shown("174", "0", "174"), "with a weight");
    container.end()
}

const DENIED: i64 = libc::EPERM as i64;

fn devices_stay(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.privileged().set(
        "/linux/resources/devices",
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"},
            // A device that no udev has a link in /dev/char for, as those of a GPU may be.
            {"allow": true, "type": "c", "major": 240, "minor": 7, "access": "rw"},
        ]),
    );
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11},
            {"path": "/dev/gpu", "type": "c", "major": 240, "minor": 7},
            {"path": "/dev/mem2", "type": "c", "major": 10, "minor": 237},
        ]),
    );
    let container = bundle.start()?;
    let opens = |when: &str| -> Outcome {
        let words = "open /dev/null rw , open /dev/kmsg r , open /dev/kmsg w , open /dev/gpu rw , open /dev/mem2 r";
        let words: Vec<&str> = words.split(' ').collect();
        let run = container.exec(&words)?.ok()?;
        let seen: Vec<i64> = run.lines().iter().filter_map(|line| line["open"]["errno"].as_i64()).collect();
        // What is allowed and has no driver is ENXIO.
        check_eq!(seen, [0, 0, DENIED, i64::from(libc::ENXIO), DENIED], "errno of opening {when}");
        Ok(())
    };
    opens("at first")?;
    ctx.command("systemctl").arg("daemon-reload").run()?.ok()?;
    opens("after daemon-reload")?;
    let unit = ctx.unit(&container.id);
    ctx.command("systemctl").args(["set-property", "--runtime", &unit, "CPUWeight=50"]).run()?.ok()?;
    opens("after set-property")?;
    container.end()
}

/// The process that the scope begins with is none of the container's.
fn one_process(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/resources/pids/limit", 1);
    let container = bundle.start()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "1", "pids.max");
    container.end()
}

const PREFIX: &str = "org.systemd.property.";

fn annotations(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    for (name, value) in [
        ("TimeoutStopSec", "uint64 7"),
        ("CollectMode", "'inactive-or-failed'"),
        ("SendSIGHUP", "true"),
        ("KillSignal", "int32 10"),
        ("After", "['keltest-x.service', 'keltest-y.service']"),
    ] {
        bundle.set(&format!("/annotations/{PREFIX}{name}"), value);
    }
    let container = bundle.start()?;
    let unit = ctx.unit(&container.id);
    for (name, value) in
        [("TimeoutStopUSec", "7s"), ("CollectMode", "inactive-or-failed"), ("SendSIGHUP", "yes"), ("KillSignal", "10")]
    {
        check_eq!(property(ctx, &unit, name)?, value, "{name}");
    }
    check!(property(ctx, &unit, "After")?.contains("keltest-y.service"), "After");
    container.end()
}

fn dangerous_annotations(ctx: &Context) -> Outcome {
    ctx.need_kelson("refusing annotations that run programs")?;
    for (name, value) in [
        ("SuccessAction", "'poweroff-force'"),
        ("ExecStopPost", "[('/bin/true', ['/bin/true'], false)]"),
        ("OnFailure", "['rescue.target']"),
        ("BoundBy", "['keltest-x.service']"),
        ("StopPropagatedFrom", "['keltest-x.service']"),
        ("RequiresMountsFor", "['/mnt/x']"),
        ("Slice", "'init.scope'"),
        ("Description", "'kelson container other'"),
    ] {
        let mut bundle = sleeper(ctx)?;
        bundle.set(&format!("/annotations/{PREFIX}{name}"), value);
        bundle.refused(&[&format!("annotations[\"{PREFIX}{name}\"]"), name])?;
    }
    Ok(())
}

fn unknown_annotation(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set(&format!("/annotations/{PREFIX}NoSuchThing"), "true");
    bundle.refused(&["NoSuchThing"])
}

fn other_form(ctx: &Context) -> Outcome {
    if ctx.peer == Peer::Crun {
        skip!("crun takes any path and makes a name of it");
    }
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/cgroupsPath", "/keltest/path").refused(&["cgroupsPath", "slice:prefix:name"])
}

fn in_use(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let first = bundle.start()?;
    let mut second = bundle.container()?;
    bundle.set("/linux/cgroupsPath", format!("system.slice:kelson-test:{}", first.id)).write()?;
    second.create()?.fails()?;
    second.forget();
    check_eq!(first.status()?, "running", "status of the first");
    check_eq!(cgroup::processes(&first.cgroup("memory")), [first.pid()?], "processes of the first");
    first.end()
}

fn later_unit(ctx: &Context) -> Outcome {
    ctx.need_kelson("telling a later unit of the same name")?;
    let mut bundle = sleeper(ctx)?;
    let first = bundle.start()?;
    first.kill("KILL")?.ok()?;
    first.wait_status("stopped")?;
    check_gone(ctx, &ctx.unit(&first.id))?;
    let mut second = bundle.container()?;
    bundle.set("/linux/cgroupsPath", format!("system.slice:kelson-test:{}", first.id)).write()?;
    second.create()?.ok()?;
    let (path, pid) = (first.cgroup("memory"), second.pid()?);
    first.delete()?.ok()?;
    check_eq!(second.status()?, "created", "status of the second");
    check_eq!(cgroup::processes(&path), [pid], "processes of the second");
    second.delete_force()?.ok()?;
    check!(!path.exists(), "the cgroup is left");
    Ok(())
}

fn failed_create(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/process/args", json!(["/no/such/program"]));
    let mut container = bundle.container()?;
    container.create()?.fails()?;
    check_gone(ctx, &ctx.unit(&container.id))?;
    container.forget();
    check!(ctx.state_entries().is_empty(), "state is left: {:?}", ctx.state_entries());
    Ok(())
}

/// At whatever point: with the record alone, with the unit, with the container's process.
fn killed_create(ctx: &Context) -> Outcome {
    ctx.need_kelson("what a killed create leaves")?;
    let mut bundle = sleeper(ctx)?;
    for step in 0..24 {
        let mut container = bundle.container()?;
        let running = container.create_command()?.spawn()?;
        let (pid, state) = (running.pid(), ctx.root.join(&container.id).join("state.json"));
        // Later and later: at first when there is a record, then after so many looks at the unit.
        let _ = eventually(ctx.patience, "", || (state.exists() || running.has_ended()).then_some(()));
        for _ in 0..step {
            std::hint::black_box(container.cgroup("memory").exists());
        }
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        running.wait()?;
        container.delete_force()?.ok()?;
        check!(!state.exists(), "state is left");
        check_gone(ctx, &ctx.unit(&container.id))?;
        container.forget();
    }
    Ok(())
}

fn out_of_memory(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/resources/memory", json!({"limit": 33_554_432, "swap": 33_554_432}));
    let run = bundle.guest(&["hold", "200"]).run()?;
    check_eq!(run.code, 137, "exit code\n  {}", run.told());
    let container = bundle.start()?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    check_gone(ctx, &ctx.unit(&container.id))
}

fn ended(ctx: &Context) -> Outcome {
    ctx.use_systemd()?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["exit", "3"]).start()?;
    container.wait_status("stopped")?;
    check_gone(ctx, &ctx.unit(&container.id))?;
    container.delete()?.ok()?;
    Ok(())
}

fn pause_kill_delete(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    container.pause()?.ok()?;
    check_eq!(container.status()?, "paused", "status");
    container.resume()?.ok()?;
    check_eq!(container.status()?, "running", "status");
    container.pause()?.ok()?;
    container.delete_force()?.ok()?;
    check_gone(ctx, &ctx.unit(&container.id))
}

fn without_bus(ctx: &Context) -> Outcome {
    ctx.need_kelson("doing without a bus")?;
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let without = |words: &[&str]| {
        let command = ctx.runtime().env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
        command.args(words).run()
    };
    let id = container.id.as_str();
    for words in [
        &["state", id][..],
        &["list"],
        &["exec", id, "/bin/guest", "ready"],
        &["pause", id],
        &["resume", id],
        &["kill", id, "KILL"],
    ] {
        without(words)?.ok()?;
    }
    container.wait_status("stopped")?;
    // Says so, and removes the cgroup itself if systemd has not.
    without(&["delete", id])?.ok()?;
    let mut other = bundle.container()?;
    let command = other.create_command()?.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    check!(command.run()?.code != 0, "created without a bus");
    check!(other.stderr().contains("systemd"), "the error does not say what is missing: {}", other.stderr());
    other.forget();
    check!(ctx.state_entries().is_empty(), "state is left: {:?}", ctx.state_entries());
    check_gone(ctx, &ctx.unit(id))
}

/// Each write and each message of it fails once: properties and files are all the old ones, or all the new ones.
fn update_fails(ctx: &Context) -> Outcome {
    ctx.need_kelson("a single thread, which is traced,")?;
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let (container, unit) = limited(ctx, &["sleep"])?;
    let names =
        "MemoryMax,MemorySwapMax,MemoryLow,CPUWeight,CPUQuotaPerSecUSec,CPUQuotaPeriodUSec,AllowedCPUs,TasksMax";
    let seen = || -> Outcome<_> {
        let shown = ctx.command("systemctl").args(["show", "--property", names, "--", &unit]).run()?.ok()?;
        Ok((files(&container)?, shown.out()))
    };
    let traced = |at: Option<(Call, Action)>, words: &str| -> Outcome<(Run, Vec<Call>)> {
        let record = ctx.next_io().with_extension("calls");
        let settings = Settings { also: 0, at }.to_json(&record);
        let tracer = ctx.command(&std::env::current_exe()?.to_string_lossy()).args(["--trace", &settings, "--"]);
        let command = tracer.arg(&ctx.runtime).arg("--root").arg(&ctx.root).args(["update", &container.id]);
        Ok((command.args(words.split(' ')).run()?, tracer::calls(&record)?))
    };
    // A quota that systemd rounds; what is not asked for was never set.
    let new = "--memory 128M --memory-swap 160M --cpu-share 1024 --cpu-quota 33333 --cpu-period 50000 --pids-limit 60";
    let old =
        "--memory 100M --memory-swap 200M --cpu-share 262144 --cpu-quota 50000 --cpu-period 100000 --pids-limit 50";
    let before = seen()?;
    let (run, calls) = traced(None, new)?;
    run.ok()?;
    let after = seen()?;
    check!(after.0 != before.0 && after.1 != before.1, "nothing has changed: {after:?}");
    traced(None, old)?.0.ok()?;
    check_eq!(seen()?, before, "files and properties that were set back");
    let mut failures = 0;
    for call in calls.into_iter().filter(|call| [libc::SYS_write, libc::SYS_sendto].contains(&call.number)) {
        let (run, _) = traced(Some((call, Action::Fail(libc::EIO))), new)?;
        let expected = if run.code == 0 { &after } else { &before };
        check_eq!(&seen()?, expected, "files and properties after a failure of call {}\n  {}", call.index, run.told());
        if run.code == 0 {
            traced(None, old)?.0.ok()?;
        } else {
            failures += 1;
        }
    }
    check!(failures > 8, "only {failures} calls failed");
    container.end()
}

/// A unit whose start does not end before the test does; units that come after it wait.
struct Hanging<'c> {
    ctx: &'c Context,
    unit: String,
}

impl<'c> Hanging<'c> {
    fn start(ctx: &'c Context) -> Outcome<Self> {
        let unit = format!("{}hang.service", ctx.id_prefix());
        let words =
            ["--quiet", "--no-block", "--collect", "--property=Type=oneshot", "--unit", &unit, "sleep", "infinity"];
        manage(ctx, "systemd-run").args(words).run()?.ok()?;
        let hanging = Self { ctx, unit };
        eventually(ctx.patience, "the service starts", || (hanging.jobs().contains(&hanging.unit)).then_some(()))?;
        Ok(hanging)
    }

    fn jobs(&self) -> String {
        let listed = manage(self.ctx, "systemctl").args(["list-jobs", "--no-legend", "--plain"]).run();
        listed.map(|run| run.out()).unwrap_or_default()
    }

    /// Lets the scope of a container wait for it.
    fn delay(&self, bundle: &mut Bundle<'c>) {
        bundle.set(&format!("/annotations/{PREFIX}After"), format!("['{}']", self.unit));
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        let stopped = manage(self.ctx, "systemctl").args(["stop", &self.unit]).run();
        drop(stopped);
    }
}

fn hanging_job(ctx: &Context) -> Outcome {
    ctx.need_kelson("a wait for systemd that can be interrupted")?;
    ctx.use_systemd()?;
    let hanging = Hanging::start(ctx)?;
    let mut bundle = sleeper(ctx)?;
    hanging.delay(&mut bundle);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut container = bundle.container()?;
        let running = container.create_command()?.spawn()?;
        let unit = ctx.unit(&container.id);
        eventually(ctx.patience, "the job waits", || hanging.jobs().contains(&unit).then_some(()))?;
        running.signal(signal as i32)?;
        let run = running.wait()?.exits(1)?;
        let said = container.stderr();
        check!(said.contains(&format!("interrupted by {signal}")), "it does not say why: {said}");
        check!(run.took < Duration::from_secs(28), "it waited: {:?}", run.took);
        check!(!hanging.jobs().contains(&unit), "the job is left: {}", hanging.jobs());
        check_gone(ctx, &unit)?;
        container.forget();
        check!(ctx.state_entries().is_empty(), "state is left: {:?}", ctx.state_entries());
    }
    Ok(())
}

/// systemd executes itself anew, and leaves the bus for that: what waits for a job goes on to wait, what was called is called again.
/// A user's, since that of an emulated machine takes nearly as long as Kelson waits, and answers no other test meanwhile.
fn reexec(ctx: &Context) -> Outcome {
    ctx.need_kelson("a systemd that leaves the bus")?;
    let mut bundle = for_user(ctx, &["sleep"])?;
    let old = bundle.start()?;
    let hanging = Hanging::start(ctx)?;
    hanging.delay(&mut bundle);
    let mut waiting = bundle.container()?;
    let waits = waiting.create_command()?.spawn()?;
    eventually(ctx.patience, "the job waits", || hanging.jobs().contains(&ctx.unit(&waiting.id)).then_some(()))?;
    // It has read its config.json.
    bundle.remove("/annotations");
    let mut new = bundle.container()?;

    let reexec = manage(ctx, "systemctl").arg("daemon-reexec").spawn()?;
    let create = new.create_command()?.spawn()?;
    let delete = old.verb("delete").args(["--force", &old.id]).spawn()?;
    let created = create.wait()?;
    check!(created.code == 0, "create failed: {}", new.stderr());
    delete.wait()?.ok()?;
    reexec.wait()?.ok()?;
    check!(!waits.has_ended(), "it did not wait: {}", waiting.stderr());
    drop(hanging);
    let waited = waits.wait()?;
    check!(waited.code == 0, "the create that waited failed: {}", waiting.stderr());
    for container in [&new, &waiting] {
        let unit = ctx.unit(&container.id);
        check_eq!(property(ctx, &unit, "ActiveState")?, "active", "state of {unit}");
        check_eq!(cgroup::processes(&container.cgroup("memory")), [container.pid()?], "processes of {unit}");
        container.delete_force()?.ok()?;
    }
    for container in [&old, &new, &waiting] {
        check_gone(ctx, &ctx.unit(&container.id))?;
    }
    check!(ctx.state_entries().is_empty(), "state is left: {:?}", ctx.state_entries());
    Ok(())
}

/// KELSON_CYCLES says how often instead.
fn many_times(ctx: &Context, user: u32, times: u64) -> Outcome {
    let mut bundle = if user == 0 { sleeper(ctx)? } else { for_user(ctx, &["sleep"])? };
    cycles(&mut bundle, times)?;
    let units = manage(ctx, "systemctl").args(["list-units", "--all", "--no-legend", "--plain", "kelson-test-*"]);
    let units = units.run()?.ok()?;
    let own: Vec<_> = units.out().lines().filter(|line| line.contains(&ctx.id_prefix())).map(String::from).collect();
    check!(own.is_empty(), "units are left: {own:?}");
    Ok(())
}

// ---- an ordinary user ----------------------------------------------------------------------------------------------

/// A user with a systemd of its own, as in tests/vm.
const USER: u32 = 1000;

/// A bundle for the user; leaves the test where that has no systemd.
fn for_user<'c>(ctx: &'c Context, words: &[&str]) -> Outcome<Bundle<'c>> {
    ctx.use_systemd()?;
    ctx.need_v2()?;
    let mut bundle = ctx.bundle()?;
    bundle.guest(words);
    if !Path::new(&format!("/run/user/{USER}/bus")).exists() {
        skip!("user {USER} has no systemd of its own");
    }
    ctx.become_rootless(USER)?;
    bundle.namespace("user", None);
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    bundle.remove("/process/user/additionalGids");
    give(&bundle.dir, USER)?;
    Ok(bundle)
}

fn of_user(ctx: &Context) -> Outcome {
    let mut bundle = for_user(ctx, &["sleep"])?;
    bundle.set("/linux/resources", json!({"memory": {"limit": 104_857_600}, "pids": {"limit": 50}}));
    let container = bundle.start()?;
    let path = container.cgroup("memory");
    check_eq!(cgroup::processes(&path), [container.pid()?], "processes of {}", path.display());
    check_eq!(container.cgroup_file("memory", "memory.max")?, "104857600", "memory.max");
    check_eq!(container.cgroup_file("pids", "pids.max")?, "50", "pids.max");
    let running = container.exec_command(&[], &["/bin/guest", "sleep"]).spawn()?;
    let inside = || (cgroup::processes(&path).len() == 2).then_some(());
    eventually(ctx.patience, "the process of exec is in the scope", inside)?;
    let update = container.verb("update").args(["--memory", "134217728", "--pids-limit", "60"]);
    update.arg(&container.id).run()?.ok()?;
    let unit = ctx.unit(&container.id);
    for (file, name, value) in [("memory.max", "MemoryMax", "134217728"), ("pids.max", "TasksMax", "60")] {
        check_eq!(container.cgroup_file("memory", file)?, value, "{file} after update");
        check_eq!(property(ctx, &unit, name)?, value, "{name} after update");
    }
    container.kill("KILL")?.ok()?;
    running.wait()?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    check!(!path.exists(), "the cgroup is left");
    Ok(())
}

/// The kernel's log is not the user's to read, and the scope goes with its last process: `run` and `wait` read its counters before,
/// or know what the cgroup above has counted since they began.
fn told_to_user(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    let mut bundle = for_user(ctx, &["hold", "200"])?;
    bundle.set("/linux/resources", json!({"memory": {"limit": 33_554_432, "swap": 33_554_432}}));
    let is_told = |text: &str| {
        let limit = "its limit of 32 MiB was reached (linux.resources.memory.limit, cgroup /user.slice/";
        ["killed for memory: ", "killed for memory: most likely "]
            .iter()
            .any(|how| text.contains(&format!("{how}{limit}")))
    };
    let run = bundle.run()?.exits(137)?;
    check!(is_told(&run.err()), "standard error\n  {}", run.told());
    let container = bundle.guest(&["until", "/go", ",", "hold", "200"]).start()?;
    let mut waiting = container.verb("wait").args(["--json", &container.id]).piped().spawn()?;
    eventually(ctx.patience, "wait looks at the cgroup", || holds(waiting.pid(), "memory.events").then_some(()))?;
    bundle.file("/go", "")?;
    let line = waiting.line()?;
    check!(is_told(&line), "wait prints {line}");
    waiting.wait()?;
    // It is in the record, too.
    let run = container.delete()?.ok()?;
    check!(is_told(&run.err()), "delete\n  {}", run.told());
    Ok(())
}

/// Process `pid` has a file of this name open.
fn holds(pid: i32, name: &str) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|path| path.ends_with(name))
}

/// Debian gives users the controllers cpu, memory and pids.
fn not_delegated(ctx: &Context) -> Outcome {
    ctx.need_kelson("naming who must delegate")?;
    let mut bundle = for_user(ctx, &["sleep"])?;
    let own = format!("/sys/fs/cgroup/user.slice/user-{USER}.slice/user@{USER}.service");
    let has = std::fs::read_to_string(Path::new(&own).join("cgroup.controllers"))?;
    check!(!has.split_ascii_whitespace().any(|name| name == "cpuset"), "the user has cpuset: {has}");
    bundle.set("/linux/resources/cpu", json!({"cpus": "0"}));
    bundle.refused(&["linux.resources.cpu.cpus", "enable cpuset in", "must delegate cpuset (with systemd: Delegate=)"])
}

fn without_session(ctx: &Context) -> Outcome {
    ctx.need_kelson("what to do without a session")?;
    let mut bundle = sleeper(ctx)?;
    ctx.become_rootless(USER)?;
    give(&bundle.dir, USER)?;
    let mut container = bundle.container()?;
    let create = container.create_command()?.env("DBUS_SESSION_BUS_ADDRESS", "");
    check!(create.run()?.code != 0, "created without a bus");
    let said = container.stderr();
    check!(said.contains("dbus-user-session") && said.contains("enable-linger"), "what to do is not said: {said}");
    container.forget();
    check!(ctx.state_entries().is_empty(), "state is left: {:?}", ctx.state_entries());
    Ok(())
}
