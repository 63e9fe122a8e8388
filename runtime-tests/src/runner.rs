//! Runs tests, each in a process of its own that is subreaper of all it starts, and prints results.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::{Value, json};

use crate::harness::cgroup::{self, Layout};
use crate::harness::command::readable;
use crate::harness::{Context, Failure, Peer, Test, children, leaks};
use crate::known::{self, List, Subject};
use crate::{sys, tests};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    pub runtime: PathBuf,
    pub guest: PathBuf,
    pub known: Option<PathBuf>,
    pub peer: Option<Peer>,
    pub jobs: usize,
    pub no_newer_syscalls: bool,
    /// `host`, `v1` or `v2`: what tests see below /sys/fs/cgroup.
    pub cgroup: Option<String>,
    /// Containers are made by the systemd driver.
    pub systemd: bool,
    /// Stretches every deadline.
    pub slow: u32,
    pub names: Vec<String>,
    pub skip: Vec<String>,
    /// Keeps going, but shows nothing of tests that pass.
    pub quiet: bool,
}

const TEST_LIMIT: Duration = Duration::from_secs(180);

/// Name and version as `RUNTIME --version` prints them.
pub fn identify(runtime: &Path) -> Result<(String, String), String> {
    let output = Command::new(runtime)
        .arg("--version")
        .output()
        .map_err(|e| format!("run {} --version: {e}", runtime.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.lines().next().unwrap_or_default().split_whitespace();
    let name = words.next().unwrap_or_default().to_owned();
    let version = words.nth(1).unwrap_or_default().to_owned();
    if name.is_empty() { Err(format!("{} --version printed nothing", runtime.display())) } else { Ok((name, version)) }
}

/// Full names that the command line selects.
pub fn selected(options: &Options) -> Vec<String> {
    let matches = |name: &str, patterns: &[String]| patterns.iter().any(|p| name == p || name.contains(p.as_str()));
    tests::all()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|n| options.names.is_empty() || matches(n, &options.names))
        .filter(|n| !matches(n, &options.skip))
        .collect()
}

struct Job {
    name: String,
    child: Child,
    /// Readable when the test has ended.
    pidfd: OwnedFd,
    started: Instant,
}

#[derive(Default)]
struct Totals {
    passed: u32,
    failed: u32,
    known: u32,
    skipped: u32,
    surprises: Vec<String>,
    failures: Vec<String>,
}

/// Runs what is selected; the exit code is 0 if nothing failed that is not known.
///
/// # Errors
/// What kept the tests from being run at all.
pub fn run(options: &Options) -> Result<ExitCode, String> {
    let (name, version) = identify(&options.runtime)?;
    let peer = match options.peer.or_else(|| Peer::from_name(&name)) {
        Some(peer) => peer,
        None => return Err(format!("{name:?} is not known: say --peer kelson, runc or crun")),
    };
    let all: Vec<String> = tests::all().into_iter().map(|(name, _)| name).collect();
    let list = match &options.known {
        Some(path) => known::load(path, &all)?,
        None => List::default(),
    };
    let names = selected(options);
    if names.is_empty() {
        return Err("no test has such a name".into());
    }
    let work = prepare(options, peer)?;
    let options = &Options {
        runtime: within_reach(&options.runtime, &work)?,
        guest: within_reach(&options.guest, &work)?,
        ..options.clone()
    };
    let cgroup = if Layout::read().is_v2() { "v2" } else { "v1" };
    let subject = Subject { runtime: peer.name(), version: &version, cgroup };
    println!("{} {version} ({}), cgroup {cgroup}, {} tests", peer.name(), options.runtime.display(), names.len());
    sys::become_subreaper().map_err(|e| e.to_string())?;

    let signals = signals().map_err(|e| format!("signalfd: {e}"))?;

    let started = Instant::now();
    let mut totals = Totals::default();
    let mut waiting = names.iter().enumerate();
    let mut jobs: Vec<Job> = vec![];
    loop {
        while jobs.len() < options.jobs.max(1) {
            let Some((index, name)) = waiting.next() else { break };
            jobs.push(start(options, peer, &version, &work, index, name)?);
        }
        if jobs.is_empty() {
            break;
        }
        wait(&jobs, &signals, options.slow);
        if matches!(signals.read_signal(), Ok(Some(_))) {
            jobs.iter_mut().for_each(|job| drop(job.child.kill()));
            remove_leftovers(|pid| pid == std::process::id());
            discard(&work);
            return Err("interrupted".into());
        }
        let mut at = 0;
        while at < jobs.len() {
            let over = jobs[at].started.elapsed() > TEST_LIMIT * options.slow;
            if over {
                // It may end at this moment.
                let _ = jobs[at].child.kill();
            }
            if over || readable(&jobs[at].pidfd, Duration::ZERO) {
                let job = jobs.swap_remove(at);
                finish(job, over, &mut totals, &list, subject, options.quiet);
            } else {
                at += 1;
            }
        }
    }
    // What a test cannot see: its runtime took the cgroup file systems away, or made cgroups elsewhere.
    remove_leftovers(|pid| pid == std::process::id());
    discard(&work);
    if !totals.failures.is_empty() {
        println!("\nfailed:\n  {}", totals.failures.join("\n  "));
    }
    if !totals.surprises.is_empty() {
        println!("\npass although known.toml says they fail:\n  {}", totals.surprises.join("\n  "));
    }
    println!("\n{:.1} s", started.elapsed().as_secs_f64());
    if totals.known > 0 {
        println!("{} failed as known.toml says", totals.known);
    }
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// SIGINT and SIGTERM as a descriptor; children start with an empty mask.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Waits until a test ends, a signal comes, or a test has taken too long.
fn wait(jobs: &[Job], signals: &SignalFd, slow: u32) {
    let limit = TEST_LIMIT * slow;
    let left = jobs.iter().map(|j| limit.saturating_sub(j.started.elapsed())).min().unwrap_or_default();
    let mut fds: Vec<PollFd> = jobs.iter().map(|j| PollFd::new(j.pidfd.as_fd(), PollFlags::POLLIN)).collect();
    fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
    // Whatever ends the wait, the caller looks at everything.
    let _ = poll(&mut fds, PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX));
}

/// Takes the work directory away; errors do not matter: its mount goes with the mount namespace.
fn discard(work: &Path) {
    let _ = umount2(work, MntFlags::MNT_DETACH);
    let _ = fs::remove_dir(work);
}

/// Ends what a test that was killed has left to this process, its subreaper.
fn kill_orphans() {
    for _ in 0..100 {
        children::reap();
        let orphans = children::orphans();
        if orphans.is_empty() {
            return;
        }
        for pid in orphans {
            // It is our child and not reaped: the PID is its own.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Removes the cgroups (and what runs in them) and work directories of test runs with such a process id.
fn remove_leftovers(wanted: impl Fn(u32) -> bool) {
    kill_orphans();
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("kelson-tests-").and_then(|pid| pid.parse().ok()).is_some_and(&wanted) {
            // Empty: its mount is gone.
            let _ = fs::remove_dir(entry.path());
        }
    }
    // runc takes paths that are relative, or climb, to be below the cgroup of its caller.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own: Vec<&str> = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    for point in Layout::read().mounts {
        let below = own.iter().map(|path| point.join(path.trim_start_matches('/')));
        let dirs: HashSet<PathBuf> = below.flat_map(|dir| [dir.join("tmp"), dir]).chain([point.clone()]).collect();
        for dir in dirs.into_iter().filter(|dir| dir.is_dir()) {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let rest = name.strip_prefix("kelson-test-").or(name.strip_prefix("kelson-tests-"));
                if rest.and_then(|rest| rest.split('-').next()?.parse().ok()).is_some_and(&wanted) {
                    cgroup::remove(&entry.path());
                }
            }
            if dir.ends_with("tmp") {
                // Only an empty one goes.
                let _ = fs::remove_dir(dir);
            }
        }
    }
}

/// Enters a private mount namespace, arranges /sys/fs/cgroup, mounts the work directory.
fn prepare(options: &Options, peer: Peer) -> Result<PathBuf, String> {
    let mut doing = "unshare the mount namespace (are you root?)";
    let mut steps = || -> nix::Result<PathBuf> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        doing = "make mounts private";
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        doing = "arrange /sys/fs/cgroup";
        let hybrid = Path::new("/sys/fs/cgroup/unified").exists();
        let default = if peer == Peer::Crun && hybrid { "v1" } else { "host" };
        match options.cgroup.as_deref().unwrap_or(default) {
            "v1" if hybrid => umount2("/sys/fs/cgroup/unified", MntFlags::empty())?,
            "v2" if !Layout::read().is_v2() => {
                // The v1 hierarchies go from view, or they would still be listed in mountinfo.
                umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH)?;
                mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)?;
            }
            _ => {}
        }
        // What a run that was killed has left.
        remove_leftovers(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        // As on a host with systemd: what a runtime lets propagate becomes visible here.
        doing = "make mounts shared";
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SHARED, None::<&str>)?;
        doing = "make the work directory";
        let work = PathBuf::from(format!("/tmp/kelson-tests-{}", std::process::id()));
        let io = |e: std::io::Error| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(5));
        fs::create_dir(&work).map_err(io)?;
        doing = "mount a tmpfs on the work directory";
        mount(Some("tmpfs"), &work, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        Ok(work)
    };
    let result = steps();
    result.map_err(|e| format!("{doing}: {e}"))
}

/// `program`, or a copy of it in the work directory where a directory on the way to it is closed to other users, as root's
/// home is: tests become such users.
fn within_reach(program: &Path, work: &Path) -> Result<PathBuf, String> {
    let is_open = |dir: &Path| fs::metadata(dir).is_ok_and(|info| info.permissions().mode() & 0o001 != 0);
    let Some(name) = program.file_name().filter(|_| !program.ancestors().skip(1).all(is_open)) else {
        return Ok(program.into());
    };
    let copy = work.join(name);
    fs::copy(program, &copy).map(|_| copy).map_err(|e| format!("copy {}: {e}", program.display()))
}

fn start(options: &Options, peer: Peer, version: &str, work: &Path, index: usize, name: &str) -> Result<Job, String> {
    let settings = json!({
        "runtime": options.runtime, "guest": options.guest, "peer": peer.name(), "version": version,
        "name": name, "dir": work.join(index.to_string()), "slow": options.slow,
        "cgroup_parent": format!("/kelson-test-{}-{index}", std::process::id()),
        "no_newer_syscalls": options.no_newer_syscalls, "systemd": options.systemd,
    });
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(own);
    command.arg("--one").arg(settings.to_string()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::before_exec(&mut command, vec![sys::BeforeExec::ProcessGroup, sys::BeforeExec::DieWithParent]);
    let mut list = children::lock();
    let child = command.spawn().map_err(|e| format!("start a test: {e}"))?;
    list.manage(child.id() as i32);
    drop(list);
    let pidfd = sys::pidfd_open(child.id() as i32).map_err(|e| format!("pidfd_open: {e}"))?;
    Ok(Job { name: name.to_owned(), child, pidfd, started: Instant::now() })
}

fn finish(job: Job, over: bool, totals: &mut Totals, list: &List, subject: Subject<'_>, quiet: bool) {
    let took = job.started.elapsed();
    children::lock().release(job.child.id() as i32);
    // Both pipes were small enough not to block: a result line and a panic's message.
    let output = job.child.wait_with_output().ok();
    let stdout = output.as_ref().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let stderr = output.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
    let result: HashMap<String, String> =
        stdout.lines().last().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
    if result.is_empty() {
        kill_orphans();
    }
    let why = result.get("why").cloned().unwrap_or_default();
    let known = list.known(subject, &job.name);
    let print = |mark: &str, rest: &str| {
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: nothing to be done about it.
        let _ = writeln!(out, "{mark:<5} {} ({} ms){rest}", job.name, took.as_millis());
    };
    match result.get("outcome").map(String::as_str) {
        Some("passed") if known.is_some_and(|known| known.control) => {
            totals.failed += 1;
            totals.failures.push(job.name.clone());
            print("FAIL", "\n  passes where known.toml names it a control: it does not find what it looks for");
        }
        Some("passed") => {
            totals.passed += 1;
            if let Some(known) = known
                && !known.sometimes
            {
                totals.surprises.push(format!("{} ({})", job.name, known.why));
            }
            if !quiet {
                print("ok", "");
            }
        }
        Some("skipped") if std::env::var_os("CI").is_some() && !list.may_skip(subject, &job.name, &why) => {
            totals.failed += 1;
            totals.failures.push(job.name.clone());
            print("FAIL", &format!("\n  no [[skip]] of known.toml says that it may be skipped: {why}"));
        }
        Some("skipped") => {
            totals.skipped += 1;
            if !quiet {
                print("skip", &format!(": {why}"));
            }
        }
        _ => {
            let why = match (over, why.is_empty()) {
                (true, _) => format!("took longer than {TEST_LIMIT:?}"),
                (_, true) => format!("the test process ended without a result\n{stderr}"),
                _ => why,
            };
            match known {
                Some(known) if known.explains(&why) => {
                    totals.known += 1;
                    if !quiet {
                        let first = why.lines().next().unwrap_or_default();
                        print("known", &format!(": {} [{first}]", known.why));
                    }
                }
                _ => {
                    totals.failed += 1;
                    totals.failures.push(job.name.clone());
                    let expected = known.map_or(String::new(), |k| format!("known.toml expects {:?}\n", k.says));
                    print("FAIL", &format!("\n  {}", format!("{expected}{why}").replace('\n', "\n  ")));
                }
            }
        }
    }
    children::reap();
}

/// One test, in the process made for it; prints its result as a line of JSON.
pub fn one(settings: &str) -> Result<ExitCode, String> {
    let settings: Value = serde_json::from_str(settings).map_err(|e| e.to_string())?;
    let text = |key: &str| settings[key].as_str().unwrap_or_default().to_owned();
    let name = text("name");
    let found: Option<(String, Test)> = tests::all().into_iter().find(|(n, _)| *n == name);
    let (_, test) = found.ok_or_else(|| format!("no test {name:?}"))?;
    let dir = PathBuf::from(text("dir"));
    let root = dir.join("state");
    fs::create_dir_all(dir.join("io")).map_err(|e| e.to_string())?;
    fs::create_dir_all(&root).map_err(|e| e.to_string())?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).map_err(|e| e.to_string())?;
    // Keeps descriptors below 16 free for those that tests pass to commands (Cmd::fd).
    let placeholder = fs::File::open("/dev/null").map_err(|e| e.to_string())?;
    let mut held = vec![];
    while let Ok(fd) = placeholder.try_clone() {
        let enough = std::os::fd::AsRawFd::as_raw_fd(&fd) >= 16;
        held.push(fd);
        if enough {
            break;
        }
    }
    sys::become_subreaper().map_err(|e| e.to_string())?;
    // What one test has mounted, or made of the propagation of its mounts, is no other's.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare the mount namespace: {e}"))?;
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)
            .map_err(|e| e.to_string())?;
    }
    let slow = settings["slow"].as_u64().unwrap_or(1).max(1) as u32;
    let peer = Peer::from_name(&text("peer")).ok_or("peer")?;
    // Of the controls some are known to hang: that need not be waited for as long.
    let seconds = if peer == Peer::Kelson { 20 } else { 8 };
    let context = Context {
        runtime: text("runtime").into(),
        peer,
        version: text("version"),
        guest: text("guest").into(),
        name,
        root,
        cgroup_parent: text("cgroup_parent"),
        cgroups: Layout::read(),
        patience: Duration::from_secs(seconds) * slow,
        filter: settings["no_newer_syscalls"].as_bool().unwrap_or(false).then(sys::no_newer_syscalls),
        counter: AtomicU32::new(0),
        user: AtomicU32::new(0),
        systemd: AtomicBool::new(settings["systemd"].as_bool().unwrap_or(false)),
        dir,
    };
    let before = leaks::Before::look();
    let outcome = (test.run)(&context);
    let left = leaks::find(&context, &before);
    let (outcome, why) = match (outcome, left.is_empty()) {
        (Ok(()), true) => ("passed", String::new()),
        (Err(Failure::Skipped(why)), true) => ("skipped", why),
        (Err(Failure::Failed(why)), true) => ("failed", why),
        (Ok(()) | Err(Failure::Skipped(_)), false) => ("failed", format!("left behind: {}", left.join("\n  "))),
        (Err(Failure::Failed(why)), false) => ("failed", format!("{why}\nleft behind: {}", left.join("\n  "))),
    };
    let why: String = why.chars().take(12_000).collect();
    // The whole work directory is unmounted at the end; this only returns memory early.
    let _ = fs::remove_dir_all(&context.dir);
    println!("{}", json!({"outcome": outcome, "why": why}));
    Ok(ExitCode::SUCCESS)
}
