//! Flushes of directories, one for all who wait for it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

/// How many directories are kept open to be flushed again.
pub const MAX_OPEN_DIRS: usize = 64;

/// A directory that several threads rename files in, and then want flushed. One flush serves all
/// that asked for it before it began.
#[derive(Debug)]
pub struct FlushedDir {
    dir: File,
    /// The directories above it, up to the archive's own.
    parents: Vec<PathBuf>,
    state: Mutex<FlushState>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct FlushState {
    /// How many have asked for a flush.
    asked: u64,
    /// How many of them have been served; with the first, the parents were flushed.
    served: u64,
    flushing: bool,
}

impl FlushedDir {
    pub fn open(dir: &Path, base: &Path) -> io::Result<FlushedDir> {
        let parents = dir.ancestors().skip(1);
        let below_base = parents.take_while(|parent| parent.starts_with(base));
        Ok(FlushedDir {
            dir: File::open(dir)?,
            parents: below_base.map(Path::to_owned).collect(),
            state: Mutex::default(),
            over: Condvar::new(),
        })
    }

    /// Returns once a flush is over that began after this was called.
    pub fn flush(&self) -> io::Result<()> {
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = lock();
        state.asked += 1;
        let ours = state.asked;
        while state.flushing && state.served < ours {
            state = self.over.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.served >= ours {
            return Ok(());
        }
        let (asked, is_first) = (state.asked, state.served == 0);
        state.flushing = true;
        drop(state);
        let flushed = self.flush_now(is_first);
        let mut state = lock();
        state.flushing = false;
        if flushed.is_ok() {
            state.served = asked;
        }
        self.over.notify_all();
        flushed
    }

    fn flush_now(&self, is_first: bool) -> io::Result<()> {
        self.dir.sync_all()?;
        if is_first {
            self.parents.iter().try_for_each(|parent| File::open(parent)?.sync_all())?;
        }
        Ok(())
    }
}
