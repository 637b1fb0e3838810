//! The report for people: messages and a summary line on standard error.

mod said;
mod summary;
mod troubles;

use std::collections::{HashMap, HashSet};

use log::{error, info, warn};

use super::event::Event;
use super::figures::{Figures, Measured};
use super::status::Status;
use super::style::{Output, Style};
use super::words::{self, instant, length};
use crate::schedule::NodeId;

use summary::holes;
use troubles::{Kind, Troubles};

/// Prints messages about events, and keeps of them what the summary line says.
#[derive(Debug)]
pub struct Human {
    names: Vec<String>,
    /// Which nodes are optional: their failures are not warnings.
    optional: Vec<bool>,
    style: Style,
    troubles: Troubles,
    /// The last reason for each kind of trouble that the summary explains.
    last: HashMap<Kind, String>,
    /// The nodes that are given up, with the reason.
    given_up: Vec<(NodeId, String)>,
    /// The nodes that are too old to list extra files.
    no_extras: HashSet<NodeId>,
}

impl Human {
    /// For a pass over the nodes with these names; `optional` says which are optional.
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

    /// Prints what there is to say about an event.
    pub fn log(&mut self, event: &Event<'_>) {
        match event {
            Event::Waiting { pause } => said::waiting(*pause),
            Event::HoursListed { node, collection, hours, selected, .. } => {
                said::hours_listed(self.name(*node), collection, *hours, *selected);
            }
            Event::Listed { node, directory, names, here, wanted, .. } => {
                said::listed(self.name(*node), directory, *names, *here, *wanted);
            }
            Event::NoExtras { node } => self.no_extras(*node),
            Event::Skipped { node, directory, name, why } => {
                self.skipped(*node, directory, *name, why);
            }
            Event::Landed { node, target, bytes, took, repaired } => {
                said::landed(self.name(*node), target, *bytes, *took, *repaired);
            }
            Event::TombstoneCreated { node, target } => {
                info!("node {}: created {target}", self.name(*node));
            }
            Event::Hidden { node, target } => self.hidden(*node, target),
            Event::Removed { node, target } => {
                info!("node {}: removed {target} again: it has a tombstone", self.name(*node));
            }
            Event::WouldLand { target, repairs: true, .. } => {
                info!("{target} would be fetched, replacing a corrupt one");
            }
            Event::WouldLand { .. } => {}
            Event::Dropped { target, why } => info!("{target} {why}"),
            Event::TryFailed { node, request, error, .. } => {
                info!("node {}: {}: {error}", self.name(*node), words::request(request));
            }
            Event::SendsWrong { node, files } => said::sends_wrong(self.name(*node), *files),
            Event::GivesNothing { node, gone } => said::gives_nothing(self.name(*node), *gone),
            Event::FileFailed { target, loss, excused } => self.file_failed(target, loss, *excused),
            Event::NotFound { text, why, line, .. } => self.not_found(text, why, line),
            Event::FileVanished { target } => self.file_vanished(target),
            Event::ListingFailed { node, directory, error } => {
                self.listing_failed(*node, directory, error);
            }
            Event::NodeGivenUp { node, why } => self.node_given_up(*node, why),
            Event::NodeBack { node } => self.node_back(*node),
            Event::Corrupt { target, damage } => {
                warn!("{target} is corrupt: {}", words::damage(damage));
            }
            Event::NotRepaired { target } => said::not_repaired(target, self.style.without_nodes),
            Event::Deleted { place, segments, left, dry_run } => {
                said::deleted(place, *segments, *left, *dry_run);
            }
            Event::NotDeleted { place, why } => said::not_deleted(*place, why),
            Event::FromTheFuture { node, place } => self.in_the_future(*node, place),
            Event::LocalFailed { error } => self.local_failed(error),
        }
    }

    fn name(&self, node: NodeId) -> &str {
        &self.names[node]
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
