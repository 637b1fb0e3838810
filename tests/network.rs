//! Real networks: cut connections, unusual responses, dead addresses.

mod node;
mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use node::raw::{self, Raw};
use node::{Fault, Node, On, Ranges};
use socket2::{Domain, Socket, Type};
use support::{Archive, HOUR};

/// Content in which each byte shows its position.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u32 / 4).flat_map(u32::to_be_bytes).collect()
}

/// Adds a segment of this many bytes.
fn add(node: &Node, bytes: usize) -> String {
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", &content(bytes))
}

fn run(archive: &Archive, nodes: &[&Node]) -> support::Outcome {
    let urls: Vec<String> = nodes.iter().map(|node| node.url()).collect();
    archive.backfill([&*urls.join(","), "desertbus", "source", "--timeout=5s"]).run()
}

/// The first byte of each request for a segment.
fn begun_at(node: &Node) -> Vec<usize> {
    node.segment_requests().iter().map(|it| it.first_byte().unwrap_or(0)).collect()
}

// ---- Cut lines --------------------------------------------------------------------------------

#[test]
fn a_file_is_completed_over_a_line_that_keeps_breaking() {
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
fn a_cut_transfer_is_resumed() {
    let node = Node::start();
    add(&node, 100_000);
    node.fault(On::Segment, Fault::CutOff(30_000));
    run(&Archive::new(), &[&node]).assert_silent_success();
    assert_eq!(begun_at(&node), [0, 30_000, 60_000, 90_000]);
}

#[test]
fn a_node_without_ranges_is_asked_for_the_whole_file() {
    let failing = [204, 400, 403, 404, 501].map(Ranges::Fail);
    for ranges in [Ranges::Ignore, Ranges::Refuse, Ranges::Mistake].into_iter().chain(failing) {
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
fn another_node_resumes_a_cut_transfer() {
    let (cut, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    add(&cut, 100_000);
    let name = add(&good, 100_000);
    cut.fault(On::Segment, Fault::Status(500));
    cut.fault_times(On::Segment, Fault::CutOff(30_000), 1);
    let archive = Archive::new();
    let nodes = format!("{},{}", cut.url(), good.url());
    let run = archive.backfill([&*nodes, "desertbus", "source", "--timeout=20s"]);
    let again = |it: &node::Request| it.first_byte() == Some(30_000);
    run.run_with_late(&good, || cut.wait_for_requests(1, again)).assert_silent_success();
    assert_eq!((archive.names(), begun_at(&good)), (vec![name], vec![30_000]));
}

#[test]
fn a_chunked_body_without_its_end_is_judged_by_its_hash() {
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
    // Each attempt makes less progress than counts.
    node.fault(On::Segment, Fault::CutOff(500));
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "--retries=1"];
    archive.backfill(args).run().assert_code(3).assert_says("closed early");
    assert_eq!(archive.names(), [""; 0]);
    // A signal between two attempts leaves nothing behind either.
    node.fault(On::Segment, Fault::CutOff(2_000));
    let started = archive.backfill([&*node.url(), "desertbus", "source"]).start();
    let again = |it: &node::Request| it.first_byte().is_some_and(|first| first > 10_000);
    assert!(node.wait_for_request(again, Duration::from_secs(20)));
    started.signal("TERM");
    started.outcome().assert_code(143);
    assert_eq!(archive.names(), [""; 0]);
}

// ---- Odd answers ------------------------------------------------------------------------------

/// A node with one segment, whose responses to requests for it (or to all requests) are `odd`.
fn odd_node(odd: impl Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> (Raw, String) {
    let content = content(100_000);
    let name = node::segment_name("00:00.0-2.0-full", &content);
    let listed = name.clone();
    let raw = Raw::start(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let body = match path.matches('/').count() {
            3 => format!("[\"{HOUR}\"]").into_bytes(),
            4 => format!("[\"{listed}\"]").into_bytes(),
            _ => content.clone(),
        };
        odd(path, &body).or_else(|| Some(raw::ok("", &body)))
    });
    (raw, name)
}

fn run_on(archive: &Archive, url: &str) -> support::Outcome {
    archive.backfill([url, "desertbus", "source", "--retries=0", "--timeout=5s"]).run()
}

#[test]
fn unusual_but_valid_responses_are_accepted() {
    let length = |body: &[u8]| format!("Content-Length: {}\r\n", body.len());
    type Wrap = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;
    let before = |interim: &'static str| -> Wrap {
        Box::new(move |body| [interim.as_bytes(), &raw::ok("", body)].concat())
    };
    let headed = move |head: &'static str| -> Wrap {
        Box::new(move |body| {
            let head = head.replace("LENGTH", &length(body));
            [head.as_bytes(), body].concat()
        })
    };
    let gzip = |name: &'static str| -> Wrap {
        Box::new(move |body| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            packed.write_all(body).unwrap();
            raw::ok(&format!("Content-Encoding: {name}\r\n"), &packed.finish().unwrap())
        })
    };
    let many_headers: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let many_headers = format!("HTTP/1.1 200 OK\r\n{many_headers}LENGTH\r\n").leak();
    for (what, wrap) in [
        ("100", before("HTTP/1.1 100 Continue\r\n\r\n")),
        ("100 with headers", before("HTTP/1.1 100 Continue\r\nX: y\r\n\r\n")),
        ("102", before("HTTP/1.1 102 Processing\r\n\r\n")),
        ("103", before("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")),
        ("103 and 100", before("HTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 100 C\r\n\r\n")),
        ("no reason", headed("HTTP/1.1 200\r\nLENGTH\r\n")),
        ("bare line feeds", headed("HTTP/1.1 200 OK\nLENGTH\n")),
        ("an empty line before it", headed("\r\nHTTP/1.1 200 OK\r\nLENGTH\r\n")),
        ("many headers", headed(many_headers)),
        ("a folded header", headed("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nLENGTH\r\n")),
        ("a blank in a name", headed("HTTP/1.1 200 OK\r\nX Y: a\r\nLENGTH\r\n")),
        ("a length twice", headed("HTTP/1.1 200 OK\r\nLENGTHLENGTH\r\n")),
        ("gzip in capitals", gzip("GZIP")),
        ("x-gzip", gzip("x-gzip")),
    ] {
        let (node, name) = odd_node(move |_, body| Some(wrap(body)));
        let archive = Archive::new();
        let outcome = run_on(&archive, &node.url());
        assert_eq!(archive.names(), [name], "{what}: {outcome:#?}");
        outcome.assert_silent_success();
    }
}

#[test]
fn interim_responses_may_come_in_separate_packets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_nodelay(true).unwrap();
            while raw::read_head(&mut stream).is_some() {
                for byte in b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" {
                    let _ = stream.write_all(&[*byte]);
                }
                let _ = stream.write_all(&raw::ok("", b"[]"));
            }
        }
    });
    run_on(&Archive::new(), &url).assert_code(0);
}

#[test]
fn invalid_responses_are_named_and_rejected() {
    let said_of = |answer: Vec<u8>| -> (support::Outcome, Vec<String>) {
        let answer =
            move |path: &str, _: &[u8]| path.contains("/segments/").then(|| answer.clone());
        let (node, _) = odd_node(answer);
        let archive = Archive::new();
        (run_on(&archive, &node.url()), archive.names())
    };
    for (answer, said) in [
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), "HTTP 204 No Content, which has no content"),
        (
            b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nxx".to_vec(),
            "HTTP 206 Partial Content, though no range was requested",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), "does not match its hash"),
        (raw::ok("Content-Encoding: br\r\n", b"x"), "the coding \"br\", which was not requested"),
        (raw::ok("Content-Encoding: gzip, gzip\r\n", b"x"), "the coding \"gzip, gzip\""),
        (
            raw::ok("Content-Encoding: gzip\r\n", b"this is not gzip"),
            "the response is not valid gzip",
        ),
        (raw::ok("Transfer-Encoding: gzip\r\n", b"x"), "the coding \"gzip\""),
        (
            [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &[b'0'; 1 << 20]]
                .concat(),
            "the response is not valid HTTP: a chunk has no length",
        ),
        (raw::ok("", b"<!DOCTYPE html><html>x</html>"), "the response is a web page, not the file"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "the response is SSH, not HTTP"),
        (b"220 mail.example ESMTP\r\n".to_vec(), "the response is not HTTP (is the port right?)"),
        (b"HTTP/1.1 abc\r\n\r\n".to_vec(), "the response is not valid HTTP"),
        (b"HTTP/1.1 100 C\r\n\r\n".repeat(200), "it sends too many interim (1xx) responses"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(), "HTTP 304 Not Modified"),
    ] {
        let (outcome, names) = said_of(answer);
        outcome.assert_code(3).assert_says(said);
        assert_eq!(names, [""; 0], "{said}");
    }
}

#[test]
fn a_web_page_instead_of_a_listing_is_reported_as_one() {
    let (node, _) = odd_node(|_, _| Some(raw::ok("", b" <html>Welcome to nginx!</html>")));
    let said = "the response is a web page, not a JSON list of names (is the node's URL right?)";
    run_on(&Archive::new(), &node.url()).assert_code(3).assert_says(said);
}

#[test]
fn redirects_are_followed_in_any_form() {
    for form in ["../../../../new", "./../../../../new", "//HOST/new", "HTTP://HOST/new", "/new"] {
        let node = Node::start();
        let name = add(&node, 1000);
        let host = node.url().replace("http://", "");
        let (from, to) = (Node::start(), node);
        add(&from, 1000);
        let resource = format!("/segments/desertbus/source/{HOUR}/{name}");
        let location = format!("{}{resource}", form.replace("HOST", &host));
        from.fault_path(&resource, Fault::StatusWithHeader(302, "Location", location));
        let archive = Archive::new();
        let outcome = run_on(&archive, &from.url());
        let asked = [from.requests(), to.requests()].concat();
        let is_new = |it: &&node::Request| it.resource == format!("/new{resource}");
        assert!(asked.iter().any(|it| is_new(&it)), "{form}: {outcome:#?}");
    }
}

#[test]
fn files_without_a_hash_come_only_from_the_node_s_own_host() {
    let (node, other) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    add(&node, 1000);
    node.add_extra("emotes", "kappa.png", b"x");
    other.add_extra("emotes", "kappa.png", b"an internal service's answer");
    let location = format!("{}/segments/emotes/kappa.png", other.url());
    let redirect = Fault::StatusWithHeader(302, "Location", location);
    node.fault_path("/segments/emotes/kappa.png", redirect);
    let archive = Archive::new();
    let args = [&*node.url(), "desertbus", "source", "--extras=emotes"];
    let said = format!("it redirects to {}, but listings and files without a hash", other.url());
    archive.backfill(args).run().assert_code(3).assert_says(&said);
    assert!(!archive.path().join("emotes/kappa.png").exists());
    assert_eq!(other.requests().len(), 0);
    // Another port of the same host is the same host.
    let same = Node::start_at("127.0.0.1");
    same.add_extra("emotes", "kappa.png", b"y");
    let location = format!("{}/segments/emotes/kappa.png", same.url());
    let location = location.replace("://", "://me:secret@");
    let redirect = Fault::StatusWithHeader(302, "Location", location);
    node.fault_path("/segments/emotes/kappa.png", redirect);
    archive.backfill(args).run().assert_code(0);
    assert!(same.requests().iter().all(|it| it.header("authorization").is_none()));
    assert!(archive.path().join("emotes/kappa.png").exists());
}

#[test]
fn a_failed_redirect_names_its_target() {
    let node = Node::start();
    let name = add(&node, 1000);
    let resource = format!("/segments/desertbus/source/{HOUR}/{name}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (location, said) in [
        (
            format!("http://{closed}/x"),
            format!("it redirects to http://{closed}: connection refused"),
        ),
        ("http://no-such.invalid/x".into(), "no-such.invalid: its name can't be resolved".into()),
        (
            "http://a:99999/x".into(),
            "it redirects to something other than a valid http or https URL".into(),
        ),
        (
            "ftp://a/x".into(),
            "it redirects to something other than a valid http or https URL".into(),
        ),
    ] {
        node.fault_path(&resource, Fault::StatusWithHeader(307, "Location", location));
        run_on(&Archive::new(), &node.url()).assert_code(3).assert_says(&said);
    }
}

// ---- Silence ----------------------------------------------------------------------------------

#[test]
fn a_withheld_body_counts_as_silence() {
    let (bad, good) = (Node::start_at("127.0.0.1"), Node::start_at("127.0.0.2"));
    let name = add(&good, 1000);
    for n in 1..9 {
        bad.add("desertbus", "source", HOUR, &format!("00:0{n}.0-2.0-full"), &[n]);
    }
    bad.fault(On::Segment, Fault::TrickleStatus(404, Duration::from_secs(60)));
    let archive = Archive::new();
    let nodes = format!("{},{}", bad.url(), good.url());
    let outcome = archive.backfill([&*nodes, "desertbus", "source", "--timeout=500ms"]).run();
    outcome.assert_says("node 127.0.0.1 is given up: timed out after 0.5 s");
    assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
    assert_eq!(archive.names(), [name]);
}

// ---- Addresses --------------------------------------------------------------------------------

/// A port that accepts no connections on this address, with a full queue.
fn dead_port(ip: &str, port: u16) -> Vec<TcpStream> {
    let at: SocketAddr = format!("{ip}:{port}").parse().unwrap();
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.listen(0).unwrap();
    let connect = |_| TcpStream::connect_timeout(&at, Duration::from_millis(100)).ok();
    let filling: Vec<TcpStream> = (0..4).map_while(connect).collect();
    filling.into_iter().chain([socket.into()]).collect()
}

#[test]
fn a_dead_address_costs_little_and_only_once() {
    if !support::is_root() || !support::has_tool("unshare") {
        return;
    }
    let (node, names) = support::node_with(40);
    node.fault(On::Segment, Fault::CloseAfter);
    let port: u16 = node.url().rsplit(':').next().unwrap().parse().unwrap();
    let _dead = dead_port("[::1]", port);
    let (archive, dir) = (Archive::new(), tempfile::tempdir().unwrap());
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "::1 n.test\n127.0.0.1 n.test\n").unwrap();
    let url = format!("http://n.test:{port}");
    let mut run = archive.backfill([&*url, "desertbus", "source", "-j1", "--timeout=20s"]);
    let binary = run.command.get_program().to_owned();
    let args: Vec<_> = run.command.get_args().map(ToOwned::to_owned).collect();
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    run.command = Command::new("unshare");
    run.command.args(["-m", "sh", "-c", script]).arg(&hosts).arg(binary).args(args);
    run.command.env("BACKFILLER_BASE_DIR", archive.path());
    let outcome = run.run();
    outcome.assert_silent_success();
    assert_eq!(archive.names(), names);
    // A quarter of a second for each of forty connections would take ten seconds.
    assert!(node.connections() >= 40);
    assert!(outcome.took < support::AT_ONCE, "{:?}", outcome.took);
}

#[test]
fn a_port_that_may_be_missing_is_suggested() {
    // Nothing listens on port 80 of this address.
    let said = "(at http://127.9.9.9: is the port missing? Most nodes serve on 1337)";
    let archive = Archive::new();
    run_on(&archive, "http://127.9.9.9").assert_code(4).assert_says(said);
    let outcome = run_on(&archive, "http://127.9.9.9:80");
    outcome.assert_code(4).assert_says("connection refused (at http://127.9.9.9:80)");
}
