"""The lines of a stage, as probe.h describes them: written by stages in Python, and read by the run. Standard library only."""

import argparse
import json
import os
import random
import shlex
import statistics
import sys
import time

EXIT_STATUS = {"ok": 0, "failed": 1, "unavailable": 3}
PARTS = {"figure": "figures", "check": "checks", "part": "unavailable"}


def interval(values, draws=4000):
    """Bootstrap 95 % interval of the median."""
    source = random.Random(0)
    medians = sorted(statistics.median(source.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


class Unavailable(Exception):
    """The machine lacks what the stage needs; the text says what."""


class StageWriter:
    """What a stage finds, written at once to the end of a file."""

    def __init__(self, stage, args):
        self.begin, self.limit = time.monotonic(), args.seconds
        self.file = os.open(args.out, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.line = {"stage": stage, "device": args.device, "size": args.size, "command": shlex.join(sys.argv), "figures": [],
                     "checks": [], "unavailable": [], "notes": {}}

    def seconds_left(self):
        return self.limit - (time.monotonic() - self.begin)

    def figure(self, name, unit, values):
        """One figure of repeated values."""
        self.interval(name, unit, values, min(values), max(values))

    def interval(self, name, unit, values, low, high):
        """One figure with low and high of the caller's."""
        self._add("figure", {"name": name, "unit": unit, "median": statistics.median(values), "low": low, "high": high,
                             "repeats": len(values)})

    def check(self, name, passed):
        """A plain yes or no. A no makes the stage "failed"."""
        self._add("check", {"name": name, "worst": None, "tolerance": None, "passed": bool(passed)})

    def leave_out(self, name, reason):
        """What could not be measured, and why. The stage can still be "ok"."""
        self._add("part", {"name": name, "reason": reason})

    def note(self, name, value):
        self.line["notes"][name] = value
        self._write({"stage": self.line["stage"], "note": {name: value}})

    def run(self, body):
        """Calls `body` and writes the stage's own line. Returns the exit status."""
        status, reason = "ok", ""
        try:
            body()
        except Unavailable as error:
            status, reason = "unavailable", str(error)
        except Exception as error:  # whatever it was, the line must be written
            status, reason = "failed", f"{type(error).__name__}: {error}"
        bad = [check["name"] for check in self.line["checks"] if not check["passed"]]
        if status == "ok" and bad:
            status, reason = "failed", f"{len(bad)} checks did not pass: {'; '.join(bad)}"
        if reason:
            print(f"stage {self.line['stage']}: {reason}", file=sys.stderr)
        self._write({**self.line, "status": status, "seconds": round(time.monotonic() - self.begin, 3),
                     **({"reason": reason} if reason else {})})
        return EXIT_STATUS[status]

    def _add(self, kind, value):
        self.line[PARTS[kind]].append(value)
        self._write({"stage": self.line["stage"], kind: value})

    def _write(self, line):
        os.write(self.file, json.dumps(line).encode() + b"\n")  # one call, so that a kill leaves whole lines


def stage_options(description):
    """The options that every stage takes, in Python as in gpu_probe."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="file to append the lines to")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, cpu or sim:N")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--seconds", type=float, required=True, help="time limit")
    return parser


def found_by(stage, lines):
    """What the lines say of a stage: its own line, or what it found until it was ended. `lines` is the text of the file."""
    parts = {"figures": [], "checks": [], "unavailable": [], "notes": {}}
    for text in lines.splitlines():
        try:
            line = json.loads(text, parse_constant=lambda name: None)  # a number that is not finite is null
        except ValueError:
            continue  # the stage was killed while it wrote
        if line.get("stage") != stage:
            continue
        if "status" in line:
            return line
        for kind, name in PARTS.items():
            if kind in line:
                parts[name].append(line[kind])
        parts["notes"].update(line.get("note", {}))
    return parts
