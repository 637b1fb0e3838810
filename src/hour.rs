//! Hours, the units of an archive, and the selections of them that a command line can make. All
//! times are UTC. Nothing here reads a clock: the current time is passed in.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Timelike, Utc};

/// An hour in microseconds.
pub const HOUR_MICROS: i64 = 3_600_000_000;

/// One hour of an archive, written `2018-11-10T05`.
///
/// Years have four digits, so hours outside 0000 to 9999 can't be named and don't exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(i32);

/// Why a text is not a valid hour or selection of hours. Displays as a clause that follows the
/// text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourError(String);

impl fmt::Display for HourError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HourError {}

fn wrong<T>(why: impl Into<String>) -> Result<T, HourError> {
    Err(HourError(why.into()))
}

impl Hour {
    /// The first hour, `0000-01-01T00`.
    pub const MIN: Hour = Hour(-17_268_672);
    /// The last hour, `9999-12-31T23`.
    pub const MAX: Hour = Hour(70_389_527);

    /// The hour that contains this instant, or the nearest hour that can be named.
    pub fn containing(instant: DateTime<Utc>) -> Hour {
        let hours = instant.timestamp().div_euclid(3600);
        Hour(hours.clamp(Self::MIN.0.into(), Self::MAX.0.into()) as i32)
    }

    /// The hour this many hours earlier, or the first one.
    pub fn back(self, hours: u32) -> Hour {
        let back = i64::from(self.0) - i64::from(hours);
        Hour(back.max(Self::MIN.0.into()) as i32)
    }

    /// The next hour, or the last one.
    pub fn next(self) -> Hour {
        Hour(self.0.saturating_add(1).min(Self::MAX.0))
    }

    /// A point in time, `into` microseconds after the start of this hour, in microseconds since
    /// 1970.
    pub fn micros_at(self, into: u32) -> i64 {
        i64::from(self.0) * HOUR_MICROS + i64::from(into)
    }

    /// The hour that contains a point in time, given in microseconds since 1970, or the nearest
    /// hour that can be named.
    pub fn at_micros(micros: i64) -> Hour {
        let hours = micros.div_euclid(HOUR_MICROS);
        Hour(hours.clamp(Self::MIN.0.into(), Self::MAX.0.into()) as i32)
    }

    /// How many hours after an earlier hour this one is.
    pub fn since(self, earlier: Hour) -> i32 {
        self.0 - earlier.0
    }

    fn on(date: NaiveDate, hour: u32) -> Hour {
        let days = i64::from(date.num_days_from_ce()) - i64::from(epoch().num_days_from_ce());
        Hour((days * 24 + i64::from(hour)) as i32)
    }
}

fn epoch() -> NaiveDate {
    DateTime::UNIX_EPOCH.date_naive()
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = DateTime::UNIX_EPOCH + TimeDelta::hours(self.0.into());
        // Digit by digit: each path contains an hour, and formatting four padded numbers is slow.
        let mut text = *b"0000-00-00T00";
        put(&mut text[..4], at.year().unsigned_abs());
        put(&mut text[5..7], at.month());
        put(&mut text[8..10], at.day());
        put(&mut text[11..], at.hour());
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Writes a number into all of these digits.
fn put(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl FromStr for Hour {
    type Err = HourError;

    fn from_str(text: &str) -> Result<Self, HourError> {
        let Some((day, hour)) = text.split_once('T') else {
            return wrong("is not a valid hour: it should look like 2018-11-10T05");
        };
        let date = parse_day(day)?;
        match digits(hour, 2) {
            Some(hour @ 0..=23) => Ok(Hour::on(date, hour)),
            Some(_) => wrong("is not a valid hour: hours are 00 to 23"),
            None => wrong("is not a valid hour: the T must be followed by two digits, 00 to 23"),
        }
    }
}

fn parse_day(text: &str) -> Result<NaiveDate, HourError> {
    let mut parts = text.split('-');
    let date = (|| {
        let year = digits(parts.next()?, 4)?;
        let month = digits(parts.next()?, 2)?;
        let day = digits(parts.next()?, 2)?;
        parts.next().is_none().then_some((year, month, day))
    })();
    let Some((year, month, day)) = date else {
        return wrong("is not a valid day: it should look like 2018-11-10");
    };
    match NaiveDate::from_ymd_opt(year as i32, month, day) {
        Some(date) => Ok(date),
        None => wrong("is not a valid day: there is no such date"),
    }
}

/// The value of exactly `count` ASCII digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    let plain = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// The hours selected for a pass: a union of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HourSelection {
    /// Sorted, and neither overlapping nor adjacent.
    ranges: Vec<RangeInclusive<Hour>>,
}

impl HourSelection {
    /// All hours.
    pub fn all() -> Self {
        let ranges = vec![Hour::MIN..=Hour::MAX];
        HourSelection { ranges }
    }

    /// The union of ranges, which may overlap and come in any order.
    pub fn union(mut ranges: Vec<RangeInclusive<Hour>>) -> Self {
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<Hour>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start().0 <= last.end().0.saturating_add(1) => {
                    *last = *last.start()..=(*last.end()).max(*range.end());
                }
                _ => merged.push(range),
            }
        }
        HourSelection { ranges: merged }
    }

    /// Whether this hour is selected.
    pub fn contains(&self, hour: Hour) -> bool {
        let after = self.ranges.partition_point(|range| *range.start() <= hour);
        after > 0 && self.ranges[after - 1].contains(&hour)
    }

    /// The first selected hour.
    pub fn first(&self) -> Option<Hour> {
        self.ranges.first().map(|range| *range.start())
    }

    /// The ranges, sorted, and neither overlapping nor adjacent.
    pub fn ranges(&self) -> &[RangeInclusive<Hour>] {
        &self.ranges
    }
}

/// Parses one form of the HOUR argument: an hour, a day, a point in time, `today`, `yesterday`,
/// `A..B` with either end optional, `last:N`, or `all`. `last:N` counts back from `now`.
///
/// # Errors
///
/// Fails if the text has none of these forms; the error says why, and often what was probably
/// meant.
pub fn parse_hours(text: &str, now: DateTime<Utc>) -> Result<RangeInclusive<Hour>, HourError> {
    if text == "all" {
        return Ok(Hour::MIN..=Hour::MAX);
    }
    if let Some(count) = text.strip_prefix("last:").filter(|count| !count.contains("..")) {
        return match digits_of_any_length(count) {
            Some(count @ 1..) => {
                let last = Hour::containing(now);
                Ok(last.back(count - 1)..=last)
            }
            _ => wrong("is not a valid HOUR: last: needs a number of at least 1, as in last:3"),
        };
    }
    let Some((from, to)) = text.split_once("..") else {
        return parse_end(text, now).or_else(|why| match range_meant(text, now) {
            Some(range) => wrong(format!("is not a valid HOUR: did you mean {range}?")),
            None => Err(why),
        });
    };
    let open = |text: &str| match text.trim() {
        "" => Ok(Hour::MIN..=Hour::MAX),
        text if text == "all" || text.starts_with("last:") => wrong(format!(
            "({text}) is not a valid end of a range: give an hour, a day, today or yesterday, or \
             omit it"
        )),
        text => parse_end(text, now).map_err(|HourError(why)| HourError(format!("({text}) {why}"))),
    };
    let range = *open(from)?.start()..=*open(to)?.end();
    if range.is_empty() {
        return wrong("is not a valid HOUR: its end is before its start");
    }
    Ok(range)
}

/// Parses an hour, a point in time as the hour that contains it, or a day as its 24 hours.
fn parse_end(text: &str, now: DateTime<Utc>) -> Result<RangeInclusive<Hour>, HourError> {
    let day = |date| Ok(Hour::on(date, 0)..=Hour::on(date, 23));
    match text {
        "today" => return day(now.date_naive()),
        "yesterday" => return day((now - TimeDelta::days(1)).date_naive()),
        _ => {}
    }
    if let Some((date, time)) = text.split_once('T')
        && date.starts_with(|c: char| c.is_ascii_digit())
    {
        let hour = match time.len() {
            ..=2 => text.parse()?,
            _ => parse_instant(date, time)?,
        };
        return Ok(hour..=hour);
    }
    if let Some(meant) = meant(text) {
        return wrong(format!("is not a valid HOUR: did you mean {meant}?"));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return wrong(
            "is not a valid HOUR: give an hour (2018-11-10T05), a day (2018-11-10), today, \
             yesterday, a range (A..B), last:N, all, @FILE, or - for standard input",
        );
    }
    day(parse_day(text)?)
}

/// The range that was probably meant by two ends with a dash, a slash or a word in place of `..`.
fn range_meant(text: &str, now: DateTime<Utc>) -> Option<String> {
    // No range is longer, and each dash costs a look at the whole text.
    if text.len() > 80 {
        return None;
    }
    let is_end = |text: &str| parse_end(text, now).is_ok();
    let dashes = text.match_indices(['-', '/', '\u{2013}']);
    dashes.chain(text.match_indices(" to ")).find_map(|(at, dash)| {
        let (from, to) = (text[..at].trim(), text[at + dash.len()..].trim());
        (is_end(from) && is_end(to)).then(|| format!("{from}..{to}"))
    })
}

/// An hour or a point in time whose day is followed by something other than a T, as SQL and many
/// logs write it.
fn meant_with_t(text: &str) -> Option<String> {
    let (date, time) = text.split_once([' ', 't', '_'])?;
    let meant = format!("{date}T{time}");
    let is_valid = match time.len() {
        ..=2 => meant.parse::<Hour>().is_ok(),
        _ => parse_instant(date, time).is_ok(),
    };
    is_valid.then_some(meant)
}

/// The valid form that was probably meant by an invalid one.
fn meant(text: &str) -> Option<String> {
    if let Some(meant) = meant_with_t(text) {
        return Some(meant);
    }
    let small = text.to_ascii_lowercase();
    let is_known = |text: &&str| matches!(*text, "all" | "today" | "yesterday");
    if let Some(known) = Some(&*small).filter(is_known) {
        return Some(known.to_owned());
    }
    let rest = small.strip_prefix("last").unwrap_or(&small);
    let rest = rest.trim_matches([' ', ':', '=', '-', '_']);
    let rest =
        ["hours", "hour", "h"].iter().find_map(|unit| rest.strip_suffix(unit)).unwrap_or(rest);
    if let Some(year @ 1970..=2999) = digits(text, 4) {
        return Some(format!("{year}-01-01..{year}-12-31"));
    }
    match digits_of_any_length(rest.trim_end()) {
        Some(count @ 1..=9_999) => return Some(format!("last:{count}")),
        _ if small == "last" => return Some("last:N, as in last:3".into()),
        _ => {}
    }
    let (year, month) = small.split_once('-')?;
    let first = NaiveDate::from_ymd_opt(digits(year, 4)? as i32, digits(month, 2)?, 1)?;
    let last = first.checked_add_months(Months::new(1))?.pred_opt()?;
    Some(format!("{first}..{last}"))
}

/// Parses a point in time as the hour that contains it: `05:35`, `05:35:00.000`, `05:35:00Z` or
/// `05:35+01:00` of a day. It is UTC unless it has an offset.
fn parse_instant(date: &str, time: &str) -> Result<Hour, HourError> {
    let date = parse_day(date)?;
    let (time, offset) = match time.find(['Z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, "Z"),
    };
    let Some(((hour, minute), ahead)) = parse_time(time).zip(parse_offset(offset)) else {
        return wrong(
            "is not a valid hour or point in time: it should look like 2018-11-10T05, \
             2018-11-10T05:35 or 2018-11-10T05:35:00.250, optionally followed by Z or +01:00",
        );
    };
    let into_day = i64::from(hour * 60 + minute) - ahead;
    let hours = i64::from(Hour::on(date, 0).0) + into_day.div_euclid(60);
    match i32::try_from(hours).map(Hour) {
        Ok(hour) if (Hour::MIN..=Hour::MAX).contains(&hour) => Ok(hour),
        _ => wrong("is not a valid point in time: its year in UTC does not have four digits"),
    }
}

/// The hour and minute of `05`, `05:35`, `05:35:00` or `05:35:00.250`.
fn parse_time(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(':');
    let hour = digits(parts.next()?, 2).filter(|hour| *hour < 24)?;
    let minute = match parts.next() {
        Some(minute) => digits(minute, 2).filter(|minute| *minute < 60)?,
        None => 0,
    };
    if let Some(seconds) = parts.next() {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
        let is_fraction = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
        // There may be a leap second.
        digits(whole, 2).filter(|second| *second <= 60 && is_fraction)?;
    }
    parts.next().is_none().then_some((hour, minute))
}

/// How many minutes an offset is ahead of UTC: `Z`, `+01:00`, `+0100` or `-08`.
fn parse_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("Z", "") => return Some(0),
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some(parts) => parts,
        None if rest.len() == 4 && rest.is_ascii() => rest.split_at(2),
        None => (rest, "00"),
    };
    let hours = digits(hours, 2).filter(|hours| *hours < 24)?;
    let minutes = digits(minutes, 2).filter(|minutes| *minutes < 60)?;
    Some(sign * i64::from(hours * 60 + minutes))
}

/// The value of any number of ASCII digits.
fn digits_of_any_length(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hour(text: &str) -> Hour {
        text.parse().unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn range(text: &str) -> Result<String, String> {
        parse_hours(text, at("2018-11-10T05:30:00Z"))
            .map(|r| format!("{} {}", r.start(), r.end()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_bounds_are_the_first_and_last_hour_with_a_name() {
        assert_eq!(Hour::MIN.to_string(), "0000-01-01T00");
        assert_eq!(Hour::MAX.to_string(), "9999-12-31T23");
        assert_eq!(hour("0000-01-01T00"), Hour::MIN);
        assert_eq!(hour("9999-12-31T23"), Hour::MAX);
    }

    #[test]
    fn every_form_selects_its_hours() {
        for (text, first, last) in [
            ("2018-11-10T05", "2018-11-10T05", "2018-11-10T05"),
            ("2018-11-10", "2018-11-10T00", "2018-11-10T23"),
            ("2018-11-10T05..2018-11-11T03", "2018-11-10T05", "2018-11-11T03"),
            ("2018-11-10..2018-11-11", "2018-11-10T00", "2018-11-11T23"),
            ("2018-11-10T07..2018-11-10", "2018-11-10T07", "2018-11-10T23"),
            ("2018-11-10..", "2018-11-10T00", "9999-12-31T23"),
            ("..2018-11-10", "0000-01-01T00", "2018-11-10T23"),
            ("..", "0000-01-01T00", "9999-12-31T23"),
            ("all", "0000-01-01T00", "9999-12-31T23"),
            ("last:1", "2018-11-10T05", "2018-11-10T05"),
            ("last:8", "2018-11-09T22", "2018-11-10T05"),
            ("2020-02-29", "2020-02-29T00", "2020-02-29T23"),
            ("today", "2018-11-10T00", "2018-11-10T23"),
            ("yesterday", "2018-11-09T00", "2018-11-09T23"),
            ("yesterday..today", "2018-11-09T00", "2018-11-10T23"),
            ("2018-11-10T05:35", "2018-11-10T05", "2018-11-10T05"),
            ("2018-11-10T05:35:59.999999", "2018-11-10T05", "2018-11-10T05"),
            ("2018-11-10T05Z", "2018-11-10T05", "2018-11-10T05"),
            ("2018-11-10T23:59:60Z", "2018-11-10T23", "2018-11-10T23"),
            ("2018-11-10T00:30+01:00", "2018-11-09T23", "2018-11-09T23"),
            ("2018-11-10T23:30:00.5-0830", "2018-11-11T08", "2018-11-11T08"),
            ("2018-11-10T05:35:00.000..2018-11-10T07:37:30.000", "2018-11-10T05", "2018-11-10T07"),
            ("2018-11-10 .. 2018-11-11", "2018-11-10T00", "2018-11-11T23"),
        ] {
            assert_eq!(range(text).unwrap(), format!("{first} {last}"), "{text}");
        }
    }

    #[test]
    fn an_invalid_text_gets_a_reason() {
        for (text, why) in [
            ("", "give an hour"),
            ("now", "give an hour"),
            ("Thursday", "give an hour"),
            ("last", "did you mean last:N"),
            ("last 3", "did you mean last:3?"),
            ("last3", "did you mean last:3?"),
            ("last-3", "did you mean last:3?"),
            ("LAST:3", "did you mean last:3?"),
            ("3h", "did you mean last:3?"),
            ("3 hours", "did you mean last:3?"),
            ("3", "did you mean last:3?"),
            ("Today", "did you mean today?"),
            ("2018-11-10-2018-11-12", "did you mean 2018-11-10..2018-11-12?"),
            ("2018-11-10T05:00-2018-11-10T06", "did you mean 2018-11-10T05:00..2018-11-10T06?"),
            ("yesterday to today", "did you mean yesterday..today?"),
            ("2018-11-10/2018-11-12", "did you mean 2018-11-10..2018-11-12?"),
            ("2018-11", "did you mean 2018-11-01..2018-11-30?"),
            ("2020-02..", "did you mean 2020-02-01..2020-02-29?"),
            ("2018-13", "should look like 2018-11-10"),
            ("2018", "did you mean 2018-01-01..2018-12-31?"),
            ("2018-11-10T05:60", "should look like"),
            ("2018-11-10T05:35:61", "should look like"),
            ("2018-11-10T05:35:00.", "should look like"),
            ("2018-11-10T24:00", "should look like"),
            ("2018-11-10T05:35é", "should look like"),
            ("2018-11-10T05:35+1é", "should look like"),
            ("2018-11-10T05:35+25:00", "should look like"),
            ("2018-11-10T05:35:00:00", "should look like"),
            ("0000-01-01T00:30+01:00", "does not have four digits"),
            ("9999-12-31T23:30-01:00", "does not have four digits"),
            ("2018-11-10T", "two digits"),
            ("2018-11-10T5", "two digits"),
            ("2018-11-10T24", "00 to 23"),
            ("2018-11-10t05", "did you mean 2018-11-10T05?"),
            ("2018-11-10 05", "did you mean 2018-11-10T05?"),
            ("2018-11-10_05", "did you mean 2018-11-10T05?"),
            ("2018-11-10 05:35:00.25", "did you mean 2018-11-10T05:35:00.25?"),
            ("2018-11-10 24", "should look like 2018-11-10"),
            ("2018-11-10 05..", "(2018-11-10 05) is not a valid HOUR: did you mean 2018-11-10T05?"),
            ("2018-11-10..last:3", "(last:3) is not a valid end of a range: give an hour"),
            ("last:9..last:3", "(last:9) is not a valid end of a range"),
            ("2018-11-10..all", "(all) is not a valid end of a range"),
            ("2018-11-31", "no such date"),
            ("2019-02-29T00", "no such date"),
            ("18-11-10", "should look like 2018-11-10"),
            ("+018-11-10", "give an hour"),
            ("2018-11-10-01", "should look like 2018-11-10"),
            ("2018-11-10T05..2018-11-10T04", "before its start"),
            ("2018-11-10..x", "(x) is not a valid HOUR"),
            ("last:0", "a number of at least 1"),
            ("last:", "a number of at least 1"),
            ("last:+3", "a number of at least 1"),
            ("last:99999999999", "a number of at least 1"),
            ("٢٠١٨-11-10", "give an hour"),
        ] {
            let said = range(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn last_counts_back_across_new_year() {
        let last = parse_hours("last:3", at("2020-01-01T01:00:00Z")).unwrap();
        assert_eq!(last, hour("2019-12-31T23")..=hour("2020-01-01T01"));
    }

    #[test]
    fn a_union_contains_exactly_its_ranges() {
        let selection = HourSelection::union(vec![
            hour("2018-11-10T05")..=hour("2018-11-10T06"),
            hour("2018-11-10T01")..=hour("2018-11-10T02"),
            hour("2018-11-10T06")..=hour("2018-11-10T08"),
        ]);
        let held: Vec<u32> =
            (0..24).filter(|h| selection.contains(hour(&format!("2018-11-10T{h:02}")))).collect();
        assert_eq!(held, [1, 2, 5, 6, 7, 8]);
        assert!(!selection.contains(hour("2018-11-09T05")));
        assert!(!HourSelection::default().contains(hour("2018-11-10T05")));
        assert!(HourSelection::all().contains(Hour::MIN));
    }

    #[test]
    fn adjacent_ranges_become_one() {
        let hours = ["2018-11-10T05", "2018-11-10T04", "2018-11-10T07"].map(hour);
        let selection = HourSelection::union(hours.map(|hour| hour..=hour).to_vec());
        assert_eq!(selection.ranges(), [hours[1]..=hours[0], hours[2]..=hours[2]]);
    }

    proptest! {
        #![proptest_config(crate::fuzz::kept())]

        #[test]
        fn printing_and_parsing_round_trip(n in Hour::MIN.0..=Hour::MAX.0) {
            let printed = Hour(n).to_string();
            prop_assert_eq!(printed.parse::<Hour>(), Ok(Hour(n)));
        }

        #[test]
        fn a_valid_hour_prints_as_written(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]") {
            if let Ok(hour) = text.parse::<Hour>() {
                prop_assert_eq!(hour.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = parse_hours(&text, DateTime::UNIX_EPOCH);
            let _ = text.parse::<Hour>();
        }

        #[test]
        fn hours_are_ordered_like_their_names(a in Hour::MIN.0..=Hour::MAX.0, b in Hour::MIN.0..=Hour::MAX.0) {
            prop_assert_eq!(Hour(a).cmp(&Hour(b)), Hour(a).to_string().cmp(&Hour(b).to_string()));
        }
    }
}
