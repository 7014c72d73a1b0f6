//! Numbers for people: bytes, counts, spans, instants.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes in powers of 1000 with three digits: `999 B`, `1.23 kB`, `45.6 MB`, `789 GB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.5 would be printed as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A count with thin groups: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of things: `1 row`, `2,000 rows`.
pub fn of(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Microseconds as a time with three digits: `85 us`, `1.20 ms`, `3.45 s`.
pub fn micros(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..10_000 => format!("{:.2} ms", micros as f64 / 1e3),
        10_000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// A span in at most two units: `850 ms`, `12.3 s`, `5 min`, `1 h 30 min`, `2 d 4 h`.
pub fn span_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    let two = |large: u64, unit: &str, small: u64, sub: &str| {
        if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {sub}") }
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 if ms.is_multiple_of(1000) => format!("{seconds} s"),
        1..60 => format!("{:.1} s", (ms / 100) as f64 / 10.0),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// An RFC 3339 instant as a person near `reference` writes it: the time of day on the same day, else the date with it.
/// A text that is no instant stays as it is.
pub fn instant(text: &str, reference: &str, zone: &TimeZone) -> String {
    let Ok(instant) = text.parse::<Timestamp>() else { return text.to_owned() };
    let instant = instant.to_zoned(zone.clone());
    let same_day =
        reference.parse::<Timestamp>().is_ok_and(|reference| reference.to_zoned(zone.clone()).date() == instant.date());
    instant.strftime(if same_day { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

/// Milliseconds between two RFC 3339 instants, where both are ones and in order.
pub fn between_ms(from: &str, to: &str) -> Option<u64> {
    let (from, to) = (from.parse::<Timestamp>().ok()?, to.parse::<Timestamp>().ok()?);
    u64::try_from(to.as_millisecond() - from.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        let texts = [0, 999, 1000, 1234, 9_999, 99_949, 999_499, 999_500, 104_857_600, u64::MAX].map(bytes);
        assert_eq!(
            texts.each_ref().map(String::as_str),
            ["0 B", "999 B", "1.00 kB", "1.23 kB", "10.0 kB", "99.9 kB", "999 kB", "1.00 MB", "105 MB", "18.4 EB"]
        );
    }

    #[test]
    fn spans_and_counts_are_short() {
        let texts = [0, 850, 5000, 12_345, 300_000, 303_000, 5_400_000, 190_000_000].map(span_ms);
        assert_eq!(
            texts.each_ref().map(String::as_str),
            ["0 ms", "850 ms", "5 s", "12.3 s", "5 min", "5 min 3 s", "1 h 30 min", "2 d 4 h"]
        );
        assert_eq!([0, 999, 1000, 1_234_567].map(count).concat(), "09991,0001,234,567");
        assert_eq!([85, 1200, 45_600, 345_600, 3_450_000].map(micros).join(" "), "85 us 1.20 ms 45.6 ms 346 ms 3.45 s");
    }

    #[test]
    fn an_instant_of_another_day_has_its_date() {
        let (day, next) = ("2026-01-31T10:00:00.5Z", "2026-02-01T09:00:00Z");
        assert_eq!(instant(day, day, &TimeZone::UTC), "10:00:00");
        assert_eq!(instant(day, next, &TimeZone::UTC), "2026-01-31 10:00:00");
        assert_eq!(instant("soon", day, &TimeZone::UTC), "soon");
        assert_eq!(between_ms(day, next), Some(82_799_500));
        assert_eq!(between_ms(next, day), None);
    }
}
