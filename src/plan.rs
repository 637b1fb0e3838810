//! Decides which listed names to fetch. Pure: a listing, the files here, and the time go in;
//! decisions come out.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::seq::SliceRandom;

use crate::archive::HourFiles;
use crate::hour::{HOUR_MICROS, Hour};
use crate::segment::{
    CLOCKS_DIFFER, Entry, HASH_LEN, Medium, NameError, SegmentName, TOMBSTONE, is_same_recording,
};

/// The order in which to fetch the segments of an hour. Whatever the order, full segments precede
/// suspect ones, and those precede partial ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In random order, so that machines which backfill from each other fetch different segments.
    Random,
    /// Earliest first.
    Forward,
    /// Latest first.
    Reverse,
}

impl Order {
    /// Which of two segments of an hour to fetch first.
    pub fn of(self, one: &SegmentName, other: &SegmentName) -> Ordering {
        one.kind().cmp(&other.kind()).then_with(|| match self {
            Order::Random => Ordering::Equal,
            Order::Forward => one.start_micros().cmp(&other.start_micros()),
            Order::Reverse => other.start_micros().cmp(&one.start_micros()),
        })
    }
}

/// How many names of a listing are handled at a time: slightly more than one recorder produces in
/// an hour. If there are more, the rest is listed again, so an hour may hold any number.
pub const WINDOW: usize = 2000;
/// As [`WINDOW`], for the one listing at a time that may use more memory. It needs fewer
/// repetitions.
pub const LARGE_WINDOW: usize = 6000;

/// How many new tombstones of a listing are always accepted. Usually there can't be more than the
/// hour has segments, but all segments of a short hour may have been deleted.
const PLAUSIBLE_TOMBSTONES: usize = 100;
/// How many new tombstones of a listing are accepted at most, whatever else it holds.
const MAX_TOMBSTONES: usize = 10_000;

/// How far the clocks of others may be ahead of ours without a warning, in microseconds. Machines
/// that keep time by NTP are far closer.
const TOLERATED_CLOCK_ERROR: i64 = 60_000_000;

/// Why a listed name is not fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// It is already here.
    Here,
    /// It is being written on the node.
    Temp,
    /// It is so recent that the downloader may still write it.
    Recent,
    /// It was deleted on purpose, here or on the node.
    Tombstoned,
    /// It is the same recording by another clock as this one, which is here or wanted. If that is
    /// in another hour, its name starts with the hour.
    NearDuplicate(String),
    /// It begins with a dot, so it is not part of the archive.
    Hidden,
    /// It is not a valid name.
    Invalid(NameError),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::Here => f.write_str("is here"),
            Skip::Temp => f.write_str("is being written"),
            Skip::Recent => f.write_str("is younger than the recent cutoff"),
            Skip::Tombstoned => f.write_str("has a tombstone: it was deleted on purpose"),
            Skip::NearDuplicate(name) => write!(f, "is a near duplicate of {name}"),
            Skip::Hidden => f.write_str("is hidden"),
            Skip::Invalid(why) => write!(f, "is not a valid name: it {why}"),
        }
    }
}

/// The parameters of a planner.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The current time.
    pub now: DateTime<Utc>,
    /// Segments younger than this are left to the downloader.
    pub recent_cutoff: Duration,
    /// The order in which to fetch segments.
    pub order: Order,
}

/// Plans what to fetch of one hour from one node, name by name as the node lists them.
pub struct Planner<'a> {
    hour: Hour,
    medium: Medium,
    files: &'a HourFiles,
    order: Order,
    /// Segments that start after this are too recent, in microseconds since 1970.
    recent: i64,
    /// Segments that start after this lie in the future. If there are any, our clock is wrong, and
    /// that must not keep us from fetching them.
    future: i64,
    wanted: Window<SegmentName>,
    tombstones: BTreeSet<SegmentName>,
    /// How many segments the node lists that are not here.
    segments: usize,
}

/// A window on a listing: the first names, in the order of names, after a certain one. It bounds
/// how much of a listing is handled at a time. The order makes it possible to continue where the
/// window ends.
#[derive(Debug)]
pub struct Window<T> {
    size: usize,
    after: Option<T>,
    names: BTreeSet<T>,
    is_full: bool,
}

impl<T: Ord + Clone> Window<T> {
    /// A window of at most `size` names after this one.
    pub fn new(size: usize, after: Option<T>) -> Self {
        Window { size, after, names: BTreeSet::new(), is_full: false }
    }

    /// Whether it is the first window of the listing.
    pub fn is_first(&self) -> bool {
        self.after.is_none()
    }

    /// Adds a name if it lies in the window.
    pub fn add(&mut self, name: T) {
        if self.after.as_ref().is_some_and(|after| name <= *after) {
            return;
        }
        self.names.insert(name);
        if self.names.len() > self.size {
            self.names.pop_last();
            self.is_full = true;
        }
    }

    /// The names in order, and the last of them if the listing has more.
    pub fn finish(self) -> (Vec<T>, Option<T>) {
        let last = self.names.last().filter(|_| self.is_full).cloned();
        (self.names.into_iter().collect(), last)
    }
}

/// What to do about an hour that a node has listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The segments to fetch, in order.
    pub wanted: Vec<SegmentName>,
    /// The segments whose tombstones the node lists but the archive lacks.
    pub tombstones: Vec<SegmentName>,
    /// The last name in the window, if the listing has more.
    pub up_to: Option<SegmentName>,
}

impl<'a> Planner<'a> {
    /// A planner for an hour in which `files` are here.
    pub fn new(
        hour: Hour,
        medium: Medium,
        files: &'a HourFiles,
        rules: Rules,
        window: Window<SegmentName>,
    ) -> Self {
        let cutoff = i64::try_from(rules.recent_cutoff.as_micros()).unwrap_or(i64::MAX);
        let now = rules.now.timestamp_micros();
        Planner {
            hour,
            medium,
            files,
            order: rules.order,
            recent: now.saturating_sub(cutoff),
            future: now.saturating_add(TOLERATED_CLOCK_ERROR),
            wanted: window,
            tombstones: BTreeSet::new(),
            segments: 0,
        }
    }

    /// Adds a listed name. Returns why it won't be fetched, if that is already certain.
    pub fn listed(&mut self, name: &str) -> Option<Skip> {
        // This is true of almost every name, so it comes first and must be cheap.
        if self.files.has(name) {
            return Some(Skip::Here);
        }
        let segment = match Entry::parse(name, self.medium) {
            Ok(Entry::Segment(segment)) => segment,
            Ok(Entry::Tombstone(segment)) => {
                if self.tombstones.len() <= MAX_TOMBSTONES && self.wanted.is_first() {
                    self.tombstones.insert(segment);
                }
                return None;
            }
            Ok(Entry::Temp) => return Some(Skip::Temp),
            Ok(Entry::Hidden) => return Some(Skip::Hidden),
            Err(why) => return Some(Skip::Invalid(why)),
        };
        self.segments += 1;
        if self.files.has_tombstone_of(&segment) {
            return Some(Skip::Tombstoned);
        }
        // Chat is merged and renamed long after it was written, so waiting would not help.
        let starts = self.hour.micros_at(segment.start_micros());
        let is_recent = starts > self.recent && starts <= self.future;
        let is_recent = self.medium == Medium::Video && is_recent;
        if is_recent && !self.files.is_corrupt(name) {
            return Some(Skip::Recent);
        }
        self.wanted.add(segment);
        None
    }

    /// Whether the node lists so many new tombstones that the rest of the listing needn't be read.
    /// Further tombstones are not kept.
    pub fn has_too_many_tombstones(&self) -> bool {
        self.tombstones.len() > MAX_TOMBSTONES
    }

    /// Whether the complete listing has more new tombstones than the hour has segments, here and in
    /// the listing. Such a listing can't be trusted.
    pub fn has_implausible_tombstones(&self) -> bool {
        self.tombstones.len() > PLAUSIBLE_TOMBSTONES.max(self.files.len() + self.segments)
    }

    /// Whether a wanted segment lies in the future by our clock.
    pub fn is_clock_wrong(&self) -> bool {
        let hour = self.hour;
        let is_future = |s: &SegmentName| hour.micros_at(s.start_micros()) > self.future;
        self.medium == Medium::Video && self.wanted.names.iter().any(is_future)
    }

    /// The neighbouring hours in which other recordings of wanted segments may be.
    pub fn neighbours(&self) -> Vec<Hour> {
        if self.medium == Medium::Chat {
            return Vec::new();
        }
        let starts = || self.wanted.names.iter().map(|segment| i64::from(segment.start_micros()));
        let mut hours = Vec::new();
        if starts().any(|start| start < CLOCKS_DIFFER) {
            hours.push(self.hour.back(1));
        }
        if starts().any(|start| start >= HOUR_MICROS - CLOCKS_DIFFER) {
            hours.push(self.hour.next());
        }
        hours
    }

    /// The plan, with what is here of the [`neighbours`](Self::neighbours). `skipped` is called for
    /// names that are rejected only at this stage.
    pub fn plan(
        self,
        neighbours: &[(Hour, HourFiles)],
        mut skipped: impl FnMut(&SegmentName, Skip),
    ) -> Plan {
        let Planner { hour, medium, files, order, .. } = self;
        let (mut wanted, up_to) = self.wanted.finish();
        if !wanted.is_empty() {
            let hours = neighbours.iter().map(|(hour, files)| (*hour, files));
            let deleted = self.tombstones.iter().map(|segment| (hour, segment));
            let hashes: HashSet<&str> = wanted.iter().map(SegmentName::written_hash).collect();
            let is_wanted = |hash: &str| hashes.contains(hash);
            let known =
                KnownRecordings::of(hours.chain([(hour, files)]), is_wanted, deleted, medium);
            wanted.retain(|segment| match known.find(hour, segment) {
                None => true,
                Some(Found::Deleted) => {
                    skipped(segment, Skip::Tombstoned);
                    false
                }
                Some(Found::Here(_)) if files.is_corrupt(segment.as_str()) => true,
                Some(Found::Here(name)) => {
                    skipped(segment, Skip::NearDuplicate(name));
                    false
                }
            });
        }
        if order == Order::Random {
            wanted.shuffle(&mut rand::rng());
        }
        // A stable sort, so a random order is kept within each type.
        wanted.sort_by(|one, other| order.of(one, other));
        Plan { wanted, tombstones: self.tombstones.into_iter().collect(), up_to }
    }
}

/// What is known of another recording of a segment: one that differs only in the start that another
/// clock gave it.
enum Found {
    /// It was deleted on purpose, which applies to all recordings of it.
    Deleted,
    /// It is here under this name, which starts with the hour if that is another one.
    Here(String),
}

/// Segments and tombstones, indexed by the hashes in their names. Most are never parsed.
pub struct KnownRecordings<'a> {
    medium: Medium,
    known: Vec<Known<'a>>,
}

/// A segment that is here, or was deleted on purpose.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Known<'a> {
    /// The hash as written.
    hash: &'a str,
    hour: Hour,
    /// The name of the file, or of the segment that a tombstone belongs to.
    name: &'a str,
    is_deleted: bool,
}

impl<'a> KnownRecordings<'a> {
    /// The files of some hours that are here, if their hash is a wanted one, and the segments that
    /// a node lists as deleted.
    pub fn of(
        here: impl Iterator<Item = (Hour, &'a HourFiles)>,
        is_wanted: impl Fn(&str) -> bool,
        deleted: impl Iterator<Item = (Hour, &'a SegmentName)>,
        medium: Medium,
    ) -> Self {
        let names = here.flat_map(|(hour, files)| files.iter().map(move |name| (hour, name)));
        let here = names.filter_map(|(hour, name)| {
            let tombstone = name.strip_suffix(TOMBSTONE);
            let stem = tombstone.or_else(|| name.strip_suffix(medium.extension()))?;
            let hash = stem.get(stem.len().checked_sub(HASH_LEN)?..)?;
            is_wanted(hash).then_some(Known { hash, hour, name, is_deleted: tombstone.is_some() })
        });
        let deleted = deleted.map(|(hour, segment)| {
            let (hash, name) = (segment.written_hash(), segment.as_str());
            Known { hash, hour, name, is_deleted: true }
        });
        let mut known: Vec<Known<'a>> = here.chain(deleted).collect();
        known.sort_unstable();
        KnownRecordings { medium, known }
    }

    /// Whether a segment was deleted on purpose, under this name or one that a different clock gave
    /// it.
    pub fn is_deleted(&self, hour: Hour, name: &SegmentName) -> bool {
        matches!(self.find(hour, name), Some(Found::Deleted))
    }

    /// What is known of a segment under this name, or one that a different clock gave it. A
    /// deletion takes precedence.
    fn find(&self, hour: Hour, wanted: &SegmentName) -> Option<Found> {
        let hash = wanted.written_hash();
        let first = self.known.partition_point(|known| known.hash < hash);
        let same = self.known[first..].iter().take_while(|known| known.hash == hash);
        let mut found = None;
        for known in same.filter(|known| self.is_same((hour, wanted), known)) {
            if known.is_deleted {
                return Some(Found::Deleted);
            }
            found = Some(Found::Here(if known.hour == hour {
                known.name.to_owned()
            } else {
                format!("{}/{}", known.hour, known.name)
            }));
        }
        found
    }

    fn is_same(&self, (hour, wanted): (Hour, &SegmentName), known: &Known<'_>) -> bool {
        let other = match Entry::parse(known.name, self.medium) {
            Ok(Entry::Segment(other) | Entry::Tombstone(other)) => other,
            _ => return false,
        };
        is_same_recording((hour, wanted), (known.hour, &other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU";

    fn segment(stem: &str) -> String {
        format!("{stem}-{HASH}.ts")
    }

    /// Lists names for 2018-11-10T05 at 05:30. Returns the wanted ones, and the skipped ones with
    /// the reason.
    fn plan(
        medium: Medium,
        here: &[&str],
        listed: &[&str],
        order: Order,
    ) -> (Vec<String>, Vec<String>) {
        plan_in(&here.iter().copied().collect(), medium, listed, order)
    }

    fn plan_in(
        files: &HourFiles,
        medium: Medium,
        listed: &[&str],
        order: Order,
    ) -> (Vec<String>, Vec<String>) {
        let hour = "2018-11-10T05".parse().unwrap();
        let now = "2018-11-10T05:30:00Z".parse().unwrap();
        let recent_cutoff = Duration::from_secs(60);
        let rules = Rules { now, recent_cutoff, order };
        let mut planner = Planner::new(hour, medium, files, rules, Window::new(WINDOW, None));
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
            (vec![], "junk", false, "is not a valid name: it does not end in .ts"),
            (vec!["junk"], "junk", false, "is here"),
            (vec![&*wanted.replace(".ts", ".tombstone")], &wanted, false, "tombstone"),
        ] {
            let (planned, skipped) = plan(Medium::Video, &here, &[listed], Order::Forward);
            assert_eq!(planned.len(), usize::from(is_wanted), "{listed}");
            if is_wanted {
                assert!(skipped.is_empty(), "{skipped:?}");
            } else {
                assert!(skipped[0].contains(reason), "{skipped:?}");
            }
        }
    }

    #[test]
    fn a_segment_with_a_listed_tombstone_is_skipped_in_any_order() {
        let name = segment("00:00.0-2.0-full");
        let tombstone = name.replace(".ts", ".tombstone");
        for listed in [[&*name, &*tombstone], [&*tombstone, &*name]] {
            let (planned, skipped) = plan(Medium::Video, &[], &listed, Order::Forward);
            assert!(planned.is_empty());
            assert_eq!(skipped.len(), 1);
        }
    }

    #[test]
    fn a_corrupt_segment_is_wanted_even_beside_another_recording_of_it() {
        let (corrupt, good) = (segment("00:00.0-2.0-full"), segment("00:00.0005-2.0-full"));
        let mut files: HourFiles = [&*corrupt, &*good].into_iter().collect();
        files.mark_corrupt(&corrupt);
        let planned = plan_in(&files, Medium::Video, &[&corrupt], Order::Forward);
        assert_eq!(planned, (vec![corrupt], vec![]));
    }

    #[test]
    fn chat_is_never_too_recent() {
        let name = format!("29:59-{HASH}.json");
        assert_eq!(plan(Medium::Chat, &[], &[&name], Order::Random).0, [name]);
    }

    #[test]
    fn segments_come_in_the_given_order_with_full_ones_first() {
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

    /// Whether a segment of hour 05 is skipped because the same recording is here in some hour.
    fn is_near_duplicate(wanted: &str, here: (&str, &str)) -> bool {
        let hour: Hour = "2018-11-10T05".parse().unwrap();
        let now = "2018-11-11T00:00:00Z".parse().unwrap();
        let rules = Rules { now, recent_cutoff: Duration::ZERO, order: Order::Forward };
        let other: Hour = here.0.parse().unwrap();
        let there: HourFiles = [here.1].into_iter().collect();
        let nothing = HourFiles::default();
        let files = if other == hour { &there } else { &nothing };
        let mut planner =
            Planner::new(hour, Medium::Video, files, rules, Window::new(WINDOW, None));
        if planner.listed(wanted).is_some() {
            return true;
        }
        let neighbours = if planner.neighbours().contains(&other) {
            vec![(other, [here.1].into_iter().collect())]
        } else {
            vec![]
        };
        planner.plan(&neighbours, |_, _| ()).wanted.is_empty()
    }

    #[test]
    fn a_recording_by_another_clock_is_not_wanted() {
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
    fn listed_tombstones_that_are_not_here_are_planned() {
        let hour = "2018-11-10T05".parse().unwrap();
        let now = "2018-11-11T00:00:00Z".parse().unwrap();
        let rules = Rules { now, recent_cutoff: Duration::ZERO, order: Order::Forward };
        let names = ["00:00-2.0-full", "00:02-2.0-full"].map(segment);
        let tombstones = names.each_ref().map(|name| name.replace(".ts", ".tombstone"));
        let files = [&*tombstones[0], &names[1]].into_iter().collect();
        let mut planner =
            Planner::new(hour, Medium::Video, &files, rules, Window::new(WINDOW, None));
        assert_eq!(planner.listed(&tombstones[0]), Some(Skip::Here));
        assert_eq!(planner.listed(&tombstones[1]), None);
        let plan = planner.plan(&[], |_, _| ());
        let planned: Vec<String> = plan.tombstones.iter().map(SegmentName::to_string).collect();
        assert_eq!(planned, [&*names[1]]);
    }

    #[test]
    fn a_tombstone_covers_all_names_of_a_recording() {
        let wanted = segment("10:00.124-2.0-full");
        for (tombstone, hour, is_deleted) in [
            ("10:00.124-2.0-full", "2018-11-10T05", true),
            ("10:00.123-2.0-full", "2018-11-10T05", true),
            ("10:00.125-2.000-full", "2018-11-10T05", true),
            ("10:00.122999-2.0-full", "2018-11-10T05", false),
            ("10:00.124-2.0-partial", "2018-11-10T05", false),
            ("10:00.124-2.0-full", "2018-11-10T06", false),
        ] {
            let tombstone = segment(tombstone).replace(".ts", ".tombstone");
            assert_eq!(is_near_duplicate(&wanted, (hour, &tombstone)), is_deleted, "{tombstone}");
            if hour == "2018-11-10T05" {
                let (planned, _) = plan(Medium::Video, &[], &[&wanted, &tombstone], Order::Forward);
                assert_eq!(planned.is_empty(), is_deleted, "{tombstone}");
            }
        }
        // At the turn of an hour, one in the neighbouring hour does so, too.
        let tombstone = segment("59:59.9995-2.0-full").replace(".ts", ".tombstone");
        let wanted = segment("00:00.0-2.0-full");
        assert!(is_near_duplicate(&wanted, ("2018-11-10T04", &tombstone)));
    }

    proptest! {
        #![proptest_config(crate::fuzz::kept())]

        #[test]
        fn consecutive_windows_have_each_name_once(names in proptest::collection::vec(0..200u32, 0..150), size in 1..20usize) {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let mut window = Window::new(size, after);
                names.iter().for_each(|name| window.add(*name));
                let (mut taken, up_to) = window.finish();
                prop_assert!(taken.len() <= size);
                taken.sort_unstable();
                prop_assert!(up_to.is_none() || taken.last() == up_to.as_ref());
                seen.append(&mut taken);
                after = up_to;
                if after.is_none() {
                    break;
                }
            }
            seen.dedup();
            let mut all = names;
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(seen, all);
        }
    }
}
