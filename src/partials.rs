//! What transfers that broke off have brought, kept so that the next attempt goes on from there,
//! whichever node it asks. The hash of the whole decides in the end whether the pieces fit.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use sha2::{Digest, Sha256};

use crate::archive::Staged;
use crate::error::LocalError;
use crate::lock::lock;
use crate::segment::SegmentHash;
use crate::target::Target;

/// How many are kept at a time; the oldest goes first.
const MAX_KEPT: usize = 64;
/// How much further than any before an attempt must come to count as one that moves, in bytes.
const MIN_PROGRESS: u64 = 1024;

/// The first part of a file, in a staged file.
pub struct Partial<'a> {
    /// Where it lies.
    pub staged: Staged<'a>,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it begins as web pages do.
    pub is_page: bool,
    hash: Sha256,
    /// How many transfers have brought it.
    pieces: u32,
    /// The node that all of it came from.
    node: Option<usize>,
}

impl<'a> Partial<'a> {
    /// Nothing yet of what this node is to send.
    pub fn new(staged: Staged<'a>, node: usize) -> Partial<'a> {
        let hash = Sha256::new();
        Partial { staged, size: 0, is_page: false, hash, pieces: 1, node: Some(node) }
    }

    /// The rest is to come from this node.
    pub fn go_on(&mut self, node: usize) {
        self.pieces += 1;
        self.node = self.node.filter(|first| *first == node);
    }

    /// Whether several transfers have brought it.
    pub fn is_pieced_together(&self) -> bool {
        self.pieces > 1
    }

    /// Appends what came.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        self.staged.write(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// The hash of what came so far.
    pub fn hash(&self) -> SegmentHash {
        SegmentHash(self.hash.clone().finalize().into())
    }
}

/// The partial files of a pass.
#[derive(Default)]
pub struct Partials<'a> {
    state: Mutex<State<'a>>,
}

#[derive(Default)]
struct State<'a> {
    /// The oldest first.
    kept: VecDeque<(Target, Partial<'a>)>,
    /// What is known of the files that some transfer broke off of, until they are settled.
    histories: HashMap<Target, History>,
    closed: bool,
}

#[derive(Default)]
struct History {
    /// How far the longest attempt came, in bytes.
    furthest: u64,
    /// Whether pieces that were put together were wrong as a whole. From then on a file is put
    /// together from pieces of one node alone, so that a node that lies spoils no other's.
    spoiled: bool,
}

impl<'a> Partials<'a> {
    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        lock(&self.state)
    }

    /// Takes out what there is of a file, if this node may go on with it.
    pub fn take(&self, target: &Target, node: usize) -> Option<Partial<'a>> {
        let mut state = self.lock();
        let at = state.kept.iter().position(|(kept, _)| kept == target)?;
        let is_spoiled = state.histories.get(target).is_some_and(|history| history.spoiled);
        if is_spoiled && state.kept[at].1.node != Some(node) {
            return None;
        }
        state.kept.remove(at).map(|(_, partial)| partial)
    }

    /// Keeps what came of a file, or what is kept already if that is more. Returns whether this
    /// attempt came further than any before: so each file has an end, wherever it is cut.
    pub fn keep(&self, target: &Target, partial: Partial<'a>) -> bool {
        // Whatever is not kept is dropped, which takes time, after the lock is.
        let mut dropped = Vec::new();
        let mut state = self.lock();
        if state.closed || partial.size == 0 {
            drop(state);
            return false;
        }
        let history = state.histories.entry(target.clone()).or_default();
        let moves = partial.size >= history.furthest.saturating_add(MIN_PROGRESS);
        history.furthest = history.furthest.max(partial.size);
        let other = state.kept.iter().position(|(kept, _)| kept == target);
        if let Some((_, other)) = other.and_then(|at| state.kept.remove(at)) {
            if other.size > partial.size {
                dropped.push(partial);
                state.kept.push_back((target.clone(), other));
            } else {
                dropped.push(other);
                state.kept.push_back((target.clone(), partial));
            }
        } else {
            state.kept.push_back((target.clone(), partial));
        }
        if state.kept.len() > MAX_KEPT {
            dropped.extend(state.kept.pop_front().map(|(_, oldest)| oldest));
        }
        drop(state);
        moves
    }

    /// Notes that the pieces of a file were wrong as a whole. Returns whether it's worth the while
    /// to fetch it from the start, which it is once.
    pub fn spoil(&self, target: &Target) -> bool {
        let mut state = self.lock();
        let history = state.histories.entry(target.clone()).or_default();
        let first = !history.spoiled;
        *history = History { furthest: if first { 0 } else { history.furthest }, spoiled: true };
        first
    }

    /// Drops what there is of a file: it landed, or nobody wants it any more.
    pub fn settle(&self, target: &Target) {
        let mut state = self.lock();
        state.histories.remove(target);
        let at = state.kept.iter().position(|(kept, _)| kept == target);
        let dropped = at.and_then(|at| state.kept.remove(at));
        drop(state);
        drop(dropped);
    }

    /// Drops everything, and keeps nothing from now on: the pass ends.
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
