//! The overlay root by fuse-overlayfs: where the kernel makes none, and where `org.kelson.overlay.fuse` asks for it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::diff::{CHANGED, CHANGES, as_user, image, start_as_user};
use super::overlay::{FsConfig, run_answered};
use super::rootless::{USER, rootless};
use crate::harness::bundle::{GUEST, capability_bits, give};
use crate::harness::{Bundle, Context, Outcome, Run, Test, eventually, json};
use crate::{check, check_eq, skip, sys};

pub const TESTS: &[Test] = &[
    Test { name: "annotation_asks_for_it", run: annotation },
    Test { name: "annotation_has_two_values", run: bad_annotation },
    Test { name: "option_overlay", run: option },
    Test { name: "refused_without_fsopen", run: without_fsopen },
    Test { name: "upper_layer_keeps_what_is_written", run: upper_layer },
    Test { name: "upper_and_work_directory_apart", run: apart },
    Test { name: "upper_path_with_odd_characters", run: odd_upper },
    Test { name: "hundred_layers_with_odd_paths", run: hundred_layers },
    Test { name: "kernel_without_overlays", run: kernel_without },
    Test { name: "upper_directory_on_an_overlay", run: on_an_overlay },
    Test { name: "errors_are_not_a_reason", run: not_a_reason },
    Test { name: "with_a_user_namespace", run: user_namespace },
    Test { name: "ordinary_user", run: ordinary_user },
    Test { name: "ordinary_user_where_the_kernel_refuses", run: ordinary_user_refused },
    Test { name: "ordinary_user_with_the_hosts_processes", run: without_pid_namespace },
    Test { name: "process_is_outside_of_the_container", run: outside },
    Test { name: "process_ends_with_the_container", run: ends },
    Test { name: "process_that_is_killed", run: killed },
    Test { name: "private_layer_is_as_large_as_the_memory", run: bounded },
    Test { name: "twenty_at_once", run: twenty },
    Test { name: "failed_create_leaves_nothing", run: failed_create },
    Test { name: "program_that_is_not_there", run: not_there },
    Test { name: "program_that_fails", run: fails },
    Test { name: "program_that_hangs_is_interrupted", run: hangs },
    Test { name: "explained", run: explained },
    Test { name: "diff_and_commit", run: changes },
    Test { name: "diff_and_commit_of_an_ordinary_user", run: changes_of_user },
];

const FUSE: &str = "fuse.fuse-overlayfs";
const ASKED: &str = "org.kelson.overlay.fuse=true";

fn need(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    ctx.need_program("fuse-overlayfs")?;
    ctx.need_new_syscalls("an overlay by fuse-overlayfs")?;
    if !Path::new("/dev/fuse").exists() {
        skip!("this kernel has no FUSE");
    }
    Ok(())
}

/// A bundle whose rootfs is the lowest layer below these, made by the kernel where it can.
fn over<'c>(ctx: &'c Context, layers: &[PathBuf]) -> Outcome<Bundle<'c>> {
    need(ctx)?;
    let mut bundle = ctx.bundle()?;
    let mut all = layers.to_vec();
    all.push(bundle.rootfs.clone());
    bundle.set("/annotations", json!({"org.kelson.overlay.lower": json!(all).to_string()}));
    Ok(bundle)
}

/// The same by fuse-overlayfs.
fn by_fuse<'c>(ctx: &'c Context, layers: &[PathBuf]) -> Outcome<Bundle<'c>> {
    let mut bundle = over(ctx, layers)?;
    bundle.set("/annotations/org.kelson.overlay.fuse", "true");
    Ok(bundle)
}

fn with_upper(bundle: &mut Bundle, upper: &Path, work: &Path) -> Outcome {
    fs::create_dir_all(upper)?;
    fs::create_dir_all(work)?;
    bundle.set("/annotations/org.kelson.overlay.upper", json!(upper));
    bundle.set("/annotations/org.kelson.overlay.work", json!(work));
    Ok(())
}

/// Writes, removes and looks.
const WORDS: &[&str] = &["report", ",", "write", "/new", "x", ",", "remove", "/etc/doomed", ",", "ls", "/etc"];

/// What [`WORDS`] said is as in a root that can be written to.
fn check_said(seen: &Run) -> Outcome {
    check_eq!(seen.report()?.mount("/")?.fs_type, FUSE, "file system of /");
    for word in ["write", "remove"] {
        check_eq!(seen.said(word)?["errno"], json!(0), "errno of {word}");
    }
    check!(!seen.said("ls")?.to_string().contains("doomed"), "still there: {}", seen.said("ls")?);
    Ok(())
}

/// Runs [`WORDS`], after which the layer is as it was.
fn check_run(bundle: &mut Bundle, run: impl FnOnce(&mut Bundle) -> Outcome<Run>) -> Outcome {
    bundle.file("/etc/doomed", "x")?;
    let seen = run(bundle.guest(WORDS))?.ok()?;
    check_said(&seen)?;
    check!(bundle.rootfs.join("etc/doomed").exists(), "removed from the layer");
    check!(!bundle.rootfs.join("new").exists(), "the layer was written to");
    Ok(())
}

fn annotation(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    check_run(&mut bundle, |bundle| bundle.run())?;
    let seen = bundle.guest(&["read", "/new"]).run()?.ok()?.said("read")?;
    check_eq!(seen["errno"], json!(libc::ENOENT), "errno of reading what an earlier container wrote");
    bundle.set("/annotations/org.kelson.overlay.fuse", "false");
    check_eq!(bundle.guest(&["report"]).report()?.mount("/")?.fs_type, "overlay", "file system of /");
    Ok(())
}

/// Without fsopen(2) it is refused, and the kernel's overlay is not taken instead.
fn without_fsopen(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    ctx.need_program("fuse-overlayfs")?;
    let mut bundle = ctx.bundle()?;
    bundle.option("--overlay").set("/annotations", json!({"org.kelson.overlay.fuse": "true"}));
    let run = bundle.run_command()?;
    let run = match ctx.filter {
        Some(_) => run,
        None => run.before_exec(sys::BeforeExec::Seccomp(sys::hide_calls(&[libc::SYS_fsopen], libc::ENOSYS))),
    };
    run.run()?.fails_saying(&["root.path", "mount a file system of type fuse", "Linux 5.2"])?;
    Ok(())
}

fn bad_annotation(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    bundle.set("/annotations/org.kelson.overlay.fuse", "yes").refused(&["org.kelson.overlay.fuse", "true nor false"])
}

fn option(ctx: &Context) -> Outcome {
    need(ctx)?;
    let mut bundle = ctx.bundle()?;
    bundle.option("--overlay").set("/annotations", json!({"org.kelson.overlay.fuse": "true"}));
    check_run(&mut bundle, |bundle| bundle.run())
}

fn upper_layer(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    let dir = ctx.new_dir("kept")?;
    with_upper(&mut bundle, &dir.join("upper"), &dir.join("work"))?;
    check_run(&mut bundle, |bundle| bundle.run())?;
    check_eq!(fs::read_to_string(dir.join("upper/new"))?, "x", "the file in the upper directory");
    let seen = bundle.guest(&["read", "/new", ",", "ls", "/etc"]).run()?.ok()?;
    check_eq!(seen.said("read")?["text"], json!("x"), "what the next container sees");
    check!(!seen.said("ls")?.to_string().contains("doomed"), "removed by an earlier container: {}", seen.said("ls")?);
    // The kernel reads what root's fuse-overlayfs wrote.
    bundle.remove("/annotations/org.kelson.overlay.fuse");
    let seen = bundle.guest(&["read", "/new", ",", "ls", "/etc"]).run()?.ok()?;
    check_eq!(seen.said("read")?["text"], json!("x"), "what the kernel's overlay has");
    check!(!seen.said("ls")?.to_string().contains("doomed"), "back in the kernel's overlay: {}", seen.said("ls")?);
    Ok(())
}

fn apart(ctx: &Context) -> Outcome {
    let dir = ctx.new_dir("kept")?;
    let mut bundle = by_fuse(ctx, &[])?;
    with_upper(&mut bundle, &dir.join("here/a b,c\\d"), &dir.join("there/work"))?;
    check_run(&mut bundle, |bundle| bundle.run())?;
    check_eq!(fs::read_to_string(dir.join("here/a b,c\\d/new"))?, "x", "the file in the upper directory");
    let other = dir.join("other");
    fs::create_dir(&other)?;
    mount(Some("tmpfs"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    with_upper(&mut bundle, &dir.join("upper"), &other.join("work"))?;
    let refused = bundle.refused(&["org.kelson.overlay.work", "another mount"]);
    umount2(&other, MntFlags::MNT_DETACH)?;
    refused
}

fn odd_upper(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    let dir = ctx.new_dir("a:b,c d\\e=f'g\"h%i+ü")?;
    with_upper(&mut bundle, &dir.join("upper"), &dir.join("work"))?;
    check_run(&mut bundle, |bundle| bundle.run())?;
    check_eq!(fs::read_to_string(dir.join("upper/new"))?, "x", "the file in the upper directory");
    with_upper(&mut bundle, &dir.join("up:per"), &dir.join("work"))?;
    bundle.refused(&["org.kelson.overlay.upper", "colon"])
}

fn hundred_layers(ctx: &Context) -> Outcome {
    let mut layers = vec![];
    for i in 0..100 {
        let dir = ctx.new_dir(&format!("{}:,\\ {}/l", "x".repeat(75), "y".repeat(150)))?;
        fs::write(dir.join("number"), i.to_string())?;
        fs::write(dir.join(format!("layer{i}")), "x")?;
        layers.push(dir);
    }
    let mut bundle = by_fuse(ctx, &layers)?;
    let seen = bundle.guest(&["ls", "/", ",", "read", "/number", ",", "report"]).run()?.ok()?;
    let names = seen.said("ls")?;
    let is_layer = |name: &&crate::harness::Value| name.as_str().is_some_and(|name| name.starts_with("layer"));
    check_eq!(names.as_array().into_iter().flatten().filter(is_layer).count(), 100, "layers that are seen");
    check_eq!(seen.said("read")?["text"], json!("0"), "content of the topmost");
    Ok(())
}

/// Runs the bundle where the kernel answers who makes an overlay of layers with `errno`.
fn run_refused(errno: i32, run: impl FnOnce() -> Outcome<Run> + Send) -> Outcome<Run> {
    let mut overlays = BTreeSet::new();
    let answer = |call: &FsConfig| {
        if call.is_layer {
            overlays.insert(call.context);
        }
        // The next one may have the same number.
        (call.command == FsConfig::CREATE && overlays.remove(&call.context)).then_some(errno)
    };
    run_answered(answer, run)
}

fn kernel_without(ctx: &Context) -> Outcome {
    ctx.need_kernel(6, 8, "lowerdir+, by which the test knows an overlay,")?;
    for errno in [libc::EPERM, libc::ENODEV, libc::EOPNOTSUPP] {
        let mut bundle = over(ctx, &[])?;
        check_run(&mut bundle, |bundle| run_refused(errno, || bundle.run()))?;
    }
    Ok(())
}

/// Mounts an overlay of the test's own, whose upper directory can be no other overlay's.
fn on_an_overlay(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let dir = ctx.new_dir("stacked")?;
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(dir.join(name))?;
    }
    let data = ["lower", "upper", "work"].map(|name| format!("{name}dir={}", dir.join(name).display())).join(",");
    let merged = dir.join("merged");
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(data.as_str()))?;
    let checked = with_upper(&mut bundle, &merged.join("u"), &merged.join("w"))
        .and_then(|()| check_run(&mut bundle, |bundle| bundle.run()))
        .and_then(|()| Ok(fs::read_to_string(merged.join("u/new"))?));
    umount2(&merged, MntFlags::MNT_DETACH)?;
    check_eq!(checked?, "x", "the file in the upper directory");
    Ok(())
}

/// What the kernel refuses because it is wrong is wrong.
fn not_a_reason(ctx: &Context) -> Outcome {
    let dir = ctx.new_dir("layers")?;
    fs::create_dir(dir.join("sub"))?;
    over(ctx, &[dir.join("sub"), dir.clone()])?.refused(&["lies inside of another"])?;
    let other = dir.join("other");
    fs::create_dir(&other)?;
    mount(Some("tmpfs"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let mut bundle = over(ctx, &[])?;
    let refused = with_upper(&mut bundle, &dir.join("upper"), &other.join("work")).and_then(|()| {
        let run = bundle.run()?.fails()?;
        check!(!run.err().contains("fuse"), "{}", run.err());
        Ok(())
    });
    umount2(&other, MntFlags::MNT_DETACH)?;
    refused
}

fn user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    let run = bundle.guest(&["report", ",", "write", "/new", "x", ",", "stat", "/new"]).run()?.ok()?;
    check_eq!(run.report()?.mount("/")?.fs_type, FUSE, "file system of /");
    check_eq!(run.said("write")?["errno"], json!(0), "errno of writing");
    check_eq!(run.said("stat")?["uid"], json!(0), "owner of the new file");
    bundle.remove("/annotations/org.kelson.overlay.fuse");
    ctx.need_kernel(6, 8, "lowerdir+, by which the test knows an overlay,")?;
    let run = run_refused(libc::EPERM, || bundle.guest(&["report"]).run())?.ok()?;
    check_eq!(run.report()?.mount("/")?.fs_type, FUSE, "file system of / where the kernel refuses it");
    Ok(())
}

/// /dev/fuse for everybody, as hosts have it; in a mount namespace of the test's own where it is not.
struct ForAll(Option<PathBuf>);

impl ForAll {
    fn see_to(ctx: &Context) -> Outcome<Self> {
        if fs::metadata("/dev/fuse")?.permissions().mode() & 0o006 == 0o006 {
            return Ok(Self(None));
        }
        let dir = ctx.new_dir("dev")?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let opened = Self(Some(dir.clone()));
        let own = dir.join("fuse");
        mknod(&own, SFlag::S_IFCHR, Mode::empty(), makedev(10, 229))?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o666))?;
        mount(Some(&own), "/dev/fuse", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(opened)
    }
}

impl Drop for ForAll {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            // Nothing is there if it could not be mounted.
            let _ = umount2("/dev/fuse", MntFlags::MNT_DETACH);
            let _ = umount2(dir, MntFlags::MNT_DETACH);
        }
    }
}

/// An ordinary user's bundle, whose layer has what [`WORDS`] remove.
fn of_user(ctx: &Context) -> Outcome<Bundle<'_>> {
    need(ctx)?;
    let mut bundle = rootless(ctx)?;
    bundle.file("/etc/doomed", "x")?;
    give(&bundle.dir, USER)?;
    let lower = json!([bundle.rootfs]).to_string();
    bundle.set("/annotations", json!({"org.kelson.overlay.lower": lower}));
    bundle.guest(WORDS);
    Ok(bundle)
}

fn run_of_user(bundle: &mut Bundle) -> Outcome<Run> {
    let container = bundle.container()?;
    bundle.remove("/linux/cgroupsPath").write()?;
    container.run_command().run()
}

fn ordinary_user(ctx: &Context) -> Outcome {
    let mut bundle = of_user(ctx)?;
    let _for_all = ForAll::see_to(ctx)?;
    bundle.set("/annotations/org.kelson.overlay.fuse", "true");
    check_said(&run_of_user(&mut bundle)?.ok()?)?;
    check!(!bundle.rootfs.join("new").exists(), "the layer was written to");
    let dir = ctx.new_dir("kept")?;
    with_upper(&mut bundle, &dir.join("upper"), &dir.join("work"))?;
    give(&dir, USER)?;
    check_said(&run_of_user(&mut bundle)?.ok()?)?;
    check_eq!(fs::read_to_string(dir.join("upper/new"))?, "x", "the file in the upper directory");
    // The kernel would not know which directories are opaque.
    bundle.remove("/annotations/org.kelson.overlay.fuse").guest(&["report"]);
    check_eq!(run_of_user(&mut bundle)?.ok()?.report()?.mount("/")?.fs_type, FUSE, "file system of / the next time");
    Ok(())
}

/// The process would be in the same user namespace, where the container's root may look into it.
fn without_pid_namespace(ctx: &Context) -> Outcome {
    let mut bundle = of_user(ctx)?;
    bundle.set("/annotations/org.kelson.overlay.fuse", "true").without_namespace("pid");
    run_of_user(&mut bundle)?.fails_saying(&["linux.namespaces", "give it a PID namespace"])?;
    Ok(())
}

fn ordinary_user_refused(ctx: &Context) -> Outcome {
    ctx.need_kernel(6, 8, "lowerdir+, by which the test knows an overlay,")?;
    let mut bundle = of_user(ctx)?;
    let _for_all = ForAll::see_to(ctx)?;
    check_said(&run_refused(libc::EPERM, || run_of_user(&mut bundle))?.ok()?)
}

/// The process that serves the overlay of container `id`.
fn server(id: &str) -> Option<i32> {
    let name = format!("fuse-overlayfs[{id}]\0");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.find(|pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(name.as_bytes())))
}

fn outside(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    let container = bundle.guest(&["sleep"]).start()?;
    let pid = server(&container.id).ok_or("no process serves the overlay")?;
    let namespace = |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    let own = std::process::id() as i32;
    for (kind, is_callers) in [("pid", true), ("user", true), ("mnt", false)] {
        check_eq!(namespace(pid, kind)? == namespace(own, kind)?, is_callers, "{kind}: the caller's");
    }
    for kind in ["pid", "mnt"] {
        check!(namespace(pid, kind)? != namespace(container.pid()?, kind)?, "{kind}: the container's");
    }
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    check_eq!(read("cgroup")?, fs::read_to_string("/proc/self/cgroup")?, "its cgroups");
    check!(!read("mountinfo")?.contains(FUSE), "it keeps the mount");
    check_eq!(read("environ")?, "", "its environment");
    let status = read("status")?;
    let value =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
    check_eq!(value("NoNewPrivs:"), "1", "no_new_privs");
    let kept = ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN"]
        .map(|name| format!("CAP_{name}"));
    let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
    check_eq!(value("CapBnd:"), format!("{:016x}", capability_bits(&kept)), "bounding set");
    check_eq!(value("CapPrm:"), value("CapBnd:"), "permitted set");
    check_eq!(value("SigBlk:"), "0000000000000000", "blocked signals");
    // Its own pipes and directories, and no socket or file of anybody's.
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path())?.to_string_lossy().into_owned();
        let is_own = ["/dev/fuse", "/dev/null", "pipe:", "/sys/"].iter().any(|start| target.starts_with(start));
        check!(is_own, "it has {target} open");
    }
    container.end()
}

fn gone(ctx: &Context, id: &str) -> Outcome {
    eventually(ctx.patience, "the process of the overlay ends", || server(id).is_none().then_some(()))
}

fn ends(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    // Of itself, by kill -9 of its only process, and never started.
    let container = bundle.guest(&["report"]).start()?;
    container.wait_status("stopped")?;
    gone(ctx, &container.id)?;
    container.delete()?.ok()?;
    let container = bundle.guest(&["sleep"]).start()?;
    check!(server(&container.id).is_some(), "no process serves the overlay");
    sys::kill(container.pid()?, libc::SIGKILL)?;
    gone(ctx, &container.id)?;
    // The mount goes before the process has ended.
    container.wait_status("stopped")?;
    container.delete()?.ok()?;
    let container = bundle.create()?;
    check!(server(&container.id).is_some(), "no process serves the overlay");
    container.delete_force()?.ok()?;
    gone(ctx, &container.id)
}

fn killed(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    let container = bundle.guest(&["until", "/nowhere"]).start()?;
    let pid = server(&container.id).ok_or("no process serves the overlay")?;
    sys::kill(pid, libc::SIGKILL)?;
    gone(ctx, &container.id)?;
    container.exec(&["report"])?.fails()?;
    container.delete_force()?.ok()?;
    check!(ctx.state_entries().is_empty(), "a container is left");
    Ok(())
}

fn bounded(ctx: &Context) -> Outcome {
    ctx.need_controller("memory")?;
    const LIMIT: u64 = 64 << 20;
    let mut bundle = by_fuse(ctx, &[])?;
    bundle.set("/linux/resources", json!({"memory": {"limit": LIMIT}}));
    let container = bundle.guest(&["sleep"]).start()?;
    let seen = nix::sys::statvfs::statvfs(format!("/proc/{}/root", container.pid()?).as_str())?;
    check_eq!(seen.blocks() * seen.fragment_size(), LIMIT, "bytes of the root");
    container.end()
}

fn twenty(ctx: &Context) -> Outcome {
    let mut bundles = vec![];
    for _ in 0..20 {
        let mut bundle = by_fuse(ctx, &[])?;
        bundle.guest(&["write", "/mine", "x", ",", "ls", "/", ",", "report"]);
        bundles.push(bundle);
    }
    let commands = bundles.iter_mut().map(|bundle| bundle.run_command()).collect::<Outcome<Vec<_>>>()?;
    let running = commands.into_iter().map(|command| command.spawn()).collect::<Outcome<Vec<_>>>()?;
    for run in running {
        let seen = run.wait()?.ok()?;
        check_eq!(seen.report()?.mount("/")?.fs_type, FUSE, "file system of /");
        check_eq!(seen.said("write")?["errno"], json!(0), "errno of writing");
    }
    Ok(())
}

fn failed_create(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    bundle.set("/process/args", json!(["/no/such/program"]));
    let container = bundle.container()?;
    container.run_command().run()?.fails()?;
    check!(ctx.state_entries().is_empty(), "a container is left");
    gone(ctx, &container.id)
}

/// A directory with this script as fuse-overlayfs.
fn instead(ctx: &Context, script: &str) -> Outcome<PathBuf> {
    let dir = ctx.new_dir("bin")?;
    fs::write(dir.join("fuse-overlayfs"), format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(dir.join("fuse-overlayfs"), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn not_there(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    let empty = ctx.new_dir("empty")?;
    let run = bundle.run_command()?.env("PATH", &empty).run()?;
    run.fails_saying(&["org.kelson.overlay.fuse", "not in PATH", "install the package"])?;
    // The working directory may be anybody's.
    let bin = instead(ctx, "echo it was started >&2; exit 1")?;
    let name = bin.file_name().unwrap_or_default().to_owned();
    let run = bundle.run_command()?.env("PATH", name).cwd(bin.parent().unwrap_or(&bin)).run()?;
    run.fails_saying(&["not in PATH"])?;
    ctx.need_kernel(6, 8, "lowerdir+, by which the test knows an overlay,")?;
    bundle.remove("/annotations/org.kelson.overlay.fuse");
    let command = bundle.run_command()?.env("PATH", &empty);
    run_refused(libc::ENODEV, || command.run())?.fails_saying(&["no such device", "install the package"])?;
    Ok(())
}

fn fails(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    for (script, said) in [
        ("echo unknown argument ignored: x >&2; echo a reason of its own >&2; exit 3", "a reason of its own"),
        ("exit 3", "exit status: 3"),
        ("kill -9 $$", "signal: 9"),
        // As a daemon that ended at once.
        ("exit 0", "not connected"),
    ] {
        let run = bundle.run_command()?.env("PATH", instead(ctx, script)?).run()?;
        run.fails_saying(&[said])?;
        check!(ctx.state_entries().is_empty(), "a container is left after {script:?}");
    }
    Ok(())
}

fn hangs(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let begun = ctx.new_dir("begun")?.join("file");
        let bin = instead(ctx, &format!("echo > '{}'; exec /bin/sleep 1000", begun.display()))?;
        let container = bundle.container()?;
        let running = container.run_command().env("PATH", bin).spawn()?;
        eventually(ctx.patience, "the program is started", || begun.exists().then_some(()))?;
        running.signal(signal)?;
        let run = running.wait()?;
        check!(run.code != 0, "{}", run.told());
        container.delete_force()?;
    }
    Ok(())
}

fn explained(ctx: &Context) -> Outcome {
    let mut bundle = by_fuse(ctx, &[])?;
    let container = bundle.container()?;
    let explain = || ctx.runtime().args(["explain", "--json", "--bundle"]).arg(&container.bundle);
    let told = explain().run()?.ok()?.json()?;
    let of_root = |told: &crate::harness::Value| {
        let steps = told["steps"].as_array().cloned().unwrap_or_default();
        let step = steps.into_iter().find(|step| step["name"] == json!("mount the root file system"));
        let items = step.unwrap_or_default()["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().next_back().unwrap_or_default()
    };
    let root = of_root(&told);
    check_eq!(root["type"], json!(FUSE), "type of the root: {root}");
    check!(root["note"].as_str().is_some_and(|note| note.contains("annotation")), "why: {root}");
    let told = explain().env("PATH", ctx.new_dir("empty")?).run()?.ok()?.json()?;
    check!(told["lacks"].to_string().contains("fuse-overlayfs is not in PATH"), "what is lacking: {}", told["lacks"]);
    bundle.remove("/annotations/org.kelson.overlay.fuse");
    bundle.write()?;
    check_eq!(of_root(&explain().run()?.ok()?.json()?)["type"], json!("overlay"), "type without the annotation");
    Ok(())
}

const REPLACE: &[&str] = &["remove", "/e/f", ",", "remove", "/e", ",", "mkdir", "/e", ",", "write", "/e/g", "x"];

fn changes(ctx: &Context) -> Outcome {
    need(ctx)?;
    let image = image(ctx)?;
    for kept in [&[][..], &["--keep-layer"]] {
        let id = image.start(&[&["--annotation", ASKED], kept].concat())?;
        let done = image.exec(&id, CHANGES).and_then(|()| {
            image.about("diff", &[&id]).run()?.ok()?.prints(CHANGED)?;
            image.exec(&id, REPLACE)?;
            image.about("diff", &[&id]).run()?.ok()?.prints(&replaced())?;
            image.about("commit", &[&id, "test:2"]).run()?.ok()
        });
        image.end(&id)?;
        done?;
        if !kept.is_empty() {
            image.about("diff", &[&id]).run()?.ok()?.prints(&replaced())?;
        }
        let run = ctx.maker().args(["run", "--network", "none", "--name", &image.fresh_id(), "--store"]);
        let run = run.arg(&image.store).args(["--cgroup-parent", &ctx.cgroup_parent, "--pull", "never"]);
        let run =
            run.args(["--image", "test:2", GUEST, "ls", "/d", ",", "ls", "/e", ",", "read", "/d/changed"]).run()?;
        let lists: Vec<_> = run.ok()?.lines().into_iter().map(|line| line["ls"].clone()).collect();
        check_eq!(lists[..2], [json!(["changed", "deep", "same"]), json!(["g"])], "what the new image has");
    }
    Ok(())
}

/// [`CHANGED`] after [`REPLACE`].
fn replaced() -> String {
    CHANGED.replace("A /new\n", "C /e\nD /e/f\nA /e/g\nA /new\n")
}

fn changes_of_user(ctx: &Context) -> Outcome {
    need(ctx)?;
    let image = image(ctx)?;
    as_user(ctx, &image, USER)?;
    let _for_all = ForAll::see_to(ctx)?;
    for kept in [&[][..], &["--keep-layer"]] {
        let id = start_as_user(&image, &[&["--annotation", ASKED], kept].concat())?;
        let done = image.exec(&id, CHANGES).and_then(|()| image.exec(&id, REPLACE)).and_then(|()| {
            image.about("diff", &[&id]).run()?.ok()?.prints(&replaced())?;
            image.about("commit", &["--pause=false", &id, "test:2"]).run()?.ok()
        });
        image.end(&id)?;
        done?;
        check!(image.entries("tmp").is_empty(), "work is left in the store");
    }
    Ok(())
}
