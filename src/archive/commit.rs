//! How a file enters the archive: it is staged, checked by its writer, flushed and renamed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::fchown;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fstat, linkat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::Archive;
use super::dir::{is_plain, open_plain};
use super::flush::OpenDir;
use crate::error::LocalError;
use crate::lock::{lock, unpoisoned};

/// The disk space that even an empty file may take, in bytes: one block of a usual file system.
const LEAST_FILE: u64 = 4096;

/// Keeps track of the staged files, so that a pass can end without leaving any behind.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    left: Condvar,
    /// No more files are committed. A commit holds this lock while it renames, which commits of
    /// other files may do at the same time.
    abandoned: RwLock<bool>,
}

/// What is staged, and whether more may be.
#[derive(Debug, Default)]
struct GateState {
    /// The directories of the staged files, by their names, which are unique.
    staged: HashMap<String, Arc<OpenDir>>,
    /// No more files are staged.
    closed: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        lock(&self.state)
    }

    /// Stops staging. Returns whether staging was possible until now.
    pub fn shut(&self) -> bool {
        !std::mem::replace(&mut self.lock().closed, true)
    }

    /// Whether staging has stopped.
    pub fn is_shut(&self) -> bool {
        self.lock().closed
    }

    /// Stops staging, waits for at most `patience` until no file is staged, and removes those that
    /// still are.
    pub fn close(&self, patience: Duration) {
        let mut state = self.lock();
        state.closed = true;
        let busy = |state: &mut GateState| !state.staged.is_empty();
        let waited = self.left.wait_timeout_while(state, patience, busy);
        let mut state = unpoisoned(waited).0;
        *unpoisoned(self.abandoned.write()) = true;
        for (name, dir) in state.staged.drain() {
            let _ = unlinkat(&dir.file, name, AtFlags::empty());
        }
        self.left.notify_all();
    }

    fn enter(&self, dir: &Arc<OpenDir>, name: &str) -> bool {
        let mut state = self.lock();
        if !state.closed {
            state.staged.insert(name.to_owned(), dir.clone());
        }
        !state.closed
    }

    /// Whether this pass has a file of this name staged.
    pub fn has(&self, name: &str) -> bool {
        self.lock().staged.contains_key(name)
    }

    fn leave(&self, name: &str) {
        let mut state = self.lock();
        state.staged.remove(name);
        if state.closed {
            self.left.notify_all();
        }
    }
}

/// The outcome of a commit.
#[derive(Debug)]
pub enum Committed<'a> {
    /// We added the file. The archive can't be closed until this is dropped, which leaves time to
    /// report the file.
    Landed(Landing<'a>),
    /// Another writer was faster: the same segment was here already, and was not replaced.
    WasHere,
    /// The archive was closed, or the file given up, before the commit.
    Abandoned,
}

/// A file that has landed but is not yet reported.
#[derive(Debug)]
pub struct Landing<'a> {
    /// Keeps the archive from being closed.
    _staged: Staged<'a>,
}

/// How a staged file gets its final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Never replace another file.
    New,
    /// Replace a file that is known to be corrupt.
    Repair,
}

/// A file that is being written. Dropping it removes it, unless it was committed.
#[derive(Debug)]
pub struct Staged<'a> {
    archive: &'a Archive,
    dir: Arc<OpenDir>,
    /// `None` once it is closed.
    file: Option<File>,
    staged: String,
    name: String,
    is_there: bool,
    /// It can't be finished; the reason was already reported.
    is_given_up: bool,
}

impl<'a> Staged<'a> {
    /// Creates the staged file in an open directory, for a file of this name. Returns `None` if the
    /// archive is closed.
    pub(super) fn create(
        archive: &'a Archive,
        dir: Arc<OpenDir>,
        staged: String,
        name: &str,
    ) -> io::Result<Option<Staged<'a>>> {
        if !archive.gate.enter(&dir, &staged) {
            return Ok(None);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match openat(&dir.file, &staged, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => {
                let (file, name) = (Some(file.into()), name.to_owned());
                let (is_there, is_given_up) = (true, false);
                Ok(Some(Staged { archive, dir, file, staged, name, is_there, is_given_up }))
            }
            Err(e) => {
                archive.gate.leave(&staged);
                Err(e.into())
            }
        }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.archive.tree.base().join(&self.dir.path).join(name)
    }

    fn fail(&self, doing: &'static str, e: impl Into<io::Error>) -> LocalError {
        LocalError::new(doing, &self.path_of(&self.staged), e)
    }

    /// Whether there is room to start the file. Files take disk space beyond their content.
    pub(super) fn has_room(&self) -> Result<bool, LocalError> {
        Ok(self.archive.with_room(&self.dir, LEAST_FILE, || ())?.is_some())
    }

    /// Appends to the staged file. Does nothing if the file can't be finished.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be written, or too little space would be left.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_given_up) else {
            return Ok(());
        };
        let write = || write_all(file, bytes);
        let written = self.archive.with_room(&self.dir, bytes.len() as u64, write)?;
        match written.transpose().map_err(|e| self.fail("writing", e))? {
            Some(()) => {}
            None => self.is_given_up = true,
        }
        Ok(())
    }

    /// Renames the file to its final name. Only content that was checked against that name may be
    /// committed. Once this returns, the file survives a power cut (unless flushing is off).
    ///
    /// # Errors
    ///
    /// Fails if the file can't be flushed or renamed. It may have its final name all the same, if
    /// only the flush of its directory failed.
    pub fn commit(mut self, how: Commit) -> Result<Committed<'a>, LocalError> {
        let Some(file) = self.file.take().filter(|_| !self.is_given_up) else {
            return Ok(Committed::Abandoned);
        };
        let (archive, dir) = (self.archive, self.dir.clone());
        if how == Commit::Repair {
            self.keep_owner_and_mode(&file);
        }
        if archive.fsync {
            file.sync_data().map_err(|e| self.fail("flushing", e))?;
        }
        let flushed_again = archive.fsync && dir.flushes_files();
        let again = flushed_again.then(|| file.try_clone()).transpose();
        let again = again.map_err(|e| self.fail("flushing", e))?;
        // Some file systems report a full disk only here.
        nix::unistd::close(file).map_err(|e| self.fail("writing", e))?;
        let renamed = {
            let abandoned = unpoisoned(archive.gate.abandoned.read());
            match how {
                _ if *abandoned => return Ok(Committed::Abandoned),
                Commit::New => rename_new(&dir.file, &self.staged, &self.name),
                Commit::Repair => renameat(&dir.file, &self.staged, &dir.file, &self.name),
            }
        };
        match renamed {
            Ok(()) => self.is_there = false,
            Err(Errno::EXIST) if dir.has(&self.name) => {
                archive.settle(&dir, &self.name)?;
                return Ok(Committed::WasHere);
            }
            Err(Errno::EXIST) if is_plain(&dir.file, &self.name) => {
                return Err(LocalError::only_case_differs(&self.path_of(&self.name)));
            }
            Err(e) => {
                let path = self.path_of(&self.name);
                return Err(match how {
                    Commit::New => LocalError::new("renaming to", &path, e),
                    Commit::Repair => LocalError::changing("replacing", &path, e),
                });
            }
        }
        if archive.fsync {
            archive.flush(&dir)?;
            match again {
                Some(file) => file.sync_all().map_err(|e| self.fail_landed(e))?,
                // Only now has it turned out that its directory can't be flushed.
                None if dir.flushes_files() => {
                    let file = open_plain(&dir.file, &self.name);
                    file.and_then(|file| file.sync_all()).map_err(|e| self.fail_landed(e))?;
                }
                None => {}
            }
        }
        Ok(Committed::Landed(Landing { _staged: self }))
    }

    fn fail_landed(&self, e: io::Error) -> LocalError {
        LocalError::new("flushing", &self.path_of(&self.name), e)
    }

    /// Best effort: a failure here must not prevent the repair.
    fn keep_owner_and_mode(&self, file: &File) {
        let (Ok(old), Ok(new)) =
            (statat(&self.dir.file, &self.name, AtFlags::SYMLINK_NOFOLLOW), fstat(file))
        else {
            return;
        };
        if FileType::from_raw_mode(old.st_mode) != FileType::RegularFile {
            return;
        }
        // First, since the mode of another user's file is not ours to change.
        let mode = |raw| Mode::from_raw_mode(raw) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
        if mode(old.st_mode) != mode(new.st_mode) {
            let _ = fchmod(file, mode(old.st_mode));
        }
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid)
            && fchown(file, Some(old.st_uid), Some(old.st_gid)).is_err()
        {
            let _ = fchown(file, None, Some(old.st_gid));
        }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.is_there {
            let _ = unlinkat(&self.dir.file, &self.staged, AtFlags::empty());
        }
        self.archive.gate.leave(&self.staged);
    }
}

/// Writes all bytes, and retries after interruptions by signals. The retries are limited, as some
/// file systems report an interruption every time.
fn write_all(mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
    let mut interruptions = 0;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted && interruptions < 100 => {
                interruptions += 1;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Renames a file within a directory, but never over another file.
fn rename_new(dir: &File, from: &str, to: &str) -> Result<(), Errno> {
    match rename_exclusive(dir, from, to) {
        // The file system can't rename exclusively, or a sandbox doesn't allow that call. A hard link
        // has the same effect. Without hard links, checking first is the best that is left; a file
        // that appears in between has the same name, so the same content.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
            match linkat(dir, from, dir, to, AtFlags::empty()) {
                Ok(()) => unlinkat(dir, from, AtFlags::empty()),
                Err(Errno::EXIST) => Err(Errno::EXIST),
                Err(_) if statat(dir, to, AtFlags::SYMLINK_NOFOLLOW).is_ok() => Err(Errno::EXIST),
                Err(_) => renameat(dir, from, dir, to),
            }
        }
        renamed => renamed,
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_exclusive(dir: &File, from: &str, to: &str) -> Result<(), Errno> {
    use rustix::fs::{RenameFlags, renameat_with};
    renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_exclusive(_dir: &File, _from: &str, _to: &str) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}
