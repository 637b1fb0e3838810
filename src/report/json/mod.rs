//! The report for programs: JSON Lines on standard output, one per event as it happens, and a
//! summary at the end. The README documents the fields.

mod summary;

use serde::Serialize;

use super::event::Event;
use super::tally::Tally;
use super::words;
use crate::plan::Skip;
use crate::schedule::{NodeId, NodeSet};
use crate::segment::is_unprintable;
use crate::target::Target;

pub use summary::Outcome;
use summary::Summary;

/// The version of the format. It changes when a field is removed or changes its meaning, but not
/// when a field is added.
const SCHEMA: u32 = 1;

/// A line of the output.
#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    #[serde(flatten)]
    event: Content<'a>,
}

/// What a line says.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Content<'a> {
    Segment(File<'a>),
    Extra(File<'a>),
    Tombstone(File<'a>),
    Hidden {
        path: String,
        node: Option<&'a str>,
        dry_run: bool,
    },
    Removed {
        path: String,
        node: Option<&'a str>,
    },
    Skipped {
        path: Option<String>,
        name: Option<&'a str>,
        node: Option<&'a str>,
        reason: &'static str,
        detail: String,
    },
    Failed {
        what: &'static str,
        path: Option<String>,
        node: Option<&'a str>,
        reason: String,
    },
    Node {
        node: Option<&'a str>,
        state: &'static str,
        reason: String,
    },
    Corrupt {
        path: String,
        repaired: Option<bool>,
        reason: String,
    },
    Deleted {
        path: String,
        segments: u64,
        left: u64,
        dry_run: bool,
    },
    Summary(Box<Summary<'a>>),
}

/// A file that landed, or would in a dry run.
#[derive(Serialize)]
struct File<'a> {
    path: String,
    node: Option<&'a str>,
    nodes: Option<Vec<&'a str>>,
    bytes: Option<u64>,
    ms: Option<u64>,
    repaired: bool,
    dry_run: bool,
}

/// An event as a line without a newline; `None` if the event is not reported as JSON. `names` are
/// those of the nodes.
pub fn line(event: &Event<'_>, names: &[String], dry_run: bool) -> Option<String> {
    let node = |id: &NodeId| names.get(*id).map(String::as_str);
    let about = |id: &NodeId, state, reason| Content::Node { node: node(id), state, reason };
    let file = |target| File::of(target, dry_run);
    Some(encode(match event {
        Event::Landed { node: id, target, bytes, took, repaired } => {
            let (bytes, ms) = (Some(*bytes), Some(took.as_millis() as u64));
            let file = File { node: node(id), bytes, ms, repaired: *repaired, ..file(target) };
            Content::file(target, file)
        }
        Event::WouldLand { target, bytes, repairs, nodes } => {
            let nodes = nodes.map(|ids| names_of(ids, names));
            let file = File { nodes, bytes: *bytes, repaired: *repairs, ..file(target) };
            Content::file(target, file)
        }
        Event::TombstoneCreated { node: id, target } => {
            Content::file(target, File { node: node(id), ..file(target) })
        }
        Event::Hidden { node: id, target } => {
            Content::Hidden { path: target.path(), node: node(id), dry_run }
        }
        Event::Removed { node: id, target } => {
            Content::Removed { path: target.path(), node: node(id) }
        }
        Event::Skipped { node: id, directory, name, why } => {
            Content::skipped(name.and_then(|name| directory.path_of(name)), *name, node(id), why)
        }
        Event::Dropped { target, why } => Content::skipped(Some(target.path()), None, None, why),
        Event::FileFailed { target, loss, .. } => {
            let (id, reason) = words::loss(loss);
            Content::failed("file", Some(target.path()), node(&id), reason)
        }
        Event::NotFound { text, path, why, line } => Content::not_found(text, *path, why, line),
        Event::FileVanished { target } => {
            let reason = "it is gone from every node that listed it";
            Content::failed("vanished", Some(target.path()), None, reason)
        }
        Event::ListingFailed { node: id, directory, error } => {
            let path = Some(directory.to_string());
            Content::failed("listing", path, node(id), error.to_string())
        }
        Event::NotDeleted { place, why } => {
            let path = place.map(|place| format!("{place}/"));
            Content::failed("deletion", path, None, words::refusal(why))
        }
        Event::LocalFailed { error } => {
            Content::failed("this machine", None, None, error.to_string())
        }
        Event::Corrupt { target, damage } => Content::corrupt(target, None, words::damage(damage)),
        Event::NotRepaired { target } => {
            Content::corrupt(target, Some(false), "no node could provide a good copy")
        }
        Event::Deleted { place, segments, left, dry_run } => {
            let (segments, left, dry_run) = (*segments, *left, *dry_run);
            Content::Deleted { path: format!("{place}/"), segments, left, dry_run }
        }
        Event::NodeGivenUp { node: id, why } => about(id, "given_up", words::given_up(why)),
        Event::NodeBack { node: id } => about(id, "back", "it answers again".into()),
        Event::NoExtras { node: id } => {
            about(id, "no_extras", "it is too old to list extra files".into())
        }
        Event::GivesNothing { node: id, gone } => about(id, "gives_nothing", gives_nothing(*gone)),
        Event::SendsWrong { node: id, files } => about(id, "sends_wrong", sends_wrong(*files)),
        Event::FromTheFuture { node: id, place } => {
            about(id, "from_the_future", format!("{place} has segments from the future"))
        }
        Event::Waiting { .. }
        | Event::HoursListed { .. }
        | Event::Listed { .. }
        | Event::TryFailed { .. } => return None,
    }))
}

impl<'a> File<'a> {
    /// A file of which nothing but its name is known.
    fn of(target: &Target, dry_run: bool) -> File<'a> {
        let (node, nodes, bytes, ms, repaired) = (None, None, None, None, false);
        File { path: target.path(), node, nodes, bytes, ms, repaired, dry_run }
    }
}

impl<'a> Content<'a> {
    fn file(target: &Target, file: File<'a>) -> Content<'a> {
        match target {
            Target::Segment(..) => Content::Segment(file),
            Target::Tombstone(..) => Content::Tombstone(file),
            Target::Extra(..) => Content::Extra(file),
        }
    }

    fn skipped(
        path: Option<String>,
        name: Option<&'a str>,
        node: Option<&'a str>,
        why: &Skip,
    ) -> Content<'a> {
        Content::Skipped { path, name, node, reason: reason(why), detail: why.to_string() }
    }

    fn failed(
        what: &'static str,
        path: Option<String>,
        node: Option<&'a str>,
        reason: impl Into<String>,
    ) -> Content<'a> {
        Content::Failed { what, path, node, reason: reason.into() }
    }

    /// A line of a list of files; without a `path` it is not one.
    fn not_found(text: &str, path: Option<&str>, why: &str, line: &str) -> Content<'a> {
        let reason = match path {
            Some(_) => format!("{why} ({line})"),
            None => format!("{text}: {why} ({line})"),
        };
        Content::failed("file", path.map(str::to_owned), None, reason)
    }

    fn corrupt(target: &Target, repaired: Option<bool>, reason: impl Into<String>) -> Content<'a> {
        Content::Corrupt { path: target.path(), repaired, reason: reason.into() }
    }
}

fn gives_nothing(gone: u64) -> String {
    format!("it provided none of the {} that it listed", words::count(gone, "segment"))
}

fn sends_wrong(files: u64) -> String {
    let files = words::count(files, "file");
    format!("it sent wrong content for {files} that another node provided")
}

fn names_of(nodes: NodeSet, names: &[String]) -> Vec<&str> {
    nodes.iter().filter_map(|id| names.get(id)).map(String::as_str).collect()
}

fn reason(why: &Skip) -> &'static str {
    match why {
        Skip::Here => "here",
        Skip::Temp => "temp",
        Skip::Recent => "recent",
        Skip::Tombstoned => "tombstoned",
        Skip::NearDuplicate(_) => "near_duplicate",
        Skip::Hidden => "hidden",
        Skip::Invalid(_) => "no_name",
    }
}

/// The summary as a line without a newline.
pub fn summary(tally: &Tally, names: &[String], outcome: Outcome<'_>, dry_run: bool) -> String {
    encode(Content::Summary(Box::new(summary::of(tally, names, outcome, dry_run))))
}

/// Encodes a line. Characters that could control a terminal are written as JSON's `\u` escapes,
/// which is valid because they occur in strings only.
fn encode(event: Content<'_>) -> String {
    let line = Line { schema: SCHEMA, event };
    let text = serde_json::to_string(&line).expect("plain structures with names for keys");
    if !text.contains(is_unprintable) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !is_unprintable(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            escaped.push_str(&format!("\\u{unit:04x}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Collection;
    use crate::target::{Directory, Place};

    fn hour() -> Directory {
        let collection = Collection { stream: "s".parse().unwrap(), variant: "v".parse().unwrap() };
        Directory::Hour(Place { collection, hour: "2018-11-10T05".parse().unwrap() })
    }

    fn skipped(directory: &Directory, name: &str) -> serde_json::Value {
        let event = Event::Skipped { node: 0, directory, name: Some(name), why: &Skip::Hidden };
        let line = line(&event, &["n".into()], false).unwrap();
        assert!(!line.contains(is_unprintable), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn characters_that_control_a_terminal_are_escaped_and_read_back() {
        let name = "\u{9b}2J\u{7f}\u{202e}\n\u{1b}é😀";
        let value = skipped(&hour(), name);
        assert_eq!(value["path"], format!("s/v/2018-11-10T05/{name}"));
        assert_eq!((&value["schema"], &value["event"]), (&1.into(), &"skipped".into()));
    }

    #[test]
    fn a_path_is_valid_or_null_and_the_name_is_as_listed() {
        let extras = Directory::Extras("emotes".parse().unwrap());
        for (directory, name, path) in [
            (&hour(), "junk", Some("s/v/2018-11-10T05/junk")),
            (&hour(), "a/junk", None),
            (&extras, "a/junk", Some("emotes/a/junk")),
            (&extras, ".hidden", Some("emotes/.hidden")),
            (&extras, "", None),
            (&extras, ".", None),
            (&extras, "a//b", None),
            (&extras, "a/./b", None),
            (&extras, "/etc/passwd", None),
            (&extras, "../../../x", None),
            (&extras, "x/../../../../etc/passwd", None),
            (&extras, "a\0b", None),
            (&extras, &"x".repeat(256), None),
        ] {
            let value = skipped(directory, name);
            assert_eq!(value["path"].as_str(), path, "{directory} {name}");
            assert_eq!(value["name"], name);
        }
    }
}
