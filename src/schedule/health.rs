//! The health of a node: how many concurrent requests it gets, when it is left alone for a while,
//! when it is given up, and when it is probed again.

use std::time::{Duration, Instant};

use crate::node::{NodeError, Trouble};

/// A node that fails this many requests in a row is given up, even if it responds to each of them.
/// The number is generous: a node with a partly broken disk can still deliver the rest.
const GIVE_UP_AFTER: u32 = 100;
/// The longest time that a node is left alone, however long it asks for and however often. Also the
/// longest time that it may be busy, or our line down, without any success.
const MAX_REST: Duration = Duration::from_secs(60);
/// How much requested rest each success makes up for, so that a long pass tolerates a node that is
/// busy now and then.
const REST_EARNED: Duration = Duration::from_millis(100);
/// How soon to retry while our own line is down.
const LINE_REST: Duration = Duration::from_secs(1);
/// How many requests must succeed before a busy node gets one more concurrent request. The number
/// doubles each time the node is busy again, up to the last.
const FIRST_PATIENCE: u32 = 20;
const LAST_PATIENCE: u32 = 640;
/// When a node that was given up is first probed, in timeouts. The pause doubles each time, up to
/// the last.
const FIRST_PROBE: u32 = 5;
const LAST_PROBE: Duration = Duration::from_secs(600);

/// Why a node was given up.
#[derive(Clone, Debug)]
pub enum GivenUp {
    /// A permanent failure, or one that kept recurring.
    Failed(NodeError),
    /// It failed this many requests in a row; this is the last failure.
    FailedInARow(u32, NodeError),
}

/// What a failed request says about its node.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// Nothing: only the request failed.
    Request,
    /// The request is not to blame. It is repeated from this time on, which doesn't count as a
    /// retry.
    Repeat(Instant),
    /// The node is given up.
    GiveUp(GivenUp),
}

/// Who was heard from while a request went unanswered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeardFrom {
    /// The node itself, through another request.
    pub itself: bool,
    /// Another node, so our line works.
    pub other: bool,
    /// Another node should have been heard from, but was not.
    pub silent_other: bool,
    /// Another node has responded at some time, so this is not the only one to work with.
    pub other_before: bool,
}

/// The rules for all nodes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How often to retry a request that failed temporarily.
    pub retries: u32,
    /// Concurrent requests per node.
    pub jobs: usize,
    /// How long a node may stay silent.
    pub timeout: Duration,
}

/// One node's health.
#[derive(Debug)]
pub struct Health {
    rules: Rules,
    answered: bool,
    /// Whether it has sent anything, even just the start of a response.
    spoke: bool,
    /// How many concurrent requests it can handle.
    limit: usize,
    patience: u32,
    well: u32,
    /// How many times in a row the node as a whole has failed, and when that was last noticed.
    strikes: u32,
    struck: Option<Instant>,
    not_before: Option<Instant>,
    /// How much rest it has asked for, less what it has made up for since.
    asked: Duration,
    failures_in_a_row: u32,
    last_success: Option<Instant>,
    /// Since when it has been busy, or our line down, without any success.
    troubled: Option<Instant>,
    /// When to probe it, if it was given up.
    probe_at: Option<Instant>,
    probe_pause: Duration,
}

impl Health {
    /// A node that has not been asked anything yet.
    pub fn new(rules: Rules) -> Health {
        Health {
            rules,
            answered: false,
            spoke: false,
            limit: rules.jobs,
            patience: FIRST_PATIENCE,
            well: 0,
            strikes: 0,
            struck: None,
            not_before: None,
            asked: Duration::ZERO,
            failures_in_a_row: 0,
            last_success: None,
            troubled: None,
            probe_at: None,
            probe_pause: rules.timeout * FIRST_PROBE,
        }
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.probe_at.is_some()
    }

    /// When it may get requests, if not now.
    pub fn not_before(&self, now: Instant) -> Option<Instant> {
        self.probe_at.or(self.not_before).filter(|at| *at > now)
    }

    /// How many concurrent requests it may get.
    pub fn limit(&self) -> usize {
        if self.is_given_up() { 1 } else { self.limit }
    }

    /// Whether it has responded to anything.
    pub fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether it has sent anything, even just the start of a response.
    pub fn has_spoken(&self) -> bool {
        self.answered || self.spoke
    }

    /// Whether a request has succeeded since then.
    pub fn has_succeeded_since(&self, then: Instant) -> bool {
        self.last_success.is_some_and(|success| success > then)
    }

    /// Notes that a request succeeded. Returns whether the node had been given up, and so is back.
    pub fn succeeded(&mut self, now: Instant) -> bool {
        self.answered = true;
        self.strikes = 0;
        self.failures_in_a_row = 0;
        self.asked = self.asked.saturating_sub(REST_EARNED);
        self.last_success = Some(now);
        self.troubled = None;
        self.well += 1;
        if self.well >= self.patience && self.limit < self.rules.jobs {
            self.limit += 1;
            self.well = 0;
        }
        self.probe_at.take().is_some()
    }

    /// Notes that a request failed, and judges the node.
    pub fn failed(
        &mut self,
        error: &NodeError,
        heard: HeardFrom,
        begun: Instant,
        now: Instant,
        backoff: &mut dyn FnMut(u32) -> Duration,
    ) -> Judgement {
        let had_answered = self.answered;
        self.spoke |= error.answered;
        // A node that falls silent in the middle of a response doesn't prove that our line works.
        self.answered |= error.answered && error.trouble != Trouble::Silent;
        // If other requests succeeded meanwhile, this request is to blame, not the node.
        let did_well = self.has_succeeded_since(begun);
        match error.trouble {
            _ if self.is_given_up() => {
                self.put_off_probe(now);
                Judgement::Request
            }
            Trouble::Unusable => self.give_up(GivenUp::Failed(error.clone()), now),
            Trouble::Gone => {
                self.succeeded(now);
                Judgement::Request
            }
            Trouble::Busy(pause) => self.busy(error, pause, begun, now, backoff),
            Trouble::Cut => Judgement::Request,
            Trouble::Unreachable | Trouble::Silent
                if had_answered && heard.silent_other && !heard.other && !heard.itself =>
            {
                self.line_is_down(error, now)
            }
            Trouble::Silent if heard.itself => self.count_failure(error, now),
            Trouble::Unreachable if did_well => self.count_failure(error, now),
            // Each silence costs the pass a whole timeout. While no other node is heard either, it
            // may be our line, so a first silence is tolerated; if this is the only node, as many
            // as other failures.
            Trouble::Silent if heard.other || heard.other_before && self.strikes > 0 => {
                self.give_up(GivenUp::Failed(error.clone()), now)
            }
            Trouble::Unreachable | Trouble::Silent => self.strike(error, begun, now, backoff),
            _ => self.count_failure(error, now),
        }
    }

    fn count_failure(&mut self, error: &NodeError, now: Instant) -> Judgement {
        self.failures_in_a_row += 1;
        if self.failures_in_a_row < GIVE_UP_AFTER {
            return Judgement::Request;
        }
        self.give_up(GivenUp::FailedInARow(GIVE_UP_AFTER, error.clone()), now)
    }

    /// No node is heard from: not this node's fault, unless it lasts too long.
    fn line_is_down(&mut self, error: &NodeError, now: Instant) -> Judgement {
        if self.is_troubled_too_long(now) {
            return self.give_up(GivenUp::Failed(error.clone()), now);
        }
        self.not_before = Some(now + LINE_REST);
        Judgement::Repeat(now + LINE_REST)
    }

    fn is_troubled_too_long(&mut self, now: Instant) -> bool {
        now - *self.troubled.get_or_insert(now) > MAX_REST
    }

    /// The node is overloaded: it gets fewer concurrent requests. If it has only one left, or asks
    /// for a pause, it is left alone for a while.
    fn busy(
        &mut self,
        error: &NodeError,
        pause: Option<Duration>,
        begun: Instant,
        now: Instant,
        backoff: &mut dyn FnMut(u32) -> Duration,
    ) -> Judgement {
        self.well = 0;
        let was_alone = self.limit == 1;
        self.limit = (self.limit - 1).max(1);
        if self.is_troubled_too_long(now) {
            return self.give_up(GivenUp::Failed(error.clone()), now);
        }
        // All requests that were under way then belong to the same incident.
        if self.struck.is_some_and(|struck| begun < struck) {
            return Judgement::Repeat(self.not_before.unwrap_or(now).max(now));
        }
        self.struck = Some(now);
        self.patience = (self.patience * 2).min(LAST_PATIENCE);
        if pause.is_none() && !was_alone {
            return Judgement::Repeat(now);
        }
        self.strikes += 1;
        let rest = backoff(self.strikes).max(pause.unwrap_or_default()).min(MAX_REST);
        if pause.is_some() {
            self.asked += rest;
            if self.asked > MAX_REST {
                return self.give_up(GivenUp::Failed(error.clone()), now);
            }
        }
        self.not_before = Some(now + rest);
        Judgement::Repeat(now + rest)
    }

    /// Leaves the node alone, longer each time in a row, and gives it up in the end.
    fn strike(
        &mut self,
        error: &NodeError,
        begun: Instant,
        now: Instant,
        backoff: &mut dyn FnMut(u32) -> Duration,
    ) -> Judgement {
        // When a node fails, all its requests under way fail too. That is one incident.
        if self.struck.is_some_and(|struck| begun < struck) {
            return Judgement::Request;
        }
        self.struck = Some(now);
        self.strikes += 1;
        if self.strikes > self.rules.retries {
            return self.give_up(GivenUp::Failed(error.clone()), now);
        }
        self.not_before = Some(now + backoff(self.strikes).min(MAX_REST));
        Judgement::Request
    }

    /// Gives the node up: from now on it only gets a probe now and then.
    pub fn give_up(&mut self, why: GivenUp, now: Instant) -> Judgement {
        let rules = self.rules;
        let Health { answered, spoke, probe_pause, .. } = *self;
        *self = Health { answered, spoke, probe_pause, ..Health::new(rules) };
        self.put_off_probe(now);
        Judgement::GiveUp(why)
    }

    fn put_off_probe(&mut self, now: Instant) {
        self.probe_at = Some(now + self.probe_pause);
        self.probe_pause = (self.probe_pause * 2).min(LAST_PROBE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULES: Rules = Rules { retries: 2, jobs: 8, timeout: SECOND };

    struct Node {
        health: Health,
        now: Instant,
        heard: HeardFrom,
    }

    fn node() -> Node {
        Node { health: Health::new(RULES), now: Instant::now(), heard: HeardFrom::default() }
    }

    impl Node {
        /// A request that begins now fails a second later. Returns the judgement in short.
        fn fails(&mut self, trouble: Trouble) -> String {
            let begun = self.now;
            self.now += SECOND;
            self.fails_since(trouble, begun)
        }

        fn fails_since(&mut self, trouble: Trouble, begun: Instant) -> String {
            let error = NodeError::new(trouble, "no");
            let backoff = &mut |n| SECOND * n;
            match self.health.failed(&error, self.heard, begun, self.now, backoff) {
                Judgement::Request => "request".into(),
                Judgement::Repeat(at) => format!("repeat in {}", (at - self.now).as_secs()),
                Judgement::GiveUp(GivenUp::Failed(_)) => "give up".into(),
                Judgement::GiveUp(GivenUp::FailedInARow(n, _)) => format!("give up after {n}"),
            }
        }

        fn succeeds(&mut self) -> bool {
            self.health.succeeded(self.now)
        }

        fn rests(&self) -> u64 {
            self.health.not_before(self.now).map_or(0, |at| (at - self.now).as_secs())
        }
    }

    #[test]
    fn silence_is_judged_by_what_the_others_do() {
        let nobody = HeardFrom::default();
        let (itself, none) =
            (HeardFrom { itself: true, ..nobody }, HeardFrom { silent_other: true, ..nobody });
        for (answered, heard, judgement) in [
            (true, HeardFrom { other: true, ..nobody }, "give up"),
            (true, HeardFrom { other: true, ..none }, "give up"),
            (true, none, "repeat in 1"),
            (true, HeardFrom { silent_other: true, ..itself }, "request"),
            (true, nobody, "request"),
            (true, HeardFrom { other: true, ..itself }, "request"),
            // A node that has never responded can't blame our line.
            (false, none, "request"),
            (false, HeardFrom { other: true, ..nobody }, "give up"),
        ] {
            let mut node = node();
            if answered {
                node.succeeds();
            }
            node.heard = heard;
            assert_eq!(node.fails(Trouble::Silent), judgement, "{answered} {heard:?}");
        }
    }

    #[test]
    fn unexplained_silence_is_tolerated_once_beside_others() {
        for (other_before, times) in [(true, 1), (false, 2)] {
            let mut node = node();
            node.heard = HeardFrom { other_before, ..HeardFrom::default() };
            for _ in 0..times {
                assert_eq!(node.fails(Trouble::Silent), "request");
                node.now += SECOND * 2;
            }
            assert_eq!(node.fails(Trouble::Silent), "give up", "{other_before}");
        }
    }

    #[test]
    fn a_dead_line_is_tolerated_for_a_minute() {
        let mut node = node();
        node.succeeds();
        node.heard = HeardFrom { silent_other: true, ..HeardFrom::default() };
        for _ in 0..=60 {
            assert_eq!(node.fails(Trouble::Silent), "repeat in 1");
        }
        assert_eq!(node.fails(Trouble::Silent), "give up");
    }

    #[test]
    fn a_failure_amid_successes_is_the_request_s() {
        let mut node = node();
        let begun = node.now;
        node.now += SECOND;
        node.succeeds();
        node.now += SECOND;
        node.heard = HeardFrom { other: true, itself: true, ..HeardFrom::default() };
        assert_eq!(node.fails_since(Trouble::Silent, begun), "request");
        node.heard.itself = false;
        assert_eq!(node.fails_since(Trouble::Unreachable, begun), "request");
        assert_eq!(node.rests(), 0);
    }

    #[test]
    fn a_failing_node_rests_longer_each_time_and_is_given_up() {
        let mut node = node();
        let begun = node.now;
        for pause in [1, 2] {
            assert_eq!(node.fails(Trouble::Unreachable), "request");
            assert_eq!(node.rests(), pause);
            // Requests that were under way belong to the same incident.
            assert_eq!(node.fails_since(Trouble::Unreachable, begun), "request");
        }
        assert_eq!(node.fails(Trouble::Unreachable), "give up");
    }

    #[test]
    fn a_node_given_up_is_probed_later_each_time_until_it_is_back() {
        let mut node = node();
        node.succeeds();
        assert_eq!(node.fails(Trouble::Unusable), "give up");
        for pause in [5, 10, 20] {
            assert!(node.health.is_given_up());
            assert_eq!((node.rests(), node.health.limit()), (pause, 1));
            node.now += SECOND * (pause as u32 - 1);
            assert_eq!(node.fails(Trouble::Silent), "request");
        }
        node.now += SECOND * 40;
        assert!(node.succeeds());
        assert_eq!((node.rests(), node.health.limit()), (0, 8));
        assert!(!node.succeeds());
    }

    #[test]
    fn a_busy_node_gets_fewer_requests_until_it_does_well() {
        let mut node = node();
        let begun = node.now;
        node.now += SECOND;
        for _ in 0..4 {
            assert_eq!(node.fails_since(Trouble::Busy(None), begun), "repeat in 0");
        }
        assert_eq!((node.health.limit(), node.rests()), (4, 0));
        (0..39).for_each(|_| assert!(!node.succeeds()));
        assert_eq!(node.health.limit(), 4);
        node.succeeds();
        assert_eq!(node.health.limit(), 5);
        // The next time it takes twice as long.
        assert_eq!(node.fails(Trouble::Busy(None)), "repeat in 0");
        (0..79).for_each(|_| assert!(!node.succeeds()));
        assert_eq!(node.health.limit(), 4);
        node.succeeds();
        assert_eq!(node.health.limit(), 5);
    }

    #[test]
    fn a_busy_node_rests_as_long_as_it_asks_up_to_a_minute() {
        for (asked, rest) in [(0, 1), (7, 7), (100_000, 60)] {
            let mut node = node();
            let busy = Trouble::Busy(Some(SECOND * asked));
            assert_eq!(node.fails(busy), format!("repeat in {rest}"));
            assert_eq!(node.rests(), rest);
        }
    }

    #[test]
    fn a_node_that_asks_for_more_than_a_minute_in_all_is_given_up() {
        let mut node = node();
        let busy = Trouble::Busy(Some(SECOND * 25));
        for _ in 0..2 {
            assert_eq!(node.fails(busy), "repeat in 25");
            node.now += SECOND * 25;
            node.succeeds();
        }
        assert_eq!(node.fails(busy), "give up");
    }

    #[test]
    fn a_busy_node_is_not_given_up_while_some_requests_succeed() {
        let mut node = node();
        for n in 0..500 {
            let judged = node.fails(Trouble::Busy(None));
            assert!(judged.starts_with("repeat"), "{n} {judged}");
            node.now += SECOND;
            if n % 5 == 0 {
                node.succeeds();
            }
        }
        assert_eq!(node.health.limit(), 1);
        let mut given_up = false;
        for _ in 0..40 {
            node.now += SECOND;
            given_up |= node.fails(Trouble::Busy(None)) == "give up";
        }
        assert!(given_up);
    }

    #[test]
    fn a_node_is_given_up_if_everything_fails_but_not_if_most_does() {
        let mut node = node();
        for n in 1..1000 {
            match n % 50 {
                0 => assert!(!node.succeeds()),
                _ => assert_eq!(node.fails(Trouble::Corrupt), "request"),
            }
        }
        node.succeeds();
        (1..100).for_each(|_| assert_eq!(node.fails(Trouble::Broken), "request"));
        assert_eq!(node.fails(Trouble::Broken), "give up after 100");
    }
}
