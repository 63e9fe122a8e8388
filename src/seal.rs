//! [parent] Runs this program from a copy that nothing in a container can write to (CVE-2019-5736).
//!
//! A process of the container can reach the runtime's executable through /proc/PID/exe, or be it, by `#!/proc/self/exe`.
//! Sealed is an overlay without an upper layer: it has nowhere to write to, even for a container whose root may clear a
//! mount's read-only flag. Where the caller may not mount, a sealed memfd does, at the cost of a copy.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

use crate::error::{Context, Result};
use crate::sys::mount::FsContext;

/// argv[0] of a sealed run: argv is the caller's to choose, the environment may come from anywhere.
const SEALED: &str = "kelson-sealed";

/// Comes back in a sealed process, which it makes of this one by executing it again if need be.
pub fn ensure(program: &OsStr, arguments: &[OsString]) -> Result<()> {
    if program == SEALED {
        return Ok(());
    }
    let sealed = overlay().or_else(|_| memfd()).doing(|| "seal the program against its containers")?;
    let c_string = |word: &OsStr| CString::new(word.as_bytes()).map_err(|_| Errno::EINVAL);
    let mut argv = vec![c_string(OsStr::new(SEALED))?];
    for argument in arguments {
        argv.push(c_string(argument)?);
    }
    let mut environment = vec![];
    for (name, value) in std::env::vars_os() {
        environment
            .push(c_string(&[name.as_bytes(), b"=", value.as_bytes()].map(OsStr::from_bytes).join(OsStr::new("")))?);
    }
    match nix::unistd::execveat(&sealed, c"", &argv, &environment, AtFlags::AT_EMPTY_PATH) {
        Err(errno) => Err(errno).doing(|| "execute the sealed program"),
        Ok(never) => match never {},
    }
}

/// The program seen through a detached overlay whose lower layers are its directory and one that is never looked at.
fn overlay() -> nix::Result<OwnedFd> {
    let path = nix::fcntl::readlink("/proc/self/exe")?;
    let path = Path::new(&path);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ENOENT) };
    let directory = open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let context = FsContext::open(c"overlay")?;
    // By descriptor: a path may hold what separates layers. An overlay without upper layer wants two lower ones.
    let layers = format!("/proc/self/fd/{}:/sys", directory.as_fd().as_raw_fd());
    context.set_string(c"lowerdir", &CString::new(layers).map_err(|_| Errno::EINVAL)?)?;
    let mount = context.mount(0)?;
    let program = openat(&mount, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // execve closes them all at once.
    std::mem::forget((directory, context, mount));
    Ok(program)
}

/// A copy in memory that can be executed and no more changed.
fn memfd() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let copy = match memfd_create(c"kelson", flags | executable) {
        // Before 6.3 all were executable.
        Err(Errno::EINVAL) => memfd_create(c"kelson", flags),
        other => other,
    }?;
    let from_io = |e: io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    let mut own = File::open("/proc/self/exe").map_err(from_io)?;
    let mut copy = File::from(copy);
    // std copies between files by copy_file_range(2) or sendfile(2).
    io::copy(&mut own, &mut copy).map_err(from_io)?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy.into())
}
