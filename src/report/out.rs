//! Unbuffered standard output. The one in the standard library reports success if standard output
//! is closed, and fails if it is non-blocking and full.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::ready::wait_to_write;

/// Whether standard output was closed when the process started. It is checked before `main`,
/// because by then the standard library has opened the null device in its place.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

#[ctor::ctor]
fn look_at_stdout() {
    let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()) == Err(Errno::BADF);
    WAS_CLOSED.store(closed, Ordering::Relaxed);
}

/// Checks that there is a standard output.
///
/// # Errors
///
/// Fails if it was closed when the process started.
pub fn check() -> io::Result<()> {
    if WAS_CLOSED.load(Ordering::Relaxed) {
        return Err(io::Error::other("it is closed"));
    }
    Ok(())
}

/// Writes all bytes to standard output.
///
/// # Errors
///
/// Fails if it is closed, or a write fails.
pub fn print(bytes: &[u8]) -> io::Result<()> {
    check()?;
    Patient(io::stdout()).write_all(bytes)
}

/// A file descriptor to which everything is written: if it is non-blocking and full, writes wait.
#[derive(Debug)]
pub struct Patient<F>(pub F);

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_to_write(&self.0)?,
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
