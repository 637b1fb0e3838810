//! Space on the archive's disks that is left to other writers, above all the downloader.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::fs::fstatvfs;

use crate::error::OutOfRoom;
use crate::lock::lock;

/// How much space to keep free on a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinFree {
    /// This many bytes.
    Bytes(u64),
    /// This share of the disk, in percent.
    Percent(f64),
}

/// A measurement of a disk is used for this long, and for this many bytes. Other writers use the
/// disk too, so it can't be much longer.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
const MEASURE_EVERY_BYTES: u64 = 64 << 20;

/// Keeps space free on each disk of an archive.
#[derive(Debug)]
pub struct Room {
    keep: MinFree,
    /// By device.
    disks: Mutex<HashMap<u64, Disk>>,
}

/// What is known of a disk.
#[derive(Debug)]
struct Disk {
    measured: Instant,
    /// How many bytes may be taken before the next measurement.
    left: u64,
    /// How many bytes were taken but may not be written yet.
    pending: u64,
}

impl Room {
    /// Keeps this much free.
    pub fn new(keep: MinFree) -> Room {
        Room { keep, disks: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Disk>> {
        lock(&self.disks)
    }

    /// Reserves space for `bytes` bytes on the disk of an open directory. Call [`Room::written`]
    /// once they are written. The inner error is that too little space would be left.
    ///
    /// # Errors
    ///
    /// Fails if the disk can't be measured.
    pub fn take(&self, dir: &File, device: u64, bytes: u64) -> io::Result<Result<(), OutOfRoom>> {
        let mut disks = self.lock();
        // A disk seen for the first time is measured below.
        let unknown = || Disk { measured: Instant::now(), left: 0, pending: 0 };
        let disk = disks.entry(device).or_insert_with(unknown);
        if disk.measured.elapsed() >= MEASURE_EVERY || disk.left < bytes {
            let (free, all) = free_of_all(dir)?;
            let keep = match self.keep {
                MinFree::Bytes(bytes) => bytes,
                MinFree::Percent(share) => (all as f64 * share / 100.0) as u64,
            };
            let needed = keep.saturating_add(disk.pending).saturating_add(bytes);
            if free < needed {
                return Ok(Err(OutOfRoom { free, missing: needed - free }));
            }
            // Only half of the rest, since files take more space than their content.
            disk.left = bytes + ((free - needed) / 2).min(MEASURE_EVERY_BYTES);
            disk.measured = Instant::now();
        }
        disk.left -= bytes;
        disk.pending += bytes;
        Ok(Ok(()))
    }

    /// Notes that reserved bytes were written, or won't be.
    pub fn written(&self, device: u64, bytes: u64) {
        if let Some(disk) = self.lock().get_mut(&device) {
            disk.pending = disk.pending.saturating_sub(bytes);
        }
    }
}

/// The free bytes and all bytes of a disk. Blocks reserved for root don't count as free.
fn free_of_all(dir: &File) -> io::Result<(u64, u64)> {
    let found = fstatvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((bytes(found.f_bavail), bytes(found.f_blocks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        let (free, all) = free_of_all(&dir).unwrap();
        let none = Room::new(MinFree::Bytes(all + 1));
        let out = none.take(&dir, 1, 5).unwrap().unwrap_err();
        assert_eq!(out.free + out.missing, all + 6);
        let share = Room::new(MinFree::Percent(99.999));
        assert!(share.take(&dir, 1, 5).unwrap().is_err());
        // Other programs write to this disk, too.
        let some = Room::new(MinFree::Bytes(free / 2));
        assert!(some.take(&dir, 1, free / 4).unwrap().is_ok());
        assert!(some.take(&dir, 1, free).unwrap().is_err());
        // Reserved space is unavailable to others even before it is written.
        assert!(some.take(&dir, 1, free / 3).unwrap().is_err());
        some.written(1, free / 4);
        assert!(some.take(&dir, 1, free / 3).unwrap().is_ok());
    }
}
