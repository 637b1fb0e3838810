//! Names of extra files: the files of an archive that are not segments, such as emotes and the
//! media that a chat links to. They may be nested in directories of any depth.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::hour::Hour;
use crate::segment::{NameError, SegmentHash, component};

/// The longest accepted path, in bytes. Together with the archive's own path it must fit the 4,096
/// bytes of the system's limit, or nothing could open the file.
const MAX_PATH: usize = 2048;

/// A directory of extra files, beside the streams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtraDir(Arc<str>);

/// The path of a file in such a directory: plain components separated by slashes, none of them
/// hidden.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtraPath(Arc<str>);

impl FromStr for ExtraDir {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        component(text).map(|name| ExtraDir(name.into()))
    }
}

impl FromStr for ExtraPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > MAX_PATH {
            return Err(NameError::TOO_LONG);
        }
        text.split('/').try_for_each(|part| component(part).map(drop))?;
        // A file at this depth below an hour is a segment, whatever its name.
        if text.split('/').nth(1).is_some_and(|part| part.parse::<Hour>().is_ok()) {
            return Err(NameError::IN_AN_HOUR);
        }
        Ok(ExtraPath(text.into()))
    }
}

impl ExtraDir {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ExtraPath {
    /// The path as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is still being written: its name ends in `.temp`.
    pub fn is_temp(&self) -> bool {
        self.0.ends_with(".temp")
    }

    /// The hash of the file's content, if its name gives one: media are at
    /// `media/URLHASH/FILEHASH.EXT`. Their metadata, at `FILEHASH.metadata.json` beside them, can
    /// have any content.
    pub fn hash_in(&self, dir: &ExtraDir) -> Option<SegmentHash> {
        let (url_hash, file) = self.0.split_once('/').filter(|_| &*dir.0 == "media")?;
        let (file_hash, extension) = file.split_once('.')?;
        url_hash.parse::<SegmentHash>().ok()?;
        file_hash.parse().ok().filter(|_| extension != "metadata.json")
    }
}

impl fmt::Display for ExtraDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ExtraPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_has_plain_components() {
        for path in ["a.png", "a/b/c.png", "é 字/😀.gif", "a/b.temp"] {
            assert_eq!(path.parse::<ExtraPath>().unwrap().to_string(), path);
        }
        for path in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "a/.b/c",
            ".a",
            "a\0b",
            "a\nb",
            "a/\x1b[2J",
            "source/2018-11-10T05/x.ts",
        ] {
            assert!(path.parse::<ExtraPath>().is_err(), "{path:?}");
        }
        assert!("a/".repeat(3000).parse::<ExtraPath>().is_err());
        assert!(format!("a/{}", "b".repeat(256)).parse::<ExtraPath>().is_err());
    }

    #[test]
    fn names_of_media_contain_their_hash() {
        const HASH: &str = "47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU";
        for (dir, path, has_hash) in [
            ("media", format!("{HASH}/{HASH}.png"), true),
            ("media", format!("{HASH}/{HASH}.vnd.mozilla.apng"), true),
            ("media", format!("{HASH}/{HASH}.metadata.json"), false),
            ("media", format!("{HASH}/{HASH}"), false),
            ("media", format!("{HASH}/other.png"), false),
            ("media", format!("{HASH}.png"), false),
            ("emotes", format!("{HASH}/{HASH}.png"), false),
        ] {
            let dir = dir.parse().unwrap();
            let hash = path.parse::<ExtraPath>().unwrap().hash_in(&dir);
            assert_eq!(hash.is_some(), has_hash, "{dir}/{path}");
        }
    }

    proptest! {
        #![proptest_config(crate::fuzz::kept())]

        #[test]
        fn no_path_leaves_its_directory(text in "[a./\\PC]{0,20}") {
            if let Ok(path) = text.parse::<ExtraPath>() {
                let joined = std::path::Path::new("/base").join(path.to_string());
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(joined.components().skip(1).all(plain));
                prop_assert!(joined.starts_with("/base"));
            }
        }
    }
}
