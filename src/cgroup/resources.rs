//! `linux.resources` → values for files of a cgroup, for both versions. Pure.
//!
//! The numbers are those of runc and crun, because monitoring tools compute them back. Zero means "not set" for every
//! limit but `pids.limit`, as in runc; -1 is unlimited. What a version cannot express is refused by name.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::{Resources, ThrottleDevice};

/// One value for one file, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub file: Cow<'static, str>,
    pub value: String,
    /// Property of config.json that the value comes from.
    pub property: Cow<'static, str>,
    pub absent: Absent,
}

/// What it means when the file is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be applied.
    Refuse,
    /// The kernel does by itself what the value asks for.
    Ignore,
    /// This file takes this value instead.
    Instead(Cow<'static, str>, String),
}

impl Write {
    pub fn new(
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        property: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { file: file.into(), value: value.to_string(), property: property.into(), absent: Absent::Refuse }
    }

    fn absent(self, absent: Absent) -> Self {
        Self { absent, ..self }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// Pure or hybrid.
    #[default]
    V1,
    V2,
}

/// A controller, under the names that it has in the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
    Io,
    Hugetlb,
    NetCls,
    NetPrio,
    Rdma,
}

impl Controller {
    pub const ALL: [Controller; 9] = [
        // First, so that a task never runs in a cpuset without CPUs.
        Controller::Cpuset,
        Controller::Memory,
        Controller::Cpu,
        Controller::Pids,
        Controller::Io,
        Controller::Hugetlb,
        Controller::NetCls,
        Controller::NetPrio,
        Controller::Rdma,
    ];

    /// Its name; the network controllers have no v2 form, and the v1 name stands for them.
    pub fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Controller::Memory, _) => "memory",
            (Controller::Cpu, _) => "cpu",
            (Controller::Cpuset, _) => "cpuset",
            (Controller::Pids, _) => "pids",
            (Controller::Io, Version::V1) => "blkio",
            (Controller::Io, Version::V2) => "io",
            (Controller::Hugetlb, _) => "hugetlb",
            (Controller::NetCls, _) => "net_cls",
            (Controller::NetPrio, _) => "net_prio",
            (Controller::Rdma, _) => "rdma",
        }
    }

    /// What `resources` ask of this controller, in the order in which it must be written.
    ///
    /// # Errors
    /// A value that contradicts another, or has no form in this version.
    pub fn writes(self, resources: &Resources, version: Version) -> Result<Vec<Write>> {
        match (self, version) {
            (Controller::Memory, Version::V1) => memory_v1(resources),
            (Controller::Memory, Version::V2) => memory_v2(resources),
            (Controller::Cpu, Version::V1) => Ok(cpu_v1(resources)),
            (Controller::Cpu, Version::V2) => cpu_v2(resources),
            (Controller::Cpuset, _) => Ok(cpuset(resources)),
            (Controller::Pids, _) => pids(resources),
            (Controller::Io, Version::V1) => Ok(block_io_v1(resources)),
            (Controller::Io, Version::V2) => block_io_v2(resources),
            (Controller::Hugetlb, _) => Ok(hugetlb(resources, version)),
            (Controller::NetCls, _) => net_cls(resources, version),
            (Controller::NetPrio, _) => net_prio(resources, version),
            (Controller::Rdma, _) => Ok(rdma(resources)),
        }
    }
}

/// `linux.resources.unified` as it stands.
///
/// # Errors
/// A key that is not the name of a file.
pub fn unified(resources: &Resources) -> Result<Vec<Write>> {
    let write = |(key, value): &(String, String)| {
        let property = format!("linux.resources.unified[\"{key}\"]");
        if key.is_empty() || key.contains(['/', '\0']) || key == "." || key == ".." {
            return Err(Error::config(property, "is not the name of a file"));
        }
        Ok(Write::new(key.clone(), value, property))
    };
    resources.unified.iter().map(write).collect()
}

/// The controller that must be enabled for a key of `linux.resources.unified`; `None` for the cgroup's own files.
pub fn controller_of(key: &str) -> Option<&str> {
    let controller = key.split('.').next().unwrap_or(key);
    (controller != "cgroup").then_some(controller)
}

fn no_v2_form(property: &'static str) -> Error {
    Error::config(property, "has no form in cgroup v2").hint("leave it out, or use a host with cgroup v1")
}

pub const MEMORY_LIMIT: &str = "linux.resources.memory.limit";
pub const MEMORY_SWAP: &str = "linux.resources.memory.swap";
const MEMORY_RESERVATION: &str = "linux.resources.memory.reservation";

/// The value of a limit where -1 is unlimited: `None` if it is not set, `Some(None)` if unlimited.
fn limit(value: Option<i64>, property: &'static str) -> Result<Option<Option<u64>>> {
    match value {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(None)),
        Some(value) => match u64::try_from(value) {
            Ok(value) => Ok(Some(Some(value))),
            Err(_) => Err(Error::config(property, format!("{value} is negative")).hint("-1 is unlimited")),
        },
    }
}

/// A limit of memory as its files take it: a number, in base 8 or 16 after 0 or 0x, with a unit of 1024 or without; `max` is the
/// largest (page_counter_memparse and memparse of the kernel). `None` for what the kernel refuses, or no number of it holds.
pub fn bytes(value: &str) -> Option<u64> {
    let value = value.trim();
    if value == "max" {
        return Some(u64::MAX);
    }
    let of_base_16 = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    let (number, radix) = match of_base_16.filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit())) {
        Some(rest) => (rest, 16),
        None if value.starts_with('0') => (value, 8),
        None => (value, 10),
    };
    let end = number.find(|c: char| !c.is_digit(radix)).unwrap_or(number.len());
    let (digits, unit) = number.split_at(end);
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "P" | "p" => 50,
        "E" | "e" => 60,
        _ => return None,
    };
    u64::from_str_radix(digits, radix).ok()?.checked_mul(1 << shift)
}

fn or_minus_one(limit: Option<u64>) -> String {
    limit.map_or("-1".into(), |bytes| bytes.to_string())
}

fn or_max(limit: Option<u64>) -> String {
    limit.map_or("max".into(), |n| n.to_string())
}

fn check_swap(limit: Option<Option<u64>>, swap: Option<Option<u64>>) -> Result<()> {
    match (limit, swap) {
        (None, Some(Some(_))) => {
            Err(Error::config(MEMORY_SWAP, "is set without memory.limit").hint("it limits memory and swap together"))
        }
        (Some(Some(limit)), Some(Some(swap))) if swap < limit => {
            Err(Error::config(MEMORY_SWAP, format!("{swap} is less than memory.limit, {limit}"))
                .hint("it limits memory and swap together"))
        }
        _ => Ok(()),
    }
}

fn memory_v1(resources: &Resources) -> Result<Vec<Write>> {
    let memory = &resources.memory;
    let mut writes = Vec::new();
    if let Some(hierarchy) = memory.use_hierarchy {
        writes.push(Write::new("memory.use_hierarchy", u8::from(hierarchy), "linux.resources.memory.useHierarchy"));
    }
    let bytes = limit(memory.limit, MEMORY_LIMIT)?;
    let swap = limit(memory.swap, MEMORY_SWAP)?;
    check_swap(bytes, swap)?;
    const LIMIT: &str = "memory.limit_in_bytes";
    const BOTH: &str = "memory.memsw.limit_in_bytes";
    let write_limit = bytes.map(|bytes| Write::new(LIMIT, or_minus_one(bytes), MEMORY_LIMIT));
    match (bytes, swap) {
        // memory.limit may never be above memory.memsw, so an unlimited one goes after it. Asking for unlimited memory
        // alone means swap too, as in runc.
        (Some(None), None) => {
            writes.push(Write::new(BOTH, "-1", MEMORY_LIMIT).absent(Absent::Ignore));
            writes.extend(write_limit);
        }
        (_, Some(None)) => {
            writes.push(Write::new(BOTH, "-1", MEMORY_SWAP).absent(Absent::Ignore));
            writes.extend(write_limit);
        }
        _ => {
            writes.extend(write_limit);
            writes.extend(swap.map(|swap| Write::new(BOTH, or_minus_one(swap), MEMORY_SWAP)));
        }
    }
    if let Some(bytes) = limit(memory.reservation, MEMORY_RESERVATION)? {
        writes.push(Write::new("memory.soft_limit_in_bytes", or_minus_one(bytes), MEMORY_RESERVATION));
    }
    for (value, file, property) in [
        (memory.kernel, "memory.kmem.limit_in_bytes", "linux.resources.memory.kernel"),
        (memory.kernel_tcp, "memory.kmem.tcp.limit_in_bytes", "linux.resources.memory.kernelTCP"),
    ] {
        if let Some(bytes) = limit(value, property)? {
            // Unlimited is what a kernel without the file does.
            let absent = if bytes.is_none() { Absent::Ignore } else { Absent::Refuse };
            writes.push(Write::new(file, or_minus_one(bytes), property).absent(absent));
        }
    }
    if let Some(swappiness) = memory.swappiness {
        writes.push(Write::new("memory.swappiness", swappiness, "linux.resources.memory.swappiness"));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(Write::new("memory.oom_control", 1, "linux.resources.memory.disableOOMKiller"));
    }
    Ok(writes)
}

fn memory_v2(resources: &Resources) -> Result<Vec<Write>> {
    let memory = &resources.memory;
    for (is_asked, property) in [
        (limit(memory.kernel, "linux.resources.memory.kernel")?.flatten().is_some(), "linux.resources.memory.kernel"),
        (
            limit(memory.kernel_tcp, "linux.resources.memory.kernelTCP")?.flatten().is_some(),
            "linux.resources.memory.kernelTCP",
        ),
        (memory.swappiness.is_some(), "linux.resources.memory.swappiness"),
        (memory.disable_oom_killer == Some(true), "linux.resources.memory.disableOOMKiller"),
        // v2 always accounts hierarchically.
        (memory.use_hierarchy == Some(false), "linux.resources.memory.useHierarchy"),
    ] {
        if is_asked {
            return Err(no_v2_form(property));
        }
    }
    let bytes = limit(memory.limit, MEMORY_LIMIT)?;
    let both = limit(memory.swap, MEMORY_SWAP)?;
    check_swap(bytes, both)?;
    // memory.swap.max leaves memory out; swap of the specification, as of v1, is memory and swap together.
    let swap = match (bytes, both) {
        (Some(None), None) => Some((None, MEMORY_LIMIT)),
        (_, None) => None,
        (_, Some(None)) => Some((None, MEMORY_SWAP)),
        (Some(Some(bytes)), Some(Some(both))) => Some((Some(both - bytes), MEMORY_SWAP)),
        (_, Some(Some(both))) => Some((Some(both), MEMORY_SWAP)),
    };
    let mut writes = Vec::new();
    if let Some((swap, property)) = swap {
        // Without swap accounting there is no file, and no swap to forbid or to allow.
        let absent = if matches!(swap, None | Some(0)) { Absent::Ignore } else { Absent::Refuse };
        writes.push(Write::new("memory.swap.max", or_max(swap), property).absent(absent));
    }
    if let Some(bytes) = bytes {
        writes.push(Write::new("memory.max", or_max(bytes), MEMORY_LIMIT));
    }
    if let Some(bytes) = limit(memory.reservation, MEMORY_RESERVATION)? {
        writes.push(Write::new("memory.low", or_max(bytes), MEMORY_RESERVATION));
    }
    Ok(writes)
}

pub const CPU_SHARES: &str = "linux.resources.cpu.shares";
pub const CPU_QUOTA: &str = "linux.resources.cpu.quota";
pub const CPU_PERIOD: &str = "linux.resources.cpu.period";
const CPU_BURST: &str = "linux.resources.cpu.burst";
pub const CPU_IDLE: &str = "linux.resources.cpu.idle";
const CPU_REALTIME_RUNTIME: &str = "linux.resources.cpu.realtimeRuntime";
const CPU_REALTIME_PERIOD: &str = "linux.resources.cpu.realtimePeriod";

fn set<T: PartialEq + Default>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn cpu_v1(resources: &Resources) -> Vec<Write> {
    let cpu = &resources.cpu;
    let mut writes = Vec::new();
    // Period before runtime and quota: those are checked against it.
    if let Some(period) = set(cpu.realtime_period) {
        writes.push(Write::new("cpu.rt_period_us", period, CPU_REALTIME_PERIOD));
    }
    if let Some(runtime) = set(cpu.realtime_runtime) {
        writes.push(Write::new("cpu.rt_runtime_us", runtime, CPU_REALTIME_RUNTIME));
    }
    if let Some(shares) = set(cpu.shares) {
        writes.push(Write::new("cpu.shares", shares, CPU_SHARES));
    }
    if let Some(period) = set(cpu.period) {
        writes.push(Write::new("cpu.cfs_period_us", period, CPU_PERIOD));
    }
    if let Some(quota) = set(cpu.quota) {
        writes.push(Write::new("cpu.cfs_quota_us", quota.max(-1), CPU_QUOTA));
    }
    // After the quota, which it may not exceed.
    if let Some(burst) = cpu.burst {
        let absent = if burst == 0 { Absent::Ignore } else { Absent::Refuse };
        writes.push(Write::new("cpu.cfs_burst_us", burst, CPU_BURST).absent(absent));
    }
    // After the shares: an idle cgroup has none to set (EINVAL).
    if let Some(idle) = cpu.idle {
        let absent = if idle == 0 { Absent::Ignore } else { Absent::Refuse };
        writes.push(Write::new("cpu.idle", idle, CPU_IDLE).absent(absent));
    }
    writes
}

fn cpu_v2(resources: &Resources) -> Result<Vec<Write>> {
    let cpu = &resources.cpu;
    for (is_asked, property) in [
        (set(cpu.realtime_period).is_some(), CPU_REALTIME_PERIOD),
        (set(cpu.realtime_runtime).is_some(), CPU_REALTIME_RUNTIME),
    ] {
        if is_asked {
            return Err(no_v2_form(property));
        }
    }
    let mut writes = Vec::new();
    if let Some(shares) = set(cpu.shares) {
        writes.push(Write::new("cpu.weight", weight_of_shares(shares), CPU_SHARES));
    }
    let (quota, period) = (set(cpu.quota), set(cpu.period));
    if quota.is_some() || period.is_some() {
        let property = if quota.is_some() { CPU_QUOTA } else { CPU_PERIOD };
        let quota = or_max(quota.and_then(|quota| u64::try_from(quota).ok()));
        writes.push(Write::new("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)), property));
    }
    if let Some(burst) = cpu.burst {
        let absent = if burst == 0 { Absent::Ignore } else { Absent::Refuse };
        writes.push(Write::new("cpu.max.burst", burst, CPU_BURST).absent(absent));
    }
    if let Some(idle) = cpu.idle {
        let absent = if idle == 0 { Absent::Ignore } else { Absent::Refuse };
        writes.push(Write::new("cpu.idle", idle, CPU_IDLE).absent(absent));
    }
    Ok(writes)
}

/// cpu.weight (1 to 10000) for cpu.shares (2 to 262144): 1024 is 100, and both ends meet (runc and crun since 2025).
fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * (l + 125.0)) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

fn cpuset(resources: &Resources) -> Vec<Write> {
    let cpu = &resources.cpu;
    let write = |list: &Option<String>, file, property| {
        list.as_ref().filter(|list| !list.is_empty()).map(|list| Write::new(file, list, property))
    };
    let cpus = write(&cpu.cpus, "cpuset.cpus", "linux.resources.cpu.cpus");
    let mems = write(&cpu.mems, "cpuset.mems", "linux.resources.cpu.mems");
    cpus.into_iter().chain(mems).collect()
}

pub const PIDS_LIMIT: &str = "linux.resources.pids.limit";

fn pids(resources: &Resources) -> Result<Vec<Write>> {
    Ok(match resources.pids_limit {
        None => vec![],
        // 0 is a limit: no process may be made (runtime-spec 1.3).
        Some(0) => vec![Write::new("pids.max", 0, PIDS_LIMIT)],
        Some(value) => {
            let max = limit(Some(value), PIDS_LIMIT)?.flatten();
            vec![Write::new("pids.max", or_max(max), PIDS_LIMIT)]
        }
    })
}

const IO_WEIGHT: &str = "linux.resources.blockIO.weight";
const IO_LEAF_WEIGHT: &str = "linux.resources.blockIO.leafWeight";

fn block_io_v1(resources: &Resources) -> Vec<Write> {
    let io = &resources.block_io;
    let mut writes = Vec::new();
    // blkio.weight went with the CFQ scheduler in 5.0; BFQ has its own file.
    let weight = |file: &'static str, bfq: &'static str, value: String, property: Cow<'static, str>| {
        Write::new(file, &value, property).absent(Absent::Instead(bfq.into(), value))
    };
    if let Some(value) = set(io.weight) {
        writes.push(weight("blkio.weight", "blkio.bfq.weight", value.to_string(), IO_WEIGHT.into()));
    }
    if let Some(value) = set(io.leaf_weight) {
        writes.push(Write::new("blkio.leaf_weight", value, IO_LEAF_WEIGHT));
    }
    for (i, device) in io.weight_device.iter().enumerate() {
        let number = format!("{}:{}", device.major, device.minor);
        let property = |name| format!("linux.resources.blockIO.weightDevice[{i}].{name}").into();
        if let Some(value) = set(device.weight) {
            let (file, bfq) = ("blkio.weight_device", "blkio.bfq.weight_device");
            writes.push(weight(file, bfq, format!("{number} {value}"), property("weight")));
        }
        if let Some(value) = set(device.leaf_weight) {
            let value = format!("{number} {value}");
            writes.push(Write::new("blkio.leaf_weight_device", value, property("leafWeight")));
        }
    }
    for (devices, name, file, _) in throttles(resources) {
        for (i, device) in devices.iter().enumerate() {
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            writes.push(Write::new(file, value, format!("linux.resources.blockIO.{name}[{i}]")));
        }
    }
    writes
}

fn block_io_v2(resources: &Resources) -> Result<Vec<Write>> {
    let io = &resources.block_io;
    let mut writes = Vec::new();
    if set(io.leaf_weight).is_some() {
        return Err(no_v2_form(IO_LEAF_WEIGHT));
    }
    if let Some(weight) = set(io.weight) {
        // io.weight goes from 1 to 10000, blkio.weight from 10 to 1000; BFQ keeps the old range.
        let converted = 1 + (u64::from(weight).max(10) - 10) * 9999 / 990;
        let absent = Absent::Instead("io.weight".into(), converted.to_string());
        writes.push(Write::new("io.bfq.weight", weight, IO_WEIGHT).absent(absent));
    }
    for (i, device) in io.weight_device.iter().enumerate() {
        let property = |name| format!("linux.resources.blockIO.weightDevice[{i}].{name}");
        if set(device.leaf_weight).is_some() {
            return Err(Error::config(property("leafWeight"), "has no form in cgroup v2"));
        }
        if let Some(weight) = set(device.weight) {
            let value = format!("{}:{} {weight}", device.major, device.minor);
            writes.push(Write::new("io.bfq.weight", value, property("weight")));
        }
    }
    for (devices, name, _, key) in throttles(resources) {
        for (i, device) in devices.iter().enumerate() {
            // 0 removes a limit on v1; v2 calls that max (and refuses 0).
            let rate = or_max((device.rate != 0).then_some(device.rate));
            let value = format!("{}:{} {key}={rate}", device.major, device.minor);
            writes.push(Write::new("io.max", value, format!("linux.resources.blockIO.{name}[{i}]")));
        }
    }
    Ok(writes)
}

/// Devices, the property's name, the file of v1, the key in io.max.
fn throttles(resources: &Resources) -> [(&[ThrottleDevice], &'static str, &'static str, &'static str); 4] {
    let io = &resources.block_io;
    [
        (&io.throttle_read_bps, "throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
        (&io.throttle_write_bps, "throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
        (&io.throttle_read_iops, "throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
        (&io.throttle_write_iops, "throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
    ]
}

fn hugetlb(resources: &Resources, version: Version) -> Vec<Write> {
    let files = match version {
        Version::V1 => ["limit_in_bytes", "rsvd.limit_in_bytes"],
        Version::V2 => ["max", "rsvd.max"],
    };
    let mut writes = Vec::new();
    for (i, huge) in resources.hugepage_limits.iter().enumerate() {
        let property = format!("linux.resources.hugepageLimits[{i}].limit");
        let [used, reserved] = files.map(|file| format!("hugetlb.{}.{file}", huge.page_size));
        writes.push(Write::new(used, huge.limit, property.clone()));
        // Since 5.7: refuses at mmap(2) instead of killing at the page fault.
        writes.push(Write::new(reserved, huge.limit, property).absent(Absent::Ignore));
    }
    writes
}

fn net_cls(resources: &Resources, version: Version) -> Result<Vec<Write>> {
    const CLASS_ID: &str = "linux.resources.network.classID";
    match (set(resources.network.class_id), version) {
        (None, _) => Ok(vec![]),
        (Some(class), Version::V1) => Ok(vec![Write::new("net_cls.classid", class, CLASS_ID)]),
        (Some(_), Version::V2) => Err(no_v2_form(CLASS_ID)),
    }
}

fn net_prio(resources: &Resources, version: Version) -> Result<Vec<Write>> {
    let priorities = &resources.network.priorities;
    if version == Version::V2 && !priorities.is_empty() {
        return Err(no_v2_form("linux.resources.network.priorities"));
    }
    let write = |(i, (name, priority)): (usize, &(String, u32))| {
        let property = format!("linux.resources.network.priorities[{i}]");
        Write::new("net_prio.ifpriomap", format!("{name} {priority}"), property)
    };
    Ok(priorities.iter().enumerate().map(write).collect())
}

fn rdma(resources: &Resources) -> Vec<Write> {
    let write = |rdma: &crate::plan::Rdma| {
        let mut value = rdma.device.clone();
        for (key, limit) in [("hca_handle", rdma.hca_handles), ("hca_object", rdma.hca_objects)] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        Write::new("rdma.max", value, format!("linux.resources.rdma[\"{}\"]", rdma.device))
    };
    resources.rdma.iter().map(write).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{BlockIo, Cpu, HugepageLimit, Memory, Network, Rdma, WeightDevice};

    fn writes(resources: &Resources, version: Version) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for controller in Controller::ALL {
            all.extend(controller.writes(resources, version)?);
        }
        all.extend(unified(resources)?);
        Ok(all.into_iter().map(|w| (w.file.into_owned(), w.value)).collect())
    }

    #[track_caller]
    fn check(resources: &Resources, version: Version, expected: &[(&str, &str)]) {
        let writes = writes(resources, version).unwrap();
        let pairs: Vec<_> = writes.iter().map(|(file, value)| (file.as_str(), value.as_str())).collect();
        assert_eq!(pairs, expected);
    }

    #[track_caller]
    fn check_refused(resources: &Resources, version: Version, property: &str) {
        assert_eq!(writes(resources, version).unwrap_err().property(), Some(property));
    }

    fn memory(limit: impl Into<Option<i64>>, swap: impl Into<Option<i64>>) -> Resources {
        let memory = Memory { limit: limit.into(), swap: swap.into(), ..Default::default() };
        Resources { memory, ..Default::default() }
    }

    fn cpu(cpu: Cpu) -> Resources {
        Resources { cpu, ..Default::default() }
    }

    #[test]
    fn nothing_asked_writes_nothing() {
        check(&Resources::default(), Version::V1, &[]);
        check(&Resources::default(), Version::V2, &[]);
    }

    #[test]
    fn v2_swap_excludes_memory() {
        for (limit, swap, expected) in [
            (Some(100), Some(300), &[("memory.swap.max", "200"), ("memory.max", "100")][..]),
            (Some(100), Some(100), &[("memory.swap.max", "0"), ("memory.max", "100")]),
            (Some(100), Some(-1), &[("memory.swap.max", "max"), ("memory.max", "100")]),
            (Some(100), Some(0), &[("memory.max", "100")]),
            (Some(100), None, &[("memory.max", "100")]),
            (Some(-1), None, &[("memory.swap.max", "max"), ("memory.max", "max")]),
            (Some(-1), Some(0), &[("memory.swap.max", "max"), ("memory.max", "max")]),
            (Some(-1), Some(300), &[("memory.swap.max", "300"), ("memory.max", "max")]),
            (None, Some(-1), &[("memory.swap.max", "max")]),
            (None, None, &[]),
            (Some(0), Some(0), &[]),
        ] {
            check(&memory(limit, swap), Version::V2, expected);
        }
    }

    #[test]
    fn v1_swap_includes_memory_and_unlimited_goes_first() {
        const LIMIT: &str = "memory.limit_in_bytes";
        const BOTH: &str = "memory.memsw.limit_in_bytes";
        for (limit, swap, expected) in [
            (Some(100), Some(300), &[(LIMIT, "100"), (BOTH, "300")][..]),
            (Some(100), Some(-1), &[(BOTH, "-1"), (LIMIT, "100")]),
            (Some(-1), None, &[(BOTH, "-1"), (LIMIT, "-1")]),
            (Some(-1), Some(300), &[(LIMIT, "-1"), (BOTH, "300")]),
            (None, Some(-1), &[(BOTH, "-1")]),
        ] {
            check(&memory(limit, swap), Version::V1, expected);
        }
    }

    #[test]
    fn contradicting_memory_limits_are_refused() {
        for version in [Version::V1, Version::V2] {
            check_refused(&memory(None, 300), version, MEMORY_SWAP);
            check_refused(&memory(300, 200), version, MEMORY_SWAP);
            check_refused(&memory(-2, None), version, MEMORY_LIMIT);
        }
    }

    #[test]
    fn swap_file_may_be_absent_where_there_is_nothing_to_forbid() {
        let absent = |limit, swap| memory_v2(&memory(limit, swap)).unwrap()[0].absent.clone();
        assert_eq!(absent(100, 100), Absent::Ignore);
        assert_eq!(absent(100, -1), Absent::Ignore);
        assert_eq!(absent(100, 300), Absent::Refuse);
    }

    #[test]
    fn bytes_are_what_the_kernel_takes_for_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1073741824", Some(1 << 30)),
            (" 1073741824\n", Some(1 << 30)),
            ("1G", Some(1 << 30)),
            ("2g", Some(2 << 30)),
            ("512K", Some(512 << 10)),
            ("3m", Some(3 << 20)),
            ("1T", Some(1 << 40)),
            ("1P", Some(1 << 50)),
            ("1E", Some(1 << 60)),
            ("0x40000000", Some(1 << 30)),
            ("0X10k", Some(16 << 10)),
            // A digit before it is a unit.
            ("0x1E", Some(30)),
            ("010M", Some(8 << 20)),
            ("max", Some(u64::MAX)),
            ("16E", None),
            ("99999999999999999999", None),
            ("", None),
            ("G", None),
            ("-1", None),
            ("+1", None),
            ("1.5G", None),
            ("1GB", None),
            ("1 G", None),
            ("08", None),
            ("0x", None),
            ("MAX", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_rest_of_memory() {
        let rest = Resources {
            memory: Memory {
                reservation: Some(50),
                kernel: Some(60),
                kernel_tcp: Some(-1),
                swappiness: Some(0),
                disable_oom_killer: Some(true),
                use_hierarchy: Some(true),
                ..Default::default()
            },
            ..Default::default()
        };
        check(
            &rest,
            Version::V1,
            &[
                ("memory.use_hierarchy", "1"),
                ("memory.soft_limit_in_bytes", "50"),
                ("memory.kmem.limit_in_bytes", "60"),
                ("memory.kmem.tcp.limit_in_bytes", "-1"),
                ("memory.swappiness", "0"),
                ("memory.oom_control", "1"),
            ],
        );
        let low = Memory { reservation: Some(50), disable_oom_killer: Some(false), ..Default::default() };
        check(&Resources { memory: low, ..Default::default() }, Version::V2, &[("memory.low", "50")]);
        for (memory, name) in [
            (Memory { kernel: Some(1), ..Default::default() }, "kernel"),
            (Memory { kernel_tcp: Some(1), ..Default::default() }, "kernelTCP"),
            (Memory { swappiness: Some(0), ..Default::default() }, "swappiness"),
            (Memory { disable_oom_killer: Some(true), ..Default::default() }, "disableOOMKiller"),
            (Memory { use_hierarchy: Some(false), ..Default::default() }, "useHierarchy"),
        ] {
            let resources = Resources { memory, ..Default::default() };
            check_refused(&resources, Version::V2, &format!("linux.resources.memory.{name}"));
        }
    }

    #[test]
    fn shares_become_weight_as_in_runc() {
        for (shares, weight) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (4, 2),
            (10, 4),
            (512, 59),
            (1000, 99),
            (1024, 100),
            (2048, 174),
            (100_000, 4340),
            (262_143, 10_000),
            (262_144, 10_000),
            (300_000, 10_000),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn cpu_v1_and_v2() {
        let all = cpu(Cpu {
            shares: Some(1024),
            quota: Some(50_000),
            burst: Some(10),
            period: Some(200_000),
            cpus: Some("0-1".into()),
            mems: Some("0".into()),
            idle: Some(1),
            ..Default::default()
        });
        check(
            &all,
            Version::V1,
            &[
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
                ("cpu.shares", "1024"),
                ("cpu.cfs_period_us", "200000"),
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_burst_us", "10"),
                ("cpu.idle", "1"),
            ],
        );
        check(
            &all,
            Version::V2,
            &[
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
                ("cpu.weight", "100"),
                ("cpu.max", "50000 200000"),
                ("cpu.max.burst", "10"),
                ("cpu.idle", "1"),
            ],
        );
        for (quota, period, expected) in [
            (Some(-1), None, "max 100000"),
            (Some(-1), Some(50_000), "max 50000"),
            (None, Some(50_000), "max 50000"),
            (Some(5000), None, "5000 100000"),
            (Some(5000), Some(0), "5000 100000"),
        ] {
            check(&cpu(Cpu { quota, period, ..Default::default() }), Version::V2, &[("cpu.max", expected)]);
        }
        check(&cpu(Cpu { quota: Some(0), shares: Some(0), ..Default::default() }), Version::V2, &[]);
    }

    #[test]
    fn real_time_is_v1_only() {
        let real_time = cpu(Cpu { realtime_runtime: Some(500), realtime_period: Some(1000), ..Default::default() });
        check(&real_time, Version::V1, &[("cpu.rt_period_us", "1000"), ("cpu.rt_runtime_us", "500")]);
        check_refused(&real_time, Version::V2, CPU_REALTIME_PERIOD);
    }

    #[test]
    fn pids_zero_is_a_limit() {
        for (limit, expected) in [(0, "0"), (-1, "max"), (7, "7")] {
            for version in [Version::V1, Version::V2] {
                let resources = Resources { pids_limit: Some(limit), ..Default::default() };
                check(&resources, version, &[("pids.max", expected)]);
            }
        }
        check_refused(
            &Resources { pids_limit: Some(-5), ..Default::default() },
            Version::V1,
            "linux.resources.pids.limit",
        );
    }

    #[test]
    fn block_io_weights_and_throttles() {
        let throttle = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
        let io = Resources {
            block_io: BlockIo {
                weight: Some(500),
                leaf_weight: Some(10),
                weight_device: vec![WeightDevice { major: 8, minor: 1, weight: Some(20), leaf_weight: Some(30) }],
                throttle_read_bps: throttle(1),
                throttle_write_bps: throttle(2),
                throttle_read_iops: throttle(3),
                throttle_write_iops: throttle(0),
            },
            ..Default::default()
        };
        check(
            &io,
            Version::V1,
            &[
                ("blkio.weight", "500"),
                ("blkio.leaf_weight", "10"),
                ("blkio.weight_device", "8:1 20"),
                ("blkio.leaf_weight_device", "8:1 30"),
                ("blkio.throttle.read_bps_device", "8:0 1"),
                ("blkio.throttle.write_bps_device", "8:0 2"),
                ("blkio.throttle.read_iops_device", "8:0 3"),
                ("blkio.throttle.write_iops_device", "8:0 0"),
            ],
        );
        check_refused(&io, Version::V2, IO_LEAF_WEIGHT);
        let mut v2 = io;
        v2.block_io.leaf_weight = None;
        check_refused(&v2, Version::V2, "linux.resources.blockIO.weightDevice[0].leafWeight");
        v2.block_io.weight_device[0].leaf_weight = None;
        check(
            &v2,
            Version::V2,
            &[
                ("io.bfq.weight", "500"),
                ("io.bfq.weight", "8:1 20"),
                ("io.max", "8:0 rbps=1"),
                ("io.max", "8:0 wbps=2"),
                ("io.max", "8:0 riops=3"),
                ("io.max", "8:0 wiops=max"),
            ],
        );
        for (weight, converted) in [(10, "1"), (100, "910"), (500, "4950"), (1000, "10000")] {
            v2.block_io.weight = Some(weight);
            let write = block_io_v2(&v2).unwrap().remove(0);
            assert_eq!(write.absent, Absent::Instead("io.weight".into(), converted.into()));
        }
    }

    #[test]
    fn huge_pages_network_and_rdma() {
        let resources = Resources {
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 4096 }],
            rdma: vec![Rdma { device: "mlx5_1".into(), hca_handles: Some(3), hca_objects: Some(10_000) }],
            ..Default::default()
        };
        let rdma = ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000");
        check(
            &resources,
            Version::V1,
            &[("hugetlb.2MB.limit_in_bytes", "4096"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4096"), rdma],
        );
        check(&resources, Version::V2, &[("hugetlb.2MB.max", "4096"), ("hugetlb.2MB.rsvd.max", "4096"), rdma]);
        let network = Network { class_id: Some(0x10_0001), priorities: vec![("lo".into(), 5), ("eth0".into(), 7)] };
        let resources = Resources { network, ..Default::default() };
        check(
            &resources,
            Version::V1,
            &[("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "lo 5"), ("net_prio.ifpriomap", "eth0 7")],
        );
        check_refused(&resources, Version::V2, "linux.resources.network.classID");
    }

    #[test]
    fn unified_is_verbatim_and_names_one_file() {
        let with = |key: &str| Resources { unified: vec![(key.into(), "x y".into())], ..Default::default() };
        check(&with("memory.high"), Version::V2, &[("memory.high", "x y")]);
        for key in ["", "..", "a/memory.high", "../memory.high"] {
            check_refused(&with(key), Version::V2, &format!("linux.resources.unified[\"{key}\"]"));
        }
        assert_eq!(controller_of("hugetlb.2MB.max"), Some("hugetlb"));
        assert_eq!(controller_of("cgroup.max.depth"), None);
    }
}
