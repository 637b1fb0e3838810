//! Deletes hours that are older than they are kept: their segments, and the directory if nothing
//! else is in it. Whatever is no segment stays.

use std::fs;
use std::io;
use std::path::Path;

use crate::archive::Archive;
use crate::error::LocalError;
use crate::hour::Hour;
use crate::segment::{Collection, Entry};

/// What became of an old hour.
#[derive(Debug, PartialEq, Eq)]
pub enum Deletion {
    /// So many segments were deleted, or in a dry run would be; so many other files are left.
    Done { segments: u64, left: u64 },
    /// It is none of ours to delete.
    Refused(Refusal),
}

/// Why an old hour is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something else has the name of the hour.
    NotADirectory,
    /// What lies there is not in the archive.
    LinkLeadsOut,
}

/// Deletes the segments of an hour; in a dry run, only counts them.
pub fn delete_hour(
    archive: &Archive,
    collection: &Collection,
    hour: Hour,
    dry_run: bool,
) -> Result<Deletion, LocalError> {
    let dir = archive.hour_dir(collection, hour);
    let fail = |e| LocalError::new("deleting the old segments in", &dir, e);
    if !fs::symlink_metadata(&dir).map_err(fail)?.is_dir() {
        return Ok(Deletion::Refused(Refusal::NotADirectory));
    }
    if !archive.contains(&dir).map_err(fail)? {
        return Ok(Deletion::Refused(Refusal::LinkLeadsOut));
    }
    let (mut segments, mut left) = (0, 0);
    for entry in fs::read_dir(&dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !is_segment(&entry, collection) {
            left += 1;
            continue;
        }
        if !dry_run {
            delete_file(&entry.path())?;
        }
        segments += 1;
    }
    if !dry_run && left == 0 {
        match fs::remove_dir(&dir) {
            // Somebody put something there meanwhile, or was quicker.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound
                ) => {}
            removed => removed.map_err(fail)?,
        }
    }
    Ok(Deletion::Done { segments, left })
}

fn is_segment(entry: &fs::DirEntry, collection: &Collection) -> bool {
    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
    let name = entry.file_name();
    let parsed = name.to_str().map(|name| Entry::parse(name, collection.variant.medium()));
    is_file && matches!(parsed, Some(Ok(Entry::Segment(_))))
}

fn delete_file(path: &Path) -> Result<(), LocalError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(LocalError::new("deleting the old segment", path, e))
        }
        _ => Ok(()),
    }
}
