"""What nvcc made of each kernel of libhotlora_cuda.so, for each kind of GPU: registers, local memory, wide accesses.

usage: machine_code_test.py LIBRARY FOLDER_OF_CUOBJDUMP [unittest's arguments]

A kernel that spills registers, or uses more of them than here, runs at a lower speed, which no test without a GPU sees. If
a change makes the figures better, take the limits along.
"""

import os
import pathlib
import re
import subprocess
import sys
import unittest
from dataclasses import dataclass

LIBRARY, UTILITIES = sys.argv[1], pathlib.Path(sys.argv[2]) / "nvidia/cu13/bin"
ARCHITECTURES = {"sm_80", "sm_86", "sm_89", "sm_90"}


@dataclass(frozen=True)
class Limits:
    registers: int  # at most; a multiprocessor has 65,536, so that this times the block's threads says how many blocks run on it
    shared_bytes: int  # at most; sm_90 takes 1,024 for itself
    wide_shared_loads: int  # LDS.128, at least
    wide_global_accesses: int  # LD and ST of 16 bytes, at least


# The merge reads and writes global memory by 2 and 4 bytes, since rows of any length may begin anywhere.
LIMITS = {"MergeKernel": Limits(registers=64, shared_bytes=9280, wide_shared_loads=28, wide_global_accesses=0)}


@dataclass
class Code:
    architecture: str
    function: str
    registers: int
    stack: int
    shared: int
    local: int
    instructions: list


def read_code(usage, assembly):
    """Of `cuobjdump -res-usage` and of `cuobjdump -sass`."""
    codes, architecture = {}, None
    for line in usage.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            architecture = match.group(1)
        elif match := re.match(r"\s*Function (\w+):", line):
            function = match.group(1)
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            codes[architecture, function] = Code(architecture, function, *map(int, match.groups()), [])
    for line in assembly.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            architecture = match.group(1)
        elif match := re.match(r"\s*Function : (\w+)", line):
            instructions = codes[architecture, match.group(1)].instructions
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", line):
            instructions.append(match.group(1))
    return list(codes.values())


def problems(code):
    """What is worse than allowed, in words."""
    known = [limits for name, limits in LIMITS.items() if re.search(rf"\d{name}[A-Z]", code.function)]
    if not known:
        return [f"{code.function} has no limits: add them to LIMITS"]
    limits = known[0]
    count = lambda pattern: sum(1 for name in code.instructions if re.fullmatch(pattern, name))
    figures = [
        ("instructions", len(code.instructions), 100, None),
        ("registers", code.registers, None, limits.registers),
        ("bytes of stack", code.stack, None, 0),
        ("bytes of local memory", code.local, None, 0),
        ("accesses to local memory", count(r"(LDL|STL)\b.*"), None, 0),
        ("bytes of shared memory", code.shared, None, limits.shared_bytes),
        ("loads of 16 bytes from shared memory", count(r"LDS\.(U\.)?128"), limits.wide_shared_loads, None),
        ("accesses of 16 bytes to global memory", count(r"(LD|LDG|ST|STG)\.(.*\.)?128"), limits.wide_global_accesses, None),
    ]
    return [f"{code.function} on {code.architecture}: {figure} {what}, allowed are {at_least or 0} to "
            f"{'any number' if at_most is None else at_most}"
            for what, figure, at_least, at_most in figures
            if figure < (at_least or 0) or (at_most is not None and figure > at_most)]


def cuobjdump(*words):
    environment = dict(os.environ, PATH=f"{UTILITIES}:{os.environ['PATH']}")
    try:
        return subprocess.run([UTILITIES / "cuobjdump", *words, LIBRARY], check=True, capture_output=True, text=True,
                              env=environment).stdout
    except FileNotFoundError as error:
        raise SystemExit(f"{error}: run deploy/install_dependencies.sh --test") from error


class MachineCodeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.codes = read_code(cuobjdump("-res-usage"), cuobjdump("-sass"))

    def test_every_kernel_keeps_its_limits_on_every_architecture(self):
        self.assertEqual({code.architecture for code in self.codes}, ARCHITECTURES)
        self.assertEqual(len(self.codes), len(ARCHITECTURES) * len(LIMITS))
        for code in self.codes:
            with self.subTest(architecture=code.architecture, function=code.function):
                print(f"{code.architecture}: {code.registers} registers, {code.shared} bytes of shared memory, "
                      f"{len(code.instructions)} instructions: {code.function}")
                self.assertEqual(problems(code), [])

    def test_later_architectures_find_code_to_compile(self):
        self.assertIn("sm_90", cuobjdump("-lptx"))

    def test_negative_control_a_kernel_that_spills(self):
        """The merge as nvcc 13.0 compiled it with loops unrolled."""
        name = "_ZN7hotlora9_GLOBAL__11MergeKernelEPKNS_9MergeTaskEiPKNS_12MergeProductE"
        usage = f"arch = sm_90\n Function {name}:\n  REG:80 STACK:16 SHARED:9280 LOCAL:0 CONSTANT[0]:552 TEXTURE:0 SURFACE:0\n"
        lines = ["@!P4 LD.E.U16 R12, desc[UR16][R12.64] ;", "STL [R1+0x8], R13 ;", "@P0 LDL R13, [R1+0x8] ;"]
        lines += ["FFMA R1, R2, R3, R4 ;"] * 100 + ["LDS.128 R4, [R8] ;"] * 13
        assembly = f"arch = sm_90\n\t\tFunction : {name}\n" + "".join(f"        /*{16 * i:04x}*/    {line}\n" for i, line in enumerate(lines))
        [code] = read_code(usage, assembly)
        self.assertEqual(len(code.instructions), len(lines))
        found = " ".join(problems(code))
        for words in ("80 registers", "16 bytes of stack", "2 accesses to local memory", "13 loads of 16 bytes from shared memory"):
            self.assertIn(words, found)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
