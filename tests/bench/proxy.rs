//! A TCP proxy that simulates the network to a node: it delays both directions, limits the rate of
//! all connections together, or swallows all input without a response.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The network to a node.
#[derive(Clone, Copy, Default)]
pub struct Way {
    /// The delay in each direction.
    pub delay: Duration,
    /// Bytes per second from the node; 0 is no limit.
    pub rate: u64,
    /// Whether the rate holds for each connection, or for all together.
    pub is_rate_of_each: bool,
    /// Never responds.
    pub silent: bool,
}

/// The size of a read.
const PART: usize = 16 << 10;

/// A proxy in front of a server on loopback.
pub struct Proxy {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    sent: Arc<AtomicU64>,
}

impl Proxy {
    pub fn start(ip: &str, server: SocketAddr, way: Way) -> Proxy {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, sent) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (count, down) = (connections.clone(), sent.clone());
        let all_paid = Arc::new(Mutex::new(Instant::now()));
        thread::spawn(move || {
            let mut kept = Vec::new();
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                if way.silent {
                    kept.push(client);
                    continue;
                }
                let server = TcpStream::connect(server).unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let up = Way { rate: 0, ..way };
                let paid = if way.is_rate_of_each {
                    Arc::new(Mutex::new(Instant::now()))
                } else {
                    all_paid.clone()
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                pipe(from, to, up, paid.clone(), Arc::default());
                pipe(server, client, way, paid, down.clone());
            }
        });
        Proxy { address, connections, sent }
    }

    /// The number of bytes received from the node so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The number of connections opened so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn pipe(
    mut from: TcpStream,
    to: TcpStream,
    way: Way,
    paid: Arc<Mutex<Instant>>,
    sent: Arc<AtomicU64>,
) {
    // Bytes in transit. With a rate limit the queue is short, so that not everything has already
    // left the proxy.
    let under_way = (way.rate as f64 * way.delay.as_secs_f64()) as usize / PART;
    let (sender, receiver) = mpsc::sync_channel(if way.rate > 0 { 1 + under_way } else { 10_000 });
    thread::spawn(move || deliver(to, receiver));
    thread::spawn(move || {
        let mut buffer = [0; PART];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            sent.fetch_add(read as u64, Ordering::Relaxed);
            if way.rate > 0 {
                let cost = Duration::from_secs_f64(read as f64 / way.rate as f64);
                let until = {
                    let mut paid = paid.lock().unwrap();
                    *paid = (*paid).max(Instant::now()) + cost;
                    *paid
                };
                thread::sleep(until.saturating_duration_since(Instant::now()));
            }
            if sender.send((Instant::now() + way.delay, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
    });
}

fn deliver(mut to: TcpStream, parts: Receiver<(Instant, Vec<u8>)>) {
    for (at, part) in parts {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if to.write_all(&part).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
