#!/bin/sh
# Our encoder against ONNX Runtime, interleaved: benches/encode.sh FOLDER SENTENCES.txt [--rounds 5] [--threads 2]
# FOLDER is a fetched all-minilm-l6-v2, SENTENCES one text a line. PYTHON names an interpreter that already has the peers.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    venv="target/venv-encode"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r benches/peers/encode_onnx.txt
    PYTHON="$venv/bin/python"
fi
binary=$(cargo bench --bench encode --no-run --message-format=json |
    sed -n 's/.*"name":"encode".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
folder=$1
sentences=$2
shift 2
exec "$PYTHON" benches/peers/encode_onnx.py compare "$folder" "$sentences" "$binary" "$@"
