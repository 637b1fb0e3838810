//! The benchmark compares passes of the release binary with alternatives, on archives that it
//! creates. The contenders take turns (A B A B), and medians of the ratios are printed.
//!
//! `cargo bench --bench bench` runs all scenarios, which takes about twenty minutes;
//! `cargo bench --bench bench -- bulk small` runs only these.
//!
//! `BACKFILLER_BENCH_ROUNDS` sets how often each contender runs (5). `BACKFILLER_BENCH_PART=10`
//! makes the archives of the scenarios with several nodes a tenth as large, to check that they
//! work.
//!
//! It needs curl, GNU time and strace, 6 GiB of tmpfs, and some disk space. nginx is the server if
//! it is installed, otherwise a node of our own. rclone, aria2c, wget2 and rsync are compared if
//! they are installed. `NOTES.md` beside this file has the measurements and experiments. Nothing is
//! asserted.

mod nodes;
mod proxy;
mod server;

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proxy::{Proxy, Way};
use server::Served;
use sha2::{Digest, Sha256};

/// How often each contender runs by default (`BACKFILLER_BENCH_ROUNDS`).
const ROUNDS: usize = 5;
const PORTS: [(&str, u16); 8] = [
    ("bulk", 18101),
    ("small", 18102),
    ("names", 18103),
    ("middle", 18104),
    ("third", 18105),
    ("few", 18106),
    ("hours", 18107),
    ("uneven", 18108),
];
/// How long a node that is a single Python process takes for a listing of 1,800 names.
const LISTING: Duration = Duration::from_millis(4);

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let bench = Bench::set_up();
    for (name, run) in [
        ("bulk", Bench::bulk as fn(&Bench)),
        ("small", Bench::small),
        ("nothing", Bench::nothing),
        ("far", Bench::far),
        ("several", Bench::several),
        ("uneven", Bench::uneven),
        ("few", Bench::few),
        ("ten", Bench::ten),
        ("hung", Bench::hung),
        ("memory", Bench::memory),
        ("disk", Bench::disk),
        ("start", Bench::start),
        ("coverage", Bench::coverage),
    ] {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("\n{name}");
            run(&bench);
        }
    }
}

fn rounds() -> usize {
    let set = std::env::var("BACKFILLER_BENCH_ROUNDS");
    set.map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"))
}

/// The resources that a command used.
#[derive(Clone, Copy, Debug)]
struct Cost {
    seconds: f64,
    user: f64,
    system: f64,
    peak_kib: f64,
}

impl Cost {
    fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs a command, which must succeed. Returns the resources that it used.
fn cost(command: &[&str]) -> Cost {
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%U %S %M", "-o"]).arg(report.path()).args(command);
    let begun = Instant::now();
    let status = timed.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    let text = fs::read_to_string(report.path()).unwrap();
    assert!(status.success(), "{command:?}: {text}");
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    Cost { seconds, user: numbers[0], system: numbers[1], peak_kib: numbers[2] }
}

fn is_there(tool: &str) -> bool {
    let look = format!("command -v {tool}");
    let found = Command::new("sh").args(["-c", &look]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// A contender: its name, and the command that it runs in an empty directory.
type Contender<'a> = (&'a str, Box<dyn Fn(&str) -> Vec<String> + 'a>);

/// Runs all contenders in turn, several times, each into an empty directory. Prints the resources
/// used, and how the first compares.
fn compare(contenders: &[Contender<'_>], out: &Path) -> Vec<Vec<Cost>> {
    let mut costs = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds() {
        for ((_, command), costs) in contenders.iter().zip(&mut costs) {
            let _ = fs::remove_dir_all(out);
            fs::create_dir_all(out).unwrap();
            let command = command(out.to_str().unwrap());
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            costs.push(cost(&command));
        }
    }
    let _ = fs::remove_dir_all(out);
    for ((name, _), theirs) in contenders.iter().zip(&costs) {
        let of = |pick: fn(&Cost) -> f64| median(theirs.iter().map(pick).collect());
        let ratio = |pick: fn(&Cost) -> f64| {
            median(
                costs[0]
                    .iter()
                    .zip(theirs)
                    .map(|(ours, theirs)| pick(ours) / pick(theirs))
                    .collect(),
            )
        };
        println!(
            "  {name:<22} {:6.2} s  user {:5.2}  system {:5.2}  peak {:5.1} MiB   ours/this: time {:4.2}  cpu {:4.2}",
            of(|c| c.seconds),
            of(|c| c.user),
            of(|c| c.system),
            of(|c| c.peak_kib) / 1024.0,
            ratio(|c| c.seconds),
            ratio(|c| c.cpu()),
        );
    }
    costs
}

struct Bench {
    base: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.nginx(&["-s", "stop"]);
        let _ = fs::remove_dir_all(&self.base);
    }
}

impl Bench {
    fn set_up() -> Bench {
        let base = PathBuf::from(format!("/dev/shm/backfiller-bench-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let bench = Bench { base };
        let mut servers = String::new();
        for (name, port) in PORTS {
            let compressed = if name == "hours" { "gzip_static on; " } else { "" };
            servers += &format!(
                "server {{ listen 127.0.0.1:{port}; \
                 location /files/ {{ rewrite ^/files/(.*)$ /$1.json break; root {base}/{name}-files; {compressed}}} \
                 location /segments/ {{ alias {base}/{name}/; autoindex on; }} }}\n",
                base = bench.base.display(),
            );
        }
        let config = format!(
            "worker_processes 2; pid {base}/nginx.pid; error_log {base}/nginx.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; default_type video/mp2t;\n{servers}}}\n",
            base = bench.base.display(),
        );
        fs::write(bench.base.join("nginx.conf"), config).unwrap();
        if is_there("nginx") {
            bench.nginx(&[]);
        } else {
            println!("nginx is missing: the benchmark's own node serves in its place");
            for (name, _) in PORTS {
                server::start(Bench::address(name), bench.served(name, Duration::ZERO));
            }
        }
        bench
    }

    fn served(&self, name: &str, takes: Duration) -> Served {
        let (archive, listings) = (self.base.join(name), self.base.join(format!("{name}-files")));
        Served { listings, archive, takes, is_elsewhere: false }
    }

    fn nginx(&self, options: &[&str]) {
        let config = self.base.join("nginx.conf");
        let mut nginx = Command::new("nginx");
        let _ = nginx.arg("-c").arg(config).args(options).stderr(Stdio::null()).status();
    }

    /// Creates the archive `bench/source` once, with this many segments of this size in this many
    /// hours.
    fn archive(&self, name: &str, hours: usize, per_hour: usize, size: usize) -> PathBuf {
        let (archive, files) = (self.base.join(name), self.base.join(format!("{name}-files")));
        if archive.exists() {
            return archive;
        }
        let mut content: Vec<u8> =
            (0..size).map(|n| ((n * 2_654_435_761_usize) >> 13) as u8).collect();
        let mut names_of_hours = Vec::new();
        for hour in 0..hours {
            let place = format!(
                "bench/source/2018-{:02}-{:02}T{:02}",
                1 + hour / 672,
                1 + hour / 24 % 28,
                hour % 24
            );
            names_of_hours.push(place.rsplit('/').next().unwrap().to_owned());
            fs::create_dir_all(archive.join(&place)).unwrap();
            let mut names = Vec::new();
            for n in 0..per_hour {
                let stamp = (hour * per_hour + n).to_le_bytes();
                let at = size.saturating_sub(stamp.len());
                content[at..].copy_from_slice(&stamp[..size - at]);
                // If the content is empty, only the names matter.
                let hashed = if size == 0 { &stamp[..] } else { &content };
                let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(hashed));
                let start = n as f64 * 3600.0 / per_hour as f64;
                let name =
                    format!("{:02}:{:09.6}-2.0-full-{hash}.ts", start as u32 / 60, start % 60.0);
                File::create(archive.join(&place).join(&name))
                    .unwrap()
                    .write_all(&content)
                    .unwrap();
                names.push(name);
            }
            let listing = files.join(format!("{place}.json"));
            fs::create_dir_all(listing.parent().unwrap()).unwrap();
            fs::write(listing, format!("[\"{}\"]", names.join("\", \""))).unwrap();
        }
        fs::write(
            files.join("bench/source.json"),
            format!("[\"{}\"]", names_of_hours.join("\", \"")),
        )
        .unwrap();
        archive
    }

    fn url(name: &str) -> String {
        format!("http://{}", Bench::address(name))
    }

    fn address(name: &str) -> SocketAddr {
        let (_, port) = PORTS.iter().find(|(known, _)| *known == name).unwrap();
        SocketAddr::from(([127, 0, 0, 1], *port))
    }

    /// Our command into a directory, from these nodes.
    fn ours(out: &str, nodes: &str, options: &[&str]) -> Vec<String> {
        let binary = env!("CARGO_BIN_EXE_backfiller");
        let command = [binary, "-q", "-d", out, nodes, "bench", "source"];
        command.iter().chain(options).map(|word| word.to_string()).collect()
    }

    /// The files of an archive by path.
    fn paths(archive: &Path) -> Vec<String> {
        let mut paths = Vec::new();
        let source = archive.join("bench/source");
        for hour in fs::read_dir(&source).unwrap().flatten() {
            let hour_name = hour.file_name().into_string().unwrap();
            for file in fs::read_dir(hour.path()).unwrap().flatten() {
                paths.push(format!(
                    "bench/source/{hour_name}/{}",
                    file.file_name().to_str().unwrap()
                ));
            }
        }
        paths
    }

    fn fetching(&self, name: &str, archive: &Path) {
        let url = Bench::url(name);
        let paths = Bench::paths(archive);
        let curl_list = self.base.join(format!("{name}.curl"));
        let list = self.base.join(format!("{name}.list"));
        let aria_list = self.base.join(format!("{name}.aria"));
        // curl and aria2c create directories only on request for each file; a flat directory is
        // easier for them.
        let flat = |path: &String| path.replace('/', "_");
        let lines = |line: &dyn Fn(&String) -> String| paths.iter().map(line).collect::<String>();
        let out = self.base.join("out");
        let to = out.to_str().unwrap().to_owned();
        fs::write(
            &curl_list,
            lines(&|p| format!("url = \"{url}/segments/{p}\"\noutput = \"{to}/{}\"\n", flat(p))),
        )
        .unwrap();
        fs::write(&list, lines(&|p| format!("{url}/segments/{p}\n"))).unwrap();
        fs::write(&aria_list, lines(&|p| format!("{url}/segments/{p}\n out={}\n", flat(p))))
            .unwrap();
        let words = |text: String| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        let curl = format!("curl -s --parallel --parallel-max 8 --config {}", curl_list.display());
        let rsync = is_there("rsync").then(|| Rsync::start(&self.base, archive));
        let mut contenders: Vec<Contender<'_>> = vec![
            ("backfiller", Box::new(|out| Bench::ours(out, &url, &[]))),
            ("curl --parallel", Box::new(|_| words(curl.clone()))),
        ];
        if is_there("openssl") {
            // Each hash is computed, as is needed to know that a file is right.
            let check = "find \"$0\" -type f -print0 | xargs -0 -n 100 -P 2 openssl dgst -sha256";
            let both = format!("{curl} && {check}");
            contenders.push((
                "curl, then openssl",
                Box::new(move |out| ["sh", "-c", &both, out].map(String::from).to_vec()),
            ));
        }
        if is_there("rclone") {
            contenders.push(("rclone copy", Box::new(|out| words(format!(
                "rclone copy --config /dev/null --transfers 8 --checkers 8 --http-url {url}/segments/ :http:bench {out}")))));
        }
        if is_there("aria2c") {
            contenders.push(("aria2c", Box::new(|out| words(format!(
                "aria2c -q -j 8 --file-allocation=none --auto-file-renaming=false -d {out} -i {}", aria_list.display())))));
        }
        if is_there("wget2") {
            contenders.push((
                "wget2",
                Box::new(|out| {
                    words(format!("wget2 -q --max-threads 8 -nH -x -P {out} -i {}", list.display()))
                }),
            ));
        }
        if let Some(rsync) = &rsync {
            contenders.push((
                "rsync (one stream)",
                Box::new(|out| words(format!("rsync -r {}/bench {out}/", rsync.url))),
            ));
        }
        compare(&contenders, &out);
        self.syscalls(&url, paths.len());
    }

    fn syscalls(&self, url: &str, segments: usize) {
        let (out, report) = (self.base.join("out"), self.base.join("strace"));
        fs::create_dir_all(&out).unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-o"]).arg(&report).args(Bench::ours(
            out.to_str().unwrap(),
            url,
            &[],
        ));
        if strace.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            let text = fs::read_to_string(&report).unwrap();
            let total = text.lines().last().unwrap().split_whitespace().nth(3).unwrap();
            let total: f64 = total.parse().unwrap();
            println!("  system calls a segment: {:.1}", total / segments as f64);
        }
        let _ = fs::remove_dir_all(&out);
    }

    fn bulk(&self) {
        let archive = self.archive("bulk", 1, 1800, 1_500_000);
        self.fetching("bulk", &archive);
    }

    fn small(&self) {
        let archive = self.archive("small", 10, 2000, 20_000);
        self.fetching("small", &archive);
    }

    fn nothing(&self) {
        let archive = self.archive("names", 336, 1800, 0);
        let here = archive.to_str().unwrap();
        let slow = SocketAddr::from(([127, 0, 0, 1], 18110));
        server::start(slow, self.served("names", LISTING));
        for (what, url) in [
            ("listings are files", Bench::url("names")),
            ("a listing takes the node 4 ms", format!("http://{slow}")),
        ] {
            println!("  {what}:");
            let ours = Bench::ours(here, &url, &[]);
            let curl = self.listing_alone(&archive, &url);
            let costs = compare(
                &[
                    ("backfiller", Box::new(|_| ours.clone())),
                    ("curl, listing alone", Box::new(|_| curl.clone())),
                ],
                &self.base.join("out"),
            );
            let user = median(costs[0].iter().map(|cost| cost.user).collect());
            println!("  user CPU a name: {:.2} µs", user * 1e6 / (336.0 * 1800.0));
        }
    }

    /// curl with the requests of a pass.
    fn listing_alone(&self, archive: &Path, url: &str) -> Vec<String> {
        let config = self.base.join("names.curl");
        let hours = fs::read_dir(archive.join("bench/source")).unwrap().flatten();
        let line = |hour: fs::DirEntry| {
            let hour = hour.file_name().into_string().unwrap();
            let url = format!("{url}/files/bench/source/{hour}?tombstones=true");
            format!("url = \"{url}\"\noutput = \"/dev/null\"\n")
        };
        fs::write(&config, hours.map(line).collect::<String>()).unwrap();
        let config = config.to_str().unwrap();
        let command = ["curl", "-s", "--parallel", "--parallel-max", "8", "--config", config];
        command.map(String::from).to_vec()
    }

    fn coverage(&self) {
        let archive = self.archive("names", 336, 1800, 0);
        let (here, url) = (archive.to_str().unwrap(), Bench::url("names"));
        let ours = |options: &[&str]| Bench::ours(here, &url, options);
        let costs = compare(
            &[
                ("with --coverage", Box::new(|_| ours(&["--coverage"]))),
                ("without", Box::new(|_| ours(&[]))),
            ],
            &self.base.join("out"),
        );
        let more =
            costs[0].iter().zip(&costs[1]).map(|(with, without)| with.seconds - without.seconds);
        println!("  the map of 336 hours takes {:.2} s more", median(more.collect()));
    }

    fn far(&self) {
        self.archive("middle", 2, 1000, 20_000);
        let way = Way { delay: Duration::from_millis(50), ..Way::default() };
        let proxy = Proxy::start("127.0.0.1", Bench::address("middle"), way);
        let out = self.base.join("out");
        let mut seconds = Vec::new();
        let mut connections = Vec::new();
        for _ in 0..rounds() {
            let before = proxy.connections();
            seconds.push(self.once(&out, &proxy.url(), &["-j", "16"]));
            connections.push((proxy.connections() - before) as f64);
        }
        let ideal = 2000.0 / 16.0 * 0.1;
        println!(
            "  2,000 segments of 20 kB, 50 ms each way, -j 16: {:.2} s; {:.2} of (2000 / 16) round trips; {} connections",
            median(seconds.clone()),
            median(seconds) / ideal,
            median(connections),
        );
    }

    /// The seconds that a pass into an empty directory takes.
    fn once(&self, out: &Path, nodes: &str, options: &[&str]) -> f64 {
        let _ = fs::remove_dir_all(out);
        fs::create_dir_all(out).unwrap();
        let command = Bench::ours(out.to_str().unwrap(), nodes, options);
        let begun = Instant::now();
        let status = Command::new(&command[0]).args(&command[1..]).status().unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        assert!(matches!(status.code(), Some(0 | 3)), "{status}");
        let _ = fs::remove_dir_all(out);
        seconds
    }

    fn several(&self) {
        self.archive("third", 1, 600, 1_500_000);
        let out = self.base.join("out");
        for (what, rates) in
            [("three at 10 MB/s", [10, 10, 10]), ("one of them at 1 MB/s", [10, 10, 1])]
        {
            let proxies: Vec<Proxy> = rates
                .iter()
                .zip(1..)
                .map(|(rate, n)| {
                    let way = Way { rate: rate * 1_000_000, ..Way::default() };
                    Proxy::start(&format!("127.0.0.{n}"), Bench::address("third"), way)
                })
                .collect();
            let urls: Vec<String> = proxies.iter().map(Proxy::url).collect();
            let seconds = self.once(&out, &urls.join(","), &[]);
            let rate = 600.0 * 1.5 / seconds;
            let ideal = rates.iter().sum::<u64>() as f64;
            println!("  {what}: {seconds:.1} s, {rate:.1} MB/s, {:.3} of {ideal}", rate / ideal);
        }
    }

    fn hung(&self) {
        self.archive("middle", 2, 1000, 20_000);
        let good = |n| {
            Proxy::start(
                &format!("127.0.0.{n}"),
                Bench::address("middle"),
                Way { rate: 4_000_000, ..Way::default() },
            )
        };
        let (a, b) = (good(1), good(2));
        let silent = Proxy::start(
            "127.0.0.3",
            Bench::address("middle"),
            Way { silent: true, ..Way::default() },
        );
        let out = self.base.join("out");
        for timeout in ["1s", "8s"] {
            let without = self.once(&out, &format!("{},{}", a.url(), b.url()), &[]);
            let with = self.once(
                &out,
                &format!("{},{},{}", a.url(), b.url(), silent.url()),
                &["--timeout", timeout],
            );
            println!(
                "  without the hung node {without:.2} s, with it {with:.2} s at a timeout of {timeout}"
            );
        }
    }

    fn memory(&self) {
        for hours in [34, 336] {
            let archive = self.archive("names", 336, 1800, 0);
            let selected = format!(
                "2018-01-01T00..2018-01-{:02}T{:02}",
                1 + (hours - 1) / 24,
                (hours - 1) % 24
            );
            let command =
                Bench::ours(archive.to_str().unwrap(), &Bench::url("names"), &[&selected]);
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let peaks = (0..rounds()).map(|_| cost(&command).peak_kib).collect();
            println!(
                "  {} names, nothing to do: peak {:.1} MiB",
                hours * 1800,
                median(peaks) / 1024.0
            );
        }
    }

    fn disk(&self) {
        self.archive("bulk", 1, 1800, 1_500_000);
        self.archive("small", 10, 2000, 20_000);
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-out");
        for name in ["bulk", "small"] {
            println!("  {name}, on a disk:");
            let url = Bench::url(name);
            compare(
                &[
                    ("backfiller", Box::new(|out| Bench::ours(out, &url, &[]))),
                    (
                        "backfiller --no-fsync",
                        Box::new(|out| Bench::ours(out, &url, &["--no-fsync"])),
                    ),
                ],
                &out,
            );
        }
    }

    fn start(&self) {
        let binary = env!("CARGO_BIN_EXE_backfiller");
        let time = |command: &[&str]| {
            let runs = (0..200).map(|_| {
                let begun = Instant::now();
                let mut run = Command::new(command[0]);
                run.args(&command[1..])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .unwrap();
                begun.elapsed().as_secs_f64() * 1e3
            });
            median(runs.collect())
        };
        let (nothing, version) = (time(&["/bin/true"]), time(&[binary, "--version"]));
        println!("  /bin/true {nothing:.2} ms, --version {version:.2} ms");
        // Three hours of a stream that is here already.
        let archive = self.archive("names", 336, 1800, 0);
        let url = Bench::url("names");
        let pass = Bench::ours(archive.to_str().unwrap(), &url, &["2018-01-14T21..2018-01-14T23"]);
        let pass: Vec<&str> = pass.iter().map(String::as_str).collect();
        let listing = format!("{url}/files/bench/source");
        let hours: Vec<String> =
            (21..24).map(|hour| format!("{listing}/2018-01-14T{hour}")).collect();
        let curl = ["curl", "-s", "-o", "/dev/null", &listing, &hours[0], &hours[1], &hours[2]];
        println!(
            "  a pass of three hours with nothing to do {:.2} ms, curl for its four listings {:.2} ms",
            time(&pass),
            time(&curl)
        );
    }
}

/// An rsync daemon.
struct Rsync {
    url: String,
    daemon: std::process::Child,
}

impl Rsync {
    fn start(base: &Path, archive: &Path) -> Rsync {
        let config = base.join("rsyncd.conf");
        let text = format!(
            "use chroot = no\n[archive]\npath = {}\nuid = root\ngid = root\n",
            archive.display()
        );
        fs::write(&config, text).unwrap();
        let mut rsync = Command::new("rsync");
        rsync
            .args(["--daemon", "--no-detach", "--address=127.0.0.1", "--port=18200", "--config"])
            .arg(config);
        let daemon = rsync.spawn().unwrap();
        let url = "rsync://127.0.0.1:18200/archive".to_owned();
        while std::net::TcpStream::connect("127.0.0.1:18200").is_err() {
            thread::sleep(Duration::from_millis(10));
        }
        Rsync { url, daemon }
    }
}

impl Drop for Rsync {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
