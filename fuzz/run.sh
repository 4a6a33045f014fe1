#!/usr/bin/env bash
# Fuzzes every parser, one after the other: fuzz/run.sh [SECONDS_EACH] [TARGET...]. Run by hand, kept.
#
# Needs a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz`). What is found is kept in fuzz/corpus, a crash in
# fuzz/artifacts; the good files in fuzz/seeds are written by
#     STITCHBACK_FUZZ_SEEDS=$PWD/fuzz/seeds cargo test --release
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/seeds/$target"
    echo "== $target: $seconds s"
    # A picture of the largest allowed size takes 200 MB by itself.
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 2>&1 |
        grep -E 'ERROR|SUMMARY|panicked|number_of_executed|peak_rss|DONE|artifact' || true
    if [ -n "$(ls -A "fuzz/artifacts/$target" 2>/dev/null)" ]; then
        echo "$target: crashed, see fuzz/artifacts/$target" >&2
        exit 1
    fi
done
