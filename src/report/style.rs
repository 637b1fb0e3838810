//! How a pass is to be reported.

/// How the paths of segments are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Each ended by a newline.
    Lines,
    /// Each ended by a NUL.
    NulTerminated,
}

/// What is printed on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The paths of what lands, the map of what is covered, the table of who has what; mostly
    /// nothing.
    Text { paths: Option<Paths>, map: bool, table: bool },
    /// JSON Lines.
    Json,
}

/// What a map may be drawn with.
#[derive(Clone, Copy, Debug)]
pub struct MapStyle {
    /// Colours.
    pub colour: bool,
    /// Characters besides ASCII.
    pub unicode: bool,
    /// Whether every hole is shown, not only the longest.
    pub all_holes: bool,
}

/// How a pass is to be reported.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// What is printed on standard output.
    pub output: Output,
    /// How a map is drawn.
    pub map: MapStyle,
    /// Whether it's a failure if holes remain.
    pub fail_on_holes: bool,
    /// Whether standard error is a terminal.
    pub on_terminal: bool,
    /// Whether a summary line is wanted on standard error.
    pub summary: bool,
    /// Whether nothing is fetched.
    pub dry_run: bool,
    /// Whether all that is fetched are segments.
    pub only_segments: bool,
    /// Whether no node is asked.
    pub asks_nobody: bool,
}
