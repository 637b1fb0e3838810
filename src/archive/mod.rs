//! The local side: directories laid out as an archive, and the one way by which a segment enters
//! ours. It is staged under a temporary name beside its place, flushed, renamed, and the directory
//! flushed; so a file under a final name is whole at every instant, whatever happens to the pass
//! or to the machine.

mod commit;
mod flush;
mod tree;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;

use crate::error::LocalError;
use crate::extra::ExtraDir;
use crate::hour::{Hour, HourSelection};
use crate::segment::Collection;
use crate::target::Target;

pub use commit::{Commit, Committed, Landing, Staged};
use commit::{Gate, is_staged_by_us, staged_id};
use flush::{FlushedDir, MAX_OPEN_DIRS};
use tree::for_each_file;
pub use tree::{HourFiles, Tree};

/// What nobody has written to for so long is of a pass that died.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The archive that a pass fills.
#[derive(Debug)]
pub struct Archive {
    tree: Tree,
    fsync: bool,
    /// The directories that something was renamed in of late.
    dirs: Mutex<HashMap<PathBuf, Arc<FlushedDir>>>,
    gate: Gate,
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
        self.gate.close(patience);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Medium, SegmentName};

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
