//! `linux.seccomp`: actions, operators, errno values, flags, and the listener (config-linux.md#seccomp).

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::harness::{Bundle, Context, Outcome, Peer, Run, Test, Value, eventually, json};
use crate::{check, check_eq, skip, sys};

pub const TESTS: &[Test] = &[
    Test { name: "act_errno_is_eperm_by_default", run: act_errno },
    Test { name: "act_errno_with_a_value", run: act_errno_value },
    Test { name: "act_errno_zero", run: act_errno_zero },
    Test { name: "act_kill_process", run: act_kill_process },
    Test { name: "act_kill_thread", run: act_kill_thread },
    Test { name: "act_kill", run: act_kill },
    Test { name: "act_trap", run: act_trap },
    Test { name: "act_trace_without_tracer", run: act_trace },
    Test { name: "act_log", run: act_log },
    Test { name: "act_allow", run: act_allow },
    Test { name: "default_action_errno", run: default_action_errno },
    Test { name: "default_errno_ret", run: default_errno_ret },
    Test { name: "op_eq", run: op_eq },
    Test { name: "op_ne", run: op_ne },
    Test { name: "op_lt", run: op_lt },
    Test { name: "op_le", run: op_le },
    Test { name: "op_gt", run: op_gt },
    Test { name: "op_ge", run: op_ge },
    Test { name: "op_masked_eq", run: op_masked_eq },
    Test { name: "op_with_64_bits", run: op_64_bits },
    Test { name: "conditions_on_several_arguments", run: several_arguments },
    Test { name: "conditions_on_one_argument_twice", run: one_argument_twice },
    Test { name: "every_argument_can_be_tested", run: every_argument },
    Test { name: "several_rules_for_one_call", run: several_rules },
    Test { name: "unknown_system_calls_are_skipped", run: unknown_calls },
    Test { name: "without_syscalls", run: without_syscalls },
    Test { name: "architectures_of_podman", run: architectures },
    Test { name: "flags", run: flags },
    Test { name: "flags_absent_are_spec_allow", run: flags_absent },
    Test { name: "flags_absent_are_none_on_an_old_kernel", run: flags_on_an_old_kernel },
    Test { name: "flag_wait_killable_recv", run: flag_wait_killable },
    Test { name: "with_no_new_privileges", run: with_nnp },
    Test { name: "without_no_new_privileges", run: without_nnp },
    Test { name: "of_an_ordinary_user_without_no_new_privileges", run: ordinary_user },
    Test { name: "exec_has_the_filter_too", run: exec_filter },
    Test { name: "in_a_user_namespace", run: in_user_namespace },
    Test { name: "newer_calls_than_the_profile_are_enosys", run: newer_calls },
    Test { name: "a_profile_that_allows_little", run: little },
    Test { name: "denies_the_program_what_the_runtime_needs", run: runtimes_calls },
    Test { name: "denies_the_program_even_a_change_of_capabilities", run: capability_calls },
    Test { name: "that_denies_execve_is_named", run: denies_execve },
    Test { name: "with_a_listener_that_denies_what_the_runtime_needs", run: listener_denies },
    Test { name: "podmans_size_of_profile", run: large_profile },
    Test { name: "notify_listener", run: notify },
    Test { name: "notify_metadata_and_state", run: notify_state },
    Test { name: "notify_for_exec", run: notify_exec },
    Test { name: "notify_without_anybody_listening_is_an_error", run: notify_nobody },
];

// x86_64; the guest is built for it. mkdir is refused by name, its arguments are bad pointers.
const GETPGID: &str = "121";
const SETPRIORITY: &str = "141";
const PRLIMIT64: &str = "302";

fn with<'b, 'c>(bundle: &'b mut Bundle<'c>, profile: Value) -> &'b mut Bundle<'c> {
    bundle.set("/linux/seccomp", profile)
}

/// Allows all but what `rules` say.
fn rules(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

/// Runs `syscall WORDS` under a profile.
fn call(ctx: &Context, profile: Value, words: &[&str]) -> Outcome<Run> {
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile).guest(&[&["syscall"], words].concat()).run()
}

/// The errno of `getpgid(0)` where `rule` acts on getpgid.
fn getpgid_errno(ctx: &Context, rule: Value) -> Outcome<i64> {
    let run = call(ctx, rules(json!([rule])), &[GETPGID, "0"])?.ok()?;
    Ok(run.said("syscall")?["errno"].as_i64().unwrap_or(-1))
}

fn act_errno(ctx: &Context) -> Outcome {
    check_eq!(
        getpgid_errno(ctx, json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}))?,
        i64::from(libc::EPERM),
        "errno"
    );
    Ok(())
}

fn act_errno_value(ctx: &Context) -> Outcome {
    check_eq!(
        getpgid_errno(ctx, json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}))?,
        99,
        "errno"
    );
    Ok(())
}

/// Zero is a value: the call does nothing and succeeds.
fn act_errno_zero(ctx: &Context) -> Outcome {
    let rule = json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}]);
    let seen = call(ctx, rules(rule), &[GETPGID, "99999"])?.ok()?.said("syscall")?;
    check_eq!((&seen["errno"], &seen["value"]), (&json!(0), &json!(0)), "errno and value");
    Ok(())
}

/// The guest is PID 1 of its namespace: the filter's signals kill it all the same.
fn killed(ctx: &Context, action: &str) -> Outcome {
    let run = call(ctx, rules(json!([{"names": ["getpgid"], "action": action}])), &[GETPGID, "0"])?;
    check_eq!(run.code, 128 + libc::SIGSYS, "exit code\n  {}", run.told());
    Ok(())
}

fn act_kill_process(ctx: &Context) -> Outcome {
    killed(ctx, "SCMP_ACT_KILL_PROCESS")
}

fn act_kill_thread(ctx: &Context) -> Outcome {
    killed(ctx, "SCMP_ACT_KILL_THREAD")
}

fn act_kill(ctx: &Context) -> Outcome {
    killed(ctx, "SCMP_ACT_KILL")
}

fn act_trap(ctx: &Context) -> Outcome {
    killed(ctx, "SCMP_ACT_TRAP")
}

/// seccomp(2): without a tracer the call is not executed: ENOSYS.
fn act_trace(ctx: &Context) -> Outcome {
    let seen = getpgid_errno(ctx, json!({"names": ["getpgid"], "action": "SCMP_ACT_TRACE", "errnoRet": 5}))?;
    check_eq!(seen, i64::from(libc::ENOSYS), "errno");
    Ok(())
}

fn act_log(ctx: &Context) -> Outcome {
    check_eq!(getpgid_errno(ctx, json!({"names": ["getpgid"], "action": "SCMP_ACT_LOG"}))?, 0, "errno");
    Ok(())
}

/// Everything is refused but what the guest needs, found by trying.
const NEEDED: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "clock_gettime",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "eventfd2",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchown",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "getuid",
    "ioctl",
    "kill",
    "lseek",
    "madvise",
    "membarrier",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pidfd_open",
    "pidfd_send_signal",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "prlimit64",
    "pread64",
    "read",
    "readlink",
    "readlinkat",
    "recvfrom",
    "recvmsg",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigsuspend",
    "sched_getaffinity",
    "sched_yield",
    "seccomp",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setsid",
    "setuid",
    "sigaltstack",
    "stat",
    "statfs",
    "statx",
    "tgkill",
    "umask",
    "uname",
    "unlink",
    "unlinkat",
    "wait4",
    "waitid",
    "write",
    "writev",
];

fn strict(extra: &[&str], action: &str) -> Value {
    let names: Vec<&str> = NEEDED.iter().chain(extra).copied().collect();
    json!({"defaultAction": action, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]})
}

fn act_allow(ctx: &Context) -> Outcome {
    let seen = call(ctx, strict(&["getpgid"], "SCMP_ACT_ERRNO"), &[GETPGID, "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(0), "errno of an allowed call");
    Ok(())
}

fn default_action_errno(ctx: &Context) -> Outcome {
    let seen = call(ctx, strict(&[], "SCMP_ACT_ERRNO"), &[GETPGID, "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(libc::EPERM), "errno of a call that is not listed");
    Ok(())
}

fn default_errno_ret(ctx: &Context) -> Outcome {
    let mut profile = strict(&[], "SCMP_ACT_ERRNO");
    profile["defaultErrnoRet"] = json!(77);
    let seen = call(ctx, profile, &[GETPGID, "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(77), "errno of a call that is not listed");
    Ok(())
}

/// For each value of the first argument of setpriority(2) whether the filter (errno 99) caught it.
fn caught(ctx: &Context, condition: Value, values: &[&str]) -> Outcome<Vec<bool>> {
    let profile =
        rules(json!([{"names": ["setpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": [condition]}]));
    let mut words = vec![];
    for value in values {
        // 1000 is no valid `which`: uncaught calls fail with EINVAL.
        words.extend(["syscall", SETPRIORITY, "1000", *value, "0", ","]);
    }
    words.pop();
    let mut bundle = ctx.bundle()?;
    let run = with(&mut bundle, profile).guest(&words).run()?.ok()?;
    Ok(run.lines().iter().map(|l| l["syscall"]["errno"] == json!(99)).collect())
}

fn op_eq(ctx: &Context) -> Outcome {
    let seen = caught(ctx, json!({"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}), &["4", "5", "6"])?;
    check_eq!(seen, [false, true, false], "caught of 4, 5, 6");
    Ok(())
}

fn op_ne(ctx: &Context) -> Outcome {
    let seen = caught(ctx, json!({"index": 1, "value": 5, "op": "SCMP_CMP_NE"}), &["4", "5", "6"])?;
    check_eq!(seen, [true, false, true], "caught of 4, 5, 6");
    Ok(())
}

fn op_lt(ctx: &Context) -> Outcome {
    let seen = caught(ctx, json!({"index": 1, "value": 5, "op": "SCMP_CMP_LT"}), &["4", "5", "6"])?;
    check_eq!(seen, [true, false, false], "caught of 4, 5, 6");
    Ok(())
}

fn op_le(ctx: &Context) -> Outcome {
    let seen = caught(ctx, json!({"index": 1, "value": 5, "op": "SCMP_CMP_LE"}), &["4", "5", "6"])?;
    check_eq!(seen, [true, true, false], "caught of 4, 5, 6");
    Ok(())
}

fn op_gt(ctx: &Context) -> Outcome {
    let seen = caught(ctx, json!({"index": 1, "value": 5, "op": "SCMP_CMP_GT"}), &["4", "5", "6"])?;
    check_eq!(seen, [false, false, true], "caught of 4, 5, 6");
    Ok(())
}

fn op_ge(ctx: &Context) -> Outcome {
    let seen = caught(ctx, json!({"index": 1, "value": 5, "op": "SCMP_CMP_GE"}), &["4", "5", "6"])?;
    check_eq!(seen, [false, true, true], "caught of 4, 5, 6");
    Ok(())
}

fn op_masked_eq(ctx: &Context) -> Outcome {
    // (argument & 0xf0) == 0x20
    let condition = json!({"index": 1, "value": 0xf0, "valueTwo": 0x20, "op": "SCMP_CMP_MASKED_EQ"});
    check_eq!(caught(ctx, condition, &["0x20", "0x2f", "0x30", "0x120"])?, [true, true, false, true], "caught");
    Ok(())
}

fn op_64_bits(ctx: &Context) -> Outcome {
    let big = "0x100000005";
    let condition = |op: &str| json!({"index": 1, "value": 0x1_0000_0005u64, "op": op});
    check_eq!(caught(ctx, condition("SCMP_CMP_EQ"), &["5", big])?, [false, true], "equal");
    check_eq!(
        caught(ctx, condition("SCMP_CMP_GT"), &["9", "0x100000006", "0x200000000"])?,
        [false, true, true],
        "greater"
    );
    check_eq!(
        caught(ctx, condition("SCMP_CMP_LT"), &["9", "0x100000004", "0x200000000"])?,
        [true, true, false],
        "less"
    );
    check_eq!(caught(ctx, condition("SCMP_CMP_LE"), &[big, "0x100000006", "0"])?, [true, false, true], "less or equal");
    Ok(())
}

fn several_arguments(ctx: &Context) -> Outcome {
    let profile = rules(json!([{"names": ["setpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": [
        {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 6, "op": "SCMP_CMP_EQ"},
    ]}]));
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile).guest(&[
        "syscall",
        SETPRIORITY,
        "1000",
        "5",
        "6",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "5",
        "7",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "4",
        "6",
    ]);
    let seen: Vec<bool> = bundle.run()?.ok()?.lines().iter().map(|l| l["syscall"]["errno"] == json!(99)).collect();
    check_eq!(seen, [true, false, false], "caught of (5,6), (5,7), (4,6)");
    Ok(())
}

/// libseccomp refuses two conditions on one argument; runc makes rules of them that act for any (or), as Docker's
/// profiles expect.
fn one_argument_twice(ctx: &Context) -> Outcome {
    let profile = rules(json!([{"names": ["setpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": [
        {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"},
    ]}]));
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile).guest(&[
        "syscall",
        SETPRIORITY,
        "1000",
        "5",
        "0",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "6",
        "0",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "7",
        "0",
    ]);
    let seen: Vec<bool> = bundle.run()?.ok()?.lines().iter().map(|l| l["syscall"]["errno"] == json!(99)).collect();
    check_eq!(seen, [true, false, true], "caught of 5, 6, 7");
    Ok(())
}

fn every_argument(ctx: &Context) -> Outcome {
    // splice takes six arguments; with bad descriptors it fails with EBADF.
    for index in 0..6 {
        let profile = rules(json!([{"names": ["splice"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
            "args": [{"index": index, "value": 777, "op": "SCMP_CMP_EQ"}]}]));
        let mut args = ["999", "999", "999", "999", "999", "0"];
        args[index] = "777";
        let seen = call(ctx, profile, &[&["275"], &args[..]].concat())?.ok()?.said("syscall")?;
        check_eq!(seen["errno"], json!(99), "errno where argument {index} matches");
    }
    Ok(())
}

fn several_rules(ctx: &Context) -> Outcome {
    let one = |value: u32, errno: u32| {
        json!({"names": ["setpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
            "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, rules(json!([one(1, 91), one(2, 92), one(3, 93)]))).guest(&[
        "syscall",
        SETPRIORITY,
        "1000",
        "1",
        "0",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "2",
        "0",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "3",
        "0",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "4",
        "0",
    ]);
    let seen: Vec<i64> = bundle.run()?.ok()?.lines().iter().filter_map(|l| l["syscall"]["errno"].as_i64()).collect();
    check_eq!(seen, [91, 92, 93, libc::EINVAL.into()], "errno of 1, 2, 3, 4");
    Ok(())
}

fn unknown_calls(ctx: &Context) -> Outcome {
    let rule =
        json!({"names": ["not_a_system_call", "getpgid", "nor_this"], "action": "SCMP_ACT_ERRNO", "errnoRet": 98});
    check_eq!(getpgid_errno(ctx, rule)?, 98, "errno");
    Ok(())
}

fn without_syscalls(ctx: &Context) -> Outcome {
    let seen = call(ctx, json!({"defaultAction": "SCMP_ACT_ALLOW"}), &[GETPGID, "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(0), "errno");
    Ok(())
}

fn architectures(ctx: &Context) -> Outcome {
    let mut profile = rules(json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97}]));
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let seen = call(ctx, profile.clone(), &[GETPGID, "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(97), "errno");
    // The x32 number of the same call is caught as well.
    let x32 = (0x4000_0000u32 + 121).to_string();
    let seen = call(ctx, profile, &[&x32, "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(97), "errno of the x32 call");
    let mut profile = rules(json!([]));
    profile["architectures"] = json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
    // The native architecture is always among them.
    call(ctx, profile, &[GETPGID, "0"])?.ok()?;
    Ok(())
}

fn flags(ctx: &Context) -> Outcome {
    for list in [
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]),
        json!([]),
    ] {
        let mut profile = rules(json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 96}]));
        profile["flags"] = list.clone();
        let seen = call(ctx, profile, &[GETPGID, "0"])?.ok()?.said("syscall")?;
        check_eq!(seen["errno"], json!(96), "errno with flags {list}");
    }
    Ok(())
}

const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

/// The errno of `getpgid(0)` with `profile`, whose runtime gets `errno` from seccomp(2) if SPEC_ALLOW is in the flags or not.
fn errno_behind(ctx: &Context, profile: Value, flag: u32, errno: i32) -> Outcome<Run> {
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile).guest(&["syscall", GETPGID, "0"]);
    let outer = sys::denying(libc::SYS_seccomp, 1, SPEC_ALLOW, flag, errno);
    bundle.run_command()?.before_exec(sys::BeforeExec::Seccomp(outer)).run()
}

fn flags_absent(ctx: &Context) -> Outcome {
    let mut profile = rules(json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 96}]));
    let run = errno_behind(ctx, profile.clone(), 0, libc::E2BIG)?.ok()?;
    check_eq!(run.said("syscall")?["errno"], json!(96), "errno without flags");
    profile["flags"] = json!([]);
    errno_behind(ctx, profile, SPEC_ALLOW, libc::E2BIG)?.ok()?;
    Ok(())
}

/// Before Linux 4.17 the flag is EINVAL.
fn flags_on_an_old_kernel(ctx: &Context) -> Outcome {
    let mut profile = rules(json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 96}]));
    let run = errno_behind(ctx, profile.clone(), SPEC_ALLOW, libc::EINVAL)?.ok()?;
    check_eq!(run.said("syscall")?["errno"], json!(96), "errno without flags");
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    errno_behind(ctx, profile, SPEC_ALLOW, libc::EINVAL)?.fails()?;
    Ok(())
}

fn filter_report(bundle: &mut Bundle) -> Outcome<crate::harness::Report> {
    with(bundle, rules(json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}])));
    bundle.report()
}

fn with_nnp(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = filter_report(bundle.set("/process/noNewPrivileges", true))?;
    check_eq!((seen.number("seccomp"), seen.number("no_new_privs")), (2, 1), "seccomp mode, no_new_privs");
    Ok(())
}

fn without_nnp(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    let seen = filter_report(bundle.set("/process/noNewPrivileges", false))?;
    check_eq!((seen.number("seccomp"), seen.number("no_new_privs")), (2, 0), "seccomp mode, no_new_privs");
    Ok(())
}

fn ordinary_user(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).set("/process/noNewPrivileges", false);
    bundle.remove("/process/capabilities");
    let seen = filter_report(&mut bundle)?;
    check_eq!((seen.number("seccomp"), seen.number("no_new_privs")), (2, 0), "seccomp mode, no_new_privs");
    check_eq!(seen.capabilities("effective"), 0, "effective capabilities");
    Ok(())
}

fn exec_filter(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, rules(json!([{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}])));
    let container = bundle.guest(&["sleep"]).start()?;
    let seen = container.exec(&["syscall", GETPGID, "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(95), "errno in exec");
    container.end()
}

fn in_user_namespace(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    bundle.user_namespace(&[(0, 100_000, 65536)])?;
    let seen = filter_report(bundle.set("/process/noNewPrivileges", false))?;
    check_eq!(seen.number("seccomp"), 2, "seccomp mode");
    Ok(())
}

/// runc's rule: a program built for older kernels falls back where it gets ENOSYS and not EPERM.
fn newer_calls(ctx: &Context) -> Outcome {
    let seen = call(ctx, strict(&[], "SCMP_ACT_ERRNO"), &["1000", "0"])?.ok()?.said("syscall")?;
    check_eq!(seen["errno"], json!(libc::ENOSYS), "errno of system call 1000");
    Ok(())
}

fn little(ctx: &Context) -> Outcome {
    // What the runtime itself does after the filter is in place must be next to nothing.
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [{
        "action": "SCMP_ACT_ALLOW",
        "names": ["execve", "exit_group", "exit", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64",
            "readlinkat", "readlink", "getrandom", "mprotect", "mmap", "munmap", "futex", "rt_sigprocmask", "write", "close",
            "read", "fcntl", "close_range"],
    }]});
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile)
        .set("/process/noNewPrivileges", true)
        .guest(&["print", "alive"])
        .run()?
        .prints("alive\n")?;
    Ok(())
}

/// A container and an exec without no_new_privs whose filter denies `names`, first as root, then as another user.
fn runs_without(ctx: &Context, names: &[&str]) -> Outcome {
    for uid in [0, 1000] {
        let during = |what: &str| format!("{names:?}, user {uid}, {what}");
        let mut bundle = ctx.bundle()?;
        with(&mut bundle, rules(json!([{"names": names, "action": "SCMP_ACT_ERRNO"}])));
        bundle.set("/process/noNewPrivileges", false).set("/process/user", json!({"uid": uid, "gid": uid}));
        let alive = bundle.guest(&["print", "alive"]).run()?.prints("alive\n");
        alive.map_err(|e| e.during(&during("run")))?;
        let container = bundle.guest(&["sleep"]).start().map_err(|e| e.during(&during("create and start")))?;
        container.exec(&["print", "here"])?.prints("here\n").map_err(|e| e.during(&during("exec")))?;
        container.end()?;
    }
    Ok(())
}

fn runtimes_calls(ctx: &Context) -> Outcome {
    let sockets = [
        "socket",
        "socketpair",
        "connect",
        "accept",
        "accept4",
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "shutdown",
        "bind",
        "listen",
        "getsockopt",
        "setsockopt",
        "getsockname",
        "getpeername",
    ];
    let table: [&[&str]; 3] = [&sockets, &["umask"], &["setresuid", "setresgid"]];
    table.iter().try_for_each(|names| runs_without(ctx, names))
}

fn capability_calls(ctx: &Context) -> Outcome {
    runs_without(ctx, &["capset", "prctl"])?;
    runs_without(ctx, &["chdir", "fchdir", "getcwd"])?;
    runs_without(ctx, &["setgroups", "setuid", "setgid", "faccessat", "faccessat2", "newfstatat", "statx"])
}

fn denies_execve(ctx: &Context) -> Outcome {
    for no_new_privileges in [false, true] {
        let mut bundle = ctx.bundle()?;
        with(&mut bundle, rules(json!([{"names": ["execve", "execveat"], "action": "SCMP_ACT_ERRNO"}])));
        bundle.set("/process/noNewPrivileges", no_new_privileges);
        let run = bundle.run()?.fails()?;
        if ctx.peer == Peer::Kelson {
            run.fails_saying(&["linux.seccomp", "/bin/guest", "execve"])?;
        }
    }
    Ok(())
}

/// It is loaded by create, and what comes after it must be allowed: the error says so.
fn listener_denies(ctx: &Context) -> Outcome {
    ctx.need_kelson("an error that names linux.seccomp")?;
    let path = ctx.dir.join("listener.sock");
    let _socket = UnixListener::bind(&path)?;
    let mut profile = notify_profile(&path);
    let denied = json!({"names": ["setresuid", "umask"], "action": "SCMP_ACT_ERRNO"});
    if let Some(list) = profile["syscalls"].as_array_mut() {
        list.push(denied);
    }
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile).set("/process/noNewPrivileges", false);
    bundle.run()?.fails_saying(&["process.user.uid", "linux.seccomp"])?;
    Ok(())
}

/// Some 400 names in a few rules with conditions, for three architectures.
fn large_profile(ctx: &Context) -> Outcome {
    let mut profile = strict(&["personality", "socket", "getpgid"], "SCMP_ACT_ERRNO");
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let mut list = profile["syscalls"].as_array().cloned().unwrap_or_default();
    for value in [0u64, 8, 131_072, 131_080, 4_294_967_295] {
        list.push(json!({"names": ["setpriority"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]}));
    }
    let names: Vec<String> =
        ["bpf", "mount", "umount2", "swapon", "reboot", "kexec_load", "init_module", "acct", "ptrace"]
            .iter()
            .map(|n| (*n).to_owned())
            .collect();
    list.push(json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    profile["syscalls"] = json!(list);
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile).guest(&[
        "syscall",
        SETPRIORITY,
        "1000",
        "8",
        "0",
        ",",
        "syscall",
        SETPRIORITY,
        "1000",
        "9",
        "0",
        ",",
        "syscall",
        "165",
        "0",
        "0",
    ]);
    let seen: Vec<i64> = bundle.run()?.ok()?.lines().iter().filter_map(|l| l["syscall"]["errno"].as_i64()).collect();
    check_eq!(seen, [libc::EINVAL.into(), libc::EPERM.into(), 38], "errno of an allowed value, another, and mount");
    Ok(())
}

/// What comes over the listener's socket: the container's state, and the seccomp descriptor.
pub struct Received {
    state: Value,
    pub listener: OwnedFd,
}

pub fn receive(ctx: &Context, socket: &UnixListener) -> Outcome<Received> {
    socket.set_nonblocking(true)?;
    let mut stream: UnixStream =
        eventually(ctx.patience, "the runtime connects to the listener", || socket.accept().ok().map(|a| a.0))?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ctx.patience))?;
    let mut bytes = vec![0; 65536];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
    let (count, fds) = {
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = vec![];
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(list) = part {
                fds.extend(list.into_iter().map(sys::adopt));
            }
        }
        (message.bytes, fds)
    };
    bytes.truncate(count);
    // A runtime may send the rest later, and may keep the connection open.
    let mut chunk = [0; 65536];
    let state: Value = loop {
        match serde_json::from_slice(&bytes) {
            Ok(state) => break state,
            Err(e) => match stream.read(&mut chunk)? {
                0 => return Err(e.into()),
                more => bytes.extend_from_slice(&chunk[..more]),
            },
        }
    };
    let names = state["fds"].as_array().cloned().unwrap_or_default();
    let at = names.iter().position(|n| n == "seccompFd").ok_or_else(|| format!("no seccompFd among {names:?}"))?;
    let listener = fds.into_iter().nth(at).ok_or("the descriptor is missing")?;
    Ok(Received { state, listener })
}

pub fn notify_profile(path: &std::path::Path) -> Value {
    let mut profile = rules(json!([{"names": ["getpgid"], "action": "SCMP_ACT_NOTIFY"}]));
    profile["listenerPath"] = json!(path);
    profile["listenerMetadata"] = json!("some metadata");
    profile
}

fn notify(ctx: &Context) -> Outcome {
    let path = ctx.dir.join("listener.sock");
    let socket = UnixListener::bind(&path)?;
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, notify_profile(&path)).guest(&["syscall", GETPGID, "4711", ",", "syscall", GETPGID, "4712"]);
    let running = bundle.run_command()?.spawn()?;
    let received = receive(ctx, &socket).map_err(|e| e.during(&running.stderr()))?;
    let first = sys::receive_notification(received.listener.as_fd())?;
    check_eq!((first.number, first.args[0]), (121, 4711), "system call and first argument");
    sys::answer_notification(received.listener.as_fd(), first.id, 12345, 0)?;
    let second = sys::receive_notification(received.listener.as_fd())?;
    sys::answer_notification(received.listener.as_fd(), second.id, 0, libc::EXDEV)?;
    let seen: Vec<Value> = running.wait()?.ok()?.lines().iter().map(|l| l["syscall"].clone()).collect();
    check_eq!(seen[0], json!({"value": 12345, "errno": 0}), "first answer");
    check_eq!(seen[1]["errno"], json!(libc::EXDEV), "second answer");
    Ok(())
}

fn notify_state(ctx: &Context) -> Outcome {
    let path = ctx.dir.join("listener.sock");
    let socket = UnixListener::bind(&path)?;
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, notify_profile(&path)).guest(&["sleep"]).set("/annotations", json!({"a": "b"}));
    let mut container = bundle.container()?;
    let running = container.create_command()?.spawn()?;
    let received = receive(ctx, &socket).map_err(|e| e.during(&container.stderr()))?;
    running.wait()?.ok()?;
    check_eq!(received.state["metadata"], json!("some metadata"), "metadata");
    check_eq!(received.state["state"]["id"], json!(container.id), "state.id");
    check_eq!(received.state["state"]["annotations"], json!({"a": "b"}), "state.annotations");
    check!(received.state["ociVersion"].is_string(), "no ociVersion: {}", received.state);
    check_eq!(received.state["pid"], json!(container.pid()?), "pid");
    container.start()?.ok()?;
    container.end()
}

fn notify_exec(ctx: &Context) -> Outcome {
    let path = ctx.dir.join("listener.sock");
    let socket = UnixListener::bind(&path)?;
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, notify_profile(&path)).guest(&["sleep"]);
    let mut container = bundle.container()?;
    let running = container.create_command()?.spawn()?;
    let _first = receive(ctx, &socket).map_err(|e| e.during(&container.stderr()))?;
    running.wait()?.ok()?;
    container.start()?.ok()?;
    let running = container.exec_command(&[], &["/bin/guest", "syscall", GETPGID, "4713"]).spawn()?;
    let received = receive(ctx, &socket).map_err(|e| e.during(&running.stderr()))?;
    let notification = sys::receive_notification(received.listener.as_fd())?;
    sys::answer_notification(received.listener.as_fd(), notification.id, 0, libc::EXDEV)?;
    check_eq!(running.wait()?.ok()?.said("syscall")?["errno"], json!(libc::EXDEV), "errno in exec");
    container.end()
}

fn notify_nobody(ctx: &Context) -> Outcome {
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, notify_profile(&ctx.dir.join("nobody.sock")));
    bundle.run()?.fails()?;
    check!(ctx.state_entries().is_empty(), "a container is left");
    Ok(())
}

fn flag_wait_killable(ctx: &Context) -> Outcome {
    ctx.need_kernel(5, 19, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")?;
    if ctx.peer != crate::harness::Peer::Kelson {
        skip!("libseccomp 2.5 does not know the flag");
    }
    let path = ctx.dir.join("listener.sock");
    let socket = UnixListener::bind(&path)?;
    let mut profile = notify_profile(&path);
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let mut bundle = ctx.bundle()?;
    with(&mut bundle, profile).guest(&["syscall", GETPGID, "0", ",", "syscall", PRLIMIT64, "0", "7", "0", "0"]);
    let running = bundle.run_command()?.spawn()?;
    let received = receive(ctx, &socket).map_err(|e| e.during(&running.stderr()))?;
    let one = sys::receive_notification(received.listener.as_fd())?;
    sys::answer_notification(received.listener.as_fd(), one.id, 0, libc::EXDEV)?;
    running.wait()?.ok()?;
    Ok(())
}
