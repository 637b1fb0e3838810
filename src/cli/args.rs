//! The arguments and options, with their help, under the headings of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum, ValueHint};

use super::values::{
    parse_age, parse_count, parse_duration, parse_interval, parse_min_free, parse_size,
    parse_timeout,
};
use crate::archive::MinFree;

/// The headings of `--help`.
const WHAT: &str = "What to fetch";
const WHOM: &str = "From whom";
const SAFE: &str = "What is kept safe";
const PRINTED: &str = "What is printed";

/// Fill the gaps in an archive of stream segments from the nodes that have them.
///
/// Looks at which segments of a stream the local archive lacks, fetches them from the nodes that
/// have them, checks every byte against the hash in the segment's name, and exits with a status
/// that a script can trust. One pass; scheduling is cron's.
#[derive(Debug, Parser)]
#[command(name = "backfiller", max_term_width = 100, args_override_self = true)]
#[command(version, long_version = env!("BACKFILLER_VERSION"))]
#[command(override_usage = "backfiller [OPTIONS] <NODE> <STREAM> <VARIANT> [HOUR]...\n       \
    backfiller [OPTIONS] --files-from <FILE> <NODE> [STREAM] [VARIANT] [HOUR]...")]
#[command(after_help = "The manual page: backfiller --generate man | man -l -")]
pub struct Args {
    /// The nodes to fetch from, separated by commas
    ///
    /// Each is a URL (http or https; user and password in it are used, and never shown), NAME=URL,
    /// a directory that holds an archive (it begins with /, ./ or ../, or is .), or @FILE: a file
    /// with one node a line, as URL or as NAME and URL, with blank lines and # comments; @- is
    /// standard input. A line may go on with jobs=N, limit-rate=RATE, optional (if the node is dead,
    /// the pass is complete without it as long as another one answers) and no-tombstones (those that
    /// it lists are ignored). A node's name is the host of its URL unless given, with the port if
    /// several nodes are on that host. Of two nodes given one name the last counts. none is no node
    /// at all: what is here is checked, mapped or deleted, and nothing fetched.
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Option<String>,

    /// The streams, separated by commas
    ///
    /// @FILE is a file with one stream a line, @- standard input. all is every stream that a node or
    /// the archive has.
    #[arg(value_name = "STREAM", required_unless_present = "files_from")]
    pub streams: Option<String>,

    /// The variants of each stream, separated by commas; chat is the chat log
    ///
    /// @FILE is a file with one variant a line, @- standard input. all is every variant, chat
    /// included, of which a node or the archive has an hour.
    #[arg(value_name = "VARIANT", required_unless_present = "files_from")]
    pub variants: Option<String>,

    /// The hours: 2018-11-10T05, 2018-11-10, today, A..B, last:N, all, or - for standard input
    ///
    /// In UTC. An hour; a day; today or yesterday; the hour that a point in time lies in, such as
    /// 2018-11-10T05:35:00.250, perhaps with an offset (Z, +01:00); a range of these, inclusive, of
    /// which either end may be omitted; last:N, the last N hours, counting the current one; all, every
    /// hour that any node has, which is the default; or such forms one a line, from a file (@FILE) or
    /// from standard input (-). Several are combined. The newest hours are filled first.
    #[arg(value_name = "HOUR")]
    pub hours: Vec<String>,

    /// The archive to fill
    ///
    /// The directory that holds the streams. It must exist; missing subdirectories are created.
    #[arg(help_heading = WHAT)]
    #[arg(short = 'd', long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    #[arg(env = "BACKFILLER_BASE_DIR")]
    pub base_dir: PathBuf,

    /// Fetch exactly the files that are listed in this file, or on standard input (-)
    ///
    /// Paths in the archive, one a line, as --dry-run and --print print them; blank lines and lines
    /// that begin with # are passed over. STREAM, VARIANT and HOUR may be omitted; those that are
    /// given select among the paths. A path that no node has, or that is not one of an archive, is
    /// reported with its line, and the status is 3.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files_from: Option<String>,

    /// Each path in the list of --files-from ends with a NUL, as --print0 prints them
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
    /// The nodes are asked for their listings all the same. Paths are printed on standard output,
    /// relative to the archive.
    #[arg(help_heading = WHAT)]
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// In which order to fetch the segments of an hour
    ///
    /// Full segments go before suspect ones, and those before partial ones, in each of them. With
    /// random, machines that fill themselves from each other at a time rarely fetch the same.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "ORDER", default_value = "random")]
    pub order: OrderArg,

    /// Leave segments that started less than this ago to the downloader
    ///
    /// As 90s, 5m or 1h 30m; a bare number is seconds. It doesn't apply to chat.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub recent_cutoff: Duration,

    /// How long a node may stay silent
    ///
    /// While connecting, waiting for an answer, or between bytes. A slow transfer of a file that
    /// keeps moving is never cut, but one of less than 1000 bytes per second over 30s counts as
    /// silent; so does a listing or an error page that is as slow over this timeout.
    /// A node that was silent is given up for the pass if another one answers; the only one is
    /// tried again.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_timeout)]
    pub timeout: Duration,

    /// How often to retry a request that failed temporarily
    ///
    /// After pauses that grow from about half a second. Another node that has the segment is asked
    /// first.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "N", default_value = "3")]
    #[arg(value_parser = |text: &str| parse_count(text, 0, 100))]
    pub retries: u16,

    /// Fetch no more bytes per second than this, from all nodes together
    ///
    /// A number of bytes, with k, M or G for its multiples by 1024: 500k, 2M. Without it there is
    /// no limit.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "RATE", value_parser = parse_size)]
    pub limit_rate: Option<u64>,

    /// Refuse segments larger than this
    ///
    /// A number of bytes, as for --limit-rate. It keeps a node that sends without end from filling
    /// the disk.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub max_segment_size: u64,

    /// The name of the node that is this machine; it is skipped
    ///
    /// So that all machines can use one list of nodes. The default is the machine's host name.
    #[arg(help_heading = WHOM)]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Hostname)]
    pub localhost: Option<String>,

    /// Also fill these directories of extra files, separated by commas
    ///
    /// Files that are no segments, such as emotes and media, from the directory of that name on
    /// each node. Files of media are checked against the hash in their names, others against the
    /// length that the node announces. A file that is here is never touched.
    #[arg(help_heading = WHAT)]
    #[arg(long, value_name = "DIR,...", value_delimiter = ',')]
    pub extras: Vec<String>,

    /// Also check the selected segments that are here, and repair the corrupt ones
    ///
    /// Each is read and hashed, on all cores. A corrupt one is fetched anew, and replaced only once
    /// the good copy is here; if no node has one, it stays as it is. With --dry-run, they are only
    /// checked.
    #[arg(help_heading = WHAT)]
    #[arg(long)]
    pub verify: bool,

    /// After the pass, delete the segments of hours that ended longer ago than this
    ///
    /// Of the streams and variants given, as 14d or 336h: a bare number is refused, and so is less
    /// than an hour. What is no segment stays: tombstones, temporary files and anything foreign; a
    /// directory goes if nothing is left in it. HOUR must not select what would be deleted. With
    /// --dry-run, the hours that would go are printed, each ended by a slash.
    #[arg(help_heading = SAFE)]
    #[arg(long, value_name = "DURATION", value_parser = parse_age)]
    pub delete_older_than: Option<Duration>,

    /// End the pass before less than this is free on the archive's disk
    ///
    /// A number of bytes, as for --limit-rate, or a share of the disk: 50G, 5%. What is being
    /// fetched counts. The pass then ends in order, with status 1. The downloader records to the
    /// same disk, and what it can't write is lost.
    #[arg(help_heading = SAFE)]
    #[arg(long, value_name = "SIZE|PERCENT", value_parser = parse_min_free)]
    pub min_free: Option<MinFree>,

    /// End the pass in order once it has taken this long
    ///
    /// As 10m or 1h 30m; a bare number is seconds. What is being fetched then is given up, what has
    /// landed stays, and the status is 3.
    #[arg(help_heading = SAFE)]
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    pub max_duration: Option<Duration>,

    /// If another pass with --lock is at work on this archive, exit with 75 at once
    ///
    /// Passes without it ignore the lock. Nothing is left of it when a pass ends, however that
    /// happens. A shared lock, which no pass holds, keeps none from running: a warning reports it.
    #[arg(help_heading = SAFE)]
    #[arg(long)]
    pub lock: bool,

    /// Don't flush to disk: faster, but a power cut may corrupt segments just written
    #[arg(help_heading = SAFE)]
    #[arg(long)]
    pub no_fsync: bool,

    /// Print the path of each segment as it lands
    ///
    /// On standard output, relative to the archive, each ended by a newline. When it's printed, it
    /// is on the disk to stay.
    #[arg(help_heading = PRINTED)]
    #[arg(short, long, conflicts_with = "print0")]
    pub print: bool,

    /// The same, each path ended by a NUL
    #[arg(help_heading = PRINTED)]
    #[arg(short = '0', long)]
    pub print0: bool,

    /// Print JSON Lines: an event a line as it happens, then a summary
    ///
    /// On standard output, instead of paths: each segment that lands, each name that is skipped,
    /// each failure, with the node, bytes, milliseconds and reasons; at the end one object with
    /// the exit status, counts, times, each node's figures and the holes that remain.
    #[arg(help_heading = PRINTED)]
    #[arg(long, conflicts_with_all = ["print", "print0"])]
    pub json: bool,

    /// After the pass, print a map of the selected hours: what is here, and what is missing
    ///
    /// On standard output: a line an hour, a character a minute, then the ten longest holes
    /// that remain (with -v all of them) and their lengths. Time before the first or after the last segment of the stream is not a hole.
    /// With --dry-run the map alone is printed, and all of it shows what the pass would leave.
    #[arg(help_heading = PRINTED)]
    #[arg(long, conflicts_with = "print0")]
    pub coverage: bool,

    /// After the pass, print a table of who has what: the segments of each hour, here and at each node
    ///
    /// On standard output: for each hour, how many segments there are in all, and how many of them
    /// were here before the pass and are at each node, with how many of them each lacks. What could
    /// not be listed is a question mark. With --dry-run, nothing is fetched, and only the table is
    /// printed.
    #[arg(help_heading = PRINTED)]
    #[arg(long, conflicts_with_all = ["print0", "files_from"])]
    pub compare: bool,

    /// Exit with 3 if holes remain in the selected hours
    #[arg(help_heading = PRINTED)]
    #[arg(long)]
    pub fail_on_holes: bool,

    /// Write metrics for Prometheus to this file
    ///
    /// As node_exporter's textfile collector reads them, so its name should end in .prom. Every
    /// series has that name as the label "file". It is written at the end of the pass, and at least every
    /// minute while it is under way. Counters carry over from the file of the pass
    /// before; several passes may share one file. It is replaced as a whole, also when the pass
    /// fails or is interrupted. A file that holds anything else is refused.
    #[arg(help_heading = PRINTED)]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub metrics_file: Option<PathBuf>,

    /// Show a progress bar on standard error
    #[arg(help_heading = PRINTED)]
    #[arg(long, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(help = "Show a progress bar: auto (on a terminal), always or never")]
    pub progress: When,

    /// Print a line on how far the pass has come this often, where there is no progress bar
    ///
    /// As 1m or 30s, on standard error: files, bytes, rate, time left, and nodes in trouble. The
    /// signal USR1 makes a pass print one at once, with or without this option.
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

    /// Say what is done and what is skipped, and why; twice: debug messages too
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
    /// If it makes sense
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
