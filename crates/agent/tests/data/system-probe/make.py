#!/usr/bin/env python3
"""Writes connections.json and connections.pb beside itself: one hand-made reply of a system-probe in both forms.

Field numbers and names are those of the public proto/process/connections.proto; the values are made up. The encoder here
shares nothing with the decoders that are tested with it. Run it again after a change; both files are committed.
"""
import json, os

def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while True:
        low, n = n & 127, n >> 7
        out += bytes([low | (128 if n else 0)])
        if not n:
            return out

def num(field, n): return varint(field << 3) + varint(n)
def blob(field, b): return varint(field << 3 | 2) + varint(len(b)) + b
def text(field, s): return blob(field, s.encode())

def addr(ip, port, container=""):
    return {"ip": ip, "port": port, "containerId": container}

def addr_pb(a):
    return text(2, a["ip"]) + num(3, a["port"]) + (text(5, a["containerId"]) if a["containerId"] else b"")

KINDS = ["tcp", "udp"]
FAMILIES = ["v4", "v6"]
DIRECTIONS = ["unspecified", "incoming", "outgoing", "local", "none"]

def conn(pid, l, r, kind="tcp", family="v4", direction="outgoing", sent=0, recv=0, retransmits=0, netns=4026532201,
         translation=None, rtt=0, established=0, closed=0, failures=None, extra=b""):
    j = {"pid": pid, "laddr": l, "raddr": r, "family": family, "type": kind, "lastBytesSent": str(sent),
         "lastBytesReceived": str(recv), "lastRetransmits": retransmits, "direction": direction, "netNS": netns,
         "ipTranslation": translation and dict(zip(["replSrcIP", "replDstIP", "replSrcPort", "replDstPort"], translation)),
         "rtt": rtt, "rttVar": 0, "intraHost": False, "dnsSuccessfulResponses": 0, "dnsCountByRcode": {},
         "lastTcpEstablished": established, "lastTcpClosed": closed, "routeIdx": -1, "lastPacketsSent": "3",
         "tags": [0, 2], "protocol": {"stack": ["protocolHTTP"]}, "httpAggregations": "AAECAw==",
         "tcpFailuresByErrCode": {str(k): v for k, v in (failures or {}).items()}}
    p = num(1, pid) + blob(5, addr_pb(l)) + blob(6, addr_pb(r)) + num(10, FAMILIES.index(family))
    p += num(11, KINDS.index(kind)) + num(16, sent) + num(17, recv) + num(18, retransmits)
    p += num(19, DIRECTIONS.index(direction)) + num(20, netns)
    if translation:
        p += blob(21, text(1, translation[0]) + text(2, translation[1]) + num(3, translation[2]) + num(4, translation[3]))
    p += num(22, rtt) + num(30, established) + num(31, closed) + num(36, -1)
    p += blob(37, bytes(range(4)))                  # httpAggregations
    p += num(44, 0) + num(44, 2)                    # tags, unpacked
    p += blob(44, varint(0) + varint(2))            # tags, packed
    p += blob(48, blob(1, varint(2)))               # protocol
    for errno, count in (failures or {}).items():
        p += blob(52, num(1, errno) + num(2, count))
    return j, blob(1, p + extra)

ID = "eae2780ca50271940c642eb532ec85cc6898c7a9a9512f7a41a0dcdcd2708860"
rows = [
    conn(101, addr("10.244.0.7", 40000, ID), addr("10.96.0.9", 80), sent=2**40, recv=7, retransmits=2, rtt=350, established=1,
         translation=("10.244.0.8", "10.244.0.7", 8080, 40000)),
    conn(102, addr("10.244.0.8", 8080), addr("10.244.0.7", 40000), direction="incoming", sent=7, recv=2**40, established=1,
         closed=1),
    conn(103, addr("2001:db8::1", 5353), addr("2001:db8::2", 53), kind="udp", family="v6", direction="none", sent=40, recv=90),
    conn(104, addr("::ffff:10.0.0.1", 40001), addr("::ffff:10.0.0.2", 443), family="v6", sent=1),
    conn(105, addr("10.0.0.1", 40002), addr("10.0.0.3", 81), failures={111: 3, 110: 1}),
    conn(106, addr("10.0.0.1", 40003), addr("10.0.0.4", 82), sent=5, closed=1, translation=("nowhere", "10.0.0.1", 1, 2)),
    # Refused: an address that is none, a port that is none.
    conn(107, addr("tomorrow", 1), addr("10.0.0.4", 82), sent=5),
    conn(108, addr("10.0.0.1", 70000), addr("10.0.0.4", 82), sent=5),
]
telemetry = {"closed_conn_dropped": 4, "kprobes_triggered": 1000, "perf_lost": 0}
entry = lambda k, v: blob(9, text(1, k) + num(2, v))

here = os.path.dirname(os.path.abspath(__file__))
body = {"conns": [j for j, _ in rows],
        "dns": {"10.0.0.2": {"names": ["a \"quoted\" }, name"]}}, "connTelemetry": None, "domains": ["x"], "routes": [],
        "compilationTelemetryByAsset": {}, "agentConfiguration": {"npmEnabled": True}, "tags": ["a", "b", "c"],
        "connTelemetryMap": {k: str(v) for k, v in telemetry.items()}, "kernelHeaderFetchResult": "FetchNotAttempted"}
# Numbers instead of names and strings are taken, too, and unknown fields are skipped.
body["conns"][1].update({"type": 0, "direction": 1, "lastBytesSent": 7, "isLocalPortEphemeral": "ephemeralFalse", "new": [{}]})
with open(f"{here}/connections.json", "w") as f:
    json.dump(body, f, indent=1)
    f.write("\n")
pb = b"".join(p for _, p in rows)
pb += blob(2, text(1, "10.0.0.2") + blob(2, text(1, "a name")))
pb += text(4, "x") + blob(7, num(1, 1)) + text(8, "a") + text(8, "b") + text(8, "c")
pb += b"".join(entry(k, v) for k, v in telemetry.items())
pb += num(11, 1) + varint(60 << 3 | 1) + bytes(8) + varint(61 << 3 | 5) + bytes(4)
with open(f"{here}/connections.pb", "wb") as f:
    f.write(pb)
