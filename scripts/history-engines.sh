#!/usr/bin/env bash
# The engines that docs/history.md and `make bench-store` read segments with, in an environment of their own; prints its
# Python. Downloads some 300 MB once, into target/.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/history-venv
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import chdb, duckdb, pandas, pyarrow' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet duckdb==2.0.1 pandas==3.1.1 pyarrow==26.0.1 chdb-core==26.9.0
fi
echo "$venv/bin/python"
