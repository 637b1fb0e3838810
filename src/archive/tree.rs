//! Reads a directory tree laid out as an archive: the local archive or a directory node. Everything
//! is opened from one descriptor, component by component. So nothing outside the tree is ever read
//! or written, whatever happens to its path, and one rule decides which symbolic links are
//! followed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::iter::successors;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, accessat, openat, statat};
use rustix::io::Errno;

use super::dir::{For, for_each_entry, is_plain, open_plain, step};
use super::hour_files::HourFiles;
use crate::extra::ExtraDir;
use crate::hour::Hour;
use crate::lock::lock;
use crate::segment::Collection;
use crate::target::Target;

/// How many leading components of a path may be symbolic links. Even there, a link is followed only
/// if it belongs to root or to the user who runs the pass. All other links are refused: someone who
/// may write to an archive must not be able to lead us out of it.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    in_hours: usize,
    in_extras: usize,
}

impl Links {
    /// In the local archive, a stream, variant, hour or extra directory may be on another disk.
    pub const OURS: Links = Links { in_hours: 3, in_extras: 1 };
    /// Links on a disk from elsewhere may only seem to be root's. Links of streams and variants are
    /// harmless, as the files behind them have their hashes in their names.
    pub const OF_A_NODE: Links = Links { in_hours: 2, in_extras: 0 };
}

/// A part of an archive, which has rules of its own for links and mount points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The streams, with their variants and hours.
    Streams,
    /// The directories of extra files.
    Extras,
}

impl Part {
    /// The part that a file belongs to.
    pub(super) fn of(target: &Target) -> Part {
        match target {
            Target::Segment(..) | Target::Tombstone(..) => Part::Streams,
            Target::Extra(..) => Part::Extras,
        }
    }
}

/// A directory laid out as an archive: `BASE_DIR/STREAM/VARIANT/HOUR/SEGMENT`.
#[derive(Debug)]
pub struct Tree {
    base: PathBuf,
    root: File,
    links: Links,
    /// The device of the base directory.
    device: u64,
    /// The device of each stream, variant and extra directory, and of each mount point below, when
    /// it was first entered.
    devices: Mutex<HashMap<String, u64>>,
    recent: Mutex<Option<Recent>>,
}

/// The directory in which a file was last looked up. The next file is mostly in the same one.
#[derive(Debug)]
struct Recent {
    path: String,
    dir: Arc<File>,
    entered: Instant,
}

/// For how long an open directory is assumed to be still at its path. Short enough to notice an
/// unmounted disk soon, long enough to save most system calls.
pub const FRESH: Duration = Duration::from_millis(500);

impl Tree {
    /// Opens the tree in this directory.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be opened.
    pub fn open(base: &Path, links: Links) -> io::Result<Tree> {
        let root: File = openat(CWD, base, For::Reaching.flags(), Mode::empty())?.into();
        let device = root.metadata()?.dev();
        let (devices, recent) = (Mutex::default(), Mutex::default());
        Ok(Tree { base: base.to_owned(), root, links, device, devices, recent })
    }

    /// The directory of the streams, by the path that it was opened with.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Checks that the tree's disks are still mounted.
    ///
    /// # Errors
    ///
    /// Fails with `ESTALE` if the path that the tree was opened with now leads elsewhere or
    /// nowhere, or if a stream, variant, extra directory or mount point entered before is now on
    /// another device.
    pub fn check(&self) -> io::Result<()> {
        let (opened, now) = (self.root.metadata()?, fs::metadata(&self.base));
        match now {
            Ok(now) if (now.dev(), now.ino()) == (opened.dev(), opened.ino()) => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(e),
            _ => return Err(Errno::STALE.into()),
        }
        let devices = lock(&self.devices);
        for (path, device) in &*devices {
            // A directory that was deleted, or can't be opened, doesn't mean that a disk is gone.
            let opened = openat(&self.root, path, For::Reaching.flags(), Mode::empty());
            let now = opened.map(File::from).map(|opened| opened.metadata());
            if let Ok(Ok(now)) = now
                && now.dev() != *device
            {
                return Err(Errno::STALE.into());
            }
        }
        Ok(())
    }

    /// Whether we may write to the base directory.
    pub fn is_writable(&self) -> bool {
        accessat(&self.root, ".", Access::WRITE_OK, AtFlags::empty()).is_ok()
    }

    /// Why we may not write to a directory (if it doesn't exist, to the closest one above it that
    /// does), if we may write further up. Then other places are to be expected that we may write to.
    pub fn closed(&self, dir: &str) -> Option<Errno> {
        let mut dirs = successors(Some(dir), |dir| match dir.rsplit_once('/') {
            Some((above, _)) => Some(above),
            None => (!dir.is_empty()).then_some(""),
        });
        let access = |dir: &str| {
            let dir = if dir.is_empty() { "." } else { dir };
            // With the effective user's capabilities.
            accessat(&self.root, dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        };
        let why = dirs.by_ref().find_map(|dir| match access(dir) {
            Err(Errno::NOENT) => None,
            found => Some(found.err()),
        });
        // EPERM is for a directory that is marked immutable.
        let why = why.flatten().filter(|why| matches!(*why, Errno::ACCESS | Errno::PERM));
        why.filter(|_| dirs.any(|dir| access(dir).is_ok()))
    }

    /// Opens a directory by its path in the tree; an empty path is the base directory.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be opened, a component is a symbolic link that is not followed,
    /// or a disk was unmounted (`ESTALE`).
    pub fn enter(&self, dir: &str, part: Part, what_for: For) -> io::Result<File> {
        if dir.is_empty() {
            return Ok(openat(&self.root, ".", what_for.flags(), Mode::empty())?.into());
        }
        // How many leading components may be links, and of how many the device is always remembered.
        let (followed, own_devices) = match part {
            Part::Streams => (self.links.in_hours, 2),
            Part::Extras => (self.links.in_extras, 1),
        };
        let (mut parent, mut device, mut end) = (None, self.device, 0);
        for (depth, name) in dir.split('/').enumerate() {
            end += name.len() + usize::from(depth > 0);
            let what_for = if end == dir.len() { what_for } else { For::Reaching };
            let opened =
                step(parent.as_ref().unwrap_or(&self.root), name, depth < followed, what_for)?;
            let above = std::mem::replace(&mut device, opened.metadata()?.dev());
            self.check_device(&dir[..end], device, depth < own_devices || device != above)?;
            parent = Some(opened);
        }
        parent.ok_or(io::ErrorKind::NotFound.into())
    }

    /// Once the disk of a stream or an hour is unmounted, the directory below its mount point must
    /// not be taken for it. `remembers` the device of a directory that may be a mount point.
    fn check_device(&self, path: &str, device: u64, remembers: bool) -> io::Result<()> {
        let mut devices = lock(&self.devices);
        match devices.get(path) {
            Some(known) if *known != device => Err(Errno::STALE.into()),
            None if remembers => {
                devices.insert(path.to_owned(), device);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The names of the subdirectories of a directory, including links to directories; none if the
    /// directory doesn't exist.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read.
    pub fn subdirectories(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        if let Some(dir) = found(self.enter(dir, Part::Streams, For::Listing))? {
            for_each_entry(dir, |dir, name, kind| {
                let leads_to_one = kind == FileType::Symlink && leads_to_directory(dir, name);
                if kind == FileType::Directory || leads_to_one {
                    names.push(name.into());
                }
            })?;
        }
        Ok(names)
    }

    /// The names in a collection's directory of what may be an hour: directories, and links, which
    /// are followed or refused when they are entered. None if the directory doesn't exist.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read.
    pub fn hour_names(&self, collection: &Collection) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        if let Some(dir) = found(self.enter(&collection.to_string(), Part::Streams, For::Listing))?
        {
            for_each_entry(dir, |_, name, kind| match kind {
                // A directory that can't be examined is of an unknown kind. It must not look empty.
                FileType::Directory | FileType::Symlink | FileType::Unknown => {
                    names.push(name.into());
                }
                _ => {}
            })?;
        }
        Ok(names)
    }

    /// The files in an hour's directory; none if the directory doesn't exist.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read.
    pub fn hour(&self, collection: &Collection, hour: Hour) -> io::Result<HourFiles> {
        let mut files = HourFiles::default();
        self.for_each_name(collection, hour, |name| files.add(name))?;
        Ok(files)
    }

    /// Calls `each` with the name of every plain file in an hour's directory. Names that are not
    /// UTF-8 are skipped: no segment has one.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read.
    pub fn for_each_name(
        &self,
        collection: &Collection,
        hour: Hour,
        mut each: impl FnMut(&str),
    ) -> io::Result<()> {
        let dir = self.enter(&format!("{collection}/{hour}"), Part::Streams, For::Listing);
        match found(dir)? {
            None => Ok(()),
            Some(dir) => for_each_entry(dir, |_, name, kind| {
                if kind == FileType::RegularFile {
                    each(name);
                }
            }),
        }
    }

    /// Calls `each` with every entry of an extra directory, at any depth, by its path relative to
    /// that directory, and with every subdirectory that can't be listed.
    ///
    /// # Errors
    ///
    /// Fails if the extra directory itself can't be read.
    pub fn for_each_extra(
        &self,
        dir: &ExtraDir,
        mut each: impl FnMut(String, Extra),
    ) -> io::Result<()> {
        let mut below = vec![String::new()];
        while let Some(path) = below.pop() {
            let separator = if path.is_empty() { "" } else { "/" };
            let whole = format!("{dir}{separator}{path}");
            let prefix = format!("{path}{separator}");
            let listed = self.enter(&whole, Part::Extras, For::Listing).and_then(|dir| {
                for_each_entry(dir, |_, name, kind| {
                    let path = format!("{prefix}{name}");
                    if kind == FileType::Directory {
                        below.push(path.clone());
                    }
                    each(path, kind.into());
                })
            });
            match listed {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if !path.is_empty() => each(path, Extra::Unreadable(e)),
                listed => listed?,
            }
        }
        Ok(())
    }

    /// Opens a plain file.
    ///
    /// # Errors
    ///
    /// Fails if the file doesn't exist, can't be read, or is not a plain file.
    pub fn open_file(&self, target: &Target) -> io::Result<File> {
        let path = target.path();
        self.in_dir_of(target, |dir| open_plain(dir, file_name(&path)))
    }

    /// Whether there is a plain file of this name. A link to a file doesn't count.
    pub fn has(&self, target: &Target) -> bool {
        let path = target.path();
        self.in_dir_of(target, |dir| Ok(is_plain(dir, file_name(&path)))).unwrap_or(false)
    }

    /// Calls `then` with the directory of a file.
    fn in_dir_of<T>(
        &self,
        target: &Target,
        then: impl Fn(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = target.dir();
        if let Some(dir) = self.recently_entered(&path)
            && let Ok(done) = then(&dir)
        {
            return Ok(done);
        }
        // It was not entered yet, or may have changed.
        let dir = Arc::new(self.enter(&path, Part::of(target), For::Reaching)?);
        let recent = Recent { path, dir: dir.clone(), entered: Instant::now() };
        *lock(&self.recent) = Some(recent);
        then(&dir)
    }

    fn recently_entered(&self, path: &str) -> Option<Arc<File>> {
        let recent = lock(&self.recent);
        let known = recent.as_ref().filter(|known| known.path == path);
        known.filter(|known| known.entered.elapsed() < FRESH).map(|known| known.dir.clone())
    }
}

/// An entry of an extra directory.
#[derive(Debug)]
pub enum Extra {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, which is not followed.
    Link,
    /// Something else, such as a pipe.
    Other,
    /// A directory that can't be listed.
    Unreadable(io::Error),
}

impl From<FileType> for Extra {
    fn from(kind: FileType) -> Extra {
        match kind {
            FileType::Directory => Extra::Directory,
            FileType::RegularFile => Extra::File,
            FileType::Symlink => Extra::Link,
            _ => Extra::Other,
        }
    }
}

/// Whether a symbolic link in a directory leads to a directory.
fn leads_to_directory(dir: BorrowedFd<'_>, name: &str) -> bool {
    let found = statat(dir, name, AtFlags::empty());
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// The last component of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Turns `NotFound` into `None`.
fn found(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}
