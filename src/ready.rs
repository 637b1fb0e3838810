//! Waits for file descriptors. Standard input, output and error may be non-blocking, as whoever
//! started this process has set them.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Waits until this can be read without blocking.
///
/// # Errors
///
/// Fails if the system can't wait for it.
pub fn wait_to_read(from: &impl AsFd) -> io::Result<()> {
    wait(from, PollFlags::IN)
}

/// Waits until this can be written without blocking.
///
/// # Errors
///
/// Fails if the system can't wait for it.
pub fn wait_to_write(to: &impl AsFd) -> io::Result<()> {
    wait(to, PollFlags::OUT)
}

/// Callers try again afterwards, so a signal may end the wait early.
fn wait(on: &impl AsFd, until: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(on, until)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
