//! What an archive is made of, by its parts: directories that can be listed, and files that belong
//! into them. Both are the same whether they lie here or on a node. Paths are computed from the
//! parts, so nobody takes one apart again.

use std::fmt;

use uuid::Uuid;

use crate::extra::{ExtraDir, ExtraPath};
use crate::hour::Hour;
use crate::segment::{Collection, SegmentHash, SegmentName, Stream};

/// An hour of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The collection.
    pub collection: Collection,
    /// The hour.
    pub hour: Hour,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.hour)
    }
}

/// A directory of an archive that can be listed. Displays as its path in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Directory {
    /// Holds the streams: the archive itself.
    Archive,
    /// Holds the variants of a stream.
    Stream(Stream),
    /// Holds the hours of a collection.
    Collection(Collection),
    /// Holds the segments and tombstones of an hour.
    Hour(Place),
    /// Holds extra files, at any depth.
    Extras(ExtraDir),
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Directory::Archive => f.write_str("."),
            Directory::Stream(stream) => f.write_str(stream.as_str()),
            Directory::Collection(collection) => collection.fmt(f),
            Directory::Hour(place) => place.fmt(f),
            Directory::Extras(dir) => dir.fmt(f),
        }
    }
}

/// A file that belongs into an archive. Displays as its path in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A segment of an hour.
    Segment(Place, SegmentName),
    /// The tombstone of such a segment, which is an empty file.
    Tombstone(Place, SegmentName),
    /// A file in an extra directory.
    Extra(ExtraDir, ExtraPath),
}

/// By what the content of a file is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// By the hash in its name.
    Hash(SegmentHash),
    /// By nothing but the length that the node announces.
    Length,
}

impl Target {
    /// A segment of this hour.
    pub fn segment(collection: &Collection, hour: Hour, name: &SegmentName) -> Target {
        Target::Segment(Place { collection: collection.clone(), hour }, name.clone())
    }

    /// The hour that it belongs to, if it is not an extra file.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Target::Segment(place, _) | Target::Tombstone(place, _) => Some(place),
            Target::Extra(..) => None,
        }
    }

    /// The path relative to the archive: plain components with slashes between them.
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// The path of its directory, relative to the archive.
    pub fn dir(&self) -> String {
        match self {
            Target::Segment(place, _) | Target::Tombstone(place, _) => place.to_string(),
            Target::Extra(dir, path) => match path.as_str().rsplit_once('/') {
                Some((below, _)) => format!("{dir}/{below}"),
                None => dir.to_string(),
            },
        }
    }

    /// By what its content is checked.
    pub fn check(&self) -> Check {
        match self {
            Target::Segment(_, name) | Target::Tombstone(_, name) => Check::Hash(name.hash()),
            Target::Extra(dir, path) => path.hash_in(dir).map_or(Check::Length, Check::Hash),
        }
    }

    /// The name under which it is staged. A segment has the form that all writers of segments use.
    /// An extra file is hidden, since every other file in an extra directory is a part of it.
    pub fn staged_name(&self, id: Uuid) -> String {
        match self {
            Target::Segment(_, name) | Target::Tombstone(_, name) => name.staged(id),
            Target::Extra(..) => format!(".{id}.temp"),
        }
    }

    /// The tombstone that forbids it, if it is a segment.
    pub fn tombstone(&self) -> Option<Target> {
        match self {
            Target::Segment(place, name) => Some(Target::Tombstone(place.clone(), name.clone())),
            Target::Tombstone(..) | Target::Extra(..) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Segment(place, name) => write!(f, "{place}/{name}"),
            Target::Tombstone(place, name) => write!(f, "{place}/{}", name.tombstone()),
            Target::Extra(dir, path) => write!(f, "{dir}/{path}"),
        }
    }
}
