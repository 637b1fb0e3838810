//! The failures of a pass, counted by node and reason, in bounded memory.

use std::collections::BTreeMap;

use crate::fetch::WRONG_HASH;
use crate::node::Trouble;
use crate::report::event::Event;
use crate::report::words;
use crate::schedule::NodeId;
use crate::segment::Medium;
use crate::target::Target;

/// Distinct reasons kept per node and kind of failure; the rest are only counted.
const REASONS: usize = 10;
/// Characters kept of a reason. Its foreign part may have any length.
const LONGEST: usize = 200;

/// What failed, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Local,
    Node,
    File,
    Listing,
    Corrupt,
    Vanished,
    Deletion,
    /// One request; a later one may have succeeded.
    Request,
}

impl What {
    /// Its name on the page.
    pub fn words(self) -> &'static str {
        match self {
            What::Local => "local failure",
            What::Node => "node",
            What::File => "file not fetched",
            What::Listing => "listing failed",
            What::Corrupt => "corrupt, not repaired",
            What::Vanished => "file gone from all nodes",
            What::Deletion => "not deleted",
            What::Request => "request failed",
        }
    }
}

/// The failures of one kind and node.
#[derive(Clone, Debug, Default)]
struct Reasons {
    kept: BTreeMap<String, u64>,
    others: u64,
}

/// One line of the table of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// What failed.
    pub what: What,
    /// The node at which it failed, if it was at one.
    pub node: Option<NodeId>,
    /// Why; `None` for all other reasons together.
    pub reason: Option<&'a str>,
    /// How often.
    pub times: u64,
}

/// The failures of a pass.
#[derive(Clone, Debug, Default)]
pub struct Failures(BTreeMap<(What, Option<NodeId>), Reasons>);

impl Failures {
    /// Counts an event if it is a failure.
    pub fn count(&mut self, event: &Event<'_>) {
        let (what, node, reason) = match event {
            Event::TryFailed { error, .. } if error.trouble == Trouble::Gone => return,
            Event::TryFailed { node, error, .. } => (What::Request, Some(*node), error.to_string()),
            Event::FileFailed { loss, .. } => {
                let (node, why) = words::loss(loss);
                (What::File, Some(node), why)
            }
            Event::NotFound { why, .. } => (What::File, None, (*why).to_owned()),
            // Chat files are renamed all the time.
            Event::FileVanished { target: Target::Segment(_, name) }
                if name.medium() == Medium::Chat =>
            {
                return;
            }
            Event::FileVanished { .. } => {
                (What::Vanished, None, "every node that listed it has deleted or renamed it".into())
            }
            Event::ListingFailed { node, error, .. } => {
                (What::Listing, Some(*node), error.to_string())
            }
            Event::NodeGivenUp { node, why } => {
                (What::Node, Some(*node), format!("given up: {}", words::given_up(why)))
            }
            Event::GivesNothing { node, .. } => {
                (What::Node, Some(*node), "it provided none of the segments that it listed".into())
            }
            Event::SendsWrong { node, .. } => {
                let why = "it sent wrong content for files that another node provided";
                (What::Node, Some(*node), why.into())
            }
            Event::FromTheFuture { node, .. } => {
                (What::Node, Some(*node), "it has segments from the future".into())
            }
            Event::NotRepaired { .. } => (What::Corrupt, None, "it stays as it is".into()),
            Event::NotDeleted { why, .. } => (What::Deletion, None, words::refusal(why)),
            Event::LocalFailed { error } => (What::Local, None, error.reason()),
            _ => return,
        };
        self.0.entry((what, node)).or_default().add(reason);
    }

    /// The lines of the table, worst first. A line without a reason stands for all other reasons.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.0.iter().flat_map(|((what, node), reasons)| {
            let mut kept: Vec<(&String, &u64)> = reasons.kept.iter().collect();
            kept.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
            let line = |reason, times| Line { what: *what, node: *node, reason, times };
            let others = (reasons.others > 0).then(|| line(None, reasons.others));
            let kept = kept.into_iter().map(move |(reason, n)| line(Some(reason.as_str()), *n));
            kept.chain(others)
        })
    }
}

impl Reasons {
    fn add(&mut self, reason: String) {
        let reason = without_particulars(&reason);
        if self.kept.contains_key(&reason) || self.kept.len() < REASONS {
            *self.kept.entry(reason).or_default() += 1;
        } else {
            self.others += 1;
        }
    }
}

/// Shortens a reason, and drops the hash of wrong content, which differs each time.
fn without_particulars(reason: &str) -> String {
    let end = reason.find(WRONG_HASH).map(|at| at + WRONG_HASH.len());
    let short = &reason[..end.unwrap_or(reason.len())];
    match short.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &short[..end]),
        None => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::NodeError;
    use crate::report::event::Request;
    use crate::target::Directory;

    fn fails(failures: &mut Failures, node: NodeId, why: &str) {
        let error = &NodeError::new(Trouble::Broken, why);
        let request = Request::List(&Directory::Archive);
        failures.count(&Event::TryFailed { node, request, error, took: Duration::ZERO });
    }

    #[test]
    fn failures_are_counted_by_node_and_reason() {
        let mut failures = Failures::default();
        for (node, why) in [(1, "timed out"), (0, "b"), (0, "a"), (0, "b")] {
            fails(&mut failures, node, why);
        }
        let directory = &Directory::Archive;
        let error = &NodeError::new(Trouble::Broken, format!("{WRONG_HASH} (got x, 3 bytes)"));
        failures.count(&Event::ListingFailed { node: 1, directory, error });
        let line = |what, node, reason, times| Line { what, node: Some(node), reason, times };
        assert_eq!(
            failures.lines().collect::<Vec<_>>(),
            [
                line(What::Listing, 1, Some(WRONG_HASH), 1),
                line(What::Request, 0, Some("b"), 2),
                line(What::Request, 0, Some("a"), 1),
                line(What::Request, 1, Some("timed out"), 1),
            ]
        );
    }

    #[test]
    fn endless_reasons_take_little_memory() {
        let mut failures = Failures::default();
        for n in 0..1000 {
            fails(&mut failures, 0, &format!("{n} {}", "é".repeat(500)));
        }
        let lines: Vec<Line> = failures.lines().collect();
        assert_eq!(lines.len(), REASONS + 1);
        assert_eq!(lines.iter().map(|line| line.times).sum::<u64>(), 1000);
        let length = |line: &Line| line.reason.map_or(0, |reason| reason.chars().count());
        assert!(lines.iter().all(|line| length(line) <= LONGEST + 3));
    }
}
