#!/usr/bin/env bash
# Generates the stubs into hotlorav1/. Needs protoc, protoc-gen-go and protoc-gen-go-grpc:
#   go install google.golang.org/protobuf/cmd/protoc-gen-go@latest google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
proto=${HOTLORA_PROTO:-../../../proto}

options=()
for file in adapters images server; do
  for kind in go go-grpc; do
    options+=("--${kind}_opt=Mhotlora/v1/$file.proto=hotlora-example/hotlorav1")
  done
done
protoc -I "$proto" --go_out=. --go_opt=module=hotlora-example --go-grpc_out=. --go-grpc_opt=module=hotlora-example \
  "${options[@]}" "$proto"/hotlora/v1/{adapters,images,server}.proto
