"""Adapters by block of the UNet and by range of steps, from outside: the tiny golden checkpoint and diffusers' images of it."""

import concurrent.futures
import io
import json
import unittest

import numpy
from PIL import Image

import hotlora_server as e2e
from hotlora_server import images_pb2, request_for, server_pb2

FOLDERS = ("adapter_blocks", "adapter_steps")
SCHEDULERS = {
    "euler": {"sampler": images_pb2.SAMPLER_EULER},
    "dpmpp_2m_karras": {"sampler": images_pb2.SAMPLER_DPMPP_2M, "schedule": images_pb2.NOISE_SCHEDULE_KARRAS},
}
# In float32 both forms are within 2 of 255. The other types keep 11 and 8 bits, and pictures are compared as a whole.
LEAST_PSNR = {"float16": 45, "bfloat16": 25}
SWAPS = "hotlora_adapter_swaps_total"


def init_image():
    buffer = io.BytesIO()
    Image.open(e2e.GOLDEN / "images/init_image.png").resize((64, 64), Image.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def adapter_of(said):
    ref = images_pb2.AdapterRef(name=said["file"].split("/")[-1].removesuffix(".safetensors"), weight=said["scale"],
                                text_encoder_weight=said.get("text_encoder_scale"), start=said.get("start"), end=said.get("end"))
    for rule in said.get("block_rules", []):
        ref.blocks.add(prefix=rule["prefix"], weight=rule["weight"])
    return ref


def cases():
    """(name, request, picture) of each golden case."""
    for folder in FOLDERS:
        for case in json.loads((e2e.GOLDEN / folder / "manifest.json").read_text())["cases"]:
            arguments = case["arguments"]
            request = request_for(
                prompt=arguments["prompt"], negative_prompt=arguments["negative_prompt"], steps=arguments["num_inference_steps"],
                guidance_scale=arguments["guidance_scale"], seed=case["seed"], **SCHEDULERS[case["scheduler"]])
            request.adapters.extend(adapter_of(said) for said in case["adapters"])
            if case["kind"] == "image_to_image":
                request.init_image, request.strength = init_image(), arguments["strength"]
            picture = Image.open(e2e.GOLDEN / folder / case["images"][0]).convert("RGB")
            yield case["name"], request, numpy.asarray(picture).astype(int)


def plain(*adapters):
    return request_for(*adapters, prompt="a lighthouse on a cliff at dusk", steps=8)


class SteeredAdaptersTest(unittest.TestCase):
    def start(self, apply):
        server = e2e.Server("--apply", apply, "--max-batch", 4, model=e2e.GOLDEN / "pipeline", adapters=e2e.GOLDEN / "adapters/files")
        self.addCleanup(server.stop)
        return server

    def expect(self, data, picture, name):
        e2e.expect_picture(self, e2e.pixels(data), picture, LEAST_PSNR, name)

    def all_at_once(self, server, requests):
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(server.caller.image, requests))

    def test_alone_and_in_batches_they_are_diffusers_pictures(self):
        for apply in ("merged", "side", "auto"):
            with self.subTest(apply):
                self.check_form(self.start(apply))

    def check_form(self, server):
        golden = list(cases())
        self.assertEqual(len(golden), 16)
        for name, request, picture in golden:
            self.expect(server.caller.image(request), picture, name)
        # Requests without any of it are in the batches too.
        others = [plain(), plain("peft_attention"), plain(("lycoris_loha", 0.5)), plain("kohya_locon_convolutions")]
        alone = [e2e.pixels(server.caller.image(request)) for request in others]
        allocated = [server.allocated_bytes()]
        for _ in range(2):
            images = self.all_at_once(server, [request for _, request, _ in golden] + others)
            for data, (name, _, picture) in zip(images, golden):
                self.expect(data, picture, f"{name} in a batch")
            for data, picture in zip(images[len(golden):], alone):
                self.expect(data, picture, "a plain request in a batch")
            allocated.append(server.allocated_bytes())
        self.assertEqual(len(set(allocated)), 1, allocated)
        integrity = server.caller.info.VerifyBase(server_pb2.VerifyBaseRequest(), timeout=e2e.PATIENCE)
        self.assertTrue(integrity.intact)
        self.assertEqual(integrity.mismatches, 0)

    def test_changes_inside_a_request_are_swaps(self):
        for apply in ("merged", "side"):
            with self.subTest(apply):
                server = self.start(apply)
                request = plain()
                request.adapters.add(name="peft_attention", start=0.25, end=0.75)
                before = server.metrics()
                summary = server.caller.generate(request).summary
                after = server.metrics()
                self.assertEqual(after.value(SWAPS, outcome="ok") - before.value(SWAPS, outcome="ok"), 2)
                self.assertTrue(summary.swap_cost.changed)
                self.assertEqual([adapter.name for adapter in summary.adapters], ["peft_attention"])
                seconds = "hotlora_adapter_swap_duration_seconds_count"
                for phase in ("apply", "restore"):
                    moved = after.sum(seconds, phase=phase) - before.sum(seconds, phase=phase)
                    self.assertEqual(moved, 1 if apply == "merged" else 0, phase)
                if apply == "merged":
                    self.assertGreater(summary.swap_cost.apply_seconds, 0)
                    self.assertGreater(summary.swap_cost.restore_seconds, 0)

    def test_bad_ranges_and_blocks_are_named(self):
        server = self.start("auto")
        nan = float("nan")
        bad = [
            ({"start": -0.1, "end": 1.1}, ["start", "end"]),
            ({"start": nan}, ["start"]),
            ({"start": 0.5, "end": 0.5}, ["start"]),
            ({"blocks": [images_pb2.BlockWeight(prefix="", weight=nan)]}, ["blocks[0].prefix", "blocks[0].weight"]),
            ({"blocks": [images_pb2.BlockWeight(prefix=prefix, weight=1) for prefix in ("down_blocks", "down_blocks", "down_block")]},
             ["blocks[1].prefix", "blocks[2].prefix"]),
            ({"blocks": [images_pb2.BlockWeight(prefix="mid_block", weight=-10.5)]}, ["blocks[0].weight"]),
            ({"blocks": [images_pb2.BlockWeight(prefix="mid_block", weight=1)] * 65}, ["blocks"]),
        ]
        for fields, names in bad:
            with self.subTest(names):
                request = plain("peft_dora")
                request.adapters.add(name="peft_attention", **fields)
                problem = e2e.problem_of(lambda: server.caller.generate(request))
                self.assertEqual((problem.code, sorted(problem.fields)), ("INVALID_ARGUMENT", sorted(f"adapters[1].{name}" for name in names)))
        self.assertTrue(server.caller.image(plain()))
        never = plain()
        never.adapters.add(name="there is none of this name", start=0.3, end=0.35)
        self.assertEqual(server.caller.image(never), server.caller.image(plain()), "its range holds none of eight evaluations")


if __name__ == "__main__":
    unittest.main()
