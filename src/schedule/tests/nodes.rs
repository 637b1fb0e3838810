//! Nodes that are silent, busy, given up, or back; and a dead line.

use super::*;

// ---- Nodes -------------------------------------------------------------------------------------

#[test]
fn a_silent_node_is_given_up_if_another_is_heard() {
    let mut s = Situation::of_one_hour(policy(), &[&[0, 2], &[2, 4]]);
    s.takes(1, &["00:02.000000", "00:04.000000"]);
    s.pass(5);
    s.hear(0);
    s.fails(1, "00:02", Trouble::Silent);
    assert_eq!(s.scheduler.given_up(), [false, true]);
    assert!(s.fetch(1, "00:04").transfer.is_superseded());
    // The other node gets what both have at once. The rest is lost, unless the node comes back.
    s.takes(0, &["00:00.000000", "00:02.000000"]);
    s.lands(0, "00:00");
    s.lands(0, "00:02");
    // Its results no longer matter.
    s.fails(1, "00:04", Trouble::Silent);
    s.is_over(&["node 1 given up: Silent", "00:04.000000 missing: node 1 given up"]);
    let undone = Undone { unlisted: 0, given_up: 1, any_answered: true };
    assert_eq!(s.scheduler.undone(|_| true), undone);
}

#[test]
fn a_node_that_sends_another_file_meanwhile_is_not_given_up() {
    let mut s = Situation::of_one_hour(policy(), &[&[0, 2], &[4]]);
    s.takes(0, &["00:00.000000", "00:02.000000"]);
    s.pass(5);
    s.hear(1);
    s.fetch(0, "00:02").transfer.receive(1000, s.now);
    s.fails(0, "00:00", Trouble::Silent);
    assert_eq!(s.scheduler.given_up(), [false, false]);
}

#[test]
fn the_only_node_may_be_silent_for_a_while() {
    let mut s = Situation::of_one_hour(policy(), &[&[0]]);
    for pause in [1, 2] {
        s.takes_one(0);
        s.pass(5);
        s.fails(0, "00:00", Trouble::Silent);
        assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(pause))));
        s.pass(pause);
    }
    s.takes_one(0);
    s.pass(5);
    s.fails(0, "00:00", Trouble::Silent);
    s.is_over(&["node 0 given up: Silent", "00:00.000000 missing: node 0: Silent"]);
}

#[test]
fn a_dead_line_costs_no_node_and_no_retry() {
    let mut s = Situation::of_one_hour(policy(), &[&[0], &[2]]);
    // Many more silences than retries, within a minute.
    for _ in 0..8 {
        s.takes(0, &["00:00.000000"]);
        s.takes(1, &["00:02.000000"]);
        s.pass(5);
        s.fails(0, "00:00", Trouble::Silent);
        s.fails(1, "00:02", Trouble::Silent);
        assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(1))));
        s.pass(1);
    }
    assert_eq!(s.verdicts(), [""; 0]);
    s.takes(0, &["00:00.000000"]);
    s.takes(1, &["00:02.000000"]);
    s.lands(0, "00:00");
    s.lands(1, "00:02");
    s.is_over(&[]);
}

#[test]
fn a_line_that_stays_dead_ends_the_pass() {
    let mut s = Situation::of_one_hour(policy(), &[&[0], &[2]]);
    let mut seconds = 0;
    while !s.scheduler.is_finished() {
        for (id, start) in [(0, "00:00"), (1, "00:02")] {
            if s.take(id).is_some() {
                s.now += TIMEOUT;
                s.fails(id, start, Trouble::Silent);
            }
        }
        s.pass(1);
        seconds += 11;
        assert!(seconds < 300, "it never ends");
    }
    assert_eq!(s.scheduler.given_up(), [true, true]);
}

#[test]
fn requests_that_fail_together_are_one_incident() {
    let mut s = Situation::of_one_hour(Policy { retries: 1, ..policy() }, &[&[0, 2, 4]]);
    s.takes(0, &["00:00.000000", "00:02.000000", "00:04.000000"]);
    s.pass(1);
    ["00:00", "00:02", "00:04"].iter().for_each(|start| s.fails(0, start, Trouble::Unreachable));
    assert_eq!(s.verdicts(), [""; 0]);
    s.pass(1);
    assert!(s.take(0).is_some());
}

#[test]
fn a_busy_node_is_left_alone_and_that_doesn_t_count_as_a_retry() {
    let mut s = Situation::of_one_hour(Policy { retries: 0, ..policy() }, &[&[0]]);
    for rest in [7, 20] {
        s.takes_one(0);
        s.pass(1);
        s.fails(0, "00:00", Trouble::Busy(Some(Duration::from_secs(rest))));
        assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(rest))));
        s.pass(rest);
    }
    s.takes_one(0);
    s.lands(0, "00:00");
    s.is_over(&[]);
}

#[test]
fn a_busy_node_gets_fewer_requests_and_its_other_files_go_first() {
    let mut s =
        Situation::of_one_hour(Policy { jobs: Box::new(|_| 3), ..policy() }, &[&[0, 2, 4, 6, 8]]);
    s.takes(0, &["00:00.000000", "00:02.000000", "00:04.000000"]);
    s.pass(1);
    s.fails(0, "00:00", Trouble::Busy(None));
    // Two requests are under way, which is its limit.
    s.takes(0, &[]);
    s.lands(0, "00:02");
    s.takes(0, &["00:06.000000"]);
    s.fails(0, "00:04", Trouble::Busy(None));
    s.takes(0, &[]);
    s.lands(0, "00:06");
    for start in ["00:08", "00:00", "00:04"] {
        assert!(s.takes_one(0).starts_with(start));
        s.takes(0, &[]);
        s.lands(0, start);
    }
    s.is_over(&[]);
}

#[test]
fn a_node_that_keeps_asking_for_pauses_is_given_up() {
    let mut s = Situation::of_one_hour(policy(), &[&[0, 2, 4, 6]]);
    let asks_for = Trouble::Busy(Some(Duration::from_secs(25)));
    // Even if requests succeed in between.
    for _ in 0..2 {
        let start = s.takes_one(0);
        s.pass(1);
        s.fails(0, &start, asks_for);
        s.pass(25);
        let other = s.takes_one(0);
        s.lands(0, &other);
    }
    let start = s.takes_one(0);
    s.pass(1);
    s.fails(0, &start, asks_for);
    assert!(s.verdicts()[0].starts_with("node 0 given up: Busy"));
}

#[test]
fn a_node_that_fails_everything_is_given_up() {
    let policy = Policy { retries: 100, backoff: Box::new(|_| Duration::ZERO), ..policy() };
    let mut s = Situation::of_one_hour(policy, &[&[0, 2]]);
    for _ in 0..100 {
        let start = s.takes_one(0);
        s.fails(0, &start, Trouble::Broken);
    }
    assert_eq!(s.verdicts()[0], "node 0 given up after 100: Broken");
}

#[test]
fn an_unusable_node_is_given_up_at_once() {
    let mut scheduler = Scheduler::new(1, 1, 0, policy());
    let now = Instant::now();
    let Next::Do(task) = scheduler.next(0, now) else { panic!() };
    scheduler.failed(0, &task, &error(Trouble::Unusable), &[None], now, now);
    assert!(scheduler.is_finished());
    let undone = Undone { unlisted: 0, given_up: 1, any_answered: false };
    assert_eq!(scheduler.undone(|_| true), undone);
}

#[test]
fn a_listing_fails_after_all_retries() {
    for (trouble, tries) in [(Trouble::Broken, 3), (Trouble::Refused, 1)] {
        let mut s = Situation::new(&[&[HOUR]]);
        for n in 1..=tries {
            let Next::Do(task @ Task::ListUnit { .. }) = s.next(0) else { panic!("{n}") };
            s.fail(0, &task, trouble, s.now);
            if n < tries {
                assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(n))));
                s.pass(n);
            }
        }
        s.is_over(&[&format!("node 0 listing failed: {trouble:?}")]);
        let undone = Undone { unlisted: 1, given_up: 0, any_answered: true };
        assert_eq!(s.scheduler.undone(|_| true), undone);
    }
}

// ---- Nodes that come back ----------------------------------------------------------------------

/// Two nodes: one that is given up and is the only one with a certain file, and one that continues.
fn away() -> Situation {
    let mut s = Situation::of_one_hour(policy(), &[&[0, 2], &[2, 4, 6]]);
    s.takes(1, &["00:02.000000", "00:04.000000", "00:06.000000"]);
    s.takes(0, &["00:00.000000"]);
    s.pass(5);
    s.hear(1);
    s.fails(0, "00:00", Trouble::Silent);
    assert_eq!(s.verdicts(), ["node 0 given up: Silent"]);
    s
}

#[test]
fn a_node_given_up_is_probed_and_its_files_are_kept() {
    let mut s = away();
    s.lands(1, "00:02");
    for pause in [25, 50, 100] {
        assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(pause))));
        s.pass(pause);
        let Next::Do(task @ Task::ListHours(0)) = s.next(0) else { panic!() };
        // One request at a time.
        assert!(matches!(s.next(0), Next::Wait(_)));
        s.fail(0, &task, Trouble::Silent, s.now);
    }
    s.pass(200);
    assert_eq!(s.next(0), Next::Do(Task::ListHours(0)));
    s.hours(0, &[HOUR]);
    assert_eq!(s.verdicts(), ["node 0 back"]);
    assert_eq!(s.scheduler.given_up(), [false, false]);
    // It doesn't list again what it has listed before.
    s.takes(0, &["00:00.000000"]);
    s.lands(0, "00:00");
    ["00:04", "00:06"].iter().for_each(|start| s.lands(1, start));
    s.is_over(&[]);
    assert_eq!(s.scheduler.undone(|_| true).given_up, 0);
}

#[test]
fn files_of_a_node_that_doesn_t_come_back_are_missing() {
    let mut s = away();
    ["00:02", "00:04", "00:06"].iter().for_each(|start| s.lands(1, start));
    s.is_over(&["00:00.000000 missing: node 0: Silent"]);
    assert_eq!(s.scheduler.undone(|_| true).given_up, 1);
}

#[test]
fn unfinished_listings_are_done_when_the_node_is_back() {
    let mut s = Situation::new(&[&[HOUR, EARLIER], &[HOUR]]);
    let Next::Do(task) = s.next(0) else { panic!() };
    s.list(1, HOUR, &[2]);
    s.takes(1, &["00:02.000000"]);
    s.pass(5);
    s.hear(1);
    s.fail(0, &task, Trouble::Silent, s.now - TIMEOUT);
    s.pass(25);
    assert_eq!(s.next(0), Next::Do(Task::ListHours(0)));
    s.hours(0, &[HOUR, EARLIER]);
    s.list(0, HOUR, &[0]);
    s.takes_one(0);
    s.list(0, EARLIER, &[]);
    s.lands(0, "00:00");
    s.lands(1, "00:02");
    s.is_over(&["node 0 given up: Silent", "node 0 back"]);
}

#[test]
fn a_pass_over_extra_directories_alone_probes_with_one_of_them() {
    let mut scheduler = Scheduler::new(2, 0, 1, policy());
    let (now, unit) = (Instant::now(), Unit::Extras(0));
    let Next::Do(listing) = scheduler.next(0, now) else { panic!() };
    let file = |path: &str| Item::Extra(path.parse::<ExtraPath>().unwrap());
    assert!(matches!(scheduler.next(1, now), Next::Do(Task::ListUnit { .. })));
    scheduler.listed(1, unit, vec![file("b")], None, now);
    let Next::Do(Task::Fetch(slow)) = scheduler.next(1, now) else { panic!() };
    scheduler.failed(0, &listing, &error(Trouble::Unusable), &[None; 2], now, now);
    assert_eq!(scheduler.given_up(), [true, false]);
    let later = now + 5 * TIMEOUT;
    let probe = scheduler.next(0, later);
    let Next::Do(Task::ListAgain { unit: probed, names }) = probe else { panic!("{probe:?}") };
    assert_eq!((probed, names.len()), (unit, 0));
    scheduler.listed_again(0, unit, &names, &[], later);
    assert_eq!(scheduler.given_up(), [false, false]);
    // It still has to list what it has.
    assert!(matches!(scheduler.next(0, later), Next::Do(Task::ListUnit { .. })));
    scheduler.listed(0, unit, vec![file("a")], None, later);
    let Next::Do(Task::Fetch(own)) = scheduler.next(0, later) else { panic!() };
    scheduler.landed(0, &own, later);
    scheduler.landed(1, &slow, later);
    assert!(scheduler.is_finished());
}

#[test]
fn in_a_dry_run_no_node_comes_back() {
    let policy = Policy { lands_on_disk: false, ..policy() };
    let mut s = Situation::of_one_hour(policy, &[&[0], &[2]]);
    s.takes(0, &["00:00.000000"]);
    s.takes(1, &["00:02.000000"]);
    s.pass(5);
    s.hear(1);
    s.fails(0, "00:00", Trouble::Silent);
    s.pass(100);
    assert_eq!(s.next(0), Next::Wait(None));
    s.lands(1, "00:02");
    s.is_over(&[
        "node 0 given up: Silent",
        "00:02.000000 at [1] would land",
        "00:00.000000 missing: node 0: Silent",
    ]);
}
