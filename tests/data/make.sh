#!/usr/bin/env bash
# Makes archive/ beside this script anew: a small segment archive of real media, for the tests.
#
# The stream `testcard` runs over the turn of an hour: the last 12 s of 2018-11-10T05 and the first
# 12 s of 2018-11-10T06, as 2 s segments of H.264 and AAC in the variants `source` and `160p`, and
# as `chat`. All segments are `full` but two of hour 06 in `source`: a `suspect` and a `partial`.
#
# Needs bash, ffmpeg with libx264, openssl, and coreutils. With the same ffmpeg and libx264 a second
# run makes the same files; with others the bytes differ, and with them the hashes in the names.
set -euo pipefail
umask 022
cd "$(dirname "$0")"

staged=.make
mkdir "$staged"
trap 'rm -rf "$staged"' EXIT
stream=$staged/archive/testcard

# hash FILE: its SHA-256 in URL-safe base64 without padding.
hash() {
    openssl dgst -sha256 -binary "$1" | base64 | tr '+/' '-_' | tr -d '='
}

# encode VARIANT SIZE FPS CRF AUDIO_BITRATE: 24 s of test card, cut into 12 files VARIANT-NN.ts.
# Each begins with a keyframe and its own program tables, so it plays alone; timestamps run on, so
# they also play joined. Sending the tables once a segment only saves room.
encode() {
    local keyframe_every=$((2 * $3))
    ffmpeg -nostdin -v error \
        -f lavfi -i "testsrc2=size=$2:rate=$3:duration=24" \
        -f lavfi -i "sine=frequency=440:beep_factor=4:sample_rate=48000:duration=24" \
        -c:v libx264 -preset veryslow -crf "$4" -pix_fmt yuv420p -bf 0 -threads 1 \
        -g $keyframe_every -keyint_min $keyframe_every -sc_threshold 0 \
        -c:a aac -b:a "$5" \
        -fflags +bitexact -flags:v +bitexact -flags:a +bitexact \
        -f segment -segment_time 2 -segment_format mpegts \
        -segment_format_options pat_period=2:sdt_period=2 \
        "$staged/$1-%02d.ts"
}

# video VARIANT HOUR FILE TIME DURATION TYPE: puts FILE in its place under its final name.
video() {
    local dir=$stream/$1/$2 sum
    sum=$(hash "$3")
    mkdir -p "$dir"
    mv "$3" "$dir/$4-$5-$6-$sum.ts"
}

# chat HOUR TIME: the same for the chat log on standard input.
chat() {
    local dir=$stream/chat/$1 sum
    cat >"$staged/chat.json"
    sum=$(hash "$staged/chat.json")
    mkdir -p "$dir"
    mv "$staged/chat.json" "$dir/$2-$sum.json"
}

# truncate_to_60_percent FILE: as a download that broke off leaves it, 1.2 s of the 2.
truncate_to_60_percent() {
    truncate -s $(($(wc -c <"$1") * 60 / 100)) "$1"
}

encode source 320x180 10 38 32k
encode 160p 284x160 5 44 16k
truncate_to_60_percent "$staged/source-11.ts"

for n in 00 01 02 03 04 05; do
    start=59:$((48 + 2 * 10#$n))
    video source 2018-11-10T05 "$staged/source-$n.ts" "$start.000000" 2.0 full
    video 160p 2018-11-10T05 "$staged/160p-$n.ts" "$start.000" 2.0 full
done
for n in 06 07 08 09 10 11; do
    start=00:$(printf %02d $((2 * 10#$n - 12)))
    case $n in
        09) duration=2.0 type=suspect ;;
        11) duration=1.2 type=partial ;;
        *) duration=2.0 type=full ;;
    esac
    video source 2018-11-10T06 "$staged/source-$n.ts" "$start.000000" $duration $type
    video 160p 2018-11-10T06 "$staged/160p-$n.ts" "$start.000" 2.0 full
done

chat 2018-11-10T05 57:00.000000 <<'JSON'
[
{"command":"JOIN","params":["#testcard"],"sender":"mira_knits","tags":null,"time":1541829423.5},
{"command":"PRIVMSG","params":["#testcard","good morning, test card"],"sender":"mira_knits","tags":{"color":"#1E90FF","display-name":"Mira_Knits","emotes":"","tmi-sent-ts":"1541829431250"},"time":1541829431.25}
]
JSON
chat 2018-11-10T05 58:00 <<'JSON'
[
{"command":"PRIVMSG","params":["#testcard","is that \"A\" at 440 Hz? 🚌🎶"],"sender":"busdriver7","tags":{"color":"","display-name":"BusDriver7","emotes":"","tmi-sent-ts":"1541829502004"},"time":1541829502.004}
]
JSON
chat 2018-11-10T05 59:00.000000 <<'JSON'
[
{"command":"PRIVMSG","params":["#testcard","hour's nearly up"],"sender":"mira_knits","tags":{"color":"#1E90FF","display-name":"Mira_Knits","emotes":"","tmi-sent-ts":"1541829590100"},"time":1541829590.1},
{"command":"PRIVMSG","params":["#testcard","3… 2… 1…"],"sender":"østen","tags":{"color":"#2E8B57","display-name":"Østen","emotes":"","tmi-sent-ts":"1541829597900"},"time":1541829597.9}
]
JSON
chat 2018-11-10T06 00:00.000000 <<'JSON'
[
{"command":"PRIVMSG","params":["#testcard","happy new hour! 🎉"],"sender":"busdriver7","tags":{"color":"","display-name":"BusDriver7","emotes":"","tmi-sent-ts":"1541829600000"},"time":1541829600.0},
{"command":"PRIVMSG","params":["#testcard","\u0001ACTION rings a bell\u0001"],"sender":"mira_knits","tags":{"color":"#1E90FF","display-name":"Mira_Knits","emotes":"","tmi-sent-ts":"1541829604321"},"time":1541829604.321}
]
JSON
chat 2018-11-10T06 01:00 <<'JSON'
[
{"command":"NOTICE","params":["#testcard","This room is now in slow mode."],"sender":"tmi.twitch.tv","tags":{"msg-id":"slow_on"},"time":1541829671.75}
]
JSON
chat 2018-11-10T06 02:00.000000 <<'JSON'
[
{"command":"PRIVMSG","params":["#testcard","they said \"back in 5\" \\o/"],"sender":"østen","tags":{"color":"#2E8B57","display-name":"Østen","emotes":"","tmi-sent-ts":"1541829725600"},"time":1541829725.6},
{"command":"PART","params":["#testcard"],"sender":"busdriver7","tags":null,"time":1541829740.0}
]
JSON

rm -rf archive
mv "$staged/archive" archive
