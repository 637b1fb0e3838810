//! Reads text up to a limited size, even from an endless list or a device.

use std::io::{self, Read};
use std::os::fd::AsFd;

use crate::ready::wait_to_read;

/// The longest list of nodes or hours, in bytes: room for more than 100,000 hours.
pub const MAX_LIST: usize = 2 << 20;
/// The longest list of files, in bytes: room for all files of an archive.
pub const MAX_FILE_LIST: usize = 64 << 20;

/// The byte order mark that some editors put before UTF-8 text. It is not part of the text.
pub const BOM: &str = "\u{feff}";

/// Reads a text to its end.
///
/// # Errors
///
/// Fails if the text is longer than `max` bytes or not UTF-8, or can't be read.
pub fn read_text(from: impl Read + AsFd, max: usize) -> io::Result<String> {
    let bytes = read_one_more(from, max)?;
    let is_too_long = bytes.len() > max;
    match String::from_utf8(bytes) {
        // The last character may have been cut.
        Err(e) if e.utf8_error().error_len().is_some() || !is_too_long => {
            Err(io::Error::new(io::ErrorKind::InvalidData, e))
        }
        Ok(text) if !is_too_long => Ok(text),
        _ => Err(too_long(max)),
    }
}

/// Reads to the end.
///
/// # Errors
///
/// Fails if there are more than `max` bytes, or they can't be read.
pub fn read_bytes(from: impl Read + AsFd, max: usize) -> io::Result<Vec<u8>> {
    let bytes = read_one_more(from, max)?;
    if bytes.len() > max { Err(too_long(max)) } else { Ok(bytes) }
}

fn too_long(max: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {} MiB", max >> 20))
}

/// Reads up to `max` bytes, and one more to detect longer input. Waits for input that is
/// non-blocking.
fn read_one_more(mut from: impl Read + AsFd, max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let left = (max + 1 - bytes.len()) as u64;
        match from.by_ref().take(left).read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait_to_read(&from)?,
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::thread;

    use super::*;

    #[test]
    fn input_is_read_up_to_its_limit() {
        for (length, max, is_read) in
            [(0, 0, true), (5, 5, true), (6, 5, false), (60_000, 5, false)]
        {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(&vec![b'a'; length]).unwrap();
            drop(writer);
            assert_eq!(read_text(reader, max).is_ok(), is_read, "{length} {max}");
        }
        let endless = read_text(File::open("/dev/zero").unwrap(), MAX_LIST).unwrap_err();
        assert_eq!(endless.to_string(), "it is longer than 2 MiB");
    }

    #[test]
    fn non_blocking_input_is_awaited_and_read_once() {
        let (reader, mut writer) = io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
        let read = thread::spawn(move || read_text(reader, 100));
        for part in ["one\n", "two\n"] {
            writer.write_all(part.as_bytes()).unwrap();
            thread::yield_now();
        }
        drop(writer);
        assert_eq!(read.join().unwrap().unwrap(), "one\ntwo\n");
    }
}
