//! Layers that are kept (`--keep-layer`, `--upper`), and bundles with a root file system of their own.

use std::fs;

use super::diff::image;
use crate::harness::bundle::GUEST;
use crate::harness::image::Image;
use crate::harness::{Context, Outcome, Test, Value, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "next_container_sees_it", run: again },
    Test { name: "one_container_at_a_time", run: one_at_a_time },
    Test { name: "of_a_bundle", run: of_bundle },
    Test { name: "only_on_its_image", run: other_image },
    Test { name: "listed_and_pruned", run: pruned },
    Test { name: "its_image_stays", run: image_stays },
    Test { name: "failure_leaves_none", run: failure },
    Test { name: "unpacked_bundle", run: unpacked },
];

fn again(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let upper = ctx.dir.join("upper").display().to_string();
    let id = image.fresh_id();
    for options in [&["--keep-layer"][..], &["--upper", &upper]] {
        for number in ["1", "2", "3"] {
            // The same name each time.
            let words = [GUEST, "append", "/d/changed", number];
            image.command(&id, options, &words).run()?.ok()?;
        }
        let seen = image.command(&id, options, &[GUEST, "read", "/d/changed"]).run()?.ok()?.said("read")?;
        check_eq!(seen["text"], json!("1123"), "the file after three containers");
    }
    Ok(())
}

fn one_at_a_time(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let dir = ctx.dir.join("upper");
    let upper = dir.display().to_string();
    let first = image.start(&["--upper", &upper])?;
    let refused = image.guest(&["--upper", &upper], &["write", "/new", "x"])?;
    image.end(&first)?;
    refused.fails_saying(&[&first, "one at a time"])?;
    check!(!dir.join("upper/new").exists(), "the second container wrote to it");
    // One that ended and was not deleted does not write any more.
    let id = image.fresh_id();
    image.command(&id, &["--keep", "--upper", &upper], &[GUEST, "write", "/kept", "x"]).run()?.ok()?;
    let after = image.guest(&["--upper", &upper], &["read", "/kept"]);
    image.end(&id)?;
    check_eq!(after?.ok()?.said("read")?["text"], json!("x"), "what the next container sees");
    Ok(())
}

fn of_bundle(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let dir = ctx.dir.join("made");
    let upper = ctx.dir.join("upper").display().to_string();
    let make = ctx.runtime().args(["bundle", "--network", "none", "--upper", &upper, "--store"]).arg(&image.store);
    make.arg(&image.file).arg(&dir).args([GUEST, "sleep"]).run()?.ok()?;
    let first = image.fresh_id();
    ctx.maker().args(["create", "--bundle"]).arg(&dir).arg(&first).run()?.ok()?;
    let second = ctx.maker().args(["create", "--bundle"]).arg(&dir).arg(image.fresh_id()).run()?;
    let third = image.guest(&["--upper", &upper], &["report"])?;
    image.end(&first)?;
    second.fails_saying(&[&first, "one at a time"])?;
    third.fails_saying(&[&first, "one at a time"])?;
    Ok(())
}

fn other_image(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let upper = ctx.dir.join("upper").display().to_string();
    image.guest(&["--upper", &upper], &["write", "/new", "x"])?.ok()?;
    let other = Image::new(ctx, json!({"Cmd": [GUEST], "Labels": {"another": "one"}}), |_| Ok(()))?;
    other.guest(&["--upper", &upper], &["report"])?.fails_saying(&["another image"])?;
    image.guest(&["--upper", &upper], &["read", "/new"])?.ok()?;
    Ok(())
}

fn kept_layers(image: &Image<'_>) -> Outcome<Vec<Value>> {
    let listed = image.image(&["list", "--layers", "--json"]).run()?.ok()?.json()?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

fn pruned(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let used = image.start(&["--keep-layer"])?;
    let gone = image.fresh_id();
    image.command(&gone, &["--keep-layer"], &[GUEST, "write", "/new", "x"]).run()?.ok()?;
    let listed = kept_layers(&image)?;
    let pruned = image.image(&["prune", "--layers", "--json"]).run()?.ok()?.json()?;
    let left = image.entries("kept");
    image.end(&used)?;
    let of = |id: &str| listed.iter().find(|layer| layer["id"] == json!(id)).cloned().unwrap_or_default();
    check_eq!(
        (listed.len(), of(&gone)["user"].is_null(), of(&used)["user"].is_null()),
        (2, true, false),
        "users of the layers"
    );
    check!(of(&gone)["size"].as_u64().is_some_and(|size| size >= 4096), "the size of a layer: {listed:?}");
    check_eq!(pruned["kept"], json!([gone]), "what was removed");
    check_eq!(left, std::slice::from_ref(&used), "what is kept");
    image.image(&["prune"]).run()?.ok()?;
    check_eq!(image.entries("kept"), [used], "what is kept without --layers");
    Ok(())
}

/// What is kept is of no use without the layers below it.
fn image_stays(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let id = image.fresh_id();
    image.command(&id, &["--keep-layer"], &[GUEST, "write", "/new", "x"]).run()?.ok()?;
    image.image(&["prune", "--all"]).run()?.ok()?;
    check_eq!(image.entries("layers").len(), 1, "layers of the store");
    image.about("diff", &[&id]).run()?.ok()?.prints("A /new\n")?;
    image.image(&["prune", "--all", "--layers"]).run()?.ok()?;
    check_eq!(image.entries("layers").len(), 0, "layers of the store when nothing is kept");
    Ok(())
}

fn failure(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    image.guest(&[], &["report"])?.ok()?;
    image.guest(&["--keep-layer", "--user", "nobody-at-all"], &["report"])?.fails()?;
    check_eq!(image.entries("kept"), Vec::<String>::new(), "what is kept");
    Ok(())
}

/// runc runs it too, which knows nothing of layers.
fn unpacked(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    let dir = ctx.dir.join("made");
    let make = |options: &[&str]| {
        let own =
            ctx.runtime().args(["bundle", "--unpack", "--network", "none", "--store"]).arg(&image.store).args(options);
        own.arg(&image.file).arg(&dir).args([GUEST, "read", "/d/same", ",", "write", "/new", "x"]).run()
    };
    make(&["--keep-layer"])?.fails_saying(&["--unpack"])?;
    make(&[])?.ok()?;
    check_eq!(image.entries("roots"), Vec::<String>::new(), "bundles that need the store's layers");
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    check!(!config["annotations"].to_string().contains("org.kelson"), "annotations: {}", config["annotations"]);
    config["linux"]["cgroupsPath"] = json!(format!("{}/made", ctx.cgroup_parent));
    fs::write(&path, config.to_string())?;
    image.image(&["prune", "--all"]).run()?.ok()?;
    let id = image.fresh_id();
    let seen = ctx.maker().args(["run", "--bundle"]).arg(&dir).arg(&id).run()?.ok()?.said("read")?;
    check_eq!(seen["text"], json!("3"), "a file of the image");
    check!(dir.join("rootfs/new").exists(), "what the container wrote is not in the bundle");
    if let Ok(runc) = ctx.need_program("runc") {
        // It leaves the parents of its cgroup.
        config["linux"]["cgroupsPath"] = Value::Null;
        fs::write(&path, config.to_string())?;
        let own = ctx.command(&runc.to_string_lossy()).arg("--root").arg(ctx.new_dir("runc")?);
        let seen = own.args(["run", "--bundle"]).arg(&dir).arg(&id).run()?.ok()?.said("read")?;
        check_eq!(seen["text"], json!("3"), "a file of the image, with runc");
    }
    Ok(())
}
