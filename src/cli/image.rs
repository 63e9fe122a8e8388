//! docker's flags, as far as one container without a daemon can honour them.

use std::ffi::OsString;
use std::path::PathBuf;

use super::signal::signal;
use super::words::{Words, utf8};
use super::{Opt, switch, value};
use crate::error::{Context, Error, Result};
use crate::image::Options;
use crate::image::options::{self, Network, Port, Pull, UserNs};

/// Options of `run --image`, `bundle` and `explain --image`.
pub const OPTIONS: &[&Opt] = &[
    &value("entrypoint", None, "PROGRAM", "run it in place of the image's Entrypoint and Cmd"),
    &value("env", Some('e'), "KEY[=VALUE]", "set a variable, or pass the caller's on (repeatable)"),
    &value("env-file", None, "FILE", "read variables from FILE, one a line (repeatable)"),
    &value("workdir", Some('w'), "DIR", "working directory in the container"),
    &value("user", Some('u'), "USER[:GROUP]", "run as this user of the image, by name or number"),
    &value("group-add", None, "GROUP", "a further group (repeatable)"),
    &value("hostname", None, "NAME", "host name (default: the container's id)"),
    &value("name", None, "ID", "id of the container (default: made up)"),
    &switch("tty", Some('t'), "give it a terminal (default: if the caller has one)"),
    &switch("interactive", Some('i'), "give it standard input (default: yes)"),
    &switch(
        "rm",
        None,
        "delete the container after it ends: a foreground run always does, for a detached one a process stays that waits",
    ),
    &switch("init", None, "run a small init as process 1, which reaps orphans and passes signals on"),
    &value(
        "volume",
        Some('v'),
        "HOST|NAME:PATH[:ro]",
        "mount a file or directory of the host, or a volume that the store keeps (repeatable)",
    ),
    &value(
        "mount",
        None,
        "type=bind|volume|tmpfs,…",
        "mount, in docker's long form: a volume without type= (repeatable)",
    ),
    &value("tmpfs", None, "PATH[:OPTIONS]", "mount a file system in memory (repeatable)"),
    &switch("read-only", None, "make the root file system read-only"),
    &value("shm-size", None, "BYTES", "size of /dev/shm (default: 64m)"),
    &value("upper", None, "DIR", "keep what the container writes in DIR/upper"),
    &switch("keep-layer", None, "keep what the container writes in the store"),
    &value("memory", Some('m'), "BYTES", "limit of memory; as much swap is allowed"),
    &value("memory-swap", None, "BYTES", "limit of memory and swap together (-1: unlimited, 0: the default)"),
    &value("memory-reservation", None, "BYTES", "memory that is left to it when the host runs short"),
    &value("cpus", None, "N", "limit of CPU time, in CPUs, such as 1.5"),
    &value("cpu-shares", Some('c'), "N", "weight beside other containers (1024 is usual)"),
    &value("cpuset-cpus", None, "LIST", "CPUs, such as 0-2,7"),
    &value("cpuset-mems", None, "LIST", "memory nodes"),
    &value("pids-limit", None, "N", "limit of processes and threads (0 and -1: unlimited)"),
    &value("ulimit", None, "NAME=SOFT[:HARD]", "resource limit of the process, such as nofile=1024 (repeatable)"),
    &value("oom-score-adj", None, "N", "who is killed first when the host runs out of memory (-1000 to 1000)"),
    &value("sysctl", None, "KEY=VALUE", "parameter of the container's namespaces (repeatable)"),
    &value("cgroup-parent", None, "PATH|SLICE", "cgroup, or slice of systemd, in which the container's is made"),
    &value("cap-add", None, "NAME", "add a capability, or ALL (repeatable)"),
    &value("cap-drop", None, "NAME", "take a capability away, or ALL (repeatable)"),
    &value(
        "security-opt",
        None,
        "OPTION",
        "no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE, … (repeatable)",
    ),
    &value("device", None, "HOST[:PATH][:rwm]", "give it a device of the host, or all below a directory (repeatable)"),
    &switch("privileged", None, "all capabilities and devices, no seccomp filter: no boundary to the host"),
    &value(
        "userns",
        None,
        "auto|keep-id|host",
        "users of its own (default for an ordinary user), with the caller's id kept (for an ordinary user), or the host's (for root)",
    ),
    &value(
        "network",
        None,
        "NETWORK",
        "pasta[:OPTION,…] (default, if installed), none, host, ns:PATH, bridge, cni:NAME or netavark[:NAME]",
    ),
    &value(
        "publish",
        Some('p'),
        "[ADDR:]PORT:PORT[/udp]",
        "reach a port of the container at a port of the host (repeatable)",
    ),
    &value(
        "add-host",
        None,
        "NAME:ADDRESS",
        "a line in its /etc/hosts; the address host-gateway is the host's (repeatable)",
    ),
    &value("dns", None, "ADDRESS", "name server in its /etc/resolv.conf (repeatable)"),
    &value("pid", None, "host", "see the host's processes"),
    &value("ipc", None, "host", "share the host's System V and POSIX IPC"),
    &value("uts", None, "host", "share the host's name"),
    &value("label", Some('l'), "KEY=VALUE", "annotation of the container (repeatable)"),
    &value("annotation", None, "KEY=VALUE", "the same (repeatable)"),
    &value("stop-signal", None, "SIGNAL", "noted in its annotations"),
    &value("platform", None, "OS/ARCH[/VARIANT]", "which of an image's platforms (default: this machine's)"),
    &value("pull", None, "missing|always|never", "when to ask the registry (default: missing)"),
    &value("plain-http", None, "HOST", "speak to this registry without TLS (repeatable)"),
    &value("unpack-limits", None, "LIMITS", "how much a layer may be: bytes=N,entries=N,ratio=N,free=N,window=N"),
    &switch("quiet", Some('q'), "show no progress of a download"),
    &value("store", None, "DIR", "where images are kept (default: /var/lib/kelson, or ~/.local/share/kelson)"),
];

/// What the words ask of the image called `image`.
pub fn options(words: &mut Words, image: OsString) -> Result<Options> {
    Ok(Options {
        image,
        store: words.path("store").or_else(|| std::env::var_os("KELSON_STORE").map(PathBuf::from)),
        platform: words.given("platform")?,
        pull: match words.given("pull")?.as_deref() {
            None | Some("missing") => Pull::Missing,
            Some("always") => Pull::Always,
            Some("never") => Pull::Never,
            Some(other) => return Err(unknown("pull", other, "missing, always or never")),
        },
        plain_http: words.texts("plain-http")?,
        unpack_limits: words.last("unpack-limits"),
        quiet: words.is_set("quiet"),
        command: std::mem::take(&mut words.rest),
        entrypoint: words.text("entrypoint")?,
        env: environment(words)?,
        workdir: words.given("workdir")?,
        user: words.given("user")?,
        group_add: words.texts("group-add")?,
        hostname: words.given("hostname")?.map(|text| options::hostname(&text)).transpose()?,
        tty: words.switch("tty"),
        interactive: words.switch("interactive"),
        init: words.is_set("init"),
        stop_signal: words.given("stop-signal")?.map(stop_signal).transpose()?,
        labels: words.texts("label")?,
        annotations: words.texts("annotation")?,
        mounts: mounts(words)?,
        read_only: words.is_set("read-only"),
        shm_size: words.given("shm-size")?.map(|text| options::shm_size(&text)).transpose()?,
        upper: words.path("upper"),
        keep_layer: words.is_set("keep-layer"),
        memory: words.bytes("memory")?,
        memory_swap: words.bytes("memory-swap")?,
        memory_reservation: words.bytes("memory-reservation")?,
        cpus: words.given("cpus")?.map(|text| options::cpus(&text)).transpose()?,
        cpu_shares: words.number("cpu-shares")?,
        cpuset_cpus: words.given("cpuset-cpus")?,
        cpuset_mems: words.given("cpuset-mems")?,
        pids_limit: words.number("pids-limit")?,
        ulimits: each(words, "ulimit", options::ulimit)?,
        oom_score_adj: words.number("oom-score-adj")?,
        sysctls: each(words, "sysctl", sysctl)?,
        cgroup_parent: words.given("cgroup-parent")?,
        cap_add: words.texts("cap-add")?,
        cap_drop: words.texts("cap-drop")?,
        security: {
            let mut security = options::Security::default();
            words.texts("security-opt")?.iter().try_for_each(|text| security.add(text))?;
            security
        },
        devices: each(words, "device", options::device)?,
        privileged: words.is_set("privileged"),
        userns: match words.given("userns")?.as_deref() {
            None => UserNs::Default,
            Some("auto" | "private") => UserNs::Own,
            Some("keep-id") => UserNs::KeepId,
            Some("host") => UserNs::Host,
            Some(other) => return Err(unknown("userns", other, "auto, keep-id or host")),
        },
        pid_host: is_host(words, "pid")?,
        ipc_host: is_host(words, "ipc")?,
        uts_host: is_host(words, "uts")?,
        network: words.given("network")?.map(|text| Network::parse(&text)).transpose()?,
        publish: each(words, "publish", Port::parse)?,
        add_host: each(words, "add-host", options::add_host)?,
        dns: each(words, "dns", options::server)?,
    })
}

fn each<T>(words: &mut Words, long: &'static str, read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    words.texts(long)?.iter().map(|text| read(text)).collect()
}

/// In the order in which they were given: a later one may be inside an earlier one.
fn mounts(words: &mut Words) -> Result<Vec<options::Mount>> {
    let is_mount = |(name, _): &mut (&'static str, OsString)| ["volume", "mount", "tmpfs"].contains(name);
    let given: Vec<_> = words.options.extract_if(.., is_mount).collect();
    let read = |(name, text): (&'static str, OsString)| {
        let text = utf8(text, || format!("--{name}"))?;
        match name {
            "volume" => options::volume(&text),
            "mount" => options::mount(&text),
            _ => options::tmpfs(&text),
        }
    };
    given.into_iter().map(read).collect()
}

/// Those of the files first.
fn environment(words: &mut Words) -> Result<Vec<OsString>> {
    let mut all = vec![];
    for file in words.all("env-file") {
        let doing = || format!("--env-file: read {}", PathBuf::from(&file).display());
        let text = std::fs::read_to_string(&file).doing(doing)?;
        all.extend(options::variables(&text).doing(doing)?.into_iter().map(OsString::from));
    }
    all.extend(words.all("env"));
    Ok(all)
}

/// As it was said, which is what the annotation has.
fn stop_signal(name: String) -> Result<String> {
    signal(&name).doing(|| "--stop-signal").map(|_| name)
}

fn is_host(words: &mut Words, long: &'static str) -> Result<bool> {
    match words.given(long)?.as_deref() {
        None | Some("private") => Ok(false),
        Some("host") => Ok(true),
        Some(other) => Err(unknown(long, other, "host")),
    }
}

fn sysctl(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("--sysctl: {text:?} is not of the form KEY=VALUE"))),
    }
}

fn unknown(option: &str, word: &str, known: &'static str) -> Error {
    Error::usage(format!("--{option}: {word:?} is not known")).hint(known)
}

/// Words that need an image, and have none: what is left when all others were taken.
pub fn refuse_without_image(words: &Words) -> Result<()> {
    match words.options.first() {
        Some((long, _)) => {
            Err(Error::usage(format!("--{long} needs --image")).hint("config.json of the bundle says it otherwise"))
        }
        None => Ok(()),
    }
}
