//! The HTML report: what it shows of a pass, that foreign text is never markup and passwords are
//! never shown, when it is written, and that a browser displays it.

mod node;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use node::raw::Raw;
use node::{Fault, Node, Request, segment_name};
use roxmltree::{Document, ParsingOptions};
use support::{Archive, HOUR, Run, has_tool, node_with};

/// An archive, and a directory for its report.
struct Machine {
    archive: Archive,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        Machine { archive: Archive::new(), dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("report.html")
    }

    /// A pass over `desertbus/source` with a report.
    fn backfill(&self, nodes: &str, options: &[&str]) -> Run {
        let mut run = self.archive.backfill([nodes, "desertbus", "source", "--retries=0"]);
        run.command.args(options).arg("--report").arg(self.file());
        run
    }

    fn page(&self) -> Page {
        Page::new(fs::read_to_string(self.file()).unwrap())
    }

    /// Puts a minute of `desertbus/source/HOUR` into the archive.
    fn put_minutes(&self, minutes: impl IntoIterator<Item = u32>, kind: &str) {
        for minute in minutes {
            self.archive.put(&format!("{minute:02}:00.0-60.0-{kind}"), b"a minute");
        }
    }
}

/// A well-formed page.
struct Page(String);

impl Page {
    /// Parses a page, which must be well-formed to the last tag, so that foreign text can't break
    /// out.
    #[track_caller]
    fn new(text: String) -> Page {
        let page = Page(text);
        page.document();
        page
    }

    #[track_caller]
    fn document(&self) -> Document<'_> {
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        Document::parse_with_options(&self.0, options).expect("well-formed XML")
    }

    /// The text of the elements with this name, or of the section with this id.
    fn texts(&self, of: &str) -> Vec<String> {
        let document = self.document();
        let elements = document.descendants().filter(|node| {
            node.has_tag_name(of) || node.is_element() && node.attribute("id") == Some(of)
        });
        let text = |element: roxmltree::Node| {
            let texts = element.descendants().filter(|node| node.is_text());
            texts.map(|node| node.text().unwrap()).collect::<String>()
        };
        elements.map(text).collect()
    }

    /// The rows of the tables in the section with this id, as cells.
    fn rows(&self, id: &str) -> Vec<Vec<String>> {
        let document = self.document();
        let section = document.descendants().find(|node| node.attribute("id") == Some(id)).unwrap();
        let rows = section.descendants().filter(|node| node.has_tag_name("tr"));
        let cells = |row: roxmltree::Node| {
            let cells = row.children().filter(|node| node.is_element());
            let text = |cell: roxmltree::Node| {
                cell.descendants()
                    .filter_map(|node| node.text().filter(|_| node.is_text()))
                    .collect()
            };
            cells.map(text).collect()
        };
        rows.map(cells).collect()
    }

    #[track_caller]
    fn assert_row(&self, id: &str, row: &[&str]) {
        let rows = self.rows(id);
        assert!(rows.iter().any(|found| found == row), "{row:?} is not in {rows:#?}");
    }

    #[track_caller]
    fn assert_says(&self, of: &str, text: &str) -> &Page {
        let texts = self.texts(of);
        assert!(texts.iter().any(|found| found.contains(text)), "{text:?} is not in {texts:#?}");
        self
    }
}

// ---- Content -----------------------------------------------------------------------------------

/// An archive with little missing, and two nodes: one provides some of it and fails for the rest,
/// the other is dead.
fn eventful() -> (Machine, Node, String) {
    let machine = Machine::new();
    machine.put_minutes((3..20).chain(25..35).chain(38..46).chain(48..55), "full");
    machine.put_minutes([55], "suspect");
    for minute in [46, 47] {
        let name =
            segment_name(&format!("{minute}:00.0-60.0-full"), b"").replace(".ts", ".tombstone");
        machine.archive.write(&format!("desertbus/source/{HOUR}/{name}"), b"");
    }
    let node = Node::start();
    for minute in 20..25 {
        let content = format!("minute {minute}");
        node.add(
            "desertbus",
            "source",
            HOUR,
            &format!("{minute}:00.0-60.0-full"),
            content.as_bytes(),
        );
    }
    let failing = node.add("desertbus", "source", HOUR, "56:00.0-60.0-full", b"failing");
    node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{failing}"), Fault::Status(500));
    let nodes = format!("a={},dead=http://127.0.0.1:9", node.url());
    (machine, node, nodes)
}

#[test]
fn a_page_shows_how_a_pass_went_and_what_is_here() {
    let (machine, _node, nodes) = eventful();
    let outcome = machine.backfill(&nodes, &[HOUR]).run();
    outcome.assert_code(3);
    assert_eq!(outcome.stdout, "", "neither map nor table is printed");
    assert_eq!(fs::metadata(machine.file()).unwrap().permissions().mode() & 0o777, 0o644);
    let page = machine.page();
    page.assert_says("h1", "Incomplete")
        .assert_says("header", "fetched 5 segments (45 B) from 1 node");
    page.assert_says("pass", "Exit status3").assert_says("pass", "backfiller a=http");
    let titles = page.texts("title");
    for (title, class) in [
        ("05:00 to 05:02 not judged", "o"),
        ("05:03 to 05:19 here", "h"),
        ("05:20 to 05:24 fetched now", "f"),
        ("05:35 to 05:37 missing", "m"),
        ("05:46 to 05:47 deleted on purpose", "x"),
        ("05:55 only suspect or partial", "l"),
    ] {
        assert!(titles.iter().any(|found| found == title), "{title} is not in {titles:?}");
        assert!(page.0.contains(&format!("<path class=\"{class}\" d=")), "{class}");
    }
    // The same without a pointing device, and for everything in words.
    page.assert_says(
        "p",
        "missing 35–37, 56; deleted on purpose 46–47; only suspect or partial 55; ",
    );
    page.assert_row(
        "coverage",
        &["2018-11-10T05:35:00.000", "2018-11-10T05:38:00.000", "3 min 00.000 s"],
    );
    assert!(
        page.0.contains("href=\"#m0-2018-11-10T05\"") && page.0.contains("id=\"m0-2018-11-10T05\"")
    );
    page.assert_row("who", &["here, before the pass", "43", "6", ""]);
    page.assert_row("who", &["a", "6", "43", ""]);
    page.assert_row("who", &["dead", "?", "?", "not known: a listing failed"]);
    page.assert_row("who", &[HOUR, "49", "43 −6", "6 −43", "?"]);
    let failed = "HTTP 500 Internal Server Error";
    page.assert_row("failures", &["file not fetched", "a", failed, "1"]);
    page.assert_row("failures", &["request failed", "a", failed, "1"]);
    let refused = "connection refused (at http://127.0.0.1:9)";
    page.assert_row("failures", &["node", "dead", &format!("given up: {refused}"), "1"]);
    assert_eq!(page.rows("nodes")[1][..5], ["a", "! failed at times", "5", "45 B", "1"]);
    assert_eq!(page.rows("nodes")[2][..3], ["dead", "✕ given up", "0"]);
    // On a busy machine the bytes may come in any second, or in several.
    let fetched = page.rows("bytes").into_iter().skip(1).map(|row| row[1].clone());
    let fetched = fetched.map(|bytes| bytes.strip_suffix(" B").unwrap().parse::<u64>().unwrap());
    assert_eq!(fetched.sum::<u64>(), 45);
    page.assert_says("bytes", " B/s");
    // The page loads nothing and runs no scripts.
    for never in ["<script", "src=", "@import", "http-equiv=\"refresh\""] {
        assert!(!page.0.contains(never), "{never}");
    }
    assert!(page.0.contains("default-src 'none'"));
}

#[test]
fn a_page_of_a_dry_run_shows_what_would_remain() {
    let (machine, _node, nodes) = eventful();
    let before = machine.archive.files();
    let outcome = machine.backfill(&nodes, &[HOUR, "-n"]).run();
    assert_eq!(outcome.stdout.lines().count(), 6, "the paths are printed as ever: {outcome:?}");
    assert_eq!(machine.archive.files(), before);
    let page = machine.page();
    page.assert_says("header", "dry run").assert_says("header", "what the pass would leave");
    page.assert_says("title", "05:20 to 05:24 would be fetched");
    page.assert_says("bytes", "Nothing is fetched in a dry run.");
    page.assert_row("who", &["here, before the pass", "43", "6", ""]);
    assert!(!page.0.contains("fetched now"));
}

#[test]
fn a_page_names_what_it_does_not_show() {
    let (node, names) = node_with(2);
    node.add_chat("desertbus", HOUR, "00:00", b"a chat");
    let machine = Machine::new();
    let list = format!("desertbus/source/{HOUR}/{}\n", names[0]);
    let mut run = Run::new(["--files-from", "-", &node.url(), "--report"]).stdin(&list);
    run.command.arg(machine.file()).env("BACKFILLER_BASE_DIR", machine.archive.path());
    run.run().assert_silent_success();
    machine.page().assert_says("who", "only certain files were asked for");
    let mut run = machine.archive.backfill([&*node.url(), "desertbus", "chat", "--report"]);
    run.command.arg(machine.file());
    run.run().assert_silent_success();
    machine.page().assert_says("h1", "Complete").assert_says("coverage", "chat has no durations");
    machine.backfill("none", &[]).run().assert_silent_success();
    let page = machine.page();
    page.assert_says("nodes", "No node was asked.").assert_says("failures", "Nothing.");
    page.assert_says("coverage", "05:00 here").assert_says("bytes", "Nothing was fetched.");
    // In an empty archive, and without a node, `all` is no stream.
    let machine = Machine::new();
    let mut run = machine.archive.backfill(["none", "all", "all", "--report"]);
    run.command.arg(machine.file());
    run.run().assert_silent_success();
    let page = machine.page();
    page.assert_says("coverage", "has no streams").assert_says("who", "has no streams");
}

// ---- Foreign text and secrets ------------------------------------------------------------------

#[test]
fn a_page_escapes_foreign_text_and_shows_no_password() {
    let bad = Raw::start(|_| {
        Some(b"HTTP/1.1 500 <script>alert(1)</script>&\"'\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let (node, _) = node_with(1);
    let secretive = |url: &str| url.replacen("http://", "http://me:s3cret@", 1);
    let stream = "<img src=x onerror=alert(2)>&\"'";
    let nodes = format!(
        "</td><script>=:{},b&\"'={},dead={}",
        secretive(&bad.url()),
        secretive(&node.url()),
        secretive("http://127.0.0.1:9/p@th")
    );
    let nodes = nodes.replacen("=:", "=", 1);
    // A name can't contain a slash.
    let nodes = nodes.replacen("</td>", "<td>", 1);
    let machine = Machine::new();
    let name = segment_name("00:00.0-60.0-full", b"x");
    let path = format!("{stream}/source/{HOUR}/{name}");
    machine.archive.write(&path, b"x");
    let run = machine.archive.backfill([&*nodes, stream, "source", "--retries=0", "--report"]);
    let mut run = run.env("https_proxy", "http://you:pr0xy@127.0.0.1:9");
    run.command.arg(machine.file());
    run.run().assert_code(3);
    let page = machine.page();
    page.assert_says("failures", "HTTP 500").assert_says("nodes", "<td><script>");
    page.assert_says("h3", stream).assert_says("pass", "http://***@127.0.0.1");
    for never in ["<script", "<img", "s3cret", "pr0xy", "//me", "bWU6czNjcmV0"] {
        assert!(!page.0.contains(never), "{never}");
    }

    // Through a proxy that requires a different password.
    let proxy = Raw::start(|_| {
        Some(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    let proxy = proxy.url().replacen("http://", "http://you:pr0xy@", 1);
    let run = machine.backfill("http://me:s3cret@far.example", &["--timeout=5s"]);
    run.env("http_proxy", proxy).run().assert_code(4);
    let page = machine.page();
    page.assert_says("h1", "No node answered").assert_says("failures", "the proxy 127.0.0.1:");
    for never in ["s3cret", "pr0xy", "//you", "//me"] {
        assert!(!page.0.contains(never), "{never}");
    }
}

// ---- When it is written -----------------------------------------------------------------------

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

/// A node with three segments that falls silent after sending one.
fn stuck() -> Node {
    let (node, names) = node_with(3);
    for name in &names[1..] {
        node.fault_path(&format!("/segments/desertbus/source/{HOUR}/{name}"), Fault::Hang);
    }
    node
}

#[test]
fn the_page_of_a_running_pass_is_always_whole() {
    let node = stuck();
    let machine = Machine::new();
    let options = ["--timeout=20s", "--stats=10ms", "-q"];
    let running = machine.backfill(&node.url(), &options).start();
    wait_until(|| machine.file().exists());
    let mut pages = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    // Each page is a new file, so one that is being read doesn't change.
    let mut last = String::new();
    while pages < 5 || !last.contains("1 of 3 files done") {
        assert!(Instant::now() < deadline, "{last}");
        let text = fs::read_to_string(machine.file()).unwrap();
        if text != last {
            let page = Page::new(text);
            page.assert_says("h1", "Running").assert_says("who", "Known when the pass is over");
            (pages, last) = (pages + 1, page.0);
        }
    }
    Page::new(last).assert_says("coverage", "05:00 fetched now");
    // The last known state of the archive is shown if there is no time to look again.
    running.signal("TERM");
    running.outcome().assert_code(143);
    let page = machine.page();
    page.assert_says("h1", "Interrupted").assert_says("coverage", "the pass ended too early");
    page.assert_says("coverage", "05:00 fetched now").assert_says("pass", "Exit status143");
    page.assert_says("who", "the pass ended too early");
    let names = fs::read_dir(machine.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["report.html"], "no staged file is left");
    // SIGUSR1 writes a page at once.
    let node = stuck();
    let running = machine.backfill(&node.url(), &["--timeout=20s", "--retries=3"]).start();
    let asked = |request: &Request| request.path.contains("/segments/");
    assert!(node.wait_for_request(asked, Duration::from_secs(20)));
    running.signal("USR1");
    wait_until(|| fs::read_to_string(machine.file()).unwrap().contains("Running"));
    node.clear_faults();
    node.release();
    running.outcome().assert_code(0);
    machine.page().assert_says("h1", "Complete");
}

#[test]
fn a_local_failure_is_shown_in_the_page() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    machine.backfill(&node.url(), &["--min-free=1000000G"]).run().assert_code(1);
    let page = machine.page();
    page.assert_says("h1", "Failed on this machine").assert_says("failures", "local failure");
    page.assert_says("coverage", "too early").assert_says("pass", "Exit status1");
}

#[test]
fn a_pass_that_finds_the_lock_taken_keeps_the_page() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let held = fs::File::open(machine.archive.path()).unwrap();
    held.lock().unwrap();
    machine.backfill(&node.url(), &["--lock"]).run().assert_code(75);
    machine
        .page()
        .assert_says("h1", "Gave way")
        .assert_says("body", "gave way to another one (--lock)");
    drop(held);
    machine.backfill(&node.url(), &[]).run().assert_silent_success();
    let before = machine.page();
    assert!(!before.0.contains("gave way to another one"));
    let held = fs::File::open(machine.archive.path()).unwrap();
    held.lock().unwrap();
    for _ in 0..2 {
        machine.backfill(&node.url(), &["--lock"]).run().assert_code(75);
        let page = machine.page();
        page.assert_says("h1", "Complete");
        assert_eq!(page.0.matches("gave way to another one").count(), 1);
        assert!(page.0.ends_with(&before.0[before.0.find("<header").unwrap()..]));
    }
}

#[test]
fn an_unwritable_report_is_found_before_the_pass() {
    let (node, _) = node_with(1);
    let machine = Machine::new();
    let path = |name: &str| machine.dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("notes.html"), "<!DOCTYPE html><p>mine</p>").unwrap();
    fs::create_dir(path("directory")).unwrap();
    for (file, said) in [
        ("notes.html", "it is not a report of this program"),
        ("directory", "it is not a regular file"),
        ("none/x.html", "no such file or directory"),
    ] {
        let args = [&*node.url(), "desertbus", "source", "--report", &path(file)];
        let outcome = machine.archive.backfill(args).run();
        outcome.assert_code(2).assert_says("error: --report /").assert_says(said);
    }
    assert_eq!(fs::read_to_string(path("notes.html")).unwrap(), "<!DOCTYPE html><p>mine</p>");
    let metrics = machine.file();
    let options = ["--metrics-file", metrics.to_str().unwrap()];
    let outcome = machine.backfill(&node.url(), &options).run();
    outcome.assert_code(2).assert_says("--report and --metrics-file name the same file");
    assert_eq!(node.requests().len(), 0);
}

#[test]
fn a_report_that_can_t_be_written_is_a_local_failure() {
    let node = stuck();
    let machine = Machine::new();
    let metrics = tempfile::tempdir().unwrap();
    let metrics = metrics.path().join("x.prom");
    let options = ["--timeout=20s", "--metrics-file", metrics.to_str().unwrap()];
    let running = machine.backfill(&node.url(), &options).start();
    let asked = |request: &Request| request.path.contains("/segments/");
    assert!(node.wait_for_request(asked, Duration::from_secs(20)));
    // A foreign page has taken its place.
    fs::write(machine.file(), "mine").unwrap();
    node.clear_faults();
    node.release();
    let outcome = running.outcome();
    outcome.assert_code(1).assert_says("error: writing the report ").assert_says("not a report");
    assert_eq!(fs::read_to_string(machine.file()).unwrap(), "mine");
    let text = fs::read_to_string(&metrics).unwrap();
    let status = text.lines().find(|line| line.starts_with("backfiller_last_pass_status{"));
    assert!(status.unwrap().ends_with(" 1"), "{status:?}");
}

// ---- In a browser -----------------------------------------------------------------------------

/// A script that inspects the page in a frame of 360 pixels.
const LOOK: &str = r#"<!DOCTYPE html><title>look</title><body><iframe width="360" height="800"></iframe><script>
addEventListener('load', () => {
  const frame = document.querySelector('iframe');
  frame.onload = () => {
    const page = frame.contentDocument, seen = {};
    const root = page.documentElement;
    seen.fits = root.scrollWidth <= root.clientWidth && frame.contentWindow.innerWidth === 360;
    seen.h1 = page.querySelector('h1').innerText;
    const row = page.querySelector('.day details'), drawing = row.querySelector('svg'), words = row.querySelector('p');
    drawing.scrollIntoView({ behavior: 'instant' });
    const box = drawing.getBoundingClientRect();
    const at = minute => page.elementFromPoint(box.x + (minute + .5) * box.width / 60, box.y + box.height / 2);
    seen.pointed = [1, 10, 22, 36, 46, 55].map(minute => at(minute).textContent);
    seen.before = words.checkVisibility();
    row.querySelector('summary').click();
    seen.after = words.checkVisibility();
    const colour = getComputedStyle(page.querySelector('section')).backgroundColor;
    seen.dark = colour.match(/\d+/g).every(part => part < 128);
    document.body.textContent = 'seen ' + JSON.stringify(seen);
    console.log('that was it');
  };
  frame.src = 'report.html';
});
</script></body>"#;

/// Opens the page in Chromium, with a light or dark scheme. Returns the script's result and the
/// lines of the console.
fn look(dir: &Path, dark: bool) -> (String, Vec<String>) {
    fs::write(dir.join("look.html"), LOOK).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    // The frame is a different file, so a different origin.
    chromium.args(["--disable-web-security", "--allow-file-access-from-files"]);
    chromium.args(["--enable-logging=stderr", "--window-size=800,900"]);
    chromium.args(["--virtual-time-budget=20000", "--dump-dom"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display()));
    chromium.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    chromium.env("HOME", profile.path());
    let seen = chromium.arg(format!("file://{}/look.html", dir.display())).output().unwrap();
    let said = String::from_utf8_lossy(&seen.stderr);
    let console = said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned);
    (String::from_utf8_lossy(&seen.stdout).into_owned(), console.collect())
}

#[test]
fn a_browser_shows_the_page_on_a_phone_in_both_schemes() {
    if !has_tool("chromium") {
        return;
    }
    let (machine, _node, nodes) = eventful();
    // Names of maximal length don't make the page wider.
    let long = format!("{}={}", "n".repeat(120), nodes.split_once('=').unwrap().1);
    machine.backfill(&long, &[HOUR]).run().assert_code(3);
    for dark in [true, false] {
        let (seen, console) = look(machine.dir.path(), dark);
        let (_, seen) = seen.split_once("seen ").unwrap_or_else(|| panic!("{seen} {console:?}"));
        let seen = seen.split('<').next().unwrap();
        let seen: serde_json::Value = serde_json::from_str(seen).unwrap();
        assert_eq!(seen["fits"], true, "{seen}");
        assert_eq!((&seen["h1"], &seen["dark"]), (&"Incomplete".into(), &dark.into()));
        let pointed = serde_json::json!([
            "05:00 to 05:02 not judged",
            "05:03 to 05:19 here",
            "05:20 to 05:24 fetched now",
            "05:35 to 05:37 missing",
            "05:46 to 05:47 deleted on purpose",
            "05:55 only suspect or partial",
        ]);
        assert_eq!(seen["pointed"], pointed);
        assert_eq!((&seen["before"], &seen["after"]), (&false.into(), &true.into()));
        assert_eq!(console.len(), 1, "{console:?}");
        assert!(console[0].contains("that was it"), "{console:?}");
    }
}
