//! Feeds mutations of valid input to the parsers, for `BACKFILLER_FUZZ_SECONDS` (1 by default). The
//! parsers must not panic, and whatever they accept must keep the promises of its type.

use std::path::{Component, Path};
use std::time::{Duration, Instant};

use chrono::DateTime;
use proptest::test_runner::{Config, FileFailurePersistence};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use crate::config::parse_node;
use crate::extra::ExtraPath;
use crate::hour::{Hour, parse_hours};
use crate::node::Listing;
use crate::node::exchange::{Head, essence};
use crate::node::url::{NodeUrl, redirected};
use crate::report::log::escape;
use crate::segment::{Entry, Medium, SegmentName, Stream, is_unprintable};

/// The configuration of property tests. An input that fails is saved below `tests/regressions`, to
/// be committed with the fix, and is tried first from then on.
pub fn kept() -> Config {
    let below = FileFailurePersistence::SourceParallel("tests/regressions");
    Config { failure_persistence: Some(Box::new(below)), ..Config::default() }
}

const CORPUS: [&str; 28] = [
    "41:59.123000-2.0-full-47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU.ts",
    "41:59-5.333-partial--sSNryIqFkr_v_e1w1ftsDqsEGjUw8Y5vHLxhEiwsRM.ts",
    "41:59.1-2.0-temp-6f0f9d1e-8c1c-4b5c-9d3f-0123456789ab.ts",
    "41:59-47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU.json",
    "41:59-47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU.tombstone",
    "2018-11-10T05",
    "2018-11-10",
    "2018-11-10..2018-11-11T03",
    "last:3",
    "..",
    "all",
    "http://toodles:1337/",
    "https://me:secret@a.example:8443/wub/x",
    "http://[::1]:1337",
    "name=http://a",
    "disk=/mnt/disk",
    "./copy",
    "media/47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU/x.png",
    "[\"a\", \"b\\u00e9\", \"\\udc80\"]",
    "[\"41:59-47DEQpj8HBSa_-TImW_5JCeuQeRkm5NMpJWZG3hSuFU.json\"]",
    "[[[]]]",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n b\r\n\r\nbody",
    "\r\nHTTP/1.0 103\nRetry-After : 5\n\nHTTP/1.1 404\n\n",
    "//me:secret@a.example/../b/./c?x#y",
    "../x/..",
    "{\"a\": null}",
    "",
    "\u{202e}\x1b[0m\0\n",
];

fn mutate(random: &mut impl Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut _| corpus.choose(random).cloned().unwrap_or_default();
    let mut input = pick(random);
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..6) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 => input.insert(at, random.random()),
            2 => drop(input.drain(at..(at + random.random_range(0..8)).min(input.len()))),
            3 => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            4 => {
                let odd = [
                    "../",
                    "\0",
                    "é",
                    "-",
                    ".",
                    ":",
                    "@",
                    "%2F",
                    "\u{202e}",
                    "99999999999999999999",
                ];
                let odd = odd.choose(random).copied().unwrap_or_default();
                input.splice(at..at, odd.bytes());
            }
            _ => input = input.repeat(random.random_range(1..3)),
        }
    }
    input.truncate(5000);
    input
}

fn is_plain(path: &str) -> bool {
    let is_normal = |part| matches!(part, Component::Normal(_));
    let path_of_components = Path::new(path).components().all(is_normal);
    path_of_components && !path.contains(is_unprintable) && !path.contains("//")
}

/// Feeds an input to the parsers. Returns whether any of them accepted it, so that it is worth
/// mutating further.
fn feed(input: &[u8]) -> bool {
    let mut accepted =
        Listing::read(input, None, false).is_ok_and(|it| it.for_each(|_| Ok(())).is_ok());
    match Head::find(input) {
        Head::Complete { length, .. } | Head::Interim { length } => {
            accepted = true;
            let head = essence(&input[..length]);
            assert!(head.starts_with(b"HTTP/1.") && head.ends_with(b"\r\n\r\n"));
            assert_eq!(head.windows(4).position(|four| four == b"\r\n\r\n"), Some(head.len() - 4));
        }
        Head::Incomplete | Head::NotHttp(_) => {}
    }
    let Ok(text) = str::from_utf8(input) else {
        return accepted;
    };
    for medium in [Medium::Video, Medium::Chat] {
        if let Ok(Entry::Segment(name) | Entry::Tombstone(name)) = Entry::parse(text, medium) {
            accepted = true;
            assert!(is_plain(name.as_str()) && !name.as_str().contains('/'));
            assert!(is_plain(&name.tombstone()) && is_plain(&name.staged(uuid::Uuid::nil())));
            assert_eq!(SegmentName::parse(&name.to_string(), medium), Ok(name.clone()));
            assert!(name.start_micros() < 3_600_000_000);
            assert_eq!(name.hash().to_string(), name.written_hash());
        }
    }
    if let Ok(hour) = text.parse::<Hour>() {
        accepted = true;
        assert_eq!(hour.to_string(), text);
    }
    if let Ok(range) = parse_hours(text, DateTime::UNIX_EPOCH) {
        accepted = true;
        assert!(range.start() <= range.end());
    }
    if let Ok(stream) = text.parse::<Stream>() {
        assert!(is_plain(stream.as_str()) && !stream.as_str().contains('/'));
    }
    if let Ok(path) = text.parse::<ExtraPath>() {
        assert!(is_plain(&path.to_string()));
    }
    if let Ok(url) = NodeUrl::parse(text) {
        accepted = true;
        let shown = url.to_string();
        assert!(!shown.split('/').nth(2).unwrap_or_default().contains('@'));
        assert!(!url.host().is_empty());
    }
    let from = ureq::http::Uri::from_static("http://a.example/b/c?d");
    if let Some(to) = redirected(&from, text) {
        accepted = true;
        assert!(matches!(to.scheme_str(), Some("http" | "https")));
        assert!(to.authority().is_some_and(|authority| !authority.as_str().contains('@')));
        assert!(to.path().starts_with('/'));
    }
    if let Ok(node) = parse_node(text) {
        assert!(!node.name.is_empty());
    }
    assert!(!escape(text).contains(is_unprintable));
    accepted
}

#[test]
fn parsers_survive_mutated_input() {
    let seconds = std::env::var("BACKFILLER_FUZZ_SECONDS");
    let seconds = seconds.map_or(1, |seconds| seconds.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = SmallRng::seed_from_u64(rand::random());
    let mut corpus: Vec<Vec<u8>> = CORPUS.iter().map(|text| text.as_bytes().to_vec()).collect();
    let mut inputs = 0_u64;
    while Instant::now() < end {
        for _ in 0..1000 {
            let input = mutate(&mut random, &corpus);
            println_if_it_panics(&input, || {
                if feed(&input) && input.len() < 200 {
                    let at = match corpus.len() {
                        ..500 => corpus.len(),
                        len => random.random_range(CORPUS.len()..len),
                    };
                    if at == corpus.len() {
                        corpus.push(input.clone());
                    } else {
                        corpus[at] = input.clone();
                    }
                }
            });
        }
        inputs += 1000;
    }
    println!("{inputs} inputs");
}

/// Prints an input that breaks a parser, so that it can become a unit test.
fn println_if_it_panics(input: &[u8], test: impl FnOnce()) {
    let test = std::panic::AssertUnwindSafe(test);
    if let Err(panic) = std::panic::catch_unwind(test) {
        println!("input: b\"{}\"", input.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}
