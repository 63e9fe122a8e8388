//! From an image's configuration and docker's flags to config.json (image-spec, conversion.md; docker's defaults for the rest).

use std::collections::BTreeMap;
use std::env::VarError;
use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, major, minor, stat};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::layers;
use super::network::{self, Helper, Network};
use super::options::{Device, Mount, Options, Source, UserNs};
use super::seccomp;
use super::{Digest, Store};
use crate::error::{Context, Error, Result};
use crate::plan::{self, CAPABILITIES, OCI_VERSION};
use crate::security::seccomp::Arch;
use crate::security::users::UserSpec;

/// What an image is configured with (image-spec, config.md); what a container does not depend on is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub architecture: Option<String>,
    pub variant: Option<String>,
    pub os: Option<String>,
    pub author: Option<String>,
    pub created: Option<String>,
    pub config: Option<Process>,
}

/// `config` in it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Process {
    pub user: Option<String>,
    pub exposed_ports: Option<BTreeMap<String, Value>>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub volumes: Option<BTreeMap<String, Value>>,
    pub working_dir: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub stop_signal: Option<String>,
}

/// Where the bundle is made, and for whom.
#[derive(Debug)]
pub struct Place<'a> {
    /// The container's id, and its host name if it has no other.
    pub id: &'a str,
    /// The host's name, which is that of a container in the host's network too.
    pub host_name: &'a str,
    /// Absolute directory in which [`Bundle::files`] will be.
    pub dir: &'a Path,
    /// `root.path`
    pub root: PathBuf,
    /// Unpacked layers, topmost first, none twice.
    pub layers: Vec<PathBuf>,
    /// Upper and work directory; `None`: what is written vanishes with the container.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Where named volumes are.
    pub store: Store,
    /// Digest of the image's configuration.
    pub image: Digest,
    /// Users of a new user namespace, `None` for the host's.
    pub ids: Option<IdMaps>,
    /// The layers' files belong to the ids of that namespace as they are seen inside.
    pub id_mapped: bool,
    /// The caller has no privilege on the host.
    pub rootless: bool,
    /// The caller's user namespace is not the host's.
    pub in_user_ns: bool,
    /// Who the program runs as if nobody else is named on the command line; `None`: whom the image names.
    pub user: Option<String>,
    pub terminal: bool,
    pub is_cgroup_v2: bool,
    /// The cgroups can limit swap.
    pub limits_swap: bool,
    /// The kernel can make a whole tree of mounts read-only.
    pub has_rro: bool,
    /// The small init on the host, for `--init`.
    pub init: Option<PathBuf>,
    pub network: Network,
    /// Who makes the network, where it has to be made.
    pub helper: Option<Helper>,
}

/// Container id, host id and size, each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    pub uid: Vec<(u32, u32, u32)>,
    pub gid: Vec<(u32, u32, u32)>,
}

/// A bundle to be written.
#[derive(Debug)]
pub struct Bundle {
    pub config: Value,
    /// Names and contents of what is mounted from its directory.
    pub files: Vec<(&'static str, String)>,
}

/// Where docker's own init is in a container; /dev is the container's.
const INIT: &str = "/dev/init";
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest /etc/passwd that is read.
const MAX_USERS: u64 = 1 << 20;
/// Keys by which annotations configure a runtime: an image's labels do not.
const RUNTIMES_OWN: [&str; 4] = ["org.kelson.", "org.systemd.", "org.criu.", "run.oci."];

/// What docker allows a container (moby, oci/defaults.go).
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The bundle for the image with the configuration `image`.
///
/// # Errors
/// A flag or the image asks for something that is wrong or not there.
pub fn bundle(image: &ImageConfig, options: &Options, place: &Place<'_>) -> Result<Bundle> {
    place.network.check(&options.publish, place.rootless)?;
    if options.uts_host && options.hostname.is_some() {
        return Err(Error::usage("--hostname: with --uts host the name is the host's").hint("leave --hostname out"));
    }
    let none = Process::default();
    let own = image.config.as_ref().unwrap_or(&none);
    let hostname = hostname(options, place)?;
    let capabilities = capabilities(options)?;
    let files = network::files(&place.network, options, &hostname)?;
    let mut devices = vec![];
    let mut rules = vec![json!({"allow": options.privileged, "access": "rwm"})];
    let mut wanted = vec![];
    for device in &options.devices {
        wanted.extend(devices_of(device)?);
    }
    for device in wanted.into_iter().chain(if options.privileged { host_devices()? } else { vec![] }) {
        add_device(&device, place.ids.is_some(), &mut devices, &mut rules)?;
    }

    let mut linux = json!({
        "namespaces": namespaces(options, place),
        "devices": devices,
    });
    if !options.privileged && !options.security.open_system_paths {
        let throttling = throttling(Path::new("/sys/devices/system/cpu"));
        let masked = MASKED_PATHS.into_iter().map(PathBuf::from).chain(throttling);
        linux["maskedPaths"] = masked.map(|path| json!(path)).collect();
        linux["readonlyPaths"] = json!(READONLY_PATHS);
    }
    if let Some(profile) = seccomp_profile(options, &capabilities)? {
        linux["seccomp"] = profile;
    }
    let mut resources = resources(options, place)?;
    if let Some(ids) = &place.ids {
        let maps = |maps: &[(u32, u32, u32)]| -> Value {
            let map = |(container, host, size): &(u32, u32, u32)| json!({"containerID": container, "hostID": host, "size": size});
            maps.iter().map(map).collect()
        };
        linux["uidMappings"] = maps(&ids.uid);
        linux["gidMappings"] = maps(&ids.gid);
    }
    // An ordinary user sets no device rules; what is not the user's cannot be opened anyhow.
    if !place.rootless {
        resources.insert("devices".into(), rules.into());
    }
    if !resources.is_empty() {
        linux["resources"] = resources.into();
    }
    let sysctl = sysctl(options, &place.network, place.ids.is_some() || place.in_user_ns);
    if !sysctl.is_empty() {
        linux["sysctl"] = sysctl.into();
    }
    if let Some(parent) = &options.cgroup_parent {
        linux["cgroupsPath"] = json!(match parent.ends_with(".slice") {
            true => format!("{parent}:kelson:{}", place.id),
            false => format!("{}/{}", parent.trim_end_matches('/'), place.id),
        });
    }
    if let Some(label) = &options.security.selinux_label {
        linux["mountLabel"] = json!(label);
    }
    let mut config = json!({
        "ociVersion": OCI_VERSION,
        "annotations": annotations(image, own, options, place)?,
        "root": {"path": place.root, "readonly": options.read_only},
        "mounts": mounts(own, options, place, &files)?,
        "process": process(own, options, place, &hostname, &capabilities)?,
        "linux": linux,
    });
    if let Some(helper) = &place.helper {
        config["hooks"] = network::hooks(&place.network, options, helper, place.dir)?;
    }
    if !options.uts_host {
        config["hostname"] = json!(hostname);
    }
    Ok(Bundle { config, files })
}

/// The name that the container has, in its files and variables too.
fn hostname(options: &Options, place: &Place<'_>) -> Result<String> {
    match &options.hostname {
        Some(_) if options.uts_host => {
            Err(Error::usage("--hostname: with --uts host the name is the host's").hint("leave one of them out"))
        }
        Some(name) => Ok(name.clone()),
        None if options.uts_host || place.network == Network::Host => Ok(place.host_name.to_owned()),
        None => Ok(place.id.chars().take(64).collect()),
    }
}

/// How often each CPU was slowed down for heat, where the kernel counts it: like /proc/interrupts it tells of what others compute
/// (moby, oci/defaults.go).
fn throttling(cpus: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cpus).into_iter().flatten().flatten();
    let counts = entries.map(|entry| entry.path().join("thermal_throttle"));
    let mut all: Vec<PathBuf> = counts.filter(|path| path.is_dir()).collect();
    all.sort_unstable();
    all
}

fn capabilities(options: &Options) -> Result<Vec<&'static str>> {
    let number = |option: &str, name: &str| {
        plan::parse_capability(name)
            .map(|number| CAPABILITIES[usize::from(number)])
            .ok_or_else(|| Error::usage(format!("{option}: there is no capability {name:?}")))
    };
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut kept: Vec<&'static str> = match (options.privileged || is_all(&options.cap_add), is_all(&options.cap_drop))
    {
        (true, _) => CAPABILITIES.to_vec(),
        (false, true) => vec![],
        (false, false) => DEFAULT_CAPABILITIES.to_vec(),
    };
    let named = |names: &'_ [String]| {
        names.iter().filter(|name| !name.eq_ignore_ascii_case("all")).cloned().collect::<Vec<_>>()
    };
    for name in named(&options.cap_drop) {
        let dropped = number("--cap-drop", &name)?;
        kept.retain(|kept| *kept != dropped);
    }
    for name in named(&options.cap_add) {
        let added = number("--cap-add", &name)?;
        if !kept.contains(&added) {
            kept.push(added);
        }
    }
    // What the kernel does not know would be a warning at each start.
    let last = usize::from(crate::sys::process::last_capability());
    kept.retain(|name| CAPABILITIES.iter().position(|known| known == name).is_some_and(|number| number <= last));
    Ok(kept)
}

fn seccomp_profile(options: &Options, capabilities: &[&str]) -> Result<Option<Value>> {
    if let Some(file) = &options.security.seccomp_file {
        let doing = || format!("read the seccomp profile {}", file.display());
        let text = std::fs::read(file).doing(doing)?;
        let profile = serde_json::from_slice(&text).map_err(|error| Error::usage(error.to_string())).doing(doing)?;
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").doing(|| "look at the kernel's version")?;
        let kernel = seccomp::version(&release)
            .ok_or_else(|| Error::other(format!("the kernel's version {release:?} is not understood")))?;
        let host = seccomp::Host { has: |name: &str| capabilities.contains(&name), arch: Arch::native(), kernel };
        return seccomp::resolve(profile, &host).map(Some).doing(doing);
    }
    if options.privileged || options.security.no_seccomp {
        return Ok(None);
    }
    Ok(Some(seccomp::profile(|name| capabilities.contains(&name))))
}

fn namespaces(options: &Options, place: &Place<'_>) -> Vec<Value> {
    let mut kinds = vec![json!({"type": "mount"})];
    let host = [(options.pid_host, "pid"), (options.ipc_host, "ipc"), (options.uts_host, "uts")];
    kinds.extend(host.iter().filter(|(is_host, _)| !is_host).map(|(_, kind)| json!({"type": kind})));
    match &place.network {
        Network::Host => {}
        Network::Path(path) => kinds.push(json!({"type": "network", "path": path})),
        _ => kinds.push(json!({"type": "network"})),
    }
    // A privileged one too, as docker: it may write to /sys/fs/cgroup, which must not be the host's.
    if place.is_cgroup_v2 {
        kinds.push(json!({"type": "cgroup"}));
    }
    if place.ids.is_some() {
        kinds.push(json!({"type": "user"}));
    }
    kinds
}

fn resources(options: &Options, place: &Place<'_>) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let memory = memory(options, place.limits_swap)?;
    let mut cpu = Map::new();
    if let Some(cpus) = options.cpus {
        cpu.insert("period".into(), json!(100_000));
        cpu.insert("quota".into(), json!(cpus * 100));
    }
    if let Some(shares) = options.cpu_shares {
        cpu.insert("shares".into(), json!(shares));
    }
    for (key, list) in [("cpus", &options.cpuset_cpus), ("mems", &options.cpuset_mems)] {
        if let Some(list) = list {
            cpu.insert(key.into(), json!(list));
        }
    }
    for (key, values) in [("memory", memory), ("cpu", cpu)] {
        if !values.is_empty() {
            all.insert(key.into(), values.into());
        }
    }
    // 0 and -1 are docker's words for no limit.
    if let Some(limit) = options.pids_limit.filter(|limit| *limit > 0) {
        all.insert("pids".into(), json!({"limit": limit}));
    }
    Ok(all)
}

/// `linux.resources.memory`
fn memory(options: &Options, limits_swap: bool) -> Result<Map<String, Value>> {
    // 0 is docker's word for what is not asked for.
    let asked = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = asked(options.memory);
    let mut all = Map::new();
    if let Some(limit) = limit {
        all.insert("limit".into(), json!(limit));
    }
    match (asked(options.memory_swap), limit) {
        (Some(-1), _) => drop(all.insert("swap".into(), json!(-1))),
        (Some(swap), Some(limit)) if swap >= limit => drop(all.insert("swap".into(), json!(swap))),
        (Some(swap), _) => {
            return Err(Error::usage(format!(
                "--memory-swap: {swap} is memory and swap together, no less than --memory"
            ))
            .hint("-1 leaves swap unlimited"));
        }
        // As docker: as much swap as memory, where swap can be limited.
        (None, Some(limit)) if limit > 0 && limits_swap => {
            all.insert("swap".into(), json!(limit.saturating_mul(2)));
        }
        (None, _) => {}
    }
    if let Some(reservation) = asked(options.memory_reservation) {
        all.insert("reservation".into(), json!(reservation));
    }
    Ok(all)
}

fn sysctl(options: &Options, network: &Network, in_user_ns: bool) -> Map<String, Value> {
    let mut all = Map::new();
    // As docker does it: a program may listen on every port and ping without a privilege of its own. A namespace that exists is
    // somebody else's to configure.
    if !matches!(network, Network::Host | Network::Path(_)) {
        all.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
        // EINVAL for a group that the writer's user namespace does not have (net/ipv4/sysctl_net_ipv4.c).
        if !in_user_ns {
            all.insert("net.ipv4.ping_group_range".into(), json!("0 2147483647"));
        }
    }
    all.extend(options.sysctls.iter().map(|(key, value)| (key.clone(), json!(value))));
    all
}

fn annotations(image: &ImageConfig, own: &Process, options: &Options, place: &Place<'_>) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let known = [
        ("org.opencontainers.image.os", &image.os),
        ("org.opencontainers.image.architecture", &image.architecture),
        ("org.opencontainers.image.variant", &image.variant),
        ("org.opencontainers.image.author", &image.author),
        ("org.opencontainers.image.created", &image.created),
        (
            "org.opencontainers.image.stopSignal",
            if options.stop_signal.is_some() { &options.stop_signal } else { &own.stop_signal },
        ),
    ];
    all.extend(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?)))));
    if let Some(ports) = own.exposed_ports.as_ref().filter(|ports| !ports.is_empty()) {
        let list: Vec<&str> = ports.keys().map(String::as_str).collect();
        all.insert("org.opencontainers.image.exposedPorts".into(), json!(list.join(",")));
    }
    for (key, value) in own.labels.iter().flatten() {
        match RUNTIMES_OWN.iter().any(|prefix| key.starts_with(prefix)) {
            true => log::warn!("label {key:?} of the image is left out: it would configure the runtime"),
            false => drop(all.insert(key.clone(), json!(value))),
        }
    }
    let labels = options.labels.iter().map(|pair| ("--label", pair));
    for (option, pair) in labels.chain(options.annotations.iter().map(|pair| ("--annotation", pair))) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key.is_empty() {
            return Err(Error::usage(format!("{option}: {pair:?} has no name")));
        }
        all.insert(key.to_owned(), json!(value));
    }
    all.insert(
        "org.kelson.overlay.lower".into(),
        json!(
            serde_json::to_string(&place.layers)
                .map_err(|error| { Error::other(format!("the store's path is not UTF-8: {error}")) })?
        ),
    );
    all.insert("org.kelson.image".into(), json!(place.image));
    if place.id_mapped {
        all.insert(plan::IDMAP.into(), json!("true"));
    }
    if let Some((upper, work)) = &place.upper {
        all.insert("org.kelson.overlay.upper".into(), json!(upper));
        all.insert("org.kelson.overlay.work".into(), json!(work));
    }
    Ok(all)
}

fn process(
    own: &Process,
    options: &Options,
    place: &Place<'_>,
    hostname: &str,
    capabilities: &[&str],
) -> Result<Value> {
    let given = options.user.as_deref().or(place.user.as_deref()).or(own.user.as_deref());
    let user = given.filter(|user| !user.is_empty());
    let mut all = json!({
        "terminal": place.terminal,
        "args": arguments(own, options, place)?,
        "env": environment(own, options, place.terminal, hostname)?,
        "cwd": working_dir(own, options)?,
        "user": user_of(user, options, place)?,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": options.security.no_new_privileges,
    });
    if let Some(adjustment) = options.oom_score_adj {
        all["oomScoreAdj"] = json!(adjustment);
    }
    if !options.ulimits.is_empty() {
        let limit =
            |limit: &super::options::Ulimit| json!({"type": limit.name, "soft": limit.soft, "hard": limit.hard});
        all["rlimits"] = options.ulimits.iter().map(limit).collect();
    }
    if let Some(profile) = options.security.apparmor.as_deref().filter(|profile| *profile != "unconfined") {
        all["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = &options.security.selinux_label {
        all["selinuxLabel"] = json!(label);
    }
    Ok(all)
}

/// Entrypoint and Cmd, as docker puts them together.
fn arguments(own: &Process, options: &Options, place: &Place<'_>) -> Result<Vec<String>> {
    let mut words: Vec<String> = match &options.entrypoint {
        Some(entrypoint) => Some(entrypoint.clone()).filter(|word| !word.is_empty()).into_iter().collect(),
        None => own.entrypoint.clone().unwrap_or_default(),
    };
    for word in &options.command {
        let text = word.to_str().ok_or_else(|| Error::usage(format!("argument {word:?} is not valid UTF-8")))?;
        words.push(text.to_owned());
    }
    if options.command.is_empty() && options.entrypoint.is_none() {
        words.extend(own.cmd.iter().flatten().cloned());
    }
    if words.is_empty() {
        return Err(Error::usage("the image names no program to run").hint("give a command after the options"));
    }
    if place.init.is_some() {
        words.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    Ok(words)
}

/// The image's variables, docker's own, then those that were asked for; the last one of a name counts.
fn environment(own: &Process, options: &Options, terminal: bool, hostname: &str) -> Result<Vec<String>> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.into(), format!("HOSTNAME={hostname}")];
    if terminal {
        all.push("TERM=xterm".into());
    }
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut set = |entry: String| {
        let key = name(&entry);
        match all.iter_mut().find(|known| name(known) == key) {
            Some(known) => *known = entry,
            None => all.push(entry),
        }
    };
    own.env.iter().flatten().cloned().for_each(&mut set);
    for word in &options.env {
        if let Some(entry) = asked_for(word)? {
            set(entry);
        }
    }
    Ok(all)
}

/// `KEY=value` as it is; `KEY` has the caller's value, and is nothing if the caller has none.
fn asked_for(word: &OsString) -> Result<Option<String>> {
    let text = word.to_str().ok_or_else(|| Error::usage(format!("-e {word:?} is not valid UTF-8")))?;
    match text.split_once('=') {
        Some(("", _)) => Err(Error::usage(format!("-e {text}: there is no name before the ="))),
        Some(_) => Ok(Some(text.to_owned())),
        None if text.is_empty() => Err(Error::usage("-e \"\": there is no name")),
        None => match std::env::var(text) {
            Ok(value) => Ok(Some(format!("{text}={value}"))),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(Error::usage(format!("-e {text}: its value is not valid UTF-8"))),
        },
    }
}

fn working_dir(own: &Process, options: &Options) -> Result<String> {
    let given = options.workdir.as_deref().or(own.working_dir.as_deref()).filter(|dir| !dir.is_empty());
    match given {
        None => Ok("/".into()),
        Some(dir) if dir.starts_with('/') => Ok(dir.into()),
        Some(dir) if options.workdir.is_none() => Ok(format!("/{dir}")),
        Some(dir) => Err(Error::usage(format!("--workdir: {dir:?} is no absolute path"))),
    }
}

/// `process.user`: names and numbers are looked up in the image's own files.
fn user_of(user: Option<&str>, options: &Options, place: &Place<'_>) -> Result<Value> {
    let read = |path: &str| {
        let text = layers::read_file(&place.layers, Path::new(path), MAX_USERS)?;
        text.ok_or_else(|| Error::other(format!("the image has no {path}")).hint("numeric ids need no entry"))
    };
    let spec = UserSpec::parse(user.unwrap_or("0"))?;
    let resolved = spec.resolve_in_image(read).doing(|| format!("find user {:?}", user.unwrap_or("0")))?;
    // Who has a single id may set none (user_namespaces(7)).
    let sets_groups = place.ids.as_ref().is_none_or(|ids| maps(&ids.gid, 1));
    // Those of an entry are not asked for: what the namespace lacks is left out, that root of a common image can run.
    let is_there = |gid: &u32| sets_groups && place.ids.as_ref().is_none_or(|ids| maps(&ids.gid, *gid));
    let mut groups: Vec<u32> = resolved.groups.into_iter().filter(is_there).collect();
    for group in &options.group_add {
        let gid = match UserSpec::parse(&format!("0:{group}"))? {
            UserSpec::Ids { gid: Some(gid), .. } => gid,
            named => named.resolve_in_image(read).doing(|| format!("--group-add {group}"))?.gid,
        };
        groups.push(gid);
    }
    // As docker since CVE-2022-36109: a process that sets its groups anew must not get around its primary one.
    if sets_groups {
        groups.push(resolved.gid);
    }
    groups.sort_unstable();
    groups.dedup();
    let mut user = json!({"uid": resolved.uid, "gid": resolved.gid});
    if !groups.is_empty() {
        user["additionalGids"] = json!(groups);
    }
    Ok(user)
}

fn mounts(own: &Process, options: &Options, place: &Place<'_>, files: &[(&'static str, String)]) -> Result<Vec<Value>> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let writable = if options.privileged { "rw" } else { "ro" };
    let maps_tty = place.ids.as_ref().is_none_or(|ids| maps(&ids.gid, 5));
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if maps_tty {
        pts.push("gid=5");
    }
    let shm_size = format!("size={}", options.shm_size.unwrap_or(64 << 20));
    let mut all = vec![
        match options.pid_host && place.ids.is_some() {
            // A procfs of the host's processes is the host's to make.
            true => mount("/proc", "none", "/proc", &["rbind", "nosuid", "noexec", "nodev"]),
            false => mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        },
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &pts),
        match place.network == Network::Host && place.ids.is_some() {
            // A sysfs of the host's network is the host's to make.
            true => mount(
                "/sys",
                "none",
                "/sys",
                &["rbind", "nosuid", "noexec", "nodev", if place.has_rro { "rro" } else { "ro" }],
            ),
            false => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", writable]),
        },
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", writable]),
    ];
    match options.ipc_host {
        true => {
            all.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &["rbind", "nosuid", "noexec", "nodev"]));
            all.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]));
        }
        false => {
            all.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
            all.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]));
        }
    }
    if let Some(init) = &place.init {
        all.push(
            json!({"destination": INIT, "type": "bind", "source": init, "options": ["bind", "ro", "nosuid", "nodev"]}),
        );
    }
    let is_given = |target: &str| options.mounts.iter().any(|mount| Path::new(&mount.target) == Path::new(target));
    for (name, _) in files {
        let target = format!("/etc/{name}");
        if !is_given(&target) {
            all.push(json!({"destination": target, "type": "bind", "source": place.dir.join(name), "options": ["rbind", "rprivate"]}));
        }
    }
    // Where the written layer is kept, so is what a volume holds.
    let volumes = own.volumes.iter().flatten().map(|(target, _)| target).filter(|_| place.upper.is_none());
    for target in volumes.filter(|target| target.starts_with('/') && !is_given(target)) {
        all.push(mount(target, "tmpfs", "tmpfs", &["nosuid", "nodev", "tmpcopyup"]));
    }
    for given in &options.mounts {
        all.push(given_mount(given, place)?);
    }
    Ok(all)
}

fn given_mount(given: &Mount, place: &Place<'_>) -> Result<Value> {
    Ok(match &given.source {
        Source::Host(source) => {
            let host = std::fs::canonicalize(source)
                .doing(|| format!("find {source:?}, which is to be mounted at {}", given.target))?;
            json!({"destination": given.target, "type": "bind", "source": host, "options": given.options})
        }
        Source::Volume { name, .. } => {
            let mut options = given.options.clone();
            if place.id_mapped {
                // As the layers: the next container has other ids.
                options.push("idmap".into());
            }
            json!({"destination": given.target, "type": "bind", "source": place.store.volume(name), "options": options})
        }
        Source::Tmpfs => {
            json!({"destination": given.target, "type": "tmpfs", "source": "tmpfs", "options": given.options})
        }
    })
}

fn maps(ids: &[(u32, u32, u32)], id: u32) -> bool {
    ids.iter().any(|(container, _, size)| id.checked_sub(*container).is_some_and(|offset| offset < *size))
}

/// Adds a device of the host, and the rule that lets it be used.
fn add_device(device: &Device, is_rootless: bool, devices: &mut Vec<Value>, rules: &mut Vec<Value>) -> Result<()> {
    let info = stat(Path::new(&device.host)).doing(|| format!("--device: look at {}", device.host))?;
    let kind = match SFlag::from_bits_truncate(info.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFCHR => "c",
        SFlag::S_IFBLK => "b",
        _ => return Err(Error::usage(format!("--device: {} is no device", device.host)).hint("-v mounts other files")),
    };
    let (major, minor) = (major(info.st_rdev), minor(info.st_rdev));
    let mut entry =
        json!({"path": device.target, "type": kind, "major": major, "minor": minor, "fileMode": info.st_mode & 0o7777});
    if !is_rootless {
        entry["uid"] = json!(info.st_uid);
        entry["gid"] = json!(info.st_gid);
    }
    devices.push(entry);
    rules.push(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": device.access}));
    Ok(())
}

/// The device, or all that are below a directory.
fn devices_of(device: &Device) -> Result<Vec<Device>> {
    let doing = || format!("--device: look at {}", device.host);
    let host = std::fs::canonicalize(&device.host).doing(doing)?;
    if !host.is_dir() {
        return Ok(vec![device.clone()]);
    }
    let mut found = vec![];
    add_devices_below(&host, &[], &mut found).doing(doing)?;
    if found.is_empty() {
        return Err(
            Error::usage(format!("--device: there is no device below {}", device.host)).hint("-v mounts other files")
        );
    }
    let target = device.target.trim_end_matches('/');
    let below = |path: String| {
        let name = Path::new(&path).strip_prefix(&host).ok()?.to_str()?;
        Some(Device { target: format!("{target}/{name}"), access: device.access.clone(), host: path })
    };
    Ok(found.into_iter().filter_map(below).collect())
}

/// Adds the devices below a directory, but none that a link leads to. `others`: names of directories that are left out.
fn add_devices_below(dir: &Path, others: &[&str], all: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            if !others.iter().any(|other| entry.file_name() == *other) {
                add_devices_below(&path, others, all)?;
            }
        } else if (kind.is_char_device() || kind.is_block_device())
            && let Some(text) = path.to_str()
        {
            all.push(text.to_owned());
        }
    }
    Ok(())
}

/// The devices below /dev that are not a container's own.
fn host_devices() -> Result<Vec<Device>> {
    let default = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];
    let is_default = |path: &String| default.iter().any(|name| *path == format!("/dev/{name}"));
    let others = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
    let mut all = vec![];
    add_devices_below(Path::new("/dev"), &others, &mut all).doing(|| "--privileged: list the devices in /dev")?;
    all.retain(|path| !is_default(path));
    Ok(all.into_iter().map(|path| Device { host: path.clone(), target: path, access: "rwm".into() }).collect())
}

/// Whether the container's users need a namespace of their own.
pub fn needs_user_namespace(options: &Options, rootless: bool) -> Result<bool> {
    match (options.userns, rootless) {
        (UserNs::Host, true) => Err(Error::usage("--userns host: an ordinary user needs a user namespace")),
        (UserNs::Host, false) => Ok(false),
        (UserNs::KeepId, false) => Err(Error::usage("--userns keep-id: it keeps an ordinary user's id")
            .hint("--userns auto gives root's containers ids")),
        (UserNs::Own, _) => Ok(true),
        (UserNs::Default | UserNs::KeepId, rootless) => Ok(rootless),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_zero_is_not_asked_for() {
        let told = |memory, memory_swap, memory_reservation, limits_swap| {
            let options = Options { memory, memory_swap, memory_reservation, ..Options::default() };
            super::memory(&options, limits_swap).map(Value::from).map_err(|error| error.to_string())
        };
        for (memory, swap, reservation, expected) in [
            (None, None, None, json!({})),
            (Some(0), Some(0), Some(0), json!({})),
            (Some(100), None, Some(50), json!({"limit": 100, "swap": 200, "reservation": 50})),
            (Some(100), Some(0), None, json!({"limit": 100, "swap": 200})),
            (Some(100), Some(100), None, json!({"limit": 100, "swap": 100})),
            (Some(100), Some(-1), None, json!({"limit": 100, "swap": -1})),
            (Some(-1), None, None, json!({"limit": -1})),
        ] {
            assert_eq!(told(memory, swap, reservation, true), Ok(expected), "{memory:?} {swap:?} {reservation:?}");
        }
        assert_eq!(told(Some(100), Some(0), None, false), Ok(json!({"limit": 100})), "without a limit of swap");
        for (memory, swap) in [(None, Some(100)), (Some(0), Some(100)), (Some(100), Some(99))] {
            assert!(told(memory, swap, None, true).is_err_and(|error| error.contains("--memory-swap")), "{swap:?}");
        }
    }

    #[test]
    fn ports_and_ping_are_for_all_in_a_network_of_ones_own() {
        let options = Options { sysctls: vec![("net.ipv4.ip_forward".into(), "1".into())], ..Options::default() };
        let own = json!({"net.ipv4.ip_forward": "1"});
        let ports = json!({"net.ipv4.ip_forward": "1", "net.ipv4.ip_unprivileged_port_start": "0"});
        let mut both = ports.clone();
        both["net.ipv4.ping_group_range"] = json!("0 2147483647");
        for (network, in_user_ns, expected) in [
            (Network::None, false, &both),
            (Network::Pasta(vec![]), false, &both),
            (Network::None, true, &ports),
            (Network::Host, false, &own),
            (Network::Path("/run/netns/a".into()), false, &own),
        ] {
            assert_eq!(&Value::from(sysctl(&options, &network, in_user_ns)), expected, "{network} {in_user_ns}");
        }
        let asked = Options { sysctls: vec![("net.ipv4.ping_group_range".into(), "1 0".into())], ..Options::default() };
        assert_eq!(sysctl(&asked, &Network::None, false)["net.ipv4.ping_group_range"], "1 0", "what is asked for");
    }

    #[test]
    fn every_cpu_that_counts_is_masked() {
        let dir = std::env::temp_dir().join(format!("kelson-cpus-{}", std::process::id()));
        for name in ["cpu1/thermal_throttle", "cpu0/thermal_throttle", "cpu2/topology", "cpufreq"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let found = throttling(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(found, ["cpu0/thermal_throttle", "cpu1/thermal_throttle"].map(|name| dir.join(name)));
        assert!(throttling(&dir).is_empty());
    }
}
