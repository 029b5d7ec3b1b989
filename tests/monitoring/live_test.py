"""A server that has been used and a real Prometheus: every query of every dashboard has an answer, every rule evaluates, and
docs/metrics.md lists what is published, no more and no less."""

import json
import math
import os
import re
import subprocess
import sys
import time
import unittest

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_server import Prometheus, e2e

from hotlora_server import adapters_pb2, images_pb2, request_for  # noqa: I100 (prometheus_server makes it importable)

GRAFANA = e2e.SOURCE / "deploy/grafana"
BOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))

# What Grafana knows and grafana-foundation-sdk does not.
BEYOND_SDK = {".id", ".templating.list[].definition", ".annotations.list[].step", ".annotations.list[].textFormat",
              ".annotations.list[].titleFormat"}
# Documented, and absent from a server without TLS.
ABSENT = {"hotlora_tls_certificate_not_after_timestamp_seconds"}


def use(server):
    """Traffic that moves every figure: adapters, sizes, formats, batches, streams, bad input, calls that end early."""
    caller = server.caller
    for round_number in range(3):
        for names in (("outline",), ("night",), ("outline", ("night", 0.7)), ()):
            caller.generate(request_for(*names, width=128, height=128))
        caller.generate(request_for(num_images=2, format=images_pb2.IMAGE_FORMAT_JPEG, guidance_scale=1.0))
        list(caller.stream(request_for("outline")))
        caller.adapters.ListAdapters(adapters_pb2.ListAdaptersRequest())
        e2e.problem_of(lambda: caller.generate(request_for(steps=0)))
        e2e.problem_of(lambda: caller.generate(request_for("nobody")))
        with e2e.ended(caller.stream(request_for(steps=1000))) as stream:
            e2e.read_until(stream, "progress")
        e2e.problem_of(lambda: caller.generate(request_for(steps=1000), timeout=0.5))
        server.wait_for_metric(0, "hotlora_requests_in_flight")


def queries(board):
    """(where, expression, legend) of every panel and annotation."""
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield f"{board['uid']}: {panel['title']}", target["expr"], target["legendFormat"]
    for annotation in board["annotations"]["list"]:
        yield f"{board['uid']}: {annotation['name']}", annotation["expr"], annotation["textFormat"]


def without_variables(expression):
    # Long enough for all that the test did, on a slow machine too.
    return expression.replace("$__rate_interval", "10m").replace("$instance", ".+")


class LiveCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        fakes = e2e.BIN.parent / "fakes"
        cls.server = e2e.Server(adapters=e2e.DEMO_ADAPTERS, environment=e2e.clean_environment(LD_LIBRARY_PATH=str(fakes)))
        cls.prometheus = Prometheus(cls.server.metrics_url.removeprefix("http://").removesuffix("/metrics"))
        cls.prometheus.wait_for("hotlora_ready == 1")
        use(cls.server)
        cls.prometheus.wait_for(f"timestamp(hotlora_ready) > {time.time() + 1}")
        # Rules have seen that scrape, each two of them.
        cls.prometheus.wait_for("count_over_time(instance:hotlora_device_memory_beyond_adapters_bytes:min10m[10m]) > 2")

    @classmethod
    def tearDownClass(cls):
        cls.prometheus.stop()
        cls.server.stop()


class DashboardsTest(LiveCase):
    def test_every_query_has_an_answer(self):
        for path in BOARDS:
            for where, expression, legend in queries(json.loads(path.read_text())):
                with self.subTest(where, expression=expression):
                    self.assertNotIn("vector(", expression)
                    answer = self.prometheus.query(without_variables(expression))
                    self.assertTrue(any(math.isfinite(value) for _, value in answer), answer)
                    for labels, _ in answer:
                        self.assertLessEqual(set(re.findall(r"\{\{(\w+)\}\}", legend)) - {"le"}, labels.keys())

    def test_a_query_with_a_typo_has_none(self):
        """Negative control of the test above."""
        self.assertEqual(self.prometheus.query("hotlora_no_such_metric"), [])
        with self.assertRaisesRegex(ValueError, "parse error"):
            self.prometheus.query("sum(hotlora_ready")

    def test_the_variable_lists_the_server(self):
        for path in BOARDS:
            variable = next(each for each in json.loads(path.read_text())["templating"]["list"] if each["type"] == "query")
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            found = [labels[label] for labels in self.prometheus.get("series", **{"match[]": metric})]
            self.assertEqual(len(found), 1, path.name)


class RulesTest(LiveCase):
    def test_all_rules_evaluate_and_none_fires(self):
        groups = self.prometheus.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertGreater(len(rules), 50)
        for rule in rules:
            with self.subTest(rule["name"]):
                self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""))
                self.assertNotEqual(rule.get("state"), "firing")

    def test_every_recording_rule_records(self):
        recorded = {rule["name"] for group in self.prometheus.get("rules")["groups"] for rule in group["rules"]
                    if rule["type"] == "recording"}
        for name in recorded:
            with self.subTest(name):
                self.assertTrue(self.prometheus.query(name))


class DocumentsTest(LiveCase):
    def test_the_page_of_metrics_is_true(self):
        page = (e2e.SOURCE / "docs/metrics.md").read_text().split("## What is not here")[0]
        documented = {}
        for line in page.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            names = re.findall(r"`((?:hotlora|process)_\w+)`", cells[0]) if line.startswith("| `") else []
            for name in names:
                documented[name] = (cells[1], set(re.findall(r"`(\w+)`", re.sub(r":[^`]*", "", cells[2]))))
        scrape = self.server.metrics()
        self.assertEqual(documented.keys() - ABSENT, scrape.types.keys())
        for name, kind in scrape.types.items():
            with self.subTest(name):
                self.assertEqual(kind, documented[name][0])
                self.assertEqual(scrape.label_names(name), {frozenset(documented[name][1])})

    def test_promtool_has_nothing_to_say(self):
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.server.metrics_text(), text=True,
                                 capture_output=True, timeout=e2e.PATIENCE)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))

    def test_the_figures_of_a_gpu(self):
        scrape = self.server.metrics()
        self.assertEqual(scrape.value("hotlora_nvml_up"), 1)
        self.assertEqual(scrape.value("hotlora_gpu_info", gpu_uuid="GPU-fake-0", driver="999.1"), 1)
        self.assertIn('name="Fake GPU"', scrape.text)
        self.assertEqual(scrape.value("hotlora_gpu_memory_total_bytes"), 80 << 30)
        self.assertEqual(scrape.value("hotlora_gpu_memory_free_bytes"), 60 << 30)
        self.assertEqual(scrape.value("hotlora_gpu_process_memory_bytes"), 18 << 30)
        self.assertEqual(scrape.value("hotlora_gpu_memory_unaccounted_bytes"), 18 << 30)
        self.assertEqual(scrape.value("hotlora_gpu_utilization_ratio"), 0.73)
        self.assertEqual(scrape.value("hotlora_gpu_temperature_celsius"), 61)
        self.assertEqual(scrape.value("hotlora_gpu_sm_clock_hertz"), 1755e6)
        self.assertGreater(scrape.value("hotlora_gpu_throttle_seconds_total", reason="power"), 0)


class SeriesTest(unittest.TestCase):
    def test_ten_thousand_adapters_and_real_traffic_stay_well_below_two_thousand(self):
        folder = e2e.copy_adapters(e2e.DEMO_ADAPTERS)
        names = [f"style{i:05}" for i in range(10_000)]
        for name in names:
            os.link(folder / "outline.safetensors", folder / f"{name}.safetensors")
        fakes = e2e.BIN.parent / "fakes"
        server = e2e.Server(adapters=folder, environment=e2e.clean_environment(LD_LIBRARY_PATH=str(fakes)))
        self.addCleanup(server.kill)
        use(server)
        for name in names[::100]:
            server.caller.generate(request_for(name, steps=1, guidance_scale=1.0))
        text = server.metrics_text()
        self.assertEqual(text.count("\nhotlora_adapter_requests_total{"), 64 + 2)
        self.assertLess(sum(line[:1] not in ("", "#") for line in text.splitlines()), 1800)
        self.assertLess(len(text), 256 << 10)


class FilesTest(unittest.TestCase):
    def test_the_dashboards_are_what_the_script_writes(self):
        subprocess.run([sys.executable, GRAFANA / "make_dashboards.py", "--check"], check=True, timeout=e2e.PATIENCE)

    def test_uids_are_fixed_and_the_datasource_a_variable(self):
        boards = [json.loads(path.read_text()) for path in BOARDS]
        self.assertEqual(len({board["uid"] for board in boards}), len(BOARDS))
        for board in boards:
            self.assertIsNone(board["id"])
            self.assertNotIn("__inputs", board)
            self.assertEqual(set(re.findall(r'"type": "prometheus", "uid": "([^"]*)"', json.dumps(board))), {"${datasource}"})

    def lost(self, board):
        """Paths of what grafana-foundation-sdk does not give back as it got it."""
        register_default_plugins()
        back = json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))

        def compare(ours, theirs, path):
            if isinstance(ours, dict) and isinstance(theirs, dict):
                for key, value in ours.items():
                    if key not in theirs:
                        yield f"{path}.{key}"
                    else:
                        yield from compare(value, theirs[key], f"{path}.{key}")
            elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
                for one, other in zip(ours, theirs):
                    yield from compare(one, other, path + "[]")
            elif ours != theirs:
                yield path

        return set(compare(board, back, "")) - BEYOND_SDK

    def test_grafanas_own_types_know_every_key(self):
        for path in BOARDS:
            with self.subTest(path.name):
                self.assertEqual(self.lost(json.loads(path.read_text())), set())

    def test_a_typo_would_show(self):
        board = json.loads(BOARDS[0].read_text())
        board["panels"][0]["titel"] = board["panels"][0].pop("title")
        board["panels"][0]["targets"][0]["legendFromat"] = "x"
        self.assertEqual(self.lost(board), {".panels[].titel", ".panels[].targets[].legendFromat"})


if __name__ == "__main__":
    unittest.main()
