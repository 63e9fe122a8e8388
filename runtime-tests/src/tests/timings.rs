//! `--timings` of create, run and exec.

use std::fs;
use std::time::Duration;

use crate::harness::{Context, Lines, Outcome, Test, Value, json};
use crate::{check, check_eq, sys};

pub const TESTS: &[Test] = &[
    Test { name: "of_run_end_with_the_program", run: of_run },
    Test { name: "of_create_end_with_the_state", run: of_create },
    Test { name: "of_exec", run: of_exec },
    Test { name: "hooks_have_their_time", run: hooks },
    Test { name: "clock_of_a_time_namespace_is_set_back", run: time_namespace },
    Test { name: "of_what_fails_are_written_too", run: failing },
    Test { name: "table_goes_to_a_terminal_or_by_a_dash", run: table },
    Test { name: "file_that_cannot_be_written_is_refused_first", run: refused },
    Test { name: "filter_that_forbids_nearly_everything", run: filtered },
];

/// The document, and that it is as its schema says: no step begins before the first, those of a process follow each other.
fn read(path: &std::path::Path, command: &str) -> Outcome<Value> {
    let text = fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let document: Value = serde_json::from_str(&text)?;
    check_eq!(document["command"], command, "command");
    check_eq!(document["clock"], "CLOCK_MONOTONIC", "clock");
    let total = document["total_us"].as_u64().unwrap_or(0);
    check!(total > 0, "{text}");
    let steps = document["steps"].as_array().cloned().unwrap_or_default();
    check_eq!(steps[0]["start_us"], json!(0), "the first step");
    for process in ["kelson", "stage", "container"] {
        let mut end = None;
        for step in steps.iter().filter(|step| step["process"] == process) {
            let number = |key: &str| step[key].as_u64().ok_or_else(|| format!("no {key} in {step}"));
            let (start, duration) = (number("start_us")?, number("duration_us")?);
            check!(end.is_none_or(|end| end <= start), "{step} begins before the one before it ends: {text}");
            check!(start + duration <= total, "{step} ends after all: {text}");
            end = Some(start + duration);
        }
    }
    Ok(document)
}

/// Duration of the step `name`.
fn took(document: &Value, process: &str, name: &str) -> Outcome<u64> {
    let steps = document["steps"].as_array().into_iter().flatten();
    let found =
        steps.filter(|step| step["process"] == process && step["name"] == name).find_map(|s| s["duration_us"].as_u64());
    found.ok_or_else(|| format!("{process} has no step {name:?} in {document}").into())
}

fn of_run(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    let file = ctx.dir.join("timings");
    // What was in it is gone.
    fs::write(&file, vec![b'x'; 100_000])?;
    let container = bundle.option("--timings").option(&file.to_string_lossy()).container()?;
    let run = container.run_command().run()?.ok()?;
    let document = read(&file, "run")?;
    check_eq!(document["id"], json!(container.id), "id");
    check_eq!(document["completed"], json!(true), "completed");
    check!(Duration::from_micros(document["total_us"].as_u64().unwrap_or(0)) <= run.took, "{document}");
    for name in ["read the configuration", "make the plan", "make the cgroups and set limits", "clone"] {
        took(&document, "kelson", name)?;
    }
    for name in [
        "mount the root file system",
        "mount file systems",
        "make devices",
        "enter the root file system",
        "become the user",
        "load the seccomp filter and execute the program",
    ] {
        took(&document, "container", name)?;
    }
    check!(took(&document, "container", "mount file systems")? > 0, "no time for mounts: {document}");
    check!(run.err().is_empty(), "{}", run.err());
    Ok(())
}

fn of_create(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    let file = ctx.dir.join("timings");
    let mut container = bundle.guest(&["sleep"]).option("--timings").option(&file.to_string_lossy()).container()?;
    container.create()?.ok()?;
    let document = read(&file, "create")?;
    check_eq!(document["completed"], json!(true), "completed");
    took(&document, "kelson", "save the state")?;
    took(&document, "container", "find the program")?;
    let steps = document["steps"].to_string();
    check!(!steps.contains("wait to be started"), "{steps}");
    let before = fs::read(&file)?;
    container.start()?.ok()?;
    container.wait_status("running")?;
    check_eq!(fs::read(&file)?, before, "the file after start");
    container.end()
}

fn of_exec(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let file = ctx.dir.join("timings");
    let option = file.to_string_lossy().into_owned();
    container.exec_command(&["--timings", &option], &["/bin/guest", "report"]).run()?.ok()?;
    let document = read(&file, "exec")?;
    check_eq!(document["completed"], json!(true), "completed");
    took(&document, "kelson", "read the state")?;
    took(&document, "stage", "join the namespaces")?;
    took(&document, "container", "become the user")?;
    took(&document, "container", "load the seccomp filter and execute the program")?;
    container.end()
}

fn hooks(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    let script = ctx.dir.join("hook");
    fs::write(&script, "#!/bin/sh\nexec sleep 0.15\n")?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for point in ["createRuntime", "poststart"] {
        bundle.push(&format!("/hooks/{point}"), json!({"path": script}));
    }
    let file = ctx.dir.join("timings");
    bundle.option("--timings").option(&file.to_string_lossy()).container()?.run_command().run()?.ok()?;
    let document = read(&file, "run")?;
    for name in ["run host hooks and move network devices", "run poststart hooks"] {
        let us = took(&document, "kelson", name)?;
        check!(us >= 150_000, "{name} took {us} us");
    }
    check!(took(&document, "container", "run host hooks")? >= 150_000, "{document}");
    Ok(())
}

fn time_namespace(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    if !std::path::Path::new("/proc/self/timens_offsets").exists() {
        crate::skip!("this kernel has no time namespaces");
    }
    let mut bundle = ctx.bundle()?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"monotonic": {"secs": 1_000_000, "nanosecs": 5}}));
    let file = ctx.dir.join("timings");
    let container = bundle.option("--timings").option(&file.to_string_lossy()).container()?;
    let run = container.run_command().run()?.ok()?;
    let document = read(&file, "run")?;
    check!(Duration::from_micros(document["total_us"].as_u64().unwrap_or(0)) <= run.took, "{document}");
    took(&document, "stage", "join and make namespaces")?;
    took(&document, "container", "mount file systems")?;
    Ok(())
}

fn failing(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    bundle.mount("/x", "bind", "/no/such/source", &["bind"]);
    let file = ctx.dir.join("timings");
    let run = bundle.option("--timings").option(&file.to_string_lossy()).container()?.run_command().run()?;
    run.exits(1)?.fails_saying(&["/no/such/source"])?;
    let document = read(&file, "run")?;
    check_eq!(document["completed"], json!(false), "completed");
    took(&document, "kelson", "clone")?;
    Ok(())
}

fn table(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.option("--timings").option("-").container()?;
    let run = container.run_command().run()?.ok()?;
    let text = run.err();
    let lines: Vec<&str> = text.lines().collect();
    check!(lines[0].starts_with(&format!("run {} took ", container.id)) && lines[0].ends_with(" ms"), "{text}");
    check!(lines.iter().any(|line| line.contains("container  mount file systems")), "{text}");
    check!(!std::path::Path::new("-").exists(), "there is a file called -");
    // A terminal gets it beside the file, and a file that is none does not.
    let mut bundle = ctx.bundle()?;
    let file = ctx.dir.join("timings");
    let container = bundle.option("--timings").option(&file.to_string_lossy()).container()?;
    let (main, peer) = sys::open_pty()?;
    let mut running = container.run_command().on_terminal(peer).spawn()?;
    let mut output = Lines::new(main);
    let mut seen = String::new();
    while !seen.contains("TOOK ms") {
        seen += &String::from_utf8_lossy(&output.some(ctx.patience)?);
    }
    running.lines = None;
    running.wait()?.ok()?;
    read(&file, "run")?;
    Ok(())
}

fn refused(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.option("--timings").option("/no/such/dir/file").container()?;
    let run = container.run_command().run()?.exits(1)?;
    run.fails_saying(&["--timings", "/no/such/dir/file"])?;
    check!(ctx.state_entries().is_empty(), "state: {:?}", ctx.state_entries());
    container.forget();
    Ok(())
}

/// The child reads no clock and writes nothing behind its filter.
fn filtered(ctx: &Context) -> Outcome {
    ctx.need_kelson("--timings")?;
    let mut bundle = ctx.bundle()?;
    let calls = [
        "execve",
        "exit",
        "exit_group",
        "brk",
        "mmap",
        "munmap",
        "arch_prctl",
        "set_tid_address",
        "rt_sigaction",
        "rt_sigprocmask",
        "poll",
        "ppoll",
        "fcntl",
        "sigaltstack",
        "gettid",
        "futex",
        "madvise",
        "mprotect",
    ];
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{"names": calls, "action": "SCMP_ACT_ALLOW"}]}),
    );
    let file = ctx.dir.join("timings");
    bundle.guest(&["exit", "7"]).option("--timings").option(&file.to_string_lossy());
    bundle.container()?.run_command().run()?;
    let document = read(&file, "run")?;
    check_eq!(document["completed"], json!(true), "completed");
    took(&document, "container", "load the seccomp filter and execute the program")?;
    Ok(())
}
