#!/usr/bin/env bash
# Plays the whole matrix of traffic as root and writes docs/accuracy.md. Fails on one byte that nothing explains.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
  echo "accuracy needs root, for eBPF and for network namespaces: sudo make accuracy" >&2
  exit 1
fi
cargo build --workspace --bins --locked --quiet
exec target/debug/weir-accuracy --out docs/accuracy.md "$@"
