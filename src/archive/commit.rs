//! How a file enters the archive: it is staged, checked by whoever writes it, flushed, and renamed.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use uuid::Uuid;

use super::Archive;
use crate::error::LocalError;
use crate::segment::{Medium, SegmentName};

/// The first bytes of the UUIDs in the names of our staged files, by which a later pass can tell
/// them from those of other writers.
const STAGED_BY_US: &[u8; 4] = b"bkfl";
/// Knows the staged files, so that a pass can end without leaving one behind.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    staged: HashSet<PathBuf>,
    /// Nothing more is staged.
    closed: bool,
    /// Nothing more is committed.
    abandoned: bool,
}

impl Gate {
    /// Lets nothing more be staged, and waits until nothing is, at most so long.
    pub fn close(&self, patience: Duration) {
        let mut state = self.lock();
        state.closed = true;
        let busy = |state: &mut GateState| !state.staged.is_empty();
        let waited = self.left.wait_timeout_while(state, patience, busy);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.abandoned = true;
        for path in state.staged.drain() {
            let _ = fs::remove_file(path);
        }
        self.left.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, path: &Path) -> bool {
        let mut state = self.lock();
        if !state.closed {
            state.staged.insert(path.to_owned());
        }
        !state.closed
    }

    pub fn leave(&self, path: &Path) {
        self.lock().staged.remove(path);
        self.left.notify_all();
    }
}

/// Whether a name is one of those that we give to staged files: that of a segment or a hidden one,
/// with a UUID that has our mark in the place where such a name has a UUID.
pub(super) fn is_staged_by_us(name: &str) -> bool {
    let is_ours = |id: &str| {
        let id = Uuid::try_parse(id).ok().filter(|_| id.len() == 36);
        id.is_some_and(|id| id.get_version_num() == 8 && id.as_bytes().starts_with(STAGED_BY_US))
    };
    if let Some(rest) = name.strip_suffix(".temp") {
        let Some((segment, id)) = rest.rsplit_once('.') else {
            return false;
        };
        return is_ours(id)
            && (segment.is_empty() || SegmentName::parse(segment, Medium::Chat).is_ok());
    }
    match name.strip_suffix(".ts").and_then(|rest| rest.split_once("-temp-")) {
        Some((start, id)) => is_ours(id) && start.split('-').count() == 2,
        None => false,
    }
}

/// A random UUID (version 8, custom) that carries our mark.
pub(super) fn staged_id() -> Uuid {
    let mut bytes: [u8; 16] = rand::random();
    bytes[..4].copy_from_slice(STAGED_BY_US);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What became of a committed file.
#[derive(Debug)]
pub enum Committed<'a> {
    /// It is here now, by us. The archive isn't closed before this is dropped, so that there is
    /// time to tell of it.
    Landed(Landing<'a>),
    /// Another writer was quicker: the same segment was here already, and is untouched.
    WasHere,
    /// The archive was closed before.
    Abandoned,
}

/// A file that has landed, and that nobody has been told of yet.
#[derive(Debug)]
pub struct Landing<'a> {
    /// What keeps the archive from being closed.
    _staged: Staged<'a>,
}

/// How a staged file gets its final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Never over another file.
    New,
    /// In the place of one that is known to be corrupt.
    Repair,
}

/// A file that is being written. It is removed unless it's committed.
#[derive(Debug)]
pub struct Staged<'a> {
    pub(super) archive: &'a Archive,
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) place: PathBuf,
    pub(super) is_there: bool,
}

impl<'a> Staged<'a> {
    /// Appends to the staged file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        let write = self.file.write_all(bytes);
        write.map_err(|e| LocalError::new("writing", &self.path, e))
    }

    /// Gives the file its final name. Only content that was checked against that name may be
    /// committed. Once this returns, the file survives a power cut (unless flushing is off).
    pub fn commit(mut self, how: Commit) -> Result<Committed<'a>, LocalError> {
        if self.archive.fsync {
            let flush = self.file.sync_data();
            flush.map_err(|e| LocalError::new("flushing", &self.path, e))?;
        }
        let renamed = {
            let gate = self.archive.gate.lock();
            match how {
                _ if gate.abandoned => return Ok(Committed::Abandoned),
                Commit::New => rename_new(&self.path, &self.place),
                Commit::Repair => fs::rename(&self.path, &self.place),
            }
        };
        match renamed {
            Ok(()) => self.is_there = false,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.place.is_file() => {
                return Ok(Committed::WasHere);
            }
            Err(e) => return Err(LocalError::new("renaming to", &self.place, e)),
        }
        if let (true, Some(dir)) = (self.archive.fsync, self.place.parent()) {
            self.archive.flush_renames_in(dir)?;
        }
        Ok(Committed::Landed(Landing { _staged: self }))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.is_there {
            let _ = fs::remove_file(&self.path);
        }
        self.archive.gate.leave(&self.path);
    }
}

/// Renames a file, but never over another.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_exclusive(from, to) {
        // The file system knows no such rename. A hard link has the same effect; where there are
        // no links either, looking first is the best that is left, and what it might replace in
        // between has the same name, so the same content.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
            Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        renamed => renamed.map_err(io::Error::from),
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_exclusive(from: &Path, to: &Path) -> Result<(), Errno> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_exclusive(_from: &Path, _to: &Path) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}
