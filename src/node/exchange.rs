//! Rewrites requests and response heads on a connection, below ureq. For a proxy that forwards
//! requests, the request line gets the full URL. ureq sees only the final response head, without
//! the interim responses before it, and only the headers that matter here: so a harmless odd header
//! can't make it reject the response.

use std::fmt;
use std::io;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::line::MAX_HEAD;
use super::pace::Watch;
use super::{NodeError, Trouble};

/// How many interim (1xx) responses may precede the final one. Real servers send one or two.
const MAX_INTERIM: usize = 100;

/// The headers that ureq or this module reads.
const HEADERS: [&str; 11] = [
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "location",
    "proxy-status",
    "retry-after",
    "transfer-encoding",
    "x-squid-error",
];

/// What must be added to a request for a proxy that forwards it.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Scheme, host and port of the server, as at the start of its URLs.
    pub server: String,
    /// The value of the `Proxy-Authorization` header.
    pub authorization: Option<String>,
}

/// A connection on which requests and responses alternate.
pub struct Exchange {
    inner: Box<dyn Transport>,
    watch: Watch,
    forward: Option<Forward>,
    phase: Phase,
    /// Whether an earlier response has arrived on this connection.
    is_used: bool,
    /// How many interim responses have arrived before the one awaited.
    interim: usize,
    /// The rewritten head, which ureq reads before the body.
    head: LazyBuffers,
}

/// Where in an exchange a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A request is being sent.
    Request,
    /// The head of the response is awaited.
    Head,
    /// The body of the response is being read.
    Body,
}

impl Exchange {
    /// Wraps a connection that is ready for its first request.
    pub fn new(inner: Box<dyn Transport>, watch: Watch, forward: Option<Forward>) -> Exchange {
        let head = LazyBuffers::new(1, 1);
        Exchange { inner, watch, forward, phase: Phase::Body, is_used: false, interim: 0, head }
    }

    /// Drops the interim responses that have arrived, and takes out the final head once it is
    /// complete.
    fn look_for_head(&mut self, patience: NextTimeout) -> io::Result<()> {
        loop {
            let input = self.inner.buffers().input();
            match Head::find(input) {
                Head::Incomplete if input.len() >= MAX_HEAD => return Err(too_long().into()),
                Head::Incomplete => return Ok(()),
                // Too much was sent for an earlier request. As if the connection had been closed
                // before this one, it is sent again on another connection.
                Head::NotHttp(_) if self.is_used => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Head::NotHttp(what) => {
                    return Err(NodeError::answered(Trouble::Refused, what).into());
                }
                Head::Interim { length } => {
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        let what = "it sends too many interim (1xx) responses";
                        return Err(NodeError::answered(Trouble::Refused, what).into());
                    }
                    self.inner.buffers().input_consume(length);
                }
                Head::Complete { status, length } => {
                    let head = essence(&input[..length]);
                    if head.len() > MAX_HEAD {
                        return Err(too_long().into());
                    }
                    self.inner.buffers().input_consume(length);
                    self.head = LazyBuffers::new(head.len(), 1);
                    self.head.input_append_buf()[..head.len()].copy_from_slice(&head);
                    self.head.input_appended(head.len());
                    (self.phase, self.is_used) = (Phase::Body, true);
                    let is_wanted = matches!(status, 200 | 206);
                    let wanted = patience.per_read.filter(|_| is_wanted);
                    self.watch.expect_body(wanted.map_or_else(Default::default, |it| *it));
                    return Ok(());
                }
            }
        }
    }

    /// Sends the start of a request to a proxy, with the full URL in its first line.
    fn forward_output(
        &mut self,
        forward: &Forward,
        amount: usize,
        timeout: NextTimeout,
    ) -> Result<(), Error> {
        let request = &self.inner.buffers().output()[..amount];
        let request = forward.rewrite(request);
        let mut rest = &request[..];
        while !rest.is_empty() {
            let output = self.inner.buffers().output();
            let part = rest.len().min(output.len());
            output[..part].copy_from_slice(&rest[..part]);
            self.inner.transmit_output(part, timeout)?;
            rest = &rest[part..];
        }
        Ok(())
    }
}

impl Forward {
    fn rewrite(&self, request: &[u8]) -> Vec<u8> {
        let path = request.iter().position(|byte| *byte == b' ').map_or(0, |at| at + 1);
        let line = request.windows(2).position(|two| two == b"\r\n").map_or(0, |at| at + 2);
        let (method, rest) = request.split_at(path);
        let (line, headers) = rest.split_at(line.saturating_sub(path));
        let authorization = match &self.authorization {
            Some(value) => format!("Proxy-Authorization: {value}\r\n"),
            None => String::new(),
        };
        [method, self.server.as_bytes(), line, authorization.as_bytes(), headers].concat()
    }
}

impl Transport for Exchange {
    fn buffers(&mut self) -> &mut dyn Buffers {
        if self.phase == Phase::Head || !self.head.input().is_empty() {
            &mut self.head
        } else {
            self.inner.buffers()
        }
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let begins = self.phase != Phase::Request;
        if begins {
            (self.phase, self.interim) = (Phase::Request, 0);
            self.watch.expect_head();
        }
        let forward = if begins { self.forward.clone() } else { None };
        match forward {
            Some(forward) => self.forward_output(&forward, amount, timeout),
            None => self.inner.transmit_output(amount, timeout),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if self.phase == Phase::Body {
            return self.inner.await_input(timeout);
        }
        self.phase = Phase::Head;
        while self.phase == Phase::Head {
            if !self.inner.await_input(timeout)? {
                return Ok(false);
            }
            self.look_for_head(timeout).map_err(Error::Io)?;
        }
        Ok(true)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// What the input so far is.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// The start of a head.
    Incomplete,
    /// A complete head of an interim response; another one follows.
    Interim {
        /// Its length in bytes.
        length: usize,
    },
    /// The complete head of a final response.
    Complete {
        /// The status code.
        status: u16,
        /// Its length in bytes.
        length: usize,
    },
    /// Not HTTP, described by a clause.
    NotHttp(String),
}

impl Head {
    /// Examines the input so far.
    pub fn find(input: &[u8]) -> Head {
        // Empty lines before a head are skipped.
        let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let head = &input[blank..];
        let known = head.len().min(5);
        if head[..known] != b"HTTP/"[..known] {
            return Head::NotHttp(protocol_error(head));
        }
        let Some(length) = length_of(head) else {
            return Head::Incomplete;
        };
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let status = line.split_ascii_whitespace().nth(1).and_then(|it| it.parse().ok());
        match status.unwrap_or(0) {
            // After 101 the protocol is no longer HTTP.
            100 | 102..=199 => Head::Interim { length: blank + length },
            status => Head::Complete { status, length: blank + length },
        }
    }
}

/// The length of a head, including the empty line at its end.
fn length_of(head: &[u8]) -> Option<usize> {
    let mut line_begins = 0;
    for (at, byte) in head.iter().enumerate() {
        if *byte == b'\n' {
            if matches!(&head[line_begins..at], b"" | b"\r") {
                return Some(at + 1);
            }
            line_begins = at + 1;
        }
    }
    None
}

fn too_long() -> NodeError {
    let what = format!("the head of the response is longer than {} KiB", MAX_HEAD >> 10);
    NodeError::answered(Trouble::Refused, what)
}

/// The head without the headers that nothing reads, in the syntax of RFC 9112.
pub fn essence(head: &[u8]) -> Vec<u8> {
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let status_line = lines.by_ref().find(|line| !line.is_empty()).unwrap_or_default();
    let mut words = status_line.split(|byte| *byte == b' ');
    let version = words.next().filter(|version| *version == b"HTTP/1.0").unwrap_or(b"HTTP/1.1");
    let status = words.find(|word| !word.is_empty()).unwrap_or(b"000");
    let mut essence = Vec::with_capacity(head.len() + 16);
    append(&mut essence, &[version, b" ", status, b"\r\n"]);
    let mut is_kept = false;
    for line in lines {
        // A line that starts with a blank continues the header before it.
        let is_continued = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        if is_continued {
            if is_kept {
                essence.truncate(essence.len() - 2);
                append(&mut essence, &[b" ", line.trim_ascii(), b"\r\n"]);
            }
            continue;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii();
        is_kept = HEADERS.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
            && line.len() > name.len();
        if is_kept {
            let value = &line[line.iter().position(|byte| *byte == b':').unwrap_or(0)..];
            append(&mut essence, &[name, value, b"\r\n"]);
        }
    }
    append(&mut essence, &[b"\r\n"]);
    essence
}

fn append(text: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| text.extend_from_slice(part));
}

/// Describes the protocol that this input belongs to instead of HTTP.
fn protocol_error(input: &[u8]) -> String {
    match input {
        // A TLS record: an alert, or part of a handshake.
        [0x15 | 0x16, 0x03, ..] | [0x15 | 0x16] => {
            "the response is TLS, not HTTP (should the URL be https?)".into()
        }
        [b'S', b'S', b'H', b'-', ..] => "the response is SSH, not HTTP (is the port right?)".into(),
        _ => "the response is not HTTP (is the port right?)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_wherever_packets_end() {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for end in 0..response.len() - 2 {
            assert_eq!(Head::find(&response[..end]), Head::Incomplete, "{end}");
        }
        let length = response.len() - 2;
        assert_eq!(Head::find(response), Head::Complete { status: 200, length });
        let response = b"\r\nHTTP/1.0 404\nX: y\n\n";
        assert_eq!(Head::find(response), Head::Complete { status: 404, length: response.len() });
    }

    #[test]
    fn interim_responses_are_recognized() {
        for (head, is_interim) in [
            ("HTTP/1.1 100 Continue\r\n\r\n", true),
            ("HTTP/1.1 100 Continue\r\nX: y\r\n\r\n", true),
            ("HTTP/1.1 102 Processing\r\n\r\n", true),
            ("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", true),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
        ] {
            let found = Head::find(format!("{head}HTTP/1.1 200 OK\r\n\r\n").as_bytes());
            let interim = Head::Interim { length: head.len() };
            assert_eq!(found == interim, is_interim, "{head}");
        }
    }

    #[test]
    fn only_known_headers_are_kept() {
        for (head, left) in [
            (
                "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\n",
                "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n",
            ),
            ("HTTP/1.0 404\nDATE : x\nX Y: z\n\n", "HTTP/1.0 404\r\nDATE: x\r\n\r\n"),
            ("\r\nHTTP/2  200\r\nX: y\r\n z\r\n\r\n", "HTTP/1.1 200\r\n\r\n"),
            ("HTTP/1.1 302\r\nLocation:\r\n /x\r\n\r\n", "HTTP/1.1 302\r\nLocation: /x\r\n\r\n"),
            ("HTTP/1.1\r\n\r\n", "HTTP/1.1 000\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\nLocation\r\n\r\n", "HTTP/1.1 200\r\n\r\n"),
        ] {
            assert_eq!(String::from_utf8(essence(head.as_bytes())).unwrap(), left, "{head:?}");
        }
    }

    #[test]
    fn known_other_protocols_are_named() {
        for (input, said) in [
            (&b"\x15\x03\x03\x00\x02\x02\x46"[..], "TLS"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
            (b"220 mail.example ESMTP\r\n", "is not HTTP"),
        ] {
            let Head::NotHttp(what) = Head::find(input) else { panic!("{said}") };
            assert!(what.contains(said), "{what}");
        }
    }

    #[test]
    fn a_proxy_gets_the_full_url() {
        let forward = |authorization: Option<&str>| Forward {
            server: "http://toodles:1337".into(),
            authorization: authorization.map(String::from),
        };
        let request = b"GET /files/a%20b?x HTTP/1.1\r\nHost: toodles:1337\r\n\r\n";
        let whole = "GET http://toodles:1337/files/a%20b?x HTTP/1.1\r\n";
        assert_eq!(
            String::from_utf8(forward(None).rewrite(request)).unwrap(),
            format!("{whole}Host: toodles:1337\r\n\r\n")
        );
        assert_eq!(
            String::from_utf8(forward(Some("Basic x")).rewrite(request)).unwrap(),
            format!("{whole}Proxy-Authorization: Basic x\r\nHost: toodles:1337\r\n\r\n")
        );
    }
}
