//! The directories and files of an archive, by their parts. They are the same here and on a node.
//! Paths are computed from the parts, so no code has to take a path apart.

use std::fmt::{self, Write};

use uuid::Uuid;

use crate::extra::{ExtraDir, ExtraPath};
use crate::hour::Hour;
use crate::segment::{Collection, MAX_NAME, SegmentHash, SegmentName, Stream};

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

/// A directory of an archive. Displays as its path in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Directory {
    /// The archive itself, which holds the streams.
    Archive,
    /// A stream, which holds its variants.
    Stream(Stream),
    /// A collection, which holds its hours.
    Collection(Collection),
    /// An hour, which holds segments and tombstones.
    Hour(Place),
    /// A directory of extra files, nested to any depth.
    Extras(ExtraDir),
}

impl Directory {
    /// The path of a name that a node lists in this directory, if a file or directory of that name
    /// can exist here.
    pub fn path_of(&self, name: &str) -> Option<String> {
        let is_plain = |part: &str| {
            !matches!(part, "" | "." | "..") && part.len() <= MAX_NAME && !part.contains('\0')
        };
        let may_have_slashes = matches!(self, Directory::Extras(_));
        let can_lie_there =
            name.split('/').all(is_plain) && (may_have_slashes || !name.contains('/'));
        can_lie_there.then(|| format!("{self}/{name}"))
    }
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

/// A file of an archive. Displays as its path in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A segment in an hour.
    Segment(Place, SegmentName),
    /// The tombstone of a segment, which is an empty file.
    Tombstone(Place, SegmentName),
    /// A file in an extra directory.
    Extra(ExtraDir, ExtraPath),
}

/// How to check the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It must match the hash in the file's name.
    Hash(SegmentHash),
    /// It must have the length that the node announces; nothing else is known.
    Length,
}

impl Target {
    /// A segment of this hour.
    pub fn segment(collection: &Collection, hour: Hour, name: &SegmentName) -> Target {
        Target::Segment(Place { collection: collection.clone(), hour }, name.clone())
    }

    /// Its hour, unless it is an extra file.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Target::Segment(place, _) | Target::Tombstone(place, _) => Some(place),
            Target::Extra(..) => None,
        }
    }

    /// Its path relative to the archive: plain components separated by slashes.
    pub fn path(&self) -> String {
        written(self)
    }

    /// The path of its directory, relative to the archive.
    pub fn dir(&self) -> String {
        match self {
            Target::Segment(place, _) | Target::Tombstone(place, _) => written(place),
            Target::Extra(dir, path) => match path.as_str().rsplit_once('/') {
                Some((below, _)) => format!("{dir}/{below}"),
                None => dir.to_string(),
            },
        }
    }

    /// How to check its content.
    pub fn check(&self) -> Check {
        match self {
            Target::Segment(_, name) | Target::Tombstone(_, name) => Check::Hash(name.hash()),
            Target::Extra(dir, path) => path.hash_in(dir).map_or(Check::Length, Check::Hash),
        }
    }

    /// The name of its staged file. For a segment it has the form that all writers of segments use.
    /// For an extra file it is hidden, since every other file in an extra directory is part of it.
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

/// A path as a string that doesn't grow while it is written.
fn written(path: &impl fmt::Display) -> String {
    const USUAL: usize = 128;
    let mut text = String::with_capacity(USUAL);
    write!(text, "{path}").expect("writing to a string can't fail");
    text
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
