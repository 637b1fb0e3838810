_backfiller() {
    local i cur prev opts cmd
    COMPREPLY=()
    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
        cur="$2"
    else
        cur="${COMP_WORDS[COMP_CWORD]}"
    fi
    prev="$3"
    cmd=""
    opts=""

    for i in "${COMP_WORDS[@]:0:COMP_CWORD}"
    do
        case "${cmd},${i}" in
            ",$1")
                cmd="backfiller"
                ;;
            *)
                ;;
        esac
    done

    case "${cmd}" in
        backfiller)
            opts="-d -j -n -p -0 -q -v -h -V --base-dir --files-from --from0 --jobs --dry-run --order --recent-cutoff --timeout --retries --limit-rate --max-segment-size --localhost --extras --verify --delete-older-than --min-free --max-duration --jitter --lock --no-fsync --print --print0 --json --coverage --compare --fail-on-holes --metrics-file --report --progress --stats --color --quiet --verbose --generate --help --version"
            if [[ ${cur} == -* || ${COMP_CWORD} -eq 1 ]] ; then
                COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
                return 0
            fi
            case "${prev}" in
                --base-dir)
                    COMPREPLY=()
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o plusdirs
                    fi
                    return 0
                    ;;
                -d)
                    COMPREPLY=()
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o plusdirs
                    fi
                    return 0
                    ;;
                --files-from)
                    local oldifs
                    if [ -n "${IFS+x}" ]; then
                        oldifs="$IFS"
                    fi
                    IFS=$'\n'
                    COMPREPLY=($(compgen -f "${cur}"))
                    if [ -n "${oldifs+x}" ]; then
                        IFS="$oldifs"
                    fi
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o filenames
                    fi
                    return 0
                    ;;
                --jobs)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                -j)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --order)
                    COMPREPLY=($(compgen -W "random forward reverse" -- "${cur}"))
                    return 0
                    ;;
                --recent-cutoff)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --timeout)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --retries)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --limit-rate)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --max-segment-size)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --localhost)
                    COMPREPLY=($(compgen -f "${cur}"))
                    return 0
                    ;;
                --extras)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --delete-older-than)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --min-free)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --max-duration)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --jitter)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --metrics-file)
                    local oldifs
                    if [ -n "${IFS+x}" ]; then
                        oldifs="$IFS"
                    fi
                    IFS=$'\n'
                    COMPREPLY=($(compgen -f "${cur}"))
                    if [ -n "${oldifs+x}" ]; then
                        IFS="$oldifs"
                    fi
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o filenames
                    fi
                    return 0
                    ;;
                --report)
                    local oldifs
                    if [ -n "${IFS+x}" ]; then
                        oldifs="$IFS"
                    fi
                    IFS=$'\n'
                    COMPREPLY=($(compgen -f "${cur}"))
                    if [ -n "${oldifs+x}" ]; then
                        IFS="$oldifs"
                    fi
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o filenames
                    fi
                    return 0
                    ;;
                --progress)
                    COMPREPLY=($(compgen -W "auto always never" -- "${cur}"))
                    return 0
                    ;;
                --stats)
                    COMPREPLY=("${cur}")
                    if [[ "${BASH_VERSINFO[0]}" -ge 4 ]]; then
                        compopt -o nospace
                    fi
                    return 0
                    ;;
                --color)
                    COMPREPLY=($(compgen -W "auto always never" -- "${cur}"))
                    return 0
                    ;;
                --generate)
                    COMPREPLY=($(compgen -W "man complete-bash complete-zsh complete-fish complete-elvish complete-powershell" -- "${cur}"))
                    return 0
                    ;;
                *)
                    COMPREPLY=()
                    ;;
            esac
            COMPREPLY=( $(compgen -W "${opts}" -- "${cur}") )
            return 0
            ;;
    esac
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _backfiller -o nosort -o bashdefault -o default backfiller
else
    complete -F _backfiller -o bashdefault -o default backfiller
fi

_backfiller_takes_value() {
    case $1 in
        -d|--base-dir|--files-from|-j|--jobs|--order|--recent-cutoff|--timeout|--retries|--limit-rate|--max-segment-size|--localhost|--extras|--delete-older-than|--min-free|--max-duration|--jitter|--metrics-file|--report|--progress|--stats|--color|--generate) ;;
        *) return 1 ;;
    esac
}

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
