//! Files that fail, files that are gone, and a second node that helps.

use super::*;

// ---- Files that fail ---------------------------------------------------------------------------

#[test]
fn another_holder_is_asked_before_the_first_is_asked_again() {
    for trouble in [Trouble::Broken, Trouble::Corrupt, Trouble::Gone, Trouble::Refused] {
        let mut s = Situation::of_one_hour(policy(), &[&[0], &[0]]);
        s.takes(0, &["00:00.000000"]);
        s.takes(1, &[]);
        s.fails(0, "00:00", trouble);
        s.takes(0, &[]);
        s.takes(1, &["00:00.000000"]);
        s.lands(1, "00:00");
        s.is_over(&[]);
    }
}

#[test]
fn a_temporary_failure_is_retried_after_growing_pauses() {
    let mut s = Situation::of_one_hour(policy(), &[&[0]]);
    for pause in [1, 2] {
        s.takes_one(0);
        s.fails(0, "00:00", Trouble::Broken);
        assert_eq!(s.next(0), Next::Wait(Some(s.now + Duration::from_secs(pause))));
        s.pass(pause);
    }
    s.takes_one(0);
    s.fails(0, "00:00", Trouble::Broken);
    s.is_over(&["00:00.000000 missing: node 0: Broken"]);
}

#[test]
fn a_transfer_that_got_further_doesn_t_count_as_a_retry() {
    let mut s = Situation::of_one_hour(policy(), &[&[0]]);
    for _ in 0..50 {
        assert!(s.takes_one(0).starts_with("00:00"));
        s.fails(0, "00:00", Trouble::Cut);
    }
    s.takes_one(0);
    s.lands(0, "00:00");
    s.is_over(&[]);
}

#[test]
fn a_permanent_failure_is_not_retried() {
    for trouble in [Trouble::Corrupt, Trouble::Refused] {
        let mut s = Situation::of_one_hour(policy(), &[&[0]]);
        s.takes_one(0);
        s.fails(0, "00:00", trouble);
        s.is_over(&[&format!("00:00.000000 missing: node 0: {trouble:?}")]);
    }
}

#[test]
fn a_lost_file_is_fetched_from_a_node_that_lists_it_later() {
    for trouble in [Trouble::Corrupt, Trouble::Gone] {
        let mut s = Situation::new(&[&[HOUR], &[HOUR]]);
        s.list(0, HOUR, &[0]);
        s.takes_one(0);
        s.begin(1, HOUR);
        s.fails(0, "00:00", trouble);
        assert_eq!(s.verdicts(), [""; 0]);
        s.end(1, HOUR, &[segment(0)]);
        s.takes(1, &["00:00.000000"]);
        s.lands(1, "00:00");
        s.is_over(&[]);
    }
}

#[test]
fn a_file_that_can_t_be_stored_is_settled_without_blaming_nodes() {
    let mut s = Situation::of_one_hour(policy(), &[&[0], &[0]]);
    s.takes_one(0);
    let fetch = s.fetch(0, "00:00");
    s.scheduler.abandoned(0, &fetch, s.now);
    s.is_over(&[]);
}

// ---- Files that are gone -----------------------------------------------------------------------

#[test]
fn a_file_that_is_gone_is_missing_only_if_it_is_still_listed() {
    for (still, verdict) in
        [(true, "00:00.000000 missing: node 0 withholds it"), (false, "00:00.000000 vanished")]
    {
        let mut s = Situation::of_one_hour(policy(), &[&[0]]);
        s.takes_one(0);
        s.fails(0, "00:00", Trouble::Gone);
        assert_eq!(s.verdicts(), [""; 0]);
        let listed: Vec<Item> = still.then(|| segment(0)).into_iter().collect();
        s.list_again(0, HOUR, &listed);
        s.is_over(&[verdict]);
    }
}

#[test]
fn each_node_confirms_once_all_files_that_it_said_are_gone() {
    let mut s = Situation::of_one_hour(policy(), &[&[0, 2], &[0, 2]]);
    assert!(s.takes_one(0).starts_with("00:00"));
    assert!(s.takes_one(1).starts_with("00:02"));
    s.fails(0, "00:00", Trouble::Gone);
    s.fails(1, "00:02", Trouble::Gone);
    assert!(s.takes_one(0).starts_with("00:02"));
    assert!(s.takes_one(1).starts_with("00:00"));
    s.fails(0, "00:02", Trouble::Gone);
    s.fails(1, "00:00", Trouble::Gone);
    s.list_again(0, HOUR, &[]);
    assert_eq!(s.verdicts(), [""; 0]);
    s.list_again(1, HOUR, &[segment(2)]);
    s.is_over(&["00:00.000000 vanished", "00:02.000000 missing: node 1 withholds it"]);
}

#[test]
fn gone_on_one_node_and_broken_on_another_is_a_failure() {
    let mut s = Situation::of_one_hour(Policy { retries: 0, ..policy() }, &[&[0], &[0]]);
    s.takes_one(0);
    s.fails(0, "00:00", Trouble::Broken);
    s.takes_one(1);
    s.fails(1, "00:00", Trouble::Gone);
    s.is_over(&["00:00.000000 missing: node 0: Broken"]);
}

#[test]
fn nothing_has_vanished_if_confirming_it_fails() {
    let mut s = Situation::of_one_hour(Policy { retries: 0, ..policy() }, &[&[0]]);
    s.takes_one(0);
    s.fails(0, "00:00", Trouble::Gone);
    let Next::Do(task @ Task::ListAgain { .. }) = s.next(0) else { panic!() };
    s.fail(0, &task, Trouble::Broken, s.now);
    s.is_over(&["node 0 listing failed: Broken", "00:00.000000 missing: node 0: Broken"]);
}

#[test]
fn nothing_has_vanished_on_a_node_given_up_before_confirming() {
    let mut s = Situation::of_one_hour(policy(), &[&[0], &[]]);
    s.takes_one(0);
    s.fails(0, "00:00", Trouble::Gone);
    let Next::Do(task @ Task::ListAgain { .. }) = s.next(0) else { panic!() };
    s.fail(0, &task, Trouble::Unusable, s.now);
    s.is_over(&["node 0 given up: Unusable", "00:00.000000 missing: node 0 given up"]);
}

#[test]
fn a_node_that_lists_many_files_and_sends_none_is_given_up() {
    let mut s = Situation::with(Policy { max_files: 20_000, ..policy() }, &[&[HOUR]]);
    let second = |n: u32| format!("{:02}:{:02}.{:06}", n / 3600, n / 60 % 60, n % 60 * 10_000);
    let items: Vec<Item> = (0..10_001).map(|n| named(&second(n), n as u8)).collect();
    s.begin(0, HOUR);
    s.end(0, HOUR, &items);
    assert_eq!(s.wanted(), 10_001);
    loop {
        match s.next(0) {
            Next::Do(task @ Task::Fetch(_)) => s.fail(0, &task, Trouble::Gone, s.now),
            Next::Do(Task::ListAgain { unit, names }) => {
                assert_eq!(names.len(), 10_001);
                s.scheduler.listed_again(0, unit, &names, &items, s.now);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let said = "node 0 given up: it lists 10,001 files and sends none of them";
    assert!(s.verdicts().iter().any(|verdict| verdict == said));
}

#[test]
fn a_file_that_is_gone_but_listed_again_is_not_requested_again() {
    let mut s = Situation::with(Policy { max_files: 2, ..policy() }, &[&[HOUR], &[HOUR]]);
    s.list(0, HOUR, &[0, 4]);
    // There is no room for the second file, so the node lists the hour once more.
    s.list(1, HOUR, &[0, 2]);
    s.takes(1, &["00:00.000000"]);
    s.fails(1, "00:00", Trouble::Gone);
    s.takes(0, &["00:00.000000", "00:04.000000"]);
    s.lands(0, "00:04");
    s.list(1, HOUR, &[0, 2]);
    s.takes(1, &["00:02.000000"]);
    s.lands(1, "00:02");
    s.fails(0, "00:00", Trouble::Gone);
    s.is_over(&["00:00.000000 missing: node 1 withholds it"]);
}

// ---- Helping -----------------------------------------------------------------------------------

/// Two nodes that have the same file. The first has been sending it for two seconds without a byte.
fn stuck(hedges: bool) -> Situation {
    let mut s = Situation::of_one_hour(Policy { hedges, ..policy() }, &[&[0], &[0]]);
    s.takes(0, &["00:00.000000"]);
    s.watch(2);
    s
}

#[test]
fn an_idle_node_helps_with_a_stuck_file() {
    let mut s = stuck(true);
    s.takes(1, &["00:00.000000"]);
    assert!(!s.fetch(0, "00:00").transfer.is_superseded());
    s.lands(1, "00:00");
    assert!(s.fetch(0, "00:00").transfer.is_superseded());
    // The pass doesn't wait for the first node, and its result doesn't matter.
    assert!(s.scheduler.is_finished());
    s.fails(0, "00:00", Trouble::Broken);
    s.lands(0, "00:00");
    s.is_over(&[]);
    assert_eq!(s.wanted(), 1);
}

#[test]
fn if_the_helper_fails_the_first_node_continues() {
    let mut s = stuck(true);
    s.takes(1, &["00:00.000000"]);
    s.fails(1, "00:00", Trouble::Corrupt);
    s.takes(1, &[]);
    s.lands(0, "00:00");
    s.is_over(&[]);
}

#[test]
fn a_moving_transfer_gets_no_help_and_none_does_without_hedges() {
    let mut s = stuck(true);
    let transfer = s.fetch(0, "00:00").transfer;
    transfer.expect(Some(1_000_000));
    transfer.receive(500_000, s.now);
    // It may help later.
    assert_eq!(s.next(1), Next::Wait(Some(s.now + Duration::from_millis(250))));
    s.watch(1);
    s.takes(1, &["00:00.000000"]);

    let mut s = stuck(false);
    assert_eq!(s.next(1), Next::Wait(None));
}

/// Two nodes that have the same file. The first is sending it at a hundredth of the second's rate.
fn slow() -> Situation {
    let mut s = Situation::of_one_hour(policy(), &[&[0], &[0, 2]]);
    s.takes(0, &["00:00.000000"]);
    s.takes(1, &["00:02.000000"]);
    let (slow, quick) = (s.fetch(0, "00:00").transfer, s.fetch(1, "00:02").transfer);
    for transfer in [&slow, &quick] {
        transfer.expect(Some(10_000_000));
        transfer.receive(0, s.now);
    }
    s.watch(1);
    slow.receive(100_000, s.now);
    quick.receive(10_000_000, s.now);
    s.lands(1, "00:02");
    s
}

#[test]
fn a_much_quicker_node_continues_what_a_slow_one_is_sending() {
    let mut s = slow();
    s.takes(1, &["00:00.000000"]);
    let (first, second) = (s.fetch(0, "00:00").transfer, s.fetch(1, "00:00").transfer);
    assert!(first.is_handed_over() && second.is_second());
    assert_eq!(s.scheduler.standing(0, s.now), Standing::Idle);
    // The first node doesn't resume it.
    s.takes(0, &[]);
    s.lands(1, "00:00");
    s.is_over(&[]);
}

#[test]
fn if_the_quicker_node_fails_the_slow_one_is_asked_again() {
    let mut s = slow();
    s.takes(1, &["00:00.000000"]);
    s.fails(1, "00:00", Trouble::Broken);
    s.takes(0, &["00:00.000000"]);
    s.lands(0, "00:00");
    s.is_over(&[]);
}

#[test]
fn a_slow_file_may_land_just_when_another_node_continues_it() {
    let mut s = slow();
    s.takes(1, &["00:00.000000"]);
    s.lands(0, "00:00");
    assert!(s.fetch(1, "00:00").transfer.is_superseded());
    s.is_over(&[]);
}

#[test]
fn unread_bytes_after_a_stop_are_not_fetched_twice() {
    let mut s = Situation::of_one_hour(policy(), &[&[0, 2], &[0, 2]]);
    s.takes(0, &["00:00.000000", "00:02.000000"]);
    for start in ["00:00", "00:02"] {
        s.fetch(0, start).transfer.receive(1000, s.now);
    }
    s.takes(1, &[]);
    s.pass(60);
    // The first worker can't know what the others will read.
    let soon = s.now + Duration::from_millis(250);
    assert_eq!(s.next(1), Next::Wait(Some(soon)));
    s.fetch(0, "00:00").transfer.receive(1000, s.now);
    s.now = soon;
    // The other node did not continue.
    s.takes(1, &["00:02.000000"]);
}

#[test]
fn a_node_lists_and_fetches_its_own_files_before_it_helps() {
    let mut s = Situation::new(&[&[HOUR], &[HOUR, EARLIER]]);
    s.list(0, HOUR, &[0]);
    s.list(1, HOUR, &[0]);
    s.takes(0, &["00:00.000000"]);
    s.watch(2);
    s.list(1, EARLIER, &[10]);
    s.takes(1, &["00:10.000000", "00:00.000000"]);
}
