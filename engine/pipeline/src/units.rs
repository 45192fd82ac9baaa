//! Sizes and durations as they stand in a file.

use std::time::Duration;

/// Units of sizes and their bytes.
pub(crate) const BYTES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Units of durations and their nanoseconds.
pub(crate) const DURATIONS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// `64MiB` in bytes. The number is whole or has a fraction, as `1.5GiB`.
pub fn bytes(text: &str) -> Option<u64> {
    scaled(text, &BYTES)
}

/// `20ms` as a duration.
pub fn duration(text: &str) -> Option<Duration> {
    scaled(text, &DURATIONS).map(Duration::from_nanos)
}

fn scaled(text: &str, table: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = split(text);
    let scale = table.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let digits = 10u128.pow(fraction.len() as u32);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / digits;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// The number, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// What was meant by a text that is nearly right: a space before the unit, another case, a usual other spelling.
pub(crate) fn mend(text: &str, table: &[(&str, u64)]) -> Option<String> {
    let (number, unit) = split(text.trim());
    let unit = unit.trim();
    let lower = unit.to_lowercase();
    let usual = match lower.as_str() {
        "µs" | "μs" => "us",
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hour" | "hours" => "h",
        "day" | "days" => "d",
        "k" | "ki" => "KiB",
        "m" | "mi" => "MiB",
        "g" | "gi" => "GiB",
        "t" | "ti" => "TiB",
        "bytes" | "byte" => "B",
        _ => "",
    };
    let find = |wanted: &dyn Fn(&str) -> bool| {
        table
            .iter()
            .map(|(name, _)| *name)
            .find(|name| wanted(name))
    };
    let unit = find(&|name| name == unit)
        .or_else(|| find(&|name| name.to_lowercase() == lower))
        .or_else(|| find(&|name| name == usual))?;
    let mended = format!("{number}{unit}");
    (mended != text && scaled(&mended, table).is_some()).then_some(mended)
}

/// Bytes for people: the largest binary unit that leaves at most three digits behind the point.
pub fn show_bytes(bytes: u64) -> String {
    for (unit, scale) in [
        ("TiB", 1u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ] {
        if bytes >= scale {
            let value = bytes as f64 / scale as f64;
            return if bytes.is_multiple_of(scale) || value >= 100.0 {
                format!("{value:.0}{unit}")
            } else {
                format!("{value:.1}{unit}")
            };
        }
    }
    format!("{bytes}B")
}

/// A duration as it would stand in a file.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, scale) in DURATIONS.iter().rev() {
        let scale = u128::from(*scale);
        if nanos >= scale && nanos.is_multiple_of(scale) {
            return format!("{}{unit}", nanos / scale);
        }
    }
    format!("{nanos}ns")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_durations_are_exact_or_refused() {
        assert_eq!(bytes("64MiB"), Some(64 << 20));
        assert_eq!(bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(bytes("10GB"), Some(10_000_000_000));
        for wrong in [
            "",
            "64",
            "64 MiB",
            "MiB",
            "-1B",
            "1.B",
            ".5B",
            "99999999TiB",
            "1e3B",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong:?}");
        }
        assert_eq!(duration("20ms"), Some(Duration::from_millis(20)));
        assert_eq!(duration("20"), None);
    }

    #[test]
    fn near_misses_are_mended() {
        assert_eq!(mend("20 ms", &DURATIONS).as_deref(), Some("20ms"));
        assert_eq!(mend("64mb", &BYTES).as_deref(), Some("64MB"));
        assert_eq!(mend("2g", &BYTES).as_deref(), Some("2GiB"));
        assert_eq!(mend("lots", &BYTES), None);
    }

    proptest! {
        #[test]
        fn durations_are_read_as_they_are_shown(nanos in any::<u64>()) {
            let whole = Duration::from_nanos(nanos);
            prop_assert_eq!(duration(&show_duration(whole)), Some(whole));
        }

        #[test]
        fn no_text_makes_units_panic(text in ".{0,40}") {
            let _ = (bytes(&text), duration(&text), mend(&text, &BYTES), mend(&text, &DURATIONS));
        }
    }
}
