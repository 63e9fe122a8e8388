//! Many containers, a state directory without room, a caller who may open few files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::chaos::{force, nothing_remains, rich};
use crate::harness::{Cmd, Container, Context, Outcome, Run, Test, json};
use crate::sys::BeforeExec;
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "chaos_thousand_containers", run: thousand },
    Test { name: "chaos_state_directory_without_room", run: without_room },
    Test { name: "chaos_state_directory_without_inodes", run: without_inodes },
    Test { name: "chaos_full_state_directory_of_a_container", run: full_later },
    Test { name: "chaos_few_open_files", run: few_files },
];

/// A failure is told in one line with this in it.
fn fails_with(run: &Run, cause: &str) -> Outcome {
    let said = run.err();
    let errors = said.lines().filter(|line| !line.starts_with("kelson: warning: ")).count();
    check!(run.signal.is_none() && errors == 1 && said.contains(cause), "not a clear error: {}", run.told());
    Ok(())
}

// ---- many ----------------------------------------------------------------------------------------------------------

fn thousand(ctx: &Context) -> Outcome {
    const COUNT: usize = 1000;
    let begun = Instant::now();
    let bundle_of = |worker: usize| -> Outcome<crate::harness::Bundle<'_>> {
        let mut bundle = ctx.bundle()?;
        bundle.guest(&["sleep"]).set("/linux/cgroupsPath", format!("{}/worker-{worker}", ctx.cgroup_parent));
        Ok(bundle)
    };
    let id = |number: usize| format!("one-{number:04}");
    let make = |worker: usize| -> Outcome {
        let mut bundle = bundle_of(worker)?;
        for number in (worker..COUNT).step_by(2) {
            bundle.set("/linux/cgroupsPath", format!("{}/{}", ctx.cgroup_parent, id(number))).write()?;
            let create = ctx.runtime().arg("create").arg("--bundle").arg(&bundle.dir).arg(id(number));
            create.deadline(ctx.patience * 3).run()?.ok()?;
        }
        Ok(())
    };
    in_two(make)?;
    let listed = ctx.runtime().args(["list", "--format", "json"]).run()?.ok()?.json()?;
    let listed = listed.as_array().ok_or("list prints no array")?;
    let ids: Vec<&str> = listed.iter().filter_map(|one| one["id"].as_str()).collect();
    check_eq!(ids, (0..COUNT).map(id).collect::<Vec<_>>(), "ids that are listed");
    check!(listed.iter().all(|one| one["status"] == "created"), "not all are created");
    let pids: BTreeSet<i64> = listed.iter().filter_map(|one| one["pid"].as_i64()).filter(|pid| *pid > 0).collect();
    check_eq!(pids.len(), COUNT, "different PIDs");
    let table = ctx.runtime().arg("list").run()?.ok()?.out();
    check_eq!(table.lines().count(), COUNT + 1, "lines of the table");
    check_eq!(
        ctx.runtime().args(["list", "--quiet"]).run()?.ok()?.out().lines().count(),
        COUNT,
        "lines of list --quiet"
    );
    in_two(|worker| {
        for number in (worker..COUNT).step_by(2) {
            ctx.runtime().args(["delete", &id(number)]).deadline(ctx.patience * 3).run()?.ok()?;
        }
        Ok(())
    })?;
    nothing_remains(ctx)?;
    check!(begun.elapsed() < ctx.patience * 4, "it took {:?}", begun.elapsed());
    Ok(())
}

/// Does the work of worker 0 and worker 1 at once.
fn in_two(work: impl Fn(usize) -> Outcome + Sync) -> Outcome {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work(1));
        let own = work(0);
        own.and(other.join().unwrap_or_else(|_| Err("a worker panicked".into())))
    })
}

// ---- no room -------------------------------------------------------------------------------------------------------

/// A tmpfs of its own for the state directory, gone when this is dropped.
struct Small<'c> {
    ctx: &'c Context,
    dir: std::path::PathBuf,
}

impl<'c> Small<'c> {
    fn new(ctx: &'c Context, options: &str) -> Outcome<Small<'c>> {
        let dir = ctx.new_dir("small")?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(options))?;
        let small = Small { ctx, dir };
        fs::create_dir(small.root())?;
        Ok(small)
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.join("root")
    }

    /// Fills all pages but `free` of them.
    fn fill(&self, free: usize) -> Outcome {
        let path = self.dir.join("filler");
        let room = nix::sys::statvfs::statvfs(&self.dir)?;
        fs::write(path, vec![1; (room.blocks_free() as usize).saturating_sub(free) * room.fragment_size() as usize])?;
        Ok(())
    }

    fn runtime(&self) -> Cmd<'c> {
        self.ctx.runtime_without_root().arg("--root").arg(self.root())
    }

    fn create(&self, container: &Container<'_>) -> Outcome<Run> {
        self.runtime().arg("create").arg("--bundle").arg(&container.bundle).arg(&container.id).run()
    }

    /// Nothing is left in the state directory or elsewhere.
    fn left_nothing(self) -> Outcome {
        let left: Vec<_> = fs::read_dir(self.root())?.flatten().map(|entry| entry.file_name()).collect();
        check!(left.is_empty(), "left in the state directory: {left:?}");
        let ctx = self.ctx;
        drop(self);
        nothing_remains(ctx)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // What holds it is found by the check for leaks.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

/// Creates with more and more room until that succeeds; until then each fails and leaves nothing.
fn with_more_and_more<'c>(
    ctx: &'c Context,
    least: usize,
    small: impl Fn(usize) -> Outcome<(Small<'c>, usize)>,
) -> Outcome {
    ctx.need_kelson("a state directory of a few pages")?;
    let mut bundle = rich(ctx)?;
    for room in least..64 {
        let container = bundle.container()?;
        let (small, free) = small(room)?;
        small.fill(free)?;
        let run = small.create(&container)?;
        let during = |why: crate::harness::Failure| why.during(&format!("room for {room}: {}", run.told()));
        if run.code != 0 {
            fails_with(&run, "no space left on device").map_err(during)?;
            small.left_nothing().map_err(during)?;
            continue;
        }
        check!(room > least, "the test shows nothing: there is always room");
        small.runtime().args(["start", &container.id]).run()?.ok()?;
        small.runtime().args(["delete", "--force", &container.id]).run()?.ok()?;
        return small.left_nothing();
    }
    Err("it never succeeded".into())
}

fn without_room(ctx: &Context) -> Outcome {
    with_more_and_more(ctx, 0, |free| Ok((Small::new(ctx, "size=1m")?, free)))
}

fn without_inodes(ctx: &Context) -> Outcome {
    // Its own root, the state directory, the filler.
    with_more_and_more(ctx, 3, |inodes| Ok((Small::new(ctx, &format!("size=1m,nr_inodes={inodes}"))?, 200)))
}

/// What is there can be started, entered, killed and deleted when there is no room for more.
fn full_later(ctx: &Context) -> Outcome {
    let mut bundle = rich(ctx)?;
    let container = bundle.container()?;
    let small = Small::new(ctx, "size=1m")?;
    small.create(&container)?.ok()?;
    small.fill(0)?;
    small.runtime().args(["start", &container.id]).run()?.ok()?;
    small.runtime().args(["exec", &container.id, "/bin/guest", "exit", "3"]).run()?.exits(3)?;
    let state = small.runtime().args(["state", &container.id]).run()?.ok()?.json()?;
    check_eq!(state["status"], json!("running"), "status");
    small.runtime().args(["delete", "--force", &container.id]).run()?.ok()?;
    small.left_nothing()
}

// ---- few files -----------------------------------------------------------------------------------------------------

/// With each number of files that a caller may open a command works, or says what it lacks and leaves nothing.
fn few_files(ctx: &Context) -> Outcome {
    ctx.need_kelson("a handful of descriptors")?;
    let mut bundle = rich(ctx)?;
    // Root may not be allowed to raise it again.
    bundle.remove("/process/rlimits");
    let few =
        |command: Cmd<'_>, files: u64| command.before_exec(BeforeExec::Rlimit(libc::RLIMIT_NOFILE, files, files)).run();
    let told = |run: &Run| fails_with(run, "too many open files").map(|()| false);
    let succeeds = |run: &Run, code: i32| if run.code == code { Ok(true) } else { told(run) };
    let mut worked = 0;
    for files in 4..48 {
        let during = |why: crate::harness::Failure| why.during(&format!("{files} files"));
        let container = bundle.container()?;
        let path: &Path = &container.bundle;
        let create = ctx.runtime().arg("create").arg("--bundle").arg(path).arg(&container.id);
        if !succeeds(&few(create, files)?, 0).map_err(during)? {
            nothing_remains(ctx).map_err(during)?;
            container.verb("create").arg("--bundle").arg(path).arg(&container.id).run()?.ok()?;
        }
        let state = few(container.verb("state").arg(&container.id), files)?;
        if succeeds(&state, 0).map_err(during)? {
            check_eq!(state.json()?["status"], "created", "status, asked with {files} files");
        }
        if !succeeds(&few(container.verb("start").arg(&container.id), files)?, 0).map_err(during)? {
            // A poststart hook that fails ends the container, for which there may be too few files as well.
            force(ctx, &container.id).map_err(during)?;
            continue;
        }
        let exec = container.exec_command(&[], &["/bin/guest", "exit", "3"]);
        worked += u32::from(succeeds(&few(exec, files)?, 3).map_err(during)?);
        let deleted = few(container.verb("delete").args(["--force", &container.id]), files)?;
        succeeds(&deleted, 0).map_err(during)?;
        force(ctx, &container.id).map_err(during)?;
    }
    check!(worked > 4, "exec never worked");
    Ok(())
}
