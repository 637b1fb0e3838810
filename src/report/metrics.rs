//! The report for Prometheus: a text file for node_exporter's textfile collector. Its counters go
//! on from pass to pass, by reading the file of the pass before back in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::event::{Event, Request};
use super::tally::Tally;
use super::{Figures, Measured, Status};
use crate::error::plain;
use crate::hour::{Hour, HourSelection, parse_hours};
use crate::node::Trouble;
use crate::target::{Directory, Place};

/// For how long the gauges of a pass are kept, and the counters of an hour that none selects.
const KEPT: TimeDelta = TimeDelta::weeks(2);

const LAST_START: &str = "backfiller_last_pass_start_timestamp_seconds";
const LAST_SUCCESS: &str = "backfiller_last_success_timestamp_seconds";
const MISSING: &str = "backfiller_missing_seconds";
const HOLES: &str = "backfiller_holes";

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// Every metric: its name, its type, and what it tells.
const FAMILIES: [(&str, &str, &str); 17] = [
    ("segments_backfilled_total", COUNTER, "Segments fetched from a node."),
    ("hash_mismatches_total", COUNTER, "Segments of which a node sent wrong content."),
    ("backfill_errors_total", COUNTER, "Requests to a node that failed, but for 404s."),
    ("hours_backfilled_total", COUNTER, "Listings of an hour by a node that were gone through."),
    ("segments_deleted_total", COUNTER, "Segments deleted for their age."),
    (LAST_START, GAUGE, "When the last pass began."),
    ("backfiller_last_pass_duration_seconds", GAUGE, "How long the last pass took."),
    ("backfiller_last_pass_status", GAUGE, "The exit status of the last pass."),
    ("backfiller_last_pass_segments", GAUGE, "Files that the last pass fetched."),
    ("backfiller_last_pass_bytes", GAUGE, "Bytes that the last pass fetched."),
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

/// Values by the name of the metric and its labels, as they are written.
type Series = BTreeMap<(&'static str, String), f64>;

/// Why a metrics file is not written.
#[derive(Debug)]
pub enum MetricsError {
    /// The system says no.
    Io(io::Error),
    /// There is something else in its place; what of it tells.
    Foreign(String),
}

impl From<io::Error> for MetricsError {
    fn from(error: io::Error) -> Self {
        MetricsError::Io(error)
    }
}

impl std::fmt::Display for MetricsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MetricsError::Io(e) => f.write_str(&plain(e)),
            MetricsError::Foreign(what) => {
                write!(f, "there is something else in its place, which stays as it is: {what}")
            }
        }
    }
}

impl std::error::Error for MetricsError {}

/// Counts what the counters are about.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    names: Vec<String>,
    hours: HourSelection,
    /// The hours as they were asked for. Passes over other hours that share the file (those of
    /// another line of a crontab) have gauges of their own by it.
    asked: String,
    counts: Series,
}

impl Metrics {
    /// Metrics for this file, of a pass over these nodes and hours, which were `asked` for in those
    /// words. Fails if it can't be written in the end, as far as that can be told now.
    pub fn new(
        path: &Path,
        names: Vec<String>,
        hours: HourSelection,
        asked: String,
    ) -> Result<Metrics, MetricsError> {
        // A link is followed, so that it's not replaced; also one that leads nowhere yet.
        let target = || fs::read_link(path).map(|target| directory(path).join(target));
        let path = fs::canonicalize(path).or_else(|_| target()).unwrap_or_else(|_| path.into());
        match fs::metadata(&path) {
            Ok(found) if !found.is_file() => {
                return Err(MetricsError::Foreign("it is no regular file".into()));
            }
            Ok(_) => drop(parse(&fs::read_to_string(&path)?)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::metadata(directory(&path))?;
            }
            Err(e) => return Err(e.into()),
        }
        Ok(Metrics { path, names, hours, asked, counts: Series::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
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
                ("backfill_errors_total", labels(&[("remote", remote(node))]), 1)
            }
            Event::Listed { node, directory: Directory::Hour(place), .. } => {
                let (stream, variant) = (&place.collection.stream, &place.collection.variant);
                let labels = labels(&[
                    ("remote", remote(node)),
                    ("stream", stream.as_str()),
                    ("variant", variant.as_str()),
                ]);
                ("hours_backfilled_total", labels, 1)
            }
            Event::Deleted { place, segments, dry_run: false, .. } => {
                let labels = labels(&[
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

    /// Writes the file: the counters added to those that it had, and what the last pass was like.
    pub(super) fn write(
        &self,
        tally: &Tally,
        status: Status,
        figures: &Figures,
        dry_run: bool,
    ) -> Result<(), MetricsError> {
        let mut file = lock(&self.path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut series = parse(&text)?;
        self.forget(&mut series, figures.started);
        for ((name, labels), n) in &self.counts {
            *series.entry((*name, labels.clone())).or_default() += n;
        }
        self.gauge(&mut series, tally, status, figures);
        if status == Status::Complete && !dry_run {
            let labels = labels(&[("hours", &self.asked)]);
            series.insert((LAST_SUCCESS, labels), timestamp(figures.started));
        }
        replace(&self.path, &print(&series))?;
        Ok(())
    }

    /// Forgets what doesn't count any more of the passes before. Left are counters, but those of
    /// hours that are long past and that nobody selects; the gauges that are not measured anew each
    /// time; and those of passes over other hours if there was one of late.
    fn forget(&self, series: &mut Series, now: DateTime<Utc>) {
        let since = now - KEPT;
        let of_late = series.iter().filter(|((name, _), start)| {
            *name == LAST_START && **start >= since.timestamp() as f64
        });
        let others: BTreeSet<String> =
            of_late.filter_map(|((_, labels), _)| Some(label(labels, "hours")?.into())).collect();
        // What stood for `-` nobody knows any more.
        let theirs = others.iter().flat_map(|asked| asked.split(','));
        let theirs = theirs.filter_map(|form| parse_hours(form, now).ok());
        let selected =
            HourSelection::union(self.hours.ranges().iter().cloned().chain(theirs).collect());
        series.retain(|(name, labels), _| {
            if kind(name) == COUNTER {
                let hour = label(labels, "hour").and_then(|hour| hour.parse::<Hour>().ok());
                return hour
                    .is_none_or(|hour| hour >= Hour::containing(since) || selected.contains(hour));
            }
            match label(labels, "hours") {
                Some(asked) if asked == self.asked => {
                    matches!(*name, LAST_SUCCESS | MISSING | HOLES)
                }
                Some(asked) => others.contains(asked),
                None => false,
            }
        });
    }

    fn gauge(&self, series: &mut Series, tally: &Tally, status: Status, figures: &Figures) {
        let mut set = |name: &'static str, labels: String, value: f64| {
            series.insert((name, labels), value);
        };
        let hours = ("hours", self.asked.as_str());
        let of_pass = || labels(&[hours]);
        set(LAST_START, of_pass(), timestamp(figures.started));
        set("backfiller_last_pass_duration_seconds", of_pass(), seconds(figures.took));
        set("backfiller_last_pass_status", of_pass(), status.code().into());
        set("backfiller_last_pass_segments", of_pass(), tally.landed as f64);
        set("backfiller_last_pass_bytes", of_pass(), tally.bytes as f64);
        for Measured { collection, coverage } in &figures.measured {
            if let Some(coverage) = coverage {
                let stream = ("stream", collection.stream.as_str());
                let labels = labels(&[stream, ("variant", collection.variant.as_str()), hours]);
                let missing = coverage.missing as f64 / 1e6;
                set(MISSING, labels.clone(), missing);
                set(HOLES, labels, coverage.holes.len() as f64);
            }
        }
        for (name, node) in self.names.iter().zip(&tally.nodes) {
            let remote = labels(&[("remote", name), hours]);
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

fn add(counts: &mut Series, name: &'static str, labels: String, n: u64) {
    *counts.entry((name, labels)).or_default() += n as f64;
}

fn kind(name: &str) -> &'static str {
    let family = FAMILIES.iter().find(|family| family.0 == name);
    family.map_or(GAUGE, |family| family.1)
}

fn of_segment(remote: &str, place: &Place) -> String {
    labels(&[
        ("remote", remote),
        ("stream", place.collection.stream.as_str()),
        ("variant", place.collection.variant.as_str()),
        ("hour", &place.hour.to_string()),
    ])
}

/// Labels as they are written, with their braces.
fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::from("{");
    for (n, (name, value)) in pairs.iter().enumerate() {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let comma = if n > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text + "}"
}

/// The value of one of them, if nothing in it needed to be escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Reads what a pass has written. Whatever is not of that kind is no metrics file of ours.
fn parse(text: &str) -> Result<Series, MetricsError> {
    let mut series = Series::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = || {
            let (key, value) = line.rsplit_once(' ')?;
            let (name, labels) = key.split_at(key.find('{').unwrap_or(key.len()));
            let (known, ..) = FAMILIES.iter().find(|family| family.0 == name)?;
            Some(((*known, labels.to_owned()), value.parse::<f64>().ok()?))
        };
        let Some((key, value)) = read() else {
            let what = format!("line {} is none that backfiller writes", number + 1);
            return Err(MetricsError::Foreign(what));
        };
        series.insert(key, value);
    }
    Ok(series)
}

fn print(series: &Series) -> String {
    let mut text = String::new();
    for (name, kind, help) in FAMILIES {
        let first = (name, String::new());
        let values = series.range(first..).take_while(|((of, _), _)| *of == name);
        for (n, ((_, labels), value)) in values.enumerate() {
            if n == 0 {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    text
}

/// Opens the file, or makes it, and keeps other passes that write it waiting as long as it's open.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.lock()?;
        // Whoever had it before has put a new file in its place.
        let (ours, found) = (file.metadata()?, fs::metadata(path));
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

/// Puts a new file in the place of the old one, so that whoever reads it sees either.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
    let staged = directory(path).join(staged_name(path, id));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&staged, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&staged);
    }
    written
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A name that the collector, which reads what ends in `.prom`, passes over.
fn staged_name(path: &Path, id: Uuid) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.{id}.temp")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut series = Series::new();
        let odd = labels(&[("remote", "a \"b\" \\ {c} d=\n"), ("hour", "2018-11-10T05")]);
        assert_eq!(label(&odd, "hour"), Some("2018-11-10T05"));
        series.insert(("segments_backfilled_total", odd), 12.0);
        series.insert((LAST_START, String::new()), 1541826123.25);
        let text = print(&series);
        assert_eq!(parse(&text).unwrap(), series);
        assert!(text.contains("\nbackfiller_last_pass_start_timestamp_seconds 1541826123.25\n"));
    }

    #[test]
    fn what_no_pass_has_written_is_refused() {
        for text in ["root:x:0:0:root:/root:/bin/bash\n", "up 1\n", "backfiller_holes{a=\"b\"} x\n"]
        {
            assert!(matches!(parse(text), Err(MetricsError::Foreign(_))), "{text}");
        }
        assert!(parse("").unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_file_makes_the_parser_panic(text in "(backfiller_holes|up|#|\\{|\\}|=|\"| |1|\n|\\PC){0,60}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn every_family_is_told_apart_and_counters_are_named_as_such() {
        for (name, kind, help) in FAMILIES {
            assert_eq!(name.ends_with("_total"), kind == COUNTER, "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }
}
