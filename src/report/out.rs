//! Standard output, as it is. That of the standard library takes everything for written where standard
//! output is closed, and fails where it is full and non-blocking.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Whether standard output was closed when the process began. By the time that `main` runs, the
/// standard library has put the null device in its place.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

#[ctor::ctor]
fn look_at_stdout() {
    let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()) == Err(Errno::BADF);
    WAS_CLOSED.store(closed, Ordering::Relaxed);
}

/// Fails if there is no standard output.
pub fn check() -> io::Result<()> {
    match WAS_CLOSED.load(Ordering::Relaxed) {
        true => Err(io::Error::other("it is closed")),
        false => Ok(()),
    }
}

/// Writes to standard output, to its end.
pub fn print(bytes: &[u8]) -> io::Result<()> {
    check()?;
    Patient(io::stdout()).write_all(bytes)
}

/// Something that is written whole: where it is non-blocking, it is waited for.
#[derive(Debug)]
pub struct Patient<F>(pub F);

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.0, PollFlags::OUT)?,
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait(on: &impl AsFd, until: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(on, until)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
