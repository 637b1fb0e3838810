//! Busy nodes: nginx in front of a node answers 503 to requests above its limit.

mod node;
mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use node::segment_name;
use support::{Archive, HOUR, Outcome, each_case, has_tool};

/// An nginx that serves an archive as a node does. It ends when it is dropped.
struct Nginx {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nginx {
    /// Serves this many segments of 20 kB, with the directives `outside` in `http { }` and `inside`
    /// in the `location` of segments.
    fn start(segments: usize, outside: &str, inside: &str) -> Nginx {
        let dir = tempfile::tempdir().unwrap();
        // Its workers may run as a different user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let names: Vec<String> = (0..segments)
            .map(|n| {
                let content = vec![n as u8; 20_000];
                let name = segment_name(&format!("00:{n:02}.0-2.0-full"), &content);
                write(dir.path(), &format!("segments/desertbus/source/{HOUR}/{name}"), &content);
                name
            })
            .collect();
        let listing = serde_json::to_vec(&names).unwrap();
        write(dir.path(), "listings/desertbus/source.json", format!("[\"{HOUR}\"]").as_bytes());
        write(dir.path(), &format!("listings/desertbus/source/{HOUR}.json"), &listing);
        // This port was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = dir.path().display();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/log;
            events {{}}
            http {{
                access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;
                fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                {outside}
                server {{
                    listen 127.0.0.1:{port};
                    location ~ ^/files/(.*)$ {{ root {root}/listings; try_files /$1.json =404; }}
                    location /segments/ {{ root {root}; {inside} }}
                }}
            }}"
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let process = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .args(["-e", "log", "-c", "nginx.conf"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Nginx { process, url: format!("http://127.0.0.1:{port}"), _dir: dir };
        support::wait_for_port(port);
        nginx
    }

    fn fill(&self, options: &[&str]) -> (Archive, Outcome) {
        let archive = Archive::new();
        let args = [&*self.url, "desertbus", "source"].into_iter().chain(options.iter().copied());
        let outcome = archive.backfill(args).run();
        archive.assert_whole();
        (archive, outcome)
    }
}

fn write(dir: &Path, path: &str, content: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn a_node_that_serves_four_at_a_time_is_used_fully() {
    if !has_tool("nginx") {
        return;
    }
    // Each segment takes a fifth of a second.
    let nginx = Nginx::start(
        40,
        "limit_conn_zone $binary_remote_addr zone=c:1m;",
        "limit_conn c 4; limit_rate 100k;",
    );
    let (archive, four) = nginx.fill(&["-j4"]);
    four.assert_silent_success();
    assert_eq!(archive.names().len(), 40);
    let (archive, eight) = nginx.fill(&[]);
    eight.assert_silent_success();
    assert_eq!(archive.names().len(), 40);
    // A pause of a second after each refusal would make it take several times as long.
    let longest = four.took * 2 + Duration::from_secs(1);
    assert!(eight.took < longest, "{:?} and {:?}", eight.took, four.took);
}

#[test]
fn a_node_with_a_request_limit_gives_everything() {
    if !has_tool("nginx") {
        return;
    }
    each_case(["burst=10", "burst=2 nodelay"], |burst| {
        let nginx = Nginx::start(
            30,
            "limit_req_zone $binary_remote_addr zone=r:1m rate=20r/s;",
            &format!("limit_req zone=r {burst};"),
        );
        let (archive, outcome) = nginx.fill(&[]);
        outcome.assert_silent_success();
        assert_eq!(archive.names().len(), 30);
    });
}
