//! `linux.namespaces`, id mappings, time offsets, network devices (config-linux.md#namespaces).

use std::fs;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Context, Outcome, Test, children, json};
use crate::{check, check_eq, sys};

pub const TESTS: &[Test] = &[
    Test { name: "pid_new", run: new },
    Test { name: "network_new", run: new },
    Test { name: "ipc_new", run: new },
    Test { name: "uts_new", run: new },
    Test { name: "mount_new", run: new },
    Test { name: "user_new", run: user_new },
    Test { name: "cgroup_new", run: new },
    Test { name: "time_new", run: new },
    Test { name: "pid_inherited", run: inherited },
    Test { name: "network_inherited", run: inherited },
    Test { name: "ipc_inherited", run: inherited },
    Test { name: "uts_inherited", run: inherited },
    Test { name: "cgroup_inherited", run: inherited },
    Test { name: "pid_joined", run: pid_joined },
    Test { name: "network_joined", run: joined },
    Test { name: "ipc_joined", run: joined },
    Test { name: "uts_joined", run: joined },
    Test { name: "mount_joined", run: mount_joined },
    Test { name: "mount_of_the_caller_is_refused", run: mount_of_the_caller },
    Test { name: "uts_of_the_caller_is_refused_with_a_name", run: uts_of_the_caller },
    Test { name: "user_joined", run: user_joined },
    Test { name: "cgroup_joined", run: joined },
    Test { name: "time_joined", run: joined },
    Test { name: "user_and_others_joined_like_a_pod", run: pod },
    Test { name: "user_joined_with_its_own_mappings_repeated", run: user_joined_with_mappings },
    Test { name: "joined_by_the_path_of_a_mount", run: joined_by_mount },
    Test { name: "uid_and_gid_mappings", run: mappings },
    Test { name: "several_mappings", run: several_mappings },
    Test { name: "many_mappings", run: many_mappings },
    Test { name: "mappings_do_not_change_the_root_file_system", run: rootfs_is_not_chowned },
    Test { name: "user_of_a_mapped_container", run: mapped_user },
    Test { name: "new_namespaces_belong_to_the_user_namespace", run: owned_by_user_namespace },
    Test { name: "time_offsets", run: time_offsets },
    Test { name: "time_offsets_for_exec", run: time_offsets_for_exec },
    Test { name: "time_offsets_with_a_user_namespace", run: time_offsets_with_user },
    Test { name: "exec_without_a_mount_namespace_stays_in_the_root", run: exec_without_mount },
    Test { name: "loopback_is_up_in_a_new_network", run: loopback_is_up },
    Test { name: "net_device_moves", run: net_device_moves },
    Test { name: "net_device_is_renamed", run: net_device_is_renamed },
    Test { name: "net_device_by_template", run: net_device_by_template },
    Test { name: "net_device_keeps_its_addresses", run: net_device_keeps_addresses },
    Test { name: "net_device_into_a_user_namespace", run: net_device_into_a_user_namespace },
    Test { name: "net_device_missing_is_an_error", run: net_device_missing },
    Test { name: "net_device_with_a_taken_name_is_an_error", run: net_device_taken },
];

/// Name below /proc/PID/ns of a namespace type of config.json.
fn file(kind: &str) -> &str {
    match kind {
        "network" => "net",
        "mount" => "mnt",
        other => other,
    }
}

fn flag(kind: &str) -> i32 {
    match kind {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "mount" => libc::CLONE_NEWNS,
        "user" => libc::CLONE_NEWUSER,
        "cgroup" => libc::CLONE_NEWCGROUP,
        _ => libc::CLONE_NEWTIME,
    }
}

/// The kind that a test's name starts with.
fn kind(ctx: &Context) -> &str {
    let name = ctx.name.rsplit("::").next().unwrap_or_default();
    name.split('_').next().unwrap_or_default()
}

fn host(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{}", file(kind))).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A process in namespaces of its own that holds them; killed at the end.
pub struct Holder {
    pub pid: i32,
}

impl Holder {
    pub fn new(flags: i32) -> Outcome<Holder> {
        let mut list = children::lock();
        let pid = sys::fork_sleeper(flags).map_err(|e| format!("a process that holds namespaces: {e}"))?;
        list.manage(pid);
        Ok(Holder { pid })
    }

    pub fn path(&self, kind: &str) -> String {
        let name = if kind == "time" { "time_for_children" } else { file(kind) };
        format!("/proc/{}/ns/{name}", self.pid)
    }

    pub fn inode(&self, kind: &str) -> String {
        let text = fs::read_link(self.path(kind)).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        text.replace("time_for_children", "time")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It is our child and not reaped: the PID is its own.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        children::lock().release(self.pid);
        let _ = nix::sys::wait::waitpid(Pid::from_raw(self.pid), None);
    }
}

fn new(ctx: &Context) -> Outcome {
    let kind = kind(ctx);
    let mut bundle = ctx.bundle()?;
    let seen = bundle.namespace(kind, None).report()?;
    check!(seen.namespace(file(kind)) != host(kind), "the {kind} namespace is the host's");
    check!(!seen.namespace(file(kind)).is_empty(), "no {kind} namespace is seen");
    Ok(())
}

fn user_new(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    let seen = bundle.report()?;
    check!(seen.namespace("user") != host("user"), "the user namespace is the host's");
    Ok(())
}

fn inherited(ctx: &Context) -> Outcome {
    let kind = kind(ctx);
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace(kind);
    if kind == "uts" {
        bundle.remove("/hostname");
    }
    if kind == "ipc" {
        bundle.without_mount("/dev/mqueue");
    }
    if kind == "network" {
        // A sysfs mount needs a network namespace of the same user namespace, which the host's is.
        bundle.without_mount("/sys/fs/cgroup");
    }
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let pid = container.pid()?;
    let inside = container.report()?;
    let seen = fs::read_link(format!("/proc/{pid}/ns/{}", file(kind)))?;
    check_eq!(seen.to_string_lossy(), host(kind), "{kind} namespace, seen from the host");
    check_eq!(inside.namespace(file(kind)), host(kind), "{kind} namespace, seen from inside");
    container.end()
}

fn joined(ctx: &Context) -> Outcome {
    let kind = kind(ctx);
    let mut bundle = ctx.bundle()?;
    let holder = Holder::new(flag(kind))?;
    bundle.namespace(kind, Some(&holder.path(kind)));
    if kind == "uts" {
        bundle.remove("/hostname");
    }
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    check_eq!(container.report()?.namespace(file(kind)), holder.inode(kind), "{kind} namespace");
    check_eq!(container.exec(&["report"])?.ok()?.report()?.namespace(file(kind)), holder.inode(kind), "of exec");
    container.end()
}

/// The namespace's first process is another container's.
fn pid_joined(ctx: &Context) -> Outcome {
    let mut first = ctx.bundle()?;
    let mut infra = first.guest(&["report", ",", "sleep"]).start()?;
    let inode = infra.report()?.namespace("pid");
    let mut second = ctx.bundle()?;
    let path = format!("/proc/{}/ns/pid", infra.pid()?);
    let mut container = second.namespace("pid", Some(&path)).guest(&["report", ",", "sleep"]).start()?;
    let seen = container.report()?;
    check_eq!(seen.namespace("pid"), inode, "pid namespace");
    check!(seen.number("pid") > 1, "pid is {}", seen.number("pid"));
    container.end()?;
    check_eq!(infra.status()?, "running", "status of the other container");
    infra.end()
}

/// What is there is used: the process sees the joined namespace's mounts below its own root.
fn mount_joined(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let holder = Holder::new(libc::CLONE_NEWNS)?;
    bundle.namespace("mount", Some(&holder.path("mount")));
    bundle.set("/mounts", json!([])).remove("/linux/maskedPaths").remove("/linux/readonlyPaths");
    let container = bundle.guest(&["sleep"]).start()?;
    let seen = fs::read_link(format!("/proc/{}/ns/mnt", container.pid()?))?;
    check_eq!(seen.to_string_lossy(), holder.inode("mount"), "mount namespace");
    container.end()
}

/// The host's mount namespace is no way to the host's root.
fn exec_without_mount(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.without_namespace("mount").set("/mounts", json!([]));
    bundle.remove("/linux/maskedPaths").remove("/linux/readonlyPaths").file("/mark", "inside")?;
    let container = bundle.guest(&["sleep"]).start()?;
    let run = container.exec(&["read", "/mark", ",", "read", "/../../mark"])?.ok()?;
    let seen: Vec<_> = run.lines().iter().map(|line| line["read"]["text"].clone()).collect();
    check_eq!(seen, [json!("inside"), json!("inside")], "a file of the container's root, seen by exec");
    container.end()
}

/// The caller's own mount namespace by path: its root would become the container's.
fn mount_of_the_caller(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.namespace("mount", Some("/proc/self/ns/mnt"));
    // A copy of the test's own, in which nobody else is.
    let command = bundle.run_command()?.before_exec(sys::BeforeExec::Unshare(libc::CLONE_NEWNS));
    command.run()?.fails_saying(&["linux.namespaces", "caller"])?;
    Ok(())
}

/// A name in the caller's own UTS namespace; without one it can be joined.
fn uts_of_the_caller(ctx: &Context) -> Outcome {
    for (name, pointer) in [("hostname", "/hostname"), ("domainname", "/domainname")] {
        let mut bundle = ctx.bundle()?;
        bundle.remove("/hostname").set(pointer, "of-the-container").namespace("uts", Some("/proc/self/ns/uts"));
        let command = bundle.run_command()?.before_exec(sys::BeforeExec::Unshare(libc::CLONE_NEWUTS));
        command.run()?.fails_saying(&[name, "linux.namespaces", "caller"])?;
    }
    let mut bundle = ctx.bundle()?;
    bundle.remove("/hostname").namespace("uts", Some("/proc/self/ns/uts"));
    bundle.run_command()?.before_exec(sys::BeforeExec::Unshare(libc::CLONE_NEWUTS)).run()?.ok()?;
    Ok(())
}

/// Fills the id maps of a holder's user namespace.
pub fn map_ids(holder: &Holder, first: u32) -> Outcome {
    fs::write(format!("/proc/{}/uid_map", holder.pid), format!("0 {first} 65536\n"))?;
    fs::write(format!("/proc/{}/gid_map", holder.pid), format!("0 {first} 65536\n"))?;
    Ok(())
}

fn user_joined(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let holder = Holder::new(libc::CLONE_NEWUSER)?;
    map_ids(&holder, 200_000)?;
    crate::harness::bundle::give(&bundle.rootfs, 200_000)?;
    bundle.namespace("user", Some(&holder.path("user")));
    let seen = bundle.report()?;
    check_eq!(seen.namespace("user"), holder.inode("user"), "user namespace");
    check_eq!(seen["uid_map"], json!([[0, 200_000, 65536]]), "uid_map");
    check_eq!(seen["uids"], json!([0, 0, 0, 0]), "uids");
    Ok(())
}

/// containerd and CRI-O send the path and the mappings that it has.
fn user_joined_with_mappings(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let holder = Holder::new(libc::CLONE_NEWUSER)?;
    map_ids(&holder, 100_000)?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.namespace("user", Some(&holder.path("user")));
    let run = bundle.run()?.ok()?;
    check_eq!(run.report()?.namespace("user"), holder.inode("user"), "user namespace");
    check_eq!(run.err(), "", "standard error");
    bundle.edit(|config| config["linux"]["gidMappings"][0]["size"] = json!(1000));
    let run = bundle.run()?;
    if ctx.peer == crate::harness::Peer::Kelson {
        let said = run.ok()?.err();
        check!(said.contains("linux.gidMappings") && said.contains("0 100000 65536"), "warning of other ids: {said:?}");
        check!(!said.contains("linux.uidMappings"), "warning of the same ids: {said:?}");
    }
    Ok(())
}

fn pod(ctx: &Context) -> Outcome {
    let mut first = ctx.bundle()?;
    first.user_namespace(&[(0, 100_000, 65536)])?;
    let mut infra = first.guest(&["report", ",", "sleep"]).start()?;
    let init = infra.report()?;
    let pid = infra.pid()?;
    let mut second = ctx.bundle()?;
    crate::harness::bundle::give(&second.rootfs, 100_000)?;
    for kind in ["user", "network", "ipc", "uts", "pid"] {
        second.namespace(kind, Some(&format!("/proc/{pid}/ns/{}", file(kind))));
    }
    second.remove("/hostname");
    let mut container = second.guest(&["report", ",", "sleep"]).start()?;
    let seen = container.report()?;
    for kind in ["user", "net", "ipc", "uts", "pid"] {
        check_eq!(seen.namespace(kind), init.namespace(kind), "{kind} namespace");
    }
    check!(seen.namespace("mnt") != init.namespace("mnt"), "the mount namespace is shared too");
    container.end()?;
    infra.end()
}

/// As CNI keeps them: a bind of the namespace file.
fn joined_by_mount(ctx: &Context) -> Outcome {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let mut bundle = ctx.bundle()?;
    let holder = Holder::new(libc::CLONE_NEWNET)?;
    let kept = ctx.dir.join("net:ns");
    fs::write(&kept, "")?;
    let inode = holder.inode("network");
    mount(Some(holder.path("network").as_str()), &kept, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    drop(holder);
    let seen = bundle.namespace("network", Some(&kept.to_string_lossy())).report();
    umount2(&kept, MntFlags::MNT_DETACH)?;
    check_eq!(seen?.namespace("net"), inode, "network namespace");
    Ok(())
}

fn mappings(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]));
    let seen = bundle.report()?;
    check_eq!(seen["uid_map"], json!([[0, 100_000, 65536]]), "uid_map");
    check_eq!(seen["gid_map"], json!([[0, 100_000, 1000]]), "gid_map");
    check_eq!(seen["uids"], json!([0, 0, 0, 0]), "uids");
    check_eq!(seen["gids"], json!([0, 0, 0, 0]), "gids");
    Ok(())
}

fn several_mappings(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 1000), (1000, 300_000, 1), (1001, 101_000, 5000)])?;
    let seen = bundle.report()?;
    check_eq!(seen["uid_map"], json!([[0, 100_000, 1000], [1000, 300_000, 1], [1001, 101_000, 5000]]), "uid_map");
    Ok(())
}

/// 340 lines is the kernel's limit since 4.15.
fn many_mappings(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    // All lines together must be shorter than a page.
    let maps: Vec<(u32, u32, u32)> = (0..340).map(|i| (i * 2, 5000 + i * 3, 1)).collect();
    bundle.user_namespace(&maps)?;
    check_eq!(bundle.report()?["uid_map"].as_array().map_or(0, Vec::len), 340, "lines of uid_map");
    Ok(())
}

fn rootfs_is_not_chowned(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/etc/kept", "x")?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    std::os::unix::fs::chown(bundle.rootfs.join("etc/kept"), Some(3), Some(4))?;
    let stat = bundle.guest(&["stat", "/etc/kept"]).run()?.ok()?.said("stat")?;
    check_eq!((&stat["uid"], &stat["gid"]), (&json!(65534), &json!(65534)), "owner seen from inside");
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(bundle.rootfs.join("etc/kept"))?;
    check_eq!((meta.uid(), meta.gid()), (3, 4), "owner on the host");
    Ok(())
}

fn mapped_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}));
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let seen = container.report()?;
    check_eq!(seen["uids"], json!([1000, 1000, 1000, 1000]), "uids");
    check_eq!(seen["groups"], json!([5, 6]), "groups");
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
    check!(status.contains("Uid:\t101000\t101000\t101000\t101000"), "uid on the host: {status}");
    container.end()
}

fn owned_by_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.privileged();
    // CAP_SYS_ADMIN over the UTS and mount namespaces, and CAP_NET_ADMIN over the network: they belong to the container.
    let sethostname = "170";
    bundle.guest(&["syscall", sethostname, "0", "0"]);
    check_eq!(bundle.run()?.ok()?.said("syscall")?["errno"], json!(0), "errno of sethostname with an empty name");
    Ok(())
}

fn time_offsets(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.namespace("time", None).set(
        "/linux/timeOffsets",
        json!({
            "monotonic": {"secs": 86_400, "nanosecs": 5}, "boottime": {"secs": 172_800, "nanosecs": 999_999_999u32},
        }),
    );
    let host = ctx.guest_command().run()?.ok()?.report()?;
    let seen = bundle.report()?;
    let ahead = |clock: &str| {
        let read = |r: &crate::harness::Report| r["clock"][clock].as_i64().unwrap_or(0) / 1_000_000_000;
        read(&seen) - read(&host)
    };
    check!((86_400..86_460).contains(&ahead("monotonic")), "monotonic is {} s ahead", ahead("monotonic"));
    check!((172_800..172_861).contains(&ahead("boottime")), "boottime is {} s ahead", ahead("boottime"));
    Ok(())
}

fn time_offsets_for_exec(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}));
    let container = bundle.guest(&["sleep"]).start()?;
    let host = ctx.guest_command().run()?.ok()?.report()?["clock"]["boottime"].as_i64().unwrap_or(0);
    let seen = container.exec(&["report"])?.ok()?.report()?["clock"]["boottime"].as_i64().unwrap_or(0);
    let ahead = (seen - host) / 1_000_000_000;
    check!((1_000_000..1_000_060).contains(&ahead), "boottime of exec is {ahead} s ahead");
    container.end()
}

/// The time namespace belongs to the container's user namespace, as the others do.
fn time_offsets_with_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}));
    bundle.set("/process/oomScoreAdj", 77);
    let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let host = ctx.guest_command().run()?.ok()?.report()?["clock"]["boottime"].as_i64().unwrap_or(0);
    let init = container.report()?;
    let exec = container.exec(&["report"])?.ok()?.report()?;
    for (seen, who) in [(&init, "init"), (&exec, "exec")] {
        let ahead = (seen["clock"]["boottime"].as_i64().unwrap_or(0) - host) / 1_000_000_000;
        check!((999_990..1_000_060).contains(&ahead), "boottime of {who} is {ahead} s ahead");
        check_eq!(seen["uid_map"], json!([[0, 100_000, 65536]]), "uid_map of {who}");
    }
    check_eq!(init.number("oom_score_adj"), 77, "oom_score_adj");
    container.end()
}

fn loopback_is_up(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = bundle.report()?;
    check_eq!(seen["interfaces"]["lo"]["up"], json!(true), "lo is up");
    check_eq!(seen["interfaces"].as_object().map_or(0, |m| m.len()), 1, "interfaces: {}", seen["interfaces"]);
    Ok(())
}

/// A network namespace of the test's own with a pair of veth devices: kvA stays, kvB can be given away.
fn veth(ctx: &Context) -> Outcome<std::path::PathBuf> {
    let ip = ctx.need_program("ip")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let command =
        ctx.command(&ip.to_string_lossy()).args(["link", "add", "kvA", "type", "veth", "peer", "name", "kvB"]);
    command.run()?.ok()?;
    Ok(ip)
}

fn net_device_moves(ctx: &Context) -> Outcome {
    let ip = veth(ctx)?;
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/linux/netDevices", json!({"kvB": {}})).guest(&["report"]).run()?.ok()?.report()?;
    check_eq!(seen["interfaces"]["kvB"]["up"], json!(true), "kvB is up, of {}", seen["interfaces"]);
    // Deleted with the container's network, or at least never moved back.
    let left = ctx.command(&ip.to_string_lossy()).args(["link", "show", "kvB"]).run()?;
    check!(left.code != 0, "kvB is in the runtime's network namespace again");
    Ok(())
}

fn net_device_is_renamed(ctx: &Context) -> Outcome {
    veth(ctx)?;
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/linux/netDevices", json!({"kvB": {"name": "eth7"}})).report()?;
    check_eq!(seen["interfaces"]["eth7"]["up"], json!(true), "eth7 is up, of {}", seen["interfaces"]);
    Ok(())
}

fn net_device_by_template(ctx: &Context) -> Outcome {
    veth(ctx)?;
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/linux/netDevices", json!({"kvB": {"name": "net%d"}})).report()?;
    check_eq!(seen["interfaces"]["net0"]["up"], json!(true), "net0 is up, of {}", seen["interfaces"]);
    Ok(())
}

fn net_device_keeps_addresses(ctx: &Context) -> Outcome {
    let ip = veth(ctx)?.to_string_lossy().into_owned();
    for address in ["192.0.2.7/24", "2001:db8::7/64"] {
        ctx.command(&ip).args(["addr", "add", address, "dev", "kvB", "nodad"]).run()?;
        ctx.command(&ip).args(["addr", "add", address, "dev", "kvB"]).run()?;
    }
    ctx.command(&ip).args(["link", "set", "kvB", "up"]).run()?.ok()?;
    let mut bundle = ctx.bundle()?;
    let seen = bundle.set("/linux/netDevices", json!({"kvB": {"name": "eth0"}})).report()?;
    let addresses = seen["interfaces"]["eth0"]["addresses"].clone();
    let has = |a: &str| addresses.as_array().is_some_and(|l| l.contains(&json!(a)));
    check!(has("192.0.2.7"), "IPv4 address is lost: {addresses}");
    check!(has("2001:db8::7"), "IPv6 address is lost: {addresses}");
    Ok(())
}

fn net_device_into_a_user_namespace(ctx: &Context) -> Outcome {
    veth(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    let seen = bundle.set("/linux/netDevices", json!({"kvB": {"name": "eth0"}})).report()?;
    check_eq!(seen["interfaces"]["eth0"]["up"], json!(true), "eth0 is up, of {}", seen["interfaces"]);
    Ok(())
}

fn net_device_missing(ctx: &Context) -> Outcome {
    veth(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/netDevices", json!({"notthere": {}})).refused(&["notthere"])
}

/// `lo` is in every network namespace. The device that could not be moved stays with the caller.
fn net_device_taken(ctx: &Context) -> Outcome {
    let ip = veth(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/netDevices", json!({"kvB": {"name": "lo"}})).refused(&["kvB"])?;
    ctx.command(&ip.to_string_lossy()).args(["link", "show", "kvB"]).run()?.ok()?;
    Ok(())
}
