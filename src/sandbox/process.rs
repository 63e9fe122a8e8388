//! [init] What create and exec have in common, from the terminal on to execve(2).

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Pid, Uid};

use super::message::{Answer, Ask, ChildEnd};
use super::program;
use crate::error::{Context, Error, Result};
use crate::plan::{Personality, Process, Seccomp, User};
use crate::rootfs::procfs::Proc;
use crate::security::{capabilities, keyring, label, users};
use crate::sys::fd::{self, standard_stream};
use crate::sys::scheduling::{self, SchedAttr};
use crate::sys::{process, seccomp, tty};
use crate::terminal;

/// An environment variable that is set only if the config does not set it.
pub fn set_default_env(env: &mut Vec<CString>, name: &str, value: &str) {
    let prefix = format!("{name}=");
    if !env.iter().any(|entry| entry.to_bytes().starts_with(prefix.as_bytes())) {
        // Values come from files and names without NUL; one that has any is left out.
        env.extend(CString::new(prefix + value));
    }
}

/// A session of its own: no controlling terminal of the caller's stays (CVE-2016-10124).
pub fn start_session() -> Result<()> {
    match nix::unistd::setsid() {
        // A group leader is in a session of its own making already.
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).doing(|| "start a session"),
    }
}

/// Makes the container's terminal, sends its master to the parent, and puts its peer on the standard streams.
pub fn open_terminal(process: &Process, parent: &ChildEnd) -> Result<terminal::Pty> {
    let pty = terminal::open_pty(process.console_size)?;
    nix::unistd::fchown(&pty.peer, Some(Uid::from_raw(process.user.uid)), None)
        .or_else(|errno| if matches!(errno, Errno::EINVAL | Errno::EPERM) { Ok(()) } else { Err(errno) })
        .doing(|| "give the terminal to the container's user")?;
    parent.tell_with_fd(&Ask::Console, pty.master.as_fd())?;
    for stream in 0..=2 {
        fd::copy_over(pty.peer.as_fd(), stream).doing(|| "connect the terminal")?;
    }
    tty::set_controlling(pty.peer.as_fd()).doing(|| "make the terminal the controlling one")?;
    Ok(pty)
}

/// Scheduler, I/O priority; both before the user changes, for they may need CAP_SYS_NICE.
pub fn set_priorities(process: &Process) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        let attr = SchedAttr {
            policy: scheduler.policy,
            flags: scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
            ..Default::default()
        };
        scheduling::sched_setattr(attr).property(|| "process.scheduler").doing(|| "set the scheduler")?;
    }
    if let Some(priority) = process.io_priority {
        scheduling::ioprio_set(priority.class, priority.level)
            .property(|| "process.ioPriority")
            .doing(|| "set the I/O priority")?;
    }
    Ok(())
}

/// `linux.personality`, which execve(2) and fork(2) pass on.
pub fn set_personality(personality: Option<Personality>) -> Result<()> {
    // linux/personality.h.
    const PER_LINUX: u64 = 0;
    const PER_LINUX32: u64 = 8;
    let persona = match personality {
        None => return Ok(()),
        Some(Personality::Linux) => PER_LINUX,
        Some(Personality::Linux32) => PER_LINUX32,
    };
    process::set_personality(persona).property(|| "linux.personality").doing(|| "set the personality")
}

/// The process's umask: what the config says, else 022 whatever the caller's is.
pub fn set_umask(user: &User) {
    process::set_umask(user.umask.unwrap_or(0o022));
}

/// LSM labels, through a procfs that is one.
pub fn set_labels(process: &Process) -> Result<()> {
    if process.apparmor_profile.is_none() && process.selinux_label.is_none() {
        return Ok(());
    }
    label::apply(process, &own_proc()?)
}

/// A session keyring of the container's own; its keys have the label of the container's process.
pub fn make_keyring(id: &str, process: Option<&Process>) -> Result<()> {
    if let Some(process) = process.filter(|process| process.selinux_label.is_some()) {
        label::apply_to_keyring(process, &own_proc()?)?;
    }
    keyring::join(&format!("_ses.{id}"))
}

/// A procfs for /proc/self: a private one, or the container's where a user namespace may not mount one.
pub fn own_proc() -> Result<Proc> {
    let at_root = || -> nix::Result<Proc> {
        let root = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/");
        let root = root.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        Proc::at(root.as_fd(), Path::new("proc"))
    };
    Proc::private().or_else(|_| at_root()).doing(|| "open a procfs")
}

/// When the seccomp filter is loaded: seccomp(2) wants no_new_privs or CAP_SYS_ADMIN for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FilterTime {
    /// With a listener, which create needs, and privilege: before the user changes.
    BeforeUser,
    /// With a listener and no_new_privs: when the program is found.
    BeforeReady,
    /// Just before execve(2): whatever it denies, it denies to the program alone.
    Last,
    /// The same by a CAP_SYS_ADMIN that is kept for it.
    LastWithPrivilege,
}

impl FilterTime {
    pub fn of(filter: &Seccomp, process: &Process) -> Self {
        match (filter.listener.is_some(), process.no_new_privileges) {
            (true, false) => Self::BeforeUser,
            (true, true) => Self::BeforeReady,
            (false, true) => Self::Last,
            (false, false) => Self::LastWithPrivilege,
        }
    }

    pub fn is_last(self) -> bool {
        matches!(self, Self::Last | Self::LastWithPrivilege)
    }
}

/// [`load_seccomp`] for a parent that has no privilege over this process where it `is_hidden`: not dumpable.
pub fn load_seccomp_with_listener(filter: &Seccomp, parent: &ChildEnd, is_hidden: bool) -> Result<()> {
    // Without root nobody takes a descriptor from who is not dumpable (pidfd_getfd(2)). By now the root is the container's, and
    // of the host nothing is open but the parent's socket.
    let show = |dumpable| if is_hidden { process::set_dumpable(dumpable) } else { Ok(()) };
    show(true)?;
    load_seccomp(filter, Some(parent))?;
    show(false).map_err(|errno| behind_filter(errno.into()))
}

/// Installs the filter; with a listener its descriptor goes to the parent, which takes it by number.
pub fn load_seccomp(filter: &Seccomp, parent: Option<&ChildEnd>) -> Result<()> {
    let wants_listener = filter.listener.is_some();
    let load = |flags| seccomp::set_filter(&filter.program.instructions, flags, wants_listener);
    let loaded = match load(filter.flags | filter.default_flags) {
        // A kernel before 4.17.
        Err(Errno::EINVAL) if filter.default_flags != 0 => load(filter.flags),
        other => other,
    };
    let listener = loaded.property(|| "linux.seccomp").doing(|| "load the seccomp filter")?;
    if let (Some(listener), Some(parent)) = (listener, parent) {
        use std::os::fd::AsRawFd;
        let told = parent.tell(&Ask::Listener(listener.as_raw_fd())).and_then(|()| expect(parent, Answer::Done));
        told.map_err(behind_filter)?;
    }
    Ok(())
}

/// An error of a process with its filter loaded: the filter may be the reason, which the errno alone does not tell.
pub fn behind_filter(error: Error) -> Error {
    if error.errno().is_none() {
        return error;
    }
    let said = Err::<(), _>(error).property(|| "linux.seccomp");
    let said = said.hint(|| "the filter of linux.seccomp is loaded by then: does it deny what the runtime needs?");
    said.err().unwrap_or_else(|| Error::other("the seccomp filter denied a call"))
}

/// Waits for `answer` of the parent.
pub fn expect(parent: &ChildEnd, answer: Answer) -> Result<()> {
    expect_with_fds(parent, answer).map(drop)
}

/// Waits for `answer` of the parent, and gives the descriptors with it.
pub fn expect_with_fds(parent: &ChildEnd, answer: Answer) -> Result<Vec<OwnedFd>> {
    match parent.wait()? {
        (given, fds) if given == answer => Ok(fds),
        (other, _) => Err(Error::other(format!("the parent answered {other:?} where {answer:?} is due"))),
    }
}

/// Sets rlimits, before the user changes: by itself, or by the parent where a user namespace may not raise any.
pub fn set_rlimits(process: &Process, in_own_user_ns: bool, parent: &ChildEnd) -> Result<()> {
    if process.rlimits.is_empty() {
        return Ok(());
    }
    if in_own_user_ns {
        parent.tell(&Ask::SetRlimits)?;
        return expect(parent, Answer::Done);
    }
    super::parent::set_rlimits(Pid::from_raw(0), &process.rlimits)
}

/// Enters the working directory with root's rights, if they are enough: `false` means that it is to be tried again as the
/// user, whose own it may be.
pub fn enter_cwd_early(process: &Process) -> Result<bool> {
    match enter_cwd(process) {
        Ok(()) => check_cwd().map(|()| true),
        Err(error) if error.errno() == Some(Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Standard streams' owner, groups, user and capabilities; the working directory unless it `is_in_cwd` already.
///
/// For a filter that comes last and needs privilege, CAP_SYS_ADMIN is kept. It ends with execve(2), which makes the permitted
/// and effective sets anew out of the others (capabilities(7)): no call for it, which the filter might deny.
pub fn become_user(
    process: &Process,
    last_capability: u8,
    is_in_cwd: bool,
    filter: Option<FilterTime>,
    parent: &ChildEnd,
) -> Result<()> {
    let user = &process.user;
    let held = process::capabilities().doing(|| "read capabilities")?[1];
    let (wanted, missing) = capabilities::available(process.capabilities, held);
    if !missing.is_empty() {
        let text = format!("process.capabilities: not available here and left out: {}", missing.join(", "));
        parent.tell(&Ask::Warn(text))?;
    }
    capabilities::drop_bounding(&wanted, last_capability)?;
    own_streams(user.uid)?;
    // Only who stops being root would lose them (capabilities(7)).
    let stops_being_root = user.uid != 0;
    if stops_being_root {
        process::set_keep_capabilities(true).doing(|| "keep capabilities")?;
    }
    set_groups(&user.additional_gids)?;
    let gid = Gid::from_raw(user.gid);
    process::set_gid(gid).property(|| "process.user.gid").doing(|| format!("become group {gid}"))?;
    let uid = Uid::from_raw(user.uid);
    process::set_uid(uid).property(|| "process.user.uid").doing(|| format!("become user {uid}"))?;
    if stops_being_root {
        process::set_keep_capabilities(false).doing(|| "keep capabilities")?;
    }
    match filter {
        Some(FilterTime::LastWithPrivilege) => capabilities::apply(&capabilities::with_admin(wanted, held))?,
        _ => capabilities::apply(&wanted)?,
    }
    if is_in_cwd {
        return Ok(());
    }
    enter_cwd(process)?;
    check_cwd()
}

fn set_groups(gids: &[u32]) -> Result<()> {
    let groups: Vec<Gid> = gids.iter().copied().map(Gid::from_raw).collect();
    match process::set_groups(&groups) {
        // Denied for a rootless container: the caller's groups cannot be left, and none were asked for.
        Err(Errno::EPERM) if groups.is_empty() => Ok(()),
        other => other
            .property(|| "process.user.additionalGids")
            .doing(|| "set the groups")
            .hint(|| "a user namespace with one mapped group denies setgroups(2)"),
    }
}

fn enter_cwd(process: &Process) -> Result<()> {
    nix::unistd::chdir(&process.cwd)
        .property(|| "process.cwd")
        .doing(|| format!("change directory to {}", process.cwd.display()))
}

/// The working directory is inside of the container: a descriptor of the host's could lead outside (CVE-2024-21626).
fn check_cwd() -> Result<()> {
    match process::is_cwd_below_root() {
        Ok(true) => Ok(()),
        Ok(false) | Err(Errno::ENOENT) => {
            Err(Error::config("process.cwd", "the working directory is outside of the container's root"))
        }
        Err(errno) => Err(errno).property(|| "process.cwd").doing(|| "look up the working directory"),
    }
}

/// Pipes and terminals that the caller gave as standard streams belong to the container's user, as in runc.
fn own_streams(uid: u32) -> Result<()> {
    for number in 0..=2 {
        let stream = standard_stream(number);
        let Ok(stat) = nix::sys::stat::fstat(stream) else { continue };
        let is_pipe = stat.st_mode & libc::S_IFMT == libc::S_IFIFO;
        // Pseudo-terminals and their like only: never a device that everybody shares, such as /dev/null (CVE-2026-88265).
        let is_terminal =
            (136..=143).contains(&nix::sys::stat::major(stat.st_rdev)) && nix::unistd::isatty(stream) == Ok(true);
        if stat.st_uid == uid || !(is_pipe || is_terminal) {
            continue;
        }
        match nix::unistd::fchown(stream, Some(Uid::from_raw(uid)), None) {
            // An id that is not mapped, a read-only file system: the stream is usable as it is.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => return Err(errno).doing(|| format!("give standard stream {number} to user {uid}")),
        }
    }
    Ok(())
}

/// Standard streams that are the host's /dev/null become the container's, if that is one.
pub fn reopen_null() -> Result<()> {
    let null = |file: &File| {
        let metadata = file.metadata().ok()?;
        let is_null = metadata.file_type().is_char_device() && metadata.rdev() == nix::sys::stat::makedev(1, 3);
        is_null.then_some(())
    };
    let mut own: Option<File> = None;
    for number in 0..=2 {
        let stream = standard_stream(number);
        let Ok(stat) = nix::sys::stat::fstat(stream) else { continue };
        let is_null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == nix::sys::stat::makedev(1, 3);
        if !is_null {
            continue;
        }
        if own.is_none() {
            let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_NOCTTY;
            let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/null").ok();
            match opened.filter(|file| null(file).is_some()) {
                Some(file) => {
                    // O_NONBLOCK was for what else might have been there.
                    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))?;
                    own = Some(file);
                }
                // The image has none, or something else in its place: the host's, which the caller gave, stays.
                None => return Ok(()),
            }
        }
        if let Some(own) = &own {
            fd::copy_over(own.as_fd(), number).doing(|| "reopen /dev/null")?;
        }
    }
    Ok(())
}

/// HOME from the container's /etc/passwd where the config sets none.
pub fn set_home(process: &mut Process) {
    if process.env.iter().any(|entry| entry.to_bytes().starts_with(b"HOME=")) {
        return;
    }
    let home = users::home_of(process.user.uid).unwrap_or_else(|| "/".into());
    set_default_env(&mut process.env, "HOME", &home);
}

/// Descriptors from 3 on that the program gets: `--preserve-fds` and LISTEN_FDS (sd_listen_fds(3)).
pub fn keep_descriptors(count: u32) -> Result<()> {
    for number in 3..3 + count as RawFd {
        fd::keep_on_exec(number)
            .doing(|| format!("keep descriptor {number} for the container"))
            .hint(|| "--preserve-fds and LISTEN_FDS count descriptors that are open, from 3 on")?;
    }
    Ok(())
}

/// Replaces this process by the container's program.
pub fn execute(process: &Process, path: &CString, is_filtered: bool) -> Result<Infallible> {
    let Err(errno) = nix::unistd::execve(path, &process.args, &process.env);
    // The kernel's own errors of execve(2) are others, but for files whose capabilities the bounding set lacks.
    if is_filtered && matches!(errno, Errno::EPERM | Errno::ENOSYS) {
        return Err(errno)
            .property(|| "linux.seccomp")
            .doing(|| format!("exec {}", path.to_string_lossy()))
            .hint(|| "the filter has to allow execve(2), by which the program is started");
    }
    let error = Err(program::explain(path, errno)).property(|| "process.args");
    if is_filtered { error.map_err(behind_filter) } else { error }
}

/// Closes every descriptor but the standard streams, those below `first_own`, and `kept`.
pub fn close_all_but(first_own: RawFd, kept: &[BorrowedFd<'_>]) -> Result<()> {
    use std::os::fd::AsRawFd;
    let mut numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).filter(|&number| number >= first_own).collect();
    numbers.sort_unstable();
    let mut next = first_own;
    let closed = numbers.into_iter().try_for_each(|number| {
        let closed = fd::close_between(next, number - 1, fd::CloseRange::Close);
        next = number + 1;
        closed
    });
    closed.and_then(|()| fd::close_from(next, fd::CloseRange::Close)).doing(|| "close descriptors")
}
