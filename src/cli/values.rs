//! Parsers for the values of options: numbers, sizes and durations.

use std::time::Duration;

use crate::archive::MinFree;

/// Parses a number within these bounds, inclusive.
pub fn parse_count(text: &str, least: u16, most: u16) -> Result<u16, String> {
    let count = text.parse().ok().filter(|count| (least..=most).contains(count));
    count.ok_or_else(|| format!("expected a number from {least} to {most}"))
}

/// Parses a duration: with units, or a bare number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = text.parse().map_err(|_| "the number is too large")?;
        return Ok(Duration::from_secs(seconds));
    }
    let expected = "expected a duration such as 90s, 5m or 1h 30m";
    humantime::parse_duration(text).map_err(|_| expected.into())
}

/// Parses an age for deletion. It needs a unit, since nobody means seconds there.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("a number needs a unit, such as {text}d or {text}h"));
    }
    match parse_duration(text)? {
        age if age < Duration::from_secs(3600) => Err("it must be at least an hour".into()),
        age => Ok(age),
    }
}

/// Nobody means to keep less than this free: its unit or percent sign is missing.
const LEAST_FREE: u64 = 1 << 20;

/// Parses how much must stay free on a disk.
pub fn parse_min_free(text: &str) -> Result<MinFree, String> {
    let Some(share) = text.strip_suffix('%') else {
        let size = parse_size(text).map_err(|why| {
            if why.starts_with("expected") {
                "expected a number of bytes or a share of the disk, such as 50G or 5%".into()
            } else {
                why
            }
        });
        return match size? {
            size if size < LEAST_FREE => Err(too_little(text)),
            size => Ok(MinFree::Bytes(size)),
        };
    };
    let plain = share.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let share = share.parse::<f64>().ok().filter(|share| plain && *share > 0.0 && *share < 100.0);
    share.map(MinFree::Percent).ok_or("expected more than 0% and less than 100%".into())
}

fn too_little(text: &str) -> String {
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = if number.len() <= 2 { '%' } else { 'M' };
    format!("it must be at least 1M: did you mean {number}{unit} or {number}G?")
}

/// Parses the longest pause before a pass: at most a day, so that the time of its end is always valid.
/// Zero is no pause, for scripts that fill in the value.
pub fn parse_jitter(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        jitter if jitter > Duration::from_secs(86_400) => Err("it must be at most a day".into()),
        jitter => Ok(jitter),
    }
}

/// Parses how long a node may be silent: above zero, at most a day.
pub fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        // Sockets round down to milliseconds and take zero for no timeout at all.
        timeout if timeout < Duration::from_millis(1) => Err("it must be above zero".into()),
        timeout if timeout > Duration::from_secs(86_400) => Err("it must be at most a day".into()),
        timeout => Ok(timeout),
    }
}

/// Parses a duration above zero.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be above zero".into()),
        interval => Ok(interval),
    }
}

/// Parses a number of bytes; k, M, G and T multiply it by powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        Some((at, 't' | 'T')) => (&text[..at], 1 << 40),
        _ => (text, 1),
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = number
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or("expected a number of bytes such as 500000, 500k or 2M")?;
    match number.checked_mul(unit) {
        Some(0) => Err("it must be above zero".into()),
        Some(size) => Ok(size),
        None => Err("the number is too large".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_curl_reads_them() {
        for (text, size) in [("1", 1), ("500k", 512_000), ("2M", 2 << 20), ("3G", 3 << 30)] {
            assert_eq!(parse_size(text), Ok(size));
        }
        for text in
            ["", "0", "k", "-1", "+1", "1.5M", "2MB", "99999999999999999999", "9999999999999G"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn min_free_is_a_size_or_a_percentage() {
        for (text, expected) in [
            ("50G", MinFree::Bytes(50 << 30)),
            ("2T", MinFree::Bytes(2 << 40)),
            ("1M", MinFree::Bytes(1 << 20)),
            ("1048576", MinFree::Bytes(1 << 20)),
            ("5%", MinFree::Percent(5.0)),
            ("0.5%", MinFree::Percent(0.5)),
        ] {
            assert_eq!(parse_min_free(text), Ok(expected));
        }
        for text in ["", "%", "0", "0%", "100%", "101%", "-5%", "+5%", "1e1%", "5 %", "inf%", "5GB"]
        {
            assert!(parse_min_free(text).is_err(), "{text}");
        }
        for (text, meant) in [
            ("5", "5% or 5G"),
            ("99", "99% or 99G"),
            ("500", "500M or 500G"),
            ("1048575", "1048575M or 1048575G"),
            ("10k", "10% or 10G"),
            ("1023K", "1023M or 1023G"),
        ] {
            let said = format!("it must be at least 1M: did you mean {meant}?");
            assert_eq!(parse_min_free(text), Err(said));
        }
    }

    #[test]
    fn durations_are_numbers_with_units_or_seconds() {
        for (text, seconds) in [("60s", 60), ("120", 120), ("5m", 300), ("1h 30m", 5400), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "-1s", "1 fortnight", "99999999999999999999"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (text, hours) in [("14d", 336), ("336h", 336), ("1h", 1), ("60m", 1), ("1d 12h", 36)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(hours * 3600)));
        }
        for text in ["14", "0", "0d", "59m", "3599s", "", "-14d", "14x"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
        assert!(parse_age("14").unwrap_err().contains("14d"));
        assert!(parse_timeout("0").is_err());
        assert!(parse_timeout("2d").is_err());
        for (text, seconds) in [("0", 0), ("30", 30), ("5m", 300), ("1d", 86_400)] {
            assert_eq!(parse_jitter(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "-5s", "86401", "1d 1ms"] {
            assert!(parse_jitter(text).is_err(), "{text}");
        }
    }
}
