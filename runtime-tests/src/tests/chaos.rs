//! Killed in the middle and all at once: `delete --force` must always find and remove what is left.
//!
//! These take long and are not part of the quick core. What is drawn at random follows a seed, which every failure names;
//! KELSON_CHAOS_SEED repeats it. KELSON_CHAOS_ROUNDS is the number of kills for each command (default 50, so 200 for the
//! four), KELSON_CHAOS_SECONDS the length of the storms (default 10; a release is stormed for 60).

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::harness::{
    Bundle, Cmd, Container, Context, Failure, Outcome, Peer, Test, cgroup, children, eventually, json, leaks,
};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "chaos_kill_create", run: kill_create },
    Test { name: "chaos_kill_start", run: kill_start },
    Test { name: "chaos_kill_exec", run: kill_exec },
    Test { name: "chaos_kill_delete", run: kill_delete },
    Test { name: "chaos_kill_run", run: kill_run },
    Test { name: "chaos_twelve_creates_of_one_id", run: twelve_creates },
    Test { name: "chaos_create_against_delete_of_one_id", run: create_against_delete },
    Test { name: "chaos_shared_parent_cgroup", run: shared_parent },
    Test { name: "chaos_storm_of_32_workers", run: storm },
    Test { name: "chaos_storm_on_shared_ids", run: storm_on_shared_ids },
];

pub(super) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Numbers that follow from a seed (xorshift64*).
pub(super) struct Random {
    pub(super) seed: u64,
    state: AtomicU64,
}

impl Random {
    pub(super) fn new() -> Random {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        let seed = number("KELSON_CHAOS_SEED", clock).max(1);
        Random { seed, state: AtomicU64::new(seed) }
    }

    /// At least 0, less than `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        let step = |mut x: u64| {
            x ^= x >> 12;
            x ^= x << 25;
            x ^ (x >> 27)
        };
        let next = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(step(x))).map_or(1, step);
        next.wrapping_mul(0x2545_f491_4f6c_dd1d) % end.max(1)
    }
}

/// A container with something of everything: limits, an own network, a hook at each point, a process.
pub(super) fn rich(ctx: &Context) -> Outcome<Bundle<'_>> {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["sleep"]).namespace("cgroup", None);
    if ctx.cgroups.has("pids") {
        bundle.set("/linux/resources/pids", json!({"limit": 100}));
    }
    bundle.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "size=1m"]);
    for point in ["createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.push(&format!("/hooks/{point}"), json!({"path": ctx.guest, "args": ["guest", "exit", "0"]}));
    }
    Ok(bundle)
}

/// What of this test's containers is there: state, cgroups, mounts, processes, parts of PID files. Empty is good.
fn remains(ctx: &Context) -> Vec<String> {
    let mut left: Vec<String> = ctx.state_entries().iter().map(|n| format!("state {n}")).collect();
    // Nothing else has such a name.
    let hidden = fs::read_dir(ctx.dir.join("io")).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let hidden = hidden.filter(|name| name.to_string_lossy().starts_with('.'));
    left.extend(hidden.map(|name| format!("file {}", name.display())));
    for dir in ctx.cgroups.existing(&ctx.cgroup_parent) {
        let inside = fs::read_dir(&dir).into_iter().flatten().flatten();
        let inside = inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        left.extend(inside.map(|e| format!("cgroup {}", e.path().display())));
        left.extend(cgroup::processes(&dir).iter().map(|pid| format!("process {pid} in {}", dir.display())));
        // The others leave parents that they made.
        if ctx.peer == Peer::Kelson {
            left.push(format!("parent cgroup {}", dir.display()));
        }
    }
    left.extend(leaks::mounts_in(&ctx.dir).into_iter().map(|m| format!("mount {m}")));
    left.extend(children::orphans().iter().map(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        format!("process {pid} {command}")
    }));
    left
}

/// Nothing of any container is left, at the latest when those who were killed are gone.
pub(super) fn nothing_remains(ctx: &Context) -> Outcome {
    let gone = eventually(Duration::from_secs(5), "", || remains(ctx).is_empty().then_some(()));
    gone.map_err(|_| Failure::Failed(format!("left: {}", remains(ctx).join("\n  "))))
}

/// `delete --force`, which must succeed and leave nothing.
pub(super) fn force(ctx: &Context, id: &str) -> Outcome {
    ctx.runtime().args(["delete", "--force", id]).run()?.ok()?;
    nothing_remains(ctx)
}

// ---- killed at a random instant ------------------------------------------------------------------------------------

/// What is killed: prepares the container, then gives the command.
type Prepare = for<'c> fn(&mut Container<'c>) -> Outcome<Cmd<'c>>;

/// Runs the command a few times to its end to know how long it takes, then kills it at instants drawn over that time.
fn kill_at_random(ctx: &Context, prepare: Prepare) -> Outcome {
    let random = Random::new();
    let mut bundle = rich(ctx)?;
    let mut times = vec![];
    for _ in 0..5 {
        let mut container = bundle.container()?;
        let command = prepare(&mut container)?;
        times.push(command.run()?.ok()?.took);
        force(ctx, &container.id)?;
    }
    times.sort();
    let whole = times[2];
    for round in 0..number("KELSON_CHAOS_ROUNDS", 50) {
        let mut container = bundle.container()?;
        let command = prepare(&mut container)?;
        let delay = Duration::from_nanos(random.below(whole.as_nanos() as u64 * 11 / 10));
        let running = command.spawn()?;
        // The one sleep that is meant: the instant is what is drawn.
        std::thread::sleep(delay);
        running.signal(libc::SIGKILL)?;
        let run = running.wait()?;
        let what = format!("seed {}, round {round}: {} killed {delay:?} after its start", random.seed, run.shown);
        force(ctx, &container.id).map_err(|e| e.during(&what))?;
        container.forget();
    }
    Ok(())
}

fn prepare_create<'c>(container: &mut Container<'c>) -> Outcome<Cmd<'c>> {
    container.create_command()
}

fn prepare_start<'c>(container: &mut Container<'c>) -> Outcome<Cmd<'c>> {
    container.create()?.ok()?;
    Ok(container.verb("start").arg(&container.id))
}

fn prepare_exec<'c>(container: &mut Container<'c>) -> Outcome<Cmd<'c>> {
    container.create()?.ok()?;
    container.start()?.ok()?;
    Ok(container.exec_command(&[], &["/bin/guest", "exit", "0"]))
}

fn prepare_delete<'c>(container: &mut Container<'c>) -> Outcome<Cmd<'c>> {
    container.create()?.ok()?;
    container.start()?.ok()?;
    Ok(container.verb("delete").args(["--force", &container.id]))
}

fn prepare_run<'c>(container: &mut Container<'c>) -> Outcome<Cmd<'c>> {
    let command = container.verb("run").arg("--detach").arg("--bundle").arg(&container.bundle).arg(&container.id);
    Ok(command)
}

fn kill_create(ctx: &Context) -> Outcome {
    kill_at_random(ctx, prepare_create)
}

fn kill_start(ctx: &Context) -> Outcome {
    kill_at_random(ctx, prepare_start)
}

fn kill_exec(ctx: &Context) -> Outcome {
    kill_at_random(ctx, prepare_exec)
}

fn kill_delete(ctx: &Context) -> Outcome {
    kill_at_random(ctx, prepare_delete)
}

fn kill_run(ctx: &Context) -> Outcome {
    kill_at_random(ctx, prepare_run)
}

// ---- at once -------------------------------------------------------------------------------------------------------

fn twelve_creates(ctx: &Context) -> Outcome {
    for round in 0..number("KELSON_CHAOS_ROUNDS", 50).min(20) {
        let mut bundle = rich(ctx)?;
        let container = bundle.container()?;
        let create = || container.verb("create").arg("--bundle").arg(&bundle.dir).arg(&container.id).spawn();
        let all: Vec<_> = (0..12).map(|_| create()).collect::<Outcome<_>>()?;
        let mut winners = 0;
        for running in all {
            let run = running.wait()?;
            match run.code {
                0 => winners += 1,
                _ => drop(run.fails_saying(&["exist"]).map_err(|e| e.during(&format!("round {round}")))?),
            }
        }
        check_eq!(winners, 1, "creates that succeeded in round {round}");
        check_eq!(container.status()?, "created", "status of the winner's container");
        let pid = container.pid()?;
        eventually(ctx.patience, "the losers' processes end", || (children::orphans() == [pid]).then_some(()))?;
        container.start()?.ok()?;
        container.exec(&["exit", "0"])?.ok()?;
        force(ctx, &container.id).map_err(|e| e.during(&format!("round {round}")))?;
    }
    Ok(())
}

/// Whoever waits for the lock of a container must not take the next one of the same name for it.
fn create_against_delete(ctx: &Context) -> Outcome {
    let mut bundle = rich(ctx)?;
    let container = bundle.container()?;
    let failures = Mutex::new(vec![]);
    let end = Instant::now() + Duration::from_secs(number("KELSON_CHAOS_SECONDS", 10).div_ceil(2));
    let fail = |why: String| failures.lock().map(|mut list| list.push(why)).unwrap_or(());
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (container, bundle, fail) = (&container, &bundle, &fail);
            scope.spawn(move || {
                while Instant::now() < end {
                    let command = match worker % 2 {
                        0 => container.verb("create").arg("--bundle").arg(&bundle.dir).arg(&container.id),
                        _ => container.verb("delete").args(["--force", &container.id]),
                    };
                    match command.run() {
                        Err(e) => return fail(e.to_string()),
                        Ok(run) if run.signal.is_some() => return fail(run.told()),
                        // Forced deletion has no reason to fail.
                        Ok(run) if run.code != 0 && worker % 2 == 1 => return fail(run.told()),
                        Ok(run) if run.code != 0 && !expected_while_deleted(&run.err()) => return fail(run.told()),
                        Ok(_) => {}
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    check!(failures.is_empty(), "{}", failures.join("\n  "));
    force(ctx, &container.id)
}

/// Why a create may fail while others delete the same container.
fn expected_while_deleted(error: &str) -> bool {
    ["exist", "deleted", "killed", "no such process", "ended", "interrupted by sigterm"]
        .iter()
        .any(|w| error.to_lowercase().contains(w))
}

/// Containers come and go below one parent: whoever deletes last removes it, and no create may lose it.
fn shared_parent(ctx: &Context) -> Outcome {
    let failures = Mutex::new(vec![]);
    let end = Instant::now() + Duration::from_secs(number("KELSON_CHAOS_SECONDS", 10).div_ceil(2));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let failures = &failures;
            scope.spawn(move || {
                let work = || -> Outcome {
                    let mut bundle = ctx.bundle()?;
                    bundle.guest(&["sleep"]).set("/linux/cgroupsPath", format!("{}/deep/{worker}", ctx.cgroup_parent));
                    bundle.write()?;
                    let id = format!("worker-{worker}");
                    while Instant::now() < end {
                        ctx.runtime().arg("create").arg("--bundle").arg(&bundle.dir).arg(&id).run()?.ok()?;
                        ctx.runtime().args(["delete", &id]).run()?.ok()?;
                    }
                    Ok(())
                };
                if let Err(why) = work() {
                    failures.lock().map(|mut list| list.push(why.to_string())).unwrap_or(());
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    check!(failures.is_empty(), "{}", failures.join("\n  "));
    nothing_remains(ctx)
}

/// Thirty-two who create, start, exec, pause, kill and delete containers of their own.
fn storm(ctx: &Context) -> Outcome {
    let random = Random::new();
    let failures = Mutex::new(vec![]);
    let end = Instant::now() + Duration::from_secs(number("KELSON_CHAOS_SECONDS", 10));
    let made = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            let (random, failures, made) = (&random, &failures, &made);
            scope.spawn(move || {
                let work = || -> Outcome {
                    let mut bundle = rich(ctx)?;
                    while Instant::now() < end && failures.lock().is_ok_and(|list| list.is_empty()) {
                        let mut container = bundle.container()?;
                        let mut create = container.verb("create").arg("--bundle").arg(&bundle.dir).arg(&container.id);
                        create = create.deadline(ctx.patience * 3);
                        create.run()?.ok()?;
                        made.fetch_add(1, Ordering::Relaxed);
                        one_life(ctx, random, &container)?;
                        container.forget();
                    }
                    Ok(())
                };
                if let Err(why) = work() {
                    failures.lock().map(|mut list| list.push(why.to_string())).unwrap_or(());
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    check!(failures.is_empty(), "seed {}: {}", random.seed, failures.join("\n  "));
    check!(made.into_inner() >= 32, "too few containers were made, the test shows nothing");
    nothing_remains(ctx)
}

/// From created to deleted, by one of several ways. Commands may take longer than when nobody else runs.
fn one_life(ctx: &Context, random: &Random, container: &Container<'_>) -> Outcome {
    let id = &container.id;
    let run = |words: &[&str]| ctx.runtime().args(words).deadline(ctx.patience * 3).run();
    if random.below(4) == 0 {
        return run(&["delete", id])?.ok().map(drop);
    }
    run(&["start", id])?.ok()?;
    if random.below(3) == 0 {
        run(&["exec", id, "/bin/guest", "exit", "3"])?.exits(3)?;
    }
    if random.below(3) == 0 && ctx.cgroups.has("freezer") {
        run(&["pause", id])?.ok()?;
        if random.below(2) == 0 {
            run(&["resume", id])?.ok()?;
        }
    }
    if random.below(2) == 0 {
        run(&["delete", "--force", id])?.ok()?;
        return Ok(());
    }
    run(&["kill", id, "KILL"])?.ok()?;
    eventually(ctx.patience * 3, "the container stops", || {
        let state = run(&["state", id]).ok()?.json().ok()?;
        (state["status"] == "stopped").then_some(())
    })?;
    run(&["delete", id])?.ok().map(drop)
}

/// The same commands on a few ids, without any order: each may be refused, none may hang, crash or leave anything.
fn storm_on_shared_ids(ctx: &Context) -> Outcome {
    let random = Random::new();
    let failures = Mutex::new(vec![]);
    let end = Instant::now() + Duration::from_secs(number("KELSON_CHAOS_SECONDS", 10));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            let (random, failures) = (&random, &failures);
            scope.spawn(move || {
                let work = || -> Outcome {
                    let mut bundle = rich(ctx)?;
                    while Instant::now() < end && failures.lock().is_ok_and(|list| list.is_empty()) {
                        let id = format!("shared-{}", random.below(4));
                        bundle.set("/linux/cgroupsPath", format!("{}/{id}", ctx.cgroup_parent)).write()?;
                        let dir = bundle.dir.to_string_lossy().into_owned();
                        let words: Vec<&str> = match random.below(9) {
                            0 | 1 => vec!["create", "--bundle", &dir, &id],
                            2 => vec!["start", &id],
                            3 => vec!["state", &id],
                            4 => vec!["kill", &id, "KILL"],
                            5 => vec!["delete", &id],
                            6 => vec!["delete", "--force", &id],
                            7 => vec!["exec", &id, "/bin/guest", "exit", "0"],
                            _ => vec!["list", "--format", "json"],
                        };
                        let run = ctx.runtime().args(words).deadline(ctx.patience * 3).run()?;
                        check!(run.signal.is_none() && !run.err().contains("panic"), "{}", run.told());
                        // 137: what exec ran was killed with its container.
                        check!(
                            run.code == 0 || run.code == 137 || !run.err().trim().is_empty(),
                            "a failure without a word: {}",
                            run.told()
                        );
                    }
                    Ok(())
                };
                if let Err(why) = work() {
                    failures.lock().map(|mut list| list.push(why.to_string())).unwrap_or(());
                }
            });
        }
    });
    for id in 0..4 {
        ctx.runtime().args(["delete", "--force", &format!("shared-{id}")]).run()?.ok()?;
    }
    let failures = failures.into_inner().unwrap_or_default();
    check!(failures.is_empty(), "seed {}: {}", random.seed, failures.join("\n  "));
    nothing_remains(ctx).map_err(|e| e.during(&format!("seed {}", random.seed)))
}
