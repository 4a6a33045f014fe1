#!/usr/bin/env python3
"""Checks a stitchback proof file with software that is not ours.

    pip install pycose==1.1.0 cbor2==5.6.5 cryptography
    python3 verify.py FILE.proof EDGE_PUBLIC_KEY

The receipt is opened by pycose (COSE_Sign1, EdDSA), the checkpoint by `cryptography`, the Merkle path by the recursion of
RFC 6962, written here a second time. Then every single bit of the receipt, and one bit of every hash, is flipped: all must fail.
Last run with pycose 1.1.0, cbor2 5.6.5 (6.x does not open what pycose 1.1.0 expects), cryptography 50.0.2, Python 3.
"""

import base64
import hashlib
import sys

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pycose.keys import OKPKey
from pycose.keys.curves import Ed25519
from pycose.messages import CoseMessage

CONTEXT = b"sb/receipt/v1"


def h(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def public_key(text):
    name, key_id, key = text.strip().split("+", 2)
    raw = base64.b64decode(key)
    assert raw[0] == 1, "an Ed25519 key"
    assert h(name.encode(), b"\n", raw)[:4].hex() == key_id, "the key id belongs to the key"
    return name, raw[1:]


def open_receipt(token, raw):
    """The claims, or an exception."""
    assert token[:3] == bytes.fromhex("d83dd2"), "a CWT around a COSE_Sign1"
    message = CoseMessage.decode(token[2:])
    message.external_aad = CONTEXT
    message.key = OKPKey(crv=Ed25519, x=raw)
    assert message.verify_signature(), "the signature holds"
    assert not message.uhdr, "nothing unprotected"
    claims = cbor2.loads(message.payload)
    assert cbor2.dumps(claims, canonical=False) == message.payload or cbor2.dumps(claims, canonical=True) == message.payload
    return claims


def open_checkpoint(note, name, raw):
    body, signatures = note.split("\n\n", 1)
    body += "\n"
    for line in signatures.splitlines():
        mark, signer, blob = line.split(" ")
        blob = base64.b64decode(blob, validate=True)
        if mark == "\u2014" and signer == name and blob[:4] == h(name.encode(), b"\n\x01", raw)[:4]:
            Ed25519PublicKey.from_public_bytes(raw).verify(blob[4:], body.encode())
            origin, size, root = body.splitlines()
            assert origin == name
            return int(size), base64.b64decode(root, validate=True)
    raise AssertionError("not signed by the key")


def root_from(leaf, index, size, path):
    """RFC 6962, 2.1.1, read as a recursion: the path holds siblings from the leaf to the root."""
    if size == 1:
        assert not path, "the path is as long as the tree is high"
        return leaf
    k = 1
    while 2 * k < size:
        k *= 2
    assert path, "the path is as long as the tree is high"
    if index < k:
        return h(b"\1", root_from(leaf, index, k, path[:-1]), path[-1])
    return h(b"\1", path[-1], root_from(leaf, index - k, size - k, path[:-1]))


def parse(text):
    head, proof = text.split("\n\n", 1)
    lines = head.split("\n")
    assert lines[0] == "stitchback.receipt/v1"
    token = base64.b64decode(lines[1].removeprefix("receipt "), validate=True)
    salt = base64.b64decode(lines[2].removeprefix("salt "), validate=True)
    hashes, note = proof.split("\n\n", 1)
    hashes = hashes.split("\n")
    assert hashes[0] == "c2sp.org/tlog-proof@v1"
    index = int(hashes[1].removeprefix("index "))
    return token, salt, index, [base64.b64decode(x, validate=True) for x in hashes[2:]], note


def verify(token, salt, index, path, note, name, raw):
    claims = open_receipt(token, raw)
    assert claims[1] == name and claims[3] == name
    size, root = open_checkpoint(note, name, raw)
    leaf = h(b"\0", h(b"sb/leaf/v1", salt, token))
    assert root_from(leaf, index, size, path) == root, "the receipt is in the log"
    return claims, size


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        parts = parse(file.read())
    key = sys.argv[2]
    try:
        with open(key, encoding="utf-8") as file:
            key = file.read()
    except OSError:
        pass
    name, raw = public_key(key)
    claims, size = verify(*parts, name, raw)
    token, salt, index, path, note = parts
    tried = 0
    for bit in range(8 * len(token)):
        forged = bytearray(token)
        forged[bit // 8] ^= 1 << (bit % 8)
        tried += 1
        try:
            verify(bytes(forged), salt, index, path, note, name, raw)
        except Exception:
            continue
        sys.exit(f"bit {bit} of the receipt can be flipped")
    for i in range(len(path)):
        forged = list(path)
        forged[i] = bytes([forged[i][0] ^ 1]) + forged[i][1:]
        tried += 1
        try:
            verify(token, salt, index, forged, note, name, raw)
        except AssertionError:
            continue
        sys.exit(f"hash {i} of the proof can be changed")
    print(f"genuine: {claims[-70003]}, epoch {claims[-70004]}, value {claims[-70009]} ticks, leaf {index} of {size}; "
          f"{tried} forgeries refused")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, InvalidSignature, ValueError) as error:
        sys.exit(f"refused: {error}")
