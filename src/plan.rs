//! Which of the names that a node lists are to be fetched. Pure: a listing, what is here, and the
//! time go in; decisions come out.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::seq::SliceRandom;

use crate::archive::HourFiles;
use crate::hour::Hour;
use crate::segment::{Entry, Medium, NameError, SegmentName};

/// In which order the segments of an hour are fetched. In each of them, full segments go before
/// suspect ones, and those before partial ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By chance, so that machines which backfill from each other fetch different segments.
    Random,
    /// The earliest first.
    Forward,
    /// The latest first.
    Reverse,
}

/// Why a listed name is not fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It is here.
    Here,
    /// It is being written on the node.
    Temp,
    /// It is so young that the downloader may still bring it.
    Recent,
    /// It was deleted on purpose, here or on the node.
    Tombstoned,
    /// It begins with a dot, so is no part of the archive.
    Hidden,
    /// It is no name that an archive has.
    NoSegment(NameError),
}

impl Skip {
    /// The reason for a name that can't even be shown.
    pub const NOT_UNICODE: Skip = Skip::NoSegment(NameError::NOT_UNICODE);
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::Here => f.write_str("is here"),
            Skip::Temp => f.write_str("is being written"),
            Skip::Recent => f.write_str("is younger than the recent cutoff"),
            Skip::Tombstoned => f.write_str("has a tombstone: it was deleted on purpose"),
            Skip::Hidden => f.write_str("is hidden"),
            Skip::NoSegment(why) => write!(f, "is no segment: it {why}"),
        }
    }
}

/// Plans what to fetch of one hour from one node, from what the node lists, name by name.
pub struct Planner<'a> {
    hour: Hour,
    medium: Medium,
    files: &'a HourFiles,
    /// What starts later than this, in microseconds since 1970, is too recent.
    recent: i64,
    wanted: Vec<SegmentName>,
    tombstones: Vec<SegmentName>,
}

impl<'a> Planner<'a> {
    /// A planner for an hour of which `files` are here.
    pub fn new(
        hour: Hour,
        medium: Medium,
        files: &'a HourFiles,
        now: DateTime<Utc>,
        recent_cutoff: Duration,
    ) -> Self {
        let cutoff = i64::try_from(recent_cutoff.as_micros()).unwrap_or(i64::MAX);
        let recent = now.timestamp_micros().saturating_sub(cutoff);
        Planner {
            hour,
            medium,
            files,
            recent,
            wanted: Vec::new(),
            tombstones: Vec::new(),
        }
    }

    /// Takes a listed name, and says why it won't be fetched, if that is clear already.
    pub fn listed(&mut self, name: &str) -> Option<Skip> {
        // Nearly every name is of this kind, so nothing else is done to it.
        if self.files.has(name) {
            return Some(Skip::Here);
        }
        let segment = match Entry::parse(name, self.medium) {
            Ok(Entry::Segment(segment)) => segment,
            Ok(Entry::Tombstone(segment)) => {
                self.tombstones.push(segment);
                return None;
            }
            Ok(Entry::Temp) => return Some(Skip::Temp),
            Ok(Entry::Hidden) => return Some(Skip::Hidden),
            Err(why) => return Some(Skip::NoSegment(why)),
        };
        if self.files.has_tombstone_of(&segment) {
            return Some(Skip::Tombstoned);
        }
        // Chat is merged and renamed long after: waiting would not bring more of it.
        let starts = self.hour.micros_at(segment.start_micros());
        if self.medium == Medium::Video && starts > self.recent {
            return Some(Skip::Recent);
        }
        self.wanted.push(segment);
        None
    }

    /// The segments to fetch, in order. What the node itself marks as deleted is left out, and
    /// told to `skipped`.
    pub fn wanted(mut self, order: Order, mut skipped: impl FnMut(&str, Skip)) -> Vec<SegmentName> {
        if !self.tombstones.is_empty() {
            self.wanted.retain(|segment| {
                let deleted = self.tombstones.contains(segment);
                if deleted {
                    skipped(segment.as_str(), Skip::Tombstoned);
                }
                !deleted
            });
        }
        let wanted = &mut self.wanted;
        match order {
            Order::Random => wanted.shuffle(&mut rand::rng()),
            Order::Forward => wanted.sort_by_key(SegmentName::start_micros),
            Order::Reverse => wanted.sort_by_key(|s| std::cmp::Reverse(s.start_micros())),
        }
        // Stable, so the order asked for stays within each kind.
        wanted.sort_by_key(SegmentName::kind);
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU";

    fn segment(stem: &str) -> String {
        format!("{stem}-{HASH}.ts")
    }

    /// What is wanted, and what is skipped and why, of names listed for 2018-11-10T05 at 05:30.
    fn plan(
        medium: Medium,
        here: &[&str],
        listed: &[&str],
        order: Order,
    ) -> (Vec<String>, Vec<String>) {
        let hour = "2018-11-10T05".parse().unwrap();
        let now = "2018-11-10T05:30:00Z".parse().unwrap();
        let files = here.iter().copied().collect();
        let mut planner = Planner::new(hour, medium, &files, now, Duration::from_secs(60));
        let mut skipped = Vec::new();
        for name in listed {
            if let Some(skip) = planner.listed(name) {
                skipped.push(format!("{name} {skip}"));
            }
        }
        let wanted = planner.wanted(order, |name, skip| skipped.push(format!("{name} {skip}")));
        (wanted.iter().map(SegmentName::to_string).collect(), skipped)
    }

    #[test]
    fn each_name_has_its_reason() {
        let wanted = segment("00:00.0-2.0-full");
        let suspect = segment("00:00.0-2.0-suspect");
        let young = segment("29:00.000001-2.0-full");
        let old = segment("29:00.0-2.0-full");
        let temp = "00:02.0-2.0-temp-6f0f9d1e-0000-4000-8000-000000000000.ts";
        for (here, listed, is_wanted, reason) in [
            (vec![], wanted.as_str(), true, ""),
            (vec![wanted.as_str()], &wanted, false, "is here"),
            (vec![&*suspect], &wanted, true, ""),
            (vec![], &suspect, true, ""),
            (vec![], &young, false, "recent cutoff"),
            (vec![], &old, true, ""),
            (vec![], temp, false, "being written"),
            (vec![], ".hidden", false, "hidden"),
            (
                vec![],
                "junk",
                false,
                "is no segment: it does not end in .ts",
            ),
            (vec!["junk"], "junk", false, "is here"),
            (
                vec![&*wanted.replace(".ts", ".tombstone")],
                &wanted,
                false,
                "tombstone",
            ),
        ] {
            let (planned, skipped) = plan(Medium::Video, &here, &[listed], Order::Forward);
            assert_eq!(planned.len(), usize::from(is_wanted), "{listed}");
            match is_wanted {
                true => assert!(skipped.is_empty(), "{skipped:?}"),
                false => assert!(skipped[0].contains(reason), "{skipped:?}"),
            }
        }
    }

    #[test]
    fn a_segment_whose_tombstone_is_listed_is_skipped_whichever_comes_first() {
        let name = segment("00:00.0-2.0-full");
        let tombstone = name.replace(".ts", ".tombstone");
        for listed in [[&*name, &*tombstone], [&*tombstone, &*name]] {
            let (planned, skipped) = plan(Medium::Video, &[], &listed, Order::Forward);
            assert!(planned.is_empty());
            assert_eq!(skipped.len(), 1);
        }
    }

    #[test]
    fn chat_is_never_too_recent() {
        let name = format!("29:59-{HASH}.json");
        assert_eq!(plan(Medium::Chat, &[], &[&name], Order::Random).0, [name]);
    }

    #[test]
    fn the_order_is_the_one_asked_for_with_full_segments_first() {
        let names = [
            "00:04-2.0-full",
            "00:00-2.0-partial",
            "00:00-2.0-full",
            "00:02-2.0-suspect",
        ];
        let names = names.map(segment);
        let listed: Vec<&str> = names.iter().map(String::as_str).collect();
        let order = |order| {
            let (planned, _) = plan(Medium::Video, &[], &listed, order);
            planned
                .iter()
                .map(|n| n[..n.len() - HASH.len() - 4].to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            order(Order::Forward),
            [
                "00:00-2.0-full",
                "00:04-2.0-full",
                "00:02-2.0-suspect",
                "00:00-2.0-partial"
            ]
        );
        assert_eq!(
            order(Order::Reverse),
            [
                "00:04-2.0-full",
                "00:00-2.0-full",
                "00:02-2.0-suspect",
                "00:00-2.0-partial"
            ]
        );
        assert_eq!(order(Order::Random)[3], "00:00-2.0-partial");
    }
}
