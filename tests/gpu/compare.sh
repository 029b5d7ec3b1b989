#!/usr/bin/env bash
# Compares UNet calls with diffusers', eager and compiled, on a GPU machine that has it: tests/gpu/run.sh with the stage
# `compare` alone (compare.py), which has all of the run's time then. Takes the options of run.sh.
#
# usage: OUT=FOLDER tests/gpu/compare.sh [OPTION...]
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" --stages compare "$@"
