//! What to fetch, from the arguments that select it: STREAM, VARIANT, HOUR, `--extras` and
//! `--files-from`.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Result, anyhow, bail, ensure};
use chrono::{DateTime, Utc};

use super::files::FileList;
use super::hours::read_hours;
use super::list::{entries, read_list};
use super::secrets::shown;
use crate::cli::Args;
use crate::extra::ExtraDir;
use crate::hour::{HourSelection, parse_hours};
use crate::segment::{Collection, Stream, Variant};
use crate::target::{Place, Target};

/// What a pass fetches.
#[derive(Debug)]
pub struct Selection {
    /// The streams and variants.
    pub collections: Collections,
    /// The hours.
    pub hours: HourSelection,
    /// The extra directories.
    pub extras: Vec<ExtraDir>,
    /// The exact files, if they are listed. The hours and collections are then those of the list.
    pub files: Option<FileList>,
}

/// The streams and variants to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collections {
    /// These collections, each once. Empty only if `--files-from` lists extra files alone.
    Given(Vec<Collection>),
    /// All existing collections of these streams and variants; `None` stands for `all`.
    Found { streams: Option<Vec<Stream>>, variants: Option<Vec<Variant>> },
}

impl Collections {
    /// Whether a collection is selected, provided that it exists.
    fn has(&self, collection: &Collection) -> bool {
        match self {
            Collections::Given(collections) => collections.contains(collection),
            Collections::Found { streams, variants } => {
                let is_stream = streams.as_ref().is_none_or(|s| s.contains(&collection.stream));
                is_stream && variants.as_ref().is_none_or(|v| v.contains(&collection.variant))
            }
        }
    }
}

impl Selection {
    /// Reads the arguments. `last:N` and `today` count from `now`.
    ///
    /// # Errors
    ///
    /// Fails if an argument is invalid, or a file can't be read.
    pub fn read(args: &Args, now: DateTime<Utc>) -> Result<Selection> {
        let hours = read_hours(&args.hours, now)?;
        let streams = args.streams.as_deref().unwrap_or("all");
        let variants = args.variants.as_deref().unwrap_or("all");
        let collections = parse_collections(streams, variants, now)?;
        let extras = parse_extras(&args.extras, &collections)?;
        let selection = Selection { collections, hours, extras, files: None };
        match &args.files_from {
            Some(file) => selection.listed_in(file, args.from0),
            None => Ok(selection),
        }
    }

    /// What of this selection is listed in a file.
    fn listed_in(self, file: &str, by_nul: bool) -> Result<Selection> {
        let is_selected = |place: &Place| {
            self.collections.has(&place.collection) && self.hours.contains(place.hour)
        };
        let is_meant = |target: &Target| target.place().is_none_or(is_selected);
        let list = FileList::read(file, by_nul, &self.extras, is_meant)?;
        let hours = list.hours().into_iter().map(|hour| hour..=hour);
        Ok(Selection {
            collections: Collections::Given(list.collections()),
            hours: HourSelection::union(hours.collect()),
            files: Some(list),
            ..self
        })
    }
}

fn parse_collections(streams: &str, variants: &str, now: DateTime<Utc>) -> Result<Collections> {
    let streams = names::<Stream>("STREAM", streams)?;
    let variants = names::<Variant>("VARIANT", variants)?;
    // No node has such a variant, so the pass would be complete.
    let is_hour = |variant: &&Variant| parse_hours(variant.as_str(), now).is_ok();
    if let Some(hour) = variants.iter().flatten().find(is_hour) {
        let hour = shown(hour.as_str());
        bail!("VARIANT: {hour} is an HOUR; before it, give the variant, or all for every variant");
    }
    let (streams, variants) = match (streams, variants) {
        (Some(streams), Some(variants)) => (streams, variants),
        (streams, variants) => return Ok(Collections::Found { streams, variants }),
    };
    let mut collections = Vec::new();
    for stream in &streams {
        for variant in &variants {
            let collection = Collection { stream: stream.clone(), variant: variant.clone() };
            if !collections.contains(&collection) {
                collections.push(collection);
            }
        }
    }
    Ok(Collections::Given(collections))
}

/// The names in a list, or `None` for `all`. A trailing slash, which shells add when they complete
/// paths, is ignored.
fn names<T: FromStr<Err: Display>>(argument: &'static str, list: &str) -> Result<Option<Vec<T>>> {
    let items = read_list(argument, list)?;
    if items.iter().any(|item| item.text == "all") {
        return Ok(None);
    }
    let names = items.iter().map(|item| {
        let name = item.text.trim_end_matches('/');
        let wrong = |why| anyhow!("{}: the name {} {why}", item.place(argument), shown(&item.text));
        name.parse().map_err(wrong)
    });
    names.collect::<Result<_>>().map(Some)
}

fn parse_extras(lists: &[String], collections: &Collections) -> Result<Vec<ExtraDir>> {
    let mut names = Vec::new();
    for list in lists {
        names.extend(entries("--extras", list)?.map(|name| name.trim_end_matches('/')));
    }
    let mut dirs = Vec::new();
    for name in names {
        let dir = name.parse::<ExtraDir>();
        let dir = dir.map_err(|why| anyhow!("--extras: the name {name:?} {why}"))?;
        // Fetching a stream as extra files would bypass the stricter checks for segments.
        let is_dir = |stream: &Stream| stream.as_str() == dir.as_str();
        let is_stream = match collections {
            Collections::Given(collections) => collections.iter().any(|c| is_dir(&c.stream)),
            Collections::Found { streams, .. } => streams.iter().flatten().any(is_dir),
        };
        ensure!(
            !is_stream,
            "--extras: {name:?} is a selected STREAM, whose segments are fetched anyway"
        );
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(streams: &str, variants: &str) -> Result<Vec<String>> {
        let pairs = match parse_collections(streams, variants, DateTime::UNIX_EPOCH)? {
            Collections::Given(pairs) => pairs,
            found @ Collections::Found { .. } => panic!("{found:?}"),
        };
        Ok(pairs.iter().map(Collection::to_string).collect())
    }

    #[test]
    fn collections_are_all_pairs_without_duplicates() {
        let pairs = parse("a,b", "source,chat,source").unwrap();
        assert_eq!(pairs, ["a/source", "a/chat", "b/source", "b/chat"]);
        assert_eq!(parse("a , b/", "source/").unwrap(), ["a/source", "b/source"]);
        assert!(parse("a,", "source").is_err());
        assert!(parse("a", "../x").is_err());
        assert!(parse("a", "/").is_err());
        let streams = Some(vec!["a".parse().unwrap()]);
        let all_variants = Collections::Found { streams, variants: None };
        assert_eq!(parse_collections("a", "all", DateTime::UNIX_EPOCH).unwrap(), all_variants);
    }

    #[test]
    fn extra_directories_may_end_with_a_slash() {
        let none = Collections::Given(Vec::new());
        let dirs = parse_extras(&["emotes/, emotes".into(), "media".into()], &none).unwrap();
        assert_eq!(dirs.iter().map(ExtraDir::as_str).collect::<Vec<_>>(), ["emotes", "media"]);
        for (list, said) in [
            (" emotes", r#"--extras: " emotes" begins with a blank (remove it)"#),
            ("emotes, media ", r#"--extras: " media " ends with a blank (remove it)"#),
            ("emotes,", "--extras: the list has an empty entry"),
            ("/", r#"--extras: the name "" is empty"#),
        ] {
            assert_eq!(parse_extras(&[list.into()], &none).unwrap_err().to_string(), said);
        }
    }
}
