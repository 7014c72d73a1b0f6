#!/usr/bin/env bash
# What a server takes in and how fast it answers, beside SQLite, DuckDB, ClickHouse's engine, etcd and ConfigMaps on the
# same rows: `bench-store.sh [store]`, 20 minutes and 10 GB of target/; `--quick`: a minute. `bench-store.sh growth`: 10 to
# 5,000 agents against one server, 6 minutes; `--quick`: one. `bench-store.sh api`: 50 readers at the same time of a server
# with as much history, 10 minutes and 1 GB; `--quick`: one.
set -euo pipefail
cd "$(dirname "$0")/.."
what=store quick=
for word in "$@"; do
    case "$word" in
        --quick) quick=1 ;;
        store | growth | api) what=$word ;;
        *) echo "bench-store.sh: $word is neither store, growth, api nor --quick" >&2; exit 2 ;;
    esac
done
bench=target/release/weir-bench-store
history=target/release/examples/bench-history
work=target/bench-store
dirty=$(git status --porcelain --untracked-files=no | head -c1)
echo "commit $(git rev-parse --short HEAD)${dirty:+ with changes}; $(nproc) cores, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo); Linux $(uname -r); load $(cut -d' ' -f1-3 /proc/loadavg)"
status=0

if [ "$what" = growth ]; then
    agents=10,100,1000,5000 batches=6
    [ -z "$quick" ] || agents=10,100 batches=2
    echo "== so many agents with 200 changed connections each in a window of 10 s, against one server each time"
    "$bench" paced --agents "$agents" --records 200 --batches "$batches" --every 10s || status=$?
    exit "$status"
fi

rows=21000000 days=7
[ -z "$quick" ] || rows=200000
mkdir -p "$work"

if [ "$what" = api ]; then
    lasts=60s agents=100 first=15s
    [ -z "$quick" ] || lasts=10s agents=10 first=2s
    trap 'rm -rf "$work/read"' EXIT
    rm -rf "$work/read"
    echo "== history of $rows rows over $days days, as the defaults keep it, and $agents agents that go on"
    "$history" fill "$work/read" "$rows" "$days"
    "$history" coarser "$work/read" 24 168
    for how in "--age-max 10 --stale-max 20 --pause 1s" "--age-max 10 --stale-max 20" "--age-max 10 --pause 1s" "--age-max 10" "--readers 1" "" "--all-different"; do
        echo "-- $how"
        # A copy each: what agents tell stays in the folder.
        rm -rf "$work/read/copy"
        mkdir -p "$work/read/copy"
        find "$work/read" -mindepth 1 -maxdepth 1 ! -name copy -exec cp -r {} "$work/read/copy/" \;
        # shellcheck disable=SC2086
        "$bench" read "$work/read/copy" --lasts "$lasts" --first "$first" --agents "$agents" $how || status=$?
    done
    exit "$status"
fi

runs=3 batches=20 agents=500
[ -z "$quick" ] || runs=1 batches=3 agents=50
etcd=
# Only what this script has made and started.
trap 'if [ -n "$etcd" ]; then kill "$etcd" 2>/dev/null; wait "$etcd" 2>/dev/null; fi; rm -rf "$work/etcd" "$work/history" "$work/engines"' EXIT
rm -rf "$work/etcd" "$work/history" "$work/engines"

# An ingest with more words, and a new etcd beside it.
with_etcd() {
    read -r client peer < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in held))')
    etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
        --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
        --initial-cluster "default=http://127.0.0.1:$peer" --quota-backend-bytes 4294967296 --logger zap --log-level error &
    etcd=$!
    "$bench" ingest "$@" -- --state etcd --etcd-endpoints "http://127.0.0.1:$client" || status=$?
    kill "$etcd" && wait "$etcd" || true
    etcd=
    rm -rf "$work/etcd"
}

echo "== ingest: 64 agents, batches of 2,000 records, as fast as it goes"
for _ in $(seq "$runs"); do
    "$bench" ingest --batches "$batches" || status=$?
done
echo "== the same, batches of 200"
"$bench" ingest --records 200 --batches "$((batches * 5))" || status=$?
echo "== $agents agents, a batch of 200 records a second each"
"$bench" paced --agents "$agents" --batches 20 --every 1s || status=$?

echo "== where the state is kept, in turns: 10 agents, batches of 200; etcd and the API server's stand-in on this machine"
for _ in $(seq "$runs"); do
    echo "-- in the folder alone"
    "$bench" ingest --agents 10 --records 200 --batches "$batches" || status=$?
    echo "-- in ConfigMaps, too"
    "$bench" ingest --agents 10 --records 200 --batches "$batches" --config-maps || status=$?
    if command -v etcd >/dev/null; then
        echo "-- in etcd, too"
        with_etcd --agents 10 --records 200 --batches "$batches"
    else
        echo "etcd is not measured: it is not installed"
    fi
done
if command -v etcd >/dev/null; then
    echo "== ingest with the state in etcd, too: 64 agents, batches of 2,000, as fast as it goes"
    with_etcd --batches "$((batches / 3))"
fi

echo "== history of $rows rows over $days days: written, settled, made coarser; the largest edges"
"$history" fill "$work/history" "$rows" "$days"
read -r until _ <"$work/history/until"
echo "-- all of it in rows of 10 s"
"$bench" top "$work/history" --until "$until" --sums "$work/sums.json" || status=$?
python=$(scripts/history-engines.sh)
for engine in duckdb-files clickhouse-files duckdb clickhouse sqlite; do
    nice -n 1 "$python" scripts/bench-store.py "$work/history" "$work/engines" "$work/sums.json" "$engine" || status=$?
    rm -rf "$work/engines"
done
echo "-- as the defaults have it: rows of 10 s for a day, then minutes"
"$history" coarser "$work/history" 24 168
"$bench" top "$work/history" --until "$until" || status=$?
echo "-- all of it in minutes"
"$history" coarser "$work/history" 0 168
"$bench" top "$work/history" --until "$until" || status=$?
echo "-- all of it in hours"
"$history" coarser "$work/history" 0 0
"$bench" top "$work/history" --until "$until" || status=$?
exit "$status"
