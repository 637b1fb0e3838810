//! Signals: the first ends the pass in order, the second at once, and those that whoever started us
//! wants ignored stay ignored. SIGUSR1 asks how far the pass has come.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::Pass;
use crate::report::Status;
use crate::stop::Cause;

/// How long a pass has to end in order after the first signal.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long it then has to remove what is still staged.
const LAST_GRACE: Duration = Duration::from_millis(50);

/// Watches for signals as long as the process lives.
pub fn watch(pass: &Arc<Pass>) {
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = match Signals::new(wanted.chain([SIGUSR1])) {
        Ok(signals) => signals,
        Err(e) => return warn!("signals can't be caught, and will leave staged files: {e}"),
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
                spawn(move || {
                    tells.tell_stats();
                    tells.measure_under_way();
                });
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
            if !ended || !watched {
                exit_now(&pass, signal);
            }
        }
    };
    if !spawn(watch) {
        warn!("signals can't be caught, and will leave staged files: no thread could be started");
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> bool {
    thread::Builder::new().spawn(run).is_ok()
}

/// Ends the process whatever its threads are at, with no staged file left if that can be had.
fn exit_now(pass: &Arc<Pass>, signal: i32) -> ! {
    let closes = pass.clone();
    if spawn(move || closes.archive.close(Duration::ZERO)) {
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
