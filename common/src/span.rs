//! Durations on the command line: `0.5`, `500ms`, `2s`, `1m`.

use std::time::Duration;

/// A duration; a number without a unit is in seconds. For clap's `value_parser`.
///
/// # Errors
/// Zero, a negative number, an unknown unit or no number at all; clap adds the value and the flag.
pub fn seconds(text: &str) -> Result<Duration, String> {
    parse(text, "s")
}

/// The same for flags whose peers take microseconds.
///
/// # Errors
/// As [`seconds`].
pub fn micros(text: &str) -> Result<Duration, String> {
    parse(text, "us")
}

fn parse(text: &str, bare: &str) -> Result<Duration, String> {
    let hint = || "not a duration such as 0.5, 500ms, 2s or 1m".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let nanos_per_unit = match if unit.is_empty() { bare } else { unit } {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000_u64,
        _ => return Err(hint()),
    };
    let nanos = scaled(number, nanos_per_unit).ok_or_else(hint)?;
    match nanos {
        0 => Err("must be more than 0".to_owned()),
        // A century: what is longer is a slip, and would not fit a kernel clock in nanoseconds.
        n if n > 100 * 365 * 24 * 3_600_000_000_000 => Err("too long".to_owned()),
        n => u64::try_from(n).map(Duration::from_nanos).map_err(|_| "too long".to_owned()),
    }
}

/// A decimal number times a unit, without a detour over floating point.
fn scaled(number: &str, unit: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || whole.len() > 20 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let part = digits(fraction)? * u128::from(unit) / 10_u128.pow(fraction.len() as u32);
    Some(digits(whole)? * u128::from(unit) + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_takes_the_unit_of_its_flag() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(micros("150"), Ok(Duration::from_micros(150)));
    }

    #[test]
    fn units_are_read() {
        for (text, nanos) in [("500ms", 500_000_000), ("1m", 60_000_000_000), ("1.5us", 1_500), ("7ns", 7)] {
            assert_eq!(seconds(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "0",
            "0.0",
            "-1",
            "abc",
            "1x",
            "0x",
            "",
            ".",
            "1.2.3",
            "1e9",
            "99999999999999999999",
            "inf",
            "1 s",
        ] {
            assert!(seconds(text).is_err(), "{text:?} was taken");
        }
        assert!(seconds("9223372036854775807").is_err());
        assert!(seconds("0.0000000001").is_err());
    }
}
