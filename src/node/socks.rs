//! Opens connections through a SOCKS proxy: versions 4 and 4a, and version 5 (RFC 1928, RFC 1929).

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};

use super::{NodeError, Trouble};

/// Where a proxy should connect to.
pub enum Destination<'a> {
    /// An address.
    Address(SocketAddr),
    /// A name, which the proxy resolves, and a port.
    Name(&'a str, u16),
}

/// Opens a connection through a proxy of version 4 or 4a.
///
/// # Errors
///
/// Fails if the proxy refuses, can't connect, or doesn't speak SOCKS 4.
pub fn version_4(
    line: &mut (impl Read + Write),
    destination: &Destination<'_>,
    login: Option<&(String, String)>,
) -> Result<(), NodeError> {
    // Version 4a: an impossible address says that a name follows at the end.
    let (port, ip, name) = match destination {
        Destination::Address(SocketAddr::V4(to)) => (to.port(), to.ip().octets(), None),
        Destination::Address(SocketAddr::V6(_)) => {
            return Err(socks_failed("SOCKS 4 has no IPv6 addresses"));
        }
        Destination::Name(name, port) => (*port, [0, 0, 0, 1], Some(name)),
    };
    let mut request = vec![4, 1];
    request.extend(port.to_be_bytes());
    request.extend(ip);
    request.extend(login.map_or("", |(user, _)| user).bytes());
    request.push(0);
    if let Some(name) = name {
        request.extend(name.bytes());
        request.push(0);
    }
    line.write_all(&request)?;
    let mut answer = [0; 8];
    line.read_exact(&mut answer)?;
    match answer {
        [0, 90, ..] => Ok(()),
        [0, 92 | 93, ..] => Err(socks_failed("it requires identd on this machine")),
        [0, 91, ..] => Err(socks_failed("it can't connect, or refuses to")),
        _ => Err(socks_failed("the response is not SOCKS 4")),
    }
}

/// Opens a connection through a proxy of version 5.
///
/// # Errors
///
/// Fails if the proxy refuses, can't connect, or doesn't speak SOCKS 5.
pub fn version_5(
    line: &mut (impl Read + Write),
    destination: &Destination<'_>,
    login: Option<&(String, String)>,
) -> Result<(), NodeError> {
    match login {
        None => line.write_all(&[5, 1, 0])?,
        Some(_) => line.write_all(&[5, 2, 0, 2])?,
    }
    let mut method = [0; 2];
    line.read_exact(&mut method)?;
    match (method, login) {
        ([5, 0], _) => {}
        ([5, 2], Some((user, password))) => log_in(line, user, password)?,
        ([5, _], _) => return Err(socks_failed("it requires a user name and password")),
        _ => return Err(socks_failed("the response is not SOCKS 5")),
    }
    let (kind, to, port) = match destination {
        Destination::Address(to) => match to.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec(), to.port()),
            IpAddr::V6(ip) => (4, ip.octets().to_vec(), to.port()),
        },
        Destination::Name(name, port) => (3, with_length(name)?, *port),
    };
    line.write_all(&[&[5, 1, 0, kind], &to[..], &port.to_be_bytes()].concat())?;
    let mut answer = [0; 4];
    line.read_exact(&mut answer)?;
    if answer[..2] != [5, 0] {
        return Err(socks_failed(reason(answer[1])));
    }
    // The address that the proxy connects from; it isn't needed.
    let rest = match answer[3] {
        1 => 4,
        4 => 16,
        _ => {
            let mut length = [0];
            line.read_exact(&mut length)?;
            usize::from(length[0])
        }
    };
    line.read_exact(&mut [0; 257][..rest + 2])?;
    Ok(())
}

fn log_in(line: &mut (impl Read + Write), user: &str, password: &str) -> Result<(), NodeError> {
    line.write_all(&[vec![1], with_length(user)?, with_length(password)?].concat())?;
    let mut answer = [0; 2];
    line.read_exact(&mut answer)?;
    match answer[1] {
        0 => Ok(()),
        _ => Err(socks_failed("it rejected the user name and password")),
    }
}

fn with_length(text: &str) -> Result<Vec<u8>, NodeError> {
    let length = u8::try_from(text.len());
    let length = length.map_err(|_| socks_failed("a name is too long for SOCKS 5"))?;
    Ok([&[length], text.as_bytes()].concat())
}

fn reason(code: u8) -> &'static str {
    match code {
        2 => "it refuses to connect",
        3 | 4 => "the network or the host is unreachable",
        5 => "connection refused",
        6 => "the connection timed out",
        _ => "it can't connect",
    }
}

fn socks_failed(what: &str) -> NodeError {
    NodeError::new(Trouble::Unreachable, format!("the proxy: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A connection: what it will respond, and what was sent.
    struct Both<'a> {
        answer: &'a [u8],
        asked: Vec<u8>,
    }

    impl Read for Both<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.answer.read(buffer)
        }
    }

    impl Write for Both<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn login() -> (String, String) {
        ("me".into(), "secret".into())
    }

    #[test]
    fn version_5_follows_the_rfc() {
        let answer = [5, 2, 1, 0, 5, 0, 0, 1, 10, 0, 0, 1, 0x1f, 0x90];
        let mut line = Both { answer: &answer, asked: Vec::new() };
        version_5(&mut line, &Destination::Name("toodles", 1337), Some(&login())).unwrap();
        let asked = b"\x05\x02\x00\x02\x01\x02me\x06secret\x05\x01\x00\x03\x07toodles\x05\x39";
        assert_eq!((&line.asked[..], line.answer), (&asked[..], &[][..]));

        let answer = [5, 0, 5, 0, 0, 3, 1, b'p', 0, 80];
        let mut line = Both { answer: &answer, asked: Vec::new() };
        let destination = Destination::Address("10.0.0.2:80".parse().unwrap());
        version_5(&mut line, &destination, None).unwrap();
        let asked = [5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 2, 0, 80];
        assert_eq!((&line.asked[..], line.answer), (&asked[..], &[][..]));

        let answer = [&[5, 0, 5, 0, 0, 4][..], &[0; 18], b"the server's"].concat();
        let mut line = Both { answer: &answer, asked: Vec::new() };
        version_5(&mut line, &Destination::Name("a", 1), None).unwrap();
        assert_eq!(line.answer, b"the server's");
    }

    #[test]
    fn version_4_takes_addresses_and_names() {
        let answer = [0, 90, 0, 0, 0, 0, 0, 0];
        let mut line = Both { answer: &answer, asked: Vec::new() };
        version_4(&mut line, &Destination::Name("toodles", 1337), Some(&login())).unwrap();
        assert_eq!(line.asked, b"\x04\x01\x05\x39\x00\x00\x00\x01me\0toodles\0");
        let mut line = Both { answer: &answer, asked: Vec::new() };
        version_4(&mut line, &Destination::Address("10.0.0.2:80".parse().unwrap()), None).unwrap();
        assert_eq!(line.asked, b"\x04\x01\x00\x50\x0a\x00\x00\x02\0");
    }

    #[test]
    fn a_refusal_is_reported() {
        for (answer, said) in [
            (&[5, 255][..], "the proxy: it requires a user name and password"),
            (&[5, 0, 5, 5, 0, 1], "the proxy: connection refused"),
            (b"HTTP/1.1 400", "the proxy: the response is not SOCKS 5"),
        ] {
            let mut line = Both { answer, asked: Vec::new() };
            let error = version_5(&mut line, &Destination::Name("a", 1), None).unwrap_err();
            assert_eq!(error.to_string(), said);
        }
        let mut line = Both { answer: &[0, 91, 0, 0, 0, 0, 0, 0], asked: Vec::new() };
        assert!(version_4(&mut line, &Destination::Name("a", 1), None).is_err());
    }
}
