
use builtin;
use str;

set edit:completion:arg-completer[backfiller] = {|@words|
    fn spaces {|n|
        builtin:repeat $n ' ' | str:join ''
    }
    fn cand {|text desc|
        edit:complex-candidate $text &display=$text' '(spaces (- 14 (wcswidth $text)))$desc
    }
    var command = 'backfiller'
    for word $words[1..-1] {
        if (str:has-prefix $word '-') {
            break
        }
        set command = $command';'$word
    }
    var completions = [
        &'backfiller'= {
            cand -d 'The archive to fill'
            cand --base-dir 'The archive to fill'
            cand --files-from 'Fetch exactly the files listed in this file, or on standard input (-)'
            cand -j 'Concurrent requests per node'
            cand --jobs 'Concurrent requests per node'
            cand --order 'The order in which to fetch the segments of an hour'
            cand --recent-cutoff 'Leave segments that started less than this ago to the downloader'
            cand --timeout 'How long a node may stay silent'
            cand --retries 'How often to retry a request that failed temporarily'
            cand --limit-rate 'Fetch at most this many bytes per second, from all nodes together'
            cand --max-segment-size 'Refuse segments larger than this'
            cand --localhost 'The name of the node that is this machine; it is skipped'
            cand --extras 'Also fill these directories of extra files, separated by commas'
            cand --delete-older-than 'After the pass, delete the segments of hours that ended longer ago than this'
            cand --min-free 'End the pass before less than this is free on the archive''s disk'
            cand --max-duration 'End the pass in order once it has taken this long'
            cand --jitter 'Wait for a random time of up to this long before the pass'
            cand --metrics-file 'Write metrics for Prometheus to this file'
            cand --report 'Write an HTML report of the pass to this file'
            cand --progress 'Show a progress bar: auto (on a terminal), always or never'
            cand --stats 'Print a status line at this interval, where there is no progress bar'
            cand --color 'Colour messages and maps: auto (on a terminal), always or never'
            cand --generate 'Print the manual page or a shell''s completions, and exit'
            cand --from0 'The paths in the list of --files-from end with NUL, as printed by --print0'
            cand -n 'Fetch nothing; print what would be fetched'
            cand --dry-run 'Fetch nothing; print what would be fetched'
            cand --verify 'Also check the selected segments that are here, and repair the corrupt ones'
            cand --lock 'If another pass with --lock is running on this archive, exit with 75 at once'
            cand --no-fsync 'Don''t flush to disk: faster, but a power cut may corrupt segments just written'
            cand -p 'Print the path of each segment once it has landed'
            cand --print 'Print the path of each segment once it has landed'
            cand -0 'Like --print, but end each path with NUL'
            cand --print0 'Like --print, but end each path with NUL'
            cand --json 'Print JSON Lines: one event per line as it happens, then a summary'
            cand --coverage 'After the pass, print a map of the selected hours: what is here and what is missing'
            cand --compare 'After the pass, print a table of who has what: the segments of each hour, here and at each node'
            cand --fail-on-holes 'Exit with 3 if holes remain in the selected hours'
            cand -q 'Print only errors'
            cand --quiet 'Print only errors'
            cand -v 'Print what is done and what is skipped, and why; twice: debug messages too'
            cand --verbose 'Print what is done and what is skipped, and why; twice: debug messages too'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
            cand -V 'Print version'
            cand --version 'Print version'
        }
    ]
    $completions[$command]
}
