//! `root`, devices, masked and read-only paths, sysctl, names (config.md#root, config-linux.md).

use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::{Context, Outcome, Peer, Run, Test, Value, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "root_is_the_only_thing_seen", run: root_is_the_only_thing_seen },
    Test { name: "root_with_no_pivot", run: root_with_no_pivot },
    Test { name: "no_pivot_covers_proc_and_sys_of_the_host", run: no_pivot_covers },
    Test { name: "no_pivot_takes_nothing_from_the_host", run: no_pivot_takes_nothing },
    Test { name: "root_path_absolute", run: root_path_absolute },
    Test { name: "root_path_relative_with_dots", run: root_path_relative_with_dots },
    Test { name: "root_that_is_a_mount_point", run: root_that_is_a_mount_point },
    Test { name: "root_readonly", run: root_readonly },
    Test { name: "root_readonly_leaves_the_hosts_directory_writable", run: root_readonly_host },
    Test { name: "nothing_is_mounted_on_the_host", run: nothing_on_the_host },
    Test { name: "propagation_shared", run: propagation },
    Test { name: "propagation_rshared", run: propagation },
    Test { name: "propagation_slave", run: propagation },
    Test { name: "propagation_rslave", run: propagation },
    Test { name: "propagation_private", run: propagation },
    Test { name: "propagation_rprivate", run: propagation },
    Test { name: "propagation_unbindable", run: propagation },
    Test { name: "propagation_runbindable", run: propagation },
    Test { name: "propagation_default_is_not_shared", run: propagation_default },
    Test { name: "shared_root_leaves_nothing_on_the_host", run: shared_root },
    Test { name: "slave_receives_mounts_of_the_host", run: slave_receives },
    Test { name: "private_receives_nothing", run: private_receives_nothing },
    Test { name: "shared_bind_sends_mounts_to_the_host", run: shared_sends },
    Test { name: "default_devices", run: default_devices },
    Test { name: "default_links", run: default_links },
    Test { name: "default_devices_without_a_dev_mount", run: default_devices_in_rootfs },
    Test { name: "default_devices_in_a_user_namespace", run: default_devices_in_a_user_namespace },
    Test { name: "device_char", run: device_char },
    Test { name: "device_unbuffered", run: device_unbuffered },
    Test { name: "device_block", run: device_block },
    Test { name: "device_fifo", run: device_fifo },
    Test { name: "device_owner_and_mode", run: device_owner_and_mode },
    Test { name: "device_in_a_new_directory", run: device_in_a_new_directory },
    Test { name: "device_that_exists_already", run: device_that_exists },
    Test { name: "device_that_exists_gets_mode_and_owner", run: device_that_exists_gets_mode_and_owner },
    Test { name: "device_given_twice", run: device_given_twice },
    Test { name: "device_in_a_user_namespace", run: device_in_a_user_namespace },
    Test { name: "masked_file_is_empty", run: masked_file },
    Test { name: "masked_directory_is_empty", run: masked_directory },
    Test { name: "masked_path_may_be_missing", run: masked_missing },
    Test { name: "masked_paths_of_the_default_list", run: masked_default },
    Test { name: "readonly_file_and_directory", run: readonly_paths },
    Test { name: "readonly_path_may_be_missing", run: readonly_missing },
    Test { name: "readonly_path_keeps_flags", run: readonly_keeps_flags },
    Test { name: "sysctl_of_the_network", run: sysctl_network },
    Test { name: "sysctl_with_a_readonly_proc", run: sysctl_with_a_readonly_proc },
    Test { name: "sysctl_of_ipc", run: sysctl_ipc },
    Test { name: "sysctl_domainname", run: sysctl_domainname },
    Test { name: "sysctl_with_slashes", run: sysctl_with_slashes },
    Test { name: "sysctl_user_limits", run: sysctl_user },
    Test { name: "sysctl_unknown_is_an_error", run: sysctl_unknown },
    Test { name: "hostname", run: hostname },
    Test { name: "domainname", run: domainname },
    Test { name: "hostname_of_the_host_stays", run: hostname_of_the_host },
    Test { name: "empty_directories_as_root", run: empty_root },
];

fn root_is_the_only_thing_seen(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/only-here", "x")?;
    let run = bundle.guest(&["report", ",", "ls", "/"]).run()?.ok()?;
    check!(run.said("ls")?.as_array().is_some_and(|l| l.contains(&json!("only-here"))), "entries: {}", run.said("ls")?);
    let seen = run.report()?;
    // Nothing of the host's mounts is left below the new root.
    for mount in seen.mounts() {
        let expected = mount.target == "/"
            || ["/proc", "/dev", "/sys"]
                .iter()
                .any(|p| mount.target == *p || mount.target.starts_with(&format!("{p}/")));
        check!(expected, "unexpected mount {mount:?}");
    }
    check_eq!(seen.mounts().iter().filter(|m| m.target == "/").count(), 1, "mounts on /");
    Ok(())
}

fn root_with_no_pivot(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/only-here", "x")?;
    let run =
        bundle.option("--no-pivot").guest(&["report", ",", "ls", "/", ",", "read", "/proc/1/mounts"]).run()?.ok()?;
    check!(run.said("ls")?.as_array().is_some_and(|l| l.contains(&json!("only-here"))), "entries: {}", run.said("ls")?);
    check_eq!(run.report()?.text("cwd"), "/", "cwd");
    Ok(())
}

/// The moved root can be taken away again; what comes to light in a user namespace, where nothing can be unmounted, must
/// not be the host's procfs and sysfs.
fn no_pivot_covers(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.privileged().option("--no-pivot").guest(&["attack", "unroot"]);
    let seen = bundle.run()?.ok()?.said("attack")?;
    check_eq!(seen, json!({"is_outside": true, "proc": true, "sys": true}), "what is a tmpfs below the root");
    Ok(())
}

/// /proc and /sys are unmounted below the moved root, in what may be a peer group of the host's.
fn no_pivot_takes_nothing(ctx: &Context) -> Outcome {
    // Opened now: it may be what is taken away.
    let mut mountinfo = fs::File::open("/proc/self/mountinfo")?;
    let mut mounts = || -> Outcome<String> {
        let mut text = String::new();
        mountinfo.rewind()?;
        mountinfo.read_to_string(&mut text)?;
        Ok(text)
    };
    for kind in ["shared", "rshared", "rslave", "private"] {
        let mut bundle = ctx.bundle()?;
        bundle.set("/linux/rootfsPropagation", kind).option("--no-pivot").guest(&["exit", "0"]);
        let before = mounts()?;
        let run = bundle.run_command()?.spawn()?.wait();
        check_eq!(mounts()?, before, "the host's mounts after {kind}");
        run?.ok()?;
    }
    Ok(())
}

fn root_path_absolute(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let elsewhere = ctx.new_dir("elsewhere")?;
    fs::rename(&bundle.rootfs, elsewhere.join("root"))?;
    bundle.set("/root/path", elsewhere.join("root").to_string_lossy().into_owned());
    bundle.report()?;
    Ok(())
}

fn root_path_relative_with_dots(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let name = bundle.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    bundle.set("/root/path", format!("../{name}/./rootfs"));
    bundle.run_command()?.cwd("/").run()?.ok()?.report()?;
    Ok(())
}

fn root_that_is_a_mount_point(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    mount(Some(&bundle.rootfs), &bundle.rootfs, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let result = bundle.report();
    umount2(&bundle.rootfs, MntFlags::MNT_DETACH)?;
    result?;
    Ok(())
}

fn root_readonly(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.privileged().set("/root/readonly", true).guest(&["report", ",", "write", "/etc/x", "y"]);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    let run = bundle.run()?.ok()?;
    check_eq!(run.said("write")?["errno"], json!(libc::EROFS), "errno of writing to the root");
    check!(run.report()?.mount("/")?.has("ro"), "/ is not read-only");
    let run = bundle.guest(&["write", "/tmp/x", "y"]).run()?.ok()?;
    check_eq!(run.said("write")?["errno"], json!(0), "errno of writing to a tmpfs");
    Ok(())
}

fn root_readonly_host(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let container = bundle.set("/root/readonly", true).guest(&["sleep"]).start()?;
    fs::write(bundle.rootfs.join("from-host"), "x")?;
    container.end()
}

fn nothing_on_the_host(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let dir = ctx.new_dir("source")?;
    bundle.mount("/mnt/t", "bind", &dir, &["rbind", "rshared"]).mount("/mnt/u", "tmpfs", "tmpfs", &[]);
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let container = bundle.guest(&["sleep"]).start()?;
    let named = |text: &str| text.lines().filter(|l| l.contains(&*ctx.dir.to_string_lossy())).count();
    check_eq!(named(&fs::read_to_string("/proc/self/mountinfo")?), named(&before), "mounts of the host while it runs");
    container.end()
}

fn propagation(ctx: &Context) -> Outcome {
    let kind = ctx.name.rsplit('_').next().unwrap_or_default().to_owned();
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/rootfsPropagation", kind.clone());
    let words = bundle.report()?.mount("/")?.propagation;
    let has = |start: &str| words.iter().any(|w| w.starts_with(start));
    match kind.trim_start_matches('r') {
        "shared" => check!(has("shared:"), "/ is not shared: {words:?}"),
        // Without a peer to be slave of, a slave is private.
        "slave" => check!(!has("shared:"), "/ is shared: {words:?}"),
        "unbindable" => check!(has("unbindable"), "/ is not unbindable: {words:?}"),
        _ => check!(words.is_empty(), "/ is not private: {words:?}"),
    }
    Ok(())
}

fn propagation_default(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let words = bundle.report()?.mount("/")?.propagation;
    check!(!words.iter().any(|w| w.starts_with("shared:")), "/ is shared: {words:?}");
    Ok(())
}

/// A mount of the host below the root file system, shared there, with mounts of the container on it.
fn shared_root(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let volume = bundle.directory("/volume")?;
    mount(Some("tmpfs"), &volume, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let result = (|| {
        mount(None::<&str>, &volume, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
        fs::create_dir(volume.join("inner"))?;
        bundle.set("/linux/rootfsPropagation", "shared").mount("/volume/inner", "tmpfs", "tmpfs", &[]);
        bundle.push("/linux/maskedPaths", "/volume/inner");
        bundle.report()?;
        let inner = volume.join("inner").to_string_lossy().into_owned();
        let left = fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(&inner)).count();
        check_eq!(left, 0, "mounts on {inner}, seen from the host");
        Ok(())
    })();
    // All that is left on it goes too.
    umount2(&volume, MntFlags::MNT_DETACH)?;
    result
}

/// A host directory that is bound into the container, with a tmpfs mounted below it later by the host.
fn receives(ctx: &Context, options: &[&str]) -> Outcome<bool> {
    let mut bundle = ctx.bundle()?;
    let dir = ctx.new_dir("source")?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
    fs::create_dir(dir.join("later"))?;
    let mut result = || {
        // As Docker and podman do for a bind that propagates.
        if options.contains(&"rslave") {
            bundle.set("/linux/rootfsPropagation", "rslave");
        }
        bundle.mount("/mnt/t", "bind", &dir, options);
        let container = bundle.guest(&["sleep"]).start()?;
        mount(Some("tmpfs"), &dir.join("later"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let seen = container.exec(&["report"])?.ok()?.report()?.mount("/mnt/t/later").is_ok();
        container.end()?;
        Ok(seen)
    };
    let seen = result();
    umount2(&dir, MntFlags::MNT_DETACH)?;
    seen
}

fn slave_receives(ctx: &Context) -> Outcome {
    check!(receives(ctx, &["rbind", "rslave"])?, "a slave bind does not receive the host's mount");
    Ok(())
}

fn private_receives_nothing(ctx: &Context) -> Outcome {
    check!(!receives(ctx, &["rbind", "rprivate"])?, "a private bind receives the host's mount");
    Ok(())
}

fn shared_sends(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let dir = ctx.new_dir("source")?;
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
    let mut result = || {
        bundle.set("/linux/rootfsPropagation", "rshared").mount("/mnt/t", "bind", &dir, &["rbind", "rshared"]);
        let mut container = bundle.guest(&["report", ",", "sleep"]).start()?;
        let words = container.report()?.mount("/mnt/t")?.propagation;
        let own = fs::read_to_string("/proc/self/mountinfo")?;
        container.end()?;
        let group = words.iter().find(|w| w.starts_with("shared:")).cloned().ok_or(format!("not shared: {words:?}"))?;
        check!(own.contains(&format!(" {group} ")), "{group} is not a peer group of the host");
        Ok(())
    };
    let result = result();
    umount2(&dir, MntFlags::MNT_DETACH)?;
    result
}

fn stats(run: &Run) -> Vec<Value> {
    run.lines().iter().filter_map(|l| l.get("stat").cloned()).collect()
}

const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Words for the guest: each command for each path.
fn each(command: &str, paths: &[String], rest: &[&str]) -> Vec<String> {
    let mut words = vec![];
    for path in paths {
        words.extend([command.to_owned(), path.clone()]);
        words.extend(rest.iter().map(|w| (*w).to_owned()));
        words.push(",".into());
    }
    words.pop();
    words
}

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn default_devices(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let paths: Vec<String> = DEVICES.iter().map(|d| format!("/dev/{}", d.0)).collect();
    let run = bundle.guest(&texts(&each("stat", &paths, &[]))).run()?.ok()?;
    for (stat, (name, major, minor)) in stats(&run).iter().zip(DEVICES) {
        check_eq!(
            (&stat["kind"], &stat["major"], &stat["minor"]),
            (&json!("c"), &json!(major), &json!(minor)),
            "/dev/{name}"
        );
        check_eq!(stat["mode"], json!(0o666), "mode of /dev/{name}");
    }
    let usable = &paths[..5];
    let run = bundle.guest(&texts(&each("open", usable, &["rw"]))).run()?.ok()?;
    for (line, path) in run.lines().iter().zip(usable) {
        check_eq!(line["open"]["errno"], json!(0), "errno of opening {path}");
    }
    Ok(())
}

fn default_links(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ];
    let paths: Vec<String> = links.iter().map(|l| l.0.to_owned()).collect();
    let run = bundle.guest(&texts(&each("stat", &paths, &[]))).run()?.ok()?;
    for (stat, (path, target)) in stats(&run).iter().zip(links) {
        let seen = stat["target"].as_str().unwrap_or_default();
        check!(seen == target || seen == format!("/dev/{target}"), "{path} leads to {seen:?}, not {target:?}");
    }
    Ok(())
}

fn default_devices_in_rootfs(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    for path in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        bundle.without_mount(path);
    }
    let run = bundle.guest(&["stat", "/dev/null", ",", "open", "/dev/null", "rw"]).run()?.ok()?;
    check_eq!(run.said("stat")?["kind"], json!("c"), "kind of /dev/null");
    check_eq!(run.said("open")?["errno"], json!(0), "errno of opening /dev/null");
    Ok(())
}

fn default_devices_in_a_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    let paths: Vec<String> = DEVICES.iter().map(|d| format!("/dev/{}", d.0)).collect();
    let run = bundle.guest(&texts(&each("stat", &paths, &[]))).run()?.ok()?;
    for (stat, (name, major, minor)) in stats(&run).iter().zip(DEVICES) {
        check_eq!(
            (&stat["kind"], &stat["major"], &stat["minor"]),
            (&json!("c"), &json!(major), &json!(minor)),
            "/dev/{name}"
        );
    }
    let run = bundle.guest(&["open", "/dev/null", "rw"]).run()?.ok()?;
    check_eq!(run.said("open")?["errno"], json!(0), "errno of opening /dev/null");
    Ok(())
}

fn one_device(ctx: &Context, device: Value) -> Outcome<Value> {
    let mut bundle = ctx.bundle()?;
    let path = device["path"].as_str().unwrap_or_default().to_owned();
    bundle.set("/linux/devices", json!([device])).guest(&["stat", &path]).run()?.ok()?.said("stat")
}

fn device_char(ctx: &Context) -> Outcome {
    let stat = one_device(ctx, json!({"path": "/dev/extra", "type": "c", "major": 10, "minor": 229}))?;
    check_eq!((&stat["kind"], &stat["major"], &stat["minor"]), (&json!("c"), &json!(10), &json!(229)), "/dev/extra");
    Ok(())
}

fn device_unbuffered(ctx: &Context) -> Outcome {
    let stat = one_device(ctx, json!({"path": "/dev/extra", "type": "u", "major": 1, "minor": 3}))?;
    check_eq!((&stat["kind"], &stat["major"], &stat["minor"]), (&json!("c"), &json!(1), &json!(3)), "/dev/extra");
    Ok(())
}

fn device_block(ctx: &Context) -> Outcome {
    let stat = one_device(ctx, json!({"path": "/dev/disk", "type": "b", "major": 7, "minor": 7}))?;
    check_eq!((&stat["kind"], &stat["major"], &stat["minor"]), (&json!("b"), &json!(7), &json!(7)), "/dev/disk");
    Ok(())
}

fn device_fifo(ctx: &Context) -> Outcome {
    let stat = one_device(ctx, json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}))?;
    check_eq!((&stat["kind"], &stat["mode"]), (&json!("p"), &json!(0o600)), "/dev/pipe");
    Ok(())
}

fn device_owner_and_mode(ctx: &Context) -> Outcome {
    let device =
        json!({"path": "/dev/extra", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 11, "gid": 22});
    let stat = one_device(ctx, device)?;
    check_eq!((&stat["mode"], &stat["uid"], &stat["gid"]), (&json!(0o640), &json!(11), &json!(22)), "/dev/extra");
    Ok(())
}

fn device_in_a_new_directory(ctx: &Context) -> Outcome {
    let stat = one_device(ctx, json!({"path": "/dev/net/deep/tun", "type": "c", "major": 10, "minor": 200}))?;
    check_eq!((&stat["kind"], &stat["minor"]), (&json!("c"), &json!(200)), "/dev/net/deep/tun");
    Ok(())
}

/// Engines merge lists of devices; an error is due only where the second is another device.
/// What is asked for is applied, what is not is left.
fn device_that_exists_gets_mode_and_owner(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    for name in ["all", "mode"] {
        mknod(&bundle.rootfs.join(name), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3))?;
        std::os::unix::fs::chown(bundle.rootfs.join(name), Some(5), Some(6))?;
    }
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/all", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 0},
            {"path": "/mode", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666},
        ]),
    );
    for (path, mode, uid, gid) in [("/all", 0o640, 7, 0), ("/mode", 0o666, 5, 6)] {
        let stat = bundle.guest(&["stat", path]).run()?.ok()?.said("stat")?;
        check_eq!((&stat["mode"], &stat["uid"], &stat["gid"]), (&json!(mode), &json!(uid), &json!(gid)), "{path}");
    }
    Ok(())
}

fn device_given_twice(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let device = |path: &str, minor: u32| json!({"path": path, "type": "c", "major": 1, "minor": minor});
    bundle.set("/linux/devices", json!([device("/dev/extra", 3), device("/dev/extra", 3)]));
    let stat = bundle.guest(&["stat", "/dev/extra"]).run()?.ok()?.said("stat")?;
    check_eq!((&stat["kind"], &stat["minor"]), (&json!("c"), &json!(3)), "/dev/extra");
    bundle.set("/linux/devices", json!([device("/dev/extra", 3), device("/dev/a/../extra", 5)]));
    if ctx.peer == Peer::Kelson {
        bundle.refused(&["linux.devices[1].path", "linux.devices[0]"])?;
    }
    Ok(())
}

/// A file of the same type and numbers may stand there already.
fn device_that_exists(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    mknod(&bundle.rootfs.join("extra"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3))?;
    bundle.set("/linux/devices", json!([{"path": "/extra", "type": "c", "major": 1, "minor": 3}]));
    check_eq!(bundle.guest(&["stat", "/extra"]).run()?.ok()?.said("stat")?["kind"], json!("c"), "kind of /extra");
    Ok(())
}

fn device_in_a_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.set("/linux/devices", json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]));
    let stat = bundle.guest(&["stat", "/dev/kmsg"]).run()?.ok()?.said("stat")?;
    check_eq!((&stat["kind"], &stat["major"], &stat["minor"]), (&json!("c"), &json!(1), &json!(11)), "/dev/kmsg");
    Ok(())
}

fn masked_file(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/secret", "the secret")?;
    let run = bundle.set("/linux/maskedPaths", json!(["/secret"])).guest(&["read", "/secret"]).run()?.ok()?;
    check_eq!(run.said("read")?, json!({"errno": 0, "text": ""}), "content of a masked file");
    Ok(())
}

fn masked_directory(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/secrets/one", "the secret")?;
    bundle.file("/more/two", "the secret")?;
    bundle.privileged().set("/linux/maskedPaths", json!(["/secrets", "/more"]));
    let run = bundle.guest(&["ls", "/secrets", ",", "write", "/secrets/new", "x"]).run()?.ok()?;
    check_eq!(run.said("ls")?, json!([]), "entries of a masked directory");
    check_eq!(run.said("write")?["errno"], json!(libc::EROFS), "errno of writing there");
    let run = bundle.guest(&["ls", "/more"]).run()?.ok()?;
    check_eq!(run.said("ls")?, json!([]), "entries of the second masked directory");
    Ok(())
}

fn masked_missing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/maskedPaths", json!(["/not/there", "/proc/nope"]));
    bundle.run()?.ok()?;
    Ok(())
}

fn masked_default(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let run = bundle.guest(&["read", "/proc/timer_list", ",", "ls", "/sys/firmware"]).run()?.ok()?;
    check_eq!(run.said("read")?["text"].as_str().unwrap_or_default(), "", "content of /proc/timer_list");
    let entries = run.said("ls")?;
    check!(entries == json!([]) || entries["errno"] == json!(libc::ENOENT), "entries of /sys/firmware: {entries}");
    Ok(())
}

fn readonly_paths(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.file("/fixed/file", "x")?;
    bundle.file("/etc/fixed", "x")?;
    bundle.privileged().set("/linux/readonlyPaths", json!(["/fixed", "/etc/fixed", "/proc/sys"]));
    for path in ["/fixed/file", "/fixed/new", "/etc/fixed", "/proc/sys/kernel/hostname"] {
        let run = bundle.guest(&["write", path, "y"]).run()?.ok()?;
        check_eq!(run.said("write")?["errno"], json!(libc::EROFS), "errno of writing {path}");
    }
    let run = bundle.guest(&["write", "/etc/other", "y"]).run()?.ok()?;
    check_eq!(run.said("write")?["errno"], json!(0), "errno of writing beside");
    Ok(())
}

fn readonly_missing(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/readonlyPaths", json!(["/not/there", "/proc/nope"]));
    bundle.run()?.ok()?;
    Ok(())
}

fn readonly_keeps_flags(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/readonlyPaths", json!(["/sys/kernel"]));
    let mount = bundle.report()?.mount("/sys/kernel")?;
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        check!(mount.has(option), "no {option} on a read-only path below a mount that has it: {mount:?}");
    }
    Ok(())
}

fn sysctl(ctx: &Context, key: &str, file: &str, value: &str) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/sysctl", json!({key: value}));
    let run = bundle.guest(&["read", file]).run()?.ok()?;
    check_eq!(run.said("read")?["text"].as_str().unwrap_or_default().trim_end(), value, "{file}");
    Ok(())
}

fn sysctl_network(ctx: &Context) -> Outcome {
    sysctl(ctx, "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward", "1")
}

fn sysctl_with_a_readonly_proc(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.edit(|config| config["mounts"][0]["options"] = json!(["nosuid", "noexec", "nodev", "ro"]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})).remove("/linux/readonlyPaths");
    bundle.guest(&["report", ",", "read", "/proc/sys/net/ipv4/ip_forward"]);
    let run = bundle.run()?.ok()?;
    check!(run.report()?.mount("/proc")?.has("ro"), "/proc is writable");
    check_eq!(run.said("read")?["text"], json!("1\n"), "ip_forward");
    Ok(())
}

fn sysctl_ipc(ctx: &Context) -> Outcome {
    sysctl(ctx, "kernel.msgmax", "/proc/sys/kernel/msgmax", "4321")?;
    sysctl(ctx, "fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max", "17")
}

fn sysctl_domainname(ctx: &Context) -> Outcome {
    sysctl(ctx, "kernel.domainname", "/proc/sys/kernel/domainname", "by.sysctl")
}

/// sysctl(8): with slashes as separators a dot is part of a name.
fn sysctl_with_slashes(ctx: &Context) -> Outcome {
    sysctl(ctx, "net/ipv4/conf/lo/forwarding", "/proc/sys/net/ipv4/conf/lo/forwarding", "1")
}

fn sysctl_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    bundle.set("/linux/sysctl", json!({"user.max_user_namespaces": "5"}));
    let run = bundle.guest(&["read", "/proc/sys/user/max_user_namespaces"]).run()?.ok()?;
    check_eq!(run.said("read")?["text"], json!("5\n"), "user.max_user_namespaces");
    Ok(())
}

fn sysctl_unknown(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.no_such_thing": "1"})).refused(&["no_such_thing"])
}

fn hostname(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    check_eq!(bundle.set("/hostname", "galleon").report()?.text("hostname"), "galleon", "hostname");
    Ok(())
}

fn domainname(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    check_eq!(bundle.set("/domainname", "sea.example").report()?.text("domainname"), "sea.example", "domainname");
    Ok(())
}

fn hostname_of_the_host(ctx: &Context) -> Outcome {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut bundle = ctx.bundle()?;
    bundle.set("/hostname", "galleon").report()?;
    check_eq!(fs::read_to_string("/proc/sys/kernel/hostname")?, before, "hostname of the host");
    Ok(())
}

/// All that is needed is made: /dev, /proc and /sys are not there.
fn empty_root(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let root = bundle.dir.join("bare");
    fs::create_dir(&root)?;
    fs::copy(&ctx.guest, root.join("guest"))?;
    symlink("guest", root.join("alias"))?;
    bundle.set("/root/path", "bare").set("/process/args", json!(["/alias", "report"]));
    bundle.report()?.mount("/proc")?;
    let mode = fs::metadata(root.join("proc"))?.permissions().mode() & 0o777;
    check_eq!(mode, 0o755, "mode of the directory that was made for /proc");
    check_eq!(fs::metadata(root.join("proc"))?.uid(), 0, "its owner");
    Ok(())
}
