//! The summary line: why the pass is not complete, and what was done.

use indicatif::HumanBytes;

use super::Human;
use super::troubles::Kind;
use crate::durations;
use crate::report::figures::{Figures, Measured};
use crate::report::log;
use crate::report::status::{Left, Reason, Status};
use crate::report::tally::Tally;
use crate::report::words::{count, length};
use crate::stop::Cause;

/// The parts of the line.
#[derive(Default)]
struct Parts {
    /// Each with the reason that it explains, if it may be one.
    parts: Vec<(Option<Reason>, String)>,
}

impl Parts {
    fn push(&mut self, explains: Option<Reason>, text: String) {
        self.parts.push((explains, text));
    }

    /// Adds a number of things, unless it is zero.
    fn add(&mut self, explains: Option<Reason>, n: u64, what: &str, then: &str) {
        if n > 0 {
            self.push(explains, format!("{}{then}", count(n, what)));
        }
    }

    /// Joins the parts: first those that explain the status, then the others.
    fn join(mut self, reasons: &[Reason]) -> String {
        self.parts.sort_by_key(|(explains, _)| {
            let place = reasons.iter().position(|reason| Some(*reason) == *explains);
            place.unwrap_or(reasons.len())
        });
        let texts: Vec<String> = self.parts.into_iter().map(|(_, text)| text).collect();
        texts.join("; ")
    }
}

impl Human {
    /// Prints the summary line.
    pub fn sum_up(&self, tally: &Tally, left: &Left, figures: &Figures) {
        let outcome = match left.status() {
            Status::OutputClosed => return,
            Status::Complete => "complete",
            Status::Signal(_) => "interrupted",
            _ => "incomplete",
        };
        if self.style.summary {
            log::print(&format!("{outcome}: {}", self.account(tally, left, figures)));
        }
    }

    /// The summary line without the outcome.
    pub fn account(&self, tally: &Tally, left: &Left, figures: &Figures) -> String {
        let mut parts = Parts::default();
        parts.push(None, self.fetched(tally, left.status(), figures));
        self.add_done(&mut parts, tally);
        self.add_undone(&mut parts, tally, left);
        for holes in figures.measured.iter().filter_map(holes) {
            parts.push(Some(Reason::Holes), holes);
        }
        parts.join(&left.reasons())
    }

    fn add_done(&self, parts: &mut Parts, tally: &Tally) {
        let (created, deleted, hidden) = if self.style.dry_run {
            (" would be created", " would be deleted", " here would be hidden by tombstones")
        } else {
            (" created", " deleted", " here hidden by tombstones")
        };
        parts.add(None, tally.tombstones, "tombstone", created);
        parts.add(None, tally.removed, "segment", " removed again because of tombstones");
        parts.add(None, tally.hidden, "segment", hidden);
        parts.add(None, tally.repaired, "corrupt segment", " repaired");
        parts.add(None, tally.would_repair, "corrupt segment", " would be repaired");
        parts.add(None, tally.deleted, "old segment", deleted);
        parts.add(None, tally.near_duplicates, "near duplicate", " skipped");
    }

    fn add_undone(&self, parts: &mut Parts, tally: &Tally, left: &Left) {
        let reasons = left.reasons();
        if left.cause == Some(Cause::MaxDuration) {
            let ended = Reason::Ended(Cause::MaxDuration);
            parts.push(Some(ended), "ended by --max-duration".into());
        }
        if reasons.contains(&Reason::NoNode) {
            parts.push(Some(Reason::NoNode), "no node answered".into());
        }
        if reasons.contains(&Reason::LocalFailure) && tally.local_failures == 0 {
            parts.push(Some(Reason::LocalFailure), "a local failure".into());
        }
        let why = self.why(Kind::LocalFailed);
        parts.add(Some(Reason::LocalFailure), tally.local_failures, "local error", &why);
        let failed = format!(" could not be fetched{}", self.why(Kind::FileFailed));
        parts.add(Some(Reason::Missing), left.missing, self.file(), &failed);
        let excused = tally.failed.saturating_sub(left.missing);
        parts.add(None, excused, self.file(), " missing that only dead optional nodes have");
        parts.add(None, tally.vanished, self.file(), " gone from the nodes before being fetched");
        let failed = format!(" failed{}", self.why(Kind::ListingFailed));
        parts.add(Some(Reason::Unlisted), left.unlisted, "listing", &failed);
        let corrupt = if self.style.dry_run { " here" } else { " not repaired" };
        parts.add(Some(Reason::Corrupt), left.corrupt, "corrupt segment", corrupt);
        if tally.nothing_deleted {
            parts.push(Some(Reason::Undeleted), "no old hours deleted".into());
        } else {
            parts.add(Some(Reason::Undeleted), tally.not_deleted, "old hour", " not deleted");
        }
        let any_alive = self.given_up.len() < self.names.len();
        for (node, why) in &self.given_up {
            let name = &self.names[*node];
            if self.optional[*node] && any_alive {
                parts.push(None, format!("optional node {name} was given up: {why}"));
            } else {
                parts.push(Some(Reason::GivenUp), format!("node {name} was given up: {why}"));
            }
        }
    }

    /// The last reason for troubles of this kind, in brackets.
    fn why(&self, of: Kind) -> String {
        self.last.get(&of).map_or(String::new(), |why| format!(" ({why})"))
    }

    fn fetched(&self, tally: &Tally, status: Status, figures: &Figures) -> String {
        let file = self.file();
        let checked = match figures.checked {
            Some((files, bytes)) => {
                format!("checked {} ({}); ", count(files, "segment"), HumanBytes(bytes))
            }
            None => String::new(),
        };
        let took = durations::took(figures.took);
        if self.style.without_nodes {
            let good = if status == Status::Complete && figures.checked.is_some() {
                "all good; "
            } else {
                ""
            };
            return format!("{checked}{good}no node was asked ({took})");
        }
        if self.style.dry_run {
            let bytes = HumanBytes(tally.would_fetch_bytes);
            let size = match tally.sizes_known {
                0 => String::new(),
                known if known == tally.would_fetch => format!(" ({bytes})"),
                _ => format!(" (at least {bytes})"),
            };
            return format!("{checked}{} would be fetched{size}", count(tally.would_fetch, file));
        }
        if tally.landed + tally.failed == 0 && status == Status::Complete {
            return format!("{checked}nothing was missing ({took})");
        }
        let nodes = tally.nodes.iter().filter(|node| node.landed > 0).count() as u64;
        let from = match nodes {
            0 => String::new(),
            n => format!(" ({}) from {}", HumanBytes(tally.bytes), count(n, "node")),
        };
        format!("{checked}fetched {}{from} in {took}", count(tally.landed, file))
    }

    fn file(&self) -> &'static str {
        if self.style.only_segments { "segment" } else { "file" }
    }
}

/// The holes of a collection in words, if it has any.
pub fn holes(Measured { collection, coverage }: &Measured) -> Option<String> {
    let coverage = coverage.as_ref().filter(|coverage| !coverage.holes.is_empty())?;
    let holes = count(coverage.holes.len() as u64, "hole");
    Some(format!("{collection} has {holes}, {} in all", length(coverage.missing)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;
    use crate::coverage::{Coverage, Hole};
    use crate::report::style::{MapStyle, Output, Style};
    use crate::segment::Collection;

    const STYLE: Style = Style {
        output: Output::Text { paths: None, map: false, table: false },
        map: MapStyle { colour: false, unicode: false, all_holes: false },
        fail_on_holes: true,
        on_terminal: false,
        summary: true,
        dry_run: false,
        only_segments: true,
        without_nodes: false,
    };

    /// A pass in which everything went wrong that can, with one segment fetched.
    fn bad_pass() -> (Human, Tally, Figures) {
        let names = ["good", "dead", "spare"].map(str::to_owned).to_vec();
        let mut human = Human::new(names, vec![false, false, true], STYLE);
        human.given_up = vec![(2, "timed out".into()), (1, "connection refused".into())];
        human.last.insert(Kind::FileFailed, "node good: HTTP 500".into());
        human.last.insert(Kind::LocalFailed, "writing x: disk full".into());
        let mut tally = Tally::new(3);
        (tally.failed, tally.listings_failed, tally.not_deleted) = (2, 1, 4);
        (tally.landed, tally.nodes[0].landed) = (1, 1);
        let collection = Collection { stream: "s".parse().unwrap(), variant: "v".parse().unwrap() };
        let holes = vec![Hole { start: 0, end: 2_000_000 }];
        let coverage =
            Coverage { rows: Vec::new(), holes, expected: 4_000_000, missing: 2_000_000 };
        let figures = Figures {
            started: DateTime::UNIX_EPOCH,
            took: Duration::from_secs(1),
            collections: Some(1),
            checked: None,
            compared: Vec::new(),
            measured: vec![Measured { collection, coverage: Some(coverage) }],
        };
        (human, tally, figures)
    }

    #[test]
    fn the_line_begins_with_what_decided_the_status() {
        let (human, tally, figures) = bad_pass();
        let answered = Left { any_answered: true, ..Left::default() };
        let late = Left { cause: Some(Cause::MaxDuration), ..answered };
        let fetched = "fetched 1 segment";
        for (left, beginning) in [
            (answered, fetched.to_owned()),
            (Left { cause: Some(Cause::Signal(15)), given_up: 1, ..answered }, fetched.to_owned()),
            (Left::default(), format!("no node answered; {fetched}")),
            (
                Left { failed_here: true, holes: 1, ..answered },
                format!("a local failure; {fetched}"),
            ),
            (
                Left { given_up: 1, ..answered },
                format!("node dead was given up: connection refused; {fetched}"),
            ),
            (Left { unlisted: 1, ..answered }, format!("1 listing failed; {fetched}")),
            (
                Left { missing: 2, ..answered },
                format!("2 segments could not be fetched (node good: HTTP 500); {fetched}"),
            ),
            (Left { corrupt: 1, ..answered }, format!("1 corrupt segment not repaired; {fetched}")),
            (Left { undeleted: 4, ..answered }, format!("4 old hours not deleted; {fetched}")),
            (Left { holes: 1, ..answered }, format!("s/v has 1 hole, 2.000 s in all; {fetched}")),
            (late, format!("ended by --max-duration; {fetched}")),
            (
                Left { undeleted: 4, unlisted: 1, ..late },
                format!(
                    "ended by --max-duration; 1 listing failed; 4 old hours not deleted; {fetched}"
                ),
            ),
        ] {
            let line = human.account(&tally, &left, &figures);
            assert!(line.starts_with(&beginning), "{left:?}: {line}");
        }
    }

    #[test]
    fn what_only_dead_optional_nodes_have_is_counted_apart() {
        let (human, tally, figures) = bad_pass();
        let left = Left { any_answered: true, missing: 1, ..Left::default() };
        let line = human.account(&tally, &left, &figures);
        assert!(
            line.starts_with("1 segment could not be fetched (node good: HTTP 500); "),
            "{line}"
        );
        assert!(line.contains("; 1 segment missing that only dead optional nodes have"), "{line}");
        assert!(!line.contains("listing"), "{line}");
    }

    #[test]
    fn a_local_error_comes_first_with_its_reason() {
        let (human, mut tally, figures) = bad_pass();
        tally.local_failures = 1;
        let left = Left {
            failed_here: true,
            given_up: 1,
            cause: Some(Cause::MaxDuration),
            ..Left::default()
        };
        let line = human.account(&tally, &left, &figures);
        assert!(line.starts_with("1 local error (writing x: disk full); fetched 1"), "{line}");
        assert!(line.contains("ended by --max-duration"), "{line}");
    }

    #[test]
    fn an_optional_node_explains_the_status_only_if_no_other_is_alive() {
        let (mut human, tally, figures) = bad_pass();
        let left = Left { any_answered: true, given_up: 1, holes: 1, ..Left::default() };
        let line = human.account(&tally, &left, &figures);
        let beginning = "node dead was given up: connection refused; s/v has 1 hole";
        assert!(line.starts_with(beginning), "{line}");
        assert!(line.contains("; optional node spare was given up: timed out"), "{line}");
        human.given_up.push((0, "connection refused".into()));
        let line = human.account(&tally, &left, &figures);
        assert!(line.starts_with("node spare was given up: timed out; node dead"), "{line}");
    }
}
