//! Reads what is here: streams, hours, names, extra files, tombstones.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use super::Archive;
use super::dir::For;
use super::extras::Extras;
use super::hour_files::HourFiles;
use super::tree::{Part, file_name};
use crate::error::LocalError;
use crate::extra::ExtraDir;
use crate::hour::{Hour, HourSelection};
use crate::segment::Collection;
use crate::target::Target;

/// A directory changed this recently may contain a rename by another pass that has not flushed it
/// yet. A pass flushes within seconds.
const UNSETTLED: Duration = Duration::from_secs(60);

impl Archive {
    fn read_error(&self, dir: &str, e: io::Error) -> LocalError {
        LocalError::reading(&self.tree.base().join(dir), e)
    }

    /// Calls `each` with the name of every file in an hour's directory.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read.
    pub fn for_each_name(
        &self,
        collection: &Collection,
        hour: Hour,
        each: impl FnMut(&str),
    ) -> Result<(), LocalError> {
        let read = self.tree.for_each_name(collection, hour, each);
        read.map_err(|e| self.read_error(&format!("{collection}/{hour}"), e))
    }

    /// The files in an hour's directory; none if there is no such directory. A recent rename by
    /// another pass is flushed before the file counts as here.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read or flushed.
    pub fn hour(&self, collection: &Collection, hour: Hour) -> Result<HourFiles, LocalError> {
        let path = format!("{collection}/{hour}");
        let files = self.tree.hour(collection, hour).map_err(|e| self.read_error(&path, e))?;
        if self.fsync && self.is_unsettled(&path) {
            let dir = self.dirs.get(&self.tree, &path, Part::Streams);
            self.flush(&*dir.map_err(|e| self.read_error(&path, e))?)?;
        }
        Ok(files)
    }

    fn is_unsettled(&self, dir: &str) -> bool {
        let changed =
            self.tree.enter(dir, Part::Streams, For::Reaching).and_then(|dir| dir.metadata());
        let changed = changed.and_then(|found| found.modified());
        // A time in the future counts as recent.
        let age = changed.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        age.is_ok_and(|age| age <= UNSETTLED)
    }

    /// The names of the directories in the archive (if `dir` is empty: its streams) or in a stream
    /// (its variants).
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read.
    pub fn subdirectories(&self, dir: &str) -> Result<Vec<String>, LocalError> {
        self.tree.subdirectories(dir).map_err(|e| self.read_error(dir, e))
    }

    /// The selected hours that a collection has here, newest first.
    ///
    /// # Errors
    ///
    /// Fails if the collection's directory can't be read.
    pub fn hours(
        &self,
        collection: &Collection,
        of: &HourSelection,
    ) -> Result<Vec<Hour>, LocalError> {
        let names = self.tree.hour_names(collection);
        let names = names.map_err(|e| self.read_error(&collection.to_string(), e))?;
        let hours = names.iter().filter_map(|name| name.parse().ok());
        let mut hours: Vec<Hour> = hours.filter(|hour| of.contains(*hour)).collect();
        hours.sort_unstable_by(|a, b| b.cmp(a));
        Ok(hours)
    }

    /// Opens a plain file of the archive.
    ///
    /// # Errors
    ///
    /// Fails if the file doesn't exist, can't be read, or is not a plain file.
    pub fn open_file(&self, target: &Target) -> io::Result<File> {
        self.tree.open_file(target)
    }

    /// The contents of an extra directory, at any depth; none if there is no such directory.
    ///
    /// # Errors
    ///
    /// Fails if the directory itself can't be read.
    pub fn extras(&self, dir: &ExtraDir) -> Result<Extras, LocalError> {
        let base = self.tree.base().join(dir.as_str());
        let mut found = Extras::new(base.clone());
        let read = self.tree.for_each_extra(dir, |path, what| found.add(path, what));
        read.map_err(|e| LocalError::reading(&base, e))?;
        Ok(found)
    }

    /// Whether a file is here, durably. A rename by another pass is flushed first; if that fails,
    /// the file doesn't count.
    pub fn has(&self, target: &Target) -> bool {
        let path = target.path();
        let dir = self.dirs.get(&self.tree, &target.dir(), Part::of(target));
        dir.is_ok_and(|dir| {
            let name = file_name(&path);
            dir.has(name) && self.settle(&dir, name).is_ok()
        })
    }

    /// Whether a tombstone forbids the file.
    pub fn forbids(&self, target: &Target) -> bool {
        target.tombstone().is_some_and(|tombstone| self.tree.has(&tombstone))
    }
}
