//! The metrics file: its content after a pass, what it keeps of earlier passes, and that no other
//! file is ever harmed.

mod node;
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use node::{Fault, Node, On, Request};
use support::metrics::{Machine, Samples};
use support::{Archive, HOUR, fill, has_tool, node_with};

/// The only complaint of promtool. The name is Wubloader's, and dashboards use it.
const MINDED: &str = "hours_backfilled_total use base unit \"seconds\" instead of \"hours\"\n";

#[track_caller]
fn assert_promtool_is_content(file: &Path) {
    if has_tool("promtool") {
        let mut check = Command::new("promtool");
        let stdin = File::open(file).unwrap();
        let outcome = check.args(["check", "metrics"]).stdin(stdin).output().unwrap();
        let said = String::from_utf8([outcome.stdout, outcome.stderr].concat()).unwrap();
        assert_eq!(said.replacen(MINDED, "", 1).trim_end(), "");
        // 3 means complaints, 1 an invalid file.
        assert_eq!(outcome.status.code(), Some(if said.contains(MINDED) { 3 } else { 0 }));
    }
}

// ---- Content -----------------------------------------------------------------------------------

#[test]
fn a_pass_is_counted_and_measured() {
    let (a, b, c) = (Node::start(), Node::start(), Node::start());
    let add = |node: &Node, stem: &str, content: &str| {
        node.add("desertbus", "source", HOUR, stem, content.as_bytes())
    };
    add(&a, "00:00.0-2.0-full", "good");
    let corrupt = add(&a, "00:02.0-2.0-full", "corrupt");
    add(&b, "00:04.0-2.5-full", "from b");
    let failing = add(&b, "00:06.5-1.25-full", "failing");
    a.add_chat("desertbus", HOUR, "00:00", b"a chat");
    a.fault_path(&format!("/segments/desertbus/source/{HOUR}/{corrupt}"), Fault::Corrupt);
    b.fault_path(&format!("/segments/desertbus/source/{HOUR}/{failing}"), Fault::Status(500));
    c.fault(On::Any, Fault::Hang);

    let machine = Machine::new();
    let old = "2018-11-01T00";
    for content in ["old", "older"] {
        let name = node::segment_name("00:00.0-2.0-full", content.as_bytes());
        machine.archive.write(&format!("desertbus/source/{old}/{name}"), content.as_bytes());
    }
    // Up to the day before HOUR.
    let day = NaiveDate::from_ymd_opt(2018, 11, 9).unwrap();
    let age = format!("{}d", (Utc::now().date_naive() - day).num_days());
    let nodes = format!("a={},b={},c={}", a.url(), b.url(), c.url());
    let file = machine.file();
    let pass = || {
        let mut run = machine.archive.backfill([&*nodes, "desertbus", "source,chat", HOUR]);
        run.command.args(["--retries=0", "--timeout=2s", "--delete-older-than", &age]);
        run.command.arg("--metrics-file").arg(&file);
        run.run()
    };
    let begun = Utc::now().timestamp_millis() as f64 / 1e3;
    let outcome = pass();
    outcome.assert_code(3);
    assert_promtool_is_content(&file);

    let samples = machine.samples();
    let source = format!("stream=\"desertbus\",variant=\"source\",hour=\"{HOUR}\"");
    let chat = source.replace("source", "chat");
    let hours = format!("hours=\"{HOUR}\"");
    assert_eq!(
        samples.of("segments_backfilled_total"),
        [
            (&*format!("{{remote=\"a\",{chat}}}"), 1.0),
            (&*format!("{{remote=\"a\",{source}}}"), 1.0),
            (&*format!("{{remote=\"b\",{source}}}"), 1.0),
        ]
    );
    let mismatches = format!("{{remote=\"a\",{source}}}");
    assert_eq!(samples.of("hash_mismatches_total"), [(&*mismatches, 1.0)]);
    samples.assert("backfill_errors_total{remote=\"a\"}", 1.0);
    samples.assert("backfill_errors_total{remote=\"b\"}", 1.0);
    assert!(samples.value("backfill_errors_total{remote=\"c\"}") >= 1.0);
    assert_eq!(
        samples.of("hours_backfilled_total"),
        [
            ("{remote=\"a\",stream=\"desertbus\",variant=\"chat\"}", 1.0),
            ("{remote=\"a\",stream=\"desertbus\",variant=\"source\"}", 1.0),
            ("{remote=\"b\",stream=\"desertbus\",variant=\"source\"}", 1.0),
        ]
    );
    let deleted = format!("{{stream=\"desertbus\",variant=\"source\",hour=\"{old}\"}}");
    assert_eq!(samples.of("segments_deleted_total"), [(&*deleted, 2.0)]);

    let of_pass = |name: &str| format!("backfiller_last_pass_{name}{{{hours}}}");
    let start = samples.value(&of_pass("start_timestamp_seconds"));
    let took = samples.value(&of_pass("duration_seconds"));
    assert!(begun <= start && start < begun + outcome.took.as_secs_f64(), "{begun} {start}");
    assert!((2.0..=outcome.took.as_secs_f64()).contains(&took), "{took}");
    samples.assert(&of_pass("status"), 3.0);
    samples.assert(&of_pass("segments"), 3.0);
    samples.assert(&of_pass("bytes"), "goodfrom ba chat".len() as f64);
    samples.assert_none("backfiller_last_success");

    // The listings show that the stream continues past the segment that failed.
    let of_source = format!("{{stream=\"desertbus\",variant=\"source\",{hours}}}");
    assert_eq!(samples.of("backfiller_missing_seconds"), [(&*of_source, 3.25)]);
    assert_eq!(samples.of("backfiller_holes"), [(&*of_source, 2.0)]);

    for (remote, segments, given_up) in [("a", 2.0, 0.0), ("b", 1.0, 0.0), ("c", 0.0, 1.0)] {
        let of_node = |name: &str| format!("backfiller_node_{name}{{remote=\"{remote}\",{hours}}}");
        samples.assert(&of_node("segments"), segments);
        samples.assert(&of_node("given_up"), given_up);
        let (listing, fetch) = (of_node("listing_seconds"), of_node("fetch_seconds"));
        let (listing, fetch) = (samples.value(&listing), samples.value(&fetch));
        assert!(listing >= 2.0 * given_up && (fetch > 0.0) == (segments > 0.0), "{samples:#?}");
    }

    // Without faults the pass succeeds, and no hole is left.
    [&a, &b, &c].into_iter().for_each(Node::clear_faults);
    pass().assert_code(0);
    assert_promtool_is_content(&file);
    let samples = machine.samples();
    let start = samples.value(&of_pass("start_timestamp_seconds"));
    samples.assert(&of_pass("status"), 0.0);
    samples.assert(&of_pass("segments"), 2.0);
    samples.assert(&format!("backfiller_last_success_timestamp_seconds{{{hours}}}"), start);
    samples.assert(&format!("backfiller_missing_seconds{of_source}"), 0.0);
    samples.assert(&format!("backfiller_holes{of_source}"), 0.0);
    samples.assert(&format!("backfiller_node_given_up{{remote=\"c\",{hours}}}"), 0.0);
    samples.assert(&format!("segments_backfilled_total{{remote=\"b\",{source}}}"), 2.0);
    samples.assert(&format!("hash_mismatches_total{mismatches}"), 1.0);
    machine.assert_alone();
}

#[test]
fn quotes_and_backslashes_in_names_are_escaped() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    for name in ["\"", "\\", "a\\\"b", "{}", "é#"] {
        let list = machine.dir.path().join("nodes");
        fs::write(&list, format!("{name} {}\n", node.url())).unwrap();
        let nodes = format!("@{}", list.display());
        machine.backfill(&nodes, HOUR, &[]).run().assert_silent_success();
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        let listings = format!("{{remote=\"{escaped}\",stream=\"desertbus\",variant=\"source\"}}");
        machine.samples().assert(&format!("hours_backfilled_total{listings}"), 1.0);
        // The earlier totals are read back and increased.
        machine.backfill(&nodes, HOUR, &[]).run().assert_silent_success();
        machine.samples().assert(&format!("hours_backfilled_total{listings}"), 2.0);
    }
    assert_promtool_is_content(&machine.file());
}

// ---- Earlier passes ----------------------------------------------------------------------------

#[test]
fn totals_carry_over_and_gauges_are_replaced() {
    let (node, _) = node_with(3);
    let machine = Machine::new();
    let (a, b) = (format!("a={}", node.url()), format!("b={}", node.url()));
    let total = format!(
        "segments_backfilled_total{{remote=\"a\",stream=\"desertbus\",variant=\"source\",hour=\"{HOUR}\"}}"
    );
    let gauge = |name: &str, hours: &str| format!("backfiller_{name}{{hours=\"{hours}\"}}");
    machine.backfill(&a, HOUR, &[]).run().assert_silent_success();
    let first = machine.samples();
    first.assert(&total, 3.0);
    first.assert(&gauge("last_pass_segments", HOUR), 3.0);

    fill(&node, 5);
    machine.backfill(&a, "all", &[]).run().assert_silent_success();
    let second = machine.samples();
    second.assert(&total, 5.0);
    second.assert(&gauge("last_pass_segments", "all"), 2.0);
    let of_first = |key: &&String| key.contains(&format!("hours=\"{HOUR}\""));
    let gauges: Vec<&String> = first.0.keys().filter(of_first).collect();
    assert_eq!(gauges.len(), 12);
    for key in gauges {
        second.assert(key, first.value(key));
    }

    // The same hours from another node: only totals are left of the first node.
    machine.backfill(&b, HOUR, &[]).run().assert_silent_success();
    let third = machine.samples();
    third.assert(&total, 5.0);
    third.assert(&gauge("last_pass_segments", HOUR), 0.0);
    third.assert_none(&format!("{{remote=\"a\",hours=\"{HOUR}\"}}"));
    third.assert(&format!("backfiller_node_segments{{remote=\"b\",hours=\"{HOUR}\"}}"), 0.0);
    third.assert("backfiller_node_segments{remote=\"a\",hours=\"all\"}", 2.0);
    let start =
        |samples: &Samples| samples.value(&gauge("last_pass_start_timestamp_seconds", HOUR));
    assert!(start(&third) > start(&first));
    let success = gauge("last_success_timestamp_seconds", HOUR);
    third.assert(&success, start(&third));

    // A failed pass keeps the time of the last success, and what was missing then.
    machine.backfill("a=http://127.0.0.9:1", HOUR, &["--retries=0"]).run().assert_code(4);
    let fourth = machine.samples();
    fourth.assert(&success, start(&third));
    fourth.assert(&gauge("last_pass_status", HOUR), 4.0);
}

/// The hour this many days ago.
fn hour_of(now: DateTime<Utc>, days: i64) -> String {
    (now - TimeDelta::days(days)).format("%Y-%m-%dT%H").to_string()
}

#[test]
fn a_past_hour_that_is_not_selected_is_dropped() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let now = Utc::now();
    let series = |hour: &str| {
        format!(
            "segments_backfilled_total{{remote=\"a\",stream=\"desertbus\",variant=\"source\",hour=\"{hour}\"}}"
        )
    };
    let errors = "backfill_errors_total{remote=\"gone\"}";
    let [past, young] = [15, 13].map(|days| hour_of(now, days));
    let text = format!("{} 5\n{} 6\n{} 7\n", series(HOUR), series(&past), series(&young));
    let help = "# HELP segments_backfilled_total By hand.";
    fs::write(machine.file(), format!("{help}\n\n{text}{errors} 8\n")).unwrap();
    machine.backfill(&format!("a={}", node.url()), HOUR, &[]).run().assert_silent_success();
    let samples = machine.samples();
    samples.assert(&series(HOUR), 6.0);
    samples.assert(&series(&young), 7.0);
    samples.assert(errors, 8.0);
    samples.assert_none(&past);
}

#[test]
fn an_hour_is_kept_while_a_recent_pass_selects_it() {
    let (node, _) = node_with(2);
    let machine = Machine::new();
    let nodes = format!("a={}", node.url());
    machine.backfill(&nodes, "all", &[]).run().assert_silent_success();
    let total = format!(
        "segments_backfilled_total{{remote=\"a\",stream=\"desertbus\",variant=\"source\",hour=\"{HOUR}\"}}"
    );
    // The short pass of a schedule keeps the totals of the long one that is still running.
    machine.backfill(&nodes, "last:3", &[]).run().assert_silent_success();
    machine.samples().assert(&total, 2.0);
    let start = "backfiller_last_pass_start_timestamp_seconds";
    let (text, long_ago) = (fs::read_to_string(machine.file()).unwrap(), "{hours=\"all\"} 1.5e9");
    let is_of_all = |line: &str| line.starts_with(&format!("{start}{{hours=\"all\",file="));
    let lines = text.lines().map(|line| {
        if is_of_all(line) { format!("{start}{long_ago}\n") } else { format!("{line}\n") }
    });
    fs::write(machine.file(), lines.collect::<String>()).unwrap();
    machine.backfill(&nodes, "last:3", &[]).run().assert_silent_success();
    machine.samples().assert_none(HOUR);
}

#[test]
fn gauges_are_dropped_two_weeks_after_their_last_pass() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let gauges = |hours: &str, days: i64| {
        let start = (Utc::now() - TimeDelta::days(days)).timestamp();
        format!(
            "backfiller_last_pass_start_timestamp_seconds{{hours=\"{hours}\"}} {start}\n\
             backfiller_node_given_up{{remote=\"x\",hours=\"{hours}\"}} 1\n"
        )
    };
    let without = "backfiller_last_pass_status 3\n";
    let help = "# HELP backfiller_node_given_up By hand.\n".to_owned();
    let text = help + &gauges("last:3", 13) + &gauges("2018-11-01", 15) + without;
    fs::write(machine.file(), text).unwrap();
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    let samples = machine.samples();
    samples.assert("backfiller_node_given_up{remote=\"x\",hours=\"last:3\"}", 1.0);
    samples.assert_none("2018-11-01");
    assert_eq!(samples.of("backfiller_last_pass_status").len(), 1);
}

// ---- When it is written -----------------------------------------------------------------------

#[test]
fn metrics_of_a_failed_pass_are_written() {
    // Three listed files that are gone count as a failure.
    let (node, _) = node_with(3);
    let url = node.url();
    let status = format!("backfiller_last_pass_status{{hours=\"{HOUR}\"}}");
    for (code, nodes, fault) in [
        (3, &*url, Some(Fault::Status(404))),
        (3, &format!("{url},http://127.0.0.9:1"), None),
        (4, "http://127.0.0.8:1,http://127.0.0.9:1", None),
        (1, &url, None),
    ] {
        let machine = Machine::new();
        if code == 1 {
            machine.archive.write(&format!("desertbus/source/{HOUR}"), b"in the way");
        }
        node.clear_faults();
        fault.into_iter().for_each(|fault| node.fault(On::Segment, fault));
        machine.backfill(nodes, HOUR, &["--retries=0"]).run().assert_code(code);
        machine.samples().assert(&status, code.into());
        machine.samples().assert_none("last_success");
        assert_promtool_is_content(&machine.file());
        machine.assert_alone();
    }
}

#[test]
fn metrics_are_written_if_the_archive_can_t_be_opened() {
    let machine = Machine::new();
    let unreachable = machine.archive.path().join("a link to itself");
    symlink(&unreachable, &unreachable).unwrap();
    let run = machine.backfill("http://127.0.0.9:1", HOUR, &[]);
    let outcome = run.env("BACKFILLER_BASE_DIR", &unreachable).run();
    outcome.assert_code(1).assert_says("error: opening the archive ");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    let status = format!("backfiller_last_pass_status{{hours=\"{HOUR}\"}}");
    machine.samples().assert(&status, 1.0);
    machine.assert_alone();
}

#[test]
fn metrics_of_an_interrupted_pass_are_written() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let (node, _) = node_with(3);
        let machine = Machine::new();
        node.fault(On::Segment, Fault::HangInBody(10));
        let running = machine.backfill(&node.url(), HOUR, &[]).start();
        let at_work = |request: &Request| request.resource.starts_with("/segments/");
        assert!(node.wait_for_request(at_work, Duration::from_secs(20)));
        running.signal(signal);
        running.outcome().assert_code(code);
        let samples = machine.samples();
        samples.assert(&format!("backfiller_last_pass_status{{hours=\"{HOUR}\"}}"), code.into());
        samples.assert(&format!("backfiller_last_pass_segments{{hours=\"{HOUR}\"}}"), 0.0);
        // A stopped pass is not the node's failure, and doesn't know what is missing.
        for name in ["backfill_errors", "backfiller_missing", "last_success"] {
            samples.assert_none(name);
        }
        machine.assert_alone();
    }
}

#[test]
fn a_pass_that_finds_the_lock_taken_is_only_counted() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    machine.backfill(&node.url(), HOUR, &["--lock"]).run().assert_silent_success();
    let before = machine.samples();
    node.fault(On::Any, Fault::Hang);
    let args = [&*node.url(), "another", "source", "--lock", "--timeout=20s"];
    let first = machine.archive.backfill(args).start();
    let asked = |request: &Request| request.path.contains("another");
    assert!(node.wait_for_request(asked, Duration::from_secs(20)));
    for n in [1.0, 2.0] {
        machine.backfill(&node.url(), HOUR, &["--lock"]).run().assert_code(75);
        let mut samples = machine.samples();
        let counter = format!("backfiller_locked_out_total{{hours=\"{HOUR}\"}}");
        assert_eq!(samples.0.remove(&counter), Some(n));
        assert_eq!(samples, before);
    }
    first.kill();
    assert_promtool_is_content(&machine.file());
}

#[test]
fn a_usage_error_writes_no_metrics() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    for (hour, option) in [("last", "-q"), (HOUR, "--nonsense"), (HOUR, "--jobs=0")] {
        machine.backfill(&node.url(), hour, &[option]).run().assert_code(2);
        assert!(!machine.file().exists());
    }
}

// ---- Other files in its place ------------------------------------------------------------------

#[test]
fn a_foreign_file_is_refused_and_unchanged() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let path = |name: &str| machine.dir.path().join(name);
    let run = |file: &Path| {
        let mut run = machine.archive.backfill([&*node.url(), "desertbus", "source", HOUR]);
        run.command.arg("--metrics-file").arg(file);
        let outcome = run.run();
        outcome.assert_code(2).assert_says(&format!("--metrics-file {}: ", file.display()));
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    };
    let texts: [&[u8]; 8] = [
        b"# /etc/hosts.allow: comments only\n",
        b"# HELP up Whether it is up.\n# TYPE up gauge\n",
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"backfiller_holes 1\nup 1\n",
        b"backfiller_holes{hours=\"all\"} many\n",
        b"\xff\xfe",
        b"\0",
        b"a line that is not ended",
    ];
    for content in texts {
        fs::write(path("other"), content).unwrap();
        let before = fs::metadata(path("other")).unwrap().modified().unwrap();
        run(&path("other"));
        assert_eq!(fs::read(path("other")).unwrap(), content);
        assert_eq!(fs::metadata(path("other")).unwrap().modified().unwrap(), before);
    }
    run(Path::new("/dev/null"));
    run(machine.dir.path());
    run(&path("missing/backfiller.prom"));
    run(&path("other/backfiller.prom"));
    symlink(path("loop"), path("loop")).unwrap();
    run(&path("loop"));
    symlink("missing/backfiller.prom", path("link")).unwrap();
    run(&path("link"));
    assert!(!path("missing").exists());
    assert!(path("loop").is_symlink() && path("link").is_symlink());
    assert_eq!(fs::read_dir(machine.dir.path()).unwrap().count(), 3);
    assert_eq!(node.requests().len(), 0, "nothing was contacted");
}

#[test]
fn a_file_replaced_during_the_pass_is_unchanged() {
    let (node, _) = node_with(1);
    node.fault(On::Any, Fault::Hang);
    let machine = Machine::new();
    let running = machine.backfill(&node.url(), HOUR, &["--timeout=20s"]).start();
    assert!(node.wait_for_request(|_| true, Duration::from_secs(20)));
    fs::write(machine.file(), "root:x:0:0\n").unwrap();
    node.clear_faults();
    node.release();
    let outcome = running.outcome();
    outcome.assert_code(1).assert_says("error: writing the metrics file ");
    assert_eq!(fs::read(machine.file()).unwrap(), b"root:x:0:0\n");
    machine.assert_alone();
    machine.archive.assert_whole();
}

#[test]
fn a_link_to_the_file_stays_a_link() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("target");
    symlink(&target, machine.file()).unwrap();
    // At first, the link is dangling.
    for segments in [1.0, 0.0] {
        machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
        assert_eq!(fs::read_link(machine.file()).unwrap(), target);
        assert!(target.symlink_metadata().unwrap().is_file());
        let key = format!("backfiller_last_pass_segments{{hours=\"{HOUR}\"}}");
        machine.samples().assert(&key, segments);
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    machine.assert_alone();
}

// ---- Several at once --------------------------------------------------------------------------

#[test]
fn concurrent_passes_add_up_in_a_file_that_is_always_whole() {
    const PASSES: usize = 8;
    const SEGMENTS: usize = 20;
    const ROUNDS: usize = 3;
    let (node, _) = node_with(SEGMENTS);
    let machine = Machine::new();
    let nodes = format!("a={}", node.url());
    machine.backfill(&nodes, HOUR, &[]).run().assert_silent_success();
    let file = machine.file();
    let over = AtomicBool::new(false);
    let reads = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut last) = (0, 0.0);
            while !over.load(Ordering::Relaxed) {
                let samples = Samples::parse(&fs::read_to_string(&file).unwrap()).unwrap();
                let total: f64 = samples.of("segments_backfilled_total").iter().map(|s| s.1).sum();
                assert!(total >= last, "{total} after {last}");
                (reads, last) = (reads + 1, total);
            }
            reads
        });
        for _ in 0..ROUNDS {
            let archives: Vec<Archive> = (0..PASSES).map(|_| Archive::new()).collect();
            let running = archives.iter().enumerate().map(|(n, archive)| {
                // Some passes share their hours, others don't.
                let hour = [HOUR, "all", "2018-11-10"][n % 3];
                let mut run = archive.backfill([&*nodes, "desertbus", "source", hour, "-j2"]);
                run.command.arg("--metrics-file").arg(&file);
                run.start()
            });
            let running: Vec<_> = running.collect();
            for run in running {
                run.outcome().assert_silent_success();
            }
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads > ROUNDS * PASSES, "{reads} reads");
    let samples = machine.samples();
    let totals = samples.of("segments_backfilled_total");
    assert_eq!(
        totals.iter().map(|s| s.1).collect::<Vec<_>>(),
        [(SEGMENTS * (1 + ROUNDS * PASSES)) as f64]
    );
    let listings = samples.of("hours_backfilled_total");
    assert_eq!(listings.iter().map(|s| s.1).collect::<Vec<_>>(), [(1 + ROUNDS * PASSES) as f64]);
    assert_eq!(samples.of("backfiller_last_pass_status").len(), 3);
    machine.assert_alone();
}

#[test]
fn a_killed_pass_leaves_the_file_unchanged() {
    let (node, _) = node_with(3);
    let machine = Machine::new();
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    let before = fs::read(machine.file()).unwrap();
    fill(&node, 5);
    node.fault(On::Segment, Fault::Hang);
    let running = machine.backfill(&node.url(), HOUR, &[]).start();
    let at_work = |request: &Request| request.resource.contains("/00:08.0-2.0-full");
    assert!(node.wait_for_request(at_work, Duration::from_secs(20)));
    assert!(running.kill());
    assert_eq!(fs::read(machine.file()).unwrap(), before);
    machine.assert_alone();
}

// ---- Locks, modes and readers ------------------------------------------------------------------

#[test]
fn the_file_keeps_its_mode_and_a_new_one_is_readable() {
    use std::os::unix::fs::PermissionsExt;
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let mode = || fs::metadata(machine.file()).unwrap().permissions().mode() & 0o7777;
    let pass = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_backfiller")]);
        shell.args(["--base-dir".as_ref(), machine.archive.path().as_os_str()]);
        shell.args([&*node.url(), "desertbus", "source", HOUR, "--metrics-file"]);
        assert!(shell.arg(machine.file()).status().unwrap().success());
    };
    pass();
    assert_eq!(mode(), 0o644);
    for kept in [0o640, 0o600, 0o664] {
        fs::set_permissions(machine.file(), fs::Permissions::from_mode(kept)).unwrap();
        pass();
        assert_eq!(mode(), kept);
    }
    machine.assert_alone();
}

/// Waits until a process waits for the lock on this file or directory.
fn wait_for_waiter(path: &Path) {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    let waits = |line: &str| line.contains(" -> FLOCK ") && line.contains(&inode);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
        assert!(
            std::time::Instant::now() < deadline,
            "no process waits for the lock on {}",
            path.display()
        );
        thread::yield_now();
    }
}

#[test]
fn a_held_lock_delays_a_pass_only_briefly() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    let before = fs::read(machine.file()).unwrap();
    let held = File::open(machine.file()).unwrap();
    held.lock_shared().unwrap();
    let running = machine.backfill(&node.url(), HOUR, &["--json"]).start();
    wait_for_waiter(&machine.file());
    running.signal("TERM");
    let outcome = running.outcome();
    outcome.assert_code(143).assert_says("warning: writing the metrics file ");
    outcome.assert_says("another process has kept it locked for ");
    outcome.assert_says_not("locked for 3");
    assert!(outcome.stdout.contains("\"event\":\"summary\",\"status\":143,"), "{outcome:?}");
    let outcome = machine.backfill(&node.url(), HOUR, &["--json"]).run();
    outcome.assert_code(0).assert_says("another process has kept it locked for 3.");
    assert!(outcome.stdout.contains("\"event\":\"summary\",\"status\":0,"), "{outcome:?}");
    assert_eq!(fs::read(machine.file()).unwrap(), before);
    drop(held);
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    machine.assert_alone();
}

#[test]
fn the_file_may_be_in_a_locked_archive() {
    let (node, _) = node_with(1);
    let archive = Archive::new();
    let file = archive.path().join("backfiller.prom");
    for _ in 0..2 {
        let mut run = archive.backfill([&*node.url(), "desertbus", "source", HOUR, "--lock"]);
        run.command.arg("--metrics-file").arg(&file);
        run.run().assert_silent_success();
        assert!(Samples::parse(&fs::read_to_string(&file).unwrap()).is_ok());
    }
}

#[test]
fn passes_that_create_the_file_together_add_up() {
    const PASSES: usize = 6;
    let (node, _) = node_with(1);
    let nodes = format!("a={}", node.url());
    for _ in 0..3 {
        let machine = Machine::new();
        let archives: Vec<Archive> = (0..PASSES).map(|_| Archive::new()).collect();
        let start = |archive: &Archive| {
            let mut run = archive.backfill([&*nodes, "desertbus", "source", HOUR]);
            run.command.arg("--metrics-file").arg(machine.file());
            run.start()
        };
        let running: Vec<_> = archives.iter().map(start).collect();
        for run in running {
            run.outcome().assert_silent_success();
        }
        let samples = machine.samples();
        let totals = samples.of("segments_backfilled_total");
        assert_eq!(totals.iter().map(|s| s.1).collect::<Vec<_>>(), [PASSES as f64]);
        machine.assert_alone();
    }
}

#[test]
fn a_link_of_another_user_is_not_followed() {
    if !support::is_root() {
        return;
    }
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let elsewhere = tempfile::tempdir().unwrap();
    for (target, owner) in [("missing", 65534), ("config", 65534), ("mine.prom", 0)] {
        let target = elsewhere.path().join(target);
        if target.ends_with("config") {
            fs::write(&target, "").unwrap();
        }
        symlink(&target, machine.file()).unwrap();
        std::os::unix::fs::lchown(machine.file(), Some(owner), Some(owner)).unwrap();
        let outcome = machine.backfill(&node.url(), HOUR, &[]).run();
        if owner == 0 {
            outcome.assert_silent_success();
            assert!(fs::read_to_string(&target).unwrap().contains("# HELP"));
        } else {
            outcome.assert_code(2).assert_says("it is a symbolic link owned by another user");
            assert!(!target.exists() || fs::read(&target).unwrap().is_empty());
        }
        fs::remove_file(machine.file()).unwrap();
    }
}

#[test]
fn an_unwritable_directory_is_found_before_the_pass() {
    if !support::is_root() {
        return;
    }
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let mount = support::Mount::tmpfs(machine.dir.path(), "size=1m");
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    let requests = node.requests().len();
    mount.remount("ro");
    let outcome = machine.backfill(&node.url(), HOUR, &[]).run();
    outcome.assert_code(2).assert_says("read-only file system");
    assert_eq!(node.requests().len(), requests, "nothing was contacted");
}

#[test]
fn a_file_that_is_a_mount_point_is_found_before_the_pass() {
    if !support::is_root() {
        return;
    }
    let (node, _) = node_with(1);
    let archive = Archive::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut mount = Command::new("mount");
    assert!(mount.arg("--bind").args([file.path(), file.path()]).status().unwrap().success());
    let _mount = support::Mount::at(file.path());
    for option in ["--metrics-file", "--report"] {
        let args = [&*node.url(), "all", "all", option, file.path().to_str().unwrap()];
        let outcome = archive.backfill(args).run();
        outcome.assert_code(2).assert_says(option).assert_says("it is a mount point");
    }
    assert!(node.requests().is_empty());
}

#[test]
fn a_full_disk_leaves_the_old_file_or_none() {
    if !support::is_root() {
        return;
    }
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let _mount = support::Mount::tmpfs(machine.dir.path(), "size=64k");
    let filler = machine.dir.path().join("filler");
    fs::write(&filler, vec![0; 60 << 10]).unwrap();
    let _ = fs::write(machine.dir.path().join("rest"), vec![0; 60 << 10]);
    let outcome = machine.backfill(&node.url(), HOUR, &[]).run();
    outcome.assert_code(1).assert_says("no space left on device");
    assert!(!machine.file().exists());
    fs::remove_file(&filler).unwrap();
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    let before = fs::read(machine.file()).unwrap();
    let _ = fs::write(&filler, vec![0; 60 << 10]);
    machine.backfill(&node.url(), HOUR, &[]).run().assert_code(1);
    assert_eq!(fs::read(machine.file()).unwrap(), before);
    assert_eq!(fs::read_dir(machine.dir.path()).unwrap().count(), 3);
}

#[test]
fn files_left_by_a_dead_pass_are_removed() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let left = ".backfiller.prom.0d0f4a2e-7f5b-4a3e-9d5e-0123456789ab.temp";
    let hour = Duration::from_secs(3600);
    let young = ".backfiller.prom.1d0f4a2e-7f5b-4a3e-9d5e-0123456789ab.temp";
    for (name, age) in [(left, hour * 2), (young, hour / 2), (".backfiller.prom.x.temp", hour * 2)]
    {
        let file = File::create(machine.dir.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
    }
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    assert!(!machine.dir.path().join(left).exists());
    assert_eq!(fs::read_dir(machine.dir.path()).unwrap().count(), 3);
}

#[test]
fn a_label_is_added_to_the_file_of_an_earlier_release() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let sample = "backfill_errors_total{remote=\"gone\"";
    let text = format!("# HELP backfill_errors_total Errors.\n{sample}}} 8\n");
    fs::write(machine.file(), text).unwrap();
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    let text = fs::read_to_string(machine.file()).unwrap();
    assert!(text.contains(&format!("\n{sample},file=\"backfiller.prom\"}} 8\n")), "{text}");
}

// ---- Correctness -------------------------------------------------------------------------------

#[test]
fn the_status_in_metrics_is_the_exit_status() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let status = format!("backfiller_last_pass_status{{hours=\"{HOUR}\"}}");
    let success = format!("backfiller_last_success_timestamp_seconds{{hours=\"{HOUR}\"}}");
    machine.backfill(&node.url(), HOUR, &[]).run().assert_silent_success();
    let first = machine.samples();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let closed = || std::io::pipe().unwrap().1;
    for (option, stdout, code) in [
        ("--json", Stdio::from(full()), 1),
        ("--coverage", Stdio::from(full()), 1),
        ("--json", Stdio::from(closed()), 141),
    ] {
        let mut run = machine.backfill(&node.url(), HOUR, &[option]);
        let exit = run.command.stdout(stdout).stderr(Stdio::null()).status().unwrap();
        assert_eq!(exit.code(), Some(code));
        machine.samples().assert(&status, code.into());
        // The earlier success remains the last one.
        machine.samples().assert(&success, first.value(&success));
    }
    let errors = "backfiller_log_messages_total{level=\"error\"}";
    machine.samples().assert(errors, 2.0);
    // It was written twice but counted once.
    let listings =
        "hours_backfilled_total{remote=\"127.0.0.1\",stream=\"desertbus\",variant=\"source\"}";
    machine.samples().assert(listings, 4.0);
    let new = tempfile::tempdir().unwrap();
    let mut run = machine.archive.backfill([&*node.url(), "desertbus", "source", HOUR, "--json"]);
    run.command.arg("--metrics-file").arg(new.path().join("backfiller.prom"));
    run.command.stdout(full()).stderr(Stdio::null()).status().unwrap();
    let text = fs::read_to_string(new.path().join("backfiller.prom")).unwrap();
    Samples::parse(&text).unwrap().assert_none("last_success");
}

#[test]
fn messages_are_counted_by_level() {
    let (node, _) = node_with(1);
    node.list_also("desertbus", "source", HOUR, "a/junk");
    let machine = Machine::new();
    let level = |level: &str| format!("backfiller_log_messages_total{{level=\"{level}\"}}");
    for n in [1.0, 2.0] {
        machine.backfill(&node.url(), HOUR, &[]).run().assert_code(0);
        machine.samples().assert(&level("warning"), n);
        for other in ["error", "info", "debug"] {
            machine.samples().assert(&level(other), 0.0);
        }
    }
    machine.backfill(&node.url(), HOUR, &["-v"]).run().assert_code(0);
    assert!(machine.samples().value(&level("info")) >= 2.0);
    machine.backfill("http://127.0.0.9:1", HOUR, &["--retries=0"]).run().assert_code(4);
    machine.samples().assert(&level("error"), 1.0);
}

#[test]
fn a_segment_that_is_too_large_is_not_wrong_content() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let outcome = machine.backfill(&node.url(), HOUR, &["--max-segment-size=100"]).run();
    outcome.assert_code(3).assert_says("larger than the 100 bytes of --max-segment-size");
    machine.samples().assert("backfill_errors_total{remote=\"127.0.0.1\"}", 1.0);
    machine.samples().assert_none("hash_mismatches_total");
}

// ---- The real collector ------------------------------------------------------------------------

/// A running node_exporter with only the textfile collector.
struct Exporter {
    child: std::process::Child,
    address: String,
}

impl Exporter {
    fn start(dir: &Path) -> Exporter {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new("prometheus-node-exporter");
        command.args(["--collector.disable-defaults", "--collector.textfile"]);
        command.arg(format!("--collector.textfile.directory={}", dir.display()));
        command.arg(format!("--web.listen-address={address}"));
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut exporter = Exporter { child, address };
        // It logs when it listens.
        let log = BufReader::new(exporter.child.stderr.take().unwrap()).lines();
        let mut lines = log.map(Result::unwrap);
        assert!(lines.any(|line| line.contains(&exporter.address)), "it ended");
        // The rest of its log is read, so that it never blocks.
        thread::spawn(move || lines.for_each(drop));
        exporter
    }

    fn scrape(&self) -> String {
        let mut stream = loop {
            if let Ok(stream) = TcpStream::connect(&self.address) {
                break stream;
            }
            thread::yield_now();
        };
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        answer
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_files_in_one_directory_are_both_collected() {
    if !has_tool("prometheus-node-exporter") {
        return;
    }
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let odd = "an \"odd\" \\ name.prom";
    let pass = |name: &str, nodes: &str, code: i32| {
        let mut run = machine.archive.backfill([nodes, "desertbus", "source", "--retries=0"]);
        run.command.arg("--metrics-file").arg(machine.dir.path().join(name));
        run.run().assert_code(code);
        assert_promtool_is_content(&machine.dir.path().join(name));
    };
    for (name, nodes, code) in [
        ("good.prom", &*node.url(), 0),
        ("bad.prom", "http://127.0.0.9:1", 4),
        (odd, &*node.url(), 0),
    ] {
        pass(name, nodes, code);
    }
    let exporter = Exporter::start(machine.dir.path());
    let scraped = exporter.scrape();
    assert!(scraped.contains("\nnode_textfile_scrape_error 0\n"), "{scraped}");
    for (file, status) in [("good.prom", 0), ("bad.prom", 4), ("an \\\"odd\\\" \\\\ name.prom", 0)]
    {
        let sample =
            format!("\nbackfiller_last_pass_status{{file=\"{file}\",hours=\"all\"}} {status}\n");
        assert!(scraped.contains(&sample), "{sample} {scraped}");
    }
    // A copy under another name stays unchanged until the next pass.
    fs::copy(machine.dir.path().join("good.prom"), machine.dir.path().join("new.prom")).unwrap();
    pass("new.prom", &node.url(), 0);
    let scraped = exporter.scrape();
    assert!(scraped.contains("\nnode_textfile_scrape_error 0\n"), "{scraped}");
    assert!(scraped.contains("backfiller_last_pass_status{file=\"new.prom\""), "{scraped}");
}
