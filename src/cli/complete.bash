
# Adds what the generated function above can't do: it completes the arguments, and values after `=`,
# where bash starts a new word. Versions before 4.4, such as the one in macOS, do without.

# Counts the arguments among these words, leaving out options and their values.
_backfiller_count() {
    local count=0
    while (( $# )); do
        if _backfiller_takes_value "$1"; then
            (( $# > 1 )) && shift
        elif [[ $1 != -* ]]; then
            (( ++count ))
        fi
        shift
    done
    echo "$count"
}

# Completes paths that start with $3, by `compgen $2`, after the text $1. Directories get a slash.
_backfiller_paths() {
    local path paths
    # The word is as it was typed. Completions quote with backslashes, so only those are undone.
    mapfile -t paths < <(compgen "$2" -- "${3//\\/}")
    for path in "${paths[@]}"; do
        [[ -d $path ]] && path+=/
        COMPREPLY+=("$1$path")
    done
    compopt -o filenames +o default +o bashdefault
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == */ ]] && compopt -o nospace
}

# Completes the last of a list of nodes.
_backfiller_node() {
    local path=${1##*,}
    # The directory in NAME=DIR
    [[ $path == [!@/.]*=* && ${path%%=*} != */* ]] && path=${path#*=}
    path=${path#@}
    local kept=${1%"$path"}
    if [[ $kept == *@ ]]; then
        _backfiller_paths "$kept" -f "$path"
    elif [[ $path == [/.]* ]]; then
        _backfiller_paths "$kept" -d "$path"
    else
        _backfiller_words "$kept" "$path" 'none http:// https:// @ / ./ ../'
    fi
}

# Completes the last of a list of names or hours to the words in $2.
_backfiller_name() {
    local name=${1##*,}
    local kept=${1%"$name"}
    if [[ $name == @* ]]; then
        _backfiller_paths "$kept@" -f "${name#@}"
    else
        _backfiller_words "$kept" "$name" "$2 @"
    fi
}

# Completes $2 to the words in $3, after the text $1. Some of them expect more text.
_backfiller_words() {
    mapfile -t COMPREPLY < <(compgen -P "$1" -W "$3" -- "$2")
    compopt +o default +o bashdefault
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *[[:alnum:]] ]] || compopt -o nospace
}

_backfiller_complete() {
    local line=${COMP_LINE:0:COMP_POINT} words=() piece i
    # COMP_WORDS cuts words at `=`, `:` and `@`; here they are whole.
    for (( i = 0; i <= COMP_CWORD; i++ )); do
        if [[ $i == 0 || $line == [[:space:]]* ]]; then
            words+=("")
            line=${line#"${line%%[![:space:]]*}"}
        fi
        piece=${COMP_WORDS[i]}
        # The last one ends at the cursor.
        (( i < COMP_CWORD )) || piece=$line
        words[-1]+=$piece
        line=${line#"$piece"}
    done
    local word=${words[-1]} before= option=
    (( ${#words[@]} > 1 )) && before=${words[-2]}
    # The part of this word that bash keeps whatever it is completed to
    local fixed=${word%"$2"}
    # Where it completes a path as far as it is unique, bash quotes an @ before it.
    word=${word//\\@/@}

    COMPREPLY=()
    if [[ $word == --*=* ]]; then
        before=${word%%=*}
        option=$before=
        word=${word#*=}
    fi
    if [[ $before == -d || $before == --base-dir ]]; then
        _backfiller_paths "" -d "$word"
    elif _backfiller_takes_value "$before" || [[ $word == -* ]]; then
        # It takes the first word for an option, even if it is --option=value.
        local COMP_CWORD=2
        _backfiller "$1" "$word" "$before"
    else
        case $(_backfiller_count "${words[@]:1:${#words[@]}-2}") in
            0) _backfiller_node "$word" ;;
            1) _backfiller_name "$word" all ;;
            2) _backfiller_name "$word" 'all chat' ;;
            *) _backfiller_name "$word" 'all today yesterday last:3 last:24' ;;
        esac
    fi
    COMPREPLY=("${COMPREPLY[@]/#/"$option"}")
    COMPREPLY=("${COMPREPLY[@]#"$fixed"}")
}

if (( BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404 )); then
    complete -F _backfiller_complete -o nosort -o bashdefault -o default backfiller
fi
