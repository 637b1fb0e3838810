//! The contents of a local extra directory, and which listed files can't be placed in it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use log::warn;
use rustix::io::Errno;

use super::tree::Extra;
use crate::error::LocalError;
use crate::extra::ExtraPath;
use crate::segment::STAGED_SUFFIX;

/// The longest path that the system accepts, in bytes (Linux's `PATH_MAX` without the final NUL).
const LONGEST_PATH: usize = 4095;

/// The contents of an extra directory when it was read, as paths relative to it.
#[derive(Debug)]
pub struct Extras {
    base: PathBuf,
    files: HashSet<String>,
    dirs: HashSet<String>,
    /// Entries other than files and readable directories, with the reason.
    others: HashMap<String, Errno>,
}

/// Why a listed file can't be placed in an extra directory.
#[derive(Debug)]
pub enum Blocked {
    /// A directory has its name, or a file has the name of one of its parent directories. Its
    /// listing contradicts an earlier one.
    Contradicts,
    /// No program can open a path this long. The staged file's path counts, too.
    TooLong,
    /// Something else is in its place on this machine, or the place can't be read.
    Here(LocalError),
}

impl Extras {
    pub(super) fn new(base: PathBuf) -> Extras {
        let (files, dirs, others) = (HashSet::new(), HashSet::new(), HashMap::new());
        Extras { base, files, dirs, others }
    }

    pub(super) fn add(&mut self, path: String, what: Extra) {
        match what {
            Extra::File => drop(self.files.insert(path)),
            Extra::Directory => drop(self.dirs.insert(path)),
            Extra::Link => drop(self.others.insert(path, Errno::LOOP)),
            Extra::Other => drop(self.others.insert(path, Errno::EXIST)),
            Extra::Unreadable(e) => {
                let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                warn!("{} (skipped)", LocalError::reading(&self.base.join(&path), e));
                self.others.insert(path, errno);
            }
        }
    }

    /// Whether a file is here.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// The paths of all files, in no order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Why a file that is not here can't be fetched, if so.
    pub fn blocked(&self, path: &ExtraPath) -> Option<Blocked> {
        let path = path.as_str();
        if self.base.as_os_str().len() + 1 + path.len() + STAGED_SUFFIX > LONGEST_PATH {
            return Some(Blocked::TooLong);
        }
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        for at in above.clone().chain([path]) {
            if let Some(errno) = self.others.get(at) {
                let (path, e) = (self.base.join(at), io::Error::from(*errno));
                return Some(Blocked::Here(LocalError::new("creating a file at", &path, e)));
            }
        }
        let contradicts = self.dirs.contains(path) || above.clone().any(|at| self.has(at));
        contradicts.then_some(Blocked::Contradicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_can_t_be_placed_are_found_before_fetching() {
        let mut extras = Extras::new("/archive/emotes".into());
        extras.add("file".into(), Extra::File);
        extras.add("dir".into(), Extra::Directory);
        extras.add("dir/link".into(), Extra::Link);
        extras.add("dir/pipe".into(), Extra::Other);
        extras.add("closed".into(), Extra::Unreadable(Errno::ACCESS.into()));
        for (path, expected) in [
            ("other", None),
            ("dir/other", None),
            ("files/other", None),
            ("dir", Some("contradicts")),
            ("file/below", Some("contradicts")),
            ("file/far/below", Some("contradicts")),
            (&format!("{}b", "a/".repeat(1000)), None),
            ("dir/link", Some("a symbolic link")),
            ("dir/link/below", Some("a symbolic link")),
            ("dir/pipe", Some("something that is not a file")),
            ("closed/below", Some("permission denied")),
        ] {
            let found = extras.blocked(&path.parse().unwrap()).map(|why| match why {
                Blocked::Contradicts => "contradicts".to_owned(),
                Blocked::TooLong => "too long".to_owned(),
                Blocked::Here(error) => error.to_string(),
            });
            let deep = Extras::new("/archive/emotes".repeat(150).into());
            let found_deep = deep.blocked(&path.parse().unwrap());
            assert_eq!(matches!(found_deep, Some(Blocked::TooLong)), path.len() > 1803, "{path}");
            match expected {
                Some(expected) => assert!(found.unwrap().contains(expected), "{path}"),
                None => assert!(found.is_none(), "{path}: {found:?}"),
            }
        }
    }
}
