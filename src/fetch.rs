//! One file from one node into the archive: streamed to a staged file, hashed as it passes, and
//! committed only if it is what its name says (an extra file without a hash: only if it came whole).

use std::fmt;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::archive::{Archive, Commit, Committed, Landing};
use crate::error::LocalError;
use crate::node::{Content, Node, NodeError, Trouble};
use crate::progress::Progress;
use crate::segment::SegmentHash;
use crate::stop::{Stop, Superseded};
use crate::target::{Check, Target};

/// What a worker needs to fetch files.
pub struct Fetcher<'a> {
    /// The number of the node that they come from.
    pub node: usize,
    /// Where they go.
    pub archive: &'a Archive,
    /// How fast they may come, all workers together.
    pub throttle: Option<&'a Throttle>,
    /// The largest segment that is taken, in bytes.
    pub max_size: u64,
    /// Is told of the bytes as they come.
    pub progress: &'a Progress,
    /// Ends the fetch.
    pub stop: &'a Stop,
}

/// A file that is to be fetched.
#[derive(Debug)]
pub struct Request<'a> {
    /// Which one.
    pub target: &'a Target,
    /// How it gets its name.
    pub how: Commit,
    /// When it was last looked whether it's here, or deleted on purpose.
    pub looked: Instant,
    /// Set when nobody needs it any more.
    pub superseded: &'a Superseded,
}

impl Request<'_> {
    /// Whether other writers have had the time to bring it, or to delete it, since that was looked
    /// up. Looking costs little, but twenty thousand small segments in two seconds feel it.
    fn is_old(&self) -> bool {
        self.looked.elapsed() > Duration::from_secs(1)
    }
}

/// What became of a file that was to be fetched.
#[derive(Debug)]
pub enum Fetched<'a> {
    /// It was fetched; so many bytes. Until this is dropped, there is time to tell of it.
    Landed(u64, Landing<'a>),
    /// Another writer has brought it meanwhile.
    WasHere,
    /// It was found to have been deleted on purpose, and was dropped.
    Forbidden,
}

/// Why a file was not fetched.
#[derive(Debug)]
pub enum FetchError {
    /// The node failed to give it.
    Node(NodeError),
    /// This machine failed to take it.
    Local(LocalError),
    /// The pass is to end.
    Stopped,
    /// Nobody needs it from this node any more.
    Superseded,
}

impl From<NodeError> for FetchError {
    fn from(error: NodeError) -> Self {
        FetchError::Node(error)
    }
}

impl From<LocalError> for FetchError {
    fn from(error: LocalError) -> Self {
        FetchError::Local(error)
    }
}

impl<'a> Fetcher<'a> {
    /// Fetches a file. Whatever fails, nothing is left of it.
    pub fn fetch(
        &self,
        node: &dyn Node,
        request: &Request<'_>,
        buffer: &mut [u8],
    ) -> Result<Fetched<'a>, FetchError> {
        let Request { target, how, .. } = *request;
        if how == Commit::New && request.is_old() && self.archive.has(target) {
            return Ok(Fetched::WasHere);
        }
        let mut content = node.open(target)?;
        if content.length.is_some_and(|length| length > self.max_size) {
            return Err(self.too_large().into());
        }
        let staged = self.archive.stage(target)?;
        let mut staged = staged.ok_or(FetchError::Stopped)?;
        let mut hash = Sha256::new();
        let mut size = 0;
        loop {
            let read = self.read(&mut content, buffer)?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > self.max_size {
                return Err(self.too_large().into());
            }
            if request.superseded.is_set() {
                return Err(FetchError::Superseded);
            }
            hash.update(&buffer[..read]);
            staged.write(&buffer[..read])?;
            self.progress.add_bytes(Some(self.node), read as u64);
        }
        if request.superseded.is_set() {
            return Err(FetchError::Superseded);
        }
        check(&content, size, SegmentHash(hash.finalize().into()), target)?;
        if request.is_old() && self.archive.forbids(target) {
            return Ok(Fetched::Forbidden);
        }
        match staged.commit(how)? {
            Committed::Landed(landing) => Ok(Fetched::Landed(size, landing)),
            Committed::WasHere => Ok(Fetched::WasHere),
            Committed::Abandoned => Err(FetchError::Stopped),
        }
    }

    /// Creates a tombstone, in the same way as a file that was fetched.
    pub fn bury(&self, tombstone: &Target) -> Result<Fetched<'a>, FetchError> {
        let staged = self.archive.stage(tombstone)?.ok_or(FetchError::Stopped)?;
        match staged.commit(Commit::New)? {
            Committed::Landed(landing) => Ok(Fetched::Landed(0, landing)),
            Committed::WasHere => Ok(Fetched::WasHere),
            Committed::Abandoned => Err(FetchError::Stopped),
        }
    }

    fn read(&self, content: &mut Content<'_>, buffer: &mut [u8]) -> Result<usize, FetchError> {
        if self.stop.is_stopped() {
            return Err(FetchError::Stopped);
        }
        let read = loop {
            match content.reader.read(buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(NodeError::from)?,
            }
        };
        if let Some(throttle) = self.throttle {
            self.stop.sleep_until(throttle.take(read as u64, Instant::now()));
        }
        Ok(read)
    }

    fn too_large(&self) -> NodeError {
        let what = format!("larger than the {} bytes of --max-segment-size", self.max_size);
        NodeError::new(Trouble::Refused, what)
    }
}

/// Checks that what came is the whole of what was asked for.
fn check(
    content: &Content<'_>,
    size: u64,
    hash: SegmentHash,
    target: &Target,
) -> Result<(), NodeError> {
    if target.check() == Check::Hash(hash) {
        return Ok(());
    }
    if content.length.is_some_and(|length| size < length) {
        return Err(NodeError::new(Trouble::Broken, "it was cut short"));
    }
    // Nothing tells the end of such an answer from a cut in it, so it may do better next time.
    let trouble = match content.open_ended {
        true => Trouble::Broken,
        false => Trouble::Corrupt,
    };
    match target.check() {
        Check::Hash(_) => {
            let what = format!("its content has another hash ({hash}, {size} bytes)");
            Err(NodeError::new(trouble, what))
        }
        Check::Length if content.open_ended => {
            let what = "nothing tells whether it came whole: no length, and no hash in its name";
            Err(NodeError::new(Trouble::Refused, what))
        }
        Check::Length => Ok(()),
    }
}

/// Spaces out what all workers together read, to keep to a rate.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// When what was taken so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    /// A limit of so many bytes per second.
    pub fn new(bytes_per_second: u64) -> Throttle {
        Throttle { bytes_per_second: bytes_per_second.max(1), paid: Mutex::new(None) }
    }

    /// Takes so many bytes, and says until when to wait before taking more.
    fn take(&self, bytes: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paid.map_or(now, |paid| paid.max(now)) + cost;
        *paid = Some(until);
        until
    }
}

impl fmt::Debug for Fetcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_spaces_out_all_that_is_taken() {
        let throttle = Throttle::new(1000);
        let now = Instant::now();
        let seconds = Duration::from_secs;
        assert_eq!(throttle.take(1000, now), now + seconds(1));
        assert_eq!(throttle.take(2000, now), now + seconds(3));
        // What was not used meanwhile is not saved up.
        assert_eq!(throttle.take(1000, now + seconds(10)), now + seconds(11));
    }
}
