//! The overlay root: `--overlay`, and the annotations `org.kelson.overlay.*`.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::harness::{Bundle, Context, Outcome, Report, Run, Test, json};
use crate::{check, check_eq, skip, sys};

pub const TESTS: &[Test] = &[
    Test { name: "option_of_run", run: option_of_run },
    Test { name: "option_of_create", run: option_of_create },
    Test { name: "annotation_with_one_layer", run: one_layer },
    Test { name: "private_layer_vanishes", run: private_layer_vanishes },
    Test { name: "upper_layer_keeps_what_is_written", run: upper_layer },
    Test { name: "topmost_layer_wins", run: topmost_wins },
    Test { name: "removal_is_a_whiteout_in_the_upper_layer", run: whiteout },
    Test { name: "whiteout_in_a_layer_hides", run: whiteout_in_layer },
    Test { name: "opaque_directory_hides_what_is_below", run: opaque },
    Test { name: "two_containers_share_layers", run: shared_layers },
    Test { name: "hundred_layers", run: hundred_layers },
    Test { name: "paths_with_colon_comma_and_more", run: odd_paths },
    Test { name: "paths_of_300_bytes", run: long_paths },
    Test { name: "hundred_layers_with_long_odd_paths", run: hundred_odd },
    Test { name: "hundred_layers_before_linux_6_5", run: before_6_5 },
    Test { name: "hundred_layers_on_linux_6_5", run: on_6_5 },
    Test { name: "hundred_layers_on_linux_6_7", run: on_6_7 },
    Test { name: "upper_path_with_odd_characters", run: odd_upper },
    Test { name: "nothing_is_mounted_on_the_host", run: not_on_the_host },
    Test { name: "with_a_read_only_root", run: read_only },
    Test { name: "with_a_user_namespace", run: user_namespace },
    Test { name: "seen_by_exec", run: seen_by_exec },
    Test { name: "mounts_go_on_top", run: mounts_on_top },
    Test { name: "with_pivot_and_propagation", run: propagation },
    Test { name: "layer_given_twice", run: layer_twice },
    Test { name: "failed_create_leaves_nothing", run: failed_create },
    Test { name: "annotations_of_an_image_choose_nothing", run: of_an_engine },
];

/// An empty directory with these files: (name, content).
fn layer(ctx: &Context, name: &str, files: &[(&str, &str)]) -> Outcome<PathBuf> {
    let dir = ctx.new_dir(name)?;
    for (file, content) in files {
        if let Some(parent) = Path::new(file).parent() {
            fs::create_dir_all(dir.join(parent))?;
        }
        fs::write(dir.join(file), content)?;
    }
    Ok(dir)
}

/// A bundle over these layers, topmost first; its own rootfs, which has the guest, is the lowest.
fn over<'c>(ctx: &'c Context, layers: &[PathBuf]) -> Outcome<Bundle<'c>> {
    ctx.need_kelson("an overlay root")?;
    let mut bundle = ctx.bundle()?;
    let mut all = layers.to_vec();
    all.push(bundle.rootfs.clone());
    bundle.set("/annotations", json!({"org.kelson.overlay.lower": json!(all).to_string()}));
    Ok(bundle)
}

fn with_upper(ctx: &Context, bundle: &mut Bundle, name: &str) -> Outcome<PathBuf> {
    let dir = ctx.new_dir(name)?;
    for part in ["upper", "work"] {
        fs::create_dir(dir.join(part))?;
    }
    bundle.set("/annotations/org.kelson.overlay.upper", json!(dir.join("upper")));
    bundle.set("/annotations/org.kelson.overlay.work", json!(dir.join("work")));
    Ok(dir.join("upper"))
}

/// Content of a file as the container sees it.
fn content(bundle: &mut Bundle, path: &str) -> Outcome<String> {
    let seen = bundle.guest(&["read", path]).run()?.ok()?.said("read")?;
    check_eq!(seen["errno"], json!(0), "errno of reading {path}");
    Ok(seen["text"].as_str().unwrap_or_default().to_owned())
}

fn option_of_run(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    let mut bundle = ctx.bundle()?;
    let run = bundle.option("--overlay").guest(&["report", ",", "write", "/new", "x"]).run()?.ok()?;
    check_eq!(run.report()?.mount("/")?.fs_type, "overlay", "file system of /");
    check_eq!(run.said("write")?["errno"], json!(0), "errno of writing");
    check!(!bundle.rootfs.join("new").exists(), "the bundle's rootfs was written to");
    Ok(())
}

fn option_of_create(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    let mut bundle = ctx.bundle()?;
    let mut container =
        bundle.option("--overlay").guest(&["report", ",", "write", "/new", "x", ",", "sleep"]).start()?;
    check_eq!(container.report()?.mount("/")?.fs_type, "overlay", "file system of /");
    container.hear("write")?;
    check!(!bundle.rootfs.join("new").exists(), "the bundle's rootfs was written to");
    container.end()
}

fn one_layer(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let seen = bundle.report()?.mount("/")?;
    check_eq!(seen.fs_type, "overlay", "file system of /");
    Ok(())
}

fn private_layer_vanishes(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    bundle.guest(&["write", "/etc/new", "x"]).run()?.ok()?;
    let seen = bundle.guest(&["read", "/etc/new"]).run()?.ok()?.said("read")?;
    check_eq!(seen["errno"], json!(libc::ENOENT), "errno of reading what an earlier container wrote");
    check!(!bundle.rootfs.join("etc/new").exists(), "the layer was written to");
    Ok(())
}

fn upper_layer(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let upper = with_upper(ctx, &mut bundle, "up")?;
    bundle.guest(&["write", "/etc/new", "kept"]).run()?.ok()?;
    check_eq!(fs::read_to_string(upper.join("etc/new"))?, "kept", "the file in the upper directory");
    check!(!bundle.rootfs.join("etc/new").exists(), "the layer was written to");
    check_eq!(content(&mut bundle, "/etc/new")?, "kept", "what the next container sees");
    Ok(())
}

fn topmost_wins(ctx: &Context) -> Outcome {
    let top = layer(ctx, "top", &[("etc/who", "top"), ("only-top", "1")])?;
    let middle = layer(ctx, "middle", &[("etc/who", "middle"), ("etc/two", "middle")])?;
    let mut bundle = over(ctx, &[top, middle])?;
    bundle.file("/etc/two", "bottom")?;
    bundle.file("/etc/three", "bottom")?;
    check_eq!(content(&mut bundle, "/etc/who")?, "top", "/etc/who");
    check_eq!(content(&mut bundle, "/etc/two")?, "middle", "/etc/two");
    check_eq!(content(&mut bundle, "/etc/three")?, "bottom", "/etc/three");
    Ok(())
}

fn whiteout(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let upper = with_upper(ctx, &mut bundle, "up")?;
    bundle.file("/etc/doomed", "x")?;
    let run = bundle.guest(&["remove", "/etc/doomed", ",", "ls", "/etc"]).run()?.ok()?;
    check_eq!(run.said("remove")?["errno"], json!(0), "errno of removing");
    check!(!run.said("ls")?.to_string().contains("doomed"), "still there: {}", run.said("ls")?);
    check!(bundle.rootfs.join("etc/doomed").exists(), "removed from the layer");
    let kind = fs::symlink_metadata(upper.join("etc/doomed"))?.file_type();
    check!(kind.is_char_device(), "no whiteout in the upper directory: {kind:?}");
    Ok(())
}

fn whiteout_in_layer(ctx: &Context) -> Outcome {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let top = layer(ctx, "top", &[("etc/other", "1")])?;
    mknod(&top.join("etc/hidden"), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?;
    let mut bundle = over(ctx, &[top])?;
    bundle.file("/etc/hidden", "x")?;
    let seen = bundle.guest(&["read", "/etc/hidden"]).run()?.ok()?.said("read")?;
    check_eq!(seen["errno"], json!(libc::ENOENT), "errno of reading a file that a layer removed");
    Ok(())
}

fn opaque(ctx: &Context) -> Outcome {
    let top = layer(ctx, "top", &[("srv/new", "1")])?;
    sys::set_attribute(&top.join("srv"), c"trusted.overlay.opaque", b"y")?;
    let mut bundle = over(ctx, &[top])?;
    bundle.file("/srv/old", "x")?;
    check_eq!(bundle.guest(&["ls", "/srv"]).run()?.ok()?.said("ls")?, json!(["new"]), "entries of an opaque directory");
    Ok(())
}

fn shared_layers(ctx: &Context) -> Outcome {
    let mut one = over(ctx, &[])?;
    let first = one.guest(&["write", "/etc/mine", "first", ",", "sleep"]).start()?;
    let mut two = ctx.bundle()?;
    two.set("/annotations", one.config["annotations"].clone());
    let second = two.guest(&["write", "/etc/mine", "second", ",", "sleep"]).start()?;
    let read = |c: &crate::harness::Container| -> Outcome<String> {
        let mut text = String::new();
        crate::harness::eventually(ctx.patience, "the file is written", || {
            let seen = c.exec(&["read", "/etc/mine"]).ok()?.said("read").ok()?;
            text = seen["text"].as_str().unwrap_or_default().to_owned();
            (!text.is_empty()).then_some(())
        })?;
        Ok(text)
    };
    check_eq!(read(&first)?, "first", "the first container's file");
    check_eq!(read(&second)?, "second", "the second container's file");
    first.end()?;
    second.end()
}

/// This many layers, each with a file of its number; all of them are seen.
fn many(ctx: &Context, count: usize, name: &str) -> Outcome {
    many_run_by(ctx, count, name, |bundle| bundle.run()).map(drop)
}

fn many_run_by(
    ctx: &Context,
    count: usize,
    name: &str,
    run: impl FnOnce(&mut Bundle) -> Outcome<Run>,
) -> Outcome<Report> {
    let mut layers = vec![];
    for i in 0..count {
        let number = i.to_string();
        layers.push(layer(ctx, name, &[("number", number.as_str()), (&format!("layer{i}"), "x")])?);
    }
    let mut bundle = over(ctx, &layers)?;
    let seen = run(bundle.guest(&["ls", "/", ",", "read", "/number", ",", "report"]))?.ok()?;
    let names = seen.said("ls")?;
    let found =
        names.as_array().into_iter().flatten().filter(|n| n.as_str().is_some_and(|n| n.starts_with("layer"))).count();
    check_eq!(found, count, "layers that are seen");
    check_eq!(seen.said("read")?["text"], json!("0"), "content of the topmost");
    seen.report()
}

fn hundred_layers(ctx: &Context) -> Outcome {
    many(ctx, 100, "layer")
}

const ODD: &str = "a:b,c d\\e=f'g\"h%i+ü";

fn odd_paths(ctx: &Context) -> Outcome {
    many(ctx, 3, ODD)
}

fn long_paths(ctx: &Context) -> Outcome {
    many(ctx, 3, &format!("{}/{}", "x".repeat(150), "y".repeat(150)))
}

/// 300 bytes.
fn odd_and_long() -> String {
    format!("{}:{}/{},{}", "x".repeat(75), "x".repeat(75), "y".repeat(75), "y".repeat(75))
}

fn hundred_odd(ctx: &Context) -> Outcome {
    many(ctx, 100, &odd_and_long())
}

/// What fsconfig(2) of an older kernel does with the layers of an overlay.
#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    /// No descriptors, and `lowerdir+` is noticed only when all is given.
    Before65,
    /// No descriptors, no `lowerdir+`.
    Linux65,
    /// No descriptors (until 6.13).
    Linux67,
}

fn before_6_5(ctx: &Context) -> Outcome {
    layers_on(ctx, Kernel::Before65, true)
}

fn on_6_5(ctx: &Context) -> Outcome {
    layers_on(ctx, Kernel::Linux65, true)
}

fn on_6_7(ctx: &Context) -> Outcome {
    layers_on(ctx, Kernel::Linux67, false)
}

/// A hundred layers on such a kernel, which are given to mount(2) in one string or not.
fn layers_on(ctx: &Context, kernel: Kernel, in_one_string: bool) -> Outcome {
    if ctx.filter.is_some() {
        skip!("without fsopen(2) nothing is asked of fsconfig(2)");
    }
    for in_user_namespace in [false, true] {
        let seen = many_run_by(ctx, 100, &odd_and_long(), |bundle| {
            if in_user_namespace {
                bundle.user_namespace(&[(0, 100_000, 65536)])?;
            }
            run_on(kernel, bundle)
        })?;
        let options = seen.mount("/")?.super_options;
        let list = options.iter().find_map(|o| o.strip_prefix("lowerdir=")).unwrap_or_default();
        check_eq!(list.split(':').count() == 101, in_one_string, "lowerdir is one string: {options:?}");
    }
    Ok(())
}

/// Runs the bundle; what is asked of fsconfig(2) is answered as such a kernel does.
fn run_on(kernel: Kernel, bundle: &mut Bundle) -> Outcome<Run> {
    const SET_STRING: u64 = 1;
    const SET_FD: u64 = 5;
    // File systems that were given an option which is not known to them.
    let mut spoilt = vec![];
    let answer = |call: &FsConfig| match (kernel, call.command) {
        (_, SET_FD) => Some(libc::EINVAL),
        (Kernel::Linux65, SET_STRING) if call.is_layer => Some(libc::EINVAL),
        (Kernel::Before65, SET_STRING) if call.is_layer => {
            spoilt.push(call.context);
            Some(0)
        }
        (_, FsConfig::CREATE) if spoilt.contains(&call.context) => {
            // The next one may have the same number.
            spoilt.retain(|one| *one != call.context);
            Some(libc::EINVAL)
        }
        _ => None,
    };
    run_answered(answer, || bundle.run())
}

/// A call of fsconfig(2).
pub(super) struct FsConfig {
    /// Process and descriptor.
    pub context: (u32, u64),
    pub command: u64,
    /// It gives an overlay a lower layer.
    pub is_layer: bool,
}

impl FsConfig {
    pub const CREATE: u64 = 6;
}

/// Runs something whose calls of fsconfig(2) `answer` answers: with an error number, with success (0), or as the kernel does.
pub(super) fn run_answered(
    answer: impl FnMut(&FsConfig) -> Option<i32>,
    run: impl FnOnce() -> Outcome<Run> + Send,
) -> Outcome<Run> {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // Its filter ends with it, and with what it has started.
        let running = scope.spawn(|| {
            send.send(sys::report_calls(libc::SYS_fsconfig)?).map_err(|e| e.to_string())?;
            run()
        });
        let refused = match receive.recv() {
            Ok(listener) => answer_all(answer, &listener)?,
            Err(_) => 0,
        };
        let run = running.join().map_err(|_| "the thread panicked")??;
        check!(refused > 0, "nothing was asked that this kernel refuses\n  {}", run.told());
        Ok(run)
    })
}

/// Answers until nobody is left who could ask; how often with an error.
fn answer_all(mut answer: impl FnMut(&FsConfig) -> Option<i32>, listener: &OwnedFd) -> Outcome<usize> {
    let mut refused = 0;
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE)?;
        if !fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLIN)) {
            return Ok(refused);
        }
        // Who asked may have been killed meanwhile (ENOENT), here and below.
        let Ok(call) = sys::receive_notification(listener.as_fd()) else { continue };
        let [context, command, key, ..] = call.args;
        let is_layer = key != 0 && text_of(call.pid, key).is_ok_and(|key| key == "lowerdir+");
        match answer(&FsConfig { context: (call.pid, context), command, is_layer }) {
            Some(errno) => {
                refused += usize::from(errno != 0);
                let _ = sys::answer_notification(listener.as_fd(), call.id, 0, errno);
            }
            None => drop(sys::let_through(listener.as_fd(), call.id)),
        }
    }
}

/// The text at an address of a process.
fn text_of(pid: u32, address: u64) -> std::io::Result<String> {
    let mut bytes = [0; 64];
    let length = fs::File::open(format!("/proc/{pid}/mem"))?.read_at(&mut bytes, address)?;
    let text = bytes[..length].split(|b| *b == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn odd_upper(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let upper = with_upper(ctx, &mut bundle, &format!("{ODD}/{}", "z".repeat(200)))?;
    bundle.guest(&["write", "/etc/new", "kept"]).run()?.ok()?;
    check_eq!(fs::read_to_string(upper.join("etc/new"))?, "kept", "the file in the upper directory");
    Ok(())
}

fn not_on_the_host(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let container = bundle.guest(&["sleep"]).start()?;
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let named: Vec<&str> = text.lines().filter(|l| l.contains(&*ctx.dir.to_string_lossy())).collect();
    check!(named.is_empty(), "mounts on the host: {named:?}");
    check!(!text.contains(" - overlay kelson"), "an overlay on the host: {text}");
    container.end()
}

fn read_only(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let run =
        bundle.privileged().set("/root/readonly", true).guest(&["report", ",", "write", "/new", "x"]).run()?.ok()?;
    check_eq!(run.said("write")?["errno"], json!(libc::EROFS), "errno of writing");
    check!(run.report()?.mount("/")?.has("ro"), "/ is not read-only");
    Ok(())
}

fn user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    if ctx.filter.is_some() {
        return bundle.refused(&["an overlay in a user namespace needs open_tree(2)"]);
    }
    let run = bundle.guest(&["report", ",", "write", "/new", "x", ",", "stat", "/new"]).run()?.ok()?;
    check_eq!(run.report()?.mount("/")?.fs_type, "overlay", "file system of /");
    check_eq!(run.said("write")?["errno"], json!(0), "errno of writing");
    check_eq!(run.said("stat")?["uid"], json!(0), "owner of the new file");
    Ok(())
}

fn seen_by_exec(ctx: &Context) -> Outcome {
    let top = layer(ctx, "top", &[("etc/who", "top")])?;
    let mut bundle = over(ctx, &[top])?;
    let container = bundle.guest(&["sleep"]).start()?;
    let seen = container.exec(&["read", "/etc/who"])?.ok()?.said("read")?;
    check_eq!(seen["text"], json!("top"), "what exec sees");
    container.end()
}

fn mounts_on_top(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let dir = layer(ctx, "bound", &[("file", "bound")])?;
    bundle.mount("/not/there/before", "bind", &dir, &["bind"]).mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    check_eq!(content(&mut bundle, "/not/there/before/file")?, "bound", "a bind on a directory that no layer has");
    check!(!bundle.rootfs.join("not").exists(), "the mount point was made in the layer");
    Ok(())
}

fn propagation(ctx: &Context) -> Outcome {
    for (kind, wanted) in [("rshared", "shared:"), ("unbindable", "unbindable"), ("rslave", ""), ("private", "")] {
        for option in [None, Some("--no-pivot")] {
            let mut bundle = over(ctx, &[])?;
            bundle.set("/linux/rootfsPropagation", kind).options.extend(option.map(str::to_owned));
            let seen = bundle.report()?.mount("/")?;
            check_eq!(seen.fs_type, "overlay", "file system of /");
            // The overlay has no peer that it could be a slave of.
            let good = match wanted {
                "" => seen.propagation.is_empty(),
                start => seen.propagation.iter().any(|word| word.starts_with(start)),
            };
            check!(good, "rootfsPropagation {kind} {option:?}: {:?}", seen.propagation);
        }
    }
    Ok(())
}

/// The kernel's word for it is ELOOP.
fn layer_twice(ctx: &Context) -> Outcome {
    let top = layer(ctx, "top", &[("sub/x", "1")])?;
    for layers in [[top.clone(), top.clone()], [top.join("sub"), top]] {
        over(ctx, &layers)?.refused(&["org.kelson.overlay.lower", "given twice, or lies inside of another"])?;
    }
    Ok(())
}

fn failed_create(ctx: &Context) -> Outcome {
    let mut bundle = over(ctx, &[])?;
    let upper = with_upper(ctx, &mut bundle, "up")?;
    bundle.set("/process/args", json!(["/no/such/program"])).run()?.fails()?;
    check!(ctx.state_entries().is_empty(), "a container is left");
    check!(upper.is_dir(), "the upper directory is gone");
    Ok(())
}

/// podman passes the annotations of an image on, in a configuration whose root it mounted, and which says whose it is.
fn of_an_engine(ctx: &Context) -> Outcome {
    ctx.need_kelson("an overlay root")?;
    let upper = [ctx.new_dir("upper")?, ctx.new_dir("work")?];
    let annotations = [
        json!({"org.kelson.overlay.lower": "[\"/\"]"}),
        json!({"org.kelson.overlay.upper": upper[0], "org.kelson.overlay.work": upper[1]}),
        json!({"org.kelson.overlay.fuse": "true"}),
    ];
    let mut bundle = ctx.bundle()?;
    let refused = |bundle: &mut Bundle, of_engine: Option<&str>| {
        annotations.iter().try_for_each(|brought| {
            let mut all = brought.clone();
            all.as_object_mut().into_iter().for_each(|all| {
                all.extend(of_engine.map(|key| (key.to_owned(), json!("libpod"))));
            });
            bundle.set("/annotations", all).refused(&["org.kelson.overlay", "an engine made", "--overlay"])
        })
    };
    refused(&mut bundle, Some("io.container.manager"))?;
    let mounted = bundle.dir.join("mounted");
    fs::create_dir(&mounted)?;
    bundle.set("/root/path", "mounted");
    let none = None::<&str>;
    nix::mount::mount(Some(&bundle.rootfs), &mounted, none, nix::mount::MsFlags::MS_BIND, none)?;
    let result = refused(&mut bundle, None);
    std::os::unix::fs::symlink(&mounted, bundle.dir.join("link"))?;
    bundle.set("/root/path", "link");
    let by_link = refused(&mut bundle, None);
    nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH)?;
    result.and(by_link)
}
