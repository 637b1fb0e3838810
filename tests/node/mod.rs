// Each integration test is a crate of its own and uses only a part of this module.
#![allow(dead_code)]
//! A stream-archive node on loopback, inside the test process: its files, its faults, and the
//! requests it got.
//!
//! A test fills a [`Node`], gives it faults, runs the program against [`Node::url`] and then looks
//! at [`Node::requests`]. The node implements HTTP itself, because it must be able to break the
//! rules: responses and faults on the wire are in `wire`, certificates in `tls`.

pub mod raw;
pub mod tls;
mod wire;

pub use tls::Authority;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use wire::Answer;

// ---- Names ------------------------------------------------------------------------------------

/// The hash that a segment's name carries: SHA-256 in URL-safe base64 without padding.
pub fn hash_of(content: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(content))
}

/// The name of the video segment with this stem (`TIME-DURATION-TYPE`) and content.
pub fn segment_name(stem: &str, content: &[u8]) -> String {
    format!("{stem}-{}.ts", hash_of(content))
}

/// A name without its extension, which a segment and its tombstone share.
fn without_extension(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(start, _)| start)
}

/// How long a test waits for an event.
const LONG: Duration = Duration::from_secs(20);

// ---- Faults and requests ----------------------------------------------------------------------

/// The requests that a fault applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// `/files/STREAM/VARIANT`
    Hours,
    /// `/files/STREAM/VARIANT/HOUR`
    Listing,
    /// Everything below `/segments/`, including extra files.
    Segment,
    /// `/extras/DIR`
    Extras,
    /// Every request.
    Any,
}

impl On {
    /// The kind of a request for `resource`; `Any` if nodes don't know it.
    fn kind_of(resource: &str) -> On {
        match resource.split('/').collect::<Vec<_>>()[..] {
            ["", "files", _, _] => On::Hours,
            ["", "files", _, _, _] => On::Listing,
            ["", "segments", ..] => On::Segment,
            ["", "extras", ..] => On::Extras,
            _ => On::Any,
        }
    }
}

/// A fault. "The correct response" is what the node would send without the fault, which may be a
/// 404. Counts of body bytes are limited to the length of the body.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The correct response, after this delay.
    Delay(Duration),
    /// Reads the request and sends nothing. Like all hangs, it ends with [`Node::release`].
    Hang,
    /// Sends `HTTP/1.1 200 OK\r\nContent-Le`, then falls silent.
    HangInHeaders,
    /// Announces the whole body, sends this many bytes, then falls silent.
    HangInBody(usize),
    /// Announces the whole body, sends this many bytes and closes with FIN.
    CutOff(usize),
    /// Sends this many bytes of the body in whole chunks and closes with FIN, without the last
    /// chunk.
    CutOffChunked(usize),
    /// Sends this many bytes of the body without announcing its length and closes with FIN, so that
    /// the loss can't be seen on the wire.
    CutOffUnannounced(usize),
    /// Reads the request and closes with RST.
    Reset,
    /// Announces the whole body, sends this many bytes and closes with RST. A client that reads
    /// slowly may get fewer: bytes beyond its receive window are lost.
    ResetInBody(usize),
    /// The correct response, except for one byte in the middle of the body. An empty body stays
    /// unchanged.
    Corrupt,
    /// Announces ten bytes more than the body has, and sends ten more.
    Longer,
    /// The correct body in chunks, then endless spaces.
    Endless,
    /// This status, with an HTML body.
    Status(u16),
    /// This status and header (`503` with `Retry-After`, `302` with `Location`), with an HTML body.
    StatusWithHeader(u16, &'static str, String),
    /// 200 with exactly this body, as `text/html`.
    Body(Vec<u8>),
    /// 200 with a gzip-encoded body of endless spaces, even if the client doesn't accept gzip: a
    /// thousand times more than the bytes on the wire.
    GzipBomb,
    /// 200 with `Content-Encoding: gzip` that continues until the client closes, and decompresses
    /// to nothing.
    EmptyGzipBlocks,
    /// This status with an HTML body, sent byte by byte with this pause.
    TrickleStatus(u16, Duration),
    /// The correct response, with its head sent byte by byte with this pause.
    TrickleHead(Duration),
    /// The correct response, with this many bytes of the body at a time and this pause between
    /// them.
    Trickle(usize, Duration),
    /// The correct response with `Connection: keep-alive`, then closes with FIN.
    CloseAfter,
    /// The correct response, and a few more bytes before the next one on the connection.
    Excess,
    /// The correct response as HTTP/1.0: without a length, the body ends with the connection.
    Http10,
    /// The correct response in small chunks.
    Chunked,
    /// The correct response, gzip-encoded in chunks if the client accepts that, otherwise
    /// unchanged.
    Gzip,
}

/// How a node responds to a request for a part of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranges {
    /// 206 with the part.
    #[default]
    Honour,
    /// 200 with the whole segment.
    Ignore,
    /// Always 416.
    Refuse,
    /// Always this status, as some servers and firewalls do.
    Fail(u16),
    /// 206 with a different part, from the start of the segment.
    Mistake,
    /// 206 with other bytes than the part has.
    Lie,
    /// Reads the request and sends nothing.
    Hang,
}

/// A request as the node received it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// As sent: percent-encoded, with the query and any prefix.
    pub path: String,
    /// The requested resource: the decoded path without the query and the node's prefix.
    pub resource: String,
    /// Names and values as sent. [`Request::header`] finds one.
    pub headers: Vec<(String, String)>,
    /// The number of its connection, starting from 0.
    pub connection: usize,
    /// When it was read.
    pub at: Instant,
    /// Whether the client expects the connection to close after the response.
    closes: bool,
}

impl Request {
    /// Whether it is for a segment or an extra file.
    pub fn is_segment(&self) -> bool {
        On::kind_of(&self.resource) == On::Segment
    }

    /// The value of the header with this name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(sent, _)| sent.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The first requested byte, if a part is requested.
    pub fn first_byte(&self) -> Option<usize> {
        let range = self.header("Range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }

    fn query(&self) -> &str {
        self.path.split_once('?').map_or("", |(_, query)| query)
    }
}

// ---- The node ---------------------------------------------------------------------------------

/// A running node. Dropping it closes its port and all its connections at once.
pub struct Node {
    shared: Arc<Shared>,
    address: SocketAddr,
    url: String,
    acceptor: Option<JoinHandle<()>>,
}

/// Starting the node, and its files.
impl Node {
    /// An empty node on a free port of 127.0.0.1.
    pub fn start() -> Node {
        Node::start_at("127.0.0.1")
    }

    /// An empty node on a free port of this loopback address.
    pub fn start_at(ip: &str) -> Node {
        Node::launch(ip, None)
    }

    /// An empty node that speaks TLS on 127.0.0.1, with a certificate for `localhost` and 127.0.0.1.
    pub fn start_tls(authority: &Authority) -> Node {
        let names = ["localhost", "127.0.0.1"];
        Node::launch("127.0.0.1", Some(authority.server_config(&names)))
    }

    /// The same with a certificate for a different name than in its URL, which must be refused.
    pub fn start_tls_named(authority: &Authority, name: &str) -> Node {
        Node::launch("127.0.0.1", Some(authority.server_config(&[name])))
    }

    /// The same with a TLS configuration of the test.
    pub fn start_tls_as(config: Arc<ServerConfig>) -> Node {
        Node::launch("127.0.0.1", Some(config))
    }

    fn launch(ip: &str, tls: Option<Arc<ServerConfig>>) -> Node {
        let listener = TcpListener::bind((ip, 0)).expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound listener's address");
        let url = match tls {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let shared = Arc::new(Shared { tls, ..Shared::default() });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Node { shared, address, url, acceptor: Some(acceptor) }
    }

    /// The base URL, without a trailing slash and without the prefix.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Adds a video segment with this stem (`TIME-DURATION-TYPE`). Returns its full name.
    pub fn add(
        &self,
        stream: &str,
        variant: &str,
        hour: &str,
        stem: &str,
        content: &[u8],
    ) -> String {
        let name = segment_name(stem, content);
        self.add_named(stream, variant, hour, &name, content);
        name
    }

    /// Adds a chat log that starts at `time`. Returns its full name.
    pub fn add_chat(&self, stream: &str, hour: &str, time: &str, content: &[u8]) -> String {
        let name = format!("{time}-{}.json", hash_of(content));
        self.add_named(stream, "chat", hour, &name, content);
        name
    }

    /// Adds a file with any name and content to an hour, such as a temp file or one with a wrong
    /// hash.
    pub fn add_named(&self, stream: &str, variant: &str, hour: &str, name: &str, content: &[u8]) {
        self.add_file(format!("{stream}/{variant}/{hour}/{name}"), content);
    }

    /// Adds a tombstone. It hides its segment from listings, and is itself listed only on demand.
    /// Both are served by name, as current nodes do.
    pub fn add_tombstone(&self, stream: &str, variant: &str, hour: &str, tombstone: &str) {
        assert!(tombstone.ends_with(".tombstone"), "{tombstone} is not the name of a tombstone");
        self.add_named(stream, variant, hour, tombstone, b"");
    }

    /// Adds a file beside the streams.
    pub fn add_beside_streams(&self, name: &str, content: &[u8]) {
        self.add_file(name.to_owned(), content);
    }

    /// Adds the file `path` to the extra directory `dir`.
    pub fn add_extra(&self, dir: &str, path: &str, content: &[u8]) {
        self.add_file(format!("{dir}/{path}"), content);
    }

    fn add_file(&self, path: String, content: &[u8]) {
        self.shared.lock().archive.files.insert(path, content.into());
    }

    /// Lists a name, and its hour, without content: an invalid name, or a segment deleted since the
    /// listing (404). A name that is already there is listed twice.
    pub fn list_also(&self, stream: &str, variant: &str, hour: &str, name: &str) {
        let path = format!("{stream}/{variant}/{hour}/{name}");
        self.shared.lock().archive.only_listed.push(path);
    }
}

/// How the node behaves.
impl Node {
    /// Sets a fault for every request of this kind. If several faults apply to a request, the last
    /// one counts.
    pub fn fault(&self, on: On, fault: Fault) {
        self.add_rule(Scope::Kind(on), fault, None);
    }

    /// Sends this time as `Date` in each response.
    pub fn tell_time(&self, date: &str) {
        self.shared.lock().date = Some(date.to_owned());
    }

    /// Sets a fault for the next `times` requests of this kind.
    pub fn fault_times(&self, on: On, fault: Fault, times: usize) {
        self.add_rule(Scope::Kind(on), fault, Some(times));
    }

    /// Sets a fault for every request for this resource: a decoded path without query and prefix.
    pub fn fault_path(&self, resource: &str, fault: Fault) {
        self.add_rule(Scope::Resource(resource.to_owned()), fault, None);
    }

    /// Sets a fault for the next `times` requests for this resource.
    pub fn fault_path_times(&self, resource: &str, fault: Fault, times: usize) {
        self.add_rule(Scope::Resource(resource.to_owned()), fault, Some(times));
    }

    fn add_rule(&self, scope: Scope, fault: Fault, left: Option<usize>) {
        self.shared.lock().rules.push(Rule { scope, fault, left });
    }

    /// Removes all faults for future requests. Current responses don't change.
    pub fn clear_faults(&self) {
        self.shared.lock().rules.clear();
    }

    /// Leaves all requests unanswered until [`Node::release`].
    pub fn hold(&self) {
        self.shared.lock().is_held = true;
    }

    /// Lets all current responses continue without waiting: hangs, delays, trickles and the rate
    /// limit end for them. Later requests are not affected, but no longer held.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        state.releases += 1;
        state.is_held = false;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Serves its files only below this prefix (`/some/prefix`); everything else is a 404.
    pub fn set_prefix(&self, prefix: &str) {
        self.shared.lock().prefix = prefix.trim_end_matches('/').to_owned();
    }

    /// Answers 401 to requests without these credentials.
    pub fn require_basic_auth(&self, user: &str, password: &str) {
        let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
        self.shared.lock().authorization = Some(format!("Basic {credentials}"));
    }

    /// Sets the response to requests for a part of a segment. By default it sends the part. From
    /// now on it also says that it takes ranges, which may not be true.
    pub fn treat_ranges(&self, ranges: Ranges) {
        let mut state = self.shared.lock();
        (state.ranges, state.says_ranges) = (ranges, true);
    }

    /// Limits the rate of each segment's body; concurrent bodies don't share it.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        assert!(bytes_per_second > 0, "a rate of 0 is Fault::HangInBody(0)");
        self.shared.lock().bytes_per_second = Some(bytes_per_second);
    }

    /// Waits this long before every response, with or without a fault.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }
}

/// The requests.
impl Node {
    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The requests for segments and extra files so far.
    pub fn segment_requests(&self) -> Vec<Request> {
        let requests = self.requests().into_iter();
        requests.filter(Request::is_segment).collect()
    }

    /// The number of requests for this path: the path as sent (with its query) or the resource
    /// (decoded, without query and prefix).
    pub fn count_of(&self, path: &str) -> usize {
        let state = self.shared.lock();
        let requests = state.requests.iter();
        requests.filter(|request| request.path == path || request.resource == path).count()
    }

    /// The number of TCP connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().accepted
    }

    /// The number of bytes of segments and extra files sent so far.
    pub fn segment_bytes(&self) -> usize {
        self.shared.lock().segment_bytes
    }

    /// Waits until there has been a request of this kind. Returns false if none has come within
    /// `timeout`.
    pub fn wait_for_request(&self, wanted: impl Fn(&Request) -> bool, timeout: Duration) -> bool {
        self.wait_until(timeout, |state| state.requests.iter().any(&wanted))
    }

    /// Waits until there have been this many requests of this kind. Panics after a while.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize, wanted: impl Fn(&Request) -> bool) {
        let of_state = |state: &State| state.requests.iter().filter(|r| wanted(r)).count();
        let have_come = self.wait_until(LONG, |state| of_state(state) >= count);
        assert!(have_come, "{} of {count} requests have arrived", of_state(&self.shared.lock()));
    }

    /// Waits until this many bytes of segments and extra files have been sent. Panics after a
    /// while.
    #[track_caller]
    pub fn wait_for_segment_bytes(&self, count: usize) {
        let are_sent = self.wait_until(LONG, |state| state.segment_bytes >= count);
        assert!(are_sent, "{} of {count} bytes were sent", self.segment_bytes());
    }

    fn wait_until(&self, timeout: Duration, happened: impl Fn(&State) -> bool) -> bool {
        let waits = |state: &mut State| !happened(state);
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), timeout, waits);
        let (_state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop();
        // One more connection makes the acceptor notice the stop. If that fails, it has ended
        // already.
        drop(TcpStream::connect(self.address));
        let ended = self.acceptor.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) && !thread::panicking() {
            panic!("the node's own code panicked: its message is above");
        }
    }
}

/// Serves each connection on its own thread until the node stops, then waits for all of them.
fn accept(listener: &TcpListener, shared: &Shared) {
    thread::scope(|scope| {
        for socket in listener.incoming().flatten() {
            let Some((connection, socket)) = shared.admit(socket) else {
                return;
            };
            scope.spawn(move || wire::serve(shared, connection, socket));
        }
    });
}

// ---- What the test and the connections share --------------------------------------------------

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified of every new request, release, part of a segment, and the stop.
    changed: Condvar,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Default)]
struct State {
    archive: Archive,
    prefix: String,
    /// The required `Authorization` header.
    authorization: Option<String>,
    bytes_per_second: Option<u64>,
    ranges: Ranges,
    says_ranges: bool,
    delay: Duration,
    is_held: bool,
    /// The `Date` of its responses.
    date: Option<String>,
    rules: Vec<Rule>,
    requests: Vec<Request>,
    segment_bytes: usize,
    accepted: usize,
    /// The sockets in use, by connection, so that a stop can shut them down.
    open: BTreeMap<usize, Arc<TcpStream>>,
    releases: usize,
    stopping: bool,
}

struct Rule {
    scope: Scope,
    fault: Fault,
    /// How many more requests it applies to; `None` for all.
    left: Option<usize>,
}

enum Scope {
    Kind(On),
    Resource(String),
}

impl Scope {
    fn covers(&self, resource: &str) -> bool {
        match self {
            Scope::Kind(on) => *on == On::Any || *on == On::kind_of(resource),
            Scope::Resource(only) => only == resource,
        }
    }
}

/// How to respond to one request.
struct Plan {
    answer: Answer,
    fault: Option<Fault>,
    delay: Duration,
    is_held: bool,
    bytes_per_second: Option<u64>,
    is_segment: bool,
    patience: Patience,
    /// Whether the client expects the connection to close afterwards.
    closes: bool,
    accepts_gzip: bool,
}

/// The waiting in one response. It ends for good when the node is released.
#[derive(Clone, Copy)]
struct Patience {
    /// The number of releases when the request came.
    releases: usize,
}

impl Shared {
    /// The state. It can be used after a panic in a test's closure, so that the node still stops in
    /// order.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a new connection. Returns its number; `None` if the node has stopped.
    fn admit(&self, socket: TcpStream) -> Option<(usize, Arc<TcpStream>)> {
        let mut state = self.lock();
        if state.stopping {
            return None;
        }
        let (connection, socket) = (state.accepted, Arc::new(socket));
        state.accepted += 1;
        state.open.insert(connection, Arc::clone(&socket));
        Some((connection, socket))
    }

    /// Forgets the socket of a connection, which then closes when its thread drops it.
    fn forget(&self, connection: usize) {
        self.lock().open.remove(&connection);
    }

    /// Ends all waiting, reading and writing.
    fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for socket in state.open.values() {
            // An error means that the client has closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Notes a request, and decides how to respond.
    fn receive(&self, mut request: Request) -> Plan {
        let mut state = self.lock();
        let path = wire::percent_decoded(request.path.split('?').next().unwrap_or_default());
        let below_prefix = path.strip_prefix(&state.prefix).filter(|rest| rest.starts_with('/'));
        request.resource = below_prefix.unwrap_or(&path).to_owned();

        let answer = match below_prefix {
            _ if !state.authorizes(&request) => Answer::unauthorized(),
            _ if request.method != "GET" => Answer::status(405),
            Some(resource) => state.archive.answer(resource, request.query()),
            None => Answer::status(404),
        };
        let is_segment = On::kind_of(&request.resource) == On::Segment;
        let answer = match request.first_byte().filter(|_| is_segment) {
            Some(first) => answer.part(first, state.ranges),
            None => answer,
        };
        let answer = if is_segment && state.says_ranges {
            answer.with("Accept-Ranges", "bytes".to_owned())
        } else {
            answer
        };
        let answer = match &state.date {
            Some(date) => answer.with("Date", date.clone()),
            None => answer,
        };
        let is_part = is_segment && request.first_byte().is_some();
        let hangs = (is_part && state.ranges == Ranges::Hang).then_some(Fault::Hang);
        let plan = Plan {
            answer,
            fault: state.take_fault(&request.resource).or(hangs),
            delay: state.delay,
            is_held: state.is_held,
            bytes_per_second: state.bytes_per_second.filter(|_| is_segment),
            is_segment,
            patience: Patience { releases: state.releases },
            closes: request.closes,
            accepts_gzip: request.accepts_gzip(),
        };
        state.requests.push(request);
        self.changed.notify_all();
        plan
    }

    /// Notes that this many bytes of a segment were sent.
    fn sent(&self, bytes: usize) {
        self.lock().segment_bytes += bytes;
        self.changed.notify_all();
    }

    /// Waits until `deadline`, or without one until the request is released. Fails if the node has
    /// stopped.
    fn wait(&self, patience: Patience, deadline: Option<Instant>) -> io::Result<()> {
        let held = |state: &mut State| !state.stopping && state.releases == patience.releases;
        let state = self.lock();
        let state = match deadline {
            None => self.changed.wait_while(state, held).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout_while(state, left, held);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if state.stopping {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the node has stopped"));
        }
        Ok(())
    }
}

impl State {
    fn authorizes(&self, request: &Request) -> bool {
        self.authorization.is_none()
            || self.authorization.as_deref() == request.header("Authorization")
    }

    /// The fault for a request. It uses up one of its times.
    fn take_fault(&mut self, resource: &str) -> Option<Fault> {
        let fits = |rule: &Rule| rule.left != Some(0) && rule.scope.covers(resource);
        let rule = self.rules.iter_mut().rev().find(|rule| fits(rule))?;
        if let Some(left) = &mut rule.left {
            *left -= 1;
        }
        Some(rule.fault.clone())
    }
}

// ---- The archive ------------------------------------------------------------------------------

/// The files of the node by path below the archive's base, as on disk.
#[derive(Default)]
struct Archive {
    files: BTreeMap<String, Arc<[u8]>>,
    /// Paths that are listed but have no content.
    only_listed: Vec<String>,
}

impl Archive {
    /// The correct response to a request.
    fn answer(&self, resource: &str, query: &str) -> Answer {
        let parts: Vec<&str> = resource.split('/').collect();
        match parts[..] {
            // A node in service fails to list what is not a directory.
            ["", "files", ref path @ ..] if self.is_or_is_below_a_file(path) => Answer::status(500),
            ["", "files"] => Answer::listing(self.streams()),
            ["", "files", stream] => Answer::listing(self.names_in(stream)),
            ["", "files", stream, variant] => {
                Answer::listing(self.names_in(&format!("{stream}/{variant}")))
            }
            ["", "files", stream, variant, hour] => {
                let with_tombstones = query.split('&').any(|part| part == "tombstones=true");
                let folder = format!("{stream}/{variant}/{hour}");
                Answer::listing(self.segments(&folder, with_tombstones))
            }
            ["", "extras", ref dir @ ..] if !dir.is_empty() => {
                Answer::listing(self.below(&dir.join("/")))
            }
            ["", "segments", ref path @ ..] => match self.files.get(&path.join("/")) {
                Some(content) => Answer::segment(Arc::clone(content)),
                None => Answer::status(404),
            },
            _ => Answer::status(404),
        }
    }

    /// The paths below a folder, relative to it.
    fn below(&self, folder: &str) -> Vec<&str> {
        let folder = format!("{folder}/");
        let files = self.files.range(folder.clone()..).map(|(path, _)| path);
        let files = files.take_while(|path| path.starts_with(&folder));
        let paths = files.chain(&self.only_listed);
        paths.filter_map(|path| path.strip_prefix(&folder)).collect()
    }

    fn is_or_is_below_a_file(&self, path: &[&str]) -> bool {
        (1..=path.len()).any(|depth| self.files.contains_key(&path[..depth].join("/")))
    }

    fn streams(&self) -> Vec<&str> {
        first_parts(self.files.keys().chain(&self.only_listed).map(String::as_str))
    }

    /// The directories in a folder, and files: nodes in service list both.
    fn names_in(&self, folder: &str) -> Vec<&str> {
        first_parts(self.below(folder))
    }

    fn segments(&self, hour: &str, with_tombstones: bool) -> Vec<&str> {
        let names = self.below(hour);
        let tombstone_of = |name: &str| name.strip_suffix(".tombstone").map(str::to_owned);
        let deleted: BTreeSet<_> = names.iter().filter_map(|name| tombstone_of(name)).collect();
        let is_shown = |name: &&str| {
            if name.ends_with(".tombstone") {
                with_tombstones
            } else {
                !deleted.contains(without_extension(name))
            }
        };
        names.into_iter().filter(is_shown).collect()
    }
}

fn first_parts<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let names = paths.into_iter().filter_map(|path| path.split('/').next());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}
