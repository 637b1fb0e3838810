//! A set of names whose memory is used again.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::lock::lock;

/// The size of a chunk of text, in bytes. An hour of 1,800 names takes three.
const CHUNK: usize = 64 << 10;
/// Ends a name. No name of a file contains it.
const END: char = '/';

/// Sets that are no longer used.
///
/// An hour may have 200,000 names, and any worker may read it. The workers allocate in different
/// heaps, of which glibc returns only the top to the system, and the few names that a pass keeps for
/// longer are above the many others. So without this, each heap would grow to the size of such an
/// hour.
static SPARE: Mutex<Vec<NameSet>> = Mutex::new(Vec::new());
/// The most sets to keep.
const MAX_SPARE: usize = 4;

/// A set of names of files.
#[derive(Debug, Default)]
pub(super) struct NameSet {
    /// The names, each within one chunk.
    chunks: Vec<String>,
    /// How many chunks are full.
    full: usize,
    /// Where each name starts.
    starts: HashTable<Start>,
    hasher: RandomState,
}

/// The number of the chunk, times its size, plus the place in it.
type Start = usize;

impl NameSet {
    /// An empty set, with the memory of an earlier one if there is one.
    pub(super) fn reused() -> NameSet {
        lock(&SPARE).pop().unwrap_or_default()
    }

    /// Keeps the memory of this set for others.
    pub(super) fn recycle(mut self) {
        let mut spare = lock(&SPARE);
        if spare.len() < MAX_SPARE && !self.chunks.is_empty() {
            self.chunks.iter_mut().for_each(String::clear);
            self.full = 0;
            self.starts.clear();
            spare.push(self);
        }
    }

    pub(super) fn insert(&mut self, name: &str) {
        let hash = self.hasher.hash_one(name);
        let is_name = |start: &Start| at(&self.chunks, *start) == name;
        let rehash = |start: &Start| self.hasher.hash_one(at(&self.chunks, *start));
        let Entry::Vacant(vacant) = self.starts.entry(hash, is_name, rehash) else { return };
        let len = name.len() + END.len_utf8();
        if self.chunks.get(self.full).is_some_and(|chunk| chunk.len() + len > CHUNK) {
            self.full += 1;
        }
        if self.full == self.chunks.len() {
            self.chunks.push(String::new());
        }
        let chunk = &mut self.chunks[self.full];
        vacant.insert(self.full * CHUNK + chunk.len());
        chunk.push_str(name);
        chunk.push(END);
    }

    /// Returns whether the name was in the set.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let found = self.starts.find_entry(hash, |start| at(&self.chunks, *start) == name);
        found.map(|entry| entry.remove()).is_ok()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        self.starts.find(hash, |start| at(&self.chunks, *start) == name).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// The names, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.starts.iter().map(|start| at(&self.chunks, *start))
    }
}

fn at(chunks: &[String], start: Start) -> &str {
    let rest = &chunks[start / CHUNK][start % CHUNK..];
    rest.split_once(END).map_or(rest, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few and short names, so that many are inserted or removed twice.
        #[test]
        fn a_name_set_is_a_set(steps in prop::collection::vec((any::<bool>(), "[ab]{0,3}"), 0..100)) {
            let (mut names, mut model) = (NameSet::reused(), HashSet::new());
            for (inserts, name) in &steps {
                if *inserts {
                    names.insert(name);
                    model.insert(name.as_str());
                } else {
                    prop_assert_eq!(names.remove(name), model.remove(name.as_str()));
                }
                prop_assert_eq!(names.contains(name), *inserts);
                prop_assert_eq!(names.len(), model.len());
                prop_assert_eq!(names.iter().collect::<HashSet<_>>(), model.clone());
            }
            names.recycle();
        }
    }

    #[test]
    fn many_long_names_fill_several_chunks() {
        let all: Vec<String> = (0..3000).map(|n| format!("{n:0>255}")).collect();
        let mut names = NameSet::reused();
        all.iter().for_each(|name| names.insert(name));
        assert!(names.full > 2);
        assert!(names.chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        assert!(all.iter().all(|name| names.contains(name)));
        assert_eq!(names.iter().collect::<HashSet<_>>(), all.iter().map(|name| &**name).collect());
        names.recycle();
        let names = NameSet::reused();
        assert_eq!((names.len(), names.contains(&all[0]), names.iter().count()), (0, false, 0));
    }
}
