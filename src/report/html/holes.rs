//! The holes of a map, longest first, each with a link to its hour.

use std::cmp::Reverse;

use maud::{Markup, html};

use super::text::hour_id;
use crate::coverage::{Coverage, Hole};
use crate::hour::Hour;
use crate::report::words::{count, instant, length};

/// How many holes are shown at first.
const SHOWN: usize = 10;
/// How many the page lists at most.
const MOST: usize = 100;

/// The holes of the collection with this index.
pub fn table(index: usize, coverage: &Coverage) -> Markup {
    let mut holes: Vec<&Hole> = coverage.holes.iter().collect();
    holes.sort_by_key(|hole| (Reverse(hole.micros()), hole.start));
    let left_out = holes.len().saturating_sub(MOST);
    holes.truncate(MOST);
    let (first, rest) = holes.split_at(holes.len().min(SHOWN));
    html! {
        @if !first.is_empty() {
            h4 { "Holes, longest first" }
            (rows(index, first))
        }
        @if !rest.is_empty() {
            details {
                summary { (count(rest.len() as u64, "more hole")) }
                (rows(index, rest))
                @if left_out > 0 {
                    p { "And " (count(left_out as u64, "hole")) " not listed here, none of them longer: "
                        code { "--coverage -v" } " and " code { "--json" } " list all." }
                }
            }
        }
    }
}

fn rows(index: usize, holes: &[&Hole]) -> Markup {
    html! {
        div.wide tabindex="0" { table {
            thead { tr { th { "From" } th { "To" } th.n { "Length" } } }
            tbody { @for hole in holes { tr {
                td { a href={ "#" (hour_id(index, Hour::at_micros(hole.start))) } { (instant(hole.start)) } }
                td { (instant(hole.end)) }
                td.n { (length(hole.micros())) }
            } } }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_holes_come_first_and_the_rest_are_counted() {
        let at = |second: i64| 1_541_826_000_000_000 + second * 1_000_000;
        let hole = |n: i64| Hole { start: at(100 * n), end: at(100 * n + n + 1) };
        let coverage = Coverage { holes: (0..120).map(hole).collect(), ..Coverage::default() };
        let page = table(0, &coverage).into_string();
        let length = "<td class=\"n\">2 min 00.000 s</td>";
        let first =
            page.find("<tbody><tr><td><a href=\"#m0-2018-11-10T08\">2018-11-10T08:18:20.000");
        assert!(first < page.find(length), "{page}");
        assert!(page.contains("90 more holes") && page.contains("And 20 holes not listed"));
        assert_eq!(table(0, &Coverage::default()).into_string(), "");
    }
}
