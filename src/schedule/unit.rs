//! The units of a pass, which are listed as a whole, and their files.

use std::cmp::Reverse;

use crate::extra::ExtraPath;
use crate::hour::Hour;
use crate::segment::SegmentName;

/// A directory that is listed as a whole. Units are ordered as they are listed: the newest hours
/// first, extra directories last. Collections and directories are given by their index in their
/// lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// An hour of a collection.
    Hour(Reverse<Hour>, usize),
    /// An extra directory.
    Extras(usize),
}

impl Unit {
    /// The path of a file of this unit, relative to the directory of its collection: `HOUR/NAME`.
    pub fn path_of(self, item: &Item) -> String {
        match self {
            Unit::Hour(Reverse(hour), _) => format!("{hour}/{}", item.as_str()),
            Unit::Extras(_) => item.as_str().to_owned(),
        }
    }

    /// The units that may hold another recording of a segment in this one: the previous and the
    /// next hour.
    pub fn neighbours(self) -> impl Iterator<Item = Unit> {
        let units = match self {
            Unit::Hour(Reverse(hour), collection) => {
                let beside = |other: Hour| Unit::Hour(Reverse(other), collection);
                [Some(beside(hour.back(1))), Some(beside(hour.next()))]
            }
            Unit::Extras(_) => [None, None],
        };
        // The first hour and the last one are their own neighbours.
        units.into_iter().flatten().filter(move |unit| *unit != self)
    }
}

/// A listing to request from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// The hours of a collection.
    Hours(usize),
    /// The files of a unit.
    Unit(Unit),
    /// A unit again, to see whether files that the node said are gone are still listed.
    Again(Unit),
}

/// The name of a file in a unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// A segment in an hour.
    Segment(SegmentName),
    /// A file in an extra directory.
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
