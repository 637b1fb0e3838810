//! The coverage map: one row per hour, one unit of width per minute. A reader points at a minute to see
//! what it is, or opens the row, which also works on a touch screen.

use std::fmt::Write;
use std::ops::Range;

use chrono::{DateTime, Utc};
use maud::{Markup, PreEscaped, html};

use super::holes;
use super::text::{foreign, hour_id};
use crate::coverage::{Cell, Coverage, Row};
use crate::hour::{HOUR_MICROS, Hour};
use crate::report::Measured;
use crate::report::words::{LEGEND, count, length, meaning, percent};

/// How many rows all maps of a page may have together, so that a phone can show it.
const MOST_HOURS: usize = 4000;
/// A row with more runs than this has one title per ten minutes, so that ragged rows stay small.
const MOST_RUNS: usize = 20;
const MINUTES: usize = 60;

impl Cell {
    /// Its CSS class.
    fn class(self) -> &'static str {
        match self {
            Cell::Outside => "o",
            Cell::Here => "h",
            Cell::Fetched => "f",
            Cell::Lesser => "l",
            Cell::Deleted => "x",
            Cell::PartMissing => "p",
            Cell::Missing => "m",
        }
    }
}

/// The textures that the rows are drawn with, since colour must not be the only difference.
pub const TEXTURES: &str = r##"<svg class="defs" aria-hidden="true"><defs>
<pattern id="tf" width="1" height="10" patternUnits="userSpaceOnUse"><path class="pf" d="M0 0h.7v10h-.7z"/></pattern>
<pattern id="tl" width="1" height="10" patternUnits="userSpaceOnUse"><path class="pl" d="M0 4h1v6h-1z"/></pattern>
<pattern id="tx" width="1" height="10" patternUnits="userSpaceOnUse"><path class="px" d="M0 4h1v2h-1z"/></pattern>
<pattern id="tp" width="1" height="10" patternUnits="userSpaceOnUse"><path class="pm" d="M0 6h1v4h-1z"/></pattern>
<pattern id="tm" width="2" height="5" patternUnits="userSpaceOnUse"><path class="pm" d="M0 0h2v5h-2z"/><path class="pg" d="M-.3 5.75L2.3 -.75M-.3 .75L.3 -.75M1.7 5.75L2.3 4.25"/></pattern>
</defs></svg>"##;

/// The maps of all collections.
pub fn maps(measured: &[Measured], dry_run: bool) -> Markup {
    let mut room = MOST_HOURS;
    html! {
        @for (index, Measured { collection, coverage }) in measured.iter().enumerate() {
            @let name = foreign(&collection.to_string()).into_owned();
            @match coverage {
                None => p { strong { (name) } ": no map, because chat has no durations." },
                Some(coverage) if coverage.rows.is_empty() => {
                    p { strong { (name) } ": nothing is known about these hours." }
                }
                Some(coverage) => (map(index, &name, coverage, dry_run, &mut room)),
            }
        }
    }
}

fn map(index: usize, name: &str, coverage: &Coverage, dry_run: bool, room: &mut usize) -> Markup {
    let left_out = coverage.rows.len().saturating_sub(*room);
    let rows = &coverage.rows[left_out..];
    *room -= rows.len();
    html! {
        details.map open="open" {
            summary { h3 { (name) } " " span.share { (share(coverage)) } }
            (legend(rows, dry_run))
            @if left_out > 0 {
                p { (count(left_out as u64, "earlier row")) " left out, to keep the page small." }
            }
            div.days { @for block in blocks(rows) { (days(index, block, dry_run)) } }
            (holes::table(index, coverage))
        }
    }
}

fn share(coverage: &Coverage) -> String {
    let share = percent(coverage.share());
    let expected = length(coverage.expected);
    match coverage.missing {
        0 => format!("{share} of {expected}, no holes"),
        missing => {
            let holes = count(coverage.holes.len() as u64, "hole");
            format!("{share} of {expected}, {holes}, {} missing", length(missing))
        }
    }
}

/// The legend of the kinds that occur.
fn legend(rows: &[Row], dry_run: bool) -> Markup {
    let occurs = |kind: &Cell| {
        rows.iter().any(|row| matches!(row, Row::Hour { cells, .. } if cells.contains(kind)))
    };
    html! {
        ul.legend { @for kind in LEGEND.into_iter().filter(occurs) {
            li {
                svg viewBox="0 0 6 10" preserveAspectRatio="none" aria-hidden="true" {
                    path class=(kind.class()) d="M0 5h6" {}
                }
                (meaning(kind, dry_run))
            }
        } }
    }
}

/// Groups rows: those of a day, or a single one that stands for many hours.
fn blocks(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    let day = |row: &Row| match row {
        Row::Hour { hour, .. } => Some(hour.micros_at(0).div_euclid(24 * HOUR_MICROS)),
        Row::Absent { .. } => None,
    };
    rows.chunk_by(move |a, b| day(a).is_some() && day(a) == day(b))
}

fn days(index: usize, block: &[Row], dry_run: bool) -> Markup {
    html! {
        @match block {
            [Row::Absent { first, last }] => div.day.absent id=(hour_id(index, *first)) {
                (first) " to " (last) ": "
                (count(last.since(*first) as u64 + 1, "hour")) " without segments"
            },
            [Row::Hour { hour, .. }, ..] => div.day {
                h4 { (date(*hour)) }
                div.ruler aria-hidden="true" { span { "0" } span { "15" } span { "30" } span { "45" } }
                @for row in block {
                    @if let Row::Hour { hour, cells, percent } = row {
                        (hour_row(index, *hour, cells, *percent, dry_run))
                    }
                }
            },
            _ => {}
        }
    }
}

fn hour_row(
    index: usize,
    hour: Hour,
    cells: &[Cell; MINUTES],
    percent: u8,
    dry_run: bool,
) -> Markup {
    let text = hour.to_string();
    let hh = text.rsplit('T').next().unwrap_or_default();
    let lacks = cells.iter().any(|cell| matches!(cell, Cell::PartMissing | Cell::Missing));
    let is_judged = cells.iter().any(|cell| *cell != Cell::Outside);
    html! {
        details id=[lacks.then(|| hour_id(index, hour))] {
            summary {
                b { (hh) }
                svg viewBox="0 0 60 10" preserveAspectRatio="none" aria-hidden="true" {
                    (PreEscaped(drawing(hh, cells, dry_run)))
                }
                i.lacks[lacks] { @if is_judged { (percent) "%" } }
            }
            p { (told(cells, 0..MINUTES, dry_run)) }
        }
    }
}

/// The paths of an hour, one per run of equal minutes, each with its title. It contains no foreign
/// text.
fn drawing(hh: &str, cells: &[Cell; MINUTES], dry_run: bool) -> String {
    let mut svg = String::new();
    let runs: Vec<Range<usize>> = runs(cells, 0..MINUTES).collect();
    if runs.len() <= MOST_RUNS {
        for run in runs {
            let cell = cells[run.start];
            let (class, meaning) = (cell.class(), meaning(cell, dry_run));
            let minutes = minutes(hh, &run);
            let (from, long) = (run.start, run.len());
            let _ = write!(
                svg,
                r#"<path class="{class}" d="M{from} 5h{long}"><title>{minutes} {meaning}</title></path>"#
            );
        }
        return svg;
    }
    for kind in LEGEND {
        let of_kind = runs.iter().filter(|run| cells[run.start] == kind);
        let lines: String = of_kind.map(|run| format!("M{} 5h{}", run.start, run.len())).collect();
        if !lines.is_empty() {
            let class = kind.class();
            let _ = write!(svg, r#"<path class="{class}" d="{lines}"/>"#);
        }
    }
    for from in (0..MINUTES).step_by(10) {
        let told = told(cells, from..from + 10, dry_run);
        let _ =
            write!(svg, r#"<path class="o" d="M{from} 5h10"><title>{hh}: {told}</title></path>"#);
    }
    svg
}

/// The runs of equal minutes.
fn runs(cells: &[Cell], within: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = within.start;
    cells[within].chunk_by(|a, b| a == b).scan(first, |from, run| {
        let run = *from..*from + run.len();
        *from = run.end;
        Some(run)
    })
}

fn minutes(hh: &str, run: &Range<usize>) -> String {
    match run.len() {
        1 => format!("{hh}:{:02}", run.start),
        _ => format!("{hh}:{:02} to {hh}:{:02}", run.start, run.end - 1),
    }
}

/// The minutes of each kind in words, worst first.
fn told(cells: &[Cell], within: Range<usize>, dry_run: bool) -> String {
    let kinds = LEGEND.into_iter().rev().chain([Cell::Outside]);
    let parts = kinds.filter_map(|kind| {
        let of_kind = runs(cells, within.clone()).filter(|run| cells[run.start] == kind);
        let minutes = of_kind.map(|run| match run.len() {
            1 => run.start.to_string(),
            _ => format!("{}–{}", run.start, run.end - 1),
        });
        let minutes: Vec<String> = minutes.collect();
        let meaning = meaning(kind, dry_run);
        (!minutes.is_empty()).then(|| format!("{meaning} {}", minutes.join(", ")))
    });
    parts.collect::<Vec<_>>().join("; ")
}

fn date(hour: Hour) -> String {
    let at = DateTime::<Utc>::from_timestamp_micros(hour.micros_at(0)).unwrap_or_default();
    at.format("%a %-d %b %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour() -> Hour {
        "2018-11-10T05".parse().unwrap()
    }

    fn row(sign: impl Fn(usize) -> Cell) -> String {
        let cells = std::array::from_fn(sign);
        hour_row(0, hour(), &cells, 95, false).into_string()
    }

    #[test]
    fn a_row_describes_each_minute_in_a_title_and_in_words() {
        let row = row(|minute| match minute {
            0..10 => Cell::Outside,
            35 => Cell::Missing,
            36 | 37 => Cell::PartMissing,
            _ => Cell::Here,
        });
        for said in [
            r#"<details id="m0-2018-11-10T05"><summary><b>05</b>"#,
            r#"<path class="o" d="M0 5h10"><title>05:00 to 05:09 not judged</title></path>"#,
            r#"<path class="m" d="M35 5h1"><title>05:35 missing</title></path>"#,
            r#"<path class="p" d="M36 5h2"><title>05:36 to 05:37 partly missing</title></path>"#,
            "<i class=\"lacks\">95%</i></summary><p>missing 35; partly missing 36–37; here 10–34, 38–59; \
             not judged 0–9</p>",
        ] {
            assert!(row.contains(said), "{said} is not in {row}");
        }
    }

    #[test]
    fn a_ragged_row_has_all_minutes_in_fewer_titles() {
        let row = row(|minute| if minute % 2 == 0 { Cell::Here } else { Cell::Missing });
        assert_eq!(row.matches("<title>").count(), 6);
        assert!(row.contains("<title>05: missing 31, 33, 35, 37, 39; here 30, 32, 34, 36, 38<"));
        assert!(row.contains(r#"<path class="h" d="M0 5h1M2 5h1"#), "{row}");
    }

    #[test]
    fn days_and_hours_without_segments_are_blocks() {
        let at = |text: &str| text.parse::<Hour>().unwrap();
        let cells = [Cell::Here; MINUTES];
        let row = |text: &str| Row::Hour { hour: at(text), cells, percent: 100 };
        let absent = Row::Absent { first: at("2018-11-11T01"), last: at("2018-11-12T05") };
        let rows = [row("2018-11-10T23"), row("2018-11-11T00"), absent, row("2018-11-12T06")];
        let sizes: Vec<usize> = blocks(&rows).map(<[Row]>::len).collect();
        assert_eq!(sizes, [1, 1, 1, 1]);
        let page = html! { @for block in blocks(&rows) { (days(0, block, false)) } }.into_string();
        assert!(page.contains("<h4>Sat 10 Nov 2018</h4>"), "{page}");
        assert!(page.contains("2018-11-11T01 to 2018-11-12T05: 29 hours without segments"));
    }
}
