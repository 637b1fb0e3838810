//! An error of this machine, in words.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The system's words for an error, without the number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// What this machine failed at: what was being done, to which path, and the system's reason.
#[derive(Debug)]
pub struct LocalError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl LocalError {
    /// That `doing` something to this path failed.
    pub fn new(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> LocalError {
        let (path, source) = (path.to_owned(), source.into());
        LocalError { doing, path, source }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The system's reason.
    pub fn reason(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AlreadyExists => "something that is no file is in the way".into(),
            io::ErrorKind::NotADirectory => "a file is in the way of a directory".into(),
            _ => plain(&self.source),
        }
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.doing, self.path.display(), self.reason())
    }
}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
