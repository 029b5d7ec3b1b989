#!/usr/bin/env bash
# Trains the demo model, its LoRAs and its ControlNet from nothing but the configs and tokenizers in ../model; seeded, CPU only.
#
# usage: deploy/demo/train/train.sh OUT     OUT: a folder for the result, in the layout of ../model with adapters/ and controls/ inside
# Needs the packages of requirements.txt; PYTHON names the interpreter. A run that was stopped goes on where it was: phases with
# an OUT/PHASE.checkpoint from there. TEXT_STEPS, VAE_STEPS, UNET_STEPS, DECODER_STEPS, CONTROLNET_STEPS change the phases' lengths.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?usage: train.sh OUT}
mkdir -p "$out"
out=$(cd "$out" && pwd)
export OMP_NUM_THREADS=1
python=${PYTHON:-python3}

# The configs, tokenizers and schedule of the model; the weights come from the phases.
(cd "$here/../model" && find . -name '*.safetensors' -prune -o \( -type f -o -type l \) -print0 | tar --null -T - -cf - | tar -xf - -C "$out")
cd "$here"
"$python" train_text.py "$out" "${TEXT_STEPS:-1600}" &
text=$!
"$python" train_vae.py "$out" "${VAE_STEPS:-3000}"
wait "$text"
"$python" train_unet.py "$out" "${UNET_STEPS:-3500}"
"$python" train_loras.py "$out" outline night &
first=$!
"$python" train_loras.py "$out" stripes frame
wait "$first"
"$python" train_decoder.py "$out" "${DECODER_STEPS:-1200}"
"$python" train_controlnet.py "$out" "${CONTROLNET_STEPS:-1500}"
"$python" sheets.py "$out" 1 2 3 4 5
"$python" measure_controlnet.py "$out"
