//! seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use crate::security::seccomp::Instruction;

use super::check;

const SECCOMP_SET_MODE_FILTER: u32 = 1;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: u64 = 1 << 3;

/// Installs `program` for this process and what it executes; the calling thread needs no_new_privs or CAP_SYS_ADMIN.
///
/// `flags` are SECCOMP_FILTER_FLAG_*. With `listener` the result is the notification descriptor.
pub fn set_filter(program: &[Instruction], flags: u64, listener: bool) -> nix::Result<Option<OwnedFd>> {
    #[repr(C)]
    struct FilterProgram {
        length: u16,
        instructions: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| nix::errno::Errno::EINVAL)?;
    let filter = FilterProgram { length, instructions: program.as_ptr() };
    let flags = if listener { flags | SECCOMP_FILTER_FLAG_NEW_LISTENER } else { flags };
    // SAFETY: `filter` has the layout of sock_fprog and points to `length` instructions with that of sock_filter.
    let returned =
        check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const filter) })?;
    if !listener {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the call returned a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(returned as i32) }))
}

/// Whether the kernel knows the SECCOMP_FILTER_FLAG_* in `flags`; installs nothing.
pub fn knows_flags(flags: u64) -> bool {
    // SAFETY: the kernel looks at the flags first and refuses the null pointer next (EFAULT), having changed nothing.
    let returned = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<libc::sock_fprog>())
    };
    check(returned) == Err(nix::errno::Errno::EFAULT)
}
