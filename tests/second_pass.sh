#!/usr/bin/env bash
# Runs tests again as other machines would: the numeric ones with the kernels of a CPU that has AVX2 alone, the
# end-to-end ones with servers that compute in bfloat16. They must have been built (tests/run.sh).
# Prints the CPU's model and the time of each stage. The last line says "N passed, N failed, N skipped"; the exit status
# is 0 if none failed.
#
# usage: tests/second_pass.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Programs whose results depend on the CPU's kernels.
numeric='^(nn|tensor|sdxl|sampling|pipeline|engine|issues)\.'
# Not again: those that no dtype changes (the network, signals), and those that name their dtypes (the demo model).
end_to_end='^e2e\.(adapter_files|bad_input|batching|cli|flow|foreign_client|init_image|metrics|prompts)$'
if ! grep -qE -m 1 '\b(avx512_bf16|amx_bf16)\b' /proc/cpuinfo; then
  # There bfloat16 is emulated, 10 to 100 times as slow: what depends on bytes, tiers and tolerances.
  end_to_end='^e2e\.(init_image|metrics|foreign_client)$'
fi

status=0

# stage NAME REGEX VARIABLE=VALUE...
stage() {
  local name=$1 regex=$2 begin=$SECONDS results=$PWD/build/release/$1_results.xml
  shift 2
  echo "--- second pass, $name: $*"
  rm -f "$results"
  env "$@" ctest --preset release -R "$regex" --output-junit "$results" || status=1
  ctest --preset release --show-only=json-v1 >"$results.tests"
  /usr/bin/python3 tests/count_results.py "$results" "$results.tests" | tee "$results.log" || status=1
  tail -n 1 "$results.log" >"$results.counts"
  echo "--- second pass, $name: $((SECONDS - begin)) s"
}

echo "--- second pass on $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
stage avx2 "$numeric" ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
stage bfloat16 "$end_to_end" HOTLORA_TEST_DTYPE=bfloat16
cat build/release/{avx2,bfloat16}_results.xml.counts | /usr/bin/python3 tests/sum_counts.py || status=1
exit $status
