//! `--userns auto` and `keep-id`: containers of images with users of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::diff::{CHANGED, CHANGES, image};
use super::rootless::{RANGE, end_ranges, show_ranges};
use crate::harness::bundle::{GUEST, give};
use crate::harness::image::Image;
use crate::harness::{Context, Outcome, Test, Value, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "files_belong_to_the_container_inside_only", run: owners },
    Test { name: "no_two_have_an_id_in_common", run: disjoint },
    Test { name: "fifty_at_once", run: fifty },
    Test { name: "range_of_one_that_was_killed", run: killed },
    Test { name: "kept_layer_has_the_images_ids", run: kept },
    Test { name: "diff_and_commit_of_a_running_one", run: committed },
    Test { name: "bundle_has_its_own_range", run: bundle },
    Test { name: "file_system_without_id_mapped_mounts", run: unsupported },
    Test { name: "what_cannot_be_is_refused", run: refused },
    Test { name: "keep_id_keeps_the_callers_files", run: keep_id },
    Test { name: "keep_id_without_subordinate_ids", run: keep_one_id },
];

const AUTO: &[&str] = &["--userns", "auto"];
const PLACE: &str = "/run/kelson-ids";

/// First id and number of the ids outside.
type Range = (u64, u64);

fn pid(ctx: &Context, id: &str) -> Outcome<u64> {
    let state = ctx.runtime().args(["state", id]).run()?.ok()?.json()?;
    state["pid"].as_u64().ok_or_else(|| format!("{id} has no process: {state}").into())
}

fn range(ctx: &Context, id: &str) -> Outcome<Range> {
    let text = fs::read_to_string(format!("/proc/{}/uid_map", pid(ctx, id)?))?;
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [0, first, count] => Ok((first, count)),
        _ => Err(format!("uid_map of {id}: {text:?}").into()),
    }
}

/// Links of ranges that containers and bundles of this test have.
fn links(ctx: &Context) -> Vec<PathBuf> {
    let entries = fs::read_dir(PLACE).into_iter().flatten().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains(&*ctx.dir.to_string_lossy())).collect()
}

fn needs(ctx: &Context) -> Outcome {
    ctx.need_new_syscalls("--userns auto")?;
    ctx.need_kernel(5, 19, "an overlay of id-mapped layers")
}

fn owners(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = Image::new(ctx, json!({"Cmd": [GUEST]}), |root| {
        fs::write(root.join("etc/of-a-user"), "x")?;
        Ok(std::os::unix::fs::chown(root.join("etc/of-a-user"), Some(1000), Some(1001))?)
    })?;
    let id = image.start(AUTO)?;
    image.exec(&id, &["write", "/new", "x", ",", "append", "/etc/of-a-user", "y", ",", "chown", "/new", "7", "8"])?;
    let seen = ctx.runtime().args(["exec", &id, GUEST, "stat", "/etc/of-a-user", ",", "stat", "/etc/hosts"]);
    let seen = seen.args([",", "stat", "/", ",", "report"]).run()?.ok()?;
    let (first, count) = range(ctx, &id)?;
    let outside = fs::metadata(format!("/proc/{}/root/new", pid(ctx, &id)?))?;
    image.end(&id)?;
    let stats: Vec<Value> = seen.lines().iter().filter_map(|line| line.get("stat").cloned()).collect();
    let of = |stat: &Value| (stat["uid"].as_u64(), stat["gid"].as_u64());
    check_eq!(
        stats.iter().map(of).collect::<Vec<_>>(),
        [(1000, 1001), (0, 0), (0, 0)].map(|(u, g)| (Some(u), Some(g))),
        "owners inside"
    );
    check_eq!(seen.report()?["uids"], json!([0, 0, 0, 0]), "uids inside");
    check_eq!((u64::from(outside.uid()), u64::from(outside.gid())), (first + 7, first + 8), "owner outside");
    check!(first > 65_535 && count == 65_536, "range {first} {count}");
    // On disk nothing is another's.
    let layer = image.store.join("layers").join(&image.entries("layers")[0]).join("fs/etc/of-a-user");
    let info = fs::metadata(&layer)?;
    check_eq!((info.uid(), info.gid(), fs::read_to_string(&layer)?), (1000, 1001, "x".into()), "the file in the store");
    check_eq!(links(ctx), Vec::<PathBuf>::new(), "ranges that are taken when it is deleted");
    Ok(())
}

fn check_disjoint(mut all: Vec<Range>) -> Outcome {
    all.sort_unstable();
    let overlap = all.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0);
    check!(overlap.is_none(), "ranges that overlap: {overlap:?}");
    Ok(())
}

fn disjoint(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = image(ctx)?;
    let all: Vec<String> = (0..3).map(|_| image.start(AUTO)).collect::<Outcome<_>>()?;
    let ranges: Vec<Range> = all.iter().map(|id| range(ctx, id)).collect::<Outcome<_>>()?;
    check_disjoint(ranges)?;
    check_eq!(links(ctx).len(), 3, "ranges that are taken");
    all.iter().try_for_each(|id| image.end(id))
}

fn fifty(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = image(ctx)?;
    image.run(&[], &["/bin/guest", "print", "x"])?.ok()?;
    let all: Vec<String> = (0..50).map(|_| image.fresh_id()).collect();
    let options = ["--userns", "auto", "-d"];
    let start = |id: &String| image.command(id, &options, &[GUEST, "sleep"]).deadline(ctx.patience * 6).spawn();
    let started: Vec<_> = all.iter().map(start).collect::<Outcome<_>>()?;
    for running in started {
        running.wait()?.ok()?;
    }
    let ranges: Vec<Range> = all.iter().map(|id| range(ctx, id)).collect::<Outcome<_>>()?;
    check_disjoint(ranges)?;
    all.iter().try_for_each(|id| image.end(id))?;
    check_eq!(links(ctx), Vec::<PathBuf>::new(), "ranges that are taken when all are deleted");
    Ok(())
}

/// What was made by a run that is killed keeps its range, until it is deleted.
fn killed(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = image(ctx)?;
    let first = image.fresh_id();
    let mut run = image.command(&first, AUTO, &[GUEST, "ready", ",", "sleep"]).piped().spawn()?;
    while !run.line()?.contains("ready") {}
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(run.pid()), nix::sys::signal::Signal::SIGKILL)?;
    run.wait()?;
    let second = image.start(AUTO)?;
    check_disjoint(vec![range(ctx, &first)?, range(ctx, &second)?])?;
    // A link that leads to nobody takes nothing.
    let stale = Path::new(PLACE).join("1-1");
    std::os::unix::fs::symlink(format!("1:1:4294967290:{}/nobody", ctx.dir.display()), &stale)?;
    let third = image.start(AUTO)?;
    check!(fs::symlink_metadata(&stale).is_err(), "the link of a container that is gone is there");
    [first, second, third].iter().try_for_each(|id| image.end(id))
}

fn kept(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = image(ctx)?;
    let id = image.fresh_id();
    let options = ["--userns", "auto", "--keep-layer"];
    let words = [
        "write",
        "/new",
        "x",
        ",",
        "chown",
        "/new",
        "7",
        "8",
        ",",
        "append",
        "/d/changed",
        "2",
        ",",
        "remove",
        "/d/gone",
    ];
    let words: Vec<&str> = std::iter::once(GUEST).chain(words).collect();
    image.command(&id, &options, &words).run()?.ok()?;
    let upper = image.store.join("kept").join(&id).join("upper");
    let owner = |path: &str| fs::metadata(upper.join(path)).map(|info| (info.uid(), info.gid()));
    check_eq!((owner("new")?, owner("d/changed")?, owner("d")?), ((7, 8), (0, 0), (0, 0)), "owners on disk");
    // Another one has its range now.
    let other = image.start(AUTO)?;
    let again =
        image.command(&id, &options, &[GUEST, "stat", "/new", ",", "read", "/d/changed", ",", "append", "/new", "y"]);
    let seen = again.run()?.ok();
    image.end(&other)?;
    let seen = seen?;
    let stat = seen.said("stat")?;
    check_eq!((&stat["uid"], &stat["gid"]), (&json!(7), &json!(8)), "owner that the next container sees");
    check_eq!(seen.said("append")?["errno"], json!(0), "errno of writing");
    image.about("diff", &[&id]).run()?.ok()?.prints("C /d\nC /d/changed\nD /d/gone\nA /new\n")?;
    Ok(())
}

fn committed(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = image(ctx)?;
    let id = image.start(AUTO)?;
    image.exec(&id, CHANGES)?;
    image.exec(&id, &["chown", "/new/file", "7", "8"])?;
    let seen = image.about("diff", &[&id]).run()?.ok();
    let made = image.about("commit", &[&id, "made:1"]).run()?.ok();
    image.end(&id)?;
    seen?.prints(CHANGED)?;
    made?;
    for options in [&["--userns", "host"][..], AUTO] {
        let own = ctx.maker().args(["run", "--network", "none", "--store"]).arg(&image.store).args(options);
        let own = own.arg("--cgroup-parent").arg(&ctx.cgroup_parent).args(["--image", "made:1", GUEST]);
        let seen = own.args(["stat", "/new/file", ",", "stat", "/d/changed"]).run()?.ok()?;
        let stats: Vec<Value> = seen.lines().iter().filter_map(|line| line.get("stat").cloned()).collect();
        let of = |stat: &Value| (stat["uid"].as_u64(), stat["gid"].as_u64());
        check_eq!(
            stats.iter().map(of).collect::<Vec<_>>(),
            [(Some(7), Some(8)), (Some(0), Some(0))],
            "{options:?}: owners"
        );
    }
    Ok(())
}

fn bundle(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = image(ctx)?;
    let dir = ctx.dir.join("made");
    let make = ctx.runtime().args(["bundle", "--network", "none", "--userns", "auto", "--store"]).arg(&image.store);
    make.arg(&image.file).arg(&dir).args([GUEST, "sleep"]).run()?.ok()?;
    let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json"))?)?;
    check_eq!(config["annotations"]["org.kelson.overlay.idmap"], json!("true"), "the annotation");
    let own = config["linux"]["uidMappings"][0]["hostID"].as_u64().unwrap_or_default();
    let other = image.start(AUTO)?;
    let id = image.fresh_id();
    ctx.maker().args(["run", "--detach", "--bundle"]).arg(&dir).arg(&id).run()?.ok()?;
    let ranges = [range(ctx, &id)?, range(ctx, &other)?];
    image.exec(&id, &["append", "/d/changed", "x"])?;
    image.end(&id)?;
    image.end(&other)?;
    check_eq!(ranges[0].0, own, "first id of the bundle's container");
    check_disjoint(ranges.to_vec())?;
    check_eq!(links(ctx).len(), 1, "ranges that are taken");
    fs::remove_dir_all(&dir)?;
    let last = image.start(AUTO)?;
    let free = range(ctx, &last)?;
    image.end(&last)?;
    check!(free.0 <= own, "the range {own} of a bundle that is gone is not free: {free:?}");
    Ok(())
}

fn unsupported(ctx: &Context) -> Outcome {
    needs(ctx)?;
    let image = image(ctx)?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    fs::create_dir(&image.store)?;
    mount(Some("ramfs"), &image.store, Some("ramfs"), MsFlags::empty(), None::<&str>)?;
    let seen = image.run(AUTO, &[GUEST, "print", "x"]);
    umount2(&image.store, MntFlags::MNT_DETACH)?;
    seen?.fails_saying(&["no id-mapped mounts", "--userns host"])?;
    check_eq!((ctx.state_entries(), links(ctx)), (vec![], vec![]), "what is left");
    Ok(())
}

fn refused(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    image.run(&["--userns", "keep-id"], &[])?.fails_saying(&["--userns keep-id", "--userns auto"])?;
    image.run(&["--userns", "what"], &[])?.fails_saying(&["--userns", "what", "auto, keep-id or host"])?;
    let unpack = ctx.runtime().args(["bundle", "--unpack", "--userns", "auto", "--store"]).arg(&image.store);
    unpack.arg(&image.file).arg(ctx.dir.join("made")).run()?.fails_saying(&["--unpack", "--userns auto"])?;
    for (annotations, says) in [
        (json!({"org.kelson.overlay.idmap": "true"}), "needs org.kelson.overlay.lower beside it"),
        (
            json!({"org.kelson.overlay.idmap": "what", "org.kelson.overlay.lower": "[\"/usr\"]"}),
            "neither true nor false",
        ),
        (json!({"org.kelson.overlay.idmap": "true", "org.kelson.overlay.lower": "[\"/usr\"]"}), "nothing to map with"),
    ] {
        let mut bundle = ctx.bundle()?;
        bundle.set("/annotations", annotations);
        bundle.run()?.fails_saying(&["org.kelson.overlay.idmap", says])?;
    }
    check_eq!(links(ctx), Vec::<PathBuf>::new(), "ranges that are taken");
    Ok(())
}

const USER: u32 = 61_000;

/// `run` of an ordinary user's container with a directory of that user at /v.
fn run_as_user(ctx: &Context, image: &Image, options: &[&str], words: &[&str]) -> Outcome<crate::harness::Run> {
    let volume = format!("{}:/v", ctx.dir.join("v").display());
    let (key, value) = ctx.marker();
    let own = ctx.runtime().args(["run", "--network", "none", "--name", &image.fresh_id(), "-v", &volume]);
    let own = own.args(["-e", &format!("{key}={value}"), "--userns", "keep-id", "--store"]).arg(&image.store);
    own.args(options).arg("--image").arg(&image.file).arg(GUEST).args(words).run()
}

fn user_image(ctx: &Context) -> Outcome<Image<'_>> {
    let image = image(ctx)?;
    ctx.become_rootless(USER)?;
    let volume = ctx.dir.join("v");
    for dir in [&image.store, &volume] {
        fs::create_dir(dir)?;
        give(dir, USER)?;
    }
    fs::write(volume.join("own"), "x")?;
    give(&volume.join("own"), USER)?;
    fs::set_permissions(&ctx.dir, fs::Permissions::from_mode(0o755))?;
    Ok(image)
}

fn keep_id(ctx: &Context) -> Outcome {
    let image = user_image(ctx)?;
    show_ranges(ctx)?;
    let words = [
        "report",
        ",",
        "stat",
        "/v/own",
        ",",
        "write",
        "/v/new",
        "x",
        ",",
        "stat",
        "/d/changed",
        ",",
        "write",
        "/x",
        "x",
    ];
    let seen = run_as_user(ctx, &image, &[], &words);
    let as_root = run_as_user(ctx, &image, &["-u", "0"], &["write", "/x", "x", ",", "write", "/v/roots", "x"]);
    end_ranges();
    let (seen, as_root) = (seen?.ok()?, as_root?.ok()?);
    let stats: Vec<Value> = seen.lines().iter().filter_map(|line| line.get("stat").cloned()).collect();
    check_eq!(seen.report()?["uids"], json!([USER, USER, USER, USER]), "uids inside");
    check_eq!(
        (&stats[0]["uid"], &stats[1]["uid"]),
        (&json!(USER), &json!(0)),
        "owners of the user's file and the image's"
    );
    let written = |run: &crate::harness::Run| -> Vec<Value> {
        run.lines().iter().filter_map(|line| Some(line.get("write")?["errno"].clone())).collect()
    };
    check_eq!(
        written(&seen),
        [json!(0), json!(libc::EACCES)],
        "errno of writing to the directory, and to the image's root"
    );
    check_eq!(written(&as_root), [json!(0), json!(0)], "errno of root's writing");
    let owner = |name: &str| fs::metadata(ctx.dir.join("v").join(name)).map(|info| (info.uid(), info.gid()));
    check_eq!(owner("new")?, (USER, USER), "owner outside of what was written");
    check_eq!(owner("roots")?, (RANGE, RANGE), "owner outside of what root wrote");
    Ok(())
}

/// The container is set up by its root, and there is no id for that.
fn keep_one_id(ctx: &Context) -> Outcome {
    let image = user_image(ctx)?;
    run_as_user(ctx, &image, &[], &["report"])?.fails_saying(&["--userns keep-id", "/etc/subuid"])?;
    check_eq!(image.entries("keep-id"), Vec::<String>::new(), "what is made in the store");
    Ok(())
}
