//! `events`: statistics as runc's JSON, a line each time that the container is out of memory, and the stream's end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use crate::harness::{Cmd, Container, Context, Outcome, Peer, Running, Test, Value, cgroup, eventually, json};
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "stats_have_the_keys_of_runc", run: keys_of_runc },
    Test { name: "stats_of_limits", run: stats_of_limits },
    Test { name: "stats_move", run: stats_move },
    Test { name: "stats_have_pressure_on_v2", run: pressure },
    Test { name: "stats_of_a_created_and_a_paused_one", run: created_and_paused },
    Test { name: "stats_of_a_stopped_one_are_refused", run: stopped },
    Test { name: "stats_without_a_cgroup_are_refused", run: without_cgroup },
    Test { name: "interval_is_kept", run: interval },
    Test { name: "interval_that_is_none_is_refused", run: bad_interval },
    Test { name: "oom_of_another_process_is_told", run: oom_of_another },
    Test { name: "oom_that_ends_the_container_is_told", run: oom_at_the_end },
    Test { name: "stream_ends_with_the_container", run: ends_with_the_container },
    Test { name: "stream_ends_with_delete", run: ends_with_delete },
];

const MIB: u64 = 1024 * 1024;

/// `events OPTIONS ID`.
fn events<'c>(container: &Container<'c>, options: &[&str]) -> Cmd<'c> {
    container.verb("events").args(options).arg(&container.id)
}

/// The `data` of one line of `events --stats`.
fn stats(container: &Container) -> Outcome<Value> {
    let run = events(container, &["--stats"]).run()?.ok()?;
    check_eq!(run.out().matches('\n').count(), 1, "lines of {}", run.told());
    data(&run.out(), &container.id)
}

fn data(line: &str, id: &str) -> Outcome<Value> {
    let mut event: Value = serde_json::from_str(line).map_err(|e| format!("{line:?}: {e}"))?;
    check_eq!(event["type"], "stats", "type");
    check_eq!(event["id"], id, "id");
    Ok(event["data"].take())
}

fn number(stats: &Value, pointer: &str) -> u64 {
    stats.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn limited<'c>(ctx: &'c Context, guest: &[&str]) -> Outcome<Container<'c>> {
    for controller in ["cpu", "memory", "pids"] {
        ctx.need_controller(controller)?;
    }
    let mut bundle = ctx.bundle()?;
    bundle
        .set("/linux/resources/memory", json!({"limit": 64 * MIB, "swap": 64 * MIB}))
        .set("/linux/resources/cpu", json!({"quota": 10000, "period": 100_000}))
        .set("/linux/resources/pids", json!({"limit": 50}));
    // Without a limit Kelson does not enable that controller.
    if ctx.cgroups.has("hugetlb") && Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 * MIB}]));
    }
    bundle.guest(guest).start()
}

/// The same test with Debian's runc.
fn beside(ctx: &Context, runtime: PathBuf) -> Outcome<Context> {
    let root = ctx.new_dir("runc")?;
    let version = ctx.command("runc").arg("--version").run()?.ok()?.out();
    Ok(Context {
        runtime,
        peer: Peer::Runc,
        version: version.split_whitespace().nth(2).unwrap_or_default().to_owned(),
        guest: ctx.guest.clone(),
        name: ctx.name.clone(),
        dir: ctx.dir.clone(),
        root,
        cgroup_parent: ctx.cgroup_parent.clone(),
        cgroups: ctx.cgroups.clone(),
        patience: ctx.patience,
        filter: None,
        user: AtomicU32::new(0),
        systemd: AtomicBool::new(ctx.has_systemd()),
        counter: AtomicU32::new(ctx.next() + 1000),
    })
}

/// Pointers of all members.
fn keys(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    for (key, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{key}");
        keys(member, &at, found);
        found.insert(at);
    }
}

fn keys_after_work(ctx: &Context) -> Outcome<BTreeSet<String>> {
    let mut container = limited(ctx, &["burn", "300", ",", "sleep"])?;
    container.hear("burn")?;
    let mut found = BTreeSet::new();
    keys(&stats(&container)?, "", &mut found);
    container.end()?;
    // Left out when they are zero, and what they are is chance.
    let chance = ["/memory/cache", "/blkio/io", "/cpu/throttling/throttled"];
    let is_chance = |key: &str| chance.iter().any(|chance| key.starts_with(chance));
    found.retain(|key| !is_chance(key));
    Ok(found)
}

fn keys_of_runc(ctx: &Context) -> Outcome {
    ctx.need_kelson("a comparison with runc")?;
    let runc = beside(ctx, ctx.need_program("runc")?)?;
    let theirs = keys_after_work(&runc);
    // runc leaves the parents that it made.
    ctx.cgroups.existing(&ctx.cgroup_parent).iter().for_each(|path| cgroup::remove(path));
    let theirs = theirs?;
    let mut ours = keys_after_work(ctx)?;
    if ctx.is_v2() && runc.version.starts_with("1.1.") {
        // Since 1.2; memory.peak since 1.3, and in what Debian made of 1.1.15.
        ours.retain(|key| !key.contains("/psi") && (key != "/memory/usage/max" || theirs.contains(key)));
    }
    let (missing, more): (Vec<_>, Vec<_>) = (theirs.difference(&ours).collect(), ours.difference(&theirs).collect());
    check!(missing.is_empty() && more.is_empty(), "runc {} has {missing:?}, and has not {more:?}", runc.version);
    check!(theirs.len() > 40, "runc has only {theirs:?}");
    Ok(())
}

fn stats_of_limits(ctx: &Context) -> Outcome {
    let mut container = limited(ctx, &["ready", ",", "sleep"])?;
    // runc's own threads are gone then.
    container.hear("ready")?;
    let stats = stats(&container)?;
    check_eq!(number(&stats, "/memory/usage/limit"), 64 * MIB, "memory limit");
    check_eq!(number(&stats, "/pids/limit"), 50, "limit of PIDs");
    check_eq!(number(&stats, "/pids/current"), 1, "PIDs");
    check_eq!(stats["network_interfaces"], Value::Null, "network_interfaces");
    check_eq!(stats["intel_rdt"], json!({}), "intel_rdt");
    container.end()
}

fn stats_move(ctx: &Context) -> Outcome {
    let mut container = limited(
        ctx,
        &["ready", ",", "until", "/tmp/go", ",", "burn", "500", ",", "hold", "20", ",", "fork", "3", ",", "sleep"],
    )?;
    container.hear("ready")?;
    let began = Instant::now();
    let before = stats(&container)?;
    std::fs::write(container.bundle.join("rootfs/tmp/go"), "")?;
    container.hear("fork")?;
    let after = stats(&container)?;
    let grown = |pointer: &str| number(&after, pointer).saturating_sub(number(&before, pointer));
    let burnt = Duration::from_nanos(grown("/cpu/usage/total"));
    // A tenth of the half second and what a busy machine takes of it; at most all CPUs all the time.
    let most = began.elapsed() * std::thread::available_parallelism()?.get() as u32;
    check!(burnt > Duration::from_millis(10) && burnt <= most, "{burnt:?} of CPU time were used, at most {most:?}");
    check!(number(&after, "/cpu/usage/user") > 0, "no time in user mode: {}", after["cpu"]);
    check!(grown("/cpu/throttling/throttledPeriods") >= 1, "throttling: {}", after["cpu"]);
    check!(grown("/cpu/throttling/throttledTime") > 0, "throttling: {}", after["cpu"]);
    check!(
        grown("/memory/usage/usage") >= 19 * MIB,
        "memory: {} {}",
        before["memory"]["usage"],
        after["memory"]["usage"]
    );
    check_eq!(number(&after, "/pids/current"), number(&before, "/pids/current") + 3, "PIDs");
    let anonymous = if ctx.is_v2() { "/memory/raw/anon" } else { "/memory/raw/rss" };
    check!(grown(anonymous) >= 19 * MIB, "{anonymous}: {}", after["memory"]["raw"]);
    if !ctx.is_v2() {
        let percpu = after["cpu"]["usage"]["percpu"].as_array().cloned().unwrap_or_default();
        let sum: u64 = percpu.iter().filter_map(Value::as_u64).sum();
        check_eq!(sum, number(&after, "/cpu/usage/total"), "sum over the CPUs");
        check!(number(&after, "/memory/usage/max") >= number(&after, "/memory/usage/usage"), "{}", after["memory"]);
    }
    container.end()
}

fn pressure(ctx: &Context) -> Outcome {
    ctx.need_kelson("PSI (since runc 1.2)")?;
    ctx.need_v2()?;
    let mut container = limited(ctx, &["burn", "500", ",", "sleep"])?;
    if !container.cgroup("memory").join("cpu.pressure").exists() {
        skip!("this kernel has no pressure files");
    }
    container.hear("burn")?;
    let stats = stats(&container)?;
    for part in ["cpu", "memory", "blkio"] {
        for (kind, key) in [("some", "avg10"), ("some", "total"), ("full", "avg300"), ("full", "total")] {
            let value = &stats[part]["psi"][kind][key];
            check!(value.is_number(), "{part}.psi.{kind}.{key} is {value}");
        }
    }
    // It waited for its quota.
    check!(number(&stats, "/cpu/psi/some/total") > 0, "{}", stats["cpu"]["psi"]);
    container.end()
}

fn created_and_paused(ctx: &Context) -> Outcome {
    ctx.need_controller("pids")?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["ready", ",", "sleep"]).container()?;
    container.create()?.ok()?;
    check!(number(&stats(&container)?, "/pids/current") > 0, "a created one has no PIDs");
    container.start()?.ok()?;
    container.hear("ready")?;
    container.pause()?.ok()?;
    check_eq!(number(&stats(&container)?, "/pids/current"), 1, "PIDs of a paused one");
    container.resume()?.ok()?;
    container.end()
}

fn stopped(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    let expected = format!("container with id {} is not running", container.id);
    events(&container, &["--stats"]).run()?.exits(1)?.fails_saying(&[&expected])?;
    events(&container, &[]).run()?.exits(1)?.fails_saying(&[&expected])?;
    events(&container, &["--stats"]).arg("another").run()?.fails()?;
    container.delete()?.ok()?;
    events(&container, &["--stats"]).run()?.exits(1)?.fails_saying(&["does not exist"])?;
    Ok(())
}

fn without_cgroup(ctx: &Context) -> Outcome {
    ctx.need_kelson("--cgroup-manager disabled")?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["sleep"]).container()?;
    let command = ctx.runtime().args(["--cgroup-manager", "disabled", "run", "-d", "--bundle"]);
    let (null, out) = (std::fs::File::open("/dev/null")?, std::fs::File::create(ctx.next_io())?);
    let run = command.arg(&container.bundle).arg(&container.id).fd(0, null).fd(1, out.try_clone()?).fd(2, out).run()?;
    check_eq!(run.code, 0, "exit code of run");
    events(&container, &["--stats"]).run()?.exits(1)?.fails_saying(&["has no cgroup"])?;
    let list = container.verb("ps").args([&container.id]).run()?;
    list.exits(1)?.fails_saying(&["has no cgroup"])?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    container.forget();
    Ok(())
}

fn interval(ctx: &Context) -> Outcome {
    let container = limited(ctx, &["burn", "60000"])?;
    let mut running = events(&container, &["--interval", "100ms"]).piped().spawn()?;
    let mut used = vec![];
    for _ in 0..4 {
        used.push(number(&data(&running.line()?, &container.id)?, "/cpu/usage/total"));
    }
    check!(used.is_sorted() && used[0] < used[3], "CPU time does not grow: {used:?}");
    container.end()?;
    Ok(())
}

fn bad_interval(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    events(&container, &["--interval", "0s"]).run()?.exits(1)?.fails_saying(&["must be greater than 0"])?;
    let run = events(&container, &["--interval", "5"]).run()?.fails()?;
    check!((run.out() + &run.err()).contains("\"5\""), "{}", run.told());
    container.end()
}

/// The types of the lines up to one of type `last`.
fn types_until(running: &mut Running, last: &str) -> Outcome<Vec<String>> {
    let mut types = vec![];
    loop {
        let event: Value = serde_json::from_str(&running.line()?)?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let is_last = kind == last;
        if kind == "oom" {
            check_eq!(event.as_object().map_or(0, |event| event.len()), 2, "members of {event}");
        }
        types.push(kind);
        if is_last {
            return Ok(types);
        }
    }
}

fn oom_of_another(ctx: &Context) -> Outcome {
    let container = limited(ctx, &["sleep"])?;
    let mut running = events(&container, &["--interval", "50ms"]).piped().spawn()?;
    check_eq!(types_until(&mut running, "stats")?, ["stats"], "events before");
    let run = container.exec(&["hold", "200"])?;
    check_eq!(run.code, 137, "exit code of what takes too much\n  {}", run.told());
    types_until(&mut running, "oom")?;
    // It goes on.
    types_until(&mut running, "stats")?;
    check_eq!(container.status()?, "running", "status");
    container.end()
}

fn oom_at_the_end(ctx: &Context) -> Outcome {
    let mut container = limited(ctx, &["ready", ",", "until", "/tmp/go", ",", "hold", "200"])?;
    container.hear("ready")?;
    let mut running = events(&container, &["--interval", "50ms"]).piped().spawn()?;
    types_until(&mut running, "stats")?;
    std::fs::write(container.bundle.join("rootfs/tmp/go"), "")?;
    types_until(&mut running, "oom")?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    running.wait()?.ok()?;
    Ok(())
}

fn ends_with_the_container(ctx: &Context) -> Outcome {
    ctx.need_kelson("a stream that ends before delete on v1")?;
    let container = limited(ctx, &["sleep"])?;
    let mut running = events(&container, &["--interval", "50ms"]).piped().spawn()?;
    types_until(&mut running, "stats")?;
    container.kill("KILL")?.ok()?;
    let run = running.wait()?.ok()?;
    check!(!run.out().contains("oom"), "{}", run.told());
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    // With an interval that does not come to its end.
    let container = limited(ctx, &["sleep"])?;
    let running = events(&container, &["--interval", "10h"]).piped().spawn()?;
    eventually(ctx.patience, "events waits", || is_waiting(running.pid()).then_some(()))?;
    container.kill("KILL")?.ok()?;
    running.wait()?.ok()?.prints("")?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

/// It waits in poll(2), by the kernel's number for x86-64 (7) or arm64 (73, ppoll).
fn is_waiting(pid: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    ["7 ", "73 ", "271 "].iter().any(|number| call.starts_with(number))
}

fn ends_with_delete(ctx: &Context) -> Outcome {
    let container = limited(ctx, &["sleep"])?;
    let mut running = events(&container, &["--interval", "50ms"]).piped().spawn()?;
    types_until(&mut running, "stats")?;
    container.delete_force()?.ok()?;
    // It may wait for its reader by now.
    if let Some(lines) = &mut running.lines {
        lines.to_end(ctx.patience)?;
    }
    running.wait()?.ok()?;
    Ok(())
}
