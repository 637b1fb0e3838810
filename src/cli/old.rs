//! The options of the Python service that did this work before: whoever still writes them is told
//! what to write now.

/// Options of the old service, and what does the same here.
pub(super) const OPTIONS: [(&str, &str); 11] = [
    ("--qualities", "VARIANT takes them, as in source,480p"),
    ("--variants", "VARIANT takes them, as in source,480p"),
    ("--start", "HOUR takes it, as in last:3, or 2018-11-10T05.. for all hours from one on"),
    ("--delete-old", "--delete-older-than 14d deletes old hours"),
    ("--run-once", "every run is one pass, and cron or a timer starts the next"),
    ("--static-nodes", "NODE takes them, as in a=http://a:1337,b=http://b:1337"),
    ("--node-file", "NODE takes it, as in @FILE"),
    ("--node-database", "psql can pipe the list into NODE @-"),
    ("--download-concurrency", "-j 5 does that, for each node"),
    ("--metrics-port", "--metrics-file FILE writes them for node_exporter"),
    ("--backdoor-port", "there is no counterpart; -vv and --stats show what a pass does"),
];

/// What does here what this argument did in the old service.
pub(super) fn counterpart(argument: &str) -> Option<String> {
    let (option, here) = OPTIONS.iter().find(|(option, _)| *option == argument)?;
    Some(format!("{option} is an option of the old service: here {here}"))
}
