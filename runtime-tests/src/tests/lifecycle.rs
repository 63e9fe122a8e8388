//! The spec's states, operations and errors (runtime.md), and what a caller may do around them.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Bundle, Container, Context, Outcome, Peer, Running, Test, Value, children, eventually, json};
use crate::sys::{self, BeforeExec};
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "clone3_that_a_filter_denies_is_replaced", run: denied_clone3 },
    Test { name: "status_created_running_stopped", run: statuses },
    Test { name: "status_after_the_process_is_killed_from_outside", run: killed_from_outside },
    Test { name: "status_when_the_pid_is_reused", run: pid_reused },
    Test { name: "status_creating_during_a_hook", run: status_creating },
    Test { name: "state_has_the_specified_properties", run: state_properties },
    Test { name: "state_of_a_stopped_one_has_no_pid", run: state_stopped },
    Test { name: "state_of_a_newer_format_is_an_error", run: newer_format },
    Test { name: "record_that_is_cut_off_is_none", run: record_cut_off },
    Test { name: "state_of_an_older_format_is_managed", run: older_format },
    Test { name: "every_command_needs_an_id", run: commands_need_an_id },
    Test { name: "every_command_knows_only_what_exists", run: commands_of_a_missing_one },
    Test { name: "create_takes_an_id_once", run: create_twice },
    Test { name: "create_of_an_id_whose_container_stopped", run: create_over_a_stopped_one },
    Test { name: "create_undone_when_a_mount_fails", run: undone_mount },
    Test { name: "create_undone_when_a_namespace_fails", run: undone_namespace },
    Test { name: "create_undone_when_a_cgroup_limit_fails", run: undone_cgroup },
    Test { name: "create_undone_when_a_hook_fails", run: undone_hook },
    Test { name: "create_undone_when_a_sysctl_fails", run: undone_sysctl },
    Test { name: "create_undone_when_the_program_is_missing", run: undone_program },
    Test { name: "create_undone_when_the_pid_file_fails", run: undone_pid_file },
    Test { name: "create_undone_when_the_console_socket_fails", run: undone_console_socket },
    Test { name: "create_undone_when_the_listener_is_missing", run: undone_listener },
    Test { name: "config_changes_after_create_have_no_effect", run: config_changes },
    Test { name: "config_changes_after_create_have_no_effect_on_exec", run: config_changes_and_exec },
    Test { name: "config_missing_after_create", run: config_missing },
    Test { name: "container_without_process", run: without_process },
    Test { name: "start_fails_when_the_program_changed", run: program_changed },
    Test { name: "start_fails_when_the_program_vanished", run: program_vanished },
    Test { name: "start_and_delete_of_one_that_is_being_created", run: while_created },
    Test { name: "start_of_a_running_one", run: start_running },
    Test { name: "start_of_a_paused_one", run: start_paused },
    Test { name: "start_of_a_stopped_one", run: start_stopped },
    Test { name: "kill_default_is_term", run: kill_default },
    Test { name: "kill_by_name_and_number", run: kill_names },
    Test { name: "kill_with_an_unknown_signal", run: kill_unknown },
    Test { name: "kill_of_a_created_one", run: kill_created },
    Test { name: "kill_of_a_stopped_one", run: kill_stopped },
    Test { name: "kill_all_in_a_shared_pid_namespace", run: kill_all_shared },
    Test { name: "kill_all_after_init_ended", run: kill_all_after_init },
    Test { name: "sigkill_in_a_shared_pid_namespace_is_for_all", run: sigkill_shared },
    Test { name: "kill_all_in_its_own_pid_namespace", run: kill_all_own },
    Test { name: "kill_all_with_another_signal", run: kill_all_term },
    Test { name: "kill_all_without_a_cgroup", run: kill_all_without_cgroup },
    Test { name: "kill_all_of_one_that_is_being_created", run: kill_all_creating },
    Test { name: "delete_of_a_running_one", run: delete_running },
    Test { name: "delete_of_a_created_one", run: delete_created },
    Test { name: "delete_of_a_stopped_one", run: delete_stopped },
    Test { name: "delete_force_of_a_running_one", run: delete_force_running },
    Test { name: "delete_force_in_a_shared_pid_namespace", run: delete_force_shared },
    Test { name: "delete_force_of_a_missing_one", run: delete_force_missing },
    Test { name: "delete_force_of_one_that_cannot_be_read_is_an_error", run: delete_force_unreadable },
    Test { name: "delete_force_while_a_hook_of_create_hangs", run: delete_force_hanging_create },
    Test { name: "delete_force_while_a_hook_of_start_hangs", run: delete_force_hanging_start },
    Test { name: "delete_force_while_two_starts_hang", run: delete_force_two_starts },
    Test { name: "delete_force_while_a_hook_of_create_hangs_in_a_shared_pid_namespace", run: delete_force_shared_hook },
    Test { name: "delete_force_leaves_another_delete_to_its_hooks", run: delete_force_beside_delete },
    Test { name: "delete_twice", run: delete_twice },
    Test { name: "delete_leaves_what_is_no_container", run: delete_foreign },
    Test { name: "delete_takes_what_a_killed_create_left", run: delete_left },
    Test { name: "run_deletes_its_own_container_only", run: run_deletes_its_own },
    Test { name: "start_that_is_interrupted_undoes_the_container", run: start_interrupted },
    Test { name: "poststop_runs_when_the_pid_file_fails", run: poststop_after_pid_file },
    Test { name: "hooks_die_with_create", run: hooks_die_with_create },
    Test { name: "state_of_one_that_was_asked_too_often", run: asked_too_often },
    Test { name: "status_when_the_main_thread_ended", run: main_thread_ended },
    Test { name: "delete_while_an_exec_runs", run: delete_with_exec },
    Test { name: "pause_and_resume_need_the_right_state", run: pause_states },
    Test { name: "exec_needs_a_running_one", run: exec_states },
    Test { name: "exec_in_a_created_one", run: exec_created },
    Test { name: "umask_of_the_caller", run: umask_of_the_caller },
    Test { name: "state_is_for_its_owner_only", run: modes_of_state },
    Test { name: "ignored_children_of_the_caller", run: ignored_children },
    Test { name: "closed_stdio_of_the_caller", run: closed_stdio },
    Test { name: "working_directory_of_the_caller", run: working_directory },
    Test { name: "signal_during_create_undoes_it", run: signal_during_create },
    Test { name: "signal_during_run_undoes_it", run: signal_during_run },
    Test { name: "signal_during_start_container_of_run_undoes_it", run: signal_during_start_container },
    Test { name: "signals_are_forwarded_by_run", run: forwarded_by_run },
    Test { name: "signals_are_forwarded_by_exec", run: forwarded_by_exec },
    Test { name: "signals_before_the_program_runs_wait_for_it", run: early_signal },
    Test { name: "exit_codes_of_run", run: exit_codes_of_run },
    Test { name: "exit_codes_of_exec", run: exit_codes_of_exec },
    Test { name: "exit_code_after_a_signal", run: exit_code_after_signal },
    Test { name: "exit_code_after_a_realtime_signal", run: exit_code_after_realtime_signal },
    Test { name: "run_goes_on_when_an_orphan_dies_of_a_realtime_signal", run: orphan_of_realtime_signal },
    Test { name: "run_in_the_background", run: run_detached },
    Test { name: "run_keep", run: run_keep },
    Test { name: "run_reaps_orphans", run: run_reaps_orphans },
    Test { name: "exec_in_the_background", run: exec_detached },
    Test { name: "pid_file_of_create_run_and_exec", run: pid_file },
    Test { name: "pid_file_is_relative_to_the_caller", run: pid_file_relative },
    Test { name: "pidfd_socket", run: pidfd_socket },
    Test { name: "preserve_fds_of_exec", run: exec_preserve_fds },
    Test { name: "nothing_stays_resident_after_start", run: nothing_resident },
];

/// Older profiles of engines answer EPERM, not ENOSYS, to calls that they do not know.
fn denied_clone3(ctx: &Context) -> Outcome {
    let outer = sys::denying(libc::SYS_clone3, 0, 0, 0, libc::EPERM);
    let step = || BeforeExec::Seccomp(outer.clone());
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["print", "alive"]).run_command()?.before_exec(step()).run()?.prints("alive\n")?;
    let container = bundle.guest(&["sleep"]).start()?;
    let exec = container.exec_command(&[], &["/bin/guest", "print", "here"]).before_exec(step());
    exec.run()?.prints("here\n")?;
    container.end()
}

/// A bundle whose program sleeps.
fn sleeper(ctx: &Context) -> Outcome<Bundle<'_>> {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["sleep"]);
    Ok(bundle)
}

/// A hook that writes `begun`, then waits for `go`.
struct SlowHook {
    begun: PathBuf,
    go: PathBuf,
}

impl SlowHook {
    fn add(bundle: &mut Bundle<'_>, point: &str) -> Outcome<SlowHook> {
        let dir = bundle.context.new_dir("hook")?;
        let hook = SlowHook { begun: dir.join("begun"), go: dir.join("go") };
        let (begun, go) = (hook.begun.to_string_lossy().into_owned(), hook.go.to_string_lossy().into_owned());
        let args = json!(["guest", "write", begun, "x", ",", "until", go]);
        let mut path = bundle.context.guest.clone();
        if point == "startContainer" {
            // It runs in the container, where the directory is under the same name.
            bundle.mount(&dir.to_string_lossy(), "bind", &dir, &["bind"]);
            path = "/bin/guest".into();
        }
        bundle.push(&format!("/hooks/{point}"), json!({"path": path, "args": args}));
        Ok(hook)
    }

    fn wait_begun(&self, running: &Running) -> Outcome {
        eventually(std::time::Duration::from_secs(20), "the hook begins", || {
            (self.begun.exists() || running.has_ended()).then_some(())
        })?;
        check!(self.begun.exists(), "{} ended before its hook ran: {}", running.shown, running.stderr());
        Ok(())
    }
}

/// Nothing of any container is there: checked at once, before the harness cleans up.
fn nothing_left(ctx: &Context) -> Outcome {
    let state = ctx.state_entries();
    check!(state.is_empty(), "state directories are left: {state:?}");
    for dir in ctx.cgroups.existing(&ctx.cgroup_parent) {
        let inside = fs::read_dir(&dir)?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        let inside: Vec<_> = inside.map(|e| e.path()).collect();
        check!(inside.is_empty(), "cgroups are left: {inside:?}");
        check!(ctx.peer != Peer::Kelson, "the parent cgroup {} is left", dir.display());
    }
    let mounts = crate::harness::leaks::mounts_in(&ctx.dir);
    check!(mounts.is_empty(), "mounts are left: {mounts:?}");
    // Whoever was killed may need a moment to vanish.
    eventually(ctx.patience, "no process is left", || children::orphans().is_empty().then_some(()))
}

// ---- state ---------------------------------------------------------------------------------------------------------

fn statuses(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["until", "/tmp/go"]);
    let container = bundle.create()?;
    check_eq!(container.status()?, "created", "after create");
    let pid = container.pid()?;
    container.start()?.ok()?;
    check_eq!(container.status()?, "running", "after start");
    check_eq!(container.pid()?, pid, "pid after start");
    fs::write(bundle.rootfs.join("tmp/go"), "")?;
    container.wait_status("stopped")?;
    check_eq!(container.wait_exit(pid)?, 0, "exit code that the monitor sees");
    container.delete()?.ok()?;
    container.verb("state").arg(&container.id).run()?.fails()?;
    Ok(())
}

fn killed_from_outside(ctx: &Context) -> Outcome {
    for started in [false, true] {
        let mut bundle = sleeper(ctx)?;
        let container = bundle.create()?;
        if started {
            container.start()?.ok()?;
        }
        let pid = container.pid()?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        container.wait_status("stopped")?;
        check_eq!(container.wait_exit(pid)?, 137, "exit code");
        container.start()?.fails()?;
        container.delete()?.ok()?;
    }
    Ok(())
}

/// The number alone does not tell a process: its start time does too.
fn pid_reused(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let pid = container.pid()?;
    let start = start_ticks(pid)?;
    eventually(ctx.patience, "a tick after the start", || (ticks_since_boot()? > start).then_some(()))?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    container.wait_exit(pid)?;
    // Held, so that nobody reaps it but the end of this test.
    let mut list = children::lock();
    match sys::fork_sleeper_as(pid) {
        Ok(()) => list.manage(pid),
        Err(e) => skip!("cannot make a process with a given PID: {e}"),
    }
    drop(list);
    let result = (|| -> Outcome {
        check_eq!(container.status()?, "stopped", "status while another process has the PID");
        container.kill("KILL")?.fails()?;
        container.delete()?.ok()?;
        container.delete_force()?.ok()?;
        check!(kill(Pid::from_raw(pid), None).is_ok(), "the process that got the PID was killed");
        let state = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        check!(!state.contains(") Z "), "the process that got the PID was killed");
        Ok(())
    })();
    // It may have been killed, which is what the test would have found.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    nix::sys::wait::waitpid(Pid::from_raw(pid), None)?;
    children::lock().release(pid);
    result
}

/// When a process began, in hundredths of a second since boot (proc_pid_stat(5)): two that begin within one are not told apart.
fn start_ticks(pid: i32) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    Ok(fields.split_ascii_whitespace().nth(19).unwrap_or_default().parse()?)
}

fn ticks_since_boot() -> Option<u64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    text.split(' ').next()?.replace('.', "").parse().ok()
}

fn status_creating(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let hook = SlowHook::add(&mut bundle, "createRuntime")?;
    let mut container = bundle.container()?;
    let running = container.create_command()?.spawn()?;
    hook.wait_begun(&running)?;
    let state = container.verb("state").arg(&container.id).run()?.ok()?.json()?;
    check_eq!(state["status"], json!("creating"), "status while a createRuntime hook runs");
    container.kill("KILL")?.fails()?;
    fs::write(&hook.go, "")?;
    running.wait()?.ok()?;
    check_eq!(container.status()?, "created", "status after create");
    container.end()
}

fn state_properties(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/annotations", json!({"org.example.a": "1", "b": "zwei"}));
    let container = bundle.create()?;
    let state = container.state()?;
    // runtime.md#state: what the state complies with, whatever the config does (1.0.2 here).
    if ctx.peer == Peer::Kelson {
        check_eq!(state["ociVersion"], json!("1.3.0"), "ociVersion");
    }
    check_eq!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), true, "ociVersion in {state}");
    check_eq!(state["id"], json!(container.id), "id");
    check_eq!(state["status"], json!("created"), "status");
    check_eq!(state["bundle"], json!(bundle.dir), "bundle");
    check_eq!(state["annotations"], json!({"org.example.a": "1", "b": "zwei"}), "annotations");
    let pid = state["pid"].as_i64().unwrap_or(0);
    check!(PathBuf::from(format!("/proc/{pid}")).exists(), "pid: {state}");
    check_eq!(state["rootfs"], json!(bundle.rootfs), "rootfs");
    let created = state["created"].as_str().unwrap_or_default();
    check!(is_rfc3339(created), "created: {created:?}");
    container.end()
}

/// 2026-11-23T23:08:21.917367Z
pub(super) fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let zone = text.ends_with('Z') || text.len() > 6 && matches!(bytes[text.len() - 6], b'+' | b'-');
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[13] == b':' && bytes[16] == b':' && zone
}

fn state_stopped(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let pid = container.pid()?;
    container.kill("KILL")?.ok()?;
    container.wait_exit(pid)?;
    let state = container.state()?;
    check_eq!(state["status"], json!("stopped"), "status");
    check!(state["pid"].as_i64().unwrap_or(0) == 0, "pid of a stopped container: {state}");
    container.delete()?.ok()?;
    Ok(())
}

/// The record in `file`: its last line.
fn record(file: &Path) -> Outcome<serde_json::Value> {
    let text = fs::read_to_string(file)?;
    Ok(serde_json::from_str(text.lines().next_back().unwrap_or_default())?)
}

/// A record that is being written, or was when its writer was killed, is none yet.
fn record_cut_off(ctx: &Context) -> Outcome {
    ctx.need_kelson("its own records")?;
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let file = ctx.root.join(&container.id).join("state.json");
    let mut text = fs::read(&file)?;
    text.extend_from_slice(b"{\"format\":3,\"id\":\"");
    fs::write(&file, text)?;
    check_eq!(container.status()?, "running", "status, beside a record that is cut off");
    let listed = ctx.runtime().args(["list", "--quiet"]).run()?.ok()?.out();
    check!(listed.contains(&container.id), "list gives {listed}");
    container.end()
}

/// An older runtime must not guess what a newer one wrote.
fn newer_format(ctx: &Context) -> Outcome {
    ctx.need_kelson("a format version in its state")?;
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let file = ctx.root.join(&container.id).join("state.json");
    let before = record(&file)?;
    let mut state = before.clone();
    check!(state["format"].as_u64() >= Some(1), "no format in state.json: {state}");
    state["format"] = json!(1_000_000);
    state["new_property"] = json!({"of": ["a", "newer", "kelson"]});
    fs::write(&file, state.to_string())?;
    for verb in ["state", "start", "pause", "delete"] {
        container.verb(verb).arg(&container.id).run()?.fails_saying(&["format"])?;
    }
    let list = ctx.runtime().args(["list", "--quiet"]).run()?;
    check!(list.signal.is_none(), "list crashed: {}", list.told());
    // The same format with more in it is no reason to fail.
    let mut state = before;
    state["new_property"] = json!({"of": "a newer kelson"});
    fs::write(&file, state.to_string())?;
    check_eq!(container.status()?, "running", "status from a record with an unknown property");
    container.end()
}

/// What the first Kelson wrote, and no more.
fn older_format(ctx: &Context) -> Outcome {
    ctx.need_kelson("a format version in its state")?;
    const MEMBERS: [&str; 14] = [
        "format",
        "id",
        "oci_version",
        "bundle",
        "rootfs",
        "created",
        "owner",
        "creating",
        "pid",
        "start_time",
        "namespaces",
        "pid_namespace_is_new",
        "startable",
        "cgroup",
    ];
    let mut bundle = sleeper(ctx)?;
    let container = bundle.create()?;
    let file = ctx.root.join(&container.id).join("state.json");
    let of_today = record(&file)?;
    let mut state = json!({});
    for member in MEMBERS {
        check!(!of_today[member].is_null(), "no {member} in {of_today}");
        state[member] = of_today[member].clone();
    }
    state["format"] = json!(1);
    fs::write(&file, state.to_string())?;
    check_eq!(container.status()?, "created", "status of a created one");
    check_eq!(json!(container.pid()?), of_today["pid"], "its pid");
    container.start()?.ok()?;
    check_eq!(container.status()?, "running", "status after start");
    container.exec(&["exit", "7"])?.exits(7)?;
    container.pause()?.ok()?;
    check_eq!(container.status()?, "paused", "status after pause");
    container.resume()?.ok()?;
    let listed = ctx.runtime().args(["list", "--quiet"]).run()?.ok()?;
    check_eq!(listed.out().trim(), container.id, "list");
    container.end()
}

// ---- ids -----------------------------------------------------------------------------------------------------------

fn commands_need_an_id(ctx: &Context) -> Outcome {
    let bundle = sleeper(ctx)?;
    bundle.write()?;
    for verb in ["create", "run", "start", "state", "kill", "delete", "exec", "ps", "pause", "resume"] {
        let run = ctx.runtime().arg(verb).cwd(&bundle.dir).run()?.fails()?;
        check!(!run.err().trim().is_empty(), "{verb} without an id says nothing");
    }
    nothing_left(ctx)
}

fn commands_of_a_missing_one(ctx: &Context) -> Outcome {
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
        ctx.runtime().args([verb, "nobody"]).run()?.fails_saying(&["does not exist"])?;
    }
    ctx.runtime().args(["exec", "nobody", "/bin/guest"]).run()?.fails_saying(&["does not exist"])?;
    nothing_left(ctx)
}

fn create_twice(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let pid = container.pid()?;
    for verb in ["create", "run"] {
        let again = container.verb(verb).arg("--bundle").arg(&bundle.dir).arg(&container.id).run()?;
        again.fails_saying(&["exist"])?;
        check_eq!(
            (container.status()?, container.pid()?),
            ("running".into(), pid),
            "the first container after another {verb}"
        );
        check!(!container.cgroup_file("freezer", "cgroup.procs")?.is_empty(), "the first container's cgroup is empty");
    }
    container.end()
}

fn create_over_a_stopped_one(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    container.verb("create").arg("--bundle").arg(&bundle.dir).arg(&container.id).run()?.fails_saying(&["exist"])?;
    container.delete()?.ok()?;
    // The id is free again.
    container.verb("run").arg("--bundle").arg(&bundle.dir).args(["--detach", &container.id]).run()?.ok()?;
    container.end()
}

// ---- create is all or nothing --------------------------------------------------------------------------------------

fn undone(ctx: &Context, bundle: &mut Bundle<'_>, words: &[&str]) -> Outcome {
    let mut container = bundle.container()?;
    container.create()?.fails_saying(words)?;
    nothing_left(ctx)?;
    container.verb("state").arg(&container.id).run()?.fails()?;
    container.forget();
    Ok(())
}

fn undone_mount(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.mount("/mnt", "bind", "/nonexistent/source", &["bind"]);
    undone(ctx, &mut bundle, &["/nonexistent/source"])
}

fn undone_namespace(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.namespace("network", Some("/nonexistent/namespace"));
    undone(ctx, &mut bundle, &["/nonexistent/namespace"])
}

fn undone_cgroup(ctx: &Context) -> Outcome {
    ctx.need_controller("memory")?;
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/resources/memory", json!({"limit": 4096}));
    undone(ctx, &mut bundle, &[])
}

fn undone_hook(ctx: &Context) -> Outcome {
    for point in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = sleeper(ctx)?;
        bundle.push(&format!("/hooks/{point}"), json!({"path": ctx.guest, "args": ["guest", "exit", "9"]}));
        undone(ctx, &mut bundle, &["hook"])?;
    }
    Ok(())
}

fn undone_sysctl(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.no_such_thing": "1"}));
    undone(ctx, &mut bundle, &["no_such_thing"])
}

fn undone_program(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/process/args", json!(["/no/such/program"]));
    undone(ctx, &mut bundle, &["/no/such/program", "no such file or directory"])
}

fn undone_pid_file(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.option("--pid-file").option("/nonexistent/directory/pid");
    undone(ctx, &mut bundle, &[])
}

fn undone_console_socket(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.set("/process/terminal", true).option("--console-socket").option("/nonexistent/socket");
    undone(ctx, &mut bundle, &[])
}

fn undone_listener(ctx: &Context) -> Outcome {
    ctx.need_kelson("refusing a listener that is not there")?;
    let mut bundle = sleeper(ctx)?;
    bundle.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nonexistent/listener",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }),
    );
    undone(ctx, &mut bundle, &["/nonexistent/listener"])
}

// ---- config.json after create --------------------------------------------------------------------------------------

fn config_changes(ctx: &Context) -> Outcome {
    let record = ctx.dir.join("poststop");
    let mut bundle = ctx.bundle()?;
    let hook = |name: &str| json!([{"path": ctx.guest, "args": ["guest", "record", record.to_string_lossy(), name]}]);
    bundle.set("/hooks", json!({"poststop": hook("one")}));
    let mut container = created_and_changed(&mut bundle)?;
    bundle.set("/hooks", json!({"poststop": hook("two")})).write()?;
    container.start()?.ok()?;
    is_unchanged(&container.report()?, "init")?;
    container.end()?;
    let text = fs::read_to_string(&record)?;
    let line: serde_json::Value = serde_json::from_str(text.trim())?;
    check_eq!(line["name"], json!("one"), "the poststop hook that ran");
    Ok(())
}

/// Without --process exec takes what it needs from the configuration, too.
fn config_changes_and_exec(ctx: &Context) -> Outcome {
    let container = created_and_changed(&mut ctx.bundle()?)?;
    container.start()?.ok()?;
    is_unchanged(&container.exec(&["report"])?.ok()?.report()?, "exec")?;
    container.end()
}

/// A container whose config.json says something else since.
fn created_and_changed<'c>(bundle: &mut Bundle<'c>) -> Outcome<Container<'c>> {
    bundle.guest(&["report", ",", "sleep"]).push("/process/env", "VERSION=one").set("/process/cwd", "/tmp");
    let container = bundle.create()?;
    bundle.push("/process/env", "VERSION=two").set("/process/cwd", "/root");
    bundle.set("/process/user", json!({"uid": 7, "gid": 7})).guest(&["report", ",", "exit", "9"]).write()?;
    Ok(container)
}

fn is_unchanged(seen: &crate::harness::Report, whose: &str) -> Outcome {
    check_eq!(seen.env("VERSION").as_deref(), Some("one"), "environment of {whose}");
    check_eq!((seen.text("cwd"), &seen["uids"][0]), ("/tmp".into(), &json!(0)), "cwd and user of {whose}");
    Ok(())
}

fn config_missing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["report", ",", "sleep"]).create()?;
    fs::remove_file(bundle.dir.join("config.json"))?;
    container.start()?.ok()?;
    container.report()?;
    container.exec(&["exit", "0"])?.ok()?;
    check_eq!(container.status()?, "running", "status");
    container.end()
}

/// config.md#process: optional at create, needed at start.
fn without_process(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.remove("/process");
    let mut container = bundle.container()?;
    container.create()?.ok()?;
    check_eq!(container.status()?, "created", "status after create");
    container.start()?.fails_saying(&["process"])?;
    check_eq!(container.status()?, "created", "status after start was refused");
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    let mut container = bundle.container()?;
    container.create()?.ok()?;
    container.delete()?.ok()?;
    bundle.run()?.fails_saying(&["process"])?;
    nothing_left(ctx)
}

// ---- start ---------------------------------------------------------------------------------------------------------

/// A failure of execve(2) reaches `start`: exit code and reason.
fn start_fails(ctx: &Context, change: impl Fn(&Bundle<'_>) -> Outcome, words: &[&str]) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.executable("/bin/program", fs::read(&ctx.guest)?)?;
    bundle.set("/process/args", json!(["/bin/program", "sleep"]));
    let container = bundle.create()?;
    change(&bundle)?;
    container.start()?.fails_saying(words)?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    nothing_left(ctx)
}

fn program_changed(ctx: &Context) -> Outcome {
    start_fails(ctx, |b| Ok(fs::write(b.rootfs.join("bin/program"), "\u{7f}ELFnonsense")?), &["exec format error"])
}

fn program_vanished(ctx: &Context) -> Outcome {
    start_fails(ctx, |b| Ok(fs::remove_file(b.rootfs.join("bin/program"))?), &["no such file or directory"])
}

fn start_running(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let pid = container.pid()?;
    container.start()?.fails()?;
    check_eq!((container.status()?, container.pid()?), ("running".into(), pid), "after a second start");
    container.end()
}

fn start_paused(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    container.pause()?.ok()?;
    container.start()?.fails()?;
    check_eq!(container.status()?, "paused", "status after start was refused");
    container.resume()?.ok()?;
    container.end()
}

fn start_stopped(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    container.start()?.fails_saying(&["stopped"])?;
    check_eq!(container.status()?, "stopped", "status after start was refused");
    container.delete()?.ok()?;
    Ok(())
}

// ---- kill ----------------------------------------------------------------------------------------------------------

fn kill_default(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["signals"]).start()?;
    container.hear("ready")?;
    container.verb("kill").arg(&container.id).run()?.ok()?;
    check_eq!(container.hear("signal")?, json!("SIGTERM"), "signal of kill without one");
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

fn kill_names(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["signals"]).start()?;
    container.hear("ready")?;
    let cases = [
        ("USR1", "SIGUSR1"),
        ("SIGUSR2", "SIGUSR2"),
        ("usr1", "SIGUSR1"),
        ("sighup", "SIGHUP"),
        ("2", "SIGINT"),
        ("28", "SIGWINCH"),
        ("CHLD", "SIGCHLD"),
        ("15", "SIGTERM"),
    ];
    for (given, expected) in cases {
        container.kill(given)?.ok()?;
        check_eq!(container.hear("signal")?, json!(expected), "kill {given}");
    }
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

fn kill_unknown(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    for signal in ["NONSENSE", "SIG", "-1", "65", "9x", "4294967305", ""] {
        container
            .verb("kill")
            .args(["--", &container.id, signal])
            .run()?
            .fails()
            .map_err(|e| e.during(&format!("{signal:?}")))?;
    }
    check_eq!(container.status()?, "running", "status after signals that do not exist");
    container.end()
}

fn kill_created(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.create()?;
    let pid = container.pid()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    check_eq!(container.wait_exit(pid)?, 137, "exit code");
    container.delete()?.ok()?;
    Ok(())
}

/// containerd looks for these words (process/utils.go).
fn kill_stopped(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    for signal in ["KILL", "TERM", "0"] {
        let words = ["container not running", "process already finished", "no such process"];
        container.kill(signal)?.fails_saying_one_of(&words)?;
    }
    container.delete()?.ok()?;
    Ok(())
}

/// Processes in the container's cgroup.
fn processes(container: &Container<'_>) -> Vec<i32> {
    crate::harness::cgroup::processes(&container.cgroup("freezer"))
}

/// A container in the PID namespace of the host, with three children that sleep.
fn with_children<'c>(ctx: &'c Context, bundle: &mut Bundle<'c>) -> Outcome<Container<'c>> {
    ctx.need_controller("freezer")?;
    let mut container = bundle.guest(&["fork", "3", ",", "sleep"]).start()?;
    container.hear("fork")?;
    eventually(ctx.patience, "four processes", || (processes(&container).len() == 4).then_some(()))?;
    Ok(container)
}

fn kill_all_shared(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = with_children(ctx, bundle.without_namespace("pid"))?;
    container.verb("kill").args(["--all", &container.id, "KILL"]).run()?.ok()?;
    eventually(ctx.patience, "all processes end", || processes(&container).is_empty().then_some(()))?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

/// podman: what a container without PID namespace leaves when its first process ends.
fn kill_all_after_init(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = with_children(ctx, bundle.without_namespace("pid"))?;
    kill(Pid::from_raw(container.pid()?), Signal::SIGKILL)?;
    container.wait_status("stopped")?;
    check!(!processes(&container).is_empty(), "the children ended by themselves, the test shows nothing");
    container.verb("kill").args(["--all", &container.id, "9"]).run()?.ok()?;
    eventually(ctx.patience, "all processes end", || processes(&container).is_empty().then_some(()))?;
    container.delete()?.ok()?;
    Ok(())
}

/// Whoever sends it wants the end of the container; any other signal is the first process's business.
fn sigkill_shared(ctx: &Context) -> Outcome {
    ctx.need_kelson("SIGKILL for all without --all (runc from 1.2 has it too)")?;
    let mut bundle = ctx.bundle()?;
    let container = with_children(ctx, bundle.without_namespace("pid"))?;
    container.kill("TERM")?.ok()?;
    container.wait_status("stopped")?;
    check_eq!(processes(&container).len(), 3, "processes after SIGTERM for the first one");
    container.kill("KILL")?.ok()?;
    eventually(ctx.patience, "all processes end", || processes(&container).is_empty().then_some(()))?;
    container.delete()?.ok()?;
    let container = with_children(ctx, &mut bundle)?;
    container.kill("KILL")?.ok()?;
    eventually(ctx.patience, "all processes end", || processes(&container).is_empty().then_some(()))?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

fn kill_all_own(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = with_children(ctx, &mut bundle)?;
    container.verb("kill").args(["-a", &container.id, "9"]).run()?.ok()?;
    eventually(ctx.patience, "all processes end", || processes(&container).is_empty().then_some(()))?;
    container.wait_status("stopped")?;
    let again = container.verb("kill").args(["--all", &container.id, "9"]).run()?;
    check!(again.code == 0 || again.err().contains("not running"), "kill --all of a stopped one: {}", again.told());
    container.delete()?.ok()?;
    Ok(())
}

/// No cgroup.kill does that: process by process.
fn kill_all_term(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = with_children(ctx, bundle.without_namespace("pid"))?;
    container.verb("kill").args(["--all", &container.id, "TERM"]).run()?.ok()?;
    eventually(ctx.patience, "all processes end", || processes(&container).is_empty().then_some(()))?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

/// Its first process stands for all in a PID namespace of its own; nothing tells the others in a shared one.
fn kill_all_without_cgroup(ctx: &Context) -> Outcome {
    ctx.need_kelson("--cgroup-manager disabled and kill --all")?;
    for shared in [false, true] {
        let mut bundle = ctx.bundle()?;
        if shared {
            bundle.without_namespace("pid");
        }
        let mut container = bundle.remove("/linux/resources").guest(&["sleep"]).container()?;
        let create = ctx.runtime().args(["--cgroup-manager", "disabled", "create", "--bundle"]).arg(&bundle.dir);
        create.arg(&container.id).run()?.ok()?;
        container.start()?.ok()?;
        let killed = container.verb("kill").args(["--all", &container.id, "KILL"]).run()?;
        if shared {
            killed.fails_saying(&["no cgroup", "--all"])?;
            check_eq!(container.status()?, "running", "status after kill was refused");
            let deleted = container.delete_force()?.ok()?;
            check!(deleted.err().contains("may live on"), "no warning of what may live on: {}", deleted.told());
        } else {
            killed.ok()?;
            container.wait_status("stopped")?;
            container.delete()?.ok()?;
        }
        container.forget();
    }
    Ok(())
}

/// runtime.md#kill: an error unless it is created or running.
fn kill_all_creating(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let hook = SlowHook::add(&mut bundle, "createRuntime")?;
    let mut container = bundle.container()?;
    let running = container.create_command()?.spawn()?;
    hook.wait_begun(&running)?;
    container.verb("kill").args(["--all", &container.id, "KILL"]).run()?.fails()?;
    fs::write(&hook.go, "")?;
    running.wait()?.ok()?;
    container.start()?.ok()?;
    container.end()
}

// ---- delete --------------------------------------------------------------------------------------------------------

fn delete_running(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let pid = container.pid()?;
    container.delete()?.fails()?;
    check_eq!((container.status()?, container.pid()?), ("running".into(), pid), "after delete was refused");
    container.exec(&["exit", "0"])?.ok()?;
    container.end()
}

fn delete_created(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.create()?;
    container.delete()?.ok()?;
    nothing_left(ctx)
}

fn delete_stopped(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["exit", "0"]).start()?;
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    nothing_left(ctx)
}

fn delete_force_running(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = with_children(ctx, &mut bundle)?;
    let pids = processes(&container);
    container.delete_force()?.ok()?;
    for pid in pids {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        check!(state.is_empty() || state.contains(") Z ") || state.contains(") X "), "process {pid} lives on: {state}");
    }
    nothing_left(ctx)
}

fn delete_force_shared(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = with_children(ctx, bundle.without_namespace("pid"))?;
    container.delete_force()?.ok()?;
    nothing_left(ctx)
}

fn delete_force_missing(ctx: &Context) -> Outcome {
    let run = ctx.runtime().args(["delete", "--force", "nobody"]).run()?.ok()?;
    check_eq!(run.out(), "", "output");
    ctx.runtime().args(["delete", "-f", "nobody"]).run()?.ok()?;
    Ok(())
}

/// A newer Kelson made it, whoever else holds it: it is there all the same.
fn delete_force_unreadable(ctx: &Context) -> Outcome {
    ctx.need_kelson("its own records")?;
    let container = sleeper(ctx)?.create()?;
    let dir = ctx.root.join(&container.id);
    let record = fs::read_to_string(dir.join("state.json"))?;
    let mut newer: Value = serde_json::from_str(record.lines().last().unwrap_or_default())?;
    newer["format"] = json!(99);
    fs::write(dir.join("state.json"), format!("{newer}\n"))?;
    for is_held in [false, true] {
        let holder = fs::File::open(&dir)?;
        if is_held {
            holder.lock()?;
        }
        container.delete_force()?.fails_saying(&["format 99"])?;
    }
    fs::write(dir.join("state.json"), record)?;
    container.end()
}

/// A directory below the root that no container has, as where --root names a wrong place: it is listed nowhere and stays.
fn delete_foreign(ctx: &Context) -> Outcome {
    let file = ctx.root.join("data/papers/letter");
    fs::create_dir_all(ctx.root.join("data/papers"))?;
    fs::write(&file, "dear")?;
    fs::write(ctx.root.join("plain"), "")?;
    let listed = ctx.runtime().args(["list", "-q"]).run()?.ok()?.out();
    for options in [&[][..], &["--force"]] {
        ctx.runtime().arg("delete").args(options).arg("data").run()?;
        check!(file.exists(), "delete {options:?} removed a directory that is no container's");
    }
    check_eq!(listed, "", "list -q");
    if ctx.peer == Peer::Kelson {
        ctx.runtime().args(["delete", "--force", "--regex", "."]).run()?.ok()?;
        check!(file.exists(), "delete --regex removed a directory that is no container's");
        ctx.runtime().args(["delete", "--force", "data"]).run()?.fails_saying(&["papers"])?;
    }
    fs::remove_dir_all(ctx.root.join("data"))?;
    fs::remove_file(ctx.root.join("plain"))?;
    Ok(())
}

/// Before its first record was written: nothing, or a part of that, and a directory for a notify socket. A deletion that was
/// killed leaves a configuration at most.
fn delete_left(ctx: &Context) -> Outcome {
    ctx.need_kelson("its own records")?;
    for (record, option) in [(None, "--force"), (None, "--force=false"), (Some("{\"format\":2,"), "--force")] {
        let dir = ctx.root.join("left");
        fs::create_dir_all(dir.join("notify"))?;
        if let Some(text) = record {
            fs::write(dir.join("state.json"), text)?;
            fs::write(dir.join("config.json"), "{}")?;
        }
        ctx.runtime().args(["delete", option, "left"]).run()?.ok()?;
        check!(!dir.exists(), "delete {option} left the directory with the record {record:?}");
    }
    Ok(())
}

fn delete_twice(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.create()?;
    container.delete()?.ok()?;
    container.delete()?.fails()?;
    container.delete_force()?.ok()?;
    Ok(())
}

fn delete_with_exec(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let mut exec = container.exec_command(&[], &["/bin/guest", "ready", ",", "sleep"]).piped().spawn()?;
    exec.line()?;
    container.delete_force()?.ok()?;
    check_eq!(exec.wait()?.code, 137, "exit code of the exec");
    nothing_left(ctx)
}

fn pause_states(ctx: &Context) -> Outcome {
    ctx.need_controller("freezer")?;
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    container.resume()?.fails()?;
    container.pause()?.ok()?;
    check_eq!(container.status()?, "paused", "status");
    container.pause()?.fails()?;
    container.resume()?.ok()?;
    check_eq!(container.status()?, "running", "status");
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    container.pause()?.fails()?;
    container.resume()?.fails()?;
    container.delete()?.ok()?;
    Ok(())
}

fn exec_states(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    if ctx.cgroups.has("freezer") {
        container.pause()?.ok()?;
        container.exec(&["exit", "0"])?.fails_saying(&["paused"])?;
        container.resume()?.ok()?;
    }
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    container.exec(&["exit", "0"])?.fails_saying_one_of(&["stopped", "not running"])?;
    container.delete()?.ok()?;
    Ok(())
}

/// What engines do before start (`podman exec` of a created container, debuggers).
fn exec_created(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).create()?;
    let seen = container.exec(&["report"])?.ok()?.report()?;
    check!(seen.number("pid") > 1, "pid of exec: {}", seen.number("pid"));
    check_eq!(container.status()?, "created", "status after exec");
    container.start()?.ok()?;
    check_eq!(container.status()?, "running", "status after start");
    container.end()
}

// ---- the caller ----------------------------------------------------------------------------------------------------

/// Modes of what the runtime makes are its own decision.
/// Whatever the caller's umask: the config may hold secrets, and what is in the directories is acted on.
fn modes_of_state(ctx: &Context) -> Outcome {
    ctx.need_kelson("modes of its own files")?;
    let mut bundle = sleeper(ctx)?;
    let id = bundle.container()?.id.clone();
    let root = ctx.dir.join("made/by/create");
    let runtime =
        |verb: &str| ctx.runtime_without_root().arg("--root").arg(&root).arg(verb).before_exec(BeforeExec::Umask(0));
    let null = || -> Outcome<OwnedFd> { Ok(File::options().read(true).write(true).open("/dev/null")?.into()) };
    let create = runtime("create").arg("--bundle").arg(&bundle.dir).arg(&id);
    create.fd(0, null()?).fd(1, null()?).fd(2, null()?).run()?.ok()?;
    let modes = |paths: &[&str]| -> Outcome<Vec<u32>> {
        paths.iter().map(|path| Ok(fs::metadata(root.join(path))?.mode() & 0o7777)).collect()
    };
    let (directories, files) =
        (modes(&["", "..", &id])?, modes(&[&format!("{id}/state.json"), &format!("{id}/config.json")])?);
    runtime("start").arg(&id).run()?.ok()?;
    let started = modes(&[&format!("{id}/state.json")])?;
    runtime("delete").arg("--force").arg(&id).run()?.ok()?;
    check_eq!(directories, [0o700; 3], "modes of directories");
    check_eq!((files, started), (vec![0o600; 2], vec![0o600]), "modes of files, and of state.json after start");
    Ok(())
}

fn umask_of_the_caller(ctx: &Context) -> Outcome {
    for mask in [0, 0o777] {
        let mut bundle = ctx.bundle()?;
        bundle.set("/process/cwd", "/made/for/cwd").mount("/made/for/mount", "tmpfs", "tmpfs", &["nosuid"]);
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).remove("/process/capabilities");
        bundle.guest(&[
            "report",
            ",",
            "stat",
            "/dev/null",
            ",",
            "stat",
            "/made/for",
            ",",
            "stat",
            "/made/for/cwd",
            ",",
            "sleep",
        ]);
        let mut container = bundle.container()?;
        container.create_command()?.before_exec(BeforeExec::Umask(mask)).run()?.ok()?;
        container.verb("start").arg(&container.id).before_exec(BeforeExec::Umask(mask)).run()?.ok()?;
        check_eq!(container.report()?.number("umask"), 0o022, "umask of init, caller's {mask:o}");
        check_eq!(container.hear("stat")?["mode"], json!(0o666), "mode of /dev/null, caller's umask {mask:o}");
        for what in ["a directory for a mount", "the cwd"] {
            check_eq!(container.hear("stat")?["mode"], json!(0o755), "mode of {what}, caller's umask {mask:o}");
        }
        let exec = container.exec_command(&[], &["/bin/guest", "report"]).before_exec(BeforeExec::Umask(mask)).run()?;
        check_eq!(exec.ok()?.report()?.number("umask"), 0o022, "umask of exec, caller's {mask:o}");
        for entry in fs::read_dir(ctx.root.join(&container.id))? {
            let entry = entry?;
            let mode = entry.metadata()?.mode() & 0o777;
            check!(mode & 0o022 == 0, "{} has mode {mode:o}", entry.path().display());
        }
        container.end()?;
    }
    Ok(())
}

/// With SIGCHLD ignored the kernel reaps children itself: their status is lost unless the runtime resets it.
fn ignored_children(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": ctx.guest, "args": ["guest", "exit", "0"]}));
    let ignore = BeforeExec::IgnoreSignal(libc::SIGCHLD);
    bundle.guest(&["exit", "5"]).run_command()?.before_exec(ignore.clone()).run()?.exits(5)?;
    let container = bundle.guest(&["sleep"]).start()?;
    let exec = container.exec_command(&[], &["/bin/guest", "exit", "6"]).before_exec(ignore.clone()).run()?;
    exec.exits(6)?;
    container.verb("delete").args(["--force", &container.id]).before_exec(ignore).run()?.ok()?;
    nothing_left(ctx)
}

/// Descriptors 0 to 2 are closed: what the runtime opens then must not become the container's stdio.
fn closed_stdio(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["record", "/tmp/record", "init", ",", "sleep"]);
    let container = bundle.container()?;
    let script = "exec \"$@\" <&- >&- 2>&-";
    let shell = |verb: &str| {
        ctx.command("/bin/sh").args(["-c", script, "sh"]).arg(&ctx.runtime).arg("--root").arg(&ctx.root).arg(verb)
    };
    shell("run").arg("--bundle").arg(&bundle.dir).args(["--detach", &container.id]).run()?.ok()?;
    shell("exec").args([&container.id, "/bin/guest", "record", "/tmp/record", "exec"]).run()?.ok()?;
    let file = bundle.rootfs.join("tmp/record");
    let lines = eventually(ctx.patience, "both are recorded", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        (text.lines().count() == 2).then_some(text)
    })?;
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        for (number, target) in line["fds"].as_object().into_iter().flatten() {
            // The record's own file is not open yet; nothing of the host may be.
            let target = target.as_str().unwrap_or_default();
            check!(target == "/dev/null", "{}: descriptor {number} is {target:?}", line["name"]);
        }
    }
    container.end()
}

/// Relative paths are the caller's, wherever that is; a directory that is gone hinders nobody.
fn working_directory(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.container()?;
    let dir = ctx.new_dir("cwd")?;
    container.verb("create").args(["--bundle", "../bundle0", &container.id]).cwd(&dir).run()?.ok()?;
    check_eq!(container.state()?["bundle"], json!(bundle.dir), "bundle in the state");
    let gone = |verb: &str| {
        let script = "cd \"$1\" && mkdir gone && cd gone && rmdir ../gone && shift && exec \"$@\"";
        let shell = ctx.command("/bin/sh").args(["-c", script, "sh"]).arg(&dir);
        shell.arg(&ctx.runtime).arg("--root").arg(&ctx.root).args([verb, &container.id])
    };
    gone("start").run()?.ok()?;
    gone("state").run()?.ok()?;
    gone("exec").args(["/bin/guest", "exit", "0"]).run()?.ok()?;
    container.end()
}

// ---- commands that wait for hooks -----------------------------------------------------------------------------------

/// config.json is being carried out: there is nothing to start yet, and nothing that stopped.
fn while_created(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let hook = SlowHook::add(&mut bundle, "createRuntime")?;
    let mut container = bundle.container()?;
    let running = container.create_command()?.spawn()?;
    hook.wait_begun(&running)?;
    container.start()?.fails()?;
    container.delete()?.fails()?;
    check!(!running.has_ended(), "create goes on");
    fs::write(&hook.go, "")?;
    running.wait()?.ok()?;
    check_eq!(container.status()?, "created", "status after create");
    container.end()
}

fn delete_force_hanging_create(ctx: &Context) -> Outcome {
    for point in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = sleeper(ctx)?;
        let hook = SlowHook::add(&mut bundle, point)?;
        let mut container = bundle.container()?;
        let running = container.create_command()?.spawn()?;
        hook.wait_begun(&running)?;
        container.delete_force()?.ok().map_err(|e| e.during(point))?;
        check!(running.wait()?.code != 0, "create says it succeeded after its container was deleted ({point})");
        nothing_left(ctx).map_err(|e| e.during(point))?;
    }
    Ok(())
}

fn delete_force_hanging_start(ctx: &Context) -> Outcome {
    for point in ["startContainer", "poststart"] {
        let mut bundle = sleeper(ctx)?;
        let hook = SlowHook::add(&mut bundle, point)?;
        let container = bundle.create()?;
        let running = container.verb("start").arg(&container.id).spawn()?;
        hook.wait_begun(&running)?;
        container.delete_force()?.ok().map_err(|e| e.during(point))?;
        check!(ctx.state_entries().is_empty(), "the container is there ({point})");
        if point == "poststart" {
            // The container was started: this hook is start's own business.
            fs::write(&hook.go, "")?;
        }
        let run = running.wait()?;
        check!(run.code != 0 || point == "poststart", "start says it succeeded after its container was deleted");
        nothing_left(ctx).map_err(|e| e.during(point))?;
    }
    Ok(())
}

/// The second start finds the container held, or its process not listening; neither is in the way of its end.
fn delete_force_two_starts(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let hook = SlowHook::add(&mut bundle, "startContainer")?;
    let container = bundle.create()?;
    let first = container.verb("start").arg(&container.id).spawn()?;
    hook.wait_begun(&first)?;
    let second = container.verb("start").arg(&container.id).spawn()?;
    container.delete_force()?.ok()?;
    check!(first.wait()?.code != 0, "the first start says it succeeded");
    check!(second.wait()?.code != 0, "the second start says it succeeded");
    nothing_left(ctx)
}

/// What a hook left behind in the host's PID namespace does not end with the container's process.
fn delete_force_shared_hook(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    bundle.without_namespace("pid");
    let hook = SlowHook::add(&mut bundle, "createContainer")?;
    let mut container = bundle.container()?;
    let running = container.create_command()?.spawn()?;
    hook.wait_begun(&running)?;
    container.delete_force()?.ok()?;
    check!(running.wait()?.code != 0, "create says it succeeded");
    nothing_left(ctx)
}

fn delete_force_beside_delete(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let slow = SlowHook::add(&mut bundle, "poststop")?;
    let last = SlowHook::add(&mut bundle, "poststop")?;
    fs::write(&last.go, "")?;
    let container = bundle.start()?;
    let first = container.verb("delete").args(["--force", &container.id]).spawn()?;
    slow.wait_begun(&first)?;
    container.delete_force()?.ok()?;
    check!(!first.has_ended(), "the second delete ended the first one");
    fs::write(&slow.go, "")?;
    first.wait()?.ok()?;
    check!(last.begun.exists(), "the hook after the slow one ran");
    nothing_left(ctx)
}

/// By the time a run comes to delete its container, its id may be another's.
fn run_deletes_its_own(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let mut container = bundle.container()?;
    let run = container.run_command().spawn()?;
    container.wait_status("running")?;
    // It holds the container until it is done with starting it.
    let holds = format!(" {} ", run.pid());
    eventually(ctx.patience, "run lets go of the container", || {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        (!locks.lines().any(|line| line.contains("FLOCK") && line.contains(&holds))).then_some(())
    })?;
    run.signal(libc::SIGSTOP)?;
    container.delete_force()?.ok()?;
    container.create()?.ok()?;
    run.signal(libc::SIGCONT)?;
    run.wait()?;
    check_eq!(container.status()?, "created", "status of the container that took the id");
    container.end()
}

fn start_interrupted(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let hook = SlowHook::add(&mut bundle, "startContainer")?;
    let container = bundle.create()?;
    let start = container.verb("start").arg(&container.id).spawn()?;
    hook.wait_begun(&start)?;
    start.signal(libc::SIGTERM)?;
    check!(start.wait()?.code != 0, "start says it succeeded");
    nothing_left(ctx)
}

fn poststop_after_pid_file(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let before = SlowHook::add(&mut bundle, "createRuntime")?;
    let after = SlowHook::add(&mut bundle, "poststop")?;
    for hook in [&before, &after] {
        fs::write(&hook.go, "")?;
    }
    bundle.option("--pid-file").option("/nonexistent/pid");
    bundle.container()?.create()?.fails()?;
    check!(before.begun.exists() && after.begun.exists(), "hooks: what one did on the host, the other undoes");
    nothing_left(ctx)
}

fn hooks_die_with_create(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let hook = SlowHook::add(&mut bundle, "createRuntime")?;
    let container = bundle.container()?;
    let create = container.verb("create").arg("--bundle").arg(&bundle.dir).arg(&container.id).spawn()?;
    hook.wait_begun(&create)?;
    create.signal(libc::SIGKILL)?;
    create.wait()?;
    let argument = hook.go.to_string_lossy().into_owned();
    let is_hook = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&argument)
    };
    eventually(ctx.patience, "the hook ends", || {
        let mut processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        (!processes.any(|entry| is_hook(&entry))).then_some(())
    })?;
    container.delete_force()?.ok()?;
    nothing_left(ctx)
}

/// Each question for the status of a created container is a connection that its process takes some time.
fn asked_too_often(ctx: &Context) -> Outcome {
    ctx.need_kelson("the start socket")?;
    let mut bundle = sleeper(ctx)?;
    let container = bundle.create()?;
    let pid = Pid::from_raw(container.pid()?);
    kill(pid, Signal::SIGSTOP)?;
    let socket = ctx.root.join(&container.id).join("start");
    let room: usize = fs::read_to_string("/proc/sys/net/core/somaxconn")?.trim().parse()?;
    // One more than the queue holds (listen(2)).
    let full = (0..=room + 1).find_map(|_| sys::connect_at_once(&socket).err());
    check_eq!(full, Some(nix::errno::Errno::EAGAIN), "what the last connection was told");
    check_eq!(container.status()?, "created", "status");
    container.verb("list").run()?.ok()?;
    kill(pid, Signal::SIGCONT)?;
    container.start()?.ok()?;
    container.end()
}

/// pthread_exit(3) of the main thread leaves a zombie that leads threads which live.
fn main_thread_ended(ctx: &Context) -> Outcome {
    ctx.need_kelson("a look at what the zombie leads")?;
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["threads", "1", ",", "leave-main"]);
    let container = bundle.start()?;
    let pid = container.pid()?;
    eventually(ctx.patience, "the main thread ends", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains(") Z ").then_some(())
    })?;
    check_eq!(container.status()?, "running", "status");
    container.end()
}

// ---- signals to the runtime ----------------------------------------------------------------------------------------

fn signal_undoes(ctx: &Context, verb: &str, points: &[&str]) -> Outcome {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        for point in points {
            let mut bundle = sleeper(ctx)?;
            let hook = SlowHook::add(&mut bundle, point)?;
            let container = bundle.container()?;
            let running = container.verb(verb).arg("--bundle").arg(&bundle.dir).arg(&container.id).spawn()?;
            hook.wait_begun(&running)?;
            running.signal(signal)?;
            let run = running.wait()?;
            let what = format!("{verb} got signal {signal} while its {point} hook ran\n  {}", run.told());
            check!(run.code != 0, "{what}, and said it succeeded");
            // The hook itself is part of what is undone.
            nothing_left(ctx).map_err(|e| e.during(&what))?;
        }
    }
    Ok(())
}

fn signal_during_create(ctx: &Context) -> Outcome {
    signal_undoes(ctx, "create", &["createRuntime", "createContainer"])
}

fn signal_during_run(ctx: &Context) -> Outcome {
    signal_undoes(ctx, "run", &["createRuntime", "createContainer"])
}

fn signal_during_start_container(ctx: &Context) -> Outcome {
    signal_undoes(ctx, "run", &["startContainer"])
}

fn forwarded(mut running: Running) -> Outcome {
    check!(running.line()?.contains("ready"), "the guest is ready");
    let signals = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGTERM,
    ];
    for signal in signals {
        running.signal(signal as i32)?;
        // Go's runtime sends itself SIGURG, and runc forwards that too.
        let line = loop {
            let line = running.line()?;
            if !line.contains("SIGURG") {
                break line;
            }
        };
        check!(line.contains(signal.as_str()), "{signal} arrived as {line:?}");
    }
    check_eq!(running.wait()?.code, 0, "exit code of a program that ends on SIGTERM");
    Ok(())
}

fn forwarded_by_run(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    forwarded(bundle.guest(&["signals"]).run_command()?.piped().spawn()?)?;
    nothing_left(ctx)
}

/// One that does not ask to stop is the program's.
fn early_signal(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let hook = SlowHook::add(&mut bundle, "startContainer")?;
    bundle.without_namespace("pid").guest(&["sleep"]);
    let run = bundle.run_command()?.spawn()?;
    hook.wait_begun(&run)?;
    run.signal(libc::SIGUSR1)?;
    fs::write(&hook.go, "")?;
    // As the program's end: run itself ends with a code.
    run.wait()?.exits(128 + libc::SIGUSR1)?;
    nothing_left(ctx)
}

fn forwarded_by_exec(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    forwarded(container.exec_command(&[], &["/bin/guest", "signals"]).piped().spawn()?)?;
    container.end()
}

// ---- exit codes ----------------------------------------------------------------------------------------------------

fn exit_codes_of_run(ctx: &Context) -> Outcome {
    for code in [0, 1, 3, 126, 127, 137, 255] {
        let mut bundle = ctx.bundle()?;
        bundle.guest(&["exit", &code.to_string()]).run()?.exits(code)?;
    }
    nothing_left(ctx)
}

fn exit_codes_of_exec(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    for code in [0, 1, 3, 126, 127, 137, 255] {
        container.exec(&["exit", &code.to_string()])?.exits(code)?;
    }
    container.end()
}

fn exit_code_after_signal(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.container()?;
    let running = container.run_command().spawn()?;
    container.wait_status("running")?;
    let exec = container.exec_command(&[], &["/bin/guest", "ready", ",", "sleep"]).piped();
    let mut exec = exec.spawn()?;
    exec.line()?;
    exec.signal(libc::SIGTERM)?;
    check_eq!(exec.wait()?.code, 143, "exit code of an exec whose program died of SIGTERM");
    container.kill("KILL")?.ok()?;
    check_eq!(running.wait()?.code, 137, "exit code of a run whose program was killed");
    nothing_left(ctx)
}

// ---- run and exec --------------------------------------------------------------------------------------------------

/// SIGRTMIN + 6, for which the C library has no name.
const REALTIME: i32 = 40;

fn exit_code_after_realtime_signal(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let mut exec = container.exec_command(&[], &["/bin/guest", "ready", ",", "sleep"]).piped().spawn()?;
    exec.line()?;
    exec.signal(REALTIME)?;
    check_eq!(exec.wait()?.code, 128 + REALTIME, "exit code of an exec whose program died of signal {REALTIME}");
    container.end()
}

/// Without a PID namespace orphans of the container are the runtime's to reap.
fn orphan_of_realtime_signal(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    // `run` waits until nobody holds its pipe: until the orphan is dead.
    let words = ["run", "/bin/guest", "leave", "raise", &REALTIME.to_string(), ",", "exit", "5"];
    bundle.without_namespace("pid").guest(&words);
    bundle.run()?.exits(5)?;
    nothing_left(ctx)
}

fn run_detached(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.container()?;
    container.verb("run").args(["--detach", "--bundle"]).arg(&bundle.dir).arg(&container.id).run()?.ok()?;
    check_eq!(container.status()?, "running", "status after run --detach");
    let pid = container.pid()?;
    container.kill("KILL")?.ok()?;
    check_eq!(container.wait_exit(pid)?, 137, "exit code that the monitor sees");
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    Ok(())
}

fn run_keep(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.guest(&["exit", "4"]).option("--keep");
    let container = bundle.container()?;
    container.run_command().run()?.exits(4)?;
    check_eq!(container.status()?, "stopped", "status after run --keep");
    container.delete()?.ok()?;
    nothing_left(ctx)
}

/// Without a PID namespace orphans fall to the runtime, which is their subreaper.
fn run_reaps_orphans(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("pid").guest(&["fork", "3", ",", "exit", "2"]);
    bundle.run()?.exits(2)?;
    nothing_left(ctx)
}

fn exec_detached(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let file = ctx.dir.join("exec.pid");
    let options = ["--detach", "--pid-file", &file.to_string_lossy()];
    container.exec_command(&options, &["/bin/guest", "until", "/tmp/go"]).run()?.ok()?;
    let pid: i32 = fs::read_to_string(&file)?.parse()?;
    let inside = crate::harness::cgroup::processes(&container.cgroup("freezer"));
    check!(inside.contains(&pid), "the exec's process {pid} is not in the container's cgroup: {inside:?}");
    fs::write(bundle.rootfs.join("tmp/go"), "")?;
    check_eq!(container.wait_exit(pid)?, 0, "exit code that the monitor sees");
    container.end()
}

fn pid_file(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let file = ctx.dir.join("pid");
    bundle.option("--pid-file").option(&file.to_string_lossy());
    let container = bundle.create()?;
    // conmon reads a number to the end of the file.
    check_eq!(fs::read_to_string(&file)?, container.pid()?.to_string(), "PID file of create");
    container.start()?.ok()?;
    container.end()?;
    fs::remove_file(&file)?;
    let running = bundle.guest(&["until", "/tmp/go"]).run_command()?.spawn()?;
    let pid = eventually(ctx.patience, "the PID file of run", || fs::read_to_string(&file).ok())?;
    check!(PathBuf::from(format!("/proc/{pid}")).exists(), "PID file of run: {pid:?}");
    let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
    check_eq!(mode, 0o644, "mode of the PID file");
    fs::write(bundle.rootfs.join("tmp/go"), "")?;
    running.wait()?.ok()?;
    Ok(())
}

fn pid_file_relative(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let dir = ctx.new_dir("cwd")?;
    let mut container = bundle.container()?;
    container.create_command()?.cwd(&dir).run()?.ok()?;
    container.delete()?.ok()?;
    let container = bundle.container()?;
    let create =
        container.verb("create").args(["--pid-file", "here.pid", "--bundle"]).arg(&bundle.dir).arg(&container.id);
    create.cwd(&dir).run()?.ok()?;
    check_eq!(
        fs::read_to_string(dir.join("here.pid"))?,
        container.pid()?.to_string(),
        "PID file in the caller's directory"
    );
    container.end()
}

/// The descriptor names the very process: fdinfo shows its PID.
fn pidfd_socket(ctx: &Context) -> Outcome {
    ctx.need_kelson("--pidfd-socket (runc from 1.2 has it too)")?;
    let mut bundle = sleeper(ctx)?;
    let path = ctx.dir.join("pidfd.sock");
    let listener = UnixListener::bind(&path)?;
    let receive = |expected: i32, who: &str| -> Outcome {
        check!(crate::harness::command::readable(&listener, ctx.patience), "nobody connects to the pidfd socket");
        let (stream, _) = listener.accept()?;
        let fd = receive_fd(&stream)?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let pid = info.lines().find_map(|l| l.strip_prefix("Pid:")).unwrap_or_default().trim().to_owned();
        check_eq!(pid, expected.to_string(), "process of the pidfd of {who}");
        Ok(())
    };
    bundle.option("--pidfd-socket").option(&path.to_string_lossy());
    let container = bundle.create()?;
    receive(container.pid()?, "create")?;
    container.start()?.ok()?;
    let file = ctx.dir.join("exec.pid");
    let options = ["--detach", "--pidfd-socket", &path.to_string_lossy(), "--pid-file", &file.to_string_lossy()];
    container.exec_command(&options, &["/bin/guest", "until", "/tmp/go"]).run()?.ok()?;
    receive(fs::read_to_string(&file)?.parse()?, "exec")?;
    fs::write(bundle.rootfs.join("tmp/go"), "")?;
    container.end()
}

fn receive_fd(stream: &std::os::unix::net::UnixStream) -> Outcome<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut byte = [0u8; 64];
    let mut buffer = [std::io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut buffer, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let fds = message.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    fds.map(sys::adopt).ok_or_else(|| "no descriptor came over the socket".into())
}

fn exec_preserve_fds(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let text = ctx.dir.join("text");
    fs::write(&text, "three")?;
    let words = ["/bin/guest", "report", ",", "fd-read", "3"];
    let exec =
        container.exec_command(&["--preserve-fds", "1"], &words).fd(3, File::open(&text)?).fd(4, File::open("/")?);
    let run = exec.run()?.ok()?;
    check_eq!(run.said("fd-read")?["text"], json!("three"), "content of descriptor 3");
    let numbers: Vec<i32> = run.report()?.descriptors().iter().map(|d| d.0).collect();
    check_eq!(numbers, [0, 1, 2, 3], "descriptors of exec");
    container.end()
}

/// Memory of a host with a thousand containers: the runtime is gone once the program runs.
fn nothing_resident(ctx: &Context) -> Outcome {
    let mut bundle = sleeper(ctx)?;
    let container = bundle.start()?;
    let pid = container.pid()?;
    let others = children::orphans();
    check_eq!(others, [pid], "processes that fell to the caller after start");
    let is_guest = || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("guest"));
    if ctx.peer == Peer::Kelson {
        check!(is_guest(), "start came back before the program ran");
    }
    // Others' start does not wait for it.
    eventually(ctx.patience, "the program runs", || is_guest().then_some(()))?;
    container.end()
}
