"""`hotlora bench` on the tiny model. Soak: hundreds of swaps among adapters of all formats leave bytes, files, threads and base
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
        server = soak.start(MODEL, self.adapters, "--apply", apply, program=program, tier_items=soak.TINY_TIER_ITEMS, faults=faults)
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
        status, report = self.soak("--swaps", 100, program=e2e.FAULTY_SERVER, leaked_tensor_bytes_a_swap=4096)
        self.assertEqual((status, self.failed(report)), (1, {"allocated bytes", "reserved bytes"}), report)

    def test_the_same_server_without_its_fault_passes_with_side_branches(self):
        status, report = self.soak("--swaps", 100, program=e2e.FAULTY_SERVER, apply="side")
        self.assertEqual((status, self.failed(report)), (0, set()), report)


class SwapAndStepTest(unittest.TestCase):
    """What is measured where; how long it takes is not judged."""

    @classmethod
    def setUpClass(cls):
        adapters = e2e.temporary_folder()
        soak.make_adapters(MODEL, adapters, count=4)
        cls.servers = {apply: soak.start(MODEL, adapters, "--apply", apply, program=e2e.SERVER, tier_items=soak.TINY_TIER_ITEMS)
                       for apply in ("merged", "side")}

    @classmethod
    def tearDownClass(cls):
        for server in cls.servers.values():
            server.stop()

    def bench(self, apply, *words):
        result = e2e.run(e2e.CLIENT, "--server", self.servers[apply].target, "--json", "bench", *words,
                         "--adapters-match", "adapter_*")
        self.assertEqual(result.returncode, 0, result.stdout)
        return json.loads(result.stdout)

    def test_swaps_are_found_where_they_were_put(self):
        read = {"read", "parse"}
        phases = {"disk": {"lookup", "upload", "apply"} | read, "host": {"lookup", "upload", "apply"}, "device": {"lookup", "apply"}}
        for source, expected in phases.items():
            report = self.bench("merged", "swap", "--source", source, "--iterations", 8)
            self.assertEqual(list(report), [f"{source} merged"])
            group = report[f"{source} merged"]
            self.assertEqual(group["total"]["n"], 8)
            self.assertEqual(set(group) - {"restore", "total", "added", "request with the swap / the same without"}, expected)
            parts = sum(group[phase]["p50_ms"] for phase in expected)
            self.assertGreater(2 * group["total"]["p50_ms"], parts)

    def test_every_swap_is_a_line_of_the_csv(self):
        csv = e2e.temporary_folder() / "swaps.csv"
        self.bench("side", "swap", "--at-once", 2, "--iterations", 5, "--in-turn", "--csv", csv)
        head, *lines = csv.read_text().splitlines()
        self.assertEqual(len(lines), 5)
        self.assertTrue(all(len(line.split(",")) == len(head.split(",")) for line in lines))
        # two a request, in turn, after five of warm-up: the same two every second time
        names = [tuple(word.split(":")[0] for word in line.split(",")[0].split()) for line in lines]
        self.assertEqual(names[0], names[2])
        self.assertEqual(len({name for pair in names for name in pair}), 4)

    def test_steps_have_three_arms(self):
        report = self.bench("merged", "step", "--steps", 2, "--blocks", 3, "--side-server", self.servers["side"].target)
        self.assertEqual(set(report), {"none", "merged", "side"})
        self.assertEqual({arm["step"]["n"] for arm in report.values()}, {3})
        self.assertIn("step / step without adapters", report["side"])

    def test_a_server_of_the_other_form_is_refused(self):
        result = e2e.run(e2e.CLIENT, "--server", self.servers["side"].target, "bench", "step", "--blocks", 2,
                         "--adapters-match", "adapter_0000")
        self.assertEqual(result.returncode, 1)
        self.assertIn("--apply merged", result.stderr)

    def test_patterns_that_match_nothing_are_refused(self):
        result = e2e.run(e2e.CLIENT, "--server", self.servers["side"].target, "bench", "swap", "--adapters-match", "none*")
        self.assertEqual(result.returncode, 1)
        self.assertIn("0 adapters match", result.stderr)


if __name__ == "__main__":
    unittest.main()
