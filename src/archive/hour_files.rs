//! What lies in the directory of an hour.

use std::collections::HashSet;

use super::staged_name::is_staged_by_us;
use crate::segment::SegmentName;

/// The files in one hour's directory, as they were when it was read.
#[derive(Debug, Default)]
pub struct HourFiles {
    names: HashSet<Box<str>>,
    /// Those of which the content is known to be wrong.
    corrupt: HashSet<Box<str>>,
    /// The files in which a pass (this or another one) has staged a segment.
    staged: Vec<Box<str>>,
}

impl HourFiles {
    pub(super) fn add(&mut self, name: &str) {
        if is_staged_by_us(name) {
            self.staged.push(name.into());
        }
        self.names.insert(name.into());
    }

    /// Whether a file of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// How many files are there.
    pub fn len(&self) -> usize {
        self.names.len() + self.corrupt.len()
    }

    /// Notes that a file is corrupt: it's as good as not here.
    pub fn mark_corrupt(&mut self, name: &str) {
        self.corrupt.extend(self.names.take(name));
    }

    /// Whether a file of this name is there, but corrupt.
    pub fn is_corrupt(&self, name: &str) -> bool {
        self.corrupt.contains(name)
    }

    /// The names of the files in which passes stage segments, or did before they died.
    pub fn staged(&self) -> &[Box<str>] {
        &self.staged
    }

    /// Whether this segment was deleted on purpose.
    pub fn has_tombstone_of(&self, segment: &SegmentName) -> bool {
        self.names.contains(segment.tombstone().as_str())
    }

    /// All names, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

impl<'a> FromIterator<&'a str> for HourFiles {
    fn from_iter<T: IntoIterator<Item = &'a str>>(names: T) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        HourFiles { names, ..HourFiles::default() }
    }
}
