#!/usr/bin/env bash
# Holds a running server against its own /openapi.json with schemathesis: requests made from the schema and against it, each
# answer's status, type and body. Not part of `make test`: it downloads some 40 MB once, into target/. Settings and what is
# not asked are in scripts/schemathesis.toml; further words go to schemathesis (`--max-time 600`).
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$#" -gt 0 ] || set -- --max-time=120
venv=target/api-venv
if [ ! -x "$venv/bin/schemathesis" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet schemathesis==4.32.5
fi
folder=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi; rm -rf "$folder"' EXIT
# With rows: an empty answer has nothing to be wrong.
cargo run --quiet --locked -p weir-store --example history-folder -- "$folder/server"
cargo build --quiet --locked -p weir-cli
target/debug/weir server --data "$folder/server" --listen 127.0.0.1:0 --agents-listen 127.0.0.1:0 2>"$folder/log" &
server=$!
for _ in $(seq 300); do
    [ -f "$folder/server/server.json" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.2
done
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["http"])' "$folder/server/server.json")
# In a folder that goes: it leaves files where it is run.
root=$PWD
cd "$folder"
"$root/$venv/bin/schemathesis" --config-file "$root/scripts/schemathesis.toml" run "http://$address/openapi.json" --continue-on-failure "$@"
