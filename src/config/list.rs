//! Lists as they are typed: items with commas between them, or `@FILE` for those of a file, one a
//! line. What an item means is for others to say.

use std::fs::File;
use std::io;

use anyhow::{Result, anyhow, bail, ensure};

use crate::bounded::{MAX_LIST, read_text};
use crate::error::plain;

/// An item of a list, without the blanks around it; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What was written.
    pub text: String,
    /// Where, unless it was on the command line.
    line: Option<(String, usize)>,
}

impl Item {
    /// Where the item is, for a message: the argument, and the line of a file.
    pub fn place(&self, argument: &str) -> String {
        match &self.line {
            Some((file, line)) => format!("{argument}: {file}, line {line}"),
            None => argument.to_owned(),
        }
    }

    /// Whether it is a line of a file.
    pub fn is_line(&self) -> bool {
        self.line.is_some()
    }
}

/// That not more than one of these arguments asks for standard input, which can be read only once.
pub fn ensure_one_reader<'a>(
    arguments: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> Result<()> {
    let asks = |list: &str| list.split(',').any(|text| matches!(text.trim(), "-" | "@-"));
    let readers = arguments.into_iter().filter(|(_, list)| asks(list));
    let readers: Vec<&str> = readers.map(|(argument, _)| argument).collect();
    if let [first, second, ..] = readers[..] {
        bail!("standard input can be read only once: {first} and {second} both ask for it");
    }
    Ok(())
}

/// The items of a list.
pub fn read_list(argument: &'static str, list: &str) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for text in list.split(',').map(str::trim) {
        ensure!(!text.is_empty(), "{argument}: the list has an empty entry");
        match text.strip_prefix('@') {
            Some(file) => items.append(&mut read_lines(argument, file)?),
            None => items.push(Item { text: text.to_owned(), line: None }),
        }
    }
    Ok(items)
}

/// The lines of a file, or of standard input if that is `-`, without blank ones and comments.
pub fn read_lines(argument: &'static str, file: &str) -> Result<Vec<Item>> {
    let (name, text) = match file {
        "-" => ("standard input".to_owned(), read_text(io::stdin(), MAX_LIST)),
        file => (format!("{file:?}"), File::open(file).and_then(|file| read_text(file, MAX_LIST))),
    };
    let text = text.map_err(|e| {
        let why = match e.kind() {
            io::ErrorKind::InvalidData => "it is not text in UTF-8".into(),
            _ => plain(&e),
        };
        anyhow!("{argument}: reading {name}: {why}")
    })?;
    let lines = text.lines().zip(1..).map(|(line, number)| (without_comment(line), number));
    let items = lines
        .filter(|(line, _)| !line.is_empty())
        .map(|(line, number)| Item { text: line.to_owned(), line: Some((name.clone(), number)) });
    let items: Vec<Item> = items.collect();
    // Whatever was to write them has failed, as likely as not.
    ensure!(!items.is_empty(), "{argument}: {name} is empty");
    Ok(items)
}

/// A line without the blanks around it and without the comment at its end, which begins a word with
/// `#`.
fn without_comment(line: &str) -> &str {
    let begins_word = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(|at| begins_word(*at));
    line[..comment.unwrap_or(line.len())].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_commas_with_or_without_blanks_around_them() {
        for (list, items) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            (" a , b\t,c ", &["a", "b", "c"]),
            ("a b,c", &["a b", "c"]),
        ] {
            let read = read_list("X", list).unwrap();
            assert_eq!(read.into_iter().map(|item| item.text).collect::<Vec<_>>(), items);
        }
        for list in ["", " ", "a,", ",a", "a, ,b"] {
            let said = read_list("X", list).unwrap_err().to_string();
            assert_eq!(said, "X: the list has an empty entry");
        }
    }

    #[test]
    fn a_comment_begins_with_a_word() {
        for (line, rest) in [
            ("a b", "a b"),
            ("  a  # b", "a"),
            ("# a", ""),
            ("a#b", "a#b"),
            ("a#b #c # d", "a#b"),
            ("é\u{a0}#b", "é"),
        ] {
            assert_eq!(without_comment(line), rest);
        }
    }
}
