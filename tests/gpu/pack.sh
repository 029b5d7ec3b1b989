#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs on a GPU machine into build/gpu-pack/pack.tar.xz: server, client, gpu_probe and
# libhotlora_cuda.so of preset cuda, stripped, and the Debian libraries that they load. Not packed are glibc, libstdc++ and
# LibTorch, which the machine must have; the demo model and golden files travel with the tracked files. Prints the sizes, and
# fails if the pack has more than 14 MB, or more than 63 MiB together with the files that travel beside it.
#
# usage: tests/gpu/pack.sh [--with-diffusers]
#   --with-diffusers   also the wheel of diffusers (tests/bench/requirements.txt) for tests/gpu/compare.sh, from PyPI
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly BUILD=build/cuda-pass PACK=build/gpu-pack
readonly MOST_PACK=14000000 MOST_TOGETHER=$((63 << 20))
# What belongs to glibc, GCC, LibTorch and the driver.
readonly OF_THE_MACHINE='^(ld-linux-x86-64|lib(c|m|dl|rt|util|mvec|anl|pthread|resolv|nss_[a-z]+|stdc\+\+|gcc_s|gomp|torch.*|c10.*|cuda|cudart|cupti|nv.*))\.so'

with_diffusers=false
case ${1:-} in
  '') ;;
  --with-diffusers) with_diffusers=true ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac

fail() {
  printf 'pack: error: %s\n' "$*" >&2
  exit 1
}

# needed FILE...: the names of the libraries that these name themselves.
needed() { readelf -d "$@" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

# Copies to $tree/lib/debian all libraries that the tree needs and that belong to no other part of the machine.
copy_libraries() {
  local file name from
  mkdir "$tree/lib/debian"
  for file in "$tree"/bin/* "$tree"/lib/hotlora/*; do
    while read -r name from; do
      [[ $name =~ $OF_THE_MACHINE || $from == "$tree"/* ]] && continue
      [ "$from" != not ] || fail "$file needs $name, which is not on this machine; run deploy/install_dependencies.sh"
      [ -e "$tree/lib/debian/$name" ] || install -m 755 "$from" "$tree/lib/debian/$name"
    done < <(LD_LIBRARY_PATH="$PWD/$BUILD/libtorch/torch/lib" ldd "$file" | sed -n 's/^\t\(.*\) => \([^ ]*\).*/\1 \2/p')
  done
  strip --strip-unneeded "$tree"/lib/debian/*
  while read -r name; do
    [[ $name =~ $OF_THE_MACHINE ]] || [ -e "$tree/lib/debian/$name" ] || [ -e "$tree/lib/hotlora/$name" ] ||
      fail "$name is needed, but it is not in the pack"
  done < <(needed "$tree"/bin/* "$tree"/lib/hotlora/* "$tree"/lib/debian/* | sort -u)
}

tests/cuda_build.sh bin/hotlora-server bin/hotlora hotlora_cuda gpu_probe
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
for component in runtime gpu_probe; do
  cmake --install "$BUILD" --prefix "$tree" --component "$component" --strip >/dev/null
done
rm -rf "$tree/lib/hotlora/libtorch"
copy_libraries
printf '{"commit": "%s", "changed_files": %d, "packed": "%s", "torch": "%s", "nvcc": "%s"}\n' "$(git rev-parse HEAD)" \
  "$(git status --porcelain | wc -l)" "$(date -u +%FT%TZ)" \
  "$(sed -n 's/^readonly TORCH_VERSION=//p' deploy/install_dependencies.sh)" \
  "$("$(deploy/find_nvcc.sh)" --version | tail -n 1)" >"$tree/pack.json"

rm -rf "$PACK"
mkdir -p "$PACK"
tar -C "$tree" -c --owner=0 --group=0 . | xz -9 --threads=0 >"$PACK/pack.tar.xz"
if $with_diffusers; then
  /usr/bin/python3 -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: --dest "$PACK" \
    "$(grep '^diffusers==' tests/bench/requirements.txt)"
fi

packed=$(stat -c %s "$PACK/pack.tar.xz")
beside=$(git ls-files -z --cached --others --exclude-standard | du --bytes --total --files0-from=- | tail -n 1 | cut -f 1)
together=$((beside + $(du --bytes --summarize "$PACK" | cut -f 1)))
du --bytes -a "$tree" | sort -n | awk '{ print $1, substr($2, length(tree) + 2) }' tree="$tree" | tail -n 8
echo "pack: $packed bytes, of at most $MOST_PACK; with the files of the repository $together bytes, of at most $MOST_TOGETHER"
[ "$packed" -le "$MOST_PACK" ] || fail "$PACK/pack.tar.xz is too large; the largest parts, unpacked, are above"
[ "$together" -le "$MOST_TOGETHER" ] || fail "pack and repository are too large together"
