//! config.json to `Plan`: every default applied, every string parsed, every contradiction refused with the name of its
//! property. Nothing is created here; what is read of the host is whether directories exist.
//!
//! ```text
//! read_config (file → text) ─▶ json + spec (text → borrowed structs) ─▶ mounts, linux, process, … (structs → model)
//! ```

mod hooks;
mod json;
mod linux;
mod model;
mod mounts;
mod process;
mod resources;
mod root;
mod seccomp;
mod source;
mod spec;
mod update;

#[cfg(test)]
mod tests;

pub use linux::{memory_mode_name, namespaces};
pub use model::*;
pub use mounts::{attribute_options, mount_options, propagation_option, superblock_options};
pub use process::{
    CAPABILITIES, apparmor, is_real_time, parse_capability, parse_env, parse_id, process, scheduler_policy_name,
    selinux,
};
pub use root::{FUSE, IDMAP, IMAGE, LOWER, UPPER};
pub use seccomp::{flag_names as seccomp_flag_names, native as native_arch};
pub use source::{read_config, read_process, read_resources};
pub use update::{LimitOptions, resources_of_update};

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Kind, Result};
use json::Text;
use process::{Args, Warn};

/// What the command line changes in the plan.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--overlay`: the bundle's root file system is the lower layer of an overlay.
    pub overlay: bool,
    /// The configuration was made from an image, by Kelson: its annotations for the layers are Kelson's.
    pub is_of_image: bool,
    /// Words after the id: process.args, unless there are none.
    pub args: Vec<CString>,
}

/// Which option of mount(8) has `linux.mountLabel` (crun's annotation); `context` without it.
pub const MOUNT_CONTEXT: &str = "run.oci.mount_context_type";
/// SELinux's options for mounts, mount(8).
const MOUNT_CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// The plan for the config.json that is `text`, of the bundle at the absolute path `bundle`.
///
/// Unknown properties are logged as warnings and ignored (config.md#extensibility).
///
/// # Errors
/// Whatever runtime-spec says must be an error, what cannot work as written, and what Kelson does not support; each names
/// its property.
pub fn plan(text: &str, bundle: &Path, host: &Host, overrides: &Overrides) -> Result<Plan> {
    let spec: spec::Config = json::read(text, "config.json")?;
    check_oci_version(spec.oci_version)?;
    let annotations = annotations(spec.annotations)?;
    let linux = spec.linux.unwrap_or_default();

    let namespaces = linux::resolve_namespaces(linux.namespaces.as_deref().unwrap_or_default())?;
    let id_maps = linux::id_maps(&linux, &namespaces)?;
    let root = root::resolve(spec.root, &linux, &annotations, &namespaces, &id_maps, bundle, overrides)?;
    let mounts = mounts::resolve(spec.mounts.as_deref().unwrap_or_default(), bundle, &namespaces, &id_maps)?;
    let words = if overrides.args.is_empty() { Args::Own } else { Args::Instead(&overrides.args) };
    let process = spec.process.map(|process| process::resolve(process, host, Warn::Yes, words)).transpose()?;
    if let Some(process) = &process {
        linux::check_user_is_mapped(&process.user, &namespaces, &id_maps)?;
    }
    if linux.intel_rdt.is_some() {
        return Err(Error::config("linux.intelRdt", "not supported").hint("leave the property out"));
    }
    let hostname = linux::uts_name(spec.hostname, "hostname", &namespaces)?;
    if let Some(kind) = annotations.get(MOUNT_CONTEXT)
        && !MOUNT_CONTEXTS.contains(&kind.as_str())
    {
        let property = format!("annotations[{MOUNT_CONTEXT:?}]");
        return Err(process::unknown(property, "mount option", kind, MOUNT_CONTEXTS.into_iter()));
    }

    Ok(Plan {
        bundle: bundle.to_path_buf(),
        domainname: linux::uts_name(spec.domainname, "domainname", &namespaces)?,
        root,
        mounts,
        time_offsets: linux::time_offsets(linux.time_offsets, &namespaces)?,
        net_devices: linux::net_devices(linux.net_devices, &namespaces)?,
        devices: linux::devices(linux.devices.as_deref().unwrap_or_default())?,
        masked_paths: linux::restricted_paths(linux.masked_paths, "linux.maskedPaths", &namespaces)?,
        readonly_paths: linux::restricted_paths(linux.readonly_paths, "linux.readonlyPaths", &namespaces)?,
        sysctl: linux::sysctl(linux.sysctl, &namespaces, hostname.is_some())?,
        mount_label: selinux_label(linux.mount_label, "linux.mountLabel", host)?,
        personality: linux.personality.map(|p| linux::personality(&p)).transpose()?,
        memory_policy: linux.memory_policy.map(linux::memory_policy).transpose()?,
        seccomp: linux.seccomp.map(|s| seccomp::resolve(s, bundle)).transpose()?,
        cgroups_path: some_text(linux.cgroups_path).map(|path| path.to_string()),
        resources: resources::resolve(linux.resources.unwrap_or_default())?,
        hooks: hooks::resolve(spec.hooks.unwrap_or_default())?,
        annotations,
        hostname,
        namespaces,
        id_maps,
        process,
    })
}

/// What `exec` takes from the config.json of a container.
#[derive(Debug)]
pub struct ExecPlan {
    pub process: Option<Process>,
    pub personality: Option<Personality>,
    pub seccomp: Option<Seccomp>,
}

/// The part of [`plan`] that concerns a further process in the container of the config.json that is `text`. It has words of
/// its own: the process has no args, which the config of a container that was run with others need not have either.
///
/// # Errors
/// As [`plan`], for `process`, `linux.personality` and `linux.seccomp` only: the container exists already.
pub fn for_exec(text: &str, bundle: &Path, host: &Host) -> Result<ExecPlan> {
    let spec: spec::Config = json::read_known(text, "config.json")?;
    let linux = spec.linux.unwrap_or_default();
    Ok(ExecPlan {
        process: spec
            .process
            .map(|process| process::resolve(process, host, Warn::Known, Args::Instead(&[])))
            .transpose()?,
        personality: linux.personality.map(|p| linux::personality(&p)).transpose()?,
        seccomp: linux.seccomp.map(|s| seccomp::resolve(s, bundle)).transpose()?,
    })
}

/// The newest runtime-spec whose properties are all understood, with which the state complies.
pub const OCI_VERSION: &str = "1.3.0";

/// Any version of the 1.x series, release candidates of it too: the spec promises compatibility within a major version
/// (config.md#specification-version).
fn check_oci_version(version: Option<Text<'_>>) -> Result<()> {
    let property = || "ociVersion".to_string();
    let version = required(&version, property)?;
    let Some(major) = semver_major(version) else {
        return Err(Error::config(property(), format!("{:?} is not a SemVer 2.0.0 version", &**version)));
    };
    if major != "1" {
        return Err(Error::config(property(), format!("version {:?} is not of the supported series 1.x", &**version)));
    }
    Ok(())
}

/// The major number of `MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]` (SemVer 2.0.0, sections 2, 9 and 10).
fn semver_major(version: &str) -> Option<&str> {
    let numeric = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let identifier = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let well_formed = build.is_none_or(|build| build.split('.').all(identifier))
        && pre.is_none_or(|pre| pre.split('.').all(|part| identifier(part) && (!is_number(part) || numeric(part))));
    let mut parts = core.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(major), Some(minor), Some(patch), None)
            if well_formed && numeric(major) && numeric(minor) && numeric(patch) =>
        {
            Some(major)
        }
        _ => None,
    }
}

fn annotations(annotations: Option<json::Map<'_, Text<'_>>>) -> Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for (key, value) in annotations.map_or_else(BTreeMap::new, |map| map.0) {
        // config.md#annotations: keys MUST NOT be an empty string.
        if key.is_empty() {
            return Err(Error::config("annotations[\"\"]", "a key must not be empty"));
        }
        out.insert(key.into_cow().into_owned(), value.into_cow().into_owned());
    }
    Ok(out)
}

/// The value, or the error that the property is missing.
fn required<T>(value: &Option<T>, property: impl FnOnce() -> String) -> Result<&T> {
    value.as_ref().ok_or_else(|| Error::config(property(), "required property is missing"))
}

/// The text, unless it is empty: Go callers write the empty string for absence.
fn some_text(text: Option<Text<'_>>) -> Option<Text<'_>> {
    text.filter(|text| !text.is_empty())
}

fn c_string(text: &str, property: impl FnOnce() -> String) -> Result<CString> {
    CString::new(text).map_err(|_| Error::config(property(), "string contains a NUL character"))
}

fn absolute(path: &str, property: impl FnOnce() -> String) -> Result<PathBuf> {
    if !path.starts_with('/') {
        return Err(Error::config(property(), format!("{path:?} is not an absolute path")));
    }
    Ok(PathBuf::from(path))
}

/// `path` made absolute, without `.` and with `..` taken back by its text; good for comparing, not for opening.
pub fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn selinux_label(label: Option<Text<'_>>, property: &str, host: &Host) -> Result<Option<String>> {
    match some_text(label) {
        Some(label) if !(host.selinux)() => {
            Err(Error::config(property, format!("label {:?}: no SELinux on this host", &*label))
                .hint("leave the property out"))
        }
        label => Ok(label.map(|l| l.to_string())),
    }
}

/// The numbers of a list such as `0-3,7`, ascending and each once; all are below `limit`, which bounds the memory.
fn list_of_numbers(list: &str, limit: u32) -> Result<Vec<u32>> {
    let wrong = |why: &str| Error::new(Kind::Config, format!("list {list:?} {why}"));
    let number = |text: &str| -> Result<u32> {
        // No sign, no inner space: u32's own parser takes "+1".
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong("is not of the form 0-3,7"));
        }
        match text.parse() {
            Ok(n) if n < limit => Ok(n),
            _ => Err(wrong(&format!("names a number above {}", limit - 1))),
        }
    };
    let mut ranges = vec![];
    for range in list.split(',') {
        let range = range.trim();
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong("has a range that runs backwards"));
        }
        ranges.push((first, last));
    }
    // Sorted, so that each number is made once however often the list has it.
    ranges.sort_unstable();
    let mut out: Vec<u32> = vec![];
    for (first, last) in ranges {
        let next = out.last().map_or(0, |number| number + 1);
        out.extend(first.max(next)..=last);
    }
    Ok(out)
}
