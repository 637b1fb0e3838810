//! An error of this machine, in words.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use rustix::io::Errno;

/// The system's words for an error, without the number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// What this machine failed at: what was being done, to which path, and why it failed.
#[derive(Debug)]
pub struct LocalError {
    doing: Doing,
    path: PathBuf,
    source: io::Error,
}

/// That a disk has no room for more: less than what is to stay free would be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRoom {
    /// How many bytes are free.
    pub free: u64,
    /// How many more would have to be for the pass to go on.
    pub missing: u64,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Reading a place in the archive.
    Reading,
    /// This, as messages say it.
    Other(&'static str),
}

impl LocalError {
    /// That `doing` something to this path failed.
    pub fn new(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> LocalError {
        let (path, source) = (path.to_owned(), source.into());
        LocalError { doing: Doing::Other(doing), path, source }
    }

    /// That reading a directory of the archive failed.
    pub fn reading(path: &Path, source: impl Into<io::Error>) -> LocalError {
        LocalError { doing: Doing::Reading, ..LocalError::new("", path, source) }
    }

    /// That the archive's disk at this path has no room for more.
    pub fn without_room(path: &Path, room: OutOfRoom) -> LocalError {
        let source = io::Error::new(io::ErrorKind::StorageFull, room);
        LocalError::new("filling", path, source)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether no more room may be taken on the archive's disk (`--min-free`), and how much is free
    /// and missing there.
    pub fn out_of_room(&self) -> Option<&OutOfRoom> {
        self.source.get_ref()?.downcast_ref()
    }

    /// Whether the archive's disk is not there any more.
    pub fn is_gone(&self) -> bool {
        self.is(Errno::STALE)
    }

    /// Whether it is about one place of the archive by its nature, so that others may do better: it
    /// can't be read, or something is in the way there.
    pub fn is_of_one_place(&self) -> bool {
        use io::ErrorKind::*;
        let in_the_way =
            matches!(self.kind(), AlreadyExists | InvalidFilename | IsADirectory | NotADirectory);
        let is_reading = self.doing == Doing::Reading;
        in_the_way || self.is(Errno::LOOP) || (is_reading && !self.is_gone())
    }

    fn is(&self, errno: Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }

    /// Why it failed.
    pub fn reason(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AlreadyExists => "something that is not a file is in the way".into(),
            io::ErrorKind::NotADirectory => "a file is in the way of a directory".into(),
            _ if self.is(Errno::LOOP) => {
                "a symbolic link that is not followed there is in the way".into()
            }
            _ if self.is_gone() => {
                "it is not the directory that the pass has opened (was its disk unmounted?)".into()
            }
            // exFAT, NTFS.
            io::ErrorKind::InvalidInput if self.is_creating_with_colon() => {
                "the file system takes no colons in names, which all segments have".into()
            }
            _ => plain(&self.source),
        }
    }

    fn is_creating_with_colon(&self) -> bool {
        let name = self.path.file_name().map(|name| name.to_string_lossy());
        self.doing == Doing::Other("creating") && name.is_some_and(|name| name.contains(':'))
    }
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doing::Reading => "reading the directory",
            Doing::Other(what) => what,
        })
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.doing, self.path.display(), self.reason())
    }
}

impl fmt::Display for OutOfRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, missing) = (HumanBytes(self.free), HumanBytes(self.missing));
        write!(f, "{free} are free on its disk, {missing} less than --min-free needs to go on")
    }
}

impl std::error::Error for OutOfRoom {}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
