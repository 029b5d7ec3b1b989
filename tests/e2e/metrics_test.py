"""Every metric of the contract is on /metrics with its labels, and moves with its event by just as much."""

import os
import shutil
import subprocess
import unittest

import hotlora_server as e2e
from hotlora_server import adapters_pb2, controls_pb2, image_prompts_pb2, images_pb2, request_for, server_pb2
from hotlora.openai.v1 import openai_pb2
from hotlora.sdapi.v1 import sdapi_pb2

# Family: type and label names. Where the contract says "as usual", what dashboards may use.
CONTRACT = {
    "hotlora_denoise_step_duration_seconds": ("histogram", {"size", "cfg"}),
    "hotlora_step_baseline_seconds": ("gauge", {"width", "height", "rows", "cfg"}),
    "hotlora_step_drift_ratio": ("gauge", set()),
    "hotlora_device_memory_allocated_bytes": ("gauge", {"device"}),
    "hotlora_device_memory_reserved_bytes": ("gauge", {"device"}),
    "hotlora_device_memory_fragmentation_ratio": ("gauge", {"device"}),
    "hotlora_gpu_memory_used_bytes": ("gauge", {"gpu_uuid"}),
    "hotlora_gpu_memory_free_bytes": ("gauge", {"gpu_uuid"}),
    "hotlora_gpu_memory_total_bytes": ("gauge", {"gpu_uuid"}),
    "hotlora_gpu_memory_unaccounted_bytes": ("gauge", {"gpu_uuid"}),
    "hotlora_nvml_up": ("gauge", set()),
    "hotlora_adapter_swap_duration_seconds": ("histogram", {"phase", "source"}),
    "hotlora_adapter_swaps_total": ("counter", {"outcome"}),
    "hotlora_adapter_cache_requests_total": ("counter", {"tier", "result"}),
    "hotlora_adapter_cache_evictions_total": ("counter", {"tier", "reason"}),
    "hotlora_adapter_cache_bytes": ("gauge", {"tier"}),
    "hotlora_adapter_cache_capacity_bytes": ("gauge", {"tier"}),
    "hotlora_adapter_cache_entries": ("gauge", {"tier"}),
    "hotlora_adapter_refs": ("gauge", set()),
    "hotlora_base_restore_mismatch_total": ("counter", set()),
    "hotlora_phase_duration_seconds": ("histogram", {"phase"}),
    "hotlora_requests_total": ("counter", {"method", "code"}),
    "hotlora_request_duration_seconds": ("histogram", {"method", "outcome"}),
    "hotlora_queue_depth": ("gauge", set()),
    "hotlora_queue_capacity": ("gauge", set()),
    "hotlora_queue_wait_seconds": ("histogram", set()),
    "hotlora_batch_size": ("histogram", set()),
    "hotlora_images_total": ("counter", {"format"}),
    "hotlora_build_info": ("gauge", {"version", "libtorch"}),
    "hotlora_model_info": ("gauge", {"model", "sha256_12", "dtype", "device"}),
    "process_cpu_seconds_total": ("counter", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_max_fds": ("gauge", set()),
}

# Each label's known values, which stand at 0 from the start.
KNOWN = {
    "size": {"le_0.5mp", "le_1mp", "le_2mp", "gt_2mp"},
    "cfg": {"on", "off"},
    "source": {"device", "host", "disk"},
    "outcome": {"ok", "error", "cancelled"},
    "result": {"hit", "miss"},
}

# Families that no event of this test moves, and why.
NOT_MOVED = {
    "hotlora_step_baseline_seconds",  # warm-up measured it before the first scrape
    "hotlora_device_memory_fragmentation_ratio",  # 0 on the CPU
    "hotlora_nvml_up",  # and the gpu_ families: what the machine has
    "hotlora_gpu_memory_used_bytes",
    "hotlora_gpu_memory_free_bytes",
    "hotlora_gpu_memory_total_bytes",
    "hotlora_gpu_memory_unaccounted_bytes",
    "hotlora_adapter_cache_capacity_bytes",  # settings
    "hotlora_queue_capacity",
    "hotlora_build_info",
    "hotlora_model_info",
    "hotlora_base_restore_mismatch_total",  # tests/engine
    "process_virtual_memory_bytes",
    "process_start_time_seconds",
    "process_max_fds",
}

STEP = "hotlora_denoise_step_duration_seconds_count"
BATCH = "hotlora_batch_size"
SWAP = "hotlora_adapter_swap_duration_seconds_count"
SWAPS = "hotlora_adapter_swaps_total"
CACHE = "hotlora_adapter_cache_requests_total"
EVICTIONS = "hotlora_adapter_cache_evictions_total"
ENTRIES = "hotlora_adapter_cache_entries"
BYTES = "hotlora_adapter_cache_bytes"
PHASE = "hotlora_phase_duration_seconds_count"
REQUESTS = "hotlora_requests_total"
DURATION = "hotlora_request_duration_seconds_count"
WAIT = "hotlora_queue_wait_seconds_count"
IMAGES = "hotlora_images_total"
ALLOCATED = e2e.ALLOCATED
RESERVED = "hotlora_device_memory_reserved_bytes"

MAX_QUEUE = 1
STEPS = 3


def one_adapter_bytes():
    """A tier of so many bytes holds outline or night, the smaller, but never both."""
    outline, night = e2e.resident_bytes(e2e.DEMO_ADAPTERS, "outline", "night")
    assert 0 < night < outline, (night, outline)
    return outline + night // 2


# Changes by any amount.
MORE = "more"
LESS = "less"


def key(name, **labels):
    return name, frozenset(labels.items())


class ServerCase(unittest.TestCase):
    """A server of each class's own, since events are counted from its start."""

    @classmethod
    def setUpClass(cls):
        cls.folder = e2e.copy_adapters(e2e.DEMO_ADAPTERS)
        shutil.copyfile(e2e.GOLDEN / "broken_adapters/nan_weights.safetensors", cls.folder / "broken.safetensors")
        cls.host_bytes = one_adapter_bytes()
        cls.server = e2e.Server("--adapter-host-bytes", cls.host_bytes, "--adapter-device-bytes", 0, "--max-queue", MAX_QUEUE,
                                adapters=cls.folder)
        cls.caller = cls.server.caller
        cls.at_start = cls.server.metrics()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()


class WhatIsThereTest(ServerCase):
    def test_every_metric_is_there_from_the_start_with_its_labels(self):
        without_gpu = self.at_start.value("hotlora_nvml_up") == 0
        for family, (kind, labels) in CONTRACT.items():
            with self.subTest(family):
                if family == "hotlora_step_drift_ratio" or without_gpu and family.startswith("hotlora_gpu_"):
                    self.assertNotIn(family, self.at_start.types)
                    continue
                self.assertEqual(self.at_start.types.get(family), kind)
                self.assertEqual(self.at_start.label_names(family), {frozenset(labels)})

    def test_known_label_values_stand_at_0_from_the_start(self):
        for family, (kind, labels) in CONTRACT.items():
            if kind == "gauge" or not labels:
                continue
            name = family + ("_count" if kind == "histogram" else "")
            for label in labels & KNOWN.keys():
                if family == "hotlora_adapter_swaps_total":
                    continue  # its outcomes are ok and error
                with self.subTest(family, label=label):
                    values = {dict(labels)[label] for _, labels in self.at_start.matching(name)}
                    self.assertEqual(values, KNOWN[label])
        phases = {dict(labels)["phase"] for _, labels in self.at_start.matching(SWAP)}
        self.assertEqual(phases, {"lookup", "read", "parse", "upload", "apply", "restore", "total"})
        phases = {dict(labels)["phase"] for _, labels in self.at_start.matching(PHASE)}
        self.assertEqual(phases, {"queue", "adapter", "encode", "denoise", "decode", "image_encode"})
        methods = {dict(labels)["method"] for _, labels in self.at_start.matching(REQUESTS)}
        rpcs = {
            method.name
            for file in (images_pb2, adapters_pb2, controls_pb2, image_prompts_pb2, server_pb2, openai_pb2, sdapi_pb2)
            for service in file.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        }
        self.assertEqual(methods, rpcs)

    def test_settings_and_facts(self):
        self.assertEqual(self.at_start.value("hotlora_queue_capacity"), MAX_QUEUE)
        self.assertEqual(self.at_start.value("hotlora_adapter_cache_capacity_bytes", tier="host"), self.host_bytes)
        info = self.caller.info.GetServerInfo(server_pb2.GetServerInfoRequest())
        facts = dict(model=info.model, sha256_12=info.model_sha256[:12], dtype=info.dtype, device=info.device)
        self.assertEqual(self.at_start.value("hotlora_model_info", **facts), 1)
        self.assertEqual(self.at_start.value("hotlora_build_info", version=info.version), 1)
        for cfg in ("on", "off"):  # at half the width and height if the machine is slow
            shapes = [dict(width=str(info.native_width // part), height=str(info.native_height // part), rows="1", cfg=cfg)
                      for part in (1, 2)]
            baselines = [value for shape in shapes
                         for value in self.at_start.matching("hotlora_step_baseline_seconds", **shape).values()]
            self.assertTrue(baselines and min(baselines) > 0, baselines)

    def test_promtool_has_nothing_to_say(self):
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.server.metrics_text(), text=True,
                                     capture_output=True, timeout=e2e.PATIENCE)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))

    def test_fewer_than_2000_series(self):
        self.assertLess(len(self.server.metrics().samples), 2000)

    def test_50_swaps_leave_the_allocator_where_it_was(self):
        def allocated_after(*names):
            self.caller.generate(request_for(*names, steps=1, guidance_scale=1.0))
            return self.server.metrics().value(ALLOCATED)

        names = [("outline",), ("night",), ()]
        first = [allocated_after(*each) for each in names]
        swaps = self.server.metrics().sum(SWAPS, outcome="ok")
        for _ in range(17):
            self.assertEqual([allocated_after(*each) for each in names], first)
        self.assertEqual(self.server.metrics().sum(SWAPS, outcome="ok") - swaps, 51)
        self.assertEqual(self.server.metrics().value("hotlora_base_restore_mismatch_total"), 0)

    def test_a_scrape_does_not_wait_for_a_step(self):
        with e2e.ended(self.caller.stream(request_for(steps=20, width=1024, height=1024))) as stream:
            for _ in range(20):
                e2e.read_until(stream, "progress")
                counts = {self.server.metrics().sum(STEP) for _ in range(3)}
                if len(counts) == 1:
                    return  # three scrapes within one step
        self.fail("no three scrapes within one step, in 20 steps")


class WhatMovesThemTest(ServerCase):
    def check_moves(self, event, changes):
        """Runs `event`; each key's value changes as `changes` says, 0 where it says nothing of a counted name."""
        scrape = self.server.metrics_at_rest if any(name == ALLOCATED for name, _ in changes) else self.server.metrics
        before = scrape()
        event()
        after = scrape()
        for (name, labels), wanted in changes.items():
            change = after.sum(name, **dict(labels)) - before.sum(name, **dict(labels))
            with self.subTest(name, **dict(labels)):
                if wanted is MORE:
                    self.assertGreater(change, 0)
                elif wanted is LESS:
                    self.assertLess(change, 0)
                else:
                    self.assertEqual(change, wanted)
            if change:
                self.moved.add(name)
        # A swap, eviction, look-up or request that nobody expects is as wrong as a missing one.
        for name in (SWAPS, EVICTIONS, CACHE, IMAGES, REQUESTS, DURATION):
            expected = sum(wanted for (changed, _), wanted in changes.items() if changed == name)
            self.assertEqual(after.sum(name) - before.sum(name), expected, f"all of {name}")

    def image_event(self, request, steps, **labels):
        """The event and what any image moves, whatever its adapters."""
        images = request.num_images or 1
        size = labels.get("size", "le_0.5mp")
        changes = {
            key(STEP, size=size, cfg=labels.get("cfg", "on")): steps,
            key(STEP): steps,
            key(BATCH + "_count"): steps,
            key(BATCH + "_sum"): steps * images,
            key(REQUESTS, method="GenerateImages", code="OK"): 1,
            key(DURATION, method="GenerateImages", outcome="ok"): 1,
            key(IMAGES, format=labels.get("format", "png")): images,
            key(WAIT): 1,
            key(PHASE, phase="queue"): 1,
            key(PHASE, phase="adapter"): 1,
            key(PHASE, phase="encode"): 1,
            key(PHASE, phase="denoise"): 1,
            key(PHASE, phase="decode"): images,
            key(PHASE, phase="image_encode"): images,
        }
        self.steps_made += steps
        return lambda: self.caller.generate(request), changes

    def check_image(self, *adapters, more=None, labels=None, **fields):
        fields.setdefault("steps", STEPS)
        event, changes = self.image_event(request_for(*adapters, **fields), fields["steps"], **(labels or {}))
        self.check_moves(event, {**changes, **(more or {})})

    def check_problem(self, method, code, call, outcome="error", more=None):
        changes = {key(REQUESTS, method=method, code=code): 1, key(DURATION, method=method, outcome=outcome): 1}
        self.check_moves(lambda: self.assertEqual(e2e.problem_of(call).code, code), {**changes, **(more or {})})

    def test_each_event_moves_its_metrics(self):
        self.moved = set()
        self.steps_made = self.server.metrics().sum(STEP)
        self.adapters_and_tiers()
        self.sizes_formats_and_batches()
        self.answers()
        self.queue()
        scrape = self.server.metrics()
        self.assertGreater(scrape.value("hotlora_step_drift_ratio"), 0)
        families = {name.removesuffix("_count").removesuffix("_sum") for name in self.moved}
        for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
                     "hotlora_step_drift_ratio"):
            self.assertGreater(scrape.value(name), 0)
            families.add(name)
        self.assertEqual(CONTRACT.keys() - NOT_MOVED - families, set())
        self.check_sums(scrape)

    def adapters_and_tiers(self):
        from_disk = {
            **{key(SWAP, phase=phase, source="disk"): 1 for phase in ("lookup", "read", "parse", "apply", "total")},
            key(SWAPS, outcome="ok"): 1,
            key(CACHE, tier="host", result="miss"): 1,
            key(CACHE, tier="disk", result="hit"): 1,
        }
        from_host = {
            **{key(SWAP, phase=phase, source="host"): 1 for phase in ("lookup", "apply", "total")},
            key(SWAPS, outcome="ok"): 1,
            key(CACHE, tier="host", result="hit"): 1,
        }
        to_base = {
            **{key(SWAP, phase=phase, source="device"): 1 for phase in ("restore", "total")},
            key(SWAPS, outcome="ok"): 1,
        }
        held = (key(BYTES, tier="host"), key(ALLOCATED), key(RESERVED))
        resident = {key(ENTRIES, tier="host"): 1, **dict.fromkeys(held, MORE)}
        gone = {key(ENTRIES, tier="host"): -1, **dict.fromkeys(held, LESS)}
        stays = {key(ENTRIES, tier="host"): 0, **dict.fromkeys(held, 0)}
        # From disk; again, where nothing is to be swapped; back to the base; from host memory.
        self.check_image("outline", more={**from_disk, **resident}, width=128, height=128)
        self.check_image("outline", more={key(CACHE, tier="host", result="hit"): 1, key(SWAP): 0, **stays})
        self.check_image(more={**to_base, **stays})
        self.check_image("outline", more={**from_host, **stays})
        # Another weight is another set.
        self.check_image(("outline", 0.5), more={**from_host, **stays})
        # The budget has no room for both.
        evicted = {key(EVICTIONS, tier="host", reason="capacity"): 1, key(ENTRIES, tier="host"): 0}
        self.check_image("night", more={**from_disk, **evicted, key(BYTES, tier="host"): LESS})
        self.check_moves(lambda: self.unload("night"), {**gone, **self.answered("UnloadAdapter"),
                                                        key(EVICTIONS, tier="host", reason="explicit"): 1})
        self.assertEqual(self.server.metrics().value(BYTES, tier="host"), 0)
        load = {**self.answered("LoadAdapter"), key(CACHE, tier="host", result="miss"): 1,
                key(CACHE, tier="disk", result="hit"): 1, key(SWAP): 0}
        self.check_moves(lambda: self.load("night"), {**load, **resident})
        self.touch("night")
        replaced = {key(EVICTIONS, tier="host", reason="replaced"): 1}
        self.check_moves(lambda: self.load("night"), {**load, **stays, **replaced})
        # Both at once cannot be had: a swap that failed before anything moved.
        both = request_for("night", "outline")
        self.check_problem("GenerateImages", "RESOURCE_EXHAUSTED", lambda: self.caller.generate(both),
                           more={key(SWAPS, outcome="error"): 1, **stays})
        self.check_problem("GenerateImages", "NOT_FOUND", lambda: self.caller.generate(request_for("nobody")),
                           more={key(SWAPS, outcome="error"): 1, key(CACHE, tier="host", result="miss"): 1,
                                 key(CACHE, tier="disk", result="miss"): 1})

    def unload(self, name):
        self.caller.adapters.UnloadAdapter(adapters_pb2.UnloadAdapterRequest(name=name), timeout=e2e.PATIENCE)

    def load(self, name):
        return self.caller.adapters.LoadAdapter(adapters_pb2.LoadAdapterRequest(name=name), timeout=e2e.PATIENCE)

    def touch(self, name):
        """Replaces an adapter's file by a copy."""
        draft = self.folder / "draft"
        shutil.copyfile(e2e.DEMO_ADAPTERS / f"{name}.safetensors", draft)
        os.replace(draft, self.folder / f"{name}.safetensors")

    def answered(self, method, code="OK", outcome="ok"):
        return {key(REQUESTS, method=method, code=code): 1, key(DURATION, method=method, outcome=outcome): 1}

    def sizes_formats_and_batches(self):
        # The first brings back the base; those after it have nothing to swap.
        self.check_image(more={key(SWAPS, outcome="ok"): 1})
        self.check_image(guidance_scale=1.0, labels={"cfg": "off"})
        self.check_image(steps=1, guidance_start=0.5, labels={"cfg": "off"})
        self.check_image(steps=1, guidance_scale=1.0, width=1024, height=520, labels={"size": "le_1mp", "cfg": "off"})
        three = {key(BATCH + "_bucket", le="2"): 0, key(BATCH + "_bucket", le="4"): STEPS}
        self.check_image(num_images=3, more=three)
        for name in ("jpeg", "webp", "raw_rgb8"):
            value = images_pb2.ImageFormat.Value("IMAGE_FORMAT_" + name.upper())
            self.check_image(format=value, labels={"format": name})

    def answers(self):
        adapters = self.caller.adapters
        calls = [
            ("ListAdapters", lambda: adapters.ListAdapters(adapters_pb2.ListAdaptersRequest())),
            ("GetAdapter", lambda: adapters.GetAdapter(adapters_pb2.GetAdapterRequest(name="night"))),
            ("GetServerInfo", lambda: self.caller.info.GetServerInfo(server_pb2.GetServerInfoRequest())),
        ]
        for method, call in calls:
            self.check_moves(call, self.answered(method))
        self.steps_made += 2
        self.check_moves(lambda: list(self.caller.stream(request_for())),
                         {**self.answered("StreamGenerateImages"), key(IMAGES, format="png"): 1, key(STEP): 2})
        bad_page = adapters_pb2.ListAdaptersRequest(page_token="?")
        problems = [
            ("GenerateImages", "INVALID_ARGUMENT", lambda: self.caller.generate(request_for(steps=0)), {}),
            ("StreamGenerateImages", "INVALID_ARGUMENT", lambda: list(self.caller.stream(request_for(steps=0))), {}),
            ("ListAdapters", "INVALID_ARGUMENT", lambda: adapters.ListAdapters(bad_page), {}),
            ("GetAdapter", "NOT_FOUND", lambda: adapters.GetAdapter(adapters_pb2.GetAdapterRequest(name="nobody")), {}),
            ("UnloadAdapter", "NOT_FOUND", lambda: self.unload("nobody"), {}),
            ("LoadAdapter", "FAILED_PRECONDITION", lambda: self.load("broken"),
             {key(CACHE, tier="host", result="miss"): 1, key(CACHE, tier="disk", result="hit"): 1}),
        ]
        for method, code, call, more in problems:
            self.check_problem(method, code, call, more=more)

    def queue(self):
        """One runs, one waits, one is turned away; then the first is cancelled and the second has its deadline."""
        method = "StreamGenerateImages"
        before = self.server.metrics()
        with e2e.ended(self.caller.stream(request_for("night", steps=1000))) as running:
            e2e.read_until(running, "progress")
            self.assertEqual(self.server.metrics().value("hotlora_adapter_refs"), 1)
            self.assertEqual(self.server.metrics().value("hotlora_queue_depth"), 0)
            # Of another size, so that it cannot join what runs.
            waiting = self.caller.stream(request_for("night", steps=1000, width=128, height=128), timeout=1.0)
            e2e.read_until(waiting, "accepted")
            self.assertEqual(self.server.metrics().value("hotlora_queue_depth"), 1)
            self.server.wait_for_metric(2, "hotlora_adapter_refs")  # once the one that waits has its adapter too
            self.moved |= {"hotlora_queue_depth", "hotlora_adapter_refs"}
            self.check_problem(method, "RESOURCE_EXHAUSTED", lambda: list(self.caller.stream(request_for())))
            self.assertEqual(e2e.problem_of(lambda: list(waiting)).code, "DEADLINE_EXCEEDED")
            self.server.wait_for_metric(1, REQUESTS, method=method, code="DEADLINE_EXCEEDED")
            self.assertEqual(self.server.metrics().value("hotlora_queue_depth"), 0)
            self.assertEqual(self.server.metrics().value("hotlora_adapter_refs"), 1)
        self.server.wait_for_metric(1, REQUESTS, method=method, code="CANCELLED")
        after = self.server.metrics()
        self.assertEqual(after.value("hotlora_adapter_refs"), 0)
        self.assertEqual(after.sum(DURATION, method=method, outcome="cancelled"), 1)
        self.assertEqual(after.sum(WAIT) - before.sum(WAIT), 1, "what never ran has no queue wait")
        self.steps_made += after.sum(STEP) - before.sum(STEP)

    def check_sums(self, scrape):
        self.assertEqual(scrape.sum(STEP), self.steps_made)
        self.assertEqual(scrape.sum(BATCH + "_count"), self.steps_made)
        self.assertEqual(scrape.sum(PHASE, phase="decode"), scrape.sum(IMAGES))
        self.assertEqual(scrape.sum(PHASE, phase="queue"), scrape.sum(WAIT))
        self.assertEqual(scrape.sum(SWAP, phase="total"), scrape.sum(SWAPS, outcome="ok"))
        for method in {dict(labels)["method"] for _, labels in scrape.matching(REQUESTS)}:
            self.assertEqual(scrape.sum(DURATION, method=method), scrape.sum(REQUESTS, method=method), method)
        for name, labels in list(scrape.samples):
            if name.endswith("_count"):
                buckets = scrape.matching(name.replace("_count", "_bucket"), **dict(labels), le="+Inf")
                if buckets:
                    self.assertEqual(list(buckets.values()), [scrape.samples[name, labels]], name)
        self.assertEqual(scrape.value("hotlora_base_restore_mismatch_total"), 0)


class DeviceTierTest(unittest.TestCase):
    """A device that holds one adapter, a host that holds all."""

    @classmethod
    def setUpClass(cls):
        cls.device_bytes = one_adapter_bytes()
        cls.server = e2e.Server("--adapter-device-bytes", cls.device_bytes, adapters=e2e.DEMO_ADAPTERS)
        cls.caller = cls.server.caller

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def generate(self, *names):
        """The tier in which each adapter was found, and what the swap moved."""
        before = self.server.metrics()
        found = [applied.tier_found for applied in self.caller.generate(request_for(*names, steps=1)).summary.adapters]
        after = self.server.metrics()
        return found, lambda name, **labels: after.sum(name, **labels) - before.sum(name, **labels)

    def test_tiers_in_turn(self):
        disk, host, device = (adapters_pb2.ADAPTER_TIER_DISK, adapters_pb2.ADAPTER_TIER_HOST,
                              adapters_pb2.ADAPTER_TIER_DEVICE)
        evicted = dict(tier="device", reason="capacity")
        steps = [("outline", disk, 0), ("night", disk, 1), ("outline", host, 1), (None, None, 0), ("outline", device, 0)]
        names = {disk: "disk", host: "host", device: "device"}
        allocated = []
        for name, tier, evictions in steps:
            with self.subTest(name, tier=tier):
                found, moved = self.generate(*([name] if name else []))
                self.assertEqual(found, [tier] if name else [])
                self.assertEqual(moved(EVICTIONS, **evicted), evictions)
                if name:
                    source = names[tier]
                    for phase, count in (("lookup", 1), ("read", tier == disk), ("upload", tier != device), ("total", 1)):
                        self.assertEqual(moved(SWAP, phase=phase, source=source), count, (phase, source))
                    self.assertEqual(moved(CACHE, tier="device", result="hit"), tier == device)
                allocated.append(self.server.metrics().value(ALLOCATED, device="cpu"))
        # Once both were read, nothing that happens on the device changes what is allocated.
        self.assertEqual(len(set(allocated[1:])), 1, allocated)
        scrape = self.server.metrics()
        self.assertEqual(scrape.value("hotlora_adapter_cache_capacity_bytes", tier="device"), self.device_bytes)
        self.assertEqual(scrape.value(ENTRIES, tier="device"), 1)
        self.assertEqual(scrape.value(ENTRIES, tier="host"), 2)
        both = request_for("night", "outline", steps=1)
        self.assertEqual(e2e.problem_of(lambda: self.caller.generate(both)).code, "RESOURCE_EXHAUSTED")
        scrape = self.server.metrics()
        self.assertEqual((scrape.value(ENTRIES, tier="device"), scrape.value(ENTRIES, tier="host")), (1, 2))
        for asked in (host, device):
            request = adapters_pb2.LoadAdapterRequest(name="night", tier=asked)
            self.assertEqual(self.caller.adapters.LoadAdapter(request, timeout=e2e.PATIENCE).tier, asked)


if __name__ == "__main__":
    unittest.main()
