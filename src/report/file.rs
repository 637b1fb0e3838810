//! A file that a pass writes about itself, the metrics or the HTML report: following links to it,
//! locking it, and replacing it atomically.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use log::info;
use rustix::fs::OFlags;
use uuid::Uuid;

use crate::bounded::read_text;
use crate::error::plain;
use crate::stop::Stop;

/// How long to wait for the lock. A pass holds it only while it replaces the file, so a longer wait
/// is for a program that is stuck or does not mean to release it.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for it after a signal, so that the pass can still end within a second.
const LAST_PATIENCE: Duration = Duration::from_millis(300);
/// How often a wait checks whether the pass should end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The mode of a new file, whatever the umask, because other users read it: node_exporter, or a web
/// server.
const MODE: u32 = 0o644;
/// A staged file of this age was left by a dead pass: writing one takes seconds at most.
const STALE: Duration = Duration::from_secs(3600);
/// A larger file, in bytes, is not read and not replaced. Metrics are far smaller, even with the
/// counters of two weeks of hours.
const MAX_SIZE: usize = 16 << 20;
/// How many symbolic links in a row are followed, the same number as on Linux.
const MAX_LINKS: u32 = 40;

/// Why such a file is not written.
#[derive(Debug)]
pub enum FileError {
    /// An I/O error.
    Io(io::Error),
    /// The file at this path is not ours; the reason.
    Foreign(String),
    /// Another process has held its lock for this long.
    Locked(Duration),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        FileError::Io(error)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(e) => f.write_str(&plain(e)),
            FileError::Foreign(what) => {
                write!(f, "refusing to replace it: {what}")
            }
            FileError::Locked(waited) => {
                let seconds = waited.as_secs_f64();
                write!(f, "another process has kept it locked for {seconds:.1} s")
            }
        }
    }
}

impl std::error::Error for FileError {}

fn foreign(what: impl Into<String>) -> FileError {
    FileError::Foreign(what.into())
}

/// Such a file, which need not exist yet.
#[derive(Clone, Debug)]
pub struct OutputFile {
    /// Its path, with symbolic links followed.
    path: PathBuf,
    /// Its name before that, by which the collector finds it.
    name: String,
}

impl OutputFile {
    /// The file at this path.
    ///
    /// # Errors
    ///
    /// Fails if it is already clear that it can't be written: the file can't be read, or its
    /// directory can't be written.
    pub fn at(path: &Path) -> Result<OutputFile, FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = OutputFile { path: follow(path)?, name };
        file.read()?;
        if is_mount_point(&file.path) {
            return Err(foreign("it is a mount point (mount its directory instead)"));
        }
        let (staged, path) = file.stage()?;
        drop(staged);
        fs::remove_file(path)?;
        Ok(file)
    }

    /// Its path, with symbolic links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its content; empty if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if it can't be read, or is not a text file of a plausible size.
    pub fn read(&self) -> Result<String, FileError> {
        self.open()?.map_or(Ok(String::new()), |mut file| text_of(&mut file))
    }

    /// Opens it. Refuses a symbolic link that someone put there after links were followed, and does
    /// not block on a FIFO.
    fn open(&self) -> Result<Option<File>, FileError> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
            Ok(_) => Err(foreign("it is not a regular file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Locks it against other passes that write it, until the result is dropped. Any user who can
    /// read a file can lock it, so the wait is bounded, and shorter after a signal.
    ///
    /// # Errors
    ///
    /// Fails if the lock was not released in time, or the file can't be read or is not ours.
    pub fn lock(&self, stop: &Stop) -> Result<Held, FileError> {
        let begun = Instant::now();
        loop {
            let Some(file) = self.open()? else {
                return Ok(Held { file: None, text: String::new() });
            };
            let mut file = lock(file, begun, stop)?;
            // The pass that held the lock before has replaced the file. Lock the new one instead.
            let (ours, found) = (file.metadata()?, fs::symlink_metadata(&self.path));
            if found.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino())) {
                let text = text_of(&mut file)?;
                return Ok(Held { file: Some(file), text });
            }
        }
    }

    /// Replaces the file atomically, so that a reader sees either the old or the new one. The new
    /// one gets the mode of the old one and, where permitted, its owner. If there was no file,
    /// returns `false` if another process has created it meanwhile, which must then be locked
    /// first.
    ///
    /// # Errors
    ///
    /// Fails if the new file can't be written.
    pub fn replace(&self, held: &Held, text: &str) -> Result<bool, FileError> {
        let old = held.file.as_ref().map(File::metadata).transpose()?;
        self.remove_stale();
        let (mut file, staged) = self.stage()?;
        let mut write = || -> io::Result<bool> {
            let mode = old.as_ref().map_or(MODE, |old| old.mode() & 0o777);
            // Refused by file systems without modes.
            let _ = file.set_permissions(Permissions::from_mode(mode));
            if let Some(old) = &old {
                let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if old.is_none() {
                match fs::hard_link(&staged, &self.path) {
                    Ok(()) => return Ok(true),
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                    // Some file systems have no hard links.
                    Err(_) => {}
                }
            }
            fs::rename(&staged, &self.path)?;
            Ok(true)
        };
        let written = write();
        let _ = fs::remove_file(&staged);
        Ok(written?)
    }

    fn stage(&self) -> io::Result<(File, PathBuf)> {
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let (before, after) = self.staged_affixes();
        let path = directory(&self.path).join(format!("{before}{id}{after}"));
        Ok((OpenOptions::new().write(true).create_new(true).open(&path)?, path))
    }

    /// The text before and after the UUID in the name of a staged file. The collector ignores such
    /// names, because it reads only those that end in `.prom`.
    fn staged_affixes(&self) -> (String, &'static str) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        (format!(".{name}."), ".temp")
    }

    /// Removes staged files that dead passes have left.
    fn remove_stale(&self) {
        let (before, after) = self.staged_affixes();
        let is_staged = |name: &str| {
            let id = name.strip_prefix(&before).and_then(|rest| rest.strip_suffix(after));
            id.is_some_and(|id| id.parse::<Uuid>().is_ok())
        };
        let is_stale = |entry: &fs::DirEntry| {
            let age = entry.metadata().ok().and_then(|found| found.modified().ok()?.elapsed().ok());
            entry.file_name().to_str().is_some_and(is_staged) && age.is_some_and(|age| age > STALE)
        };
        let entries = fs::read_dir(directory(&self.path)).into_iter().flatten().flatten();
        for entry in entries.filter(is_stale) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A locked file.
#[derive(Debug)]
pub struct Held {
    /// `None` if it does not exist yet, and so is not locked.
    file: Option<File>,
    /// Its content when it was locked.
    pub text: String,
}

/// Locks a file; `begun` is when the wait started.
fn lock(file: File, begun: Instant, stop: &Stop) -> Result<File, FileError> {
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        // Some file systems have no locks, and NFS none for a file that is open for reading only. Two
        // passes that write the file in the same moment are rare.
        Err(TryLockError::Error(e)) => {
            info!("a file that the pass writes can't be locked: {}", plain(&e));
            return Ok(file);
        }
    }
    let (locked, lock) = mpsc::channel();
    // If the lock is never released, this thread ends with the process.
    thread::Builder::new().spawn(move || locked.send(file.lock().map(|()| file)))?;
    let cause = stop.cause();
    let patience = if cause.is_some() { LAST_PATIENCE } else { LOCK_PATIENCE };
    loop {
        match lock.recv_timeout(LOOK_EVERY) {
            Ok(file) => return Ok(file?),
            Err(RecvTimeoutError::Timeout)
                if begun.elapsed() < patience && stop.cause() == cause => {}
            Err(_) => return Err(FileError::Locked(begun.elapsed())),
        }
    }
}

fn text_of(file: &mut File) -> Result<String, FileError> {
    match read_text(file, MAX_SIZE) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(foreign("it is not text")),
        Err(e) if e.kind() == io::ErrorKind::FileTooLarge => Err(foreign(e.to_string())),
        Err(e) => Err(e.into()),
    }
}

/// Follows the symbolic links at a path, so that the target is replaced and not the link, even if
/// the target does not exist yet.
///
/// # Errors
///
/// Fails if a link belongs to another user, who could point it at any file of ours; if the links
/// form a loop; or if one can't be read.
fn follow(path: &Path) -> Result<PathBuf, FileError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(e) => return Err(e.into()),
        };
        if !found.is_symlink() {
            return Ok(path);
        }
        let (owner, us) = (found.uid(), rustix::process::geteuid().as_raw());
        if owner != 0 && owner != us {
            return Err(foreign("it is a symbolic link owned by another user"));
        }
        path = directory(&path).join(fs::read_link(&path)?);
    }
    Err(foreign("its symbolic links form a loop"))
}

/// Whether something is mounted at a path, as in a container that was given a single file. Nothing can
/// be renamed to it.
#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).is_ok_and(|found| {
        (found.stx_attributes & found.stx_attributes_mask).contains(StatxAttributes::MOUNT_ROOT)
    })
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_path: &Path) -> bool {
    false
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
