#!/usr/bin/env bash
# What adapters cost at SDXL's full size, on the CPU: how much longer a denoising step takes beside the weights and merged (512x512,
# guidance, rank 16 and 64 on all linear layers of the transformers), and what a swap from the host tier takes in both forms.
#
# usage: tests/bench/full_size.sh MODEL OUT     MODEL: what make_full_model.py --dtype float16 --text-layers 3 writes; OUT: for adapters
#
# Variables: BIN (build/release/bin), PYTHON (with numpy and safetensors, else python3), THREADS (2), DTYPE (float32), SIZE (512), BLOCKS
# (4 and one to warm up, each of three steps), SWAPS (8), RANKS ("16 64"). Needs 20 GB of memory, and a quarter of an hour on two cores.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,9p' "$0"; exit 2; }
model=$1 out=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${BIN:-$here/../../build/release/bin}
threads=${THREADS:-2} size=${SIZE:-512} blocks=${BLOCKS:-4} swaps=${SWAPS:-8}
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=100000  # as hotlora-server sets them
grep -m 1 'model name' /proc/cpuinfo | sed 's/.*: /CPU: /'

for rank in ${RANKS:-16 64}; do
  folder=$out/rank_$rank
  if [ ! -e "$folder" ]; then
    "${PYTHON:-python3}" "$here/make_adapters.py" --model "$model" --out "$folder.partial" --count 2 --format lora --rank "$rank" \
      --modules all
    mv "$folder.partial" "$folder"
  fi
  common=(--model "$model" --adapters "$folder" --threads "$threads" --dtype "${DTYPE:-float32}" --adapter-device-bytes 800000000
    --adapter-host-bytes 1500000000)
  echo "rank $rank, $(stat -c %s "$folder/adapter_0000.safetensors") bytes:"
  for apply in side merged; do
    "$bin/adapter_bench" swap "${common[@]}" --source host --apply "$apply" --iterations "$swaps" --size 64 | tail -1
  done
  "$bin/adapter_bench" overhead "${common[@]}" --name adapter_0000 --size "$size" --blocks "$blocks" | tail -1
done
