//! `linux.seccomp` of config.json: names resolved, then compiled (config-linux.md#seccomp).

use std::path::Path;

use super::json::{List, Text};
use super::model::{Seccomp, SeccompListener};
use super::process::unknown;
use super::{required, some_text, spec};
use crate::error::{Context, Error, Result};
use crate::security::seccomp::{Action, Arch, Arg, Operator, Profile, Rule, compile};

/// The kernel caps what a filter returns as errno (MAX_ERRNO of linux/err.h), and a tracer gets 16 bits.
const MAX_ERRNO: u32 = 4095;
const MAX_TRACE: u32 = 0xffff;

const FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    (WAIT_KILLABLE, libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
];
const WAIT_KILLABLE: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

pub fn resolve(spec: spec::Seccomp<'_>, bundle: &Path) -> Result<Seccomp> {
    let default_action = action(&spec.default_action, || "linux.seccomp.defaultAction".into())?;
    if default_action == Action::Notify {
        // The listener's own calls would wait for the listener; runc refuses it too.
        return Err(Error::config("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be the default action"));
    }
    let default_errno = errno(spec.default_errno_ret, default_action, || "linux.seccomp.defaultErrnoRet".into())?;
    let architectures = architectures(&spec.architectures)?;
    let mut notifying = None;
    let mut rules = vec![];
    for (i, syscall) in spec.syscalls.map_or(vec![], |list| list.0).into_iter().enumerate() {
        let rule = rule(syscall, i)?;
        if rule.action == Action::Notify {
            notifying.get_or_insert(i);
        }
        rules.push(rule);
    }
    let listener = listener(spec.listener_path, spec.listener_metadata, notifying, bundle)?;
    let flags = flags(&spec.flags, listener.is_some())?;
    let profile = Profile { default_action, default_errno, architectures, rules };
    let program = compile(&profile, native()).property(|| "linux.seccomp")?;
    // As runc and crun, where the property is absent: before 5.16 a filter else costs its program the mitigation of
    // speculative store bypass (seccomp(2)). An empty list is no flags.
    let default_flags = if spec.flags.is_none() { libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW } else { 0 };
    let (architectures, rules) = (profile.architectures, profile.rules.len());
    Ok(Seccomp { program, flags, default_flags, listener, default_action, architectures, rules })
}

fn action(name: &Option<Text<'_>>, property: impl Fn() -> String) -> Result<Action> {
    let name = required(name, &property)?;
    Action::from_name(name).ok_or_else(|| {
        let known = ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY"];
        let known = known.map(|action| format!("SCMP_ACT_{action}"));
        unknown(property(), "action", name, known.iter().map(String::as_str))
    })
}

/// When the action has no errno, the runtime MUST fail (config-linux.md#seccomp).
fn errno(errno: Option<u32>, action: Action, property: impl Fn() -> String) -> Result<Option<u32>> {
    let max = if action == Action::Trace { MAX_TRACE } else { MAX_ERRNO };
    match errno {
        None => Ok(None),
        Some(_) if !action.takes_errno() => {
            Err(Error::config(property(), "the action takes no errno")
                .hint("only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do"))
        }
        Some(errno) if errno > max => Err(Error::config(property(), format!("{errno} is more than {max}"))),
        errno => Ok(errno),
    }
}

fn architectures(names: &Option<List<Text<'_>>>) -> Result<Vec<Arch>> {
    let mut out = vec![];
    for (i, name) in names.as_deref().unwrap_or_default().iter().enumerate() {
        let arch = Arch::from_name(name).ok_or_else(|| {
            Error::config(format!("linux.seccomp.architectures[{i}]"), format!("unknown architecture {:?}", &**name))
        })?;
        out.push(arch);
    }
    Ok(out)
}

fn rule(syscall: spec::Syscall<'_>, index: usize) -> Result<Rule<'_>> {
    let entry = || format!("linux.seccomp.syscalls[{index}]");
    let property = |name: &str| format!("{}.{name}", entry());
    let action = action(&syscall.action, || property("action"))?;
    let errno = errno(syscall.errno_ret, action, || property("errnoRet"))?;
    // config-linux.md#seccomp: names MUST contain at least one entry.
    let names = syscall.names.map_or(vec![], |list| list.0);
    if names.is_empty() {
        return Err(Error::config(property("names"), "needs at least one name"));
    }
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(Error::config(property(&format!("names[{i}]")), "the name is empty"));
        }
        if action == Action::Notify && **name == *"write" {
            // The descriptor is handed over by write and sendmsg calls of the runtime itself; runc refuses it too.
            return Err(Error::config(property(&format!("names[{i}]")), "write cannot be notified"));
        }
    }
    let mut args = vec![];
    for (i, arg) in syscall.args.as_deref().unwrap_or_default().iter().enumerate() {
        let property = |name: &str| property(&format!("args[{i}].{name}"));
        let index = *required(&arg.index, || property("index"))?;
        if index > 5 {
            return Err(Error::config(property("index"), format!("{index}: a system call has arguments 0 to 5")));
        }
        let name = required(&arg.op, || property("op"))?;
        let op = Operator::from_name(name).ok_or_else(|| {
            let known = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map(|op| format!("SCMP_CMP_{op}"));
            unknown(property("op"), "operator", name, known.iter().map(String::as_str))
        })?;
        let value = *required(&arg.value, || property("value"))?;
        args.push(Arg { index, value, value_two: arg.value_two.unwrap_or(0), op });
    }
    Ok(Rule { names: names.into_iter().map(Text::into_cow).collect(), action, errno, args })
}

fn listener(
    path: Option<Text<'_>>,
    metadata: Option<Text<'_>>,
    notifying: Option<usize>,
    bundle: &Path,
) -> Result<Option<SeccompListener>> {
    let metadata = some_text(metadata).map(|text| text.to_string());
    match (some_text(path), notifying) {
        (None, _) if metadata.is_some() => {
            Err(Error::config("linux.seccomp.listenerMetadata", "must not be set without listenerPath"))
        }
        (None, Some(rule)) => Err(Error::config(
            format!("linux.seccomp.syscalls[{rule}].action"),
            "SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath",
        )),
        (Some(path), Some(_)) => Ok(Some(SeccompListener { path: bundle.join(&*path), metadata })),
        // Nothing is ever sent to it.
        (_, None) => Ok(None),
    }
}

/// The names of SECCOMP_FILTER_FLAG_* bits, without what they have in common.
pub fn flag_names(flags: u64) -> Vec<&'static str> {
    let names = FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name);
    names.map(|name| name.trim_start_matches("SECCOMP_FILTER_FLAG_")).collect()
}

fn flags(names: &Option<List<Text<'_>>>, has_listener: bool) -> Result<u64> {
    let mut flags = 0;
    for (i, name) in names.as_deref().unwrap_or_default().iter().enumerate() {
        let property = || format!("linux.seccomp.flags[{i}]");
        let Some((known, bit)) = FLAGS.iter().find(|(known, _)| **known == **name) else {
            return Err(unknown(property(), "flag", name, FLAGS.iter().map(|(name, _)| *name)));
        };
        if *known == WAIT_KILLABLE && !has_listener {
            // EINVAL of the kernel (kernel/seccomp.c, seccomp_set_mode_filter).
            return Err(Error::config(property(), "needs a rule with SCMP_ACT_NOTIFY"));
        }
        flags |= bit;
    }
    if has_listener && flags & libc::SECCOMP_FILTER_FLAG_TSYNC != 0 {
        // Only so can both be had: the call's result is the listener (seccomp(2), since Linux 5.7).
        flags |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
    }
    Ok(flags)
}

/// The architecture that this program, and so the kernel, runs on.
pub fn native() -> Arch {
    if cfg!(target_arch = "x86_64") {
        Arch::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else if cfg!(target_arch = "arm") {
        Arch::Arm
    } else if cfg!(target_arch = "x86") {
        Arch::X86
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else if cfg!(target_arch = "s390x") {
        Arch::S390x
    } else if cfg!(target_arch = "loongarch64") {
        Arch::LoongArch64
    } else {
        Arch::Ppc64le
    }
}
