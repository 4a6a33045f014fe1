#!/usr/bin/env bash
# Runs a study (resuming what is there) and gates it; the steps of action.yml, for any other system as well.
# STUDY, POLICY, RUN_DIR, BASELINE come from the environment; the exit code is the gate's.
set -euo pipefail
run_dir=${RUN_DIR:-reports/gate}
policy=${POLICY:-gate.toml}
stitchback gate --config-only --policy "$policy"
if [ -n "${STUDY:-}" ]; then
    code=0
    stitchback run "$STUDY" --out "$run_dir" --quiet >/dev/null || code=$?
    # 1 and 4 are verdicts (of the study's own policy or bar): the gate below says what they mean.
    case $code in 0 | 1 | 4) ;; *) exit "$code" ;; esac
    stitchback report "$run_dir" --redact --out "$run_dir/redacted.html" >/dev/null
fi
code=0
stitchback gate "$run_dir" --policy "$policy" ${BASELINE:+--baseline "$BASELINE"} \
    -o "$run_dir/verdict.json" -o "$run_dir/verdict.junit.xml" -o "$run_dir/verdict.sarif" -o "$run_dir/verdict.md" || code=$?
case $code in 0) verdict=pass ;; 1) verdict=fail ;; 4) verdict=inconclusive ;; *) exit "$code" ;; esac
if [ -n "${GITHUB_OUTPUT:-}" ]; then echo "verdict=$verdict" >>"$GITHUB_OUTPUT"; fi
exit "$code"
