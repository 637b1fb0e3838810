//! Which files are recordings of the same thing. Two clocks give one segment starts that differ by
//! up to [`CLOCKS_DIFFER`], so it may have several names, even in two hours. Such files are twins.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::unit::{Item, Unit};
use crate::hour::HOUR_MICROS;
use crate::segment::{CLOCKS_DIFFER, Medium, SegmentHash, SegmentType};

/// What is equal in two recordings of the same segment, and when this one starts, in microseconds
/// since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recording {
    collection: usize,
    hash: SegmentHash,
    duration: u64,
    kind: SegmentType,
    start: i64,
}

impl Recording {
    /// The recording that a file is. Chat and extra files have only one name.
    pub fn of(unit: Unit, item: &Item) -> Option<Recording> {
        match (unit, item) {
            (Unit::Hour(hour, collection), Item::Segment(name))
                if name.medium() == Medium::Video =>
            {
                Some(Recording {
                    collection,
                    hash: name.hash(),
                    duration: name.duration_micros(),
                    kind: name.kind(),
                    start: hour.0.micros_at(name.start_micros()),
                })
            }
            _ => None,
        }
    }

    /// Whether another recording of the same segment may belong to another hour.
    pub fn is_at_an_edge(self) -> bool {
        let into = self.start.rem_euclid(HOUR_MICROS);
        into <= CLOCKS_DIFFER || into >= HOUR_MICROS - CLOCKS_DIFFER
    }

    fn at(self, start: i64) -> Recording {
        Recording { start, ..self }
    }
}

/// Something known of recordings, to be found by any name that counts as the same.
#[derive(Debug)]
pub struct Recordings<T>(BTreeMap<Recording, T>);

impl<T> Default for Recordings<T> {
    fn default() -> Self {
        Recordings(BTreeMap::new())
    }
}

impl<T> Recordings<T> {
    /// What is known of a recording of the same segment.
    pub fn same(&self, recording: Recording) -> Option<&T> {
        let (first, last) =
            (recording.start.saturating_sub(CLOCKS_DIFFER), recording.start + CLOCKS_DIFFER);
        self.0.range(recording.at(first)..=recording.at(last)).next().map(|(_, known)| known)
    }

    /// What is known of exactly this one.
    pub fn exactly(&mut self, recording: Recording) -> Option<&mut T> {
        self.0.get_mut(&recording)
    }

    pub fn insert(&mut self, recording: Recording, known: T) {
        self.0.insert(recording, known);
    }

    pub fn remove(&mut self, recording: Recording) {
        self.0.remove(&recording);
    }
}

/// Some twins, by number.
pub type TwinsId = u64;

/// Twins: files that are recordings of the same segment. `F` is what a file is known by.
#[derive(Debug)]
pub struct Twins<F> {
    /// Which twins a recording belongs to, and how many names have exactly this start.
    names: Recordings<(TwinsId, u32)>,
    groups: HashMap<TwinsId, Group<F>>,
    count: TwinsId,
}

#[derive(Debug)]
struct Group<F> {
    members: BTreeSet<F>,
    landed: bool,
    /// How many different starts they have.
    starts: u32,
}

impl<F> Default for Twins<F> {
    fn default() -> Self {
        Twins { names: Recordings::default(), groups: HashMap::new(), count: 0 }
    }
}

impl<F: Copy + Ord> Twins<F> {
    /// One more name is known of a recording: gives back its twins.
    pub fn learn(&mut self, recording: Recording) -> TwinsId {
        if let Some((twins, names)) = self.names.exactly(recording) {
            *names += 1;
            return *twins;
        }
        let known = self.names.same(recording).map(|(twins, _)| *twins);
        let twins = known.unwrap_or_else(|| {
            self.count += 1;
            let group = Group { members: BTreeSet::new(), landed: false, starts: 0 };
            self.groups.insert(self.count, group);
            self.count
        });
        if let Some(group) = self.groups.get_mut(&twins) {
            group.starts += 1;
        }
        self.names.insert(recording, (twins, 1));
        twins
    }

    /// One name of a recording is forgotten. What landed at the turn of an hour is remembered: the
    /// hour before or after may have looked at the disk before it landed there.
    pub fn forget(&mut self, recording: Recording) {
        let Some((twins, names)) = self.names.exactly(recording) else {
            return;
        };
        let Some(group) = self.groups.get_mut(twins) else {
            return;
        };
        if group.landed && recording.is_at_an_edge() {
            return;
        }
        *names -= 1;
        if *names > 0 {
            return;
        }
        group.starts -= 1;
        if group.starts == 0 {
            self.groups.remove(twins);
        }
        self.names.remove(recording);
    }

    /// The twins of a recording, if any is known.
    pub fn of(&self, recording: Recording) -> Option<TwinsId> {
        self.names.same(recording).map(|(twins, _)| *twins)
    }

    /// Adds a file; says whether it is the first one.
    pub fn add(&mut self, twins: TwinsId, file: F) -> bool {
        let group = self.groups.get_mut(&twins);
        group.is_some_and(|group| group.members.insert(file) && group.members.len() == 1)
    }

    /// Takes a file out; says whether it was the last one.
    pub fn remove(&mut self, twins: TwinsId, file: F) -> bool {
        let group = self.groups.get_mut(&twins);
        group.is_some_and(|group| group.members.remove(&file) && group.members.is_empty())
    }

    /// The files, oldest first.
    pub fn members(&self, twins: TwinsId) -> impl Iterator<Item = F> {
        self.groups.get(&twins).into_iter().flat_map(|group| &group.members).copied()
    }

    /// One of them is here.
    pub fn land(&mut self, twins: TwinsId) {
        if let Some(group) = self.groups.get_mut(&twins) {
            group.landed = true;
        }
    }

    /// Whether one of them is here.
    pub fn have_landed(&self, twins: TwinsId) -> bool {
        self.groups.get(&twins).is_some_and(|group| group.landed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentName;
    use std::cmp::Reverse;

    fn recording(hour: &str, stem: &str) -> Recording {
        let hash = SegmentHash([7; 32]);
        let name = SegmentName::parse(&format!("{stem}-{hash}.ts"), Medium::Video).unwrap();
        let unit = Unit::Hour(Reverse(hour.parse().unwrap()), 0);
        Recording::of(unit, &Item::Segment(name)).unwrap()
    }

    #[test]
    fn two_clocks_that_differ_by_a_millisecond_record_the_same() {
        for (hour, stem, is_same) in [
            ("2018-11-10T05", "00:10.000-2.0-full", true),
            ("2018-11-10T05", "00:10.001-2.000-full", true),
            ("2018-11-10T05", "00:09.999-2.0-full", true),
            ("2018-11-10T05", "00:10.001001-2.0-full", false),
            ("2018-11-10T05", "00:09.998999-2.0-full", false),
            ("2018-11-10T05", "00:10.000-2.1-full", false),
            ("2018-11-10T05", "00:10.000-2.0-suspect", false),
            ("2018-11-10T06", "00:10.000-2.0-full", false),
        ] {
            let mut known = Recordings::default();
            known.insert(recording("2018-11-10T05", "00:10.000-2.0-full"), ());
            assert_eq!(known.same(recording(hour, stem)).is_some(), is_same, "{hour} {stem}");
        }
    }

    #[test]
    fn the_turn_of_an_hour_is_where_it_may_have_a_name_in_another() {
        for (stem, is_edge) in [
            ("00:00.001-2.0-full", true),
            ("00:00.001001-2.0-full", false),
            ("59:59.999-2.0-full", true),
            ("59:59.998999-2.0-full", false),
        ] {
            assert_eq!(recording("2018-11-10T05", stem).is_at_an_edge(), is_edge, "{stem}");
        }
        let mut known = Recordings::default();
        known.insert(recording("2018-11-10T06", "00:00.0004-2.0-full"), ());
        assert!(known.same(recording("2018-11-10T05", "59:59.9996-2.0-full")).is_some());
    }

    #[test]
    fn twins_are_forgotten_with_their_last_name_but_for_what_landed_at_the_turn_of_an_hour() {
        for (stem, is_remembered) in [("00:10.0-2.0-full", false), ("00:00.0-2.0-full", true)] {
            let mut twins = Twins::default();
            let first = recording("2018-11-10T05", stem);
            let second = recording("2018-11-10T05", &stem.replace(".0-2.0", ".0005-2.0"));
            let id = twins.learn(first);
            assert_eq!((twins.learn(second), twins.learn(first)), (id, id));
            assert!(twins.add(id, 1) && !twins.add(id, 2));
            assert_eq!(twins.members(id).collect::<Vec<_>>(), [1, 2]);
            twins.land(id);
            assert!(!twins.remove(id, 2) && twins.remove(id, 1));
            [first, second, first].into_iter().for_each(|name| twins.forget(name));
            assert_eq!(twins.of(first).is_some(), is_remembered);
            assert_eq!(twins.groups.len(), usize::from(is_remembered));
        }
    }
}
