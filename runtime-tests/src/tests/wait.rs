//! How a container ended, and why: `wait`, `state --verbose`, what `delete` logs and a foreground run prints. And the walk through
//! memory pressure of docs/memory.md.

use std::fs;

use crate::harness::{Bundle, Cmd, Container, Context, Outcome, Run, Test, Value, cgroup, eventually, json};
use crate::{check, check_eq, skip, sys};

pub const TESTS: &[Test] = &[
    Test { name: "exit_code_of_a_zombie", run: zombie },
    Test { name: "exit_code_of_a_reaped_one", run: reaped },
    Test { name: "signal", run: signal },
    Test { name: "created_one_is_waited_for_until_it_has_run", run: created },
    Test { name: "of_a_foreground_run", run: foreground },
    Test { name: "two_at_once", run: two },
    Test { name: "record_is_kept", run: record },
    Test { name: "reaped_before_anybody_looked_is_unknown", run: unknown },
    Test { name: "no_such_container", run: missing },
    Test { name: "without_pidfds_it_is_refused", run: without_pidfds },
    Test { name: "delete_logs_why", run: delete_logs },
    Test { name: "seccomp_is_named", run: seccomp },
    Test { name: "killed_at_its_own_limit", run: own_limit },
    Test { name: "killed_at_a_limit_above", run: limit_above },
    Test { name: "others_killed_for_memory", run: others },
    Test { name: "others_killed_before_its_deletion", run: before_deletion },
    Test { name: "killed_with_its_group", run: group },
    Test { name: "memory_pressure_without_swap", run: pressure_without_swap },
    Test { name: "memory_pressure_with_swap", run: pressure_with_swap },
];

const MIB: u64 = 1 << 20;

fn need_wait(ctx: &Context) -> Outcome {
    ctx.need_kelson("wait")?;
    ctx.need_new_syscalls("waiting for a process that is no child")
}

fn wait_for<'c>(container: &Container<'c>) -> Cmd<'c> {
    container.verb("wait").arg(&container.id)
}

/// Its guest ends with exit code `code` when there is a file `/go`: so no command runs in between, for which the harness would
/// wait and reap what has ended.
fn until_told<'b, 'c>(bundle: &'b mut Bundle<'c>, code: &str) -> &'b mut Bundle<'c> {
    bundle.guest(&["until", "/go", ",", "exit", code])
}

/// What `wait --json` prints. The container's process is not reaped meanwhile: the harness does that when it waits for the end
/// of a command, and not when it reads.
fn wait_json(container: &Container<'_>) -> Outcome<Value> {
    let mut waiting = wait_for(container).arg("--json").piped().spawn()?;
    let told = serde_json::from_str(&waiting.line()?)?;
    waiting.wait()?.ok()?;
    Ok(told)
}

fn zombie(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    for code in ["0", "7", "255"] {
        let mut bundle = ctx.bundle()?;
        let container = until_told(&mut bundle, code).start()?;
        let mut waiting = wait_for(&container).piped().spawn()?;
        bundle.file("/go", "")?;
        check_eq!(waiting.line()?, code, "what wait prints");
        waiting.wait()?.ok()?;
        container.delete()?.ok()?;
    }
    Ok(())
}

/// How many processes `pid` has a descriptor of.
fn pidfds(pid: i32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("pidfd")).count()
}

/// Since 6.15 the kernel tells who looked before the reap; before that it is not known, but who reaped it is.
fn reaped(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["signals"]).start()?;
    container.hear("ready")?;
    let pid = container.pid()?;
    let waiting = wait_for(&container).spawn()?;
    eventually(ctx.patience, "wait holds its process and the parent", || (pidfds(waiting.pid()) == 2).then_some(()))?;
    waiting.signal(libc::SIGSTOP)?;
    let stat = format!("/proc/{}/stat", waiting.pid());
    eventually(ctx.patience, "wait is stopped", || fs::read_to_string(&stat).ok()?.contains(") T ").then_some(()))?;
    container.kill("TERM")?.ok()?;
    check_eq!(container.wait_exit(pid)?, 0, "exit code that the parent sees");
    waiting.signal(libc::SIGCONT)?;
    let run = waiting.wait()?;
    if ctx.kernel() >= (6, 15) {
        run.ok()?.prints("0\n")?;
    } else {
        let own = fs::read_to_string("/proc/self/comm")?;
        let expected = format!("unknown: reaped by PID {} ({})\n", std::process::id(), own.trim_end());
        run.exits(1)?.prints(&expected)?;
    }
    Ok(())
}

fn signal(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let pid = container.pid()?;
    let mut waiting = wait_for(&container).arg("--json").piped().spawn()?;
    // Not by a command: while it is waited for, what has ended is reaped.
    sys::kill(pid, libc::SIGKILL)?;
    let told: Value = serde_json::from_str(&waiting.line()?)?;
    waiting.wait()?.ok()?;
    check_eq!(told["id"], json!(container.id), "id");
    check_eq!((&told["exitStatus"], &told["signal"]), (&json!(137), &json!(9)), "{told}");
    check_eq!(told["reason"], "ended by signal 9 (SIGKILL)", "reason");
    // Of the first process of a PID namespace the kernel lets no other signal be the end.
    let container = bundle.without_namespace("pid").start()?;
    let pid = container.pid()?;
    let mut waiting = wait_for(&container).piped().spawn()?;
    sys::kill(pid, 37)?;
    check_eq!(waiting.line()?, (128 + 37).to_string(), "what wait prints");
    waiting.wait()?.ok()?;
    Ok(())
}

fn created(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    let mut bundle = ctx.bundle()?;
    let container = until_told(&mut bundle, "5").create()?;
    let mut waiting = wait_for(&container).piped().spawn()?;
    eventually(ctx.patience, "wait holds its process and the parent", || (pidfds(waiting.pid()) == 2).then_some(()))?;
    container.start()?.ok()?;
    check!(!waiting.has_ended(), "wait ended before the container");
    bundle.file("/go", "")?;
    check_eq!(waiting.line()?, "5", "what wait prints");
    waiting.wait()?.ok()?;
    // One that never ran.
    let container = bundle.create()?;
    let pid = container.pid()?;
    let mut waiting = wait_for(&container).piped().spawn()?;
    sys::kill(pid, libc::SIGKILL)?;
    check_eq!(waiting.line()?, "137", "what wait prints");
    waiting.wait()?.ok()?;
    Ok(())
}

/// The reaper is another Kelson, which then deletes the container.
fn foreground(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["signals"]).container()?;
    let mut running = container.run_command().piped().spawn()?;
    check!(running.line()?.contains("ready"), "the guest is not ready");
    let waiting = wait_for(&container).spawn()?;
    eventually(ctx.patience, "wait holds its process and the parent", || (pidfds(waiting.pid()) == 2).then_some(()))?;
    container.kill("TERM")?.ok()?;
    let run = waiting.wait()?;
    if ctx.kernel() >= (6, 15) {
        run.ok()?.prints("0\n")?;
    } else {
        let unknown = format!("unknown: reaped by PID {} (kelson)\n", running.pid());
        check!(["0\n", unknown.as_str()].contains(&run.out().as_str()), "wait of a run\n  {}", run.told());
    }
    running.wait()?.ok()?;
    Ok(())
}

fn two(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    let mut bundle = ctx.bundle()?;
    let container = until_told(&mut bundle, "3").start()?;
    let (mut first, mut second) = (wait_for(&container).piped().spawn()?, wait_for(&container).piped().spawn()?);
    bundle.file("/go", "")?;
    check_eq!((first.line()?, second.line()?), ("3".into(), "3".into()), "what both print");
    first.wait()?.ok()?;
    second.wait()?.ok()?;
    Ok(())
}

/// What wait learnt is there when the process is gone, in `state --verbose` too; `state` says what the specification has.
fn record(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    let mut bundle = ctx.bundle()?;
    let container = until_told(&mut bundle, "7").start()?;
    let pid = container.pid()?;
    let mut waiting = wait_for(&container).piped().spawn()?;
    bundle.file("/go", "")?;
    check_eq!(waiting.line()?, "7", "what wait prints");
    waiting.wait()?.ok()?;
    container.wait_exit(pid)?;
    wait_for(&container).run()?.ok()?.prints("7\n")?;
    let verbose = container.verb("state").args(["--verbose", &container.id]).run()?.ok()?.json()?;
    check_eq!(verbose["ended"], json!({"exitStatus": 7, "reason": "exited with code 7"}), "ended");
    let mut plain = container.state()?;
    check_eq!(plain.get("ended"), None, "ended without --verbose");
    plain["ended"] = verbose["ended"].clone();
    check_eq!(plain, verbose, "state --verbose");
    // A run that is kept records what it saw.
    let mut kept = bundle.option("--keep").container()?;
    kept.run_command().run()?.exits(7)?;
    wait_for(&kept).run()?.ok()?.prints("7\n")?;
    kept.delete()?.ok()?;
    kept.forget();
    Ok(())
}

fn unknown(ctx: &Context) -> Outcome {
    ctx.need_kelson("wait")?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["signals"]).start()?;
    container.hear("ready")?;
    let pid = container.pid()?;
    let verbose = || container.verb("state").args(["--verbose", &container.id]).run()?.ok()?.json();
    check_eq!(verbose()?.get("ended"), None, "ended, of one that runs");
    container.kill("TERM")?.ok()?;
    container.wait_exit(pid)?;
    container.wait_status("stopped")?;
    let why = "reaped before Kelson looked";
    check_eq!(verbose()?["ended"]["unknown"], why, "state --verbose");
    if ctx.filter.is_none() {
        wait_for(&container).run()?.exits(1)?.prints(&format!("unknown: {why}\n"))?;
    }
    Ok(())
}

fn missing(ctx: &Context) -> Outcome {
    ctx.need_kelson("wait")?;
    ctx.runtime().args(["wait", "nobody"]).run()?.exits(1)?.fails_saying(&["\"nobody\" does not exist"])?;
    Ok(())
}

fn without_pidfds(ctx: &Context) -> Outcome {
    ctx.need_kelson("wait")?;
    if ctx.filter.is_none() {
        skip!("pidfd_open(2) is there");
    }
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    wait_for(&container).run()?.exits(1)?.fails_saying(&["pidfd_open(2)"])?;
    container.end()
}

/// At level info; engines may read what delete says, so an ordinary end is no warning.
fn delete_logs(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    let mut bundle = ctx.bundle()?;
    let stopped = |container: &mut Container<'_>| -> Outcome {
        container.hear("ready")?;
        let pid = container.pid()?;
        container.kill("TERM")?.ok()?;
        container.wait_exit(pid)?;
        container.wait_status("stopped")
    };
    bundle.guest(&["signals", ",", "exit", "3"]);
    let mut quiet = bundle.start()?;
    stopped(&mut quiet)?;
    let run = quiet.delete()?.ok()?;
    check_eq!((run.out(), run.err()), (String::new(), String::new()), "what delete says");
    let at_info = |container: &Container<'_>, option: &str| -> Outcome<Run> {
        let command = ctx.runtime().args(["--log-level", "info", "delete", option, &container.id]);
        command.run()?.ok()
    };
    let mut told = bundle.start()?;
    stopped(&mut told)?;
    let line =
        format!("kelson: info: container {:?}: ended, exit code unknown: reaped before Kelson looked\n", told.id);
    check_eq!(at_info(&told, "--force")?.err(), line, "what delete logs");
    let running = bundle.start()?;
    let line = format!("kelson: info: container {:?}: killed by its deletion\n", running.id);
    check_eq!(at_info(&running, "--force")?.err(), line, "what delete --force logs");
    Ok(())
}

fn seccomp(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    let mut bundle = ctx.bundle()?;
    let rule = json!([{"names": ["getpgid"], "action": "SCMP_ACT_KILL_PROCESS"}]);
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
    let call = libc::SYS_getpgid.to_string();
    let container = bundle.guest(&["until", "/go", ",", "syscall", &call, "0"]).start()?;
    bundle.file("/go", "")?;
    let told = wait_json(&container)?;
    check_eq!(told["signal"], libc::SIGSYS, "{told}");
    check!(told["seccomp"].is_object(), "seccomp is not named: {told}");
    let reason = told["reason"].as_str().unwrap_or_default();
    check!(reason.contains("(SIGSYS): linux.seccomp forbids"), "reason: {reason}");
    // Where the kernel logs it (audit=1).
    let call = &told["seccomp"]["call"];
    check!(call.is_null() || call == "getpgid", "the call is {call}");
    Ok(())
}

/// A bundle whose guest takes 200 MiB, under a limit of memory, swap included.
fn hungry<'c>(ctx: &'c Context, limit_bytes: u64) -> Outcome<Bundle<'c>> {
    ctx.need_controller("memory")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": limit_bytes, "swap": limit_bytes}));
    bundle.guest(&["hold", "200"]);
    Ok(bundle)
}

/// Its cgroup below the mount point.
fn path_of(container: &Container<'_>) -> String {
    let root = container.context.cgroups.path("memory", "");
    format!("/{}", container.cgroup("memory").strip_prefix(root).unwrap_or("?".as_ref()).display())
}

fn own_limit(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    let mut bundle = hungry(ctx, 32 * MIB)?;
    // In the foreground: one line on standard error, wherever the log is.
    let said = "killed for memory: its limit of 32 MiB was reached (linux.resources.memory.limit";
    let log = ctx.dir.join("log");
    let container = bundle.container()?;
    let run = container.run_command().run()?.exits(137)?;
    let line = format!("kelson: warning: container {:?}: {said}, cgroup {}, ", container.id, path_of(&container));
    check!(run.err().starts_with(&line) && run.err().lines().count() == 1, "expected {line:?}\n  {}", run.told());
    let logged = bundle.container()?;
    let to_log = ctx.runtime().arg("--log").arg(&log).args(["--log-level", "error", "run", "--bundle"]);
    let run = to_log.arg(&logged.bundle).arg(&logged.id).run()?.exits(137)?;
    check!(run.err().contains(said), "standard error\n  {}", run.told());
    check!(fs::read_to_string(&log)?.contains(said), "the log has no line of it");
    // Detached, and reaped by another: the counters of the cgroup tell.
    let container = bundle.start()?;
    container.wait_status("stopped")?;
    let verbose = container.verb("state").args(["--verbose", &container.id]).run()?.ok()?.json()?;
    let memory = &verbose["ended"]["outOfMemory"];
    check_eq!(memory["limitOf"], "container", "{memory}");
    check_eq!((&memory["limitBytes"], &memory["kills"]), (&json!(32 * MIB), &json!(1)), "{memory}");
    check_eq!(memory["cgroup"], path_of(&container), "{memory}");
    let peak = memory["peakBytes"].as_u64().unwrap_or(0);
    check!((31 * MIB..=33 * MIB).contains(&peak), "peak of {peak}");
    if memory["isCertain"] == true {
        check!(memory["victim"].is_null() || memory["victim"]["name"] == "guest", "victim: {memory}");
    }
    let run = container.delete()?.ok()?;
    check!(run.err().contains("for memory: ") && run.err().contains("its limit of 32 MiB"), "delete\n  {}", run.told());
    Ok(())
}

/// The cgroup above the container's, with a limit of 48 MiB.
struct Above<'c>(&'c Context);

/// What systemd has in place of [`Context::cgroup_parent`].
const SLICE: &str = "keltest-above.slice";

impl Above<'_> {
    fn make(&self) -> Outcome {
        let Self(ctx) = self;
        if ctx.has_systemd() {
            let limits = ["MemoryMax=48M", "MemorySwapMax=0"];
            ctx.command("systemctl").args(["set-property", "--runtime", SLICE]).args(limits).run()?.ok()?;
            return Ok(());
        }
        let above = ctx.cgroups.path("memory", &ctx.cgroup_parent);
        fs::create_dir(&above)?;
        let limits = match ctx.is_v2() {
            true => [("memory.max", 48 * MIB), ("memory.swap.max", 0)],
            false => [("memory.limit_in_bytes", 48 * MIB), ("memory.memsw.limit_in_bytes", 48 * MIB)],
        };
        limits.into_iter().try_for_each(|(file, bytes)| fs::write(above.join(file), bytes.to_string()))?;
        Ok(())
    }

    fn path(&self) -> String {
        if self.0.has_systemd() { format!("/keltest.slice/{SLICE}") } else { self.0.cgroup_parent.clone() }
    }
}

impl Drop for Above<'_> {
    fn drop(&mut self) {
        let Self(ctx) = self;
        if ctx.has_systemd() {
            // What is left fails the machine's last check.
            let _ = ctx.command("systemctl").args(["stop", "keltest.slice"]).run();
            let _ = ctx.command("systemctl").args(["revert", SLICE]).run();
        }
        ctx.cgroups.existing(&ctx.cgroup_parent).iter().for_each(|path| cgroup::remove(path));
    }
}

/// The container has no limit itself.
fn limit_above(ctx: &Context) -> Outcome {
    need_wait(ctx)?;
    ctx.need_controller("memory")?;
    let above = Above(ctx);
    above.make()?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["until", "/go", ",", "hold", "200"]).container()?;
    if ctx.has_systemd() {
        bundle.set("/linux/cgroupsPath", format!("{SLICE}:kelson-test:{}", container.id)).write()?;
    }
    container.create()?.ok()?;
    container.start()?.ok()?;
    bundle.file("/go", "")?;
    let told = wait_json(&container)?;
    let memory = &told["outOfMemory"];
    check_eq!((&memory["limitOf"], &memory["cgroup"]), (&json!("above"), &json!(above.path())), "{told}");
    check_eq!(memory["limitBytes"], 48 * MIB, "{told}");
    let reason = told["reason"].as_str().unwrap_or_default();
    let said = format!("the limit of 48 MiB of cgroup {} above it was reached", above.path());
    check!(reason.starts_with("killed for memory: ") && reason.contains(&said), "reason: {reason}");
    container.delete()?.ok()?;
    Ok(())
}

/// The kernel takes the largest process, and the first one lives on.
fn others(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    let mut bundle = hungry(ctx, 32 * MIB)?;
    bundle.guest(&["run", "/bin/guest", "hold", "200", ",", "exit", "4"]);
    let container = bundle.container()?;
    let run = container.run_command().run()?.exits(4)?;
    let line = format!(
        "kelson: warning: container {:?}: exited with code 4; 1 of its processes was killed for memory: ",
        container.id
    );
    check!(run.err().starts_with(&line), "expected {line:?}\n  {}", run.told());
    check!(run.err().contains("its limit of 32 MiB was reached"), "standard error\n  {}", run.told());
    // Detached: the first one's end is not seen.
    let container = bundle.start()?;
    container.wait_status("stopped")?;
    let run = container.delete()?.ok()?;
    let line = "; 1 of its processes was killed for memory: ";
    check!(run.err().contains(line) && run.err().contains("its limit of 32 MiB"), "delete\n  {}", run.told());
    Ok(())
}

/// The counters go with the cgroup: its deletion is the last that can tell.
fn before_deletion(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    let mut bundle = hungry(ctx, 32 * MIB)?;
    let container = bundle.guest(&["sleep"]).start()?;
    container.exec(&["hold", "200"])?.exits(137)?;
    let run = container.delete_force()?.ok()?;
    let line = format!(
        "kelson: warning: container {:?}: killed by its deletion; 1 of its processes was killed for memory: ",
        container.id
    );
    check!(run.err().starts_with(&line) && run.err().lines().count() == 1, "expected {line:?}\n  {}", run.told());
    check!(run.err().contains("its limit of 32 MiB was reached"), "delete\n  {}", run.told());
    Ok(())
}

/// With memory.oom.group the kernel kills all, the first one too, for the one that it chose.
fn group(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    ctx.need_v2()?;
    let mut bundle = hungry(ctx, 32 * MIB)?;
    bundle.set("/linux/resources/unified", json!({"memory.oom.group": "1"}));
    bundle.guest(&["run", "/bin/guest", "hold", "200", ",", "exit", "4"]);
    let said = "killed for memory: its limit of 32 MiB was reached (linux.resources.memory.limit";
    let container = bundle.container()?;
    let run = container.run_command().run()?.exits(137)?;
    check!(run.err().contains(said) && run.err().contains(" kills, one of them "), "standard error\n  {}", run.told());
    let container = bundle.start()?;
    container.wait_status("stopped")?;
    let run = container.delete()?.ok()?;
    check!(run.err().contains(said) && run.err().contains(" kills, one of them "), "delete\n  {}", run.told());
    Ok(())
}

/// How often the limit was reached, and how many processes were killed.
fn events(ctx: &Context, container: &Container<'_>) -> Outcome<(u64, u64)> {
    let read = |file: &str, key: &str| -> Outcome<u64> {
        let text = container.cgroup_file("memory", file)?;
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        found.ok_or_else(|| format!("{file} has no {key:?}: {text}").into())
    };
    match ctx.is_v2() {
        true => Ok((read("memory.events", "max ")?, read("memory.events", "oom_kill ")?)),
        false => {
            // That of memory and swap is the one that is reached where both are the same; Linux 6.18 does not count it.
            let is_full = read("memory.memsw.max_usage_in_bytes", "")? == read("memory.memsw.limit_in_bytes", "")?;
            let reached = read("memory.failcnt", "")? + read("memory.memsw.failcnt", "")? + u64::from(is_full);
            Ok((reached, read("memory.oom_control", "oom_kill ")?))
        }
    }
}

fn pressure_without_swap(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    let mut bundle = hungry(ctx, 100 * MIB)?;
    let container = bundle.start()?;
    container.wait_status("stopped")?;
    // systemd takes the counters away.
    if !ctx.has_systemd() {
        let (reached, kills) = events(ctx, &container)?;
        check!(reached > 0 && kills == 1, "the limit was reached {reached} times, {kills} processes were killed");
    }
    let run = container.delete()?.ok()?;
    check!(run.err().contains("its limit of 100 MiB was reached"), "delete\n  {}", run.told());
    Ok(())
}

fn pressure_with_swap(ctx: &Context) -> Outcome {
    ctx.need_kelson("the reason of an end")?;
    let swaps = fs::read_to_string("/proc/swaps")?;
    if swaps.lines().count() < 2 {
        skip!("this host has no swap");
    }
    let mut bundle = hungry(ctx, 100 * MIB)?;
    bundle.set("/linux/resources/memory/swap", -1);
    let mut container = bundle.guest(&["hold", "200", ",", "sleep"]).start()?;
    container.hear("hold")?;
    let (reached, kills) = events(ctx, &container)?;
    check!(reached > 0 && kills == 0, "the limit was reached {reached} times, {kills} processes were killed");
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    let run = container.delete()?.ok()?;
    check_eq!(run.err(), "", "what delete says");
    Ok(())
}
