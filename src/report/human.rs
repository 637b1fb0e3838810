//! The report for a person: messages and a summary line on standard error.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use log::{Level, error, info, log, warn};

use super::map::{instant, length};
use super::{Event, Figures, Measured, Output, Status, Style, Tally};
use crate::plan::Skip;
use crate::schedule::NodeId;
use crate::segment::Medium;

/// The same trouble of one node is told in full once, and of trouble that has a reason of its own
/// each time (a hash, say) so many. The rest is counted.
const REASONS_TOLD: usize = 3;

/// How many characters of a foreign name are shown: more than a good one has.
const SHOWN_OF_A_NAME: usize = 260;

/// A kind of trouble that may come a thousand times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    NoName,
    Future,
    FileFailed,
    FileVanished,
    ListingFailed,
    LocalFailed,
}

impl Kind {
    /// What it is that there are so many more of.
    fn more(self, n: u64) -> String {
        let (one, many) = match self {
            Kind::NoName => ("name that no archive has", "names that no archive has"),
            Kind::Future => {
                ("hour with segments from the future", "hours with segments from the future")
            }
            Kind::FileFailed => ("file that could not be had", "files that could not be had"),
            Kind::FileVanished => (
                "file that is gone from every node that listed it",
                "files that are gone from every node that listed them",
            ),
            Kind::ListingFailed => {
                ("listing that could not be had", "listings that could not be had")
            }
            Kind::LocalFailed => {
                ("thing that this machine failed at", "things that this machine failed at")
            }
        };
        format!("{} more {}", HumanCount(n), if n == 1 { one } else { many })
    }
}

/// What was told of one kind of trouble.
#[derive(Debug, Default)]
struct Told {
    /// The reasons for which it was told in full.
    reasons: Vec<String>,
    /// How much more of it there was.
    more: u64,
}

#[derive(Debug)]
pub struct Human {
    names: Vec<String>,
    style: Style,
    told: HashMap<(Kind, Option<NodeId>), Told>,
    /// The last reason for some kinds of trouble.
    last: HashMap<Kind, String>,
    given_up: Vec<(NodeId, String)>,
    no_extras: HashSet<NodeId>,
}

impl Human {
    pub fn new(names: Vec<String>, style: Style) -> Human {
        Human {
            names,
            style,
            told: HashMap::new(),
            last: HashMap::new(),
            given_up: Vec::new(),
            no_extras: HashSet::new(),
        }
    }

    pub fn log(&mut self, event: &Event<'_>) {
        match event {
            Event::HoursListed { node, collection, hours, selected, .. } => {
                let node = &self.names[*node];
                let hours = count(*hours as u64, "hour");
                info!("node {node}: {collection}: {hours}, {selected} of them selected");
            }
            Event::Listed { node, what, names, here, wanted, .. } => {
                let node = &self.names[*node];
                let names = count(*names as u64, "name");
                info!("node {node}: {what}: {names}, {here} already here, {wanted} to fetch");
            }
            Event::NoExtras { node } => {
                if self.no_extras.insert(*node) {
                    warn!("node {} is too old to list extra files", self.names[*node]);
                }
            }
            Event::Skipped { node, within, name, why } => {
                let name = name.unwrap_or("a name that is no Unicode");
                // Where the reason stands must not depend on a name of any length.
                let end =
                    name.char_indices().nth(SHOWN_OF_A_NAME).map_or(name.len(), |(end, _)| end);
                let name = &name[..end];
                let what = format!("node {}: {within}/{name} {why}", self.names[*node]);
                match why {
                    Skip::NoName(why) => {
                        self.warn(Kind::NoName, Some(*node), &why.to_string(), &what);
                    }
                    _ => info!("{what}"),
                }
            }
            Event::Landed { node, target, bytes, took, repaired } => {
                let (bytes, took) = (HumanBytes(*bytes), seconds(*took));
                let repaired = if *repaired { ", in the place of a corrupt one" } else { "" };
                info!("node {}: fetched {target} ({bytes} in {took}){repaired}", self.names[*node]);
            }
            Event::Buried { node, target } => {
                info!("node {}: created {target}", self.names[*node]);
            }
            Event::Dropped { target, why } => info!("{target} {why}"),
            Event::TryFailed { node, what, why, .. } => {
                info!("node {}: {what}: {why}", self.names[*node]);
            }
            Event::SendsWrong { node, files } => {
                let (node, files) = (&self.names[*node], count(*files, "file"));
                warn!(
                    "node {node}: sent wrong content for {files} that another node gave (-v tells which)"
                );
            }
            Event::SegmentGone { .. } => {}
            Event::GivesNothing { node, gone } => {
                let (node, segments) = (&self.names[*node], count(*gone, "segment"));
                warn!(
                    "node {node}: has none of the {segments} that it lists (HTTP 404): is it set up right?"
                );
            }
            Event::FileFailed { node, target, why } => {
                let whose = format!("node {}: {why}", self.names[*node]);
                let what = format!("{target} could not be had: {whose}");
                self.last.insert(Kind::FileFailed, whose);
                self.warn(Kind::FileFailed, Some(*node), why, &what);
            }
            Event::FileVanished { target, medium } => {
                let what = format!("{target} is gone from every node that listed it");
                match medium {
                    Medium::Chat => info!("{what}"),
                    Medium::Video => self.warn(Kind::FileVanished, None, "", &what),
                }
            }
            Event::ListingFailed { node, what, why } => {
                let what = format!("node {}: {what}: {why}", self.names[*node]);
                let whose = format!("node {}: {why}", self.names[*node]);
                self.last.insert(Kind::ListingFailed, whose);
                self.warn(Kind::ListingFailed, Some(*node), why, &what);
            }
            Event::NodeGivenUp { node, why } => {
                warn!("node {} is given up for this pass: {why}", self.names[*node]);
                self.given_up.push((*node, why.to_string()));
            }
            Event::Corrupt { target, why } => warn!("{target} is corrupt: {why}"),
            Event::NotRepaired { path } => {
                warn!("{path} is corrupt, and no node could give a good copy: it stays as it is");
            }
            Event::Deleted { place, segments, left, dry_run } => {
                let deleted = if *dry_run { "would delete" } else { "deleted" };
                info!("{deleted} {} of {place} for their age", count(*segments, "segment"));
                if *left > 0 {
                    let files = count(*left, "file");
                    info!("{place} stays: it has {files} in it that are no segments");
                }
            }
            Event::NotDeleted { place, why } => warn!("{place} is not deleted: {why}"),
            Event::FromTheFuture { node, place } => {
                let (id, node) = (*node, &self.names[*node]);
                let what = format!(
                    "node {node}: {place} has segments from the future: is this machine's clock right?"
                );
                self.warn(Kind::Future, Some(id), "", &what);
            }
            Event::LocalFailed { error } => {
                let (why, what) = (error.reason(), error.to_string());
                self.say(Level::Error, Kind::LocalFailed, None, &why, &what);
            }
            Event::WouldLand { .. } => {}
        }
    }

    fn warn(&mut self, kind: Kind, node: Option<NodeId>, why: &str, what: &str) {
        self.say(Level::Warn, kind, node, why, what);
    }

    /// Says what the trouble is, at this level unless the same was said before.
    fn say(&mut self, level: Level, kind: Kind, node: Option<NodeId>, why: &str, what: &str) {
        let told = self.told.entry((kind, node)).or_default();
        if told.reasons.len() < REASONS_TOLD && !told.reasons.iter().any(|reason| reason == why) {
            told.reasons.push(why.to_owned());
            return log!(level, "{what}");
        }
        told.more += 1;
        info!("{what}");
    }

    pub fn finish(&mut self, tally: &Tally, status: Status, figures: &Figures) {
        // At -v each of them was told.
        if !log::log_enabled!(log::Level::Info) {
            for ((kind, node), told) in &self.told {
                if told.more > 0 {
                    let of =
                        node.map_or(String::new(), |node| format!("node {}: ", self.names[node]));
                    warn!("{of}{} (-v shows them)", kind.more(told.more));
                }
            }
        }
        if self.style.fail_on_holes {
            let shown = !matches!(self.style.output, Output::Text { map: false, .. });
            figures.measured.iter().for_each(|measured| warn_of_holes(measured, shown));
        }
        if status == Status::NoNode {
            error!("no node answered as it should: nothing could be listed");
        }
        if self.style.summary && status != Status::OutputClosed {
            super::log::tell(&self.summary(tally, status, figures));
        }
    }

    fn summary(&self, tally: &Tally, status: Status, figures: &Figures) -> String {
        let outcome = match status {
            Status::Complete => "complete",
            Status::Signal(_) => "interrupted",
            _ => "incomplete",
        };
        let file = self.file();
        let mut parts = vec![self.fetched(tally, status, figures.took)];
        let mut add = |n: u64, what: &str, then: &str| {
            if n > 0 {
                parts.push(format!("{}{then}", count(n, what)));
            }
        };
        let (created, deleted) = match self.style.dry_run {
            true => (" would be created", " would be deleted"),
            false => (" created", " deleted"),
        };
        add(tally.tombstones, "tombstone", created);
        add(tally.repaired, &format!("corrupt {file}"), " repaired");
        add(tally.deleted, "old segment", deleted);
        add(tally.near_duplicates, "near duplicate", " skipped");
        let why = |of: Kind| match self.last.get(&of) {
            Some(why) => format!(" ({why})"),
            None => String::new(),
        };
        add(tally.failed, file, &format!(" could not be had{}", why(Kind::FileFailed)));
        add(tally.vanished, file, " gone from the nodes before it could be fetched");
        let lists = format!(" could not be had{}", why(Kind::ListingFailed));
        add(tally.listings_failed, "listing", &lists);
        let corrupt = tally.corrupt - tally.repaired;
        add(corrupt, &format!("corrupt {file}"), " not repaired");
        parts.extend(
            self.given_up
                .iter()
                .map(|(node, why)| format!("node {} was given up ({why})", self.names[*node])),
        );
        parts.extend(figures.measured.iter().filter_map(holes));
        format!("{outcome}: {}", parts.join("; "))
    }

    fn fetched(&self, tally: &Tally, status: Status, took: Duration) -> String {
        let file = self.file();
        if self.style.dry_run {
            return format!("{} would be fetched", count(tally.would_fetch, file));
        }
        if tally.landed == 0 && status == Status::Complete {
            return format!("nothing was missing ({})", seconds(took));
        }
        let nodes = tally.nodes.iter().filter(|node| node.landed > 0).count() as u64;
        let from = match nodes {
            0 => String::new(),
            n => format!(" ({}) from {}", HumanBytes(tally.bytes), count(n, "node")),
        };
        format!("fetched {}{from} in {}", count(tally.landed, file), seconds(took))
    }

    fn file(&self) -> &'static str {
        if self.style.only_segments { "segment" } else { "file" }
    }
}

/// How much of a collection is missing, if anything is.
fn holes(Measured { collection, coverage }: &Measured) -> Option<String> {
    let coverage = coverage.as_ref().filter(|coverage| !coverage.holes.is_empty())?;
    let holes = count(coverage.holes.len() as u64, "hole");
    Some(format!("{collection} has {holes}, {} in all", length(coverage.missing)))
}

fn warn_of_holes(measured: &Measured, shown: bool) {
    if let (Some(told), Some(coverage)) = (holes(measured), &measured.coverage) {
        let longest = coverage.holes.iter().max_by_key(|hole| hole.micros());
        let longest = longest.map(|hole| {
            format!("; the longest is {} from {}", length(hole.micros()), instant(hole.start))
        });
        let hint = if shown { "" } else { " (--coverage shows them)" };
        warn!("{told}{}{hint}", longest.unwrap_or_default());
    }
}

pub fn count(n: u64, what: &str) -> String {
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
