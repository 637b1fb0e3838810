//! The command line as clap sees it, and what is generated from it. Nothing here knows what the
//! arguments mean; that is for `config`.

mod args;
mod completions;
mod man;
mod old;
mod typed;
mod values;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use clap_complete::Shell;

pub use args::{Args, Generate, OrderArg, When};
pub use typed::without_logins;
pub use values::{parse_count, parse_size};

/// The outcome of reading the command line.
#[derive(Debug)]
pub enum Parsed {
    /// The arguments of a pass, or something to generate.
    Args(Box<Args>),
    /// Help or the version, for standard output.
    Help(String),
    /// It is wrong: one line that says how, and what `--color` says.
    Wrong(String, When),
}

/// Reads a command line, including the program's name.
pub fn parse(command_line: &[OsString]) -> Parsed {
    let error = match Args::try_parse_from(command_line) {
        Ok(args) => return Parsed::Args(Box::new(args)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Parsed::Help(error.render().to_string())
        }
        _ => Parsed::Wrong(one_line(&error), color(command_line)),
    }
}

/// What `--color` says in a command line that is wrong further on.
fn color(command_line: &[OsString]) -> When {
    let read = Args::command().ignore_errors(true).try_get_matches_from(command_line);
    let color = read.ok().and_then(|read| read.get_one("color").copied());
    color.unwrap_or(When::Auto)
}

/// Joins clap's paragraphs into one line: the error and the suggestions, without the usage.
fn one_line(error: &clap::Error) -> String {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(argument))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && let Some(counterpart) = old::counterpart(argument)
    {
        return format!("{counterpart}; see backfiller --help");
    }
    let text = error.render().to_string();
    let usage = text.find("\n\nUsage:").or_else(|| text.find("\n\nFor more information"));
    let text = &text[..usage.unwrap_or(text.len())];
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut line = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        // clap prints what is missing on lines of its own.
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => {
            format!("{} missing", missing.join(" "))
        }
        _ => {
            let parts = text.split('\n').map(str::trim).filter(|part| !part.is_empty());
            let line = parts.collect::<Vec<_>>().join("; ").replace("; tip: ", "; ");
            match line.strip_suffix(']').and_then(|line| line.split_once("; [possible values: ")) {
                Some((wrong, values)) => format!("{wrong}; possible values: {values}"),
                None => line,
            }
        }
    };
    line.push_str("; see backfiller --help");
    line
}

/// Writes the output of `--generate`.
///
/// # Errors
///
/// Fails if it can't be written.
pub fn generate(what: Generate, out: &mut dyn Write) -> io::Result<()> {
    let text = match what {
        Generate::Man => man::page(),
        Generate::CompleteBash => completions::script(Shell::Bash),
        Generate::CompleteZsh => completions::script(Shell::Zsh),
        Generate::CompleteFish => completions::script(Shell::Fish),
        Generate::CompleteElvish => completions::script(Shell::Elvish),
        Generate::CompletePowershell => completions::script(Shell::PowerShell),
    };
    out.write_all(text.as_bytes())
}
