//! Successful passes: what is fetched, from which node, in which order, and what is left alone.

mod node;
mod support;

use std::fs;

use chrono::{TimeDelta, Utc};
use node::{Authority, Fault, Node, On};
use support::{Archive, HOUR, Run, data, fill, node_with, segment_content};

fn requested_names(node: &Node) -> Vec<String> {
    let requests = node.segment_requests();
    requests.iter().map(|r| r.resource.rsplit('/').next().unwrap().to_owned()).collect()
}

#[test]
fn an_empty_archive_is_filled_from_a_node() {
    let (node, names) = node_with(40);
    let archive = Archive::new();
    archive.backfill([&node.url(), "desertbus", "source"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    archive.assert_whole();
}

#[test]
fn only_missing_segments_are_fetched() {
    let (node, names) = node_with(3);
    let archive = Archive::new();
    archive.put("00:02.0-2.0-full", segment_content(1).as_bytes());
    archive.backfill([&node.url(), "desertbus", "source"]).run().assert_silent_success();
    let mut requested = requested_names(&node);
    requested.sort();
    assert_eq!(requested, [&*names[0], &*names[2]]);
    archive.assert_whole();
}

#[test]
fn a_second_pass_finds_nothing_to_do() {
    let (node, _) = node_with(5);
    let archive = Archive::new();
    archive.backfill([&node.url(), "desertbus", "source"]).run().assert_silent_success();
    let before = archive.files();
    archive.backfill([&node.url(), "desertbus", "source"]).run().assert_silent_success();
    assert_eq!(node.segment_requests().len(), 5);
    assert_eq!(archive.files(), before);
}

#[test]
fn a_real_archive_is_copied_from_a_directory() {
    let Some(data) = data() else { return };
    let archive = Archive::new();
    let outcome = archive.backfill([data.to_str().unwrap(), "testcard", "source,160p,chat"]).run();
    outcome.assert_silent_success();
    archive.assert_whole();
    assert_eq!(archive.files().len(), 30);
    for (path, content) in archive.files() {
        assert_eq!(fs::read(data.join(&path)).unwrap(), content, "{path}");
    }
}

#[test]
fn a_real_archive_is_copied_over_http() {
    let Some(data) = data() else { return };
    let node = Node::start();
    for variant in ["source", "160p", "chat"] {
        for hour in ["2018-11-10T05", "2018-11-10T06"] {
            for entry in fs::read_dir(data.join("testcard").join(variant).join(hour)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                node.add_named("testcard", variant, hour, name, &fs::read(&path).unwrap());
            }
        }
    }
    let archive = Archive::new();
    let outcome = archive.backfill([&node.url(), "testcard", "source,160p,chat", "all"]).run();
    outcome.assert_silent_success();
    archive.assert_whole();
    assert_eq!(archive.files().len(), 30);
}

#[test]
fn a_segment_that_three_nodes_have_is_fetched_once() {
    let nodes: Vec<Node> = (1..=3).map(|n| Node::start_at(&format!("127.0.0.{n}"))).collect();
    let names = nodes.iter().map(|node| fill(node, 300)).next_back().unwrap();
    let urls: Vec<String> = nodes.iter().map(Node::url).collect();
    let archive = Archive::new();
    archive.backfill([&urls.join(","), "desertbus", "source"]).run().assert_silent_success();
    let mut requested: Vec<String> = nodes.iter().flat_map(requested_names).collect();
    requested.sort();
    assert_eq!(requested, names);
    archive.assert_whole();
}

#[test]
fn a_slow_node_does_not_delay_the_end_of_a_pass() {
    let (quick, slow) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    let mut names = Vec::new();
    for n in 0..20_u8 {
        let stem = format!("{n:02}:00.0-2.0-full");
        for node in [&quick, &slow] {
            names.push(node.add("desertbus", "source", HOUR, &stem, &vec![n; 100_000]));
        }
    }
    names.sort();
    names.dedup();
    // A file takes the slow node five seconds, and the quick one a tenth of a second.
    slow.limit_rate(20_000);
    quick.limit_rate(1_000_000);
    let archive = Archive::new();
    let both = format!("{},{}", quick.url(), slow.url());
    let outcome = archive.backfill([&*both, "desertbus", "source", "-j2"]).run();
    outcome.assert_silent_success();
    assert_eq!(archive.names(), names);
    archive.assert_whole();
    // It did not wait for the slow node's transfer, and the quick node was asked for only that
    // file.
    assert!(slow.segment_bytes() < slow.segment_requests().len() * 100_000);
    let requested = quick.segment_requests().len() + slow.segment_requests().len();
    assert!(requested <= 20 + 2, "{requested} requests");
}

#[test]
fn nodes_complete_each_other() {
    let (a, b) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    let first = a.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"first");
    let second = b.add("desertbus", "source", HOUR, "00:02.0-2.0-full", b"second");
    let third = b.add("desertbus", "source", "2018-11-10T06", "00:00.0-2.0-full", b"third");
    let archive = Archive::new();
    let both = format!("{},{}", a.url(), b.url());
    archive.backfill([&both, "desertbus", "source"]).run().assert_silent_success();
    let mut expected = vec![first, second, third];
    expected.sort();
    assert_eq!(archive.names(), expected);
}

#[test]
fn segments_are_fetched_in_the_selected_order() {
    for (order, reverse) in [("forward", false), ("reverse", true)] {
        let (node, mut names) = node_with(12);
        let newest = node.add("desertbus", "source", "2018-11-10T06", "00:00.0-2.0-full", b"new");
        let archive = Archive::new();
        let order = ["-j1", "--order", order];
        let url = node.url();
        let args = [&*url, "desertbus", "source"].into_iter().chain(order);
        archive.backfill(args).run().assert_silent_success();
        if reverse {
            names.reverse();
        }
        names.insert(0, newest);
        assert_eq!(requested_names(&node), names);
    }
}

#[test]
fn the_default_order_is_random() {
    let (node, names) = node_with(100);
    let archive = Archive::new();
    archive.backfill([&node.url(), "desertbus", "source", "-j1"]).run().assert_silent_success();
    let requested = requested_names(&node);
    assert_ne!(requested, names);
    assert_ne!(requested, names.into_iter().rev().collect::<Vec<_>>());
}

#[test]
fn full_segments_are_fetched_before_partial_ones() {
    let node = Node::start();
    let add = |stem: &str| node.add("desertbus", "source", HOUR, stem, stem.as_bytes());
    let partial = add("00:00.0-2.0-partial");
    let suspect = add("00:00.0-2.0-suspect");
    let full = add("00:04.0-2.0-full");
    let archive = Archive::new();
    archive.backfill([&node.url(), "desertbus", "source", "-j1"]).run().assert_silent_success();
    assert_eq!(requested_names(&node), [full, suspect, partial]);
}

#[test]
fn only_the_selected_hours_are_listed_and_fetched() {
    for (hours, expected) in [
        (&["2018-11-10T05"][..], &["2018-11-10T05"][..]),
        (&["2018-11-10"], &["2018-11-10T05", "2018-11-10T06"]),
        (&["..2018-11-10T05"], &["2018-11-09T23", "2018-11-10T05"]),
        (&["2018-11-10T06..2018-11-11"], &["2018-11-10T06", "2018-11-11T00"]),
        (
            &["2018-11-09", "2018-11-11T00,2018-11-10T06"],
            &["2018-11-09T23", "2018-11-10T06", "2018-11-11T00"],
        ),
        (&["2030-01-01"], &[]),
        (&["last:5"], &[]),
        (&["-"], &["2018-11-09T23", "2018-11-10T06"]),
    ] {
        let node = Node::start();
        for hour in ["2018-11-09T23", "2018-11-10T05", "2018-11-10T06", "2018-11-11T00"] {
            node.add("desertbus", "source", hour, "00:00.0-2.0-full", hour.as_bytes());
        }
        let archive = Archive::new();
        let url = node.url();
        let args = [&*url, "desertbus", "source"].into_iter().chain(hours.iter().copied());
        let stdin = "2018-11-09T23\n\n# the next day\n 2018-11-10T06..2018-11-10T23\n";
        archive.backfill(args).stdin(stdin).run().assert_silent_success();
        let mut listed: Vec<String> = node
            .requests()
            .iter()
            .filter_map(|request| {
                let hour = request.resource.strip_prefix("/files/desertbus/source/")?;
                Some(hour.to_owned())
            })
            .collect();
        listed.sort();
        assert_eq!(listed, expected, "{hours:?}");
        assert_eq!(archive.files().len(), expected.len());
    }
}

#[test]
fn the_youngest_segments_of_the_current_hour_are_skipped() {
    let node = Node::start();
    let mut expected = Vec::new();
    for (age, is_old) in [(30, false), (90, true)] {
        let start = Utc::now() - TimeDelta::seconds(age);
        let stem = format!("{}-2.0-full", start.format("%M:%S%.6f"));
        let hour = start.format("%Y-%m-%dT%H").to_string();
        let name = node.add("desertbus", "source", &hour, &stem, b"now");
        node.add_chat("desertbus", &hour, &start.format("%M:%S").to_string(), b"[]");
        if is_old {
            expected.push(name);
        }
    }
    let archive = Archive::new();
    let outcome = archive.backfill([&node.url(), "desertbus", "source", "last:2", "-v"]).run();
    outcome.assert_code(0).assert_says("is younger than the recent cutoff");
    assert_eq!(archive.names(), expected);

    let outcome = archive.backfill([
        &node.url(),
        "desertbus",
        "source,chat",
        "last:2",
        "--recent-cutoff=20s",
    ]);
    outcome.run().assert_silent_success();
    assert_eq!(archive.names().len(), 4);
}

#[test]
fn temp_segments_are_skipped_and_reported_with_v() {
    let node = Node::start();
    let temp = "00:00.0-2.0-temp-6f0f9d1e-8c1c-4b5c-9d3f-0123456789ab.ts";
    node.add_named("desertbus", "source", HOUR, temp, b"half");
    let merging =
        format!("00:00-{}.json.6f0f9d1e-8c1c-4b5c-9d3f-0123456789ab.temp", node::hash_of(b""));
    node.add_named("desertbus", "chat", HOUR, &merging, b"half");
    let archive = Archive::new();
    let args = [&node.url(), "desertbus", "source,chat"];
    archive.backfill(args).run().assert_silent_success();
    let outcome = archive.backfill(args.into_iter().chain(["-v"])).run();
    outcome.assert_code(0).assert_says(&format!("{temp} is being written"));
    outcome.assert_says(&format!("{merging} is being written"));
    assert_eq!(node.segment_requests().len(), 0);
}

#[test]
fn invalid_names_are_reported_without_a_failure() {
    let (node, names) = node_with(1);
    for junk in ["junk", "@eaDir", "Thumbs.db", "00:00.0-2.0-full-tooshort.ts"] {
        node.list_also("desertbus", "source", HOUR, junk);
    }
    node.list_also("desertbus", "source", HOUR, ".hidden");
    node.list_also("desertbus", "source", "yesterday", "junk");
    let archive = Archive::new();
    // Archives contain foreign files, which are not a warning without a terminal.
    let args = ["-n", &*node.url(), "desertbus", "source"];
    let outcome = archive.backfill(args).run();
    outcome.assert_code(0);
    assert_eq!(outcome.stderr, "");
    let shown = archive.backfill(args).on_terminal(200).written;
    assert!(
        shown.contains("node 127.0.0.1: desertbus/source/yesterday is not a valid name"),
        "{shown}"
    );
    let outcome = archive.backfill([&node.url(), "desertbus", "source", "-v"]).run();
    outcome.assert_code(0).assert_says_not("warning");
    outcome.assert_says("node 127.0.0.1: desertbus/source/2018-11-10T05/junk is not a valid name: it does not end in .ts");
    outcome.assert_says("a hash that is not 43 characters long");
    outcome.assert_says("desertbus/source/yesterday is not a valid name: it is not a valid hour");
    outcome.assert_says("@eaDir").assert_says("Thumbs.db");
    assert!(!shown.contains(".hidden"), "{shown}");
    assert_eq!(archive.names(), names);
}

#[test]
fn a_deleted_segment_is_not_fetched_again() {
    let (node, names) = node_with(3);
    let archive = Archive::new();
    // One segment has its tombstone here, another on the node. The node still lists both.
    let tombstone = names[0].replace(".ts", ".tombstone");
    archive.write(&format!("desertbus/source/{HOUR}/{tombstone}"), b"");
    node.list_also("desertbus", "source", HOUR, &names[1].replace(".ts", ".tombstone"));
    let outcome = archive.backfill([&node.url(), "desertbus", "source", "-v"]).run();
    outcome.assert_code(0).assert_says(&format!("{} has a tombstone", names[0]));
    assert_eq!(requested_names(&node), [&*names[2]]);
}

#[test]
fn chat_is_fetched_and_checked_like_the_rest() {
    let node = Node::start();
    let with = node.add_chat("desertbus", HOUR, "41:59.1", br#"[{"message": "hi"}]"#);
    let without = node.add_chat("desertbus", HOUR, "41:59", b"[]");
    let bad = format!("00:00-{}.json", node::hash_of(b"this"));
    node.add_named("desertbus", "chat", HOUR, &bad, b"that");
    let archive = Archive::new();
    let outcome = archive.backfill([&node.url(), "desertbus", "chat"]).run();
    outcome.assert_code(3).assert_says("content does not match its hash");
    let mut expected = vec![with, without];
    expected.sort();
    assert_eq!(archive.names(), expected);
    archive.assert_whole();
}

#[test]
fn several_streams_and_variants_are_filled_in_one_pass() {
    let node = Node::start();
    for stream in ["desertbus", "other"] {
        for variant in ["source", "480p", "left"] {
            let content = format!("{stream}{variant}");
            node.add(stream, variant, HOUR, "00:00.0-2.0-full", content.as_bytes());
        }
    }
    let archive = Archive::new();
    let outcome = archive.backfill([&node.url(), "desertbus,other", "source,480p"]).run();
    outcome.assert_silent_success();
    assert_eq!(archive.files().len(), 4);
    assert!(archive.files().keys().all(|path| !path.contains("left")));
}

#[test]
fn an_unknown_stream_is_reported_only_with_v() {
    let (node, _) = node_with(1);
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source,sorce", "-v"];
    archive.backfill(&args[..3]).run().assert_silent_success();
    let outcome = archive.backfill(args).run();
    outcome.assert_code(0).assert_says("no node that answered has desertbus/sorce");
    outcome.assert_says_not("knows desertbus/source");
}

#[test]
fn each_worker_keeps_its_connection() {
    let (node, _) = node_with(200);
    let archive = Archive::new();
    archive.backfill([&node.url(), "desertbus", "source", "-j4"]).run().assert_silent_success();
    assert_eq!(node.requests().len(), 202);
    assert!(node.connections() <= 4, "{} connections", node.connections());
}

#[test]
fn connections_may_close_between_requests() {
    let (node, names) = node_with(50);
    node.fault(On::Any, Fault::CloseAfter);
    let archive = Archive::new();
    archive.backfill([&node.url(), "desertbus", "source", "--retries=10"]).run().assert_code(0);
    assert_eq!(archive.names(), names);
}

#[test]
fn only_listings_are_requested_compressed() {
    let (node, names) = node_with(100);
    node.fault(On::Any, Fault::Gzip);
    let archive = Archive::new();
    archive.backfill([&node.url(), "desertbus", "source"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    for request in node.requests() {
        let encoding = request.header("accept-encoding").unwrap();
        let is_segment = request.path.starts_with("/segments/");
        assert_eq!(encoding, if is_segment { "identity" } else { "gzip" });
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(request.header("user-agent").unwrap(), format!("backfiller/{version}"));
    }
}

#[test]
fn every_framing_of_a_response_is_understood() {
    for fault in [Fault::Chunked, Fault::Http10, Fault::Gzip] {
        let (node, names) = node_with(3);
        node.fault(On::Any, fault.clone());
        let archive = Archive::new();
        archive.backfill([&node.url(), "desertbus", "source"]).run().assert_silent_success();
        assert_eq!(archive.names(), names, "{fault:?}");
    }
}

#[test]
fn a_node_s_url_may_have_a_path() {
    for slash in ["", "/"] {
        let (node, names) = node_with(1);
        node.set_prefix("/wub/loader");
        let archive = Archive::new();
        let url = format!("{}/wub/loader{slash}", node.url());
        archive.backfill([&url, "desertbus", "source"]).run().assert_silent_success();
        assert_eq!(archive.names(), names);
    }
}

#[test]
fn a_node_may_have_an_ipv6_address() {
    let node = Node::start_at("::1");
    let names = fill(&node, 2);
    let archive = Archive::new();
    assert!(node.url().starts_with("http://[::1]:"));
    archive.backfill([&node.url(), "desertbus", "source"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn unusual_names_are_requested_unchanged() {
    let node = Node::start();
    node.add("désert bus?#%", "50% +", HOUR, "00:00.0-2.0-full", b"odd");
    let archive = Archive::new();
    archive.backfill([&node.url(), "désert bus?#%", "50% +"]).run().assert_silent_success();
    assert!(archive.files().keys().next().unwrap().starts_with("désert bus?#%/50% +/"));
}

#[test]
fn credentials_in_a_url_are_used_and_never_shown() {
    let (node, names) = node_with(1);
    node.require_basic_auth("me", "se:cret");
    let url = node.url().replace("://", "://me:se%3Acret@");
    let archive = Archive::new();
    let outcome = archive.backfill([&url, "desertbus", "source", "-vv"]).run();
    outcome.assert_code(0).assert_says_not("cret");
    outcome
        .assert_says(&format!("debug: GET {}/files/desertbus/source: 200 OK after ", node.url()));
    assert_eq!(archive.names(), names);

    let wrong = node.url().replace("://", "://me:wrong@");
    let outcome = archive.backfill([&wrong, "desertbus", "source", "-vv"]).run();
    outcome.assert_code(3).assert_says("HTTP 401").assert_says_not("wrong");
}

#[test]
fn https_uses_the_certificates_of_the_system() {
    let authority = Authority::new();
    let node = Node::start_tls(&authority);
    let names = fill(&node, 20);
    let archive = Archive::new();
    let trusted = tempfile::NamedTempFile::new().unwrap();
    fs::write(trusted.path(), authority.pem()).unwrap();
    let args = [&node.url(), "desertbus", "source"];
    let outcome = archive.backfill(args).env("SSL_CERT_FILE", trusted.path()).run();
    outcome.assert_silent_success();
    assert_eq!(archive.names(), names);
    assert!(node.connections() <= 8, "{} connections", node.connections());
}

#[test]
fn https_without_a_trusted_certificate_is_not_used() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trusted = tempfile::NamedTempFile::new().unwrap();
    fs::write(trusted.path(), authority.pem()).unwrap();
    for node in [Node::start_tls(&other), Node::start_tls_named(&authority, "elsewhere.example")] {
        fill(&node, 1);
        let archive = Archive::new();
        let args = [&node.url(), "desertbus", "source"];
        let outcome = archive.backfill(args).env("SSL_CERT_FILE", trusted.path()).run();
        outcome.assert_code(4).assert_says("TLS: its certificate is f");
        assert_eq!(node.requests().len(), 0);
    }
}

#[test]
fn a_redirect_is_followed() {
    let (to, names) = node_with(1);
    // Files without a hash and listings are accepted only from the same host; the port may differ.
    let from = Node::start();
    for path in [
        "/files/desertbus/source".to_owned(),
        format!("/files/desertbus/source/{HOUR}"),
        format!("/segments/desertbus/source/{HOUR}/{}", names[0]),
    ] {
        let target = format!("{}{path}", to.url());
        from.fault_path(&path, Fault::StatusWithHeader(302, "Location", target));
    }
    let archive = Archive::new();
    archive.backfill([&from.url(), "desertbus", "source"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn nodes_come_from_arguments_files_and_standard_input() {
    let (node, names) = node_with(1);
    let list = format!(
        "\u{feff}# the nodes\n\n  a {} # the good one\nhttp://127.0.0.9:1\nb http://here.example\n",
        node.url()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &list).unwrap();
    for nodes in ["@-".to_owned(), format!("@{}", file.path().display())] {
        let archive = Archive::new();
        let args = [&*nodes, "desertbus", "source", "--localhost=b", "--retries=0", "-v"];
        let outcome = archive.backfill(args).stdin(&list).run();
        outcome.assert_code(3).assert_says("node a: fetched").assert_says("node b is this machine");
        outcome.assert_says("node 127.0.0.9 is given up: connection refused");
        assert_eq!(archive.names(), names);
    }
}

#[test]
fn this_machine_is_skipped_by_its_host_name() {
    let (node, names) = node_with(1);
    let name = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let nodes = format!("{name}=http://127.0.0.9:1,a={}", node.url());
    let archive = Archive::new();
    archive.backfill([&nodes, "desertbus", "source"]).run().assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn the_last_of_two_nodes_with_one_name_is_used() {
    let (node, names) = node_with(1);
    let nodes = format!("a=http://127.0.0.9:1,a={}", node.url());
    let archive = Archive::new();
    let outcome = archive.backfill([&nodes, "desertbus", "source"]).run();
    outcome.assert_code(0).assert_says("node a is given twice");
    assert_eq!(archive.names(), names);
}

#[test]
fn directories_and_http_nodes_work_together() {
    let disk = Archive::new();
    let from_disk = disk.put("00:00.0-2.0-full", b"on the disk");
    disk.write(&format!("desertbus/source/{HOUR}/junk"), b"");
    let (node, names) = node_with(2);
    let archive = Archive::new();
    let nodes = format!("{},disk={}", node.url(), disk.path().display());
    let outcome = archive.backfill([&nodes, "desertbus", "source", "-v"]).run();
    outcome
        .assert_code(0)
        .assert_says("node disk: desertbus/source/2018-11-10T05/junk is not a valid name");
    let mut expected = names;
    expected.push(from_disk);
    expected.sort();
    assert_eq!(archive.names(), expected);
}

#[test]
fn a_directory_node_honours_its_tombstones() {
    let disk = Archive::new();
    let name = disk.put("00:00.0-2.0-full", b"deleted");
    disk.write(&format!("desertbus/source/{HOUR}/{}", name.replace(".ts", ".tombstone")), b"");
    let archive = Archive::new();
    let from = disk.path().to_str().unwrap();
    archive.backfill([from, "desertbus", "source"]).run().assert_silent_success();
    assert!(!archive.names().contains(&name));
}

#[test]
fn the_proxy_of_the_environment_is_used() {
    let (node, names) = node_with(1);
    // Nothing listens there.
    let proxy = "http://127.0.0.9:1";
    let archive = Archive::new();
    let run = |variable: &str, exempt: &str| {
        let args = [&*node.url(), "desertbus", "source", "--retries=0"];
        archive.backfill(args).env(variable, proxy).env("no_proxy", exempt).run()
    };
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy"] {
        run(variable, "elsewhere").assert_code(4);
    }
    run("https_proxy", "elsewhere").assert_silent_success();
    run("http_proxy", "127.0.0.1").assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn all_workers_share_the_rate_limit() {
    let node = Node::start();
    for n in 0..8 {
        node.add("desertbus", "source", HOUR, &format!("00:{n:02}.0-2.0-full"), &vec![n; 25_600]);
    }
    let archive = Archive::new();
    let outcome = archive.backfill([&node.url(), "desertbus", "source", "--limit-rate=200k"]).run();
    outcome.assert_silent_success();
    assert!(outcome.took.as_secs_f64() > 0.95, "{:?}", outcome.took);
    archive.assert_whole();
}

#[test]
fn the_current_directory_is_the_default_archive() {
    let (node, names) = node_with(1);
    let archive = Archive::new();
    let args = [&node.url(), "desertbus", "source"];
    Run::new(args).current_dir(archive.path()).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    let named = Archive::new();
    let dir = named.path().to_str().unwrap();
    archive.backfill(args.into_iter().chain(["--base-dir", dir])).run().assert_silent_success();
    assert_eq!(named.names(), names);
}

#[test]
fn the_archive_is_filled_without_flushing_too() {
    let (node, names) = node_with(3);
    let archive = Archive::new();
    archive
        .backfill([&node.url(), "desertbus", "source", "--no-fsync"])
        .run()
        .assert_silent_success();
    assert_eq!(archive.names(), names);
}
