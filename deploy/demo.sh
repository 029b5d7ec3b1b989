#!/usr/bin/env bash
# Shows hotlora at work: installs what is missing, builds, starts the server on the demo model of deploy/demo, generates images
# with different LoRAs through the real client, prints some metrics and stops. No download of weights, no GPU needed.
#
# usage: deploy/demo.sh            images and a metrics excerpt, then stop
#        deploy/demo.sh --serve    stay up on the usual ports until Ctrl-C
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PROMPT="a large red circle on a yellow background"  # the first of paint_sheets.sh
readonly OUT=out/demo
readonly BIN=build/release/bin
serve=false
server_pid=

say() { printf -- '--- %s\n' "$*"; }

fail() {
  printf 'demo: error: %s\n' "$*" >&2
  exit 1
}

stop_server() {
  if [ -n "$server_pid" ]; then
    kill -TERM "$server_pid" 2>/dev/null || true
    wait "$server_pid" || true
    server_pid=
  fi
}
trap stop_server EXIT

read_options() {
  local option
  for option in "$@"; do
    case $option in
      --serve) serve=true ;;
      --help)
        sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) fail "unknown option $option; allowed are --serve and --help" ;;
    esac
  done
}

build() {
  deploy/install_dependencies.sh
  say "build (the first time takes some minutes; later only what changed)"
  cmake --preset release >"$OUT/configure.log" || { cat "$OUT/configure.log"; exit 1; }
  cmake --build --preset release
}

# start_server LISTEN METRICS_LISTEN
start_server() {
  rm -f "$OUT/ready.json"
  "$BIN/hotlora-server" --model deploy/demo/model --adapters deploy/demo/adapters --listen "$1" --metrics-listen "$2" \
    --reflection --ready-file "$OUT/ready.json" 2>"$OUT/server.log" &
  server_pid=$!
  local waited=0
  until [ -e "$OUT/ready.json" ]; do
    kill -0 "$server_pid" 2>/dev/null || { cat "$OUT/server.log" >&2; server_pid=; fail "the server did not start"; }
    [ "$waited" -lt 1200 ] || fail "the server was not ready after 120 s; see $OUT/server.log"
    waited=$((waited + 1))
    sleep 0.1
  done
  grpc_port=$(sed 's/.*"grpc_port": *\([0-9]*\).*/\1/' "$OUT/ready.json")
  metrics_port=$(sed 's/.*"metrics_port": *\([0-9]*\).*/\1/' "$OUT/ready.json")
}

print_metrics() {
  exec 3<>"/dev/tcp/127.0.0.1/$metrics_port"
  printf 'GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
  cat <&3 >"$OUT/metrics.txt"
  exec 3>&-
  grep -E '^hotlora_(denoise_step_duration_seconds_(sum|count)\{cfg="on",size="le_0.5mp"|step_baseline_seconds|step_drift_ratio|device_memory_(allocated|reserved)_bytes|adapter_swaps_total|adapter_swap_duration_seconds_(sum|count)\{phase="total"|adapter_cache_(bytes|entries)\{tier="host"|adapter_refs|base_restore_mismatch_total|requests_total\{code="OK",method="StreamGenerateImages"|images_total\{format="png")' \
    "$OUT/metrics.txt"
}

read_options "$@"
mkdir -p "$OUT"
build

if "$serve"; then
  start_server 127.0.0.1:50051 127.0.0.1:9464
  say "serving the demo model on 127.0.0.1:$grpc_port, metrics on http://127.0.0.1:$metrics_port/metrics; Ctrl-C stops"
  echo "try:  $BIN/hotlora generate \"$PROMPT\" --adapter outline --adapter night:0.7 --out picture.png"
  trap 'exit 0' INT TERM
  wait "$server_pid"
  exit 0
fi

start_server 127.0.0.1:0 127.0.0.1:0
say "images: rows are prompts; columns: no adapter, outline, night, stripes, frame, outline at 0.5, frame and outline"
deploy/demo/paint_sheets.sh "127.0.0.1:$grpc_port" "$OUT" adapters
"$BIN/hotlora" --server "127.0.0.1:$grpc_port" generate "$PROMPT" --seed 7 --steps 20 --out "$OUT/again.png" >/dev/null
cmp "$OUT/adapters/1-1.png" "$OUT/again.png" || fail "the base model's image changed after the adapters"
say "adapters/1-1.png and again.png are equal byte for byte: the adapters left nothing behind"
say "metrics, an excerpt (all of them in $OUT/metrics.txt)"
print_metrics
stop_server
say "done; all images side by side: $PWD/$OUT/adapters.png"
say "one by one: $PWD/$OUT/adapters/ROW-COLUMN.png"
