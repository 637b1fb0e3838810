//! The messages about single events that need more than a line of code.

use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use log::{Level, info, log, warn};

use super::Human;
use super::troubles::Kind;
use crate::durations;
use crate::error::LocalError;
use crate::node::NodeError;
use crate::plan::Skip;
use crate::report::words::{self, count};
use crate::retention::Refusal;
use crate::schedule::{GivenUp, Loss, NodeId};
use crate::segment::{Collection, Medium, is_unprintable};
use crate::target::{Directory, Place, Target};

/// How many characters of a listed name are shown. Valid names are shorter.
const SHOWN_OF_A_NAME: usize = 260;

pub(super) fn waiting(pause: Duration) {
    info!("waiting for {} before the pass begins (--jitter)", durations::took(pause));
}

pub(super) fn hours_listed(node: &str, collection: &Collection, hours: usize, selected: usize) {
    let hours = count(hours as u64, "hour");
    let selected = HumanCount(selected as u64);
    info!("node {node}: {collection}: {hours}, {selected} of them selected");
}

pub(super) fn listed(node: &str, directory: &Directory, names: usize, here: usize, wanted: usize) {
    let names = count(names as u64, "name");
    let (here, wanted) = (HumanCount(here as u64), HumanCount(wanted as u64));
    info!("node {node}: {directory}: {names}, {here} already here, {wanted} to fetch");
}

pub(super) fn landed(node: &str, target: &Target, bytes: u64, took: Duration, repaired: bool) {
    let (bytes, took) = (HumanBytes(bytes), durations::took(took));
    let repaired = if repaired { ", replacing a corrupt one" } else { "" };
    info!("node {node}: fetched {target} ({bytes} in {took}){repaired}");
}

pub(super) fn sends_wrong(node: &str, files: u64) {
    let files = count(files, "file");
    warn!("node {node}: sent wrong content for {files} that another node provided (-v lists them)");
}

pub(super) fn gives_nothing(node: &str, gone: u64) {
    let segments = count(gone, "segment");
    warn!("node {node}: provided none of the {segments} that it listed; check its setup");
}

pub(super) fn not_repaired(target: &Target, without_nodes: bool) {
    let why = if without_nodes {
        "no node was asked for a good copy"
    } else {
        "no node could provide a good copy"
    };
    warn!("{target} is corrupt, and {why}; it was left as it is");
}

pub(super) fn deleted(place: &Place, segments: u64, left: u64, dry_run: bool) {
    let deleted = if dry_run { "would delete" } else { "deleted" };
    info!("{deleted} {} of {place} because of their age", count(segments, "segment"));
    if left > 0 {
        info!("{place} stays, with {} other than segments", count(left, "file"));
    }
}

pub(super) fn not_deleted(place: Option<&Place>, why: &Refusal) {
    let reason = words::refusal(why);
    match (place, why) {
        (Some(place), _) => warn!("{place} was not deleted: {reason}"),
        (None, Refusal::ClockOff(_)) => warn!("no old hours were deleted: {reason}"),
        // The other reasons were reported when they occurred.
        (None, _) => info!("no old hours were deleted: {reason}"),
    }
}

/// The messages on which later ones depend: a few of each kind are printed, and the summary line
/// explains itself by the last.
impl Human {
    pub(super) fn no_extras(&mut self, node: NodeId) {
        if self.no_extras.insert(node) {
            warn!("node {} is too old to list extra files", self.name(node));
        }
    }

    pub(super) fn skipped(
        &mut self,
        node: NodeId,
        directory: &Directory,
        name: Option<&str>,
        why: &Skip,
    ) {
        // Foreign files are common in archives, so cron should not mail them in each pass.
        let is_foreign =
            |name: &str| directory.path_of(name).is_some() && !name.contains(is_unprintable);
        let shown = name.unwrap_or("a name that is not Unicode");
        // A very long name must not push the reason out of the message.
        let end = shown.char_indices().nth(SHOWN_OF_A_NAME).map_or(shown.len(), |(end, _)| end);
        let what = format!("node {}: {directory}/{} {why}", self.name(node), &shown[..end]);
        match why {
            Skip::Invalid(why) if self.style.on_terminal || !name.is_some_and(is_foreign) => {
                self.warn(Kind::NoName, Some(node), &why.to_string(), &what);
            }
            _ => info!("{what}"),
        }
    }

    pub(super) fn hidden(&mut self, node: NodeId, target: &Target) {
        let hides = if self.style.dry_run { "would hide" } else { "hides" };
        let what = format!(
            "node {}: lists a tombstone for {target}, which {hides} the segment here",
            self.name(node)
        );
        self.warn(Kind::Hidden, Some(node), "", &what);
    }

    pub(super) fn file_failed(&mut self, target: &Target, loss: &Loss, excused: bool) {
        let (node, why) = words::loss(loss);
        let whose = format!("node {}: {why}", self.name(node));
        let what = format!("{target} could not be fetched: {whose}");
        if excused {
            // It counts after all if the node comes back.
            self.last.entry(Kind::FileFailed).or_insert(whose);
            return info!("{what}");
        }
        self.last.insert(Kind::FileFailed, whose);
        self.warn(Kind::FileFailed, Some(node), &why, &what);
    }

    pub(super) fn not_found(&mut self, text: &str, why: &str, line: &str) {
        self.last.insert(Kind::FileFailed, why.to_owned());
        let what = format!("{line}: {text} was not fetched: {why}");
        self.warn(Kind::FileFailed, None, line, &what);
    }

    pub(super) fn file_vanished(&mut self, target: &Target) {
        let what = format!("{target} is gone from every node that listed it");
        match target {
            // Chat files are renamed all the time.
            Target::Segment(_, name) if name.medium() == Medium::Chat => info!("{what}"),
            _ => self.warn(Kind::FileVanished, None, "", &what),
        }
    }

    pub(super) fn listing_failed(
        &mut self,
        node: NodeId,
        directory: &Directory,
        error: &NodeError,
    ) {
        let name = self.name(node);
        let whose = format!("node {name}: {error}");
        let what = format!("node {name}: {}: {error}", words::listing(directory));
        if self.optional[node] && !error.answered {
            self.last.entry(Kind::ListingFailed).or_insert(whose);
            return info!("{what}");
        }
        self.last.insert(Kind::ListingFailed, whose);
        self.warn(Kind::ListingFailed, Some(node), &error.to_string(), &what);
    }

    pub(super) fn node_given_up(&mut self, node: NodeId, why: &GivenUp) {
        let why = words::given_up(why);
        log!(self.level_of(node), "node {} is given up: {why}", self.name(node));
        self.given_up.push((node, why));
    }

    pub(super) fn node_back(&mut self, node: NodeId) {
        log!(self.level_of(node), "node {} answers again", self.name(node));
        self.given_up.retain(|(id, _)| *id != node);
    }

    pub(super) fn in_the_future(&mut self, node: NodeId, place: &Place) {
        let what = format!(
            "node {}: {place} has segments from the future; check this machine's clock",
            self.name(node)
        );
        self.warn(Kind::Future, Some(node), "", &what);
    }

    pub(super) fn local_failed(&mut self, error: &LocalError) {
        let (why, what) = (error.reason(), error.to_string());
        self.troubles.print(Level::Error, Kind::LocalFailed, None, &why, &what);
        self.last.insert(Kind::LocalFailed, what);
    }

    /// How serious it is if this node is given up.
    fn level_of(&self, node: NodeId) -> Level {
        if self.optional[node] { Level::Info } else { Level::Warn }
    }

    fn warn(&mut self, kind: Kind, node: Option<NodeId>, why: &str, what: &str) {
        self.troubles.print(Level::Warn, kind, node, why, what);
    }
}
