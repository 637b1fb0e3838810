//! The report for Prometheus: a text file for node_exporter's textfile collector. Its counters go
//! on from pass to pass, by reading the file of the pass before back in.

mod text;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::event::{Event, Request};
use super::figures::{End, Measured, UnderWay};
use super::file::{FileError, OutputFile};
use super::log;
use super::status::Status;
use crate::hour::{Hour, HourSelection, parse_hours};
use crate::node::Trouble;
use crate::stop::Stop;
use crate::target::{Directory, Place};

use text::{Family, Labels, Series};

/// For how long the gauges of a pass are kept, and the counters of an hour that none selects.
const KEPT: TimeDelta = TimeDelta::weeks(2);

const LOG_MESSAGES: &str = "backfiller_log_messages_total";
const LOCKED_OUT: &str = "backfiller_locked_out_total";
const LAST_START: &str = "backfiller_last_pass_start_timestamp_seconds";
const LAST_SUCCESS: &str = "backfiller_last_success_timestamp_seconds";
const PASS_START: &str = "backfiller_pass_start_timestamp_seconds";
const PASS_DONE: &str = "backfiller_pass_files_done";
const PASS_WANTED: &str = "backfiller_pass_files_wanted";
const PASS_BYTES: &str = "backfiller_pass_bytes";
const MISSING: &str = "backfiller_missing_seconds";
const HOLES: &str = "backfiller_holes";

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Every metric.
const FAMILIES: [Family; 26] = [
    ("segments_backfilled_total", COUNTER, "Segments fetched from a node."),
    ("hash_mismatches_total", COUNTER, "Segments of which a node sent wrong content."),
    ("backfill_errors_total", COUNTER, "Requests to a node that failed, but for 404s."),
    ("hours_backfilled_total", COUNTER, "Listings of an hour by a node that were gone through."),
    ("segments_deleted_total", COUNTER, "Segments deleted for their age."),
    (LOG_MESSAGES, COUNTER, "Messages written to standard error."),
    (LOCKED_OUT, COUNTER, "Passes that did not begin because another one held the lock."),
    (PASS_START, GAUGE, "When the pass began that is under way."),
    (PASS_DONE, GAUGE, "Files that the pass under way has fetched, or given up."),
    (PASS_WANTED, GAUGE, "Files that the pass under way wants, as far as it knows."),
    (PASS_BYTES, GAUGE, "Bytes that the pass under way has fetched."),
    (LAST_START, GAUGE, "When the last pass began."),
    ("backfiller_last_pass_duration_seconds", GAUGE, "How long the last pass took."),
    ("backfiller_last_pass_status", GAUGE, "The exit status of the last pass."),
    ("backfiller_last_pass_segments", GAUGE, "Files that the last pass fetched."),
    ("backfiller_last_pass_bytes", GAUGE, "Bytes that the last pass fetched."),
    (
        "backfiller_last_pass_free_bytes",
        GAUGE,
        "What was free on the archive's disk when the last pass ended for --min-free.",
    ),
    (
        "backfiller_last_pass_short_of_bytes",
        GAUGE,
        "How much more should have been free for it to go on.",
    ),
    (
        "backfiller_last_pass_not_deleted",
        GAUGE,
        "Old hours that the last pass did not delete, by the reason; 1 if it tried none.",
    ),
    (LAST_SUCCESS, GAUGE, "When the last pass that ended with status 0 began."),
    (
        MISSING,
        GAUGE,
        "Time that nothing covers in the hours that a pass selected, when that was last measured.",
    ),
    (HOLES, GAUGE, "How many holes that time is made of."),
    (
        "backfiller_node_listing_seconds",
        GAUGE,
        "Time that requests for listings to a node took in the last pass, added up.",
    ),
    (
        "backfiller_node_fetch_seconds",
        GAUGE,
        "Time that fetches from a node took in the last pass, added up.",
    ),
    ("backfiller_node_segments", GAUGE, "Files that a node gave in the last pass."),
    ("backfiller_node_given_up", GAUGE, "Whether a node was given up in the last pass."),
];

/// Counts what the counters are about.
#[derive(Debug)]
pub struct Metrics {
    file: OutputFile,
    names: Vec<String>,
    hours: HourSelection,
    /// The hours as they were asked for. Passes over other hours that share the file (those of
    /// another line of a crontab) have gauges of their own by it.
    asked: String,
    /// What was counted and is not yet in the file.
    counts: Series,
    /// How many messages of each level are in the file.
    logged: log::Counts,
    /// When the last success before this pass began, if this one was written to be one.
    success_before: Option<Option<f64>>,
}

impl Metrics {
    /// Metrics for this file, of a pass over these nodes and hours, which were `asked` for in those
    /// words. Fails if it can't be written in the end, as far as that can be known now.
    pub fn new(
        path: &Path,
        names: Vec<String>,
        hours: HourSelection,
        asked: String,
    ) -> Result<Metrics, FileError> {
        let file = OutputFile::at(path)?;
        parse(&file.read()?)?;
        Ok(Metrics {
            file,
            names,
            hours,
            asked,
            counts: Series::new(),
            logged: log::Counts::default(),
            success_before: None,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Counts an event.
    pub fn count(&mut self, event: &Event<'_>) {
        let remote = |id: &usize| self.names[*id].as_str();
        let (name, labels, n) = match event {
            Event::Landed { node, target, .. } => match target.place() {
                Some(parts) => ("segments_backfilled_total", of_segment(remote(node), parts), 1),
                None => return,
            },
            Event::TryFailed { error, .. } if error.trouble == Trouble::Gone => return,
            Event::TryFailed { node, request, error, .. } => {
                if let (Trouble::Corrupt, Request::Fetch(target)) = (error.trouble, request)
                    && let Some(place) = target.place()
                {
                    let labels = of_segment(remote(node), place);
                    add(&mut self.counts, "hash_mismatches_total", labels, 1);
                }
                ("backfill_errors_total", Labels::new(&[("remote", remote(node))]), 1)
            }
            Event::Listed { node, directory: Directory::Hour(place), .. } => {
                let (stream, variant) = (&place.collection.stream, &place.collection.variant);
                let labels = Labels::new(&[
                    ("remote", remote(node)),
                    ("stream", stream.as_str()),
                    ("variant", variant.as_str()),
                ]);
                ("hours_backfilled_total", labels, 1)
            }
            Event::Deleted { place, segments, dry_run: false, .. } => {
                let labels = Labels::new(&[
                    ("stream", place.collection.stream.as_str()),
                    ("variant", place.collection.variant.as_str()),
                    ("hour", &place.hour.to_string()),
                ]);
                ("segments_deleted_total", labels, *segments)
            }
            _ => return,
        };
        add(&mut self.counts, name, labels, n);
    }

    /// Writes the file: the counters added to those that it had, and what the pass was like. It may
    /// be written again if that turns out to be otherwise.
    pub fn write(&mut self, end: End<'_>, stop: &Stop) -> Result<(), FileError> {
        let start = timestamp(end.figures.started);
        let success = (LAST_SUCCESS, Labels::new(&[("hours", &self.asked)]));
        let succeeded = end.status == Status::Complete && !end.dry_run;
        let before = self.success_before;
        let mut found = None;
        self.update(stop, |metrics, series| {
            metrics.forget(series, end.figures.started);
            metrics.gauge(series, end);
            found = series.get(&success).copied();
            if succeeded {
                series.insert(success.clone(), start);
            } else if let Some(before) = before.filter(|_| found == Some(start)) {
                match before {
                    Some(before) => series.insert(success.clone(), before),
                    None => series.remove(&success),
                };
            }
        })?;
        if succeeded && before.is_none() {
            self.success_before = Some(found);
        }
        Ok(())
    }

    /// What was counted and is not yet in the file, to be written while more is counted.
    pub fn take(&mut self) -> Metrics {
        Metrics {
            file: self.file.clone(),
            names: Vec::new(),
            hours: self.hours.clone(),
            asked: self.asked.clone(),
            counts: std::mem::take(&mut self.counts),
            logged: self.logged,
            success_before: None,
        }
    }

    /// Takes back what was taken, be it written by now or not.
    pub fn put_back(&mut self, taken: Metrics) {
        self.logged = taken.logged;
        for (key, n) in taken.counts {
            *self.counts.entry(key).or_default() += n;
        }
    }

    /// Writes the file in mid-pass: the counters, and how far the pass has come. What it has of the
    /// last pass stays.
    pub fn write_under_way(
        &mut self,
        UnderWay { started, now }: UnderWay,
        stop: &Stop,
    ) -> Result<(), FileError> {
        self.update(stop, |metrics, series| {
            let labels = Labels::new(&[("hours", &metrics.asked)]);
            for (name, value) in [
                (PASS_START, timestamp(started)),
                (PASS_DONE, now.counts.settled as f64),
                (PASS_WANTED, now.counts.wanted as f64),
                (PASS_BYTES, now.bytes as f64),
            ] {
                series.insert((name, labels.clone()), value);
            }
        })
    }

    /// Counts that a pass did not begin because another one held the lock.
    pub fn write_locked_out(&mut self, stop: &Stop) -> Result<(), FileError> {
        let labels = Labels::new(&[("hours", &self.asked)]);
        add(&mut self.counts, LOCKED_OUT, labels, 1);
        self.update(stop, |_, _| {})
    }

    /// Adds what was counted to what is in the file, and changes that otherwise.
    fn update(
        &mut self,
        stop: &Stop,
        mut change: impl FnMut(&Metrics, &mut Series),
    ) -> Result<(), FileError> {
        let logged = loop {
            let held = self.file.lock(stop)?;
            let mut series = parse(&held.text)?;
            change(self, &mut series);
            for ((name, labels), n) in &self.counts {
                *series.entry((*name, labels.clone())).or_default() += n;
            }
            let logged = log::counts();
            for (level, n, before) in logged.since(&self.logged) {
                let labels = Labels::new(&[("level", level)]);
                *series.entry((LOG_MESSAGES, labels)).or_default() += (n - before) as f64;
            }
            let text = text::print(&series, &FAMILIES, self.file.name());
            if self.file.replace(&held, &text)? {
                break logged;
            }
        };
        self.counts.clear();
        self.logged = logged;
        Ok(())
    }

    /// Forgets what doesn't count any more of the passes before. Left are counters, but those of
    /// hours that are long past and that nobody selects; the gauges that are not measured anew each
    /// time; and those of passes over other hours if there was one of late.
    fn forget(&self, series: &mut Series, now: DateTime<Utc>) {
        let since = now - KEPT;
        let of_late = series.iter().filter(|((name, _), start)| {
            [LAST_START, PASS_START].contains(name) && **start >= since.timestamp() as f64
        });
        let others: BTreeSet<String> =
            of_late.filter_map(|((_, labels), _)| Some(labels.get("hours")?.into())).collect();
        // What stood for `-` nobody knows any more.
        let theirs = others.iter().flat_map(|asked| asked.split(',').map(str::trim));
        let theirs = theirs.filter_map(|form| parse_hours(form, now).ok());
        let selected =
            HourSelection::union(self.hours.ranges().iter().cloned().chain(theirs).collect());
        series.retain(|(name, labels), _| {
            if kind(name) == COUNTER {
                let hour = labels.get("hour").and_then(|hour| hour.parse::<Hour>().ok());
                return hour
                    .is_none_or(|hour| hour >= Hour::containing(since) || selected.contains(hour));
            }
            match labels.get("hours") {
                Some(asked) if asked == self.asked => {
                    matches!(*name, LAST_SUCCESS | MISSING | HOLES)
                }
                Some(asked) => others.contains(asked),
                None => false,
            }
        });
    }

    fn gauge(&self, series: &mut Series, End { tally, status, figures, .. }: End<'_>) {
        let mut set = |name: &'static str, labels: Labels, value: f64| {
            series.insert((name, labels), value);
        };
        let hours = ("hours", self.asked.as_str());
        let of_pass = || Labels::new(&[hours]);
        set(LAST_START, of_pass(), timestamp(figures.started));
        set("backfiller_last_pass_duration_seconds", of_pass(), seconds(figures.took));
        set("backfiller_last_pass_status", of_pass(), status.code().into());
        set("backfiller_last_pass_segments", of_pass(), tally.landed as f64);
        set("backfiller_last_pass_bytes", of_pass(), tally.bytes as f64);
        if let Some(room) = tally.out_of_room {
            set("backfiller_last_pass_free_bytes", of_pass(), room.free as f64);
            set("backfiller_last_pass_short_of_bytes", of_pass(), room.missing as f64);
        }
        for (reason, n) in &tally.refusals {
            let labels = Labels::new(&[hours, ("reason", reason)]);
            set("backfiller_last_pass_not_deleted", labels, *n as f64);
        }
        for Measured { collection, coverage } in &figures.measured {
            if let Some(coverage) = coverage {
                let stream = ("stream", collection.stream.as_str());
                let labels =
                    Labels::new(&[stream, ("variant", collection.variant.as_str()), hours]);
                let missing = coverage.missing as f64 / 1e6;
                set(MISSING, labels.clone(), missing);
                set(HOLES, labels, coverage.holes.len() as f64);
            }
        }
        for (name, node) in self.names.iter().zip(&tally.nodes) {
            let remote = Labels::new(&[("remote", name), hours]);
            set("backfiller_node_listing_seconds", remote.clone(), seconds(node.listing));
            set("backfiller_node_fetch_seconds", remote.clone(), seconds(node.fetching));
            set("backfiller_node_segments", remote.clone(), node.landed as f64);
            set("backfiller_node_given_up", remote, f64::from(u8::from(node.given_up)));
        }
    }
}

fn timestamp(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1e3
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

fn add(counts: &mut Series, name: &'static str, labels: Labels, n: u64) {
    *counts.entry((name, labels)).or_default() += n as f64;
}

fn kind(name: &str) -> &'static str {
    let family = FAMILIES.iter().find(|family| family.0 == name);
    family.map_or(GAUGE, |family| family.1)
}

fn of_segment(remote: &str, place: &Place) -> Labels {
    Labels::new(&[
        ("remote", remote),
        ("stream", place.collection.stream.as_str()),
        ("variant", place.collection.variant.as_str()),
        ("hour", &place.hour.to_string()),
    ])
}

fn parse(text: &str) -> Result<Series, FileError> {
    text::parse(text, &FAMILIES).map_err(FileError::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_says_what_it_is_and_counters_are_named_as_such() {
        for (name, kind, help) in FAMILIES {
            assert_eq!(name.ends_with("_total"), kind == COUNTER, "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }
}
