
# What the options above leave: the words that NODE can be. Nothing else is a file.
complete -c backfiller -f
complete -c backfiller -n __backfiller_node_is_next -a '(__backfiller_node)'

# Whether the word at the cursor is NODE, for all before it are options and their values.
function __backfiller_node_is_next
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        if __backfiller_takes_value $words[1]
            set -q words[2]; or return 1
            set -e words[1]
        else if not string match -q -- '-*' $words[1]
            return 1
        end
        set -e words[1]
    end
    return 0
end

# The completions of the last of a list of nodes.
function __backfiller_node
    set -l word (commandline -ct)
    # The nodes before it, and the name in NAME=DIR, stay as they are.
    set -l kept (string match -r '^(?:.*,)?(?:[^@/.][^/=]*=)?@?' -- $word)
    set -l path (string replace -- "$kept" '' $word)
    if string match -q -- '*@' $kept
        # A command that has no completions of its own has those of any file.
        printf "$kept%s\n" (complete -C "__backfiller_no_such_command $path")
    else if string match -qr -- '^[/.]' $path
        printf "$kept%s\n" (__fish_complete_directories $path)
    else
        printf "$kept%s\n" http:// https:// @ / ./ ../
    end
end
