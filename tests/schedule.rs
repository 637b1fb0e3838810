//! What README says about schedules is true: its crontab, units, manifests and rules are extracted
//! and tried.

mod node;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use node::{Fault, Node, On};
use serde_json::{Value, json};
use support::{Archive, HOUR, has_tool, is_root};

/// The fenced blocks of README in this language.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let (readme, fence) = (readme.unwrap(), format!("\n```{language}\n"));
    let from_fences = readme.split(&*fence).skip(1);
    let blocks = from_fences.map(|text| text.split_once("\n```").unwrap().0.to_owned() + "\n");
    let blocks: Vec<String> = blocks.collect();
    assert!(!blocks.is_empty(), "README has no {language}");
    blocks
}

/// A machine as README describes it, in temporary directories, and a node with missing segments.
struct Machine {
    archive: Archive,
    dir: tempfile::TempDir,
    node: Node,
    recent: Vec<String>,
    old: String,
}

impl Machine {
    fn new() -> Machine {
        let node = Node::start();
        // At any time, this hour is one of the last three and older than the recent cutoff.
        let hour = (Utc::now() - TimeDelta::hours(1)).format("%Y-%m-%dT%H").to_string();
        let recent = vec![
            node.add("desertbus", "source", &hour, "30:00.0-2.0-full", b"recent"),
            node.add_chat("desertbus", &hour, "30:00", b"a chat"),
        ];
        let old = node.add("desertbus", "source", HOUR, "30:00.0-2.0-full", b"old");
        let machine = Machine {
            archive: Archive::new(),
            dir: tempfile::tempdir().unwrap(),
            node,
            recent,
            old,
        };
        fs::create_dir(machine.path("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_backfiller"), machine.path("bin/backfiller")).unwrap();
        fs::create_dir(machine.path("metrics")).unwrap();
        fs::write(machine.path("nodes"), format!("a {}\n", machine.node.url())).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Text of README with the paths of this machine.
    fn text(&self, text: &str) -> String {
        let text = text.replace("/usr/local/bin", self.path("bin").to_str().unwrap());
        let text = text.replace("/srv/wubloader", self.archive.path().to_str().unwrap());
        let text = text.replace("/etc/backfiller/nodes", self.path("nodes").to_str().unwrap());
        text.replace("/var/lib/prometheus/node-exporter", self.path("metrics").to_str().unwrap())
    }

    /// A command without a terminal and standard input, and with only PATH in its environment.
    fn command<S: AsRef<str>>(&self, path: &str, words: &[S]) -> Command {
        let mut command = Command::new("setsid");
        command.arg("--wait").args(words.iter().map(|word| self.text(word.as_ref())));
        command.env_clear().env("PATH", self.text(path)).stdin(Stdio::null());
        command
    }

    /// Checks that a silent pass has filled the hours that HOUR selects.
    #[track_caller]
    fn assert_filled(&self, hour: &str, outcome: &Output) {
        assert_silent(outcome, 0);
        let mut names = self.recent.clone();
        match hour {
            "last:3" => {}
            "all" => names.push(self.old.clone()),
            _ => panic!("unexpected HOUR: {hour}"),
        }
        names.sort();
        assert_eq!(self.archive.names(), names);
        self.archive.assert_whole();
        assert!(self.path("metrics/backfiller.prom").is_file());
    }
}

#[track_caller]
fn assert_silent(outcome: &Output, code: i32) {
    assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
    assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (0, 0), "{outcome:?}");
}

// ---- cron -------------------------------------------------------------------------------------

/// The PATH of the crontab, and its commands with their HOUR.
fn crontab() -> (String, Vec<(String, String)>) {
    let block = blocks("crontab").remove(0);
    let (mut path, mut commands) = (None, Vec::new());
    for line in block.lines() {
        if let Some((name, value)) = line.split_once('=').filter(|_| !line.contains(' ')) {
            assert!(["MAILTO", "PATH"].contains(&name), "{line}");
            path = path.or((name == "PATH").then(|| value.to_owned()));
            continue;
        }
        let mut rest = line;
        for limit in [59, 23, 31, 12, 7] {
            let (time, after) = rest.split_once(' ').unwrap();
            assert!(is_time(time, limit), "{time} in {line}");
            rest = after.trim_start();
        }
        assert!(!rest.contains('%'), "cron ends a command at %: {line}");
        commands.push((rest.to_owned(), rest.rsplit(' ').next().unwrap().to_owned()));
    }
    (path.unwrap(), commands)
}

/// Whether this is `*`, `*/STEP` or a number up to the limit.
fn is_time(field: &str, limit: u32) -> bool {
    let number = field.strip_prefix("*/").unwrap_or(field);
    field == "*" || number.parse().is_ok_and(|number: u32| number <= limit)
}

#[test]
fn each_crontab_line_silently_fills_the_archive() {
    if !has_tool("setsid") || !has_tool("flock") {
        return;
    }
    let (path, commands) = crontab();
    let hours: Vec<&str> = commands.iter().map(|(_, hour)| &**hour).collect();
    assert_eq!(hours, ["last:3", "all"]);
    for (command, hour) in &commands {
        let machine = Machine::new();
        let run = || machine.command(&path, &["/bin/sh", "-c", command]).output().unwrap();
        machine.assert_filled(hour, &run());
        let requests = machine.node.segment_requests().len();
        machine.assert_filled(hour, &run());
        assert_eq!(
            machine.node.segment_requests().len(),
            requests,
            "the second pass has nothing to do"
        );
    }
}

#[test]
fn an_overlapping_crontab_line_is_silent() {
    if !has_tool("setsid") || !has_tool("flock") {
        return;
    }
    let (path, commands) = crontab();
    for ((command, _), code) in commands.iter().zip([75, 1]) {
        let machine = Machine::new();
        machine.node.fault(On::Any, Fault::Hang);
        let run = || machine.command(&path, &["/bin/sh", "-c", command]);
        let mut first = run().spawn().unwrap();
        assert!(machine.node.wait_for_request(|_| true, Duration::from_secs(20)));
        assert_silent(&run().output().unwrap(), code);
        machine.node.clear_faults();
        machine.node.release();
        assert!(first.wait().unwrap().success());
    }
}

#[test]
fn the_long_crontab_line_does_not_block_the_short_one() {
    if !has_tool("setsid") || !has_tool("flock") {
        return;
    }
    let (path, commands) = crontab();
    let run = |machine: &Machine, n: usize| -> Command {
        machine.command(&path, &["/bin/sh", "-c", &commands[n].0])
    };
    let machine = Machine::new();
    machine
        .node
        .fault_path(&format!("/segments/desertbus/source/{HOUR}/{}", machine.old), Fault::Hang);
    let mut long = run(&machine, 1).spawn().unwrap();
    let at_work = |request: &node::Request| request.path.ends_with(&*machine.old);
    assert!(machine.node.wait_for_request(at_work, Duration::from_secs(20)));
    assert_silent(&run(&machine, 0).output().unwrap(), 0);
    machine.node.clear_faults();
    machine.node.release();
    assert!(long.wait().unwrap().success());
}

/// A process that ends with the test, even if the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn cron_mails_only_what_needs_attention() {
    if !is_root() || !has_tool("unshare") || !has_tool("cron") {
        return;
    }
    let machine = Machine::new();
    let (path, commands) = crontab();
    // Waiting for the scheduled times would take minutes, so cron runs these lines when it starts.
    let mut table = format!("MAILTO=you@example.org\nPATH={path}\n");
    for (command, _) in &commands {
        table += &format!("@reboot  {command}\n");
    }
    table += "@reboot  backfiller -d /srv/wubloader http://127.0.0.9:1 desertbus source\n";
    fs::create_dir(machine.path("tables")).unwrap();
    let file = machine.path("tables/root");
    fs::write(&file, machine.text(&table)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // In namespaces of its own, with a mailer that stores each mail.
    let sbin = machine.path("sbin");
    fs::create_dir(&sbin).unwrap();
    let mail = machine.path("mail");
    fs::create_dir(&mail).unwrap();
    let mailer = format!("#!/bin/sh\ncat > {0}/$$.new; mv {0}/$$.new {0}/$$\n", mail.display());
    fs::write(sbin.join("sendmail"), mailer).unwrap();
    fs::set_permissions(sbin.join("sendmail"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = "mount --make-rprivate / && mount -t tmpfs none /run && cp \"$(command -v cron)\" /run \
        && mount --bind \"$1\" /var/spool/cron/crontabs && mount --bind \"$2\" /usr/sbin \
        && exec /run/cron -f";
    let mut cron = Command::new("unshare");
    cron.args(["--mount", "sh", "-c", script, "sh"]).arg(machine.path("tables")).arg(&sbin);
    let cron = Killed(cron.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut all = machine.recent.clone();
    all.push(machine.old.clone());
    all.sort();
    let mails = || -> Vec<PathBuf> {
        let all = fs::read_dir(&mail).unwrap().map(|entry| entry.unwrap().path());
        // A mail that is still being written doesn't count yet.
        all.filter(|path| path.extension().is_none()).collect()
    };
    // The last step of a pass.
    let are_over = || {
        let metrics = fs::read_to_string(machine.path("metrics/backfiller.prom"));
        let metrics = metrics.unwrap_or_default();
        let status = |hour| metrics.contains(&format!("last_pass_status{{hours=\"{hour}\""));
        commands.iter().all(|(_, hour)| status(hour))
    };
    while !are_over() || mails().is_empty() {
        assert!(Instant::now() < deadline, "{:?} {:?}", machine.archive.names(), mails());
        thread::sleep(Duration::from_millis(10));
    }
    drop(cron);
    assert_eq!(machine.archive.names(), all);
    machine.archive.assert_whole();
    let [mail] = &mails()[..] else { panic!("{:?}", mails()) };
    let mail = fs::read_to_string(mail).unwrap();
    assert!(mail.contains("To: you@example.org") && mail.contains("no node answered"), "{mail}");
}

// ---- The database of the old service -----------------------------------------------------------

/// The directory of the PostgreSQL server programs.
fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut bins = versions.map(|version| version.path().join("bin"));
    bins.find(|bin| bin.join("initdb").is_file())
}

#[test]
fn psql_lists_the_nodes_of_the_old_service() {
    let Some(bin) = postgresql().filter(|_| has_tool("psql") && has_tool("setpriv")) else {
        return;
    };
    let machine = Machine::new();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (at, data) = (dir.path().to_str().unwrap(), data.to_str().unwrap());
    // The server refuses to run as root.
    let mut user: Vec<&str> = Vec::new();
    if is_root() {
        let owned = Command::new("chown").args(["postgres", at]).status().unwrap();
        assert!(owned.success());
        user = vec!["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
    }
    let run = |program: &str, args: &[&str]| {
        let program = bin.join(program);
        let words = [&user[..], &[program.to_str().unwrap()], args].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(at).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.stderr(Stdio::null()).status().unwrap().success(), "{words:?}");
    };
    run("initdb", &["-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale"]);
    let options = format!("-k {at} -F -c listen_addresses= -c shared_buffers=1MB");
    run("pg_ctl", &["-D", data, "-o", &options, "-l", "log", "-w", "start"]);
    let shell = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(machine.archive.path()).env_clear();
        shell.envs([("PGHOST", at), ("PGUSER", "postgres")]);
        let path = format!("{}:/usr/bin:/bin", machine.path("bin").display());
        shell.env("PATH", path).output().unwrap()
    };
    let made = shell(&format!(
        "psql -q -c 'CREATE TABLE nodes (name TEXT PRIMARY KEY, url TEXT NOT NULL, backfill_from \
         BOOLEAN NOT NULL DEFAULT TRUE)' -c \"INSERT INTO nodes VALUES ('a', '{}', TRUE), \
         ('silent', 'http://127.0.0.9:1', FALSE)\"",
        machine.node.url()
    ));
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.unwrap();
    let mut lines = readme.lines().map(str::trim);
    let line = lines.find(|line| line.starts_with("psql ")).expect("README pipes psql");
    let outcome = shell(line);
    run("pg_ctl", &["-D", data, "-m", "immediate", "stop"]);
    assert!(made.status.success(), "{made:?}");
    assert_silent(&outcome, 0);
    let mut names = vec![machine.recent[0].clone(), machine.old.clone()];
    names.sort();
    assert_eq!(machine.archive.names(), names);
}

// ---- systemd ----------------------------------------------------------------------------------

/// The units by name.
fn units() -> Vec<(String, String)> {
    let named = blocks("ini").into_iter().map(|unit| {
        let path = unit.lines().next().unwrap().strip_prefix("# /etc/systemd/system/").unwrap();
        (path.to_owned(), unit)
    });
    named.collect()
}

/// The value of a setting that occurs once.
fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {name} in {unit}"));
    assert_eq!(values.next(), None);
    value
}

#[test]
fn systemd_accepts_the_units() {
    if !has_tool("systemd-analyze") {
        return;
    }
    let machine = Machine::new();
    let paths = units().into_iter().map(|(name, unit)| {
        let path = machine.path(&name);
        // systemd looks for the program where it would be installed.
        let unit = unit.replace("ExecStart=", "ExecStart=/usr/local/bin/");
        fs::write(&path, machine.text(&unit)).unwrap();
        path
    });
    let mut verify = Command::new("systemd-analyze");
    assert_silent(&verify.args(["verify", "--man=no"]).args(paths).output().unwrap(), 0);
}

#[test]
fn each_timer_s_service_silently_fills_the_archive() {
    if !has_tool("setsid") {
        return;
    }
    let units = units();
    let (_, service) = units.iter().find(|(name, _)| name == "backfiller@.service").unwrap();
    let timers = units.iter().filter(|(name, _)| name.ends_with(".timer"));
    let hours = timers.map(|(_, timer)| {
        let hour = setting(timer, "Unit").strip_prefix("backfiller@");
        hour.and_then(|name| name.strip_suffix(".service")).unwrap()
    });
    let hours: Vec<&str> = hours.collect();
    assert_eq!(hours, ["last:3", "all"]);
    for hour in hours {
        let machine = Machine::new();
        let command = setting(service, "ExecStart").replace("%i", hour);
        let words: Vec<&str> = command.split(' ').collect();
        // systemd looks for programs there.
        let path = "/usr/local/bin:/usr/bin:/bin";
        let outcome = machine.command(path, &words).output().unwrap();
        machine.assert_filled(hour, &outcome);
    }
}

#[test]
fn the_service_may_write_where_it_needs_to() {
    let units = units();
    let (_, service) = units.iter().find(|(name, _)| name == "backfiller@.service").unwrap();
    let words: Vec<&str> = setting(service, "ExecStart").split(' ').collect();
    let after = |option| {
        let at = words.iter().position(|&word| word == option).unwrap();
        Path::new(words[at + 1])
    };
    let writable: Vec<&Path> =
        setting(service, "ReadWritePaths").split(' ').map(Path::new).collect();
    assert_eq!(writable, [after("-d"), after("--metrics-file").parent().unwrap()]);
}

// ---- Kubernetes -------------------------------------------------------------------------------

/// The documents of a YAML text; none if the YAML parser is missing.
fn documents(yaml: &str) -> Option<Vec<Value>> {
    if !has_tool("python3") {
        return None;
    }
    let program = "import json, sys, yaml\n\
                   print(json.dumps(list(yaml.safe_load_all(sys.argv[1]))))";
    let outcome = Command::new("python3").args(["-c", program, yaml]).output().unwrap();
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    if stderr.contains("No module named 'yaml'") && std::env::var_os("CI").is_none() {
        eprintln!("skipped: this test needs Python's yaml");
        return None;
    }
    assert!(outcome.status.success(), "{stderr}");
    Some(serde_json::from_slice(&outcome.stdout).unwrap())
}

/// The strings of an array.
fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn the_cron_job_s_pod_silently_fills_the_archive() {
    let manifest = blocks("yaml").into_iter().find(|text| text.contains("kind: CronJob")).unwrap();
    let Some(documents) = documents(&manifest).filter(|_| has_tool("setsid")) else {
        return;
    };
    let [nodes, job] = &documents[..] else { panic!("{} documents", documents.len()) };
    assert_eq!([&nodes["kind"], &job["kind"]], ["ConfigMap", "CronJob"]);
    assert_eq!([&nodes["apiVersion"], &job["apiVersion"]], ["v1", "batch/v1"]);
    assert!(job["spec"]["schedule"].as_str().unwrap().starts_with("*/5 "));
    let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];

    // The mounts exist, and the list of nodes is where the command expects it.
    let volumes = pod["volumes"].as_array().unwrap();
    let mounts = container["volumeMounts"].as_array().unwrap();
    for mount in mounts {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
    assert_eq!(volumes.len(), mounts.len());
    let volume = volumes.iter().find(|volume| volume["configMap"].is_object()).unwrap();
    assert_eq!(volume["configMap"]["name"], nodes["metadata"]["name"]);
    let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
    assert_eq!(mount["mountPath"], "/etc/backfiller");

    let machine = Machine::new();
    let (list, url) = (nodes["data"]["nodes"].as_str().unwrap(), machine.node.url());
    let word = |word: &str| if word.starts_with("http://") { url.clone() } else { word.into() };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<String>>().join(" ") + "\n";
    fs::write(machine.path("nodes"), list.lines().map(line).collect::<String>()).unwrap();
    let mut command = texts(&container["command"]);
    assert_eq!(command, ["backfiller"]);
    command.extend(texts(&container["args"]));
    let outcome = machine.command("/usr/local/bin:/usr/bin:/bin", &command).output().unwrap();
    machine.assert_filled("last:3", &outcome);
}

// ---- Prometheus -------------------------------------------------------------------------------

/// Runs promtool on the rules, and on a test of them if given.
fn promtool(words: &[&str], test: Option<Value>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let rules = blocks("yaml").into_iter().find(|text| text.starts_with("groups:")).unwrap();
    fs::write(dir.path().join("rules.yaml"), rules).unwrap();
    // JSON is valid YAML.
    fs::write(dir.path().join("test.yaml"), test.unwrap_or_default().to_string()).unwrap();
    Command::new("promtool").args(words).current_dir(&dir).output().unwrap()
}

#[test]
fn prometheus_accepts_the_rules() {
    if !has_tool("promtool") {
        return;
    }
    let outcome = promtool(&["check", "rules", "rules.yaml"], None);
    let stdout = String::from_utf8(outcome.stdout).unwrap();
    assert!(outcome.status.success() && stdout.contains("SUCCESS: "), "{stdout}");
}

/// The scrape configuration for dashboards of the old service.
fn scrape_configs() -> String {
    blocks("yaml").into_iter().find(|text| text.starts_with("scrape_configs:")).unwrap()
}

#[test]
fn prometheus_accepts_the_relabelling() {
    let config = scrape_configs();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("prometheus.yml"), &config).unwrap();
    if !has_tool("promtool") {
        return;
    }
    let mut promtool = Command::new("promtool");
    let check = promtool.args(["check", "config", "prometheus.yml"]).current_dir(&dir).output();
    let check = check.unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn prometheus_relabels_our_counters() {
    if !has_tool("prometheus") {
        return;
    }
    // The metrics of a pass, served as node_exporter would.
    let (node, archive) = (Node::start(), Archive::new());
    node.add("desertbus", "source", HOUR, "00:00.0-2.0-full", b"a segment");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backfiller.prom");
    let mut run = archive.backfill([&*node.url(), "desertbus", "source"]);
    run.command.arg("--metrics-file").arg(&file);
    run.run().assert_code(0);
    let exporter = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = exporter.local_addr().unwrap().to_string();
    let text = fs::read_to_string(&file).unwrap();
    thread::spawn(move || {
        for connection in exporter.incoming() {
            let mut connection = connection.unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {}
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
            let length = text.len();
            let _ = write!(connection, "{head}\r\nContent-Length: {length}\r\n\r\n{text}");
        }
    });
    let config = scrape_configs().replace("localhost:9100", &target);
    let config = format!("global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\n{config}");
    fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut prometheus = Command::new("prometheus")
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={free}"))
        .current_dir(&dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(&free)?;
        let query =
            "segments_backfilled_total%7Bchannel%3D%22desertbus%22%2Cquality%3D%22source%22%7D";
        write!(connection, "GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let found = loop {
        let answer = ask().unwrap_or_default();
        let is_there = answer.contains("\"stream\":\"desertbus\"");
        if is_there || Instant::now() > deadline {
            break is_there.then_some(answer);
        }
        thread::sleep(Duration::from_millis(50));
    };
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    assert!(found.is_some_and(|answer| answer.contains("\"hour\":\"2018-11-10T05\"")));
}

/// The metrics that the rules use, each with the label that selects it, if any.
fn selectors(rules: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let (mut selectors, mut rest) = (Vec::new(), rules);
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let labels = after.strip_prefix('{').and_then(|text| text.split_once('}'));
        if name.contains('_') {
            selectors.push((name, labels.map_or("", |(labels, _)| labels)));
        }
        rest = after;
    }
    selectors
}

#[test]
fn the_rules_use_metrics_that_the_crontab_writes() {
    if !has_tool("setsid") || !has_tool("flock") {
        return;
    }
    let (path, commands) = crontab();
    let machine = Machine::new();
    let run = |command: &str| machine.command(&path, &["/bin/sh", "-c", command]).output().unwrap();
    machine.node.fault_times(On::Segment, Fault::Corrupt, 1);
    assert_eq!(run(&commands[0].0).status.code(), Some(3));
    commands.iter().for_each(|(command, _)| assert_silent(&run(command), 0));
    let written = fs::read_to_string(machine.path("metrics/backfiller.prom")).unwrap();
    let rules = blocks("yaml").into_iter().find(|text| text.starts_with("groups:")).unwrap();
    let selectors = selectors(&rules);
    assert_eq!(selectors.len(), 13, "{selectors:?}");
    for (name, label) in selectors {
        let is_it = |line: &str| {
            let labels = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('{'));
            labels.is_some_and(|labels| labels.contains(label))
        };
        assert!(written.lines().any(is_it), "{name}{{{label}}} is not in:\n{written}");
    }
}

/// A title; the abnormal series with their values; and which alerts fire when, for which hours.
type Case<'a> =
    (&'a str, &'a [(&'a String, &'a str)], &'a [&'a str], &'a [(&'a str, Option<&'a str>)]);

#[test]
fn each_alert_fires_when_it_should() {
    if !has_tool("promtool") {
        return;
    }
    // The series have a value every five minutes, starting in 1970.
    let [start, long_start] = ["last:3", "all"]
        .map(|hours| format!("backfiller_last_pass_start_timestamp_seconds{{hours='{hours}'}}"));
    let [success, long_success] = ["last:3", "all"]
        .map(|hours| format!("backfiller_last_success_timestamp_seconds{{hours='{hours}'}}"));
    let [missing, long_missing] = ["last:3", "all"].map(|hours| {
        format!("backfiller_missing_seconds{{stream='bus',variant='source',hours='{hours}'}}")
    });
    let [given_up, long_given_up] = ["last:3", "all"]
        .map(|hours| format!("backfiller_node_given_up{{remote='a',hours='{hours}'}}"));
    let [mismatches, others] =
        ["05", "06"].map(|h| format!("hash_mismatches_total{{remote='a',hour='2018-11-10T{h}'}}"));
    // The series of a day that was filled by hand in the first hour.
    let by_hand = "hours='2018-11-10'";
    let day_start = format!("backfiller_last_pass_start_timestamp_seconds{{{by_hand}}}");
    let day_missing =
        format!("backfiller_missing_seconds{{stream='bus',variant='source',{by_hand}}}");
    let day_given_up = format!("backfiller_node_given_up{{remote='a',{by_hand}}}");

    let (always, never) = ("0+300x400", "0x400");
    // The long pass takes an hour and begins every three hours, except for those left out.
    let each_three_hours = |left_out: &[i64]| {
        let start = |now: i64| {
            let number = (now - 3600).max(0) / 10_800;
            let number = (0..=number).rev().find(|number| !left_out.contains(number));
            number.unwrap() * 10_800
        };
        (0..400).map(|n| start(n * 300).to_string()).collect::<Vec<_>>().join(" ")
    };
    let (long_always, but_one) = (&*each_three_hours(&[]), &*each_three_hours(&[3]));
    let but_two = &*each_three_hours(&[3, 4]);

    let (short, long) = (Some("last:3"), Some("all"));
    let cases: [Case<'_>; 24] = [
        ("all is well", &[], &["30m", "1d"], &[]),
        (
            "neither ever ran",
            &[(&start, "_"), (&success, "_"), (&long_start, "_"), (&long_success, "_")],
            &["15m"],
            &[("DoesNotRun", long), ("DoesNotRun", short)],
        ),
        (
            "the short one never ran",
            &[(&start, "_"), (&success, "_")],
            &["15m", "1d"],
            &[("DoesNotRun", short)],
        ),
        (
            "the long one never ran",
            &[(&long_start, "_"), (&long_success, "_")],
            &["15m", "1d"],
            &[("DoesNotRun", long)],
        ),
        ("it ran no more", &[(&start, "0 300x400")], &["2h", "1d"], &[("DoesNotRun", short)]),
        ("the long one ran no more", &[(&long_start, never)], &["9h"], &[("DoesNotRun", long)]),
        ("it paused", &[(&start, "0+300x50 15000x10 18300+300x99")], &["5h"], &[]),
        ("the long one missed its turn", &[(&long_start, but_one)], &["12h", "13h", "1d"], &[]),
        ("it missed two", &[(&long_start, but_two)], &["15h"], &[("DoesNotRun", long)]),
        ("it never was complete", &[(&success, "_")], &["90m", "1d"], &[("Incomplete", short)]),
        ("the long never was", &[(&long_success, "_")], &["9h", "1d"], &[("Incomplete", long)]),
        ("it is complete no more", &[(&success, never)], &["90m", "1d"], &[("Incomplete", short)]),
        (
            "the long pass stopped",
            &[(&long_success, never)],
            &["9h", "1d"],
            &[("Incomplete", long)],
        ),
        ("the long one failed once", &[(&long_success, but_one)], &["12h", "13h", "1d"], &[]),
        ("it failed twice", &[(&long_success, but_two)], &["15h"], &[("Incomplete", long)]),
        ("a hole stays", &[(&long_missing, "2x400")], &["9h", "1d"], &[("Holes", long)]),
        (
            "both see it",
            &[(&missing, "2x400"), (&long_missing, "2x400")],
            &["9h", "1d"],
            &[("Holes", long)],
        ),
        ("it was filled", &[(&long_missing, "0x9 5x72 0x320")], &["4h", "7h", "9h", "1d"], &[]),
        (
            "the first of an hour",
            &[(&mismatches, "_x20 1x99")],
            &["2h"],
            &[("HashMismatches", None)],
        ),
        ("another of it", &[(&mismatches, "1x20 2x99")], &["2h"], &[("HashMismatches", None)]),
        (
            "the last pass is long ago, so single hours cause no alert",
            &[(&mismatches, "_x20 1x399"), (&others, "3x60")],
            &["3h", "5h30m", "1d"],
            &[],
        ),
        ("a node is gone", &[(&given_up, "0x9 1x391")], &["2h"], &[("NodeGivenUp", short)]),
        (
            "and it came back, or was gone from the long pass alone",
            &[(&given_up, "0x9 1x5 0x386"), (&long_given_up, "0x36 1x36 0x328")],
            &["70m", "2h", "5h"],
            &[],
        ),
        (
            "a day was patched by hand, with little success",
            &[(&day_start, never), (&day_missing, "5x400"), (&day_given_up, "1x400")],
            &["9h", "1d"],
            &[],
        ),
    ];
    let healthy = [
        (&start, always),
        (&success, always),
        (&missing, never),
        (&given_up, never),
        (&long_start, long_always),
        (&long_success, long_always),
        (&long_missing, never),
        (&long_given_up, never),
    ];
    let tests = cases.map(|(name, series, times, alerts)| {
        let is_other =
            |(metric, _): &&(&String, &str)| series.iter().all(|(name, _)| name != metric);
        let all = healthy.iter().filter(is_other).chain(series);
        let input = all.map(|(name, values)| json!({"series": name, "values": values}));
        let firing = alerts.iter().map(|(alert, hours)| {
            let hours = hours.map_or(String::new(), |hours| format!(",hours='{hours}'"));
            json!({"labels": format!("{{alertname='Backfiller{alert}'{hours}}}"), "value": 1})
        });
        let firing: Vec<Value> = firing.collect();
        let query = "count by (alertname, hours) (ALERTS{alertstate='firing'})";
        let at = |time| json!({"expr": query, "eval_time": time, "exp_samples": firing});
        json!({
            "name": name,
            "interval": "5m",
            "input_series": input.collect::<Vec<_>>(),
            "promql_expr_test": times.iter().map(at).collect::<Vec<_>>(),
        })
    });
    let test = json!({"rule_files": ["rules.yaml"], "evaluation_interval": "5m", "tests": tests});
    let outcome = promtool(&["test", "rules", "test.yaml"], Some(test));
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}
