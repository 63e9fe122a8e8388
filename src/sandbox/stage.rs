//! [stage] A process between the parent and the container's: it joins namespaces, and what it makes is born in them.
//!
//! Needed where one clone3(2) is not enough: setns(2) of a PID or time namespace changes only later children; a user
//! namespace must be joined before others are made in it; and exec, whose process must have the container's root from
//! its first instruction: a process in the container's PID namespace that still had the host's root would show it to a
//! container process with CAP_SYS_PTRACE (CVE-2016-9962).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;

use super::init::{Setup, become_root};
use super::message::{Answer, Ask, ChildEnd};
use super::process::expect;
use super::{NAMESPACE_KINDS, NamespaceKind, exec, init, namespace_flags};
use crate::error::{Context, Error, Result};
use crate::plan::{Namespace, Plan, TimeOffsets};
use crate::sys::process::{self, CloneArgs, Forked, SingleThreaded};
use crate::timings::{self, Laps};

/// What a stage of create does.
pub const ENTER: &str = "join and make namespaces";

/// A namespace of linux.namespaces with a path, opened by the parent.
pub struct Joined {
    pub kind: &'static NamespaceKind,
    pub fd: OwnedFd,
}

/// Whether a container of this plan needs a stage.
pub fn is_needed(plan: &Plan) -> bool {
    let namespaces = &plan.namespaces;
    let joins = |namespace: &Namespace| matches!(namespace, Namespace::Join(_));
    joins(&namespaces.pid)
        || namespaces.time.is_own()
        || joins(&namespaces.user)
        // What is joined belongs to the host's user namespace, and a process in a new one has no say over it.
        || (namespaces.user.is_new() && namespace_flags(namespaces, joins) != 0)
}

/// Whether the child must be dumpable at first: without root its files in /proc would belong to root (proc(5)), and neither its
/// id maps nor its oom_score_adj could be written. Who is to be in a user namespace that is joined, where others may have
/// every capability over it, stops being so in the stage. In a new one nobody is yet, and no PID namespace of others' can be
/// joined beside it.
pub fn starts_dumpable(plan: &Plan) -> bool {
    plan.namespaces.user.is_own() && !nix::unistd::geteuid().is_root()
}

/// Whether the stage makes the user namespace: unshare(2) of a time namespace needs the privilege that it gives, and the time
/// namespace belongs to it then, as the others do.
pub fn makes_user_namespace(plan: &Plan) -> bool {
    plan.namespaces.user.is_new() && plan.namespaces.time.is_new()
}

/// The namespaces that clone3(2) makes: the time namespace is unshared, the cgroup namespace comes later.
pub fn clone_flags(plan: &Plan) -> u64 {
    let made = if makes_user_namespace(plan) { libc::CLONE_NEWUSER as u64 } else { 0 };
    let otherwise = made | libc::CLONE_NEWTIME as u64 | libc::CLONE_NEWCGROUP as u64;
    namespace_flags(&plan.namespaces, Namespace::is_new) & !otherwise
}

/// Joins what `joined` names, then makes the container's process and ends.
pub fn run(setup: &mut Setup<'_>, parent: ChildEnd) -> ! {
    let mut laps = Laps::begin(timings::Process::Stage, setup.is_timed);
    let entered = enter(setup, &parent).inspect(|()| laps.lap(ENTER));
    let born = entered.and_then(|()| spawn(clone_flags(setup.plan), &parent, laps));
    match born {
        Ok(Role::Stage) => process::exit_now(0),
        Ok(Role::Container) => init::run(setup, parent),
        Err(error) => fail(&parent, &error),
    }
}

/// Becomes undumpable, and so all that is made from here on, if it is not yet and a user namespace is joined: its processes
/// must not see the host's root through one of the container's that still has it (CVE-2016-9962).
fn hide(plan: &Plan) -> Result<()> {
    if !matches!(plan.namespaces.user, Namespace::Join(_)) || !starts_dumpable(plan) {
        return Ok(());
    }
    // oom_score_adj first, which the child inherits: the parent may not write it any more.
    let score = plan.process.as_ref().and_then(|process| process.oom_score_adj);
    super::parent::set_oom_score_adj(nix::unistd::getpid(), score, true)?;
    process::set_dumpable(false).doing(|| "become undumpable")
}

/// Joins the namespaces of the process behind `target`, then makes the process of exec and ends.
pub fn run_exec(exec: &mut exec::Exec<'_>, target: Option<Target>, parent: ChildEnd) -> ! {
    let mut laps = Laps::begin(timings::Process::Stage, exec.is_timed);
    let entered = (|| {
        exec.before_joining()?;
        laps.lap("join the cgroups");
        // Nothing of the host is open any more when the first instruction runs inside.
        let target = target.ok_or_else(|| Error::other("there is no container to enter"))?;
        let mut kept = target.descriptors();
        kept.push(parent.as_fd());
        exec.close_foreign_descriptors(&kept)?;
        target.join(exec.namespaces)?;
        drop(target);
        laps.lap("join the namespaces");
        spawn(0, &parent, laps)
    })();
    match entered {
        Ok(Role::Stage) => process::exit_now(0),
        Ok(Role::Container) => exec::run(exec, parent),
        Err(error) => fail(&parent, &error),
    }
}

fn fail(parent: &ChildEnd, error: &Error) -> ! {
    // A parent that is gone has nobody to tell.
    let _ = parent.tell(&Ask::Failed(error.encode()));
    process::exit_now(1)
}

enum Role {
    Stage,
    Container,
}

/// Makes the container's process a child of this one's parent (CLONE_PARENT) and tells its PID.
fn spawn(flags: u64, parent: &ChildEnd, mut laps: Laps) -> Result<Role> {
    let single = SingleThreaded::after_clone();
    // The cgroup is the stage's own already.
    let args = CloneArgs { flags: flags | libc::CLONE_PARENT as u64, cgroup: None };
    match process::clone(&single, &args).doing(|| "make the container's process")? {
        Forked::Child => {
            // Not a word before the parent knows of this process: what two processes say on one socket has no order.
            expect(parent, Answer::Done)?;
            Ok(Role::Container)
        }
        Forked::Parent { pid, pidfd } => {
            laps.lap("clone");
            if let Some(steps) = laps.told(None) {
                parent.tell(&Ask::Times(steps))?;
            }
            parent.tell_with_fd(&Ask::Born(pid.as_raw()), pidfd.as_fd())?;
            Ok(Role::Stage)
        }
    }
}

fn enter(setup: &mut Setup<'_>, parent: &ChildEnd) -> Result<()> {
    let plan = setup.plan;
    if makes_user_namespace(plan) {
        // The parent's end of the socket too, so that its death ends the wait for the maps.
        setup.close_foreign_descriptors(parent)?;
    }
    // Before anything is hidden: of who is not dumpable the files in /proc belong to root (proc(5)), and a change of ids does
    // the same. Asked for privilege is who opened it.
    let offsets = open_offsets(&plan.time_offsets)?;
    hide(plan)?;
    join_in_order(setup.joined)?;
    if makes_user_namespace(plan) {
        unshare(CloneFlags::CLONE_NEWUSER).property(|| "linux.namespaces").doing(|| "make a user namespace")?;
        setup.ask_for_id_maps(parent)?;
        become_root()?;
    }
    if plan.namespaces.time.is_new() {
        make_time_namespace(offsets)?;
    }
    Ok(())
}

fn join_in_order(joined: &[Joined]) -> Result<()> {
    // First with the caller's privilege; what belongs to the user namespace that is joined is tried again after it.
    let mut later = vec![];
    for namespace in joined.iter().filter(|joined| joined.kind.name != "user") {
        match namespace.join() {
            Err(error) if error.errno() == Some(Errno::EPERM) => later.push(namespace),
            other => other?,
        }
    }
    if let Some(user) = joined.iter().find(|joined| joined.kind.name == "user") {
        user.join()?;
        become_root()?;
    }
    for namespace in later {
        namespace.join()?;
    }
    Ok(())
}

impl Joined {
    pub fn join(&self) -> Result<()> {
        let joined = setns(&self.fd, CloneFlags::from_bits_retain(self.kind.flag as libc::c_int));
        joined.property(|| "linux.namespaces").doing(|| format!("join the {} namespace", self.kind.name))
    }
}

/// The file for the offsets of a time namespace that is made later, and what is to be written to it; `None` without offsets.
fn open_offsets(offsets: &TimeOffsets) -> Result<Option<(File, String)>> {
    let text = offsets_text(offsets);
    if text.is_empty() {
        return Ok(None);
    }
    let file = File::options().write(true).open("/proc/self/timens_offsets");
    Ok(Some((file.property(|| "linux.timeOffsets").doing(|| "open /proc/self/timens_offsets")?, text)))
}

/// The lines for /proc/PID/timens_offsets; empty without offsets.
pub fn offsets_text(offsets: &TimeOffsets) -> String {
    let clocks = [("monotonic", offsets.monotonic), ("boottime", offsets.boottime)];
    let lines = clocks.iter().filter_map(|(clock, offset)| {
        let (seconds, nanoseconds) = (*offset)?;
        Some(format!("{clock} {seconds} {nanoseconds}\n"))
    });
    lines.collect()
}

/// A new time namespace with its offsets: they can be written until the first process is born in it (time_namespaces(7)).
fn make_time_namespace(offsets: Option<(File, String)>) -> Result<()> {
    let flags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    unshare(flags).property(|| "linux.namespaces").doing(|| "make a time namespace")?;
    let Some((mut file, text)) = offsets else { return Ok(()) };
    file.write_all(text.as_bytes())
        .property(|| "linux.timeOffsets")
        .doing(|| format!("write {text:?} to /proc/self/timens_offsets"))
}

/// What exec enters: a process's namespaces, and its root where it has none of its own to give one.
pub struct Target {
    pub namespaces: TargetNamespaces,
    /// The root of a container without a mount namespace, which is in its creator's by chroot(2).
    pub root: Option<OwnedFd>,
}

/// The namespaces that exec joins.
pub enum TargetNamespaces {
    /// All at once (setns(2) with a pidfd, since 5.8).
    Process(OwnedFd),
    /// One by one, where the kernel hides pidfd_open(2).
    Namespaces(Vec<Joined>),
}

impl Target {
    /// Opens the root of process `pid`, if its container has no mount namespace; who calls must make sure afterwards that the
    /// process was still there.
    pub fn open_root(pid: Pid, namespaces: u64) -> Result<Option<OwnedFd>> {
        use std::os::unix::fs::OpenOptionsExt;
        if namespaces & libc::CLONE_NEWNS as u64 != 0 {
            return Ok(None);
        }
        let path = format!("/proc/{pid}/root");
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let root = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path);
        Ok(Some(root.doing(|| format!("open the container's root {path}"))?.into()))
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut descriptors = self.namespaces.descriptors();
        descriptors.extend(self.root.as_ref().map(AsFd::as_fd));
        descriptors
    }

    fn join(&self, namespaces: u64) -> Result<()> {
        self.namespaces.join(namespaces)?;
        let Some(root) = &self.root else { return Ok(()) };
        // With the privilege of the container's own user namespace, as its init did it.
        nix::unistd::fchdir(root).and_then(|()| nix::unistd::chroot(".")).doing(|| "enter the container's root")
    }
}

impl TargetNamespaces {
    /// Opens the namespaces of process `pid` that `namespaces`, CLONE_NEW* bits, names.
    pub fn open(pid: Pid, namespaces: u64) -> Result<Self> {
        let mut joined = vec![];
        for kind in NAMESPACE_KINDS.iter().filter(|kind| namespaces & kind.flag != 0) {
            let path = PathBuf::from(format!("/proc/{pid}/ns/{}", kind.file));
            let fd = open_namespace(&path, kind).doing(|| format!("open {}", path.display()))?;
            joined.push(Joined { kind, fd });
        }
        Ok(Self::Namespaces(joined))
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Process(pidfd) => vec![pidfd.as_fd()],
            Self::Namespaces(joined) => joined.iter().map(|joined| joined.fd.as_fd()).collect(),
        }
    }

    fn join(&self, namespaces: u64) -> Result<()> {
        match self {
            Self::Process(pidfd) => {
                let flags = CloneFlags::from_bits_retain(namespaces as libc::c_int);
                setns(pidfd, flags).doing(|| "join the container's namespaces")?;
                if namespaces & libc::CLONE_NEWUSER as u64 != 0 { become_root() } else { Ok(()) }
            }
            Self::Namespaces(joined) => join_in_order(joined),
        }
    }
}

/// Opens the namespaces that the plan joins by path, and makes sure of their kind.
pub fn open_joined(plan: &Plan) -> Result<Vec<Joined>> {
    let mut joined = vec![];
    for kind in &NAMESPACE_KINDS {
        let Namespace::Join(path) = (kind.of)(&plan.namespaces) else { continue };
        let opened = open_namespace(path, kind);
        let fd = opened
            .property(|| "linux.namespaces")
            .doing(|| format!("join the {} namespace {}", kind.name, path.display()))?;
        joined.push(Joined { kind, fd });
    }
    Ok(joined)
}

fn open_namespace(path: &Path, kind: &NamespaceKind) -> Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let fd = OwnedFd::from(file);
    let found = match process::namespace_type(fd.as_fd()) {
        Err(Errno::ENOTTY) => return Err(Error::new(crate::error::Kind::Config, "it is no namespace")),
        other => other?,
    };
    if found != kind.flag {
        let is = NAMESPACE_KINDS.iter().find(|kind| kind.flag == found).map_or("other", |kind| kind.name);
        return Err(Error::new(
            crate::error::Kind::Config,
            format!("it is a namespace of type {is}, not {}", kind.name),
        ));
    }
    Ok(fd)
}

/// First descriptor number that is not one of the caller's `preserved` ones.
pub fn first_own(preserved: u32) -> RawFd {
    3 + preserved as RawFd
}
