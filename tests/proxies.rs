//! Proxies, with the same rules as curl: requests through them, logins and exceptions.

mod node;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use node::raw::{self, Raw};
use node::{Authority, Node};
use support::{Archive, Outcome, Run, fill, has_tool, is_root};

/// A pass over one node.
fn pass(archive: &Archive, url: &str) -> Run {
    archive.backfill([url, "desertbus", "source", "--retries=0", "--timeout=5s", "-j2"])
}

/// Relays bytes both ways until both sides have ended.
fn splice(one: TcpStream, other: TcpStream) {
    let (mut from, mut to) = (one.try_clone().unwrap(), other.try_clone().unwrap());
    let back = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (other, one);
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = back.join();
}

/// A server on loopback that handles each connection with this function.
fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            thread::spawn(move || handle(stream));
        }
    });
    address
}

// ---- HTTP proxies -----------------------------------------------------------------------------

/// A proxy that forwards requests for whole URLs and refuses CONNECT, as squid does by default
/// except for port 443.
fn forwarder() -> Raw {
    Raw::start(|head| {
        let Some(url) = head.split(' ').nth(1).and_then(|url| url.strip_prefix("http://")) else {
            return Some(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec());
        };
        let (authority, path) = url.split_once('/').unwrap();
        let Ok(mut server) = TcpStream::connect(authority) else {
            let head =
                "HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n";
            return Some(format!("{head}Content-Length: 0\r\n\r\n").into_bytes());
        };
        let headers = head.split_once("\r\n").unwrap().1;
        write!(server, "GET /{path} HTTP/1.1\r\nConnection: close\r\n{headers}").unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).unwrap();
        let closes = b"Connection: close\r\n";
        let at = answer.windows(closes.len()).position(|part| part == closes).unwrap();
        answer.drain(at..at + closes.len());
        Some(answer)
    })
}

#[test]
fn a_proxy_gets_the_whole_url_of_an_http_node() {
    let (node, proxy) = (Node::start(), forwarder());
    let names = fill(&node, 20);
    let archive = Archive::new();
    let url = node.url().replace("://", "://me:secret@");
    let login = proxy.url().replace("://", "://you:s%3Acret@");
    pass(&archive, &url).env("http_proxy", login).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    for head in proxy.heads() {
        assert!(head.starts_with(&format!("GET {}/", node.url())), "{head}");
        // `you:s:cret` and `me:secret`.
        assert!(head.contains("\r\nProxy-Authorization: Basic eW91OnM6Y3JldA==\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\nauthorization: basic bwu6c2vjcmv0\r\n"));
    }
    let url = node.url();
    let host = url.strip_prefix("http://").unwrap();
    assert!(node.requests().iter().all(|request| request.header("host") == Some(host)));
}

#[test]
fn no_proxy_covers_the_same_hosts_as_curl_s() {
    let (node, proxy) = (Node::start(), forwarder());
    fill(&node, 1);
    let archive = Archive::new();
    for (no_proxy, is_direct) in
        [("127.0.0.0/8", true), ("x.test, 127.0.0.1", true), ("*", true), ("128.0.0.0/8", false)]
    {
        let before = proxy.heads().len();
        let run = pass(&archive, &node.url()).env("http_proxy", proxy.url());
        run.env("no_proxy", no_proxy).run().assert_silent_success();
        assert_eq!(proxy.heads().len() == before, is_direct, "{no_proxy}");
    }
}

#[test]
fn the_reason_of_a_failing_proxy_is_reported() {
    let (proxy, archive) = (forwarder(), Archive::new());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said =
        format!("the proxy {}: it can't reach the node (ERR_CONNECT_FAIL 111)", proxy.address());
    let run = pass(&archive, &format!("http://{closed}"));
    run.env("http_proxy", proxy.url()).run().assert_code(4).assert_says(&said);
    // CONNECT to a port other than 443 is refused.
    let run = pass(&archive, &format!("https://{closed}"));
    let outcome = run.env("https_proxy", proxy.url()).run();
    outcome.assert_code(4).assert_says("the proxy refuses to connect to it (HTTP 403)");

    let closes = Raw::start(|_| {
        Some(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    for (variable, scheme) in [("http_proxy", "http"), ("https_proxy", "https")] {
        let run = pass(&archive, &format!("{scheme}://127.0.0.1:1"));
        let outcome = run.env(variable, closes.url()).run();
        outcome.assert_code(4).assert_says("requires a user name and password");
    }
}

#[test]
fn an_https_node_is_reached_by_connect() {
    let authority = Authority::new();
    let node = Node::start_tls(&authority);
    let names = fill(&node, 5);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = asked.clone();
    let proxy = serve(move |mut stream| {
        let Some(head) = raw::read_head(&mut stream) else { return };
        let to = head.split(' ').nth(1).unwrap().to_owned();
        heads.lock().unwrap().push(head);
        let Ok(server) = TcpStream::connect(to) else { return };
        stream.write_all(b"HTTP/1.1 200 Connected\r\nX: y\r\n\r\n").unwrap();
        splice(stream, server);
    });
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("trusted.pem");
    fs::write(&trusted, authority.pem()).unwrap();
    let archive = Archive::new();
    let run = pass(&archive, &node.url()).env("https_proxy", format!("http://me:x@{proxy}"));
    run.env("SSL_CERT_FILE", &trusted).run().assert_silent_success();
    assert_eq!(archive.names(), names);
    let asked = asked.lock().unwrap();
    let start = format!("CONNECT {} HTTP/1.1\r\n", node.url().replace("https://", ""));
    assert!(asked.iter().all(|head| head.starts_with(&start)), "{asked:?}");
    assert!(asked.iter().all(|head| head.contains("\r\nProxy-Authorization: Basic bWU6eA==\r\n")));
    // Each connection serves several requests.
    assert!(asked.len() <= 2, "{asked:?}");
}

#[test]
fn socks5h_leaves_the_lookup_to_the_proxy() {
    for (scheme, name) in [("socks5h", "localhost"), ("socks5", "")] {
        let node = Node::start();
        let names = fill(&node, 5);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let goals = asked.clone();
        let proxy = serve(move |mut stream| {
            let read = |stream: &mut TcpStream, length: usize| {
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes).map(|()| bytes)
            };
            let Ok(greeting) = read(&mut stream, 3) else { return };
            assert_eq!(greeting, [5, 1, 0]);
            stream.write_all(&[5, 0]).unwrap();
            let kind = read(&mut stream, 4).unwrap()[3];
            let host = match kind {
                1 => read(&mut stream, 4).map(|_| String::new()).unwrap(),
                4 => read(&mut stream, 16).map(|_| String::new()).unwrap(),
                _ => {
                    let length = read(&mut stream, 1).unwrap()[0];
                    String::from_utf8(read(&mut stream, length.into()).unwrap()).unwrap()
                }
            };
            let port = read(&mut stream, 2).unwrap();
            goals.lock().unwrap().push(host);
            let port = u16::from_be_bytes([port[0], port[1]]);
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            splice(stream, server);
        });
        let archive = Archive::new();
        let url = node.url().replace("127.0.0.1", "localhost");
        let run = pass(&archive, &url).env("all_proxy", format!("{scheme}://{proxy}"));
        run.run().assert_silent_success();
        assert_eq!(archive.names(), names);
        let asked = asked.lock().unwrap();
        assert!(!asked.is_empty() && asked.iter().all(|host| host == name), "{asked:?}");
    }
}

// ---- squid ------------------------------------------------------------------------------------

/// Debian's squid with its default configuration, on a port of its own.
struct Squid {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Squid {
    /// Starts it with these lines before the default configuration.
    fn start(lines: &str) -> Squid {
        let dir = tempfile::tempdir().unwrap();
        // It drops root privileges.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.path().join("users"), user_line()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = dir.path().display();
        let lines = lines.replace("DIR", &path.to_string());
        let default = fs::read_to_string("/etc/squid/squid.conf").unwrap();
        let default = default.replace("http_port 3128", &format!("http_port 127.0.0.1:{port}"));
        let own = format!(
            "pid_filename {path}/pid\ncache_log {path}/cache.log\naccess_log none\n\
             visible_hostname test\nshutdown_lifetime 0 seconds\npinger_enable off\n"
        );
        let config = dir.path().join("squid.conf");
        fs::write(&config, format!("{lines}\n{default}\n{own}")).unwrap();
        let mut squid = Command::new("squid");
        squid.arg("-N").arg("-f").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = squid.spawn().unwrap();
        let squid = Squid { process, port, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "squid doesn't start");
            thread::sleep(Duration::from_millis(20));
        }
        squid
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `me` with the password `secret`, as htpasswd writes it.
fn user_line() -> String {
    "me:$apr1$salt0123$gKnQgbZBECHJhdPPmZ5Dt1\n".to_owned()
}

fn through(squid: &Squid, login: &str, archive: &Archive, node: &Node) -> Outcome {
    let proxy = squid.url().replace("://", &format!("://{login}"));
    pass(archive, &node.url()).env("http_proxy", proxy).run()
}

#[test]
fn squid_in_its_default_configuration_forwards() {
    if !is_root() || !has_tool("squid") {
        return;
    }
    let squid = Squid::start("");
    let node = Node::start();
    let names = fill(&node, 30);
    let archive = Archive::new();
    through(&squid, "", &archive, &node).assert_silent_success();
    assert_eq!(archive.names(), names);
    // This server does not exist.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = pass(&archive, &format!("http://{closed}")).env("http_proxy", squid.url());
    run.run().assert_code(4).assert_says("it can't reach the node (ERR_CONNECT_FAIL");
}

#[test]
fn squid_gets_the_password_that_it_requires() {
    if !is_root() || !has_tool("squid") {
        return;
    }
    let squid = Squid::start(
        "auth_param basic program /usr/lib/squid/basic_ncsa_auth DIR/users\n\
         acl known proxy_auth REQUIRED\nhttp_access deny !known",
    );
    let node = Node::start();
    let names = fill(&node, 10);
    let archive = Archive::new();
    let said = "it requires a user name and password";
    through(&squid, "", &archive, &node).assert_code(4).assert_says(said);
    through(&squid, "me:wrong@", &archive, &node).assert_code(4).assert_says_not("wrong");
    through(&squid, "me:secret@", &archive, &node).assert_silent_success();
    assert_eq!(archive.names(), names);
}
