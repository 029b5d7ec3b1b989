"""results.json of a run on a GPU machine (results.schema.json). Standard library only.

The file is replaced as a whole after each change, so it is valid at every moment, also if the run is killed.
"""

import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

FORMAT = 1


def first_line(*words):
    """The first line that a command prints, or None if it cannot be run or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def first_match(file, start):
    """The rest of the first line of a file that begins so, or None."""
    try:
        lines = pathlib.Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(start)[2].strip(" \t:=\"") for line in lines if line.startswith(start)), None)


def gpus():
    """What nvidia-smi says of each device; an empty list without it."""
    fields = ("name", "driver_version", "memory.total", "compute_cap")
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return []
    try:
        done = subprocess.run([smi, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], capture_output=True,
                              text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return [{"name": row[0], "driver": row[1], "memory_mib": int(row[2]) if row[2].isdigit() else None, "compute_capability": row[3]}
            for row in rows if len(row) == len(fields)]


def machine():
    memory = first_match("/proc/meminfo", "MemTotal")
    return {
        "gpus": gpus(),
        "system": first_match("/etc/os-release", "PRETTY_NAME"),
        "kernel": platform.release(),
        "glibc": platform.libc_ver()[1] or None,
        "processor": first_match("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "python": platform.python_version(),
        "nvcc": (first_line("nvcc", "--version") and last_line("nvcc", "--version")),
    }


def last_line(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return next(reversed(done.stdout.splitlines()), None)


class Results:
    """Times are seconds since the begin, by the monotonic clock."""

    def __init__(self, folder, begin, **facts):
        self.file, self.begin = pathlib.Path(folder) / "results.json", begin
        self.content = {"format": FORMAT, "complete": False, "started": datetime.datetime.now(datetime.timezone.utc).isoformat(
            timespec="seconds"), "seconds": 0.0, "machine": machine(), **facts, "stages": []}

    def write(self):
        self.content["seconds"] = round(time.monotonic() - self.begin, 3)
        new = self.file.with_suffix(".new")
        with new.open("w", encoding="utf-8") as out:
            json.dump(self.content, out, indent=1, allow_nan=False)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        new.replace(self.file)
