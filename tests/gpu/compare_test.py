"""tests/gpu/compare.py with workers that are made up: the turns, the ratios, and workers that end or do not answer.

usage: compare_test.py [unittest's arguments]
"""

import contextlib
import io
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import compare  # noqa: E402
import stage_line  # noqa: E402

# A worker that says how long it took: argv[1] ms a call. argv[2]: what else it does.
WORKER = """#!/usr/bin/env python3
import json, sys, time
mode, steps = sys.argv[2], 0
if mode.startswith("ours"):
    print(json.dumps({"made": "up"}), flush=True)
else:
    assert json.loads(sys.stdin.readline()) == {"made": "up"}
    if mode == "broken":
        sys.exit("it cannot be loaded")
    print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "step":
        steps = steps + 1
        if mode.endswith("ends") or mode == "ours-end-later" and steps > 3:
            sys.exit(3)
        print(float(sys.argv[1]) * int(words[1]) / 1000, flush=True)
    else:
        assert words[0] == "shape" and len(words) == 3
        if mode == "slow":
            time.sleep(600)
        print("ready", flush=True)
"""


class CompareTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.worker = self.folder / "worker.py"
        self.worker.write_text(WORKER)
        self.patch(sys, "argv", None)
        self.patch(compare, "has_diffusers", lambda: ["2.11.0", "0.42.1"])

    def patch(self, owner, name, value):
        self.addCleanup(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def compare(self, ours=(10, "ours"), eager=(20, ""), compiled=(8, ""), seconds=60):
        """(exit status, the stage's line)."""
        modes = {"eager": eager, "compiled": compiled}
        self.patch(compare, "diffusers_command",
                   lambda args, dtype, name: [sys.executable, self.worker, *map(str, modes[name])])
        probe = self.folder / "gpu_probe"
        probe.write_text(f"#!/bin/sh\nexec {sys.executable} {self.worker} {ours[0]} {ours[1]}\n")
        probe.chmod(0o755)
        out = pathlib.Path(tempfile.mkstemp(dir=self.folder)[1])
        sys.argv = ["compare.py", "--bin", str(self.folder), "--device", "cpu", "--size", "tiny", "--seconds", str(seconds), "--out",
                    str(out)]
        with contextlib.redirect_stderr(io.StringIO()):
            status = compare.main()
        return status, stage_line.found_by("compare", out.read_text())

    def figures(self, line):
        return {figure["name"].removeprefix("unet.float32.rows2.latents16."): figure for figure in line["figures"]}

    def test_ratios(self):
        status, line = self.compare()
        self.assertEqual((status, line["status"]), (0, "ok"))
        figures = self.figures(line)
        self.assertEqual(set(figures), {"ours", "eager", "compiled", "ours_over_eager", "ours_over_compiled"})
        self.assertEqual((figures["ours"]["median"], figures["ours"]["unit"], figures["ours"]["repeats"]), (10, "ms", 8))
        for name, ratio in (("ours_over_eager", 0.5), ("ours_over_compiled", 1.25)):
            self.assertEqual(figures[name]["unit"], "1")
            for value in ("low", "median", "high"):
                self.assertAlmostEqual(figures[name][value], ratio)
        self.assertEqual(line["unavailable"], [])

    def test_what_ends_or_does_not_answer_is_left_out(self):
        for mode, says in (("broken", "ended with 1"), ("ends", "ended with 3"), ("slow", "did not answer within")):
            with self.subTest(mode=mode):
                status, line = self.compare(compiled=(8, mode), seconds=14 if mode == "slow" else 60)
                self.assertEqual((status, line["status"]), (0, "ok"))
                self.assertEqual(set(self.figures(line)), {"ours", "eager", "ours_over_eager"})
                part, = line["unavailable"]
                self.assertEqual(part["name"], "float32.compiled")
                self.assertIn(says, part["reason"])

    def test_nothing_to_compare_with_is_a_failure(self):
        status, line = self.compare(eager=(20, "broken"), compiled=(8, "broken"))
        self.assertEqual((status, line["status"]), (1, "failed"))
        self.assertIn("something_was_compared", line["reason"])

    def test_a_failure_of_ours_is_a_failure(self):
        status, line = self.compare(ours=(10, "ours-ends"))
        self.assertEqual((status, line["status"]), (1, "failed"))
        self.assertIn("ours_runs", line["reason"])

    def test_a_failure_of_ours_between_blocks_is_a_failure(self):
        status, line = self.compare(ours=(10, "ours-end-later"))
        self.assertEqual((status, line["status"], line["figures"]), (1, "failed", []))
        self.assertIn("ours_runs", line["reason"])

    def test_time_for_too_few_blocks(self):
        self.patch(compare, "BLOCK_SECONDS", {"tiny": 30.0})
        status, line = self.compare()
        self.assertEqual((status, line["figures"]), (1, []))
        self.assertIn("there was time for 0 blocks; 5 are needed", line["unavailable"][0]["reason"])

    def test_without_time(self):
        status, line = self.compare(seconds=5)
        self.assertEqual((status, line["status"], line["figures"]), (3, "unavailable", []))
        self.assertIn("too few for one shape", line["reason"])

    def test_without_diffusers(self):
        self.patch(compare, "has_diffusers", lambda: "ModuleNotFoundError: No module named 'diffusers'")
        status, line = self.compare()
        self.assertEqual((status, line["status"]), (3, "unavailable"))
        self.assertIn("No module named 'diffusers'", line["reason"])

    def test_a_signal_ends_the_workers_with_what_they_started(self):
        probe = self.folder / "gpu_probe"
        probe.write_text(f"#!/bin/sh\nsleep 600 &\necho $! >{self.folder}/pid\nexec {sys.executable} {self.worker} 10 slow\n")
        probe.chmod(0o755)
        code = "import compare, sys; compare.has_diffusers = lambda: ['2', '0']; sys.exit(compare.main())"
        stage = subprocess.Popen([sys.executable, "-c", code, "--bin", self.folder, "--device", "cpu", "--size", "tiny", "--seconds",
                                  "60", "--out", self.folder / "lines"], env={**os.environ, "PYTHONPATH": str(HERE)})
        file, end = self.folder / "pid", time.monotonic() + 60
        while not file.exists() or not file.read_text().strip():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        started = pathlib.Path("/proc", file.read_text().strip(), "stat")
        self.assertTrue(started.exists())
        stage.terminate()
        self.assertEqual(stage.wait(30), 128 + 15)
        while started.exists() and started.read_text().rpartition(")")[2].split()[0] != "Z":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_interval(self):
        source = random.Random(1)
        values = [source.gauss(1.0, 0.1) for _ in range(100)]
        low, high = compare.interval(values)
        self.assertTrue(0.95 < low < 1.0 < high < 1.05, (low, high))


if __name__ == "__main__":
    unittest.main()
