//! Nodes: the archives that a pass fetches from, over HTTP or in a directory. Nothing a node says
//! is trusted. Names in a listing are plain text until they are parsed; the callers check the
//! content that they fetch.

mod addresses;
mod connect;
pub mod directory;
pub mod exchange;
pub mod http;
mod line;
mod listing;
mod pace;
mod proxy;
mod response;
mod socks;
mod tls;
pub mod url;

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use rustix::io::Errno;

use crate::error::plain;
use crate::target::{Directory, Target};

pub use listing::{Listing, looks_like_a_page};

/// The value of the `User-Agent` header.
const USER_AGENT: &str = concat!("backfiller/", env!("CARGO_PKG_VERSION"));

/// An archive that can be listed and read.
pub trait Node: Send + Sync {
    /// Lists the names in a directory. The list is empty if the node doesn't have the directory.
    ///
    /// # Errors
    ///
    /// Fails if the request fails. The trouble is [`Trouble::Gone`] if the node is too old to list
    /// extra directories.
    fn list(&self, directory: &Directory) -> Result<Listing<'_>, NodeError>;

    /// Whether a path that should be a directory, or one above it, turns out to be a file. Nodes list
    /// the files among their streams and variants too, and fail to list what is in them.
    fn is_file(&self, _: &Directory) -> bool {
        false
    }

    /// Opens a file for reading from byte `from`. [`Content::from`] is where the content actually
    /// starts.
    ///
    /// # Errors
    ///
    /// Fails if the request fails. The trouble is [`Trouble::Gone`] if the file no longer exists.
    fn open(&self, target: &Target, from: u64) -> Result<Content<'_>, NodeError>;

    /// The size of a file in bytes, if it can be found without requesting the file.
    fn size(&self, _: &Target) -> Option<u64> {
        None
    }

    /// When the last byte arrived from the node.
    fn last_heard(&self) -> Option<Instant>;

    /// How far our clock was ahead of the node's when the node last sent a date; negative if it was
    /// behind. A directory has no clock of its own.
    fn clock_ahead(&self) -> Option<TimeDelta>;

    /// Aborts the requests under way. Later requests open new connections.
    fn cut(&self);
}

/// The content of a file as a node sends it.
pub struct Content<'a> {
    /// Its errors wrap a [`NodeError`], which [`NodeError::from`] takes back out of the
    /// [`io::Error`].
    pub reader: Box<dyn Read + 'a>,
    /// The offset of the first byte: the one requested, or 0 if the node sends the whole file
    /// instead.
    pub from: u64,
    /// The length of the whole file in bytes, if the node announced it.
    pub length: Option<u64>,
    /// Whether only the end of the connection marks the end of the content, so that a truncated
    /// transfer looks complete.
    pub open_ended: bool,
    /// Whether the node can send its files from any byte on, as far as its response tells.
    pub takes_ranges: bool,
}

/// Why a request failed, classified by what the scheduler should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The node can't be reached at the moment. It may be restarting.
    Unreachable,
    /// The node sent nothing, or almost nothing, for the whole timeout.
    Silent,
    /// The node asked not to be contacted for a while.
    Busy(Option<Duration>),
    /// The node can't be used at all. Retrying won't help.
    Unusable,
    /// A temporary failure of this request. Retrying may help.
    Broken,
    /// The transfer was cut off, but got further into the file than any attempt before it. The part
    /// received is kept, and the next request resumes from there, whichever node it goes to.
    Cut,
    /// This machine lacks a resource that the request needs, such as sockets or threads. Not the
    /// node's fault.
    Local,
    /// This request can't succeed on this node.
    Refused,
    /// The content doesn't match the name of the file.
    Corrupt,
    /// The node doesn't have the file, or no longer has it.
    Gone,
}

/// A failed request. Reports add the node and what was requested.
#[derive(Clone, Debug)]
pub struct NodeError {
    /// The class of the failure.
    pub trouble: Trouble,
    /// Whether the node responded at all.
    pub answered: bool,
    what: String,
}

impl NodeError {
    /// A failure of this class, described by a clause such as `timed out after 5 s`.
    pub fn new(trouble: Trouble, what: impl Into<String>) -> NodeError {
        NodeError { trouble, answered: false, what: what.into() }
    }

    /// As [`NodeError::new`], for a node that did respond.
    pub fn answered(trouble: Trouble, what: impl Into<String>) -> NodeError {
        NodeError { answered: true, ..NodeError::new(trouble, what) }
    }
}

/// Recognizes errors that mean this machine has run out of a resource.
fn local(error: &io::Error) -> Option<NodeError> {
    let what = match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => "this machine has too many open files (try a lower --jobs)",
        Errno::NOBUFS | Errno::NOMEM => "this machine is out of memory",
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
                    "the connection was closed early".into()
                }
                _ => plain(&e),
            };
            local(&e).unwrap_or_else(|| NodeError::new(Trouble::Broken, what))
        })
    }
}
