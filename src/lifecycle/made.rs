//! [parent] A container while it is made: all that create and run make, in order, and undoing it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::create::Loaded;
use super::pid_file::PidFile;
use super::{Runtime, fuse, kept, listen, steps, stores};
use crate::cgroup::{self, Cgroup};
use crate::cli;
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::plan::{self, Plan};
use crate::rootfs::{self, CgroupView, Hierarchy};
use crate::sandbox::message::{self, Answer, Ask};
use crate::sandbox::network::{self, MovedDevices};
use crate::sandbox::parent::{self, Child};
use crate::sandbox::{init, stage};
use crate::signals::Signals;
use crate::state::{self, Reserved, State, Status};
use crate::terminal;
use crate::timings::Timings;

/// What waits for the container to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// create: a later `start`, through the start socket.
    Started,
    /// run: this process.
    Told,
}

/// A container that is being made: dropping it undoes all, in the order of the fields.
pub(super) struct Made {
    pid_file: Option<PidFile>,
    net_devices: Option<MovedDevices>,
    child: Child,
    host_mount: Option<HostMount>,
    cgroup: Cgroup,
    reserved: Reserved,
    state: State,
    /// Master of the container's pty, if no console socket took it.
    console: Option<OwnedFd>,
    /// Hooks may have run, and acted on the host, which only poststop hooks undo.
    hooks_begun: bool,
}

/// The root of a container without a mount namespace, which is mounted on the host: dropping it takes the mount away.
struct HostMount {
    root: PathBuf,
    /// The mount that was there before.
    before: u64,
}

impl HostMount {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        if let Err(error) = rootfs::take_away(&self.root, self.before) {
            log::warn!("{error}");
        }
    }
}

/// Makes the container of `loaded`; its process is ready to execute its program.
pub(super) fn make(
    runtime: &Runtime,
    options: &cli::Create,
    loaded: Loaded,
    until: Until,
    preserved: u32,
    signals: &Signals,
    timings: &mut Timings<'_>,
) -> Result<Made> {
    let Loaded { mut plan, text, last_capability, image } = loaded;
    let reserved = state::reserve(&runtime.root, &options.id)?;
    let locked = reserved.locked().ok_or_else(|| Error::state("the state directory is gone"))?;
    timings.lap(steps::RESERVE);
    let (path, interrupt) = (plan.cgroups_path.as_deref(), signals.as_fd());
    let record = cgroup::locate(runtime.driver, path, &options.id, &plan.resources, runtime.rootless, Some(interrupt));
    let record = signals.name_in(record)?;
    timings.lap(steps::LOCATE);
    listen::add_notify_mount(&mut plan, locked.dir())?;
    let plan = &plan;
    let mut state = State::begin(&options.id, plan, record.clone());
    state.no_new_keyring = options.no_new_keyring;
    state.waits_for_start = until == Until::Started;
    if !plan.namespaces.mount.is_own() {
        state.host_mount = Some(rootfs::mount_id(&plan.root.path).property(|| "root.path")?);
    }
    let held = match &plan.root.overlay {
        Some(overlay) if image.is_none() => stores::hold(&overlay.lower, locked.dir(), signals)?,
        // An image holds its own.
        _ => vec![],
    };
    state.store_links = held.iter().map(|store| store.link.clone()).collect();
    if let Some(image) = &image {
        state.store_links = vec![image.link(locked.dir())?];
        state.ids_link = image.ids_link(locked.dir())?;
    }
    // The journal: what a kill at any later instant can leave behind is written before it is made.
    locked.begin(&state)?;
    timings.lap(steps::JOURNAL);
    let is_told_of = !state.store_links.is_empty();
    if is_told_of {
        // What the container uses can be told as soon as the store knows of it.
        locked.write_config(&text)?;
    }
    for store in held {
        store.tell(locked.dir())?;
    }
    if let (Some(mut image), Some(link)) = (image, state.store_links.first()) {
        image.settle(locked.dir(), link, Some(locked.dir()))?;
        timings.lap("link the image");
    } else if let Some((upper, _)) = plan.root.overlay.as_ref().and_then(|overlay| overlay.upper.as_ref())
        && let Some(kept) = upper.parent()
    {
        kept::claim(kept, None, Some(locked.dir()))?;
    }
    let begun = cgroup::systemd::begin(&record, &plan.resources, &plan.annotations, interrupt);
    let begun = signals.name_in(begun)?;
    timings.lap(steps::UNIT);
    let host_mount = state.host_mount.map(|before| HostMount { root: plan.root.path.clone(), before });
    let start = match until {
        Until::Started => Some(locked.listen()?),
        Until::Told => None,
    };
    let joined = stage::open_joined(plan)?;
    let joined_user_ns = joined.iter().find(|joined| joined.kind.name == "user").map(|joined| joined.fd.as_fd());
    let prepared = rootfs::prepare(plan, joined_user_ns)?;
    timings.lap(steps::PREPARE);
    // Last of all that needs no cgroup: systemd makes one meanwhile.
    let reserved_for = |reused: &[&Path]| check_unclaimed(runtime, &options.id, reused);
    let mut cgroup = signals.name_in(cgroup::create(record, &plan.resources, begun, reserved_for))?;
    state.cgroup = cgroup.record().clone();
    let entry = cgroup.entry()?;
    let cgroup_view = view_of_cgroups(cgroup.record())?;
    timings.lap(steps::CGROUPS);
    let mut setup = init::Setup {
        plan,
        state: &state.clone(),
        cgroup: entry,
        cgroup_view: &cgroup_view,
        joined: &joined,
        prepared,
        last_capability,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
        preserved,
        start,
        first_own: stage::first_own(preserved),
        is_hidden: stage::starts_dumpable(plan) && !plan.namespaces.user.is_new(),
        is_timed: timings.is_on(),
    };
    if !stage::starts_dumpable(plan) {
        // Before the clone: what joins a PID namespace is seen by its processes from the first instruction on.
        crate::sys::process::set_dumpable(false).doing(|| "become undumpable")?;
    }
    let mut child = parent::spawn(&mut setup)?;
    let awaited = setup.prepared.awaited().to_vec();
    drop(setup);
    timings.lap(steps::CLONE);
    let oom_score_adj = plan.process.as_ref().and_then(|process| process.oom_score_adj);
    child.wait_for_birth(signals, |stage| {
        // What it makes inherits it, and is not this process's to write to any more where that has no privilege.
        parent::set_oom_score_adj(stage.pid(), oom_score_adj, runtime.rootless)?;
        parent::map_ids(stage.pid(), &plan.id_maps, runtime.rootless)?;
        // Its mount namespace is not the container's yet: that is asked for the mounts' sources.
        stage.answer(Answer::Done)
    })?;
    timings.lap(steps::STAGE);
    if matches!(plan.namespaces.user, plan::Namespace::Join(_)) {
        parent::compare_maps(child.pid(), &plan.id_maps);
    }
    // The container's process sets itself up meanwhile.
    cgroup.complete(&plan.resources)?;
    if let Some(user) = plan.cgroup_owner() {
        cgroup.delegate(user).property(|| "linux.cgroupsPath")?;
    }
    timings.lap(steps::COMPLETE);
    if !is_told_of {
        locked.write_config(&text)?;
    }
    state.pid = child.pid().as_raw();
    state.start_time = state::start_time(child.pid())?;
    state.pidfd_inode = child.pidfd().and_then(crate::sys::process::pidfd_inode);
    if plan.hooks.run_in_create() {
        // Hooks may ask for the state. Until then a kill of this process is the end of the child, which needs no journal.
        locked.go_on(&state)?;
    }
    parent::set_oom_score_adj(child.pid(), oom_score_adj, runtime.rootless)?;
    if let (Some(socket), Some(pidfd)) = (&options.pidfd_socket, child.pidfd()) {
        terminal::send_fd(socket, pidfd, b"pidfd").doing(|| format!("send a pidfd to {}", socket.display()))?;
    }
    let mut made = Made {
        pid_file: None,
        net_devices: None,
        child,
        host_mount,
        cgroup,
        reserved,
        state,
        console: None,
        hooks_begun: false,
    };
    timings.lap(steps::KEEP);
    let result = made.set_up(runtime, options, plan, &awaited, signals, timings);
    timings.hear(made.child.heard());
    match result {
        Ok(()) => Ok(made),
        Err(error) => Err(made.undo(error, signals)),
    }
}

impl Made {
    /// Does what its process asks for, until that is ready to execute; `awaited` are the mounts whose sources it waits for.
    fn set_up(
        &mut self,
        runtime: &Runtime,
        options: &cli::Create,
        plan: &Plan,
        awaited: &[usize],
        signals: &Signals,
        timings: &mut Timings<'_>,
    ) -> Result<()> {
        let Self { child, net_devices, state, console, hooks_begun, .. } = self;
        child.serve(signals, |child, ask, mut fds| {
            timings.lap(steps::SERVE);
            let serving = ask.served();
            let served = match ask {
                Ask::MapIds => {
                    parent::map_ids(child.pid(), &plan.id_maps, runtime.rootless)?;
                    child.give_mounts(&mount_sources(plan, awaited, child.pid())?)
                }
                Ask::Sources(left) => {
                    let from = awaited.len().saturating_sub(usize::try_from(left).unwrap_or(0));
                    child.give_mounts(&mount_sources(plan, &awaited[from..], child.pid())?)
                }
                Ask::Overlay(refusal) => {
                    let of_container = fuse::Container { plan, id: &state.id, user_ns: fds.pop() };
                    let overlay = fuse::overlay(of_container, &refusal, &options.program, signals)?;
                    child.give_mounts(&[overlay])
                }
                Ask::RunHostHooks => {
                    *hooks_begun = true;
                    *net_devices = move_net_devices(plan, child.pid())?;
                    // prestart hooks are older than the status "creating", and look for "created".
                    let (prestart, create_runtime) = (&plan.hooks.prestart, &plan.hooks.create_runtime);
                    // The child waits for the answer and asks for nothing.
                    let lives = hooks::run_for(prestart, &state.to_oci(Status::Created)?, signals, child.as_fd())?
                        && hooks::run_for(create_runtime, &state.to_oci(Status::Creating)?, signals, child.as_fd())?;
                    if lives { child.answer(Answer::Done) } else { Err(child.ended_early()) }
                }
                Ask::SetRlimits => {
                    parent::set_rlimits(child.pid(), plan.process.as_ref().map_or(&[], |process| &process.rlimits))?;
                    child.answer(Answer::Done)
                }
                Ask::Console => {
                    terminal::take_master(fds, options.console_socket.as_deref()).map(|master| *console = master)
                }
                Ask::Listener(number) => {
                    listen::send_seccomp_listener(plan.seccomp.as_ref(), state, Status::Creating, child, number)?;
                    child.answer(Answer::Done)
                }
                other => Err(Error::other(format!("the container process asked for {other:?}"))),
            };
            timings.lap(serving);
            served
        })?;
        timings.lap(steps::SERVE);
        self.state.end_creating();
        let locked = self.reserved.locked().ok_or_else(|| Error::state("the state directory is gone"))?;
        locked.go_on(&self.state)?;
        if let Some(path) = &options.pid_file {
            self.pid_file = Some(PidFile::write(path, self.child.pid())?);
        }
        timings.lap(steps::SAVE);
        Ok(())
    }

    /// The container's process waits for a later `start`, and not for this one.
    pub(super) fn commit(&mut self, signals: &Signals) -> Result<()> {
        self.cgroup.leave_to_container();
        signals.check()?;
        self.child.answer(Answer::Commit)
    }

    /// Lets the program of `run` be executed, and waits for that.
    pub(super) fn start(
        &mut self,
        signals: &Signals,
        timings: &mut Timings<'_>,
    ) -> Result<Option<listen::NotifySocket>> {
        signals.check()?;
        self.cgroup.leave_to_container();
        let notify = match self.reserved.locked() {
            Some(locked) => listen::NotifySocket::bind_in(locked)?,
            None => None,
        };
        self.child.answer(Answer::Start)?;
        let executed = self.child.wait_for_execve(signals);
        timings.lap(steps::EXECUTED);
        timings.hear(self.child.heard());
        executed.map(|()| notify)
    }

    /// Undoes all, then runs the poststop hooks (runtime.md#lifecycle); gives the error that says most.
    pub(super) fn undo(self, error: Error, signals: &Signals) -> Error {
        // Nothing but this process was in the cgroup.
        let killed = self.cgroup.record().killed_for_memory().filter(|_| error.property().is_none());
        let is_hooks_failure = error.property().is_some_and(|property| property.starts_with("hooks."));
        let (needs_poststop, state) = (self.hooks_begun || is_hooks_failure, self.state.clone());
        drop(self);
        if needs_poststop {
            match state.to_oci(Status::Stopped) {
                Ok(text) => hooks::run_all(&state.poststop, &text, Some(signals)),
                Err(error) => log::warn!("{error}"),
            }
        }
        killed.unwrap_or(error)
    }

    /// The container stays.
    pub(super) fn keep(self) -> (Pid, Option<OwnedFd>, Option<OwnedFd>, State) {
        let (pid, pidfd) = self.child.keep();
        if let Some(devices) = self.net_devices {
            devices.keep();
        }
        if let Some(mount) = self.host_mount {
            mount.keep();
        }
        self.cgroup.keep();
        self.reserved.keep();
        if let Some(file) = self.pid_file {
            file.keep();
        }
        (pid, pidfd, self.console, self.state)
    }
}

/// Refuses cgroups of another container, which has stopped or is not born: its deletion is the end of all that is in them.
fn check_unclaimed(runtime: &Runtime, id: &str, cgroups: &[&Path]) -> Result<()> {
    let others = state::ids(&runtime.root).doing(|| format!("list {}", runtime.root.display()))?;
    for other in others.iter().filter(|other| *other != id) {
        // One that is deleted meanwhile, or was never begun, has none.
        let Ok(state) = runtime.load(other) else { continue };
        if let Some(path) = cgroups.iter().find(|path| state.cgroup.places.values().any(|place| place.path == ***path))
        {
            let cause = format!("cgroup {} is container {other:?}'s", path.display());
            return Err(Error::config("linux.cgroupsPath", cause).hint("delete that one first, or name another cgroup"));
        }
    }
    Ok(())
}

fn move_net_devices(plan: &Plan, pid: Pid) -> Result<Option<MovedDevices>> {
    if plan.net_devices.is_empty() {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/ns/net");
    let namespace = std::fs::File::open(&path).doing(|| format!("open {path}"))?;
    network::move_devices(&plan.net_devices, namespace.as_fd()).map(Some)
}

/// What a mount of type cgroup shows in the container.
pub(super) fn view_of_cgroups(record: &cgroup::Record) -> Result<CgroupView> {
    let mounts = record.mounts_for_container()?;
    let hierarchies = mounts.into_iter().map(|mount| Hierarchy {
        mount_point: mount.mount_point,
        name: mount.name,
        links: mount.links,
        cgroup: mount.cgroup,
    });
    Ok(CgroupView { v2: record.version() == cgroup::resources::Version::V2, hierarchies: hierarchies.collect() })
}

/// Sources of the mounts `awaited`, as many as fit into a message: they need namespaces of the container, which exist now.
fn mount_sources(plan: &Plan, awaited: &[usize], pid: Pid) -> Result<Vec<OwnedFd>> {
    if awaited.is_empty() {
        return Ok(vec![]);
    }
    let path = format!("/proc/{pid}/ns/user");
    let user_ns = std::fs::File::open(&path).doing(|| format!("open {path}"))?;
    rootfs::prepare_late(plan, &awaited[..awaited.len().min(message::MAX_FDS)], pid, user_ns.as_fd())
}
