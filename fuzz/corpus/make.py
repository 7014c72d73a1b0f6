#!/usr/bin/env python3
"""Writes the corpus' hand-made seeds beside itself: small inputs that reach every part of a target. Values are made up."""
import datetime, json, os, shutil, struct

here = os.path.dirname(os.path.abspath(__file__))

def seed(target, name, content):
    os.makedirs(f"{here}/{target}", exist_ok=True)
    with open(f"{here}/{target}/{name}", "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())

# The feed.
row = {"pid": 14931, "type": 1, "family": 0, "net_ns": 4026532528, "source": "172.17.0.2", "dest": "172.17.0.5", "sport": 41515,
       "dport": 53, "direction": 2, "monotonic_sent_bytes": 3079, "last_sent_bytes": 0, "monotonic_recv_bytes": 5849,
       "last_recv_bytes": 0, "monotonic_retransmits": 3, "last_retransmits": 0, "last_update_epoch": 11457291007926789}
compact = lambda value: json.dumps(value, separators=(",", ":"))
seed("feed", "2019", compact({"connections": [row, {**row, "type": 0, "pid": 7, "conntrack": None}]}))
seed("feed", "2019-conntrack", compact({"connections": [{**row, "conntrack": {
    "repl_src_ip": "10.0.0.8", "repl_dst_ip": "10.0.0.7", "repl_src_port": 8080, "repl_dst_port": 40000}}]}))
weir = {**row, "type": 0, "cookie": 9, "generation": 1, "start_epoch": 5, "state": "established", "close_epoch": 9,
        "close_reason": "reset", "errno": 104, "cgroup_id": 4, "cgroup_path": "/a\\u002fb", "container_id": "eae2780ca502",
        "rtt_us": 7, "direction_certainty": "known", "process_name": "cu\"rl", "process_start": 3, "other_peer": True}
tuples = {"repl_src_ip": "10.0.0.8", "repl_dst_ip": "10.0.0.7", "repl_src_port": 1, "repl_dst_port": 2,
          "orig_src_ip": "10.0.0.7", "orig_dst_ip": "10.96.0.1", "orig_src_port": 2, "orig_dst_port": 3}
seed("feed", "weir", compact({
    "run_id": "00000000000000aa", "boot_id": "x", "monotonic_ns": 5, "connections": [weir, {"odd": [{}, "]"]}], "cursor": 3,
    "complete": False, "losses": {"walks_failed": 1}, "dns_cursor": 1,
    "translations": [{"type": 0, "conntrack": tuples, "seen_epoch": 4, "began": True}],
    "dns": [{"server": "10.0.0.10", "name": "a.b", "query_type": "A", "rcode": "noerror", "count": 1,
             "answers": [{"address": "1.2.3.4", "ttl": 30}]}]}))
seed("feed", "empty", '{"connections":null}')
seed("feed", "deltas", compact({"connections": [{"type": 0, "source": "::1", "dest": "fe80::1%eth0", "sport": 1, "dport": 2,
                                                 "last_sent_bytes": 5, "last_recv_bytes": 18446744073709551615}]}))

# system-probe: the fixture's two forms.
data = f"{here}/../../crates/agent/tests/data/system-probe"
for form in ["json", "pb"]:
    os.makedirs(f"{here}/system_probe", exist_ok=True)
    shutil.copy(f"{data}/connections.{form}", f"{here}/system_probe/{form}")
seed("system_probe", "small", '{"conns":[{"pid":1,"laddr":{"ip":"10.0.0.1","port":1},"raddr":{"ip":"10.0.0.2","port":2},'
     '"type":"udp","lastBytesSent":"5"}],"connTelemetryMap":{"perf_lost":"2"}}')

# Batches: protobuf, and the same in a zstd frame of one raw block.
def varint(n):
    out = b""
    while True:
        low, n = n & 127, n >> 7
        out += bytes([low | (128 if n else 0)])
        if not n:
            return out
num = lambda field, n: varint(field << 3) + varint(n)
blob = lambda field, b: varint(field << 3 | 2) + varint(len(b)) + b
address = lambda ip, port: blob(1, bytes(ip)) + num(2, port)
record = num(1, 1) + num(2, 42) + num(5, 0) + blob(6, address([10, 0, 0, 1], 40000)) + blob(7, address([10, 0, 0, 2], 80))
record += num(8, 2) + num(9, 2) + num(11, 5000) + num(12, 300) + num(14, 100) + num(20, 1_790_000_000_000_000_000)
record += blob(24, b"established") + varint(4 << 3 | 1) + struct.pack("<Q", 7)
fact = blob(1, b"pod") + blob(2, b"kubelet") + blob(3, b"u") + blob(4, b"10.0.0.1") + blob(5, b"web") + blob(6, b"shop")
fact += blob(11, blob(1, b"team") + blob(2, b"a"))
batch = num(1, 1) + blob(2, bytes(16)) + num(3, 7) + blob(4, b"n1") + blob(5, bytes(16)) + num(8, 5) + num(9, 9) + num(10, 1)
batch += blob(12, blob(1, b"weir") + blob(2, b"ok")) + blob(13, num(1, 4026532201) + num(2, 77) + blob(4, b"curl"))
batch += blob(14, record) + blob(15, blob(1, b"tracer") + blob(2, b"perf_lost") + num(3, 2)) + blob(16, fact)
batch += blob(17, num(1, 1) + num(2, 3)) + blob(20, blob(2, bytes([10, 0, 0, 10])) + blob(3, b"a.b") + num(6, 1))
seed("batch", "plain", batch)
assert len(batch) < 256 + 65536
size = b"\x20" + bytes([len(batch)]) if len(batch) < 256 else b"\x60" + struct.pack("<H", len(batch) - 256)
frame = b"\x28\xb5\x2f\xfd" + size + struct.pack("<I", 1 | len(batch) << 3)[:3] + batch
seed("batch", "zstd", frame)

# DNS: a question, and an answer over an alias.
name = lambda text: b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"
question = name("www.example.org") + struct.pack(">HH", 1, 1)
seed("dns", "question", struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + question)
answer = struct.pack(">6H", 7, 0x8180, 1, 3, 0, 0) + question
answer += b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 300, 6) + b"\x03cdn\xc0\x10"
answer += b"\xc0\x2d" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, 1])
answer += b"\xc0\x2d" + struct.pack(">HHIH", 28, 1, 60, 16) + bytes(range(16))
seed("dns", "answer", answer)
seed("dns", "nxdomain", struct.pack(">6H", 9, 0x8183, 1, 0, 0, 0) + question)

# Pods, runtimes and engines: parts of what was recorded for crates/discovery's tests, small enough for libFuzzer.
recorded = lambda path: json.load(open(f"{here}/../../crates/discovery/tests/data/{path}"))
for source in ["containerd2", "api"]:
    whole = recorded(f"pods/{source}.json")
    few = [pod for pod in whole["items"] if pod["metadata"]["name"].split("-")[0] in ("static", "hostnet", "crash", "tick")][:3]
    seed("pods", source, compact({**whole, "items": few}))
seed("pods", "empty", '{"kind":"PodList","items":null}')

text = lambda field, value: blob(field, str(value or "").encode()) if value else b""
number = lambda field, value: num(field, int(value)) if int(value or 0) > 0 else b""
pairs = lambda field, of: b"".join(blob(field, text(1, k) + text(2, v if isinstance(v, str) else compact(v))) for k, v in (of or {}).items())
def nanos(value):
    """Unix nanoseconds of a number or an RFC 3339 time."""
    value = str(value or 0)
    if value.isdigit():
        return int(value)
    whole, _, part = value.rstrip("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(whole + "+00:00").timestamp()
    return max(int(seconds), 0) * 1_000_000_000 + int(part.ljust(9, "0") if part else 0)
def metadata(of, with_uid):
    attempt = 4 if with_uid else 2
    return text(1, of.get("name")) + (text(2, of.get("uid")) + text(3, of.get("namespace")) if with_uid else b"") + number(attempt, of.get("attempt"))
enum = lambda names, value: names.index(value.split("_")[-1]) if value else 0
ready, running = ["READY", "NOTREADY"], ["CREATED", "RUNNING", "EXITED", "UNKNOWN"]
image = lambda of: text(1, of.get("image")) + text(18, of.get("userSpecifiedImage"))
def sandbox_status(of):
    network = of.get("network") or {}
    ips = text(1, network.get("ip")) + b"".join(blob(2, text(1, ip.get("ip"))) for ip in network.get("additionalIps") or [])
    mode = ["POD", "CONTAINER", "NODE", "TARGET"].index(of["linux"]["namespaces"]["options"].get("network", "POD"))
    linux = blob(1, blob(2, number(1, mode)))
    return (text(1, of["id"]) + blob(2, metadata(of["metadata"], True)) + number(3, enum(ready, of["state"]))
            + number(4, nanos(of["createdAt"])) + blob(5, ips) + blob(6, linux) + pairs(7, of.get("labels")) + pairs(8, of.get("annotations")))
def container_status(of):
    return (text(1, of["id"]) + blob(2, metadata(of["metadata"], False)) + number(3, enum(running, of["state"])) + number(4, nanos(of["createdAt"]))
            + number(5, nanos(of.get("startedAt"))) + number(6, nanos(of.get("finishedAt"))) + blob(8, image(of.get("image") or {}))
            + pairs(12, of.get("labels")) + pairs(13, of.get("annotations")))
def event(of):
    word = ["CREATED", "STARTED", "STOPPED", "DELETED"].index(of["containerEventType"].split("_")[1])
    sandbox = of.get("podSandboxStatus")
    return (text(1, of["containerId"]) + number(2, word) + number(3, nanos(of["createdAt"])) + (blob(4, sandbox_status(sandbox)) if sandbox else b"")
            + b"".join(blob(5, container_status(status)) for status in of.get("containersStatuses") or []))
def lists(sandboxes, containers):
    of_sandbox = lambda of: (text(1, of["id"]) + blob(2, metadata(of["metadata"], True)) + number(3, enum(ready, of["state"]))
                             + number(4, nanos(of["createdAt"])) + pairs(5, of.get("labels")) + pairs(6, of.get("annotations")))
    of_container = lambda of: (text(1, of["id"]) + text(2, of["podSandboxId"]) + blob(3, metadata(of["metadata"], False))
                               + blob(4, image(of.get("image") or {})) + number(6, enum(running, of["state"])) + number(7, nanos(of["createdAt"]))
                               + pairs(8, of.get("labels")) + pairs(9, of.get("annotations")))
    return (blob(1, b"".join(blob(1, of_sandbox(of)) for of in sandboxes)) + blob(2, b"".join(blob(1, of_container(of)) for of in containers)))
step = lambda field, answer: blob(1, blob(field, answer))
for source in ["containerd-1.6", "containerd-2.3"]:
    told = recorded(f"cri/{source}.json")
    sandboxes = told["sandboxes"][:2]
    of = {sandbox["id"] for sandbox in sandboxes}
    containers = [container for container in told["containers"] if container["podSandboxId"] in of]
    ids = of | {container["id"] for container in containers}
    story = step(1, lists(sandboxes, containers))
    verbose = lambda status, field: blob(1, status(field["status"])) + blob(2, text(1, "info") + text(2, compact(field["info"])))
    for answer in told["sandboxStatus"]:
        if answer["status"]["id"] in of:
            story += step(2, verbose(sandbox_status, answer))
    for answer in told["containerStatus"]:
        if answer["status"]["id"] in ids:
            story += step(3, verbose(container_status, answer))
    events = [told_ for told_ in told.get("events") or [] if told_["containerId"] in ids][:6]
    for told_ in events:
        story += step(4, event(told_))
    story += step(1, lists(sandboxes[1:], containers))
    assert len(story) < 16384, len(story)
    seed("cri", source, story)

told = recorded("docker/engine-20.10.json")
inspections = [{key: value for key, value in one.items() if key in ("Id", "Created", "State", "Name", "HostConfig", "Config")}
               | {"NetworkSettings": {key: one["NetworkSettings"].get(key) for key in ("Ports", "Networks")}} for one in told["inspections"]]
lines = [told["containers"]] + inspections + told["events"]
seed("docker", "inspected", "\n".join(compact(line) for line in lines[:5]))
seed("docker", "events", "\n".join(compact(line) for line in
     [[{"Id": one["Id"], "State": one["State"]} for one in told["containers"]]] + told["events"][:6] + inspections[:2] + told["events"][6:]))
seed("docker", "nulls", '[{"Id":"ab","State":null}]\n{"Id":"ab","Config":null,"NetworkSettings":{"Ports":null}}\n'
     '{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"ab"}},"timeNano":5}')

# Filters.
seed("filter", "joined", 'namespace=shop and (port=443 or dst.workload~"pay*") and not certainty=unknown')
seed("filter", "quoted", 'name="a\\"b\\\\ c" or attribute:"a b"!=x or src.attribute:pod.team !~ *')
seed("filter", "numbers", "bytes>=10MiB and rtt_us<20ms and not (failures!=0 or connections<=18446744073709551615)")
seed("filter", "networks", "address=10.0.0.0/8 or not not dst.address!=fd00::1")
seed("filter", "others", "kind=pod and source=kubelet and id=u")
seed("filter", "wrong", "(name=a and bytes>1 or port=http")
