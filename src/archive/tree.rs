//! Reading a tree of directories that is laid out as an archive, ours or that of a directory node.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::commit::is_staged_by_us;
use crate::extra::ExtraDir;
use crate::hour::Hour;
use crate::segment::{Collection, SegmentName};
use crate::target::Target;

/// A directory laid out as an archive, for reading: `BASE_DIR/STREAM/VARIANT/HOUR/SEGMENT`.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) base: PathBuf,
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

    pub(super) fn collection_dir(&self, collection: &Collection) -> PathBuf {
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
pub(super) fn for_each_file(dir: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
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
