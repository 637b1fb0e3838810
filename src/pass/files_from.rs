//! A pass over a list of files (`--files-from`): selects them, and notes the outcome of each.

use std::sync::atomic::Ordering;

use super::Pass;
use crate::config::{FileList, split};
use crate::hour::Hour;
use crate::plan::Skip;
use crate::report::Event;
use crate::segment::Collection;
use crate::target::Target;

impl Pass {
    /// Whether an hour is selected and, if there is a list, contains a listed file.
    pub(super) fn is_selected(&self, collection: &Collection, hour: Hour) -> bool {
        let is_listed = |files: &FileList| files.has_any_in(&format!("{collection}/{hour}"));
        self.config.hours.contains(hour) && self.config.files.as_ref().is_none_or(is_listed)
    }

    /// Whether a name in a directory is listed; always true without a list.
    pub(super) fn is_listed(&self, dir: &str, name: &str) -> bool {
        self.config.files.as_ref().is_none_or(|files| files.has(dir, name))
    }

    /// Whether a file is listed; always true without a list.
    pub(super) fn is_listed_target(&self, target: &Target) -> bool {
        self.config.files.as_ref().is_none_or(|files| {
            let (dir, name) = split(target);
            files.has(&dir, &name)
        })
    }

    /// Notes that the outcome of this file is known, so that it is not reported as not found.
    pub(super) fn settle_listed(&self, target: &Target) {
        if let Some(files) = &self.config.files {
            let (dir, name) = split(target);
            files.settle(&dir, &name);
        }
    }

    /// Notes the outcome of a listed file.
    pub(super) fn note_listed(&self, event: &Event<'_>) {
        match event {
            Event::Landed { target, .. }
            | Event::WouldLand { target, .. }
            | Event::TombstoneCreated { target, .. }
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

    /// Reports the lines of the list that are invalid, or that no node has.
    pub(super) fn judge_list(&self) {
        let Some(files) = &self.config.files else {
            return;
        };
        for (path, why, line) in files.wrong() {
            self.not_found(path, None, why, &line);
        }
        // If no node answers, that is reported once, and not for each line.
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
        self.emit(Event::NotFound { text, path, why, line });
    }
}
