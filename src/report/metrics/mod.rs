//! The report for Prometheus: a text file for node_exporter's textfile collector. Counters carry
//! over from pass to pass, because each pass reads the file of the pass before.

mod families;
mod text;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::event::{Event, Request};
use super::figures::{End, Measured, RunningPass};
use super::file::{FileError, OutputFile};
use super::log;
use super::status::Status;
use crate::hour::{Hour, HourSelection, parse_hours};
use crate::node::Trouble;
use crate::stop::Stop;
use crate::target::{Directory, Place};

use families::*;
use text::{Labels, Series};

/// How long the file keeps the gauges of a pass, and the counters of an hour that no pass selects.
/// Two weeks is how long an archive typically keeps its hours.
const KEPT: TimeDelta = TimeDelta::weeks(2);

/// Counts events for the counters, and writes the file.
#[derive(Debug)]
pub struct Metrics {
    file: OutputFile,
    names: Vec<String>,
    hours: HourSelection,
    /// HOUR as it was typed, the value of the label `hours`. With this label, passes over other
    /// hours can share the file (those of another line of a crontab), and have gauges of their own.
    asked: String,
    /// Counts that are not in the file yet.
    counts: Series,
    /// How many messages of each level are in the file.
    logged: log::Counts,
    /// Set once this pass was written as a success: the timestamp of the success before it. It is
    /// restored if the pass turns out to have failed.
    success_before: Option<Option<f64>>,
}

impl Metrics {
    /// Metrics of a pass over these nodes and hours, to be written to this file; `asked` is HOUR as
    /// it was typed.
    ///
    /// # Errors
    ///
    /// Fails if it is already clear that the file can't be written or should not be replaced.
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

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Counts an event.
    pub fn count(&mut self, event: &Event<'_>) {
        let remote = |id: &usize| self.names[*id].as_str();
        let (name, labels, n) = match event {
            Event::Landed { node, target, .. } => match target.place() {
                Some(parts) => (SEGMENTS, of_segment(remote(node), parts), 1),
                None => return,
            },
            Event::TryFailed { error, .. } if error.trouble == Trouble::Gone => return,
            Event::TryFailed { node, request, error, .. } => {
                if let (Trouble::Corrupt, Request::Fetch(target)) = (error.trouble, request)
                    && let Some(place) = target.place()
                {
                    let labels = of_segment(remote(node), place);
                    add(&mut self.counts, MISMATCHES, labels, 1);
                }
                (ERRORS, Labels::new(&[("remote", remote(node))]), 1)
            }
            Event::Listed { node, directory: Directory::Hour(place), .. } => {
                let (stream, variant) = (&place.collection.stream, &place.collection.variant);
                let labels = Labels::new(&[
                    ("remote", remote(node)),
                    ("stream", stream.as_str()),
                    ("variant", variant.as_str()),
                ]);
                (HOURS, labels, 1)
            }
            Event::Deleted { place, segments, dry_run: false, .. } => {
                let labels = Labels::new(&[
                    ("stream", place.collection.stream.as_str()),
                    ("variant", place.collection.variant.as_str()),
                    ("hour", &place.hour.to_string()),
                ]);
                (DELETED, labels, *segments)
            }
            _ => return,
        };
        add(&mut self.counts, name, labels, n);
    }

    /// Writes the file at the end of a pass: adds the counters to those in the file, and sets the
    /// gauges. May be called again if the outcome changes, for example if standard output then
    /// fails.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be locked, read or written, or is not ours.
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

    /// Takes the counts that are not in the file yet, so that they can be written while others are
    /// counted.
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

    /// Puts back what was taken. If it was not written, its counts are added to the present ones.
    pub fn put_back(&mut self, taken: Metrics) {
        self.logged = taken.logged;
        for (key, n) in taken.counts {
            *self.counts.entry(key).or_default() += n;
        }
    }

    /// Writes the file during a pass: the counters, and the gauges of the current pass. Those of
    /// the last pass stay.
    ///
    /// # Errors
    ///
    /// Fails as [`Metrics::write`] does.
    pub fn write_so_far(
        &mut self,
        RunningPass { started, now }: RunningPass,
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

    /// Counts a pass that did not start because another one holds the lock, and writes the file.
    ///
    /// # Errors
    ///
    /// Fails as [`Metrics::write`] does.
    pub fn write_locked_out(&mut self, stop: &Stop) -> Result<(), FileError> {
        let labels = Labels::new(&[("hours", &self.asked)]);
        add(&mut self.counts, LOCKED_OUT, labels, 1);
        self.update(stop, |_, _| {})
    }

    /// Reads the file, applies `change`, adds the counts, and replaces the file.
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

    /// Drops series that no longer apply. What stays: counters, except those of old hours that no
    /// recent pass selects; the gauges of this HOUR that are not measured in every pass; and all
    /// gauges of other HOURs, if a pass over them began within [`KEPT`].
    fn forget(&self, series: &mut Series, now: DateTime<Utc>) {
        let since = now - KEPT;
        let recent = series.iter().filter(|((name, _), start)| {
            [LAST_START, PASS_START].contains(name) && **start >= since.timestamp() as f64
        });
        let others: BTreeSet<String> =
            recent.filter_map(|((_, labels), _)| Some(labels.get("hours")?.into())).collect();
        // `-` and `@FILE` are skipped, because the hours that they stood for are not known any
        // more.
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
        set(LAST_DURATION, of_pass(), seconds(figures.took));
        set(LAST_STATUS, of_pass(), status.code().into());
        set(LAST_SEGMENTS, of_pass(), tally.landed as f64);
        set(LAST_BYTES, of_pass(), tally.bytes as f64);
        if let Some(room) = tally.out_of_room {
            set(LAST_FREE, of_pass(), room.free as f64);
            set(LAST_SHORT_OF, of_pass(), room.missing as f64);
        }
        for (reason, n) in &tally.refusals {
            let labels = Labels::new(&[hours, ("reason", reason)]);
            set(LAST_NOT_DELETED, labels, *n as f64);
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
            set(NODE_LISTING, remote.clone(), seconds(node.listing));
            set(NODE_FETCH, remote.clone(), seconds(node.fetching));
            set(NODE_SEGMENTS, remote.clone(), node.landed as f64);
            set(NODE_GIVEN_UP, remote, f64::from(u8::from(node.given_up)));
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
    fn help_is_a_sentence_and_only_counters_end_in_total() {
        for (name, kind, help) in FAMILIES {
            assert_eq!(name.ends_with("_total"), kind == COUNTER, "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }
}
