//! Recordings with several names, and tombstones.

use super::*;

// ---- One recording with several names ----------------------------------------------------------

/// Two nodes that have the same recording by different clocks.
fn two_names() -> Situation {
    let mut s = Situation::new(&[&[HOUR], &[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[4]);
    s.begin(1, HOUR);
    assert_eq!(s.end(1, HOUR, &[recorded(4, 900)]), ["00:04.000900 is 00:04.000000"]);
    assert_eq!(s.wanted(), 1);
    s.begin(2, HOUR);
    s
}

#[test]
fn the_second_twin_is_offered_when_the_first_is_lost() {
    let mut s = two_names();
    s.end(2, HOUR, &[]);
    s.takes(1, &[]);
    s.takes(0, &["00:04.000000"]);
    s.takes(1, &[]);
    s.fails(0, "00:04", Trouble::Corrupt);
    s.takes(0, &[]);
    s.takes(1, &["00:04.000900"]);
    s.lands(1, "00:04");
    s.is_over(&[]);
}

#[test]
fn when_one_twin_lands_the_other_is_done() {
    let mut s = two_names();
    s.end(2, HOUR, &[]);
    s.takes(0, &["00:04.000000"]);
    s.lands(0, "00:04");
    s.is_over(&[]);
}

#[test]
fn a_third_name_is_recognised_while_twins_are_open_or_listed() {
    let mut s = two_names();
    s.takes(0, &["00:04.000000"]);
    s.lands(0, "00:04");
    assert_eq!(s.end(2, HOUR, &[recorded(4, 400)]), ["00:04.000400 is 00:04.000000"]);
    s.is_over(&[]);
}

#[test]
fn twins_that_no_node_delivers_count_as_one_missing_file() {
    let mut s = two_names();
    s.end(2, HOUR, &[]);
    s.takes(0, &["00:04.000000"]);
    s.fails(0, "00:04", Trouble::Corrupt);
    s.takes(1, &["00:04.000900"]);
    s.fails(1, "00:04", Trouble::Gone);
    s.list_again(1, HOUR, &[]);
    s.is_over(&["00:04.000900 missing: node 0: Corrupt"]);
}

#[test]
fn twins_on_one_node_are_tried_in_turn() {
    let mut s = Situation::new(&[&[HOUR]]);
    s.begin(0, HOUR);
    let both = [recorded(4, 0), recorded(4, 500)];
    assert_eq!(s.end(0, HOUR, &both), ["00:04.000500 is 00:04.000000"]);
    s.takes(0, &["00:04.000000"]);
    s.fails(0, "00:04.000000", Trouble::Corrupt);
    s.takes(0, &["00:04.000500"]);
    s.lands(0, "00:04.000500");
    s.is_over(&[]);
}

#[test]
fn twins_are_recognised_across_the_turn_of_an_hour() {
    for (time, is_same) in [("59:59.999500", true), ("59:59.998999", false)] {
        let mut s = Situation::new(&[&[NEXT], &[HOUR]]);
        s.begin(0, NEXT);
        s.end(0, NEXT, &[named("00:00.000000", 7)]);
        s.begin(1, HOUR);
        let unwanted = s.end(1, HOUR, &[named(time, 7)]);
        assert_eq!((unwanted.len(), s.wanted()), if is_same { (1, 1) } else { (0, 2) }, "{time}");
        s.takes(0, &["00:00.000000"]);
        s.fails(0, "00:00", Trouble::Corrupt);
        s.takes(1, &[time]);
        s.lands(1, time);
        // If they are different recordings, the first is missing.
        s.is_over(if is_same { &[] } else { &["00:00.000000 missing: node 0: Corrupt"] });
    }
}

#[test]
fn a_file_lost_at_the_turn_of_an_hour_may_still_be_listed_beside_it() {
    let mut s = Situation::new(&[&[HOUR], &[NEXT]]);
    s.begin(0, HOUR);
    s.end(0, HOUR, &[named("59:59.999800", 7)]);
    s.takes(0, &["59:59.999800"]);
    s.fails(0, "59:59", Trouble::Corrupt);
    assert_eq!(s.verdicts(), [""; 0]);
    s.begin(1, NEXT);
    s.end(1, NEXT, &[named("00:00.000200", 7)]);
    s.takes(1, &["00:00.000200"]);
    s.lands(1, "00:00");
    s.is_over(&[]);
}

#[test]
fn a_landing_at_the_turn_of_an_hour_is_known_to_an_older_look() {
    let mut s = Situation::new(&[&[HOUR], &[NEXT]]);
    // The first node's worker looks at the archive now.
    s.begin(0, HOUR);
    s.begin(1, NEXT);
    s.end(1, NEXT, &[named("00:00.000400", 7)]);
    s.takes(1, &["00:00.000400"]);
    s.lands(1, "00:00");
    assert_eq!(s.end(0, HOUR, &[named("59:59.999800", 7)]), ["59:59.999800 is 00:00.000400"]);
    s.is_over(&[]);
    assert_eq!(s.wanted(), 1);
}

// ---- What was deleted on purpose ---------------------------------------------------------------

#[test]
fn a_segment_that_a_node_lists_as_deleted_is_not_fetched() {
    let mut s = Situation::new(&[&[HOUR], &[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0, 2]);
    s.begin(1, HOUR);
    s.begin(2, HOUR);
    let names = vec![name_of(&segment(0)), name_of(&segment(4))];
    assert_eq!(s.scheduler.deleted(unit(HOUR), names.clone()), names);
    // The second time, nothing is new.
    assert_eq!(s.scheduler.deleted(unit(HOUR), names), []);
    s.end(1, HOUR, &[]);
    let unwanted = s.end(2, HOUR, &[segment(0), segment(4)]);
    assert_eq!(unwanted, ["00:00.000000 deleted", "00:04.000000 deleted"]);
    s.takes(0, &["00:02.000000"]);
    s.lands(0, "00:02");
    s.is_over(&["deleted at [0]", "deleted at [2]", "deleted at [2]"]);
}

#[test]
fn a_recording_deleted_by_one_name_is_not_fetched_by_another() {
    for deleted in [recorded(4, 0), recorded(4, 900), recorded(4, 400)] {
        for comes in [false, true] {
            let mut s = two_names();
            if comes {
                s.takes(0, &["00:04.000000"]);
            }
            s.scheduler.deleted(unit(HOUR), vec![name_of(&deleted)]);
            if comes {
                assert!(s.fetch(0, "00:04").transfer.is_superseded());
                // Too late to count.
                s.fails(0, "00:04", Trouble::Corrupt);
            }
            assert_eq!(s.end(2, HOUR, &[recorded(4, 300)]), ["00:04.000300 deleted"]);
            s.is_over(&["deleted at [0]", "deleted at [1]", "deleted at [2]"]);
        }
    }
}

#[test]
fn a_deleted_recording_is_not_fetched_from_the_next_hour() {
    let mut s = Situation::new(&[&[HOUR], &[NEXT], &[HOUR]]);
    s.begin(1, NEXT);
    s.begin(0, HOUR);
    s.end(0, HOUR, &[named("59:59.999800", 7)]);
    s.takes(0, &["59:59.999800"]);
    s.scheduler.deleted(unit(NEXT), vec![name_of(&named("00:00.000200", 7))]);
    s.end(1, NEXT, &[]);
    assert!(s.fetch(0, "59:59").transfer.is_superseded());
    // The hour with the tombstone is settled by now, but the tombstone is remembered.
    s.begin(2, HOUR);
    assert_eq!(s.end(2, HOUR, &[named("59:59.999500", 7)]), ["59:59.999500 deleted"]);
    s.is_over(&["deleted at [0]", "deleted at [2]"]);
}

#[test]
fn a_file_deleted_on_arrival_is_not_fetched_by_another_name() {
    let mut s = two_names();
    s.end(2, HOUR, &[]);
    s.takes(0, &["00:04.000000"]);
    let fetch = s.fetch(0, "00:04");
    s.scheduler.forbidden(0, &fetch, s.now);
    s.is_over(&["deleted at [0]", "deleted at [1]"]);
}
