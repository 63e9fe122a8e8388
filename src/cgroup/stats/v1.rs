//! The files of cgroup v1 (cgroup-v1/*.rst), as runc's package `fs` reads them.

use std::path::Path;

use super::{
    BlockIo, BlockIoEntry, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Stats, Throttling, count,
    huge_page_sizes, number, pairs, parse, parsed,
};
use crate::cgroup::Record;
use crate::error::Result;

/// cpuacct.stat counts in USER_HZ, which is 100 on every architecture.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

pub fn read(record: &Record) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(path) = record.v1("cpuacct") {
        stats.cpu.usage = cpu_usage(path)?;
    }
    if let Some(path) = record.v1("cpu") {
        stats.cpu.throttling = throttling(path)?;
    }
    if let Some(path) = record.v1("cpuset") {
        stats.cpuset = cpuset(path)?;
    }
    if let Some(path) = record.v1("memory") {
        stats.memory = memory(path)?;
    }
    if let Some(path) = record.v1("pids") {
        stats.pids = pids(path)?;
    }
    if let Some(path) = record.v1("blkio") {
        stats.blkio = block_io(path)?;
    }
    if let Some(path) = record.v1("hugetlb") {
        for size in huge_page_sizes() {
            let found = match hugetlb(path, &format!("{size}.rsvd"))? {
                None => hugetlb(path, &size)?,
                found => found,
            };
            stats.hugetlb.extend(found.map(|found| (size, found)));
        }
    }
    Ok(stats)
}

fn cpu_usage(path: &Path) -> Result<CpuUsage> {
    let ticks = pairs(path, "cpuacct.stat")?;
    let time = |key: &str| ticks.get(key).map_or(0, |ticks| ticks.saturating_mul(NANOSECONDS_A_TICK));
    let (percpu_kernel, percpu_user) = parsed(path, "cpuacct.usage_all", parse::usage_all)?.unwrap_or_default();
    Ok(CpuUsage {
        total: count(path, "cpuacct.usage")?,
        percpu: parsed(path, "cpuacct.usage_percpu", parse::numbers)?.unwrap_or_default(),
        percpu_kernel,
        percpu_user,
        kernel: time("system"),
        user: time("user"),
    })
}

fn throttling(path: &Path) -> Result<Throttling> {
    let found = pairs(path, "cpu.stat")?;
    let count = |key: &str| found.get(key).copied().unwrap_or(0);
    Ok(Throttling {
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: count("throttled_time"),
    })
}

fn cpuset(path: &Path) -> Result<Cpuset> {
    let list = |file| parsed(path, file, parse::list).map(Option::unwrap_or_default);
    let flag = |file| count(path, file);
    let level = parsed(path, "cpuset.sched_relax_domain_level", |text| text.parse().ok())?;
    Ok(Cpuset {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpuset.cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("cpuset.mem_hardwall")?,
        mem_exclusive: flag("cpuset.mem_exclusive")?,
        memory_migrate: flag("cpuset.memory_migrate")?,
        memory_spread_page: flag("cpuset.memory_spread_page")?,
        memory_spread_slab: flag("cpuset.memory_spread_slab")?,
        memory_pressure: flag("cpuset.memory_pressure")?,
        sched_load_balance: flag("cpuset.sched_load_balance")?,
        sched_relax_domain_level: level.unwrap_or(0),
    })
}

fn memory(path: &Path) -> Result<Memory> {
    let raw = pairs(path, "memory.stat")?;
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: memory_entry(path, "memory")?,
        swap: memory_entry(path, "memory.memsw")?,
        kernel: memory_entry(path, "memory.kmem")?,
        kernel_tcp: memory_entry(path, "memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

/// Zeros for what the kernel does not count: swap without CONFIG_SWAP, the kernel's limit since 5.16.
fn memory_entry(path: &Path, name: &str) -> Result<MemoryEntry> {
    let read = |what: &str| count(path, &format!("{name}.{what}"));
    Ok(MemoryEntry {
        limit: read("limit_in_bytes")?,
        usage: read("usage_in_bytes")?,
        max: read("max_usage_in_bytes")?,
        failcnt: read("failcnt")?,
    })
}

fn pids(path: &Path) -> Result<Pids> {
    let limit = number(path, "pids.max")?.filter(|limit| *limit != u64::MAX);
    Ok(Pids { current: count(path, "pids.current")?, limit: limit.unwrap_or(0) })
}

fn hugetlb(path: &Path, prefix: &str) -> Result<Option<Hugetlb>> {
    let read = |what: &str| number(path, &format!("hugetlb.{prefix}.{what}"));
    let Some(usage) = read("usage_in_bytes")? else { return Ok(None) };
    let (max, failcnt) = (read("max_usage_in_bytes")?.unwrap_or(0), read("failcnt")?.unwrap_or(0));
    Ok(Some(Hugetlb { usage, max, failcnt }))
}

/// A file of the blkio controller and where its numbers go.
type Source = (&'static str, fn(&mut BlockIo) -> &mut Vec<BlockIoEntry>);

const OPERATIONS: fn(&mut BlockIo) -> &mut Vec<BlockIoEntry> = |io| &mut io.io_serviced_recursive;
const BYTES: fn(&mut BlockIo) -> &mut Vec<BlockIoEntry> = |io| &mut io.io_service_bytes_recursive;

/// The groups in which different schedulers count; the first one with numbers in its first file is read.
const SOURCES: &[&[Source]] = &[
    // BFQ with CONFIG_BFQ_CGROUP_DEBUG.
    &[
        ("blkio.bfq.sectors_recursive", |io| &mut io.sectors_recursive),
        ("blkio.bfq.io_service_time_recursive", |io| &mut io.io_service_time_recursive),
        ("blkio.bfq.io_wait_time_recursive", |io| &mut io.io_wait_time_recursive),
        ("blkio.bfq.io_merged_recursive", |io| &mut io.io_merged_recursive),
        ("blkio.bfq.io_queued_recursive", |io| &mut io.io_queued_recursive),
        ("blkio.bfq.time_recursive", |io| &mut io.io_time_recursive),
        ("blkio.bfq.io_serviced_recursive", OPERATIONS),
        ("blkio.bfq.io_service_bytes_recursive", BYTES),
    ],
    &[("blkio.bfq.io_serviced_recursive", OPERATIONS), ("blkio.bfq.io_service_bytes_recursive", BYTES)],
    // CFQ, until 5.0.
    &[
        ("blkio.sectors_recursive", |io| &mut io.sectors_recursive),
        ("blkio.io_service_time_recursive", |io| &mut io.io_service_time_recursive),
        ("blkio.io_wait_time_recursive", |io| &mut io.io_wait_time_recursive),
        ("blkio.io_merged_recursive", |io| &mut io.io_merged_recursive),
        ("blkio.io_queued_recursive", |io| &mut io.io_queued_recursive),
        ("blkio.time_recursive", |io| &mut io.io_time_recursive),
        ("blkio.io_serviced_recursive", OPERATIONS),
        ("blkio.io_service_bytes_recursive", BYTES),
    ],
    &[("blkio.throttle.io_serviced_recursive", OPERATIONS), ("blkio.throttle.io_service_bytes_recursive", BYTES)],
    // Before 4.16.
    &[("blkio.throttle.io_serviced", OPERATIONS), ("blkio.throttle.io_service_bytes", BYTES)],
];

fn block_io(path: &Path) -> Result<BlockIo> {
    let mut io = BlockIo::default();
    for group in SOURCES {
        for (i, (file, target)) in group.iter().enumerate() {
            let entries = parsed(path, file, parse::block_io)?.unwrap_or_default();
            if entries.is_empty() && i == 0 {
                break;
            }
            *target(&mut io) = entries;
            if i == group.len() - 1 {
                return Ok(io);
            }
        }
    }
    Ok(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files stand for the cgroup: no disk of a test host counts for sure.
    #[test]
    fn block_io_is_of_the_scheduler_that_counts() {
        let directory = std::env::temp_dir().join(format!("kelson-blkio-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let write = |file: &str, text: &str| std::fs::write(directory.join(file), text).unwrap();
        write("blkio.bfq.io_serviced_recursive", "Total 0\n");
        write("blkio.throttle.io_serviced_recursive", "8:0 Read 3\nTotal 3\n");
        write("blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\nTotal 4096\n");
        let throttle = block_io(&directory).unwrap();
        write("blkio.bfq.io_serviced_recursive", "8:0 Write 1\nTotal 1\n");
        let bfq = block_io(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((throttle.io_serviced_recursive[0].value, throttle.bytes()), (3, (4096, 0)));
        assert_eq!((bfq.io_serviced_recursive[0].op.as_str(), bfq.bytes()), ("Write", (0, 0)));
    }
}
