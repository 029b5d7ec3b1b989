"""Requests of all kinds at once: adapters by block and by range, ControlNets, second passes, pictures to begin with, and plain
ones. Each gives its picture as when it runs alone, and nothing of them stays.

  mixed_requests_test.py [--requests 2000]     so many in the soak, 200 unless told
"""

import argparse
import concurrent.futures
import io
import itertools
import random
import sys
import unittest

import grpc
from PIL import Image, ImageDraw

import hotlora_server as e2e
from hotlora_server import images_pb2, request_for, server_pb2

sys.path.insert(0, str(e2e.SOURCE / "tests/faults"))
from faults import Faults  # noqa: E402

# Other rows in a batch mean other sums. The types of 11 and 8 bits are compared as a whole.
LEAST_PSNR = {"float16": 45, "bfloat16": 25}
SAMPLERS = {"euler": images_pb2.SAMPLER_EULER, "heun": images_pb2.SAMPLER_HEUN, "dpmpp_2m": images_pb2.SAMPLER_DPMPP_2M,
            "euler_ancestral": images_pb2.SAMPLER_EULER_ANCESTRAL, "tcd": images_pb2.SAMPLER_TCD}
CANCELLED = 0.1  # of the soak's requests
soak_requests = 200


def png(draw_on):
    buffer = io.BytesIO()
    image = Image.new("RGB", (64, 64), "black")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill=draw_on)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def adapter(name, weight=1.0, blocks=(), **the_range):
    ref = images_pb2.AdapterRef(name=name, weight=weight, **the_range)
    for prefix, block_weight in blocks:
        ref.blocks.add(prefix=prefix, weight=block_weight)
    return ref


def request(*adapters, sampler="euler", hires=None, **fields):
    made = request_for(prompt="a lighthouse on a cliff at dusk", sampler=SAMPLERS[sampler], **{"steps": 6, **fields})
    made.adapters.extend(adapters)
    if hires is not None:
        made.hires.CopyFrom(images_pb2.HiresPass(**hires))
    return made


def control(net, picture, **fields):
    return images_pb2.ControlRef(name=net, image=png(picture), **fields)


def prompt(name, *pictures, **fields):
    return images_pb2.ImagePromptRef(name=name, images=[png(picture) for picture in pictures], **fields)


def kinds():
    """34 requests, no two alike."""
    by_block = adapter("peft_attention", 0.8, [("down_blocks", 0.0), ("mid_block", 1.5)])
    first_half, second_half = adapter("lycoris_loha", end=0.5), adapter("kohya_sgm_named", start=0.5)
    begin = {"init_image": png("red"), "strength": 0.7}
    return [
        request(),
        request(width=96),
        request(adapter("peft_attention")),
        request(adapter("peft_attention"), adapter("lycoris_loha", 0.5), sampler="heun"),
        request(adapter("kohya_locon_convolutions"), num_images=2),
        request(sampler="dpmpp_2m", guidance_scale=1.0),
        request(by_block),
        request(by_block, adapter("peft_dora", 0.7), sampler="dpmpp_2m"),
        request(adapter("lycoris_loha", 0.0, [("up_blocks", 1.0)]), sampler="euler_ancestral", num_images=2),
        request(first_half),
        request(second_half),
        request(first_half, second_half),
        request(first_half, second_half, sampler="heun"),
        request(adapter("peft_attention", start=0.25, end=0.75), adapter("kohya_sgm_named", 0.5, [("mid_block", 1.0)])),
        request(adapter("kohya_text_encoders_and_unet", start=0.5), sampler="tcd"),
        request(second_half, **begin),
        request(by_block, mask_image=png("white"), **begin),
        request(hires={}),
        request(adapter("peft_attention"), hires={"scale": 1.5, "strength": 0.6}),
        request(by_block, hires={"steps": 8}, sampler="heun"),
        request(first_half, second_half, hires={"scale": 1.25, "strength": 1.0}),
        request(adapter("kohya_text_encoders_and_unet", end=0.2), hires={"strength": 0.4}, sampler="euler_ancestral"),
        request(adapter("peft_dora"), hires={}, num_images=2, sampler="dpmpp_2m"),
        request(second_half, hires={"scale": 1.5}, mask_image=png("white"), **begin),
        request(controls=[control("lines", "white")]),
        request(adapter("peft_attention"), controls=[control("depth", "gray", scale=0.7, end=0.5)]),
        request(controls=[control("lines", "white", end=0.5), control("depth", "gray", start=0.5)], num_images=2),
        request(first_half, second_half, controls=[control("union", "white", type=1), control("union", "gray", type=4)]),
        request(controls=[control("union", "white", type=3)], sampler="heun", **begin),
        request(by_block, controls=[control("lines", "white", scale=0.5)], hires={"scale": 1.5}),
        request(image_prompts=[prompt("standard", "red")]),
        request(adapter("peft_attention"), image_prompts=[prompt("plus", "red", "white", scale=0.7)], num_images=2),
        request(first_half, second_half, controls=[control("lines", "white")], hires={"scale": 1.5},
                image_prompts=[prompt("standard", "gray"), prompt("plus", "red", scale=0.5)]),
        request(image_prompts=[prompt("plus", "gray", scale=0, blocks=[images_pb2.BlockWeight(prefix="up_blocks", weight=1)])],
                guidance_scale=1.0, **begin),
    ]


def pictures(answer):
    return [e2e.pixels(image.data) for image in answer.images]


class MixedRequestsTest(unittest.TestCase):
    def start(self, apply, program=e2e.SERVER, faults=None, max_batch=4):
        environment = e2e.clean_environment(**(faults.environment if faults else {}))
        server = e2e.Server("--apply", apply, "--max-batch", max_batch, "--controls", e2e.golden_controlnets(),
                            "--image-prompts", e2e.GOLDEN / "image_prompt", "--image-encoder", e2e.GOLDEN / "image_prompt/image_encoder",
                            "--control-device-bytes", "16MiB", "--control-host-bytes", "16MiB", model=e2e.GOLDEN / "pipeline",
                            adapters=e2e.GOLDEN / "adapters/files", program=program, environment=environment)
        self.addCleanup(server.stop)
        return server

    def expect_equal(self, made, expected, name):
        self.assertEqual([picture.shape for picture in made], [picture.shape for picture in expected], name)
        for got, wanted in zip(made, expected):
            e2e.expect_picture(self, got, wanted, LEAST_PSNR, name)

    def all_at_once(self, server, requests):
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(server.caller.generate, requests))

    def expect_sound_base(self, server):
        integrity = server.caller.info.VerifyBase(server_pb2.VerifyBaseRequest(), timeout=e2e.PATIENCE)
        self.assertTrue(integrity.intact)
        self.assertEqual(integrity.mismatches, 0)

    def test_34_at_once_are_their_runs_alone(self):
        wanted = kinds()
        self.assertEqual(len(wanted), 34)
        for apply in ("merged", "side", "auto"):
            with self.subTest(apply):
                server = self.start(apply)
                alone = [pictures(server.caller.generate(each)) for each in wanted]
                self.assertEqual(len({made[0].tobytes() for made in alone}), 34, "two kinds give one picture")
                allocated = [server.allocated_bytes()]
                for _ in range(2):
                    answers = self.all_at_once(server, wanted)
                    for number, (answer, expected) in enumerate(zip(answers, alone)):
                        self.expect_equal(pictures(answer), expected, f"request {number}")
                    allocated.append(server.allocated_bytes())
                self.assertEqual(len(set(allocated)), 1, allocated)
                self.expect_sound_base(server)

    def soak(self, server, count, callers=8, rounds=4):
        """So many requests in rounds, some cancelled on their way. Allocated bytes when nothing runs: before, after each round."""
        chance = random.Random(1)
        wanted = kinds()
        for each in wanted:
            server.caller.generate(each)
        allocated = [server.allocated_bytes()]

        def one(number):
            each = images_pb2.GenerateImagesRequest()
            each.CopyFrom(wanted[number % len(wanted)])
            each.seed = number
            if chance.random() >= CANCELLED:
                server.caller.generate(each)
                return
            stream = server.caller.stream(each)
            seen = chance.randrange(8)
            try:
                for _ in itertools.islice(stream, seen):
                    pass
            finally:
                stream.cancel()

        with concurrent.futures.ThreadPoolExecutor(callers) as pool:
            for begin in range(rounds):
                list(pool.map(one, range(begin * count // rounds, (begin + 1) * count // rounds)))
                allocated.append(server.allocated_bytes())
        return allocated

    def test_nothing_of_them_stays(self):
        for apply, share in (("auto", 2), ("merged", 4), ("side", 4)):
            with self.subTest(apply):
                server = self.start(apply)
                allocated = self.soak(server, soak_requests // share)
                print(f"{apply}: {soak_requests // share} requests, allocated bytes {allocated}")
                self.assertEqual(len(set(allocated)), 1, allocated)
                self.expect_sound_base(server)

    def test_a_leak_of_64_bytes_a_swap_is_seen(self):
        server = self.start("merged", program=e2e.FAULTY_SERVER, faults=Faults(leaked_tensor_bytes_a_swap=64))
        allocated = self.soak(server, 48, rounds=2)
        self.assertEqual(len(set(allocated)), 3, allocated)

    def test_a_caller_who_leaves_during_the_second_pass(self):
        server = self.start("merged")
        long = request(adapter("peft_attention"), steps=4, hires={"strength": 1.0, "scale": 1.5, "steps": 400})
        server.caller.generate(request(adapter("peft_attention"), hires={"scale": 1.5}))
        before = server.allocated_bytes()
        stream = server.caller.stream(long)
        for event in stream:
            if event.HasField("progress") and event.progress.step >= 6:
                break
        stream.cancel()
        with self.assertRaises(grpc.RpcError):
            list(stream)
        server.wait_for_metric(0, "hotlora_adapter_refs")
        server.caller.generate(request(adapter("peft_attention"), hires={"scale": 1.5}))
        self.assertEqual(server.allocated_bytes(), before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=soak_requests)
    arguments, rest = parser.parse_known_args()
    soak_requests = arguments.requests
    unittest.main(argv=[sys.argv[0], *rest])
