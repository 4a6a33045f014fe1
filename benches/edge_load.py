#!/usr/bin/env python3
"""Load on a running edge: 64 connections give contributions as fast as they are answered.

    stitchback value setup EDGE --corpus toy --encoder toy --cells 4 --group diaries
    stitchback value serve EDGE --epoch-seconds 0 --rate 100000 &
    pip install cryptography && python3 benches/edge_load.py http://127.0.0.1:8470 [PID] [CONTRIBUTIONS]

All messages are signed before the clock starts. Prints one JSON line: rate, refusals, latencies, and with PID the server's
memory before and after. `stitchback value audit` then counts what the journal holds.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
import urllib.request

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CONNECTIONS = 64
# Contributions of one account: more would spend its privacy budget.
EACH = 20


def seal(key, body):
    text = json.dumps(body, separators=(",", ":"))
    public = key.public_key().public_bytes_raw().hex()
    return {"account": public, "body": text, "signature": key.sign(b"sb/message/v1\n" + text.encode()).hex()}


def memory_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


def request(path, message, host):
    body = json.dumps(message).encode()
    return (f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n").encode() + body


async def exchange(reader, writer, data):
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length"))
    return int(head.split(b" ")[1]), await reader.readexactly(length)


async def main():
    base, pid = sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else None
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 20_000
    get = lambda path: json.load(urllib.request.urlopen(base + path))
    now, charter = get("/v1/epoch"), get("/v1/charter")
    group = charter["groups"][0]
    cells = len(group["centroids"]) // group["dim"] + 1
    host, port = base.split("//")[1].split(":")
    keys = [Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"load%d%d" % (i, os.getpid())).digest()) for i in range(CONNECTIONS * -(-count // (CONNECTIONS * EACH)))]
    catalogue = catalogue_hash(group)
    work = []
    for i in range(count):
        draw = hashlib.sha256(b"%d" % i).digest()
        body = {"kind": "contribute", "edge": now["edge"], "group": group["group"], "catalogue": catalogue,
                "epoch": now["epoch"], "nonce": draw[:16].hex(), "items": 1,
                "mechanism": {"epsilon_milli": 1000, "pipeline": "none", "sigma_ppm": 0, "members": 1, "release_epsilon_milli": 0},
                "cells": [4096 * (j == 0) + int.from_bytes(draw[j:j + 2], "big") % 4001 - 2000 for j in range(cells)],
                "release": [], "commitment": draw.hex()}
        work.append(request("/v1/contributions", seal(keys[i % CONNECTIONS + CONNECTIONS * (i // CONNECTIONS // EACH)], body), host))
    times, statuses = [], {}

    async def connection(k):
        reader, writer = await asyncio.open_connection(host, int(port))
        for key in keys[k::CONNECTIONS]:
            await exchange(reader, writer, request("/v1/register", seal(key, {"kind": "register", "edge": now["edge"]}), host))
        for data in work[k::CONNECTIONS]:
            begun = time.perf_counter()
            status, _ = await exchange(reader, writer, data)
            times.append(time.perf_counter() - begun)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    before = memory_mib(pid) if pid else None
    begun = time.perf_counter()
    await asyncio.gather(*(connection(k) for k in range(CONNECTIONS)))
    seconds = time.perf_counter() - begun
    times.sort()
    print(json.dumps({"contributions": count, "connections": CONNECTIONS, "per_s": round(count / seconds),
                      "statuses": statuses, "p50_ms": round(1e3 * times[len(times) // 2], 1),
                      "p99_ms": round(1e3 * times[len(times) * 99 // 100], 1),
                      "memory_mib": [round(before), round(memory_mib(pid))] if pid else None}))


def catalogue_hash(group):
    h = hashlib.sha256(b"sb/catalogue/v1")
    for text in (group["group"], group["encoder"]):
        h.update(len(text.encode()).to_bytes(8, "big") + text.encode())
    for n in (group["version"], group["dim"], len(group["centroids"]) // group["dim"]):
        h.update(n.to_bytes(8, "big"))
    for n in group["centre"] + [group["scale"], group["theta"]]:
        h.update(n.to_bytes(4, "big", signed=True))
    for n in group["centroids"]:
        h.update(n.to_bytes(2, "big", signed=True))
    return h.hexdigest()


asyncio.run(main())
