//! [init] The process that becomes the container's: the ordered steps from clone3(2) to execve(2).

use std::convert::Infallible;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use super::message::{self, Answer, Ask, ChildEnd};
use super::process::{self as common, FilterTime};
use super::stage::{self, Joined};
use super::{network, program};
use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::hooks;
use crate::plan::{Hook, Plan, Process};
use crate::rootfs::{CgroupView, Prepared, RootFs};
use crate::signals;
use crate::state::{State, Status};
use crate::sys::{fd, process, scheduling};
use crate::timings::{self, Laps};

/// What create and run decide before the clone; the container's process has its own copy of it.
pub struct Setup<'c> {
    pub plan: &'c Plan,
    /// For the hooks' standard input; its pid is filled in where the hook runs.
    pub state: &'c State,
    pub cgroup: cgroup::Entry,
    /// What a mount of type cgroup shows.
    pub cgroup_view: &'c CgroupView,
    /// Namespaces that linux.namespaces gives by path.
    pub joined: &'c [Joined],
    /// What the parent opened for the root file system.
    pub prepared: Prepared,
    pub last_capability: u8,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that the program gets.
    pub preserved: u32,
    /// The start socket of create; `None` for run, which is told by its parent.
    pub start: Option<OwnedFd>,
    /// First descriptor number that is this program's and not the caller's.
    pub first_own: RawFd,
    /// Not dumpable, while the parent has no privilege over it.
    pub is_hidden: bool,
    /// The parent is told how long each step took.
    pub is_timed: bool,
}

impl Setup<'_> {
    /// What is the parent's own business: its end of the socket (so that its death is noticed), the state's lock; later, what
    /// was left to be closed at once.
    pub fn close_foreign_descriptors(&self, parent: &ChildEnd) -> Result<()> {
        let mut kept: Vec<BorrowedFd<'_>> = vec![parent.as_fd()];
        kept.extend(self.start.as_ref().map(AsFd::as_fd));
        kept.extend(self.cgroup.descriptors());
        kept.extend(self.joined.iter().map(|joined| joined.fd.as_fd()));
        kept.extend(self.prepared.descriptors());
        common::close_all_but(self.first_own, &kept)
    }

    /// Has the parent write the id maps of this process, and takes the mount sources that come with the answer.
    pub fn ask_for_id_maps(&mut self, parent: &ChildEnd) -> Result<()> {
        parent.tell(&Ask::MapIds)?;
        let sources = common::expect_with_fds(parent, Answer::Done)?;
        self.prepared.take(sources);
        Ok(())
    }
}

struct Init<'i, 'c> {
    setup: &'i mut Setup<'c>,
    parent: ChildEnd,
    /// The config's process, with what is found out here added to its environment.
    process: Option<Process>,
    rootfs: Option<RootFs<'c>>,
    program: Option<CString>,
    /// The working directory was entered with root's rights.
    is_in_cwd: bool,
    /// The seccomp filter is loaded.
    is_filtered: bool,
    laps: Laps,
}

/// A step: its name is the context of an error without one.
type Step = (&'static str, fn(&mut Init<'_, '_>) -> Result<()>);

/// In this order. What is not obvious about it:
/// - the id maps come before anything that needs the container's root; the cgroup before the cgroup namespace, whose
///   root it is (cgroup_namespaces(7));
/// - hooks run when namespaces and mounts are there, before the root is entered (config.md#createcontainer-hooks);
/// - the terminal needs the container's devpts, sysctl a writable /proc: both before paths are masked and read-only;
/// - rlimits and the working directory come before seccomp and the user: either may take away what they need;
/// - the program is found last, as the user that runs it, so that create fails and not start;
/// - seccomp is no step: it comes after all of them and the wait for start, right before execve, for it may deny whatever
///   the runtime does; without no_new_privs CAP_SYS_ADMIN is kept for it. Only a filter with a listener is loaded by create,
///   which hands the listener over: without no_new_privs before the user, since it is so in runc, else when all is done.
const STEPS: &[Step] = &[
    ("start a session", |_| common::start_session()),
    ("map ids", |init| init.map_ids()),
    ("join the cgroups", |init| init.join_cgroups()),
    ("join namespaces", |init| init.join_namespaces()),
    ("make a cgroup namespace", |init| init.make_cgroup_namespace()),
    ("make a session keyring", |init| init.make_keyring()),
    ("bring up the loopback device", |init| init.bring_up_network()),
    ("mount the root file system", |init| init.mount_root()),
    ("mount file systems", |init| init.mount_all()),
    ("make devices", |init| init.make_devices()),
    ("run host hooks", |init| init.run_host_hooks()),
    ("run createContainer hooks", |init| init.run_create_container_hooks()),
    ("enter the root file system", |init| init.enter_root()),
    ("make the working directory", |init| init.make_cwd()),
    ("open the terminal", |init| init.open_terminal()),
    ("write sysctls", |init| init.rootfs()?.write_sysctls()),
    ("set host and domain name", |init| init.set_names()),
    ("protect paths", |init| init.protect_paths()),
    ("set priorities", |init| init.set_priorities()),
    ("set memory policy and personality", |init| init.set_memory_policy_and_personality()),
    ("set labels", |init| init.set_labels()),
    ("set rlimits", |init| init.set_rlimits()),
    ("enter the working directory", |init| init.enter_cwd()),
    ("load the seccomp filter with privilege", |init| init.load_seccomp_with_listener(FilterTime::BeforeUser)),
    ("become the user", |init| init.become_user()),
    ("find the program", |init| init.find_program()),
    ("load the seccomp filter with a listener", |init| init.load_seccomp_with_listener(FilterTime::BeforeReady)),
];

/// The names of the steps, in order.
pub fn step_names() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|(name, _)| *name)
}

/// What comes after the steps, in order.
pub const WAIT_FOR_START: &str = "wait to be started";
pub const START_HOOKS: &str = "run startContainer hooks";
pub const EXECUTE: &str = "load the seccomp filter and execute the program";

/// Sets the container up, waits for start and executes its program; ends the process if that fails.
pub fn run(setup: &mut Setup<'_>, parent: ChildEnd) -> ! {
    let laps = Laps::begin(timings::Process::Container, setup.is_timed);
    let process = setup.plan.process.clone();
    let mut init =
        Init { setup, parent, process, rootfs: None, program: None, is_in_cwd: false, is_filtered: false, laps };
    let outcome = init.set_up().and_then(|()| init.wait_and_execute());
    if let Err(error) = outcome {
        let error = if init.is_filtered { common::behind_filter(error) } else { error };
        // A parent that is gone has nobody to tell.
        let _ = init.parent.tell(&Ask::Failed(error.encode()));
    }
    process::exit_now(1)
}

impl<'c> Init<'_, 'c> {
    fn set_up(&mut self) -> Result<()> {
        // Until the container is committed it does not outlive its maker; end of file on the socket covers the rest.
        process::set_parent_death_signal(libc::SIGKILL).doing(|| "ask for a signal at the parent's death")?;
        process::set_umask(0o022);
        signals::reset()?;
        self.setup.close_foreign_descriptors(&self.parent)?;
        self.lap("close the parent's descriptors");
        for (name, step) in STEPS {
            step(self).map_err(|error| error.within_step(name))?;
            self.lap(name);
        }
        let unfinished = self.is_filtered.then_some("load the seccomp filter, and what follows it");
        let told = self.laps.told(unfinished).map_or(Ok(()), |steps| self.parent.tell(&Ask::Times(steps)));
        if self.is_filtered {
            self.laps = Laps::OFF;
        }
        told
    }

    /// What was done since the last call is `name`. Behind a filter the clock is not read any more: that may be a system
    /// call, and one that is forbidden.
    fn lap(&mut self, name: &'static str) {
        if !self.is_filtered {
            self.laps.lap(name);
        }
    }

    fn rootfs(&self) -> Result<&RootFs<'c>> {
        self.rootfs.as_ref().ok_or_else(not_mounted)
    }

    fn rootfs_mut(&mut self) -> Result<&mut RootFs<'c>> {
        self.rootfs.as_mut().ok_or_else(not_mounted)
    }

    fn map_ids(&mut self) -> Result<()> {
        if self.setup.plan.namespaces.user.is_own() {
            if self.setup.plan.namespaces.user.is_new() && !stage::makes_user_namespace(self.setup.plan) {
                self.setup.ask_for_id_maps(&self.parent)?;
            }
            become_root()?;
        }
        Ok(())
    }

    /// Asks for the mount sources that did not come with the id maps: too many, or there were no maps to write.
    fn ask_for_sources(&mut self) -> Result<()> {
        while let left @ 1.. = self.setup.prepared.awaited().len() {
            self.parent.tell(&Ask::Sources(i32::try_from(left).unwrap_or(i32::MAX)))?;
            let sources = common::expect_with_fds(&self.parent, Answer::Done)?;
            if sources.is_empty() {
                return Err(Error::other("the parent opened no mount source"));
            }
            self.setup.prepared.take(sources);
        }
        Ok(())
    }

    fn join_cgroups(&mut self) -> Result<()> {
        // Taken, so that the host's files are closed at once.
        std::mem::take(&mut self.setup.cgroup).join()
    }

    fn join_namespaces(&mut self) -> Result<()> {
        if stage::is_needed(self.setup.plan) {
            // It joined them before this process was born.
            return Ok(());
        }
        self.setup.joined.iter().try_for_each(Joined::join)
    }

    fn make_cgroup_namespace(&mut self) -> Result<()> {
        if !self.setup.plan.namespaces.cgroup.is_new() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWCGROUP).property(|| "linux.namespaces").doing(|| "make a cgroup namespace")
    }

    fn make_keyring(&mut self) -> Result<()> {
        if self.setup.no_new_keyring {
            return Ok(());
        }
        common::make_keyring(&self.setup.state.id, self.process.as_ref())
    }

    fn bring_up_network(&mut self) -> Result<()> {
        if self.setup.plan.namespaces.network.is_new() {
            network::bring_up_loopback()?;
        }
        Ok(())
    }

    fn mount_root(&mut self) -> Result<()> {
        let plan = self.setup.plan;
        self.ask_for_sources()?;
        crate::rootfs::set_propagation(plan)?;
        let by_fuse = |refusal| self.ask_for_overlay(refusal);
        self.rootfs = Some(RootFs::mount_root(plan, &self.setup.prepared, by_fuse)?);
        Ok(())
    }

    /// Has the parent start fuse-overlayfs, whose process must not be in the container; gives its mount.
    fn ask_for_overlay(&self, refusal: Vec<u8>) -> Result<OwnedFd> {
        let ask = Ask::Overlay(refusal);
        match self.setup.plan.namespaces.user.is_own() {
            true => {
                // Of a process that is not dumpable nobody else may open it.
                let namespace = fd::open("/proc/self/ns/user", OFlag::O_RDONLY)?;
                self.parent.tell_with_fd(&ask, namespace.as_fd())?;
            }
            false => self.parent.tell(&ask)?,
        }
        let mut mounts = common::expect_with_fds(&self.parent, Answer::Done)?;
        mounts.pop().ok_or_else(|| Error::other("the parent made no overlay"))
    }

    fn mount_all(&mut self) -> Result<()> {
        let rootfs = self.rootfs.as_mut().ok_or_else(not_mounted)?;
        rootfs.mount_all(self.setup.cgroup_view, &self.setup.prepared)?;
        // Directories of the host among them: nothing of them is left for hooks and the program.
        self.setup.prepared = Prepared::default();
        Ok(())
    }

    fn make_devices(&mut self) -> Result<()> {
        self.rootfs_mut()?.make_devices()
    }

    fn run_host_hooks(&mut self) -> Result<()> {
        // Also for createContainer hooks, which ask for the state: the answer comes when the parent has this process in the
        // record, and its limits are complete.
        if !self.setup.plan.hooks.run_in_create() && self.setup.plan.net_devices.is_empty() {
            return Ok(());
        }
        self.parent.tell(&Ask::RunHostHooks)?;
        common::expect(&self.parent, Answer::Done)
    }

    fn run_hooks(&self, hooks: &[Hook], status: Status) -> Result<()> {
        if hooks.is_empty() {
            return Ok(());
        }
        // runtime.md#state: in the container's namespaces, the pid is the one that is seen there.
        let state = State { pid: std::process::id() as i32, ..self.setup.state.clone() };
        hooks::run(hooks, &state.to_oci(status)?, None)
    }

    fn run_create_container_hooks(&mut self) -> Result<()> {
        self.run_hooks(&self.setup.plan.hooks.create_container, Status::Creating)
    }

    fn enter_root(&mut self) -> Result<()> {
        let no_pivot = self.setup.no_pivot;
        self.rootfs_mut()?.enter(no_pivot)?;
        common::reopen_null()
    }

    fn make_cwd(&mut self) -> Result<()> {
        match &self.process {
            Some(process) if process.cwd != Path::new("/") => self.rootfs()?.make_directory(&process.cwd),
            _ => Ok(()),
        }
    }

    fn open_terminal(&mut self) -> Result<()> {
        if let Some(process) = self.process.as_ref().filter(|process| process.terminal) {
            let pty = common::open_terminal(process, &self.parent)?;
            self.rootfs()?.bind_console(pty.peer.as_fd())?;
        }
        Ok(())
    }

    fn set_names(&mut self) -> Result<()> {
        if let Some(name) = &self.setup.plan.hostname {
            nix::unistd::sethostname(std::ffi::OsStr::new(&*name.to_string_lossy()))
                .property(|| "hostname")
                .doing(|| "set the host name")?;
        }
        if let Some(name) = &self.setup.plan.domainname {
            process::set_domain_name(name).property(|| "domainname").doing(|| "set the domain name")?;
        }
        Ok(())
    }

    fn protect_paths(&mut self) -> Result<()> {
        let rootfs = self.rootfs_mut()?;
        rootfs.mask_paths()?;
        rootfs.protect_readonly_paths()?;
        rootfs.protect_root()?;
        rootfs.set_root_propagation()?;
        if let Some(rootfs) = self.rootfs.take() {
            rootfs.close_later();
        }
        // What waits for start holds nothing that it does not need.
        self.setup.close_foreign_descriptors(&self.parent)
    }

    fn set_priorities(&mut self) -> Result<()> {
        // As runc: a runtime that was pinned to some CPUs does not pin its containers.
        scheduling::reset_affinity();
        self.process.as_ref().map_or(Ok(()), common::set_priorities)
    }

    fn set_memory_policy_and_personality(&mut self) -> Result<()> {
        if let Some(policy) = &self.setup.plan.memory_policy {
            scheduling::set_mempolicy(policy.mode, &policy.node_mask)
                .property(|| "linux.memoryPolicy")
                .doing(|| "set the memory policy")?;
        }
        common::set_personality(self.setup.plan.personality)
    }

    fn set_labels(&mut self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), common::set_labels)
    }

    fn set_rlimits(&mut self) -> Result<()> {
        let in_own_user_ns = self.setup.plan.namespaces.user.is_own();
        self.process.as_ref().map_or(Ok(()), |process| common::set_rlimits(process, in_own_user_ns, &self.parent))
    }

    fn enter_cwd(&mut self) -> Result<()> {
        if let Some(process) = &self.process {
            self.is_in_cwd = common::enter_cwd_early(process)?;
        }
        Ok(())
    }

    fn filter_time(&self) -> Option<FilterTime> {
        Some(FilterTime::of(self.setup.plan.seccomp.as_ref()?, self.process.as_ref()?))
    }

    fn load_seccomp_with_listener(&mut self, time: FilterTime) -> Result<()> {
        match &self.setup.plan.seccomp {
            Some(filter) if self.filter_time() == Some(time) => {
                common::load_seccomp_with_listener(filter, &self.parent, self.setup.is_hidden)?;
                self.is_filtered = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn become_user(&mut self) -> Result<()> {
        let filter = self.filter_time();
        let Some(process) = &mut self.process else { return Ok(()) };
        common::become_user(process, self.setup.last_capability, self.is_in_cwd, filter, &self.parent)?;
        common::set_umask(&process.user);
        common::set_home(process);
        if process.no_new_privileges {
            process::set_no_new_privileges().property(|| "process.noNewPrivileges").doing(|| "set no_new_privs")?;
        }
        Ok(())
    }

    fn find_program(&mut self) -> Result<()> {
        if let Some(process) = &self.process {
            self.program = Some(program::find(process)?);
        }
        Ok(())
    }

    /// Everything but execve is done: waits until it may go on.
    fn wait_and_execute(&mut self) -> Result<()> {
        // From here on end of file tells that the parent died; the parent may end as soon as it has answered.
        process::set_parent_death_signal(0).doing(|| "ask for no signal at the parent's death")?;
        self.parent.tell(&Ask::Ready)?;
        match self.parent.wait()?.0 {
            Answer::Start => self.execute(None).map(|never| match never {}),
            Answer::Commit => {
                let Some(listener) = self.setup.start.take() else {
                    return Err(Error::other("a container without a start socket was told to wait on it"));
                };
                let listener = UnixListener::from(listener);
                self.laps = Laps::OFF;
                process::shrink();
                let starter = wait_for_start(&listener)?;
                let Err(error) = self.execute(Some(&starter));
                let error = if self.is_filtered { common::behind_filter(error) } else { error };
                // Whoever called start may be gone by now.
                let _ = nix::unistd::write(&starter, &error.encode());
                process::exit_now(1)
            }
            Answer::Done => Err(Error::other("the parent answered Done where Commit or Start is due")),
        }
    }

    fn execute(&mut self, starter: Option<&UnixStream>) -> Result<Infallible> {
        self.lap(WAIT_FOR_START);
        self.run_hooks(&self.setup.plan.hooks.start_container, Status::Created)?;
        self.lap(START_HOOKS);
        let (Some(process), Some(program)) = (&self.process, &self.program) else {
            return Err(Error::config("process", "there is nothing to start"));
        };
        common::keep_descriptors(self.setup.preserved)?;
        // Whoever waits for execve tells by it from the end of this process.
        match starter {
            // One that is gone has nobody to tell.
            Some(starter) => drop(nix::unistd::write(starter, &[message::EXECUTING])),
            None => {
                if let Some(steps) = self.laps.told(Some(EXECUTE)) {
                    self.parent.tell(&Ask::Times(steps))?;
                }
                self.parent.tell(&Ask::Executing)?;
            }
        }
        let filter = self.setup.plan.seccomp.as_ref();
        if let Some(filter) = filter.filter(|filter| FilterTime::of(filter, process).is_last()) {
            common::load_seccomp(filter, None)?;
        }
        common::execute(process, program, filter.is_some())
    }
}

fn not_mounted() -> Error {
    Error::other("the root file system is not mounted yet")
}

/// Most connections that may say nothing, at one time.
const MOST_SILENT: usize = 16;

/// Waits for a connection that says something: a question for the status connects and says nothing, and may be stopped before
/// it goes.
fn wait_for_start(listener: &UnixListener) -> Result<UnixStream> {
    let mut silent: Vec<UnixStream> = vec![];
    loop {
        let mut polled: Vec<PollFd<'_>> = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        polled.extend(silent.iter().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)));
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.doing(|| "wait for start")?,
        };
        let mut ready = polled.iter().map(|fd| fd.any() == Some(true)).collect::<Vec<_>>().into_iter();
        if ready.next() == Some(true) {
            let (stream, _) = listener.accept().doing(|| "wait for start")?;
            silent.push(stream);
        }
        let mut at = 0;
        for is_ready in ready {
            let mut word = [0];
            match is_ready.then(|| silent[at].read(&mut word)) {
                Some(Ok(1)) => return Ok(silent.swap_remove(at)),
                Some(_) => drop(silent.remove(at)),
                None => at += 1,
            }
        }
        if silent.len() > MOST_SILENT {
            silent.remove(0);
        }
    }
}

/// Becomes uid and gid 0 of the user namespace, whose maps are written.
pub fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    // Groups of the caller's stay where the kernel denies setgroups(2); see process::set_groups.
    let _ = process::set_groups(&[]);
    process::set_gid(gid).property(|| "linux.gidMappings").doing(|| "become group 0 of the user namespace")?;
    process::set_uid(uid).property(|| "linux.uidMappings").doing(|| "become user 0 of the user namespace")
}
