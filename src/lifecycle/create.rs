//! [parent] create and run: from a bundle to a process that waits for start, or runs.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::image::{self, Configured, Wanted};
use super::made::{Until, make};
use super::{Runtime, delete, foreground, listen, remover, steps, wait};
use crate::cli;
use crate::ended::Exit;
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::image::Options;
use crate::plan::{self, Overrides, Plan};
use crate::signals::Signals;
use crate::state::{self, Status};
use crate::sys::fd::{copy_over, open};
use crate::terminal::Relay;
use crate::timings::Timings;

/// Creates the container; its process waits for `start`.
pub fn create(runtime: &Runtime, options: &cli::Create) -> Result<()> {
    let mut timings = Timings::begin(options.timings.as_deref(), "create", &options.id)?;
    let preserved = listen::preserved(options.preserve_fds)?;
    let signals = Signals::hold_terminating()?;
    let plan = load(runtime, options, &[], &mut timings)?;
    check_terminal(&plan, options, false)?;
    let mut made = make(runtime, options, plan, Until::Started, preserved, &signals, &mut timings)?;
    match made.commit(&signals) {
        Ok(()) => {
            made.keep();
            timings.finish();
            Ok(())
        }
        Err(error) => Err(made.undo(error, &signals)),
    }
}

/// Creates and starts the container; in the foreground waits for its end and gives its exit code.
pub fn run(runtime: &Runtime, options: &cli::Run) -> Result<u8> {
    let create = &options.create;
    let leaves_remover = options.detach && options.remove;
    if leaves_remover {
        remover::check()?;
    }
    let mut timings = Timings::begin(create.timings.as_deref(), "run", &create.id)?;
    let preserved = listen::preserved(create.preserve_fds)?;
    let plan = match &options.image {
        None => None,
        // Before signals are held: a download can be interrupted.
        Some(image) => Some(load_image(runtime, create, image, options, &mut timings)?),
    };
    let signals = Signals::hold_terminating()?;
    let plan = match plan {
        Some(plan) => plan,
        None => load(runtime, create, &options.args, &mut timings)?,
    };
    if plan.process.is_none() {
        return Err(
            Error::config("process", "there is nothing to run").hint("create takes a container without a process")
        );
    }
    check_terminal(&plan, create, !options.detach)?;
    if !options.detach && !options.no_subreaper {
        // Orphans of a container without a PID namespace end up here and are reaped.
        crate::sys::process::set_child_subreaper().doing(|| "become a subreaper")?;
    }
    let mut made = make(runtime, create, plan, Until::Told, preserved, &signals, &mut timings)?;
    let notify = match made.start(&signals, &mut timings) {
        Ok(notify) => notify,
        Err(error) => return Err(made.undo(error, &signals)),
    };
    let (pid, pidfd, console, state) = made.keep();
    if let Err(error) = hooks::run(&state.poststart, &state.to_oci(Status::Running)?, Some(&signals)) {
        // runtime.md#lifecycle: stop, destroy, poststop.
        delete::destroy(runtime, &state)?;
        return Err(error);
    }
    timings.lap(steps::POSTSTART);
    if let Some(pidfd) = pidfd.as_ref().filter(|_| leaves_remover)
        && let Err(error) = remover::leave(runtime, &state, pidfd)
    {
        delete::destroy(runtime, &state)?;
        return Err(error);
    }
    timings.finish();
    if options.detach {
        return match notify {
            Some(notify) => notify.forward_ready(pid, pidfd.as_ref(), &signals).map(|()| 0),
            None => Ok(0),
        };
    }
    let mut kills = state.cgroup.watch_kills();
    let exit = foreground::attend(pid, pidfd, console, notify, Some(&mut kills));
    if let Ok(exit) = exit {
        // The counters of its cgroup go with the container.
        wait::after_run(runtime, &state, exit, kills.into_counted(), options.keep);
    }
    // One that cannot be attended any more is nobody's to end but this process's.
    if (!options.keep || exit.is_err())
        && let Err(error) = delete::destroy(runtime, &state)
    {
        // The program's own exit code is what was asked for.
        log::warn!("{error}");
    }
    exit.map(Exit::code)
}

/// Reads config.json into a plan; `args` replace the config's.
fn load(
    runtime: &Runtime,
    options: &cli::Create,
    args: &[std::ffi::OsString],
    timings: &mut Timings<'_>,
) -> Result<Loaded> {
    state::check_id(&options.id)?;
    let bundle = real_path(&options.bundle).doing(|| format!("open the bundle {}", options.bundle.display()))?;
    let path = match &options.config {
        Some(path) => path.clone(),
        None => bundle.join("config.json"),
    };
    let text = plan::read_config(&path)?;
    timings.lap(steps::READ);
    let args = super::exec::c_strings(args)?;
    let overrides = Overrides { overlay: options.overlay, is_of_image: false, args };
    planned(runtime, options, &bundle, text, &overrides, timings)
}

/// The plan for a container of an image, whose directory is the bundle.
fn load_image(
    runtime: &Runtime,
    options: &cli::Create,
    image: &Options,
    run: &cli::Run,
    timings: &mut Timings<'_>,
) -> Result<Loaded> {
    state::check_id(&options.id)?;
    if image.interactive == Some(false) {
        let null = open("/dev/null", OFlag::O_RDONLY).doing(|| "open /dev/null")?;
        copy_over(null.as_fd(), 0).doing(|| "close standard input")?;
    }
    let dir = runtime.root.join(&options.id);
    let terminal = image::wants_terminal(image, run.detach);
    let wanted =
        Wanted { id: &options.id, dir: &dir, root: None, terminal, program: &options.program, only_looks: false };
    let mut configured = image::configure(runtime, image, wanted)?;
    let text = std::mem::take(&mut configured.text);
    timings.lap("read the image");
    let overrides = Overrides { overlay: options.overlay, is_of_image: true, args: vec![] };
    let loaded = planned(runtime, options, &dir, text, &overrides, timings)?;
    Ok(Loaded { image: Some(configured), ..loaded })
}

fn planned(
    runtime: &Runtime,
    options: &cli::Create,
    bundle: &Path,
    text: String,
    overrides: &Overrides,
    timings: &mut Timings<'_>,
) -> Result<Loaded> {
    let host = runtime.host();
    let mut plan = plan::plan(&text, bundle, &host, overrides)?;
    if let Some(process) = &mut plan.process {
        listen::pass_on(process);
        if options.console_socket.is_none() && process.console_size.is_none() {
            // Before the program runs: it may look once and never again.
            process.console_size = Relay::caller_size();
        }
    }
    timings.lap(steps::PLAN);
    Ok(Loaded { plan, text, last_capability: host.last_capability, image: None })
}

/// The path of a directory without links, dots and double slashes in it. Three system calls, where realpath(3) makes one for
/// each directory on the way.
pub(super) fn real_path(directory: &Path) -> std::io::Result<PathBuf> {
    let directory_fd = open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    match std::fs::read_link(format!("/proc/self/fd/{}", directory_fd.as_raw_fd())) {
        // It begins otherwise when it is not to be reached from this process's root.
        Ok(path) if path.is_absolute() => Ok(path),
        _ => std::fs::canonicalize(directory),
    }
}

/// config.json as it is and as a plan.
pub(super) struct Loaded {
    pub(super) plan: Plan,
    pub(super) text: String,
    pub(super) last_capability: u8,
    /// Where the root file system comes from, if it is not the bundle.
    pub(super) image: Option<Configured>,
}

impl std::ops::Deref for Loaded {
    type Target = Plan;
    fn deref(&self) -> &Plan {
        &self.plan
    }
}

fn check_terminal(plan: &Plan, options: &cli::Create, is_foreground: bool) -> Result<()> {
    let terminal = plan.process.as_ref().is_some_and(|process| process.terminal);
    let hint = "a detached container's terminal goes to whoever listens on --console-socket";
    match (terminal, &options.console_socket) {
        (true, None) if !is_foreground => Err(Error::config(
            "process.terminal",
            "cannot allocate tty if kelson will detach without setting console socket",
        )
        .hint(hint)),
        (false, Some(_)) => Err(Error::config(
            "process.terminal",
            "cannot use console socket if kelson will not detach or allocate tty",
        )
        .hint("set process.terminal, or leave --console-socket out")),
        _ => Ok(()),
    }
}

/// The exit code of a `run` that failed: a shell's, where it is in the foreground and execve(2) refused the program.
pub fn failure_code(options: &cli::Run, error: &Error) -> u8 {
    use Errno::{EACCES, EISDIR, ENOENT, ENOEXEC, ENOTDIR, EPERM};
    match error.errno().filter(|_| !options.detach && error.property() == Some("process.args")) {
        Some(ENOENT) => 127,
        Some(EACCES | EISDIR | ENOEXEC | ENOTDIR | EPERM) => 126,
        _ => 1,
    }
}
