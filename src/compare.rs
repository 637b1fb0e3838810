//! Compares what this archive and each node have: the number of segments in each hour. Only counts
//! are kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::archive::HourFiles;
use crate::hour::Hour;
use crate::segment::{Collection, Entry, Medium, SegmentName};
use crate::target::Place;

/// The index of a node.
type Node = usize;

/// Counts segments while a pass lists them.
#[derive(Debug, Default)]
pub struct Comparison {
    nodes: usize,
    /// For each collection, which nodes have listed its hours.
    listed: HashMap<Collection, Vec<bool>>,
    rows: HashMap<Collection, BTreeMap<Hour, Seen>>,
    /// Segments that were here when they were to be added.
    found: HashSet<(Place, SegmentName)>,
    /// Corrupt segments that were replaced.
    repaired: HashSet<(Place, SegmentName)>,
}

/// What was seen of an hour so far.
#[derive(Debug, Default)]
struct Seen {
    /// Segments here before the pass; `None` until they are counted.
    here: Option<u64>,
    /// Segments that nodes have and that were not here.
    elsewhere: u64,
    /// How many of those were fetched, and removed again for a tombstone.
    removed: u64,
    /// The counts of the nodes that have the hour; `None` until they have listed it.
    nodes: BTreeMap<Node, Option<u64>>,
}

/// The counts for an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The hour.
    pub hour: Hour,
    /// The segments that are here or on any node.
    pub all: u64,
    /// The segments that were here before the pass.
    pub here: u64,
    /// The segments that each node has; `None` if unknown.
    pub nodes: Vec<Option<u64>>,
}

impl Row {
    /// How many segments an archive lacks that has this many.
    pub fn lacks(&self, has: u64) -> u64 {
        self.all.saturating_sub(has)
    }
}

impl Comparison {
    /// A comparison of this many nodes.
    pub fn new(nodes: usize) -> Comparison {
        Comparison { nodes, ..Comparison::default() }
    }

    /// Notes that a node has listed its hours of a collection; `hours` are the selected ones.
    pub fn hours_listed(&mut self, node: Node, collection: &Collection, hours: &[Hour]) {
        let listed = self.listed.entry(collection.clone());
        listed.or_insert_with(|| vec![false; self.nodes])[node] = true;
        let rows = self.rows.entry(collection.clone()).or_default();
        for hour in hours {
            rows.entry(*hour).or_default().nodes.entry(node).or_default();
        }
    }

    /// Notes that a node has this many segments of an hour.
    pub fn listed(&mut self, node: Node, place: &Place, segments: u64) {
        self.seen(place).nodes.insert(node, Some(segments));
    }

    /// Notes that a segment that was counted for this node has turned out to be deleted on purpose.
    pub fn deleted(&mut self, node: Node, place: &Place) {
        if let Some(Some(segments)) = self.seen(place).nodes.get_mut(&node) {
            *segments = segments.saturating_sub(1);
        }
    }

    /// Whether the number of segments here is known for an hour.
    pub fn is_known(&self, place: &Place) -> bool {
        let row = self.rows.get(&place.collection).and_then(|rows| rows.get(&place.hour));
        row.is_some_and(|seen| seen.here.is_some())
    }

    /// Notes that this many segments of an hour are here. The first call for an hour counts.
    pub fn here(&mut self, place: &Place, segments: u64) {
        self.seen(place).here.get_or_insert(segments);
    }

    /// Notes that a node has a segment of this hour that was not here.
    pub fn elsewhere(&mut self, place: &Place) {
        self.seen(place).elsewhere += 1;
    }

    /// Notes that a corrupt segment was replaced, which does not count as here before.
    pub fn repaired(&mut self, place: &Place, name: &SegmentName) {
        self.repaired.insert((place.clone(), name.clone()));
    }

    /// Notes that a segment was already here when it was to be added. Another program may have added
    /// it, or this pass from another node, which may be noted only later: see
    /// [`Comparison::count_found`].
    pub fn found(&mut self, place: &Place, name: &SegmentName) {
        self.found.insert((place.clone(), name.clone()));
    }

    /// Counts the segments that other programs have added, at the end of the pass. `is_ours` tells
    /// which segments the pass has added itself; they are counted already.
    pub fn count_found(&mut self, is_ours: impl Fn(&Place, &SegmentName) -> bool) {
        for (place, name) in std::mem::take(&mut self.found) {
            if !is_ours(&place, &name) && !self.repaired.contains(&(place.clone(), name)) {
                self.elsewhere(&place);
            }
        }
    }

    /// Notes that a segment that was not here has turned out to be deleted on purpose.
    pub fn removed(&mut self, place: &Place) {
        self.seen(place).removed += 1;
    }

    fn seen(&mut self, place: &Place) -> &mut Seen {
        let rows = self.rows.entry(place.collection.clone()).or_default();
        rows.entry(place.hour).or_default()
    }

    /// The hours of a collection that have any segments, or may have, in order.
    pub fn rows(&self, collection: &Collection) -> Vec<Row> {
        let none = vec![false; self.nodes];
        let listed = self.listed.get(collection).unwrap_or(&none);
        let rows = self.rows.get(collection).into_iter().flatten();
        let rows = rows.map(|(hour, seen)| {
            let here = seen.here.unwrap_or_default();
            let count = |(node, is_listed): (Node, &bool)| match seen.nodes.get(&node) {
                Some(count) => *count,
                None => is_listed.then_some(0),
            };
            let nodes = listed.iter().enumerate().map(count).collect();
            let all = (here + seen.elsewhere).saturating_sub(seen.removed);
            Row { hour: *hour, all, here, nodes }
        });
        rows.filter(|row| row.all > 0 || row.nodes.contains(&None)).collect()
    }
}

/// The sum over all hours. A count that is unknown for one hour is unknown in total.
pub fn total(rows: &[Row]) -> Row {
    let sum = |count: fn(&Row) -> u64| rows.iter().map(count).sum();
    let nodes = rows.first().map_or(0, |row| row.nodes.len());
    let of_node = |node: usize| rows.iter().map(|row| row.nodes[node]).sum();
    Row {
        hour: Hour::MIN,
        all: sum(|row| row.all),
        here: sum(|row| row.here),
        nodes: (0..nodes).map(of_node).collect(),
    }
}

/// How many segments of an hour are here. Deleted ones don't count.
pub fn segments(files: &HourFiles, medium: Medium) -> u64 {
    files.iter().filter(|name| counts(files, name, medium)).count() as u64
}

/// Whether a name is that of a segment that was not deleted on purpose.
pub fn counts(files: &HourFiles, name: &str, medium: Medium) -> bool {
    match Entry::parse(name, medium) {
        Ok(Entry::Segment(segment)) => !files.has_tombstone_of(&segment),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentHash;

    #[test]
    fn an_hour_that_a_node_has_not_listed_is_empty_or_unknown() {
        let collection = Collection { stream: "s".parse().unwrap(), variant: "v".parse().unwrap() };
        let hour = |text: &str| text.parse::<Hour>().unwrap();
        let (first, second) = (hour("2018-11-10T05"), hour("2018-11-10T06"));
        let place = |hour| Place { collection: collection.clone(), hour };
        let mut comparison = Comparison::new(3);
        comparison.hours_listed(0, &collection, &[first, second]);
        comparison.hours_listed(1, &collection, &[second]);
        comparison.here(&place(first), 2);
        comparison.here(&place(first), 9);
        comparison.listed(0, &place(first), 3);
        comparison.elsewhere(&place(first));
        comparison.listed(1, &place(second), 1);
        comparison.elsewhere(&place(second));
        let rows = comparison.rows(&collection);
        assert_eq!(
            rows,
            [
                Row { hour: first, all: 3, here: 2, nodes: vec![Some(3), Some(0), None] },
                Row { hour: second, all: 1, here: 0, nodes: vec![None, Some(1), None] },
            ]
        );
        assert_eq!((rows[0].lacks(2), rows[0].lacks(3)), (1, 0));
        assert!(comparison.is_known(&place(first)) && !comparison.is_known(&place(second)));
    }

    #[test]
    fn a_segment_that_two_nodes_send_counts_once() {
        let collection = Collection { stream: "s".parse().unwrap(), variant: "v".parse().unwrap() };
        let place =
            Place { collection: collection.clone(), hour: "2018-11-10T05".parse().unwrap() };
        let name = |second: u8| {
            let hash = SegmentHash([second; 32]);
            let name = format!("00:{second:02}.0-2.0-full-{hash}.ts");
            SegmentName::parse(&name, Medium::Video).unwrap()
        };
        let mut comparison = Comparison::new(1);
        comparison.here(&place, 0);
        // One that the pass added, and one that it repaired.
        for second in [10, 12] {
            comparison.found(&place, &name(second));
            comparison.elsewhere(&place);
        }
        comparison.repaired(&place, &name(12));
        // One that another program added.
        comparison.found(&place, &name(14));
        comparison.found(&place, &name(14));
        comparison.count_found(|_, found| *found == name(10));
        assert_eq!(comparison.rows(&collection)[0].all, 3);
    }
}
