//! Steps, their order and what takes them back: on files that stand for a cgroup's.

use std::fs;
use std::path::Path;

use super::super::{Driver, Place, UNIFIED};
use super::*;
use crate::plan::{Cpu, Memory, ThrottleDevice};

/// A directory that stands for a cgroup: no value of the host's can be relied on.
struct Stand(PathBuf);

impl Stand {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("kelson-update-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("c")).unwrap();
        for (file, text) in files {
            fs::write(path.join("c").join(file), format!("{text}\n")).unwrap();
        }
        let all = "cpuset cpu io memory pids hugetlb rdma";
        fs::write(path.join("cgroup.controllers"), all).unwrap();
        fs::write(path.join("cgroup.subtree_control"), all).unwrap();
        Self(path)
    }

    fn record(&self, version: Version) -> Record {
        let place = Place { mount_point: self.0.clone(), path: self.0.join("c") };
        let key = match version {
            Version::V1 => "cpuset,cpu,memory,pids,blkio",
            Version::V2 => UNIFIED,
        };
        Record { driver: Driver::Cgroupfs, version, places: [(key.into(), place)].into(), ..Record::default() }
    }

    /// Files and values in the order of writing, and what takes each back.
    #[track_caller]
    fn check(&self, version: Version, asked: &Resources, expected: &[(&str, &str, &[&str])]) {
        let record = self.record(version);
        let target = completed(&record, asked).unwrap();
        let steps = prepare(&record, asked, &target).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let found: Vec<_> = steps
            .iter()
            .map(|step| {
                let undo = step.undo.iter().map(|(path, value)| format!("{} {value}", name(path)));
                (step.file(), step.assignment.write.value.as_str(), undo.collect::<Vec<_>>())
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(file, value, undo)| (*file, *value, undo.iter().map(ToString::to_string).collect::<Vec<_>>()))
            .collect();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn check_refused(&self, version: Version, asked: &Resources, message: &str) {
        let record = self.record(version);
        let result = completed(&record, asked).and_then(|target| prepare(&record, asked, &target));
        assert_eq!(result.unwrap_err().to_string(), message);
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn memory(limit: impl Into<Option<i64>>, swap: impl Into<Option<i64>>) -> Resources {
    let memory = Memory { limit: limit.into(), swap: swap.into(), ..Memory::default() };
    Resources { memory, ..Resources::default() }
}

fn cpu(cpu: Cpu) -> Resources {
    Resources { cpu, ..Resources::default() }
}

const LIMIT: &str = "memory.limit_in_bytes";
const BOTH: &str = "memory.memsw.limit_in_bytes";

#[test]
fn v1_memory_and_swap_go_up_and_down() {
    let stand = Stand::new("v1-memory", &[(LIMIT, "200"), (BOTH, "300")]);
    let (limit_200, both_300) = (&["memory.limit_in_bytes 200"][..], &["memory.memsw.limit_in_bytes 300"][..]);
    for (asked, expected) in [
        (memory(100, 150), &[(LIMIT, "100", limit_200), (BOTH, "150", both_300)][..]),
        (memory(250, 400), &[(LIMIT, "250", limit_200), (BOTH, "400", both_300)]),
        (memory(350, 400), &[(BOTH, "400", both_300), (LIMIT, "350", limit_200)]),
        (memory(350, -1), &[(BOTH, "-1", both_300), (LIMIT, "350", limit_200)]),
        (memory(-1, None), &[(BOTH, "-1", both_300), (LIMIT, "-1", limit_200)]),
        (memory(300, None), &[(LIMIT, "300", limit_200)]),
        (memory(None, 250), &[(BOTH, "250", both_300)]),
        (memory(None, -1), &[(BOTH, "-1", both_300)]),
        (memory(200, 300), &[]),
        (memory(0, 0), &[]),
    ] {
        stand.check(Version::V1, &asked, expected);
    }
}

#[test]
fn v2_memory_and_swap_go_up_and_down() {
    let stand = Stand::new("v2-memory", &[("memory.max", "200"), ("memory.swap.max", "100")]);
    let (max_200, swap_100) = (&["memory.max 200"][..], &["memory.swap.max 100"][..]);
    for (asked, expected) in [
        // Room is made before it is needed, and taken when nobody needs it any more.
        (memory(100, 300), &[("memory.swap.max", "200", swap_100), ("memory.max", "100", max_200)][..]),
        (memory(100, 150), &[("memory.max", "100", max_200), ("memory.swap.max", "50", swap_100)]),
        (memory(250, 300), &[("memory.max", "250", max_200), ("memory.swap.max", "50", swap_100)]),
        (memory(-1, None), &[("memory.swap.max", "max", swap_100), ("memory.max", "max", max_200)]),
        // Together they stay what they are.
        (memory(150, None), &[("memory.swap.max", "150", swap_100), ("memory.max", "150", max_200)]),
        (memory(None, 250), &[("memory.swap.max", "50", swap_100)]),
        (memory(None, -1), &[("memory.swap.max", "max", swap_100)]),
    ] {
        stand.check(Version::V2, &asked, expected);
    }
}

#[test]
fn v2_memory_with_a_unit_goes_up_and_down() {
    let stand = Stand::new("v2-units", &[("memory.max", "2097152"), ("memory.swap.max", "1048576")]);
    let (max, swap) = (&["memory.max 2097152"][..], &["memory.swap.max 1048576"][..]);
    let with = |limit: &str, swap: &str| {
        let unified = [("memory.max", limit), ("memory.swap.max", swap)];
        let unified = unified.map(|(file, value)| (file.to_owned(), value.to_owned())).to_vec();
        Resources { unified, ..Resources::default() }
    };
    stand.check(Version::V2, &with("1M", "2M"), &[("memory.swap.max", "2M", swap), ("memory.max", "1M", max)]);
    stand.check(Version::V2, &with("1M", "512K"), &[("memory.max", "1M", max), ("memory.swap.max", "512K", swap)]);
}

#[test]
fn v2_no_swap_and_unlimited_swap_stay_so() {
    for (swap, name) in [("0", "none"), ("max", "unlimited")] {
        let stand = Stand::new(name, &[("memory.max", "200"), ("memory.swap.max", swap)]);
        stand.check(Version::V2, &memory(350, None), &[("memory.max", "350", &["memory.max 200"])]);
    }
}

#[test]
fn a_half_that_does_not_fit_the_other_is_refused_with_both_numbers() {
    let v1 = Stand::new("v1-half", &[(LIMIT, "200"), (BOTH, "300")]);
    let v2 = Stand::new("v2-half", &[("memory.max", "200"), ("memory.swap.max", "100")]);
    for (stand, version) in [(&v1, Version::V1), (&v2, Version::V2)] {
        stand.check_refused(
            version,
            &memory(400, None),
            "linux.resources.memory.limit: 400 is more than the 300 that memory and swap may take together \
             (change memory.swap (--memory-swap) with it)",
        );
        stand.check_refused(
            version,
            &memory(None, 150),
            "linux.resources.memory.swap: 150 is less than memory.limit, 200 (it limits memory and swap together)",
        );
    }
    let unlimited = Stand::new("half-unlimited", &[("memory.max", "max"), ("memory.swap.max", "max")]);
    unlimited.check_refused(
        Version::V2,
        &memory(None, 150),
        "linux.resources.memory.swap: is set without memory.limit (it limits memory and swap together)",
    );
}

#[test]
fn below_use_is_refused_where_the_check_is_asked_for() {
    let v1 = Stand::new("v1-use", &[(LIMIT, "200"), (BOTH, "300"), ("memory.usage_in_bytes", "150")]);
    let v2 = Stand::new("v2-use", &[("memory.max", "200"), ("memory.swap.max", "max"), ("memory.current", "150")]);
    for (stand, version) in [(&v1, Version::V1), (&v2, Version::V2)] {
        let mut asked = memory(100, None);
        asked.memory.check_before_update = true;
        stand.check_refused(
            version,
            &asked,
            "linux.resources.memory.limit: 100 is less than the 150 bytes in use \
             (linux.resources.memory.checkBeforeUpdate asks for this check)",
        );
        asked.memory.limit = Some(150);
        assert!(prepare(&stand.record(version), &asked, &asked).is_ok());
    }
    // In the kernel's own words.
    let mut asked = Resources { unified: vec![("memory.max".into(), "0x50".into())], ..Resources::default() };
    asked.memory.check_before_update = true;
    v2.check_refused(
        Version::V2,
        &asked,
        "linux.resources.unified[\"memory.max\"]: 80 is less than the 150 bytes in use \
         (linux.resources.memory.checkBeforeUpdate asks for this check)",
    );
}

#[test]
fn v1_parts_of_a_period_are_never_above_both() {
    let (period, quota, burst) = ("cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us");
    let stand = Stand::new("v1-cpu", &[(period, "100000"), (quota, "50000"), (burst, "20000")]);
    let undo_period = &["cpu.cfs_period_us 100000"][..];
    let undo_quota = &["cpu.cfs_quota_us 50000"][..];
    let undo_burst = &["cpu.cfs_burst_us 20000"][..];
    let limits = |quota, period, burst| cpu(Cpu { quota, period, burst, ..Cpu::default() });
    for (asked, expected) in [
        (limits(Some(80000), Some(200000), None), &[(period, "200000", undo_period), (quota, "80000", undo_quota)][..]),
        (limits(Some(20000), Some(50000), None), &[(quota, "20000", undo_quota), (period, "50000", undo_period)]),
        (
            limits(Some(10000), Some(50000), Some(5000)),
            &[(burst, "5000", undo_burst), (quota, "10000", undo_quota), (period, "50000", undo_period)],
        ),
        (limits(Some(70000), Some(100000), Some(60000)), &[(quota, "70000", undo_quota), (burst, "60000", undo_burst)]),
        (limits(Some(-1), None, None), &[(quota, "-1", undo_quota)]),
        (limits(None, Some(50000), None), &[(period, "50000", undo_period)]),
    ] {
        stand.check(Version::V1, &asked, expected);
    }
}

#[test]
fn v1_quota_and_period_complete_each_other() {
    let limits = |quota, period| cpu(Cpu { quota, period, ..Cpu::default() });
    for (name, there, asked, expected) in [
        ("period", ("40000", "200000"), limits(None, Some(100_000)), (Some(40_000), Some(100_000))),
        ("quota", ("40000", "200000"), limits(Some(60_000), None), (Some(60_000), Some(200_000))),
        ("no-quota", ("-1", "200000"), limits(None, Some(100_000)), (Some(-1), Some(100_000))),
        ("end", ("40000", "200000"), limits(Some(-1), None), (Some(-1), Some(200_000))),
        ("neither", ("40000", "200000"), limits(None, None), (None, None)),
        ("both", ("40000", "200000"), limits(Some(5000), Some(10_000)), (Some(5000), Some(10_000))),
    ] {
        let stand =
            Stand::new(&format!("v1-half-{name}"), &[("cpu.cfs_quota_us", there.0), ("cpu.cfs_period_us", there.1)]);
        let target = completed(&stand.record(Version::V1), &asked).unwrap();
        assert_eq!((target.cpu.quota, target.cpu.period), expected, "{name}");
    }
}

#[test]
fn v2_quota_and_period_complete_each_other() {
    let stand = Stand::new("v2-cpu", &[("cpu.max", "50000 200000"), ("cpu.max.burst", "20000")]);
    let undo = &["cpu.max 50000 200000"][..];
    let limits = |quota, period, burst| cpu(Cpu { quota, period, burst, ..Cpu::default() });
    stand.check(Version::V2, &limits(Some(30000), None, None), &[("cpu.max", "30000 200000", undo)]);
    stand.check(Version::V2, &limits(None, Some(100000), None), &[("cpu.max", "50000 100000", undo)]);
    stand.check(Version::V2, &limits(Some(-1), None, None), &[("cpu.max", "max 200000", undo)]);
    let undo_burst = &["cpu.max.burst 20000"][..];
    stand.check(
        Version::V2,
        &limits(Some(10000), None, Some(5000)),
        &[("cpu.max.burst", "5000", undo_burst), ("cpu.max", "10000 200000", undo)],
    );
    // The property that an error would name.
    let asked = limits(None, Some(5), None);
    let record = stand.record(Version::V2);
    let steps = prepare(&record, &asked, &completed(&record, &asked).unwrap()).unwrap();
    assert_eq!(steps[0].assignment.write.property, CPU_PERIOD);
}

#[test]
fn a_weight_goes_before_idle_and_comes_back_after_it() {
    let busy = Stand::new("busy", &[("cpu.weight", "50"), ("cpu.idle", "0")]);
    let limits = |shares, idle| cpu(Cpu { shares, idle, ..Cpu::default() });
    busy.check(
        Version::V2,
        &limits(Some(1024), Some(1)),
        &[("cpu.weight", "100", &["cpu.weight 50"]), ("cpu.idle", "1", &["cpu.idle 0", "cpu.weight 50"])],
    );
    let idle = Stand::new("idle", &[("cpu.shares", "3"), ("cpu.idle", "1")]);
    idle.check(Version::V1, &limits(Some(3), Some(0)), &[("cpu.idle", "0", &["cpu.idle 1"]), ("cpu.shares", "3", &[])]);
    idle.check(Version::V1, &limits(Some(1024), Some(1)), &[]);
}

#[test]
fn what_systemd_writes_in_its_own_words_is_written_again() {
    for (name, version, files, of_systemd, after) in [
        (
            "rounded",
            Version::V2,
            &[("cpu.max", "12500 100000"), ("cpu.weight", "150"), ("cpu.idle", "0"), ("pids.max", "0")][..],
            &[("cpu.max", "13000 100000"), ("cpu.weight", "100"), ("cpu.idle", "1"), ("pids.max", "1")][..],
            &[("cpu.max", "12500 100000"), ("cpu.weight", "150"), ("cpu.idle", "0"), ("pids.max", "0")][..],
        ),
        (
            // It would refuse the weight that it showed.
            "idle",
            Version::V2,
            &[("cpu.weight", "  0"), ("cpu.idle", "1")],
            &[("cpu.weight", "100"), ("cpu.idle", "0")],
            &[("cpu.weight", "100"), ("cpu.idle", "1")],
        ),
        (
            "v1",
            Version::V1,
            &[("cpu.cfs_quota_us", "12500"), ("cpu.cfs_period_us", "200000"), ("pids.max", "5")],
            &[("cpu.cfs_quota_us", "13000"), ("cpu.cfs_period_us", "100000")],
            &[("cpu.cfs_quota_us", "12500"), ("cpu.cfs_period_us", "200000"), ("pids.max", "5")],
        ),
    ] {
        let stand = Stand::new(&format!("own-words-{name}"), files);
        let unit = systemd::Unit::of(None, "test", false).unwrap();
        let record = Record { unit: Some(unit), ..stand.record(version) };
        let before = held(&record).unwrap();
        let path = |file: &str| stand.0.join("c").join(file);
        for (file, text) in of_systemd {
            fs::write(path(file), format!("{text}\n")).unwrap();
        }
        hold(before).unwrap();
        for (file, text) in after {
            assert_eq!(fs::read_to_string(path(file)).unwrap(), format!("{text}\n"), "{file}, {name}");
        }
        // With another driver nobody else writes.
        assert!(held(&stand.record(version)).unwrap().is_empty());
    }
}

#[test]
fn an_oom_killer_comes_back() {
    let file = "memory.oom_control";
    let text = |disabled: u8| format!("oom_kill_disable {disabled}\nunder_oom 0\noom_kill 0");
    let mut asked = Resources::default();
    asked.memory.disable_oom_killer = Some(false);
    Stand::new("no-oom", &[(file, &text(1))]).check(Version::V1, &asked, &[(file, "0", &["memory.oom_control 1"])]);
    Stand::new("oom", &[(file, &text(0))]).check(Version::V1, &asked, &[]);
    Stand::new("v2-oom", &[]).check(Version::V2, &asked, &[]);
}

#[test]
fn memory_is_last() {
    let stand = Stand::new(
        "last",
        &[
            ("memory.max", "200"),
            ("memory.swap.max", "max"),
            ("memory.low", "0"),
            ("pids.max", "max"),
            ("cpuset.cpus", ""),
        ],
    );
    let mut asked = memory(100, None);
    asked.memory.reservation = Some(50);
    asked.pids_limit = Some(7);
    asked.cpu.cpus = Some("0".into());
    stand.check(
        Version::V2,
        &asked,
        &[
            ("cpuset.cpus", "0", &["cpuset.cpus \n"]),
            ("memory.low", "50", &["memory.low 0"]),
            ("pids.max", "7", &["pids.max max"]),
            ("memory.max", "100", &["memory.max 200"]),
        ],
    );
}

#[test]
fn what_was_there_is_told_file_by_file() {
    for (file, value, text, expected) in [
        ("pids.max", "5", "max", "max"),
        ("cpuset.cpus", "0", "", "\n"),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 0", "0"),
        ("io.weight", "200", "default 100\n8:0 50", "100"),
        ("io.bfq.weight", "8:0 200", "default 100\n8:0 50", "8:0 50"),
        ("io.bfq.weight", "8:16 200", "default 100\n8:0 50", "8:16 default"),
        ("io.bfq.weight", "200", "100", "100"),
        ("io.max", "8:0 rbps=5", "8:0 rbps=9 wbps=max riops=max wiops=7", "8:0 rbps=9 wbps=max riops=max wiops=7"),
        (
            "io.max",
            "8:16 rbps=5",
            "8:0 rbps=9 wbps=max riops=max wiops=7",
            "8:16 rbps=max wbps=max riops=max wiops=max",
        ),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:1 7\n8:0 9", "8:0 9"),
        ("blkio.throttle.read_bps_device", "8:0 5", "", "8:0 0"),
        ("blkio.bfq.weight", "200", "100", "100"),
        (
            "rdma.max",
            "mlx4_0 hca_handle=2",
            "mlx4_0 hca_handle=max hca_object=max",
            "mlx4_0 hca_handle=max hca_object=max",
        ),
        ("net_prio.ifpriomap", "lo 5", "lo 0\neth0 3", "lo 0"),
    ] {
        assert_eq!(before(file, value, text), expected, "{file} {value}");
    }
}

#[test]
fn the_last_of_two_values_for_a_file_holds() {
    let stand = Stand::new("twice", &[("pids.max", "5")]);
    let unified = vec![("pids.max".into(), "5".into())];
    let undo = &["pids.max 5"][..];
    let asked = Resources { pids_limit: Some(7), unified: unified.clone(), ..Resources::default() };
    stand.check(Version::V2, &asked, &[("pids.max", "7", undo), ("pids.max", "5", undo)]);
    stand.check(Version::V2, &Resources { unified, ..Resources::default() }, &[]);
}

#[test]
fn throttles_of_one_device_are_one_line_on_v2() {
    let device = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
    let mut asked = Resources::default();
    asked.block_io.throttle_read_bps = device(5);
    asked.block_io.throttle_write_iops = device(0);
    let stand = Stand::new("io", &[("io.max", "8:0 rbps=9 wbps=max riops=max wiops=7")]);
    let undo = &["io.max 8:0 rbps=9 wbps=max riops=max wiops=7"][..];
    stand.check(Version::V2, &asked, &[("io.max", "8:0 rbps=5", undo), ("io.max", "8:0 wiops=max", undo)]);
}

#[test]
fn a_file_that_is_missing_is_refused_before_anything_is_written() {
    let stand = Stand::new("missing", &[("pids.max", "max")]);
    let mut asked = Resources { pids_limit: Some(7), ..Resources::default() };
    asked.unified.push(("memory.nope".into(), "1".into()));
    stand.check_refused(
        Version::V2,
        &asked,
        "write \"1\" to memory.nope: linux.resources.unified[\"memory.nope\"]: no such file or directory \
         (this kernel has no such file)",
    );
    asked.unified.clear();
    // Instead of blkio.weight, and what an older kernel does by itself.
    asked.block_io.weight = Some(500);
    asked.cpu.burst = Some(0);
    let stand = Stand::new("instead", &[("pids.max", "max"), ("blkio.bfq.weight", "100")]);
    let undo: &[(&str, &str, &[&str])] =
        &[("pids.max", "7", &["pids.max max"]), ("blkio.bfq.weight", "500", &["blkio.bfq.weight 100"])];
    stand.check(Version::V1, &asked, undo);
}
