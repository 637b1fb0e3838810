//! A pass over the files of a list (`--files-from`): which of them are wanted, and what became of
//! each.

use std::sync::atomic::Ordering;

use super::Pass;
use crate::config::{FileList, split};
use crate::hour::Hour;
use crate::plan::Skip;
use crate::report::Event;
use crate::segment::Collection;
use crate::target::Target;

impl Pass {
    /// Whether an hour is selected, and a file of it listed if there is a list.
    pub(super) fn is_selected(&self, collection: &Collection, hour: Hour) -> bool {
        let is_listed = |files: &FileList| files.has_any_in(&format!("{collection}/{hour}"));
        self.config.hours.contains(hour) && self.config.files.as_ref().is_none_or(is_listed)
    }

    /// Whether a name in a directory is listed, or there is no list.
    pub(super) fn is_listed(&self, dir: &str, name: &str) -> bool {
        self.config.files.as_ref().is_none_or(|files| files.has(dir, name))
    }

    /// Whether a file is listed, or there is no list.
    pub(super) fn is_target(&self, target: &Target) -> bool {
        self.config.files.as_ref().is_none_or(|files| {
            let (dir, name) = split(target);
            files.has(&dir, &name)
        })
    }

    /// Nothing more is to be said of this file.
    pub(super) fn settle_listed(&self, target: &Target) {
        if let Some(files) = &self.config.files {
            let (dir, name) = split(target);
            files.settle(&dir, &name);
        }
    }

    /// Notes what became of a listed file.
    pub(super) fn note_listed(&self, event: &Event<'_>) {
        match event {
            Event::Landed { target, .. }
            | Event::WouldLand { target, .. }
            | Event::Buried { target, .. }
            | Event::Dropped { target, .. }
            | Event::FileFailed { target, .. } => self.settle_listed(target),
            Event::Skipped {
                directory,
                name: Some(name),
                why: Skip::Recent | Skip::Tombstoned | Skip::NearDuplicate(_),
                ..
            } => {
                if let Some(files) = &self.config.files {
                    files.settle(&directory.to_string(), name);
                }
            }
            _ => {}
        }
    }

    /// Reports the lines of the list that nothing came of.
    pub(super) fn judge_list(&self) {
        let Some(files) = &self.config.files else {
            return;
        };
        for (path, why, line) in files.wrong() {
            self.not_found(path, None, why, &line);
        }
        // That nobody answers is reported as a whole.
        if !self.nodes.is_empty() && !self.scheduler().undone(|_| true).any_answered {
            return;
        }
        for (target, line) in files.unsettled() {
            let is_good = self.archive.has(&target) && !self.here.is_corrupt(&target);
            if !is_good && !self.archive.forbids(&target) {
                let path = target.path();
                self.not_found(&path, Some(&path), "no node that answered has it", &line);
            }
        }
    }

    fn not_found(&self, text: &str, path: Option<&str>, why: &str, line: &str) {
        self.missing.fetch_add(1, Ordering::Relaxed);
        self.tell(Event::NotFound { text, path, why, line });
    }
}
