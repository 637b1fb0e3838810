//! Signals. The first one ends the pass in order, the second one at once. A signal that was ignored
//! when the process started stays ignored. SIGUSR1 prints the progress, and writes the metrics and
//! the HTML report. SIGTSTP (Ctrl-Z) removes the progress bar and stops the process.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::Pass;
use crate::error::LocalError;
use crate::report::Status;
use crate::stop::Cause;

/// How long a pass may take to end in order after the first signal. With [`LAST_GRACE`] this stays
/// under a second, so the process is gone before a user or a supervisor loses patience.
const GRACE: Duration = Duration::from_millis(900);
/// How long it may then take to remove staged files.
const LAST_GRACE: Duration = Duration::from_millis(50);

/// The signals that end a pass.
const ENDS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Whether a signal ends the first process of a container at once, because [`watch`] does not handle
/// it yet.
static ENDS_AT_ONCE: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(true.into()));

/// Prepares for signals that arrive before [`watch`] handles them, such as while a list is read from
/// standard input: SIGUSR1 does not end the process, and those that end a pass do. By default, they
/// would not end the first process of a container.
pub fn prepare() {
    if let Err(e) = flag::register(SIGUSR1, Arc::default()) {
        debug!("cannot catch SIGUSR1: {e}");
    }
    if std::process::id() == 1 {
        for signal in ENDS.into_iter().filter(|signal| !is_ignored(*signal)) {
            let status = Status::Signal(signal).code().into();
            let at_once = ENDS_AT_ONCE.clone();
            if let Err(e) = flag::register_conditional_shutdown(signal, status, at_once) {
                debug!("cannot catch signals: {e}");
            }
        }
    }
    // A program that waits for signals in one of its threads starts others with them blocked, and they
    // would never arrive here.
    let handled =
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP, Signal::SIGUSR1];
    if let Err(e) = SigSet::from_iter(handled).thread_unblock() {
        debug!("cannot unblock signals: {e}");
    }
}

/// Watches for signals until the process exits.
///
/// # Errors
///
/// Fails if no thread can be started. The pass needs threads anyway.
pub fn watch(pass: &Arc<Pass>) -> Result<(), LocalError> {
    let wanted = ENDS.into_iter().filter(|signal| !is_ignored(*signal));
    let stops = pass.progress.is_shown() && can_be_stopped() && !is_ignored(SIGTSTP);
    let wanted = wanted.chain(stops.then_some(SIGTSTP));
    let mut signals = match Signals::new(wanted.chain([SIGUSR1])) {
        Ok(signals) => {
            ENDS_AT_ONCE.store(false, Ordering::Relaxed);
            signals
        }
        Err(e) => {
            warn!("cannot catch signals, so they will leave staged files: {e}");
            return Ok(());
        }
    };
    // Caught, so that a write beyond the file size limit (ulimit -f) fails with an error instead of
    // killing the process.
    if let Err(e) = flag::register(SIGXFSZ, Arc::default()) {
        debug!("cannot catch SIGXFSZ: {e}");
    }
    let pass = pass.clone();
    let watch = move || {
        let mut is_first = true;
        for signal in &mut signals {
            match signal {
                // The shell writes where the bar was. Once the process continues, the bar is drawn
                // again below that.
                SIGTSTP => pass.progress.suspend(|| drop(emulate_default_handler(signal))),
                SIGUSR1 => report_so_far(&pass),
                _ if std::mem::take(&mut is_first) => end_in_order(&pass, signal),
                _ => exit_now(&pass, signal),
            }
        }
    };
    spawn(watch)
        .map_err(|e| LocalError::new("starting a thread to watch for", "signals".as_ref(), e))
}

/// Prints the progress, and writes the files about the pass.
fn report_so_far(pass: &Arc<Pass>) {
    let pass = pass.clone();
    let reported = spawn(move || {
        pass.show_stats();
        pass.write_metrics_so_far();
        pass.write_page_so_far();
    });
    if let Err(e) = reported {
        debug!("cannot start a thread to show the progress: {e}");
    }
}

/// Ends the pass, and exits if that takes too long. Both in threads of their own: the thread that
/// holds a lock needed here may be blocked on writing to a stopped terminal.
fn end_in_order(pass: &Arc<Pass>, signal: i32) {
    let (ends, watches) = (pass.clone(), pass.clone());
    let ended = spawn(move || ends.end(Cause::Signal(signal)));
    let watched = spawn(move || {
        thread::sleep(GRACE);
        exit_now(&watches, signal);
    });
    if ended.is_err() || watched.is_err() {
        exit_now(pass, signal);
    }
}

/// Whether there is a shell that can continue this process after a stop. Without one, the system
/// does not stop it.
///
/// Not by rustix: its type for a process ID excludes 0, which is what a container sees for a session
/// or a group whose leader is outside.
fn can_be_stopped() -> bool {
    nix::unistd::getsid(None).is_ok_and(|session| session != nix::unistd::getpgrp())
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().spawn(run).map(drop)
}

/// Exits without waiting for other threads, but tries to remove the staged files first.
fn exit_now(pass: &Arc<Pass>, signal: i32) -> ! {
    let closes = pass.clone();
    if spawn(move || closes.archive.close(Duration::ZERO)).is_ok() {
        thread::sleep(LAST_GRACE);
    }
    Status::Signal(signal).exit()
}

/// Whether a signal was ignored when the process started, as under nohup. Without `/proc`, that is
/// not known, and the signal is handled.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
