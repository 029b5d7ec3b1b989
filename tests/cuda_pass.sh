#!/usr/bin/env bash
# Builds what differs in preset cuda and tests it on a machine without a GPU: libhotlora_cuda.so as nvcc compiled it, the run
# paths of what is installed, what the server says, and the rehearsal of a run on a GPU machine (tests/gpu/rehearse.sh).
# tests/cuda_build.sh builds it. Prints the time of each stage. The last line says "N passed, N failed, N skipped"; the exit
# status is 0 if none failed.
#
# usage: tests/cuda_pass.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=$PWD/build/cuda-pass

begin=$SECONDS
tests/cuda_build.sh bin/hotlora-server bin/hotlora hotlora_cuda cuda_test gpu_probe
echo "--- cuda pass, build: $((SECONDS - begin)) s"

begin=$SECONDS
status=0
results=$build/test_results.xml
rm -f "$results"
ctest --test-dir "$build" -R '^cuda\.' --no-tests=error --output-on-failure --output-junit "$results" || status=1
ctest --test-dir "$build" -R '^cuda\.' --show-only=json-v1 >"$results.tests"
echo "--- cuda pass, tests: $((SECONDS - begin)) s"
/usr/bin/python3 tests/count_results.py "$results" "$results.tests" || status=1
exit $status
