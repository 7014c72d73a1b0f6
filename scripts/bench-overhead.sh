#!/usr/bin/env bash
# What weir costs those whom it watches, and which connections it keeps: everything that bench/README.md says of overhead.
# About 20 minutes on an idle machine; `--quick` about 2. Other arguments go to `weir-bench-overhead ratios`.
set -euo pipefail
cd "$(dirname "$0")/.."
bench=target/release/weir-bench-overhead
seconds=30
for word in "$@"; do
  [ "$word" != --quick ] || seconds=10
done
"$bench" ratios --json target/bench-overhead.json "$@"
status=0
for rate in 2000 10000; do
  "$bench" kept --rate "$rate" --seconds "$seconds" || status=1
done
exit "$status"
