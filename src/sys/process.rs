//! Processes: clone3(2), pidfd_open(2), pidfd_send_signal(2), prctl(2), capset(2), keyctl(2).

use std::ffi::{CStr, c_int, c_ulong};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Pid, Uid};

use super::check;

/// Flags of clone3(2) that libc lacks or truncates: its own `CLONE_INTO_CGROUP` is an `i32` that overflows to 0.
pub const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Proof that the process has one thread, so that a child made by a bare clone3(2) may allocate and lock.
pub struct SingleThreaded(());

impl SingleThreaded {
    /// # Errors
    /// `EBUSY` if there is a second thread: a lock that it holds would stay locked for ever in the child.
    pub fn prove() -> nix::Result<Self> {
        // unshare(2): no effect, and an error with a second thread.
        match nix::sched::unshare(CloneFlags::CLONE_THREAD) {
            Ok(()) => return Ok(Self(())),
            Err(Errno::EINVAL) => return Err(Errno::EBUSY),
            // A filter forbids all of unshare(2).
            Err(_) => {}
        }
        // proc(5): /proc/self/task has a directory for each thread, and st_nlink counts directories.
        match nix::sys::stat::stat("/proc/self/task")?.st_nlink {
            3 => Ok(Self(())),
            _ => Err(Errno::EBUSY),
        }
    }

    /// For a process that [`clone`] made and that started no thread: it began with the one that called.
    pub fn after_clone() -> Self {
        Self(())
    }
}

/// What fork(2) tells its two processes apart by.
pub enum Forked {
    Parent { pid: Pid, pidfd: OwnedFd },
    Child,
}

/// How a child is made.
#[derive(Default)]
pub struct CloneArgs<'fd> {
    /// CLONE_NEW* and CLONE_PARENT; CLONE_PIDFD is always added.
    pub flags: u64,
    /// A cgroup v2 directory in which the child is born (since 5.7).
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// Layout of `struct clone_args` (linux/sched.h), version 2: up to `cgroup`.
#[repr(C, align(8))]
#[derive(Default)]
struct RawCloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a child with fork semantics in the namespaces that `args.flags` asks for; handled signals are reset in it.
///
/// # Errors
/// `ENOSYS`, or of some filters `EPERM`, where there is no clone3(2) and a cgroup is asked for; without one clone(2) is used.
pub fn clone(_proof: &SingleThreaded, args: &CloneArgs<'_>) -> nix::Result<Forked> {
    let mut pidfd: c_int = -1;
    let mut raw = RawCloneArgs {
        flags: args.flags | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        // clone(2): a sibling (CLONE_PARENT) has its creator's exit signal and may not name one.
        exit_signal: if args.flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..Default::default()
    };
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `raw` has the layout and size of clone_args and outlives the call; without CLONE_VM and with no stack the
    // child runs on its own copy of this one; `_proof` says that no other thread can hold a lock that is copied.
    let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw mut raw, size_of::<RawCloneArgs>()) };
    let pid = match Errno::result(returned) {
        // EPERM may be the kernel's own answer: then clone(2) gives it again.
        Err(Errno::ENOSYS | Errno::EPERM) if args.cgroup.is_none() => clone_without_clone3(args.flags, &mut pidfd)?,
        other => other?,
    };
    if pid == 0 {
        return Ok(Forked::Child);
    }
    // SAFETY: CLONE_PIDFD succeeded, so the kernel stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked::Parent { pid: Pid::from_raw(pid as i32), pidfd })
}

/// clone(2) in place of clone3(2), for kernels before 5.3 and filters that hide it.
fn clone_without_clone3(flags: u64, pidfd: &mut c_int) -> nix::Result<libc::c_long> {
    let flags = flags | libc::CLONE_PIDFD as u64 | libc::SIGCHLD as u64;
    // SAFETY: no CLONE_VM; with CLONE_PIDFD the descriptor is stored in `pidfd`, which is valid for that.
    check(unsafe { clone_copy(flags, pidfd) })
}

/// clone(2) without a stack of the child's own, where the kernel stores a pidfd in `pidfd` if that is asked for.
///
/// # Safety
/// `flags` must not have CLONE_VM: the child runs on its own copy of this stack.
pub(super) unsafe fn clone_copy(flags: u64, pidfd: &mut c_int) -> libc::c_long {
    let pidfd: *mut c_int = pidfd;
    #[cfg(not(target_arch = "s390x"))]
    // SAFETY: flags, stack, where the pidfd goes; the caller vouches for the flags, and the others are not read.
    let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, pidfd, 0usize, 0usize) };
    #[cfg(target_arch = "s390x")]
    // SAFETY: as above; here the stack comes first (CONFIG_CLONE_BACKWARDS2, clone(2)).
    let made = unsafe { libc::syscall(libc::SYS_clone, 0usize, flags, pidfd, 0usize, 0usize) };
    made
}

/// Gives a descriptor for process `pid` (pidfd_open(2), since 5.3).
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory.
    let fd = match check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) }) {
        // Linux 6.12 says so of one that has ended and whose number is still that of a session or a process group.
        Err(Errno::EINVAL) => Err(Errno::ESRCH),
        other => other,
    }?;
    // SAFETY: the call succeeded, so it is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The number that tells the process behind `pidfd` from all others until the next boot; `None` before Linux 6.9, where
/// all such descriptors share one inode.
pub fn pidfd_inode(pidfd: BorrowedFd<'_>) -> Option<u64> {
    /// `PID_FS_MAGIC` of linux/magic.h.
    const PID_FS_MAGIC: FsType = FsType(0x5049_4446);
    let is_pidfs = fstatfs(pidfd).is_ok_and(|fs| fs.filesystem_type() == PID_FS_MAGIC);
    is_pidfs.then(|| nix::sys::stat::fstat(pidfd).ok().map(|stat| stat.st_ino)).flatten()
}

/// Layout of `struct pidfd_info` (linux/pidfd.h) as of 6.13, whose size is part of the request's number.
#[repr(C, align(8))]
#[derive(Default)]
struct RawPidfdInfo {
    mask: u64,
    cgroup_id: u64,
    pid: u32,
    thread_group: u32,
    parent: u32,
    /// Real, effective, saved and file system ids of user and group.
    credentials: [u32; 8],
    exit_code: i32,
}

/// The wait status of the process behind `pidfd`, which was opened before its parent reaped it; `None` while it is not reaped
/// (PIDFD_GET_INFO with PIDFD_INFO_EXIT, since 6.15).
///
/// # Errors
/// An older kernel: `ENOTTY` or `EINVAL` before 6.13, then `ESRCH` of a process that is reaped.
pub fn reaped_status(pidfd: BorrowedFd<'_>) -> nix::Result<Option<i32>> {
    const PIDFD_GET_INFO: libc::Ioctl =
        nix::request_code_readwrite!(0xff, 11, size_of::<RawPidfdInfo>()) as libc::Ioctl;
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = RawPidfdInfo { mask: PIDFD_INFO_EXIT, ..Default::default() };
    // SAFETY: `info` has the layout and size that the request's number says, and is valid for reads and writes.
    Errno::result(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) })?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// Sends `signal` (0 only asks) to the process behind `pidfd` (pidfd_send_signal(2), since 5.1).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is allowed and means what kill(2) sends.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) }).map(drop)
}

/// Sends any signal from 0 to 64 by PID (kill(2)): the caller knows that it is the right process still.
pub fn kill(pid: Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

fn prctl(option: c_int, argument: c_ulong) -> nix::Result<c_int> {
    // SAFETY: the options that this module uses take integers only.
    Errno::result(unsafe { libc::prctl(option, argument, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) })
}

/// The name that ps(1) shows, of which the kernel keeps 15 bytes (PR_SET_NAME).
pub fn set_name(name: &CStr) -> nix::Result<()> {
    // SAFETY: the option reads a C string, which `name` is.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }).map(drop)
}

/// Whether others may attach with ptrace(2) and read /proc/PID (PR_SET_DUMPABLE).
pub fn set_dumpable(dumpable: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into()).map(drop)
}

/// Copies descriptor `number` of the process behind `pidfd` into this one (pidfd_getfd(2), since 5.6).
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    // SAFETY: the call succeeded, so it is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A child that has ended, and its wait status; `None` if none has. nix's own wait has no name for realtime signals.
///
/// # Errors
/// `ECHILD` if there is no child.
pub fn wait_any() -> nix::Result<Option<(Pid, i32)>> {
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    let ended = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) })?;
    Ok((ended != 0).then_some((Pid::from_raw(ended), status)))
}

/// The signal that this process gets when its parent ends; 0 is none (PR_SET_PDEATHSIG).
pub fn set_parent_death_signal(signal: c_int) -> nix::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong).map(drop)
}

/// Orphans below this process become its children (PR_SET_CHILD_SUBREAPER).
pub fn set_child_subreaper() -> nix::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map(drop)
}

/// No execve(2) gains privileges from here on (PR_SET_NO_NEW_PRIVS).
pub fn set_no_new_privileges() -> nix::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}

/// Permitted capabilities survive a change of the user id until the next execve(2) (PR_SET_KEEPCAPS).
pub fn set_keep_capabilities(keep: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into()).map(drop)
}

/// The highest capability that the kernel knows (PR_CAPBSET_READ knows no others).
pub fn last_capability() -> u8 {
    let is_known = |capability: u8| prctl(libc::PR_CAPBSET_READ, capability.into()).is_ok();
    // CAP_CHECKPOINT_RESTORE, the last one since 5.9.
    let mut last = 40;
    while is_known(last + 1) && last < 63 {
        last += 1;
    }
    while !is_known(last) && last > 0 {
        last -= 1;
    }
    last
}

// The user of this thread, which is the only one. What the C library has in their place tells all threads of it, by
// signals; musl blocks and unblocks them three times a call where there is no other thread, too.

/// setgroups(2).
pub fn set_groups(groups: &[Gid]) -> nix::Result<()> {
    let groups: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    // SAFETY: the call reads as many ids as it is told.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// setresgid(2), all three to `gid`.
pub fn set_gid(gid: Gid) -> nix::Result<()> {
    let gid = gid.as_raw();
    // SAFETY: the arguments are integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// setresuid(2), all three to `uid`.
pub fn set_uid(uid: Uid) -> nix::Result<()> {
    let uid = uid.as_raw();
    // SAFETY: the arguments are integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Takes a capability out of the bounding set for good (PR_CAPBSET_DROP).
pub fn drop_bounding(capability: u8) -> nix::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into()).map(drop)
}

fn ambient(command: c_int, capability: u8) -> nix::Result<()> {
    // SAFETY: PR_CAP_AMBIENT takes integers only.
    let returned = unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, command as c_ulong, c_ulong::from(capability), 0 as c_ulong, 0 as c_ulong)
    };
    Errno::result(returned).map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient() -> nix::Result<()> {
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)
}

/// Adds a capability that is permitted and inheritable to the ambient set.
pub fn raise_ambient(capability: u8) -> nix::Result<()> {
    ambient(libc::PR_CAP_AMBIENT_RAISE, capability)
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// The effective, permitted and inheritable sets of this process, bit n for capability n (capget(2)).
pub fn capabilities() -> nix::Result<[u64; 3]> {
    let mut header = CapHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads a header and writes two data elements; both are valid for that.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok([
        join(data[0].effective, data[1].effective),
        join(data[0].permitted, data[1].permitted),
        join(data[0].inheritable, data[1].inheritable),
    ])
}

/// Sets the three sets of this process at once (capset(2)).
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> nix::Result<()> {
    let mut header = CapHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads a header and two data elements; both are valid for that.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
const KEYCTL_SETPERM: c_int = 5;

/// Joins a session keyring called `name`, a new one if there is none, and gives its serial number (keyctl(2)).
pub fn join_session_keyring(name: &CStr) -> nix::Result<i32> {
    // SAFETY: `name` is a C string and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }).map(|id| id as i32)
}

/// Sets the permission mask of key `id` (keyctl_setperm(3)).
pub fn set_keyring_permissions(id: i32, permissions: u32) -> nix::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, id, permissions) }).map(drop)
}

/// Gives back what this process has of its program and of its heap in memory, for a wait that may be long: the program's pages
/// are in the page cache and come back from there (madvise(2), malloc_trim(3)).
pub fn shrink() {
    unsafe extern "C" {
        // The linker's names for the first byte of the program and the one behind its code (ld(1)).
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let start = &raw const __executable_start as usize / PAGE * PAGE;
    let end = &raw const etext as usize / PAGE * PAGE;
    // SAFETY: the range is the program's constants and code, which are mapped privately from its file and never written to:
    // what is dropped is read again as it was.
    let _ = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    #[cfg(target_env = "gnu")]
    // SAFETY: it only returns free memory to the kernel.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Every signal but the first two real-time ones, which glibc keeps to itself; musl's own set lacks a third.
pub fn all_signals() -> SigSet {
    const OF_GLIBC: u64 = 1 << (32 - 1) | 1 << (33 - 1);
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a sigset_t is at least as large as the kernel's 64 bits, with which it begins, and as aligned.
    unsafe { set.as_mut_ptr().cast::<u64>().write(!OF_GLIBC) };
    // SAFETY: all of it was written, and any bits are a set.
    unsafe { SigSet::from_sigset_t_unchecked(set.assume_init()) }
}

/// Ends the process at once: no destructors, no atexit handlers, no flush of what the parent buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Sets a signal back to its default action; also the two that the C library keeps for itself and does not let be changed.
pub fn default_signal(signal: c_int) -> nix::Result<()> {
    set_action(signal, libc::SIG_DFL)
}

/// Lets a signal do nothing.
pub fn ignore_signal(signal: c_int) -> nix::Result<()> {
    set_action(signal, libc::SIG_IGN)
}

fn set_action(signal: c_int, action: libc::sighandler_t) -> nix::Result<()> {
    // struct sigaction of the kernel: handler, then no flags, no restorer, empty mask.
    let action = [action as u64, 0, 0, 0];
    let old: *mut u64 = std::ptr::null_mut();
    // SAFETY: `action` is as large as the kernel's struct sigaction, a null old action is allowed, and 8 is the size of its
    // signal set; SIG_DFL and SIG_IGN install no handler, so nothing of this program runs in signal context.
    check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), old, 8usize) }).map(drop)
}

/// Lets the program that `command` starts have no signal blocked, whatever this process holds back, and be killed when this
/// process dies: nobody would wait for it any more.
pub fn tie_to_this_process(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let parent = nix::unistd::getpid();
    let prepare = move || {
        set_parent_death_signal(libc::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            // It died before that was asked for.
            return Err(Errno::ESRCH.into());
        }
        nix::sys::signal::SigSet::empty().thread_set_mask().map_err(std::io::Error::from)
    };
    // SAFETY: between fork and execve the closure makes three system calls, which are async-signal-safe, and touches no
    // memory but its own stack and the PID that it owns.
    unsafe { command.pre_exec(prepare) };
}

/// Sets limits of another process (prlimit(2)); `resource` is an RLIMIT_* number.
pub fn prlimit(pid: Pid, resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: `limit` is valid for reads, a null old limit is allowed.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, &raw const limit, old) }).map(drop)
}

/// The hard limit of this process for `resource`, an RLIMIT_* number (getrlimit(2)).
pub fn hard_limit(resource: u32) -> nix::Result<u64> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is given, and the old one is written to `now`, which lives through the call.
    let got =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, std::ptr::null::<libc::rlimit64>(), &raw mut now) };
    Errno::result(got).map(|_| now.rlim_max)
}

/// Sets the file mode creation mask (umask(2)). It has no error of its own, and what a filter answers in its place is no mask.
pub fn set_umask(mask: u32) {
    // SAFETY: takes an integer only.
    unsafe { libc::umask(mask & 0o777) };
}

/// Whether the working directory is below the root, as getcwd(2) itself tells: it puts "(unreachable)" before what is not,
/// where the C library goes on to read the directories above and fails with their errors.
///
/// # Errors
/// `ENOENT` if the directory was removed; `ENAMETOOLONG` if its path is longer than PATH_MAX.
pub fn is_cwd_below_root() -> nix::Result<bool> {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    check(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) })?;
    Ok(path[0] == b'/')
}

/// Sets the process's personality(2).
pub fn set_personality(persona: u64) -> nix::Result<()> {
    // SAFETY: takes an integer only.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// Sets the NIS domain name of the UTS namespace (setdomainname(2)).
pub fn set_domain_name(name: &CStr) -> nix::Result<()> {
    // SAFETY: the pointer is valid for the given length.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.count_bytes()) }).map(drop)
}

/// Which kind of namespace a descriptor is: a CLONE_NEW* flag (ioctl_ns(2), NS_GET_NSTYPE, since 4.11).
///
/// # Errors
/// `ENOTTY` if it is no namespace.
pub fn namespace_type(namespace: BorrowedFd<'_>) -> nix::Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: NS_GET_NSTYPE takes no argument; on a descriptor of another kind it is refused.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) }).map(|kind| kind as u64)
}
