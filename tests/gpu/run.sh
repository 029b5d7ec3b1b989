#!/usr/bin/env bash
# Tries and measures hotlora on a GPU machine: tests/gpu/run.py, by a python3 of at least 3.9. See run.sh --help.
#
# usage: OUT=FOLDER tests/gpu/run.sh [OPTION...]
set -euo pipefail

for python in python3 /usr/bin/python3 /usr/local/bin/python3 /opt/*/bin/python3 /opt/*/.venv/bin/python3; do
  if "$python" -c 'import lzma, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    exec "$python" -B "$(dirname "${BASH_SOURCE[0]}")/run.py" "$@"
  fi
done
echo "run: error: no python3 of at least 3.9 with lzma is on the PATH, in /usr or in /opt" >&2
exit 1
