//! The files that a pass writes about itself: its metrics and its HTML report.

use std::path::Path;

use log::{Level, log};

use super::event::Event;
use super::figures::End;
use super::file::FileError;
use super::html::{self, Html};
use super::metrics::Metrics;
use crate::stop::Stop;

/// The requested files.
#[derive(Debug, Default)]
pub struct Files {
    /// `--metrics-file`
    pub metrics: Option<Metrics>,
    /// `--report`
    pub page: Option<Html>,
}

impl Files {
    /// Counts an event.
    pub fn count(&mut self, event: &Event<'_>) {
        if let Some(metrics) = &mut self.metrics {
            metrics.count(event);
        }
        if let Some(page) = &mut self.page {
            page.count(event);
        }
    }

    /// Writes the files at the end of a pass. May be called again if the outcome changes; a file
    /// that could not be written is not retried. Returns whether there was no local failure.
    pub fn write(&mut self, end: End<'_>, stop: &Stop) -> bool {
        let metrics = self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.write(end, stop));
        let page = self.page.as_ref();
        let page = page.map_or(Ok(()), |page| html::write(page.file(), &page.page(end), stop));
        self.keep_written(metrics, page)
    }

    /// Notes in the files that the pass did not start because another one holds the lock.
    pub fn write_locked_out(&mut self, end: End<'_>, stop: &Stop) {
        let metrics =
            self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.write_locked_out(stop));
        let page = self.page.as_ref().map_or(Ok(()), |page| page.write_locked_out(end, stop));
        self.keep_written(metrics, page);
    }

    /// Reports the files that were not written, and drops them.
    fn keep_written(
        &mut self,
        metrics: Result<(), FileError>,
        page: Result<(), FileError>,
    ) -> bool {
        let mut is_good = true;
        if let (Err(e), Some(failed)) = (&metrics, self.metrics.take_if(|_| metrics.is_err())) {
            is_good &= not_written("metrics file", failed.path(), e);
        }
        if let (Err(e), Some(failed)) = (&page, self.page.take_if(|_| page.is_err())) {
            is_good &= not_written("report", failed.file().path(), e);
        }
        is_good
    }
}

/// Reports a file that was not written. Returns whether the pass may still succeed: another
/// program's lock is not a local failure.
fn not_written(what: &str, path: &Path, error: &FileError) -> bool {
    let is_locked = matches!(error, FileError::Locked(_));
    let level = if is_locked { Level::Warn } else { Level::Error };
    log!(level, "writing the {what} {}: {error}", path.display());
    is_locked
}
