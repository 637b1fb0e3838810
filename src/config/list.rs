//! Lists as typed by users: comma-separated items, or `@FILE` for the lines of a file. The callers
//! parse the items.

use std::fs::File;
use std::io;

use anyhow::{Result, anyhow, bail, ensure};

use super::secrets::shown;
use crate::bounded::{BOM, MAX_LIST, read_text};
use crate::error::plain;

/// An item of a list, trimmed and never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The text.
    pub text: String,
    /// Its file and line, unless it was on the command line.
    line: Option<(String, usize)>,
}

impl Item {
    /// The place of the item, for messages: the argument, and the line if it is from a file.
    pub fn place(&self, argument: &str) -> String {
        match &self.line {
            Some((file, line)) => format!("{argument}: {file}, line {line}"),
            None => argument.to_owned(),
        }
    }

    /// Whether it is from a file.
    pub fn is_line(&self) -> bool {
        self.line.is_some()
    }
}

/// Ensures that at most one of these arguments reads standard input, which can be read only once.
///
/// # Errors
///
/// Fails if two of them read it.
pub fn ensure_one_reader<'a>(
    arguments: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> Result<()> {
    let asks = |list: &str| list.split(',').any(|text| matches!(text.trim(), "-" | "@-"));
    let readers = arguments.into_iter().filter(|(_, list)| asks(list));
    let readers: Vec<&str> = readers.map(|(argument, _)| argument).collect();
    if let [first, second, ..] = readers[..] {
        bail!("standard input can be read only once, but both {first} and {second} read it");
    }
    Ok(())
}

/// Reads the items of a list. Blanks around its commas are ignored.
///
/// # Errors
///
/// Fails if an entry is empty, the list begins or ends with a blank, or a file can't be read.
pub fn read_list(argument: &'static str, list: &str) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for text in entries(argument, list)? {
        match text.strip_prefix('@') {
            Some(file) => items.append(&mut read_lines(argument, file)?),
            None => items.push(Item { text: text.to_owned(), line: None }),
        }
    }
    Ok(items)
}

/// The entries of a comma-separated list, none of them empty. Blanks around the commas do not
/// matter.
///
/// # Errors
///
/// Fails if an entry is empty, or the list begins or ends with a blank.
pub fn entries<'a>(argument: &str, list: &'a str) -> Result<impl Iterator<Item = &'a str>> {
    let entries = || list.split(',');
    ensure!(entries().all(|entry| !is_blank(entry)), "{argument}: the list has an empty entry");
    // Such a blank is a mistake in quoting, or part of a name: names may contain blanks.
    let first = entries().next().filter(|entry| entry.starts_with(char::is_whitespace));
    let last = entries().next_back().filter(|entry| entry.ends_with(char::is_whitespace));
    if let Some(entry) = first {
        bail!("{argument}: {} begins with a blank (remove it)", shown(entry));
    }
    if let Some(entry) = last {
        bail!("{argument}: {} ends with a blank (remove it)", shown(entry));
    }
    Ok(entries().map(str::trim))
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// Reads the lines of a file, or of standard input if `file` is `-`, without blank lines and
/// comments.
///
/// # Errors
///
/// Fails if the file can't be read, is too long or not UTF-8, or has no lines.
pub fn read_lines(argument: &'static str, file: &str) -> Result<Vec<Item>> {
    let (name, text) = match file {
        "-" => ("standard input".to_owned(), read_text(io::stdin(), MAX_LIST)),
        file => (format!("{file:?}"), File::open(file).and_then(|file| read_text(file, MAX_LIST))),
    };
    let text = text.map_err(|e| {
        let why = match e.kind() {
            io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
            _ => plain(&e),
        };
        anyhow!("{argument}: reading {name}: {why}")
    })?;
    let text = text.strip_prefix(BOM).unwrap_or(&text);
    let lines = text.lines().zip(1..).map(|(line, number)| (without_comment(line), number));
    let items = lines
        .filter(|(line, _)| !line.is_empty())
        .map(|(line, number)| Item { text: line.to_owned(), line: Some((name.clone(), number)) });
    let items: Vec<Item> = items.collect();
    // An empty list usually means that the program which writes it has failed.
    ensure!(!items.is_empty(), "{argument}: {name} is empty");
    Ok(items)
}

/// A line, trimmed and without the comment at its end. A comment starts with `#` at the start of a
/// word.
fn without_comment(line: &str) -> &str {
    let begins_word = |at: usize| line[..at].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(|at| begins_word(*at));
    line[..comment.unwrap_or(line.len())].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_comma_separated_with_optional_blanks() {
        for (list, items) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            ("a , b\t,c", &["a", "b", "c"]),
            ("a b,c", &["a b", "c"]),
        ] {
            let read = read_list("X", list).unwrap();
            assert_eq!(read.into_iter().map(|item| item.text).collect::<Vec<_>>(), items);
        }
        for list in ["", " ", "a,", ",a", "a, ,b"] {
            let said = read_list("X", list).unwrap_err().to_string();
            assert_eq!(said, "X: the list has an empty entry");
        }
        for (list, said) in [
            (" a", r#"X: " a" begins with a blank (remove it)"#),
            ("\ta, b", r#"X: "\ta" begins with a blank (remove it)"#),
            ("a, b ", r#"X: " b " ends with a blank (remove it)"#),
            ("a\n", r#"X: "a\n" ends with a blank (remove it)"#),
            (" http://me:secret@h", r#"X: " http://..." begins with a blank (remove it)"#),
        ] {
            assert_eq!(read_list("X", list).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn a_comment_starts_at_a_word() {
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
