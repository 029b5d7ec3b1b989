#!/usr/bin/env bash
# Rehearses a run on a GPU machine: the pack of tests/gpu/pack.sh and tests/gpu/run.sh, on the simulated device (the server on
# the CPU) with the smallest shapes, in a minimal Debian without network and without the packages of
# deploy/install_dependencies.sh. LibTorch lies in its Python's folder of packages (its CUDA half is empty), and an nvidia-smi
# that is made up names a GPU. The first run must do everything. The second is killed at a random moment, and must leave a
# valid results.json with all stages that had ended.
#
# usage: tests/gpu/rehearse.sh [--packed] [--seed N] [--python PYTHON]
#   --packed          build/gpu-pack is there already
#   --python PYTHON   also compare with diffusers, which this Python has (pip install -r tests/bench/requirements.txt)
# The Debian tree (mmdebstrap) is kept in the cache for the next time. Needs root, or user namespaces.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly CACHE=${HOTLORA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/hotlora}
readonly BASE=$CACHE/debian-bookworm-python.tar
readonly LIBTORCH=$PWD/build/cuda-pass/libtorch
readonly SECONDS_OF_A_RUN=280  # at most
packed=false
python=
seed=$RANDOM

fail() {
  printf 'rehearse: error: %s\n' "$*" >&2
  exit 1
}

# Run in namespaces of its own, by unshare: the tree becomes the root, without a network but loopback.
# inside ROOT COMMAND...
inside() {
  local root=$1 torch
  shift
  torch=$(realpath "$LIBTORCH/torch/include/../..")
  mkdir -p "$root$torch"
  mount --bind "$torch" "$root$torch"
  mount --bind "$LIBTORCH" "$root/usr/local/lib/python3.11/dist-packages"
  mount --rbind /dev "$root/dev"
  mount -t proc proc "$root/proc"
  # loopback up: SIOCSIFFLAGS with IFF_UP and IFF_RUNNING
  /usr/bin/python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))'
  exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    OMP_WAIT_POLICY=PASSIVE "$@"
}

if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
fi

while [ $# -gt 0 ]; do
  case $1 in
    --packed) packed=true ;;
    --seed) seed=$2 && shift ;;
    --python) python=$2 && shift ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
  esac
  shift
done

# Starts tests/gpu/run.sh in the tree in the background, with its results in the tree's /$1. A kill of $! ends all of it.
start() {
  local user=()
  [ "$(id -u)" -eq 0 ] || user=(--map-root-user)
  mkdir "$root/$1"
  unshare "${user[@]}" --mount --net --pid --fork --kill-child "${BASH_SOURCE[0]}" --inside "$root" OUT="/$1" \
    /repository/tests/gpu/run.sh --device sim:0 --size tiny --seconds "$SECONDS_OF_A_RUN" >"$folder/$1.log" 2>&1 &
  running=$!
}

check() { "$CACHE/venv-tools-$(sha256sum tests/deploy/requirements.txt | cut -c 1-12)/bin/python" tests/gpu/check_results.py "$@"; }

$packed || tests/gpu/pack.sh
[ -e build/gpu-pack/pack.tar.xz ] || fail "build/gpu-pack/pack.tar.xz is not there; run tests/gpu/pack.sh"
if [ ! -e "$BASE" ]; then
  mmdebstrap --variant=minbase --include=python3 bookworm "$BASE.partial.tar" 2>/dev/null || fail "mmdebstrap failed"
  mv "$BASE.partial.tar" "$BASE"
fi

folder=$(mktemp -d)
root=$folder/root
running=
trap '[ -z "$running" ] || kill -KILL "$running" 2>/dev/null || true; rm -rf "$folder"' EXIT
mkdir -p "$root/repository"
tar -C "$root" -xf "$BASE" --exclude='./dev/*'
mkdir -p "$root/usr/local/lib/python3.11/dist-packages"
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- build/gpu-pack | tar -C "$root/repository" -x
printf '#!/bin/sh\necho "Made-up GPU, 580.0, 81559, 9.0"\n' >"$root/usr/bin/nvidia-smi"
chmod +x "$root/usr/bin/nvidia-smi"

begin=$(date +%s%N)
start first
wait "$running" && first=0 || first=$?
took=$((($(date +%s%N) - begin) / 1000000))
running=
cat "$folder/first.log"
echo "--- first run: exit status $first after $took ms"
[ "$first" -eq 0 ] || { tail -n 40 "$root/first/log.txt"; fail "the first run failed"; }
check "$root/first" --ran "$folder/first.log" --rehearsed

RANDOM=$seed
moment=$(((RANDOM * 32768 + RANDOM) % took))
start second
until [ -e "$root/second/results.json" ]; do
  kill -0 "$running" 2>/dev/null || { cat "$folder/second.log"; fail "the second run wrote no results.json"; }
  sleep 0.01
done
sleep "$((moment / 1000)).$(printf %03d $((moment % 1000)))"
kill -KILL "$running" 2>/dev/null || true
wait "$running" || true
running=
cat "$folder/second.log"
echo "--- second run: killed $moment ms after its begin, by --seed $seed"
check "$root/second" --ran "$folder/second.log" --killed

if [ -n "$python" ]; then
  PATH=$(dirname "$python"):$PATH OUT=$folder/compare tests/gpu/compare.sh --device cpu --size tiny --seconds "$SECONDS_OF_A_RUN"
  check "$folder/compare" --rehearsed
fi
