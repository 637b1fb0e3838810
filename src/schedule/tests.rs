//! The scheduler as a table: what is told to it, what it answers. At the end a simulation of whole
//! passes over nodes that fail in every way, with a clock of its own.

use super::*;
use crate::segment::{Medium, SegmentHash};
use proptest::prelude::*;

fn policy(retries: u32) -> Policy {
    let backoff = Box::new(|n: u32| Duration::from_millis(500 << n.min(10)));
    Policy { retries, backoff, max_open_files: 1000, lands_on_disk: true }
}

fn unit(hour: &str) -> Unit {
    Unit::Hour(Reverse(hour.parse().unwrap()), 0)
}

fn segment(second: u8) -> SegmentName {
    recorded(second, 0)
}

/// The same segment, recorded by a clock that is so many microseconds late.
fn recorded(second: u8, late: u32) -> SegmentName {
    let hash = SegmentHash([second; 32]);
    let name = format!("00:{second:02}.{late:06}-2.0-full-{hash}.ts");
    SegmentName::parse(&name, Medium::Video).unwrap()
}

fn second_of(item: &Item) -> u8 {
    let Item::Segment(name) = item else { panic!("no segment") };
    (name.start_micros() / 1_000_000) as u8
}

/// The part of a name that tells it from others.
fn short(item: &Item) -> String {
    let Item::Segment(name) = item else { panic!("no segment") };
    name.as_str()[..5].to_owned()
}

fn error(trouble: Trouble) -> NodeError {
    NodeError::new(trouble, format!("{trouble:?}"))
}

/// A scheduler whose nodes have all listed their hours, and a clock.
struct Situation {
    scheduler: Scheduler,
    now: Instant,
    taken: HashMap<(NodeId, u8), Fetch>,
}

impl Situation {
    fn new(retries: u32, hours_of: &[&[&str]]) -> Situation {
        let scheduler = Scheduler::new(hours_of.len(), 1, 0, policy(retries));
        let (now, taken) = (Instant::now(), HashMap::new());
        let mut situation = Situation { scheduler, now, taken };
        for (id, hours) in hours_of.iter().enumerate() {
            assert_eq!(situation.next(id), Next::Do(Task::List(List::Hours(0))));
            let hours = hours.iter().map(|hour| hour.parse().unwrap());
            situation.scheduler.hours_listed(id, 0, hours, situation.now);
        }
        situation
    }

    fn next(&mut self, id: NodeId) -> Next {
        self.scheduler.next(id, self.now)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Lets a node list the next hour with these segments.
    fn list(&mut self, id: NodeId, hour: &str, seconds: &[u8]) -> u64 {
        assert_eq!(self.next(id), Next::Do(Task::List(List::Unit(unit(hour)))));
        let wanted = seconds.iter().map(|second| Item::Segment(segment(*second)));
        self.enlist(id, hour, wanted)
    }

    /// What a node has listed; says how many of it were not wanted before.
    fn enlist(&mut self, id: NodeId, hour: &str, items: impl IntoIterator<Item = Item>) -> u64 {
        let before = self.scheduler.counts().wanted;
        self.scheduler.listed(id, unit(hour), items, self.now);
        self.scheduler.counts().wanted - before
    }

    /// Takes the next segment for a node: its second, or none if there's nothing to fetch now.
    fn take(&mut self, id: NodeId) -> Option<u8> {
        match self.next(id) {
            Next::Do(Task::Fetch(fetch)) => {
                let second = second_of(&fetch.item);
                self.taken.insert((id, second), fetch);
                Some(second)
            }
            Next::Do(Task::List(_)) => panic!("expected no listing"),
            _ => None,
        }
    }

    fn done(&mut self, id: NodeId, second: u8) {
        self.scheduler.file_done(id, &self.taken[&(id, second)], self.now);
    }

    fn fail(&mut self, id: NodeId, second: u8, trouble: Trouble) {
        self.fail_since(id, second, trouble, self.now);
    }

    fn fail_since(&mut self, id: NodeId, second: u8, trouble: Trouble, begun: Instant) {
        let task = Task::Fetch(self.taken[&(id, second)].clone());
        self.scheduler.failed(id, &task, &error(trouble), begun, self.now);
    }

    fn verdicts(&mut self) -> Vec<String> {
        let verdicts = self.scheduler.take_verdicts().into_iter().map(|verdict| match verdict {
            Verdict::NodeGivenUp(id, why) => format!("node {id} given up: {why}"),
            Verdict::ListingFailed(id, _, why) => format!("node {id} listing failed: {why}"),
            Verdict::FileFailed(_, item, id, why) => {
                format!("{} failed: node {id}: {why}", short(&item))
            }
            Verdict::FileVanished(_, item) => format!("{} vanished", short(&item)),
        });
        verdicts.collect()
    }
}

const HOUR: &str = "2018-11-10T05";

#[test]
fn newer_hours_are_listed_first() {
    let mut s = Situation::new(3, &[&["2018-11-10T03", "2018-11-10T05", "2018-11-10T04"]]);
    s.list(0, "2018-11-10T05", &[]);
    s.list(0, "2018-11-10T04", &[]);
    s.list(0, "2018-11-10T03", &[]);
    assert_eq!(s.next(0), Next::Finished);
}

#[test]
fn segments_are_fetched_in_the_listed_order_before_more_is_listed() {
    let mut s = Situation::new(3, &[&[HOUR, "2018-11-10T04"]]);
    assert_eq!(s.list(0, HOUR, &[4, 2, 8]), 3);
    assert_eq!([s.take(0), s.take(0), s.take(0)], [Some(4), Some(2), Some(8)]);
    // Nothing of this hour is left to take, so a free worker goes on to the next.
    s.list(0, "2018-11-10T04", &[]);
}

#[test]
fn nodes_share_what_they_hold() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    assert_eq!(s.list(0, HOUR, &[0, 2, 4]), 3);
    assert_eq!(s.take(0), Some(0));
    assert_eq!(s.list(1, HOUR, &[0, 2, 6]), 1);
    assert_eq!([s.take(1), s.take(1), s.take(1)], [Some(2), Some(6), None]);
    assert_eq!([s.take(0), s.take(0)], [Some(4), None]);
    for (id, second) in [(0, 0), (1, 2), (1, 6), (0, 4)] {
        assert!(!s.scheduler.is_finished());
        s.done(id, second);
    }
    assert_eq!([s.next(0), s.next(1)], [Next::Finished, Next::Finished]);
    assert_eq!(s.verdicts(), [""; 0]);
}

#[test]
fn what_landed_while_another_node_was_listing_is_not_wanted_again() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    assert_eq!(s.next(1), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    s.list(0, HOUR, &[0]);
    assert_eq!(s.take(0), Some(0));
    s.done(0, 0);
    let again = [Item::Segment(segment(0))];
    assert_eq!(s.enlist(1, HOUR, again), 0);
    assert_eq!(s.next(1), Next::Finished);
}

#[test]
fn an_hour_is_forgotten_when_it_is_settled() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0]);
    assert_eq!(s.take(0), Some(0));
    s.done(0, 0);
    assert!(s.scheduler.units.is_empty());
}

#[test]
fn in_a_dry_run_an_hour_is_kept_until_all_have_listed_it() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    s.scheduler.policy.lands_on_disk = false;
    s.list(0, HOUR, &[0]);
    assert_eq!(s.take(0), Some(0));
    s.done(0, 0);
    assert_eq!(s.list(1, HOUR, &[0, 2]), 1);
    assert_eq!(s.take(1), Some(2));
    s.done(1, 2);
    assert_eq!(s.next(1), Next::Finished);
}

#[test]
fn no_more_is_opened_while_there_is_too_much_to_do() {
    let hours = ["2018-11-10T06", HOUR, "2018-11-10T04"];
    let mut s = Situation::new(3, &[&hours, &hours]);
    s.scheduler.policy.max_open_files = 3;
    // Two listings are under way when the first turns out to be large.
    let task = |hour| Next::Do(Task::List(List::Unit(unit(hour))));
    assert_eq!([s.next(0), s.next(0)], [task(hours[0]), task(hours[1])]);
    let large = [0, 2, 4].map(|second| Item::Segment(segment(second)));
    assert_eq!(s.enlist(0, hours[0], large.clone()), 3);
    assert_eq!(s.enlist(0, hours[1], large.clone()), 0);
    assert_eq!([s.take(0), s.take(0), s.take(0), s.take(0)], [Some(0), Some(2), Some(4), None]);
    // Another node may list what is open, but nothing else.
    assert_eq!(s.next(1), task(hours[0]));
    s.scheduler.listed(1, unit(hours[0]), [], s.now);
    assert!(matches!(s.next(1), Next::Wait(_)));
    for second in [0, 2, 4] {
        s.done(0, second);
    }
    // And what was put off comes back.
    assert_eq!(s.next(0), task(hours[1]));
    assert_eq!(s.enlist(0, hours[1], large), 3);
}

#[test]
fn another_holder_is_asked_at_once_and_the_first_again_only_after_it() {
    for trouble in [Trouble::Broken, Trouble::Corrupt, Trouble::Gone, Trouble::Refused] {
        let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
        s.list(0, HOUR, &[0]);
        s.list(1, HOUR, &[0]);
        assert_eq!(s.take(0), Some(0));
        assert_eq!(s.take(1), None);
        s.fail(0, 0, trouble);
        assert_eq!(s.take(0), None, "{trouble:?}");
        assert_eq!(s.take(1), Some(0), "{trouble:?}");
        s.done(1, 0);
        assert_eq!(s.next(0), Next::Finished);
        assert_eq!(s.verdicts(), [""; 0]);
    }
}

#[test]
fn a_passing_failure_is_tried_again_after_growing_pauses() {
    let mut s = Situation::new(2, &[&[HOUR]]);
    s.list(0, HOUR, &[0]);
    for pause in [1, 2] {
        assert_eq!(s.take(0), Some(0));
        s.fail(0, 0, Trouble::Broken);
        let at = s.now + Duration::from_secs(pause);
        assert_eq!(s.next(0), Next::Wait(Some(at)));
        s.pass(pause);
    }
    assert_eq!(s.take(0), Some(0));
    s.fail(0, 0, Trouble::Broken);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(s.verdicts(), ["00:00 failed: node 0: Broken"]);
}

#[test]
fn a_lasting_failure_is_not_tried_again() {
    for (trouble, verdict) in [
        (Trouble::Corrupt, "00:00 failed: node 0: Corrupt"),
        (Trouble::Refused, "00:00 failed: node 0: Refused"),
        (Trouble::Gone, "00:00 vanished"),
    ] {
        let mut s = Situation::new(3, &[&[HOUR]]);
        s.list(0, HOUR, &[0]);
        assert_eq!(s.take(0), Some(0));
        s.fail(0, 0, trouble);
        assert_eq!(s.next(0), Next::Finished);
        assert_eq!(s.verdicts(), [verdict]);
    }
}

#[test]
fn what_one_node_lost_is_had_from_one_that_lists_it_later() {
    for trouble in [Trouble::Corrupt, Trouble::Gone] {
        let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
        s.list(0, HOUR, &[0]);
        assert_eq!(s.take(0), Some(0));
        s.fail(0, 0, trouble);
        assert_eq!(s.verdicts(), [""; 0]);
        s.list(1, HOUR, &[0]);
        assert_eq!(s.take(1), Some(0));
        s.done(1, 0);
        assert_eq!(s.next(0), Next::Finished);
        assert_eq!(s.verdicts(), [""; 0]);
    }
}

#[test]
fn gone_here_and_broken_there_is_a_failure_not_a_vanishing() {
    let mut s = Situation::new(0, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0]);
    s.list(1, HOUR, &[0]);
    assert_eq!(s.take(0), Some(0));
    s.fail(0, 0, Trouble::Broken);
    assert_eq!(s.take(1), Some(0));
    s.fail(1, 0, Trouble::Gone);
    assert_eq!(s.verdicts(), ["00:00 failed: node 0: Broken"]);
}

#[test]
fn a_node_that_is_silent_is_given_up_if_another_answers() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0, 2]);
    s.list(1, HOUR, &[2, 4]);
    assert_eq!([s.take(1), s.take(1)], [Some(2), Some(4)]);
    s.pass(5);
    let begun = s.now - Duration::from_secs(5);
    s.scheduler.nodes[1].last_success = Some(begun);
    s.fail_since(1, 2, Trouble::Silent, begun);
    assert_eq!(s.next(1), Next::Finished);
    // Both that it held are free at once for others; the one that nobody else has is lost.
    assert_eq!([s.take(0), s.take(0)], [Some(2), Some(0)]);
    s.done(0, 0);
    s.done(0, 2);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(
        s.verdicts(),
        ["node 1 given up: Silent", "00:04 failed: node 1: the node was given up"]
    );
}

#[test]
fn the_only_node_may_be_silent_for_a_while() {
    let mut s = Situation::new(2, &[&[HOUR]]);
    s.list(0, HOUR, &[0]);
    for pause in [1, 2] {
        assert_eq!(s.take(0), Some(0));
        s.pass(1);
        s.fail(0, 0, Trouble::Silent);
        assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(pause))));
        s.pass(pause);
    }
    assert_eq!(s.take(0), Some(0));
    s.pass(1);
    s.fail(0, 0, Trouble::Silent);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(s.verdicts(), ["node 0 given up: Silent", "00:00 failed: node 0: Silent"]);
}

#[test]
fn requests_that_fail_together_are_one_incident() {
    let mut s = Situation::new(1, &[&[HOUR]]);
    s.list(0, HOUR, &[0, 2, 4]);
    let begun = s.now;
    let taken = [s.take(0), s.take(0), s.take(0)];
    assert_eq!(taken, [Some(0), Some(2), Some(4)]);
    s.pass(1);
    for second in [0, 2, 4] {
        s.fail_since(0, second, Trouble::Unreachable, begun);
    }
    assert_eq!(s.verdicts(), [""; 0]);
    s.pass(1);
    assert!(s.take(0).is_some());
}

#[test]
fn a_busy_node_is_let_rest_as_long_as_it_asks_within_reason() {
    for (asked, rest) in [(None, 1), (Some(7), 7), (Some(100_000), 60)] {
        let mut s = Situation::new(3, &[&[HOUR]]);
        s.list(0, HOUR, &[0]);
        assert_eq!(s.take(0), Some(0));
        s.pass(1);
        s.fail(0, 0, Trouble::Busy(asked.map(Duration::from_secs)));
        assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(rest))));
    }
}

#[test]
fn a_node_that_is_busy_again_and_again_is_given_up() {
    let mut s = Situation::new(10, &[&[HOUR]]);
    s.list(0, HOUR, &[0, 2, 4, 6]);
    let asks_for = Trouble::Busy(Some(Duration::from_secs(25)));
    // Even if it does well in between.
    for second in [0, 2] {
        assert_eq!(s.take(0), Some(second));
        s.pass(1);
        s.fail(0, second, asks_for);
        s.pass(25);
        let other = s.take(0).unwrap();
        s.done(0, other);
        s.pass(1);
    }
    let second = s.take(0).unwrap();
    s.fail(0, second, asks_for);
    assert!(s.verdicts().iter().any(|verdict| verdict.starts_with("node 0 given up: Busy")));
}

/// Two nodes that hold the same four segments; the first takes a second for one, the other ten.
fn quick_and_slow() -> Situation {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0, 2, 4, 6]);
    s.list(1, HOUR, &[0, 2, 4, 6]);
    assert_eq!([s.take(1), s.take(0)], [Some(0), Some(2)]);
    s.pass(1);
    s.done(0, 2);
    s.pass(9);
    s.done(1, 0);
    s
}

#[test]
fn a_node_with_nothing_else_to_do_helps_a_slower_one() {
    let mut s = quick_and_slow();
    assert_eq!([s.take(1), s.take(0)], [Some(4), Some(6)]);
    s.pass(1);
    s.done(0, 6);
    // Eight seconds or so are left of the slow one's: it is worth it, but not twice.
    assert_eq!([s.take(0), s.take(0)], [Some(4), None]);
    s.pass(1);
    let slow = s.taken[&(1, 4)].clone();
    assert!(!slow.superseded.is_superseded());
    s.done(0, 4);
    assert!(slow.superseded.is_superseded());
    // Nobody waits for the slow one, and what it says doesn't matter.
    assert_eq!(s.next(0), Next::Finished);
    s.fail(1, 4, Trouble::Broken);
    s.done(1, 4);
    assert_eq!(s.verdicts(), [""; 0]);
    assert!(s.scheduler.is_finished());
}

#[test]
fn nobody_helps_a_node_that_is_as_quick_or_nearly_through() {
    let mut s = quick_and_slow();
    assert_eq!([s.take(0), s.take(1)], [Some(4), Some(6)]);
    // A quick one would be no quicker than itself.
    assert_eq!(s.take(1), None);
    // And now the slow one is through sooner than anybody who begins anew.
    s.pass(9);
    s.done(0, 4);
    assert_eq!(s.take(0), None);
}

#[test]
fn a_fetch_that_is_stuck_is_helped_with_in_the_end() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0]);
    s.list(1, HOUR, &[0]);
    assert_eq!(s.take(0), Some(0));
    // Nothing is known of how long it should take.
    assert_eq!(s.next(1), Next::Wait(Some(s.now + STUCK_MARGIN)));
    s.pass(1);
    assert_eq!(s.take(1), Some(0));
    // If the helper fails, the first one still has it.
    s.fail(1, 0, Trouble::Corrupt);
    assert_eq!(s.take(1), None);
    s.done(0, 0);
    assert_eq!(s.next(1), Next::Finished);
    assert_eq!(s.verdicts(), [""; 0]);
}

/// What is to be fetched next, as a name.
fn take_name(s: &mut Situation, id: NodeId) -> Option<String> {
    match s.next(id) {
        Next::Do(Task::Fetch(fetch)) => {
            let Item::Segment(name) = &fetch.item else { panic!("no segment") };
            let name = name.to_string();
            s.taken.insert((id, second_of(&fetch.item)), fetch);
            Some(name)
        }
        _ => None,
    }
}

#[test]
fn two_recordings_of_one_segment_are_wanted_once_and_either_will_do() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[4]);
    assert_eq!(s.next(1), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    let other = Item::Segment(recorded(4, 900));
    let near_duplicates = s.scheduler.listed(1, unit(HOUR), [other.clone()], s.now);
    assert_eq!((near_duplicates, s.scheduler.counts().wanted), (vec![other], 1));
    // The first node fails to give it by its name, so the second one gives it by its own.
    assert_eq!(take_name(&mut s, 0), Some(recorded(4, 0).to_string()));
    s.fail(0, 4, Trouble::Corrupt);
    assert_eq!(take_name(&mut s, 1), Some(recorded(4, 900).to_string()));
    s.done(1, 4);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(s.verdicts(), [""; 0]);
}

#[test]
fn two_recordings_on_one_node_are_tried_one_after_the_other() {
    let mut s = Situation::new(3, &[&[HOUR]]);
    assert_eq!(s.next(0), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    let both = [recorded(4, 0), recorded(4, 500)].map(Item::Segment);
    assert_eq!(s.enlist(0, HOUR, both), 1);
    assert_eq!(take_name(&mut s, 0), Some(recorded(4, 0).to_string()));
    assert_eq!(take_name(&mut s, 0), None);
    s.fail(0, 4, Trouble::Corrupt);
    assert_eq!(take_name(&mut s, 0), Some(recorded(4, 500).to_string()));
    s.fail(0, 4, Trouble::Corrupt);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(s.verdicts(), ["00:04 failed: node 0: Corrupt"]);
}

#[test]
fn two_recordings_are_recognised_across_the_turn_of_an_hour() {
    let hash = SegmentHash([1; 32]);
    let name = |time: &str| {
        let text = format!("{time}-2.0-full-{hash}.ts");
        Item::Segment(SegmentName::parse(&text, Medium::Video).unwrap())
    };
    for (time, is_same) in [("59:59.999500", true), ("59:59.998999", false)] {
        let mut s = Situation::new(3, &[&["2018-11-10T06", HOUR]]);
        for (hour, time, new) in
            [("2018-11-10T06", "00:00.0", 1), (HOUR, time, u64::from(!is_same))]
        {
            assert_eq!(
                s.scheduler.next_unit_to_list(0, s.now),
                Some(Task::List(List::Unit(unit(hour))))
            );
            s.scheduler.nodes[0].in_flight += 1;
            assert_eq!(s.enlist(0, hour, [name(time)]), new);
        }
    }
}

#[test]
fn a_recording_that_lands_at_the_turn_of_an_hour_is_known_to_who_looked_before_it_did() {
    let next = "2018-11-10T06";
    let mut s = Situation::new(3, &[&[HOUR], &[next]]);
    // The first one looks at the disk now.
    assert_eq!(s.next(0), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    let named = |time: &str| {
        let text = format!("{time}-2.0-full-{}.ts", SegmentHash([0; 32]));
        Item::Segment(SegmentName::parse(&text, Medium::Video).unwrap())
    };
    assert_eq!(s.next(1), Next::Do(Task::List(List::Unit(unit(next)))));
    assert_eq!(s.enlist(1, next, [named("00:00.0004")]), 1);
    assert_eq!(s.take(1), Some(0));
    s.done(1, 0);
    assert!(!s.scheduler.units.contains_key(&unit(next)));
    let late = s.scheduler.listed(0, unit(HOUR), [named("59:59.9998")], s.now);
    assert_eq!(late, [named("59:59.9998")]);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(s.scheduler.counts().wanted, 1);
}

#[test]
fn what_a_node_lists_as_deleted_is_not_fetched_from_any() {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0, 2]);
    assert_eq!(s.next(1), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    assert_eq!(s.next(2), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    let names = vec![segment(0), segment(4)];
    assert_eq!(s.scheduler.deleted(unit(HOUR), names.clone(), s.now), names);
    assert_eq!(s.scheduler.deleted(unit(HOUR), names, s.now), []);
    s.scheduler.listed(1, unit(HOUR), [], s.now);
    let wanted = [0, 4].map(|second| Item::Segment(segment(second)));
    assert_eq!(s.enlist(2, HOUR, wanted), 0);
    assert_eq!([s.take(0), s.take(0)], [Some(2), None]);
    s.done(0, 2);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(s.verdicts(), [""; 0]);
}

/// Two nodes that have one recording by two names, and a third that is listing the hour.
fn two_names_and_a_third_node() -> Situation {
    let mut s = Situation::new(3, &[&[HOUR], &[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[4]);
    assert_eq!(s.next(1), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    s.scheduler.listed(1, unit(HOUR), [Item::Segment(recorded(4, 900))], s.now);
    assert_eq!(s.next(2), Next::Do(Task::List(List::Unit(unit(HOUR)))));
    s
}

#[test]
fn a_recording_that_was_deleted_by_its_other_name_is_only_had_by_its_own() {
    // The other name is deleted before it's asked for, and while it comes.
    for comes in [false, true] {
        let mut s = two_names_and_a_third_node();
        if comes {
            assert_eq!(take_name(&mut s, 1), Some(recorded(4, 900).to_string()));
        }
        s.scheduler.deleted(unit(HOUR), vec![recorded(4, 900)], s.now);
        s.scheduler.listed(2, unit(HOUR), [], s.now);
        if comes {
            assert!(s.taken[&(1, 4)].superseded.is_superseded());
            // It's too late for this to count.
            s.done(1, 4);
        }
        assert_eq!(take_name(&mut s, 1), None);
        assert_eq!(take_name(&mut s, 0), Some(recorded(4, 0).to_string()));
        s.fail(0, 4, Trouble::Corrupt);
        assert_eq!(take_name(&mut s, 1), None);
        assert_eq!(s.next(0), Next::Finished);
        assert_eq!(s.verdicts(), ["00:04 failed: node 0: Corrupt"]);
    }
}

#[test]
fn a_recording_that_was_deleted_by_its_own_name_is_still_had_by_the_other() {
    for comes in [false, true] {
        let mut s = two_names_and_a_third_node();
        if comes {
            assert_eq!(take_name(&mut s, 0), Some(recorded(4, 0).to_string()));
        }
        s.scheduler.deleted(unit(HOUR), vec![recorded(4, 0)], s.now);
        s.scheduler.listed(2, unit(HOUR), [], s.now);
        assert_eq!(take_name(&mut s, 0), None);
        assert_eq!(take_name(&mut s, 1), Some(recorded(4, 900).to_string()));
        s.done(1, 4);
        assert_eq!(s.next(1), Next::Finished);
        assert_eq!(s.verdicts(), [""; 0]);
    }
}

#[test]
fn what_is_found_deleted_when_it_comes_is_had_by_its_other_name() {
    for (first, second) in [(0, 1), (1, 0)] {
        let late = [0, 900];
        let mut s = two_names_and_a_third_node();
        s.scheduler.listed(2, unit(HOUR), [], s.now);
        assert_eq!(take_name(&mut s, first), Some(recorded(4, late[first]).to_string()));
        let fetch = s.taken[&(first, 4)].clone();
        s.scheduler.forbidden(first, &fetch, s.now);
        assert_eq!(take_name(&mut s, first), None);
        assert_eq!(take_name(&mut s, second), Some(recorded(4, late[second]).to_string()));
        s.done(second, 4);
        assert_eq!(s.next(first), Next::Finished);
        assert_eq!(s.verdicts(), [""; 0]);
    }
}

#[test]
fn a_node_that_fails_everything_is_given_up_but_not_one_that_fails_much() {
    let seconds: Vec<u8> = (0..60).collect();
    for (every, given_up) in [(usize::MAX, true), (50, false)] {
        let mut s = Situation::new(10, &[&[HOUR]]);
        s.list(0, HOUR, &seconds);
        for n in 1..=400 {
            s.pass(1);
            let Some(second) = s.take(0) else { continue };
            match n % every {
                0 => s.done(0, second),
                _ => s.fail(0, second, Trouble::Broken),
            }
        }
        let told = s.verdicts().iter().any(|v| v.contains("100 requests in a row failed"));
        assert_eq!(told, given_up);
    }
}

#[test]
fn a_listing_is_tried_again_and_then_told() {
    let mut s = Situation::new(1, &[&[HOUR]]);
    let task = Task::List(List::Unit(unit(HOUR)));
    assert_eq!(s.next(0), Next::Do(task.clone()));
    s.scheduler.failed(0, &task, &error(Trouble::Broken), s.now, s.now);
    assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(1))));
    s.pass(1);
    assert_eq!(s.next(0), Next::Do(task.clone()));
    s.scheduler.failed(0, &task, &error(Trouble::Broken), s.now, s.now);
    assert_eq!(s.next(0), Next::Finished);
    assert_eq!(s.verdicts(), ["node 0 listing failed: Broken"]);
}

#[test]
fn an_unusable_node_is_given_up_at_once() {
    let mut s = Situation::new(3, &[&[HOUR], &[]]);
    let task = Task::List(List::Unit(unit(HOUR)));
    assert_eq!(s.next(0), Next::Do(task.clone()));
    s.scheduler.failed(0, &task, &error(Trouble::Unusable), s.now, s.now);
    assert_eq!([s.next(0), s.next(1)], [Next::Finished, Next::Finished]);
    assert_eq!(s.verdicts(), ["node 0 given up: Unusable"]);
}

/// How a simulated node gives one segment.
#[derive(Clone, Debug)]
enum Way {
    Well,
    Corrupt,
    Gone,
    /// Fails in passing so many times, then gives it.
    Flaky(u8),
    Hangs,
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        6 => Just(Way::Well),
        1 => Just(Way::Corrupt),
        1 => Just(Way::Gone),
        1 => (1..5u8).prop_map(Way::Flaky),
        1 => Just(Way::Hangs),
    ]
}

/// Of each node, the segments of each of three hours, and how it gives them.
type World = Vec<Vec<HashMap<u8, Way>>>;

fn world() -> impl Strategy<Value = World> {
    let hour = proptest::collection::hash_map(0..12u8, way(), 0..10);
    let node = proptest::collection::vec(hour, 3);
    proptest::collection::vec(node, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_pass_ends_with_each_segment_had_once_or_told(world in world(), jobs in 1..4usize, dry in any::<bool>()) {
        let outcome = simulate(&world, jobs, !dry);
        let given_up = |id: NodeId| outcome.given_up.contains(&id);
        for hour in 0..3 {
            for second in 0..12 {
                let ways = world.iter().enumerate().filter_map(|(id, node)| Some((id, node[hour].get(&second)?)));
                let ways: Vec<_> = ways.collect();
                let had = outcome.had.iter().filter(|had| **had == (hour, second)).count();
                let told = outcome.lost.iter().filter(|lost| **lost == (hour, second)).count();
                if ways.is_empty() {
                    prop_assert_eq!((had, told), (0, 0));
                    continue;
                }
                let listed = ways.iter().any(|(id, _)| outcome.listed.contains(&(*id, hour)));
                prop_assert_eq!(had + told, usize::from(listed), "{:?}", ways);
                let good = ways.iter().any(|(id, way)| !given_up(*id) && matches!(way, Way::Well));
                prop_assert!(!good || had == 1, "{:?}", ways);
            }
        }
    }
}

#[derive(Default)]
struct Outcome {
    had: Vec<(usize, u8)>,
    lost: Vec<(usize, u8)>,
    given_up: Vec<NodeId>,
    listed: Vec<(NodeId, usize)>,
}

/// Runs a pass with a clock that jumps from event to event.
fn simulate(world: &World, jobs: usize, lands_on_disk: bool) -> Outcome {
    let hours =
        ["2018-11-10T03", "2018-11-10T04", "2018-11-10T05"].map(|h| h.parse::<Hour>().unwrap());
    let place = |unit: Unit| match unit {
        Unit::Hour(Reverse(of), _) => hours.iter().position(|hour| *hour == of).unwrap(),
        Unit::Extras(_) => panic!("no extras here"),
    };
    // So few that nodes often have to wait for each other.
    let policy = Policy { lands_on_disk, max_open_files: 6, ..policy(2) };
    let mut scheduler = Scheduler::new(world.len(), 1, 0, policy);
    let mut tries: HashMap<(NodeId, usize, u8), u8> = HashMap::new();
    let mut outcome = Outcome::default();
    let mut late = Vec::new();
    let mut now = Instant::now();
    // (when it's over, when it began, by which node, what)
    let mut running: Vec<(Instant, Instant, NodeId, Task)> = Vec::new();
    for _event in 0..20_000 {
        let mut wake = None;
        for (id, node) in world.iter().enumerate() {
            while running.iter().filter(|run| run.2 == id).count() < jobs {
                match scheduler.next(id, now) {
                    Next::Do(task) => {
                        let takes = match &task {
                            Task::List(_) => 10 + 7 * id as u64,
                            Task::Fetch(fetch) => {
                                match node[place(fetch.unit)][&second_of(&fetch.item)] {
                                    Way::Hangs => 5000,
                                    _ => 20 + 3 * id as u64,
                                }
                            }
                        };
                        running.push((now + Duration::from_millis(takes), now, id, task));
                    }
                    Next::Wait(at) => {
                        wake = [wake, at].into_iter().flatten().min();
                        break;
                    }
                    Next::Finished => break,
                }
            }
        }
        for verdict in scheduler.take_verdicts() {
            match verdict {
                Verdict::NodeGivenUp(id, _) => outcome.given_up.push(id),
                Verdict::FileFailed(unit, item, ..) | Verdict::FileVanished(unit, item) => {
                    outcome.lost.push((place(unit), second_of(&item)));
                }
                Verdict::ListingFailed(..) => {}
            }
        }
        if scheduler.is_finished() {
            assert!(scheduler.units.is_empty());
            let counts = scheduler.counts();
            assert_eq!((counts.settled, counts.to_list), (counts.wanted, 0));
            return outcome;
        }
        let next_end = running.iter().map(|run| run.0).min();
        now = [next_end, wake].into_iter().flatten().min().expect("a pass that waits for nothing");
        let due = running.iter().position(|run| run.0 <= now);
        let Some((_, begun, id, task)) = due.map(|due| running.swap_remove(due)) else {
            continue;
        };
        match &task {
            Task::List(List::Hours(collection)) => {
                let has =
                    hours.iter().enumerate().filter(|(place, _)| !world[id][*place].is_empty());
                scheduler.hours_listed(id, *collection, has.map(|(_, hour)| *hour), now);
            }
            Task::List(List::Unit(unit)) => {
                let mut seconds: Vec<u8> = world[id][place(*unit)].keys().copied().collect();
                if lands_on_disk {
                    seconds.retain(|second| !outcome.had.contains(&(place(*unit), *second)));
                }
                // The clock of every other node is a little late.
                let late = id as u32 % 2 * 500;
                let wanted =
                    seconds.into_iter().map(|second| Item::Segment(recorded(second, late)));
                scheduler.listed(id, *unit, wanted, now);
                // What comes from a node after it was given up doesn't count, nor what is put off.
                let is_put_off = scheduler.nodes[id].to_list.contains(unit);
                if !outcome.given_up.contains(&id) && !is_put_off {
                    outcome.listed.push((id, place(*unit)));
                }
            }
            // A worker that sees this says nothing more about it.
            Task::Fetch(fetch) if fetch.superseded.is_superseded() => {}
            Task::Fetch(fetch) => {
                let second = second_of(&fetch.item);
                let key = (place(fetch.unit), second);
                let tried = tries.entry((id, key.0, key.1)).or_default();
                *tried += 1;
                let trouble = match world[id][key.0][&second] {
                    Way::Well => None,
                    Way::Flaky(times) if *tried > times => None,
                    Way::Flaky(_) => Some(Trouble::Broken),
                    Way::Corrupt => Some(Trouble::Corrupt),
                    Way::Gone => Some(Trouble::Gone),
                    Way::Hangs => Some(Trouble::Silent),
                };
                match trouble {
                    None => {
                        // A worker of a node that was given up may still finish, and another one
                        // that took its place finds the file here.
                        let is_late = outcome.given_up.contains(&id);
                        let is_here =
                            outcome.had.contains(&key) && (is_late || late.contains(&key));
                        if is_late {
                            late.push(key);
                        }
                        if !is_here && !outcome.lost.contains(&key) {
                            outcome.had.push(key);
                        }
                        scheduler.file_done(id, fetch, now);
                    }
                    Some(trouble) => scheduler.failed(id, &task, &error(trouble), begun, now),
                }
            }
        }
    }
    panic!("the pass does not end");
}
