//! The runtime as an ordinary user: mappings with and without helpers, and what such a user cannot have.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::seccomp::{notify_profile, receive};
use crate::harness::bundle::give;
use crate::harness::{Bundle, Context, Outcome, Peer, Test, json};
use crate::{check, check_eq, skip};

pub const TESTS: &[Test] = &[
    Test { name: "one_id_without_helpers", run: one_id },
    Test { name: "ranges_by_newuidmap", run: ranges },
    Test { name: "another_user_of_the_range", run: another_user },
    Test { name: "ranges_that_are_not_the_users_are_refused", run: foreign_ranges },
    Test { name: "create_start_exec_kill_delete", run: lifecycle },
    Test { name: "state_below_xdg_runtime_dir", run: default_root },
    Test { name: "spec_rootless_runs", run: spec_rootless },
    Test { name: "without_user_namespace_is_an_error", run: without_user_namespace },
    Test { name: "devices_are_bound", run: devices },
    Test { name: "files_of_root_stay_closed", run: files_of_root },
    Test { name: "bind_and_tmpfs", run: bind_and_tmpfs },
    Test { name: "bind_of_a_tree_keeps_locked_flags", run: locked_flags },
    Test { name: "limits_that_cannot_be_set_are_an_error", run: limits },
    Test { name: "setgroups_is_denied_without_helpers", run: setgroups },
    Test { name: "new_network", run: new_network },
    Test { name: "masked_and_readonly_paths", run: masked },
    Test { name: "oom_score_adj_of_create_and_exec", run: oom_score_adj },
    Test { name: "hooks_run", run: hooks },
    Test { name: "seccomp", run: seccomp },
    Test { name: "seccomp_listener_of_create_and_exec", run: seccomp_listener },
    Test { name: "terminal", run: terminal },
    Test { name: "a_joined_pod_does_not_see_into_what_is_created", run: hidden_in_a_pod },
    Test { name: "new_time", run: new_time },
    Test { name: "overlay_root", run: overlay },
    Test { name: "list_shows_its_own", run: list },
];

pub(super) const USER: u32 = 61_000;
pub(super) const RANGE: u32 = 3_000_000;

/// A bundle that belongs to an ordinary user, with this user's only id as root of the container.
pub(super) fn rootless(ctx: &Context) -> Outcome<Bundle<'_>> {
    let mut bundle = ctx.bundle()?;
    ctx.become_rootless(USER)?;
    bundle.namespace("user", None);
    bundle.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": USER, "size": 1}]));
    bundle.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": USER, "size": 1}]));
    // Cgroups need delegation, which is not given here.
    bundle.remove("/linux/resources").without_mount("/sys/fs/cgroup").remove("/process/rlimits");
    give(&bundle.dir, USER)?;
    Ok(bundle)
}

/// `rootless`, run without a cgroup path.
fn run(bundle: &mut Bundle) -> Outcome<crate::harness::Run> {
    let container = prepare(bundle)?;
    container.run_command().run()
}

fn prepare<'c>(bundle: &mut Bundle<'c>) -> Outcome<crate::harness::Container<'c>> {
    let container = bundle.container()?;
    bundle.remove("/linux/cgroupsPath").write()?;
    Ok(container)
}

/// The user gets a name, and a range of subordinate ids, in a mount namespace of the test's own; until [`end_ranges`].
pub(super) fn show_ranges(ctx: &Context) -> Outcome {
    ctx.need_program("newuidmap")?;
    ctx.need_program("newgidmap")?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    for (file, line) in [
        ("/etc/passwd", format!("keltest:x:{USER}:{USER}::/tmp:/bin/sh\n")),
        ("/etc/group", format!("keltest:x:{USER}:\n")),
        ("/etc/subuid", format!("keltest:{RANGE}:65536\n")),
        ("/etc/subgid", format!("keltest:{RANGE}:65536\n")),
    ] {
        if !Path::new(file).exists() {
            skip!("{file} is missing, so that nothing can be shown in its place");
        }
        let own = ctx.root.with_file_name(file.rsplit('/').next().unwrap_or_default());
        fs::write(&own, fs::read_to_string(file)? + &line)?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o644))?;
        // The mount goes with the test's mount namespace.
        mount(Some(&own), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
}

/// A container with those as its users.
fn with_ranges(ctx: &Context, bundle: &mut Bundle) -> Outcome {
    show_ranges(ctx)?;
    let maps = json!([
        {"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": RANGE, "size": 65536},
    ]);
    bundle.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
    Ok(())
}

/// Takes the binds away again: they name the test's directory, and the leak check sees them.
pub(super) fn end_ranges() {
    for file in ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"] {
        // Nothing is there if the test was skipped.
        let _ = nix::mount::umount2(file, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn one_id(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let seen = run(&mut bundle)?.ok()?.report()?;
    check_eq!(seen["uids"], json!([0, 0, 0, 0]), "uids inside");
    check_eq!(seen["uid_map"], json!([[0, USER, 1]]), "uid_map");
    check_eq!(seen["gid_map"], json!([[0, USER, 1]]), "gid_map");
    Ok(())
}

fn ranges(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let result = with_ranges(ctx, &mut bundle).and_then(|()| run(&mut bundle)?.ok()?.report());
    end_ranges();
    let seen = result?;
    check_eq!(seen["uid_map"], json!([[0, USER, 1], [1, RANGE, 65536]]), "uid_map");
    check_eq!(seen["setgroups"], json!("allow"), "setgroups");
    Ok(())
}

fn another_user(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5]}));
    let result = with_ranges(ctx, &mut bundle).and_then(|()| run(&mut bundle)?.ok()?.report());
    end_ranges();
    let seen = result?;
    check_eq!((&seen["uids"][0], &seen["gids"][0], &seen["groups"]), (&json!(1000), &json!(1001), &json!([5])), "ids");
    Ok(())
}

fn foreign_ranges(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let result = with_ranges(ctx, &mut bundle).and_then(|()| {
        let maps =
            json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 10, "size": 100}]);
        bundle.set("/linux/uidMappings", maps);
        run(&mut bundle)
    });
    end_ranges();
    let failed = result?.fails()?;
    if ctx.peer == Peer::Kelson {
        failed.fails_saying(&["newuidmap"])?;
    }
    check!(ctx.state_entries().is_empty(), "a container is left");
    Ok(())
}

/// Of a container that joins another's PID and user namespace the other's root sees nothing before it runs: neither the host's
/// root nor its creator's environment.
fn hidden_in_a_pod(ctx: &Context) -> Outcome {
    let mut first = rootless(ctx)?;
    first.guest(&["report", ",", "sleep"]).privileged();
    let mut infra = prepare(&mut first)?;
    infra.create()?.ok()?;
    infra.start()?.ok()?;
    infra.report()?;
    let pid = infra.pid()?;
    let mut second = rootless(ctx)?;
    for kind in ["user", "pid"] {
        second.namespace(kind, Some(&format!("/proc/{pid}/ns/{kind}")));
    }
    second.remove("/linux/uidMappings").remove("/linux/gidMappings").set("/process/oomScoreAdj", 500);
    second.guest(&["sleep"]);
    let mut container = prepare(&mut second)?;
    let command = container.create_command()?.env("OF_THE_CALLER", "secret");
    command.run()?.ok().map_err(|e| e.during(&container.stderr()))?;
    let there = infra.exec(&["ls", "/proc"])?.ok()?.said("ls")?;
    let numbers: Vec<&str> = there.as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    let mut seen = 0;
    for number in numbers.into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let read = infra.exec(&["read", &format!("/proc/{number}/environ")])?.ok()?.said("read")?;
        seen += 1;
        check!(!read["text"].as_str().unwrap_or_default().contains("OF_THE_CALLER"), "process {number}: {read}");
    }
    check!(seen > 1, "no other process is in the PID namespace");
    container.start()?.ok()?;
    let adj = fs::read_to_string(format!("/proc/{}/oom_score_adj", container.pid()?))?;
    check_eq!(adj.trim_end(), "500", "oom_score_adj");
    container.end()?;
    infra.end()
}

/// The privilege to make it comes with the user namespace.
fn new_time(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}));
    let host = ctx.guest_command().run()?.ok()?.report()?["clock"]["boottime"].as_i64().unwrap_or(0);
    let seen = run(bundle.set("/process/oomScoreAdj", 500))?.ok()?.report()?;
    let ahead = (seen["clock"]["boottime"].as_i64().unwrap_or(0) - host) / 1_000_000_000;
    check!((1_000_000..1_000_060).contains(&ahead), "boottime is {ahead} s ahead");
    check_eq!(seen["uid_map"], json!([[0, USER, 1]]), "uid_map");
    check_eq!(seen.number("oom_score_adj"), 500, "oom_score_adj");
    Ok(())
}

fn lifecycle(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.guest(&["report", ",", "sleep"]);
    let mut container = prepare(&mut bundle)?;
    container.create()?.ok()?;
    check_eq!(container.status()?, "created", "status");
    container.start()?.ok()?;
    let init = container.report()?;
    let seen = container.exec(&["report"])?.ok()?.report()?;
    for kind in ["user", "mnt", "pid", "net"] {
        check_eq!(seen.namespace(kind), init.namespace(kind), "{kind} namespace of exec");
    }
    container.end()
}

fn default_root(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.guest(&["sleep"]);
    let container = prepare(&mut bundle)?;
    let runtime = || ctx.runtime_without_root();
    let errors = fs::File::create(ctx.next_io().with_extension("detached"))?;
    let null = || -> Outcome<std::os::fd::OwnedFd> {
        Ok(fs::File::options().read(true).write(true).open("/dev/null")?.into())
    };
    let command = runtime().args(["run", "--detach", "--bundle"]).arg(&bundle.dir).arg(&container.id);
    command.fd(0, null()?).fd(1, null()?).fd(2, errors).run()?.ok()?;
    let expected = ctx.dir.join("run").join(ctx.peer.name()).join(&container.id);
    let there = expected.exists();
    runtime().args(["delete", "--force", &container.id]).run()?.ok()?;
    check!(there, "no state in {}", expected.display());
    Ok(())
}

fn spec_rootless(ctx: &Context) -> Outcome {
    let bundle = rootless(ctx)?;
    ctx.runtime().args(["spec", "--rootless", "--bundle"]).arg(&bundle.dir).run()?.ok()?;
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(bundle.dir.join("config.json"))?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/guest", "report"]);
    config["process"]["rlimits"] = json!([]);
    fs::write(bundle.dir.join("config.json"), config.to_string())?;
    let seen = ctx.runtime().args(["run", "--bundle"]).arg(&bundle.dir).arg(bundle.fresh_id()).run()?.ok()?.report()?;
    check_eq!(seen["uids"], json!([0, 0, 0, 0]), "uids inside");
    if ctx.peer == Peer::Kelson && ctx.need_new_syscalls("rro").is_ok() {
        // What the host has mounted there comes along: debugfs, tracefs, cgroups.
        let writable = seen.mounts().into_iter().find(|mount| mount.target.starts_with("/sys") && !mount.has("ro"));
        check!(writable.is_none(), "a mount below /sys is writable: {writable:?}");
    }
    Ok(())
}

fn without_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.without_namespace("user").remove("/linux/uidMappings").remove("/linux/gidMappings");
    let failed = run(&mut bundle)?.fails()?;
    if ctx.peer == Peer::Kelson {
        failed.fails_saying(&["user"])?;
    }
    Ok(())
}

fn devices(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.guest(&["stat", "/dev/null", ",", "open", "/dev/null", "rw", ",", "open", "/dev/urandom", "r"]);
    let seen = run(&mut bundle)?.ok()?;
    check_eq!(seen.said("stat")?["kind"], json!("c"), "kind of /dev/null");
    let opened: Vec<_> = seen.lines().iter().filter_map(|l| l["open"]["errno"].as_i64()).collect();
    check_eq!(opened, [0, 0], "errno of opening /dev/null and /dev/urandom");
    Ok(())
}

fn files_of_root(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let secret = bundle.file("/secret", "x")?;
    std::os::unix::fs::chown(&secret, Some(0), Some(0))?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    bundle.privileged().guest(&["read", "/secret"]);
    check_eq!(run(&mut bundle)?.ok()?.said("read")?["errno"], json!(libc::EACCES), "errno of reading a file of root");
    Ok(())
}

fn bind_and_tmpfs(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let dir = ctx.new_dir("source")?;
    fs::write(dir.join("file"), "bound")?;
    bundle.mount("/mnt/b", "bind", &dir, &["rbind", "ro", "nosuid", "nodev"]).mount(
        "/mnt/t",
        "tmpfs",
        "tmpfs",
        &["size=64k"],
    );
    bundle.guest(&["read", "/mnt/b/file", ",", "write", "/mnt/t/x", "y"]);
    let seen = run(&mut bundle)?.ok()?;
    check_eq!(seen.said("read")?["text"], json!("bound"), "content of the bind");
    check_eq!(seen.said("write")?["errno"], json!(0), "errno of writing to the tmpfs");
    Ok(())
}

/// A mount that the host made nosuid and nodev cannot lose that here; asking only for ro must still work.
fn locked_flags(ctx: &Context) -> Outcome {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let tree = super::mounts::Tree::new(ctx, flags, flags)?;
    let mut bundle = rootless(ctx)?;
    bundle.mount("/mnt/b", "bind", &tree.dir, &["rbind", "ro"]);
    let seen = run(&mut bundle)?.ok()?.report()?.mount("/mnt/b")?;
    check!(["ro", "nosuid", "nodev", "noexec"].iter().all(|o| seen.has(o)), "options: {seen:?}");
    Ok(())
}

fn limits(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.set("/linux/resources", json!({"pids": {"limit": 10}}));
    let failed = run(&mut bundle)?.fails()?;
    if ctx.peer == Peer::Kelson {
        failed.fails_saying(&["cgroup"])?;
    }
    check!(ctx.state_entries().is_empty(), "a container is left");
    Ok(())
}

fn setgroups(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    check_eq!(run(&mut bundle)?.ok()?.report()?["setgroups"], json!("deny"), "setgroups");
    Ok(())
}

fn new_network(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let seen = run(&mut bundle)?.ok()?.report()?;
    check_eq!(seen["interfaces"]["lo"]["up"], json!(true), "lo is up");
    Ok(())
}

fn masked(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.guest(&["read", "/proc/timer_list", ",", "write", "/proc/sys/net/ipv4/ip_forward", "1"]);
    let seen = run(&mut bundle)?.ok()?;
    check_eq!(seen.said("read")?["text"].as_str().unwrap_or_default(), "", "content of /proc/timer_list");
    check_eq!(seen.said("write")?["errno"], json!(libc::EROFS), "errno of writing below /proc/sys");
    Ok(())
}

/// Raising it needs no privilege.
fn oom_score_adj(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.set("/process/oomScoreAdj", 345).guest(&["report", ",", "sleep"]);
    let mut container = prepare(&mut bundle)?;
    container.create()?.ok()?;
    container.start()?.ok()?;
    check_eq!(container.report()?.number("oom_score_adj"), 345, "oom_score_adj of create");
    check_eq!(container.exec(&["report"])?.ok()?.report()?.number("oom_score_adj"), 345, "oom_score_adj of exec");
    let mut process = container.process(&["report"]);
    process["oomScoreAdj"] = json!(456);
    let seen = container.exec_process(&process)?.ok()?.report()?;
    check_eq!(seen.number("oom_score_adj"), 456, "oom_score_adj of exec --process");
    container.end()
}

fn hooks(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let dir = ctx.new_dir("hooks")?;
    give(&dir, USER)?;
    let log = dir.join("log");
    for point in ["createRuntime", "poststart", "poststop"] {
        bundle.push(&format!("/hooks/{point}"), json!({"path": ctx.guest, "args": ["guest", "record", log, point]}));
    }
    run(&mut bundle)?.ok()?;
    check_eq!(fs::read_to_string(log)?.lines().count(), 3, "hooks that ran");
    Ok(())
}

fn seccomp(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.set("/process/noNewPrivileges", false).guest(&["syscall", "121", "0"]);
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]}),
    );
    check_eq!(run(&mut bundle)?.ok()?.said("syscall")?["errno"], json!(99), "errno");
    Ok(())
}

/// The descriptor is taken out of a process that is not this user's to look into any more.
fn seccomp_listener(ctx: &Context) -> Outcome {
    for no_new_privileges in [true, false] {
        let mut bundle = rootless(ctx)?;
        let path = bundle.dir.join("listener.sock");
        let socket = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        bundle.set("/process/noNewPrivileges", no_new_privileges).set("/linux/seccomp", notify_profile(&path));
        let mut container = prepare(bundle.guest(&["sleep"]))?;
        let creating = container.create_command()?.spawn()?;
        receive(ctx, &socket).map_err(|e| e.during(&format!("create: {}", container.stderr())))?;
        creating.wait()?.ok()?;
        container.start()?.ok()?;
        let exec = container.exec_command(&[], &["/bin/guest", "syscall", "121", "4713"]).spawn()?;
        let received = receive(ctx, &socket).map_err(|e| e.during(&format!("exec: {}", exec.stderr())))?;
        let notification = crate::sys::receive_notification(received.listener.as_fd())?;
        crate::sys::answer_notification(received.listener.as_fd(), notification.id, 0, libc::EXDEV)?;
        let seen = exec.wait()?.ok()?.said("syscall")?;
        check_eq!(seen["errno"], json!(libc::EXDEV), "errno in exec, noNewPrivileges {no_new_privileges}");
        container.end()?;
    }
    Ok(())
}

fn terminal(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    let (main, peer) = crate::sys::open_pty()?;
    // The user reopens it by name.
    std::os::unix::fs::fchown(&peer, Some(USER), Some(USER))?;
    bundle.set("/process/terminal", true).guest(&["tty"]);
    let container = prepare(&mut bundle)?;
    let running = container.run_command().on_terminal(peer).spawn()?;
    let mut lines = crate::harness::Lines::new(main);
    // crun's helpers complain first.
    while !lines.next(ctx.patience).map_err(|e| e.during(&running.shown))?.contains("\"name\":\"/dev/pts/") {}
    running.wait()?.ok()?;
    Ok(())
}

fn overlay(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    ctx.need_kernel(5, 11, "an overlay in a user namespace")?;
    let mut bundle = rootless(ctx)?;
    let top = ctx.new_dir("top")?;
    fs::write(top.join("from-top"), "x")?;
    give(&top, USER)?;
    let lower = json!([top, bundle.rootfs]).to_string();
    bundle.set("/annotations", json!({"org.kelson.overlay.lower": lower}));
    bundle.guest(&["report", ",", "write", "/new", "x", ",", "read", "/from-top"]);
    let seen = run(&mut bundle)?.ok()?;
    let root = seen.report()?.mount("/")?;
    check_eq!(root.fs_type, "overlay", "file system of /");
    check!(root.super_has("userxattr"), "options: {root:?}");
    check_eq!(seen.said("write")?["errno"], json!(0), "errno of writing");
    check_eq!(seen.said("read")?["text"], json!("x"), "content of the top layer");
    check!(!bundle.rootfs.join("new").exists(), "the layer was written to");
    Ok(())
}

fn list(ctx: &Context) -> Outcome {
    let mut bundle = rootless(ctx)?;
    bundle.guest(&["sleep"]);
    let mut container = prepare(&mut bundle)?;
    container.create()?.ok()?;
    let text = ctx.runtime().args(["list", "--format", "json"]).run()?.ok()?.json()?;
    let ids: Vec<_> = text.as_array().into_iter().flatten().map(|c| c["id"].clone()).collect();
    check_eq!(ids, [json!(container.id)], "ids in the list");
    container.start()?.ok()?;
    container.end()
}
