//! Descriptors: close_range(2), received and inherited descriptors, umask-safe moves.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::check;

/// open(2) as one system call, closed on execve(2); a file that it makes is for its owner alone. musl's own sets
/// FD_CLOEXEC by another call once more.
pub fn open<P: ?Sized + NixPath>(path: &P, flags: OFlag) -> nix::Result<OwnedFd> {
    nix::fcntl::openat(nix::fcntl::AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o600))
}

/// A file of procfs or sysfs that fits in one page: its first read(2) gives all of it.
///
/// std asks for the size first, which is 0, and then reads in ever larger pieces.
pub fn read_short(path: &str) -> nix::Result<String> {
    let file = open(path, OFlag::O_RDONLY)?;
    let mut page = [0; 4096];
    let length = nix::unistd::read(&file, &mut page)?;
    Ok(String::from_utf8_lossy(&page[..length]).into_owned())
}

/// The first `size` bytes of a file, or all that it has; std asks once more whether there are others.
pub fn read_sized(mut file: &std::fs::File, size: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut length = 0;
    while length < size {
        match std::io::Read::read(&mut file, &mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads all of a file that is small more often than not in place of what `bytes` holds: one read(2) for less than 8 KiB, whose
/// end a regular file tells by giving less than was asked for.
pub fn read_all(mut file: &std::fs::File, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    if bytes.len() < 8192 {
        bytes.resize(8192, 0);
    }
    let mut length = 0;
    loop {
        match std::io::Read::read(&mut file, &mut bytes[length..]) {
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if length < bytes.len() {
            bytes.truncate(length);
            return Ok(());
        }
        bytes.resize(2 * length, 0);
    }
}

/// What close_range(2) does with each descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CloseRange {
    Close,
    /// Marks them close-on-exec (since 5.11).
    OnExec,
}

/// Closes, or marks close-on-exec, all descriptors from `first` on.
///
/// # Errors
/// What getrlimit(2) gives, where the kernel lacks close_range(2) (before 5.9) or its flag (before 5.11).
pub fn close_from(first: RawFd, how: CloseRange) -> nix::Result<()> {
    close_between(first, RawFd::MAX, how)
}

/// Closes, or marks close-on-exec, the descriptors from `first` to `last`, both included.
pub fn close_between(first: RawFd, last: RawFd, how: CloseRange) -> nix::Result<()> {
    if first > last {
        return Ok(());
    }
    let flags = if how == CloseRange::OnExec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: takes integers; callers own or have given up every descriptor from `first` on, which is what they ask for.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }) {
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => close_listed(first, last, how),
        other => other.map(drop),
    }
}

fn close_listed(first: RawFd, last: RawFd, how: CloseRange) -> nix::Result<()> {
    let open: Vec<RawFd> = match std::fs::read_dir("/proc/self/fd") {
        Ok(listed) => listed
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|fd| (first..=last).contains(fd))
            .collect(),
        // In a container's root without /proc: all that there can be.
        Err(_) => {
            let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
            (first..=last.min(RawFd::try_from(limit).unwrap_or(RawFd::MAX))).filter(|fd| is_open(*fd)).collect()
        }
    };
    for fd in open {
        match how {
            // The listing's own descriptor is among them and is closed already: EBADF is expected.
            // SAFETY: as above: the caller gave these descriptors up.
            CloseRange::Close => _ = unsafe { libc::close(fd) },
            // SAFETY: F_SETFD takes an integer.
            CloseRange::OnExec => _ = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) },
        }
    }
    Ok(())
}

/// Closes descriptors by few calls: most have consecutive numbers.
pub fn close_all(fds: impl IntoIterator<Item = OwnedFd>) {
    let mut numbers: Vec<RawFd> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            // They are open and nobody else's: there is nothing that could fail.
            let _ = close_between(*first, *last, CloseRange::Close);
        }
    }
}

/// Descriptors that are done with and closed some at a time.
#[derive(Debug, Default)]
pub struct Done(Vec<OwnedFd>);

impl Done {
    /// Far below what a process may have open.
    const MOST: usize = 60;

    pub fn add(&mut self, fd: impl Into<OwnedFd>) {
        self.0.push(fd.into());
        if self.0.len() == Self::MOST {
            close_all(self.0.drain(..));
        }
    }
}

/// Descriptors from here on are closed one by one.
const MOST_LEFT_OPEN: RawFd = 64;

/// Leaves a close-on-exec descriptor open for a [`close_from`] that follows: one call for many. Only few: a process may be
/// allowed no more than some hundreds.
pub fn close_later(fd: OwnedFd) {
    if fd.as_raw_fd() < MOST_LEFT_OPEN {
        std::mem::forget(fd);
    }
}

/// Lets a descriptor survive execve(2).
pub fn keep_on_exec(fd: RawFd) -> nix::Result<()> {
    // SAFETY: F_SETFD takes an integer; a descriptor that is not open gives EBADF.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

/// Whether descriptor number `fd` is open.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no argument and only asks.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Makes `to` a copy of `from` that survives execve(2); what was open as `to` is closed (dup2(2)).
pub fn copy_over(from: BorrowedFd<'_>, to: RawFd) -> nix::Result<()> {
    if from.as_raw_fd() == to {
        return keep_on_exec(to);
    }
    // SAFETY: callers use it for 0, 1 and 2 and for preserved descriptors, which no OwnedFd of this program owns.
    Errno::result(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// Takes ownership of descriptors that SCM_RIGHTS brought (unix(7)).
pub fn adopt_received(fds: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: recvmsg(2) made these descriptors for this process and nobody else owns them.
    fds.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// Opens /dev/null for each standard stream that the caller closed, so that no other file gets its number.
pub fn open_standard_streams() -> nix::Result<()> {
    // poll(2) that waits for nothing: it tells of all three at once whether they are open.
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array has three members; a descriptor that is not open is an answer.
    let asked = unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    if asked >= 0 && streams.iter().all(|stream| stream.revents & libc::POLLNVAL == 0) {
        return Ok(());
    }
    for number in 0..=2 {
        if !is_open(number) {
            // The lowest free number is `number`: those below it are open.
            let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
            std::mem::forget(null);
        }
    }
    Ok(())
}

/// A close-on-exec copy.
pub fn copy(fd: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let number = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the call succeeded, so the kernel made a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The standard streams, which stay open for the whole life of the process.
pub fn standard_stream(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..=2).contains(&number));
    // SAFETY: main opened what was closed of them first thing, and nothing in this program closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Borrows an inherited descriptor that the caller named by number (`--preserve-fds`, LISTEN_FDS).
///
/// # Errors
/// `EBADF` if it is not open.
pub fn inherited(number: RawFd) -> nix::Result<BorrowedFd<'static>> {
    if !is_open(number) {
        return Err(Errno::EBADF);
    }
    // SAFETY: it is open, was inherited, and no OwnedFd of this program refers to it.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}
