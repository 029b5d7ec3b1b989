"""tests/gpu/run.py with a gpu_probe that is made up: limits, crashes, signals, budgets, and what results.json holds after each.
And results.schema.json on good and bad samples, and what docs/gpu.md says.

usage: run_test.py [unittest's arguments]
"""

import contextlib
import copy
import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = pathlib.Path(os.environ["HOTLORA_TEST_TOOLS"])
sys.path += [str(HERE), *map(str, TOOLS.parent.glob("lib/python*/site-packages"))]  # for jsonschema

import check_results  # noqa: E402
import find_torch  # noqa: E402
import pack  # noqa: E402
import run  # noqa: E402
import stage_line  # noqa: E402

# A gpu_probe whose stages are named after what they do, 20 s each.
PROBE = f"""#!{sys.executable}
import os, signal, sys, time
sys.path.insert(0, {str(HERE)!r})
import stage_line
if sys.argv[1:] == ["--list"]:
    print(os.environ["STAGES"].replace(",", " 20\\n") + " 20")
    sys.exit(0)
parser = stage_line.stage_options("")
parser.add_argument("--stage")
args = parser.parse_args()
writer = stage_line.StageWriter(args.stage, args)
def body():
    writer.figure("time", "ms", [1.0, 3.0, 2.0])
    writer.note("seen", "before the end")
    if args.stage == "check":
        writer.check("sum", False)
    if args.stage == "lacks":
        raise stage_line.Unavailable("no such device")
    if args.stage == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if args.stage == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        time.sleep(600)
    if args.stage == "loud":
        sys.stdout.write("begin\\n" + "x" * 5_000_000 + "\\nend\\n")
    if args.stage == "short":
        time.sleep(0.2)
    if args.stage == "damaged":
        os.write(writer.file, b'{{"stage": "damaged", "figure": {{"na')
        os.kill(os.getpid(), signal.SIGKILL)
sys.exit(writer.run(body))
"""


class MadeUpPack(pack.Pack):
    """Without libraries, so that programs may be scripts."""

    def unpack(self, folder):
        (self.folder / "bin").mkdir()
        probe = self.folder / "bin/gpu_probe"
        probe.write_text(PROBE)
        probe.chmod(0o755)
        return {"commit": "0" * 40, "changed_files": 0, "packed": "2026-01-01T00:00:00Z", "torch": "2.11.0", "nvcc": "13"}

    def link_torch(self, version, told):
        self.environment["LD_LIBRARY_PATH"], self.python = "", sys.executable
        return {"version": version, "folder": "/nowhere"}

    def check_libraries(self):
        pass


def main_with_made_up_pack():
    run.Pack = MadeUpPack
    return run.main()


class RunCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out"

    def start(self, stages, *options, **environment):
        command = [sys.executable, __file__, "--run", "--stages", stages, "--out", self.out, "--device", "cpu", "--size", "tiny",
                   *options]
        probes = ",".join(name for name in stages.split(",") if "." not in name)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env={**os.environ, "STAGES": probes, **environment})

    def run_stages(self, stages, *options, **environment):
        """(exit status, {stage: entry}) of a run that comes to its end."""
        process = self.start(stages, *options, **environment)
        self.printed, _ = process.communicate(timeout=120)
        return process.returncode, self.entries()

    def entries(self):
        """The stages of results.json, which keeps to the schema."""
        self.results = json.loads((self.out / "results.json").read_text())
        self.assertEqual(check_results.schema_errors(self.results) + check_results.file_errors(self.out), [])
        return {entry["stage"]: entry for entry in self.results["stages"]}


class RunTest(RunCase):
    def test_all_is_well(self):
        status, stages = self.run_stages("quick,lacks")
        self.assertEqual(status, 0, self.printed)
        self.assertTrue(self.results["complete"] and self.results["ok"])
        self.assertEqual(stages["quick"]["figures"],
                         [{"name": "time", "unit": "ms", "median": 2.0, "low": 1.0, "high": 3.0, "repeats": 3}])
        self.assertEqual(stages["quick"]["notes"], {"seen": "before the end"})
        self.assertIn("--stage quick --device cpu --size tiny --seconds 17.0", stages["quick"]["command"])
        self.assertEqual((stages["lacks"]["status"], stages["lacks"]["reason"]), ("unavailable", "no such device"))
        self.assertEqual(check_results.ran_errors(self.results, self.printed), [])
        self.assertEqual(set(check_results.said(self.printed)), {"quick", "lacks"})

    def test_a_bad_stage_does_not_stop_the_others(self):
        status, stages = self.run_stages("check,crash,damaged,quick")
        self.assertEqual(status, 1)
        self.assertEqual({name: entry["status"] for name, entry in stages.items()},
                         {"check": "failed", "crash": "failed", "damaged": "failed", "quick": "ok"})
        self.assertIn("1 checks did not pass: sum", stages["check"]["reason"])
        self.assertIn("SIGSEGV", stages["crash"]["reason"])
        self.assertEqual(stages["crash"]["exit_status"], -signal.SIGSEGV)
        for name in ("crash", "damaged"):
            self.assertEqual([figure["name"] for figure in stages[name]["figures"]], ["time"])
        self.assertTrue(self.results["complete"])
        self.assertFalse(self.results["ok"])

    def test_ends_a_stage_at_its_limit_and_keeps_what_it_found(self):
        status, stages = self.run_stages("hang,quick", "--seconds", "26")
        self.assertEqual(status, 1)
        hang = stages["hang"]
        self.assertEqual((hang["status"], hang["exit_status"]), ("timed_out", None))
        self.assertEqual([figure["name"] for figure in hang["figures"]], ["time"])
        self.assertLess(hang["limit_seconds"], 16.1)  # of 26, ten are kept
        self.assertEqual(stages["quick"]["status"], "not_run")
        self.assertIn("of the run's 26 s were left", stages["quick"]["reason"])
        self.assertTrue(self.results["complete"])

    def test_a_signal_ends_the_run_and_its_stage(self):
        process = self.start("quick,hang,lacks")
        self.wait_for(lambda: self.status_of("hang") == "interrupted" and "hang" in (self.out / "lines.jsonl").read_text())
        process.terminate()
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        stages = self.entries()
        self.assertEqual({name: entry["status"] for name, entry in stages.items()},
                         {"quick": "ok", "hang": "interrupted", "lacks": "not_run"})
        self.assertEqual([figure["name"] for figure in stages["hang"]["figures"]], ["time"])
        self.assertFalse(self.results["complete"])
        probe = stages["hang"]["command"].split()[0]
        self.assertFalse(pathlib.Path(probe).exists())  # the unpacked folder is gone
        left = subprocess.run(["pgrep", "-f", probe], capture_output=True, text=True).stdout
        self.assertEqual(left, "")

    def test_a_kill_leaves_all_stages_that_had_ended(self):
        seed = random.randrange(1 << 30)
        draw = random.Random(seed)
        for _ in range(6):
            process = self.start("quick,short,check,lacks,loud")
            self.wait_for((self.out / "results.json").exists)
            time.sleep(draw.uniform(0, 1.2))
            process.kill()
            printed, _ = process.communicate(timeout=60)
            with self.subTest(seed=seed):
                self.entries()
                self.assertEqual(check_results.ran_errors(self.results, printed), [])
            shutil.rmtree(self.out)

    def test_a_loud_stage_does_not_fill_the_log(self):
        status, _ = self.run_stages("loud")
        self.assertEqual(status, 0)
        log = (self.out / "log.txt").read_text()
        self.assertLess(len(log), 1_000_000)
        self.assertGreater(len(log), 760_000)
        for words in ("\nbegin\n", "bytes are left out here", "\nend\n"):
            self.assertIn(words, log)

    def test_unknown_stage(self):
        status, stages = self.run_stages("quick,no.such")
        self.assertEqual((status, stages), (1, {}))
        self.assertIn("no.such; there are quick, server", self.results["setup_error"])

    def wait_for(self, condition):
        end = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def status_of(self, name):
        with contextlib.suppress(OSError):
            return self.entries().get(name, {}).get("status")


class SanitizerTest(RunCase):
    """A compute-sanitizer that is made up."""

    def kernels(self, script):
        program = self.folder / "compute-sanitizer"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        _, stages = self.run_stages("kernels,kernels.memcheck,kernels.racecheck", "--device", "cuda:0", STAGES="kernels",
                                    PATH=f"{self.folder}:{os.environ['PATH']}")
        return stages["kernels.memcheck"]

    def test_runs_the_smallest_shapes(self):
        entry = self.kernels('shift 8; exec "$@"')
        self.assertEqual((entry["status"], entry["size"]), ("ok", "tiny"))
        self.assertIn("compute-sanitizer --tool memcheck --error-exitcode 9 --report-api-errors no --kernel-regex kns=MergeKernel ", entry["command"])
        self.assertEqual([figure["name"] for figure in entry["figures"]], ["time"])

    def test_an_error_that_it_finds_is_a_failure(self):
        entry = self.kernels('shift 8; "$@"; exit 9')
        self.assertEqual((entry["status"], entry["exit_status"]), ("failed", 9))

    def test_a_device_that_it_refuses_is_unavailable(self):
        entry = self.kernels('echo "Error: Device not supported"; exit 1')
        self.assertEqual(entry["status"], "unavailable")
        self.assertIn("Device not supported", entry["reason"])

    def test_needs_a_cuda_device(self):
        _, stages = self.run_stages("kernels,kernels.memcheck")
        self.assertEqual(stages["kernels.memcheck"]["status"], "unavailable")
        self.assertIn("needs a CUDA device", stages["kernels.memcheck"]["reason"])


class SetupTest(RunCase):
    """run.py as it is, without a pack or with one that lacks something."""

    def setup_error(self, *options):
        run_it = subprocess.run([HERE / "run.sh", "--pack", self.folder, "--out", self.out, *options], capture_output=True, text=True,
                                timeout=60)
        self.assertEqual(run_it.returncode, 1, run_it)
        self.assertEqual(self.entries(), {})
        self.assertIn(self.results["setup_error"], run_it.stdout)
        return self.results["setup_error"]

    def make_pack(self):
        tree = self.folder / "tree"
        for folder in ("bin", "lib/hotlora", "lib/debian"):
            (tree / folder).mkdir(parents=True)
        shutil.copy("/bin/true", tree / "bin/gpu_probe")
        shutil.copy("/bin/true", tree / "lib/hotlora/libhotlora_cuda.so")
        facts = {"commit": "0" * 40, "changed_files": 0, "packed": "2026-01-01T00:00:00Z", "torch": "2.11.0", "nvcc": "13"}
        (tree / "pack.json").write_text(json.dumps(facts))
        return tree

    def write_pack(self, tree):
        subprocess.run(["tar", "-C", tree, "-cJf", self.folder / "pack.tar.xz", "."], check=True)

    def make_site(self, version):
        site = self.folder / "site"
        (site / "torch/lib").mkdir(parents=True)
        for library in ("libtorch_cpu.so", "libtorch_cuda.so"):
            (site / "torch/lib" / library).touch()
        (site / f"torch-{version}.dist-info").mkdir()
        return site

    def test_no_pack(self):
        self.assertIn("tests/gpu/pack.sh makes it", self.setup_error())

    def test_damaged_pack(self):
        (self.folder / "pack.tar.xz").write_bytes(b"not a pack")
        self.assertIn("cannot be unpacked", self.setup_error())

    def test_no_torch(self):
        self.write_pack(self.make_pack())
        self.assertIn("does not hold torch/lib/libtorch_cpu.so", self.setup_error("--site", self.folder))

    def test_torch_of_another_release(self):
        self.write_pack(self.make_pack())
        self.assertRegex(self.setup_error("--site", self.make_site("2.10.1+cu130")), r"torch 2.11.0 is needed: .* has torch 2.10.1")

    def test_a_library_is_missing(self):
        tree = self.make_pack()
        source = "int hotlora_missing(void) { return 0; }"
        missing = self.folder / "libmissing.so.7"
        subprocess.run(["cc", "-shared", "-x", "c", "-", "-Wl,-soname,libmissing.so.7", "-o", missing], input=source, text=True,
                       check=True)
        subprocess.run(["cc", "-x", "c", "-", "-x", "none", missing, "-Wl,--no-as-needed", "-o", tree / "bin/hotlora-server"],
                       input="int hotlora_missing(void); int main(void) { return hotlora_missing(); }", text=True, check=True)
        self.write_pack(tree)
        error = self.setup_error("--site", self.make_site("2.11.0+cu130"))
        self.assertIn("hotlora-server: libmissing.so.7 => not found", error)
        self.assertNotIn("gpu_probe", error)


class FindTorchTest(unittest.TestCase):
    def test_asks_the_pythons_on_the_path(self):
        with tempfile.TemporaryDirectory() as folder:
            site = pathlib.Path(folder, "site-packages")
            (site / "torch/lib").mkdir(parents=True)
            cuda = site / "torch/lib/libtorch_cuda.so"
            cuda.touch()
            (site / "torch-2.11.0+cu130.dist-info").mkdir()
            (site / "torch-2.11.0+cu130.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0+cu130\n")
            python = pathlib.Path(folder, "python3")
            python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n')
            python.chmod(0o755)
            path = os.environ["PATH"]
            self.addCleanup(os.environ.__setitem__, "PATH", path)
            os.environ["PATH"] = f"{folder}:{path}"
            found = find_torch.find_torch("2.11.0")
            self.assertEqual((found.python, found.folder, found.version), (str(python), site.resolve(), "2.11.0+cu130"))
            with self.assertRaisesRegex(find_torch.NotFound, "site-packages has torch 2.11.0[+]cu130"):
                find_torch.find_torch("2.12.0")
            cuda.unlink()
            with self.assertRaisesRegex(find_torch.NotFound, "site-packages has torch 2.11.0[+]cu130 without CUDA"):
                find_torch.find_torch("2.11.0")


class StageLineTest(unittest.TestCase):
    def test_a_stage_s_own_line_is_all_there_is_to_know(self):
        lines = '{"stage": "a", "figure": {"name": "x"}}\n{"stage": "b", "note": {"y": NaN}}\n{"stage": "a", "status": "ok"}\n'
        self.assertEqual(stage_line.found_by("a", lines), {"stage": "a", "status": "ok"})
        self.assertEqual(stage_line.found_by("b", lines), {"figures": [], "checks": [], "unavailable": [], "notes": {"y": None}})

    def test_an_exception_is_a_failure_with_a_line(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            file = pathlib.Path(folder, "lines")
            args = stage_line.stage_options("").parse_args(["--out", str(file), "--seconds", "5"])
            self.assertEqual(stage_line.StageWriter("s", args).run(lambda: [][0]), 1)
            line = stage_line.found_by("s", file.read_text())
        self.assertEqual((line["status"], line["reason"]), ("failed", "IndexError: list index out of range"))


FIGURE = {"name": "unet.bfloat16.rows2.wall", "unit": "ms", "median": 48.1, "low": 47.9, "high": 48.8, "repeats": 10}
STAGE = {"stage": "shapes", "status": "ok", "seconds": 60.5, "limit_seconds": 180.0, "exit_status": 0, "command": "gpu_probe --stage shapes",
         "device": "cuda:0", "size": "full", "figures": [FIGURE],
         "checks": [{"name": "sum", "worst": 1e-6, "tolerance": 1e-5, "passed": True, "text": "of 8 shapes"},
                    {"name": "intact", "worst": None, "tolerance": None, "passed": True}],
         "unavailable": [{"name": "cupti", "reason": "libcupti refuses"}], "notes": {"anything": [1, {"two": 3}]}}
GOOD = {"format": 1, "complete": True, "ok": True, "started": "2026-11-27T14:00:00+00:00", "seconds": 533.2,
        "command": "tests/gpu/run.sh", "device": "cuda:0", "size": "full", "budget_seconds": 540.0,
        "machine": {"gpus": [{"name": "NVIDIA H100 80GB HBM3", "driver": "580.159.04", "memory_mib": 81559, "compute_capability": "9.0"}],
                    "system": "Ubuntu 24.04", "kernel": "6.18", "glibc": "2.39", "processor": "Xeon", "cores": 16,
                    "memory_bytes": 1 << 37, "python": "3.12.3"},
        "pack": {"commit": "0123456789" * 4, "changed_files": 0, "packed": "2026-11-27T13:00:00Z", "torch": "2.11.0", "nvcc": "13.0"},
        "torch": {"version": "2.11.0+cu130", "folder": "/opt/torch"}, "setup_error": None, "stages": [STAGE]}


class SchemaTest(unittest.TestCase):
    def errors(self, **changes):
        return check_results.schema_errors({**GOOD, **changes})

    def stage_errors(self, *left_out, **changes):
        stage = {name: value for name, value in {**STAGE, **changes}.items() if name not in left_out}
        return self.errors(stages=[stage], ok=False)

    def test_good(self):
        self.assertEqual(self.errors(), [])
        self.assertEqual(self.errors(ok=False, complete=False, pack=None, torch=None, stages=[], setup_error="no torch"), [])
        self.assertEqual(self.errors(machine={**GOOD["machine"], "gpus": [], "memory_bytes": None}), [])
        for status in ("failed", "timed_out", "interrupted", "not_run", "unavailable"):
            self.assertEqual(self.stage_errors(status=status, reason="some", exit_status=None), [], status)
        self.assertEqual(self.stage_errors(figures=[{**FIGURE, "median": None}]), [])

    def test_a_field_is_missing_or_not_known(self):
        for name in GOOD:
            self.assertTrue(check_results.schema_errors({key: value for key, value in GOOD.items() if key != name}), name)
        for name in STAGE:
            self.assertTrue(self.stage_errors(name), name)
        for part in ("figures", "checks", "unavailable"):
            for name in {key for key in STAGE[part][0] if key != "text"}:
                self.assertTrue(self.stage_errors(**{part: [{k: v for k, v in STAGE[part][0].items() if k != name}]}), (part, name))
            self.assertTrue(self.stage_errors(**{part: [{**STAGE[part][0], "more": 1}]}), part)
        self.assertTrue(self.errors(more=1))
        self.assertTrue(self.stage_errors(more=1))

    def test_a_value_is_wrong(self):
        for bad in ({"format": 2}, {"complete": "yes"}, {"started": "yesterday"}, {"device": "tpu"}, {"size": "small"}, {"seconds": -1},
                    {"pack": {**GOOD["pack"], "commit": "abc"}}, {"machine": {**GOOD["machine"], "cores": 0}}):
            self.assertTrue(self.errors(**bad), bad)
        for bad in ({"figures": [{**FIGURE, "unit": ""}]}, {"figures": [{**FIGURE, "median": "fast"}]}, {"figures": [{**FIGURE, "repeats": 0}]},
                    {"figures": [{**FIGURE, "name": "two words"}]}, {"command": ""}, {"status": "good"}):
            self.assertTrue(self.stage_errors(**bad), bad)

    def test_what_is_not_ok_does_not_say_that_it_is(self):
        self.assertTrue(self.errors(complete=False))
        self.assertTrue(self.errors(stages=[]))
        self.assertTrue(self.errors(setup_error="no torch"))
        self.assertTrue(self.errors(stages=[{**STAGE, "status": "failed", "reason": "some"}]))
        self.assertTrue(self.stage_errors(status="failed"))  # without a reason
        self.assertTrue(self.stage_errors(exit_status=1))
        self.assertTrue(self.stage_errors(checks=[{**STAGE["checks"][0], "passed": False}]))


class DocumentTest(unittest.TestCase):
    def test_the_page_has_each_stage(self):
        """docs/gpu.md: each stage is in a row, once."""
        page = (HERE.parents[1] / "docs/gpu.md").read_text()
        table = page.partition("| stage | what it shows |")[2].partition("\n\n")[0]
        rows = [name for line in table.splitlines() for name in re.findall(r"`([a-z.]+)`", line.split("|")[1] if "|" in line else "")]
        own = re.findall(r'\{"(\w+)", \d+, Run', (HERE / "stages.cc").read_text(), re.MULTILINE)
        self.assertIn("load", own)
        self.assertCountEqual(rows, [*own, "server", "kernels.memcheck", "kernels.racecheck", "compare"])

    def test_the_page_has_the_predictions(self):
        """docs/gpu.md: what tests/gpu/predict.py prints, whatever stands in the column `measured`."""
        def rows(text):
            cells = [line.split("|") for line in text.splitlines()]
            return [row[:4] + row[5:] for row in cells if len(row) == 7]

        table = subprocess.run([sys.executable, "-B", HERE / "predict.py"], capture_output=True, text=True, check=True).stdout
        page = (HERE.parents[1] / "docs/gpu.md").read_text()
        self.assertGreater(table.count("\n"), 10)
        begin = rows(page).index(rows(table)[0])
        self.assertEqual(rows(page)[begin:begin + len(rows(table))], rows(table))


class CheckResultsTest(RunCase):
    def test_files(self):
        self.out.mkdir()
        for number in range(8):
            (self.out / f"file{number}.txt").touch()
        self.assertEqual(check_results.file_errors(self.out), [])
        (self.out / "a/b/c").mkdir(parents=True)
        (self.out / "a/b/c/deep").touch()
        (self.out / "two words").touch()
        with (self.out / "large").open("wb") as file:
            file.truncate((16 << 20) + 1)
        self.assertEqual(len(check_results.file_errors(self.out)), 4)

    def test_a_stage_that_was_said_to_be_over_and_is_not_there(self):
        printed = "torch 2.11.0 in /x; nothing is missing\nshapes: ok in 60.5 s\n"
        self.assertEqual(check_results.ran_errors(GOOD, printed), [])
        self.assertEqual(len(check_results.ran_errors(GOOD, printed.replace("ok in", "failed in"))), 1)
        self.assertEqual(len(check_results.ran_errors(GOOD, printed + "load: ok in 1.0 s\n")), 1)

    def test_a_rehearsal(self):
        self.assertEqual(check_results.rehearsal_errors(GOOD), [])
        rehearsed = copy.deepcopy(GOOD)
        rehearsed["stages"][0].update(status="unavailable", reason="no GPU")
        self.assertEqual(len(check_results.rehearsal_errors(rehearsed)), 1)
        self.assertEqual(len(check_results.rehearsal_errors({**GOOD, "stages": []})), 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        del sys.argv[1]
        sys.exit(main_with_made_up_pack())
    unittest.main()
