//! The files in an hour's directory.

use std::collections::HashSet;
use std::mem;

use super::name_set::NameSet;
use super::staged_name::is_staged_by_us;
use crate::segment::SegmentName;

/// The files in an hour's directory when it was read.
#[derive(Debug)]
pub struct HourFiles {
    names: NameSet,
    /// Files whose content is known to be wrong.
    corrupt: HashSet<Box<str>>,
    /// Files in which a pass (this one or another) has staged a segment.
    staged: Vec<Box<str>>,
}

impl Default for HourFiles {
    fn default() -> Self {
        HourFiles { names: NameSet::reused(), corrupt: HashSet::new(), staged: Vec::new() }
    }
}

impl Drop for HourFiles {
    fn drop(&mut self) {
        mem::take(&mut self.names).recycle();
    }
}

impl HourFiles {
    pub(super) fn add(&mut self, name: &str) {
        if is_staged_by_us(name) {
            self.staged.push(name.into());
        }
        self.names.insert(name);
    }

    /// Whether there is a file of this name that is not marked corrupt.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The number of files, corrupt ones included.
    pub fn len(&self) -> usize {
        self.names.len() + self.corrupt.len()
    }

    /// Marks a file as corrupt. From then on it counts as missing.
    pub fn mark_corrupt(&mut self, name: &str) {
        if self.names.remove(name) {
            self.corrupt.insert(name.into());
        }
    }

    /// Whether there is a corrupt file of this name.
    pub fn is_corrupt(&self, name: &str) -> bool {
        self.corrupt.contains(name)
    }

    /// The names of files in which passes stage segments, or did before they died.
    pub fn staged(&self) -> &[Box<str>] {
        &self.staged
    }

    /// Whether this segment was deleted on purpose.
    pub fn has_tombstone_of(&self, segment: &SegmentName) -> bool {
        self.names.contains(segment.tombstone().as_str())
    }

    /// The names of all files that are not marked corrupt, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter()
    }
}

impl<'a> FromIterator<&'a str> for HourFiles {
    fn from_iter<T: IntoIterator<Item = &'a str>>(names: T) -> Self {
        let mut files = HourFiles::default();
        names.into_iter().for_each(|name| files.names.insert(name));
        files
    }
}
