//! Streams and variants, and the rules for all names of an archive.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name that file systems accept, in bytes.
pub(crate) const MAX_NAME: usize = 255;
/// The most that staging adds to a name: `.UUID.temp`.
pub(crate) const STAGED_SUFFIX: usize = 1 + 36 + 5;

/// Why a text is not a valid name. Displays as a clause that follows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError(pub(super) &'static str);

impl NameError {
    pub(crate) const NOT_UNICODE: NameError = NameError("is not valid Unicode");
    pub(crate) const NO_HOUR: NameError = NameError("is not a valid hour");
    pub(crate) const TOO_LONG: NameError = NameError("is too long");
    pub(crate) const IN_AN_HOUR: NameError = NameError("is in an hour's directory");
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NameError {}

/// Whether a character must not reach a terminal or be part of a name: control characters, and
/// invisible characters that reorder or hide the text around them.
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

/// Checks that a text is a single plain component of a path.
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
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Variant {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The content of its segments, which determines how they are named.
    pub fn medium(&self) -> Medium {
        match &*self.0 {
            "chat" => Medium::Chat,
            _ => Medium::Video,
        }
    }
}

/// One variant of one stream: the directory `BASE_DIR/STREAM/VARIANT`.
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

/// The content of a variant's segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// `TIME-DURATION-TYPE-HASH.ts`
    Video,
    /// `TIME-HASH.json`
    Chat,
}

impl Medium {
    /// The end of a segment's name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Medium::Video => ".ts",
            Medium::Chat => ".json",
        }
    }
}
