//! Settings of the report.

/// How the paths of segments are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Each ends with a newline (`--print`).
    Lines,
    /// Each ends with a NUL (`--print0`).
    NulTerminated,
}

/// What is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The paths of fetched files, the coverage map, the comparison of nodes. By default, none of
    /// them.
    Text { paths: Option<Paths>, map: bool, table: bool },
    /// JSON Lines.
    Json,
}

/// How maps and tables are drawn.
#[derive(Clone, Copy, Debug)]
pub struct MapStyle {
    /// Whether to use colours.
    pub colour: bool,
    /// Whether to use characters outside ASCII.
    pub unicode: bool,
    /// Whether to show every hole, not only the longest.
    pub all_holes: bool,
}

/// All settings of the report.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// What is printed on standard output.
    pub output: Output,
    /// How maps and tables are drawn.
    pub map: MapStyle,
    /// Whether remaining holes make the pass incomplete.
    pub fail_on_holes: bool,
    /// Whether standard error is a terminal.
    pub on_terminal: bool,
    /// Whether to print a summary line on standard error.
    pub summary: bool,
    /// Whether this is a dry run.
    pub dry_run: bool,
    /// Whether only segments are fetched, so that messages can say "segment" instead of "file".
    pub only_segments: bool,
    /// Whether the pass runs without nodes (`none`).
    pub without_nodes: bool,
}
