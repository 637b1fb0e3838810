//! Verifies the segments in the archive against the hashes in their names.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::Mutex;
use std::thread;

use sha2::{Digest, Sha256};

use crate::archive::{Archive, HourFiles};
use crate::error::LocalError;
use crate::hour::{Hour, HourSelection};
use crate::lock::{lock, unpoisoned};
use crate::segment::{Collection, Entry, Medium, SegmentHash, SegmentName, is_same_recording};
use crate::stop::Stop;
use crate::target::{Check, Target};

/// How much to read at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// The corrupt segments by hour.
pub type Corrupt = HashMap<(Collection, Hour), HashSet<SegmentName>>;

/// What is wrong with a corrupt segment.
#[derive(Debug)]
pub enum Damage {
    /// It can't be read.
    Unreadable(io::Error),
    /// Its content has this hash, unlike its name.
    WrongHash(SegmentHash),
}

/// The result of verifying.
#[derive(Debug, Default)]
pub struct Verified {
    /// The corrupt segments.
    pub corrupt: Corrupt,
    /// How many segments were checked, including corrupt and unreadable ones. Segments that
    /// vanished after they were listed don't count.
    pub files: u64,
    /// How many bytes were read from them.
    pub bytes: u64,
}

/// Gets the progress and the results of verifying.
pub trait Observer: Sync {
    /// This many more segments will be checked.
    fn wanted(&self, segments: u64);
    /// This many more bytes were read.
    fn read(&self, bytes: u64);
    /// One more segment was checked, or had vanished.
    fn checked(&self);
    /// A segment is corrupt.
    fn corrupt(&self, target: &Target, damage: &Damage);
    /// Whether to check this segment.
    fn is_selected(&self, target: &Target) -> bool;
    /// A directory can't be read, so its segments are not checked.
    fn failed(&self, error: &LocalError);
}

/// Checks all selected segments in the archive, with one thread per core. Anything that can't be
/// read is reported, and the rest is still checked.
pub fn verify(
    archive: &Archive,
    collections: &[Collection],
    hours: &HourSelection,
    observer: &dyn Observer,
    stop: &Stop,
) -> Verified {
    let mut places = Vec::new();
    for collection in collections {
        match archive.hours(collection, hours) {
            Ok(hours) => places.extend(hours.into_iter().map(|hour| (collection, hour))),
            Err(error) => observer.failed(&error),
        }
    }
    // They are taken from the end, newest first.
    places.sort_by_key(|(_, hour)| *hour);
    let walk = Mutex::new(Walk { archive, places, current: Vec::new(), observer });
    let verified = Mutex::new(Verified::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut buffer = vec![0; BUFFER];
        while let Some((collection, hour, name)) = next(&walk) {
            let target = Target::segment(collection, hour, &name);
            let checked = check_segment(archive, &target, &mut buffer, observer, stop);
            if stop.is_stopped() {
                break;
            }
            observer.checked();
            let Some((bytes, damage)) = checked else {
                continue;
            };
            if let Some(damage) = &damage {
                observer.corrupt(&target, damage);
            }
            let mut verified = lock(&verified);
            verified.files += 1;
            verified.bytes += bytes;
            if damage.is_some() {
                verified.corrupt.entry((collection.clone(), hour)).or_default().insert(name);
            }
        }
    };
    thread::scope(|scope| {
        // This thread works too, so there is one even if no other can be spawned.
        for _ in 1..threads {
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    unpoisoned(verified.into_inner())
}

/// The segments still to be checked. One hour is listed at a time.
struct Walk<'a> {
    archive: &'a Archive,
    places: Vec<(&'a Collection, Hour)>,
    current: Vec<Found<'a>>,
    observer: &'a dyn Observer,
}

/// A segment to check.
type Found<'a> = (&'a Collection, Hour, SegmentName);

/// The next segment to check.
fn next<'a>(walk: &Mutex<Walk<'a>>) -> Option<Found<'a>> {
    let mut walk = lock(walk);
    loop {
        if let Some(found) = walk.current.pop() {
            return Some(found);
        }
        let (collection, hour) = walk.places.pop()?;
        match walk.archive.hour(collection, hour) {
            Ok(files) => {
                let segments = segments(&files, hour, collection.variant.medium()).into_iter();
                let observer = walk.observer;
                let is_selected = |name: &SegmentName| {
                    observer.is_selected(&Target::segment(collection, hour, name))
                };
                let selected = segments.filter(is_selected);
                walk.current = selected.map(|name| (collection, hour, name)).collect();
                walk.observer.wanted(walk.current.len() as u64);
            }
            Err(error) => walk.observer.failed(&error),
        }
    }
}

/// The segments to check in an hour, except those that were deleted on purpose.
fn segments(files: &HourFiles, hour: Hour, medium: Medium) -> Vec<SegmentName> {
    let (mut segments, mut deleted) = (Vec::new(), Vec::new());
    for name in files.iter() {
        match Entry::parse(name, medium) {
            Ok(Entry::Segment(segment)) => segments.push(segment),
            Ok(Entry::Tombstone(segment)) => deleted.push(segment),
            _ => {}
        }
    }
    let hashes: HashSet<&str> = deleted.iter().map(SegmentName::written_hash).collect();
    segments.retain(|segment| {
        let is_same = |other| is_same_recording((hour, segment), (hour, other));
        !hashes.contains(segment.written_hash()) || !deleted.iter().any(is_same)
    });
    segments
}

/// Reads a segment. Returns how many bytes were read, and what is wrong with it; `None` if it has
/// vanished since it was listed.
fn check_segment(
    archive: &Archive,
    target: &Target,
    buffer: &mut [u8],
    observer: &dyn Observer,
    stop: &Stop,
) -> Option<(u64, Option<Damage>)> {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut read = || -> io::Result<()> {
        let mut file = archive.open_file(target)?;
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    bytes += read as u64;
                    observer.read(read as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if stop.is_stopped() {
                return Ok(());
            }
        }
    };
    let damage = match read() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => Some(Damage::Unreadable(e)),
        Ok(()) => {
            let hash = SegmentHash(hash.finalize().into());
            (target.check() != Check::Hash(hash)).then_some(Damage::WrongHash(hash))
        }
    };
    Some((bytes, damage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_not_checked_by_whatever_name() {
        let name = |start: &str, extension: &str| {
            format!("{start}-2.0-full-47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU.{extension}")
        };
        let (deleted, other) = (name("00:00.0", "ts"), name("00:10.0", "ts"));
        let files = [deleted, other.clone(), name("00:00.0005", "tombstone"), "junk".to_owned()];
        let files: HourFiles = files.iter().map(String::as_str).collect();
        let checked = segments(&files, "2018-11-10T05".parse().unwrap(), Medium::Video);
        let checked: Vec<&str> = checked.iter().map(SegmentName::as_str).collect();
        assert_eq!(checked, [other]);
    }
}
