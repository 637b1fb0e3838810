//! Measures which times of a stream the archive covers, and which holes remain. The names of the
//! segments suffice: they say when each starts and how long it lasts.

mod beside;
mod findings;
mod sweep;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::thread::{self, ScopedJoinHandle};

use crate::archive::Archive;
use crate::error::LocalError;
use crate::hour::{HOUR_MICROS, Hour, HourSelection};
use crate::segment::{Collection, Entry, Medium, SegmentName, SegmentType};
use crate::stop::Stop;

pub use beside::look_beside;
pub use findings::Findings;
use sweep::Sweep;

/// The longest gap between two segments that is not a hole, in microseconds. Times in names are
/// rounded, so segments that follow each other can be some milliseconds apart.
const TOLERATED_GAP: i64 = 10_000;
const MINUTE_MICROS: i64 = 60_000_000;
/// The longest duration that a name is believed, in microseconds.
const LONGEST: i64 = HOUR_MICROS;

/// How many hours are read at once. It keeps the cores busy, and bounds memory: an hour of 1,800
/// segments takes about 40 kB.
const READ_AT_ONCE: usize = 32;

/// The duration of a segment, in microseconds.
fn length(name: &SegmentName) -> i64 {
    i64::try_from(name.duration_micros()).map_or(LONGEST, |length| length.min(LONGEST))
}

/// The state of a minute in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Before the first or after the last segment of the stream, or too recent to judge.
    Outside,
    /// Covered by segments that were here before.
    Here,
    /// Covered; some of it was fetched in this pass, or would be in a dry run.
    Fetched,
    /// Covered, but partly by suspect or partial segments only.
    Lesser,
    /// Not fully covered, but the rest was deleted on purpose.
    Deleted,
    /// Some of it is missing.
    PartMissing,
    /// All of it is missing.
    Missing,
}

/// A line of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// An hour, minute by minute, and the covered share of what should be covered, in percent.
    Hour { hour: Hour, cells: [Cell; 60], percent: u8 },
    /// The hours from `first` to `last`, inclusive, have nothing.
    Absent { first: Hour, last: Hour },
}

/// A span of time that nothing covers, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Its start.
    pub start: i64,
    /// Its end.
    pub end: i64,
}

impl Hole {
    /// Its length in microseconds.
    pub fn micros(self) -> i64 {
        self.end - self.start
    }
}

/// The coverage of the selected hours of a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The map.
    pub rows: Vec<Row>,
    /// The holes, in order.
    pub holes: Vec<Hole>,
    /// How much should be covered, in microseconds, not counting what was deleted on purpose.
    pub expected: i64,
    /// How much of that is missing, in microseconds.
    pub missing: i64,
}

impl Coverage {
    /// The covered share of what should be covered, from 0 to 1.
    pub fn share(&self) -> f64 {
        match self.expected {
            0 => 1.0,
            expected => (expected - self.missing) as f64 / expected as f64,
        }
    }
}

/// The parameters of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The hours to measure.
    pub selection: &'a HourSelection,
    /// What this pass has learned. Segments that a dry run would fetch count as here.
    pub findings: &'a Findings,
    /// Times after this are too recent to judge, in microseconds since 1970.
    pub until: i64,
}

/// Why a measurement stopped early.
enum Halt {
    /// The archive can't be read.
    Local(LocalError),
    /// The pass is being stopped.
    Stopped,
}

/// Measures how much of a collection an archive has. Returns `None` for chat, whose segments have
/// no duration, and if the pass is stopped meanwhile.
///
/// # Errors
///
/// Fails if the archive can't be read.
pub fn measure(
    archive: &Archive,
    collection: &Collection,
    question: Question<'_>,
    stop: &Stop,
) -> Result<Option<Coverage>, LocalError> {
    if collection.variant.medium() == Medium::Chat {
        return Ok(None);
    }
    let hours = archive.hours(collection, &HourSelection::all())?;
    let read = |hours: &[Hour]| read_hours(archive, collection, hours, stop);
    match question.answer(hours, read) {
        Ok(coverage) => Ok(Some(coverage)),
        Err(Halt::Local(error)) => Err(error),
        Err(Halt::Stopped) => Ok(None),
    }
}

/// Reads several hours, using all cores.
fn read_hours(
    archive: &Archive,
    collection: &Collection,
    hours: &[Hour],
    stop: &Stop,
) -> Result<Vec<Vec<Span>>, Halt> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(hours.len());
    let share = hours.len().div_ceil(threads.max(1)).max(1);
    let read = |hours: &[Hour]| {
        let spans = hours.iter().map(|hour| match stop.cause() {
            Some(_) => Err(Halt::Stopped),
            None => read_hour(archive, collection, *hour).map_err(Halt::Local),
        });
        spans.collect::<Result<Vec<_>, Halt>>()
    };
    thread::scope(|scope| {
        let start = |part| (part, thread::Builder::new().spawn_scoped(scope, move || read(part)));
        let parts: Vec<_> = hours.chunks(share).map(start).collect();
        let mut all = Vec::new();
        for (part, thread) in parts {
            let spans = match thread.map(ScopedJoinHandle::join) {
                Ok(Ok(spans)) => spans,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // If no thread can be spawned, this one reads.
                Err(_) => read(part),
            };
            all.append(&mut spans?);
        }
        Ok(all)
    })
}

/// The spans of the segments and tombstones in an hour, sorted by start.
fn read_hour(
    archive: &Archive,
    collection: &Collection,
    hour: Hour,
) -> Result<Vec<Span>, LocalError> {
    let (mut segments, mut deleted) = (Vec::new(), Vec::new());
    archive.for_each_name(collection, hour, |name| match Entry::parse(name, Medium::Video) {
        Ok(Entry::Segment(segment)) => segments.push(segment),
        Ok(Entry::Tombstone(segment)) => deleted.push(segment),
        _ => {}
    })?;
    if !deleted.is_empty() {
        // A segment next to its own tombstone doesn't count as here.
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

/// What covers a span, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Full,
    Lesser,
    Deleted,
}

const ALL: [By; 3] = [By::Full, By::Lesser, By::Deleted];

/// A span of time that something covers, in microseconds since 1970.
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

    /// Whether this is a segment. A tombstone doesn't prove that there ever was one.
    fn is_segment(&self) -> bool {
        self.by != By::Deleted
    }
}

impl Question<'_> {
    /// Measures an archive that has directories for these hours. An hour without segments doesn't
    /// prove that the stream ran then.
    fn answer<E>(
        &self,
        hours: Vec<Hour>,
        read: impl Fn(&[Hour]) -> Result<Vec<Vec<Span>>, E>,
    ) -> Result<Coverage, E> {
        let mut coverage = Coverage::default();
        let hours: BTreeSet<Hour> = hours.into_iter().chain(self.findings.hours()).collect();
        let read = |hours: &[Hour]| -> Result<Vec<Span>, E> {
            let mut all = Vec::new();
            for (hour, mut spans) in hours.iter().zip(read(hours)?) {
                spans.extend(self.findings.would_have(*hour));
                spans.sort_by_key(|span| span.start);
                all.append(&mut spans);
            }
            Ok(all)
        };
        for range in self.selection.ranges() {
            self.survey(range, &hours, &read, &mut coverage)?;
        }
        Ok(coverage)
    }

    /// Measures a range of hours.
    fn survey<E>(
        &self,
        range: &RangeInclusive<Hour>,
        hours: &BTreeSet<Hour>,
        read: &impl Fn(&[Hour]) -> Result<Vec<Span>, E>,
        coverage: &mut Coverage,
    ) -> Result<(), E> {
        // Later hours are too recent to judge.
        let range = &(*range.start()..=(*range.end()).min(Hour::at_micros(self.until)));
        if range.is_empty() {
            return Ok(());
        }
        let start = range.start().micros_at(0);
        let (beside, runs_before) = before(*range.start(), hours, read);
        let runs_before = runs_before || self.findings.reaches(start).is_some();
        let runs_after = self.runs_after(*range.end(), hours, read);
        let within = || hours.range(range.clone()).copied();
        let first = if runs_before { Some(*range.start()) } else { within().next() };
        let last = if runs_after { Some(*range.end()) } else { within().next_back() };
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(());
        };
        let bounds = first.micros_at(0)..(last.micros_at(0) + HOUR_MICROS).min(self.until);
        let elsewhere = self.findings.elsewhere_within(bounds.start, bounds.end);
        let mut sweep = Sweep::new(bounds.clone(), first..=last, hours);
        if runs_before {
            // Time covered by a segment of an hour that is not selected isn't missing here.
            let reached = self.findings.reaches(start).unwrap_or(start);
            sweep.begin_at(reached.clamp(bounds.start, bounds.end));
        } else if let Some((start, _)) = elsewhere {
            sweep.begin_at(start);
        }
        beside.into_iter().for_each(|span| sweep.add(span));
        let within: Vec<Hour> = hours.range(first..=last).copied().collect();
        for hours in within.chunks(READ_AT_ONCE) {
            read(hours)?.into_iter().for_each(|span| sweep.add(span));
        }
        let end = if runs_after { Some(bounds.end) } else { elsewhere.map(|(_, end)| end) };
        sweep.finish(end, self.findings, coverage);
        Ok(())
    }

    /// Whether any hour after `last` has a segment.
    fn runs_after<E>(
        &self,
        last: Hour,
        hours: &BTreeSet<Hour>,
        read: &impl Fn(&[Hour]) -> Result<Vec<Span>, E>,
    ) -> bool {
        if self.findings.continues_at(last.micros_at(0) + HOUR_MICROS) {
            return true;
        }
        let mut later = hours.range(last..).skip_while(|hour| **hour == last);
        later.any(|hour| read(&[*hour]).is_ok_and(|spans| spans.iter().any(Span::is_segment)))
    }
}

/// Returns the spans of the previous hour, and whether any earlier hour has a segment. Only the
/// previous hour can reach into this one, as no segment counts for more than an hour. Hours that
/// can't be read are skipped: they were not selected.
fn before<E>(
    first: Hour,
    hours: &BTreeSet<Hour>,
    read: &impl Fn(&[Hour]) -> Result<Vec<Span>, E>,
) -> (Vec<Span>, bool) {
    let mut beside = Vec::new();
    for hour in hours.range(..first).rev() {
        let Ok(spans) = read(&[*hour]) else { continue };
        let runs = spans.iter().any(Span::is_segment);
        if first.since(*hour) == 1 {
            beside = spans;
        }
        if runs {
            return (beside, true);
        }
    }
    (beside, false)
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
        /// The hours that have directories.
        hours: Vec<Hour>,
        findings: Findings,
        until: i64,
    }

    impl Situation {
        fn new(first: &str, last: &str, hours: &[&str]) -> Situation {
            Situation {
                selection: HourSelection::union(vec![hour(first)..=hour(last)]),
                hours: hours.iter().map(|text| hour(text)).collect(),
                findings: Findings::default(),
                until: i64::MAX,
            }
        }

        fn measure(&self, spans: &[Span]) -> Coverage {
            let question = Question {
                selection: &self.selection,
                findings: &self.findings,
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
            question.answer(self.hours.clone(), read).unwrap()
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
    fn holes_are_times_that_no_segment_covers() {
        use By::*;
        let (earlier, later) = (span(-90.0, -88.0, Full), span(3690.0, 3692.0, Full));
        let situation = Situation::new(FIVE, FIVE, &[BEFORE, FIVE, AFTER]);
        for (spans, holes) in [
            // In the middle of a stream the whole hour must be covered.
            (&[][..], &[(0.0, 3600.0)][..]),
            (&[span(0.0, 3600.0, Full)], &[]),
            (&[span(2.0, 3600.0, Full)], &[(0.0, 2.0)]),
            (&[span(0.0, 3599.0, Full)], &[(3599.0, 3600.0)]),
            // The last segment of the hour before covers the first seconds.
            (&[span(-1.0, 3.0, Full), span(2.0, 3600.0, Full)], &[]),
            (&[span(-9.0, -1.0, Full), span(0.0, 3600.0, Full)], &[]),
            // Overlaps and short gaps are fine everywhere.
            (&[span(0.0, 2000.0, Full), span(10.0, 3600.0, Full)], &[]),
            (&[span(0.0, 2000.0, Full), span(10.0, 20.0, Full), span(2000.0, 3600.0, Full)], &[]),
            (&[span(0.01, 2.0, Full), span(2.01, 3599.99, Full)], &[]),
            (&[span(0.010001, 3600.0, Full)], &[(0.0, 0.010001)]),
            (&[span(0.0, 2.0, Full), span(2.010001, 3600.0, Full)], &[(2.0, 2.010001)]),
            // Every type of segment counts. What was deleted on purpose is not a hole.
            (&[span(0.0, 10.0, Lesser), span(10.0, 3600.0, Deleted)], &[]),
            (&[span(0.0, 10.0, Deleted), span(20.0, 3600.0, Lesser)], &[(10.0, 20.0)]),
        ] {
            let spans = [spans, &[earlier, later]].concat();
            assert_eq!(situation.holes(&spans), holes, "{spans:?}");
        }
        // The stream begins with its first segment and ends with its last.
        for (spans, holes) in [
            (&[span(60.0, 3600.0, Full), later][..], &[][..]),
            (&[earlier, span(0.0, 60.0, Full)], &[]),
            (&[span(10.0, 12.0, Full), span(14.0, 16.0, Full)], &[(12.0, 14.0)]),
            (&[], &[]),
            (&[earlier], &[]),
            (&[later], &[]),
        ] {
            assert_eq!(situation.holes(spans), holes, "{spans:?}");
        }
    }

    #[test]
    fn an_hour_without_segments_doesn_t_prove_that_the_stream_ran() {
        use By::*;
        let bogus = ["2000-01-01T00", BEFORE, FIVE, AFTER, "2099-01-01T00"];
        for (first, last) in [(FIVE, FIVE), (BEFORE, AFTER), ("0000-01-01T00", "9999-12-31T23")] {
            let situation = Situation::new(first, last, &bogus);
            let spans = [span(600.0, 1200.0, Full)];
            assert_eq!(situation.holes(&spans), []);
            assert_eq!(situation.map(&spans), ["          ########## 100"]);
            assert_eq!(situation.map(&[]), [""; 0]);
            // A tombstone doesn't prove it, either.
            let spans = [
                span(-60.0, 0.0, Deleted),
                span(600.0, 1200.0, Full),
                span(1800.0, 1860.0, Deleted),
                span(3600.0, 7200.0, Deleted),
            ];
            assert_eq!(situation.holes(&spans), []);
            assert_eq!(situation.measure(&spans).expected, 600 * SECOND);
        }
    }

    #[test]
    fn time_covered_by_the_previous_hour_is_not_missing() {
        let mut situation = Situation::new(FIVE, FIVE, &[FIVE]);
        let spans = [span(1.0, 3599.0, By::Full)];
        assert_eq!(situation.holes(&spans), []);
        // As listed by nodes: the segment need not be here.
        for stem in ["59:57.0-2.0-full", "59:59.0-2.0-full"] {
            situation.findings.add_beside(hour(BEFORE), &name(stem));
        }
        assert_eq!(situation.holes(&spans), []);
        assert_eq!(situation.measure(&spans).expected, 3598 * SECOND);
        assert_eq!(situation.holes(&[span(2.0, 3599.0, By::Full)]), [(1.0, 2.0)]);
        situation.findings.add_beside(hour(AFTER), &name("00:00.0-2.0-full"));
        assert_eq!(situation.holes(&spans), [(3599.0, 3600.0)]);
        // A segment that no node delivered may end before the time so covered.
        let mut situation = Situation::new(FIVE, FIVE, &[FIVE]);
        situation.findings.add_beside(hour(BEFORE), &name("59:58.0-10.0-full"));
        situation.findings.add_elsewhere(five(), &name("00:00.0-2.0-full"));
        let coverage = situation.measure(&[]);
        assert_eq!((coverage.expected, coverage.missing, coverage.share()), (0, 0, 1.0));
    }

    #[test]
    fn segments_that_a_dry_run_would_fetch_count_as_here() {
        let mut situation = Situation::new(BEFORE, FIVE, &[FIVE]);
        for stem in ["59:00.0-120.0-full", "58:00.0-60.0-suspect"] {
            situation.findings.would_add(hour(BEFORE), &name(stem));
        }
        situation.findings.would_add(five(), &name("02:30.0-30.0-full"));
        let spans = [span(60.0, 120.0, By::Full)];
        assert_eq!(situation.holes(&spans), [(120.0, 150.0)]);
        let blank = " ".repeat(58);
        assert_eq!(situation.map(&spans), [format!("{blank}~+ 100"), "##! 83".into()]);
        assert_eq!(situation.measure(&spans).missing, 30 * SECOND);
    }

    #[test]
    fn hours_without_segments_between_others_are_a_hole() {
        let far = ["2018-11-09T05", FIVE, AFTER];
        let situation = Situation::new("2018-11-01T00", "2018-12-01T00", &far);
        let day = -24.0 * 3600.0;
        let spans = [span(day, day + 60.0, By::Full), span(0.0, 2.0, By::Full)];
        assert_eq!(situation.holes(&spans), [(day + 60.0, 0.0)]);
        let map = situation.map(&spans);
        assert_eq!(map[1], "2018-11-09T06 2018-11-10T04");
        assert_eq!(map.len(), 3);
        // A few such hours are shown one by one.
        let near = Situation::new("2018-11-01T00", "2018-12-01T00", &["2018-11-10T02", FIVE]);
        let spans = [span(-10_800.0, -7200.0, By::Full), span(0.0, 3600.0, By::Full)];
        assert_eq!(near.holes(&spans), [(-7200.0, 0.0)]);
        let (full, empty) = (format!("{} 100", "#".repeat(60)), format!("{} 0", ".".repeat(60)));
        assert_eq!(near.map(&spans), [&*full, &*empty, &*empty, &*full]);
    }

    #[test]
    fn a_run_of_hours_without_segments_is_one_line() {
        let hours = ["2018-11-09T05", "2018-11-10T01", FIVE];
        let day = -24.0 * 3600.0;
        let spans = [span(day, day + 60.0, By::Full), span(0.0, 2.0, By::Full)];
        // Its last hour is the last one selected, or one with an empty directory.
        let selected = Situation::new("2018-11-09T05", BEFORE, &hours);
        assert_eq!(selected.map(&spans)[1..], ["2018-11-09T06 2018-11-10T04"]);
        let selected = Situation::new("2018-11-09T06", FIVE, &hours);
        assert_eq!(selected.map(&spans)[0], "2018-11-09T06 2018-11-10T04");
        assert_eq!(selected.map(&spans).len(), 2);
        let selected = Situation::new("2018-11-09T07", "2018-11-10T04", &hours);
        assert_eq!(selected.map(&spans), ["2018-11-09T07 2018-11-10T04"]);
    }

    #[test]
    fn the_current_hour_is_judged_up_to_the_cutoff() {
        let mut situation = Situation::new(FIVE, AFTER, &[BEFORE, FIVE, AFTER]);
        situation.until = five().micros_at(0) + 100 * SECOND;
        let (before, after) = (span(-2.0, 0.0, By::Full), span(110.0, 112.0, By::Full));
        let holes = |spans: &[Span]| situation.holes(spans);
        assert_eq!(holes(&[before, span(0.0, 90.0, By::Full), after]), [(90.0, 100.0)]);
        assert_eq!(holes(&[before, span(0.0, 102.0, By::Full), after]), []);
        let later = span(3600.0, 3602.0, By::Full);
        assert_eq!(holes(&[before, span(0.0, 90.0, By::Full), later]), [(90.0, 100.0)]);
        // If a stream ends before the cutoff, only the time until its end is judged.
        assert_eq!(holes(&[before, span(0.0, 90.0, By::Full)]), []);
        assert_eq!(situation.map(&[before, span(0.0, 90.0, By::Full)]), ["## 100"]);
    }

    #[test]
    fn an_unfetched_segment_extends_the_stream() {
        let mut situation = Situation::new(FIVE, FIVE, &[FIVE]);
        let spans = [span(10.0, 12.0, By::Full)];
        assert_eq!(situation.holes(&spans), []);
        situation.findings.add_elsewhere(five(), &name("00:20.0-2.0-full"));
        assert_eq!(situation.holes(&spans), [(12.0, 22.0)]);
        situation.findings.add_elsewhere(five(), &name("00:04.0-2.0-full"));
        assert_eq!(situation.holes(&spans), [(4.0, 10.0), (12.0, 22.0)]);
        assert_eq!(situation.holes(&[]), [(4.0, 22.0)]);
        situation.hours.clear();
        assert_eq!(situation.holes(&[]), [(4.0, 22.0)]);
    }

    #[test]
    fn a_minute_shows_its_worst_state() {
        use By::*;
        let mut situation = Situation::new(FIVE, FIVE, &[FIVE]);
        for stem in ["01:30.0-2.0-full", "03:00.0-120.0-full", "08:00.0-2.0-full"] {
            situation.findings.add(five(), &name(stem));
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
        // Of nine minutes, almost one and a half are missing, and half a minute was deleted.
        assert_eq!(situation.map(&spans), ["#+~++!.x+ 85"]);
        let coverage = situation.measure(&spans);
        assert_eq!((coverage.expected, coverage.missing), (452 * SECOND, 65 * SECOND));
        assert_eq!(coverage.share(), 387.0 / 452.0);
    }

    #[test]
    fn a_segment_covers_an_hour_at_most() {
        let segment = name("00:00.0-99999999.0-full");
        assert_eq!(Span::of(five(), &segment, By::Full).end, five().next().micros_at(0));
        let mut findings = Findings::default();
        findings.add(five(), &name("59:59.9-99999999.0-full"));
        findings.add(five(), &name("00:00.0-0.0-full"));
        let minutes = (0..60).filter(|minute| findings.has(five(), *minute));
        assert_eq!(minutes.collect::<Vec<_>>(), [0, 59]);
    }

    proptest! {
        #![proptest_config(crate::fuzz::kept())]

        #[test]
        fn holes_equal_a_count_second_by_second(
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
            }).filter(|span| situation.hours.contains(&Hour::at_micros(span.start))).collect();
            // The expected result, second by second.
            let from = hour(hours[selected]);
            let from_second = i64::from(from.since(five())) * 3600;
            let until = i64::from(hour(hours[2]).since(five()) + 1) * 3600;
            // A span reaches into the next hour only.
            let is_covered = |second: &i64, by: &[By]| {
                let at = first + second * SECOND;
                spans.iter().any(|s| by.contains(&s.by) && s.start <= at && at < s.end
                    && from.since(Hour::at_micros(s.start)) <= 1)
            };
            let runs_before = spans.iter().any(|s| s.is_segment() && s.start < from.micros_at(0));
            let has_segment = |second: &i64| is_covered(second, &[By::Full, By::Lesser]);
            let start = if runs_before {
                Some(from_second)
            } else {
                (from_second..until).find(has_segment)
            };
            let end = (from_second..until).rfind(has_segment);
            let judged = start.unwrap_or(until)..end.unwrap_or(0);
            let expected: Vec<i64> = judged.filter(|second| !is_covered(second, &ALL)).collect();
            let found: Vec<i64> = situation.holes(&spans).into_iter()
                .flat_map(|(start, end)| start as i64..end as i64).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_map_has_each_hour_from_the_first_segment_to_the_last_once(
            segments in prop::collection::btree_set(0u32..80, 1..12),
            empty in prop::collection::btree_set(0u32..80, 0..20),
        ) {
            let at = |n: &u32| (0..*n).fold(five(), |hour, _| hour.next());
            let mut situation = Situation::new(FIVE, FIVE, &[]);
            situation.selection = HourSelection::union(vec![five()..=at(&79)]);
            situation.hours = segments.union(&empty).map(at).collect();
            let spans: Vec<Span> = segments.iter().map(|n| {
                let start = at(n).micros_at(0);
                Span { start, end: start + SECOND, by: By::Full }
            }).collect();
            let mut drawn = Vec::new();
            for row in situation.measure(&spans).rows {
                match row {
                    Row::Hour { hour, .. } => drawn.push(hour),
                    Row::Absent { first, last } => {
                        let all = std::iter::successors(Some(first), |hour| Some(hour.next()));
                        drawn.extend(all.take_while(|hour| *hour <= last));
                    }
                }
            }
            let (first, last) = (*segments.first().unwrap(), *segments.last().unwrap());
            let expected: Vec<Hour> = (first..=last).map(|n| at(&n)).collect();
            prop_assert_eq!(drawn, expected);
        }
    }
}
