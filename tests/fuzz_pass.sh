#!/usr/bin/env bash
# Builds the fuzz targets as libFuzzer programs with sanitizers (preset fuzz) and runs each of them. Prints the time of each
# stage. The last line says "N passed, N failed, N skipped"; the exit status is 0 if none failed. What made one fail is kept
# in build/fuzz, as TARGET-crash-HASH or so.
#
# usage: tests/fuzz_pass.sh [SECONDS]     for each target; 30
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

begin=$SECONDS
cmake --preset fuzz -DHOTLORA_FUZZ_SECONDS="${1:-30}"
cmake --build --preset fuzz
echo "--- fuzz pass, build: $((SECONDS - begin)) s"

begin=$SECONDS
status=0
results=$PWD/build/fuzz/test_results.xml
rm -f "$results"
ctest --preset fuzz --output-junit "$results" || status=1
ctest --preset fuzz --show-only=json-v1 >"$results.tests"
echo "--- fuzz pass, runs: $((SECONDS - begin)) s"
/usr/bin/python3 tests/count_results.py "$results" "$results.tests" || status=1
exit $status
