//! A node behind HTTP or HTTPS. The requests and answers are those of the restreamer of the
//! archives in service; everything below them (connections, TLS, proxies, gzip) is ureq's.

use std::collections::HashMap;
use std::env;
use std::fmt;
use std::io::{self, Read};
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use log::{Level, debug, log_enabled};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ureq::config::Config;
use ureq::http::{StatusCode, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectProxyConnector, Connector, NextTimeout, RustlsConnector, SocksConnector, TcpConnector,
};
use ureq::{Agent, Body, Proxy, ProxyProtocol, Timeout};

use super::listing::MAX_LISTING;
use super::pace::{PaceConnector, SLOW_FOR};
use super::{Content, Listing, Node, NodeError, Trouble};
use crate::error::plain;
use crate::target::{Directory, Target};

/// How much of an answer that isn't wanted is read, to keep the connection.
const MAX_IGNORED: u64 = 64 << 10;
/// How long that may take.
const IGNORE_FOR: Duration = Duration::from_secs(1);
const MAX_REDIRECTS: usize = 5;
/// nginx closes idle connections after 75 s; we forget them sooner.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// What must be encoded in a component of a path. Names of segments pass as they are.
const PATH_COMPONENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// The base URL of a node, without credentials; printing it is safe.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeUrl {
    /// Scheme, host, port and path prefix, without a slash at its end.
    base: String,
    host: String,
    secure: bool,
    /// The value of the `Authorization` header.
    authorization: Option<String>,
}

impl NodeUrl {
    /// Reads a URL such as `http://user:password@toodles:1337/prefix/`. The error is a clause that
    /// follows the URL, and doesn't repeat it.
    pub fn parse(text: &str) -> Result<NodeUrl, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "is not a valid URL")?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("is not an http or https URL"),
        };
        if uri.query().is_some() || text.contains('#') {
            return Err("has a query or a fragment, which a node's URL can't have");
        }
        let authority = uri.authority().ok_or("has no host")?.as_str();
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => (Some(userinfo), host_port),
            None => (None, authority),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("has no host");
        }
        let port = host_port.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        if port.is_some_and(|(_, port)| !matches!(port.parse::<u16>(), Ok(1..))) {
            return Err("has no valid port");
        }
        let scheme = if secure { "https" } else { "http" };
        let path = uri.path().trim_end_matches('/');
        Ok(NodeUrl {
            base: format!("{scheme}://{host_port}{path}"),
            host: host.to_owned(),
            secure,
            authorization: userinfo.map(basic_authorization),
        })
    }

    /// The host alone: `toodles`, `127.0.0.1`, `::1`.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn join(&self, path: &[&str]) -> String {
        let mut url = self.base.clone();
        for component in path {
            url.push('/');
            url.extend(utf8_percent_encode(component, PATH_COMPONENT));
        }
        url
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeUrl({self})")
    }
}

fn basic_authorization(userinfo: &str) -> String {
    let mut plain: Vec<u8> = percent_decode_str(userinfo).collect();
    if !userinfo.contains(':') {
        plain.push(b':');
    }
    format!("Basic {}", STANDARD.encode(plain))
}

/// A node that is asked over HTTP.
pub struct HttpNode {
    url: NodeUrl,
    settings: HttpSettings,
    addresses: Arc<Addresses>,
    proxy: Option<Proxy>,
    /// The host and port of the proxy that it's asked through.
    proxy_name: Option<String>,
    /// Has the connections. Cutting them means having another one from then on.
    agent: Mutex<Agent>,
}

/// How a node is asked.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// The longest silence that is borne.
    pub timeout: Duration,
    /// How many threads ask at a time.
    pub connections: usize,
    /// The largest segment that is taken, in bytes.
    pub max_size: u64,
    /// How much is read from a connection at a time, in bytes.
    pub read_size: usize,
}

impl HttpNode {
    /// The node at this URL. Nothing is contacted yet. Fails if the environment names a proxy that
    /// is none; the error says which variable.
    pub fn new(url: NodeUrl, settings: HttpSettings) -> Result<HttpNode, String> {
        let proxy = proxy_from_env(url.secure)?;
        let is_used = |proxy: &&Proxy| url.base.parse().is_ok_and(|uri| !proxy.is_no_proxy(&uri));
        let used = proxy.as_ref().filter(is_used);
        let proxy_name = used.map(|proxy| format!("{}:{}", proxy.host(), proxy.port()));
        let addresses = Arc::new(Addresses::default());
        let agent = Mutex::new(new_agent(settings, proxy.clone(), addresses.clone()));
        Ok(HttpNode { url, settings, addresses, proxy, proxy_name, agent })
    }

    fn agent(&self) -> MutexGuard<'_, Agent> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a path, and gives back an answer with status 200; if a range was asked for, also
    /// one with 206 or 416.
    fn get(&self, ask: &Ask<'_>) -> Result<Answer, NodeError> {
        let mut url = self.url.join(&ask.path) + ask.query;
        let mut authorization = self.url.authorization.as_deref();
        // One for all, so that nothing goes on where it was cut.
        let agent = self.agent().clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut answer = self.request(&agent, &url, authorization, ask)?;
            let status = answer.status();
            match status {
                StatusCode::OK => return Ok(answer),
                StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if ask.from > 0 => {
                    return Ok(answer);
                }
                _ => read_out(&mut answer),
            }
            if !status.is_redirection() {
                return Err(status_error(&answer));
            }
            let target = redirect_target(&url, &answer)?;
            if !same_host(&url, &target) {
                authorization = None;
            }
            url = target;
        }
        Err(NodeError::answered(Trouble::Refused, "it redirects again and again"))
    }

    fn request(
        &self,
        agent: &Agent,
        url: &str,
        authorization: Option<&str>,
        ask: &Ask<'_>,
    ) -> Result<Answer, NodeError> {
        let call = || {
            let mut request = agent.get(url).header(header::ACCEPT_ENCODING, ask.encoding);
            if ask.from > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", ask.from));
            }
            if let Some(value) = authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            request.call()
        };
        // A server may close an idle connection at the moment at which it is used again: nobody's
        // fault, and no reason to wait.
        let begun = Instant::now();
        let first = match call() {
            Err(ureq::Error::Io(e)) if is_closed(&e) => call(),
            first => first,
        };
        let answer = first.map_err(|e| self.failed(e));
        if log_enabled!(Level::Debug) {
            let what = match &answer {
                Ok(answer) => answer.status().to_string(),
                Err(e) => e.to_string(),
            };
            // A redirection may lead to a URL with a password in it.
            let shown = url.strip_prefix(&self.url.base).map_or("elsewhere", |_| url);
            debug!("GET {shown}: {what} after {} ms", begun.elapsed().as_millis());
        }
        answer
    }

    fn told<R: Read>(&self, reader: R) -> Told<R> {
        Told { reader, timeout: self.settings.timeout }
    }

    fn failed(&self, error: ureq::Error) -> NodeError {
        let error = node_error(error, self.settings.timeout);
        if matches!(error.trouble, Trouble::Unreachable | Trouble::Silent) {
            // It may have moved.
            self.addresses.forget();
        }
        if error.trouble != Trouble::Unreachable {
            return error;
        }
        let way = match &self.proxy_name {
            Some(proxy) => format!(", through the proxy {proxy}"),
            None => String::new(),
        };
        NodeError::new(error.trouble, format!("{error} (at {}{way})", self.url))
    }
}

fn new_agent(settings: HttpSettings, proxy: Option<Proxy>, addresses: Arc<Addresses>) -> Agent {
    let HttpSettings { timeout, connections, max_size, read_size } = settings;
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(proxy)
        .user_agent(concat!("backfiller/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_per_read(Some(timeout))
        .timeout_per_write(Some(timeout))
        .timeout_recv_response(Some(timeout.max(SLOW_FOR)))
        .max_idle_connections(connections)
        .max_idle_connections_per_host(connections)
        .max_idle_age(MAX_IDLE)
        .input_buffer_size(read_size)
        .output_buffer_size(8 << 10)
        .build();
    let max_answer = max_size.max(MAX_LISTING).saturating_add(1 << 20);
    let connector =
        ().chain(SocksConnector::default())
            .chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(PaceConnector { max_answer })
            .chain(RustlsConnector::default());
    Agent::with_parts(config, connector, CachingResolver(addresses))
}

/// What is asked for.
struct Ask<'a> {
    /// The components of the path.
    path: Vec<&'a str>,
    /// With its question mark.
    query: &'a str,
    /// The content coding that is accepted.
    encoding: &'a str,
    /// The first byte that is wanted.
    from: u64,
}

type Answer = ureq::http::Response<Body>;

impl Node for HttpNode {
    fn list(&self, directory: &Directory) -> Result<Listing<'_>, NodeError> {
        let (kind, query) = match directory {
            Directory::Collection(_) => ("files", ""),
            Directory::Hour(_) => ("files", "?tombstones=true"),
            Directory::Extras(_) => ("extras", ""),
        };
        let path = directory.to_string();
        let path: Vec<&str> = [kind].into_iter().chain(path.split('/')).collect();
        let ask = Ask { path, query, encoding: "gzip", from: 0 };
        let answer = self.get(&ask).map_err(|e| match (e.trouble, directory) {
            // What may be empty can't be missing.
            (Trouble::Gone, Directory::Collection(_) | Directory::Hour(_)) => {
                NodeError::answered(Trouble::Refused, format!("{e} (is the node's URL right?)"))
            }
            _ => e,
        })?;
        Listing::read(self.told(answer.into_body().into_reader()))
    }

    fn open(&self, target: &Target, from: u64) -> Result<Content<'_>, NodeError> {
        let path = target.path();
        let path: Vec<&str> = ["segments"].into_iter().chain(path.split('/')).collect();
        let mut ask = Ask { path, query: "", encoding: "identity", from };
        let mut answer = self.get(&ask)?;
        let whole_length = match answer.status() {
            StatusCode::OK => None,
            _ => match part_length(&answer, from) {
                None => {
                    // It can't begin there.
                    read_out(&mut answer);
                    ask.from = 0;
                    answer = self.get(&ask)?;
                    None
                }
                length => length,
            },
        };
        let from = if whole_length.is_some() { from } else { 0 };
        let length = whole_length.or(answer.body().content_length());
        let chunked = answer.headers().contains_key(header::TRANSFER_ENCODING);
        let open_ended = answer.body().content_length().is_none() && !chunked;
        let reader = Box::new(self.told(answer.into_body().into_reader()));
        Ok(Content { reader, from, length, open_ended })
    }

    fn last_heard(&self) -> Option<Instant> {
        None
    }

    fn cut(&self) {
        let agent = new_agent(self.settings, self.proxy.clone(), self.addresses.clone());
        mem::replace(&mut *self.agent(), agent).shutdown();
    }
}

/// Reads out an answer that isn't wanted, so that the connection serves the next request too; but
/// a long or a slow one is not worth it.
fn read_out(answer: &mut Answer) {
    let begun = Instant::now();
    let is_short = |body: &Body| body.content_length().is_none_or(|length| length <= MAX_IGNORED);
    if is_short(answer.body()) {
        let (mut buffer, mut total) = ([0; 4096], 0);
        let mut body = answer.body_mut().as_reader();
        while let Ok(read @ 1..) = body.read(&mut buffer) {
            total += read as u64;
            if total > MAX_IGNORED || begun.elapsed() > IGNORE_FOR {
                break;
            }
        }
    }
}

/// The length of the whole of which an answer is the part that begins at this byte and goes to the
/// end. None if it is any other part, or coded, so that it can't be put together with what is here.
fn part_length(answer: &Answer, from: u64) -> Option<u64> {
    let headers = answer.headers();
    if answer.status() != StatusCode::PARTIAL_CONTENT
        || headers.contains_key(header::CONTENT_ENCODING)
    {
        return None;
    }
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, whole) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last, whole) = (number(first)?, number(last)?, number(whole)?);
    let is_rest = first == from && last.checked_add(1) == Some(whole) && first <= last;
    let sent = answer.body().content_length();
    (is_rest && sent.is_none_or(|sent| sent == whole - first)).then_some(whole)
}

/// Whether the other side has closed the connection.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

fn status_error(answer: &Answer) -> NodeError {
    let status = answer.status();
    let trouble = match status.as_u16() {
        404 | 410 => Trouble::Gone,
        429 | 503 => Trouble::Busy(retry_after(answer)),
        408 | 500..=599 => Trouble::Broken,
        _ => Trouble::Refused,
    };
    let hint = match status.as_u16() {
        401 | 403 => " (are user and password in the node's URL right?)",
        _ => "",
    };
    // Only the reason that belongs to the number: what the node calls it is anybody's text.
    let reason = status.canonical_reason().unwrap_or("unknown status");
    NodeError::answered(trouble, format!("HTTP {} {reason}{hint}", status.as_u16()))
}

fn retry_after(answer: &Answer) -> Option<Duration> {
    let value = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Where an answer redirects to: an absolute URL, or a path on the same server.
fn redirect_target(from: &str, answer: &Answer) -> Result<String, NodeError> {
    let refuse = |what| Err(NodeError::answered(Trouble::Refused, what));
    let Some(to) = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok()) else {
        return refuse("it redirects to nowhere");
    };
    if to.starts_with("http://") || to.starts_with("https://") {
        return Ok(to.to_owned());
    }
    let server_end = from.match_indices('/').nth(2).map_or(from.len(), |(at, _)| at);
    match to.starts_with('/') && !to.starts_with("//") {
        true => Ok(format!("{}{to}", &from[..server_end])),
        false => refuse("it redirects to something that is no http or https URL"),
    }
}

/// Whether credentials for one URL may be shown to the other: it is the same host, and not by a
/// less secure way.
fn same_host(from: &str, to: &str) -> bool {
    let (Ok(from), Ok(to)) = (from.parse::<Uri>(), to.parse::<Uri>()) else {
        return false;
    };
    let secure = |uri: &Uri| uri.scheme_str() == Some("https");
    let same_port = from.port_u16() == to.port_u16() || (!secure(&from) && secure(&to));
    from.host() == to.host() && same_port && (secure(&to) || !secure(&from))
}

fn node_error(error: ureq::Error, timeout: Duration) -> NodeError {
    use io::ErrorKind::*;
    let timeout = humantime::format_duration(timeout);
    let (trouble, what) = match error {
        ureq::Error::Timeout(phase) => {
            let doing = match phase {
                Timeout::Resolve => "looking up its name",
                Timeout::Connect => "connecting",
                _ => "waiting for an answer",
            };
            (Trouble::Silent, format!("timed out after {timeout} {doing}"))
        }
        ureq::Error::HostNotFound => (Trouble::Unreachable, "its name can't be resolved".into()),
        ureq::Error::ConnectProxyFailed(why) => {
            (Trouble::Unreachable, format!("the proxy can't connect to it: {why}"))
        }
        ureq::Error::Io(e) if e.get_ref().is_some_and(|inner| inner.is::<NodeError>()) => {
            return e.into();
        }
        // What this machine lacks is not the node's fault.
        ureq::Error::Io(e) if matches!(e.raw_os_error(), Some(23 | 24)) => (
            Trouble::Broken,
            "this machine has too many open files (fewer --jobs need fewer)".into(),
        ),
        ureq::Error::Io(e) => match e.kind() {
            ConnectionRefused | HostUnreachable | NetworkUnreachable | NetworkDown
            | AddrNotAvailable => (Trouble::Unreachable, plain(&e)),
            // What rustls has against a certificate comes so.
            InvalidData => (Trouble::Unusable, tls(&e)),
            _ if is_closed(&e) => (Trouble::Broken, "the connection was closed too early".into()),
            _ => (Trouble::Broken, plain(&e)),
        },
        ureq::Error::Rustls(e) => (Trouble::Unusable, tls(&e)),
        ureq::Error::Tls(e) => (Trouble::Unusable, tls(&e)),
        e => (Trouble::Broken, e.to_string()),
    };
    NodeError::new(trouble, what)
}

/// What went wrong with TLS, and what to do about it where that is known.
fn tls(error: &dyn fmt::Display) -> String {
    let what = error.to_string();
    let hint = match () {
        () if what.contains("InvalidContentType") => " (is it http, not https?)",
        () if what.contains("UnknownIssuer") => {
            " (the certificates to trust can be named by SSL_CERT_FILE)"
        }
        () => "",
    };
    format!("TLS: {what}{hint}")
}

/// A reader of a body that fails in our words.
struct Told<R> {
    reader: R,
    timeout: Duration,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                Err(node_error(e.into(), self.timeout).into())
            }
            read => read,
        }
    }
}

/// The proxy that the environment names for such URLs, as curl reads it: `https_proxy` or
/// `http_proxy`, else `all_proxy`, and none for the hosts of `no_proxy`; capitals will do too.
fn proxy_from_env(secure: bool) -> Result<Option<Proxy>, String> {
    let var = |name: &str| {
        let value = env::var(name).or_else(|_| env::var(name.to_uppercase()));
        value.ok().filter(|value| !value.is_empty())
    };
    let own = if secure { "https_proxy" } else { "http_proxy" };
    let named = [own, "all_proxy"].into_iter().find_map(|name| Some((name, var(name)?)));
    let Some((name, value)) = named else {
        return Ok(None);
    };
    // The value may have a password in it.
    let wrong = |_| format!("{name} in the environment is no URL of a proxy");
    let proxy = Proxy::new(&value).map_err(wrong)?;
    let mut builder: ureq::ProxyBuilder = Proxy::builder(proxy.protocol())
        .host(proxy.host())
        .port(proxy.port())
        .resolve_target(proxy.protocol() == ProxyProtocol::Socks4);
    if let Some(username) = proxy.username() {
        builder = builder.username(username);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    for host in var("no_proxy").unwrap_or_default().split(',') {
        builder = builder.no_proxy(host.trim());
    }
    builder.build().map(Some).map_err(wrong)
}

/// The addresses that names were resolved to. ureq resolves at every request, even if it then
/// reuses a connection, and starts a thread each time to bound how long that takes.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<String, Vec<SocketAddr>>>);

impl Addresses {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Vec<SocketAddr>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        self.known().clear();
    }
}

#[derive(Debug)]
struct CachingResolver(Arc<Addresses>);

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let server = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or_default(),
            uri.authority().map_or("", |authority| authority.as_str()),
        );
        if let Some(known) = self.0.known().get(&server) {
            let mut addresses = self.empty();
            known.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        let resolved = DefaultResolver::default().resolve(uri, config, timeout);
        let addresses = resolved.map_err(|e| match e {
            ureq::Error::Io(_) => ureq::Error::HostNotFound,
            e => e,
        })?;
        self.0.known().insert(server, addresses.to_vec());
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_url_is_its_parts() {
        for (text, base, host) in [
            ("http://toodles:1337/", "http://toodles:1337", "toodles"),
            ("HTTP://toodles", "http://toodles", "toodles"),
            ("https://a.example/wub/x/", "https://a.example/wub/x", "a.example"),
            ("http://[::1]:1337", "http://[::1]:1337", "::1"),
            ("http://me:secret@a.example", "http://a.example", "a.example"),
        ] {
            let url = NodeUrl::parse(text).expect(text);
            assert_eq!((url.to_string().as_str(), url.host()), (base, host));
            assert!(!format!("{url:?}").contains("secret"));
        }
    }

    #[test]
    fn credentials_are_decoded_and_sent_as_basic_authorization() {
        let url = NodeUrl::parse("http://m%40e:s%3Acret@a").unwrap();
        assert_eq!(url.authorization.unwrap(), format!("Basic {}", STANDARD.encode("m@e:s:cret")));
        let url = NodeUrl::parse("http://me@a").unwrap();
        assert_eq!(url.authorization.unwrap(), format!("Basic {}", STANDARD.encode("me:")));
    }

    #[test]
    fn what_is_no_node_url_is_refused() {
        for text in [
            "toodles",
            "ftp://a",
            "http://",
            "http:///x",
            "http://a/?x",
            "http://a/#x",
            "http://a:99999",
            "http://a b/",
            "http://a:",
            "http://me@",
            "http://a:0",
        ] {
            assert!(NodeUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_encoded_as_components() {
        let url = NodeUrl::parse("http://a/p").unwrap();
        assert_eq!(
            url.join(&["files", "a/b ?#%", "é"]),
            "http://a/p/files/a%2Fb%20%3F%23%25/%C3%A9"
        );
        assert_eq!(url.join(&["00:00.0-2.0-full-_a.ts"]), "http://a/p/00:00.0-2.0-full-_a.ts");
    }

    #[test]
    fn credentials_go_only_where_they_belong() {
        for (from, to, same) in [
            ("http://a/x", "http://a/y", true),
            ("http://a/x", "https://a/x", true),
            ("https://a/x", "http://a/x", false),
            ("http://a/x", "http://b/x", false),
            ("http://a:1/x", "http://a:2/x", false),
        ] {
            assert_eq!(same_host(from, to), same, "{from} {to}");
        }
    }
}
