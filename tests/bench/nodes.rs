//! Scenarios with several nodes: few files on slow nodes, many nodes with nothing new, and distant
//! nodes of very different rates. Each prints its goal.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::proxy::{Proxy, Way};
use super::server::{self, Served};
use super::{Bench, Contender, LISTING, compare, is_there, median, rounds};

/// Concurrent requests per node by default.
const JOBS: usize = 8;

/// The size of a scenario, which `BACKFILLER_BENCH_PART` may reduce.
fn part_of(whole: usize) -> usize {
    let part = std::env::var("BACKFILLER_BENCH_PART").map(|part| part.parse().expect("a number"));
    (whole / part.unwrap_or(1)).max(1)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

/// One node by this many names, each with its own connections.
fn by_many_names(url: impl Fn(usize) -> String, count: usize) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("n{n}={}", url(n))).collect();
    names.join(",")
}

impl Bench {
    /// A typical scheduled pass: few files are missing, and slow home connections have them.
    pub fn few(&self) {
        const FILES: usize = 10;
        let size = part_of(1_500_000);
        let archive = self.archive("few", 1, FILES, size);
        let way = Way { rate: 500_000, is_rate_of_each: true, ..Way::default() };
        let node = |n: u8| Proxy::start(&format!("127.0.0.{n}"), Bench::address("few"), way);
        let (a, b, alone, for_curl) = (node(1), node(2), node(3), node(4));
        let two = format!("{},{}", a.url(), b.url());
        let (out, list) = (self.base.join("out"), self.base.join("few.curl"));
        let line = |(n, path): (usize, &String)| {
            let (url, to) = (for_curl.url(), out.display());
            format!("url = \"{url}/segments/{path}\"\noutput = \"{to}/{n}\"\n")
        };
        let lines = Bench::paths(&archive).iter().enumerate().map(line).collect::<String>();
        fs::write(&list, lines).unwrap();
        let list = list.display();
        let curl = format!("curl -s --parallel --parallel-max {JOBS} --config {list}");
        println!("  {FILES} files of {size} bytes, each node at 500 kB/s for each connection:");
        let costs = compare(
            &[
                ("backfiller, two nodes", Box::new(|out| Bench::ours(out, &two, &[]))),
                ("backfiller, one node", Box::new(|out| Bench::ours(out, &alone.url(), &[]))),
                ("curl, one node", Box::new(|_| words(&curl))),
            ],
            &out,
        );
        let needed = (rounds() * FILES * size) as f64;
        let sent = (a.sent() + b.sent()) as f64 / needed;
        let ratios = costs[0].iter().zip(&costs[1]).map(|(two, one)| two.seconds / one.seconds);
        println!(
            "  bytes sent / bytes needed {sent:.3} (goal: at most 1.05); \
             time of two nodes / of one {:.2} (goal: at most 1)",
            median(ratios.collect()),
        );
    }

    /// Ten nodes that have everything, as does the archive: the pass only lists.
    pub fn ten(&self) {
        const NODES: usize = 10;
        let hours = part_of(336);
        let archive = self.archive("hours", hours, 1800, 0);
        self.compress_listings("hours");
        let here = archive.to_str().unwrap();
        let slow = SocketAddr::from(([127, 0, 0, 1], 18120));
        let served = Served { is_elsewhere: true, ..self.served("hours", LISTING) };
        // Each of them is busy independently.
        let at = |n: usize| SocketAddr::new(slow.ip(), slow.port() + n as u16);
        (0..NODES).for_each(|n| server::start(at(n), served.clone()));
        println!(
            "  {NODES} nodes, {hours} hours of 1,800 names, compressed; goal: at most 1.1 of curl"
        );
        type Url<'a> = &'a dyn Fn(usize) -> String;
        let urls: [(&str, Url<'_>); 2] = [
            ("listings are files", &|_| Bench::url("hours")),
            ("a listing takes each node 4 ms", &|n| format!("http://{}", at(n))),
        ];
        for (what, url) in urls {
            println!("  {what}:");
            let ours = Bench::ours(here, &by_many_names(url, NODES), &[]);
            let list = self.base.join("ten.curl");
            fs::write(&list, listing_requests(&archive, (0..NODES).map(url))).unwrap();
            let (list, most) = (list.display(), NODES * JOBS);
            let curl = format!("curl -s --parallel --parallel-max {most} --config {list}");
            let mut bare = words(&curl);
            bare.extend(["-H".into(), "Accept-Encoding: gzip".into()]);
            let unpacked = words(&format!("{curl} --compressed"));
            compare(
                &[
                    ("backfiller", Box::new(|_| ours.clone())),
                    ("curl, bare", Box::new(|_| bare.clone())),
                    ("curl, uncompressing", Box::new(|_| unpacked.clone())),
                ],
                &self.base.join("out"),
            );
        }
    }

    /// Stores a compressed copy beside each listing, as nginx would compress it.
    fn compress_listings(&self, name: &str) {
        let listings = self.base.join(format!("{name}-files/bench/source"));
        for listing in fs::read_dir(&listings).unwrap().flatten() {
            let path = listing.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let compressed = File::create(path.with_extension("json.gz")).unwrap();
                // The compression level of nginx.
                let mut gzip = GzEncoder::new(compressed, Compression::new(1));
                io::copy(&mut File::open(&path).unwrap(), &mut gzip).unwrap();
                gzip.finish().unwrap();
            }
        }
    }

    /// Nodes of very different rates, far away: the slowest must not hold up the end.
    pub fn uneven(&self) {
        const RATES: [u64; 3] = [5, 2, 1];
        let files = part_of(240);
        let archive = self.archive("uneven", 1, files, 1_500_000);
        let start = |(n, rate): (usize, u64)| {
            let delay = Duration::from_millis(50);
            let way = Way { rate: rate * 1_000_000, delay, ..Way::default() };
            Proxy::start(&format!("127.0.0.{}", n + 1), Bench::address("uneven"), way)
        };
        let nodes: Vec<Proxy> = RATES.into_iter().enumerate().map(start).collect();
        let urls: Vec<String> = nodes.iter().map(Proxy::url).collect();
        let list = self.base.join("uneven.aria");
        fs::write(&list, mirrors(&archive, &urls)).unwrap();
        let nodes_list = urls.join(",");
        let mut contenders: Vec<Contender<'_>> =
            vec![("backfiller", Box::new(|out| Bench::ours(out, &nodes_list, &[])))];
        if is_there("aria2c") {
            let list = list.display();
            let aria = format!("aria2c -q -j {JOBS} --file-allocation=none -i {list} -d");
            contenders
                .push(("aria2c, mirrors", Box::new(move |out| words(&format!("{aria} {out}")))));
        }
        println!("  {files} files of 1.5 MB, nodes at 5, 2 and 1 MB/s, 50 ms each way:");
        let costs = compare(&contenders, &self.base.join("out"));
        let seconds = median(costs[0].iter().map(|cost| cost.seconds).collect());
        let (rate, sum) = (files as f64 * 1.5 / seconds, RATES.iter().sum::<u64>() as f64);
        println!("  {rate:.2} MB/s: {:.3} of the sum (goal: 0.97)", rate / sum);
    }
}

/// The requests of a pass to nodes at these URLs, as a curl configuration.
fn listing_requests(archive: &Path, urls: impl Iterator<Item = String>) -> String {
    let hours = fs::read_dir(archive.join("bench/source")).unwrap().flatten();
    let hours: Vec<String> = hours.map(|hour| hour.file_name().into_string().unwrap()).collect();
    let mut text = String::new();
    for url in urls {
        for hour in &hours {
            let url = format!("{url}/files/bench/source/{hour}?tombstones=true");
            text += &format!("url = \"{url}\"\noutput = \"/dev/null\"\n");
        }
    }
    text
}

/// Each file with all its URLs, as input for aria2c.
fn mirrors(archive: &Path, urls: &[String]) -> String {
    let line = |path: &String| {
        let places: Vec<String> = urls.iter().map(|url| format!("{url}/segments/{path}")).collect();
        format!("{}\n out={}\n", places.join("\t"), path.replace('/', "_"))
    };
    Bench::paths(archive).iter().map(line).collect()
}
