"""The server of preset cuda on a machine without a GPU: what it loads, and what it says if something is missing.

usage: program_test.py C++_COMPILER LIBTORCH_HEADERS [unittest's arguments]
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

COMPILER, HEADERS = sys.argv[1:3]
SOURCE = pathlib.Path(__file__).resolve().parents[2]
SERVER = pathlib.Path(os.environ["HOTLORA_TEST_BIN"]) / "hotlora-server"
MODEL = SOURCE / "deploy/demo/model"
LIBRARY = "libhotlora_cuda.so"


def clean_environment(**variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOTLORA_", "LD_"))}
    return {**kept, **variables}


def check(device, **variables):
    """Everything but serving, with the smallest tiers."""
    return subprocess.run([SERVER, "--check", "--model", MODEL, "--device", device, "--adapter-host-bytes", "1MiB",
                           "--adapter-device-bytes", "1MiB"], capture_output=True, text=True, env=clean_environment(**variables))


class ProgramTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def libraries(self):
        """The CUDA libraries that runs with LD_DEBUG loaded."""
        log = "".join(path.read_text() for path in self.folder.glob("loaded.*"))
        return set(re.findall(r"calling init: \S*/(lib(?:hotlora|torch|c10)_cuda\.so)", log))

    def compile_library(self, *words, text):
        subprocess.run([COMPILER, "-std=c++17", "-shared", "-fPIC", "-x", "c++", "-", "-x", "none", "-I", SOURCE, "-I", HEADERS, "-o",
                        self.folder / LIBRARY, "-Wl,--no-as-needed", *words], check=True, input=text, text=True)

    def refused(self, *says, device="cuda", **variables):
        run = check(device, **variables)
        self.assertEqual(run.returncode, 1, run)
        last = run.stderr.splitlines()[-1]
        self.assertTrue(last.startswith(f'hotlora-server: device is "{device}"; '), last)
        for words in says:
            self.assertIn(words, last)

    def refuses_library(self, *says):
        """With the library of this test in place of the real one."""
        self.refused(*says, LD_LIBRARY_PATH=str(self.folder))

    def test_version(self):
        run = subprocess.run([SERVER, "--version"], capture_output=True, text=True, env=clean_environment())
        self.assertEqual(run.returncode, 0, run)
        self.assertRegex(run.stdout, r"^hotlora-server \d+\.\d+\.\d+\n$")

    def test_says_that_there_is_no_gpu(self):
        for device in ("cuda", "cuda:1"):
            self.refused("CUDA finds no device", "nvidia-smi", "set device to cpu", device=device)

    def test_loads_cuda_unless_the_device_is_cpu(self):
        debug = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(self.folder / "loaded")}
        self.assertEqual(check("cpu", **debug).returncode, 0)
        self.assertEqual(self.libraries(), set())
        self.assertEqual(check("cuda", **debug).returncode, 1)
        self.assertEqual(self.libraries(), {LIBRARY, "libtorch_cuda.so", "libc10_cuda.so"})

    def test_names_a_library_that_cannot_be_read(self):
        (self.folder / LIBRARY).write_text("not a library")
        self.refuses_library(LIBRARY, "does not load", "deploy/install_dependencies.sh --cuda")

    def test_names_what_its_library_lacks(self):
        missing = self.folder / "libmissing.so.9"
        subprocess.run([COMPILER, "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libmissing.so.9", "-o", missing], check=True)
        self.compile_library(missing, text="")
        missing.unlink()
        self.refuses_library("libmissing.so.9", "deploy/install_dependencies.sh --cuda")

    def test_refuses_a_library_of_another_build(self):
        self.compile_library(text="")
        self.refuses_library("does not belong to this", "install both from one build")
        self.compile_library(text='extern "C" { extern const unsigned long hotlora_cuda_kernels[2] = {8, 0}; }')
        self.refuses_library("does not belong to this", "install both from one build")
        self.compile_library(text='#include "src/tensor/device_kernels.h"\n'
                                  'extern "C" { extern const hotlora::DeviceKernels hotlora_cuda_kernels = '
                                  '{sizeof(hotlora::DeviceKernels), "0.0.9", nullptr, nullptr}; }')
        self.refuses_library("of release 0.0.9", "install both from one build")

    def test_auto_says_why_it_is_the_cpu(self):
        for says in ("CUDA finds no device", f"{LIBRARY} does not load"):
            run = check("auto", LD_LIBRARY_PATH=str(self.folder))
            self.assertEqual(run.returncode, 0, run)
            self.assertEqual(run.stderr.count(f"no CUDA: {says}"), 1, run.stderr)
            self.assertIn("on cpu", run.stdout)
            (self.folder / LIBRARY).write_text("not a library")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
