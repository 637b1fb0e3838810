//! The parts received by interrupted transfers, kept so that the next attempt resumes from there,
//! whichever node it goes to. In the end, the hash of the whole file decides whether the parts fit.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use sha2::{Digest, Sha256};

use crate::archive::Staged;
use crate::error::LocalError;
use crate::lock::lock;
use crate::segment::SegmentHash;
use crate::target::Target;

/// How many parts are kept; the oldest is dropped first. Each holds an open file, and there are
/// rarely more interrupted files at once.
const MAX_KEPT: usize = 64;
/// How much further than any before an attempt must get to count as progress, in bytes. Otherwise a
/// node that adds a byte per attempt would keep a file going for ever.
const MIN_PROGRESS: u64 = 1024;

/// The first part of a file, in a staged file.
pub struct Partial<'a> {
    /// The staged file.
    pub staged: Staged<'a>,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it looks like a web page.
    pub is_page: bool,
    hash: Sha256,
    /// How many transfers it comes from.
    pieces: u32,
    /// The node, if all of it came from one.
    node: Option<usize>,
}

impl<'a> Partial<'a> {
    /// An empty part of a file that this node will send.
    pub fn new(staged: Staged<'a>, node: usize) -> Partial<'a> {
        let hash = Sha256::new();
        Partial { staged, size: 0, is_page: false, hash, pieces: 1, node: Some(node) }
    }

    /// Notes that this node will send the rest.
    pub fn continue_from(&mut self, node: usize) {
        self.pieces += 1;
        self.node = self.node.filter(|first| *first == node);
    }

    /// Whether it comes from several transfers.
    pub fn is_pieced_together(&self) -> bool {
        self.pieces > 1
    }

    /// Appends received bytes.
    ///
    /// # Errors
    ///
    /// Fails if the staged file can't be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        self.staged.write(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// The hash of what was received so far.
    pub fn hash(&self) -> SegmentHash {
        SegmentHash(self.hash.clone().finalize().into())
    }
}

/// The partial files of a pass.
#[derive(Default)]
pub struct Partials<'a> {
    state: Mutex<State<'a>>,
}

/// The file that a part belongs to. From the time that the file was wrong after pieces were joined,
/// also the node that sent it: then only pieces of the same node are joined, so that a node that
/// lies can't spoil those of others.
type Key = (Target, Option<usize>);

/// The parts that are kept, and what is known of the files that they belong to.
#[derive(Default)]
struct State<'a> {
    /// Oldest first.
    kept: VecDeque<(Key, Partial<'a>)>,
    /// The histories of files with interrupted transfers, until they are settled.
    histories: HashMap<Target, History>,
    closed: bool,
}

/// The interrupted transfers of a file.
#[derive(Default)]
struct History {
    /// How far the longest attempt got, in bytes; once the file is spoiled, of each node.
    furthest: HashMap<Option<usize>, u64>,
    /// Whether the file was wrong after pieces were joined.
    spoiled: bool,
}

impl<'a> State<'a> {
    /// The key of a part that comes from this node; `None` for several nodes.
    fn key(&self, target: &Target, node: Option<usize>) -> Key {
        let is_spoiled = self.histories.get(target).is_some_and(|history| history.spoiled);
        (target.clone(), node.filter(|_| is_spoiled))
    }

    fn remove(&mut self, key: &Key) -> Option<Partial<'a>> {
        let at = self.kept.iter().position(|(kept, _)| kept == key)?;
        self.kept.remove(at).map(|(_, partial)| partial)
    }
}

impl<'a> Partials<'a> {
    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        lock(&self.state)
    }

    /// Takes the part kept of a file, if this node may resume it.
    pub fn take(&self, target: &Target, node: usize) -> Option<Partial<'a>> {
        let mut state = self.lock();
        let key = state.key(target, Some(node));
        state.remove(&key)
    }

    /// Keeps the part received of a file, or the one already kept if that is longer. Returns
    /// whether this attempt got further than any before. Attempts that don't are limited, so every
    /// file comes to an end, wherever its transfers are cut.
    pub fn keep(&self, target: &Target, partial: Partial<'a>) -> bool {
        // Dropping a part takes time, so it happens after the lock is released.
        let mut dropped = Vec::new();
        let mut state = self.lock();
        if state.closed || partial.size == 0 {
            drop(state);
            return false;
        }
        let key = state.key(target, partial.node);
        let history = state.histories.entry(target.clone()).or_default();
        let furthest = history.furthest.entry(key.1).or_default();
        let moves = partial.size >= furthest.saturating_add(MIN_PROGRESS);
        *furthest = partial.size.max(*furthest);
        let longest = match state.remove(&key) {
            Some(other) if other.size > partial.size => {
                dropped.push(partial);
                other
            }
            other => {
                dropped.extend(other);
                partial
            }
        };
        state.kept.push_back((key, longest));
        if state.kept.len() > MAX_KEPT {
            dropped.extend(state.kept.pop_front().map(|(_, oldest)| oldest));
        }
        drop(state);
        moves
    }

    /// Notes that a file joined from pieces was wrong. Returns whether to fetch it again from the
    /// start, which is worth doing once.
    pub fn spoil(&self, target: &Target) -> bool {
        let mut state = self.lock();
        let history = state.histories.entry(target.clone()).or_default();
        !std::mem::replace(&mut history.spoiled, true)
    }

    /// Drops the parts kept of a file that has landed or is no longer wanted.
    pub fn settle(&self, target: &Target) {
        let mut state = self.lock();
        state.histories.remove(target);
        let kept = std::mem::take(&mut state.kept).into_iter();
        let (dropped, kept): (VecDeque<_>, _) = kept.partition(|((kept, _), _)| kept == target);
        state.kept = kept;
        drop(state);
        drop(dropped);
    }

    /// Drops everything, and keeps nothing from now on, as the pass ends.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.kept);
        drop(state);
        drop(dropped);
    }
}

impl fmt::Debug for Partials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partials").finish_non_exhaustive()
    }
}
