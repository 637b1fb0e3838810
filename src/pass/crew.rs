//! Counts the workers of a node. Another one is started once all of them are at work, up to
//! `--jobs`, so that a pass with little to do needs little memory.

/// The workers of a node.
#[derive(Debug)]
pub struct Crew {
    most: usize,
    started: usize,
    at_work: usize,
}

impl Crew {
    /// A crew whose first worker is being started, of at most this many.
    pub fn new(most: usize) -> Crew {
        Crew { most, started: 1, at_work: 0 }
    }

    /// Notes that a worker has a task. Returns whether another worker must be started.
    pub fn begin(&mut self) -> bool {
        self.at_work += 1;
        let is_short = self.at_work == self.started && self.started < self.most;
        self.started += usize::from(is_short);
        is_short
    }

    /// Notes that a worker has done its task.
    pub fn end(&mut self) {
        self.at_work -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_started_when_all_others_are_at_work() {
        let mut crew = Crew::new(3);
        assert!(crew.begin());
        crew.end();
        // The second one is idle.
        assert!(!crew.begin());
        assert!(crew.begin());
        assert!(!crew.begin());
    }
}
