//! Points in time, as RFC 3339 has them, and as a person wants them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in UTC, to the second.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format_utc(seconds as i64)
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`.
pub fn format_utc(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Seconds since 1970 of a time in RFC 3339's form; `None` if it is none.
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, separator)| bytes.get(*at) != Some(separator)) {
        return None;
    }
    let day = days(digits(0, 4)?, digits(5, 7)?, digits(8, 10)?)?;
    let time = digits(11, 13)? * 3600 + digits(14, 16)? * 60 + digits(17, 19)?;
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let from = text.len() - 5;
            let seconds = digits(from, from + 2)? * 3600 + digits(from + 3, from + 5)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    Some(day * 86400 + time - offset)
}

/// How long ago, as docker says it: `3 weeks ago`.
pub fn ago(then: &str, now: i64) -> String {
    let Some(seconds) = parse(then) else { return "N/A".into() };
    let seconds = now - seconds;
    let (count, unit) = match seconds {
        ..=0 => return "Less than a second ago".into(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        172_800..1_209_600 => (seconds / 86400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Year, month and day of a day since 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day since 1970-01-01 of a date.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(format_utc(seconds), text);
            assert_eq!(parse(text), Some(seconds));
        }
        assert_eq!(parse("2000-02-29T14:34:56.123456789+02:00"), Some(951_827_696));
        assert_eq!(parse("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
        for text in ["", "2000-02-29", "2000-13-01T00:00:00Z", "2000-02-29T12:34:56", "2000-02-29T12:34:56ä", "x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn how_long_ago() {
        let at = |seconds: i64| ago(&format_utc(1_000_000_000 - seconds), 1_000_000_000);
        for (seconds, said) in [
            (0, "Less than a second ago"),
            (1, "1 second ago"),
            (119, "1 minute ago"),
            (7200, "2 hours ago"),
            (3 * 86400, "3 days ago"),
            (21 * 86400, "3 weeks ago"),
            (90 * 86400, "3 months ago"),
            (900 * 86400, "2 years ago"),
        ] {
            assert_eq!(at(seconds), said);
        }
        assert_eq!(ago("", 0), "N/A");
    }
}
