//! What a pass is made of: units, which are listed as a whole, and the files in them.

use std::cmp::Reverse;

use crate::extra::ExtraPath;
use crate::hour::Hour;
use crate::segment::SegmentName;

/// What is listed as a whole, in the order in which it is listed: the newest hours first, extra
/// directories at the end. Collections and directories go by their place in their lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// An hour of a collection.
    Hour(Reverse<Hour>, usize),
    /// An extra directory.
    Extras(usize),
}

impl Unit {
    /// The units that may hold another recording of what is in this one: the hours before and
    /// after it.
    pub fn neighbours(self) -> Vec<Unit> {
        match self {
            Unit::Hour(Reverse(hour), collection) => {
                let hours = [hour.back(1), hour.next()].into_iter().filter(|other| *other != hour);
                hours.map(|hour| Unit::Hour(Reverse(hour), collection)).collect()
            }
            Unit::Extras(_) => Vec::new(),
        }
    }
}

/// A listing that a node is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// The hours of a collection.
    Hours(usize),
    /// What is in a unit.
    Unit(Unit),
    /// The same once more, to see whether what the node said is gone is still listed.
    Again(Unit),
}

/// A file of a unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// A segment of an hour.
    Segment(SegmentName),
    /// A file of an extra directory.
    Extra(ExtraPath),
}

impl Item {
    /// The name as nodes list it.
    pub fn as_str(&self) -> &str {
        match self {
            Item::Segment(name) => name.as_str(),
            Item::Extra(path) => path.as_str(),
        }
    }
}
