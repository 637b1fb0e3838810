//! Counts events, for readers. The exit status does not depend on these counts, but on what is left
//! undone at the end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::event::{Event, Request};
use crate::error::OutOfRoom;
use crate::node::Trouble;
use crate::plan::Skip;
use crate::schedule::NodeId;
use crate::segment::{Medium, SegmentHash};
use crate::target::{Check, Target};

/// The counts of a whole pass.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Files fetched.
    pub landed: u64,
    /// Their size.
    pub bytes: u64,
    /// The counts of each node.
    pub nodes: Vec<NodeTally>,
    /// Tombstones created; in a dry run, those that would be.
    pub tombstones: u64,
    /// Segments that were here before and are hidden by new tombstones.
    pub hidden: u64,
    /// Segments that were fetched, and removed again because of their tombstones.
    pub removed: u64,
    /// In a dry run, files that would be fetched.
    pub would_fetch: u64,
    /// The total size of those whose size is known.
    pub would_fetch_bytes: u64,
    /// How many those are.
    pub sizes_known: u64,
    /// How many would replace a corrupt segment.
    pub would_repair: u64,
    /// Names that were skipped because another name of the same recording is here or wanted.
    pub near_duplicates: u64,
    /// Files that no node could provide.
    pub failed: u64,
    /// Files that every node had deleted or renamed by the time they were to be fetched.
    pub vanished: u64,
    /// Listings that failed after all retries.
    pub listings_failed: u64,
    /// Corrupt segments found.
    pub corrupt: u64,
    /// Corrupt segments replaced by good ones.
    pub repaired: u64,
    /// Segments deleted because of their age.
    pub deleted: u64,
    /// Old hours that were not deleted; 1 if no deletion was attempted.
    pub not_deleted: u64,
    /// Whether no deletion was attempted.
    pub nothing_deleted: bool,
    /// Counts of `not_deleted`, by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Failures of this machine.
    pub local_failures: u64,
    /// The space on the archive's disk, if a lack of it ended the pass (`--min-free`).
    pub out_of_room: Option<OutOfRoom>,
    /// The nodes that sent wrong content, by file, for files that are not settled yet.
    wrong: HashMap<SegmentHash, Vec<NodeId>>,
}

/// The counts of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeTally {
    /// Files that it provided.
    pub landed: u64,
    /// Their size.
    pub bytes: u64,
    /// Failed requests, except those for files that were gone.
    pub errors: u64,
    /// Video segments that it lists but answers 404 for.
    pub gone: u64,
    /// Files for which it sent wrong content, and another node the right content.
    pub wrong: u64,
    /// Whether it was given up and has not come back.
    pub given_up: bool,
    /// The total duration of its listings.
    pub listing: Duration,
    /// The total duration of fetches from it.
    pub fetching: Duration,
}

impl Tally {
    /// Zero counts, for this many nodes.
    pub fn new(nodes: usize) -> Tally {
        Tally { nodes: vec![NodeTally::default(); nodes], ..Tally::default() }
    }

    /// Counts an event.
    pub fn count(&mut self, event: &Event<'_>) {
        match event {
            Event::HoursListed { node, took, .. } | Event::Listed { node, took, .. } => {
                self.nodes[*node].listing += *took;
            }
            Event::Landed { node, target, bytes, repaired, took } => {
                self.repaired += u64::from(*repaired);
                self.count_landed(*node, target, *bytes, *took);
            }
            Event::TombstoneCreated { .. }
            | Event::WouldLand { target: Target::Tombstone(..), .. } => {
                self.tombstones += 1;
            }
            Event::Hidden { .. } => self.hidden += 1,
            Event::Removed { .. } => self.removed += 1,
            Event::WouldLand { bytes, repairs, .. } => {
                self.would_fetch_bytes += bytes.unwrap_or(0);
                self.sizes_known += u64::from(bytes.is_some());
                self.would_fetch += 1;
                self.would_repair += u64::from(*repairs);
            }
            Event::Skipped { why, .. } => self.count_near_duplicate(why),
            Event::Dropped { target, why } => {
                self.count_near_duplicate(why);
                self.settle(target);
            }
            Event::TryFailed { node, request, error, took } => {
                self.count_try(*node, request, error.trouble, *took);
            }
            Event::FileFailed { target, .. } => {
                self.failed += 1;
                self.settle(target);
            }
            Event::NotFound { .. } => self.failed += 1,
            Event::FileVanished { target } => {
                self.vanished += 1;
                self.settle(target);
            }
            Event::ListingFailed { .. } => self.listings_failed += 1,
            Event::NodeGivenUp { node, .. } => self.nodes[*node].given_up = true,
            Event::NodeBack { node } => self.nodes[*node].given_up = false,
            Event::Corrupt { .. } => self.corrupt += 1,
            Event::Deleted { segments, .. } => self.deleted += segments,
            Event::NotDeleted { place, why } => {
                self.not_deleted += 1;
                *self.refusals.entry(why.name()).or_default() += 1;
                self.nothing_deleted |= place.is_none();
            }
            Event::LocalFailed { error } => {
                self.local_failures += 1;
                self.out_of_room = error.out_of_room().copied().or(self.out_of_room);
            }
            Event::Waiting { .. }
            | Event::NoExtras { .. }
            | Event::GivesNothing { .. }
            | Event::SendsWrong { .. }
            | Event::NotRepaired { .. }
            | Event::FromTheFuture { .. } => {}
        }
    }

    fn count_landed(&mut self, id: NodeId, target: &Target, bytes: u64, took: Duration) {
        self.landed += 1;
        self.bytes += bytes;
        for liar in self.settle(target).into_iter().filter(|liar| *liar != id) {
            self.nodes[liar].wrong += 1;
        }
        let node = &mut self.nodes[id];
        node.landed += 1;
        node.bytes += bytes;
        node.fetching += took;
    }

    fn count_near_duplicate(&mut self, why: &Skip) {
        self.near_duplicates += u64::from(matches!(why, Skip::NearDuplicate(_)));
    }

    fn count_try(&mut self, id: NodeId, request: &Request<'_>, trouble: Trouble, took: Duration) {
        let node = &mut self.nodes[id];
        node.errors += u64::from(trouble != Trouble::Gone);
        let Request::Fetch(target) = request else {
            node.listing += took;
            return;
        };
        node.fetching += took;
        match (trouble, target) {
            (Trouble::Gone, Target::Segment(_, name)) if name.medium() == Medium::Video => {
                node.gone += 1;
            }
            (Trouble::Corrupt, _) => {
                if let Check::Hash(hash) = target.check() {
                    let liars = self.wrong.entry(hash).or_default();
                    if !liars.contains(&id) {
                        liars.push(id);
                    }
                }
            }
            _ => {}
        }
    }

    /// Notes that a file is settled. Returns the nodes that sent wrong content for it.
    fn settle(&mut self, target: &Target) -> Vec<NodeId> {
        match target.check() {
            Check::Hash(hash) => self.wrong.remove(&hash).unwrap_or_default(),
            Check::Length => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeError;
    use crate::schedule::Loss;
    use crate::segment::{Collection, SegmentName};

    fn target(byte: u8) -> Target {
        let name = format!("00:00.0-2.0-full-{}.ts", SegmentHash([byte; 32]));
        let name = SegmentName::parse(&name, Medium::Video).unwrap();
        let collection = Collection { stream: "s".parse().unwrap(), variant: "v".parse().unwrap() };
        Target::segment(&collection, "2018-11-10T05".parse().unwrap(), &name)
    }

    fn wrong(tally: &mut Tally, node: NodeId, target: &Target) {
        let error = &NodeError::new(Trouble::Corrupt, "wrong");
        let request = Request::Fetch(target);
        tally.count(&Event::TryFailed { node, request, error, took: Duration::ZERO });
    }

    #[test]
    fn wrong_content_counts_only_if_another_node_has_it_right() {
        let mut tally = Tally::new(3);
        let [landed, lost, dropped] = [1, 2, 3].map(target);
        for file in [&landed, &lost, &dropped] {
            wrong(&mut tally, 0, file);
            wrong(&mut tally, 1, file);
        }
        wrong(&mut tally, 1, &landed);
        // Its second attempt is the one that lands.
        wrong(&mut tally, 2, &landed);
        let (took, repaired) = (Duration::ZERO, false);
        tally.count(&Event::Landed { node: 2, target: &landed, bytes: 1, took, repaired });
        let loss = &Loss::Failed(1, NodeError::new(Trouble::Corrupt, "wrong"));
        tally.count(&Event::FileFailed { target: &lost, loss, excused: false });
        tally.count(&Event::Dropped { target: &dropped, why: &Skip::Here });
        assert_eq!(tally.nodes.iter().map(|node| node.wrong).collect::<Vec<_>>(), [1, 1, 0]);
        assert!(tally.wrong.is_empty());
    }

    #[test]
    fn a_node_that_comes_back_is_not_given_up() {
        let mut tally = Tally::new(1);
        let error = NodeError::new(Trouble::Silent, "timed out");
        let why = &crate::schedule::GivenUp::Failed(error);
        tally.count(&Event::NodeGivenUp { node: 0, why });
        assert!(tally.nodes[0].given_up);
        tally.count(&Event::NodeBack { node: 0 });
        assert!(!tally.nodes[0].given_up);
    }
}
