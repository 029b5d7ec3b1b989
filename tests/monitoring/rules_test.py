"""Rules and configuration of Prometheus and Alertmanager: sound, fire where they should and only there, each with a section
in the runbook."""

import json
import os
import pathlib
import random
import re
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["HOTLORA_TEST_SOURCE"])
PROMETHEUS = SOURCE / "deploy/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
ALERTS = [name for file in RULES for name in re.findall(r"- alert: (\w+)", file.read_text())]
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


def run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=500)


def series(name, values, **labels):
    labels = {"job": "hotlora", "instance": "a", **labels}
    text = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{text}}}", "values": " ".join(f"{value:.6g}" for value in values)}


def firing(at, *alerts, expression=FIRING):
    samples = [{"labels": f'{{alertname="{name}"}}', "value": count} for name, count in alerts]
    return {"expr": expression, "eval_time": at, "exp_samples": samples}


class ConfigurationTest(unittest.TestCase):
    def check(self, *words):
        done = run(*words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_promtool_takes_the_configuration_with_its_rules(self):
        self.check("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
        self.assertNotIn("FAILED", self.check("promtool", "check", "rules", *RULES))

    def test_amtool_takes_alertmanagers(self):
        self.check("amtool", "check-config", SOURCE / "deploy/alertmanager/alertmanager.yml")

    def test_a_page_goes_to_the_pager_and_a_ticket_does_not(self):
        config = SOURCE / "deploy/alertmanager/alertmanager.yml"
        for severity, receiver in (("page", "pager"), ("ticket", "tickets")):
            routed = self.check("amtool", "config", "routes", "test", f"--config.file={config}", f"severity={severity}")
            self.assertEqual(routed.strip(), receiver)

    def test_the_rules_do_what_their_tests_say(self):
        self.check("promtool", "test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))

    def test_every_alert_has_a_case_in_which_it_fires(self):
        tested = set(re.findall(r'alertname="(\w+)"', (PROMETHEUS / "tests/alerts.yml").read_text()))
        self.assertEqual(set(ALERTS), tested)


class RunbookTest(unittest.TestCase):
    def test_every_alert_has_its_section_and_links_to_it(self):
        sections = re.findall(r"^### (\w+)$", (SOURCE / "docs/operations.md").read_text(), re.MULTILINE)
        self.assertEqual(len(sections), len(set(sections)))
        self.assertEqual(set(ALERTS), set(sections))
        for file in RULES:
            for name, body in re.findall(r"- alert: (\w+)\n(.*?)(?=\n      - |\n  - |\Z)", file.read_text(), re.DOTALL):
                with self.subTest(name):
                    page, anchor = re.search(r"runbook_url: (\S+)#(\S+)", body).groups()
                    self.assertEqual(anchor, name.lower())  # as the section's heading is rendered
                    self.assertTrue((SOURCE / page).exists())
                    for annotation in ("summary", "description", "severity"):
                        self.assertRegex(body, rf"\b{annotation}: \S")

    def test_every_metric_in_a_rule_is_documented(self):
        documented = set(re.findall(r"`(\w+)`", (SOURCE / "docs/metrics.md").read_text()))
        for file in RULES:
            used = set(re.findall(r"(?<!:)\b((?:hotlora|process)_\w+)", re.sub(r"#.*", "", file.read_text())))
            for name in used:
                if f":{name}" in file.read_text() or name.startswith("hotlora_slo_"):
                    continue  # part of a recorded name
                with self.subTest(f"{file.name}: {name}"):
                    self.assertIn(re.sub(r"_(bucket|sum|count)$", "", name), documented)


class ReplayTest(unittest.TestCase):
    """Histories as a server would have written them, and what fires when."""

    def replay(self, step, inputs, checks):
        test = {
            "rule_files": [str(file) for file in RULES],
            "evaluation_interval": "1m",
            "tests": [{"interval": f"{step}s", "input_series": inputs, "promql_expr_test": checks}],
        }
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump(test, file)  # JSON is YAML
            file.flush()
            return run("promtool", "test", "rules", file.name)

    def leak(self):
        """huggingface/peft#1639: 60 images with changing LoRAs, from 20 s to 43 s each, memory up to the top of 24 GiB."""
        step, images, steps_each = 15, 60, 30
        seconds = [20 + 23 * image / (images - 1) for image in range(images)]
        ends = [sum(seconds[: image + 1]) for image in range(images)]
        times = range(0, int(ends[-1]) + step, step)
        done = [sum(end <= time for end in ends) for time in times]
        running = [min(count, images - 1) for count in done]
        bottom, top = 7 << 30, 24 << 30
        return step, [
            series("up", [1 for _ in times]),
            series("hotlora_step_drift_ratio", [seconds[image] / seconds[0] for image in running]),
            series("hotlora_denoise_step_duration_seconds_count", [count * steps_each for count in done], size="le_1mp",
                   cfg="on"),
            series("hotlora_adapter_swaps_total", done, outcome="ok"),
            series("hotlora_device_memory_allocated_bytes",
                   [bottom + (top - bottom) * count / images for count in done], device="cuda:0"),
            series("hotlora_adapter_cache_capacity_bytes", [2 << 30 for _ in times], tier="device"),
            series("hotlora_gpu_memory_free_bytes", [top - bottom - (top - bottom) * count / images for count in done],
                   gpu_uuid="g"),
        ]

    def test_the_leak_of_peft_1639_is_found_while_it_happens(self):
        step, inputs = self.leak()
        drift = 'count(ALERTS{alertname="HotloraStepLatencyDrift", alertstate="firing"}) by (alertname)'
        leak = 'count(ALERTS{alertname="HotloraDeviceMemoryLeak", alertstate="firing"}) by (alertname)'
        full = 'count(ALERTS{alertname="HotloraGpuMemoryExhaustion", alertstate="firing"}) by (alertname)'
        done = self.replay(step, inputs, [
            firing("15m", ("HotloraStepLatencyDrift", 1), expression=drift),
            firing("30m", ("HotloraStepLatencyDrift", 2), expression=drift),  # the page as well
            firing("30m", ("HotloraDeviceMemoryLeak", 1), expression=leak),
            firing("30m", ("HotloraGpuMemoryExhaustion", 1), expression=full),
        ])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def healthy(self, hours):
        """The same load on a server that does not leak: adapters come and go, sizes vary, a caller errs now and then."""
        step = 60
        chance = random.Random(1639)
        count = hours * 3600 // step
        swaps, steps, requests, bad, failed, slow = [0], [0], [0], [0], [0], [0]
        for _ in range(count):
            images = chance.randint(0, 4)
            swaps.append(swaps[-1] + chance.randint(0, images))
            steps.append(steps[-1] + 30 * images)
            requests.append(requests[-1] + images)
            bad.append(bad[-1] + (chance.random() < 0.05))
            failed.append(failed[-1] + (chance.random() < 0.002))
            slow.append(slow[-1] + (chance.random() < 0.01))
        tier = [min(2 << 30, swap * (200 << 20)) for swap in swaps]  # fills, then is full
        tier_bytes = 2 << 30  # allocated whole
        spikes = [chance.choice([0, 0, 1 << 30, 3 << 30]) for _ in swaps]  # activations of images of all sizes
        reserved = [7 << 30]
        for spike in spikes:
            reserved.append(max(reserved[-1], (7 << 30) + tier_bytes + spike))
        reserved = reserved[1:]
        hosted = [min(4e9, 2e7 * minute) for minute in range(len(swaps))]
        resident = [3e9 + held + chance.uniform(-2e7, 2e7) for held in hosted]
        lookups = [2 * swap for swap in swaps]
        images_of = dict(method="StreamGenerateImages")
        ok = [total - lost for total, lost in zip(requests, failed)]
        always = lambda value: [value for _ in swaps]  # noqa: E731
        return step, [
            series("up", always(1)),
            series("hotlora_ready", always(1)),
            series("hotlora_draining", always(0)),
            series("process_start_time_seconds", always(0)),
            series("hotlora_not_ready", always(0), reason="stuck_step"),
            series("hotlora_not_ready", always(0), reason="listener_deaf"),
            series("hotlora_adapter_job_age_seconds", [chance.choice([0, 0, 2, 20]) for _ in swaps]),
            series("hotlora_step_drift_ratio", [chance.uniform(0.96, 1.08) for _ in swaps]),
            series("hotlora_denoise_step_duration_seconds_count", steps, size="le_1mp", cfg="on"),
            series("hotlora_adapter_swaps_total", swaps, outcome="ok"),
            series("hotlora_adapter_swap_duration_seconds_bucket", [swap * 0.9 for swap in swaps], le="0.1",
                   phase="total", source="host"),
            series("hotlora_adapter_swap_duration_seconds_bucket", swaps, le="0.5", phase="total", source="host"),
            series("hotlora_adapter_swap_duration_seconds_bucket", swaps, le="+Inf", phase="total", source="host"),
            series("hotlora_device_memory_allocated_bytes",
                   [(7 << 30) + tier_bytes + spike for spike in spikes], device="cuda:0"),
            series("hotlora_adapter_cache_capacity_bytes", always(tier_bytes), tier="device"),
            series("hotlora_device_memory_reserved_bytes", reserved, device="cuda:0"),
            series("hotlora_device_memory_fragmentation_ratio", [chance.uniform(0, 0.3) for _ in swaps], device="cuda:0"),
            series("hotlora_device_memory_allocation_retries_total", always(0), device="cuda:0"),
            series("hotlora_device_memory_oom_total", always(0), device="cuda:0"),
            series("hotlora_adapter_cache_bytes", tier, tier="device"),
            series("hotlora_adapter_cache_bytes", hosted, tier="host"),
            series("hotlora_adapter_cache_requests_total", [0.8 * look for look in lookups], tier="device", result="hit"),
            series("hotlora_adapter_cache_requests_total", [0.2 * look for look in lookups], tier="device",
                   result="miss"),
            series("hotlora_adapter_cache_evictions_total", [0.2 * swap for swap in swaps], tier="device",
                   reason="capacity"),
            series("hotlora_gpu_memory_free_bytes", [(80 << 30) - held for held in reserved], gpu_uuid="g"),
            series("hotlora_gpu_memory_unaccounted_bytes", always(1.2e9), gpu_uuid="g"),
            series("hotlora_nvml_up", always(1)),
            series("process_resident_memory_bytes", resident),
            series("process_open_fds", [chance.randint(60, 200) for _ in swaps]),
            series("process_max_fds", always(65536)),
            series("hotlora_queue_depth", [chance.choice([0, 0, 1, 5, 30]) for _ in swaps]),
            series("hotlora_queue_capacity", always(64)),
            series("hotlora_queue_oldest_enqueue_timestamp_seconds",
                   [max(0, step * i - chance.randint(0, 20)) for i in range(len(swaps))]),
            series("hotlora_requests_total", ok, code="OK", **images_of),
            series("hotlora_requests_total", bad, code="INVALID_ARGUMENT", **images_of),
            series("hotlora_requests_total", failed, code="UNAVAILABLE", **images_of),
            series("hotlora_request_duration_seconds_count", ok, outcome="ok", **images_of),
            series("hotlora_request_duration_seconds_bucket", [good - late for good, late in zip(ok, slow)], le="30",
                   outcome="ok", **images_of),
            series("hotlora_disk_free_bytes", always(5e11), volume="adapters"),
            series("hotlora_adapter_refs", [chance.choice([0, 1, 2]) for _ in swaps]),
            series("hotlora_requests_in_flight", always(1), method="StreamGenerateImages"),
            series("scrape_samples_post_metric_relabeling", always(1800)),
        ]

    def test_its_healthy_twin_fires_nothing_in_24_hours(self):
        hours = 24
        step, inputs = self.healthy(hours)
        ever = f'count by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}[{hours}h]))'
        done = self.replay(step, inputs, [firing(f"{hours}h", expression=ever)])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_twin_is_watched_at_all(self):
        """Negative control: the same history with one fault is not quiet."""
        step, inputs = self.healthy(3)
        inputs = [each for each in inputs if "restore_mismatch" not in each["series"]]
        inputs.append(series("hotlora_base_restore_mismatch_total", [0] * 100 + [1] * 81))
        ever = 'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[3h]))'
        done = self.replay(step, inputs, [firing("3h", ("HotloraBaseWeightsCorrupt", 1), expression=ever)])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
