#!/usr/bin/env python3
"""Checks what a run on a GPU machine left: results.json against its schema, and the number, sizes and names of the files.

usage: check_results.py FOLDER [--ran FILE] [--rehearsed] [--killed]
  --ran FILE   what the run printed: each stage that it names as ended must be in results.json as it says
  --rehearsed  it was on the simulated device or a CPU: what needs a GPU is unavailable, and all else is ok
  --killed     the run was killed: it need not be complete

Needs the Python of tests/deploy/requirements.txt. Exit status 0: all is as it should be.
"""

import argparse
import json
import pathlib
import re
import sys

import jsonschema

SCHEMA = json.loads(pathlib.Path(__file__).with_name("results.schema.json").read_text())
MOST_FILES, MOST_BYTES = 8, 16 << 20
# Stages that a machine without a GPU cannot run.
NEED_A_GPU = {"trace", "kernels.memcheck", "kernels.racecheck"}
NEED_MORE = {"compare"}  # diffusers


def schema_errors(results):
    errors = jsonschema.Draft202012Validator(SCHEMA).iter_errors(results)
    return [f"results.json: {'/'.join(map(str, error.absolute_path)) or 'the whole'}: {error.message[:300]}" for error in errors]


def file_errors(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    errors = [f"{len(files)} files; at most {MOST_FILES} are brought back"] if len(files) > MOST_FILES else []
    for path in files:
        name = str(path.relative_to(folder))
        if path.stat().st_size > MOST_BYTES:
            errors.append(f"{name} has {path.stat().st_size} bytes; at most {MOST_BYTES} are brought back")
        if not re.fullmatch(r"([A-Za-z0-9._-]+/){0,2}[A-Za-z0-9._-]+", name):
            errors.append(f"{name}: names have letters, digits, '.', '_' and '-', and at most two folders")
    return errors


def said(text):
    """{stage: status} of all stages that a run said to be over."""
    return dict(re.findall(r"^([a-z0-9_.]+): (ok|failed|unavailable|timed_out|not_run) in ", text, re.MULTILINE))


def ran_errors(results, text):
    now = {stage["stage"]: stage["status"] for stage in results["stages"]}
    return [f"{stage} was {status}, but results.json has {now.get(stage, 'nothing of it')}" for stage, status in said(text).items()
            if now.get(stage) != status]


def rehearsal_errors(results):
    errors = [] if results["stages"] else ["no stage was run"]
    for stage in results["stages"]:
        allowed = {"unavailable"} if stage["stage"] in NEED_A_GPU else {"ok", "unavailable"} if stage["stage"] in NEED_MORE else {"ok"}
        if stage["status"] not in allowed:
            errors.append(f"{stage['stage']} is {stage['status']}, not {' or '.join(sorted(allowed))}: {stage.get('reason')}")
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--ran", type=pathlib.Path)
    parser.add_argument("--rehearsed", action="store_true")
    parser.add_argument("--killed", action="store_true")
    args = parser.parse_args()
    results = json.loads((args.folder / "results.json").read_text())
    errors = schema_errors(results) + file_errors(args.folder)
    if args.ran:
        errors += ran_errors(results, args.ran.read_text())
    if args.rehearsed:
        errors += rehearsal_errors(results)
    if not args.killed and not results["complete"]:
        errors.append("the run did not reach its end")
    statuses = [f"{stage['stage']} {stage['status']}" for stage in results["stages"]]
    print(*errors, f"{args.folder}: {', '.join(statuses) or 'no stages'}: {len(errors)} errors", sep="\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
