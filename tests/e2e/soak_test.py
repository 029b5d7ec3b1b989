"""`hotlora bench soak` on the tiny model: hundreds of swaps among adapters of all formats leave bytes, files, threads and base
weights as they were; servers that leak are found. The long run, which judges RSS and latency too, is tests/bench/soak.py."""

import json
import sys
import unittest

import hotlora_server as e2e

sys.path.insert(0, str(e2e.SOURCE / "tests/bench"))
import soak

MODEL = e2e.GOLDEN / "pipeline"


class SoakTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.adapters = e2e.temporary_folder()
        soak.make_adapters(MODEL, cls.adapters, count=30)

    def soak(self, *words, program=e2e.SERVER, apply="auto", **faults):
        """Exit status and report, of adapters three times as large as the tiers."""
        server = soak.start(MODEL, self.adapters, "--apply", apply, program=program, tier_bytes=soak.TINY_TIER_BYTES, **faults)
        try:
            result = soak.run_soak(server, "--exact-only", *words)
            return result.returncode, json.loads(result.stdout)
        finally:
            self.assertEqual(server.stop(), 0)

    def failed(self, report):
        return {gate["name"] for gate in report["gates"] if not gate["passed"]}

    def test_hundreds_of_swaps_leave_everything_as_it_was(self):
        csv, plot = (e2e.temporary_folder() / name for name in ("soak.csv", "soak.png"))
        words = ["--plot", plot] if soak.HAS_GNUPLOT else []
        status, report = self.soak("--swaps", 400, "--csv", csv, *words)
        self.assertEqual((status, self.failed(report)), (0, set()), report)
        self.assertEqual({gate["name"] for gate in report["gates"]},
                         {"allocated bytes", "reserved bytes", "open files", "threads", "base weights", "calls"})
        self.assertGreater(report["swaps"], 390)  # a cancelled request may have brought a set already
        self.assertGreaterEqual(min(report["refused"], report["cancelled"]), 20)
        lines = csv.read_text().splitlines()
        self.assertEqual(sum(line.startswith("swap,") for line in lines), 400)
        self.assertEqual(sum(line.startswith("idle,") for line in lines), 1 + 400 / 20)
        sources = {line.split(",")[3] for line in lines if line.startswith("swap,")}
        self.assertLessEqual({"disk", "device"}, sources)
        if words:
            self.assertEqual(plot.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")

    def test_a_leak_of_4_kib_a_swap_is_found(self):
        status, report = self.soak("--swaps", 100, program=e2e.FAULTY_SERVER, FAULT_LEAK_TENSOR_BYTES="4096")
        self.assertEqual((status, self.failed(report)), (1, {"allocated bytes", "reserved bytes"}), report)

    def test_the_same_server_without_its_fault_passes_with_side_branches(self):
        status, report = self.soak("--swaps", 100, program=e2e.FAULTY_SERVER, apply="side")
        self.assertEqual((status, self.failed(report)), (0, set()), report)


if __name__ == "__main__":
    unittest.main()
