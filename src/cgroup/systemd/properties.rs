//! `linux.resources` → properties of a unit. Pure.
//!
//! They are made from the writes to the cgroup's files ([`super::super::resources`]), so that a number is computed once. Files that
//! systemd has no property for are written by Kelson alone: systemd does not touch them. The others are written, too, after systemd
//! did, and both say the same: systemd writes its own again at each `daemon-reload` and `set-property`.

use crate::cgroup::resources::{Absent, Version, Write, bytes};
use crate::dbus::Value;

/// A property of a unit, as StartTransientUnit and SetUnitProperties take it (org.freedesktop.systemd1(5)).
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    /// Kelson writes the file that this stands for: a systemd that is too old for it may do without.
    pub is_in_files: bool,
}

impl Property {
    pub fn new(name: impl Into<String>, value: Value) -> Self {
        Self { name: name.into(), value, is_in_files: false }
    }

    fn of_file(name: &str, value: Value) -> Self {
        Self { name: name.into(), value, is_in_files: true }
    }
}

/// USEC_INFINITY and CGROUP_LIMIT_MAX of systemd.
const UNLIMITED: u64 = u64::MAX;

/// The default of the kernel and of systemd, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// What the property `IOWeight` of systemd becomes in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoWeights {
    /// `io.weight`, and nothing else.
    Plain,
    /// `io.bfq.weight` as well, which has a smaller range.
    Bfq,
}

impl IoWeights {
    /// Where disks have these schedulers to choose from, the one in use in brackets (queue/scheduler of sysfs): cgroups have a weight of
    /// bfq once that is there, whichever is in use.
    pub fn of_schedulers(mut lists: impl Iterator<Item = String>) -> Self {
        let has_bfq = |list: String| list.split_whitespace().any(|name| name.trim_matches(['[', ']']) == "bfq");
        if lists.any(has_bfq) { IoWeights::Bfq } else { IoWeights::Plain }
    }
}

/// The properties for `writes`, in order; of two for one property the later counts.
pub fn of_writes(writes: &[&Write], version: Version, weights: IoWeights) -> Vec<Property> {
    let mut properties: Vec<Property> = vec![];
    for write in writes {
        let found = match version {
            Version::V1 => of_write_v1(write),
            Version::V2 => of_write_v2(write, weights),
        };
        for property in found {
            // Those of devices are lists, of which each call adds an entry.
            if property.name != IO_DEVICE_WEIGHT {
                properties.retain(|earlier| earlier.name != property.name);
            }
            properties.push(property);
        }
    }
    if version == Version::V1 {
        properties.extend(quota_v1(writes));
    }
    properties
}

fn of_write_v2(write: &Write, weights: IoWeights) -> Vec<Property> {
    // The kernel takes white space around a value.
    let value = write.value.trim();
    let limit = |name: &str| limit(value).map(|limit| Property::of_file(name, Value::U64(limit)));
    let memory = |name: &str| bytes(value).map(|limit| Property::of_file(name, Value::U64(limit)));
    let one = match &*write.file {
        "memory.max" => memory("MemoryMax"),
        "memory.high" => memory("MemoryHigh"),
        "memory.low" => memory("MemoryLow"),
        "memory.min" => memory("MemoryMin"),
        "memory.swap.max" => memory("MemorySwapMax"),
        "memory.zswap.max" => memory("MemoryZSwapMax"),
        "memory.zswap.writeback" => Some(Property::of_file("MemoryZSwapWriteback", Value::Bool(value != "0"))),
        "pids.max" => tasks_max(limit("TasksMax")),
        "cpu.weight" => limit(CPU_WEIGHT),
        // 0 is systemd's word for idle (since 252); what is its word for the opposite is in `end_of_idle`.
        "cpu.idle" if value == "1" => Some(Property::of_file(CPU_WEIGHT, Value::U64(0))),
        "cpu.max" => return quota_v2(value),
        "cpuset.cpus" => cpu_mask(value).map(|mask| Property::of_file("AllowedCPUs", Value::Bytes(mask))),
        "cpuset.mems" => cpu_mask(value).map(|mask| Property::of_file("AllowedMemoryNodes", Value::Bytes(mask))),
        "io.weight" => return io_weight(value, |weight| weight),
        "io.bfq.weight" => {
            return match (&write.absent, weights) {
                (Absent::Instead(_, instead), IoWeights::Plain) => io_weight(instead, |weight| weight),
                _ => io_weight(value, io_weight_of_bfq),
            };
        }
        _ => None,
    };
    one.into_iter().collect()
}

/// What tells systemd that a unit is idle no longer, where `writes` say so and `properties`, which stand for them, hold no weight. Only
/// for a unit that is idle ([`is_idle`]): another would lose the weight that it has.
pub fn end_of_idle(writes: &[&Write], properties: &[Property]) -> Option<Property> {
    let idle = writes.iter().rev().find(|write| write.file == "cpu.idle")?;
    let has_weight = properties.iter().any(|property| property.name == CPU_WEIGHT);
    (idle.value.trim() == "0" && !has_weight).then(|| Property::of_file(CPU_WEIGHT, Value::U64(UNSET_WEIGHT)))
}

/// Whether a unit that has `property` is idle.
pub fn is_idle(property: &Property) -> bool {
    property.name == CPU_WEIGHT && property.value == Value::U64(0)
}

/// CGROUP_WEIGHT_INVALID of systemd, which shows `[not set]` and writes the kernel's default.
const UNSET_WEIGHT: u64 = u64::MAX;

const CPU_WEIGHT: &str = "CPUWeight";
const IO_DEVICE_WEIGHT: &str = "IODeviceWeight";

fn of_write_v1(write: &Write) -> Vec<Property> {
    let limit = |name: &str| {
        let limit = if write.value == "-1" { Some(UNLIMITED) } else { limit(&write.value) };
        limit.map(|limit| Property::of_file(name, Value::U64(limit)))
    };
    let one = match &*write.file {
        "memory.limit_in_bytes" => limit("MemoryLimit"),
        "cpu.shares" => limit("CPUShares"),
        "blkio.weight" => limit("BlockIOWeight"),
        "pids.max" => tasks_max(limit("TasksMax")),
        _ => None,
    };
    one.into_iter().collect()
}

/// systemd takes no 0; with the container's first process there 1 lets none be made, too.
fn tasks_max(property: Option<Property>) -> Option<Property> {
    property.map(|property| match property.value {
        Value::U64(0) => Property { value: Value::U64(1), ..property },
        _ => property,
    })
}

/// A number, or `max`.
fn limit(value: &str) -> Option<u64> {
    if value == "max" { Some(UNLIMITED) } else { value.parse().ok() }
}

fn quota_v2(value: &str) -> Vec<Property> {
    let mut words = value.split_ascii_whitespace();
    let (quota, period) = (words.next().and_then(limit), words.next().map(str::parse));
    match (quota, period) {
        (Some(quota), None) => quota_properties((quota != UNLIMITED).then_some(quota), None),
        (Some(quota), Some(Ok(period))) => quota_properties((quota != UNLIMITED).then_some(quota), Some(period)),
        // The kernel will refuse it, and say so.
        _ => vec![],
    }
}

fn quota_v1(writes: &[&Write]) -> Vec<Property> {
    let last = |file: &str| writes.iter().rev().find(|write| write.file == file).map(|write| write.value.as_str());
    let period = last("cpu.cfs_period_us").and_then(|period| period.parse().ok());
    match last("cpu.cfs_quota_us") {
        // -1 is no number here, and no quota there.
        Some(quota) => quota_properties(quota.parse().ok(), period),
        // What the unit has stays.
        None => period_property(period).into_iter().collect(),
    }
}

/// `quota` in microseconds a period, `None` without a limit.
fn quota_properties(quota: Option<u64>, period: Option<u64>) -> Vec<Property> {
    const PER_SECOND: &str = "CPUQuotaPerSecUSec";
    let mut properties: Vec<_> = period_property(period).into_iter().collect();
    let per_second = quota.map_or(UNLIMITED, |quota| {
        // Rounded up to 10 ms a second, as systemd itself does with per cent: a cgroup below may ask for the exact quota.
        let period = period.filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD);
        let exact = u128::from(quota) * 1_000_000 / u128::from(period);
        u64::try_from(exact.div_ceil(10_000) * 10_000).unwrap_or(UNLIMITED)
    });
    properties.push(Property::of_file(PER_SECOND, Value::U64(per_second)));
    properties
}

fn period_property(period: Option<u64>) -> Option<Property> {
    let period = period.filter(|period| *period > 0)?;
    Some(Property::of_file("CPUQuotaPeriodUSec", Value::U64(period)))
}

/// `io.weight` and `io.bfq.weight` hold lines `[default] WEIGHT` and `MAJOR:MINOR WEIGHT`.
fn io_weight(value: &str, convert: impl Fn(u64) -> u64) -> Vec<Property> {
    let property = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (first, second) = (words.next()?, words.next());
        match second {
            None => Some(Property::of_file("IOWeight", Value::U64(convert(first.parse().ok()?)))),
            Some(weight) if first == "default" => {
                Some(Property::of_file("IOWeight", Value::U64(convert(weight.parse().ok()?))))
            }
            Some(weight) => {
                let device = Value::Struct(vec![Value::Str(first.into()), Value::U64(convert(weight.parse().ok()?))]);
                Some(Property::of_file(IO_DEVICE_WEIGHT, Value::array("(st)", [device])))
            }
        }
    };
    value.lines().filter_map(property).collect()
}

/// The IOWeight (1 to 10000) for which systemd writes `weight` (1 to 1000) to io.bfq.weight; both have 100 as the default.
fn io_weight_of_bfq(weight: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * 11 }
}

/// What gives a unit its property `name` back, which was `value`.
pub fn set_back(name: &str, value: Value) -> Vec<Property> {
    let property = Property::of_file(name, value);
    match &property.value {
        // Nothing empties a list, to which else all is added.
        Value::Array { element, .. } => {
            let nothing = Value::array(element, []);
            vec![Property::of_file(name, nothing), property]
        }
        _ => vec![property],
    }
}

/// Numbers above are no CPU's and no memory node's that Linux could have.
const MAX_CPU: usize = 65_535;

/// A list such as `0-3,7` as bits, lowest first; `None` if it is none: the kernel refuses it, and tells why.
fn cpu_mask(list: &str) -> Option<Vec<u8>> {
    let mut mask: Vec<u8> = vec![];
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last > MAX_CPU || first > last {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|cpu| mask[cpu / 8] |= 1 << (cpu % 8));
    }
    (!mask.is_empty()).then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::resources::{Controller, unified};
    use crate::plan::{BlockIo, Cpu, Memory, Resources, WeightDevice};

    fn properties(resources: &Resources, version: Version, weights: IoWeights) -> Vec<(String, Value)> {
        let mut writes = vec![];
        for controller in Controller::ALL {
            writes.extend(controller.writes(resources, version).unwrap());
        }
        writes.extend(unified(resources).unwrap());
        let writes: Vec<&Write> = writes.iter().collect();
        let properties = of_writes(&writes, version, weights);
        assert!(properties.iter().all(|property| property.is_in_files));
        properties.into_iter().map(|property| (property.name, property.value)).collect()
    }

    #[track_caller]
    fn check(resources: &Resources, version: Version, expected: &[(&str, Value)]) {
        let found = properties(resources, version, IoWeights::Plain);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(found, expected);
    }

    fn of_unified(pairs: &[(&str, &str)]) -> Resources {
        let unified = pairs.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
        Resources { unified, ..Default::default() }
    }

    fn t(value: u64) -> Value {
        Value::U64(value)
    }

    #[test]
    fn nothing_asked_is_no_property() {
        check(&Resources::default(), Version::V1, &[]);
        check(&Resources::default(), Version::V2, &[]);
    }

    #[test]
    fn memory_and_pids_have_the_numbers_of_the_files() {
        for (limit, reservation, swap, pids, v2, v1) in [
            (
                Some(100 << 20),
                Some(50 << 20),
                Some(300 << 20),
                Some(10),
                &[
                    ("MemorySwapMax", t(200 << 20)),
                    ("MemoryMax", t(100 << 20)),
                    ("MemoryLow", t(50 << 20)),
                    ("TasksMax", t(10)),
                ][..],
                &[("MemoryLimit", t(100 << 20)), ("TasksMax", t(10))][..],
            ),
            (
                Some(-1),
                None,
                None,
                Some(-1),
                &[("MemorySwapMax", t(u64::MAX)), ("MemoryMax", t(u64::MAX)), ("TasksMax", t(u64::MAX))],
                &[("MemoryLimit", t(u64::MAX)), ("TasksMax", t(u64::MAX))],
            ),
            (None, None, None, Some(0), &[("TasksMax", t(1))], &[("TasksMax", t(1))]),
        ] {
            let memory = Memory { limit, reservation, swap, ..Default::default() };
            let resources = Resources { memory, pids_limit: pids, ..Default::default() };
            check(&resources, Version::V2, v2);
            check(&resources, Version::V1, v1);
        }
    }

    #[test]
    fn quotas_are_for_a_second_and_rounded_up_to_a_per_cent() {
        for (quota, period, expected) in [
            (
                Some(50_000),
                Some(100_000),
                &[("CPUQuotaPeriodUSec", t(100_000)), ("CPUQuotaPerSecUSec", t(500_000))][..],
            ),
            (Some(50_000), None, &[("CPUQuotaPeriodUSec", t(100_000)), ("CPUQuotaPerSecUSec", t(500_000))]),
            (Some(5000), Some(30_000), &[("CPUQuotaPeriodUSec", t(30_000)), ("CPUQuotaPerSecUSec", t(170_000))]),
            (Some(200_000), Some(100_000), &[("CPUQuotaPeriodUSec", t(100_000)), ("CPUQuotaPerSecUSec", t(2_000_000))]),
            (Some(-1), None, &[("CPUQuotaPeriodUSec", t(100_000)), ("CPUQuotaPerSecUSec", t(u64::MAX))]),
            (None, Some(50_000), &[("CPUQuotaPeriodUSec", t(50_000)), ("CPUQuotaPerSecUSec", t(u64::MAX))]),
        ] {
            let cpu = Cpu { quota, period, ..Default::default() };
            check(&Resources { cpu, ..Default::default() }, Version::V2, expected);
        }
        let v1 = |quota, period| Resources { cpu: Cpu { quota, period, ..Default::default() }, ..Default::default() };
        check(&v1(Some(50_000), None), Version::V1, &[("CPUQuotaPerSecUSec", t(500_000))]);
        check(&v1(Some(-1), None), Version::V1, &[("CPUQuotaPerSecUSec", t(u64::MAX))]);
        check(&v1(None, Some(50_000)), Version::V1, &[("CPUQuotaPeriodUSec", t(50_000))]);
        let both = [("CPUQuotaPeriodUSec", t(30_000)), ("CPUQuotaPerSecUSec", t(170_000))];
        check(&v1(Some(5000), Some(30_000)), Version::V1, &both);
    }

    #[test]
    fn weights_idle_and_cpusets() {
        let cpu = |cpu| Resources { cpu, ..Default::default() };
        check(&cpu(Cpu { shares: Some(1024), ..Default::default() }), Version::V2, &[("CPUWeight", t(100))]);
        check(&cpu(Cpu { shares: Some(1024), ..Default::default() }), Version::V1, &[("CPUShares", t(1024))]);
        // Both at once are one property, and idle is what the files say at last.
        let idle = Cpu { shares: Some(1024), idle: Some(1), ..Default::default() };
        check(&cpu(idle), Version::V2, &[("CPUWeight", t(0))]);
        check(&cpu(Cpu { idle: Some(0), ..Default::default() }), Version::V2, &[]);
        for (files, expected) in [
            (&[("cpu.idle", "0")][..], Some(("CPUWeight", t(u64::MAX)))),
            (&[("cpu.idle", " 0\n"), ("cpu.max", "50000 100000")], Some(("CPUWeight", t(u64::MAX)))),
            (&[("cpu.idle", "0"), ("cpu.weight", "50")], None),
            (&[("cpu.idle", "1")], None),
            (&[("cpu.max", "50000 100000")], None),
        ] {
            let writes = unified(&of_unified(files)).unwrap();
            let writes: Vec<&Write> = writes.iter().collect();
            let end = end_of_idle(&writes, &of_writes(&writes, Version::V2, IoWeights::Plain));
            assert_eq!(end, expected.map(|(name, value)| Property::of_file(name, value)), "{files:?}");
        }
        let sets = Cpu { cpus: Some("0-1,9".into()), mems: Some("0".into()), ..Default::default() };
        let expected = [("AllowedCPUs", Value::Bytes(vec![3, 2])), ("AllowedMemoryNodes", Value::Bytes(vec![1]))];
        check(&cpu(sets), Version::V2, &expected);
    }

    #[test]
    fn cpu_lists_are_bits() {
        for (list, mask) in [
            ("0", Some(vec![1])),
            ("7", Some(vec![0x80])),
            ("8", Some(vec![0, 1])),
            (" 0-2 , 4", Some(vec![0x17])),
            ("", None),
            ("3-1", None),
            ("x", None),
            ("0-4294967295", None),
        ] {
            assert_eq!(cpu_mask(list), mask, "{list}");
        }
    }

    #[test]
    fn a_scheduler_that_one_disk_has_is_loaded() {
        for (lists, expected) in [
            (&["[none] mq-deadline", "none", ""][..], IoWeights::Plain),
            (&["none", "[mq-deadline] kyber bfq none"], IoWeights::Bfq),
            (&["mq-deadline [bfq]"], IoWeights::Bfq),
            (&["none", "[mq-deadline] bfq2"], IoWeights::Plain),
            (&[], IoWeights::Plain),
        ] {
            assert_eq!(IoWeights::of_schedulers(lists.iter().map(ToString::to_string)), expected, "{lists:?}");
        }
    }

    #[test]
    fn io_weights_fit_the_file_that_the_kernel_has() {
        let weight = |weight| BlockIo { weight: Some(weight), ..Default::default() };
        for (blkio, plain, bfq) in [(10, 1, 10), (100, 910, 100), (500, 4950, 4500), (1000, 10_000, 10_000)] {
            let resources = Resources { block_io: weight(blkio), ..Default::default() };
            for (weights, expected) in [(IoWeights::Plain, plain), (IoWeights::Bfq, bfq)] {
                let found = properties(&resources, Version::V2, weights);
                assert_eq!(found, [("IOWeight".to_owned(), t(expected))], "{blkio}");
            }
        }
        let device = |minor| WeightDevice { major: 8, minor, weight: Some(200), leaf_weight: None };
        let block_io = BlockIo { weight_device: vec![device(0), device(16)], ..Default::default() };
        let entry = |name: &str| Value::array("(st)", [Value::Struct(vec![Value::str(name), t(1200)])]);
        let resources = Resources { block_io, ..Default::default() };
        check(&resources, Version::V2, &[("IODeviceWeight", entry("8:0")), ("IODeviceWeight", entry("8:16"))]);
        let resources = Resources { block_io: weight(500), ..Default::default() };
        check(&resources, Version::V1, &[("BlockIOWeight", t(500))]);
    }

    #[test]
    fn unified_keys_are_properties_where_systemd_has_them_and_win() {
        for (file, value, expected) in [
            ("memory.max", "max", Some(("MemoryMax", t(u64::MAX)))),
            ("memory.high", " 1048576\n", Some(("MemoryHigh", t(1 << 20)))),
            ("memory.low", "1", Some(("MemoryLow", t(1)))),
            ("memory.min", "1", Some(("MemoryMin", t(1)))),
            ("memory.swap.max", "0", Some(("MemorySwapMax", t(0)))),
            ("memory.zswap.max", "0", Some(("MemoryZSwapMax", t(0)))),
            ("memory.zswap.writeback", "0", Some(("MemoryZSwapWriteback", Value::Bool(false)))),
            ("pids.max", "5", Some(("TasksMax", t(5)))),
            ("cpu.weight", "5", Some(("CPUWeight", t(5)))),
            ("cpu.idle", "1", Some(("CPUWeight", t(0)))),
            ("cpu.max", "50000", Some(("CPUQuotaPerSecUSec", t(500_000)))),
            ("cpu.max", "max", Some(("CPUQuotaPerSecUSec", t(u64::MAX)))),
            ("cpuset.cpus", "0", Some(("AllowedCPUs", Value::Bytes(vec![1])))),
            ("io.weight", "default 50", Some(("IOWeight", t(50)))),
            ("io.weight", "50", Some(("IOWeight", t(50)))),
            ("io.bfq.weight", "200", Some(("IOWeight", t(1200)))),
            ("cpu.max.burst", "1000", None),
            ("hugetlb.2MB.max", "0", None),
            ("memory.max", "1G", Some(("MemoryMax", t(1 << 30)))),
            ("memory.swap.max", "0x100000", Some(("MemorySwapMax", t(1 << 20)))),
            ("memory.max", "1GB", None),
            ("pids.max", "1K", None),
            ("cpu.max", "x y", None),
        ] {
            let expected: Vec<_> = expected.into_iter().collect();
            check(&of_unified(&[(file, value)]), Version::V2, &expected);
        }
        let mut resources = of_unified(&[("memory.max", "1000")]);
        resources.memory.limit = Some(5000);
        check(&resources, Version::V2, &[("MemoryMax", t(1000))]);
    }
}
