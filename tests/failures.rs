//! Failures and what a pass makes of them: failover, retries, nodes given up, and each row of the
//! exit table except success.

mod node;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use node::{Fault, Node, On, Request};
use support::{AT_ONCE, Archive, HOUR, Outcome, each_case, fill, wait_until};

/// For tests that wait for a timeout.
const QUICK: [&str; 2] = ["--timeout=500ms", "--retries=1"];
/// For all others: a node that this machine lets wait for long must not count as silent.
const PATIENT: [&str; 2] = ["--timeout=20s", "--retries=1"];

fn run<const N: usize>(archive: &Archive, nodes: &[&Node], options: [&str; N]) -> Outcome {
    let urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    let urls = urls.join(",");
    let args = [&*urls, "desertbus", "source"].into_iter().chain(PATIENT);
    // If an option is given twice, the last one counts.
    archive.backfill(args.chain(options)).run()
}

fn pair() -> (Node, Node) {
    (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"))
}

/// The remedy for a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Remedy {
    /// Retrying on the same node.
    Again,
    /// Fetching from another node.
    Another,
}
use Remedy::{Again, Another};

/// Every fault of a segment, and its remedy.
fn segment_faults() -> [(Fault, Remedy); 16] {
    [
        (Fault::Hang, Again),
        (Fault::HangInHeaders, Again),
        (Fault::HangInBody(100), Again),
        (Fault::CutOff(100), Again),
        (Fault::CutOffChunked(100), Again),
        (Fault::CutOffUnannounced(100), Again),
        (Fault::Reset, Again),
        (Fault::ResetInBody(100), Again),
        (Fault::Status(500), Again),
        (Fault::Status(503), Again),
        (Fault::Corrupt, Another),
        (Fault::Longer, Another),
        (Fault::Endless, Another),
        (Fault::Status(404), Another),
        (Fault::Status(403), Another),
        (Fault::Body(b"<html>not found</html>".to_vec()), Another),
    ]
}

#[test]
fn a_failed_segment_is_fetched_from_another_node() {
    each_case(segment_faults(), |(fault, _)| {
        let (bad, good) = pair();
        let names = fill(&bad, 10);
        fill(&good, 10);
        bad.fault(On::Segment, fault.clone());
        let archive = Archive::new();
        let nodes = format!("{},{}", bad.url(), good.url());
        let is_given_up = matches!(fault, Fault::Hang | Fault::HangInHeaders);
        let timeout = if is_given_up { "--timeout=1s" } else { "--timeout=20s" };
        let args = [&*nodes, "desertbus", "source", timeout, "--max-segment-size=1M"];
        let run = archive.backfill(args);
        let outcome = run.run_with_late(&good, || bad.wait_for_requests(1, Request::is_segment));
        assert_eq!(
            outcome.code(),
            Some(if is_given_up { 3 } else { 0 }),
            "{fault:?}: {outcome:#?}"
        );
        assert_eq!(archive.names(), names, "{fault:?}: {outcome:#?}");
        archive.assert_whole();
    });
}

#[test]
fn a_failed_segment_is_retried_on_the_same_node() {
    let cases = segment_faults().into_iter().filter(|(_, remedy)| *remedy == Again);
    each_case(cases, |(fault, _)| {
        let node = Node::start();
        let names = fill(&node, 1);
        node.fault_times(On::Segment, fault.clone(), 1);
        let archive = Archive::new();
        let waits = matches!(fault, Fault::Hang | Fault::HangInHeaders | Fault::HangInBody(_));
        let options = if waits { QUICK } else { PATIENT };
        run(&archive, &[&node], options).assert_code(0);
        assert_eq!(archive.names(), names, "{fault:?}");
        assert_eq!(node.segment_requests().len(), 2, "{fault:?}");
    });
}

#[test]
fn a_segment_that_no_node_delivers_is_reported() {
    let cases = [
        (Fault::Corrupt, "content does not match its hash"),
        (Fault::Longer, "content does not match its hash"),
        (Fault::Endless, "larger than the 1048576 bytes of --max-segment-size"),
        (Fault::Status(403), "HTTP 403 Forbidden"),
        (Fault::Status(500), "HTTP 500 Internal Server Error"),
        (Fault::CutOff(100), "closed early"),
        (Fault::CutOffUnannounced(100), "the transfer was cut short"),
    ];
    each_case(cases, |(fault, why)| {
        let node = Node::start();
        let names = fill(&node, 5);
        node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{}", names[2]), fault);
        let archive = Archive::new();
        let outcome = run(&archive, &[&node], ["--max-segment-size=1M"]);
        outcome.assert_code(3).assert_says(why);
        outcome.assert_says(&format!("{} could not be fetched: node 127.0.0.1: ", names[2]));
        assert_eq!(archive.names().len(), 4);
        archive.assert_whole();
    });
}

#[test]
fn a_broken_response_is_retried_but_wrong_content_is_not() {
    for (fault, requests) in [(Fault::Corrupt, 1), (Fault::Status(500), 3)] {
        let node = Node::start();
        fill(&node, 1);
        node.fault(On::Segment, fault);
        let archive = Archive::new();
        run(&archive, &[&node], ["--retries=2"]).assert_code(3);
        assert_eq!(node.segment_requests().len(), requests);
    }
}

/// A node's response that lists these names.
fn listing(names: &[String]) -> Fault {
    Fault::Body(serde_json::to_vec(names).unwrap())
}

#[test]
fn a_segment_that_is_gone_is_only_a_warning() {
    let node = Node::start();
    let names = fill(&node, 2);
    let gone = format!("00:30.0-2.0-full-{}.ts", node::hash_of(b"gone"));
    // It is deleted after the listing.
    let listed: Vec<String> = names.iter().cloned().chain([gone.clone()]).collect();
    node.fault_times(On::Listing, listing(&listed), 1);
    let archive = Archive::new();
    let outcome = run(&archive, &[&node], []);
    outcome.assert_code(0).assert_says(&format!("{gone} is gone from every node"));
    assert_eq!(archive.names(), names);
    let node = Node::start();
    node.add_chat("desertbus", HOUR, "00:00", b"chat");
    let chat = format!("00:30-{}.json", node::hash_of(b"gone"));
    node.fault_times(On::Listing, listing(&[chat]), 1);
    let outcome = archive.backfill([&node.url(), "desertbus", "chat"]).run();
    outcome.assert_silent_success();
}

#[test]
fn a_segment_that_is_gone_but_still_listed_is_missing() {
    let node = Node::start();
    let names = fill(&node, 2);
    for n in 0..500 {
        let gone =
            node::segment_name(&format!("01:00.{n:03}-2.0-full"), &[n as u8, (n >> 8) as u8]);
        node.list_also("desertbus", "source", HOUR, &gone);
    }
    let archive = Archive::new();
    let outcome = run(&archive, &[&node], ["--json"]);
    outcome.assert_code(3);
    assert_eq!(archive.names(), names);
    let failed = outcome.stdout.lines().filter(|line| line.contains("\"what\":\"file\""));
    assert_eq!(failed.count(), 500);
    // The node is listed again once, not once for each segment.
    let listings = node.requests().iter().filter(|r| r.resource.ends_with(HOUR)).count();
    assert_eq!(listings, 2);
}

/// A node that lists a whole hour and sends none of its segments: the pass ends, and asks no more of it
/// than it must.
#[test]
fn a_node_that_sends_none_of_many_files_is_asked_a_limited_number_of_times() {
    const LISTED: usize = 1800;
    // The list of hours, and the listing of the hour.
    const LISTINGS: usize = 2;
    // It is given up after 100 failures in a row, while seven other requests may be under way.
    let few = LISTINGS + 100..=LISTINGS + 100 + 7;
    // Each segment once, and the listing again to see whether they are still in it.
    let each = LISTINGS + LISTED + 1..=LISTINGS + LISTED + 1;
    let given_up = "node 127.0.0.1 is given up: 100 requests in a row failed, the last: ";
    each_case(
        [
            (
                Fault::Status(404),
                each,
                "provided none of the 1,800 segments that it listed; check its setup",
            ),
            (Fault::Status(500), few.clone(), given_up),
            (Fault::Corrupt, few.clone(), given_up),
            (Fault::CutOff(0), few, given_up),
        ],
        |(fault, requests, said)| {
            let node = Node::start();
            fill(&node, LISTED);
            node.fault(On::Segment, fault.clone());
            let archive = Archive::new();
            let outcome = run(&archive, &[&node], ["--timeout=60s", "--retries=0", "--json"]);
            outcome.assert_code(3).assert_says(said);
            assert_eq!(outcome.summary()["failed"], LISTED);
            let asked = node.requests().len();
            assert!(requests.contains(&asked), "{fault:?}: {asked} requests");
            assert_eq!(archive.names(), [""; 0]);
        },
    );
}

#[test]
fn a_node_without_its_listed_files_fails_the_pass() {
    let node = Node::start();
    fill(&node, 5);
    node.fault(On::Segment, Fault::Status(404));
    let archive = Archive::new();
    let outcome = run(&archive, &[&node], []);
    outcome.assert_code(3).assert_says("provided none of the 5 segments that it listed");
}

#[test]
fn a_node_that_sends_wrong_content_is_reported() {
    let (bad, good) = pair();
    let names = fill(&bad, 20);
    fill(&good, 20);
    bad.fault(On::Segment, Fault::Corrupt);
    let archive = Archive::new();
    let nodes = format!("{},{}", bad.url(), good.url());
    let run = archive.backfill([&*nodes, "desertbus", "source"]);
    let outcome = run.run_with_late(&good, || bad.wait_for_requests(1, Request::is_segment));
    outcome.assert_code(0);
    outcome.assert_says("warning: node 127.0.0.1: sent wrong content for ");
    assert_eq!(archive.names(), names);
}

#[test]
fn a_signal_ignored_from_the_start_stays_ignored() {
    let node = Node::start();
    let names = fill(&node, 1);
    node.fault(On::Segment, Fault::Hang);
    let archive = Archive::new();
    let mut run = archive.backfill([&*node.url(), "desertbus", "source", "--timeout=20s"]);
    let shell = "trap '' HUP INT; exec \"$0\" \"$@\"";
    let program = run.command.get_program().to_owned();
    let args: Vec<_> = run.command.get_args().map(ToOwned::to_owned).collect();
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", shell]).arg(program).args(args);
    command.env_clear().env("BACKFILLER_BASE_DIR", archive.path());
    run.command = command;
    let running = run.start();
    assert!(node.wait_for_request(|r| r.path.contains("/segments/"), Duration::from_secs(20)));
    running.signal("HUP");
    running.signal("INT");
    node.release();
    running.outcome().assert_code(0);
    assert_eq!(archive.names(), names);
}

#[test]
fn a_signal_that_the_parent_blocked_ends_the_pass() {
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let node = Node::start();
        fill(&node, 1);
        node.fault(On::Segment, Fault::Hang);
        let archive = Archive::new();
        let run = archive.backfill([&*node.url(), "desertbus", "source", "--timeout=20s"]);
        let running = run.below("env", ["--block-signal"]).start();
        assert!(node.wait_for_request(|r| r.path.contains("/segments/"), Duration::from_secs(20)));
        running.signal(signal);
        running.outcome().assert_code(code);
    }
}

#[test]
fn an_invalid_listing_is_reported_with_node_and_url() {
    let cases = [
        (Fault::Body(b"<html>".to_vec()), "the response is a web page, not a JSON list of names"),
        (Fault::Body(b"{\"a\": 1}".to_vec()), "not a JSON list of names"),
        (Fault::Body(b"[\"a\", 1]".to_vec()), "not a JSON list of names"),
        (Fault::Body(b"[\"a\"".to_vec()), "not a JSON list of names"),
        (Fault::Body(vec![]), "not a JSON list of names"),
        (Fault::Status(404), "HTTP 404 Not Found"),
        (Fault::Status(500), "HTTP 500 Internal Server Error"),
        (Fault::CutOff(10), "closed early"),
        (Fault::Endless, "more than 64 KiB between two names"),
        (Fault::GzipBomb, "more than 64 KiB between two names"),
    ];
    each_case(cases, |(fault, why)| {
        let (bad, good) = pair();
        fill(&bad, 3);
        let names = fill(&good, 3);
        bad.fault(On::Listing, fault.clone());
        let archive = Archive::new();
        let outcome = run(&archive, &[&bad, &good], []);
        outcome.assert_code(3);
        outcome.assert_says(&format!("warning: node 127.0.0.1: listing desertbus/source/{HOUR}: "));
        outcome.assert_says(why);
        assert_eq!(archive.names(), names, "{fault:?}");
    });
}

#[test]
fn a_listing_that_fails_temporarily_is_retried() {
    let faults =
        [Fault::Status(500), Fault::Reset, Fault::CutOff(1), Fault::Hang, Fault::Status(503)];
    let cases =
        [On::Hours, On::Listing].into_iter().flat_map(|on| faults.clone().map(|fault| (on, fault)));
    each_case(cases, |(on, fault)| {
        let node = Node::start();
        let names = fill(&node, 3);
        node.fault_times(on, fault.clone(), 1);
        let archive = Archive::new();
        run(&archive, &[&node], QUICK).assert_silent_success();
        assert_eq!(archive.names(), names, "{on:?} {fault:?}");
    });
}

#[test]
fn no_answering_node_has_its_own_status() {
    let (hung, broken) = (Node::start(), Node::start_at("127.0.0.2"));
    hung.fault(On::Any, Fault::Hang);
    broken.fault(On::Any, Fault::Reset);
    let unreachable = "c=http://127.0.0.3:1,d=http://no-such-host.invalid,e=/does/not/exist";
    let nodes = format!("a={},b={},{unreachable}", hung.url(), broken.url());
    let archive = Archive::new();
    let args = [&*nodes, "desertbus", "source", "--timeout=2s", "--retries=1"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(4).assert_says("error: no node answered");
    outcome.assert_says("node a is given up: timed out after 2 s waiting for a response");
    outcome.assert_says("node b: listing the hours of desertbus/source: the connection was closed");
    outcome.assert_says("node c is given up: connection refused");
    outcome.assert_says("node d is given up: its name can't be resolved");
    outcome.assert_says("node e is given up: no such file or directory (at /does/not/exist; ");
}

#[test]
fn a_useless_answer_counts_as_an_answer() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let to = |place: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n")
    };
    let cases = [
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), true),
        ("220 mail.example ESMTP\r\n".into(), true),
        ("[]".into(), false),
        ("HTTP/1.".into(), false),
        ("HTTP/1.".into(), true),
        ("HTTP/1.1 100 Continue\r\n\r\n".into(), false),
        ("HTTP/9.9 what\r\n\r\n".into(), false),
        (format!("{ok}Content-Len"), false),
        (format!("{ok}Content-Length: -3\r\n\r\n[]"), false),
        (format!("{ok}Content-Length: 30\r\n\r\n[\"2018"), false),
        (format!("{ok}Content-Length: 30\r\n\r\n[\"2018"), true),
        (format!("{ok}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), false),
        (format!("{ok}Content-Encoding: br\r\nContent-Length: 2\r\n\r\n[]"), false),
        (to("http://127.0.0.1:1/"), false),
        (to("http://nowhere.invalid/"), false),
        (to("ftp://127.0.0.1/"), false),
        ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".into(), false),
    ];
    each_case(cases, |(answer, stays_open): (String, bool)| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bytes = answer.clone();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut client in listener.incoming().flatten() {
                let _ = client.read(&mut [0; 1024]);
                let _ = client.write_all(bytes.as_bytes());
                open.extend(stays_open.then_some(client));
            }
        });
        let archive = Archive::new();
        let args = [&*url, "desertbus", "source", "--retries=0", "--timeout=1s"];
        let outcome = archive.backfill(args).run();
        assert_eq!(outcome.code(), Some(3), "{answer:?} {outcome:#?}");
    });
}

#[test]
fn an_unreachable_node_makes_the_pass_incomplete() {
    let node = Node::start();
    let names = fill(&node, 3);
    let archive = Archive::new();
    let nodes = format!("{},http://127.0.0.3:1", node.url());
    let outcome = archive.backfill([&*nodes, "desertbus", "source", "--retries=1"]).run();
    outcome.assert_code(3).assert_says("node 127.0.0.3 is given up: connection refused");
    assert_eq!(archive.names(), names);
}

/// Wherever one node of three hangs, it gets no more requests after one timeout, and meanwhile the
/// others deliver all that they have.
#[test]
fn a_node_that_hangs_costs_one_timeout_at_most() {
    each_case([On::Any, On::Listing, On::Segment], |on| {
        let nodes: Vec<Node> = (1..=3).map(|n| Node::start_at(&format!("127.0.0.{n}"))).collect();
        let mut expected = nodes.iter().map(|node| fill(node, 100)).next_back().unwrap();
        // Segments that only a good node has are fetched; those that only the hanging node has
        // can't be.
        let hour = "2018-11-10T04";
        expected.push(nodes[1].add("desertbus", "source", hour, "00:00.0-2.0-full", b"x"));
        expected.sort();
        nodes[0].add("desertbus", "source", hour, "00:02.0-2.0-full", b"y");
        nodes[0].fault(on, Fault::Hang);
        let archive = Archive::new();
        let all = [&nodes[0], &nodes[1], &nodes[2]];
        let outcome = run(&archive, &all, ["--timeout=1s", "--retries=3"]);
        outcome.assert_code(3).assert_says("node 127.0.0.1 is given up: timed out");
        assert_eq!(archive.names(), expected);
        let mut asked: Vec<_> = nodes[0].requests().into_iter().map(|it| it.path).collect();
        asked.sort();
        let requests = asked.len();
        // One for the hours, two for their listings, and eight that were under way when it was given up.
        assert!(requests <= 11, "{on:?}: it was asked for more: {asked:?}");
        asked.dedup();
        assert_eq!(asked.len(), requests, "{on:?}: it was asked again for one of {asked:?}");
    });
}

#[test]
fn a_slow_but_steady_response_is_not_cut_off() {
    let node = Node::start();
    let names = fill(&node, 2);
    // 1200 bytes in about a second, with pauses shorter than the timeout.
    node.fault(On::Segment, Fault::Trickle(100, Duration::from_millis(100)));
    let archive = Archive::new();
    run(&archive, &[&node], QUICK).assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn a_busy_node_is_retried_when_it_asks() {
    let node = Node::start();
    let names = fill(&node, 2);
    node.fault_times(On::Hours, Fault::StatusWithHeader(503, "Retry-After", "1".into()), 1);
    let archive = Archive::new();
    run(&archive, &[&node], []).assert_silent_success();
    let requests = node.requests();
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= Duration::from_secs(1), "{pause:?}");
    assert_eq!(archive.names(), names);
}

#[test]
fn a_node_that_redirects_in_a_circle_fails_only_itself() {
    let node = Node::start();
    let here = format!("{}/files/desertbus/source", node.url());
    node.fault(On::Hours, Fault::StatusWithHeader(302, "Location", here));
    let archive = Archive::new();
    let outcome = run(&archive, &[&node], []);
    outcome.assert_code(3).assert_says("too many redirects");
}

#[test]
fn a_missing_archive_is_a_usage_error() {
    let node = Node::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    for (dir, why) in [
        ("/does/not/exist", "is its disk mounted?"),
        (file.path().to_str().unwrap(), "a directory"),
    ] {
        let archive = Archive::new();
        let args = [&*node.url(), "desertbus", "source", "-d", dir];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(2).assert_says(&format!("error: --base-dir {dir}: "));
        outcome.assert_says(why);
        assert_eq!(node.requests().len(), 0);
    }
}

#[test]
fn an_obstacle_to_one_segment_affects_no_other() {
    let node = Node::start();
    let names = fill(&node, 3);
    let archive = Archive::new();
    let in_the_way = archive.path().join("desertbus/source").join(HOUR).join(&names[1]);
    fs::create_dir_all(&in_the_way).unwrap();
    let outcome = run(&archive, &[&node], []);
    outcome.assert_code(1).assert_says("something that is not a file is in the way");
    outcome.assert_says(in_the_way.to_str().unwrap());
    assert_eq!(archive.names(), [&*names[0], &*names[2]]);
    archive.assert_whole();
}

#[test]
fn a_file_in_place_of_an_hour_affects_no_other_hour() {
    let node = Node::start();
    let names = fill(&node, 3);
    node.add("desertbus", "source", "2018-11-10T06", "00:00.0-2.0-full", b"other hour");
    let archive = Archive::new();
    archive.write("desertbus/source/2018-11-10T06", b"a file");
    let outcome = run(&archive, &[&node], []);
    outcome.assert_code(1).assert_says("desertbus/source/2018-11-10T06");
    fs::remove_file(archive.path().join("desertbus/source/2018-11-10T06")).unwrap();
    assert_eq!(archive.names(), names);
}

#[test]
fn an_unwritable_archive_ends_the_pass_at_once() {
    let archive = Archive::new();
    let node = Node::start();
    for n in 0..200 {
        let stem = format!("{:02}:{:02}.0-2.0-full", n / 30, n % 30 * 2);
        node.add("self", "fdinfo", HOUR, &stem, b"x");
    }
    // Not even root can create anything there.
    let outcome = archive.backfill([&*node.url(), "self", "fdinfo", "-d", "/proc"]).run();
    outcome.assert_code(1).assert_says("error: creating /proc/self/fdinfo/");
    assert!(node.segment_requests().len() <= 30, "{}", node.segment_requests().len());
    assert!(outcome.stderr.lines().count() <= 20, "{}", outcome.stderr);
}

#[test]
fn a_signal_ends_the_pass_and_leaves_nothing_staged() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        for fault in [Fault::HangInBody(100), Fault::Hang] {
            let node = Node::start();
            let names = fill(&node, 20);
            let landed = format!("/segments/desertbus/source/{HOUR}/{}", names[0]);
            node.fault(On::Segment, fault);
            node.fault_path(&landed, Fault::Delay(Duration::ZERO));
            let archive = Archive::new();
            let args = [&*node.url(), "desertbus", "source", "--order=forward", "-j2", "-v"];
            let running = archive.backfill(args.into_iter().chain(["--timeout=30s"])).start();
            let third = format!("/segments/desertbus/source/{HOUR}/{}", names[2]);
            assert!(node.wait_for_request(|r| r.resource == third, Duration::from_secs(20)));
            let begun = std::time::Instant::now();
            running.signal(signal);
            let outcome = running.outcome();
            assert!(begun.elapsed() < AT_ONCE);
            outcome.assert_code(code).assert_says("interrupted: fetched 1 segment");
            outcome.assert_says_not("warning");
            assert_eq!(archive.names(), names[..1]);
            archive.assert_whole();
        }
    }
}

#[test]
fn a_signal_ends_a_pass_that_waits_to_retry() {
    let node = Node::start();
    node.fault(On::Hours, Fault::StatusWithHeader(503, "Retry-After", "50".into()));
    let archive = Archive::new();
    let running = archive.backfill([&*node.url(), "desertbus", "source"]).start();
    assert!(node.wait_for_request(|_| true, Duration::from_secs(20)));
    running.signal("TERM");
    let outcome = running.outcome();
    outcome.assert_code(143);
    assert!(outcome.took < Duration::from_secs(10));
}

#[test]
fn an_unmounted_archive_does_not_look_empty() {
    let disk = Archive::new();
    for hour in 0..6 {
        for n in 0..20 {
            let content = format!("{hour} {n}");
            let name = node::segment_name(&format!("{n:02}:00.0-2.0-full"), content.as_bytes());
            disk.write(
                &format!("base/desertbus/source/2018-11-10T{hour:02}/{name}"),
                content.as_bytes(),
            );
        }
    }
    let (base, moved) = (disk.path().join("base"), disk.path().join("moved"));
    // The archive is moved away, and another directory takes its place.
    for has_another in [false, true] {
        let archive = Archive::new();
        let args = [base.to_str().unwrap(), "desertbus", "source", "-j1", "--limit-rate=60"];
        let mut run = archive.backfill(args);
        let printed = run.command.arg("--print").stdout(std::process::Stdio::piped());
        let mut child = printed.stderr(std::process::Stdio::null()).spawn().unwrap();
        let mut first = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut first).unwrap();
        fs::rename(&base, &moved).unwrap();
        if has_another {
            fs::create_dir(&base).unwrap();
        }
        let drained = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        assert_eq!(child.wait().unwrap().code(), Some(3), "{has_another}");
        drained.join().unwrap().unwrap();
        if has_another {
            fs::remove_dir(&base).unwrap();
        }
        fs::rename(&moved, &base).unwrap();
    }
}

#[test]
fn a_dangling_link_is_neither_here_nor_gone() {
    use std::os::unix::fs::symlink;
    let node = Node::start();
    let names = fill(&node, 3);
    // Here.
    let archive = Archive::new();
    let dir = archive.path().join("desertbus/source").join(HOUR);
    fs::create_dir_all(&dir).unwrap();
    symlink("/does/not/exist", dir.join(&names[0])).unwrap();
    let outcome = run(&archive, &[&node], []);
    outcome.assert_code(1).assert_says("in the way");
    assert!(dir.join(&names[1]).exists() && dir.join(&names[2]).exists());
    // On a node.
    let (disk, archive) = (Archive::new(), Archive::new());
    disk.put("00:00.0-2.0-full", b"x");
    let there = disk.path().join("desertbus/source");
    symlink("/does/not/exist", there.join("2018-11-10T07")).unwrap();
    let from = disk.path().to_str().unwrap();
    let outcome = archive.backfill([from, "desertbus", "source"]).run();
    outcome.assert_code(3).assert_says(
        "listing desertbus/source/2018-11-10T07: the path has a symbolic link, which is not followed",
    );
}

#[test]
fn an_unneeded_body_does_not_delay_the_pass() {
    each_case([404, 500, 302], |status| {
        let node = Node::start();
        fill(&node, 3);
        // Its body comes byte by byte, for a very long time.
        node.fault(On::Segment, Fault::TrickleStatus(status, Duration::from_millis(200)));
        let archive = Archive::new();
        let outcome = run(&archive, &[&node], ["--timeout=500ms"]);
        outcome.assert_code(3);
        assert!(outcome.took < Duration::from_secs(20), "{status}: {:?}", outcome.took);
    });
}

#[test]
fn a_connection_closed_on_reuse_is_replaced_at_once() {
    let (node, names) = support::node_with(40);
    node.fault(On::Segment, Fault::CloseAfter);
    let archive = Archive::new();
    run(&archive, &[&node], ["--retries=0"]).assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn bytes_after_a_response_fail_no_other() {
    let (node, names) = support::node_with(5);
    node.fault_times(On::Segment, Fault::Excess, 1);
    let archive = Archive::new();
    run(&archive, &[&node], ["--retries=0", "-j1"]).assert_silent_success();
    assert_eq!((archive.names(), node.connections()), (names, 2));
}

#[test]
fn an_invalid_proxy_is_an_error() {
    let (node, _) = support::node_with(1);
    let archive = Archive::new();
    for proxy in [&b"gopher://127.0.0.1:1"[..], b"http//proxy:3128", b"http://\xff:3128", b"\xff"] {
        let proxy = OsStr::from_bytes(proxy);
        let args = [&*node.url(), "desertbus", "source"];
        let outcome = archive.backfill(args).env("http_proxy", proxy).run();
        let said = "http_proxy in the environment is not a valid proxy URL";
        outcome.assert_code(2).assert_says(said);
    }
    assert_eq!(node.requests().len(), 0);
}

#[test]
fn a_file_whose_hour_was_deleted_is_a_local_failure() {
    let node = Node::start();
    let names = fill(&node, 5);
    let earlier = node.add("desertbus", "source", "2018-11-10T04", "00:00.0-2.0-full", b"earlier");
    let last = format!("/segments/desertbus/source/{HOUR}/{}", names[4]);
    node.fault_path(&last, Fault::HangInBody(100));
    let archive = Archive::new();
    let hour = archive.path().join("desertbus/source").join(HOUR);
    let args = [&*node.url(), "desertbus", "source", "-j1", "--order=forward", "--timeout=20s"];
    let running = archive.backfill(args).start();
    node.wait_for_requests(5, Request::is_segment);
    node.wait_for_segment_bytes(100);
    wait_until(|| fs::read_dir(&hour).unwrap().count() == 5);
    fs::remove_dir_all(&hour).unwrap();
    node.release();
    let outcome = running.outcome();
    outcome.assert_code(1).assert_says(&format!("{}: no such file or directory", names[4]));
    assert_eq!(archive.names(), [earlier]);
    node.clear_faults();
    archive.backfill(args).run().assert_silent_success();
    assert_eq!(archive.names().len(), 6);
}

#[test]
fn the_rate_limit_is_shared_fairly_by_connections() {
    let node = Node::start();
    for n in 0..4 {
        node.add("desertbus", "source", HOUR, &format!("0{n}:00.0-2.0-full"), &[n; 60_000]);
    }
    let archive = Archive::new();
    let outcome = run(&archive, &[&node], ["--limit-rate=80k", "--timeout=1s", "-j4"]);
    outcome.assert_silent_success();
    assert_eq!(node.segment_requests().len(), 4);
}

#[test]
fn messages_suggest_known_remedies() {
    let page = b"<html><body>It works!</body></html>".to_vec();
    for (fault, said) in [
        (
            Fault::Body(page),
            "listing the hours of desertbus/source: the response is a web page, not a JSON list",
        ),
        (
            Fault::Status(404),
            "listing the hours of desertbus/source: HTTP 404 Not Found (is the node's URL right, and the name?)",
        ),
        (
            Fault::Status(403),
            "HTTP 403 Forbidden (are the user name and password in the node's URL right?)",
        ),
        (
            Fault::Status(500),
            "listing the hours of desertbus/source: HTTP 500 Internal Server Error",
        ),
    ] {
        let node = Node::start();
        node.fault(On::Hours, fault);
        let archive = Archive::new();
        let args = [&*node.url(), "desertbus", "source", "--retries=0"];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(3).assert_says(said);
        // Its streams are not known.
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    // A server without TLS is reported in another way.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let secure = format!("https://{}", plain.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in plain.incoming().flatten() {
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let archive = Archive::new();
    let proxy = ("http_proxy", "http://me:secret@127.0.0.9:1");
    for (url, (name, value), said) in [
        (&*secure, ("X", ""), "it does not speak TLS on this port (should the URL be http?)"),
        (
            "http://a.example:1337",
            proxy,
            "connection refused (at http://a.example:1337, through the proxy 127.0.0.9:1)",
        ),
        ("http://me:secret@127.0.0.9:1", ("X", ""), "connection refused (at http://127.0.0.9:1)"),
        // The node's host is in no_proxy, set below, so the proxy is not used.
        ("http://127.0.0.8:1", proxy, "connection refused (at http://127.0.0.8:1)"),
        ("/does/not/exist", ("X", ""), "directory (at /does/not/exist; is its disk mounted?)"),
    ] {
        let args = [url, "desertbus", "source", "--retries=0"];
        let outcome = archive.backfill(args).env(name, value).env("no_proxy", "127.0.0.8").run();
        let has_answered = url == secure;
        outcome.assert_code(if has_answered { 3 } else { 4 });
        outcome.assert_says(said).assert_says_not("secret");
    }
}

#[test]
fn the_same_failure_is_reported_once_and_then_counted() {
    for (names, more) in [(1, ""), (2, "1 more invalid name"), (1002, "1,001 more invalid names")] {
        let node = Node::start();
        (0..names).for_each(|n| node.list_also("desertbus", "source", HOUR, &format!("a/junk{n}")));
        let archive = Archive::new();
        let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
        outcome.assert_code(0).assert_says("/junk").assert_says(more);
        assert_eq!(outcome.stderr.lines().count(), names.min(2), "{}", outcome.stderr);
    }
}

#[test]
fn three_reasons_are_reported_and_the_rest_counted() {
    let node = Node::start();
    fill(&node, 50);
    // The reason has the hash of the received content, so it differs each time.
    node.fault(On::Segment, Fault::Corrupt);
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source"]).run();
    outcome.assert_code(3).assert_says("node 127.0.0.1: 47 more files that could not be fetched");
    assert_eq!(outcome.stderr.matches("content does not match its hash").count(), 3);
    // The same failures of another node are reported again.
    let (a, b) = (Node::start(), Node::start_at("127.0.0.2"));
    for (node, hour) in [(&a, "2018-11-10T05"), (&b, "2018-11-10T06")] {
        for n in 0..3 {
            node.add("desertbus", "source", hour, &format!("00:0{n}.0-2.0-full"), &[n]);
        }
        node.fault(On::Segment, Fault::Status(403));
    }
    let nodes = format!("a={},b={}", a.url(), b.url());
    let outcome = archive.backfill([&*nodes, "desertbus", "source"]).run();
    outcome.assert_code(3).assert_says("node a: 2 more files").assert_says("node b: 2 more files");
    assert_eq!(outcome.stderr.lines().count(), 4, "{}", outcome.stderr);
}

#[test]
fn an_untrusted_certificate_is_reported_with_a_remedy() {
    let node = Node::start_tls(&node::Authority::new());
    let archive = Archive::new();
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--retries=0"]).run();
    outcome.assert_code(4).assert_says("(set SSL_CERT_FILE to").assert_says_not("debug:");
}
