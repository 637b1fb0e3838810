//! Finds files that are recordings of the same segment. Two clocks give a segment starts that
//! differ by up to [`CLOCKS_DIFFER`], so it may have several names, even in two hours. Such files
//! are twins.

use std::collections::{BTreeMap, HashMap};

use super::unit::{Item, Unit};
use crate::hour::HOUR_MICROS;
use crate::segment::{CLOCKS_DIFFER, Medium, SegmentHash, SegmentType};

/// The properties that all recordings of a segment share, and the start of this one in microseconds
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
    /// A file as a recording. Chat and extra files have only one name, so they have no twins.
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

/// A map of recordings that finds any recording of the same segment.
#[derive(Debug)]
pub struct Recordings<T>(BTreeMap<Recording, T>);

impl<T> Default for Recordings<T> {
    fn default() -> Self {
        Recordings(BTreeMap::new())
    }
}

impl<T> Recordings<T> {
    /// The entry of any recording of the same segment.
    pub fn same(&self, recording: Recording) -> Option<&T> {
        let (first, last) =
            (recording.start.saturating_sub(CLOCKS_DIFFER), recording.start + CLOCKS_DIFFER);
        self.0.range(recording.at(first)..=recording.at(last)).next().map(|(_, known)| known)
    }

    /// The entry of exactly this recording.
    pub fn exactly(&mut self, recording: Recording) -> Option<&mut T> {
        self.0.get_mut(&recording)
    }

    /// Adds a recording, or replaces its entry.
    pub fn insert(&mut self, recording: Recording, known: T) {
        self.0.insert(recording, known);
    }

    /// Removes exactly this recording.
    pub fn remove(&mut self, recording: Recording) {
        self.0.remove(&recording);
    }
}

/// The number of a group of twins.
pub type TwinsId = u64;

/// Groups of twins. `F` identifies a file.
#[derive(Debug)]
pub struct Twins<F> {
    /// The group that a recording belongs to, and how many names have exactly this start.
    names: Recordings<(TwinsId, u32)>,
    groups: HashMap<TwinsId, Group<F>>,
    count: TwinsId,
}

/// A group of twins.
#[derive(Debug)]
struct Group<F> {
    /// Oldest first. Most groups have one.
    members: Vec<F>,
    /// The file that has landed.
    landed: Option<Box<str>>,
    /// The number of different starts.
    starts: u32,
}

impl<F> Default for Twins<F> {
    fn default() -> Self {
        Twins { names: Recordings::default(), groups: HashMap::new(), count: 0 }
    }
}

impl<F: Copy + PartialEq> Twins<F> {
    /// Adds a name of a recording. Returns its group.
    pub fn learn(&mut self, recording: Recording) -> TwinsId {
        if let Some((twins, names)) = self.names.exactly(recording) {
            *names += 1;
            return *twins;
        }
        let known = self.names.same(recording).map(|(twins, _)| *twins);
        let twins = known.unwrap_or_else(|| {
            self.count += 1;
            let group = Group { members: Vec::with_capacity(1), landed: None, starts: 0 };
            self.groups.insert(self.count, group);
            self.count
        });
        if let Some(group) = self.groups.get_mut(&twins) {
            group.starts += 1;
        }
        self.names.insert(recording, (twins, 1));
        twins
    }

    /// Forgets a name of a recording. Twins that landed at the turn of an hour are remembered, as a
    /// look at the neighbouring hour may be older than the landing.
    pub fn forget(&mut self, recording: Recording) {
        let Some((twins, names)) = self.names.exactly(recording) else {
            return;
        };
        let Some(group) = self.groups.get_mut(twins) else {
            return;
        };
        if group.landed.is_some() && recording.is_at_an_edge() {
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

    /// The group of a recording, if it is known.
    pub fn of(&self, recording: Recording) -> Option<TwinsId> {
        self.names.same(recording).map(|(twins, _)| *twins)
    }

    /// Adds a file to a group. Returns whether it is the first.
    pub fn add(&mut self, twins: TwinsId, file: F) -> bool {
        let Some(group) = self.groups.get_mut(&twins).filter(|g| !g.members.contains(&file)) else {
            return false;
        };
        group.members.push(file);
        group.members.len() == 1
    }

    /// Removes a file from a group. Returns whether it was the last.
    pub fn remove(&mut self, twins: TwinsId, file: F) -> bool {
        let Some(group) = self.groups.get_mut(&twins) else {
            return false;
        };
        let at = group.members.iter().position(|member| *member == file);
        at.map(|at| group.members.remove(at)).is_some() && group.members.is_empty()
    }

    /// The files of a group, oldest first.
    pub fn members(&self, twins: TwinsId) -> impl Iterator<Item = F> {
        self.groups.get(&twins).into_iter().flat_map(|group| &group.members).copied()
    }

    /// Notes that a file of a group has landed, and its name.
    pub fn land(&mut self, twins: TwinsId, name: &str) {
        if let Some(group) = self.groups.get_mut(&twins) {
            group.landed.get_or_insert_with(|| name.into());
        }
    }

    /// The file of a group that has landed, if any.
    pub fn landed(&self, twins: TwinsId) -> Option<&str> {
        self.groups.get(&twins).and_then(|group| group.landed.as_deref())
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
    fn recordings_a_millisecond_apart_are_the_same() {
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
    fn recordings_at_the_turn_of_an_hour_may_belong_to_another() {
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
    fn only_twins_landed_at_the_turn_of_an_hour_are_kept() {
        for (stem, is_remembered) in [("00:10.0-2.0-full", false), ("00:00.0-2.0-full", true)] {
            let mut twins = Twins::default();
            let first = recording("2018-11-10T05", stem);
            let second = recording("2018-11-10T05", &stem.replace(".0-2.0", ".0005-2.0"));
            let id = twins.learn(first);
            assert_eq!((twins.learn(second), twins.learn(first)), (id, id));
            assert!(twins.add(id, 1) && !twins.add(id, 2));
            assert_eq!(twins.members(id).collect::<Vec<_>>(), [1, 2]);
            twins.land(id, "first");
            assert_eq!(twins.landed(id), Some("first"));
            assert!(!twins.remove(id, 2) && twins.remove(id, 1));
            [first, second, first].into_iter().for_each(|name| twins.forget(name));
            assert_eq!(twins.of(first).is_some(), is_remembered);
            assert_eq!(twins.landed(id).is_some(), is_remembered);
        }
    }
}
