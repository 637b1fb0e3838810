//! Signals: the first ends the pass in order, the second at once, and those that whoever started us
//! wants ignored stay ignored. SIGUSR1 asks how far the pass has come.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::Pass;
use crate::error::LocalError;
use crate::report::Status;
use crate::stop::Cause;

/// How long a pass has to end in order after the first signal.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long it then has to remove what is still staged.
const LAST_GRACE: Duration = Duration::from_millis(50);

/// Watches for signals as long as the process lives. Fails if no thread can be started, without which
/// a pass can do nothing anyway.
pub fn watch(pass: &Arc<Pass>) -> Result<(), LocalError> {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = match Signals::new(wanted.chain([SIGUSR1])) {
        Ok(signals) => signals,
        Err(e) => {
            warn!("signals can't be caught, and will leave staged files: {e}");
            return Ok(());
        }
    };
    // A file that is larger than this user may write is an error like others.
    if let Err(e) = flag::register(SIGXFSZ, Arc::default()) {
        debug!("SIGXFSZ can't be caught: {e}");
    }
    let pass = pass.clone();
    let watch = move || {
        let mut is_first = true;
        for signal in &mut signals {
            if signal == SIGUSR1 {
                let tells = pass.clone();
                let told = spawn(move || {
                    tells.tell_stats();
                    tells.measure_under_way();
                });
                if let Err(e) = told {
                    debug!("no thread could be started to show how far the pass is: {e}");
                }
                continue;
            }
            if !std::mem::take(&mut is_first) {
                exit_now(&pass, signal);
            }
            // In threads of their own: whoever holds a lock that this takes may be writing to a
            // terminal that is held up.
            let (ends, watches) = (pass.clone(), pass.clone());
            let ended = spawn(move || ends.end(Cause::Signal(signal)));
            let watched = spawn(move || {
                thread::sleep(PATIENCE);
                exit_now(&watches, signal);
            });
            if ended.is_err() || watched.is_err() {
                exit_now(&pass, signal);
            }
        }
    };
    spawn(watch)
        .map_err(|e| LocalError::new("starting a thread to watch for", "signals".as_ref(), e))
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().spawn(run).map(drop)
}

/// Ends the process whatever its threads are at, with no staged file left if that can be had.
fn exit_now(pass: &Arc<Pass>, signal: i32) -> ! {
    let closes = pass.clone();
    if spawn(move || closes.archive.close(Duration::ZERO)).is_ok() {
        thread::sleep(LAST_GRACE);
    }
    Status::Signal(signal).exit()
}

/// Whether whoever started us wants a signal to be ignored, as nohup does. Where the system has no
/// such file nothing is known, and signals are obeyed.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
