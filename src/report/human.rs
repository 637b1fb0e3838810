//! The report for a person: messages and a summary line on standard error, and on standard output
//! the paths that were asked for.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use log::{error, info, log, warn};

use super::{Event, Place, Status, Style, Tally};
use crate::plan::Skip;
use crate::progress::Progress;
use crate::schedule::NodeId;
use crate::segment::SegmentName;

/// How often the same trouble of one node is told in full. The rest is counted.
const TOLD_IN_FULL: u64 = 3;

/// How the paths of segments are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Each ended by a newline.
    Lines,
    /// Each ended by a NUL.
    NulTerminated,
}

/// A kind of trouble that may come a thousand times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    NoHour,
    NoSegment,
    SegmentFailed,
    SegmentVanished,
    ListingFailed,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Kind::NoHour => "names that are no hours",
            Kind::NoSegment => "names that are no segments",
            Kind::SegmentFailed => "segments that could not be had",
            Kind::SegmentVanished => "segments that are gone from every node that listed them",
            Kind::ListingFailed => "listings that could not be had",
        }
    }
}

#[derive(Debug)]
pub struct Human {
    names: Vec<String>,
    style: Style,
    progress: Progress,
    told: HashMap<(Kind, Option<NodeId>), u64>,
}

impl Human {
    pub fn new(names: Vec<String>, style: Style, progress: Progress) -> Human {
        Human {
            names,
            style,
            progress,
            told: HashMap::new(),
        }
    }

    /// Fails if standard output can't be written.
    pub fn tell(&mut self, event: &Event<'_>) -> io::Result<()> {
        match event {
            Event::Landed {
                node,
                place,
                name,
                bytes,
                took,
            } => {
                let node = &self.names[*node];
                let (bytes, took) = (HumanBytes(*bytes), seconds(*took));
                info!("node {node}: fetched {place}/{name} ({bytes} in {took})");
                self.print(place, name)?;
            }
            Event::WouldFetch { place, name } => self.print(place, name)?,
            event => self.log(event),
        }
        Ok(())
    }

    fn log(&mut self, event: &Event<'_>) {
        match event {
            Event::HoursListed {
                node,
                collection,
                hours,
                selected,
            } => {
                let node = &self.names[*node];
                info!("node {node}: {collection}: {hours} hours, {selected} of them selected");
            }
            Event::NoHour {
                node,
                collection,
                name,
            } => {
                let name = shown(*name);
                let what = format!("node {}: {collection}/{name} is no hour", self.names[*node]);
                self.warn(Kind::NoHour, Some(*node), &what);
            }
            Event::Listed {
                node,
                place,
                names,
                here,
                wanted,
            } => {
                let node = &self.names[*node];
                info!(
                    "node {node}: {place}: {names} names, {here} already here, {wanted} to fetch"
                );
            }
            Event::Skipped {
                node,
                place,
                name,
                why,
            } => {
                let name = shown(*name);
                let what = format!("node {}: {place}/{name} {why}", self.names[*node]);
                match why {
                    Skip::NoSegment(_) => self.warn(Kind::NoSegment, Some(*node), &what),
                    _ => info!("{what}"),
                }
            }
            Event::WasHere { place, name } => {
                info!("{place}/{name} is here: another writer was quicker");
            }
            Event::TryFailed { node, what, why } => {
                info!("node {}: {what}: {why}", self.names[*node]);
            }
            Event::SegmentFailed {
                node,
                place,
                name,
                why,
            } => {
                let node = &self.names[*node];
                let what = format!("{place}/{name} could not be had: node {node}: {why}");
                self.warn(Kind::SegmentFailed, None, &what);
            }
            Event::SegmentVanished { place, name } => {
                let what = format!("{place}/{name} is gone from every node that listed it");
                match place.collection.variant.medium() {
                    crate::segment::Medium::Chat => info!("{what}"),
                    crate::segment::Medium::Video => self.warn(Kind::SegmentVanished, None, &what),
                }
            }
            Event::ListingFailed {
                node,
                collection,
                hour,
                why,
            } => {
                let name = &self.names[*node];
                let what = match hour {
                    Some(hour) => format!("node {name}: listing {collection}/{hour}: {why}"),
                    None => format!("node {name}: listing the hours of {collection}: {why}"),
                };
                self.warn(Kind::ListingFailed, Some(*node), &what);
            }
            Event::NodeGivenUp { node, why } => {
                warn!(
                    "node {} is given up for this pass: {why}",
                    self.names[*node]
                );
            }
            Event::LocalFailed { error } => error!("{error}"),
            Event::Landed { .. } | Event::WouldFetch { .. } => {}
        }
    }

    fn print(&self, place: &Place<'_>, name: &SegmentName) -> io::Result<()> {
        let end = match self.style.paths {
            Some(Paths::Lines) => '\n',
            Some(Paths::NulTerminated) => '\0',
            None => return Ok(()),
        };
        let path = format!("{place}/{name}{end}");
        self.progress.suspend(|| {
            let mut out = io::stdout().lock();
            out.write_all(path.as_bytes())?;
            out.flush()
        })
    }

    fn warn(&mut self, kind: Kind, node: Option<NodeId>, what: &str) {
        let told = self.told.entry((kind, node)).or_default();
        *told += 1;
        let level = match *told <= TOLD_IN_FULL {
            true => log::Level::Warn,
            false => log::Level::Info,
        };
        log!(level, "{what}");
    }

    pub fn finish(&mut self, tally: &Tally, status: Status, took: Duration) {
        // At -v each of them was told.
        if !log::log_enabled!(log::Level::Info) {
            for ((kind, node), told) in &self.told {
                if *told > TOLD_IN_FULL {
                    let of =
                        node.map_or(String::new(), |node| format!("node {}: ", self.names[node]));
                    let more = HumanCount(told - TOLD_IN_FULL);
                    warn!("{of}{more} more {} (-v shows them)", kind.plural());
                }
            }
        }
        if status == Status::NoNode {
            error!("no node answered");
        }
        if self.style.summary && status != Status::OutputClosed {
            super::log::tell(&self.summary(tally, status, took));
        }
    }

    fn summary(&self, tally: &Tally, status: Status, took: Duration) -> String {
        let mut parts = vec![match self.style.dry_run {
            true => format!("{} would be fetched", count(tally.would_fetch, "segment")),
            false => {
                let nodes = tally.landed_by.iter().filter(|landed| **landed > 0).count() as u64;
                let segments = count(tally.landed, "segment");
                let from = match nodes {
                    0 => String::new(),
                    n => format!(" ({}) from {}", HumanBytes(tally.bytes), count(n, "node")),
                };
                format!("{segments}{from} fetched in {}", seconds(took))
            }
        }];
        let mut add = |n: u64, what: String| {
            if n > 0 {
                parts.push(what);
            }
        };
        add(
            tally.failed,
            format!("{} could not be had", count(tally.failed, "segment")),
        );
        add(
            tally.vanished,
            format!("{} gone meanwhile", count(tally.vanished, "segment")),
        );
        let failed = count(tally.listings_failed, "listing");
        add(tally.listings_failed, format!("{failed} could not be had"));
        let given_up: Vec<&str> = tally
            .given_up
            .iter()
            .map(|node| &*self.names[*node])
            .collect();
        add(
            given_up.len() as u64,
            format!("given up: {}", given_up.join(", ")),
        );
        let outcome = match status {
            Status::Complete => "complete",
            Status::Signal(_) => "interrupted",
            _ => "incomplete",
        };
        format!("{outcome}: {}", parts.join("; "))
    }
}

fn shown(name: Option<&str>) -> &str {
    name.unwrap_or("a name that is no Unicode")
}

fn count(n: u64, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {what}{plural}", HumanCount(n))
}

fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0..60 => format!("{:.1} s", took.as_secs_f64()),
        s @ 60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}
