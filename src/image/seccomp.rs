//! The filter of system calls that docker gives a container which asks for no other: what it allows depends on the
//! container's capabilities (moby/profiles, seccomp/default.json). And profiles of one's own in docker's format, in which a
//! rule says for whom it is.

use nix::errno::Errno;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::security::seccomp::Arch;

/// Allowed to every container.
const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_adjtime \
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 \
    close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs \
    fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat \
    getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer \
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 getxattr \
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents \
    io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier \
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr \
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal \
    msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open \
    openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll \
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev \
    pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages \
    removexattr removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile \
    sendfile64 sendmmsg sendmsg sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
    setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 \
    setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat \
    shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat \
    stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask \
    uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write \
    writev process_vm_readv process_vm_writev ptrace";

/// Allowed on these architectures only.
#[cfg(target_arch = "x86_64")]
const OF_ARCHITECTURE: &[&str] = &["arch_prctl", "modify_ldt"];
#[cfg(target_arch = "aarch64")]
const OF_ARCHITECTURE: &[&str] =
    &["arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint", "cacheflush", "set_tls"];
#[cfg(target_arch = "riscv64")]
const OF_ARCHITECTURE: &[&str] = &["riscv_flush_icache"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const OF_ARCHITECTURE: &[&str] = &[];

/// The architecture and those whose programs it runs too.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
#[cfg(target_arch = "riscv64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_RISCV64"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const ARCHITECTURES: &[&str] = &[];

/// What one capability allows, each on its own.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "init_module", "finit_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// Families of socket(2) beyond the first twelve. Not among them are AF_ALG (38), which has been a way into the kernel, and
/// AF_VSOCK (40), which no network namespace keeps from the host.
const SOCKET_FAMILIES: [u32; 25] =
    [13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45];
/// personality(2): Linux, with and without randomised addresses, 32-bit reporting, and the question.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// The flags of clone(2) that make namespaces.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
const ENOSYS: i32 = 38;

/// `linux.seccomp` for a container with these capabilities.
pub fn profile(has: impl Fn(&str) -> bool) -> Value {
    let allow = |names: &[&str]| json!({"names": names, "action": "SCMP_ACT_ALLOW"});
    let allow_if = |name: &str, op: &str, index: u32, value: u32| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": index, "value": value, "op": op}]});
    let mut names: Vec<&str> = ALLOWED.split(' ').chain(OF_ARCHITECTURE.iter().copied()).collect();
    for (capability, more) in BY_CAPABILITY {
        if has(capability) {
            names.extend(more.iter().filter(|name| !names.contains(name)).copied().collect::<Vec<_>>());
        }
    }
    let mut rules = vec![allow(&names), allow_if("socket", "SCMP_CMP_LT", 0, 12)];
    rules.extend(SOCKET_FAMILIES.map(|family| allow_if("socket", "SCMP_CMP_EQ", 0, family)));
    rules.extend(PERSONALITIES.map(|persona| allow_if("personality", "SCMP_CMP_EQ", 0, persona)));
    if !has("CAP_SYS_ADMIN") {
        let flags = if cfg!(target_arch = "s390x") { 1 } else { 0 };
        rules.push(allow_if("clone", "SCMP_CMP_MASKED_EQ", flags, NEW_NAMESPACES));
        // Its flags are in memory, where no filter sees them: a C library that is told so falls back to clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ARCHITECTURES,
        "syscalls": rules,
    })
}

/// A rule, in the words of OCI, docker and podman together.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: Value,
    errno_ret: Value,
    /// podman's: by name, and it counts.
    errno: Option<String>,
    args: Value,
    #[serde(rename = "comment")]
    _comment: Option<IgnoredAny>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

/// For whom a rule is, or is not.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// An entry of `archMap`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Family {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

/// Whom a profile is resolved for.
pub struct Host<F> {
    /// Whether the container may have a capability.
    pub has: F,
    pub arch: Arch,
    /// The running kernel's version: (6, 18).
    pub kernel: (u32, u32),
}

/// `linux.seccomp` from a profile in docker's format (moby/profiles, seccomp_linux.go) or podman's; one in OCI's has no
/// conditions, and stays what it is.
///
/// # Errors
/// The profile contradicts itself, or a rule has a key that nobody knows: it may be a condition, without which the rule would hold
/// for all.
pub fn resolve<F: Fn(&str) -> bool>(profile: Value, host: &Host<F>) -> Result<Value> {
    let Value::Object(mut profile) = profile else { return Err(Error::usage("a profile is a JSON object")) };
    let families: Vec<Family> = read(profile.remove("archMap").unwrap_or_default(), "archMap")?;
    if !families.is_empty() {
        if profile.get("architectures").and_then(Value::as_array).is_some_and(|all| !all.is_empty()) {
            return Err(Error::usage("archMap and architectures: one of them says what the filter is for"));
        }
        let own = families.into_iter().find(|family| family.architecture == host.arch.name());
        let names = |family: Family| {
            let more = family.sub_architectures.unwrap_or_default();
            std::iter::once(family.architecture).chain(more).collect::<Vec<_>>()
        };
        profile.insert("architectures".into(), json!(own.map_or(vec![], names)));
    }
    if let Some(name) = profile.remove("defaultErrno").filter(|name| !name.is_null()) {
        profile.insert("defaultErrnoRet".into(), json!(errno(name.as_str().unwrap_or_default(), "defaultErrno")?));
    }
    if let Some(rules) = profile.remove("syscalls") {
        let rules: Vec<Value> = read(rules, "syscalls")?;
        let mut kept = vec![];
        for (index, rule) in rules.into_iter().enumerate() {
            kept.extend(resolve_rule(rule, &format!("syscalls[{index}]"), host)?);
        }
        profile.insert("syscalls".into(), kept.into());
    }
    Ok(profile.into())
}

/// The rule in OCI's words; `None` if it is for others.
fn resolve_rule<F: Fn(&str) -> bool>(rule: Value, place: &str, host: &Host<F>) -> Result<Option<Value>> {
    let rule: Rule = read(rule, place)?;
    let (includes, excludes) = (rule.includes.unwrap_or_default(), rule.excludes.unwrap_or_default());
    // What is wrong is wrong on every machine.
    let since = includes.reached(&format!("{place}.includes"), host.kernel)?;
    let until = excludes.reached(&format!("{place}.excludes"), host.kernel)?;
    let names = match (rule.name.filter(|name| !name.is_empty()), rule.names.filter(|names| !names.is_empty())) {
        (Some(_), Some(_)) => return Err(Error::usage(format!("{place}: it has both name and names"))),
        (Some(name), None) => vec![name],
        (None, Some(names)) => names,
        (None, None) => return Err(Error::usage(format!("{place}.names: needs at least one name"))),
    };
    let errno_ret = match rule.errno.filter(|name| !name.is_empty()) {
        Some(name) => json!(errno(&name, &format!("{place}.errno"))?),
        None => rule.errno_ret,
    };
    let arch = moby_name(host.arch);
    let is_arch = |condition: &Condition| condition.arches.iter().flatten().any(|name| name == arch);
    let is_for_others = includes.caps.iter().flatten().any(|name| !(host.has)(name))
        || (includes.arches.as_ref().is_some_and(|names| !names.is_empty()) && !is_arch(&includes))
        || since == Some(false)
        || excludes.caps.iter().flatten().any(|name| (host.has)(name))
        || is_arch(&excludes)
        || until == Some(true);
    if is_for_others {
        return Ok(None);
    }
    let mut kept = Map::new();
    for (key, value) in [("names", json!(names)), ("action", rule.action), ("errnoRet", errno_ret), ("args", rule.args)]
    {
        if !value.is_null() {
            kept.insert(key.into(), value);
        }
    }
    Ok(Some(kept.into()))
}

impl Condition {
    /// Whether the kernel is `minKernel` or newer, if that is asked.
    fn reached(&self, place: &str, kernel: (u32, u32)) -> Result<Option<bool>> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong = || {
            Error::usage(format!("{place}.minKernel: {text:?} is no version of a kernel"))
                .hint("two numbers, such as 4.8")
        };
        let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        Ok(Some(kernel >= (number(major)?, number(minor)?)))
    }
}

/// `value` as what should be at `place`; null is nothing.
fn read<T: DeserializeOwned + Default>(value: Value, place: &str) -> Result<T> {
    let read = serde_json::from_value::<Option<T>>(value);
    read.map(Option::unwrap_or_default).map_err(|error| Error::usage(format!("{place}: {error}")))
}

fn errno(name: &str, place: &str) -> Result<i32> {
    // Linux's highest is 133, EHWPOISON (asm-generic/errno.h).
    let found = (1..=133).find(|number| format!("{:?}", Errno::from_raw(*number)) == name);
    found.ok_or_else(|| Error::usage(format!("{place}: there is no error {name:?}")).hint("a name such as EPERM"))
}

/// What docker's profiles call an architecture: as Go does, or libseccomp.
fn moby_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::X86 => "x86",
        Arch::X32 => "x32",
        Arch::Aarch64 => "arm64",
        Arch::Arm => "arm",
        Arch::LoongArch64 => "loong64",
        Arch::Ppc64 => "ppc64",
        Arch::Ppc64le => "ppc64le",
        Arch::Riscv64 => "riscv64",
        Arch::S390x => "s390x",
        // Kelson is not built for the others.
        other => other.name(),
    }
}

/// Version of the running kernel, of what /proc/sys/kernel/osrelease says: `6.18.44-1` is (6, 18).
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(caps: &[&str], arch: Arch) -> Host<impl Fn(&str) -> bool> {
        Host { has: move |name: &str| caps.contains(&name), arch, kernel: (5, 10) }
    }

    fn names(profile: &Value) -> Vec<String> {
        let rules = profile["syscalls"].as_array().into_iter().flatten();
        rules.map(|rule| rule["names"][0].as_str().unwrap_or_default().to_owned()).collect()
    }

    fn refused(profile: Value) -> String {
        resolve(profile, &host(&[], Arch::X86_64))
            .map_or_else(|error| error.to_string(), |kept| panic!("taken: {kept}"))
    }

    #[test]
    fn a_rule_is_for_whom_it_says() {
        let rule = |name: &str, includes: Value, excludes: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "includes": includes, "excludes": excludes});
        let profile = || {
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                rule("all", Value::Null, json!({})),
                rule("admin", json!({"caps": ["CAP_SYS_ADMIN"]}), Value::Null),
                rule("both", json!({"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}), Value::Null),
                rule("no-admin", Value::Null, json!({"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]})),
                rule("amd64", json!({"arches": ["amd64", "x32"]}), Value::Null),
                rule("not-amd64", Value::Null, json!({"arches": ["amd64"]})),
                rule("not-s390x-admin", json!({"caps": ["CAP_SYS_ADMIN"], "arches": []}), json!({"arches": ["s390x"]})),
                rule("5.10", json!({"minKernel": "5.10"}), Value::Null),
                rule("5.9", json!({"minKernel": "5.9"}), Value::Null),
                rule("5.11", json!({"minKernel": "5.11"}), Value::Null),
                rule("before-5.10", Value::Null, json!({"minKernel": "5.10"})),
                rule("before-6.0", Value::Null, json!({"minKernel": "6.0"})),
            ]})
        };
        for (caps, arch, kept) in [
            (&[][..], Arch::X86_64, &["all", "no-admin", "amd64", "5.10", "5.9", "before-6.0"][..]),
            (
                &["CAP_SYS_ADMIN"],
                Arch::Aarch64,
                &["all", "admin", "not-amd64", "not-s390x-admin", "5.10", "5.9", "before-6.0"],
            ),
            (
                &["CAP_SYS_ADMIN", "CAP_BPF"],
                Arch::S390x,
                &["all", "admin", "both", "not-amd64", "5.10", "5.9", "before-6.0"],
            ),
        ] {
            let resolved = resolve(profile(), &host(caps, arch)).unwrap();
            assert_eq!(names(&resolved), kept, "{caps:?} {arch:?}");
            assert!(!resolved.to_string().contains("cludes"), "{resolved}");
        }
    }

    #[test]
    fn architectures_are_the_native_one_and_what_it_runs_too() {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null},
        ]});
        for (arch, expected) in [
            (Arch::X86_64, json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])),
            (Arch::Riscv64, json!(["SCMP_ARCH_RISCV64"])),
            // The filter's own, without being named.
            (Arch::Aarch64, json!([])),
        ] {
            let resolved = resolve(profile.clone(), &host(&[], arch)).unwrap();
            assert_eq!(resolved, json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": expected}), "{arch:?}");
        }
    }

    #[test]
    fn what_oci_has_too_stays() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/listener", "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
                 "args": [{"index": 0, "value": 4_294_967_296_u64, "valueTwo": 1, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        assert_eq!(resolve(profile.clone(), &host(&[], Arch::X86_64)).unwrap(), profile);
        let own = super::profile(|name| name == "CAP_CHOWN");
        assert_eq!(resolve(own.clone(), &host(&[], Arch::X86_64)).unwrap(), own, "the default profile");
    }

    #[test]
    fn other_words_for_the_same() {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "ENOSYS", "syscalls": [
            {"name": "bdflush", "action": "SCMP_ACT_ERRNO", "args": [], "comment": "why", "includes": {}, "errnoRet": 1, "errno": "EAFNOSUPPORT"},
            {"name": "", "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "errno": ""},
        ]});
        let expected = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
            {"names": ["bdflush"], "action": "SCMP_ACT_ERRNO", "args": [], "errnoRet": 97},
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        ]});
        assert_eq!(resolve(profile, &host(&[], Arch::X86_64)).unwrap(), expected);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let rule = |more: Value| {
            let mut rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
            for (key, value) in more.as_object().unwrap() {
                rule[key] = value.clone();
            }
            // It would not be for this container anyhow.
            json!({"syscalls": [{"names": ["write"]}, rule]})
        };
        for (profile, word) in [
            (json!([]), "JSON object"),
            (json!({"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}), "archMap"),
            (json!({"archMap": [{"architecture": "SCMP_ARCH_X86_64", "more": 1}]}), "more"),
            (json!({"defaultErrno": "ENOTHING"}), "ENOTHING"),
            (rule(json!({"include": {}})), "syscalls[1]"),
            (rule(json!({"include": {}})), "include"),
            (rule(json!({"includes": {"cap": []}})), "cap"),
            (rule(json!({"excludes": {"caps": "CAP_CHOWN"}})), "syscalls[1]"),
            (rule(json!({"name": "write"})), "both name and names"),
            (rule(json!({"names": []})), "names"),
            (rule(json!({"errno": "ENOTHING"})), "ENOTHING"),
            (rule(json!({"includes": {"minKernel": "5"}})), "includes.minKernel"),
            (rule(json!({"includes": {"caps": ["CAP_CHOWN"], "minKernel": "5.x"}})), "5.x"),
            (rule(json!({"excludes": {"minKernel": "5.4.1"}})), "5.4.1"),
        ] {
            let said = refused(profile);
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }

    #[test]
    fn versions_of_kernels() {
        assert_eq!(version("6.18.44-1-cloud\n"), Some((6, 18)));
        assert_eq!(version("5.10-rc1"), Some((5, 10)));
        assert_eq!(version("5"), None);
        assert_eq!(version(""), None);
    }
}
