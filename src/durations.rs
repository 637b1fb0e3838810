//! Formats times for people, in the same way everywhere.

use std::time::Duration;

/// A duration that was measured, to a tenth of a second.
pub fn took(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        s => minutes(s),
    }
}

/// A duration that was set, as exactly as it was given: `5 s`, `0.5 s`.
pub fn limit(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{} s", time.as_millis() as f64 / 1e3),
        s => minutes(s),
    }
}

fn minutes(seconds: u64) -> String {
    match seconds {
        s @ 0..3600 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_without_empty_units() {
        for (millis, taken, limited) in [
            (0, "0.0 s", "0 s"),
            (500, "0.5 s", "0.5 s"),
            (5000, "5.0 s", "5 s"),
            (61_000, "1 min 01 s", "1 min 01 s"),
            (3_661_000, "1 h 01 min", "1 h 01 min"),
        ] {
            let time = Duration::from_millis(millis);
            assert_eq!((&*took(time), &*limit(time)), (taken, limited));
        }
    }
}
