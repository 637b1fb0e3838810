//! What the nodes of a simulated pass have, and how they send it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::SmallRng;

use crate::schedule::{Item, NodeId, Unit};
use crate::segment::{CLOCKS_DIFFER, Medium, SegmentHash, SegmentName};

const HOURS: [&str; 3] = ["2018-11-10T03", "2018-11-10T04", "2018-11-10T05"];
const HOUR: i64 = 3_600_000_000;

/// How a node sends a recording that it lists.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    Well,
    Corrupt,
    /// It answers 404, and no longer lists it.
    Vanished,
    /// It answers 404, but still lists it.
    Withheld,
    /// It fails temporarily this many times, then sends it.
    Flaky(u8),
    /// It is cut off this many times after some bytes, which are kept.
    Cut(u8),
    /// It is too busy this many times.
    Busy(u8),
}

/// The content of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeWorld {
    /// How late its clock is, in microseconds.
    pub late: i64,
    pub has: BTreeMap<usize, Way>,
    /// The recordings whose tombstones it lists.
    pub deleted: BTreeSet<usize>,
    /// Recordings that it lists only when asked a second time.
    pub later: BTreeSet<usize>,
    /// When it is silent, in milliseconds since the start of the pass.
    pub silences: Vec<(u64, u64)>,
    /// How long a listing and a file take, in milliseconds.
    pub takes: (u64, u64),
}

/// The world before a pass, and the parameters of the pass.
#[derive(Clone, Debug)]
pub struct World {
    pub nodes: Vec<NodeWorld>,
    /// The start of each recording by a correct clock, in microseconds after the first hour.
    pub starts: Vec<i64>,
    /// Recordings that are here but corrupt.
    pub corrupt: BTreeSet<usize>,
    pub jobs: usize,
    pub max_files: usize,
    pub window: usize,
    pub dry_run: bool,
    pub hedges: bool,
}

impl World {
    /// The world determined by a number.
    pub fn random(random: &mut SmallRng) -> World {
        let starts = (0..random.random_range(1..14)).map(|n| match random.random_range(0..4) {
            // At the turn of an hour, or slightly before or after it.
            0 => random.random_range(1..3) * HOUR + random.random_range(-300..300) + n,
            _ => random.random_range(0..3) * HOUR + 5_000_000 + 2_000_000 * n,
        });
        let starts: Vec<i64> = starts.collect();
        let dead = random.random_ratio(1, 3).then(|| {
            let from = random.random_range(0..3000);
            (from, from + random.random_range(500..20_000))
        });
        let mut nodes = Vec::new();
        for _ in 0..random.random_range(1..5) {
            let mut node = NodeWorld {
                late: random.random_range(0..2) * random.random_range(0..900),
                takes: (random.random_range(1..900), random.random_range(5..4000)),
                silences: dead.into_iter().collect(),
                ..NodeWorld::default()
            };
            if random.random_ratio(1, 4) {
                let from = random.random_range(0..6000);
                let length = [1000, 5000, 15_000, 10_000_000][random.random_range(0..4)];
                node.silences.push((from, from + length));
            }
            let is_bad = random.random_ratio(1, 3);
            for recording in 0..starts.len() {
                let way = match random.random_range(0..if is_bad { 9 } else { 40 }) {
                    0 => Way::Corrupt,
                    1 => Way::Vanished,
                    2 => Way::Withheld,
                    3 => Way::Flaky(random.random_range(1..5)),
                    4 => Way::Cut(random.random_range(1..9)),
                    5 => Way::Busy(random.random_range(1..9)),
                    _ => Way::Well,
                };
                match random.random_range(0..10) {
                    0..6 => drop(node.has.insert(recording, way)),
                    6 if random.random_ratio(1, 4) => drop(node.deleted.insert(recording)),
                    7 => {
                        node.has.insert(recording, way);
                        node.later.insert(recording);
                    }
                    _ => {}
                }
            }
            nodes.push(node);
        }
        let corrupt = (0..starts.len()).filter(|_| random.random_ratio(1, 12)).collect();
        World {
            nodes,
            starts,
            corrupt,
            jobs: random.random_range(1..4),
            max_files: [2, 6, 1000][random.random_range(0..3)],
            window: [1, 3, 1000][random.random_range(0..3)],
            dry_run: random.random_ratio(1, 5),
            hedges: random.random_ratio(3, 4),
        }
    }

    /// A recording by the clock of a node: its unit and name.
    pub fn name(&self, recording: usize, node: NodeId) -> (Unit, SegmentName) {
        let start = self.starts[recording] + self.nodes[node].late;
        let (hour, into) = (start.div_euclid(HOUR), start.rem_euclid(HOUR));
        let (minute, micros) = (into / 60_000_000, into % 60_000_000);
        let hash = SegmentHash([recording as u8; 32]);
        let (second, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let name = format!("{minute:02}:{second:02}.{fraction:06}-2.0-full-{hash}.ts");
        let name = SegmentName::parse(&name, Medium::Video).unwrap();
        (Unit::Hour(Reverse(HOURS[hour as usize].parse().unwrap()), 0), name)
    }

    /// The number of a recording.
    pub fn recording_of(item: &Item) -> usize {
        let Item::Segment(name) = item else { panic!("no segment") };
        name.hash().0[0] as usize
    }
}

/// A segment of a unit.
pub type Name = (Unit, SegmentName);

/// Whether two names belong to the same recording.
pub fn are_same((unit, name): &Name, (other_unit, other): &Name) -> bool {
    let start = |unit: &Unit, name: &SegmentName| match unit {
        Unit::Hour(hour, _) => hour.0.micros_at(name.start_micros()),
        Unit::Extras(_) => unreachable!(),
    };
    name.hash() == other.hash()
        && (start(unit, name) - start(other_unit, other)).abs() <= CLOCKS_DIFFER
}
