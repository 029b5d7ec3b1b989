"""The hires pass, from outside: one request equals its two requests, for each sampler and with adapters in both forms."""

import io
import unittest

from PIL import Image

import hotlora_server as e2e
from hotlora_server import images_pb2, request_for

SAMPLERS = [value for value in images_pb2.Sampler.values() if value != images_pb2.SAMPLER_UNSPECIFIED]
# In float32 one request and two do the same arithmetic. The other types may batch and round otherwise.
LEAST_PSNR = {"float16": 45, "bfloat16": 30}


def hires_request(*adapters, **fields):
    request = request_for(*adapters, prompt="a lighthouse on a cliff at dusk", **{"steps": 4, "seed": 7, **fields})
    request.hires.SetInParent()
    return request


def second_of(request, image):
    """The second request that a hires request stands for. Its size is 2 x 64."""
    second = images_pb2.GenerateImagesRequest()
    second.CopyFrom(request)
    second.ClearField("hires")
    second.ClearField("mask_image")
    second.width, second.height = 128, 128
    second.init_image, second.strength = image.data, request.hires.strength if request.hires.HasField("strength") else 0.5
    second.seed, second.num_images = image.seed, 1
    if request.hires.HasField("steps"):
        second.steps = request.hires.steps
    return second


class HiresTest(unittest.TestCase):
    def start(self, *flags):
        server = e2e.Server(*flags, model=e2e.GOLDEN / "pipeline", adapters=e2e.GOLDEN / "adapters/files")
        self.addCleanup(server.stop)
        return server.caller

    def expect_two_requests(self, caller, request, name):
        first = images_pb2.GenerateImagesRequest()
        first.CopyFrom(request)
        first.ClearField("hires")
        answer = caller.generate(request)
        self.assertEqual((answer.summary.width, answer.summary.height), (128, 128), name)
        for made, before in zip(answer.images, caller.generate(first).images, strict=True):
            self.assertEqual((made.width, made.height, made.seed), (128, 128, before.seed), name)
            expected = e2e.pixels(caller.generate(second_of(request, before)).images[0].data)
            e2e.expect_picture(self, e2e.pixels(made.data), expected, LEAST_PSNR, name, most=1)

    def test_each_sampler(self):
        caller = self.start()
        for sampler in SAMPLERS:
            with self.subTest(images_pb2.Sampler.Name(sampler)):
                self.expect_two_requests(caller, hires_request(sampler=sampler), sampler)

    def test_several_images_and_own_steps(self):
        request = hires_request(num_images=3)
        request.hires.steps, request.hires.strength = 6, 0.7
        self.expect_two_requests(self.start(), request, "three images")

    def test_adapters_in_both_forms(self):
        by_range = images_pb2.AdapterRef(name="kohya_text_encoders_and_unet", start=0.5)
        by_block = images_pb2.AdapterRef(name="peft_attention", weight=0.5, blocks=[images_pb2.BlockWeight(prefix="mid_block", weight=1.5)])
        for apply in ("merged", "side"):
            caller = self.start("--apply", apply)
            with self.subTest(apply):
                self.expect_two_requests(caller, hires_request("peft_attention", ("lycoris_loha", 0.5)), "two adapters")
                request = hires_request("peft_dora")
                request.adapters.extend([by_range, by_block])
                self.expect_two_requests(caller, request, "by range and by block")

    def test_progress_goes_on(self):
        request = hires_request()
        events = list(self.start().stream(request))
        progress = [event.progress for event in events if event.HasField("progress")]
        self.assertEqual([(news.step, news.total_steps) for news in progress], [(step, 6) for step in range(1, 7)])

    def test_parameters_of_the_picture(self):
        image = self.start().generate(hires_request()).images[0]
        text = Image.open(io.BytesIO(image.data)).text["parameters"]
        for said in ("Size: 64x64", "Denoising strength: 0.5", "Hires upscale: 2", "Hires steps: 4", "Hires upscaler: Lanczos"):
            self.assertIn(said, text)

    def test_bad_fields(self):
        caller = self.start()
        bad = {"scale": (1.0, 4.1, float("nan")), "strength": (0.0, 1.1, 0.1), "steps": (0, 1001)}
        for field, values in bad.items():
            for value in values:
                request = hires_request()
                setattr(request.hires, field, value)
                with self.subTest(field=field, value=value):
                    problem = e2e.problem_of(lambda: caller.generate(request))
                    self.assertEqual(problem.code, "INVALID_ARGUMENT")
                    self.assertIn(f"hires.{field}", problem.fields)


if __name__ == "__main__":
    unittest.main()
