//! Fetches one file from one node into the archive. The file is streamed to a staged file, hashed
//! on the way, and committed only if it matches the hash in its name (an extra file without a hash:
//! only if it is complete). An interrupted transfer leaves what it received to the next one; see
//! [`Partials`].

use std::fmt;
use std::time::{Duration, Instant};

use crate::archive::{Archive, Commit, Committed, Landing};
use crate::error::LocalError;
use crate::node::{Content, Node, NodeError, Trouble, looks_like_a_page};
use crate::partials::{Partial, Partials};
use crate::stop::Stop;
use crate::target::{Check, Target};
use crate::throttle::Throttle;
use crate::transfer::Transfer;

/// How the error of a file with wrong content begins. The hash that follows differs each time, so
/// reports that group errors leave it out.
pub const WRONG_HASH: &str = "content does not match its hash";

/// What a worker needs to fetch files. `'p` is the pass, `'a` the archive, which outlives it.
pub struct Fetcher<'p, 'a> {
    /// The number of the node to fetch from.
    pub node: usize,
    /// The archive to fill.
    pub archive: &'a Archive,
    /// The partial files of interrupted transfers.
    pub partials: &'p Partials<'a>,
    /// The rate limits for all nodes together and for this one.
    pub throttles: [Option<&'p Throttle>; 2],
    /// The largest file to accept, in bytes.
    pub max_size: u64,
    /// Called with the number of bytes as they arrive.
    pub arrived: &'p dyn Fn(u64),
    /// Stops the fetch early.
    pub stop: &'p Stop,
}

/// A file to fetch.
#[derive(Debug)]
pub struct FileRequest<'a> {
    /// The file to store.
    pub target: &'a Target,
    /// The file to ask the node for: the same, or another name of the same recording.
    pub source: &'a Target,
    /// How to commit it.
    pub how: Commit,
    /// When the archive was last checked for it and its tombstone.
    pub looked: Instant,
    /// Its progress, and whether it is still needed.
    pub transfer: &'a Transfer,
}

impl FileRequest<'_> {
    /// Whether other writers have had time to add or delete the file since the archive was
    /// checked. Checking again is cheap, but not when twenty thousand small segments arrive in two
    /// seconds.
    fn is_old(&self) -> bool {
        self.looked.elapsed() > Duration::from_secs(1)
    }
}

/// The outcome of a fetch.
#[derive(Debug)]
pub enum Fetched<'a> {
    /// It was fetched, with this many bytes. The archive isn't closed before this is dropped, which
    /// leaves time to report the file.
    Landed(u64, Landing<'a>),
    /// Another writer has added it meanwhile.
    WasHere,
    /// It has a tombstone by now, so it was dropped.
    Forbidden,
}

/// Why a file was not fetched.
#[derive(Debug)]
pub enum FetchError {
    /// The node failed to deliver it.
    Node(NodeError),
    /// This machine failed to store it.
    Local(LocalError),
    /// The pass is being stopped.
    Stopped,
    /// It is no longer needed from this node.
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
    /// Fetches a file. The part received by an interrupted transfer is kept for the next attempt;
    /// any other failure leaves nothing behind.
    ///
    /// # Errors
    ///
    /// Fails if the node or this machine fails, the pass is stopped, or the file is no longer
    /// needed.
    pub fn fetch(
        &self,
        node: &dyn Node,
        request: &FileRequest<'_>,
        buffer: &mut [u8],
    ) -> Result<Fetched<'a>, FetchError> {
        let FileRequest { target, how, .. } = *request;
        request.transfer.await_before();
        // The transfer that this one continues may have delivered the file.
        let may_be_here = request.is_old() || request.transfer.is_second();
        if how == Commit::New && may_be_here && self.archive.has(target) {
            return Ok(Fetched::WasHere);
        }
        let kept = match target.check() {
            Check::Hash(_) => self.partials.take(target, self.node),
            Check::Length => None,
        };
        let received = self.receive(node, request, kept, buffer);
        let fetched = received.and_then(|incoming| self.land(request, incoming));
        request.transfer.leave();
        fetched
    }

    /// Commits a file that was received and checked.
    fn land(
        &self,
        request: &FileRequest<'_>,
        incoming: Partial<'a>,
    ) -> Result<Fetched<'a>, FetchError> {
        let FileRequest { target, how, .. } = *request;
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

    /// Receives a complete file and checks it. Resumes where an earlier attempt was interrupted, if
    /// the node can start there.
    fn receive(
        &self,
        node: &dyn Node,
        request: &FileRequest<'_>,
        kept: Option<Partial<'a>>,
        buffer: &mut [u8],
    ) -> Result<Partial<'a>, FetchError> {
        let target = request.target;
        let mut content = match open(node, request, kept.as_ref().map_or(0, |kept| kept.size)) {
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
        request.transfer.note_ranges(content.takes_ranges);
        let (mut incoming, shelved) = self.begin(target, content.from, kept)?;
        let came = self.read_all(&mut content, &mut incoming, request, buffer);
        let is_whole = |incoming: &Partial<'_>| target.check() == Check::Hash(incoming.hash());
        match came.and_then(|()| check(&content, &incoming, target)) {
            Ok(()) => Ok(incoming),
            // The content is complete; only the end of its framing is missing.
            Err(FetchError::Node(_)) if is_whole(&incoming) => Ok(incoming),
            Err(FetchError::Node(error))
                if error.trouble == Trouble::Corrupt
                    && incoming.is_pieced_together()
                    && self.partials.spoil(target) =>
            {
                drop(incoming);
                self.receive(node, request, None, buffer)
            }
            Err(FetchError::Node(error)) => {
                Err(self.keep_after(error, target, longest(incoming, shelved)).into())
            }
            Err(FetchError::Superseded) if request.transfer.is_handed_over() => {
                if is_whole(&incoming) {
                    return Ok(incoming);
                }
                self.partials.keep(target, longest(incoming, shelved));
                Err(FetchError::Superseded)
            }
            Err(error) => Err(error),
        }
    }

    /// The file that the content from byte `from` on is appended to: the one that was kept, if it
    /// ends there, or else a new one, beside which the kept one is returned.
    fn begin(
        &self,
        target: &Target,
        from: u64,
        kept: Option<Partial<'a>>,
    ) -> Result<(Partial<'a>, Option<Partial<'a>>), FetchError> {
        match kept {
            Some(mut kept) if kept.size == from => {
                kept.continue_from(self.node);
                Ok((kept, None))
            }
            kept => {
                let staged = self.archive.stage(target)?.ok_or(FetchError::Stopped)?;
                Ok((Partial::new(staged, self.node), kept))
            }
        }
    }

    /// Keeps what was received before this error, if another attempt may go on from there. Returns
    /// the error, as a [`Trouble::Cut`] if there was progress.
    fn keep_after(
        &self,
        mut error: NodeError,
        target: &Target,
        received: Partial<'a>,
    ) -> NodeError {
        let is_useless = matches!(error.trouble, Trouble::Corrupt | Trouble::Refused);
        if is_useless || target.check() == Check::Length {
            return error;
        }
        let moves = self.partials.keep(target, received);
        if moves && error.trouble == Trouble::Broken {
            error.trouble = Trouble::Cut;
        }
        error
    }

    fn read_all(
        &self,
        content: &mut Content<'_>,
        incoming: &mut Partial<'a>,
        request: &FileRequest<'_>,
        buffer: &mut [u8],
    ) -> Result<(), FetchError> {
        loop {
            let read = self.read(content, buffer)?;
            let came = &buffer[..read];
            let transfer = request.transfer;
            if transfer.is_superseded() && !transfer.is_handed_over() {
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
            if transfer.is_superseded() {
                return Err(FetchError::Superseded);
            }
        }
    }

    /// Creates a tombstone, by the same steps as a fetched file.
    ///
    /// # Errors
    ///
    /// Fails if this machine fails, or the pass is stopped.
    pub fn create_tombstone(&self, tombstone: &Target) -> Result<Fetched<'a>, FetchError> {
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

/// Opens a file at this byte, or at its start if the node can't start there.
fn open<'n>(
    node: &'n dyn Node,
    request: &FileRequest<'_>,
    from: u64,
) -> Result<Content<'n>, NodeError> {
    match node.open(request.source, from) {
        // Some servers, and what stands before them, fail on any request for a part, even if they
        // say that they take it.
        Err(e) if from > 0 && is_about_the_part(&e, request.transfer) => {
            let whole = node.open(request.source, 0)?;
            Ok(Content { takes_ranges: false, ..whole })
        }
        opened => opened,
    }
}

/// Whether a request for part of a file may have failed because it was one. Silence may have that
/// cause, too, where the node only helps another one: it must not be given up for that.
fn is_about_the_part(error: &NodeError, transfer: &Transfer) -> bool {
    match error.trouble {
        Trouble::Refused | Trouble::Gone | Trouble::Broken => true,
        Trouble::Silent => transfer.is_second(),
        _ => false,
    }
}

/// The longer of two partial files.
fn longest<'a>(incoming: Partial<'a>, shelved: Option<Partial<'a>>) -> Partial<'a> {
    match shelved {
        Some(shelved) if shelved.size > incoming.size => shelved,
        _ => incoming,
    }
}

/// Checks that the complete and correct content was received.
fn check(content: &Content<'_>, incoming: &Partial<'_>, target: &Target) -> Result<(), FetchError> {
    let (hash, size) = (incoming.hash(), incoming.size);
    if target.check() == Check::Hash(hash) {
        return Ok(());
    }
    if content.length.is_some_and(|length| size < length) {
        return Err(NodeError::new(Trouble::Broken, "the transfer was cut short").into());
    }
    // In such a response a cut looks like the end, so a retry may help.
    let trouble = if content.open_ended { Trouble::Broken } else { Trouble::Corrupt };
    let what = match target.check() {
        Check::Hash(_) if incoming.is_page => "the response is a web page, not the file".to_owned(),
        Check::Hash(_) => {
            format!("{WRONG_HASH} (got {hash}, {size} bytes)")
        }
        Check::Length if content.open_ended => {
            let what = "it may be incomplete: it has neither a length nor a hash in its name";
            return Err(NodeError::new(Trouble::Refused, what).into());
        }
        Check::Length => return Ok(()),
    };
    Err(NodeError::new(trouble, what).into())
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
    use std::sync::Mutex;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::node::Listing;
    use crate::segment::{Collection, Medium, SegmentHash, SegmentName};
    use crate::target::Directory;

    /// A node that cuts each transfer after this many bytes.
    struct Cutting {
        content: Vec<u8>,
        cut_after: usize,
        knows_ranges: bool,
        refuses_ranges: bool,
        /// Where each request started, and how many bytes it got.
        asked: Mutex<Vec<(u64, usize)>>,
    }

    impl Cutting {
        fn new(content: &[u8], cut_after: usize) -> Cutting {
            let (content, asked) = (content.to_vec(), Mutex::default());
            Cutting { content, cut_after, knows_ranges: true, refuses_ranges: false, asked }
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
            if from > 0 && self.refuses_ranges {
                return Err(NodeError::new(Trouble::Refused, "no"));
            }
            let from = if self.knows_ranges { from } else { 0 };
            let rest = &self.content[from as usize..];
            let sent = &rest[..rest.len().min(self.cut_after)];
            self.asked.lock().unwrap().push((from, sent.len()));
            struct Cut(bool);
            impl Read for Cut {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    if self.0 {
                        return Err(NodeError::new(Trouble::Broken, "cut").into());
                    }
                    Ok(0)
                }
            }
            let reader = Box::new(sent.chain(Cut(sent.len() < rest.len())));
            let length = Some(self.content.len() as u64);
            let takes_ranges = self.knows_ranges;
            Ok(Content { reader, from, length, open_ended: false, takes_ranges })
        }

        fn last_heard(&self) -> Option<Instant> {
            None
        }

        fn clock_ahead(&self) -> Option<chrono::TimeDelta> {
            None
        }

        fn cut(&self) {}
    }

    /// A segment to fetch, and an archive to fetch it into.
    struct Situation {
        dir: tempfile::TempDir,
        content: Vec<u8>,
        target: Target,
        transfer: Transfer,
        troubles: RefCell<Vec<Trouble>>,
    }

    impl Situation {
        fn new() -> Situation {
            Situation::of((0..10_000_u32).flat_map(|n| n.to_be_bytes()).collect())
        }

        fn of(content: Vec<u8>) -> Situation {
            let hash = SegmentHash(Sha256::digest(&content).into());
            let name = format!("00:00.0-2.0-full-{hash}.ts");
            let name = SegmentName::parse(&name, Medium::Video).unwrap();
            let (stream, variant) = ("desertbus".parse().unwrap(), "source".parse().unwrap());
            let hour = "2018-11-10T05".parse().unwrap();
            let target = Target::segment(&Collection { stream, variant }, hour, &name);
            let dir = tempfile::tempdir().unwrap();
            let transfer = Transfer::new(Instant::now());
            Situation { dir, content, target, transfer, troubles: RefCell::default() }
        }

        /// Requests the file from these nodes in turn until it lands, or this many attempts have
        /// failed. Returns whether it landed, and checks that nothing else is left.
        fn fetch(&self, nodes: &[&dyn Node], attempts: usize) -> bool {
            let archive = Archive::open(self.dir.path(), false).unwrap();
            let stop = Stop::default();
            let partials = Partials::default();
            let request = FileRequest {
                target: &self.target,
                source: &self.target,
                how: Commit::New,
                looked: Instant::now(),
                transfer: &self.transfer,
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
    fn a_transfer_that_was_cut_is_resumed() {
        let s = Situation::new();
        let node = Cutting::new(&s.content, 15_000);
        assert!(s.fetch(&[&node], 3));
        assert_eq!(node.asked(), [(0, 15_000), (15_000, 15_000), (30_000, 10_000)]);
        assert_eq!(s.troubles(), [Trouble::Cut, Trouble::Cut]);
    }

    #[test]
    fn a_transfer_that_ends_as_it_is_handed_over_lands() {
        let s = Situation::of(b"all of it in one read".to_vec());
        let second = Transfer::after(s.transfer.clone(), Instant::now());
        assert!(s.fetch(&[&Cutting::new(&s.content, 50_000)], 1));
        let begun = Instant::now();
        second.await_before();
        assert!(begun.elapsed() < Duration::from_millis(500));
    }

    #[test]
    fn another_node_can_resume_a_transfer() {
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
        // An attempt must get a kilobyte further than the one before; half of one is not enough.
        assert_eq!(s.troubles(), [Trouble::Broken; 4]);
    }

    #[test]
    fn a_node_without_ranges_that_is_cut_makes_no_progress() {
        let s = Situation::new();
        let node = Cutting { knows_ranges: false, ..Cutting::new(&s.content, 15_000) };
        assert!(!s.fetch(&[&node], 3));
        assert_eq!(s.troubles(), [Trouble::Cut, Trouble::Broken, Trouble::Broken]);
        let whole = Cutting::new(&s.content, 50_000);
        // A node that knows ranges can still resume what it sent.
        assert!(s.fetch(&[&node, &whole], 2));
        assert_eq!(whole.asked(), [(15_000, 25_000)]);
    }

    #[test]
    fn a_node_that_refuses_ranges_takes_none_whatever_it_says() {
        let s = Situation::new();
        let cut = Cutting::new(&s.content, 15_000);
        let refuses = Cutting { refuses_ranges: true, ..Cutting::new(&s.content, 50_000) };
        assert!(s.fetch(&[&cut, &refuses], 2));
        assert_eq!(refuses.asked(), [(0, 40_000)]);
        assert!(!s.transfer.takes_ranges());
    }

    #[test]
    fn a_wrong_file_from_several_nodes_is_fetched_again_from_one() {
        let s = Situation::new();
        let lies = Cutting::new(&[b'x'; 40_000], 15_000);
        let good = Cutting::new(&s.content, 50_000);
        assert!(s.fetch(&[&lies, &good], 2));
        assert_eq!(good.asked(), [(15_000, 25_000), (0, 40_000)]);
    }

    #[test]
    fn a_node_that_keeps_sending_a_wrong_start_stops_no_other() {
        for (liar, other, attempts) in [(2_000, 15_000, 12), (39_000, 5_000, 24)] {
            let s = Situation::new();
            let lies = Cutting::new(&[b'x'; 40_000], liar);
            let good = Cutting::new(&s.content, other);
            assert!(s.fetch(&[&lies, &good], attempts), "{:?}", s.troubles());
            // Each piece of the good one is progress.
            let mut of_good = s.troubles().into_iter().skip(1).step_by(2);
            assert!(of_good.all(|trouble| trouble == Trouble::Cut), "{:?}", s.troubles());
            // Even the liar alone comes to an end.
            let s = Situation::new();
            assert!(!s.fetch(&[&lies], 60));
            assert!(s.troubles().contains(&Trouble::Corrupt));
        }
    }
}
