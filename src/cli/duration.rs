//! Times as Go's flag package takes them (time.ParseDuration): `5s`, `1m30s`, `1.5h`, `250ms`.

use std::time::Duration;

const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    // U+00B5, the micro sign, and U+03BC, the Greek letter.
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The duration that `text` means, in nanoseconds; a part of one is dropped. `None` if it means none, is negative, or does not
/// fit in 63 bits, as Go's does not.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*nanoseconds)?)?.checked_add(part_of(*nanoseconds, fraction))?;
        rest = after;
    }
    i64::try_from(total).ok().map(|_| Duration::from_nanos(total))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `unit` times 0.`fraction`, whose digits beyond those of the largest unit change nothing.
fn part_of(unit: u64, fraction: &str) -> u64 {
    let (mut part, mut scale) = (0u128, 1u128);
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    // Less than `unit`.
    (part * u128::from(unit) / scale) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("5s", Some(5_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("+1us", Some(1_000)),
            ("1\u{b5}s2\u{3bc}s", Some(3_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1h1h", Some(7_200_000_000_000)),
            ("0.0000000019s", Some(1)),
            ("0.3333333333333333333h", Some(1_200_000_000_000 - 1)),
            ("9223372036854775807ns", Some(i64::MAX as u64)),
            ("9223372036854775808ns", None),
            ("99999999999999999999s", None),
            ("9999999999h", None),
            ("", None),
            ("+", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("5 s", None),
            ("5S", None),
            ("5d", None),
            ("-1s", None),
            ("1s5", None),
            ("1..5s", None),
        ] {
            assert_eq!(parse(text).map(|found| found.as_nanos() as u64), expected, "{text:?}");
        }
    }
}
