//! What is next: order, shares, limits, and looks at the archive.

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
fn segments_are_fetched_in_order_before_more_is_listed() {
    let mut s = Situation::new(&[&[HOUR, EARLIER]]);
    s.list(0, HOUR, &[4, 2, 8]);
    for start in ["00:04.000000", "00:02.000000", "00:08.000000"] {
        assert_eq!(s.take(0).as_deref(), Some(start));
    }
    // This hour has nothing left to take, so an idle worker moves on to the next.
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
fn concurrent_requests_and_listings_are_limited() {
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
fn counts_show_the_progress() {
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
fn waiting_workers_are_woken_when_there_may_be_something_new() {
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
fn standing_shows_the_condition_of_a_node() {
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

// ---- Looks at the archive ----------------------------------------------------------------------

#[test]
fn a_file_that_landed_during_a_listing_is_not_wanted_again() {
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
fn one_look_serves_all_overlapping_listings_of_an_hour() {
    let mut s = Situation::new(&[&[HOUR], &[HOUR], &[HOUR]]);
    let (_, first) = s.begin(0, HOUR);
    let (_, second) = s.begin(1, HOUR);
    assert_eq!(first, second);
    s.end(0, HOUR, &[segment(0)]);
    s.end(1, HOUR, &[segment(0)]);
    let Next::Do(Task::Fetch(fetch)) = s.next(0) else { panic!() };
    assert_eq!(fetch.look, first);
    // Files that landed after that look may not be remembered, so the next listing looks again.
    s.scheduler.landed(0, &fetch, s.now);
    s.pass(1);
    let (_, third) = s.begin(2, HOUR);
    assert_ne!(third.number, first.number);
    assert_eq!((first.since, third.since), (s.now - Duration::from_secs(1), s.now));
}

#[test]
fn in_a_dry_run_an_hour_is_kept_until_all_nodes_have_listed_it() {
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
fn a_listing_in_parts_continues_before_other_listings() {
    let mut s = Situation::new(&[&[HOUR, EARLIER]]);
    assert_eq!(s.begin(0, HOUR).0, None);
    s.end_up_to(0, HOUR, &[segment(0), segment(2)], Some(segment(2)));
    // It counts as listed only when it is complete.
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
fn a_failed_part_is_retried_from_where_it_began() {
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
fn an_endless_listing_in_parts_fails() {
    let mut s = Situation::new(&[&[HOUR]]);
    let mut parts = 0;
    while let Next::Do(Task::ListUnit { .. }) = s.next(0) {
        parts += 1;
        s.end_up_to(0, HOUR, &[], Some(recorded(0, parts)));
        assert!(parts < 1000);
    }
    assert_eq!(parts, 128);
    s.is_over(&["node 0 listing failed: its listing never ends"]);
    assert_eq!(s.scheduler.undone(|_| true).unlisted, 1);
}

#[test]
fn no_unit_is_opened_while_too_much_is_open() {
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
    // Another node may list an open unit, but nothing else.
    s.list(1, NEXT, &[]);
    assert!(matches!(s.next(1), Next::Wait(_)));
    s.lands(0, "00:00");
    s.lands(0, "00:02");
    // There is room again. The unit that was put off is listed before new ones.
    s.begin(0, HOUR);
    s.end(0, HOUR, &[segment(10), segment(12)]);
    assert_eq!(s.wanted(), 5);
    s.takes(0, &["00:10.000000", "00:12.000000"]);
}

#[test]
fn known_files_of_a_listing_are_accepted_even_without_room() {
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
