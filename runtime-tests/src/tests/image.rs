//! `run --image` and `bundle`: a container from an image, as docker run would have it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::bundle::{GUEST, capability_bits, give};
use crate::harness::image::Image;
use crate::harness::{Cmd, Context, Outcome, Run, Test, Value, eventually, json};
use crate::tracer::{self, Action, Call, Settings};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "archive_is_imported_and_run", run: archive },
    Test { name: "second_run_reads_no_archive_twice", run: remembered },
    Test { name: "entrypoint_and_command", run: arguments },
    Test { name: "environment", run: environment },
    Test { name: "user_by_name_with_its_groups", run: user },
    Test { name: "user_by_number_with_its_groups", run: numeric_user },
    Test { name: "user_by_number_whatever_passwd_is", run: hostile_passwd },
    Test { name: "user_that_is_not_in_the_image", run: unknown_user },
    Test { name: "working_directory", run: working_directory },
    Test { name: "defaults_are_docker_s", run: defaults },
    Test { name: "ping_without_a_privilege", run: ping },
    Test { name: "capabilities", run: capabilities },
    Test { name: "seccomp", run: seccomp },
    Test { name: "seccomp_profile_in_docker_s_format", run: docker_profile },
    Test { name: "privileged", run: privileged },
    Test { name: "privileged_has_its_own_cgroups_on_v2", run: privileged_cgroups },
    Test { name: "limits", run: limits },
    Test { name: "mounts", run: mounts },
    Test { name: "read_only_root", run: read_only },
    Test { name: "volumes_hold_what_the_image_has_there", run: volumes },
    Test { name: "hosts_and_host_name", run: hosts },
    Test { name: "host_name_of_the_host", run: host_name },
    Test { name: "labels_do_not_configure_the_runtime", run: labels },
    Test { name: "device", run: device },
    Test { name: "devices_below_a_directory", run: device_directory },
    Test { name: "init_reaps_and_passes_signals_on", run: init },
    Test { name: "exit_codes", run: exit_codes },
    Test { name: "detached_until_deleted", run: detached },
    Test { name: "detached_and_removed_at_its_end", run: removed },
    Test { name: "layer_that_is_kept", run: kept },
    Test { name: "nothing_is_mounted_on_the_host", run: not_on_the_host },
    Test { name: "failures_leave_nothing", run: failures },
    Test { name: "image_that_is_not_there", run: missing },
    Test { name: "limits_of_what_is_unpacked", run: unpack_limits },
    Test { name: "registry_without_tls", run: plain_http },
    Test { name: "bundle_is_run_by_any_means", run: bundle },
    Test { name: "layers_stay_when_a_container_s_bundle_goes", run: bundle_goes },
    Test { name: "others_go_while_one_is_made", run: killed_once_known },
    Test { name: "explained", run: explained },
    Test { name: "global_options_reach_the_other_program", run: global_options },
    Test { name: "fifty_at_once", run: fifty },
    Test { name: "ordinary_user", run: rootless },
];

fn plain(ctx: &Context) -> Outcome<Image<'_>> {
    Image::new(ctx, json!({}), |_| Ok(()))
}

fn archive(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let id = image.fresh_id();
    let seen = image.command(&id, &[], &[]).run()?.ok()?.report()?;
    check_eq!(seen.mount("/")?.fs_type, "overlay", "file system of /");
    check_eq!(seen["hostname"], json!(id.chars().take(64).collect::<String>()), "host name");
    check_eq!(image.entries("layers").len(), 1, "layers of the store");
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    check_eq!(image.entries("roots"), Vec::<String>::new(), "containers that the store knows of");
    Ok(())
}

fn remembered(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    image.remember()?;
    // No program is started for it: there is none.
    let alone = ctx.dir.join("alone");
    fs::copy(&ctx.runtime, &alone)?;
    let (key, value) = ctx.marker();
    let own = ctx.command(&alone.to_string_lossy()).arg("--root").arg(&ctx.root).env("PATH", "/nowhere");
    let own =
        own.args(["run", "--network", "none", "-e", &format!("{key}={value}"), "--cgroup-parent", &ctx.cgroup_parent]);
    own.arg("--store").arg(&image.store).arg("--image").arg(&image.file).run()?.ok()?;
    // Another archive at its place is another image.
    let other = Image::new(ctx, json!({"Cmd": [GUEST, "print", "other"]}), |_| Ok(()))?;
    fs::rename(&other.file, &image.file)?;
    image.run(&[], &[])?.ok()?.prints("other\n")?;
    Ok(())
}

fn arguments(ctx: &Context) -> Outcome {
    let both = Image::new(ctx, json!({"Entrypoint": [GUEST, "print"], "Cmd": ["command"]}), |_| Ok(()))?;
    for (options, words, expected) in [
        (&[][..], &[][..], "command\n"),
        (&[], &["word"], "word\n"),
        (&["--entrypoint", GUEST], &["print", "other"], "other\n"),
        (&["--entrypoint", ""], &[GUEST, "print", "none"], "none\n"),
    ] {
        both.run(options, words)?.ok()?.prints(expected).map_err(|e| e.during(&format!("{options:?} {words:?}")))?;
    }
    both.run(&["--entrypoint", ""], &[])?.fails_saying(&["names no program to run"])?;
    Ok(())
}

fn environment(ctx: &Context) -> Outcome {
    let image = Image::new(ctx, json!({"Env": ["A=image", "B=image", "PATH=/bin"]}), |_| Ok(()))?;
    let file = ctx.dir.join("variables");
    fs::write(&file, "# not this\n\nF=file\nC=file\n")?;
    let file = file.to_string_lossy().into_owned();
    let options = ["-e", "B=option", "--env-file", &file, "-e", "C=option", "-e", "OUTSIDE", "-e", "NOWHERE"];
    let seen = image.command(&image.fresh_id(), &options, &[]).env("OUTSIDE", "caller's").run()?.ok()?.report()?;
    for (key, value) in [
        ("A", Some("image")),
        ("B", Some("option")),
        ("C", Some("option")),
        ("F", Some("file")),
        ("OUTSIDE", Some("caller's")),
        ("NOWHERE", None),
        ("PATH", Some("/bin")),
        ("HOME", Some("/root")),
    ] {
        check_eq!(variable(&seen, key), value, "variable {key}");
    }
    image.run(&["-e", ""], &[])?.fails_saying(&["-e", "no name"])?;
    fs::write(&file, "export A=b\n")?;
    image.run(&["--env-file", &file], &[])?.fails_saying(&["--env-file", "variables", "\"export A\""])?;
    Ok(())
}

/// A variable of the report.
fn variable<'r>(report: &'r Value, name: &str) -> Option<&'r str> {
    let all = report["env"].as_array()?;
    all.iter().find_map(|entry| entry.as_str()?.strip_prefix(name)?.strip_prefix('='))
}

fn user(ctx: &Context) -> Outcome {
    let image = Image::new(ctx, json!({"User": "sailor"}), |_| Ok(()))?;
    let seen = image.run(&[], &[])?.ok()?.report()?;
    check_eq!(
        (&seen["uids"], &seen["gids"]),
        (&json!([1000, 1000, 1000, 1000]), &json!([1000, 1000, 1000, 1000])),
        "ids"
    );
    check_eq!(seen["groups"], json!([1000, 2000]), "groups");
    check_eq!(variable(&seen, "HOME"), Some("/home/sailor"), "HOME");
    let seen = image.run(&["-u", "5:crew", "--group-add", "7"], &[])?.ok()?.report()?;
    check_eq!((&seen["uids"][0], &seen["gids"][0]), (&json!(5), &json!(2000)), "ids by option");
    check_eq!(seen["groups"], json!([7, 2000]), "groups by option");
    Ok(())
}

fn numeric_user(ctx: &Context) -> Outcome {
    let image = Image::new(ctx, json!({"User": "1000"}), |rootfs| {
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")?;
        Ok(fs::write(rootfs.join("etc/group"), "root:x:0:\nwheel:x:10:root\napp:x:1001:\ncrew:x:2000:root,app\n")?)
    })?;
    let seen = image.run(&[], &[])?.ok()?.report()?;
    check_eq!(variable(&seen, "HOME"), Some("/home/app"), "HOME");
    for (options, ids, groups) in [
        (&[][..], (1000, 1001), json!([1001, 2000])),
        (&["-u", "0"], (0, 0), json!([0, 10, 2000])),
        (&["-u", "4242"], (4242, 0), json!([0])),
        // With a group there are no further ones.
        (&["-u", "1000:7"], (1000, 7), json!([7])),
        (&["-u", "app:crew"], (1000, 2000), json!([2000])),
    ] {
        let seen = image.run(options, &[])?.ok()?.report()?;
        check_eq!((&seen["uids"][0], &seen["gids"][0]), (&json!(ids.0), &json!(ids.1)), "ids with {options:?}");
        check_eq!(seen["groups"], groups, "groups with {options:?}");
    }
    Ok(())
}

fn hostile_passwd(ctx: &Context) -> Outcome {
    type Make = fn(&Path) -> Outcome;
    let fifo: Make = |path| Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644))?);
    let link: Make = |path| Ok(std::os::unix::fs::symlink("../../../../../../../../etc/passwd", path)?);
    let large: Make = |path| Ok(fs::write(path, "app:x:1000:1001::/:/bin/sh\n".repeat(50_000))?);
    for make in [fifo, link, large] {
        let image = Image::new(ctx, json!({"User": "1000"}), |rootfs| {
            for name in ["etc/passwd", "etc/group"] {
                fs::remove_file(rootfs.join(name))?;
                make(&rootfs.join(name))?;
            }
            Ok(())
        })?;
        let seen = image.run(&[], &[])?.ok()?.report()?;
        check_eq!((&seen["uids"][0], &seen["gids"][0]), (&json!(1000), &json!(0)), "ids");
        check_eq!(seen["groups"], json!([0]), "groups");
    }
    Ok(())
}

fn unknown_user(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    image.run(&["--user", "nobody-there"], &[])?.fails_saying(&["nobody-there", "/etc/passwd"])?;
    // The file is what the image makes of it.
    let pipe = Image::new(ctx, json!({"User": "sailor"}), |rootfs| {
        fs::remove_file(rootfs.join("etc/passwd"))?;
        nix::unistd::mkfifo(&rootfs.join("etc/passwd"), nix::sys::stat::Mode::from_bits_truncate(0o644))?;
        Ok(())
    })?;
    pipe.run(&[], &[])?.fails_saying(&["/etc/passwd"])?;
    let link = Image::new(ctx, json!({"User": "root"}), |rootfs| {
        fs::remove_file(rootfs.join("etc/passwd"))?;
        std::os::unix::fs::symlink("../../../../../../../../etc/passwd", rootfs.join("etc/passwd"))?;
        Ok(())
    })?;
    link.run(&[], &[])?.fails_saying(&["/etc/passwd"])?;
    Ok(())
}

fn working_directory(ctx: &Context) -> Outcome {
    let image = Image::new(ctx, json!({"WorkingDir": "/srv/app"}), |_| Ok(()))?;
    check_eq!(image.run(&[], &[])?.ok()?.report()?["cwd"], json!("/srv/app"), "of the image, which lacks it");
    check_eq!(image.run(&["-w", "/tmp"], &[])?.ok()?.report()?["cwd"], json!("/tmp"), "by option");
    image.run(&["-w", "tmp"], &[])?.fails_saying(&["--workdir", "no absolute path"])?;
    Ok(())
}

const DEFAULTS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A set of the report as bits.
fn bits(report: &Value, set: &str) -> u64 {
    report["capabilities"][set].as_u64().unwrap_or(u64::MAX)
}

fn defaults(ctx: &Context) -> Outcome {
    let seen = plain(ctx)?.run(&[], &[])?.ok()?.report()?;
    let words = ["read", "/proc/timer_list", ",", "write", "/proc/sys/kernel/domainname", "x", ",", "interfaces"];
    let run = plain(ctx)?.guest(&[], &words)?.ok()?;
    check_eq!(run.said("read")?["text"], json!(""), "a masked file");
    check_eq!(run.said("write")?["errno"], json!(libc::EROFS), "errno of writing below /proc/sys");
    check!(seen.mount("/sys")?.has("ro"), "/sys is writable");
    check!(seen.mount("/dev/shm")?.super_has("size=65536k"), "size of /dev/shm");
    for name in ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys/fs/cgroup", "/etc/hosts", "/etc/resolv.conf"] {
        seen.mount(name)?;
    }
    let names: Vec<Value> = run.said("interfaces")?.as_array().cloned().unwrap_or_default();
    check!(names.iter().all(|interface| interface["name"] == json!("lo")), "interfaces: {names:?}");
    Ok(())
}

/// socket(2) of ping(8) for who has no capability: the group range says who may (icmp(7)).
fn ping(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let socket = [libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP].map(|word| word.to_string());
    let number = libc::SYS_socket.to_string();
    let words = ["syscall", &number, &socket[0], &socket[1], &socket[2]];
    let errno = |options: &[&str]| -> Outcome<Value> {
        let options: Vec<&str> = ["--user", "1000:1000", "--cap-drop", "ALL"].iter().chain(options).copied().collect();
        Ok(image.guest(&options, &words)?.ok()?.said("syscall")?["errno"].clone())
    };
    check_eq!(errno(&[])?, json!(0), "errno of a socket for echo requests");
    check_eq!(errno(&["--sysctl", "net.ipv4.ping_group_range=1 0"])?, json!(libc::EACCES), "errno where none may");
    Ok(())
}

fn capabilities(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let sets = |options: &[&str]| -> Outcome<u64> {
        let seen = image.run(options, &[])?.ok()?.report()?;
        check_eq!(bits(&seen, "bounding"), bits(&seen, "effective"), "bounding and effective");
        check_eq!(bits(&seen, "inheritable"), 0, "inheritable");
        Ok(bits(&seen, "bounding"))
    };
    let default = capability_bits(&DEFAULTS);
    check_eq!(sets(&[])?, default, "by default");
    check_eq!(sets(&["--cap-drop", "chown"])?, default & !capability_bits(&["CAP_CHOWN"]), "one less");
    check_eq!(sets(&["--cap-add", "CAP_SYS_TIME"])?, default | capability_bits(&["CAP_SYS_TIME"]), "one more");
    check_eq!(sets(&["--cap-drop", "ALL", "--cap-add", "KILL"])?, capability_bits(&["CAP_KILL"]), "one alone");
    image.run(&["--cap-add", "CAP_NONE"], &[])?.fails_saying(&["--cap-add", "CAP_NONE"])?;
    Ok(())
}

/// unshare(2) of a user namespace: docker's filter refuses it to who lacks CAP_SYS_ADMIN.
fn seccomp(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let number = libc::SYS_unshare.to_string();
    let flags = libc::CLONE_NEWUTS.to_string();
    let result = |options: &[&str]| -> Outcome<Value> {
        Ok(image.guest(options, &["syscall", &number, &flags])?.ok()?.said("syscall")?["errno"].clone())
    };
    check_eq!(result(&[])?, json!(libc::EPERM), "errno with the filter");
    check_eq!(result(&["--cap-add", "SYS_ADMIN"])?, json!(0), "errno with the capability");
    let seen = image.run(&["--security-opt", "seccomp=unconfined"], &[])?.ok()?.report()?;
    check_eq!(seen["seccomp"], no_filter(ctx), "mode without a filter");
    let file = ctx.dir.join("profile.json");
    fs::write(&file, json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}).to_string())?;
    check_eq!(result(&["--security-opt", &format!("seccomp={}", file.display())])?, json!(95), "errno by a profile");
    Ok(())
}

/// A rule of it holds for whom it says, and one that is not understood for nobody.
fn docker_profile(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let number = libc::SYS_unshare.to_string();
    let flags = libc::CLONE_NEWUTS.to_string();
    let file = ctx.dir.join("docker.json");
    let option = format!("seccomp={}", file.display());
    let run = |condition: &str, options: &[&str]| -> Outcome<Run> {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
            "syscalls": [
                {"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, condition: {"caps": ["CAP_SYS_ADMIN"]}},
            ],
        });
        fs::write(&file, profile.to_string())?;
        let options: Vec<&str> = ["--security-opt", &option].iter().chain(options).copied().collect();
        image.guest(&options, &["syscall", &number, &flags])
    };
    let errno = |condition: &str, options: &[&str]| -> Outcome<Value> {
        Ok(run(condition, options)?.ok()?.said("syscall")?["errno"].clone())
    };
    let admin = ["--cap-add", "SYS_ADMIN"];
    check_eq!(errno("excludes", &[])?, json!(95), "errno of a rule that is not for CAP_SYS_ADMIN, without it");
    check_eq!(errno("excludes", &admin)?, json!(0), "errno of a rule that is not for CAP_SYS_ADMIN, with it");
    check_eq!(errno("includes", &[])?, json!(libc::EPERM), "errno of the kernel, the rule being for CAP_SYS_ADMIN");
    check_eq!(errno("includes", &admin)?, json!(95), "errno of a rule that is for CAP_SYS_ADMIN, with it");
    run("include", &[])?.fails_saying(&["docker.json", "syscalls[0]", "include"])?;
    Ok(())
}

/// The mode of a process that its container filters nothing of; what hides newer system calls from all is a filter too.
fn no_filter(ctx: &Context) -> Value {
    json!(if ctx.filter.is_some() { 2 } else { 0 })
}

fn privileged(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let seen = image.run(&["--privileged"], &[])?.ok()?.report()?;
    let all: Vec<String> = crate::harness::bundle::all_capabilities();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    check_eq!(bits(&seen, "effective"), capability_bits(&all), "capabilities");
    check_eq!(seen["seccomp"], no_filter(ctx), "seccomp mode");
    check!(!seen.mount("/sys")?.has("ro"), "/sys is read-only");
    Ok(())
}

/// What the entrypoint of docker:dind does: below the host's root it would be there for all.
fn privileged_cgroups(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    let image = plain(ctx)?;
    let name = image.fresh_id();
    let run = image.guest(&["--privileged"], &["mkdir", &format!("/sys/fs/cgroup/{name}"), ",", "report"])?.ok()?;
    let is_on_host = fs::remove_dir(ctx.cgroups.path("freezer", &name)).is_ok();
    check!(!is_on_host, "the container made a cgroup below the host's root");
    check_eq!(run.said("mkdir")?["errno"], json!(0), "errno of making a cgroup");
    let seen = run.report()?;
    let own = fs::read_link("/proc/self/ns/cgroup")?;
    check!(seen["namespaces"]["cgroup"] != json!(own), "the cgroup namespace is the host's");
    let lines = seen["cgroup"].as_array().cloned().unwrap_or_default();
    check!(lines.contains(&json!("0::/")), "its cgroup is not the root that it sees: {lines:?}");
    Ok(())
}

fn limits(ctx: &Context) -> Outcome {
    ctx.need_controller("memory")?;
    ctx.need_controller("pids")?;
    let image = plain(ctx)?;
    let id = image.fresh_id();
    let options = ["-d", "--memory", "100m", "--pids-limit", "50", "--ulimit", "nofile=77:99"];
    image.command(&id, &options, &[GUEST, "sleep"]).run()?.ok()?;
    let own = format!("{}/{id}", ctx.cgroup_parent);
    let (memory, pids) = match ctx.is_v2() {
        true => ("memory.max", "pids.max"),
        false => ("memory.limit_in_bytes", "pids.max"),
    };
    let file = |controller: &str, name: &str| fs::read_to_string(ctx.cgroups.path(controller, &own).join(name));
    let (memory, pids) = (file("memory", memory)?, file("pids", pids)?);
    let state = ctx.runtime().args(["state", &id]).run()?.ok()?.json()?;
    let files = fs::read_to_string(format!("/proc/{}/limits", state["pid"]))?;
    ctx.runtime().args(["delete", "--force", &id]).run()?.ok()?;
    check_eq!((memory.trim(), pids.trim()), ("104857600", "50"), "limits of the cgroup");
    let line = files.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    check_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["77", "99"], "limit of files");
    Ok(())
}

fn mounts(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let dir = ctx.new_dir("mounted")?;
    fs::write(dir.join("file"), "host")?;
    let host = dir.display().to_string();
    let (volume, long) = (format!("{host}:/a:ro"), format!("type=bind,source={host},target=/b"));
    let options = ["-v", &volume, "--mount", &long, "--tmpfs", "/c:size=1m"];
    let words = ["read", "/a/file", ",", "write", "/a/new", "x", ",", "write", "/b/new", "x", ",", "report"];
    let run = image.guest(&options, &words)?.ok()?;
    check_eq!(run.said("read")?["text"], json!("host"), "the file");
    let writes: Vec<Value> = run
        .lines()
        .into_iter()
        .filter(|line| line["write"].is_object())
        .map(|line| line["write"]["errno"].clone())
        .collect();
    check_eq!(writes, [json!(libc::EROFS), json!(0)], "errno of writing to /a and /b");
    let seen = run.report()?;
    check!(seen.mount("/c")?.super_has("size=1024k"), "size of /c");
    for (option, word) in [("/nowhere-at-all:/a", "/nowhere-at-all"), ("/a", "not kept")] {
        image.run(&["-v", option], &[])?.fails_saying(&[word])?;
    }
    Ok(())
}

fn read_only(ctx: &Context) -> Outcome {
    let run = plain(ctx)?
        .guest(&["--read-only", "--tmpfs", "/tmp"], &["write", "/x", "x", ",", "write", "/tmp/x", "x"])?
        .ok()?;
    let errnos: Vec<Value> = run.lines().into_iter().map(|line| line["write"]["errno"].clone()).collect();
    check_eq!(errnos, [json!(libc::EROFS), json!(0)], "errno of writing to / and /tmp");
    Ok(())
}

fn volumes(ctx: &Context) -> Outcome {
    let image = Image::new(ctx, json!({"Volumes": {"/data": {}}}), |rootfs| {
        fs::create_dir(rootfs.join("data"))?;
        Ok(fs::write(rootfs.join("data/file"), "image")?)
    })?;
    let run = image.guest(&[], &["read", "/data/file", ",", "write", "/data/new", "x", ",", "report"])?.ok()?;
    check_eq!(run.said("read")?["text"], json!("image"), "the file");
    check_eq!(run.said("write")?["errno"], json!(0), "errno of writing");
    check_eq!(run.report()?.mount("/data")?.fs_type, "tmpfs", "file system of /data");
    Ok(())
}

fn hosts(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let hosts = ["--add-host", "port:10.1.2.3", "--add-host", "sea=[2001:db8::1]"];
    let options = [&["--hostname", "ship", "--dns", "10.9.8.7"][..], &hosts].concat();
    let run = image.guest(&options, &["report", ",", "read", "/etc/hosts"])?.ok()?;
    check_eq!(run.report()?["hostname"], json!("ship"), "host name");
    let text = run.said("read")?["text"].as_str().unwrap_or_default().to_owned();
    for line in ["127.0.0.1\tlocalhost", "10.1.2.3\tport", "2001:db8::1\tsea", "\tship"] {
        check!(text.contains(line), "{line:?} is not in {text:?}");
    }
    let run = image.guest(&options, &["read", "/etc/resolv.conf"])?.ok()?;
    check_eq!(run.said("read")?["text"], json!("nameserver 10.9.8.7\n"), "/etc/resolv.conf");
    for (words, says) in [
        (&["--dns", "harbour"][..], &["--dns", "\"harbour\""][..]),
        (&["--hostname", "a b"], &["--hostname", "\"a b\""]),
        (&["--hostname", "ship", "--uts", "host"], &["--hostname", "--uts host"]),
        (&["--stop-signal", "HARBOUR"], &["--stop-signal", "HARBOUR"]),
        (&["--shm-size", "0"], &["--shm-size", "\"0\""]),
    ] {
        image.run(words, &[])?.fails_saying(says)?;
    }
    image.run(&["--add-host", "port:harbour"], &[])?.fails_saying(&["--add-host port", "\"harbour\" is no address"])?;
    let words = ["--add-host port:host-gateway", "--network none", "pasta:--map-gw"];
    image.run(&["--add-host", "port:host-gateway"], &[])?.fails_saying(&words)?;
    Ok(())
}

/// In the host's network, as docker, or UTS namespace a container has the host's name, unless it is given one.
fn host_name(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let name = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    for options in [&["--network", "host"][..], &["--uts", "host"]] {
        let run = image.guest(options, &["report", ",", "read", "/etc/hostname"])?.ok()?;
        let seen = run.report()?;
        check_eq!(seen["hostname"], json!(name), "host name, {options:?}");
        check_eq!(variable(&seen, "HOSTNAME"), Some(&*name), "HOSTNAME, {options:?}");
        check_eq!(run.said("read")?["text"], json!(format!("{name}\n")), "/etc/hostname, {options:?}");
    }
    let seen = image.run(&["--network", "host", "--hostname", "ship"], &[])?.ok()?.report()?;
    check_eq!((&seen["hostname"], variable(&seen, "HOSTNAME")), (&json!("ship"), Some("ship")), "a name of its own");
    image.run(&["--uts", "host", "--hostname", "ship"], &[])?.fails_saying(&["--hostname", "--uts host"])?;
    Ok(())
}

fn labels(ctx: &Context) -> Outcome {
    let hostile = json!({"Labels": {
        "org.kelson.overlay.upper": "/etc", "org.kelson.overlay.work": "/var",
        "org.systemd.property.ExecStart": "'/bin/sh'", "run.oci.handler": "krun", "harmless": "kept",
    }});
    let image = Image::new(ctx, hostile, |_| Ok(()))?;
    let id = image.fresh_id();
    let run = image.command(&id, &["-d", "--label", "own=1"], &[GUEST, "sleep"]).run()?.ok()?;
    check!(run.err().contains("org.kelson.overlay.upper"), "there is no warning: {}", run.told());
    let state = ctx.runtime().args(["state", &id]).run()?.ok()?.json()?;
    ctx.runtime().args(["delete", "--force", &id]).run()?.ok()?;
    let annotations = &state["annotations"];
    check_eq!((&annotations["harmless"], &annotations["own"]), (&json!("kept"), &json!("1")), "labels");
    for key in
        ["org.kelson.overlay.upper", "org.kelson.overlay.work", "org.systemd.property.ExecStart", "run.oci.handler"]
    {
        check_eq!(annotations[key], Value::Null, "{key}");
    }
    Ok(())
}

fn device(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let run = image
        .guest(&["--device", "/dev/null:/dev/mine:rw"], &["stat", "/dev/mine", ",", "open", "/dev/mine", "rw"])?
        .ok()?;
    check_eq!(run.said("open")?["errno"], json!(0), "errno of opening it");
    image.run(&["--device", "/etc/passwd"], &[])?.fails_saying(&["--device", "is no device"])?;
    Ok(())
}

fn device_directory(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let dir = ctx.new_dir("devices")?;
    let option = format!("{}:/dev/all:rw", dir.display());
    fs::write(dir.join("file"), "x")?;
    image.run(&["--device", &option], &[])?.fails_saying(&["--device", "there is no device below"])?;
    fs::create_dir(dir.join("deep"))?;
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    for (name, number) in [("null", 3), ("deep/zero", 5)] {
        let device = nix::sys::stat::makedev(1, number);
        nix::sys::stat::mknod(&dir.join(name), nix::sys::stat::SFlag::S_IFCHR, mode, device)?;
    }
    std::os::unix::fs::symlink("/dev/full", dir.join("link"))?;
    let words = [
        "ls",
        "/dev/all",
        ",",
        "ls",
        "/dev/all/deep",
        ",",
        "open",
        "/dev/all/null",
        "rw",
        ",",
        "stat",
        "/dev/all/deep/zero",
    ];
    let run = image.guest(&["--device", &option], &words)?.ok()?;
    let listed: Vec<Value> = run.lines().into_iter().filter(|line| !line["ls"].is_null()).collect();
    check_eq!(listed, [json!({"ls": ["deep", "null"]}), json!({"ls": ["zero"]})], "what is in the directories");
    check_eq!(run.said("open")?["errno"], json!(0), "errno of opening one");
    let stat = run.said("stat")?;
    check_eq!((&stat["kind"], &stat["major"], &stat["minor"]), (&json!("c"), &json!(1), &json!(5)), "another");
    Ok(())
}

fn init(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    image.guest(&["--init"], &["exit", "7"])?.exits(7)?;
    let seen = image.run(&["--init"], &[])?.ok()?.report()?;
    check!(seen["pid"] != json!(1), "the program is process 1");
    let id = image.fresh_id();
    let mut running = image.command(&id, &["--init"], &[GUEST, "signals"]).piped().spawn()?;
    running.line()?;
    ctx.runtime().args(["kill", &id, "TERM"]).run()?.ok()?;
    running.wait()?.ok()?;
    // Whoever is nobody's child any more is the init's, and gone when it ends.
    let id = image.fresh_id();
    image.command(&id, &["--init", "-d"], &[GUEST, "leave", "exit", "0", ",", "sleep"]).run()?.ok()?;
    let is_reaped = || {
        let processes = ctx.runtime().args(["ps", &id, "-eo", "pid,stat"]).run().ok()?.out();
        (!processes.lines().any(|line| line.contains(" Z")) && processes.lines().count() == 3).then_some(())
    };
    let reaped = eventually(ctx.patience, "the orphan is reaped", is_reaped);
    ctx.runtime().args(["delete", "--force", &id]).run()?.ok()?;
    reaped
}

fn exit_codes(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    image.guest(&[], &["exit", "42"])?.exits(42)?;
    image.run(&[], &["/nothing/there"])?.exits(127)?;
    image.run(&[], &["/etc/passwd"])?.exits(126)?;
    Ok(())
}

fn detached(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let id = image.fresh_id();
    image.command(&id, &["--detach"], &[GUEST, "sleep"]).run()?.ok()?;
    check_eq!(image.entries("roots").len(), 1, "containers that the store knows of");
    let state = ctx.runtime().args(["state", &id]).run()?.ok()?.json()?;
    check_eq!((&state["status"], &state["bundle"]), (&json!("running"), &json!(ctx.root.join(&id))), "state");
    ctx.runtime().args(["exec", &id, GUEST, "print", "exec"]).run()?.ok()?.prints("exec\n")?;
    ctx.runtime().args(["delete", "--force", &id]).run()?.ok()?;
    check_eq!(image.entries("roots"), Vec::<String>::new(), "containers that the store knows of, after the deletion");
    Ok(())
}

/// The process that waits for container `id`: Kelson's, and none of the container's own.
fn remover(ctx: &Context, id: &str) -> Outcome<i32> {
    let read = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    eventually(ctx.patience, &format!("a process waits for {id}"), || {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
        pids.find(|pid| {
            let own_session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(*pid)));
            read(*pid).split(|byte| *byte == 0).any(|word| word == id.as_bytes())
                && own_session.is_ok_and(|session| session.as_raw() == *pid)
        })
    })
}

fn is_there(pid: i32) -> bool {
    // One that has ended, and waits for init, is not there any more.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn removed(ctx: &Context) -> Outcome {
    ctx.need_new_syscalls("waiting for a process that is no child")?;
    let image = plain(ctx)?;
    let id = image.fresh_id();
    // Its output ends with the run: nobody holds it.
    image.command(&id, &["-d", "--rm"], &[GUEST, "signals"]).run()?.ok()?;
    let waits = remover(ctx, &id)?;
    let files = || -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/{waits}/fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned())).collect()
    };
    // The run does not wait until it has let go of what it was given.
    let files = eventually(ctx.patience, "four descriptors", || Some(files()).filter(|files| files.len() == 4))?;
    check_eq!(files.iter().filter(|file| *file == "/dev/null").count(), 3, "standard streams: {files:?}");
    check_eq!(fs::read_link(format!("/proc/{waits}/cwd"))?, Path::new("/"), "its directory");
    ctx.runtime().args(["kill", &id, "KILL"]).run()?.ok()?;
    eventually(ctx.patience, "the container is deleted and nobody waits", || {
        (ctx.state_entries().is_empty() && !is_there(waits)).then_some(())
    })?;
    check_eq!(image.entries("roots"), Vec::<String>::new(), "containers that the store knows of");
    // Deleted by somebody else, and there again: the next one with the name is another.
    image.command(&id, &["-d", "--rm"], &[GUEST, "sleep"]).run()?.ok()?;
    let waits = remover(ctx, &id)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(waits), nix::sys::signal::Signal::SIGSTOP)?;
    image.end(&id)?;
    image.command(&id, &["-d"], &[GUEST, "sleep"]).run()?.ok()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(waits), nix::sys::signal::Signal::SIGCONT)?;
    eventually(ctx.patience, "nobody waits any more", || (!is_there(waits)).then_some(()))?;
    let state = ctx.runtime().args(["state", &id]).run()?.ok()?.json()?;
    image.end(&id)?;
    check_eq!(state["status"], json!("running"), "the next container with the name");
    Ok(())
}

fn kept(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let upper = ctx.new_dir("kept")?.display().to_string();
    let options = ["--upper", &upper];
    image.guest(&options, &["write", "/etc/new", "x", ",", "chmod", "/etc/new", "0600"])?.ok()?;
    let seen = image.guest(&options, &["read", "/etc/new"])?.ok()?.said("read")?;
    check_eq!(seen["text"], json!("x"), "what the next container sees");
    check!(Path::new(&upper).join("upper/etc/new").exists(), "there is no file in the upper directory");
    let id = image.fresh_id();
    image.command(&id, &["--keep-layer"], &[GUEST, "write", "/new", "x"]).run()?.ok()?;
    check!(image.store.join("kept").join(&id).join("upper/new").exists(), "the layer is not in the store");
    Ok(())
}

fn not_on_the_host(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let id = image.fresh_id();
    image.command(&id, &["-d"], &[GUEST, "sleep"]).run()?.ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ctx.runtime().args(["delete", "--force", &id]).run()?.ok()?;
    let ours: Vec<&str> =
        mounts.lines().filter(|line| line.contains(&*image.store.to_string_lossy()) || line.contains(&id)).collect();
    check!(ours.is_empty(), "mounts on the host: {ours:?}");
    Ok(())
}

fn failures(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    image.run(&[], &[])?.ok()?;
    for options in [
        &["-v", "/nowhere-at-all:/a"][..],
        &["--user", "nobody-there"],
        &["--sysctl", "kernel.nothing=1"],
        &["--network", "ns:/nowhere"],
        &["--security-opt", "seccomp=/nowhere"],
        &["--security-opt", "apparmor=no-such-profile"],
        &["--publish", "1:1"],
    ] {
        image.run(options, &[])?.fails().map_err(|e| e.during(&format!("{options:?}")))?;
        check_eq!(ctx.state_entries(), Vec::<String>::new(), "state after {options:?}");
        check_eq!(
            image.entries("roots"),
            Vec::<String>::new(),
            "containers that the store knows of, after {options:?}"
        );
    }
    Ok(())
}

fn missing(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let run = |word: &str, options: &[&str]| {
        ctx.runtime().args(["run", "--store"]).arg(&image.store).args(options).args(["--image", word]).run()
    };
    run("nothing-there:1", &["--pull", "never"])?.fails_saying(&["nothing-there:1", "no such image"])?;
    run("./nothing.tar", &[])?.fails_saying(&["nothing.tar"])?;
    run("Not A Name", &[])?.fails_saying(&["Not A Name"])?;
    let broken = ctx.dir.join("broken.tar");
    fs::write(&broken, "not an archive")?;
    run(&broken.to_string_lossy(), &[])?.fails_saying(&["broken.tar"])?;
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    Ok(())
}

/// `run --image` and `bundle` of `word`, which may be fetched or imported for them; `name` is that of neither before.
fn both<'c>(ctx: &'c Context, image: &Image<'_>, name: &str, options: &[&str], word: &str) -> [Cmd<'c>; 2] {
    let (id, dir) = (image.fresh_id(), ctx.dir.join(name));
    let (key, value) = ctx.marker();
    let run = ctx.maker().args(["run", "--network", "none", "--name", &id, "-e", &format!("{key}={value}"), "--store"]);
    let run = run.arg(&image.store).arg("--cgroup-parent").arg(&ctx.cgroup_parent).args(options);
    let bundle = ctx.maker().args(["bundle", "--network", "none", "--store"]).arg(&image.store).args(options);
    [run.args(["--image", word]), bundle.arg(word).arg(dir)]
}

/// What the error says to raise can be raised.
fn unpack_limits(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let file = image.file.to_string_lossy();
    for command in both(ctx, &image, "few", &["--unpack-limits", "entries=2"], &file) {
        command.run()?.fails_saying(&["more than 2 entries", "--unpack-limits entries=N"])?;
    }
    for command in both(ctx, &image, "many", &["--unpack-limits", "entries=100000"], &file) {
        command.run()?.ok()?;
    }
    Ok(())
}

fn plain_http(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let registry = TcpListener::bind("127.0.0.1:0")?;
    registry.set_nonblocking(true)?;
    let host = registry.local_addr()?.to_string();
    // Of a registry on this machine it would be found out; it is not even tried.
    for command in both(ctx, &image, "fetched", &["--plain-http", &host], &format!("{host}/tool:1")) {
        let running = command.env("NO_PROXY", "127.0.0.1").spawn()?;
        let (mut asked, _) = eventually(ctx.patience, "the registry is asked", || registry.accept().ok())?;
        asked.set_nonblocking(false)?;
        asked.set_read_timeout(Some(ctx.patience))?;
        let mut request = [0; 4096];
        let length = asked.read(&mut request)?;
        let request = String::from_utf8_lossy(&request[..length]);
        asked.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        running.wait()?.fails_saying(&["404"])?;
        check!(request.starts_with("GET /v2/tool/manifests/1 HTTP/1.1\r\n"), "the registry is asked {request:?}");
    }
    Ok(())
}

fn bundle(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let dir = ctx.dir.join("made");
    let make = |options: &[&str]| {
        let own = ctx.runtime().args(["bundle", "--network", "none", "--store"]).arg(&image.store).args(options);
        own.arg(&image.file).arg(&dir).args([GUEST, "read", "/etc/hostname"]).run()
    };
    make(&["--memory", "50m"])?.ok()?;
    let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json"))?)?;
    check_eq!(config["linux"]["resources"]["memory"]["limit"], json!(52_428_800), "the limit in config.json");
    check_eq!(image.entries("roots").len(), 1, "bundles that the store knows of");
    make(&[])?.fails_saying(&["made"])?;
    // Edited by hand.
    let mut config = config;
    config["linux"]["cgroupsPath"] = json!(format!("{}/made", ctx.cgroup_parent));
    config["linux"]["resources"]["memory"] = json!({});
    config["hostname"] = json!("edited");
    fs::write(dir.join("config.json"), config.to_string())?;
    let id = image.fresh_id();
    let seen = ctx.maker().args(["run", "--bundle"]).arg(&dir).arg(&id).run()?.ok()?.said("read")?;
    check_eq!(seen["text"], json!("made\n"), "/etc/hostname of the bundle");
    Ok(())
}

/// The store knows of the container itself, too.
fn bundle_goes(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let dir = ctx.dir.join("made");
    let make = ctx.runtime().args(["bundle", "--network", "none", "--store"]).arg(&image.store);
    make.arg(&image.file).arg(&dir).args([GUEST, "sleep"]).run()?.ok()?;
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["linux"]["cgroupsPath"] = json!(format!("{}/made", ctx.cgroup_parent));
    fs::write(&path, config.to_string())?;
    let id = image.fresh_id();
    for command in ["run", "create"] {
        let detached = (command == "run").then_some("--detach");
        ctx.maker().arg(command).args(detached).arg("--bundle").arg(&dir).arg(&id).run()?.ok()?;
        fs::rename(&dir, ctx.dir.join("moved"))?;
        let pruned = image.image(&["prune", "--all"]).run()?.ok();
        let (layers, known) = (image.entries("layers").len(), image.entries("roots").len());
        fs::rename(ctx.dir.join("moved"), &dir)?;
        ctx.runtime().args(["delete", "--force", &id]).run()?.ok()?;
        pruned?;
        check_eq!(
            (layers, known),
            (1, 1),
            "layers, and containers and bundles that the store knows of, after {command}"
        );
        check_eq!(
            image.entries("roots"),
            Vec::<String>::new(),
            "containers that the store knows of, after the deletion"
        );
    }
    image.image(&["prune", "--all"]).run()?.ok()?;
    check_eq!(image.entries("layers"), Vec::<String>::new(), "layers that nobody uses");
    Ok(())
}

/// Who is killed as soon as the store knows of the container or bundle holds its own image, and no other.
fn killed_once_known(ctx: &Context) -> Outcome {
    ctx.need_kelson("a single thread, which is traced,")?;
    let image = plain(ctx)?;
    image.remember()?;
    let mut other = Image::new(ctx, json!({}), |rootfs| Ok(fs::write(rootfs.join("other"), "x")?))?;
    other.store.clone_from(&image.store);
    let (key, value) = ctx.marker();
    let (store, variable) = (image.store.display().to_string(), format!("{key}={value}"));
    let traced = |at: Option<(Call, Action)>, words: &[&str]| -> Outcome<(Run, Vec<Call>)> {
        let record = ctx.next_io().with_extension("calls");
        let tracer = ctx.command(&std::env::current_exe()?.to_string_lossy());
        let tracer = tracer.args(["--trace", &Settings { also: 0, at }.to_json(&record), "--"]);
        let command = tracer.arg(&ctx.runtime).arg("--root").arg(&ctx.root);
        let command = command.args(ctx.has_systemd().then_some("--systemd-cgroup")).args(words);
        Ok((command.run()?, tracer::calls(&record)?))
    };
    let run = |at: Option<(Call, Action)>, id: &str| {
        let own = ["run", "--network", "none", "--name", id, "--cgroup-parent", &ctx.cgroup_parent, "-e", &variable];
        let file = image.file.to_string_lossy();
        traced(at, &[&own[..], &["--store", &store, "--image", &file, "--", GUEST, "print", "ran"]].concat())
    };
    let bundle = |at: Option<(Call, Action)>, name: &str| {
        let (file, dir) = (image.file.to_string_lossy(), ctx.dir.join(name));
        traced(at, &["bundle", "--network", "none", "--store", &store, &file, &dir.to_string_lossy(), GUEST])
    };
    let kill = |calls: &[Call]| -> Outcome<(Call, Action)> {
        let mut own = calls.iter().filter(|call| call.process == 0);
        own.find(|call| [libc::SYS_symlink, libc::SYS_symlinkat].contains(&call.number)).ok_or("no link is made")?;
        Ok((*own.next().ok_or("it ends with the link")?, Action::Kill))
    };
    let (whole, id) = (image.fresh_id(), image.fresh_id());
    let (ran, calls) = run(None, &whole)?;
    ran.ok()?;
    check_eq!(run(Some(kill(&calls)?), &id)?.0.signal, Some(libc::SIGKILL), "signal that ends run");
    let known = image.entries("roots").len();
    let removed = other_is_removed(&other);
    ctx.runtime().args(["delete", "--force", &id]).run()?.ok()?;
    check_eq!((known, image.entries("roots").len()), (1, 0), "containers that the store knows of, before and after");
    removed?;
    let (made, calls) = bundle(None, "whole")?;
    made.ok()?;
    check_eq!(bundle(Some(kill(&calls)?), "killed")?.0.signal, Some(libc::SIGKILL), "signal that ends bundle");
    check_eq!(image.entries("roots").len(), 2, "bundles that the store knows of");
    other_is_removed(&other)
}

fn other_is_removed(other: &Image<'_>) -> Outcome {
    other.image(&["import", "--tag", "other:1", &other.file.to_string_lossy()]).run()?.ok()?;
    check_eq!(other.entries("layers").len(), 2, "layers of the store");
    other.image(&["remove", "other:1"]).run()?.ok()?;
    check_eq!(other.entries("layers").len(), 1, "layers of the store without the other image");
    Ok(())
}

fn explained(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let explain = || {
        let own = ctx
            .runtime()
            .args(["explain", "--json", "--network", "none", "--memory", "77m", "--store"])
            .arg(&image.store);
        own.arg("--image").arg(&image.file).arg(GUEST).run()
    };
    explain()?.fails_saying(&["does not have it"])?;
    check!(!image.store.exists(), "there is a store");
    image.remember()?;
    let text = explain()?.ok()?.out();
    let limit = ["80740352", "linux.resources.memory.limit"];
    // Where v2 lacks the controller that v1 has there is no file to name.
    let has_limit = ctx.need_controller("memory").is_ok();
    let words = limit.into_iter().filter(|_| has_limit).chain(["layers", "CAP_CHOWN", "/etc/hosts"]);
    for word in words {
        check!(text.contains(word), "{word} is not told: {text}");
    }
    // hosts and the like, which run makes itself.
    check!(!text.contains("no such file"), "what run would make is told to be missing: {text}");
    check_eq!((ctx.state_entries(), image.entries("roots")), (vec![], vec![]), "containers");
    Ok(())
}

fn global_options(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let log = ctx.dir.join("log");
    let own = ctx.runtime().arg("--log").arg(&log).args(["--log-format", "json", "--debug", "--rootless", "false"]);
    own.args(["image", "--store"]).arg(&image.store).args(["inspect", "nothing"]).run()?.fails_saying(&["nothing"])?;
    let text = fs::read_to_string(&log)?;
    let last = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).next_back();
    let last = last.ok_or_else(|| format!("no JSON in the log: {text}"))?;
    check_eq!(last["level"], json!("error"), "level of the last line");
    check!(last["msg"].to_string().contains("nothing"), "the last line: {last}");
    Ok(())
}

fn fifty(ctx: &Context) -> Outcome {
    let image = plain(ctx)?;
    let mut all = vec![];
    for _ in 0..50 {
        // Some of them find no store yet.
        all.push(image.command(&image.fresh_id(), &[], &[GUEST, "print", "ran"]).deadline(ctx.patience * 6).spawn()?);
    }
    for running in all {
        running.wait()?.ok()?.prints("ran\n")?;
    }
    check_eq!(image.entries("layers").len(), 1, "layers of the store");
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    check_eq!(image.entries("roots"), Vec::<String>::new(), "containers that the store knows of");
    Ok(())
}

fn rootless(ctx: &Context) -> Outcome {
    const USER: u32 = 61_000;
    // Groups of root's, as common images have them, for which there is no id.
    let image = Image::new(ctx, json!({}), |rootfs| {
        Ok(fs::write(rootfs.join("etc/group"), "root:x:0:root\nwheel:x:10:root\n")?)
    })?;
    ctx.become_rootless(USER)?;
    fs::create_dir(&image.store)?;
    give(&image.store, USER)?;
    fs::set_permissions(&ctx.dir, fs::Permissions::from_mode(0o755))?;
    let id = image.fresh_id();
    let (key, value) = ctx.marker();
    let run = ctx
        .runtime()
        .args(["run", "--network", "none", "--name", &id, "-e", &format!("{key}={value}"), "--store"])
        .arg(&image.store)
        .arg("--image")
        .arg(&image.file)
        .args([GUEST, "report", ",", "write", "/etc/new", "x"])
        .run()?
        .ok()?;
    let seen = run.report()?;
    check_eq!(seen["uids"], json!([0, 0, 0, 0]), "uids inside");
    check_eq!(seen["uid_map"][0], json!([0, USER, 1]), "uid_map");
    check_eq!(seen.mount("/")?.fs_type, "overlay", "file system of /");
    check_eq!(run.said("write")?["errno"], json!(0), "errno of writing");
    Ok(())
}
