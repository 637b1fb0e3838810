//! A node that is a directory: a mounted disk, or a copy of an archive.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::io::Errno;

use super::{Content, Listing, Node, NodeError, Trouble};
use crate::archive::{Extra, Links, Tree};
use crate::error::plain;
use crate::extra::ExtraDir;
use crate::hour::Hour;
use crate::segment::Collection;
use crate::target::Target;

/// An archive in a directory. Nothing that lies outside of it is ever read: of symbolic links only
/// those at a stream or variant are followed, and if they are root's or our user's.
#[derive(Debug)]
pub struct DirectoryNode {
    base: PathBuf,
    /// The directory, once it was seen.
    tree: OnceLock<Tree>,
}

impl DirectoryNode {
    /// The node in this directory. That it's there is found out by the first request.
    pub fn new(base: PathBuf) -> DirectoryNode {
        DirectoryNode { base, tree: OnceLock::new() }
    }

    /// A disk that is not mounted, or not any more, must not look like one that has nothing.
    fn tree(&self) -> Result<&Tree, NodeError> {
        let unusable = |e: io::Error| {
            let what = match e.kind() {
                io::ErrorKind::NotADirectory => "it is not a directory".into(),
                io::ErrorKind::StaleNetworkFileHandle => {
                    "it is not the directory any more that it was (is its disk mounted?)".into()
                }
                _ => format!("{} (is its disk mounted?)", plain(&e)),
            };
            NodeError::new(Trouble::Unusable, what)
        };
        if let Some(tree) = self.tree.get() {
            tree.check().map_err(unusable)?;
            return Ok(tree);
        }
        let opened = Tree::open(&self.base, Links::OF_A_NODE).map_err(unusable)?;
        Ok(self.tree.get_or_init(|| opened))
    }

    /// What it means that something can't be read: it may be the whole disk that is gone.
    fn unread(&self, e: io::Error) -> NodeError {
        self.tree().map_or_else(|gone| gone, |_| trouble(e))
    }
}

fn trouble(e: io::Error) -> NodeError {
    let (trouble, what) = match e.kind() {
        io::ErrorKind::NotFound => (Trouble::Gone, plain(&e)),
        io::ErrorKind::StaleNetworkFileHandle => (Trouble::Unusable, "its disk is gone".into()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
            (Trouble::Refused, plain(&e))
        }
        io::ErrorKind::Other => (Trouble::Refused, e.to_string()),
        _ if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            (Trouble::Refused, "a symbolic link there is not followed".into())
        }
        _ => (Trouble::Broken, plain(&e)),
    };
    NodeError::answered(trouble, what)
}

impl Node for DirectoryNode {
    fn list_hours(&self, collection: &Collection) -> Result<Listing<'_>, NodeError> {
        let names = self.tree()?.hour_names(collection).map_err(|e| self.unread(e))?;
        Ok(Listing::Names(names))
    }

    fn list_segments(&self, collection: &Collection, hour: Hour) -> Result<Listing<'_>, NodeError> {
        let mut names = Vec::new();
        let read = self.tree()?.for_each_name(collection, hour, |name| names.push(name.into()));
        read.map_err(|e| self.unread(e))?;
        Ok(Listing::Names(names))
    }

    fn list_extras(&self, dir: &ExtraDir) -> Result<Listing<'_>, NodeError> {
        let (mut paths, mut unread) = (Vec::new(), None);
        let read = self.tree()?.for_each_extra(dir, |path, what| match what {
            Extra::File => paths.push(path),
            Extra::Unreadable(e) => unread = Some(e),
            Extra::Directory | Extra::Link | Extra::Other => {}
        });
        read.and_then(|()| unread.map_or(Ok(()), Err)).map_err(|e| self.unread(e))?;
        Ok(Listing::Names(paths))
    }

    fn open(&self, target: &Target) -> Result<Content<'_>, NodeError> {
        let file = match self.tree.get() {
            Some(tree) => tree.open_file(target),
            None => self.tree()?.open_file(target),
        };
        let file = file.map_err(|e| self.unread(e))?;
        let length = file.metadata().map_err(|e| self.unread(e))?.len();
        // One that grows is given as it was when it was opened.
        let reader = Box::new(file.take(length));
        Ok(Content { reader, length: Some(length), open_ended: false })
    }

    fn shut_down(&self) {}
}
