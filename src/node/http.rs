//! A node reached over HTTP or HTTPS, through the interface of the restreamer that the archives in
//! service run. ureq speaks HTTP, on connections made by `connect`.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use chrono::TimeDelta;
use log::{Level, debug, log_enabled};
use ureq::http::{StatusCode, Uri, header};
use ureq::{Agent, ResponseExt};

use super::addresses::Addresses;
use super::connect::{Dialer, SharedDialer, Unresolved};
use super::listing::MAX_LISTING;
use super::pace::{Heard, SLOW_FOR};
use super::proxy::Proxies;
use super::response::{
    Response, body, body_length, clock_ahead, codings, decoded, drain, is_chunked, is_gzip,
    node_error, part_length, retry_after, takes_ranges,
};
use super::url::{NodeUrl, Origin, redirected};
use super::{Content, Listing, Node, NodeError, Trouble, USER_AGENT};
use crate::clock;
use crate::lock::lock;
use crate::target::{Check, Directory, Target};

/// How many redirects to follow. A longer chain is almost certainly a loop.
const MAX_REDIRECTS: usize = 5;
/// How long a connection may stay idle. nginx closes idle connections after 75 s; closing them
/// earlier here avoids requests on a dying connection.
const MAX_IDLE: Duration = Duration::from_secs(60);
/// An offset beyond the end of every file. From there a server has nothing to send.
const BEYOND: u64 = 1 << 62;

/// A node reached over HTTP.
pub struct HttpNode {
    url: NodeUrl,
    settings: HttpSettings,
    dialer: Arc<Dialer>,
    /// Owns the connections. To abort its requests, it is shut down and replaced by a new one.
    agent: Mutex<Agent>,
    /// How far our clock was ahead of the node's when the node last sent a date.
    clock: Mutex<Option<TimeDelta>>,
}

/// How to talk to a node.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// How long the node may stay silent.
    pub timeout: Duration,
    /// How many threads send requests at the same time.
    pub connections: usize,
    /// The largest segment to accept, in bytes.
    pub max_size: u64,
    /// How much to read from a connection at a time, in bytes.
    pub read_size: usize,
}

/// A request.
struct Ask<'a> {
    /// The components of the path.
    path: Vec<&'a str>,
    /// The query, including its question mark.
    query: &'a str,
    /// The content coding to accept.
    coding: &'a str,
    /// The offset to start at.
    from: u64,
    /// Whether a hash verifies the content. If so, a redirect to any server is followed.
    has_hash: bool,
    /// For how long the body may be slow; see [`SLOW_FOR`].
    patience: Duration,
}

impl HttpNode {
    /// The node at this URL. Nothing is contacted yet.
    ///
    /// # Errors
    ///
    /// Fails if a proxy variable in the environment is invalid; the error names the variable.
    pub fn new(url: NodeUrl, settings: HttpSettings) -> Result<HttpNode, String> {
        let dialer = Arc::new(Dialer {
            node: url.origin().clone(),
            proxies: Proxies::from_env()?,
            addresses: Addresses::new(settings.timeout),
            heard: Arc::new(Heard::new()),
            timeout: settings.timeout,
            max_response: settings.max_size.max(MAX_LISTING).saturating_add(1 << 20),
            read_size: settings.read_size,
        });
        let agent = Mutex::new(new_agent(settings, dialer.clone()));
        Ok(HttpNode { url, settings, dialer, agent, clock: Mutex::default() })
    }

    fn agent(&self) -> MutexGuard<'_, Agent> {
        lock(&self.agent)
    }

    /// Sends a request, follows redirects, and returns a response with status 200; for a partial
    /// request, also one with status 206 or 416.
    fn get(&self, ask: &Ask<'_>) -> Result<Response, NodeError> {
        let url = self.url.join(&ask.path) + ask.query;
        let wrong = |_| NodeError::new(Trouble::Refused, "its URL is too long");
        let mut url: Uri = url.parse().map_err(wrong)?;
        let mut authorization = self.url.authorization();
        // All redirects use the same agent: if `cut` replaces it meanwhile, the rest of this
        // request fails too, rather than continue on the new agent.
        let agent = self.agent().clone();
        for redirects in 0..=MAX_REDIRECTS {
            let asked = self.request(&agent, &url, authorization, ask);
            let mut response = asked.map_err(|e| match redirects {
                0 => self.located(e),
                _ => redirect_error(&url, e),
            })?;
            let is_part = matches!(response.status().as_u16(), 206 | 416) && ask.from > 0;
            if response.status() == StatusCode::OK || is_part {
                return Ok(response);
            }
            let start = drain(&mut response)?;
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(header::LOCATION),
                _ => return Err(self.status_error(&response, &start)),
            };
            let location = location.and_then(|it| str::from_utf8(it.as_bytes()).ok());
            url = self.follow(&url, location, ask)?;
            let is_ours = Origin::of(&url).is_some_and(|origin| self.url.origin().trusts(&origin));
            authorization = authorization.filter(|_| is_ours);
        }
        Err(NodeError::answered(Trouble::Refused, "too many redirects"))
    }

    /// The target of a redirect, if it may be followed.
    fn follow(&self, from: &Uri, location: Option<&str>, ask: &Ask<'_>) -> Result<Uri, NodeError> {
        let refuse = |what: String| Err(NodeError::answered(Trouble::Refused, what));
        let Some(location) = location else {
            return refuse("it redirects without a target".into());
        };
        let Some(to) = redirected(from, location.trim()) else {
            return refuse("it redirects to something other than a valid http or https URL".into());
        };
        let here = Origin::of(from).unwrap_or_else(|| self.url.origin().clone());
        match Origin::of(&to) {
            Some(origin) if ask.has_hash || here.is_same_host(&origin) => Ok(to),
            Some(origin) => refuse(format!(
                "it redirects to {origin}, but listings and files without a hash are only \
                 accepted from its own host"
            )),
            None => refuse("it redirects to a URL without a host".into()),
        }
    }

    fn request(
        &self,
        agent: &Agent,
        url: &Uri,
        authorization: Option<&str>,
        ask: &Ask<'_>,
    ) -> Result<Response, NodeError> {
        let call = || {
            let mut request = agent.get(url).header(header::ACCEPT_ENCODING, ask.coding);
            if ask.from > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", ask.from));
            }
            if let Some(value) = authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            // Not a timeout here: the transports ignore it as such, and `Exchange` takes it as the
            // patience with a slow body.
            request.config().timeout_per_read(Some(ask.patience)).build().call()
        };
        // A server may close an idle connection just as it is used again, or have sent more on it than
        // it announced. That is not a failure of this request, which is retried at once.
        let begun = Instant::now();
        let first = match call() {
            Err(ureq::Error::Io(e)) if is_closed(&e) => call(),
            first => first,
        };
        let response = first.map_err(|e| self.answered_since(begun, node_error(e)));
        if let Ok(response) = &response
            && let Some(ahead) = clock_ahead(response.headers(), clock::now())
        {
            *lock(&self.clock) = Some(ahead);
        }
        if log_enabled!(Level::Debug) {
            let what = match &response {
                Ok(response) => response.status().to_string(),
                Err(e) => e.to_string(),
            };
            debug!("GET {url}: {what} after {} ms", begun.elapsed().as_millis());
        }
        response
    }

    /// Marks the error as answered if any byte has arrived from the node since `begun`. A peer that
    /// fails to prove by TLS that it is the node doesn't count.
    fn answered_since(&self, begun: Instant, mut error: NodeError) -> NodeError {
        let came = self.dialer.heard.last().is_some_and(|at| at > begun);
        let is_of_a_response = matches!(error.trouble, Trouble::Broken | Trouble::Silent);
        error.answered |= came && is_of_a_response;
        error
    }

    /// Adds the URL, and the proxy, at which an unreachable node was tried.
    fn located(&self, error: NodeError) -> NodeError {
        if error.trouble != Trouble::Unreachable {
            return error;
        }
        let proxy = self.dialer.proxies.to(self.url.origin());
        let way = match proxy {
            Some(proxy) => format!(", through the proxy {}", proxy.origin.authority()),
            None => String::new(),
        };
        let is_refused = error.what == "connection refused" && proxy.is_none();
        let hint = if is_refused && !self.url.has_port() {
            ": is the port missing? Most nodes serve on 1337"
        } else {
            ""
        };
        let what = format!("{error} (at {}{way}{hint})", self.url);
        NodeError::new(error.trouble, what)
    }

    fn status_error(&self, response: &Response, start: &[u8]) -> NodeError {
        let status = response.status();
        if let Some(error) = self.proxy_error(response) {
            return error;
        }
        let trouble = match status.as_u16() {
            404 | 410 => Trouble::Gone,
            429 | 503 => Trouble::Busy(retry_after(response.headers(), SystemTime::now())),
            408 | 500..=599 => Trouble::Broken,
            _ => Trouble::Refused,
        };
        let start = String::from_utf8_lossy(start).to_ascii_lowercase();
        let hint = match status.as_u16() {
            401 | 403 => " (are the user name and password in the node's URL right?)",
            400 if !self.url.origin().secure && start.contains("https") => {
                " (it expects TLS: should the URL be https?)"
            }
            400 if !self.url.origin().secure => " (should the URL be https?)",
            204 => ", which has no content",
            206 => ", though no range was requested",
            _ => "",
        };
        // The standard reason for the number. The node's own reason phrase may be any text, so it
        // isn't printed.
        let reason = status.canonical_reason().unwrap_or("unknown status");
        NodeError::answered(trouble, format!("HTTP {} {reason}{hint}", status.as_u16()))
    }

    /// Recognizes an error response of a forwarding proxy, as opposed to one of the node.
    fn proxy_error(&self, response: &Response) -> Option<NodeError> {
        let proxy =
            self.dialer.proxies.to(self.url.origin()).filter(|_| !self.url.origin().secure)?;
        let proxy = proxy.origin.authority();
        let said = ["x-squid-error", "proxy-status"].into_iter();
        let said = said.filter_map(|name| response.headers().get(name)?.to_str().ok()).next();
        let why = match response.status().as_u16() {
            407 => "it requires a user name and password, or rejected those given".to_owned(),
            403 if said.is_some() => "it refuses to connect to the node".to_owned(),
            502..=504 => format!("it can't reach the node ({})", said?),
            _ => return None,
        };
        Some(NodeError::new(Trouble::Unreachable, format!("the proxy {proxy}: {why}")))
    }
}

impl Node for HttpNode {
    fn list(&self, directory: &Directory) -> Result<Listing<'_>, NodeError> {
        let (kind, query) = match directory {
            Directory::Archive | Directory::Stream(_) | Directory::Collection(_) => ("files", ""),
            Directory::Hour(_) => ("files", "?tombstones=true"),
            Directory::Extras(_) => ("extras", ""),
        };
        let path = directory.to_string();
        let below = path.split('/').filter(|_| *directory != Directory::Archive);
        let ask = Ask {
            path: [kind].into_iter().chain(below).collect(),
            query,
            coding: "gzip",
            from: 0,
            has_hash: false,
            patience: self.settings.timeout,
        };
        let response = self.get(&ask).map_err(|e| match (e.trouble, directory) {
            // By the interface, a directory that a node lacks is an empty list, so 404 means that the
            // URL is wrong. Other servers answer 404 for such a directory.
            (Trouble::Gone, Directory::Extras(_)) => e,
            (Trouble::Gone, _) => NodeError::answered(
                Trouble::Refused,
                format!("{e} (is the node's URL right, and the name?)"),
            ),
            _ => e,
        })?;
        let (is_gzip, length) = (is_gzip(&response)?, response.body().content_length());
        Listing::read(body(response), length, is_gzip)
    }

    fn is_file(&self, directory: &Directory) -> bool {
        let path = directory.to_string();
        let parts: Vec<&str> = path.split('/').collect();
        let ends_here = |parts: &[&str]| {
            let path: Vec<&str> = ["segments"].into_iter().chain(parts.iter().copied()).collect();
            let (url, patience) = (self.url.join(&path), self.settings.timeout);
            let (query, coding) = ("", "identity");
            let ask = Ask { path, query, coding, from: BEYOND, has_hash: false, patience };
            self.get(&ask).is_ok_and(|response| {
                let has_nothing = response.status() == StatusCode::RANGE_NOT_SATISFIABLE
                    || response.body().content_length() == Some(0);
                has_nothing && *response.get_uri() == *url
            })
        };
        // Not of a server that answers so for every path: below a file there is nothing.
        let is_end =
            |end| ends_here(&parts[..end]) && !ends_here(&[&parts[..end], &["-"]].concat());
        *directory != Directory::Archive && (1..=parts.len()).any(is_end)
    }

    fn open(&self, target: &Target, from: u64) -> Result<Content<'_>, NodeError> {
        let path = target.path();
        let mut ask = Ask {
            path: ["segments"].into_iter().chain(path.split('/')).collect(),
            query: "",
            coding: "identity",
            from,
            has_hash: matches!(target.check(), Check::Hash(_)),
            patience: SLOW_FOR,
        };
        let mut response = self.get(&ask)?;
        let mut part = None;
        if response.status() != StatusCode::OK {
            part = part_length(&response, from);
            if part.is_none() {
                // The node can't start there: request the whole file.
                drain(&mut response)?;
                ask.from = 0;
                response = self.get(&ask)?;
            }
        }
        let sent = body_length(&response);
        let is_coded = !codings(response.headers())?.is_empty();
        Ok(Content {
            from: if part.is_some() { from } else { 0 },
            length: part.or(sent).filter(|_| !is_coded),
            open_ended: sent.is_none() && !is_chunked(response.headers()),
            takes_ranges: if from > 0 { part.is_some() } else { takes_ranges(response.headers()) },
            reader: decoded(response)?,
        })
    }

    fn last_heard(&self) -> Option<Instant> {
        self.dialer.heard.last()
    }

    fn clock_ahead(&self) -> Option<TimeDelta> {
        *lock(&self.clock)
    }

    fn cut(&self) {
        let agent = new_agent(self.settings, self.dialer.clone());
        mem::replace(&mut *self.agent(), agent).shutdown();
    }
}

fn new_agent(settings: HttpSettings, dialer: Arc<Dialer>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(USER_AGENT)
        .max_idle_connections(settings.connections)
        .max_idle_connections_per_host(settings.connections)
        .max_idle_age(MAX_IDLE)
        // `Exchange` limits the size of heads.
        .max_response_header_size(usize::MAX)
        .input_buffer_size(settings.read_size)
        .output_buffer_size(8 << 10)
        .build();
    Agent::with_parts(config, SharedDialer(dialer), Unresolved)
}

/// Attributes a failure to the target of a redirect, not to the node, which did respond.
fn redirect_error(to: &Uri, error: NodeError) -> NodeError {
    let origin = Origin::of(to).map_or_else(String::new, |origin| origin.to_string());
    let trouble = match error.trouble {
        Trouble::Local => Trouble::Local,
        Trouble::Refused | Trouble::Unusable => Trouble::Refused,
        _ => Trouble::Broken,
    };
    NodeError::answered(trouble, format!("it redirects to {origin}: {error}"))
}

/// Whether the peer has closed the connection.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
