//! Parts of an HTTP response besides its status: the requested delay, the byte range, the codings,
//! and what went wrong in transfer.

use std::io::{self, BufRead, BufReader, Read};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use flate2::bufread::MultiGzDecoder;
use ureq::Body;
use ureq::http::{HeaderMap, StatusCode, header};

use super::{NodeError, Trouble};

/// A response whose head has arrived.
pub type Response = ureq::http::Response<Body>;

/// How much of an unwanted body is read to keep the connection for the next request. Reading more
/// would cost more than a new connection.
const MAX_IGNORED: u64 = 64 << 10;
/// The longest delay that a node may ask for. A longer one would let a node that is misconfigured,
/// or means harm, drop out of the pass.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Reads an unwanted body to its end, so that the connection can serve the next request, and
/// returns its start. A body that is too long is not read at all.
///
/// # Errors
///
/// Fails if the node falls silent, or for lack of a resource on this machine. Other failures don't
/// matter: the status of the response says enough.
pub fn drain(response: &mut Response) -> Result<Vec<u8>, NodeError> {
    let mut start = Vec::new();
    if response.body().content_length().is_some_and(|length| length > MAX_IGNORED) {
        return Ok(start);
    }
    let mut body = response.body_mut().as_reader().take(MAX_IGNORED);
    match body.read_to_end(&mut start) {
        Err(e) => match node_error(e.into()) {
            e if matches!(e.trouble, Trouble::Silent | Trouble::Local) => Err(e),
            _ => Ok(start),
        },
        Ok(_) => Ok(start),
    }
}

/// How far our clock is ahead of the `Date` of a response; negative if it is behind.
pub fn clock_ahead(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?;
    Some(now - DateTime::<Utc>::from(date))
}

/// The delay that a `Retry-After` header asks for, at most [`MAX_RETRY_AFTER`]. It gives a number
/// of seconds or a date; a date is compared with the node's own `Date`, if it sends one.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let value = text(header::RETRY_AFTER)?;
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number with too many digits for a u64 is certainly above the maximum.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let date = text(header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    until.duration_since(date.unwrap_or(now)).ok().map(|rest| rest.min(MAX_RETRY_AFTER))
}

/// Whether the node says that it can send parts of files.
pub fn takes_ranges(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_RANGES).iter();
    let mut units = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
    units.any(|unit| unit.trim().eq_ignore_ascii_case("bytes"))
}

/// Whether the last chunk marks the end of the body.
pub fn is_chunked(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut codings = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// The length of the body, if the response announces it.
pub fn body_length(response: &Response) -> Option<u64> {
    if let Some(length) = response.body().content_length() {
        return Some(length);
    }
    // ureq knows no length of an empty body.
    let announced = response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?;
    let is_empty = announced.trim().parse() == Ok(0_u64) && !is_chunked(response.headers());
    is_empty.then_some(0)
}

/// The length of the whole file, if this response is its part from byte `from` to the end. `None`
/// if it is any other part, or is encoded: neither can be joined to the bytes already here.
pub fn part_length(response: &Response, from: u64) -> Option<u64> {
    let headers = response.headers();
    if response.status() != StatusCode::PARTIAL_CONTENT
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
    let sent = response.body().content_length();
    (is_rest && sent.is_none_or(|sent| sent == whole - first)).then_some(whole)
}

/// The content codings of a response, in lower case.
///
/// # Errors
///
/// Fails if a transfer coding other than `chunked` is used: ureq would leave the body encoded.
pub fn codings(headers: &HeaderMap) -> Result<Vec<String>, NodeError> {
    let list = |name: header::HeaderName, plain: &str| {
        let values = headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let values: Vec<String> = values.collect();
        let codings = values.iter().flat_map(|value| value.split(','));
        let codings = codings.map(|coding| coding.trim().to_ascii_lowercase());
        let unknown = |coding: &String| !["", "identity", plain].contains(&&**coding);
        codings.filter(unknown).collect::<Vec<String>>()
    };
    match list(header::TRANSFER_ENCODING, "chunked").first() {
        Some(coding) => Err(unknown_coding(coding)),
        None => Ok(list(header::CONTENT_ENCODING, "identity")),
    }
}

fn unknown_coding(coding: &str) -> NodeError {
    let what = format!("the response has the coding {coding:?}, which was not requested");
    NodeError::answered(Trouble::Refused, what)
}

/// A reader of the decoded body, whose errors are [`NodeError`]s.
///
/// # Errors
///
/// Fails if the body has a coding other than gzip.
pub fn decoded<'a>(response: Response) -> Result<Box<dyn Read + 'a>, NodeError> {
    if is_gzip(&response)? {
        return Ok(gunzipped(BufReader::new(body(response))));
    }
    Ok(Box::new(body(response)))
}

/// Whether a body is compressed.
///
/// # Errors
///
/// Fails if the body has a coding other than gzip.
pub fn is_gzip(response: &Response) -> Result<bool, NodeError> {
    let codings = codings(response.headers())?;
    match &codings[..] {
        [] => Ok(false),
        [coding] if matches!(&**coding, "gzip" | "x-gzip") => Ok(true),
        _ => Err(unknown_coding(&codings.join(", "))),
    }
}

/// A reader of the body as it was sent, whose errors are [`NodeError`]s.
pub fn body<'a>(response: Response) -> impl Read + 'a {
    Described(response.into_body().into_reader())
}

/// A reader that decompresses.
pub fn gunzipped<'a>(packed: impl BufRead + 'a) -> Box<dyn Read + 'a> {
    Box::new(Gunzipped(MultiGzDecoder::new(packed)))
}

/// A body whose errors are turned into [`NodeError`]s.
struct Described<R>(R);

impl<R: Read> Read for Described<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                // The head of the response has arrived.
                Err(NodeError { answered: true, ..node_error(e.into()) }.into())
            }
            read => read,
        }
    }
}

/// A body that is decompressed.
struct Gunzipped<R: BufRead>(MultiGzDecoder<R>);

impl<R: BufRead> Read for Gunzipped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            _ if e.get_ref().is_some_and(|inner| inner.is::<NodeError>()) => e,
            io::ErrorKind::UnexpectedEof => {
                NodeError::answered(Trouble::Broken, "the response is truncated").into()
            }
            _ => NodeError::answered(Trouble::Broken, "the response is not valid gzip").into(),
        })
    }
}

/// Turns an error of ureq into one of ours.
pub fn node_error(error: ureq::Error) -> NodeError {
    match error {
        ureq::Error::Io(e) => e.into(),
        e @ (ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..)) => {
            NodeError::answered(Trouble::Broken, format!("the response is not valid HTTP: {e}"))
        }
        // What ureq says where the line with the length of a chunk never ends.
        ureq::Error::BodyStalled => NodeError::answered(
            Trouble::Broken,
            "the response is not valid HTTP: a chunk has no length",
        ),
        e => NodeError::new(Trouble::Broken, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_each_form() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let rest = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
            if let Some(date) = date {
                headers.insert(header::DATE, date.parse().unwrap());
            }
            retry_after(&headers, now).map(|rest| rest.as_secs())
        };
        for (value, seconds) in [
            ("10", Some(10)),
            (" 10 ", Some(10)),
            ("0", Some(0)),
            ("100000", Some(60)),
            ("18446744073709551615", Some(60)),
            ("99999999999999999999999", Some(60)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("Mon, 07 Nov 1994 08:49:47 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", None),
            ("-5", None),
            ("+5", None),
            ("5.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(rest(value, None), seconds, "{value}");
        }
        // The node's own clock counts, if it sends a date.
        let (value, date) = ("Sun, 06 Nov 1994 10:00:10 GMT", "Sun, 06 Nov 1994 10:00:00 GMT");
        assert_eq!(rest(value, Some(date)), Some(10));
        assert_eq!(rest("Sun, 06 Nov 1994 08:49:47 GMT", Some("soon")), Some(10));
    }

    #[test]
    fn only_ranges_of_bytes_are_of_use() {
        for (value, takes_ranges_of_bytes) in [
            ("bytes", true),
            ("Bytes", true),
            ("seconds, bytes", true),
            ("none", false),
            ("", false),
            ("kilobytes", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_RANGES, value.parse().unwrap())]);
            assert_eq!(takes_ranges(&headers), takes_ranges_of_bytes, "{value}");
        }
        assert!(!takes_ranges(&HeaderMap::new()));
    }

    #[test]
    fn only_chunks_mark_the_end_of_a_body() {
        for (coding, is_marked) in [
            ("chunked", true),
            ("Chunked", true),
            ("gzip, chunked", true),
            ("identity", false),
            ("", false),
        ] {
            let value = coding.parse().unwrap();
            let headers = HeaderMap::from_iter([(header::TRANSFER_ENCODING, value)]);
            assert_eq!(is_chunked(&headers), is_marked, "{coding}");
        }
        assert!(!is_chunked(&HeaderMap::new()));
    }

    #[test]
    fn codings_are_recognized_in_any_spelling() {
        let read = |name: header::HeaderName, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name.clone(), value.parse().unwrap());
            }
            codings(&headers)
        };
        for (values, found) in [
            (&["gzip"][..], &["gzip"][..]),
            (&["GZip"], &["gzip"]),
            (&["X-GZIP"], &["x-gzip"]),
            (&["identity"], &[]),
            (&[""], &[]),
            (&["gzip, gzip"], &["gzip", "gzip"]),
            (&["gzip", "br"], &["gzip", "br"]),
        ] {
            assert_eq!(read(header::CONTENT_ENCODING, values).unwrap(), found, "{values:?}");
        }
        assert!(read(header::TRANSFER_ENCODING, &["Chunked"]).is_ok());
        assert!(read(header::TRANSFER_ENCODING, &["gzip, chunked"]).is_err());
    }
}
