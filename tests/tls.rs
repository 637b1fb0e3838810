//! TLS: which certificates are trusted, and the messages about the others.

mod node;
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use node::tls::self_signed;
use node::{Authority, Node};
use support::{Archive, Outcome, fill};

/// A pass over a node that trusts the certificates in this file.
fn run(archive: &Archive, url: &str, trusted: &str) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trusted.pem");
    std::fs::write(&file, trusted).unwrap();
    let args = [url, "desertbus", "source", "--retries=0", "--timeout=5s"];
    archive.backfill(args).env("SSL_CERT_FILE", file).run()
}

#[test]
fn a_self_signed_certificate_can_be_trusted() {
    let (config, pem) = self_signed(&["localhost"], 2100);
    let node = Node::start_tls_as(config);
    let names = fill(&node, 3);
    let archive = Archive::new();
    run(&archive, &node.url(), &pem).assert_silent_success();
    assert_eq!(archive.names(), names);
}

#[test]
fn a_trusted_self_signed_certificate_is_still_checked() {
    for (names, until, said) in [
        (&["localhost"][..], 2010, "TLS: its certificate expired on 2010-01-01"),
        (&["other.example"], 2100, "TLS: its certificate is for other.example, not for localhost"),
        (&[], 2100, "TLS: its certificate has no name in subjectAltName (make one with"),
    ] {
        let (config, pem) = self_signed(names, until);
        let node = Node::start_tls_as(config);
        run(&Archive::new(), &node.url(), &pem).assert_code(4).assert_says(said);
    }
    // A different certificate is not the trusted one.
    let (config, _) = self_signed(&["localhost"], 2100);
    let node = Node::start_tls_as(config);
    let (_, other) = self_signed(&["localhost"], 2100);
    let said = "TLS: its certificate is self-signed, and isn't trusted here (set SSL_CERT_FILE to";
    run(&Archive::new(), &node.url(), &other).assert_code(4).assert_says(said);
}

#[test]
fn certificate_errors_are_explained() {
    let authority = Authority::new();
    for (names, from, until, said) in [
        (["localhost"], 2000, 2010, "its certificate expired on 2010-01-01"),
        (
            ["localhost"],
            2090,
            2100,
            "its certificate isn't valid yet: its validity starts on 2090-01-01",
        ),
        (["a.example"], 2000, 2100, "its certificate is for a.example, not for localhost"),
    ] {
        let node = Node::start_tls_as(authority.issue(&names, from, until));
        let outcome = run(&Archive::new(), &node.url(), &authority.pem());
        outcome.assert_code(4).assert_says(&format!("TLS: {said}"));
    }
    let node = Node::start_tls(&authority);
    let said = "TLS: its certificate is from a CA that isn't trusted here (set SSL_CERT_FILE";
    run(&Archive::new(), &node.url(), &Authority::new().pem()).assert_code(4).assert_says(said);
}

#[test]
fn http_and_https_ports_mixed_up_are_reported() {
    let authority = Authority::new();
    // It answers plain HTTP with something else, as web servers do.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in plain.incoming().flatten() {
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let said = "TLS: it does not speak TLS on this port (should the URL be http?)";
    run(&Archive::new(), &url, &authority.pem()).assert_code(3).assert_says(said);

    let secure = Node::start_tls(&authority);
    let url = secure.url().replace("https://", "http://");
    let said = "the response is TLS, not HTTP (should the URL be https?)";
    run(&Archive::new(), &url, &authority.pem()).assert_code(3).assert_says(said);
    // The response of nginx and others on such a port.
    let node = node::raw::Raw::start(|_| {
        let page = b"<html>The plain HTTP request was sent to HTTPS port</html>";
        let answer = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n", page.len());
        Some([answer.as_bytes(), page].concat())
    });
    let said = "HTTP 400 Bad Request (it expects TLS: should the URL be https?)";
    run(&Archive::new(), &node.url(), &authority.pem()).assert_code(3).assert_says(said);
}
