#!/usr/bin/env bash
# Every test, the fast ones first. The closing line tells how many ran, failed and were skipped.
#
# A test that cannot run here prints a line `SKIP name: reason`; WEIR_FORBID_SKIPS=1 (CI sets it) makes that a failure.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0

# A build on a full disk fails anywhere and says nothing of use.
free_gb=$(($(df --output=avail -k . | tail -n 1) / 1048576))
if [ ! -d target/debug/deps ] && [ "$free_gb" -lt 15 ]; then
  echo "weir: a first build needs 14 GB here, and $free_gb GB are free; free some space if it fails" >&2
fi

step() {
  local title=$1
  shift
  printf '\n== %s\n' "$title"
  "$@" 2>&1 | tee -a "$log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || { status=1; printf '== failed: %s\n' "$title"; }
}

step 'formatting' cargo fmt --all --check
step 'the page: types' npm --prefix ui run --silent check
step 'the page: units' npm --prefix ui run --silent test
step 'lints' cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet
# With the tests: built alone, the binaries' dependencies would have other features and be built twice.
step 'binaries' cargo build --workspace --bins --tests --locked --quiet
step 'the page in Chromium' npm --prefix ui run --silent e2e
step 'units and promises' cargo test --workspace --locked --no-fail-fast --quiet -- --show-output

# cargo test: `test result: ok. 5 passed; 0 failed; 1 ignored; ...`; node's runner: `# pass 5`, `# fail 0`, `# skipped 0`
# (or the same behind an information sign).
read -r passed failed ignored < <(awk '
  /^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) p += $i; if ($(i+1) ~ /^failed/) f += $i; if ($(i+1) ~ /^ignored/) g += $i } }
  /^[^a-z]* pass [0-9]+$/ { p += $NF } /^[^a-z]* fail [0-9]+$/ { f += $NF } /^[^a-z]* skipped [0-9]+$/ { g += $NF }
  END { print p + 0, f + 0, g + 0 }' "$log")
skipped=$(grep -c '^SKIP ' "$log")
printf '\n'
# Again at the end, where a long log is cut off last: what failed said so thousands of lines before.
if [ "$status" -ne 0 ]; then
  awk '/^failures:$/ { on = 1; printed = 0 } on && printed++ < 120 { print substr($0, 1, 2000) } /^test result:/ { on = 0 }' "$log"
fi
if [ "$skipped" -gt 0 ]; then
  echo 'Skipped here:'
  grep '^SKIP ' "$log" | sed 's/^SKIP /  /'
fi
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
[ "$passed" -gt 0 ] || status=1
echo "weir: $((passed - skipped)) passed, $failed failed, $((skipped + ignored)) skipped"
exit "$status"
