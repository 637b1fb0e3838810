//! Fills the gaps in an archive of stream segments from the nodes that have them: one pass, every
//! byte checked, and an exit status that a script can trust.
//!
//! [`run`] is the program, and [`Status`] is its outcome. Everything else is private.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod archive;
mod bounded;
mod cli;
mod clock;
mod compare;
mod config;
mod coverage;
mod durations;
mod error;
mod extra;
mod fetch;
#[cfg(test)]
mod fuzz;
mod hour;
mod lock;
mod node;
mod partials;
mod pass;
mod plan;
mod progress;
mod ready;
mod report;
mod retention;
mod schedule;
mod segment;
mod stop;
mod target;
mod throttle;
mod transfer;
mod verify;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anyhow::Context;
use log::LevelFilter;

use cli::{Args, Parsed, When};
use config::Config;
use progress::{Look, Progress};
use report::{About, Files, Html, MapStyle, Metrics, Report, Style};

pub use report::Status;

/// Runs the program with this command line, including the program's name.
pub fn run(command_line: impl IntoIterator<Item = OsString>) -> Status {
    pass::prepare_for_signals();
    let typed: Vec<OsString> = command_line.into_iter().collect();
    let args = match cli::parse(&typed) {
        Parsed::Args(args) => args,
        Parsed::Help(text) => return print(|out| out.write_all(text.as_bytes())),
        Parsed::Wrong(line, color) => {
            report::log::init(LevelFilter::Error, is_coloured(color, &io::stderr()));
            log::error!("{line}");
            return Status::Usage;
        }
    };
    if let Some(what) = args.generate {
        return print(|out| cli::generate(what, out));
    }
    report::log::init(level(&args), is_coloured(args.color, &io::stderr()));
    run_pass(&args, &typed).unwrap_or_else(|e| {
        log::error!("{e:#}");
        Status::Usage
    })
}

/// Runs a pass with these arguments.
///
/// # Errors
///
/// Fails if an argument is wrong; no node was contacted.
fn run_pass(args: &Args, typed: &[OsString]) -> anyhow::Result<Status> {
    let pause = args.jitter.unwrap_or_default().mul_f64(rand::random());
    let config = Config::new(args, clock::now(), pause)?;
    let names: Vec<String> = config.nodes.iter().map(|node| node.name.clone()).collect();
    let files = files(&config, &names, typed)?;
    let progress = progress(args, &names);
    report::log::share_with(&progress);
    let optional = config.nodes.iter().map(|node| node.settings.optional).collect();
    let report = Report::new(names, optional, style(args, &config), files, progress.clone());
    Ok(pass::run(config, report, progress))
}

/// The progress bar, shown or not.
fn progress(args: &Args, names: &[String]) -> Progress {
    let is_shown = match args.progress {
        When::Auto => {
            let on_terminal = io::stderr().is_terminal();
            on_terminal && !args.quiet && anstyle_query::term_supports_ansi_color()
        }
        When::Always => true,
        When::Never => false,
    };
    let look = Look { colour: is_coloured(args.color, &io::stderr()), unicode: is_utf8() };
    let names = names.iter().map(|name| report::log::escape(name).into_owned());
    Progress::new(is_shown, look, names.collect())
}

/// The settings of the report.
fn style(args: &Args, config: &Config) -> Style {
    let on_terminal = io::stderr().is_terminal();
    let colour = is_coloured(args.color, &io::stdout());
    Style {
        output: config.output,
        map: MapStyle { colour, unicode: colour && is_utf8(), all_holes: args.verbose > 0 },
        fail_on_holes: config.fail_on_holes,
        on_terminal,
        summary: !args.quiet && (on_terminal || args.verbose > 0),
        dry_run: config.dry_run,
        only_segments: config.extras.is_empty(),
        without_nodes: config.nodes.is_empty(),
    }
}

/// An absolute path, for readers of the report who don't know the working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The files that the pass writes about itself.
///
/// # Errors
///
/// Fails if one of them can't be written, as far as that can be known before the pass.
fn files(config: &Config, names: &[String], typed: &[OsString]) -> anyhow::Result<Files> {
    let metrics = config.metrics_file.as_ref().map(|path| {
        let hours = config.hours.clone();
        let metrics = Metrics::new(path, names.to_vec(), hours, config.hours_typed.clone());
        metrics.with_context(|| format!("--metrics-file {}", path.display()))
    });
    let page = config.report.as_ref().map(|path| {
        let about = About {
            command: cli::without_logins(typed),
            archive: absolute(&config.base_dir).display().to_string(),
            names: names.to_vec(),
            optional: config.nodes.iter().map(|node| node.settings.optional).collect(),
            dry_run: config.dry_run,
            compares: config.compare,
        };
        let begun = Instant::now() + config.pause;
        Html::new(path, about, begun).with_context(|| format!("--report {}", path.display()))
    });
    let files = Files { metrics: metrics.transpose()?, page: page.transpose()? };
    if let (Some(metrics), Some(page)) = (&files.metrics, &files.page) {
        anyhow::ensure!(
            metrics.path() != page.file().path(),
            "--report and --metrics-file name the same file"
        );
    }
    Ok(files)
}

/// Whether the locale uses UTF-8.
fn is_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

fn level(args: &Args) -> LevelFilter {
    match (args.quiet, args.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Debug,
    }
}

/// Whether to colour what goes to this stream. `auto` honours `NO_COLOR`, `CLICOLOR` and
/// `CLICOLOR_FORCE`.
fn is_coloured(when: When, stream: &impl RawStream) -> bool {
    match when {
        When::Auto => AutoStream::choice(stream) == ColorChoice::Always,
        When::Always => true,
        When::Never => false,
    }
}

/// Prints a requested text instead of running a pass. If the reader closes the pipe, it has read
/// enough.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Status {
    let mut text = Vec::new();
    match write(&mut text).and_then(|()| report::out::print(&text)) {
        Ok(()) => Status::Complete,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Status::OutputClosed,
        Err(e) => {
            report::log::init(LevelFilter::Error, is_coloured(When::Auto, &io::stderr()));
            log::error!("writing to standard output: {}", error::plain(&e));
            Status::LocalFailure
        }
    }
}
