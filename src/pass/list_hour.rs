//! The listing of an hour: what to fetch of it, and which tombstones to create.

use log::info;

use super::Pass;
use super::listings::{Arrived, Junk, Wanted, refuse_listing};
use crate::archive::HourFiles;
use crate::clock;
use crate::compare;
use crate::fetch::FetchError;
use crate::hour::Hour;
use crate::node::{Listing, NodeError};
use crate::plan::{Planner, Rules, Skip, Window};
use crate::report::Event;
use crate::schedule::{Item, NodeSet};
use crate::segment::{NameError, SegmentName, TOMBSTONE};
use crate::target::{Directory, Place};

/// How many names of a listing are of which kind.
#[derive(Default)]
struct Names {
    all: usize,
    /// The segments that are here.
    here: usize,
    /// The segments that the node has.
    has: u64,
}

impl Pass {
    /// Looks through the listing of an hour, and selects what to fetch.
    pub(super) fn list_hour(
        &self,
        place: &Place,
        arrived: &Arrived,
        listing: Listing<'_>,
    ) -> Result<Wanted, FetchError> {
        let Arrived { node: id, unit, took, .. } = *arrived;
        let directory = &Directory::Hour(place.clone());
        // Read after the answer has arrived, so as to see what other writers have added meanwhile.
        let files = self.here.hour(&arrived.seen, self.archive, place)?;
        let (size, _large) = self.window();
        let after = match &arrived.after {
            Some(Item::Segment(name)) => Some(name.clone()),
            _ => None,
        };
        let mut planner = self.planner(place, &files, Window::new(size, after));
        let names = self.read_names(place, arrived, listing, &files, &mut planner)?;
        if planner.has_implausible_tombstones() {
            refuse_listing("it lists more new tombstones than the hour has segments".into())?;
        }
        if planner.is_clock_wrong() {
            self.emit(Event::FromTheFuture { node: id, place });
        }
        let beside = planner.neighbours().into_iter();
        let beside: Vec<_> = beside.filter_map(|hour| self.files_beside(place, hour)).collect();
        let plan = planner.plan(&beside, |name: &SegmentName, why| {
            if why == Skip::Tombstoned {
                self.note_deleted(unit, NodeSet::of(id));
            }
            self.skip(id, directory, Some(name.as_str()), why);
        });
        let wanted = plan.wanted.len();
        let Names { all: names, here, .. } = names;
        self.emit(Event::Listed { node: id, directory, names, here, wanted, took });
        self.create_tombstones(id, unit, place, plan.tombstones)?;
        if wanted > 0 && !self.config.dry_run {
            self.archive.check_open(&place.to_string())?;
        }
        let items = plan.wanted.into_iter().map(Item::Segment).collect();
        Ok((items, plan.up_to.map(Item::Segment)))
    }

    fn planner<'f>(
        &self,
        place: &Place,
        files: &'f HourFiles,
        window: Window<SegmentName>,
    ) -> Planner<'f> {
        let rules = Rules {
            now: clock::now(),
            recent_cutoff: self.config.recent_cutoff,
            order: self.config.order,
        };
        Planner::new(place.hour, place.collection.variant.medium(), files, rules, window)
    }

    /// Passes the names of a listing to a planner, and reports those that it rejects.
    fn read_names(
        &self,
        place: &Place,
        arrived: &Arrived,
        listing: Listing<'_>,
        files: &HourFiles,
        planner: &mut Planner<'_>,
    ) -> Result<Names, NodeError> {
        let (id, directory, path) =
            (arrived.node, &Directory::Hour(place.clone()), place.to_string());
        // Later windows would report and count the same again.
        let is_first = arrived.after.is_none();
        let skipped = |name: Option<&str>, why: Skip| {
            if is_first {
                self.skip(id, directory, name, why);
            }
        };
        let compares = self.compares() && is_first;
        let medium = place.collection.variant.medium();
        let ignores_tombstones = self.config.nodes[id].settings.no_tombstones;
        let is_meant = |name: &str| {
            // Tombstones count even if they are not in the list of files (`--files-from`).
            let is_tombstone = name.ends_with(TOMBSTONE);
            if is_tombstone { !ignores_tombstones } else { self.is_listed(&path, name) }
        };
        let (mut names, mut junk) = (Names::default(), Junk::default());
        listing.for_each(|name| {
            names.all += 1;
            let Some(text) = name else {
                skipped(None, junk.count(NameError::NOT_UNICODE)?);
                return Ok(());
            };
            if !is_meant(text) {
                return Ok(());
            }
            let skip = planner.listed(text);
            if compares && matches!(skip, None | Some(Skip::Here)) {
                names.has += u64::from(compare::counts(files, text, medium));
            }
            match skip {
                Some(Skip::Here) => names.here += 1,
                Some(Skip::Invalid(why)) => skipped(name, junk.count(why)?),
                Some(why) => skipped(name, why),
                None => {}
            }
            if planner.has_too_many_tombstones() {
                return refuse_listing("it lists more new tombstones than an hour can hold".into());
            }
            Ok(())
        })?;
        if compares {
            self.note_compared(id, place, names.has, files);
        }
        Ok(names)
    }

    /// The files here in an hour next to the listed one. If that hour cannot be read, the listed
    /// one does not fail.
    fn files_beside(&self, place: &Place, hour: Hour) -> Option<(Hour, HourFiles)> {
        let beside = Place { collection: place.collection.clone(), hour };
        match self.here.look_at(self.archive, &beside) {
            Ok(files) => Some((hour, files)),
            Err(error) => {
                info!("looking for near duplicates of {place}: {error}");
                None
            }
        }
    }
}
