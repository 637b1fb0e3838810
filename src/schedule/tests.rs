//! Tables of what is reported to the scheduler and what it answers, without knowledge of its
//! internals. Whole passes are in `simulation`. This module has the helpers; the tables are in its
//! submodules.

mod failures;
mod next;
mod nodes;
mod recordings;

use std::cmp::Reverse;
use std::collections::HashMap;

use super::*;
use crate::extra::ExtraPath;
use crate::node::{NodeError, Trouble};
use crate::segment::{Medium, SegmentHash, SegmentName};

const HOUR: &str = "2018-11-10T05";
const NEXT: &str = "2018-11-10T06";
const EARLIER: &str = "2018-11-10T04";
const TIMEOUT: Duration = Duration::from_secs(5);

fn policy() -> Policy {
    Policy {
        retries: 2,
        backoff: Box::new(|n: u32| Duration::from_millis(500 << n.min(10))),
        jobs: Box::new(|_| 8),
        listings: 4,
        timeout: TIMEOUT,
        max_files: 1000,
        lands_on_disk: true,
        hedges: true,
    }
}

fn unit(hour: &str) -> Unit {
    Unit::Hour(Reverse(hour.parse().unwrap()), 0)
}

/// The segment that starts at this second, recorded by a clock that is `late` microseconds late.
fn recorded(second: u8, late: u32) -> Item {
    named(&format!("00:{second:02}.{late:06}"), second)
}

fn segment(second: u8) -> Item {
    recorded(second, 0)
}

fn named(time: &str, hash: u8) -> Item {
    let name = format!("{time}-2.0-full-{}.ts", SegmentHash([hash; 32]));
    Item::Segment(SegmentName::parse(&name, Medium::Video).unwrap())
}

fn name_of(item: &Item) -> SegmentName {
    let Item::Segment(name) = item else { panic!("{item:?}") };
    name.clone()
}

/// The part of a name that distinguishes it.
fn short(item: &Item) -> &str {
    item.as_str().split_once(['-', '/']).map_or(item.as_str(), |(time, _)| time)
}

fn error(trouble: Trouble) -> NodeError {
    NodeError::new(trouble, format!("{trouble:?}"))
}

/// A scheduler, a clock, and when each node was last heard from.
struct Situation {
    scheduler: Scheduler,
    now: Instant,
    heard: Vec<Option<Instant>>,
    /// The fetches under way by node and start, and when they began.
    taken: HashMap<(NodeId, String), (Fetch, Instant)>,
}

/// What nodes do.
impl Situation {
    /// Nodes that have these hours and have listed them.
    fn new(hours_of: &[&[&str]]) -> Situation {
        Situation::with(policy(), hours_of)
    }

    fn with(policy: Policy, hours_of: &[&[&str]]) -> Situation {
        let mut s = Situation {
            scheduler: Scheduler::new(hours_of.len(), 1, 0, policy),
            now: Instant::now(),
            heard: vec![None; hours_of.len()],
            taken: HashMap::new(),
        };
        for (id, hours) in hours_of.iter().enumerate() {
            assert_eq!(s.next(id), Next::Do(Task::ListHours(0)));
            s.hours(id, hours);
        }
        s
    }

    fn hours(&mut self, id: NodeId, hours: &[&str]) {
        self.hear(id);
        let hours = hours.iter().map(|hour| hour.parse().unwrap());
        self.scheduler.hours_listed(id, 0, hours, self.now);
    }

    /// Nodes that all have one hour, with segments at these seconds.
    fn of_one_hour(policy: Policy, seconds_of: &[&[u8]]) -> Situation {
        let mut s = Situation::with(policy, &vec![&[HOUR][..]; seconds_of.len()]);
        for (id, seconds) in seconds_of.iter().enumerate() {
            s.list(id, HOUR, seconds);
        }
        s
    }

    fn next(&mut self, id: NodeId) -> Next {
        self.scheduler.next(id, self.now)
    }

    fn hear(&mut self, id: NodeId) {
        self.heard[id] = Some(self.now);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// This many seconds pass, in which the first node's workers ask for work again and again, and
    /// get none.
    #[track_caller]
    fn watch(&mut self, seconds: u64) {
        for _ in 0..4 * seconds {
            assert!(matches!(self.next(0), Next::Wait(_)));
            self.now += Duration::from_millis(250);
        }
    }

    /// A node begins to list an hour.
    #[track_caller]
    fn begin(&mut self, id: NodeId, hour: &str) -> (Option<Item>, Look) {
        match self.next(id) {
            Next::Do(Task::ListUnit { unit: of, after, look }) if of == unit(hour) => (after, look),
            other => panic!("{other:?} is not the listing of {hour}"),
        }
    }

    /// Ends a listing of these files. Returns what is not wanted of it, in short.
    fn end(&mut self, id: NodeId, hour: &str, items: &[Item]) -> Vec<String> {
        self.end_up_to(id, hour, items, None)
    }

    fn end_up_to(
        &mut self,
        id: NodeId,
        hour: &str,
        items: &[Item],
        up_to: Option<Item>,
    ) -> Vec<String> {
        self.hear(id);
        let unwanted = self.scheduler.listed(id, unit(hour), items.to_vec(), up_to, self.now);
        let in_short = unwanted.into_iter().map(|unwanted| match unwanted {
            Unwanted::Deleted(item) => format!("{} deleted", short(&item)),
            Unwanted::NearDuplicate(item, of) => {
                let of = of.split('-').nth(2).unwrap().split_once('/').unwrap().1.to_owned();
                format!("{} is {of}", short(&item))
            }
        });
        in_short.collect()
    }

    /// A node lists an hour with segments at these seconds.
    #[track_caller]
    fn list(&mut self, id: NodeId, hour: &str, seconds: &[u8]) {
        self.begin(id, hour);
        let items: Vec<Item> = seconds.iter().map(|second| segment(*second)).collect();
        assert_eq!(self.end(id, hour, &items), [""; 0]);
    }

    /// A node lists an hour again. Of the names that it is asked about, it still lists these.
    #[track_caller]
    fn list_again(&mut self, id: NodeId, hour: &str, still: &[Item]) {
        let Next::Do(Task::ListAgain { unit: of, names }) = self.next(id) else {
            panic!("no listing again")
        };
        assert_eq!(of, unit(hour));
        let still: Vec<Item> = still.iter().filter(|item| names.contains(*item)).cloned().collect();
        self.hear(id);
        self.scheduler.listed_again(id, of, &names, &still, self.now);
    }

    /// Takes the next file to fetch from a node, if there is one now. Returns its start.
    #[track_caller]
    fn take(&mut self, id: NodeId) -> Option<String> {
        match self.next(id) {
            Next::Do(Task::Fetch(fetch)) => {
                let start = short(&fetch.item).to_owned();
                self.taken.insert((id, start.clone()), (fetch, self.now));
                Some(start)
            }
            Next::Do(other) => panic!("expected no listing, got {other:?}"),
            Next::Wait(_) | Next::Finished => None,
        }
    }

    /// Takes any file.
    #[track_caller]
    fn takes_one(&mut self, id: NodeId) -> String {
        self.take(id).expect("there is something to fetch")
    }

    /// Takes these files in this order, and no others.
    #[track_caller]
    fn takes(&mut self, id: NodeId, starts: &[&str]) {
        let taken: Vec<String> = std::iter::from_fn(|| self.take(id)).collect();
        assert_eq!(taken, starts, "node {id}");
    }

    #[track_caller]
    fn fetch(&self, id: NodeId, start: &str) -> Fetch {
        let taken = self.taken.iter().find(|((node, of), _)| *node == id && of.starts_with(start));
        taken.expect("it is taken").1.0.clone()
    }

    #[track_caller]
    fn lands(&mut self, id: NodeId, start: &str) {
        self.hear(id);
        let fetch = self.fetch(id, start);
        self.scheduler.landed(id, &fetch, self.now);
    }

    /// The request for a file fails. It began when the file was taken.
    #[track_caller]
    fn fails(&mut self, id: NodeId, start: &str, trouble: Trouble) {
        let taken = self.taken.iter().find(|((node, of), _)| *node == id && of.starts_with(start));
        let (fetch, begun) = taken.expect("it is taken").1.clone();
        self.fail(id, &Task::Fetch(fetch), trouble, begun);
    }

    fn fail(&mut self, id: NodeId, task: &Task, trouble: Trouble, begun: Instant) {
        let heard = self.heard.clone();
        self.scheduler.failed(id, task, &error(trouble), &heard, begun, self.now);
    }

    fn verdicts(&mut self) -> Vec<String> {
        let verdicts = self.scheduler.take_verdicts().into_iter().map(|verdict| match verdict {
            Verdict::NodeGivenUp(id, GivenUp::Failed(why)) => format!("node {id} given up: {why}"),
            Verdict::NodeGivenUp(id, GivenUp::FailedInARow(n, why)) => {
                format!("node {id} given up after {n}: {why}")
            }
            Verdict::NodeBack(id) => format!("node {id} back"),
            Verdict::ListingFailed(id, _, why) => format!("node {id} listing failed: {why}"),
            Verdict::FileVanished(_, item) => format!("{} vanished", short(&item)),
            Verdict::WouldLand(_, mut files) => {
                self.scheduler.reported(files.len());
                files.sort_by(|one, other| one.item.cmp(&other.item));
                let files = files.iter().map(|file| {
                    let holders: Vec<NodeId> = file.holders.iter().collect();
                    format!("{} at {holders:?}", short(&file.item))
                });
                files.collect::<Vec<_>>().join(", ") + " would land"
            }
            Verdict::Deleted(_, nodes) => {
                format!("deleted at {:?}", nodes.iter().collect::<Vec<_>>())
            }
            Verdict::FileMissing(_, item, loss) => {
                let why = match loss {
                    Loss::Failed(id, why) => format!("node {id}: {why}"),
                    Loss::GivenUp(id) => format!("node {id} given up"),
                    Loss::Withheld(id) => format!("node {id} withholds it"),
                };
                format!("{} missing: {why}", short(&item))
            }
        });
        verdicts.collect()
    }

    /// The pass is over, with these verdicts.
    #[track_caller]
    fn is_over(&mut self, verdicts: &[&str]) {
        assert!(self.scheduler.is_finished());
        for id in 0..self.heard.len() {
            assert_eq!(self.next(id), Next::Finished);
        }
        assert_eq!(self.verdicts(), verdicts);
        let Counts { wanted, settled, to_list, .. } = self.scheduler.counts();
        assert_eq!((settled, to_list), (wanted, 0));
    }

    fn wanted(&self) -> u64 {
        self.scheduler.counts().wanted
    }
}
