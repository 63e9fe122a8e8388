//! System calls that nix lacks: the only `unsafe` of this package.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;

/// A descriptor that becomes readable when `pid`, a child of the caller, ends (pidfd_open(2)).
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    Errno::result(fd)?;
    // SAFETY: the call succeeded, so the kernel made a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// What the child does between fork and exec, in order.
#[derive(Clone, Debug)]
pub enum BeforeExec {
    /// Makes descriptor `.1` a copy of `.0`, open across exec.
    Dup(RawFd, RawFd),
    /// Starts a session whose controlling terminal is the descriptor.
    ControllingTty(RawFd),
    /// Starts a process group of its own.
    ProcessGroup,
    Umask(u32),
    IgnoreSignal(i32),
    BlockSignal(i32),
    /// Sets a resource limit: resource, soft, hard.
    Rlimit(u32, u64, u64),
    /// Runs under this seccomp filter, without no_new_privs (needs CAP_SYS_ADMIN).
    Seccomp(Vec<(u16, u8, u8, u32)>),
    /// Becomes this user and group without supplementary groups.
    User(u32, u32),
    /// Dies with the process that started it.
    DieWithParent,
    /// Unshares these namespaces (CLONE_NEW*).
    Unshare(i32),
}

/// Lets `command` do `steps` in its child before it executes the program.
pub fn before_exec(command: &mut Command, steps: Vec<BeforeExec>) {
    // SAFETY: the closure calls only async-signal-safe functions and does not allocate: all memory was made before fork.
    unsafe { command.pre_exec(move || steps.iter().try_for_each(step)) };
}

fn step(step: &BeforeExec) -> io::Result<()> {
    let result = match step {
        BeforeExec::Dup(from, to) if from == to => {
            // SAFETY: fcntl with F_SETFD takes integers only.
            unsafe { libc::fcntl(*from, libc::F_SETFD, 0) }
        }
        BeforeExec::Dup(from, to) => {
            // SAFETY: dup2 takes integers only; the target belongs to the child, which executes next.
            unsafe { libc::dup2(*from, *to) }
        }
        BeforeExec::ControllingTty(fd) => {
            // SAFETY: setsid takes nothing.
            Errno::result(unsafe { libc::setsid() })?;
            // SAFETY: TIOCSCTTY takes an integer argument.
            unsafe { libc::ioctl(*fd, libc::TIOCSCTTY, 0) }
        }
        BeforeExec::ProcessGroup => {
            // SAFETY: setpgid takes integers only.
            unsafe { libc::setpgid(0, 0) }
        }
        BeforeExec::Umask(mask) => {
            // SAFETY: umask takes an integer and cannot fail.
            unsafe { libc::umask(*mask) };
            0
        }
        BeforeExec::IgnoreSignal(signal) => {
            // SAFETY: SIG_IGN is a valid disposition.
            let old = unsafe { libc::signal(*signal, libc::SIG_IGN) };
            if old == libc::SIG_ERR { -1 } else { 0 }
        }
        BeforeExec::BlockSignal(signal) => return block_signal(*signal),
        BeforeExec::Rlimit(resource, soft, hard) => {
            let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
            // SAFETY: the pointer is to a live rlimit that the kernel only reads.
            unsafe { libc::setrlimit(*resource as _, &limit) }
        }
        BeforeExec::Seccomp(filter) => return install_filter(filter),
        BeforeExec::User(uid, gid) => {
            // SAFETY: with a length of 0 the pointer is not read.
            Errno::result(unsafe { libc::setgroups(0, std::ptr::null()) })?;
            // SAFETY: setresgid takes integers only.
            Errno::result(unsafe { libc::setresgid(*gid, *gid, *gid) })?;
            // SAFETY: setresuid takes integers only.
            unsafe { libc::setresuid(*uid, *uid, *uid) }
        }
        BeforeExec::DieWithParent => {
            // SAFETY: PR_SET_PDEATHSIG takes an integer.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }
        }
        BeforeExec::Unshare(flags) => {
            // SAFETY: unshare takes an integer.
            unsafe { libc::unshare(*flags) }
        }
    };
    Errno::result(result)?;
    Ok(())
}

fn block_signal(signal: i32) -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to memory of the right size.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset initialised the set.
    Errno::result(unsafe { libc::sigaddset(set.as_mut_ptr(), signal) })?;
    // SAFETY: the set is initialised; the old mask is not asked for.
    Errno::result(unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) })?;
    Ok(())
}

fn install_filter(filter: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    set_filter(filter, 0).map(drop)
}

/// Has every `call` of this thread, and of what it starts from now on, reported on the listener that this gives: each
/// waits for [`answer_notification`] or [`let_through`].
pub fn report_calls(call: i64) -> io::Result<OwnedFd> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let filter = [
        (load, 0, 0, 0),
        (jump_equal, 0, 1, call as u32),
        (answer, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        (answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let fd = set_filter(&filter, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: with this flag the result is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn set_filter(filter: &[(u16, u8, u8, u32)], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    const MAX: usize = 64;
    let mut code = [libc::sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; MAX];
    if filter.len() > MAX {
        return Err(Errno::E2BIG.into());
    }
    for (slot, (op, jt, jf, k)) in code.iter_mut().zip(filter) {
        *slot = libc::sock_filter { code: *op, jt: *jt, jf: *jf, k: *k };
    }
    let program = libc::sock_fprog { len: filter.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: the program points to `len` initialised instructions that live through the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    Ok(Errno::result(result)?)
}

/// The filter of `--no-newer-syscalls`: ENOSYS for what appeared between Linux 5.2 and 5.12.
pub fn no_newer_syscalls() -> Vec<(u16, u8, u8, u32)> {
    let calls = [
        libc::SYS_clone3,
        libc::SYS_openat2,
        libc::SYS_mount_setattr,
        libc::SYS_fsopen,
        libc::SYS_fspick,
        libc::SYS_open_tree,
        libc::SYS_close_range,
        libc::SYS_pidfd_open,
    ];
    hide_calls(&calls, libc::ENOSYS)
}

/// A filter that answers `errno` to `calls`.
pub fn hide_calls(calls: &[i64], errno: i32) -> Vec<(u16, u8, u8, u32)> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut program = vec![(load, 0, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        program.push((jump_equal, (calls.len() - index) as u8, 0, *call as u32));
    }
    program.push((answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push((answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    program
}

/// A filter that answers `errno` to a call whose argument number `index`, masked, is `value`; a mask of 0 is any.
pub fn denying(call: i64, index: u32, mask: u32, value: u32, errno: i32) -> Vec<(u16, u8, u8, u32)> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let and = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    let jump_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    vec![
        (load, 0, 0, 0),
        (jump_equal, 0, 3, call as u32),
        // struct seccomp_data: the arguments begin at 16, the lower half of each comes first.
        (load, 0, 0, 16 + 8 * index),
        (and, 0, 0, mask),
        (jump_equal, 1, 0, value),
        (answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        (answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
    ]
}

/// Makes orphaned descendants children of the caller (PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: the option takes an integer.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    Ok(())
}

/// Calls `number` as a guest inside a container, to learn what a filter or the kernel answers.
///
/// # Errors
/// What the kernel answered.
pub fn probe_syscall(number: i64, args: [i64; 6]) -> Result<i64, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: tests name calls whose arguments are integers or bad pointers, which the kernel refuses with EFAULT.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// Clears the read-only flag of the mount that `fd` is on (mount_setattr(2)).
pub fn clear_read_only(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attributes = [0u64, 1, 0, 0];
    let size = size_of_val(&attributes);
    let empty_path = libc::AT_EMPTY_PATH;
    // SAFETY: the path ends with NUL; the kernel reads `size` bytes of live memory.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), c"".as_ptr(), empty_path, attributes.as_ptr(), size)
    };
    Errno::result(result)?;
    Ok(())
}

/// The value of a prctl(2) that takes no argument.
pub fn prctl_get(option: i32) -> Result<i32, Errno> {
    // SAFETY: the caller asks only for options that return their value; unused arguments are 0.
    Errno::result(unsafe { libc::prctl(option, 0, 0, 0, 0) })
}

/// What sched_getattr(2) tells.
#[derive(Clone, Copy, Debug)]
pub struct SchedAttributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the other two.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// `sched_getattr(2)` of the caller.
pub fn sched_attributes() -> Result<SchedAttributes, Errno> {
    let mut words = [0u64; 6];
    // SAFETY: the kernel writes at most the 48 bytes that are given as size.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, words.as_mut_ptr(), 48, 0) })?;
    // struct sched_attr: size and policy, flags, nice and priority, runtime, deadline, period.
    Ok(SchedAttributes {
        policy: (words[0] >> 32) as u32,
        flags: words[1],
        nice: words[2] as u32 as i32,
        priority: (words[2] >> 32) as u32,
        runtime: words[3],
        deadline: words[4],
        period: words[5],
    })
}

/// `ioprio_get(2)` of the caller: class and level.
pub fn io_priority() -> Result<(i64, i64), Errno> {
    // SAFETY: takes integers only.
    let value = Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) })?;
    Ok((value >> 13, value & 0x1fff))
}

/// `get_mempolicy(2)` of the caller: mode with its flags, and the first 64 nodes.
pub fn memory_policy() -> Result<(i32, u64), Errno> {
    let (mut mode, mut nodes) = (0i32, [0u64; 16]);
    // SAFETY: the mask has 1024 bits, as the size says; no address is asked about.
    Errno::result(unsafe { libc::syscall(libc::SYS_get_mempolicy, &mut mode, nodes.as_mut_ptr(), 1024, 0, 0) })?;
    Ok((mode, nodes[0]))
}

/// The serial number of the caller's session keyring (keyctl(2)).
pub fn session_keyring() -> Result<i64, Errno> {
    // SAFETY: KEYCTL_GET_KEYRING_ID takes integers only; -3 is the session keyring.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) })
}

/// Adds a `user` key to the caller's session keyring and gives its serial number.
pub fn add_session_key(name: &std::ffi::CStr) -> Result<i64, Errno> {
    let payload = b"x";
    // SAFETY: type and name end with NUL, the payload has the length given.
    Errno::result(unsafe { libc::syscall(libc::SYS_add_key, c"user".as_ptr(), name.as_ptr(), payload.as_ptr(), 1, -3) })
}

/// Looks for a `user` key in the caller's keyrings.
pub fn find_key(name: &std::ffi::CStr) -> Result<i64, Errno> {
    // SAFETY: type and name end with NUL; no callout info, no destination.
    Errno::result(unsafe { libc::syscall(libc::SYS_request_key, c"user".as_ptr(), name.as_ptr(), 0, 0) })
}

/// Gives the caller a new session keyring, as a login does.
pub fn new_session_keyring() -> Result<i64, Errno> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with a null name makes an anonymous keyring.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, 1, 0) })
}

/// Size of a terminal: rows and columns.
pub fn window_size(fd: BorrowedFd<'_>) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is to a live winsize that the kernel fills.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets the size of a terminal.
pub fn set_window_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is to a live winsize that the kernel reads.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) })?;
    Ok(())
}

/// Sends a process any signal, also a realtime one, for which nix has no name; 0 only asks.
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes integers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Connects to a socket without waiting for room in its queue; the connection is closed at once.
pub fn connect_at_once(path: &std::path::Path) -> Result<(), Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

/// How many bytes a pipe holds (FIONREAD).
pub fn readable_bytes(pipe: &OwnedFd) -> i32 {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores an int, for which `count` is valid.
    unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    count
}

/// Ends the calling thread alone (pthread_exit(3)).
pub fn end_thread() -> ! {
    loop {
        // SAFETY: ends this thread alone (_exit(2)), whose stack no other needs. pthread_exit(3) would unwind it, and aborts at a
        // frame of Rust that cannot be unwound.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// Pushes a byte into a terminal's input (TIOCSTI), as an attacker would.
pub fn push_terminal_input(fd: BorrowedFd<'_>, byte: u8) -> Result<(), Errno> {
    // SAFETY: the pointer is to one live byte that the kernel reads.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSTI, &byte) })?;
    Ok(())
}

/// A new pseudo terminal: both ends, close-on-exec.
pub fn open_pty() -> io::Result<(OwnedFd, OwnedFd)> {
    let (mut main, mut peer) = (-1, -1);
    // SAFETY: both pointers are to live integers; name, termios and size are not given.
    let result = unsafe {
        libc::openpty(&mut main, &mut peer, std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut())
    };
    Errno::result(result)?;
    // SAFETY: openpty succeeded, so this is a new descriptor that nobody else owns.
    let main = unsafe { OwnedFd::from_raw_fd(main) };
    // SAFETY: as above.
    let peer = unsafe { OwnedFd::from_raw_fd(peer) };
    for fd in [&main, &peer] {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    }
    Ok((main, peer))
}

/// Takes ownership of a descriptor that the kernel passed over a socket (SCM_RIGHTS).
///
/// The caller has it from recvmsg(2) and from nowhere else.
pub fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg installed the descriptor for this process and the caller hands it on exactly once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Header of a seccomp notification: id, pid, syscall number, arguments.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    pub id: u64,
    pub pid: u32,
    pub number: i32,
    pub args: [u64; 6],
}

/// Waits for one notification on a seccomp listener.
pub fn receive_notification(listener: BorrowedFd<'_>) -> Result<Notification, Errno> {
    let mut words = [0u64; 10];
    // SAFETY: struct seccomp_notif is 80 bytes, zeroed as the kernel demands.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, words.as_mut_ptr()) })?;
    let [id, pid_flags, number_arch, _ip, args @ ..] = words;
    Ok(Notification { id, pid: pid_flags as u32, number: number_arch as u32 as i32, args })
}

/// Answers a notification: `value` if `errno` is 0, else the error.
pub fn answer_notification(listener: BorrowedFd<'_>, id: u64, value: i64, errno: i32) -> Result<(), Errno> {
    respond(listener, [id, value as u64, u64::from((-errno) as u32)])
}

/// Lets the kernel do the call.
pub fn let_through(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    respond(listener, [id, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE << 32])
}

fn respond(listener: BorrowedFd<'_>, words: [u64; 3]) -> Result<(), Errno> {
    // SAFETY: struct seccomp_notif_resp is 24 bytes: id, val, error, flags.
    Errno::result(unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, words.as_ptr()) })?;
    Ok(())
}

const SECCOMP_IOCTL_NOTIF_RECV: libc::c_ulong = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: libc::c_ulong = 0xc018_2101;

/// A copy of this process in new namespaces (`flags`: CLONE_NEW*), which sleeps until it is killed; gives its PID.
///
/// Call it before any thread is started.
pub fn fork_sleeper(flags: i32) -> io::Result<i32> {
    // SAFETY: the child calls only async-signal-safe functions.
    let pid = unsafe { libc::fork() };
    Errno::result(pid)?;
    if pid == 0 {
        // SAFETY: takes integers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        // SAFETY: takes an integer.
        if unsafe { libc::unshare(flags) } != 0 {
            // SAFETY: ends the child at once, without destructors.
            unsafe { libc::_exit(1) };
        }
        // A stopped child tells the parent that the namespaces are there.
        // SAFETY: SIGSTOP to oneself.
        unsafe { libc::raise(libc::SIGSTOP) };
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    Errno::result(unsafe { libc::waitpid(pid, &mut status, libc::WUNTRACED) })?;
    if !libc::WIFSTOPPED(status) {
        return Err(io::Error::other("unshare failed in the helper process"));
    }
    // SAFETY: takes integers only.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    Ok(pid)
}

/// Sets an extended attribute (setxattr(2)).
pub fn set_attribute(path: &std::path::Path, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    let path = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
    // SAFETY: both strings end with NUL, the value has the length given.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result)?;
    Ok(())
}

/// A copy of this process with PID `pid`, which must be free; it sleeps until it is killed (clone3(2), set_tid).
///
/// The caller manages and reaps it.
pub fn fork_sleeper_as(pid: i32) -> io::Result<()> {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size.
    let wanted = [pid];
    let args = [0u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, wanted.as_ptr() as u64, 1];
    // SAFETY: the arguments live through the call and say their size; without CLONE_VM the child has memory of its own.
    let result = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    if Errno::result(result)? == 0 {
        // SAFETY: takes integers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    Ok(())
}

/// Writes every page of `bytes` of new memory and keeps it.
pub fn hold_memory(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0u8; bytes];
    for page in memory.chunks_mut(4096) {
        // SAFETY: a volatile write to memory that is owned; it keeps the compiler from leaving the pages untouched.
        unsafe { std::ptr::write_volatile(page.as_mut_ptr(), 1) };
    }
    memory
}
