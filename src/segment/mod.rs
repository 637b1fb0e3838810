//! The names of an archive: streams, variants, segments and their hashes. A value of these types
//! can safely be joined to a path, put into a URL, and printed: parsing rejects everything else.
//! The rules are those of the archives in service (Wubloader's).

mod collection;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::hour::Hour;

pub use collection::{Collection, Medium, NameError, Stream, Variant, is_unprintable};
pub(crate) use collection::{MAX_NAME, STAGED_SUFFIX, component};

/// The length of a hash in a name: 32 bytes in base64 without padding.
pub const HASH_LEN: usize = 43;

/// The extension of a tombstone.
pub(crate) const TOMBSTONE: &str = ".tombstone";

/// The largest difference between the starts of two recordings of the same segment, in
/// microseconds.
pub const CLOCKS_DIFFER: i64 = 1000;

/// The SHA-256 of a segment's content, written in URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentHash(pub [u8; 32]);

impl FromStr for SegmentHash {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() != HASH_LEN {
            return Err(NameError("has a hash that is not 43 characters long"));
        }
        let mut hash = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut hash) {
            Ok(32) => Ok(SegmentHash(hash)),
            _ => Err(NameError("has a hash that is not URL-safe base64")),
        }
    }
}

impl fmt::Display for SegmentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SegmentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentHash({self})")
    }
}

/// How far a recording can be trusted, most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentType {
    /// Complete.
    Full,
    /// Complete, but perhaps mistimed or cut short.
    Suspect,
    /// Known to be incomplete.
    Partial,
}

/// The name of a complete segment, which contains its hash.
///
/// The text is kept as written: a number can be written in several ways, and nodes know the segment
/// by this one. A value is small (32 bytes and the text), as a pass holds thousands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    text: Arc<str>,
    duration: u64,
    start: u32,
    kind: SegmentType,
}

/// The meaning of a name in an hour's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A complete segment.
    Segment(SegmentName),
    /// A mark that this segment was deleted on purpose and must not come back.
    Tombstone(SegmentName),
    /// A file that is being written: it may vanish or be renamed at any moment.
    Temp,
    /// A name that begins with a dot, which is not part of the archive.
    Hidden,
}

impl Entry {
    /// Parses a name in an hour's directory.
    ///
    /// # Errors
    ///
    /// Fails if the name has none of the known forms; the error says why.
    pub fn parse(name: &str, medium: Medium) -> Result<Entry, NameError> {
        if name.starts_with('.') {
            return Ok(Entry::Hidden);
        }
        if name.len() > MAX_NAME {
            return Err(NameError::TOO_LONG);
        }
        if let Some(stem) = name.strip_suffix(TOMBSTONE) {
            let segment = SegmentName::parse(&format!("{stem}{}", medium.extension()), medium)?;
            return Ok(Entry::Tombstone(segment));
        }
        if is_temp(name, medium) {
            return Ok(Entry::Temp);
        }
        SegmentName::parse(name, medium).map(Entry::Segment)
    }
}

fn is_temp(name: &str, medium: Medium) -> bool {
    match medium {
        Medium::Chat => name.ends_with(".temp"),
        Medium::Video => name.split('-').nth(2) == Some("temp"),
    }
}

impl SegmentName {
    /// Parses the name of a segment.
    ///
    /// # Errors
    ///
    /// Fails if the name is not valid; the error says why.
    pub fn parse(name: &str, medium: Medium) -> Result<SegmentName, NameError> {
        // It can also be staged: the staged name of a video segment is no longer, and a valid name of
        // chat is far shorter.
        if name.len() > MAX_NAME {
            return Err(NameError::TOO_LONG);
        }
        let Some(stem) = name.strip_suffix(medium.extension()) else {
            return Err(NameError(match medium {
                Medium::Video => "does not end in .ts",
                Medium::Chat => "does not end in .json",
            }));
        };
        // The hash comes last, as it may contain dashes.
        let (start, duration, kind, hash) = match medium {
            Medium::Chat => {
                let (start, hash) = stem.split_once('-').ok_or(NameError("has no hash"))?;
                (start, 0, SegmentType::Full, hash)
            }
            Medium::Video => {
                let mut parts = stem.splitn(4, '-');
                let mut part = || parts.next().ok_or(NameError("has fewer than four parts"));
                let (start, duration) = (part()?, part()?);
                (start, parse_duration(duration)?, parse_type(part()?)?, part()?)
            }
        };
        let start = parse_start(start)?;
        hash.parse::<SegmentHash>()?;
        Ok(SegmentName { text: name.into(), duration, start, kind })
    }

    /// The name as written, which is the file's name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The start of the segment within its hour, in microseconds.
    pub fn start_micros(&self) -> u32 {
        self.start
    }

    /// The duration in microseconds; 0 for chat, whose names have none.
    pub fn duration_micros(&self) -> u64 {
        self.duration
    }

    /// How far it can be trusted. Chat is always full.
    pub fn kind(&self) -> SegmentType {
        self.kind
    }

    /// The hash of its content.
    pub fn hash(&self) -> SegmentHash {
        let hash = self.written_hash().parse();
        hash.expect("the name was parsed with this hash in it")
    }

    /// The hash of its content as written in the name.
    pub fn written_hash(&self) -> &str {
        let stem = self.stem();
        &stem[stem.len() - HASH_LEN..]
    }

    /// The name of the tombstone that hides this segment.
    pub fn tombstone(&self) -> String {
        format!("{}{TOMBSTONE}", self.stem())
    }

    /// The name of the file in which this segment is staged. All readers and writers of these
    /// archives recognize this form as temporary.
    pub fn staged(&self, id: Uuid) -> String {
        match self.medium() {
            Medium::Chat => format!("{}.{id}.temp", self.text),
            Medium::Video => {
                let mut parts = self.text.splitn(3, '-');
                let mut part = || parts.next().unwrap_or_default();
                format!("{}-{}-temp-{id}.ts", part(), part())
            }
        }
    }

    /// Its content.
    pub fn medium(&self) -> Medium {
        let is_chat = self.text.ends_with(Medium::Chat.extension());
        if is_chat { Medium::Chat } else { Medium::Video }
    }

    fn stem(&self) -> &str {
        &self.text[..self.text.len() - self.medium().extension().len()]
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether two names of segments, each in its hour, are of the same recording: they are equal, or
/// two clocks gave it both. Chat has only one name.
pub fn is_same_recording(
    (hour, name): (Hour, &SegmentName),
    (other_hour, other): (Hour, &SegmentName),
) -> bool {
    if name.medium() == Medium::Chat {
        return (hour, name) == (other_hour, other);
    }
    let start = |hour: Hour, name: &SegmentName| hour.micros_at(name.start_micros());
    let apart = (start(hour, name) - start(other_hour, other)).abs();
    apart <= CLOCKS_DIFFER
        && (name.duration_micros(), name.kind()) == (other.duration_micros(), other.kind())
        && name.written_hash() == other.written_hash()
}

/// Parses `MM:SS`, optionally with a fraction of 1 to 6 digits, as microseconds.
fn parse_start(text: &str) -> Result<u32, NameError> {
    let wrong = NameError("has a time that is not MM:SS or MM:SS.ffffff");
    let (whole, fraction) = split_decimal(text).ok_or(wrong)?;
    let &[m, n, b':', s, t] = whole.as_bytes() else {
        return Err(wrong);
    };
    let two = |a: u8, b: u8| match (a, b) {
        (b'0'..=b'5', b'0'..=b'9') => Some(u32::from(a - b'0') * 10 + u32::from(b - b'0')),
        _ => None,
    };
    let (Some(minutes), Some(seconds)) = (two(m, n), two(s, t)) else {
        return Err(wrong);
    };
    if fraction.len() > 6 {
        return Err(wrong);
    }
    let micros = fraction_micros(fraction).ok_or(wrong)?;
    Ok((minutes * 60 + seconds) * 1_000_000 + micros)
}

/// Parses a non-negative decimal number of seconds as microseconds. Further digits are dropped.
fn parse_duration(text: &str) -> Result<u64, NameError> {
    let wrong = NameError("has a duration that is not a number of seconds");
    let (whole, fraction) = split_decimal(text).ok_or(wrong)?;
    let plain = !whole.is_empty() && whole.bytes().all(|b| b.is_ascii_digit());
    let seconds: u64 = whole.parse().ok().filter(|_| plain).ok_or(wrong)?;
    let micros = fraction_micros(fraction).ok_or(wrong)?;
    let whole = seconds.checked_mul(1_000_000).ok_or(wrong)?;
    whole.checked_add(micros.into()).ok_or(wrong)
}

/// What is before and after a decimal point, if there is one. `None` if nothing is after it.
fn split_decimal(text: &str) -> Option<(&str, &str)> {
    let parts = text.split_once('.');
    parts.or(Some((text, "0"))).filter(|(_, fraction)| !fraction.is_empty())
}

/// The digits after a decimal point, as millionths.
fn fraction_micros(digits: &str) -> Option<u32> {
    let mut micros = 0;
    let mut place = 100_000;
    for byte in digits.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        micros += u32::from(byte - b'0') * place;
        place /= 10;
    }
    Some(micros)
}

fn parse_type(text: &str) -> Result<SegmentType, NameError> {
    match text {
        "full" => Ok(SegmentType::Full),
        "suspect" => Ok(SegmentType::Suspect),
        "partial" => Ok(SegmentType::Partial),
        _ => Err(NameError("has a type that is not full, suspect or partial")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU";

    fn video(stem: &str) -> Result<SegmentName, NameError> {
        SegmentName::parse(&format!("{stem}-{HASH}.ts"), Medium::Video)
    }

    #[test]
    fn a_video_name_is_split_into_its_parts() {
        let name = video("41:59.123-2.5-suspect").unwrap();
        assert_eq!(name.start_micros(), (41 * 60 + 59) * 1_000_000 + 123_000);
        assert_eq!(name.duration_micros(), 2_500_000);
        assert_eq!(name.kind(), SegmentType::Suspect);
        assert_eq!(name.hash().to_string(), HASH);
        assert_eq!(name.tombstone(), format!("41:59.123-2.5-suspect-{HASH}.tombstone"));
        let id = Uuid::nil();
        assert_eq!(name.staged(id), format!("41:59.123-2.5-temp-{id}.ts"));
    }

    #[test]
    fn a_chat_name_is_split_into_its_parts() {
        for (time, micros) in [("41:59", 2_519_000_000), ("41:59.5", 2_519_500_000)] {
            let text = format!("{time}-{HASH}.json");
            let name = SegmentName::parse(&text, Medium::Chat).unwrap();
            assert_eq!(name.start_micros(), micros);
            assert_eq!(name.hash().to_string(), HASH);
            assert_eq!(name.tombstone(), format!("{time}-{HASH}.tombstone"));
            assert_eq!(name.staged(Uuid::nil()), format!("{text}.{}.temp", Uuid::nil()));
        }
    }

    #[test]
    fn entries_are_distinguished() {
        let id = Uuid::nil();
        let entry = |name: &str, medium| Entry::parse(name, medium).unwrap();
        assert_eq!(entry(&format!("00:00.0-2.0-temp-{id}.ts"), Medium::Video), Entry::Temp);
        assert_eq!(entry(&format!("00:00-{HASH}.json.{id}.temp"), Medium::Chat), Entry::Temp);
        assert_eq!(entry(".nfs0001", Medium::Video), Entry::Hidden);
        let segment = video("00:00.0-2.0-full").unwrap();
        assert_eq!(entry(segment.as_str(), Medium::Video), Entry::Segment(segment.clone()));
        assert_eq!(entry(&segment.tombstone(), Medium::Video), Entry::Tombstone(segment));
    }

    #[test]
    fn an_invalid_name_gets_a_reason() {
        for (stem, why) in [
            // The dashes in the hash make part of it look like the type.
            ("41:59.0-2.0", "type"),
            ("41:60.0-2.0-full", "time"),
            ("60:00.0-2.0-full", "time"),
            ("41:59.-2.0-full", "time"),
            ("41:59.1234567-2.0-full", "time"),
            ("4:59-2.0-full", "time"),
            ("+1:59-2.0-full", "time"),
            ("41:59.0--full", "duration"),
            ("41:59.0-2.-full", "duration"),
            ("41:59.0-1e3-full", "duration"),
            ("41:59.0-99999999999999999999-full", "duration"),
            ("41:59.0-2.0-whole", "type"),
            ("41:59.0-2.0-Full", "type"),
        ] {
            let said = video(stem).expect_err(stem).to_string();
            assert!(said.contains(why), "{stem}: {said}");
        }
        for (name, why) in [
            ("junk", "does not end in .ts"),
            ("00:00-2.0-full.ts", "fewer than four"),
            ("00:00-2.0-full-abc.ts", "43 characters"),
            ("00:00-2.0-full-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU.ts", "base64"),
            // The last character has two bits that no hash sets.
            ("00:00-2.0-full-47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFV.ts", "base64"),
        ] {
            let said = SegmentName::parse(name, Medium::Video).expect_err(name).to_string();
            assert!(said.contains(why), "{name}: {said}");
        }
        let long = |zeros| format!("00:00-2.{}-full-{HASH}.ts", "0".repeat(zeros));
        let fits = SegmentName::parse(&long(195), Medium::Video).unwrap();
        assert_eq!(fits.as_str().len(), MAX_NAME);
        assert!(fits.staged(Uuid::nil()).len() <= MAX_NAME);
        let long = long(196);
        assert_eq!(SegmentName::parse(&long, Medium::Video), Err(NameError::TOO_LONG));
    }

    #[test]
    fn components_can_t_trick_paths_or_terminals() {
        for text in ["", ".", "..", "a/b", "/a", "a\0", "a\nb", "\x1b[2J", "a\u{202e}b", ".a"] {
            assert!(text.parse::<Stream>().is_err(), "{text:?}");
            assert!(text.parse::<Variant>().is_err(), "{text:?}");
        }
        assert!("x".repeat(256).parse::<Stream>().is_err());
        assert_eq!("desertbus".parse::<Stream>().unwrap().as_str(), "desertbus");
    }

    fn start() -> impl Strategy<Value = (String, u32)> {
        (0..60u32, 0..60u32, proptest::option::of("[0-9]{1,6}")).prop_map(|(m, s, fraction)| {
            let whole = (m * 60 + s) * 1_000_000;
            match fraction {
                None => (format!("{m:02}:{s:02}"), whole),
                Some(f) => {
                    let micros: u32 = format!("{f:0<6}").parse().unwrap();
                    (format!("{m:02}:{s:02}.{f}"), whole + micros)
                }
            }
        })
    }

    /// A name, perhaps made invalid by some inserted characters.
    fn name() -> impl Strategy<Value = String> {
        let stem = "[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?-\
                    ([0-9]{1,9}(\\.[0-9]{1,190})?-(full|suspect|partial)-)?";
        let parts = (stem, any::<[u8; 32]>(), "(\\.ts|\\.json|\\.tombstone)");
        let name = parts.prop_map(|(stem, hash, end)| format!("{stem}{}{end}", SegmentHash(hash)));
        let inserted = ("[-/.\\PC]{0,2}", any::<proptest::sample::Index>());
        (name, inserted).prop_map(|(mut name, (inserted, at))| {
            name.insert_str(at.index(name.len() + 1), &inserted);
            name
        })
    }

    proptest! {
        #![proptest_config(crate::fuzz::kept())]

        #[test]
        fn a_well_formed_name_round_trips(
            (time, micros) in start(),
            seconds in 0..100_000u64,
            tenths in 0..10u64,
            kind in prop_oneof![Just("full"), Just("suspect"), Just("partial")],
            hash in any::<[u8; 32]>(),
        ) {
            let hash = SegmentHash(hash);
            let text = format!("{time}-{seconds}.{tenths}-{kind}-{hash}.ts");
            let name = SegmentName::parse(&text, Medium::Video).unwrap();
            prop_assert_eq!(name.to_string(), text);
            prop_assert_eq!(name.start_micros(), micros);
            prop_assert_eq!(name.duration_micros(), seconds * 1_000_000 + tenths * 100_000);
            prop_assert_eq!(name.hash(), hash);
            prop_assert_eq!(format!("{:?}", name.kind()).to_lowercase(), kind);

            let text = format!("{time}-{hash}.json");
            let name = SegmentName::parse(&text, Medium::Chat).unwrap();
            prop_assert_eq!(name.to_string(), text);
            prop_assert_eq!(name.hash(), hash);
        }

        #[test]
        fn a_hash_round_trips(bytes in any::<[u8; 32]>()) {
            let hash = SegmentHash(bytes);
            prop_assert_eq!(hash.to_string().parse::<SegmentHash>(), Ok(hash));
        }

        #[test]
        fn a_valid_name_is_one_printable_component(name in name()) {
            for medium in [Medium::Video, Medium::Chat] {
                if let Ok(Entry::Segment(segment) | Entry::Tombstone(segment)) = Entry::parse(&name, medium) {
                    for text in [segment.to_string(), segment.staged(Uuid::nil())] {
                        prop_assert!(component(&text).is_ok());
                        prop_assert!(text.is_ascii());
                    }
                    // A very long name can have no tombstone.
                    let tombstone = segment.tombstone();
                    prop_assert!(tombstone.len() > MAX_NAME || component(&tombstone).is_ok());
                }
            }
        }
    }
}
