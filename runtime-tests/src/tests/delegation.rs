//! A cgroup v2 that the container's own user manages: config-linux.md#cgroup-ownership, and exec where init moved down in it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::{Bundle, Container, Context, Outcome, Test, json};
use crate::{check, check_eq};

pub const TESTS: &[Test] = &[
    Test { name: "belongs_to_the_user_of_the_container", run: to_user },
    Test { name: "belongs_to_an_ordinary_user", run: to_ordinary_user },
    Test { name: "limits_stay_the_creators", run: limits_stay },
    Test { name: "readonly_mount_keeps_the_owner", run: readonly },
    Test { name: "exec_follows_init_into_its_cgroup", run: exec_follows },
];

/// The first user of the container on the host.
const ROOT: u32 = 100_000;

const FILES: [&str; 4] = ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

fn writable(bundle: &mut Bundle<'_>) {
    bundle.without_mount("/sys/fs/cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    bundle.namespace("cgroup", None);
}

fn check_owner(container: &Container<'_>, uid: u32) -> Outcome {
    for file in FILES {
        let path = container.cgroup("freezer").join(file);
        check_eq!(fs::metadata(&path)?.uid(), uid, "owner of {}", path.display());
    }
    Ok(())
}

/// Root of the container makes cgroups in its own and moves a process there.
fn to_user(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    let mut bundle = ctx.bundle()?;
    writable(&mut bundle);
    bundle.user_namespace(&[(0, ROOT, 1000)])?;
    let inner = "/sys/fs/cgroup/inner";
    let procs = format!("{inner}/cgroup.procs");
    let mut container =
        bundle.guest(&["mkdir", inner, ",", "poke", &procs, "0", ",", "ready", ",", "sleep"]).start()?;
    check_owner(&container, ROOT)?;
    check_eq!(container.hear("mkdir")?["errno"], json!(0), "errno of mkdir in the own cgroup");
    check_eq!(container.hear("write")?["errno"], json!(0), "errno of moving to a cgroup that was made");
    container.hear("ready")?;
    let pid = container.pid()?;
    let inside = fs::read_to_string(container.cgroup("freezer").join("inner/cgroup.procs"))?;
    check_eq!(inside.trim(), pid.to_string(), "processes of the cgroup that was made");
    container.end()
}

fn to_ordinary_user(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    let mut bundle = ctx.bundle()?;
    writable(&mut bundle);
    let container = bundle.set("/process/user", json!({"uid": 1234, "gid": 0})).guest(&["sleep"]).start()?;
    check_owner(&container, 1234)?;
    container.end()
}

/// Only what /sys/kernel/cgroup/delegate lists is given away.
fn limits_stay(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    ctx.need_controller("memory")?;
    let mut bundle = ctx.bundle()?;
    writable(&mut bundle);
    bundle.user_namespace(&[(0, ROOT, 1000)])?.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    let mut container =
        bundle.guest(&["poke", "/sys/fs/cgroup/memory.max", "max", ",", "ready", ",", "sleep"]).start()?;
    check!(container.hear("write")?["errno"] != json!(0), "the container may change its own limit");
    container.hear("ready")?;
    check_eq!(fs::metadata(container.cgroup("memory").join("memory.max"))?.uid(), 0, "owner of memory.max");
    check_eq!(container.cgroup_file("memory", "memory.max")?, (64 << 20).to_string(), "memory.max");
    let delegated = fs::read_to_string("/sys/kernel/cgroup/delegate")?;
    for name in delegated.lines() {
        if let Ok(metadata) = fs::metadata(container.cgroup("freezer").join(name)) {
            check_eq!(metadata.uid(), ROOT, "owner of {name}");
        }
    }
    container.end()
}

fn readonly(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    let mut bundle = ctx.bundle()?;
    writable(&mut bundle);
    bundle.without_mount("/sys/fs/cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    bundle.user_namespace(&[(0, ROOT, 1000)])?;
    let container = bundle.guest(&["sleep"]).start()?;
    check_owner(&container, 0)?;
    container.end()
}

/// As systemd, k3s or Docker in a container: the processes go to a cgroup below, so that controllers can be enabled; a cgroup with
/// controllers enabled takes none (EBUSY, runc#2416).
fn exec_follows(ctx: &Context) -> Outcome {
    ctx.need_v2()?;
    ctx.need_controller("pids")?;
    let mut bundle = ctx.bundle()?;
    writable(&mut bundle);
    let own = "/sys/fs/cgroup";
    let mut container = bundle
        .guest(&[
            "mkdir",
            &format!("{own}/init.scope"),
            ",",
            "poke",
            &format!("{own}/init.scope/cgroup.procs"),
            "0",
            ",",
            "poke",
            &format!("{own}/cgroup.subtree_control"),
            "+pids",
            ",",
            "ready",
            ",",
            "sleep",
        ])
        .start()?;
    container.hear("ready")?;
    check_eq!(container.cgroup_file("freezer", "cgroup.subtree_control")?, "pids", "controllers enabled below");
    let seen = container.exec(&["report"])?.ok()?.report()?;
    let lines = seen["cgroup"].as_array().cloned().unwrap_or_default();
    check_eq!(lines, [json!("0::/init.scope")], "cgroup of exec");
    container.end()
}
