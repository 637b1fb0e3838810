//! A node that is a directory: a mounted disk, or a copy of an archive.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::{Content, Listing, Node, NodeError, Trouble};
use crate::archive::Tree;
use crate::error::plain;
use crate::target::{Directory, Place, Target};

/// An archive in a directory.
#[derive(Debug)]
pub struct DirectoryNode {
    tree: Tree,
    /// The device and the number of the directory, once it was seen.
    seen: OnceLock<(u64, u64)>,
    last_heard: Mutex<Option<Instant>>,
}

impl DirectoryNode {
    /// The node in this directory. That it's there is found out by the first request.
    pub fn new(base: PathBuf) -> DirectoryNode {
        DirectoryNode { tree: Tree::new(base), seen: OnceLock::new(), last_heard: Mutex::default() }
    }

    /// A disk that is not mounted, or not any more, must not look like one that has nothing.
    fn check_base(&self) -> Result<(), NodeError> {
        let unusable = |what: String| Err(NodeError::new(Trouble::Unusable, what));
        match fs::metadata(self.tree.base()) {
            Ok(found) if found.is_dir() => {
                let now = (found.dev(), found.ino());
                match *self.seen.get_or_init(|| now) == now {
                    true => Ok(()),
                    false => unusable("it is not the directory any more that it was".into()),
                }
            }
            Ok(_) => unusable("it is not a directory".into()),
            Err(e) => unusable(format!("{} (is its disk mounted?)", plain(&e))),
        }
    }

    /// What it means that something is not there: it's gone, unless the disk is, or a link leads
    /// nowhere.
    fn not_found(&self, path: &Path, e: io::Error) -> NodeError {
        if e.kind() != io::ErrorKind::NotFound {
            return trouble(e);
        }
        match self.check_base() {
            Err(gone) => gone,
            Ok(()) if fs::symlink_metadata(path).is_ok() => {
                NodeError::answered(Trouble::Refused, "a symbolic link leads nowhere")
            }
            Ok(()) => trouble(e),
        }
    }
}

fn trouble(e: io::Error) -> NodeError {
    let trouble = match e.kind() {
        io::ErrorKind::NotFound => Trouble::Gone,
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => Trouble::Refused,
        _ => Trouble::Broken,
    };
    NodeError::answered(trouble, plain(&e))
}

impl DirectoryNode {
    fn heard(&self) {
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Those that an hour lists are held for a moment, to leave out what isn't a file.
    fn list_now(&self, directory: &Directory, each: &mut dyn FnMut(&str)) -> Result<(), NodeError> {
        match directory {
            Directory::Collection(collection) => {
                self.check_base()?;
                let names = self.tree.hour_names(collection).map_err(trouble)?;
                names.iter().for_each(|name| each(name));
            }
            Directory::Hour(Place { collection, hour }) => {
                let dir = self.tree.hour_dir(collection, *hour);
                // Gone as a whole: that is what a node answers for an hour that it doesn't have.
                match fs::metadata(&dir).map_err(|e| self.not_found(&dir, e)) {
                    Err(e) if e.trouble == Trouble::Gone => return Ok(()),
                    found => found?,
                };
                let files = self.tree.hour(collection, *hour).map_err(trouble)?;
                files.iter().for_each(each);
            }
            Directory::Extras(dir) => {
                self.check_base()?;
                self.tree.for_each_extra(dir, |path| each(&path)).map_err(trouble)?;
            }
        }
        Ok(())
    }
}

impl Node for DirectoryNode {
    fn list(&self, directory: &Directory) -> Result<Listing<'_>, NodeError> {
        self.check_base()?;
        self.heard();
        let directory = directory.clone();
        Ok(Listing::Names(Box::new(move |each| {
            self.list_now(&directory, &mut |name| each(Some(name)))?;
            self.heard();
            Ok(())
        })))
    }

    fn open(&self, target: &Target, from: u64) -> Result<Content<'_>, NodeError> {
        let path = self.tree.path(target);
        // Opening a pipe would wait for ever for a writer.
        let found = fs::metadata(&path).map_err(|e| self.not_found(&path, e))?;
        if !found.is_file() {
            return Err(NodeError::answered(Trouble::Refused, "it is not a plain file"));
        }
        let mut file = File::open(&path).map_err(|e| self.not_found(&path, e))?;
        let from = if from < found.len() { from } else { 0 };
        file.seek(SeekFrom::Start(from)).map_err(trouble)?;
        let reader = Box::new(Heard { file, node: self });
        Ok(Content { reader, from, length: Some(found.len()), open_ended: false })
    }

    fn last_heard(&self) -> Option<Instant> {
        *self.last_heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // A request is a call of the system, which nothing ends.
    fn cut(&self) {}
}

/// A file of the node that is being read.
struct Heard<'a> {
    file: File,
    node: &'a DirectoryNode,
}

impl Read for Heard<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.node.heard();
        Ok(read)
    }
}
