//! One file from one node into the archive: streamed to a staged file, hashed as it passes, and
//! committed only if it is what its name says (an extra file without a hash: only if it came whole).
//! A transfer that breaks off leaves what it brought to the next one, see [`Partials`].

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::archive::{Archive, Commit, Committed, Landing};
use crate::error::LocalError;
use crate::lock::lock;
use crate::node::{Content, Node, NodeError, Trouble, looks_like_a_page};
use crate::partials::{Partial, Partials};
use crate::stop::Stop;
use crate::target::{Check, Target};
use crate::transfer::Transfer;

/// What a worker needs to fetch files. `'p` is the pass, `'a` the archive, which outlives it.
pub struct Fetcher<'p, 'a> {
    /// The number of the node that they come from.
    pub node: usize,
    /// Where they go.
    pub archive: &'a Archive,
    /// What earlier transfers have left.
    pub partials: &'p Partials<'a>,
    /// How fast they may come, from all nodes together and from this one.
    pub throttles: [Option<&'p Throttle>; 2],
    /// The largest segment that is taken, in bytes.
    pub max_size: u64,
    /// Called with the bytes as they come.
    pub arrived: &'p dyn Fn(u64),
    /// Ends the fetch.
    pub stop: &'p Stop,
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
    /// How it goes, and whether anybody still needs it.
    pub transfer: &'a Transfer,
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

impl<'a> Fetcher<'_, 'a> {
    /// Fetches a file. What breaks off is kept for the next attempt; whatever else fails, nothing
    /// is left of it.
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
        let kept = match target.check() {
            Check::Hash(_) => self.partials.take(target, self.node),
            Check::Length => None,
        };
        let incoming = self.receive(node, request, kept, buffer)?;
        if request.is_old() && self.archive.forbids(target) {
            return Ok(Fetched::Forbidden);
        }
        let size = incoming.size;
        let committed = incoming.staged.commit(how)?;
        self.partials.settle(target);
        match committed {
            Committed::Landed(landing) => Ok(Fetched::Landed(size, landing)),
            Committed::WasHere => Ok(Fetched::WasHere),
            Committed::Abandoned => Err(FetchError::Stopped),
        }
    }

    /// Receives a file to its end, and checks it: from where an earlier attempt broke off, if the
    /// node can begin there.
    fn receive(
        &self,
        node: &dyn Node,
        request: &Request<'_>,
        kept: Option<Partial<'a>>,
        buffer: &mut [u8],
    ) -> Result<Partial<'a>, FetchError> {
        let target = request.target;
        let mut content = match node.open(target, kept.as_ref().map_or(0, |kept| kept.size)) {
            Ok(content) => content,
            Err(e) => {
                if let Some(kept) = kept {
                    self.partials.keep(target, kept);
                }
                return Err(e.into());
            }
        };
        if content.length.is_some_and(|length| length > self.max_size) {
            return Err(self.too_large().into());
        }
        request.transfer.expect(content.length.map(|length| length.saturating_sub(content.from)));
        let (mut incoming, shelved) = match kept {
            Some(mut kept) if kept.size == content.from => {
                kept.go_on(self.node);
                (kept, None)
            }
            kept => {
                let staged = self.archive.stage(target)?.ok_or(FetchError::Stopped)?;
                (Partial::new(staged, self.node), kept)
            }
        };
        let came = self.read_all(&mut content, &mut incoming, request, buffer);
        let mut error = match came.and_then(|()| check(&content, &incoming, target)) {
            Ok(()) => return Ok(incoming),
            // Nothing but the end of its framing is missing.
            Err(FetchError::Node(_)) if target.check() == Check::Hash(incoming.hash()) => {
                return Ok(incoming);
            }
            Err(FetchError::Node(error)) => error,
            Err(error) => return Err(error),
        };
        match error.trouble {
            Trouble::Corrupt if incoming.is_pieced_together() && self.partials.spoil(target) => {
                drop(incoming);
                self.receive(node, request, None, buffer)
            }
            Trouble::Corrupt | Trouble::Refused => Err(error.into()),
            _ if target.check() == Check::Length => Err(error.into()),
            trouble => {
                let longest = match shelved {
                    Some(shelved) if shelved.size > incoming.size => shelved,
                    _ => incoming,
                };
                let moves = self.partials.keep(target, longest);
                if moves && trouble == Trouble::Broken {
                    error.trouble = Trouble::Cut;
                }
                Err(error.into())
            }
        }
    }

    fn read_all(
        &self,
        content: &mut Content<'_>,
        incoming: &mut Partial<'a>,
        request: &Request<'_>,
        buffer: &mut [u8],
    ) -> Result<(), FetchError> {
        loop {
            let read = self.read(content, buffer)?;
            let came = &buffer[..read];
            if request.transfer.is_superseded() {
                return Err(FetchError::Superseded);
            }
            if came.is_empty() {
                return Ok(());
            }
            request.transfer.receive(read as u64, Instant::now());
            (self.arrived)(read as u64);
            if incoming.size == 0 {
                incoming.is_page = looks_like_a_page(came);
            }
            if incoming.size + read as u64 > self.max_size {
                return Err(self.too_large().into());
            }
            incoming.append(came)?;
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
        for throttle in self.throttles.into_iter().flatten() {
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
fn check(content: &Content<'_>, incoming: &Partial<'_>, target: &Target) -> Result<(), FetchError> {
    let (hash, size) = (incoming.hash(), incoming.size);
    if target.check() == Check::Hash(hash) {
        return Ok(());
    }
    if content.length.is_some_and(|length| size < length) {
        return Err(NodeError::new(Trouble::Broken, "it was cut short").into());
    }
    // Nothing tells the end of such an answer from a cut in it, so it may do better next time.
    let trouble = match content.open_ended {
        true => Trouble::Broken,
        false => Trouble::Corrupt,
    };
    let what = match target.check() {
        Check::Hash(_) if incoming.is_page => "the answer is a web page, not the file".to_owned(),
        Check::Hash(_) => {
            format!("its content has another hash ({hash}, {size} bytes)")
        }
        Check::Length if content.open_ended => {
            let what = "nothing tells whether it came whole: no length, and no hash in its name";
            return Err(NodeError::new(Trouble::Refused, what).into());
        }
        Check::Length => return Ok(()),
    };
    Err(NodeError::new(trouble, what).into())
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
        let mut paid = lock(&self.paid);
        let until = paid.map_or(now, |paid| paid.max(now)) + cost;
        *paid = Some(until);
        until
    }
}

impl fmt::Debug for Fetcher<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Read;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::node::Listing;
    use crate::segment::{Collection, Medium, SegmentHash, SegmentName};
    use crate::target::Directory;

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

    /// A node that cuts each transfer after so many bytes.
    struct Cutting {
        content: Vec<u8>,
        cut_after: usize,
        knows_ranges: bool,
        /// Where each request began, and how much it got.
        asked: Mutex<Vec<(u64, usize)>>,
    }

    impl Cutting {
        fn new(content: &[u8], cut_after: usize) -> Cutting {
            let (content, asked) = (content.to_vec(), Mutex::default());
            Cutting { content, cut_after, knows_ranges: true, asked }
        }

        fn asked(&self) -> Vec<(u64, usize)> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Node for Cutting {
        fn list(&self, _: &Directory) -> Result<Listing<'_>, NodeError> {
            unreachable!("nothing is listed")
        }

        fn open(&self, _: &Target, from: u64) -> Result<Content<'_>, NodeError> {
            let from = if self.knows_ranges { from } else { 0 };
            let rest = &self.content[from as usize..];
            let sent = &rest[..rest.len().min(self.cut_after)];
            self.asked.lock().unwrap().push((from, sent.len()));
            struct Cut(bool);
            impl Read for Cut {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    match self.0 {
                        true => Err(NodeError::new(Trouble::Broken, "cut").into()),
                        false => Ok(0),
                    }
                }
            }
            let reader = Box::new(sent.chain(Cut(sent.len() < rest.len())));
            let length = Some(self.content.len() as u64);
            Ok(Content { reader, from, length, open_ended: false })
        }

        fn last_heard(&self) -> Option<Instant> {
            None
        }

        fn clock_ahead(&self) -> Option<chrono::TimeDelta> {
            None
        }

        fn cut(&self) {}
    }

    /// What a test fetches a segment with.
    struct Situation {
        dir: tempfile::TempDir,
        content: Vec<u8>,
        target: Target,
        troubles: RefCell<Vec<Trouble>>,
    }

    impl Situation {
        fn new() -> Situation {
            let content: Vec<u8> = (0..10_000_u32).flat_map(|n| n.to_be_bytes()).collect();
            let hash = SegmentHash(Sha256::digest(&content).into());
            let name = format!("00:00.0-2.0-full-{hash}.ts");
            let name = SegmentName::parse(&name, Medium::Video).unwrap();
            let (stream, variant) = ("desertbus".parse().unwrap(), "source".parse().unwrap());
            let hour = "2018-11-10T05".parse().unwrap();
            let target = Target::segment(&Collection { stream, variant }, hour, &name);
            let dir = tempfile::tempdir().unwrap();
            Situation { dir, content, target, troubles: RefCell::default() }
        }

        /// Asks these nodes in turn until one has brought the file, or so many attempts failed.
        /// Returns whether it is here, and nothing else.
        fn fetch(&self, nodes: &[&dyn Node], attempts: usize) -> bool {
            let archive = Archive::open(self.dir.path(), false).unwrap();
            let stop = Stop::default();
            let partials = Partials::default();
            let transfer = Transfer::new(Instant::now());
            let request = Request {
                target: &self.target,
                how: Commit::New,
                looked: Instant::now(),
                transfer: &transfer,
            };
            let landed = (0..attempts).any(|n| {
                let node = n % nodes.len();
                let fetcher = Fetcher {
                    node,
                    archive: &archive,
                    partials: &partials,
                    throttles: [None; 2],
                    max_size: 1 << 20,
                    arrived: &|_| (),
                    stop: &stop,
                };
                match fetcher.fetch(nodes[node], &request, &mut [0; 700]) {
                    Ok(Fetched::Landed(..)) => true,
                    Err(FetchError::Node(e)) => {
                        self.troubles.borrow_mut().push(e.trouble);
                        false
                    }
                    other => panic!("{other:?}"),
                }
            });
            partials.close();
            let files = std::fs::read_dir(self.dir.path().join(self.target.dir())).unwrap();
            assert_eq!(files.count(), usize::from(landed));
            landed
        }

        fn troubles(&self) -> Vec<Trouble> {
            self.troubles.borrow().clone()
        }
    }

    #[test]
    fn a_transfer_that_was_cut_goes_on_from_where_it_stopped() {
        let s = Situation::new();
        let node = Cutting::new(&s.content, 15_000);
        assert!(s.fetch(&[&node], 3));
        assert_eq!(node.asked(), [(0, 15_000), (15_000, 15_000), (30_000, 10_000)]);
        assert_eq!(s.troubles(), [Trouble::Cut, Trouble::Cut]);
    }

    #[test]
    fn another_node_goes_on_with_it() {
        let s = Situation::new();
        let (one, other) = (Cutting::new(&s.content, 15_000), Cutting::new(&s.content, 50_000));
        assert!(s.fetch(&[&one, &other], 2));
        assert_eq!((one.asked(), other.asked()), (vec![(0, 15_000)], vec![(15_000, 25_000)]));
    }

    #[test]
    fn a_cut_that_brings_nothing_new_is_a_failure() {
        let s = Situation::new();
        let node = Cutting::new(&s.content, 500);
        assert!(!s.fetch(&[&node], 4));
        // A kilobyte more than the attempt before would count, half of one doesn't.
        assert_eq!(s.troubles(), [Trouble::Broken; 4]);
    }

    #[test]
    fn a_node_without_ranges_that_is_cut_makes_no_progress() {
        let s = Situation::new();
        let node = Cutting { knows_ranges: false, ..Cutting::new(&s.content, 15_000) };
        assert!(!s.fetch(&[&node], 3));
        assert_eq!(s.troubles(), [Trouble::Cut, Trouble::Broken, Trouble::Broken]);
        let whole = Cutting::new(&s.content, 50_000);
        // What it brought is not lost to the one that knows them.
        assert!(s.fetch(&[&node, &whole], 2));
        assert_eq!(whole.asked(), [(15_000, 25_000)]);
    }

    #[test]
    fn a_whole_that_is_wrong_is_fetched_anew_from_one_node() {
        let s = Situation::new();
        let lies = Cutting::new(&[b'x'; 40_000], 15_000);
        let good = Cutting::new(&s.content, 50_000);
        assert!(s.fetch(&[&lies, &good], 2));
        assert_eq!(good.asked(), [(15_000, 25_000), (0, 40_000)]);
    }

    #[test]
    fn a_node_that_lies_about_the_start_again_and_again_stops_nobody() {
        let s = Situation::new();
        let lies = Cutting::new(&[b'x'; 40_000], 2_000);
        let good = Cutting::new(&s.content, 15_000);
        assert!(s.fetch(&[&lies, &good], 12), "{:?}", s.troubles());
        // And the liar alone comes to an end.
        let s = Situation::new();
        assert!(!s.fetch(&[&lies], 60));
        assert!(s.troubles().contains(&Trouble::Corrupt));
    }
}
