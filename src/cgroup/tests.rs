//! On the kernel, in whatever hierarchies this host has: as root, else skipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::plan::{Cpu, DeviceRule, DeviceRuleKind, Memory};

/// A name that no other test and no other run of them has.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("kelson-unit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether the test can run; says why not.
fn can_make_cgroups() -> bool {
    let can = nix::unistd::geteuid().is_root()
        && locate(Driver::Cgroupfs, Some("/kelson-unit-probe"), "x", &Resources::default(), false, None)
            .is_ok_and(|record| record.places.values().all(|p| !is_read_only(&p.mount_point)));
    if !can {
        eprintln!("skipped: needs root and writable cgroup hierarchies");
    }
    can
}

fn is_read_only(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path).is_ok_and(|s| s.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

fn located(path: &str, resources: &Resources) -> Record {
    locate(Driver::Cgroupfs, Some(path), "unused", resources, false, None).unwrap()
}

fn created(path: &str, resources: &Resources) -> Cgroup {
    create(located(path, resources), resources, None, |_| Ok(())).unwrap()
}

/// A shell that joins the cgroups and runs `script`. It stands for init: one thread, which writes to its own `tasks`.
fn spawn_inside(record: &Record, script: &str) -> Running {
    let mut joins = String::from("set -e; ");
    for (key, place) in &record.places {
        let file = if key == UNIFIED { "cgroup.procs" } else { "tasks" };
        joins.push_str(&format!("echo 0 > {}/{file}; ", place.path.display()));
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{joins} set +e; {script}")]).stdin(Stdio::null()).stdout(Stdio::null());
    let running = Running { child: command.stderr(Stdio::null()).spawn().unwrap(), record: record.clone() };
    wait_until(|| {
        let own = fs::read_to_string(format!("/proc/{}/cgroup", running.child.id())).unwrap_or_default();
        let name = record.places.values().next().unwrap().path.file_name().unwrap().to_string_lossy().into_owned();
        own.lines().filter(|line| line.contains(&name)).count() == record.places.len()
    });
    running
}

/// Leaves no process and no cgroup behind when a test fails.
struct Running {
    child: Child,
    record: Record,
}

impl Running {
    fn id(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = self.record.signal_all(libc::SIGKILL);
            let _ = self.record.remove();
        }
    }
}

#[track_caller]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn value(record: &Record, controller: &str, v1: &str, v2: &str) -> Option<String> {
    let path = match record.v1(controller) {
        Some(path) => path.join(v1),
        None => record.unified()?.join(v2),
    };
    files::read(&path).ok()
}

fn rule(allow: bool, kind: DeviceRuleKind, numbers: Option<(u32, u32)>) -> DeviceRule {
    let (major, minor) = (numbers.map(|n| n.0), numbers.map(|n| n.1));
    DeviceRule { allow, kind, major, minor, read: true, write: true, mknod: true }
}

#[test]
fn limits_are_in_place_before_anybody_is_inside() {
    if !can_make_cgroups() {
        return;
    }
    let path = format!("/{}", unique());
    let mut resources = Resources::default();
    let record = located(&path, &resources);
    let is_v2 = record.version() == Version::V2;
    let offered =
        record.places.get(UNIFIED).map(|place| files::read(&place.mount_point.join("cgroup.controllers")).unwrap());
    let has = |controller: &str| {
        record.v1(controller).is_some()
            || is_v2 && offered.as_ref().is_some_and(|list| list.split(' ').any(|name| name == controller))
    };
    if has("memory") {
        resources.memory = Memory { limit: Some(64 << 20), swap: Some(128 << 20), ..Default::default() };
    }
    if has("cpu") {
        resources.cpu = Cpu { shares: Some(512), quota: Some(20_000), period: Some(50_000), ..Default::default() };
    }
    if has("cpuset") {
        resources.cpu.cpus = Some("0".into());
    }
    if has("pids") {
        resources.pids_limit = Some(0);
    }
    let mut cgroup = created(&path, &resources);
    cgroup.complete(&resources).unwrap();
    let record = cgroup.record();
    for (controller, v1, v2, expected_v1, expected_v2) in [
        ("memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "134217728", "67108864"),
        ("cpu", "cpu.shares", "cpu.weight", "512", "59"),
        ("cpu", "cpu.cfs_quota_us", "cpu.max", "20000", "20000 50000"),
        ("cpu", "cpu.cfs_period_us", "cpu.max", "50000", "20000 50000"),
        ("cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0"),
        ("pids", "pids.max", "pids.max", "0", "0"),
    ] {
        if has(controller) {
            let expected = if is_v2 { expected_v2 } else { expected_v1 };
            assert_eq!(value(record, controller, v1, v2).as_deref(), Some(expected), "{v1} {v2}");
        }
    }
    if has("cpuset") {
        assert_ne!(value(record, "cpuset", "cpuset.mems", "cpuset.mems.effective").as_deref(), Some(""));
    }
    let places: Vec<_> = record.places.values().map(|place| place.path.clone()).collect();
    drop(cgroup);
    assert!(places.iter().all(|path| !path.exists()), "drop removes what was made");
}

#[test]
fn a_refused_limit_names_file_value_and_property_and_leaves_nothing() {
    if !can_make_cgroups() {
        return;
    }
    let path = format!("/{}/inner", unique());
    let resources = Resources { cpu: Cpu { cpus: Some("9999".into()), ..Default::default() }, ..Default::default() };
    let Ok(record) = locate(Driver::Cgroupfs, Some(&path), "x", &resources, false, None) else {
        eprintln!("skipped: no cpuset controller");
        return;
    };
    let places: Vec<_> = record.places.values().map(|place| place.path.clone()).collect();
    let error = create(record, &resources, None, |_| Ok(())).unwrap_err();
    assert_eq!(error.property(), Some("linux.resources.cpu.cpus"));
    let text = error.to_string();
    assert!(text.starts_with("write \"9999\" to cpuset.cpus: linux.resources.cpu.cpus: "), "{text}");
    assert!(text.contains("(the parent cgroup has "), "{text}");
    for path in places {
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }
}

#[test]
fn everything_in_it_is_found_frozen_killed_and_removed() {
    if !can_make_cgroups() {
        return;
    }
    let resources = Resources::default();
    let record = created(&format!("/{}", unique()), &resources).keep();
    assert!(record.ready);
    let mut child = spawn_inside(&record, "sleep 1000 & sleep 1000 & wait");
    wait_until(|| record.processes().unwrap().len() == 3);
    if record.v1("freezer").is_some() || record.unified().is_some() {
        assert!(!record.is_frozen().unwrap());
        record.freeze().unwrap();
        assert!(record.is_frozen().unwrap());
        record.thaw().unwrap();
        assert!(!record.is_frozen().unwrap());
        record.freeze().unwrap();
    }
    // The container's own cgroup below it.
    let sub = record.main().unwrap().join("sub");
    fs::create_dir(&sub).unwrap();
    let busy = {
        let started = Instant::now();
        let error = record.remove().unwrap_err();
        assert!(started.elapsed() >= REMOVE_TIMEOUT);
        error.to_string()
    };
    assert!(busy.contains(&child.id().to_string()), "{busy}");
    record.signal_all(libc::SIGKILL).unwrap();
    assert_eq!(child.wait().signal(), Some(libc::SIGKILL));
    record.remove().unwrap();
    assert!(record.places.values().all(|place| !place.path.exists()));
    record.remove().unwrap();
    assert_eq!(record.processes().unwrap(), [0i32; 0]);
    record.signal_all(libc::SIGKILL).unwrap();
}

#[test]
fn cgroups_deeper_than_a_path_can_say_are_listed_signalled_and_removed() {
    if !can_make_cgroups() {
        return;
    }
    let record = created(&format!("/{}", unique()), &Resources::default()).keep();
    let mut child = spawn_inside(&record, "exec sleep 1000");
    let name = "n".repeat(200);
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for place in record.places.values() {
        let mut at = open(&place.path, flags).unwrap();
        for _ in 0..25 {
            nix::sys::stat::mkdirat(&at, name.as_str(), Mode::S_IRWXU).unwrap();
            at = openat(&at, name.as_str(), flags, Mode::empty()).unwrap();
        }
        if place.path == record.main().unwrap() {
            let procs = openat(&at, "cgroup.procs", OFlag::O_WRONLY, Mode::empty()).unwrap();
            write(procs, child.id().to_string().as_bytes()).unwrap();
        }
    }
    assert_eq!(files::read(&record.main().unwrap().join("cgroup.procs")).unwrap(), "");
    assert_eq!(record.processes().unwrap(), [child.id() as i32]);
    record.signal_all(libc::SIGTERM).unwrap();
    assert_eq!(child.wait().signal(), Some(libc::SIGTERM));
    record.remove().unwrap();
    assert!(record.places.values().all(|place| !place.path.exists()));
}

#[test]
fn a_signal_reaches_those_that_fork_meanwhile() {
    if !can_make_cgroups() {
        return;
    }
    let mut record = created(&format!("/{}", unique()), &Resources::default()).keep();
    let mut child = spawn_inside(&record, "while :; do sleep 0.02 & sleep 0.02 & sleep 0.005; done");
    // Without the unified hierarchy there is no cgroup.kill: the loop has to catch them.
    let unified = record.places.len() > 1 && record.places.contains_key(UNIFIED);
    let hidden = if unified { record.places.remove(UNIFIED) } else { None };
    wait_until(|| record.processes().unwrap().len() > 3);
    record.signal_all(libc::SIGKILL).unwrap();
    child.wait();
    record.places.extend(hidden.map(|place| (UNIFIED.to_string(), place)));
    record.remove().unwrap();
}

#[test]
fn a_cgroup_in_use_or_frozen_is_refused_and_left_alone() {
    if !can_make_cgroups() {
        return;
    }
    let path = format!("/{}", unique());
    let resources = Resources::default();
    let first = created(&path, &resources).keep();
    let mut child = spawn_inside(&first, "exec sleep 1000");
    let error = create(located(&path, &resources), &resources, None, |_| Ok(())).unwrap_err();
    assert_eq!(error.property(), Some("linux.cgroupsPath"));
    assert!(error.to_string().contains(&format!("is in use by process {}", child.id())), "{error}");
    // A journal of a create that was killed before it looked must not cost the others their lives.
    let journal = located(&path, &resources);
    assert!(journal.made.is_empty() && !journal.ready);
    assert_eq!(journal.processes().unwrap(), [0i32; 0]);
    journal.signal_all(libc::SIGKILL).unwrap();
    journal.remove().unwrap();
    assert_eq!(first.processes().unwrap(), [child.id() as i32]);
    first.signal_all(libc::SIGKILL).unwrap();
    child.wait();
    wait_until(|| first.processes().unwrap().is_empty());
    if first.v1("freezer").is_some() {
        first.freeze().unwrap();
        let error = create(located(&path, &resources), &resources, None, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("is frozen"), "{error}");
    }
    // Empty and thawed it is still that of a container, whose deletion would be the end of another in it.
    first.thaw().unwrap();
    let error = create(located(&path, &resources), &resources, None, |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("another --root"), "{error}");
    // One that no Kelson made for a container may be used, and is not removed by who uses it.
    for place in first.places.values() {
        fs::set_permissions(&place.path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let second = created(&path, &resources).keep();
    second.remove().unwrap();
    assert!(first.places.values().all(|place| place.path.exists()));
    first.remove().unwrap();
}

#[test]
fn a_parent_goes_with_its_last_container_whoever_made_it() {
    if !can_make_cgroups() {
        return;
    }
    let parent = format!("/{}", unique());
    let resources = Resources::default();
    let exists = |record: &Record| record.places.values().filter(|p| p.path.parent().unwrap().exists()).count();
    let first = created(&format!("{parent}/deep/a"), &resources).keep();
    let second = created(&format!("{parent}/deep/b"), &resources).keep();
    assert_eq!(second.made.len(), second.places.len(), "the second made no parent");
    first.remove().unwrap();
    assert_eq!(exists(&second), second.places.len());
    second.remove().unwrap();
    for place in second.places.values() {
        assert!(!place.mount_point.join(&parent[1..]).exists());
    }

    // Killed between mkdir(2) and the mark: its undo passes the knowledge on.
    let journal = located(&format!("{parent}/deep/c"), &resources);
    for place in journal.places.values() {
        fs::create_dir_all(place.path.parent().unwrap()).unwrap();
    }
    let third = created(&format!("{parent}/deep/d"), &resources).keep();
    journal.remove().unwrap();
    assert_eq!(exists(&third), third.places.len());
    third.remove().unwrap();
    for place in third.places.values() {
        assert!(!place.mount_point.join(&parent[1..]).exists());
    }

    // One that somebody else made stays.
    let fourth = located(&format!("{parent}/e"), &resources);
    for place in fourth.places.values() {
        fs::create_dir(place.path.parent().unwrap()).unwrap();
    }
    created(&format!("{parent}/e"), &resources).keep().remove().unwrap();
    assert_eq!(exists(&fourth), fourth.places.len());
    for place in fourth.places.values() {
        fs::remove_dir(place.path.parent().unwrap()).unwrap();
    }
}

#[test]
fn creates_and_deletes_below_one_parent_do_not_fail_each_other() {
    if !can_make_cgroups() {
        return;
    }
    let parent = format!("/{}", unique());
    let resources = Resources::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (parent, resources) = (&parent, &resources);
            scope.spawn(move || {
                for round in 0..15 {
                    created(&format!("{parent}/p/{thread}-{round}"), resources).keep().remove().unwrap();
                }
            });
        }
    });
    for place in located(&parent, &resources).places.values() {
        assert!(!place.path.exists(), "{}", place.path.display());
    }
}

#[test]
fn device_rules_hold() {
    if !can_make_cgroups() {
        return;
    }
    let null = rule(false, DeviceRuleKind::Char, Some((1, 3)));
    let everything = rule(true, DeviceRuleKind::All, None);
    for (devices, opens) in [
        (vec![], [("/dev/null", true), ("/dev/kmsg", false)]),
        (vec![everything.clone()], [("/dev/null", true), ("/dev/kmsg", true)]),
        (vec![everything, null], [("/dev/null", false), ("/dev/kmsg", true)]),
    ] {
        let resources = Resources { devices, ..Default::default() };
        let mut cgroup = created(&format!("/{}", unique()), &resources);
        cgroup.complete(&resources).unwrap();
        for (device, expected) in opens {
            let mut child = spawn_inside(cgroup.record(), &format!("sleep 0.1; exec 7<{device}"));
            let opened = child.wait().success();
            assert_eq!(opened, expected, "{device} with {:?}", resources.devices);
        }
        wait_until(|| cgroup.record().processes().unwrap().is_empty());
        cgroup.keep().remove().unwrap();
    }
}

#[test]
fn paths_cannot_leave_the_hierarchy() {
    if !can_make_cgroups() {
        return;
    }
    let name = unique();
    for path in [format!("/../../../../tmp/{name}"), format!("/a/../{name}/./x/..")] {
        let record = located(&path, &Resources::default());
        for place in record.places.values() {
            assert!(place.path.starts_with(&place.mount_point), "{}", place.path.display());
            assert!(!place.path.components().any(|c| c == std::path::Component::ParentDir));
        }
    }
    for path in ["/", "/..", "a/.."] {
        let error = locate(Driver::Cgroupfs, Some(path), "x", &Resources::default(), false, None).unwrap_err();
        assert_eq!(error.property(), Some("linux.cgroupsPath"), "{path}");
    }
}

#[test]
fn without_a_driver_there_is_no_cgroup() {
    let resources = Resources { pids_limit: Some(5), ..Default::default() };
    let record = locate(Driver::None, Some("/x"), "x", &resources, false, None).unwrap();
    assert!(!record.has_cgroup());
    let cgroup = create(record, &resources, None, |_| Ok(())).unwrap();
    let entry = cgroup.entry().unwrap();
    assert!(entry.into.is_none() && entry.tasks.is_empty());
    let record = cgroup.keep();
    assert_eq!(record.processes().unwrap(), [0i32; 0]);
    record.signal_all(libc::SIGKILL).unwrap();
    record.remove().unwrap();
    assert!(!record.is_frozen().unwrap());
    assert!(record.freeze().is_err());
}

#[test]
fn a_controller_that_no_hierarchy_has_is_refused_by_property() {
    let resources = Resources { pids_limit: Some(5), ..Default::default() };
    let record = Record::default();
    let error = limits::assign(&record, &resources).unwrap_err();
    assert_eq!(error.property(), Some("linux.resources.pids.limit"));
}

#[test]
fn a_record_survives_json() {
    let place = Place { mount_point: "/sys/fs/cgroup/memory".into(), path: "/sys/fs/cgroup/memory/a".into() };
    let record = Record {
        places: [("memory".to_string(), place)].into(),
        made: vec!["/sys/fs/cgroup/memory/a".into()],
        ready: true,
        ..Default::default()
    };
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
}

#[test]
fn records_from_before_the_systemd_driver_are_read() {
    let text = r#"{"driver":"cgroupfs","version":"v2","places":{"":{"mount_point":"/sys/fs/cgroup","path":"/sys/fs/cgroup/a"}},
        "made":["/sys/fs/cgroup/a"],"ready":true,"rootless":false}"#;
    let record: Record = serde_json::from_str(text).unwrap();
    assert_eq!((record.driver, record.unit), (Driver::Cgroupfs, None));
}

#[test]
fn sub_cgroups_stay_below_the_container() {
    let sub = |text| SubCgroup::parse(text).map(|sub| (sub.controllers, sub.path));
    assert_eq!(sub("/a/b").unwrap(), (vec![], "/a/b".into()));
    assert_eq!(sub("cpu,memory:a").unwrap(), (vec!["cpu".into(), "memory".into()], "/a".into()));
    for text in ["..", "a/../../b", "cpu:..", "", "cpu:", ":a", "cpu,:a"] {
        assert!(sub(text).is_err(), "{text:?}");
    }
}

#[test]
fn co_mounted_controllers_have_links() {
    let place = Place { mount_point: "/sys/fs/cgroup/cpu,cpuacct".into(), path: "/sys/fs/cgroup/cpu,cpuacct/x".into() };
    let mount = hierarchy_mount("cpu,cpuacct", place, false);
    assert_eq!((mount.name.as_str(), mount.options.as_str()), ("cpu,cpuacct", "cpu,cpuacct"));
    assert_eq!(mount.links, ["cpu", "cpuacct"]);
    let place = Place { mount_point: "/sys/fs/cgroup/systemd".into(), path: "/sys/fs/cgroup/systemd/x".into() };
    let mount = hierarchy_mount("name=systemd", place, false);
    assert_eq!((mount.name.as_str(), mount.options.as_str()), ("systemd", "none,name=systemd"));
    assert!(mount.links.is_empty());
}
