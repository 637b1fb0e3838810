//! The promise under attack from nodes: lies of every kind, from a node alone and beside a good
//! one, in bounded memory; and names that try to escape the archive or to control the terminal.
//! `BACKFILLER_HOSTILE_NAMES` sets how many names are generated (20,000).

mod node;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use node::{Fault, Node, On, hash_of};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use support::{Archive, HOUR, Run, each_case, fill, number_from_env};

/// For tests that wait for no timeout: on a busy machine a node of the test itself may be silent for
/// seconds.
const PATIENT: &str = "--timeout=60s";

/// A JSON list of this many valid segment names.
fn many_names(count: usize) -> Vec<u8> {
    let name = |n: usize| {
        let hash = hash_of(&n.to_le_bytes());
        format!("\"{:02}:{:02}.{:06}-2.0-full-{hash}.ts\"", n / 60 % 60, n % 60, n % 1_000_000)
    };
    let names: Vec<String> = (0..count).map(name).collect();
    format!("[{}]", names.join(",")).into_bytes()
}

#[test]
fn lying_listings_are_reported_and_affect_no_other_node() {
    let long = format!("[\"{}\"]", "x".repeat(100 << 10));
    let longer = format!("[\"{}\"]", "x".repeat(10 << 20));
    let cases = [
        ("endless", Fault::Endless, true),
        ("endless gzip", Fault::GzipBomb, true),
        ("names of what it doesn't have", Fault::Body(many_names(3000)), false),
        ("a name of 100 kB", Fault::Body(long.into_bytes()), false),
        ("a name of 10 MB", Fault::Body(longer.into_bytes()), false),
        ("deeply nested", Fault::Body("[".repeat(1 << 20).into_bytes()), true),
        ("an object", Fault::Body(b"{\"a\": [\"b\"]}".to_vec()), true),
        ("numbers", Fault::Body(b"[1, 2, 3]".to_vec()), true),
        ("bytes as numbers", Fault::Body(b"[[47, 46]]".to_vec()), true),
        ("not JSON", Fault::Body(b"00:00.0-2.0-full.ts".to_vec()), true),
        ("not UTF-8", Fault::Body(b"[\"\xff\xfe\x00\", \"\xc3(\"]".to_vec()), false),
        ("a page", Fault::Body(b"<html><body>Welcome to nginx!</body></html>".to_vec()), true),
        ("nothing", Fault::Body(Vec::new()), true),
        ("null", Fault::Body(b"null".to_vec()), true),
        ("two lists", Fault::Body(b"[] []".to_vec()), true),
        ("cut short", Fault::Body(b"[\"a\", \"b".to_vec()), true),
    ];
    each_case(cases, |(what, fault, is_failure)| {
        let (liar, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
        fill(&liar, 1);
        let names = fill(&good, 20);
        liar.fault(On::Listing, fault);
        // It doesn't have the additional segments that it lists.
        liar.fault(On::Segment, Fault::Status(404));
        for nodes in [vec![&liar], vec![&liar, &good]] {
            let archive = Archive::new();
            let urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
            let args = [&*urls.join(","), "desertbus", "source", "--retries=1", PATIENT];
            let run = archive.backfill(args);
            let outcome = run.run_bounded();
            if is_failure {
                outcome
                    .assert_code(3)
                    .assert_says("warning: node 127.0.0.1: listing desertbus/source/");
            } else {
                // Listing segments that it doesn't have makes it suspicious.
                assert!(matches!(outcome.code(), Some(0 | 3)), "{what}: {outcome:#?}");
            }
            if nodes.len() == 2 {
                assert_eq!(archive.names(), names, "{what}");
            }
            archive.assert_whole();
        }
    });
}

#[test]
fn many_lying_nodes_do_not_fill_the_memory() {
    let liars: Vec<Node> = (1..=4).map(|n| Node::start_at(&format!("127.0.0.{n}"))).collect();
    for (n, liar) in liars.iter().enumerate() {
        for hour in 0..16 {
            liar.add(
                "desertbus",
                "source",
                &format!("2018-11-10T{hour:02}"),
                "00:00.0-2.0-full",
                b"x",
            );
        }
        liar.fault(On::Listing, if n % 2 == 0 { Fault::Endless } else { Fault::GzipBomb });
    }
    let good = Node::start_at("127.0.0.9");
    let names = fill(&good, 20);
    let mut urls: Vec<String> = liars.iter().map(Node::url).collect();
    urls.push(good.url());
    let archive = Archive::new();
    let args = [&*urls.join(","), "desertbus", "source", "--retries=1", PATIENT];
    archive.backfill(args).run_bounded().assert_code(3);
    assert_eq!(archive.names(), names);
}

#[test]
fn many_valid_names_do_not_fill_the_memory() {
    let node = Node::start();
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"x");
    node.fault(On::Listing, Fault::Body(many_names(50_000)));
    let archive = Archive::new();
    let run = archive.backfill([&*node.url(), "desertbus", "source", "--dry-run", PATIENT]);
    let outcome = run.run_bounded();
    outcome.assert_code(0);
    assert_eq!(outcome.stdout.lines().count(), 50_000);
}

/// Has a node list 1,800 names, always the same, for each of some hours.
fn list_hours(node: &Node, hours: usize) {
    let listing = many_names(1800);
    for hour in 0..hours {
        let hour = format!("2018-11-10T{hour:02}");
        node.list_also("desertbus", "source", &hour, "x");
        node.fault_path(&format!("/files/desertbus/source/{hour}"), Fault::Body(listing.clone()));
    }
}

#[test]
fn many_nodes_that_list_what_is_missing_do_not_fill_the_memory() {
    // One server under many names.
    let node = Node::start();
    list_hours(&node, 6);
    let nodes: Vec<String> = (0..64).map(|n| format!("n{n}={}", node.url())).collect();
    let archive = Archive::new();
    let run = archive.backfill([&*nodes.join(","), "desertbus", "source", "--dry-run", PATIENT]);
    let outcome = run.run_bounded();
    outcome.assert_code(0);
    assert_eq!(outcome.stdout.lines().count(), 6 * 1800);
}

#[test]
fn a_dry_run_does_not_list_far_ahead_of_a_slow_node() {
    const HOURS: usize = 24;
    let (quick, slow) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    list_hours(&quick, HOURS);
    list_hours(&slow, HOURS);
    let archive = Archive::new();
    let both = format!("{},{}", quick.url(), slow.url());
    let args = [&*both, "desertbus", "source", "--dry-run", "-j2", PATIENT];
    let is_hour = |request: &node::Request| request.resource.matches('/').count() == 4;
    let hours = || quick.requests().into_iter().filter(is_hour).count();
    slow.hold();
    let running = archive.backfill(args).start();
    // There is no event for a node that gets no more requests, so this waits until none has come
    // for a while.
    let mut ahead = 0;
    while ahead == 0 || ahead != hours() {
        ahead = hours();
        thread::sleep(Duration::from_secs(1));
    }
    let peak = running.peak_memory().expect("it waits for the slow node") >> 20;
    slow.release();
    let outcome = running.outcome();
    assert!(ahead < 20, "only one node has listed {ahead} of {HOURS} hours");
    // All hours of the quick node take 49 MiB. Ten of them, which are the bound, take 30 MiB.
    assert!(peak < 40, "{peak} MiB after {ahead} hours");
    outcome.assert_code(0);
    assert_eq!(outcome.stdout.lines().count(), HOURS * 1800);
}

#[test]
fn an_endless_empty_gzip_body_does_not_hang_the_pass() {
    each_case([On::Listing, On::Segment], |on| {
        let (liar, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
        let names = fill(&liar, 10);
        fill(&good, 10);
        liar.fault(on, Fault::EmptyGzipBlocks);
        let archive = Archive::new();
        let both = format!("{},{}", liar.url(), good.url());
        let args = [&*both, "desertbus", "source", "--retries=0", "--max-segment-size=4M", PATIENT];
        let outcome = archive.backfill(args).run_bounded();
        assert!(matches!(outcome.code(), Some(0 | 3)), "{outcome:#?}");
        assert_eq!(archive.names(), names);
    });
}

#[test]
fn wrong_content_is_never_committed() {
    let faults = [
        Fault::Corrupt,
        Fault::Body(b"right bytes of something else".to_vec()),
        Fault::Body(b"<html>500</html>".to_vec()),
        Fault::Body(Vec::new()),
        Fault::CutOff(50),
        Fault::CutOffChunked(50),
        Fault::CutOffUnannounced(50),
        Fault::Longer,
        Fault::Endless,
        Fault::GzipBomb,
        Fault::Reset,
        Fault::ResetInBody(50),
        Fault::StatusWithHeader(206, "Content-Range", "bytes 0-9/100".into()),
        Fault::StatusWithHeader(302, "Location", "file:///etc/passwd".into()),
        Fault::StatusWithHeader(302, "Location", "//127.0.0.2/x".into()),
        Fault::StatusWithHeader(302, "Location", "gopher://x/".into()),
        Fault::StatusWithHeader(302, "Location", "http://".into()),
        Fault::Status(301),
        Fault::Status(204),
        Fault::Status(304),
        Fault::Status(999),
    ];
    each_case(faults, |fault| {
        let (liar, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
        let names = fill(&liar, 10);
        fill(&good, 10);
        liar.fault(On::Segment, fault.clone());
        let alone = Archive::new();
        let options = ["--retries=1", "--max-segment-size=1M", PATIENT];
        let args = |nodes: &str| [nodes, "desertbus", "source"].map(String::from);
        let run = alone.backfill(args(&liar.url()).iter().map(String::as_str).chain(options));
        run.run_bounded().assert_code(3);
        assert!(alone.files().is_empty(), "{fault:?}");

        let archive = Archive::new();
        let both = format!("{},{}", liar.url(), good.url());
        let run = archive.backfill(args(&both).iter().map(String::as_str).chain(options));
        let outcome = run.run_bounded();
        assert!(matches!(outcome.code(), Some(0 | 3)), "{fault:?}: {outcome:#?}");
        assert_eq!(archive.names(), names, "{fault:?}");
        archive.assert_whole();
    });
}

#[test]
fn right_content_under_a_wrong_name_is_refused() {
    let node = Node::start();
    let right = format!("00:00.0-2.0-full-{}.ts", hash_of(b"right"));
    let wrong = format!("00:02.0-2.0-full-{}.ts", hash_of(b"wrong"));
    node.add_named("desertbus", "source", HOUR, &right, b"right");
    node.add_named("desertbus", "source", HOUR, &wrong, b"right");
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", PATIENT]).run();
    outcome.assert_code(3).assert_says(&format!("{wrong} could not be fetched"));
    assert_eq!(archive.names(), [right]);
}

#[test]
fn silence_at_any_point_of_the_exchange_ends() {
    let faults = [Fault::Hang, Fault::HangInHeaders, Fault::HangInBody(0), Fault::HangInBody(5)];
    let cases = [On::Hours, On::Listing, On::Segment]
        .into_iter()
        .flat_map(|on| faults.clone().map(|fault| (on, fault)));
    each_case(cases, |(on, fault)| {
        let (silent, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
        fill(&silent, 20);
        let names = fill(&good, 20);
        // The good node may deliver all its segments before the silent one gets a request. It
        // doesn't have this segment, which is too long to be completed by resuming every few bytes.
        silent.add("desertbus", "source", HOUR, "59:59.0-2.0-full", &[b'x'; 1000]);
        silent.fault(on, fault.clone());
        let archive = Archive::new();
        let both = format!("{},{}", silent.url(), good.url());
        let args = [&*both, "desertbus", "source", "--timeout=500ms"];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(3).assert_says("node 127.0.0.1 is given up: timed out after 0.5 s");
        assert!(outcome.took < Duration::from_secs(20), "{on:?} {fault:?}: {:?}", outcome.took);
        assert_eq!(archive.names(), names, "{on:?} {fault:?}");
    });
}

/// A response that trickles counts as silent after one timeout, except wanted files, which have
/// half a minute. The calculation has its own tests.
#[test]
fn an_occasional_byte_counts_as_silence() {
    let drip = Duration::from_millis(50);
    let cases = [
        (On::Listing, Fault::Trickle(1, drip)),
        (On::Hours, Fault::TrickleStatus(500, drip)),
        (On::Segment, Fault::TrickleStatus(404, drip)),
        (On::Segment, Fault::TrickleHead(drip)),
    ];
    each_case(cases, |(on, fault)| {
        let (slow, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
        fill(&slow, 8);
        let names = fill(&good, 8);
        slow.fault(on, fault.clone());
        // A segment that only this node has, so that it is requested here.
        slow.add("desertbus", "source", HOUR, "59:59.0-2.0-full", b"slow");
        let archive = Archive::new();
        let both = format!("{},{}", slow.url(), good.url());
        let args = [&*both, "desertbus", "source", "--timeout=500ms"];
        let outcome = archive.backfill(args).run();
        outcome.assert_says("slower than 1,000 bytes per second for 0.5 s");
        assert!(outcome.took < Duration::from_secs(20), "{fault:?}: {:?}", outcome.took);
        assert_eq!(archive.names(), names, "{fault:?}");
    });
}

#[test]
fn credentials_are_not_sent_to_another_host() {
    let (from, thief) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    fill(&from, 2);
    fill(&thief, 2);
    from.require_basic_auth("me", "secret");
    for name in fill(&thief, 2) {
        let path = format!("/segments/desertbus/source/{HOUR}/{name}");
        let location = format!("{}{path}", thief.url());
        from.fault_path(&path, Fault::StatusWithHeader(302, "Location", location));
    }
    let archive = Archive::new();
    let url = from.url().replace("://", "://me:secret@");
    let outcome = archive.backfill([&*url, "desertbus", "source", "-vv", PATIENT]).run();
    outcome.assert_code(0).assert_says_not("secret").assert_says_not("bWU6c2VjcmV0");
    assert!(!thief.requests().is_empty());
    assert!(thief.requests().iter().all(|request| request.header("authorization").is_none()));
    assert!(from.segment_requests().iter().all(|r| r.header("authorization").is_some()));
}

/// A hostile name: a valid one with changes.
fn hostile_name(random: &mut impl Rng) -> String {
    const PIECES: [&str; 28] = [
        "..",
        "/",
        "../",
        "/etc/passwd",
        "\0",
        "\n",
        "\r",
        "\x1b[2J",
        "\x1b]0;x\x07",
        "\u{9b}31m",
        "\u{202e}",
        "\u{2028}",
        "\u{feff}",
        "%2e%2e%2f",
        "%00",
        "\\",
        "..\\",
        "ｆull",
        "é",
        "é",
        ".",
        "-",
        "-temp-",
        ".ts",
        ".tombstone",
        "~",
        "*",
        "$(touch x)",
    ];
    let mut bytes = [0; 32];
    random.fill_bytes(&mut bytes);
    let kind = ["full", "suspect", "partial", "temp", "FULL", ""].choose(random).unwrap();
    let end = [".ts", ".json", ".tombstone", "", ".ts/", ".ts\0", ".TS"].choose(random).unwrap();
    let (minute, second) = (random.random_range(0..70), random.random_range(0..70));
    let duration = ["2.0", "-1", "1e9", "NaN", "0x1", "2", "٢"].choose(random).unwrap();
    let hash = hash_of(&bytes);
    let mut name = format!("{minute:02}:{second:02}.0-{duration}-{kind}-{hash}{end}");
    for _ in 0..random.random_range(0..3) {
        let places: Vec<usize> = (0..=name.len()).filter(|at| name.is_char_boundary(*at)).collect();
        let at = *places.choose(random).unwrap();
        name.insert_str(at, PIECES.choose(random).unwrap());
    }
    if random.random_range(0..100) == 0 {
        name = name.repeat(random.random_range(2..60));
    }
    name
}

fn has_hostile_character(text: &str) -> bool {
    text.contains(|c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2028}' | '\u{feff}')
    })
}

#[test]
fn no_listed_name_escapes_its_hour_or_controls_a_terminal() {
    let count = number_from_env("BACKFILLER_HOSTILE_NAMES", 20_000);
    let mut random = support::random();
    let node = Node::start();
    // Every requested path exists, with some content.
    node.fault(On::Segment, Fault::Body(b"hostile".to_vec()));
    let per_hour = 8000;
    for hour in 0..count.div_ceil(per_hour) {
        let hour = format!("2018-11-{:02}T{:02}", 1 + hour / 24 % 28, hour % 24);
        for _ in 0..per_hour.min(count) {
            node.list_also("desertbus", "source", &hour, &hostile_name(&mut random));
        }
    }
    for hour in [
        "..",
        "../..",
        "2018-11-10T05/..",
        "/etc",
        "2018-11-10T05\0",
        "２018-11-10T05",
        "\x1b[2J",
        "2018-11-10T5",
    ] {
        node.list_also("desertbus", "source", hour, "00:00.0-2.0-full.ts");
    }
    let scratch = Archive::new();
    let archive = scratch.path().join("archive");
    fs::create_dir(&archive).unwrap();
    fs::write(scratch.path().join("precious"), b"precious").unwrap();
    let url = node.url();
    for options in [&["-v"][..], &["--dry-run"], &["--print", "-q"]] {
        let mut run =
            scratch.backfill([&*url, "desertbus", "source", PATIENT].iter().chain(options));
        run.command.env("BACKFILLER_BASE_DIR", &archive);
        let outcome = run.run();
        assert!(matches!(outcome.code(), Some(0 | 3)), "{:?}", outcome.code());
        for text in [&outcome.stdout, &outcome.stderr] {
            assert!(!has_hostile_character(text));
        }
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("desertbus/source/2018-11-")));
    }
    // Only empty tombstones were created, in their hours.
    for (path, content) in scratch.files() {
        let Some(path) = path.strip_prefix("archive/desertbus/source/2018-11-") else {
            assert_eq!(path, "precious");
            continue;
        };
        assert!(content.is_empty() && path.ends_with(".tombstone"), "{path}");
        assert!(path.is_ascii() && path.matches('/').count() == 1, "{path}");
    }
    // Only plain components and valid hours were requested.
    let depths: BTreeSet<usize> =
        node.requests().iter().map(|r| r.resource.matches('/').count()).collect();
    assert!(depths.into_iter().all(|depth| (3..=5).contains(&depth)));
    assert!(node.requests().iter().all(|r| !r.resource.contains("..")));
}

#[test]
fn no_argument_escapes_the_archive_or_controls_a_terminal() {
    let node = Node::start();
    let url = node.url();
    let scratch = Archive::new();
    for hostile in [
        "..",
        ".",
        "../x",
        "/etc",
        "a/b",
        "a\nb",
        "\x1b[2J",
        "\u{202e}x",
        "\u{9b}x",
        "",
        ".hidden",
        "\u{7f}",
    ] {
        for args in [
            [&*url, hostile, "source", "all"],
            [&*url, "desertbus", hostile, "all"],
            [&*url, "desertbus", "source", hostile],
            [hostile, "desertbus", "source", "all"],
        ] {
            let outcome = scratch.backfill(args).run();
            // An empty directory is a valid node.
            let is_node = args[0] == hostile && Path::new(hostile).is_dir();
            // Two dots mean all hours.
            let is_all = args[3] == "..";
            if !is_node && !is_all {
                assert!(matches!(outcome.code(), Some(2 | 4)), "{args:?}: {outcome:#?}");
            }
            assert!(!has_hostile_character(&outcome.stderr), "{}", outcome.stderr);
            assert!(outcome.stderr.lines().all(|line| line.starts_with("backfiller: ")));
        }
    }
    assert!(scratch.files().is_empty());
}

#[test]
fn a_path_that_is_too_long_is_the_node_s_failure() {
    let (liar, good) = (Node::start_at("127.0.0.2"), Node::start_at("127.0.0.3"));
    let names = fill(&good, 3);
    // As deep as a single system call allows.
    let root = tempfile::tempdir().unwrap();
    let base = root.path().join(["d".repeat(200).as_str(); 15].join("/"));
    fs::create_dir_all(&base).unwrap();
    let long = |end: &str| format!("{}/{end}", ["e".repeat(200).as_str(); 6].join("/"));
    (0..40).for_each(|n| liar.add_extra("emotes", &long(&n.to_string()), b"long"));
    liar.add_extra("emotes", &"f".repeat(300), b"longer than a name may be");
    liar.add_extra("emotes", &["g"; 2000].join("/"), b"longer than a path may be");
    liar.add_extra("emotes", "short", b"short");
    let nodes = format!("liar={},good={}", liar.url(), good.url());
    let mut run = Run::new([&*nodes, "desertbus", "source", "--extras=emotes", "--base-dir"]);
    run.command.arg(&base);
    let outcome = run.run();
    outcome.assert_code(3).assert_says("could not be fetched: node liar: its path is too long for");
    outcome.assert_says("node liar: 39 more files that could not be fetched");
    assert_eq!(fs::read(base.join("emotes/short")).unwrap(), b"short");
    assert_eq!(fs::read_dir(base.join("emotes")).unwrap().count(), 1);
    let hour = base.join("desertbus/source").join(HOUR);
    assert_eq!(fs::read_dir(hour).unwrap().count(), names.len());
}
