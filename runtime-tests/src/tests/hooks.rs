//! `hooks`: six points, order, state on standard input, environment, timeout, and what a failure does (runtime.md 1.3).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::harness::{Bundle, Context, Outcome, Peer, Test, Value, eventually, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "six_points_in_order", run: six_points_in_order },
    Test { name: "several_at_one_point_in_listed_order", run: listed_order },
    Test { name: "state_on_stdin", run: state_on_stdin },
    Test { name: "state_on_stdin_has_annotations", run: annotations_on_stdin },
    Test { name: "environment_is_the_configured_one", run: environment },
    Test { name: "environment_of_the_caller_stays_out", run: environment_of_the_caller },
    Test { name: "args_as_configured", run: args },
    Test { name: "args_default_to_the_path", run: args_default },
    Test { name: "namespaces_of_each_point", run: namespaces },
    Test { name: "create_runtime_runs_before_pivot_root", run: before_pivot_root },
    Test { name: "create_container_sees_the_mounts", run: create_container_sees_mounts },
    Test { name: "create_container_can_ask_for_the_state", run: create_container_state },
    Test { name: "descriptors_of_hooks_are_stdio", run: descriptors },
    Test { name: "prestart_failing", run: prestart_failing },
    Test { name: "create_runtime_failing", run: create_runtime_failing },
    Test { name: "create_container_failing", run: create_container_failing },
    Test { name: "start_container_failing", run: start_container_failing },
    Test { name: "start_container_failing_in_run", run: start_container_failing_in_run },
    Test { name: "start_fails_when_the_process_is_killed_in_a_hook", run: killed_in_a_hook },
    Test { name: "create_ends_with_a_process_that_is_killed_in_a_hook", run: killed_in_a_host_hook },
    Test { name: "poststart_failing", run: poststart_failing },
    Test { name: "poststop_failing", run: poststop_failing },
    Test { name: "killed_by_a_signal_is_a_failure", run: killed_by_a_signal },
    Test { name: "missing_program_is_a_failure", run: missing_program },
    Test { name: "timeout_ends_the_hook", run: timeout },
    Test { name: "timeout_kills_the_whole_group", run: timeout_kills_group },
    Test { name: "timeout_that_is_kept", run: timeout_kept },
    Test { name: "timeout_beyond_what_the_clock_tells", run: timeout_endless },
    Test { name: "error_names_the_hook", run: error_names_hook },
    Test { name: "hook_that_closes_its_stdin", run: closes_stdin },
    Test { name: "poststop_runs_on_forced_delete", run: poststop_on_force },
    Test { name: "poststop_runs_after_a_foreground_run", run: poststop_after_run },
    Test { name: "poststop_finds_the_container_gone", run: poststop_finds_nothing },
    Test { name: "create_runtime_can_use_the_pid", run: create_runtime_pid },
    Test { name: "poststart_runs_before_start_returns", run: poststart_before_return },
];

const POINTS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A file, visible at the same place on the host and in the container, in which hooks record themselves.
struct Log {
    file: PathBuf,
}

impl Log {
    fn new(ctx: &Context, bundle: &mut Bundle) -> Outcome<Log> {
        let dir = ctx.new_dir("hooks")?;
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        // startContainer hooks run in the container: the directory is there under the same name.
        let name = dir.to_string_lossy().into_owned();
        bundle.mount(&name, "bind", &dir, &["bind"]);
        Ok(Log { file: dir.join("log") })
    }

    /// A hook that records itself under `name`, then does what `rest` says.
    fn hook(&self, ctx: &Context, point: &str, name: &str, rest: &[&str]) -> Value {
        let file = self.file.to_string_lossy().into_owned();
        let mut args = vec!["guest", "record", &file, name];
        if !rest.is_empty() {
            args.push(",");
            args.extend(rest);
        }
        json!({"path": program(ctx, point), "args": args})
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    fn names(&self) -> Vec<String> {
        self.lines().iter().map(|l| l["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn find(&self, name: &str) -> Outcome<Value> {
        let found = self.lines().into_iter().find(|l| l["name"] == name);
        found.ok_or_else(|| format!("hook {name:?} did not run; these did: {:?}", self.names()).into())
    }
}

/// The guest, where a hook of this point finds it.
fn program(ctx: &Context, point: &str) -> String {
    if point == "startContainer" { "/bin/guest".into() } else { ctx.guest.to_string_lossy().into_owned() }
}

fn six_points_in_order(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        bundle.push(&format!("/hooks/{point}"), log.hook(ctx, point, point, &[]));
    }
    let container = bundle.guest(&["sleep"]).create()?;
    check_eq!(log.names(), POINTS[..3], "hooks after create");
    container.start()?.ok()?;
    check_eq!(log.names(), POINTS[..5], "hooks after start");
    container.end()?;
    check_eq!(log.names(), POINTS, "hooks after delete");
    Ok(())
}

fn listed_order(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        for i in 0..3 {
            bundle.push(&format!("/hooks/{point}"), log.hook(ctx, point, &format!("{point}{i}"), &[]));
        }
    }
    bundle.guest(&["sleep"]).start()?.end()?;
    let expected: Vec<String> = POINTS.iter().flat_map(|p| (0..3).map(move |i| format!("{p}{i}"))).collect();
    check_eq!(log.names(), expected, "hooks in order");
    Ok(())
}

fn state_on_stdin(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        bundle.push(&format!("/hooks/{point}"), log.hook(ctx, point, point, &[]));
    }
    let container = bundle.guest(&["sleep"]).start()?;
    let (id, pid) = (container.id.clone(), container.pid()?);
    container.end()?;
    // Status by runtime.md's lifecycle; the spec leaves open whether prestart hooks, which it deprecates, see `created`.
    for (point, status) in POINTS.iter().zip(["created", "creating", "creating", "created", "running", "stopped"]) {
        let line = log.find(point)?;
        let state: Value = serde_json::from_str(line["stdin"].as_str().unwrap_or_default())
            .map_err(|e| format!("{point}: standard input is not the state: {e}: {line}"))?;
        check_eq!(state["id"], json!(id), "{point}: id");
        check!(state["ociVersion"].is_string(), "{point}: no ociVersion: {state}");
        check_eq!(state["bundle"], json!(bundle.dir), "{point}: bundle");
        let may_be_either =
            ctx.peer != Peer::Kelson && ["prestart", "createRuntime", "createContainer"].contains(point);
        let either = ["creating", "created"].iter().any(|either| state["status"] == *either);
        let good = state["status"] == status || may_be_either && either;
        check!(good, "{point}: status {}", state["status"]);
        // In the container's namespace the pid is the one that is seen there (runtime.md#state).
        let expected = if ["createContainer", "startContainer"].contains(point) { 1 } else { pid };
        if *point != "poststop" {
            check_eq!(state["pid"], json!(expected), "{point}: pid");
        }
    }
    Ok(())
}

fn annotations_on_stdin(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.set("/annotations", json!({"org.example.ship": "schooner"}));
    bundle.push("/hooks/createRuntime", log.hook(ctx, "createRuntime", "one", &[]));
    bundle.run()?.ok()?;
    let state: Value = serde_json::from_str(log.find("one")?["stdin"].as_str().unwrap_or_default())?;
    check_eq!(state["annotations"], json!({"org.example.ship": "schooner"}), "annotations");
    Ok(())
}

fn environment(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        let mut hook = log.hook(ctx, point, point, &[]);
        hook["env"] = json!(["SAIL=set", "EMPTY="]);
        bundle.push(&format!("/hooks/{point}"), hook);
    }
    bundle.guest(&["sleep"]).start()?.end()?;
    for point in POINTS {
        let mut seen = log.find(point)?["env"].as_array().cloned().unwrap_or_default();
        seen.sort_by_key(|v| v.to_string());
        check_eq!(seen, [json!("EMPTY="), json!("SAIL=set")], "{point}: environment");
    }
    Ok(())
}

/// CVE-2025-23266's class: what the caller or the container's config has in its environment reaches no hook.
fn environment_of_the_caller(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        bundle.push(&format!("/hooks/{point}"), log.hook(ctx, point, point, &[]));
    }
    bundle.push("/process/env", "INNER=1");
    bundle.run_command()?.env("OUTER", "1").run()?.ok()?;
    for point in POINTS {
        let text = log.find(point)?["env"].to_string();
        check!(!text.contains("OUTER") && !text.contains("INNER"), "{point}: environment {text}");
    }
    Ok(())
}

fn args(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    let mut hook = log.hook(ctx, "createRuntime", "one", &["print", "with space"]);
    hook["args"][0] = json!("another-name");
    bundle.push("/hooks/createRuntime", hook.clone());
    bundle.run()?.ok()?;
    check_eq!(log.find("one")?["args"], hook["args"], "argv");
    Ok(())
}

fn args_default(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mark = ctx.dir.join("ran");
    let script = ctx.dir.join("script");
    fs::write(&script, format!("#!/bin/sh\necho \"$0 $#\" > {}\n", mark.display()))?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    bundle.push("/hooks/createRuntime", json!({"path": script}));
    bundle.run()?.ok()?;
    check_eq!(fs::read_to_string(mark)?, format!("{} 0\n", script.display()), "$0 and the number of arguments");
    Ok(())
}

fn namespaces(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        bundle.push(&format!("/hooks/{point}"), log.hook(ctx, point, point, &[]));
    }
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let inside = container.report()?;
    container.end()?;
    let host = ctx.guest_command().run()?.ok()?.report()?;
    for point in POINTS {
        let line = log.find(point)?;
        let expected = if ["createContainer", "startContainer"].contains(&point) { &inside } else { &host };
        // A createContainer hook may be a child of the runtime: its PID namespace is then the host's until it forks.
        for kind in ["mnt", "net", "uts", "ipc"] {
            check_eq!(line["namespaces"][kind], json!(expected.namespace(kind)), "{point}: {kind} namespace");
        }
    }
    Ok(())
}

/// The host's files are still reachable by createContainer, in the container's mount namespace.
fn before_pivot_root(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/createContainer", log.hook(ctx, "createContainer", "one", &[]));
    bundle.run()?.ok()?;
    let line = log.find("one")?;
    let inside = &line["root"]["inode"];
    use std::os::unix::fs::MetadataExt;
    check_eq!(*inside, json!(fs::metadata("/")?.ino()), "inode of the hook's root");
    Ok(())
}

fn create_container_sees_mounts(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let rootfs = bundle.rootfs.clone();
    let mark = rootfs.join("mnt/t/mark").to_string_lossy().into_owned();
    bundle.mount("/mnt/t", "tmpfs", "tmpfs", &[]);
    bundle.push("/hooks/createContainer", json!({"path": ctx.guest, "args": ["guest", "write", mark, "by the hook"]}));
    let run = bundle.guest(&["read", "/mnt/t/mark"]).run()?.ok()?;
    check_eq!(run.said("read")?["text"], json!("by the hook"), "what the hook wrote into the container's tmpfs");
    check!(!Path::new(&mark).exists(), "the hook wrote to the host's directory");
    Ok(())
}

/// The configuration takes long to be copied, which create does while the container's process goes on.
fn create_container_state(ctx: &Context) -> Outcome {
    ctx.need_kelson("a record of the process before its first hook")?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.container()?;
    let mark = ctx.dir.join("seen");
    let state = container.verb("state").arg(&container.id).shown();
    let script = format!("{state} > {}", mark.display());
    bundle.push(
        "/hooks/createContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}),
    );
    bundle.guest(&["sleep"]).write()?;
    let mut config = fs::OpenOptions::new().append(true).open(bundle.dir.join("config.json"))?;
    std::io::Write::write_all(&mut config, " ".repeat(48 << 20).as_bytes())?;
    drop(config);
    container.create()?.ok()?;
    let seen: Value = serde_json::from_str(&fs::read_to_string(mark)?)?;
    check_eq!(seen["id"], json!(container.id), "id: {seen}");
    check_eq!(seen["pid"], json!(container.pid()?), "pid: {seen}");
    container.end()
}

fn descriptors(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        bundle.push(&format!("/hooks/{point}"), log.hook(ctx, point, point, &[]));
    }
    let file: std::os::fd::OwnedFd = fs::File::open("/")?.into();
    bundle.run_command()?.fd(9, file).run()?.ok()?;
    for point in POINTS {
        let line = log.find(point)?;
        let mut numbers: Vec<i32> =
            line["fds"].as_object().into_iter().flat_map(|m| m.keys()).filter_map(|k| k.parse().ok()).collect();
        numbers.sort_unstable();
        check!(numbers.iter().all(|n| *n <= 2), "{point}: descriptors {}", line["fds"]);
    }
    Ok(())
}

/// A hook of create fails: create is an error, the container is destroyed, poststop hooks run.
fn failing_in_create(ctx: &Context, point: &str) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    let list = format!("/hooks/{point}");
    bundle.push(&list, log.hook(ctx, point, "failing", &["exit", "7"]));
    bundle.push(&list, log.hook(ctx, point, "second", &[]));
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "poststop", &[]));
    bundle.guest(&["print", "must not run"]);
    let mut container = bundle.container()?;
    container.create()?.fails_saying(&["hook"])?;
    check!(ctx.state_entries().is_empty(), "a container is left: {:?}", ctx.state_entries());
    check_eq!(log.names(), ["failing", "poststop"], "hooks that ran");
    Ok(())
}

fn prestart_failing(ctx: &Context) -> Outcome {
    failing_in_create(ctx, "prestart")
}

fn create_runtime_failing(ctx: &Context) -> Outcome {
    failing_in_create(ctx, "createRuntime")
}

fn create_container_failing(ctx: &Context) -> Outcome {
    failing_in_create(ctx, "createContainer")
}

fn start_container_failing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/startContainer", log.hook(ctx, "startContainer", "failing", &["exit", "7"]));
    bundle.push("/hooks/startContainer", log.hook(ctx, "startContainer", "second", &[]));
    bundle.push("/hooks/poststart", log.hook(ctx, "poststart", "poststart", &[]));
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "poststop", &[]));
    let mut container = bundle.guest(&["print", "must not run"]).create()?;
    container.start()?.fails_saying(&["hook"])?;
    eventually(ctx.patience, "the container is destroyed", || ctx.state_entries().is_empty().then_some(()))?;
    check_eq!(log.names(), ["failing", "poststop"], "hooks that ran");
    check_eq!(container.output()?, "", "output of the process");
    Ok(())
}

fn start_container_failing_in_run(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/startContainer", log.hook(ctx, "startContainer", "failing", &["exit", "7"]));
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "poststop", &[]));
    let run = bundle.guest(&["print", "must not run"]).run()?.fails_saying(&["hook"])?;
    check!(!run.out().contains("must not run"), "the process ran: {}", run.told());
    check_eq!(log.names(), ["failing", "poststop"], "hooks that ran");
    Ok(())
}

/// A process that ends before it executes the program has not started it.
fn killed_in_a_hook(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/startContainer", log.hook(ctx, "startContainer", "begun", &["sleep"]));
    let container = bundle.guest(&["sleep"]).create()?;
    let pid = container.pid()?;
    let start = container.verb("start").arg(&container.id).spawn()?;
    eventually(ctx.patience, "the hook begins", || log.names().contains(&"begun".into()).then_some(()))?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    check!(start.wait()?.code != 0, "start says it succeeded");
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

/// The hook runs for nothing then: it is ended, and create says what happened.
fn killed_in_a_host_hook(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/createRuntime", log.hook(ctx, "createRuntime", "begun", &["sleep"]));
    bundle.push("/hooks/createRuntime", log.hook(ctx, "createRuntime", "second", &[]));
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "poststop", &[]));
    let mut container = bundle.guest(&["sleep"]).container()?;
    let create = container.create_command()?.spawn()?;
    let begun = eventually(ctx.patience, "the hook begins", || log.find("begun").ok())?;
    let state: Value = serde_json::from_str(begun["stdin"].as_str().unwrap_or_default())?;
    let pid = state["pid"].as_i64().ok_or("the hook's state has no pid")? as i32;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    check!(create.wait()?.code != 0, "create says it succeeded");
    check!(container.stderr().contains("process was killed"), "create said: {:?}", container.stderr());
    check_eq!(log.names(), ["begun", "poststop"], "hooks that ran");
    check!(ctx.state_entries().is_empty(), "the container is left: {:?}", ctx.state_entries());
    Ok(())
}

fn poststart_failing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/poststart", log.hook(ctx, "poststart", "failing", &["exit", "7"]));
    bundle.push("/hooks/poststart", log.hook(ctx, "poststart", "second", &[]));
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "poststop", &[]));
    let container = bundle.guest(&["sleep"]).create()?;
    container.start()?.fails_saying(&["hook"])?;
    eventually(ctx.patience, "the container is destroyed", || ctx.state_entries().is_empty().then_some(()))?;
    check_eq!(log.names(), ["failing", "poststop"], "hooks that ran");
    Ok(())
}

/// Only a warning: the others run, delete succeeds.
fn poststop_failing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "failing", &["exit", "7"]));
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "second", &[]));
    let mut container = bundle.guest(&["sleep"]).start()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    let run = container.delete()?.ok()?;
    check!(run.err().contains("hook"), "no warning: {:?}", run.err());
    check_eq!(log.names(), ["failing", "second"], "hooks that ran");
    check!(ctx.state_entries().is_empty(), "the container is left: {:?}", ctx.state_entries());
    container.forget();
    Ok(())
}

fn killed_by_a_signal(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}));
    bundle.refused(&["hook"])
}

fn missing_program(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/no/such/hook"})).refused(&["no such file"])
}

fn timeout(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}));
    let started = Instant::now();
    let run = bundle.run()?.fails_saying(&["hook"])?;
    let took = started.elapsed().as_millis();
    check!((900..10_000).contains(&took), "a hook with a timeout of 1 s ended after {took} ms\n  {}", run.told());
    Ok(())
}

/// What the hook started is killed with it: a `sleep` of a shell does not live on.
fn timeout_kills_group(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mark = ctx.dir.join("child");
    let script = format!("sleep 1000 & echo $! > {}; wait", mark.display());
    bundle.push(
        "/hooks/createRuntime",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1,
        "env": ["PATH=/bin:/usr/bin"]}),
    );
    bundle.run()?.fails()?;
    let pid = fs::read_to_string(mark)?;
    eventually(ctx.patience, &format!("process {} of the hook is gone", pid.trim()), || {
        (!Path::new("/proc").join(pid.trim()).exists()).then_some(())
    })
}

fn timeout_kept(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/true", "timeout": 30}));
    let run = bundle.run()?.ok()?;
    check!(run.took.as_secs() < 25, "took {:?}", run.took);
    Ok(())
}

/// Nanoseconds since boot do not count so far.
fn timeout_endless(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    for point in POINTS {
        let mut hook = log.hook(ctx, point, point, &[]);
        hook["timeout"] = json!(i64::MAX);
        bundle.push(&format!("/hooks/{point}"), hook);
    }
    bundle.guest(&["sleep"]).start()?.end()?;
    check_eq!(log.names(), POINTS, "hooks");
    Ok(())
}

fn error_names_hook(ctx: &Context) -> Outcome {
    ctx.need_kelson("the property of the hook in the error")?;
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/true"}));
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", "echo said this >&2; exit 9"]}));
    bundle.refused(&["hooks.createRuntime[1]", "9"])
}

/// A hook that does not read its input must not make the runtime fail with EPIPE.
fn closes_stdin(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/annotations", json!({"large": "x".repeat(300_000)}));
    for point in ["createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.push(&format!("/hooks/{point}"), json!({"path": "/bin/sh", "args": ["sh", "-c", "exec <&-; exit 0"]}));
    }
    bundle.run()?.ok()?;
    Ok(())
}

fn poststop_on_force(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "poststop", &[]));
    let mut container = bundle.guest(&["sleep"]).start()?;
    container.delete_force()?.ok()?;
    container.forget();
    check_eq!(log.names(), ["poststop"], "hooks that ran");
    Ok(())
}

fn poststop_after_run(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let log = Log::new(ctx, &mut bundle)?;
    bundle.push("/hooks/poststop", log.hook(ctx, "poststop", "poststop", &[]));
    bundle.guest(&["exit", "3"]).run()?.exits(3)?;
    check_eq!(log.names(), ["poststop"], "hooks that ran");
    Ok(())
}

fn poststop_finds_nothing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mark = ctx.dir.join("found");
    let mut container = bundle.container()?;
    let directory = ctx.cgroups.path("pids", &format!("{}/{}", ctx.cgroup_parent, container.id));
    let script = format!("cat >/dev/null; test -d {} && echo there > {}; exit 0", directory.display(), mark.display());
    bundle
        .push("/hooks/poststop", json!({"path": "/bin/sh", "args": ["sh", "-c", script]}))
        .guest(&["sleep"])
        .write()?;
    container.create()?.ok()?;
    container.start()?.ok()?;
    container.end()?;
    check!(!mark.exists(), "the cgroup was still there when the poststop hook ran");
    Ok(())
}

/// Network plug-ins attach to /proc/PID/ns/net.
fn create_runtime_pid(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mark = ctx.dir.join("net");
    let script = format!(
        "pid=$(sed 's/.*\"pid\" *: *\\([0-9]*\\).*/\\1/' | tr -d '\\n'); readlink /proc/$pid/ns/net > {}",
        mark.display()
    );
    bundle.push(
        "/hooks/createRuntime",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}),
    );
    let seen = bundle.report()?;
    check_eq!(fs::read_to_string(mark)?.trim_end(), seen.namespace("net"), "network namespace of the pid");
    Ok(())
}

fn poststart_before_return(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mark = ctx.dir.join("poststart");
    let script = format!("sleep 0.3; echo done > {}", mark.display());
    bundle.push(
        "/hooks/poststart",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}),
    );
    let container = bundle.guest(&["sleep"]).start()?;
    check!(mark.exists(), "start came back before the poststart hook ended");
    container.end()
}
