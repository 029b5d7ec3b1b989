#!/usr/bin/env python3
"""Runs everything that is known about hotlora on a GPU, from the pack of tests/gpu/pack.sh, and writes results.json.

Needs a driver, a Python with torch, and this repository's files; neither network, compiler nor packages. Into $OUT go
results.json (results.schema.json), rewritten after each stage; lines.jsonl, the line of each finding as soon as it is made;
log.txt, what the stages printed; and pictures.png. Standard library only.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

from find_torch import NotFound, find_torch
from results import Results
from stage_process import Log, StageProcess

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
PACK = SOURCE / "build/gpu-pack"
UNAVAILABLE = 77  # exit status of a stage that this machine cannot run
LEAST = 5.0  # seconds; a stage that would get less is not begun
RESERVE = 10.0  # seconds at the end, for what is not a stage


class SetupError(Exception):
    """Nothing can be run. The text says why, and what to do."""


@dataclasses.dataclass
class Stage:
    name: str
    limit: float  # seconds at most
    command: list  # {seconds} is replaced by what the stage has
    refusal: str = ""  # what a failing command prints if the machine cannot run it
    missing: str = ""  # why there is no command to run


class Interrupted(Exception):
    """The run is to end now."""


class Run:
    def __init__(self, args):
        self.args, self.begin = args, time.monotonic()
        self.out = pathlib.Path(args.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        for name in ("results.json", "results.new", "lines.jsonl", "log.txt", "pictures.png"):
            (self.out / name).unlink(missing_ok=True)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="hotlora-gpu-"))
        self.log = Log(self.out / "log.txt")
        self.results = Results(self.out, self.begin, command=shlex.join(["tests/gpu/run.sh", *sys.argv[1:]]),
                               device=args.device, size=args.size, budget_seconds=args.seconds)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HOTLORA_")}

    def left(self):
        return self.args.seconds - RESERVE - (time.monotonic() - self.begin)

    # --- what must be there

    def set_up(self):
        self.unpack()
        self.link_torch()
        self.check_libraries()

    def unpack(self):
        pack = pathlib.Path(self.args.pack)
        if not (pack / "pack.tar.xz").exists():
            raise SetupError(f"{pack}/pack.tar.xz is not there; tests/gpu/pack.sh makes it, and it must travel here "
                             "(carry build/gpu-pack)")
        with tarfile.open(pack / "pack.tar.xz") as tar:
            tar.extractall(self.work)
        for wheel in pack.glob("*.whl"):
            shutil.unpack_archive(wheel, self.work / "python", "zip")
        self.results.content["pack"] = json.loads((self.work / "pack.json").read_text())

    def link_torch(self):
        """The run paths of the programs lead to lib/hotlora/libtorch, as where they are installed."""
        wanted = self.results.content["pack"]["torch"]
        try:
            self.site, version = find_torch(wanted, self.args.site)
        except NotFound as error:
            raise SetupError(str(error)) from error
        self.results.content["torch"] = {"version": version, "folder": str(self.site)}
        libtorch = self.work / "lib/hotlora/libtorch"
        libtorch.mkdir()
        for name in ("torch", "nvidia"):
            (libtorch / name).symlink_to(self.site / name)
        folders = [self.work / "lib/debian", self.work / "lib/hotlora", self.site / "torch/lib", *self.site.glob("nvidia/*/lib")]
        self.environment["LD_LIBRARY_PATH"] = ":".join([*map(str, folders), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        if (self.work / "python").exists():
            self.environment["PYTHONPATH"] = str(self.work / "python")

    def check_libraries(self):
        """The loader finds each library that a program of the pack needs, in the version that it needs."""
        missing = []
        for file in [*sorted((self.work / "bin").iterdir()), self.work / "lib/hotlora/libhotlora_cuda.so"]:
            done = subprocess.run(["ldd", file], capture_output=True, text=True, env=self.environment)
            self.log.say(f"--- ldd {file.name}\n{done.stdout}{done.stderr}")
            missing += [f"{file.name}: {line.strip()}" for line in (done.stdout + done.stderr).splitlines() if "not found" in line]
        if missing:
            raise SetupError(f"libraries are missing: {'; '.join(missing)}. Looked in {self.environment['LD_LIBRARY_PATH']}")

    # --- stages
