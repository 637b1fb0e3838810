//! The local side: directories laid out as an archive, and the one way by which a segment enters
//! ours. It is staged under a temporary name beside its place, flushed, renamed, and the directory
//! flushed; so a file under a final name is whole at every instant, whatever happens to the pass
//! or to the machine.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::LocalError;
use crate::extra::ExtraDir;
use crate::hour::{Hour, HourSelection};
use crate::segment::{Collection, Medium, SegmentName};
use crate::target::Target;

/// The first bytes of the UUIDs in the names of our staged files, by which a later pass can tell
/// them from those of other writers.
const STAGED_BY_US: &[u8; 4] = b"bkfl";
/// What nobody has written to for so long is of a pass that died.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A directory laid out as an archive, for reading: `BASE_DIR/STREAM/VARIANT/HOUR/SEGMENT`.
#[derive(Clone, Debug)]
pub struct Tree {
    base: PathBuf,
}

impl Tree {
    /// The tree below this directory, which need not exist yet.
    pub fn new(base: PathBuf) -> Tree {
        Tree { base }
    }

    /// The directory that holds the streams.
    pub fn base(&self) -> &Path {
        &self.base
    }

    fn collection_dir(&self, collection: &Collection) -> PathBuf {
        let stream = self.base.join(collection.stream.as_str());
        stream.join(collection.variant.as_str())
    }

    /// The directory of an hour.
    pub fn hour_dir(&self, collection: &Collection, hour: Hour) -> PathBuf {
        self.collection_dir(collection).join(hour.to_string())
    }

    /// Where a file lies, or would.
    pub fn path(&self, target: &Target) -> PathBuf {
        self.base.join(target.path())
    }

    /// The names of the directories of hours that this collection has: none if it isn't there.
    pub fn hour_names(&self, collection: &Collection) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        read_names(&self.collection_dir(collection), |name| names.push(name.into()))?;
        Ok(names)
    }

    /// Calls back with the path, relative to an extra directory, of each file in it at any depth.
    /// Symbolic links to directories are not followed.
    pub fn for_each_extra(&self, dir: &ExtraDir, mut each: impl FnMut(String)) -> io::Result<()> {
        let base = self.base.join(dir.as_str());
        let mut dirs = vec![base.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in entries(&dir)? {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    dirs.push(path);
                } else if let Some(path) = path.strip_prefix(&base).ok().and_then(Path::to_str) {
                    each(path.to_owned());
                }
            }
        }
        Ok(())
    }

    /// What lies in an hour's directory: nothing if it isn't there.
    pub fn hour(&self, collection: &Collection, hour: Hour) -> io::Result<HourFiles> {
        let mut files = HourFiles::default();
        for_each_file(&self.hour_dir(collection, hour), |name| {
            if is_staged_by_us(name) {
                files.staged.push(name.into());
            }
            files.names.insert(name.into());
        })?;
        Ok(files)
    }
}

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
    /// Whether a file of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
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

/// Calls back with the name of each file in a directory. What is no file (a directory, a pipe, a
/// link that leads nowhere) is passed over, and so are names that are no UTF-8: no segment has one.
fn for_each_file(dir: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    for entry in entries(dir)? {
        let entry = entry?;
        let is_file = match entry.file_type() {
            Ok(kind) if kind.is_file() => true,
            Ok(kind) if kind.is_dir() => false,
            _ => fs::metadata(entry.path()).is_ok_and(|found| found.is_file()),
        };
        if let (true, Some(name)) = (is_file, entry.file_name().to_str()) {
            each(name);
        }
    }
    Ok(())
}

fn read_names(dir: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    for entry in entries(dir)? {
        if let Some(name) = entry?.file_name().to_str() {
            each(name);
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(e) => Err(e),
    }
}

/// The archive that a pass fills.
#[derive(Debug)]
pub struct Archive {
    tree: Tree,
    fsync: bool,
    /// The directories that something was renamed in of late.
    dirs: Mutex<HashMap<PathBuf, Arc<FlushedDir>>>,
    gate: Gate,
}

/// Knows the staged files, so that a pass can end without leaving one behind.
#[derive(Debug, Default)]
struct Gate {
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
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, path: &Path) -> bool {
        let mut state = self.lock();
        if !state.closed {
            state.staged.insert(path.to_owned());
        }
        !state.closed
    }

    fn leave(&self, path: &Path) {
        self.lock().staged.remove(path);
        self.left.notify_all();
    }
}

impl Archive {
    /// Opens the archive in an existing directory. Without `fsync`, nothing is flushed: what
    /// landed is whole after a crash of the pass, but perhaps not after one of the machine.
    pub fn open(base: &Path, fsync: bool) -> Result<Archive, LocalError> {
        let fail = |e: io::Error| LocalError::new("opening the archive", base, e);
        let found = fs::metadata(base).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                let what = "it is not there (is its disk mounted? does --base-dir name it?)";
                fail(io::Error::new(e.kind(), what))
            }
            _ => fail(e),
        });
        if !found?.is_dir() {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        let tree = Tree::new(base.to_owned());
        Ok(Archive { tree, fsync, dirs: Mutex::default(), gate: Gate::default() })
    }

    /// Whether a failure is of one place only (a directory where a file should be, an hour that was
    /// deleted meanwhile), so that the pass can go on elsewhere. A full disk or a read-only archive
    /// would fail every file.
    pub fn can_go_on_after(&self, error: &LocalError) -> bool {
        use io::ErrorKind::*;
        match error.kind() {
            AlreadyExists | InvalidFilename | IsADirectory | NotADirectory => true,
            NotFound => self.tree.base.is_dir(),
            PermissionDenied => access(&self.tree.base, Access::WRITE_OK).is_ok(),
            _ => false,
        }
    }

    /// Locks the archive against other passes that lock it, for as long as the file is open, so
    /// that nothing is left of the lock whatever becomes of us. Gives none if another one has it.
    pub fn lock(&self) -> Result<Option<File>, LocalError> {
        let fail = |e: io::Error| LocalError::new("locking the archive", &self.tree.base, e);
        let dir = File::open(&self.tree.base).map_err(fail)?;
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(dir)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(fail(e.into())),
        }
    }

    /// Calls back with the name of each file in an hour's directory.
    pub fn for_each_name(
        &self,
        collection: &Collection,
        hour: Hour,
        each: impl FnMut(&str),
    ) -> Result<(), LocalError> {
        let dir = self.tree.hour_dir(collection, hour);
        for_each_file(&dir, each).map_err(|e| LocalError::new("reading", &dir, e))
    }

    /// Removes what passes that died have left in a directory (by its path in the archive): of
    /// these names, those that we have staged, and that nobody has written to for a day. Says
    /// which.
    pub fn remove_stale<'a>(&self, dir: &str, names: &'a [Box<str>]) -> Vec<&'a str> {
        let now = SystemTime::now();
        let remove = |name: &&str| {
            let path = self.tree.base.join(dir).join(name);
            let age = fs::symlink_metadata(&path).and_then(|found| found.modified());
            let age = age.ok().and_then(|written| now.duration_since(written).ok());
            age.is_some_and(|age| age > STALE) && fs::remove_file(&path).is_ok()
        };
        let ours = names.iter().map(|name| &**name).filter(|name| is_staged_by_us(name));
        ours.filter(remove).collect()
    }

    /// What lies in an hour's directory: nothing if it isn't there.
    pub fn hour(&self, collection: &Collection, hour: Hour) -> Result<HourFiles, LocalError> {
        let read = self.tree.hour(collection, hour);
        let dir = || self.tree.hour_dir(collection, hour);
        read.map_err(|e| LocalError::new("reading the directory", &dir(), e))
    }

    /// The directory of an hour.
    pub fn hour_dir(&self, collection: &Collection, hour: Hour) -> PathBuf {
        self.tree.hour_dir(collection, hour)
    }

    /// Whether a directory lies within the archive, symbolic links on the way to it followed.
    pub fn contains(&self, dir: &Path) -> io::Result<bool> {
        Ok(fs::canonicalize(dir)?.starts_with(fs::canonicalize(&self.tree.base)?))
    }

    /// The hours of a collection that are here and selected, newest first.
    pub fn hours(
        &self,
        collection: &Collection,
        of: &HourSelection,
    ) -> Result<Vec<Hour>, LocalError> {
        let names = self.tree.hour_names(collection);
        let dir = || self.tree.collection_dir(collection);
        let names = names.map_err(|e| LocalError::new("reading the directory", &dir(), e))?;
        let hours = names.iter().filter_map(|name| name.parse().ok());
        let mut hours: Vec<Hour> = hours.filter(|hour| of.contains(*hour)).collect();
        hours.sort_unstable_by(|a, b| b.cmp(a));
        Ok(hours)
    }

    /// Opens a file that is here. Opening what is no plain file might wait for ever.
    pub fn open_file(&self, target: &Target) -> io::Result<File> {
        let path = self.tree.path(target);
        match fs::metadata(&path)?.is_file() {
            true => File::open(path),
            false => Err(io::Error::other("it is no plain file")),
        }
    }

    /// What lies in an extra directory, at any depth: nothing if it isn't there.
    pub fn extras(&self, dir: &ExtraDir) -> Result<HashSet<String>, LocalError> {
        let mut found = HashSet::new();
        let read = self.tree.for_each_extra(dir, |path| {
            found.insert(path);
        });
        let base = || self.tree.base.join(dir.as_str());
        read.map_err(|e| LocalError::new("reading the directory", &base(), e))?;
        Ok(found)
    }

    /// Whether a file is here by now.
    pub fn has(&self, target: &Target) -> bool {
        fs::metadata(self.tree.path(target)).is_ok_and(|found| found.is_file())
    }

    /// Whether a file was deleted on purpose by now.
    pub fn forbids(&self, target: &Target) -> bool {
        let tombstone = target.tombstone();
        tombstone.is_some_and(|it| fs::symlink_metadata(self.tree.path(&it)).is_ok())
    }

    /// Lets nothing more be staged, and waits until nothing is, at most so long. What a thread is
    /// still at then (a node keeps it waiting) is removed.
    pub fn close(&self, patience: Duration) {
        let mut state = self.gate.lock();
        state.closed = true;
        let busy = |state: &mut GateState| !state.staged.is_empty();
        let waited = self.gate.left.wait_timeout_while(state, patience, busy);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.abandoned = true;
        for path in state.staged.drain() {
            let _ = fs::remove_file(path);
        }
        self.gate.left.notify_all();
    }

    /// Begins a file: makes its directory if need be, and the staged file in it. Gives none once
    /// the archive was closed.
    pub fn stage(&self, target: &Target) -> Result<Option<Staged<'_>>, LocalError> {
        let dir = self.tree.base.join(target.dir());
        let path = dir.join(target.staged_name(staged_id()));
        if !self.gate.enter(&path) {
            return Ok(None);
        }
        let create = || OpenOptions::new().write(true).create_new(true).open(&path);
        let made = create().or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                // If there was one of this name, it is not the same.
                self.dirs.lock().unwrap_or_else(PoisonError::into_inner).remove(&dir);
                fs::create_dir_all(&dir).and_then(|()| create())
            }
            _ => Err(e),
        });
        match made {
            Ok(file) => {
                let place = self.tree.path(target);
                Ok(Some(Staged { archive: self, file, path, place, is_there: true }))
            }
            Err(e) => {
                self.gate.leave(&path);
                Err(LocalError::new("creating", &path, e))
            }
        }
    }

    /// Makes the renames in a directory durable, and the first time the path to it too, whoever made
    /// that: a file that is found after a power cut needs every directory above it.
    fn flush_renames_in(&self, dir: &Path) -> Result<(), LocalError> {
        let fail = |e| LocalError::new("flushing the directory", dir, e);
        let flushed = {
            let mut dirs = self.dirs.lock().unwrap_or_else(PoisonError::into_inner);
            if dirs.len() >= MAX_OPEN_DIRS && !dirs.contains_key(dir) {
                dirs.clear();
            }
            match dirs.get(dir) {
                Some(known) => known.clone(),
                None => {
                    let opened = Arc::new(FlushedDir::open(dir, &self.tree.base).map_err(fail)?);
                    dirs.insert(dir.to_owned(), opened.clone());
                    opened
                }
            }
        };
        flushed.flush().map_err(fail)
    }
}

/// How many directories are kept open to be flushed again.
const MAX_OPEN_DIRS: usize = 64;

/// A directory that several threads rename files in, and then want flushed. One flush serves all
/// that asked for it before it began.
#[derive(Debug)]
struct FlushedDir {
    dir: File,
    /// The directories above it, up to the archive's own.
    parents: Vec<PathBuf>,
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

impl FlushedDir {
    fn open(dir: &Path, base: &Path) -> io::Result<FlushedDir> {
        let parents = dir.ancestors().skip(1);
        let below_base = parents.take_while(|parent| parent.starts_with(base));
        Ok(FlushedDir {
            dir: File::open(dir)?,
            parents: below_base.map(Path::to_owned).collect(),
            state: Mutex::default(),
            over: Condvar::new(),
        })
    }

    /// Returns once a flush is over that began after this was called.
    fn flush(&self) -> io::Result<()> {
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = lock();
        state.asked += 1;
        let ours = state.asked;
        while state.flushing && state.served < ours {
            state = self.over.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.served >= ours {
            return Ok(());
        }
        let (asked, is_first) = (state.asked, state.served == 0);
        state.flushing = true;
        drop(state);
        let flushed = self.flush_now(is_first);
        let mut state = lock();
        state.flushing = false;
        if flushed.is_ok() {
            state.served = asked;
        }
        self.over.notify_all();
        flushed
    }

    fn flush_now(&self, is_first: bool) -> io::Result<()> {
        self.dir.sync_all()?;
        if is_first {
            self.parents.iter().try_for_each(|parent| File::open(parent)?.sync_all())?;
        }
        Ok(())
    }
}

/// Whether a name is one of those that we give to staged files: that of a segment or a hidden one,
/// with a UUID that has our mark in the place where such a name has a UUID.
fn is_staged_by_us(name: &str) -> bool {
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
fn staged_id() -> Uuid {
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
    archive: &'a Archive,
    file: File,
    path: PathBuf,
    place: PathBuf,
    is_there: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "00:00.0-2.0-full-47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU.ts";

    fn collection() -> Collection {
        let (stream, variant) = ("desertbus".parse().unwrap(), "source".parse().unwrap());
        Collection { stream, variant }
    }

    fn situation() -> (tempfile::TempDir, Archive, Hour, SegmentName) {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path(), true).unwrap();
        let hour = "2018-11-10T05".parse().unwrap();
        (dir, archive, hour, SegmentName::parse(EMPTY, Medium::Video).unwrap())
    }

    fn target(hour: Hour, name: &SegmentName) -> Target {
        Target::segment(&collection(), hour, name)
    }

    fn names(archive: &Archive, hour: Hour) -> Vec<String> {
        let files = archive.hour(&collection(), hour).unwrap();
        files.iter().map(String::from).collect()
    }

    #[test]
    fn a_committed_segment_is_here_under_its_name_alone() {
        let (_dir, archive, hour, name) = situation();
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        assert!(names(&archive, hour)[0].starts_with("00:00.0-2.0-temp-626b666c-"));
        assert!(!archive.has(&target(hour, &name)));
        assert!(matches!(staged.commit(Commit::New).unwrap(), Committed::Landed(_)));
        assert_eq!(names(&archive, hour), [EMPTY]);
        assert!(archive.has(&target(hour, &name)));
    }

    #[test]
    fn a_dropped_one_leaves_nothing() {
        let (_dir, archive, hour, name) = situation();
        let mut staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        staged.write(b"half").unwrap();
        drop(staged);
        assert_eq!(names(&archive, hour), [""; 0]);
    }

    #[test]
    fn a_file_that_came_first_is_untouched() {
        let (_dir, archive, hour, name) = situation();
        let mut staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        staged.write(b"ours").unwrap();
        let place = archive.tree.path(&target(hour, &name));
        fs::write(&place, b"theirs").unwrap();
        assert!(matches!(staged.commit(Commit::New).unwrap(), Committed::WasHere));
        assert_eq!(fs::read(&place).unwrap(), b"theirs");
        assert_eq!(names(&archive, hour), [EMPTY]);
    }

    #[test]
    fn a_closed_archive_takes_nothing_more() {
        let (_dir, archive, hour, name) = situation();
        archive.close(Duration::ZERO);
        assert!(archive.stage(&target(hour, &name)).unwrap().is_none());
        assert_eq!(names(&archive, hour), [""; 0]);
    }

    #[test]
    fn what_is_still_staged_when_patience_ends_is_removed_and_can_t_land() {
        let (_dir, archive, hour, name) = situation();
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        archive.close(Duration::ZERO);
        assert_eq!(names(&archive, hour), [""; 0]);
        assert!(matches!(staged.commit(Commit::New).unwrap(), Committed::Abandoned));
        assert_eq!(names(&archive, hour), [""; 0]);
    }

    #[test]
    fn what_we_stage_is_told_from_what_others_do() {
        let ours = staged_id().to_string();
        let theirs = "6f0f9d1e-8c1c-4b5c-9d3f-0123456789ab";
        // Ours by the mark, but of another version.
        let odd = "626b666c-8c1c-4b5c-9d3f-0123456789ab";
        let chat = EMPTY.replace("-2.0-full", "").replace(".ts", ".json");
        for (id, is_ours) in [(&*ours, true), (theirs, false), (odd, false), (&ours[..35], false)] {
            for (name, has_form) in [
                (format!("00:00.0-2.0-temp-{id}.ts"), true),
                (format!("{chat}.{id}.temp"), true),
                (format!(".{id}.temp"), true),
                (format!("notes.{id}.temp"), false),
                (format!("00:00.0-2.0-temp-{id}"), false),
                (format!("00:00.0-temp-{id}.ts"), false),
                (format!("00:00.0-2.0-full-{id}.ts"), false),
            ] {
                assert_eq!(is_staged_by_us(&name), is_ours && has_form, "{name}");
            }
        }
    }

    #[test]
    fn only_a_repair_replaces_a_file() {
        let (_dir, archive, hour, name) = situation();
        let place = archive.tree.path(&target(hour, &name));
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        fs::write(&place, b"corrupt").unwrap();
        assert!(matches!(staged.commit(Commit::Repair).unwrap(), Committed::Landed(_)));
        assert_eq!(fs::read(&place).unwrap(), b"");
        assert_eq!(names(&archive, hour), [EMPTY]);
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_of_that_place() {
        let (_dir, archive, hour, name) = situation();
        fs::create_dir_all(archive.tree.path(&target(hour, &name))).unwrap();
        assert!(!archive.hour(&collection(), hour).unwrap().has(EMPTY));
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        let error = staged.commit(Commit::New).unwrap_err();
        assert!(archive.can_go_on_after(&error));
        assert!(error.to_string().contains("in the way"), "{error}");
    }

    #[test]
    fn a_file_where_the_hour_should_be_is_an_error_of_that_place() {
        let (dir, archive, hour, name) = situation();
        fs::create_dir_all(dir.path().join("desertbus/source")).unwrap();
        fs::write(dir.path().join("desertbus/source/2018-11-10T05"), b"").unwrap();
        let error = archive.stage(&target(hour, &name)).unwrap_err();
        assert!(archive.can_go_on_after(&error), "{error}");
    }
}
