//! Asks nodes about the hours next to the selected ones: did the stream run then, and does a
//! segment that starts before the selection reach into it?

use std::collections::BTreeSet;

use crate::archive::Archive;
use crate::error::LocalError;
use crate::hour::{Hour, HourSelection};
use crate::node::Node;
use crate::segment::{Collection, Entry, Medium, SegmentName};
use crate::target::{Directory, Place};

/// How many nodes to ask about an hour before giving up. Nodes mirror each other, so the first
/// almost always knows.
const NODES_ASKED: usize = 3;
/// How many hours to ask about. A range has at most two neighbors, so this serves four ranges or
/// more; it bounds the requests when HOUR is a long list.
const HOURS_ASKED: usize = 8;

/// Asks nodes for the segments of the hours nearest to the selected ones. Hours are skipped if no
/// node is known to have them, or if a nearer hour is here. This takes a few requests at most, and
/// mostly none. A node that doesn't respond is skipped.
///
/// # Errors
///
/// Fails if the archive can't be read.
pub fn look_beside(
    archive: &Archive,
    nodes: &[&dyn Node],
    collection: &Collection,
    selection: &HourSelection,
    known: &BTreeSet<Hour>,
) -> Result<Vec<(Hour, SegmentName)>, LocalError> {
    if collection.variant.medium() == Medium::Chat || known.is_empty() {
        return Ok(Vec::new());
    }
    let here: BTreeSet<Hour> =
        archive.hours(collection, &HourSelection::all())?.into_iter().collect();
    let mut found = Vec::new();
    for hour in beside(selection, known, &here).into_iter().take(HOURS_ASKED) {
        let names = nodes.iter().take(NODES_ASKED).map(|node| segments(*node, collection, hour));
        let names = names.into_iter().find(|names| !names.is_empty()).unwrap_or_default();
        found.extend(names.into_iter().map(|name| (hour, name)));
    }
    Ok(found)
}

/// The known hours nearest to the selected ranges, unless a nearer hour is here.
fn beside(
    selection: &HourSelection,
    known: &BTreeSet<Hour>,
    here: &BTreeSet<Hour>,
) -> BTreeSet<Hour> {
    let mut hours = BTreeSet::new();
    for range in selection.ranges() {
        let (first, last) = (*range.start(), *range.end());
        let before = known.range(..first).next_back();
        hours.extend(before.filter(|hour| here.range(**hour..first).next().is_none()));
        let after = known.range(last..).find(|hour| **hour > last);
        let nearer = |hour: Hour| here.range(last..=hour).any(|here| *here > last);
        hours.extend(after.filter(|hour| !nearer(**hour)));
    }
    hours.retain(|hour| !selection.contains(*hour));
    hours
}

/// How many segments of one hour are used: a node may list any number.
const MAX_SEGMENTS: usize = 10_000;

fn segments(node: &dyn Node, collection: &Collection, hour: Hour) -> Vec<SegmentName> {
    let mut segments = Vec::new();
    let directory = Directory::Hour(Place { collection: collection.clone(), hour });
    let listed = node.list(&directory).and_then(|listing| {
        listing.for_each(|name| {
            if segments.len() < MAX_SEGMENTS
                && let Some(Ok(Entry::Segment(name))) = name.map(|n| Entry::parse(n, Medium::Video))
            {
                segments.push(name);
            }
            Ok(())
        })
    });
    match listed {
        Ok(()) => segments,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_hour_is_only_asked_about_if_none_here_is_nearer() {
        let hours = |texts: &[&str]| -> BTreeSet<Hour> {
            texts.iter().map(|text| format!("2018-11-10T{text}").parse().unwrap()).collect()
        };
        let known = hours(&["01", "02", "05", "06", "09", "11"]);
        let (first, last) = (hours(&["05"]), hours(&["06"]));
        let range = *first.first().unwrap()..=*last.first().unwrap();
        let selection = HourSelection::union(vec![range]);
        for (here, asked) in [
            (&[][..], &["02", "09"][..]),
            (&["01"], &["02", "09"]),
            (&["02"], &["09"]),
            (&["03", "05"], &["09"]),
            (&["08"], &["02"]),
            (&["06", "10"], &["02", "09"]),
        ] {
            assert_eq!(beside(&selection, &known, &hours(here)), hours(asked), "{here:?}");
        }
        let two = hours(&["05", "06", "09"]).into_iter().map(|hour| hour..=hour);
        let two = HourSelection::union(two.collect());
        assert_eq!(beside(&two, &known, &hours(&[])), hours(&["02", "11"]));
        assert_eq!(beside(&HourSelection::all(), &known, &hours(&[])), hours(&[]));
    }
}
