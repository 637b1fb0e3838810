//! The list of `--files-from`: fetch exactly these files, given by their paths in the archive.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow};

use crate::bounded::{BOM, MAX_FILE_LIST, read_bytes};
use crate::error::plain;
use crate::extra::ExtraDir;
use crate::hour::Hour;
use crate::segment::{Collection, Entry, Stream, Variant};
use crate::target::{Place, Target};

/// Files requested by path.
#[derive(Debug, Default)]
pub struct FileList {
    /// The source of the list, for messages.
    name: String,
    /// The lines by directory and name.
    files: HashMap<String, HashMap<Box<str>, Line>>,
    /// Lines that are not valid paths, with their numbers and the reason.
    wrong: Vec<(u32, String, String)>,
    extras: Vec<ExtraDir>,
}

/// A valid line of the list.
#[derive(Debug)]
struct Line {
    number: u32,
    /// Whether the fate of the file is known and reported.
    settled: AtomicBool,
}

impl FileList {
    /// Reads a list from a file, or from standard input if `file` is `-`. Paths end with newlines,
    /// and blank lines and comments are allowed; or they end with NULs. Extra files are those below
    /// `extras`. Paths that `is_meant` rejects are skipped.
    ///
    /// # Errors
    ///
    /// Fails if the list can't be read or is too long. Invalid lines are not an error; see
    /// [`FileList::wrong`].
    pub fn read(
        file: &str,
        by_nul: bool,
        extras: &[ExtraDir],
        is_meant: impl Fn(&Target) -> bool,
    ) -> Result<FileList> {
        let (name, bytes) = match file {
            "-" => ("standard input".to_owned(), read_bytes(io::stdin(), MAX_FILE_LIST)),
            file => {
                let read = File::open(file).and_then(|file| read_bytes(file, MAX_FILE_LIST));
                (format!("{file:?}"), read)
            }
        };
        let bytes = bytes.map_err(|e| anyhow!("--files-from: reading {name}: {}", plain(&e)))?;
        let mut list = FileList { name, extras: extras.to_vec(), ..FileList::default() };
        let bytes = bytes.strip_prefix(BOM.as_bytes()).filter(|_| !by_nul).unwrap_or(&bytes);
        let end = if by_nul { b'\0' } else { b'\n' };
        for (line, number) in bytes.split(|byte| *byte == end).zip(1..) {
            list.add(&String::from_utf8_lossy(line), number, by_nul, &is_meant);
        }
        Ok(list)
    }

    fn add(&mut self, line: &str, number: u32, is_exact: bool, is_meant: impl Fn(&Target) -> bool) {
        let line = if is_exact { line } else { line.trim() };
        if line.is_empty() || line.starts_with('#') && !is_exact {
            return;
        }
        let path = line.strip_prefix("./").unwrap_or(line);
        match parse_path(path, &self.extras) {
            Ok(target) if is_meant(&target) => {
                let (dir, name) = split(&target);
                let line = Line { number, settled: AtomicBool::new(false) };
                self.files.entry(dir).or_default().entry(name.into()).or_insert(line);
            }
            Ok(_) => log::info!("{}, line {number}: {path} is not selected", self.name),
            Err(why) => self.wrong.push((number, line.to_owned(), why)),
        }
    }

    /// Whether the list has no valid path.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The streams and variants in the list, in order.
    pub fn collections(&self) -> Vec<Collection> {
        let places = self.places().map(|place| place.collection);
        let mut collections: Vec<Collection> = places.collect();
        collections.sort_by_cached_key(Collection::to_string);
        collections.dedup();
        collections
    }

    /// The hours in the list.
    pub fn hours(&self) -> BTreeSet<Hour> {
        self.places().map(|place| place.hour).collect()
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.files.keys().filter_map(|dir| parse_place(dir).ok())
    }

    /// Whether any file in this directory is listed.
    pub fn has_any_in(&self, dir: &str) -> bool {
        self.files.contains_key(dir)
    }

    /// Whether a file of this name in this directory is listed.
    pub fn has(&self, dir: &str, name: &str) -> bool {
        self.files.get(dir).is_some_and(|names| names.contains_key(name))
    }

    /// Notes that the fate of this file is known and reported.
    pub fn settle(&self, dir: &str, name: &str) {
        if let Some(line) = self.files.get(dir).and_then(|names| names.get(name)) {
            line.settled.store(true, Ordering::Relaxed);
        }
    }

    /// The files whose fate is unknown, each with its line for messages.
    pub fn unsettled(&self) -> Vec<(Target, String)> {
        let files = self.files.iter().flat_map(|(dir, names)| {
            let open = names.iter().filter(|(_, line)| !line.settled.load(Ordering::Relaxed));
            open.map(move |(name, line)| (line.number, format!("{dir}/{name}")))
        });
        let mut files: Vec<(u32, String)> = files.collect();
        files.sort_unstable();
        let targets = files.into_iter().filter_map(|(number, path)| {
            Some((parse_path(&path, &self.extras).ok()?, self.line(number)))
        });
        targets.collect()
    }

    /// The invalid lines: their text, the reason, and where they are.
    pub fn wrong(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.wrong.iter().map(|(number, line, why)| (&**line, &**why, self.line(*number)))
    }

    fn line(&self, number: u32) -> String {
        format!("{}, line {number}", self.name)
    }
}

/// The directory and the name of a file.
pub fn split(target: &Target) -> (String, String) {
    let path = target.path();
    match target {
        Target::Extra(dir, path) => (dir.to_string(), path.to_string()),
        Target::Segment(..) | Target::Tombstone(..) => {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            (dir.to_owned(), name.to_owned())
        }
    }
}

fn parse_path(path: &str, extras: &[ExtraDir]) -> Result<Target, String> {
    let (first, below) = path.split_once('/').unwrap_or((path, ""));
    if let Some(dir) = extras.iter().find(|dir| dir.as_str() == first) {
        let path = below.parse().map_err(|why| format!("{below:?} {why}"))?;
        return Ok(Target::Extra(dir.clone(), path));
    }
    let Some((dir, name)) = path.rsplit_once('/').filter(|_| path.split('/').count() == 4) else {
        return Err("it should look like STREAM/VARIANT/HOUR/NAME".into());
    };
    let place = parse_place(dir)?;
    match Entry::parse(name, place.collection.variant.medium()) {
        Ok(Entry::Segment(name)) => Ok(Target::Segment(place, name)),
        Ok(Entry::Tombstone(name)) => Ok(Target::Tombstone(place, name)),
        Ok(Entry::Temp) => Err("it is a temporary file".into()),
        Ok(Entry::Hidden) => Err("it is a hidden file".into()),
        Err(why) => Err(format!("the name {why}")),
    }
}

fn parse_place(dir: &str) -> Result<Place, String> {
    let parts: Vec<&str> = dir.split('/').collect();
    let [stream, variant, hour] = parts[..] else {
        return Err("it is not in an hour's directory".into());
    };
    let stream = stream.parse::<Stream>().map_err(|why| format!("{stream:?} {why}"))?;
    let variant = variant.parse::<Variant>().map_err(|why| format!("{variant:?} {why}"))?;
    let hour = hour.parse::<Hour>().map_err(|why| format!("{hour:?} {why}"))?;
    Ok(Place { collection: Collection { stream, variant }, hour })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU";

    #[test]
    fn printed_paths_can_be_read_back() {
        let extras = ["emotes".parse().unwrap()];
        for path in [
            format!("s/source/2018-11-10T05/00:00.0-2.0-full-{HASH}.ts"),
            format!("s/source/2018-11-10T05/00:00.0-2.0-full-{HASH}.tombstone"),
            format!("s/chat/2018-11-10T05/00:00-{HASH}.json"),
            "emotes/an/emote".to_owned(),
        ] {
            let target = parse_path(&path, &extras).unwrap();
            assert_eq!(target.path(), path);
            let (dir, name) = split(&target);
            assert_eq!(format!("{dir}/{name}"), path);
        }
    }

    #[test]
    fn an_invalid_path_has_a_reason() {
        for (path, why) in [
            ("x", "should look like"),
            ("s/source/2018-11-10T05/", "the name"),
            ("s/source/2018-11-10T05/.x", "hidden"),
            ("s/source/2018-11-10T25/x.ts", "not a valid hour"),
            ("../source/2018-11-10T05/x.ts", "begins with a dot"),
            ("/s/source/2018-11-10T05/x.ts", "should look like"),
            ("s/source/2018-11-10T05/x.ts", "the name"),
            ("emotes/x", "should look like"),
        ] {
            let said = parse_path(path, &[]).unwrap_err();
            assert!(said.contains(why), "{path}: {said}");
        }
    }

    #[test]
    fn lines_may_be_edited_by_hand() {
        let segment = format!("s/source/2018-11-10T05/00:00.0-2.0-full-{HASH}.ts");
        let mut list = FileList { name: "list".into(), ..FileList::default() };
        for (line, number) in
            ["# mine", "", &format!("  ./{segment}\r"), "junk"].into_iter().zip(1..)
        {
            list.add(line, number, false, |_| true);
        }
        let open: Vec<_> = list.unsettled().into_iter().map(|(t, line)| (t.path(), line)).collect();
        assert_eq!(open, [(segment.clone(), "list, line 3".to_owned())]);
        assert_eq!(
            list.wrong().map(|(line, _, at)| (line, at)).next(),
            Some(("junk", "list, line 4".into()))
        );
        let (dir, name) = segment.rsplit_once('/').unwrap();
        assert!(list.has(dir, name) && list.has_any_in(dir) && !list.has(dir, "x"));
        list.settle(dir, name);
        assert!(list.unsettled().is_empty());
    }
}
