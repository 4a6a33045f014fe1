"""An encoder or a protection of yours as a program that stitchback can put on trial.

    # my_encoder.py
    from stitchback_plugin import serve
    serve("my-encoder", 384, lambda texts: model.encode(texts))      # any sequence of rows of 384 numbers

    # my_protection.py
    from stitchback_plugin import serve_protection
    def protect(rows, seed):                                         # rows: a list of arrays of floats
        rng = numpy.random.default_rng(seed)                         # all noise from the seed, none from elsewhere
        return numpy.array(rows) + rng.normal(0, 0.1, (len(rows), len(rows[0])))
    serve_protection("my-protection", protect)

    stitchback plugin check "python3 my_encoder.py"
    # and in a study:  [encode]  victim = "process:python3 my_encoder.py"
    #                  [[protect]]  pipeline = "process(command=python3 my_protection.py)"

Standard output belongs to the protocol: what you print goes to standard error instead. Needs nothing but Python.
"""

import array
import json
import random
import struct
import sys


def _exactly(stream, n):
    data = stream.read(n)
    if len(data) != n:
        sys.exit(0)
    return data


def _send(stream, header, payload=b""):
    header = json.dumps(header).encode()
    stream.write(struct.pack("<I", len(header)) + header + struct.pack("<Q", len(payload)) + payload)
    stream.flush()


def _answer(greeting, op, work):
    """Greets, then answers requests of kind `op` until standard input ends: `work` gives the rows, their count and length."""
    wire, sys.stdout = sys.stdout.buffer, sys.stderr
    _send(wire, {"proto": 1, **greeting})
    while True:
        (length,) = struct.unpack("<I", _exactly(sys.stdin.buffer, 4))
        header = json.loads(_exactly(sys.stdin.buffer, length))
        (length,) = struct.unpack("<Q", _exactly(sys.stdin.buffer, 8))
        payload = _exactly(sys.stdin.buffer, length)
        try:
            if header.get("op") != op:
                raise ValueError(f"unknown op {header.get('op')!r}")
            rows, n, dim = work(header, payload)
            flat = array.array("f")
            for row in rows:
                row = array.array("f", [float(value) for value in row])
                if len(row) != dim:
                    raise ValueError(f"a row of {len(row)} numbers instead of {dim}")
                flat.extend(row)
            if len(flat) != n * dim:
                raise ValueError(f"{len(flat) // dim} rows instead of {n}")
            if sys.byteorder == "big":
                flat.byteswap()
            _send(wire, {"ok": True, "rows": n, "dim": dim}, flat.tobytes())
        except Exception as error:  # the other side is told, and may go on
            _send(wire, {"ok": False, "error": f"{type(error).__name__}: {error}"})


def serve(name, dim, encode):
    """An encoder: `encode` gets a list of texts and gives a row of `dim` numbers for each."""

    def work(header, payload):
        texts = json.loads(payload)
        return encode(texts) if texts else [], len(texts), dim

    _answer({"name": name, "kind": "encoder", "dim": dim}, "encode", work)


def serve_protection(name, protect):
    """A protection: `protect` gets a list of rows and a seed and gives as many rows of the same length."""

    def work(header, payload):
        n, dim = header["rows"], header["dim"]
        flat = array.array("f", payload)
        if sys.byteorder == "big":
            flat.byteswap()
        rows = [flat[i * dim : (i + 1) * dim] for i in range(n)]
        return protect(rows, header["seed"]) if rows else [], n, dim

    _answer({"name": name, "kind": "protection"}, "protect", work)


def _demo(rows, seed):
    """Normal noise of standard deviation 0.1, to try the wiring."""
    draw = random.Random(seed).gauss
    return [[value + draw(0.0, 0.1) for value in row] for row in rows]


if __name__ == "__main__":
    if sys.argv[1:] == ["protection"]:
        serve_protection("demo", _demo)
    sys.exit("usage: python3 stitchback_plugin.py protection    (a demonstration; see the top of this file)")
