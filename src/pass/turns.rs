//! Bounds how many listings are looked through at the same time.

use std::sync::{Condvar, Mutex};

use crate::lock::{lock, unpoisoned};

/// A number of turns. Whoever takes one waits until one is free.
#[derive(Debug)]
pub struct Turns {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// A turn, given back when it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Turns {
    pub fn new(count: usize) -> Turns {
        Turns { free: Mutex::new(count), given_back: Condvar::new() }
    }

    pub fn take(&self) -> Turn<'_> {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = unpoisoned(self.given_back.wait(free));
        }
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn no_more_turns_are_taken_than_there_are() {
        let (turns, taken, most) = (Turns::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = turns.take();
                        most.fetch_max(taken.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        taken.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(*lock(&turns.free), 2);
        assert!(most.into_inner() <= 2);
    }
}
