//! The local archive, and the only way by which a file enters it. A file is staged under a
//! temporary name beside its final place, flushed and renamed; then the directory is flushed. So a
//! file under a final name is complete at every instant, whatever happens to the pass or to the
//! machine.

mod commit;
mod dir;
mod extras;
mod flush;
mod hour_files;
mod name_set;
mod read;
mod room;
mod staged_name;
mod tree;

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, statat, unlinkat};
use rustix::io::Errno;

use crate::clock;
use crate::error::LocalError;
use crate::hour::Hour;
use crate::lock::lock;
use crate::target::Target;

use commit::Gate;
pub use commit::{Commit, Committed, Landing, Staged};
use dir::open_plain;
pub use dir::{For, for_each_entry};
pub use extras::{Blocked, Extras};
use flush::{Dirs, OpenDir};
pub use hour_files::HourFiles;
pub use room::MinFree;
use room::Room;
use staged_name::{is_staged_by_us, staged_id};
use tree::file_name;
pub use tree::{Extra, Links, Part, Tree};

/// A staged file untouched for this long was left by a dead pass. Even a slow transfer writes to
/// its file far more often than once a day.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How often staging a file checks that the archive's disk is still there.
const CHECK_EVERY: Duration = tree::FRESH;

/// Why a directory on NFS, for example, can't be locked.
const NO_LOCKS: &str = "its file system has no locks for directories \
                        (flock(1) on a local file has the same effect as --lock)";

/// The result of locking the archive.
#[derive(Debug)]
pub enum Lock {
    /// We hold the lock for as long as this file is open. The system releases it however this
    /// process ends.
    Ours(File),
    /// Another pass holds the lock.
    Theirs,
    /// A program that is not a pass keeps us from locking.
    Foreign,
}

/// The archive that a pass fills.
#[derive(Debug)]
pub struct Archive {
    tree: Tree,
    fsync: bool,
    room: Option<Room>,
    dirs: Dirs,
    gate: Gate,
    /// When [`Archive::check`] was last called by the way.
    checked: Mutex<Instant>,
}

impl Archive {
    /// Opens the archive in an existing directory. Without `fsync` nothing is flushed: files that
    /// landed survive a crash of the pass, but perhaps not one of the machine.
    ///
    /// # Errors
    ///
    /// Fails if the directory doesn't exist or can't be opened.
    pub fn open(base: &Path, fsync: bool) -> Result<Archive, LocalError> {
        let fail = |e: io::Error| LocalError::new("opening the archive", base, e);
        let tree = Tree::open(base, Links::OURS).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                let what = "it does not exist (is its disk mounted? is --base-dir right?)";
                fail(io::Error::new(e.kind(), what))
            }
            _ => fail(e),
        })?;
        Ok(Archive {
            tree,
            fsync,
            room: None,
            dirs: Dirs::default(),
            gate: Gate::default(),
            checked: Mutex::new(Instant::now()),
        })
    }

    /// Keeps this much space free on each of the archive's disks.
    pub fn keep_free(self, keep: Option<MinFree>) -> Archive {
        Archive { room: keep.map(Room::new), ..self }
    }

    /// Checks that the archive's disk is still there. Whatever else this module does, it does in
    /// the directory that was opened.
    ///
    /// # Errors
    ///
    /// Fails if the path of the archive no longer leads to the directory that was opened.
    pub fn check(&self) -> Result<(), LocalError> {
        let checked = self.tree.check();
        checked.map_err(|e| LocalError::new("checking the archive", self.tree.base(), e))
    }

    /// As [`Archive::check`], but at most once per [`CHECK_EVERY`].
    fn check_now_and_then(&self) -> Result<(), LocalError> {
        {
            let mut checked = lock(&self.checked);
            if checked.elapsed() < CHECK_EVERY {
                return Ok(());
            }
            *checked = Instant::now();
        }
        self.check()
    }

    /// Whether a failure by its nature concerns a single place in the archive, which may be a
    /// directory that belongs to another user. Then other places may work, however many fail.
    pub fn concerns_one_place(&self, error: &LocalError) -> bool {
        let closed = || {
            let path = error.path().strip_prefix(self.tree.base()).ok()?;
            self.tree.closed(path.parent()?.to_str()?)
        };
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        error.concerns_one_place() || is_denied && closed().is_some()
    }

    /// Checks that files can be created in a directory, given by its path in the archive. This saves
    /// asking nodes for many files that could not be stored.
    ///
    /// # Errors
    ///
    /// Fails if the directory belongs to another user, but others may not. If we may write nowhere,
    /// or for another reason, that is found out by the first file.
    pub fn check_open(&self, dir: &str) -> Result<(), LocalError> {
        let path = || self.tree.base().join(dir);
        let error = |why| LocalError::changing("writing to the directory", &path(), why);
        self.tree.closed(dir).map_or(Ok(()), |why| Err(error(why)))
    }

    /// Whether a failure concerns a single path (a directory in place of a file, an hour that was
    /// deleted meanwhile or can't be read), so that the pass can continue elsewhere. A full disk, a
    /// disk that is gone, or a read-only archive would fail every file.
    pub fn can_continue_after(&self, error: &LocalError) -> bool {
        use io::ErrorKind::*;
        match error.kind() {
            _ if self.concerns_one_place(error) => true,
            NotFound => self.check().is_ok(),
            PermissionDenied => self.tree.is_writable(),
            _ => false,
        }
    }

    /// Locks the archive against other passes that use `--lock`. They take an exclusive lock.
    /// Anyone who may read the directory can hold a shared lock on it for ever, so a shared lock is
    /// reported as foreign.
    ///
    /// # Errors
    ///
    /// Fails if the file system doesn't support locks, or on any other error of locking.
    pub fn lock(&self) -> Result<Lock, LocalError> {
        let fail = |e: io::Error| {
            let errno = e.raw_os_error().map(Errno::from_raw_os_error);
            let has_no_locks = matches!(
                errno,
                Some(Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::NOTSUP)
            );
            let e = if has_no_locks { io::Error::other(NO_LOCKS) } else { e };
            LocalError::new("locking the archive", self.tree.base(), e)
        };
        let dir = self.tree.enter("", Part::Streams, For::Listing).map_err(fail)?;
        let took = |locked| match locked {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(fail(e)),
        };
        if took(dir.try_lock())? {
            return Ok(Lock::Ours(dir));
        }
        if !took(dir.try_lock_shared())? {
            return Ok(Lock::Theirs);
        }
        // If this succeeds, the holder has just finished.
        Ok(if took(dir.try_lock())? { Lock::Ours(dir) } else { Lock::Foreign })
    }

    /// The archive as a tree to read.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Removes a file. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be removed, or its directory can't be flushed.
    pub fn remove(&self, target: &Target) -> Result<bool, LocalError> {
        let path = target.path();
        let fail = |e: io::Error| LocalError::new("removing", &self.tree.base().join(&path), e);
        let dir = self.dirs.get(&self.tree, &target.dir(), Part::of(target));
        let dir = dir.map_err(fail)?;
        match unlinkat(&dir.file, file_name(&path), AtFlags::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            removed => removed.map_err(|e| fail(e.into()))?,
        }
        if self.fsync {
            self.flush(&dir)?;
        }
        Ok(true)
    }

    /// Removes staged files left by dead passes from a directory, given by its path in the archive.
    /// Of `names`, only files that a pass of ours staged and that were not written to for a day are
    /// removed. Returns those.
    pub fn remove_stale<'a>(&self, dir: &str, names: &'a [Box<str>]) -> Vec<&'a str> {
        // Those of this pass are younger than they look if the clock was set meanwhile.
        let is_left = |name: &&str| is_staged_by_us(name) && !self.gate.has(name);
        let ours = names.iter().map(|name| &**name).filter(is_left);
        let ours: Vec<&str> = ours.collect();
        if ours.is_empty() {
            return ours;
        }
        // Only extra files are staged under hidden names, and only extra directories are nested
        // deeper than an hour.
        let is_extra = ours.iter().any(|name| name.starts_with('.'));
        let part = if is_extra { Part::Extras } else { Part::Streams };
        let now = SystemTime::now();
        let remove = |dir: &File, name: &str| {
            let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            let written =
                SystemTime::UNIX_EPOCH + Duration::from_secs(found.st_mtime.try_into().ok()?);
            let age = now.duration_since(written).ok()?;
            (age > STALE).then(|| unlinkat(dir, name, AtFlags::empty()).ok())?
        };
        match self.tree.enter(dir, part, For::Reaching) {
            Ok(dir) => ours.into_iter().filter(|name| remove(&dir, name).is_some()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Stops staging, and waits for at most `patience` until no file is staged. What a thread still
    /// has staged then (a node keeps it waiting) is removed, and so are directories that this pass
    /// created and left empty.
    pub fn close(&self, patience: Duration) {
        self.gate.close(patience);
        self.remove_empty_dirs();
    }

    fn remove_empty_dirs(&self) {
        for path in self.dirs.take_made().iter().rev() {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            // The downloader may be about to use the directory of the current hour, or of the next.
            let now = Hour::containing(clock::now());
            if name.parse::<Hour>().is_ok_and(|hour| hour >= now) {
                continue;
            }
            if let Ok(parent) = self.tree.enter(parent, Part::Streams, For::Reaching) {
                let _ = unlinkat(&parent, name, AtFlags::REMOVEDIR);
            }
        }
    }

    /// Stages a file: creates its directory if needed, and the staged file in it. Returns `None`
    /// once the archive is closed, or has failed as a whole; that error was returned when it
    /// happened.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be created, the archive's disk is gone, or too little space is left.
    pub fn stage(&self, target: &Target) -> Result<Option<Staged<'_>>, LocalError> {
        if self.gate.is_shut() {
            return Ok(None);
        }
        if let Err(gone) = self.check_now_and_then() {
            return self.end_with(gone);
        }
        let (dir, part) = (target.dir(), Part::of(target));
        let staged = target.staged_name(staged_id());
        let path = || self.tree.base().join(&dir).join(&staged);
        let create = |opened: Arc<OpenDir>| {
            let path = target.path();
            Staged::create(self, opened, staged.clone(), file_name(&path))
        };
        let opened = self.dirs.get(&self.tree, &dir, part);
        let made = opened.and_then(create).or_else(|e| match e.kind() {
            // The directory doesn't exist, or was deleted meanwhile.
            io::ErrorKind::NotFound => {
                let made = self.dirs.make(&self.tree, &dir, part);
                made.and_then(create)
            }
            _ => Err(e),
        });
        let made = made.map_err(|e| LocalError::new("creating", &path(), e));
        match made {
            Err(e) if e.is_gone() => self.end_with(e),
            Ok(Some(staged)) => Ok(staged.has_room()?.then_some(staged)),
            made if self.gate.is_shut() => {
                self.remove_empty_dirs();
                // An error says nothing now: the directory may have been removed, as it was empty.
                made.or(Ok(None))
            }
            made => made,
        }
    }

    /// Stops staging because of this error, which only the first call returns.
    fn end_with<T>(&self, error: LocalError) -> Result<Option<T>, LocalError> {
        if self.gate.shut() { Err(error) } else { Ok(None) }
    }

    /// Calls `write`, which writes `bytes` bytes to the disk of a directory, if there is room for
    /// them. If not, staging stops, and the first call returns an error.
    fn with_room<T>(
        &self,
        dir: &OpenDir,
        bytes: u64,
        write: impl FnOnce() -> T,
    ) -> Result<Option<T>, LocalError> {
        let Some(room) = &self.room else {
            return Ok(Some(write()));
        };
        let fail =
            |e| LocalError::new("checking the free space of", &self.tree.base().join(&dir.path), e);
        match room.take(&dir.file, dir.device, bytes).map_err(fail)? {
            Ok(()) => {
                let written = write();
                room.written(dir.device, bytes);
                Ok(Some(written))
            }
            Err(out) => self.end_with(LocalError::without_room(self.tree.base(), out)),
        }
    }

    fn flush(&self, dir: &OpenDir) -> Result<(), LocalError> {
        let fail =
            |e| LocalError::new("flushing the directory", &self.tree.base().join(&dir.path), e);
        self.dirs.flush(&self.tree, dir).map_err(fail)
    }

    /// Flushes what another writer has just added.
    fn settle(&self, dir: &OpenDir, name: &str) -> Result<(), LocalError> {
        if !self.fsync {
            return Ok(());
        }
        self.flush(dir)?;
        if dir.flushes_files() {
            // A file that we may not read is its writer's to flush.
            let flushed = open_plain(&dir.file, name).map_or(Ok(()), |file| file.sync_all());
            let path = || self.tree.base().join(&dir.path).join(name);
            flushed.map_err(|e| LocalError::new("flushing", &path(), e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::segment::{Collection, Medium, SegmentName};

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

    fn place(archive: &Archive, hour: Hour, name: &SegmentName) -> PathBuf {
        archive.tree.base().join(target(hour, name).path())
    }

    fn names(archive: &Archive, hour: Hour) -> Vec<String> {
        let files = archive.hour(&collection(), hour).unwrap();
        files.iter().map(String::from).collect()
    }

    #[test]
    fn a_committed_segment_has_only_its_final_name() {
        let (_dir, archive, hour, name) = situation();
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        assert!(names(&archive, hour)[0].starts_with("00:00.0-2.0-temp-626b666c-"));
        assert!(!archive.has(&target(hour, &name)));
        assert!(matches!(staged.commit(Commit::New).unwrap(), Committed::Landed(_)));
        assert_eq!(names(&archive, hour), [EMPTY]);
        assert!(archive.has(&target(hour, &name)));
    }

    #[test]
    fn a_staged_file_of_this_pass_is_not_stale_even_if_the_clock_jumps() {
        let (_dir, archive, hour, name) = situation();
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        let files: [Box<str>; 1] = [names(&archive, hour)[0].clone().into()];
        let dir = format!("{}/{hour}", collection());
        let file = File::open(archive.tree.base().join(&dir).join(&*files[0])).unwrap();
        file.set_modified(SystemTime::now() - 2 * STALE).unwrap();
        assert_eq!(archive.remove_stale(&dir, &files), [""; 0]);
        assert!(matches!(staged.commit(Commit::New).unwrap(), Committed::Landed(_)));
    }

    #[test]
    fn a_dropped_staged_file_leaves_nothing() {
        let (_dir, archive, hour, name) = situation();
        let mut staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        staged.write(b"half").unwrap();
        drop(staged);
        assert_eq!(names(&archive, hour), [""; 0]);
    }

    #[test]
    fn an_existing_file_is_not_replaced() {
        let (_dir, archive, hour, name) = situation();
        let mut staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        staged.write(b"ours").unwrap();
        let place = place(&archive, hour, &name);
        fs::write(&place, b"theirs").unwrap();
        assert!(matches!(staged.commit(Commit::New).unwrap(), Committed::WasHere));
        assert_eq!(fs::read(&place).unwrap(), b"theirs");
        assert_eq!(names(&archive, hour), [EMPTY]);
    }

    #[test]
    fn a_closed_archive_stages_nothing() {
        let (_dir, archive, hour, name) = situation();
        archive.close(Duration::ZERO);
        assert!(archive.stage(&target(hour, &name)).unwrap().is_none());
        assert_eq!(names(&archive, hour), [""; 0]);
    }

    #[test]
    fn a_file_still_staged_at_the_end_is_removed_and_can_t_land() {
        let (_dir, archive, hour, name) = situation();
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        archive.close(Duration::ZERO);
        assert_eq!(names(&archive, hour), [""; 0]);
        assert!(matches!(staged.commit(Commit::New).unwrap(), Committed::Abandoned));
        assert_eq!(names(&archive, hour), [""; 0]);
    }

    #[test]
    fn the_end_waits_no_longer_than_files_are_staged() {
        let (_dir, archive, hour, name) = situation();
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        let (begun, patience) = (Instant::now(), Duration::from_secs(60));
        std::thread::scope(|scope| {
            scope.spawn(|| archive.close(patience));
            while !archive.gate.is_shut() {
                std::thread::yield_now();
            }
            drop(staged);
        });
        assert!(begun.elapsed() < patience);
    }

    #[test]
    fn our_staged_files_are_recognized() {
        let ours = staged_id().to_string();
        let theirs = "6f0f9d1e-8c1c-4b5c-9d3f-0123456789ab";
        // It has our mark, but another UUID version.
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
        let place = place(&archive, hour, &name);
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        fs::write(&place, b"corrupt").unwrap();
        assert!(matches!(staged.commit(Commit::Repair).unwrap(), Committed::Landed(_)));
        assert_eq!(fs::read(&place).unwrap(), b"");
        assert_eq!(names(&archive, hour), [EMPTY]);
    }

    #[test]
    fn a_directory_in_the_way_fails_that_file_only() {
        let (_dir, archive, hour, name) = situation();
        fs::create_dir_all(place(&archive, hour, &name)).unwrap();
        assert!(!archive.hour(&collection(), hour).unwrap().has(EMPTY));
        let staged = archive.stage(&target(hour, &name)).unwrap().unwrap();
        let error = staged.commit(Commit::New).unwrap_err();
        assert!(archive.can_continue_after(&error));
        assert!(error.to_string().contains("in the way"), "{error}");
    }

    #[test]
    fn a_file_in_place_of_an_hour_fails_that_hour_only() {
        let (dir, archive, hour, name) = situation();
        fs::create_dir_all(dir.path().join("desertbus/source")).unwrap();
        fs::write(dir.path().join("desertbus/source/2018-11-10T05"), b"").unwrap();
        let error = archive.stage(&target(hour, &name)).unwrap_err();
        assert!(archive.can_continue_after(&error), "{error}");
    }
}
