"""A client in another language, with stubs made from proto/ alone, gets what the hotlora program gets, and more."""

import io
import json
import os
import pathlib
import sys
import unittest

import grpc
import numpy
from grpc_health.v1 import health_pb2
from PIL import Image

import hotlora_server as e2e
from hotlora_server import images_pb2, adapters_pb2, server_pb2, request_for

GRPCURL = pathlib.Path(sys.executable).parent / "grpcurl"


class ForeignClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = e2e.Server("--reflection", adapters=e2e.copy_adapters(e2e.DEMO_ADAPTERS))
        cls.caller = cls.server.caller
        cls.out = e2e.temporary_folder()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def hotlora(self, *words):
        return e2e.run(e2e.CLIENT, "--server", self.server.target, *words)

    def hotlora_json(self, *words):
        result = self.hotlora("--json", *words)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return json.loads(result.stdout)

    # --- images

    def test_unary_stream_and_program_give_the_same_bytes(self):
        for adapters in [(), (("outline", 1.0),), (("outline", 0.8), ("night", -0.5))]:
            with self.subTest(adapters=adapters):
                request = request_for(*adapters)
                unary = self.caller.image(request)
                streamed = e2e.read_until(self.caller.stream(request), "image").data
                self.assertEqual(unary, streamed)
                file = self.out / "same.png"
                words = [word for name, weight in adapters for word in ("--adapter", f"{name}:{weight}")]
                words += ["--seed", "7", "--steps", "2", "--width", "64", "--height", "64", "--out", file]
                result = self.hotlora("generate", request.prompt, *words)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual(file.read_bytes(), unary)

    def test_each_request_gets_exactly_the_adapters_it_names(self):
        sets = [(), ("outline",), ("night",), ("outline", "night"), ()]
        images = [self.caller.image(request_for(*names, width=128, height=128)) for names in sets]
        self.assertEqual(images[0], images[-1], "the base model's image changed after the adapters")
        self.assertEqual(len(set(images)), 4)

    def test_weight_0_is_as_if_the_adapter_were_absent(self):
        base = self.caller.image(request_for())
        self.assertEqual(self.caller.image(request_for(("outline", 0.0))), base)
        self.assertEqual(
            self.caller.image(request_for(("outline", 0.0), "night")), self.caller.image(request_for("night"))
        )
        self.assertNotEqual(self.caller.image(request_for(("outline", 0.01))), base)

    def test_stream_events_come_in_order(self):
        request = request_for("outline", steps=3, num_images=2, seed=11, request_id="in-order")
        events = list(self.caller.stream(request))
        kinds = [event.WhichOneof("event") for event in events]
        self.assertEqual(kinds[0], "accepted")
        self.assertEqual(kinds[-1], "summary")
        self.assertEqual(sorted(kinds[1:-1]), ["image"] * 2 + ["progress"] * 6)
        self.assertEqual(events[0].accepted.request_id, "in-order")
        self.assertEqual(events[0].accepted.seed, 11)
        for index in range(2):
            mine = [
                getattr(event, kind)
                for event, kind in zip(events, kinds)
                if kind == "progress" and event.progress.image_index == index
                or kind == "image" and event.image.index == index
            ]
            self.assertEqual([part.step for part in mine[:-1]], [1, 2, 3])
            self.assertEqual([part.total_steps for part in mine[:-1]], [3, 3, 3])
            self.assertTrue(all(part.step_seconds > 0 for part in mine[:-1]))
            image = mine[-1]
            self.assertEqual((image.seed, image.width, image.height), (11 + index, 64, 64))
            self.assertEqual(image.format, images_pb2.IMAGE_FORMAT_PNG)
            self.assertEqual(image.total_bytes, len(image.data))
        self.check_summary(events[-1].summary)

    def test_every_sampler_works_and_tells_each_step_once(self):
        seen = set()
        for name, number in images_pb2.Sampler.items():
            if number == images_pb2.SAMPLER_UNSPECIFIED:
                continue
            with self.subTest(name):
                events = list(self.caller.stream(request_for(sampler=number, steps=3)))
                steps = [event.progress.step for event in events if event.WhichOneof("event") == "progress"]
                self.assertEqual(steps, [1, 2, 3])
                self.assertEqual(events[-1].summary.sampler, number)
                image = next(event.image.data for event in events if event.WhichOneof("event") == "image")
                seen.add(image)
                file = self.out / "sampler.png"
                word = name.removeprefix("SAMPLER_").lower().replace("_", "-")
                words = ["--seed", "7", "--steps", "3", "--width", "64", "--height", "64", "--out", file]
                result = self.hotlora("generate", request_for().prompt, "--sampler", word, *words)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual(file.read_bytes(), image)
        # DDIM is Euler's method in other variables, and DPM++ 2S and 3M are of first order in some of so few steps: these
        # may round to the same pictures.
        self.assertGreaterEqual(len(seen), 11)

    def test_every_schedule_works_by_its_name(self):
        seen = set()
        for name, number in images_pb2.NoiseSchedule.items():
            if number == images_pb2.NOISE_SCHEDULE_UNSPECIFIED:
                continue
            with self.subTest(name):
                answer = self.caller.generate(request_for(
                    sampler=images_pb2.SAMPLER_DPMPP_2M, schedule=number, steps=4))
                self.assertEqual(answer.summary.schedule, number)
                seen.add(answer.images[0].data)
                file = self.out / "schedule.png"
                word = name.removeprefix("NOISE_SCHEDULE_").lower().replace("_", "-")
                result = self.hotlora("generate", request_for().prompt, "--sampler", "dpmpp-2m", "--schedule", word, "--seed",
                                      "7", "--steps", "4", "--width", "64", "--height", "64", "--out", file)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual(file.read_bytes(), answer.images[0].data)
        self.assertEqual(len(seen), 8)

    def test_the_presets_of_models_of_few_steps(self):
        # As docs/prompts_and_samplers.md lists them: SDXL Turbo, Lightning, Hyper-SD, LCM, DMD2.
        sampler, schedule = images_pb2.Sampler.Value, images_pb2.NoiseSchedule.Value
        presets = [
            {"sampler": sampler("SAMPLER_EULER_ANCESTRAL"), "schedule": schedule("NOISE_SCHEDULE_TRAILING"), "steps": 1},
            {"sampler": sampler("SAMPLER_EULER"), "schedule": schedule("NOISE_SCHEDULE_TRAILING"), "steps": 4},
            {"sampler": sampler("SAMPLER_DDIM"), "schedule": schedule("NOISE_SCHEDULE_TRAILING"), "steps": 8},
            {"sampler": sampler("SAMPLER_TCD"), "steps": 8, "eta": 0.3},
            {"sampler": sampler("SAMPLER_TCD"), "steps": 1, "eta": 1.0},
            {"sampler": sampler("SAMPLER_LCM"), "steps": 8, "guidance_scale": 1.5},
            {"sampler": sampler("SAMPLER_LCM"), "steps": 4},
        ]
        seen = set()
        for preset in presets:
            with self.subTest(preset):
                events = list(self.caller.stream(request_for(**{"guidance_scale": 0.0, **preset})))
                progress = [event.progress for event in events if event.WhichOneof("event") == "progress"]
                self.assertEqual([each.step for each in progress], list(range(1, preset["steps"] + 1)))
                self.assertEqual(events[-1].summary.sampler, preset["sampler"])
                seen.add(next(event.image.data for event in events if event.WhichOneof("event") == "image"))
        self.assertEqual(len(seen), len(presets))
        tcd = {"sampler": sampler("SAMPLER_TCD"), "steps": 8}
        self.assertEqual(self.caller.image(request_for(**tcd)), self.caller.image(request_for(**tcd, eta=0.3)))
        self.assertNotEqual(self.caller.image(request_for(**tcd)), self.caller.image(request_for(**tcd, eta=0.0)))

    def check_summary(self, summary):
        for field in ("queue", "adapter", "encode", "denoise", "decode", "total"):
            self.assertTrue(summary.HasField(f"{field}_seconds"), field)
            self.assertGreaterEqual(getattr(summary, f"{field}_seconds"), 0, field)
        self.assertLessEqual(summary.denoise_seconds, summary.total_seconds)
        self.assertEqual((summary.width, summary.height), (64, 64))
        self.assertEqual(summary.sampler, images_pb2.SAMPLER_EULER)
        self.assertEqual(summary.schedule, images_pb2.NOISE_SCHEDULE_DEFAULT)
        self.assertRegex(summary.model_sha256, "^[0-9a-f]{64}$")
        self.assertTrue(summary.server_version)
        self.assertEqual(summary.dtype, e2e.DTYPE)
        (applied,) = summary.adapters
        self.assertEqual((applied.name, applied.weight), ("outline", 1.0))
        self.assertRegex(applied.content_sha256, "^[0-9a-f]{64}$")
        self.assertGreater(applied.matched_modules, 0)
        self.assertEqual(list(applied.unmatched_keys), [])

    def test_image_i_is_that_of_seed_plus_i(self):
        three = self.caller.generate(request_for(num_images=3, seed=100)).images
        self.assertEqual([image.index for image in three], [0, 1, 2])
        self.assertEqual([image.seed for image in three], [100, 101, 102])
        for i, image in enumerate(three):
            alone = e2e.pixels(self.caller.image(request_for(seed=100 + i)))
            # A row of a larger batch may be rounded differently, so that a colour is off by one.
            self.assertLessEqual(numpy.abs(e2e.pixels(image.data) - alone).max(), 1)
        largest = 2**64 - 1
        wrapped = self.caller.generate(request_for(num_images=2, seed=largest)).images
        self.assertEqual([image.seed for image in wrapped], [largest, 0])

    def test_an_unset_seed_is_random_below_2_to_32_and_returned(self):
        request = request_for()
        request.ClearField("seed")
        answers = [self.caller.generate(request).images[0] for _ in range(3)]
        self.assertEqual(len({image.seed for image in answers}), 3)
        for image in answers:
            self.assertLess(image.seed, 2**32)
        again = request_for(seed=answers[0].seed)
        self.assertEqual(self.caller.image(again), answers[0].data)

    def test_unset_fields_have_their_defaults_and_0_is_not_unset(self):
        answer = self.caller.generate(images_pb2.GenerateImagesRequest(prompt="a circle", seed=0, steps=1))
        self.assertEqual((answer.images[0].width, answer.images[0].height, answer.images[0].seed), (128, 128, 0))
        base = self.caller.image(request_for())
        self.assertEqual(self.caller.image(request_for(guidance_scale=5.0, num_images=1)), base)
        self.assertNotEqual(self.caller.image(request_for(guidance_scale=0.0)), base)
        self.assertNotEqual(self.caller.image(request_for(negative_prompt="")), base)

    def test_formats_show_the_same_picture(self):
        request = request_for(width=96, height=64)
        png = self.caller.image(request)
        self.assertEqual(Image.open(io.BytesIO(png)).size, (96, 64))
        request.format = images_pb2.IMAGE_FORMAT_RAW_RGB8
        raw = self.caller.generate(request).images[0]
        self.assertEqual(raw.format, images_pb2.IMAGE_FORMAT_RAW_RGB8)
        self.assertEqual(numpy.frombuffer(raw.data, numpy.uint8).reshape(64, 96, 3).tolist(), e2e.pixels(png).tolist())
        for name in ("JPEG", "WEBP"):
            request.format = images_pb2.ImageFormat.Value("IMAGE_FORMAT_" + name)
            sizes = []
            for quality in (30, 100):
                request.quality = quality
                data = self.caller.image(request)
                sizes.append(len(data))
                picture = Image.open(io.BytesIO(data))
                self.assertEqual((picture.format, picture.size), (name, (96, 64)))
            self.assertLess(sizes[0], sizes[1], name)
            self.assertLess(numpy.abs(e2e.pixels(data) - e2e.pixels(png)).mean(), 8, name)

    def test_an_image_over_2_mib_comes_in_parts(self):
        request = request_for(width=840, height=840, steps=1, guidance_scale=1.0)
        request.format = images_pb2.IMAGE_FORMAT_RAW_RGB8
        parts = [event.image for event in self.caller.stream(request) if event.HasField("image")]
        self.assertGreater(len(parts), 1)
        self.assertEqual({part.index for part in parts}, {0})
        self.assertEqual({part.total_bytes for part in parts}, {840 * 840 * 3})
        self.assertEqual(b"".join(part.data for part in parts), self.caller.image(request))

    def test_request_id_is_echoed_and_in_the_trailers(self):
        answer, call = self.caller.images.GenerateImages.with_call(
            request_for(request_id="my id"), timeout=e2e.PATIENCE)
        self.assertEqual(answer.request_id, "my id")
        self.assertEqual(dict(call.trailing_metadata())["x-request-id"], "my id")
        answer, call = self.caller.images.GenerateImages.with_call(request_for(), timeout=e2e.PATIENCE)
        self.assertTrue(answer.request_id)
        self.assertEqual(dict(call.trailing_metadata())["x-request-id"], answer.request_id)
        _, call = self.caller.info.GetServerInfo.with_call(
            server_pb2.GetServerInfoRequest(), timeout=e2e.PATIENCE, metadata=[("x-request-id", "from-metadata")])
        self.assertEqual(dict(call.trailing_metadata())["x-request-id"], "from-metadata")

    def test_a_running_request_id_already_exists(self):
        with e2e.ended(self.caller.stream(request_for(steps=1000, request_id="twin"))) as first:
            e2e.read_until(first, "progress")
            problem = e2e.problem_of(lambda: self.caller.generate(request_for(request_id="twin")))
            self.assertEqual((problem.code, problem.reason), ("ALREADY_EXISTS", "REQUEST_ID_RUNNING"))
        e2e.wait_until(lambda: self.can_run("twin"), "the id is free again")

    def can_run(self, request_id):
        try:
            return self.caller.generate(request_for(request_id=request_id, steps=1))
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.ALREADY_EXISTS)
            return None

    # --- adapters, information, health

    def test_adapters_are_listed_in_pages(self):
        stub = self.caller.adapters
        everything = stub.ListAdapters(adapters_pb2.ListAdaptersRequest())
        self.assertEqual([adapter.name for adapter in everything.adapters], ["night", "outline"])
        self.assertEqual(everything.next_page_token, "")
        names, token = [], ""
        for _ in range(2):
            page = stub.ListAdapters(adapters_pb2.ListAdaptersRequest(page_size=1, page_token=token))
            names += [adapter.name for adapter in page.adapters]
            token = page.next_page_token
            self.assertEqual(len(page.adapters), 1)
        self.assertEqual((names, token), (["night", "outline"], ""))
        problem = e2e.problem_of(lambda: stub.ListAdapters(adapters_pb2.ListAdaptersRequest(page_token="x")))
        self.assertEqual((problem.code, list(problem.fields)), ("INVALID_ARGUMENT", ["page_token"]))

    def test_load_get_and_unload(self):
        stub = self.caller.adapters
        stub.UnloadAdapter(adapters_pb2.UnloadAdapterRequest(name="night"))
        self.assertEqual(self.adapter("night").tier, adapters_pb2.ADAPTER_TIER_DISK)
        loaded = stub.LoadAdapter(adapters_pb2.LoadAdapterRequest(name="night", pin=True), timeout=e2e.PATIENCE)
        self.assertIn(loaded.tier, (adapters_pb2.ADAPTER_TIER_HOST, adapters_pb2.ADAPTER_TIER_DEVICE))
        self.assertTrue(loaded.pinned)
        self.assertEqual(loaded.state, adapters_pb2.ADAPTER_STATE_AVAILABLE)
        self.assertEqual(loaded.bytes, (e2e.DEMO_ADAPTERS / "night.safetensors").stat().st_size)
        self.assertRegex(loaded.content_sha256, "^[0-9a-f]{64}$")
        self.assertEqual((loaded.format, loaded.in_use), ("lora", 0))
        self.assertGreater(loaded.rank_max, 0)
        self.assertIn("unet", loaded.targets)
        self.assertEqual(self.adapter("night"), loaded)
        summary = self.caller.generate(request_for("night")).summary
        self.assertEqual(summary.adapters[0].tier_found, loaded.tier)
        self.assertEqual(summary.adapters[0].content_sha256, loaded.content_sha256)
        unloaded = stub.UnloadAdapter(adapters_pb2.UnloadAdapterRequest(name="night"))
        self.assertEqual((unloaded.tier, unloaded.pinned), (adapters_pb2.ADAPTER_TIER_DISK, False))
        summary = self.caller.generate(request_for("night")).summary
        self.assertEqual(summary.adapters[0].tier_found, adapters_pb2.ADAPTER_TIER_DISK)

    def adapter(self, name):
        return self.caller.adapters.GetAdapter(adapters_pb2.GetAdapterRequest(name=name))

    def test_an_adapter_is_in_use_while_a_request_has_it(self):
        with e2e.ended(self.caller.stream(request_for("night", steps=1000))) as stream:
            e2e.read_until(stream, "progress")
            self.assertEqual(self.adapter("night").in_use, 1)
        e2e.wait_until(lambda: self.adapter("night").in_use == 0, "nobody uses it")

    def test_server_info(self):
        info = self.caller.info.GetServerInfo(server_pb2.GetServerInfoRequest())
        self.assertTrue(info.version)
        self.assertEqual(info.model, "model")
        self.assertRegex(info.model_sha256, "^[0-9a-f]{64}$")
        self.assertEqual(info.dtype, e2e.DTYPE)
        self.assertEqual((info.device, info.native_width, info.native_height), ("cpu", 128, 128))
        limits = info.limits
        self.assertEqual((limits.max_batch, limits.max_queue, limits.max_images), (4, 64, 16))
        self.assertEqual((limits.max_steps, limits.max_pixels, limits.max_side), (1000, 4_200_000, 4096))
        self.assertEqual((limits.max_adapters, limits.max_prompt_bytes), (16, 16384))
        self.assertEqual((limits.max_request_seconds, limits.max_message_bytes), (0.0, 32 << 20))
        self.assertGreater(limits.max_clip_skip, 0)

    def test_health(self):
        names = ["", "hotlora.v1.ImageService", "hotlora.v1.AdapterService", "hotlora.v1.ControlService",
                 "hotlora.v1.ImagePromptService", "hotlora.v1.ServerService"]
        for name in names:
            self.assertTrue(self.caller.is_serving(name), name)
        problem = e2e.problem_of(lambda: self.caller.is_serving("no.such.Service"))
        self.assertEqual(problem.code, "NOT_FOUND")
        with e2e.ended(self.caller.health.Watch(health_pb2.HealthCheckRequest(), timeout=e2e.PATIENCE)) as watch:
            self.assertEqual(next(iter(watch)).status, health_pb2.HealthCheckResponse.SERVING)

    # --- other programs

    def test_grpcurl_by_reflection(self):
        listed = e2e.run(GRPCURL, "-plaintext", self.server.target, "list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        expected = {f"hotlora.v1.{name}Service" for name in ("Image", "Adapter", "Server")}
        self.assertLessEqual(expected | {"grpc.health.v1.Health"}, set(listed.stdout.split()))
        called = e2e.run(GRPCURL, "-plaintext", self.server.target, "hotlora.v1.ServerService/GetServerInfo")
        self.assertEqual(called.returncode, 0, called.stderr)
        info = json.loads(called.stdout)
        self.assertEqual(info.get("nativeWidth", info.get("native_width")), 128)  # its versions spell it differently

    def test_program_writes_parsable_json(self):
        file = self.out / "json.png"
        made = self.hotlora_json("generate", "a circle", "--seed", "3", "--steps", "1", "--images", "2",
                                 "--adapter", "night:0.5", "--out", file)
        self.assertEqual([image["seed"] for image in made["images"]], [3, 4])
        for image in made["images"]:
            self.assertEqual(os.path.getsize(image["file"]), image["bytes"])
        self.assertEqual(made["summary"]["adapters"][0]["name"], "night")
        listed = self.hotlora_json("adapters", "list")
        self.assertEqual([adapter["name"] for adapter in listed["adapters"]], ["night", "outline"])
        self.assertEqual(self.hotlora_json("adapters", "load", "outline")["tier"], "ADAPTER_TIER_DEVICE")
        self.assertEqual(self.hotlora_json("adapters", "get", "outline")["format"], "locon")
        self.assertEqual(self.hotlora_json("adapters", "unload", "outline")["tier"], "ADAPTER_TIER_DISK")
        self.assertEqual(self.hotlora_json("info")["native_width"], 128)
        self.assertEqual(self.hotlora_json("health"), {"serving": True})
        refused = self.hotlora("--json", "generate", "a circle", "--adapter", "nobody", "--out", file)
        self.assertEqual(refused.returncode, 1)
        error = json.loads(refused.stdout)["error"]
        self.assertEqual((error["code"], error["reason"]), ("NOT_FOUND", "ADAPTER_NOT_FOUND"))


if __name__ == "__main__":
    unittest.main()
