//! `commit`: what a container changed becomes a layer of a new image.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::diff::{CHANGES, as_user, image, start_as_user};
use crate::harness::bundle::GUEST;
use crate::harness::image::Image;
use crate::harness::{Context, Outcome, Run, Test, Value, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "image_is_run", run: image_is_run },
    Test { name: "configuration_and_history", run: configuration },
    Test { name: "files_are_as_they_were", run: files },
    Test { name: "next_layer_on_it", run: twice },
    Test { name: "layer_that_is_kept", run: kept },
    Test { name: "nothing_changed", run: nothing },
    Test { name: "container_goes_on", run: goes_on },
    Test { name: "paused_container_stays_so", run: paused },
    Test { name: "exported_image_is_what_others_read", run: exported },
    Test { name: "refusals_leave_nothing", run: refusals },
    Test { name: "ordinary_user", run: rootless },
];

/// Commits a container to `name`, and gives what `image inspect` tells of that.
fn commit(image: &Image<'_>, id: &str, name: &str, options: &[&str]) -> Outcome<Value> {
    let run = image.about("commit", options).args([id, name]).run()?.ok()?;
    let mut told = image.image(&["inspect", name]).run()?.ok()?.json()?;
    let told = told[0].take();
    check_eq!(json!(run.out().trim_end()), told["Id"], "the id that is printed");
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    Ok(told)
}

/// Runs the guest in a container of the image `name`.
fn guest(image: &Image<'_>, name: &str, words: &[&str]) -> Outcome<Run> {
    let (key, value) = image.context.marker();
    let own = image.context.maker().args(["run", "--network", "none", "--name", &image.fresh_id(), "--store"]);
    let own = own.arg(&image.store).args(["--cgroup-parent", &image.context.cgroup_parent]);
    own.args(["-e", &format!("{key}={value}"), "--pull", "never", "--image", name, GUEST]).args(words).run()?.ok()
}

fn changed<'c>(ctx: &'c Context, options: &[&str]) -> Outcome<(Image<'c>, String)> {
    let image = image(ctx)?;
    let id = image.start(options)?;
    image.exec(&id, CHANGES)?;
    Ok((image, id))
}

/// The topmost layer of the image, unpacked.
fn top(image: &Image<'_>, told: &Value) -> Outcome<PathBuf> {
    let diff_ids = told["RootFS"]["Layers"].as_array().cloned().unwrap_or_default();
    let top =
        diff_ids.last().and_then(Value::as_str).and_then(|id| id.strip_prefix("sha256:")).unwrap_or("none").to_owned();
    Ok(image.store.join("layers").join(top).join("fs"))
}

fn image_is_run(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &[])?;
    let told = commit(&image, &id, "test:2", &[]);
    image.end(&id)?;
    told?;
    let words = ["read", "/d/changed", ",", "read", "/d/gone", ",", "read", "/d/same", ",", "read", "/new/file"];
    let lines = guest(&image, "test:2", &words)?.lines();
    let texts: Vec<_> = lines.iter().map(|line| line["read"]["text"].as_str().unwrap_or("-")).collect();
    check_eq!(texts, ["11", "-", "3", "x"], "the files of the new image");
    let id = image.fresh_id();
    image.command(&id, &[], &[GUEST, "read", "/d/gone"]).run()?.ok()?;
    Ok(())
}

fn configuration(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &[])?;
    let options = [
        "-a",
        "Somebody",
        "-m",
        "why",
        "--change",
        "ENV A=\"b c\"",
        "--change",
        "LABEL x=y",
        "-c",
        "WORKDIR /d",
        "-c",
        "EXPOSE 80",
        "-c",
        "USER 5",
        "-c",
        "STOPSIGNAL SIGINT",
        "-c",
        "VOLUME /v",
        "-c",
        "CMD [\"/guest\", \"report\"]",
    ];
    let told = commit(&image, &id, "test:2", &options);
    image.end(&id)?;
    let told = told?;
    let own = &told["Config"];
    check_eq!(own["Env"], json!(["A=b c"]), "Env");
    check_eq!(own["Labels"], json!({"x": "y"}), "Labels");
    check_eq!(own["WorkingDir"], json!("/d"), "WorkingDir");
    check_eq!(own["ExposedPorts"], json!({"80/tcp": {}}), "ExposedPorts");
    check_eq!(own["User"], json!("5"), "User");
    check_eq!(own["Volumes"], json!({"/v": {}}), "Volumes");
    check_eq!(own["Cmd"], json!(["/guest", "report"]), "Cmd");
    check_eq!(told["Author"], json!("Somebody"), "Author");
    check_eq!(told["RootFS"]["Layers"].as_array().map(Vec::len), Some(2), "number of layers");
    let history = image.image(&["history", "--json", "test:2"]).run()?.ok()?.json()?;
    check!(history.to_string().contains("\"why\""), "the message is not in the history: {history}");
    Ok(())
}

/// Modes, owners and times come back; and so nothing differs in a container of the new image.
fn files(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &[])?;
    image.exec(
        &id,
        &["chown", "/new/file", "5", "6", ",", "chmod", "/new/file", "4711", ",", "link", "a/b", "/new/link"],
    )?;
    let long = format!("/new/{}", "long".repeat(60));
    image.exec(&id, &["write", &long, "x", ",", "link", &long, "/new/to-long"])?;
    let told = commit(&image, &id, "test:2", &[]);
    image.end(&id)?;
    let top = top(&image, &told?)?;
    let file = fs::symlink_metadata(top.join("new/file"))?;
    check_eq!((file.mode(), file.uid(), file.gid()), (0o104_711, 5, 6), "mode and owner of a file");
    check!(file.mtime_nsec() != 0, "the time has no nanoseconds");
    check_eq!(fs::read_link(top.join("new/link"))?, PathBuf::from("a/b"), "where a link leads");
    check_eq!(fs::read_link(top.join("new/to-long"))?, PathBuf::from(&long), "where a long link leads");
    check_eq!(fs::read_to_string(top.join(&long[1..]))?, "x", "a file with a long name");
    check_eq!(fs::symlink_metadata(top.join("d/gone"))?.rdev(), 0, "device of the whiteout");
    check!(!top.join("d/same").exists(), "a file that was not changed is in the layer");
    let mut all: Vec<_> = fs::read_dir(&top)?.flatten().map(|entry| entry.file_name()).collect();
    all.sort_unstable();
    check_eq!(all, ["d", "new"], "what is in the layer");
    Ok(())
}

fn twice(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &[])?;
    let told = commit(&image, &id, "test:2", &[]);
    image.end(&id)?;
    told?;
    let (key, value) = ctx.marker();
    let id = image.fresh_id();
    let own = ctx.maker().args(["run", "-d", "--network", "none", "--name", &id, "--store"]).arg(&image.store);
    let own = own.args(["--cgroup-parent", &ctx.cgroup_parent, "-e", &format!("{key}={value}"), "--image", "test:2"]);
    own.args([GUEST, "sleep"]).run()?.ok()?;
    let seen = image.about("diff", &[&id]).run()?.ok();
    image.exec(&id, &["remove", "/new/file", ",", "write", "/d/gone", "again"])?;
    let told = commit(&image, &id, "test:3", &[]);
    image.end(&id)?;
    seen?.prints("")?;
    check_eq!(told?["RootFS"]["Layers"].as_array().map(Vec::len), Some(3), "number of layers");
    let lines = guest(&image, "test:3", &["read", "/d/gone", ",", "read", "/new/file"])?.lines();
    check_eq!(lines[0]["read"]["text"], json!("again"), "a file that came back");
    check_eq!(lines[1]["read"]["errno"], json!(libc::ENOENT), "errno of a file that is gone");
    Ok(())
}

fn kept(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &["--keep-layer"])?;
    let running = commit(&image, &id, "test:2", &[]);
    image.end(&id)?;
    let gone = commit(&image, &id, "test:3", &[])?;
    check_eq!(running?["RootFS"], gone["RootFS"], "layers of the running container and of what it left");
    guest(&image, "test:3", &["read", "/new/file"])?;
    Ok(())
}

fn nothing(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.start(&[])?;
    let told = commit(&image, &id, "test:2", &["-c", "ENV A=b"]);
    image.end(&id)?;
    let told = told?;
    check_eq!(told["RootFS"]["Layers"].as_array().map(Vec::len), Some(1), "number of layers");
    check_eq!(told["Config"]["Env"], json!(["A=b"]), "Env");
    guest(&image, "test:2", &["report"])?;
    Ok(())
}

fn status(image: &Image<'_>, id: &str) -> Outcome<Value> {
    Ok(image.context.runtime().args(["state", id]).run()?.ok()?.json()?["status"].take())
}

fn goes_on(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &[])?;
    for options in [&[][..], &["--pause"], &["--pause=false"]] {
        commit(&image, &id, "test:2", options)?;
        check_eq!(status(&image, &id)?, json!("running"), "status after {options:?}");
        image.exec(&id, &["write", "/again", "x"])?;
    }
    // Also after one that fails.
    image.about("commit", &[&id, "test:2", "-c", "RUN x"]).run()?.fails()?;
    check_eq!(status(&image, &id)?, json!("running"), "status after a failure");
    image.end(&id)
}

fn paused(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &[])?;
    ctx.runtime().args(["pause", &id]).run()?.ok()?;
    let told = commit(&image, &id, "test:2", &[]);
    let status = status(&image, &id);
    image.end(&id)?;
    told?;
    check_eq!(status?, json!("paused"), "status");
    Ok(())
}

/// umoci unpacks what comes out of it as Kelson does.
fn exported(ctx: &Context) -> Outcome {
    let umoci = ctx.need_program("umoci")?;
    let (image, id) = changed(ctx, &[])?;
    let told = commit(&image, &id, "test:2", &[]);
    image.end(&id)?;
    told?;
    let layout = ctx.dir.join("layout");
    image.image(&["export", "--format", "oci", "-o", &layout.to_string_lossy(), "test:2"]).run()?.ok()?;
    let there = ctx.dir.join("unpacked");
    let name = ctx.command(&umoci.to_string_lossy()).args(["ls", "--layout"]).arg(&layout).run()?.ok()?.out();
    let source = format!("{}:{}", layout.display(), name.trim_end());
    ctx.command(&umoci.to_string_lossy()).args(["unpack", "--image", &source]).arg(&there).run()?.ok()?;
    let root = there.join("rootfs");
    check_eq!(fs::read_to_string(root.join("d/changed"))?, "11", "a file that was changed");
    check!(!root.join("d/gone").exists(), "a file that was removed is there");
    check_eq!(
        fs::symlink_metadata(root.join("d/deep/mode"))?.permissions().mode() & 0o7777,
        0o600,
        "a mode that was changed"
    );
    check_eq!(fs::read_to_string(root.join("new/file"))?, "x", "a new file");
    Ok(())
}

fn refusals(ctx: &Context) -> Outcome {
    let (image, id) = changed(ctx, &[])?;
    for (words, says) in [
        (&["test:2", "-c", "RUN ls"][..], "no instruction for a commit"),
        (&["test:2", "-c", "EXPOSE none"], "no port"),
        (&["BAD"], "name"),
        (&[&format!("test@sha256:{}", "0".repeat(64))], "digest"),
    ] {
        image
            .about("commit", &[&id])
            .args(words)
            .run()?
            .fails_saying(&[says])
            .map_err(|e| e.during(&format!("{words:?}")))?;
    }
    image.exec(&id, &["write", "/.wh.a", "x"])?;
    image.about("commit", &[&id, "test:2"]).run()?.fails_saying(&[".wh.a", "mark"])?;
    image.end(&id)?;
    image.about("commit", &["nobody", "test:2"]).run()?.fails_saying(&["does not exist"])?;
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    check_eq!(image.entries("layers").len(), 1, "layers of the store");
    Ok(())
}

fn rootless(ctx: &Context) -> Outcome {
    const USER: u32 = 61_002;
    let image = image(ctx)?;
    as_user(ctx, &image, USER)?;
    let id = start_as_user(&image, &[])?;
    image.exec(&id, CHANGES)?;
    image.exec(&id, &["chmod", "/new/file", "0000"])?;
    let told = commit(&image, &id, "test:2", &[]);
    image.end(&id)?;
    let top = top(&image, &told?)?;
    let file = fs::symlink_metadata(top.join("new/file"))?;
    check_eq!((file.mode(), file.uid()), (0o100_000, USER), "mode and owner of a file");
    check!(fs::symlink_metadata(top.join("d/gone")).is_ok_and(|info| info.rdev() == 0), "there is no whiteout");
    Ok(())
}
