//! Deletes old hours: their segments, and the directory if nothing else is in it. Other files are
//! kept.

use std::fs::File;
use std::io;

use chrono::TimeDelta;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::archive::{Archive, For, Part, for_each_entry};
use crate::error::LocalError;
use crate::hour::Hour;
use crate::segment::{Collection, Entry};
use crate::stop::Stop;

/// The outcome for an old hour.
#[derive(Debug)]
pub enum Deletion {
    /// This many segments were deleted, or would be in a dry run. `left` other files are left,
    /// including those that could not be deleted; `error` is the first such failure.
    Done { segments: u64, left: u64, error: Option<LocalError> },
    /// It must not be deleted.
    Refused(Refusal),
}

/// Why nothing is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The hour is not a directory, but a file or a symbolic link.
    NotADirectory,
    /// The path to the hour has a symbolic link that belongs neither to root nor to our user.
    LinkLeadsOut,
    /// The pass was interrupted.
    Interrupted,
    /// The pass had a local failure (status 1).
    LocalFailure,
    /// No node responded as it should (status 4).
    NoNode,
    /// Nodes sent their time, and our clock is this far ahead of the nearest (negative: behind it).
    ClockOff(TimeDelta),
}

impl Refusal {
    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::NotADirectory => "not_a_directory",
            Refusal::LinkLeadsOut => "link",
            Refusal::Interrupted => "interrupted",
            Refusal::LocalFailure => "local_failure",
            Refusal::NoNode => "no_node",
            Refusal::ClockOff(_) => "clock",
        }
    }
}

/// How far our clock may be off a node's that confirms it, in hours. Retention counts hours, so a
/// smaller error doesn't matter.
const CLOCKS_AGREE: i64 = 1;

/// Checks our clock, by which hours are old. `ahead` has, for each node, how far our clock was ahead
/// of the date in its last response, if it sent one. A single node that agrees confirms our clock.
/// If no node sends its time, our clock is trusted.
///
/// # Errors
///
/// Fails with [`Refusal::ClockOff`] if all nodes that send their time disagree.
pub fn confirm_clock(ahead: impl IntoIterator<Item = Option<TimeDelta>>) -> Result<(), Refusal> {
    let nearest = ahead.into_iter().flatten().min_by_key(TimeDelta::abs);
    match nearest.filter(|ahead| ahead.abs() > TimeDelta::hours(CLOCKS_AGREE)) {
        Some(ahead) => Err(Refusal::ClockOff(ahead)),
        None => Ok(()),
    }
}

/// Deletes the segments of an hour, until the pass is stopped; a dry run only counts them. The path
/// to the hour follows the same rules as when the hour is filled.
///
/// # Errors
///
/// Fails if the hour can't be reached. If some of its files can't be deleted, [`Deletion::Done`]
/// has the first error.
pub fn delete_hour(
    archive: &Archive,
    collection: &Collection,
    hour: Hour,
    dry_run: bool,
    stop: &Stop,
) -> Result<Deletion, LocalError> {
    let path = archive.tree().base().join(format!("{collection}/{hour}"));
    let fail = |e: io::Error| LocalError::changing("deleting the old segments in", &path, e);
    let entered = archive.tree().enter(&collection.to_string(), Part::Streams, For::Reaching);
    let parent = match entered {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::LOOP) => {
            return Ok(Deletion::Refused(Refusal::LinkLeadsOut));
        }
        entered => entered.map_err(fail)?,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match openat(&parent, hour.to_string(), flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return Ok(Deletion::Refused(Refusal::NotADirectory));
        }
        opened => File::from(opened.map_err(|e| fail(e.into()))?),
    };
    let (mut segments, mut left, mut error) = (0, 0, None);
    let read = for_each_entry(dir, |dir, name, kind| {
        if stop.is_stopped() || !is_segment(name, kind, collection) {
            left += 1;
            return;
        }
        let deleted = if dry_run { Ok(()) } else { unlinkat(dir, name, AtFlags::empty()) };
        match deleted {
            // Another program was faster.
            Ok(()) | Err(Errno::NOENT) => segments += 1,
            Err(e) => {
                left += 1;
                error.get_or_insert_with(|| LocalError::changing("deleting", &path.join(name), e));
            }
        }
    });
    if let Err(e) = read {
        error.get_or_insert_with(|| fail(e));
    } else if !dry_run && left == 0 {
        match unlinkat(&parent, hour.to_string(), AtFlags::REMOVEDIR) {
            // Another program put a file there meanwhile, or was faster.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
            Err(e) => drop(error.get_or_insert_with(|| fail(e.into()))),
        }
    }
    Ok(Deletion::Done { segments, left, error })
}

fn is_segment(name: &str, kind: FileType, collection: &Collection) -> bool {
    let parsed = Entry::parse(name, collection.variant.medium());
    kind == FileType::RegularFile && matches!(parsed, Ok(Entry::Segment(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_that_agrees_confirms_the_clock() {
        let (day, minute) = (TimeDelta::days, TimeDelta::minutes);
        for (ahead, off) in [
            (vec![], None),
            (vec![None, None], None),
            (vec![Some(minute(0))], None),
            (vec![Some(minute(59)), None], None),
            (vec![Some(minute(-60))], None),
            (vec![Some(minute(61))], Some(minute(61))),
            (vec![Some(day(25)), None, Some(day(-3))], Some(day(-3))),
            // Others may be wrong.
            (vec![Some(day(25)), Some(minute(1))], None),
        ] {
            let expected = off.map_or(Ok(()), |off| Err(Refusal::ClockOff(off)));
            assert_eq!(confirm_clock(ahead.clone()), expected, "{ahead:?}");
        }
    }
}
