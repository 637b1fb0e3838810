//! Listings from nodes. Names are passed on one by one, so a long listing is never held in memory
//! as a whole: a listing of the usual size is read to its end and then parsed, a longer one is
//! parsed as it arrives.

use std::fmt;
use std::io::{self, BufReader, Read};

use serde::de::{Deserializer, Error as _, IgnoredAny, SeqAccess, Visitor};

use super::response::gunzipped;
use super::{NodeError, Trouble};

/// The longest listing to read, in bytes: room for 600,000 names, as many as two weeks of one
/// variant.
pub const MAX_LISTING: u64 = 64 << 20;
/// The longest listing that is read to its end before it is parsed, so that a truncated one has no
/// effect. An hour of 1,800 names has about 130 kB.
const BUFFERED: u64 = 256 << 10;
/// The most bytes between two quotes of a listing that is parsed as it arrives. It bounds memory:
/// the parser holds a name as a whole, so a longer name is cut. Between names, real listings have
/// no long gaps.
const MAX_GAP: usize = 64 << 10;

/// A listing: names that are not yet checked in any way.
pub enum Listing<'a> {
    /// A listing read to its end, so that looking through it doesn't wait for the node.
    Whole(Whole),
    /// A longer JSON list, which is still arriving.
    LongJson(LongJson<'a>),
    /// Names from a source other than JSON.
    Names(Box<Names<'a>>),
}

/// A JSON list of strings that was read to its end.
pub enum Whole {
    /// Plain text.
    Json(Vec<u8>),
    /// Still compressed: many listings arrive at the same time, and few are looked through at the
    /// same time.
    Gzip(Vec<u8>),
}

/// The text of a long list. Its parser takes one byte at a time, which is quick only from a
/// [`BufReader`] itself.
type LongJson<'a> = BufReader<Bounded<Box<dyn Read + 'a>>>;

/// Calls `each` with every name.
pub type Names<'a> = dyn FnOnce(&mut Each<'_>) -> Result<(), NodeError> + 'a;

/// The callback for each name. An error that it returns ends the listing.
pub type Each<'a> = dyn FnMut(Option<&str>) -> Result<(), NodeError> + 'a;

impl<'a> Listing<'a> {
    /// Reads a JSON list, perhaps compressed, or the start of a long one. If its length in bytes
    /// is known, it takes no more memory than that.
    ///
    /// # Errors
    ///
    /// Fails if reading fails.
    pub fn read(
        mut body: impl Read + 'a,
        length: Option<u64>,
        is_gzip: bool,
    ) -> Result<Listing<'a>, NodeError> {
        let length = length.map_or(BUFFERED, |length| length.min(BUFFERED));
        let mut start = Vec::with_capacity(length as usize + 1);
        body.by_ref().take(BUFFERED + 1).read_to_end(&mut start)?;
        if start.len() as u64 <= BUFFERED {
            let whole = if is_gzip { Whole::Gzip(start) } else { Whole::Json(start) };
            return Ok(Listing::Whole(whole));
        }
        let whole = io::Cursor::new(start).chain(body);
        let json: Box<dyn Read + 'a> =
            if is_gzip { gunzipped(BufReader::new(whole)) } else { Box::new(whole) };
        Ok(Listing::long(json))
    }

    fn long(json: Box<dyn Read + 'a>) -> Listing<'a> {
        Listing::LongJson(BufReader::new(Bounded::new(json)))
    }

    /// Calls `each` with every name, or with `None` for a name that is not Unicode and so can't
    /// occur in an archive.
    ///
    /// # Errors
    ///
    /// Fails if the listing is not a complete list of strings; the names passed on until then still
    /// count. An error from `each` ends the listing and is returned.
    pub fn for_each(
        self,
        mut each: impl FnMut(Option<&str>) -> Result<(), NodeError>,
    ) -> Result<(), NodeError> {
        match self {
            Listing::Whole(Whole::Json(text)) => {
                let what = looks_like_a_page(&text);
                parse(serde_json::Deserializer::from_slice(&text), &mut each, what)
            }
            Listing::Whole(Whole::Gzip(packed)) => {
                let json = gunzipped(io::Cursor::new(packed));
                Listing::read(json, None, false)?.for_each(each)
            }
            Listing::LongJson(json) => {
                parse(serde_json::Deserializer::from_reader(json), &mut each, false)
            }
            Listing::Names(names) => names(&mut each),
        }
    }
}

impl fmt::Debug for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").finish_non_exhaustive()
    }
}

fn parse<'de, R: serde_json::de::Read<'de>>(
    mut json: serde_json::Deserializer<R>,
    each: &mut Each<'_>,
    is_page: bool,
) -> Result<(), NodeError> {
    let mut ended = None;
    let read = json.deserialize_seq(List { each, ended: &mut ended }).and_then(|()| json.end());
    if let Some(error) = ended {
        return Err(error);
    }
    read.map_err(|e| match e.classify() {
        serde_json::error::Category::Io => io::Error::from(e).into(),
        // A listing that just stops may have been cut short, so retrying may help.
        serde_json::error::Category::Eof => {
            let what = format!("the response is not a JSON list of names: {e}");
            NodeError::answered(Trouble::Broken, what)
        }
        _ => {
            let what = if is_page {
                "the response is a web page, not a JSON list of names".to_owned()
            } else {
                format!("the response is not a JSON list of names: {e}")
            };
            NodeError::answered(Trouble::Refused, format!("{what} (is the node's URL right?)"))
        }
    })
}

/// Whether a response looks like a web page.
pub fn looks_like_a_page(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b'<')
}

/// Limits a listing as it arrives. Reading fails if the listing is longer than [`MAX_LISTING`], or
/// has a gap of more than [`MAX_GAP`] between names. A name longer than that is cut, so that it
/// does no harm to the other names.
pub struct Bounded<R> {
    json: R,
    left: u64,
    in_name: bool,
    /// Whether the last byte was a backslash that escapes the next one.
    escaped: bool,
    since_quote: usize,
    since_escape: usize,
    /// Whether the rest of a name is being dropped.
    is_cut: bool,
}

impl<R: Read> Bounded<R> {
    fn new(json: R) -> Bounded<R> {
        Bounded {
            json,
            left: MAX_LISTING,
            in_name: false,
            escaped: false,
            since_quote: 0,
            since_escape: 0,
            is_cut: false,
        }
    }

    /// Whether to keep this byte, the next one.
    fn keeps(&mut self, byte: u8) -> bool {
        let is_escape = self.in_name && !self.escaped && byte == b'\\';
        let is_quote = !self.escaped && byte == b'"';
        self.since_quote = if is_quote { 0 } else { self.since_quote + 1 };
        self.since_escape = if is_escape { 0 } else { self.since_escape + 1 };
        self.escaped = is_escape;
        if is_quote {
            (self.in_name, self.is_cut) = (!self.in_name, false);
        } else if self.in_name && self.since_quote > MAX_GAP {
            // Never cut within an escape; the longest is `\u1234`.
            self.is_cut |= is_escape || self.since_escape > 6;
        }
        !self.is_cut
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let refuse = |what: String| Err(NodeError::answered(Trouble::Refused, what).into());
        loop {
            let read = self.json.read(buffer)?;
            let Some(left) = self.left.checked_sub(read as u64) else {
                return refuse(format!("the listing is longer than {} MiB", MAX_LISTING >> 20));
            };
            self.left = left;
            let mut kept = 0;
            for at in 0..read {
                if self.keeps(buffer[at]) {
                    buffer[kept] = buffer[at];
                    kept += 1;
                }
            }
            if !self.in_name && self.since_quote > MAX_GAP {
                return refuse("the listing has more than 64 KiB between two names".into());
            }
            if kept > 0 || read == 0 {
                return Ok(kept);
            }
        }
    }
}

/// Visits a list of strings without keeping them.
struct List<'e, 'f> {
    each: &'e mut Each<'f>,
    /// The error from `each` that ended the visit.
    ended: &'e mut Option<NodeError>,
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut names: A) -> Result<(), A::Error> {
        while names.next_element_seed(Name(&mut self))?.is_some() {}
        Ok(())
    }
}

/// One string of the list. It is read as bytes: nodes write file names that are not UTF-8 as lone
/// surrogates, and one such name must not invalidate the list.
struct Name<'l, 'e, 'f>(&'l mut List<'e, 'f>);

impl<'de> serde::de::DeserializeSeed<'de> for Name<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Name<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<(), E> {
        (self.0.each)(str::from_utf8(name).ok()).map_err(|error| {
            *self.0.ended = Some(error);
            E::custom("stopped by the callback")
        })
    }

    // When asked for bytes, serde_json also accepts a list of numbers. That is not a name.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("expected a name, found a list"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(json: &[u8]) -> Result<Vec<Option<String>>, String> {
        let mut names = Vec::new();
        let listing = Listing::read(json, None, false).map_err(|e| e.to_string())?;
        let read = listing.for_each(|name| {
            names.push(name.map(String::from));
            Ok(())
        });
        read.map(|()| names).map_err(|e| e.to_string())
    }

    #[test]
    fn a_list_of_strings_is_read() {
        assert_eq!(names(b"[]").unwrap(), []);
        let read = names(b" [\"a\", \"b\\u00e9\\n\"] ").unwrap();
        assert_eq!(read, [Some("a".into()), Some("bé\n".into())]);
    }

    #[test]
    fn a_name_that_is_not_unicode_affects_only_itself() {
        let read = names(b"[\"a\", \"x\\udc80\", \"\xff\", \"b\"]").unwrap();
        assert_eq!(read, [Some("a".into()), None, None, Some("b".into())]);
    }

    #[test]
    fn anything_else_is_an_error() {
        for json in [
            &b""[..],
            b"{}",
            b"null",
            b"[1]",
            b"[[\"a\"]]",
            b"[\"a\"",
            b"[\"a\"] x",
            b"<html>",
            b"[{\"a\":1}]",
            b"\"a\"",
            b"[null]",
            b"[[1,2]]",
        ] {
            assert!(names(json).is_err(), "{}", String::from_utf8_lossy(json));
        }
        let deep = "[".repeat(100_000);
        assert!(names(deep.as_bytes()).is_err());
    }

    /// This list, preceded by more names than are buffered.
    fn long(json: &str) -> Vec<u8> {
        let names = "\"before\",".repeat(BUFFERED as usize / 8);
        json.replacen('[', &format!("[{names}"), 1).into_bytes()
    }

    #[test]
    fn a_long_list_is_parsed_the_same_way_as_it_arrives() {
        let json = long("[\"a\", \"x\\udc80\", \"\\\"b\"]");
        assert!(matches!(Listing::read(&json[..], None, false), Ok(Listing::LongJson(_))));
        let read = names(&json).unwrap();
        assert_eq!(read[read.len() - 3..], [Some("a".into()), None, Some("\"b".into())]);
        assert!(names(&long("[\"a\"] x")).is_err());
        assert!(names(&long("[1]")).is_err());
    }

    #[test]
    fn a_compressed_list_is_unpacked_when_it_is_looked_through() {
        for json in [b"[\"a\", \"b\"]".to_vec(), long("[\"a\"]")] {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            packer.write_all(&json).unwrap();
            let packed = packer.finish().unwrap();
            let count = |packed: &[u8]| {
                let (mut count, length) = (0, packed.len() as u64);
                let listing = Listing::read(packed, Some(length), true).unwrap();
                assert!(matches!(listing, Listing::Whole(Whole::Gzip(_))));
                let read = listing.for_each(|_| {
                    count += 1;
                    Ok(())
                });
                read.map(|()| count).map_err(|e| e.to_string())
            };
            assert_eq!(count(&packed), Ok(names(&json).unwrap().len()));
            let cut = &packed[..packed.len() - 9];
            assert_eq!(count(cut), Err("the response is truncated".into()));
        }
    }

    #[test]
    fn a_failing_connection_is_not_an_invalid_list() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(NodeError::new(Trouble::Silent, "timed out").into())
            }
        }
        let listing = Listing::read(Broken, None, false).unwrap_err();
        assert_eq!(listing.trouble, Trouble::Silent);
        let listing =
            Listing::read(io::Cursor::new(long("[\"a\"")).chain(Broken), None, false).unwrap();
        assert_eq!(listing.for_each(|_| Ok(())).unwrap_err().trouble, Trouble::Silent);
    }

    #[test]
    fn an_endless_list_is_refused() {
        let max = 1 << 20;
        let refusal = |json: Vec<u8>| {
            let json: Box<dyn Read> = Box::new(io::Cursor::new(json).chain(io::repeat(b' ')));
            let json = BufReader::new(Bounded { left: max, ..Bounded::new(json) });
            Listing::LongJson(json).for_each(|_| Ok(())).unwrap_err().to_string()
        };
        for (json, said) in [
            ("[".into(), "the listing has more than 64 KiB between two names"),
            ("[\"a\"]".into(), "the listing has more than 64 KiB between two names"),
            (format!("[{}", "\"a\",".repeat(max as usize)), "the listing is longer than 64 MiB"),
        ] {
            assert_eq!(refusal(json.into_bytes()), said);
        }
    }

    #[test]
    fn a_name_that_is_too_long_affects_only_itself() {
        for part in ["x", "é", "\\\"", "\\u0001", "\\ud83d\\ude00", "\\\\", "ab\\n"] {
            for shift in 0..7 {
                let long = "y".repeat(shift) + &part.repeat(2 * MAX_GAP / part.len());
                let json = format!("[\"a\", \"{long}\", \"b\"]").into_bytes();
                let mut lengths = Vec::new();
                let listing = Listing::long(Box::new(&json[..]));
                let read = listing.for_each(|name| {
                    lengths.push(name.map_or(0, str::len));
                    Ok(())
                });
                assert!(read.is_ok(), "{part} {shift}: {read:?}");
                assert_eq!((lengths.len(), lengths[0], lengths[2]), (3, 1, 1), "{part} {shift}");
                assert!(lengths[1] <= MAX_GAP + 6, "{part} {shift}");
            }
        }
    }

    #[test]
    fn a_web_page_is_reported_as_one() {
        let said = names(b"\n<!DOCTYPE html><html>").unwrap_err();
        assert!(said.contains("the response is a web page"), "{said}");
    }
}
