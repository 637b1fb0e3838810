//! Who has what: how many segments are here and at each node, in total and by hour.

use maud::{Markup, html};

use super::text::foreign;
use crate::compare::{Row, total};
use crate::report::words::count;
use crate::segment::Collection;

/// How many cells the tables by hour may have together, so that a phone can show the page.
const MOST_CELLS: usize = 50_000;

/// The tables of all collections, for the nodes with these names.
pub fn tables(compared: &[(Collection, Vec<Row>)], names: &[String]) -> Markup {
    let mut room = MOST_CELLS / (names.len() + 2);
    html! {
        div.compared { @for (collection, rows) in compared { div {
            h3 { (foreign(&collection.to_string())) }
            @if rows.is_empty() {
                p { "No segments in these hours." }
            } @else {
                (in_all(&total(rows), names))
                (by_hour(rows, names, &mut room))
            }
        } } }
    }
}

fn hours_that_lack(rows: &[Row]) -> String {
    let lacks = |row: &&Row| {
        let nodes = row.nodes.iter().flatten();
        nodes.chain([&row.here]).any(|has| row.lacks(*has) > 0)
    };
    match rows.iter().filter(lacks).count() as u64 {
        0 => "everyone who answered has every segment".into(),
        n => format!("{} in which someone lacks segments", count(n, "hour")),
    }
}

/// One line per node, with a bar for its share of all segments.
fn in_all(row: &Row, names: &[String]) -> Markup {
    let of_nodes = names.iter().map(|name| foreign(name).into_owned()).zip(row.nodes.clone());
    let here = ("here, before the pass".to_owned(), Some(row.here));
    let who = [here].into_iter().chain(of_nodes);
    html! {
        p { (count(row.all, "segment")) " in all" }
        div.wide tabindex="0" { table.who {
            thead { tr { th { "Who" } th.n { "Has" } th.n { "Lacks" } th { "Share" } } }
            tbody { @for (name, has) in who { tr {
                th scope="row" { (name) }
                @match has {
                    Some(has) => {
                        td.n { (number(has)) }
                        td.n.lacks[row.lacks(has) > 0] { (number(row.lacks(has))) }
                        td { (bar(has, row.all)) }
                    }
                    None => { td.n { "?" } td.n { "?" } td { "not known: a listing failed" } }
                }
            } } }
        } }
    }
}

fn bar(has: u64, all: u64) -> Markup {
    let share = if all == 0 { 1.0 } else { has as f64 / all as f64 };
    html! {
        svg.bar viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            path.track d="M0 5h100" {}
            path.h d=(format!("M0 5h{:.2}", share * 100.0)) {}
        }
    }
}

/// One line per hour, closed at first. If there are too many, the latest are shown.
fn by_hour(rows: &[Row], names: &[String], room: &mut usize) -> Markup {
    let left_out = rows.len().saturating_sub(*room);
    let shown = &rows[left_out..];
    *room -= shown.len();
    html! {
        details {
            summary { "By hour: " (hours_that_lack(rows)) }
            @if left_out > 0 {
                p { (count(left_out as u64, "earlier hour")) " left out, to keep the page small." }
            }
            div.wide tabindex="0" { table {
                thead { tr {
                    th { "Hour" } th.n { "All" } th.n { "Here" }
                    @for name in names { th.n { (foreign(name)) } }
                } }
                tbody { @for row in shown { tr {
                    td { (row.hour) }
                    td.n { (number(row.all)) }
                    @for has in [Some(row.here)].iter().chain(&row.nodes) { (cell(row, *has)) }
                } } }
            } }
        }
    }
}

/// How many segments of an hour someone has and lacks.
fn cell(row: &Row, has: Option<u64>) -> Markup {
    html! {
        @match has {
            None => td.n { "?" },
            Some(has) if row.lacks(has) > 0 => {
                td.n.lacks { (number(has)) " −" (number(row.lacks(has))) }
            }
            Some(has) => td.n { (number(has)) },
        }
    }
}

fn number(n: u64) -> indicatif::HumanCount {
    indicatif::HumanCount(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hour::Hour;

    #[test]
    fn the_page_shows_what_each_node_has_and_lacks() {
        let row = |hour: &str, all, here, nodes: &[Option<u64>]| Row {
            hour: hour.parse::<Hour>().unwrap(),
            all,
            here,
            nodes: nodes.to_vec(),
        };
        let rows = vec![
            row("2018-11-10T05", 1800, 1788, &[Some(1800), None]),
            row("2018-11-10T06", 10, 10, &[Some(10), Some(10)]),
        ];
        let collection =
            Collection { stream: "s".parse().unwrap(), variant: "<v>".parse().unwrap() };
        let names = ["a".to_owned(), "b&c".to_owned()];
        let page = tables(&[(collection, rows)], &names).into_string();
        for said in [
            "<h3>s/&lt;v&gt;</h3><p>1,810 segments in all</p>",
            "<th scope=\"row\">here, before the pass</th><td class=\"n\">1,798</td>\
             <td class=\"n lacks\">12</td>",
            "<th scope=\"row\">a</th><td class=\"n\">1,810</td><td class=\"n\">0</td>",
            "<th scope=\"row\">b&amp;c</th><td class=\"n\">?</td>",
            "1 hour in which someone lacks segments<",
            "<td>2018-11-10T05</td><td class=\"n\">1,800</td><td class=\"n lacks\">1,788 −12</td>\
             <td class=\"n\">1,800</td><td class=\"n\">?</td>",
        ] {
            assert!(page.contains(said), "{said} is not in {page}");
        }
    }
}
