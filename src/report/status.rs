//! The exit status: the only place that knows the numbers.

use std::process::ExitCode;

use crate::stop::Cause;

/// What a script learns from a pass. The table of the README, in code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All that the selected nodes offer in the selected hours is here.
    Complete,
    /// This machine failed the pass.
    LocalFailure,
    /// The command line is wrong; nothing was contacted.
    Usage,
    /// A node, a listing or a segment could not be had; all else was done.
    Incomplete,
    /// No node answered at all.
    NoNode,
    /// Another pass holds the lock.
    Locked,
    /// A signal of this number ended the pass.
    Signal(i32),
    /// Whoever read our standard output closed it: what SIGPIPE would have done.
    OutputClosed,
}

impl Status {
    /// The same after this machine has failed at the end of a pass, too.
    pub fn or_local_failure(self) -> Status {
        match self {
            Status::Complete | Status::Incomplete | Status::NoNode => Status::LocalFailure,
            _ => self,
        }
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
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(status.code())
    }
}
