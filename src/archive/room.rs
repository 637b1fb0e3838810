//! Room on the archive's disks that is left to others, the downloader above all.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::fs::fstatvfs;

use crate::error::OutOfRoom;
use crate::lock::lock;

/// How much is to stay free on a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinFree {
    /// So many bytes.
    Bytes(u64),
    /// This share of the disk, in percent.
    Percent(f64),
}

/// For how long, and for how many bytes, a look at a disk holds. Other writers are at work on it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY_BYTES: u64 = 64 << 20;

/// Keeps room free on each disk that an archive is on.
#[derive(Debug)]
pub struct Room {
    keep: MinFree,
    /// By the device.
    disks: Mutex<HashMap<u64, Disk>>,
}

#[derive(Debug)]
struct Disk {
    looked: Instant,
    /// How many bytes may be taken until the next look.
    left: u64,
    /// How many were taken, and may not be written yet.
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

    /// Takes room for so many bytes on the disk that an open directory is on. Once they are
    /// written, [`Room::written`] is to be told.
    pub fn take(&self, dir: &File, device: u64, bytes: u64) -> io::Result<Result<(), OutOfRoom>> {
        let mut disks = self.lock();
        // None of an unknown one is left.
        let unknown = || Disk { looked: Instant::now(), left: 0, pending: 0 };
        let disk = disks.entry(device).or_insert_with(unknown);
        if disk.looked.elapsed() >= LOOK_EVERY || disk.left < bytes {
            let (free, all) = free_of_all(dir)?;
            let keep = match self.keep {
                MinFree::Bytes(bytes) => bytes,
                MinFree::Percent(share) => (all as f64 * share / 100.0) as u64,
            };
            let needed = keep.saturating_add(disk.pending).saturating_add(bytes);
            if free < needed {
                return Ok(Err(OutOfRoom { free, missing: needed - free }));
            }
            // Half of the rest, since files take more than their bytes.
            disk.left = bytes + ((free - needed) / 2).min(LOOK_EVERY_BYTES);
            disk.looked = Instant::now();
        }
        disk.left -= bytes;
        disk.pending += bytes;
        Ok(Ok(()))
    }

    /// What was taken is written by now, or won't be.
    pub fn written(&self, device: u64, bytes: u64) {
        if let Some(disk) = self.lock().get_mut(&device) {
            disk.pending = disk.pending.saturating_sub(bytes);
        }
    }
}

/// The bytes that are free on a disk, and all. What root may use beyond them is for emergencies.
fn free_of_all(dir: &File) -> io::Result<(u64, u64)> {
    let found = fstatvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((bytes(found.f_bavail), bytes(found.f_blocks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        let (free, all) = free_of_all(&dir).unwrap();
        let none = Room::new(MinFree::Bytes(all + 1));
        let out = none.take(&dir, 1, 5).unwrap().unwrap_err();
        assert_eq!(out.free + out.missing, all + 6);
        let share = Room::new(MinFree::Percent(99.999));
        assert!(share.take(&dir, 1, 5).unwrap().is_err());
        // Others write to this disk, too.
        let some = Room::new(MinFree::Bytes(free / 2));
        assert!(some.take(&dir, 1, free / 4).unwrap().is_ok());
        assert!(some.take(&dir, 1, free).unwrap().is_err());
        // What is taken is gone for others before it is written.
        assert!(some.take(&dir, 1, free / 3).unwrap().is_err());
        some.written(1, free / 4);
        assert!(some.take(&dir, 1, free / 3).unwrap().is_ok());
    }
}
