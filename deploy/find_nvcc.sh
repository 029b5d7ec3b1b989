#!/usr/bin/env bash
# Prints the path of the CUDA compiler that hotlora's kernels are built with: the first nvcc of release 13 among
#
#   1. $CUDA_HOME/bin
#   2. /usr/local/cuda/bin
#   3. /usr/local/cuda-13*/bin
#   4. the PATH
#   5. the wheels of deploy/cuda-compiler.txt, where install_dependencies.sh unpacks them
#
# The exit status is 1 if there is none.
set -euo pipefail

readonly cache=${HOTLORA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/hotlora}

for nvcc in ${CUDA_HOME:+"$CUDA_HOME/bin/nvcc"} /usr/local/cuda/bin/nvcc /usr/local/cuda-13*/bin/nvcc \
  "$(command -v nvcc || true)" "$cache/cuda-compiler/nvidia/cu13/bin/nvcc"; do
  if [ -x "$nvcc" ] && "$nvcc" --version | grep -q 'release 13\.'; then
    echo "$nvcc"
    exit
  fi
done
echo "There is no nvcc of release 13 in CUDA_HOME, /usr/local/cuda, /usr/local/cuda-13*, the PATH or $cache." \
  "Run deploy/install_dependencies.sh --cuda, or install NVIDIA's CUDA toolkit 13." >&2
exit 1
