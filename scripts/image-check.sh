#!/usr/bin/env bash
# Proves the image with a Docker engine of its own, started here as root and removed again: it builds without any registry,
# holds three files, runs as an ordinary user; server, tracer and agent work together under what deploy/kubernetes gives
# them. Called by `scripts/image.sh --check` with the folder of the programs and the image's name.
set -euo pipefail
stage=$1 image=$2
manifest=deploy/kubernetes/base/node.yaml
[ "$(id -u)" -eq 0 ] || { echo "the check needs root: a Docker engine, and eBPF" >&2; exit 1; }

folder=$(mktemp -d /tmp/weir-image.XXXXXX)
export DOCKER_HOST=unix://$folder/docker.sock
engine= tracer=
# Also after Ctrl-C: no container, no engine, no mount stays.
clean() {
  trap - EXIT
  status=${1:-1}
  if [ -n "$engine" ]; then
    containers=$(docker ps --all --quiet 2>/dev/null) || containers=
    # shellcheck disable=SC2086 # one word a container
    [ -z "$containers" ] || docker rm --force --volumes $containers >/dev/null 2>&1 || true
    [ -z "$tracer" ] || runc --root "$folder/runc" delete --force "$tracer" 2>/dev/null || true
    kill "$engine" 2>/dev/null && wait "$engine" 2>/dev/null || true
  fi
  awk -v below="$folder/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do
    umount --lazy "$mount" || true
  done
  [ "$status" -eq 0 ] || tail -20 "$folder/engine.log" >&2 || true
  rm -rf "$folder"
  exit "$status"
}
trap 'clean $?' EXIT
trap 'exit 130' INT TERM

until_true() {
  local what=$1 left=300
  shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    if [ "$left" -eq 0 ]; then
      echo "FAILED: $what" >&2
      docker ps --all >&2
      tail -20 "$folder/tracer.log" >&2 || true
      for name in server agent; do docker logs --tail 20 "$name" 2>&1 | sed "s/^/$name: /" >&2 || true; done
      exit 1
    fi
    sleep 0.1
  done
  echo "ok: $what"
}

dockerd --host "$DOCKER_HOST" --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
  --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$folder/engine.log" 2>&1 &
engine=$!
until_true "the engine answers" docker info

docker build --quiet --tag "$image" "$stage" >/dev/null
echo "ok: the image is built; $(docker image inspect --format '{{.Size}}' "$image") bytes"

held=$(docker create "$image")
files=$(docker export "$held" | tar -tf - | grep -v '/$' | grep -Ev '^(\.dockerenv|dev/console|etc/(hostname|hosts|mtab|resolv\.conf))$' | sort | xargs)
docker rm "$held" >/dev/null
[ "$files" = "weir weir-agent weir-tracer" ] || { echo "FAILED: the image holds $files" >&2; exit 1; }
echo "ok: it holds $files"

for program in weir weir-agent weir-tracer; do
  docker run --rm --network none --read-only --entrypoint "/$program" "$image" --version
done

# As in deploy/kubernetes/base: users, groups, capabilities, mounts. Docker 20.10 knows no CAP_BPF, so the tracer's container
# is made with runc from the image's files, as containerd makes it, under the seccomp profile that this containerd has for
# these capabilities.
plain=(--read-only --cap-drop ALL --security-opt no-new-privileges)
group=$(sed -n 's/.*fsGroup: //p' $manifest)
capabilities=$(sed -n 's/.* add: \[\(.*\)\]/\1/p' $manifest | tr -d ,)
mkdir "$folder/run" "$folder/spool" "$folder/server" "$folder/secret"
# As the kubelet makes an emptyDir with an fsGroup, and a hostPath.
chgrp "$group" "$folder/run" && chmod 2777 "$folder/run"
chmod 755 "$folder/spool"
chown "$group:$group" "$folder/server"
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$folder/secret/token"
chgrp -R "$group" "$folder/secret" && chmod 750 "$folder/secret" && chmod 640 "$folder/secret/token"

docker run --detach --name alone --network none "${plain[@]}" --mount "type=tmpfs,destination=/var/lib/weir,tmpfs-mode=1777" \
  --volume "$folder/secret:/etc/weir/readers:ro" "$image" server --listen 0.0.0.0:7780 --agents-listen 0.0.0.0:7781 \
  --token-file /etc/weir/readers/token >/dev/null
alone=$(docker inspect --format '{{.State.Pid}}' alone)
until_true "a server without any network but loopback answers /healthz" \
  nsenter --net --target "$alone" curl --silent --fail http://127.0.0.1:7780/healthz
until_true "and /readyz" nsenter --net --target "$alone" curl --silent --fail http://127.0.0.1:7780/readyz
[ "$(nsenter --net --target "$alone" curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1:7780/api/v1/status)" = 401 ]
echo "ok: it answers 401 to who has no token"
awk '/^Uid:/ {exit $2 == 65532 && $3 == 65532 ? 0 : 1}' "/proc/$alone/status"
awk '/^CapEff:/ {exit $2 == "0000000000000000" ? 0 : 1}' "/proc/$alone/status"
echo "ok: it runs as user 65532 without a capability"
docker rm --force alone >/dev/null

docker run --rm --network none --user 0:0 --group-add "$group" "${plain[@]}" --volume "$folder/spool:/var/lib/weir/agent" \
  --entrypoint /weir-agent "$image" --spool=/var/lib/weir/agent "--prepare-spool=$group" 2>/dev/null
[ "$(stat -c %g:%a "$folder/spool")" = "$group:2770" ]
echo "ok: root without a capability gives the spool's folder to group $group"

mkdir -p "$folder/tracer/rootfs"
held=$(docker create "$image")
docker export "$held" | tar -xf - -C "$folder/tracer/rootfs"
docker rm "$held" >/dev/null
(cd "$folder/tracer" && runc spec)
# dockerd brought a containerd along. A container that is made there, not started, shows the profile.
ctr=(ctr --address "$folder/exec/containerd/containerd.sock" --namespace profile)
docker save "$image" | "${ctr[@]}" images import - >/dev/null
usual=(CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE)
"${ctr[@]}" containers create --seccomp $(printf ' --cap-drop CAP_%s' "${usual[@]}") $(printf ' --cap-add CAP_%s' $capabilities) \
  "docker.io/library/$image" profile
"${ctr[@]}" containers info profile >"$folder/profile.json"
"${ctr[@]}" containers rm profile
node -e '
  const [file, profile, run, group, ...capabilities] = process.argv.slice(1);
  const fs = require("node:fs");
  const spec = JSON.parse(fs.readFileSync(file));
  spec.linux.seccomp = JSON.parse(fs.readFileSync(profile)).Spec.linux.seccomp;
  const held = capabilities.map((name) => `CAP_${name}`);
  spec.process = {
    ...spec.process, terminal: false, noNewPrivileges: true,
    args: ["/weir-tracer", "--socket=/run/weir/tracer.sock", `--socket-group=${group}`],
    user: { uid: 0, gid: 0, additionalGids: [Number(group)] },
    capabilities: { bounding: held, effective: held, permitted: held },
  };
  spec.root.readonly = true;
  const bind = (source, destination, ...options) => ({ type: "bind", source, destination, options: ["rbind", "rprivate", ...options] });
  // hostPID and hostNetwork; without a network namespace of its own a container has that of the host at /sys.
  spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== "pid" && type !== "network");
  spec.mounts = spec.mounts.filter(({ destination }) => !destination.startsWith("/sys"));
  spec.mounts.push(bind("/sys", "/sys", "ro"), bind("/sys/fs/cgroup", "/sys/fs/cgroup", "ro"), bind(run, "/run/weir"));
  fs.writeFileSync(file, JSON.stringify(spec));
' "$folder/tracer/config.json" "$folder/profile.json" "$folder/run" "$group" $capabilities
tracer=weir-image-check-$$
runc --root "$folder/runc" run --detach --bundle "$folder/tracer" --pid-file "$folder/tracer.pid" "$tracer" \
  </dev/null >"$folder/tracer.log" 2>&1
tracer_status() { curl --silent --fail --unix-socket "$folder/run/tracer.sock" http://weir/status; }
until_true "the tracer serves /status with exactly $capabilities" tracer_status
tracer_status | grep -Eo '"(mode|state)": *"[a-z]+"' | xargs echo "   "
tracer_status | grep -q '"mode": *"ebpf"' || { tracer_status >&2; echo "FAILED: no eBPF" >&2; exit 1; }

docker run --detach --name server --network host "${plain[@]}" --volume "$folder/server:/var/lib/weir" \
  --volume "$folder/secret:/etc/weir/readers:ro" "$image" server --data=/var/lib/weir --listen=127.0.0.1:0 \
  --agents-listen=127.0.0.1:0 --token-file=/etc/weir/readers/token >/dev/null
until_true "a server listens" test -s "$folder/server/server.json"
port() { sed "s/.*\"$1\":\"127.0.0.1:\([0-9]*\)\".*/\1/" "$folder/server/server.json"; }
docker run --detach --name agent --pid host --network host "${plain[@]}" --volume "$folder/run:/run/weir:ro" \
  --volume "$folder/spool:/var/lib/weir/agent" --volume "$folder/secret:/var/run/secrets/weir:ro" --entrypoint /weir-agent \
  "$image" --feed=unix:/run/weir/tracer.sock --spool=/var/lib/weir/agent "--server=http://localhost:$(port agents)" \
  --token-file=/var/run/secrets/weir/token --metrics-listen=127.0.0.1:0 --interval=1s >/dev/null

edges() {
  docker exec server /weir edges --by process --since 5m --server "http://127.0.0.1:$(port http)" \
    --token-file /etc/weir/readers/token -o json
}
# The agent's own delivery to the server: two programs of the image, by name, over a connection that the tracer saw.
sees_itself() { edges | tr -d ' \n' | grep -Eq '"client":\{[^}]*"name":"weir-agent"'; }
until_true "the edges have the agent's own connection to the server" sees_itself
awk '/^Uid:/ {exit $2 == 65532 ? 0 : 1}' "/proc/$(docker inspect --format '{{.State.Pid}}' agent)/status"
echo "ok: the agent runs as user 65532"
tracer_pid=$(cat "$folder/tracer.pid")
grep -E '^Cap(Eff|Bnd|Amb):' "/proc/$tracer_pid/status" | xargs echo "    tracer:"
for name in agent server; do
  docker stats --no-stream --format '    {{.Name}}: {{.MemUsage}}' "$name"
done
awk '/^VmRSS:/ {print "    tracer: " $2 " kB resident"}' "/proc/$tracer_pid/status"
# With the kernel's maps, as a limit counts it: memory of version 1, else version 2.
cgroup=$(awk -F: '$2 == "memory" {print "/sys/fs/cgroup/memory" $3 "/memory.usage_in_bytes"; found = 1}
  $2 == "" {two = "/sys/fs/cgroup" $3 "/memory.current"} END {if (!found) print two}' "/proc/$tracer_pid/cgroup")
[ ! -r "$cgroup" ] || echo "    tracer: $(cat "$cgroup") bytes in its cgroup"
