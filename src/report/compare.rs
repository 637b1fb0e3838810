//! The table of which node has what (`--compare`), a line per hour. Five nodes fit 80 columns.

use std::fmt::Write;
use std::ops::Range;

use console::{measure_text_width, truncate_str};
use indicatif::HumanCount;

use super::log::escape;
use super::style::MapStyle;
use crate::compare::{Row, total};
use crate::segment::Collection;

/// The width of a table. Very large numbers make it wider.
const WIDTH: usize = 80;
/// The width of an hour, such as `2018-11-10T05`.
const HOUR: usize = 13;
/// The most nodes beside each other. The others follow in further tables.
const NODES: usize = 5;
/// The least width of a node's column, if there is room for it: enough for part of the node's name.
/// It is wider if there is room for more of the names.
const COLUMN: usize = 9;

/// The tables of all collections, for the nodes with these names.
pub fn tables(compared: &[(Collection, Vec<Row>)], names: &[String], style: MapStyle) -> String {
    let mut text = String::new();
    let names: Vec<String> = names.iter().map(|name| escape(name).into_owned()).collect();
    for (collection, rows) in compared {
        if rows.is_empty() {
            let _ = writeln!(text, "{collection}: no segments in these hours");
            continue;
        }
        let total = total(rows);
        let layout = Layout::of(rows, &total, &names);
        for first in (0..names.len().max(1)).step_by(layout.nodes) {
            let shown = first..names.len().min(first + layout.nodes);
            let _ = writeln!(text, "{collection}");
            let heads = names[shown.clone()].iter().map(String::as_str);
            let heads = ["here"].into_iter().chain(heads);
            let heads: String = heads.map(|name| layout.head(name)).collect();
            let _ = writeln!(text, "{:HOUR$} {:>2$}{heads}", "", "all", layout.all);
            for row in rows {
                layout.line(&row.hour.to_string(), row, shown.clone(), style, &mut text);
            }
            layout.line("total", &total, shown, style, &mut text);
        }
    }
    text
}

/// The layout of a table.
struct Layout {
    /// The width of the column `all`.
    all: usize,
    /// The width of the column `here`, and of each node's.
    column: usize,
    /// How many nodes are beside each other.
    nodes: usize,
}

impl Layout {
    /// The layout for these rows and their total.
    fn of(rows: &[Row], total: &Row, names: &[String]) -> Layout {
        let counts = rows.iter().chain([total]).flat_map(|row| {
            let has = row.nodes.iter().copied().chain([Some(row.here)]).flatten();
            has.map(|has| (number(has), lacks(row, has)))
        });
        let longest = names.iter().map(|name| measure_text_width(name)).max();
        let (mut widest, mut beside) = (0, COLUMN.max(longest.unwrap_or_default()));
        for (has, lacks) in counts {
            widest = widest.max(has.len()).max(lacks.len());
            beside = beside.max(has.len() + lacks.len() + usize::from(!lacks.is_empty()));
        }
        let all = number(total.all).len().max(5);
        let room = WIDTH.saturating_sub(HOUR + 1 + all);
        let nodes = total.nodes.len().clamp(1, NODES);
        let column = (room / (nodes + 1)).saturating_sub(1).min(beside).max(widest);
        let nodes = (room / (column + 1)).saturating_sub(1).clamp(1, nodes);
        Layout { all, column, nodes }
    }

    fn head(&self, name: &str) -> String {
        let name = shortened(name, self.column);
        format!(" {}{name}", " ".repeat(self.column.saturating_sub(measure_text_width(&name))))
    }

    fn line(&self, name: &str, row: &Row, nodes: Range<usize>, style: MapStyle, text: &mut String) {
        let counts: Vec<Option<u64>> =
            [Some(row.here)].into_iter().chain(row.nodes[nodes].iter().copied()).collect();
        let cells = counts.iter().map(|has| match has.map(|has| (has, lacks(row, has))) {
            None => ["?".to_owned(), String::new()],
            Some((has, lacks)) => [number(has), lacks],
        });
        let cells: Vec<[String; 2]> = cells.collect();
        let joined = cells.iter().map(|cell| cell.join(" ").trim_end().to_owned());
        let joined: Vec<String> = joined.collect();
        let all = number(row.all);
        // If the two numbers do not fit beside each other, the lacking ones get a line of their
        // own.
        let lines = if joined.iter().all(|cell| cell.len() <= self.column) {
            vec![(name, all, joined)]
        } else {
            let [has, lacks] = [0, 1].map(|n| cells.iter().map(|cell| cell[n].clone()).collect());
            vec![(name, all, has), ("", String::new(), lacks)]
        };
        for (name, all, cells) in lines {
            let _ = write!(text, "{name:HOUR$} {all:>0$}", self.all);
            for (cell, has) in cells.iter().zip(&counts) {
                let is_whole = has.is_some_and(|has| row.lacks(has) == 0);
                let is_red = style.colour && !is_whole;
                let (on, off) = if is_red { ("\x1b[31m", "\x1b[m") } else { ("", "") };
                let _ = write!(text, " {on}{cell:>0$}{off}", self.column);
            }
            text.push('\n');
        }
    }
}

/// A node's name in at most this many columns. The names of directories differ at their ends.
fn shortened(name: &str, columns: usize) -> String {
    if !name.starts_with(['/', '.']) || measure_text_width(name) <= columns {
        return truncate_str(name, columns, "~").into_owned();
    }
    let ends = name.char_indices().map(|(at, _)| &name[at..]);
    let end = ends.into_iter().find(|end| measure_text_width(end) < columns);
    // `~/` would look like a home directory.
    format!("~{}", end.unwrap_or_default().trim_start_matches('/'))
}

/// How many a node lacks, with a minus sign; empty if it lacks none.
fn lacks(row: &Row, has: u64) -> String {
    match row.lacks(has) {
        0 => String::new(),
        lacks => format!("-{}", number(lacks)),
    }
}

fn number(n: u64) -> String {
    HumanCount(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(hour: &str, all: u64, here: u64, nodes: &[Option<u64>]) -> Row {
        Row { hour: hour.parse().unwrap(), all, here, nodes: nodes.to_vec() }
    }

    fn table(nodes: usize, rows: Vec<Row>, colour: bool) -> String {
        let collection = Collection { stream: "s".parse().unwrap(), variant: "v".parse().unwrap() };
        let names: Vec<String> = (0..nodes).map(|n| format!("node-number-{n}")).collect();
        tables(&[(collection, rows)], &names, MapStyle { colour, unicode: false, all_holes: false })
    }

    #[test]
    fn a_table_shows_what_each_node_has_and_lacks() {
        let rows = vec![
            row("2018-11-10T05", 1800, 1788, &[Some(1800), None]),
            row("2018-11-10T06", 10, 10, &[Some(0), Some(10)]),
        ];
        let expected = "s/v\n                \
             all          here node-number-0 node-number-1\n\
             2018-11-10T05 1,800     1,788 -12         1,800             ?\n\
             2018-11-10T06    10            10         0 -10            10\n\
             total         1,810     1,798 -12     1,800 -10             ?\n";
        assert_eq!(table(2, rows.clone(), false), expected);
        let coloured = table(2, rows, true);
        assert!(coloured.contains("\x1b[31m        0 -10\x1b[m"), "{coloured}");
    }

    #[test]
    fn a_name_is_cut_where_it_says_least() {
        for (name, columns, shown) in [
            ("toodles", 9, "toodles"),
            ("toodles.example:1337", 9, "toodles.~"),
            ("/mnt/a", 9, "/mnt/a"),
            ("/mnt/old/archive", 9, "~archive"),
            ("../été", 5, "~été"),
        ] {
            assert_eq!(shortened(name, columns), shown);
        }
    }

    #[test]
    fn lacking_counts_move_to_a_second_line_if_there_is_no_room() {
        let rows = vec![row("2018-11-10T05", 604_800, 604_788, &[Some(604_800); 5])];
        let text = table(5, rows, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2][..39], *"2018-11-10T05 604,800  604,788  604,800");
        assert_eq!(lines[3].trim_end(), format!("{:27}-12", ""));
        assert!(lines.iter().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn five_nodes_fit_80_columns_and_others_follow_below() {
        let rows = vec![row("2018-11-10T05", 1800, 1, &[Some(1); 7])];
        let text = table(7, rows, false);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert_eq!(text.matches("2018-11-10T05").count(), 2);
    }
}
