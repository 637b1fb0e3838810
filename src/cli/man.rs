//! The manual page: hand-written sections, and the options from clap between them.

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Arg, CommandFactory};

use super::args::Args;

/// The date of the last change in substance.
const DATE: &str = "2026-11-25";

/// The longest source line.
const WIDTH: usize = 80;

/// Renders the page, for section 1.
pub(super) fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH BACKFILLER 1 {DATE} \"backfiller {version}\" \"User Commands\"\n");
    page.push_str(include_str!("head.1"));
    page.push_str(".SH OPTIONS\n");
    let mut command = Args::command();
    command.build();
    for option in command.get_arguments().filter(|arg| !arg.is_positional()) {
        page.push_str(&entry(option));
    }
    page.push_str(include_str!("sections.1"));
    page
}

/// Renders one option: its names, what it does, its values and its default.
fn entry(option: &Arg) -> String {
    let short = option.get_short().map(|short| format!("-{short}"));
    let long = option.get_long().map(|long| format!("--{long}"));
    let names: Vec<String> = short.into_iter().chain(long).map(|name| bold(&name)).collect();
    let mut entry = format!(".TP\n{}", names.join(", "));
    let takes_value = option.get_action().takes_values();
    for name in option.get_value_names().into_iter().flatten().filter(|_| takes_value) {
        let _ = write!(entry, " \\fI{}\\fR", escape(name));
    }
    entry.push('\n');

    let help = option.get_help().map(StyledStr::to_string).unwrap_or_default();
    let long = option.get_long_help().map(StyledStr::to_string).unwrap_or_default();
    // The long help begins with the short one, as a paragraph of its own.
    let text = match long.strip_prefix(&help) {
        Some(more) => format!("{help}. {more}"),
        None if long.is_empty() => format!("{help}."),
        None => format!("{long}."),
    };
    entry.push_str(&filled(&text));
    if !takes_value {
        return entry;
    }
    if let [default, ..] = option.get_default_values() {
        let _ = write!(entry, "The default is {}", bold(&default.to_string_lossy()));
        if let Some(variable) = option.get_env() {
            let _ = write!(entry, ", or the value of {}", bold(&variable.to_string_lossy()));
        }
        entry.push_str(".\n");
    }
    let values = option.get_possible_values();
    if !values.is_empty() && !option.is_hide_possible_values_set() {
        entry.push_str("One of:\n.RS\n");
        for value in values {
            let help = value.get_help().map(StyledStr::to_string).unwrap_or_default();
            let _ = write!(entry, ".TP\n{}\n{}", bold(value.get_name()), filled(&help));
        }
        entry.push_str(".RE\n");
    }
    entry
}

/// Breaks text into source lines, with options in bold. Each sentence ends a line, so that the
/// formatter chooses the space after it.
fn filled(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let end = word.trim_start_matches('(').trim_end_matches(['.', ',', ';', ':', ')']);
        let is_option = end.starts_with("--") || end.starts_with('-') && end.len() == 2;
        let mut shown = escape(word);
        if is_option {
            shown = shown.replace(&escape(end), &bold(end));
        }
        if width > 0 && width + 1 + shown.len() > WIDTH {
            lines.push('\n');
            width = 0;
        }
        if width > 0 {
            lines.push(' ');
            width += 1;
        }
        // At the start of a line these would start a request.
        if width == 0 && shown.starts_with(['.', '\'']) {
            lines.push_str("\\&");
            width += 2;
        }
        lines.push_str(&shown);
        width += shown.len();
        if word.ends_with('.') {
            lines.push('\n');
            width = 0;
        }
    }
    if width > 0 {
        lines.push('\n');
    }
    lines
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escape(text))
}

/// Escapes what is special to the formatter. A plain hyphen would not be printed as a minus.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_filled_and_cannot_begin_a_request() {
        assert_eq!(filled(""), "");
        assert_eq!(
            filled("One. And (with --two), two."),
            "One.\nAnd (with \\fB\\-\\-two\\fR), two.\n"
        );
        assert_eq!(filled(".so it\\"), "\\&.so it\\e\n");
        let long = filled(&"word ".repeat(100));
        assert!(long.lines().all(|line| line.len() <= WIDTH), "{long}");
        assert_eq!(long.split_whitespace().count(), 100);
    }
}
