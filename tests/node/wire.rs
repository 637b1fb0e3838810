//! Reads requests and sends responses, correct or faulty, byte by byte.

use std::io::{self, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress};
use rustls::ServerConnection;
use socket2::SockRef;

use super::{Fault, Plan, Ranges, Request, Shared};

/// The maximal length of a request's head.
const LONGEST_HEAD: usize = 64 * 1024;
/// The size of the chunks of a well-formed chunked response.
const CHUNK: usize = 500;
/// How long the client of a closed connection may continue to send before it gets a reset.
const LINGER: Duration = Duration::from_secs(1);
/// How long sent bytes have to reach the client before a reset.
const BEFORE_RESET: Duration = Duration::from_millis(30);

/// Responds to the requests of a connection until one side closes it.
pub(super) fn serve(shared: &Shared, connection: usize, socket: Arc<TcpStream>) {
    let mut wire = Wire::new(shared, socket);
    match converse(shared, connection, &mut wire) {
        Ok(End::Close) => wire.close(),
        Ok(End::Reset) => wire.reset_on_drop(),
        // The client has gone, or the node has stopped.
        Err(_) => {}
    }
    shared.forget(connection);
}

/// How the node ends a connection.
enum End {
    /// Orderly, with FIN.
    Close,
    /// With RST.
    Reset,
}

/// What follows a response: the next request, or an end.
type Then = Option<End>;

fn converse(shared: &Shared, connection: usize, wire: &mut Wire) -> io::Result<End> {
    loop {
        let Some(request) = Request::parse(&wire.read_head()?, connection) else {
            return Ok(End::Close);
        };
        if mem::take(&mut wire.has_excess) {
            wire.send(b"and more.\n")?;
        }
        let plan = shared.receive(request);
        let mut exchange = Exchange { shared, wire, plan };
        if let Some(end) = exchange.answer()? {
            return Ok(end);
        }
    }
}

// ---- Answers ----------------------------------------------------------------------------------

/// A response before it is encoded.
pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Arc<[u8]>,
}

impl Answer {
    /// A JSON list, with the type text/html as nodes send it. Its order is always the same, but
    /// unrelated to the meaning of the names.
    pub(super) fn listing(mut names: Vec<&str>) -> Answer {
        names.sort_by_cached_key(|name| name.bytes().rev().collect::<Vec<_>>());
        let names: Vec<String> = names.into_iter().map(json_string).collect();
        Answer::html(200, format!("[{}]", names.join(", ")).into_bytes())
    }

    /// A file's content, as nginx serves it.
    pub(super) fn segment(content: Arc<[u8]>) -> Answer {
        let headers = vec![
            ("Content-Type", "video/mp2t".to_owned()),
            ("Last-Modified", "Sat, 10 Nov 2018 06:00:00 GMT".to_owned()),
            ("ETag", format!("\"5be674e0-{:x}\"", content.len())),
        ];
        Answer { status: 200, headers, body: content }
    }

    /// Only a status, with a page that names it where a body is allowed.
    pub(super) fn status(status: u16) -> Answer {
        let title = format!("{status} {}", reason(status));
        let page = match status {
            204 | 304 => String::new(),
            _ => format!("<html><head><title>{title}</title></head><h1>{title}</h1></html>\n"),
        };
        Answer::html(status, page.into_bytes())
    }

    pub(super) fn unauthorized() -> Answer {
        Answer::status(401).with("WWW-Authenticate", "Basic realm=\"node\"".to_owned())
    }

    /// The response to a request for a segment from this byte on.
    pub(super) fn part(self, first: usize, ranges: Ranges) -> Answer {
        let length = self.body.len();
        let first = if ranges == Ranges::Mistake { 0 } else { first };
        match ranges {
            _ if self.status != 200 => self,
            Ranges::Ignore => self,
            Ranges::Fail(status) => Answer::status(status),
            Ranges::Honour | Ranges::Mistake | Ranges::Lie if first < length => {
                let range = format!("bytes {first}-{}/{length}", length - 1);
                let mut body = self.body[first..].to_vec();
                if ranges == Ranges::Lie {
                    body.iter_mut().for_each(|byte| *byte = !*byte);
                }
                Answer { status: 206, body: body.into(), ..self.with("Content-Range", range) }
            }
            _ => Answer::status(416).with("Content-Range", format!("bytes */{length}")),
        }
    }

    fn html(status: u16, body: Vec<u8>) -> Answer {
        let answer = Answer { status, headers: vec![], body: body.into() };
        answer.with("Content-Type", "text/html; charset=utf-8".to_owned())
    }

    /// The same with a different body.
    fn with_body(&self, body: Vec<u8>) -> Answer {
        Answer { status: self.status, headers: self.headers.clone(), body: body.into() }
    }

    pub(super) fn with(mut self, name: &'static str, value: String) -> Answer {
        self.headers.push((name, value));
        self
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Something Else",
    }
}

fn json_string(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => json += &format!("\\u{:04x}", control as u32),
            plain => json.push(plain),
        }
    }
    json.push('"');
    json
}

// ---- Sending ----------------------------------------------------------------------------------

/// How a response marks the end of its body.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    /// The same, in HTTP/1.0.
    Http10,
}

/// The response to one request.
struct Exchange<'a> {
    shared: &'a Shared,
    wire: &'a mut Wire,
    plan: Plan,
}

impl Exchange<'_> {
    fn answer(&mut self) -> io::Result<Then> {
        if self.plan.is_held {
            self.hang()?;
        }
        self.pause(self.plan.delay)?;
        let length = Framing::Length(self.body().len());
        let Some(fault) = self.plan.fault.take() else {
            return self.send_answer(length);
        };
        match fault {
            // Late or never.
            Fault::Delay(delay) => {
                self.pause(delay)?;
                self.send_answer(length)
            }
            Fault::Hang => {
                self.hang()?;
                self.send_answer(length)
            }
            Fault::HangInHeaders => self.hang_in_headers(),
            Fault::HangInBody(count) => self.hang_in_body(count),
            Fault::Trickle(count, every) => self.trickle(count, every),
            Fault::TrickleHead(every) => self.trickle_head(every),

            // Truncated.
            Fault::CutOff(count) => self.send_and_close(count, length),
            Fault::CutOffChunked(count) => self.send_and_close(count, Framing::Chunked),
            Fault::CutOffUnannounced(count) => self.send_and_close(count, Framing::UntilClose),
            Fault::Reset => Ok(Some(End::Reset)),
            Fault::ResetInBody(count) => {
                self.send_first(count, length)?;
                self.pause(BEFORE_RESET)?;
                Ok(Some(End::Reset))
            }

            // Something else or too much.
            Fault::Corrupt => {
                let body = corrupted(&self.body());
                self.send_instead(self.plan.answer.with_body(body))
            }
            Fault::Longer => {
                let body = [&self.body(), &b"and more.\n"[..]].concat();
                self.send_instead(self.plan.answer.with_body(body))
            }
            Fault::Status(status) => self.send_instead(Answer::status(status)),
            Fault::StatusWithHeader(status, name, value) => {
                self.send_instead(Answer::status(status).with(name, value))
            }
            Fault::Body(body) => self.send_instead(Answer::html(200, body)),
            Fault::Endless => self.send_endlessly(),
            Fault::GzipBomb => self.send_gzip_bomb(),
            Fault::EmptyGzipBlocks => self.send_empty_gzip_blocks(),
            Fault::TrickleStatus(status, every) => {
                self.plan.answer = Answer::status(status);
                self.trickle(1, every)
            }

            // Correct, in another form.
            Fault::CloseAfter => {
                self.plan.closes = false;
                self.send_answer(length)?;
                Ok(Some(End::Close))
            }
            Fault::Excess => {
                self.wire.has_excess = true;
                self.send_answer(length)
            }
            Fault::Http10 => self.send_and_close(usize::MAX, Framing::Http10),
            Fault::Chunked => self.send_answer(Framing::Chunked),
            Fault::Gzip if self.plan.accepts_gzip => {
                let answer = self.plan.answer.with_body(gzipped(&self.body()));
                self.plan.answer = answer.with("Content-Encoding", "gzip".to_owned());
                self.send_answer(Framing::Chunked)
            }
            Fault::Gzip => self.send_answer(length),
        }
    }

    /// Sends a correct response and continues.
    fn send_answer(&mut self, framing: Framing) -> io::Result<Then> {
        self.send_first(usize::MAX, framing)?;
        if matches!(framing, Framing::Chunked) {
            self.wire.send(b"0\r\n\r\n")?;
        }
        Ok(self.next())
    }

    fn send_instead(&mut self, answer: Answer) -> io::Result<Then> {
        self.plan.answer = answer;
        self.send_answer(Framing::Length(self.body().len()))
    }

    fn send_and_close(&mut self, count: usize, framing: Framing) -> io::Result<Then> {
        self.send_first(count, framing)?;
        Ok(Some(End::Close))
    }

    /// Sends the head and this many bytes of the body, without the end of a chunked body.
    fn send_first(&mut self, count: usize, framing: Framing) -> io::Result<()> {
        let body = self.body();
        let first = &body[..count.min(body.len())];
        self.send_head(framing)?;
        if !matches!(framing, Framing::Chunked) {
            return self.send_bytes(first);
        }
        let mut parts = first.chunks(CHUNK);
        parts.try_for_each(|part| self.send_chunk(part))
    }

    fn hang_in_headers(&mut self) -> io::Result<Then> {
        let body = self.body();
        let head = self.head(Framing::Length(body.len()));
        let silence = head.find("ngth: ").expect("the head announces a length");
        let (before, after) = head.as_bytes().split_at(silence);
        self.wire.send(before)?;
        self.hang()?;
        self.wire.send(after)?;
        self.send_bytes(&body)?;
        Ok(self.next())
    }

    fn hang_in_body(&mut self, count: usize) -> io::Result<Then> {
        let body = self.body();
        let (before, after) = body.split_at(count.min(body.len()));
        self.send_head(Framing::Length(body.len()))?;
        self.send_bytes(before)?;
        self.hang()?;
        self.send_bytes(after)?;
        Ok(self.next())
    }

    fn trickle(&mut self, count: usize, every: Duration) -> io::Result<Then> {
        let body = self.body();
        self.send_head(Framing::Length(body.len()))?;
        for (pauses, part) in body.chunks(count.max(1)).enumerate() {
            self.pause(if pauses == 0 { Duration::ZERO } else { every })?;
            self.send_bytes(part)?;
        }
        Ok(self.next())
    }

    fn trickle_head(&mut self, every: Duration) -> io::Result<Then> {
        let body = self.body();
        for byte in self.head(Framing::Length(body.len())).as_bytes() {
            self.wire.send(&[*byte])?;
            self.pause(every)?;
        }
        self.send_bytes(&body)?;
        Ok(self.next())
    }

    fn send_endlessly(&mut self) -> io::Result<Then> {
        self.send_first(usize::MAX, Framing::Chunked)?;
        let spaces = [b' '; 16 * 1024];
        loop {
            self.send_chunk(&spaces)?;
        }
    }

    fn send_gzip_bomb(&mut self) -> io::Result<Then> {
        let answer = Answer::html(200, GZIP_HEADER.to_vec());
        self.plan.answer = answer.with("Content-Encoding", "gzip".to_owned());
        self.send_first(usize::MAX, Framing::Chunked)?;
        let megabyte = deflated_spaces(1 << 20);
        loop {
            self.send_chunk(&megabyte)?;
        }
    }

    /// Continues for ever, and decompresses to nothing.
    fn send_empty_gzip_blocks(&mut self) -> io::Result<Then> {
        let answer = Answer::html(200, GZIP_HEADER.to_vec());
        self.plan.answer = answer.with("Content-Encoding", "gzip".to_owned());
        self.send_first(usize::MAX, Framing::Chunked)?;
        let stored_blocks_of_nothing = [0, 0, 0, 0xff, 0xff].repeat(3000);
        loop {
            self.send_chunk(&stored_blocks_of_nothing)?;
        }
    }

    /// What follows a well-formed response.
    fn next(&self) -> Then {
        self.plan.closes.then_some(End::Close)
    }

    fn body(&self) -> Arc<[u8]> {
        Arc::clone(&self.plan.answer.body)
    }

    fn head(&self, framing: Framing) -> String {
        let version = match framing {
            Framing::Http10 => "1.0",
            _ => "1.1",
        };
        let status = self.plan.answer.status;
        let mut head = format!("HTTP/{version} {status} {}\r\n", reason(status));
        head += &match framing {
            Framing::Length(length) => format!("Content-Length: {length}\r\n"),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::UntilClose | Framing::Http10 => String::new(),
        };
        for (name, value) in &self.plan.answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += match framing {
            Framing::Http10 => "",
            Framing::UntilClose => "Connection: close\r\n",
            _ if self.plan.closes => "Connection: close\r\n",
            _ => "Connection: keep-alive\r\n",
        };
        head + "\r\n"
    }

    fn send_head(&mut self, framing: Framing) -> io::Result<()> {
        let head = self.head(framing);
        self.wire.send(head.as_bytes())
    }

    fn send_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let size = format!("{:x}\r\n", bytes.len());
        self.send_bytes(&[size.as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Sends bytes of the body at the limited rate.
    fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(rate) = self.plan.bytes_per_second else {
            return self.send_part(bytes);
        };
        // Twenty parts a second look like a steady flow.
        let step = usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1);
        let start = Instant::now();
        let mut sent = 0;
        for part in bytes.chunks(step) {
            sent += part.len();
            let due = start + Duration::from_secs_f64(sent as f64 / rate as f64);
            self.shared.wait(self.plan.patience, Some(due))?;
            self.send_part(part)?;
        }
        Ok(())
    }

    fn send_part(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes)?;
        if self.plan.is_segment && matches!(self.plan.answer.status, 200 | 206) {
            self.shared.sent(bytes.len());
        }
        Ok(())
    }

    fn pause(&self, duration: Duration) -> io::Result<()> {
        // A deadline that can't be represented is none.
        let deadline = Instant::now().checked_add(duration);
        self.shared.wait(self.plan.patience, deadline)
    }

    fn hang(&self) -> io::Result<()> {
        self.shared.wait(self.plan.patience, None)
    }
}

// ---- Altered bodies ---------------------------------------------------------------------------

fn corrupted(content: &[u8]) -> Vec<u8> {
    let mut corrupted = content.to_vec();
    if let Some(byte) = corrupted.get_mut(content.len() / 2) {
        *byte ^= 0x01;
    }
    corrupted
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(content);
    written.and_then(|()| encoder.finish()).expect("writing to memory doesn't fail")
}

/// The start of a gzip file: deflate, no flags, no time, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Spaces, compressed to a whole number of bytes that don't refer to earlier ones, so that they can
/// be repeated in one stream.
fn deflated_spaces(count: usize) -> Vec<u8> {
    let mut deflated = Vec::with_capacity(count);
    Compress::new(Compression::best(), false)
        .compress_vec(&vec![b' '; count], &mut deflated, FlushCompress::Full)
        .expect("spaces can be compressed");
    deflated
}

// ---- Requests ---------------------------------------------------------------------------------

impl Request {
    /// Parses the head of a request; `None` if it is not HTTP. The node determines the resource.
    fn parse(head: &str, connection: usize) -> Option<Request> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, path, version) = (words.next()?, words.next()?, words.next()?);
        let headers = lines.filter_map(|line| line.split_once(':'));
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            resource: String::new(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
            connection,
            at: Instant::now(),
            closes: false,
        };
        let says = request.header("Connection").unwrap_or_default();
        let says_close = says.eq_ignore_ascii_case("close");
        // Requests of other methods may have a body, which is not read.
        request.closes = says_close || version != "HTTP/1.1" || method != "GET";
        Some(request)
    }

    pub(super) fn accepts_gzip(&self) -> bool {
        let accepted = self.header("Accept-Encoding").unwrap_or_default();
        accepted.split(',').any(|coding| {
            let (name, quality) = coding.split_once(";q=").unwrap_or((coding, "1"));
            let is_refused = quality.trim().parse() == Ok(0.0);
            name.trim().eq_ignore_ascii_case("gzip") && !is_refused
        })
    }
}

/// The text with each `%XX` replaced by the byte that it stands for.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

// ---- The connection ---------------------------------------------------------------------------

/// A connection's bytes, through TLS where the node speaks it.
struct Wire {
    socket: Arc<TcpStream>,
    tls: Option<ServerConnection>,
    /// Bytes that were read but don't belong to a request yet.
    unread: Vec<u8>,
    /// Whether there are more bytes to send than the last response announced.
    has_excess: bool,
}

impl Wire {
    fn new(shared: &Shared, socket: Arc<TcpStream>) -> Wire {
        // Each write must be sent at once. An error means that the client has gone, which the first
        // read will notice.
        let _ = socket.set_nodelay(true);
        let tls = shared.tls.clone();
        let tls = tls.map(|config| ServerConnection::new(config).expect("a sound TLS config"));
        Wire { socket, tls, unread: Vec::new(), has_excess: false }
    }

    /// The head of the next request, without the empty line at its end.
    fn read_head(&mut self) -> io::Result<String> {
        loop {
            let mut places = self.unread.windows(4);
            if let Some(end) = places.position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.unread.drain(..end + 4).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&head[..end]).into_owned());
            }
            let mut buffer = [0; 4096];
            let count = self.receive(&mut buffer)?;
            if count == 0 || self.unread.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend(&buffer[..count]);
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = &*self.socket;
        match &mut self.tls {
            None => socket.read(buffer),
            Some(tls) => rustls::Stream::new(tls, &mut socket).read(buffer),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut socket = &*self.socket;
        match &mut self.tls {
            None => socket.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls, &mut socket);
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Closes TLS and sends FIN, then waits for the client's FIN: closing with unread bytes of the
    /// client would send a reset.
    fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // Errors, here and below, mean that the client has gone before.
            let _ = tls.complete_io(&mut &*self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        let _ = self.socket.set_read_timeout(Some(LINGER));
        let mut ignored = [0; 4096];
        while matches!((&*self.socket).read(&mut ignored), Ok(1..)) {}
    }

    /// Makes the following close send RST instead of FIN.
    fn reset_on_drop(&self) {
        SockRef::from(&*self.socket).set_linger(Some(Duration::ZERO)).expect("a linger of zero");
    }
}
