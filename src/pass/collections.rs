//! Finds the streams and variants of a pass. `all` means those for which a node or the archive has
//! at least one hour. A directory without hours, such as an extra directory, is ignored, and so is
//! a file.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;

use log::info;

use super::setup::{backoff, policy};
use super::{Pass, lock};
use crate::config::Collections;
use crate::hour::{Hour, HourSelection};
use crate::node::{NodeError, Trouble};
use crate::report::{Event, Request};
use crate::schedule::{NodeId, Scheduler};
use crate::segment::{Collection, SegmentHash, Stream, Variant};
use crate::target::Directory;

/// The most directories looked at on one node. No real archive has as many streams and variants.
const MAX_DIRECTORIES: usize = 10_000;

/// The most variants of a stream that is not given by name. Real ones have a few. A directory with
/// more, such as `emotes`, holds something else, and what is in it is not looked at.
const MAX_VARIANTS: usize = 1_000;

/// Whether a directory is neither a stream nor a variant: `lost+found`, which a file system keeps at
/// its top, where an archive may be, and which only root can read; or `media/URLHASH`, of which there
/// may be thousands.
fn is_foreign(name: &str) -> bool {
    name == "lost+found" || name.parse::<SegmentHash>().is_ok()
}

/// Whether a node is not asked again after this error.
fn is_down(trouble: Trouble) -> bool {
    matches!(trouble, Trouble::Silent | Trouble::Unreachable | Trouble::Unusable)
}

impl Pass {
    /// Finds the streams and variants, and sets up the scheduler for them.
    pub(super) fn find_collections(&self) {
        let collections = match &self.config.collections {
            Collections::Given(collections) => collections.clone(),
            Collections::Found { streams, variants } => {
                self.look_for(streams.as_deref(), variants.as_deref())
            }
        };
        *lock(&self.known) = vec![None; collections.len()];
        let (nodes, extras) = (self.nodes.len(), self.config.extras.len());
        *self.scheduler() = Scheduler::new(nodes, collections.len(), extras, policy(&self.config));
        if self.config.measures() {
            self.report.track(&collections);
        }
        self.collections.get_or_init(|| collections);
    }

    fn look_for(
        &self,
        streams: Option<&[Stream]>,
        variants: Option<&[Variant]>,
    ) -> Vec<Collection> {
        let mut found = self.find(streams, variants, |directory| self.list_here(directory));
        thread::scope(|scope| {
            let mut nodes = Vec::new();
            for id in 0..self.nodes.len() {
                if self.stop.is_stopped() {
                    break;
                }
                let ask = move || self.look_at_node(id, streams, variants);
                match thread::Builder::new().spawn_scoped(scope, ask) {
                    Ok(node) => nodes.push(node),
                    Err(e) => self.no_thread_for(id, e),
                }
            }
            found.extend(nodes.into_iter().flat_map(|node| node.join().unwrap_or_default()));
        });
        found.sort_by_cached_key(Collection::to_string);
        found.dedup();
        found
    }

    /// The streams and variants of one node, as far as it lists them.
    fn look_at_node(
        &self,
        id: NodeId,
        streams: Option<&[Stream]>,
        variants: Option<&[Variant]>,
    ) -> Vec<Collection> {
        let (left, is_lost) = (Cell::new(MAX_DIRECTORIES), Cell::new(false));
        self.find(streams, variants, |directory| {
            if is_lost.get() || self.stop.is_stopped() {
                return None;
            }
            left.set(left.get().saturating_sub(1));
            let names = self.list_there(id, directory, left.get());
            is_lost.set(names.as_ref().is_err_and(|trouble| is_down(*trouble)));
            names.ok()
        })
    }

    /// The streams and variants that have an hour; `list` returns the names in a directory.
    fn find(
        &self,
        streams: Option<&[Stream]>,
        variants: Option<&[Variant]>,
        list: impl Fn(&Directory) -> Option<Vec<String>>,
    ) -> Vec<Collection> {
        let is_extra =
            |stream: &Stream| self.config.extras.iter().any(|dir| dir.as_str() == stream.as_str());
        let all = |directory: &Directory| {
            let names = list(directory).unwrap_or_default().into_iter();
            names.filter(|name| !is_foreign(name)).collect::<Vec<_>>()
        };
        let is_found = streams.is_none();
        let streams: Vec<Stream> = match streams {
            Some(streams) => streams.to_vec(),
            None => all(&Directory::Archive).iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let mut found = Vec::new();
        for stream in streams.into_iter().filter(|stream| !is_extra(stream)) {
            let variants: Vec<Variant> = match variants {
                Some(variants) => variants.to_vec(),
                None => {
                    let directory = Directory::Stream(stream.clone());
                    let names = all(&directory);
                    if is_found && names.len() > MAX_VARIANTS {
                        info!("{directory} has more than 1,000 entries: not a stream");
                        continue;
                    }
                    names.iter().filter_map(|name| name.parse().ok()).collect()
                }
            };
            for variant in variants {
                let collection = Collection { stream: stream.clone(), variant };
                let names = all(&Directory::Collection(collection.clone()));
                if names.iter().any(|name| name.parse::<Hour>().is_ok()) {
                    found.push(collection);
                }
            }
        }
        found
    }

    fn list_here(&self, directory: &Directory) -> Option<Vec<String>> {
        let listed = match directory {
            Directory::Archive => self.archive.subdirectories(""),
            Directory::Stream(stream) => self.archive.subdirectories(stream.as_str()),
            Directory::Collection(collection) => {
                let hours = self.archive.hours(collection, &HourSelection::all());
                hours.map(|hours| hours.iter().map(Hour::to_string).collect())
            }
            Directory::Hour(_) | Directory::Extras(_) => return None,
        };
        listed.map_err(|error| self.failed_here(&error)).ok()
    }

    /// Lists a directory of a node, with retries. If the last one fails, that is reported. The
    /// directory may have at most `left` names.
    ///
    /// # Errors
    ///
    /// Fails if the node doesn't list it, or this machine fails.
    fn list_there(
        &self,
        id: NodeId,
        directory: &Directory,
        left: usize,
    ) -> Result<Vec<String>, Trouble> {
        let mut tries = 0;
        let error = loop {
            let begun = Instant::now();
            let error = match self.names_in(id, directory, left) {
                Ok(names) => {
                    self.any_named.store(true, Ordering::Relaxed);
                    return Ok(names);
                }
                Err(error) if self.stop.is_stopped() => return Err(error.trouble),
                Err(error) if error.trouble == Trouble::Local => {
                    self.cannot_ask(id, &error);
                    return Err(error.trouble);
                }
                Err(error)
                    if error.trouble == Trouble::Broken && self.nodes[id].is_file(directory) =>
                {
                    return Ok(Vec::new());
                }
                Err(error) => error,
            };
            let (request, took) = (Request::List(directory), begun.elapsed());
            self.emit(Event::TryFailed { node: id, request, error: &error, took });
            let may_pass = match error.trouble {
                Trouble::Broken | Trouble::Busy(_) | Trouble::Cut => true,
                // Once another node has answered, do not make it wait for one that is down.
                Trouble::Silent | Trouble::Unreachable => !self.any_named.load(Ordering::Relaxed),
                _ => false,
            };
            if !may_pass || tries == self.config.retries {
                break error;
            }
            tries += 1;
            self.stop.sleep_until(Instant::now() + backoff(tries));
        };
        self.unnamed[id].fetch_add(1, Ordering::Relaxed);
        self.emit(Event::ListingFailed { node: id, directory, error: &error });
        Err(error.trouble)
    }

    fn names_in(
        &self,
        id: NodeId,
        directory: &Directory,
        left: usize,
    ) -> Result<Vec<String>, NodeError> {
        let mut names = Vec::new();
        let is_collection = matches!(directory, Directory::Collection(_));
        let kept = match (directory, &self.config.collections) {
            (Directory::Stream(_), Collections::Found { streams: None, .. }) => {
                left.min(MAX_VARIANTS)
            }
            _ => left,
        };
        self.nodes[id].list(directory)?.for_each(|name| {
            let is_wanted = if is_collection {
                // One hour is enough to know that the collection exists.
                names.is_empty() && name.is_some_and(|name| name.parse::<Hour>().is_ok())
            } else {
                names.len() <= kept && !name.is_some_and(is_foreign)
            };
            names.extend(name.filter(|_| is_wanted).map(str::to_owned));
            Ok(())
        })?;
        if names.len() > left {
            let what = format!("it lists more than {MAX_DIRECTORIES} streams and variants");
            return Err(NodeError::answered(Trouble::Refused, what));
        }
        Ok(names)
    }
}
