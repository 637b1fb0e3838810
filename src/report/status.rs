//! The exit status. Only this module knows the numbers.

use crate::stop::Cause;

/// What is left undone at the end of a pass. The exit status follows from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Left {
    /// Why the pass ended early, if it did.
    pub cause: Option<Cause>,
    /// Whether there was a local failure.
    pub failed_here: bool,
    /// Whether any node answered, or no node had to be asked.
    pub any_answered: bool,
    /// Files that a node offers and that are not here.
    pub missing: u64,
    /// Listings that failed after all retries.
    pub unlisted: u64,
    /// Segments that are here but corrupt.
    pub corrupt: u64,
    /// Nodes that were given up and have not come back.
    pub given_up: u64,
    /// Old hours that should have been deleted and were not.
    pub undeleted: u64,
    /// Holes in the selected hours, with `--fail-on-holes`; otherwise zero.
    pub holes: u64,
}

impl Left {
    /// The exit status.
    pub fn status(&self) -> Status {
        self.reasons().first().map_or(Status::Complete, |reason| reason.status())
    }

    /// Why the pass has its status, the root cause first; empty if it is complete.
    pub fn reasons(&self) -> Vec<Reason> {
        match self.cause {
            // A pass that ran out of time is judged like others, but is never complete.
            None | Some(Cause::MaxDuration) => {}
            Some(Cause::LocalFailure) => return vec![Reason::LocalFailure],
            Some(cause) => return vec![Reason::Ended(cause)],
        }
        if self.failed_here {
            return vec![Reason::LocalFailure];
        }
        if !self.any_answered {
            return vec![Reason::NoNode];
        }
        let undone = [
            (self.given_up, Reason::GivenUp),
            (self.unlisted, Reason::Unlisted),
            (self.missing, Reason::Missing),
            (self.corrupt, Reason::Corrupt),
            (self.undeleted, Reason::Undeleted),
            (self.holes, Reason::Holes),
        ];
        let undone = undone.into_iter().filter(|(left, _)| *left > 0).map(|(_, reason)| reason);
        self.cause.map(Reason::Ended).into_iter().chain(undone).collect()
    }
}

/// A reason why a pass is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The pass ended early.
    Ended(Cause),
    /// There was a local failure.
    LocalFailure,
    /// No node answered.
    NoNode,
    /// A node was given up.
    GivenUp,
    /// A listing failed.
    Unlisted,
    /// A file could not be fetched.
    Missing,
    /// A segment here is corrupt.
    Corrupt,
    /// An old hour was not deleted.
    Undeleted,
    /// Holes remain (`--fail-on-holes`).
    Holes,
}

impl Reason {
    fn status(self) -> Status {
        match self {
            Reason::Ended(cause) => cause.into(),
            Reason::LocalFailure => Status::LocalFailure,
            Reason::NoNode => Status::NoNode,
            Reason::GivenUp
            | Reason::Unlisted
            | Reason::Missing
            | Reason::Corrupt
            | Reason::Undeleted
            | Reason::Holes => Status::Incomplete,
        }
    }
}

/// The outcome of a pass, as in the exit table of the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything that the nodes offer in the selected hours is here.
    Complete,
    /// A local failure.
    LocalFailure,
    /// The command line is wrong; no node was contacted.
    Usage,
    /// Something is left undone; everything else was done.
    Incomplete,
    /// No node answered.
    NoNode,
    /// Another pass holds the lock.
    Locked,
    /// The signal with this number ended the pass.
    Signal(i32),
    /// The reader of standard output closed it. This is the status of death by SIGPIPE.
    OutputClosed,
}

impl Status {
    /// Exits the process with this status. After a signal, the process kills itself with the same
    /// signal, so that a loop in a shell script stops too; a shell shows the same number either
    /// way.
    pub fn exit(self) -> ! {
        // The first process of a container is not ended by a signal of its own, and not by the abort
        // that then follows.
        if let Status::Signal(signal) = self
            && std::process::id() != 1
        {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        std::process::exit(self.code().into())
    }

    /// The number that the process exits with.
    pub fn code(self) -> u8 {
        match self {
            Status::Complete => 0,
            Status::LocalFailure => 1,
            Status::Usage => 2,
            Status::Incomplete => 3,
            Status::NoNode => 4,
            Status::Locked => 75,
            Status::Signal(signal) => 128 + signal as u8,
            Status::OutputClosed => 141,
        }
    }
}

impl From<Cause> for Status {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Signal(signal) => Status::Signal(signal),
            Cause::LocalFailure => Status::LocalFailure,
            Cause::OutputClosed => Status::OutputClosed,
            Cause::MaxDuration => Status::Incomplete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_what_is_left_decides_the_status() {
        let nothing = Left { any_answered: true, ..Left::default() };
        let local = Left { failed_here: true, missing: 1, ..nothing };
        let unanswered = Left { given_up: 1, any_answered: false, ..nothing };
        let signal = |number| Some(Cause::Signal(number));
        let ended = Reason::Ended;
        let late = ended(Cause::MaxDuration);
        for (left, code, reasons) in [
            (nothing, 0, &[][..]),
            (Left { missing: 1, ..nothing }, 3, &[Reason::Missing]),
            (Left { unlisted: 1, ..nothing }, 3, &[Reason::Unlisted]),
            (Left { corrupt: 1, ..nothing }, 3, &[Reason::Corrupt]),
            (Left { given_up: 1, ..nothing }, 3, &[Reason::GivenUp]),
            (Left { undeleted: 1, ..nothing }, 3, &[Reason::Undeleted]),
            (Left { holes: 1, ..nothing }, 3, &[Reason::Holes]),
            (
                Left { holes: 2, missing: 3, given_up: 1, unlisted: 9, ..nothing },
                3,
                &[Reason::GivenUp, Reason::Unlisted, Reason::Missing, Reason::Holes],
            ),
            (unanswered, 4, &[Reason::NoNode]),
            (local, 1, &[Reason::LocalFailure]),
            (Left { any_answered: false, ..local }, 1, &[Reason::LocalFailure]),
            (Left { cause: Some(Cause::LocalFailure), ..nothing }, 1, &[Reason::LocalFailure]),
            (Left { cause: Some(Cause::MaxDuration), ..nothing }, 3, &[late]),
            (
                Left { cause: Some(Cause::MaxDuration), corrupt: 1, ..nothing },
                3,
                &[late, Reason::Corrupt],
            ),
            (Left { cause: Some(Cause::MaxDuration), ..unanswered }, 4, &[Reason::NoNode]),
            (Left { cause: Some(Cause::MaxDuration), ..local }, 1, &[Reason::LocalFailure]),
            (Left { cause: signal(2), missing: 1, ..nothing }, 130, &[ended(Cause::Signal(2))]),
            (Left { cause: signal(15), ..local }, 143, &[ended(Cause::Signal(15))]),
            (Left { cause: signal(1), ..unanswered }, 129, &[ended(Cause::Signal(1))]),
            (
                Left { cause: Some(Cause::OutputClosed), ..nothing },
                141,
                &[ended(Cause::OutputClosed)],
            ),
        ] {
            assert_eq!(left.reasons(), reasons, "{left:?}");
            assert_eq!(left.status().code(), code, "{left:?}");
        }
    }
}
