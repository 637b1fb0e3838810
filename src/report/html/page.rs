//! The page as a whole: how the pass went, and a section for each thing to know about it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use indicatif::{HumanBytes, HumanCount};
use maud::{Markup, PreEscaped, html};

use super::About;
use super::chart::chart;
use super::compare;
use super::failures::{Failures, Line};
use super::history::History;
use super::map::{TEXTURES, maps};
use super::text::foreign;
use crate::compare::Row;
use crate::durations::took as seconds;
use crate::report::stats::Now;
use crate::report::tally::{NodeTally, Tally};
use crate::report::words::percent;
use crate::report::{Measured, Status};
use crate::segment::Collection;

/// How every report begins. A file that begins otherwise is never replaced.
pub const BEGINNING: &str = "<!DOCTYPE html><!-- A report of backfiller -->";
/// The comments around the note of a pass that gave way to another one.
pub const GAVE_WAY: [&str; 2] = ["<!-- gave way -->", "<!-- that was it -->"];

/// Written so that it is well-formed XML too. The policy forbids the page to load or run anything.
const HEAD: &str = concat!(
    r#"<meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>"#,
    r#"<meta name="color-scheme" content="light dark"/><meta http-equiv="Content-Security-Policy" "#,
    r#"content="default-src 'none'; style-src 'unsafe-inline'; img-src data:"/><style>"#,
    include_str!("style.css"),
    "</style>",
);

/// Whether the pass is still running.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    /// It is, with this progress.
    Running(Now),
    /// It is over, with this outcome.
    Over(Status),
}

/// Everything that a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// What was known before the pass.
    pub about: &'a About,
    /// Whether the pass is still running.
    pub stage: Stage,
    /// How the pass went, in one line.
    pub summary: &'a str,
    /// When the page is written.
    pub written: DateTime<Utc>,
    /// When the pass began.
    pub started: DateTime<Utc>,
    /// How long it has taken.
    pub took: Duration,
    /// The counts.
    pub tally: &'a Tally,
    /// What failed.
    pub failures: &'a Failures,
    /// The bytes over time.
    pub history: &'a History,
    /// The coverage.
    pub measured: &'a [Measured],
    /// When the coverage was measured, unless at the end of the pass.
    pub measured_at: Option<DateTime<Utc>>,
    /// As in the [`Figures`](crate::report::Figures).
    pub collections: Option<usize>,
    /// Which node has what.
    pub compared: &'a [(Collection, Vec<Row>)],
}

/// In place of a map or a table, if the pass is over extra files alone, or `all` has found nothing.
const NO_STREAMS: &str = "This pass has no streams.";

/// How an outcome is shown: the CSS class, the sign and the title.
type Look = (&'static str, &'static str, &'static str);

impl Page<'_> {
    /// The text of the page.
    pub fn text(&self) -> String {
        let (class, sign, title) = self.look();
        let dry_run = self.about.dry_run;
        let sections = self.sections();
        let page = html! {
            html lang="en" {
                head {
                    (PreEscaped(HEAD))
                    title { (title) @if dry_run { ", dry run" } " – backfiller" }
                    (PreEscaped(icon(class)))
                }
                body {
                    (PreEscaped(TEXTURES))
                    (PreEscaped(GAVE_WAY.concat()))
                    header class=(class) {
                        span.sign aria-hidden="true" { (sign) }
                        div {
                            h1 { (title) @if dry_run { " " span.badge { "dry run" } } }
                            p { (foreign(self.summary)) }
                            @if dry_run { p { "Nothing was fetched. This is what the pass would leave." } }
                            p.muted { "As of " (time(self.written)) "; the pass began at " (time(self.started)) "." }
                        }
                    }
                    main {
                        (self.tiles())
                        nav { @for (id, title, _) in &sections { a href={ "#" (id) } { (title) } " " } }
                        @for (id, title, content) in &sections {
                            section id=(id) { h2 { (title) } (content) }
                        }
                    }
                    footer { "backfiller " (env!("CARGO_PKG_VERSION")) ". All times are UTC." }
                }
            }
        };
        let mut text = BEGINNING.to_owned();
        text.push_str(&page.0);
        text.push('\n');
        text
    }

    /// The sections: id, title and content.
    fn sections(&self) -> [(&'static str, &'static str, Markup); 6] {
        [
            ("failures", "What failed", self.failed()),
            ("coverage", "What is here", self.coverage()),
            ("who", "Who has what", self.who()),
            ("nodes", "Nodes", self.nodes()),
            ("bytes", "Bytes over time", self.bytes()),
            ("pass", "The pass", self.pass()),
        ]
    }

    fn look(&self) -> Look {
        match self.stage {
            Stage::Running(_) => ("running", "▸", "Running"),
            Stage::Over(status) => match status {
                Status::Complete => ("good", "✓", "Complete"),
                Status::Incomplete => ("warn", "!", "Incomplete"),
                Status::LocalFailure => ("bad", "✕", "Failed on this machine"),
                Status::NoNode => ("bad", "✕", "No node answered"),
                Status::Locked => ("warn", "!", "Gave way to another pass"),
                Status::Signal(_) | Status::OutputClosed => ("warn", "!", "Interrupted"),
                Status::Usage => ("bad", "✕", "Not begun"),
            },
        }
    }

    fn tiles(&self) -> Markup {
        let Tally { landed, bytes, would_fetch, would_fetch_bytes, nodes, .. } = self.tally;
        let (files, size, what) = if self.about.dry_run {
            (would_fetch, would_fetch_bytes, "would be fetched")
        } else {
            (landed, bytes, "fetched")
        };
        let given_up = nodes.iter().filter(|node| node.given_up).count();
        let coverages = || self.measured.iter().filter_map(|measured| measured.coverage.as_ref());
        let expected: i64 = coverages().map(|coverage| coverage.expected).sum();
        let missing: i64 = coverages().map(|coverage| coverage.missing).sum();
        let holes: usize = coverages().map(|coverage| coverage.holes.len()).sum();
        html! {
            dl.tiles {
                @if expected > 0 {
                    (tile(&percent((expected - missing) as f64 / expected as f64), "covered"))
                    (tile(&HumanCount(holes as u64).to_string(), "holes"))
                }
                (tile(&HumanCount(*files).to_string(), &format!("files {what}")))
                (tile(&HumanBytes(*size).to_string(), what))
                @if let Stage::Running(now) = self.stage {
                    (tile(&HumanCount(now.counts.wanted).to_string(), "files wanted so far"))
                }
                (tile(&seconds(self.took), "taken"))
                @if given_up == 0 {
                    (tile(&nodes.len().to_string(), "nodes"))
                } @else {
                    (tile(&format!("{given_up} of {}", nodes.len()), "nodes given up"))
                }
            }
        }
    }

    fn failed(&self) -> Markup {
        let lines: Vec<Line> = self.failures.lines().collect();
        html! {
            @if lines.is_empty() {
                p { "Nothing." }
            } @else {
                div.wide tabindex="0" { table.failures {
                    thead { tr { th { "What" } th { "Node" } th { "Reason" } th.n { "Times" } } }
                    tbody { @for Line { what, node, reason, times } in lines { tr {
                        td { (what.words()) }
                        td { @match node {
                            Some(node) => (foreign(&self.about.names[node])),
                            None => "–",
                        } }
                        td.reason { (foreign(reason.unwrap_or("other reasons"))) }
                        td.n { (HumanCount(times)) }
                    } } }
                } }
            }
        }
    }

    fn coverage(&self) -> Markup {
        let is_over = matches!(self.stage, Stage::Over(_));
        html! {
            @match self.measured_at {
                Some(at) if is_over => p.muted {
                    "As it was at " (time(at)) ": the pass ended too early to look again."
                },
                Some(_) => p.muted { "So far." },
                None => {}
            }
            @if self.measured.is_empty() {
                p { @match self.collections {
                    _ if !is_over => "Not known: it has not been looked at yet.",
                    None => "Not known: the pass ended too early to look.",
                    Some(0) => (NO_STREAMS),
                    Some(_) => "Not known: the archive could not be read.",
                } }
            } @else {
                p.muted {
                    "Each row is an hour. Point at a minute to see what it is, or open the row."
                }
                (maps(self.measured, self.about.dry_run))
            }
        }
    }

    fn who(&self) -> Markup {
        let why_not = match self.stage {
            _ if !self.about.compares => "Not counted: only certain files were asked for.",
            Stage::Running(_) => "Known when the pass is over.",
            Stage::Over(_) if self.collections == Some(0) => NO_STREAMS,
            Stage::Over(_) => "Not known: the pass ended too early to tell.",
        };
        html! {
            @if self.compared.is_empty() { p { (why_not) } }
            @else { (compare::tables(self.compared, &self.about.names)) }
        }
    }

    fn nodes(&self) -> Markup {
        html! {
            @if self.about.names.is_empty() { p { "No node was asked." } }
            @else { div.wide tabindex="0" { table {
                thead { tr {
                    th { "Node" } th { "State" } th.n { "Files" } th.n { "Bytes" }
                    th.n { "Failed requests" } th.n { "Listing" } th.n { "Fetching" }
                } }
                tbody { @for (id, node) in self.tally.nodes.iter().enumerate() { tr {
                    th scope="row" { (foreign(&self.about.names[id])) }
                    td.lacks[node.given_up] { (self.state(id, node)) }
                    td.n { (HumanCount(node.landed)) }
                    td.n { (HumanBytes(node.bytes)) }
                    td.n { (HumanCount(node.errors)) }
                    td.n { (seconds(node.listing)) }
                    td.n { (seconds(node.fetching)) }
                } } }
            } } }
        }
    }

    fn state(&self, id: usize, node: &NodeTally) -> String {
        let was_asked = !(node.listing + node.fetching).is_zero();
        let state = match node {
            NodeTally { given_up: true, .. } => "✕ given up",
            NodeTally { errors: 1.., .. } => "! failed at times",
            _ if was_asked => "✓ answered",
            _ => "– not asked",
        };
        let optional = if self.about.optional[id] { " (optional)" } else { "" };
        format!("{state}{optional}")
    }

    fn bytes(&self) -> Markup {
        html! {
            @match chart(self.history) {
                Some(chart) => (chart),
                None if self.about.dry_run => p { "Nothing is fetched in a dry run." },
                None => p { "Nothing was fetched." },
            }
        }
    }

    fn pass(&self) -> Markup {
        html! {
            dl.facts {
                dt { "Command" } dd { code { (foreign(&self.about.command)) } }
                dt { "Archive" } dd { code { (foreign(&self.about.archive)) } }
                dt { "Begun" } dd { (time(self.started)) }
                @if let Stage::Over(status) = self.stage {
                    dt { "Exit status" } dd { (status.code()) }
                }
                @for (n, what) in self.others() {
                    dt { (what) } dd { (HumanCount(n)) }
                }
            }
        }
    }

    /// The other counts that are not zero.
    fn others(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let tally = self.tally;
        let counts = [
            (tally.tombstones, "Tombstones created"),
            (tally.hidden, "Segments hidden by tombstones"),
            (tally.removed, "Segments removed again"),
            (tally.near_duplicates, "Near duplicates skipped"),
            (tally.corrupt, "Corrupt segments found"),
            (tally.repaired, "Corrupt segments repaired"),
            (tally.deleted, "Old segments deleted"),
        ];
        counts.into_iter().filter(|(n, _)| *n > 0)
    }
}

fn tile(figure: &str, what: &str) -> Markup {
    html! { div { dt { (what) } dd { (figure) } } }
}

/// The note of a pass that gave way to another one at this time.
pub fn gave_way(at: DateTime<Utc>) -> String {
    let said =
        html! { p.gave-way { "A pass at " (time(at)) " gave way to another one (--lock)." } };
    format!("{}{}{}", GAVE_WAY[0], said.0, GAVE_WAY[1])
}

fn time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.format("%Y-%m-%dT%H:%M:%SZ")) { (at.format("%Y-%m-%d %H:%M:%S")) } }
}

/// The icon of the browser tab, in the colour of the outcome.
fn icon(class: &str) -> String {
    let colour = match class {
        "good" => "17703a",
        "running" => "2463a6",
        "warn" => "8f5400",
        _ => "c62828",
    };
    format!(
        "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' \
         viewBox='0 0 8 8'%3E%3Crect width='8' height='8' rx='2' fill='%23{colour}'/%3E%3Cpath \
         d='M2 2h1v4H2zM4 3h1v3H4z' fill='%23fff'/%3E%3C/svg%3E\"/>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{Cell, Coverage, Hole, Row as MapRow};
    use crate::hour::{HOUR_MICROS, Hour};

    /// Two weeks with every other minute missing: no row can be larger.
    fn ragged(variant: &str) -> (Measured, (Collection, Vec<Row>)) {
        let stream = "desertbus".parse().unwrap();
        let collection = Collection { stream, variant: variant.parse().unwrap() };
        let first: Hour = "2018-11-09T17".parse().unwrap();
        let hours = || (0..336).map(|n| Hour::at_micros(first.micros_at(0) + n * HOUR_MICROS));
        let cell = |minute| if minute % 2 == 0 { Cell::Here } else { Cell::PartMissing };
        let row = |hour| MapRow::Hour { hour, cells: std::array::from_fn(cell), percent: 50 };
        let minutes = hours().flat_map(|hour| (0..60).map(move |m| hour.micros_at(m * 60_000_000)));
        let hole = |start| Hole { start, end: start + 30_000_000 };
        let coverage = Coverage {
            rows: hours().map(row).collect(),
            holes: minutes.map(hole).collect(),
            expected: 336 * HOUR_MICROS,
            missing: 168 * HOUR_MICROS,
        };
        let row = |hour| Row { hour, all: 1800, here: 900, nodes: vec![Some(1234); 5] };
        let compared = (collection.clone(), hours().map(row).collect());
        (Measured { collection, coverage: Some(coverage) }, compared)
    }

    #[test]
    fn two_ragged_weeks_of_three_variants_take_under_2_mb() {
        let (measured, compared): (Vec<_>, Vec<_>) =
            ["source", "480p", "160p"].map(ragged).into_iter().unzip();
        let about = About {
            command: "backfiller".into(),
            archive: "/srv".into(),
            names: (0..5).map(|n| format!("node-{n}.example")).collect(),
            optional: vec![false; 5],
            dry_run: false,
            compares: true,
        };
        let begun = std::time::Instant::now();
        let page = Page {
            about: &about,
            stage: Stage::Over(Status::Complete),
            summary: "nothing was missing",
            written: DateTime::default(),
            started: DateTime::default(),
            took: Duration::ZERO,
            tally: &Tally::new(5),
            failures: &Failures::default(),
            history: &History::new(begun),
            measured: &measured,
            measured_at: None,
            collections: Some(3),
            compared: &compared,
        };
        let text = page.text();
        println!("{} bytes in {:?}", text.len(), begun.elapsed());
        assert!(text.len() < 2_000_000, "{} bytes", text.len());
        assert!(text.starts_with(BEGINNING) && text.ends_with("</html>\n"));
    }

    // ---- Colours ------------------------------------------------------------------------------

    /// How bright a colour is, as WCAG has it.
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4)
    }

    fn contrast(one: &str, other: &str) -> f64 {
        let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
        one.max(other) / one.min(other)
    }

    #[test]
    fn text_and_map_have_contrast_in_both_schemes() {
        let style = include_str!("style.css");
        let schemes: Vec<&str> =
            style.split(":root {").skip(1).map(|s| s.split('}').next().unwrap()).collect();
        assert_eq!(schemes.len(), 2);
        for scheme in schemes {
            let colour = |name: &str| {
                let (_, rest) = scheme.split_once(&format!("--{name}: #")).expect(name);
                &rest[..6]
            };
            for behind in ["page", "card", "track"] {
                for text in ["ink", "muted", "link", "missing", "good", "running", "warn", "bad"] {
                    let contrast = contrast(colour(text), colour(behind));
                    assert!(contrast >= 4.5, "{text} on {behind}: {contrast:.2} in {scheme}");
                }
                for kind in ["here", "fetched", "lesser", "deleted", "missing"] {
                    let contrast = contrast(colour(kind), colour(behind));
                    assert!(contrast >= 3.0, "{kind} on {behind}: {contrast:.2} in {scheme}");
                }
            }
        }
    }
}
