//! The files of cgroup v2 (cgroup-v2.rst), as runc's package `fs2` reads them.

use std::path::Path;

use super::{
    BlockIo, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Stats, Throttling, count, huge_page_sizes, number,
    pairs, parse, parsed, pressure,
};
use crate::cgroup::files;
use crate::error::{Context, Result};

pub fn read(path: &Path) -> Result<Stats> {
    let mut stats =
        Stats { cpu: cpu(path)?, memory: memory(path)?, pids: pids(path)?, blkio: io(path)?, ..Stats::default() };
    for size in huge_page_sizes() {
        let found = match hugetlb(path, &format!("{size}.rsvd"))? {
            None => hugetlb(path, &size)?,
            found => found,
        };
        stats.hugetlb.extend(found.map(|found| (size, found)));
    }
    Ok(stats)
}

/// cpu.stat is there without the controller too.
fn cpu(path: &Path) -> Result<Cpu> {
    let found = pairs(path, "cpu.stat")?;
    let count = |key: &str| found.get(key).copied().unwrap_or(0);
    let time = |key: &str| count(key).saturating_mul(1000);
    Ok(Cpu {
        usage: CpuUsage {
            total: time("usage_usec"),
            kernel: time("system_usec"),
            user: time("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: time("throttled_usec"),
        },
        psi: pressure(path, "cpu.pressure")?,
    })
}

fn memory(path: &Path) -> Result<Memory> {
    let raw = pairs(path, "memory.stat")?;
    let usage = memory_entry(path, "memory")?;
    let swap = memory_entry(path, "memory.swap")?;
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        // v1 counts memory and swap together, v2 apart; the two peaks need not have been at one time.
        swap: MemoryEntry {
            limit: swap.limit.saturating_add(usage.limit),
            usage: swap.usage.saturating_add(usage.usage),
            ..MemoryEntry::default()
        },
        usage,
        raw,
        psi: pressure(path, "memory.pressure")?,
        ..Memory::default()
    })
}

/// memory.peak is there since 5.19, memory.swap.peak since 6.5.
fn memory_entry(path: &Path, name: &str) -> Result<MemoryEntry> {
    let read = |what: &str| count(path, &format!("{name}.{what}"));
    Ok(MemoryEntry { limit: read("max")?, usage: read("current")?, max: read("peak")?, failcnt: 0 })
}

/// Without the controller the processes are counted.
fn pids(path: &Path) -> Result<Pids> {
    if let Some(current) = number(path, "pids.current")? {
        let limit = number(path, "pids.max")?.filter(|limit| *limit != u64::MAX);
        return Ok(Pids { current, limit: limit.unwrap_or(0) });
    }
    let pids = files::processes_below(path).doing(|| format!("list the processes of {}", path.display()))?;
    Ok(Pids { current: pids.len() as u64, limit: 0 })
}

fn io(path: &Path) -> Result<BlockIo> {
    let (bytes, operations) = parsed(path, "io.stat", parse::io_stat)?.unwrap_or_default();
    Ok(BlockIo {
        io_service_bytes_recursive: bytes,
        io_serviced_recursive: operations,
        psi: pressure(path, "io.pressure")?,
        ..BlockIo::default()
    })
}

fn hugetlb(path: &Path, prefix: &str) -> Result<Option<Hugetlb>> {
    let Some(usage) = number(path, &format!("hugetlb.{prefix}.current"))? else { return Ok(None) };
    let events = pairs(path, &format!("hugetlb.{prefix}.events"))?;
    Ok(Some(Hugetlb { usage, max: 0, failcnt: events.get("max").copied().unwrap_or(0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files stand for the cgroup.
    #[test]
    fn swap_includes_memory() {
        let directory = std::env::temp_dir().join(format!("kelson-swap-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let write = |file: &str, text: &str| std::fs::write(directory.join(file), text).unwrap();
        write("memory.current", "100\n");
        write("memory.max", "1000\n");
        write("memory.peak", "700\n");
        let without = memory(&directory).unwrap();
        write("memory.swap.current", "10\n");
        write("memory.swap.max", "500\n");
        write("memory.swap.peak", "400\n");
        let with = memory(&directory).unwrap();
        write("memory.max", "max\n");
        let unlimited = memory(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let entry = |limit, usage, max| MemoryEntry { limit, usage, max, failcnt: 0 };
        assert_eq!((without.usage, without.swap), (entry(1000, 100, 700), entry(1000, 100, 0)));
        assert_eq!(with.swap, entry(1500, 110, 0));
        assert_eq!(unlimited.swap, entry(u64::MAX, 110, 0));
    }
}
