//! A node that is a directory: a mounted disk, or a copy of an archive.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use chrono::TimeDelta;
use rustix::io::Errno;

use super::{Content, Listing, Node, NodeError, Trouble, local};
use crate::archive::{Extra, Links, Tree};
use crate::error::plain;
use crate::lock::lock;
use crate::target::{Directory, Place, Target};

/// An archive in a directory. Nothing outside of it is ever read: symbolic links are followed only
/// at a stream or variant, and only if they belong to root or to our user.
#[derive(Debug)]
pub struct DirectoryNode {
    base: PathBuf,
    /// The directory, once it has been opened.
    tree: OnceLock<Tree>,
    last_heard: Mutex<Option<Instant>>,
}

impl DirectoryNode {
    /// The node in this directory. The first request finds out whether the directory exists.
    pub fn new(base: PathBuf) -> DirectoryNode {
        DirectoryNode { base, tree: OnceLock::new(), last_heard: Mutex::default() }
    }

    /// Opens the directory, or checks that it is still the one that was opened: an unmounted disk
    /// must not look like an empty node.
    fn tree(&self) -> Result<&Tree, NodeError> {
        let unusable = |e: io::Error| {
            // A node may have a name, and its path may be relative: say where it was looked for.
            let base = std::path::absolute(&self.base).unwrap_or_else(|_| self.base.clone());
            let at = base.display();
            let what = match e.kind() {
                io::ErrorKind::NotADirectory => format!("it is not a directory (at {at})"),
                io::ErrorKind::StaleNetworkFileHandle => {
                    format!("it is no longer the same directory (at {at}; is its disk mounted?)")
                }
                _ => format!("{} (at {at}; is its disk mounted?)", plain(&e)),
            };
            local(&e).unwrap_or_else(|| NodeError::new(Trouble::Unusable, what))
        };
        if let Some(tree) = self.tree.get() {
            tree.check().map_err(unusable)?;
            return Ok(tree);
        }
        let opened = Tree::open(&self.base, Links::OF_A_NODE).map_err(unusable)?;
        Ok(self.tree.get_or_init(|| opened))
    }

    /// Explains why something can't be read: perhaps the whole disk is gone.
    fn read_error(&self, e: io::Error) -> NodeError {
        self.tree().map_or_else(|gone| gone, |_| trouble(e))
    }
}

fn trouble(e: io::Error) -> NodeError {
    if let Some(error) = local(&e) {
        return error;
    }
    let (trouble, what) = match e.kind() {
        io::ErrorKind::NotFound => (Trouble::Gone, plain(&e)),
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
            (Trouble::Refused, plain(&e))
        }
        io::ErrorKind::Other => (Trouble::Refused, e.to_string()),
        _ if Errno::from_io_error(&e) == Some(Errno::LOOP) => {
            (Trouble::Refused, "the path has a symbolic link, which is not followed".into())
        }
        _ => (Trouble::Broken, plain(&e)),
    };
    NodeError::answered(trouble, what)
}

impl DirectoryNode {
    fn heard(&self) {
        *lock(&self.last_heard) = Some(Instant::now());
    }

    fn list_now(&self, directory: &Directory, each: &mut dyn FnMut(&str)) -> Result<(), NodeError> {
        let tree = self.tree()?;
        let read = match directory {
            Directory::Archive => {
                tree.subdirectories("").map(|names| names.iter().for_each(|name| each(name)))
            }
            Directory::Stream(stream) => {
                let names = tree.subdirectories(stream.as_str());
                names.map(|names| names.iter().for_each(|name| each(name)))
            }
            Directory::Collection(collection) => {
                tree.hour_names(collection).map(|names| names.iter().for_each(|name| each(name)))
            }
            Directory::Hour(Place { collection, hour }) => {
                tree.for_each_name(collection, *hour, &mut *each)
            }
            Directory::Extras(dir) => {
                let mut unread = None;
                let read = tree.for_each_extra(dir, |path, what| match what {
                    Extra::File => each(&path),
                    Extra::Unreadable(e) => unread = Some(e),
                    Extra::Directory | Extra::Link | Extra::Other => {}
                });
                read.and_then(|()| unread.map_or(Ok(()), Err))
            }
        };
        read.map_err(|e| self.read_error(e))
    }
}

impl Node for DirectoryNode {
    fn list(&self, directory: &Directory) -> Result<Listing<'_>, NodeError> {
        self.tree()?;
        self.heard();
        let directory = directory.clone();
        Ok(Listing::Names(Box::new(move |each| {
            let mut ended = Ok(());
            self.list_now(&directory, &mut |name| {
                if ended.is_ok() {
                    ended = each(Some(name));
                }
            })?;
            self.heard();
            ended
        })))
    }

    fn open(&self, target: &Target, from: u64) -> Result<Content<'_>, NodeError> {
        let file = match self.tree.get() {
            Some(tree) => tree.open_file(target),
            None => self.tree()?.open_file(target),
        };
        let mut file = file.map_err(|e| self.read_error(e))?;
        let length = file.metadata().map_err(|e| self.read_error(e))?.len();
        let from = if from < length { from } else { 0 };
        file.seek(SeekFrom::Start(from)).map_err(trouble)?;
        // A file that grows is read only up to the length that it had when opened.
        let reader = Box::new(HeardFile { file: file.take(length - from), node: self });
        let length = Some(length);
        Ok(Content { reader, from, length, open_ended: false, takes_ranges: true })
    }

    fn size(&self, target: &Target) -> Option<u64> {
        let file = self.tree().ok()?.open_file(target).ok()?;
        Some(file.metadata().ok()?.len())
    }

    fn last_heard(&self) -> Option<Instant> {
        *lock(&self.last_heard)
    }

    fn clock_ahead(&self) -> Option<TimeDelta> {
        None
    }

    // A request here is a system call, which can't be aborted.
    fn cut(&self) {}
}

/// A file of the node that notes each read as a sign of life.
struct HeardFile<'a> {
    file: Take<File>,
    node: &'a DirectoryNode,
}

impl Read for HeardFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.node.heard();
        Ok(read)
    }
}
