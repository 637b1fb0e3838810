//! A file that belongs into an archive: where it goes, and by what it is checked. It is the same
//! whether it comes from a node or lies here, and whether it is a segment or an extra file.

use std::fmt;

use uuid::Uuid;

use crate::extra::{ExtraDir, ExtraPath};
use crate::hour::Hour;
use crate::segment::{Collection, SegmentHash, SegmentName};

/// A file by its path in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Plain components with slashes between them.
    path: String,
    /// Where the name of the file begins in the path.
    name: usize,
    check: Check,
    staged: Staged,
}

/// By what the content of a file is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// By the hash in its name.
    Hash(SegmentHash),
    /// By nothing but the length that the node announces.
    Length,
}

/// Where a segment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentParts<'a> {
    /// The name of its stream.
    pub stream: &'a str,
    /// The name of its variant.
    pub variant: &'a str,
    /// Its hour.
    pub hour: Hour,
    /// Its name.
    pub name: &'a SegmentName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Staged {
    /// By the form that all writers of segments use.
    Segment(Hour, SegmentName),
    /// As a hidden file, since every other file in an extra directory is a part of it.
    Hidden,
}

impl Target {
    /// A segment of this hour.
    pub fn segment(collection: &Collection, hour: Hour, name: &SegmentName) -> Target {
        let mut target = Target {
            path: format!("{collection}/{hour}/"),
            name: 0,
            check: Check::Hash(name.hash()),
            staged: Staged::Segment(hour, name.clone()),
        };
        target.name = target.path.len();
        target.path.push_str(name.as_str());
        target
    }

    /// The tombstone of a segment of this hour, which is an empty file.
    pub fn tombstone(collection: &Collection, hour: Hour, name: &SegmentName) -> Target {
        let mut target = Target::segment(collection, hour, name);
        target.path.truncate(target.name);
        target.path.push_str(&name.tombstone());
        target
    }

    /// A file in an extra directory.
    pub fn extra(dir: &ExtraDir, path: &ExtraPath) -> Target {
        let hash = path.hash_in(dir);
        let path = format!("{dir}/{path}");
        Target {
            name: path.rfind('/').map_or(0, |slash| slash + 1),
            path,
            check: hash.map_or(Check::Length, Check::Hash),
            staged: Staged::Hidden,
        }
    }

    /// What it is, or the tombstone of, if it's no extra file.
    pub fn segment_parts(&self) -> Option<SegmentParts<'_>> {
        let Staged::Segment(hour, name) = &self.staged else {
            return None;
        };
        let mut dirs = self.path.split('/');
        let (stream, variant) = (dirs.next()?, dirs.next()?);
        Some(SegmentParts { stream, variant, hour: *hour, name })
    }

    /// The path relative to the archive.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of its directory, which ends in a slash.
    pub fn dir(&self) -> &str {
        &self.path[..self.name]
    }

    /// By what its content is checked.
    pub fn check(&self) -> Check {
        self.check
    }

    /// The name under which it is staged.
    pub fn staged_name(&self, id: Uuid) -> String {
        match &self.staged {
            Staged::Segment(_, name) => name.staged(id),
            Staged::Hidden => format!(".{id}.temp"),
        }
    }

    /// The path of the tombstone that forbids it, if it is a segment.
    pub fn tombstone_path(&self) -> Option<String> {
        match &self.staged {
            Staged::Segment(_, name) => Some(format!("{}{}", self.dir(), name.tombstone())),
            Staged::Hidden => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}
