#!/usr/bin/env bash
# Every benchmark, with what it was measured on. The figures that count are kept in bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
dirty=$(git status --porcelain --untracked-files=no | head -c1)
echo "commit $(git rev-parse --short HEAD)${dirty:+ with changes}; $(nproc) cores, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo); Linux $(uname -r); $(rustc --version)"
echo
echo '== feed decoding, attribution and windowing'
cargo bench --locked -p weir-agent --bench speed
echo
echo '== the agent with 100,000 connections in the feed'
cargo bench --locked -p weir-agent --bench footprint
echo
echo '== the inventory of a cluster of 5,000 nodes and 150,000 pods'
cargo bench --locked -p weir-inventory --bench cluster
