//! Open directories, and their flushes. Directories in which files are renamed are kept open while
//! they are in use. One flush serves all threads that wait for it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use log::warn;
use rustix::fs::{Mode, mkdirat};
use rustix::io::{Errno, retry_on_intr};

use super::dir::{For, has_only_in_other_case, is_plain};
use super::tree::{FRESH, Part, Tree, file_name};
use crate::error::plain;
use crate::lock::{lock, unpoisoned};

/// How many directories are kept open. It bounds the open descriptors; more directories are rarely
/// in use at once.
const MAX_OPEN: usize = 64;

/// The directories of an archive in which files are renamed.
#[derive(Debug, Default)]
pub struct Dirs {
    open: Mutex<HashMap<String, Arc<OpenDir>>>,
    /// The directories that this pass created, parents first.
    made: Mutex<Vec<String>>,
    /// The first failed flush. After a failure the system may have dropped what it could not write,
    /// so the success of a later flush proves nothing.
    failed: OnceLock<Errno>,
    warned_unflushed: AtomicBool,
}

/// A directory that is kept open.
#[derive(Debug)]
pub struct OpenDir {
    /// The directory.
    pub file: File,
    /// Its path in the archive.
    pub path: String,
    /// Its device.
    pub device: u64,
    part: Part,
    /// Whether we may list it, and so flush it.
    is_readable: bool,
    /// Whether each file must be flushed again after the directory.
    flushes_files: AtomicBool,
    checked: Mutex<Instant>,
    state: Mutex<FlushState>,
    over: Condvar,
}

/// How far the flushes of a directory have got.
#[derive(Debug, Default)]
struct FlushState {
    /// How many flushes have been requested.
    asked: u64,
    /// How many of these requests have been served. The first flush includes the parent
    /// directories.
    served: u64,
    flushing: bool,
}

impl Dirs {
    /// A directory by its path in the archive; opened now, unless it is open already.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be opened, or its disk was mounted or unmounted since it was
    /// first opened (`ESTALE`).
    pub fn get(&self, tree: &Tree, path: &str, part: Part) -> io::Result<Arc<OpenDir>> {
        let known = lock(&self.open).get(path).cloned();
        if let Some(known) = &known
            && lock(&known.checked).elapsed() < FRESH
        {
            return Ok(known.clone());
        }
        let found = OpenDir::open(tree, path, part);
        let mut open = lock(&self.open);
        let found = match found {
            // Still the same directory: keep what is known of its flushes.
            Ok(found) => match known {
                Some(known) if found.is_same(&known)? => {
                    *lock(&known.checked) = Instant::now();
                    known
                }
                // A disk was mounted there, or unmounted.
                Some(known) if found.device != known.device => return Err(Errno::STALE.into()),
                _ => Arc::new(found),
            },
            Err(e) => {
                open.remove(path);
                return Err(e);
            }
        };
        if open.len() >= MAX_OPEN && !open.contains_key(path) {
            open.clear();
        }
        open.insert(path.to_owned(), found.clone());
        Ok(found)
    }

    /// As [`Dirs::get`], but creates missing directories first.
    ///
    /// # Errors
    ///
    /// Fails as [`Dirs::get`] does, or if a directory can't be created.
    pub fn make(&self, tree: &Tree, path: &str, part: Part) -> io::Result<Arc<OpenDir>> {
        lock(&self.open).remove(path);
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut parent = String::new();
        for end in ends {
            let (dir, name) = (tree.enter(&parent, part, For::Reaching)?, &path[..end]);
            match mkdirat(&dir, file_name(name), Mode::from_raw_mode(0o777)) {
                Ok(()) => lock(&self.made).push(name.to_owned()),
                Err(Errno::EXIST) => {}
                // It may exist even where we may not create anything.
                Err(e) if tree.enter(name, part, For::Reaching).is_err() => {
                    return Err(e.into());
                }
                Err(_) => {}
            }
            name.clone_into(&mut parent);
        }
        self.get(tree, path, part)
    }

    /// Takes the paths of the directories that were created, parents first.
    pub fn take_made(&self) -> Vec<String> {
        let mut made = std::mem::take(&mut *lock(&self.made));
        // Another thread may have noted what it created in a new directory before that was noted.
        made.sort_unstable();
        made
    }

    /// Makes the renames in a directory durable. The first time, this includes the path to it, even
    /// if other programs created it: after a power cut a file can be found only if every directory
    /// above it can. Returns once a flush has finished that started after this call.
    ///
    /// # Errors
    ///
    /// Fails if this flush or any flush before it failed.
    pub fn flush(&self, tree: &Tree, dir: &OpenDir) -> io::Result<()> {
        let mut state = lock(&dir.state);
        state.asked += 1;
        let ours = state.asked;
        while state.flushing && state.served < ours {
            state = unpoisoned(dir.over.wait(state));
        }
        self.check()?;
        if state.served >= ours {
            return Ok(());
        }
        let (asked, is_first) = (state.asked, state.served == 0);
        state.flushing = true;
        drop(state);
        let flushed = self.flush_now(tree, dir, is_first);
        let mut state = lock(&dir.state);
        state.flushing = false;
        let others = state.asked - state.served > 1;
        match flushed {
            Ok(()) => state.served = asked,
            // All waiting threads get this error.
            Err(e) => drop(self.failed.set(e)),
        }
        if others {
            dir.over.notify_all();
        }
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        self.failed.get().map_or(Ok(()), |e| Err((*e).into()))
    }

    fn flush_now(&self, tree: &Tree, dir: &OpenDir, is_first: bool) -> Result<(), Errno> {
        let flushed = if dir.is_readable {
            self.flush_dir(&dir.file, &dir.path)?
        } else {
            self.warn_unflushed(&dir.path, Errno::ACCESS);
            false
        };
        if !flushed {
            dir.flushes_files.store(true, Ordering::Relaxed);
        }
        let mut path = &*dir.path;
        while is_first && !path.is_empty() {
            let child = path;
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            match tree.enter(path, dir.part, For::Listing) {
                Ok(parent) => drop(self.flush_dir(&parent, path)?),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    // Nothing to flush unless we created something in it.
                    if lock(&self.made).iter().any(|made| made == child) {
                        self.warn_unflushed(path, Errno::ACCESS);
                    }
                }
                Err(e) => return Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
            }
        }
        Ok(())
    }

    /// Flushes a directory. Returns whether that was possible: some file systems refuse to flush
    /// directories, or can't.
    fn flush_dir(&self, dir: &File, path: &str) -> Result<bool, Errno> {
        match retry_on_intr(|| rustix::fs::fsync(dir)) {
            Err(
                e @ (Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::ACCESS | Errno::BADF),
            ) => {
                self.warn_unflushed(path, e);
                Ok(false)
            }
            flushed => flushed.map(|()| true),
        }
    }

    /// Warns once that a directory was not flushed. The pass continues, as every directory would
    /// fail in the same way.
    fn warn_unflushed(&self, path: &str, why: Errno) {
        if !self.warned_unflushed.swap(true, Ordering::Relaxed) {
            let path = if path.is_empty() { "the archive's directory" } else { path };
            warn!(
                "{path} can't be flushed ({}): files may be lost in a power cut \
                 (--no-fsync skips flushing)",
                plain(&why.into())
            );
        }
    }
}

impl OpenDir {
    fn open(tree: &Tree, path: &str, part: Part) -> io::Result<OpenDir> {
        let (file, is_readable) = match tree.enter(path, part, For::Listing) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                (tree.enter(path, part, For::Reaching)?, false)
            }
            opened => (opened?, true),
        };
        Ok(OpenDir {
            flushes_files: AtomicBool::new(needs_flushed_files(&file)),
            device: file.metadata()?.dev(),
            file,
            path: path.to_owned(),
            part,
            is_readable,
            checked: Mutex::new(Instant::now()),
            state: Mutex::default(),
            over: Condvar::new(),
        })
    }

    /// Whether there is a plain file of this name. For an extra file, upper and lower case count; for
    /// a segment, they need not: its name has a hash in it.
    pub fn has(&self, name: &str) -> bool {
        let is_other = || {
            self.part == Part::Extras && has_only_in_other_case(&self.file, name).unwrap_or(false)
        };
        is_plain(&self.file, name) && !is_other()
    }

    /// Whether a file must be flushed again after its directory.
    pub fn flushes_files(&self) -> bool {
        self.flushes_files.load(Ordering::Relaxed)
    }

    fn is_same(&self, other: &OpenDir) -> io::Result<bool> {
        let (ours, theirs) = (self.file.metadata()?, other.file.metadata()?);
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }
}

/// Whether flushing a directory is not enough on this file system. Layers over other file systems
/// (mergerfs, bindfs, sshfs) don't pass the flush on. XFS, after a failed write to its log, lets
/// the next flush of a directory succeed, but not one of a file. On these, flushing the file after
/// its rename makes it durable, at almost no cost. On Btrfs that would take a third more time, and
/// like ext4 it doesn't need it.
#[cfg(target_os = "linux")]
#[allow(clippy::unnecessary_cast, reason = "the type differs by architecture")]
fn needs_flushed_files(dir: &File) -> bool {
    const EXT: i64 = 0xef53;
    const BTRFS: i64 = 0x9123_683e;
    const TMPFS: i64 = 0x0102_1994;
    rustix::fs::fstatfs(dir)
        .is_ok_and(|found| ![EXT, BTRFS, TMPFS].contains(&(found.f_type as i64)))
}

#[cfg(not(target_os = "linux"))]
fn needs_flushed_files(_dir: &File) -> bool {
    true
}
