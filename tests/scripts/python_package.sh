#!/usr/bin/env bash
# Builds the Python package as a wheel, installs it in a fresh environment, and runs its tests there: run by hand, kept.
#
#     tests/scripts/python_package.sh [ENVIRONMENT]
#
# Needs Python 3.9 or newer with its package client, and minutes for the first build (its own target folder, `python/target`).
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=${1:-$(mktemp -d)/venv}
python3 -m venv "$environment"
"$environment/bin/pip" --quiet install pytest mypy numpy
rm -rf python/target/wheels
"$environment/bin/pip" wheel --no-deps --wheel-dir python/target/wheels ./python
"$environment/bin/pip" --quiet install --force-reinstall python/target/wheels/*.whl
# Not from the source folder: what is tested is what was installed.
tests=$PWD/python/tests
cd "$environment"
bin/python -m pytest -q -p no:cacheprovider "$tests"
bin/python -m mypy --strict --python-executable bin/python -p stitchback
