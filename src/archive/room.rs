//! Room on the archive's disks that is left to others, the downloader above all.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::fstatvfs;

use crate::error::OutOfRoom;

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
    /// How many bytes may be written until the next look.
    left: u64,
}

impl Room {
    /// Keeps this much free.
    pub fn new(keep: MinFree) -> Room {
        Room { keep, disks: Mutex::default() }
    }

    /// Takes room for so many bytes on the disk that an open directory is on. What is being written
    /// has taken its room before, so that many files at once don't share what is left.
    pub fn take(&self, dir: &File, device: u64, bytes: u64) -> io::Result<Result<(), OutOfRoom>> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = disks.get_mut(&device).filter(|disk| disk.looked.elapsed() < LOOK_EVERY);
        if let Some(disk) = known
            && disk.left >= bytes
        {
            disk.left -= bytes;
            return Ok(Ok(()));
        }
        let found = fstatvfs(dir)?;
        // What root may use beyond that is for emergencies.
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let keep = match self.keep {
            MinFree::Bytes(bytes) => bytes,
            MinFree::Percent(share) => {
                (found.f_blocks as f64 * found.f_frsize as f64 * share / 100.0) as u64
            }
        };
        let needed = keep.saturating_add(bytes);
        if free < needed {
            return Ok(Err(OutOfRoom { free, missing: needed - free }));
        }
        // Half of it, since files take more than their bytes.
        let left = ((free - needed) / 2).min(LOOK_EVERY_BYTES);
        disks.insert(device, Disk { looked: Instant::now(), left });
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        let found = fstatvfs(&dir).unwrap();
        let (free, all) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
        let none = Room::new(MinFree::Bytes(all + 1));
        let out = none.take(&dir, 1, 5).unwrap().unwrap_err();
        assert_eq!(out.free + out.missing, all + 6);
        let share = Room::new(MinFree::Percent(99.999));
        assert!(share.take(&dir, 1, 5).unwrap().is_err());
        // Others write to this disk, too.
        let some = Room::new(MinFree::Bytes(free / 2));
        assert!(some.take(&dir, 1, free / 4).unwrap().is_ok());
        assert!(some.take(&dir, 1, free).unwrap().is_err());
    }
}
