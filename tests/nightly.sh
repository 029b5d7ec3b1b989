#!/usr/bin/env bash
# What takes too long for .ci/run: crashes by the hundred, soaks, fuzzing, fault injection, sanitizers. Builds what a stage
# needs, prints the time of each, and ends a stage that takes longer than its limit. The last line says
# "N passed, N failed, N skipped"; the exit status is 0 if none failed. tests/README.md has the runs that are recorded.
#
# usage: tests/nightly.sh [STAGE...]     by default all: killed power_cut soak fuzz mutated faults asan tsan
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
all_stages=(killed power_cut soak fuzz mutated faults asan tsan)

# build PRESET [BUILD_PRESET]
build() { cmake --preset "$1" && timeout --kill-after=60 3h cmake --build --preset "${2:-$1}"; }

# suite PRESET LIMIT CTEST_ARGUMENT...: runs tests and says as the last line how many passed
suite() {
  local results=$PWD/build/$1/nightly_results.xml limit=$2 status=0
  shift 2
  rm -f "$results"
  timeout --kill-after=60 "$limit" ctest "$@" --output-on-failure --output-junit "$results" || status=1
  ctest "$@" --show-only=json-v1 >"$results.tests"
  /usr/bin/python3 tests/count_results.py "$results" "$results.tests" || status=1
  return "$status"
}

# Tests labelled soak, which no preset of ctest has.
soak() {
  build release release-tests && suite release "$1" --test-dir build/release -L '^soak$' -R "^soak\.$2\$"
}

stage_killed() { soak 2h killed; }        # kill -9, 200 times
stage_power_cut() { soak 2h power_cut; }  # 10,000 power cuts, in 100 runs
stage_soak() { soak 2h swaps; }           # 10,000 swaps, and the servers that must fail
stage_faults() { soak 4h faults; }        # failures of allocations, files and kernels, and a clock that jumps

# Each target for ten minutes, guided by coverage.
stage_fuzz() { timeout --kill-after=60 5h tests/fuzz_pass.sh 600; }

# 1,000,000 request messages and 100,000 adapter files in process, under both sanitizers, then 20,000 messages to a server.
stage_mutated() {
  local passed=0 failed=0
  cmake --preset fuzz -B build/fuzz_runs -DHOTLORA_FUZZ=OFF
  cmake --build build/fuzz_runs --target fuzz_targets
  timeout 1h build/fuzz_runs/bin/fuzz_image_request -runs=1000000 -seed="$(date +%s)" tests/fuzz/seeds/image_request \
    && passed=$((passed + 1)) || failed=$((failed + 1))
  timeout 1h build/fuzz_runs/bin/fuzz_adapter -runs=100000 -seed="$(date +%s)" \
    tests/golden/adapters/files tests/golden/broken_adapters tests/fuzz/seeds/adapter \
    && passed=$((passed + 1)) || failed=$((failed + 1))
  soak 1h mutated_messages && passed=$((passed + 1)) || failed=$((failed + 1))
  echo "$passed passed, $failed failed, 0 skipped"
  [ "$failed" -eq 0 ]
}

# AddressSanitizer and UndefinedBehaviorSanitizer.
stage_asan() {
  build asan && suite asan 3h --preset asan -L '^(unit|golden|fuzz)$'
}

# ThreadSanitizer, without LibTorch.
stage_tsan() {
  build tsan && suite tsan 3h --preset tsan -L '^unit$'
}

if [ $# -eq 0 ]; then
  set -- "${all_stages[@]}"
fi
for stage; do
  [[ " ${all_stages[*]} " == *" $stage "* ]] || { echo "no stage $stage; there are: ${all_stages[*]}" && exit 2; }
done

folder=build/nightly
rm -rf "$folder"
mkdir -p "$folder"
echo "--- nightly, $(date -u +%F) on $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
status=0
for stage; do
  begin=$SECONDS stage_status=0
  ("stage_$stage") 2>&1 | tee "$folder/$stage.log" || stage_status=1
  last=$(tail -n 1 "$folder/$stage.log")
  # A stage that fails counts as one failure at least, also where it was ended or could not be built.
  if [[ ! $last =~ ^[0-9]+\ passed,\ [0-9]+\ failed,\ [0-9]+\ skipped$ ]]; then
    last="0 passed, 1 failed, 0 skipped"
  elif [ $stage_status -ne 0 ]; then
    last=${last/ 0 failed/ 1 failed}
  fi
  echo "$last" >>"$folder/counts"
  echo "--- nightly, $stage: $((SECONDS - begin)) s: $last"
done
/usr/bin/python3 tests/sum_counts.py <"$folder/counts" || status=1
exit $status
