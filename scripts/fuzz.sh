#!/usr/bin/env bash
# Every fuzz target of fuzz/ for so many seconds each, from the committed corpus. What is found stays in fuzz/artifacts;
# what is only new to the corpus stays in fuzz/found, so that the committed corpus remains small.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-120}
command -v cargo-fuzz > /dev/null || { echo 'cargo-fuzz is missing: cargo install cargo-fuzz' >&2; exit 1; }
rustup toolchain list | grep -q '^nightly' || { echo 'a nightly toolchain is missing: rustup toolchain install nightly' >&2; exit 1; }
for target in feed system_probe batch dns pods cri docker filter; do
  mkdir -p "fuzz/found/$target"
  echo "== $target, $seconds s"
  cargo +nightly fuzz run --fuzz-dir fuzz "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1
done
