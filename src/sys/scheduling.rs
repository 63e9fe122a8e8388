//! sched_setattr(2), sched_setaffinity(2), ioprio_set(2), set_mempolicy(2).

use nix::errno::Errno;
use nix::unistd::Pid;

use super::check;

/// Layout of `struct sched_attr` (linux/sched/types.h), version 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the scheduling policy of this process; `size` is filled in.
pub fn sched_setattr(mut attr: SchedAttr) -> nix::Result<()> {
    attr.size = size_of::<SchedAttr>() as u32;
    // SAFETY: `attr` has the layout of sched_attr and says its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// CPUs on which `pid` may run (0 is this process), as words of a bit mask.
pub fn sched_setaffinity(pid: Pid, mask: &[u64]) -> nix::Result<()> {
    // SAFETY: `mask` is valid for reads of the length given in bytes.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid.as_raw(), size_of_val(mask), mask.as_ptr()) })
        .map(drop)
}

/// Lets this process run on every CPU that its cgroup allows.
pub fn reset_affinity() {
    // The kernel keeps what exists and is allowed; it may refuse altogether inside of a filter, which leaves things as they are.
    let _ = sched_setaffinity(Pid::from_raw(0), &[u64::MAX; 128]);
}

/// Class and level as in `linux/ioprio.h`, for this process.
pub fn ioprio_set(class: u16, level: u16) -> nix::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = u32::from(class) << IOPRIO_CLASS_SHIFT | u32::from(level);
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// NUMA policy of this process: mode with its flags, node mask words (set_mempolicy(2)).
pub fn set_mempolicy(mode: u32, node_mask: &[u64]) -> nix::Result<()> {
    // set_mempolicy(2): the kernel looks at maxnode - 1 bits.
    let bits = if node_mask.is_empty() { 0 } else { node_mask.len() * 64 + 1 };
    let pointer = if node_mask.is_empty() { std::ptr::null() } else { node_mask.as_ptr() };
    // SAFETY: the pointer is null with 0 bits, or valid for the words that hold the bits.
    match check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }) {
        Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
        other => other.map(drop),
    }
}
