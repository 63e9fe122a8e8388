//! `diff`: what a container changed in the files of its image.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::bundle::{GUEST, give};
use crate::harness::image::Image;
use crate::harness::{Context, Outcome, Test, Value, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "each_kind_of_change", run: kinds },
    Test { name: "nothing_at_first", run: nothing },
    Test { name: "layer_that_is_kept", run: kept },
    Test { name: "mounts_are_no_changes", run: mounts },
    Test { name: "directory_that_was_replaced", run: replaced },
    Test { name: "links_are_not_followed", run: links },
    Test { name: "json", run: as_json },
    Test { name: "created_container", run: created },
    Test { name: "container_that_ended", run: ended },
    Test { name: "container_without_layers", run: without_layers },
    Test { name: "process_that_left_its_root", run: left_root },
    Test { name: "names_are_one_line_each", run: odd_names },
    Test { name: "ordinary_user", run: rootless },
];

/// An image with a few files to change.
pub fn image(ctx: &Context) -> Outcome<Image<'_>> {
    Image::new(ctx, json!({"Cmd": [GUEST]}), |root| {
        for (file, text) in [("d/changed", "1"), ("d/gone", "2"), ("d/same", "3"), ("d/deep/mode", "4"), ("e/f", "5")] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap_or(root))?;
            fs::write(path, text)?;
        }
        Ok(())
    })
}

/// What changes each of them.
pub const CHANGES: &[&str] = &[
    "append",
    "/d/changed",
    "1",
    ",",
    "remove",
    "/d/gone",
    ",",
    "chmod",
    "/d/deep/mode",
    "0600",
    ",",
    "mkdir",
    "/new",
    ",",
    "write",
    "/new/file",
    "x",
    ",",
    "mknod",
    "/new/pipe",
    "p",
    "0",
    "0",
];
pub const CHANGED: &str =
    "C /d\nC /d/changed\nC /d/deep\nC /d/deep/mode\nD /d/gone\nA /new\nA /new/file\nA /new/pipe\n";

fn kinds(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.start(&[])?;
    image.exec(&id, CHANGES)?;
    let seen = image.about("diff", &[&id]).run()?.ok();
    image.end(&id)?;
    seen?.prints(CHANGED)?;
    Ok(())
}

fn nothing(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    for options in [&[][..], &["--keep-layer"]] {
        let id = image.start(options)?;
        let seen = image.about("diff", &[&id]).run()?.ok();
        image.end(&id)?;
        seen?.prints("")?;
    }
    Ok(())
}

/// The same of the layer while the container runs, and when it is gone.
fn kept(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.start(&["--keep-layer"])?;
    image.exec(&id, CHANGES)?;
    let running = image.about("diff", &[&id]).run()?.ok();
    image.end(&id)?;
    running?.prints(CHANGED)?;
    image.about("diff", &[&id]).run()?.ok()?.prints(CHANGED)?;
    let dir = image.store.join("kept").join(&id);
    image.about("diff", &[&dir.to_string_lossy()]).run()?.ok()?.prints(CHANGED)?;
    Ok(())
}

fn mounts(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let outside = ctx.new_dir("outside")?;
    let volume = format!("{}:/mnt", outside.display());
    for kept in [&[][..], &["--keep-layer"]] {
        let options: Vec<&str> =
            ["-v", &volume, "--tmpfs", "/e", "--tmpfs", "/not-there"].iter().chain(kept).copied().collect();
        let id = image.start(&options)?;
        image.exec(&id, &["write", "/mnt/a", "x", ",", "write", "/e/a", "x", ",", "write", "/not-there/a", "x"])?;
        let seen = image.about("diff", &[&id]).run()?.ok();
        image.end(&id)?;
        seen?.prints("")?;
    }
    Ok(())
}

fn replaced(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    for kept in [&[][..], &["--keep-layer"]] {
        let id = image.start(kept)?;
        image.exec(&id, &["remove", "/e/f", ",", "remove", "/e", ",", "mkdir", "/e", ",", "write", "/e/g", "x"])?;
        image.exec(&id, &["remove", "/d/deep/mode", ",", "remove", "/d/deep", ",", "write", "/d/deep", "x"])?;
        let seen = image.about("diff", &[&id]).run()?.ok();
        image.end(&id)?;
        seen?.prints("C /d\nC /d/deep\nC /e\nD /e/f\nA /e/g\n")?;
    }
    Ok(())
}

/// A link in place of a directory is a link, wherever it leads.
fn links(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    for kept in [&[][..], &["--keep-layer"]] {
        let id = image.start(kept)?;
        image.exec(
            &id,
            &["remove", "/e/f", ",", "remove", "/e", ",", "link", "/etc", "/e", ",", "link", "../../..", "/up"],
        )?;
        let seen = image.about("diff", &[&id]).run()?.ok();
        image.end(&id)?;
        seen?.prints("C /e\nA /up\n")?;
    }
    Ok(())
}

fn as_json(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.start(&[])?;
    image.exec(&id, &["remove", "/e/f", ",", "write", "/a b", "x"])?;
    let seen = image.about("diff", &["--json", &id]).run()?.ok();
    image.end(&id)?;
    let seen: Value = serde_json::from_str(&seen?.out())?;
    let expected = json!([
        {"kind": "added", "path": "/a b"}, {"kind": "changed", "path": "/e"}, {"kind": "deleted", "path": "/e/f"},
    ]);
    check_eq!(seen, expected, "the changes");
    Ok(())
}

fn created(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let dir = ctx.dir.join("made");
    let make = ctx.runtime().args(["bundle", "--network", "none", "--store"]).arg(&image.store);
    make.arg(&image.file).arg(&dir).arg(GUEST).run()?.ok()?;
    let id = image.fresh_id();
    ctx.maker().args(["create", "--bundle"]).arg(&dir).arg(&id).run()?.ok()?;
    let seen = image.about("diff", &[&id]).run()?.ok();
    image.end(&id)?;
    seen?.prints("")?;
    Ok(())
}

fn ended(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.fresh_id();
    image.command(&id, &["--keep"], &[GUEST, "write", "/new", "x"]).run()?.ok()?;
    let seen = image.about("diff", &[&id]).run()?;
    image.end(&id)?;
    seen.fails_saying(&["not running", "--keep-layer"])?;
    image.about("diff", &[&id]).run()?.fails_saying(&["does not exist"])?;
    image.about("diff", &["./nowhere"]).run()?.fails_saying(&["no layer that was kept"])?;
    Ok(())
}

fn without_layers(ctx: &Context) -> Outcome {
    ctx.need_kelson("diff")?;
    let mut bundle = ctx.bundle()?;
    let container = bundle.guest(&["report", ",", "sleep"]).start()?;
    let seen = ctx.runtime().args(["diff", &container.id]).run()?;
    container.end()?;
    seen.fails_saying(&["has no layers"])?;
    Ok(())
}

/// A process with a root of its own shows another tree: it is refused and not taken for the container's.
fn left_root(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.fresh_id();
    let words = [GUEST, "chroot", "/d", ",", "sleep"];
    image.command(&id, &["-d"], &words).run()?.ok()?;
    let pid = ctx.runtime().args(["state", &id]).run()?.ok()?.json()?["pid"].as_i64().unwrap_or(0);
    let root = format!("/proc/{pid}/root");
    let left = crate::harness::eventually(ctx.patience, "the process left its root", || {
        fs::read_link(&root).ok().filter(|path| path.ends_with("d"))
    });
    let seen = image.about("diff", &[&id]).run();
    image.end(&id)?;
    left?;
    seen?.fails_saying(&["has left its root"])?;
    Ok(())
}

fn odd_names(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.start(&[])?;
    image.exec(&id, &["write", "/a\nD b\x1b", "x", ",", "write", "/\u{fc}", "x"])?;
    let seen = image.about("diff", &[&id]).run()?.ok();
    image.end(&id)?;
    seen?.prints("A /a\\012D b\\033\nA /\u{fc}\n")?;
    Ok(())
}

/// Files that are closed to the user outside are read as the container's root.
fn rootless(ctx: &Context) -> Outcome {
    const USER: u32 = 61_001;
    let image = image(ctx)?;
    as_user(ctx, &image, USER)?;
    for kept in [&[][..], &["--keep-layer"]] {
        let id = start_as_user(&image, kept)?;
        image.exec(&id, CHANGES)?;
        image.exec(&id, &["chmod", "/new", "0000", ",", "chmod", "/d", "0000"])?;
        let seen = image.about("diff", &[&id]).run()?.ok();
        image.end(&id)?;
        seen?.prints(CHANGED)?;
    }
    check!(image.entries("tmp").is_empty(), "work is left in the store");
    Ok(())
}

/// From here on this process is an ordinary user's, as is the store.
pub fn as_user(ctx: &Context, image: &Image<'_>, user: u32) -> Outcome {
    ctx.become_rootless(user)?;
    fs::create_dir(&image.store)?;
    give(&image.store, user)?;
    fs::set_permissions(&ctx.dir, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// [`Image::start`] without a cgroup, which an ordinary user cannot have here.
pub fn start_as_user(image: &Image<'_>, options: &[&str]) -> Outcome<String> {
    let (key, value) = image.context.marker();
    let id = image.fresh_id();
    let run = image.context.runtime().args(["run", "-d", "--network", "none", "--name", &id]);
    let run = run.args(["-e", &format!("{key}={value}"), "--store"]).arg(&image.store).args(options);
    run.arg("--image").arg(&image.file).args([GUEST, "sleep"]).run()?.ok()?;
    Ok(id)
}
