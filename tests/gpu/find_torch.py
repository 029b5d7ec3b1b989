"""Finds LibTorch on a machine: the site-packages folder of a Python that has torch of the release that hotlora is built with.

Standard library only; torch is not imported, which would take seconds.
"""

import dataclasses
import glob
import json
import os
import pathlib
import subprocess
import sys

# Prints where a Python has torch, and which release.
ASK = """
import importlib.metadata, importlib.util, json, os
found = importlib.util.find_spec("torch")
folder = next(iter(found.submodule_search_locations)) if found else None
print(json.dumps({"site": folder and os.path.dirname(os.path.realpath(folder)),
                  "version": folder and importlib.metadata.version("torch")}))
"""
USUAL = ("/opt/*/bin/python3", "/opt/*/.venv/bin/python3", "/opt/*/envs/*/bin/python3", "/usr/local/bin/python3",
         "/usr/bin/python3", "~/*/bin/python3", "~/.venv/bin/python3", "~/.cache/hotlora/*/bin/python3")


class NotFound(Exception):
    """The text says where was looked, and what to do."""


def pythons():
    """Every python3 that is on the PATH or where Pythons usually are, each once, the nearest first."""
    on_path = [os.path.join(folder, "python3") for folder in os.environ.get("PATH", "").split(":") if folder]
    usual = [path for pattern in USUAL for path in sorted(glob.glob(os.path.expanduser(pattern)))]
    # A link into a virtual environment is another Python than what it leads to, so links are not followed.
    return list(dict.fromkeys(path for path in [sys.executable, *on_path, *usual] if path and os.access(path, os.X_OK)))


def ask(python):
    """The JSON that ASK prints in that Python, or None if it fails."""
    try:
        done = subprocess.run([python, "-c", ASK], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


@dataclasses.dataclass
class Found:
    python: str
    folder: pathlib.Path  # site-packages
    version: str


def find_torch(version, told=None):
    """The first torch of that release; `told` is a folder to take instead of asking Pythons."""
    if told is not None:
        folder = pathlib.Path(told).resolve()
        if not (folder / "torch/lib/libtorch_cpu.so").exists():
            raise NotFound(f"{folder} does not hold torch/lib/libtorch_cpu.so; --site takes a site-packages folder")
        versions = [path.stem.split("-")[1] for path in folder.glob("torch-*.dist-info")]
        candidates = [(sys.executable, {"site": str(folder), "version": versions[0] if versions else "of unknown release"})]
    else:
        candidates = ((python, ask(python)) for python in pythons())
    seen = []
    for python, found in candidates:
        if not found or not found["site"]:
            seen.append(f"{python} has no torch")
        elif found["version"].partition("+")[0] != version:
            seen.append(f"{found['site']} has torch {found['version']}")
        elif not pathlib.Path(found["site"], "torch/lib/libtorch_cuda.so").exists():
            seen.append(f"{found['site']} has torch {found['version']} without CUDA")
        else:
            return Found(python, pathlib.Path(found["site"]), found["version"])
    raise NotFound(f"torch {version} is needed: {'; '.join(seen)}. Install it, or name its site-packages folder by --site.")
