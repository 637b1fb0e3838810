//! Errors of this machine, in plain words.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use rustix::io::Errno;

/// The system's text for an error, without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// A local error: what was being done, to which path, and why it failed.
#[derive(Debug)]
pub struct LocalError {
    doing: Doing,
    path: PathBuf,
    source: io::Error,
}

/// A disk is full: continuing would leave less space than must stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRoom {
    /// How many bytes are free.
    pub free: u64,
    /// How many more bytes would have to be free to continue.
    pub missing: u64,
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Reading a place in the archive.
    Reading,
    /// Changing a place in the archive, in the words for messages. Others may be changed even if this
    /// one may not.
    Changing(&'static str),
    /// Anything else, in the words for messages.
    Other(&'static str),
}

impl LocalError {
    /// An error of `doing` something to this path.
    pub fn new(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> LocalError {
        let (path, source) = (path.to_owned(), source.into());
        LocalError { doing: Doing::Other(doing), path, source }
    }

    /// An error of reading a directory of the archive.
    pub fn reading(path: &Path, source: impl Into<io::Error>) -> LocalError {
        LocalError { doing: Doing::Reading, ..LocalError::new("", path, source) }
    }

    /// An error of `doing` something to this place in the archive, of which others are independent.
    pub fn changing(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> LocalError {
        LocalError { doing: Doing::Changing(doing), ..LocalError::new("", path, source) }
    }

    /// The error that a file has the name of this one but for upper and lower case, which the file
    /// system does not distinguish.
    pub fn only_case_differs(path: &Path) -> LocalError {
        let what = "a file whose name differs only in upper and lower case is in the way";
        LocalError::new("creating", path, io::Error::new(io::ErrorKind::AlreadyExists, what))
    }

    /// The error that the archive's disk at this path has too little free space.
    pub fn without_room(path: &Path, room: OutOfRoom) -> LocalError {
        let source = io::Error::new(io::ErrorKind::StorageFull, room);
        LocalError::new("filling", path, source)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The free and the missing space, if the error is that `--min-free` leaves no more room on the
    /// archive's disk.
    pub fn out_of_room(&self) -> Option<&OutOfRoom> {
        self.source.get_ref()?.downcast_ref()
    }

    /// Whether the archive's disk is gone.
    pub fn is_gone(&self) -> bool {
        self.is(Errno::STALE)
    }

    /// Whether the error by its nature concerns a single place in the archive, so that other places
    /// may work: the place can't be read or may not be changed, or something is in the way.
    pub fn concerns_one_place(&self) -> bool {
        use io::ErrorKind::*;
        let in_the_way =
            matches!(self.kind(), AlreadyExists | InvalidFilename | IsADirectory | NotADirectory);
        let is_of_a_place = match self.doing {
            Doing::Reading => !self.is_gone(),
            Doing::Changing(_) => self.kind() == PermissionDenied,
            Doing::Other(_) => false,
        };
        in_the_way || self.is(Errno::LOOP) || is_of_a_place
    }

    fn is(&self, errno: Errno) -> bool {
        Errno::from_io_error(&self.source) == Some(errno)
    }

    /// Why it failed.
    pub fn reason(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AlreadyExists if self.is(Errno::EXIST) => {
                "something that is not a file is in the way".into()
            }
            io::ErrorKind::NotADirectory => "a file is in the way of a directory".into(),
            _ if self.is(Errno::LOOP) => {
                "a symbolic link, which is not followed there, is in the way".into()
            }
            _ if self.is_gone() => {
                "it is no longer the directory that was opened (was its disk unmounted?)".into()
            }
            // Such as exFAT and NTFS.
            io::ErrorKind::InvalidInput if self.is_creating_with_colon() => {
                "the file system does not allow colons in names, which all segments have".into()
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
            Doing::Changing(what) | Doing::Other(what) => what,
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
        write!(f, "its disk has {free} free, {missing} less than --min-free requires to continue")
    }
}

impl std::error::Error for OutOfRoom {}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
