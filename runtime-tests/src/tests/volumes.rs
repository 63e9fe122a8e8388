//! `-v NAME:PATH`: directories that the store keeps under a name.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::diff::image;
use crate::harness::bundle::{GUEST, give};
use crate::harness::image::Image;
use crate::harness::{Context, Outcome, Test, Value, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "made_with_what_the_image_has_there", run: filled },
    Test { name: "next_container_sees_it", run: again },
    Test { name: "made_once_by_many", run: together },
    Test { name: "users_of_its_own", run: mapped },
    Test { name: "removed_when_nobody_uses_it", run: removed },
    Test { name: "long_form_and_refusals", run: words },
    Test { name: "ordinary_user", run: rootless },
];

fn with_owners(ctx: &Context) -> Outcome<Image<'_>> {
    Image::new(ctx, json!({"Cmd": [GUEST]}), |root| {
        fs::create_dir_all(root.join("data/deep"))?;
        fs::write(root.join("data/deep/file"), "image")?;
        fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o1777))?;
        for (path, id) in [("data", 1000), ("data/deep/file", 1001)] {
            std::os::unix::fs::chown(root.join(path), Some(id), Some(id))?;
        }
        Ok(())
    })
}

fn filled(ctx: &Context) -> Outcome {
    let image = with_owners(ctx)?;
    let words = ["stat", "/data", ",", "stat", "/data/deep/file", ",", "read", "/data/deep/file"];
    let seen = image.guest(&["-v", "stuff:/data"], &words)?.ok()?;
    let stats: Vec<Value> = seen.lines().iter().filter_map(|line| line.get("stat").cloned()).collect();
    check_eq!((&stats[0]["uid"], &stats[0]["mode"]), (&json!(1000), &json!(0o1777)), "owner and mode of the directory");
    check_eq!(stats[1]["uid"], json!(1001), "owner of the file");
    check_eq!(seen.said("read")?["text"], json!("image"), "content of the file");
    // Where the image has nothing, and where nothing is wanted, there is nothing.
    for volume in ["empty:/nowhere", "uncopied:/data:nocopy", "lower.1:/bin/guest/none"] {
        let target = volume.split(':').nth(1).unwrap_or_default();
        if volume.starts_with("lower") {
            image.guest(&["-v", volume], &["ls", target])?.fails()?;
            continue;
        }
        let seen = image.guest(&["-v", volume], &["ls", target])?.ok()?;
        check_eq!(seen.said("ls")?, json!([]), "{volume}");
    }
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    Ok(())
}

fn again(ctx: &Context) -> Outcome {
    let image = with_owners(ctx)?;
    image
        .guest(&["-v", "stuff:/data"], &["append", "/data/deep/file", " and more", ",", "write", "/data/new", "x"])?
        .ok()?;
    let seen = image
        .guest(&["-v", "stuff:/elsewhere:ro"], &["read", "/elsewhere/deep/file", ",", "write", "/elsewhere/a", "x"])?;
    let seen = seen.ok()?;
    check_eq!(seen.said("read")?["text"], json!("image and more"), "what the next container sees");
    check_eq!(seen.said("write")?["errno"], json!(libc::EROFS), "errno of writing with ro");
    // What the image has is copied once.
    image.guest(&["-v", "stuff:/data"], &["remove", "/data/deep/file"])?.ok()?;
    let seen = image.guest(&["-v", "stuff:/data"], &["ls", "/data/deep"])?.ok()?;
    check_eq!(seen.said("ls")?, json!([]), "a file that was removed");
    Ok(())
}

fn together(ctx: &Context) -> Outcome {
    let image = with_owners(ctx)?;
    image.run(&[], &[])?.ok()?;
    let words = [GUEST, "append", "/data/deep/file", "."];
    let start = |_| image.command(&image.fresh_id(), &["-v", "stuff:/data"], &words).deadline(ctx.patience * 4).spawn();
    let all: Vec<_> = (0..12).map(start).collect::<Outcome<_>>()?;
    for running in all {
        running.wait()?.ok()?;
    }
    let text = fs::read_to_string(image.store.join("volumes/stuff/data/deep/file"))?;
    check_eq!(text, format!("image{}", ".".repeat(12)), "what twelve wrote");
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    Ok(())
}

/// On disk it has the ids that are seen inside, whichever the container has.
fn mapped(ctx: &Context) -> Outcome {
    ctx.need_new_syscalls("--userns auto")?;
    ctx.need_kernel(5, 19, "an overlay of id-mapped layers")?;
    let image = with_owners(ctx)?;
    let options = ["--userns", "auto", "-v", "stuff:/data"];
    image.guest(&options, &["write", "/data/new", "x", ",", "chown", "/data/new", "7", "8"])?.ok()?;
    let other = image.start(&["--userns", "auto"])?;
    let seen = image.guest(&options, &["stat", "/data/new", ",", "append", "/data/deep/file", "x"]);
    image.end(&other)?;
    let seen = seen?.ok()?;
    check_eq!(seen.said("stat")?["uid"], json!(7), "owner that a container with other ids sees");
    check_eq!(seen.said("append")?["errno"], json!(0), "errno of writing");
    let info = fs::metadata(image.store.join("volumes/stuff/data/new"))?;
    check_eq!((info.uid(), info.gid()), (7, 8), "owner on disk");
    Ok(())
}

fn removed(ctx: &Context) -> Outcome {
    let image = with_owners(ctx)?;
    let id = image.start(&["-v", "stuff:/data"])?;
    image.guest(&["-v", "other:/data"], &["report"])?.ok()?;
    let listed = image.image(&["volume", "--json"]).run()?.ok()?.json()?;
    let used = image.image(&["volume", "remove", "stuff"]).run()?;
    image.end(&id)?;
    let user = |nth: usize| (listed[nth]["name"].clone(), listed[nth]["user"].clone());
    check_eq!(user(0), (json!("other"), Value::Null), "the first volume");
    check_eq!(user(1), (json!("stuff"), json!(ctx.root.join(&id))), "the second volume");
    used.fails_saying(&["stuff", &id])?;
    image.image(&["volume", "remove", "stuff", "other"]).run()?.ok()?.prints("stuff\nother\n")?;
    check_eq!(image.entries("volumes"), Vec::<String>::new(), "volumes that are left");
    image.image(&["volume", "remove", "stuff"]).run()?.fails_saying(&["there is no volume", "stuff"])?;
    image.image(&["volume", "remove", "../layers"]).run()?.fails_saying(&["there is no volume"])?;
    check!(!image.entries("layers").is_empty(), "the layers are gone");
    Ok(())
}

fn words(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    for long in ["type=volume,source=stuff,target=/d,readonly", "source=other,target=/d,readonly"] {
        let seen = image.guest(&["--mount", long], &["ls", "/d", ",", "write", "/d/a", "x"])?.ok()?;
        check_eq!(seen.said("ls")?, json!(["changed", "deep", "gone", "same"]), "what is in {long}");
        check_eq!(seen.said("write")?["errno"], json!(libc::EROFS), "errno of writing to {long}");
    }
    image.run(&["--mount", "source=/etc,target=/d"], &[])?.fails_saying(&["no volume's name", "type=bind"])?;
    for (volume, says) in
        [("/a", "without a name"), ("a/b:/c", "neither a path nor a volume's name"), ("x:/c", "neither a path")]
    {
        image.run(&["-v", volume], &[])?.fails_saying(&[says])?;
    }
    Ok(())
}

fn rootless(ctx: &Context) -> Outcome {
    const USER: u32 = 61_000;
    let image = with_owners(ctx)?;
    ctx.become_rootless(USER)?;
    fs::create_dir(&image.store)?;
    give(&image.store, USER)?;
    fs::set_permissions(&ctx.dir, fs::Permissions::from_mode(0o755))?;
    let (key, value) = ctx.marker();
    let run = |words: &[&str]| {
        let own = ctx.runtime().args(["run", "--network", "none", "--name", &image.fresh_id(), "-v", "stuff:/data"]);
        let own = own.args(["-e", &format!("{key}={value}"), "--store"]).arg(&image.store);
        own.arg("--image").arg(&image.file).arg(GUEST).args(words).run()?.ok()
    };
    run(&["append", "/data/deep/file", "!"])?;
    check_eq!(
        run(&["read", "/data/deep/file"])?.said("read")?["text"],
        json!("image!"),
        "what the next container sees"
    );
    image.image(&["volume", "remove", "stuff"]).run()?.ok()?;
    Ok(())
}
