//! The threads that look through the listings that have arrived. There are few of them, however many
//! nodes there are, so few listings are unpacked at the same time. That also saves memory: the C
//! library keeps about one heap per thread, and returns little of it to the system.

use std::collections::VecDeque;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::lock::{lock, unpoisoned};

type Job = Box<dyn FnOnce() + Send>;

/// A number of readers, started when there is work for them.
pub struct Readers {
    most: usize,
    shared: Arc<Shared>,
}

/// What the readers share with those who have work for them.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The work to do, and who is there to do it.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    started: usize,
    idle: usize,
}

impl Readers {
    /// At most this many readers.
    pub fn new(most: usize) -> Readers {
        Readers { most, shared: Arc::default() }
    }

    /// Has a reader do this, and waits for it. If there is none and none can be started, the
    /// calling thread does it.
    pub fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = channel();
        let job = move || drop(done.send(job()));
        let here = {
            let mut queue = lock(&self.shared.queue);
            if queue.idle == 0 && queue.started < self.most {
                let shared = self.shared.clone();
                let reader = thread::Builder::new().name("reader".into());
                queue.started += usize::from(reader.spawn(move || shared.work()).is_ok());
            }
            match queue.started {
                0 => Some(job),
                _ => {
                    queue.jobs.push_back(Box::new(job));
                    None
                }
            }
        };
        match here {
            Some(job) => job(),
            None => self.shared.changed.notify_one(),
        }
        result.recv().expect("a job sends its result")
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let job = loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                queue.idle += 1;
                queue = unpoisoned(self.changed.wait(queue));
                queue.idle -= 1;
            };
            drop(queue);
            job();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn no_more_jobs_run_at_a_time_than_there_are_readers() {
        let readers = Readers::new(2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let results = thread::scope(|scope| {
            let asking = (0..8).map(|n| {
                let (readers, running, most) = (&readers, running.clone(), most.clone());
                scope.spawn(move || {
                    readers.run(move || {
                        most.fetch_max(
                            running.fetch_add(1, Ordering::SeqCst) + 1,
                            Ordering::SeqCst,
                        );
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        n
                    })
                })
            });
            let asking: Vec<_> = asking.collect();
            asking.into_iter().map(|asks| asks.join().unwrap()).collect::<Vec<usize>>()
        });
        assert_eq!(results, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn without_a_reader_the_caller_does_the_job() {
        let caller = thread::current().id();
        assert_eq!(Readers::new(0).run(|| thread::current().id()), caller);
    }
}
