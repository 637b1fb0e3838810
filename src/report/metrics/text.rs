//! Writes and reads the text format of Prometheus, as far as we use it: metrics with labels and
//! values.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// A metric: its name, its type and its help text.
pub type Family = (&'static str, &'static str, &'static str);

/// Values, by the metric's name and labels.
pub type Series = BTreeMap<(&'static str, Labels), f64>;

/// The label for the file's own name, which keeps the series of two files in one directory from
/// colliding. It is added when a file is written and dropped when it is read.
const FILE: &str = "file";

/// Labels, in the order in which they are written. Displayed in braces, as in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// Labels with these names and values.
    pub fn new(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Labels(pairs.collect())
    }

    /// The value of the label with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(of, _)| of == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Parses labels in braces at the start of a text. Returns them and the rest of the text.
    fn parse(text: &str) -> Option<(Labels, &str)> {
        let Some(mut rest) = text.strip_prefix('{') else {
            return Some((Labels::default(), text));
        };
        let mut labels = Vec::new();
        loop {
            if let Some(rest) = rest.strip_prefix('}') {
                return Some((Labels(labels), rest));
            }
            let (name, after) = rest.split_once("=\"")?;
            let (value, after) = unquote(after)?;
            labels.push((name.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        for (n, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma}{name}=\"{value}\"")?;
        }
        f.write_char('}')
    }
}

/// Parses a value up to its closing quote. Returns it and the rest of the text.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// Parses a file of these metrics.
///
/// # Errors
///
/// Fails if the file has other metrics, or only comments.
pub fn parse(text: &str, families: &[Family]) -> Result<Series, String> {
    let mut series = Series::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let sample = sample(line, families);
        let Some((key, value)) = sample else {
            return Err(format!("line {} is not a metric of backfiller", number + 1));
        };
        series.insert(key, value);
    }
    let is_ours = |line: &str| {
        let name = line.strip_prefix("# HELP ").and_then(|rest| rest.split(' ').next());
        name.is_some_and(|name| families.iter().any(|family| family.0 == name))
    };
    if !text.trim().is_empty() && !text.lines().any(is_ours) {
        return Err("it has no HELP line of a metric of backfiller".into());
    }
    Ok(series)
}

fn sample(line: &str, families: &[Family]) -> Option<((&'static str, Labels), f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (known, ..) = families.iter().find(|family| family.0 == name)?;
    let (mut labels, value) = Labels::parse(rest)?;
    labels.0.retain(|(name, _)| name != FILE);
    Some(((*known, labels), value.trim().parse().ok()?))
}

/// Formats series as the content of the file with this name.
pub fn print(series: &Series, families: &[Family], file: &str) -> String {
    let mut text = String::new();
    for (name, kind, help) in families {
        let first = (*name, Labels::default());
        let values = series.range(first..).take_while(|((of, _), _)| of == name);
        for (n, ((_, labels), value)) in values.enumerate() {
            if n == 0 {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            let mut labels = labels.clone();
            labels.0.push((FILE.into(), file.into()));
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAMILIES: [Family; 2] =
        [("some_total", "counter", "Some."), ("other", "gauge", "Other.")];

    #[test]
    fn a_renamed_file_is_taken_over() {
        let old =
            "# HELP other Other.\nother{hours=\"all\",file=\"x.prom\"} 3\nother 1541826123.25\n";
        let series = parse(old, &FAMILIES).unwrap();
        let text = print(&series, &FAMILIES, "y.prom");
        let expected = "# HELP other Other.\n# TYPE other gauge\n\
                        other{file=\"y.prom\"} 1541826123.25\n\
                        other{hours=\"all\",file=\"y.prom\"} 3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn text_that_is_not_these_metrics_is_refused() {
        for text in [
            "root:x:0:0:root:/root:/bin/bash\n",
            "up 1\n",
            "# HELP other Other.\nup 1\n",
            "# HELP other Other.\nother{a=\"b\"} x\n",
            "# HELP other Other.\nother{a=\"b} 1\n",
            "# HELP other Other.\nother{a=\"\\x\"} 1\n",
            "other 1\n",
            "# comments only\n",
            "# HELP up Up.\n",
            "# HELP otherwise\n",
        ] {
            assert!(parse(text, &FAMILIES).is_err(), "{text}");
        }
        for text in ["", "\n \n", "# HELP other\n"] {
            assert!(parse(text, &FAMILIES).unwrap().is_empty(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(crate::fuzz::kept())]

        #[test]
        fn a_label_is_read_back_as_written(
            values in prop::collection::vec("(\\\\|\"|\n|\\}|\\{| |,|=|hours=\"|\\PC|[\\s\\S]){0,8}", 0..4),
        ) {
            let names = ["remote", "stream", "hours", "hour"];
            let pairs: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
            let labels = Labels::new(&pairs);
            for (name, value) in &pairs {
                prop_assert_eq!(labels.get(name), Some(*value));
            }
            let series = Series::from([(("some_total", labels), 12.5)]);
            let text = print(&series, &FAMILIES, "odd \"name\".prom");
            prop_assert_eq!(parse(&text, &FAMILIES).unwrap(), series);
        }

        #[test]
        fn the_parser_never_panics(text in "(other|up|#|# HELP other|\\{|\\}|=|\"|\\\\| |1|\n|\\PC){0,60}") {
            let _ = parse(&text, &FAMILIES);
        }
    }
}
