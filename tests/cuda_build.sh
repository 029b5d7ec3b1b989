#!/usr/bin/env bash
# Builds targets of preset cuda on a machine without a GPU and without LibTorch's CUDA half (2.6 GB): empty libraries of its
# names stand in for it, beside LibTorch's CPU half. tests/cuda_pass.sh tests the result, tests/gpu/pack.sh packs it.
#
# usage: tests/cuda_build.sh TARGET...     builds in build/cuda-pass
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=$PWD/build/cuda-pass
readonly cache=${HOTLORA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/hotlora}

# The installer explains what is missing if there is neither nvcc nor a way to fetch it.
deploy/install_dependencies.sh --test

libtorch=$(sed -n 's/^readonly TORCH_VERSION=//p' deploy/install_dependencies.sh)
libtorch=$cache/libtorch-$libtorch
tree=$build/libtorch
if [ "$(cat "$tree/stamp" 2>/dev/null)" != "$libtorch" ]; then
  rm -rf "$tree"
  mkdir -p "$tree/torch/lib"
  ln -s "$libtorch/torch/include" "$tree/torch/include"
  cp -rs "$libtorch"/{nvidia,torch-*.dist-info} "$tree"
  for library in libc10.so libtorch_cpu.so libgomp.so.1; do
    ln -s "$libtorch/torch/lib/$library" "$tree/torch/lib/$library"
  done
  for library in libc10_cuda.so libtorch_cuda.so; do
    cc -shared -x c /dev/null -Wl,-soname,"$library" -o "$tree/torch/lib/$library"
  done
  echo "$libtorch" >"$tree/stamp"
fi
cmake --preset cuda -B "$build" -DHOTLORA_LIBTORCH="$tree"
cmake --build "$build" --target "$@"
