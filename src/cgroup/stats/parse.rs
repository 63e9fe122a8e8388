//! The formats of the files that count: text in, numbers out; `None` for what is not in the format.

use std::collections::BTreeMap;

use super::{BlockIoEntry, Pressure, PressureData};

/// A number; `max` is the largest one. The kernel lets some counts of memory fall below zero for a moment: 0, as in runc.
pub fn number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        _ if text.starts_with('-') => text.parse::<i64>().ok().map(|_| 0),
        _ => text.parse().ok(),
    }
}

/// Lines of a key and a number.
pub fn pairs(text: &str) -> Option<BTreeMap<String, u64>> {
    text.lines()
        .map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), number(value)?))
        })
        .collect()
}

/// A list of CPUs or memory nodes, `0-2,7`; may be empty.
pub fn list(text: &str) -> Option<Vec<u16>> {
    let mut members = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        if first > last {
            return None;
        }
        members.extend(first..=last);
    }
    Some(members)
}

/// A pressure file; of the whole host cpu.pressure once had no line `full`.
pub fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next()? {
            "some" => pressure.some = pressure_data(words)?,
            "full" => pressure.full = pressure_data(words)?,
            _ => {}
        }
    }
    Some(pressure)
}

fn pressure_data<'t>(words: impl Iterator<Item = &'t str>) -> Option<PressureData> {
    let mut data = PressureData::default();
    for word in words {
        let (key, value) = word.split_once('=')?;
        match key {
            "avg10" => data.avg10 = value.parse().ok()?,
            "avg60" => data.avg60 = value.parse().ok()?,
            "avg300" => data.avg300 = value.parse().ok()?,
            "total" => data.total = value.parse().ok()?,
            _ => {}
        }
    }
    Some(data)
}

/// A file of the blkio controller: `8:0 Read 124` or `8:0 124` a line, and at its end `Total 228`, which is left out.
pub fn block_io(text: &str) -> Option<Vec<BlockIoEntry>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (device, op, value) = match words[..] {
            ["Total", _] => continue,
            [device, value] => (device, "", value),
            [device, op, value] => (device, op, value),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        entries.push(BlockIoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.into(),
            value: value.parse().ok()?,
        });
    }
    Some(entries)
}

/// io.stat of v2 under the names of v1: bytes, then operations.
pub fn io_stat(text: &str) -> Option<(Vec<BlockIoEntry>, Vec<BlockIoEntry>)> {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        for word in words {
            // Some controllers add words of other forms.
            let Some((key, value)) = word.split_once('=') else { continue };
            let (entries, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            entries.push(BlockIoEntry { major, minor, op: op.into(), value: value.parse().ok()? });
        }
    }
    Some((bytes, operations))
}

/// cpuacct.usage_all: for each CPU the nanoseconds in the kernel, then those in user mode.
pub fn usage_all(text: &str) -> Option<(Vec<u64>, Vec<u64>)> {
    let mut lines = text.lines();
    lines.next().filter(|head| head.starts_with("cpu user system"))?;
    let (mut kernel, mut user) = (Vec::new(), Vec::new());
    for line in lines {
        let mut words = line.split_ascii_whitespace().skip(1);
        user.push(words.next()?.parse().ok()?);
        kernel.push(words.next()?.parse().ok()?);
    }
    Some((kernel, user))
}

/// Numbers with spaces between them.
pub fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

/// The size in the name of a directory of /sys/kernel/mm/hugepages as in those of hugetlb's files: `hugepages-2048kB` is
/// `2MB`.
pub fn huge_page_size(name: &str) -> Option<String> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        0x10_0000.. => format!("{}GB", kib >> 20),
        0x400.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_their_edges() {
        for (text, expected) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("max", Some(u64::MAX)),
            ("-4096", Some(0)),
            ("", None),
            ("-", None),
            ("1 2", None),
            ("0x10", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
        assert_eq!(numbers("1 2\n"), Some(vec![1, 2]));
        assert_eq!(numbers("1 x"), None);
    }

    #[test]
    fn pairs_are_lines_of_a_key_and_a_number() {
        let found = pairs("anon 4096\nfile -1\nsock 0").unwrap();
        assert_eq!(found, BTreeMap::from([("anon".into(), 4096), ("file".into(), 0), ("sock".into(), 0)]));
        assert_eq!(pairs(""), Some(BTreeMap::new()));
        assert_eq!(pairs("anon"), None);
        assert_eq!(pairs("anon x"), None);
    }

    #[test]
    fn lists_of_cpus() {
        for (text, expected) in [
            ("0", Some(vec![0])),
            ("0-2,7", Some(vec![0, 1, 2, 7])),
            ("", Some(vec![])),
            ("2-1", None),
            ("0,x", None),
            ("70000", None),
        ] {
            assert_eq!(list(text), expected, "{text:?}");
        }
    }

    #[test]
    fn pressure_has_two_lines() {
        let found = pressure(
            "some avg10=1.50 avg60=0.00 avg300=0.12 total=123456\nfull avg10=0.00 avg60=0.00 avg300=100.00 total=7",
        );
        let some = PressureData { avg10: 1.5, avg60: 0.0, avg300: 0.12, total: 123_456 };
        let full = PressureData { avg300: 100.0, total: 7, ..PressureData::default() };
        assert_eq!(found, Some(Pressure { some, full }));
        assert_eq!(pressure("some avg10=1.00 total=1").unwrap().full, PressureData::default());
        assert_eq!(pressure("some avg10"), None);
        assert_eq!(pressure("some avg10=x"), None);
    }

    #[test]
    fn block_io_of_both_versions() {
        let entry = |major, minor, op: &str, value| BlockIoEntry { major, minor, op: op.into(), value };
        let v1 = block_io("8:0 Read 124\n8:0 Total 228\n253:1 7\nTotal 228");
        assert_eq!(v1, Some(vec![entry(8, 0, "Read", 124), entry(8, 0, "Total", 228), entry(253, 1, "", 7)]));
        assert_eq!(block_io("Total 0"), Some(vec![]));
        assert_eq!(block_io("8:0"), None);
        assert_eq!(block_io("8 Read 1"), None);
        let v2 = io_stat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.usage=9\n8:16 ").unwrap();
        assert_eq!(v2.0, [entry(8, 0, "Read", 1), entry(8, 0, "Write", 2)]);
        assert_eq!(v2.1, [entry(8, 0, "Read", 3), entry(8, 0, "Write", 4)]);
        assert_eq!(io_stat("8:0 rbytes=x"), None);
        assert_eq!(io_stat("(unknown) rbytes=1"), None);
    }

    #[test]
    fn usage_of_each_cpu_in_both_modes() {
        assert_eq!(usage_all("cpu user system\n0 10 1\n1 20 2"), Some((vec![1, 2], vec![10, 20])));
        assert_eq!(usage_all("0 10 1"), None);
        assert_eq!(usage_all("cpu user system\n0 10"), None);
    }

    #[test]
    fn sizes_of_huge_pages() {
        for (name, size) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-16777216kB", Some("16GB")),
            ("hugepages-", None),
            ("x", None),
        ] {
            assert_eq!(huge_page_size(name).as_deref(), size, "{name}");
        }
    }
}
