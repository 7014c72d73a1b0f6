#!/usr/bin/env bash
# Installs the Debian packages that are missing. Arguments: `build`, `test`, `demo`, `image`, `unzip`.
# Each line below: what must be there (a command or a file), then the package that brings it.
set -euo pipefail

build='
cc gcc
make make
clang clang
pkg-config pkg-config
/usr/include/libelf.h libelf-dev
/usr/include/zlib.h zlib1g-dev
node nodejs
npm npm
'
test='
chromium chromium
ip iproute2
dockerd docker.io
containerd containerd
runc runc
/usr/lib/cni/bridge containernetworking-plugins
busybox busybox-static
iptables iptables
etcd etcd-server
etcdctl etcd-client
/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 libfaketime
'
demo='
ip iproute2
nft nftables
iptables-restore iptables
conntrack conntrack
nsenter util-linux
sysctl procps
'

image='
dockerd docker.io
docker docker.io
readelf binutils
curl curl
nsenter util-linux
'
unzip='
unzip unzip
'

missing=()
for set in "$@"; do
  while read -r wanted package; do
    [ -n "$wanted" ] || continue
    case $wanted in
      /*) [ -e "$wanted" ] || missing+=("$package") ;;
      *) command -v "$wanted" >/dev/null || missing+=("$package") ;;
    esac
  done <<<"${!set}"
done
if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install the Rust toolchain (1.95 or newer) first" >&2
  exit 1
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}; install them with this system's package manager, then try again" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "missing: ${missing[*]}; run as root: apt-get update && apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
