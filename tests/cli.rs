//! The command line: what is refused and how, and what is generated.

mod node;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use node::Node;
use support::{AT_ONCE, Archive, Run, has_tool};

#[test]
fn each_usage_error_is_one_line() {
    let node = Node::start();
    let url = node.url();
    for (args, said) in [
        (&[][..], "<NODE> <STREAM> <VARIANT> missing"),
        (&["toodles"], "<STREAM> <VARIANT> missing"),
        (
            &["toodles", "desertbus", "source"],
            "NODE: \"toodles\" is neither a URL nor a directory: did you mean http://toodles:1337",
        ),
        (
            &["ftp://toodles", "desertbus", "source"],
            "NODE: \"ftp://toodles\" is not an http or https URL",
        ),
        (&["http://", "desertbus", "source"], "NODE: \"http://\""),
        (&["http:/h:1337", "desertbus", "source"], "did you mean http://h:1337?"),
        (&["http://h:99999", "desertbus", "source"], "NODE: \"http://h:99999\" has no valid port"),
        (&["http://a:1 http://b:1", "desertbus", "source"], "put a comma between two nodes"),
        (&["Cargo.toml", "desertbus", "source"], "did you mean @Cargo.toml, for the list"),
        (
            &[&url, "desertbus", "source", "last", "3"],
            "\"last\" is not a valid HOUR: did you mean last:N",
        ),
        (
            &[&url, "desertbus", "source", "last 3"],
            "\"last 3\" is not a valid HOUR: did you mean last:3?",
        ),
        (&[&url, "desertbus", "source", "2018-11"], "did you mean 2018-11-01..2018-11-30?"),
        (&[&url, "desertbus", "last:3"], "VARIANT: \"last:3\" is an HOUR; before it, give"),
        (&[&url, "all", "2018-11-10"], "VARIANT: \"2018-11-10\" is an HOUR; before it, give"),
        (
            &["--start", "3", &url, "desertbus"],
            "--start is an option of the old service; here, give HOUR, such as last:3",
        ),
        (
            &["desertbus", "--static-nodes=a,b"],
            "--static-nodes is an option of the old service; here, give the nodes as NODE",
        ),
        (
            &["desertbus", "--run-once"],
            "--run-once is an option of the old service; here, every run is one pass",
        ),
        (
            &[&url, "desertbus", "source", "--base-dir=/does/not/exist"],
            "--base-dir /does/not/exist: no such file or directory (is its disk mounted?",
        ),
        (
            &[&url, "desertbus", "source", "--base-dir=/dev/null"],
            "--base-dir /dev/null: not a directory",
        ),
        (
            &["@/does/not/exist", "desertbus", "source"],
            "NODE: reading \"/does/not/exist\": no such file or directory\n",
        ),
        (&["@-", "desertbus", "source"], "NODE: standard input is empty"),
        (&["@-", "desertbus", "source", "-"], "standard input can be read only once"),
        (&[&url, "desertbus", "source", "-"], "HOUR: standard input is empty"),
        (&[&url, "", "source"], "STREAM: the list has an empty entry"),
        (&[&url, " desertbus", "source"], "STREAM: \" desertbus\" begins with a blank (remove it)"),
        (&[&url, "desertbus", "source, 480p "], "VARIANT: \" 480p \" ends with a blank"),
        (&[&url, "desertbus", "source", "last:3\n"], "HOUR: \"last:3\\n\" ends with a blank"),
        (&[" http://me:secret@h", "desertbus", "source"], "NODE: \" http://...\" begins with a"),
        (&[&url, "../etc", "source"], "STREAM: the name \"../etc\" begins with a dot"),
        (&[&url, "desertbus", "a/b"], "VARIANT: the name \"a/b\" contains a slash"),
        (&[&url, "desertbus", "source,"], "VARIANT: the list has an empty entry"),
        (
            &[&url, "desertbus", "source", "thursday"],
            "HOUR: \"thursday\" is not a valid HOUR: give an hour (2018-11-10T05), a day",
        ),
        (
            &[&url, "desertbus", "source", "2018-02-30"],
            "HOUR: \"2018-02-30\" is not a valid day: there is no such date",
        ),
        (&[&url, "desertbus", "source", "last:0"], "HOUR: \"last:0\""),
        (
            &["toodles/wub", "desertbus", "source"],
            "did you mean http://toodles:1337/wub, or ./toodles/wub?",
        ),
        (
            &[&url, "desertbus", "source", "-j0"],
            "'0' for '--jobs <N>': expected a number from 1 to",
        ),
        (&[&url, "desertbus", "source", "--retries=x"], "expected a number from 0 to 100; see"),
        (
            &[&url, "desertbus", "source", "--timeout=soon"],
            "'soon' for '--timeout <DURATION>': expected a duration such as 90s, 5m or 1h 30m; see",
        ),
        (
            &[&url, "desertbus", "source", "--extras=desertbus"],
            "is a selected STREAM, whose segments are fetched anyway",
        ),
        (
            &[&url, "desertbus", "source", "--metrics-file=/does/not/exist/x.prom"],
            "--metrics-file /does/not/exist/x.prom: no such file or directory",
        ),
        (&["@/dev", "desertbus", "source"], "NODE: reading \"/dev\": is a directory\n"),
        (&["@/proc/self/exe", "desertbus", "source"], "it is not UTF-8 text"),
        (&[&url, "desertbus", "source", "--timeout=0"], "it must be above zero"),
        (&[&url, "desertbus", "source", "--limit-rate=fast"], "expected a number of bytes"),
        (
            &[&url, "desertbus", "source", "--order=up"],
            "; possible values: random, forward, reverse; see",
        ),
        (&[&url, "desertbus", "source", "--no-such"], "unexpected argument '--no-such'"),
        (&[&url, "desertbus", "source", "--prin"], "'--print'"),
        (&[&url, "desertbus", "source", "-p0"], "cannot be used with"),
        (&["--generate=man", &url], "cannot be used with"),
        (&[&url, "\x1b[2J", "source"], "contains an unprintable character"),
        (&[&url, "desertbus", "source", "--\x1b[2J"], "unexpected argument"),
    ] {
        let archive = Archive::new();
        let outcome = archive.backfill(args).run();
        outcome.assert_code(2).assert_says(said);
        assert_eq!(outcome.stdout, "");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("backfiller: error: "), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains('\x1b'));
    }
    assert_eq!(node.requests().len(), 0);
}

#[test]
fn an_invalid_hour_in_standard_input_is_reported_by_line() {
    let archive = Archive::new();
    let run = archive.backfill(["http://127.0.0.9:1", "desertbus", "source", "-"]);
    let outcome = run.stdin("2018-11-10\nnow\n").run();
    outcome.assert_code(2).assert_says("HOUR: standard input, line 2: \"now\" is not a valid HOUR");
}

#[test]
fn common_forms_of_hours_and_lists_are_accepted() {
    let (node, names) = support::node_with(3);
    let dir = tempfile::tempdir().unwrap();
    let list = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        format!("@{}", dir.path().join(name).display())
    };
    let streams = list("streams", "# all of them\n\n desertbus # the bus\n");
    let hours = list("hours", " 2018-11-01 \n2018-11-10T05:10:00.500Z\t\n");
    for args in [
        &[&*node.url(), "other , desertbus", "source/", "2018-11-10T05:59:59.999"][..],
        &[&node.url(), "desertbus/", "x ,source", "2018-11-10T06:30+01:00 , 2018-11-09"],
        &[&node.url(), "desertbus", "source", "2018-11-10T05:35:00.000..2018-11-10T05:37:30.000"],
        &[&node.url(), &streams, "source", &hours],
        &[&node.url(), &streams, "source", "..today"],
    ] {
        let archive = Archive::new();
        archive.backfill(args).run().assert_code(0);
        assert_eq!(archive.names(), names, "{args:?}");
    }
}

#[test]
fn printed_holes_select_their_hours() {
    let (archive, node) = (Archive::new(), Node::start());
    for stem in ["00:00.0-60.0-full", "02:00.0-60.0-full"] {
        archive.put(stem, stem.as_bytes());
    }
    let outcome = archive.backfill([&*node.url(), "desertbus", "source", "--coverage"]).run();
    let hole = outcome.stdout.lines().find_map(|line| line.strip_prefix("hole: ")).unwrap();
    let (start, rest) = hole.split_once(" to ").unwrap();
    let (end, _) = rest.split_once(',').unwrap();
    let missing = node.add("desertbus", "source", support::HOUR, "01:00.0-60.0-full", b"found");
    for hours in [format!("{start}..{end}"), start.to_owned()] {
        let args = [&*node.url(), "desertbus", "source", "--dry-run", &hours];
        assert!(archive.backfill(args).run().stdout.contains(&missing), "{hours}");
    }
}

#[test]
fn nodes_on_one_host_are_both_asked() {
    let (node, other) = (Node::start(), Node::start());
    node.add("desertbus", "source", support::HOUR, "00:00.0-2.0-full", b"one");
    other.add("desertbus", "source", support::HOUR, "00:02.0-2.0-full", b"other");
    let archive = Archive::new();
    let nodes = format!("{}, {}", node.url(), other.url());
    let outcome = archive.backfill([&*nodes, "desertbus", "source", "--json"]).run();
    outcome.assert_code(0);
    assert_eq!(archive.names().len(), 2);
    let name = node.url().replace("http://", "");
    assert!(outcome.stdout.contains(&format!("\"node\":\"{name}\"")), "{}", outcome.stdout);
}

#[test]
fn an_invalid_node_in_a_list_is_reported_by_line() {
    let archive = Archive::new();
    let run = archive.backfill(["@-", "desertbus", "source"]);
    let outcome = run.stdin("a http://a\nb c http://b\n").run();
    let said =
        "NODE: standard input, line 2: \"b c http://b\" should be a URL, or a name and a URL";
    outcome.assert_code(2).assert_says(said);
}

#[test]
fn the_archive_can_t_be_its_own_node() {
    let archive = Archive::new();
    let dir = archive.path().to_str().unwrap();
    let outcome = archive.backfill([dir, "desertbus", "source"]).run();
    outcome.assert_code(2).assert_says("is the archive to fill itself");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (option, said) in [
        ("-h", "Usage: backfiller"),
        ("--help", "a directory that holds an archive"),
        ("-V", concat!("backfiller ", env!("CARGO_PKG_VERSION"))),
    ] {
        let outcome = Run::new([option]).run();
        outcome.assert_code(0);
        assert!(outcome.stdout.contains(said), "{}", outcome.stdout);
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn help_has_a_heading_for_each_option() {
    let help = Run::new(["-h"]).run().stdout;
    let (usage, options) = help.split_once("\nOptions:\n").unwrap();
    // clap breaks the other lines.
    let (_, usage) = usage.split_once("Usage:").unwrap();
    let (usage, _) = usage.split_once("\n\n").unwrap();
    assert!(usage.lines().all(|line| line.len() <= 80), "{usage}");
    let (general, options) = options.split_once("\n\n").unwrap();
    let named = |text: &str| text.lines().filter(|line| line.contains(" --")).count();
    assert_eq!(named(general), 3, "--generate, --help and --version: {general}");
    for heading in ["What to fetch", "From whom", "What is kept safe", "What is printed"] {
        let (_, below) = options.split_once(&format!("{heading}:\n")).unwrap();
        assert!(named(below.split("\n\n").next().unwrap()) > 3, "{heading}");
    }
}

#[test]
fn the_version_names_its_commit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let outcome = Run::new(["--version"]).run();
    outcome.assert_code(0);
    let version = outcome.stdout.trim_end();
    let git = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root).output();
    match git {
        Ok(git) if root.join(".git").exists() && git.status.success() => {
            let commit = String::from_utf8(git.stdout).unwrap();
            let package = env!("CARGO_PKG_VERSION");
            assert_eq!(version, format!("backfiller {package} ({})", &commit[..12]));
        }
        _ => eprintln!("skipped: there is no commit to compare {version:?} with"),
    }
}

#[test]
fn the_files_of_the_debian_package_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
    let (assets, _) = assets.split_once("\n]").unwrap();
    let texts: Vec<&str> = assets.split('"').skip(1).step_by(2).collect();
    // Source, destination and mode. cargo writes the table in this form into a package, too.
    for asset in texts.chunks(3).filter(|asset| !asset[0].starts_with("target/")) {
        assert!(root.join(asset[0]).is_file(), "{asset:?}");
    }
}

#[test]
fn the_manual_page_has_every_option_and_the_exit_table() {
    let outcome = Run::new(["--generate", "man"]).run();
    outcome.assert_code(0);
    let help = Run::new(["--help"]).run().stdout;
    let options: Vec<&str> =
        help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 3).collect();
    assert!(options.len() > 20);
    let page = outcome.stdout.replace("\\-", "-");
    for option in options {
        let option = option.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        assert!(page.contains(option), "{option}");
    }
    for heading in [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "ARGUMENTS",
        "OPTIONS",
        "\"EXIT STATUS\"",
        "PROMISES",
        "FILES",
        "ENVIRONMENT",
        "EXAMPLES",
    ] {
        assert!(page.contains(&format!("\n.SH {heading}\n")), "{heading}");
    }
}

#[test]
fn the_manual_page_is_well_formed() {
    if !has_tool("mandoc") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backfiller.1");
    fs::write(&path, Run::new(["--generate", "man"]).run().stdout).unwrap();
    let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path).output();
    let lint = lint.unwrap();
    assert_eq!(String::from_utf8_lossy(&lint.stdout), "");
    assert!(lint.status.success());
}

#[test]
fn help_ends_with_a_pointer_to_the_manual_page() {
    for option in ["-h", "--help"] {
        let outcome = Run::new([option]).run();
        let last = outcome.stdout.trim_end().lines().last().unwrap();
        assert!(last.ends_with("backfiller --generate man | man -l -"), "{last}");
    }
}

/// Runs it with the output of this command, which may be endless, as standard input.
fn run_with(command: &str, args: &[&str]) -> Outcome {
    let archive = Archive::new();
    let mut source = Command::new("sh")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_backfiller"));
    child.args(args).env_clear().env("BACKFILLER_BASE_DIR", archive.path());
    let begun = Instant::now();
    let output = child.stdin(source.stdout.take().unwrap()).output().unwrap();
    let took = begun.elapsed();
    let _ = source.kill();
    source.wait().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr), took)
}

type Outcome = (Option<i32>, String, String, Duration);

#[test]
fn endless_lists_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nodes");
    let line = |n: usize| format!("node{n} http://10.0.{}.{}:1337/\n", n >> 8 & 255, n & 255);
    fs::write(&file, (0..100_000).map(line).collect::<String>()).unwrap();
    let file = format!("@{}", file.display());
    let many = "a=/mnt,".repeat(10_000) + "a=/mnt";
    for (source, args, said) in [
        ("true", &[&*file, "s", "v"][..], "it is longer than 2 MiB"),
        ("true", &["@/dev/zero", "s", "v"], "it is longer than 2 MiB"),
        ("true", &[&many, "s", "v"], "more than 256 nodes"),
        ("yes /a", &["@-", "s", "v"], "it is longer than 2 MiB"),
        ("yes /a | head -n 100000", &["@-", "s", "v"], "more than 256 nodes"),
        ("cat /dev/zero", &["@-", "s", "v"], "it is longer than 2 MiB"),
        ("yes 2018-11-10T05", &["http://a", "s", "v", "-"], "it is longer than 2 MiB"),
        ("cat /dev/zero", &["http://a", "s", "v", "-"], "it is longer than 2 MiB"),
    ] {
        let (code, stdout, stderr, took) = run_with(source, args);
        assert_eq!((code, &*stdout), (Some(2), ""), "{source} {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{source} {stderr}");
        assert!(stderr.contains(said), "{source} {stderr}");
        assert!(took < AT_ONCE, "{source} {took:?}");
    }
}

#[test]
fn a_nul_in_a_list_is_a_usage_error() {
    for (source, args) in [
        (r"printf '/mnt/a\0b\n'", &["@-", "s", "v", "--json"][..]),
        (r"printf './a\0b\n'", &["@-", "s", "v"]),
        (r"printf 'name /mnt/a\0b\n'", &["@-", "s", "v"]),
        (r"printf 'na\0me /mnt/a\n'", &["@-", "s", "v"]),
        (r"printf 'http://a\0b/\n'", &["@-", "s", "v"]),
        (r"printf 'http://a/\0b\n'", &["@-", "s", "v"]),
        (r"printf '\0\n'", &["@-", "s", "v"]),
        (r"printf '2018-11-10T05\0\n'", &["http://a", "s", "v", "-"]),
        (r"printf '\0last:3\n'", &["http://a", "s", "v", "-"]),
    ] {
        let (code, stdout, stderr, _) = run_with(source, args);
        assert_eq!((code, &*stdout), (Some(2), ""), "{source} {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{source} {stderr}");
        assert!(!stderr.contains('\0') && stderr.contains("line 1"), "{source} {stderr}");
    }
}
