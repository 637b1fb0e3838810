//! What is next: order, shares, bounds, and looks at what is here.

use super::*;

// ---- What is next ------------------------------------------------------------------------------

#[test]
fn newer_hours_are_listed_first() {
    let mut s = Situation::new(&[&[EARLIER, NEXT, HOUR]]);
    for hour in [NEXT, HOUR, EARLIER] {
        s.list(0, hour, &[]);
    }
    s.is_over(&[]);
}

#[test]
fn segments_are_fetched_in_the_listed_order_before_more_is_listed() {
    let mut s = Situation::new(&[&[HOUR, EARLIER]]);
    s.list(0, HOUR, &[4, 2, 8]);
    for start in ["00:04.000000", "00:02.000000", "00:08.000000"] {
        assert_eq!(s.take(0).as_deref(), Some(start));
    }
    // Nothing of this hour is left to take, so a free worker goes on to the next.
    s.list(0, EARLIER, &[]);
}

#[test]
fn nodes_share_what_they_hold() {
    let mut s = Situation::new(&[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0, 2, 4]);
    assert!(s.take(0).is_some_and(|start| start.starts_with("00:00")));
    s.list(1, HOUR, &[0, 2, 6]);
    s.takes(1, &["00:02.000000", "00:06.000000"]);
    s.takes(0, &["00:04.000000"]);
    assert_eq!(s.wanted(), 4);
    for (id, start) in [(0, "00:00"), (1, "00:02"), (1, "00:06"), (0, "00:04")] {
        assert!(!s.scheduler.is_finished());
        s.lands(id, start);
    }
    s.is_over(&[]);
}

#[test]
fn a_node_has_no_more_requests_or_listings_at_a_time_than_it_may() {
    let mut s = Situation::with(Policy { jobs: Box::new(|_| 3), ..policy() }, &[&[HOUR]]);
    s.list(0, HOUR, &[0, 2, 4, 6]);
    s.takes(0, &["00:00.000000", "00:02.000000", "00:04.000000"]);
    assert_eq!(s.next(0), Next::Wait(None));
    s.lands(0, "00:02");
    s.takes(0, &["00:06.000000"]);

    let hours = [NEXT, HOUR, EARLIER];
    let mut s = Situation::with(Policy { listings: 2, ..policy() }, &[&hours]);
    s.begin(0, NEXT);
    s.begin(0, HOUR);
    assert_eq!(s.next(0), Next::Wait(None));
    s.end(0, NEXT, &[]);
    s.begin(0, EARLIER);
}

#[test]
fn extra_directories_come_after_all_hours() {
    let mut scheduler = Scheduler::new(1, 1, 2, policy());
    let now = Instant::now();
    assert_eq!(scheduler.next(0, now), Next::Do(Task::ListHours(0)));
    scheduler.hours_listed(0, 0, [EARLIER.parse().unwrap()], now);
    for unit in [unit(EARLIER), Unit::Extras(0), Unit::Extras(1)] {
        let Next::Do(Task::ListUnit { unit: of, .. }) = scheduler.next(0, now) else { panic!() };
        assert_eq!(of, unit);
    }
    let path = Item::Extra("a/b.png".parse::<ExtraPath>().unwrap());
    scheduler.listed(0, Unit::Extras(1), vec![path.clone()], None, now);
    let Next::Do(Task::Fetch(fetch)) = scheduler.next(0, now) else { panic!() };
    assert_eq!((fetch.unit, &fetch.item), (Unit::Extras(1), &path));
}

#[test]
fn counts_say_how_far_it_is() {
    let mut s = Situation::new(&[&[HOUR, EARLIER]]);
    let counts = |wanted, settled, listed, to_list| Counts { wanted, settled, listed, to_list };
    assert_eq!(s.scheduler.counts(), counts(0, 0, 0, 2));
    s.list(0, HOUR, &[0, 2]);
    assert_eq!(s.scheduler.counts(), counts(2, 0, 1, 1));
    s.takes_one(0);
    s.lands(0, "00:00");
    assert_eq!(s.scheduler.counts(), counts(2, 1, 1, 1));
}

#[test]
fn a_worker_that_waits_is_woken_when_there_may_be_something_new() {
    let mut s = Situation::of_one_hour(policy(), &[&[0], &[0]]);
    s.takes(0, &["00:00.000000"]);
    s.takes(1, &[]);
    s.scheduler.take_changed();
    s.fails(0, "00:00", Trouble::Corrupt);
    assert!(s.scheduler.take_changed());
    assert!(!s.scheduler.take_changed());
    s.takes(1, &["00:00.000000"]);
    s.lands(1, "00:00");
    assert!(s.scheduler.take_changed());
}

#[test]
fn standing_says_what_a_node_is_at() {
    let mut s = Situation::of_one_hour(policy(), &[&[0]]);
    assert_eq!(s.scheduler.standing(0, s.now), Standing::Idle);
    s.takes(0, &["00:00.000000"]);
    assert_eq!(s.scheduler.standing(0, s.now), Standing::Busy);
    s.fails(0, "00:00", Trouble::Busy(Some(Duration::from_secs(7))));
    let until = s.now + Duration::from_secs(7);
    assert_eq!(s.scheduler.standing(0, s.now), Standing::Resting(until));
    s.pass(7);
    s.takes(0, &["00:00.000000"]);
    s.fails(0, "00:00", Trouble::Unusable);
    assert_eq!(s.scheduler.standing(0, s.now), Standing::GivenUp);
}

// ---- Looks at what is here ---------------------------------------------------------------------

#[test]
fn what_landed_while_another_node_was_listing_is_not_wanted_again() {
    let mut s = Situation::new(&[&[HOUR], &[HOUR]]);
    s.begin(1, HOUR);
    s.list(0, HOUR, &[0]);
    s.takes(0, &["00:00.000000"]);
    s.lands(0, "00:00");
    assert_eq!(s.end(1, HOUR, &[segment(0)]), [""; 0]);
    assert_eq!(s.wanted(), 1);
    s.is_over(&[]);
}

#[test]
fn one_look_serves_all_who_list_an_hour_without_a_break() {
    let mut s = Situation::new(&[&[HOUR], &[HOUR], &[HOUR]]);
    let (_, first) = s.begin(0, HOUR);
    let (_, second) = s.begin(1, HOUR);
    assert_eq!(first, second);
    s.end(0, HOUR, &[segment(0)]);
    s.end(1, HOUR, &[segment(0)]);
    let Next::Do(Task::Fetch(fetch)) = s.next(0) else { panic!() };
    assert_eq!(fetch.look, first);
    // What landed after that look may not be remembered, so the next one looks again.
    s.scheduler.landed(0, &fetch, s.now);
    s.pass(1);
    let (_, third) = s.begin(2, HOUR);
    assert_ne!(third.number, first.number);
    assert_eq!((first.since, third.since), (s.now - Duration::from_secs(1), s.now));
}

#[test]
fn in_a_dry_run_an_hour_is_kept_until_all_have_listed_it() {
    let mut s = Situation::with(Policy { lands_on_disk: false, ..policy() }, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0]);
    s.takes(0, &["00:00.000000"]);
    s.lands(0, "00:00");
    s.list(1, HOUR, &[0, 2]);
    s.takes(1, &["00:02.000000"]);
    s.lands(1, "00:02");
    assert_eq!(s.wanted(), 2);
    s.is_over(&["00:00.000000 at [0, 1], 00:02.000000 at [1] would land"]);
}

// ---- Large listings ----------------------------------------------------------------------------

#[test]
fn a_listing_in_parts_goes_on_from_where_it_was_before_others_are_listed() {
    let mut s = Situation::new(&[&[HOUR, EARLIER]]);
    assert_eq!(s.begin(0, HOUR).0, None);
    s.end_up_to(0, HOUR, &[segment(0), segment(2)], Some(segment(2)));
    // It counts as listed only at its end.
    assert_eq!((s.scheduler.counts().listed, s.scheduler.counts().to_list), (0, 2));
    for start in ["00:00", "00:02"] {
        assert!(s.takes_one(0).starts_with(start));
    }
    assert_eq!(s.begin(0, HOUR).0, Some(segment(2)));
    s.end_up_to(0, HOUR, &[segment(4)], None);
    assert!(s.takes_one(0).starts_with("00:04"));
    assert_eq!(s.scheduler.counts().listed, 1);
    s.list(0, EARLIER, &[]);
    ["00:00", "00:02", "00:04"].iter().for_each(|start| s.lands(0, start));
    s.is_over(&[]);
}

#[test]
fn a_part_that_fails_is_listed_again_from_where_it_was() {
    let mut s = Situation::new(&[&[HOUR]]);
    s.begin(0, HOUR);
    s.end_up_to(0, HOUR, &[segment(0)], Some(segment(0)));
    s.takes_one(0);
    let Next::Do(task) = s.next(0) else { panic!() };
    s.fail(0, &task, Trouble::Broken, s.now);
    s.pass(1);
    assert_eq!(s.begin(0, HOUR).0, Some(segment(0)));
}

#[test]
fn a_listing_in_parts_without_end_fails() {
    let mut s = Situation::new(&[&[HOUR]]);
    let mut parts = 0;
    while let Next::Do(Task::ListUnit { .. }) = s.next(0) {
        parts += 1;
        s.end_up_to(0, HOUR, &[], Some(recorded(0, parts)));
        assert!(parts < 1000);
    }
    assert_eq!(parts, 128);
    s.is_over(&["node 0 listing failed: it lists names without end"]);
    assert_eq!(s.scheduler.undone(|_| true).unlisted, 1);
}

#[test]
fn no_more_is_opened_while_there_is_too_much_to_do_and_what_was_put_off_comes_back() {
    let hours = [NEXT, HOUR, EARLIER];
    let mut s = Situation::with(Policy { max_files: 3, ..policy() }, &[&hours, &hours]);
    // Two listings are under way when the first turns out to be large.
    s.begin(0, NEXT);
    s.begin(0, HOUR);
    let large = [segment(0), segment(2), segment(4)];
    s.end(0, NEXT, &large);
    s.end(0, HOUR, &[segment(10), segment(12)]);
    assert_eq!(s.wanted(), 3);
    s.takes(0, &["00:00.000000", "00:02.000000", "00:04.000000"]);
    // Another node may list what is open, but nothing else.
    s.list(1, NEXT, &[]);
    assert!(matches!(s.next(1), Next::Wait(_)));
    s.lands(0, "00:00");
    s.lands(0, "00:02");
    // There is room again. What was put off is listed before what is new.
    s.begin(0, HOUR);
    s.end(0, HOUR, &[segment(10), segment(12)]);
    assert_eq!(s.wanted(), 5);
    s.takes(0, &["00:10.000000", "00:12.000000"]);
}

#[test]
fn what_is_known_already_is_taken_from_a_listing_though_there_is_no_room() {
    let mut s = Situation::with(Policy { max_files: 1, ..policy() }, &[&[HOUR], &[HOUR]]);
    s.begin(1, HOUR);
    s.list(0, HOUR, &[0]);
    s.takes(0, &["00:00.000000"]);
    s.end(1, HOUR, &[segment(0), segment(2)]);
    s.fails(0, "00:00", Trouble::Corrupt);
    s.takes(1, &["00:00.000000"]);
    s.lands(1, "00:00");
    s.list(1, HOUR, &[2]);
    s.takes(1, &["00:02.000000"]);
    s.lands(1, "00:02");
    s.is_over(&[]);
}
