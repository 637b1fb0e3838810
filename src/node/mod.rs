//! The other archives that a pass fetches from, whatever they are behind. A node's word is never
//! trusted: what it lists are texts until they are parsed, what it sends is checked by whoever
//! asked.

mod addresses;
mod answer;
mod connect;
pub mod directory;
pub mod exchange;
pub mod http;
mod line;
mod listing;
mod pace;
mod proxy;
mod socks;
mod tls;
pub mod url;

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::error::plain;
use chrono::TimeDelta;

use crate::target::{Directory, Target};

pub use listing::{Listing, looks_like_a_page};

/// What we call ourselves.
const USER_AGENT: &str = concat!("backfiller/", env!("CARGO_PKG_VERSION"));

/// An archive that can be listed and read.
pub trait Node: Send + Sync {
    /// The names in a directory, none if the node doesn't have it. [`Trouble::Gone`] for an extra
    /// directory if the node is so old that it can't list them.
    fn list(&self, directory: &Directory) -> Result<Listing<'_>, NodeError>;

    /// Begins to read a file at byte `from`; [`Content::from`] says where it really begins.
    /// [`Trouble::Gone`] if the file isn't there any more.
    fn open(&self, target: &Target, from: u64) -> Result<Content<'_>, NodeError>;

    /// How large a file is, in bytes, if that can be known without asking for the file.
    fn size(&self, _: &Target) -> Option<u64> {
        None
    }

    /// When a byte last came from it.
    #[allow(dead_code)] // The scheduler will ask.
    fn last_heard(&self) -> Option<Instant>;

    /// How far our clock was ahead of its clock when it last told the time, or behind if negative. A
    /// directory has no clock but ours.
    fn clock_ahead(&self) -> Option<TimeDelta>;

    /// Ends the requests under way. Later ones begin anew.
    fn cut(&self);
}

/// The content of a file, as a node sends it.
pub struct Content<'a> {
    /// Yields [`NodeError`]s, as [`NodeError::from`] takes them back out of an [`io::Error`].
    pub reader: Box<dyn Read + 'a>,
    /// The byte of the file that comes first: the one that was asked for, or 0 if the node sends
    /// the whole file all the same.
    pub from: u64,
    /// The length in bytes of the whole file, if the node announced it.
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
    /// The transfer broke off, but it brought the file further than any attempt before. What came
    /// is kept, so the next request goes on from there, whichever node it asks.
    Cut,
    /// This machine lacks what the request takes (sockets, threads). Not the node's fault.
    Local,
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

/// What this machine has too few of, if that is why it fails.
fn local(error: &io::Error) -> Option<NodeError> {
    let what = match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => {
            "this machine has too many open files (fewer --jobs need fewer)"
        }
        Errno::NOBUFS | Errno::NOMEM => "this machine has too little memory left",
        _ => return None,
    };
    Some(NodeError::new(Trouble::Local, what))
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
        use io::ErrorKind::*;
        error.downcast::<NodeError>().unwrap_or_else(|e| {
            let what = match e.kind() {
                UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe => {
                    "the connection was closed too early".into()
                }
                _ => plain(&e),
            };
            local(&e).unwrap_or_else(|| NodeError::new(Trouble::Broken, what))
        })
    }
}
