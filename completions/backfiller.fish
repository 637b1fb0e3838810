complete -c backfiller -s d -l base-dir -d 'The archive to fill' -r -f -a "(__fish_complete_directories)"
complete -c backfiller -l files-from -d 'Fetch exactly the files listed in this file, or on standard input (-)' -r -F
complete -c backfiller -s j -l jobs -d 'Concurrent requests per node' -r -f
complete -c backfiller -l order -d 'The order in which to fetch the segments of an hour' -r -f -a "random\t'In random order'
forward\t'The earliest first'
reverse\t'The latest first'"
complete -c backfiller -l recent-cutoff -d 'Leave segments that started less than this ago to the downloader' -r -f
complete -c backfiller -l timeout -d 'How long a node may stay silent' -r -f
complete -c backfiller -l retries -d 'How often to retry a request that failed temporarily' -r -f
complete -c backfiller -l limit-rate -d 'Fetch at most this many bytes per second, from all nodes together' -r -f
complete -c backfiller -l max-segment-size -d 'Refuse segments larger than this' -r -f
complete -c backfiller -l localhost -d 'The name of the node that is this machine; it is skipped' -r -f -a "(__fish_print_hostnames)"
complete -c backfiller -l extras -d 'Also fill these directories of extra files, separated by commas' -r -f
complete -c backfiller -l delete-older-than -d 'After the pass, delete the segments of hours that ended longer ago than this' -r -f
complete -c backfiller -l min-free -d 'End the pass before less than this is free on the archive\'s disk' -r -f
complete -c backfiller -l max-duration -d 'End the pass in order once it has taken this long' -r -f
complete -c backfiller -l jitter -d 'Wait for a random time of up to this long before the pass' -r -f
complete -c backfiller -l metrics-file -d 'Write metrics for Prometheus to this file' -r -F
complete -c backfiller -l report -d 'Write an HTML report of the pass to this file' -r -F
complete -c backfiller -l progress -d 'Show a progress bar: auto (on a terminal), always or never' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c backfiller -l stats -d 'Print a status line at this interval, where there is no progress bar' -r -f
complete -c backfiller -l color -d 'Colour messages and maps: auto (on a terminal), always or never' -r -f -a "auto\t'On a terminal'
always\t'Always'
never\t'Never'"
complete -c backfiller -l generate -d 'Print the manual page or a shell\'s completions, and exit' -r -f -a "man\t'The manual page, for section 1'
complete-bash\t'Completions for bash'
complete-zsh\t'Completions for zsh'
complete-fish\t'Completions for fish'
complete-elvish\t'Completions for elvish'
complete-powershell\t'Completions for PowerShell'"
complete -c backfiller -l from0 -d 'The paths in the list of --files-from end with NUL, as printed by --print0'
complete -c backfiller -s n -l dry-run -d 'Fetch nothing; print what would be fetched'
complete -c backfiller -l verify -d 'Also check the selected segments that are here, and repair the corrupt ones'
complete -c backfiller -l lock -d 'If another pass with --lock is running on this archive, exit with 75 at once'
complete -c backfiller -l no-fsync -d 'Don\'t flush to disk: faster, but a power cut may corrupt segments just written'
complete -c backfiller -s p -l print -d 'Print the path of each segment once it has landed'
complete -c backfiller -s 0 -l print0 -d 'Like --print, but end each path with NUL'
complete -c backfiller -l json -d 'Print JSON Lines: one event per line as it happens, then a summary'
complete -c backfiller -l coverage -d 'After the pass, print a map of the selected hours: what is here and what is missing'
complete -c backfiller -l compare -d 'After the pass, print a table of who has what: the segments of each hour, here and at each node'
complete -c backfiller -l fail-on-holes -d 'Exit with 3 if holes remain in the selected hours'
complete -c backfiller -s q -l quiet -d 'Print only errors'
complete -c backfiller -s v -l verbose -d 'Print what is done and what is skipped, and why; twice: debug messages too'
complete -c backfiller -s h -l help -d 'Print help (see more with \'--help\')'
complete -c backfiller -s V -l version -d 'Print version'

function __backfiller_takes_value
    contains -- $argv[1] -d --base-dir --files-from -j --jobs --order --recent-cutoff --timeout --retries --limit-rate --max-segment-size --localhost --extras --delete-older-than --min-free --max-duration --jitter --metrics-file --report --progress --stats --color --generate
end

# Completes the arguments. Nothing else is a file.
complete -c backfiller -f
complete -c backfiller -n '__backfiller_is_next 0' -a '(__backfiller_node)'
complete -c backfiller -n '__backfiller_is_next 1' -a '(__backfiller_name all)'
complete -c backfiller -n '__backfiller_is_next 2' -a '(__backfiller_name all chat)'
complete -c backfiller -n '__backfiller_is_next 3' \
    -a '(__backfiller_name all today yesterday last:3 last:24)'

# Whether this many arguments are before the word at the cursor, not counting options and their
# values. 3 means 3 or more.
function __backfiller_is_next
    set -l words (commandline -opc)
    set -l count 0
    set -e words[1]
    while set -q words[1]
        if __backfiller_takes_value $words[1]
            set -q words[2]; or return 1
            set -e words[1]
        else if not string match -q -- '-*' $words[1]
            set count (math $count + 1)
        end
        set -e words[1]
    end
    test $count -eq $argv[1]; or test $argv[1] -eq 3 -a $count -gt 3
end

# Completes the last of a list of names or hours to these words.
function __backfiller_name
    set -l word (commandline -ct)
    set -l kept (string match -r '^(?:.*,)?@?' -- $word)
    if string match -q -- '*@' $kept
        set -l path (string replace -- "$kept" '' $word)
        printf "$kept%s\n" (complete -C "__backfiller_no_such_command $path")
    else
        printf "$kept%s\n" $argv @
    end
end

# Completes the last of a list of nodes.
function __backfiller_node
    set -l word (commandline -ct)
    # The nodes before it, and the name in NAME=DIR, stay as they are.
    set -l kept (string match -r '^(?:.*,)?(?:[^@/.][^/=]*=)?@?' -- $word)
    set -l path (string replace -- "$kept" '' $word)
    if string match -q -- '*@' $kept
        # For a command without completions, fish completes files.
        printf "$kept%s\n" (complete -C "__backfiller_no_such_command $path")
    else if string match -qr -- '^[/.]' $path
        printf "$kept%s\n" (__fish_complete_directories $path)
    else
        printf "$kept%s\n" none http:// https:// @ / ./ ../
    end
end
