//! `top`: what the containers of a root use, as a table, as JSON, and on a terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::termios::{self, Termios};

use crate::harness::{Cmd, Container, Context, Lines, Outcome, Running, Test, Value, eventually, json};
use crate::{check, check_eq, sys};

pub const TESTS: &[Test] = &[
    Test { name: "once_as_json", run: once_json },
    Test { name: "once_as_a_table", run: once_table },
    Test { name: "goes_on_without_a_terminal", run: goes_on },
    Test { name: "lists_what_has_processes", run: lists_what_has_processes },
    Test { name: "one_that_cannot_be_read_is_named", run: unreadable },
    Test { name: "terminal_is_drawn_anew_until_q", run: drawn_until_q },
    Test { name: "terminal_is_restored_by_interrupt_and_signal", run: restored },
    Test { name: "terminal_is_restored_while_it_is_stopped", run: stopped },
    Test { name: "terminal_cuts_what_has_no_room", run: cut },
];

const MIB: u64 = 1024 * 1024;

fn top(ctx: &Context) -> Cmd<'_> {
    ctx.runtime().arg("top")
}

/// One that computes for a minute and has limits, and one that sleeps.
fn two(ctx: &Context) -> Outcome<(Container<'_>, Container<'_>)> {
    ctx.need_kelson("top")?;
    for controller in ["cpu", "memory", "pids"] {
        ctx.need_controller(controller)?;
    }
    let mut bundle = ctx.bundle()?;
    let mut sleeper = bundle.guest(&["ready", ",", "sleep"]).start()?;
    sleeper.hear("ready")?;
    bundle
        .set("/linux/resources/memory", json!({"limit": 64 * MIB}))
        .set("/linux/resources/cpu", json!({"quota": 10000, "period": 100_000}))
        .set("/linux/resources/pids", json!({"limit": 50}));
    let mut burner = bundle.guest(&["ready", ",", "burn", "60000"]).start()?;
    burner.hear("ready")?;
    Ok((burner, sleeper))
}

fn once_json(ctx: &Context) -> Outcome {
    let (burner, sleeper) = two(ctx)?;
    let run = top(ctx).args(["--once", "--json", "--interval", "500ms"]).run()?.ok()?;
    check!(run.took >= Duration::from_millis(500), "it took {:?}", run.took);
    let document = run.json()?;
    check_eq!(document["interval_seconds"], json!(0.5), "interval");
    check_eq!(document["errors"], json!([]), "errors");
    let ids: Vec<&Value> = document["containers"].as_array().into_iter().flatten().map(|one| &one["id"]).collect();
    check_eq!(ids, [&json!(burner.id), &json!(sleeper.id)], "ids, the busiest first");
    let (first, second) = (&document["containers"][0], &document["containers"][1]);
    check_eq!(first["status"], "running", "status");
    check_eq!(first["pid"], burner.pid()?, "PID");
    let percent = first["cpu"]["percent"].as_f64().unwrap_or(0.0);
    // Its quota is a tenth of a CPU; a period more may be in the half second.
    check!((0.5..=40.0).contains(&percent), "{}", first["cpu"]);
    check!(first["cpu"]["throttled_percent"].as_f64().is_some(), "{}", first["cpu"]);
    check!(first["cpu"]["usage_nanoseconds"].as_u64() > Some(0), "{}", first["cpu"]);
    check_eq!(second["cpu"]["throttled_percent"], Value::Null, "throttled without a quota");
    check!(second["cpu"]["percent"].as_f64().is_some_and(|percent| percent < 5.0), "{}", second["cpu"]);
    check_eq!(first["memory"]["limit_bytes"], json!(64 * MIB), "memory limit");
    check!(first["memory"]["usage_bytes"].as_u64() > Some(0), "{}", first["memory"]);
    check!(first["memory"]["percent"].as_f64().is_some(), "{}", first["memory"]);
    check_eq!(second["memory"]["limit_bytes"], Value::Null, "no memory limit");
    check_eq!(first["pids"], json!({"current": 1, "limit": 50}), "PIDs");
    check_eq!(second["pids"]["current"], 1, "PIDs");
    // systemd sets DefaultTasksMax= where nothing is asked for.
    check_eq!(second["pids"]["limit"].is_null(), !ctx.has_systemd(), "limit of PIDs: {}", second["pids"]);
    check!(first["io"]["read_bytes_per_second"].is_u64(), "{}", first["io"]);
    let has_peak = !ctx.is_v2() || ctx.kernel() >= (5, 19);
    check_eq!(first["memory"]["peak_bytes"].is_u64(), has_peak, "peak: {}", first["memory"]);
    // On a hybrid host too.
    let mut dirs = ctx.cgroups.existing(&ctx.cgroup_parent);
    dirs.push(burner.cgroup("cpu"));
    let has_pressure = dirs.iter().any(|dir| dir.join("cpu.pressure").exists());
    for what in ["cpu", "memory", "io"] {
        check_eq!(first["pressure"][what].is_number(), has_pressure, "pressure: {}", first["pressure"]);
    }
    burner.end()?;
    sleeper.end()
}

fn once_table(ctx: &Context) -> Outcome {
    let (burner, sleeper) = two(ctx)?;
    let text = top(ctx).args(["--once", "--interval", "200ms"]).run()?.ok()?.out();
    let lines: Vec<&str> = text.lines().collect();
    check_eq!(lines.len(), 4, "lines of {text}");
    check!(lines[0].starts_with("2 containers in ") && lines[0].contains("the last 200ms"), "{}", lines[0]);
    for column in ["ID", "CPU%", "THROT%", "MEMORY", "LIMIT", "PEAK", "PSI:CPU", "PIDS", "READ/s"] {
        check!(lines[1].split_whitespace().any(|word| word == column), "no {column} in {}", lines[1]);
    }
    check!(lines[2].starts_with(&burner.id) && lines[2].contains("64.0M") && lines[2].contains("1/50"), "{}", lines[2]);
    check!(lines[3].starts_with(&sleeper.id), "{}", lines[3]);
    burner.end()?;
    sleeper.end()
}

fn goes_on(ctx: &Context) -> Outcome {
    let (burner, sleeper) = two(ctx)?;
    let mut running = top(ctx).args(["--json", "--interval=100ms"]).piped().spawn()?;
    let mut used = vec![];
    for _ in 0..3 {
        let document: Value = serde_json::from_str(&running.line()?)?;
        let found = document["containers"].as_array().into_iter().flatten().find(|one| one["id"] == burner.id);
        used.push(found.and_then(|one| one["cpu"]["usage_nanoseconds"].as_u64()).unwrap_or(0));
    }
    check!(used.is_sorted() && used[0] > 0, "CPU time does not grow: {used:?}");
    // Its reader goes.
    running.lines = None;
    running.wait()?.exits(1)?.fails_saying(&["broken pipe"])?;
    // A table and an empty line.
    let mut running = top(ctx).args(["--interval=100ms"]).piped().spawn()?;
    for _ in 0..2 {
        check!(running.line()?.starts_with("2 containers in "), "no head");
        let rest = (0..4).map(|_| running.line()).collect::<Outcome<Vec<_>>>()?;
        check_eq!(rest[3], "", "what parts two tables");
    }
    drop(running);
    burner.end()?;
    sleeper.end()
}

fn ids(ctx: &Context) -> Outcome<Vec<String>> {
    let document = top(ctx).args(["--once", "--json", "--interval", "1ms"]).run()?.ok()?.json()?;
    check_eq!(document["errors"], json!([]), "errors");
    let all = document["containers"].as_array().cloned().unwrap_or_default();
    let shown = |one: &Value| format!("{} {}", one["id"].as_str().unwrap_or(""), one["status"].as_str().unwrap_or(""));
    Ok(all.iter().map(shown).collect())
}

fn lists_what_has_processes(ctx: &Context) -> Outcome {
    ctx.need_kelson("top")?;
    check!(ids(ctx)?.is_empty(), "there are containers");
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.guest(&["sleep"]).container()?;
    container.create()?.ok()?;
    check_eq!(ids(ctx)?, [format!("{} created", container.id)], "a created one");
    container.start()?.ok()?;
    container.pause()?.ok()?;
    check_eq!(ids(ctx)?, [format!("{} paused", container.id)], "a paused one");
    container.resume()?.ok()?;
    container.kill("KILL")?.ok()?;
    container.wait_status("stopped")?;
    check!(ids(ctx)?.is_empty(), "a stopped one is listed");
    container.delete()?.ok()?;
    ctx.runtime_without_root()
        .args(["--root", "/nonexistent", "top", "--once"])
        .run()?
        .fails_saying(&["/nonexistent"])?;
    Ok(())
}

fn unreadable(ctx: &Context) -> Outcome {
    ctx.need_kelson("top")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).container()?;
    let command = ctx.runtime().args(["--cgroup-manager", "disabled", "run", "-d", "--bundle"]);
    let (null, out) = (std::fs::File::open("/dev/null")?, std::fs::File::create(ctx.next_io())?);
    let run = command.arg(&container.bundle).arg(&container.id).fd(0, null).fd(1, out.try_clone()?).fd(2, out).run()?;
    check_eq!(run.code, 0, "exit code of run");
    let document = top(ctx).args(["--once", "--json", "--interval", "1ms"]).run()?.ok()?.json()?;
    check_eq!(document["errors"][0]["id"], json!(container.id), "errors");
    let said = document["errors"][0]["error"].as_str().unwrap_or_default();
    check!(said.contains("has no cgroup"), "{said}");
    container.end()
}

/// `top` on a terminal of 24 lines, its other end, and its modes before.
struct OnTerminal {
    running: Running,
    main: OwnedFd,
    peer: OwnedFd,
    before: Termios,
    output: Lines,
    seen: String,
    patience: Duration,
}

impl OnTerminal {
    fn new(ctx: &Context, columns: u16) -> Outcome<Self> {
        ctx.need_kelson("top")?;
        let (main, peer) = sys::open_pty()?;
        sys::set_window_size(main.as_fd(), 24, columns)?;
        let before = termios::tcgetattr(&peer)?;
        let running = top(ctx).args(["--interval", "100ms"]).on_terminal(peer.try_clone()?).spawn()?;
        let output = Lines::new(main.try_clone()?);
        Ok(Self { running, main, peer, before, output, seen: String::new(), patience: ctx.patience })
    }

    /// Waits until `text` came, after what was waited for before.
    fn wait_for(&mut self, text: &str) -> Outcome {
        let end = Instant::now() + self.patience;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            check!(Instant::now() < end, "no {text:?} in {:?}", self.seen);
            let more = self.output.some(self.patience).map_err(|e| e.during(&format!("waiting for {text:?}")))?;
            self.seen += &String::from_utf8_lossy(&more);
        }
    }

    fn press(&self, keys: &str) -> Outcome {
        nix::unistd::write(&self.main, keys.as_bytes())?;
        Ok(())
    }

    fn is_restored(&self) -> Outcome<bool> {
        let now = termios::tcgetattr(&self.peer)?;
        Ok((now.input_flags, now.output_flags, now.local_flags)
            == (self.before.input_flags, self.before.output_flags, self.before.local_flags))
    }

    /// Expects that it ends with `code`, and leaves the terminal as it was.
    fn ends(mut self, code: i32) -> Outcome {
        self.wait_for(LEAVE)?;
        check!(self.is_restored()?, "the modes of the terminal are others");
        self.running.wait()?.exits(code)?;
        Ok(())
    }
}

/// Leaves the alternate screen.
const LEAVE: &str = "\x1b[?1049l";

fn drawn_until_q(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let mut terminal = OnTerminal::new(ctx, 200)?;
    terminal.wait_for("\x1b[?1049h")?;
    // The first has no interval behind it, the second has.
    for _ in 0..2 {
        terminal.wait_for("\x1b[H1 container in ")?;
        terminal.wait_for(&container.id)?;
    }
    check!(!terminal.is_restored()?, "keys would be echoed");
    container.end()?;
    terminal.wait_for("\x1b[H0 containers in ")?;
    terminal.press("x")?;
    terminal.wait_for("\x1b[H0 containers in ")?;
    terminal.press("q")?;
    terminal.ends(0)
}

fn restored(ctx: &Context) -> Outcome {
    let mut terminal = OnTerminal::new(ctx, 80)?;
    terminal.wait_for("\x1b[H0 containers in ")?;
    terminal.press("\x03")?;
    terminal.ends(0)?;
    let mut terminal = OnTerminal::new(ctx, 80)?;
    terminal.wait_for("\x1b[H0 containers in ")?;
    terminal.running.signal(15)?;
    terminal.ends(128 + 15)
}

fn stopped(ctx: &Context) -> Outcome {
    let mut terminal = OnTerminal::new(ctx, 80)?;
    terminal.wait_for("\x1b[H0 containers in ")?;
    terminal.press("\x1a")?;
    terminal.wait_for(LEAVE)?;
    let pid = terminal.running.pid();
    let is_stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
    eventually(ctx.patience, "it is stopped", || is_stopped().then_some(()))?;
    check!(terminal.is_restored()?, "the modes of the terminal are others");
    terminal.running.signal(18)?;
    terminal.wait_for("\x1b[?1049h")?;
    terminal.wait_for("\x1b[H0 containers in ")?;
    terminal.press("Q")?;
    terminal.ends(0)
}

fn cut(ctx: &Context) -> Outcome {
    let mut terminal = OnTerminal::new(ctx, 12)?;
    terminal.wait_for("\x1b[H0 containers\x1b[K")?;
    terminal.wait_for("ID  STATUS  \x1b[K\x1b[J")?;
    sys::set_window_size(terminal.main.as_fd(), 1, 4)?;
    terminal.wait_for("\x1b[H0 co\x1b[K\x1b[J")?;
    terminal.press("q")?;
    terminal.ends(0)
}
