//! A command is killed, interrupted or refused at each system call that it and the processes it makes come to.
//!
//! There are more calls than a run has time for: each test goes through them in steps of the golden section, so that those
//! it comes to are spread evenly whenever its time is over (KELSON_CHAOS_SECONDS), and begins elsewhere each time. A failure
//! names what was done where; KELSON_CHAOS_AT repeats that alone.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use libc::{
    E2BIG, EAGAIN, EBUSY, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, SIGINT, SIGKILL, SIGTERM, SYS_access,
    SYS_arch_prctl, SYS_brk, SYS_clock_gettime, SYS_clone, SYS_clone3, SYS_close, SYS_connect, SYS_dup, SYS_dup2,
    SYS_dup3, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_faccessat2, SYS_fcntl, SYS_fork, SYS_fsconfig,
    SYS_fsmount, SYS_fsopen, SYS_fspick, SYS_fstat, SYS_getdents64, SYS_getegid, SYS_geteuid, SYS_getgid, SYS_getpid,
    SYS_getppid, SYS_getrandom, SYS_gettid, SYS_getuid, SYS_linkat, SYS_lstat, SYS_madvise, SYS_memfd_create,
    SYS_mkdir, SYS_mkdirat, SYS_mknodat, SYS_mmap, SYS_mount, SYS_mount_setattr, SYS_move_mount, SYS_mprotect,
    SYS_munmap, SYS_newfstatat, SYS_open, SYS_open_tree, SYS_openat, SYS_openat2, SYS_pidfd_getfd, SYS_pidfd_open,
    SYS_pipe2, SYS_poll, SYS_read, SYS_readlink, SYS_readlinkat, SYS_recvfrom, SYS_recvmsg, SYS_rename, SYS_renameat,
    SYS_renameat2, SYS_restart_syscall, SYS_rmdir, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_sendmsg, SYS_sendto, SYS_set_robust_list, SYS_set_tid_address, SYS_sigaltstack, SYS_signalfd4, SYS_socket,
    SYS_socketpair, SYS_statfs, SYS_statx, SYS_symlinkat, SYS_umask, SYS_umount2, SYS_unlink, SYS_unlinkat, SYS_vfork,
    SYS_wait4, SYS_waitid, SYS_write,
};

use nix::errno::Errno;

use super::chaos::{Random, force, nothing_remains, number, rich};
use crate::harness::{Bundle, Container, Context, Outcome, Run, Test, cgroup, eventually, json};
use crate::tracer::{self, Action, Call, Settings};
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "chaos_stage_is_killed_before_it_tells_what_it_made", run: untold_birth },
    Test { name: "chaos_killed_create_leaves_no_part_of_a_pid_file", run: part_of_a_pid_file },
    Test { name: "chaos_device_rules_are_complete_when_a_process_is_born", run: rules_before_birth },
    Test { name: "chaos_kill_at_every_system_call_of_create", run: |ctx| kill(ctx, &CREATE) },
    Test { name: "chaos_kill_at_every_system_call_of_create_with_a_stage", run: |ctx| kill(ctx, &CREATE_STAGED) },
    Test { name: "chaos_kill_at_every_system_call_of_run", run: |ctx| kill(ctx, &RUN) },
    Test { name: "chaos_kill_at_every_system_call_of_start", run: |ctx| kill(ctx, &START) },
    Test { name: "chaos_kill_at_every_system_call_of_exec", run: |ctx| kill(ctx, &EXEC) },
    Test { name: "chaos_kill_at_every_system_call_of_delete", run: |ctx| kill(ctx, &DELETE) },
    Test { name: "chaos_sigterm_at_every_system_call_of_create", run: |ctx| interrupt(ctx, &CREATE, SIGTERM) },
    Test { name: "chaos_sigint_at_every_system_call_of_create", run: |ctx| interrupt(ctx, &CREATE_STAGED, SIGINT) },
    Test { name: "chaos_sigterm_at_every_system_call_of_run", run: |ctx| interrupt(ctx, &RUN, SIGTERM) },
    Test { name: "chaos_error_at_every_system_call_of_create", run: |ctx| refuse(ctx, &CREATE) },
    Test { name: "chaos_error_at_every_system_call_of_create_with_a_stage", run: |ctx| refuse(ctx, &CREATE_STAGED) },
    Test { name: "chaos_error_at_every_system_call_of_run", run: |ctx| refuse(ctx, &RUN) },
    Test { name: "chaos_error_at_every_system_call_of_start", run: |ctx| refuse(ctx, &START) },
    Test { name: "chaos_error_at_every_system_call_of_exec", run: |ctx| refuse(ctx, &EXEC) },
    Test { name: "chaos_error_at_every_system_call_of_delete", run: |ctx| refuse(ctx, &DELETE) },
    Test { name: "chaos_error_at_every_system_call_of_update", run: |ctx| refuse(ctx, &UPDATE) },
    Test { name: "chaos_sigterm_at_every_system_call_of_update", run: |ctx| interrupt(ctx, &UPDATE, SIGTERM) },
    Test { name: "chaos_error_at_every_system_call_of_state", run: refuse_state },
    Test { name: "chaos_error_at_every_system_call_of_list", run: refuse_list },
];

/// A command in the midst of a container's life.
struct Target {
    bundle: for<'c> fn(&'c Context) -> Outcome<Bundle<'c>>,
    /// Brings the container to where the command is given.
    before: for<'c> fn(&mut Container<'c>) -> Outcome,
    words: fn(&Container<'_>) -> Vec<String>,
    /// The container's process takes part in it.
    with_container: bool,
    /// The exit code of the command when all is well, and when it is not.
    codes: (i32, i32),
    /// What must be true of the container after a success; it need not be there any more.
    succeeded: fn(&Container<'_>) -> Outcome,
    /// The same after a failure.
    failed: fn(&Container<'_>) -> Outcome,
}

const CREATE: Target = Target {
    bundle: rich,
    before: |_| Ok(()),
    words: |c| {
        let (bundle, pid_file) = (c.bundle.to_string_lossy(), pid_file(c));
        ["create", "--pid-file", &pid_file.to_string_lossy(), "--bundle", &bundle, &c.id].map(str::to_owned).to_vec()
    },
    with_container: false,
    codes: (0, 1),
    succeeded: |container| {
        check_eq!(container.status()?, "created", "status after a create that succeeded");
        check_eq!(std::fs::read_to_string(pid_file(container))?, container.pid()?.to_string(), "pid file");
        container.start()?.ok()?;
        check_eq!(container.status()?, "running", "status after start");
        Ok(())
    },
    failed: |container| {
        let files = std::fs::read_dir(container.context.dir.join("io"))?.flatten();
        let mut left = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let left = left.find(|name| name.contains(&format!("{}.pid", container.id)));
        check!(left.is_none(), "the pid file is left: {left:?}");
        nothing_remains(container.context)
    },
};

fn pid_file(container: &Container<'_>) -> std::path::PathBuf {
    container.context.dir.join("io").join(format!("{}.pid", container.id))
}

/// Of whose namespaces one clone cannot make all.
const CREATE_STAGED: Target = Target {
    bundle: |ctx| {
        let mut bundle = rich(ctx)?;
        bundle.namespace("time", None).user_namespace(&[(0, 100_000, 65_536)])?;
        Ok(bundle)
    },
    ..CREATE
};
const RUN: Target = Target {
    words: |c| {
        let bundle = c.bundle.to_string_lossy().into_owned();
        ["run", "--bundle", &bundle, &c.id, "/bin/guest", "exit", "3"].map(str::to_owned).to_vec()
    },
    codes: (3, 1),
    // Or the runtime has warned: the exit code is the program's.
    succeeded: |_| Ok(()),
    ..CREATE
};
const START: Target = Target {
    before: |container| container.create()?.ok().map(drop),
    words: |c| vec!["start".into(), c.id.clone()],
    with_container: true,
    succeeded: |container| {
        check_eq!(container.status()?, "running", "status after a start that succeeded");
        Ok(())
    },
    failed: |_| Ok(()),
    ..CREATE
};
const EXEC: Target = Target {
    before: |container| {
        container.create()?.ok()?;
        container.start()?.ok().map(drop)
    },
    words: |c| ["exec", &c.id, "/bin/guest", "exit", "3"].map(str::to_owned).to_vec(),
    codes: (3, 255),
    succeeded: alone,
    failed: alone,
    ..CREATE
};
const DELETE: Target = Target {
    before: EXEC.before,
    words: |c| vec!["delete".into(), "--force".into(), c.id.clone()],
    succeeded: |container| nothing_remains(container.context),
    failed: |_| Ok(()),
    ..CREATE
};

/// All limits are the new ones, or the old ones.
const UPDATE: Target = Target {
    bundle: |ctx| {
        ctx.need_v1()?;
        for controller in ["pids", "cpu", "memory"] {
            ctx.need_controller(controller)?;
        }
        let mut bundle = rich(ctx)?;
        bundle
            .set("/linux/resources/cpu", json!({"shares": 512, "quota": 50_000, "period": 100_000}))
            .set("/linux/resources/memory", json!({"limit": 128 << 20, "swap": 256 << 20}));
        Ok(bundle)
    },
    before: EXEC.before,
    words: |c| {
        let options =
            "--cpu-share 1024 --cpu-quota 20000 --cpu-period 50000 --memory 64M --memory-swap 96M --pids-limit 50";
        ["update", &c.id].into_iter().chain(options.split(' ')).map(str::to_owned).collect()
    },
    succeeded: |container| has_limits(container, [1024, 20_000, 50_000, 64 << 20, 96 << 20, 50]),
    failed: |container| has_limits(container, [512, 50_000, 100_000, 128 << 20, 256 << 20, 100]),
    ..CREATE
};

/// Shares, quota, period, memory, memory and swap, processes: as v1 has them.
fn has_limits(container: &Container<'_>, expected: [u64; 6]) -> Outcome {
    let files = [
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", "cpu.cfs_period_us"),
        ("memory", "memory.limit_in_bytes"),
        ("memory", "memory.memsw.limit_in_bytes"),
        ("pids", "pids.max"),
    ];
    for ((controller, file), expected) in files.into_iter().zip(expected) {
        check_eq!(container.cgroup_file(controller, file)?, expected.to_string(), "{file}");
    }
    Ok(())
}

/// The container runs, and nothing in it but its own process.
fn alone(container: &Container<'_>) -> Outcome {
    check_eq!(container.status()?, "running", "status after exec");
    let own = container.pid()?;
    let ctx = container.context;
    let others = || {
        let dirs = ctx.cgroups.existing(&format!("{}/{}", ctx.cgroup_parent, container.id));
        dirs.iter().flat_map(|dir| cgroup::processes(dir)).filter(|pid| *pid != own).collect::<Vec<_>>()
    };
    eventually(Duration::from_secs(5), "what exec ran ends", || others().is_empty().then_some(()))
}

// ---- what is done where --------------------------------------------------------------------------------------------

type Case = (Call, Action);

/// As in KELSON_CHAOS_AT: `1:57:kill`.
fn label((call, action): Case) -> String {
    format!("{}:{}:{action}", call.process, call.index)
}

fn prepared<'c>(bundle: &mut Bundle<'c>, target: &Target) -> Outcome<Container<'c>> {
    let mut container = bundle.container()?;
    (target.before)(&mut container)?;
    Ok(container)
}

/// Runs the command of `target` under the tracer.
fn traced(container: &Container<'_>, target: &Target, case: Option<Case>) -> Outcome<(Run, Vec<Call>)> {
    let ctx = container.context;
    let record = ctx.next_io().with_extension("calls");
    let also = if target.with_container { container.pid()? } else { 0 };
    let words = (target.words)(container);
    // Only what makes a container is told.
    let is_systemd = ctx.has_systemd() && ["create", "run"].contains(&words[0].as_str());
    let run = ctx
        .command(&std::env::current_exe()?.to_string_lossy())
        .args(["--trace", &Settings { also, at: case }.to_json(&record), "--"])
        .arg(&ctx.runtime)
        .arg("--root")
        .arg(&ctx.root)
        .args(is_systemd.then_some("--systemd-cgroup"))
        .args(words)
        .run()?;
    Ok((run, tracer::calls(&record).unwrap_or_default()))
}

/// v1 takes one rule after another, and first that nothing is allowed: with more rules there is no more to write when the container's
/// process is there, which makes its devices and opens its terminal meanwhile.
fn rules_before_birth(ctx: &Context) -> Outcome {
    ctx.need_kelson("a single thread, which is traced,")?;
    let writes = |rules: u32| -> Outcome<usize> {
        let mut bundle = rich(ctx)?;
        for minor in 0..rules {
            let rule = json!({"allow": true, "type": "c", "major": 240, "minor": minor, "access": "rw"});
            bundle.push("/linux/resources/devices", rule);
        }
        let mut container = prepared(&mut bundle, &CREATE)?;
        let (run, calls) = traced(&container, &CREATE, None)?;
        run.exits(0)?;
        force(ctx, &container.id)?;
        container.forget();
        // What the two processes do is traced as it comes: only the calls of one of them have an order.
        let own = calls.iter().filter(|call| call.process == 0);
        let after_birth = own.skip_while(|call| ![SYS_clone3, SYS_clone].contains(&call.number));
        Ok(after_birth.filter(|call| call.number == SYS_write).count())
    };
    check_eq!(writes(20)?, writes(1)?, "writes with twenty rules and with one");
    Ok(())
}

/// Does to the command of `target`, for as long as there is time, what `actions` gives for each of its calls.
fn at_every_call(
    ctx: &Context,
    target: &Target,
    actions: impl Fn(Call) -> Vec<Action>,
    judge: impl Fn(&Container<'_>, &Run, Case) -> Outcome,
) -> Outcome {
    ctx.need_kelson("a single thread, which is traced,")?;
    let bundle = RefCell::new((target.bundle)(ctx)?);
    let run = |case: Option<Case>| -> Outcome<Vec<Call>> {
        let mut container = prepared(&mut bundle.borrow_mut(), target)?;
        let (run, calls) = traced(&container, target, case)?;
        let judged = match case {
            None => run.exits(target.codes.0).map(drop),
            Some(case) => judge(&container, &run, case).map_err(|why| why.during(&run.told())),
        };
        let forced = force(ctx, &container.id);
        container.forget();
        judged.and(forced).map(|()| calls)
    };
    let calls = run(None)?;
    check!(calls.len() > 20, "the tracer saw only {} calls", calls.len());
    let mut cases: Vec<Case> = calls.iter().flat_map(|call| actions(*call).into_iter().map(|a| (*call, a))).collect();
    let wanted = std::env::var("KELSON_CHAOS_AT").ok();
    if let Some(wanted) = &wanted {
        cases.retain(|case| label(*case) == *wanted);
        if cases.is_empty() {
            skip!("there is nothing to be done at {wanted}");
        }
    }
    let end = Instant::now() + Duration::from_secs(number("KELSON_CHAOS_SECONDS", 10));
    let mut failures: Vec<String> = vec![];
    // One that is asked for may need many rounds.
    let rounds = if wanted.is_some() { usize::MAX } else { cases.len() };
    for case in evenly(&cases, Random::new().below(cases.len() as u64) as usize).take(rounds) {
        if Instant::now() > end || failures.len() >= 8 {
            break;
        }
        if let Err(why) = run(Some(case)) {
            failures.push(format!("KELSON_CHAOS_AT={} (system call {}): {why}", label(case), case.0.number));
            for id in ctx.state_entries() {
                ctx.runtime().args(["delete", "--force", &id]).run()?;
            }
            // So that the next one starts clean.
            nothing_remains(ctx).map_err(|why| why.during(&failures.join("\n")))?;
        }
    }
    check!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

/// `all`, over and over, from `first` on in steps of about the golden section of the whole: those that come first lie evenly
/// between the others.
fn evenly(all: &[Case], first: usize) -> impl Iterator<Item = Case> {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let count = all.len();
    let section = (count as f64 * 0.618).max(1.0) as usize;
    let step = (section..).find(|step| gcd(*step, count) == 1).unwrap_or(1);
    (0..).map(move |round| all[(first + round * step) % count])
}

// ---- how it is judged ----------------------------------------------------------------------------------------------

/// Whether it did what it was asked to; if not, one line tells why, and all others only warn.
fn has_succeeded(run: &Run, target: &Target) -> Outcome<bool> {
    let said = run.err();
    check!(run.signal.is_none() && !said.contains("panicked") && !said.contains("memory allocation"), "it crashed");
    check!([target.codes.0, target.codes.1].contains(&run.code), "it has an exit code of its own");
    let warnings = said.lines().filter(|line| line.starts_with("kelson: warning: ")).count();
    let errors = said.lines().count() - warnings;
    check_eq!(errors, usize::from(run.code != target.codes.0), "lines of error");
    for line in said.lines() {
        let told = line.strip_prefix("kelson: ").map(|line| line.strip_prefix("warning: ").unwrap_or(line));
        check!(told.is_some(), "a line that is not the runtime's: {line}");
        let is_bare = |told| (1..134).any(|e| Errno::from_raw(e).desc().eq_ignore_ascii_case(told));
        check!(!told.is_some_and(is_bare), "nobody knows of what the kernel says this: {line}");
    }
    Ok(run.code == target.codes.0)
}

/// The command at each of all calls, and every other process at its own: `delete --force` finds all that is left.
fn kill(ctx: &Context, target: &Target) -> Outcome {
    let actions = |call: Call| match call.process {
        0 => vec![Action::Kill],
        _ => vec![Action::Kill, Action::Signal(SIGKILL)],
    };
    at_every_call(ctx, target, actions, |container, run, (call, action)| {
        if call.process == 0 || action != Action::Kill {
            return Ok(());
        }
        // What was killed when it had said that it executes its program was the program.
        if run.code == 128 + SIGKILL && run.signal.is_none() {
            return Ok(());
        }
        match has_succeeded(run, target)? {
            true => Ok(()),
            false => (target.failed)(container),
        }
    })
}

/// What the stage has made waits for an answer, and holds the socket at whose end its parent waits: neither is to wait for ever.
fn untold_birth(ctx: &Context) -> Outcome {
    ctx.need_kelson("a stage")?;
    for target in [CREATE_STAGED, EXEC] {
        let mut bundle = (target.bundle)(ctx)?;
        let container = prepared(&mut bundle, &target)?;
        let (run, calls) = traced(&container, &target, None)?;
        run.exits(target.codes.0)?;
        force(ctx, &container.id)?;
        let tells = calls.iter().find(|call| call.process == 1 && call.number == SYS_sendmsg);
        let tells = *tells.ok_or("the stage sends nothing")?;
        let container = prepared(&mut bundle, &target)?;
        let (run, _) = traced(&container, &target, Some((tells, Action::Kill)))?;
        check!(!has_succeeded(&run, &target)?, "it succeeded without a stage");
        (target.failed)(&container)?;
        force(ctx, &container.id)?;
    }
    Ok(())
}

/// Nobody who deletes the container knows of the PID file: what is written of it when create is killed has to go with that.
fn part_of_a_pid_file(ctx: &Context) -> Outcome {
    ctx.need_kelson("a single thread, which is traced,")?;
    let mut bundle = rich(ctx)?;
    let container = prepared(&mut bundle, &CREATE)?;
    let (run, calls) = traced(&container, &CREATE, None)?;
    run.exits(0)?;
    force(ctx, &container.id)?;
    let of_files = [SYS_write, SYS_rename, SYS_linkat, SYS_unlink];
    let own = calls.iter().filter(|call| call.process == 0 && of_files.contains(&call.number));
    let mut killed = 0;
    for call in own.rev().take(6) {
        let container = prepared(&mut bundle, &CREATE)?;
        let (run, _) = traced(&container, &CREATE, Some((*call, Action::Kill)))?;
        // One that needs fewer calls than the first has ended before.
        killed += usize::from(run.code != 0);
        force(ctx, &container.id).map_err(|why| why.during(&format!("killed at {}", label((*call, Action::Kill)))))?;
    }
    check!(killed > 1, "create was killed {killed} times of 6");
    Ok(())
}

/// The command is asked to end: it succeeds, or undoes all by itself.
fn interrupt(ctx: &Context, target: &Target, signal: i32) -> Outcome {
    at_every_call(
        ctx,
        target,
        |_| vec![Action::Signal(signal)],
        |container, run, _| {
            // Before anything was made nothing holds the signal back.
            if run.signal == Some(signal) {
                return (target.failed)(container);
            }
            match has_succeeded(run, target)? {
                true => (target.succeeded)(container),
                false => (target.failed)(container),
            }
        },
    )
}

/// Each call fails: the command works all the same, or tells why not and leaves nothing.
fn refuse(ctx: &Context, target: &Target) -> Outcome {
    at_every_call(ctx, target, failures, |container, run, _| match has_succeeded(run, target)? {
        true => (target.succeeded)(container),
        false => (target.failed)(container),
    })
}

/// The status is what it is or cannot be told: what runs must not be taken for stopped, nor what waits for running.
fn refuse_state(ctx: &Context) -> Outcome {
    let words = |c: &Container<'_>| vec!["state".into(), c.id.clone()];
    let created = Target { words, codes: (0, 1), ..START };
    let running = Target { before: EXEC.before, ..created };
    for (target, status) in [(created, "created"), (running, "running")] {
        let target = Target { with_container: false, ..target };
        at_every_call(ctx, &target, failures, |_, run, _| {
            if has_succeeded(run, &target)? {
                check_eq!(run.json()?["status"], status, "status");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A container that cannot be looked at is not left out silently.
fn refuse_list(ctx: &Context) -> Outcome {
    let words = |_: &Container<'_>| vec!["list".into()];
    let target = Target { before: EXEC.before, words, codes: (0, 1), ..CREATE };
    at_every_call(ctx, &target, failures, |container, run, _| {
        let is_listed = run.out().contains(&container.id) && run.out().contains("running");
        check!(!has_succeeded(run, &target)? || is_listed || !run.err().is_empty(), "it is not listed: {}", run.out());
        Ok(())
    })
}

/// All that a call may answer.
fn failures(call: Call) -> Vec<Action> {
    errors_of(call.number).iter().copied().map(Action::Fail).collect()
}

/// What a system call may answer where nothing is wrong with its arguments.
fn errors_of(number: i64) -> &'static [i32] {
    #[allow(non_upper_case_globals)]
    match number {
        // The kernel has none to give, or a close that fails has closed all the same and an injected one has not.
        SYS_exit | SYS_exit_group | SYS_close | SYS_arch_prctl | SYS_rt_sigreturn | SYS_umask | SYS_getpid
        | SYS_getppid | SYS_gettid | SYS_getuid | SYS_geteuid | SYS_getgid | SYS_getegid | SYS_set_tid_address
        | SYS_set_robust_list | SYS_rseq | SYS_rt_sigaction | SYS_rt_sigprocmask | SYS_sigaltstack
        | SYS_restart_syscall | SYS_clock_gettime | SYS_getrandom => &[],
        // The allocator gives up and ends the process.
        SYS_brk | SYS_mmap | SYS_munmap | SYS_mprotect | SYS_madvise => &[],
        // std's wait for the execve of a hook takes a failure, which a socket pair does not have, for a bug.
        SYS_recvfrom => &[],
        SYS_open | SYS_openat | SYS_openat2 => &[EMFILE, ENOMEM, EIO],
        SYS_open_tree | SYS_fsopen | SYS_fsmount | SYS_fspick | SYS_socket | SYS_socketpair | SYS_pipe2 | SYS_dup
        | SYS_dup2 | SYS_dup3 | SYS_signalfd4 | SYS_memfd_create | SYS_pidfd_open | SYS_pidfd_getfd | SYS_fcntl => {
            &[EMFILE, ENFILE, ENOMEM]
        }
        // All else ends a process that was told that its container is created: nobody is there any more to be told.
        SYS_poll | SYS_recvmsg => &[EINTR],
        SYS_read | SYS_wait4 | SYS_waitid | SYS_connect => &[EINTR, EIO],
        SYS_fstat | SYS_lstat | SYS_newfstatat | SYS_statx | SYS_statfs | SYS_readlink | SYS_readlinkat
        | SYS_getdents64 | SYS_access | SYS_faccessat2 => &[EIO, ENOMEM],
        SYS_write | SYS_sendmsg | SYS_sendto => &[EINTR, ENOSPC, EIO],
        SYS_mkdir | SYS_mkdirat | SYS_symlinkat | SYS_mknodat | SYS_linkat | SYS_rename | SYS_renameat
        | SYS_renameat2 => &[ENOSPC, EIO],
        SYS_rmdir | SYS_unlink | SYS_unlinkat => &[EIO, EBUSY],
        SYS_mount | SYS_move_mount | SYS_mount_setattr | SYS_fsconfig => &[ENOMEM, ENOSPC],
        SYS_umount2 => &[EBUSY],
        SYS_clone | SYS_clone3 | SYS_fork | SYS_vfork => &[EAGAIN, ENOMEM],
        SYS_execve | SYS_execveat => &[ENOMEM, E2BIG],
        _ => &[ENOMEM],
    }
}
