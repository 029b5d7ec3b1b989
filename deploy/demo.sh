#!/usr/bin/env bash
# Shows hotlora at work: installs what is missing, builds, starts the server on the demo model of deploy/demo, generates images
# with different LoRAs and with a ControlNet through the real client, prints some metrics and stops. No download of weights,
# no GPU needed.
#
# usage: deploy/demo.sh                   images and a metrics excerpt, then stop
#        deploy/demo.sh --serve           stay up on the usual ports until Ctrl-C
#        deploy/demo.sh --serve --rest    also Envoy, for REST callers (docs/rest.md) and a page to try it, on
#                                         HOTLORA_REST_LISTEN (127.0.0.1:8080)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PROMPT="a large red circle on a yellow background"  # the first of paint_sheets.sh
readonly OUT=out/demo
readonly BIN=build/release/bin
readonly ENVOY=${HOTLORA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/hotlora}/envoy/envoy/_bin/envoy
readonly rest_listen=${HOTLORA_REST_LISTEN:-127.0.0.1:8080}
unset HOTLORA_REST_LISTEN  # the server takes HOTLORA_* for its flags
serve=false
rest=false
server_pid=
envoy_pid=

say() { printf -- '--- %s\n' "$*"; }

fail() {
  printf 'demo: error: %s\n' "$*" >&2
  exit 1
}

stop() {
  local pid
  for pid in $envoy_pid $server_pid; do
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" || true
  done
  envoy_pid=
  server_pid=
}
trap stop EXIT

read_options() {
  local option
  for option in "$@"; do
    case $option in
      --serve) serve=true ;;
      --rest) rest=true ;;
      --help)
        sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) fail "unknown option $option; allowed are --serve, --rest and --help" ;;
    esac
  done
  if "$rest"; then
    "$serve" || fail "--rest serves until Ctrl-C: give --serve with it"
    [[ $rest_listen =~ ^[0-9.]+:[1-9][0-9]*$ ]] ||
      fail "HOTLORA_REST_LISTEN is $rest_listen; give an IPv4 address and a port from 1 on, such as 127.0.0.1:8080"
    [[ $rest_listen == 127.* || -n ${HOTLORA_TOKENS_FILE:-} || ${HOTLORA_INSECURE:-} =~ ^(1|true)$ ]] ||
      fail "HOTLORA_REST_LISTEN is $rest_listen, which others may reach: set HOTLORA_TOKENS_FILE," \
        "or HOTLORA_INSECURE=1 if everyone who reaches it may do everything"
  fi
}

build() {
  if "$rest"; then deploy/install_dependencies.sh --rest; else deploy/install_dependencies.sh; fi
  say "build (the first time takes some minutes; later only what changed)"
  cmake --preset release >"$OUT/configure.log" || { cat "$OUT/configure.log"; exit 1; }
  cmake --build --preset release
}

# start_server LISTEN METRICS_LISTEN
start_server() {
  rm -f "$OUT/ready.json"
  "$BIN/hotlora-server" --model deploy/demo/model --adapters deploy/demo/adapters --controls deploy/demo/controls \
    --listen "$1" --metrics-listen "$2" --reflection --ready-file "$OUT/ready.json" 2>"$OUT/server.log" &
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

# Envoy as deploy/envoy configures it, but for addresses and files, in front of the server at PORT:  start_envoy PORT
start_envoy() {
  sed -e "s/address: 0.0.0.0, port_value: 50050/address: ${rest_listen%:*}, port_value: ${rest_listen#*:}/" \
    -e "s/address: 0.0.0.0, port_value: 9902/address: 127.0.0.1, port_value: 0/" -e "s/port_value: 9901/port_value: 0/" \
    -e "s/type: STRICT_DNS/type: STATIC/" -e "s/address: replicas, port_value: 50051/address: 127.0.0.1, port_value: $1/" \
    -e "s#/usr/local/share/hotlora/#build/release/#" -e "s#/etc/envoy/#deploy/envoy/#" deploy/envoy/envoy.yaml >"$OUT/envoy.yaml"
  "$ENVOY" -c "$OUT/envoy.yaml" --config-yaml "{layered_runtime: {layers: [{name: page, static_layer: {hotlora.page: 100}}]}}" \
    --disable-hot-restart --concurrency 2 --log-level warning >"$OUT/envoy.log" 2>&1 &
  envoy_pid=$!
  local waited=0
  until "$BIN/hotlora" --server "$rest_listen" health >/dev/null 2>&1; do
    kill -0 "$envoy_pid" 2>/dev/null || { cat "$OUT/envoy.log" >&2; envoy_pid=; fail "Envoy did not start"; }
    [ "$waited" -lt 300 ] || fail "Envoy was not ready after 30 s; see $OUT/envoy.log"
    waited=$((waited + 1))
    sleep 0.1
  done
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
  trap 'exit 0' INT TERM
  start_server "${HOTLORA_LISTEN:-127.0.0.1:50051}" "${HOTLORA_METRICS_LISTEN:-127.0.0.1:9464}"
  say "serving the demo model on 127.0.0.1:$grpc_port, metrics on http://127.0.0.1:$metrics_port/metrics; Ctrl-C stops"
  echo "try:  $BIN/hotlora generate \"$PROMPT\" --adapter outline --adapter night:0.7 --out picture.png"
  if "$rest"; then
    start_envoy "$grpc_port"
    say "REST and a page to try it on http://$rest_listen/; Envoy's access log is $OUT/envoy.log"
  fi
  wait -n "$server_pid" $envoy_pid || fail "the server or Envoy ended; see $OUT/server.log and $OUT/envoy.log"
  exit 0
fi

start_server 127.0.0.1:0 127.0.0.1:0
say "images: rows are prompts; columns: no adapter, outline, night, stripes, frame, outline at 0.5, frame and outline"
deploy/demo/paint_sheets.sh "127.0.0.1:$grpc_port" "$OUT" adapters
say "images with a ControlNet: no control, and three pictures of outlines, each with the image that it makes"
deploy/demo/paint_sheets.sh "127.0.0.1:$grpc_port" "$OUT" controls
"$BIN/hotlora" --server "127.0.0.1:$grpc_port" generate "$PROMPT" --seed 7 --steps 20 --out "$OUT/again.png" >/dev/null
cmp "$OUT/adapters/1-1.png" "$OUT/again.png" || fail "the base model's image changed after the adapters and controls"
say "adapters/1-1.png and again.png are equal byte for byte: adapters and controls left nothing behind"
say "metrics, an excerpt (all of them in $OUT/metrics.txt)"
print_metrics
stop
say "done; all images side by side: $PWD/$OUT/adapters.png and $PWD/$OUT/controls.png"
say "one by one: $PWD/$OUT/adapters/ROW-COLUMN.png and $PWD/$OUT/controls/ROW-COLUMN.png"
