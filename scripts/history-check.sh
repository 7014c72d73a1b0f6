#!/usr/bin/env bash
# Runs the snippets of docs/history.md with DuckDB, pandas and ClickHouse's engine on a folder made for it, and holds
# what they print against the page. Not part of `make test`: it downloads some 300 MB once, into target/.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/history-engines.sh)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo run --quiet --locked -p weir-store --example history-folder -- "$folder/server"
"$python" scripts/history-check.py "$folder/server" "$@"
