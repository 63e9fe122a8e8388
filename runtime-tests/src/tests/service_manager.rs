//! The systemd driver where something is wrong with systemd or the way to it: errors that name it, within their time, and nothing
//! that is left. The manager is the test's own.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::rootless::rootless;
use crate::harness::service_manager::{Answer, Call, ServiceManager};
use crate::harness::{Bundle, Cmd, Context, Outcome, Run, Test, eventually};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "a_job_that_fails_is_named_with_its_result", run: failed_job },
    Test { name: "a_job_that_hangs_is_named_with_its_state", run: hanging_job },
    Test { name: "a_manager_that_is_silent_is_not_waited_for_for_ever", run: silent_manager },
    Test { name: "what_the_manager_refuses_is_quoted", run: refusals },
    Test { name: "a_unit_that_failed_before_is_reset", run: reset },
    Test { name: "a_bus_that_goes_ends_the_command", run: lost_bus },
    Test { name: "a_bus_that_comes_back_is_asked_again", run: bus_again },
    Test { name: "a_unit_that_was_made_without_an_answer_is_taken", run: made_without_an_answer },
    Test { name: "update_asks_the_manager_before_it_writes", run: update_asks_first },
    Test { name: "a_signal_ends_the_wait_for_a_job", run: interrupted_job },
    Test { name: "a_signal_ends_the_wait_for_a_silent_manager", run: interrupted_silence },
    Test { name: "without_a_bus_the_way_out_is_named", run: no_bus },
    Test { name: "without_a_session_the_way_out_is_named", run: no_session },
    Test { name: "a_users_job_that_fails_is_named_with_its_result", run: failed_job_of_a_user },
];

/// As in runc: how long a job or a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// `create` of a container in the scope `kelson-test-ID.scope` of the manager at `address`; nothing may be left.
fn create<'c>(ctx: &'c Context, bundle: &mut Bundle<'c>, address: &str) -> Outcome<(Run, String)> {
    create_with(ctx, bundle, "DBUS_SYSTEM_BUS_ADDRESS", address)
}

fn create_with<'c>(ctx: &'c Context, bundle: &mut Bundle<'c>, variable: &str, value: &str) -> Outcome<(Run, String)> {
    let (command, unit) = command(ctx, bundle, variable, value)?;
    let run = command.run()?;
    check_nothing_left(ctx, &run)?;
    Ok((run, unit))
}

/// The command, and the unit that it asks for.
fn command<'c>(ctx: &'c Context, bundle: &mut Bundle<'c>, variable: &str, value: &str) -> Outcome<(Cmd<'c>, String)> {
    let container = bundle.container()?;
    bundle.set("/linux/cgroupsPath", format!("system.slice:kelson-test:{}", container.id)).write()?;
    let command =
        ctx.runtime().arg("--systemd-cgroup").args(["create", "--bundle"]).arg(&bundle.dir).arg(&container.id);
    let command = command.env(variable, value).deadline(4 * TIMEOUT + ctx.patience);
    Ok((command, format!("kelson-test-{}.scope", container.id)))
}

fn check_nothing_left(ctx: &Context, run: &Run) -> Outcome {
    let left = ctx.state_entries();
    check!(left.is_empty(), "state directories are left: {left:?}\n  {}", run.told());
    Ok(())
}

/// One whose stops are done at once, and whose starts are what `start` says.
fn manager(ctx: &Context, start: impl Fn() -> Answer + Send + Sync + 'static) -> Outcome<ServiceManager> {
    ServiceManager::start(ctx, move |call| if call.member == "StartTransientUnit" { start() } else { otherwise(call) })
}

fn otherwise(call: &Call) -> Answer {
    match (call.member.as_str(), call.path.rsplit('/').next()) {
        ("StopUnit", _) => Answer::Job("done"),
        ("GetUnit", _) => Answer::Error("org.freedesktop.systemd1.NoSuchUnit", "Unit not loaded."),
        // `first` is the interface.
        ("Get", Some("systemd1")) => Answer::Property("/user.slice/user-61000.slice/user@61000.service".into()),
        ("Get", Some("7")) => {
            Answer::Property(if call.first.ends_with(".Job") { "waiting".into() } else { String::new() })
        }
        _ => Answer::Nothing,
    }
}

fn failed_job(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    let mut bundle = ctx.bundle()?;
    for result in ["failed", "timeout", "canceled", "dependency"] {
        let manager = manager(ctx, move || Answer::Job(result))?;
        let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
        run.exits(1)?.fails_saying(&[&unit, &format!("ended with \"{result}\""), "journalctl"])?;
        let expected = [format!("StartTransientUnit {unit}"), format!("StopUnit {unit}")];
        check_eq!(manager.calls()[..2], expected, "calls");
    }
    Ok(())
}

fn hanging_job(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    let mut bundle = ctx.bundle()?;
    let manager = manager(ctx, || Answer::HangingJob)?;
    let begun = Instant::now();
    let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
    let took = begun.elapsed();
    let run = run.exits(1)?.fails_saying(&[&unit, "job 7", "waiting", "not done after 30 s", "list-jobs"])?;
    check!(took >= TIMEOUT && took < 2 * TIMEOUT, "it took {took:?}\n  {}", run.told());
    let calls = manager.calls();
    check!(calls.contains(&format!("StopUnit {unit}")), "the unit is not stopped: {calls:?}");
    Ok(())
}

fn silent_manager(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    let mut bundle = ctx.bundle()?;
    let manager = manager(ctx, || Answer::Silence)?;
    let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
    run.exits(1)?.fails_saying(&[&unit, "StartTransientUnit", "no answer in 30."])?;
    Ok(())
}

fn refusals(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    let mut bundle = ctx.bundle()?;
    for (name, text, words) in [
        ("org.freedesktop.systemd1.UnitExists", "Unit x exists.", &["linux.cgroupsPath", "exists already"][..]),
        ("org.freedesktop.DBus.Error.AccessDenied", "Permission denied", &["Permission denied", "only root may"]),
        (
            "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
            "Interactive authentication required.",
            &["Interactive authentication required.", "enable-linger"],
        ),
        // That of the process is no limit that a file has as well.
        (
            "org.freedesktop.DBus.Error.PropertyReadOnly",
            "Cannot set property PIDs, or unknown property.",
            &["Cannot set property PIDs", "PropertyReadOnly"],
        ),
    ] {
        let manager = manager(ctx, move || Answer::Error(name, text))?;
        let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
        run.exits(1)?.fails_saying(&[&[unit.as_str()], words].concat())?;
        let calls = manager.calls();
        // What another has is not ours to stop.
        check!(!calls.iter().any(|call| call.starts_with("StopUnit")), "{name}: {calls:?}");
    }
    Ok(())
}

/// The second try is refused too, or the test would need a manager that makes cgroups.
fn reset(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    let mut bundle = ctx.bundle()?;
    let manager = manager(ctx, || Answer::Error("org.freedesktop.systemd1.UnitExists", "Unit x exists."))?;
    let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
    run.fails()?;
    let start = format!("StartTransientUnit {unit}");
    check_eq!(manager.calls(), [start.clone(), format!("ResetFailedUnit {unit}"), start], "calls");
    Ok(())
}

fn lost_bus(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    let mut bundle = ctx.bundle()?;
    let manager = manager(ctx, || Answer::Gone)?;
    let begun = Instant::now();
    let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
    let run = run.exits(1)?.fails_saying(&[&unit, "StartTransientUnit", "the other side closed the connection"])?;
    check!(begun.elapsed() < TIMEOUT, "it took {:?}\n  {}", begun.elapsed(), run.told());
    Ok(())
}

fn bus_again(ctx: &Context) -> Outcome {
    ctx.need_kelson("asking again")?;
    let mut bundle = ctx.bundle()?;
    let asked = AtomicU32::new(0);
    let manager = manager(ctx, move || match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Gone,
        // Or the test would need a manager that makes cgroups.
        _ => Answer::Job("failed"),
    })?;
    let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
    run.exits(1)?.fails_saying(&[&unit, "ended with \"failed\""])?;
    let start = format!("StartTransientUnit {unit}");
    check_eq!(manager.calls()[..3], [start.clone(), start, format!("StopUnit {unit}")], "calls");
    Ok(())
}

/// The second call finds that the first made the unit: it is this container's, by its description, or another's.
fn made_without_an_answer(ctx: &Context) -> Outcome {
    ctx.need_kelson("asking again")?;
    let mut bundle = ctx.bundle()?;
    for (description, is_own) in [("kelson container ", true), ("another container ", false)] {
        let (starts, gets, named) = (AtomicU32::new(0), AtomicU32::new(0), Mutex::new(String::new()));
        let manager = ServiceManager::start(ctx, move |call| {
            let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
            match call.member.as_str() {
                "StartTransientUnit" if starts.fetch_add(1, Ordering::SeqCst) == 0 => Answer::Gone,
                "StartTransientUnit" => Answer::Error("org.freedesktop.systemd1.UnitExists", "Unit x exists."),
                "GetUnit" => {
                    named.clone_from(&call.first);
                    Answer::Object("/unit/made".into())
                }
                // Description, job and state; the description again, when all is undone.
                "Get" => match gets.fetch_add(1, Ordering::SeqCst) {
                    1 => Answer::Property("none".into()),
                    2 => Answer::Property("active".into()),
                    _ => {
                        let id = named.trim_start_matches("kelson-test-").trim_end_matches(".scope");
                        Answer::Property(format!("{description}{id}"))
                    }
                },
                _ => otherwise(call),
            }
        })?;
        let (run, unit) = create(ctx, &mut bundle, &manager.address)?;
        let run = run.exits(1)?;
        let stops = manager.calls().iter().filter(|call| **call == format!("StopUnit {unit}")).count();
        if is_own {
            // The manager makes no cgroup.
            run.fails_saying(&["look for cgroup", &unit])?;
            check_eq!(stops, 1, "stops of the unit");
        } else {
            run.fails_saying(&["linux.cgroupsPath", "exists already"])?;
            check_eq!(stops, 0, "stops of another's unit");
        }
    }
    Ok(())
}

/// The slice of a unit that the test makes in place of a manager.
struct Slice(PathBuf);

impl Drop for Slice {
    fn drop(&mut self) {
        // With a systemd it has other units as well.
        let _ = fs::remove_dir(&self.0);
    }
}

/// A limit below what is in use is written for none: v2 would kill for it, and v1 says that it is refused.
fn update_asks_first(ctx: &Context) -> Outcome {
    ctx.need_kelson("asking before it writes")?;
    ctx.need_controller("memory")?;
    ctx.systemd.store(true, Ordering::Relaxed);
    let root = ctx.cgroups.dir("name=systemd").or(ctx.cgroups.mounts.first().cloned());
    let slice = Slice(root.ok_or("no cgroup hierarchy")?.join("system.slice"));
    let path = slice.0.clone();
    let manager = ServiceManager::start(ctx, move |call| match call.member.as_str() {
        "StartTransientUnit" if fs::create_dir_all(path.join(&call.first)).is_ok() => Answer::Job("done"),
        _ => otherwise(call),
    })?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["hold", "64", ",", "sleep"]).container()?;
    let unit = ctx.unit(&container.id);
    let create = container.create_command()?.env("DBUS_SYSTEM_BUS_ADDRESS", &manager.address).run()?;
    check!(create.code == 0, "create failed: {}", container.stderr());
    container.start()?.ok()?;
    container.hear("hold")?;
    // There is no bus, or the manager has no such unit.
    for (address, cause) in
        [("unix:path=/nonexistent", "no such file or directory"), (manager.address.as_str(), "is gone")]
    {
        let update = container.verb("update").args(["--memory", "8M", "--memory-swap", "8M"]).arg(&container.id);
        let run = update.env("DBUS_SYSTEM_BUS_ADDRESS", address).run()?;
        run.exits(1)?.fails_saying(&[&format!("change {unit}"), cause])?;
        check_eq!(container.status()?, "running", "status");
    }
    let delete = container.verb("delete").args(["--force", &container.id]);
    delete.env("DBUS_SYSTEM_BUS_ADDRESS", &manager.address).run()?.ok()?;
    container.forget();
    Ok(())
}

/// Asks create to end once the manager has been asked to start the unit.
fn interrupted(ctx: &Context, manager: &ServiceManager, signal: Signal) -> Outcome<(Run, String)> {
    let mut bundle = ctx.bundle()?;
    let (command, unit) = command(ctx, &mut bundle, "DBUS_SYSTEM_BUS_ADDRESS", &manager.address)?;
    let running = command.spawn()?;
    let asked = || manager.calls().contains(&format!("StartTransientUnit {unit}")).then_some(());
    eventually(ctx.patience, "the manager is asked to start the unit", asked)?;
    let begun = Instant::now();
    running.signal(signal as i32)?;
    let run = running.wait()?.exits(1)?.fails_saying(&[&format!("interrupted by {signal}")])?;
    let took = begun.elapsed();
    check!(took < TIMEOUT / 2, "it took {took:?}\n  {}", run.told());
    check_nothing_left(ctx, &run)?;
    Ok((run, unit))
}

fn interrupted_job(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let manager = manager(ctx, || Answer::HangingJob)?;
        let (run, unit) = interrupted(ctx, &manager, signal)?;
        // In place of the job that starts it.
        let calls = manager.calls();
        check!(calls.contains(&format!("StopUnit {unit}")), "the unit is not stopped: {calls:?}");
        check_eq!(run.err().lines().count(), 1, "lines\n  {}", run.told());
    }
    Ok(())
}

fn interrupted_silence(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    // It may answer what comes later, or nothing at all any more.
    let later = manager(ctx, || Answer::Silence)?;
    interrupted(ctx, &later, Signal::SIGTERM)?;
    let never = ServiceManager::start(ctx, |_| Answer::Silence)?;
    interrupted(ctx, &never, Signal::SIGTERM)?;
    Ok(())
}

fn no_bus(ctx: &Context) -> Outcome {
    ctx.need_kelson("messages of its own")?;
    let mut bundle = ctx.bundle()?;
    let gone = ctx.dir.join("gone");
    for (address, words) in [
        (
            format!("unix:path={}", gone.display()),
            &["gone", "no such file or directory", "DBUS_SYSTEM_BUS_ADDRESS"][..],
        ),
        ("tcp:host=localhost,port=1".into(), &["no unix socket in the address", "unix:path="]),
    ] {
        let (run, _) = create(ctx, &mut bundle, &address)?;
        run.exits(1)?.fails_saying(words)?;
    }
    if !std::path::Path::new("/run/systemd/system").exists() {
        let (run, _) = create(ctx, &mut bundle, "")?;
        run.exits(1)?.fails_saying(&["system_bus_socket", "systemd does not run this host", "cgroupfs"])?;
    }
    Ok(())
}

fn no_session(ctx: &Context) -> Outcome {
    ctx.need_kelson("messages of its own")?;
    let mut bundle = rootless(ctx)?;
    if !ctx.is_v2() {
        let (run, _) = create_with(ctx, &mut bundle, "XDG_RUNTIME_DIR", "")?;
        run.exits(1)?.fails_saying(&["--systemd-cgroup", "cgroup v1", "cgroupfs"])?;
        return Ok(());
    }
    let (run, _) = create_with(ctx, &mut bundle, "XDG_RUNTIME_DIR", "")?;
    run.exits(1)?.fails_saying(&["nor XDG_RUNTIME_DIR is set", "ssh or machinectl", "loginctl enable-linger"])?;
    // The user's directory is there, and no bus in it.
    let (run, _) = create_with(ctx, &mut bundle, "DBUS_SESSION_BUS_ADDRESS", "")?;
    run.exits(1)?.fails_saying(&["/bus: no such file or directory", "install dbus-user-session", "enable-linger"])?;
    let (run, _) = create_with(ctx, &mut bundle, "DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere/bus")?;
    run.exits(1)?.fails_saying(&["/nowhere/bus", "DBUS_SESSION_BUS_ADDRESS"])?;
    Ok(())
}

fn failed_job_of_a_user(ctx: &Context) -> Outcome {
    ctx.need_kelson("a service manager of the test's own")?;
    ctx.need_v2()?;
    let mut bundle = rootless(ctx)?;
    let manager = manager(ctx, || Answer::Job("failed"))?;
    let (run, unit) = create_with(ctx, &mut bundle, "DBUS_SESSION_BUS_ADDRESS", &manager.address)?;
    run.exits(1)?.fails_saying(&[&unit, "ended with \"failed\""])?;
    let calls = manager.calls();
    check!(calls.contains(&format!("StopUnit {unit}")), "the unit is not stopped: {calls:?}");
    Ok(())
}
