#!/usr/bin/env python3
"""Tries and measures hotlora on a GPU, from the pack of tests/gpu/pack.sh, and writes what it finds to results.json.

Needs a driver, a Python with torch, and this repository's files; neither network, compiler nor packages. Into $OUT (out/gpu)
go results.json (results.schema.json), rewritten after each stage; lines.jsonl, a line for each finding as soon as it is made
(probe.h); log.txt, what the stages printed; and pictures.png. Exit status 0: no stage failed or was left out for lack of
time. Standard library only.
"""

import argparse
import dataclasses
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from pack import Pack, SetupError
from results import Results
from stage_line import EXIT_STATUS, found_by
from stage_process import Log, StageProcess

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
LEAST = 15.0  # seconds; a stage that would get less is not begun: it might not even load CUDA
RESERVE = 10.0  # seconds at the end, for what is not a stage
GRACE = 0.15  # share of a stage's time, 5 s at most: a stage that does not end by itself until then is ended

@dataclasses.dataclass
class Stage:
    """A command that takes --device, --size, --seconds and --out, and writes lines (probe.h). Those of NAME.TOOL are lines of the
    stage NAME."""

    name: str
    limit: float  # seconds at most
    command: list
    size: str
    environment: dict
    missing: str = ""  # why it cannot be run here at all
    refusal: bytes = b""  # what it prints if the machine refuses it


class Interrupted(Exception):
    """The run is to end now."""


def interrupt(number, frame):
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Run:
    def __init__(self, args):
        self.args, self.begin = args, time.monotonic()
        self.out = pathlib.Path(args.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        for name in ("results.json", "results.new", "lines.jsonl", "log.txt", "pictures.png"):
            (self.out / name).unlink(missing_ok=True)
        self.lines = self.out / "lines.jsonl"
        self.log = Log(self.out / "log.txt")
        self.results = Results(self.out, self.begin, command=shlex.join(["tests/gpu/run.sh", *sys.argv[1:]]),
                               device=args.device, size=args.size, budget_seconds=args.seconds)
        self.results.write()

    def run(self):
        """Returns the exit status."""
        for number in SIGNALS:
            signal.signal(number, interrupt)
        with tempfile.TemporaryDirectory(prefix="hotlora-gpu-") as folder:
            self.pack = Pack(pathlib.Path(folder), self.log)
            try:
                self.set_up()
                stages = self.stages()
                self.results.begin_stages([self.entry(stage) for stage in stages])
                for stage in stages:
                    self.run_stage(stage)
                self.results.complete()
            except SetupError as error:
                self.results.fail_setup(str(error))
                self.say(f"cannot begin: {error}")
            except Interrupted as error:
                self.say(f"ended by {error}: what is not in {self.results.file} was not done")
        counts = self.results.counts()
        self.say(f"{', '.join(f'{number} {status}' for status, number in counts.items()) or 'nothing was run'}; "
                 f"{time.monotonic() - self.begin:.0f} s; {self.results.file}")
        return 0 if self.results.content["ok"] else 1

    def say(self, text):
        print(text, flush=True)
        self.log.say(f"--- {text}")

    def set_up(self):
        content = self.results.content
        content["pack"] = self.pack.unpack(pathlib.Path(self.args.pack))
        content["torch"] = self.pack.link_torch(content["pack"]["torch"], self.args.site)
        self.pack.check_libraries()
        self.say(f"torch {content['torch']['version']} in {content['torch']['folder']}; nothing is missing")

    # --- stages

    def stages(self):
        """All stages in order: gpu_probe's own, and those that need more than one program."""
        probe = str(self.pack.folder / "bin/gpu_probe")
        try:
            done = subprocess.run([probe, "--list"], capture_output=True, text=True, env=self.pack.environment, timeout=60)
        except subprocess.TimeoutExpired as error:
            raise SetupError("gpu_probe --list does not end within 60 s") from error
        if done.returncode != 0:
            raise SetupError(f"gpu_probe --list fails with {done.returncode}: {done.stderr.strip()}")
        stages = []
        for line in done.stdout.splitlines():
            name, limit = line.split()
            stages.append(Stage(name, float(limit), [probe, "--stage", name], self.args.size, self.pack.environment))
        python_options = ["--bin", str(self.pack.folder / "bin"), "--libraries", self.pack.environment["LD_LIBRARY_PATH"]]
        stages.append(Stage("server", 180, [sys.executable, str(HERE / "server_stage.py"), *python_options, "--pictures",
                                           str(self.out / "pictures.png")], self.args.size, self.pack.python_environment))
        if any(stage.name == "kernels" for stage in stages):
            stages += [self.sanitized(probe, tool) for tool in ("memcheck", "racecheck")]
        # The last stage may take what is left.
        stages.append(Stage("compare", self.args.seconds, [self.pack.python, str(HERE / "compare.py"), *python_options], self.args.size,
                            self.pack.python_environment))
        wanted = self.args.stages.split(",") if self.args.stages else [stage.name for stage in stages]
        unknown = set(wanted) - {stage.name for stage in stages}
        if unknown:
            raise SetupError(f"--stages names {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in stages)}")
        return [stage for stage in stages if stage.name in wanted]

    def sanitized(self, probe, tool):
        """The smallest shapes of the kernels' stage under a tool of compute-sanitizer."""
        usual = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
        sanitizer = shutil.which("compute-sanitizer", path=usual)
        missing = "" if sanitizer else "compute-sanitizer is neither on the PATH nor in /usr/local/cuda/bin"
        if not self.args.device.startswith("cuda"):
            missing = f"compute-sanitizer needs a CUDA device; this run's is {self.args.device}"
        # Only our own kernels; and not what the driver answers to questions that LibTorch asks on purpose.
        command = [sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no",
                   "--kernel-regex", "kns=MergeKernel", probe, "--stage", "kernels"]
        return Stage(f"kernels.{tool}", 60, command, "tiny", self.pack.environment, missing, b"Device not supported")

    def entry(self, stage):
        """A stage's entry in results.json before it has begun."""
        return {"stage": stage.name, "status": "not_run", "reason": "the run ended before this stage", "seconds": 0.0,
                "limit_seconds": stage.limit, "exit_status": None, "command": shlex.join(stage.command),
                "device": self.args.device, "size": stage.size, "figures": [], "checks": [], "unavailable": [], "notes": {}}

    def run_stage(self, stage):
        left = self.args.seconds - RESERVE - (time.monotonic() - self.begin)
        entry = self.entry(stage)
        limit = min(stage.limit, left)
        if stage.missing:
            entry.update(status="unavailable", reason=stage.missing)
        elif limit < LEAST:
            entry.update(reason=f"{max(left, 0.0):.0f} s of the run's {self.args.seconds:g} s were left")
        else:
            self.run_command(stage, limit, entry)
        self.results.put(entry)
        self.say(f"{stage.name}: {entry['status']} in {entry['seconds']:.1f} s{': ' if entry.get('reason') else ''}"
                 f"{entry.get('reason', '')}")

    def run_command(self, stage, limit, entry):
        soft = limit - min(5.0, GRACE * limit)
        command = [*stage.command, "--device", self.args.device, "--size", stage.size, "--seconds", f"{soft:.1f}", "--out",
                   str(self.lines)]
        entry.update(status="interrupted", reason="the run ended while this stage was under way", limit_seconds=round(limit, 3),
                     command=shlex.join(command))
        self.results.put(entry)
        self.log.say(f"--- {stage.name}: {entry['command']}")
        begin, lines_before, log_before = time.monotonic(), size_of(self.lines), self.log.size()
        try:
            status = StageProcess(command, stage.environment, self.log, SOURCE).run(limit)
        except OSError as error:
            self.log.say(f"cannot be started: {error}")
            status = 127
        finally:
            found = found_by(stage.name.partition(".")[0], read_from(self.lines, lines_before))
            entry.update({name: found[name] for name in ("figures", "checks", "unavailable", "notes")},
                         seconds=round(time.monotonic() - begin, 3))
            self.results.put(entry)
        entry["exit_status"] = status
        entry["status"], reason = judge(stage, limit, status, found, read_from(self.out / "log.txt", log_before).encode())
        entry["reason"] = reason
        if not reason:
            del entry["reason"]


def judge(stage, limit, exit_status, found, printed):
    """(status, reason) of a stage that has ended."""
    if exit_status is None:
        return "timed_out", found.get("reason", f"it was ended after {limit:.0f} s; what it found until then is kept")
    if exit_status != 0 and stage.refusal and stage.refusal in printed:
        return "unavailable", f"{pathlib.Path(stage.command[0]).name} says: {stage.refusal.decode()}"
    if "status" not in found:
        ended = f"by {signal.Signals(-exit_status).name}" if exit_status < 0 else f"with exit status {exit_status}"
        return "failed", f"it ended {ended} before it wrote its line; see log.txt"
    if found["status"] != "failed" and exit_status != EXIT_STATUS[found["status"]]:
        return "failed", f"it says {found['status']}, but its exit status is {exit_status}; see log.txt"
    if found["status"] == "failed" and found.get("reason", "").startswith("the time limit of"):  # it ended itself
        return "timed_out", found["reason"]
    return found["status"], found.get("reason", "")


def size_of(file):
    return file.stat().st_size if file.exists() else 0


def read_from(file, offset):
    if not file.exists():
        return ""
    with file.open("rb") as content:
        content.seek(offset)
        return content.read().decode(errors="replace")


def main():
    parser = argparse.ArgumentParser(prog="tests/gpu/run.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cuda:N; cpu or sim:0 to rehearse")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: the smallest shapes, to rehearse")
    parser.add_argument("--seconds", type=float, default=540, help="of the whole run at most; 540")
    parser.add_argument("--stages", help="names with commas between; by default all")
    parser.add_argument("--site", help="site-packages folder with torch, instead of asking the machine's Pythons")
    parser.add_argument("--pack", default=str(SOURCE / "build/gpu-pack"), help="folder that tests/gpu/pack.sh made")
    parser.add_argument("--out", default=os.environ.get("OUT") or "out/gpu", help="folder of the results; $OUT, or out/gpu")
    return Run(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
