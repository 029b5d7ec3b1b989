"""Generates the stubs from proto/ while the package is built; all else is in pyproject.toml."""

import pathlib
import re
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
VERSION = re.search(r"project\(hotlora VERSION ([\d.]+)", (REPOSITORY / "CMakeLists.txt").read_text()).group(1)


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        from grpc_tools import protoc

        proto = REPOSITORY / "proto"
        well_known = pathlib.Path(protoc.__file__).parent / "_proto"
        files = sorted(str(file) for file in (proto / "hotlora").rglob("*.proto"))
        arguments = ["protoc", f"-I{proto}", f"-I{well_known}"]
        arguments += [f"--{kind}_out={self.build_lib}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(arguments + files) != 0:
            raise SystemExit("protoc failed")
        package = pathlib.Path(self.build_lib) / "hotlora"
        (package / "v1/__init__.py").touch()
        shutil.copyfile(REPOSITORY / "deploy/service_config.json", package / "service_config.json")


setup(version=VERSION, cmdclass={"build_py": BuildWithStubs})
