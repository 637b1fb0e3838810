//! The report for people: messages and a summary line on standard error.

mod summary;
mod troubles;

use std::collections::{HashMap, HashSet};

use indicatif::{HumanBytes, HumanCount};
use log::{Level, error, info, log, warn};

use super::event::Event;
use super::figures::{Figures, Measured};
use super::status::Status;
use super::style::{Output, Style};
use super::words::{self, count, instant, length};
use crate::numbers;
use crate::plan::Skip;
use crate::retention::Refusal;
use crate::schedule::NodeId;
use crate::segment::{Medium, is_unprintable};
use crate::target::Target;

use summary::holes;
use troubles::{Kind, Troubles};

/// How many characters of a listed name are shown. Valid names are shorter.
const SHOWN_OF_A_NAME: usize = 260;

#[derive(Debug)]
pub struct Human {
    names: Vec<String>,
    /// Which nodes are optional: their failures are not warnings.
    optional: Vec<bool>,
    style: Style,
    troubles: Troubles,
    /// The last reason for each kind of trouble that the summary explains.
    last: HashMap<Kind, String>,
    given_up: Vec<(NodeId, String)>,
    no_extras: HashSet<NodeId>,
}

impl Human {
    pub fn new(names: Vec<String>, optional: Vec<bool>, style: Style) -> Human {
        Human {
            names,
            optional,
            style,
            troubles: Troubles::default(),
            last: HashMap::new(),
            given_up: Vec::new(),
            no_extras: HashSet::new(),
        }
    }

    pub fn log(&mut self, event: &Event<'_>) {
        match event {
            Event::Waiting { pause } => {
                info!("waiting for {} before the pass begins (--jitter)", numbers::took(*pause));
            }
            Event::HoursListed { node, collection, hours, selected, .. } => {
                let node = &self.names[*node];
                let hours = count(*hours as u64, "hour");
                let selected = HumanCount(*selected as u64);
                info!("node {node}: {collection}: {hours}, {selected} of them selected");
            }
            Event::Listed { node, directory, names, here, wanted, .. } => {
                let node = &self.names[*node];
                let names = count(*names as u64, "name");
                let (here, wanted) = (HumanCount(*here as u64), HumanCount(*wanted as u64));
                info!("node {node}: {directory}: {names}, {here} already here, {wanted} to fetch");
            }
            Event::NoExtras { node } => {
                if self.no_extras.insert(*node) {
                    warn!("node {} is too old to list extra files", self.names[*node]);
                }
            }
            Event::Skipped { node, directory, name, why } => {
                // Foreign files are common in archives, so cron should not mail them in each pass.
                let is_foreign = name.is_some_and(|name| {
                    directory.path_of(name).is_some() && !name.contains(is_unprintable)
                });
                let name = name.unwrap_or("a name that is not Unicode");
                // A very long name must not push the reason out of the message.
                let end =
                    name.char_indices().nth(SHOWN_OF_A_NAME).map_or(name.len(), |(end, _)| end);
                let name = &name[..end];
                let what = format!("node {}: {directory}/{name} {why}", self.names[*node]);
                match why {
                    Skip::Invalid(_) if is_foreign && !self.style.on_terminal => info!("{what}"),
                    Skip::Invalid(why) => {
                        self.warn(Kind::NoName, Some(*node), &why.to_string(), &what);
                    }
                    _ => info!("{what}"),
                }
            }
            Event::Landed { node, target, bytes, took, repaired } => {
                let (bytes, took) = (HumanBytes(*bytes), numbers::took(*took));
                let repaired = if *repaired { ", replacing a corrupt one" } else { "" };
                info!("node {}: fetched {target} ({bytes} in {took}){repaired}", self.names[*node]);
            }
            Event::TombstoneCreated { node, target } => {
                info!("node {}: created {target}", self.names[*node]);
            }
            Event::Hidden { node, target } => {
                let (id, node) = (*node, &self.names[*node]);
                let hides = if self.style.dry_run { "would hide" } else { "hides" };
                let what = format!(
                    "node {node}: lists a tombstone for {target}, which {hides} the segment here"
                );
                self.warn(Kind::Hidden, Some(id), "", &what);
            }
            Event::Removed { node, target } => {
                let node = &self.names[*node];
                info!("node {node}: removed {target} again: it has a tombstone");
            }
            Event::Dropped { target, why } => info!("{target} {why}"),
            Event::TryFailed { node, request, error, .. } => {
                info!("node {}: {}: {error}", self.names[*node], words::request(request));
            }
            Event::SendsWrong { node, files } => {
                let (node, files) = (&self.names[*node], count(*files, "file"));
                warn!(
                    "node {node}: sent wrong content for {files} that another node provided \
                     (-v lists them)"
                );
            }
            Event::GivesNothing { node, gone } => {
                let (node, segments) = (&self.names[*node], count(*gone, "segment"));
                warn!(
                    "node {node}: provided none of the {segments} that it listed; check its setup"
                );
            }
            Event::FileFailed { target, loss, excused } => {
                let (node, why) = words::loss(loss);
                let whose = format!("node {}: {why}", self.names[node]);
                let what = format!("{target} could not be fetched: {whose}");
                if *excused {
                    // It counts after all if the node comes back.
                    self.last.entry(Kind::FileFailed).or_insert(whose);
                    return info!("{what}");
                }
                self.last.insert(Kind::FileFailed, whose);
                self.warn(Kind::FileFailed, Some(node), &why, &what);
            }
            Event::NotFound { text, why, line, .. } => {
                let what = format!("{line}: {text} was not fetched: {why}");
                self.last.insert(Kind::FileFailed, (*why).to_owned());
                self.warn(Kind::FileFailed, None, line, &what);
            }
            Event::FileVanished { target } => {
                let what = format!("{target} is gone from every node that listed it");
                // Chat files are renamed all the time.
                match target {
                    Target::Segment(_, name) if name.medium() == Medium::Chat => info!("{what}"),
                    _ => self.warn(Kind::FileVanished, None, "", &what),
                }
            }
            Event::ListingFailed { node, directory, error } => {
                let whose = format!("node {}: {error}", self.names[*node]);
                let listing = words::listing(directory);
                let what = format!("node {}: {listing}: {error}", self.names[*node]);
                if self.optional[*node] && !error.answered {
                    self.last.entry(Kind::ListingFailed).or_insert(whose);
                    return info!("{what}");
                }
                self.last.insert(Kind::ListingFailed, whose);
                self.warn(Kind::ListingFailed, Some(*node), &error.to_string(), &what);
            }
            Event::NodeGivenUp { node, why } => {
                let why = words::given_up(why);
                log!(self.level_of(*node), "node {} is given up: {why}", self.names[*node]);
                self.given_up.push((*node, why));
            }
            Event::NodeBack { node } => {
                log!(self.level_of(*node), "node {} answers again", self.names[*node]);
                self.given_up.retain(|(id, _)| id != node);
            }
            Event::Corrupt { target, damage } => {
                warn!("{target} is corrupt: {}", words::damage(damage));
            }
            Event::NotRepaired { target } => {
                let why = if self.style.without_nodes {
                    "no node was asked for a good copy"
                } else {
                    "no node could provide a good copy"
                };
                warn!("{target} is corrupt, and {why}; it was left as it is");
            }
            Event::Deleted { place, segments, left, dry_run } => {
                let deleted = if *dry_run { "would delete" } else { "deleted" };
                info!("{deleted} {} of {place} because of their age", count(*segments, "segment"));
                if *left > 0 {
                    let files = count(*left, "file");
                    info!("{place} stays, with {files} other than segments");
                }
            }
            Event::NotDeleted { place: Some(place), why } => {
                warn!("{place} was not deleted: {}", words::refusal(why));
            }
            Event::NotDeleted { place: None, why } => {
                let what = format!("no old hours were deleted: {}", words::refusal(why));
                match why {
                    Refusal::ClockOff(_) => warn!("{what}"),
                    // The other reasons were reported when they occurred.
                    _ => info!("{what}"),
                }
            }
            Event::FromTheFuture { node, place } => {
                let (id, node) = (*node, &self.names[*node]);
                let what = format!(
                    "node {node}: {place} has segments from the future; check this machine's clock"
                );
                self.warn(Kind::Future, Some(id), "", &what);
            }
            Event::LocalFailed { error } => {
                let (why, what) = (error.reason(), error.to_string());
                self.troubles.print(Level::Error, Kind::LocalFailed, None, &why, &what);
                self.last.insert(Kind::LocalFailed, what);
            }
            Event::WouldLand { target, repairs: true, .. } => {
                info!("{target} would be fetched, replacing a corrupt one");
            }
            Event::WouldLand { .. } => {}
        }
    }

    /// How serious it is if this node is given up.
    fn level_of(&self, node: NodeId) -> Level {
        if self.optional[node] { Level::Info } else { Level::Warn }
    }

    fn warn(&mut self, kind: Kind, node: Option<NodeId>, why: &str, what: &str) {
        self.troubles.print(Level::Warn, kind, node, why, what);
    }

    /// Prints the messages that belong at the end of a pass.
    pub fn conclude(&self, status: Status, figures: &Figures) {
        // With -v, every single one was shown.
        if !log::log_enabled!(log::Level::Info) {
            for (node, more) in self.troubles.more() {
                let of = node.map_or(String::new(), |node| format!("node {}: ", self.names[node]));
                warn!("{of}{more} (-v shows them)");
            }
        }
        if self.style.fail_on_holes {
            let shown = !matches!(self.style.output, Output::Text { map: false, .. });
            figures.measured.iter().for_each(|measured| warn_of_holes(measured, shown));
        }
        if status == Status::NoNode {
            error!("no node answered: nothing could be listed");
        }
    }
}

fn warn_of_holes(measured: &Measured, shown: bool) {
    if let (Some(holes), Some(coverage)) = (holes(measured), &measured.coverage) {
        let longest = coverage.holes.iter().max_by_key(|hole| hole.micros());
        let longest = longest.map(|hole| {
            format!("; the longest is {} from {}", length(hole.micros()), instant(hole.start))
        });
        let hint = if shown { "" } else { " (--coverage shows them)" };
        warn!("{holes}{}{hint}", longest.unwrap_or_default());
    }
}
