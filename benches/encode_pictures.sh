#!/bin/sh
# Our picture encoder against ONNX Runtime, interleaved: benches/encode_pictures.sh FOLDER [--rounds 5] [--threads 2]
# FOLDER is a fetched efficientnet-lite0. PYTHON names an interpreter that already has the peers.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    venv="target/venv-encode-pictures"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r benches/peers/encode_pictures_onnx.txt
    PYTHON="$venv/bin/python"
fi
binary=$(cargo bench --bench encode_pictures --no-run --message-format=json |
    sed -n 's/.*"name":"encode_pictures".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
folder=$1
shift
exec "$PYTHON" benches/peers/encode_pictures_onnx.py compare "$folder" "$binary" "$@"
