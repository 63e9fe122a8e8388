//! The lines that `top` shows.

use super::usage::Usage;

const HEAD: [&str; 14] = [
    "ID", "STATUS", "CPU%", "THROT%", "MEMORY", "LIMIT", "MEM%", "PEAK", "PSI:CPU", "PSI:MEM", "PSI:IO", "PIDS",
    "READ/s", "WRITE/s",
];

/// A head and a line for each container; text stands on the left of its column, numbers on the right.
pub fn lines(usages: &[Usage]) -> Vec<String> {
    let mut rows = vec![HEAD.map(String::from)];
    rows.extend(usages.iter().map(cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 14]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}

fn cells(usage: &Usage) -> [String; 14] {
    let percent = |value: Option<f64>| value.map_or_else(none, |value| format!("{value:.1}"));
    let bytes = |value: Option<u64>| value.map_or_else(none, size);
    [
        usage.id.clone(),
        usage.status.into(),
        percent(usage.cpu.percent),
        percent(usage.cpu.throttled_percent),
        size(usage.memory.usage_bytes),
        bytes(usage.memory.limit_bytes),
        percent(usage.memory.percent),
        bytes(usage.memory.peak_bytes),
        percent(usage.pressure.cpu),
        percent(usage.pressure.memory),
        percent(usage.pressure.io),
        match usage.pids.limit {
            Some(limit) => format!("{}/{limit}", usage.pids.current),
            None => usage.pids.current.to_string(),
        },
        bytes(usage.io.read_bytes_per_second),
        bytes(usage.io.written_bytes_per_second),
    ]
}

fn none() -> String {
    "-".into()
}

/// With a prefix for 1024 and its powers: `229K`, `47.7M`.
fn size(bytes: u64) -> String {
    let (mut value, mut prefix) = (bytes as f64, "");
    // Not 1024: 1023.9 would be written as 1024.
    for next in ["K", "M", "G", "T", "P", "E"] {
        if value < 999.5 {
            break;
        }
        (value, prefix) = (value / 1024.0, next);
    }
    match value {
        _ if prefix.is_empty() => bytes.to_string(),
        value if value < 99.95 => format!("{value:.1}{prefix}"),
        value => format!("{value:.0}{prefix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::usage::{Cpu, Io, Memory, Pids, PressureUse};
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1024, "1.0K"),
            (234_496, "229K"),
            (1_047_000, "1.0M"),
            (50_000_000, "47.7M"),
            (1 << 30, "1.0G"),
            (u64::MAX, "16.0E"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn numbers_stand_on_the_right() {
        let usage = Usage {
            id: "web".into(),
            status: "running",
            pid: 7,
            cpu: Cpu { percent: Some(150.25), throttled_percent: None, usage_nanoseconds: 0, throttled_nanoseconds: 0 },
            memory: Memory { usage_bytes: 2048, limit_bytes: Some(4096), percent: Some(50.0), peak_bytes: Some(3072) },
            pressure: PressureUse { cpu: Some(12.5), memory: Some(0.0), io: None },
            pids: Pids { current: 3, limit: Some(50) },
            io: Io {
                read_bytes: 0,
                written_bytes: 0,
                read_bytes_per_second: Some(0),
                written_bytes_per_second: Some(1024),
            },
        };
        assert_eq!(
            lines(&[usage]),
            [
                "ID   STATUS    CPU%  THROT%  MEMORY  LIMIT  MEM%  PEAK  PSI:CPU  PSI:MEM  PSI:IO  PIDS  READ/s  WRITE/s",
                "web  running  150.2       -    2.0K   4.0K  50.0  3.0K     12.5      0.0       -  3/50       0     1.0K",
            ]
        );
    }
}
