//! The table of who has what, hour by hour. It fits 80 columns with five nodes.

use std::fmt::Write;
use std::ops::Range;

use console::{measure_text_width, truncate_str};

use super::log::escape;
use super::style::MapStyle;
use crate::compare::{Row, total};
use crate::segment::Collection;

/// How many nodes stand beside each other.
const NODES: usize = 5;
/// How wide what is here, or at a node, is shown.
const COLUMN: usize = 9;

/// The tables of all collections: of the nodes of these names.
pub fn tables(compared: &[(Collection, Vec<Row>)], names: &[String], style: MapStyle) -> String {
    let mut text = String::new();
    let names: Vec<String> = names.iter().map(|name| escape(name).into_owned()).collect();
    for (collection, rows) in compared {
        if rows.is_empty() {
            let _ = writeln!(text, "{collection}: nobody has anything of these hours");
            continue;
        }
        for first in (0..names.len().max(1)).step_by(NODES) {
            let shown = first..names.len().min(first + NODES);
            let _ = writeln!(text, "{collection}");
            let heads = names[shown.clone()].iter().map(String::as_str);
            let heads: String = ["here"].into_iter().chain(heads).map(head).collect();
            let _ = writeln!(text, "{:13}{:>6}{heads}", "", "all");
            for row in rows {
                line(&row.hour.to_string(), row, shown.clone(), style, &mut text);
            }
            line("in all", &total(rows), shown, style, &mut text);
        }
    }
    text
}

fn head(name: &str) -> String {
    let name = truncate_str(name, COLUMN, "~");
    format!(" {}{name}", " ".repeat(COLUMN.saturating_sub(measure_text_width(&name))))
}

fn line(name: &str, row: &Row, nodes: Range<usize>, style: MapStyle, text: &mut String) {
    let _ = write!(text, "{name:13}{:>6}", row.all);
    for has in [Some(row.here)].iter().chain(&row.nodes[nodes]) {
        let cell = match has.map(|has| (has, row.lacks(has))) {
            None => "?".to_owned(),
            Some((has, 0)) => has.to_string(),
            Some((has, lacks)) => format!("{has} -{lacks}"),
        };
        let is_whole = has.is_some_and(|has| row.lacks(has) == 0);
        let (on, off) = if style.colour && !is_whole { ("\x1b[31m", "\x1b[m") } else { ("", "") };
        let _ = write!(text, " {on}{cell:>COLUMN$}{off}");
    }
    text.push('\n');
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
    fn a_table_says_who_has_and_who_lacks_what() {
        let rows = vec![
            row("2018-11-10T05", 1800, 1788, &[Some(1800), None]),
            row("2018-11-10T06", 10, 10, &[Some(0), Some(10)]),
        ];
        let expected = "s/v\n                \
             all      here node-num~ node-num~\n\
             2018-11-10T05  1800  1788 -12      1800         ?\n\
             2018-11-10T06    10        10     0 -10        10\n\
             in all         1810  1798 -12  1800 -10         ?\n";
        assert_eq!(table(2, rows.clone(), false), expected);
        let coloured = table(2, rows, true);
        assert!(coloured.contains("\x1b[31m    0 -10\x1b[m"), "{coloured}");
    }

    #[test]
    fn five_nodes_fit_80_columns_and_more_stand_below() {
        let rows = vec![row("2018-11-10T05", 1800, 1, &[Some(1); 7])];
        let text = table(7, rows, false);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert_eq!(text.matches("2018-11-10T05").count(), 2);
    }
}
