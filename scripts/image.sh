#!/usr/bin/env bash
# Builds the image: three static programs in an empty image. Needs a Docker engine that answers; `--check` starts one of
# its own (dockerd, as root, in a folder that is removed), builds there, and proves what docs/operations.md says of it.
#   IMAGE=weir:0.1.0 scripts/image.sh            build, with the engine at DOCKER_HOST or the machine's
#   scripts/image.sh --check                     build and check, with an engine of its own
set -euo pipefail
cd "$(dirname "$0")/.."
image=${IMAGE:-weir:0.1.0}
triple=$(rustc -vV | sed -n 's/^host: //p')
stage=target/image

# Static: glibc and libelf, zlib, libbpf. With --target, so that build scripts stay as they are.
LIBBPF_SYS_LIBRARY_PATH=$(pkg-config --variable=libdir libelf)
export LIBBPF_SYS_LIBRARY_PATH CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_RELEASE_DEBUG=false
RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$triple" --target-dir target/static \
  -p weir-cli -p weir-agent -p weir-tracer --bins --features weir-tracer/static
mkdir -p "$stage"
for program in weir weir-agent weir-tracer; do
  built=target/static/$triple/release/$program
  if readelf --program-headers "$built" | grep -q INTERP; then
    echo "$built is not static" >&2
    exit 1
  fi
  cp "$built" "$stage/"
done
cp deploy/image/Dockerfile "$stage/"
if [ "${1:-}" = --check ]; then
  exec scripts/image-check.sh "$stage" "$image"
fi
docker build --quiet --tag "$image" "$stage"
docker image inspect --format '{{.RepoTags}} {{.Size}} bytes' "$image"
