#!/usr/bin/env bash
# Installs what is missing, builds the programs and all tests (preset release), and runs the tests, all but those
# labelled soak or bench. The last line says "N passed, N failed, N skipped"; the exit status is 0 if none failed.
#
# usage: tests/run.sh [ctest arguments]     tests/run.sh -L unit     tests/run.sh -R adapters
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

deploy/install_dependencies.sh --test

echo "--- build: preset release, into build/release"
cmake --preset release
cmake --build --preset release-tests

echo "--- tests"
results=$PWD/build/release/test_results.xml
rm -f "$results"
ctest_status=0
ctest --preset release --output-junit "$results" "$@" || ctest_status=$?
count_status=0
ctest --preset release --show-only=json-v1 >"$results.tests"
/usr/bin/python3 tests/count_results.py "$results" "$results.tests" || count_status=$?
[ "$ctest_status" -eq 0 ] && [ "$count_status" -eq 0 ]
