//! The options of the Python service that did this work before. Someone who still types one gets its
//! counterpart in the error message.

/// Options of the old service, with their counterparts.
pub(super) const OPTIONS: [(&str, &str); 11] = [
    ("--qualities", "give the qualities as VARIANT, such as source,480p"),
    ("--variants", "give the variants as VARIANT, such as source,480p"),
    ("--start", "give HOUR, such as last:3, or 2018-11-10T05.. for all hours since then"),
    ("--delete-old", "use --delete-older-than 14d"),
    ("--run-once", "every run is one pass; use cron or a timer to start the next"),
    ("--static-nodes", "give the nodes as NODE, such as a=http://a:1337,b=http://b:1337"),
    ("--node-file", "give @FILE as NODE"),
    ("--node-database", "pipe the output of psql into a pass with @- as NODE"),
    ("--download-concurrency", "use -j 5, which counts for each node"),
    ("--metrics-port", "use --metrics-file FILE, which node_exporter serves"),
    ("--backdoor-port", "use -vv or --stats to see what a pass is doing"),
];

/// The counterpart of an option of the old service, as a message.
pub(super) fn counterpart(argument: &str) -> Option<String> {
    let (option, here) = OPTIONS.iter().find(|(option, _)| *option == argument)?;
    Some(format!("{option} is an option of the old service; here, {here}"))
}
