//! Checks what must hold at the end of a simulated pass.

use super::Pass;
use super::world::{NodeWorld, Way, World};
use crate::schedule::{Counts, Item, Unit, WouldLand};

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
        let is_strict = self.world.max_files == 1000;
        for recording in 0..self.world.starts.len() {
            let landed = self.landed.get(&recording).copied().unwrap_or_default();
            let missing = self.missing.iter().filter(|lost| **lost == recording).count();
            let vanished = self.vanished.iter().filter(|lost| **lost == recording).count();
            let was_deleted = self.deleted.contains(&recording);
            let holders = self.world.nodes.iter().enumerate();
            let holders = holders.filter_map(|(id, node)| Some((id, *node.has.get(&recording)?)));
            let holders: Vec<_> = holders.collect();
            let about = format!("{recording}: {holders:?}, landed {landed}, missing {missing}");
            if self.world.dry_run && is_strict {
                let reported = self.reported.get(&recording).copied().unwrap_or_default();
                let expected = usize::from(landed > 0);
                let is_right = reported == expected || was_deleted && reported == 0;
                assert!(is_right, "reported {reported}: {about}");
            }
            if is_strict && !was_deleted {
                // Reported once, and correctly.
                assert!(missing + vanished <= 1, "{about}");
                assert!(landed == 0 || missing + vanished == 0, "{about}");
            }
            if holders.is_empty() {
                assert_eq!(landed + missing + vanished, 0, "{about}");
            }
            if self.listed.contains(&recording) && landed == 0 && !was_deleted {
                // A unit without room had to be listed again, and then could not be.
                let undone = self.scheduler.undone(|_| true);
                let is_unlisted = !is_strict && undone.given_up + undone.unlisted > 0;
                assert!(missing + vanished > 0 || is_unlisted, "{about}");
            }
            let gives = |way: &Way| matches!(way, Way::Well | Way::Cut(_));
            let is_available = holders.iter().any(|(id, way)| {
                let is_listed = !self.world.nodes[*id].later.contains(&recording);
                let is_never_silent = self.world.nodes[*id].silences.is_empty();
                gives(way) && is_listed && is_never_silent && !self.given_up.contains(id)
            });
            let is_deleted = |node: &NodeWorld| node.deleted.contains(&recording);
            if is_available && !self.world.nodes.iter().any(is_deleted) && is_strict {
                assert!(landed > 0, "{about}");
            }
            // A withheld file counts as a failure; a vanished one doesn't.
            if is_strict && landed == 0 && !was_deleted && self.listed.contains(&recording) {
                let truly = |way: &Way| matches!(way, Way::Vanished);
                let undone = self.scheduler.undone(|_| true);
                let could_be_asked = undone.given_up + undone.unlisted == 0;
                if holders.iter().all(|(_, way)| truly(way)) && could_be_asked {
                    assert_eq!((missing, vanished), (0, 1), "{about}");
                }
                if holders.iter().any(|(_, way)| *way == Way::Withheld)
                    && !self.was_ever_given_up
                    && !holders
                        .iter()
                        .any(|(id, _)| self.world.nodes[*id].later.contains(&recording))
                {
                    assert_eq!((missing, vanished), (1, 0), "{about}");
                }
            }
            if is_strict && !self.world.hedges && !self.was_ever_given_up {
                assert!(landed <= 1, "fetched twice: {about}");
            }
        }
    }
}
