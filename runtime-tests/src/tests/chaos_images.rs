//! Containers of images, killed in the middle and many times over.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::chaos::{Random, force, nothing_remains, number};
use crate::harness::bundle::GUEST;
use crate::harness::image::Image;
use crate::harness::{Context, Outcome, Test, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "chaos_kill_run_of_an_image", run: kill_run },
    Test { name: "chaos_kill_first_run_of_an_image", run: kill_first_run },
    Test { name: "chaos_a_thousand_runs_of_an_image", run: thousand_runs },
];

/// An image whose import takes a while: a file of some MiB beside the guest.
fn image(ctx: &Context) -> Outcome<Image<'_>> {
    Image::new(ctx, json!({}), |rootfs| {
        for name in 0..200 {
            fs::write(rootfs.join(format!("srv-{name}")), vec![name as u8; 40_000])?;
        }
        Ok(())
    })
}

fn kill_run(ctx: &Context) -> Outcome {
    kill_at_random(ctx, Store::Filled)
}

fn kill_first_run(ctx: &Context) -> Outcome {
    kill_at_random(ctx, Store::Empty)
}

/// What the run that is killed finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Empty,
    Filled,
}

/// Kills `run --image` at instants drawn over the time it takes. Each time the next run must succeed, and leave nothing of either.
fn kill_at_random(ctx: &Context, found: Store) -> Outcome {
    let random = Random::new();
    let mut image = image(ctx)?;
    let fresh = image.store.clone();
    let mut times = vec![];
    for round in 0..5 {
        if found == Store::Empty {
            image.store = fresh.with_extension(format!("whole{round}"));
        }
        times.push(image.run(&[], &[GUEST, "print", "ran"])?.ok()?.prints("ran\n")?.took);
    }
    times.sort();
    let whole = times[2];
    for round in 0..number("KELSON_CHAOS_ROUNDS", 50) {
        if found == Store::Empty {
            image.store = fresh.with_extension(round.to_string());
        }
        let id = image.fresh_id();
        let delay = Duration::from_nanos(random.below(whole.as_nanos() as u64 * 11 / 10));
        let running = image.command(&id, &[], &[GUEST, "sleep"]).spawn()?;
        // The one sleep that is meant: the instant is what is drawn.
        std::thread::sleep(delay);
        running.signal(libc::SIGKILL)?;
        let run = running.wait()?;
        let what = format!("seed {}, round {round}: {} killed {delay:?} after its start", random.seed, run.shown);
        after_the_kill(ctx, &image, &id).map_err(|e| e.during(&what))?;
        if found == Store::Empty {
            fs::remove_dir_all(&image.store)?;
        }
    }
    Ok(())
}

/// What died is deleted, and a run works: at once, beside an import that may go on.
fn after_the_kill(ctx: &Context, image: &Image, id: &str) -> Outcome {
    ctx.runtime().args(["delete", "--force", id]).run()?.ok()?;
    image.run(&[], &[GUEST, "print", "ran"])?.ok()?.prints("ran\n")?;
    force(ctx, id)?;
    nothing_is_left_in(image)
}

fn nothing_is_left_in(image: &Image) -> Outcome {
    check_eq!(image.entries("layers").len(), 1, "layers of the store");
    check_eq!(image.entries("tmp"), Vec::<String>::new(), "work that is left in the store");
    check_eq!(image.entries("roots"), Vec::<String>::new(), "containers that the store knows of");
    Ok(())
}

/// In the foreground, detached and deleted, and with a program that is not there.
fn thousand_runs(ctx: &Context) -> Outcome {
    let image = image(ctx)?;
    image.remember()?;
    let before = paths(&image.store)?;
    let failures = Mutex::new(vec![]);
    let count = number("KELSON_CHAOS_RUNS", 1000);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (image, failures) = (&image, &failures);
            scope.spawn(move || {
                for round in (worker..count).step_by(4) {
                    if let Err(why) = one_run(ctx, image, round) {
                        failures.lock().map(|mut list| list.push(format!("run {round}: {why}"))).unwrap_or(());
                        return;
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    check!(failures.is_empty(), "{}", failures.join("\n  "));
    nothing_remains(ctx)?;
    let after = paths(&image.store)?;
    let new: Vec<_> = after.difference(&before).collect();
    check!(new.is_empty(), "new in the store: {new:?}");
    Ok(())
}

fn one_run(ctx: &Context, image: &Image, round: u64) -> Outcome {
    let id = image.fresh_id();
    let run = |options: &[&str], words: &[&str]| image.command(&id, options, words).deadline(ctx.patience * 3).run();
    match round % 10 {
        0 => {
            run(&["--detach"], &[GUEST, "sleep"])?.ok()?;
            ctx.runtime().args(["delete", "--force", &id]).run()?.ok().map(drop)
        }
        1 => run(&["--init"], &["/nothing/there"])?.exits(127).map(drop),
        _ => run(&[], &[GUEST, "print", "ran"])?.ok()?.prints("ran\n").map(drop),
    }
}

/// Everything below a directory.
fn paths(directory: &Path) -> Outcome<BTreeSet<PathBuf>> {
    let (mut found, mut todo) = (BTreeSet::new(), vec![directory.to_owned()]);
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    Ok(found)
}
