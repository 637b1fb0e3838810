//! Checks the segments that are here against the hashes in their names.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};

use crate::archive::{Archive, HourFiles};
use crate::error::LocalError;
use crate::hour::{Hour, HourSelection};
use crate::progress::Progress;
use crate::segment::{Collection, Medium, SegmentHash, SegmentName};
use crate::stop::Stop;
use crate::target::{Check, Target};

/// What is read at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// The segments that were found corrupt, by their hour, and how many there were.
pub type Corrupt = HashMap<(Collection, Hour), HashSet<SegmentName>>;

/// What is wrong with a corrupt segment.
#[derive(Debug)]
pub enum Damage {
    /// It can't be read.
    Unreadable(io::Error),
    /// Its content has this hash, which is not the one in its name.
    WrongHash(SegmentHash),
}

/// What came of checking.
#[derive(Debug, Default)]
pub struct Verified {
    /// The corrupt segments.
    pub corrupt: Corrupt,
    /// How many segments were read, good ones and others.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// Checks all selected segments that are here, with a thread for each core. Each corrupt one is
/// reported to `found` at once.
pub fn verify(
    archive: &Archive,
    collections: &[Collection],
    hours: &HourSelection,
    progress: &Progress,
    stop: &Stop,
    found: impl Fn(&Target, &Damage) + Sync,
) -> Result<Verified, LocalError> {
    let mut places = Vec::new();
    for collection in collections {
        let hours = archive.hours(collection, hours)?;
        places.extend(hours.into_iter().map(|hour| (collection, hour)));
    }
    // Taken from the end.
    places.sort_by_key(|(_, hour)| *hour);
    let walk = Mutex::new(Walk { archive, places, current: Vec::new(), progress });
    let verified = Mutex::new(Verified::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let check = || -> Result<(), LocalError> {
        let mut buffer = vec![0; BUFFER];
        while let Some((collection, hour, name)) = next(&walk)? {
            let target = Target::segment(collection, hour, &name);
            let checked = check(archive, &target, &mut buffer, progress, stop);
            if stop.is_stopped() {
                break;
            }
            progress.settle();
            let Some((bytes, damage)) = checked else {
                continue;
            };
            if let Some(damage) = &damage {
                found(&target, damage);
            }
            let mut verified = verified.lock().unwrap_or_else(PoisonError::into_inner);
            verified.files += 1;
            verified.bytes += bytes;
            if damage.is_some() {
                verified.corrupt.entry((collection.clone(), hour)).or_default().insert(name);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(check)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    Ok(verified.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The segments still to be checked. One hour is listed at a time.
struct Walk<'a> {
    archive: &'a Archive,
    places: Vec<(&'a Collection, Hour)>,
    current: Vec<(&'a Collection, Hour, SegmentName)>,
    progress: &'a Progress,
}

type Place<'a> = (&'a Collection, Hour, SegmentName);

fn next<'a>(walk: &Mutex<Walk<'a>>) -> Result<Option<Place<'a>>, LocalError> {
    let mut walk = walk.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(found) = walk.current.pop() {
            return Ok(Some(found));
        }
        let Some((collection, hour)) = walk.places.pop() else {
            return Ok(None);
        };
        let files = walk.archive.hour(collection, hour)?;
        let segments = segments(&files, collection.variant.medium());
        walk.current = segments.map(|name| (collection, hour, name)).collect();
        walk.progress.want(walk.current.len() as u64);
    }
}

/// What there is to be checked. What has a tombstone doesn't count as here.
fn segments(files: &HourFiles, medium: Medium) -> impl Iterator<Item = SegmentName> {
    let names = files.iter().filter_map(move |name| SegmentName::parse(name, medium).ok());
    names.filter(|name| !files.has_tombstone_of(name))
}

/// Reads a segment; gives back how much was read, and what is wrong with it. None if it is gone
/// since it was listed.
fn check(
    archive: &Archive,
    target: &Target,
    buffer: &mut [u8],
    progress: &Progress,
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
                    progress.add_bytes(None, read as u64);
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
