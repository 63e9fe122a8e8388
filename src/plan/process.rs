//! `process` of config.json, or of the file that `exec --process` names, to `Process`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;

use nix::sys::resource::Resource;

use super::json::{self, List, Loose, Text, shortened};
use super::model::{Capabilities, ExecCpuAffinity, Host, IoPriority, Process, Rlimit, Scheduler, User};
use super::{absolute, c_string, list_of_numbers, required, some_text, spec};
use crate::error::{Context, Error, Result};

/// Capability names in the kernel's order: the position is the number (linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The kernel allows at most so many CPUs (NR_CPUS).
const MAX_CPUS: u32 = 8192;

const RLIMITS: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::RLIMIT_AS),
    ("RLIMIT_CORE", Resource::RLIMIT_CORE),
    ("RLIMIT_CPU", Resource::RLIMIT_CPU),
    ("RLIMIT_DATA", Resource::RLIMIT_DATA),
    ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", Resource::RLIMIT_NICE),
    ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    ("RLIMIT_RSS", Resource::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", Resource::RLIMIT_STACK),
];

/// Policies of sched(7) with their numbers in linux/sched.h.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", SCHED_FIFO),
    ("SCHED_RR", SCHED_RR),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", SCHED_DEADLINE),
];
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_DEADLINE: u32 = 6;

/// What the spec calls the policy of this number.
pub fn scheduler_policy_name(policy: u32) -> &'static str {
    POLICIES.iter().find(|(_, number)| *number == policy).map_or("", |(name, _)| name)
}

/// A policy before which others have to wait: it takes CAP_SYS_NICE.
pub fn is_real_time(policy: u32) -> bool {
    [SCHED_FIFO, SCHED_RR, SCHED_DEADLINE].contains(&policy)
}

/// Flags of sched_setattr(2), without the `SCHED_FLAG_` that the spec puts before them.
const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("RESET_ON_FORK", 0x01),
    ("RECLAIM", 0x02),
    ("DL_OVERRUN", 0x04),
    ("KEEP_POLICY", 0x08),
    ("KEEP_PARAMS", 0x10),
    ("UTIL_CLAMP_MIN", 0x20),
    ("UTIL_CLAMP_MAX", 0x40),
];

/// The number of the capability that is called `name`, with or without `CAP_`, in any case.
pub fn parse_capability(name: &str) -> Option<u8> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let position = CAPABILITIES.iter().position(|known| known.strip_prefix("CAP_") == Some(bare))?;
    u8::try_from(position).ok()
}

/// A user or group id in decimal: digits only, at most 4294967294 (the kernel takes 4294967295 for "no change").
pub fn parse_id(text: &str) -> Result<u32> {
    let wrong = |why: &str| Error::usage(format!("id {text:?} {why}"));
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong("is not a decimal number"));
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(wrong("is too large: ids end at 4294967294")),
    }
}

/// An entry of the environment, as it is. A missing `=` is left to the program, as in environ(7).
pub fn parse_env(text: &str) -> Result<CString> {
    if text.is_empty() || text.starts_with('=') {
        return Err(Error::usage(format!("environment entry {text:?} has no name")));
    }
    CString::new(text).map_err(|_| Error::usage(format!("environment entry {text:?} contains a NUL character")))
}

/// Reads `text`, a `process` object of the spec: what `exec --process` is given. What it leaves out of the following comes
/// from the container's own process, as in runc: labels, without which it would run unconfined in a confined container,
/// capabilities, rlimits, oomScoreAdj, scheduler, ioPriority, execCPUAffinity. What is there and empty is empty; only an
/// empty label is none, as Go's callers write it, and so are no rlimits.
///
/// # Errors
/// The text is not such an object, or asks for something wrong; the property is named from `process` on.
pub fn process(text: &str, host: &Host, configured: Option<&Process>) -> Result<Process> {
    let spec: spec::Process = json::read(text, "process")?;
    let (has_capabilities, has_affinity) = (spec.capabilities.is_some(), spec.exec_cpu_affinity.is_some());
    let mut process = resolve(spec, host, Warn::Yes, Args::Own)?;
    let Some(configured) = configured else { return Ok(process) };
    // What the container may never gain, a process file does not give it.
    process.no_new_privileges |= configured.no_new_privileges;
    if !has_capabilities {
        process.capabilities = configured.capabilities;
    }
    if !has_affinity {
        process.exec_cpu_affinity.clone_from(&configured.exec_cpu_affinity);
    }
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&configured.rlimits);
    }
    process.apparmor_profile = process.apparmor_profile.or_else(|| configured.apparmor_profile.clone());
    process.selinux_label = process.selinux_label.or_else(|| configured.selinux_label.clone());
    process.oom_score_adj = process.oom_score_adj.or(configured.oom_score_adj);
    process.scheduler = process.scheduler.or_else(|| configured.scheduler.clone());
    process.io_priority = process.io_priority.or(configured.io_priority);
    Ok(process)
}

/// Whether what is ignored is warned of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Warn {
    Yes,
    /// It was, when the container was created.
    Known,
}

/// Where the words of the program are from.
#[derive(Clone, Copy)]
pub enum Args<'a> {
    /// `process.args`.
    Own,
    /// The command line, in their place: they need not be there.
    Instead(&'a [CString]),
}

/// Applies the defaults and checks the values of `process`.
pub fn resolve(spec: spec::Process<'_>, host: &Host, warn: Warn, words: Args<'_>) -> Result<Process> {
    let terminal = spec.terminal.unwrap_or(false);
    Ok(Process {
        terminal,
        // Without a terminal the size MUST be ignored (config.md#process).
        console_size: if terminal { spec.console_size.map(console_size).transpose()? } else { None },
        user: spec.user.map(user).transpose()?.unwrap_or_default(),
        args: match words {
            Args::Own => args(spec.args)?,
            Args::Instead(words) => words.to_vec(),
        },
        env: environment(spec.env)?,
        cwd: cwd(spec.cwd)?,
        capabilities: capabilities(&spec.capabilities.unwrap_or_default(), host.last_capability, warn),
        rlimits: rlimits(spec.rlimits)?,
        no_new_privileges: spec.no_new_privileges.unwrap_or(false),
        oom_score_adj: oom_score_adj(spec.oom_score_adj)?,
        scheduler: spec.scheduler.map(|s| scheduler(&s)).transpose()?,
        io_priority: spec.io_priority.map(|p| io_priority(&p)).transpose()?,
        exec_cpu_affinity: exec_cpu_affinity(spec.exec_cpu_affinity.unwrap_or_default())?,
        apparmor_profile: apparmor_profile(spec.apparmor_profile, host)?,
        selinux_label: super::selinux_label(spec.selinux_label, "process.selinuxLabel", host)?,
    })
}

fn console_size(size: Loose<spec::ConsoleSize<'_>>) -> Result<(u16, u16)> {
    let size = size.0.ok_or_else(|| Error::config("process.consoleSize", "is no object with height and width"))?;
    let side = |value: Option<Loose<u64>>, name: &str| {
        let property = || format!("process.consoleSize.{name}");
        let number = required(&value, property)?.0.ok_or_else(|| Error::config(property(), "is no positive number"))?;
        u16::try_from(number).map_err(|_| Error::config(property(), "a terminal has at most 65535"))
    };
    Ok((side(size.height, "height")?, side(size.width, "width")?))
}

fn user(user: spec::User<'_>) -> Result<User> {
    let id = |id: u32, property: &dyn Fn() -> String| match id {
        u32::MAX => Err(Error::config(property(), "4294967295 is no id: the kernel takes it for \"no change\"")),
        id => Ok(id),
    };
    let uid = || "process.user.uid".to_string();
    let gid = || "process.user.gid".to_string();
    let mut additional_gids = vec![];
    for (i, group) in user.additional_gids.as_deref().unwrap_or_default().iter().enumerate() {
        additional_gids.push(id(*group, &|| format!("process.user.additionalGids[{i}]"))?);
    }
    if let Some(umask) = user.umask
        && umask > 0o777
    {
        return Err(Error::config("process.user.umask", format!("{umask} ({umask:#o}) is more than 0o777")));
    }
    Ok(User {
        uid: id(*required(&user.uid, uid)?, &uid)?,
        gid: id(*required(&user.gid, gid)?, &gid)?,
        umask: user.umask,
        additional_gids,
    })
}

fn args(args: Option<List<Text<'_>>>) -> Result<Vec<CString>> {
    let args = args.map_or(vec![], |list| list.0);
    match args.first() {
        None => return Err(Error::config("process.args", "args must not be empty")),
        Some(program) if program.is_empty() => {
            return Err(Error::config("process.args[0]", "the name of the program is empty"));
        }
        Some(_) => {}
    }
    args.iter().enumerate().map(|(i, arg)| c_string(arg, || format!("process.args[{i}]"))).collect()
}

/// The last of several entries with one name holds, as in runc and crun; it keeps the place of the first.
fn environment(env: Option<List<Text<'_>>>) -> Result<Vec<CString>> {
    let env = env.map_or(vec![], |list| list.0);
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut out: Vec<CString> = Vec::with_capacity(env.len());
    for (i, entry) in env.iter().enumerate() {
        let property = || format!("process.env[{i}]");
        let name = entry.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(Error::config(property(), format!("environment entry {:?} has no name", &**entry)));
        }
        let entry = c_string(entry, property)?;
        match places.get(name) {
            Some(place) => out[*place] = entry,
            None => {
                places.insert(name, out.len());
                out.push(entry);
            }
        }
    }
    Ok(out)
}

fn cwd(cwd: Option<Text<'_>>) -> Result<PathBuf> {
    let property = || "process.cwd".to_string();
    absolute(required(&cwd, property)?, property)
}

/// Unknown and ungrantable capabilities are dropped with a warning: the spec forbids to fail (config.md#linux-process).
fn capabilities(spec: &spec::Capabilities<'_>, last: u8, warn: Warn) -> Capabilities {
    let set = |names: &Option<List<Text<'_>>>, set: &str| {
        let mut bits = 0;
        let mut dropped = vec![];
        for name in names.as_deref().unwrap_or_default() {
            match CAPABILITIES.iter().position(|known| **known == **name) {
                Some(number) if number <= usize::from(last) => bits |= 1 << number,
                _ => dropped.push(shortened(name)),
            }
        }
        if !dropped.is_empty() && warn == Warn::Yes {
            log::warn!(
                "process.capabilities.{set}: unknown to the runtime or the kernel, ignored: {}",
                dropped.join(", ")
            );
        }
        bits
    };
    let allow = |bits: u64, allowed: u64, set: &str, needs: &str| {
        let dropped: Vec<&str> =
            (0..CAPABILITIES.len()).filter(|n| (bits & !allowed) & (1 << n) != 0).map(|n| CAPABILITIES[n]).collect();
        if !dropped.is_empty() && warn == Warn::Yes {
            // Engines copy all they have into the ambient set and none into the inheritable one: no news to anybody.
            let level = if set == "ambient" { log::Level::Info } else { log::Level::Warn };
            log::log!(
                level,
                "process.capabilities.{set}: not in {needs}, cannot be granted, ignored: {}",
                dropped.join(", ")
            );
        }
        bits & allowed
    };
    let bounding = set(&spec.bounding, "bounding");
    let permitted = set(&spec.permitted, "permitted");
    // capset(2): effective must be permitted, new inheritable ones must be in the bounding set.
    let effective = allow(set(&spec.effective, "effective"), permitted, "effective", "permitted");
    let inheritable = allow(set(&spec.inheritable, "inheritable"), bounding, "inheritable", "bounding");
    // capabilities(7): nothing can be ambient that is not both permitted and inheritable.
    let ambient = allow(set(&spec.ambient, "ambient"), permitted & inheritable, "ambient", "permitted and inheritable");
    Capabilities { bounding, effective, permitted, inheritable, ambient }
}

fn rlimits(spec: Option<List<spec::Rlimit<'_>>>) -> Result<Vec<Rlimit>> {
    let mut out: Vec<Rlimit> = vec![];
    for (index, spec) in spec.as_deref().unwrap_or_default().iter().enumerate() {
        let property = |name: &str| format!("process.rlimits[{index}].{name}");
        let kind = required(&spec.kind, || property("type"))?;
        let Some((name, resource)) = RLIMITS.iter().find(|(name, _)| **name == **kind) else {
            return Err(unknown(property("type"), "rlimit", kind, RLIMITS.iter().map(|(name, _)| *name)));
        };
        // config.md#posix-process: an error MUST be generated for duplicates.
        if let Some(first) = out.iter().find(|other| other.resource == *resource as u32) {
            return Err(Error::config(
                property("type"),
                format!("{name} is already set by process.rlimits[{}]", first.index),
            ));
        }
        let soft = *required(&spec.soft, || property("soft"))?;
        let hard = *required(&spec.hard, || property("hard"))?;
        if soft > hard {
            return Err(Error::config(property("soft"), format!("{soft} is more than the hard limit {hard}")));
        }
        out.push(Rlimit { index, resource: *resource as u32, name, soft, hard });
    }
    Ok(out)
}

fn oom_score_adj(value: Option<i32>) -> Result<Option<i32>> {
    match value {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::config("process.oomScoreAdj", format!("{score} is not between -1000 and 1000")))
        }
        value => Ok(value),
    }
}

fn scheduler(spec: &spec::Scheduler<'_>) -> Result<Scheduler> {
    let property = |name: &str| format!("process.scheduler.{name}");
    let wrong = |name: &str, why: String| Err(Error::config(property(name), why));
    let name = required(&spec.policy, || property("policy"))?;
    let Some((_, policy)) = POLICIES.iter().find(|(known, _)| **known == **name) else {
        return Err(unknown(property("policy"), "policy", name, POLICIES.iter().map(|(name, _)| *name)));
    };
    let nice = spec.nice.unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return wrong("nice", format!("{nice} is not between -20 and 19"));
    }
    let priority = spec.priority.unwrap_or(0);
    let real_time = [SCHED_FIFO, SCHED_RR].contains(policy);
    if real_time && !(1..=99).contains(&priority) {
        return wrong("priority", format!("{} needs a priority from 1 to 99, not {priority}", &**name));
    }
    if !real_time && priority != 0 {
        return wrong("priority", "only SCHED_FIFO and SCHED_RR have a priority".to_string());
    }
    let deadline = [("runtime", spec.runtime), ("deadline", spec.deadline), ("period", spec.period)];
    for (name, value) in deadline {
        if *policy != SCHED_DEADLINE && value.unwrap_or(0) != 0 {
            return wrong(name, "only SCHED_DEADLINE has it".to_string());
        }
    }
    let mut flags = 0;
    for (i, flag) in spec.flags.as_deref().unwrap_or_default().iter().enumerate() {
        // The spec says SCHED_FLAG_RESET_ON_FORK; some callers copied SCHED_RESET_ON_FORK from sched(7).
        let bare = flag.strip_prefix("SCHED_FLAG_").or_else(|| flag.strip_prefix("SCHED_"));
        match SCHEDULER_FLAGS.iter().find(|(name, _)| Some(*name) == bare) {
            Some((_, bit)) => flags |= bit,
            None => return wrong(&format!("flags[{i}]"), format!("unknown flag {:?}", &**flag)),
        }
    }
    Ok(Scheduler {
        policy: *policy,
        nice,
        priority: u32::try_from(priority).unwrap_or(0),
        flags,
        runtime: spec.runtime.unwrap_or(0),
        deadline: spec.deadline.unwrap_or(0),
        period: spec.period.unwrap_or(0),
    })
}

fn io_priority(spec: &spec::IoPriority<'_>) -> Result<IoPriority> {
    let property = |name: &str| format!("process.ioPriority.{name}");
    let name = required(&spec.class, || property("class"))?;
    let class = match &**name {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => {
            let known = ["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"];
            return Err(unknown(property("class"), "class", other, known.into_iter()));
        }
    };
    let level = *required(&spec.priority, || property("priority"))?;
    match u16::try_from(level) {
        Ok(level @ 0..=7) => Ok(IoPriority { class, level }),
        _ => Err(Error::config(property("priority"), format!("{level} is not between 0 and 7"))),
    }
}

fn exec_cpu_affinity(spec: spec::ExecCpuAffinity<'_>) -> Result<ExecCpuAffinity> {
    let set = |text: Option<Text<'_>>, name: &str| -> Result<Option<Vec<u32>>> {
        some_text(text)
            .map(|list| list_of_numbers(&list, MAX_CPUS).property(|| format!("process.execCPUAffinity.{name}")))
            .transpose()
    };
    Ok(ExecCpuAffinity { initial: set(spec.initial, "initial")?, r#final: set(spec.finally, "final")? })
}

/// The AppArmor profile of `exec --apparmor`, as `process.apparmorProfile`.
pub fn apparmor(profile: &str, host: &Host) -> Result<Option<String>> {
    apparmor_profile(Some(profile.into()), host)
}

/// The SELinux label of `exec --process-label`, as `process.selinuxLabel`.
pub fn selinux(label: &str, host: &Host) -> Result<Option<String>> {
    super::selinux_label(Some(label.into()), "process.selinuxLabel", host)
}

fn apparmor_profile(profile: Option<Text<'_>>, host: &Host) -> Result<Option<String>> {
    match some_text(profile) {
        // Engines that know of no AppArmor on the host still ask for "unconfined".
        Some(profile) if !(host.apparmor)() && &*profile == "unconfined" => Ok(None),
        Some(profile) if !(host.apparmor)() => {
            Err(Error::config("process.apparmorProfile", format!("profile {:?}: no AppArmor on this host", &*profile))
                .hint("leave the property out"))
        }
        profile => Ok(profile.map(|p| p.to_string())),
    }
}

/// The error for a name that is none of `known`.
pub fn unknown<'a>(property: String, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::config(property, format!("unknown {what} {:?}", shortened(name)));
    match json::suggestion(name, known) {
        Some(meant) => error.hint(format!("did you mean {meant:?}?")),
        None => error,
    }
}
