"""The pack of tests/gpu/pack.sh, unpacked and joined with the LibTorch of the machine. Standard library only."""

import json
import os
import pathlib
import shutil
import subprocess
import tarfile

from find_torch import NotFound, find_torch

SOURCE = pathlib.Path(__file__).resolve().parents[2]
LOADER = "/lib64/ld-linux-x86-64.so.2"


class SetupError(Exception):
    """Nothing can be run. The text says why, and what to do."""


class Pack:
    """Laid out as an installation; the run paths of the programs lead to lib/hotlora/libtorch, which links to the machine's.

    environment: of the programs, which find their libraries by it
    python: the Python that has torch, with python_environment
    """

    def __init__(self, folder, log):
        self.folder, self.log = folder, log
        self.python_environment = {name: value for name, value in os.environ.items() if not name.startswith("HOTLORA_")}
        self.environment = {**self.python_environment, "HOTLORA_TEST_SOURCE": str(SOURCE)}  # where golden files are

    def unpack(self, pack):
        """What pack.sh wrote about the pack."""
        if not (pack / "pack.tar.xz").exists():
            raise SetupError(f"{pack}/pack.tar.xz is not there; tests/gpu/pack.sh makes it on a machine that can build, and it "
                             "must be brought here")
        try:
            with tarfile.open(pack / "pack.tar.xz") as tar:
                tar.extractall(self.folder)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise SetupError(f"{pack}/pack.tar.xz cannot be unpacked into {self.folder}: {error}") from error
        for wheel in pack.glob("*.whl"):
            shutil.unpack_archive(wheel, self.folder / "python", "zip")
            self.python_environment["PYTHONPATH"] = str(self.folder / "python")
        return json.loads((self.folder / "pack.json").read_text())

    def link_torch(self, version, told):
        """Where torch is, and which."""
        try:
            found = find_torch(version, told)
        except NotFound as error:
            raise SetupError(str(error)) from error
        libtorch = self.folder / "lib/hotlora/libtorch"
        libtorch.mkdir()
        for name in ("torch", "nvidia"):
            (libtorch / name).symlink_to(found.folder / name)
        folders = [self.folder / "lib/debian", self.folder / "lib/hotlora", found.folder / "torch/lib",
                   *sorted(found.folder.glob("nvidia/*/lib"))]
        theirs = os.environ.get("LD_LIBRARY_PATH")  # the driver may be there
        self.environment["LD_LIBRARY_PATH"] = ":".join([*map(str, folders), *([theirs] if theirs else [])])
        self.python = found.python
        return {"version": found.version, "folder": str(found.folder)}

    def check_libraries(self):
        """The loader finds each library that a program of the pack needs, in the version that it needs."""
        missing = []
        for file in [*sorted((self.folder / "bin").iterdir()), self.folder / "lib/hotlora/libhotlora_cuda.so"]:
            try:
                done = subprocess.run([LOADER, file], capture_output=True, text=True, timeout=60,  # as ldd does it
                                      env={**self.environment, "LD_TRACE_LOADED_OBJECTS": "1"})
            except subprocess.TimeoutExpired as error:
                raise SetupError(f"the loader does not end within 60 s for {file.name}") from error
            said = done.stdout + done.stderr
            self.log.say(f"--- libraries of {file.name}\n{said}")
            bad = [line.strip() for line in said.splitlines() if "not found" in line]
            if done.returncode != 0 and not bad:
                bad = [said.strip() or f"the loader ends with {done.returncode}"]
            missing += [f"{file.name}: {line}" for line in bad]
        if missing:
            raise SetupError(f"libraries are missing: {'; '.join(missing)}. Searched are the folders of LD_LIBRARY_PATH: "
                             f"{self.environment['LD_LIBRARY_PATH']}")
