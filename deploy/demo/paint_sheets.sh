#!/usr/bin/env bash
# Paints contact sheets with the demo model through the real client and prints each command. Rows are prompts; columns are
# adapters (none, each at 1.0, one at 0.5, a mix of two), guidance 1, 3 and 7, 4, 8 and 20 steps, or parts: one adapter in
# all, in the first and in the second half of the steps, in the down, middle and up blocks alone, and two in turn. The
# sheet of controls: without one, and three outlines of the row, each with its picture.
#
# usage: deploy/demo/paint_sheets.sh HOST:PORT OUT SHEET...
#        SHEET: adapters, controls, guidance, steps or parts; the sheet is OUT/SHEET.png, its pictures are OUT/SHEET/ROW-COLUMN.png
# The sheets of README.md and docs: deploy/demo.sh --serve, and beside it deploy/demo/paint_sheets.sh 127.0.0.1:50051 \
#   out/sheets adapters controls guidance steps parts; then copy out/sheets/*.png to docs/images, parts.png as
#   adapter_parts.png.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly CLIENT=build/release/bin/hotlora
readonly PROMPTS=("a large red circle on a yellow background" "a yellow square and a red triangle on a white background"
  "three orange stars on a blue background" "a green cross above a purple ring on a white background")
readonly SEED=7
# By sheet, the options of each column; ROW is the row's number. A column may be a file too, which is shown as it is.
declare -A OPTIONS=(
  [adapters]="|--adapter outline|--adapter night|--adapter stripes|--adapter frame|--adapter outline:0.5|--adapter frame --adapter outline"
  [controls]="|deploy/demo/outlines/ROW-1.png|--control outlines=deploy/demo/outlines/ROW-1.png\
|deploy/demo/outlines/ROW-2.png|--control outlines=deploy/demo/outlines/ROW-2.png\
|deploy/demo/outlines/ROW-3.png|--control outlines=deploy/demo/outlines/ROW-3.png"
  [guidance]="--guidance 1|--guidance 3|--guidance 7"
  [steps]="--steps 4|--steps 8|--steps 20"
  [parts]="--adapter night|--adapter night --adapter-range night=0:0.5|--adapter night --adapter-range night=0.5:1\
|--adapter night:0 --adapter-blocks night=down_blocks:1|--adapter night:0 --adapter-blocks night=mid_block:1\
|--adapter night:0 --adapter-blocks night=up_blocks:1\
|--adapter night --adapter stripes --adapter-range night=0:0.5 --adapter-range stripes=0.5:1")
readonly OPTIONS

# run COMMAND...: prints the command as one would type it, then runs it.
run() {
  local word
  printf '$'
  for word in "$@"; do
    case $word in
      *' '*) printf ' "%s"' "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '\n'
  "$@"
}

# paint NAME
paint() {
  local name=$1 row=0 column prompt options columns pictures=()
  IFS='|' read -ra columns <<<"${OPTIONS[$name]}"
  mkdir -p "$OUT/$name"
  for prompt in "${PROMPTS[@]}"; do
    row=$((row + 1))
    column=0
    for options in "${columns[@]}"; do
      column=$((column + 1))
      options=${options//ROW/$row}
      if [ -f "$options" ]; then
        pictures+=("$options")
        continue
      fi
      pictures+=("$OUT/$name/$row-$column.png")
      [[ $options == *--steps* ]] || options="$options --steps 20"
      # shellcheck disable=SC2086 # a column's options are words
      run "$CLIENT" --server "$SERVER" generate "$prompt" --seed $((SEED + row - 1)) $options --out "${pictures[-1]}" \
        2> >(grep -v '^image .* step' >&2) | grep '^\$'
    done
  done
  run "$CLIENT" sheet "${pictures[@]}" --columns "${#columns[@]}" --out "$OUT/$name.png"
}

[ $# -ge 3 ] || { sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
readonly SERVER=$1 OUT=$2
for name in "${@:3}"; do
  [ -n "${OPTIONS[$name]:-}" ] || { printf 'paint_sheets: no sheet "%s"; there are adapters, controls, guidance, steps, parts\n' "$name" >&2; exit 2; }
  paint "$name"
done
