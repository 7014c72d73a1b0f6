#!/usr/bin/env bash
# What tracer and agent use of a node, and whether every connection is kept: at rest, at 2,000 and 10,000 connects/s, with
# 200,000 rows in the feed. About five minutes; `--quick` about two.
set -euo pipefail
cd "$(dirname "$0")/.."
footprint=target/release/weir-bench-footprint
overhead=target/release/weir-bench-overhead
rest=60 seconds=60 polls=3
if [ "${1:-}" = --quick ]; then
  rest=20 seconds=20 polls=1
fi
dirty=$(git status --porcelain --untracked-files=no | head -c1)
echo "commit $(git rev-parse --short HEAD)${dirty:+ with changes}; $(nproc) cores, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo); Linux $(uname -r); load $(cut -d' ' -f1-3 /proc/loadavg)"
status=0
"$footprint" rest --seconds "$rest" || status=1
for rate in 2000 10000; do
  "$overhead" kept --rate "$rate" --seconds "$seconds" || status=1
done
"$footprint" live --polls "$polls" || status=1
exit "$status"
