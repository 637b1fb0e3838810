//! Checks what must hold at the end of a simulated pass.

use super::Pass;
use super::world::{NodeWorld, Way, World};
use crate::schedule::{Counts, Item, NodeId, Unit, WouldLand};

/// What became of a recording.
#[derive(Debug)]
struct Outcome {
    recording: usize,
    /// The nodes that have it, and how they send it.
    holders: Vec<(NodeId, Way)>,
    /// How often it landed, and was reported as missing or as vanished.
    landed: usize,
    missing: usize,
    vanished: usize,
    was_deleted: bool,
}

impl Pass<'_> {
    /// Checks that each file that would land was reported once, with exactly the nodes that list
    /// it.
    pub fn note_would_land(&mut self, unit: Unit, file: &WouldLand) {
        let recording = World::recording_of(&file.item);
        *self.reported.entry(recording).or_default() += 1;
        assert!(!file.holders.is_empty());
        for node in file.holders.iter() {
            assert!(self.world.nodes[node].has.contains_key(&recording));
            let (its_unit, name) = self.world.name(recording, node);
            assert_eq!((its_unit, Item::Segment(name)), (unit, file.item.clone()));
        }
    }

    pub fn check(&mut self) {
        self.note_verdicts();
        let Counts { wanted, settled, to_list, .. } = self.scheduler.counts();
        assert_eq!((settled, to_list), (wanted, 0));
        for recording in 0..self.world.starts.len() {
            let outcome = self.outcome_of(recording);
            self.check_that_all_is_reported(&outcome);
            if self.has_room() {
                self.check_that_it_is_fetched(&outcome);
                self.check_that_it_is_reported_once(&outcome);
                self.check_the_reason(&outcome);
            }
        }
    }

    /// Whether no listing had to wait for room. Otherwise less can be said of the outcome.
    fn has_room(&self) -> bool {
        self.world.max_files == 1000
    }

    fn outcome_of(&self, recording: usize) -> Outcome {
        let nodes = self.world.nodes.iter().enumerate();
        let holders = nodes.filter_map(|(id, node)| Some((id, *node.has.get(&recording)?)));
        let count = |files: &[usize]| files.iter().filter(|file| **file == recording).count();
        Outcome {
            recording,
            holders: holders.collect(),
            landed: self.landed.get(&recording).copied().unwrap_or_default(),
            missing: count(&self.missing),
            vanished: count(&self.vanished),
            was_deleted: self.deleted.contains(&recording),
        }
    }

    /// Nothing that a node lists is passed over, and nothing that no node has is reported.
    fn check_that_all_is_reported(&self, outcome: &Outcome) {
        let Outcome { recording, landed, missing, vanished, .. } = outcome;
        if outcome.holders.is_empty() {
            assert_eq!(landed + missing + vanished, 0, "{outcome:?}");
        }
        if self.listed.contains(recording) && *landed == 0 && !outcome.was_deleted {
            // A unit without room had to be listed again, and then could not be.
            let undone = self.scheduler.undone(|_| true);
            let is_unlisted = !self.has_room() && undone.given_up + undone.unlisted > 0;
            assert!(missing + vanished > 0 || is_unlisted, "{outcome:?}");
        }
    }

    fn check_that_it_is_reported_once(&self, outcome: &Outcome) {
        let Outcome { recording, landed, missing, vanished, was_deleted, .. } = outcome;
        if self.world.dry_run {
            let reported = self.reported.get(recording).copied().unwrap_or_default();
            let is_right = reported == usize::from(*landed > 0) || *was_deleted && reported == 0;
            assert!(is_right, "reported {reported}: {outcome:?}");
        }
        if !was_deleted {
            assert!(missing + vanished <= 1, "{outcome:?}");
            assert!(*landed == 0 || missing + vanished == 0, "{outcome:?}");
        }
        if !self.world.hedges && !self.was_ever_given_up {
            assert!(*landed <= 1, "fetched twice: {outcome:?}");
        }
    }

    fn check_that_it_is_fetched(&self, outcome: &Outcome) {
        let is_deleted = |node: &NodeWorld| node.deleted.contains(&outcome.recording);
        let is_available = outcome.holders.iter().any(|(id, way)| {
            let is_listed = !self.world.nodes[*id].later.contains(&outcome.recording);
            let is_never_silent = self.world.nodes[*id].silences.is_empty();
            let gives = matches!(way, Way::Well | Way::Cut(_));
            gives && is_listed && is_never_silent && !self.given_up.contains(id)
        });
        if is_available && !self.world.nodes.iter().any(is_deleted) {
            assert!(outcome.landed > 0, "{outcome:?}");
        }
    }

    /// A withheld file counts as a failure; a vanished one doesn't.
    fn check_the_reason(&self, outcome: &Outcome) {
        let is_listed = self.listed.contains(&outcome.recording);
        if outcome.landed > 0 || outcome.was_deleted || !is_listed {
            return;
        }
        let is_later =
            |(id, _): &(NodeId, Way)| self.world.nodes[*id].later.contains(&outcome.recording);
        let undone = self.scheduler.undone(|_| true);
        let could_all_be_asked = undone.given_up + undone.unlisted == 0;
        let mut ways = outcome.holders.iter().map(|(_, way)| *way);
        if ways.clone().all(|way| way == Way::Vanished) && could_all_be_asked {
            assert_eq!((outcome.missing, outcome.vanished), (0, 1), "{outcome:?}");
        }
        let is_withheld = ways.any(|way| way == Way::Withheld);
        if is_withheld && !self.was_ever_given_up && !outcome.holders.iter().any(is_later) {
            assert_eq!((outcome.missing, outcome.vanished), (1, 0), "{outcome:?}");
        }
    }
}
