//! The bytes over time, as a bar chart.

use std::fmt::Write;
use std::time::Duration;

use indicatif::HumanBytes;
use maud::{Markup, html};

use super::history::History;
use crate::durations::took as seconds;

/// The height of the chart in its own units. Each bar is one unit wide.
const HEIGHT: f64 = 100.0;

/// The chart, or `None` if nothing landed.
pub fn chart(history: &History) -> Option<Markup> {
    let (bytes, step) = (history.bytes(), history.step());
    let most = bytes.iter().copied().max().filter(|most| *most > 0)?;
    let per_second = |bytes: u64| HumanBytes((bytes as f64 / step.as_secs_f64()) as u64);
    let peak = per_second(most);
    let view = format!("0 0 {} {HEIGHT}", bytes.len());
    let label = format!("Bytes fetched over time; at most {peak}/s");
    Some(html! {
        figure.chart {
            figcaption { "at most " (peak) "/s" }
            svg viewBox=(view) preserveAspectRatio="none" role="img" aria-label=(label) {
                @for (n, landed) in bytes.iter().enumerate() {
                    path d=(bar(n, *landed, most)) {
                        title { (at(n, step)) ": " (HumanBytes(*landed)) ", " (per_second(*landed)) "/s" }
                    }
                }
            }
            div.axis { span { "start" } span { (seconds(step * bytes.len() as u32)) } }
        }
        details {
            summary { "The same in figures" }
            div.wide tabindex="0" { table {
                thead { tr { th { "From start" } th.n { "Fetched" } th.n { "Per second" } } }
                tbody { @for (n, landed) in bytes.iter().enumerate() {
                    @if *landed > 0 { tr {
                        th scope="row" { (at(n, step)) }
                        td.n { (HumanBytes(*landed)) }
                        td.n { (per_second(*landed)) }
                    } }
                } }
            } }
        }
    })
}

/// The path of a bar.
fn bar(n: usize, landed: u64, most: u64) -> String {
    let mut path = String::new();
    // Even a little must be visible.
    let high = (landed as f64 / most as f64 * HEIGHT).max(if landed > 0 { 1.0 } else { 0.0 });
    let _ = write!(path, "M{n}.05 {HEIGHT}v-{high:.1}h.9v{high:.1}z");
    path
}

/// The time of the n-th step, from the start.
fn at(n: usize, step: Duration) -> String {
    let from = step * n as u32;
    format!("{} to {}", clock(from), clock(from + step))
}

fn clock(time: Duration) -> String {
    let s = time.as_secs();
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_step_says_when_it_was_and_what_landed() {
        let begun = Instant::now();
        let mut history = History::new(begun);
        assert!(chart(&history).is_none());
        history.add(begun, 4 << 20);
        history.add(begun + Duration::from_secs(2), 1);
        let chart = chart(&history).unwrap().into_string();
        for said in [
            "at most 4.00 MiB/s",
            r#"<path d="M0.05 100v-100.0h.9v100.0z"><title>0:00:00 to 0:00:01: 4.00 MiB, "#,
            r#"<path d="M2.05 100v-1.0h.9v1.0z">"#,
            "<title>0:00:01 to 0:00:02: 0 B, 0 B/s</title>",
        ] {
            assert!(chart.contains(said), "{said} is not in {chart}");
        }
    }
}
