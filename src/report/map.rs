//! The coverage map: a line per hour and a character per minute. It fits 80 columns.

use std::cmp::Reverse;
use std::fmt::Write;

use super::figures::Measured;
use super::style::MapStyle;
use super::words::{LEGEND, count, instant, length, meaning, percent};
use crate::coverage::{Cell, Coverage, Hole, Row};

/// How many holes are shown by default: the longest ones.
const HOLES: usize = 10;
/// The width of a map, in columns.
const WIDTH: usize = 80;
/// The width of `2018-11-10T05  `, before the minutes.
const INDENT: &str = "               ";
/// The space between two entries of the legend.
const GAP: &str = "   ";
const RULER: &str = "               0         10        20        30        40        50\n";

impl Cell {
    /// Its sign in ASCII, its sign in Unicode, and its colour (an SGR parameter).
    fn look(self) -> (char, char, &'static str) {
        match self {
            Cell::Outside => (' ', ' ', ""),
            Cell::Here => ('#', '█', "32"),
            Cell::Fetched => ('+', '▓', "36"),
            Cell::Lesser => ('~', '▒', "33"),
            Cell::Deleted => ('x', '╳', "35"),
            Cell::PartMissing => ('!', '▄', "31"),
            Cell::Missing => ('.', '·', "31"),
        }
    }
}

/// The maps of all collections, each with a legend and the holes that remain.
pub fn maps(measured: &[Measured], style: MapStyle, dry_run: bool) -> String {
    let mut text = String::new();
    for Measured { collection, coverage } in measured {
        match coverage {
            None => {
                let _ = writeln!(text, "{collection}: no map, because chat has no durations");
            }
            Some(coverage) if coverage.rows.is_empty() => {
                let _ = writeln!(text, "{collection}: nothing is known about these hours");
            }
            Some(coverage) => {
                let _ = writeln!(text, "{collection}");
                text.push_str(RULER);
                coverage.rows.iter().for_each(|row| draw(row, style, &mut text));
                text.push_str(&legend(coverage, style, dry_run));
                text.push_str(&holes(coverage, style.all_holes));
            }
        }
    }
    text
}

fn draw(row: &Row, style: MapStyle, text: &mut String) {
    let (hour, cells, percent) = match row {
        Row::Hour { hour, cells, percent } => (hour, cells, percent),
        Row::Absent { first, last } => {
            let hours = count(last.since(*first) as u64 + 1, "hour");
            let _ = writeln!(text, "{first} to {last}: {hours} without segments");
            return;
        }
    };
    let _ = write!(text, "{hour}  ");
    let mut colour = "";
    for cell in cells {
        let (plain, unicode, wanted) = cell.look();
        if style.colour && wanted != colour {
            let _ = write!(text, "\x1b[{wanted}m");
            colour = wanted;
        }
        text.push(if style.unicode { unicode } else { plain });
    }
    if !colour.is_empty() {
        text.push_str("\x1b[m");
    }
    let is_judged = cells.iter().any(|cell| *cell != Cell::Outside);
    if is_judged {
        text.push_str(&format!(" {percent:>3}%"));
    }
    text.push('\n');
}

/// Explains the signs that occur in the map.
fn legend(coverage: &Coverage, style: MapStyle, dry_run: bool) -> String {
    let occurs = |kind: &Cell| {
        coverage
            .rows
            .iter()
            .any(|row| matches!(row, Row::Hour { cells, .. } if cells.contains(kind)))
    };
    let entries = LEGEND.into_iter().filter(occurs).map(|kind| {
        let ((plain, unicode, colour), meaning) = (kind.look(), meaning(kind, dry_run));
        let sign = if style.unicode { unicode } else { plain };
        if style.colour {
            format!("\x1b[{colour}m{sign}\x1b[m {meaning}")
        } else {
            format!("{sign} {meaning}")
        }
    });
    let (mut text, mut width) = (String::new(), 0);
    for entry in entries {
        // Does not count colour codes.
        let wide = console::measure_text_width(&entry);
        let fits = !text.is_empty() && width + GAP.len() + wide <= WIDTH;
        let before = match (fits, text.is_empty()) {
            (true, _) => GAP.to_owned(),
            (false, true) => INDENT.to_owned(),
            (false, false) => format!("\n{INDENT}"),
        };
        width = if fits { width + GAP.len() + wide } else { INDENT.len() + wide };
        text.push_str(&before);
        text.push_str(&entry);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// The longest holes, or all of them, in order of time, and the share of the time that is covered.
fn holes(coverage: &Coverage, all: bool) -> String {
    let mut text = String::new();
    let mut holes: Vec<&Hole> = coverage.holes.iter().collect();
    if !all {
        holes.sort_by_key(|hole| Reverse(hole.micros()));
        holes.truncate(HOLES);
        holes.sort_by_key(|hole| hole.start);
    }
    for hole in &holes {
        let (start, end) = (instant(hole.start), instant(hole.end));
        let _ = writeln!(text, "hole: {start} to {end}, {}", length(hole.micros()));
    }
    let more = (coverage.holes.len() - holes.len()) as u64;
    if more > 0 {
        let _ =
            writeln!(text, "and {}, none of them longer (-v shows them)", count(more, "more hole"));
    }
    let _ = writeln!(
        text,
        "covered: {} of {}; {}, {} missing",
        percent(coverage.share()),
        length(coverage.expected),
        count(coverage.holes.len() as u64, "hole"),
        length(coverage.missing)
    );
    text
}
