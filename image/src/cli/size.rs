//! Sizes for a person.

/// `4.26MB`: units of 1000 and four digits, as docker shows them (go-units, HumanSize).
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = match size {
        _ if unit == 0 => 0,
        ..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{size:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (4_263_000, "4.26MB"),
            (77_800_000, "77.8MB"),
            (123_456_789_000, "123GB"),
            (u64::MAX, "18447PB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
