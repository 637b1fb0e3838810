//! The other archives that a pass fetches from, whatever they are behind. A node's word is never
//! trusted: what it lists are texts until they are parsed, what it sends is checked by whoever
//! asked.

pub mod directory;
pub mod http;
mod pace;

use std::fmt;
use std::io::{self, Read};
use std::sync::MutexGuard;
use std::time::Duration;

use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

use crate::extra::ExtraDir;
use crate::hour::Hour;
use crate::segment::Collection;
use crate::target::Target;

/// An archive that can be listed and read.
pub trait Node: Send + Sync {
    /// The names of the hours that it has of a collection: none if it doesn't know it.
    fn list_hours(&self, collection: &Collection) -> Result<Listing<'_>, NodeError>;

    /// The names of the segments and tombstones that it has of an hour.
    fn list_segments(&self, collection: &Collection, hour: Hour) -> Result<Listing<'_>, NodeError>;

    /// The paths of the files that it has in an extra directory. [`Trouble::Gone`] if it is so old
    /// that it can't list them.
    fn list_extras(&self, dir: &ExtraDir) -> Result<Listing<'_>, NodeError>;

    /// Begins to read a file. [`Trouble::Gone`] if it isn't there any more.
    fn open(&self, target: &Target) -> Result<Content<'_>, NodeError>;

    /// Ends the requests under way, and fails all later ones.
    fn shut_down(&self);
}

/// The content of a file, as a node sends it.
pub struct Content<'a> {
    /// Yields [`NodeError`]s, as [`NodeError::from`] takes them back out of an [`io::Error`].
    pub reader: Box<dyn Read + 'a>,
    /// The length in bytes that the node announced.
    pub length: Option<u64>,
    /// Whether the content just ends when the connection does, so that one which was cut off
    /// looks whole.
    pub open_ended: bool,
}

/// How a request failed, by what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The node can't be reached at present. It may be restarting.
    Unreachable,
    /// The node kept silent for as long as is borne.
    Silent,
    /// The node is there, but asks to be left alone for a while.
    Busy(Option<Duration>),
    /// The node can't be used at all, and trying again won't help.
    Unusable,
    /// This request failed in passing: another try may do.
    Broken,
    /// This request won't succeed on this node.
    Refused,
    /// What the node sent is not what its name says.
    Corrupt,
    /// The node doesn't have it (any more).
    Gone,
}

/// A request that failed, and what happened. Whoever reports it says what was asked, of whom.
#[derive(Clone, Debug)]
pub struct NodeError {
    /// What follows from it.
    pub trouble: Trouble,
    /// Whether the node has answered all the same.
    pub answered: bool,
    what: String,
}

impl NodeError {
    /// A failure of this kind, told by a clause such as `timed out after 5s`.
    pub fn new(trouble: Trouble, what: impl Into<String>) -> NodeError {
        NodeError { trouble, answered: false, what: what.into() }
    }

    /// The same for an answer that is no good.
    pub fn answered(trouble: Trouble, what: impl Into<String>) -> NodeError {
        NodeError { answered: true, ..NodeError::new(trouble, what) }
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for NodeError {}

impl From<NodeError> for io::Error {
    fn from(error: NodeError) -> Self {
        io::Error::other(error)
    }
}

impl From<io::Error> for NodeError {
    fn from(error: io::Error) -> Self {
        error
            .downcast::<NodeError>()
            .unwrap_or_else(|e| NodeError::new(Trouble::Broken, e.to_string()))
    }
}

/// What a node lists: names, of which nothing is known yet.
#[derive(Debug)]
pub enum Listing<'a> {
    /// A JSON list of strings, as it came.
    Json(Vec<u8>),
    /// The same, in the one buffer that a node has for large ones.
    LargeJson(MutexGuard<'a, Vec<u8>>),
    /// Names read from a directory.
    Names(Vec<String>),
}

impl Listing<'_> {
    /// Calls back with each name, or with `None` for one that is no Unicode, so can't be the name
    /// of anything in an archive. Fails if the listing isn't a list of strings to its end; what
    /// was called back with before counts all the same.
    pub fn for_each(&self, each: impl FnMut(Option<&str>)) -> Result<(), NodeError> {
        match self {
            Listing::Json(text) => parse_names(text, each),
            Listing::LargeJson(text) => parse_names(text, each),
            Listing::Names(names) => {
                names.iter().map(|name| Some(name.as_str())).for_each(each);
                Ok(())
            }
        }
    }
}

fn parse_names(text: &[u8], each: impl FnMut(Option<&str>)) -> Result<(), NodeError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = json.deserialize_seq(Names(each)).and_then(|()| json.end());
    read.map_err(|e| {
        // One that just ends may have been cut short.
        let (trouble, hint) = match e.is_eof() {
            true => (Trouble::Broken, ""),
            false => (Trouble::Refused, " (is the node's URL right?)"),
        };
        NodeError::answered(trouble, format!("the answer is no JSON list of names: {e}{hint}"))
    })
}

/// Visits a list of strings without keeping them.
struct Names<F>(F);

impl<'de, F: FnMut(Option<&str>)> Visitor<'de> for Names<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut names: A) -> Result<(), A::Error> {
        while names.next_element_seed(Name(&mut self.0))?.is_some() {}
        Ok(())
    }
}

/// One string of the list. It is read as bytes, since nodes write file names that are no UTF-8 as
/// lone surrogates, and one such name must not spoil the list.
struct Name<'a, F>(&'a mut F);

impl<'de, F: FnMut(Option<&str>)> serde::de::DeserializeSeed<'de> for Name<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'de, F: FnMut(Option<&str>)> Visitor<'de> for Name<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<(), E> {
        (self.0)(str::from_utf8(name).ok());
        Ok(())
    }

    // serde_json reads a list of numbers as bytes too, if asked for bytes: not ours.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("expected a name, found a list"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &[u8]) -> Result<Vec<Option<String>>, String> {
        let mut names = Vec::new();
        let listing = Listing::Json(json.to_vec());
        let read = listing.for_each(|name| names.push(name.map(String::from)));
        read.map(|()| names).map_err(|e| e.to_string())
    }

    #[test]
    fn a_list_of_strings_is_read() {
        assert_eq!(names(b"[]").unwrap(), []);
        let read = names(b" [\"a\", \"b\\u00e9\\n\"] ").unwrap();
        assert_eq!(read, [Some("a".into()), Some("bé\n".into())]);
    }

    #[test]
    fn a_name_that_is_no_unicode_spoils_only_itself() {
        let read = names(b"[\"a\", \"x\\udc80\", \"\xff\", \"b\"]").unwrap();
        assert_eq!(read, [Some("a".into()), None, None, Some("b".into())]);
    }

    #[test]
    fn anything_else_is_an_error() {
        for json in [
            &b""[..],
            b"{}",
            b"null",
            b"[1]",
            b"[[\"a\"]]",
            b"[\"a\"",
            b"[\"a\"] x",
            b"<html>",
            b"[{\"a\":1}]",
            b"\"a\"",
            b"[null]",
            b"[[1,2]]",
        ] {
            assert!(names(json).is_err(), "{}", String::from_utf8_lossy(json));
        }
        let deep = "[".repeat(100_000);
        assert!(names(deep.as_bytes()).is_err());
    }
}
