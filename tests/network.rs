//! The network as it is: cut lines, odd answers, dead addresses.

mod node;
mod support;

use std::time::Duration;

use node::{Fault, Node, On, Ranges};
use support::{Archive, HOUR};

/// Some content that says where in it each byte is.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u32 / 4).flat_map(u32::to_be_bytes).collect()
}

/// Adds a segment of so many bytes.
fn add(node: &Node, bytes: usize) -> String {
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", &content(bytes))
}

fn run(archive: &Archive, nodes: &[&Node]) -> support::Outcome {
    let urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    archive.backfill([&*urls.join(","), "desertbus", "source", "--timeout=5s"]).run()
}

/// Where each request for a segment began.
fn begun_at(node: &Node) -> Vec<usize> {
    node.segment_requests().iter().map(|it| it.first_byte().unwrap_or(0)).collect()
}

// ---- Cut lines --------------------------------------------------------------------------------

#[test]
fn a_line_that_is_cut_again_and_again_brings_the_whole_in_the_end() {
    for (size, cut_after) in [(1_500_000, 600_000), (200_000, 5_000)] {
        for fault in [Fault::CutOff(cut_after), Fault::ResetInBody(cut_after)] {
            let node = Node::start();
            let name = add(&node, size);
            node.fault(On::Segment, fault);
            let archive = Archive::new();
            run(&archive, &[&node]).assert_silent_success();
            assert_eq!(archive.names(), [name]);
            archive.assert_whole();
        }
    }
}

#[test]
fn what_was_cut_is_not_fetched_twice() {
    let node = Node::start();
    add(&node, 100_000);
    node.fault(On::Segment, Fault::CutOff(30_000));
    run(&Archive::new(), &[&node]).assert_silent_success();
    assert_eq!(begun_at(&node), [0, 30_000, 60_000, 90_000]);
}

#[test]
fn a_node_that_knows_no_ranges_is_asked_for_the_whole() {
    for ranges in [Ranges::Ignore, Ranges::Refuse, Ranges::Mistake] {
        let node = Node::start();
        let name = add(&node, 100_000);
        node.treat_ranges(ranges);
        node.fault_times(On::Segment, Fault::CutOff(30_000), 1);
        let archive = Archive::new();
        run(&archive, &[&node]).assert_silent_success();
        assert_eq!(archive.names(), [name], "{ranges:?}");
        let begun = begun_at(&node);
        assert_eq!(begun[..2], [0, 30_000], "{ranges:?}");
        assert_eq!(begun.len(), if ranges == Ranges::Ignore { 2 } else { 3 }, "{ranges:?}");
    }
}

#[test]
fn another_node_goes_on_where_one_was_cut() {
    let (cut, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    add(&cut, 100_000);
    let name = add(&good, 100_000);
    cut.fault(On::Segment, Fault::Status(500));
    cut.fault_times(On::Segment, Fault::CutOff(30_000), 1);
    good.fault(On::Listing, Fault::Hang);
    let archive = Archive::new();
    let nodes = format!("{},{}", cut.url(), good.url());
    let started = archive.backfill([&*nodes, "desertbus", "source", "--timeout=20s"]).start();
    let again = |it: &node::Request| it.first_byte() == Some(30_000);
    assert!(cut.wait_for_request(again, Duration::from_secs(20)));
    good.release();
    started.outcome().assert_silent_success();
    assert_eq!((archive.names(), begun_at(&good)), (vec![name], vec![30_000]));
}

#[test]
fn a_chunked_body_that_lacks_only_its_end_is_whole_if_its_hash_is() {
    let node = Node::start();
    let name = add(&node, 50_000);
    node.fault(On::Segment, Fault::CutOffChunked(50_000));
    let archive = Archive::new();
    run(&archive, &[&node]).assert_silent_success();
    assert_eq!((archive.names(), node.segment_requests().len()), (vec![name], 1));
}

#[test]
fn nothing_staged_outlives_the_pass() {
    let node = Node::start();
    add(&node, 100_000);
    // Less comes each time than would count.
    node.fault(On::Segment, Fault::CutOff(500));
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "--retries=1"];
    archive.backfill(args).run().assert_code(3).assert_says("closed too early");
    assert_eq!(archive.names(), [""; 0]);
    // Nor the pass that is ended by a signal between two attempts.
    node.fault(On::Segment, Fault::CutOff(2_000));
    let started = archive.backfill([&*node.url(), "desertbus", "source"]).start();
    let again = |it: &node::Request| it.first_byte().is_some_and(|first| first > 10_000);
    assert!(node.wait_for_request(again, Duration::from_secs(20)));
    started.signal("TERM");
    started.outcome().assert_code(143);
    assert_eq!(archive.names(), [""; 0]);
}
