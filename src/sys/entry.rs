//! The program's entry point: executes the program again from where nothing in a container can write to it, before anything
//! else is set up.
//!
//! A command that seals the program starts twice. The C library's start takes forty page faults and asks the processor for
//! its caches, where each question is a trap in a virtual machine; the first of the two starts has nothing to do but to
//! make the second, and so does without it: there is no thread-local storage, no `errno`, and no `memcpy`, whose address
//! is not known yet. Hence the volatile accesses, of which the compiler makes no calls.

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;

use nix::errno::Errno;

/// argv[0] of a sealed run: argv is the caller's to choose, the environment may come from anywhere.
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
        let _ = execute_overlay(argv, environment);
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
    Errno::from_raw(execute_overlay(argv.as_mut_ptr(), pointers(environment).as_ptr()))
}

/// What lies above the program's directory in the overlay, which wants two layers: nobody can put a file there.
const UPPER_LAYER: &CStr = c"/sys:";
/// The longest path that the kernel gives (PATH_MAX).
const PATH_BYTES: usize = 4096;

/// Gives the error number. Null pointers end both arrays; the first argument becomes [`SEALED`].
fn execute_overlay(argv: *mut *const c_char, environment: *const *const c_char) -> i32 {
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
    let length = call(
        libc::SYS_readlinkat,
        [libc::AT_FDCWD as usize, c"/proc/self/exe".as_ptr() as usize, start as usize + layer, free, 0],
    );
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
    execute_from(start as usize, start as usize + name, argv, environment)
}

/// [`execute_overlay`] with the layers and the program's name in their directory.
fn execute_from(layers: usize, name: usize, argv: *mut *const c_char, environment: *const *const c_char) -> i32 {
    const FSCONFIG_SET_STRING: usize = 1;
    const FSCONFIG_CMD_CREATE: usize = 6;
    // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC.
    const CLOSE_ON_EXEC: usize = 1;
    let context = call(libc::SYS_fsopen, [c"overlay".as_ptr() as usize, CLOSE_ON_EXEC, 0, 0, 0]);
    let lowerdir = c"lowerdir".as_ptr() as usize;
    let set = then(context, || call(libc::SYS_fsconfig, [context as usize, FSCONFIG_SET_STRING, lowerdir, layers, 0]));
    let made = then(set, || call(libc::SYS_fsconfig, [context as usize, FSCONFIG_CMD_CREATE, 0, 0, 0]));
    let mount = then(made, || call(libc::SYS_fsmount, [context as usize, CLOSE_ON_EXEC, 0, 0, 0]));
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    let program = then(mount, || call(libc::SYS_openat, [mount as usize, name, flags, 0, 0]));
    let executed = then(program, || execute(program as usize, argv, environment));
    // It failed, and nothing of it may be left open: descriptors from 3 on are the caller's to count.
    for descriptor in [context, mount, program] {
        then(descriptor, || call(libc::SYS_close, [descriptor as usize, 0, 0, 0, 0]));
    }
    -executed as i32
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
fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let returned;
    // SAFETY: callers pass addresses of C strings, null-ended arrays and buffers of the size that they say, all of which
    // outlive the call, and close no descriptor that others own; the instruction changes the three named registers.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => returned,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    returned
}

/// The same through the C library, where the program starts as any other.
#[cfg(not(target_arch = "x86_64"))]
fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    // SAFETY: as above.
    let returned = unsafe { libc::syscall(number, a, b, c, d, e) };
    if returned < 0 { -(Errno::last_raw() as isize) } else { returned as isize }
}
