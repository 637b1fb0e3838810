//! The time of day, even if this machine's clock was never set.

use std::time::SystemTime;

use chrono::{DateTime, Utc};

/// The current time. A clock that was never set may be before 1970, where `Utc::now` panics; it
/// counts as 1970, which is wrong enough to be reported.
pub fn now() -> DateTime<Utc> {
    at(SystemTime::now())
}

fn at(time: SystemTime) -> DateTime<Utc> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_timestamp(seconds, since.subsec_nanos()).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_counts_as_1970() {
        let hour = Duration::from_secs(3600);
        assert_eq!(at(SystemTime::UNIX_EPOCH - hour), DateTime::UNIX_EPOCH);
        assert_eq!(at(SystemTime::UNIX_EPOCH + hour).timestamp(), 3600);
    }
}
