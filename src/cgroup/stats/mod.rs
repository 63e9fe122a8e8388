//! What a container's cgroups count: the document that `events` prints, which is runc's (types/events.go), field for field.
//!
//! A key that runc leaves out when it is zero is left out here too, and one that it always has is always there. Times are
//! nanoseconds, sizes bytes, and "no limit" is the number that the kernel gives for it: on v2 the largest of 64 bits, for PIDs 0.

mod parse;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use serde::{Serialize, Serializer};

use super::resources::Version;
use super::{Record, files};
use crate::error::{Context, Error, Result};

/// `data` of an event of type `stats`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    /// Of v1 only: zeros on v2, as in runc.
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: BlockIo,
    /// By page size: `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Kelson sets up no resource control group.
    intel_rdt: Nothing,
    /// runc fills this for veth devices that libcontainer made, which no config.json can ask for: always `null`.
    network_interfaces: (),
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// By CPU, on v1 only; so are the next two.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods of the quota that have passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    pub usage: MemoryEntry,
    /// Memory and swap together, on v2 too.
    pub swap: MemoryEntry,
    pub kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The highest usage until now.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met, on v1 only.
    pub failcnt: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// 0 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write` and on v1 others and `Total`; empty where the file has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// On v1 only.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

/// How long processes waited for something: accounting/psi.rst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one of them.
    pub some: PressureData,
    /// All of them at once.
    pub full: PressureData,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PressureData {
    /// Per cent of the last 10 seconds.
    #[serde(serialize_with = "as_go_does")]
    pub avg10: f64,
    #[serde(serialize_with = "as_go_does")]
    pub avg60: f64,
    #[serde(serialize_with = "as_go_does")]
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Nothing {}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Go writes a whole number without a fraction: `0`, where serde_json has `0.0`.
fn as_go_does<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 { serializer.serialize_u64(*value as u64) } else { serializer.serialize_f64(*value) }
}

impl BlockIo {
    /// Bytes that were read and that were written, on all devices.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |op: &str| {
            self.io_service_bytes_recursive.iter().filter(|entry| entry.op == op).map(|entry| entry.value).sum()
        };
        (sum("Read"), sum("Write"))
    }
}

impl Record {
    /// What the container's cgroups count now; a controller that it is not in counts nothing.
    ///
    /// # Errors
    /// A state error if it has no cgroup.
    pub fn stats(&self) -> Result<Stats> {
        if !self.has_cgroup() {
            return Err(Error::state("the container has no cgroup that counts what it uses")
                .hint("cgroups are disabled for it, or could not be made"));
        }
        match (self.version, self.unified()) {
            (Version::V2, Some(path)) => v2::read(path),
            _ => v1::read(self),
        }
    }

    /// Pressure on CPU, memory and block devices. A hybrid host has it in the hierarchy of v2, where runc does not look.
    pub fn pressure(&self) -> Result<[Option<Pressure>; 3]> {
        let Some(path) = self.unified() else { return Ok([None; 3]) };
        let read = |file| pressure(path, file);
        Ok([read("cpu.pressure")?, read("memory.pressure")?, read("io.pressure")?])
    }
}

/// `None` before 4.20, without CONFIG_PSI, and where it is turned off (cgroup.pressure, or `psi=0` for the kernel).
fn pressure(directory: &Path, file: &str) -> Result<Option<Pressure>> {
    match parsed(directory, file, parse::pressure) {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(None),
        other => other,
    }
}

/// What `parse` makes of a file; `None` if there is no such file.
fn parsed<T>(directory: &Path, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
    let path = directory.join(file);
    let text = match files::read(&path) {
        // The controller is not enabled, the kernel lacks the file, or the cgroup is gone.
        Err(error) if is_missing(&error) => return Ok(None),
        other => other.doing(|| format!("read {}", path.display()))?,
    };
    match parse(&text) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::other(format!("{:?} is not what the kernel documents", shortened(&text))))
            .doing(|| format!("read {}", path.display())),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn number(directory: &Path, file: &str) -> Result<Option<u64>> {
    parsed(directory, file, parse::number)
}

/// 0 if there is no such file.
fn count(directory: &Path, file: &str) -> Result<u64> {
    Ok(number(directory, file)?.unwrap_or(0))
}

/// The pairs of a flat keyed file (cgroup-v2.rst); none if there is no such file.
fn pairs(directory: &Path, file: &str) -> Result<BTreeMap<String, u64>> {
    Ok(parsed(directory, file, parse::pairs)?.unwrap_or_default())
}

/// Sizes of huge pages that the host has, as the files of hugetlb spell them: `2MB`.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return vec![] };
    entries.flatten().filter_map(|entry| parse::huge_page_size(entry.file_name().to_str()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document of runc 1.1.5 for the same numbers, byte for byte.
    #[test]
    fn json_is_runcs() {
        let empty = "{\"cpu\":{\"usage\":{\"kernel\":0,\"user\":0},\"throttling\":{}},\
            \"cpuset\":{\"cpu_exclusive\":0,\"mem_hardwall\":0,\"mem_exclusive\":0,\"memory_migrate\":0,\
            \"memory_spread_page\":0,\"memory_spread_slab\":0,\"memory_pressure\":0,\"sched_load_balance\":0,\
            \"sched_relax_domain_level\":0},\
            \"memory\":{\"usage\":{\"limit\":0,\"failcnt\":0},\"swap\":{\"limit\":0,\"failcnt\":0},\
            \"kernel\":{\"limit\":0,\"failcnt\":0},\"kernelTCP\":{\"limit\":0,\"failcnt\":0}},\
            \"pids\":{},\"blkio\":{},\"hugetlb\":{},\"intel_rdt\":{},\"network_interfaces\":null}";
        assert_eq!(serde_json::to_string(&Stats::default()).unwrap(), empty);
        let entry = |op: &str| BlockIoEntry { major: 8, minor: 0, op: op.into(), value: 5 };
        let stats = Stats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: 3,
                    percpu: vec![1, 2],
                    percpu_kernel: vec![0, 1],
                    percpu_user: vec![1, 1],
                    kernel: 1,
                    user: 2,
                },
                throttling: Throttling { periods: 10, throttled_periods: 9, throttled_time: 8 },
                psi: None,
            },
            cpuset: Cpuset { cpus: vec![0, 1], mems: vec![0], sched_relax_domain_level: -1, ..Cpuset::default() },
            pids: Pids { current: 1, limit: 50 },
            blkio: BlockIo {
                io_service_bytes_recursive: vec![entry("Read")],
                io_queued_recursive: vec![entry("")],
                ..BlockIo::default()
            },
            hugetlb: BTreeMap::from([("2MB".into(), Hugetlb { usage: 4, max: 5, failcnt: 0 })]),
            ..Stats::default()
        };
        let json = serde_json::to_string(&stats).unwrap();
        for part in [
            "\"usage\":{\"total\":3,\"percpu\":[1,2],\"percpu_kernel\":[0,1],\"percpu_user\":[1,1],\"kernel\":1,\"user\":2}",
            "\"throttling\":{\"periods\":10,\"throttledPeriods\":9,\"throttledTime\":8}",
            "\"cpuset\":{\"cpus\":[0,1],\"cpu_exclusive\":0,\"mems\":[0],",
            "\"sched_relax_domain_level\":-1}",
            "\"pids\":{\"current\":1,\"limit\":50}",
            "\"blkio\":{\"ioServiceBytesRecursive\":[{\"major\":8,\"op\":\"Read\",\"value\":5}],\
             \"ioQueueRecursive\":[{\"major\":8,\"value\":5}]}",
            "\"hugetlb\":{\"2MB\":{\"usage\":4,\"max\":5,\"failcnt\":0}}",
        ] {
            assert!(json.contains(part), "{part} is not in {json}");
        }
    }

    #[test]
    fn pressure_is_written_as_go_writes_it() {
        let some = PressureData { avg10: 0.0, avg60: 1.25, avg300: 100.0, total: 7 };
        let json = serde_json::to_string(&Pressure { some, full: PressureData::default() }).unwrap();
        let expected = "{\"some\":{\"avg10\":0,\"avg60\":1.25,\"avg300\":100,\"total\":7},\
                        \"full\":{\"avg10\":0,\"avg60\":0,\"avg300\":0,\"total\":0}}";
        assert_eq!(json, expected);
    }

    #[test]
    fn bytes_are_summed_over_devices_without_totals() {
        let entry = |minor, op: &str, value| BlockIoEntry { major: 8, minor, op: op.into(), value };
        let entries = vec![entry(0, "Read", 1), entry(0, "Write", 2), entry(0, "Total", 3), entry(16, "Read", 10)];
        let blkio = BlockIo { io_service_bytes_recursive: entries, ..BlockIo::default() };
        assert_eq!(blkio.bytes(), (11, 2));
    }
}
