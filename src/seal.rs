//! [parent] Runs this program from a copy that nothing in a container can write to (CVE-2019-5736).
//!
//! A process of the container can reach the runtime's executable through /proc/PID/exe, or be it, by `#!/proc/self/exe`.
//! Sealed is an overlay without an upper layer: it has nowhere to write to, even for a container whose root may clear a
//! mount's read-only flag. The program's entry point ([`entry`]) does that before this module is asked. Where the caller
//! may not mount, a sealed memfd does, at the cost of a copy.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Result};
use crate::image::helper;
use crate::sys::entry;
use crate::sys::process::set_name;

/// Comes back in a sealed process, which it makes of this one by executing it again if need be.
pub fn ensure(program: &OsStr, arguments: &[OsString]) -> Result<()> {
    if entry::has_changed_over() {
        return Ok(());
    }
    if program.as_bytes() == entry::SEALED.to_bytes() {
        // Before Linux 6.14 ps(1) would call a program that was executed by descriptor after the descriptor's number.
        return set_name(c"kelson").doing(|| "name the process");
    }
    let c_string = |word: &[u8]| CString::new(word).map_err(|_| Errno::EINVAL);
    let arguments = arguments.iter().map(|argument| c_string(argument.as_bytes())).collect::<nix::Result<Vec<_>>>()?;
    // argv[0] is lost, and with it where the programs beside this one are.
    let directory = helper::directory_of(program).map(|directory| (helper::DIRECTORY.into(), directory.into()));
    let environment = std::env::vars_os()
        .filter(|(name, _)| name != helper::DIRECTORY)
        .chain(directory)
        .map(|(name, value): (OsString, OsString)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<nix::Result<Vec<_>>>()?;
    let refused = entry::execute_sealed(&arguments, &environment);
    log::debug!("no overlay to run the program from: {refused}");
    let sealed = memfd().doing(|| "seal the program against its containers")?;
    let argv: Vec<CString> = std::iter::once(entry::SEALED.to_owned()).chain(arguments).collect();
    match nix::unistd::execveat(&sealed, c"", &argv, &environment, AtFlags::AT_EMPTY_PATH) {
        Err(errno) => Err(errno).doing(|| "execute the sealed program"),
        Ok(never) => match never {},
    }
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
