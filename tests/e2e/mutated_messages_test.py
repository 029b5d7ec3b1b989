"""Mutated messages to every RPC: each answer is one that is documented, and the server is afterwards as it was before.

mutated_messages_test.py [--messages N] [--seed N]: how many (200), and others. Ends with the number of each answer, and with the most
processor time that the server took for one that it refused.
"""

import collections
import hashlib
import math
import os
import pathlib
import random
import re
import sys
import unittest

import grpc
from grpc_health.v1 import health_pb2

import hotlora_server as e2e
from hotlora.openai.v1 import openai_pb2
from hotlora_server import adapters_pb2, images_pb2, request_for, server_pb2
from message_mutator import MessageMutator, parsed

MESSAGES, SEED = 200, 1
CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}
SERVICES = [file.DESCRIPTOR.services_by_name[name] for file in (images_pb2, adapters_pb2, server_pb2, openai_pb2)
            for name in file.DESCRIPTOR.services_by_name]
METHODS = [method for service in SERVICES for method in service.methods]
# gRPC's own, without ErrorInfo. Its Watch has no end, and answers INTERNAL to what it cannot parse.
METHODS += [health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]]
PROBE = request_for()
# Steps times pixels of what is sent: mutated requests that are valid should not take minutes.
MOST_WORK = 30 * 64 * 64


class MutatedMessagesTest(unittest.TestCase):
    def setUp(self):
        self.folder = e2e.copy_adapters(e2e.ALL_DEMO_ADAPTERS / "night.safetensors", e2e.ALL_DEMO_ADAPTERS / "outline.safetensors")
        self.files = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        self.server = e2e.Server("--upload-quota-files", "1000000", adapters=self.folder)
        self.addCleanup(self.server.kill)
        self.caller = self.server.caller
        self.random = random.Random(SEED)
        self.mutator = MessageMutator(self.random)
        self.calls = {method: self.call_of(method) for method in METHODS}
        rejections = self.server.metrics().matching("hotlora_requests_rejected_total")
        self.reasons = {dict(labels)["reason"].upper() for _, labels in rejections}
        self.answers = collections.Counter()
        self.slowest_refusal = 0.0

    def call_of(self, method):
        """Sends a list of byte strings as the messages of one call, and answers with those of the server."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        if method.client_streaming:
            call = self.caller.channel.stream_unary(path)
            return lambda messages: [call(iter(messages), timeout=e2e.PATIENCE)]
        if method.server_streaming:
            call = self.caller.channel.unary_stream(path)
            return lambda messages: list(call(messages[0], timeout=e2e.PATIENCE))
        call = self.caller.channel.unary_unary(path)
        return lambda messages: [call(messages[0], timeout=e2e.PATIENCE)]

    # --- what is sent

    def seeds(self, request_class):
        """Sound messages."""
        if request_class is images_pb2.GenerateImagesRequest:
            picture = (e2e.GOLDEN / "images/init_image.png").read_bytes()
            return [
                PROBE,
                request_for("night", ("outline", 0.5), negative_prompt="blue", sampler=5, schedule=2, format=2, quality=80,
                            size_conditioning={"original_width": 64}, num_images=2, request_id="id", clip_skip=1),
                request_for(prompt="a (red:1.2) <lora:night:0.5> BREAK circle", prompt_syntax=2, lora_tags=True, long_prompts=True),
                request_for(init_image=picture, mask_image=(e2e.GOLDEN / "images/mask.png").read_bytes(), strength=0.9),
                request_for(embeddings=[{"name": "s0", "token": "<s0>"}], preview_every=1, priority=2, guidance_end=0.5),
            ]
        if request_class is openai_pb2.CreateImageRequest:
            small = {"prompt": PROBE.prompt, "seed": PROBE.seed, "steps": 2, "size": "64x64"}
            return [request_class(**small),
                    request_class(model="night:0.5+outline", n=2, output_format="webp", output_compression=80, user="u",
                                  background="opaque", guidance_scale=2.5, negative_prompt="blue", sampler=5, schedule=2, **small)]
        if request_class is openai_pb2.RetrieveModelRequest:
            return [request_class(model="night:0.5+outline"), request_class(model="sdxl")]
        if request_class is server_pb2.SetLogLevelRequest:
            return [request_class(level=server_pb2.LOG_LEVEL_INFO)]
        if request_class is adapters_pb2.ListAdaptersRequest:
            return [request_class(page_size=1), request_class(page_size=1, page_token=self.page_token)]
        if "name" in request_class.DESCRIPTOR.fields_by_name:
            return [request_class(name=name) for name in ("night", "outline", "uploaded")]
        return [request_class()]

    def upload(self, change):
        """The messages of an upload, mutated in their bytes, their order, or the file's content with a header that fits it."""
        content = self.files["night.safetensors"]
        if change and self.random.random() < 0.3:
            content, change = self.mutator.mutated_bytes(content[:4096]) + content[4096:], False
        header = {"name": "uploaded", "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "replace": True}
        messages = [adapters_pb2.UploadAdapterRequest(header=header)]
        messages += [adapters_pb2.UploadAdapterRequest(chunk=content[at : at + 2**16]) for at in range(0, len(content), 2**16)]
        if not change:
            return [message.SerializeToString() for message in messages]
        if self.random.random() < 0.2:
            del messages[self.random.randrange(len(messages))]
        if self.random.random() < 0.2:
            messages.insert(self.random.randint(0, len(messages)), self.random.choice(messages))
        chosen = self.random.choice((0, 0, self.random.randrange(len(messages))))
        return [self.mutator.mutated(message) if at == chosen else message.SerializeToString()
                for at, message in enumerate(messages)]

    def mutated(self, method):
        if method.client_streaming:
            return self.upload(change=True)
        request_class = method.input_type._concrete_class
        while True:
            payload = self.mutator.mutated(self.random.choice(self.seeds(request_class)))
            if self.is_quick(request_class, payload):
                return [payload]

    def is_quick(self, request_class, payload):
        """Whether the request makes no images, is refused, or takes no more than MOST_WORK."""
        request = parsed(request_class, payload)
        if request is not None and request_class is openai_pb2.CreateImageRequest:
            fields = {name: getattr(request, theirs) for name, theirs in (("steps", "steps"), ("num_images", "n"))
                      if request.HasField(theirs)}
            size = re.fullmatch(r"([0-9]+)x([0-9]+)", request.size)
            if size:
                fields.update(width=int(size[1]), height=int(size[2]))
            elif request.size not in ("", "auto"):
                return True
            request = images_pb2.GenerateImagesRequest(**fields)
        if not isinstance(request, images_pb2.GenerateImagesRequest):
            return True
        factors = [("steps", 30, 1000), ("num_images", 1, 16), ("width", 128, 4096), ("height", 128, 4096)]
        values = [(getattr(request, name) if request.HasField(name) else unset, most) for name, unset, most in factors]
        return any(value > most for value, most in values) or math.prod(value for value, _ in values) <= MOST_WORK

    # --- what comes back

    def send(self, method, messages):
        before = self.processor_seconds()
        try:
            self.calls[method](messages)
            self.answers["OK"] += 1
            return
        except grpc.RpcError as error:
            problem = e2e.Problem(error)
        self.slowest_refusal = max(self.slowest_refusal, self.processor_seconds() - before)
        self.answers[f"{problem.code} {problem.reason or 'of gRPC'}"] += 1
        sent = b"".join(messages)[:2000]
        self.assertIsNone(self.server.process.poll(), (method.name, sent))
        self.assertIn(problem.code, CODES, (method.name, problem, sent))
        if method.containing_service in SERVICES:
            self.assertIn(problem.reason, self.reasons, (method.name, problem, sent))
        self.assertNotEqual(problem.message, "", (method.name, problem, sent))
        self.assertNotIn(str(self.folder), problem.message)

    def processor_seconds(self):
        fields = pathlib.Path(f"/proc/{self.server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send_sound_ones(self):
        """So that what is made once is made: an adapter's place, a size's warm-up."""
        for method in METHODS:
            if method.client_streaming:
                self.send(method, self.upload(change=False))
            elif method.name != "DeleteAdapter":
                for request in self.seeds(method.input_type._concrete_class):
                    self.send(method, [request.SerializeToString()])
        self.assertGreater(self.answers["OK"], len(METHODS))

    # --- what may not change

    def put_back(self):
        """Undoes what messages that were sound have done: the folder and the tiers are as at the start."""
        listed = self.caller.adapters.ListAdapters(adapters_pb2.ListAdaptersRequest(page_size=1000), timeout=e2e.PATIENCE)
        for adapter in listed.adapters:
            self.caller.adapters.UnloadAdapter(adapters_pb2.UnloadAdapterRequest(name=adapter.name), timeout=e2e.PATIENCE)
            if adapter.name + ".safetensors" not in self.files:
                self.caller.adapters.DeleteAdapter(adapters_pb2.DeleteAdapterRequest(name=adapter.name), timeout=e2e.PATIENCE)
        for name, content in self.files.items():
            (self.folder / name).write_bytes(content)
        self.assertEqual({file.name for file in self.folder.iterdir() if file.is_file()}, set(self.files))

    def state(self):
        statistics = self.caller.info.GetStatistics(server_pb2.GetStatisticsRequest(), timeout=e2e.PATIENCE)
        return {
            "device": (statistics.device_memory.allocated_bytes, statistics.device_memory.reserved_bytes),
            "areas": [(area.what, area.where, area.used_bytes) for area in statistics.memory],
            "tiers": [(tier.tier, tier.used_bytes, tier.pinned_bytes, tier.entries) for tier in statistics.tiers],
            "base": (statistics.base.mismatches, statistics.base.intact),
            "queue": statistics.queue_depth,
            "descriptors": len(os.listdir(f"/proc/{self.server.process.pid}/fd")),
            "image": self.caller.image(PROBE),
        }

    def test_answers_and_state(self):
        first = self.caller.adapters.ListAdapters(adapters_pb2.ListAdaptersRequest(page_size=1), timeout=e2e.PATIENCE)
        self.page_token = first.next_page_token
        self.send_sound_ones()
        self.put_back()
        before = self.state()
        self.answers.clear()
        for _ in range(MESSAGES):
            method = self.random.choice(METHODS)
            self.send(method, self.mutated(method))
        self.put_back()
        self.assertEqual(self.state(), before)
        for answer, count in sorted(self.answers.items()):
            print(f"{count:6d} {answer}")
        print(f"{MESSAGES} messages, seed {SEED}: at most {self.slowest_refusal:.2f} s of processor time for one that was refused")
        self.assertGreater(len(self.answers), 3, "mutations that reach nothing show nothing")
        self.assertEqual(self.server.stop(), 0)


def argument(name, otherwise):
    if name not in sys.argv:
        return otherwise
    at = sys.argv.index(name)
    value = int(sys.argv[at + 1])
    del sys.argv[at : at + 2]
    return value


if __name__ == "__main__":
    MESSAGES, SEED = argument("--messages", MESSAGES), argument("--seed", SEED)
    unittest.main(verbosity=2)
