#!/usr/bin/env bash
# Builds and tries hotlora on a machine with an NVIDIA GPU, unattended: golden tests on the device, then the real server
# and client on the demo model in bfloat16 and float16. The last line is one JSON object of results; the exit status is 0
# if all of it went well. Files (images, logs, metrics) stay under ${OUT:-out/gpu}.
#
# usage: tests/gpu/smoke.sh [--no-build]     --no-build: build/cuda is there already
#
#   HOTLORA_TEST_LIBTORCH=DIR   a folder that holds torch/ and nvidia/ of LibTorch's CUDA build (a Python's site-packages,
#                               say), for machines that cannot download; nothing is installed then
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

OUT=$(realpath -m "${OUT:-out/gpu}")
readonly OUT
readonly BUILD=build/cuda
readonly PROMPT="a large red circle on a blue background"
server_pid=
failures=()

say() { printf -- '--- %s\n' "$*"; }

failed() {
  failures+=("$1")
  say "FAILED: $1"
}

stop_server() {
  if [ -n "$server_pid" ]; then
    kill -TERM "$server_pid" 2>/dev/null
    wait "$server_pid" || failed "server's exit status"
    server_pid=
  fi
}
trap 'if [ -n "$server_pid" ]; then kill -TERM "$server_pid" 2>/dev/null; fi' EXIT

build() {
  local libtorch=()
  if [ -n "${HOTLORA_TEST_LIBTORCH:-}" ]; then
    libtorch=("-DHOTLORA_LIBTORCH=$HOTLORA_TEST_LIBTORCH")
  else
    deploy/install_dependencies.sh --cuda || return 1
  fi
  cmake --preset cuda ${libtorch[@]+"${libtorch[@]}"} >"$OUT/configure.log" 2>&1 || {
    cat "$OUT/configure.log"
    return 1
  }
  cmake --build --preset cuda
}

# Everything that computes with tensors, on the GPU. In float32 the product forbids TF32, so tolerances hold.
run_golden_tests() {
  local status=0
  HOTLORA_TEST_DEVICE=cuda OMP_WAIT_POLICY=PASSIVE ctest --test-dir "$BUILD" -LE '^(e2e|soak|bench)$' \
    --output-on-failure --output-junit "$OUT/tests.xml" >"$OUT/tests.log" 2>&1 || status=1
  ctest --test-dir "$BUILD" --show-only=json-v1 >"$OUT/tests.json" || status=1
  golden=$(python3 tests/count_results.py "$OUT/tests.xml" "$OUT/tests.json" | tail -1)
  say "tests on the device: $golden"
  [ "$status" -eq 0 ] || failed "golden tests, see $OUT/tests.log"
}

# start_server DTYPE
start_server() {
  rm -f "$OUT/ready.json"
  "$BUILD/bin/hotlora-server" --model deploy/demo/model --adapters deploy/demo/adapters --device cuda --dtype "$1" \
    --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --ready-file "$OUT/ready.json" 2>"$OUT/server-$1.log" &
  server_pid=$!
  local waited=0
  until [ -e "$OUT/ready.json" ]; do
    if ! kill -0 "$server_pid" 2>/dev/null || [ "$waited" -ge 1800 ]; then
      tail -20 "$OUT/server-$1.log"
      return 1
    fi
    waited=$((waited + 1))
    sleep 0.1
  done
  grpc_port=$(sed 's/.*"grpc_port": *\([0-9]*\).*/\1/' "$OUT/ready.json")
  metrics_port=$(sed 's/.*"metrics_port": *\([0-9]*\).*/\1/' "$OUT/ready.json")
}

# generate FILE [CLIENT ARGUMENTS...]
generate() {
  local file=$1
  shift
  "$BUILD/bin/hotlora" --server "127.0.0.1:$grpc_port" generate "$PROMPT" --seed 7 --steps 20 --out "$OUT/$file" "$@" \
    >>"$OUT/client.log" 2>&1 || failed "generating $file, see $OUT/client.log"
}

read_metrics() {
  exec 3<>"/dev/tcp/127.0.0.1/$metrics_port" || return 1
  printf 'GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
  cat <&3 >"$1"
  exec 3>&-
}

# metric FILE NAME: the first value of that name, or null.
metric() { awk -v name="$2" 'index($1, name) == 1 { print $2; found = 1; exit } END { if (!found) print "null" }' "$1"; }

# try_dtype DTYPE: adds the dtype's JSON object to `results`.
try_dtype() {
  local dtype=$1 metrics=$OUT/metrics-$1.txt started ended
  if ! start_server "$dtype"; then
    failed "starting the server in $dtype, see $OUT/server-$dtype.log"
    kill -TERM "$server_pid" 2>/dev/null
    server_pid=
    return
  fi
  generate "$dtype-1-none.png"
  started=$(date +%s%N)
  generate "$dtype-2-outline.png" --adapter outline
  ended=$(date +%s%N)
  generate "$dtype-3-outline-and-night.png" --adapter outline --adapter night:0.7
  generate "$dtype-4-none-again.png"
  cmp "$OUT/$dtype-1-none.png" "$OUT/$dtype-4-none-again.png" || failed "$dtype: the base image changed after adapters"
  cmp -s "$OUT/$dtype-1-none.png" "$OUT/$dtype-2-outline.png" && failed "$dtype: the adapter changed nothing"
  read_metrics "$metrics" || failed "reading metrics in $dtype"
  say "memory in $dtype"
  grep -E '^hotlora_(device|gpu)_memory_' "$metrics" || failed "$dtype: no memory metrics"
  results+=(", \"$dtype\": {\"image_milliseconds\": $(((ended - started) / 1000000)), \
\"allocated_bytes\": $(metric "$metrics" hotlora_device_memory_allocated_bytes), \
\"reserved_bytes\": $(metric "$metrics" hotlora_device_memory_reserved_bytes), \
\"gpu_used_bytes\": $(metric "$metrics" hotlora_gpu_memory_used_bytes), \
\"base_restore_mismatches\": $(metric "$metrics" hotlora_base_restore_mismatch_total)}")
  stop_server
}

mkdir -p "$OUT"
rm -f "$OUT/client.log"
results=()
golden=
gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1)
say "GPU: ${gpu:-none that nvidia-smi can see}"
if [ "${1:-}" = --no-build ] || build; then
  run_golden_tests
  try_dtype bfloat16
  try_dtype float16
else
  failed "build"
fi

ok=true
[ ${#failures[@]} -eq 0 ] || ok=false
failure_list=$(printf ', "%s"' ${failures[@]+"${failures[@]}"})
[ "$ok" = false ] || failure_list=', '
printf '{"ok": %s, "gpu": "%s", "golden": "%s"%s, "failures": [%s]}\n' \
  "$ok" "$gpu" "$golden" "$(printf '%s' ${results[@]+"${results[@]}"})" "${failure_list:2}" | tee "$OUT/results.json"
[ "$ok" = true ]
