//! Which of the names that a node lists are to be fetched. Pure: a listing, what is here, and the
//! time go in; decisions come out.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::seq::SliceRandom;

use crate::archive::HourFiles;
use crate::hour::{HOUR_MICROS, Hour};
use crate::segment::{CLOCKS_DIFFER, Entry, HASH_LEN, Medium, NameError, SegmentName};

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

/// An hour that lacks more than this many segments is not one: it has two thousand, or some times
/// that if several recordings of it came together.
pub const MAX_MISSING: usize = 10_000;

/// How far ahead of ours the clocks of others may be, in microseconds, with nothing said.
const TOLERATED_CLOCK_ERROR: i64 = 60_000_000;

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
    /// It is the same recording as this one, which is here or wanted, by another clock.
    NearDuplicate(Option<String>),
    /// It begins with a dot, so is no part of the archive.
    Hidden,
    /// It is no name that an archive has.
    NoName(NameError),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::Here => f.write_str("is here"),
            Skip::Temp => f.write_str("is being written"),
            Skip::Recent => f.write_str("is younger than the recent cutoff"),
            Skip::Tombstoned => f.write_str("has a tombstone: it was deleted on purpose"),
            Skip::NearDuplicate(Some(name)) => write!(f, "is a near duplicate of {name}"),
            Skip::NearDuplicate(None) => f.write_str("is a near duplicate of one that is wanted"),
            Skip::Hidden => f.write_str("is hidden"),
            Skip::NoName(why) => write!(f, "is no name that an archive has: it {why}"),
        }
    }
}

/// What a planner knows besides the listing.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The present.
    pub now: DateTime<Utc>,
    /// How young a segment is left to the downloader.
    pub recent_cutoff: Duration,
    /// In which order segments are fetched.
    pub order: Order,
}

/// Plans what to fetch of one hour from one node, from what the node lists, name by name.
pub struct Planner<'a> {
    hour: Hour,
    medium: Medium,
    files: &'a HourFiles,
    order: Order,
    /// What starts later than this, in microseconds since 1970, is too recent.
    recent: i64,
    /// What starts later than this has not happened yet: if there is such a thing, our clock is
    /// wrong, and must not keep us from fetching it.
    future: i64,
    wanted: Vec<SegmentName>,
    tombstones: Vec<SegmentName>,
}

/// What is to be done about an hour that a node has listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The segments to fetch, in order.
    pub wanted: Vec<SegmentName>,
    /// The segments whose tombstones the node lists, and the archive lacks.
    pub tombstones: Vec<SegmentName>,
}

impl<'a> Planner<'a> {
    /// A planner for an hour of which `files` are here.
    pub fn new(hour: Hour, medium: Medium, files: &'a HourFiles, rules: Rules) -> Self {
        let cutoff = i64::try_from(rules.recent_cutoff.as_micros()).unwrap_or(i64::MAX);
        let now = rules.now.timestamp_micros();
        Planner {
            hour,
            medium,
            files,
            order: rules.order,
            recent: now.saturating_sub(cutoff),
            future: now.saturating_add(TOLERATED_CLOCK_ERROR),
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
                if self.tombstones.len() <= MAX_MISSING {
                    self.tombstones.push(segment);
                }
                return None;
            }
            Ok(Entry::Temp) => return Some(Skip::Temp),
            Ok(Entry::Hidden) => return Some(Skip::Hidden),
            Err(why) => return Some(Skip::NoName(why)),
        };
        if self.files.has_tombstone_of(&segment) {
            return Some(Skip::Tombstoned);
        }
        // Chat is merged and renamed long after: waiting would not bring more of it.
        let starts = self.hour.micros_at(segment.start_micros());
        let is_recent = starts > self.recent && starts <= self.future;
        let is_recent = self.medium == Medium::Video && is_recent;
        if is_recent && !self.files.is_corrupt(name) {
            return Some(Skip::Recent);
        }
        if self.wanted.len() <= MAX_MISSING {
            self.wanted.push(segment);
        }
        None
    }

    /// Whether the node lists more that is not here than an hour can have, so that it can't be
    /// believed. What is too much was not kept.
    pub fn is_overfull(&self) -> bool {
        self.wanted.len().max(self.tombstones.len()) > MAX_MISSING
    }

    /// Whether something is wanted that has not happened yet by our clock.
    pub fn is_clock_wrong(&self) -> bool {
        let hour = self.hour;
        let is_future = |s: &SegmentName| hour.micros_at(s.start_micros()) > self.future;
        self.medium == Medium::Video && self.wanted.iter().any(is_future)
    }

    /// The hours besides this one in which another recording of a wanted segment may lie.
    pub fn neighbours(&self) -> Vec<Hour> {
        if self.medium == Medium::Chat {
            return Vec::new();
        }
        let starts = || self.wanted.iter().map(|segment| i64::from(segment.start_micros()));
        let mut hours = Vec::new();
        if starts().any(|start| start < CLOCKS_DIFFER) {
            hours.push(self.hour.back(1));
        }
        if starts().any(|start| start >= HOUR_MICROS - CLOCKS_DIFFER) {
            hours.push(self.hour.next());
        }
        hours
    }

    /// The plan, with what is here of the [`neighbours`](Self::neighbours). What drops out only
    /// now is told to `skipped`.
    pub fn plan(
        mut self,
        neighbours: &[(Hour, HourFiles)],
        mut skipped: impl FnMut(&SegmentName, Skip),
    ) -> Plan {
        if !self.tombstones.is_empty() {
            let deleted: HashSet<&SegmentName> = self.tombstones.iter().collect();
            self.wanted.retain(|segment| {
                let keep = !deleted.contains(segment);
                if !keep {
                    skipped(segment, Skip::Tombstoned);
                }
                keep
            });
        }
        if self.medium == Medium::Video && !self.wanted.is_empty() {
            let hours = neighbours.iter().map(|(hour, files)| (*hour, files));
            let here = Recordings::of(hours.chain([(self.hour, self.files)]));
            let (hour, files) = (self.hour, self.files);
            self.wanted.retain(|segment| match here.near_duplicate(hour, segment) {
                Some(name) if !files.is_corrupt(segment.as_str()) => {
                    skipped(segment, Skip::NearDuplicate(Some(name.to_owned())));
                    false
                }
                _ => true,
            });
        }
        let wanted = &mut self.wanted;
        match self.order {
            Order::Random => wanted.shuffle(&mut rand::rng()),
            Order::Forward => wanted.sort_by_key(SegmentName::start_micros),
            Order::Reverse => wanted.sort_by_key(|s| Reverse(s.start_micros())),
        }
        // Stable, so the order asked for stays within each kind.
        wanted.sort_by_key(SegmentName::kind);
        self.tombstones.retain(|segment| !self.files.has(&segment.tombstone()));
        Plan { wanted: self.wanted, tombstones: self.tombstones }
    }
}

/// The segments that are here, to be found by their hashes. Most of them are never parsed.
struct Recordings<'a> {
    /// The hash as it is written, the hour, and the name; sorted.
    by_hash: Vec<(&'a str, Hour, &'a str)>,
}

impl<'a> Recordings<'a> {
    fn of(hours: impl Iterator<Item = (Hour, &'a HourFiles)>) -> Self {
        let names = hours.flat_map(|(hour, files)| files.iter().map(move |name| (hour, name)));
        let mut by_hash: Vec<_> = names
            .filter_map(|(hour, name)| {
                let stem = name.strip_suffix(".ts")?;
                Some((stem.get(stem.len().checked_sub(HASH_LEN)?..)?, hour, name))
            })
            .collect();
        by_hash.sort_unstable();
        Recordings { by_hash }
    }

    /// A segment that is the same but for a start that another clock gave it.
    fn near_duplicate(&self, hour: Hour, wanted: &SegmentName) -> Option<&'a str> {
        let hash = wanted.written_hash();
        let first = self.by_hash.partition_point(|(other, ..)| *other < hash);
        let same = self.by_hash[first..].iter().take_while(|(other, ..)| *other == hash);
        let start = hour.micros_at(wanted.start_micros());
        same.filter_map(|(_, hour, name)| {
            let other = SegmentName::parse(name, Medium::Video).ok()?;
            let apart = (hour.micros_at(other.start_micros()) - start).abs();
            let same = (other.duration_micros(), other.kind())
                == (wanted.duration_micros(), wanted.kind());
            (same && apart <= CLOCKS_DIFFER).then_some(*name)
        })
        .next()
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
        let recent_cutoff = Duration::from_secs(60);
        let rules = Rules { now, recent_cutoff, order };
        let mut planner = Planner::new(hour, medium, &files, rules);
        let mut skipped = Vec::new();
        for name in listed {
            if let Some(skip) = planner.listed(name) {
                skipped.push(format!("{name} {skip}"));
            }
        }
        let plan = planner.plan(&[], |name, skip| skipped.push(format!("{name} {skip}")));
        (plan.wanted.iter().map(SegmentName::to_string).collect(), skipped)
    }

    #[test]
    fn each_name_has_its_reason() {
        let wanted = segment("00:00.0-2.0-full");
        let suspect = segment("00:00.0-2.0-suspect");
        let young = segment("29:00.000001-2.0-full");
        let old = segment("29:00.0-2.0-full");
        let (ahead, future) = (segment("30:59.0-2.0-full"), segment("31:01.0-2.0-full"));
        let temp = "00:02.0-2.0-temp-6f0f9d1e-0000-4000-8000-000000000000.ts";
        for (here, listed, is_wanted, reason) in [
            (vec![], wanted.as_str(), true, ""),
            (vec![wanted.as_str()], &wanted, false, "is here"),
            (vec![&*suspect], &wanted, true, ""),
            (vec![], &suspect, true, ""),
            (vec![], &young, false, "recent cutoff"),
            (vec![], &old, true, ""),
            (vec![], &ahead, false, "recent cutoff"),
            (vec![], &future, true, ""),
            (vec![], temp, false, "being written"),
            (vec![], ".hidden", false, "hidden"),
            (vec![], "junk", false, "is no name that an archive has: it does not end in .ts"),
            (vec!["junk"], "junk", false, "is here"),
            (vec![&*wanted.replace(".ts", ".tombstone")], &wanted, false, "tombstone"),
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
        let names = ["00:04-2.0-full", "00:00-2.0-partial", "00:00-2.0-full", "00:02-2.0-suspect"];
        let names = names.map(segment);
        let listed: Vec<&str> = names.iter().map(String::as_str).collect();
        let order = |order| {
            let (planned, _) = plan(Medium::Video, &[], &listed, order);
            planned.iter().map(|n| n[..n.len() - HASH.len() - 4].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            order(Order::Forward),
            ["00:00-2.0-full", "00:04-2.0-full", "00:02-2.0-suspect", "00:00-2.0-partial"]
        );
        assert_eq!(
            order(Order::Reverse),
            ["00:04-2.0-full", "00:00-2.0-full", "00:02-2.0-suspect", "00:00-2.0-partial"]
        );
        assert_eq!(order(Order::Random)[3], "00:00-2.0-partial");
    }

    /// Whether a segment of 05 is skipped for being the same as what is here of some hour.
    fn is_near_duplicate(wanted: &str, here: (&str, &str)) -> bool {
        let hour: Hour = "2018-11-10T05".parse().unwrap();
        let now = "2018-11-11T00:00:00Z".parse().unwrap();
        let rules = Rules { now, recent_cutoff: Duration::ZERO, order: Order::Forward };
        let other: Hour = here.0.parse().unwrap();
        let there: HourFiles = [here.1].into_iter().collect();
        let nothing = HourFiles::default();
        let files = if other == hour { &there } else { &nothing };
        let mut planner = Planner::new(hour, Medium::Video, files, rules);
        assert_eq!(planner.listed(wanted), None);
        let neighbours = match planner.neighbours().contains(&other) {
            true => vec![(other, [here.1].into_iter().collect())],
            false => vec![],
        };
        planner.plan(&neighbours, |_, _| ()).wanted.is_empty()
    }

    #[test]
    fn the_same_recording_by_another_clock_is_not_wanted() {
        let other_hash =
            "00:00.0-2.0-full-bopBvuU5KDtYSR3Qc50ZPlzzPwUKVjtl-xxxxxxxxx0.ts".to_owned();
        for (wanted, hour, here, is_near) in [
            ("00:00.0005-2.0-full", "2018-11-10T05", segment("00:00.0-2.0-full"), true),
            ("00:00.001-2.0-full", "2018-11-10T05", segment("00:00.0-2.000-full"), true),
            ("00:00.001001-2.0-full", "2018-11-10T05", segment("00:00.0-2.0-full"), false),
            ("00:00.0005-2.1-full", "2018-11-10T05", segment("00:00.0-2.0-full"), false),
            ("00:00.0005-2.0-suspect", "2018-11-10T05", segment("00:00.0-2.0-full"), false),
            ("00:00.0005-2.0-full", "2018-11-10T05", other_hash, false),
            ("59:59.9995-2.0-full", "2018-11-10T06", segment("00:00.0-2.0-full"), true),
            ("59:59.9989-2.0-full", "2018-11-10T06", segment("00:00.0-2.0-full"), false),
            ("00:00.0-2.0-full", "2018-11-10T04", segment("59:59.9995-2.0-full"), true),
            ("00:00.0-2.0-full", "2018-11-10T04", segment("00:00.0-2.0-full"), false),
        ] {
            let wanted = segment(wanted);
            assert_eq!(
                is_near_duplicate(&wanted, (hour, &here)),
                is_near,
                "{wanted} {hour} {here}"
            );
        }
    }

    #[test]
    fn tombstones_that_are_listed_and_not_here_are_planned() {
        let hour = "2018-11-10T05".parse().unwrap();
        let now = "2018-11-11T00:00:00Z".parse().unwrap();
        let rules = Rules { now, recent_cutoff: Duration::ZERO, order: Order::Forward };
        let names = ["00:00-2.0-full", "00:02-2.0-full"].map(segment);
        let tombstones = names.each_ref().map(|name| name.replace(".ts", ".tombstone"));
        let files = [&*tombstones[0], &names[1]].into_iter().collect();
        let mut planner = Planner::new(hour, Medium::Video, &files, rules);
        assert_eq!(planner.listed(&tombstones[0]), Some(Skip::Here));
        assert_eq!(planner.listed(&tombstones[1]), None);
        let plan = planner.plan(&[], |_, _| ());
        let planned: Vec<String> = plan.tombstones.iter().map(SegmentName::to_string).collect();
        assert_eq!(planned, [&*names[1]]);
    }
}
