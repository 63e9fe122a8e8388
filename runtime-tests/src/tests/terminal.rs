//! `process.terminal`: console socket, foreground relay, size, line discipline (runc's terminals.md).

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::harness::{Container, Context, Lines, Outcome, Peer, Test, Value, eventually, json};
use crate::{check, check_eq, sys};

pub const TESTS: &[Test] = &[
    Test { name: "console_socket_gets_the_pty", run: console_socket },
    Test { name: "console_socket_payload_is_a_name", run: console_payload },
    Test { name: "all_three_descriptors_are_the_terminal", run: all_three },
    Test { name: "it_is_the_controlling_terminal", run: controlling },
    Test { name: "size_as_configured", run: size },
    Test { name: "size_without_terminal_is_ignored", run: size_ignored },
    Test { name: "onlcr_is_left_to_the_console_socket", run: onlcr_with_console_socket },
    Test { name: "onlcr_is_cleared_in_the_foreground", run: onlcr_in_the_foreground },
    Test { name: "dev_console_is_the_terminal", run: dev_console },
    Test { name: "belongs_to_the_user", run: owner },
    Test { name: "in_a_user_namespace", run: in_user_namespace },
    Test { name: "input_and_output", run: input_and_output },
    Test { name: "closing_the_pty_hangs_up", run: hangup },
    Test { name: "create_without_console_socket_is_an_error", run: missing_socket },
    Test { name: "run_detached_without_console_socket_is_an_error", run: detached_missing_socket },
    Test { name: "console_socket_without_terminal_is_an_error", run: unwanted_socket },
    Test { name: "run_in_the_foreground", run: foreground },
    Test { name: "run_in_the_foreground_relays_input", run: foreground_input },
    Test { name: "run_in_the_foreground_has_the_size_of_the_callers", run: foreground_size },
    Test { name: "run_in_the_foreground_has_the_size_at_once", run: foreground_size_at_once },
    Test { name: "run_in_the_foreground_follows_a_change_of_size", run: foreground_resize },
    Test { name: "run_in_the_foreground_restores_the_callers_terminal", run: foreground_restores },
    Test { name: "run_in_the_foreground_passes_the_exit_code", run: foreground_code },
    Test { name: "exec_tty_in_the_foreground", run: exec_foreground },
    Test { name: "exec_tty_with_console_socket", run: exec_console_socket },
    Test { name: "no_terminal_no_controlling_terminal", run: no_controlling },
    Test { name: "large_output", run: large_output },
    Test { name: "reader_that_stops_reading_keeps_no_signal_out", run: stalled_reader },
];

/// A console socket, as conmon and containerd's shim make one.
struct Console {
    socket: UnixListener,
    path: String,
}

impl Console {
    fn new(ctx: &Context) -> Outcome<Console> {
        let path = ctx.dir.join(format!("console{}.sock", ctx.next()));
        Ok(Console { socket: UnixListener::bind(&path)?, path: path.to_string_lossy().into_owned() })
    }

    /// The terminal and the text that came with it.
    fn receive(&self, ctx: &Context) -> Outcome<(OwnedFd, String)> {
        self.socket.set_nonblocking(true)?;
        let stream = eventually(ctx.patience, "the runtime connects to the console socket", || {
            self.socket.accept().ok().map(|a| a.0)
        })?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ctx.patience))?;
        let mut bytes = [0; 4096];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = vec![];
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(list) = part {
                fds.extend(list.into_iter().map(sys::adopt));
            }
        }
        let count = message.bytes;
        check_eq!(fds.len(), 1, "descriptors in the message");
        let fd = fds.pop().ok_or("no descriptor")?;
        Ok((fd, String::from_utf8_lossy(&bytes[..count]).into_owned()))
    }
}

/// A started container with a terminal: its main end as lines.
fn with_terminal<'c>(
    ctx: &'c Context,
    words: &[&str],
    change: impl Fn(&mut crate::harness::Bundle) -> Outcome,
) -> Outcome<(Container<'c>, OwnedFd, String)> {
    let console = Console::new(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/terminal", true).guest(words).option("--console-socket").option(&console.path);
    change(&mut bundle)?;
    let mut container = bundle.container()?;
    let running = container.create_command()?.spawn()?;
    let received = console.receive(ctx);
    let run = running.wait()?;
    check!(run.code == 0, "{}\n  stderr: {}", run.told(), container.stderr());
    let (fd, text) = received?;
    container.start()?.ok()?;
    Ok((container, fd, text))
}

fn plain(_: &mut crate::harness::Bundle) -> Outcome {
    Ok(())
}

fn said(ctx: &Context, lines: &mut Lines, key: &str) -> Outcome<Value> {
    loop {
        let line = lines.next(ctx.patience).map_err(|e| e.during(&format!("waiting for {key:?} on the terminal")))?;
        if let Ok(mut value) = serde_json::from_str::<Value>(line.trim_end())
            && let Some(found) = value.get_mut(key)
        {
            return Ok(found.take());
        }
    }
}

/// What the guest says of its terminal.
fn terminal(ctx: &Context, change: impl Fn(&mut crate::harness::Bundle) -> Outcome) -> Outcome<Value> {
    let (container, fd, _) = with_terminal(ctx, &["tty", ",", "sleep"], change)?;
    let mut lines = Lines::new(fd);
    let seen = said(ctx, &mut lines, "tty")?;
    container.end()?;
    Ok(seen)
}

fn console_socket(ctx: &Context) -> Outcome {
    let seen = terminal(ctx, plain)?;
    check!(seen["stdin"].is_object(), "standard input is no terminal: {seen}");
    Ok(())
}

fn console_payload(ctx: &Context) -> Outcome {
    let (container, _fd, text) = with_terminal(ctx, &["sleep"], plain)?;
    check!(text.starts_with("/dev/pts/") || ctx.peer == Peer::Runc && text == "/dev/ptmx", "payload: {text:?}");
    container.end()
}

fn all_three(ctx: &Context) -> Outcome {
    let seen = terminal(ctx, plain)?;
    for name in ["stdin", "stdout", "stderr"] {
        check!(seen[name]["name"].as_str().is_some_and(|n| n.starts_with("/dev/pts/")), "{name}: {}", seen[name]);
    }
    Ok(())
}

fn controlling(ctx: &Context) -> Outcome {
    check_eq!(terminal(ctx, plain)?["controlling_errno"], json!(0), "errno of opening /dev/tty");
    Ok(())
}

fn size(ctx: &Context) -> Outcome {
    let seen = terminal(ctx, |b| {
        b.set("/process/consoleSize", json!({"height": 31, "width": 97}));
        Ok(())
    })?;
    check_eq!(seen["stdin"]["size"], json!([31, 97]), "rows and columns");
    Ok(())
}

fn size_ignored(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/consoleSize", json!({"height": 31, "width": 97})).report()?;
    Ok(())
}

/// Whoever receives the terminal decides: conmon sets ONLCR, Docker's clients rely on it (runc and crun leave it alone).
fn onlcr_with_console_socket(ctx: &Context) -> Outcome {
    check_eq!(terminal(ctx, plain)?["stdin"]["onlcr"], json!(true), "ONLCR");
    Ok(())
}

/// The caller's terminal adds the carriage return: two would be one too many (runc's relay, tty.go).
fn onlcr_in_the_foreground(ctx: &Context) -> Outcome {
    let (running, main, _container) = on_pty(ctx, &["tty"])?;
    let mut lines = Lines::new(main);
    let seen = said(ctx, &mut lines, "tty")?;
    check_eq!(seen["stdin"]["onlcr"], json!(false), "ONLCR of the container's terminal");
    running.wait()?.ok()?;
    Ok(())
}

fn dev_console(ctx: &Context) -> Outcome {
    let seen = terminal(ctx, plain)?;
    check_eq!(seen["console"]["kind"], json!("c"), "kind of /dev/console");
    check_eq!(seen["console"]["major"], json!(136), "its major number, a pty's");
    Ok(())
}

fn owner(ctx: &Context) -> Outcome {
    let words = ["stat", "/dev/pts/0", ",", "open", "/dev/tty", "rw", ",", "sleep"];
    let (container, fd, _) = with_terminal(ctx, &words, |b| {
        b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        Ok(())
    })?;
    let mut lines = Lines::new(fd);
    check_eq!(said(ctx, &mut lines, "stat")?["uid"], json!(1000), "owner of the terminal");
    check_eq!(said(ctx, &mut lines, "open")?["errno"], json!(0), "errno of opening /dev/tty");
    container.end()
}

fn in_user_namespace(ctx: &Context) -> Outcome {
    let seen = terminal(ctx, |b| {
        b.user_namespace(&[(0, 100_000, 65536)])?;
        Ok(())
    })?;
    check!(seen["stdin"]["name"].as_str().is_some_and(|n| n.starts_with("/dev/pts/")), "terminal: {seen}");
    check_eq!(seen["controlling_errno"], json!(0), "errno of opening /dev/tty");
    Ok(())
}

fn input_and_output(ctx: &Context) -> Outcome {
    let (container, fd, _) = with_terminal(ctx, &["ready", ",", "echo-lines"], plain)?;
    let mut writer = std::fs::File::from(fd.try_clone()?);
    let mut lines = Lines::new(fd);
    said(ctx, &mut lines, "ready")?;
    writer.write_all(b"ahoy\n")?;
    // The echo of the line discipline comes first.
    eventually(ctx.patience, "the answer", || {
        lines.next(ctx.patience).ok().filter(|l| l.contains("heard ahoy")).map(drop)
    })?;
    container.end()
}

fn hangup(ctx: &Context) -> Outcome {
    let (mut container, fd, _) = with_terminal(ctx, &["ready", ",", "echo-lines"], plain)?;
    drop(fd);
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    container.forget();
    Ok(())
}

fn missing_socket(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.set("/process/terminal", true).container()?;
    let run = container.create()?.fails()?;
    check!(
        run.err().contains("console-socket") || run.err().contains("console socket"),
        "the error does not name it: {}",
        run.told()
    );
    check!(ctx.state_entries().is_empty(), "a container is left");
    Ok(())
}

fn detached_missing_socket(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let run = bundle.set("/process/terminal", true).option("--detach").run()?.fails()?;
    // podman and others look for runc's words.
    check!(run.err().contains("console"), "the error does not name the console: {}", run.told());
    check!(ctx.state_entries().is_empty(), "a container is left");
    Ok(())
}

fn unwanted_socket(ctx: &Context) -> Outcome {
    let console = Console::new(ctx)?;
    let mut bundle = ctx.bundle()?;
    let mut container = bundle.option("--console-socket").option(&console.path).container()?;
    container.create()?.fails()?;
    check!(ctx.state_entries().is_empty(), "a container is left");
    Ok(())
}

/// A foreground run on a pty of the test's own: what is read from its main end.
fn on_pty<'c>(ctx: &'c Context, words: &[&str]) -> Outcome<(crate::harness::Running, OwnedFd, Container<'c>)> {
    let (main, peer) = sys::open_pty()?;
    sys::set_window_size(main.as_fd(), 33, 101)?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.set("/process/terminal", true).guest(words).container()?;
    let running = container.run_command().on_terminal(peer).spawn()?;
    Ok((running, main, container))
}

fn foreground(ctx: &Context) -> Outcome {
    let (running, main, _container) = on_pty(ctx, &["tty", ",", "print", "done"])?;
    let mut lines = Lines::new(main);
    let seen = said(ctx, &mut lines, "tty")?;
    check!(seen["stdin"]["name"].as_str().is_some_and(|n| n.starts_with("/dev/pts/")), "terminal: {seen}");
    check_eq!(seen["controlling_errno"], json!(0), "errno of opening /dev/tty");
    check_eq!(lines.next(ctx.patience)?.trim_end(), "done", "the next line");
    running.wait()?.ok()?;
    Ok(())
}

fn foreground_input(ctx: &Context) -> Outcome {
    let (running, main, _container) = on_pty(ctx, &["ready", ",", "echo-lines"])?;
    let mut writer = std::fs::File::from(main.try_clone()?);
    let mut lines = Lines::new(main);
    said(ctx, &mut lines, "ready")?;
    writer.write_all(b"ahoy\n")?;
    loop {
        if lines.next(ctx.patience)?.contains("heard ahoy") {
            break;
        }
    }
    writer.write_all(b"quit\n")?;
    running.wait()?.ok()?;
    Ok(())
}

fn foreground_size(ctx: &Context) -> Outcome {
    let (running, main, _container) = on_pty(ctx, &["await-size", ",", "tty"])?;
    let seen = said(ctx, &mut Lines::new(main.try_clone()?), "tty")?;
    check_eq!(seen["stdin"]["size"], json!([33, 101]), "rows and columns");
    running.wait()?.ok()?;
    drop(main);
    Ok(())
}

/// runc sets the size while the process runs already: a program that asks at once sees 0 by 0.
fn foreground_size_at_once(ctx: &Context) -> Outcome {
    ctx.need_kelson("the size before the process starts")?;
    for _ in 0..5 {
        let (running, main, _container) = on_pty(ctx, &["tty"])?;
        let seen = said(ctx, &mut Lines::new(main.try_clone()?), "tty")?;
        check_eq!(seen["stdin"]["size"], json!([33, 101]), "rows and columns");
        running.wait()?.ok()?;
        drop(main);
    }
    Ok(())
}

fn foreground_resize(ctx: &Context) -> Outcome {
    let (running, main, container) = on_pty(ctx, &["signals"])?;
    let mut lines = Lines::new(main.try_clone()?);
    said(ctx, &mut lines, "ready")?;
    sys::set_window_size(main.as_fd(), 44, 55)?;
    // Go's runtime sends itself SIGURG, which runc forwards too.
    while said(ctx, &mut lines, "signal")? != json!("SIGWINCH") {}
    let pts = format!("/proc/{}/fd/0", container.pid()?);
    let inside = std::fs::OpenOptions::new().read(true).open(pts)?;
    check_eq!(sys::window_size(inside.as_fd())?, (44, 55), "size of the container's terminal");
    container.kill("TERM")?.ok()?;
    running.wait()?.ok()?;
    Ok(())
}

fn foreground_restores(ctx: &Context) -> Outcome {
    let (main, peer) = sys::open_pty()?;
    let before = nix::sys::termios::tcgetattr(&peer)?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/terminal", true).guest(&["print", "x"]);
    let running = bundle.run_command()?.on_terminal(peer.try_clone()?).spawn()?;
    Lines::new(main.try_clone()?).next(ctx.patience)?;
    running.wait()?.ok()?;
    let after = nix::sys::termios::tcgetattr(&peer)?;
    check_eq!(
        (after.input_flags, after.output_flags, after.local_flags),
        (before.input_flags, before.output_flags, before.local_flags),
        "modes of the caller's terminal"
    );
    Ok(())
}

fn foreground_code(ctx: &Context) -> Outcome {
    let (running, main, _container) = on_pty(ctx, &["exit", "42"])?;
    running.wait()?.exits(42)?;
    drop(main);
    Ok(())
}

fn exec_foreground(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let (main, peer) = sys::open_pty()?;
    sys::set_window_size(main.as_fd(), 22, 66)?;
    let words = ["/bin/guest", "await-size", ",", "tty", ",", "exit", "5"];
    let running = container.exec_command(&["--tty"], &words).on_terminal(peer).spawn()?;
    let mut lines = Lines::new(main);
    let seen = said(ctx, &mut lines, "tty")?;
    check!(seen["stdin"]["name"].as_str().is_some_and(|n| n.starts_with("/dev/pts/")), "terminal: {seen}");
    check_eq!(seen["stdin"]["size"], json!([22, 66]), "rows and columns");
    running.wait()?.exits(5)?;
    container.end()
}

fn exec_console_socket(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["sleep"]).start()?;
    let console = Console::new(ctx)?;
    let options = ["--tty", "--detach", "--console-socket", &console.path];
    let running = container.exec_command(&options, &["/bin/guest", "tty", ",", "sleep"]).spawn()?;
    let (fd, _) = console.receive(ctx).map_err(|e| e.during(&running.stderr()))?;
    let seen = said(ctx, &mut Lines::new(fd.try_clone()?), "tty")?;
    check!(seen["stdout"]["name"].as_str().is_some_and(|n| n.starts_with("/dev/pts/")), "terminal: {seen}");
    running.wait()?.ok()?;
    container.end()
}

/// CVE-2016-10124's class: a caller's terminal is not the container's.
fn no_controlling(ctx: &Context) -> Outcome {
    let (main, peer) = sys::open_pty()?;
    let mut bundle = ctx.bundle()?;
    let running = bundle.guest(&["tty", ",", "push-input"]).run_command()?.on_terminal(peer).spawn()?;
    let mut lines = Lines::new(main);
    check_eq!(said(ctx, &mut lines, "tty")?["controlling_errno"], json!(libc::ENXIO), "errno of opening /dev/tty");
    check!(said(ctx, &mut lines, "push-input")?["errno"] != json!(0), "TIOCSTI works");
    running.wait()?.ok()?;
    Ok(())
}

fn large_output(ctx: &Context) -> Outcome {
    let size = 1_000_000;
    let (running, main, _container) = on_pty(ctx, &["bytes", &size.to_string()])?;
    let mut lines = Lines::new(main);
    let mut seen = 0;
    while seen < size {
        let bytes = lines.some(ctx.patience)?;
        seen += bytes.iter().filter(|b| **b == b'x').count();
    }
    running.wait()?.ok()?;
    Ok(())
}

fn stalled_reader(ctx: &Context) -> Outcome {
    ctx.need_kelson("a terminal whose output goes elsewhere than its input comes from")?;
    let mut bundle = ctx.bundle()?;
    // Not process 1, for which SIGTERM does nothing.
    bundle.set("/process/terminal", true).without_namespace("pid").guest(&["bytes", "1000000000"]);
    let container = bundle.container()?;
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let run = container.run_command().fd(1, write).spawn()?;
    container.wait_status("running")?;
    let pid = container.pid()?;
    // More than a page fits into a pipe, and this one is not read: it is full when a byte more would wait.
    eventually(ctx.patience, "nobody reads", || {
        let before = sys::readable_bytes(&read);
        (before > 4096 && before == sys::readable_bytes(&read)).then_some(())
    })?;
    run.signal(nix::libc::SIGTERM)?;
    eventually(ctx.patience, "the container gets the signal", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })?;
    drop(read);
    check_eq!(run.wait()?.code, 128 + nix::libc::SIGTERM, "exit code");
    Ok(())
}
