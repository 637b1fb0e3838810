//! Name lookups and connections. All workers share the lookups. A name is looked up again after
//! [`TTL`], or when its addresses stop working. Connecting follows RFC 8305: each address gets a
//! head start before the next is tried alongside it. The address that worked is tried first from then
//! on.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::{NodeError, Trouble, local};
use crate::durations::limit;
use crate::error::plain;
use crate::lock::{lock, unpoisoned};

/// How long the addresses of a name are used before it is looked up again. A pass can last for
/// hours, and nodes at home change addresses; a lookup every three minutes costs nothing.
const TTL: Duration = Duration::from_secs(180);
/// How long an address has to respond before the next one is tried alongside it; the value that RFC
/// 8305 recommends.
const HEAD_START: Duration = Duration::from_millis(250);
/// How many addresses of a name are tried. A name server may return any number; this bounds the
/// sockets that one connection can open.
const MAX_ADDRESSES: usize = 16;

/// A cache of name lookups.
#[derive(Debug)]
pub struct Addresses {
    names: Arc<Names>,
    timeout: Duration,
}

/// The names looked up so far.
#[derive(Debug, Default)]
struct Names {
    known: Mutex<HashMap<String, Name>>,
    /// Notified when a lookup has finished.
    changed: Condvar,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Name {
    /// Their ports are 0.
    addresses: Vec<SocketAddr>,
    /// When they were looked up; `None` if they must be looked up again.
    at: Option<Instant>,
    /// The number of finished lookups, failed ones included.
    lookups: u64,
    is_looked_up: bool,
    /// The address of the last successful connection.
    worked: Option<SocketAddr>,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        lock(&self.known)
    }

    /// Calls the system's resolver. Nothing can interrupt it, so it runs in a thread of its own.
    fn look_up(&self, host: &str) {
        let found = (host, 0).to_socket_addrs();
        let mut known = self.lock();
        let name = known.entry(host.to_owned()).or_default();
        name.is_looked_up = false;
        name.lookups += 1;
        if let Ok(found) = found {
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in found {
                if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
                    addresses.push(address);
                }
            }
            if !addresses.is_empty() {
                (name.addresses, name.at) = (addresses, Some(Instant::now()));
            }
        }
        drop(known);
        self.changed.notify_all();
    }
}

impl Addresses {
    /// An empty cache. A lookup may take as long as `timeout`, and so may a connection.
    pub fn new(timeout: Duration) -> Addresses {
        Addresses { names: Arc::default(), timeout }
    }

    /// The addresses of a host, with port 0, in the order in which to try them.
    ///
    /// # Errors
    ///
    /// Fails if the name can't be resolved in time, or a thread can't be started.
    pub fn of(&self, host: &str) -> Result<Vec<SocketAddr>, NodeError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, 0)]);
        }
        let mut known = self.names.lock();
        let name = known.entry(host.to_owned()).or_default();
        if name.at.is_some_and(|at| at.elapsed() < TTL) {
            return Ok(in_order(&name.addresses, name.worked));
        }
        let lookups = name.lookups;
        if !name.is_looked_up {
            let (names, asked) = (self.names.clone(), host.to_owned());
            let thread = thread::Builder::new().name("lookup".into());
            match thread.spawn(move || names.look_up(&asked)) {
                Ok(_) => name.is_looked_up = true,
                // Old addresses are better than none.
                Err(_) if !name.addresses.is_empty() => {
                    return Ok(in_order(&name.addresses, name.worked));
                }
                Err(e) => {
                    let what = format!("starting a thread to look up its name: {}", plain(&e));
                    return Err(NodeError::new(Trouble::Local, what));
                }
            }
        }
        let is_pending = |known: &mut HashMap<String, Name>| {
            known.get(host).is_some_and(|name| name.lookups == lookups)
        };
        let waited = self.names.changed.wait_timeout_while(known, self.timeout, is_pending);
        let (mut known, outcome) = unpoisoned(waited);
        let name = known.entry(host.to_owned()).or_default();
        if !name.addresses.is_empty() {
            return Ok(in_order(&name.addresses, name.worked));
        }
        if outcome.timed_out() {
            let timeout = limit(self.timeout);
            let what = format!("timed out after {timeout} looking up its name");
            return Err(NodeError::new(Trouble::Silent, what));
        }
        Err(NodeError::new(Trouble::Unreachable, "its name can't be resolved"))
    }

    /// Connects to a host at one of these addresses, which [`Addresses::of`] has returned for it.
    /// `watch` is called with each socket before it is used, and may refuse it.
    ///
    /// # Errors
    ///
    /// Fails if no address accepts a connection in time, with the last failure.
    pub fn connect(
        &self,
        host: &str,
        addresses: Vec<SocketAddr>,
        port: u16,
        watch: &dyn Fn(&Arc<TcpStream>) -> Result<(), NodeError>,
    ) -> Result<Arc<TcpStream>, NodeError> {
        let at_port = |mut address: SocketAddr| {
            address.set_port(port);
            address
        };
        let places = addresses.into_iter().map(at_port);
        let connected = race(places, self.timeout, watch);
        let mut known = self.names.lock();
        if let Some(name) = known.get_mut(host) {
            match &connected {
                Ok((_, at)) => {
                    let mut at = *at;
                    at.set_port(0);
                    name.worked = Some(at);
                }
                // The host may have moved.
                Err(e) if e.trouble != Trouble::Local => (name.at, name.worked) = (None, None),
                Err(_) => {}
            }
        }
        connected.map(|(stream, _)| stream)
    }
}

/// Orders addresses as RFC 8305 does: first the one that worked, then the two families alternately,
/// each in the system's order.
fn in_order(addresses: &[SocketAddr], worked: Option<SocketAddr>) -> Vec<SocketAddr> {
    let first = worked.filter(|it| addresses.contains(it)).or(addresses.first().copied());
    let Some(first) = first else {
        return Vec::new();
    };
    let rest = addresses.iter().copied().filter(|it| *it != first);
    let (mut same, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        rest.partition(|it| it.is_ipv6() == first.is_ipv6());
    (same, other) = (same.into_iter().rev().collect(), other.into_iter().rev().collect());
    let mut ordered = vec![first];
    while let Some(next) = other.pop().or_else(|| same.pop()) {
        ordered.push(next);
        ordered.extend(same.pop());
    }
    ordered
}

/// Connects to all of these addresses, each a head start after the one before, and returns the
/// first connection.
fn race(
    places: impl Iterator<Item = SocketAddr>,
    timeout: Duration,
    watch: &dyn Fn(&Arc<TcpStream>) -> Result<(), NodeError>,
) -> Result<(Arc<TcpStream>, SocketAddr), NodeError> {
    let mut places = places.peekable();
    let mut connecting: Vec<(Arc<TcpStream>, SocketAddr)> = Vec::new();
    let mut failed = None;
    let deadline = Instant::now() + timeout;
    let mut next_at = Instant::now();
    loop {
        if (connecting.is_empty() || Instant::now() >= next_at)
            && let Some(place) = places.next()
        {
            next_at = Instant::now() + HEAD_START;
            match begin(place, watch) {
                Ok(stream) => connecting.push((stream, place)),
                Err(e) => {
                    failed = Some(e);
                    continue;
                }
            }
        }
        if connecting.is_empty() {
            // Only an empty list of addresses gets here without a failure.
            let nowhere = || NodeError::new(Trouble::Unreachable, "its name has no address");
            return Err(failed.unwrap_or_else(nowhere));
        }
        let now = Instant::now();
        let until = if places.peek().is_some() { next_at.min(deadline) } else { deadline };
        let ready = wait_for_any(&connecting, until.saturating_duration_since(now))
            .map_err(|e| NodeError::new(Trouble::Local, plain(&e)))?;
        if let Some(at) = ready {
            let (stream, place) = connecting.swap_remove(at);
            match finish(&stream) {
                Ok(()) => return Ok((stream, place)),
                Err(e) => failed = Some(unreachable(&e)),
            }
            next_at = Instant::now();
        } else if now >= deadline {
            // The deadline is checked after the sockets. A process that was stopped for a while
            // thus still sees who responded meanwhile.
            let timeout = limit(timeout);
            let what = format!("timed out after {timeout} connecting");
            return Err(NodeError::new(Trouble::Silent, what));
        }
    }
}

fn begin(
    place: SocketAddr,
    watch: &dyn Fn(&Arc<TcpStream>) -> Result<(), NodeError>,
) -> Result<Arc<TcpStream>, NodeError> {
    let socket = Socket::new(Domain::for_address(place), Type::STREAM, Some(Protocol::TCP));
    let socket = socket.map_err(|e| local(&e).unwrap_or_else(|| unreachable(&e)))?;
    socket.set_nonblocking(true).map_err(|e| unreachable(&e))?;
    let connecting = socket.connect(&place.into());
    let stream = Arc::new(TcpStream::from(socket));
    match connecting {
        Ok(()) => {}
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INPROGRESS) => {}
        Err(e) => return Err(unreachable(&e)),
    }
    watch(&stream)?;
    Ok(stream)
}

/// Waits for the first of these sockets that has connected or failed, for at most this long.
fn wait_for_any(
    streams: &[(Arc<TcpStream>, SocketAddr)],
    patience: Duration,
) -> io::Result<Option<usize>> {
    let fds = streams.iter().map(|(stream, _)| PollFd::new(&**stream, PollFlags::OUT));
    let mut fds: Vec<PollFd<'_>> = fds.collect();
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut fds, Some(&patience)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(fds.iter().position(|fd| !fd.revents().is_empty()))
}

fn finish(stream: &TcpStream) -> io::Result<()> {
    if let Some(e) = stream.take_error()? {
        return Err(e);
    }
    stream.peer_addr()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)
}

fn unreachable(error: &io::Error) -> NodeError {
    NodeError::new(Trouble::Unreachable, plain(error))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn families_take_turns_after_the_one_that_worked() {
        let all = ips(&["fd00::1", "fd00::2", "fd00::3", "10.0.0.1", "10.0.0.2"]);
        let ordered = ips(&["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "fd00::3"]);
        assert_eq!(in_order(&all, None), ordered);
        let worked = ips(&["10.0.0.2"])[0];
        let ordered = ips(&["10.0.0.2", "fd00::1", "10.0.0.1", "fd00::2", "fd00::3"]);
        assert_eq!(in_order(&all, Some(worked)), ordered);
        // An address that is no longer listed is not tried.
        assert_eq!(in_order(&ips(&["10.0.0.1"]), Some(worked)), ips(&["10.0.0.1"]));
    }

    /// A port that accepts no connections: nothing calls accept(), and its queue is full.
    fn dead_address() -> (SocketAddr, Vec<TcpStream>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let place = socket.local_addr().unwrap().as_socket().unwrap();
        let connect = |_| TcpStream::connect_timeout(&place, Duration::from_millis(100)).ok();
        let mut filling: Vec<TcpStream> = (0..4).map_while(connect).collect();
        filling.push(TcpStream::from(socket));
        (place, filling)
    }

    #[test]
    fn a_dead_address_costs_a_quarter_of_a_second() {
        let (dead, _held) = dead_address();
        let alive = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = alive.local_addr().unwrap();
        let begun = Instant::now();
        let places = [dead, alive].into_iter();
        let (_, at) = race(places, Duration::from_secs(20), &|_| Ok(())).unwrap();
        assert_eq!(at, alive);
        assert!((HEAD_START..Duration::from_secs(10)).contains(&begun.elapsed()));
        let error = race([dead].into_iter(), Duration::from_millis(100), &|_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "timed out after 0.1 s connecting");
    }

    #[test]
    fn an_address_that_refuses_costs_nothing() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let alive = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = alive.local_addr().unwrap();
        let places = [closed, closed, alive].into_iter();
        let (_, at) = race(places, Duration::from_secs(20), &|_| Ok(())).unwrap();
        assert_eq!(at, alive);
        let error = race([closed].into_iter(), Duration::from_secs(20), &|_| Ok(())).unwrap_err();
        assert_eq!(error.trouble, Trouble::Unreachable);
    }

    #[test]
    fn a_name_is_looked_up_once_until_its_addresses_fail() {
        let addresses = Addresses::new(Duration::from_secs(20));
        let lookups = || addresses.names.lock()["localhost"].lookups;
        assert!(!addresses.of("localhost").unwrap().is_empty());
        assert!(!addresses.of("localhost").unwrap().is_empty());
        assert_eq!(lookups(), 1);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let found = addresses.of("localhost").unwrap();
        assert!(addresses.connect("localhost", found, closed.port(), &|_| Ok(())).is_err());
        assert!(!addresses.of("localhost").unwrap().is_empty());
        assert_eq!(lookups(), 2);
        let error = addresses.of("no-such-host.invalid").unwrap_err();
        assert_eq!(error.to_string(), "its name can't be resolved");
    }
}
