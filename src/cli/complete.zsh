
# The function above knows the options. This one goes before it, for the words that NODE can be.

functions[_backfiller_options]=$functions[_backfiller]

# Completes the last of a list of nodes.
_backfiller_node() {
    local expl
    compset -P '*,'
    # The directory in NAME=DIR
    [[ $PREFIX == [^@/.][^/=]#=* ]] && compset -P '*='
    if compset -P '@'; then
        _files
    elif [[ $PREFIX == [/.]* ]]; then
        _files -/
    else
        _wanted nodes expl NODE compadd -S '' -- http:// https:// @ / ./ ../
    fi
}

_backfiller() {
    local -a before options arguments
    before=("${(@)words[2,CURRENT-1]}")
    while (( $#before )); do
        if _backfiller_takes_value "$before[1]"; then
            options+=("${(@)before[1,2]}")
            before=("${(@)before[3,-1]}")
        else
            if [[ $before[1] == -* ]]; then
                options+=("$before[1]")
            else
                arguments+=("$before[1]")
            fi
            shift before
        fi
    done
    if [[ $PREFIX == -* ]] || _backfiller_takes_value "$words[CURRENT-1]"; then
        # As if there were nothing but options: behind an HOUR, clap's function completes none.
        words=("$words[1]" "${options[@]}" "${(@)words[CURRENT,-1]}")
        CURRENT=$(( $#options + 2 ))
        _backfiller_options "$@"
    elif (( ! $#arguments )); then
        _backfiller_node
    else
        # The names of streams, and hours: there's nothing to choose from.
        return 1
    fi
}

# When this file is loaded as the function of its name, it is to complete at once.
if [[ $funcstack[1] == _backfiller ]]; then
    _backfiller "$@"
fi
