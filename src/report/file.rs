//! A file that a pass writes about itself: where it is, what may be replaced, and how it is replaced as a
//! whole.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use uuid::Uuid;

use crate::bounded::read_text;
use crate::error::plain;
use crate::stop::Stop;

/// How long others that hold the lock are waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// The same once the pass is to end early.
const LAST_PATIENCE: Duration = Duration::from_millis(300);
/// How often a wait looks whether the pass is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The mode of a new file, whatever the umask: its readers are other users.
const MODE: u32 = 0o644;
/// A staged file of this age was left by a dead pass.
const STALE: Duration = Duration::from_secs(3600);
/// The largest file that can be one of ours, in bytes.
const MAX_SIZE: usize = 16 << 20;
/// How many links are followed one after the other.
const MAX_LINKS: u32 = 40;

/// Why such a file is not written.
#[derive(Debug)]
pub enum FileError {
    /// The system refuses it.
    Io(io::Error),
    /// What is in its place is not ours; what shows that.
    Foreign(String),
    /// Somebody else has held its lock for so long.
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
                write!(f, "something else is in its place, which stays as it is: {what}")
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

/// Where such a file lies, or is to.
#[derive(Clone, Debug)]
pub struct OutputFile {
    /// With links followed.
    path: PathBuf,
    /// Its own name, by which the collector finds it.
    name: String,
}

impl OutputFile {
    /// The file at this path. Fails if it can't be written in the end, as far as that can be known
    /// now.
    pub fn at(path: &Path) -> Result<OutputFile, FileError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = OutputFile { path: follow(path)?, name };
        file.read()?;
        let (staged, path) = file.stage()?;
        drop(staged);
        fs::remove_file(path)?;
        Ok(file)
    }

    /// Its path, with links followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is in it: nothing if it is not there.
    pub fn read(&self) -> Result<String, FileError> {
        self.open()?.map_or(Ok(String::new()), |mut file| text_of(&mut file))
    }

    /// Opens it. A link that somebody put there after it was followed is not followed again, and
    /// opening a FIFO doesn't wait.
    fn open(&self) -> Result<Option<File>, FileError> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
            Ok(_) => Err(foreign("it is not a regular file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Keeps other passes that write it waiting, for as long as the result is kept. Whoever may read
    /// a file can lock it, so the wait for them is bounded, and ends when the pass is to end early.
    pub fn lock(&self, stop: &Stop) -> Result<Held, FileError> {
        let begun = Instant::now();
        loop {
            let Some(file) = self.open()? else {
                return Ok(Held { file: None, text: String::new() });
            };
            let mut file = lock(file, begun, stop)?;
            // Whoever had it before has put a new file in its place.
            let (ours, found) = (file.metadata()?, fs::symlink_metadata(&self.path));
            if found.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino())) {
                let text = text_of(&mut file)?;
                return Ok(Held { file: Some(file), text });
            }
        }
    }

    /// Puts a new file in the place of the old one, so that a reader sees either. It has the mode,
    /// and where that may be the owner, of the old one. Where there was none, says whether there
    /// still was none: else that one is to be locked first.
    pub fn replace(&self, held: &Held, text: &str) -> Result<bool, FileError> {
        let old = held.file.as_ref().map(File::metadata).transpose()?;
        self.remove_stale();
        let (mut file, staged) = self.stage()?;
        let mut write = || -> io::Result<bool> {
            if let Some(old) = &old {
                let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
            }
            let mode = old.as_ref().map_or(MODE, |old| old.mode() & 0o777);
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if old.is_none() {
                match fs::hard_link(&staged, &self.path) {
                    Ok(()) => return Ok(true),
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                    // There are file systems without links.
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

    /// What stands around a UUID in the name of a staged file. The collector, which reads what ends
    /// in `.prom`, passes over it.
    fn staged_affixes(&self) -> (String, &'static str) {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        (format!(".{name}."), ".temp")
    }

    /// Removes what passes have left that died here.
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

/// A file that is locked, and what was in it then.
#[derive(Debug)]
pub struct Held {
    /// None if it is not there yet.
    file: Option<File>,
    pub text: String,
}

/// Locks a file; the wait for that has `begun`.
fn lock(file: File, begun: Instant, stop: &Stop) -> Result<File, FileError> {
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(e)) => return Err(e.into()),
    }
    let (locked, lock) = mpsc::channel();
    // If the lock never comes, the thread ends with the process.
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

/// Follows the links at a path, so that none is replaced; also one that leads nowhere yet. One that
/// another user may have put there could lead to any file of ours.
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
            return Err(foreign("it is a symbolic link of another user"));
        }
        path = directory(&path).join(fs::read_link(&path)?);
    }
    Err(foreign("its symbolic links lead in a circle"))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
