#!/bin/sh
# How soon is `orlop up` ready, and how much memory does it hold when nothing happens?
#
#   cargo build --release && benches/startup.sh [path of the binary] [options of `orlop up` …]
#
# Nodes are simulated: real ones are processes of their own.
# Ready is when /readyz answers 200 over TLS; the directory is new, so that certificates are made, too. A second start finds everything.
# Memory is the resident set ten seconds later. Needs curl.
set -eu
binary=${1:-target/release/orlop}
[ $# -gt 0 ] && shift
directory=$(mktemp -d)
port=${PORT:-16443}
process=
trap 'kill $process 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$directory"' EXIT

start() {
    began=$(date +%s%N)
    "$binary" up --runtime sim --data-dir "$directory" --listen "127.0.0.1:$port" "$@" >"$directory.log" 2>&1 &
    process=$!
    until [ "$(curl -sk -o /dev/null -w '%{http_code}' "https://127.0.0.1:$port/readyz")" = 200 ]; do
        kill -0 $process || { cat "$directory.log"; exit 1; }
        sleep 0.005
    done
    echo "$(( ($(date +%s%N) - began) / 1000000 )) ms from start to /readyz"
}

resident() {
    sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$process/status" | awk '{ printf "%.1f MB resident", $1 / 1000 }'
}

for run in new again again; do
    printf '%s: ' "$run"
    start "$@"
    if [ "$run" = new ]; then
        sleep 10
        echo "$run: $(resident) after ten seconds"
    fi
    kill $process
    wait $process 2>/dev/null || true
done
rm -f "$directory.log"
