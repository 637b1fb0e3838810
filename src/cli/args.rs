//! The arguments and options, with their help, under the headings of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum, ValueHint};

use super::values::{
    parse_age, parse_count, parse_duration, parse_interval, parse_jitter, parse_min_free,
    parse_size, parse_timeout,
};
use crate::archive::MinFree;

/// The headings of `--help`.
const WHAT: &str = "What to fetch";
const WHOM: &str = "From whom";
const SAFE: &str = "What is kept safe";
const PRINTED: &str = "What is printed";

/// Fill the gaps in an archive of stream segments from the nodes that have them.
///
/// Compares the local archive with the listings of other nodes, fetches the segments that it lacks,
/// checks every byte against the hash in the segment's name, and exits with a status that a script
/// can trust. Each run is one pass; use cron or a systemd timer to repeat it.
#[derive(Debug, Parser)]
#[command(name = "backfiller", max_term_width = 100, args_override_self = true)]
#[command(version, long_version = env!("BACKFILLER_VERSION"))]
#[command(override_usage = "backfiller [OPTIONS] <NODE> <STREAM> <VARIANT> [HOUR]...\n       \
    backfiller [OPTIONS] --files-from <FILE> <NODE> [STREAM] [VARIANT]\n                  [HOUR]...")]
#[command(after_help = "The manual page: backfiller --generate man | man -l -")]
pub struct Args {
    /// The nodes to fetch from, separated by commas
    ///
    /// Each is a URL (http or https; a user name and password in it are used and never shown),
    /// NAME=URL, a directory that holds an archive (it starts with /, ./ or ../, or is .), NAME=DIR, or
    /// @FILE, a file with one node per line, either a URL or directory, or a name and one of these;
    /// blank lines and # comments are ignored, and @- is standard input. On such a line, settings may
    /// follow: jobs=N, limit-rate=RATE, optional (the pass is complete without this node if it is dead
    /// and another one answers) and no-tombstones (the tombstones that it lists are ignored). A node
    /// without a name is named after its host, with the port if several nodes share the host. If two
    /// nodes have the same name, the last one counts. "none" means no node: what is here is checked,
    /// mapped or deleted, and nothing is fetched.
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Option<String>,

    /// The streams, separated by commas
    ///
    /// @FILE is a file with one stream per line, @- is standard input. "all" means every stream that a
    /// node or the archive has.
    #[arg(value_name = "STREAM", required_unless_present = "files_from")]
    pub streams: Option<String>,

    /// The variants of each stream, separated by commas; chat is the chat log
    ///
    /// @FILE is a file with one variant per line, @- is standard input. "all" means every variant,
    /// including chat, for which a node or the archive has at least one hour.
    #[arg(value_name = "VARIANT", required_unless_present = "files_from")]
    pub variants: Option<String>,

    /// The hours: 2018-11-10T05, 2018-11-10, today, A..B, last:N, all, or - for standard input
    ///
    /// An hour; a day, "today" or "yesterday"; a point in time, for the hour that contains it, such as
    /// 2018-11-10T05:35:00.250; a range of these, inclusive, of which either end may be omitted; last:N,
    /// the last N hours, counting the current one; "all", every hour that any node has, which is the
    /// default; or a list of such forms, one per line, in a file (@FILE) or on standard input (-). Times
    /// are in UTC unless they have an offset (+01:00). Several are combined. The newest hours are fetched
    /// first.
    #[arg(value_name = "HOUR")]
    pub hours: Vec<String>,

    /// The archive to fill
    ///
    /// The directory that contains the streams. It must exist; missing subdirectories are created.
    #[arg(help_heading = WHAT)]
    #[arg(short = 'd', long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    #[arg(env = "BACKFILLER_BASE_DIR")]
    pub base_dir: PathBuf,

    /// Fetch exactly the files listed in this file, or on standard input (-)
    ///
    /// One path per line, relative to the archive, as --dry-run and --print print them. Blank lines and
    /// lines that start with # are ignored. STREAM, VARIANT and HOUR may be omitted; if given, they select
    /// among the paths. A path that no node has, or that is not a path in an archive, is reported with its
    /// line number, and the status is 3.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files_from: Option<String>,

    /// The paths in the list of --files-from end with NUL, as printed by --print0
    #[arg(help_heading = WHAT)]
    #[arg(long, requires = "files_from")]
    pub from0: bool,

    /// Concurrent requests per node
    ///
    /// Each has a thread. All nodes together may have 512; more is an error.
    #[arg(help_heading = WHOM)]
    #[arg(short, long, value_name = "N", default_value = "8")]
    #[arg(value_parser = |text: &str| parse_count(text, 1, 256))]
    pub jobs: u16,

    /// Fetch nothing; print what would be fetched
    ///
    /// The nodes are asked for their listings as usual. Paths are printed on standard output, relative to
    /// the archive.
    #[arg(help_heading = WHAT)]
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// The order in which to fetch the segments of an hour
    ///
    /// In each order, full segments come before suspect ones, and suspect ones before partial ones. With
    /// random, machines that fill themselves from each other at the same time rarely fetch the same
    /// segment.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "ORDER", default_value = "random")]
    pub order: OrderArg,

    /// Leave segments that started less than this ago to the downloader
    ///
    /// Such as 90s, 5m or 1h 30m; a bare number is in seconds. It does not apply to chat.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub recent_cutoff: Duration,

    /// How long a node may stay silent
    ///
    /// While connecting, while waiting for an answer, or between bytes. A slow transfer that keeps moving
    /// is never cut off, except that less than 1,000 bytes per second count as silence: over 30 s in a file,
    /// over this timeout in a listing or an error page. A silent node is given up for the pass if another
    /// node answers, and is probed again later; a node that is the only one to answer is retried.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// How often to retry a request that failed temporarily
    ///
    /// The pauses grow from about half a second. Another node that has the segment is asked first.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "N", default_value = "3")]
    #[arg(value_parser = |text: &str| parse_count(text, 0, 100))]
    pub retries: u16,

    /// Fetch at most this many bytes per second, from all nodes together
    ///
    /// A number of bytes; k, M and G multiply it by powers of 1024: 500k, 2M. By default there is no limit.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "RATE", value_parser = parse_size)]
    pub limit_rate: Option<u64>,

    /// Refuse segments larger than this
    ///
    /// A number of bytes, as for --limit-rate. This keeps a node that never stops sending from filling the
    /// disk.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub max_segment_size: u64,

    /// The name of the node that is this machine; it is skipped
    ///
    /// So that all machines can share one list of nodes. The default is the machine's host name.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Hostname)]
    pub localhost: Option<String>,

    /// Also fill these directories of extra files, separated by commas
    ///
    /// Files that are not segments, such as emotes and media, from the directory of the same name on each
    /// node. Files in media are checked against the hash in their names, others against the length that the
    /// node announces. A file that is already here is never touched.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "DIR,...")]
    pub extras: Vec<String>,

    /// Also check the selected segments that are here, and repair the corrupt ones
    ///
    /// Each one is read and hashed, on all cores. A corrupt segment is fetched again, and replaced only once
    /// the good copy is here; if no node has one, it stays as it is. With --dry-run they are only checked.
    #[arg(help_heading = WHAT)]
    #[arg(long)]
    pub verify: bool,

    /// After the pass, delete the segments of hours that ended longer ago than this
    ///
    /// Only in the selected streams and variants. Needs a unit, such as 14d or 336h, and at least an hour.
    /// Tombstones, temporary files and foreign files stay; a directory is removed if nothing is left in it.
    /// HOUR must not select what would be deleted. Nothing is deleted after a pass that was interrupted or
    /// ended with 1 or 4, or if this machine's clock disagrees with every node's. With --dry-run the hours
    /// that would be deleted are printed, each with a slash at the end.
    #[arg(help_heading = SAFE)]
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    pub delete_older_than: Option<Duration>,

    /// End the pass before less than this is free on the archive's disk
    ///
    /// A number of bytes, as for --limit-rate, of at least 1M, or a share of the disk: 50G, 5%. Files in
    /// progress count. The pass then ends in order, with status 1. The downloader records to the same disk,
    /// and what it can't write is lost.
    #[arg(help_heading = SAFE)]
    #[arg(long, value_name = "SIZE|PERCENT", value_parser = parse_min_free)]
    pub min_free: Option<MinFree>,

    /// End the pass in order once it has taken this long
    ///
    /// Such as 10m or 1h 30m; a bare number is in seconds. Transfers in progress are abandoned, what has
    /// landed stays, and the status is 3.
    #[arg(help_heading = SAFE)]
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    pub max_duration: Option<Duration>,

    /// Wait for a random time of up to this long before the pass
    ///
    /// Such as 30s or 5m, at most a day; a bare number is in seconds. This spreads passes that cron starts
    /// in the same second on many machines. The command line is checked before the pause. The pass begins
    /// after it: last:N, today and --delete-older-than count from its end, --lock takes the lock then, and
    /// --max-duration does not include it. A signal ends the pause at once.
    #[arg(help_heading = SAFE)]
    #[arg(long, value_name = "DURATION", value_parser = parse_jitter)]
    pub jitter: Option<Duration>,

    /// If another pass with --lock is running on this archive, exit with 75 at once
    ///
    /// Passes without it ignore the lock. Nothing remains of the lock when a pass ends, however it ends. If
    /// another program holds a shared lock, which passes never take, a warning says so and the pass runs.
    #[arg(help_heading = SAFE)]
    #[arg(long)]
    pub lock: bool,

    /// Don't flush to disk: faster, but a power cut may corrupt segments just written
    #[arg(help_heading = SAFE)]
    #[arg(long)]
    pub no_fsync: bool,

    /// Print the path of each segment once it has landed
    ///
    /// On standard output, relative to the archive, one per line. A printed segment is complete, checked
    /// and flushed to disk. It is removed again only if a node lists its tombstone later in the same pass,
    /// which -v reports.
    #[arg(help_heading = PRINTED)]
    #[arg(short, long, conflicts_with = "print0")]
    pub print: bool,

    /// Like --print, but end each path with NUL
    #[arg(help_heading = PRINTED)]
    #[arg(short = '0', long)]
    pub print0: bool,

    /// Print JSON Lines: one event per line as it happens, then a summary
    ///
    /// On standard output, instead of paths: each segment that lands, each name that is skipped and each
    /// failure, with node, bytes, milliseconds and reason. The summary has the exit status, counts, times,
    /// each node's figures and the remaining holes.
    #[arg(help_heading = PRINTED)]
    #[arg(long, conflicts_with_all = ["print", "print0"])]
    pub json: bool,

    /// After the pass, print a map of the selected hours: what is here and what is missing
    ///
    /// On standard output: one line per hour, one character per minute, then the ten longest holes that
    /// remain (all of them with -v) and their total. Time before the first or after the last segment of the
    /// stream is not a hole. With --dry-run only the map is printed, and it shows what the pass would leave.
    #[arg(help_heading = PRINTED)]
    #[arg(long, conflicts_with = "print0")]
    pub coverage: bool,

    /// After the pass, print a table of who has what: the segments of each hour, here and at each node
    ///
    /// On standard output: for each hour, the number of segments in all, how many were here before the pass
    /// and how many each node has, and how many each of them lacks. A question mark is what could not be
    /// listed. With --dry-run nothing is fetched, and only the table is printed.
    #[arg(help_heading = PRINTED)]
    #[arg(long, conflicts_with_all = ["print0", "files_from"])]
    pub compare: bool,

    /// Exit with 3 if holes remain in the selected hours
    #[arg(help_heading = PRINTED)]
    #[arg(long)]
    pub fail_on_holes: bool,

    /// Write metrics for Prometheus to this file
    ///
    /// For node_exporter's textfile collector, so the name should end in .prom. Every series has that name
    /// as its label "file". The file is replaced as a whole, at the end of the pass and at least every minute
    /// during it, also if the pass fails or is interrupted. Counters carry over from the previous pass;
    /// several passes may share a file. A file that contains anything else is refused.
    #[arg(help_heading = PRINTED)]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub metrics_file: Option<PathBuf>,

    /// Write an HTML report of the pass to this file
    ///
    /// One page that needs neither network nor script: a map of the selected hours, the holes, who has
    /// what, failures by node and reason, bytes over time, and the command line without passwords. The
    /// file is replaced as a whole, at the end of the pass and about every minute during it, also if the
    /// pass fails or is interrupted. With --dry-run it shows what the pass would leave. A file that
    /// contains anything else is refused.
    #[arg(help_heading = PRINTED)]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub report: Option<PathBuf>,

    /// Show a progress bar on standard error
    #[arg(help_heading = PRINTED)]
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(help = "Show a progress bar: auto (on a terminal), always or never")]
    pub progress: When,

    /// Print a status line at this interval, where there is no progress bar
    ///
    /// Such as 1m or 30s. The line goes to standard error: files, bytes, rate, time left, and nodes in
    /// trouble. SIGUSR1 makes a pass print one at once, with or without this option.
    #[arg(help_heading = PRINTED)]
    #[arg(long, value_name = "INTERVAL", value_parser = parse_interval)]
    pub stats: Option<Duration>,

    /// Colour messages and maps: auto (on a terminal), always or never
    ///
    /// With auto, NO_COLOR, CLICOLOR=0 or TERM=dumb in the environment turns colours off, and
    /// CLICOLOR_FORCE=1 turns them on where there is no terminal.
    #[arg(help_heading = PRINTED)]
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    pub color: When,

    /// Print only errors
    #[arg(help_heading = PRINTED)]
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print what is done and what is skipped, and why; twice: debug messages too
    #[arg(help_heading = PRINTED)]
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print the manual page or a shell's completions, and exit
    #[arg(long, value_name = "WHAT", exclusive = true)]
    pub generate: Option<Generate>,
}

/// `--order`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OrderArg {
    /// In random order
    Random,
    /// The earliest first
    Forward,
    /// The latest first
    Reverse,
}

/// `--progress` and `--color`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// `--generate`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generate {
    /// The manual page, for section 1
    Man,
    /// Completions for bash
    CompleteBash,
    /// Completions for zsh
    CompleteZsh,
    /// Completions for fish
    CompleteFish,
    /// Completions for elvish
    CompleteElvish,
    /// Completions for PowerShell
    CompletePowershell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
