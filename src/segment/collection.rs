//! Streams, variants, and what a name of an archive may consist of.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name that file systems take, in bytes.
pub(super) const MAX_NAME: usize = 255;
/// What staging adds to a name at most: `.UUID.temp`.
pub(crate) const STAGED_SUFFIX: usize = 1 + 36 + 5;
/// Why a text is not the name that it should be. Displays as a clause that follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError(pub(super) &'static str);

impl NameError {
    pub(crate) const NOT_UNICODE: NameError = NameError("is no Unicode");
    pub(crate) const NO_HOUR: NameError = NameError("is no hour");
    pub(crate) const TOO_LONG: NameError = NameError("is too long");
    pub(crate) const IN_AN_HOUR: NameError = NameError("lies in the directory of an hour");
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NameError {}

/// Whether a character must not reach a terminal, or a name: controls, and the invisible ones
/// that reorder or hide the text around them.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Checks that a text is one plain component of a path.
pub(crate) fn component(text: &str) -> Result<Box<str>, NameError> {
    let why = if text.is_empty() {
        "is empty"
    } else if text.len() > MAX_NAME {
        "is longer than 255 bytes"
    } else if text.starts_with('.') {
        "begins with a dot"
    } else if text.contains('/') {
        "contains a slash"
    } else if text.contains(is_unprintable) {
        "contains an unprintable character"
    } else {
        return Ok(text.into());
    };
    Err(NameError(why))
}

/// The name of a stream, also called a channel: `desertbus`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stream(Arc<str>);

/// The name of a variant of a stream: a quality such as `source`, or `chat`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant(Arc<str>);

impl FromStr for Stream {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        component(text).map(|name| Stream(name.into()))
    }
}

impl FromStr for Variant {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        component(text).map(|name| Variant(name.into()))
    }
}

impl Stream {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Variant {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its segments hold, which decides how they are named.
    pub fn medium(&self) -> Medium {
        match &*self.0 {
            "chat" => Medium::Chat,
            _ => Medium::Video,
        }
    }
}

/// One variant of one stream: what lies under `BASE_DIR/STREAM/VARIANT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collection {
    /// The stream.
    pub stream: Stream,
    /// Its variant.
    pub variant: Variant,
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream.0, self.variant.0)
    }
}

/// What the segments of a variant hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// `TIME-DURATION-TYPE-HASH.ts`
    Video,
    /// `TIME-HASH.json`
    Chat,
}

impl Medium {
    /// The longest name of a segment that can be staged.
    pub(super) fn max_name(self) -> usize {
        match self {
            Medium::Chat => MAX_NAME - STAGED_SUFFIX,
            // What it is staged under is no longer than its own name.
            Medium::Video => MAX_NAME,
        }
    }

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Medium::Video => ".ts",
            Medium::Chat => ".json",
        }
    }
}
