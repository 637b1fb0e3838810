//! A TCP connection with a timeout on silence. The timeout restarts with each read. Only a wait
//! in which nothing arrived counts as silence: after this process was stopped for a while, bytes
//! that meanwhile reached the socket count as heard.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::pace::Watch;
use super::{NodeError, Trouble};
use crate::durations::limit;

/// The largest response head. Every connection has a buffer with room for all of it. By default
/// nginx accepts only 4 or 8 KiB from the server behind it, so this is generous.
pub const MAX_HEAD: usize = 16 << 10;
/// Room for the head of a request; a longer one is sent in several parts.
const OUTPUT: usize = 8 << 10;

/// A connection whose silence is watched.
pub struct Line {
    stream: Arc<TcpStream>,
    buffers: LazyBuffers,
    /// How much to read at a time, in bytes.
    read_size: usize,
    watch: Watch,
}

impl Line {
    /// Wraps an open connection.
    ///
    /// # Errors
    ///
    /// Fails if the system rejects the timeouts.
    pub fn new(stream: Arc<TcpStream>, read_size: usize, watch: Watch) -> Result<Line, NodeError> {
        let timeout = Some(watch.timeout());
        let set = stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout));
        set.map_err(NodeError::from)?;
        let buffers = LazyBuffers::new(read_size.max(MAX_HEAD), OUTPUT);
        Ok(Line { stream, buffers, read_size, watch })
    }

    fn silent(&self) -> Error {
        let timeout = limit(self.watch.timeout());
        let what = format!("timed out after {timeout} waiting for a response");
        Error::Io(NodeError::new(Trouble::Silent, what).into())
    }

    /// Whether a wait that timed out was real silence. If it took much longer than the timeout,
    /// this process was not running, and bytes may be waiting in the socket. The margin allows for
    /// a loaded machine.
    fn is_silence(&self, waited: Duration) -> bool {
        waited < self.watch.timeout().mul_f64(1.5) + Duration::from_millis(500)
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let mut sent = 0;
        while sent < amount {
            let begun = Instant::now();
            match (&*self.stream).write(&self.buffers.output()[sent..amount]) {
                Ok(written) => sent += written,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if is_timeout(e.kind()) && !self.is_silence(begun.elapsed()) => {}
                Err(e) if is_timeout(e.kind()) => return Err(self.silent()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        loop {
            let begun = Instant::now();
            let input = self.buffers.input_append_buf();
            let room = input.len().min(self.read_size);
            match (&*self.stream).read(&mut input[..room]) {
                Ok(read) => {
                    self.buffers.input_appended(read);
                    if read > 0 {
                        let came = self.watch.came(read as u64, begun.elapsed());
                        came.map_err(|e| Error::Io(e.into()))?;
                    }
                    return Ok(read > 0);
                }
                // A signal that stops and continues this process also interrupts the wait.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if is_timeout(e.kind()) && !self.is_silence(begun.elapsed()) => {}
                Err(e) if is_timeout(e.kind()) => return Err(self.silent()),
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Unrequested bytes make a connection as unusable as its end.
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&*self.stream, &mut [0; 1], flags), Err(rustix::io::Errno::AGAIN))
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("to", &self.stream.peer_addr().ok()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::node::pace::Heard;

    /// Both ends of a connection on which a wait of a millisecond is silence; a read waits for
    /// `wait`.
    fn line(wait: Duration) -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let watch = Watch::new(Arc::new(Heard::new()), Duration::from_millis(1), 1 << 20);
        let line = Line::new(stream.clone(), 1 << 10, watch).unwrap();
        stream.set_read_timeout(Some(wait)).unwrap();
        (line, listener.accept().unwrap().0)
    }

    fn await_input(line: &mut Line) -> Result<bool, Error> {
        line.await_input(NextTimeout::default())
    }

    #[test]
    fn a_wait_without_input_is_silence() {
        let (mut line, _other) = line(Duration::from_millis(1));
        let error = await_input(&mut line).unwrap_err();
        assert!(error.to_string().contains("timed out after 0.001 s"), "{error}");
    }

    #[test]
    fn a_wait_much_longer_than_the_timeout_is_not_silence() {
        let (mut line, mut other) = line(Duration::from_millis(550));
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(600));
                other.write_all(b"x").unwrap();
            });
            assert!(await_input(&mut line).unwrap());
        });
    }
}
