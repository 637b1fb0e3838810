//! What a pass learns about the segments of a collection, besides those in the archive.

use std::collections::{BTreeMap, BTreeSet};

use super::{MINUTE_MICROS, Span, TOLERATED_GAP, length};
use crate::hour::{HOUR_MICROS, Hour};
use crate::segment::{SegmentName, SegmentType};

/// The segments that a pass fetched or would fetch, and those seen on nodes only.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// For each hour, a bit for each minute in which a segment was fetched, or would be.
    minutes: BTreeMap<Hour, u64>,
    /// What a dry run would fetch: full segments, then others.
    would: [Intervals; 2],
    /// The first start and the last end of segments that no node delivered, in microseconds since
    /// 1970.
    elsewhere: Option<(i64, i64)>,
    /// The hours of those segments.
    hours_elsewhere: BTreeSet<Hour>,
    /// The segments that nodes list in hours next to the selected ones, as start and end.
    beside: Vec<(i64, i64)>,
}

impl Findings {
    /// Records a fetched segment.
    pub fn add(&mut self, hour: Hour, name: &SegmentName) {
        let first = i64::from(name.start_micros());
        let last = (first + length(name) - 1).clamp(first, HOUR_MICROS - 1);
        let bits = self.minutes.entry(hour).or_default();
        (first / MINUTE_MICROS..=last / MINUTE_MICROS).for_each(|minute| *bits |= 1 << minute);
    }

    /// Records a segment that a dry run would fetch.
    pub fn would_add(&mut self, hour: Hour, name: &SegmentName) {
        self.add(hour, name);
        let (start, end) = times(hour, name);
        self.would[usize::from(name.kind() != SegmentType::Full)].add(start, end);
    }

    /// Records a segment that a node lists but did not deliver.
    pub fn add_elsewhere(&mut self, hour: Hour, name: &SegmentName) {
        let (start, end) = times(hour, name);
        let (first, last) = self.elsewhere.unwrap_or((start, end));
        self.elsewhere = Some((first.min(start), last.max(end)));
        self.hours_elsewhere.insert(hour);
    }

    /// Records a segment that a node lists in an hour next to the selected ones.
    pub fn add_beside(&mut self, hour: Hour, name: &SegmentName) {
        self.beside.push(times(hour, name));
    }

    /// Whether something in this minute was fetched.
    pub(super) fn has(&self, hour: Hour, minute: usize) -> bool {
        self.minutes.get(&hour).is_some_and(|bits| bits & (1 << minute) != 0)
    }

    /// The hours of all recorded segments, except those next to the selection.
    pub(super) fn hours(&self) -> impl Iterator<Item = Hour> {
        self.minutes.keys().chain(&self.hours_elsewhere).copied()
    }

    /// What a dry run would fetch of an hour.
    pub(super) fn would_have(&self, hour: Hour) -> impl Iterator<Item = Span> {
        let (start, end) = (hour.micros_at(0), hour.micros_at(0) + HOUR_MICROS);
        let kinds = self.would.iter().zip([super::By::Full, super::By::Lesser]);
        kinds.flat_map(move |(intervals, by)| {
            intervals.within(start, end).map(move |(start, end)| Span { start, end, by })
        })
    }

    /// The first start and the last end, within these bounds, of segments that no node delivered.
    pub(super) fn elsewhere_within(&self, start: i64, end: i64) -> Option<(i64, i64)> {
        let (first, last) = self.elsewhere.filter(|(first, last)| *first < end && *last > start)?;
        Some((first.max(start), last.min(end)))
    }

    /// How far the segments elsewhere that start before this time reach, if there are any.
    pub(super) fn reaches(&self, time: i64) -> Option<i64> {
        let elsewhere = self.elsewhere.map(|(first, _)| (first, first));
        let before = self.beside.iter().copied().chain(elsewhere).filter(|(at, _)| *at < time);
        before.map(|(_, end)| end).max()
    }

    /// Whether a segment elsewhere extends beyond this time.
    pub(super) fn continues_at(&self, time: i64) -> bool {
        let elsewhere = self.elsewhere.is_some_and(|(_, last)| last > time);
        elsewhere || self.beside.iter().any(|(start, _)| *start >= time)
    }
}

fn times(hour: Hour, name: &SegmentName) -> (i64, i64) {
    let start = hour.micros_at(name.start_micros());
    (start, start + length(name))
}

/// Spans of time, merged where no hole separates them. So there are as many as holes, not as
/// segments.
#[derive(Clone, Debug, Default)]
struct Intervals(BTreeMap<i64, i64>);

impl Intervals {
    fn add(&mut self, mut start: i64, mut end: i64) {
        while let Some((&from, &to)) = self.0.range(..=end + TOLERATED_GAP).next_back()
            && to + TOLERATED_GAP >= start
        {
            self.0.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.0.insert(start, end);
    }

    /// The parts of them between two times.
    fn within(&self, start: i64, end: i64) -> impl Iterator<Item = (i64, i64)> {
        let before = self.0.range(..start).next_back();
        let all = before.into_iter().chain(self.0.range(start..end));
        let cut = all.map(move |(from, to)| (*from.max(&start), *to.min(&end)));
        cut.filter(|(from, to)| from < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::fuzz::kept())]

        #[test]
        fn intervals_cover_exactly_what_was_added(
            added in prop::collection::vec((0i64..300, 0i64..20), 0..40),
            (from, length) in (0i64..300, 0i64..300),
        ) {
            const STEP: i64 = 2 * TOLERATED_GAP;
            let to = from + length;
            let mut intervals = Intervals::default();
            for (start, length) in &added {
                intervals.add(start * STEP, (start + length) * STEP);
            }
            let has = |second: &i64| {
                added.iter().any(|(start, length)| (*start..start + length).contains(second))
            };
            let expected: Vec<i64> = (from..to).filter(has).collect();
            let found = intervals.within(from * STEP, to * STEP);
            let found: Vec<i64> = found.flat_map(|(a, b)| a / STEP..b / STEP).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn segments_in_a_row_are_one_interval() {
        let mut intervals = Intervals::default();
        for n in [0, 2, 4, 1, 3] {
            intervals.add(n * 2_000_000, (n + 1) * 2_000_000 - TOLERATED_GAP);
        }
        assert_eq!(intervals.0.len(), 1);
    }
}
