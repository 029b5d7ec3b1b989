#!/usr/bin/env python3
"""gpu_probe on the CPU and on the simulated device: each stage's lines, and what they say if a stage fails or is ended.

Standard library only.
"""

import json
import math
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import predict

BIN = pathlib.Path(os.environ["HOTLORA_TEST_BIN"])
SOURCE = pathlib.Path(os.environ["HOTLORA_TEST_SOURCE"])
PROBE = BIN / "gpu_probe"
# The stages of SDXL's shapes, with how the names of their figures begin.
SHAPES = {"unet": "unet.", "attention": "sdpa.", "text": "text.", "vae": "vae.",
          "adapters": ("merge.", "upload.", "side."), "beside": "beside."}
# A simulated device has device times as well as a GPU.
PREDICTED = [name for name, *_ in predict.predictions()]
OK, FAILED, USAGE, UNAVAILABLE = 0, 1, 2, 3


def has_driver():
    return pathlib.Path("/dev/nvidiactl").exists()


class ProbeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out.jsonl"

    def start(self, *arguments, **variables):
        log = open(self.folder / "log", "w", encoding="utf-8")
        self.addCleanup(log.close)
        process = subprocess.Popen([PROBE, "--out", self.out, *arguments], stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, **variables})
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def run_stage(self, *arguments, **variables):
        """The exit status, the stage's own line and the lines before it."""
        status = self.start(*arguments, **variables).wait()
        lines = self.lines()
        return status, lines[-1], lines[:-1]

    def lines(self):
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def wait_for_check(self, process):
        """Until the stage has written its first check."""
        while process.poll() is None:
            if self.out.exists() and '"check"' in self.out.read_text():
                return
            time.sleep(0.05)
        self.fail(f"the stage ended first: {self.lines()}")

    def assert_sound(self, line, parts):
        """Figures and checks are complete, and the lines before are what the stage's own line has."""
        for figure in line["figures"]:
            self.assertTrue(all(math.isfinite(figure[key]) for key in ("median", "low", "high")), figure)
            self.assertLessEqual(figure["low"], figure["median"], figure)
            self.assertLessEqual(figure["median"], figure["high"], figure)
            self.assertGreaterEqual(figure["repeats"], 1, figure)
            self.assertTrue(figure["name"] and figure["unit"], figure)
        for check in line["checks"]:
            if check["worst"] is not None and check["passed"]:
                self.assertLessEqual(check["worst"], check["tolerance"], check)
        for key, kind in (("figures", "figure"), ("checks", "check"), ("unavailable", "part")):
            self.assertEqual([part[kind] for part in parts if kind in part], line[key])
        notes = {name: value for part in parts for name, value in part.get("note", {}).items()}
        self.assertEqual(notes, line["notes"])
        names = [entry["name"] for key in ("figures", "checks") for entry in line[key]]
        self.assertEqual(len(names), len(set(names)), names)

    def test_list(self):
        lines = subprocess.run([PROBE, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
        stages = dict(line.split(" ") for line in lines)
        self.assertEqual(next(iter(stages)), "load")
        self.assertTrue(all(int(seconds) > 0 for seconds in stages.values()), stages)

    def test_load_names_the_libraries(self):
        paths = self.try_stage("load", "sim:0", ("ok", OK))["notes"]["libraries"]
        for library in ("libtorch_cpu.so", "libc10.so", "libhotlora_sim_device.so"):
            self.assertTrue(any(path.endswith("/" + library) for path in paths), paths)

    def try_stage(self, stage, device, status):
        self.out.unlink(missing_ok=True)
        code, line, parts = self.run_stage("--stage", stage, "--device", device, "--size", "tiny")
        self.assertEqual((line["status"], code), status, line)
        self.assertEqual((line["stage"], line["device"], line["size"]), (stage, device, "tiny"))
        self.assertIn("--stage " + stage, line["command"])
        self.assertEqual("reason" in line, line["status"] != "ok")
        self.assert_sound(line, parts)
        return line

    def test_stages_on_the_cpu(self):
        for stage in ("load", "golden", "ceilings"):
            with self.subTest(stage):
                line = self.try_stage(stage, "cpu", ("ok", OK))
                self.assertTrue(line["checks"])
        for stage in SHAPES:
            with self.subTest(stage):
                self.assertTrue(self.try_stage(stage, "cpu", ("ok", OK))["figures"])
        line = self.try_stage("kernels", "cpu", ("unavailable", UNAVAILABLE))
        self.assertIn("no kernels of its own for cpu", line["reason"])

    def test_stages_on_the_simulated_device(self):
        for stage in ("load", "kernels", "golden", "ceilings"):
            with self.subTest(stage):
                line = self.try_stage(stage, "sim:0", ("ok", OK))
                self.assertTrue(line["checks"])
        for stage in SHAPES:
            with self.subTest(stage):
                line = self.try_stage(stage, "sim:0", ("ok", OK))
                names = {figure["name"] for figure in line["figures"]}
                missing = {name for name in PREDICTED if name.startswith(SHAPES[stage])} - names
                self.assertFalse(missing, "predict.py has figures that the stage lacks")

    def test_base_is_restored_after_merges(self):
        line = self.try_stage("adapters", "sim:0", ("ok", OK))
        checks = {check["name"]: check["passed"] for check in line["checks"]}
        self.assertTrue(checks["merge.bfloat16.rank_64.base_restored"])

    def test_trace_needs_records(self):
        """The simulated device has no records: they come from a stand-in for NVIDIA's library."""
        line = self.try_stage("trace", "sim:0", ("unavailable", UNAVAILABLE))
        self.assertIn("CUPTI", line["reason"])
        self.out.unlink()
        _, line, _ = self.run_stage("--stage", "trace", "--device", "sim:0", "--size", "tiny",
                                    LD_PRELOAD=str(BIN.parent / "fakes/libcupti.so.13"))
        self.assertEqual(line["status"], "ok", line)
        medians = {figure["name"]: figure["median"] for figure in line["figures"]}
        name = "trace.bfloat16.1024.rows_2."
        self.assertAlmostEqual(medians[name + "gemm"], 3e-3)
        self.assertAlmostEqual(medians[name + "layout"], 6e-4)
        self.assertAlmostEqual(medians[name + "span"], 4.1e-3)
        self.assertEqual(medians[name + "launches"], 3)
        self.assertEqual(line["notes"][name + "longest"][0]["class"], "gemm")

    def test_device_times(self):
        line = self.try_stage("ceilings", "sim:0", ("ok", OK))
        medians = {figure["name"]: figure["median"] for figure in line["figures"]}
        for name in ("copy.device_to_device", "launches.1000"):
            self.assertLess(0, medians[name + ".device"])
            self.assertLess(medians[name + ".device"], medians[name + ".wall"])
            self.assertLess(medians[name + ".enqueue"], medians[name + ".wall"])

    def test_golden_shows_the_worst_error_of_each_case(self):
        line = self.try_stage("golden", "cpu", ("ok", OK))
        checks = {check["name"]: check for check in line["checks"]}
        unet = checks["UnetTest.MatchesDiffusers"]
        self.assertLess(0, unet["worst"])
        self.assertLess(unet["worst"], unet["tolerance"])
        self.assertIn("UnetTest.HalfTypesStayCloseToFloat32", checks)

    def test_clocks_come_from_nvml(self):
        if has_driver():
            self.skipTest("this machine has NVML")
        without = self.try_stage("load", "sim:0", ("ok", OK))
        self.assertEqual([part["name"] for part in without["unavailable"]], ["gpu.clocks"])
        self.out.unlink()
        _, line, _ = self.run_stage("--stage", "load", "--device", "sim:0", "--size", "tiny",
                                    LD_LIBRARY_PATH=str(BIN.parent / "fakes"))
        medians = {figure["name"]: figure["median"] for figure in line["figures"]}
        self.assertEqual([medians["gpu." + name] for name in ("sm_clock", "power", "temperature")], [1755, 300, 61])
        self.assertEqual(line["notes"]["throttle_reasons"], {"power cap": 1.0})
        self.assertEqual(line["notes"]["gpu"]["name"], "Fake GPU")

    def test_no_gpu_is_unavailable(self):
        if has_driver():
            self.skipTest("this machine has a GPU")
        for stage in ("load", "kernels", "golden", "ceilings"):
            line = self.try_stage(stage, "cuda:0", ("unavailable", UNAVAILABLE))
            self.assertIn("no driver of a GPU", line["reason"])

    def test_no_golden_data_is_unavailable(self):
        code, line, _ = self.run_stage("--stage", "golden", "--device", "cpu", HOTLORA_TEST_SOURCE="/nowhere")
        self.assertEqual((code, line["status"]), (UNAVAILABLE, "unavailable"))
        self.assertIn("/nowhere/tests/golden", line["reason"])

    def test_goes_on_after_a_case_that_fails(self):
        """In another checkout, one of whose tolerances is 0."""
        golden = self.folder / "tests/golden"
        (golden / "unet").mkdir(parents=True)
        for entry in (SOURCE / "tests/golden").iterdir():
            if entry.name != "unet":
                (golden / entry.name).symlink_to(entry)
        for entry in (SOURCE / "tests/golden/unet").iterdir():
            if entry.name != "manifest.json":
                (golden / "unet" / entry.name).symlink_to(entry)
        manifest = json.loads((SOURCE / "tests/golden/unet/manifest.json").read_text())
        for case in manifest["cases"]:
            for tolerance in case["tolerance"].values():
                tolerance["absolute"] = 0.0
        (golden / "unet/manifest.json").write_text(json.dumps(manifest))
        code, line, parts = self.run_stage("--stage", "golden", "--device", "cpu", "--size", "tiny",
                                           HOTLORA_TEST_SOURCE=str(self.folder))
        self.assertEqual((code, line["status"]), (FAILED, "failed"))
        self.assertIn("UnetTest.MatchesDiffusers", line["reason"])
        self.assert_sound(line, parts)
        failed = {check["name"]: check for check in line["checks"] if not check["passed"]}
        self.assertIn("UnetTest.MatchesDiffusers", failed)
        self.assertEqual(failed["UnetTest.MatchesDiffusers"]["tolerance"], 0)
        self.assertIn("largest difference", failed["UnetTest.MatchesDiffusers"]["text"])
        passed = [check["name"] for check in line["checks"] if check["passed"]]
        self.assertIn("EncodeGoldenTest.ConditioningEqualsTheReference", passed, "it runs after the case that failed")

    def test_time_limit(self):
        code, line, parts = self.run_stage("--stage", "golden", "--device", "cpu", "--seconds", "2.5")
        self.assertEqual((code, line["status"]), (FAILED, "failed"))
        self.assertRegex(line["reason"], r"the time limit of 2\.5 s was over while it ran \w+")
        self.assertGreaterEqual(line["seconds"], 2.5)
        self.assert_sound(line, parts)

    def test_signals_and_crashes_leave_the_stages_line(self):
        for number, says in ((signal.SIGTERM, "was ended"), (signal.SIGINT, "was ended"), (signal.SIGSEGV, "crashed"),
                             (signal.SIGABRT, "crashed")):
            with self.subTest(number):
                self.out.unlink(missing_ok=True)
                process = self.start("--stage", "golden", "--device", "cpu")
                self.wait_for_check(process)
                process.send_signal(number)
                self.assertEqual(process.wait(), 128 + number)
                *parts, line = self.lines()
                self.assertEqual(line["status"], "failed")
                self.assertIn(says, line["reason"])
                self.assertTrue(line["checks"])
                self.assert_sound(line, parts)

    def test_a_kill_leaves_whole_lines(self):
        process = self.start("--stage", "golden", "--device", "cpu")
        self.wait_for_check(process)
        process.kill()
        process.wait()
        lines = self.lines()
        self.assertTrue(any("check" in line for line in lines))
        self.assertFalse(any("status" in line for line in lines))

    def test_usage(self):
        for arguments in (("--stage", "none"), ("--stage", "load", "--size", "large"), ()):
            self.assertEqual(self.start(*arguments).wait(), USAGE)
        self.assertFalse(self.out.exists())
        self.assertEqual(subprocess.run([PROBE, "--stage", "load"], capture_output=True, check=False).returncode, USAGE)

    def test_devices_that_are_not_one(self):
        for device in ("tpu", "auto", "sim:2"):
            code, line, _ = self.run_stage("--stage", "load", "--device", device)
            self.assertEqual((code, line["status"]), (FAILED, "failed"), device)
            self.assertTrue(device in line["reason"], line)

    def test_a_file_that_cannot_be_written(self):
        self.out = pathlib.Path("/nowhere/out.jsonl")
        self.assertEqual(self.start("--stage", "load", "--device", "cpu").wait(), FAILED)
        self.assertIn("cannot open /nowhere/out.jsonl", (self.folder / "log").read_text())


if __name__ == "__main__":
    unittest.main()
