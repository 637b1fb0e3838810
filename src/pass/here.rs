//! A view of the local archive. A directory is read once for all nodes that list it at about the
//! same time. A corrupt segment counts as missing until it is repaired.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use log::info;

use crate::archive::{Archive, Extras, HourFiles};
use crate::error::LocalError;
use crate::extra::ExtraDir;
use crate::lock::lock;
use crate::schedule::{Look, Unit};
use crate::segment::{SegmentName, is_same_recording};
use crate::target::{Place, Target};
use crate::verify::Corrupt;

/// A pass's view of the archive that it fills.
pub struct Here {
    /// Whether to remove staged files left by dead passes.
    tidies: bool,
    /// Segments that are corrupt and not yet repaired.
    corrupt: Mutex<Corrupt>,
    /// The latest look at each unit, with its number. A look that is over stays, without what it has
    /// seen: a hundred bytes for an hour, however many segments it has.
    looks: Mutex<HashMap<Unit, (u64, Weak<Seen>)>>,
}

/// The files of a unit in one look: read by the first worker that asks, and kept as long as a
/// worker lists the unit.
#[derive(Default)]
pub struct Seen {
    hour: Mutex<Option<Arc<HourFiles>>>,
    extras: Mutex<Option<Arc<Extras>>>,
}

/// Returns what was read before, or reads it now. Only workers that need the same unit wait for
/// that.
fn see<T>(
    seen: &Mutex<Option<Arc<T>>>,
    look: impl FnOnce() -> Result<T, LocalError>,
) -> Result<Arc<T>, LocalError> {
    let mut seen = lock(seen);
    match &*seen {
        Some(known) => Ok(known.clone()),
        None => Ok(seen.insert(Arc::new(look()?)).clone()),
    }
}

impl Here {
    /// A view of an archive that has not been read yet. Unless this is a dry run, staged files of
    /// dead passes are removed when they are seen.
    pub fn new(dry_run: bool) -> Here {
        Here { tidies: !dry_run, corrupt: Mutex::default(), looks: Mutex::default() }
    }

    /// What this look at a unit has seen so far.
    pub fn seen(&self, unit: Unit, look: Look) -> Arc<Seen> {
        let mut looks = lock(&self.looks);
        if let Some((number, seen)) = looks.get(&unit)
            && *number == look.number
            && let Some(seen) = seen.upgrade()
        {
            return seen;
        }
        let seen = Arc::new(Seen::default());
        looks.insert(unit, (look.number, Arc::downgrade(&seen)));
        seen
    }

    /// The files of an hour, read at most once in a look.
    ///
    /// # Errors
    ///
    /// Fails if the hour can't be read.
    pub fn hour(
        &self,
        seen: &Seen,
        archive: &Archive,
        place: &Place,
    ) -> Result<Arc<HourFiles>, LocalError> {
        see(&seen.hour, || {
            let files = self.look_at(archive, place)?;
            self.remove_stale(archive, &place.to_string(), files.staged());
            Ok(files)
        })
    }

    /// The files of an hour, read now.
    ///
    /// # Errors
    ///
    /// Fails if the hour can't be read.
    pub fn look_at(&self, archive: &Archive, place: &Place) -> Result<HourFiles, LocalError> {
        let mut files = archive.hour(&place.collection, place.hour)?;
        let corrupt = lock(&self.corrupt);
        if let Some(names) = corrupt.get(&(place.collection.clone(), place.hour)) {
            names.iter().for_each(|name| files.mark_corrupt(name.as_str()));
        }
        Ok(files)
    }

    /// The files of an extra directory, read at most once in a look.
    ///
    /// # Errors
    ///
    /// Fails if the directory can't be read.
    pub fn extras(
        &self,
        seen: &Seen,
        archive: &Archive,
        dir: &ExtraDir,
    ) -> Result<Arc<Extras>, LocalError> {
        see(&seen.extras, || {
            let files = archive.extras(dir)?;
            for path in files.files().filter(|path| path.ends_with(".temp")) {
                let path = format!("{dir}/{path}");
                if let Some((dir, name)) = path.rsplit_once('/') {
                    self.remove_stale(archive, dir, &[name.into()]);
                }
            }
            Ok(files)
        })
    }

    fn remove_stale(&self, archive: &Archive, dir: &str, names: &[Box<str>]) {
        if self.tidies {
            for name in archive.remove_stale(dir, names) {
                info!("removed {dir}/{name}, left by a pass that died");
            }
        }
    }

    /// Notes which segments are corrupt.
    pub fn found_corrupt(&self, corrupt: Corrupt) {
        *lock(&self.corrupt) = corrupt;
    }

    /// Whether a file is here but corrupt.
    pub fn is_corrupt(&self, target: &Target) -> bool {
        let Target::Segment(place, name) = target else {
            return false;
        };
        let corrupt = lock(&self.corrupt);
        let names = corrupt.get(&(place.collection.clone(), place.hour));
        names.is_some_and(|names| names.contains(name))
    }

    /// The segment that fetching this one repairs: one that is here but corrupt, and is the same
    /// recording, perhaps by another clock's name. The good content is the same for all its names.
    pub fn repaired_by(&self, target: &Target) -> Option<Target> {
        let Target::Segment(place, name) = target else {
            return None;
        };
        if self.is_corrupt(target) {
            return Some(target.clone());
        }
        let corrupt = lock(&self.corrupt);
        [place.hour, place.hour.back(1), place.hour.next()].into_iter().find_map(|hour| {
            let names = corrupt.get(&(place.collection.clone(), hour))?;
            let is_same =
                |other: &&SegmentName| is_same_recording((place.hour, name), (hour, other));
            names.iter().find(is_same).map(|name| Target::segment(&place.collection, hour, name))
        })
    }

    /// Notes that a file is intact. Returns whether it was corrupt until now.
    pub fn repaired(&self, target: &Target) -> bool {
        let Target::Segment(place, name) = target else {
            return false;
        };
        let mut corrupt = lock(&self.corrupt);
        let names = corrupt.get_mut(&(place.collection.clone(), place.hour));
        names.is_some_and(|names| names.remove(name))
    }

    /// The segments that are still corrupt.
    pub fn corrupt(&self) -> Vec<Target> {
        let corrupt = lock(&self.corrupt);
        let targets = corrupt.iter().flat_map(|((collection, hour), names)| {
            names.iter().map(|name| Target::segment(collection, *hour, name))
        });
        targets.collect()
    }
}
