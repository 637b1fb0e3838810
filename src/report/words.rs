//! Wording that several reporters share: numbers with their nouns, times, and the values of events.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::HumanCount;

use super::event::Request;
use crate::coverage::Cell;
use crate::durations::limit;
use crate::error::plain;
use crate::retention::Refusal;
use crate::schedule::{GivenUp, Loss, NodeId};
use crate::target::Directory;
use crate::verify::Damage;

/// A number with its noun: `1 file` or `2,000 files`.
pub fn count(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {what}{plural}", HumanCount(n))
}

/// A point in time, to the millisecond.
pub fn instant(micros: i64) -> String {
    let at = DateTime::<Utc>::from_timestamp_micros(micros).unwrap_or_default();
    at.format("%Y-%m-%dT%H:%M:%S%.3f").to_string()
}

/// A duration, to the millisecond.
pub fn length(micros: i64) -> String {
    let (seconds, millis) = (micros / 1_000_000, micros / 1000 % 1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}.{millis:03} s"),
        (0, m, s) => format!("{m} min {s:02}.{millis:03} s"),
        (h, m, s) => format!("{h} h {m:02} min {s:02}.{millis:03} s"),
    }
}

/// A share as a percentage. It is rounded down, so that 100% means that nothing is missing.
pub fn percent(share: f64) -> String {
    format!("{:.3}%", (share * 1e5).floor() / 1e3)
}

/// The states of minutes that the legend of a map explains, in its order.
pub const LEGEND: [Cell; 6] =
    [Cell::Here, Cell::Fetched, Cell::Lesser, Cell::Deleted, Cell::PartMissing, Cell::Missing];

/// What the state of a minute means.
pub fn meaning(cell: Cell, dry_run: bool) -> &'static str {
    match cell {
        Cell::Outside => "not judged",
        Cell::Here => "here",
        Cell::Fetched if dry_run => "would be fetched",
        Cell::Fetched => "fetched now",
        Cell::Lesser => "only suspect or partial",
        Cell::Deleted => "deleted on purpose",
        Cell::PartMissing => "partly missing",
        Cell::Missing => "missing",
    }
}

/// A request to a node.
pub fn request(request: &Request<'_>) -> String {
    match request {
        Request::List(directory) => listing(directory),
        Request::Fetch(target) => format!("fetching {target}"),
    }
}

/// A request to list a directory.
pub fn listing(directory: &Directory) -> String {
    match directory {
        Directory::Archive => "listing the streams".into(),
        Directory::Stream(stream) => format!("listing the variants of {}", stream.as_str()),
        Directory::Collection(collection) => format!("listing the hours of {collection}"),
        Directory::Hour(_) | Directory::Extras(_) => format!("listing {directory}"),
    }
}

/// The last node that did not provide a file, and why.
pub fn loss(loss: &Loss) -> (NodeId, String) {
    match loss {
        Loss::Failed(node, error) => (*node, error.to_string()),
        Loss::GivenUp(node) => (*node, "the node was given up".into()),
        Loss::Withheld(node) => (*node, "it still lists the file but does not send it".into()),
    }
}

/// Why a node was given up.
pub fn given_up(why: &GivenUp) -> String {
    match why {
        GivenUp::Failed(error) => error.to_string(),
        GivenUp::FailedInARow(n, error) => {
            format!("{} requests in a row failed, the last: {error}", HumanCount((*n).into()))
        }
    }
}

/// What is wrong with a corrupt segment.
pub fn damage(damage: &Damage) -> String {
    match damage {
        Damage::Unreadable(error) => plain(error),
        Damage::WrongHash(hash) => format!("content does not match its hash (got {hash})"),
    }
}

/// Why an old hour is not deleted.
pub fn refusal(why: &Refusal) -> String {
    let plain = match why {
        Refusal::NotADirectory => "it is not a directory",
        Refusal::LinkLeadsOut => {
            "a symbolic link there, owned by another user, leads out of the archive"
        }
        Refusal::Interrupted => "the pass was interrupted",
        Refusal::LocalFailure => "the pass had a local failure",
        Refusal::NoNode => "no node answered",
        Refusal::ClockOff(ahead) => {
            let apart = limit(Duration::from_secs(ahead.num_seconds().unsigned_abs()));
            let how = if *ahead < TimeDelta::zero() { "behind" } else { "ahead of" };
            return format!("this machine's clock is {apart} {how} the nodes' clocks");
        }
    };
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_times_are_shown_to_the_millisecond() {
        for (micros, text) in [
            (0, "0.000 s"),
            (2_000_000, "2.000 s"),
            (62_001_000, "1 min 02.001 s"),
            (3_600_000_000, "1 h 00 min 00.000 s"),
        ] {
            assert_eq!(length(micros), text);
        }
        assert_eq!(instant(1_541_826_123_250_000), "2018-11-10T05:02:03.250");
        assert_eq!(
            (count(1, "file"), count(1000, "file")),
            ("1 file".into(), "1,000 files".into())
        );
    }
}
