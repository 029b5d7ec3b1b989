"""results.json of a run on a GPU machine (results.schema.json). Standard library only.

The file is replaced as a whole after each change, so it is valid at every moment, also if the run is killed.
"""

import collections
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import time

FORMAT = 1


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
    }


class Results:
    """`content` is what the file holds. Begins without stages; each method writes the file."""

    def __init__(self, folder, begin, **facts):
        """`begin` is the begin of the run by the monotonic clock."""
        self.file, self.begin = pathlib.Path(folder) / "results.json", begin
        self.content = {"format": FORMAT, "complete": False, "ok": False,
                        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "seconds": 0.0,
                        **facts, "machine": machine(), "pack": None, "torch": None, "setup_error": None, "stages": []}

    def fail_setup(self, reason):
        self.content["setup_error"] = reason
        self.write()

    def begin_stages(self, entries):
        self.content["stages"] = entries
        self.write()

    def put(self, entry):
        """In the place of the stage's former entry."""
        stages = self.content["stages"]
        stages[[each["stage"] for each in stages].index(entry["stage"])] = dict(entry)
        self.write()

    def complete(self):
        self.content["complete"] = True
        self.content["ok"] = all(stage["status"] in ("ok", "unavailable") for stage in self.content["stages"])
        self.write()

    def counts(self):
        """How many stages have which status."""
        return collections.Counter(stage["status"] for stage in self.content["stages"])

    def write(self):
        self.content["seconds"] = round(time.monotonic() - self.begin, 3)
        new = self.file.with_suffix(".new")
        with new.open("w", encoding="utf-8") as out:
            json.dump(self.content, out, indent=1, allow_nan=False)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        new.replace(self.file)
