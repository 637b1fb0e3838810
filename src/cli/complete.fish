
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
