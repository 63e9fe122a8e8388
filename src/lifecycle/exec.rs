//! [parent] exec: runs another process in a container.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::pid_file::PidFile;
use super::{Runtime, foreground, listen};
use crate::cgroup::SubCgroup;
use crate::cli;
use crate::ended::Exit;
use crate::error::{Context, Error, Result};
use crate::plan::{self, Host, Process};
use crate::sandbox::message::{Answer, Ask};
use crate::sandbox::{exec, parent, stage};
use crate::security::users::UserSpec;
use crate::signals::Signals;
use crate::state::{self, Status};
use crate::terminal::{self, Relay};
use crate::timings::Timings;

/// Runs a process in the container; in the foreground waits for its end and gives its exit code.
pub fn exec(runtime: &Runtime, options: &cli::Exec) -> Result<u8> {
    let mut timings = Timings::begin(options.timings.as_deref(), "exec", &options.id)?;
    let preserved = listen::preserved(options.preserve_fds)?;
    // Before signals are held: whoever waits for the end of a pipe can be interrupted.
    let file = options.process.as_deref().map(|path| Ok::<_, Error>((path, plan::read_process(path)?))).transpose()?;
    let signals = Signals::hold_terminating()?;
    let state = runtime.load(&options.id)?;
    match state.status(&runtime.root)? {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        Status::Paused => {
            return Err(Error::state(format!("cannot exec in a paused container {:?}", options.id))
                .hint("resume it, or --ignore-paused"));
        }
        _ => return Err(Error::state(format!("cannot exec in container {:?}: container not running", options.id))),
    }
    let target = state.open_process()?;
    timings.lap("read the state");
    let config = state::config(&runtime.root, &options.id)?;
    let host = runtime.host();
    let configured = plan::for_exec(&config, &state.bundle, &host)?;
    let (mut process, user) = process_of(&host, options, file, configured.process)?;
    check_terminal(&process, options)?;
    listen::pass_descriptors_on(&mut process);
    if options.console_socket.is_none() && process.console_size.is_none() {
        process.console_size = Relay::caller_size();
    }
    timings.lap("make the plan");
    let (rlimits, oom_score_adj) = (process.rlimits.clone(), process.oom_score_adj);
    let sub = options.cgroup.iter().map(|text| SubCgroup::parse(text)).collect::<Result<Vec<_>>>()?;
    let entry = state.cgroup.entry(&sub)?;
    let mut request = exec::Exec {
        id: &options.id,
        process,
        user,
        personality: configured.personality,
        seccomp: configured.seccomp.as_ref(),
        namespaces: state.namespaces,
        no_new_keyring: state.no_new_keyring,
        is_hidden: !nix::unistd::geteuid().is_root(),
        rootless: runtime.rootless,
        cgroup: &entry,
        last_capability: host.last_capability,
        preserved,
        first_own: stage::first_own(preserved),
        is_timed: timings.is_on(),
    };
    // Before the clone: a process that enters the container is nobody's to look into (CVE-2016-9962).
    crate::sys::process::set_dumpable(false).doing(|| "become undumpable")?;
    let target_pid = target.pid();
    let root = stage::Target::open_root(target_pid, state.namespaces)?;
    let is_by_pid = root.is_some();
    let (namespaces, is_by_pid) = match target.into_pidfd() {
        Some(pidfd) => (stage::TargetNamespaces::Process(pidfd), is_by_pid),
        None => (stage::TargetNamespaces::open(target_pid, state.namespaces)?, true),
    };
    if is_by_pid {
        // They are the container's: its process was still there when they had been opened.
        state.open_process()?;
    }
    let mut target = Some(stage::Target { namespaces, root });
    timings.lap("open cgroups and namespaces");
    let beside;
    let mut child = match parent::spawn_exec(&mut request, &mut target) {
        Err(error) if error.errno() == Some(Errno::EBUSY) && sub.is_empty() => {
            // systemd, Docker or k3s inside the container: its process moved to a cgroup below (runc#2416).
            beside = state.cgroup.entry_beside(state.pid)?;
            request.cgroup = &beside;
            parent::spawn_exec(&mut request, &mut target)?
        }
        other => other?,
    };
    timings.lap("clone");
    child.wait_for_birth(&signals, |_| Err(Error::other("the stage process asked for a map of ids")))?;
    timings.lap("wait for the stage process");
    let mut console = None;
    let set_up = child.serve(&signals, |child, ask, fds| {
        timings.lap("wait for the process");
        let serving = ask.served();
        let served = match ask {
            Ask::Console => {
                terminal::take_master(fds, options.console_socket.as_deref()).map(|master| console = master)
            }
            Ask::SetRlimits => {
                parent::set_rlimits(child.pid(), &rlimits)?;
                child.answer(Answer::Done)
            }
            Ask::Listener(number) => {
                let seccomp = configured.seccomp.as_ref();
                listen::send_seccomp_listener(seccomp, &state, Status::Running, child, number)?;
                child.answer(Answer::Done)
            }
            other => Err(Error::other(format!("the process asked for {other:?}"))),
        };
        timings.lap(serving);
        served
    });
    timings.lap("wait for the process");
    timings.hear(child.heard());
    set_up?;
    if !request.is_hidden {
        parent::set_oom_score_adj(child.pid(), oom_score_adj, runtime.rootless)?;
    }
    if let (Some(socket), Some(pidfd)) = (&options.pidfd_socket, child.pidfd()) {
        terminal::send_fd(socket, pidfd, b"pidfd").doing(|| format!("send a pidfd to {}", socket.display()))?;
    }
    let pid_file = options.pid_file.as_deref().map(|path| PidFile::write(path, child.pid())).transpose()?;
    signals.check()?;
    timings.lap("write the PID file");
    child.answer(Answer::Start)?;
    let executed = child.wait_for_execve(&signals);
    timings.lap("wait for the program to be executed");
    timings.hear(child.heard());
    executed?;
    timings.finish();
    let (pid, pidfd) = child.keep();
    if let Some(file) = pid_file {
        file.keep();
    }
    if options.detach {
        return Ok(0);
    }
    foreground::attend(pid, pidfd, console, None, None).map(Exit::code)
}

/// The process to run, that of the `--process` file and its text if there is one, and the names of its user where they are to
/// be looked up in the container.
fn process_of(
    host: &Host,
    options: &cli::Exec,
    file: Option<(&Path, String)>,
    configured: Option<Process>,
) -> Result<(Process, Option<UserSpec>)> {
    if let Some((path, text)) = file {
        let process = plan::process(&text, host, configured.as_ref());
        let mut process = process.doing(|| format!("read {}", path.display()))?;
        process.terminal |= options.tty;
        return Ok((process, None));
    }
    let mut process = configured.ok_or_else(|| {
        Error::config("process", "the container has no process to take the settings from").hint("--process FILE")
    })?;
    process.args = c_strings(&options.args)?;
    process.terminal = options.tty;
    process.console_size = None;
    for entry in &options.env {
        let entry = plan::parse_env(entry.to_str().ok_or_else(|| Error::usage("--env: not UTF-8"))?)?;
        let name = entry.to_bytes().split(|&b| b == b'=').next().unwrap_or_default().to_vec();
        process.env.retain(|old| old.to_bytes().split(|&b| b == b'=').next() != Some(name.as_slice()));
        process.env.push(entry);
    }
    if let Some(cwd) = &options.cwd {
        if !cwd.is_absolute() {
            return Err(Error::usage(format!("--cwd {}: not an absolute path", cwd.display())));
        }
        process.cwd.clone_from(cwd);
    }
    process.no_new_privileges |= options.no_new_privs;
    for name in &options.cap {
        let Some(capability) = plan::parse_capability(name).filter(|number| *number <= host.last_capability) else {
            // As in the config, and as runc.
            log::warn!("--cap: unknown to the runtime or the kernel, ignored: {name:?}");
            continue;
        };
        let sets = &mut process.capabilities;
        // Never the inheritable set (CVE-2022-29162).
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            *set |= 1 << capability;
        }
    }
    if let Some(label) = &options.process_label {
        process.selinux_label = plan::selinux(label, host)?;
    }
    if let Some(profile) = &options.apparmor {
        process.apparmor_profile = plan::apparmor(profile, host)?;
    }
    for gid in &options.additional_gids {
        process.user.additional_gids.push(plan::parse_id(gid)?);
    }
    let user = match options.user.as_deref().map(UserSpec::parse).transpose()? {
        Some(UserSpec::Ids { uid, gid }) => {
            (process.user.uid, process.user.gid) = (uid, gid.unwrap_or(process.user.gid));
            // HOME is another's now, unless --env says it.
            None
        }
        other => other,
    };
    Ok((process, user))
}

fn check_terminal(process: &Process, options: &cli::Exec) -> Result<()> {
    match (process.terminal, &options.console_socket) {
        (true, None) if options.detach => Err(Error::config(
            "process.terminal",
            "cannot allocate tty if kelson will detach without setting console socket",
        )
        .hint("--console-socket takes the terminal")),
        (false, Some(_)) => Err(Error::config(
            "process.terminal",
            "cannot use console socket if kelson will not detach or allocate tty",
        )
        .hint("--tty, or leave --console-socket out")),
        _ => Ok(()),
    }
}

/// Words of the command line as execve(2) takes them.
pub fn c_strings(words: &[OsString]) -> Result<Vec<CString>> {
    words
        .iter()
        .map(|word| CString::new(word.as_bytes()).map_err(|_| Error::usage("an argument holds a NUL")))
        .collect()
}
