//! Parses the HOUR arguments and `--delete-older-than`.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use chrono::{DateTime, TimeDelta, Utc};

use super::list::{read_lines, read_list};
use super::secrets::shown;
use crate::hour::{Hour, HourSelection, parse_hours};

/// Parses the HOUR arguments; without any, all hours are selected. `-` and `@FILE` are lists with
/// one HOUR per line.
///
/// # Errors
///
/// Fails if an argument is invalid, or a file can't be read.
pub fn read_hours(arguments: &[String], now: DateTime<Utc>) -> Result<HourSelection> {
    if arguments.is_empty() {
        return Ok(HourSelection::all());
    }
    let mut ranges = Vec::new();
    for list in arguments {
        let mut items = Vec::new();
        for item in read_list("HOUR", list)? {
            if item.text == "-" && !item.is_line() {
                items.append(&mut read_lines("HOUR", "-")?);
            } else {
                items.push(item);
            }
        }
        for item in items {
            for text in item.text.split(',').map(str::trim) {
                let wrong = |why| anyhow!("{}: {} {why}", item.place("HOUR"), shown(text));
                ranges.push(parse_hours(text, now).map_err(wrong)?);
            }
        }
    }
    Ok(HourSelection::union(ranges))
}

/// The first hour that is too young to be deleted now.
pub fn first_kept(age: Duration, now: DateTime<Utc>) -> Hour {
    let age = TimeDelta::from_std(age).ok();
    age.and_then(|age| now.checked_sub_signed(age)).map_or(Hour::MIN, Hour::containing)
}

/// The first hour that is too young to be deleted.
///
/// # Errors
///
/// Fails if older hours are selected: each pass would fetch what the last one deleted.
pub fn retention_bound(age: Duration, hours: &HourSelection, now: DateTime<Utc>) -> Result<Hour> {
    let bound = first_kept(age, now);
    if let Some(first) = hours.first().filter(|first| *first < bound) {
        let first = if first == Hour::MIN { "all hours".into() } else { first.to_string() };
        bail!(
            "--delete-older-than deletes the hours before {bound}, but HOUR selects {first}: \
             select {bound}.. or last:N"
        );
    }
    Ok(bound)
}
