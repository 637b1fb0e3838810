//! Which times of a stream are covered by what is here, and which holes remain. All of it follows
//! from the names of the segments, which tell when each starts and how long it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::thread::{self, ScopedJoinHandle};

use crate::archive::Archive;
use crate::error::LocalError;
use crate::hour::{HOUR_MICROS, Hour, HourSelection};
use crate::segment::{Collection, Entry, Medium, SegmentName, SegmentType};

/// The longest gap between two segments that is no hole, in microseconds.
const TOLERATED_GAP: i64 = 10_000;
const MINUTE_MICROS: i64 = 60_000_000;
/// No segment lasts longer, whatever its name says.
const LONGEST: i64 = HOUR_MICROS;
/// So many hours in a row of which nobody has anything get lines of their own in a map.
const SHORT_ABSENCE: i32 = 12;

/// How many hours are read before they are gone through.
const READ_AT_ONCE: usize = 32;

/// What is known of the segments of a collection besides what is here.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// For each hour, a bit for each minute in which something was fetched.
    minutes: BTreeMap<Hour, u64>,
    /// From when to when there are segments that are not here, in microseconds since 1970.
    elsewhere: Option<(i64, i64)>,
}

impl Findings {
    /// A segment was fetched, or would be in a dry run.
    pub fn add(&mut self, hour: Hour, name: &SegmentName) {
        let first = i64::from(name.start_micros());
        let last = (first + length(name) - 1).clamp(first, HOUR_MICROS - 1);
        let bits = self.minutes.entry(hour).or_default();
        (first / MINUTE_MICROS..=last / MINUTE_MICROS).for_each(|minute| *bits |= 1 << minute);
    }

    /// There is such a segment, but it is not here.
    pub fn add_elsewhere(&mut self, hour: Hour, name: &SegmentName) {
        let start = hour.micros_at(name.start_micros());
        let end = start + length(name);
        let (first, last) = self.elsewhere.unwrap_or((start, end));
        self.elsewhere = Some((first.min(start), last.max(end)));
    }

    fn has(&self, hour: Hour, minute: usize) -> bool {
        self.minutes.get(&hour).is_some_and(|bits| bits & (1 << minute) != 0)
    }
}

fn length(name: &SegmentName) -> i64 {
    i64::try_from(name.duration_micros()).map_or(LONGEST, |length| length.min(LONGEST))
}

/// What a minute of a map looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// It is before the first or after the last segment of the stream, or too recent to be judged.
    Outside,
    /// Covered by what was here before.
    Here,
    /// Covered, and a part of it was fetched in this pass; in a dry run, a part of it would be.
    Fetched,
    /// Covered, but some of it only by suspect or partial segments.
    Lesser,
    /// What is not covered of it was deleted on purpose.
    Deleted,
    /// Some of it is missing.
    PartMissing,
    /// All of it is missing.
    Missing,
}

/// A line of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// An hour, minute by minute, and how many hundredths of what was to be covered are.
    Hour { hour: Hour, cells: [Cell; 60], percent: u8 },
    /// From the one to the other hour, both included, nobody has anything.
    Absent { first: Hour, last: Hour },
}

/// A time that nothing covers, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// When it begins.
    pub start: i64,
    /// When it ends.
    pub end: i64,
}

impl Hole {
    /// How long it is, in microseconds.
    pub fn micros(self) -> i64 {
        self.end - self.start
    }
}

/// What is here of the selected hours of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The map.
    pub rows: Vec<Row>,
    /// The holes, in order.
    pub holes: Vec<Hole>,
    /// How much was to be covered, in microseconds. What was deleted on purpose was not.
    pub expected: i64,
    /// How much of it is missing, in microseconds.
    pub missing: i64,
}

impl Coverage {
    /// Which share of what was to be covered is: from 0 to 1.
    pub fn share(&self) -> f64 {
        match self.expected {
            0 => 1.0,
            expected => (expected - self.missing) as f64 / expected as f64,
        }
    }
}

/// What a coverage is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The hours that it's about.
    pub selection: &'a HourSelection,
    /// The hours that nodes have, selected or not.
    pub known: &'a BTreeSet<Hour>,
    /// What this pass did.
    pub fetched: &'a Findings,
    /// Whether it did nothing, so that what it would have fetched is shown as such.
    pub dry_run: bool,
    /// What is later than this is too recent to be judged, in microseconds since 1970.
    pub until: i64,
}

/// Measures what an archive has of a collection. The segments of chat have no length, so that
/// nothing can be said of it.
pub fn measure(
    archive: &Archive,
    collection: &Collection,
    question: Question<'_>,
) -> Result<Option<Coverage>, LocalError> {
    if collection.variant.medium() == Medium::Chat {
        return Ok(None);
    }
    let mut hours = question.known.clone();
    hours.extend(archive.hours(collection, &HourSelection::all())?);
    let question = Question { known: &hours, ..question };
    question.answer(|hours| read_all(archive, collection, hours)).map(Some)
}

/// Reads several hours, on all cores.
fn read_all(
    archive: &Archive,
    collection: &Collection,
    hours: &[Hour],
) -> Result<Vec<Vec<Span>>, LocalError> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(hours.len());
    let share = hours.len().div_ceil(threads.max(1)).max(1);
    let read = |hours: &[Hour]| {
        let spans = hours.iter().map(|hour| read(archive, collection, *hour));
        spans.collect::<Result<Vec<_>, LocalError>>()
    };
    thread::scope(|scope| {
        let start = |part| (part, thread::Builder::new().spawn_scoped(scope, move || read(part)));
        let parts: Vec<_> = hours.chunks(share).map(start).collect();
        let mut all = Vec::new();
        for (part, thread) in parts {
            let spans = match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(spans)) => spans,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // Where no thread can be had there is this one.
                Err(_) => read(part),
            };
            all.append(&mut spans?);
        }
        Ok(all)
    })
}

/// The spans that are covered by what lies in an hour, sorted.
fn read(archive: &Archive, collection: &Collection, hour: Hour) -> Result<Vec<Span>, LocalError> {
    let (mut segments, mut deleted) = (Vec::new(), Vec::new());
    archive.for_each_name(collection, hour, |name| match Entry::parse(name, Medium::Video) {
        Ok(Entry::Segment(segment)) => segments.push(segment),
        Ok(Entry::Tombstone(segment)) => deleted.push(segment),
        _ => {}
    })?;
    if !deleted.is_empty() {
        // A segment that lies beside its tombstone doesn't count as here.
        let names: BTreeSet<&str> = deleted.iter().map(SegmentName::as_str).collect();
        segments.retain(|segment| !names.contains(segment.as_str()));
    }
    let by = |segment: &SegmentName| match segment.kind() {
        SegmentType::Full => By::Full,
        _ => By::Lesser,
    };
    let there = segments.iter().map(|segment| Span::of(hour, segment, by(segment)));
    let deleted = deleted.iter().map(|segment| Span::of(hour, segment, By::Deleted));
    let mut spans: Vec<Span> = there.chain(deleted).collect();
    spans.sort_unstable_by_key(|span| span.start);
    Ok(spans)
}

/// By what a time is covered, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Full,
    Lesser,
    Deleted,
}

const ALL: [By; 3] = [By::Full, By::Lesser, By::Deleted];

#[derive(Clone, Copy, Debug)]
struct Span {
    start: i64,
    end: i64,
    by: By,
}

impl Span {
    fn of(hour: Hour, name: &SegmentName, by: By) -> Span {
        let start = hour.micros_at(name.start_micros());
        Span { start, end: start + length(name), by }
    }
}

impl Question<'_> {
    fn answer<E>(
        &self,
        read: impl Fn(&[Hour]) -> Result<Vec<Vec<Span>>, E>,
    ) -> Result<Coverage, E> {
        let mut coverage = Coverage::default();
        let (Some(first), Some(last)) = (self.known.first(), self.known.last()) else {
            return Ok(coverage);
        };
        let last = (*last).min(Hour::at_micros(self.until));
        for range in self.selection.ranges() {
            let (start, end) = (*range.start().max(first), (*range.end()).min(last));
            if start <= end {
                self.survey(start..=end, &read, &mut coverage)?;
            }
        }
        Ok(coverage)
    }

    /// Goes through a range of hours. Its ends are hours of the stream.
    fn survey<E>(
        &self,
        range: RangeInclusive<Hour>,
        read: &impl Fn(&[Hour]) -> Result<Vec<Vec<Span>>, E>,
        coverage: &mut Coverage,
    ) -> Result<(), E> {
        let (first, last) = range.clone().into_inner();
        let bounds = first.micros_at(0)..(last.micros_at(0) + HOUR_MICROS).min(self.until);
        let elsewhere = self
            .fetched
            .elsewhere
            .filter(|(start, end)| *start < bounds.end && *end > bounds.start);
        let elsewhere = elsewhere.map(|(s, e)| (s.max(bounds.start), e.min(bounds.end)));
        let mut sweep = Sweep::new(bounds.clone(), self.rows(range.clone()));
        // If nobody has an earlier hour the stream begins in this one, else before it.
        match self.known.range(..first).next_back() {
            None => sweep.begin_at(elsewhere.map(|(start, _)| start)),
            Some(before) => {
                sweep.begin_at(Some(bounds.start));
                if before.next() == first {
                    read(&[*before])?.into_iter().flatten().for_each(|span| sweep.add(span));
                }
            }
        }
        let hours: Vec<Hour> = self.known.range(range).copied().collect();
        for hours in hours.chunks(READ_AT_ONCE) {
            read(hours)?.into_iter().flatten().for_each(|span| sweep.add(span));
        }
        let goes_on = self.known.range(last.next()..).any(|later| *later > last);
        let end = match goes_on {
            true => Some(bounds.end),
            false => elsewhere.map(|(_, end)| end),
        };
        sweep.finish(end, self, coverage);
        Ok(())
    }

    /// The hours that have a line in the map: those of which somebody has something, and those
    /// between them unless they are many.
    fn rows(&self, range: RangeInclusive<Hour>) -> BTreeMap<Hour, [Minute; 60]> {
        let mut rows = BTreeMap::new();
        let mut previous: Option<Hour> = None;
        let ends = [*range.start(), *range.end()];
        let hours: BTreeSet<Hour> = self.known.range(range).copied().chain(ends).collect();
        for hour in hours {
            if let Some(previous) = previous.filter(|p| hour.since(*p) <= SHORT_ABSENCE + 1) {
                let between =
                    std::iter::successors(Some(previous.next()), |hour| Some(hour.next()));
                rows.extend(
                    between.take_while(|h| *h < hour).map(|h| (h, [Minute::default(); 60])),
                );
            }
            rows.insert(hour, [Minute::default(); 60]);
            previous = Some(hour);
        }
        rows
    }

    fn row(&self, hour: Hour, minutes: &[Minute; 60]) -> Row {
        let [_, there, told] =
            ALL.map(|by| minutes.iter().map(|m| m.covered[by as usize]).sum::<i64>());
        let expected = minutes.iter().map(|minute| minute.judged).sum::<i64>() - (told - there);
        let percent = if expected > 0 { there * 100 / expected } else { 100 };
        let cells = std::array::from_fn(|n| self.cell(hour, n, &minutes[n]));
        Row::Hour { hour, cells, percent: percent.clamp(0, 100) as u8 }
    }

    fn cell(&self, hour: Hour, number: usize, minute: &Minute) -> Cell {
        let [full, there, told] = ALL.map(|by| minute.covered[by as usize]);
        let missing = minute.judged - told;
        let fetched = self.fetched.has(hour, number);
        match () {
            () if minute.judged == 0 => Cell::Outside,
            () if fetched && self.dry_run => Cell::Fetched,
            () if missing == minute.judged => Cell::Missing,
            () if missing > 0 => Cell::PartMissing,
            () if told > there => Cell::Deleted,
            () if there > full => Cell::Lesser,
            () if fetched => Cell::Fetched,
            () => Cell::Here,
        }
    }
}

/// How much of a minute is judged, and how much is covered, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    judged: i64,
    /// By each of [`By`] or a better one.
    covered: [i64; 3],
}

/// Goes once over the spans, which come in the order of their starts.
struct Sweep {
    bounds: std::ops::Range<i64>,
    rows: BTreeMap<Hour, [Minute; 60]>,
    begin: Option<i64>,
    /// Up to where all is covered, or known to be a hole: by each of [`By`] or a better one.
    reached: [Option<i64>; 3],
    /// What is covered without a gap up to there, and not yet added up.
    run: [Option<(i64, i64)>; 3],
    covered: [i64; 3],
    holes: Vec<Hole>,
}

impl Sweep {
    fn new(bounds: std::ops::Range<i64>, rows: BTreeMap<Hour, [Minute; 60]>) -> Sweep {
        Sweep {
            bounds,
            rows,
            begin: None,
            reached: [None; 3],
            run: [None; 3],
            covered: [0; 3],
            holes: Vec::new(),
        }
    }

    /// What is to be covered begins here, unless something is found that is earlier.
    fn begin_at(&mut self, begin: Option<i64>) {
        self.begin = begin;
        self.reached = [begin; 3];
    }

    fn add(&mut self, span: Span) {
        let (start, end) = (span.start.max(self.bounds.start), span.end.min(self.bounds.end));
        if start >= end {
            return;
        }
        if self.begin.is_none_or(|begin| start < begin) {
            self.begin_at(Some(start));
        }
        for by in ALL.into_iter().filter(|by| *by >= span.by) {
            let reached = self.reached[by as usize].unwrap_or(start);
            let is_gap = start - reached > TOLERATED_GAP;
            if is_gap && by == By::Deleted {
                self.holes.push(Hole { start: reached, end: start });
            }
            self.cover(by, if is_gap { start } else { reached }, end);
        }
    }

    fn cover(&mut self, by: By, from: i64, to: i64) {
        if from >= to {
            return;
        }
        self.reached[by as usize] = Some(to);
        match &mut self.run[by as usize] {
            Some((_, end)) if *end == from => *end = to,
            run => {
                if let Some((start, end)) = run.replace((from, to)) {
                    self.note(by, start, end);
                }
            }
        }
    }

    /// Adds up what is covered without a gap: mostly whole hours at a time.
    fn note(&mut self, by: By, from: i64, to: i64) {
        self.covered[by as usize] += to - from;
        let add = |minute: &mut Minute, micros| minute.covered[by as usize] += micros;
        each_minute(&mut self.rows, from, to, add);
    }

    /// What is to be covered ends here, or at the end of the last span that is later.
    fn finish(mut self, end: Option<i64>, question: &Question<'_>, coverage: &mut Coverage) {
        let reached = self.reached[By::Deleted as usize];
        if let (Some(begin), Some(reached)) = (self.begin, reached) {
            let end = end.map_or(reached, |end| end.max(reached));
            if end - reached > TOLERATED_GAP {
                self.holes.push(Hole { start: reached, end });
            }
            for by in ALL {
                let gap = self.reached[by as usize].map(|reached| end - reached);
                if let Some(gap) = gap.filter(|gap| (1..=TOLERATED_GAP).contains(gap)) {
                    self.cover(by, end - gap, end);
                }
            }
            for by in ALL {
                if let Some((start, end)) = self.run[by as usize].take() {
                    self.note(by, start, end);
                }
            }
            each_minute(&mut self.rows, begin, end, |minute, micros| minute.judged += micros);
            let deleted = self.covered[By::Deleted as usize] - self.covered[By::Lesser as usize];
            coverage.expected += end - begin - deleted;
            coverage.missing += self.holes.iter().map(|hole| hole.micros()).sum::<i64>();
        }
        coverage.holes.append(&mut self.holes);
        let mut previous: Option<Hour> = None;
        for (hour, minutes) in &self.rows {
            if let Some(previous) = previous.filter(|previous| previous.next() != *hour) {
                coverage.rows.push(Row::Absent { first: previous.next(), last: hour.back(1) });
            }
            previous = Some(*hour);
            coverage.rows.push(question.row(*hour, minutes));
        }
    }
}

/// Splits a time up into the minutes of the rows that there are.
fn each_minute(
    rows: &mut BTreeMap<Hour, [Minute; 60]>,
    from: i64,
    to: i64,
    mut each: impl FnMut(&mut Minute, i64),
) {
    for (hour, minutes) in rows.range_mut(Hour::at_micros(from)..=Hour::at_micros(to)) {
        let base = hour.micros_at(0);
        let (start, end) = ((from - base).max(0), (to - base).min(HOUR_MICROS));
        let mut at = start;
        while at < end {
            let number = at / MINUTE_MICROS;
            let until = ((number + 1) * MINUTE_MICROS).min(end);
            each(&mut minutes[number as usize], until - at);
            at = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentHash;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;

    fn hour(text: &str) -> Hour {
        text.parse().unwrap()
    }

    fn five() -> Hour {
        hour("2018-11-10T05")
    }

    /// A segment of [`five`] or an hour after it, in seconds from its start.
    fn span(start: f64, end: f64, by: By) -> Span {
        let at = |seconds: f64| five().micros_at(0) + (seconds * 1e6).round() as i64;
        Span { start: at(start), end: at(end), by }
    }

    fn name(stem: &str) -> SegmentName {
        let text = format!("{stem}-{}.ts", SegmentHash([1; 32]));
        SegmentName::parse(&text, Medium::Video).unwrap()
    }

    struct Situation {
        selection: HourSelection,
        known: BTreeSet<Hour>,
        fetched: Findings,
        dry_run: bool,
        until: i64,
    }

    impl Situation {
        fn new(first: &str, last: &str, known: &[&str]) -> Situation {
            Situation {
                selection: HourSelection::union(vec![hour(first)..=hour(last)]),
                known: known.iter().map(|text| hour(text)).collect(),
                fetched: Findings::default(),
                dry_run: false,
                until: i64::MAX,
            }
        }

        fn measure(&self, spans: &[Span]) -> Coverage {
            let question = Question {
                selection: &self.selection,
                known: &self.known,
                fetched: &self.fetched,
                dry_run: self.dry_run,
                until: self.until,
            };
            let of_hour = |hour: &Hour| {
                let of_hour = spans.iter().filter(|span| Hour::at_micros(span.start) == *hour);
                let mut spans: Vec<Span> = of_hour.copied().collect();
                spans.sort_unstable_by_key(|span| span.start);
                spans
            };
            let read =
                |hours: &[Hour]| Ok::<_, LocalError>(hours.iter().map(of_hour).collect::<Vec<_>>());
            question.answer(read).unwrap()
        }

        /// The holes, in seconds from the start of [`five`].
        fn holes(&self, spans: &[Span]) -> Vec<(f64, f64)> {
            let from = |micros| (micros - five().micros_at(0)) as f64 / 1e6;
            self.measure(spans).holes.iter().map(|h| (from(h.start), from(h.end))).collect()
        }

        fn map(&self, spans: &[Span]) -> Vec<String> {
            let rows = self.measure(spans).rows.into_iter().map(|row| match row {
                Row::Absent { first, last } => format!("{first} {last}"),
                Row::Hour { cells, percent, .. } => {
                    let letter = |cell: &Cell| match cell {
                        Cell::Outside => ' ',
                        Cell::Here => '#',
                        Cell::Fetched => '+',
                        Cell::Lesser => '~',
                        Cell::Deleted => 'x',
                        Cell::PartMissing => '!',
                        Cell::Missing => '.',
                    };
                    let row: String = cells.iter().map(letter).collect();
                    format!("{} {percent}", row.trim_end())
                }
            });
            rows.collect()
        }
    }

    const BEFORE: &str = "2018-11-10T04";
    const FIVE: &str = "2018-11-10T05";
    const AFTER: &str = "2018-11-10T06";

    #[test]
    fn holes_are_what_no_segment_covers() {
        use By::*;
        let all = [BEFORE, FIVE, AFTER];
        for (known, spans, holes) in [
            // In the midst of a stream the whole hour is to be covered.
            (&all[..], &[][..], &[(0.0, 3600.0)][..]),
            (&all, &[span(0.0, 3600.0, Full)], &[]),
            (&all, &[span(2.0, 3600.0, Full)], &[(0.0, 2.0)]),
            (&all, &[span(0.0, 3599.0, Full)], &[(3599.0, 3600.0)]),
            // The last segment of the hour before covers the first seconds.
            (&all, &[span(-1.0, 3.0, Full), span(2.0, 3600.0, Full)], &[]),
            (&all, &[span(-9.0, -1.0, Full), span(0.0, 3600.0, Full)], &[]),
            // The stream begins with its first segment and ends with its last.
            (&all[1..], &[span(60.0, 3600.0, Full)], &[]),
            (&all[..2], &[span(0.0, 60.0, Full)], &[]),
            (&all[1..2], &[span(10.0, 12.0, Full), span(14.0, 16.0, Full)], &[(12.0, 14.0)]),
            (&all[1..2], &[], &[]),
            // Overlaps are fine, and so are short gaps, everywhere.
            (&all, &[span(0.0, 2000.0, Full), span(10.0, 3600.0, Full)], &[]),
            (
                &all,
                &[span(0.0, 2000.0, Full), span(10.0, 20.0, Full), span(2000.0, 3600.0, Full)],
                &[],
            ),
            (&all, &[span(0.01, 2.0, Full), span(2.01, 3599.99, Full)], &[]),
            (&all, &[span(0.010001, 3600.0, Full)], &[(0.0, 0.010001)]),
            (&all, &[span(0.0, 2.0, Full), span(2.010001, 3600.0, Full)], &[(2.0, 2.010001)]),
            // What is there counts, of whatever kind; what was deleted on purpose is no hole.
            (&all, &[span(0.0, 10.0, Lesser), span(10.0, 3600.0, Deleted)], &[]),
        ] {
            let situation = Situation::new(FIVE, FIVE, known);
            assert_eq!(situation.holes(spans), holes, "{known:?} {spans:?}");
        }
    }

    #[test]
    fn hours_that_nobody_has_are_a_hole_between_those_that_somebody_has() {
        let far = ["2018-11-09T05", FIVE, AFTER];
        let situation = Situation::new("2018-11-01T00", "2018-12-01T00", &far);
        let day = -24.0 * 3600.0;
        let spans = [span(day, day + 60.0, By::Full), span(0.0, 2.0, By::Full)];
        assert_eq!(situation.holes(&spans), [(day + 60.0, 0.0)]);
        let map = situation.map(&spans);
        assert_eq!(map[1], "2018-11-09T06 2018-11-10T04");
        assert_eq!(map.len(), 4);
        // A few of them are shown one by one.
        let near = Situation::new("2018-11-01T00", "2018-12-01T00", &["2018-11-10T02", FIVE]);
        let spans = [span(-10_800.0, -7200.0, By::Full), span(0.0, 3600.0, By::Full)];
        assert_eq!(near.holes(&spans), [(-7200.0, 0.0)]);
        let (full, empty) = (format!("{} 100", "#".repeat(60)), format!("{} 0", ".".repeat(60)));
        assert_eq!(near.map(&spans), [&*full, &*empty, &*empty, &*full]);
    }

    #[test]
    fn the_present_hour_is_judged_up_to_the_cutoff() {
        let mut situation = Situation::new(FIVE, AFTER, &[BEFORE, FIVE, AFTER]);
        situation.until = five().micros_at(0) + 100 * SECOND;
        assert_eq!(situation.holes(&[span(0.0, 90.0, By::Full)]), [(90.0, 100.0)]);
        assert_eq!(situation.holes(&[span(0.0, 102.0, By::Full)]), []);
        // Of a stream that ends before, no more than what it has is judged.
        situation.known.pop_last();
        assert_eq!(situation.holes(&[span(0.0, 90.0, By::Full)]), []);
        assert_eq!(situation.map(&[span(0.0, 90.0, By::Full)]), ["## 100"]);
    }

    #[test]
    fn a_segment_that_could_not_be_had_shows_how_far_the_stream_goes() {
        let mut situation = Situation::new(FIVE, FIVE, &[FIVE]);
        let spans = [span(10.0, 12.0, By::Full)];
        assert_eq!(situation.holes(&spans), []);
        situation.fetched.add_elsewhere(five(), &name("00:20.0-2.0-full"));
        assert_eq!(situation.holes(&spans), [(12.0, 22.0)]);
        situation.fetched.add_elsewhere(five(), &name("00:04.0-2.0-full"));
        assert_eq!(situation.holes(&spans), [(4.0, 10.0), (12.0, 22.0)]);
        assert_eq!(situation.holes(&[]), [(4.0, 22.0)]);
    }

    #[test]
    fn a_minute_shows_what_is_worst_in_it() {
        use By::*;
        let mut situation = Situation::new(FIVE, FIVE, &[FIVE]);
        for stem in ["01:30.0-2.0-full", "03:00.0-120.0-full", "08:00.0-2.0-full"] {
            situation.fetched.add(five(), &name(stem));
        }
        let spans = [
            span(0.0, 120.0, Full),
            span(120.0, 150.0, Lesser),
            span(150.0, 330.0, Full),
            span(335.0, 360.0, Full),
            span(420.0, 450.0, Full),
            span(450.0, 480.0, Deleted),
            span(480.0, 482.0, Full),
        ];
        // Of nine minutes not quite one and a half is missing; a half was deleted.
        assert_eq!(situation.map(&spans), ["#+~++!.x+ 85"]);
        let coverage = situation.measure(&spans);
        assert_eq!((coverage.expected, coverage.missing), (452 * SECOND, 65 * SECOND));
        assert_eq!(coverage.share(), 387.0 / 452.0);
        situation.dry_run = true;
        situation.fetched.add(five(), &name("06:00.0-2.0-full"));
        assert_eq!(situation.map(&spans), ["#+~++!+x+ 85"]);
    }

    #[test]
    fn what_a_name_claims_can_t_cover_more_than_an_hour() {
        let segment = name("00:00.0-99999999.0-full");
        assert_eq!(Span::of(five(), &segment, By::Full).end, five().next().micros_at(0));
        let mut fetched = Findings::default();
        fetched.add(five(), &name("59:59.9-99999999.0-full"));
        fetched.add(five(), &name("00:00.0-0.0-full"));
        assert_eq!(fetched.minutes[&five()], 1 << 59 | 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn holes_are_the_seconds_that_nothing_covers(
            spans in prop::collection::vec((0i64..10_800, 0i64..900, 0usize..3), 0..40),
            (known, selected) in (1usize..8, 0usize..3),
        ) {
            let hours = [FIVE, AFTER, "2018-11-10T07"];
            let known: Vec<&str> = (0..3).filter(|n| known & 1 << n != 0).map(|n| hours[n]).collect();
            let situation = Situation::new(hours[selected], hours[2], &known);
            let first = five().micros_at(0);
            let spans: Vec<Span> = spans.into_iter().map(|(start, length, by)| {
                let start = first + start * SECOND;
                Span { start, end: start + length * SECOND, by: ALL[by] }
            }).filter(|span| situation.known.contains(&Hour::at_micros(span.start))).collect();
            // The same, second by second.
            let (begin, last) = (hour(known[0]), hour(known[known.len() - 1]));
            let from = hour(hours[selected]).max(begin);
            let mut expected = Vec::new();
            if from <= last {
                let from_second = i64::from(from.since(five())) * 3600;
                let to_second = i64::from(last.since(five()) + 1) * 3600;
                let is_covered = |second: i64| {
                    let at = first + second * SECOND;
                    spans.iter().any(|s| s.start <= at && at < s.end
                        // A span reaches into the next hour, but from no farther.
                        && from.since(Hour::at_micros(s.start)) <= 1)
                };
                let mut seconds: Vec<i64> =
                    (from_second..to_second).filter(|second| !is_covered(*second)).collect();
                let covered = |second: &i64| is_covered(*second);
                if from == begin {
                    let start = (from_second..to_second).find(covered).unwrap_or(to_second);
                    seconds.retain(|second| *second > start);
                }
                let end = (from_second..to_second).rfind(covered).unwrap_or(from_second - 1);
                seconds.retain(|second| *second < end);
                expected = seconds;
            }
            let found: Vec<i64> = situation.holes(&spans).into_iter()
                .flat_map(|(start, end)| start as i64..end as i64).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
