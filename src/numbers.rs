//! How times are written for people: one way everywhere.

use std::time::Duration;

/// How long something took, to a tenth of a second.
pub fn took(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        s => minutes(s),
    }
}

/// How long something may take, or will, as exactly as it was said: `5 s`, `0.5 s`.
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
    fn times_are_shown_as_short_as_they_can_be() {
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
