//! What a container uses, out of two looks at its counters.

use std::time::Instant;

use serde::Serialize;

use crate::cgroup::stats::{Pressure, Stats};
use crate::state::{State, Status};

/// What was read of a container at one time.
pub struct Look {
    pub at: Instant,
    pub stats: Stats,
    /// On CPU, memory and block devices.
    pub pressure: [Option<Pressure>; 3],
}

/// A container in the table; what takes two looks is absent after the first.
#[derive(Debug, PartialEq, Serialize)]
pub struct Usage {
    pub id: String,
    pub status: &'static str,
    pub pid: i32,
    pub cpu: Cpu,
    pub memory: Memory,
    pub pressure: PressureUse,
    pub pids: Pids,
    pub io: Io,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// Of one CPU.
    pub percent: Option<f64>,
    /// Share of the quota's periods in which it had to wait; absent without a quota too.
    pub throttled_percent: Option<f64>,
    pub usage_nanoseconds: u64,
    pub throttled_nanoseconds: u64,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Memory {
    pub usage_bytes: u64,
    /// Of the container's own cgroup; absent if it is unlimited.
    pub limit_bytes: Option<u64>,
    /// Of the limit.
    pub percent: Option<f64>,
    /// Absent on v2 before Linux 5.19.
    pub peak_bytes: Option<u64>,
}

/// Share of the last 10 seconds in which a process waited (`some avg10`), in per cent; absent where the kernel does not tell.
#[derive(Debug, PartialEq, Serialize)]
pub struct PressureUse {
    pub cpu: Option<f64>,
    pub memory: Option<f64>,
    pub io: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Pids {
    pub current: u64,
    pub limit: Option<u64>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Io {
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub read_bytes_per_second: Option<u64>,
    pub written_bytes_per_second: Option<u64>,
}

impl Usage {
    pub fn new(state: &State, status: Status, before: Option<&Look>, now: &Look) -> Self {
        let seconds = before.map(|before| now.at.duration_since(before.at).as_secs_f64()).filter(|time| *time > 0.0);
        // Counters only grow, but for a controller that was enabled anew.
        let grown = |read: fn(&Stats) -> u64| before.map(|before| read(&now.stats).saturating_sub(read(&before.stats)));
        let a_second = |read: fn(&Stats) -> u64| Some(grown(read)? as f64 / seconds?);
        let usage = &now.stats.memory.usage;
        let limit = Some(usage.limit).filter(|limit| is_limit(*limit));
        let some = |at: usize| now.pressure[at].map(|pressure| pressure.some.avg10);
        let (read, written) = now.stats.blkio.bytes();
        Self {
            id: state.id.clone(),
            status: status.word(),
            pid: state.pid,
            cpu: Cpu {
                percent: a_second(|stats| stats.cpu.usage.total).map(|nanoseconds| rounded(nanoseconds / 1e7)),
                throttled_percent: share(
                    grown(|stats| stats.cpu.throttling.throttled_periods),
                    grown(|stats| stats.cpu.throttling.periods),
                ),
                usage_nanoseconds: now.stats.cpu.usage.total,
                throttled_nanoseconds: now.stats.cpu.throttling.throttled_time,
            },
            memory: Memory {
                usage_bytes: usage.usage,
                limit_bytes: limit,
                percent: share(Some(usage.usage), limit),
                peak_bytes: Some(usage.max).filter(|peak| *peak > 0),
            },
            pressure: PressureUse { cpu: some(0), memory: some(1), io: some(2) },
            pids: Pids {
                current: now.stats.pids.current,
                limit: Some(now.stats.pids.limit).filter(|limit| *limit > 0),
            },
            io: Io {
                read_bytes: read,
                written_bytes: written,
                read_bytes_per_second: a_second(|stats| stats.blkio.bytes().0).map(|rate| rate as u64),
                written_bytes_per_second: a_second(|stats| stats.blkio.bytes().1).map(|rate| rate as u64),
            },
        }
    }
}

/// "Unlimited" is the largest number on v2, on v1 the largest multiple of a page (of up to 64 KiB) in 63 bits, and 0 where
/// nothing counts.
fn is_limit(bytes: u64) -> bool {
    bytes != 0 && bytes < i64::MAX as u64 - 0xffff
}

/// `part` of `whole` in per cent; `None` if there is no whole.
fn share(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    let (part, whole) = (part?, whole.filter(|whole| *whole > 0)?);
    Some(rounded(part as f64 * 100.0 / whole as f64))
}

/// To hundredths: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_has_many_numbers() {
        for (bytes, expected) in [
            (0, false),
            (4096, true),
            (i64::MAX as u64 / 2, true),
            (0x7fff_ffff_ffff_f000, false),
            (0x7fff_ffff_ffff_0000, false),
            (u64::MAX, false),
        ] {
            assert_eq!(is_limit(bytes), expected, "{bytes:#x}");
        }
    }

    #[test]
    fn shares_need_a_whole() {
        for (part, whole, expected) in [
            (Some(1), Some(3), Some(33.33)),
            (Some(0), Some(3), Some(0.0)),
            (Some(1), Some(0), None),
            (Some(1), None, None),
            (None, Some(1), None),
        ] {
            assert_eq!(share(part, whole), expected, "{part:?} of {whole:?}");
        }
    }
}
