//! A worker's listings: the hours of a collection, the contents of a unit, and a second look at one
//! whose files answered 404. What is wanted of an hour is in `list_hour`.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::here::Seen;
use super::{Pass, lock};
use crate::archive::Blocked;
use crate::extra::{ExtraDir, ExtraPath};
use crate::fetch::FetchError;
use crate::hour::Hour;
use crate::node::{Listing, NodeError, Trouble};
use crate::plan::{LARGE_WINDOW, Skip, WINDOW, Window};
use crate::report::Event;
use crate::schedule::{Item, List, Look, Loss, NodeId, Unit, Unwanted};
use crate::segment::{NameError, SegmentName};
use crate::target::{Directory, Target};

/// A listing with more hours than this, eleven years, is refused: it is not from a real archive.
const MAX_HOURS: usize = 100_000;

/// A listing of a unit that has arrived, or whose start has.
pub(super) struct Arrived {
    pub(super) node: NodeId,
    pub(super) unit: Unit,
    /// The last name of the part that was looked at before.
    pub(super) after: Option<Item>,
    /// What the look at the archive that belongs to it has seen.
    pub(super) seen: Arc<Seen>,
    /// How long the answer took.
    pub(super) took: Duration,
}

/// The files wanted from a listing, and the last name looked at if the listing has more after it.
pub(super) type Wanted = (Vec<Item>, Option<Item>);

/// A listing with more invalid names than this is refused. Archives do contain foreign files, but
/// not more of them than segments.
const MAX_JUNK: usize = 10_000;

/// Counts the invalid names in a listing.
#[derive(Default)]
pub(super) struct Junk(usize);

impl Junk {
    /// Counts one more.
    ///
    /// # Errors
    ///
    /// Fails if there are too many: the rest of the listing is not worth the time.
    pub(super) fn count(&mut self, why: NameError) -> Result<Skip, NodeError> {
        self.0 += 1;
        if self.0 > MAX_JUNK {
            let most = HumanCount(MAX_JUNK as u64);
            refuse_listing(format!("it lists more than {most} invalid names"))?;
        }
        Ok(Skip::Invalid(why))
    }
}

/// Ends a listing that is not worth reading on.
pub(super) fn refuse_listing(what: String) -> Result<(), NodeError> {
    Err(NodeError::answered(Trouble::Refused, what))
}

impl Pass {
    /// Lists the hours of a collection, and reports to the scheduler which of them are selected.
    pub(super) fn list_hours(
        &self,
        id: NodeId,
        index: usize,
        begun: Instant,
    ) -> Result<(), FetchError> {
        let collection = &self.collections()[index];
        let directory = Directory::Collection(collection.clone());
        let (mut known, mut selected) = (BTreeSet::new(), Vec::new());
        let skipped = |name: Option<&str>, why: Skip| self.skip(id, &directory, name, why);
        let listing = self.nodes[id].list(&directory)?;
        let mut junk = Junk::default();
        listing.for_each(|name| {
            match name.map(str::parse::<Hour>) {
                Some(Ok(hour)) => {
                    if known.insert(hour) && self.is_selected(collection, hour) {
                        selected.push(hour);
                    }
                }
                _ if name.is_some_and(|name| name.starts_with('.')) => {}
                Some(Err(_)) => skipped(name, junk.count(NameError::NO_HOUR)?),
                None => skipped(None, junk.count(NameError::NOT_UNICODE)?),
            }
            if known.len() > MAX_HOURS {
                let most = HumanCount(MAX_HOURS as u64);
                return refuse_listing(format!("it lists more than {most} hours"));
            }
            Ok(())
        })?;
        let (hours, chosen, took) = (known.len(), selected.len(), begun.elapsed());
        lock(&self.known)[index].get_or_insert_default().append(&mut known);
        self.emit(Event::HoursListed { node: id, collection, hours, selected: chosen, took });
        self.note_hours(id, collection, &selected);
        let now = Instant::now();
        self.settle(|scheduler| scheduler.hours_listed(id, index, selected, now));
        Ok(())
    }

    /// Lists a unit, from the start or from where an earlier part ended.
    pub(super) fn list_unit(
        self: &Arc<Self>,
        id: NodeId,
        unit: Unit,
        after: Option<&Item>,
        look: Look,
        begun: Instant,
    ) -> Result<(), FetchError> {
        let seen = self.here.seen(unit, look);
        let directory = self.directory(List::Unit(unit));
        let listing = match self.nodes[id].list(&directory) {
            Err(e) if e.trouble == Trouble::Gone && matches!(directory, Directory::Extras(_)) => {
                self.emit(Event::NoExtras { node: id });
                let now = Instant::now();
                self.settle(|scheduler| scheduler.listed(id, unit, Vec::new(), None, now));
                return Ok(());
            }
            listing => listing?,
        };
        let arrived =
            Arrived { node: id, unit, after: after.cloned(), seen, took: begun.elapsed() };
        match listing {
            Listing::Whole(whole) => {
                let pass = self.clone();
                self.readers.run(move || pass.look_through(&arrived, Listing::Whole(whole)))
            }
            listing => self.look_through(&arrived, listing),
        }
    }

    /// Looks through a listing, and reports to the scheduler what is wanted of it.
    fn look_through(&self, arrived: &Arrived, listing: Listing<'_>) -> Result<(), FetchError> {
        let (id, unit) = (arrived.node, arrived.unit);
        let directory = &self.directory(List::Unit(unit));
        let (items, up_to) = match directory {
            Directory::Hour(place) => self.list_hour(place, arrived, listing)?,
            Directory::Extras(dir) => self.list_extras(dir, arrived, listing)?,
            _ => unreachable!("a unit is an hour or an extra directory"),
        };
        let now = Instant::now();
        let unwanted = self.settle(|scheduler| scheduler.listed(id, unit, items, up_to, now));
        for unwanted in unwanted {
            let (item, why) = match unwanted {
                Unwanted::NearDuplicate(item, of) => {
                    let Directory::Hour(place) = directory else { continue };
                    let beside = format!("{}/", place.hour);
                    let of = of.strip_prefix(&beside).unwrap_or(&of).to_owned();
                    (item, Skip::NearDuplicate(of))
                }
                Unwanted::Deleted(item) => (item, Skip::Tombstoned),
            };
            self.skip(id, directory, Some(item.as_str()), why);
        }
        Ok(())
    }

    /// How many names of a listing may be kept in memory. Only one listing at a time may use the
    /// large window, so that many lying nodes can neither fill the memory nor make each other wait.
    pub(super) fn window(&self) -> (usize, Option<MutexGuard<'_, ()>>) {
        match self.large_window.try_lock() {
            Ok(guard) => (LARGE_WINDOW, Some(guard)),
            Err(_) => (WINDOW, None),
        }
    }

    /// Lists an extra directory, and selects what to fetch.
    fn list_extras(
        &self,
        dir: &ExtraDir,
        arrived: &Arrived,
        listing: Listing<'_>,
    ) -> Result<Wanted, FetchError> {
        let Arrived { node: id, took, .. } = *arrived;
        let directory = &Directory::Extras(dir.clone());
        let files = self.here.extras(&arrived.seen, self.archive, dir)?;
        let after = match &arrived.after {
            Some(Item::Extra(path)) => Some(path.clone()),
            _ => None,
        };
        let (size, _large) = self.window();
        let mut window = Window::new(size, after);
        let (mut names, mut here, mut junk) = (0, 0, Junk::default());
        listing.for_each(|name| {
            names += 1;
            if name.is_some_and(|name| !self.is_listed(dir.as_str(), name)) {
                return Ok(());
            }
            let parsed = name.map_or(Err(NameError::NOT_UNICODE), str::parse::<ExtraPath>);
            match (name, parsed) {
                (Some(name), Ok(_)) if files.has(name) => here += 1,
                (_, Ok(path)) if !path.is_temp() => match files.blocked(&path) {
                    None => window.add(path),
                    Some(why) if window.is_first() => self.blocked(id, dir, path, why),
                    Some(_) => {}
                },
                (_, parsed) if window.is_first() => {
                    let why = match parsed {
                        Ok(_) => Skip::Temp,
                        Err(why) => junk.count(why)?,
                    };
                    self.skip(id, directory, name, why);
                }
                _ => {}
            }
            Ok(())
        })?;
        let (paths, up_to) = window.finish();
        let wanted = paths.len();
        self.emit(Event::Listed { node: id, directory, names, here, wanted, took });
        let items = paths.into_iter().map(Item::Extra).collect();
        Ok((items, up_to.map(Item::Extra)))
    }

    /// Reports a listed extra file that cannot be stored here.
    fn blocked(&self, id: NodeId, dir: &ExtraDir, path: ExtraPath, why: Blocked) {
        let what = match why {
            Blocked::Here(error) => return self.failed_here(&error),
            Blocked::Contradicts => "its path conflicts with that of another file or directory",
            Blocked::TooLong => "its path is too long for this archive",
        };
        let error = NodeError::answered(Trouble::Refused, what);
        self.lost(&Target::Extra(dir.clone(), path), &Loss::Failed(id, error));
    }

    /// Lists a unit again, to see which of these names the node still has.
    pub(super) fn list_again(
        &self,
        id: NodeId,
        unit: Unit,
        names: &HashSet<Item>,
    ) -> Result<(), FetchError> {
        let medium = match unit {
            Unit::Hour(Reverse(_), index) => Some(self.collections()[index].variant.medium()),
            Unit::Extras(_) => None,
        };
        let mut still = Vec::new();
        let listing = self.nodes[id].list(&self.directory(List::Again(unit)))?;
        listing.for_each(|name| {
            let item = match (name, medium) {
                (Some(name), Some(medium)) => {
                    SegmentName::parse(name, medium).ok().map(Item::Segment)
                }
                (Some(name), None) => name.parse().ok().map(Item::Extra),
                (None, _) => None,
            };
            still.extend(item.filter(|item| names.contains(item)));
            Ok(())
        })?;
        let now = Instant::now();
        self.settle(|scheduler| scheduler.listed_again(id, unit, names, &still, now));
        Ok(())
    }
}
