//! Goes through the covered spans once, in order of time, and finds the holes and the map.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};

use super::{ALL, By, Cell, Coverage, Findings, Hole, MINUTE_MICROS, Row, Span, TOLERATED_GAP};
use crate::hour::{HOUR_MICROS, Hour};

/// Up to this many consecutive hours without segments get their own lines in a map; a longer run
/// shares one line.
const SHORT_ABSENCE: i32 = 12;

/// How much of a minute is judged, and how much is covered, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    judged: i64,
    /// For each [`By`], by it or a better one.
    covered: [i64; 3],
}

type Minutes = [Minute; 60];

/// The state of one pass over the spans, which arrive ordered by start.
pub struct Sweep {
    bounds: Range<i64>,
    rows: BTreeMap<Hour, Minutes>,
    /// Where the time to be covered begins.
    begin: Option<i64>,
    /// The end of the last segment.
    last: Option<i64>,
    /// Whether there is a segment after the bounds.
    continues: bool,
    /// Tombstones since the last segment. They don't prove that the stream ran until then, so they
    /// count only once another segment follows.
    deleted: Vec<(i64, i64)>,
    /// Up to where the time is covered or known to be a hole. For each [`By`], by it or a better
    /// one.
    reached: [Option<i64>; 3],
    /// The span covered without a gap up to there, which is not yet added up.
    run: [Option<(i64, i64)>; 3],
    covered: [i64; 3],
    holes: Vec<Hole>,
}

impl Sweep {
    /// A sweep over these bounds. The map gets lines for the known hours in `range`, for its ends,
    /// and for the hours between them unless there are too many.
    pub fn new(bounds: Range<i64>, range: RangeInclusive<Hour>, known: &BTreeSet<Hour>) -> Sweep {
        let mut rows = BTreeMap::new();
        let mut previous: Option<Hour> = None;
        let ends = [*range.start(), *range.end()];
        let hours: BTreeSet<Hour> = known.range(range).copied().chain(ends).collect();
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
        Sweep {
            bounds,
            rows,
            begin: None,
            last: None,
            continues: false,
            deleted: Vec::new(),
            reached: [None; 3],
            run: [None; 3],
            covered: [0; 3],
            holes: Vec::new(),
        }
    }

    /// Sets where the time to be covered begins, unless an earlier segment is found.
    pub fn begin_at(&mut self, begin: i64) {
        self.begin = Some(begin);
        self.reached = [Some(begin); 3];
    }

    /// Adds the next span.
    pub fn add(&mut self, span: Span) {
        let (start, end) = (span.start.max(self.bounds.start), span.end.min(self.bounds.end));
        self.continues |= span.is_segment() && span.start >= self.bounds.end;
        if start >= end {
            return;
        }
        if !span.is_segment() {
            return self.deleted.push((start, end));
        }
        if self.begin.is_none_or(|begin| start < begin) {
            self.begin_at(start);
        }
        self.lay_deleted(self.bounds.end);
        self.lay(start, end, span.by);
        self.last = self.last.max(Some(end));
    }

    /// Covers what was deleted since the last segment, up to this time.
    fn lay_deleted(&mut self, end: i64) {
        let begin = self.begin.unwrap_or(end);
        for (start, to) in std::mem::take(&mut self.deleted) {
            let (start, to) = (start.max(begin), to.min(end));
            if start < to {
                self.lay(start, to, By::Deleted);
            }
        }
    }

    fn lay(&mut self, start: i64, end: i64, by: By) {
        for by in ALL.into_iter().filter(|other| *other >= by) {
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

    /// Adds up a span covered without a gap. Such a span is mostly whole hours long.
    fn note(&mut self, by: By, from: i64, to: i64) {
        self.covered[by as usize] += to - from;
        let add = |minute: &mut Minute, micros| minute.covered[by as usize] += micros;
        each_minute(&mut self.rows, from, to, add);
    }

    /// Sets where the time to be covered ends (or at the end of the last segment, if that is
    /// later), and adds the result to `coverage`.
    pub fn finish(mut self, end: Option<i64>, findings: &Findings, coverage: &mut Coverage) {
        let end = if self.continues { Some(self.bounds.end) } else { end };
        if let (Some(begin), Some(end)) = (self.begin, end.max(self.last)) {
            // A segment of the hour before may reach beyond the end.
            let end = end.max(begin);
            self.end(begin, end);
            let deleted = self.covered[By::Deleted as usize] - self.covered[By::Lesser as usize];
            coverage.expected += end - begin - deleted;
            coverage.missing += self.holes.iter().map(|hole| hole.micros()).sum::<i64>();
        }
        coverage.holes.append(&mut self.holes);
        draw(&self.rows, findings, &mut coverage.rows);
    }

    fn end(&mut self, begin: i64, end: i64) {
        self.lay_deleted(end);
        let reached = self.reached[By::Deleted as usize].unwrap_or(begin);
        if end - reached > TOLERATED_GAP {
            self.holes.push(Hole { start: reached, end });
        }
        for by in ALL {
            let gap = self.reached[by as usize].map(|reached| end - reached);
            if let Some(gap) = gap.filter(|gap| (1..=TOLERATED_GAP).contains(gap)) {
                self.cover(by, end - gap, end);
            }
            if let Some((start, end)) = self.run[by as usize].take() {
                self.note(by, start, end);
            }
        }
        each_minute(&mut self.rows, begin, end, |minute, micros| minute.judged += micros);
    }
}

/// Draws the lines of a map. A long run of hours without segments shares one line.
fn draw(hours: &BTreeMap<Hour, Minutes>, findings: &Findings, rows: &mut Vec<Row>) {
    let mut absent: Option<(Hour, Hour)> = None;
    let mut absent_rows = Vec::new();
    let mut previous: Option<Hour> = None;
    let judged = hours.iter().filter(|(_, minutes)| minutes.iter().any(|m| m.judged > 0));
    for (hour, minutes) in judged {
        if let Some(previous) = previous.filter(|previous| previous.next() < *hour) {
            let first = absent.map_or(previous.next(), |(first, _)| first);
            absent = Some((first, hour.back(1)));
        }
        previous = Some(*hour);
        let row = row(*hour, minutes, findings);
        if minutes.iter().all(|minute| minute.covered[By::Deleted as usize] == 0) {
            absent = Some((absent.map_or(*hour, |(first, _)| first), *hour));
            absent_rows.push(row);
            continue;
        }
        draw_absent(absent.take(), &mut absent_rows, rows);
        rows.push(row);
    }
    draw_absent(absent, &mut absent_rows, rows);
}

fn draw_absent(absent: Option<(Hour, Hour)>, one_by_one: &mut Vec<Row>, rows: &mut Vec<Row>) {
    match absent {
        Some((first, last)) if last.since(first) >= SHORT_ABSENCE => {
            one_by_one.clear();
            rows.push(Row::Absent { first, last });
        }
        _ => rows.append(one_by_one),
    }
}

fn row(hour: Hour, minutes: &Minutes, findings: &Findings) -> Row {
    let [_, there, all] = ALL.map(|by| minutes.iter().map(|m| m.covered[by as usize]).sum::<i64>());
    let expected = minutes.iter().map(|minute| minute.judged).sum::<i64>() - (all - there);
    let percent = if expected > 0 { there * 100 / expected } else { 100 };
    let cells = std::array::from_fn(|n| cell(&minutes[n], findings.has(hour, n)));
    Row::Hour { hour, cells, percent: percent.clamp(0, 100) as u8 }
}

fn cell(minute: &Minute, fetched: bool) -> Cell {
    let [full, there, all] = ALL.map(|by| minute.covered[by as usize]);
    let missing = minute.judged - all;
    if minute.judged == 0 {
        Cell::Outside
    } else if missing == minute.judged {
        Cell::Missing
    } else if missing > 0 {
        Cell::PartMissing
    } else if all > there {
        Cell::Deleted
    } else if there > full {
        Cell::Lesser
    } else if fetched {
        Cell::Fetched
    } else {
        Cell::Here
    }
}

/// Splits a span into the minutes of the existing rows.
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
