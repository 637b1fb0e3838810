//! Watches the bytes of a connection below everything that decodes them, since what never yields a
//! byte above (endless empty blocks, chunks, trailers) must end too.

use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::{NodeError, Trouble};

/// A slow answer is one of fewer bytes than this a second ...
pub const SLOW_RATE: u64 = 1000;
/// ... over this long.
pub const SLOW_FOR: Duration = Duration::from_secs(30);

/// Puts a watch on the connections that come from the connector before it in a chain.
#[derive(Debug)]
pub struct PaceConnector {
    /// The most bytes that an answer may have.
    pub max_answer: u64,
}

impl<In: Transport> Connector<In> for PaceConnector {
    type Out = PacedTransport<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let watch = |inner| PacedTransport {
            inner,
            pace: Pace::default(),
            answer: 0,
            max_answer: self.max_answer,
        };
        Ok(chained.map(watch))
    }
}

/// A connection under watch. What is sent begins a new exchange.
#[derive(Debug)]
pub struct PacedTransport<T> {
    inner: T,
    pace: Pace,
    answer: u64,
    max_answer: u64,
}

impl<T: Transport> Transport for PacedTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        (self.pace, self.answer) = (Pace::default(), 0);
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.inner.buffers().input().len();
        let begun = Instant::now();
        let progress = self.inner.await_input(timeout)?;
        let read = self.inner.buffers().input().len().saturating_sub(before) as u64;
        self.answer += read;
        if self.answer > self.max_answer {
            let what = format!("the answer is longer than {} MiB", self.max_answer >> 20);
            return Err(Error::Io(NodeError::new(Trouble::Refused, what).into()));
        }
        if self.pace.is_too_slow(read, begun.elapsed()) {
            let slow = SLOW_FOR.as_secs();
            let what = format!("slower than {SLOW_RATE} bytes per second for {slow}s");
            return Err(Error::Io(NodeError::new(Trouble::Silent, what).into()));
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// How fast an answer comes. Only time spent waiting for the node counts: a limit on our side makes
/// no node slow.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn is_too_slow(&mut self, bytes: u64, waited: Duration) -> bool {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < SLOW_FOR {
            return false;
        }
        let slow = self.bytes < SLOW_RATE * self.waited.as_secs();
        *self = Pace::default();
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_slow_by_what_it_moves_in_half_a_minute() {
        let seconds = Duration::from_secs;
        // A byte every four seconds.
        let mut pace = Pace::default();
        let verdicts: Vec<bool> = (0..8).map(|_| pace.is_too_slow(1, seconds(4))).collect();
        assert_eq!(verdicts, [false, false, false, false, false, false, false, true]);
        // Barely enough, for ever.
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| !pace.is_too_slow(4000, seconds(4))));
    }
}
