//! Numbers with units, as people write them.

/// A size such as `100M`, `1.5G`, `512 KiB` or `1048576`, in units of 1024; `-1` is unlimited. As in docker/go-units
/// (RAMInBytes), with which runc reads it.
pub fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let exponent = match unit.chars().next() {
        None | Some('b') => 0,
        Some(letter) => 1 + "kmgtp".find(letter)? as u32,
    };
    if !["", "b", "ib"].contains(&if exponent == 0 { &*unit } else { &unit[1..] }) {
        return None;
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let factor = 1i64 << (10 * exponent);
    let part = format!("0.{fraction}0").parse::<f64>().ok()? * factor as f64;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    whole.checked_mul(factor)?.checked_add(part as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("512k", Some(512 << 10)),
            ("100M", Some(100 << 20)),
            ("1G", Some(1 << 30)),
            ("1GiB", Some(1 << 30)),
            ("1gb", Some(1 << 30)),
            ("2T", Some(2 << 40)),
            ("1p", Some(1 << 50)),
            ("7b", Some(7)),
            ("1.5G", Some(3 << 29)),
            (".5k", Some(512)),
            ("1.k", Some(1024)),
            ("512 KiB", Some(512 << 10)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-1", Some(-1)),
            ("-2", None),
            ("-1M", None),
            ("+1", None),
            ("", None),
            ("M", None),
            (".", None),
            ("1.2.3", None),
            ("1x", None),
            ("1MM", None),
            ("1Mi", None),
            ("1bb", None),
            ("1 M ", None),
            ("0x10", None),
            ("1e3", None),
            ("9223372036854775808", None),
            ("8589934592G", None),
            ("1é", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }
}
