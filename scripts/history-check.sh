#!/usr/bin/env bash
# Runs the snippets of docs/history.md with DuckDB, pandas and ClickHouse's engine on a folder made for it, and holds
# what they print against the page. Not part of `make test`: it downloads some 300 MB once, into target/.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/history-venv
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import chdb, duckdb, pandas, pyarrow' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet duckdb==2.0.1 pandas==3.1.1 pyarrow==26.0.1 chdb-core==26.9.0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo run --quiet --locked -p weir-store --example history-folder -- "$folder/server"
"$venv/bin/python" scripts/history-check.py "$folder/server" "$@"
