"""An encoder of yours as a program that stitchback can attack.

    # my_encoder.py
    from stitchback_plugin import serve
    serve("my-encoder", 384, lambda texts: model.encode(texts))      # any sequence of rows of 384 numbers

    stitchback plugin check "python3 my_encoder.py"
    # and in a study:  [encode]  victim = "process:python3 my_encoder.py"

Standard output belongs to the protocol: what you print goes to standard error instead. Needs nothing but Python.
"""

import array
import json
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


def serve(name, dim, encode):
    """Answers until standard input ends. `encode` gets a list of texts and gives a row of `dim` numbers for each."""
    wire, sys.stdout = sys.stdout.buffer, sys.stderr
    _send(wire, {"proto": 1, "name": name, "kind": "encoder", "dim": dim})
    while True:
        (length,) = struct.unpack("<I", _exactly(sys.stdin.buffer, 4))
        header = json.loads(_exactly(sys.stdin.buffer, length))
        (length,) = struct.unpack("<Q", _exactly(sys.stdin.buffer, 8))
        payload = _exactly(sys.stdin.buffer, length)
        try:
            if header.get("op") != "encode":
                raise ValueError(f"unknown op {header.get('op')!r}")
            texts = json.loads(payload)
            rows = array.array("f")
            for row in encode(texts) if texts else []:
                row = [float(value) for value in row]
                if len(row) != dim:
                    raise ValueError(f"a row of {len(row)} numbers instead of {dim}")
                rows.extend(row)
            if len(rows) != len(texts) * dim:
                raise ValueError(f"{len(rows) // dim} rows for {len(texts)} texts")
            if sys.byteorder == "big":
                rows.byteswap()
            _send(wire, {"ok": True, "rows": len(texts), "dim": dim}, rows.tobytes())
        except Exception as error:  # the other side is told, and may go on
            _send(wire, {"ok": False, "error": f"{type(error).__name__}: {error}"})
