
# The function above completes the options. This one runs before it and completes the arguments.

functions[_backfiller_options]=$functions[_backfiller]

# Completes the last of a list of nodes.
_backfiller_node() {
    compset -P '*,'
    # The directory in NAME=DIR
    [[ $PREFIX == [^@/.][^/=]#=* ]] && compset -P '*='
    if compset -P '@'; then
        _files
    elif [[ $PREFIX == [/.]* ]]; then
        _files -/
    else
        _backfiller_words NODE none -- http:// https:// @ / ./ ../
    fi
}

# Completes the last of a list of names or hours ($1 says which) to the other words.
_backfiller_name() {
    compset -P '*,'
    if compset -P '@'; then
        _files
    else
        _backfiller_words "$@" -- @
    fi
}

# Completes to these words, and to those after `--`, which expect more text.
_backfiller_words() {
    local expl result=1
    local -i last=$(( ${@[(i)--]} - 1 ))
    _wanted words expl "$1" compadd -- "${(@)@[2,last]}" && result=0
    _wanted words expl "$1" compadd -S '' -- "${(@)@[last+2,-1]}" && result=0
    return result
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
        # Drops the arguments: clap's function completes no options after an HOUR.
        words=("$words[1]" "${options[@]}" "${(@)words[CURRENT,-1]}")
        CURRENT=$(( $#options + 2 ))
        _backfiller_options "$@"
    else
        case $#arguments in
            0) _backfiller_node ;;
            1) _backfiller_name STREAM all ;;
            2) _backfiller_name VARIANT all chat ;;
            *) _backfiller_name HOUR all today yesterday last:3 last:24 ;;
        esac
    fi
}

# When zsh loads this file as the function of its name, it must complete at once.
if [[ $funcstack[1] == _backfiller ]]; then
    _backfiller "$@"
fi
