//! `update`: every option, JSON, the order of writes, what is refused and changes nothing (runc's tests/integration/update.bats).

use std::fs;
use std::path::Path;

use crate::harness::{Bundle, Container, Context, Outcome, Run, Test, Value, json};
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "memory", run: memory },
    Test { name: "memory_in_units_of_1024", run: memory_units },
    Test { name: "memory_reservation", run: memory_reservation },
    Test { name: "memory_and_swap_up_and_down", run: memory_swap },
    Test { name: "memory_unlimited_is_swap_unlimited", run: memory_unlimited },
    Test { name: "memory_alone_keeps_memory_and_swap_together", run: memory_alone },
    Test { name: "swap_alone", run: swap_alone },
    Test { name: "half_that_does_not_fit_names_both_numbers", run: half_refused },
    Test { name: "check_before_update_names_both_numbers", run: check_before_update },
    Test { name: "memory_below_use_names_both_numbers", run: below_use },
    Test { name: "memory_oom_killer_goes_and_comes", run: oom_killer },
    Test { name: "cpu_share", run: cpu_share },
    Test { name: "cpu_quota_and_period", run: cpu_quota },
    Test { name: "cpu_quota_and_period_below_a_limited_parent", run: cpu_parent },
    Test { name: "cpu_quota_above_the_parent_is_refused", run: cpu_above_parent },
    Test { name: "cpu_burst", run: cpu_burst },
    Test { name: "cpu_idle", run: cpu_idle },
    Test { name: "cpu_realtime", run: cpu_realtime },
    Test { name: "cpuset", run: cpuset },
    Test { name: "cpuset_of_no_cpu_says_what_the_parent_has", run: cpuset_refused },
    Test { name: "pids_limit", run: pids_limit },
    Test { name: "pids_limit_zero", run: pids_zero },
    Test { name: "blkio_weight", run: blkio_weight },
    Test { name: "throttle", run: throttle },
    Test { name: "hugepage_limit", run: hugepage_limit },
    Test { name: "unified", run: unified },
    Test { name: "kernel_memory_is_ignored", run: kernel_memory },
    Test { name: "intel_rdt_is_refused", run: intel_rdt },
    Test { name: "resources_of_a_file_and_of_standard_input", run: resources },
    Test { name: "options_win_over_resources", run: options_win },
    Test { name: "options_after_the_id", run: after_id },
    Test { name: "nothing_asked_changes_nothing", run: nothing },
    Test { name: "refused_values_name_option_and_property", run: refused_values },
    Test { name: "all_or_nothing", run: rollback },
    Test { name: "all_or_nothing_on_memory", run: rollback_memory },
    Test { name: "all_or_nothing_of_every_file", run: rollback_all },
    Test { name: "created_and_paused", run: created_and_paused },
    Test { name: "stopped_is_refused", run: stopped },
    Test { name: "unknown_container", run: unknown },
    Test { name: "without_a_cgroup_is_refused", run: without_cgroup },
    Test { name: "devices_stay_as_they_are", run: devices },
    Test { name: "two_at_once", run: two_at_once },
];

const MIB: u64 = 1 << 20;

/// A sleeper with these resources; `controller` is needed.
fn sleeper<'c>(ctx: &'c Context, controller: &str, resources: Value) -> Outcome<Container<'c>> {
    ctx.need_controller(controller)?;
    let mut bundle = ctx.bundle()?;
    set(&mut bundle, &resources);
    bundle.guest(&["sleep"]).start()
}

fn set(bundle: &mut Bundle<'_>, resources: &Value) {
    for (key, value) in resources.as_object().into_iter().flatten() {
        bundle.set(&format!("/linux/resources/{key}"), value.clone());
    }
}

fn update(container: &Container<'_>, options: &[&str]) -> Outcome<Run> {
    container.verb("update").args(options).arg(&container.id).run()
}

fn update_json(container: &Container<'_>, resources: &Value) -> Outcome<Run> {
    container.verb("update").args(["--resources", "-"]).arg(&container.id).stdin(resources.to_string()).run()
}

/// A file of the version that the test runs on.
fn read(container: &Container<'_>, controller: &str, v1: &str, v2: &str) -> Outcome<String> {
    container.cgroup_file(controller, if container.context.is_v2() { v2 } else { v1 })
}

/// Limit of memory, and of swap: with memory on v1, without it on v2.
fn memory_limits(container: &Container<'_>) -> Outcome<(String, String)> {
    let limit = read(container, "memory", "memory.limit_in_bytes", "memory.max")?;
    Ok((limit, read(container, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max")?))
}

fn need_swap_accounting(ctx: &Context, container: &Container<'_>) -> Outcome {
    let file = if ctx.is_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    if !container.cgroup("memory").join(file).exists() {
        skip!("this kernel has no {file}");
    }
    Ok(())
}

/// What [`memory_limits`] gives for these numbers, in MiB.
fn expected(ctx: &Context, limit: u64, both: u64) -> (String, String) {
    let swap = if ctx.is_v2() { both - limit } else { both };
    ((limit * MIB).to_string(), (swap * MIB).to_string())
}

fn memory(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({"memory": {"limit": 64 * MIB}}))?;
    for limit in ["134217728", "33554432"] {
        update(&container, &["--memory", limit])?.ok()?;
        check_eq!(read(&container, "memory", "memory.limit_in_bytes", "memory.max")?, limit, "limit");
    }
    container.end()
}

fn memory_units(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({}))?;
    for (text, bytes) in [("100M", 100 * MIB), ("65536k", 64 * MIB), ("1g", 1024 * MIB), ("1.5GiB", 1536 * MIB)] {
        update(&container, &["--memory", text])?.ok()?;
        let seen = read(&container, "memory", "memory.limit_in_bytes", "memory.max")?;
        check_eq!(seen, bytes.to_string(), "{text}");
    }
    container.end()
}

fn memory_reservation(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({}))?;
    for reservation in ["33554432", "16777216"] {
        update(&container, &["--memory-reservation", reservation])?.ok()?;
        let seen = read(&container, "memory", "memory.soft_limit_in_bytes", "memory.low")?;
        check_eq!(seen, reservation, "reservation");
    }
    container.end()
}

/// On v1 the limit may never be above that of memory and swap: some of these need one order of writes, some the other.
fn memory_swap(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}))?;
    need_swap_accounting(ctx, &container)?;
    check_eq!(memory_limits(&container)?, expected(ctx, 64, 128), "as created");
    for (limit, both) in [(256, 512), (32, 64), (128, 128), (16, 1024), (512, 1024), (32, 32)] {
        let (memory, swap) = ((limit * MIB).to_string(), (both * MIB).to_string());
        update(&container, &["--memory", &memory, "--memory-swap", &swap])?.ok()?;
        check_eq!(memory_limits(&container)?, expected(ctx, limit, both), "{limit} MiB, with swap {both} MiB");
    }
    container.end()
}

fn memory_unlimited(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}))?;
    need_swap_accounting(ctx, &container)?;
    update(&container, &["--memory", "-1"])?.ok()?;
    let unlimited = if ctx.is_v2() { "max" } else { "9223372036854771712" };
    check_eq!(memory_limits(&container)?, (unlimited.to_owned(), unlimited.to_owned()), "limits");
    update(&container, &["--memory=64M", "--memory-swap=-1"])?.ok()?;
    check_eq!(memory_limits(&container)?, ((64 * MIB).to_string(), unlimited.to_owned()), "unlimited swap");
    container.end()
}

fn memory_alone(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}))?;
    need_swap_accounting(ctx, &container)?;
    for limit in [96, 32, 128] {
        update(&container, &["--memory", &(limit * MIB).to_string()])?.ok()?;
        check_eq!(memory_limits(&container)?, expected(ctx, limit, 128), "{limit} MiB");
    }
    container.end()
}

fn swap_alone(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}))?;
    need_swap_accounting(ctx, &container)?;
    for both in [256, 96, 64] {
        update(&container, &["--memory-swap", &(both * MIB).to_string()])?.ok()?;
        check_eq!(memory_limits(&container)?, expected(ctx, 64, both), "{both} MiB");
    }
    container.end()
}

fn half_refused(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "memory", json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}))?;
    need_swap_accounting(ctx, &container)?;
    for (options, words) in [
        (&["--memory", "256M"][..], ["--memory: 268435456", "134217728"]),
        (&["--memory-swap", "32M"], ["--memory-swap: 33554432", "67108864"]),
        (&["--memory-swap", "32M", "--memory", "48M"], ["--memory-swap: 33554432", "50331648"]),
    ] {
        let run = update(&container, options)?.fails()?;
        check_eq!(memory_limits(&container)?, expected(ctx, 64, 128), "limits after {options:?}");
        ctx.need_kelson("naming the option and both numbers")?;
        run.fails_saying(&words)?;
    }
    container.end()
}

/// A container that holds 32 MiB.
fn holder(ctx: &Context) -> Outcome<Container<'_>> {
    ctx.need_controller("memory")?;
    let mut bundle = ctx.bundle()?;
    // Without swap, so that it stays what it is.
    set(&mut bundle, &json!({"memory": {"limit": 128 * MIB, "swap": 128 * MIB}}));
    let mut container = bundle.guest(&["hold", "32", ",", "ready", ",", "sleep"]).start()?;
    container.hear("ready")?;
    Ok(container)
}

fn check_before_update(ctx: &Context) -> Outcome {
    let container = holder(ctx)?;
    let before = memory_limits(&container)?;
    let asked = json!({"memory": {"limit": 8 * MIB, "swap": 128 * MIB, "checkBeforeUpdate": true}});
    let run = update_json(&container, &asked)?.fails()?;
    check_eq!(memory_limits(&container)?, before, "limits");
    check_eq!(container.status()?, "running", "status");
    let used: u64 = read(&container, "memory", "memory.usage_in_bytes", "memory.current")?.parse()?;
    check!(used >= 32 * MIB, "only {used} bytes in use");
    ctx.need_kelson("naming both numbers on both versions")?;
    // What is in use moves; the number is the bytes of a moment.
    run.fails_saying(&["linux.resources.memory.limit: 8388608 is less than the 3", "bytes in use"])?;
    update_json(&container, &json!({"memory": {"limit": 64 * MIB, "swap": 128 * MIB, "checkBeforeUpdate": true}}))?
        .ok()?;
    check_eq!(memory_limits(&container)?, expected(ctx, 64, 128), "limits above what is in use");
    container.end()
}

/// v1 refuses what it cannot make room for; v2 kills for it.
fn below_use(ctx: &Context) -> Outcome {
    ctx.need_v1()?;
    let container = holder(ctx)?;
    let before = memory_limits(&container)?;
    let run = update(&container, &["--memory", "8M", "--memory-swap", "8M"])?.fails()?;
    check_eq!(memory_limits(&container)?, before, "limits");
    check_eq!(container.status()?, "running", "status");
    ctx.need_kelson("naming both numbers")?;
    run.fails_saying(&["8388608", "--memory:", "busy (the container already uses 3", "bytes"])?;
    container.end()
}

fn oom_killer(ctx: &Context) -> Outcome {
    ctx.need_v1()?;
    let container = sleeper(ctx, "memory", json!({}))?;
    for disabled in [true, false] {
        update_json(&container, &json!({"memory": {"disableOOMKiller": disabled}}))?.ok()?;
        let seen = container.cgroup_file("memory", "memory.oom_control")?;
        check!(seen.contains(&format!("oom_kill_disable {}", u8::from(disabled))), "{disabled}: {seen}");
    }
    container.end()
}

fn cpu_share(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "cpu", json!({"cpu": {"shares": 512}}))?;
    update(&container, &["--cpu-share", "2048"])?.ok()?;
    if !ctx.is_v2() {
        check_eq!(container.cgroup_file("cpu", "cpu.shares")?, "2048", "cpu.shares");
    } else if ctx.peer == crate::harness::Peer::Kelson {
        check_eq!(container.cgroup_file("cpu", "cpu.weight")?, "174", "cpu.weight");
    }
    container.end()
}

/// Quota and period, with `max` for none.
fn quota(container: &Container<'_>) -> Outcome<String> {
    if container.context.is_v2() {
        return container.cgroup_file("cpu", "cpu.max");
    }
    let quota = container.cgroup_file("cpu", "cpu.cfs_quota_us")?;
    let quota = if quota == "-1" { "max" } else { &quota };
    Ok(format!("{quota} {}", container.cgroup_file("cpu", "cpu.cfs_period_us")?))
}

fn cpu_quota(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "cpu", json!({"cpu": {"quota": 500_000, "period": 1_000_000}}))?;
    for (options, expected) in [
        (&["--cpu-period", "900000"][..], "500000 900000"),
        (&["--cpu-quota", "600000"], "600000 900000"),
        (&["--cpu-quota", "-1"], "max 900000"),
        (&["--cpu-period", "50000"], "max 50000"),
        (&["--cpu-quota", "20000", "--cpu-period", "100000"], "20000 100000"),
        (&["--cpu-quota", "-1", "--cpu-period", "200000"], "max 200000"),
    ] {
        update(&container, options)?.ok()?;
        check_eq!(quota(&container)?, expected, "{options:?}");
    }
    container.end()
}

/// v1: no part of a period may be greater than the parent's, on the way from one to the other either.
fn cpu_parent(ctx: &Context) -> Outcome {
    ctx.need_v1()?;
    let container = sleeper(ctx, "cpu", json!({"cpu": {"quota": 40_000, "period": 100_000}}))?;
    let parent = ctx.cgroups.path("cpu", &ctx.cgroup_parent);
    fs::write(parent.join("cpu.cfs_quota_us"), "50000")?;
    for (quota_us, period) in [("20000", "50000"), ("450000", "1000000"), ("4500", "10000"), ("100000", "200000")] {
        update(&container, &["--cpu-quota", quota_us, "--cpu-period", period])?.ok()?;
        check_eq!(quota(&container)?, format!("{quota_us} {period}"), "quota and period");
    }
    container.end()
}

fn cpu_above_parent(ctx: &Context) -> Outcome {
    ctx.need_v1()?;
    let container = sleeper(ctx, "cpu", json!({"cpu": {"quota": 40_000, "period": 100_000}}))?;
    let parent = ctx.cgroups.path("cpu", &ctx.cgroup_parent);
    fs::write(parent.join("cpu.cfs_quota_us"), "50000")?;
    let run = update(&container, &["--cpu-quota", "60000"])?.fails()?;
    check_eq!(quota(&container)?, "40000 100000", "quota and period");
    ctx.need_kelson("naming the option and the parent's part")?;
    run.fails_saying(&["--cpu-quota: invalid argument", "the parent's, 50000 of 100000"])?;
    container.end()
}

fn cpu_burst(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "cpu", json!({"cpu": {"quota": 50_000, "period": 100_000}}))?;
    let file = if ctx.is_v2() { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    if !container.cgroup("cpu").join(file).exists() {
        skip!("this kernel has no {file}");
    }
    for (options, quota_us, burst) in [
        (&["--cpu-burst", "40000"][..], "50000", "40000"),
        // Above the old quota, and below the old burst.
        (&["--cpu-burst", "60000", "--cpu-quota", "70000"], "70000", "60000"),
        (&["--cpu-burst", "10000", "--cpu-quota", "20000"], "20000", "10000"),
        (&["--cpu-burst", "0"], "20000", "0"),
    ] {
        update(&container, options)?.ok()?;
        check_eq!(container.cgroup_file("cpu", file)?, burst, "burst after {options:?}");
        check_eq!(quota(&container)?, format!("{quota_us} 100000"), "quota after {options:?}");
    }
    update(&container, &["--cpu-burst", "15000"])?.ok()?;
    update(&container, &["--cpu-quota", "10000"])?.fails_saying(&["--cpu-quota", "the burst is 15000"])?;
    update(&container, &["--cpu-burst", "30000"])?.fails_saying(&["--cpu-burst", "at most the quota"])?;
    check_eq!(container.cgroup_file("cpu", file)?, "15000", "burst");
    container.end()
}

fn cpu_idle(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "cpu", json!({"cpu": {"shares": 1024}}))?;
    if !container.cgroup("cpu").join("cpu.idle").exists() {
        skip!("this kernel has no cpu.idle");
    }
    let seen = |container: &Container<'_>| -> Outcome<(String, String)> {
        Ok((container.cgroup_file("cpu", "cpu.idle")?, read(container, "cpu", "cpu.shares", "cpu.weight")?))
    };
    let weight = |v1: &str, v2: &str| if ctx.is_v2() { v2.to_owned() } else { v1.to_owned() };
    // Twice: engines send all limits again.
    update(&container, &["--cpu-idle", "1", "--cpu-share", "512"])?.ok()?;
    update(&container, &["--cpu-idle", "1", "--cpu-share", "512"])?.ok()?;
    check_eq!(seen(&container)?.0, "1", "cpu.idle");
    update(&container, &["--cpu-share", "512"])?.fails_saying(&["--cpu-share", "idle"])?;
    update(&container, &["--cpu-idle", "0", "--cpu-share", "2048"])?.ok()?;
    check_eq!(seen(&container)?, ("0".into(), weight("2048", "174")), "cpu.idle and weight");
    // Taken back: idleness, and the weight that goes with it.
    update_json(&container, &json!({"cpu": {"idle": 1}, "pids": {"limit": TOO_MANY}}))?.fails()?;
    check_eq!(seen(&container)?, ("0".into(), weight("2048", "174")), "after what was refused");
    update(&container, &["--cpu-idle", "1"])?.ok()?;
    update_json(&container, &json!({"cpu": {"idle": 0, "shares": 512}, "pids": {"limit": TOO_MANY}}))?.fails()?;
    check_eq!(seen(&container)?.0, "1", "cpu.idle after what was refused");
    container.end()
}

/// More processes than any kernel has numbers for: pids.max refuses it.
const TOO_MANY: i64 = 1 << 40;

fn cpu_realtime(ctx: &Context) -> Outcome {
    if ctx.is_v2() {
        let container = sleeper(ctx, "cpu", json!({}))?;
        update(&container, &["--cpu-rt-period", "500000"])?
            .fails_saying(&["--cpu-rt-period", "no form in cgroup v2"])?;
        return container.end();
    }
    if !ctx.cgroups.path("cpu", "/").join("cpu.rt_period_us").exists() {
        skip!("this kernel has no cpu.rt_period_us");
    }
    let container = sleeper(ctx, "cpu", json!({}))?;
    let parent = ctx.cgroups.path("cpu", &ctx.cgroup_parent);
    if fs::write(parent.join("cpu.rt_runtime_us"), "100000").is_err() {
        container.end()?;
        skip!("no real-time CPU time to give here");
    }
    for (runtime, period) in [("50000", "600000"), ("20000", "200000"), ("90000", "1000000")] {
        update(&container, &["--cpu-rt-runtime", runtime, "--cpu-rt-period", period])?.ok()?;
        check_eq!(container.cgroup_file("cpu", "cpu.rt_runtime_us")?, runtime, "runtime");
        check_eq!(container.cgroup_file("cpu", "cpu.rt_period_us")?, period, "period");
    }
    container.end()
}

fn cpuset(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "cpuset", json!({"cpu": {"cpus": "0"}}))?;
    let has_two = fs::read_to_string("/sys/devices/system/cpu/online")?.trim_end() != "0";
    let lists: &[&str] = if has_two { &["1", "0-1", "0"] } else { &["0"] };
    for list in lists {
        update(&container, &["--cpuset-cpus", list, "--cpuset-mems", "0"])?.ok()?;
        check_eq!(container.cgroup_file("cpuset", "cpuset.cpus")?, *list, "cpuset.cpus");
        check_eq!(container.cgroup_file("cpuset", "cpuset.mems")?, "0", "cpuset.mems");
    }
    container.end()
}

fn cpuset_refused(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "cpuset", json!({"cpu": {"cpus": "0"}}))?;
    let run = update(&container, &["--cpuset-cpus", "9999"])?.fails()?;
    check_eq!(container.cgroup_file("cpuset", "cpuset.cpus")?, "0", "cpuset.cpus");
    ctx.need_kelson("naming the option and what there is")?;
    run.fails_saying(&["--cpuset-cpus", "the parent cgroup has 0"])?;
    container.end()
}

fn pids_limit(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    for (limit, expected) in [("10", "10"), ("-1", "max"), ("30", "30")] {
        update(&container, &["--pids-limit", limit])?.ok()?;
        check_eq!(container.cgroup_file("pids", "pids.max")?, expected, "pids.max");
    }
    container.end()
}

fn pids_zero(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    update(&container, &["--pids-limit", "0"])?.ok()?;
    // Also with systemd, which takes no 0.
    check_eq!(container.cgroup_file("pids", "pids.max")?, "0", "pids.max");
    container.end()
}

fn blkio_weight(ctx: &Context) -> Outcome {
    let controller = if ctx.is_v2() { "io" } else { "blkio" };
    let container = sleeper(ctx, controller, json!({}))?;
    let has = |file: &&&str| container.cgroup(controller).join(file).exists();
    let Some(file) = ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"].iter().find(has) else {
        skip!("this kernel has no weight of block I/O");
    };
    update(&container, &["--blkio-weight", "500"])?.ok()?;
    let seen = container.cgroup_file(controller, file)?;
    let expected = if *file == "io.weight" { "4950" } else { "500" };
    check!(seen.split_whitespace().any(|word| word == expected), "{file} is {seen}, not {expected}");
    container.end()
}

fn throttle(ctx: &Context) -> Outcome {
    let controller = if ctx.is_v2() { "io" } else { "blkio" };
    ctx.need_controller(controller)?;
    if !Path::new("/sys/dev/block/7:7").exists() {
        skip!("no /dev/loop7 on this machine");
    }
    let one = |rate: u64| json!([{"major": 7, "minor": 7, "rate": rate}]);
    let container = sleeper(ctx, controller, json!({"blockIO": {"throttleReadBpsDevice": one(MIB)}}))?;
    let seen = || read(&container, controller, "blkio.throttle.read_bps_device", "io.max");
    let line = |rate: u64| {
        if ctx.is_v2() { format!("7:7 rbps={rate} wbps=max riops=max wiops=max") } else { format!("7:7 {rate}") }
    };
    update_json(&container, &json!({"blockIO": {"throttleReadBpsDevice": one(2 * MIB)}}))?.ok()?;
    check_eq!(seen()?, line(2 * MIB), "limit");
    // The second is no device.
    let refused = json!({"blockIO": {"throttleReadBpsDevice": one(3 * MIB), "throttleWriteBpsDevice": [{"major": 7, "minor": 4095, "rate": 1}]}});
    update_json(&container, &refused)?.fails()?;
    check_eq!(seen()?, line(2 * MIB), "limit after what was refused");
    update_json(&container, &json!({"blockIO": {"throttleReadBpsDevice": one(0)}}))?.ok()?;
    check_eq!(seen()?, "", "no limit");
    container.end()
}

/// v2 enables the controller for the container when it is asked for.
fn hugepage_limit(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "hugetlb", json!({}))?;
    update_json(&container, &json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}))?.ok()?;
    for file in
        [("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"), ("hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max")]
    {
        check_eq!(read(&container, "hugetlb", file.0, file.1)?, (4 * MIB).to_string(), "{file:?}");
    }
    container.end()
}

fn unified(ctx: &Context) -> Outcome {
    if !ctx.is_v2() {
        let container = sleeper(ctx, "pids", json!({}))?;
        let run = update_json(&container, &json!({"unified": {"pids.max": "10"}}))?;
        run.fails_saying(&["unified"])?;
        return container.end();
    }
    let container = sleeper(ctx, "pids", json!({"cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 20}}))?;
    update_json(&container, &json!({"unified": {"cpu.max": "max 100000", "cpu.weight": "16", "pids.max": "10"}}))?
        .ok()?;
    for (file, expected) in [("cpu.max", "max 100000"), ("cpu.weight", "16"), ("pids.max", "10")] {
        check_eq!(container.cgroup_file("pids", file)?, expected, "{file}");
    }
    container.end()
}

fn kernel_memory(ctx: &Context) -> Outcome {
    if ctx.peer == crate::harness::Peer::Crun {
        skip!("crun sets it");
    }
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    let run = update(&container, &["--kernel-memory", "50M", "--kernel-memory-tcp=50M", "--pids-limit", "10"])?.ok()?;
    check!(run.err().contains("ignored"), "no warning: {}", run.told());
    check_eq!(container.cgroup_file("pids", "pids.max")?, "10", "pids.max");
    if ctx.peer == crate::harness::Peer::Kelson {
        check!(run.err().contains("--kernel-memory ") && run.err().contains("--kernel-memory-tcp "), "{}", run.told());
    }
    container.end()
}

fn intel_rdt(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    for option in ["--l3-cache-schema", "--mem-bw-schema"] {
        let run = update(&container, &["--pids-limit", "10", option, "L3:0=f"])?.fails()?;
        check_eq!(container.cgroup_file("pids", "pids.max")?, "20", "pids.max");
        if ctx.peer == crate::harness::Peer::Kelson {
            run.fails_saying(&[option, "not supported"])?;
        }
    }
    container.end()
}

fn resources(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    let file = ctx.new_dir("resources")?.join("r.json");
    let content = |limit: i64| json!({"pids": {"limit": limit}}).to_string();
    let seen = || container.cgroup_file("pids", "pids.max");
    fs::write(&file, content(11))?;
    update(&container, &[&format!("--resources={}", file.display())])?.ok()?;
    check_eq!(seen()?, "11", "by --resources=FILE");
    fs::write(&file, content(12))?;
    update(&container, &["-r", &file.to_string_lossy()])?.ok()?;
    check_eq!(seen()?, "12", "by -r FILE");
    let by_input =
        |options: &[&str], text: String| container.verb("update").args(options).arg(&container.id).stdin(text).run();
    by_input(&["--resources", "-"], content(13))?.ok()?;
    check_eq!(seen()?, "13", "by --resources -");
    by_input(&["--resources=-"], content(14))?.ok()?;
    check_eq!(seen()?, "14", "by --resources=-");
    by_input(&["--resources=-"], "{}".into())?.ok()?;
    by_input(&["--resources=-"], "{\"pids\"".into())?.fails()?;
    by_input(&["--resources=-"], String::new())?.fails()?;
    by_input(&["--resources=-"], json!({"pids": {"limit": "15"}}).to_string())?.fails()?;
    update(&container, &["--resources", "/nonexistent.json"])?.fails_saying(&["/nonexistent.json"])?;
    check_eq!(seen()?, "14", "after what was refused");
    container.end()
}

fn options_win(ctx: &Context) -> Outcome {
    ctx.need_kelson("options beside a file")?;
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    let command = container.verb("update").args(["--resources", "-", "--pids-limit", "11"]).arg(&container.id);
    command.stdin(json!({"pids": {"limit": 12}}).to_string()).run()?.ok()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "11", "pids.max");
    container.end()
}

fn after_id(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    container.verb("update").arg(&container.id).args(["--pids-limit", "10"]).run()?.ok()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "10", "pids.max");
    let command = container.verb("update").arg(&container.id).args(["--resources", "-"]);
    command.stdin(json!({"pids": {"limit": 12}}).to_string()).run()?.ok()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "12", "pids.max");
    container.end()
}

/// All that a file of limits says, of every hierarchy.
fn all_limits(container: &Container<'_>) -> Outcome<Vec<(String, String)>> {
    let context = container.context;
    let mut all = vec![];
    for dir in context.cgroups.existing(&format!("{}/{}", context.cgroup_parent, container.id)) {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_limit = |name: &str| {
                [
                    "limit_in_bytes",
                    ".max",
                    "_us",
                    ".shares",
                    ".weight",
                    ".idle",
                    ".burst",
                    ".low",
                    ".high",
                    ".cpus",
                    ".mems",
                ]
                .iter()
                .any(|end| name.ends_with(end))
                    || name == "devices.list"
            };
            if is_limit(&name)
                && let Ok(text) = fs::read_to_string(&path)
            {
                all.push((name, text));
            }
        }
    }
    all.sort();
    Ok(all)
}

/// Fails with what is not as `before`.
fn check_unchanged(container: &Container<'_>, before: &[(String, String)], when: &str) -> Outcome {
    let after = all_limits(container)?;
    let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    check!(changed.is_empty() && before.len() == after.len(), "changed {when}: {changed:?}");
    Ok(())
}

fn nothing(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    let before = all_limits(&container)?;
    update(&container, &[])?.ok()?;
    update_json(&container, &json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"quota": 0, "cpus": ""}}))?.ok()?;
    check_unchanged(&container, &before, "by what was asked")?;
    container.end()
}

fn refused_values(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    let before = all_limits(&container)?;
    for (option, value) in [
        ("--memory", "1x"),
        ("--memory", "-2"),
        ("--memory-reservation", "one"),
        ("--memory-swap", "12Q"),
        ("--cpu-share", "-1"),
        ("--cpu-quota", "-2"),
        ("--cpu-period", "x"),
        ("--cpu-burst", "-1"),
        ("--cpu-idle", "2"),
        ("--cpu-rt-period", "-5"),
        ("--cpu-rt-runtime", "-2"),
        ("--pids-limit", "many"),
        ("--pids-limit", "-2"),
        ("--blkio-weight", "5"),
        ("--blkio-weight", "1001"),
        ("--nope", "1"),
    ] {
        let run = update(&container, &[option, value])?.fails()?;
        if ctx.peer == crate::harness::Peer::Kelson {
            run.fails_saying(&[option])?;
        }
    }
    for (resources, property) in [
        (json!({"memory": {"limit": -2}}), "linux.resources.memory.limit"),
        (json!({"cpu": {"shares": "many"}}), "linux.resources.cpu.shares"),
        (json!({"cpu": {"idle": 7}}), "linux.resources.cpu.idle"),
        (json!({"pids": {"limit": -7}}), "linux.resources.pids.limit"),
        (json!({"blockIO": {"weight": 5}}), "linux.resources.blockIO.weight"),
        (json!({"pids": {"limit": TOO_MANY}}), "linux.resources.pids.limit"),
        (json!({"hugepageLimits": [{"pageSize": "3XB", "limit": 1}]}), "linux.resources.hugepageLimits[0].pageSize"),
    ] {
        let run = update_json(&container, &resources)?.fails()?;
        if ctx.peer == crate::harness::Peer::Kelson {
            run.fails_saying(&[property])?;
        }
    }
    check_unchanged(&container, &before, "by what was asked")?;
    container.end()
}

/// The cpuset is written before the limit of processes, and the kernel refuses that one.
fn rollback(ctx: &Context) -> Outcome {
    ctx.need_controller("cpu")?;
    let resources = json!({"cpu": {"shares": 512}, "pids": {"limit": 20}});
    let container = sleeper(ctx, "pids", resources)?;
    let before = all_limits(&container)?;
    update_json(&container, &json!({"cpu": {"shares": 1024}, "pids": {"limit": TOO_MANY}}))?.fails()?;
    check_unchanged(&container, &before, "after a refused limit of processes")?;
    update_json(&container, &json!({"cpu": {"shares": 1024, "cpus": "9999"}, "pids": {"limit": 10}}))?.fails()?;
    check_unchanged(&container, &before, "after a refused cpuset")?;
    // And the same without what is refused.
    update_json(&container, &json!({"cpu": {"shares": 1024}, "pids": {"limit": 10}}))?.ok()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "10", "pids.max");
    container.end()
}

/// v1: memory that is in use cannot be taken away; what was set before it is set back.
fn rollback_memory(ctx: &Context) -> Outcome {
    ctx.need_v1()?;
    let container = holder(ctx)?;
    let before = all_limits(&container)?;
    let asked = json!({"memory": {"limit": 8 * MIB, "swap": 64 * MIB, "reservation": 4 * MIB}, "cpu": {"shares": 77}, "pids": {"limit": 7}});
    update_json(&container, &asked)?.fails()?;
    check_unchanged(&container, &before, "by what was asked")?;
    container.end()
}

/// Every file that can be changed here is, before the last is refused.
fn rollback_all(ctx: &Context) -> Outcome {
    for controller in ["memory", "cpu", "cpuset", "pids"] {
        ctx.need_controller(controller)?;
    }
    let resources = json!({
        "memory": {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 20},
    });
    let container = sleeper(ctx, "pids", resources)?;
    need_swap_accounting(ctx, &container)?;
    let before = all_limits(&container)?;
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online")?.trim_end().to_owned();
    let mut asked = json!({
        "memory": {"limit": 256 * MIB, "swap": 512 * MIB, "reservation": 16 * MIB},
        "cpu": {"shares": 1024, "quota": 20_000, "period": 50_000, "burst": 5_000, "cpus": cpus, "mems": "0"},
        "pids": {"limit": TOO_MANY},
    });
    update_json(&container, &asked)?.fails()?;
    check_unchanged(&container, &before, "by what was asked")?;
    asked["pids"]["limit"] = 30.into();
    update_json(&container, &asked)?.ok()?;
    check_eq!(memory_limits(&container)?, expected(ctx, 256, 512), "memory");
    check_eq!(quota(&container)?, "20000 50000", "quota and period");
    container.end()
}

fn created_and_paused(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    ctx.need_controller("pids")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/pids", json!({"limit": 20}));
    let container = bundle.guest(&["sleep"]).create()?;
    update(&container, &["--pids-limit", "10"])?.ok()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "10", "pids.max of a created one");
    container.start()?.ok()?;
    container.pause()?.ok()?;
    update(&container, &["--pids-limit", "12"])?.ok()?;
    check_eq!(container.cgroup_file("pids", "pids.max")?, "12", "pids.max of a paused one");
    if ctx.cgroups.has("memory") {
        update(&container, &["--memory", "67108864"])?.ok()?;
        update(&container, &["--memory", "33554432"])?.ok()?;
    }
    check_eq!(container.status()?, "paused", "status");
    container.resume()?.ok()?;
    container.end()
}

fn stopped(ctx: &Context) -> Outcome {
    let container = sleeper(ctx, "pids", json!({"pids": {"limit": 20}}))?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    update(&container, &["--pids-limit", "10"])?.fails_saying(&["not running"])?;
    container.delete()?.ok()?;
    Ok(())
}

fn unknown(ctx: &Context) -> Outcome {
    ctx.runtime().args(["update", "--pids-limit", "10", "nobody"]).run()?.fails_saying(&["does not exist"])?;
    ctx.runtime().args(["update", "--pids-limit", "10"]).run()?.fails()?;
    Ok(())
}

fn without_cgroup(ctx: &Context) -> Outcome {
    ctx.need_kelson("--cgroup-manager disabled, and saying that there is no cgroup")?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.remove("/linux/resources").guest(&["sleep"]).container()?;
    bundle.write()?;
    let command = ctx.runtime().args(["--cgroup-manager", "disabled", "run", "--detach", "--bundle"]).arg(&bundle.dir);
    let nothing: std::os::fd::OwnedFd = fs::File::options().read(true).write(true).open("/dev/null")?.into();
    let copy = nothing.try_clone()?;
    command.arg(&container.id).fd(0, nothing).fd(1, copy).run()?.ok()?;
    update(&container, &["--pids-limit", "10"])?.fails_saying(&["--pids-limit", "no cgroup"])?;
    update(&container, &[])?.ok()?;
    container.delete_force()?.ok()?;
    container.forget();
    Ok(())
}

/// A device that may be opened, and one that may not: engines send the rules of the config again, or others.
fn devices(ctx: &Context) -> Outcome {
    ctx.need_controller("devices")?;
    let mut bundle = ctx.bundle()?;
    let device = |path: &str, major: u32, minor: u32| json!({"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0});
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"},
    ]);
    bundle
        .privileged()
        .set("/linux/devices", json!([device("/dev/kmsg", 1, 11), device("/dev/loopctl", 10, 237)]))
        .set("/linux/resources/devices", rules);
    let container = bundle.guest(&["sleep"]).start()?;
    let opens = || -> Outcome<Vec<Value>> {
        // The capabilities of the config: what opens /dev/kmsg needs CAP_SYSLOG.
        let mut process = container.process(&[
            "open",
            "/dev/kmsg",
            "r",
            ",",
            "open",
            "/dev/loopctl",
            "r",
            ",",
            "open",
            "/dev/null",
            "rw",
        ]);
        let all = crate::harness::bundle::all_capabilities();
        process["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
        let run = container.exec_process(&process)?.ok()?;
        Ok(run.lines().iter().map(|line| line["open"]["errno"].clone()).collect())
    };
    let expected = vec![json!(0), json!(libc::EPERM), json!(0)];
    check_eq!(opens()?, expected, "errno of opening each, as created");
    let before = all_limits(&container)?;
    for devices in [json!([{"allow": false, "access": "rwm"}]), json!([{"allow": true, "access": "rwm"}]), json!([])] {
        update_json(&container, &json!({"devices": devices, "blockIO": {"weight": 0}}))?.ok()?;
        check_eq!(opens()?, expected, "errno of opening each, after {devices}");
        check_unchanged(&container, &before, &format!("after {devices}"))?;
    }
    if ctx.cgroups.has("pids") {
        update(&container, &["--pids-limit", "100"])?.ok()?;
        check_eq!(opens()?, expected, "errno of opening each, after another limit");
    }
    container.end()
}

/// One waits for the other: both are done, whichever comes first.
fn two_at_once(ctx: &Context) -> Outcome {
    ctx.need_controller("cpu")?;
    let container = sleeper(ctx, "pids", json!({"cpu": {"shares": 512}, "pids": {"limit": 20}}))?;
    for round in 0..5 {
        let pids = (100 + round).to_string();
        let start = |options: &[&str]| container.verb("update").args(options).arg(&container.id).spawn();
        let one = start(&["--pids-limit", &pids, "--cpu-quota", "50000", "--cpu-period", "100000"])?;
        let two = start(&["--pids-limit", &pids, "--cpu-quota", "20000", "--cpu-period", "50000"])?;
        one.wait()?.ok()?;
        two.wait()?.ok()?;
        check_eq!(container.cgroup_file("pids", "pids.max")?, pids, "pids.max");
        let seen = quota(&container)?;
        check!(["50000 100000", "20000 50000"].contains(&seen.as_str()), "a mix of both: {seen}");
    }
    container.end()
}
