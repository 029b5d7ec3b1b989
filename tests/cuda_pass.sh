#!/usr/bin/env bash
# Builds what differs in preset cuda and tests it on a machine without a GPU: libhotlora_cuda.so as nvcc compiled it, the run
# paths of what is installed, and what the server says. LibTorch's CUDA half (2.6 GB) is not needed: empty libraries of its
# names stand in for it, beside LibTorch's CPU half. Prints the time of each stage. The last line says "N passed, N failed, N
# skipped"; the exit status is 0 if none failed.
#
# usage: tests/cuda_pass.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly build=$PWD/build/cuda-pass
readonly cache=${HOTLORA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/hotlora}

# The installer explains what is missing if there is neither nvcc nor a way to fetch it.
deploy/install_dependencies.sh --test

begin=$SECONDS
libtorch=$(sed -n 's/^readonly TORCH_VERSION=//p' deploy/install_dependencies.sh)
libtorch=$cache/libtorch-$libtorch
tree=$build/libtorch
rm -rf "$tree"
mkdir -p "$tree/torch/lib"
ln -s "$libtorch/torch/include" "$tree/torch/include"
cp -rs "$libtorch/nvidia" "$tree"
for library in libc10.so libtorch_cpu.so libgomp.so.1; do
  ln -s "$libtorch/torch/lib/$library" "$tree/torch/lib/$library"
done
for library in libc10_cuda.so libtorch_cuda.so; do
  cc -shared -x c /dev/null -Wl,-soname,"$library" -o "$tree/torch/lib/$library"
done
cmake --preset cuda -B "$build" -DHOTLORA_LIBTORCH="$tree"
cmake --build "$build" --target bin/hotlora-server bin/hotlora hotlora_cuda cuda_test
echo "--- cuda pass, build: $((SECONDS - begin)) s"

begin=$SECONDS
status=0
results=$build/test_results.xml
rm -f "$results"
ctest --test-dir "$build" -R '^cuda\.' --no-tests=error --output-on-failure --output-junit "$results" || status=1
ctest --test-dir "$build" -R '^cuda\.' --show-only=json-v1 >"$results.tests"
echo "--- cuda pass, tests: $((SECONDS - begin)) s"
/usr/bin/python3 tests/count_results.py "$results" "$results.tests" || status=1
exit $status
