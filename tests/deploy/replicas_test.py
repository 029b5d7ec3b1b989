"""Three replicas behind real balancers: affinity of adapters, a replica killed in mid-traffic, a rolling restart under load."""

import contextlib
import json
import random
import shutil
import threading
import unittest
import urllib.error
import urllib.request

import balancers
from balancers import e2e
import grpc
from hotlora_server import images_pb2, images_pb2_grpc, request_for

SERVICE_CONFIG = (balancers.SOURCE / "deploy/service_config.json").read_text()
ADAPTERS = [f"style{i:02}" for i in range(24)]


def adapter_folder():
    folder = e2e.temporary_folder()
    for name in ADAPTERS:
        shutil.copyfile(e2e.DEMO_ADAPTERS / "night.safetensors", folder / f"{name}.safetensors")
    return folder


def tiers():
    """Room for 14 of the 24 adapters in each replica's host memory and for 10 on its device: it can keep its share, and not all."""
    (each,) = e2e.resident_bytes(e2e.DEMO_ADAPTERS, "night")
    return "--adapter-host-bytes", 14 * each + each // 2, "--adapter-device-bytes", 10 * each + each // 2


def options(name):
    return {"timeout": 2 * e2e.PATIENCE, "metadata": [("x-adapter-key", name)]}


class Client:
    """A caller as deploy/examples show it: retries by the shipped service config, and the routing key."""

    def __init__(self, target):
        self.channel = grpc.insecure_channel(target, [
            ("grpc.service_config", SERVICE_CONFIG), ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)])
        self.images = images_pb2_grpc.ImageServiceStub(self.channel)

    def generate(self, name, **fields):
        request = request_for(name, **{"steps": 1, "guidance_scale": 1.0, **fields})
        return self.images.GenerateImages(request, **options(name))

    def stream(self, name, **fields):
        """The number of events before the end."""
        request = request_for(name, **{"steps": 4, "guidance_scale": 1.0, **fields})
        call = self.images.StreamGenerateImages(request, **options(name))
        events = 0
        try:
            for _ in call:
                events += 1
        except grpc.RpcError as error:
            error.events = events
            raise
        return events

    def close(self):
        self.channel.close()


class Load:
    """Callers that go on until they are stopped; unary calls and streams in turn. Each failure is kept with what it was."""

    def __init__(self, target, callers=4):
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.begun = self.done = 0
        self.failures = []  # (adapter, kind, events before the end, error)
        self.threads = [threading.Thread(target=self.call, args=(target, seed), daemon=True) for seed in range(callers)]
        for thread in self.threads:
            thread.start()

    def call(self, target, seed):
        client, chance = Client(target), random.Random(seed)
        while not self.stopping.is_set():
            name, kind = chance.choice(ADAPTERS), chance.choice(["unary", "stream"])
            with self.lock:
                self.begun += 1
            try:
                client.generate(name, steps=4) if kind == "unary" else client.stream(name)
            except grpc.RpcError as error:
                with self.lock:
                    self.failures.append((name, kind, getattr(error, "events", 0), error))
            else:
                with self.lock:
                    self.done += 1
        client.close()

    def wait_for_more(self, calls):
        goal = self.done + calls
        e2e.wait_until(lambda: self.done >= goal, f"{calls} more calls end well")

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=2 * e2e.PATIENCE)
            if thread.is_alive():
                raise AssertionError("a caller hangs")


class ReplicaCase:
    """The tests, for either balancer."""

    make_balancer = None
    round_robin = None

    def setUp(self):
        self.folder = adapter_folder()
        self.replicas = [balancers.Replica(self.folder, *tiers()) for _ in range(3)]
        self.addCleanup(lambda: [replica.kill() for replica in self.replicas])

    def start(self, **options):
        balancer = self.make_balancer(self.replicas, **options)
        self.addCleanup(balancer.stop)
        return balancer

    def hit_ratio(self, balancer, calls=240):
        """How many calls found their adapter resident on the replica that they came to."""
        client, chance = Client(balancer.target), random.Random(1)
        for name in ADAPTERS:
            client.generate(name)
        tiers = [client.generate(chance.choice(ADAPTERS)).summary.adapters[0].tier_found for _ in range(calls)]
        client.close()
        return sum(tier != e2e.adapters_pb2.ADAPTER_TIER_DISK for tier in tiers) / calls

    def homes(self, client):
        """Which replica each adapter's calls come to."""
        homes = {}
        for name in ADAPTERS:
            before = [self.served(replica) for replica in self.replicas]
            client.generate(name)
            after = [self.served(replica) for replica in self.replicas]
            moved = [i for i in range(len(before)) if after[i] == before[i] + 1]
            self.assertEqual(len(moved), 1, name)
            homes[name] = moved[0]
        return homes

    def running(self):
        """How many requests each replica works on."""
        return [replica.metrics().value("hotlora_adapter_refs") for replica in self.replicas]

    @staticmethod
    def served(replica):
        if replica.process.poll() is not None:
            return 0
        return replica.metrics().sum("hotlora_requests_total", method="GenerateImages", code="OK")

    def test_a_new_file_is_found_by_name_on_every_replica(self):
        balancer = self.start()
        partial = self.folder / "late.partial"
        shutil.copyfile(e2e.DEMO_ADAPTERS / "outline.safetensors", partial)
        partial.rename(self.folder / "late.safetensors")
        pictures = {replica.caller.image(request_for("late")) for replica in self.replicas}
        self.assertEqual(len(pictures), 1)
        client = Client(balancer.target)
        self.addCleanup(client.close)
        self.assertEqual(client.generate("late", steps=2, guidance_scale=None).images[0].data, pictures.pop())

    def test_adapters_stay_where_they_are(self):
        balancer = self.start()
        with_keys = self.hit_ratio(balancer)
        balancer.stop()
        without = self.hit_ratio(self.start(policy=self.round_robin))
        print(f"{balancer.name}: {with_keys:.3f} of calls found their adapter, {without:.3f} by {self.round_robin}")
        self.assertGreaterEqual(with_keys, 0.95)
        self.assertLessEqual(without, 0.75)

    def test_a_replica_that_dies_takes_no_other_calls_with_it(self):
        balancer = self.start()
        client = Client(balancer.target)
        self.addCleanup(client.close)
        before = self.homes(client)
        # A long call on each replica; on one of them also a long stream: that one dies in mid-traffic.
        long = {"steps": 400, "guidance_scale": 1.0}
        names = [next(name for name in ADAPTERS if before[name] == i) for i in range(3)]
        victim = 0
        stream = client.images.StreamGenerateImages(request_for(names[victim], **long), **options(names[victim]))
        e2e.read_until(stream, "progress")
        whole = [client.images.GenerateImages.future(request_for(name, **long), **options(name)) for name in reversed(names)]
        e2e.wait_until(lambda: self.running() == [2, 1, 1], "each replica has its long call")
        load = Load(balancer.target)
        e2e.wait_until(lambda: load.begun >= len(load.threads), "the other callers have begun")
        self.replicas[victim].kill()
        # What was sent of a stream cannot be taken back, so its caller is told; what sent nothing yet is done elsewhere.
        self.assertIn(e2e.problem_of(lambda: list(stream)).code, ("UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"))
        self.assertEqual([len(call.result().images) for call in whole], [1, 1, 1])
        load.wait_for_more(40)
        load.stop()
        for name, kind, events, error in load.failures:
            self.assertEqual(kind, "stream", error)
            self.assertGreater(events, 0, error)
        balancer.wait_for_replicas(2)
        after = self.homes(client)
        moved = {name for name in ADAPTERS if after[name] != before[name]}
        self.assertEqual(moved, {name for name, home in before.items() if home == victim})
        self.assertNotIn(victim, after.values())
        print(f"{balancer.name}: {load.done} calls ended well, {len(load.failures) + 1} streams were cut, {len(moved)} of "
              f"{len(ADAPTERS)} adapters moved")

    def test_a_rolling_restart_fails_no_call(self):
        balancer = self.start()
        load = Load(balancer.target)
        load.wait_for_more(20)
        for i, replica in enumerate(self.replicas):
            self.replicas[i] = replica.restarted()
            balancer.wait_for_replicas(3)
            load.wait_for_more(20)
        load.stop()
        self.assertEqual(load.failures, [])
        print(f"{balancer.name}: {load.done} calls over three restarts, none failed")


class HAProxyTest(ReplicaCase, unittest.TestCase):
    make_balancer = balancers.HAProxy
    round_robin = "roundrobin"


class EnvoyTest(ReplicaCase, unittest.TestCase):
    make_balancer = balancers.Envoy
    round_robin = "ROUND_ROBIN"

    def ask(self, path, body=None):
        """Status, media type and body of a REST call through Envoy."""
        request = urllib.request.Request(self.balancer.rest_url + path, data=json.dumps(body).encode() if body else None,
                                         headers={"Content-Type": "application/json", "x-adapter-key": "style01"})
        try:
            with contextlib.closing(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    request, timeout=e2e.PATIENCE)) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read()

    def test_rest_callers_are_served(self):
        self.balancer = self.start()
        picture = {"prompt": "a large red circle", "seed": "7", "steps": 2, "width": 64, "height": 64,
                   "adapters": [{"name": "style01"}]}
        client = Client(self.balancer.target)
        self.addCleanup(client.close)
        png = client.generate("style01", steps=2, guidance_scale=None).images[0].data

        status, media_type, body = self.ask("/v1/images:render", picture)
        self.assertEqual((status, media_type, body), (200, "image/png", png))
        status, media_type, body = self.ask("/v1/images:render", {**picture, "format": "IMAGE_FORMAT_JPEG"})
        self.assertEqual((status, media_type, body[:2]), (200, "image/jpeg", b"\xff\xd8"))

        status, media_type, body = self.ask("/v1/images:generate", picture)
        answer = json.loads(body)
        self.assertEqual((status, media_type), (200, "application/json"))
        self.assertEqual(answer["images"][0]["seed"], "7")
        self.assertEqual(answer["summary"]["adapters"][0]["name"], "style01")

        status, _, body = self.ask("/v1/images:stream", picture)
        self.assertEqual([next(iter(event)) for event in json.loads(body)],
                         ["accepted", "progress", "progress", "image", "summary"])

        status, _, body = self.ask("/v1/images:render", {**picture, "width": 13})
        self.assertEqual(status, 400)
        self.assertIn("width", str(json.loads(body)["details"]))
        self.assertEqual(self.ask("/v1/images:render", {**picture, "adapters": [{"name": "nobody"}]})[0], 404)
        self.assertEqual(self.ask("/v1/images:render", {"prompt": 1.5e400})[0], 400)
        self.assertEqual(self.ask("/v1/adapters?no_such_parameter=1")[0], 400)

        status, _, body = self.ask("/v1/adapters")
        self.assertEqual([adapter["name"] for adapter in json.loads(body)["adapters"]], ADAPTERS)
        self.assertEqual(json.loads(self.ask("/v1/adapters/style01:load", {"pin": True})[2])["pinned"], True)
        self.assertEqual(json.loads(self.ask("/v1/adapters/style01")[2])["name"], "style01")
        self.assertEqual(json.loads(self.ask("/v1/server")[2])["native_width"], 128)


if __name__ == "__main__":
    unittest.main(verbosity=2)
