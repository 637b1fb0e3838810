//! What a node still has to list, and to list again.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::unit::{Item, List, Unit};

/// How many parts a unit may be listed in. They hold a million names; a node that invents names
/// endlessly is stopped there.
const MAX_PARTS: u32 = 128;

/// The listings of one node.
#[derive(Debug, Default)]
pub struct Listings {
    /// The collections whose hours it has not listed yet.
    hours: BTreeSet<usize>,
    /// The collections whose hours it has listed.
    known: BTreeSet<usize>,
    /// The units that it has not listed yet, or must list again from the start.
    units: BTreeSet<Unit>,
    /// The units that it has listed in part, as there was more than fits at a time.
    partly: BTreeSet<Unit>,
    /// The units that it must list again, to confirm that files are gone.
    to_confirm: BTreeSet<Unit>,
    /// For each unit listed in part: the number of parts so far, and the last name read.
    reached: HashMap<Unit, (u32, Item)>,
    in_flight: Vec<List>,
    /// Listings that failed temporarily, and when to retry them.
    later: Vec<(Instant, List)>,
    tries: HashMap<List, u32>,
    /// How many failed after all retries.
    failed: u64,
}

impl Listings {
    /// The listings of a node that must list the hours of this many collections, and this many
    /// extra directories.
    pub fn new(collections: usize, extras: usize) -> Listings {
        Listings {
            hours: (0..collections).collect(),
            units: (0..extras).map(Unit::Extras).collect(),
            ..Default::default()
        }
    }

    /// The next collection whose hours to list. These come first.
    pub fn next_hours(&mut self, now: Instant) -> Option<List> {
        let is_hours = |list: &List| matches!(list, List::Hours(_));
        let list = self.take_due(now, is_hours);
        let list = list.or_else(|| self.hours.pop_first().map(List::Hours))?;
        self.in_flight.push(list);
        Some(list)
    }

    /// The next unit to list, if `may_list` allows it. While too much is open (`full`), units
    /// listed in part must wait.
    pub fn next_unit(
        &mut self,
        now: Instant,
        full: bool,
        may_list: impl Fn(Unit) -> bool,
    ) -> Option<List> {
        let unit = |list: &List| match list {
            List::Unit(unit) => may_list(*unit),
            List::Again(_) => true,
            List::Hours(_) => false,
        };
        let list = self.take_due(now, unit).or_else(|| {
            let first =
                |units: &BTreeSet<Unit>| units.iter().find(|unit| may_list(**unit)).copied();
            let begun = if full { None } else { first(&self.partly) };
            let next = begun.or_else(|| first(&self.units));
            if let Some(unit) = next {
                self.units.remove(&unit);
                self.partly.remove(&unit);
                return Some(List::Unit(unit));
            }
            self.to_confirm.pop_first().map(List::Again)
        })?;
        self.in_flight.push(list);
        Some(list)
    }

    /// Notes that this listing is requested, to probe a node that was given up.
    pub fn probe(&mut self, list: List) {
        if let List::Hours(collection) = list {
            self.hours.remove(&collection);
        }
        self.in_flight.push(list);
    }

    fn take_due(&mut self, now: Instant, which: impl Fn(&List) -> bool) -> Option<List> {
        let due = self.later.iter().position(|(at, list)| *at <= now && which(list))?;
        Some(self.later.swap_remove(due).1)
    }

    /// The name after which the listing of a unit continues, if it was listed in part.
    pub fn reached(&self, unit: Unit) -> Option<Item> {
        self.reached.get(&unit).map(|(_, item)| item.clone())
    }

    /// Notes that a listing has ended, successfully or not. Returns whether it still counts.
    pub fn end(&mut self, list: List) -> bool {
        let at = self.in_flight.iter().position(|in_flight| *in_flight == list);
        at.map(|at| self.in_flight.swap_remove(at)).is_some()
    }

    /// Notes that the node has these units of a collection. Returns whether that is new.
    pub fn hours_listed(
        &mut self,
        collection: usize,
        units: impl IntoIterator<Item = Unit>,
    ) -> bool {
        let is_new = self.known.insert(collection);
        if is_new {
            self.units.extend(units);
        }
        is_new
    }

    /// Adds a unit to list, perhaps once more.
    pub fn add(&mut self, unit: Unit) {
        self.units.insert(unit);
    }

    /// Notes that a unit was listed to its end, or up to this name if there is more. Returns
    /// whether the node is still believed: no real unit has [`MAX_PARTS`] parts.
    pub fn listed(&mut self, unit: Unit, up_to: Option<Item>) -> bool {
        self.tries.remove(&List::Unit(unit));
        let Some(item) = up_to else {
            self.reached.remove(&unit);
            return true;
        };
        let (parts, reached) = self.reached.entry(unit).or_insert((0, item.clone()));
        *parts += 1;
        *reached = item;
        let is_believed = *parts < MAX_PARTS;
        if is_believed {
            self.partly.insert(unit);
        }
        is_believed
    }

    /// Notes that there was no room for a unit's files. Its listing continues where it was.
    pub fn put_off(&mut self, unit: Unit) {
        self.partly.insert(unit);
    }

    /// Adds a unit to list again once there is nothing else to list.
    pub fn confirm(&mut self, unit: Unit) {
        self.to_confirm.insert(unit);
    }

    /// Repeats a listing at this time. It doesn't count as a retry.
    pub fn repeat(&mut self, list: List, at: Instant) {
        self.later.push((at, list));
    }

    /// Counts a temporary failure of a listing. Returns how many there have been.
    pub fn count_try(&mut self, list: List) -> u32 {
        let tries = self.tries.entry(list).or_default();
        *tries += 1;
        *tries
    }

    /// Notes that a listing failed after all retries.
    pub fn fail(&mut self, list: List) {
        self.failed += 1;
        if let List::Unit(unit) = list {
            self.reached.remove(&unit);
        }
    }

    /// Notes that the node is given up. Listings under way or waiting are kept, in case it comes
    /// back. Returns those that were under way.
    pub fn give_up(&mut self) -> Vec<List> {
        let in_flight = std::mem::take(&mut self.in_flight);
        let later = std::mem::take(&mut self.later).into_iter().map(|(_, list)| list);
        in_flight.iter().copied().chain(later).for_each(|list| self.keep(list));
        self.to_confirm.clear();
        self.tries.clear();
        in_flight
    }

    /// Keeps a listing for when the node comes back.
    pub fn keep(&mut self, list: List) {
        match list {
            List::Hours(collection) => drop(self.hours.insert(collection)),
            List::Unit(unit) if self.reached.contains_key(&unit) => {
                self.partly.insert(unit);
            }
            List::Unit(unit) => drop(self.units.insert(unit)),
            // Files that are gone are judged without this listing.
            List::Again(_) => {}
        }
    }

    /// Whether there is nothing to list, now or later.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.later.is_empty()
            && self.hours.is_empty()
            && self.units.is_empty()
            && self.partly.is_empty()
            && self.to_confirm.is_empty()
    }

    /// Whether the node has listed this unit completely, or doesn't have it.
    pub fn is_done_with(&self, unit: Unit) -> bool {
        let pending =
            |list| self.in_flight.contains(&list) || self.later.iter().any(|(_, l)| *l == list);
        let hours_pending =
            |collection| self.hours.contains(&collection) || pending(List::Hours(collection));
        let not_known = matches!(unit, Unit::Hour(_, collection) if hours_pending(collection));
        let queues = [&self.units, &self.partly, &self.to_confirm];
        let is_queued = queues.iter().any(|units| units.contains(&unit));
        !not_known && !is_queued && !pending(List::Unit(unit)) && !pending(List::Again(unit))
    }

    /// When the next retry is due.
    pub fn next_event(&self) -> Option<Instant> {
        self.later.iter().map(|(at, _)| *at).min()
    }

    /// How many listings are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How many units are still to be listed, as far as is known.
    pub fn to_list(&self) -> usize {
        let is_unit = |list: &&List| !matches!(list, List::Hours(_));
        let later = self.later.iter().map(|(_, list)| list);
        let queued = self.units.len() + self.partly.len() + self.to_confirm.len();
        queued + self.in_flight.iter().chain(later).filter(is_unit).count()
    }

    /// How many listings failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }
}
