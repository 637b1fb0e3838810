//! Directories that files are renamed in: kept open for as long as they are in use, and flushed,
//! one flush for all who wait for it.

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

use super::dir::For;
use super::tree::{FRESH, Tree, file_name};
use crate::error::plain;
use crate::lock::{lock, unpoisoned};

/// How many directories are kept open.
const MAX_OPEN: usize = 64;

/// The directories of an archive that files are renamed in.
#[derive(Debug, Default)]
pub struct Dirs {
    open: Mutex<HashMap<String, Arc<OpenDir>>>,
    /// Those that we have made, parents first.
    made: Mutex<Vec<String>>,
    /// The first failed flush. After it the system may have forgotten what it could not write, and
    /// later flushes that succeed say nothing.
    failed: OnceLock<Errno>,
    told_unflushed: AtomicBool,
}

/// A directory that is kept open.
#[derive(Debug)]
pub struct OpenDir {
    /// The directory.
    pub file: File,
    /// Its path in the archive.
    pub path: String,
    /// The device that it is on.
    pub device: u64,
    is_extra: bool,
    /// Whether it may be listed, and so flushed.
    is_readable: bool,
    /// Whether each file is flushed once more after it.
    flushes_files: AtomicBool,
    checked: Mutex<Instant>,
    state: Mutex<FlushState>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct FlushState {
    /// How many have asked for a flush.
    asked: u64,
    /// How many of them have been served; with the first, the parents were flushed.
    served: u64,
    flushing: bool,
}

impl Dirs {
    /// A directory by its path in the archive: kept open from before, or opened now.
    pub fn get(&self, tree: &Tree, path: &str, is_extra: bool) -> io::Result<Arc<OpenDir>> {
        let known = lock(&self.open).get(path).cloned();
        if let Some(known) = &known
            && lock(&known.checked).elapsed() < FRESH
        {
            return Ok(known.clone());
        }
        let found = OpenDir::open(tree, path, is_extra);
        let mut open = lock(&self.open);
        let found = match found {
            // The same as before, with all that is known of its flushes.
            Ok(found) => match known {
                Some(known) if found.is_same(&known)? => {
                    *lock(&known.checked) = Instant::now();
                    known
                }
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

    /// The same, and makes what is missing of it.
    pub fn make(&self, tree: &Tree, path: &str, is_extra: bool) -> io::Result<Arc<OpenDir>> {
        lock(&self.open).remove(path);
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let mut parent = String::new();
        for end in ends {
            let (dir, name) = (tree.enter(&parent, is_extra, For::Reaching)?, &path[..end]);
            match mkdirat(&dir, file_name(name), Mode::from_raw_mode(0o777)) {
                Ok(()) => lock(&self.made).push(name.to_owned()),
                Err(Errno::EXIST) => {}
                // Where nothing may be made, all may be there.
                Err(e) if tree.enter(name, is_extra, For::Reaching).is_err() => {
                    return Err(e.into());
                }
                Err(_) => {}
            }
            name.clone_into(&mut parent);
        }
        self.get(tree, path, is_extra)
    }

    /// Takes the paths of the directories that were made, parents first.
    pub fn take_made(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.made))
    }

    /// Makes the renames in a directory durable, and the first time the path to it too, whoever
    /// made that: a file that is found after a power cut needs every directory above it. Returns
    /// once a flush is over that began after this was called.
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
        match flushed {
            Ok(()) => state.served = asked,
            // For all that wait, too.
            Err(e) => drop(self.failed.set(e)),
        }
        dir.over.notify_all();
        self.check()
    }

    fn check(&self) -> io::Result<()> {
        self.failed.get().map_or(Ok(()), |e| Err((*e).into()))
    }

    fn flush_now(&self, tree: &Tree, dir: &OpenDir, is_first: bool) -> Result<(), Errno> {
        let flushed = match dir.is_readable {
            true => self.flush_dir(&dir.file, &dir.path)?,
            false => self.tell_unflushed(&dir.path, Errno::ACCESS),
        };
        if !flushed {
            dir.flushes_files.store(true, Ordering::Relaxed);
        }
        let mut path = &*dir.path;
        while is_first && !path.is_empty() {
            let child = path;
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            match tree.enter(path, dir.is_extra, For::Listing) {
                Ok(parent) => drop(self.flush_dir(&parent, path)?),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    // Not ours to flush if nothing was made in it.
                    if lock(&self.made).iter().any(|made| made == child) {
                        self.tell_unflushed(path, Errno::ACCESS);
                    }
                }
                Err(e) => return Err(e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)),
            }
        }
        Ok(())
    }

    /// Says whether it was flushed: some file systems refuse to flush a directory, or don't know how.
    fn flush_dir(&self, dir: &File, path: &str) -> Result<bool, Errno> {
        match retry_on_intr(|| rustix::fs::fsync(dir)) {
            Err(
                e @ (Errno::INVAL | Errno::NOTSUP | Errno::NOSYS | Errno::ACCESS | Errno::BADF),
            ) => Ok(self.tell_unflushed(path, e)),
            flushed => flushed.map(|()| true),
        }
    }

    /// Warns once that a directory was not flushed. The pass goes on: each of them would end so.
    fn tell_unflushed(&self, path: &str, why: Errno) -> bool {
        if !self.told_unflushed.swap(true, Ordering::Relaxed) {
            let path = if path.is_empty() { "the archive's directory" } else { path };
            warn!(
                "{path} can't be flushed ({}): what landed may be lost in a power cut \
                 (--no-fsync skips flushing)",
                plain(&why.into())
            );
        }
        false
    }
}

impl OpenDir {
    fn open(tree: &Tree, path: &str, is_extra: bool) -> io::Result<OpenDir> {
        let (file, is_readable) = match tree.enter(path, is_extra, For::Listing) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                (tree.enter(path, is_extra, For::Reaching)?, false)
            }
            opened => (opened?, true),
        };
        Ok(OpenDir {
            flushes_files: AtomicBool::new(needs_flushed_files(&file)),
            device: file.metadata()?.dev(),
            file,
            path: path.to_owned(),
            is_extra,
            is_readable,
            checked: Mutex::new(Instant::now()),
            state: Mutex::default(),
            over: Condvar::new(),
        })
    }

    /// Whether a file must be flushed again once its directory is.
    pub fn flushes_files(&self) -> bool {
        self.flushes_files.load(Ordering::Relaxed)
    }

    fn is_same(&self, other: &OpenDir) -> io::Result<bool> {
        let (ours, theirs) = (self.file.metadata()?, other.file.metadata()?);
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }
}

/// Whether the flush of a directory leaves something to wish for on this file system. Layers on top
/// of others (mergerfs, bindfs, sshfs) don't pass it on. After a failed write to its log, XFS lets
/// the next flush of a directory succeed, but none of a file. On these a flush of the file after it
/// was renamed does it, at next to no cost. It costs a third on Btrfs, which needs it no more than
/// ext4 does.
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
