//! The program's entry point: makes the process one of an executable that nothing in a container can write to, before
//! anything else is set up.
//!
//! That executable is this program in an overlay without an upper layer. Before the first instruction of the C library
//! the process can change over to it where it stands: it maps its segments from there and tells the kernel that this is
//! its executable (PR_SET_MM_MAP in prctl(2), which wants CONFIG_CHECKPOINT_RESTORE and, since 5.9, the capability of that
//! name). Otherwise it executes it, which is a second start: forty page faults, and questions to the processor that are
//! traps in a virtual machine.
//!
//! So early there is no thread-local storage, no `errno`, and no `memcpy`, whose address is not known yet. Hence the
//! volatile accesses, of which the compiler makes no calls.

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

/// The second argument of C's `main`: only the C library makes one.
#[repr(transparent)]
pub struct Arguments(*const *const c_char);

impl Arguments {
    /// The first `count`, which is main's first argument; std knows them only from glibc.
    pub fn collect(&self, count: c_int) -> Vec<OsString> {
        let argument = |at| {
            // SAFETY: the C library passes that many, from the kernel's own array (execve(2)).
            let start = unsafe { self.0.add(at).read() };
            // SAFETY: each is a C string that lives as long as the process.
            OsStr::from_bytes(unsafe { CStr::from_ptr(start) }.to_bytes()).to_owned()
        };
        (0..usize::try_from(count).unwrap_or(0)).map(argument).collect()
    }
}

/// This process became one of the sealed program without executing it.
static CHANGED_OVER: AtomicBool = AtomicBool::new(false);

/// Whether this process became one of the sealed program at its beginning, without executing it.
pub fn has_changed_over() -> bool {
    CHANGED_OVER.load(Ordering::Relaxed)
}

/// argv[0] of a sealed run that was executed: argv is the caller's to choose, the environment may come from anywhere.
pub const SEALED: &CStr = c"kelson-sealed";

/// Commands whose process or its children are seen by a container.
const SEALING: [&CStr; 3] = [c"create", c"run", c"exec"];

// The kernel starts the program here (build.rs says so), with argc, argv and the environment on the stack (System V ABI,
// 3.4.1). The C library's entry point gets stack and %rdx as they were.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".globl kelson_entry",
    ".type kelson_entry, @function",
    "kelson_entry:",
    "mov r12, rsp",
    "mov r13, rdx",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {first}",
    "mov rsp, r12",
    "mov rdx, r13",
    "jmp _start",
    first = sym seal_first,
);

/// Comes back where there is nothing to seal, or where that failed: [`execute_sealed`] tells why, later.
#[cfg(target_arch = "x86_64")]
extern "C" fn seal_first(stack: *const usize) {
    // SAFETY: the kernel put argc there.
    let count = unsafe { stack.read_volatile() };
    // SAFETY: argv follows argc.
    let argv = unsafe { stack.add(1) }.cast_mut().cast::<*const c_char>();
    // SAFETY: the environment follows argv and the null pointer that ends it.
    let environment = unsafe { argv.add(count + 1) }.cast_const();
    if count == 0 || is_argument(argv, 0, SEALED) {
        return;
    }
    // Options may stand before the command. An argument that only looks like one costs a start and does no harm.
    let seals = |at| SEALING.iter().any(|command| is_argument(argv, at, command));
    if (1..count).any(seals) {
        // Why it failed is asked again later.
        if seal(argv, environment, true) == 0 {
            CHANGED_OVER.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether argument number `at`, which there is, is `word`.
#[cfg(target_arch = "x86_64")]
fn is_argument(argv: *const *const c_char, at: usize, word: &CStr) -> bool {
    // SAFETY: there is such an argument, says the caller.
    let argument = unsafe { argv.add(at).read_volatile() };
    let mut at = 0;
    loop {
        // SAFETY: it is a C string, and its end was not passed: up to here it is the same as `word`.
        let byte = unsafe { argument.add(at).read_volatile() };
        // SAFETY: the same of `word`.
        let wanted = unsafe { word.as_ptr().add(at).read_volatile() };
        if byte != wanted {
            return false;
        }
        if byte == 0 {
            return true;
        }
        at += 1;
    }
}

/// Executes the program again, as [`SEALED`], from an overlay that has nowhere to write to; comes back only with an error.
///
/// # Errors
/// `EPERM` where the caller may not mount; `ENODEV` or `ENOSYS` where the kernel lacks overlayfs or fsopen(2); `EINVAL` for a
/// path of the program that an option of overlayfs cannot hold.
pub fn execute_sealed(arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let mut argv = vec![SEALED.as_ptr()];
    argv.extend(pointers(arguments));
    Errno::from_raw(seal(argv.as_mut_ptr(), pointers(environment).as_ptr(), false))
}

/// What lies above the program's directory in the overlay, which wants two layers: nobody can put a file there.
const UPPER_LAYER: &CStr = c"/sys:";
/// The C library has written to its data.
const TOO_LATE: isize = -(libc::EBUSY as isize);
const EXECUTABLE: &CStr = c"/proc/self/exe";
/// The longest path that the kernel gives (PATH_MAX).
const PATH_BYTES: usize = 4096;

/// Gives the error number, or 0 where the process changed over, which it may do at its very beginning (`is_first`) only.
/// Null pointers end both arrays; the first argument becomes [`SEALED`] where the program is executed.
fn seal(argv: *mut *const c_char, environment: *const *const c_char, is_first: bool) -> i32 {
    let mut buffer = MaybeUninit::<[u8; PATH_BYTES]>::uninit();
    let start: *mut u8 = buffer.as_mut_ptr().cast();
    let layer = UPPER_LAYER.count_bytes();
    for at in 0..layer {
        // SAFETY: within that string.
        let byte = unsafe { UPPER_LAYER.as_ptr().add(at).read_volatile() };
        // SAFETY: within the buffer, which is larger.
        unsafe { start.add(at).write_volatile(byte as u8) };
    }
    let free = PATH_BYTES - layer;
    let here = libc::AT_FDCWD as usize;
    let length = call(libc::SYS_readlinkat, [here, EXECUTABLE.as_ptr() as usize, start as usize + layer, free]);
    if length <= 0 || length as usize >= free {
        return libc::EINVAL;
    }
    let end = layer + length as usize;
    let mut name = 0;
    for at in layer..end {
        // SAFETY: within what readlink(2) wrote.
        match unsafe { start.add(at).read_volatile() } {
            b'/' => name = at + 1,
            // "(unreachable)/…", from outside of the process's root.
            _ if at == layer => return libc::EINVAL,
            // They separate and quote layers.
            b':' | b'\\' => return libc::EINVAL,
            _ => {}
        }
    }
    // The directory ends before its name's slash; the root directory is that slash.
    for at in [end, if name == layer + 1 { end } else { name - 1 }] {
        // SAFETY: `end` is at most the buffer's last byte, and the path is absolute, so `name` is beyond its first.
        unsafe { start.add(at).write_volatile(0) };
    }
    let (layers, name) = (start as usize, start as usize + name);
    const FSCONFIG_SET_STRING: usize = 1;
    const FSCONFIG_CMD_CREATE: usize = 6;
    // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC.
    const CLOSE_ON_EXEC: usize = 1;
    let context = call(libc::SYS_fsopen, [c"overlay".as_ptr() as usize, CLOSE_ON_EXEC]);
    let lowerdir = c"lowerdir".as_ptr() as usize;
    let set = then(context, || call(libc::SYS_fsconfig, [context as usize, FSCONFIG_SET_STRING, lowerdir, layers, 0]));
    let made = then(set, || call(libc::SYS_fsconfig, [context as usize, FSCONFIG_CMD_CREATE, 0, 0, 0]));
    let mount = then(made, || call(libc::SYS_fsmount, [context as usize, CLOSE_ON_EXEC, 0]));
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let program = then(mount, || call(libc::SYS_openat, [mount as usize, name, flags, 0]));
    let same = then(program, || is_running(program as usize));
    let mut sealed = then(same, || if is_first { change_over(program as usize, argv, environment) } else { TOO_LATE });
    if sealed < 0 && same == 0 {
        sealed = execute(program as usize, argv, environment);
    }
    // Descriptors from 3 on are the caller's to count.
    for descriptor in [context, mount, program] {
        then(descriptor, || call(libc::SYS_close, [descriptor as usize]));
    }
    -sealed as i32
}

/// 0 if `program` is the file that this process executes, and ESTALE if not: a mount may hide it from the overlay, and an
/// upgrade may just have replaced it.
fn is_running(program: usize) -> isize {
    let (mut own, mut other) = (MaybeUninit::<libc::stat>::uninit(), MaybeUninit::<libc::stat>::uninit());
    let here = libc::AT_FDCWD as usize;
    let (first, second) = (own.as_mut_ptr(), other.as_mut_ptr());
    let asked = call(libc::SYS_newfstatat, [here, EXECUTABLE.as_ptr() as usize, first as usize, 0]);
    let asked = then(asked, || call(libc::SYS_fstat, [program, second as usize]));
    if asked < 0 {
        return asked;
    }
    // SAFETY: the kernel filled it in.
    let own = unsafe { &*first };
    // SAFETY: as above.
    let other = unsafe { &*second };
    // overlayfs may put numbers of its own into the upper bits (its option xino).
    let is_same = own.st_ino as u32 == other.st_ino as u32
        && own.st_size == other.st_size
        && own.st_ctime == other.st_ctime
        && own.st_ctime_nsec == other.st_ctime_nsec;
    if is_same { 0 } else { -(libc::ESTALE as isize) }
}

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    /// The program's ELF header, at its first byte in memory: a name of the linker's.
    static __ehdr_start: libc::Elf64_Ehdr;
}

/// Maps this program's segments from `program`, which is the same file, and makes that the process's executable.
#[cfg(target_arch = "x86_64")]
fn change_over(program: usize, argv: *const *const c_char, environment: *const *const c_char) -> isize {
    const PAGE: usize = 4096;
    let start = &raw const __ehdr_start;
    // SAFETY: the linker put it there.
    let count = unsafe { (&raw const (*start).e_phnum).read_volatile() };
    // SAFETY: as above.
    let offset = unsafe { (&raw const (*start).e_phoff).read_volatile() };
    let headers: *const libc::Elf64_Phdr = start.cast::<u8>().wrapping_add(offset as usize).cast();
    let (mut code, mut data) = (0..0, 0..0);
    for at in 0..usize::from(count) {
        // SAFETY: there are `count` of them, in the first segment, whether of the old or of the new file.
        let segment = unsafe { &*headers.add(at) };
        if segment.p_type != libc::PT_LOAD {
            continue;
        }
        let before = segment.p_vaddr as usize % PAGE;
        let address = segment.p_vaddr as usize - before;
        let (length, end) = (before + segment.p_filesz as usize, segment.p_vaddr as usize + segment.p_filesz as usize);
        match segment.p_flags & (libc::PF_X | libc::PF_W) {
            libc::PF_X => code = address..end,
            libc::PF_W => data = address..end,
            _ => {}
        }
        let allows = |flag: u32, protection: i32| if segment.p_flags & flag != 0 { protection } else { 0 };
        let protection = allows(libc::PF_R, libc::PROT_READ)
            | allows(libc::PF_W, libc::PROT_WRITE)
            | allows(libc::PF_X, libc::PROT_EXEC);
        let flags = (libc::MAP_PRIVATE | libc::MAP_FIXED) as usize;
        let is_padded = segment.p_memsz > segment.p_filesz;
        let offset = segment.p_offset as usize - before;
        let mapped = call(libc::SYS_mmap, [address, length, protection as usize, flags, program, offset]);
        if mapped < 0 {
            return mapped;
        }
        if is_padded {
            // As the kernel does it: what follows in the file is not the program's.
            // SAFETY: the page was just mapped for writing, and nothing of the program has written to it yet.
            unsafe { zero(end, end.next_multiple_of(PAGE) - end) };
        }
    }
    let heap = call(libc::SYS_brk, [0]) as u64;
    let (arguments, variables) = (strings(argv), strings(environment));
    let map = MemoryMap {
        code: [code.start as u64, code.end as u64],
        data: [data.start as u64, data.end as u64],
        heap: [heap, heap],
        stack: argv as u64,
        arguments,
        // Behind the arguments, where there are none.
        variables: if variables[0] == 0 { [arguments[1]; 2] } else { variables },
        vector: 0,
        vector_size: 0,
        executable: program as u32,
    };
    // PR_SET_MM, PR_SET_MM_MAP: refused as long as anything of the old executable is mapped.
    call(libc::SYS_prctl, [35, 14, &raw const map as usize, size_of::<MemoryMap>(), 0])
}

/// `struct prctl_mm_map` (linux/prctl.h): begin and end of each part, as they are. An auxiliary vector of no size stays.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
struct MemoryMap {
    code: [u64; 2],
    data: [u64; 2],
    heap: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    variables: [u64; 2],
    vector: u64,
    vector_size: u32,
    executable: u32,
}

/// Where the strings of a null-ended array begin and end: the kernel put them one behind the other.
#[cfg(target_arch = "x86_64")]
fn strings(array: *const *const c_char) -> [u64; 2] {
    // SAFETY: there is at least the null pointer.
    let first = unsafe { array.read_volatile() };
    let (mut last, mut at) = (first, 0);
    loop {
        // SAFETY: the null pointer was not passed.
        let next = unsafe { array.add(at).read_volatile() };
        if next.is_null() {
            break;
        }
        (last, at) = (next, at + 1);
    }
    if last.is_null() {
        return [0, 0];
    }
    let mut end = last;
    // SAFETY: it is a C string, and its end was not passed.
    while unsafe { end.read_volatile() } != 0 {
        end = end.wrapping_add(1);
    }
    [first as u64, end as u64 + 1]
}

/// # Safety
/// The bytes are this program's to write.
#[cfg(target_arch = "x86_64")]
unsafe fn zero(address: usize, length: usize) {
    // SAFETY: that is the caller's promise; the direction flag is clear at every call (System V ABI, 3.2.1).
    unsafe {
        std::arch::asm!(
            "rep stosb",
            inout("rcx") length => _,
            inout("rdi") address => _,
            in("al") 0u8,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn change_over(_: usize, _: *const *const c_char, _: *const *const c_char) -> isize {
    // The program's beginning is the C library's there.
    -(libc::ENOSYS as isize)
}

/// The next call, or the error of the one before.
fn then(before: isize, next: impl FnOnce() -> isize) -> isize {
    if before < 0 { before } else { next() }
}

/// execve(2) of an open file as [`SEALED`].
fn execute(program: usize, argv: *mut *const c_char, environment: *const *const c_char) -> isize {
    // SAFETY: the array has a first element, which is this program's to name.
    let called = unsafe { argv.read_volatile() };
    // SAFETY: as above.
    unsafe { argv.write_volatile(SEALED.as_ptr()) };
    let (no_path, by_descriptor) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
    let failed = call(libc::SYS_execveat, [program, no_path, argv as usize, environment as usize, by_descriptor]);
    // SAFETY: as above.
    unsafe { argv.write_volatile(called) };
    failed
}

/// A system call whose error is a negative number, as the kernel gives it: `errno` is not there yet.
#[cfg(target_arch = "x86_64")]
fn call<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> isize {
    let argument = |at: usize| if at < N { arguments[at] } else { 0 };
    let returned;
    // SAFETY: callers pass addresses of C strings, null-ended arrays and buffers of the size that they say, all of which
    // outlive the call, close no descriptor that others own, and map no more than the program's own segments, as they
    // are; the instruction changes the three named registers.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => returned,
            in("rdi") argument(0), in("rsi") argument(1), in("rdx") argument(2),
            in("r10") argument(3), in("r8") argument(4), in("r9") argument(5),
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    returned
}

/// The same through the C library, where the program starts as any other.
#[cfg(not(target_arch = "x86_64"))]
fn call<const N: usize>(number: libc::c_long, arguments: [usize; N]) -> isize {
    let argument = |at: usize| if at < N { arguments[at] } else { 0 };
    let [a, b, c, d, e, f] = std::array::from_fn(argument);
    // SAFETY: as above.
    let returned = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if returned < 0 { -(Errno::last_raw() as isize) } else { returned as isize }
}
