//! A node that is a directory: a mounted disk, or a copy of an archive.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use super::{Content, Listing, Node, NodeError, Trouble};
use crate::archive::Tree;
use crate::extra::ExtraDir;
use crate::hour::Hour;
use crate::segment::Collection;
use crate::target::Target;

/// An archive in a directory.
#[derive(Debug)]
pub struct DirectoryNode {
    tree: Tree,
}

impl DirectoryNode {
    /// The node in this directory. That it's there is found out by the first request.
    pub fn new(base: PathBuf) -> DirectoryNode {
        DirectoryNode { tree: Tree::new(base) }
    }

    /// A disk that is not mounted must not look like one that has nothing.
    fn check_base(&self) -> Result<(), NodeError> {
        let unusable = |what: String| Err(NodeError::new(Trouble::Unusable, what));
        match fs::metadata(self.tree.base()) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => unusable("it is not a directory".into()),
            Err(e) => unusable(e.to_string()),
        }
    }
}

fn trouble(e: io::Error) -> NodeError {
    let trouble = match e.kind() {
        io::ErrorKind::NotFound => Trouble::Gone,
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => Trouble::Refused,
        _ => Trouble::Broken,
    };
    NodeError::new(trouble, e.to_string())
}

impl Node for DirectoryNode {
    fn list_hours(&self, collection: &Collection) -> Result<Listing, NodeError> {
        self.check_base()?;
        let names = self.tree.hour_names(collection).map_err(trouble)?;
        Ok(Listing::Names(names))
    }

    fn list_segments(&self, collection: &Collection, hour: Hour) -> Result<Listing, NodeError> {
        let files = self.tree.hour(collection, hour).map_err(trouble)?;
        Ok(Listing::Names(files.iter().map(String::from).collect()))
    }

    fn list_extras(&self, dir: &ExtraDir) -> Result<Listing, NodeError> {
        self.check_base()?;
        let mut paths = Vec::new();
        let read = self.tree.for_each_extra(dir, |path| paths.push(path));
        read.map_err(trouble)?;
        Ok(Listing::Names(paths))
    }

    fn open(&self, target: &Target) -> Result<Content<'_>, NodeError> {
        let path = self.tree.path(target);
        // Opening a pipe would wait for ever for a writer.
        let found = fs::metadata(&path).map_err(trouble)?;
        if !found.is_file() {
            return Err(NodeError::new(Trouble::Refused, "it is not a plain file"));
        }
        let reader = Box::new(File::open(&path).map_err(trouble)?);
        Ok(Content { reader, length: Some(found.len()), open_ended: false })
    }

    fn shut_down(&self) {}
}
