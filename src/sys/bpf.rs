//! bpf(2), as far as device rules of cgroup v2 need it.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::check;

/// One instruction of an eBPF program (`struct bpf_insn` in linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination register in the low four bits, source in the high four.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const BPF_PROG_LOAD: i64 = 5;
const BPF_PROG_ATTACH: i64 = 8;
const BPF_PROG_DETACH: i64 = 9;
const BPF_PROG_GET_FD_BY_ID: i64 = 13;
const BPF_PROG_QUERY: i64 = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// Not GPL-compatible in the kernel's eyes, which matters only to programs that call GPL helpers.
const LICENSE: &CStr = c"Apache-2.0";

/// The kernel accepts any prefix of its `union bpf_attr` and takes the rest for zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: i64, attr: &mut T) -> nix::Result<libc::c_long> {
    // SAFETY: each T here is a prefix of union bpf_attr as `command` reads it, valid for its whole size; what its members
    // point to outlives the call in every caller.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) })
}

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE (since 4.15).
///
/// # Errors
/// `EPERM` without CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN in the initial user namespace; `EACCES` and `EINVAL` from the
/// verifier.
pub fn load_device_program(instructions: &[Instruction]) -> nix::Result<OwnedFd> {
    let mut attr = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        ..Default::default()
    };
    let fd = loop {
        // The verifier gives up with EAGAIN when a signal is pending (bpf_check in kernel/bpf/verifier.c).
        match bpf(BPF_PROG_LOAD, &mut attr) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => break other?,
        }
    };
    // SAFETY: the call succeeded, so it is a new descriptor that nobody else owns; bpf(2) makes it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches `program` to `cgroup` beside those of its ancestors: all must allow (BPF_F_ALLOW_MULTI).
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    let mut attr = Attach { flags: BPF_F_ALLOW_MULTI, ..Attach::new(cgroup, program) };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Puts `program` in the place of `old` at `cgroup`, so that there is neither none nor both at any time.
///
/// # Errors
/// `EINVAL` before 5.6, and for an `old` that was not attached with BPF_F_ALLOW_MULTI.
pub fn replace_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>, old: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE;
    let mut attr = Attach { flags, replaced: old.as_raw_fd() as u32, ..Attach::new(cgroup, program) };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

/// Takes `program` away from `cgroup`.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    bpf(BPF_PROG_DETACH, &mut Attach::new(cgroup, program)).map(drop)
}

impl Attach {
    fn new(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Self {
        Self {
            target: cgroup.as_raw_fd() as u32,
            program: program.as_raw_fd() as u32,
            attach_type: BPF_CGROUP_DEVICE,
            flags: 0,
            replaced: 0,
        }
    }
}

/// The programs attached to `cgroup` itself, not to its ancestors.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> nix::Result<Vec<OwnedFd>> {
    // The kernel attaches at most 64 to one cgroup (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0u32; 64];
    let mut query = Query {
        target: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        ..Default::default()
    };
    bpf(BPF_PROG_QUERY, &mut query)?;
    ids.iter().take(query.count as usize).map(|&id| program_by_id(id)).collect()
}

fn program_by_id(id: u32) -> nix::Result<OwnedFd> {
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut GetById { id, ..Default::default() })?;
    // SAFETY: the call succeeded, so it is a new descriptor that nobody else owns; bpf(2) makes it close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
