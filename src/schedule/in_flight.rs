//! The fetches under way: node, file, start and progress of each. When a node has nothing else to
//! do, this module decides whether it should also fetch a file that another node is sending. That
//! costs bytes, so it needs evidence: the first transfer has stopped moving, or by both nodes'
//! rates the second would finish well before it; then it continues where the first has got to.

use std::time::{Duration, Instant};

use super::files::FileId;
use super::nodes::NodeId;
use crate::transfer::Transfer;

/// A transfer that received nothing for this long has stopped moving. Before the first byte the node
/// may be looking for the file, so it gets twice this time, or four times its usual delay if that
/// is longer.
const STALLED: Duration = Duration::from_secs(1);
/// A rate is meaningful after at least this long, and this many bytes.
const WATCHED: Duration = Duration::from_millis(500);
const MEASURED: u64 = 32 << 10;
/// How much earlier a second fetch must finish to be worth it: half of its own duration, plus this.
const MARGIN: Duration = Duration::from_millis(200);
/// How soon to check again whether a transfer has become worth helping.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// If no worker has asked what to do for this long, this process may have been stopped, and bytes
/// that arrived meanwhile are still to be read.
const ASLEEP: Duration = Duration::from_millis(500);

/// A fetch under way.
#[derive(Debug)]
struct Fetching {
    number: u64,
    node: NodeId,
    file: FileId,
    /// Whether another node may send the rest of it.
    can_continue: bool,
    transfer: Transfer,
    /// When this process last may have been stopped during it, and how much it had received by then.
    /// Rates are measured from there.
    woken: Option<(Instant, u64)>,
}

/// Why a second node should fetch a file that a first one is sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The first has stopped moving. Both requests stay open, and the first to finish wins.
    Stopped,
    /// The first is moving, but so slowly that the second should continue in its place.
    Slow,
}

/// The speed of a node's transfers, as moving averages.
#[derive(Clone, Copy, Debug, Default)]
struct Speed {
    /// Bytes per second of a single transfer, from those large enough to measure.
    rate: Option<f64>,
    /// The delay before the first byte.
    wait: Option<Duration>,
    /// Whether the node can send just the rest of a file.
    takes_ranges: bool,
}

impl Speed {
    fn note(&mut self, transfer: &Transfer) {
        let (Some(first), Some(latest)) = (transfer.first_byte_at(), transfer.moved_at()) else {
            return;
        };
        self.takes_ranges = transfer.takes_ranges();
        let wait = first - transfer.begun();
        self.wait = Some(self.wait.map_or(wait, |wait_before| (wait_before * 7 + wait) / 8));
        let took = (latest - first).as_secs_f64();
        if transfer.received() >= MEASURED && took > 0.0 {
            let rate = transfer.received() as f64 / took;
            self.rate =
                Some(self.rate.map_or(rate, |rate_before| (rate_before * 7.0 + rate) / 8.0));
        }
    }

    /// How long a file of this length would take from its first byte to its last.
    fn expected(&self, length: u64) -> Option<Duration> {
        let seconds = length as f64 / self.rate?;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// The fetches that are still needed.
#[derive(Debug)]
pub struct InFlight {
    fetching: Vec<Fetching>,
    speeds: Vec<Speed>,
    count: u64,
    /// When a worker last asked what to do.
    asked: Option<Instant>,
    /// Until when no node helps, so that workers can first read what is in their sockets.
    rests_until: Option<Instant>,
}

impl InFlight {
    /// No fetches yet, for this many nodes.
    pub fn new(nodes: usize) -> InFlight {
        InFlight {
            fetching: Vec::new(),
            speeds: vec![Speed::default(); nodes],
            count: 0,
            asked: None,
            rests_until: None,
        }
    }

    /// Notes that a worker asks what to do.
    pub fn asked(&mut self, now: Instant) {
        let before = self.asked.replace(now);
        if before.is_some_and(|before| now.saturating_duration_since(before) > ASLEEP) {
            self.rests_until = Some(now + LOOK_AGAIN);
            for fetching in &mut self.fetching {
                fetching.woken = Some((now, fetching.transfer.received()));
            }
        }
    }

    /// Notes that a fetch begins, and whether another node may send the rest of the file. Returns
    /// its number.
    pub fn begin(
        &mut self,
        node: NodeId,
        file: FileId,
        can_continue: bool,
        transfer: Transfer,
    ) -> u64 {
        self.count += 1;
        let number = self.count;
        self.fetching.push(Fetching { number, node, file, can_continue, transfer, woken: None });
        number
    }

    /// Notes that a fetch has ended. Returns whether it was still needed.
    pub fn end(&mut self, number: u64, delivered: bool) -> bool {
        let Some(at) = self.fetching.iter().position(|fetching| fetching.number == number) else {
            return false;
        };
        let ended = self.fetching.swap_remove(at);
        if delivered {
            self.speeds[ended.node].note(&ended.transfer);
        }
        true
    }

    /// Whether any of a node's transfers has received a byte since then.
    pub fn moved_since(&self, node: NodeId, then: Instant) -> bool {
        let of_node = self.fetching.iter().filter(|fetching| fetching.node == node);
        of_node.filter_map(|fetching| fetching.transfer.moved_at()).any(|at| at > then)
    }

    /// Cancels the fetches of a file that is no longer needed. Returns the nodes of their workers.
    pub fn supersede_file(&mut self, file: FileId) -> Vec<NodeId> {
        self.cancel(|fetching| fetching.file == file, Transfer::supersede)
    }

    /// Cancels the fetches of a file that was deleted on purpose. Returns the nodes of their workers.
    pub fn forbid_file(&mut self, file: FileId) -> Vec<NodeId> {
        self.cancel(|fetching| fetching.file == file, Transfer::forbid)
    }

    /// Cancels all fetches from a node. Returns how many there were.
    pub fn supersede_node(&mut self, node: NodeId) -> usize {
        self.cancel(|fetching| fetching.node == node, Transfer::supersede).len()
    }

    fn cancel(&mut self, which: impl Fn(&Fetching) -> bool, tell: fn(&Transfer)) -> Vec<NodeId> {
        let ended = self.fetching.extract_if(.., |fetching| which(fetching));
        ended.inspect(|ended| tell(&ended.transfer)).map(|ended| ended.node).collect()
    }

    /// Ends the fetch of a file so that another node can continue it; returns its node and transfer.
    pub fn hand_over(&mut self, file: FileId) -> Option<(NodeId, Transfer)> {
        let at = self.fetching.iter().position(|fetching| fetching.file == file)?;
        let fetching = self.fetching.swap_remove(at);
        Some((fetching.node, fetching.transfer))
    }

    /// A file that another node is sending and that this one should fetch, too, and why. `could` tells
    /// whether this node has the file and no third node helps already.
    pub fn to_help_with(
        &self,
        helper: NodeId,
        now: Instant,
        could: impl Fn(FileId) -> bool,
    ) -> Option<(FileId, Reason)> {
        if self.rests_until.is_some_and(|rests_until| now < rests_until) {
            return None;
        }
        let others = self.fetching.iter().filter(|fetching| fetching.node != helper);
        let worth = others.filter_map(|fetching| {
            let reason = self.reason_to_help(helper, fetching, now)?;
            Some((fetching.transfer.begun(), fetching.file, reason))
        });
        // The latest transfer has the most left to do.
        let mut worth: Vec<_> = worth.collect();
        worth.sort_by_key(|(begun, ..)| std::cmp::Reverse(*begun));
        let worth = worth.into_iter().map(|(_, file, reason)| (file, reason));
        worth.into_iter().find(|(file, _)| could(*file))
    }

    /// When to call [`InFlight::to_help_with`] again, if this node could still help.
    pub fn look_again(
        &self,
        helper: NodeId,
        now: Instant,
        could: impl Fn(FileId) -> bool,
    ) -> Option<Instant> {
        let others = self.fetching.iter().filter(|fetching| fetching.node != helper);
        let mut files = others.map(|fetching| fetching.file);
        files.any(could).then(|| now + LOOK_AGAIN)
    }

    fn reason_to_help(&self, helper: NodeId, fetching: &Fetching, now: Instant) -> Option<Reason> {
        let (transfer, theirs, ours) =
            (&fetching.transfer, self.speeds[fetching.node], self.speeds[helper]);
        let Some(first) = transfer.first_byte_at() else {
            let usual = theirs.wait.unwrap_or_default() * 4;
            return (now - transfer.begun() >= usual.max(STALLED * 2)).then_some(Reason::Stopped);
        };
        let latest = transfer.moved_at().unwrap_or(first);
        if now.saturating_duration_since(latest) >= STALLED {
            return Some(Reason::Stopped);
        }
        if transfer.is_second() {
            return None;
        }
        let length = transfer.length()?;
        let (since, before) = fetching.woken.unwrap_or((first, 0));
        let watched = now.saturating_duration_since(since.max(first));
        let came = transfer.received() - before;
        if watched < WATCHED || came < MEASURED {
            return None;
        }
        let rest = length.saturating_sub(transfer.received());
        let left = rest as f64 * watched.as_secs_f64() / came as f64;
        let to_fetch = if fetching.can_continue && ours.takes_ranges { rest } else { length };
        let needed = (ours.wait? + ours.expected(to_fetch)?).mul_f64(1.5) + MARGIN;
        (needed.as_secs_f64() < left).then_some(Reason::Slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two nodes, each of which has sent a file of 1 MB at its rate; the second is now starting
    /// another fetch.
    fn two_nodes(rates: [u64; 2], now: Instant) -> (InFlight, Transfer) {
        let mut fetches = InFlight::new(2);
        for (node, rate) in rates.into_iter().enumerate() {
            let transfer = Transfer::new(now);
            let number = fetches.begin(node, node as FileId, true, transfer.clone());
            transfer.receive(0, now);
            transfer.receive(1_000_000, now + Duration::from_secs_f64(1e6 / rate as f64));
            assert!(fetches.end(number, true));
        }
        let transfer = Transfer::new(now);
        fetches.begin(1, 9, true, transfer.clone());
        (fetches, transfer)
    }

    fn reason(fetches: &InFlight, now: Instant) -> Option<Reason> {
        let help = fetches.to_help_with(0, now, |_| true);
        help.map(|(file, reason)| {
            assert_eq!(file, 9);
            reason
        })
    }

    fn helps(fetches: &InFlight, now: Instant) -> bool {
        reason(fetches, now).is_some()
    }

    #[test]
    fn a_transfer_that_has_stopped_moving_is_helped_with() {
        let now = Instant::now();
        let (fetches, transfer) = two_nodes([1_000_000, 1_000_000], now);
        assert!(!helps(&fetches, now + SECOND));
        assert!(helps(&fetches, now + SECOND * 2));
        transfer.receive(1000, now + SECOND * 2);
        assert!(!helps(&fetches, now + SECOND * 2 + SECOND / 2));
        assert_eq!(reason(&fetches, now + SECOND * 3), Some(Reason::Stopped));
        assert_eq!(fetches.to_help_with(0, now + SECOND * 3, |_| false), None);
        // A node doesn't help itself.
        assert_eq!(fetches.to_help_with(1, now + SECOND * 3, |_| true), None);
    }

    #[test]
    fn a_node_that_is_usually_slow_to_start_has_not_stopped() {
        let now = Instant::now();
        let mut fetches = InFlight::new(2);
        let slow = Transfer::new(now);
        let number = fetches.begin(1, 1, true, slow.clone());
        slow.receive(100, now + SECOND * 2);
        fetches.end(number, true);
        fetches.begin(1, 9, true, Transfer::new(now));
        assert!(!helps(&fetches, now + SECOND * 7));
        assert!(helps(&fetches, now + SECOND * 8));
    }

    #[test]
    fn only_a_much_faster_node_helps_one_that_moves() {
        for (ours, theirs, received, is_helped) in [
            (10_000_000, 125_000, 125_000, true),
            (1_000_000, 1_000_000, 600_000, false),
            (1_000_000, 500_000, 500_000, false),
            (1_000_000, 300_000, 300_000, true),
            // Nearly finished.
            (10_000_000, 125_000, 990_000, false),
        ] {
            let now = Instant::now();
            let (fetches, transfer) = two_nodes([ours, theirs], now);
            transfer.expect(Some(1_000_000));
            transfer.receive(0, now);
            let later = now + SECOND.mul_f64(received as f64 / theirs as f64);
            transfer.receive(received, later);
            let expected = is_helped.then_some(Reason::Slow);
            assert_eq!(reason(&fetches, later), expected, "{ours} {theirs} {received}");
        }
    }

    #[test]
    fn the_rest_of_a_file_takes_less_than_all_of_it() {
        for (takes_ranges, can_continue, is_helped) in
            [(true, true, true), (false, true, false), (true, false, false)]
        {
            let now = Instant::now();
            let mut fetches = InFlight::new(2);
            let before = Transfer::new(now);
            let number = fetches.begin(0, 0, true, before.clone());
            before.note_ranges(takes_ranges);
            before.receive(0, now);
            before.receive(1_000_000, now + SECOND.mul_f64(1.6));
            assert!(fetches.end(number, true));
            let transfer = Transfer::new(now);
            fetches.begin(1, 9, can_continue, transfer.clone());
            transfer.expect(Some(1_000_000));
            transfer.receive(0, now);
            transfer.receive(500_000, now + SECOND * 2);
            // Two seconds are left. The whole file takes the other node 1.6 s, the rest 0.8 s.
            let expected = is_helped.then_some(Reason::Slow);
            let situation = (takes_ranges, can_continue);
            assert_eq!(reason(&fetches, now + SECOND * 2), expected, "{situation:?}");
        }
    }

    #[test]
    fn a_transfer_is_not_slow_because_this_process_was_stopped() {
        let now = Instant::now();
        // After being stopped for ten seconds, eight seconds' worth of bytes are still to come.
        let (mut fetches, transfer) = two_nodes([1_000_000, 100_000], now);
        transfer.expect(Some(1_000_000));
        fetches.asked(now);
        transfer.receive(50_000, now + SECOND / 4);
        let woken = now + SECOND * 10;
        fetches.asked(woken);
        assert!(!helps(&fetches, woken));
        transfer.receive(150_000, woken + SECOND / 8);
        fetches.asked(woken + SECOND / 4);
        assert!(!helps(&fetches, woken + SECOND / 4));
        // Measured over the whole time it would be slow; since then it is fast.
        transfer.receive(450_000, woken + SECOND / 2);
        fetches.asked(woken + SECOND / 2);
        assert!(!helps(&fetches, woken + SECOND / 2));
        // A transfer that has stopped moving since then has stopped.
        fetches.asked(woken + SECOND);
        assert!(helps(&fetches, woken + SECOND * 3 / 2));
    }

    #[test]
    fn small_files_don_t_measure_the_rate_of_large_ones() {
        let now = Instant::now();
        let mut fetches = InFlight::new(2);
        let chat = Transfer::new(now);
        let number = fetches.begin(0, 0, true, chat.clone());
        chat.receive(5000, now + Duration::from_millis(5));
        fetches.end(number, true);
        let large = Transfer::new(now);
        fetches.begin(1, 9, true, large.clone());
        large.expect(Some(1_500_000));
        large.receive(0, now);
        large.receive(500_000, now + SECOND);
        assert!(!helps(&fetches, now + SECOND));
    }

    #[test]
    fn a_continued_transfer_is_helped_only_if_it_stops() {
        let now = Instant::now();
        let (mut fetches, _) = two_nodes([10_000_000, 125_000], now);
        let (node, before) = fetches.hand_over(9).unwrap();
        assert_eq!((node, fetches.hand_over(9)), (1, None));
        let transfer = Transfer::after(before, now);
        fetches.begin(1, 9, true, transfer.clone());
        transfer.expect(Some(1_000_000));
        transfer.receive(0, now);
        transfer.receive(125_000, now + SECOND);
        assert!(!helps(&fetches, now + SECOND));
        assert!(helps(&fetches, now + SECOND * 2));
    }

    #[test]
    fn fetches_that_are_not_needed_are_cancelled() {
        let now = Instant::now();
        let mut fetches = InFlight::new(2);
        let transfers = [Transfer::new(now), Transfer::new(now), Transfer::new(now)];
        let [first, second, third] = &transfers;
        let number = fetches.begin(0, 7, true, first.clone());
        fetches.begin(1, 7, true, second.clone());
        fetches.begin(1, 8, true, third.clone());
        assert_eq!(fetches.supersede_file(7), [0, 1]);
        assert!(first.is_superseded() && second.is_superseded() && !third.is_superseded());
        assert!(!fetches.end(number, true));
        assert_eq!(fetches.supersede_node(1), 1);
        assert!(third.is_superseded() && !third.is_forbidden());
    }
}
