//! Opens connections to nodes: which server to dial, through which proxy, and whether a redirect
//! may lead there.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ureq::ProxyProtocol;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    ConnectionDetails, Connector, NextTimeout, ShutdownHandle, Transport, TransportAdapter,
};

use super::addresses::Addresses;
use super::exchange::{Exchange, Forward, Head};
use super::line::Line;
use super::pace::{Heard, Watch};
use super::proxy::{Proxies, Server};
use super::socks::{self, Destination};
use super::tls::Secured;
use super::url::Origin;
use super::{NodeError, Trouble};

/// Connects to one node, and to the servers that it redirects to.
#[derive(Debug)]
pub struct Dialer {
    /// The server of the node.
    pub node: Origin,
    /// The proxies to use.
    pub proxies: Proxies,
    /// Resolves names.
    pub addresses: Addresses,
    /// When a byte last arrived.
    pub heard: Arc<Heard>,
    /// How long the node may stay silent.
    pub timeout: Duration,
    /// The maximum length of a response, in bytes.
    pub max_response: u64,
    /// How much to read at a time, in bytes.
    pub read_size: usize,
}

impl Dialer {
    fn dial(&self, details: &ConnectionDetails<'_>) -> Result<Exchange, NodeError> {
        let nowhere = || NodeError::new(Trouble::Refused, "it is not an http or https URL");
        let origin = Origin::of(details.uri).ok_or_else(nowhere)?;
        let watch = Watch::new(self.heard.clone(), self.timeout, self.max_response);
        let Some(proxy) = self.proxies.to(&origin) else {
            let found = self.addresses.of(&origin.host)?;
            self.check_reach(&origin, Some(&found))?;
            let line: Box<dyn Transport> = Box::new(self.line(&origin, found, &watch, details)?);
            let line = secure_if(origin.secure, line, &origin.host, details)?;
            return Ok(Exchange::new(line, watch, None));
        };
        self.check_reach(&origin, None)?;
        let line = self.line_to(proxy, &watch, details).map_err(|e| match e.trouble {
            // The caller adds which proxy was used.
            Trouble::Unreachable | Trouble::Local => e,
            trouble => {
                NodeError::new(trouble, format!("the proxy {}: {e}", proxy.origin.authority()))
            }
        })?;
        let is_http = matches!(proxy.protocol, ProxyProtocol::Http | ProxyProtocol::Https);
        if is_http && !origin.secure {
            let authorization = proxy.authorization();
            let forward =
                Forward { server: format!("http://{}", origin.authority()), authorization };
            return Ok(Exchange::new(line, watch, Some(forward)));
        }
        let mut line = TransportAdapter::new(line, details.current_time.clone());
        match proxy.protocol {
            ProxyProtocol::Http | ProxyProtocol::Https => tunnel(&mut line, &origin, proxy)?,
            protocol => self.pass_through_socks(&mut line, protocol, &origin, proxy)?,
        }
        watch.expect_head();
        let line = secure_if(origin.secure, line.into_inner(), &origin.host, details)?;
        Ok(Exchange::new(line, watch, None))
    }

    /// Connects to a proxy.
    fn line_to(
        &self,
        proxy: &Server,
        watch: &Watch,
        details: &ConnectionDetails<'_>,
    ) -> Result<Box<dyn Transport>, NodeError> {
        let found = self.addresses.of(&proxy.origin.host)?;
        let line: Box<dyn Transport> = Box::new(self.line(&proxy.origin, found, watch, details)?);
        secure_if(proxy.origin.secure, line, &proxy.origin.host, details)
    }

    /// Connects to an origin at one of these addresses.
    fn line(
        &self,
        origin: &Origin,
        addresses: Vec<SocketAddr>,
        watch: &Watch,
        details: &ConnectionDetails<'_>,
    ) -> Result<Line, NodeError> {
        // From here on, aborting the requests under way also shuts down this socket.
        let register = |stream: &Arc<TcpStream>| {
            let handle = Arc::downgrade(stream) as Weak<dyn ShutdownHandle>;
            let cut = |_| NodeError::new(Trouble::Broken, "the request was aborted");
            (details.register_shutdown)(handle).map_err(cut)
        };
        let stream = self.addresses.connect(&origin.host, addresses, origin.port, &register)?;
        Line::new(stream, self.read_size, watch.clone())
    }

    fn pass_through_socks(
        &self,
        line: &mut TransportAdapter,
        protocol: ProxyProtocol,
        origin: &Origin,
        proxy: &Server,
    ) -> Result<(), NodeError> {
        // As in curl: the suffix of the scheme (4 or 4a, 5 or 5h) says who resolves names.
        let is_ours = matches!(protocol, ProxyProtocol::Socks4 | ProxyProtocol::Socks5);
        let destination = match origin.address() {
            None if !is_ours => Destination::Name(&origin.host, origin.port),
            _ => {
                let found = self.addresses.of(&origin.host)?;
                self.check_reach(origin, Some(&found))?;
                let is_4 = protocol == ProxyProtocol::Socks4;
                let first = found.into_iter().find(|it| it.is_ipv4() || !is_4);
                let none = || NodeError::new(Trouble::Unreachable, "it has no IPv4 address");
                let mut first = first.ok_or_else(none)?;
                first.set_port(origin.port);
                Destination::Address(first)
            }
        };
        match protocol {
            ProxyProtocol::Socks4 | ProxyProtocol::Socks4A => {
                socks::version_4(line, &destination, proxy.login.as_ref())
            }
            _ => socks::version_5(line, &destination, proxy.login.as_ref()),
        }
    }

    /// Refuses to connect to an origin that only this machine or its network can reach, unless the
    /// node itself is at such an origin. This keeps a node from making us request internal services
    /// through redirects. `addresses` are those that the connection will use, since a name server may
    /// answer differently the next time. Where a proxy resolves names they are not known (`None`): then
    /// only literal addresses and `localhost` can be recognized.
    fn check_reach(
        &self,
        origin: &Origin,
        addresses: Option<&[SocketAddr]>,
    ) -> Result<(), NodeError> {
        if origin.host == self.node.host {
            return Ok(());
        }
        let are_inner = |found: &[SocketAddr]| found.iter().any(|it| is_inner_address(it.ip()));
        let is_inner = addresses.map_or_else(|| is_inner_name(&origin.host), are_inner);
        let is_node_inner = || match addresses {
            Some(_) => self.addresses.of(&self.node.host).map(|found| are_inner(&found)),
            None => Ok(is_inner_name(&self.node.host)),
        };
        if is_inner && !is_node_inner()? {
            let what =
                "an address in this machine's own network, to which redirects are not followed";
            return Err(NodeError::answered(Trouble::Refused, what));
        }
        Ok(())
    }
}

fn secure_if(
    secure: bool,
    line: Box<dyn Transport>,
    host: &str,
    details: &ConnectionDetails<'_>,
) -> Result<Box<dyn Transport>, NodeError> {
    if !secure {
        return Ok(line);
    }
    Ok(Box::new(Secured::new(line, host, details)?))
}

/// Asks an HTTP proxy to open a tunnel to this origin.
fn tunnel(line: &mut TransportAdapter, origin: &Origin, proxy: &Server) -> Result<(), NodeError> {
    use io::Write;
    let to = origin.authority();
    let authorization = match proxy.authorization() {
        Some(value) => format!("Proxy-Authorization: {value}\r\n"),
        None => String::new(),
    };
    let agent = super::USER_AGENT;
    let head = format!(
        "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {agent}\r\n{authorization}\r\n"
    );
    line.write_all(head.as_bytes())?;
    let transport = line.get_mut();
    loop {
        let read = transport.await_input(NextTimeout::default()).map_err(io_error)?;
        let input = transport.buffers().input();
        let (status, length) = match Head::find(input) {
            Head::Complete { status, length } => (status, length),
            Head::Interim { length } => {
                transport.buffers().input_consume(length);
                continue;
            }
            Head::Incomplete if read => continue,
            Head::Incomplete => return Err(tunnel_failed("closed the connection")),
            Head::NotHttp(_) => return Err(tunnel_failed("does not speak HTTP")),
        };
        transport.buffers().input_consume(length);
        return match status {
            200..=299 => Ok(()),
            407 => Err(tunnel_failed("requires a user name and password, or rejected those given")),
            403 => Err(tunnel_failed("refuses to connect to it (HTTP 403)")),
            status => Err(tunnel_failed(&format!("can't connect to it (HTTP {status})"))),
        };
    }
}

fn tunnel_failed(what: &str) -> NodeError {
    NodeError::new(Trouble::Unreachable, format!("the proxy {what}"))
}

fn io_error(error: ureq::Error) -> NodeError {
    NodeError::from(error.into_io())
}

fn is_inner_name(host: &str) -> bool {
    match host.parse() {
        Ok(address) => is_inner_address(address),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Whether only this machine or its network can reach an address.
fn is_inner_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            a == 0 || ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}

/// The dialer as ureq's connector.
pub struct SharedDialer(pub Arc<Dialer>);

impl Connector<()> for SharedDialer {
    type Out = Exchange;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Exchange>, ureq::Error> {
        let dialed = self.0.dial(details);
        dialed.map(Some).map_err(|e| ureq::Error::Io(e.into()))
    }
}

impl fmt::Debug for SharedDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedDialer").field(&self.0.node).finish()
    }
}

/// Resolves nothing. ureq would resolve names for each request; the dialer does so only when it
/// connects.
#[derive(Debug)]
pub struct Unresolved;

impl Resolver for Unresolved {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_places_are_recognized() {
        for (host, is_inner) in [
            ("127.0.0.9", true),
            ("10.1.2.3", true),
            ("172.16.0.1", true),
            ("192.168.1.1", true),
            ("169.254.169.254", true),
            ("100.64.0.1", true),
            ("0.0.0.0", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("localhost", true),
            ("x.localhost", true),
            ("8.8.8.8", false),
            ("172.32.0.1", false),
            ("2001:db8::1", false),
            ("toodles", false),
        ] {
            assert_eq!(is_inner_name(host), is_inner, "{host}");
        }
    }

    #[test]
    fn redirects_into_the_local_network_are_refused() {
        for (node, to, may) in [
            ("203.0.113.5", "127.0.0.9", false),
            ("203.0.113.5", "localhost", false),
            ("203.0.113.5", "169.254.169.254", false),
            ("203.0.113.5", "203.0.113.5", true),
            ("203.0.113.5", "203.0.113.6", true),
            ("127.0.0.1", "127.0.0.9", true),
            ("192.168.1.5", "10.0.0.1", true),
        ] {
            let origin = |host: &str| Origin { secure: false, host: host.into(), port: 1337 };
            let dialer = Dialer {
                node: origin(node),
                proxies: Proxies::default(),
                addresses: Addresses::new(Duration::from_secs(20)),
                heard: Arc::new(Heard::new()),
                timeout: Duration::from_secs(20),
                max_response: 1,
                read_size: 1,
            };
            let found = dialer.addresses.of(to).unwrap();
            for addresses in [None, Some(&*found)] {
                let checked = dialer.check_reach(&origin(to), addresses);
                assert_eq!(checked.is_ok(), may, "{node} {to} {addresses:?}");
            }
            // What counts is where the connection goes, not the name.
            let inner = "10.0.0.1:0".parse().unwrap();
            let checked = dialer.check_reach(&origin("a.example"), Some(&[found[0], inner]));
            assert_eq!(checked.is_ok(), !node.starts_with("203."), "{node}");
        }
    }
}
