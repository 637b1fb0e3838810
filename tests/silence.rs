//! Silence, and its cause: our own line, a node, or a stop of this process. Also: which node is
//! asked for a file that another node is still sending.

mod node;
mod support;

use std::time::{Duration, Instant};

use node::{Fault, Node, On, Ranges, Request};
use serde_json::Value;
use support::{Archive, HOUR, Outcome, Running, each_case};

const SHORT: &str = "--timeout=300ms";

fn nodes<const N: usize>() -> [Node; N] {
    std::array::from_fn(|n| Node::start_at(&format!("127.0.0.{}", n + 1)))
}

fn start(archive: &Archive, nodes: &[Node], options: &[&str]) -> Running {
    let urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    let urls = urls.join(",");
    let args = [&*urls, "desertbus", "source"].into_iter().chain(options.iter().copied());
    archive.backfill(args).start()
}

fn is_hours(request: &Request) -> bool {
    request.resource == "/files/desertbus/source"
}

/// Adds a segment of this many bytes that starts at this second.
fn add(node: &Node, second: usize, bytes: usize) -> String {
    let stem = format!("{:02}:{:02}.0-2.0-full", second / 60, second % 60);
    node.add("desertbus", "source", HOUR, &stem, &vec![second as u8; bytes])
}

/// The reported states of a node, in order.
fn states(lines: &[Value], node: &str) -> Vec<String> {
    let about = lines.iter().filter(|line| line["event"] == "node" && line["node"] == node);
    about.map(|line| line["state"].as_str().unwrap().to_owned()).collect()
}

// ---- Our own line -----------------------------------------------------------------------------

/// Three nodes, each with its own segments, that all fall silent in this way at once. They continue
/// after each of them has ignored a retry.
fn a_dead_line(silence: Fault) {
    // A node that this machine lets wait for so long would be given up, and rightly.
    const TIMEOUT: Duration = Duration::from_secs(1);
    let nodes: [Node; 3] = nodes();
    for (n, node) in nodes.iter().enumerate() {
        (0..100).for_each(|second| drop(add(node, 100 * n + second, 2000)));
        // Each has work for two and a half seconds, so that none is done before the line is dead.
        node.delay(Duration::from_millis(50));
    }
    let archive = Archive::new();
    let running = start(&archive, &nodes, &["--timeout=1s", "--json", "-j2", "--retries=0"]);
    nodes.iter().for_each(|node| node.wait_for_requests(4, Request::is_segment));
    let dead = Instant::now();
    nodes.iter().for_each(|node| node.fault(On::Any, silence.clone()));
    // Each worker retries after a while, and gets no answer.
    for node in &nodes {
        let since = dead + TIMEOUT;
        node.wait_for_requests(1, |request| request.at > since);
    }
    assert!(dead.elapsed() > 2 * TIMEOUT);
    nodes.iter().for_each(Node::clear_faults);
    nodes.iter().for_each(|node| node.delay(Duration::ZERO));
    nodes.iter().for_each(Node::release);
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr, "");
    assert_eq!(archive.names().len(), 300);
    archive.assert_whole();
}

#[test]
fn an_outage_of_several_timeouts_costs_nothing() {
    each_case([Fault::Hang, Fault::HangInHeaders, Fault::HangInBody(700)], a_dead_line);
}

// ---- A node -----------------------------------------------------------------------------------

#[test]
fn a_node_that_alone_falls_silent_is_given_up() {
    for silence in [Fault::Hang, Fault::HangInBody(700)] {
        let nodes: [Node; 2] = nodes();
        let [silent, other] = &nodes;
        (0..10).for_each(|second| drop(add(silent, second, 2000)));
        let names: Vec<String> = (10..12).map(|second| add(other, second, 40_000)).collect();
        silent.fault(On::Segment, silence);
        // Each takes two seconds, with some bytes every twentieth of a second.
        other.limit_rate(20_000);
        let archive = Archive::new();
        let running = start(&archive, &nodes, &["--timeout=800ms", "--json", "-j2"]);
        let outcome = running.outcome();
        outcome.assert_code(3);
        assert_eq!(states(&outcome.events(), "127.0.0.1"), ["given_up"]);
        assert_eq!(states(&outcome.events(), "127.0.0.2"), [""; 0]);
        assert_eq!(archive.names(), names);
        // Each worker has asked once, and there are no more requests.
        assert_eq!(silent.segment_requests().len(), 2);
    }
}

#[test]
fn a_node_that_recovers_delivers_what_it_alone_has() {
    let nodes: [Node; 2] = nodes();
    let [returns, other] = &nodes;
    let mut names = vec![add(returns, 0, 2000), add(returns, 1, 2000), add(other, 2, 200_000)];
    names.sort();
    returns.fault_times(On::Segment, Fault::Hang, 1);
    other.fault(On::Segment, Fault::Trickle(500, Duration::from_millis(20)));
    let archive = Archive::new();
    let running = start(&archive, &nodes, &["--timeout=500ms", "--json", "-j1"]);
    returns.wait_for_requests(3, Request::is_segment);
    let requests = returns.requests();
    let probe = requests.iter().rev().find(|request| is_hours(request)).unwrap();
    // The node may read a request late, so the time runs from the one before.
    let hung = requests.iter().position(Request::is_segment).unwrap();
    let begun = requests[hung - 1].at;
    // It is given up after one timeout, and probed after five more.
    assert!(probe.at - begun >= Duration::from_secs(3), "{:?}", probe.at - begun);
    other.release();
    let outcome = running.outcome();
    outcome.assert_code(0);
    let lines = outcome.events();
    assert_eq!(states(&lines, "127.0.0.1"), ["given_up", "back"]);
    assert_eq!(lines[lines.len() - 1]["nodes"][0]["given_up"], false);
    assert_eq!(archive.names(), names);
    archive.assert_whole();
}

#[test]
fn a_node_that_answers_late_is_listed_late() {
    let nodes: [Node; 2] = nodes();
    let [returns, other] = &nodes;
    let mut names = vec![add(returns, 0, 2000), add(other, 2, 200_000)];
    names.sort();
    returns.fault_times(On::Any, Fault::Hang, 1);
    other.fault(On::Segment, Fault::Trickle(500, Duration::from_millis(20)));
    let archive = Archive::new();
    let running = start(&archive, &nodes, &["--timeout=500ms", "--json", "-j1"]);
    returns.wait_for_requests(1, Request::is_segment);
    other.release();
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(states(&outcome.events(), "127.0.0.1"), ["given_up", "back"]);
    assert_eq!(archive.names(), names);
}

#[test]
fn a_node_is_probed_even_if_only_extra_files_are_wanted() {
    let nodes: [Node; 2] = nodes();
    let [returns, other] = &nodes;
    returns.add_extra("emotes", "a.png", b"a");
    other.add_extra("emotes", "b.png", &[b'b'; 200_000]);
    returns.fault_times(On::Extras, Fault::Hang, 1);
    other.fault(On::Segment, Fault::Trickle(500, Duration::from_millis(20)));
    let archive = Archive::new();
    let urls = format!("{},{}", returns.url(), other.url());
    let options = ["--files-from=-", "--extras=emotes", "--timeout=500ms", "--json", "-j1"];
    let run = archive.backfill([&*urls].into_iter().chain(options));
    let running = run.stdin("emotes/a.png\nemotes/b.png\n").start();
    returns.wait_for_requests(1, Request::is_segment);
    other.release();
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(states(&outcome.events(), "127.0.0.1"), ["given_up", "back"]);
    let files = archive.files();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["emotes/a.png", "emotes/b.png"]);
}

// ---- A stop of this process -------------------------------------------------------------------

/// Stops a pass over two nodes until they have sent everything.
fn stopped_and_continued(hangs: bool) {
    let nodes: [Node; 2] = nodes();
    for (n, node) in nodes.iter().enumerate() {
        (0..6).for_each(|second| drop(add(node, 10 * n + second, 40_000)));
        // Two requests at a time, 1.2 seconds each.
        node.limit_rate(33_000);
    }
    let archive = Archive::new();
    let running = start(&archive, &nodes, &[SHORT, "--json", "-j2"]);
    nodes.iter().for_each(|node| node.wait_for_requests(2, Request::is_segment));
    nodes.iter().for_each(|node| node.wait_for_segment_bytes(2000));
    running.signal("STOP");
    nodes.iter().for_each(|node| node.wait_for_segment_bytes(80_000));
    // The next responses come at once, except that one node may be silent for a moment.
    if hangs {
        nodes[0].fault_times(On::Segment, Fault::Delay(Duration::from_millis(100)), 2);
    }
    running.signal("CONT");
    nodes.iter().for_each(|node| node.wait_for_requests(4, Request::is_segment));
    nodes.iter().for_each(Node::release);
    nodes.iter().for_each(|node| node.wait_for_requests(6, Request::is_segment));
    nodes.iter().for_each(Node::release);
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr, "");
    assert_eq!(archive.names().len(), 12);
    // Nothing was fetched twice.
    let requests: usize = nodes.iter().map(|node| node.segment_requests().len()).sum();
    assert_eq!(requests, 12);
}

#[test]
fn bytes_that_arrived_during_a_stop_are_read() {
    stopped_and_continued(false);
}

#[test]
fn a_slow_response_after_a_stop_is_awaited() {
    stopped_and_continued(true);
}

#[test]
fn a_stop_does_not_count_as_silence_of_a_node() {
    let nodes: [Node; 2] = nodes();
    let [late, other] = &nodes;
    add(late, 0, 2000);
    add(other, 1, 40_000);
    late.fault(On::Segment, Fault::Hang);
    other.limit_rate(33_000);
    let archive = Archive::new();
    let running = start(&archive, &nodes, &[SHORT, "--json"]);
    nodes.iter().for_each(|node| node.wait_for_requests(1, Request::is_segment));
    running.signal("STOP");
    other.wait_for_segment_bytes(40_000);
    running.signal("CONT");
    late.release();
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr, "");
    assert_eq!(late.segment_requests().len(), 1);
    assert_eq!(archive.names().len(), 2);
}

#[test]
fn almost_nothing_is_fetched_twice_after_a_stop() {
    let nodes: [Node; 2] = nodes();
    for node in &nodes {
        (0..4).for_each(|second| drop(add(node, second, 40_000)));
        node.limit_rate(33_000);
    }
    let archive = Archive::new();
    // Six workers for four files, so idle ones could help with stuck files. Each node sends some
    // files.
    let running = start(&archive, &nodes, &["--json", "-j3"]);
    nodes.iter().for_each(|node| node.wait_for_segment_bytes(2000));
    running.signal("STOP");
    for node in &nodes {
        node.wait_for_segment_bytes(node.segment_requests().len() * 40_000);
    }
    running.signal("CONT");
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(archive.names().len(), 4);
    let sent: usize = nodes.iter().map(Node::segment_bytes).sum();
    assert!(sent <= 168_000, "{sent} bytes");
}

// ---- The same file from two nodes -------------------------------------------------------------

/// Fetches ten files of this size from two nodes, with a rate for each request. Returns the time of
/// each request since the first one, and the bytes sent divided by the bytes needed.
fn few_files(bytes: usize, rates: [u64; 2], options: &[&str]) -> (Vec<Duration>, f64) {
    let nodes: [Node; 2] = nodes();
    for (node, rate) in nodes.iter().zip(rates) {
        (0..10).for_each(|second| drop(add(node, second, bytes)));
        if rate > 0 {
            node.limit_rate(rate);
        }
    }
    let archive = Archive::new();
    let outcome = start(&archive, &nodes, options).outcome();
    outcome.assert_silent_success();
    assert_eq!(archive.names().len(), 10);
    archive.assert_whole();
    let requests = nodes.iter().flat_map(Node::segment_requests).map(|request| request.at);
    let requests: Vec<Instant> = requests.collect();
    let first = *requests.iter().min().unwrap();
    let sent: usize = nodes.iter().map(Node::segment_bytes).sum();
    (requests.iter().map(|at| *at - first).collect(), sent as f64 / (10 * bytes) as f64)
}

#[test]
fn few_files_on_two_slow_nodes_are_fetched_once() {
    let (requests, sent) = few_files(75_000, [50_000, 50_000], &[]);
    assert_eq!(requests.len(), 10);
    assert!(sent <= 1.05, "{sent} times the bytes");
    // All requests run concurrently: each takes a second and a half.
    assert!(requests.iter().all(|after| *after < Duration::from_millis(1500)), "{requests:?}");
}

#[test]
fn few_files_are_fetched_once_from_unequal_nodes() {
    let (requests, sent) = few_files(75_000, [50_000, 100_000], &[]);
    assert_eq!((requests.len(), sent > 1.05), (10, false), "{sent} times the bytes");
}

#[test]
fn nothing_is_fetched_twice_under_a_rate_limit() {
    let (requests, sent) = few_files(40_000, [0, 0], &["--limit-rate=200k"]);
    assert_eq!((requests.len(), sent > 1.0), (10, false), "{sent} times the bytes");
}

/// A transfer that stops in the middle. The second node lists the file only after that. Returns the
/// outcome, and when the transfer stopped.
fn stopped_transfer(archive: &Archive, nodes: &[Node; 2], options: &[&str]) -> (Outcome, Instant) {
    let [stuck, helps] = nodes;
    let name = add(stuck, 0, 50_000);
    add(helps, 0, 50_000);
    stuck.fault(On::Segment, Fault::HangInBody(1000));
    helps.hold();
    let running = start(archive, nodes, options);
    stuck.wait_for_segment_bytes(1000);
    let stopped = Instant::now();
    helps.release();
    let outcome = running.outcome();
    assert_eq!(archive.names(), [name]);
    (outcome, stopped)
}

#[test]
fn a_transfer_that_stops_moving_is_taken_over_by_another_node() {
    let (nodes, archive) = (nodes(), Archive::new());
    let options = ["--json", "--timeout=20s"];
    let (outcome, _) = stopped_transfer(&archive, &nodes, &options);
    let [stuck, helps] = &nodes;
    outcome.assert_code(0);
    assert_eq!(states(&outcome.events(), "127.0.0.1"), [""; 0]);
    // It did not wait for the timeout.
    assert!(outcome.took < Duration::from_secs(15), "{:?}", outcome.took);
    assert_eq!((stuck.segment_requests().len(), helps.segment_requests().len()), (1, 1));
}

#[test]
fn a_quicker_node_resumes_a_slow_transfer() {
    let nodes: [Node; 2] = nodes();
    let [slow, quick] = &nodes;
    let size = 150_000;
    add(slow, 0, size);
    (0..2).for_each(|second| drop(add(quick, second, size)));
    slow.limit_rate(50_000);
    quick.limit_rate(1_500_000);
    // The slow node gets the first request for the file that both have.
    quick.hold();
    let archive = Archive::new();
    let running = start(&archive, &nodes, &["--json"]);
    slow.wait_for_segment_bytes(1);
    quick.release();
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(archive.names().len(), 2);
    archive.assert_whole();
    assert!(slow.segment_bytes() < size, "the slow node sent the whole file");
    assert_eq!((slow.segment_requests().len(), quick.segment_requests().len()), (1, 2));
    // The quick node may be asked for the other file before or after that.
    let goes_on = quick.segment_requests().iter().find_map(Request::first_byte);
    assert!(goes_on.is_some_and(|first| first >= 30_000), "from byte {goes_on:?}");
}

#[test]
fn a_node_that_falls_silent_when_asked_for_a_part_is_asked_for_the_whole() {
    let nodes: [Node; 2] = nodes();
    let [slow, quick] = &nodes;
    add(slow, 0, 150_000);
    (0..2).for_each(|second| drop(add(quick, second, 150_000)));
    slow.limit_rate(50_000);
    quick.limit_rate(1_500_000);
    quick.treat_ranges(Ranges::Hang);
    quick.hold();
    let archive = Archive::new();
    let running = start(&archive, &nodes, &["--json", "--timeout=1s"]);
    slow.wait_for_segment_bytes(1);
    quick.release();
    let outcome = running.outcome();
    outcome.assert_code(0);
    assert_eq!(archive.names().len(), 2);
    let parts = quick.segment_requests().into_iter().filter_map(|request| request.first_byte());
    assert_eq!((parts.count(), states(&outcome.events(), "127.0.0.2")), (1, vec![]));
}

#[test]
fn a_stopped_transfer_times_out_under_a_rate_limit() {
    let (nodes, archive) = (nodes(), Archive::new());
    let options = ["--json", "--limit-rate=10M", "--timeout=1500ms"];
    let (outcome, stopped) = stopped_transfer(&archive, &nodes, &options);
    let asked = nodes[1].segment_requests();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].at - stopped > Duration::from_millis(1400), "{outcome:#?}");
}
