//! A node that is a directory: a mounted disk, or a copy of an archive.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Content, Listing, Node, NodeError, Trouble};
use crate::archive::Tree;
use crate::error::plain;
use crate::extra::ExtraDir;
use crate::hour::Hour;
use crate::segment::Collection;
use crate::target::Target;

/// An archive in a directory.
#[derive(Debug)]
pub struct DirectoryNode {
    tree: Tree,
    /// The device and the number of the directory, once it was seen.
    seen: OnceLock<(u64, u64)>,
}

impl DirectoryNode {
    /// The node in this directory. That it's there is found out by the first request.
    pub fn new(base: PathBuf) -> DirectoryNode {
        DirectoryNode { tree: Tree::new(base), seen: OnceLock::new() }
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

impl Node for DirectoryNode {
    fn list_hours(&self, collection: &Collection) -> Result<Listing<'_>, NodeError> {
        self.check_base()?;
        let names = self.tree.hour_names(collection).map_err(trouble)?;
        Ok(Listing::Names(names))
    }

    fn list_segments(&self, collection: &Collection, hour: Hour) -> Result<Listing<'_>, NodeError> {
        let dir = self.tree.hour_dir(collection, hour);
        // Gone as a whole: that is what a node answers for an hour that it doesn't have.
        match fs::metadata(&dir).map_err(|e| self.not_found(&dir, e)) {
            Err(e) if e.trouble == Trouble::Gone => return Ok(Listing::Names(Vec::new())),
            found => found?,
        };
        let files = self.tree.hour(collection, hour).map_err(trouble)?;
        Ok(Listing::Names(files.iter().map(String::from).collect()))
    }

    fn list_extras(&self, dir: &ExtraDir) -> Result<Listing<'_>, NodeError> {
        self.check_base()?;
        let mut paths = Vec::new();
        let read = self.tree.for_each_extra(dir, |path| paths.push(path));
        read.map_err(trouble)?;
        Ok(Listing::Names(paths))
    }

    fn open(&self, target: &Target) -> Result<Content<'_>, NodeError> {
        let path = self.tree.path(target);
        // Opening a pipe would wait for ever for a writer.
        let found = fs::metadata(&path).map_err(|e| self.not_found(&path, e))?;
        if !found.is_file() {
            return Err(NodeError::answered(Trouble::Refused, "it is not a plain file"));
        }
        let reader = Box::new(File::open(&path).map_err(|e| self.not_found(&path, e))?);
        Ok(Content { reader, length: Some(found.len()), open_ended: false })
    }

    fn shut_down(&self) {}
}
