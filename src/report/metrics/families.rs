//! The metrics: their names, types and help texts. A misspelt name would be a metric that is never
//! written, so each is a constant.

use super::text::Family;

/// The type of a metric that only grows.
pub const COUNTER: &str = "counter";
/// The type of one that is set anew.
pub const GAUGE: &str = "gauge";

pub const SEGMENTS: &str = "segments_backfilled_total";
pub const MISMATCHES: &str = "hash_mismatches_total";
pub const ERRORS: &str = "backfill_errors_total";
pub const HOURS: &str = "hours_backfilled_total";
pub const DELETED: &str = "segments_deleted_total";
pub const LOG_MESSAGES: &str = "backfiller_log_messages_total";
pub const LOCKED_OUT: &str = "backfiller_locked_out_total";
pub const PASS_START: &str = "backfiller_pass_start_timestamp_seconds";
pub const PASS_DONE: &str = "backfiller_pass_files_done";
pub const PASS_WANTED: &str = "backfiller_pass_files_wanted";
pub const PASS_BYTES: &str = "backfiller_pass_bytes";
pub const LAST_START: &str = "backfiller_last_pass_start_timestamp_seconds";
pub const LAST_DURATION: &str = "backfiller_last_pass_duration_seconds";
pub const LAST_STATUS: &str = "backfiller_last_pass_status";
pub const LAST_SEGMENTS: &str = "backfiller_last_pass_segments";
pub const LAST_BYTES: &str = "backfiller_last_pass_bytes";
pub const LAST_FREE: &str = "backfiller_last_pass_free_bytes";
pub const LAST_SHORT_OF: &str = "backfiller_last_pass_short_of_bytes";
pub const LAST_NOT_DELETED: &str = "backfiller_last_pass_not_deleted";
pub const LAST_SUCCESS: &str = "backfiller_last_success_timestamp_seconds";
pub const MISSING: &str = "backfiller_missing_seconds";
pub const HOLES: &str = "backfiller_holes";
pub const NODE_LISTING: &str = "backfiller_node_listing_seconds";
pub const NODE_FETCH: &str = "backfiller_node_fetch_seconds";
pub const NODE_SEGMENTS: &str = "backfiller_node_segments";
pub const NODE_GIVEN_UP: &str = "backfiller_node_given_up";

/// Every metric, in the order of the file.
pub const FAMILIES: [Family; 26] = [
    (SEGMENTS, COUNTER, "Segments fetched from a node."),
    (MISMATCHES, COUNTER, "Segments for which a node sent wrong content."),
    (ERRORS, COUNTER, "Failed requests to a node, except 404s."),
    (HOURS, COUNTER, "Listings of an hour that were processed."),
    (DELETED, COUNTER, "Segments deleted because of their age."),
    (LOG_MESSAGES, COUNTER, "Messages written to standard error."),
    (LOCKED_OUT, COUNTER, "Passes that gave way to another one (--lock)."),
    (PASS_START, GAUGE, "When the current pass began."),
    (PASS_DONE, GAUGE, "Files that the current pass has fetched, or no node can provide."),
    (PASS_WANTED, GAUGE, "Files that the current pass wants, as far as it knows."),
    (PASS_BYTES, GAUGE, "Bytes that the current pass has fetched."),
    (LAST_START, GAUGE, "When the last pass began."),
    (LAST_DURATION, GAUGE, "How long the last pass took."),
    (LAST_STATUS, GAUGE, "The exit status of the last pass."),
    (LAST_SEGMENTS, GAUGE, "Files that the last pass fetched."),
    (LAST_BYTES, GAUGE, "Bytes that the last pass fetched."),
    (LAST_FREE, GAUGE, "Free space on the archive's disk when --min-free ended the last pass."),
    (LAST_SHORT_OF, GAUGE, "How much more free space the last pass would have needed to continue."),
    (
        LAST_NOT_DELETED,
        GAUGE,
        "Old hours that the last pass did not delete, by reason; 1 if it attempted no deletion.",
    ),
    (LAST_SUCCESS, GAUGE, "When the last pass with status 0 began."),
    (MISSING, GAUGE, "Total length of all holes in the selected hours, when last measured."),
    (HOLES, GAUGE, "Number of holes in the selected hours, when last measured."),
    (NODE_LISTING, GAUGE, "Total duration of a node's listings in the last pass."),
    (NODE_FETCH, GAUGE, "Total duration of fetches from a node in the last pass."),
    (NODE_SEGMENTS, GAUGE, "Files that a node provided in the last pass."),
    (NODE_GIVEN_UP, GAUGE, "Whether a node was given up in the last pass."),
];
