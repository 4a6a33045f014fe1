#!/bin/sh
# Protecting 100 000 x 384 vectors against a plain Gaussian fill in NumPy, interleaved: benches/protect.sh [--rounds 5]
# PYTHON names an interpreter that already has NumPy.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    venv="target/venv-protect"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r benches/peers/protect_numpy.txt
    PYTHON="$venv/bin/python"
fi
binary=$(cargo bench --bench protect --no-run --message-format=json |
    sed -n 's/.*"name":"protect".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
exec "$PYTHON" benches/peers/protect_numpy.py "$binary" "$@"
