"""Requests that end early, wait, are turned away, or run while the server stops.

What they held is free at once, and what comes after them is right.
"""

import json
import os
import shutil
import signal
import subprocess
import unittest

import grpc
from grpc_health.v1 import health_pb2

import hotlora_server as e2e
from hotlora_server import request_for

MAX_QUEUE = 2
ENDLESS = 1000  # steps: far more than any test waits for


class FlowTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = e2e.copy_adapters(e2e.DEMO_ADAPTERS)
        # One row a step, so that a second request waits for the first instead of joining it.
        cls.server = e2e.Server("--max-queue", MAX_QUEUE, "--max-batch", 1, adapters=cls.folder)
        cls.caller = cls.server.caller
        cls.expected = {name: cls.caller.image(request_for(*name)) for name in ((), ("outline",), ("night",))}

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def setUp(self):
        self.wait_until_free()

    def wait_until_free(self):
        """Nobody runs, waits or holds anything."""

        def is_free():
            scrape = self.server.metrics()
            return scrape.value("hotlora_queue_depth") == 0 and scrape.value("hotlora_adapter_refs") == 0

        e2e.wait_until(is_free, "nothing waits and no adapter is held")

    def steps(self):
        return self.server.metrics().sum("hotlora_denoise_step_duration_seconds_count")

    def ended(self, code, method="StreamGenerateImages"):
        return self.server.metrics().value("hotlora_requests_total", method=method, code=code)

    def check_freed_after(self, before, code):
        """One more stream has ended with `code`; nothing of it goes on, and the next requests get their images."""
        e2e.wait_until(lambda: self.ended(code) == before + 1, f"one more {code}")
        scrape = self.server.metrics()
        self.assertEqual(scrape.value("hotlora_adapter_refs"), 0)
        self.assertEqual(scrape.value("hotlora_queue_depth"), 0)
        steps = self.steps()
        for names, image in self.expected.items():
            self.assertEqual(self.caller.image(request_for(*names)), image)
        self.assertEqual(self.steps(), steps + 2 * len(self.expected), "the ended request still made steps")

    # --- ending early

    def test_cancel_while_denoising(self):
        before, steps = self.ended("CANCELLED"), self.steps()
        stream = self.caller.stream(request_for("outline", steps=ENDLESS))
        progress = [e2e.read_until(stream, "progress") for _ in range(3)]
        self.assertEqual([each.step for each in progress], [1, 2, 3])
        self.assertEqual(self.server.metrics().value("hotlora_adapter_refs"), 1)
        stream.cancel()
        self.check_freed_after(before, "CANCELLED")
        self.assertLess(self.steps() - steps, ENDLESS / 2)

    def test_cancel_of_a_unary_call(self):
        before = self.ended("CANCELLED", "GenerateImages")
        steps = self.steps()
        call = self.caller.images.GenerateImages.future(request_for("outline", steps=ENDLESS), timeout=e2e.PATIENCE)
        e2e.wait_until(lambda: self.steps() > steps, "it denoises")
        call.cancel()
        e2e.wait_until(lambda: self.ended("CANCELLED", "GenerateImages") == before + 1, "it has ended")
        self.assertEqual(self.server.metrics().value("hotlora_adapter_refs"), 0)
        self.assertEqual(self.caller.image(request_for("night")), self.expected[("night",)])

    def test_deadline_while_denoising(self):
        before = self.ended("DEADLINE_EXCEEDED")
        stream = self.caller.stream(request_for("outline", steps=ENDLESS), timeout=0.7)
        e2e.read_until(stream, "progress")
        self.assertEqual(e2e.problem_of(lambda: list(stream)).code, "DEADLINE_EXCEEDED")
        self.check_freed_after(before, "DEADLINE_EXCEEDED")

    def test_deadline_in_the_queue(self):
        before = self.ended("DEADLINE_EXCEEDED")
        with e2e.ended(self.caller.stream(request_for("night", steps=ENDLESS))) as running:
            e2e.read_until(running, "progress")
            waiting = self.caller.stream(request_for("outline"), timeout=0.7)
            accepted = e2e.read_until(waiting, "accepted")
            self.assertEqual(accepted.queue_position, 1)
            self.assertEqual(e2e.problem_of(lambda: list(waiting)).code, "DEADLINE_EXCEEDED")
            e2e.wait_until(lambda: self.ended("DEADLINE_EXCEEDED") == before + 1, "the server knows")
            scrape = self.server.metrics()
            self.assertEqual(scrape.value("hotlora_queue_depth"), 0)
            self.assertEqual(scrape.value("hotlora_adapter_refs"), 1, "only what runs holds its adapter")
            e2e.read_until(running, "progress")

    def test_cancel_in_the_queue(self):
        before = self.ended("CANCELLED")
        with e2e.ended(self.caller.stream(request_for(steps=ENDLESS))) as running:
            e2e.read_until(running, "progress")
            waiting = self.caller.stream(request_for("outline"))
            e2e.read_until(waiting, "accepted")
            waiting.cancel()
            e2e.wait_until(lambda: self.ended("CANCELLED") == before + 1, "the server knows")
            self.assertEqual(self.server.metrics().value("hotlora_queue_depth"), 0)
            e2e.read_until(running, "progress")

    def test_a_killed_client_frees_everything(self):
        before, steps = self.ended("CANCELLED"), self.steps()
        words = ["--server", self.server.target, "generate", "a circle", "--adapter", "outline"]
        client = subprocess.Popen(
            [e2e.CLIENT, *words, "--steps", str(ENDLESS), "--out", e2e.temporary_folder() / "never.png"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=e2e.clean_environment(),
        )
        try:
            e2e.wait_until(lambda: self.steps() > steps, "it denoises")
        finally:
            client.send_signal(signal.SIGKILL)
            client.wait()
        self.check_freed_after(before, "CANCELLED")

    # --- waiting and being turned away

    def test_a_full_queue_turns_away_whoever_is_too_many(self):
        with e2e.ended(self.caller.stream(request_for(steps=ENDLESS))) as running:
            e2e.read_until(running, "progress")
            streams = [self.caller.stream(request_for("night", seed=i)) for i in range(6)]
            admitted, refused = [], []
            for stream in streams:
                try:
                    accepted = next(stream).accepted
                    admitted.append((accepted.queue_position, stream))
                except grpc.RpcError as error:
                    refused.append(e2e.Problem(error))
            self.assertEqual(sorted(position for position, _ in admitted), [1, 2])
            self.assertEqual(self.server.metrics().value("hotlora_queue_depth"), MAX_QUEUE)
            for problem in refused:
                self.assertEqual((problem.code, problem.reason), ("RESOURCE_EXHAUSTED", "QUEUE_FULL"), problem)
                self.assertGreaterEqual(problem.retry_seconds, 1)
                self.assertEqual(int(problem.trailers["grpc-retry-pushback-ms"]), problem.retry_seconds * 1000)
                self.assertIn("x-request-id", problem.trailers)
                self.assertEqual(problem.initial, {})
        for _, stream in admitted:
            e2e.read_until(stream, "summary")

    def test_a_refusal_leaves_the_client_free_to_retry(self):
        # gRPC's own client retries only where the refusal is trailers-only, and waits as grpc-retry-pushback-ms says.
        policy = {"methodConfig": [{"name": [{}], "retryPolicy": {
            "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}
        options = [option for option in e2e.CHANNEL_OPTIONS if option[0] != "grpc.enable_retries"]
        options += [("grpc.enable_retries", 1), ("grpc.service_config", json.dumps(policy))]
        retrying = e2e.Caller(self.server.target, options=options)
        before = self.ended("RESOURCE_EXHAUSTED")
        streams = []
        try:
            for _ in range(1 + MAX_QUEUE):
                streams.append(self.caller.stream(request_for(steps=ENDLESS)))
                stream = streams[-1]
                # The second comes when the first runs, or the third would find the queue full.
                e2e.read_until(stream, "progress" if stream is streams[0] else "accepted")
            patient = retrying.stream(request_for("night"))
            e2e.wait_until(lambda: self.ended("RESOURCE_EXHAUSTED") > before, "it is turned away once")
        finally:
            for stream in streams:
                stream.cancel()
        self.assertEqual(e2e.read_until(patient, "image").data, self.expected[("night",)])
        retrying.close()

    def test_higher_priority_goes_first(self):
        with e2e.ended(self.caller.stream(request_for(steps=ENDLESS))) as running:
            e2e.read_until(running, "progress")
            low = self.caller.stream(request_for(request_id="low", priority=-1))
            e2e.read_until(low, "accepted")
            high = self.caller.stream(request_for(request_id="high", priority=1))
            e2e.read_until(high, "accepted")
        waited_high = e2e.read_until(high, "summary").queue_seconds
        waited_low = e2e.read_until(low, "summary").queue_seconds
        self.assertLess(waited_high, waited_low)

    def test_adapters_of_two_callers_do_not_mix(self):
        two = [("outline",), ("night",)] * 3
        streams = [(names, e2e.Caller(self.server.target)) for names in two[: 1 + MAX_QUEUE]]
        calls = [(n, c.images.GenerateImages.future(request_for(*n), timeout=e2e.PATIENCE)) for n, c in streams]
        for names, call in calls:
            self.assertEqual(call.result().images[0].data, self.expected[names], names)
        for _, caller in streams:
            caller.close()

    def test_a_replaced_file_is_used_by_the_next_request(self):
        name = self.folder / "changing.safetensors"
        for source in ("outline", "night", "outline"):
            draft = self.folder / "draft"
            shutil.copyfile(e2e.DEMO_ADAPTERS / f"{source}.safetensors", draft)
            os.replace(draft, name)
            image = e2e.pixels(self.caller.image(request_for("changing")))
            self.assertEqual(image.tolist(), e2e.pixels(self.expected[(source,)]).tolist())
        name.unlink()
        problem = e2e.problem_of(lambda: self.caller.generate(request_for("changing")))
        self.assertEqual((problem.code, problem.reason), ("NOT_FOUND", "ADAPTER_NOT_FOUND"))


class StopTest(unittest.TestCase):
    """SIGTERM, with a request running; one server each."""

    def setUp(self):
        self.server = e2e.Server(*self.flags(), adapters=e2e.copy_adapters(e2e.DEMO_ADAPTERS))
        self.addCleanup(self.server.kill)
        self.addCleanup(self.server.caller.close)

    def flags(self):
        return ["--drain-timeout", "0.2"] if "timeout" in self.id() else []

    def start(self, steps):
        stream = self.server.caller.stream(request_for("outline", steps=steps))
        e2e.read_until(stream, "progress")
        return stream

    def stop_and_hear_of_it(self):
        """SIGTERM; returns once the health service says so."""
        watch = iter(self.server.caller.health.Watch(health_pb2.HealthCheckRequest(), timeout=e2e.PATIENCE))
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        self.server.signal()
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.NOT_SERVING)

    def refusal(self):
        """What a new request hears, once the queue is closed; until then a request may still be let in."""
        with e2e.ended(self.server.caller.stream(request_for(steps=ENDLESS))) as stream:
            try:
                e2e.read_until(stream, "accepted")
            except grpc.RpcError as error:
                return e2e.Problem(error)
        return None

    def test_what_runs_is_finished_and_nothing_new_begins(self):
        expected = self.server.caller.image(request_for("outline", steps=100))
        stream = self.start(steps=100)
        self.stop_and_hear_of_it()
        problem = e2e.wait_until(self.refusal, "new requests are refused")
        self.assertEqual((problem.code, problem.reason), ("UNAVAILABLE", "DRAINING"))
        self.assertGreater(problem.retry_seconds, 0)
        self.assertEqual(e2e.read_until(stream, "image").data, expected)
        e2e.read_until(stream, "summary")
        self.assertEqual(self.server.wait(), 0, self.server.log())
        self.assertFalse(self.server.ready_file.exists())

    def test_after_the_drain_timeout_what_runs_is_cancelled(self):
        stream = self.start(steps=ENDLESS)
        self.server.signal()
        problem = e2e.problem_of(lambda: list(stream))
        self.assertEqual((problem.code, problem.reason), ("UNAVAILABLE", "DRAINING"))
        self.assertEqual(self.server.wait(), 0, self.server.log())

    def test_a_second_signal_ends_it_at_once(self):
        stream = self.start(steps=ENDLESS)
        self.stop_and_hear_of_it()
        self.server.signal()
        self.assertEqual(self.server.wait(), 128 + signal.SIGTERM)
        self.assertEqual(e2e.problem_of(lambda: list(stream)).code, "UNAVAILABLE")
        self.assertFalse(self.server.ready_file.exists())

    def test_an_idle_server_ends_at_once_with_a_watcher_connected(self):
        self.stop_and_hear_of_it()
        self.assertEqual(self.server.wait(), 0)


if __name__ == "__main__":
    unittest.main()
